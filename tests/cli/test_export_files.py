"""The files of ``tallymark export``: names, permissions, links; what is left after a signal."""

from __future__ import annotations

import signal
import stat
import sys
from typing import TYPE_CHECKING, Any

import pytest
from exports import FILES, HEADER, without_pyarrow

from tallymark import Batch, Granularity, SyncTally
from tallymark.cli import _restore

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import CommandLine


def interrupting(monkeypatch: pytest.MonkeyPatch, number: int, path: Path | None = None) -> None:
    def export(*_: Any, **__: Any) -> Any:
        yield Batch("a", Granularity.UNIQUE, None, [1, 2])
        if path is not None:
            assert len(list(path.iterdir())) == 1
        signal.raise_signal(number)
        yield Batch("b", Granularity.UNIQUE, None, [1])

    monkeypatch.setattr(SyncTally, "export", export)


@pytest.mark.skipif(sys.platform == "win32", reason="other signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("file", FILES)
def test_signals_that_end_the_program(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, name: str
) -> None:
    if "without" in file:
        without_pyarrow(monkeypatch)
    number = getattr(signal, name)
    interrupting(monkeypatch, number, tmp_path)
    cli(f"export {tmp_path / file}", code=128 + number)
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is signal.SIG_DFL
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_IGN)  # as with nohup
    previous = signal.signal(number, signal.SIG_IGN)
    try:
        cli(f"export {tmp_path / file}")
    finally:
        signal.signal(number, previous)
    assert [each.name for each in tmp_path.iterdir()] == [file]


def test_a_signal_during_a_restore(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB raises an error of its own for it; the temporary folder is removed."""

    def parts(*_: Any) -> Any:
        yield ("a", "unique", None, 1)
        try:
            signal.raise_signal(signal.SIGTERM)
        except SystemExit:
            raise RuntimeError("Query interrupted") from None

    monkeypatch.setattr(_restore, "_parts", parts)
    (tmp_path / "x.csv").write_text(HEADER, "utf-8")
    (tmp_path / "folder").mkdir()
    cli(
        f"import --preset tallymark {tmp_path / 'x.csv'} --folder {tmp_path / 'folder'}",
        code=128 + signal.SIGTERM,
    )
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="other permissions")
@pytest.mark.parametrize("file", FILES)
def test_permissions(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    if "without" in file:
        without_pyarrow(monkeypatch)
    seen: list[int] = []
    write = SyncTally.export

    def export(*args: Any, **options: Any) -> Any:
        yield from write(*args, **options)
        seen.extend(stat.S_IMODE(each.stat().st_mode) for each in tmp_path.glob(".*"))

    monkeypatch.setattr(SyncTally, "export", export)
    path, other = tmp_path / file, tmp_path / "other"
    other.touch()
    cli(f"export {path}")
    usual = stat.S_IMODE(other.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == usual
    for mode in (0o600, 0o640, 0o400):
        path.chmod(mode)
        cli(f"export {path} --yes")
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert seen == [usual, 0o600, 0o600, 0o600]


def test_links(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link, file = tmp_path / "link.csv", tmp_path / "folder" / "file.csv"
    link.symlink_to(file)
    for options in ("", "--yes"):
        cli(f"export {link} {options}")
        assert link.is_symlink()
        assert file.read_text("utf-8") == HEADER
        file.write_text("old", "utf-8")
    loop = tmp_path / "loop.csv"
    loop.symlink_to(loop)
    assert f"{loop}: " in cli(f"export {loop}", code=2).err.replace("\n", "")


def test_names_of_files(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cli(["export", "--", "-x.csv"])
    longest = "x" * 251 + ".csv"
    cli(f"export {longest}")
    assert {each.name for each in tmp_path.iterdir()} == {"-x.csv", longest}
    assert "name of the file is empty" in cli(["export", "", "--format", "csv"], code=2).err
    for name in ("nowhere/x.csv", "-x.csv/x.csv", f"x{longest}"):
        message = cli(["export", "--", name], code=2).err
        assert message.startswith(f"tallymark: {name}: ")
        assert ".part" not in message
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*_: Any, **__: Any) -> Any:
        yield Batch("a", Granularity.UNIQUE, None, [1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SyncTally, "export", export)
    message = cli(f"export {tmp_path / 'x.csv'}", code=2).err
    assert f"{tmp_path / 'x.csv'}: No space left on device" in message
