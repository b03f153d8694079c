"""Queries as generators: what they ask for, without anybody to answer but the test."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tallymark._core import arguments, events, unions
from tallymark._core.context import Context
from tallymark._core.events import Bitmap, EventSet
from tallymark._core.options import Options
from tallymark._reading import expressions, fanout, id_streams, keyspace, membership, queries
from tallymark._reading.bits import algebra
from tallymark._reading.graphs import Graph
from tallymark._reading.requests import Checkpoint, Compute, Page, Request, Scatter

algebra()  # the first to need it waits until it is imported
context = Context.of("db", Options(max_user_id=10**8), lambda: datetime(2026, 11, 23).timestamp())
a, b, c = (Bitmap(context.origin, name, None) for name in "abc")


def asked(query: Any, *replies: Any) -> list[Any]:
    """Return all that a query yields if it gets these replies, until it ends."""
    steps = []
    reply = None
    following = iter(replies)
    try:
        while True:
            step = query.send(reply)
            steps.append(step)
            reply = next(following) if isinstance(step, Request) else None
    except StopIteration:
        return steps


def test_a_small_set_is_streamed_with_one_request() -> None:
    steps = asked(id_streams.users(context, a, 0, None), [b"\x81"])
    assert [step.items for step in steps if isinstance(step, Page)] == [[0, 7]]
    assert len([step for step in steps if isinstance(step, Request)]) == 1


def test_many_long_names_are_checked_in_steps_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = 0
    check = arguments.check_name

    def counting(what: str, name: str) -> None:
        nonlocal checked
        checked += len(name) > 1000
        check(what, name)

    for module in (arguments, events, unions):
        monkeypatch.setattr(module, "check_name", counting)
    names = [f"{number}{'n' * 2000}" for number in range(100)]
    day = datetime(2026, 11, 22)
    found = queries_of(keyspace.history(context, 1, names, day, day + timedelta(2), "day"))
    assert found[:10] == [Checkpoint] * 10
    assert found[-1] is Request
    assert checked == 100


def queries_of(query: Any) -> list[Any]:
    """Return the types of what a query yields up to its first request."""
    found: list[Any] = []
    while found[-1:] != [Request]:
        found.append(type(next(query)))
    return found


def test_several_bitmaps_are_asked_about_at_one_moment() -> None:
    for query in (
        id_streams.users(context, a | b, 0, None),
        membership.contains(context, a | b, 7),
        membership.contains_many(context, a | b, [7, 900_000]),
        membership.contains_many(context, a | b, [7, 8]),
        queries.count(context, a | b),
        queries.is_empty(context, a | b),
    ):
        step = next(step for step in query if not isinstance(step, Checkpoint))
        assert isinstance(step, Request)
        assert step.atomic
    single: Any
    for single in (id_streams.users(context, a, 0, None), queries.count(context, a)):
        assert not next(single).atomic


def test_a_result_is_written_where_marks_go_and_its_parts_are_unlinked() -> None:
    request = next(queries.store(context, (a | b) - c, b"result"))
    assert isinstance(request, Request)
    assert request.changes
    assert request.atomic
    *_, written, unlinked = request.commands
    assert (written[:3], unlinked[0]) == ((b"BITOP", b"OR", b"result"), b"UNLINK")
    assert b"result" not in unlinked
    single = next(queries.store(context, a, b"result"))
    assert isinstance(single, Request)
    assert single.commands == [(b"BITOP", b"OR", b"result", a.key)]


@pytest.mark.parametrize(
    ("event_set", "firsts", "candidate"),
    [
        (a, (5, None, None), 5),
        (a | b, (5, 3, None), 3),
        (a | b, (None, 3, None), 3),
        (a ^ b, (9, None, None), 9),
        (a | b, (None, None, None), None),
        (a & b, (5, 3, None), 5),
        (a & b, (5, None, None), None),
        (a - b, (5, 3, None), 5),
        (a - b, (None, 3, None), None),
        ((a - b) | c, (9, 1, 4), 4),
        (a & (b | c), (2, 7, 5), 5),
    ],
)
def test_the_server_is_asked_where_somebody_may_be(
    event_set: EventSet, firsts: tuple[int | None, ...], candidate: int | None
) -> None:
    graph = Graph.of(event_set)
    by_bitmap = dict(zip((a, b, c), firsts, strict=True))
    replies: list[int] = []
    for bitmap in graph.bitmaps:
        first = by_bitmap[bitmap]
        replies += [-1, 2] if first is None else [8 * first + 3, 100]
    query = expressions.find_candidate(graph, 1)
    request = next(query)
    assert isinstance(request, Request)
    assert not request.atomic
    with pytest.raises(StopIteration) as end:
        query.send(replies)
    assert end.value.value == candidate


def test_the_search_goes_on_where_a_bitmap_does() -> None:
    query = expressions.find_candidate(Graph.of(a), 0)
    first: Any = next(query)
    begin, end = (int(number) for number in first.commands[0][3:])
    assert begin == 0
    second: Any = query.send([-1, 2**29])
    assert int(second.commands[0][3]) == end + 1
    with pytest.raises(StopIteration) as done:
        query.send([8 * (end + 9), 2**29])
    assert done.value.value == end + 9


def test_parts_grow_where_few_are_and_shrink_where_many_are() -> None:
    sizes = []

    def size(step: Any) -> int:
        return int(step.commands[0][3]) - int(step.commands[0][2]) + 1

    query = id_streams.users(context, a, 0, None)
    step: Any = next(query)
    fills = [0, 0, 0, 255, 255, 255, 0]
    for fill in fills:
        while not (isinstance(step, Request) and step.commands[0][0] == b"GETRANGE"):
            step = query.send(None) if isinstance(step, Page) else query.send([0, 2**29])
        sizes.append(size(step))
        # Nobody, but one at the end, so that no search comes in between.
        data = bytes([fill]) * (size(step) - 1) + b"\x01"
        step = query.send([data])
    assert sizes == [8192, 16384, 32768, 65536, 32768, 16384, 8192]


def test_history_looks_at_the_period_that_begins_now() -> None:
    midnight = (datetime(2026, 11, 23) - datetime(1970, 1, 1)).total_seconds()
    now = Context.of("db", Options(), lambda: midnight)
    query = keyspace.history(now, 7, "a", datetime(2026, 11, 22), None, "day")
    step: Any = next(step for step in query if isinstance(step, Request))
    assert [command[1] for command in step.commands] == [
        b"trackist_a_2026-11-22",
        b"trackist_a_2026-11-23",
    ]


# --- several shards

GET = Request([(b"GETBIT", b"a", b"1")])
sharded = Context.of("db", Options(shards=4), lambda: 0.0)


def steps_of(*effects: Any) -> Any:
    """Return a query that yields these effects, and returns the outcome of the last one."""
    outcome = None
    for effect in effects:
        outcome = yield effect
    return outcome


def gathered(*parts: Any, **options: Any) -> Any:
    return fanout.gather(sharded, enumerate(parts), **options)


def test_no_more_queries_run_at_once_than_may() -> None:
    query = gathered(*[steps_of(GET) for _ in range(5)], concurrency=2)
    effect: Any = next(query)
    sizes = []
    answers = iter(range(5))
    with pytest.raises(StopIteration) as end:
        while True:
            assert isinstance(effect, Scatter)
            sizes.append(len(effect.parts))
            effect = query.send([[next(answers)] for _ in effect.parts])
    assert sizes == [2, 2, 1]
    assert end.value.value == [[0], [1], [2], [3], [4]]


def test_by_default_few_queries_run_at_once() -> None:
    effect: Any = next(gathered(*[steps_of(GET) for _ in range(100)]))
    assert len(effect.parts) == fanout.CONCURRENCY


def test_requests_wait_for_the_checkpoints_and_computations_of_other_queries() -> None:
    computation = Compute(iter([None]))
    query = gathered(
        steps_of(GET),
        steps_of(Checkpoint(), Checkpoint(), GET),
        steps_of(computation, GET),
        steps_of(Checkpoint(), computation, GET),
    )
    effects: list[Any] = [next(query)]
    while not isinstance(effects[-1], Scatter):
        effects.append(query.send(None))
    assert {type(effect) for effect in effects[:-1]} == {Checkpoint, Compute}
    assert [route for route, _ in effects[-1].parts] == [0, 1, 2, 3]


@pytest.mark.parametrize("pauses", [(True, False), (False, True), (False, False)])
def test_joined_computations_pause_if_any_has_to(pauses: tuple[bool, ...]) -> None:
    effect: Any = next(gathered(*[steps_of(Compute(iter([None]), pause)) for pause in pauses]))
    assert isinstance(effect, Compute)
    assert effect.pauses == any(pauses)
    assert len(list(effect.steps)) == len(pauses)


def test_a_scatter_counts_as_much_as_its_requests() -> None:
    def share_of(*shares: int) -> int:
        return Scatter([(0, GET._replace(share=share)) for share in shares]).share

    assert share_of(12) == 12
    assert share_of(12, 12, 12) == 4
    assert share_of(12, 4) == 2
    assert share_of(1, 12) == share_of(2, 2, 2) == 1
