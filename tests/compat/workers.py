"""Programs under another Python, which answer each line of JSON with a line of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Worker", "running_worker"]


class Worker:
    """A running program."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, question: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            pytest.fail(f"bitmapist's process has ended with {self._process.wait()}")
        return json.loads(answer)


@contextlib.contextmanager
def running_worker(script: Path, *arguments: str) -> Iterator[Worker]:
    """Run a script under the Python that has bitmapist."""
    command = [os.environ["TALLYMARK_BITMAPIST_PYTHON"], str(script), *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Worker(process)
