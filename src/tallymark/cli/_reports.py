"""The commands that make reports."""

import re
from datetime import date
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter

from .._core.calendars import calendar
from ._errors import UsageError, quoted
from ._expressions import Expression
from ._invocation import Run, Whole
from ._periods import duration_of, moment_of

__all__ = [
    "days_active",
    "funnel",
    "lifecycle",
    "retention",
    "stickiness",
    "streak",
    "streaks",
    "trend",
]

_NAMES: Final = ("hour", "day", "week", "month", "year")

_LENGTH: Final = Parameter(help="hour, day, week, month, year; or 14d with --anchor")
_By = Annotated[str, _LENGTH]
_Anchor = Annotated[str | None, Parameter(help="with --by 14d: the day when a period begins")]
_Until = Annotated[str | None, Parameter(help="the moment of the report (default: now)")]
_Labels = Annotated[
    list[str] | None, Parameter(name="--label", help="EVENT=TEXT: its readable name in the page")
]
_Segments = Annotated[
    list[str] | None, Parameter(name="--segment", help="NAME=SET: also for the users in a set")
]


def retention(
    cohort: str,
    activity: str,
    /,
    *,
    by: _By = "week",
    anchor: _Anchor = None,
    periods: Whole | None = None,
    cohorts: Whole | None = None,
    brackets: str | None = None,
    mode: Literal["classic", "unbounded"] = "classic",
    first_time: bool = False,
    segment: _Segments = None,
    until: _Until = None,
    label: _Labels = None,
    run: Run,
) -> None:
    """Print how many users of each cohort come back later.

    For example:

      tallymark retention signup active --brackets 1,3,7 --segment ios=ios@unique

    Arguments:
        cohort: the event, or set, of the cohorts
        activity: the event, or set, of active users
        periods: how many later periods; 12 by default
        cohorts: how many cohorts; as many as periods by default
        brackets: the last period of each bracket: 1,3,7,14
        mode: classic: in exactly a period; unbounded: or later
        first_time: only users without the cohort's event before
    """
    with run.tally() as tally:
        report = tally.retention(
            Expression.parse(cohort).selector(tally),
            Expression.parse(activity).selector(tally),
            by=_by(by, anchor),
            anchor=_moment(tally, "--anchor", anchor),
            periods=periods,
            cohorts=cohorts,
            brackets=None if brackets is None else _numbers("--brackets", brackets),
            mode=mode,
            first_time=first_time,
            segments=_segments(tally, segment),
            until=_moment(tally, "--until", until),
            labels=_pairs("--label", label),
        )
    run.output.report(report)


def funnel(
    *step: str,
    since: str | None = None,
    until: str | None = None,
    window: str | None = None,
    resolution: Literal["day", "hour"] | None = None,
    segment: _Segments = None,
    by: Annotated[str | None, _LENGTH] = None,
    anchor: _Anchor = None,
    at: str | None = None,
    label: _Labels = None,
    run: Run,
) -> None:
    """Print how many users take several steps: with --since in order, else within a period.

    For example:

      tallymark funnel signup active order --since 2026-01-01 --window 7d
      tallymark funnel signup order --by month --at 2026-01-01

    Arguments:
        step: two events or more, or sets
        since: in order: users enter from this moment on
        until: in order: users enter before this moment
        window: in order: time for all steps, as in 12h (default: 7d)
        resolution: in order: tell days or hours apart
        at: within a period: a moment of it (default: now)
    """
    if since is not None and not by is at is anchor is None:
        raise UsageError("--since is in order, and --by, --anchor and --at within a period")
    if since is None and not until is window is resolution is None:
        raise UsageError("--until, --window and --resolution need --since")
    steps = [Expression.parse(text) for text in step]
    with run.tally() as tally:
        now = tally.backend.context.local(None)
        labels = _pairs("--label", label) or {}
        moment = _moment(tally, "--at", at)
        selected: list[Any] = [each.selector(tally) for each in steps]
        length = None if by is None else _by(by, anchor)
        first = _moment(tally, "--anchor", anchor)
        if since is None and not all(isinstance(each, str) for each in selected):
            context = tally.backend.context
            spans = calendar(
                "week" if length is None else length,
                None if first is None else context.local(first),
            )
            period = spans.containing(now if moment is None else context.local(moment))
            selected = [each if isinstance(each, str) else each(period) for each in selected]
            labels = {repr(each): text for each, text in zip(selected, step, strict=True)} | labels
        report = tally.funnel(
            selected,
            since=_moment(tally, "--since", since),
            until=_moment(tally, "--until", until),
            window=None if window is None else duration_of("--window", window),
            resolution=resolution,
            segments=_segments(tally, segment),
            by=length,
            anchor=first,
            moment=moment,
            labels=labels,
        )
    run.output.report(report)


def trend(
    *what: str,
    by: _By = "day",
    anchor: _Anchor = None,
    periods: Whole = 30,
    rolling: Whole = 28,
    until: _Until = None,
    label: _Labels = None,
    run: Run,
) -> None:
    """Print the active users of each period, rolling actives, and stickiness.

    For example:

      tallymark trend active --by day --periods 14
      tallymark trend active order --by week --rolling 0

    Arguments:
        what: events, or sets
        periods: how many periods
        rolling: how many days rolling actives have; 0 for none
    """
    with run.tally() as tally:
        report = tally.trend(
            {text: Expression.parse(text).selector(tally) for text in what},
            by=_by(by, anchor),
            anchor=_moment(tally, "--anchor", anchor),
            periods=periods,
            rolling=rolling or None,
            until=_moment(tally, "--until", until),
            labels=_pairs("--label", label),
        )
    run.output.report(report)


