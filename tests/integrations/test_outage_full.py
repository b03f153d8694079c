"""The outage "full" of the plugin for pytest, beside a real server at maxmemory."""

from __future__ import annotations

import contextlib
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from servers import running_server
from tallymark import Batch, Granularity, SyncTally, TallymarkError
from tallymark.integrations import testing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TUESDAY = date(2026, 11, 24)
WEDNESDAY = date(2026, 11, 25)
LONG = timedelta(days=40_000)


def rows(*user_ids: Any) -> list[tuple[str, Any, date]]:
    return [("active", user_id, TUESDAY) for user_id in user_ids]


def transaction(tally: SyncTally[Any], user_id: Any) -> bool:
    with tally.transaction() as tx:
        tx.mark_event("active", user_id, now=TUESDAY)
        tx.unmark_unique("premium", user_id)
    return True


def buffered(tally: SyncTally[Any], user_id: Any) -> bool:
    failed: list[Exception] = []
    with tally.buffered(on_error=lambda error, _: failed.append(error)) as buffer:
        buffer.mark_event("active", user_id, now=TUESDAY)
        buffer.flush()
    if failed:
        raise failed[0]
    return True


#: `known` is a user with marks, `new` one without.
VERBS: dict[str, Callable[[SyncTally[Any], Any, Any], Any]] = {
    "mark_event": lambda tally, known, new: tally.mark_event("active", known, now=TUESDAY),
    "mark_event new": lambda tally, known, new: tally.mark_event("active", new, now=TUESDAY),
    "mark_unique": lambda tally, known, new: tally.mark_unique("premium", known),
    "mark_many": lambda tally, known, new: tally.mark_many("active", [known, new], now=TUESDAY),
    "mark_many, many": lambda tally, known, new: tally.mark_many("active", some(new, 20_000)),
    "mark_unique_many": lambda tally, known, new: tally.mark_unique_many("premium", [known, new]),
    "mark_rows": lambda tally, known, new: tally.mark_rows(rows(known, new)),
    "unmark_event": lambda tally, known, new: tally.unmark_event("active", known, now=TUESDAY),
    "unmark_event exact": lambda tally, known, new: tally.unmark_event(
        "active", known, now=TUESDAY, exact=True
    ),
    "unmark_event new": lambda tally, known, new: tally.unmark_event("active", new),
    "unmark_unique": lambda tally, known, new: tally.unmark_unique("premium", known),
    "unmark_many": lambda tally, known, new: tally.unmark_many("active", [known], now=TUESDAY),
    "unmark_unique_many": lambda tally, known, new: tally.unmark_unique_many("premium", [known]),
    "transaction": lambda tally, known, new: transaction(tally, known),
    "buffered": lambda tally, known, new: buffered(tally, known),
    "merge": lambda tally, known, new: tally.merge(known, new),
    "forget": lambda tally, known, new: tally.forget(known),
    "forget new": lambda tally, known, new: tally.forget(new),
    "save": lambda tally, known, new: tally.save(tally.day("active", TUESDAY), as_="saved"),
    "restore": lambda tally, known, new: tally.restore(
        [Batch("active", Granularity.UNIQUE, None, [known])]
    ),
    "delete": lambda tally, known, new: tally.delete(tally.day("active", TUESDAY)),
    "delete_all": lambda tally, known, new: tally.delete_all("trackist_"),
    "delete_before": lambda tally, known, new: tally.delete_before(WEDNESDAY),
    "apply_expiry": lambda tally, known, new: tally.apply_expiry(),
    "count": lambda tally, known, new: tally.count(tally.day("active", TUESDAY)),
    "count, combined": lambda tally, known, new: tally.count(
        tally.day("active", TUESDAY) & tally.unique("premium")
    ),
    "users": lambda tally, known, new: list(tally.users(tally.day("active", TUESDAY))),
    "contains": lambda tally, known, new: tally.contains(tally.day("active", TUESDAY), known),
    "history": lambda tally, known, new: tally.history(known, "active", TUESDAY, WEDNESDAY),
    "event_names": lambda tally, known, new: tally.event_names(),
    "retention": lambda tally, known, new: tally.retention(
        "active", "active", periods=2, cohorts=2
    ),
}


def some(user_id: Any, count: int) -> list[Any]:
    return [f"{user_id}{n}" if isinstance(user_id, str) else user_id + n for n in range(count)]


@contextlib.contextmanager
def at_maxmemory() -> Iterator[tuple[str, Any]]:
    """Yield the URL of a real server, and its outage."""
    with running_server() as url, SyncTally.from_url(url) as tally:
        raw = tally.client

        @contextlib.contextmanager
        def outage(_: str) -> Iterator[None]:
            raw.config_set("maxmemory", 1)
            try:
                yield
            finally:
                raw.config_set("maxmemory", 0)

        yield url, outage


@contextlib.contextmanager
def through_the_proxy() -> Iterator[tuple[str, Any]]:
    with (
        running_server() as url,
        testing.database(url) as database,
        testing.on_server(database, failing=True) as (proxied, faults),
    ):
        assert faults is not None
        yield proxied, testing.Outage(faults)


@contextlib.contextmanager
def embedded() -> Iterator[tuple[str, Any]]:
    with testing.embedded() as (url, faults):
        yield url, testing.Outage(faults)


def outcomes(store: Any, user_ids: Any, known: Any, new: Any) -> dict[str, str]:
    """Return the type of the exception of each verb, each on the same events."""
    found = {}
    with (
        store() as (url, outage),
        SyncTally.from_url(url, user_ids=user_ids, timeout=2, expire={"day": LONG}) as tally,
    ):
        for verb, call in VERBS.items():
            tally.mark_many("active", [known], now=TUESDAY)
            tally.mark_unique("premium", known)
            with outage("full"):
                try:
                    call(tally, known, new)
                except TallymarkError as error:
                    found[verb] = type(error).__name__
                else:
                    found[verb] = "none"
            tally.delete_all("trackist_")
    return found


@pytest.mark.parametrize(
    ("user_ids", "known", "new"), [(None, 7, 8), (str, "ann", "bob")], ids=["int", "str"]
)
def test_each_verb_raises_what_it_raises_on_a_full_server(
    user_ids: type | None, known: Any, new: Any
) -> None:
    real = outcomes(at_maxmemory, user_ids, known, new)
    assert real["mark_event"] == real["save"] == "StoreFullError"
    assert real["count"] == real["delete"] == "none"
    assert set(real.values()) == {"StoreFullError", "none"}
    if user_ids is str:
        # Redis runs a script until it writes. Of an unknown user there is nothing to unmark; the
        # outage knows a script by its text.
        assert real["unmark_event new"] == "none"
        real["unmark_event new"] = "StoreFullError"
    for store in (through_the_proxy, embedded):
        assert outcomes(store, user_ids, known, new) == real
