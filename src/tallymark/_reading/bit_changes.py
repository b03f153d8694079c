"""Queries that clear or move one bit in bitmaps that are given by their keys. Pure.

The bitmaps of one query are all in one shard. Every change may be repeated, after a fault too.
A change may have a `Guard`: a condition that the server checks in the same script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from .._core import encoding
from .._core.failures import check_replicated, copied
from .._core.untrusted import escaped
from ..errors import WrongKeyTypeError
from .fanout import gather
from .raw_keys import command_groups, expiry_times
from .requests import Request, check_replies, send

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._core.context import Context
    from .requests import Command, Query

__all__ = [
    "NO_GUARD",
    "READ",
    "Bit",
    "Guard",
    "in_shard",
    "keys_with",
    "most_changed",
    "move",
    "move_to_shard",
]

AnswerT = TypeVar("AnswerT")

#: How many bitmaps one request reads, and how many it changes at most: on one server, Redis
#: needs 0.4 ms for the script with 250 keys.
READ: Final = 1000
_CHANGED: Final = 250

#: By how many bytes one request may lengthen bitmaps, in all: Redis allocates and clears 4 MiB
#: in 3 ms. A request that changes only one bitmap may exceed it.
_GROWTH: Final = 4 * 1024 * 1024

#: Clears a user's bit where it is set, and sets the bit of another user there, if ARGV has one.
#: A guard before it defines how many keys and arguments are its own.
_MOVE: Final = b"""\
local moved = 0
for at = keys + 1, #KEYS do
  if redis.pcall('GETBIT', KEYS[at], ARGV[arguments + 1]) == 1 then
    if ARGV[arguments + 2] then redis.call('SETBIT', KEYS[at], ARGV[arguments + 2], 1) end
    redis.call('SETBIT', KEYS[at], ARGV[arguments + 1], 0)
    moved = moved + 1
  end
