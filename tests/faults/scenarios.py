"""The scenarios: each injects one kind of fault, until its time is over."""

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
    """Return the seconds that a fault lasts; the first fault is longer than the timeout."""
    return chance.uniform(0, 1.5) if world.faults else 1.5


async def killed(world: World, chance: random.Random) -> None:
    """Kill the server with ``kill -9``, then start it again with its data."""
    await asyncio.sleep(chance.uniform(0, 0.1))
    world.server.kill()
    await asyncio.sleep(chance.uniform(0, 0.3))
    await asyncio.to_thread(world.server.start)


async def frozen(world: World, chance: random.Random) -> None:
    """Suspend the process (``SIGSTOP``); its connections stay open."""
    world.server.freeze()
    await asyncio.sleep(_while(world, chance))
    world.server.thaw()


async def cut(world: World, chance: random.Random) -> None:
    """Cut a connection after a random byte of a batch or of its reply."""
    direction = chance.choice(("request", "reply"))
    world.wire.cut_after(direction, chance.randrange(5000))  # type: ignore[arg-type]
    await world.acknowledge(200)


async def black_hole(world: World, chance: random.Random) -> None:
    """Lose all packets in both directions, without closing a connection."""
    world.wire.swallow()
    await asyncio.sleep(_while(world, chance))
    world.wire.heal()


async def unreachable(world: World, chance: random.Random) -> None:
    """Cut all connections, and close new connections at once."""
    world.wire.refusing = True
    world.wire.cut_all()
    await asyncio.sleep(chance.uniform(0, 1.2))
    world.wire.heal()


async def slow(world: World, chance: random.Random) -> None:
    """Delay all data by a tenth of a second, or limit the bandwidth."""
    if world.faults and chance.random() < 0.5:
        world.wire.delay = 0.1
    else:
        world.wire.pace = chance.choice((200, 2000, 20000)) if world.faults else 200
    await asyncio.sleep(_while(world, chance))
    world.wire.heal()


async def client_killed(world: World, _: random.Random) -> None:
    """Close the connections of all other clients (``CLIENT KILL``)."""
    world.raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await world.acknowledge(100)


async def paused(world: World, chance: random.Random) -> None:
    """Delay all commands (``CLIENT PAUSE``)."""
    seconds = _while(world, chance)
    world.raw.execute_command("CLIENT", "PAUSE", str(int(1000 * seconds)))
    await asyncio.sleep(seconds)


async def full(world: World, chance: random.Random) -> None:
    """Exceed ``maxmemory``, and then raise it."""
    world.raw.config_set("maxmemory", "1")
    await asyncio.sleep(chance.uniform(0, 0.5))
    world.raw.config_set("maxmemory", "0")


async def wrong_type(world: World, chance: random.Random) -> None:
    """Replace the key of one event, which is in all batches, by a list."""
    (key, *_) = KEYS["active"]
    with world.raw.pipeline() as pipe:
        await world.acknowledge(200)
        pipe.rename(key, "aside").rpush(key, "no bitmap").execute()
        await asyncio.sleep(chance.uniform(0, 0.3))
        pipe.delete(key).rename("aside", key).execute()


async def demoted(world: World, chance: random.Random) -> None:
    """Make the server a replica without a master, as in a failover, and a master again."""
    world.raw.execute_command("REPLICAOF", "127.0.0.1", "1")
    await asyncio.sleep(chance.uniform(0, 0.5))
    world.raw.execute_command("REPLICAOF", "NO", "ONE")


async def failed_over(world: World, _: random.Random) -> None:
    """Kill the master; after the failover, start it again as a replica of the new master."""
    assert isinstance(world, WatchedWorld)
    old = world.server
    # Replication is asynchronous, so the last acknowledged writes might not reach the replica.
    # Writes are paused until the replica has all of them.
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
    """Move a slot key by key, with marks in between."""
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
    """Move slots to another node, key by key."""
    assert isinstance(world, ClusterWorld)
    for slot in _slots(chance, 2):
        owner = await asyncio.to_thread(world.cluster.owner, slot)
        others = [each for each in world.cluster.masters() if each is not owner]
        await _moved(world, slot, chance.choice(others))


async def _replaced(world: ClusterWorld, lost: RedisProcess) -> None:
    """Wait until the replica of a lost master is a master.

    Marks on its shards are not acknowledged until this node has a replica again.
    """

    def is_replaced() -> bool:
        return len(world.cluster.masters(besides=lost)) == 3

    await asyncio.to_thread(world.cluster.until, is_replaced, "new master")


async def master_killed(world: World, chance: random.Random) -> None:
    """Kill a master whose replica lags behind; after the failover, start it again."""
    assert isinstance(world, ClusterWorld)
    lost = chance.choice(world.cluster.masters())
    replica = await asyncio.to_thread(world.cluster.replica_of, lost)
    replica.freeze()
    # Otherwise the writes from now on would be buffered for the replica in the kernel.
    world.cluster.raw(lost).execute_command("CLIENT", "KILL", "TYPE", "replica")
    await asyncio.sleep(chance.uniform(0.1, 0.3))
    lost.kill()
    replica.thaw()
    await _replaced(world, lost)
    await asyncio.to_thread(lost.start)
    await world.healed()
    await asyncio.to_thread(world.cluster.settle)


async def master_frozen(world: World, chance: random.Random) -> None:
    """Suspend a master, with open connections, until its replica is a master."""
    assert isinstance(world, ClusterWorld)
    lost = chance.choice(world.cluster.masters())
    lost.freeze()
    await _replaced(world, lost)
    lost.thaw()
    await world.healed()
    await asyncio.to_thread(world.cluster.settle)


async def node_added(world: World, chance: random.Random) -> None:
    """Add a node, and move some slots to it; or move its slots to another node."""
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
    replication = raw.info("replication")
    replica = replication.get("slave0", {})  # missing while the replica reconnects
    return bool(replica.get("offset") == replication["master_repl_offset"])


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
    """Return the deployment of Redis that a scenario needs."""
    if name.startswith("cluster"):
        return "cluster"
    return "sentinel" if name == "failover by Sentinel" else "server"


async def run(
    world: World, name: str, chance: random.Random, seconds: float, fewest: int = 1
) -> None:
    """Inject the faults of a scenario, one after the other.

    Arguments:
        world: the servers and the load.
        name: the scenario.
        chance: decides the details of each fault.
        seconds: how long new faults are injected.
        fewest: the number of faults that are injected at least.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end or world.faults < fewest:
        await SCENARIOS[name](world, chance)
        world.faults += 1
        await world.healed()
        await world.acknowledge()
