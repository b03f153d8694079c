"""The program: commands in one process, exit codes, help."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from command_line import CommandLine


def test_a_mark_is_counted(cli: CommandLine) -> None:
    assert cli.out("mark active 123 --at 2026-01-05").startswith("new in: month, week, day")
    assert cli.out("mark active 123 --at 2026-01-05") == "marked before\n"
    assert cli.out("count active --month 2026-01") == "1\n"
    assert cli.rows("count active --day 2026-01-05") == [{"users": 1}]
    assert cli.out("count active --week 2026-W02 --csv") == "users\n1\n"
    assert cli.out("count active") == "0\n"
