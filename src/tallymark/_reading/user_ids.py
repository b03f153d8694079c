"""Look-ups in the dictionary of a database: the numbers of user ids, and back. Pure.

With the option ``user_ids``, each user has a number, as `tallymark._core.user_ids` describes.
Queries of bitmaps work with numbers. The verbs look up the numbers of the ids that they take,
with one ``HGET`` each, and the ids of the numbers that they find.

A user who is forgotten between two requests of a query has no id or no bits in the second one.
Numbers are never given again, so no query takes one user for another.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._core.arguments import checked_int, iterated
from .._core.failures import unexpected_reply
from .._core.offsets import as_list, blocks, id_blocks, is_array_of_ints
from .._core.untrusted import shown
from ..errors import InvalidValueError
from .fanout import gather
from .requests import Checkpoint, Request, check_replies, in_steps, send

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .._core.context import Context
    from .._core.user_ids import Dictionary, IdType
    from .requests import Command, Query

__all__ = ["checked_keys", "find_ids", "find_numbers", "find_place", "ids", "numbers"]

#: How many ids or numbers are looked up together, in all shards.
_CHUNK: Final = 8_192

#: How many commands one request has at most: Redis executes a thousand ``HGET`` in 2 ms.
_COMMANDS: Final = 1_000

#: How many records one request fetches, up to those of the last command. Each has at most 1 KiB.
_RECORDS: Final = 4_096

#: The records between the first and the last one of a block are fetched with one ``GETRANGE``
#: if they have at most this many bytes for each record to look up. With 250 records of 4,000,
#: Redis and the client need 0.3 us a record this way, and 0.9 with a ``GETRANGE`` for each.
_BYTES_PER_RECORD: Final = 256

#: All fields of a block are fetched if it has at most this many for each one to look up. With
#: 256 records of 256, that takes 0.5 us a record and ``HMGET`` 1.6; with 64, 2.8 and 1.9.
_FIELDS_PER_RECORD: Final = 2

#: Fetches all fields of a block, since ``COUNT`` is more than they are. Not ``HGETALL``, whose
#: reply is of another type in RESP3.
_ALL: Final = (b"0", b"COUNT", b"1000")

#: How many requests that look up one user may be sent together.
_LOOKUPS: Final = 64

#: How many digits the highest offset of a bit has.
_DIGITS: Final = 10


def numbers(context: Context, user_ids: Iterable[Any]) -> Query[list[int | None]]:
    """Return the numbers of some users, in their order; ``None`` for an unknown id.

    Without a dictionary, the ids are the numbers.

    Raises:
        InvalidTypeError, InvalidValueError: an id is not allowed; nothing was sent.
    """
    dictionary = context.schema.dictionary
    if dictionary is not None:
        keys = yield from checked_keys(dictionary, user_ids)
        return (yield from find_numbers(context, keys))
    number_blocks, _ = blocks(user_ids)
    checked = yield from in_steps(map(context.schema.offsets, number_blocks), 1)
    plain: list[int | None] = []
    for block in checked:
        plain += as_list(block.values)
        yield Checkpoint()
    return plain


def ids(context: Context, numbers: Iterable[int]) -> Query[list[Any]]:
    """Return the ids of the users with some numbers, in order; ``None`` where nobody has it.

    Without a dictionary, the numbers are the ids.

    Raises:
        InvalidTypeError, InvalidValueError: a number is not allowed; nothing was sent.
    """
    highest = context.schema.max_user_id
    values = as_list(numbers) if is_array_of_ints(numbers) else numbers
    iterator = iterated("numbers must be an iterable of ints", values)
    checked = yield from in_steps(_checked_number(number, highest) for number in iterator)
    return (yield from find_ids(context, checked))


def _checked_number(number: int, highest: int) -> int:
    checked = checked_int("number", number)
    if not 0 <= checked <= highest:
        raise InvalidValueError(f"number must be in [0, {highest}], got {shown(checked)}")
    return checked


def checked_keys(dictionary: Dictionary, user_ids: Iterable[Any]) -> Query[list[Any]]:
    """Return the keys of user ids.

    Arguments:
        dictionary: the dictionary of the database.
        user_ids: an iterable of ids, or a one-dimensional numpy array.

    Raises:
        InvalidTypeError, InvalidValueError: this is no such iterable, or an id is not allowed.
    """
    keys: list[Any] = []
    blocks_of_ids, _ = id_blocks(user_ids)
    for block in blocks_of_ids:
        for at in range(0, len(block), _CHUNK):
            keys += dictionary.ids.keys(block[at : at + _CHUNK])
            yield Checkpoint()
    return keys


def find_user(context: Context, user_id: Any) -> Query[tuple[int, int] | None]:
    """Return the shard and the offset of a user; ``None`` for an id that has no number.

    Raises:
        InvalidTypeError, InvalidValueError: the id is not allowed; nothing was sent.
    """
    dictionary = context.schema.dictionary
    if dictionary is None:
        return context.schema.place(user_id)
    return (yield from find_place(context, dictionary, dictionary.ids.key(user_id)))


def find_place(context: Context, dictionary: Dictionary, key: Any) -> Query[tuple[int, int] | None]:
    """Return the shard and the offset of the user with a key; ``None`` for an unknown user."""
    shard = dictionary.shard(key)
    ((offset,),) = yield from gather(context, [(shard, _find_offsets(dictionary, shard, [key]))])
    return None if offset is None else (shard, offset)


def find_numbers(context: Context, keys: Sequence[Any]) -> Query[list[int | None]]:
    """Return the numbers of the users with some keys, in their order.

    ``None`` for an unknown user. Without a dictionary, a user's key is the number.
    """
    dictionary = context.schema.dictionary
    if dictionary is None:
        return list(keys)
    shards = len(context.schema.parts)
    numbers: list[int | None] = []
    for at in range(0, len(keys), _CHUNK):
        chunk = keys[at : at + _CHUNK]
        by_shard = dictionary.by_shard(chunk)
        yield Checkpoint()
        queries = [
            (shard, _find_offsets(dictionary, shard, in_shard))
            for shard, in_shard in by_shard.items()
        ]
        found = yield from gather(context, queries)
        if shards == 1:
            numbers += found[0]
            continue
        by_key: dict[Any, int | None] = {}
        for (shard, in_shard), offsets in zip(by_shard.items(), found, strict=True):
            for key, offset in zip(in_shard, offsets, strict=True):
                by_key[key] = None if offset is None else offset * shards + shard
        numbers += [by_key[key] for key in chunk]
    return numbers


def _find_offsets(
    dictionary: Dictionary, shard: int, keys: Sequence[Any]
) -> Query[list[int | None]]:
    """Return the offsets of users of a shard in its bitmaps; ``None`` for an unknown user."""
    offsets: list[int | None] = []
    for at in range(0, len(keys), _COMMANDS):
        commands: list[Command] = []
        for key in keys[at : at + _COMMANDS]:
            bucket, field, _ = dictionary.entry(key)
            commands.append((b"HGET", dictionary.forward(shard, bucket), field))
        yield Checkpoint()
        offsets += map(_offset, (yield from _send(commands)))
    return offsets


def _offset(reply: Any) -> int | None:
    if reply is None:
        return None
    if type(reply) is not bytes or not reply.isdigit() or len(reply) > _DIGITS:
        raise unexpected_reply(reply)
    return int(reply)


def find_ids(context: Context, numbers: Sequence[int]) -> Query[list[Any]]:
    """Return the ids of the users with some numbers, in their order.

    ``None`` where nobody has the number. Without a dictionary, the numbers are the ids.
    """
    dictionary = context.schema.dictionary
    if dictionary is None:
        return list(numbers)
    shards = len(context.schema.parts)
    ids: list[Any] = []
    for at in range(0, len(numbers), _CHUNK):
        chunk = numbers[at : at + _CHUNK]
        by_shard: dict[int, list[int]] = {}
        for number in sorted(set(chunk)):
            by_shard.setdefault(number % shards, []).append(number // shards)
        yield Checkpoint()
        queries = [
            (shard, _find_ids(dictionary, shard, offsets)) for shard, offsets in by_shard.items()
        ]
        found = yield from gather(context, queries)
        by_number: dict[int, Any] = {}
        for (shard, offsets), in_shard in zip(by_shard.items(), found, strict=True):
            in_all = (offset * shards + shard for offset in offsets)
            by_number.update(zip(in_all, in_shard, strict=True))
        ids += [by_number[number] for number in chunk]
    return ids


def _find_ids(dictionary: Dictionary, shard: int, offsets: Sequence[int]) -> Query[list[Any]]:
    """Return the ids of the users at ascending offsets of a shard; ``None`` for nobody."""
    id_type = dictionary.ids
    records = yield from _fetch_records(dictionary, shard, offsets)
    ids: list[Any] = yield from in_steps(_decoded(id_type, record) for record in records)
    zeros = bytes(id_type.width)
    if zeros and zeros in records:
        # Of a user who was forgotten, or of the one whose id is nothing but zeros.
        nil = id_type.key(id_type.nil)
        if dictionary.shard(nil) == shard:
            (offset,) = yield from _find_offsets(dictionary, shard, [nil])
            for index, record in enumerate(records):
                if record == zeros and offsets[index] == offset:
                    ids[index] = id_type.nil
    return ids


def _decoded(id_type: IdType, record: bytes | None) -> Any:
    """Return the id of a record; ``None`` if it has none, or only zeros."""
    if record is None or (id_type.width and not record.strip(b"\0")):
        return None
    try:
        return id_type.decode(record)
    except UnicodeDecodeError:
        raise unexpected_reply(record) from None


class _Fetch(NamedTuple):
    """A command that fetches records of one block.

    Attributes:
        command: the command.
        positions: the positions in the block of the records to look up, in ascending order.
        size: how many records the reply may have.
    """

    command: Command
    positions: Sequence[int]
    size: int


def _fetch_records(
    dictionary: Dictionary, shard: int, offsets: Sequence[int]
) -> Query[list[bytes | None]]:
    """Return the records of ascending offsets; ``None`` for those that do not exist."""
    width = dictionary.ids.width
    records: list[bytes | None] = []
    for fetches in _grouped(_fetches(dictionary, shard, offsets)):
        yield Checkpoint()
        replies = yield from _send([fetch.command for fetch in fetches])
        for fetch, reply in zip(fetches, replies, strict=True):
            records += _in_string(fetch, reply, width) if width else _in_hash(fetch, reply)
    return records


def _fetches(dictionary: Dictionary, shard: int, offsets: Sequence[int]) -> Iterator[_Fetch]:
    """Yield the commands that fetch the records of ascending offsets, in order."""
    block, width = dictionary.block, dictionary.ids.width
    at = 0
    while at < len(offsets):
        key, position = dictionary.record(shard, offsets[at])
        first = offsets[at] - position
        end = bisect_left(offsets, first + block, at)
        positions = [offset - first for offset in offsets[at:end]]
        at = end
        if not width:
            if len(positions) * _FIELDS_PER_RECORD >= block:
                yield _Fetch((b"HSCAN", key, *_ALL), positions, block)
            else:
                fields = [b"%d" % position for position in positions]
                yield _Fetch((b"HMGET", key, *fields), positions, len(positions))
            continue
        span = positions[-1] - position + 1
        is_dense = span * width <= len(positions) * _BYTES_PER_RECORD
        for group in [positions] if is_dense else [[each] for each in positions]:
            begin, last = group[0] * width, (group[-1] + 1) * width - 1
            command = (b"GETRANGE", key, b"%d" % begin, b"%d" % last)
            yield _Fetch(command, group, group[-1] - group[0] + 1)


def _grouped(fetches: Iterable[_Fetch]) -> Iterator[list[_Fetch]]:
    """Yield the commands of each request."""
    group: list[_Fetch] = []
    size = 0
    for fetch in fetches:
        group.append(fetch)
        size += fetch.size
        if size >= _RECORDS or len(group) == _COMMANDS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _in_string(fetch: _Fetch, reply: Any, width: int) -> list[bytes | None]:
    """Return the records of a block of records of equal length; no record exists after its end."""
    if type(reply) is not bytes:
        raise unexpected_reply(reply)
    first = fetch.positions[0]
    begins = [(position - first) * width for position in fetch.positions]
    whole = len(reply) - width
    return [reply[begin : begin + width] if begin <= whole else None for begin in begins]


def _in_hash(fetch: _Fetch, reply: Any) -> list[bytes | None]:
    """Return the records of a block that is a hash."""
    records = reply
    if fetch.command[0] == b"HSCAN":
        cursor, fields = reply if type(reply) is list and len(reply) == 2 else (None, None)
        if cursor != b"0" or type(fields) is not list:
            raise unexpected_reply(reply)
        by_field = dict(zip(fields[::2], fields[1::2], strict=False))
        records = [by_field.get(b"%d" % position) for position in fetch.positions]
    if type(records) is not list or len(records) != len(fetch.positions):
        raise unexpected_reply(reply)
    return records


def _send(commands: Sequence[Command]) -> Query[list[Any]]:
    """Send commands that only read, and return the replies, which may be of several types."""
    share = _LOOKUPS if len(commands) == 1 else 1
    replies = yield from send(Request(commands, tolerant=True, share=share))
    check_replies(replies)
    return replies
