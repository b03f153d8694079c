"""Hostile values for every argument of every public callable: errors of ours, nothing sent.

Callables and their arguments are found by looking, so a new verb takes part by itself. An
argument of a new name needs an innocent value in `INNOCENT`.
"""

from __future__ import annotations

import contextlib
import inspect
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import redis
import redis.asyncio

import tallymark
from facades import ASYNC, FACADES, SYNC, Facade
from hostile import HOSTILE, used
from tallymark import (
    Granularity,
    KeySchema,
    Period,
    SyncTally,
    Tally,
    TallymarkError,
    TallyOptions,
    Transaction,
    bitmapist,
)
from tallymark import sync as tm
from tallymark._core.events import EventSet
from tallymark._core.offsets import Offsets
from tallymark._reports.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stores import Store

NOON = datetime(2026, 11, 23, 12)
DAY = Period.containing(Granularity.DAY, NOON)

#: What an argument of a name may be. `SETS` stands for an event set of the tally.
SETS = object()
INNOCENT: dict[str, Any] = {
    "event": "a",
    "user_id": 1,
    "user_ids": [1, 2],
    "numbers": [1, 2],
    "rows": [("a", 1, NOON)],
    "on_error": None,
    "source": 1,
    "target": 2,
    "now": NOON,
    "track_hourly": None,
    "track_unique": None,
    "exact": False,
    "timeout": 5,
    "event_set": SETS,
    "event_sets": [SETS],
    "batches": [("a", "day", "2026-11-23", 1)],
    "granularities": "day",
    "on_skip": None,
    "start": 0,
    "limit": 5,
    "cohort": "a",
    "what": "a",
    "rolling": 3,
    "activity": "a",
    "by": "day",
    "periods": 2,
    "cohorts": 2,
    "until": NOON,
    "mode": "classic",
    "first_time": False,
    "anchor": None,
    "segments": None,
    "brackets": None,
    "labels": {"a": "A"},
    "day": NOON,
    "steps": ["a"],
    "window": timedelta(days=2),
    "resolution": "day",
    "moment": NOON,
    "prefix": "trackist_",
    "granularity": "day",
    "dry_run": False,
    "events": ["a"],
    "since": NOON,
    "period": DAY,
    "end": datetime(2026, 11, 25),
    "days": 2,
    "hours": 2,
    "number": 1,
    "as_": "a",
    "count": 1,
    "title": "a",
    "fragment": False,
    "key": b"trackist_a_2026-11-23",
    "max_user_id": 100,
    "max_size": 10,
    "on_full": "drop",
    "shards": None,
    "other": SETS,
    # The drop-in's.
    "event_name": "a",
    "uuid": 1,
    "system": "default",
    "use_pipeline": True,
    "batch": 10,
    "dt": NOON,
    "year": 2026,
    "month": 11,
    "week": 48,
    "hour": 12,
    "value": 1,
    "select1": "a",
    "select2": "a",
    "select1b": None,
    "select2b": None,
    "time_group": "days",
    "as_percent": True,
    "num_results": 2,
    "num_of_rows": 2,
    "start_date": None,
    "system_or_event": "default",
    "op_name": "AND",
}
#: The same, where the name alone does not tell.
ELSEWHERE: dict[tuple[str, str], Any] = {
    ("history", "until"): datetime(2026, 11, 25),
    ("export", "until"): datetime(2026, 11, 25),
    # An ordered funnel: that of one period has no arguments that other verbs have not.
    ("funnel", "by"): None,
    ("funnel", "moment"): None,
    ("funnel", "until"): datetime(2026, 11, 25),
    ("between", "start"): NOON,
    ("event_names", "prefix"): "a",
    ("get_event_names", "prefix"): "a",
    ("Period", "start"): DAY.start,
    ("Batch", "granularity"): Granularity.DAY,
    ("Period", "granularity"): Granularity.DAY,
    ("Period.containing", "granularity"): Granularity.DAY,
    ("KeySchema", "user_ids"): None,
    ("KeySchema.partition", "user_ids"): Offsets([1], 1, 1),
}

#: Large numbers whose price another test bounds, and callables of the caller's own, whose
#: exceptions are the caller's.
_LARGE = (
    "4294967296",
    "18446744073709551616",
    repr(10**30),
    "10**400",
    "10**5000",
    repr(np.uint64(2**64 - 1)),
)
_EARLY = (
    "datetime.date(1, 1, 1)",
    "datetime.datetime(1, 1, 1, 0, 0)",
    "first moment, east",
    "first moment, west",
)
_LATE = ("datetime.date(9999, 12, 31)", "datetime.datetime(9999, 12, 31, 23, 59, 59, 999999)")


