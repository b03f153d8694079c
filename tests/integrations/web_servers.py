"""Runs web servers in processes of their own, and sends requests to them over HTTP."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
from datetime import datetime, timezone
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


def today() -> str:
    """Return the end of the keys of today."""
    now = datetime.now(timezone.utc)
    return f"{now.year}-{now.month}-{now.day}"


class WebServer:
    """A server that runs.

    Attributes:
        port: its port on 127.0.0.1.
        log: the lines that it has written.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.log: list[str] = []
        assert process.stderr is not None
        for line in process.stderr:  # ends when the server does
            self.log.append(line)
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if found is not None:
                self.port = int(found[1])
                break
        else:
            process.wait()
            raise RuntimeError(f"the server did not start:\n{''.join(self.log)}")
        # A full pipe would stop the server at its next log line.
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        self.log.extend(self._process.stderr)

    def get(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
        """Send one request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            cookies = [value.partition(";")[0] for value in response.msg.get_all("Set-Cookie", [])]
            return Answer(response.status, response.read().decode(), "; ".join(cookies))

    def terminate(self) -> None:
        """Ask the server to stop (SIGTERM)."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def visit_until_it_stops(self, path: str, first: int = 200) -> set[int]:
        """Send requests from four threads; ask the server to stop after the first ones.

        Arguments:
            path: the path, with ``{}`` for the number of the request.
            first: after how many requests the server is asked to stop.

        Returns:
            The numbers of the requests that were answered with 200.
        """
        numbers, answered = itertools.count(), set()

        def visit() -> None:
            with contextlib.suppress(OSError, HTTPException):
                for number in numbers:
                    if self.get(path.format(number)).status == 200:
                        answered.add(number)
                    if number == first:
                        self.terminate()

        threads = [threading.Thread(target=visit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answered) >= first
        return answered

    def stop(self) -> None:
        """Stop the server, and wait until all its processes have ended."""
        self.terminate()
        self._process.wait(30)
        self._reader.join()  # all processes have closed the pipe
        assert self._process.stderr is not None
        self._process.stderr.close()


class Answer:
    """An answer over HTTP.

    Attributes:
        status: the status code.
        text: the body.
        cookies: what the next request has to have in its header ``Cookie``.
    """

    def __init__(self, status: int, text: str, cookies: str) -> None:
        self.status, self.text, self.cookies = status, text, cookies


@contextlib.contextmanager
def web_server(*command: str, **variables: str) -> Iterator[WebServer]:
    """Run a server, as a module of Python, with ``tests/integrations`` as its folder.

    Its log is on standard error.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=HERE,
        env={**os.environ, **variables},
        stderr=subprocess.PIPE,
        text=True,
    )
    server = WebServer(process)
    try:
        yield server
    finally:
        server.stop()


def gunicorn(
    app: str, *arguments: str, **variables: str
) -> contextlib.AbstractContextManager[WebServer]:
    """Run an app in gunicorn's threads."""
    options = ("--bind", "127.0.0.1:0", "--worker-class", "gthread", "--threads", "4")
    return web_server("gunicorn", *options, *arguments, app, **variables)


def uvicorn(app: str, **variables: str) -> contextlib.AbstractContextManager[WebServer]:
    """Run an app in uvicorn."""
    return web_server("uvicorn", "--port", "0", app, **variables)
