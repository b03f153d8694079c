"""Runs the load on a durable Redis, through a proxy that injects faults."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import redis
from load import NOW, Load

from clusters import Cluster, running_cluster
from deployments import sentinels
from servers import RedisProcess, running
from tallymark import SyncTally, Tally, TallymarkError
from tallymark._core.keys import tag_slot, tags
from wires import Wire, wired

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from deployments import Sentinels
    from tallymark import TallyOptions

#: The timeout of a call, in seconds.
TIMEOUT = 1.0

#: The timeout on a cluster, where a failover comes first.
CLUSTER_TIMEOUT = 5.0

CALLERS, THREADS = 200, 8

SHARDS = 16

#: The deployment of Redis that a scenario needs.
Setting = Literal["server", "sentinel", "cluster"]


@dataclass
class Outcome:
    """The result of a scenario: a row of the table."""

    scenario: str
    faults: int
    acknowledged: int
    raised: dict[str, int]
    lost: int
    late: int
    overrun: float
    timeout: float
    recoveries: list[float] = field(default_factory=list)

    def cells(self) -> tuple[str, ...]:
        """Return the row's cells as text."""
        milliseconds = [1e3 * seconds for seconds in self.recoveries] or [0.0]
        return (
            self.scenario,
            f"{self.faults:,}",
            f"{self.acknowledged:,}",
            f"{sum(self.raised.values()):,}",
            f"{self.lost:,}",
            f"{self.late:,}",
            f"{(self.timeout + self.overrun) * 1e3:.0f} ms",
            f"{max(0.0, self.overrun) * 1e3:.0f} ms",
            f"{statistics.median(milliseconds):.0f} ms",
            f"{max(milliseconds):.0f} ms",
        )


HEADER = (
    "scenario",
    "faults",
    "marks acknowledged",
    "marks raised",
    "marks lost",
    "callers late",
    "longest call",
    "worst overrun",
    "recovery p50",
    "recovery max",
)


class World:
    """The place of a scenario: one server, which writes to disk before it replies, and the load.

    Attributes:
        server: the Redis server.
        wire: the proxy between the callers and the server.
        raw: a client of the server, not through the proxy.
        tally: the tally of the callers, of either facade.
        faults: how many faults the scenario has made.
        recoveries: for each fault, the seconds until a mark was acknowledged again.
        lost: how many bits of Redis contradict the results of the calls at the end.
    """

    def __init__(self, server: RedisProcess, wire: Wire, tally: Any, load: Load) -> None:
        self.server = server
        self.wire = wire
        self.tally = tally
        self.load = load
        self.raw: Any = redis.Redis(port=server.port, socket_timeout=30)
        self.faults = 0
        self.lost = 0
        self.recoveries: list[float] = []

    @property
    def connections(self) -> int:
        """The number of connections of the tally."""
        return self.wire.connections

    @property
    def most_connections(self) -> int:
        """The most connections that an idle tally may have."""
        return THREADS + 1 if isinstance(self.tally, SyncTally) else 1

    async def acknowledge(self, count: int = 50) -> None:
        """Wait until so many more calls have returned normally."""
        wanted = self.load.acknowledged + count
        end = time.monotonic() + 30
        while self.load.acknowledged < wanted:
            assert time.monotonic() < end, "no mark is acknowledged any more"
            await asyncio.sleep(0.005)

    async def healed(self) -> None:
        """Wait until a new call returns normally, and record how long that took."""
        begun = time.monotonic()
        while True:
            assert time.monotonic() < begun + 30, "it does not recover"
            with contextlib.suppress(TallymarkError):
                await self._probe()
                break
        self.recoveries.append(time.monotonic() - begun)

    async def _probe(self) -> None:
        if isinstance(self.tally, Tally):
            await self.tally.mark_event("probe", 1, now=NOW)
        else:
            await asyncio.to_thread(self.tally.mark_event, "probe", 1, now=NOW)

    def outcome(self, scenario: str) -> Outcome:
        """Return the result of a scenario, after all callers have ended."""
        load = self.load
        return Outcome(
            scenario,
            self.faults,
            load.acknowledged,
            dict(load.raised),
            self.lost,
            load.late,
            load.overrun,
            load.timeout,
            self.recoveries,
        )


class WatchedWorld(World):
    """A master, its replica, and a Sentinel.

    Attributes:
        sentinels: all three. ``server`` and ``raw`` are the present master.
    """

    def __init__(self, sentinels: Sentinels, wire: Wire, tally: Any, load: Load) -> None:
        super().__init__(sentinels.master, wire, tally, load)
        self.sentinels = sentinels

    @property
    def connections(self) -> int:
        """The number of connections of the tally to the master; those of Sentinel have names."""
        clients = self.raw.client_list(_type="normal")
        return sum(not each["name"] for each in clients) - 1

    def follow(self) -> None:
        """Take the present master as the server."""
        self.server = self.sentinels.master
        self.raw.close()
        self.raw = redis.Redis(port=self.server.port, socket_timeout=30)


