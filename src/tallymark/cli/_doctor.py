"""The command that examines a database."""

import textwrap
from typing import Any, Final

from ._errors import NO
from ._invocation import Run
from ._tables import console

__all__ = ["doctor"]

#: What is printed first, and how.
_STYLES: Final = {"problem": "bold red", "warning": "yellow", "ok": "green", "skipped": "dim"}

#: How wide the columns of the status and of the check are.
_STATUS: Final = 9
_CHECK: Final = 16


def doctor(*, run: Run) -> int:
    """Examine the database and its servers for what goes wrong in practice. Changes nothing.

    The exit code is 1 if there is a problem; warnings do not count. With --expire, it also
    looks for bitmaps that do not expire as they should.

    For example:

      tallymark doctor
      tallymark doctor --json
    """
    with run.tally() as tally:
        diagnosis = tally.doctor()
    run.output.report(diagnosis, lambda: _print(diagnosis))
    return 0 if diagnosis.ok else NO


def _print(diagnosis: Any) -> None:
    """Print the findings for people: the worst first, with the advice below each."""
    from rich.text import Text  # noqa: PLC0415 - for people only

    out = console()
    for status, style in _STYLES.items():
        for finding in diagnosis.having(status):
            lines = _wrapped(finding.seen, out.width)
            if finding.advice:
                lines += _wrapped(f"why: {finding.why}", out.width)
                lines += _wrapped(f"do: {finding.advice}", out.width)
            for number, line in enumerate(lines):
                heading = "" if number else status
                text = Text(f"{heading:{_STATUS}}", style=style)
                text.append(f"{'' if number else finding.check:{_CHECK}}", style="bold")
                text.append(line, style="dim" if status == "skipped" else "default")
                out.print(text, soft_wrap=True)
    out.print(Text(f"\n{diagnosis.summary()}"), soft_wrap=True)


def _wrapped(text: str, width: int) -> list[str]:
    room = max(30, width - _STATUS - _CHECK - 1)
    return textwrap.wrap(text, room, break_on_hyphens=False, subsequent_indent="  ") or [""]
