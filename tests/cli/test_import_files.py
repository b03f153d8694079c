"""`tallymark import`: files that are damaged, lost, changed, or named twice; what stays behind."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from tallymark import SyncTally
from tallymark.cli._import.job import Import, ImportOptions
from tallymark.cli._signals import ended_by_signals

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import CommandLine

    from stores import Store

MAP = "--map event=action user=uid time=at"
MAPS = ("event=action", "user=uid", "time=at")
ROW_COUNT = 60_000
ROWS = "action,uid,at\n" + "".join(f"a,{n},2026-01-0{1 + n % 5}\n" for n in range(40))


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of caches, which is not the user's."""
    path = tmp_path / "caches"
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    return path


@pytest.mark.parametrize("link", [False, True])
def test_rejects_do_not_replace_an_input_file(
    cli: CommandLine, tmp_path: Path, *, link: bool
) -> None:
    """The file of rejected rows is none of those that are imported, by whatever name."""
    path = other = tmp_path / "rows.csv"
    path.write_text(ROWS)
    if link:
        other = tmp_path / "other.csv"
        other.symlink_to(path)
    command = f"import {path} {MAP} --rejects {other} --dry-run"
    assert "is an input file" in cli(command, code=2).err
    assert path.read_text() == ROWS
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    assert "is a folder" in cli(f"import {path} {MAP} --rejects {folder}", code=2).err
    assert not list(tmp_path.glob(".*.part"))


class Interrupted:
    """A tally that is interrupted after some calls."""

    def __init__(self, tally: Any, calls: int) -> None:
        self._tally, self._left = tally, calls

    def __getattr__(self, name: str) -> Any:
        """Return a verb."""
        if name in ("mark_many", "mark_rows"):
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt
        return getattr(self._tally, name)


