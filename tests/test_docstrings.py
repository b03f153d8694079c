"""The docstrings of public functions: complete, and the same in both facades."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from typing import TYPE_CHECKING, Any

import pytest

import tallymark
from tallymark import SyncTally, Tally, integrations
from tallymark import sync as tm
from tallymark._async.maintenance import AsyncMaintenance
from tallymark._async.reads import AsyncReads
from tallymark._async.reports import AsyncReports
from tallymark._async.transfer import AsyncTransfer

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The verbs that the modules have too, with the default tally.
MARKING = (
    "mark_event",
    "unmark_event",
    "mark_unique",
    "unmark_unique",
    "mark_many",
    "unmark_many",
    "mark_unique_many",
    "unmark_unique_many",
    "transaction",
)
READS = [
    name
    for verbs in (AsyncReads, AsyncMaintenance, AsyncTransfer, AsyncReports)
    for name in vars(verbs)
    if not name.startswith("_")
]

#: The second paragraph of a module's verb.
DEFAULT_TALLY = {
    tallymark: "On the running event loop's default tally, which `configure` describes.",
    tm: "On this process's default tally, which `configure` describes.",
}

#: How a docstring of the asyncio facade becomes that of the blocking one: patterns, and what
#: takes their place. Nothing else may differ but the line breaks.
BLOCKING = [
    # Nothing is awaited, so no call can be cancelled, and none is of an event loop.
    (r"\n\s*Cancelled:.*?(?=\n\s*\n|\s*\Z)", ""),
    (r", WrongEventLoopError\b", ""),
    (r",\s+or\s+belongs\s+to\s+another\s+event\s+loop\b", ""),
    (r"\basync with\b", "with"),
    (r": `async for` has a cost\s+for each item", ""),
    # Threads take the place of tasks, and each call computes in its own one.
    (r"\bother(\s+)tasks\b", r"other\1threads"),
    (r"by the tally in a thread, with", "by the tally, with"),
    # Reads do not wait for each other, so there is no limit for those that do.
    (r"\n *OverloadedError: ``max_pending`` reads were waiting\.", ""),
    # Async iterables are for the asyncio facade.
    (r"\ban async iterable,\s+or\s+a\b", "or a"),
    (r"\s+An async iterable is\s+cancelled at the deadline;[^.]*\.", ""),
    (r",\s+and\s+keeps\s+the\s+event\s+loop\s+from\s+running:", ":"),
    (r"\n\s*An async iterable with an ``aclose``.*?(?=\n\s*\n|\s*\Z)", ""),
]


def blocking(doc: str) -> str:
    """Return the docstring of the blocking facade for one of the asyncio facade."""
    for pattern, replacement in BLOCKING:
        doc = re.sub(pattern, replacement, doc, flags=re.DOTALL)
    return doc


def words(doc: str) -> list[str]:
    """Return the words of a docstring, whatever its line breaks."""
    return doc.split()


def doc_of(owner: Any, verb: str) -> str:
    return inspect.getdoc(getattr(owner, verb)) or ""


@pytest.mark.parametrize("verb", [*MARKING, *READS])
def test_the_facades_have_the_same_docstrings(verb: str) -> None:
    assert words(doc_of(SyncTally, verb)) == words(blocking(doc_of(Tally, verb)))


@pytest.mark.parametrize("verb", MARKING)
@pytest.mark.parametrize("module", [tallymark, tm], ids=lambda module: module.__name__)
def test_the_modules_have_the_docstrings_of_the_tallies(module: Any, verb: str) -> None:
    tally = Tally if module is tallymark else SyncTally
    first, second, *others = doc_of(module, verb).split("\n\n")
    assert second == DEFAULT_TALLY[module]
    assert words("\n\n".join([first, *others])) == words(doc_of(tally, verb))


def test_every_rewording_is_in_use() -> None:
    docs = [doc_of(Tally, verb) for verb in (*MARKING, *READS)]
    for pattern, _ in BLOCKING:
        assert any(re.search(pattern, doc, flags=re.DOTALL) for doc in docs), pattern


def functions_of(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield the public functions of a module, and the methods of its public classes."""
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isfunction(value):
            yield f"{module.__name__}.{name}", value
        elif inspect.isclass(value) and not issubclass(value, BaseException):
            for attribute in dir(value):
                member = inspect.getattr_static(value, attribute)
                member = getattr(member, "__func__", member)
                if not inspect.isfunction(member):
                    continue
                # Constructors and calls without a docstring are not for programs.
                if not attribute.startswith("_") or (
                    attribute in {"__init__", "__call__"} and member.__doc__
                ):
                    yield f"{name}.{attribute}", member


def public_functions() -> list[tuple[str, Any]]:
    found = {name: value for module in (tallymark, tm) for name, value in functions_of(module)}
    return [(name, value) for name, value in found.items() if not name.endswith("__")]


@pytest.mark.parametrize(
    ("name", "value"), [pytest.param(*item, id=item[0]) for item in public_functions()]
)
def test_docstrings_are_whole(name: str, value: Any) -> None:
    doc = inspect.getdoc(value) or ""
    assert not re.search(r"\b[Ss]ee (`|tallymark)|[Rr]ead there", doc), name
    signature = inspect.signature(value)
    if signature.return_annotation not in {"None", inspect.Signature.empty}:
        assert re.search(r"\b(Return|Yield)", doc), name
    if [parameter for parameter in signature.parameters if parameter not in {"self", "cls"}]:
        assert re.search(r"\b[Rr]aises?\b", doc), name


#: The modules that programs import.
PUBLIC = [
    "tallymark",
    "tallymark.sync",
    "tallymark.bitmapist",
    "tallymark.bitmapist.cohort",
    "tallymark.migrate",
    "tallymark.otel",
    *(
        f"{integrations.__name__}.{module.name}"
        for module in pkgutil.iter_modules(integrations.__path__)
        if not module.name.startswith("_")
    ),
]


def described_arguments(doc: str) -> set[str]:
    """Return the names that a docstring's list of arguments has."""
    names: set[str] = set()
    for section in re.findall(r"^Arguments:\n(.*?)(?=^\S|\Z)", doc, flags=re.DOTALL | re.MULTILINE):
        # An entry may name several arguments, on several lines.
        joined = re.sub(r"^(    \w[\w, ]*,)\n\s*", r"\1 ", section, flags=re.MULTILINE)
        for entry in re.findall(r"^    (\w[\w, ]*):\s", joined, flags=re.MULTILINE):
            names.update(name.strip() for name in entry.split(","))
    return names


@pytest.mark.parametrize("module", PUBLIC)
def test_docstrings_list_all_arguments(module: str) -> None:
    """The list has each argument, and no other. One may be named by the first sentence instead."""
    wrong: dict[str, set[str]] = {}
    for name, value in functions_of(importlib.import_module(module)):
        doc = inspect.getdoc(value) or ""
        arguments = set(inspect.signature(value).parameters) - {"self", "cls"}
        described = described_arguments(doc)
        sentence = doc.partition("\n\n")[0]
        if not described and len(arguments) == 1 and f"``{min(arguments)}``" in sentence:
            continue
        if described != arguments:
            wrong[name] = described ^ arguments
    assert not wrong
