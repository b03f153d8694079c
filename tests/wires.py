"""A TCP proxy that injects the faults of networks and servers."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Direction = Literal["request", "reply"]

#: The seconds between two pieces of data of a throttled wire.
_TICK = 0.02


class Wire:
    """A proxy between clients and a Redis server.

    Attributes:
        url: where clients connect to.
        delay: the seconds by which each piece of data is delayed.
        pace: the bytes per second in each direction; None for no limit.
        refusing: whether new connections are closed at once.
        bytes: how many bytes have passed in each direction.
    """

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        assert target.hostname is not None
        assert target.port is not None
        self._target = (target.hostname, target.port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}{target.path}"
        self.delay = 0.0
        self.pace: float | None = None
        self.refusing = False
        self.bytes: dict[Direction, int] = {"request": 0, "reply": 0}
        self._budgets: dict[Direction, tuple[int, Literal["cut", "hold"]]] = {}
        self._passing = threading.Event()
        self._passing.set()
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._threads: set[threading.Thread] = set()
        self._closed = False
        self._start(self._accept)

    def cut_after(self, direction: Direction, size: int) -> None:
        """Cut the connection that forwards the data after so many more bytes, once."""
        self._budgets[direction] = (size, "cut")

    def hold_after(self, direction: Direction, size: int) -> None:
        """Forward nothing more after so many more bytes, without closing a connection."""
        self._budgets[direction] = (size, "hold")

    def cut_all(self) -> int:
        """Cut all present connections; return how many."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            _reset(*pair)
        return len(pairs)

    def swallow(self) -> None:
        """Forward nothing from now on, without closing a connection: packets get lost."""
        self._passing.clear()

    def heal(self) -> None:
        """End all faults; data that was held back is forwarded."""
        self.delay, self.pace, self.refusing = 0.0, None, False
        self._budgets = {}
        self._passing.set()

    @property
    def is_passing(self) -> bool:
        """Whether data is forwarded."""
        return self._passing.is_set()

    @property
    def connections(self) -> int:
        """The number of open connections."""
        with self._lock:
            return len(self._pairs)

    def close(self) -> None:
        """Close all connections and wait for the threads."""
        self._closed = True
        self.heal()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        while self._threads:
            self.cut_all()  # also those that were being made until now
            for thread in list(self._threads):
                thread.join(0.1)
                if not thread.is_alive():
                    self._threads.discard(thread)
        self._listener.close()

    def _start(self, run: Callable[..., object], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        for ended in [each for each in self._threads if not each.is_alive()]:
            self._threads.discard(ended)
        thread.start()
        self._threads.add(thread)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.refusing or self._closed:
                    client.close()
                    continue
                self._start(self._connect, client)

    def _connect(self, client: socket.socket) -> None:
        self._wait()
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        pair = (client, server)
        with self._lock:
            self._pairs.add(pair)
        requests = threading.Thread(
            target=self._pump, args=(client, server, "request"), daemon=True
        )
        requests.start()
        self._pump(server, client, "reply")
        requests.join()
        with self._lock:
            self._pairs.discard(pair)
        client.close()
        server.close()

    def _pump(self, source: socket.socket, target: socket.socket, direction: Direction) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                self._wait()
                if self.delay:
                    time.sleep(self.delay)
                budget, ending = self._budgets.get(direction, (len(data) + 1, "cut"))
                if budget <= len(data):
                    self._budgets.pop(direction, None)
                    target.sendall(data[:budget])
                    if ending == "cut":
                        # The data before the cut arrives, which a reset would discard.
                        target.shutdown(socket.SHUT_WR)
                        source.shutdown(socket.SHUT_RD)
                        break
                    data = data[budget:]
                    self._passing.clear()
                    self._wait()
                elif direction in self._budgets:
                    self._budgets[direction] = (budget - len(data), ending)
                self._forward(data, target)
                self.bytes[direction] += len(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _wait(self) -> None:
        """Wait while forwarding is suspended."""
        while not self._closed and not self._passing.wait(0.1):
            pass

    def _forward(self, data: bytes, target: socket.socket) -> None:
        while data and (pace := self.pace) is not None:
            size = max(1, int(pace * _TICK))
            target.sendall(data[:size])
            data = data[size:]
            time.sleep(size / pace)
        target.sendall(data)


def _reset(*sockets: socket.socket) -> None:
    """Close connections with a reset (RST)."""
    for each in sockets:
        with contextlib.suppress(OSError):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def wired(url: str) -> Iterator[Wire]:
    """Run a wire to a server."""
    wire = Wire(url)
    try:
        yield wire
    finally:
        wire.close()
