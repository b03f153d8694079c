"""``tallymark export``, and what ``tallymark import --preset tallymark`` makes of its files."""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from exports import FILES, HEADER, NOON, ODD, fill, rows_of, users, without_pyarrow

from tallymark import Batch, Granularity, SyncTally
from tallymark._core.user_ids import id_type
from tallymark.cli import _batch_files

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


@pytest.mark.parametrize("options", ["--user-ids str", "--shards 3"])
def test_other_options_than_those_of_the_marks(
    cli: CommandLine, tmp_path: Path, options: str
) -> None:
    fill(cli.url, [1, 5, 7])
    path = tmp_path / "x.csv"
    cli(f"export {path}")
    backup = path.read_text("utf-8")
    outcome = cli([*options.split(), "export", str(path), "--yes"], code=2)
    assert "the database has bitmaps without" in outcome.err
    assert path.read_text("utf-8") == backup


def test_users_without_ids(cli: CommandLine, memory_store: Store, tmp_path: Path) -> None:
    fill(cli.url, ["ann", "bo"], user_ids=str)
    memory_store.raw.setbit("trackist_active_u", 70_000, 1)
    outcome = cli(f"--user-ids str export {tmp_path / 'x.csv'}")
    assert "trackist_active_u is exported: 1 of its users have no id" in outcome.err


def test_types_of_ids_have_names() -> None:
    assert {id_type(kind).name for kind in KINDS.values() if kind} == KINDS.keys() - {"offsets"}
