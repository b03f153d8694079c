"""A database of a real server for the tests of one process: claimed while empty, emptied by each.

The database holds one key of its own, the claim, which names the process. Nothing but a database
with this claim is ever flushed.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

import redis

from ..._core.options import Options
from ..._core.urls import StoreUrl
from ..._redis.blocking_clients import KINDS
from ..._redis.clients import make_client
from ..._redis.errors import failure
from ...errors import InvalidValueError

if TYPE_CHECKING:
    from ..._core.urls import StoreAddress

__all__ = ["Database"]

#: No tally has it: its prefix ends with "_".
_CLAIM: Final = "tallymark-pytest"
#: In seconds. Each test renews the claim; that of a process that was killed ends by itself.
_LIFETIME: Final = 3600


class Database:
    """An empty database of a server, for the tests of this process.

    Attributes:
        url: the URL.
        address: its parts.
    """

    def __init__(self, url: str) -> None:
        """Claim the database of a URL; worker n of pytest-xdist, the one n numbers after it.

        Arguments:
            url: of a server, with ``redis://``, ``rediss://`` or ``unix://``.

        Raises:
            InvalidValueError: the URL is not allowed, or the database is not empty.
            StoreError: the server cannot be reached, or refuses the login.
        """
        address = StoreUrl(url, "--tallymark-url: ").address
        if address.scheme not in ("redis", "rediss", "unix"):
            raise InvalidValueError(
                "--tallymark-url: tests take a redis://, rediss:// or unix:// URL, or none"
            )
        number = address.database + _worker_number()
        self.url = _with_database(url, number)
        store = StoreUrl(self.url)
        self.address: StoreAddress = store.address
        self._client: Any = make_client(KINDS, store, Options(timeout=10))
        self._token = secrets.token_hex(8)
        try:
            self._claim(number)
        except redis.ResponseError as error:
            raise InvalidValueError(
                f"--tallymark-url: database {number} cannot be used ({error}); each worker of "
                "pytest-xdist needs one, from the number in the URL on"
            ) from error
        except redis.RedisError as error:
            failed = failure(error)
            raise type(failed)(f"--tallymark-url: {failed}") from error

    def _claim(self, number: int) -> None:
        with self._client.pipeline() as pipeline:
            pipeline.watch(_CLAIM)
            empty = not pipeline.dbsize()
            seconds = pipeline.ttl(_CLAIM)
            if empty:
                pipeline.multi()
                pipeline.set(_CLAIM, self._token, nx=True, ex=_LIFETIME)
                pipeline.dbsize()
                claimed, size = pipeline.execute()
                empty = bool(claimed) and size == 1
                if claimed and not empty:
                    self._client.delete(_CLAIM)
        if not empty and seconds >= 0:
            raise InvalidValueError(
                f"--tallymark-url: other tests use database {number}, or have ended without "
                f"emptying it, at most {round((_LIFETIME - seconds) / 60)} minutes ago. If none "
                f"run, empty it: redis-cli -n {number} FLUSHDB"
            )
        if not empty:
            raise InvalidValueError(
                f"--tallymark-url: database {number} is not empty; tests need an empty one, since "
                "they flush it"
            )

    def flush(self) -> None:
        """Delete all keys but the claim.

        Raises:
            InvalidValueError: the claim has gone; nothing was deleted.
        """
        with self._client.pipeline() as pipeline:
            pipeline.watch(_CLAIM)
            if self._token.encode() != pipeline.get(_CLAIM):
                raise InvalidValueError(
                    f"--tallymark-url: the key {_CLAIM!r} of these tests is gone; the database "
                    "is not flushed"
                )
            pipeline.multi()
            pipeline.flushdb()
            pipeline.set(_CLAIM, self._token, ex=_LIFETIME)
            pipeline.execute()

    def release(self) -> None:
        """Delete all keys, if the claim is there, and disconnect."""
        try:
            self.flush()
            self._client.delete(_CLAIM)
        finally:
            self._client.close()

    def connect(self) -> socket.socket:
        """Connect to the server, for a proxy."""
        if self.address.path:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(self.address.path)
            return connection
        return socket.create_connection(self.address.hosts[0])

    def url_through(self, port: int) -> str:
        """Return the URL of the database behind a proxy on this machine.

        Raises:
            InvalidValueError: connections use TLS, whose certificate names the server.
        """
        if self.address.is_secure:
            raise InvalidValueError(
                "tallymark_outage works with redis:// and unix:// URLs, and with memory://, not "
                "with rediss://"
            )
        parts = urlsplit(self.url)
        login, at, _ = parts.netloc.rpartition("@")
        query = re.sub(r"(^|&)db=\d+", "", parts.query).lstrip("&")
        path = f"/{self.address.database}"
        return urlunsplit(("redis", f"{login}{at}127.0.0.1:{port}", path, query, ""))


def _with_database(url: str, number: int) -> str:
    parts = urlsplit(url)
    query = re.sub(r"(^|&)db=\d+", "", parts.query).lstrip("&")
    path = f"/{number}"
    if parts.scheme == "unix":
        path, query = parts.path, f"db={number}" + (f"&{query}" if query else "")
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def _worker_number() -> int:
    """Return the number of this process among those of pytest-xdist, from 0 on."""
    return int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)
