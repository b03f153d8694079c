"""Reports of tallymark and of DuckDB on the same marks: their time, and the bytes of the data.

DuckDB's table holds one row for each mark, in the order of the days. The ids of a day come in
random order, as users do. The types are narrow: a date, an enumeration and a number of 32 bits.
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
from contest import WrongBitsError, median_ratio

from tallymark import SyncTally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Report = dict[Any, int]

DAYS, COHORTS, PERIODS = 44, 31, 12

TABLE = """
CREATE TYPE event AS ENUM ('signup', 'active');
CREATE TABLE marks (day DATE, event event, user_id UINTEGER);
"""
SIZES = """
SELECT day, {users} FROM marks AS a WHERE event = 'signup' AND day >= $first GROUP BY day
"""
CELLS = """
SELECT c.day, a.day - c.day, {users} FROM marks AS c JOIN marks AS a USING (user_id)
WHERE c.event = 'signup' AND a.event = 'active'
  AND c.day >= $first AND a.day BETWEEN c.day AND c.day + $periods
GROUP BY ALL
"""
DAILY = "SELECT day, {users} FROM marks AS a WHERE event = 'active' GROUP BY day"
#: How a query counts users: as it has to if rows may repeat, and as it can if none does.
COUNTS = {"DuckDB": "count(DISTINCT a.user_id)", "DuckDB, unique rows": "count(*)"}


class Marks:
    """The same marks at each call: each user signs up once, and a tenth is active each day.

    Attributes:
        today: the day of the report; the days before it are over.
        days: the days with marks.
    """

    def __init__(self, users: int) -> None:
        self._users = users
        self.today = datetime.now(timezone.utc).date()
        self.days = [self.today - timedelta(days=distance) for distance in range(DAYS, 0, -1)]

    def __iter__(self) -> Iterator[tuple[date, str, Any]]:
        """Yield days, events, and arrays of ids."""
        import numpy as np

        chance = np.random.default_rng(5)
        signups = np.array_split(chance.permutation(self._users), DAYS)
        for day, signup in zip(self.days, signups, strict=True):
            active = chance.choice(self._users, self._users // 10, replace=False)
            yield day, "signup", signup.astype(np.uint32)
            yield day, "active", active.astype(np.uint32)


@contextlib.contextmanager
def filled(marks: Marks, *, in_order: bool = False) -> Iterator[tuple[Any, int]]:
    """Yield a connection to a database on disk with all marks, and the size of its file.

    Arguments:
        marks: the marks.
        in_order: sort the ids of each day, which makes the file smaller.
    """
    import duckdb

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "marks.duckdb"
        with duckdb.connect(path) as connection:
            connection.execute(TABLE)
            for day, event, ids in marks:
                if in_order:
                    ids.sort()
                # DuckDB finds the array `ids` by its name.
                connection.execute("INSERT INTO marks SELECT ?, ?, * FROM ids", [day, event])
            connection.execute("CHECKPOINT")
            yield connection, path.stat().st_size


def of_duckdb(connection: Any, marks: Marks, users: str) -> dict[str, Callable[[], Report]]:
    """Return the reports as queries, which count users in the given way."""
    first = marks.today - timedelta(days=COHORTS)

    def ask(query: str, **parameters: Any) -> Any:
        return connection.execute(query.format(users=users), parameters).fetchall()

    def retention() -> Report:
        cells = ask(CELLS, first=first, periods=PERIODS)
        return dict(ask(SIZES, first=first)) | {(day, age): count for day, age, count in cells}

    return {"retention": retention, "daily": lambda: dict(ask(DAILY))}


def of_tallymark(tally: SyncTally, marks: Marks) -> dict[str, Callable[[], Report]]:
    """Return the reports of the blocking facade."""

    def retention() -> Report:
        table = tally.retention(
            "signup", "active", by="day", periods=PERIODS, cohorts=COHORTS, until=marks.today
        )
        report: Report = {row.period.start.date(): row.size for row in table.cohorts}
        for row in table.cohorts:
            for age, cell in enumerate(row.cells):
                if cell.count:  # a day that is over, on which somebody was active
                    report[row.period.start.date(), age] = cell.count
        return report

    def daily() -> Report:
        counts = tally.counts([tally.day("active", day) for day in marks.days])
        return dict(zip(marks.days, counts, strict=True))

    return {"retention": retention, "daily": daily}


def duck(url: str, rounds: int, users: int = 1_000_000) -> dict[str, Any]:
    """Time each report of each contender in turns; return the rows, and the bytes of the data."""
    marks = Marks(users)
    took: dict[tuple[str, str], list[float]] = {}
    with (
        redis.Redis.from_url(url) as store,
        SyncTally.from_url(url) as tally,
        filled(marks) as (connection, size),
    ):
        store.flushdb()
        for day, event, ids in marks:
            tally.mark_many(event, ids, now=day)
        contenders = {"SyncTally": of_tallymark(tally, marks)}
        for name, count in COUNTS.items():
            contenders[name] = of_duckdb(connection, marks, count)
        for report, turn in itertools.product(("retention", "daily"), range(rounds + 1)):
            answers = {}
            for name, reports in contenders.items():
                begun = time.perf_counter()
                answers[name] = reports[report]()
                if turn:  # the first is to warm up
                    took.setdefault((report, name), []).append(time.perf_counter() - begun)
            compare(report, answers)
        in_redis = sum(store.memory_usage(key, samples=0) or 0 for key in store.scan_iter())
        rows = connection.execute("SELECT count(*) FROM marks").fetchone()[0]
        store.flushdb()
    with filled(marks, in_order=True) as (_, size_in_order):
        return {
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
            "bytes": {"DuckDB": size, "DuckDB, sorted": size_in_order, "SyncTally": in_redis},
        }


def compare(report: str, answers: dict[str, Report]) -> None:
    """Raise unless all answers are equal."""
    (first, expected), *rest = answers.items()
    for name, answer in rest:
        wrong = dict(expected.items() ^ answer.items())
        if wrong:
            raise WrongBitsError(f"{report}: {first} and {name} differ in {len(wrong)} numbers")
