"""TLS: whose certificate is taken, for each kind of URL, and what a stranger gets to hear."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import redis
import redis.asyncio
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from redis.exceptions import RedisClusterException

from clusters import _cluster_port
from deployments import tls_front
from facades import ASYNC, SYNC
from servers import RedisProcess, running, running_server, valkey_binary
from tallymark import (
    InvalidValueError,
    StoreTimeoutError,
    StoreUnavailableError,
    SyncTally,
    bitmapist,
)
from tallymark._core.keys import SLOTS

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
        self.authority_pem = authority.cert_pem.bytes().decode()
        self.query = f"ssl_ca_certs={self.authority}"

    @staticmethod
    def _issued(authority: Any, folder: Path, label: str, *names: str) -> tuple[str, str]:
        issued = authority.issue_cert(*names)
        paths = str(folder / f"{label}.pem"), str(folder / f"{label}.key")
        issued.cert_chain_pems[0].write_to_path(paths[0])
        issued.private_key_pem.write_to_path(paths[1])
        return paths


class Stranger:
    """Accepts connections with a certificate for another host, and records what it receives.

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
        # Redis 6.2, which may be the one at hand, takes a new port to announce only at its start.
        binary=valkey_binary() or "",
    )
    with running(node), tls_front(node.url, *files.right) as port:
        raw: Any = redis.Redis(port=node.port, password=PASSWORD)
        with raw:
            raw.config_set("cluster-announce-ip", "127.0.0.1")
            raw.config_set("cluster-announce-port", port)
            raw.execute_command("CLUSTER ADDSLOTS", *range(SLOTS))
            while b"cluster_state:ok" not in raw.execute_command("CLUSTER", "INFO"):
                pass
            # The node announces its new port with the next turn of its timer.
            while f":{port}@".encode() not in raw.execute_command("CLUSTER", "NODES"):
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


async def test_a_callers_client_checks_certificates_as_it_is_configured(
    files: Files, server: str
) -> None:
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


def test_the_drop_in_checks_names(files: Files, stranger: Stranger, server: str) -> None:
    """Of a client that it makes itself, also on redis-py 5."""
    settings: Any = {"password": PASSWORD, "ssl": True, "ssl_ca_certs": files.authority}
    bitmapist.setup_redis("default", "localhost", stranger.port, **settings)
    with pytest.raises((redis.ConnectionError, redis.TimeoutError)):  # it was tried again
        bitmapist.mark_event("a", 1)
    with pytest.raises(redis.ConnectionError, match=r"(?i)certificate"):
        bitmapist.get_redis().get("a")
    assert stranger.handshakes >= 2
    assert stranger.heard == b""
    with tls_front(server, *files.right) as port:
        bitmapist.setup_redis("default", "localhost", port, **settings)
        bitmapist.mark_event("a", 1)
    with tls_front(server, *files.wrong) as port:
        bitmapist.setup_redis("default", "localhost", port, **settings, ssl_check_hostname=False)
        bitmapist.mark_event("a", 1)
        for nothing in ("none", None, ssl.CERT_NONE):
            bitmapist.setup_redis("default", "localhost", port, **settings, ssl_cert_reqs=nothing)
            bitmapist.mark_event("a", 1)


@pytest.mark.parametrize("place", ["rediss://{}", "rediss+sentinel://{}/a", "rediss+cluster://{}"])
def test_unusable_tls_options_are_refused_when_a_tally_is_made(
    facade: Facade, place: str, files: Files, tmp_path: Path
) -> None:
    url = place.format("u:s3cret@localhost:1")
    certificate, key = files.right
    other_key = files.wrong[1]
    rubbish = tmp_path / "s3cret"
    rubbish.write_text("s3cret")
    for query, message in (
        ("ssl_ca_certs=/s3cret", "ssl_ca_certs"),
        (f"ssl_ca_certs={rubbish}", "ssl_ca_certs"),
        (f"ssl_ca_certs={tmp_path}", "ssl_ca_certs"),
        ("ssl_ca_data=s3cret", "ssl_ca_data"),
        ("ssl_ca_data=%C3%A9s3cret", "ssl_ca_data"),
        ("ssl_ciphers=S3CRET", "ssl_ciphers"),
        ("ssl_certfile=/s3cret", "ssl_certfile"),
        (f"ssl_certfile={certificate}", "ssl_certfile"),
        (f"ssl_certfile={certificate}&ssl_keyfile=/s3cret", "ssl_keyfile"),
        (f"ssl_certfile={certificate}&ssl_keyfile={other_key}", "ssl_keyfile"),
        (f"ssl_keyfile={key}", "ssl_keyfile, which needs ssl_certfile"),
    ):
        for more in ("", "&ssl_cert_reqs=none"):
            with pytest.raises(InvalidValueError, match=message) as raised:
                facade.tally.from_url(f"{url}?{query}{more}")
            assert "s3cret" not in str(raised.value).lower()
            assert raised.value.__context__ is None
    data = quote(files.authority_pem, safe="")
    for query in (
        files.query,
        f"ssl_ca_data={data}",
        f"ssl_certfile={certificate}&ssl_keyfile={key}",
        "ssl_ciphers=ECDHE%2BAESGCM",
    ):
        facade.tally.from_url(f"{url}?{query}")


def test_a_folder_of_certificates_that_is_none(files: Files, tmp_path: Path) -> None:
    """redis-py 5 to 7 take one in blocking clients only."""
    for wrong in (tmp_path / "none", files.authority):
        with pytest.raises(InvalidValueError, match="ssl_ca_path"):
            SyncTally.from_url(f"rediss://localhost:1?ssl_ca_path={wrong}")
    SyncTally.from_url(f"rediss://localhost:1?ssl_ca_path={tmp_path}")


def test_the_password_of_a_key(files: Files, tmp_path: Path) -> None:
    """Nobody is asked for it at the terminal."""
    key = load_pem_private_key(Path(files.right[1]).read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSWORD.encode())
        )
    )
    url = f"rediss://localhost:1?ssl_certfile={files.right[0]}&ssl_keyfile={locked}"
    for more in ("", "&ssl_password=another"):
        with pytest.raises(InvalidValueError, match="ssl_password") as raised:
            SyncTally.from_url(url + more)
        assert "another" not in str(raised.value)
    SyncTally.from_url(f"{url}&ssl_password={PASSWORD}")


def test_what_ocsp_needs(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "rediss://localhost:1?ssl_validate_ocsp"
    with pytest.raises(InvalidValueError, match="only one may be true"):
        SyncTally.from_url(f"{url}=1&ssl_validate_ocsp_stapled=1")
    # As if these were installed, or not.
    found: set[str] = set()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in found else None)
    with pytest.raises(InvalidValueError, match=r"ssl_validate_ocsp, .* module cryptography"):
        SyncTally.from_url(f"{url}=1")
    with pytest.raises(InvalidValueError, match=r"ssl_validate_ocsp_stapled, .* module OpenSSL"):
        SyncTally.from_url(f"{url}_stapled=1")
    found |= {"cryptography", "requests", "OpenSSL"}
    SyncTally.from_url(f"{url}=1")
    with pytest.raises(InvalidValueError, match="needs ssl_certfile and ssl_keyfile"):
        SyncTally.from_url(f"{url}_stapled=1")
    certificate, key = files.right
    SyncTally.from_url(f"{url}_stapled=1&ssl_certfile={certificate}&ssl_keyfile={key}")
