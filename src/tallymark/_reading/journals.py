"""The dictionary of user ids, as `forget` and `merge` change it; and its journals. Pure.

`tallymark._reading.forgetting` describes the protocol. Each change is one script, which names
all of its keys, and may be repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._core import encoding
from .._core.failures import check_replicated, unexpected_reply
from .._core.keys import key_slot
from .._core.user_ids import random_token
from ..errors import InvalidValueError, WrongSchemaError
from .bit_changes import Bit, Guard, in_shard
from .fanout import gather
from .requests import ListNodes, Request, check_replies

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .._core.context import Context
    from .._core.user_ids import Dictionary, Entry
    from .requests import Command, Query, Route

__all__ = ["GONE", "OTHER_TARGET", "OTHER_TOKEN", "Erased", "Journals", "Tokens"]

#: Erases an id. KEYS: forward bucket, reverse block, stamp, journal. ARGV: field, number, the
#: journal's field, encoded id, its length if all have the same, position in the block, stamp.
#: After a lost reply, a repetition finds the number in the journal.
#: The first writes change nothing: if the ACL denies one of the others, the script ends there,
#: and as HDEL is never refused for a lack of memory, a full server erases ids too. A missing
#: stamp is not renewed: it shows that keys were evicted.
_ERASE: Final = b"""\
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return redis.call('HGET', KEYS[4], ARGV[3]) and 1 or 0
end
local width, position = tonumber(ARGV[5]), tonumber(ARGV[6])
local record
if width > 0 then
  record = redis.call('GETRANGE', KEYS[2], width * position, width * (position + 1) - 1)
else
  record = redis.call('HGET', KEYS[2], ARGV[6])
end
redis.call('HDEL', KEYS[4], '')
if width > 0 then redis.call('SETRANGE', KEYS[2], 0, '') end
redis.call('SET', KEYS[3], ARGV[7], 'XX')
redis.call('HSET', KEYS[4], ARGV[3], ARGV[7])
redis.call('HDEL', KEYS[1], ARGV[1])
if record ~= ARGV[4] then return 1 end
if width > 0 then
  redis.call('SETRANGE', KEYS[2], width * position, string.rep('\\0', width))
else
  redis.call('HDEL', KEYS[2], ARGV[6])
end
return 1
"""

#: Replaces an entry of the journal; returns whether the new one is there.
_RETARGET: Final = b"""\
if redis.call('HGET', KEYS[1], ARGV[1]) then
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return redis.call('HGET', KEYS[1], ARGV[2]) and 1 or 0
"""

#: Removes an entry that has a token from the journal.
_END: Final = b"""\
local token = redis.call('HGET', KEYS[1], ARGV[1])
if not token then return -1 end
if token ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""

#: Returns the token of an entry. KEYS has another key, which never exists: so while a slot of a
#: cluster is being migrated, Redis refuses the script, and it is sent again.
_TOKEN: Final = b"return redis.call('HGET', KEYS[1], ARGV[1])"

#: Gives an id a number, if it has none. KEYS: forward bucket, stamp, counter, reverse block, the
#: first reverse block. ARGV: field, encoded id, its length if all have the same, stamp, how many
#: records a block has, the number of the block, the highest number. The number's block has to
#: be known before, since the script names all of its keys.
_ALLOCATE: Final = b"""\
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then return tonumber(known) end
local counter = redis.call('GET', KEYS[3])
local number = tonumber(counter or '0')
local width, size = tonumber(ARGV[3]), tonumber(ARGV[5])
if number > tonumber(ARGV[7]) then return -2 end
if math.floor(number / size) ~= tonumber(ARGV[6]) then return -1 end
if redis.call('EXISTS', KEYS[2]) == 0 then
  if counter or redis.call('EXISTS', KEYS[5]) == 1 then return -3 end
  redis.call('SET', KEYS[2], ARGV[4])
elseif not counter then
  return -3
end
redis.call('SET', KEYS[3], number + 1)
if width > 0 then
  if redis.call('EXISTS', KEYS[4]) == 0 then
    redis.call('SETRANGE', KEYS[4], width * size - 1, '\\0')
  end
  redis.call('SETRANGE', KEYS[4], width * (number % size), ARGV[2])
else
  redis.call('HSET', KEYS[4], number % size, ARGV[2])
end
redis.call('HSET', KEYS[1], ARGV[1], number)
return number
"""