def _is_callable(name: str) -> bool:
    with used(name) as value:
        return callable(value)


_CALLABLE = tuple(name for name in HOSTILE if _is_callable(name))
LEFT_OUT: dict[tuple[str, str], tuple[str, ...]] = {
    ("retention", "periods"): _LARGE,
    ("retention", "cohorts"): _LARGE,
    ("history", "since"): _EARLY,
    ("history", "until"): (*_LATE, "last moment, west", "last moment, east"),
    ("retention", "cohort"): _CALLABLE,
    ("retention", "activity"): _CALLABLE,
    ("trend", "what"): _CALLABLE,
    ("days_active", "activity"): _CALLABLE,
    ("lifecycle", "activity"): _CALLABLE,
}


def parameters(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments of a function, with an innocent value for each."""
    found = {}
    for each in inspect.signature(function).parameters.values():
        if each.name == "self" or each.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        found[each.name] = ELSEWHERE.get((name, each.name), INNOCENT.get(each.name, _MISSING))
        assert found[each.name] is not _MISSING, (
            f"{name}() has an argument {each.name!r}: give it an innocent value in INNOCENT"
        )
    return found


_MISSING = object()


def cases(name: str, function: Callable[..., Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield an argument, the hostile value for it, and all others."""
    innocent = parameters(name, function)
    for argument in innocent:
        for value in HOSTILE:
            # The least timeout is allowed, and its commands may arrive after the call has ended.
            if (argument, value) != ("timeout", "5e-324") and value not in LEFT_OUT.get(
                (name, argument), ()
            ):
                yield argument, value, innocent


class Watch:
    """Watches whether a server is sent anything."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._asked = 0
        self.failures: list[str] = []
        self.raised = 0

    def commands(self) -> int:
        """Return how many commands others have sent."""
        self._asked += 1
        return int(self._raw.info("stats")["total_commands_processed"]) - self._asked

    def check(
        self, what: str, error: BaseException | None, before: int, allowed: tuple[Any, ...] = ()
    ) -> None:
        """Take note of a call that returned or raised."""
        if error is None:
            return
        self.raised += 1
        if not isinstance(error, (TallymarkError, *allowed)):
            self.failures.append(f"{what}: {type(error).__name__}: {str(error)[:120]}")
            return
        try:
            message = str(error)
        except Exception as broken:  # noqa: BLE001
            self.failures.append(f"{what}: the message raises {broken!r}")
            return
        if isinstance(error, TallymarkError):
            if not message.isprintable() or len(message) > 1000:
                self.failures.append(f"{what}: the message is {message!r:.200}")
            if sent := self.commands() - before:
                self.failures.append(f"{what}: {sent} commands were sent: {message:.100}")

    def verdict(self) -> None:
        """Fail if anything was wrong."""
        assert not self.failures, f"{len(self.failures)}:\n" + "\n".join(self.failures[:40])


def filled(arguments: dict[str, Any], event_set: Any) -> dict[str, Any]:
    """Return arguments with an event set of the tally in the place of `SETS`."""
    return {
        name: [event_set if each is SETS else each for each in value]
        if isinstance(value, list)
        else event_set
        if value is SETS
        else value
        for name, value in arguments.items()
    }


def call(function: Callable[..., Any], arguments: dict[str, Any]) -> BaseException | None:
    """Call a function, use what it returns, and return what it raises."""
    try:
        result = function(**arguments)
        if isinstance(result, contextlib.AbstractContextManager):
            with result as found:
                if isinstance(found, Transaction):
                    found.mark_unique("a", 1)
        elif inspect.isgenerator(result):
            next(result, None)
            result.close()
    except Exception as error:  # noqa: BLE001 - what it is, is the question
        return error
    return None


async def call_async(
    function: Callable[..., Any], arguments: dict[str, Any]
) -> BaseException | None:
    """Do the same where there is something to await."""
    try:
        result = function(**arguments)
        if inspect.isawaitable(result):
            await result
        elif isinstance(result, contextlib.AbstractAsyncContextManager):
            async with result as found:
                if isinstance(found, Transaction):
                    found.mark_unique("a", 1)
        elif inspect.isasyncgen(result):
            await anext(result, None)
            await result.aclose()
    except Exception as error:  # noqa: BLE001 - what it is, is the question
        return error
    return None


def methods(owner: Any) -> dict[str, Any]:
    """Return the public methods of a class that take arguments."""
    found = {
        name: getattr(owner, name)
        for name in dir(owner)
        if not name.startswith("_") and inspect.isroutine(getattr(owner, name))
    }
    return {
        name: method
        for name, method in found.items()
        if set(inspect.signature(method).parameters) - {"self"}
    }


VERBS = sorted(methods(Tally).keys() - {"from_url"})
FUNCTIONS = sorted(
    name
    for name in tm.__all__
    if inspect.isfunction(getattr(tm, name)) and inspect.signature(getattr(tm, name)).parameters
    if name != "configure"
)


def test_all_verbs_take_part() -> None:
    assert {"mark_event", "mark_many", "retention", "users", "day", "between"} <= set(VERBS)
    assert {"mark_event", "mark_many", "mark_unique_many", "transaction"} <= set(FUNCTIONS)
    assert methods(Tally).keys() == methods(SyncTally).keys()
    assert len(HOSTILE) > 100


# What shards change is behind both facades.
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("facade", "shards"),
    [(ASYNC, None), (ASYNC, 3), (SYNC, None)],
    indirect=["facade"],
    ids=["async-None", "async-3", "sync-None"],
)
@pytest.mark.parametrize("verb", VERBS)
async def test_verbs_of_a_tally(
    facade: Facade, redis_store: Store, verb: str, shards: int | None
) -> None:
    watch = Watch(redis_store.raw)
    tally: Any = facade.tally.from_url(redis_store.url, shards=shards)
    event_set = tally.day("a", NOON)
    try:
        for argument, value, innocent in cases(verb, getattr(facade.tally, verb)):
            with used(value) as hostile:
                before = watch.commands()
                arguments = {**filled(innocent, event_set), argument: hostile}
                if facade.name == "async":
                    error = await call_async(getattr(tally, verb), arguments)
                else:
                    error = call(getattr(tally, verb), arguments)
                watch.check(f"{verb}({argument}={value})", error, before)
        assert watch.raised > 20
        watch.verdict()
    finally:
        await facade.close(tally)


@pytest.mark.parametrize("name", FUNCTIONS)
async def test_functions_of_the_modules(facade: Facade, redis_store: Store, name: str) -> None:
    watch = Watch(redis_store.raw)
    tallymark.configure(redis_store.url)
    function = getattr(facade.module, name)
    for argument, value, innocent in cases(name, function):
        with used(value) as hostile:
            before = watch.commands()
            arguments = {**filled(innocent, None), argument: hostile}
            error = (
                await call_async(function, arguments)
                if facade.name == "async"
                else call(function, arguments)
            )
            watch.check(f"{name}({argument}={value})", error, before)
    assert watch.raised > 20
    watch.verdict()


@pytest.mark.parametrize("name", sorted(methods(Transaction).keys() - {"resolve", "sending"}))
async def test_verbs_of_a_transaction(facade: Facade, redis_store: Store, name: str) -> None:
    watch = Watch(redis_store.raw)
    async with facade.open(redis_store.url) as tally, tally.transaction() as transaction:
        verb = getattr(transaction, name)
        before = watch.commands()
        for argument, value, innocent in cases(name, getattr(Transaction, name)):
            with used(value) as hostile:
                error = call(verb, {**innocent, argument: hostile})
                watch.check(f"{name}({argument}={value})", error, before)
        transaction.marks.clear()
    assert watch.raised > 20
    watch.verdict()


@pytest.mark.parametrize("option", ["client", "user_ids", *TallyOptions.__annotations__])
@pytest.mark.parametrize("way", ["client", "from_url", "configure"])
async def test_options(facade: Facade, redis_store: Store, way: str, option: str) -> None:
    watch = Watch(redis_store.raw)
    kind = redis.Redis if facade.name == "sync" else redis.asyncio.Redis
    client: Any = kind.from_url(redis_store.url)
    for value in HOSTILE:
        with used(value) as hostile:
            before = watch.commands()
            options = {option: hostile}
            made = None
            error = None
            try:
                if way == "client":
                    made = facade.tally(**{"client": client, **options})
                elif option == "client":
                    made = facade.tally.from_url(hostile)
                elif way == "from_url":
                    made = facade.tally.from_url(redis_store.url, **options)
                else:
                    tallymark.configure(redis_store.url, **options)
            except Exception as raised:  # noqa: BLE001
                error = raised
            if made is not None:
                await facade.close(made)
            watch.check(f"{way}({option}={value})", error, before)
    assert watch.raised > 10
    watch.verdict()


def test_urls_of_configure(redis_store: Store) -> None:
    watch = Watch(redis_store.raw)
    for value in HOSTILE:
        with used(value) as hostile:
            before = watch.commands()
            error = call(tallymark.configure, {"url": hostile})
            watch.check(f"configure(url={value})", error, before)
    watch.verdict()


@contextlib.contextmanager
def no_server() -> Iterator[Watch]:
    """Watch what has nobody to send to."""
    watch = Watch(None)
    watch.commands = lambda: 0  # type: ignore[method-assign]
    yield watch
    assert watch.raised > 5
    watch.verdict()


def test_values() -> None:
    """What is built without a tally: schemas of keys, periods, event sets, tables."""
    with SyncTally.from_url("memory://") as tally:
        days = tally.day("a", NOON), tally.unique("a"), tally.last("a", 9, NOON), tally.year("a")
    table = Retention("a", "b", Granularity.DAY, "classic", False, NOON, ())
    schema, shared = KeySchema(), KeySchema(shards=3)
    functions: dict[str, Any] = {
        "KeySchema": KeySchema,
        **{f"KeySchema.{name}": each for name, each in methods(schema).items()},
        **{f"KeySchema.{name} ": getattr(shared, name) for name in methods(schema)},
        "Period": Period,
        **{f"Period.{name}": each for name, each in methods(DAY).items()},
        "Batch": tallymark.Batch,
        "any_of": tallymark.any_of,
        "all_of": tallymark.all_of,
        "at_least": tallymark.at_least,
        "Retention.to_html": table.to_html,
        **{
            f"EventSet{index}.{name}": getattr(each, name)
            for index, each in enumerate((*days, days[0] & days[1]))
            for name in (*(methods(EventSet).keys() - {"at"}), "__and__", "__or__", "__xor__")
        },
        **{f"EventSet{index}.__sub__": each.__sub__ for index, each in enumerate(days)},
    }
    assert {"KeySchema.offset", "Period.containing", "EventSet0.shift"} <= functions.keys()
    with no_server() as watch:
        for name, function in functions.items():
            for argument, value, innocent in cases(name.strip(), function):
                with used(value) as hostile:
                    arguments = {**filled(innocent, days[0]), argument: hostile}
                    error = call(function, arguments)
                    watch.check(f"{name}({argument}={value})", error, 0)


DROP_IN = [
    *("mark_event", "unmark_event", "mark_unique", "unmark_unique", "get_event_names"),
    *("DayEvents", "HourEvents", "WeekEvents", "MonthEvents", "YearEvents", "UniqueEvents"),
    *("BitOpAnd", "BitOpOr", "BitOpXor", "BitOpNot"),
]


@pytest.mark.parametrize("name", DROP_IN)
def test_the_drop_in(redis_store: Store, name: str) -> None:
    """Documented: a KeyError for a system that is not there, errors of redis-py for Redis."""
    watch = Watch(redis_store.raw)
    bitmapist.SYSTEMS["default"] = redis_store.raw.from_url(redis_store.url)
    function = getattr(bitmapist, name)
    innocent = {
        each.name: INNOCENT[each.name]
        for each in inspect.signature(function).parameters.values()
        if each.kind is not inspect.Parameter.VAR_POSITIONAL
    }
    for argument in innocent:
        for value in HOSTILE:
            if value in _LARGE and argument in ROWS:
                continue
            if value in NOWHERE and argument.startswith("system"):
                continue
            with used(value) as hostile:
                before = watch.commands()
                error = use(function, {**innocent, argument: hostile})
                allowed = (KeyError, redis.RedisError) if argument.startswith("system") else ()
                watch.check(f"{name}({argument}={value})", error, before, allowed)
    watch.verdict()


#: Clients that are waited for until their timeout, since they have no server.
NOWHERE = ("closed client", "pipeline", "async pipeline")
ROWS = ("num_results", "num_of_rows", "year")


def use(function: Any, arguments: dict[str, Any]) -> BaseException | None:
    """Call a function of the drop-in; of events, ask about them."""
    try:
        if inspect.isclass(function) and issubclass(function, bitmapist.BitOperation):
            system = arguments["system_or_event"]
            events: Any = function(system, bitmapist.UniqueEvents("a"))
        else:
            events = function(**arguments)
        if inspect.isclass(function):
            events.get_count()
            assert 1 not in events
            events.has_events_marked()
            assert list(events) == []
            repr(events)
    except Exception as error:  # noqa: BLE001 - what it is, is the question
        return error
    return None


def test_every_hostile_value_is_made_anew() -> None:
    assert FACADES
    for name in HOSTILE:
        with used(name):
            pass
