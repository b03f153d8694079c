"""Event sets: sets of users as immutable expressions over bitmaps. Pure.

An event set is a value. Building and combining event sets does no I/O; the verbs of a
tally that take an event set read the database, any number of times for the same value.
"""

from __future__ import annotations

import itertools
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
    "MAX_SIZE",
    "Bitmap",
    "Bounds",
    "Combination",
    "Compound",
    "EventSet",
    "Operator",
    "Origin",
    "all_of",
    "any_of",
    "check_origins",
    "checked",
    "walk",
]

Operator = Literal["&", "|", "^", "-"]

#: The beginning of an advice in errors, before the call of a tally's verb.
_ASK = "ask a tally"
Bounds = tuple["datetime | None", "datetime | None"]

#: The largest `EventSet.size`. Written out, an expression may double with each operation.
MAX_SIZE: Final = 2**32

#: After how many characters the ``repr`` of an expression ends.
_LONGEST_TEXT: Final = 2000


@dataclass(frozen=True)
class Origin:
    """The database and the prefix of the bitmaps of an event set.

    Attributes:
        database: a value that is equal for all tallies on one database.
        prefix: the prefix of all keys.
    """

    database: Hashable
    prefix: str


class EventSet:
    """A set of users that bitmaps define: those of an event in a period, or with a flag.

    A tally builds event sets (`day`, `week`, `unique`, `between`, ...). Combine
    them with ``&`` (in both), ``|`` (in any), ``^`` (in one but not both) and
    ``-`` (in the first but not in the second), whatever their granularities.
    Event sets are values: immutable, hashable, and equal if they are built alike.
    Nothing is read before an event set is passed to a verb such as `count`.

    All parts of an expression must have the same database and prefix.

    Attributes:
        origin: the database and the prefix.
    """

    __slots__ = ()

    origin: Origin

    @property
    def size(self) -> int:
        """How many parts the expression has if written out; 2**32 also for more."""
        return 1

    @property
    def start(self) -> datetime | None:
        """The first moment of the earliest period, naive, in the tally's time zone.

        ``None`` if the set consists of flags only, which have no period.
        """
        return self._bounds()[0]

    @property
    def end(self) -> datetime | None:
        """The first moment after the latest period, naive, in the tally's time zone.

        ``None`` if the set consists of flags only, which have no period.
        """
        return self._bounds()[1]

    def shift(self, count: int) -> EventSet:
        """Return the same set ``count`` periods later (earlier, if negative).

        Each part of an expression moves by its own unit: a month by months,
        a day by days, a range of days by its length. A flag has no date and
        does not change.

        Raises:
            InvalidTypeError: ``count`` is no int.
            InvalidValueError: a period would leave the years 1 to 9999.
        """
        raise NotImplementedError

    def bitmaps(self) -> Iterator[Bitmap]:
        """Yield the bitmaps that define the set; one that is used twice may come twice."""
        raise NotImplementedError

    def at(self, origin: Origin) -> EventSet:
        """Return the same set of another ``origin``, such as a shard's. Raises nothing."""
        raise NotImplementedError

    def __copy__(self) -> EventSet:
        return self

    def __deepcopy__(self, memo: object) -> EventSet:
        return self  # immutable

    def prev(self) -> EventSet:
        """Return the same set one period earlier: ``shift(-1)``."""
        return self.shift(-1)

    def next(self) -> EventSet:
        """Return the same set one period later: ``shift(1)``."""
        return self.shift(1)

    def __and__(self, other: EventSet) -> EventSet:
        """Return the users who are in both sets: the intersection."""
        return self._combined("&", other)

    def __or__(self, other: EventSet) -> EventSet:
        """Return the users who are in any of the two sets: the union."""
        return self._combined("|", other)

    def __xor__(self, other: EventSet) -> EventSet:
        """Return the users who are in one of the two sets but not in both."""
        return self._combined("^", other)

    def __sub__(self, other: EventSet) -> EventSet:
        """Return the users who are in this set but not in the other: the difference."""
        return self._combined("-", other)

    def __invert__(self) -> NoReturn:
        """Raise: a set has no complement, since bitmaps have only the users who were marked."""
        raise InvalidTypeError(
            "an event set has no complement: who was never marked is not known. "
            "Say of whom they are the rest, as in `everybody - this`"
        )

    def __bool__(self) -> NoReturn:
        """Raise: whether a set is empty is known to the database only."""
        raise InvalidTypeError(
            "an event set is neither true nor false. Combine sets with & | ^ -, "
            "not with `and`, `or`, `not`; ask a tally's is_empty() whether there is anybody in it"
        )

    if not TYPE_CHECKING:  # type checkers report such uses, unless they see these methods

        def __iter__(self) -> NoReturn:
            """Raise: the users of a set are known to the database only."""
            raise InvalidTypeError(
                f"an event set does not hold its users; {_ASK}: users(event_set) yields them"
            )

        def __len__(self) -> NoReturn:
            """Raise: the number of users in a set is known to the database only."""
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
            """Raise: the users of a set are known to the database only."""
            raise InvalidTypeError(
                f"an event set does not hold its users; {_ASK}: users(event_set, start=, limit=) "
                "yields some of them"
            )

        __aiter__ = __reversed__ = __iter__

        def __rand__(self, other: object) -> NoReturn:
            """Raise: the other operand is no event set."""
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
    """The users of one bitmap: of an event in one period, or with an event's flag.

    Attributes:
        origin: the database and the prefix.
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
        """The bitmap's key in the database."""
        return bitmap_key(self.origin.prefix, self.event, self.period)

    def key_with_prefix(self, prefix: str) -> bytes:
        """Return the bitmap's key with another prefix, such as a shard's."""
        return bitmap_key(prefix, self.event, self.period)

    def __hash__(self) -> int:  # fast rather than complete: most bitmaps differ in these
        return hash((self.event, self.period and self.period.start))

    def _bounds(self) -> Bounds:
        return (None, None) if self.period is None else (self.period.start, self.period.end)

    def shift(self, count: int) -> Bitmap:
        """Return the bitmap of the period ``count`` units later; for a flag, itself."""
        checked_int("count", count)
        return self if self.period is None else replace(self, period=self.period.shift(count))

    def at(self, origin: Origin) -> Bitmap:
        """Return the bitmap of another origin."""
        return Bitmap(origin, self.event, self.period)

    def bitmaps(self) -> Iterator[Bitmap]:
        """Yield itself."""
        yield self

    def __repr__(self) -> str:
        if self.period is None:
            return f"unique({self.event!r})"
        return f"{self.period.granularity}({self.event!r}, {self.period})"


