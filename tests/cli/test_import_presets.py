"""Each preset marks what its sample has, and says how many rows it left out, and why."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import duckdb
import pytest
from import_samples import SAMPLES, ZONE, Marked, Sample

from tallymark import SyncTally
from tallymark.cli._import.presets import PRESETS

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import CommandLine


def check(redis_cli: CommandLine, path: Path, preset: str, sample: Sample) -> None:
    """Import a sample, and compare."""
    rejects = path.with_name("rejects.ndjson")
    words = ["import", str(path), "--preset", preset, *sample.options]
    words += ["--user-ids", "str", "--timezone", ZONE.key, "--rejects", str(rejects), "--json"]
    outcome = redis_cli(words, code=1 if sample.rejected else 0)
    (summary,) = json.loads(outcome.out)
    reasons = Counter(
        json.loads(line)["reason"].partition(":")[0] for line in rejects.read_text().splitlines()
    )
    assert reasons == sample.rejected
    assert (summary["rows"], summary["skipped"]) == (sample.rows, sample.skipped)
    assert summary["rejected"] == sample.rejected.total()
    assert summary["marks"] == len(sample.marks)
    with SyncTally.from_url(redis_cli.url, user_ids=str, timezone=ZONE.key) as tally:
        found = {
            Marked(event, user, day)
            for event, day in {(each.event, each.day) for each in sample.marks}
            for user in tally.users(tally.day(event, day))
        }
        assert found == sample.marks
        weeks = {(each.event, each.user, each.day.isocalendar()[:2]) for each in sample.marks}
        months = {(each.event, each.user, each.day.replace(day=1)) for each in sample.marks}
        assert summary["new"] == len(sample.marks) + len(weeks) + len(months)


@pytest.mark.parametrize("preset", SAMPLES)
def test_presets(redis_cli: CommandLine, tmp_path: Path, preset: str) -> None:
    """A sample of each preset: all good rows are marked, and no others."""
    sample = SAMPLES[preset]()
    path = tmp_path / f"sample{sample.suffix}"
    path.write_bytes(sample.data)
    check(redis_cli, path, preset, sample)


def test_all_presets_have_a_sample() -> None:
    """No preset is without a sample."""
    assert set(SAMPLES) == set(PRESETS)


@pytest.mark.parametrize("preset", ["posthog", "ga4", "segment"])
def test_parquet(redis_cli: CommandLine, tmp_path: Path, preset: str) -> None:
    """The same rows as Parquet, with columns of their own types."""
    sample = SAMPLES[preset]()
    source, path = tmp_path / f"sample{sample.suffix}", tmp_path / "sample.parquet"
    source.write_bytes(sample.data)
    reader = f"read_json('{source}', format='newline_delimited', ignore_errors=true)"
    time = {"posthog": "timestamp", "ga4": "event_timestamp", "segment": "timestamp"}[preset]
    microseconds = f"make_timestamp(try_cast({time} AS BIGINT))"
    kinds = {
        "posthog": f"coalesce(try({microseconds}), CAST(try_cast({time} AS TIMESTAMPTZ) AS TIMESTAMP))",
        "ga4": f"CAST({time} AS BIGINT)",
        "segment": f"try_cast({time} AS TIMESTAMPTZ)",
    }
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"COPY (SELECT * REPLACE ({kinds[preset]} AS {time}) FROM {reader} "
            f"WHERE columns(*) IS NOT NULL OR true) TO '{path}'"
        )
    del sample.rejected["malformed JSON"]
    if preset == "segment":
        sample.rejected["no event"] += 0
    check_parquet(redis_cli, path, preset, sample)


def check_parquet(redis_cli: CommandLine, path: Path, preset: str, sample: Sample) -> None:
    """Import a sample whose malformed rows are rows of nulls."""
    words = ["import", str(path), "--preset", preset, "--user-ids", "str", "--json"]
    outcome = redis_cli([*words, "--timezone", ZONE.key, "--max-rejects", "9"])
    (summary,) = json.loads(outcome.out)
    assert summary["marks"] == len(sample.marks)
