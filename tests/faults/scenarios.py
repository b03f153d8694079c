"""What goes wrong, and how: each scenario makes faults until its time is over."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from load import KEYS
from world import SHARDS, ClusterWorld, WatchedWorld

from tallymark._core.keys import tag_slot, tags

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from world import Setting, World

    from servers import RedisProcess


def _while(world: World, chance: random.Random) -> float:
    """Return how many seconds a fault lasts: the first one longer than a call may take."""
    return chance.uniform(0, 1.5) if world.faults else 1.5


async def killed(world: World, chance: random.Random) -> None:
    """``kill -9``, then a new start, which loads what was written."""
    await asyncio.sleep(chance.uniform(0, 0.1))
    world.server.kill()
    await asyncio.sleep(chance.uniform(0, 0.3))
    await asyncio.to_thread(world.server.start)


async def frozen(world: World, chance: random.Random) -> None:
    """The process does nothing, and its connections stay open (``SIGSTOP``)."""
    world.server.freeze()
    await asyncio.sleep(_while(world, chance))
    world.server.thaw()


async def cut(world: World, chance: random.Random) -> None:
    """Connections break after a random byte of a batch or of its reply."""
    direction = chance.choice(("request", "reply"))
    world.wire.cut_after(direction, chance.randrange(5000))  # type: ignore[arg-type]
    await world.acknowledge(200)


async def black_hole(world: World, chance: random.Random) -> None:
    """Packets get lost in both directions, and nothing is closed."""
    world.wire.swallow()
    await asyncio.sleep(_while(world, chance))
    world.wire.heal()


async def unreachable(world: World, chance: random.Random) -> None:
    """All connections break, and new ones are closed at once."""
    world.wire.refusing = True
    world.wire.cut_all()
    await asyncio.sleep(chance.uniform(0, 1.2))
    world.wire.heal()


async def slow(world: World, chance: random.Random) -> None:
    """Everything takes a tenth of a second longer, or trickles."""
    if world.faults and chance.random() < 0.5:
        world.wire.delay = 0.1
    else:
        world.wire.pace = chance.choice((200, 2000, 20000)) if world.faults else 200
    await asyncio.sleep(_while(world, chance))
    world.wire.heal()


async def client_killed(world: World, _: random.Random) -> None:
    """``CLIENT KILL`` of all clients but the one that says so."""
    world.raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await world.acknowledge(100)


async def paused(world: World, chance: random.Random) -> None:
    """``CLIENT PAUSE``: Redis takes commands, and does not run them yet."""
    seconds = _while(world, chance)
    world.raw.execute_command("CLIENT", "PAUSE", str(int(1000 * seconds)))
    await asyncio.sleep(seconds)


async def full(world: World, chance: random.Random) -> None:
    """``maxmemory`` is reached, and then raised."""
    world.raw.config_set("maxmemory", "1")
    await asyncio.sleep(chance.uniform(0, 0.5))
    world.raw.config_set("maxmemory", "0")


async def wrong_type(world: World, chance: random.Random) -> None:
    """A key of one event holds a list, in the middle of everybody's batches."""
    (key, *_) = KEYS["active"]
    with world.raw.pipeline() as pipe:
        await world.acknowledge(200)
        pipe.rename(key, "aside").rpush(key, "no bitmap").execute()
        await asyncio.sleep(chance.uniform(0, 0.3))
        pipe.delete(key).rename("aside", key).execute()


async def demoted(world: World, chance: random.Random) -> None:
    """The server becomes a replica of nothing, as in a failover, and a master again."""
    world.raw.execute_command("REPLICAOF", "127.0.0.1", "1")
    await asyncio.sleep(chance.uniform(0, 0.5))
    world.raw.execute_command("REPLICAOF", "NO", "ONE")


async def failed_over(world: World, _: random.Random) -> None:
    """The master dies, its replica takes its place, and it comes back as a replica of that."""
    assert isinstance(world, WatchedWorld)
    old = world.server
    # Replication is asynchronous: what Redis acknowledges in the last moment may not get
    # there, whoever sent it. So it acknowledges nothing until all of it has.
    world.raw.execute_command("CLIENT", "PAUSE", "10000", "WRITE")
    while not await asyncio.to_thread(_replicated, world.raw):
        await asyncio.sleep(0.005)
        world.raw.execute_command("CLIENT", "PAUSE", "10000", "WRITE")
    old.kill()
    while world.sentinels.master is old:
        await asyncio.sleep(0.02)
    world.follow()
    await world.healed()
    await asyncio.to_thread(world.sentinels.rejoin, old)


def _slots(chance: random.Random, count: int) -> list[int]:
    """Return the slots of some shards."""
    return [tag_slot(tag.encode()) for tag in chance.sample(tags(SHARDS), count)]


