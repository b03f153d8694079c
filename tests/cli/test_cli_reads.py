"""Commands that read."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import pytest

from tallymark import SyncTally

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import CommandLine

    from stores import Store

DAY = date(2026, 1, 5)


@pytest.fixture
def tally(memory_store: Store) -> SyncTally:
    """Return a tally on the store of the program, with some users."""
    tally = SyncTally.from_url(memory_store.url)
    tally.mark_many("active", range(100), now=DAY, track_hourly=True)
    tally.mark_many("active", range(90, 120), now=DAY + timedelta(days=7))
    tally.mark_many("premium", range(0, 100, 10), now=DAY)
    tally.mark_unique_many("premium", range(5))
    return tally


@pytest.mark.parametrize(
    ("command", "users"),
    [
        ("active --day 2026-01-05", 100),
        ("active --day 2026-01-06", 0),
        ("active --week 2026-W02", 100),
        ("active --month 2026-01", 120),
        ("active --year 2026", 120),
        ("active --hour 2026-01-05T00", 100),
        ("active --since 2026-01-05 --until 2026-01-12", 100),
        ("active --since 2026-01-05 --until 2026-01-12T00:01", 120),
        ("premium --unique", 5),
        ("'active & premium' --day 2026-01-05", 10),
        ("'active & premium@unique - premium' --day 2026-01-05", 4),
        ("'active@2026-W03 - active@2026-W02'", 20),
        ("'active@2026-01-05..2026-01-12'", 100),
        ("'\"active\"@2026-01 ^ (premium@2026 | active@2026-01-12)'", 81),
        ("'at_least(2, active@2026-W02, active@2026-W03, premium@unique)'", 15),
        ("'at_least(3,active,(premium | active),premium@unique) - premium' --week 2026-W02", 4),
    ],
)
def test_count(command: str, users: int, tally: SyncTally, cli: CommandLine) -> None:
    assert cli.out(f"count {command}") == f"{users}\n"


def test_recent_periods(cli: CommandLine) -> None:
    with SyncTally.from_url(cli.url) as tally:
        tally.mark_event("active", 1)
        tally.mark_event("active", 2, now=date.today() - timedelta(days=1))
    assert cli.out("count active") == cli.out("count active --day today") == "1\n"
    assert cli.out("users active --day yesterday") == "2\n"
    assert cli.out("count active --last 2") == cli.out("count active@last2") == "2\n"
    for unit in ("week", "month", "year"):
        assert "1\n" in cli.out(f"users active --{unit} this")
    assert cli.out("count active --since yesterday") == "2\n"
    assert cli.out("count active@yesterday") == "1\n"
    with SyncTally.from_url(cli.url) as tally:
        tally.mark_event("late", 3, track_hourly=True)
    for asked in ("late --last 1h", "late@last1h", "late --last 24h", "late@last24h"):
        assert cli.out(f"count {asked}") == "1\n"
    assert cli.out("count active --last 1h") == "0\n"  # without hours
    assert cli.out("count active --last 2d") == cli.out("count active@last2d") == "2\n"
    for wrong in ("24m", "x", "1.5", "-1", ""):
        assert (
            "--last takes days as in 28, or 24h" in cli(["count", "a", "--last", wrong], code=2).err
        )
    assert "no period" in cli("count a@last24m", code=2).err


def test_several_counts_are_a_table(tally: SyncTally, cli: CommandLine) -> None:
    command = "count active 'premium@unique | active' --day 2026-01-05"
    assert cli.rows(command) == [
        {"what": "active", "users": 100},
        {"what": "premium@unique | active", "users": 100},
    ]
    assert cli.out(command).splitlines()[0].split() == ["what", "users"]


def test_users(tally: SyncTally, cli: CommandLine) -> None:
    assert cli.out("users premium --day 2026-01-05 --start 15 --limit 3") == "20\n30\n40\n"
    assert cli.rows("users premium --unique") == [{"user_id": number} for number in range(5)]
    assert cli.out("users nobody --unique") == ""
    assert cli.out("users nobody --unique --csv") == "user_id\n"
    assert cli.rows("users nobody --unique") == []


def test_questions_have_exit_codes(tally: SyncTally, cli: CommandLine) -> None:
    assert cli.out("contains active 99 --day 2026-01-05") == "yes\n"
    assert cli("contains active 100 --day 2026-01-05", code=1).out == "no\n"
    assert cli.rows("contains active 98 99 --day 2026-01-05") == [
        {"user_id": "98", "contains": True},
        {"user_id": "99", "contains": True},
    ]
    several = cli("contains active 99 100 --day 2026-01-05 --csv", code=1)
    assert several.out == "user_id,contains\n99,True\n100,False\n"
    assert "USER_ID is missing" in cli("contains active", code=2).err
    assert cli.out("is-empty active --day 2026-01-06") == "yes\n"
    assert cli("is-empty active --day 2026-01-05 --json", code=1).out == (
        '[\n{"is_empty": false}\n]\n'
    )


def test_the_keyspace(tally: SyncTally, cli: CommandLine) -> None:
    assert cli.out("events") == "active\npremium\n"
    assert cli.out("events pre") == "premium\n"
    assert cli.out("periods active --by week") == "2026-W02\n2026-W03\n"
    assert cli.rows("periods active --by hour") == [{"period": "2026-01-05T00"}]
    sizes = {str(kind): size for kind, size in tally.memory("active").items()}
    assert {row["granularity"]: row["bytes"] for row in cli.rows("memory active")} == sizes
    assert {row["event"] for row in cli.rows("memory")} == {"active", "premium"}


def test_history(tally: SyncTally, cli: CommandLine) -> None:
    command = "history 90 --since 2026-01-01 --until 2026-02-01"
    found = [(row["event"], row["period"]) for row in cli.rows(command)]
    assert found == [
        ("active", "2026-01-05"),
        ("active", "2026-01-12"),
        ("premium", "2026-01-05"),
    ]
    assert cli.rows("history 90 premium --by month --since 2026-01-01") == [
        {"event": "premium", "period": "2026-01"}
    ]
    assert cli.rows("history 90") == []


def test_numbers_and_ids(cli: CommandLine) -> None:
    ids = "--user-ids str"
    for name in ("ann", "bob"):
        cli(f"mark active {name} {ids}")
    assert cli.rows(f"numbers bob ann {ids}") == [
        {"user_id": "bob", "number": 1},
        {"user_id": "ann", "number": 0},
    ]
    assert cli(f"numbers eve {ids} --csv", code=1).out == "user_id,number\neve,\n"
    assert cli(f"ids 1 5 {ids} --csv", code=1).out == "number,user_id\n1,bob\n5,\n"


def test_a_page(tally: SyncTally, cli: CommandLine, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    cli(f"count 'active' '\"<b>\"' --day 2026-01-05 --html {page}")
    text = page.read_text("utf-8")
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert cli.out(f"count active --day 2026-01-05 --html {page}") == "100\n"
    assert cli(f"users active --day 2026-01-05 --html {page} --csv").out.startswith("user_id\n0\n")
    assert cli("count active --html missing/page.html", code=2).err.startswith("tallymark: missing")


def test_shards_and_prefixes(redis_cli: CommandLine, redis_store: Store) -> None:
    redis_cli("mark active 5 --shards 4 --prefix mine_ --at 2026-01-05")
    assert all(name.startswith("mine_") for name in redis_store.names())
    assert redis_cli.out("count active --shards 4 --prefix mine_ --month 2026-01") == "1\n"
    assert redis_cli("count active --shards 5 --prefix mine_", code=2).err.endswith(
        "(see --user-ids and --shards)\n"
    )


def test_an_interrupted_page_leaves_the_old_one(
    tally: SyncTally, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    page.write_text("old", "utf-8")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for step in ("chmod", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(f"pathlib.Path.{step}", interrupt)
            cli(f"count active --html {page}", code=130)
        assert page.read_text("utf-8") == "old"
        assert list(tmp_path.iterdir()) == [page]
