"""How long a mark takes: tallymark beside bitmapist and beside plain redis-py code.

Contenders take turns, a short round each, on one Redis on this machine, so a
busy spell of the machine slows them all. Quote the ratios, never a time alone.

    nox -s bench -- --rounds 15
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from contenders import ASYNC, BLOCKING

from servers import running_server  # pyright: ignore[reportMissingImports]

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENDERS = Path(__file__).with_name("contenders.py")
#: The Python that has bitmapist, which pins an older redis-py than ours.
BITMAPIST_PYTHON = os.environ.get("TALLYMARK_BITMAPIST_PYTHON")


@dataclass
class Contender:
    """A process that marks, and what its rounds took."""

    name: str
    requests: IO[str]
    answers: IO[str]
    rounds: list[float] = field(default_factory=list)

    def mark(self, count: int) -> float:
        """Mark so many times and return the microseconds for each."""
        self.requests.write(f"{count}\n")
        self.requests.flush()
        return 1e6 * float(self.answers.readline()) / count


@contextlib.contextmanager
def contender(name: str, url: str, callers: int) -> Iterator[Contender]:
    """Start a contender, and end it."""
    python = BITMAPIST_PYTHON if name == "bitmapist" else sys.executable
    command = [str(python), str(CONTENDERS), name, url, str(callers)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Contender(name, process.stdin, process.stdout)
        process.stdin.close()


def compare(names: list[str], url: str, callers: int, rounds: int, marks: int) -> None:
    """Let the contenders take turns, and print what each took beside the first."""
    with contextlib.ExitStack() as stack:
        contenders = [stack.enter_context(contender(name, url, callers)) for name in names]
        for each in contenders:
            each.mark(marks // 5)  # connects, and warms caches
        for _ in range(rounds):
            for each in contenders:
                each.rounds.append(each.mark(marks))
        first = contenders[0]
        print(f"\n{callers} caller(s), {rounds} rounds of {marks} marks each")
        print(f"  {'':16} {'us/mark':>9} {'lowest':>9} {'highest':>9}   marks/s to {first.name}'s")
        for each in contenders:
            ratios = [a / b for a, b in zip(first.rounds, each.rounds, strict=True)]
            print(
                f"  {each.name:16} {statistics.median(each.rounds):9.1f}"
                f" {min(each.rounds):9.1f} {max(each.rounds):9.1f}"
                f"   {statistics.median(ratios):6.2f}x"
            )


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=11, help="how often each has its turn")
    parser.add_argument("--marks", type=int, default=3000, help="marks in a round")
    arguments = parser.parse_args()
    blocking = list(BLOCKING)
    if BITMAPIST_PYTHON is None:
        print("without bitmapist: TALLYMARK_BITMAPIST_PYTHON names no Python that has it")
        blocking.remove("bitmapist")
    with running_server() as url:
        print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, Redis on this machine")
        compare(blocking, url, 1, arguments.rounds, arguments.marks)
        for callers in (1, 50):
            compare(list(ASYNC), url, callers, arguments.rounds, arguments.marks)


if __name__ == "__main__":
    main()
