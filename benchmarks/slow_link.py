"""A TCP proxy that delays all data, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Delayed(asyncio.Protocol):
    """Forwards data after a delay, in order."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.other: _Delayed | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self.seconds, self._pass_on, data)

    def _pass_on(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class _Accepted(_Delayed):
    def __init__(self, seconds: float, host: str, port: int) -> None:
        super().__init__(seconds)
        self._target = (host, port)
        self._early: list[bytes] = []
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, server = await loop.create_connection(lambda: _Delayed(self.seconds), *self._target)
        server.other, self.other = self, server
        for data in self._early:
            super()._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            super()._pass_on(data)


async def _serve(seconds: float, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Accepted(seconds, host, port), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def slow_link(url: str, milliseconds: float) -> Iterator[str]:
    """Run the proxy with a round trip of so many milliseconds, and yield the URL through it."""
    target = urlsplit(url)
    arguments = [str(milliseconds / 2000), str(target.hostname), str(target.port)]
    with subprocess.Popen(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        try:
            yield f"redis://127.0.0.1:{port}{target.path}"
        finally:
            process.terminate()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
