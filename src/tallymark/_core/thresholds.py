"""Event sets of users who are in several of some sets. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..errors import InvalidValueError
from .arguments import checked_int, immutable, iterated
from .events import MAX_SIZE, Compound, all_of, any_of, check_origins, checked
from .untrusted import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from .events import EventSet, Origin

__all__ = ["Threshold", "at_least"]

#: How many parts the expression has for each operand, besides those of the operand itself. The
#: adder of `tallymark._reading.adders` has five operations for each, with two operands each.
_PARTS: Final = 10


@immutable
@dataclass(frozen=True, repr=False, eq=False, slots=True)
class Threshold(Compound):
    """The users who are in some of several event sets: in at least so many, whichever.

    Attributes:
        origin, operands: as in `Compound`.
        threshold: in how many; from 1 to the number of operands. (`at_least` makes a threshold
            only if a plain union or intersection does not do.)
    """

    origin: Origin
    threshold: int
    operands: tuple[EventSet, ...]
    _size: int = field(init=False)
    _hash: int = field(init=False)

    def __post_init__(self) -> None:
        size = 1 + _PARTS * len(self.operands)
        for operand in self.operands:
            size += operand.size
        object.__setattr__(self, "_size", min(size, MAX_SIZE))
        object.__setattr__(self, "_hash", 0)

    @property
    def made_with(self) -> int:
        """The threshold."""
        return self.threshold

    def folded(self, values: Iterable[Any], number: Callable[[Hashable], Any]) -> Any:
        """Return the value of this set from those of its operands."""
        return number((self.threshold, *values))

    def pieces(self) -> Iterator[str | EventSet]:
        """Yield the operands with the text between them."""
        yield f"at_least({self.threshold}, ["
        for number, operand in enumerate(self.operands):
            if number:
                yield ", "
            yield operand
        yield "])"


def at_least(number: int, event_sets: Iterable[EventSet]) -> EventSet:
    """Return the users who are in at least so many of some event sets, whichever these are.

    ``at_least(20, [tally.day("active", day) for day in days])`` has the users who were active
    on 20 or more of some days. The result is combined, counted, listed and saved as any other
    event set. Computing it takes about five operations for each of the sets.

    In at least one of some sets is `any_of`, and in at least all of them `all_of`. Equal if built
    alike: with the same number, and equal sets in the same order.

    Arguments:
        number: in how many, from 1 to the number of sets.
        event_sets: one or more event sets. A set that is given twice counts twice.

    Raises:
        InvalidTypeError: ``number`` is no int, ``event_sets`` is no iterable, or an item is no
            event set.
        InvalidValueError: ``number`` is not in the range, there is no item, or the items are of
            different databases or prefixes.
    """
    number = checked_int("number", number)
    items = iterated("at_least takes an iterable of event sets", event_sets)
    operands = tuple([checked(item) for item in items])
    if not operands:
        raise InvalidValueError("at_least needs one event set or more")
    if not 1 <= number <= len(operands):
        raise InvalidValueError(
            f"number must be from 1 to {len(operands)}, the number of event sets, "
            f"got {shown(number)}"
        )
    if number == 1:
        return any_of(operands)
    if number == len(operands):
        return all_of(operands)
    check_origins(operands)
    return Threshold(operands[0].origin, number, operands)
