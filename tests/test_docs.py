"""What can be said of the documentation without building it; see also `tests/docs`."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import tallymark
from documents import DOCUMENTS, fences
from tallymark import SyncTally, Tally
from tallymark import sync as tm

if TYPE_CHECKING:
    from pathlib import Path

#: The languages of blocks, and who looks at them. What none does must not be a program.
LANGUAGES = {
    "python": "tests/test_readme.py runs them",
    "console": "tests/cli/test_console.py runs them",
    "py": "modules of tests; these here run them",
    "sh": "these here parse them",
    "none": "commands of Redis, for its own client",
    "text": "what a program prints, or a drawing",
    "diff": "two versions of lines that stand elsewhere",
    "{eval-rst}": "`nox -s docs` reads them, like all directives",
    "{include}": "",
}

#: The directives of the reference: what is documented by whom.
DIRECTIVES = re.findall(
    r"^\.\. (?:auto\w+|py:\w+):: ([\w.]+)",
    "\n".join(text for name, text in DOCUMENTS.items() if name.startswith("docs/reference")),
    re.MULTILINE,
)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_has_a_language_that_is_looked_at(document: str) -> None:
    for block in fences(DOCUMENTS[document]):
        assert block.info.partition(" ")[0] in LANGUAGES, block.content
        if block.info == "sh":
            subprocess.run(["bash", "-n", "-c", block.content], check=True)


def test_the_tests_of_the_pages_pass(tmp_path: Path) -> None:
    pages = [text for text in DOCUMENTS.values() if "```py\n" in text]
    blocks = [block.content for text in pages for block in fences(text) if block.info == "py"]
    assert blocks
    for number, block in enumerate(blocks):
        (tmp_path / f"test_page_{number}.py").write_text(block, encoding="utf-8")
    pytest_alone = [sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto"]
    plugin = [] if "pytest_tallymark" in installed_plugins() else ["-p", "pytest_tallymark"]
    subprocess.run([*pytest_alone, *plugin, "."], check=True, cwd=tmp_path)


def installed_plugins() -> set[str]:
    """Return the modules of pytest's plugins that are installed."""
    return {point.value for point in importlib.metadata.entry_points(group="pytest11")}


def test_the_first_page_links_to_each_page_once() -> None:
    """Its lists are the site's table of contents."""
    links = re.findall(r"^- \[.+\]\((.+\.md)\)$", DOCUMENTS["docs/index.md"], re.MULTILINE)
    pages = [name.removeprefix("docs/") for name in DOCUMENTS if name.startswith("docs/")]
    assert sorted(["index.md", *links]) == sorted(pages)


@pytest.mark.parametrize("facade", [Tally, SyncTally])
def test_every_method_of_the_facades_has_a_place_in_the_reference(facade: type) -> None:
    names = [name for name in dir(facade) if not name.startswith("_")]
    for name in names:
        assert DIRECTIVES.count(f"tallymark.{facade.__name__}.{name}") == 1, name


@pytest.mark.parametrize("module", [tallymark, tm])
def test_every_public_name_has_a_place_in_the_reference(module: Any) -> None:
    for name in module.__all__:
        assert {f"{module.__name__}.{name}", name} & set(DIRECTIVES), name
