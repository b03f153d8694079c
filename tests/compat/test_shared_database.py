"""bitmapist and tallymark on one real database, each reading what the other wrote.

`nox -s compat` runs this: it gives bitmapist a Python of its own and names it
in TALLYMARK_BITMAPIST_PYTHON.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workers import running_worker

from model import EVENTS, Call, Model, busy_days, unique_calls, users
from moments import naive_moments
from tallymark import Granularity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workers import Worker

    from facades import Facade
    from stores import Store

WORKER = Path(__file__).with_name("bitmapist_worker.py")
CLASSES = {
    Granularity.MONTH: "MonthEvents",
    Granularity.WEEK: "WeekEvents",
    Granularity.DAY: "DayEvents",
    Granularity.HOUR: "HourEvents",
    Granularity.UNIQUE: "UniqueEvents",
}


class Bitmapist:
    """bitmapist's functions, called in its own process."""

    def __init__(self, worker: Worker, url: str) -> None:
        self._worker = worker
        self._url = url

    def call(self, function: str, *args: Any, **options: Any) -> Any:
        if "now" in options:
            options["now"] = options["now"].isoformat()
        return self._worker.ask(
            {"url": self._url, "function": function, "args": args, "options": options}
        )

    def run(self, call: Call) -> None:
        self.call(call.verb, call.event, call.user_id, **dict(call.options))

    def check(self, model: Model, calls: list[Call]) -> None:
        """Check that bitmapist sees in every period of these calls what the model holds."""
        for call in calls:
            options = {"track_hourly": True, "track_unique": True, **dict(call.options)}
            options.setdefault("now", datetime(2026, 11, 24))  # an event without a date
            seen_by = {call.user_id, call.user_id + 1}
            for granularity, key in model.keys(call.event, options).items():
                found = self.call(
                    "read", CLASSES[granularity], call.event, sorted(seen_by), now=options["now"]
                )
                marked = model.bits[key]
                assert found == {
                    "key": key,
                    "users": sorted(marked),
                    "count": len(marked),
                    "contained": sorted(seen_by & marked),
                    "any": bool(marked),
                }


@pytest.fixture(scope="session")
def bitmapist_worker() -> Iterator[Worker]:
    with running_worker(WORKER) as worker:
        yield worker


@pytest.fixture
def bitmapist(bitmapist_worker: Worker, redis_store: Store) -> Bitmapist:
    return Bitmapist(bitmapist_worker, redis_store.url)


# bitmapist takes the wall clock of whatever it is given and tallymark converts
# it, so these are moments in UTC, where both mean the same.
moments_in_utc = busy_days | naive_moments
moments_in_utc |= moments_in_utc.map(lambda moment: moment.replace(tzinfo=timezone.utc))
options_of_both = st.fixed_dictionaries(
    {"now": moments_in_utc},
    optional={"track_hourly": st.booleans(), "track_unique": st.booleans()},
)


def calls_of(*verbs: str) -> st.SearchStrategy[Call]:
    return st.builds(
        lambda verb, event, user, options: Call(verb, event, user, tuple(options.items())),
        st.sampled_from(verbs),
        st.sampled_from(EVENTS),
        users,
        options_of_both,
    )


some_marks = st.lists(calls_of("mark_event"), min_size=1, max_size=10)
examples = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@examples
@given(marks=some_marks)
async def test_bitmapist_reads_what_tallymark_marked(
    facade: Facade, redis_store: Store, bitmapist: Bitmapist, marks: list[Call]
) -> None:
    redis_store.raw.flushdb()
    model = Model(timezone.utc)
    async with facade.open(redis_store.url) as tally:
        for mark in marks:
            model.run(mark)
            await tally.mark_event(mark.event, mark.user_id, **dict(mark.options))
    bitmapist.check(model, marks)
    assert set(bitmapist.call("get_event_names")) == {mark.event for mark in marks}


@examples
@given(marks=some_marks)
async def test_tallymark_unmarks_what_bitmapist_marked(
    facade: Facade, redis_store: Store, bitmapist: Bitmapist, marks: list[Call]
) -> None:
    redis_store.raw.flushdb()
    model = Model(timezone.utc)
    for mark in marks:
        model.run(mark)
        bitmapist.run(mark)
    assert redis_store.bits() == model.filled()
    async with facade.open(redis_store.url) as tally:
        for mark in marks:
            unmark = Call("unmark_event", mark.event, mark.user_id, mark.options)
            flipped = await tally.unmark_event(mark.event, mark.user_id, **dict(mark.options))
            assert flipped == model.run(unmark)
    assert redis_store.bits() == {}
    bitmapist.check(model, marks)


@examples
@given(
    program=st.lists(
        st.tuples(
            st.booleans(), calls_of("mark_event", "mark_event", "unmark_event") | unique_calls
        ),
        max_size=15,
    )
)
async def test_both_work_on_one_database(
    facade: Facade, redis_store: Store, bitmapist: Bitmapist, program: list[tuple[bool, Call]]
) -> None:
    redis_store.raw.flushdb()
    model = Model(timezone.utc)
    async with facade.open(redis_store.url) as tally:
        for ours, call in program:
            flipped = model.run(call)
            if ours:
                verb = getattr(tally, call.verb)
                assert await verb(call.event, call.user_id, **dict(call.options)) == flipped
            else:
                bitmapist.run(call)
    assert redis_store.bits() == model.filled()
    bitmapist.check(model, [call for _, call in program])
