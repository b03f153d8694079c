"""``tallymark export`` and ``tallymark import --preset tallymark``: files, and what is refused."""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import json
import re
import uuid
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from exports import FILES, HEADER, NOON, ODD, fill, rows_of, users, without_pyarrow

from tallymark import Batch, Granularity, SyncTally
from tallymark._core.user_ids import id_type
from tallymark.cli import _batch_files, _restore

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import CommandLine

    from stores import Store

IDS: dict[str, list[Any]] = {
    "offsets": [1, 5, 2**20],
    "int": [-1, 2**63 - 1, 0],
    "str": [
        *("ann", "a,b", 'say "hi"', "line\nbreak", "\r", " spaces ", "007", "null", "NULL", '"'),
        *("\x00", "\ufeff", "\u2028", "ü", "=1+1", "x" * 1024),
    ],
    "uuid": [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)],
    "bytes": [b"\x00\xff", b"abc", b"\\x00"],
}
KINDS: dict[str, Any] = {"offsets": None, "int": int, "str": str, "uuid": uuid.UUID, "bytes": bytes}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, kind: str
) -> None:
    if "without" in file:
        without_pyarrow(monkeypatch)
    fill(cli.url, IDS[kind], user_ids=KINDS[kind])
    ids = "" if kind == "offsets" else f"--user-ids {kind}"
    path = tmp_path / file
    rows = sum(map(len, users(cli.url, user_ids=KINDS[kind]).values()))
    assert cli.out(f"{ids} export {path}") == f"{rows} rows of 10 bitmaps of 2 events\n"
    restore = f"--prefix copy_ --shards 3 {ids} import --preset tallymark {path}"
    assert cli.rows(restore)[0]["new"] == rows
    copy = users(cli.url, user_ids=KINDS[kind], prefix="copy_", shards=3)
    assert copy == users(cli.url, user_ids=KINDS[kind])
    answer = cli.rows(restore)[0]
    assert (answer["rows"], answer["new"], answer["sent"]) == (rows, 0, True)
    assert [each.name for each in tmp_path.iterdir()] == [file]


def test_ids_become_texts(cli: CommandLine, tmp_path: Path) -> None:
    fill(cli.url, [1, 5, 70_000])
    cli(f"export {tmp_path / 'x.csv'} --event active")
    cli(f"--prefix copy_ --user-ids str import --preset tallymark {tmp_path / 'x.csv'}")
    copy = users(cli.url, user_ids=str, prefix="copy_")
    assert copy["active", Granularity.UNIQUE, None] == {"1", "5", "70000"}
    cli(f"--prefix copy_ --user-ids str export {tmp_path / 'x.parquet'}")
    cli(f"--prefix back_ import --preset tallymark {tmp_path / 'x.parquet'}")
    back = users(cli.url, prefix="back_")
    assert back["active", Granularity.UNIQUE, None] == {1, 5, 70_000}


def test_formats(cli: CommandLine, tmp_path: Path) -> None:
    with SyncTally.from_url(cli.url) as tally:
        tally.mark_event("active", 7, now=NOON)
        tally.mark_unique(ODD, 1)
    csv = (
        f'{HEADER}"a,""b"" \'c\' {{ü}}",unique,,1\n'
        "active,day,2026-01-05,7\nactive,week,2026-W02,7\nactive,month,2026-01,7\n"
    )
    cli(f"export {tmp_path / 'x.csv'}")
    assert (tmp_path / "x.csv").read_text("utf-8") == csv
    cli(f"export {tmp_path / 'x.gz'} --format csv")
    assert gzip.decompress((tmp_path / "x.gz").read_bytes()).decode() == csv
    cli(f"export {tmp_path / 'x.jsonl'}")
    lines = (tmp_path / "x.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines][:2] == [
        {"event": ODD, "granularity": "unique", "period": None, "user_id": 1},
        {"event": "active", "granularity": "day", "period": "2026-01-05", "user_id": 7},
    ]
    cli(f"export {tmp_path / 'x.parquet'}")
    found = rows_of(f"DESCRIBE FROM '{tmp_path / 'x.parquet'}'")
    assert [row[:2] for row in found] == [
        *((name, "VARCHAR") for name in ("event", "granularity", "period")),
        ("user_id", "BIGINT"),
    ]