def stickiness(event: str, /, *, day: str | None = None, label: _Labels = None, run: Run) -> None:
    """Print the active users of a day and of 28 days, and the share: DAU, MAU, DAU/MAU.

    For example:

      tallymark stickiness active --day 2026-01-31

    Arguments:
        event: the event of active users
        day: the day; yesterday by default
    """
    name = _event(event)
    with run.tally() as tally:
        moment = _moment(tally, "--day", day)
        report = tally.stickiness(name, moment, labels=_pairs("--label", label))
    run.output.report(report)


def lifecycle(
    activity: str,
    /,
    *,
    by: _By = "week",
    anchor: _Anchor = None,
    periods: Whole = 12,
    until: _Until = None,
    label: _Labels = None,
    run: Run,
) -> None:
    """Print how many users of each period are new, returning, resurrected or dormant.

    For example:

      tallymark lifecycle active --by month --periods 6

    Arguments:
        activity: the event, or set, of active users
        periods: how many periods
    """
    with run.tally() as tally:
        report = tally.lifecycle(
            Expression.parse(activity).selector(tally),
            by=_by(by, anchor),
            anchor=_moment(tally, "--anchor", anchor),
            periods=periods,
            until=_moment(tally, "--until", until),
            labels=_pairs("--label", label),
        )
    run.output.report(report)


def days_active(
    activity: str,
    /,
    *,
    days: Whole = 28,
    until: _Until = None,
    label: _Labels = None,
    run: Run,
) -> None:
    """Print users by on how many of the last days they were active.

    For example:

      tallymark days-active active --days 28

    Arguments:
        activity: the event, or set, of active users
        days: how many days
    """
    with run.tally() as tally:
        report = tally.days_active(
            Expression.parse(activity).selector(tally),
            days=days,
            until=_moment(tally, "--until", until),
            labels=_pairs("--label", label),
        )
    run.output.report(report)


def streak(
    event: str, user_id: str, /, *, until: _Until = None, label: _Labels = None, run: Run
) -> None:
    """Print how many days in a row a user was active: now, and at most.

    For example:

      tallymark streak active 123

    Arguments:
        event: the event of active users
        user_id: the user
    """
    name, user = _event(event), run.store.user_id(user_id)
    with run.tally() as tally:
        moment = _moment(tally, "--until", until)
        report = tally.streak(name, user, until=moment, labels=_pairs("--label", label))
    run.output.report(report)


def streaks(
    event: str,
    /,
    *,
    days: Whole = 60,
    until: _Until = None,
    label: _Labels = None,
    run: Run,
) -> None:
    """Print users by the length of their current run of days.

    For example:

      tallymark streaks active --days 30

    Arguments:
        event: the event of active users
        days: from how many days on runs are counted together
    """
    name = _event(event)
    with run.tally() as tally:
        report = tally.streaks(
            name,
            days=days,
            until=_moment(tally, "--until", until),
            labels=_pairs("--label", label),
        )
    run.output.report(report)


def _event(text: str) -> str:
    """Return the name of an event, which is written as in an expression.

    Raises:
        UsageError: it is an expression.
    """
    event = Expression.parse(text).event
    if event is None:
        raise UsageError(
            f"this report takes the name of an event, and no expression, got {quoted(text)} "
            "(a name with blanks or & | ^ ( ) @ is written in double quotes)"
        )
    return event


def _moment(tally: Any, option: str, text: str | None) -> date | None:
    return None if text is None else moment_of(option, text, tally.backend.context.local(None))


def _by(text: str, anchor: str | None) -> Any:
    """Return the length of a period: the name of a granularity, or a timedelta."""
    if text in _NAMES:
        return text
    try:
        length = duration_of("--by", text)
    except UsageError:
        raise UsageError(
            f"--by takes {', '.join(_NAMES)}, or so many days as in 14d, got {quoted(text)}"
        ) from None
    if anchor is None:
        raise UsageError(f"--by {text} needs --anchor: a date on which one of the periods begins")
    return length


def _numbers(option: str, text: str) -> list[int]:
    if re.fullmatch(r"\d{1,6}(,\d{1,6})*", text, re.ASCII) is None:
        raise UsageError(f"{option} takes numbers with commas as in 1,3,7, got {quoted(text)}")
    return [int(number) for number in text.split(",")]


def _pairs(option: str, texts: list[str] | None) -> dict[str, str] | None:
    """Return ``NAME=TEXT`` arguments as a dict."""
    pairs = [text.partition("=") for text in texts or ()]
    for name, sign, value in pairs:
        if not (name and sign and value):
            raise UsageError(f"{option} takes NAME=TEXT, got {quoted(name + sign)}")
    return {name: value for name, _, value in pairs} or None


def _segments(tally: Any, texts: list[str] | None) -> dict[str, Any] | None:
    pairs = _pairs("--segment", texts)
    if pairs is None:
        return None
    return {name: Expression.parse(text).segment(tally) for name, text in pairs.items()}
