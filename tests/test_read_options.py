"""Options that change where a read goes, or which commands it takes: in all combinations."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest
import redis

from servers import RedisProcess, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facades import Facade

MONDAY, TUESDAY = date(2026, 11, 23), date(2026, 11, 24)


class Replicated:
    """A primary and its replica.

    Attributes:
        primary, replica: the two.
    """

    def __init__(self, primary: RedisProcess, replica: RedisProcess) -> None:
        self.primary = primary
        self.replica = replica

    def arrived(self) -> None:
        """Wait until what was written to the primary is at the replica."""
        with redis.Redis(port=self.primary.port) as raw:
            raw.set("a key to wait for", "")
            assert raw.wait(1, 30_000) == 1

    def flush(self) -> None:
        with redis.Redis(port=self.primary.port) as raw:
            raw.flushall()


@pytest.fixture(scope="module")
def replicated() -> Iterator[Replicated]:
    fast = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--appendonly", "no")
    with running(RedisProcess(*fast)) as primary:
        follows = ("--replicaof", "127.0.0.1", str(primary.port))
        with running(RedisProcess(*fast, *follows)) as replica:
            yield Replicated(primary, replica)


@pytest.mark.parametrize("shards", [None, 2, 16])
async def test_expressions_of_a_replica_with_shards(
    facade: Facade, replicated: Replicated, shards: int | None
) -> None:
    replicated.flush()
    options = {"shards": shards, "read_from": replicated.replica.url, "timeout": 20}
    async with facade.open(replicated.primary.url, **options) as tally:
        await tally.mark_many("active", range(100), now=MONDAY)
        await tally.mark_many("active", range(50, 250), now=TUESDAY)
        replicated.arrived()
        monday, tuesday = tally.day("active", MONDAY), tally.day("active", TUESDAY)
        both, nobody = monday & tuesday, monday - tally.week("active", MONDAY)
        asked = [monday, both, monday | tuesday, monday ^ tuesday, nobody]
        sizes = [100, 50, 250, 200, 0]
        assert await tally.counts(asked) == sizes
        assert [await tally.count(each) for each in asked] == sizes
        assert [await tally.is_empty(each) for each in asked] == [not size for size in sizes]
