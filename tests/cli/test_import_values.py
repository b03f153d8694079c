"""`tallymark import`: the values of rows: times by zone, ids by type, keys, lines of logs."""

from __future__ import annotations

import itertools
import json
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import duckdb
import pytest

from tallymark import SyncTally
from tallymark.cli._import.presets import PRESETS
from tallymark.cli._import.zones import local_to_utc, utc_to_local

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import CommandLine

MAP = ["--map", "event=action", "user=uid", "time=at"]

#: Zones whose clocks go back by half an hour or two hours, that skip a day, and those that
#: DuckDB and zoneinfo know differently.
ZONES = (
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Antarctica/Casey",
    "Europe/Chisinau",
    "Africa/Casablanca",
    "America/Vancouver",
    "Pacific/Apia",
    "Africa/Freetown",
    "Asia/Kolkata",
)


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the folder of caches, which is not the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


def imported(cli: CommandLine, words: list[str], code: int = 0) -> dict[str, Any]:
    """Run an import and return its summary."""
    (summary,) = json.loads(cli(["import", *words, "--json"], code=code).out)
    assert isinstance(summary, dict)
    return summary


def users(cli: CommandLine, event: str, day: date, **options: Any) -> set[Any]:
    """Return the users of a day."""
    with SyncTally.from_url(cli.url, **options) as tally:
        return set(tally.users(tally.day(event, day)))


# --- times


@pytest.mark.parametrize("name", ZONES)
def test_zones(name: str) -> None:
    """Each conversion is that of zoneinfo, around all changes of the clock and between them."""
    zone, hour = ZoneInfo(name), timedelta(hours=1)
    begin = datetime(1844, 6, 1)
    moments = [begin + timedelta(days=41, seconds=3607) * n for n in range(2_270)]
    for before, after in itertools.pairwise(list(moments)):
        low, high = before, after
        while high - low > timedelta(seconds=1) and _offset(low, zone) != _offset(high, zone):
            middle = low + (high - low) // 2
            same = _offset(middle, zone) == _offset(low, zone)
            low, high = (middle, high) if same else (low, middle)
        if high != after:
            moments += [high.replace(microsecond=0) + hour / 4 * n for n in range(-110, 110)]
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE moments (t TIMESTAMP)")
        texts = json.dumps([str(each) for each in moments])
        connection.execute(
            "INSERT INTO moments SELECT unnest(from_json(?, '[\"VARCHAR\"]'))::TIMESTAMP", [texts]
        )
        rows = connection.execute(
            f"SELECT t, {utc_to_local('t', name)}, {local_to_utc('t', name)} FROM moments"
        ).fetchall()
    for moment, local, instant in rows:
        there = moment.replace(tzinfo=timezone.utc).astimezone(zone)
        assert local == there.replace(tzinfo=None), moment
        utc = moment.replace(tzinfo=zone).astimezone(timezone.utc)
        assert instant == utc.replace(tzinfo=None), moment


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta | None:
    return moment.replace(tzinfo=timezone.utc).astimezone(zone).utcoffset()


