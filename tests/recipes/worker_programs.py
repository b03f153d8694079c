"""Writes the programs of docs/how-to/task-queues.md to files, and runs them in real workers."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from documents import DOCUMENTS, READERS_URL, fences
from servers import RedisProcess, running_server
from stores import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "COMMANDS",
    "PROGRAMS",
    "Programs",
    "Worker",
    "assert_all_marked",
    "assert_paid",
    "celery_may_hang",
    "queued",
    "stoppable_store",
]

#: The broker of the page: another database of the reader's Redis.
READERS_BROKER = READERS_URL.replace("/0", "/1")

_BLOCKS = fences(DOCUMENTS["docs/how-to/task-queues.md"])

#: The programs of the page. The first line of each has its name.
PROGRAMS = {
    block.content.partition("\n")[0].removeprefix("# "): block.content
    for block in _BLOCKS
    if block.info == "python"
}
#: The commands of the page, which start workers, by their first word.
COMMANDS = {
    block.content.split()[0]: block.content.split() for block in _BLOCKS if block.info == "sh"
}

#: A module for programs that send many events: 200 users on four days of two weeks, all in the
#: past, so that a task that marks the present is noticed.
EVENTS = """\
from datetime import datetime, timedelta, timezone

SATURDAY = datetime(2025, 3, 1, 12, tzinfo=timezone.utc)
EVENTS = [("active", user, SATURDAY + timedelta(days=user % 4)) for user in range(200)]
"""

#: How many seconds a worker may take for anything.
PATIENCE = 30


def python_with(package: str) -> str:
    """Return a Python that has a task queue, which may need another redis-py than the tests.

    ``nox -s recipes`` names one for each, and then no test is skipped.
    """
    given = os.environ.get(f"TALLYMARK_{package.upper()}_PYTHON")
    if given is None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; `nox -s recipes` has it")
    return given or sys.executable


@contextlib.contextmanager
def queued(folder: Path, package: str, store_url: str) -> Iterator[Programs]:
    """Yield the programs of the page in a folder, for a store, and a broker of their own."""
    python = python_with(package)
    with running_server() as broker_url, redis.Redis.from_url(broker_url) as broker:
        for name, program in PROGRAMS.items():
            text = program.replace(READERS_URL, store_url).replace(READERS_BROKER, broker_url)
            (folder / name).write_text(text, encoding="utf-8")
        (folder / "events.py").write_text(EVENTS, encoding="utf-8")
        yield Programs(folder, python, broker)


@contextlib.contextmanager
def stoppable_store() -> Iterator[tuple[RedisProcess, Store]]:
    """Yield a server for a tally that can be started, frozen and stopped, and its bits."""
    server = RedisProcess()
    with redis.Redis.from_url(server.url) as raw:
        try:
            yield server, Store(server.url, raw)
        finally:
            server.stop()


def assert_paid(bits: dict[str, set[int]]) -> None:
    """Assert that the bits are those of the page's producer."""
    assert len(bits) == 3
    for key, users in bits.items():
        assert key.startswith("trackist_order:paid_")
        assert users == {7}


def assert_all_marked(store: Store) -> None:
    """Assert that the bits are those of `EVENTS` and of the page's producer."""
    bits = store.bits()
    users = set(range(200))
    expected = {
        "trackist_active_2025-3": users,
        "trackist_active_W2025-9": {user for user in users if user % 4 < 2},
        "trackist_active_W2025-10": {user for user in users if user % 4 > 1},
        **{f"trackist_active_2025-3-{day + 1}": set(range(day, 200, 4)) for day in range(4)},
    }
    assert {key: bits.pop(key, None) for key in expected} == expected
    assert_paid(bits)


class Programs:
    """The programs of the page in a folder.

    Attributes:
        broker: a client of the server of their broker.
    """

    def __init__(self, folder: Path, python: str, broker: redis.Redis) -> None:
        self.broker = broker
        self._folder = folder
        self._python = python

    def change(self, name: str, old: str, new: str) -> None:
        """Replace what a pattern matches in a program."""
        program = self._folder / name
        text = program.read_text(encoding="utf-8")
        changed, times = re.subn(old, new, text, flags=re.MULTILINE)
        assert times, old
        program.write_text(changed, encoding="utf-8")

    def announce(self, name: str) -> None:
        """Let the task of a program print which user it begins to mark, and whom it has marked."""
        call = r"^( +)(.*mark_event\((.*), (.*), now=.*)$"
        says = r"\1print(f'begin-{\3}-{\4}')\n\1\2\n\1print(f'end-{\3}-{\4}')"
        self.change(name, call, says)

    def run(self, name: str, code: str = "") -> str:
        """Run a program, of the page or with ``code``, and return what it prints."""
        if code:
            (self._folder / name).write_text(code, encoding="utf-8")
        done = subprocess.run(
            [self._python, name],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def worker(self, command: str, *arguments: str) -> Iterator[Worker]:
        """Run a worker with a command of the page; if the block raises, kill it."""
        path, *rest = COMMANDS[command]
        process = subprocess.Popen(
            [str(Path(self._python).with_name(path)), *rest, *arguments],
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        worker = Worker(process)
        try:
            yield worker
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            worker.join()


class HangsError(AssertionError):
    """A worker neither ends nor logs what is waited for."""


def celery_may_hang(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test anew, up to three times in all, if a worker of Celery hangs.

    Its prefork pool may wait for ever for a task that it has taken, but not yet given to a child,
    as it is asked to end (seen in one of six runs with Celery 5.7 on a busy machine).
    """

    @functools.wraps(test)
    def repeated(tmp_path: Path, **fixtures: Any) -> None:
        for attempt in range(3):
            folder = tmp_path / str(attempt)
            folder.mkdir()
            try:
                test(tmp_path=folder, **fixtures)
            except HangsError as error:
                if attempt == 2 or "celery" not in str(error):
                    raise
            else:
                return

    return repeated


class Worker:
    """A running worker, and what it logs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: list[str] = []
        self._changed = threading.Condition()  # reentrant: `found` takes it too
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def log(self) -> str:
        """What it has logged until now."""
        with self._changed:
            return "".join(self._lines)

    def found(self, pattern: str) -> list[str]:
        """Return what the pattern matches in the log, each text once."""
        return list(dict.fromkeys(re.findall(pattern, self.log)))

    def wait_for(self, pattern: str, count: int = 1, before: Iterable[str] = ()) -> list[str]:
        """Wait until the pattern has matched so many texts, with those before; return all."""

        def found() -> list[str]:
            return list(dict.fromkeys([*before, *self.found(pattern)]))

        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(found()) >= count, PATIENCE)
        if len(found()) < count:
            raise (AssertionError if self._ended else HangsError)(self.log)
        return found()

    def terminate(self) -> None:
        """Ask it to end, as a supervisor does (SIGTERM)."""
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Ask it to end, and wait until it has, without an error."""
        self.terminate()
        self.end()

    def end(self) -> None:
        """Wait until it has ended, without an error."""
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise HangsError(f"it does not end:\n{self.log}") from None
        assert status == 0, self.log
        self.join()

    def kill(self) -> None:
        """Kill it and all of its processes (SIGKILL)."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.join()

    def join(self) -> None:
        """Wait until its log has ended."""
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
