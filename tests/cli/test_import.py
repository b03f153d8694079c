"""`tallymark import`: mapping, times, ids, rejected rows, bad input, dry runs, repetition."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import signal
import threading
import uuid
from datetime import date, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import duckdb
import pytest

from tallymark import StoreUnavailableError, SyncTally
from tallymark.cli._import.job import Import, ImportOptions
from tallymark.cli._import.progress import Progress
from tallymark.cli._import.staging import Stage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_line import CommandLine

    from stores import Store

MAP = "--map event=action user=uid time=at"


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of caches, which is not the user's."""
    path = tmp_path / "caches"
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes a file and returns its name."""

    def write(name: str, *lines: str) -> str:
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return str(path)

    return write


def imported(cli: CommandLine, command: str | list[str], code: int = 0) -> dict[str, Any]:
    """Run an import and return its summary."""
    words = [*command, "--json"] if isinstance(command, list) else f"{command} --json"
    (summary,) = json.loads(cli(words, code=code).out)
    assert isinstance(summary, dict)
    return summary


def days(url: str, event: str, first: date, count: int, **options: Any) -> dict[date, set[Any]]:
    """Return the users of some days, without the days that have none."""
    with SyncTally.from_url(url, **options) as tally:
        found = {
            first + timedelta(days=n): set(tally.users(tally.day(event, first + timedelta(days=n))))
            for n in range(count)
        }
    return {day: users for day, users in found.items() if users}


# --- formats


def test_formats(cli: CommandLine, tmp_path: Path) -> None:
    """Each format and compression has the same rows."""
    rows = [{"action": "login", "uid": n, "at": f"2026-01-0{1 + n % 5}"} for n in range(40)]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    table = "action,uid,at\n" + "".join(f"login,{row['uid']},{row['at']}\n" for row in rows)
    texts = {
        "a.ndjson": lines,
        "b.json": json.dumps(rows),
        "c.json": lines,
        "d.csv": table,
        "e.tsv": table.replace(",", "\t"),
        "f.csv": table.replace(",", ";"),
    }
    for name, content in texts.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "g.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    with duckdb.connect() as connection:
        select = f"SELECT * FROM read_csv('{tmp_path}/d.csv')"
        connection.execute(f"COPY ({select}) TO '{tmp_path}/h.csv.zst' (COMPRESSION zstd)")
        connection.execute(f"COPY ({select}) TO '{tmp_path}/i.parquet' (COMPRESSION zstd)")
    for path in sorted(tmp_path.iterdir()):
        summary = imported(cli, f"import {path} {MAP} --prefix {path.name[0]}_")
        assert (summary["rows"], summary["marks"], summary["users"]) == (40, 40, 40), path
        found = days(cli.url, "login", date(2026, 1, 1), 5, prefix=f"{path.name[0]}_")
        assert found == {date(2026, 1, 1 + n): set(range(n, 40, 5)) for n in range(5)}, path


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes], caches: Path
) -> None:
    """The standard input, plain or compressed; nothing of it stays."""
    content = pack(b"login,7,2026-01-05\nlogin,8,2026-01-05\n")
    stream = SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False)
    monkeypatch.setattr("sys.stdin", stream)
    command = "import --format csv --no-header --map event=column1 user=column2 time=column3"
    assert imported(cli, command)["marks"] == 2
    assert days(cli.url, "login", date(2026, 1, 5), 1) == {date(2026, 1, 5): {7, 8}}
    assert not caches.exists()


def test_files_and_patterns(cli: CommandLine, file: Callable[..., str], tmp_path: Path) -> None:
    """Patterns, several files, names that are SQL or look like patterns, and an empty file."""
    names = ["o'ne.csv", "two.csv", "[3]*.csv", 'fo"ur.csv']
    for number, name in enumerate(names):
        file(name, "action,uid,at", f"login,{number},2026-01-05")
    (tmp_path / "empty.csv").touch()
    assert imported(cli, ["import", f"{tmp_path}/*.csv", *MAP.split()])["rows"] == 4
    assert days(cli.url, "login", date(2026, 1, 5), 1) == {date(2026, 1, 5): {0, 1, 2, 3}}
    named = ["import", str(tmp_path / "[3]*.csv"), *MAP.split(), "--prefix", "other_"]
    assert imported(cli, named)["rows"] == 1
    assert days(cli.url, "login", date(2026, 1, 5), 1, prefix="other_")[date(2026, 1, 5)] == {2}


# --- mapping


def test_mapping(cli: CommandLine, file: Callable[..., str]) -> None:
    """Constants, other columns, nested ones, keys with dots, SQL, and a condition."""
    lines = [
        {"p": {"id": 1, "plan": "pro"}, "when": "2026-01-05", "a.b": "x", "n": -1},
        {"p": {"id": "", "plan": "pro"}, "other": "2", "when": "2026-01-05", "a.b": "y", "n": 5},
        {"p": {"plan": "free"}, "other": 3, "when": "2026-01-05", "a.b": "x", "n": 7},
        {"other": 4, "when": "2026-01-05", "a.b": "z"},
    ]
    name = file("rows.ndjson", *map(json.dumps, lines))
    common = ["import", name, "--map", "user=p.id|other", "time=when"]
    day = date(2026, 1, 5)
    assert imported(cli, [*common, "event='it''s'"])["marks"] == 4
    assert days(cli.url, "it's", day, 1) == {day: {1, 2, 3, 4}}
    imported(cli, [*common, "event=a.b"])
    assert days(cli.url, "x", day, 1) == {day: {1, 3}}
    imported(cli, [*common, "event=('plan:' || p.plan)", "--where", "n < 6"])
    assert days(cli.url, "plan:pro", day, 1) == {day: {1, 2}}
    assert not days(cli.url, "plan:free", day, 1)


def test_keys_of_several_kinds(cli: CommandLine, file: Callable[..., str]) -> None:
    """Where a key has objects and other values, its nested keys are found."""
    lines = ['{"p": {"id": 1}, "o": 5}', '{"p": "text", "o": 2}', "[1]", '{"p": null, "o": 3}']
    name = file("rows.ndjson", *lines)
    command = ["import", name, "--map", "event='e'", "user=p.id|o", "time='2026-01-05'"]
    assert imported(cli, command, code=1)["rejected"] == 1
    day = date(2026, 1, 5)
    assert days(cli.url, "e", day, 1) == {day: {1, 2, 3}}


def test_condition_of_a_table(cli: CommandLine, file: Callable[..., str]) -> None:
    """A condition on CSV; rows that do not fulfil it are skipped, not rejected."""
    name = file(
        "rows.csv", "action,uid,at,line", "login,1,2026-01-05,9", "login,x,2026-01-05,1", "c,2,3,"
    )
    summary = imported(cli, ["import", name, *MAP.split(), "--where", "CAST(line AS INT) > 3"])
    assert (summary["marks"], summary["skipped"], summary["rejected"]) == (1, 2, 0)


@pytest.mark.parametrize(
    "condition",
    [
        "uid IN (SELECT content FROM read_text('{0}'))",
        "uid IN (SELECT file FROM glob('{0}'))",
        "EXISTS (SELECT 1 FROM read_csv('{0}'))",
        "1 = 1) UNION ALL SELECT * FROM read_text('{0}') --",
    ],
)
def test_a_condition_reads_no_other_file(
    cli: CommandLine, file: Callable[..., str], condition: str
) -> None:
    """The user's SQL sees the rows, and no other file."""
    secret = file("secret.txt", "1")
    name = file("rows.csv", "action,uid,at", "login,1,2026-01-05")
    command = ["import", name, *MAP.split(), "--where", condition.format(secret)]
    outcome = cli(command, code=2)
    assert "--where" in outcome.err


