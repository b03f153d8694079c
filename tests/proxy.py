"""A TCP proxy in threads of its own, which records, delays and drops data."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Proxy:
    """A proxy between clients and a Redis server.

    Attributes:
        url: where clients connect to.
        sent: the data of each receive from a client, in order.
        passing: while not set, the replies to marks are held back.
        marker: replies with these bytes are those to marks.
        reading: while not set, nothing is read from the clients.
        held: set as soon as a reply is held back.
        cuts: how many of the next replies to marks end halfway, with their connection.
    """

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        assert target.hostname is not None
        assert target.port is not None
        self._target = (target.hostname, target.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}{target.path}"
        self.sent: list[bytes] = []
        self.passing = threading.Event()
        self.passing.set()
        self.reading = threading.Event()
        self.reading.set()
        self.held = threading.Event()
        self.marker = b"QUEUED"
        self.cuts = 0
        self._connections = 0
        self._deaf = 0
        self._start(self._accept)

    def transactions(self) -> list[bytes]:
        """Return the received data with transactions: all but the handshakes of connections."""
        return [data for data in self.sent if b"MULTI" in data or b"EXEC" in data]

    def lose_replies(self) -> None:
        """Drop all replies on the present connections from now on."""
        self._deaf = self._connections

    def close(self) -> None:
        """Close all connections and wait for the threads."""
        self.passing.set()
        self.reading.set()
        # A thread in accept() or recv() does not notice a close, but a shutdown.
        for connection in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for connection in (self._listener, *self._sockets):
            connection.close()

    def _start(self, run: Callable[..., object], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                self._start(self._pump_requests, client, server)
                self._connections += 1
                self._start(self._pump_replies, server, client, self._connections)

    def _pump_requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while self.reading.wait() and (data := client.recv(2**20)):
                self.sent.append(data)
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)

    def _pump_replies(self, server: socket.socket, client: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(2**20):
                if number <= self._deaf:
                    continue
                if self.marker in data:
                    if not self.passing.is_set():
                        self.held.set()
                        self.passing.wait()
                    if self.cuts:
                        self.cuts -= 1
                        client.sendall(data[: len(data) // 2])
                        break
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
            server.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxied(url: str) -> Iterator[Proxy]:
    """Run a proxy in front of a server."""
    proxy = Proxy(url)
    try:
        yield proxy
    finally:
        proxy.close()
