"""Commands that make reports: those of the library, with all of their options."""

from __future__ import annotations

import csv
import io
import json
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tallymark import SyncTally

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_line import CommandLine

    from stores import Store
    from tallymark import Period

FIRST = date(2026, 1, 5)
END = date(2026, 2, 2)
UNTIL = "--until 2026-02-02"


@pytest.fixture
def tally(memory_store: Store) -> SyncTally:
    """Return a tally on the store of the program, with four weeks of users."""
    tally = SyncTally.from_url(memory_store.url)
    for number in range(28):
        day = FIRST + timedelta(days=number)
        tally.mark_many("signup", range(10 * number, 10 * number + 10), now=day)
        tally.mark_many("active", range(0, 10 * number + 10, number % 3 + 1), now=day)
        tally.mark_many("order", range(5 * number, 5 * number + 8), now=day, track_hourly=True)
    tally.mark_unique_many("ios", range(0, 280, 4))
    return tally


def without_ios(tally: SyncTally) -> Callable[[Period], Any]:
    return lambda period: tally.during("active", period) - tally.unique("ios")


CASES: dict[str, Callable[[SyncTally], Any]] = {
    f"retention signup active --periods 3 {UNTIL}": lambda t: t.retention(
        "signup", "active", periods=3, until=END
    ),
    "retention signup active --by day --brackets 1,3,7 --cohorts 5 --until 2026-01-20 "
    "--segment ios=ios@unique --segment active=active --mode unbounded --first-time": lambda t: (
        t.retention(
            "signup",
            "active",
            by="day",
            brackets=[1, 3, 7],
            cohorts=5,
            until=date(2026, 1, 20),
            segments={"ios": t.unique("ios"), "active": lambda p: t.during("active", p)},
            mode="unbounded",
            first_time=True,
        )
    ),
    f"retention signup 'active - ios@unique' --by 14d --anchor 2026-01-05 --periods 1 {UNTIL}": (
        lambda t: t.retention(
            "signup",
            without_ios(t),
            by=timedelta(days=14),
            anchor=FIRST,
            periods=1,
            until=END,
        )
    ),
    "funnel signup active order --since 2026-01-05 --until 2026-01-12 --window 3d "
    "--segment ios=ios@unique": lambda t: t.funnel(
        ["signup", "active", "order"],
        since=FIRST,
        until=date(2026, 1, 12),
        window=timedelta(days=3),
        segments={"ios": t.unique("ios")},
    ),
    "funnel order order --since 2026-01-05 --until 2026-01-06 --window 12h "
    "--resolution hour": lambda t: t.funnel(
        ["order", "order"],
        since=FIRST,
        until=date(2026, 1, 6),
        window=timedelta(hours=12),
        resolution="hour",
    ),
    "funnel signup order --by month --at 2026-01-07": lambda t: t.funnel(
        ["signup", "order"], by="month", moment=date(2026, 1, 7)
    ),
    "funnel signup ios@unique 'order - ios' --by 7d --anchor 2026-01-05 --at 2026-01-07": (
        lambda t: t.funnel(
            [
                "signup",
                t.unique("ios"),
                t.between("order", FIRST, date(2026, 1, 12))
                - t.between("ios", FIRST, date(2026, 1, 12)),
            ],
            by=timedelta(days=7),
            anchor=FIRST,
            moment=date(2026, 1, 7),
        )
    ),
    f"trend active order --periods 5 --rolling 7 {UNTIL}": lambda t: t.trend(
        ["active", "order"], periods=5, rolling=7, until=END
    ),
    f"trend active --by week --periods 2 --rolling 0 {UNTIL}": lambda t: t.trend(
        "active", by="week", periods=2, rolling=None, until=END
    ),
    f"lifecycle active --by week --periods 3 {UNTIL}": lambda t: t.lifecycle(
        "active", periods=3, until=END
    ),
    "stickiness active --day 2026-01-30": lambda t: t.stickiness("active", date(2026, 1, 30)),
    f"days-active active --days 14 {UNTIL}": lambda t: t.days_active("active", days=14, until=END),
    f"streak active 0 {UNTIL}": lambda t: t.streak("active", 0, until=END),
    f"streaks active --days 20 {UNTIL}": lambda t: t.streaks("active", days=20, until=END),
}


