"""A connection that breaks after any byte of a batch, or of its reply."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from facades import ASYNC, SYNC
from tallymark import Granularity
from wires import wired

if TYPE_CHECKING:
    from stores import Store
    from wires import Direction, Wire

#: All ids have as many digits, so that all batches have as many bytes.
FIRST = 1_000_000


async def batch(tally: Any, user_id: int, together: bool) -> list[Granularity]:
    """Mark a new user twice, and another new one, in one batch."""
    ids = (user_id, user_id, user_id + 1)
    if together:
        async with tally.transaction() as tx:
            marks = [tx.mark_unique("active", each) for each in ids]
        return [mark.flipped for mark in marks]
    return list(await asyncio.gather(*(tally.mark_unique("active", each) for each in ids)))


async def size(wire: Wire, direction: Direction, tally: Any, user_id: int, together: bool) -> int:
    """Return how many bytes a batch has."""
    before = wire.bytes[direction]
    await batch(tally, user_id, together)
    return wire.bytes[direction] - before


@pytest.mark.parametrize("direction", ["request", "reply"])
@pytest.mark.parametrize("facade", [ASYNC, SYNC], ids=lambda facade: str(facade.name))
async def test_after_every_byte(facade: Any, direction: Any, redis_store: Store) -> None:
    new = Granularity.UNIQUE
    with wired(redis_store.url) as wire:
        async with facade.open(wire.url) as tally:
            # The async facade's leader goes ahead; the others share the next batch.
            together = facade is SYNC
            await batch(tally, FIRST, together)
            total = await size(wire, direction, tally, FIRST + 2, together)
            # On a busy machine, all three may share one.
            least = min(total, await size(wire, direction, tally, FIRST + 4, together=True))
            for position in range(total + 1):
                user_id = FIRST + 6 + 2 * position
                wire.cut_after(direction, position)
                first, again, other = await batch(tally, user_id, together)
                assert not again
                if direction == "request" and position < least:
                    # An incomplete batch is not applied, so the retry returns all flips.
                    assert (first, other) == (new, new), position
                assert await tally.contains(tally.unique("active"), user_id)
                wire.heal()
        marked = set(range(FIRST, FIRST + 6 + 2 * (total + 1)))
    assert redis_store.bits() == {"trackist_active_u": marked}
