"""The script that looks up and allocates users' numbers, and executes their marks. Pure.

One call of it is atomic: the numbers that it writes with are those that the dictionary has at
that moment. `tallymark._core.user_ids` has the dictionary's format.

Redis runs nothing else meanwhile. A new id takes 3 us of its time, a known one 1.2 us, with
another 2 us for a mark of three bitmaps; so a call has 500 ids at most.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

from .._core import encoding
from .._core.failures import RedirectedError, unexpected_reply
from ..errors import CommandError, InvalidValueError, TallymarkError, WrongSchemaError
from .batch import Batch
from .commands import SetBits, WithExpiry, parse_all
from .marks import NO_FLIPS, SparseMarks
from .results import explained
from .unshared import ExactClear, SetSparse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._core.keys import KeySchema
    from .commands import WriteCommand
    from .id_marks import IdExactUnmark, IdMark
    from .marks import Bitmaps, BitMark, Mark, Result

__all__ = ["MAX_IDS", "IdScript", "ScriptCall"]

#: How many ids one call has at most, if they are not of one transaction.
MAX_IDS: Final = 500

#: The number of an id that no user has been marked with; and of one for which none is left.
_UNKNOWN: Final = -1
_USED_UP: Final = -2

#: KEYS holds the key of the stamp; all others are derived from it, or in ARGV: so that a bitmap
#: that an ACL denies fails only its own marks. ARGV has the prefix of the dictionary's keys, the
#: length of an encoded id or 0, how many records a reverse block has, the highest number, a
#: random stamp, "1" on a cluster; then how many ids, and for each its field, its bucket (behind
#: a "+" if the id gets a number), and unless all have the same length the encoded id, or "" if
#: that is the field; then how many bitmaps, and their keys; then the operations:
#:
#: * "S": the bitmaps of one bit, the bit, and when they expire;
#: * "B": the bitmaps of several bits, the bits, and when they expire;
#: * "X": an exact unmark: the id's position, and each bitmap with those of its other days.
#:
#: Lists begin with their lengths. Bitmaps are positions among the keys. A bit is the position of
#: an id, doubled, plus the value. The reply has the stamp, each id's number, and the replies to
#: the commands, with 0 for those of ids without a number.
#:
#: Everything that can fail as a whole is done before the first write: on a cluster, Redis
#: refuses the access to a missing key of a slot that is being migrated, so the script asks for
#: all of them before.
_SCRIPT: Final = b"""\
local base, width, block = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local highest, is_cluster = tonumber(ARGV[4]), ARGV[6] == '1'
local count = tonumber(ARGV[7])
local step = width > 0 and 2 or 3
local at = 8 + step * count
local keys = {}
for i = 1, tonumber(ARGV[at]) do keys[i] = ARGV[at + i] end
at = at + 1 + #keys

