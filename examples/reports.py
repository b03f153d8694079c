"""Write a page for each kind of report, about the app that make_product_events.py invents.

    python examples/reports.py PAGES

writes lifecycle.html, days-active.html, funnel.html, trend.html and streaks.html into the folder
PAGES. Runs without a server, on a store inside this process.
"""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from make_product_events import APP

from tallymark import Report, Tally

LABELS = {"open": "Opened the app", "signup": "Signed up", "project": "Created a project"}


async def fill(tally: Tally) -> None:
    """Mark all events and flags of the app."""
    for moment, event, numbers in APP.events():
        await tally.mark_many(event, numbers, now=moment)
    for flag, numbers in APP.flags().items():
        await tally.mark_unique_many(flag, numbers)


async def reports(tally: Tally) -> dict[str, Report]:
    """Return a report of each kind, as of the day after the events."""
    platforms = {
        "iOS": tally.unique("ios"),
        "Android": tally.unique("android"),
        "Web": tally.unique("web"),
    }
    return {
        "lifecycle": await tally.lifecycle("open", periods=12, until=APP.end, labels=LABELS),
        "days-active": await tally.days_active("open", days=28, until=APP.end, labels=LABELS),
        "funnel": await tally.funnel(
            ["signup", "project", "invite", "checkout", "subscribe"],
            since=APP.end - timedelta(days=60),
            until=APP.end - timedelta(days=30),
            window=timedelta(days=30),
            segments=platforms,
            labels=LABELS,
        ),
        "trend": await tally.trend("open", periods=90, until=APP.end, labels=LABELS),
        "streaks": await tally.streaks("open", days=14, until=APP.end, labels=LABELS),
    }


async def main(folder: Path) -> None:
    """Fill a store in this process, and write a page for each report."""
    async with Tally.from_url("memory://") as tally:
        await fill(tally)
        for name, report in (await reports(tally)).items():
            page = folder / f"{name}.html"
            page.write_text(report.to_html(), encoding="utf-8")
            print(page)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    folder.mkdir(exist_ok=True)
    asyncio.run(main(folder))
