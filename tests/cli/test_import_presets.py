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


#: The type of the column of the time in Parquet, from its text.
_TIMES = {
    "posthog": "coalesce(try(make_timestamp(TRY_CAST(timestamp AS BIGINT))), "
    "CAST(TRY_CAST(timestamp AS TIMESTAMPTZ) AS TIMESTAMP)) AS timestamp",
    "ga4": "TRY_CAST(event_timestamp AS BIGINT) AS event_timestamp",
    "segment": "TRY_CAST(timestamp AS TIMESTAMPTZ) AS timestamp",
    "mixpanel": "properties AS properties",  # a struct
}


@pytest.mark.parametrize("preset", _TIMES)
def test_parquet(redis_cli: CommandLine, tmp_path: Path, preset: str) -> None:
    """The same rows as Parquet, with columns of their own types."""
    sample = SAMPLES[preset]()
    source, path = tmp_path / f"sample{sample.suffix}", tmp_path / "sample.parquet"
    source.write_bytes(sample.data)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"COPY (SELECT * REPLACE ({_TIMES[preset]}) FROM read_json('{source}', "
            f"format='newline_delimited', ignore_errors=true)) TO '{path}' (FORMAT parquet)"
        )
    # A malformed line has become a row without values.
    malformed = sample.rejected.pop("malformed JSON", 0)
    if malformed:
        sample.rejected["no event"] += malformed
    if "time not readable" in sample.rejected and preset == "segment":
        sample.rejected["no time"] += sample.rejected.pop("time not readable")
    check(redis_cli, path, preset, sample)
