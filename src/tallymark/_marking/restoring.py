"""Restores: from batches, rows and columns to the bits of single bitmaps. Pure.

Users are gathered in blocks of bounded size. A block is checked whole before any of it is sent, and
its users are grouped by bitmap. The marks of several small bitmaps share a transaction: with 50
users in each bitmap, a restore takes 0.6 of the CPU time.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._core.arguments import is_array, iterated
from .._core.batches import COLUMNS, Batch, bitmap_of
from .._core.failures import copied
from .._core.id_conversion import converted
from .._core.moments import Instants
from .._core.offsets import BLOCK, as_list, in_time
from .._core.periods import Granularity, Period
from .._core.untrusted import kind_of, reraise_from_handler, shown
from ..errors import InvalidTypeError, InvalidValueError, TallymarkError
from .bulk import BulkCall, Chunk
from .id_script import MAX_IDS
from .marks import DenseMarks
from .row_columns import Coded, Constant, Numbers, check_names, column, has_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .._core.keys import KeySchema
    from .bulk import BulkWrite
    from .marks import Mark
    from .row_columns import Column

__all__ = ["RestoreWrite"]

#: How much work a transaction of several bitmaps has: as many bits as `_marking.bulk` sets one by
#: one in a transaction; with a dictionary, as many ids as one call of its script has.
_WORK: Final = 1000

#: How much work a script that merges bits is, and how many bytes of them are as much as one bit.
_SCRIPT: Final = 100
_BYTES: Final = 128

#: How many bitmaps' bulk writes are kept for later blocks: those of unsorted rows.
_KEPT: Final = 4096

#: What stands for all rows of a mapping of columns.
_CONSTANTS: Final = (str, Granularity, Period, type(None))

#: From this many rows of a bitmap in a row on, columns are taken apart by slices.
_RUN: Final = 16

_ITEMS: Final = (
    "batches must be an iterable of tallymark.Batch, of rows (event, granularity, period, "
    "user id), or of mappings or data frames with these columns"
)


class _Columns(NamedTuple):
    """Rows in columns: the event, granularity and period of each row, and the ids."""

    bitmaps: Sequence[tuple[Any, Any, Any]]
    user_ids: Any


class _Block(NamedTuple):
    """Some rows, batches and columns.

    Attributes:
        first: the index of the first row, among all rows of the call.
        items: tuples, `Batch` and `_Columns`.
    """

    first: int
    items: list[Any]


#: The users of one bitmap, checked, and what writes them.
_Group = tuple["BulkWrite", Any]


class RestoreWrite(BulkCall):
    """One call of ``restore``."""

    def __init__(
        self,
        write_to: Callable[[str, Granularity, Period | None], BulkWrite],
        schema: KeySchema,
    ) -> None:
        """Prepare a restore.

        Arguments:
            write_to: returns the bulk write to a bitmap.
            schema: the schema of the database.
        """
        super().__init__()
        self._write_to = write_to
        self._kind = schema.user_ids
        self._work = _WORK if schema.dictionary is None else MAX_IDS
        self._writes: dict[Any, BulkWrite] = {}
        self._rows = 0
        self.weight = _weight

    # --- blocks

    def blocks(
        self, items: Iterable[Any], check_time: Callable[[], object] | None = None
    ) -> tuple[Iterator[_Block], bool]:
        """Return an iterator over blocks; each is sent before the next one is checked."""
        if isinstance(items, Batch) or has_columns(items):
            items = [items]
        return self._blocks(iterated(_ITEMS, items), check_time), False

    def _blocks(
        self, items: Iterator[Any], check_time: Callable[[], object] | None
    ) -> Iterator[_Block]:
        first, block, size = self._rows, list[Any](), 0
        for item in items if check_time is None else in_time(items, check_time):
            if type(item) is tuple and size < BLOCK:  # in few steps, since there may be many
                block.append(item)
                size += 1
                continue
            for part in self._parts(item, first + size):
                if size >= BLOCK:
                    self._rows += size
                    yield _Block(first, block)
                    first, block, size = self._rows, [], 0
                block.append(part)
                size += _weight(part)
        if block:
            self._rows += size
            yield _Block(first, block)

    def _parts(self, item: Any, index: int) -> Iterator[Any]:
        """Yield an item in parts of bounded size, as a block has them.

        Raises:
            InvalidTypeError: this is no such item.
        """
        if isinstance(item, Batch):
            ids = item.user_ids if is_array(item.user_ids) else list(item.user_ids)
            if len(ids) <= 2 * BLOCK:
                yield item
            else:
                for at in range(0, len(ids), BLOCK):
                    part = ids[at : at + BLOCK]
                    yield Batch(item.event, item.granularity, item.period, part)
        elif isinstance(item, tuple | list):
            yield tuple(item)
        elif has_columns(item):
            yield from _columns(item, index)
        else:
            raise InvalidTypeError(f"row {index}: {_ITEMS}; got a {kind_of(item)}")

    # --- checks

    def checked(self, block: _Block) -> list[_Group]:
        """Return the users of a block by bitmap.

        Raises:
            InvalidTypeError, InvalidValueError: a row is not allowed; its index is in the message.
        """
        try:
            return self._grouped(block.items)
        except (TallymarkError, TypeError, ValueError) as error:
            reraise_from_handler(error)
            self._raise_first(block)
            raise

    def _grouped(self, items: Iterable[Any]) -> list[_Group]:
        users: dict[Any, list[Any]] = defaultdict(list)
        pieces: dict[Any, list[Any]] = defaultdict(list)
        for kind, run in itertools.groupby(items, type):
            if kind is tuple:
                for event, granularity, period, user_id in run:
                    users[event, granularity, period].append(user_id)
                continue
            for item in run:
                if isinstance(item, Batch):
                    pieces[item.event, item.granularity, item.period].append(item.user_ids)
                else:
                    _add_columns(item, users, pieces)
        for name, ids in users.items():
            pieces[name].append(ids)
        groups: list[_Group] = []
        for name, parts in pieces.items():
            write = self._write(name)
            for ids in parts:
                wanted = converted(ids if is_array(ids) else list(ids), self._kind)
                if len(wanted) > 0:
                    groups.append((write, write.checked(wanted)))
        return groups

    def _write(self, name: tuple[Any, Any, Any]) -> BulkWrite:
        """Return the bulk write to the bitmap with an event, a granularity and a period."""
        write = self._writes.get(name)
        if write is None:
            event, granularity, period = bitmap_of(*name)
            write = self._write_to(event, granularity, period)
            if len(self._writes) >= _KEPT:
                self._writes.clear()
            self._writes[name] = write
            self.counts.setdefault(granularity, 0)
        return write

    def _raise_first(self, block: _Block) -> None:
        """Raise the error of the first row of a block that has one."""
        for index, row in enumerate(_rows(block.items), block.first):
            error = self._error(row)
            if error is not None:
                raise copied(error, f"row {index}: {error}") from error.__cause__

    def _error(self, row: tuple[Any, ...]) -> InvalidTypeError | InvalidValueError | None:
        """Return why a row is not allowed; ``None`` if it is."""
        if len(row) != len(COLUMNS):
            return InvalidValueError(
                f"a row has an event, a granularity, a period and a user id, got {shown(row)}"
            )
        try:
            bitmap_of(*row[:3])
            self._grouped([row])
        except (InvalidTypeError, InvalidValueError) as error:
            return error
        except (TypeError, ValueError) as error:  # of a value that cannot be hashed or compared
            reraise_from_handler(error)
            return InvalidTypeError(f"this is no row: {shown(row)}")
        return None

    # --- transactions

    def chunks(self, block: list[_Group]) -> Iterator[Chunk]:
        """Yield the transactions for a block: of several small bitmaps together."""
        packs: dict[int, _Pack] = {}
        for write, ids in block:
            for chunk in write.chunks(ids):
                shard = chunk.marks[0].bitmaps.shard
                work = sum(map(_work, chunk.marks), chunk.ids)
                pack = packs.get(shard)
                if pack is not None and pack.work + work > self._work:
                    yield Chunk(pack.marks, pack.ids)
                    pack = None
                marks, ids_before, work_before = pack or ([], 0, 0)
                packs[shard] = _Pack(
                    [*marks, *chunk.marks], ids_before + chunk.ids, work_before + work
                )
        for pack in packs.values():
            yield Chunk(pack.marks, pack.ids)


class _Pack(NamedTuple):
    """Marks of one shard that share a transaction, how many ids they have, and how much work."""

    marks: list[Mark]
    ids: int
    work: int


def _work(mark: Mark) -> int:
    """Return how much work a mark is besides its bits."""
    return _SCRIPT + len(mark.bits) // _BYTES if isinstance(mark, DenseMarks) else 0


def _weight(item: Any) -> int:
    """Return how many users an item has."""
    if type(item) is tuple:
        return 1
    if isinstance(item, _Columns):
        return len(item.user_ids)
    return len(item) if isinstance(item, Batch) else BLOCK


def _rows(items: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of the items of a block."""
    for item in items:
        if isinstance(item, Batch):
            for user_id in item.ids():
                yield item.event, item.granularity, item.period, user_id
        elif isinstance(item, _Columns):
            for bitmap, user_id in zip(item.bitmaps, as_list(item.user_ids), strict=True):
                yield *bitmap, user_id
        else:
            yield item


