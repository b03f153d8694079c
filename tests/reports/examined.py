"""A server of its own for tests of `doctor`, and what `doctor` finds there."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import redis

from servers import running_server
from tallymark import Diagnosis, Finding, SyncTally

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Server:
    """A server of its own for these tests, whose configuration they change."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.raw: Any = redis.Redis.from_url(url)

    def reset(self) -> None:
        """Forget all keys and statistics."""
        self.raw.flushall()
        self.raw.slowlog_reset()
        self.raw.config_resetstat()

    @contextlib.contextmanager
    def configured(self, **settings: Any) -> Iterator[None]:
        """Change its configuration during a block."""
        named = {name.replace("_", "-"): value for name, value in settings.items()}
        before = {name: self.raw.config_get(name)[name] for name in named}
        for name, value in named.items():
            self.raw.config_set(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                self.raw.config_set(name, value)

    def examine(self, url: str = "", **options: Any) -> Diagnosis:
        with SyncTally.from_url(url or self.url, **options) as tally:
            return tally.doctor()

    def found(self, check: str, url: str = "", **options: Any) -> Finding:
        return found(self.examine(url, **options), check)


def found(diagnosis: Diagnosis, check: str) -> Finding:
    (finding,) = [each for each in diagnosis.findings if each.check == check]
    return finding


@contextlib.contextmanager
def examined_server(folder: Path) -> Iterator[Server]:
    """Run a server with a folder of its own."""
    with running_server("--dir", str(folder), "--repl-diskless-sync-delay", "0") as url:
        yield Server(url)


@contextlib.contextmanager
def user(server: Server, rights: str, keys: str = "~trackist_*") -> Iterator[str]:
    """Make a Redis user, and yield a URL for it."""
    rules = ("reset", "on", ">secret", keys, *rights.split())
    server.raw.execute_command("ACL", "SETUSER", "app", *rules)
    try:
        yield server.url.replace("//", "//app:secret@")
    finally:
        server.raw.execute_command("ACL", "DELUSER", "app")