async def _moved(world: ClusterWorld, slot: int, target: RedisProcess) -> None:
    """Move a slot key by key, and let marks in between."""
    cluster = world.cluster
    source = await asyncio.to_thread(cluster.begin_move, slot, target)
    if source is target:
        return
    await world.acknowledge(20)
    while await asyncio.to_thread(cluster.move_keys, slot, source, target, 1):
        await world.acknowledge(20)
    await world.acknowledge(20)
    await asyncio.to_thread(cluster.end_move, slot, target)


async def slots_moved(world: World, chance: random.Random) -> None:
    """Slots move to another node, key by key, and later back or on."""
    assert isinstance(world, ClusterWorld)
    for slot in _slots(chance, 2):
        owner = await asyncio.to_thread(world.cluster.owner, slot)
        others = [each for each in world.cluster.masters() if each is not owner]
        await _moved(world, slot, chance.choice(others))


async def _replaced(world: ClusterWorld, lost: RedisProcess) -> None:
    """Wait until a replica has taken the place of a master.

    Until there is a replica again, no mark on its shards is acknowledged.
    """

    def is_replaced() -> bool:
        return len(world.cluster.masters(besides=lost)) == 3

    await asyncio.to_thread(world.cluster.until, is_replaced, "new master")


async def master_killed(world: World, chance: random.Random) -> None:
    """A master dies, its replica takes its place, and it comes back as a replica of that.

    The replica was behind when it died.
    """
    assert isinstance(world, ClusterWorld)
    lost = chance.choice(world.cluster.masters())
    replica = await asyncio.to_thread(world.cluster.replica_of, lost)
    replica.freeze()
    # Else what is acknowledged from now on waits for it in the kernel.
    world.cluster.raw(lost).execute_command("CLIENT", "KILL", "TYPE", "replica")
    await asyncio.sleep(chance.uniform(0.1, 0.3))
    lost.kill()
    replica.thaw()
    await _replaced(world, lost)
    await asyncio.to_thread(lost.start)
    await world.healed()
    await asyncio.to_thread(world.cluster.settle)


async def master_frozen(world: World, chance: random.Random) -> None:
    """A master does nothing, without closing a connection, until its replica has taken over."""
    assert isinstance(world, ClusterWorld)
    lost = chance.choice(world.cluster.masters())
    lost.freeze()
    await _replaced(world, lost)
    lost.thaw()
    await world.healed()
    await asyncio.to_thread(world.cluster.settle)


async def node_added(world: World, chance: random.Random) -> None:
    """A node joins and gets some slots, or those that it got go to others again."""
    assert isinstance(world, ClusterWorld)
    cluster = world.cluster
    if len(cluster.nodes) == 6:
        await asyncio.to_thread(cluster.add)
    added = cluster.nodes[6]
    for slot in _slots(chance, 2):
        owner = await asyncio.to_thread(cluster.owner, slot)
        target = added if owner is not added else cluster.nodes[0]
        await _moved(world, slot, target)


def _replicated(raw: Any) -> bool:
    told = raw.info("replication")
    replica = told.get("slave0", {})  # it may have to connect again
    return bool(replica.get("offset") == told["master_repl_offset"])


SCENARIOS: dict[str, Callable[[World, random.Random], Awaitable[None]]] = {
    "kill -9 and restart": killed,
    "SIGSTOP, SIGCONT": frozen,
    "cut at a random byte": cut,
    "black hole": black_hole,
    "unreachable": unreachable,
    "slow, or trickling": slow,
    "CLIENT KILL": client_killed,
    "CLIENT PAUSE": paused,
    "maxmemory reached": full,
    "a key of the wrong type": wrong_type,
    "demoted to a replica": demoted,
    "failover by Sentinel": failed_over,
    "cluster: slots move": slots_moved,
    "cluster: a master dies": master_killed,
    "cluster: a master is cut off": master_frozen,
    "cluster: a node joins": node_added,
}


def setting_of(name: str) -> Setting:
    """Return what a scenario takes place on."""
    if name.startswith("cluster"):
        return "cluster"
    return "sentinel" if name == "failover by Sentinel" else "server"


#: What a program with the blocking facade goes through in its own way.
BLOCKING = (
    "kill -9 and restart",
    "SIGSTOP, SIGCONT",
    "cut at a random byte",
    "unreachable",
    "failover by Sentinel",
    "cluster: slots move",
    "cluster: a master dies",
    "cluster: a master is cut off",
)


async def run(
    world: World, name: str, chance: random.Random, seconds: float, fewest: int = 1
) -> None:
    """Make a scenario's faults, one after the other, for so many seconds; at least so many."""
    end = time.monotonic() + seconds
    while time.monotonic() < end or world.faults < fewest:
        await SCENARIOS[name](world, chance)
        world.faults += 1
        await world.healed()
        await world.acknowledge()