local function existing(names)
  local number = 0
  for i = 1, #names, 1000 do
    number = number + redis.call('EXISTS', unpack(names, i, math.min(i + 999, #names)))
  end
  return number
end

local numbers, found, fresh = {}, {}, {}
local stamp = redis.call('GET', KEYS[1])
for i = 1, count do
  local field = ARGV[8 + step * (i - 1)]
  local bucket = ARGV[9 + step * (i - 1)]
  local wanted = string.byte(bucket) == 43
  if wanted then bucket = string.sub(bucket, 2) end
  bucket = base .. 'f:' .. bucket
  local number = redis.call('HGET', bucket, field)
  if number then
    numbers[i] = number
    found[i] = tonumber(number)
  else
    numbers[i] = false
    found[i] = -1
    if wanted then fresh[#fresh + 1] = {i, bucket, field} end
  end
end

if is_cluster then existing(keys) end
if #fresh > 0 then
  local next = tonumber(redis.call('GET', base .. 'next') or '0')
  if not stamp then
    if next > 0 or redis.call('EXISTS', base .. 'r:0') > 0 or existing(keys) > 0 then
      return {'lost'}
    end
  end
  for i = #fresh, math.max(1, highest - next + 2), -1 do
    found[fresh[i][1]] = -2
    fresh[i] = nil
  end
  local last = next + #fresh - 1
  if is_cluster then
    for number = math.floor(next / block), math.floor(last / block) do
      redis.call('EXISTS', base .. 'r:' .. number)
    end
  end
  if not stamp then
    stamp = ARGV[5]
    redis.call('SET', KEYS[1], stamp)
  end
  redis.call('SET', base .. 'next', last + 1)
  local number = next
  while number <= last do
    local first = number % block
    local reverse = base .. 'r:' .. math.floor(number / block)
    local records = {}
    while number <= last and number % block == first + #records / (width > 0 and 1 or 2) do
      local i = fresh[number - next + 1][1]
      local id = ARGV[8 + step * (i - 1)]
      if width == 0 then
        records[#records + 1] = number % block
        local whole = ARGV[10 + step * (i - 1)]
        if whole ~= '' then id = whole end
      end
      records[#records + 1] = id
      numbers[i] = number
      found[i] = number
      number = number + 1
    end
    if width == 0 then
      redis.call('HSET', reverse, unpack(records))
    else
      if redis.call('EXISTS', reverse) == 0 then
        redis.call('SETRANGE', reverse, width * block - 1, '\\0')
      end
      redis.call('SETRANGE', reverse, width * first, table.concat(records))
    end
  end
  for i = 1, #fresh do
    redis.call('HSET', fresh[i][2], fresh[i][3], next + i - 1)
  end
end

local replies = {stamp or ''}
for i = 1, count do replies[#replies + 1] = found[i] end

local function indexes()
  local list = {}
  for i = 1, tonumber(ARGV[at]) do list[i] = tonumber(ARGV[at + i]) end
  at = at + 1 + #list
  return list
end

local function set_one(bitmaps)
  local bit = tonumber(ARGV[at])
  at = at + 1
  local number = numbers[math.floor(bit / 2) + 1]
  for _, key in ipairs(bitmaps) do
    replies[#replies + 1] = number and redis.pcall('SETBIT', keys[key], number, bit % 2) or 0
  end
  return number
end

local function set_several(bitmaps)
  local bits = indexes()
  local lists, any = {}, false
  for j = 1, #bitmaps do lists[j] = {} end
  for i = 1, #bits, 1000 do
    local command, positions = {'BITFIELD', ''}, {}
    for p = i, math.min(i + 999, #bits) do
      local number = numbers[math.floor(bits[p] / 2) + 1]
      if number then
        local size = #command
        command[size + 1], command[size + 2] = 'SET', 'u1'
        command[size + 3], command[size + 4] = number, bits[p] % 2
        positions[#positions + 1] = p
      end
      for j = 1, #bitmaps do
        if not lists[j].err then lists[j][p] = 0 end
      end
    end
    if #positions > 0 then
      any = true
      for j, key in ipairs(bitmaps) do
        command[2] = keys[key]
        local old = redis.pcall(unpack(command))
        if old.err then
          lists[j] = old
        elseif not lists[j].err then
          for q, p in ipairs(positions) do lists[j][p] = old[q] end
        end
      end
    end
  end
  for j = 1, #bitmaps do replies[#replies + 1] = lists[j] end
  return any
end

local function clear_exactly()
  local number = numbers[tonumber(ARGV[at]) + 1]
  local count_of_bitmaps = tonumber(ARGV[at + 1])
  at = at + 2
  local flips, failure = {}, nil
  for i = 1, count_of_bitmaps do
    local names = indexes()
    local flip = 0
    for j, name in ipairs(names) do
      local bit = number and redis.pcall('GETBIT', keys[name], number) or 0
      if type(bit) == 'table' then
        failure = failure or bit
      elseif j == 1 then
        flip = bit
      elseif bit == 1 then
        flip = 0
      end
    end
    flips[i] = {names[1], flip}
  end
  local flipped = {}
  for i, pair in ipairs(flips) do
    if pair[2] == 1 and not failure then
      redis.call('SETBIT', keys[pair[1]], number, 0)
    end
    flipped[i] = pair[2]
  end
  replies[#replies + 1] = failure or flipped
end

while at <= #ARGV do
  local operation = ARGV[at]
  at = at + 1
  if operation == 'X' then
    clear_exactly()
  else
    local bitmaps = indexes()
    local any
    if operation == 'S' then any = set_one(bitmaps) else any = set_several(bitmaps) end
    local expiries = tonumber(ARGV[at])
    for i = 1, expiries do
      local key, time = tonumber(ARGV[at + 2 * i - 1]), ARGV[at + 2 * i]
      replies[#replies + 1] = any and redis.pcall('EXPIREAT', keys[key], time) or 0
    end
    at = at + 1 + 2 * expiries
  end
end
return replies
"""


class IdScript:
    """Makes the calls of the script for one database."""

    def __init__(self, schema: KeySchema, *, on_cluster: bool = False) -> None:
        """Prepare for a database.

        Arguments:
            schema: its key schema, with a dictionary.
            on_cluster: whether it is on a cluster.
        """
        dictionary = schema.dictionary
        if dictionary is None:
            raise TypeError(schema)
        self.dictionary = dictionary
        self.on_cluster = on_cluster
        self._highest = [part.max_user_id for part in schema.parts]
        #: The arguments that all calls for a shard have in common, encoded, without the stamp.
        self._heads: dict[int, bytes] = {}

    def head(self, shard: int) -> bytes:
        """Return the arguments before the stamp, encoded."""
        head = self._heads.get(shard)
        if head is None:
            dictionary = self.dictionary
            arguments = (
                b"EVAL",
                _SCRIPT,
                b"1",
                dictionary.key(shard, "stamp"),
                dictionary.key(shard, ""),
                b"%d" % dictionary.ids.width,
                b"%d" % dictionary.block,
                b"%d" % self._highest[shard],
            )
            head = self._heads[shard] = b"".join(map(encoding.bulk, arguments))
        return head


#: How many arguments `IdScript.head` has.
_HEAD: Final = 8


class ScriptCall:
    """One call of the script: marks of users of one shard.

    Attributes:
        shard: the shard.
        indexes: the index of each mark in its batch.
        keys: the keys of the ids.
        numbers: after `parse`, the number of each id; negative for none.
        stamp: after `parse`, the dictionary's stamp; ``None`` if there is none.
    """

    def __init__(self, script: IdScript, shard: int) -> None:
        """Begin without marks."""
        self._script = script
        self.shard = shard
        self.indexes: list[int] = []
        self.keys: dict[Any, int] = {}
        self.numbers: Sequence[int] = ()
        self.stamp: bytes | None = None
        #: The positions of the ids that get a number if they have none.
        self._wanted: set[int] = set()
        #: The positions of the ids of each mark.
        self._positions: list[Sequence[int]] = []
        #: Groups the marks; their offsets are positions of ids.
        self._batch = Batch()

    def add(self, index: int, mark: IdMark) -> None:
        """Append a mark of one bit."""
        mark.offset = self._position(mark.id, mark.value)
        self._add(index, mark, (mark.offset,))

    def add_exact(self, index: int, mark: IdExactUnmark) -> None:
        """Append an exact unmark."""
        position = self._position(mark.id, 0)
        self._add(index, mark.at(position), (position,))

    def add_many(self, index: int, bitmaps: Bitmaps, keys: Sequence[Any], value: int) -> None:
        """Append marks of several users."""
        positions = [self._position(key, value) for key in keys]
        self._add(index, SparseMarks(bitmaps, positions, value), positions)

    def _add(self, index: int, mark: Mark, positions: Sequence[int]) -> None:
        self.indexes.append(index)
        self._positions.append(positions)
        self._batch.add(mark)

    def _position(self, key: Any, value: int) -> int:
        position = self.keys.setdefault(key, len(self.keys))
        if value:
            self._wanted.add(position)
        return position

    def encode(self) -> bytes:
        """Return the bytes to send."""
        script = self._script
        dictionary = script.dictionary
        bulk = encoding.bulk
        pieces = [
            bulk(uuid.uuid4().bytes[:8]),
            bulk(b"1" if script.on_cluster else b"0"),
            bulk(b"%d" % len(self.keys)),
        ]
        same_length = bool(dictionary.ids.width)
        wanted = self._wanted
        for key, position in self.keys.items():
            bucket, field, encoded = dictionary.entry(key)
            digits = b"+%d" % bucket if position in wanted else b"%d" % bucket
            pieces.append(b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(field), field, len(digits), digits))
            if not same_length:
                pieces.append(bulk(b"" if field is encoded else encoded))
        operations = _Operations()
        for command in self._batch.commands:
            operations.add(command)
        pieces.append(bulk(b"%d" % len(operations.keys)))
        pieces += map(bulk, operations.keys)
        pieces += map(bulk, operations.arguments)
        count = _HEAD + 4 + (2 if same_length else 3) * len(self.keys)
        count += len(operations.keys) + len(operations.arguments)
        return b"*%d\r\n%b%b" % (count, script.head(self.shard), b"".join(pieces))

    def parse(self, reply: Any) -> list[Result]:
        """Return the result of each mark, in the order in which they were added.

        Raises:
            StoreError: the reply does not fit.
        """
        count = len(self.indexes)
        if isinstance(reply, CommandError):
            return self._refused(reply, count)
        if type(reply) is not list:
            raise unexpected_reply(reply)
        if reply == [b"lost"]:
            return [_lost() for _ in range(count)]
        begin = 1 + len(self.keys)
        stamp, numbers = reply[0], reply[1:begin]
        commands = self._batch.commands
        if type(stamp) is not bytes or len(reply) != begin + self._batch.command_count:
            raise unexpected_reply(reply)
        self.stamp = stamp or None
        self.numbers = numbers
        results: list[Result] = [NO_FLIPS] * count
        parse_all(commands, results, reply[begin:])
        if _USED_UP in numbers:
            self._find_used_up(results)
        return results

    def _refused(self, reply: CommandError, count: int) -> list[Result]:
        if self._script.on_cluster:
            message = str(reply)
            if isinstance(reply, RedirectedError):
                # The node that imports a slot does not know which ids the other one has.
                if reply.kind == "ASK":
                    reply = RedirectedError(f"TRYAGAIN {message}")
                return [reply] * count
            if "non local key" in message:
                return [RedirectedError(f"TRYAGAIN {message}")] * count
        return [explained(reply, "nothing was applied: refused") for _ in range(count)]

    def _find_used_up(self, results: list[Result]) -> None:
        """Replace the results of marks of users for whom no number is left."""
        used_up = {at for at, number in enumerate(self.numbers) if number == _USED_UP}
        for index, positions in enumerate(self._positions):
            if not used_up.isdisjoint(positions):
                results[index] = _no_number_left()


class _Operations:
    """The operations of a call, as arguments of the script.

    Attributes:
        keys: the keys of the bitmaps, with their positions, from 1 on.
        arguments: the arguments.
    """

    def __init__(self) -> None:
        self.keys: dict[bytes, int] = {}
        self.arguments: list[bytes] = []

    def add(self, command: WriteCommand) -> None:
        """Append the operation of a write command."""
        if isinstance(command, tuple):
            self._bit(command[1])
            return
        inner = command.command if isinstance(command, WithExpiry) else command
        if isinstance(inner, SetBits) and len(inner.marks) == 1:
            self._bit(inner.marks[0])
            return
        if isinstance(inner, ExactClear):
            self._exact(inner)
            return
        self._bitmaps(b"B", inner.bitmaps.keys)
        if isinstance(inner, SetBits):
            bits = [2 * mark.offset + mark.value for mark in inner.marks]
        elif isinstance(inner, SetSparse):
            bits = [2 * offset + inner.mark.value for offset in inner.mark.offsets]
        else:
            raise TypeError(inner)
        self._list(bits)
        self._expiries(inner.bitmaps)

    def _bit(self, mark: BitMark) -> None:
        self._bitmaps(b"S", mark.bitmaps.keys)
        self.arguments.append(b"%d" % (2 * mark.offset + mark.value))
        self._expiries(mark.bitmaps)

    def _exact(self, command: ExactClear) -> None:
        mark = command.mark
        self.arguments += (b"X", b"%d" % mark.offset, b"%d" % len(mark.bitmaps.keys))
        for key, other_days in zip(mark.bitmaps.keys, mark.other_days, strict=True):
            self._list([self._key(name) for name in (key, *other_days)])

    def _bitmaps(self, operation: bytes, keys: Sequence[bytes]) -> None:
        self.arguments.append(operation)
        self._list([self._key(key) for key in keys])

    def _expiries(self, bitmaps: Bitmaps) -> None:
        self.arguments.append(b"%d" % bitmaps.expiry_count)
        for key, time in bitmaps.expiring:
            self.arguments += (b"%d" % self._key(key), b"%d" % time)

    def _list(self, numbers: Sequence[int]) -> None:
        self.arguments.append(b"%d" % len(numbers))
        self.arguments += [b"%d" % number for number in numbers]

    def _key(self, key: bytes) -> int:
        return self.keys.setdefault(key, len(self.keys) + 1)


def _lost() -> TallymarkError:
    return WrongSchemaError(
        "nothing was applied: the database has bitmaps, or numbers of users, and no stamp of "
        "ids: either the marks before were made without user_ids, or keys of the ids were "
        "deleted or evicted"
    )


def _no_number_left() -> TallymarkError:
    return InvalidValueError(
        "nothing was marked: this is a new user, and all numbers up to max_user_id are given"
    )
