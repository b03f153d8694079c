"""The script that looks up and allocates users' numbers, and executes their marks. Pure.

One call of it is atomic: the numbers that it writes with are those that the dictionary has at
that moment. `tallymark._core.user_ids` has the dictionary's format.

Redis runs nothing else meanwhile. With a mark of three bitmaps, a new id takes about 5 us of its
time, a known one 3 us.
"""

from __future__ import annotations

from typing import Final

__all__ = ["SCRIPT", "USED_UP"]

#: The number of an id for which none is left; -1 is that of an id that nobody was marked with.
USED_UP: Final = -2

#: KEYS holds the key of the stamp; all others are derived from it, or in ARGV: so that a bitmap
#: that an ACL denies fails only its own marks. ARGV has the prefix of the dictionary's keys, the
#: length of an encoded id or 0, how many records a reverse block has, the highest number, "1" on
#: a cluster, a random stamp, the schema key, and its value, which the first allocation writes, as
#: after ``FLUSHDB``; then
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
SCRIPT: Final = b"""\
local base, width, block = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local highest, is_cluster = tonumber(ARGV[4]), ARGV[5] == '1'
local at = 9
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
  local counter = redis.call('GET', base .. 'next')
  local first = tonumber(counter or '0')
  if stamp then
    if not counter then return {'lost'} end
  else
    if counter or redis.call('EXISTS', base .. 'r:0') > 0 or any_exists() then
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
    if not is_cluster then redis.call('SET', ARGV[7], ARGV[8], 'NX') end
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
