"""Membership of users in an event set: of one user, or of many at once. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .._core.events import Bitmap
from .._core.keys import users_at
from .._core.offsets import BLOCK, WINDOW, blocks, bounded, windows
from .bits import Ints
from .bounds import check_bitmaps
from .expressions import MAX_PART, compile_graph, evaluate, list_keys
from .fanout import gather
from .raw_keys import getrange_commands
from .requests import Request, encode_request, in_steps, run_steps, send
from .user_ids import checked_keys, find_numbers, find_place

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from .._core.context import Context
    from .._core.events import EventSet
    from .._core.offsets import Offsets
    from .._core.user_ids import Dictionary
    from .graphs import Graph
    from .requests import Command, Query

__all__ = ["contains", "contains_many"]

#: How many requests that look up one user may be sent together.
_LOOKUPS: Final = 64

#: How many bits one transaction reads one by one at most: of each bitmap, and of all together.
_MAX_BITS: Final = 1000
_MAX_ALL_BITS: Final = 32_000

#: Up to this many bits, a request is built, and its replies are evaluated, in one step.
_FEW_BITS: Final = 4_000

#: The least width of a range that is fetched of each of very many bitmaps, in bits.
_MIN_WIDTH: Final = 4096

#: A range is fetched as a whole if it has at most this many bytes for each user to look up.
_BYTES_PER_USER: Final = 24


def contains(context: Context, event_set: EventSet, user_id: Any) -> Query[bool]:
    """Return whether a user is in an event set: one ``GETBIT`` for each of its bitmaps."""
    event_set = context.checked(event_set)
    dictionary = context.schema.dictionary
    if dictionary is None:
        shard, offset = context.schema.place(user_id)
        yield from check_bitmaps(context, [event_set])
    else:
        key = dictionary.ids.key(user_id)
        yield from check_bitmaps(context, [event_set])
        place = yield from find_place(context, dictionary, key)
        if place is None:
            return False
        shard, offset = place
    prefix = context.shards[shard].origin.prefix
    if type(event_set) is Bitmap:
        # The short way of nearly all lookups: there is no expression to evaluate.
        command = b"GETBIT", event_set.key_with_prefix(prefix), b"%d" % offset
        request = Request([command], share=_LOOKUPS)
        ((bit,),) = yield from gather(context, [(shard, send(request))])
        return bool(bit)
    graph = yield from compile_graph([event_set])
    graph = graph.with_prefix(prefix)
    (is_member,) = yield from gather(context, [(shard, _contains(graph, offset))])
    return is_member


def _contains(graph: Graph, offset: int) -> Query[bool]:
    digits = b"%d" % offset
    commands = [(b"GETBIT", key, digits) for key in (yield from list_keys(graph))]
    bits = yield from send(Request(commands, atomic=len(commands) > 1, share=_LOOKUPS))
    return bool((yield from evaluate(graph, bits, 0, _unchanged)))


def _unchanged(value: Any, size: int) -> Any:
    return value


def contains_many(
    context: Context, event_set: EventSet, user_ids: Iterable[Any]
) -> Query[list[bool]]:
    """Return for each of some users whether the user is in an event set."""
    event_set = context.checked(event_set)
    yield from check_bitmaps(context, [event_set])
    dictionary = context.schema.dictionary
    if dictionary is not None:
        return (yield from _contains_ids(context, dictionary, event_set, user_ids))
    id_blocks, _ = blocks(user_ids)
    # All ids are checked before a request is sent.
    checked_blocks = yield from in_steps(map(context.schema.offsets, id_blocks), 1)
    graph = yield from compile_graph([event_set])
    results: list[bool] = []
    for block in checked_blocks:
        members = yield from _members(context, graph, block)
        results += yield from in_steps(int(user_id) in members for user_id in block.values)
    return results


def _contains_ids(
    context: Context, dictionary: Dictionary, event_set: EventSet, user_ids: Iterable[Any]
) -> Query[list[bool]]:
    """Return the result of `contains_many` of a database with a dictionary."""
    keys = yield from checked_keys(dictionary, user_ids)
    graph = yield from compile_graph([event_set])
    results: list[bool] = []
    for at in range(0, len(keys), BLOCK):
        numbers = yield from find_numbers(context, keys[at : at + BLOCK])
        known = [number for number in numbers if number is not None]
        members = (yield from _members(context, graph, bounded(known))) if known else set()
        results += yield from in_steps(number in members for number in numbers)
    return results


def _members(context: Context, graph: Graph, numbers: Offsets) -> Query[set[int]]:
    """Return the numbers of those users who are in an event set."""
    members: set[int] = set()
    queries = [
        (
            shard,
            _members_of_shard(
                context, graph.with_prefix(context.shards[shard].origin.prefix), offsets
            ),
        )
        for shard, offsets in context.schema.partition(numbers)
    ]
    by_shard = yield from gather(context, queries)
    for (shard, _), offsets_of_members in zip(queries, by_shard, strict=True):
        members.update(users_at(context.schema, shard, offsets_of_members))
    return members


def _members_of_shard(context: Context, graph: Graph, offsets: Offsets) -> Query[set[int]]:
    """Return the offsets of those users of a shard who are in an event set."""
    members: set[int] = set()
    sparse: list[int] = []
    # The more bitmaps, the narrower the ranges, so that requests stay small.
    width = min(WINDOW, max(_MIN_WIDTH, 8 * MAX_PART // len(graph.bitmaps)))
    for window in windows(offsets, width):
        if len(window.values) * _BYTES_PER_USER >= (window.high - window.low) >> 3:
            members |= yield from _members_in_range(graph, window)
        else:
            sparse += map(int, window.values)
    step = max(1, min(_MAX_BITS, _MAX_ALL_BITS // len(graph.bitmaps)))
    for at in range(0, len(sparse), step):
        members |= yield from _members_by_bit(context, graph, sparse[at : at + step])
    return members


def _members_in_range(graph: Graph, offsets: Offsets) -> Query[set[int]]:
    """Return `_members_of_shard` of neighbouring offsets, by the range that has them all."""
    first = offsets.low >> 3
    size = (offsets.high >> 3) - first + 1
    commands = getrange_commands((yield from list_keys(graph)), first, size)
    parts = yield from send(Request(commands, atomic=len(commands) > 1, replies=bytes))
    value = yield from evaluate(graph, parts, size, Ints().load)
    data = value.to_bytes(size, "little")
    members = yield from in_steps(
        int(offset)
        for offset in offsets.values
        if data[(offset >> 3) - first] & (128 >> (offset & 7))
    )
    return set(members)


def _members_by_bit(context: Context, graph: Graph, offsets: list[int]) -> Query[set[int]]:
    """Return `_members_of_shard` of offsets far apart, by each of their bits."""
    few = len(offsets) * len(graph.bitmaps) <= _FEW_BITS
    request = yield from run_steps(_bits_request(context, graph, offsets), large=not few)
    replies = yield request if few else (yield from encode_request(request))
    if not context.options.bitfield:
        step = len(offsets)
        replies = [replies[at : at + step] for at in range(0, len(replies), step)]
    # The bits of all offsets are the digits of one number, so one operation evaluates them all.
    value = yield from evaluate(graph, replies, 0 if few else len(offsets) << 10, _as_number)
    digits = f"{value:0{len(offsets)}b}"
    return {offset for offset, digit in zip(offsets, digits, strict=True) if digit == "1"}


def _bits_request(
    context: Context, graph: Graph, offsets: list[int]
) -> Generator[None, None, Request]:
    """Return the request that reads bits of all bitmaps; yields between steps."""
    digits = [b"%d" % offset for offset in offsets]
    commands: list[Command] = []
    for key in graph.keys_of(graph.bitmaps):
        if context.options.bitfield:
            gets = [argument for offset in digits for argument in (b"GET", b"u1", offset)]
            # Redis takes BITFIELD for a write, which a replica refuses, even if it only reads.
            name = b"BITFIELD_RO" if context.options.reads_elsewhere else b"BITFIELD"
            commands.append((name, key, *gets))
        else:
            commands += [(b"GETBIT", key, offset) for offset in digits]
        yield
    reply_type = list if context.options.bitfield else int
    return Request(commands, atomic=len(commands) > 1, replies=reply_type)


def _as_number(bits: Sequence[int], size: int) -> int:
    return int("".join(map(str, bits)), 2)