#: The replies of `_ALLOCATE` that are no numbers.
_OTHER_BLOCK: Final = -1
_USED_UP: Final = -2

#: The reply of a guard if the number is not in the journal, if the target's number is another,
#: and if the token is another.
GONE: Final = -1
OTHER_TARGET: Final = -2
OTHER_TOKEN: Final = -3

#: The tokens of one request have their first 8 bytes in common. A server without free memory
#: executes the writes of a script behind one that needs no memory, such as ``HDEL``.
_IN_JOURNAL: Final = b"""\
local current, own = redis.call('HGET', KEYS[1], ARGV[1]), ARGV[arguments]
if not current then return -1 end
if current ~= ARGV[2] and string.sub(current, 1, 8) ~= string.sub(own, 1, 8) then return -3 end
redis.call('HDEL', KEYS[1], '')
"""
_OF_TARGET: Final = b"""\
local keys, arguments = 1, 2
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return -2 end
"""
_ONLY_JOURNAL: Final = b"local keys, arguments = 1, 3\n" + _IN_JOURNAL
_BOTH: Final = (
    b"""\
local keys, arguments = 2, 5
if redis.call('HGET', KEYS[2], ARGV[3]) ~= ARGV[4] then return -2 end
"""
    + _IN_JOURNAL
)

#: The token is the last argument of both guards of the journal.
_RENEW_TOKEN: Final = b"""\
if moved > 0 then redis.call('HSET', KEYS[1], ARGV[1], own) end
"""


class Erased(NamedTuple):
    """An entry of a journal.

    Attributes:
        bit: the bit of the user whose id was erased.
        field: the journal's field.
        target: the encoded id of the user who gets the bits; ``None`` if they are cleared.
    """

    bit: Bit
    field: bytes
    target: bytes | None

    @classmethod
    def of(cls, bit: Bit, target: bytes | None) -> Erased:
        """Return the entry of a bit."""
        return cls(bit, bit.digits if target is None else bit.digits + b":" + target, target)

    @classmethod
    def parsed(cls, shard: int, field: Any) -> Erased:
        """Return the entry of a field of the journal of a shard."""
        digits, colon, target = field.partition(b":")
        if not digits.isdigit():
            raise unexpected_reply(field)
        return cls(Bit(shard, int(digits)), field, target if colon else None)


class Tokens:
    """The tokens of the scripts of one request: random, and different from each other.

    Attributes:
        made: the tokens, in order.
    """

    def __init__(self) -> None:
        self._common = random_token()
        self.made: list[bytes] = []

    def next(self) -> bytes:
        """Return another token."""
        self.made.append(self._common + b"%d" % len(self.made))
        return self.made[-1]


