"""Event sets: who to ask about, as immutable expressions over bitmaps. Pure.

An event set is a value. Building and combining them does no I/O, and the same
value can be asked about many times; the verbs of a tally that take one go and
look.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from ..errors import InvalidTypeError, InvalidValueError
from .arguments import check_name, checked_int, described, immutable, iterated
from .keys import bitmap_key
from .untrusted import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
    from datetime import datetime

    from .periods import Period

__all__ = [
    "Bitmap",
    "Bounds",
    "Combination",
    "EventSet",
    "Operator",
    "Origin",
    "all_of",
    "any_of",
    "checked",
    "walk",
]

Operator = Literal["&", "|", "^", "-"]

#: Whom to ask about the users of a set.
_ASK = "ask a tally"
Bounds = tuple["datetime | None", "datetime | None"]

#: The size of an expression is not counted beyond this: written out, it may double with
#: each operation.
_HUGE: Final = 2**32

#: How many characters the text of an expression has, at most, but for the last name.
_LONGEST_TEXT: Final = 2000


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
    def size(self) -> int:
        """How many parts it has if it is written out; up to 2**32."""
        return 1

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
        """Yield the bitmaps that define it; one that is used twice may come twice."""
        raise NotImplementedError

    def at(self, origin: Origin) -> EventSet:
        """Return the same set somewhere else, as in a shard of its database. Raises nothing."""
        raise NotImplementedError

    def __copy__(self) -> EventSet:
        return self

    def __deepcopy__(self, memo: object) -> EventSet:
        return self  # nothing of it can change

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

    if not TYPE_CHECKING:  # type checkers object by themselves, as long as they see none of these

        def __iter__(self) -> NoReturn:
            """Raise: who is in a set is known to the database only."""
            raise InvalidTypeError(
                f"an event set does not hold its users; {_ASK}: users(event_set) yields them"
            )

        def __len__(self) -> NoReturn:
            """Raise: how many are in a set is known to the database only."""
            raise InvalidTypeError(
                f"an event set does not know its size; {_ASK}: count(event_set) tells it"
            )

        def __contains__(self, user_id: object) -> NoReturn:
            """Raise: whether a user is in a set is known to the database only."""
            raise InvalidTypeError(
                f"an event set does not hold its users; {_ASK}: contains(event_set, user_id) "
                "tells whether one is in it"
            )

        def __getitem__(self, index: object) -> NoReturn:
            """Raise: who is in a set is known to the database only."""
            raise InvalidTypeError(
                f"an event set does not hold its users; {_ASK}: users(event_set, start=, limit=) "
                "yields some of them"
            )

        __aiter__ = __reversed__ = __iter__

        def __rand__(self, other: object) -> NoReturn:
            """Raise: the other one is no event set."""
            raise _not_combined(other)

        __ror__ = __rxor__ = __rsub__ = __rand__

    def _bounds(self) -> Bounds:
        """Return `start` and `end`."""
        raise NotImplementedError

    def _combined(self, operator: Operator, other: EventSet) -> EventSet:
        if not isinstance(other, EventSet):
            raise _not_combined(other)
        return _combination(operator, (self, other))


@immutable
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

    def key_below(self, prefix: str) -> bytes:
        """Return its key in a database with another prefix, as in a shard."""
        return bitmap_key(prefix, self.event, self.period)

    def __hash__(self) -> int:  # of what tells most of them apart, since it is often needed
        return hash((self.event, self.period and self.period.start))

    def _bounds(self) -> Bounds:
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


@immutable
@dataclass(frozen=True, repr=False, eq=False, slots=True)
class Combination(EventSet):
    """Two or more event sets, combined from left to right.

    Operands may be shared: an expression is a graph, which may be as deep as memory
    allows. So whatever goes through it visits each part once, and does not recurse.

    Attributes:
        origin: as in `EventSet`.
        operator: how they are combined.
        operands: two or more.
    """

    origin: Origin
    operator: Operator
    operands: tuple[EventSet, ...]
    _size: int = field(init=False)
    _hash: int = field(init=False)  # 0 before it is asked for

    def __post_init__(self) -> None:
        size = 1
        for one in self.operands:
            size += one.size
        object.__setattr__(self, "_size", min(size, _HUGE))
        object.__setattr__(self, "_hash", 0)

    @property
    def size(self) -> int:
        """How many parts it has if it is written out; up to 2**32."""
        return self._size

    def __hash__(self) -> int:
        if not self._hash:
            todo = [self]
            while todo:
                one = todo[-1]
                missing = [
                    each
                    for each in one.operands
                    if isinstance(each, Combination) and not each._hash  # noqa: SLF001
                ]
                if missing:
                    todo += missing
                    continue
                known, *others = map(hash, one.operands)
                for other in others:
                    # As if they were combined one after the other, which makes an equal set.
                    known = hash((one.operator, known, other))
                object.__setattr__(one, "_hash", known or 1)
                todo.pop()
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Combination):
            return NotImplemented
        return hash(self) == hash(other) and _are_equal(self, other)

    def __reduce__(self) -> tuple[Callable[..., EventSet], tuple[Any, ...]]:
        """Return a flat table of all parts, since pickle recurses."""
        numbers: dict[int, int] = {}
        parts: list[Any] = []
        for one in walk([self]):
            numbers[id(one)] = len(parts)
            parts.append(
                (one.operator, *(numbers[id(operand)] for operand in one.operands))
                if isinstance(one, Combination)
                else one
            )
        return _assembled, (parts,)

    def _bounds(self) -> Bounds:
        parts = [one for one in walk([self]) if not isinstance(one, Combination)]
        starts = [start for one in parts if (start := one.start) is not None]
        ends = [end for one in parts if (end := one.end) is not None]
        return min(starts, default=None), max(ends, default=None)

    def shift(self, count: int) -> EventSet:
        """Return the combination of the operands, each shifted."""
        checked_int("count", count)
        return self._mapped(self.origin, lambda one: one.shift(count))

    def at(self, origin: Origin) -> EventSet:
        """Return the same combination somewhere else."""
        return self._mapped(origin, lambda one: one.at(origin))

    def bitmaps(self) -> Iterator[Bitmap]:
        """Yield the bitmaps of all operands."""
        return (
            bitmap
            for one in walk([self])
            if not isinstance(one, Combination)
            for bitmap in one.bitmaps()
        )

    def _mapped(self, origin: Origin, replacement: Callable[[EventSet], EventSet]) -> EventSet:
        """Return the same combination of other parts."""
        found: dict[int, EventSet] = {}
        for one in walk([self]):
            if isinstance(one, Combination):
                operands = tuple([found[id(operand)] for operand in one.operands])
                found[id(one)] = Combination(origin, one.operator, operands)
            else:
                found[id(one)] = replacement(one)
        return found[id(self)]

    def __repr__(self) -> str:
        """Return the expression as it may be typed, or its beginning if it is a long one."""
        told: list[str] = []
        length = 0
        todo: list[str | EventSet] = [self]
        while todo:
            one = todo.pop()
            if isinstance(one, Combination):
                todo += reversed(list(_pieces(one)))
                continue
            told.append(one if isinstance(one, str) else repr(one))
            length += len(told[-1])
            if length > _LONGEST_TEXT:
                return f"{''.join(told)} …"
        return "".join(told)


def _pieces(combination: Combination) -> Iterator[str | EventSet]:
    """Yield what the text of a combination is made of."""
    for number, one in enumerate(combination.operands):
        if number:
            yield f" {combination.operator} "
            # No more than can be shown, however many there are.
            if number > _LONGEST_TEXT:
                return
        chained = not isinstance(one, Combination) or (
            one.operator == combination.operator and (one.operator != "-" or not number)
        )
        yield from (one,) if chained else ("(", one, ")")


def walk(event_sets: Sequence[EventSet]) -> Iterator[EventSet]:
    """Yield all parts of some expressions, each object once, operands before combinations."""
    seen: set[int] = set()
    todo = list(reversed(event_sets))
    while todo:
        one = todo[-1]
        if id(one) not in seen:
            if isinstance(one, Combination):
                missing = [each for each in reversed(one.operands) if id(each) not in seen]
                if missing:
                    todo += missing
                    continue
            seen.add(id(one))
            yield one
        todo.pop()


def _are_equal(*pair: Combination) -> bool:
    """Tell whether two combinations are built alike.

    Equal parts get the same number, whichever of the two they belong to.
    """
    numbers: dict[int, int] = {}
    known: dict[object, int] = {}
    for one in walk(pair):
        if isinstance(one, Combination):
            first, *others = [numbers[id(operand)] for operand in one.operands]
            for other in others:
                first = known.setdefault((one.operator, first, other), len(known))
            numbers[id(one)] = first
        else:
            numbers[id(one)] = known.setdefault(one, len(known))
    return len({numbers[id(one)] for one in pair}) == 1


def _assembled(parts: Sequence[Any]) -> EventSet:
    """Return the expression of a table of parts, each of which uses earlier ones by number."""
    found: list[EventSet] = []
    for part in parts:
        if isinstance(part, EventSet):
            found.append(part)
        else:
            operator, *numbers = part
            operands = tuple([found[number] for number in numbers])
            found.append(Combination(operands[0].origin, operator, operands))
    return found[-1]


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


def _many(name: str, operator: Operator, event_sets: Iterable[EventSet]) -> EventSet:
    each = iterated(f"{name} takes an iterable of event sets", event_sets)
    # One that is there twice changes nothing.
    found = tuple(dict.fromkeys(checked(one) for one in each))
    if not found:
        raise InvalidValueError(f"{name} needs one event set or more")
    return found[0] if len(found) == 1 else _combination(operator, found)


def _combination(operator: Operator, event_sets: tuple[EventSet, ...]) -> Combination:
    """Combine two or more event sets, if they are of one database."""
    first = event_sets[0]
    for one in event_sets:
        if one.origin != first.origin:
            raise InvalidValueError(
                f"{shown(first)} and {shown(one)} are of different databases or prefixes, "
                "so no server can combine them"
            )
    return Combination(first.origin, operator, event_sets)


def _not_combined(other: object) -> InvalidTypeError:
    remedy = _remedy(other)
    return InvalidTypeError(
        f"an event set is combined with event sets, not with {described(other)}{remedy}"
    )


def _remedy(candidate: object) -> str:
    if isinstance(candidate, str):
        return "; build one with the tally's day(), week(), month() or unique()"
    return ""


def checked(event_set: EventSet) -> EventSet:
    """Return an event set if it is one.

    Raises:
        InvalidTypeError: it is not.
    """
    if isinstance(event_set, EventSet):
        return event_set
    raise InvalidTypeError(f"not an event set: {shown(event_set)}{_remedy(event_set)}")
