"""Event sets: who to ask about, as immutable expressions over bitmaps. Pure.

An event set is a value. Building and combining them does no I/O, and the same
value can be asked about many times; the verbs of a tally that take one go and
look.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NoReturn

from .covers import covering
from .errors import InvalidTypeError, InvalidValueError
from .keys import bitmap_key, check_name, checked_int
from .periods import Granularity, Period

__all__ = [
    "Bitmap",
    "Combination",
    "DayRange",
    "EventSet",
    "Origin",
    "Union",
    "YearOfMonths",
    "all_of",
    "any_of",
    "checked",
    "evaluate",
]

Operator = Literal["&", "|", "^", "-"]
_Bounds = tuple[datetime | None, datetime | None]

#: How many days a bitmap of a year, or of a month, is of at most.
_DAYS_OF_A_YEAR: Final = 366
_DAYS_OF_A_MONTH: Final = 31
_MONTHS: Final = 12

#: In how many bitmaps with a date a day is, at most: its 24 hours', and its own, and those
#: of its week, its month and its year.
_BITMAPS_OF_A_DAY: Final = 28


@dataclass(frozen=True)
class Origin:
    """Where the bitmaps of an event set are.

    Attributes:
        database: something that is equal for all tallies on one database.
        prefix: what the keys begin with.
    """

    database: Hashable
    prefix: str


class EventSet:
    """A set of users that bitmaps define: those of an event in a period, or with a flag.

    Get them from a tally (`day`, `week`, `unique`, `between`, ...), and combine
    them with ``&`` (in both), ``|`` (in any), ``^`` (in one but not both) and
    ``-`` (in the first but not in the second), whatever their granularities.
    They are values: immutable, hashable, equal if they are built alike, and
    nothing is read before a verb asks about them.

    All parts of an expression have to be of the same database and prefix.

    Attributes:
        origin: which these are.
    """

    __slots__ = ()

    origin: Origin

    @property
    def start(self) -> datetime | None:
        """The first moment of the earliest period, naive, in the tally's zone.

        ``None`` if there is no period, only flags.
        """
        return self._bounds()[0]

    @property
    def end(self) -> datetime | None:
        """The first moment after the latest period, naive, in the tally's zone.

        ``None`` if there is no period, only flags.
        """
        return self._bounds()[1]

    def shift(self, count: int) -> EventSet:
        """Return the same set so many periods later (earlier, if negative).

        Each part of an expression moves by units of its own: a month by months,
        a day by days, a range of days by its length. A flag has no date and
        stays what it is.

        Raises:
            InvalidTypeError: the count is no int.
            InvalidValueError: a period would leave the years 1 to 9999.
        """
        raise NotImplementedError

    def bitmaps(self) -> Iterator[Bitmap]:
        """Yield the bitmaps that define it; one that is used twice comes twice."""
        raise NotImplementedError

    def at(self, origin: Origin) -> EventSet:
        """Return the same set somewhere else, as in a shard of its database."""
        raise NotImplementedError

    def prev(self) -> EventSet:
        """Return the same set one period earlier: ``shift(-1)``."""
        return self.shift(-1)

    def next(self) -> EventSet:
        """Return the same set one period later: ``shift(1)``."""
        return self.shift(1)

    def __and__(self, other: EventSet) -> EventSet:
        """Return who is in both."""
        return self._combined("&", other)

    def __or__(self, other: EventSet) -> EventSet:
        """Return who is in any of the two."""
        return self._combined("|", other)

    def __xor__(self, other: EventSet) -> EventSet:
        """Return who is in one of the two but not in both."""
        return self._combined("^", other)

    def __sub__(self, other: EventSet) -> EventSet:
        """Return who is in this set but not in the other."""
        return self._combined("-", other)

    def __invert__(self) -> NoReturn:
        """Raise: "everybody else" has no end, since a bitmap knows only who was marked."""
        raise InvalidTypeError(
            "an event set has no complement: who was never marked is not known. "
            "Say of whom they are the rest, as in `everybody - this`"
        )

    def __bool__(self) -> NoReturn:
        """Raise: whether a set has users is known to the database only."""
        raise InvalidTypeError(
            "an event set is neither true nor false. Combine sets with & | ^ -, "
            "not with `and`, `or`, `not`; ask a tally's is_empty() whether there is anybody in it"
        )

    def _bounds(self) -> _Bounds:
        """Return `start` and `end`."""
        raise NotImplementedError

    def _combined(self, operator: Operator, other: EventSet) -> EventSet:
        if not isinstance(other, EventSet):
            return NotImplemented
        return _combination(operator, (self, other))


@dataclass(frozen=True, repr=False, slots=True)
class Bitmap(EventSet):
    """One bitmap: an event in one period, or an event's flag.

    Attributes:
        origin: where it is.
        event: the event's name.
        period: the period, ``None`` for the flag.
    """

    origin: Origin
    event: str
    period: Period | None

    def __post_init__(self) -> None:
        check_name("event", self.event)

    @property
    def key(self) -> bytes:
        """Its key in the database."""
        return bitmap_key(self.origin.prefix, self.event, self.period)

    def __hash__(self) -> int:  # of what tells most of them apart, since it is often needed
        return hash((self.event, self.period and self.period.start))

    def _bounds(self) -> _Bounds:
        return (None, None) if self.period is None else (self.period.start, self.period.end)

    def shift(self, count: int) -> Bitmap:
        """Return the bitmap of a period that is so many units later; of a flag, itself."""
        checked_int("count", count)
        return self if self.period is None else replace(self, period=self.period.shift(count))

    def at(self, origin: Origin) -> Bitmap:
        """Return the same bitmap somewhere else."""
        return Bitmap(origin, self.event, self.period)

    def bitmaps(self) -> Iterator[Bitmap]:
        """Yield itself."""
        yield self

    def __repr__(self) -> str:
        if self.period is None:
            return f"unique({self.event!r})"
        return f"{self.period.granularity}({self.event!r}, {self.period})"


class Union(EventSet):
    """A union of bitmaps of one event that stands for a stretch of time.

    Attributes:
        event: the event's name.
    """

    __slots__ = ()

    event: str

    def periods(self) -> tuple[Period, ...]:
        """Return the periods whose bitmaps are united."""
        raise NotImplementedError

    def most(self) -> int:
        """Return how many periods there are at most, without a look at them."""
        raise NotImplementedError

    def unfolded(self) -> Iterator[Period]:
        """Yield the periods one by one, as they are found."""
        return iter(self.periods())

    def bitmaps(self) -> Iterator[Bitmap]:
        """Yield the bitmaps of all its periods."""
        return (Bitmap(self.origin, self.event, period) for period in self.periods())


@dataclass(frozen=True, repr=False, slots=True)
class YearOfMonths(Union):
    """A year of an event whose years have no bitmaps: the union of the months."""

    origin: Origin
    event: str
    period: Period

    def __post_init__(self) -> None:
        check_name("event", self.event)

    def _bounds(self) -> _Bounds:
        return self.period.start, self.period.end

    def shift(self, count: int) -> YearOfMonths:
        """Return the year that is so many years later."""
        checked_int("count", count)
        return replace(self, period=self.period.shift(count))

    def at(self, origin: Origin) -> YearOfMonths:
        """Return the same year somewhere else."""
        return YearOfMonths(origin, self.event, self.period)

    def most(self) -> int:
        """Return twelve."""
        return _MONTHS

    def periods(self) -> tuple[Period, ...]:
        """Return the twelve months."""
        january = Period.containing(Granularity.MONTH, self.period.start)
        return tuple(january.shift(count) for count in range(_MONTHS))

    def __repr__(self) -> str:
        return f"year({self.event!r}, {self.period})"


@dataclass(frozen=True, repr=False, slots=True)
class DayRange(Union):
    """An event on any day of a range, from as few bitmaps as can say that.

    Attributes:
        origin, event: as in `Bitmap`.
        first, after: midnights; the day of ``after`` is not a part of it.
        yearly: whether there are bitmaps of years.
    """

    origin: Origin
    event: str
    first: datetime
    after: datetime
    yearly: bool
    #: Its periods, once they have been found: it is asked for them several times.
    _periods: tuple[Period, ...] | None = field(init=False, compare=False, default=None)

    def __post_init__(self) -> None:
        check_name("event", self.event)
        if self.first >= self.after:
            raise InvalidValueError(
                f"a range begins before it ends, got {self.first} to {self.after}"
            )

    def _bounds(self) -> _Bounds:
        return self.first, self.after

    def shift(self, count: int) -> DayRange:
        """Return the range moved by so many times its own length."""
        checked_int("count", count)
        try:
            distance: timedelta = count * (self.after - self.first)
            return replace(self, first=self.first + distance, after=self.after + distance)
        except OverflowError as error:
            raise InvalidValueError(
                f"{self!r} cannot be shifted that far: it leaves the years 1 to 9999"
            ) from error

    def at(self, origin: Origin) -> DayRange:
        """Return the same range somewhere else."""
        there = DayRange(origin, self.event, self.first, self.after, self.yearly)
        object.__setattr__(there, "_periods", self._periods)
        return there

    @property
    def widest(self) -> int:
        """Of how many days one of its bitmaps is at most."""
        return _DAYS_OF_A_YEAR if self.yearly else _DAYS_OF_A_MONTH

    def most(self) -> int:
        """Return how many bitmaps it has if it needs all that there are of its days."""
        return _BITMAPS_OF_A_DAY * (self.after - self.first).days

    def unfolded(self) -> Iterator[Period]:
        """Yield the periods one by one, as they are found."""
        if self._periods is not None:
            yield from self._periods
            return
        found = []
        for period in covering(self.first, self.after, yearly=self.yearly):
            found.append(period)
            yield period
        object.__setattr__(self, "_periods", tuple(found))

    def periods(self) -> tuple[Period, ...]:
        """Return whole months and weeks where they fit, and days at the edges."""
        return self._periods or tuple(self.unfolded())

    def __repr__(self) -> str:
        return f"between({self.event!r}, {self.first:%Y-%m-%d}, {self.after:%Y-%m-%d})"


@dataclass(frozen=True, repr=False, slots=True)
class Combination(EventSet):
    """Two or more event sets, combined: from left to right, where that matters."""

    origin: Origin
    operator: Operator
    operands: tuple[EventSet, ...]

    def _bounds(self) -> _Bounds:
        starts = [one.start for one in self.operands if one.start is not None]
        ends = [one.end for one in self.operands if one.end is not None]
        return min(starts, default=None), max(ends, default=None)

    def shift(self, count: int) -> Combination:
        """Return the combination of the operands, each shifted."""
        return replace(self, operands=tuple(one.shift(count) for one in self.operands))

    def at(self, origin: Origin) -> Combination:
        """Return the same combination somewhere else."""
        return Combination(origin, self.operator, tuple([one.at(origin) for one in self.operands]))

    def bitmaps(self) -> Iterator[Bitmap]:
        """Yield the bitmaps of all operands."""
        return (bitmap for one in self.operands for bitmap in one.bitmaps())

    def __repr__(self) -> str:
        return f" {self.operator} ".join(
            f"({one!r})" if isinstance(one, Combination) else repr(one) for one in self.operands
        )


def any_of(event_sets: Iterable[EventSet]) -> EventSet:
    """Return the users who are in any of one or more event sets: their union.

    Raises:
        InvalidTypeError: something is no event set.
        InvalidValueError: there is none, or they are of different databases.
    """
    return _many("any_of", "|", event_sets)


def all_of(event_sets: Iterable[EventSet]) -> EventSet:
    """Return the users who are in all of one or more event sets: their intersection.

    Raises:
        InvalidTypeError: something is no event set.
        InvalidValueError: there is none, or they are of different databases.
    """
    return _many("all_of", "&", event_sets)


def evaluate(event_set: EventSet, bits: dict[Bitmap, Any]) -> Any:
    """Return an expression's value over its bitmaps' values, which have ``& | ^ ~``.

    Ints and numpy arrays have; of ints, only the bits that any of the bitmaps
    has are set, since ``~`` is used together with ``&``.
    """
    if isinstance(event_set, Bitmap):
        return bits[event_set]
    if isinstance(event_set, Combination):
        values = [evaluate(one, bits) for one in event_set.operands]
        operator = event_set.operator
    else:
        values = [bits[bitmap] for bitmap in event_set.bitmaps()]
        operator = "|"
    value, *others = values
    for other in others:
        if operator == "&":
            value = value & other
        elif operator == "|":
            value = value | other
        elif operator == "^":
            value = value ^ other
        else:
            value = value & ~other
    return value


def _many(name: str, operator: Operator, event_sets: Iterable[EventSet]) -> EventSet:
    if not isinstance(event_sets, Iterable):
        raise InvalidTypeError(f"{name} takes an iterable of event sets, got {event_sets!r:.80}")
    # One that is there twice changes nothing.
    found = tuple(dict.fromkeys(checked(one) for one in event_sets))
    if not found:
        raise InvalidValueError(f"{name} needs one event set or more")
    return found[0] if len(found) == 1 else _combination(operator, found)


def _combination(operator: Operator, event_sets: tuple[EventSet, ...]) -> Combination:
    """Combine two or more event sets, if they are of one database."""
    first = event_sets[0]
    operands: list[EventSet] = []
    for one in event_sets:
        if one.origin != first.origin:
            raise InvalidValueError(
                f"{first!r} and {one!r} are of different databases or prefixes, "
                "so no server can combine them"
            )
        # Kept flat, so that a union of a thousand sets is no tree of that depth.
        associative = operator != "-" or not operands
        if associative and isinstance(one, Combination) and one.operator == operator:
            operands += one.operands
        else:
            operands.append(one)
    return Combination(first.origin, operator, tuple(operands))


def checked(event_set: EventSet) -> EventSet:
    """Return an event set if it is one.

    Raises:
        InvalidTypeError: it is not.
    """
    if isinstance(event_set, EventSet):
        return event_set
    remedy = (
        "; build one with the tally's day(), week(), month() or unique()"
        if isinstance(event_set, str)
        else ""
    )
    raise InvalidTypeError(f"not an event set: {event_set!r:.80}{remedy}")