# --- times


TIMES = {
    "2026-01-05T23:30:00Z": (6, 0),
    "2026-01-05 23:30:00.5+00:00": (6, 0),
    "2026-01-05 23:30:00 UTC": (6, 0),
    "2026-01-05 18:30:00 -0500": (6, 0),
    "2026-01-05T23:30z": (6, 0),
    "2026-01-05T23:30:00.123456789Z": (6, 0),
    "2026-01-05T23:30:00": (5, 23),
    "2026-01-05": (5, 0),
    " 2026-01-05 23:30 ": (5, 23),
    "20260105": (5, 0),
    "20260105233000": (5, 23),
    "1767655800": (6, 0),
    "1767655800.25": (6, 0),
    "1767655800000": (6, 0),
    "1767655800000000": (6, 0),
    "1767655800000000000": (6, 0),
    "1.7676558e9": (6, 0),
}

UNREADABLE = [
    "soon",
    "05/01/2026",
    "2026-13-05",
    "2026-02-30T10:00:00Z",
    "20261399",
    "10:00",
    "1e30",
    "nan",
    "infinity",
    "epoch",
    "0x10",
]


def test_times(cli: CommandLine, file: Callable[..., str]) -> None:
    """All notations of times, in a time zone."""
    rows = [f"t{n},1,{time}" for n, time in enumerate(TIMES)]
    name = file("rows.csv", "action,uid,at", *rows)
    imported(cli, f"import {name} {MAP} --timezone Europe/Berlin --hourly")
    with SyncTally.from_url(cli.url, timezone="Europe/Berlin") as tally:
        for number, (text, (day, hour)) in enumerate(TIMES.items()):
            moment = datetime(2026, 1, day, hour, 30)
            assert tally.contains(tally.hour(f"t{number}", moment), 1), text
            assert tally.contains(tally.day(f"t{number}", moment), 1), text


