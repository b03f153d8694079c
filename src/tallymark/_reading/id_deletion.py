"""Deletion of all bitmaps and of all ids, where users have ids of any type. Pure.

Ids are personal data, so none may be left. Other processes go on marking, and have numbers in
their caches. Hence the order of the steps:

1. Read the next number of each shard. All smaller ones are *old*: no user gets one again.
2. Delete the old numbers in the forward buckets. Users who are marked from then on get new ones.
3. Renew the stamps. Until then, other tallies may mark old numbers that they have cached; from
   then on, their ``WATCH`` refuses these.
4. Scan the forward buckets again. If one has an old number, begin anew.
5. Delete the ids of the old numbers in the reverse blocks.
6. Note the last old number in the journal of each shard, and renew the stamp with it.
7. Scan and delete the bitmaps. Each mark with an old number was made before step 3: its bitmap
   exists when this scan begins, or was deleted before.
8. Remove the number from the journal, if its token is that of step 6. Else begin again at step 6.
9. Delete the entries of old numbers in the journals; they may have the ids of targets.

**Flags that are saved meanwhile** (`tallymark._reading.saving`) may have old bits, and keys that
the scan has passed. But a script that writes a flag gives the entry of step 6 a new token, which
step 8 notices. Of the flags that are computed in parts, those that were begun before step 6 are
not written after it, since the stamp is another one, and those that were begun before step 8 not
after it, since the journal is. What is begun later has no old bits to read.

The stamps and the next numbers stay: numbers are never given again, so no mark that is made
meanwhile meets the old bit of another user. A user who gets a new number meanwhile stays, in both
directions: only the bits in bitmaps that step 7 finds are deleted.

After a crash, some ids and bits are left, in the worst case bits without an id, and the id of a
user who has a new number already, and the entry of step 6, which is as that of a `forget`. The next
call deletes them. No number ever has two users.

**Failovers** lose the last writes of a shard, never earlier ones without the later ones. If step 2
was lost before step 3, step 4 notices it. If it is lost after it, so is the stamp, which step 5
demands; if it is another one, all begins again. Otherwise, users would be left whose numbers have
no ids. (`forget` renews the stamp too, and may cause a needless repetition.) All begins again as
well if keys of a shard are at other nodes of the cluster than before, as a scan may miss these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .._core.failures import unexpected_reply
from .._core.keys import MAX_USER_ID
from .._core.user_ids import random_token
from .bit_changes import Bit
from .fanout import gather
from .journals import Erased, Journals
from .key_scan import DictionaryScan
from .requests import Checkpoint, Request, check_replies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .._core.context import Context
    from .._core.user_ids import Dictionary
    from .key_scan import FoundPart
    from .requests import Command, Query

__all__ = ["delete_with_ids"]

#: How many keys one request changes. A forward bucket has 16 numbers if there are a million
#: users, for which Redis needs about 20 us.
_STEP: Final = 100

#: How many fields of a journal one command deletes.
_FIELDS: Final = 1000

#: Deletes the numbers of a forward bucket that are below ARGV[1]; returns how many. The next
#: scripts begin with a command that needs no memory and changes nothing, so that Redis executes
#: them if its memory is full.
_DELETE_FORWARD: Final = b"""\
local first, cursor, count = tonumber(ARGV[1]), '0', 0
repeat
  local reply = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', 1000)
  local entries, fields = reply[2], {}
  for at = 1, #entries, 2 do
    if tonumber(entries[at + 1]) < first then fields[#fields + 1] = entries[at] end
  end
  for at = 1, #fields, 1000 do
    local last = math.min(at + 999, #fields)
    count = count + redis.call('HDEL', KEYS[1], unpack(fields, at, last))
  end
  cursor = reply[1]
until cursor == '0'
return count
"""

#: KEYS: stamp, journal. ARGV: the new stamp. A missing one is not renewed: it shows that the
#: shard has no users, or that keys were evicted.
_RENEW_STAMP: Final = b"""\
redis.call('HDEL', KEYS[2], '')
redis.call('SET', KEYS[1], ARGV[1], 'XX')
return 1
"""

#: Notes a number in the journal, and renews the stamp, if the number is not there yet. KEYS: stamp,
#: journal. ARGV: the new stamp, which is the token too, and the number. Returns its token.
_NOTE: Final = b"""\
redis.call('HDEL', KEYS[2], '')
local token = redis.call('HGET', KEYS[2], ARGV[2])
if token then return token end
redis.call('SET', KEYS[1], ARGV[1], 'XX')
redis.call('HSET', KEYS[2], ARGV[2], ARGV[1])
return ARGV[1]
"""

#: Deletes the ids of the first numbers of a reverse block. KEYS: stamp, journal, block. ARGV: the
#: stamp, how many ids, the length of all, or 0. Without a number of ids, it deletes the block.
#: Returns 1 if the stamp is another one.
_DELETE_REVERSE: Final = b"""\
local stamp, count, width = redis.call('GET', KEYS[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if stamp and stamp ~= ARGV[1] then return 1 end
redis.call('HDEL', KEYS[2], '')
if not count then
  redis.call('UNLINK', KEYS[3])
elseif width == 0 then
  for position = 0, count - 1 do redis.call('HDEL', KEYS[3], position) end
elseif redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('SETRANGE', KEYS[3], 0, string.rep('\\0', width * count))
end
return 0
"""


def delete_with_ids(
    context: Context, dictionary: Dictionary, delete_bitmaps: Callable[[], Query[None]]
) -> Query[None]:
    """Delete all ids and bitmaps.

    Arguments:
        context: the database.
        dictionary: its dictionary.
        delete_bitmaps: deletes the bitmaps; may be called several times.
    """
    journals = Journals(context, dictionary)
    deletion = _Deletion(context, dictionary)
    shards = range(len(dictionary.prefixes))
    while True:
        yield from deletion.begin()
        nodes = yield from journals.nodes(shards)
        yield from deletion.delete_forward()
        yield from deletion.renew_stamps()  # which waits for migrations of slots, too
        found = yield from deletion.delete_forward()
        if found or (yield from journals.nodes(shards)) != nodes:
            continue
        if (yield from deletion.delete_reverse()):
            continue
        yield from deletion.delete_noting(journals, delete_bitmaps)
        yield from deletion.delete_entries()
        if (yield from journals.nodes(shards)) == nodes:
            return


class _Deletion:
    """The steps of a deletion of all ids."""

    def __init__(self, context: Context, dictionary: Dictionary) -> None:
        self._context = context
        self._dictionary = dictionary
        self._shards = range(len(dictionary.prefixes))
        #: The next number of each shard, when the deletion began.
        self._firsts: list[int] = []
        #: The reverse blocks that the scan has found.
        self._blocks: list[FoundPart] = []
        self._stamp = b""

    def begin(self) -> Query[None]:
        """Read the next numbers. Waits until no slot of a shard is being migrated."""
        self._firsts = yield from self._each_shard(self._next_number)

    def _next_number(self, shard: int) -> Query[int]:
        """Return the next number of a shard.

        If it was evicted, no number is given any more, so this one is larger than all.
        """
        key = self._dictionary.key
        commands = [
            (b"GET", key(shard, "next")),
            # While a slot is being migrated, Redis refuses two keys of which one is missing.
            (b"EXISTS", key(shard, "stamp"), key(shard, "none")),
        ]
        replies = yield Request(commands, tolerant=True, changes=True)
        check_replies(replies)
        number, exists = replies
        if number is None:
            return MAX_USER_ID + 1 if exists else 0
        if not isinstance(number, bytes) or not number.isdigit():
            raise unexpected_reply(number)
        return int(number)

    def delete_forward(self) -> Query[int]:
        """Delete the old numbers of the forward buckets; return how many. Finds the blocks."""
        self._blocks = []
        count = 0
        scan = DictionaryScan(self._context, self._dictionary)
        while scan.has_more:
            found = yield from scan.next()
            self._blocks += (part for part in found if part.kind == "r")
            buckets = (part for part in found if part.kind == "f")
            count += yield from self._change(buckets, self._forward_command)
        return count

    def _forward_command(self, part: FoundPart) -> Command:
        return (b"EVAL", _DELETE_FORWARD, b"1", part.key, b"%d" % self._firsts[part.shard])

    def renew_stamps(self) -> Query[None]:
        """Renew the stamp of every shard that has one."""
        self._stamp = random_token()
        yield from self._each_shard(self._renew_stamp)

    def _renew_stamp(self, shard: int) -> Query[None]:
        yield Request(
            [(b"EVAL", _RENEW_STAMP, b"2", *self._guard(shard), self._stamp)], changes=True
        )

    def delete_reverse(self) -> Query[int]:
        """Delete the ids of the old numbers; return how many blocks were refused."""
        block = self._dictionary.block
        old = (part for part in self._blocks if part.number * block < self._firsts[part.shard])
        return (yield from self._change(old, self._reverse_command))

    def _reverse_command(self, part: FoundPart) -> Command:
        dictionary = self._dictionary
        count = self._firsts[part.shard] - part.number * dictionary.block
        return (
            *(b"EVAL", _DELETE_REVERSE, b"3", *self._guard(part.shard), part.key),
            *(self._stamp, b"%d" % count if count < dictionary.block else b""),
            b"%d" % dictionary.ids.width,
        )

    def delete_noting(
        self, journals: Journals, delete_bitmaps: Callable[[], Query[None]]
    ) -> Query[None]:
        """Delete the bitmaps, until no flag was saved meanwhile."""
        # A shard that has given no number has no bits.
        numbers = {shard: first - 1 for shard, first in enumerate(self._firsts) if first}
        while True:
            entries = [Erased.of(Bit(shard, number), None) for shard, number in numbers.items()]
            notes = [(entry.bit.shard, self._note(entry)) for entry in entries]
            tokens = yield from gather(self._context, notes)
            yield from delete_bitmaps()
            for entry, token in zip(entries, tokens, strict=True):
                if (yield from journals.end(entry, token, confirmed=False)) == 1:
                    del numbers[entry.bit.shard]
            if not numbers:
                return

    def _note(self, entry: Erased) -> Query[bytes]:
        """Note an entry in the journal; return its token."""
        arguments = (*self._guard(entry.bit.shard), random_token(), entry.field)
        (token,) = yield Request([(b"EVAL", _NOTE, b"2", *arguments)], replies=bytes, changes=True)
        return token  # type: ignore[no-any-return]

    def delete_entries(self) -> Query[None]:
        """Delete the entries of old numbers in the journals."""
        yield from self._each_shard(self._delete_entries)

    def _delete_entries(self, shard: int) -> Query[None]:
        _, journal = self._guard(shard)
        (fields,) = yield Request([(b"HKEYS", journal)], replies=list, changes=True)
        first = self._firsts[shard]
        old = [field for field in fields if Erased.parsed(shard, field).bit.offset < first]
        for at in range(0, len(old), _FIELDS):
            yield Request([(b"HDEL", journal, *old[at : at + _FIELDS])], changes=True)

    def _guard(self, shard: int) -> tuple[bytes, bytes]:
        """Return the first keys of the scripts: the stamp and the journal."""
        return self._dictionary.key(shard, "stamp"), self._dictionary.key(shard, "forgetting")

    def _each_shard(self, query: Callable[[int], Query[Any]]) -> Query[list[Any]]:
        return gather(self._context, ((shard, query(shard)) for shard in self._shards))

    def _change(
        self, parts: Iterable[FoundPart], command: Callable[[FoundPart], Command]
    ) -> Query[int]:
        """Execute a script for each of some keys; return the sum of the replies."""
        by_shard: dict[int, list[FoundPart]] = {}
        for part in parts:
            by_shard.setdefault(part.shard, []).append(part)
        yield Checkpoint()

        def change(found: Sequence[FoundPart]) -> Query[int]:
            total = 0
            for at in range(0, len(found), _STEP):
                commands = [command(part) for part in found[at : at + _STEP]]
                replies = yield Request(commands, changes=True)
                total += sum(replies)
                yield Checkpoint()
            return total

        queries = ((shard, change(found)) for shard, found in by_shard.items())
        return sum((yield from gather(self._context, queries)))
