"""The reports of product analytics, of tallymark and of DuckDB on the same marks: their time.

Ten million users by default: each signs up once, a tenth is active each day, and some fill a cart
and buy. DuckDB's table holds one row for each mark, in the order of the days, and each row occurs
once, so its queries may count rows in place of different users wherever that is enough.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import tempfile
import time
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from contest import median_ratio
from duck import compare

from tallymark import SyncTally, at_least

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Report = dict[Any, int]

#: Twelve complete weeks, the week before them, and the days of the present week.
DAYS = 97
#: The share of the users who are marked on each day; signups are spread over the days.
SHARES = {"active": 0.1, "cart": 0.05, "buy": 0.03}
FLAGS = {"ios": 0.4, "android": 0.3, "web": 0.2, "de": 0.1, "us": 0.3}
WINDOW = timedelta(days=7)

TABLES = """
CREATE TYPE event AS ENUM ('signup', 'active', 'cart', 'buy');
CREATE TYPE flag AS ENUM ('ios', 'android', 'web', 'de', 'us');
CREATE TABLE marks (day DATE, event event, user_id UINTEGER);
CREATE TABLE flags (flag flag, user_id UINTEGER);
"""

#: The queries, by report. $end is the day of the report.
QUERIES = {
    "retention": """
SELECT NULL, c.day, a.day - c.day, count(*) FROM marks AS c JOIN marks AS a USING (user_id)
WHERE c.event = 'signup' AND a.event = 'active' AND c.day >= $end - 31
  AND a.day BETWEEN c.day AND c.day + 12 GROUP BY ALL
""",
    "segments": """
WITH cells AS (
  SELECT user_id, c.day AS day, a.day - c.day AS age FROM marks AS c JOIN marks AS a USING (user_id)
  WHERE c.event = 'signup' AND a.event = 'active' AND c.day >= $end - 31
    AND a.day BETWEEN c.day AND c.day + 12)
SELECT NULL, day, age, count(*) FROM cells GROUP BY ALL
UNION ALL
SELECT flag::VARCHAR, day, age, count(*) FROM cells JOIN flags USING (user_id) GROUP BY ALL
""",
    "days_active": """
WITH users AS (
  SELECT count(*) AS days FROM marks WHERE event = 'active' AND day >= $end - 28 GROUP BY user_id)
SELECT days, count(*) FROM users GROUP BY days
""",
    "at_least": """
SELECT 20, count(*) FROM (
  SELECT user_id FROM marks WHERE event = 'active' AND day >= $end - 31
  GROUP BY user_id HAVING count(*) >= 20)
""",
    "lifecycle": """
WITH weeks AS (
  SELECT DISTINCT user_id, date_trunc('week', day)::DATE AS week FROM marks
  WHERE event = 'active' AND day < date_trunc('week', $end)),
ranked AS (
  SELECT week, lag(week) OVER (PARTITION BY user_id ORDER BY week) AS before,
    lead(week) OVER (PARTITION BY user_id ORDER BY week) AS after FROM weeks),
states AS (
  SELECT week, CASE WHEN before IS NULL THEN 'new' WHEN before = week - 7 THEN 'returning'
    ELSE 'resurrected' END AS state FROM ranked
  UNION ALL
  SELECT week + 7, 'dormant' FROM ranked WHERE after IS NULL OR after > week + 7)
SELECT week, state, count(*) FROM states
WHERE week >= date_trunc('week', $end) - INTERVAL 84 DAYS AND week < date_trunc('week', $end)
GROUP BY ALL
""",
    "funnel": """
WITH entries AS (
  SELECT user_id, day FROM marks WHERE event = 'signup' AND day >= $end - 37 AND day < $end - 7),
carts AS (
  SELECT e.user_id, e.day, min(m.day) AS cart FROM entries AS e JOIN marks AS m USING (user_id)
  WHERE m.event = 'cart' AND m.day BETWEEN e.day AND e.day + 6 GROUP BY ALL),
buys AS (
  SELECT c.user_id FROM carts AS c JOIN marks AS m USING (user_id)
  WHERE m.event = 'buy' AND m.day BETWEEN c.cart AND c.day + 6)
