"""Batches: users of one bitmap, as an export yields them and `restore` takes them. Pure.

A bitmap is named by three texts, in files as in rows: the event, the granularity (``hour``,
``day``, ``week``, ``month``, ``year`` or ``unique``), and the period in the notation of ISO 8601,
such as ``2026-01-05``; the bitmap without a date, a flag, has no period.
"""

from __future__ import annotations

import importlib
import itertools
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic

from ..errors import InvalidTypeError, InvalidValueError, MissingExtraError
from .arguments import checked_name, described, is_array, iterated
from .offsets import as_objects
from .periods import Granularity, Period
from .untrusted import kind_of, reraise_from_handler, shown
from .user_ids import IdT

__all__ = [
    "COLUMNS",
    "ORDER",
    "Batch",
    "bitmap_of",
    "granularities_of",
    "granularity_named",
    "parse_period",
]

#: The columns of rows and files.
COLUMNS: Final = ("event", "granularity", "period", "user_id")

#: The granularities in the order of an export: from the shortest periods to flags.
ORDER: Final = (
    Granularity.HOUR,
    Granularity.DAY,
    Granularity.WEEK,
    Granularity.MONTH,
    Granularity.YEAR,
    Granularity.UNIQUE,
)

#: How many granularities are taken, with repetitions.
_MOST: Final = 1_000

_BY_NAME: Final = {str(granularity): granularity for granularity in ORDER}

#: The notation of the periods of each granularity.
_NOTATIONS: Final = {
    Granularity.YEAR: re.compile(r"(\d{4})"),
    Granularity.MONTH: re.compile(r"(\d{4})-(\d\d)"),
    Granularity.WEEK: re.compile(r"(\d{4})-W(\d\d)"),
    Granularity.DAY: re.compile(r"(\d{4})-(\d\d)-(\d\d)"),
    Granularity.HOUR: re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d)"),
}


@dataclass(frozen=True, eq=False, repr=False)
class Batch(Generic[IdT]):
    """Some users of one bitmap.

    `tallymark.Tally.export` yields batches, and `tallymark.Tally.restore` takes them. A bitmap
    with many users is in several batches.

    Attributes:
        event: the event's name.
        granularity: a single one: HOUR, DAY, WEEK, MONTH, YEAR or UNIQUE.
        period: the period, of that granularity; ``None`` for the bitmap without a date, the
            flag, whose granularity is UNIQUE.
        user_ids: the ids: a list, or a one-dimensional numpy array. Those of an export are in
            ascending order (with ``user_ids``, in that of the users' numbers), at least one and
            at most 65,536.

    ``len()`` returns how many ids it has.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed. The ids are not checked
            before `restore`.
    """

    event: str
    granularity: Granularity
    period: Period | None
    user_ids: Sequence[IdT] | Any  # numpy's arrays are no sequences

    def __post_init__(self) -> None:
        bitmap = bitmap_of(self.event, self.granularity, self.period)
        for name, value in zip(COLUMNS, bitmap, strict=False):
            object.__setattr__(self, name, value)
        ids = self.user_ids
        if not is_array(ids) and (not isinstance(ids, Sequence) or isinstance(ids, str | bytes)):
            raise InvalidTypeError(
                f"user_ids must be a list or an array of ids, got a {kind_of(ids)}"
            )

    def __len__(self) -> int:
        return len(self.user_ids)

    def __repr__(self) -> str:
        period = "" if self.period is None else f" {self.period}"
        return f"<Batch of {self.event!r}, {self.granularity}{period}: {len(self):,} users>"

    def ids(self) -> list[IdT]:
        """Return the ids as a list of Python's objects, also if they are in an array."""
        ids = self.user_ids
        return as_objects(ids) if is_array(ids) else list(ids)

    def to_rows(self) -> list[tuple[str, str, str | None, IdT]]:
        """Return a tuple for each user: event, granularity, period, user id.

        The first three are texts, the same in each row, such as ``("active", "day",
        "2026-01-05", 123)``; the period of a flag is ``None``. `tallymark.Tally.restore` takes
        such rows.
        """
        event, granularity, period = self.event, str(self.granularity), self.period_text
        return [(event, granularity, period, user_id) for user_id in self.ids()]

    @property
    def period_text(self) -> str | None:
        """The period in the notation of ISO 8601, such as ``2026-W02``; ``None`` for a flag."""
        return None if self.period is None else str(self.period)

    def to_arrow(self) -> Any:
        """Return the rows as a ``pyarrow.RecordBatch`` with the columns of `to_rows`.

        The ids are of type ``int64``, ``binary``, or ``string`` for `str` and UUIDs. The other
        columns are encoded as dictionaries of one text.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        try:
            pa: Any = importlib.import_module("pyarrow")  # optional, and without types
        except ImportError as error:
            raise MissingExtraError(
                "to_arrow() needs pyarrow, which is not installed; run: pip install pyarrow"
            ) from error
        texts = self.event, str(self.granularity), self.period_text
        zeros = pa.Array.from_buffers(  # without a Python object for each
            pa.int32(), len(self), [None, pa.py_buffer(bytes(4 * len(self)))]
        )
        columns: list[Any] = [
            pa.DictionaryArray.from_arrays(zeros, pa.array([text], pa.string()))
            if text is not None
            else pa.nulls(len(self), pa.dictionary(pa.int32(), pa.string()))
            for text in texts
        ]
        ids: Any = self.user_ids
        if not is_array(ids) and len(ids) and isinstance(ids[0], uuid.UUID):
            ids = list(map(str, ids))
        return pa.record_batch([*columns, pa.array(ids)], names=list(COLUMNS))

    def to_pandas(self) -> Any:
        """Return the rows of `to_rows` as a ``pandas.DataFrame``.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            pd: Any = importlib.import_module("pandas")  # optional
        except ImportError as error:
            raise MissingExtraError(
                "to_pandas() needs pandas, which is not installed; run: pip install pandas"
            ) from error
        texts = self.event, str(self.granularity), self.period_text
        columns: dict[str, Any] = {
            name: pd.Categorical.from_codes(
                [-1 if text is None else 0] * len(self), [] if text is None else [text]
            )
            for name, text in zip(COLUMNS, texts, strict=False)
        }
        return pd.DataFrame({**columns, "user_id": self.user_ids})


