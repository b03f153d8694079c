"""The read verbs that take event sets: each a generator of what to send. Pure.

`tallymark.requests` says what these yield, and drivers run them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .bits import PIECE_BITS, algebra
from .bounds import bounded, check_number
from .errors import InvalidTypeError, InvalidValueError, SlotMovingError
from .events import Bitmap, Combination, Origin, evaluate
from .keys import MAX_USER_ID, checked_int
from .offsets import WINDOW, blocks, windows
from .programs import Program
from .raw_keys import ranges, unlinked
from .requests import Found, Request, in_steps
from .together import in_shards, together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .context import Context
    from .events import EventSet
    from .offsets import Offsets
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

#: How many bytes of each bitmap a stream of users begins with; and how many bytes
#: of all bitmaps together it fetches at most.
_SMALLEST: Final = 8 * 1024
_SMALLEST_OF_SHARD: Final = 256
_LARGEST: Final = 2 * 1024 * 1024

#: How many users of a sharded database are handed on together, at most.
_PIECE: Final = 8192

#: A part with fewer users is followed by a larger part, one with more by a smaller one.
_FEW: Final = 4_096
_MANY: Final = 65_536

#: How many bytes of all bitmaps together are searched at once: this takes Redis
#: about a millisecond.
_LOOKAHEAD: Final = 8 * 1024 * 1024

#: How many bits are looked up one by one in a transaction.
_SINGLES: Final = 1000

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
        return [sum(numbers) for numbers in zip(*columns, strict=True)]
    if context.options.reads_elsewhere:
        return (yield from _counted_all(found))
    return (yield from _ask(context, found, _bitcount))


def is_empty(context: Context, event_set: EventSet) -> Query[bool]:
    """Return whether nobody is in an event set."""
    asked = context.checked(event_set)
    yield from bounded(context, [asked])
    if context.shards:
        firsts = yield from _ask_shards(context, [asked], _first_bit, _first_of_all)
        return all(first < 0 for (first,) in firsts)
    if context.options.reads_elsewhere:
        (first,) = yield from _first_of_all([asked])
    else:
        (first,) = yield from _ask(context, [asked], _first_bit)
    return bool(first < 0)


def _bitcount(key: bytes) -> Command:
    return (b"BITCOUNT", key)


def _first_bit(key: bytes) -> Command:
    return (b"BITPOS", key, b"1")


def _counted_all(event_sets: Sequence[EventSet]) -> Query[list[int]]:
    numbers = [0] * len(event_sets)
    for index, event_set in enumerate(event_sets):
        numbers[index] = yield from _counted(event_set)
    return numbers


def _first_of_all(event_sets: Sequence[EventSet]) -> Query[list[int]]:
    """Return 0 for an event set that has users, -1 for one that has none."""
    numbers = [0] * len(event_sets)
    for index, event_set in enumerate(event_sets):
        numbers[index] = 0 if (yield from _counted(event_set, enough=1)) else -1
    return numbers


def contains(context: Context, event_set: EventSet, user_id: int) -> Query[bool]:
    """Return whether a user is in an event set: one ``GETBIT`` for each of its bitmaps."""
    asked = context.checked(event_set)
    shard, offset = context.schema.place(user_id)
    yield from bounded(context, [asked])
    if context.shards:
        here = asked.at(context.shards[shard].origin)
        (answer,) = yield from together([(shard, _contains(here, offset))])
        return answer
    return (yield from _contains(asked, offset))


def _contains(event_set: EventSet, offset: int) -> Query[bool]:
    bitmaps = _distinct(event_set)
    digits = b"%d" % offset
    commands = [(b"GETBIT", bitmap.key, digits) for bitmap in bitmaps]
    bits = yield Request(commands, atomic=len(commands) > 1, share=_LOOKUPS)
    return bool(evaluate(event_set, dict(zip(bitmaps, bits, strict=True))))


def contains_many(
    context: Context, event_set: EventSet, user_ids: Iterable[int]
) -> Query[list[bool]]:
    """Return for each of some users whether they are in an event set."""
    asked = context.checked(event_set)
    yield from bounded(context, [asked])
    found, _ = blocks(user_ids)
    # All of them before anything is sent.
    every = yield from in_steps(map(context.schema.offsets, found), 1)
    answers: list[bool] = []
    for ids in every:
        contained: set[int] = set()
        if context.shards:
            dealt = list(context.schema.dealt(ids))
            sets = yield from together(
                (shard, _contained(context, asked.at(context.shards[shard].origin), own))
                for shard, own in dealt
            )
            for (shard, _), some in zip(dealt, sets, strict=True):
                contained.update(offset * len(context.shards) + shard for offset in some)
        else:
            contained = yield from _contained(context, asked, ids)
        answers += yield from in_steps(int(user_id) in contained for user_id in ids.values)
    return answers


def _contained(context: Context, event_set: EventSet, offsets: Offsets) -> Query[set[int]]:
    """Return which of some bits are set in an event set."""
    bitmaps = _distinct(event_set)
    contained: set[int] = set()
    singles: list[int] = []
    # Of many bitmaps, less of each goes into a request.
    width = min(WINDOW, max(_NARROWEST, 8 * _LARGEST // len(bitmaps)))
    for some in windows(offsets, width):
        if len(some.values) * _BYTES_PER_USER >= (some.high - some.low) >> 3:
            contained |= yield from _in_range(event_set, bitmaps, some)
        else:
            singles += map(int, some.values)
    for at in range(0, len(singles), _SINGLES):
        few = singles[at : at + _SINGLES]
        contained |= yield from _one_by_one(context, event_set, bitmaps, few)
    return contained


def users(context: Context, event_set: EventSet, start: int, limit: int | None) -> Query[None]:
    """Find the users of an event set from an id on, in ascending order, part by part."""
    asked = context.checked(event_set)
    if not 0 <= checked_int("start", start) <= MAX_USER_ID:
        raise InvalidValueError(f"start must be in [0, {MAX_USER_ID}]")
    if limit is not None and checked_int("limit", limit) < 0:
        raise InvalidValueError("limit must be 0 or more, or None for no limit")
    return _bounded_users(context, asked, start, limit)


def _bounded_users(context: Context, asked: EventSet, start: int, limit: int | None) -> Query[None]:
    yield from bounded(context, [asked])
    parts = _Parts(asked)
    if context.shards:
        parts = _ShardedParts(asked.at(part.origin) for part in context.shards)
    yield from _users(parts, start, limit)


class _Parts:
    """An event set that is read part by part.

    Attributes:
        smallest, largest: how many bytes of each bitmap a part may have.
        step: the distance of the users of two neighbouring bits.
    """

    step = 1

    def __init__(self, event_set: EventSet) -> None:
        self._event_set = event_set
        self._bitmaps = _distinct(event_set)
        self.smallest = _SMALLEST
        self.largest = max(_SMALLEST, _LARGEST // len(self._bitmaps))

    def ids(self, at: int, size: int) -> Query[tuple[Iterator[list[int]], int]]:
        """Return the users of a part, piece by piece, and how many bytes there are of it."""
        values, length = yield from _part(self._bitmaps, at, size)
        return algebra().ids(evaluate(self._event_set, values), length, 8 * at), length

    def candidate(self, at: int) -> Query[int | None]:
        """Return the first byte from one on that may have a user; None if none has."""
        return (yield from next_candidate(self._event_set, self._bitmaps, at))


class _ShardedParts(_Parts):
    """The same part of all shards: users who follow on those of the part before."""

    def __init__(self, event_sets: Iterable[EventSet]) -> None:
        self._shards = [_Parts(each) for each in event_sets]
        self.step = len(self._shards)
        self.smallest = max(_SMALLEST // self.step, _SMALLEST_OF_SHARD)
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


def _users(parts: _Parts, start: int, limit: int | None) -> Query[None]:
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
            yield Found(some)
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


def next_candidate(event_set: EventSet, bitmaps: Sequence[Bitmap], at: int) -> Query[int | None]:
    """Return the first byte from one on that may have a user; None if none has.

    The server looks for the next bit of each bitmap, which is much faster than
    to fetch the nothing in between.
    """
    while True:
        end = at + max(_LOOKAHEAD // len(bitmaps), _SMALLEST)
        commands: list[Command] = []
        for bitmap in bitmaps:
            commands.append((b"BITPOS", bitmap.key, b"1", b"%d" % at, b"%d" % (end - 1)))
            commands.append((b"STRLEN", bitmap.key))
        replies = yield Request(commands)
        nexts = {
            bitmap: position >> 3 if position >= 0 else end if end < length else None
            for bitmap, position, length in zip(bitmaps, replies[::2], replies[1::2], strict=True)
        }
        candidate = _candidate(event_set, nexts)
        if candidate is None or candidate < end:
            return candidate
        at = end


def delete(context: Context, event_set: EventSet) -> Query[int]:
    """Delete the bitmaps of an event set, which has to be a bitmap or a union of some."""
    yield from bounded(context, [context.checked(event_set)])
    bitmaps = context.bitmaps(event_set)
    _check_deletable(event_set)
    if context.shards:
        found = yield from in_shards(
            context, lambda part: unlinked(each.at(part.origin).key for each in bitmaps)
        )
        return sum(map(any, zip(*found, strict=True)))
    unlink = (b"UNLINK", *(bitmap.key for bitmap in bitmaps))
    (number,) = yield Request([unlink], changes=True)
    return int(number)


def store(context: Context, event_set: EventSet, key: bytes) -> Query[int]:
    """Write the users of an event set, as they are now, to a key; return how many bytes it has."""
    asked = context.checked(event_set)
    yield from bounded(context, [asked])
    request, (reply,) = _asking(
        context.origin, [asked], lambda found: (b"BITOP", b"OR", key, found)
    )
    replies = yield request._replace(changes=True)
    return int(replies[reply])


def _keys(bitmaps: Iterable[Bitmap]) -> list[bytes]:
    return [bitmap.key for bitmap in bitmaps]


def _distinct(event_set: EventSet) -> tuple[Bitmap, ...]:
    return tuple(dict.fromkeys(event_set.bitmaps()))


def _ask(
    context: Context, event_sets: Sequence[EventSet], question: Callable[[bytes], Command]
) -> Query[list[Any]]:
    """Ask the same about each of some event sets, all at one moment."""
    if not event_sets:
        return []
    request, asked = _asking(context.origin, event_sets, question)
    replies = yield request
    return [replies[index] for index in asked]


def _asking(
    origin: Origin, event_sets: Sequence[EventSet], question: Callable[[bytes], Command]
) -> tuple[Request, list[int]]:
    """Return what asks the same about some event sets, and which of the replies count."""
    program = Program(origin.prefix)
    asked = [program.ask(event_set, question) for event_set in event_sets]
    commands = program.finished()
    share = _COUNTS if len(asked) == 1 else 1
    return Request(commands, atomic=len(commands) > 1, share=share), asked


def _ask_shards(
    context: Context,
    event_sets: Sequence[EventSet],
    question: Callable[[bytes], Command],
    otherwise: Callable[[Sequence[EventSet]], Query[list[Any]]],
) -> Query[list[list[Any]]]:
    """Ask all shards the same about some event sets; return the answers of each.

    Arguments:
        context, event_sets, question: as for `_ask`.
        otherwise: asks a shard while its slot is moving.
    """
    if not event_sets:
        return []
    # The commands of two shards differ in the tag alone. So those of a tag that no shard
    # has, since it cannot be typed, are put together once for each length of tags.
    made: dict[int, tuple[Request, bytes, list[int], bytes]] = {}
    prefix = context.origin.prefix
    queries: list[tuple[int, Query[list[Any]]]] = []
    for shard, part in enumerate(context.shards):
        tag = part.origin.prefix[len(prefix) :]
        if len(tag) not in made:
            nobody = f"{{{chr(0) * (len(tag) - 2)}}}"
            origin = Origin(context.origin.database, prefix + nobody)
            there = [one.at(origin) for one in event_sets]
            request, asked = _asking(origin, there, question)
            made[len(tag)] = request, request.encode(), asked, nobody.encode()
        request, data, asked, placeholder = made[len(tag)]
        own = request._replace(encoded=data.replace(placeholder, tag.encode()))
        queries.append((shard, _told(own, asked, part.origin, event_sets, otherwise)))
    return (yield from together(queries, len(queries)))


def _told(
    request: Request,
    asked: list[int],
    origin: Origin,
    event_sets: Sequence[EventSet],
    otherwise: Callable[[Sequence[EventSet]], Query[list[Any]]],
) -> Query[list[Any]]:
    """Ask a shard; if it is on its way, its bitmaps can be read one by one wherever they are."""
    try:
        replies = yield request
        return [replies[index] for index in asked]
    except SlotMovingError:
        pass
    return (yield from otherwise([one.at(origin) for one in event_sets]))


def _counted(event_set: EventSet, *, enough: int | None = None) -> Query[int]:
    """Return how many users an event set has, or no less than ``enough`` of them.

    Without temporary keys, which a replica would not write: a bitmap is counted
    there, all else on this side, part by part.
    """
    if isinstance(event_set, Bitmap):
        (number,) = yield Request([(b"BITCOUNT", event_set.key)], share=_COUNTS)
        return int(number)
    bitmaps = _distinct(event_set)
    reckon = algebra()
    size = max(_SMALLEST, _LARGEST // len(bitmaps))
    at: int | None = 0
    number = 0
    while at is not None and (enough is None or number < enough):
        values, length = yield from _part(bitmaps, at, size)
        here = reckon.count(evaluate(event_set, values))
        number += here
        if length < size:
            break
        at = at + size if here else (yield from next_candidate(event_set, bitmaps, at + size))
    return number


def _part(bitmaps: Sequence[Bitmap], at: int, size: int) -> Query[tuple[dict[Bitmap, Any], int]]:
    """Return the same bytes of some bitmaps, and how many bytes the longest has of them."""
    data = yield Request(ranges(_keys(bitmaps), at, size), atomic=len(bitmaps) > 1, replies=bytes)
    length = max(map(len, data))
    load = algebra().load
    return {bitmap: load(some, length) for bitmap, some in zip(bitmaps, data, strict=True)}, length


def _in_range(event_set: EventSet, bitmaps: Sequence[Bitmap], offsets: Offsets) -> Query[set[int]]:
    """Return who of some neighbours are in an event set, from the bytes that they are in."""
    first = offsets.low >> 3
    size = (offsets.high >> 3) - first + 1
    data = yield Request(
        ranges(_keys(bitmaps), first, size), atomic=len(bitmaps) > 1, replies=bytes
    )
    values = {
        bitmap: int.from_bytes(some, "little") for bitmap, some in zip(bitmaps, data, strict=True)
    }
    together = evaluate(event_set, values).to_bytes(size, "little")
    users = yield from in_steps(
        int(offset)
        for offset in offsets.values
        if together[(offset >> 3) - first] & (128 >> (offset & 7))
    )
    return set(users)


def _one_by_one(
    context: Context, event_set: EventSet, bitmaps: Sequence[Bitmap], offsets: list[int]
) -> Query[set[int]]:
    """Return who of some users are in an event set, from a look at each of their bits."""
    digits = [b"%d" % offset for offset in offsets]
    commands: list[Command] = []
    for bitmap in bitmaps:
        key = bitmap.key
        if context.options.bitfield:
            gets = [argument for each in digits for argument in (b"GET", b"u1", each)]
            # Which only reads, but counts as a write, which a replica does not allow.
            name = b"BITFIELD_RO" if context.options.reads_elsewhere else b"BITFIELD"
            commands.append((name, key, *gets))
        else:
            commands += [(b"GETBIT", key, each) for each in digits]
    kind = list if context.options.bitfield else int
    replies = yield Request(commands, atomic=len(commands) > 1, replies=kind)
    if not context.options.bitfield:
        step = len(offsets)
        replies = [replies[at : at + step] for at in range(0, len(replies), step)]
    # The bits of all users as one number, so that one operation evaluates them all.
    values = {
        bitmap: int("".join(map(str, bits)), 2)
        for bitmap, bits in zip(bitmaps, replies, strict=True)
    }
    together = f"{evaluate(event_set, values):0{len(offsets)}b}"
    return {offset for offset, bit in zip(offsets, together, strict=True) if bit == "1"}


def _candidate(event_set: EventSet, nexts: dict[Bitmap, int | None]) -> int | None:
    """Return the first byte that may have a user, from the first byte of each bitmap."""
    if isinstance(event_set, Combination):
        found = [_candidate(one, nexts) for one in event_set.operands]
        if event_set.operator == "-":
            return found[0]
        if event_set.operator == "&":
            known = [one for one in found if one is not None]
            return max(known) if len(known) == len(found) else None
    else:
        found = [nexts[bitmap] for bitmap in event_set.bitmaps()]
    return min((one for one in found if one is not None), default=None)


def _check_deletable(event_set: EventSet) -> None:
    if isinstance(event_set, Combination) and event_set.operator == "|":
        for one in event_set.operands:
            _check_deletable(one)
    elif not isinstance(event_set, Bitmap):
        raise InvalidTypeError(
            f"what is deleted are bitmaps, one or a union of several, which {event_set!r} is not"
        )