class Journals:
    """The dictionary of one database, and its journals."""

    def __init__(self, context: Context, dictionary: Dictionary) -> None:
        self._context = context
        self._dictionary = dictionary

    # --- the dictionary

    def offset(self, shard: int, place: Entry, *, confirmed: bool = False) -> Query[int | None]:
        """Return the offset of a user's bits; ``None`` for an unknown id.

        Arguments:
            shard: the shard.
            place: the place of the id.
            confirmed: whether replicas have to have everything that was written before.
        """
        bucket, field, _ = place
        command = (b"HGET", self._dictionary.forward(shard, bucket), field)
        reply = yield from self._send(shard, command, confirmed=confirmed)
        if reply is None:
            return None
        if not isinstance(reply, bytes) or not reply.isdigit():
            raise unexpected_reply(reply)
        return int(reply)

    def bit(self, key: Any) -> Query[Bit]:
        """Return the bit of the user with a key. An unknown user gets a number.

        Raises:
            InvalidValueError: no number is left.
            WrongSchemaError: keys of the dictionary are missing.
        """
        dictionary = self._dictionary
        shard, place = dictionary.shard(key), dictionary.entry(key)
        offset = yield from self.offset(shard, place)
        if offset is not None:
            return Bit(shard, offset)
        bucket, field, encoded = place
        forward = dictionary.forward(shard, bucket)
        counter, block = dictionary.key(shard, "next"), dictionary.block
        while True:
            following = yield from self._send(shard, (b"GET", counter))
            number = int(following or 0) // block
            reply = yield from self._eval(
                shard,
                _ALLOCATE,
                (
                    forward,
                    dictionary.key(shard, "stamp"),
                    counter,
                    dictionary.record(shard, number * block).key,
                    dictionary.record(shard, 0).key,
                ),
                field,
                encoded,
                b"%d" % dictionary.ids.width,
                random_token(),
                b"%d" % block,
                b"%d" % number,
                b"%d" % self._context.schema.parts[shard].max_user_id,
            )
            if reply >= 0:
                return Bit(shard, reply)
            if reply == _USED_UP:
                raise InvalidValueError(
                    "the target is a new user, and all numbers up to max_user_id are given"
                )
            if reply != _OTHER_BLOCK:
                raise WrongSchemaError(
                    "the database has numbers of users and no stamp of ids: keys of the ids "
                    "were deleted or evicted"
                )

    def erase(self, place: Entry, own: Erased) -> Query[bool]:
        """Erase an id, and note its number in the journal; return whether that has it now."""
        dictionary = self._dictionary
        shard, offset = own.bit
        bucket, field, encoded = place
        record = dictionary.record(shard, offset)
        keys = (
            dictionary.forward(shard, bucket),
            record.key,
            dictionary.key(shard, "stamp"),
            self._journal(shard),
        )
        reply = yield from self._eval(
            shard,
            _ERASE,
            keys,
            field,
            own.bit.digits,
            own.field,
            encoded,
            b"%d" % dictionary.ids.width,
            b"%d" % record.position,
            random_token(),
        )
        return reply == 1

    # --- the journals

    def _journal(self, shard: int) -> bytes:
        return self._dictionary.key(shard, "forgetting")

    def entries(self, source: bytes, to: bytes | None) -> Query[list[Erased]]:
        """Return the entries of all journals.

        Arguments:
            source: an encoded id; entries with this target get another one.
            to: the other target's encoded id; ``None`` for none.
        """
        shards = range(len(self._dictionary.prefixes))
        requests = ((shard, _fields(self._journal(shard))) for shard in shards)
        found = yield from gather(self._context, requests)
        entries: list[Erased] = []
        for shard, fields in zip(shards, found, strict=True):
            for entry in [Erased.parsed(shard, field) for field in fields]:
                if entry.target != source:
                    entries.append(entry)
                    continue
                other = Erased.of(entry.bit, to)
                arguments = (entry.field, other.field, random_token())
                keys = (self._journal(shard),)
                if (yield from self._eval(shard, _RETARGET, keys, *arguments)) == 1:
                    entries.append(other)
        return entries

    def end(self, entry: Erased, token: bytes, *, confirmed: bool = True) -> Query[int]:
        """Remove an entry that has a token; return 1, 0 for another token, or `GONE`.

        Arguments:
            entry: the entry.
            token: the token.
            confirmed: with the option ``replicas``, whether these have to acknowledge it.
        """
        shard = entry.bit.shard
        keys, arguments = (self._journal(shard),), (entry.field, token)
        return (yield from self._eval(shard, _END, keys, *arguments, confirmed=confirmed))

    def token(self, entry: Erased) -> Query[Any]:
        """Return the token of an entry; ``None`` if the journal does not have it.

        Waits until no slot of the shard is being migrated.
        """
        shard = entry.bit.shard
        keys = (self._journal(shard), self._dictionary.key(shard, "none"))
        return (yield from self._send(shard, (b"EVAL", _TOKEN, b"2", *keys, entry.field)))

    def nodes(self, shards: Iterable[int]) -> Query[dict[int, set[Route]]]:
        """Return for each of some shards which nodes of the cluster have keys of it.

        Without a cluster, there is only one node, which is not asked.
        """
        slots = {shard: key_slot(self._journal(shard)) for shard in shards}
        nodes: dict[int, set[Route]] = {shard: set() for shard in slots}
        names = yield ListNodes()
        if names == [""]:
            return nodes
        found = yield from gather(
            self._context, [(name, _counts(slots.values())) for name in names]
        )
        for name, counts in zip(names, found, strict=True):
            for shard, count in zip(slots, counts, strict=True):
                if count:
                    nodes[shard].add(name)
        return nodes

    def token_command(self, entry: Erased) -> Command:
        """Return the command that reads the token of an entry."""
        return (b"HGET", self._journal(entry.bit.shard), entry.field)

    # --- guards

    def guard(self, entry: Erased, expected: bytes, tokens: Tokens) -> Guard:
        """Return the condition that the journal has an entry with a token, which it renews.

        Arguments:
            entry: the entry.
            expected: the token; those of the same request are accepted too.
            tokens: makes the new ones.
        """
        arguments = (entry.field, expected)
        journal = self._journal(entry.bit.shard)
        return Guard(_ONLY_JOURNAL, (journal,), arguments, tokens.next, _RENEW_TOKEN)

    def guard_of_target(self, target: Bit, key: Any) -> Guard:
        """Return the condition that a bit is that of the user with a key."""
        bucket, field, _ = self._dictionary.entry(key)
        forward = self._dictionary.forward(target.shard, bucket)
        return Guard(_OF_TARGET, (forward,), (field, target.digits))

    @staticmethod
    def both(guard: Guard, of_target: Guard) -> Guard:
        """Return both conditions, if both bits are in the same shard."""
        return guard._replace(
            script=_BOTH,
            keys=guard.keys + of_target.keys,
            arguments=guard.arguments + of_target.arguments,
        )

    # --- requests

    def _eval(
        self,
        shard: int,
        script: bytes,
        keys: Sequence[bytes],
        *arguments: bytes,
        confirmed: bool = False,
    ) -> Query[int]:
        """Execute a script; return its reply. Arguments as `_send`."""
        command = (b"EVAL", script, b"%d" % len(keys), *keys, *arguments)
        reply = yield from self._send(shard, command, confirmed=confirmed)
        if not isinstance(reply, int):
            raise unexpected_reply(reply)
        return reply

    def _send(self, shard: int, command: Command, *, confirmed: bool = False) -> Query[Any]:
        """Send a command to the master of a shard; return its reply.

        Arguments:
            shard: the shard.
            command: the command.
            confirmed: with the option ``replicas``, whether these have to acknowledge
                everything that the master has written so far.
        """
        replicas = self._context.options.replicas if confirmed else 0
        commands = [command, encoding.wait(replicas)] if replicas else [command]
        (reply, *acknowledged) = yield from in_shard(self._context, shard, _request(commands))
        if replicas:
            check_replicated(acknowledged[0], replicas)
        return reply


def _request(commands: Sequence[Command]) -> Query[list[Any]]:
    replies: list[Any] = yield Request(commands, tolerant=True, changes=True)
    check_replies(replies[:1])
    return replies


def _counts(slots: Iterable[int]) -> Query[list[int]]:
    commands = [(b"CLUSTER", b"COUNTKEYSINSLOT", b"%d" % slot) for slot in slots]
    counts: list[int] = yield Request(commands, changes=True)
    return counts


def _fields(journal: bytes) -> Query[Iterable[bytes]]:
    (fields,) = yield Request([(b"HKEYS", journal)], replies=list, changes=True)
    return fields  # type: ignore[no-any-return]