# --- columns


def _columns(item: Any, index: int) -> Iterator[_Columns]:
    """Yield the rows of a mapping or data frame, a block at a time.

    Arguments:
        item: the mapping or data frame.
        index: the index of its first row.

    Raises:
        InvalidTypeError, InvalidValueError: a column is missing, or they differ in length.
    """
    constants = _CONSTANTS if isinstance(item, Mapping) else ()
    try:
        check_names(item, COLUMNS)
        *bitmap, ids = (
            column(name, item[name], constants if name != COLUMNS[-1] else ()) for name in COLUMNS
        )
    except TallymarkError as error:
        raise copied(error, f"row {index}: {error}") from error.__cause__
    user_ids = ids.values if isinstance(ids, Numbers) else _values(ids, 0)
    values = [_values(each, len(user_ids)) for each in bitmap]
    lengths = {len(user_ids), *map(len, values)}
    if len(lengths) > 1:
        raise InvalidValueError(
            f"row {index}: the columns {', '.join(COLUMNS)} must have equally many rows"
        )
    triples = list(zip(*values, strict=True))
    for at in range(0, len(triples), BLOCK):
        yield _Columns(triples[at : at + BLOCK], user_ids[at : at + BLOCK])


def _values(one: Column, length: int) -> list[Any]:
    """Return a column as a list; a constant with a given length."""
    if isinstance(one, Constant):
        return [one.content] * length
    if isinstance(one, Coded):
        values = [*one.categories, None]  # other codes, such as -1, stand for a missing value
        most = len(one.categories)
        return [values[code if 0 <= code < most else most] for code in one.codes.tolist()]
    if isinstance(one, Instants):
        # NaT is not equal to itself.
        return [moment if moment == moment else None for moment in one.values]  # noqa: PLR0124
    return as_list(one.values)


def _add_columns(item: _Columns, users: dict[Any, list[Any]], pieces: dict[Any, list[Any]]) -> None:
    """Add the users of columns to those of each bitmap.

    Arguments:
        item: the columns.
        users: the ids of single rows, by event, granularity and period.
        pieces: lists or arrays of ids, likewise.
    """
    runs = [(name, sum(1 for _ in run)) for name, run in itertools.groupby(item.bitmaps)]
    if len(runs) * _RUN > len(item.bitmaps):
        for name, user_id in zip(item.bitmaps, as_list(item.user_ids), strict=True):
            users[name].append(user_id)
        return
    at = 0
    for name, count in runs:
        pieces[name].append(item.user_ids[at : at + count])
        at += count