def test_the_standard_output(cli: CommandLine) -> None:
    with SyncTally.from_url(cli.url) as tally:
        tally.mark_unique("a", 1)
    assert cli("export - --format csv").out == f"{HEADER}a,unique,,1\n"
    assert cli.out(["export", "-", "--format", "ndjson", "--granularity", "day"]) == ""
    assert "add --format" in cli("export -", code=2).err
    assert "Parquet needs a file" in cli("export - --format parquet", code=2).err


def test_some_of_it(cli: CommandLine, tmp_path: Path) -> None:
    fill(cli.url, [1, 2, 3])
    path = tmp_path / "x.csv"

    def lines(options: str) -> list[str]:
        cli(f"export {path} --yes {options}")
        return path.read_text("utf-8").splitlines()[1:]

    assert lines("--event active --granularity unique --granularity year") == [
        *(f"active,year,2026,{user}" for user in (1, 2, 3)),
        *(f"active,unique,,{user}" for user in (1, 2, 3)),
    ]
    assert lines("--since 2026-12-01 --granularity day") == [
        f'"a,""b"" \'c\' {{ü}}",day,2027-01-01,{user}' for user in (1, 2)
    ]
    assert lines("--until 2026-01-06 --granularity day --event active") == []
    assert lines("--event nobody") == []


@pytest.mark.parametrize("pyarrow", [True, False])
def test_nothing_to_export(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pyarrow: bool
) -> None:
    if not pyarrow:
        without_pyarrow(monkeypatch)
    for file in ("x.csv", "x.ndjson", "x.parquet"):
        assert cli.rows(f"export {tmp_path / file}") == [
            {
                "rows": 0,
                "bitmaps": 0,
                "events": 0,
                "skipped": 0,
                "bytes": (tmp_path / file).stat().st_size,
            }
        ]
    for file in ("x.csv", "x.parquet"):
        assert cli.rows(f"import --preset tallymark {tmp_path / file}")[0]["rows"] == 0


