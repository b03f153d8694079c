"""Queries that change the bits of one user in all bitmaps: `forget` and `merge`. Pure.

Both scan the keys of the user's shard, read the user's bit in the bitmaps of each step, and
change those bitmaps in which it is set. So no key is created and no bitmap gets longer where
the user has no bit. Every change may be repeated, after a fault too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from .._core import encoding
from .._core.failures import check_replicated, copied
from .._core.untrusted import escaped, reraise_from_handler
from ..errors import InvalidValueError, StoreError, WrongKeyTypeError
from .fanout import gather
from .key_scan import KeyScan
from .raw_keys import command_groups
from .requests import Request, check_replies, send

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._core.context import Context
    from .requests import Command, Query

__all__ = ["forget", "merge"]

AnswerT = TypeVar("AnswerT")

#: How many bitmaps one request reads, and how many it changes at most: on one server, Redis
#: needs 0.4 ms for the script with 250 keys.
_READ: Final = 1000
_CHANGED: Final = 250

#: By how many bytes one request may lengthen bitmaps, in all: Redis allocates and clears 4 MiB
#: in 3 ms. A request that changes only one bitmap may exceed it.
_GROWTH: Final = 4 * 1024 * 1024

#: Clears a user's bit where it is set, and sets the bit of another user there, if ARGV has one.
_MOVE: Final = b"""\
local moved = 0
for _, key in ipairs(KEYS) do
  if redis.pcall('GETBIT', key, ARGV[1]) == 1 then
    if ARGV[2] then redis.call('SETBIT', key, ARGV[2], 1) end
    redis.call('SETBIT', key, ARGV[1], 0)
    moved = moved + 1
  end
end
return moved
"""

#: Sets a bit. If that creates the bitmap, it gets an expiry, in the same step: after a fault
#: in between, no later call would know that it needs one.
_SET: Final = b"""\
local is_new = ARGV[2] and redis.call('EXISTS', KEYS[1]) == 0
redis.call('SETBIT', KEYS[1], ARGV[1], 1)
if is_new then redis.call('EXPIREAT', KEYS[1], ARGV[2]) end
return 1
"""


class _Bit(NamedTuple):
    """The place of a user's bit in all bitmaps.

    Attributes:
        shard: the number of the shard.
        offset: the offset in the bitmaps of the shard.
    """

    shard: int
    offset: int

    @property
    def digits(self) -> bytes:
        """The offset, as an argument of a command."""
        return b"%d" % self.offset


def forget(context: Context, user_id: int) -> Query[int]:
    """Clear a user's bit in all bitmaps; return how many bits were set."""
    bit = _Bit(*context.schema.place(user_id))

    def clear(keys: Sequence[bytes]) -> Query[int]:
        return _in_shard(context, bit.shard, _move(context, keys, bit.digits))

    return (yield from _change_all(context, bit, clear, _CHANGED, "cleared"))


