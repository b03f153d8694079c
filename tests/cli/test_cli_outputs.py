"""Where the output goes: pages, pipes and devices, codes for what cannot be written, and ids."""

from __future__ import annotations

import io
import os
import stat
import sys
import threading
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallymark import SyncTally
from tallymark.cli._lines import line_of, text_of

if TYPE_CHECKING:
    from command_line import CommandLine

    from stores import Store

AT = "--at 2026-01-05"
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="files of POSIX")


@POSIX
def test_a_page_follows_links_and_keeps_permissions(cli: CommandLine, tmp_path: Path) -> None:
    page, link = tmp_path / "page.html", tmp_path / "link.html"
    page.write_text("old", "utf-8")
    page.chmod(0o640)
    link.symlink_to("page.html")
    cli(f"count active --html {link}")
    assert link.is_symlink()
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert stat.S_IMODE(page.stat().st_mode) == 0o640
    link.unlink()
    link.symlink_to("new.html")  # which does not exist yet
    cli(f"count active --html {link}")
    assert (tmp_path / "new.html").is_file()
    assert len(list(tmp_path.iterdir())) == 3


@POSIX
def test_pipes_and_devices_are_written_into(cli: CommandLine, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text("utf-8")), daemon=True)
    reader.start()
    cli(f"count active --html {pipe}")
    reader.join(30)
    assert read[0].startswith("<!DOCTYPE html>")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    cli("count active --html /dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("", "--html takes the name of a file, got that of a directory"),
        (".", "--html takes the name of a file, got that of a directory"),
        ("folder/", "--html takes the name of a file, got that of a directory"),
        ("missing/page.html", "missing/page.html: No such file or directory"),
        ("a://b@c/page.html", "<URL>: No such file or directory"),
    ],
)
@pytest.mark.parametrize("command", ["mark", "unmark", "unmark-many"])
def test_a_page_is_checked_before_anything_is_done(
    command: str,
    page: str,
    message: str,
    cli: CommandLine,
    memory_store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "7").write_text("7\n", "utf-8")
    cli(f"mark active 7 {AT}")
    before = memory_store.bits()
    user = "8" if command == "mark" else "7"
    outcome = cli([command, "active", user, *AT.split(), "--yes", "--html", page], code=2)
    assert message in outcome.err
    assert ".part" not in outcome.err
    assert memory_store.bits() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_an_output_that_cannot_be_written_has_a_code_of_its_own(
    cli: CommandLine, memory_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = cli(f"mark active 7 {AT} --html /dev/full", code=4)
    assert outcome.err == "tallymark: /dev/full cannot be written: No space left on device\n"
    with Path("/dev/full").open("w", encoding="utf-8") as full, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", full)
        cli(f"mark active 8 {AT}", code=4)
    assert memory_store.bits()["trackist_active_2026-1-5"] == {7, 8}


EMPTY = {
    "delete-before 2019-01-01 --dry-run": "granularity,bitmaps,bytes",
    "apply-expiry --expire day=1d --dry-run": "granularity,changed,deleted,unchanged",
    "mark-many a /dev/null": "granularity,bits",
    "users a": "user_id",
    "events": "event",
    "periods a": "period",
    "memory": "event,granularity,bytes",
    "history 1": "event,period",
    "numbers --user-ids str": "user_id,number",
    "ids --user-ids str": "number,user_id",
}


@POSIX
@pytest.mark.parametrize("command", EMPTY)
def test_csv_without_rows_has_a_header(command: str, cli: CommandLine) -> None:
    assert cli.out(f"{command} --csv") == f"{EMPTY[command]}\n"
    assert cli.rows(command) == []


def test_a_header_is_that_of_the_rows(cli: CommandLine, memory_store: Store) -> None:
    with SyncTally.from_url(memory_store.url) as tally:
        tally.mark_many("a", [1, 2], now=date(2018, 1, 5))
    for command in ("delete-before 2019-01-01 --dry-run", "memory", "users a --day 2018-01-05"):
        assert (
            cli.out(f"{command} --csv").splitlines()[0]
            == EMPTY[command.replace("users a --day 2018-01-05", "users a")]
        )


IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6) | st.sampled_from(
    ["a\n", "a", "a\x0bb", "a\u2028b", "a\\nb", "a\nb", "a\r", '"a"', '"', " ", "\ufeffa", "\r\n"]
)


@given(st.lists(IDS, unique=True))
def test_any_text_fits_a_line(ids: list[str]) -> None:
    lines = "".join(f"{line_of(user)}\n" for user in ids)
    read = io.TextIOWrapper(io.BytesIO(lines.encode()), "utf-8", newline=None).readlines()
    assert [text_of(line.rstrip("\n")) for line in read] == ids
    assert all(line.strip() and not line.startswith("\ufeff") for line in read)


def test_what_users_prints_is_read_again(
    cli: CommandLine, memory_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = {"a\n", "a", "a\x0bb", "a\u2028b", "a\\nb", "a\nb", '"a', "\ufeffa", " ", "\x1b"}
    with SyncTally.from_url(memory_store.url, user_ids=str) as tally:
        tally.mark_many("active", ids, now=date(2026, 1, 5))
    listed = cli.out("users active --day 2026-01-05 --user-ids str")
    file = tmp_path / "ids.txt"
    file.write_text(listed, "utf-8", newline="")
    cli(f"mark-many again {file} {AT} --user-ids str")
    monkeypatch.setattr("sys.stdin", io.StringIO(listed))
    cli(f"mark-many piped - {AT} --user-ids str")
    for event in ("again", "piped"):
        rows = cli.rows(f"users {event} --day 2026-01-05 --user-ids str")
        assert {row["user_id"] for row in rows} == ids


@pytest.mark.parametrize("piped", [True, False])
def test_a_byte_order_mark_is_no_part_of_an_id(
    piped: bool, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("\ufeffann\r\nbob\r\n", "utf-8", newline="")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes()), "utf-8"))
    cli(f"mark-many active {'-' if piped else file} {AT} --user-ids str")
    assert cli.out("users active --day 2026-01-05 --user-ids str") == "ann\nbob\n"


@pytest.mark.parametrize("command", ["mark-many", "unmark-many", "mark-unique-many"])
def test_a_file_that_is_no_text(
    command: str, cli: CommandLine, memory_store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "ids.txt"
    file.write_bytes("Jos\u00e9\n".encode("latin-1"))
    outcome = cli(f"{command} active {file} --user-ids str --yes", code=2)
    assert "behind line 0: the file is no text in UTF-8" in outcome.err
    assert outcome.err.count("\n") == 1
    assert memory_store.bits() == {}


def test_a_store_that_fails_between_two_blocks(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tallymark import StoreUnavailableError

    monkeypatch.setattr("tallymark.cli._marks._BLOCK", 2)
    file = tmp_path / "ids.txt"
    file.write_text("1\n2\n3\n", "utf-8")
    mark_many = SyncTally.mark_many
    for error, code in ((StoreUnavailableError("gone"), 3), (KeyboardInterrupt(), 130)):

        def fail(tally: SyncTally, event: str, ids: list[int], **more: Any) -> object:
            if 3 in ids:
                raise error  # noqa: B023 - called in this round only
            return mark_many(tally, event, ids, **more)

        monkeypatch.setattr(SyncTally, "mark_many", fail)
        outcome = cli(f"mark-many active {file} {AT}", code=code)
        assert "the first 2 users of the file are done" in outcome.err