class Compound(EventSet):
    """An event set that others define.

    Operands may be shared: an expression is a graph, whose depth only memory limits.
    So all functions that traverse it visit each part once, and do not recurse.

    Attributes:
        origin: as in `EventSet`.
        operands: two or more event sets of the same origin.
        made_with: the argument of the class between the origin and the operands.
    """

    __slots__ = ()

    operands: tuple[EventSet, ...]
    made_with: Any
    _size: int
    _hash: int  # 0 until `__hash__` has computed it

    def folded(self, values: Iterable[Any], number: Callable[[Hashable], Any]) -> Any:
        """Return the value of this set from those of its operands.

        Arguments:
            values: the value of each operand.
            number: returns the value of a tuple of an operator and values.
        """
        raise NotImplementedError

    def pieces(self) -> Iterator[str | EventSet]:
        """Yield the operands with the text between them, for the ``repr``."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """How many parts the expression has if written out; 2**32 also for more."""
        return self._size

    def __hash__(self) -> int:
        if not self._hash:
            stack: list[Compound] = [self]
            while stack:
                part = stack[-1]
                missing = [
                    operand
                    for operand in part.operands
                    if isinstance(operand, Compound) and not operand._hash  # noqa: SLF001
                ]
                if missing:
                    stack += missing
                    continue
                object.__setattr__(part, "_hash", part.folded(map(hash, part.operands), hash) or 1)
                stack.pop()
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Compound):
            return NotImplemented
        return hash(self) == hash(other) and _are_equal(self, other)

    def __reduce__(self) -> tuple[Callable[..., EventSet], tuple[Any, ...]]:
        """Return a flat table of all parts, since pickle would recurse; see `_assembled`."""
        numbers: dict[int, int] = {}
        table: list[Any] = []
        for part in walk([self]):
            numbers[id(part)] = len(table)
            table.append(
                (
                    part.made_with if type(part) is Combination else (type(part), part.made_with),
                    *(numbers[id(operand)] for operand in part.operands),
                )
                if isinstance(part, Compound)
                else part
            )
        return _assembled, (table,)

    def _leaves(self) -> Iterator[EventSet]:
        return (part for part in walk([self]) if not isinstance(part, Compound))

    def _bounds(self) -> Bounds:
        leaves = list(self._leaves())
        starts = [start for leaf in leaves if (start := leaf.start) is not None]
        ends = [end for leaf in leaves if (end := leaf.end) is not None]
        return min(starts, default=None), max(ends, default=None)

    def shift(self, count: int) -> EventSet:
        """Return the same set of the operands, each shifted."""
        checked_int("count", count)
        return self._mapped(self.origin, lambda leaf: leaf.shift(count))

    def at(self, origin: Origin) -> EventSet:
        """Return the same set of another origin."""
        return self._mapped(origin, lambda leaf: leaf.at(origin))

    def bitmaps(self) -> Iterator[Bitmap]:
        """Yield the bitmaps of all operands."""
        return (bitmap for leaf in self._leaves() for bitmap in leaf.bitmaps())

    def _mapped(self, origin: Origin, replacement: Callable[[EventSet], EventSet]) -> EventSet:
        """Return the same set with each leaf replaced."""
        results: dict[int, EventSet] = {}
        for part in walk([self]):
            if isinstance(part, Compound):
                made: Any = type(part)
                operands = tuple([results[id(operand)] for operand in part.operands])
                results[id(part)] = made(origin, part.made_with, operands)
            else:
                results[id(part)] = replacement(part)
        return results[id(self)]

    def __repr__(self) -> str:
        """Return the expression as Python source; only the beginning of a long expression."""
        texts: list[str] = []
        length = 0
        stack: list[str | EventSet] = [self]
        while stack:
            part = stack.pop()
            if isinstance(part, Compound):
                # Each operand has a character at least, so the text is long enough.
                stack += reversed(list(itertools.islice(part.pieces(), 2 * _LONGEST_TEXT)))
                continue
            texts.append(part if isinstance(part, str) else repr(part))
            length += len(texts[-1])
            if length > _LONGEST_TEXT:
                return f"{''.join(texts)} …"
        return "".join(texts)


@immutable
@dataclass(frozen=True, repr=False, eq=False, slots=True)
class Combination(Compound):
    """Two or more event sets, combined from left to right.

    Attributes:
        origin, operands: as in `Compound`.
        operator: how the operands are combined.
    """

    origin: Origin
    operator: Operator
    operands: tuple[EventSet, ...]
    _size: int = field(init=False)
    _hash: int = field(init=False)

    def __post_init__(self) -> None:
        size = 1
        for operand in self.operands:
            size += operand.size
        object.__setattr__(self, "_size", min(size, MAX_SIZE))
        object.__setattr__(self, "_hash", 0)

    @property
    def made_with(self) -> Operator:
        """The operator."""
        return self.operator

    def folded(self, values: Iterable[Any], number: Callable[[Hashable], Any]) -> Any:
        """Return the value of this set from those of its operands."""
        result, *others = values
        for other in others:
            # Pairwise, since `a | b | c` equals `any_of([a, b, c])`.
            result = number((self.operator, result, other))
        return result

    def pieces(self) -> Iterator[str | EventSet]:
        """Yield the operands with the operators and parentheses between them."""
        for number, operand in enumerate(self.operands):
            if number:
                yield f" {self.operator} "
            chained = not isinstance(operand, Combination) or (
                operand.operator == self.operator and (operand.operator != "-" or not number)
            )
            yield from (operand,) if chained else ("(", operand, ")")


def walk(event_sets: Sequence[EventSet]) -> Iterator[EventSet]:
    """Yield all parts of some expressions, each object once, operands before combinations."""
    visited: set[int] = set()
    stack = list(reversed(event_sets))
    while stack:
        part = stack[-1]
        if id(part) not in visited:
            if isinstance(part, Compound):
                missing = [
                    operand for operand in reversed(part.operands) if id(operand) not in visited
                ]
                if missing:
                    stack += missing
                    continue
            visited.add(id(part))
            yield part
        stack.pop()


def _are_equal(*pair: Compound) -> bool:
    """Return whether two event sets are built alike.

    Equal parts get the same number, whichever of the two sets they belong to.
    """
    numbers: dict[int, int] = {}
    numbers_of_values: dict[object, int] = {}

    def number(value: object) -> int:
        return numbers_of_values.setdefault(value, len(numbers_of_values))

    for part in walk(pair):
        numbers[id(part)] = (
            part.folded([numbers[id(operand)] for operand in part.operands], number)
            if isinstance(part, Compound)
            else number(part)
        )
    return len({numbers[id(compound)] for compound in pair}) == 1


def _assembled(table: Sequence[Any]) -> EventSet:
    """Return the expression of a table of parts, which refer to earlier ones by number."""
    parts: list[EventSet] = []
    for row in table:
        if isinstance(row, EventSet):
            parts.append(row)
        else:
            head, *numbers = row
            made, argument = head if isinstance(head, tuple) else (Combination, head)
            operands = tuple([parts[number] for number in numbers])
            parts.append(made(operands[0].origin, argument, operands))
    return parts[-1]


def any_of(event_sets: Iterable[EventSet]) -> EventSet:
    """Return the users who are in any of one or more event sets: their union.

    Arguments:
        event_sets: one or more event sets of one database and prefix, in any iterable.

    Raises:
        InvalidTypeError: this is no iterable, or an item is no event set.
        InvalidValueError: there is no item, or the items are of different databases or
            prefixes.
    """
    return _chained("any_of", "|", event_sets)


def all_of(event_sets: Iterable[EventSet]) -> EventSet:
    """Return the users who are in all of one or more event sets: their intersection.

    Arguments:
        event_sets: one or more event sets of one database and prefix, in any iterable.

    Raises:
        InvalidTypeError: this is no iterable, or an item is no event set.
        InvalidValueError: there is no item, or the items are of different databases or
            prefixes.
    """
    return _chained("all_of", "&", event_sets)


def _chained(name: str, operator: Operator, event_sets: Iterable[EventSet]) -> EventSet:
    """Combine one or more event sets, without duplicates, which change no result."""
    items = iterated(f"{name} takes an iterable of event sets", event_sets)
    operands = tuple(dict.fromkeys(checked(item) for item in items))
    if not operands:
        raise InvalidValueError(f"{name} needs one event set or more")
    return operands[0] if len(operands) == 1 else _combination(operator, operands)


def _combination(operator: Operator, operands: tuple[EventSet, ...]) -> Combination:
    """Return the combination of two or more event sets, which must have the same origin."""
    check_origins(operands)
    return Combination(operands[0].origin, operator, operands)


def check_origins(operands: Sequence[EventSet]) -> None:
    """Raise if event sets have different origins."""
    first = operands[0]
    for operand in operands:
        if operand.origin != first.origin:
            raise InvalidValueError(
                f"{shown(first)} and {shown(operand)} are of different databases or prefixes, "
                "so no server can combine them"
            )


def _not_combined(other: object) -> InvalidTypeError:
    return InvalidTypeError(
        f"an event set is combined with event sets, not with {described(other)}{_remedy(other)}"
    )


def _remedy(candidate: object) -> str:
    if isinstance(candidate, str):
        return "; build one with the tally's day(), week(), month() or unique()"
    return ""


def checked(event_set: EventSet) -> EventSet:
    """Return an argument if it is an event set.

    Raises:
        InvalidTypeError: it is not.
    """
    if isinstance(event_set, EventSet):
        return event_set
    raise InvalidTypeError(f"not an event set: {shown(event_set)}{_remedy(event_set)}")