@pytest.mark.parametrize("command", CASES)
def test_a_report_is_that_of_the_library(
    command: str, tally: SyncTally, cli: CommandLine, tmp_path: Path
) -> None:
    report = CASES[command](tally)
    rows = report.to_rows()
    page = tmp_path / "page.html"
    printed = cli.out(f"{command} --json --html {page}")
    assert json.loads(printed) == json.loads(json.dumps(rows))
    assert list(csv.DictReader(io.StringIO(cli.out(f"{command} --csv")))) == list(
        csv.DictReader(io.StringIO(report.to_csv()))
    )
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert cli.out(command)


def test_readable_names_are_in_the_page(tally: SyncTally, cli: CommandLine, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    shown = cli.out(
        f"funnel signup order --at 2026-01-07 --label 'signup=Signed up' "
        f"--label 'order=An = order' --html {page}"
    )
    for text in (shown, page.read_text("utf-8")):
        assert "Signed up" in text
        assert "An = order" in text


def test_misspelt_names_are_a_warning(tally: SyncTally, cli: CommandLine) -> None:
    outcome = cli(f"lifecycle actve --periods 1 {UNTIL} --json")
    assert outcome.err == (
        "tallymark: nobody was ever marked for actve: is the name spelt correctly?\n"
    )
    assert len(json.loads(outcome.out)) == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("retention signup active --by fortnight", "--by takes hour, day, week, month, year, or"),
        ("retention signup active --by 14d", "--by 14d needs --anchor"),
        ("retention signup active --brackets 1;3", "--brackets takes numbers with commas"),
        ("retention signup active --brackets 3,1", "ascending"),
        ("retention signup active --segment ios", "--segment takes NAME=TEXT"),
        ("retention signup active --segment ios=ios@", "character 4"),
        ("retention signup active@13", "@13 is no period"),
        ("retention signup active --mode unbound", "--mode does not take this value"),
        ("funnel signup order --since 2026-01-05 --window 3", "--window takes days or hours"),
        ("funnel signup order --window 3d", "need --since"),
        ("funnel a b --since today --by week", "--since is in order"),
        ("stickiness 'a & b'", "takes the name of an event, and no expression, got 'a & b'"),
        ("stickiness a@2026", "takes the name of an event"),
        ("streak 'a & b' 1", "takes the name of an event"),
        ("streaks 'a | b'", "takes the name of an event"),
        ("ids 0", "without --user-ids, the ids of users are their numbers"),
        ("numbers 0", "without --user-ids, the ids of users are their numbers"),
        ("funnel", "one step or more"),
        ("trend", "one series or more"),
        ("trend active --periods 0", "periods"),
        ("streak active x", "user ids are whole numbers"),
        ("days-active active --days 0x10", "--days does not take this value"),
        ("days-active active --days 1e3", "--days does not take this value"),
        ("ids 1.5", "NUMBER does not take this value"),
        ("days-active active --days 1.5", "--days does not take this value"),
        ("lifecycle active --until 5", "--until takes a date or a moment"),
    ],
)
def test_bad_options(command: str, message: str, cli: CommandLine) -> None:
    outcome = cli(command.replace(";", r"\;"), code=2)
    assert outcome.out == ""
    assert message in outcome.err.replace("\n", " "), outcome.err


def test_a_wide_table_leaves_columns_out(
    tally: SyncTally, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = f"retention signup active --by day --periods 20 {UNTIL}"
    whole = cli.out(command).splitlines()
    assert whole[0].split()[-1] == "20"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    narrow = cli.out(command).splitlines()
    assert max(map(len, narrow)) <= 60
    assert narrow[-1].endswith("columns do not fit; --csv and --html have all)")
    assert len(narrow) == len(whole) + 1
