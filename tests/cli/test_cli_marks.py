"""Commands that mark and unmark."""

from __future__ import annotations

import io
import uuid
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

from tallymark import SyncTally

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import CommandLine

    from stores import Store

AT = "--at 2026-01-05"
USER = uuid.UUID("12345678-1234-5678-1234-567812345678")
DAY, WEEK, MONTH = "trackist_active_2026-1-5", "trackist_active_W2026-2", "trackist_active_2026-1"


def test_a_mark_and_its_unmark(cli: CommandLine, memory_store: Store) -> None:
    assert cli.out(f"mark active 123 {AT}") == "new in: month, week, day\n"
    assert cli.out(f"mark active 123 {AT}") == "marked before\n"
    assert memory_store.bits() == {DAY: {123}, WEEK: {123}, MONTH: {123}}
    assert cli.out("mark active 123 --at 2026-01-06") == "new in: day\n"
    assert cli.out(f"unmark active 123 {AT} --exact") == "cleared in: day\n"
    assert set(memory_store.bits()) == {"trackist_active_2026-1-6", WEEK, MONTH}
    assert cli.out(f"unmark active 123 {AT}") == "cleared in: month, week\n"
    assert cli.out(f"unmark active 123 {AT}") == "was not marked\n"


def test_hours_and_flags(cli: CommandLine, memory_store: Store) -> None:
    cli(f"mark active 7 {AT}T13:07 --hourly --unique")
    bitmaps = DAY, WEEK, MONTH, f"{DAY}-13", "trackist_active_u"
    assert memory_store.bits() == {name: {7} for name in bitmaps}
    cli(f"unmark active 7 {AT}T13:07 --hourly --unique")
    assert memory_store.bits() == {}
    assert cli.out("mark-unique vip 7") == "new in: unique\n"
    assert cli.out("unmark-unique vip 7") == "cleared in: unique\n"
    assert memory_store.bits() == {}


@pytest.mark.parametrize(
    ("at", "zone", "day"),
    [
        ("2026-01-05T23:30:00Z", "Europe/Berlin", "2026-1-6"),
        ("2026-01-05T23:30+00:00", "UTC", "2026-1-5"),
        ("2026-01-05T23:30", "Europe/Berlin", "2026-1-5"),
        ("2026-01-05 23:30:59.123", "UTC", "2026-1-5"),
    ],
)
def test_moments_are_in_the_time_zone(
    at: str, zone: str, day: str, cli: CommandLine, memory_store: Store
) -> None:
    cli(["mark", "active", "1", "--at", at, "--timezone", zone])
    assert f"trackist_active_{day}" in memory_store.bits()


def test_what_programs_get(cli: CommandLine) -> None:
    assert cli.rows(f"mark active 5 {AT}") == [
        {"event": "active", "user_id": "5", "flipped": "month|week|day"}
    ]
    assert cli.rows(f"mark active 5 {AT}") == [{"event": "active", "user_id": "5", "flipped": ""}]


def test_users_of_a_file(cli: CommandLine, memory_store: Store, tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("\ufeff1\r\n2\n\n 3 \n2", encoding="utf-8")
    assert cli.out(f"mark-many active {file} {AT}") == "4 users; changed: month 3, week 3, day 3\n"
    assert memory_store.bits()[DAY] == {1, 2, 3}
    file.write_text("3\n4\n", encoding="utf-8")
    assert cli.rows(f"unmark-many active {file} {AT} --yes") == [
        {"granularity": "month", "bits": 1},
        {"granularity": "week", "bits": 1},
        {"granularity": "day", "bits": 1},
    ]
    assert memory_store.bits()[DAY] == {1, 2}
    assert cli.out(f"mark-unique-many vip {file}") == "2 users; changed: unique 2\n"
    assert cli.out(f"unmark-unique-many vip {file} --yes") == "2 users; changed: unique 2\n"
    assert "trackist_vip_u" not in memory_store.bits()


def test_users_of_the_standard_input(
    cli: CommandLine, memory_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("10\n20\n"))
    cli(f"mark-many active {AT}")
    assert memory_store.bits()[DAY] == {10, 20}
    for number, command in enumerate(
        (f"mark-many active - {AT}", f"mark-many {AT} active -", f"mark-many {AT} -- active -")
    ):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{number}\n"))
        cli(command)
        assert number in memory_store.bits()[DAY]


def test_a_bad_line_marks_nobody(cli: CommandLine, memory_store: Store, tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    for text, message in {
        "1\n2\nx\n": "line 3: user ids are whole numbers, got 'x'",
        "1\n-1\n": "-1",
        "1\n1_0\n": "line 2",
        "1\n\N{FULLWIDTH DIGIT FOUR}\n": "line 2",
    }.items():
        file.write_text(text, encoding="utf-8")
        assert message in cli(f"mark-many active {file}", code=2).err
        assert memory_store.bits() == {}
    file.write_bytes(b"1\n\xff\n")
    cli(f"mark-many active {file}", code=2)
    assert "missing.txt" in cli("mark-many active missing.txt", code=2).err
    assert memory_store.bits() == {}


def test_long_files_are_marked_in_blocks(
    cli: CommandLine, memory_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallymark.cli._marks._BLOCK", 2)
    file = tmp_path / "ids.txt"
    file.write_text("1\n2\n3\n4\nx\n", encoding="utf-8")
    outcome = cli(f"mark-many active {file} {AT}", code=2)
    assert "the first 4 users of the file are done" in outcome.err
    assert "line 5: user ids are whole numbers" in outcome.err
    assert memory_store.bits()[DAY] == {1, 2, 3, 4}
    file.write_text("1\n2\n3\n4\n5\n", encoding="utf-8")
    assert cli.out(f"mark-many active {file} {AT}") == "5 users; changed: month 1, week 1, day 1\n"


@pytest.mark.parametrize(
    ("kind", "text", "user_id"),
    [
        ("str", " a b ", " a b "),
        ("uuid", "{12345678-1234-5678-1234-567812345678}", USER),
        ("int", "-5", -5),
        ("bytes", "00ff", b"\0\xff"),
    ],
)
def test_ids_of_every_type(
    kind: str, text: str, user_id: Any, cli: CommandLine, memory_store: Store
) -> None:
    ids = ["--user-ids", kind]
    assert cli(["mark", "active", text, *ids, "--at", "2026-01-05"]).out.startswith("new")
    with SyncTally.from_url(memory_store.url, user_ids=type(user_id)) as tally:
        found = list(tally.users(tally.month("active", date(2026, 1, 5))))
    assert found == [user_id]
    printed = cli.out(["users", "active", "--month", "2026-01", *ids])
    assert cli(["contains", "active", printed.rstrip("\n"), "--month", "2026-01", *ids]).out
    assert cli.out(["numbers", text, *ids, "--csv"]).endswith(",0\n")
    assert "None" not in cli.out(["ids", "0", *ids])
    assert cli(["mark", "active", "\ud800", *ids], code=2).err