end
"""

#: Sets a bit. If that creates the bitmap, it gets an expiry, in the same step: after a fault
#: in between, no later call would know that it needs one.
_SET: Final = b"""\
local key, expiry = KEYS[keys + 1], ARGV[arguments + 2]
local is_new = expiry and redis.call('EXISTS', key) == 0
redis.call('SETBIT', key, ARGV[arguments + 1], 1)
if is_new then redis.call('EXPIREAT', key, expiry) end
return 1
"""


class Bit(NamedTuple):
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


class Guard(NamedTuple):
    """A condition that a script checks before it changes bits.

    Attributes:
        script: Lua that returns a negative number if the condition does not hold. Defines
            ``keys`` and ``arguments``, the numbers of the first keys and arguments that are
            its own.
        keys, arguments: its keys and arguments.
        token: returns another argument for each call, after the others.
        at_end: Lua that is executed after `move`; ``moved`` is the number of bits.
    """

    script: bytes
    keys: tuple[bytes, ...] = ()
    arguments: tuple[bytes, ...] = ()
    token: Callable[[], bytes] | None = None
    at_end: bytes = b""

    def call(
        self, script: bytes, keys: Sequence[bytes], arguments: Sequence[bytes]
    ) -> tuple[bytes, ...]:
        """Return the command that executes a script with this guard."""
        all_keys = (*self.keys, *keys)
        count = b"%d" % len(all_keys)
        own = self.arguments if self.token is None else (*self.arguments, self.token())
        return (b"EVAL", self.script + script, count, *all_keys, *own, *arguments)


NO_GUARD: Final = Guard(b"local keys, arguments = 0, 0\n")


def in_shard(context: Context, shard: int, query: Query[AnswerT]) -> Query[AnswerT]:
    """Return the result of a query of one shard."""
    (answer,) = yield from gather(context, [(shard, query)])
    return answer


def most_changed(source: Bit, target: Bit | None = None) -> int:
    """Return how many bitmaps one request may change at most.

    Arguments:
        source: the bit that is cleared.
        target: the bit that is set; ``None`` for none.
    """
    if target is None:
        return _CHANGED
    # In the same shard, the bitmaps are as long as the bit of the source needs already.
    grown_from = source.offset if source.shard == target.shard else 0
    growth = max(0, target.offset - grown_from) >> 3
    return min(_CHANGED, _GROWTH // (growth + 1)) or 1


def keys_with(
    keys: Sequence[bytes], digits: bytes, *behind: Command
) -> Query[tuple[list[bytes], list[Any]]]:
    """Return the keys of those bitmaps that have a bit. Skip keys of other types.

    Not on a replica, which may not have the newest bits yet: hence ``changes``.

    Arguments:
        keys: the keys of the bitmaps, of one shard.
        digits: the offset of the bit.
        behind: other commands, to send behind. Their replies are returned too.
    """
    lookups = [(b"GETBIT", key, digits) for key in keys]
    replies = yield from send(Request([*lookups, *behind], tolerant=True, changes=True))
    check_replies(replies, (WrongKeyTypeError,))
    return [key for key, bit in zip(keys, replies, strict=False) if bit == 1], replies[len(keys) :]


def move(
    context: Context,
    keys: Sequence[bytes],
    source: bytes,
    target: bytes | None = None,
    guard: Guard = NO_GUARD,
) -> Query[list[int]]:
    """Clear a bit where it is set, and set another one there.

    Arguments:
        context: the database.
        keys: the keys of bitmaps of one shard.
        source: the offset of the bit to clear.
        target: the offset of the bit to set; ``None`` for none.
        guard: the condition.

    Returns:
        How many were set in some of the bitmaps each; or a negative number from the guard.
    """
    offsets = [source] if target is None else [source, target]
    if context.options.bitfield:
        script = _MOVE + guard.at_end + b"return moved\n"
        scripts = [guard.call(script, group, offsets) for group in command_groups(context, keys)]
        replies: list[int] = yield Request(scripts, changes=True)
        return replies
    # The server has no scripts.
    commands: list[Command] = []
    for key in keys:
        if target is not None:
            commands.append((b"SETBIT", key, target, b"1"))
        commands.append((b"SETBIT", key, source, b"0"))
    old_bits: list[int] = yield Request(commands, atomic=target is not None, changes=True)
    return old_bits[len(offsets) - 1 :: len(offsets)]


def move_to_shard(
    context: Context,
    keys: Sequence[bytes],
    source: Bit,
    target: Bit,
    refusals: list[WrongKeyTypeError],
    guards: tuple[Guard, Guard] = (NO_GUARD, NO_GUARD),
) -> Query[list[int]]:
    """Set a bit in the bitmaps of another shard, then clear the source's.

    After a fault in between, both bits are set, and a repetition ends the move.

    Arguments:
        context: the database.
        keys: the keys of the bitmaps of the source.
        source, target: the bits.
        refusals: gets the errors about keys of the target's shard that hold no bitmaps. The
            bits of the source stay there.
        guards: the conditions of the source's shard and of the target's.

    Returns:
        As `move`. Where the target's guard has refused, the bit of the source stays.
    """
    _, expiries = yield from in_shard(context, source.shard, expiry_times(keys))
    prefixes = [context.shards[bit.shard].origin.prefix.encode() for bit in (source, target)]
    copies = {prefixes[1] + key.removeprefix(prefixes[0]): key for key in expiries}
    query = _set(context, list(copies), target.digits, list(expiries.values()), guards[1])
    replies = yield from in_shard(context, target.shard, query)
    moved: list[bytes] = []
    refused: list[int] = []
    for (copy, key), reply in zip(copies.items(), replies, strict=True):
        if isinstance(reply, WrongKeyTypeError):
            refusals.append(copied(reply, f"{escaped(copy)}: {reply}"))
        elif reply < 0:
            refused.append(reply)
        else:
            moved.append(key)
    if moved:
        query = move(context, moved, source.digits, guard=guards[0])
        refused += yield from in_shard(context, source.shard, query)
    return refused


def _set(
    context: Context,
    keys: Sequence[bytes],
    digits: bytes,
    expiries: Sequence[int | None],
    guard: Guard,
) -> Query[list[Any]]:
    """Set a bit in bitmaps; return for each the bit, the guard's number or the type's error.

    Arguments:
        context: the database.
        keys: the keys of the bitmaps, of one shard.
        digits: the offset of the bit.
        expiries: when each of the bitmaps expires if it does not exist yet, as `expiry_times`.
        guard: the condition.
    """
    if not keys:
        return []
    times = [() if expiry is None else (b"%d" % expiry,) for expiry in expiries]
    commands: list[Command]
    if context.options.bitfield:
        commands = [
            guard.call(_SET, (key,), (digits, *time)) for key, time in zip(keys, times, strict=True)
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