def test_unreadable_times(cli: CommandLine, file: Callable[..., str], tmp_path: Path) -> None:
    """What is no time is rejected, and nothing else."""
    ends = ["0001-01-01", "9999-12-31T23:59:59", "10000-01-01", "0000-12-31"]
    rows = [f"login,{n},{time}" for n, time in enumerate([*UNREADABLE, *ends])]
    name = file("rows.csv", "action,uid,at", *rows)
    summary = imported(cli, f"import {name} {MAP} --rejects {tmp_path}/r.csv", code=1)
    assert (summary["marks"], summary["rejected"]) == (2, len(UNREADABLE) + 2)
    assert (summary["first"], summary["last"]) == ("0001-01-01", "9999-12-31")


def test_number_of_2026_is_a_number(cli: CommandLine, file: Callable[..., str]) -> None:
    """Four digits are seconds: no year is taken for a day."""
    name = file("rows.ndjson", '{"action": "a", "uid": 1, "at": 86400}')
    assert imported(cli, f"import {name} {MAP}")["first"] == "1970-01-02"


def test_units_of_numbers(cli: CommandLine, file: Callable[..., str]) -> None:
    """Each unit ends where the next one begins."""
    first, last = "1970-04-26", "2286-11-20"
    rows = [f"a,1,{10**power}" for power in (10, 13, 16)]
    rows += [f"b,1,{10**power - 10 ** (power - 10)}" for power in (10, 13, 16)]
    for event, day in (("a", first), ("b", last)):
        lines = (row for row in rows if row.startswith(event))
        name = file(f"{event}.csv", "action,uid,at", *lines)
        summary = imported(cli, f"import {name} {MAP}")
        assert (summary["marks"], summary["first"], summary["last"]) == (1, day, day)


def test_time_format(cli: CommandLine, file: Callable[..., str]) -> None:
    """A format of the user's own, and a time zone of the source."""
    name = file("rows.csv", "action,uid,at", "login,1,05.01.2026 20:00")
    words = ["import", name, *MAP.split(), "--time-format", "%d.%m.%Y %H:%M"]
    words += ["--source-timezone", "America/New_York"]
    assert imported(cli, words)["first"] == "2026-01-06"


