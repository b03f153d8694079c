"""The public names: complete, documented, and the same in both facades."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from types import ModuleType
from typing import Any

import pytest

import tallymark
from tallymark import SyncTally, Tally, Transaction, bitmapist
from tallymark import sync as tm
from tallymark._async.maintenance import AsyncMaintenance
from tallymark._async.reads import AsyncReads
from tallymark._async.reports import AsyncReports
from tallymark._async.transfer import AsyncTransfer
from tallymark._core.context import EventSets
from tallymark._sync.reports import SyncReports

VERBS = ["mark_event", "unmark_event", "mark_unique", "unmark_unique"]
MANY = ["mark_many", "mark_rows", "unmark_many", "mark_unique_many", "unmark_unique_many"]
#: What a tally has beside the verbs that mark.
READS = [
    name
    for verbs in (AsyncReads, AsyncMaintenance, AsyncTransfer, AsyncReports)
    for name in vars(verbs)
    if not name.startswith("_")
]
STREAMS = ["users", "user_chunks", "export"]
MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.walk_packages(tallymark.__path__, "tallymark.")
]


@pytest.mark.parametrize("module", [tallymark, *MODULES], ids=lambda module: module.__name__)
def test_all_tells_the_truth(module: ModuleType) -> None:
    promised = set(module.__all__)
    assert len(promised) == len(module.__all__)
    for name in promised:
        getattr(module, name)
    defined = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }
    if module is tallymark:  # defines nothing, shows everything
        defined = {
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and not isinstance(value, ModuleType)
        } - {"annotations"}
        assert defined <= promised
    inspected = {name for name in promised if hasattr(getattr(module, name), "__module__")}
    assert inspected <= set(dir(module))


def public_members() -> list[tuple[str, Any]]:
    members: list[tuple[str, Any]] = [(module.__name__, module) for module in MODULES]
    for module, name in [
        *((tallymark, name) for name in tallymark.__all__),
        *((bitmapist, name) for name in bitmapist.__all__),
    ]:
        value = getattr(module, name)
        members.append((name, value))
        if inspect.isclass(value):
            members += [
                (f"{name}.{attribute}", member)
                for attribute, member in inspect.getmembers(value)
                if not attribute.startswith("_")
                and (inspect.isfunction(member) or isinstance(member, property))
            ]
    members += [(f"sync.{name}", getattr(tm, name)) for name in tm.__all__]
    return [(name, value) for name, value in members if not isinstance(value, bool | dict)]


@pytest.mark.parametrize(
    ("name", "value"), public_members(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_public_name_has_a_docstring(name: str, value: Any) -> None:
    doc = inspect.getdoc(value)
    assert doc, name
    assert doc[0].isupper() or doc.startswith("``"), name
    assert doc != inspect.getdoc(object), name


def parameters(function: Any) -> list[tuple[str, Any, Any, str]]:
    """Return the parameters of a verb; those of a module are as if its ids had one type."""
    return [
        (
            parameter.name,
            parameter.kind,
            parameter.default,
            parameter.annotation.replace("UserId", "IdT"),
        )
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "self"
    ]


def without_async_iterables(
    wanted: list[tuple[str, Any, Any, str]],
) -> list[tuple[str, Any, Any, str]]:
    """Return the parameters of a verb as the blocking facade has them."""
    return [
        (name, kind, default, re.sub(r" \| AsyncIterable\[[\w\[\]]+\]", "", annotation))
        for name, kind, default, annotation in wanted
    ]


@pytest.mark.parametrize("verb", MANY)
def test_verbs_of_many_differ_only_in_async_iterables(verb: str) -> None:
    wanted = parameters(getattr(Tally, verb))
    assert parameters(getattr(tallymark, verb)) == wanted
    blocking = without_async_iterables(wanted)
    assert parameters(getattr(SyncTally, verb)) == parameters(getattr(tm, verb)) == blocking


@pytest.mark.parametrize("verb", [*VERBS, "transaction"])
def test_facades_have_the_same_signatures(verb: str) -> None:
    wanted = parameters(getattr(Tally, verb))
    owners: list[Any] = [SyncTally, tallymark, tm]
    for owner in owners:
        assert parameters(getattr(owner, verb)) == wanted, owner
    if verb in VERBS:  # of a transaction, all marks have the time that it has
        *collected, timeout = wanted
        assert timeout[0] == "timeout"
        assert parameters(getattr(Transaction, verb)) == collected


@pytest.mark.parametrize("verb", READS)
def test_reads_are_the_same_in_both_facades(verb: str) -> None:
    ours, theirs = getattr(Tally, verb), getattr(SyncTally, verb)
    assert without_async_iterables(parameters(ours)) == parameters(theirs)
    awaited = inspect.signature(ours).return_annotation
    if verb == "export":
        awaited = awaited.replace("AsyncGenerator", "Generator").replace(", None]", ", None, None]")
    elif verb in STREAMS:
        awaited = awaited.replace("AsyncGenerator", "Iterator").replace(", None", "")
    assert awaited == inspect.signature(theirs).return_annotation
    assert inspect.iscoroutinefunction(ours) == (verb not in STREAMS)


def test_both_facades_have_the_same_methods() -> None:
    def named(owner: type) -> set[str]:
        return {name for name in dir(owner) if not name.startswith("_")}

    assert named(AsyncReports) == named(SyncReports)
    assert named(EventSets) < named(AsyncReports)
    assert named(Tally) - {"aclose"} == named(SyncTally) - {"close"}


@pytest.mark.parametrize("verb", VERBS + MANY)
def test_async_verbs_are_coroutine_functions(verb: str) -> None:
    # What Starlette's background tasks, among others, ask before they call.
    assert inspect.iscoroutinefunction(getattr(Tally, verb))
    assert inspect.iscoroutinefunction(getattr(tallymark, verb))


@pytest.mark.parametrize("verb", VERBS + MANY)
def test_all_but_event_and_user_is_keyword_only(verb: str) -> None:
    kinds = [kind for _, kind, _, _ in parameters(getattr(Tally, verb))]
    positional = 1 if verb == "mark_rows" else 2  # the rows have events and users
    assert kinds[:positional] == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * positional
    assert set(kinds[positional:]) <= {inspect.Parameter.KEYWORD_ONLY}


def test_options_are_documented_and_complete() -> None:
    from tallymark._core.options import Options, TallyOptions

    settable = {name for name, field in Options.__dataclass_fields__.items() if field.init}
    # `user_ids` is an argument of its own: the type of a tally depends on it.
    assert {*TallyOptions.__annotations__, "user_ids"} == settable
    assert TallyOptions.__doc__ is not None
    for name in TallyOptions.__annotations__:
        assert f"{name}: " in TallyOptions.__doc__
    for owner in (Tally, SyncTally):
        for takes in (owner.__init__, owner.from_url, tallymark.configure):
            assert "user_ids: " in (takes.__doc__ or "")
            assert inspect.signature(takes).parameters["user_ids"].default is None


def test_errors_are_what_python_users_expect() -> None:
    for error, builtin in {
        tallymark.InvalidValueError: ValueError,
        tallymark.InvalidTypeError: TypeError,
        tallymark.MissingExtraError: ImportError,
        tallymark.ClosedError: RuntimeError,
        tallymark.StoreUnavailableError: ConnectionError,
        tallymark.StoreTimeoutError: TimeoutError,
    }.items():
        assert issubclass(error, builtin)
        assert issubclass(error, tallymark.TallymarkError)