def test_later_years() -> None:
    """After 2100, a zone without changes has its last offset, and others those of DuckDB."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, hour in (("America/Vancouver", 3), ("Europe/Berlin", 12)):
            value = "TIMESTAMP '2150-07-01 10:00:00'"
            query = f"SELECT {utc_to_local('t', name)}, t FROM (SELECT {value} AS t)"
            local, t = connection.execute(query).fetchall()[0]
            assert local.hour == hour
            zone = ZoneInfo(name)
            assert local == t.replace(tzinfo=timezone.utc).astimezone(zone).replace(tzinfo=None)


NOTATIONS = {
    "20260105T220700Z": 5,
    "20260105T2307Z": 6,
    "20260105T230700": 5,
    "20260105T230700.5+0000": 6,
    "2026-01-05Z": 5,
    "2026-01-06+02:00": 5,
    "2026-01-05T23": 5,
    "2026-01-05T23Z": 6,
    "2026-01-05T23:30:00 GMT": 6,
    "20260105.0": 5,
    "1767653999.9999998": 5,  # the last microsecond of a day is not rounded up
    "2026-01-05T10:00:00+25:00": None,
    "2026-01-05T10:00:00+99": None,
    "2026-01-05T10:00:00 NZ": None,
    "2026-01-05T10:00:00 America/Vancouver": None,
}


def test_notations(cli: CommandLine, tmp_path: Path) -> None:
    """Notations of ISO 8601, and what is none."""
    path = tmp_path / "rows.csv"
    rows = [f"a,{number},{time}\n" for number, time in enumerate(NOTATIONS)]
    path.write_text("".join(["action,uid,at\n", *rows]))
    imported(cli, [str(path), *MAP, "--timezone", "Europe/Berlin"], code=1)
    with SyncTally.from_url(cli.url, timezone="Europe/Berlin") as tally:
        found = {
            user: day
            for day in (3, 4, 5, 6, 7)
            for user in tally.users(tally.day("a", date(2026, 1, day)))
        }
    assert {time: found.get(number) for number, time in enumerate(NOTATIONS)} == NOTATIONS


@pytest.mark.parametrize("kind", ["INTEGER", "BIGINT", "DOUBLE", "VARCHAR"])
def test_days_as_numbers(cli: CommandLine, tmp_path: Path, kind: str) -> None:
    """Days in eight digits are days in each type of Parquet, and other numbers are not."""
    path = tmp_path / "rows.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT 'a' AS action, n AS uid, "
            f"CAST([20260105, 20260106, 1767600000][n] AS {kind}) AS at FROM range(1, 4) r(n)) "
            f"TO '{path}'"
        )
    summary = imported(cli, [str(path), *MAP])
    assert (summary["first"], summary["last"]) == ("2026-01-05", "2026-01-06")


# --- ids


def test_ids_in_floats(redis_cli: CommandLine, tmp_path: Path) -> None:
    """Whole numbers in columns of floats are whole ids; NaN is none."""
    path = tmp_path / "rows.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT 'a' AS action, "
            "CAST(unnest(['1', '1e17', 'nan', 'inf', '1.5']) AS DOUBLE) "
            f"AS uid, CAST(NULL AS DOUBLE) AS other, DATE '2026-01-05' AS at) TO '{path}'"
        )
    expected = {"1", "100000000000000000", "1.5"}
    for user, prefix in (("uid", "a_"), ("other|uid", "b_")):
        words = [str(path), "--map", "event=action", f"user={user}", "time=at"]
        words += ["--user-ids", "str", "--prefix", prefix]
        assert imported(redis_cli, words, code=1)["rejected"] == 2
        day = date(2026, 1, 5)
        assert users(redis_cli, "a", day, user_ids=str, prefix=prefix) == expected


def test_objects_and_lists_are_no_ids(redis_cli: CommandLine, tmp_path: Path) -> None:
    """Objects and lists of JSON are rejected; texts that look like them are texts."""
    path, rejects = tmp_path / "rows.ndjson", tmp_path / "rejects.ndjson"
    values: list[tuple[Any, Any]] = [("a", "[1]"), ("a", [1]), ("a", {"x": 1}), (["a"], "u")]
    values.append(("a", "{x"))
    path.write_text(
        "".join(
            json.dumps({"action": event, "uid": user, "at": "2026-01-05"}) + "\n"
            for event, user in values
        )
    )
    words = [str(path), *MAP, "--user-ids", "str", "--rejects", str(rejects)]
    imported(redis_cli, words, code=1)
    reasons = [json.loads(line)["reason"] for line in rejects.read_text().splitlines()]
    wrong = "is an object or a list"
    assert reasons == [f"user id {wrong}", f"user id {wrong}", f"event {wrong}"]
    assert users(redis_cli, "a", date(2026, 1, 5), user_ids=str) == {"[1]", "{x"}


def test_lists_of_parquet(cli: CommandLine, tmp_path: Path) -> None:
    """A column of lists has no ids."""
    path = tmp_path / "rows.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT 'a' AS action, [1] AS uid, DATE '2026-01-05' AS at) TO '{path}'"
        )
    assert "the user is no text and no number" in cli(["import", str(path), *MAP], code=2).err


# --- keys


def test_keys_of_later_rows(
    redis_cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that the first rows lack counts as soon as rows have it."""
    monkeypatch.setattr("tallymark.cli._import.readers._SAMPLE", 2)
    path = tmp_path / "rows.ndjson"
    early = {"type": "track", "event": "a", "anonymousId": "x", "timestamp": "2026-01-05"}
    page = {"type": "page", "name": "home", "anonymousId": "x", "timestamp": "2026-01-05"}
    late = {"originalTimestamp": "2026-01-05T10:00:00Z", "userId": "u"}
    rows = [early, early, {**early, "userId": "u"}, page, {"event": "b", **late}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    imported(redis_cli, [str(path), "--preset", "segment", "--user-ids", "str"])
    day = date(2026, 1, 5)
    found = {event: users(redis_cli, event, day, user_ids=str) for event in ("a", "b", "home")}
    assert found == {"a": {"x", "u"}, "b": {"u"}, "home": {"x"}}


@pytest.mark.parametrize("key", ["originalTimestamp", "original_timestamp"])
def test_other_times_of_segment(redis_cli: CommandLine, tmp_path: Path, key: str) -> None:
    """Calls without a timestamp have the time of the device."""
    path = tmp_path / "rows.ndjson"
    row = {"type": "track", "event": "a", "userId": "u", key: "2026-01-05T10:00:00Z"}
    path.write_text(json.dumps(row))
    words = [str(path), "--preset", "segment", "--user-ids", "str"]
    assert imported(redis_cli, words)["first"] == "2026-01-05"


def test_keys_with_dots(cli: CommandLine, tmp_path: Path) -> None:
    """A nested key that has a dot itself."""
    path = tmp_path / "rows.ndjson"
    path.write_text('{"p.q": {"a.b": {"id": 7}}, "p": {"a": 1}}')
    words = ["--map", "event='a'", "user=p.q.a.b.id", "time='2026-01-05'"]
    imported(cli, [str(path), *words])
    assert users(cli, "a", date(2026, 1, 5)) == {7}


@pytest.mark.parametrize("suffix", ["csv", "ndjson", "parquet"])
def test_names_of_columns(cli: CommandLine, tmp_path: Path, suffix: str) -> None:
    """No name of a column is taken, such as ``__time`` of Druid."""
    path = tmp_path / f"rows.{suffix}"
    values = {"__event": "a", "__user": "7", "__time": "2026-01-05"}
    others = ["__line", "__raw", "__keep", "__local", "__values", "file_row_number"]
    values |= dict.fromkeys(others, "9")
    columns = ", ".join(f"'{value}' AS {name}" for name, value in values.items())
    option = "FORMAT json" if suffix == "ndjson" else f"FORMAT {suffix}"
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT {columns}) TO '{path}' ({option})")
    words = [str(path), "--map", "event=__event", "user=__user", "time=__time"]
    where = " AND ".join(f"{name} = '{value}'" for name, value in values.items())
    imported(cli, [*words, "--where", where])
    assert users(cli, "a", date(2026, 1, 5)) == {7}