def test_a_store_that_lost_marks_gets_them_again(
    memory_store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An import does not go on behind marks that are no longer there."""
    monkeypatch.setattr("tallymark.cli._import.job._BLOCK", 10)
    path = tmp_path / "rows.csv"
    path.write_text(ROWS)
    options = ImportOptions((str(path),), maps=MAPS)
    with SyncTally.from_url(memory_store.url) as tally:
        with pytest.raises(KeyboardInterrupt):
            Import(Interrupted(tally, 2), options, target="store").run()
        memory_store.raw.flushall()
        assert Import(tally, options, target="store").run().new["DAY"] == 40
    assert "the store lacks marks that were sent" in capsys.readouterr().err


def test_a_changed_archive_begins_anew(
    memory_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A member of the same size with other rows is another file."""
    path = tmp_path / "rows.zip"
    options = ImportOptions((str(path),), maps=MAPS)
    with SyncTally.from_url(memory_store.url) as tally:
        for rows, calls in ((ROWS, 0), (ROWS.replace("a,", "b,"), 9)):
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("rows.csv", rows)
                archive.writestr("README.txt", "read me")
                archive.writestr(".hidden.csv", "nothing")
            if calls == 0:
                with pytest.raises(KeyboardInterrupt):
                    Import(Interrupted(tally, calls), options, target="store").run()
            else:
                assert set(Import(tally, options, target="store").run().events) == {"b"}
    assert "the files have changed" in capsys.readouterr().err


@pytest.mark.parametrize("at", [-6, -12])
def test_damaged_gzip(cli: CommandLine, tmp_path: Path, at: int) -> None:
    """A wrong checksum, and bytes that differ: nothing is sent."""
    packed = bytearray(gzip.compress(ROWS.encode()))
    packed[at] ^= 1
    (tmp_path / "rows.csv.gz").write_bytes(packed)
    assert "rows.csv.gz" in cli(f"import {tmp_path}/rows.csv.gz {MAP}", code=2).err
    with SyncTally.from_url(cli.url) as tally:
        assert not tally.event_names()


@pytest.mark.parametrize("missing", [0, 2, 30])
def test_zstd_that_ends_early(cli: CommandLine, tmp_path: Path, missing: int) -> None:
    """A file that lacks its end is not imported as far as it is there."""
    path = tmp_path / "rows.csv.zst"
    with duckdb.connect() as connection:
        select = f"SELECT 'a' AS action, n AS uid, '2026-01-05' AS at FROM range({ROW_COUNT}) t(n)"
        connection.execute(f"COPY ({select}) TO '{path}' (COMPRESSION zstd)")
    packed = path.read_bytes()
    path.write_bytes(packed[: len(packed) - missing])
    outcome = cli(f"import {path} {MAP} --quiet", code=2 if missing else 0)
    assert ("ends early" in outcome.err) == bool(missing)


def test_members_of_gzip(cli: CommandLine, tmp_path: Path) -> None:
    """Files of gzip that follow each other are one."""
    half = len(ROWS) // 2
    parts = (ROWS[:half], "", ROWS[half:])
    (tmp_path / "rows.csv").write_bytes(b"".join(gzip.compress(each.encode()) for each in parts))
    assert json.loads(cli.out(f"import {tmp_path}/rows.csv {MAP} --json"))[0]["rows"] == 40


def test_streams(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard input can be read once; a pipe is read like it."""
    monkeypatch.setattr(
        "sys.stdin", SimpleNamespace(buffer=io.BytesIO(ROWS.encode()), isatty=lambda: False)
    )
    assert "only once" in cli(f"import - - --format csv {MAP}", code=2).err
    fifo = tmp_path / "pipe.csv"
    os.mkfifo(fifo)
    with subprocess.Popen([sys.executable, "-c", f"open({str(fifo)!r}, 'w').write({ROWS!r})"]):
        assert json.loads(cli.out(f"import {fifo} {MAP} --json"))[0]["rows"] == 40


def test_files_of_dead_processes_are_removed(redis_cli: CommandLine, tmp_path: Path) -> None:
    """What a process that was killed has left is removed by the next one."""
    (tmp_path / "rows.csv").write_text(ROWS)
    folder = tmp_path / "folder"
    old = folder / ("0" * 20)
    old.mkdir(parents=True)
    (folder / "mine").mkdir()
    for each in (old, folder / "mine"):
        os.utime(each, (0, 0))
    redis_cli(f"import {tmp_path}/rows.csv {MAP} --folder {folder}")
    assert [each.name for each in folder.iterdir()] == ["mine"]


def test_sigterm_ends_as_ctrl_c() -> None:
    """SIGTERM unwinds the block, and has an exit code of its own."""
    unwound = False
    with pytest.raises(SystemExit) as raised, ended_by_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(1_000_000):
                pass
        finally:
            unwound = True
    assert (raised.value.code, unwound) == (143, True)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("memory", ["1KB", "-1", "lots"])
def test_memory(cli: CommandLine, tmp_path: Path, memory: str) -> None:
    """Too little memory, and what is no size."""
    (tmp_path / "rows.csv").write_text(ROWS)
    assert "--memory" in cli(f"import {tmp_path}/rows.csv {MAP} --memory={memory}", code=2).err


@pytest.mark.parametrize("delimiter", ["tab", "\\t", "\t"])
def test_delimiters(cli: CommandLine, tmp_path: Path, delimiter: str) -> None:
    """A tab may be named."""
    (tmp_path / "rows.csv").write_text(ROWS.replace(",", "\t"))
    words = ["import", f"{tmp_path}/rows.csv", *MAP.split(), f"--delimiter={delimiter}", "--json"]
    assert json.loads(cli.out(words))[0]["rows"] == 40


def test_bad_layouts(cli: CommandLine, tmp_path: Path) -> None:
    """Delimiters of two characters, headers that are too long, arrays in other encodings."""
    (tmp_path / "rows.csv").write_text("x" * 140_000 + "\n")
    (tmp_path / "rows.json").write_text("[]")
    assert "--delimiter" in cli(f"import {tmp_path}/rows.csv {MAP} --delimiter '||'", code=2).err
    assert "no header" in cli(f"import {tmp_path}/rows.csv {MAP}", code=2).err
    command = f"import {tmp_path}/rows.json {MAP} --encoding latin-1"
    assert "UTF-8" in cli(command, code=2).err


def test_byte_order_mark(cli: CommandLine, tmp_path: Path) -> None:
    """A byte order mark says that a file is in UTF-16."""
    (tmp_path / "rows.csv").write_bytes(ROWS.encode("utf-16"))
    assert json.loads(cli.out(f"import {tmp_path}/rows.csv {MAP} --json"))[0]["rows"] == 40


@pytest.mark.parametrize(
    ("written", "options", "said"),
    [
        (b"event,uid,at\ncaf\xe9,1,2026-01-05\n", "", "--encoding names another"),
        (b"event,uid,at\na,1,2026-01-05\nb,2,2026-01-05\r\n", "", "Make them the same"),
        (b"event,uid,at\na,1,2026-01-05\n", "--where 'cast(event as int) = 1'", "TRY_CAST"),
    ],
)
def test_what_to_try_with_a_file_that_cannot_be_read(
    cli: CommandLine, tmp_path: Path, written: bytes, options: str, said: str
) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(written)
    outcome = cli(
        f"import {file} --map event=event user=uid time=at {options}",
        code=1 if b"\xe9" in written else 2,
    )
    assert said in outcome.err


def test_empty_lines_before_a_header(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("\n\nevent,uid,at\na,1,2026-01-05\nb,x,2026-01-05\n", "utf-8")
    rejects = tmp_path / "rejects.csv"
    outcome = cli(
        f"import {file} --map event=event user=uid time=at --rejects {rejects} --json", code=1
    )
    (summary,) = json.loads(outcome.out)
    assert (summary["rows"], summary["rejected"], summary["marks"]) == (2, 1, 1)
    assert ",5,user id is no whole number," in rejects.read_text("utf-8")
