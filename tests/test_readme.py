"""README and docs tell the truth: their Python runs and prints what it says, commands exist."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import itertools
import re
import subprocess
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from markdown_it import MarkdownIt

import tallymark
from deployments import RIGHTS
from documents import DOCUMENTS, READERS_URL, ROOT, fences
from tallymark import TallymarkError, TallyOptions
from tallymark._redis import memory

if TYPE_CHECKING:
    from stores import Store

README = DOCUMENTS["README.md"]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FENCES = fences(README)
BLOCKS = [token for token in FENCES if token.info == "python"]
COMMANDS = [token.content.strip() for token in FENCES if token.info == "sh"]

#: The pages whose programs tests/recipes runs, in workers, and tests/integrations, in a project.
ELSEWHERE = {"docs/how-to/task-queues.md", "docs/how-to/django.md"}


@pytest.mark.parametrize("document", sorted(set(DOCUMENTS) - ELSEWHERE))
def test_python_blocks_print_what_they_say(
    document: str,
    plain_store: Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run all blocks in order, as one program that a reader types in from the top.

    A block prints the comments of its prints, or the block of text after it.
    """
    monkeypatch.setattr(memory, "_stores", dict(memory._stores))  # a second run begins anew
    monkeypatch.syspath_prepend(ROOT / "examples")
    module = ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", module)  # frameworks look up annotations in it
    blocks = fences(DOCUMENTS[document])
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        for block, following in itertools.zip_longest(blocks, blocks[1:]):
            if block.info != "python":
                continue
            assert block.map is not None
            # So that an error points at the document's own line.
            source = "\n" * (block.map[0] + 1) + block.content.replace(READERS_URL, plain_store.url)
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            code = compile(source, document, "exec", flags, dont_inherit=True)
            running = eval(code, vars(module))  # None, and all done, unless it awaits something
            if inspect.iscoroutine(running):
                loop.run_until_complete(running)
            # A print without a comment is one that must not be reached.
            said = re.findall(r"print\(.*\)  +# (.*)", block.content)
            if following is not None and following.info == "text":
                said += following.content.splitlines()
            assert capsys.readouterr().out.splitlines() == said, block.content
        loop.run_until_complete(loop.shutdown_asyncgens())


def headings_of(document: str) -> set[str]:
    """Return the anchors of a document's headings."""
    titles = [line.lstrip("# ").lower() for line in document.splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", title).replace(" ", "-") for title in titles}


OPTIONS = {*TallyOptions.__annotations__, "user_ids"}


def test_every_error_has_a_section() -> None:
    """Who searches for an exception finds its cause and its cure."""
    page = DOCUMENTS["docs/reference/errors.md"]
    sections = set(re.findall(r"^## (\w+)$", page, re.MULTILINE))
    public = {
        name
        for name in tallymark.__all__
        if isinstance(getattr(tallymark, name), type)
        if issubclass(getattr(tallymark, name), TallymarkError)
    }
    assert public <= sections
    for name in public - {"TallymarkError", "StoreError"}:  # the base classes of the table
        assert f"[`{name}`](#{name.lower()})" in page


def test_every_option_has_a_section() -> None:
    page = DOCUMENTS["docs/reference/options.md"]
    titles = " ".join(re.findall(r"^### (.*)$", page, re.MULTILINE))
    assert set(re.findall(r"\w+", titles)) >= OPTIONS


def test_ci_runs_the_command_that_passes_the_tests() -> None:
    demo, tests = COMMANDS
    assert demo.endswith('pip install ".[cli,memory]" && .venv/bin/tallymark demo')
    assert tests.endswith("nox -s tests")
    script = ROOT / ".ci" / "run"
    assert tests in script.read_text(encoding="utf-8").splitlines()
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_exists(document: str) -> None:
    text = DOCUMENTS[document]
    folder = (ROOT / document).parent
    inline = [
        child
        for token in MarkdownIt().enable("table").parse(text)
        for child in token.children or []
    ]
    links = [str(token.attrs["href"]) for token in inline if token.type == "link_open"]
    images = [str(token.attrs["src"]) for token in inline if token.type == "image"]
    for link in links + images:
        if not link.startswith("https://"):
            path, _, anchor = link.partition("#")
            target = (folder / path).read_bytes().decode(errors="replace") if path else text
            assert not anchor or anchor in headings_of(target), link


def test_every_session_exists() -> None:
    noxfile = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    sessions = {
        node.name
        for node in noxfile.body
        if isinstance(node, ast.FunctionDef)
        if any("nox.session" in ast.unparse(decorator) for decorator in node.decorator_list)
    }
    named = {
        name for names in re.findall(r"nox -s ([a-z_ ]+)", CONTRIBUTING) for name in names.split()
    }
    assert named == sessions


def test_it_is_short() -> None:
    """It says what tallymark is, and how to begin; all else is in the documentation."""
    assert len(README.splitlines()) <= 250


def test_the_example_of_the_first_screen_has_ten_lines() -> None:
    assert README.index(BLOCKS[0].content) < 1500
    assert len([line for line in BLOCKS[0].content.splitlines() if line]) <= 10


def test_the_rights_that_are_documented_are_those_that_the_tests_have() -> None:
    (rights,) = (
        token.content
        for token in fences(DOCUMENTS["docs/how-to/connect.md"])
        if "SETUSER" in token.content
    )
    assert set(re.findall(r"\+\S+", rights)) == set(RIGHTS.split())
