"""Event sets on the command line: names of events, combined as in Python.

The grammar, from the loosest operator to the tightest::

    union         intersection with |
    exclusive or  with ^
    intersection  with &
    difference    with -, between blanks, since names have hyphens
    set           NAME, NAME@PERIOD, or an expression in parentheses

A name is any text without blanks and ``& | ^ ( ) @ "``; other names are written in double
quotes. A period is one of `_periods` (``2026-01``, ``2026-W02``, ``today``), ``unique``, ``lastN``
for N days, or ``START..END``. Names without a period have that of the command or the report.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .._core.batches import parse_period
from .._core.periods import Granularity
from ._errors import UsageError
from ._periods import moment_of, period_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from .._core.events import EventSet
    from .._core.periods import Period

__all__ = ["Expression", "Name"]

#: How many characters and parts an expression may have.
_LONGEST: Final = 10_000

_TOKEN: Final = re.compile(
    r"(?P<blank>\s+)"
    r"|(?P<operator>[&|^()]|(?<!\S)-(?!\S)|(?<=\))-(?!\S)|(?<!\S)-(?=\())"
    r'|(?:"(?P<quoted>[^"]*)"|(?P<plain>[^\s&|^()@"]+))(?:@(?P<period>[^\s&|^()@"]+))?'
)

_OPERATORS: Final[dict[str, tuple[int, Callable[[Any, Any], Any]]]] = {
    "|": (1, operator.or_),
    "^": (2, operator.xor),
    "&": (3, operator.and_),
    "-": (4, operator.sub),
}

_LAST: Final = re.compile(r"last(\d{1,5})", re.ASCII)


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
    postfix: tuple[Name | str, ...]

    @classmethod
    def parse(cls, text: str) -> Expression:
        """Return the expression that a text stands for.

        Raises:
            UsageError: it is none; the message says where.
        """
        if len(text) > _LONGEST:
            raise UsageError(f"an event set has at most {_LONGEST:,} characters")
        output: list[Name | str] = []
        stack: list[str] = []
        operand_is_next = True
        for token, place in _tokens(text):
            if isinstance(token, Name) or token == "(":  # noqa: S105 - no secret
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
            if token == ")":  # noqa: S105
                output.extend(_popped(stack, 0))
                if not stack:
                    raise _wrong(text, place, "there is no ( for this )")
                stack.pop()
                continue
            output.extend(_popped(stack, _OPERATORS[token][0]))
            stack.append(token)
            operand_is_next = True
        if operand_is_next:
            raise _wrong(text, len(text), "the name of an event is missing")
        if "(" in stack:
            raise _wrong(text, len(text), "there is no ) for a (")
        output.extend(reversed(stack))
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


def _popped(stack: list[str], strength: int) -> Iterator[str]:
    """Yield and remove the last operators of this strength or more, up to a parenthesis."""
    while stack and stack[-1] != "(" and _OPERATORS[stack[-1]][0] >= strength:
        yield stack.pop()


def _tokens(text: str) -> Iterator[tuple[Name | str, int]]:
    """Yield the names, operators and parentheses of a text, each with its place."""
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise _wrong(text, place, 'this is no name; write other names in quotes: "a name"')
        if match["operator"] is not None:
            yield match["operator"], place
        elif match["blank"] is None:
            event = match["plain"] if match["quoted"] is None else match["quoted"]
            yield Name(event, match["period"]), place
        place = match.end()


def _dated(tally: Any, event: str, period: str, now: datetime) -> EventSet:
    """Return the users of an event in the period behind ``@``."""
    event_set: EventSet
    last = _LAST.fullmatch(period)
    start, dots, end = period.partition("..")
    if period == "unique":
        event_set = tally.unique(event)
    elif last is not None:
        event_set = tally.last(event, int(last[1]))
    elif dots:
        since, until = (moment_of("a range", text, now) for text in (start, end))
        event_set = tally.between(event, since, until)
    elif period in {"today", "yesterday"}:
        event_set = tally.during(event, period_of(Granularity.DAY, period, now))
    else:
        found = parse_period(period)
        if found is None:
            raise UsageError(
                f"@{period[:80]} is no period; periods are 2026, 2026-01, 2026-W02, 2026-01-05, "
                "2026-01-05T13, today, yesterday, unique, last28, 2026-01-01..2026-01-15"
            )
        event_set = tally.during(event, found)
    return event_set


def _wrong(text: str, place: int, what: str) -> UsageError:
    return UsageError(f"the event set {text[:200]!r}, character {place + 1}: {what}")
