"""Commands in a real terminal: a pty of 80 columns and 24 lines.

`Terminals` starts a process that has imported the program, and forks for each command: half a
second less a command. Commands that need a shell get one, where ``tallymark`` is a process of
its own.
"""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["COLUMNS", "LINES", "Terminals", "rendered"]

COLUMNS, LINES = 80, 24

#: How many seconds a command may take.
_LIMIT = 60

#: What only a shell understands, outside of quotes.
_SHELL = re.compile(r"""(?:[^'"|&;<>$`\n*]|'[^']*'|"[^"$`]*")*""")


class Terminals:
    """Runs commands in terminals, with one environment and one folder.

    Attributes:
        output: what the last command has sent to its terminal.
    """

    output = ""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        binaries = folder.parent / f"{folder.name}-bin"
        binaries.mkdir()
        program = binaries / "tallymark"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tallymark "$@"\n')
        program.chmod(0o755)
        paths = [str(Path(__file__).parents[2] / "src"), *sys.path]
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"}
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=folder,
            env={
                **inherited,
                "TERM": "xterm-256color",
                "LC_ALL": "C.UTF-8",
                "PYTHONPATH": os.pathsep.join(path for path in paths if path),
                "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
                **environment,
            },
        )

    def run(self, command: str, answers: list[str] | None = None) -> tuple[str, int]:
        """Run a command; return what the terminal shows, and the exit code.

        Arguments:
            command: a line of a shell.
            answers: what is typed, each after a question that ends with ``] ``.
        """
        words = ["bash", "-c", command]
        if _SHELL.fullmatch(command) and (split := shlex.split(command))[:1] == ["tallymark"]:
            words = split
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"words": words, "answers": answers or []}) + "\n")
        self._process.stdin.flush()
        outcome = json.loads(self._process.stdout.readline())
        self.output = outcome["output"]
        return rendered(self.output), outcome["code"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=_LIMIT)


def rendered(output: str) -> str:
    """Return the text that a terminal shows after some output, without blanks at the ends."""
    import pyte

    screen = pyte.Screen(COLUMNS, 1000)
    pyte.Stream(screen).feed(output)
    return "\n".join(line.rstrip() for line in screen.display).rstrip("\n")


def _serve() -> None:
    """Run the commands that come in, one JSON object a line."""
    from tallymark._sync import tally
    from tallymark.cli import _app, _tables, main

    del _app, _tables, tally  # imported for the commands
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(_run(main, request["words"], request["answers"])), flush=True)


def _run(main: Any, words: list[str], answers: list[str]) -> dict[str, Any]:
    """Run a command in a pty."""
    import fcntl
    import pty
    import struct
    import termios

    child, terminal = pty.fork()
    if child == 0:
        # The size is set before anything is printed, since the child waits for it.
        while struct.unpack("HHHH", fcntl.ioctl(1, termios.TIOCGWINSZ, b"\0" * 8))[1] != COLUMNS:
            time.sleep(0.001)
        if words[0] != "tallymark":
            os.execvp(words[0], words)
        code = 70
        try:
            sys.stdin = os.fdopen(0, encoding="utf-8")
            sys.stdout = os.fdopen(1, "w", encoding="utf-8")
            sys.stderr = os.fdopen(2, "w", encoding="utf-8", buffering=1)
            code = main(words[1:])
            sys.stdout.flush()
        finally:
            os._exit(code)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    output = b""
    end = time.monotonic() + _LIMIT
    waiting = list(answers)
    while True:
        ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
        try:
            part = os.read(terminal, 65536) if ready else b""
        except OSError:  # Linux: the child has closed its side
            part = b""
        if not part:
            break
        output += part
        if waiting and output.endswith(b"] "):
            os.write(terminal, f"{waiting.pop(0)}\n".encode())
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    return {
        "output": output.decode("utf-8", "replace"),
        "code": os.waitstatus_to_exitcode(status),
    }


if __name__ == "__main__":
    _serve()
