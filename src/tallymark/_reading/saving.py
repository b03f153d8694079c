"""The query that saves an event set as a flag: `save`. Pure.

What is short work, Redis computes: in each shard, one script does all operations and writes the
flag, so it is of one moment. Else the client computes the event set in parts, each of one
moment, and writes them to a temporary key with a short time to live. When all shards have theirs,
one script for each shard renames it. So the flag is the old or the new one at any time, and after
a fault nothing is left for long.

**Repetitions.** A request is sent again if its reply is lost. A script that must not run twice
(since the expression has the flag itself, or the temporary key is renamed already) leaves its
reply under a random key, where a repetition finds it. Without scripts, an expression with the
flag is refused, unless computing it again from its own result changes nothing.

**Users who are forgotten or merged meanwhile**, in a database with a dictionary: their numbers
are in the journal of the shard, from the moment at which the id is erased until no bitmap has
the bit (`tallymark._reading.forgetting`). The scan of a `forget` may have passed the flag already,
when it is written from bitmaps that the scan has not reached. So each script that writes a flag
gives all entries of the journal a new token, which makes the others scan once more. And parts are
written only if the stamp and the journal are the same as before the first part was read: then no
entry was made or removed meanwhile, else the bits of a user might have come from before a
`forget` that has ended. If they are not the same, the parts are computed again.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

from .._core import encoding
from .._core.arguments import checked_name
from .._core.events import Bitmap
from .._core.failures import check_replicated, copied, unexpected_reply
from .._core.untrusted import reraise_from_handler, shown
from .._core.user_ids import random_token
from ..errors import CommandError, InvalidValueError, StoreError, StoreNotReadyError
from .bitop import BitopPlan
from .bounds import check_bitmaps
from .expressions import (
    build_request,
    check_cost,
    compile_graph,
    fetch_part,
    find_candidate,
    is_short_work,
    load_algebra,
    part_size,
)
from .fanout import each_shard, gather
from .requests import Request, check_replies, in_steps, run_steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .._core.context import Context
    from .._core.events import EventSet
    from .graphs import Graph
    from .requests import Command, Query

__all__ = ["save"]

#: How many seconds a temporary key lives after the last part was written to it, and the reply of
#: a script.
_LIFETIME: Final = b"60"

#: For how many bitmaps the operations are planned in less than a millisecond.
_FEW_BITMAPS: Final = 256

#: How often the parts of a shard are computed at most.
_ATTEMPTS: Final = 10

#: The replies of `_PUBLISH` if users were forgotten meanwhile, and if the temporary key is lost.
_OUTDATED: Final = -1
_LOST: Final = -2

#: The beginning of both scripts. KEYS: the flag, the key of the reply, and in a database with
#: a dictionary the journal. ARGV: 3 with a journal, else 2; a token; the lifetime of the
#: reply, empty for none.
_BEGIN: Final = b"""\
local keys, lifetime = tonumber(ARGV[1]), ARGV[3]
local reply = redis.call('GET', KEYS[2])
if reply then return tonumber(reply) end
local kind = redis.call('TYPE', KEYS[1])
kind = kind['ok'] or kind
if kind ~= 'string' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE the key of the flag holds a ' .. kind)
end
local function done(count)
  if keys == 3 then
    for _, field in ipairs(redis.call('HKEYS', KEYS[3])) do
      redis.call('HSET', KEYS[3], field, ARGV[2])
    end
  end
  if lifetime ~= '' then redis.call('SET', KEYS[2], count, 'EX', lifetime) end
  return tonumber(count)
end
"""

#: Computes the flag. More KEYS: temporary keys, and all others of the operations. More ARGV: how
#: many temporary keys there are; for each ``BITOP`` the number of its arguments and these.
#: The last one writes the flag.
_COMPUTE: Final = (
    _BEGIN
    + b"""\
local at, failure = 5, nil
while at <= #ARGV and not failure do
  local size = tonumber(ARGV[at])
  local result = redis.pcall('BITOP', unpack(ARGV, at + 1, at + size))
  if type(result) == 'table' and result.err then failure = result end
  at = at + size + 1
