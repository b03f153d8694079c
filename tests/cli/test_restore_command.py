"""``tallymark import --preset tallymark``: what is read, and what is refused."""

from __future__ import annotations

import importlib
import re
import uuid
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from exports import HEADER, rows_of, users, without_pyarrow

from tallymark import SyncTally
from tallymark.cli import _restore

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import CommandLine

    from stores import Store


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