class ClusterWorld(World):
    """A cluster of three masters with a replica each.

    Attributes:
        cluster: the nodes. ``raw`` reads a bitmap from all shards.
    """

    def __init__(self, cluster: Cluster, wire: Wire, tally: Any, load: Load) -> None:
        super().__init__(cluster.nodes[0], wire, tally, load)
        self.cluster = cluster
        self.raw.close()
        self.raw = _Shards(cluster)

    @property
    def connections(self) -> int:
        """The number of connections of the tally to all nodes."""
        total = 0
        for node in self.cluster.nodes:
            clients = self.cluster.raw(node).client_list(_type="normal")
            total += len(clients) - 1
        return total

    @property
    def most_connections(self) -> int:
        """To each node one for marks, one for marks of slots that it imports, one for reads."""
        each = THREADS + 1 if isinstance(self.tally, SyncTally) else 3
        return each * len(self.cluster.nodes)


class _Shards:
    """Reads the bitmaps of a sharded database as plain bitmaps."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def get(self, key: str) -> bytes:
        """Return a bitmap, combined from those of all shards."""
        prefix, _, rest = key.partition("_")
        parts = []
        for tag in tags(SHARDS):
            node = self._cluster.owner(tag_slot(tag.encode()))
            part = self._cluster.raw(node).get(f"{prefix}_{{{tag}}}{rest}") or b""
            parts.append(f"{int.from_bytes(part, 'big'):0{8 * len(part)}b}" if part else "")
        longest = max(map(len, parts))
        users = zip(*(part.ljust(longest, "0") for part in parts), strict=True)
        digits = "".join(bit for together in users for bit in together)
        return int(digits or "0", 2).to_bytes(len(digits) // 8, "big")

    def close(self) -> None:
        """Do nothing: the cluster closes its clients."""


@contextlib.contextmanager
def durable_server(*arguments: str) -> Iterator[RedisProcess]:
    """Run a server that writes to disk before it replies."""
    with TemporaryDirectory(prefix="tallymark-") as directory:
        folder = ("--dir", str(Path(directory)))
        with running(RedisProcess(*folder, *_DURABLE, *arguments)) as server:
            yield server


_DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@contextlib.asynccontextmanager
async def world(*, blocking: bool = False, setting: Setting = "server") -> AsyncIterator[World]:
    """Run the load on new servers; after the block, check for lost marks and leaks."""
    make: Callable[[Any, Load], World]
    timeout = TIMEOUT
    options: TallyOptions = {"timeout": TIMEOUT}
    with contextlib.ExitStack() as stack:
        if setting == "cluster":
            cluster = stack.enter_context(running_cluster())
            wire = stack.enter_context(wired(cluster.nodes[0].url))
            url = cluster.url
            make = functools.partial(ClusterWorld, cluster, wire)
            timeout = CLUSTER_TIMEOUT
            options = {"timeout": timeout, "replicas": 1, "shards": SHARDS}
        elif setting == "sentinel":
            setup = stack.enter_context(sentinels(*_DURABLE))
            wire = stack.enter_context(wired(setup.master.url))
            url = setup.url
            make = functools.partial(WatchedWorld, setup, wire)
        else:
            server = stack.enter_context(durable_server())
            wire = stack.enter_context(wired(server.url))
            url = wire.url
            make = functools.partial(World, server, wire)
        if blocking:
            with SyncTally.from_url(url, **options) as tally:
                made = make(tally, Load(THREADS, timeout))
                async with _loaded(made, asyncio.to_thread(made.load.run_blocking, tally)):
                    yield made
        else:
            async with Tally.from_url(url, **options) as tally:
                made = make(tally, Load(CALLERS, timeout))
                async with _loaded(made, made.load.run(tally)):
                    yield made
        made.raw.close()


@contextlib.asynccontextmanager
async def _loaded(made: World, run: Any) -> AsyncIterator[None]:
    tasks_before = len(asyncio.all_tasks())
    running_load = asyncio.ensure_future(run)
    try:
        await made.acknowledge()
        yield
        await made.healed()
    finally:
        made.load.stop()
        await running_load
    check_level(made, tasks_before)
    made.lost = await asyncio.to_thread(made.load.lost, made.raw)


def check_level(made: World, tasks: int) -> None:
    """Raise if the tally has more connections, tasks or batches than an idle tally."""
    assert made.tally.stats().waiting == 0
    assert made.connections <= made.most_connections
    assert len(asyncio.all_tasks()) <= tasks + 1
    gc.collect()
    in_flight = [each for each in gc.get_objects() if type(each).__name__ == "InFlightBatch"]
    assert len(in_flight) <= made.most_connections
