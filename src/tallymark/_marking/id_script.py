"""The script that looks up and allocates users' numbers, and executes their marks. Pure.

One call of it is atomic: the numbers that it writes with are those that the dictionary has at
that moment. `tallymark._core.user_ids` has the dictionary's format.

Redis runs nothing else meanwhile. A new id takes 3 us of its time, a known one 1.2 us, with
another 2 us for a mark of three bitmaps; so a call has 500 ids at most.
"""

from __future__ import annotations

import sys
import uuid
from array import array
from typing import TYPE_CHECKING, Any, Final

from .._core import encoding
from .._core.failures import RedirectedError, unexpected_reply
from ..errors import CommandError, InvalidValueError, TallymarkError, WrongSchemaError
from .batch import Batch
from .commands import SetBits, WithExpiry, parse_all
from .id_marks import IdMarks
from .marks import NO_FLIPS
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
#: length of an encoded id or 0, how many records a reverse block has, the highest number, "1" on
#: a cluster, a random stamp; then
#:
#: * the ids' buckets, doubled, and one more for an id that gets a number if it has none;
#: * the ids' fields, one behind the other, and if ids vary in length, the fields' lengths, the
#:   encoded ids that are no fields, and their lengths, 0 for the others;
#: * how many bitmaps there are, and their keys;
#: * the operations: "S" has the bitmaps of one bit, the bit, and when they expire; "B" the
#:   bitmaps of several bits, the bits, and when they expire; "X", an exact unmark, has the
#:   position of the id, how many bitmaps there are, and each with those of its other days.
#:
#: Lists of numbers are strings with four bytes for each, which takes less time than an argument
#: for each. Bitmaps are positions among the keys. A bit is the position of an id, doubled, plus
#: the value. The reply has the stamp, each id's number, and the replies to the commands, with 0
#: for those of ids without a number.
#:
#: The script formats a number once, and passes strings to commands: Redis formats the numbers
#: of each command anew, with ``%.17g``, which took a fifth of the time of a new id.
#:
#: Everything that can fail as a whole is done before the first write: on a cluster, Redis
#: refuses the access to a missing key of a slot that is being migrated, so the script asks for
#: all of them before.
_SCRIPT: Final = b"""\
local base, width, block = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local highest, is_cluster = tonumber(ARGV[4]), ARGV[5] == '1'
local at = 7
local byte, sub, format, floor = string.byte, string.sub, string.format, math.floor
local values = {[0] = '0', '1'}

local function list()
  local bytes, numbers = ARGV[at], {}
  at = at + 1
  for i = 1, #bytes / 4 do
    local a, b, c, d = byte(bytes, 4 * i - 3, 4 * i)
    numbers[i] = a + 256 * b + 65536 * c + 16777216 * d
  end
  return numbers
end

local function items(count, lengths)
  local bytes, parts, first = ARGV[at], {}, 1
  at = at + 1
  if not lengths then lengths = list() end
  for i = 1, count do
    local length = lengths[i] or width
    parts[i] = sub(bytes, first, first + length - 1)
    first = first + length
  end
  return parts
end

local buckets = list()
local count = #buckets
local fields, ids
if width > 0 then
  fields = items(count, {})
  ids = fields
else
  fields = items(count)
  ids = items(count)
end
local keys = {}
for i = 1, tonumber(ARGV[at]) do keys[i] = ARGV[at + i] end
at = at + 1 + #keys

local function any_exists()
  for _, key in ipairs(keys) do
    if redis.pcall('EXISTS', key) == 1 then return true end
  end
end

local numbers, replies, fresh = {}, {}, {}
local stamp = redis.call('GET', KEYS[1])
local forward = base .. 'f:'
for i = 1, count do
  local bucket = buckets[i]
  local wanted = bucket % 2
  bucket = forward .. format('%d', (bucket - wanted) / 2)
  local number = redis.call('HGET', bucket, fields[i])
  if number then
    numbers[i] = number
    replies[i + 1] = tonumber(number)
  else
    numbers[i] = false
    replies[i + 1] = -1
    if wanted == 1 then
      buckets[i] = bucket
      fresh[#fresh + 1] = i
    end
  end
end

if is_cluster then
  for i = 1, #keys, 1000 do
    redis.call('EXISTS', unpack(keys, i, math.min(i + 999, #keys)))
  end
end
if #fresh > 0 then
  local first = tonumber(redis.call('GET', base .. 'next') or '0')
  if not stamp then
    if first > 0 or redis.call('EXISTS', base .. 'r:0') > 0 or any_exists() then
      return {'lost'}
    end
  end
  for i = #fresh, math.max(1, highest - first + 2), -1 do
    replies[fresh[i] + 1] = -2
    fresh[i] = nil
  end
  local last = first + #fresh - 1
  if is_cluster then
    for number = floor(first / block), floor(last / block) do
      redis.call('EXISTS', base .. 'r:' .. number)
    end
  end
  if not stamp then
    stamp = ARGV[6]
    redis.call('SET', KEYS[1], stamp)
  end
  redis.call('SET', base .. 'next', last + 1)
  local number = first
  while number <= last do
    local reverse = base .. 'r:' .. floor(number / block)
    local position = number % block
    local records = {}
    for p = position, math.min(block - 1, position + last - number) do
      local i = fresh[number - first + 1]
      if width == 0 then
        records[#records + 1] = p
        records[#records + 1] = ids[i] == '' and fields[i] or ids[i]
      else
        records[#records + 1] = ids[i]
      end
      numbers[i] = format('%d', number)
      replies[i + 1] = number
      number = number + 1
    end
    if width == 0 then
      redis.call('HSET', reverse, unpack(records))
    else
      if redis.call('EXISTS', reverse) == 0 then
        redis.call('SETRANGE', reverse, width * block - 1, '\\0')
      end
      redis.call('SETRANGE', reverse, width * position, table.concat(records))
    end
  end
  for _, i in ipairs(fresh) do redis.call('HSET', buckets[i], fields[i], numbers[i]) end
end

replies[1] = stamp or ''
local size = count + 1

local function set_one(bitmaps)
  local bit = list()[1]
  local number = numbers[floor(bit / 2) + 1]
  for _, key in ipairs(bitmaps) do
    size = size + 1
    replies[size] = number and redis.pcall('SETBIT', keys[key], number, values[bit % 2]) or 0
  end
  return number
end

local function set_some(bitmaps, lists, bits, first, last)
  local command, length, positions = {'BITFIELD', ''}, 2, {}
  for p = first, last do
    local value = bits[p] % 2
    local number = numbers[(bits[p] - value) / 2 + 1]
    if number then
      command[length + 1], command[length + 2] = 'SET', 'u1'
      command[length + 3], command[length + 4] = number, values[value]
      length = length + 4
      positions[(length - 2) / 4] = p
    end
  end
  if length == 2 then return false end
  for j, key in ipairs(bitmaps) do
    command[2] = keys[key]
    local old = redis.pcall(unpack(command))
    if old.err or (first == 1 and length == 4 * #bits + 2) then
      lists[j] = old
    elseif not lists[j].err then
      for q = 1, #old do lists[j][positions[q]] = old[q] end
    end
  end
  return true
end

local function set_several(bitmaps)
  local bits, lists, any = list(), {}, false
  for j = 1, #bitmaps do
    lists[j] = {}
    for p = 1, #bits do lists[j][p] = 0 end
  end
  for first = 1, #bits, 1000 do
    any = set_some(bitmaps, lists, bits, first, math.min(first + 999, #bits)) or any
  end
  for j = 1, #bitmaps do replies[size + j] = lists[j] end
  size = size + #bitmaps
  return any
end

local function clear_exactly()
  local head = list()
  local number = numbers[head[1] + 1]
  local flips, failure = {}, nil
  for i = 1, head[2] do
    local names, flip = list(), 0
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
  size = size + 1
  replies[size] = failure or flipped
end

while at <= #ARGV do
  local operation = ARGV[at]
  at = at + 1
  if operation == 'X' then
    clear_exactly()
  else
    local bitmaps = list()
    local any
    if operation == 'S' then any = set_one(bitmaps) else any = set_several(bitmaps) end
    for _, key in ipairs(list()) do
      size = size + 1
      replies[size] = any and redis.pcall('EXPIREAT', keys[key], ARGV[at]) or 0
      at = at + 1
    end
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
        stamp = dictionary.key(0, "stamp")
        #: What guards the next write on a connection that caches numbers; it has one shard.
        self.watch = encoding.command(b"WATCH", stamp) + encoding.command(b"GET", stamp)
        self._highest = [part.max_user_id for part in schema.parts]
        #: The arguments that all calls for a shard have in common, encoded.
        self._heads: dict[int, bytes] = {}

    def head(self, shard: int) -> bytes:
        """Return the arguments that all calls for a shard have in common, encoded."""
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
                b"1" if self.on_cluster else b"0",
            )
            head = self._heads[shard] = b"".join(map(encoding.bulk, arguments))
        return head


#: How many arguments `IdScript.head` has.
_HEAD: Final = 9


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
        known = self.keys
        for key in keys:
            if key not in known:
                known[key] = len(known)
        positions = [known[key] for key in keys]
        if value:
            self._wanted.update(positions)
        # Without the commands of `SparseMarks`, which would take a third of the time of `encode`.
        marks = IdMarks(bitmaps, value)
        marks.offsets = positions
        self._add(index, marks, positions)

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
        dictionary = self._script.dictionary
        entries = [dictionary.entry(key) for key in self.keys]
        buckets = [2 * bucket for bucket, _, _ in entries]
        for position in self._wanted:
            buckets[position] += 1
        arguments = [
            uuid.uuid4().bytes[:8],
            _packed(buckets),
            b"".join([field for _, field, _ in entries]),
        ]
        if not dictionary.ids.width:
            ids = [b"" if field is encoded else encoded for _, field, encoded in entries]
            arguments += (
                _packed([len(field) for _, field, _ in entries]),
                b"".join(ids),
                _packed(list(map(len, ids))),
            )
        operations = _Operations()
        for command in self._batch.commands:
            operations.add(command)
        arguments.append(b"%d" % len(operations.keys))
        arguments += operations.keys
        arguments += operations.arguments
        head = self._script.head(self.shard)
        count = _HEAD + len(arguments)
        return b"*%d\r\n%b%b" % (count, head, b"".join(map(encoding.bulk, arguments)))

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
        self.arguments.append(_packed(bits))
        self._expiries(inner.bitmaps)

    def _bit(self, mark: BitMark) -> None:
        self._bitmaps(b"S", mark.bitmaps.keys)
        self.arguments.append(_packed([2 * mark.offset + mark.value]))
        self._expiries(mark.bitmaps)

    def _exact(self, command: ExactClear) -> None:
        mark = command.mark
        self.arguments += (b"X", _packed([mark.offset, len(mark.bitmaps.keys)]))
        for key, other_days in zip(mark.bitmaps.keys, mark.other_days, strict=True):
            self.arguments.append(_packed([self._key(name) for name in (key, *other_days)]))

    def _bitmaps(self, operation: bytes, keys: Sequence[bytes]) -> None:
        self.arguments += (operation, _packed([self._key(key) for key in keys]))

    def _expiries(self, bitmaps: Bitmaps) -> None:
        self.arguments.append(_packed([self._key(key) for key, _ in bitmaps.expiring]))
        self.arguments += [b"%d" % time for _, time in bitmaps.expiring]

    def _key(self, key: bytes) -> int:
        return self.keys.setdefault(key, len(self.keys) + 1)


def _packed(numbers: Sequence[int]) -> bytes:
    """Return numbers below 2**32 with four bytes each, the least significant one first."""
    packed = array("I", numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


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
