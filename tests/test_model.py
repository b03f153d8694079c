"""Random programs of marks against the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model import Call, Model, programs, users
from moments import BERLIN, naive_moments

if TYPE_CHECKING:
    from datetime import datetime

    from facades import Facade
    from stores import Store

examples = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@examples
@given(program=programs)
async def test_calls_agree_with_the_model(
    facade: Facade, store: Store, program: list[Call]
) -> None:
    store.raw.flushdb()
    model = Model(BERLIN)
    async with facade.open(store.url, timezone=BERLIN) as tally:
        for call in program:
            verb = getattr(tally, call.verb)
            flipped = await verb(call.event, call.user_id, **dict(call.options))
            assert flipped == model.run(call), call
    assert store.bits() == model.filled()


@examples
@given(program=programs, bitfield=st.booleans())
async def test_a_transaction_agrees_with_the_same_calls_alone(
    facade: Facade, store: Store, program: list[Call], bitfield: bool
) -> None:
    store.raw.flushdb()
    model = Model(BERLIN)
    options = {"timezone": BERLIN, "bitfield": bitfield}
    async with facade.open(store.url, **options) as tally, tally.transaction() as tx:
        pending = [
            getattr(tx, call.verb)(call.event, call.user_id, **dict(call.options))
            for call in program
        ]
    assert [mark.flipped for mark in pending] == [model.run(call) for call in program]
    assert store.bits() == model.filled()


@examples
@given(days=st.lists(naive_moments, min_size=1, max_size=6), user=users)
async def test_exact_unmarks_in_any_order_leave_nothing(
    memory_store: Store, facade: Facade, days: list[datetime], user: int
) -> None:
    async with facade.open(memory_store.url, track_hourly=True, track_yearly=True) as tally:
        for day in days:
            await tally.mark_event("active", user, now=day)
        for day in sorted(days):
            await tally.unmark_event("active", user, now=day, exact=True)
    assert memory_store.bits() == {}