def merge(context: Context, source: int, target: int) -> Query[int]:
    """Move all bits of a user to another user; return how many bits of the source were set.

    Arguments:
        context: the database.
        source: the id of the user who will have no bit.
        target: the id of the user who gets the bits.

    Raises:
        InvalidTypeError, InvalidValueError: an id is not allowed, or both are the same.
        WrongKeyTypeError: in the shard of the target, a key has another type than a bitmap.
            All other bits were moved.
    """
    from_bit = _Bit(*context.schema.place(source))
    to_bit = _Bit(*context.schema.place(target))
    if from_bit == to_bit:
        raise InvalidValueError(
            f"source and target must be different users, got {context.schema.offset(source)} twice"
        )
    refusals: list[WrongKeyTypeError] = []

    def move(keys: Sequence[bytes]) -> Query[int]:
        if from_bit.shard != to_bit.shard:
            return _move_to_shard(context, keys, from_bit, to_bit, refusals)
        query = _move(context, keys, from_bit.digits, to_bit.digits)
        return _in_shard(context, from_bit.shard, query)

    # In the same shard, the bitmaps are as long as the bit of the source needs already.
    grown_from = from_bit.offset if from_bit.shard == to_bit.shard else 0
    growth = max(0, to_bit.offset - grown_from) >> 3
    most = min(_CHANGED, _GROWTH // (growth + 1)) or 1
    moved = yield from _change_all(context, from_bit, move, most, "moved")
    if refusals:
        raise copied(
            refusals[0],
            f"{refusals[0]}; {len(refusals)} bits stay where they are, {moved} others were moved",
        )
    return moved


def _change_all(
    context: Context,
    bit: _Bit,
    change: Callable[[Sequence[bytes]], Query[int]],
    most: int,
    verb: str,
) -> Query[int]:
    """Change all bitmaps that have a bit, in steps; return how many were changed.

    Arguments:
        context: the database.
        bit: the bit.
        change: changes the bitmaps with some keys, and returns how many had the bit.
        most: how many keys ``change`` gets at most.
        verb: what has been done with the bits, for errors.

    Raises:
        StoreError: there was a failure; the message says how far the query had come.
    """
    changed, begun = 0, False
    scan = KeyScan(context, shard=bit.shard, with_temporary=True, changes=True)
    try:
        while scan.has_more:
            found = [bitmap.key for bitmap in (yield from scan.next())]
            for at in range(0, len(found), _READ):
                query = _keys_with(found[at : at + _READ], bit.digits)
                keys = yield from _in_shard(context, bit.shard, query)
                for begin in range(0, len(keys), most):
                    begun = True
                    changed += yield from change(keys[begin : begin + most])
    except StoreError as error:
        reraise_from_handler(error)
        if not begun:
            raise
        progress = f"{changed} bits were {verb} before, and others may have been: call it again"
        raise copied(error, f"{error}; {progress}") from error.__cause__
    return changed


def _in_shard(context: Context, shard: int, query: Query[AnswerT]) -> Query[AnswerT]:
    """Return the result of a query of one shard."""
    (answer,) = yield from gather(context, [(shard, query)])
    return answer


def _keys_with(keys: Sequence[bytes], digits: bytes) -> Query[list[bytes]]:
    """Return the keys of those bitmaps that have a bit. Skip keys of other types.

    Not on a replica, which may not have the newest bits yet: hence ``changes``.
    """
    lookups = [(b"GETBIT", key, digits) for key in keys]
    bits = yield from send(Request(lookups, tolerant=True, changes=True))
    check_replies(bits, (WrongKeyTypeError,))
    return [key for key, bit in zip(keys, bits, strict=True) if bit == 1]


def _move(
    context: Context, keys: Sequence[bytes], source: bytes, target: bytes | None = None
) -> Query[int]:
    """Clear a bit where it is set, and set another one there; return how many were set.

    Arguments:
        context: the database.
        keys: the keys of bitmaps of one shard.
        source: the offset of the bit to clear.
        target: the offset of the bit to set; ``None`` for none.
    """
    offsets = [source] if target is None else [source, target]
    if context.options.bitfield:
        scripts = [
            (b"EVAL", _MOVE, b"%d" % len(group), *group, *offsets)
            for group in command_groups(context, keys)
        ]
        return sum((yield Request(scripts, changes=True)))
    # The server has no scripts.
    commands: list[Command] = []
    for key in keys:
        if target is not None:
            commands.append((b"SETBIT", key, target, b"1"))
        commands.append((b"SETBIT", key, source, b"0"))
    old_bits = yield Request(commands, atomic=target is not None, changes=True)
    return sum(old_bits[len(offsets) - 1 :: len(offsets)])


def _move_to_shard(
    context: Context,
    keys: Sequence[bytes],
    source: _Bit,
    target: _Bit,
    refusals: list[WrongKeyTypeError],
) -> Query[int]:
    """Set a bit in the bitmaps of another shard, then clear the source's; return how many.

    After a fault in between, both bits are set, and a repetition ends the move.

    Arguments:
        context: the database.
        keys: the keys of the bitmaps of the source.
        source, target: the bits.
        refusals: gets the errors about keys of the target's shard that hold no bitmaps. The
            bits of the source stay there.
    """
    expiries = yield from _in_shard(context, source.shard, _expiries(keys))
    prefixes = [context.shards[bit.shard].origin.prefix.encode() for bit in (source, target)]
    copies = {prefixes[1] + key.removeprefix(prefixes[0]): key for key in expiries}
    query = _set(context, list(copies), target.digits, list(expiries.values()))
    replies = yield from _in_shard(context, target.shard, query)
    moved: list[bytes] = []
    for (copy, key), reply in zip(copies.items(), replies, strict=True):
        if isinstance(reply, WrongKeyTypeError):
            refusals.append(copied(reply, f"{escaped(copy)}: {reply}"))
        else:
            moved.append(key)
    if not moved:
        return 0
    return (yield from _in_shard(context, source.shard, _move(context, moved, source.digits)))


def _expiries(keys: Sequence[bytes]) -> Query[dict[bytes, int | None]]:
    """Return when each bitmap expires, in seconds since 1970; ``None`` for never.

    Bitmaps that do not exist any more are left out. By the clock of the server, which is that
    of ``PTTL``. Rounded, since the server takes some time between two commands: an expiry in
    whole seconds, as tallymark sets it, is exact.
    """
    commands: list[Command] = [(b"TIME",), *((b"PTTL", key) for key in keys)]
    replies = yield Request(commands, tolerant=True, changes=True)
    check_replies(replies)
    (seconds, microseconds), *ttls = replies
    now = int(seconds) + int(microseconds) / 1e6
    return {
        key: None if ttl == -1 else round(now + ttl / 1000)
        for key, ttl in zip(keys, ttls, strict=True)
        if ttl != -2  # the key has expired, or was deleted
    }


def _set(
    context: Context, keys: Sequence[bytes], digits: bytes, expiries: Sequence[int | None]
) -> Query[list[Any]]:
    """Set a bit in bitmaps; return for each the bit or the error about its type.

    Arguments:
        context: the database.
        keys: the keys of the bitmaps, of one shard.
        digits: the offset of the bit.
        expiries: when each of the bitmaps expires if it does not exist yet, as `_expiries`.
    """
    if not keys:
        return []
    times = [() if expiry is None else (b"%d" % expiry,) for expiry in expiries]
    commands: list[Command]
    if context.options.bitfield:
        commands = [
            (b"EVAL", _SET, b"1", key, digits, *time) for key, time in zip(keys, times, strict=True)
        ]
    else:
        # The server has no scripts.
        existing = yield Request([(b"EXISTS", key) for key in keys], changes=True)
        commands = [(b"SETBIT", key, digits, b"1") for key in keys]
        for key, time, exists in zip(keys, times, existing, strict=True):
            if time and not exists:
                commands.append((b"EXPIREAT", key, *time))
    # The bit of the source may be cleared only when a failover can no longer lose this one.
    # Inside of a transaction, WAIT would not wait.
    replicas = context.options.replicas
    if replicas:
        commands.append(encoding.wait(replicas))
    atomic = not (context.options.bitfield or replicas)
    replies = yield Request(commands, atomic=atomic, tolerant=True, changes=True)
    check_replies(replies, (WrongKeyTypeError,))
    if replicas:
        check_replicated(replies[-1], replicas)
    return list(replies[: len(keys)])
