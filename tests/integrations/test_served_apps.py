"""Apps in processes of real servers, over HTTP: what a shutdown and a lost store do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest

from documents import DOCUMENTS, READERS_URL, fences
from servers import RedisProcess
from wires import wired

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stores import Store

PROGRAM = Path(__file__).parent / "served_apps.py"
KINDS = ["fastapi", "aiohttp"]

#: The programs of docs/how-to/asgi-frameworks.md, by the framework.
PAGES = {
    name: next(
        block.content
        for block in fences(DOCUMENTS["docs/how-to/asgi-frameworks.md"])
        if f"\nfrom {name} import" in f"\n{block.content}"
    )
    for name in ("litestar", "quart")
}
#: What serves such a program on the socket with a file descriptor.
SERVES = """
import logging, socket, sys
import uvicorn

logging.basicConfig()
config = uvicorn.Config(app, log_level="warning")
uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""


def program(kind: str, store_url: str, timeout: float) -> list[str]:
    """Return the arguments of Python, without the file descriptor, that serve an app."""
    if kind in KINDS:
        return [str(PROGRAM), kind, str(timeout)]
    options = f'"{store_url}", timeout={timeout}, track_unique=True'
    return ["-c", PAGES[kind].replace(f'"{READERS_URL}"', options) + SERVES]


class Server:
    """A process that serves one of the apps.

    Attributes:
        url: its URL.
        log: what it has logged; complete after `stop`.
    """

    def __init__(self, kind: str, store_url: str, timeout: float) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            descriptor = listener.fileno()
            self._process = subprocess.Popen(
                [sys.executable, *program(kind, store_url, timeout), str(descriptor)],
                pass_fds=[descriptor],
                env={**os.environ, "TALLYMARK_URL": store_url},
                stderr=subprocess.PIPE,
                text=True,
            )
        self.log = ""

    def terminate(self) -> None:
        """Ask the process to stop (SIGTERM)."""
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> float:
        """Stop the process; return how many seconds that took."""
        begun = time.monotonic()
        self.terminate()
        self.log = self._process.communicate(timeout=30)[1]
        return time.monotonic() - begun

    def kill(self) -> None:
        """Kill the process, if a test has failed."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def serving(kind: str, store_url: str, timeout: float = 20.0) -> Iterator[Server]:
    """Serve an app whose marks fail after so many seconds."""
    server = Server(kind, store_url, timeout)
    try:
        yield server
    finally:
        server.kill()


async def ask(session: aiohttp.ClientSession, user: int, method: str = "GET") -> float:
    """Send a request, check the response, and return the seconds that it took."""
    begun = time.monotonic()
    async with session.request(method, f"/hello/{user}") as response:
        assert response.status == 200
        assert await response.text() == ("" if method == "HEAD" else f"hello {user}")
    return time.monotonic() - begun


async def ask_many(session: aiohttp.ClientSession, users: range) -> list[float]:
    """Send requests in eight tasks; return the seconds of each."""
    waiting = iter(users)

    async def client() -> list[float]:
        return [await ask(session, user) for user in waiting]

    return list(itertools.chain(*await asyncio.gather(*(client() for _ in range(8)))))


def marked(store: Store) -> set[int]:
    """Return the users of the event, whatever its name."""
    (users,) = (users for key, users in store.bits().items() if key.endswith("_u"))
    return users


@pytest.mark.parametrize("kind", [*KINDS, *PAGES])
async def test_a_shutdown_sends_the_marks_of_all_answered_requests(
    kind: str, redis_store: Store
) -> None:
    answered = set()
    with wired(redis_store.url) as wire, serving(kind, wire.url) as server:
        async with aiohttp.ClientSession(server.url) as session:
            users = itertools.count(1)

            async def client() -> None:
                with contextlib.suppress(aiohttp.ClientError):
                    for user in users:
                        await ask(session, user)
                        answered.add(user)
                        if user == 300:
                            server.terminate()

            # Litestar has no HEAD for a route with GET.
            await ask(session, 0, "GET" if kind == "litestar" else "HEAD")
            wire.delay = 0.05  # so that marks wait when the signal comes
            await asyncio.gather(*(client() for _ in range(8)))
        server.stop()
    assert server.log == ""
    assert len(answered) >= 300
    assert marked(redis_store) >= answered | {0}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_leaves_a_stream_is_marked(kind: str, redis_store: Store) -> None:
    with serving(kind, redis_store.url) as server:
        async with aiohttp.ClientSession(server.url) as session:
            async with session.get("/stream/7") as response:
                assert await response.content.readexactly(8) == b"moremore"
                response.close()
            await ask(session, 8)
        server.stop()
    assert "WARNING:tallymark" not in server.log
    assert marked(redis_store) == {7, 8}


@pytest.mark.timed
@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        *itertools.product(KINDS, ["killed", "black hole", "never there"]),
        *itertools.product(PAGES, ["killed"]),
    ],
)
async def test_without_a_store_every_response_is_right_and_in_time(kind: str, fault: str) -> None:
    redis = RedisProcess()
    redis.start()
    with wired(redis.url) as wire, serving(kind, wire.url, timeout=1.0) as server:
        try:
            if fault == "never there":
                redis.kill()
            async with aiohttp.ClientSession(server.url) as session:
                await ask_many(session, range(20))
                if fault == "killed":
                    redis.kill()
                elif fault == "black hole":
                    wire.swallow()
                end = time.monotonic() + 2.0  # until marks have failed, and more are waiting
                seconds = [0.0]
                while time.monotonic() < end:
                    seconds += await ask_many(session, range(40))
            stopped_in = server.stop()
        finally:
            if fault == "black hole":
                redis.kill()
    assert len(seconds) > 40
    assert max(seconds) < 0.5
    assert stopped_in < 5.0  # marks wait for one second, closing connections takes another
    assert "buffered marks have failed" in server.log
    assert "Traceback" not in server.log