def test_a_file_is_replaced_only_if_that_is_confirmed(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("mine", "utf-8")
    assert "needs --yes" in cli(f"export {path}", code=2).err
    assert path.read_text("utf-8") == "mine"
    cli(f"export {path} --yes")
    assert path.read_text("utf-8") == HEADER


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_no_half_file_is_left(
    cli: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    error: type[BaseException],
) -> None:
    def export(*_: Any, **__: Any) -> Any:
        yield Batch("a", Granularity.UNIQUE, None, [1, 2])
        raise error

    if "without" in file:
        without_pyarrow(monkeypatch)
    monkeypatch.setattr(SyncTally, "export", export)
    monkeypatch.setattr(_batch_files, "_ROW_GROUP", 1)
    path = tmp_path / file
    path.write_text("mine", "utf-8")
    cli(f"export {path} --yes", code=130 if error is KeyboardInterrupt else 2)
    assert path.read_text("utf-8") == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_cannot_be_written(cli: CommandLine, tmp_path: Path) -> None:
    assert "does not say in which format" in cli(f"export {tmp_path / 'x.txt'}", code=2).err
    assert "compressed by itself" in cli(f"export {tmp_path / 'x.parquet.gz'}", code=2).err
    assert "no regular file" in cli(f"export {tmp_path} --format csv --yes", code=2).err
    assert "no regular file" in cli("export /dev/null --format csv --yes", code=2).err
    assert "such option" in cli("export --nonsense", code=2).err
    cli(f"export {tmp_path / 'nowhere' / 'x.csv'}", code=2)


def test_parquet_needs_one_of_two_libraries(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *_: None if name in {"pyarrow", "duckdb"} else find(name),
    )
    assert "pip install 'tallymark[import]'" in cli(f"export {tmp_path / 'x.parquet'}", code=2).err
    assert list(tmp_path.iterdir()) == []


def test_row_groups(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of several bitmaps, over several groups, in the same order with both libraries."""
    monkeypatch.setattr(_batch_files, "_ROW_GROUP", 100)
    with SyncTally.from_url(cli.url) as tally:
        for number in range(30):
            tally.mark_unique_many(f"e{number:02}", range(number, 3 * number + 10))
    cli(f"export {tmp_path / 'x.parquet'}")
    without_pyarrow(monkeypatch)
    cli(f"export {tmp_path / 'y.parquet'}")
    one, other = (rows_of(f"FROM '{tmp_path / name}.parquet'") for name in ("x", "y"))
    assert one == other
    assert one == sorted(one)
    assert len(one) == sum(2 * number + 10 for number in range(30))


def test_skipped_keys(cli: CommandLine, memory_store: Store, tmp_path: Path) -> None:
    for number in range(12):
        memory_store.raw.lpush(f"trackist_e{number}_u", "x")
    outcome = cli(f"export {tmp_path / 'x.csv'} --json")
    assert json.loads(outcome.out)[0]["skipped"] == 12
    assert outcome.err.count("_u is exported: it holds no bitmap") == 10
    assert "12 keys are not exported" in outcome.err


# --- restore


def restored(cli: CommandLine, path: Path, text: str, *, code: int = 2) -> str:
    path.write_text(text, "utf-8")
    outcome = cli(f"import --preset tallymark {path}", code=code)
    return outcome.err if code else outcome.out


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("x.csv", "", "is empty"),
        ("x.csv", "event,granularity,user_id\na,day,1\n", "it has no column period"),
        ("x.csv", "time,user\n1,2\n", "no column event and granularity and period and user_id"),
        ("x.csv", f"{HEADER}a,day,2026-01-05,1\na,day,5 Jan,2\n", "row 2: the period of a day"),
        ("x.csv", f"{HEADER}a,day,2026-01-05,one\n", "row 1: user id must be a whole number"),
        ("x.csv", f"{HEADER}a,day,2026-01-05,\n", "row 1: user id must be an int"),
        ("x.csv", f"{HEADER}a,day,2026-01-05\n", "Expected Number of Columns: 4 Found: 3"),
        ("x.ndjson", "{]\n", "Malformed JSON"),
        ("x.ndjson", '{"event": "a"}\n', "row 1: a granularity is one of"),
        ("x.parquet", "PAR1", "cannot be read"),
        ("x.txt", HEADER, "an export is in csv, ndjson, parquet"),
    ],
)
def test_files_that_are_no_export(
    cli: CommandLine, tmp_path: Path, file: str, text: str, message: str
) -> None:
    assert message in restored(cli, tmp_path / file, text)


def test_files_of_others(cli: CommandLine, tmp_path: Path) -> None:
    """Other orders of columns and rows, further columns, a byte order mark, tabs."""
    text = "\ufeffnote,user_id,period,granularity,event\nx,5,,unique,a\ny,6,2026-01-05,day,b\n"
    expected = "2 rows; new bits: unique 1, day 1\n"
    assert restored(cli, tmp_path / "x.csv", text, code=0) == expected
    text = text.replace(",", "\t").replace("5", "7").replace("6\t", "8\t")
    assert "new bits: unique 1" in restored(
        cli, tmp_path / "x.tsv", text.replace("01-07", "01-05"), code=0
    )


def test_a_dry_run_checks_all_rows(cli: CommandLine, tmp_path: Path, memory_store: Store) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"{HEADER}a,unique,,1\na,unique,,x\n", "utf-8")
    assert "row 2" in cli(f"import --preset tallymark {path} --dry-run", code=2).err
    path.write_text(f"{HEADER}a,unique,,1\n", "utf-8")
    assert cli.out(f"import --preset tallymark {path} --dry-run") == "1 row; nothing was sent\n"
    assert memory_store.names() == set()
    assert "--hourly" in cli(f"import --preset tallymark {path} --hourly", code=2).err


def test_files_without_pyarrow_and_several_of_them(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pyarrow(monkeypatch)
    monkeypatch.setattr(_restore, "_ROWS", 10)
    for number in range(3):
        users_of_file = range(10 * number, 10 * number + 25)
        lines = "".join(f"a,unique,,{user}\n" for user in users_of_file)
        (tmp_path / f"{number}.csv").write_text(HEADER + lines, "utf-8")
    answer = cli.rows(f"import --preset tallymark {tmp_path}/*.csv")
    assert (answer[0]["rows"], answer[0]["new"]) == (75, 45)


@pytest.mark.parametrize("pyarrow", [True, False])
@pytest.mark.parametrize(
    ("file", "end", "reason"),
    [
        (
            "x.csv",
            "a,unique\n",
            "Line: 102 Original Line: a,unique Expected Number of Columns: 4 Found: 2;",
        ),
        ("x.csv", 'a,unique,,"5\n', "Value with unterminated quote found."),
        ("x.ndjson", '{"event":"a","gran', r"in line 10\d: unexpected end of data\."),
    ],
)
def test_the_rest_of_a_file_cannot_be_read(
    cli: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pyarrow: bool,
    file: str,
    end: str,
    reason: str,
) -> None:
    read, load = _restore._parts, _restore._load_pyarrow

    def parts(database: Any, source: Any) -> Any:
        """A file that can be read, as the first parts of a large one, and then this one."""
        yield from [("a", "unique", None, number) for number in range(70_000)]
        yield from read(database, source)

    monkeypatch.setattr(_restore, "_parts", parts)
    monkeypatch.setattr(_restore, "_load_pyarrow", lambda: pyarrow and load())
    lines = [
        f"a,unique,,{number}\n"
        if file == "x.csv"
        else f'{{"event":"a","granularity":"unique","period":null,"user_id":{number}}}\n'
        for number in range(100)
    ]
    text = "".join([HEADER if file == "x.csv" else "", *lines, end])
    got = " ".join(restored(cli, tmp_path / file, text).split())
    assert f"{tmp_path / file}: cannot be read behind row 70,000: " in got
    assert re.search(reason, got)
    assert got.endswith("; 65536 ids before were written")
    assert not any(advice in got for advice in ("Possible", "auto_detect", "delimiter ="))


def test_an_error_of_pyarrow(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wraps those of DuckDB, also that of Ctrl-C."""

    def fails_with(error: Exception) -> None:
        def parts(*_: Any) -> Any:
            yield ("a", "unique", None, 1)
            raise error

        monkeypatch.setattr(_restore, "_parts", parts)

    fails_with(OSError("Invalid Input Error: bad\nTry setting 'auto_detect' to true"))
    assert "behind row 1: bad\n" in restored(cli, tmp_path / "x.csv", HEADER)
    for error in (
        OSError("INTERRUPT Error: Interrupted!"),
        RuntimeError("Query interrupted"),
        duckdb.InterruptException("INTERRUPT Error: Interrupted!"),
    ):
        fails_with(error)
        assert "interrupted" in restored(cli, tmp_path / "x.csv", HEADER, code=130)


def test_libraries_are_imported_before_duckdb_needs_them(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It drops a Ctrl-C that comes while it imports."""
    (tmp_path / "x.csv").write_text(f"{HEADER}a,unique,,1\n", "utf-8")
    imported: list[str] = []
    really = importlib.import_module

    def load(name: str, *package: Any) -> Any:
        if name in {"numpy", "pandas", "pyarrow"}:
            imported.append(name)
        if name == "pandas":
            raise KeyboardInterrupt
        return really(name, *package)

    monkeypatch.setattr(importlib, "import_module", load)
    cli(f"import --preset tallymark {tmp_path / 'x.csv'}", code=130)
    assert imported == ["numpy", "pandas"]


@pytest.mark.parametrize("pyarrow", [True, False])
@pytest.mark.parametrize("file", ["x.csv", "x.ndjson", "x.parquet"])
def test_bytes_become_no_other_ids(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, pyarrow: bool
) -> None:
    """The hexadecimal digits of these are also those of numbers, and of a UUID."""
    if not pyarrow:
        without_pyarrow(monkeypatch)
    ids = [b"12", b"7", bytes(16)]
    path = tmp_path / file
    with SyncTally.from_url(cli.url, prefix="bytes_", user_ids=bytes) as tally:
        tally.mark_unique_many("f", ids)
    cli(f"--prefix bytes_ --user-ids bytes export {path}")
    restore = f"import --preset tallymark {path}"
    for kind in ("", "--user-ids int", "--user-ids uuid"):
        assert "row 1: user id must be" in cli(f"--prefix other_ {kind} {restore}", code=2).err
    cli(f"--prefix texts_ --user-ids str {restore}")
    ((_, texts),) = users(cli.url, prefix="texts_", user_ids=str).items()
    assert texts == {r"\x3132", r"\x37", "\\x" + 32 * "0"}
    cli(f"--prefix texts_ --user-ids str export {path} --yes")
    cli(f"--prefix back_ --user-ids bytes {restore}")
    ((_, back),) = users(cli.url, prefix="back_", user_ids=bytes).items()
    assert back == {*ids}
    with SyncTally.from_url(cli.url, prefix="numbers_") as numbers:
        numbers.mark_unique("f", 12)
    cli(f"--prefix numbers_ export {path} --yes")
    message = cli(f"--prefix more_ --user-ids bytes {restore}", code=2).err
    assert "row 1: user id must be" in message


@pytest.mark.parametrize(
    ("kind", "user_id", "stored"),
    [
        ("DOUBLE", "7.0", None),
        ("BOOLEAN", "true", None),
        ("DATE", "'2026-01-05'", None),
        ("INTEGER[]", "[7]", None),
        ("DECIMAL(9,1)", "7.5", None),
        *((kind, "7", "7") for kind in ("UTINYINT", "DECIMAL(38,0)", "UBIGINT")),
        ("ENUM('a)', 'b')", "'b'", "b"),
        ("UUID", f"'{uuid.UUID(int=7)}'", str(uuid.UUID(int=7))),
    ],
)
def test_types_of_columns_of_ids(
    cli: CommandLine, tmp_path: Path, kind: str, user_id: str, stored: str | None
) -> None:
    """Those that have no obvious text are refused, and do not become ids that are texts."""
    path = tmp_path / "x.parquet"
    columns = "'a' AS event, 'unique' AS granularity, NULL AS period"
    rows_of(f"COPY (SELECT {columns}, {user_id}::{kind} AS user_id) TO '{path}'")
    restore = f"--user-ids str import --preset tallymark {path}"
    if stored is None:
        assert "user_id has the type" in cli(restore, code=2).err
        assert users(cli.url) == {}
    else:
        cli(restore)
        assert [*users(cli.url, user_ids=str).values()] == [{stored}]


def test_other_columns_of_the_same_name(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    header = "x,event,X,granularity,,period,other 0,user_id,x,\n"
    assert "new bits: unique 1" in restored(cli, path, f"{header},a,,unique,,,,5,,\n", code=0)
    message = restored(cli, path, "event,granularity,period,user_id,Event\na,unique,,5,b\n")
    assert "has several columns event" in message


@pytest.mark.parametrize("options", ["--user-ids str", "--shards 3"])
def test_other_options_than_those_of_the_marks(
    cli: CommandLine, tmp_path: Path, options: str
) -> None:
    fill(cli.url, [1, 5, 7])
    path = tmp_path / "x.csv"
    cli(f"export {path}")
    backup = path.read_text("utf-8")
    outcome = cli([*options.split(), "export", str(path), "--yes"], code=3)
    assert "the database has bitmaps without" in outcome.err
    assert path.read_text("utf-8") == backup


def test_users_without_ids(cli: CommandLine, memory_store: Store, tmp_path: Path) -> None:
    fill(cli.url, ["ann", "bo"], user_ids=str)
    memory_store.raw.setbit("trackist_active_u", 70_000, 1)
    outcome = cli(f"--user-ids str export {tmp_path / 'x.csv'}")
    assert "trackist_active_u is exported: 1 of its users have no id" in outcome.err


def test_types_of_ids_have_names() -> None:
    assert {id_type(kind).name for kind in KINDS.values() if kind} == KINDS.keys() - {"offsets"}
