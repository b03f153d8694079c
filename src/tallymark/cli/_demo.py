"""The command that fills a store with the sample app, and prints reports of it."""

import time
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from cyclopts import Parameter, validators

from .._charts.page import document
from .._reports.results import Report
from ._errors import UsageError, warn
from ._invocation import Run
from ._output import grouped, save, write
from .sample import SampleApp

__all__ = ["demo"]

#: The store of the demo, if the command line names none. `TALLYMARK_URL` is for real events.
_STORE: Final = "memory://"

_STEPS: Final = ("signup", "project", "invite", "checkout", "subscribe")
_EVENTS: Final = ("open", *_STEPS, "comment", "upload", "cancel")

_NEXT: Final = """
Fill a database of yours, and ask it questions:
  tallymark demo --url redis://localhost:6379/0 --prefix demo_
  tallymark count open --last 28 --prefix demo_
  tallymark retention signup open --prefix demo_
"""


def demo(
    *,
    users: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=100_000))] = 2000,
    days: Annotated[int, Parameter(validator=validators.Number(gte=28, lte=730))] = 92,
    run: Run,
) -> None:
    """Fill a store with the events of an invented app, and print reports of it.

    Without --url, the store is in this process, and ends with it. With --url,
    the prefix must have no events yet, since the demo adds some.

    For example:

      tallymark demo
      tallymark demo --html demo.html
      tallymark demo --url redis://localhost:6379/0 --prefix demo_

    Arguments:
        users: how many users the app has, up to 100,000.
        days: for how many days it has been there: 28 to 730.
    """
    if run.output.form == "csv":
        raise UsageError("a demo is several tables, which CSV does not have; there is --json")
    store = run.store if run.store.is_given else run.store.at(_STORE)
    if store.user_ids not in {None, "int", "str"}:
        raise UsageError("the users of the demo are numbered: --user-ids int or str, or none")
    with store.open() as tally:
        if run.store.is_given and not run.yes and (names := tally.event_names()):
            raise UsageError(
                f"the prefix {tally.prefix} has events already, such as {names[0]!r}, and the demo "
                "would add more; choose another --prefix, or --yes"
            )
        now = tally.backend.context.local(None)
        app = SampleApp(now.date() - timedelta(days=days - 1), days, users)
        began = time.monotonic()
        marks = _fill(tally, app, now, store.user_id)
        seconds = time.monotonic() - began
        reports = _reports(tally, app)
        memory = sum(sum(tally.memory(event).values()) for event in _EVENTS)
    if run.output.html is not None:
        fragments = [report.to_html(fragment=True) for report in reports.values()]
        save(run.output.html, document("An invented app", fragments))
    if not run.output.for_people:
        run.output.table(
            ({"report": name, "rows": report.to_rows()} for name, report in reports.items()), ""
        )
        return
    write(
        f"An invented app with {grouped(users)} users, from {app.first} to {now.date()}.\n"
        f"{grouped(marks)} marks in {seconds:.1f} s; their bitmaps take {grouped(memory)} bytes.\n"
    )
    for name, report in reports.items():
        write(f"\n{name}\n\n")
        run.output.people(report)
    write(_NEXT)


def _fill(tally: Any, app: SampleApp, now: datetime, user_id: Any) -> int:
    """Mark the events of the app up to now; return how many there are."""
    marks = 0
    for moment, event, numbers in app.events():
        if moment <= now:
            ids = [user_id(str(number)) for number in numbers]
            tally.mark_many(event, ids, now=moment, track_hourly=moment >= app.hourly)
            marks += len(ids)
    for flag, numbers in app.flags().items():
        tally.mark_unique_many(flag, [user_id(str(number)) for number in numbers])
    return marks


def _reports(tally: Any, app: SampleApp) -> dict[str, Report]:
    """Return the reports, with their headings."""
    weeks = min(8, app.days // 7 - 1)
    since = app.end - timedelta(days=min(app.days, 60))
    return {
        "Active users by week": tally.trend("open", by="week", periods=weeks),
        "Retention of those who signed up, by week": tally.retention(
            "signup", "open", by="week", periods=weeks, cohorts=weeks
        ),
        "New, returning and lost users": tally.lifecycle("open", by="week", periods=weeks),
        "From signing up to paying, within 14 days": tally.funnel(
            _STEPS, since=since, window=timedelta(days=14)
        ),
        "How often users came in 28 days": tally.days_active("open", days=28),
    }
