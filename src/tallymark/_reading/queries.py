"""The read verbs that take event sets: each a generator of what to send. Pure.

`tallymark._reading.requests` says what these yield, and drivers run them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .._core.events import Bitmap, Combination, walk
from .._core.failures import SlotMovingError
from .._core.keys import MAX_USER_ID, checked_int
from .._core.offsets import WINDOW, blocks, windows
from .._core.unions import PeriodUnion
from .._core.untrusted import shown
from ..errors import InvalidTypeError, InvalidValueError
from .bits import PIECE_BITS, Ints, algebra
from .bounds import bounded, check_number
from .expressions import (
    answered,
    asking,
    candidate,
    check_cost,
    compiled,
    compiled_each,
    evaluated,
    keys_of,
    reckoning,
    worked,
)
from .fanout import in_shards, together
from .raw_keys import ranges
from .requests import Page, Request, in_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from .._core.context import Context
    from .._core.events import EventSet
    from .._core.offsets import Offsets
    from .graphs import Graph
    from .requests import Command, Query

__all__ = [
    "contains",
    "contains_many",
    "count",
    "counts",
    "delete",
    "is_empty",
    "next_candidate",
    "store",
    "users",
]

#: How many look-ups of a user, or how many counts, may go to the server together. A
#: count over ten million users takes it about a millisecond.
_LOOKUPS: Final = 64
_COUNTS: Final = 4

#: How many bytes of each bitmap a stream of users begins with; how many at least, if there
#: are many bitmaps or shards; and how many of all bitmaps together it fetches at most.
_SMALLEST: Final = 8 * 1024
_LEAST: Final = 256
_LARGEST: Final = 2 * 1024 * 1024

#: How many users of a sharded database are handed on together, at most.
_PIECE: Final = 8192

#: A part with fewer users is followed by a larger part, one with more by a smaller one.
_FEW: Final = 4_096
_MANY: Final = 65_536

#: How many bytes of all bitmaps together are searched at once: this takes Redis
#: about a millisecond.
_LOOKAHEAD: Final = 8 * 1024 * 1024

#: How many bytes of commands leave for all shards together, at most.
_ROUND_BYTES: Final = 8 * 1024 * 1024

#: How many numbers, each of all shards, are added up in one step.
_FEW_SUMS: Final = 200

#: How many bits are looked up one by one in a transaction, of a bitmap and of all; and how
#: many are no work to speak of.
_SINGLES: Final = 1000
_ALL_SINGLES: Final = 32_000
_FEW_SINGLES: Final = 4_000

#: How many bits of each of very many bitmaps a range has that is fetched, at least.
_NARROWEST: Final = 4096

#: A range is fetched if it has this many bytes, or fewer, for each user that is asked about.
_BYTES_PER_USER: Final = 24


def count(context: Context, event_set: EventSet) -> Query[int]:
    """Return how many users are in an event set."""
    (number,) = yield from counts(context, [event_set])
    return number


def counts(context: Context, event_sets: Iterable[EventSet]) -> Query[list[int]]:
    """Return how many users are in each of some event sets, all at one moment."""
    found = context.checked_many(event_sets)
    check_number(context, len(found), "event sets")
    yield from bounded(context, found)
    if context.shards:
        columns = yield from _ask_shards(context, found, _bitcount, _counted_all)
        return (yield from in_steps(map(sum, zip(*columns, strict=True)), _FEW_SUMS))
    if context.options.reads_elsewhere:
        return (yield from _counted_all((yield from compiled_each(found))))
    return (yield from _ask(context, found, _bitcount))


def is_empty(context: Context, event_set: EventSet) -> Query[bool]:
    """Return whether nobody is in an event set."""
    asked = context.checked(event_set)
    yield from bounded(context, [asked])
    if context.shards:
        firsts = yield from _ask_shards(context, [asked], _first_bit, _first_of_all)
        return all(first < 0 for (first,) in firsts)
    if context.options.reads_elsewhere:
        (first,) = yield from _first_of_all((yield from compiled_each([asked])))
    else:
        (first,) = yield from _ask(context, [asked], _first_bit)
    return bool(first < 0)


def _bitcount(key: bytes) -> Command:
    return (b"BITCOUNT", key)


def _first_bit(key: bytes) -> Command:
    return (b"BITPOS", key, b"1")


def _counted_all(graphs: Sequence[Graph]) -> Query[list[int]]:
    numbers = [0] * len(graphs)
    for index, graph in enumerate(graphs):
        numbers[index] = yield from _counted(graph)
    return numbers


def _first_of_all(graphs: Sequence[Graph]) -> Query[list[int]]:
    """Return 0 for an expression that has users, -1 for one that has none."""
    numbers = [0] * len(graphs)
    for index, graph in enumerate(graphs):
        numbers[index] = 0 if (yield from _counted(graph, enough=1)) else -1
    return numbers


def contains(context: Context, event_set: EventSet, user_id: int) -> Query[bool]:
    """Return whether a user is in an event set: one ``GETBIT`` for each of its bitmaps."""
    asked = context.checked(event_set)
    shard, offset = context.schema.place(user_id)
    yield from bounded(context, [asked])
    graph = yield from compiled([asked])
    if context.shards:
        here = graph.below(context.shards[shard].origin.prefix)
        (answer,) = yield from together([(shard, _contains(here, offset))])
        return answer
    return (yield from _contains(graph, offset))


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
        if context.shards:
            dealt = list(context.schema.dealt(ids))
            sets = yield from together(
                (shard, _contained(context, graph.below(context.shards[shard].origin.prefix), own))
                for shard, own in dealt
            )
            for (shard, _), some in zip(dealt, sets, strict=True):
                contained.update(offset * len(context.shards) + shard for offset in some)
        else:
            contained = yield from _contained(context, graph, ids)
        answers += yield from in_steps(int(user_id) in contained for user_id in ids.values)
    return answers


def _contained(context: Context, graph: Graph, offsets: Offsets) -> Query[set[int]]:
    """Return which of some bits are set in an event set."""
    contained: set[int] = set()
    singles: list[int] = []
    # Of many bitmaps, less of each goes into a request.
    width = min(WINDOW, max(_NARROWEST, 8 * _LARGEST // len(graph.bitmaps)))
    for some in windows(offsets, width):
        if len(some.values) * _BYTES_PER_USER >= (some.high - some.low) >> 3:
            contained |= yield from _in_range(graph, some)
        else:
            singles += map(int, some.values)
    most = max(1, min(_SINGLES, _ALL_SINGLES // len(graph.bitmaps)))
    for at in range(0, len(singles), most):
        contained |= yield from _one_by_one(context, graph, singles[at : at + most])
    return contained


def users(context: Context, event_set: EventSet, start: int, limit: int | None) -> Query[None]:
    """Find the users of an event set from an id on, in ascending order, part by part."""
    asked = context.checked(event_set)
    start = checked_int("start", start)
    if not 0 <= start <= MAX_USER_ID:
        raise InvalidValueError(f"start must be in [0, {MAX_USER_ID}], got {shown(start)}")
    limit = None if limit is None else checked_int("limit", limit)
    if limit is not None and limit < 0:
        raise InvalidValueError(
            f"limit must be 0 or more, or None for no limit, got {shown(limit)}"
        )
    return _users(context, asked, start, limit)


class _Parts:
    """An event set that is read part by part.

    Attributes:
        smallest, largest: how many bytes of each bitmap a part may have.
        step: the distance of the users of two neighbouring bits.
    """

    step = 1

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.largest = _LARGEST // len(graph.bitmaps)
        self.smallest = min(_SMALLEST, max(_LEAST, self.largest))
        self.largest = max(self.smallest, self.largest)

    def ids(self, at: int, size: int) -> Query[tuple[Iterator[list[int]], int]]:
        """Return the users of a part, piece by piece, and how many bytes there are of it."""
        value, length = yield from _part(self._graph, at, size)
        return algebra().ids(value, length, 8 * at), length

    def candidate(self, at: int) -> Query[int | None]:
        """Return the first byte from one on that may have a user; None if none has."""
        return (yield from next_candidate(self._graph, at))


class _ShardedParts(_Parts):
    """The same part of all shards: users who follow on those of the part before."""

    def __init__(self, graphs: Iterable[Graph]) -> None:
        self._shards = [_Parts(each) for each in graphs]
        self.step = len(self._shards)
        self.smallest = max(_SMALLEST // self.step, _LEAST)
        self.largest = max(self.smallest, self._shards[0].largest // self.step)

    def ids(self, at: int, size: int) -> Query[tuple[Iterator[list[int]], int]]:
        parts = yield from together(
            (shard, each.ids(at, size)) for shard, each in enumerate(self._shards)
        )
        pieces = self._merged([own for own, _ in parts], 8 * at)
        return pieces, max(length for _, length in parts)

    def _merged(self, shards: Sequence[Iterator[list[int]]], first: int) -> Iterator[list[int]]:
        """Put together the users of the same piece of all shards, one piece after the other.

        Arguments:
            shards: the bits of each, in pieces of one length; some have none of a piece.
            first: the first bit of the first piece.
        """
        waiting = [next(own, None) for own in shards]
        while some := [bits[0] for bits in waiting if bits is not None]:
            end = first + ((min(some) - first) // PIECE_BITS + 1) * PIECE_BITS
            found: list[int] = []
            for shard, bits in enumerate(waiting):
                if bits is not None and bits[0] < end:
                    found += [bit * self.step + shard for bit in bits]
                    waiting[shard] = next(shards[shard], None)
            found.sort()  # which merges what is in order already
            yield from (found[begin : begin + _PIECE] for begin in range(0, len(found), _PIECE))

    def candidate(self, at: int) -> Query[int | None]:
        found = yield from together(
            (shard, each.candidate(at)) for shard, each in enumerate(self._shards)
        )
        return min((each for each in found if each is not None), default=None)


def _users(context: Context, event_set: EventSet, start: int, limit: int | None) -> Query[None]:
    yield from bounded(context, [event_set])
    graph = yield from compiled([event_set])
    yield from reckoning()
    parts = (
        _ShardedParts(graph.below(part.origin.prefix) for part in context.shards)
        if context.shards
        else _Parts(graph)
    )
    left = MAX_USER_ID + 1 if limit is None else limit
    at: int | None = (start // parts.step) >> 3
    size = parts.smallest
    while left and at is not None:
        pieces, length = yield from parts.ids(at, size)
        number = 0
        for ids in pieces:
            some = ids if ids[0] >= start else [user_id for user_id in ids if user_id >= start]
            some = some[:left]
            number += len(some)
            left -= len(some)
            yield Page(some)
            if not left:
                return
        if length < size:
            return
        at += size
        if not number:
            at = yield from parts.candidate(at)
        if number < _FEW:
            size = min(2 * size, parts.largest)
        elif number > _MANY:
            size = max(size // 2, parts.smallest)


def next_candidate(graph: Graph, at: int) -> Query[int | None]:
    """Return the first byte from one on that may have a user; None if none has.

    The server looks for the next bit of each bitmap, which is much faster than
    to fetch the nothing in between.

    Arguments:
        graph: of one expression.
        at: the first byte of interest.
    """
    while True:
        end = at + max(_LOOKAHEAD // len(graph.bitmaps), _SMALLEST)
        commands: list[Command] = []
        for key in (yield from keys_of(graph)):
            commands.append((b"BITPOS", key, b"1", b"%d" % at, b"%d" % (end - 1)))
            commands.append((b"STRLEN", key))
        replies = yield from answered(Request(commands))
        nexts = [
            position >> 3 if position >= 0 else end if end < length else None
            for position, length in zip(replies[::2], replies[1::2], strict=True)
        ]
        found = yield from candidate(graph, nexts)
        if found is None or found < end:
            return found
        at = end


def delete(context: Context, event_set: EventSet) -> Query[int]:
    """Delete the bitmaps of an event set, which has to be a bitmap or a union of some."""
    asked = context.checked(event_set)
    yield from bounded(context, [asked])
    bitmaps = tuple(dict.fromkeys((yield from in_steps(_deletable(asked)))))
    if context.shards:
        found = yield from in_shards(context, lambda part: _unlinked(part.origin.prefix, bitmaps))
        return sum(map(any, zip(*found, strict=True)))
    keys = yield from in_steps(bitmap.key for bitmap in bitmaps)
    (number,) = yield Request([(b"UNLINK", *keys)], changes=True)
    return int(number)


def _unlinked(prefix: str, bitmaps: Sequence[Bitmap]) -> Query[list[int]]:
    """Delete bitmaps below a prefix, one by one, since a cluster may be moving some of them."""
    keys = yield from in_steps(bitmap.key_below(prefix) for bitmap in bitmaps)
    return (yield from answered(Request([(b"UNLINK", key) for key in keys], changes=True)))


def store(context: Context, event_set: EventSet, key: bytes) -> Query[int]:
    """Write the users of an event set, as they are now, to a key; return how many bytes it has."""
    asked = context.checked(event_set)
    yield from bounded(context, [asked])
    graph = yield from compiled([asked])
    yield from check_cost(context, graph)
    request, (reply,) = yield from asking(
        context.origin.prefix, graph, lambda found: (b"BITOP", b"OR", key, found)
    )
    replies = yield request._replace(changes=True)
    return int(replies[reply])


def _ask(
    context: Context, event_sets: Sequence[EventSet], question: Callable[[bytes], Command]
) -> Query[list[Any]]:
    """Ask the same about each of some event sets, all at one moment."""
    if not event_sets:
        return []
    graph = yield from compiled(event_sets)
    if graph.writes > context.sure_writes:
        yield from check_cost(context, graph)
    request, asked = yield from asking(context.origin.prefix, graph, question)
    replies = yield request
    return [replies[index] for index in asked]


def _ask_shards(
    context: Context,
    event_sets: Sequence[EventSet],
    question: Callable[[bytes], Command],
    otherwise: Callable[[Sequence[Graph]], Query[list[Any]]],
) -> Query[list[list[Any]]]:
    """Ask all shards the same about some event sets; return the answers of each.

    Arguments:
        context, event_sets, question: as for `_ask`.
        otherwise: asks a shard while its slot is moving, with a graph for each event set.
    """
    if not event_sets:
        return []
    if context.options.reads_elsewhere and not {Bitmap}.issuperset(map(type, event_sets)):
        # Temporary keys are nothing for a replica.
        graphs = yield from compiled_each(event_sets)
        return (
            yield from in_shards(
                context, lambda part: otherwise([one.below(part.origin.prefix) for one in graphs])
            )
        )
    # The commands of two shards differ in the tag alone. So those of a tag that no shard
    # has, since it cannot be typed, are put together once for each length of tags.
    made: dict[int, tuple[Request, bytes, list[int], bytes]] = {}
    graph = yield from compiled(event_sets)
    yield from check_cost(context, graph)
    prefix = context.origin.prefix
    for length in dict.fromkeys(len(part.origin.prefix) - len(prefix) for part in context.shards):
        nobody = f"{{{chr(0) * (length - 2)}}}"
        there = prefix + nobody
        request, asked = yield from asking(there, graph.below(there), question)
        made[length] = request, request.encode(), asked, nobody.encode()

    def told(part: Context) -> Query[list[Any]]:
        tag = part.origin.prefix[len(prefix) :]
        request, data, asked, placeholder = made[len(tag)]
        own = request._replace(encoded=data.replace(placeholder, tag.encode()), ready=None)
        try:
            replies = yield own
            return [replies[index] for index in asked]
        except SlotMovingError:
            pass
        # While it is on its way, its bitmaps can be read one by one wherever they are.
        graphs = yield from compiled_each(event_sets)
        return (yield from otherwise([one.below(part.origin.prefix) for one in graphs]))

    # All at once, unless that would be too much to hold.
    most = max(len(data) for _, data, _, _ in made.values())
    at_once = min(len(context.shards), max(1, _ROUND_BYTES // most))
    return (yield from in_shards(context, told, at_once))


def _counted(graph: Graph, *, enough: int | None = None) -> Query[int]:
    """Return how many users an expression has, or no less than ``enough`` of them.

    Without temporary keys, which a replica would not write: a bitmap is counted
    there, all else on this side, part by part.
    """
    if not graph.operations:
        (number,) = yield Request([(b"BITCOUNT", next(graph.keys()))], share=_COUNTS)
        return int(number)
    reckon = yield from reckoning()
    size = max(_LEAST, _LARGEST // len(graph.bitmaps))
    at: int | None = 0
    number = 0
    while at is not None and (enough is None or number < enough):
        value, length = yield from _part(graph, at, size)
        here = reckon.count(value)
        number += here
        if length < size:
            break
        at = at + size if here else (yield from next_candidate(graph, at + size))
    return number


def _part(graph: Graph, at: int, size: int) -> Query[tuple[Any, int]]:
    """Return the value of the same bytes of all bitmaps, and how many the longest has of them."""
    commands = ranges((yield from keys_of(graph)), at, size)
    data = yield from answered(Request(commands, atomic=len(commands) > 1, replies=bytes))
    length = max(map(len, data))
    return (yield from evaluated(graph, data, length, algebra().load)), length


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
    replies = yield request
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
    request = Request(commands, atomic=len(commands) > 1, replies=kind)
    if len(offsets) * len(graph.bitmaps) <= _FEW_SINGLES:
        return request
    return request._replace(ready=(yield from request.encoding()))


def _as_number(bits: Sequence[int], size: int) -> int:
    return int("".join(map(str, bits)), 2)


def _deletable(event_set: EventSet) -> Iterator[Bitmap]:
    """Yield the bitmaps that an event set names, each by itself."""
    for one in walk([event_set]):
        if isinstance(one, Combination) and one.operator == "|":
            continue
        own = one.own if isinstance(one, PeriodUnion) else one
        if not isinstance(own, Bitmap):
            raise InvalidTypeError(
                "what is deleted are bitmaps, one or a union of several, "
                f"which {shown(event_set)} is not"
            )
        yield own