def bitmap_of(event: Any, granularity: Any, period: Any) -> tuple[str, Granularity, Period | None]:
    """Return the event, the granularity and the period of a bitmap, checked.

    Arguments:
        event: the event's name.
        granularity: a single one, or its name.
        period: a `Period`, or a text in the notation of ISO 8601; for a flag ``None``, an empty
            text, or a missing value of numpy or pandas.

    Raises:
        InvalidTypeError, InvalidValueError: there is no such bitmap.
    """
    name = checked_name("event", event)
    checked = granularity_named(granularity)
    if checked is Granularity.UNIQUE:
        if not _is_missing(period):
            raise InvalidValueError(f"a bitmap of unique has no period, got {shown(period)}")
        return name, checked, None
    if isinstance(period, Period):
        if period.granularity is not checked:
            raise InvalidValueError(f"{period} is no {checked}: it is a {period.granularity}")
        return name, checked, period
    if not isinstance(period, str):
        raise InvalidTypeError(
            f"the period of a {checked} must be a Period or a text such as "
            f"{_example(checked)}, got {described(period)}"
        )
    parsed = parse_period(str.__str__(period))
    if parsed is None or parsed.granularity is not checked:
        raise InvalidValueError(
            f"the period of a {checked} is written as {_example(checked)}, got {shown(period)}"
        )
    return name, checked, parsed


def granularity_named(granularity: Any) -> Granularity:
    """Return a single granularity, given as such or by its name; UNIQUE is one.

    Raises:
        InvalidTypeError, InvalidValueError: this is none.
    """
    if isinstance(granularity, Granularity):
        if granularity in ORDER:
            return granularity
    elif not isinstance(granularity, str):
        raise InvalidTypeError(
            f"a granularity is one of {', '.join(_BY_NAME)}, got {described(granularity)}"
        )
    elif (found := _BY_NAME.get(str.__str__(granularity))) is not None:
        return found
    got = str(granularity) if isinstance(granularity, Granularity) else granularity
    raise InvalidValueError(f"a granularity is one of {', '.join(_BY_NAME)}, got {shown(got)}")


def granularities_of(granularities: Any) -> tuple[Granularity, ...]:
    """Return one or several granularities, in the order of an export.

    Arguments:
        granularities: a `Granularity`, which may be a combination; the name of one; or an
            iterable of some.

    Raises:
        InvalidTypeError, InvalidValueError: these are none.
    """
    if isinstance(granularities, Granularity):
        chosen = set(granularities)
    elif isinstance(granularities, str):
        chosen = {granularity_named(granularities)}
    else:
        each = iterated("granularities must be some of Granularity, or names", granularities)
        some = list(itertools.islice(each, _MOST + 1))  # it may be infinite
        if len(some) > _MOST:
            raise InvalidValueError(f"granularities must be at most {_MOST:,}, got more")
        chosen = {granularity_named(item) for item in some}
    if not chosen:
        raise InvalidValueError("granularities must be one or more, got none")
    return tuple(granularity for granularity in ORDER if granularity in chosen)


def parse_period(text: str) -> Period | None:
    """Return the period that a text names, the inverse of ``str(period)``; ``None`` if it is none.

    Arguments:
        text: as in ISO 8601: 2026, 2026-01, 2026-W02, 2026-01-05 or 2026-01-05T13.
    """
    if not text.isascii():
        return None
    for granularity, notation in _NOTATIONS.items():
        match = notation.fullmatch(text)
        if match is None:
            continue
        numbers = [int(digits) for digits in match.groups()]
        try:
            if granularity is Granularity.WEEK:
                year, week = numbers
                return Period(granularity, datetime.fromisocalendar(year, week, 1))
            year, month, day, hour = numbers + [1, 1, 1, 0][len(numbers) :]
            return Period(granularity, datetime(year, month, day, hour))
        except (ValueError, OverflowError) as error:
            reraise_from_handler(error)
            return None
    return None


def _example(granularity: Granularity) -> str:
    return str(Period.containing(granularity, datetime(2026, 1, 5, 13)))


def _is_missing(period: object) -> bool:
    """Return whether this stands for no period: ``None``, an empty text, a NaN or the like."""
    if period is None or (isinstance(period, str) and not period):
        return True
    if isinstance(period, float):
        return period != period  # noqa: PLR0124 - a NaN
    return type(period).__name__ in {"NAType", "NaTType"}  # of pandas, which is not imported here
