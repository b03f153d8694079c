"""The commands that delete what is old, and the one that examines a database."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

import pytest

from tallymark import SyncTally

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import CommandLine

    from stores import Store


@pytest.fixture
def filled(memory_store: Store) -> None:
    """Mark two events on the days of two weeks, also their hours."""
    with SyncTally.from_url(memory_store.url) as tally:
        for number in range(14):
            day = date(2026, 1, 5) + timedelta(days=number)
            tally.mark_event("active", number, now=day, track_hourly=True)
            tally.mark_event("order", number, now=day)


@pytest.mark.usefixtures("filled")
def test_delete_before(cli: CommandLine, memory_store: Store) -> None:
    before = memory_store.bits()
    plan = cli.rows("delete-before 2026-01-12 --dry-run")
    assert plan == [
        {"granularity": "week", "bitmaps": 2, "bytes": plan[0]["bytes"]},
        {"granularity": "day", "bitmaps": 14, "bytes": plan[1]["bytes"]},
        {"granularity": "hour", "bitmaps": 7, "bytes": 7},
    ]
    assert memory_store.bits() == before
    assert cli.rows("delete-before 2026-01-12 --granularity hour --yes") == plan[2:]
    one = "delete-before 2026-01-12T00:00 --granularity day --granularity week --event order --yes"
    assert [row["bitmaps"] for row in cli.rows(one)] == [1, 7]
    assert len(before) - len(memory_store.bits()) == 15
    assert cli.out(one) == "no bitmap is from before 2026-01-12T00:00\n"
    assert cli.rows(one) == []
    # What is left still answers.
    assert cli.out("count order --month 2026-01") == "14\n"


@pytest.mark.usefixtures("filled")
def test_it_asks_with_what_it_would_delete(cli: CommandLine, memory_store: Store) -> None:
    before = memory_store.bits()
    error = cli("delete-before 2026-01-12 --granularity day", code=2).err
    assert "delete 14 bitmaps of " in error
    assert "this needs --yes" in error.replace("\n", " ")
    assert memory_store.bits() == before
    for wrong, says in {
        "delete-before 2099-01-01 --yes": "end of the present hour",
        "delete-before x --yes": "MOMENT takes a date",
        "delete-before 2026-01-12 --granularity unique --yes": "does not take",
        "delete-before --yes": "missing",
        "apply-expiry --yes": "which expiry?",
        "apply-expiry --yes --expire day": "takes days or hours",
        "apply-expiry --yes --expire days=4d": "year with a duration",
        "apply-expiry --yes --expire day=4": "takes days or hours",
        "apply-expiry --yes --expire day=4d --expire day=5d": "two durations for day",
    }.items():
        assert says in " ".join(cli(wrong, code=2).err.split()), wrong
    assert memory_store.bits() == before


@pytest.mark.usefixtures("filled")
def test_apply_expiry(cli: CommandLine, memory_store: Store) -> None:
    command = "apply-expiry --expire day=90000d --expire hour=24h"
    expected = [
        {"granularity": "day", "changed": 28, "deleted": 0, "unchanged": 0},
        {"granularity": "hour", "changed": 0, "deleted": 14, "unchanged": 0},
    ]
    assert cli.rows(f"{command} --dry-run") == expected
    asked = " ".join(cli(command, code=2).err.split())
    assert "set the expiry of 28 bitmaps, and delete 14: without a terminal" in asked
    assert memory_store.raw.ttl("trackist_active_2026-1-5") == -1
    assert cli.rows(f"{command} --yes") == expected
    assert memory_store.raw.ttl("trackist_active_2026-1-5") > 0
    assert memory_store.raw.ttl("trackist_active_2026-1") == -1
    # Nothing is left to change, so nothing is asked.
    assert [row["unchanged"] for row in cli.rows(command)] == [28]
    assert "there are no bitmaps" in cli.out("apply-expiry --expire year=9d")


def test_marks_have_the_expiry_of_the_option(cli: CommandLine, memory_store: Store) -> None:
    cli.out("mark active 3 --expire day=90d")
    ttls = {name: memory_store.raw.ttl(name) for name in memory_store.names()}
    assert sorted(ttl > 0 for ttl in ttls.values()) == [False, False, True]


def test_doctor(cli: CommandLine, memory_store: Store, tmp_path: Path) -> None:
    cli.out("mark active 3")
    page = tmp_path / "health.html"
    text = cli.out(["doctor", "--html", str(page)])
    lines = text.splitlines()
    assert lines[0].startswith("warning  version         fakeredis")
    assert lines[1].split(maxsplit=1)[0] == "why:"
    assert lines[2].split(maxsplit=1)[0] == "do:"
    statuses = [line.split()[0] for line in lines if line and not line.startswith(" ")]
    assert statuses[:-1] == sorted(statuses[:-1], key=["warning", "ok", "skipped"].index)
    assert lines[-1] == "0 problems and 1 warning in 24 checks; of the keys, all 3"
    assert "\x1b" not in text
    assert "The health of the database" in page.read_text(encoding="utf-8")
    rows = cli.rows("doctor")
    assert len(rows) == 24
    assert list(rows[0]) == ["check", "status", "seen", "why", "advice"]
    table = csv.DictReader(io.StringIO(cli.out("doctor --csv")))
    assert [row["check"] for row in table] == [row["check"] for row in rows]


def test_a_problem_has_an_exit_code(cli: CommandLine, memory_store: Store) -> None:
    memory_store.raw.rpush("trackist_active_2026-1-5", "\x1b[31mx")
    assert cli("doctor", code=1).out.startswith("problem  key types       1 of 1 bitmap")
    found = {row["check"]: row for row in json.loads(cli("doctor --json", code=1).out)}
    assert found["key types"]["status"] == "problem"
    replace(cli, url="redis://127.0.0.1:1/0")("doctor --timeout 0.2", code=3)


def test_a_login_that_is_refused(cli: CommandLine, redis_store: Store) -> None:
    wrong = replace(cli, url=redis_store.url.replace("//", "//nobody:s3cret@"))
    refused = wrong("doctor", code=3)
    assert "WRONGPASS" in refused.err
    assert "s3cret" not in refused.err
    assert refused.out == ""


@pytest.mark.usefixtures("filled")
def test_marks_of_another_schema(cli: CommandLine) -> None:
    for options in ("--shards 4", "--user-ids str"):
        found = {
            row["check"]: row for row in json.loads(cli(f"doctor --json {options}", code=1).out)
        }
        assert found["schema"]["status"] == "problem"


@pytest.mark.usefixtures("filled")
def test_doctor_looks_for_bitmaps_that_do_not_expire(cli: CommandLine) -> None:
    assert "28 of 28 bitmaps never expire" in cli("doctor --expire day=90000d").out
    cli("apply-expiry --expire day=90000d --yes")
    assert "28 bitmaps expire as the option says" in cli("doctor --expire day=90000d").out
