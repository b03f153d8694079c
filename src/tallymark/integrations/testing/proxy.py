"""A TCP proxy before a real server, which injects the faults of a store."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

from hiredis import Reader

from ..._redis.clocks import clocks
from ..._redis.faults import OOM, is_denied

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..._redis.faults import Fault

__all__ = ["Proxy"]

_SIZE: Final = 2**16
#: How often, in seconds, a delayed request looks whether its client has gone.
_INTERVAL: Final = 0.01
#: What a reader returns until it has all of a reply; RESP3 has a reply that is False.
_MORE: Final = object()
_OOM: Final = f"-{OOM}\r\n".encode()
_ABORTED: Final = b"-EXECABORT Transaction discarded because of previous errors.\r\n"


class Proxy:
    """Forwards requests to a server, and replies to its clients; one thread for each connection.

    Attributes:
        port: where it listens, on 127.0.0.1.
    """

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        """Begin to listen, without a fault; ``connect`` connects to the server."""
        self._connect = connect
        self._fault: Fault | None = None
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self._closed = False
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def inject(self, fault: Fault | None) -> None:
        """Replace the fault of the server; ``None`` for none."""
        with self._lock:
            self._fault = fault
        if fault is not None and fault.kind == "unavailable":
            self._cut()

    def close(self) -> None:
        """Close all connections, and wait for the thread that accepts them."""
        with self._lock:
            self._closed = True
        _shut(self._listener)
        self._acceptor.join()
        self._listener.close()
        self._cut()

    def _cut(self) -> None:
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            _shut(*pair)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            server = self._connect()
            with server:
                for end in (client, server):
                    if end.family != getattr(socket, "AF_UNIX", None):
                        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                pair = (client, server)
                with self._lock:
                    fault = self._fault
                    if self._closed or (fault is not None and fault.kind == "unavailable"):
                        return
                    self._pairs.add(pair)
                try:
                    _Session(client, server, lambda: self._fault).run()
                finally:
                    with self._lock:
                        self._pairs.discard(pair)


class _Session:
    """One connection: reads some requests, forwards them, and waits for all their replies."""

    def __init__(
        self, client: socket.socket, server: socket.socket, fault: Callable[[], Fault | None]
    ) -> None:
        self._client = client
        self._server = server
        self._fault = fault
        self._commands = Reader(notEnoughData=_MORE)
        self._replies = Reader(notEnoughData=_MORE)
        #: In a transaction with a command that was refused.
        self._aborted = False
        self._in_transaction = False

    def run(self) -> None:
        """Serve the client until one of both ends closes its connection."""
        while data := self._client.recv(_SIZE):
            fault = self._fault()
            if fault is not None and fault.kind == "slow" and not self._waited(fault):
                return
            self._commands.feed(data)
            while (command := self._commands.gets()) is not _MORE:
                full = fault is not None and fault.kind == "full"
                self._client.sendall(self._answer(command, full=full))

    def _answer(self, command: list[bytes], *, full: bool) -> bytes:
        name = command[0].lower()
        if full and is_denied(command):
            self._aborted = self._in_transaction
            return _OOM
        if name in (b"multi", b"exec", b"discard"):
            aborted, self._aborted = self._aborted, False
            self._in_transaction = name == b"multi"
            if name == b"exec" and aborted:
                self._exchange([b"DISCARD"])
                return _ABORTED
        return self._exchange(command)

    def _exchange(self, command: list[bytes]) -> bytes:
        """Forward one command, and return the bytes of its reply."""
        parts: list[Any] = [b"*%d\r\n" % len(command)]
        parts += [b"$%d\r\n%b\r\n" % (len(part), part) for part in command]
        self._server.sendall(b"".join(parts))
        received = b""
        while self._replies.gets() is _MORE:
            data = self._server.recv(_SIZE)
            if not data:
                raise ConnectionResetError
            received += data
            self._replies.feed(data)
        return received

    def _waited(self, fault: Fault) -> bool:
        """Wait until the fault lets a request pass; return False if the client goes before."""
        end = clocks.monotonic() + fault.seconds
        while not fault.over.is_set() and (left := end - clocks.monotonic()) > 0:
            if select.select([self._client], [], [], min(left, _INTERVAL))[0]:
                if not self._client.recv(1, socket.MSG_PEEK):
                    return False
                fault.over.wait(min(left, _INTERVAL))  # more of the same request
        return True


def _shut(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