@pytest.mark.parametrize("begin", [datetime(2026, 3, 28, 20), datetime(2026, 10, 24, 20)])
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("Europe/Berlin", "Asia/Kolkata"),
        ("America/New_York", "Europe/Berlin"),
        ("UTC", "Europe/Berlin"),
        ("Europe/Berlin", "UTC"),
        ("Australia/Lord_Howe", "America/New_York"),
    ],
)
def test_clock_changes(
    cli: CommandLine, file: Callable[..., str], begin: datetime, source: str, target: str
) -> None:
    """Hours around clock changes are those that `datetime` computes."""
    times = [begin + timedelta(minutes=20 * n) for n in range(60)]
    if source == "America/New_York":
        times = [each + timedelta(days=7 if begin.month > 9 else -21) for each in times]
    name = file("rows.csv", "action,uid,at", *(f"a,{n},{time}" for n, time in enumerate(times)))
    zones = f"--source-timezone {source} --timezone {target}"
    assert imported(cli, f"import {name} {MAP} --hourly {zones}")["marks"] == 60
    expected: dict[datetime, set[int]] = {}
    for number, time in enumerate(times):
        there = time.replace(tzinfo=ZoneInfo(source)).astimezone(ZoneInfo(target))
        hour = there.replace(minute=0, second=0, tzinfo=None, fold=0)
        expected.setdefault(hour, set()).add(number)
    with SyncTally.from_url(cli.url, timezone=target) as tally:
        assert {hour: set(tally.users(tally.hour("a", hour))) for hour in expected} == expected


# --- users


UUIDS = [uuid.UUID(int=n << 64 | 9) for n in range(3)]


@pytest.mark.parametrize(
    ("kind", "good"),
    [
        (None, {"1": 1, " 2": 2, "3.0": 3, "500000": 500_000, "+5": 5}),
        ("int", {"-7": -7, "9007199254740993": 9007199254740993, "0": 0, "3.": 3}),
        ("uuid", {str(UUIDS[1]): UUIDS[1], UUIDS[2].hex.upper(): UUIDS[2]}),
        ("bytes", {"00ff": b"\x00\xff", "AB": b"\xab"}),
        ("str", {"x": "x", " y ": " y ", "4294967296": "4294967296", "1.5": "1.5"}),
    ],
)
def test_ids(
    redis_cli: CommandLine,
    file: Callable[..., str],
    kind: str | None,
    good: dict[str, Any],
) -> None:
    """Ids of each type; what is none of that type is rejected."""
    others = ["1x", "-", "1.5", "٣", "é", "1e3", "99999999999999999999999"]
    if kind is None:
        others[1:1] = ["4294967296", "-1"]
    lines = [f'login,"{each}",2026-01-05' for each in (*good, *others)]
    name = file("rows.csv", "action,uid,at", *lines)
    option = "" if kind is None else f"--user-ids {kind}"
    rejected = 0 if kind == "str" else len(others)
    summary = imported(redis_cli, f"import {name} {MAP} {option}", code=1 if rejected else 0)
    assert summary["rejected"] == rejected
    kinds = {None: None, "int": int, "uuid": uuid.UUID, "bytes": bytes, "str": str}
    found = days(redis_cli.url, "login", date(2026, 1, 5), 1, user_ids=kinds[kind])
    extra = others if kind == "str" else []
    assert found == {date(2026, 1, 5): {*good.values(), *extra}}