end
if ARGV[4] ~= '0' then redis.call('UNLINK', unpack(KEYS, keys + 1, keys + tonumber(ARGV[4]))) end
if failure then return failure end
local count = redis.call('BITCOUNT', KEYS[1])
if count == 0 then redis.call('DEL', KEYS[1]) end
return done(count)
"""
)

#: Writes a part to a temporary key. KEYS: the temporary key. ARGV: its length before, where the
#: part begins, the part, the lifetime. The parts do not end with zeros. If the length is another
#: one, the key has expired or was evicted, or a failover has lost parts.
_WRITE: Final = b"""\
if ARGV[1] == '0' then redis.call('SET', KEYS[1], '', 'EX', ARGV[4]) end
local length = redis.call('STRLEN', KEYS[1])
if length ~= tonumber(ARGV[1]) and length ~= ARGV[2] + #ARGV[3] then return -2 end
redis.call('SETRANGE', KEYS[1], ARGV[2], ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""

#: Renames the temporary key to the flag. More KEYS: the temporary key, the stamp. More ARGV: how
#: many users there are; the length of the temporary key; with a journal, the stamp and the
#: fields from before.
_PUBLISH: Final = (
    _BEGIN
    + b"""\
local count, length, temporary = ARGV[4], tonumber(ARGV[5]), KEYS[keys + 1]
if keys == 3 then
  local before, number = {}, 0
  for at = 7, #ARGV do before[ARGV[at]], number = true, number + 1 end
  for _, field in ipairs(redis.call('HKEYS', KEYS[3])) do
    number = before[field] and number - 1 or -1
    if number < 0 then break end
  end
  if number ~= 0 or (redis.call('GET', KEYS[5]) or '') ~= ARGV[6] then
    redis.call('UNLINK', temporary)
    return -1
  end
end
if redis.call('STRLEN', temporary) ~= length then return -2 end
if length == 0 then
  redis.call('DEL', KEYS[1])
else
  redis.call('PERSIST', temporary)
  redis.call('RENAME', temporary, KEYS[1])
end
return done(count)
"""
)


class _Written(NamedTuple):
    """An event set that is complete under a temporary key of a shard.

    Attributes:
        key: the temporary key; there is none if there are no users.
        users: how many users it has.
        length: how many bytes it has; negative if it is lost.
        state: the stamp and the journal from before, as arguments of `_PUBLISH`.
    """

    key: bytes
    users: int
    length: int
    state: tuple[bytes, ...]


def save(context: Context, event_set: EventSet, as_: str) -> Query[int]:
    """Save the users of an event set as a flag; return how many they are.

    Arguments:
        context: the database.
        event_set: the event set.
        as_: the name of the flag.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed.
        WrongKeyTypeError: the key of the flag has another type than a bitmap.
        StoreError: there was a failure; the message says if the flag may have been saved.
    """
    flag = Bitmap(context.origin, checked_name("as_", as_), None)
    event_set = context.checked(event_set)
    yield from check_bitmaps(context, [event_set])
    graph = yield from compile_graph([event_set])
    saver = _Saver(context, graph, flag)
    compute = saver.compute
    is_short = True
    if context.options.bitfield:
        is_short = yield from is_short_work(context, graph, copies=1)
    else:
        yield from check_cost(context, graph)
        yield from saver.check_repeatable()
        compute = saver.compute_without_scripts
    if not (is_short and context.options.bitfield and context.schema.shards is None):
        # No shard is changed, and nothing computed, if one of the keys has the wrong type.
        yield from each_shard(context, saver.check_type)
    if is_short:
        return sum((yield from saver.reporting(each_shard(context, compute))))
    return (yield from saver.write_and_publish())


class _Saver:
    """The steps of one `save`.

    Arguments of its methods:
        shard: the context of a shard.
    """

    def __init__(self, context: Context, graph: Graph, flag: Bitmap) -> None:
        self._context = context
        self._graph = graph
        self._flag = flag
        self._token = secrets.token_hex(16)

    def _key(self, shard: Context) -> bytes:
        """Return the key of the flag."""
        return self._flag.key_with_prefix(shard.origin.prefix)

    def _temp_key(self, shard: Context, name: str) -> bytes:
        return f"{shard.origin.prefix}tmp:{self._token}:{name}".encode()

    def _dictionary_keys(self, shard: Context) -> tuple[bytes, ...]:
        """Return the keys of the journal and the stamp, if there is a dictionary."""
        dictionary = self._context.schema.dictionary
        if dictionary is None:
            return ()
        number = self._context.shards.index(shard)
        return dictionary.key(number, "forgetting"), dictionary.key(number, "stamp")

    def check_type(self, shard: Context) -> Query[None]:
        """Raise if the key of the flag has another type than a bitmap."""
        yield Request([(b"STRLEN", self._key(shard))], changes=True)

    def reporting(self, query: Query[list[int]]) -> Query[list[int]]:
        """Return the result of a query that changes the flag.

        Raises:
            StoreError: there was a failure; the message says what may have been done.
        """
        try:
            return (yield from query)
        except StoreError as error:
            reraise_from_handler(error)
            several = len(self._context.shards) > 1
            if isinstance(error, CommandError) and not several:
                raise  # nothing was changed
            outcome = f"may have been saved{' in some shards' if several else ''}"
            raise copied(error, f"{error}; {shown(self._flag.event)} {outcome}") from (
                error.__cause__
            )

    def _eval(
        self,
        shard: Context,
        script: bytes,
        keys: Iterable[bytes],
        arguments: Iterable[bytes],
        *,
        once: bool,
    ) -> Query[int]:
        """Execute a script; return its reply.

        Arguments:
            shard: the shard.
            script: begins with `_BEGIN`.
            keys, arguments: those after its first ones.
            once: whether a repetition must not run again.
        """
        journal = self._dictionary_keys(shard)[:1]
        reply_key = self._temp_key(shard, "reply")
        all_keys = (self._key(shard), reply_key, *journal, *keys)
        own = (b"%d" % (2 + len(journal)), random_token(), _LIFETIME if once else b"")
        command = (b"EVAL", script, b"%d" % len(all_keys), *all_keys, *own, *arguments)
        replicas = self._context.options.replicas
        commands = [command, encoding.wait(replicas)] if replicas else [command]
        reply, *acknowledged = yield Request(commands, tolerant=bool(replicas), changes=True)
        check_replies([reply])
        if replicas:
            check_replicated(acknowledged[0], replicas)
        if once and reply >= 0:
            try:
                yield Request([(b"UNLINK", reply_key)], changes=True)
            except StoreError as error:  # it expires
                reraise_from_handler(error)
        return int(reply)

    # --- in Redis

    def _has_flag(self) -> bool:
        return self._flag in self._graph.bitmaps

    def compute(self, shard: Context) -> Query[int]:
        """Have Redis compute the flag; return how many users it has."""
        graph = self._graph.with_prefix(shard.origin.prefix)
        plan = BitopPlan(shard.origin.prefix)
        key = self._key(shard)
        steps = plan.add(graph, lambda result: (b"BITOP", b"OR", key, result))
        yield from run_steps(steps, large=len(graph.bitmaps) > _FEW_BITMAPS)
        operations = [command[1:] for command in plan.commands if command[0] == b"BITOP"]
        temporary = plan.temp_keys
        others = dict.fromkeys(part for operation in operations for part in operation[1:])
        for known in (key, *temporary):
            others.pop(known, None)
        arguments = [b"%d" % len(temporary)]
        for operation in operations:
            arguments += [b"%d" % len(operation), *operation]
        keys = (*temporary, *others)
        return (yield from self._eval(shard, _COMPUTE, keys, arguments, once=self._has_flag()))

    def check_repeatable(self) -> Query[None]:
        """Raise if the flag would be another one if it was computed again from its own result.

        As `tallymark._reading.adders` uses ``^``, at_least is refused, although it would not be.
        """
        if self._has_flag() and any((yield from in_steps(self._excludes_flag()))):
            raise InvalidValueError(
                f"with bitfield=False, {shown(self._flag.event)} cannot be saved from itself with "
                "^ or at_least, or behind -, as a request may be sent again: save the users under "
                "another name, and that as the flag"
            )

    def _excludes_flag(self) -> Iterator[bool]:
        """Yield for each operation whether a user may not be in it for being in the flag."""
        having = {~self._graph.bitmaps.index(self._flag)}
        for number, (operator, operands, _) in enumerate(self._graph.operations):
            if not having.isdisjoint(operands):
                having.add(number)
            excluding = {"^": operands, "-": operands[1:]}.get(operator, ())
            yield not having.isdisjoint(excluding)

    def compute_without_scripts(self, shard: Context) -> Query[int]:
        """Do the same in a transaction; an empty flag stays, as an empty bitmap."""
        prefix = shard.origin.prefix
        key = self._key(shard)
        request, (index,) = yield from build_request(
            prefix, self._graph.with_prefix(prefix), lambda result: (b"BITOP", b"OR", key, result)
        )
        commands = [*request.commands[: index + 1], (b"BITCOUNT", key)]
        commands += request.commands[index + 1 :]
        replies = yield Request(commands, atomic=True, changes=True)
        return int(replies[index + 1])

    # --- in the client

    def write_and_publish(self) -> Query[int]:
        """Compute the flag in parts, then rename it in all shards; return how many users it has."""
        context = self._context
        sizes: dict[int, int] = {}
        for _ in range(_ATTEMPTS):
            missing = [number for number in range(len(context.shards)) if number not in sizes]
            written = yield from gather(
                context, [(number, self._write(context.shards[number])) for number in missing]
            )
            queries = [
                (number, self._publish(context.shards[number], result))
                for number, result in zip(missing, written, strict=True)
            ]
            replies = yield from self.reporting(gather(context, queries))
            for number, result, reply in zip(missing, written, replies, strict=True):
                if reply not in {_OUTDATED, _LOST}:
                    sizes[number] = result.users
            if len(sizes) == len(context.shards):
                return sum(sizes.values())
        raise StoreNotReadyError(
            f"users were forgotten, or temporary keys were deleted, in each of {_ATTEMPTS} "
            f"attempts to compute {shown(self._flag.event)}; it is as before in "
            f"{len(context.shards) - len(sizes)} of {len(context.shards)} shards"
        )

    def _state(self, shard: Context) -> Query[tuple[bytes, ...]]:
        """Return the stamp and the fields of the journal, as arguments of `_PUBLISH`."""
        keys = self._dictionary_keys(shard)
        if not keys:
            return ()
        journal, stamp = keys
        commands: list[Command] = [(b"GET", stamp), (b"HKEYS", journal)]
        replies = yield Request(commands, tolerant=True, changes=True)
        check_replies(replies)
        if not isinstance(replies[1], list):
            raise unexpected_reply(replies[1])
        return (replies[0] or b"", *replies[1])

    def _write(self, shard: Context) -> Query[_Written]:
        """Compute the flag in parts, and write them to a temporary key."""
        graph = self._graph.with_prefix(shard.origin.prefix)
        key = self._temp_key(shard, secrets.token_hex(4))
        state = yield from self._state(shard)
        algebra = yield from load_algebra()
        size = part_size(self._context, graph)
        count = written = 0
        at: int | None = 0
        while at is not None:
            value, length = yield from fetch_part(graph, at, size, changes=True)
            users = algebra.count(value)
            count += users
            if users:
                data = algebra.dump(value, length).rstrip(b"\0")
                own = (b"%d" % written, b"%d" % at, data, _LIFETIME)
                (reply,) = yield Request([(b"EVAL", _WRITE, b"1", key, *own)], changes=True)
                if reply == _LOST:
                    return _Written(key, 0, _LOST, state)
                written = at + len(data)
            if length < size:
                break
            at = at + size if users else (yield from find_candidate(graph, at + size, changes=True))
        return _Written(key, count, written, state)

    def _publish(self, shard: Context, written: _Written) -> Query[int]:
        """Rename a temporary key; return the reply of `_PUBLISH`."""
        if written.length == _LOST:
            return _LOST
        keys = (written.key, *self._dictionary_keys(shard)[1:])
        arguments = (b"%d" % written.users, b"%d" % written.length, *written.state)
        return (yield from self._eval(shard, _PUBLISH, keys, arguments, once=True))
