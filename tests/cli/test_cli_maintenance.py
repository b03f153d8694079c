"""Commands that change bitmaps as a whole, and ask before they destroy."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from tallymark import SyncTally

if TYPE_CHECKING:
    from command_line import CommandLine

    from stores import Store


class Terminal(io.StringIO):
    """A terminal on which somebody types."""

    def isatty(self) -> bool:
        return True


def type_in(text: str, patch: pytest.MonkeyPatch) -> None:
    """Pretend that there is a terminal, and that somebody types a text."""
    patch.setattr("sys.stdin", Terminal(text))
    patch.setattr("sys.stderr.isatty", lambda: True, raising=False)


DESTROYING = {
    "delete active --day 2026-01-05": "1 bitmap",
    "delete 'active@2026-01 | active@2026-W02'": "2 bitmaps",
    "delete-all trackist_": "4 bitmaps",
    "forget 1": "4 bits",
    "merge 1 2": "4 bits",
    "save active@2026-01 vip": "3 users",
    "unmark-many active ids.txt --at 2026-01-05": "1 user; changed: month 1, week 1, day 1",
    "unmark-unique-many vip ids.txt": "1 user; changed: unique 1",
}


@pytest.fixture
def filled(
    memory_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Mark some users, and write an id into ``ids.txt``."""
    from datetime import date

    folder = tmp_path_factory.mktemp("ids")
    monkeypatch.chdir(folder)
    (folder / "ids.txt").write_text("1\n", encoding="utf-8")
    with SyncTally.from_url(memory_store.url) as tally:
        tally.mark_many("active", [1, 2, 3], now=date(2026, 1, 5))
        tally.mark_unique("vip", 1)


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("command", DESTROYING)
def test_without_a_terminal_it_needs_yes(
    command: str, cli: CommandLine, memory_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = memory_store.bits()
    assert "this needs --yes" in cli(command, code=2).err
    with monkeypatch.context() as patch:  # a terminal for errors only
        patch.setattr("sys.stderr.isatty", lambda: True, raising=False)
        patch.setattr("sys.stdin", io.StringIO("y\n"))
        assert "this needs --yes" in cli(command, code=2).err.replace("\n", " ")
    assert memory_store.bits() == before
    assert cli.out(f"{command} --yes") == f"{DESTROYING[command]}\n"
    assert memory_store.bits() != before


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("command", DESTROYING)
def test_on_a_terminal_it_asks(
    command: str, cli: CommandLine, memory_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = memory_store.bits()
    for no in ("n\n", "\n", "", "no\n", "yess\n"):
        type_in(no, monkeypatch)
        outcome = cli(command, code=1)
        assert "? [y/N] " in outcome.err
        assert "nothing was changed" in outcome.err
        assert outcome.out == ""
        assert memory_store.bits() == before
    type_in("Y\n", monkeypatch)
    assert cli(command).out == f"{DESTROYING[command]}\n"
    assert memory_store.bits() != before


@pytest.mark.usefixtures("filled")
def test_save_asks_only_before_it_replaces(cli: CommandLine, memory_store: Store) -> None:
    assert cli.out("save 'active@2026-01 - vip@unique' others") == "2 users\n"
    assert memory_store.bits()["trackist_others_u"] == {2, 3}
    assert "replace the flag others of 2 users" in cli("save active others", code=2).err
    assert cli.rows("save active@2026-01 others --yes") == [{"users": 3}]


@pytest.mark.usefixtures("filled")
def test_what_is_wrong_is_said_before_the_question(
    cli: CommandLine, memory_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = memory_store.bits()
    assert "which bitmap?" in cli("delete active --yes", code=2).err
    assert "active & vip" not in cli("delete 'active & vip' --unique --yes", code=2).out
    assert cli("delete-all other_ --yes", code=2).err
    assert cli("merge 1 1 --yes", code=2).err
    for question in (
        "delete 'active & vip' --unique",
        "delete 'active - vip' --month 2026-01",
        "delete-all other_",
        "merge 1 1",
        "merge 1 5000000000",
        "merge 5000000000 1",
        "forget 5000000000",
        "unmark-many active missing.txt",
        "unmark-unique-many vip missing.txt",
        "migrate memory:///x memory://b --exact",
    ):
        type_in("y\n", monkeypatch)
        assert "[y/N]" not in cli(question, code=2).err
    assert memory_store.bits() == before


@pytest.mark.usefixtures("filled")
def test_a_question_needs_a_terminal_for_it(
    cli: CommandLine, memory_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = memory_store.bits()
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    monkeypatch.setattr("sys.stderr", io.StringIO())  # a file, in which nobody sees the question
    cli("forget 1", code=2)
    assert memory_store.bits() == before


def test_yearly(cli: CommandLine, memory_store: Store) -> None:
    at = "--at 2026-01-05"
    assert cli.out(f"mark active 7 {at} --yearly") == "new in: month, week, day, year\n"
    assert "trackist_active_2026" in memory_store.names()
    cli(f"unmark active 7 {at} --yearly")
    assert memory_store.bits() == {}


def test_other_options_of_a_tally(cli: CommandLine, redis_cli: CommandLine) -> None:
    cli("mark active 100 --max-user-id 100")
    assert "100" in cli("mark active 101 --max-user-id 100", code=2).err
    assert redis_cli.out("count active --read-from primary") == "0\n"
    redis_cli("mark active 1")
    assert redis_cli.out(f"count active --read-from {redis_cli.url}") == "1\n"
    assert "--read-from may be the" in redis_cli("count a --read-from replicas", code=2).err
    redis_cli("mark active 2 --replicas 1 --timeout 0.3", code=3)
    assert "--read-from: there is no such" in cli("count a --read-from env:NOPE", code=2).err


def test_migrate(redis_cli: CommandLine, redis_store: Store, tmp_path: object) -> None:
    redis_cli("mark active 7 --at 2026-01-05")
    url = redis_store.url
    command = ["migrate", url, url, "--target-prefix", "new_", "--shards", "2"]
    outcome = redis_cli([*command, "--quiet"])
    assert outcome.out.startswith("3 bitmaps, 3 users")
    assert redis_cli.out("count active --month 2026-01 --prefix new_ --shards 2") == "1\n"
    back = ["migrate", url, url, "--prefix", "new_", "--source-shards", "2"]
    assert (
        "3 were there already"
        in redis_cli([*back, "--target-prefix", "trackist_", "--shards", "none"]).out
    )
    refused = redis_cli([*command[:-1], "3"], code=2).err
    assert "the database has --shards 2" in refused
    assert "a number or none" in redis_cli([*command[:-1], "x"], code=2).err
    assert "need --user-ids" in redis_cli([*command, "--ids", "x.csv"], code=2).err
    missing = redis_cli([*command, "--ids", "missing.csv", "--user-ids", "str"], code=2).err
    assert "missing.csv" in missing
    assert "SOURCE: there is no such" in redis_cli(["migrate", "env:NOPE", url], code=2).err


def test_migrations_as_json_and_exact_ones(
    redis_cli: CommandLine, redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_cli("mark active 7 --at 2026-01-05")
    url = redis_store.url
    command = f"migrate {url} {url} --target-prefix new_ --quiet"
    (row,) = redis_cli.rows(command)
    assert (row["bitmaps"], row["users"], row["differing"]) == (3, 3, 0)
    assert redis_cli.out("count active --month 2026-01 --prefix new_ --shards 16") == "1\n"
    assert redis_cli.out(f"{command} --csv").splitlines()[0] == ",".join(row)
    for option in ("--expire day=9d", "--yearly", "--timezone UTC", "--read-from primary"):
        refused = redis_cli(f"{command} {option}", code=2).err
        assert f"migrate does not take {option.split()[0]}\n" in refused
    redis_cli("mark active 8 --at 2026-01-05 --prefix new_ --shards 16")
    assert "this needs --yes" in redis_cli(f"{command} --exact", code=2).err
    type_in("n\n", monkeypatch)
    assert "only the new database has? [y/N]" in redis_cli(f"{command} --exact", code=1).err
    count = "count active --month 2026-01 --prefix new_ --shards 16"
    assert redis_cli.out(count) == "2\n"
    redis_cli(f"{command} --exact --yes")
    assert redis_cli.out(count) == "1\n"