@pytest.mark.parametrize("many", [1, 45, 10_000])
def test_many_users(
    many: int, redis_cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users come in parts whose numbers the tally caches, and marks in blocks."""
    monkeypatch.setattr("tallymark.cli._import.staging._USERS_OF_A_PART", 100)
    monkeypatch.setattr("tallymark.cli._import.job._BLOCK", 130)
    monkeypatch.setattr("tallymark.cli._import.job._MANY", many)
    lines = [f"e{n % 3},user-{n % 350},2026-01-0{1 + n % 4}" for n in range(2_000)]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["action,uid,at", *lines]))
    summary = imported(redis_cli, f"import {path} {MAP} --user-ids str")
    expected = {tuple(line.split(",")) for line in lines}
    assert (summary["marks"], summary["users"]) == (len(expected), 350)
    found = {
        (event, user, day.isoformat())
        for event in ("e0", "e1", "e2")
        for day, users in days(redis_cli.url, event, date(2026, 1, 1), 4, user_ids=str).items()
        for user in users
    }
    assert found == expected


def test_hours_and_flags(cli: CommandLine, file: Callable[..., str]) -> None:
    """``--hourly`` and ``--unique`` mark as `mark_event` with them does."""
    name = file("rows.csv", "action,uid,at", "login,1,2026-01-05 10:20", "login,1,2026-01-05 11:20")
    assert imported(cli, f"import {name} {MAP}")["marks"] == 1
    summary = imported(cli, f"import {name} {MAP} --hourly --unique")
    assert (summary["marks"], summary["new"]) == (2, 3)
    assert (summary["first"], summary["last"]) == ("2026-01-05T10", "2026-01-05T11")
    with SyncTally.from_url(cli.url) as tally:
        assert tally.contains(tally.hour("login", datetime(2026, 1, 5, 11)), 1)
        assert tally.contains(tally.unique("login"), 1)


# --- rejected rows


def test_lines_of_rejected_rows(cli: CommandLine, tmp_path: Path) -> None:
    """Numbers of lines are right behind empty lines and lines that cannot be decoded."""
    good, bad = b'{"action": "a", "uid": 1, "at": 1}', b'{"action": "a", "uid": "x", "at": 1}'
    lines = [good, b"", bad, b'{"a": "\xff"}', bad, good, b"\xc3(", b"  ", bad, b"{", bad]
    (tmp_path / "rows.ndjson").write_bytes(b"\n".join(lines))
    command = f"import {tmp_path}/rows.ndjson {MAP} --rejects {tmp_path}/r.ndjson"
    outcome = cli(f"{command} --json", code=1)
    found = [json.loads(line) for line in (tmp_path / "r.ndjson").read_text("utf-8").splitlines()]
    kinds = {row["line"]: row["reason"].partition(":")[0] for row in found}
    assert kinds == {
        3: "user id is no whole number",
        4: "not in the encoding; --encoding names another",
        5: "user id is no whole number",
        7: "not in the encoding; --encoding names another",
        9: "user id is no whole number",
        10: "malformed JSON",
        11: "user id is no whole number",
    }
    assert [row["row"] for row in found if row["line"] in (3, 10)] == [bad.decode(), "{"]
    assert json.loads(outcome.out)[0]["rows"] == 9
    assert "7 rows rejected: user id is no whole number: 4;" in outcome.err
    assert f"{tmp_path}/r.ndjson" in outcome.err


def test_rejected_rows_of_a_table(
    cli: CommandLine, file: Callable[..., str], tmp_path: Path
) -> None:
    """CSV in, CSV out."""
    name = file(
        "rows.csv", "action,uid,at", "a,1,2026-01-05", "a,2", "a,x,2026-01-05", 'b,,"soon, or so"'
    )
    imported(cli, f"import {name} {MAP} --rejects {tmp_path}/r.csv", code=1)
    lines = (tmp_path / "r.csv").read_text("utf-8").splitlines()
    assert lines[0] == "source,line,reason,row"
    assert [line.split(",")[:2] for line in lines[1:]] == [[name, "3"], [name, "4"], [name, "5"]]
    assert "no user id" in lines[3]
    assert "soon, or so" in lines[3]


def test_most_rejected_rows(cli: CommandLine, file: Callable[..., str]) -> None:
    """``--max-rejects`` allows some; with more, nothing is sent."""
    name = file("rows.csv", "action,uid,at", "a,1,2026-01-05", "a,x,2026-01-05", "a,y,2026-01-05")
    outcome = cli(f"import {name} {MAP} --max-rejects 1", code=1)
    assert "2 rows rejected, more than --max-rejects 1, so nothing was sent: " in outcome.err
    assert not days(cli.url, "a", date(2026, 1, 5), 1)
    assert imported(cli, f"import {name} {MAP} --max-rejects 2")["marks"] == 1


# --- bad input


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("none.csv {map}", "there is no file"),
        ("none*.csv {map}", "no file matches"),
        (". {map}", "is a folder"),
        ("empty.csv {map}", "there are no rows in"),
        ("header.csv {map}", "there are no rows in"),
        ("rows.dat {map}", "add --format csv"),
        ("rows.log {map}", "lines of text need a preset"),
        ("rows.csv", "--map event=COLUMN user=COLUMN time=COLUMN, or --preset"),
        ("rows.csv --map event=action", "--map user=COLUMN time=COLUMN"),
        ("rows.csv --map x=y", "--map takes event=COLUMN"),
        ("rows.csv --map event=a event=b", "write event=ONE|OTHER"),
        (
            "rows.csv --map event=action user=user_id time=at",
            "no column user_id for the user; found: action, uid, at",
        ),
        ("rows.csv --map event=actoin user=uid time=at", "try --map event=action"),
        ("rows.csv --preset segment", "the preset segment does not fit"),
        ("rows.csv --preset other", "--preset is one of segment"),
        ("rows.log --preset nginx", "needs the events that paths stand for"),
        ("rows.csv {map} --path-event a=b", "for log files"),
        ("rows.json --preset matomo", "no list actionDetails"),
        ("rows.json {map}", "found: x, y.z"),
        ("text.json {map}", "rows are no objects of JSON"),
        ("rows.csv {map} --where 'foo = 1'", 'column "foo" not found'),
        ("rows.csv {map} --where 'foo ='", "--where"),
        ("rows.csv {map} --where 'CAST(uid AS INT) > 1'", "Could not convert string 'x'"),
        ("rows.csv {map} --source-timezone Mars/Olympus", "no time zone 'Mars/Olympus'"),
        ("rows.csv {map} --rejects r.txt", "has to end in .ndjson or .csv"),
        ("rows.csv {map} --rejects none/r.csv", "there is no folder"),
        ("rows.csv {map} --memory lots", "--memory"),
        ("broken.csv.gz {map}", "cannot be read"),
        ("broken.parquet {map}", "cannot be read"),
        ("rows.zip {map}", "is no zip archive"),
        ("utf-16.csv {map}", "UTF-16"),
    ],
)
def test_bad_input(
    cli: CommandLine,
    file: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    message: str,
) -> None:
    """A message says what was found and what to try; nothing is sent, and nothing stays."""
    file("rows.csv", "action,uid,at", "login,1,2026-01-05", "login,x,2026-01-05")
    for name in ("rows.dat", "rows.log", "broken.parquet", "rows.zip"):
        file(name, "text")
    file("header.csv", "action,uid,at")
    file("rows.json", '{"x": 1, "y": {"z": 2}}')
    file("text.json", "[1, 2, 3]")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "broken.csv.gz").write_bytes(gzip.compress(b"action,uid,at\n" * 999)[:-9])
    (tmp_path / "utf-16.csv").write_bytes("\ufeffaction,uid,at\nlogin,1,1\n".encode("utf-16-be"))
    monkeypatch.chdir(tmp_path)
    outcome = cli(f"import {command.format(map=MAP)}", code=2)
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not days(cli.url, "login", date(2026, 1, 5), 1)


def test_other_encodings(cli: CommandLine, tmp_path: Path) -> None:
    """Texts in UTF-16 and Latin-1."""
    for encoding in ("utf-16", "latin-1"):
        path = tmp_path / f"{encoding}.csv"
        path.write_bytes("action,uid,at\ngröße,1,2026-01-05\n".encode(encoding))
        imported(cli, f"import {path} {MAP} --encoding {encoding} --prefix {encoding}_")
        found = days(cli.url, "größe", date(2026, 1, 5), 1, prefix=f"{encoding}_")
        assert found == {date(2026, 1, 5): {1}}


# --- runs


def test_dry_run(cli: CommandLine, file: Callable[..., str], caches: Path) -> None:
    """A dry run counts, and sends nothing."""
    name = file("rows.csv", "action,uid,at", "a,1,2026-01-05", "b,1,2026-01-06", "b,2,2026-01-06")
    out = cli.out(f"import {name} {MAP} --dry-run")
    assert "nothing was sent" in out
    assert "3 marks of 2 users and 2 events, 2026-01-05 to 2026-01-06" in out
    assert [line.split() for line in out.splitlines()[2:4]] == [["b", "2"], ["a", "1"]]
    assert not days(cli.url, "b", date(2026, 1, 6), 1)
    summary = imported(cli, f"import {name} {MAP} --dry-run")
    assert (summary["by_event"], summary["sent"]) == ({"b": 2, "a": 1}, False)
    assert not caches.exists()


def test_repetition(redis_cli: CommandLine, file: Callable[..., str], caches: Path) -> None:
    """An import again changes nothing; nothing stays of either."""
    name = file("rows.csv", "action,uid,at", "a,1,2026-01-05", "a,1,2026-01-05", "b,1,2026-01-06")
    assert imported(redis_cli, f"import {name} {MAP}")["new"] == 6
    again = imported(redis_cli, f"import {name} {MAP}")
    assert (again["marks"], again["new"]) == (2, 0)
    assert not list((caches / "tallymark" / "imports").iterdir())


def test_bad_input_leaves_nothing(
    redis_cli: CommandLine, file: Callable[..., str], caches: Path
) -> None:
    """What was read before bad input was found is removed."""
    good = file("a.csv", "action,uid,at", "login,1,2026-01-05")
    bad = file("b.csv", "action,user,at", "login,1,2026-01-05")
    assert "no column uid" in redis_cli(f"import {good} {bad} {MAP}", code=2).err
    assert "there is no file" in redis_cli(f"import {good} none.csv {MAP}", code=2).err
    redis_cli(f"import {good} {MAP} --where 'CAST(action AS INT) = 1'", code=2)
    assert not list((caches / "tallymark" / "imports").iterdir())


class Failing:
    """A tally whose marks fail from some call on."""

    def __init__(self, tally: Any, calls: int, error: BaseException) -> None:
        self.backend = tally.backend
        self.calls = 0
        self._tally, self._most, self._error = tally, calls, error

    def __getattr__(self, name: str) -> Any:
        """Return the verbs that read."""
        return getattr(self._tally, name)

    def mark_many(self, event: str, users: Any, **options: Any) -> Any:
        """Mark, or fail."""
        return self._called(self._tally.mark_many, event, users, **options)

    def mark_rows(self, rows: Any, **options: Any) -> Any:
        """Mark, or fail."""
        return self._called(self._tally.mark_rows, rows, **options)

    def _called(self, verb: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if self.calls >= self._most:
            raise self._error
        self.calls += 1
        return verb(*arguments, **options)


@pytest.mark.parametrize("error", [StoreUnavailableError("gone"), KeyboardInterrupt()])
def test_going_on(
    memory_store: Store,
    file: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    caches: Path,
) -> None:
    """After a failure or Ctrl-C, the same import goes on where it ended."""
    monkeypatch.setattr("tallymark.cli._import.job._BLOCK", 10)
    lines = [f"e{n // 20},{n % 20},2026-01-0{1 + n % 2}" for n in range(60)]
    name = file("rows.csv", "action,uid,at", *lines)
    options = ImportOptions((name,), maps=("event=action", "user=uid", "time=at"))
    with SyncTally.from_url(memory_store.url) as tally:
        failing = Failing(tally, 4, error)
        with pytest.raises(type(error)):
            Import(failing, options, target="store").run()
        assert "40 of 60 marks are sent; the same command goes on there" in capsys.readouterr().err
        other = Failing(tally, 99, error)
        summary = Import(other, options, target="store").run()
        assert "was interrupted, behind 40 marks; --anew" in capsys.readouterr().err
    assert failing.calls == 4
    assert other.calls == 2
    assert summary.new["DAY"] == 60
    assert summary.rows == 60
    assert not list((caches / "tallymark" / "imports").iterdir())


def test_other_imports_do_not_go_on(
    memory_store: Store, file: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Another store, prefix or time zone is another import; so is the same with ``anew``."""
    name = file("rows.csv", "action,uid,at", *(f"e{n},{n},2026-01-05" for n in range(40)))
    options = ImportOptions((name,), maps=("event=action", "user=uid", "time=at"))
    with SyncTally.from_url(memory_store.url) as tally:
        with pytest.raises(KeyboardInterrupt):
            Import(Failing(tally, 0, KeyboardInterrupt()), options, target="store").run()
        capsys.readouterr()
        others: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({}, {"target": "other"}),
            ({"prefix": "other_"}, {}),
            ({"timezone": "Asia/Tokyo"}, {}),
            ({"user_ids": int, "prefix": "third_"}, {}),
        ]
        for tally_options, more in others:
            with SyncTally.from_url(memory_store.url, **tally_options) as other:
                Import(other, options, **{"target": "store", **more}).run()
        Import(tally, options, target="store", anew=True).run()
        assert not capsys.readouterr().err