def test_conditions(cli: CommandLine, tmp_path: Path) -> None:
    """A condition with a comment, and an empty one."""
    path = tmp_path / "rows.csv"
    path.write_text("action,uid,at\na,1,2026-01-05\nb,1,2026-01-05\n")
    words = [str(path), *MAP, "--where", " "]
    assert "--where is empty" in cli(["import", *words], code=2).err
    words[-1] = "action = 'b' -- or so"
    assert imported(cli, words)["skipped"] == 1


@pytest.mark.parametrize(
    ("name", "words", "option"),
    [
        ("rows.csv", [*MAP, "--time-format", "%Q"], "--time-format %Q: "),
        ("rows.log", ["--preset", "nginx", "--path-event", "(=a"], "--path-event (: "),
    ],
)
def test_options_in_messages(
    cli: CommandLine, tmp_path: Path, name: str, words: list[str], option: str
) -> None:
    """A message names the option that is wrong."""
    path = tmp_path / name
    path.write_text("action,uid,at\na,1,2026-01-05\n")
    assert option in cli(["import", str(path), *words], code=2).err


# --- logs

LINE = '[05/Jan/2026:10:00:00 +0000] "GET {} HTTP/1.1" 200 5 "-" "agent \\"x\\""'


@pytest.mark.parametrize(
    ("line", "address", "user", "path", "query"),
    [
        ("192.0.2.1 - u-1 " + LINE.format("/a?b=1"), "192.0.2.1", "u-1", "/a", "b=1"),
        ("192.0.2.1 - John Doe " + LINE.format("/a"), "192.0.2.1", "John Doe", "/a", ""),
        ("2001:db8::1 - John Doe " + LINE.format("/a"), "2001:db8::1", "John Doe", "/a", ""),
        ("shop.example:443 192.0.2.1 - u " + LINE.format("/a"), "192.0.2.1", "u", "/a", ""),
        ("192.0.2.1 - u " + LINE.format('/a\\"b?c=\\"'), "192.0.2.1", "u", '/a\\"b', 'c=\\"'),
    ],
)
def test_lines_of_logs(line: str, address: str, user: str, path: str, query: str) -> None:
    """Names with blanks, quotation marks that are escaped, and virtual hosts."""
    preset = PRESETS["nginx"]
    with duckdb.connect() as connection:
        (found,) = connection.execute(
            f"SELECT regexp_extract(?, ?, {list(preset.line_names)})", [line, preset.line_pattern]
        ).fetchall()[0]
    expected = {"remote_addr": address, "remote_user": user, "path": path, "query": query}
    assert {name: found[name] for name in expected} == expected
    assert (found["status"], found["agent"]) == ("200", 'agent \\"x\\"')
