"""Event sets on the command line: names of events, combined as in Python.

The grammar, from the loosest operator to the tightest::

    union         intersection with |
    exclusive or  with ^
    intersection  with &
    difference    with -, between blanks, since names have hyphens
    set           NAME, NAME@PERIOD, an expression in parentheses, or
                  at_least(2, SET, SET, SET): the users in any two or more of the sets

A name is any text without blanks and ``& | ^ ( ) @ "``; other names are written in double
quotes, as are those with commas within ``at_least(...)``. A period is one of `_periods`
(``2026-01``, ``2026-W02``, ``today``), ``unique``, ``last28`` for days, ``last24h`` for hours, or
``START..END``. Names without a period have that of the command or the report.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from .._core.batches import parse_period
from .._core.periods import Granularity
from .._core.thresholds import at_least
from ._errors import UsageError, hidden, quoted
from ._periods import last_of, moment_of, period_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from .._core.events import EventSet
    from .._core.periods import Period

__all__ = ["AtLeast", "Expression", "Name"]

#: How many characters and parts an expression may have.
_LONGEST: Final = 10_000


def _token(special: str) -> re.Pattern[str]:
    """Return what a token is, where names have none of some characters."""
    return re.compile(
        r"(?P<blank>\s+)"
        r"|(?P<function>at_least\()\s*(?P<number>[0-9]{1,5})\s*,"
        rf"|(?P<operator>[{special}]|(?<!\S)-(?!\S)|(?<=\))-(?!\S)|(?<!\S)-(?=\())"
        rf'|(?:"(?P<quoted>[^"]*)"|(?P<plain>[^\s{special}@"]+))'
        rf'(?:@(?P<period>[^\s{special}@"]+))?'
    )


#: The tokens of an expression, and those within ``at_least(...)``, where a comma is none of a name.
_TOKEN: Final = _token("&|^()")
_ITEM: Final = _token("&|^(),")

_OPERATORS: Final[dict[str, tuple[int, Callable[[Any, Any], Any]]]] = {
    "|": (1, operator.or_),
    "^": (2, operator.xor),
    "&": (3, operator.and_),
    "-": (4, operator.sub),
}


@dataclass(frozen=True)
class AtLeast:
    """The users in some of several sets.

    Attributes:
        number: in how many sets.
        sets: how many sets there are.
    """

    number: int
    sets: int = 1


@dataclass(frozen=True)
class Name:
    """The users of an event.

    Attributes:
        event: the name of the event.
        period: the text behind ``@``; ``None`` without one.
    """

    event: str
    period: str | None = None


@dataclass(frozen=True)
class Expression:
    """An event set as it was written.

    Attributes:
        text: the text.
        postfix: its names and operators, each operator behind its operands.
    """

    text: str
    postfix: tuple[Name | AtLeast | str, ...]

    @classmethod
    def parse(cls, text: str) -> Expression:
        """Return the expression that a text stands for.

        Raises:
            UsageError: it is none; the message says where.
        """
        if len(text) > _LONGEST:
            raise UsageError(f"an event set has at most {_LONGEST:,} characters")
        output: list[Name | AtLeast | str] = []
        stack: list[AtLeast | str] = []
        operand_is_next = True
        for token, place in _tokens(text):
            if isinstance(token, Name | AtLeast) or token == "(":  # noqa: S105 - no secret
                if not operand_is_next:
                    raise _wrong(text, place, "an operator (& | ^, or - between blanks) is missing")
                if isinstance(token, Name):
                    output.append(token)
                    operand_is_next = False
                else:
                    stack.append(token)
                continue
            if operand_is_next:
                raise _wrong(text, place, "the name of an event is missing")
            output.extend(_popped(stack, _OPERATORS[token][0] if token in _OPERATORS else 0))
            if token == ")":  # noqa: S105
                output.extend(_closed(stack, text, place))
            elif token == ",":  # noqa: S105
                _count_set(stack, text, place)
                operand_is_next = True
            else:
                stack.append(token)
                operand_is_next = True
        if operand_is_next:
            raise _wrong(text, len(text), "the name of an event is missing")
        output.extend(_popped(stack, 0))
        if stack:
            raise _wrong(text, len(text), "there is no ) for a (")
        return cls(text, tuple(output))

    @property
    def event(self) -> str | None:
        """The name of the event, if the expression is a name without a period."""
        only = self.postfix[0]
        is_name = len(self.postfix) == 1 and isinstance(only, Name) and only.period is None
        return only.event if is_name and isinstance(only, Name) else None

    @property
    def has_all_periods(self) -> bool:
        """Whether all names have a period, so that none is left to the command."""
        return all(part.period is not None for part in self.postfix if isinstance(part, Name))

    def build(self, tally: Any, undated: Callable[[str], EventSet]) -> EventSet:
        """Return the event set.

        Arguments:
            tally: builds the event sets of names.
            undated: returns the event set of a name without a period.

        Raises:
            UsageError: there is no such period.
            InvalidTypeError, InvalidValueError: the name of an event is not allowed.
        """
        now = tally.backend.context.local(None)
        values: list[EventSet] = []
        for part in self.postfix:
            if isinstance(part, Name):
                if part.period is None:
                    values.append(undated(part.event))
                else:
                    values.append(_dated(tally, part.event, part.period, now))
            elif isinstance(part, AtLeast):
                sets = values[-part.sets :]
                del values[-part.sets :]
                values.append(at_least(part.number, sets))
            else:
                right = values.pop()
                values.append(_OPERATORS[part][1](values.pop(), right))
        return values.pop()

    def selector(self, tally: Any) -> str | Callable[[Period], EventSet]:
        """Return what reports take: the name of an event, or a function of a period.

        Raises as `build`.
        """
        if self.event is not None:
            return self.event
        self.build(tally, tally.unique)  # raises now

        def select(period: Period) -> EventSet:
            return self.build(tally, lambda event: tally.during(event, period))

        select.__name__ = self.text
        return select

    def segment(self, tally: Any) -> EventSet | Callable[[Period], EventSet]:
        """Return a segment of a report: an event set, or a function of a period.

        Raises as `build`.
        """
        if self.has_all_periods:
            return self.build(tally, tally.unique)

        def select(period: Period) -> EventSet:
            return self.build(tally, lambda event: tally.during(event, period))

        self.build(tally, tally.unique)  # raises now
        return select


def _popped(stack: list[AtLeast | str], strength: int) -> Iterator[str]:
    """Yield and remove the last operators of this strength or more, up to a parenthesis."""
    while stack:
        last = stack[-1]
        if isinstance(last, AtLeast) or last == "(" or _OPERATORS[last][0] < strength:
            return
        stack.pop()
        yield last


def _closed(stack: list[AtLeast | str], text: str, place: int) -> Iterator[AtLeast]:
    """Remove the parenthesis at the end of the stack; yield what has it, if it is a function."""
    if not stack:
        raise _wrong(text, place, "there is no ( for this )")
    opened = stack.pop()
    if isinstance(opened, AtLeast):
        if not 1 <= opened.number <= opened.sets:
            raise _wrong(text, place, f"at_least takes a number from 1 to {opened.sets} here")
        yield opened


def _count_set(stack: list[AtLeast | str], text: str, place: int) -> None:
    """Count a further set of the function whose parenthesis is at the end of the stack."""
    function = stack.pop() if stack else ""
    if not isinstance(function, AtLeast):
        raise _wrong(text, place, "a comma stands between the sets of at_least(...)")
    stack.append(replace(function, sets=function.sets + 1))


def _tokens(text: str) -> Iterator[tuple[Name | AtLeast | str, int]]:
    """Yield the names, operators and parentheses of a text, each with its place."""
    place = 0
    depth = 0  # how many parentheses are open, from that of the outermost at_least on
    while place < len(text):
        match = (_ITEM if depth else _TOKEN).match(text, place)
        if match is None:
            raise _wrong(text, place, 'this is no name; write other names in quotes: "a name"')
        if match["function"] is not None:
            depth += 1
            yield AtLeast(int(match["number"])), place
        elif match["operator"] is not None:
            if depth:
                depth += {"(": 1, ")": -1}.get(match["operator"], 0)
            yield match["operator"], place
        elif match["blank"] is None:
            event = match["plain"] if match["quoted"] is None else match["quoted"]
            yield Name(event, match["period"]), place
        place = match.end()


def _dated(tally: Any, event: str, period: str, now: datetime) -> EventSet:
    """Return the users of an event in the period behind ``@``."""
    event_set: EventSet
    last = last_of(tally, event, period.removeprefix("last")) if period[:4] == "last" else None
    start, dots, end = period.partition("..")
    if period == "unique":
        event_set = tally.unique(event)
    elif last is not None:
        event_set = last
    elif dots:
        since, until = (moment_of("a range", text, now) for text in (start, end))
        event_set = tally.between(event, since, until)
    elif period in {"today", "yesterday"}:
        event_set = tally.during(event, period_of(Granularity.DAY, period, now))
    else:
        found = parse_period(period)
        if found is None:
            raise UsageError(
                f"@{hidden(period[:80])} is no period; periods are 2026, 2026-01, 2026-W02, "
                "2026-01-05, 2026-01-05T13, today, yesterday, unique, last28, last24h, "
                "2026-01-01..2026-01-15"
            )
        event_set = tally.during(event, found)
    return event_set


def _wrong(text: str, place: int, what: str) -> UsageError:
    return UsageError(f"the event set {quoted(text, 200)}, character {place + 1}: {what}")