def test_going_on_with_the_next_file(
    memory_store: Store, file: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that were read are not read again, unless one of them has changed."""
    names = tuple(file(f"{n}.csv", "action,uid,at", f"a,{n},2026-01-05") for n in range(3))
    read: list[int] = []
    whole = Stage.read

    def interrupted(self: Stage, number: int, *rest: Any) -> None:
        if number == 2 and len(read) == 2:
            raise KeyboardInterrupt
        read.append(number)
        whole(self, number, *rest)

    monkeypatch.setattr(Stage, "read", interrupted)
    options = ImportOptions(names, maps=("event=action", "user=uid", "time=at"))
    with SyncTally.from_url(memory_store.url) as tally:
        with pytest.raises(KeyboardInterrupt):
            Import(tally, options, target="store").run()
        read.append(-1)
        assert Import(tally, options, target="store").run().marks == 3
        assert read == [0, 1, -1, 2]
        read.clear()
        with pytest.raises(KeyboardInterrupt):
            Import(tally, options, target="store").run()
        file("1.csv", "action,uid,at", "a,1,2026-01-05", "a,7,2026-01-05")
        read.append(-1)
        assert Import(tally, options, target="store").run().marks == 4
        assert read == [0, 1, -1, 0, 1, 2]


@pytest.mark.parametrize("drops", [False, True])
def test_an_interrupted_query(
    redis_cli: CommandLine,
    file: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    drops: bool,
) -> None:
    """Ctrl-C during a query of DuckDB has the exit code of Ctrl-C; the import goes on.

    Also if something drops the exception, as DuckDB does while it imports pandas.
    """
    whole = Stage.group

    def endless(self: Stage) -> None:
        thread = threading.get_ident()
        if drops:
            with contextlib.suppress(KeyboardInterrupt):
                signal.pthread_kill(thread, signal.SIGINT)
        else:
            threading.Timer(0.2, signal.pthread_kill, (thread, signal.SIGINT)).start()
        self.connection.execute("SELECT max(hash(n)) FROM range(20000000000) AS a(n)")

    monkeypatch.setattr(Stage, "group", endless)
    name = file("rows.csv", "action,uid,at", "a,1,2026-01-05")
    assert redis_cli(f"import {name} {MAP}", code=130).err == "tallymark: interrupted\n"
    monkeypatch.setattr(Stage, "group", whole)
    outcome = redis_cli(f"import {name} {MAP}")
    assert "goes on with the import" in outcome.err
    assert "1 mark of 1 user" in outcome.out


def test_lines_of_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal, a line now and then says how far it is."""
    now = [100.0]
    monkeypatch.setattr("tallymark.cli._import.progress.time.monotonic", lambda: now[0])
    with Progress(shown=True).step("marking", 1000, "marks") as step:
        now[0] += 5
        step.advance(100)
        assert not capsys.readouterr().err
        now[0] += 15
        step.advance(500)
    assert capsys.readouterr().err == "tallymark: marking: 50%, 25 marks/s, 20 s left\n"
