"""The period of a command: ``--day``, ``--week``, ``--month``, ``--last`` and so on.

Periods are written as in ISO 8601: 2026, 2026-01, 2026-W02, 2026-01-05, 2026-01-05T13. Moments
are a date, or a date and a time, with or without an offset from UTC.
"""

import re
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Final

from cyclopts import Group, Parameter

from .._core.batches import ORDER, parse_period
from .._core.events import EventSet
from .._core.periods import Granularity, Period, dated
from ._commands import PERIOD
from ._errors import UsageError, quoted

__all__ = [
    "TODAY",
    "PeriodOptions",
    "duration_of",
    "last_of",
    "lifetimes_of",
    "moment_of",
    "period_of",
]

#: How many periods before the present one the words mean.
_WORDS: Final = {"this": 0, "last": 1}
_DAYS: Final = {"today": 0, "yesterday": 1}

_MOMENT: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d{3}(?:\d{3})?)?)?)(Z|[+-]\d\d:\d\d)?)?"
)

#: What messages have as an example.
_EXAMPLE: Final = datetime(2026, 1, 5, 13)

_UNITS: Final = {"d": timedelta(days=1), "h": timedelta(hours=1)}

_PERIOD: Final = Group(PERIOD, sort_key=2)

_LAST: Final = re.compile(r"(\d{1,5})([dh]?)", re.ASCII)


def period_of(granularity: Granularity, text: str, now: datetime) -> Period:
    """Return the period of a granularity that an option names.

    Arguments:
        granularity: a dated one.
        text: the period in the notation of ISO 8601; ``this`` or ``last``; for days also
            ``today`` and ``yesterday``.
        now: the present, naive, in the tally's time zone.

    Raises:
        UsageError: there is no such period.
    """
    words = {**_WORDS, **_DAYS} if granularity is Granularity.DAY else _WORDS
    if text in words:
        return Period.containing(granularity, now).shift(-words[text])
    period = parse_period(text)
    if period is not None and period.granularity is granularity:
        return period
    example = Period.containing(granularity, _EXAMPLE)
    raise UsageError(
        f"--{granularity} takes a {granularity} such as {example}, or {', '.join(words)}; "
        f"got {quoted(text)}"
    )


def moment_of(option: str, text: str, now: datetime) -> date:
    """Return the moment that an option names: a date, or a datetime, naive or with an offset.

    Arguments:
        option: the name of the option, for messages.
        text: a date or a date and a time, as in ISO 8601; ``now``, ``today`` or ``yesterday``.
        now: the present, naive, in the tally's time zone.

    Raises:
        UsageError: there is no such moment.
    """
    if text == "now":
        return now
    if text in _DAYS:
        return now.date() - timedelta(days=_DAYS[text])
    match = _MOMENT.fullmatch(text)
    if match is not None and text.isascii():
        day, clock, offset = match.groups()
        try:
            if clock is None:
                return date.fromisoformat(day)
            return datetime.fromisoformat(f"{day}T{clock}{(offset or '').replace('Z', '+00:00')}")
        except ValueError:
            pass
    raise UsageError(
        f"{option} takes a date or a moment such as 2026-01-05, 2026-01-05T13:07 or "
        f"2026-01-05T13:07+01:00, or now, today, yesterday; got {quoted(text)}"
    )


def last_of(tally: Any, event: str, text: str) -> EventSet | None:
    """Return the users of an event on the last days or in the last hours.

    Arguments:
        tally: builds the event set.
        event: the name of the event.
        text: ``28`` or ``28d`` for days, ``24h`` for hours, the present one included.

    Returns:
        The event set; ``None`` if the text is neither.
    """
    match = _LAST.fullmatch(text)
    if match is None:
        return None
    method = tally.last_hours if match[2] == "h" else tally.last
    return method(event, int(match[1]))  # type: ignore[no-any-return]


def duration_of(option: str, text: str) -> timedelta:
    """Return a duration such as ``7d`` or ``12h``.

    Raises:
        UsageError: it is none.
    """
    match = re.fullmatch(r"([1-9]\d{0,4})([dh])", text, re.ASCII)
    if match is None:
        raise UsageError(f"{option} takes days or hours as in 7d or 12h, got {quoted(text)}")
    return int(match[1]) * _UNITS[match[2]]


def lifetimes_of(texts: list[str]) -> dict[str, timedelta]:
    """Return the option ``expire`` of a tally: durations by the names of granularities.

    Arguments:
        texts: such as ``day=400d``.

    Raises:
        UsageError: one of them is not of this form, or names no granularity.
    """
    lifetimes: dict[str, timedelta] = {}
    names = [str(granularity) for granularity in ORDER[:-1]]
    for text in texts:
        name, _, duration = text.partition("=")
        if name not in names:
            raise UsageError(
                f"--expire takes {', '.join(names)} with a duration, as in day=400d; "
                f"got {quoted(text)}"
            )
        if name in lifetimes:
            raise UsageError(f"--expire has two durations for {name}")
        lifetimes[name] = duration_of(f"--expire {name}=", duration)
    return lifetimes


def _option(text: str) -> Any:
    return Parameter(help=text, group=_PERIOD)


@Parameter(name="*")
@dataclass(frozen=True)
class PeriodOptions:
    """The options for the period of an event; at most one of them, or the pair of a range.

    Raises:
        UsageError: there are several periods.
    """

    hour: Annotated[str | None, _option("2026-01-05T13")] = None
    day: Annotated[str | None, _option("2026-01-05 or yesterday")] = None
    week: Annotated[str | None, _option("2026-W02 or last")] = None
    month: Annotated[str | None, _option("2026-01 or this")] = None
    year: Annotated[str | None, _option("2026")] = None
    unique: Annotated[bool, _option("(the flag)")] = False
    last: Annotated[str | None, _option("28 (days) or 24h")] = None
    since: Annotated[str | None, _option("2026-01-05")] = None
    until: Annotated[str | None, _option("2026-01-12")] = None

    def __post_init__(self) -> None:
        names = [item.name for item in fields(self) if getattr(self, item.name) != item.default]
        given = [f"--{name}" for name in names]
        if self.until is not None and self.since is None:
            raise UsageError("--until needs --since")
        if len(set(given) - {"--until"}) > 1:
            raise UsageError(f"{' and '.join(given)} are several periods; one is possible")

    def select(self, tally: Any, event: str) -> EventSet:
        """Return the users of an event in the period.

        Raises:
            UsageError: an option names no period.
            InvalidValueError: the name of the event is not allowed.
        """
        now = tally.backend.context.local(None)
        event_set: EventSet
        if self.unique:
            event_set = tally.unique(event)
        elif self.last is not None:
            found = last_of(tally, event, self.last)
            if found is None:
                raise UsageError(f"--last takes days as in 28, or 24h, got {quoted(self.last)}")
            event_set = found
        elif self.since is not None:
            end = now if self.until is None else moment_of("--until", self.until, now)
            event_set = tally.between(event, moment_of("--since", self.since, now), end)
        else:
            for name in ("hour", "day", "week", "month", "year"):
                text = getattr(self, name)
                if text is not None:
                    return tally.during(event, period_of(dated(name), text, now))  # type: ignore[no-any-return]
            event_set = tally.day(event)
        return event_set


#: The period of a command without any of the options.
TODAY: Final = PeriodOptions()
