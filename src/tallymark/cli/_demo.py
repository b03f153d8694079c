"""The command that fills a store with the sample app, and prints reports of it."""

import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter, validators

from .._core.urls import StoreUrl
from ._errors import UsageError
from ._invocation import Run, Whole
from ._writing import counted, grouped, write
from .sample import SampleApp

if TYPE_CHECKING:
    from .._reports.results import Report
    from ._store import StoreOptions

__all__ = ["demo"]

#: The store of a demo, if the command line names none. `TALLYMARK_URL` is for real events.
_STORE: Final = "memory://"

_STEPS: Final = ("signup", "project", "checkout", "subscribe")
_EVENTS: Final = ("open", *_STEPS, "comment", "upload", "invite", "cancel")

_NEXT: Final = """
To have the same in a database, and ask it more:
  export TALLYMARK_URL=redis://localhost:6379/0
  tallymark demo --url env:TALLYMARK_URL --prefix demo_
  tallymark count open --last 28 --prefix demo_
  tallymark funnel signup project subscribe --since {since} --prefix demo_
"""


def demo(
    *,
    users: Annotated[Whole, Parameter(validator=validators.Number(gte=1, lte=100_000))] = 2000,
    days: Annotated[Whole, Parameter(validator=validators.Number(gte=28, lte=730))] = 92,
    run: Run,
) -> None:
    """Fill a store with the events of an invented app, and print reports of it.

    Without --url, the store is in this process and ends with it. With --url, the
    prefix must have no events yet.

    For example:

      tallymark demo
      tallymark demo --html demo.html
      tallymark demo --url redis://localhost:6379/0 --prefix demo_

    Arguments:
        users: how many users the app has, up to 100,000.
        days: for how many days people use it, up to today: 28 to 730.
    """
    if run.output.form == "csv":
        raise UsageError("a demo has several tables, and CSV has one; there is --json")
    store = run.store if run.store.is_named else replace(run.store, url=StoreUrl(_STORE))
    with store.open() as tally:
        if not run.yes and (names := tally.event_names()):
            raise UsageError(
                f"there are events already, such as {names[0]!r}, and the demo would add others; "
                "choose another --prefix, or say --yes"
            )
        now = tally.backend.context.local(None)
        app = SampleApp(now.date() - timedelta(days=days - 1), days, users)
        began = time.monotonic()
        marks = _fill(tally, store, app, now)
        seconds = time.monotonic() - began
        memory = sum(sum(tally.memory(event).values()) for event in _EVENTS)
        reports = _reports(tally, app)
    if run.output.form == "table":
        write(
            f"An invented app with {counted(users, 'user')}, from {app.first} to {now.date()}:\n"
            f"{counted(marks, 'mark')} in {seconds:.1f} seconds, whose bitmaps take "
            f"{grouped(memory // 1000)} kB.\n"
        )
    run.output.reports(reports)
    if run.output.form == "table":
        write(_NEXT.format(since=app.first))


def _fill(tally: Any, store: "StoreOptions", app: SampleApp, now: datetime) -> int:
    """Mark what the users do up to now, and their flags; return how many marks that are."""
    marks = 0
    for moment, event, numbers in app.events():
        if moment <= now:
            ids = [store.numbered(number) for number in numbers]
            tally.mark_many(event, ids, now=moment, track_hourly=moment >= app.hourly)
            marks += len(ids)
    for flag, numbers in app.flags().items():
        tally.mark_unique_many(flag, [store.numbered(number) for number in numbers])
        marks += len(numbers)
    return marks


def _reports(tally: Any, app: SampleApp) -> "dict[str, Report]":
    """Return the reports under their headings."""
    weeks = min(8, app.days // 7 - 1)
    return {
        "Active users by week": tally.trend("open", by="week", periods=weeks),
        "Who comes back in the weeks after signing up": tally.retention(
            "signup", "open", by="week", periods=weeks, cohorts=weeks
        ),
        "New, returning and lost users by week": tally.lifecycle("open", by="week", periods=weeks),
        "From signing up to paying, within 14 days": tally.funnel(
            _STEPS, since=app.first, window=timedelta(days=14)
        ),
    }
