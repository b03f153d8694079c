"""TLS: whose certificate is taken, for each kind of URL, and what a stranger gets to hear."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio
from redis.exceptions import RedisClusterException

from clusters import _cluster_port
from deployments import tls_front
from facades import ASYNC, SYNC
from servers import RedisProcess, running, running_server
from tallymark import StoreTimeoutError, StoreUnavailableError, SyncTally
from tallymark._core.sharding import SLOTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facades import Facade

PASSWORD = "s3cret"


class Files:
    """An authority, and certificates of it: for this host, and for another one."""

    def __init__(self, folder: Path) -> None:
        import trustme

        authority = trustme.CA()
        self.authority = str(folder / "authority.pem")
        authority.cert_pem.write_to_path(self.authority)
        self.right = self._issued(authority, folder, "right", "localhost", "127.0.0.1")
        self.wrong = self._issued(authority, folder, "wrong", "other.example")
        self.query = f"ssl_ca_certs={self.authority}"

    @staticmethod
    def _issued(authority: Any, folder: Path, label: str, *names: str) -> tuple[str, str]:
        issued = authority.issue_cert(*names)
        paths = str(folder / f"{label}.pem"), str(folder / f"{label}.key")
        issued.cert_chain_pems[0].write_to_path(paths[0])
        issued.private_key_pem.write_to_path(paths[1])
        return paths


class Stranger:
    """Takes connections with a certificate for another host, and notes what it is told.

    Attributes:
        port: where it listens.
        heard: all that came after a handshake.
        handshakes: how many were begun.
    """

    def __init__(self, files: Files) -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(*files.wrong)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.heard = b""
        self.handshakes = 0
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self.handshakes += 1
            plain.settimeout(5)
            with contextlib.suppress(OSError), plain:
                with self._context.wrap_socket(plain, server_side=True) as secure:
                    while data := secure.recv(2**16):
                        self.heard += data
                        secure.sendall(b"-ERR no\r\n")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture(scope="module")
def files() -> Iterator[Files]:
    with TemporaryDirectory() as folder:
        yield Files(Path(folder))


@pytest.fixture
def stranger(files: Files) -> Iterator[Stranger]:
    found = Stranger(files)
    yield found
    found.close()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_server("--requirepass", PASSWORD) as url:
        yield url


@contextlib.contextmanager
def sentinel_of(port: int, files: Files, folder: Path) -> Iterator[int]:
    """Run a Sentinel behind TLS that names a server at this port; yield its own port."""
    settings = folder / f"sentinel-{port}.conf"
    settings.write_text(
        f"sentinel monitor main 127.0.0.1 {port} 1\n"
        # It cannot talk to the server, which has TLS, and is not to mind that.
        "sentinel down-after-milliseconds main 3600000\n"
    )
    process = RedisProcess(str(settings), "--sentinel")
    with running(process), tls_front(process.url, *files.right) as front:
        yield front


async def use(tally: Any) -> None:
    assert await tally.mark_unique("a", 1)
    assert await tally.count(tally.unique("a")) == 1
    assert await tally.unmark_unique("a", 1)


async def is_refused(facade: Facade, stranger: Stranger, url: str, **options: Any) -> None:
    """Neither a mark nor a read tells the stranger anything."""
    before = stranger.handshakes
    async with facade.open(url, timeout=0.4, **options) as tally:
        with pytest.raises((StoreUnavailableError, StoreTimeoutError)):
            await tally.count(tally.unique("a"))
        if "read_from" not in options:
            with pytest.raises((StoreUnavailableError, StoreTimeoutError)):
                await tally.mark_unique("a", 1)
    assert stranger.handshakes > before
    assert stranger.heard == b""


async def test_another_hosts_certificate(
    facade: Facade, files: Files, stranger: Stranger, server: str, tmp_path: Path
) -> None:
    login, query = f"app:{PASSWORD}@", files.query
    port = stranger.port
    for host in ("localhost", "127.0.0.1"):
        await is_refused(facade, stranger, f"rediss://{login}{host}:{port}?{query}")
    await is_refused(facade, stranger, f"rediss+cluster://{login}127.0.0.1:{port}?{query}")
    strange_sentinel = f"rediss+sentinel://{login}localhost:{port}/main?{query}"
    await is_refused(
        facade, stranger, f"{strange_sentinel}&sentinel_username=app&sentinel_password={PASSWORD}"
    )
    real = server.replace("://", f"://:{PASSWORD}@")
    replica = f"rediss://{login}localhost:{port}?{query}"
    await is_refused(facade, stranger, real, read_from=replica)
    with sentinel_of(port, files, tmp_path) as front:
        url = f"rediss+sentinel://{login}localhost:{front}/main?{query}"
        await is_refused(facade, stranger, url)
        await is_refused(facade, stranger, url, read_from="replicas")


async def test_another_hosts_certificate_and_redis_pys_cluster_client(
    files: Files, stranger: Stranger
) -> None:
    """`Tally.client` of a cluster has connections that redis-py makes, with settings of ours."""
    url = f"rediss+cluster://app:{PASSWORD}@localhost:{stranger.port}?{files.query}"
    with SyncTally.from_url(url) as tally:
        with pytest.raises(RedisClusterException, match=r"(?i)certificate"):
            tally.client.get("a")
    made = ASYNC.tally.from_url(url)
    with pytest.raises(RedisClusterException, match=r"(?i)certificate"):
        await made.client.get("a")
    await made.aclose()
    assert stranger.handshakes >= 2
    assert stranger.heard == b""


async def test_the_hosts_own_certificate(
    facade: Facade, files: Files, server: str, tmp_path: Path
) -> None:
    with tls_front(server, *files.right) as port:
        login = f":{PASSWORD}@"
        for host in ("localhost", "127.0.0.1"):
            url = f"rediss://{login}{host}:{port}?{files.query}"
            async with facade.open(url) as tally:
                await use(tally)
            async with facade.open(url, read_from=url) as tally:
                await use(tally)
        with sentinel_of(port, files, tmp_path) as front:
            url = f"rediss+sentinel://{login}localhost:{front}/main?{files.query}"
            for where in ("primary", "replicas"):
                async with facade.open(url, read_from=where) as tally:
                    await use(tally)


async def test_a_cluster_with_its_own_certificate(files: Files, tmp_path: Path) -> None:
    node = RedisProcess(
        *("--cluster-enabled", "yes", "--dir", str(tmp_path), "--requirepass", PASSWORD),
        port=_cluster_port(),
    )
    with running(node), tls_front(node.url, *files.right) as port:
        raw: Any = redis.Redis(port=node.port, password=PASSWORD)
        with raw:
            raw.config_set("cluster-announce-ip", "127.0.0.1")
            raw.config_set("cluster-announce-port", port)
            raw.execute_command("CLUSTER ADDSLOTS", *range(SLOTS))
            while b"cluster_state:ok" not in raw.execute_command("CLUSTER", "INFO"):
                pass
        url = f"rediss+cluster://:{PASSWORD}@localhost:{port}?{files.query}"
        for facade in (ASYNC, SYNC):
            async with facade.open(url, shards=2) as tally:
                await use(tally)
        with SyncTally.from_url(url, shards=2) as sync_tally:
            assert sync_tally.client.set("b", "1")
        made = ASYNC.tally.from_url(url, shards=2)
        assert await made.client.get("b") == b"1"
        await made.aclose()


async def test_less_is_checked_if_the_url_says_so(
    facade: Facade, files: Files, server: str
) -> None:
    with tls_front(server, *files.wrong) as port:
        url = f"rediss://:{PASSWORD}@localhost:{port}"
        for query in (
            f"{files.query}&ssl_check_hostname=false",
            "ssl_cert_reqs=none",
            "ssl_cert_reqs=CERT_NONE",
        ):
            async with facade.open(f"{url}?{query}") as tally:
                await use(tally)


async def test_a_client_of_ones_own_checks_what_it_was_told(files: Files, server: str) -> None:
    """Its settings are the caller's."""
    with tls_front(server, *files.wrong) as port:
        settings: Any = {
            "port": port,
            "password": PASSWORD,
            "ssl": True,
            "ssl_ca_certs": files.authority,
            "ssl_check_hostname": False,
        }
        with redis.Redis(**settings) as client:
            await use(SYNC.verbs(SyncTally(client)))
        async with redis.asyncio.Redis(**settings) as async_client:
            await use(ASYNC.tally(async_client))
