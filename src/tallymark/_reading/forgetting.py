"""Users with ids of any type are forgotten and merged by a journal that anybody finishes. Pure.

Each shard has a journal, the hash ``ids:forgetting``. A field of it is the number of a user
whose id is erased already, and whose bits are not all cleared or moved yet. The field of a
merge has the encoded id of the target too, behind a colon. A query has these steps:

1. It reads the journals of all shards. Entries whose target is the user who is now forgotten,
   or merged, get the new target, or none.
2. `merge` looks up the target's number, or gives the target one.
3. **Erase**, in one script: the id is erased in both directions, the stamp is renewed, and the
   number is noted in the journal. From then on, no mark sets a bit of this number: the id gets
   a new number with its next mark.
4. It scans all keys, and clears or moves the bits of all numbers in the journals that it has
   read; in scripts, which change a bit only while its number is in the journal.
5. **End**, in one script: the number is removed from the journal.

A crash, or a failure, leaves:

* before step 3: nothing. At most, the target has a number and no bits.
* after it: the journal's entry. The next `forget` or `merge`, of any user, does the rest. A
  bit that moves to another shard is set there first, so it may be in both.

**Failovers** lose the last writes of a shard, never earlier ones without the later ones. So
the bits cannot be cleared while the id is not erased. But a number must not be removed from the
journal if clearings of its bits were lost. Hence an entry's value is a random token, which each
script that changes bits renews. A query reads it behind the bits; its scripts, and the last one
too, demand the token that it has read, or written itself, before. If that is always there, the
server has everything that the query has seen or done during its scan. Else it scans again. If
an entry is missing, the query looks the id up again: either another query has finished it, or
the erasure was lost. With the option ``replicas``, replicas have to acknowledge the look-up at
the beginning, the end, and each bit of another shard before the source's is cleared.

**Targets** are noted by their ids, and looked up when bits are moved; a script sets the target's
bit only if the number is the target's. So no bit is set for a target that was forgotten
meanwhile, or whose number a failover has given to another user. A target without a number gets
one then.

All scripts name all of their keys. So on a cluster, while a slot is being migrated, Redis
refuses them until all of their keys are at one node, and they are sent again. A scan may miss
keys that are moved meanwhile: so if the keys of a shard are at other nodes behind it than before,
it is repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core.failures import copied, unexpected_reply
from .._core.untrusted import reraise_from_handler, shown
from ..errors import InvalidValueError, StoreError
from .bit_changes import READ, Bit, in_shard, keys_with, most_changed, move, move_to_shard
from .journals import GONE, OTHER_TARGET, OTHER_TOKEN, Erased, Journals, Tokens
from .key_scan import KeyScan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._core.context import Context
    from .._core.user_ids import Dictionary
    from ..errors import WrongKeyTypeError
    from .requests import Query

__all__ = ["forget", "merge"]


class _Work:
    """An entry that is being finished.

    Attributes:
        entry: the entry.
        count: how many bits were cleared or moved.
        is_open: whether the entry has to be scanned for, and removed.
        is_gone: whether the entry is missing in the journal.
        token: the token that the journal has if it has everything that this scan has seen.
        is_changed: whether the token has become another one meanwhile.
        target: the bit of the target, when it has been looked up.
        refusals: the errors about keys of the target's shard that hold no bitmaps.
    """

    def __init__(self, entry: Erased) -> None:
        self.entry = entry
        self.count = 0
        self.is_open, self.is_gone = True, False
        self.token, self.is_changed = b"", False
        self.target: Bit | None = None
        self.refusals: list[WrongKeyTypeError] = []

    def begin(self, token: Any) -> None:
        """Begin a scan with the token that the journal has now."""
        self.token, self.is_changed = b"", False
        self.observe(token)

    def observe(self, token: Any) -> None:
        """Take the token that the journal has now; ``None`` if it does not have the entry."""
        if token is None:
            self.vanish()
        elif isinstance(token, bytes):
            self.is_changed |= token != self.token != b""
            self.token = token
        else:
            raise unexpected_reply(token)

    def vanish(self) -> None:
        """Stop, as the journal does not have the entry any more."""
        self.is_open, self.is_gone = False, True


def forget(context: Context, dictionary: Dictionary, user_id: Any) -> Query[int]:
    """Erase a user's id, and clear the user's bit in all bitmaps; finish the journals.

    Returns:
        How many bits of this user this query has cleared. 0 for an unknown id, also if it
        has finished what another query had begun.

    Raises:
        InvalidTypeError, InvalidValueError: the id is not allowed.
    """
    key = dictionary.ids.key(user_id)
    return (yield from _Eraser(context, dictionary).erase(key, None))


def merge(context: Context, dictionary: Dictionary, source: Any, target: Any) -> Query[int]:
    """Erase a user's id, and move all bits to another user; finish the journals.

    Arguments:
        context: the database.
        dictionary: its dictionary.
        source: the id of the user who is erased.
        target: the id of the user who gets the bits.

    Returns:
        How many bits of the source this query has moved. 0 for an unknown source.

    Raises:
        InvalidTypeError, InvalidValueError: an id is not allowed, or both are the same.
        WrongKeyTypeError: in the shard of the target, a key has another type than a bitmap.
            All other bits were moved. This one is moved by the next `merge` or `forget`.
    """
    from_key, to_key = dictionary.ids.key(source), dictionary.ids.key(target)
    if from_key == to_key:
        raise InvalidValueError(
            f"source and target must be different users, got {shown(source)} twice"
        )
    return (yield from _Eraser(context, dictionary).erase(from_key, to_key))


class _Eraser:
    """The steps of `forget` and `merge` in one database."""

    def __init__(self, context: Context, dictionary: Dictionary) -> None:
        self._context = context
        self._dictionary = dictionary
        self._journals = Journals(context, dictionary)

    def erase(self, key: Any, target: Any) -> Query[int]:
        """Erase the id with a key; return how many bits were cleared or moved.

        Arguments:
            key: the key of the id.
            target: the key of the user who gets the bits; ``None`` for none.
        """
        dictionary = self._dictionary
        shard, place = dictionary.shard(key), dictionary.entry(key)
        to = None if target is None else dictionary.ids.encode(target)
        count = 0
        erased: int | None = None
        while True:
            entries = yield from self._journals.entries(place[2], to)
            offset = yield from self._journals.offset(shard, place, confirmed=True)
            own: Erased | None = None
            # With another number than before, the user was marked again.
            if offset is not None and erased in {None, offset}:
                if target is not None:
                    yield from self._journals.bit(target)
                own = Erased.of(Bit(shard, offset), to)
                if not (yield from self._journals.erase(place, own)):
                    continue  # another query was faster
                erased = offset
            if own is not None and own not in entries:
                entries.append(own)
            works = list(map(_Work, dict.fromkeys(entries)))
            mine = next((work for work in works if work.entry == own), None)
            try:
                yield from self._finish(works)
            except StoreError as error:
                reraise_from_handler(error)
                if erased is None:
                    raise
                raise self._incomplete(error, count + (mine.count if mine else 0), to) from (
                    error.__cause__
                )
            refusals = [
                refusal
                for work in works
                if to is not None and work.entry.target == to
                for refusal in work.refusals
            ]
            if mine is not None:
                count += mine.count
            if refusals:
                raise copied(
                    refusals[0],
                    f"{refusals[0]}; {len(refusals)} bits stay where they are, {count} others "
                    "were moved; the next call of merge or forget moves them",
                )
            if mine is None or not mine.is_gone:
                return count

    @staticmethod
    def _incomplete(error: StoreError, count: int, to: bytes | None) -> StoreError:
        """Return the error of a query that has erased an id."""
        verb = "cleared" if to is None else "moved"
        return copied(
            error,
            f"{error}; the id is erased, {count} bits were {verb} before, and others may have "
            "been; the next call of forget or merge does the rest",
        )

    def _finish(self, works: Sequence[_Work]) -> Query[None]:
        """Clear or move all bits of the users of entries, and remove these."""
        while current := [work for work in works if work.is_open]:
            for work in current:
                work.begin((yield from self._journals.token(work.entry)))
            shards = {work.entry.bit.shard for work in current if work.is_open}
            nodes = yield from self._journals.nodes(shards)
            yield from self._scan(current)
            moved = (yield from self._journals.nodes(shards)) != nodes
            for work in current:
                if not work.is_open:
                    continue
                if work.refusals:
                    work.is_open = False
                    continue
                if moved or work.is_changed:
                    continue  # scans again
                reply = yield from self._journals.end(work.entry, work.token)
                if reply == GONE:
                    work.vanish()
                elif reply == 1:
                    work.is_open = False

    def _scan(self, works: Sequence[_Work]) -> Query[None]:
        """Clear or move the bits of users in all bitmaps that there are."""
        if not any(work.is_open for work in works):
            return
        shards = {work.entry.bit.shard for work in works}
        only = next(iter(shards)) if len(shards) == 1 else None
        scan = KeyScan(self._context, shard=only, with_temporary=True, changes=True)
        while scan.has_more:
            by_shard: dict[int, list[bytes]] = {}
            for bitmap in (yield from scan.next()):
                by_shard.setdefault(bitmap.shard, []).append(bitmap.key)
            for work in works:
                keys = by_shard.get(work.entry.bit.shard, [])
                for at in range(0, len(keys), READ):
                    if work.is_open:
                        yield from self._change(work, keys[at : at + READ])

    def _change(self, work: _Work, keys: Sequence[bytes]) -> Query[None]:
        """Clear or move the bits of a user in some bitmaps."""
        bit = work.entry.bit
        while keys and work.is_open:
            query = keys_with(keys, bit.digits, self._journals.token_command(work.entry))
            having, (token,) = yield from in_shard(self._context, bit.shard, query)
            work.observe(token)
            keys = yield from self._change_those(work, having)

    def _change_those(self, work: _Work, keys: Sequence[bytes]) -> Query[Sequence[bytes]]:
        """Clear or move the bits of a user where they are set.

        Returns:
            The keys of bitmaps to read again, with the token and the number of the target.
        """
        begin = 0
        while begin < len(keys) and work.is_open:
            if work.entry.target is not None and work.target is None:
                work.target = yield from self._journals.bit(self._target_of(work))
            most = most_changed(work.entry.bit, work.target)
            tokens = Tokens()
            replies = yield from self._move(work, keys[begin : begin + most], tokens)
            # The replies of the scripts that renew the token are the last ones.
            for token, reply in zip(reversed(tokens.made), reversed(replies), strict=False):
                if reply > 0:
                    work.token = token
                    break
            work.count += sum(reply for reply in replies if reply > 0)
            if GONE in replies:
                work.vanish()
            if OTHER_TARGET in replies:
                work.target = None
            if OTHER_TARGET in replies or OTHER_TOKEN in replies:
                return keys[begin:]
            begin += most
        return ()

    def _target_of(self, work: _Work) -> Any:
        """Return the key of the target of an entry."""
        ids = self._dictionary.ids
        return ids.key(ids.decode(work.entry.target or b""))

    def _move(self, work: _Work, keys: Sequence[bytes], tokens: Tokens) -> Query[list[int]]:
        """Clear or move bits with scripts; return their replies, as `move`.

        Arguments:
            work: the entry.
            keys: the keys of bitmaps.
            tokens: makes the tokens of the scripts.
        """
        context, bit, target = self._context, work.entry.bit, work.target

        guard = self._journals.guard(work.entry, work.token, tokens)
        if target is None:
            query = move(context, keys, bit.digits, guard=guard)
            return (yield from in_shard(context, bit.shard, query))
        of_target = self._journals.guard_of_target(target, self._target_of(work))
        if target.shard != bit.shard:
            guards = (guard, of_target)
            return (yield from move_to_shard(context, keys, bit, target, work.refusals, guards))
        guard = self._journals.both(guard, of_target)
        query = move(context, keys, bit.digits, target.digits, guard)
        return (yield from in_shard(context, bit.shard, query))
