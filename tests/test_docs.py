"""What can be said of the documentation without building it; see also `tests/docs`."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest

import tallymark
from documents import DOCUMENTS, fences
from tallymark import SyncTally, Tally
from tallymark import sync as tm

#: The languages of blocks, and who looks at them. What none does must not be a program.
LANGUAGES = {
    "python": "tests/test_readme.py runs them",
    "console": "tests/cli/test_console.py runs them",
    "py": "modules of docs/how-to/testing.md; tests/integrations/test_testing_page.py runs them",
    "toml": "its settings",
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
