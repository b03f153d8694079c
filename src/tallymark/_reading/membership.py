"""Whether users are in an event set: one user, or many at once. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .._core.keys import users_at
from .._core.offsets import WINDOW, blocks, windows
from .bits import Ints
from .bounds import bounded
from .expressions import LARGEST_PART, compiled, evaluated, keys_of
from .fanout import gather
from .raw_keys import ranges
from .requests import Request, answered, encoded, in_steps, worked

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from .._core.context import Context
    from .._core.events import EventSet
    from .._core.offsets import Offsets
    from .graphs import Graph
    from .requests import Command, Query

__all__ = ["contains", "contains_many"]

#: How many look-ups of a user may go to the server together.
_LOOKUPS: Final = 64

#: How many bits are looked up one by one in a transaction, of a bitmap and of all; and how
#: many are no work to speak of.
_SINGLES: Final = 1000
_ALL_SINGLES: Final = 32_000
_FEW_SINGLES: Final = 4_000

#: How many bits of each of very many bitmaps a range has that is fetched, at least.
_NARROWEST: Final = 4096

#: A range is fetched if it has this many bytes, or fewer, for each user that is asked about.
_BYTES_PER_USER: Final = 24


def contains(context: Context, event_set: EventSet, user_id: int) -> Query[bool]:
    """Return whether a user is in an event set: one ``GETBIT`` for each of its bitmaps."""
    asked = context.checked(event_set)
    shard, offset = context.schema.place(user_id)
    yield from bounded(context, [asked])
    graph = yield from compiled([asked])
    here = graph.below(context.shards[shard].origin.prefix)
    (answer,) = yield from gather(context, [(shard, _contains(here, offset))])
    return answer


def _contains(graph: Graph, offset: int) -> Query[bool]:
    digits = b"%d" % offset
    commands = [(b"GETBIT", key, digits) for key in (yield from keys_of(graph))]
    bits = yield from answered(Request(commands, atomic=len(commands) > 1, share=_LOOKUPS))
    return bool((yield from evaluated(graph, bits, 0, _as_it_is)))


def _as_it_is(value: Any, size: int) -> Any:
    return value


def contains_many(
    context: Context, event_set: EventSet, user_ids: Iterable[int]
) -> Query[list[bool]]:
    """Return for each of some users whether they are in an event set."""
    asked = context.checked(event_set)
    yield from bounded(context, [asked])
    found, _ = blocks(user_ids)
    # All of them before anything is sent.
    every = yield from in_steps(map(context.schema.offsets, found), 1)
    graph = yield from compiled([asked])
    answers: list[bool] = []
    for ids in every:
        contained: set[int] = set()
        queries = [
            (shard, _contained(context, graph.below(context.shards[shard].origin.prefix), own))
            for shard, own in context.schema.dealt(ids)
        ]
        sets = yield from gather(context, queries)
        for (shard, _), some in zip(queries, sets, strict=True):
            contained.update(users_at(context.schema, shard, some))
        answers += yield from in_steps(int(user_id) in contained for user_id in ids.values)
    return answers


def _contained(context: Context, graph: Graph, offsets: Offsets) -> Query[set[int]]:
    """Return which of some bits are set in an event set."""
    contained: set[int] = set()
    singles: list[int] = []
    # Of many bitmaps, less of each goes into a request.
    width = min(WINDOW, max(_NARROWEST, 8 * LARGEST_PART // len(graph.bitmaps)))
    for some in windows(offsets, width):
        if len(some.values) * _BYTES_PER_USER >= (some.high - some.low) >> 3:
            contained |= yield from _in_range(graph, some)
        else:
            singles += map(int, some.values)
    most = max(1, min(_SINGLES, _ALL_SINGLES // len(graph.bitmaps)))
    for at in range(0, len(singles), most):
        contained |= yield from _one_by_one(context, graph, singles[at : at + most])
    return contained


def _in_range(graph: Graph, offsets: Offsets) -> Query[set[int]]:
    """Return who of some neighbours are in an event set, from the bytes that they are in."""
    first = offsets.low >> 3
    size = (offsets.high >> 3) - first + 1
    commands = ranges((yield from keys_of(graph)), first, size)
    data = yield from answered(Request(commands, atomic=len(commands) > 1, replies=bytes))
    value = yield from evaluated(graph, data, size, Ints().load)
    together = value.to_bytes(size, "little")
    users = yield from in_steps(
        int(offset)
        for offset in offsets.values
        if together[(offset >> 3) - first] & (128 >> (offset & 7))
    )
    return set(users)


def _one_by_one(context: Context, graph: Graph, offsets: list[int]) -> Query[set[int]]:
    """Return who of some users are in an event set, from a look at each of their bits."""
    few = len(offsets) * len(graph.bitmaps) <= _FEW_SINGLES
    request = yield from worked(_look_ups(context, graph, offsets), large=not few)
    replies = yield request if few else (yield from encoded(request))
    if not context.options.bitfield:
        step = len(offsets)
        replies = [replies[at : at + step] for at in range(0, len(replies), step)]
    # The bits of all users as one number, so that one operation evaluates them all.
    value = yield from evaluated(graph, replies, 0 if few else len(offsets) << 10, _as_number)
    together = f"{value:0{len(offsets)}b}"
    return {offset for offset, bit in zip(offsets, together, strict=True) if bit == "1"}


def _look_ups(context: Context, graph: Graph, offsets: list[int]) -> Generator[None, None, Request]:
    digits = [b"%d" % offset for offset in offsets]
    commands: list[Command] = []
    for key in graph.keys_of(graph.bitmaps):
        if context.options.bitfield:
            gets = [argument for each in digits for argument in (b"GET", b"u1", each)]
            # Which only reads, but counts as a write, which a replica does not allow.
            name = b"BITFIELD_RO" if context.options.reads_elsewhere else b"BITFIELD"
            commands.append((name, key, *gets))
        else:
            commands += [(b"GETBIT", key, each) for each in digits]
        yield
    kind = list if context.options.bitfield else int
    return Request(commands, atomic=len(commands) > 1, replies=kind)


def _as_number(bits: Sequence[int], size: int) -> int:
    return int("".join(map(str, bits)), 2)
