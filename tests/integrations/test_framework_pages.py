"""The how-to pages of Flask and Django, in files as a reader would write them, run as programs."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from plugin_runs import passed, run_folder

from documents import DOCUMENTS, READERS_URL, ROOT, fences

if TYPE_CHECKING:
    from pathlib import Path

    from stores import Store


def blocks(page: str, url: str) -> list[str]:
    """Return the blocks of Python, which use a store."""
    found = [block.content for block in fences(DOCUMENTS[page]) if block.info == "python"]
    return [content.replace(READERS_URL, url) for content in found]


def run(folder: Path, *command: str) -> str:
    """Run a module of Python in a folder, and return its output."""
    paths = os.pathsep.join([str(folder), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONPATH": paths, "DJANGO_SETTINGS_MODULE": "mysite.settings"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_of_flask(redis_store: Store, tmp_path: Path) -> None:
    """test_readme.py runs the program of the page, and this its tests."""
    program = "".join(blocks("docs/how-to/flask.md", redis_store.url))
    (tmp_path / "test_shop.py").write_text(program, encoding="utf-8")
    passed(run_folder(tmp_path), 2)


@pytest.fixture
def project(redis_store: Store, tmp_path: Path) -> Path:
    """Return the folder of a new project with all that is on the page."""
    run(tmp_path, "-m", "django", "startproject", "mysite", ".", "--settings=")
    for content in blocks("docs/how-to/django.md", redis_store.url):
        path = tmp_path / content.partition("\n")[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(content)
    return tmp_path


def test_the_page_of_django(
    redis_store: Store, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no issues" in run(project, "manage.py", "check", "--fail-level", "WARNING")
    run(project, "manage.py", "test")
    # What pytest-django does.
    setup = "import django; django.setup()\n"
    setup += "from django.test.utils import setup_test_environment; setup_test_environment()\n"
    with (project / "conftest.py").open("a", encoding="utf-8") as conftest:
        conftest.write(setup)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "mysite.settings")
    passed(run_folder(project), 1)
    assert redis_store.bits() == {}  # each test has had a store of its own
    marking = "from mysite import asgi; from tallymark.integrations import django\n"
    run(project, "-c", f"{marking}django.get_buffer().mark_event('active', 7)")
    assert run(project, "manage.py", "today", "active") == "1\n"