SELECT 1, count(DISTINCT user_id) FROM entries
UNION ALL SELECT 2, count(DISTINCT user_id) FROM carts
UNION ALL SELECT 3, count(DISTINCT user_id) FROM buys
""",
}


class Marks:
    """The same marks at each call.

    Attributes:
        today: the day of the report; the days before it are over.
    """

    def __init__(self, users: int) -> None:
        self._users = users
        self.today = datetime.now(timezone.utc).date()

    def __iter__(self) -> Iterator[tuple[date | None, str, Any]]:
        """Yield days (``None`` for a flag), events and arrays of ids."""
        import numpy as np

        chance = np.random.default_rng(5)
        for distance in range(DAYS, 0, -1):
            day = self.today - timedelta(days=distance)
            for event, share in {"signup": 1 / DAYS, **SHARES}.items():
                if event == "signup" or event == "active" or distance <= 45:
                    drawn = chance.random(self._users, dtype=np.float32)
                    if event == "signup":  # each user once
                        drawn = (np.arange(self._users) * 7919 % DAYS != distance - 1) + 0.0
                    yield day, event, np.flatnonzero(drawn < share).astype(np.uint32)
        for flag, share in FLAGS.items():
            drawn = chance.random(self._users, dtype=np.float32)
            yield None, flag, np.flatnonzero(drawn < share).astype(np.uint32)


@contextlib.contextmanager
def filled(tally: SyncTally, marks: Marks) -> Iterator[Any]:
    """Mark all events in a tally, and yield a connection to a DuckDB file with the same rows."""
    import duckdb

    with (
        tempfile.TemporaryDirectory() as folder,
        duckdb.connect(Path(folder) / "marks.duckdb") as connection,
    ):
        connection.execute(TABLES)
        for day, event, ids in marks:
            # DuckDB finds the array `ids` by its name.
            if day is None:
                tally.mark_unique_many(event, ids)
                connection.execute("INSERT INTO flags SELECT ?, * FROM ids", [event])
            else:
                tally.mark_many(event, ids, now=day)
                connection.execute("INSERT INTO marks SELECT ?, ?, * FROM ids", [day, event])
        connection.execute("CHECKPOINT")
        yield connection


def of_duckdb(connection: Any, marks: Marks, report: str) -> Report:
    """Return a report as DuckDB computes it."""
    rows = connection.execute(QUERIES[report], {"end": marks.today}).fetchall()
    return {tuple(key): count for *key, count in rows}


def of_tallymark(tally: SyncTally, marks: Marks) -> dict[str, Callable[[], Report]]:
    """Return the reports of the blocking facade."""
    until = marks.today

    def retention(*names: str) -> Report:
        table = tally.retention(
            "signup",
            "active",
            by="day",
            periods=12,
            cohorts=31,
            until=until,
            segments={name: tally.unique(name) for name in names},
        )
        return {
            (part.segment, row.period.start.date(), age): cell.count
            for part in (table, *table.segments.values())
            for row in part.cohorts
            for age, cell in enumerate(row.cells)
            if cell.count
        }

    def days_active() -> Report:
        report = tally.days_active("active", days=28, until=until)
        return {(bar.days,): bar.count for bar in report.bars if bar.count}

    def at_least_20() -> Report:
        days = [tally.day("active", until - timedelta(days=back)) for back in range(1, 32)]
        return {(20,): tally.count(at_least(20, days))}

    def lifecycle() -> Report:
        report = tally.lifecycle("active", by="week", periods=12, until=until)
        return {
            (row.period.start.date(), state): bar.count
            for row in report.rows
            for state in ("new", "returning", "resurrected", "dormant")
            if (bar := getattr(row, state)).count
        }

    def funnel() -> Report:
        report = tally.funnel(
            ["signup", "cart", "buy"],
            since=until - timedelta(days=37),
            until=until - timedelta(days=7),
            window=WINDOW,
        )
        return {(number,): step.count for number, step in enumerate(report.steps, 1)}

    return {
        "retention": retention,
        "segments": lambda: retention(*FLAGS),
        "days_active": days_active,
        "at_least": at_least_20,
        "lifecycle": lifecycle,
        "funnel": funnel,
    }


def product_reports(url: str, rounds: int, users: int = 10_000_000) -> dict[str, Any]:
    """Time each report of both contenders in turns, and check that the answers are equal."""
    marks = Marks(users)
    took: dict[tuple[str, str], list[float]] = {}
    with redis.Redis.from_url(url) as store, SyncTally.from_url(url, timeout=60) as tally:
        store.flushdb()
        with filled(tally, marks) as connection:
            ours = of_tallymark(tally, marks)
            for report, turn in itertools.product(ours, range(rounds + 1)):
                answers: dict[str, Report] = {}
                for name, ask in (
                    ("SyncTally", ours[report]),
                    ("DuckDB", lambda: of_duckdb(connection, marks, report)),  # noqa: B023
                ):
                    begun = time.perf_counter()
                    answers[name] = ask()
                    if turn:  # the first is to warm up
                        took.setdefault((report, name), []).append(time.perf_counter() - begun)
                compare(report, answers)
            rows = connection.execute("SELECT count(*) FROM marks").fetchone()[0]
        store.flushdb()
    return {
        "users": users,
        "marks": rows,
        "rows": [
            {
                "report": report,
                "contender": name,
                "ms": 1e3 * statistics.median(times),
                "ratio": median_ratio(times, took[report, "SyncTally"]),
            }
            for (report, name), times in took.items()
        ],
    }
