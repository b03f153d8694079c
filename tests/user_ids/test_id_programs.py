"""Random programs over two tallies, of both facades, against a model: sets of ids for each key."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from dictionary_check import read_cluster, read_database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facades import ASYNC, SYNC
from model import Call, Model, event_calls, exact_calls, unique_calls
from moments import BERLIN

if TYPE_CHECKING:
    from tallymark import Granularity, Tally

#: Ids in place of the numbers of the calls. Few, so that programs forget and mark the same ones.
IDS: dict[int, Any] = {
    0: "ann",
    1: "ann",
    7: "\N{SNOWMAN}" * 20,
    8: "\N{SNOWMAN}" * 20,
    9: "ann",
    1000: "x" * 1024,
    65_536: "0",
}

ids = st.sampled_from(list(IDS.values()))
calls = (event_calls | exact_calls | unique_calls).map(
    lambda call: replace(call, user_id=IDS[call.user_id])
)


@dataclass(frozen=True)
class Step:
    """A step of a program, by one of the tallies."""

    by: int
    what: str
    arguments: tuple[Any, ...]


def steps(what: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    """Return a strategy for steps of one kind."""
    return st.builds(Step, st.integers(0, 1), st.just(what), st.tuples(*arguments))


many = st.lists(ids, max_size=8)
programs = st.lists(
    steps("call", calls)
    | steps("call", calls)
    | steps("transaction", st.lists(calls, max_size=6))
    | steps("many", calls.filter(lambda call: call.verb == "mark_event"), many)
    | steps("unmark_many", event_calls, many)
    | steps("unique_many", unique_calls, many)
    | steps("forget", ids)
    | steps("merge", st.lists(ids, min_size=2, max_size=2, unique=True)),
    min_size=6,
    max_size=16,
)


class IdModel(Model):
    """The model, with users that are forgotten and merged."""

    def forget(self, user: Any) -> int:
        """Take a user out of all sets; return of how many."""
        found = [users for users in self.bits.values() if user in users]
        for users in found:
            users.discard(user)
        return len(found)

    def merge(self, source: Any, target: Any) -> int:
        """Replace a user in all sets; return in how many."""
        for users in self.bits.values():
            if source in users:
                users.add(target)
        return self.forget(source)


async def run(step: Step, tally: Tally[Any], model: IdModel) -> None:
    """Make a step, and compare its result with the model's."""
    arguments: Any = step.arguments
    if step.what == "call":
        assert await flip(tally, arguments[0]) == model.run(arguments[0])
    elif step.what == "transaction":
        async with tally.transaction() as tx:
            pending = [
                getattr(tx, call.verb)(call.event, call.user_id, **dict(call.options))
                for call in arguments[0]
            ]
        assert [mark.flipped for mark in pending] == [model.run(call) for call in arguments[0]]
    elif step.what in {"many", "unmark_many"}:
        call, users = arguments
        verb = "mark_event" if step.what == "many" else "unmark_event"
        await getattr(tally, verb.replace("event", "many"))(call.event, users, **dict(call.options))
        for user in users:
            model.run(Call(verb, call.event, user, call.options))
    elif step.what == "unique_many":
        call, users = arguments
        flipped = await getattr(tally, f"{call.verb}_many")(call.event, users)
        assert flipped == sum(
            bool(model.run(Call(call.verb, call.event, user, ()))) for user in users
        )
    elif step.what == "forget":
        assert await tally.forget(arguments[0]) == model.forget(arguments[0])
    else:
        assert await tally.merge(*arguments[0]) == model.merge(*arguments[0])


async def flip(tally: Tally[Any], call: Call) -> Granularity:
    """Make one call of a verb."""
    verb = getattr(tally, call.verb)
    flipped: Granularity = await verb(call.event, call.user_id, **dict(call.options))
    return flipped


async def compare(tally: Tally[Any], call: Call, model: IdModel) -> None:
    """Compare what a tally reads of an event with the model."""
    options = dict(call.options)
    moment = options.get("now")
    sets = {tally.unique(call.event): f"trackist_{call.event}_u"}
    if moment is not None:
        for granularity, key in model.keys(call.event, {"now": moment}).items():
            builder = getattr(tally, str(granularity.name).lower())
            sets[builder(call.event, moment)] = key
    everybody = sorted(set(IDS.values()))
    for event_set, key in sets.items():
        users = model.bits[key]
        assert await tally.count(event_set) == len(users), key
        listed = [user async for user in tally.users(event_set)]
        assert len(listed) == len(users), key
        assert set(listed) == users, key
        contained = await tally.contains_many(event_set, everybody)
        assert contained == [user in users for user in everybody], key
    if moment is not None:
        day = model.local(moment).date()
        for user in everybody:
            await compare_history(tally, call.event, user, day, model)


async def compare_history(
    tally: Tally[Any], event: str, user: Any, day: date, model: IdModel
) -> None:
    """Compare on which days around a day a user has an event."""
    days = [day + timedelta(days=distance) for distance in range(-3, 4)]
    history = await tally.history(user, event, days[0], days[-1] + timedelta(days=1))
    expected = [
        each
        for each in days
        if user in model.bits[f"trackist_{event}_{each.year}-{each.month}-{each.day}"]
    ]
    assert [period.start.date() for period in history[event]] == expected


def touched(step: Step) -> list[Call]:
    """Return calls with the events and moments of a step."""
    first = step.arguments[0]
    if isinstance(first, Call):
        return [first]
    return [each for each in first if isinstance(each, Call)][-1:]


@pytest.mark.parametrize("kind", ["plain", "shards", "cluster"])
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(program=programs)
async def test_programs_agree_with_the_model(
    kind: str, request: pytest.FixtureRequest, program: list[Step]
) -> None:
    is_cluster = kind == "cluster"
    store = request.getfixturevalue("cluster_store" if is_cluster else "redis_store")
    store.raw.flushdb()
    model = IdModel(BERLIN)
    options: Any = {"user_ids": str, "timezone": BERLIN}
    if kind == "shards":
        options["shards"] = 4
    last: list[Call] = []
    async with ASYNC.open(store.url, **options) as one, SYNC.open(store.url, **options) as two:
        tallies = (one, two)
        for step in program:
            await run(step, tallies[step.by], model)
            last = touched(step) or last
            for call in last:
                await compare(tallies[1 - step.by], call, model)
    if is_cluster:
        database = read_cluster(request.getfixturevalue("redis_cluster"))
    else:
        database = read_database(store.raw)
    found = {f"trackist_{name}": users for name, users in database.users.items() if users}
    assert found == model.filled()
    assert not database.forgetting
