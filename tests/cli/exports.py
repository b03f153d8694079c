"""What the tests of exports to files and of restores share."""

from __future__ import annotations

import importlib.util
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb

from tallymark import SyncTally

if TYPE_CHECKING:
    import pytest

__all__ = ["FILES", "HEADER", "NOON", "ODD", "fill", "rows_of", "users", "without_pyarrow"]

NOON = datetime(2026, 1, 5, 13)
ODD = "a,\"b\" 'c' {ü}"
HEADER = "event,granularity,period,user_id\n"

FILES = ["x.csv", "x.csv.gz", "x.ndjson", "x.jsonl.gz", "x.parquet", "without-pyarrow.parquet"]


def fill(url: str, ids: list[Any], **options: Any) -> None:
    with SyncTally.from_url(url, track_yearly=True, **options) as tally:
        tally.mark_many("active", ids, now=NOON, track_hourly=True, track_unique=True)
        tally.mark_many(ODD, ids[:2], now=date(2027, 1, 1))
        tally.mark_many("active", ids[1:], now=NOON + timedelta(days=1))
        tally.delete(tally.day("active", NOON))


def users(url: str, **options: Any) -> dict[tuple[Any, ...], set[Any]]:
    found: dict[tuple[Any, ...], set[Any]] = {}
    with SyncTally.from_url(url, **options) as tally:
        for batch in tally.export():
            name = batch.event, batch.granularity, batch.period
            found.setdefault(name, set()).update(batch.ids())
    return found


def rows_of(query: str) -> list[Any]:
    with duckdb.connect() as database:
        return list(database.execute(query).fetchall())


def without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "pyarrow" else find(name)
    )
