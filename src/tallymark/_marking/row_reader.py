"""Reads rows: checks them, and makes columns of numbers of them. Pure.

Most rows are checked in C, thousands at a time. If some of these need a look, as they may be bad,
all of them are checked one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from .._core.arguments import is_array, plain_str
from .._core.moments import (
    Instants,
    IrregularError,
    loaded_numpy,
    numpy_or_none,
    unit_of,
    units_of_instants,
    units_of_list,
)
from .._core.untrusted import reraise_from_handler, shown
from ..errors import InvalidTypeError, TallymarkError
from .row_columns import Coded, Constant, Numbers
from .row_effects import BadRow
from .row_sorting import Rows, lowest

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo

    from .row_columns import Columns

__all__ = ["RowReader"]

_ROW_TYPES: Final = frozenset((tuple, list))
_THREE: Final = frozenset((3,))


class RowReader:
    """Makes `Rows` of what a caller passes. The users are ids, or the keys of ids.

    Attributes:
        names: the name of each event, by its code.
        many: whether there are so many rows that numpy is imported.
    """

    def __init__(
        self,
        zone: tzinfo,
        *,
        hourly: bool,
        admit: Callable[..., str],
        has_expired: Callable[[int], bool] | None = None,
        user: Callable[[Any], Any],
        users: Callable[[list[Any]], Any],
        max_user_id: int | None,
    ) -> None:
        """Begin without events.

        Arguments:
            zone: the tally's time zone.
            hourly: whether the hours are marked.
            admit: returns the name of an event; raises if it must not be marked. With
                ``keeps=False``, it is not going to be marked.
            has_expired: whether all bitmaps of a day or an hour have expired, and of those
                before; ``None`` if it does not matter.
            user: returns an id as it is marked; raises if it is not allowed.
            users: as ``user``, of many ids; raises if one of them is not allowed.
            max_user_id: the highest id; ``None`` if a dictionary has the users' numbers.
        """
        self._zone = zone
        self._hourly = hourly
        self._admit = admit
        self._has_expired = has_expired
        self._user = user
        self._users = users
        self._max_user_id = max_user_id
        self._codes: dict[str, int] = {}
        #: Of the last column with categories: these, and the code of each that has occurred.
        self._categories: Any = None
        self._table: Any = None
        self.names: list[str] = []
        self.many = False

    def forget_events(self) -> None:
        """Begin anew without events."""
        self._codes, self.names, self._categories = {}, [], None

    def of_rows(self, rows: Sequence[Any], index: int) -> tuple[Rows | None, list[BadRow]]:
        """Return rows as columns, and those that cannot be marked.

        With ``has_expired``, rows without a bitmap that is left are checked and left out, so
        that they keep no place in ``max_events``.

        Arguments:
            rows: some rows.
            index: the position of the first one.
        """
        try:
            if not (_ROW_TYPES.issuperset(map(type, rows)) and _THREE.issuperset(map(len, rows))):
                raise IrregularError  # noqa: TRY301 - the short way is the common one
            events, users, moments = map(list, zip(*rows, strict=True))
            return self._together(events, users, moments), []
        except IrregularError:
            return self._one_by_one([(index + at, row) for at, row in enumerate(rows)])

    def of_columns(
        self, columns: Columns, begin: int, end: int, index: int
    ) -> tuple[Rows | None, list[BadRow]]:
        """Return some rows of columns; as `of_rows`.

        Arguments:
            columns: the columns.
            begin, end: which rows.
            index: the position of the first row of the columns.
        """
        try:
            event, user_id, moment = (_slice(column, begin, end) for column in columns[:3])
            return self._together(event, user_id, moment), []
        except IrregularError:
            return self._one_by_one([(index + at, columns.row(at)) for at in range(begin, end)])

    def _numpy(self) -> Any:
        return numpy_or_none() if self.many else loaded_numpy()

    # --- all at once

    def _together(self, events: Any, users: Any, moments: Any) -> Rows:
        """Return rows as columns.

        Raises:
            IrregularError: they have to be looked at one by one.
        """
        values = users.codes if isinstance(users, Coded) else users
        length = len(values.values if isinstance(values, Numbers) else values)
        numpy = self._numpy()
        users = self._user_column(users, numpy)
        units = self._unit_column(moments, length, numpy)
        if self._has_expired is not None and length and self._has_expired(lowest(units)):
            raise IrregularError
        # The events last: those of bad rows get no place in ``max_events``.
        return Rows(self._event_column(events, length, numpy), users, units)

    def _event_column(self, events: Any, length: int, numpy: Any) -> Any:
        if isinstance(events, Constant):
            return _filled(self._code_of(events.content), length, numpy)
        if isinstance(events, Coded):
            count = len(events.categories)
            codes = events.codes
            if len(codes) and not (int(codes.min()) >= 0 and int(codes.max()) < count):
                raise IrregularError
            if self._categories is not events.categories:
                self._categories = events.categories
                self._table = numpy.full(count, -1, dtype=numpy.int64)
            table = self._table
            found = table[codes]
            new = codes[found < 0]
            if len(new):
                # In the order of the rows, as long as there are places in ``max_events``.
                occurring, first = numpy.unique(new, return_index=True)
                for code in occurring[first.argsort()].tolist():
                    table[code] = self._code_of(events.categories[code])
                found = table[codes]
            return found
        if not isinstance(events, list) or set(map(type, events)) != {str}:
            raise IrregularError
        codes = list(map(self._codes.get, events))
        if None in codes:
            for event in dict.fromkeys(events):
                self._code_of(event)
            codes = list(map(self._codes.get, events))
        return _as_array(codes, numpy)

    def _code_of(self, event: Any) -> int:
        """Return the code of an event.

        Raises:
            IrregularError: it must not be marked.
        """
        try:
            return self._code(event)
        except TallymarkError as error:
            reraise_from_handler(error)
            raise IrregularError from error

    def _code(self, event: Any) -> int:
        name = plain_str(event)
        code = self._codes.get(name) if type(name) is str else None
        if code is None:
            name = self._admit(event)
            code = self._codes[name] = len(self.names)
            self.names.append(name)
        return code

    def _user_column(self, users: Any, numpy: Any) -> Any:
        if isinstance(users, Numbers):
            if self._max_user_id is not None:
                array = users.values
                if len(array) and not (
                    int(array.min()) >= 0 and int(array.max()) <= self._max_user_id
                ):
                    raise IrregularError
                return array.astype(numpy.int64, copy=False)
            users = users.values.tolist()
        codes: Any = None
        if isinstance(users, Coded):
            codes, categories = users.codes, users.categories
            if len(codes) and not (int(codes.min()) >= 0 and int(codes.max()) < len(categories)):
                raise IrregularError
            # Of a long dictionary, only what occurs.
            present, codes = numpy.unique(codes, return_inverse=True)
            users = [categories[code] for code in present.tolist()]
        if not isinstance(users, list):
            raise IrregularError
        try:
            checked = self._users(users)
        except TallymarkError as error:
            reraise_from_handler(error)
            raise IrregularError from error
        if self._max_user_id is not None:
            checked = _as_array(checked, numpy)
            return checked if codes is None else checked[codes]
        return checked if codes is None else list(map(checked.__getitem__, codes.tolist()))

    def _unit_column(self, moments: Any, length: int, numpy: Any) -> Any:
        if isinstance(moments, Constant):
            unit = self._unit_of(moments.content)
            return _filled(unit, length, numpy)
        if isinstance(moments, Instants):
            return units_of_instants(moments, self._zone, hourly=self._hourly)
        if isinstance(moments, Coded):
            moments = [moments.value(at) for at in range(length)]
        if not isinstance(moments, list):
            raise IrregularError
        return _as_array(units_of_list(moments, self._zone, hourly=self._hourly), numpy)

    def _unit_of(self, moment: Any) -> int:
        try:
            return unit_of(moment, self._zone, hourly=self._hourly)
        except TallymarkError as error:
            reraise_from_handler(error)
            raise IrregularError from error

    # --- one by one

    def _one_by_one(self, rows: list[tuple[int, Any]]) -> tuple[Rows | None, list[BadRow]]:
        codes, users, units = [], [], []
        bad = []
        for index, row in rows:
            try:
                event, user_id, moment = _checked_row(row)
                user = self._user(user_id)
                unit = unit_of(moment, self._zone, hourly=self._hourly)
                if self._has_expired is not None and self._has_expired(unit):
                    self._admit(event, keeps=False)
                    continue
                codes.append(self._code(event))
                users.append(user)
                units.append(unit)
            except TallymarkError as error:
                reraise_from_handler(error)
                bad.append(BadRow(index, row, error))
        if not codes:
            return None, bad
        numpy = self._numpy()
        checked = users if self._max_user_id is None else _as_array(users, numpy)
        return Rows(_as_array(codes, numpy), checked, _as_array(units, numpy)), bad


def _checked_row(row: Any) -> tuple[Any, Any, Any]:
    """Return the three items of a row.

    Raises:
        InvalidTypeError: it has not three.
    """
    error = None
    if isinstance(row, Sequence) and not isinstance(row, (str, bytes, bytearray, memoryview)):
        try:
            event, user_id, moment = row
        except Exception as raised:  # noqa: BLE001 - of a class of the caller
            reraise_from_handler(raised)
            error = raised
        else:
            return event, user_id, moment
    raise InvalidTypeError(
        f"a row is a tuple of an event, a user id and a moment, got {shown(row)}"
    ) from error


def _slice(column: Any, begin: int, end: int) -> Any:
    if isinstance(column, Constant):
        return column
    if isinstance(column, Coded):
        return column._replace(codes=column.codes[begin:end])
    part = column.values[begin:end]
    if isinstance(column, (Numbers, Instants)):
        return column._replace(values=part)
    return part if type(part) is list else list(part)


def _filled(number: int, length: int, numpy: Any) -> Any:
    return [number] * length if numpy is None else numpy.full(length, number, dtype=numpy.int64)


def _as_array(numbers: Any, numpy: Any) -> Any:
    if numpy is None or is_array(numbers):
        return numbers
    return numpy.array(numbers, dtype=numpy.int64)
