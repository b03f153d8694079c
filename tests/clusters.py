"""Starts Redis Clusters for the tests, and moves their slots."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import redis

from servers import RedisProcess, free_port, running
from tallymark._core.keys import SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: A master that has not answered for so many milliseconds is replaced (cluster-node-timeout).
NODE_TIMEOUT = 1000


def _cluster_port() -> int:
    """Return a free port whose bus port, 10,000 above, is free too.

    Both are below the ports that the system gives to clients: those are many in these tests,
    and one could take the port before the server does.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 22_000)
        with socket.socket() as probe, socket.socket() as bus, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            return port


class Cluster:
    """Some masters, each with a replica or with none.

    Attributes:
        nodes: all processes; the initial masters come first.
        url: for tallymark; has the address of one node, after one where no node listens.
    """

    def __init__(
        self, folder: Path, masters: int = 3, *arguments: str, replicas: bool = True
    ) -> None:
        self._folder = folder
        self._arguments = arguments
        self._masters = masters
        self.nodes = [self._node() for _ in range(2 * masters if replicas else masters)]
        self.url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{self.nodes[0].port}"
        self._raw: dict[int, Any] = {}

    def _node(self) -> RedisProcess:
        port = _cluster_port()
        while (
            folder := self._folder / str(port)
        ).exists():  # the port of a node that does not run yet
            port = _cluster_port()
        folder.mkdir()
        settings = {
            "--cluster-enabled": "yes",
            "--cluster-node-timeout": str(NODE_TIMEOUT),
            "--cluster-replica-validity-factor": "0",
            "--repl-diskless-sync": "yes",
            "--repl-diskless-sync-delay": "0",
            "--dir": str(folder),
        }
        pairs = [each for pair in settings.items() for each in pair]
        return RedisProcess(*pairs, *self._arguments, port=port)

    def raw(self, node: RedisProcess) -> Any:
        """Return a client of one node."""
        if node.port not in self._raw:
            self._raw[node.port] = redis.Redis(port=node.port, socket_timeout=30)
        return self._raw[node.port]

    def create(self) -> None:
        """Join the running nodes to a cluster."""
        first, *others = self.nodes
        for epoch, node in enumerate(self.nodes, start=1):
            # As redis-cli does. Nodes with the same epoch may resolve that conflict by undoing
            # a move of a slot, or by both giving the slot up.
            self.raw(node).execute_command("CLUSTER SET-CONFIG-EPOCH", epoch)
        for node in others:
            self.raw(first).execute_command("CLUSTER MEET", "127.0.0.1", node.port)
        masters = self.nodes[: self._masters]
        for index, node in enumerate(masters):
            begin, end = (SLOTS * each // len(masters) for each in (index, index + 1))
            self.raw(node).execute_command("CLUSTER ADDSLOTS", *range(begin, end))
        self.until(lambda: self._known_by_all(len(self.nodes)), "cluster of all nodes")
        for index, node in enumerate(self.nodes[self._masters :]):
            self.raw(node).execute_command("CLUSTER REPLICATE", self.id(masters[index]))
        self.settle()

    def id(self, node: RedisProcess) -> str:
        """Return the id of a node."""
        return str(self.raw(node).execute_command("CLUSTER MYID").decode())

    def masters(self, besides: RedisProcess | None = None) -> list[RedisProcess]:
        """Return the nodes that are masters with slots, each by its own view; skip one node."""
        return [node for node, _ in self._owned(besides)]

    def owner(self, slot: int) -> RedisProcess:
        """Return the node that owns a slot."""
        return self.owners([slot])[0]

    def owners(self, slots: Sequence[int]) -> list[RedisProcess]:
        """Return the node that owns each slot, after one question to each node."""
        ranges = [
            (int(first), int(last), node)
            for node, owned in self._owned()
            for first, last in _ranges(owned)
        ]
        owners = []
        for slot in slots:
            owner = next((node for first, last, node in ranges if first <= slot <= last), None)
            if owner is None:
                raise LookupError(slot)
            owners.append(owner)
        return owners

    def _owned(self, besides: RedisProcess | None = None) -> list[tuple[RedisProcess, Any]]:
        """Return the masters with slots, each with its slots, by its own view."""
        owned = []
        for node in self.nodes:
            if node is besides:
                continue
            with contextlib.suppress(redis.RedisError):
                view = self.raw(node).execute_command("CLUSTER NODES")
                mine = next(each for each in view.values() if "myself" in each["flags"])
                if "master" in mine["flags"] and mine["slots"]:
                    owned.append((node, mine["slots"]))
        return owned

    def wait_for_replicas(self) -> None:
        """Wait until all replicas have all writes."""
        for node in self.masters():
            assert self.raw(node).wait(1, 10_000) >= 0

    def replica_of(self, master: RedisProcess) -> RedisProcess:
        """Return the replica of a master."""
        view = self.raw(master).execute_command("CLUSTER NODES")
        (port,) = (
            address.partition("@")[0].rpartition(":")[2]
            for address, each in view.items()
            if each["master_id"] == self.id(master)
        )
        return next(node for node in self.nodes if node.port == int(port))

    def settle(self) -> None:
        """Wait until all nodes have the same view, no node fails and all replicas are in sync."""
        self.until(self._is_well, "settled cluster")

    def add(self) -> RedisProcess:
        """Start another master, which has no slots yet, and its replica; return the master."""
        pair = [self._node(), self._node()]
        for node in pair:
            node.start()
            self.nodes.append(node)
            self.raw(self.nodes[0]).execute_command("CLUSTER MEET", "127.0.0.1", node.port)
        self.until(lambda: self._known_by_all(len(self.nodes)), "nodes that all know")
        master, replica = pair
        self.raw(replica).execute_command("CLUSTER REPLICATE", self.id(master))
        self.settle()
        return master

    def begin_move(self, slot: int, target: RedisProcess) -> RedisProcess:
        """Begin to move a slot (MIGRATING, IMPORTING); return its present node."""
        source = self.owner(slot)
        self.raw(target).execute_command("CLUSTER SETSLOT", slot, "IMPORTING", self.id(source))
        self.raw(source).execute_command("CLUSTER SETSLOT", slot, "MIGRATING", self.id(target))
        return source

    def move_keys(self, slot: int, source: RedisProcess, target: RedisProcess, count: int) -> int:
        """Move some keys of a slot; return how many there were."""
        keys = self.raw(source).execute_command("CLUSTER GETKEYSINSLOT", slot, count)
        if keys:
            self.raw(source).execute_command(
                "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys
            )
        return len(keys)

    def end_move(self, slot: int, target: RedisProcess) -> None:
        """End the move of a slot: all masters get its new node."""
        name = self.id(target)
        for node in [target, *(each for each in self.masters() if each is not target)]:
            self.raw(node).execute_command("CLUSTER SETSLOT", slot, "NODE", name)

    def move(self, slot: int, target: RedisProcess) -> None:
        """Move a slot, key by key."""
        source = self.begin_move(slot, target)
        while self.move_keys(slot, source, target, 1):
            pass
        self.end_move(slot, target)

    def flush(self) -> None:
        """Delete everything."""
        for node in self.masters():
            self.raw(node).flushall()

    def close(self) -> None:
        """Close all clients."""
        for raw in self._raw.values():
            raw.close()

    def _known_by_all(self, count: int) -> bool:
        for node in self.nodes:
            view = self.raw(node).execute_command("CLUSTER NODES")
            if len(view) != count or any(
                "handshake" in each["flags"] or not each["connected"] for each in view.values()
            ):
                return False
        return True

    def _is_well(self) -> bool:
        views = []
        for node in self.nodes:
            raw = self.raw(node)
            try:
                if raw.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                    return False
                view = raw.execute_command("CLUSTER NODES")
                role = raw.info("replication")
            except redis.RedisError:
                return False
            if any("fail" in each["flags"] for each in view.values()):
                return False
            if role["role"] == "slave" and role["master_link_status"] != "up":
                return False
            views.append(
                sorted((name, str(each["slots"])) for name, each in view.items() if each["slots"])
            )
        return all(view == views[0] for view in views)

    @staticmethod
    def until(holds: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds, for a minute at most."""
        end = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end, f"there is no {what}"
            time.sleep(0.02)


def _ranges(slots: list[list[str]]) -> list[tuple[str, str]]:
    """Return the ranges of slots of a node, without slots that are moving."""
    return [(each[0], each[-1]) for each in slots if each[0].isdigit()]


@contextlib.contextmanager
def running_cluster(masters: int = 3, *arguments: str, replicas: bool = True) -> Iterator[Cluster]:
    """Run a cluster, with further arguments for its servers."""
    with TemporaryDirectory(prefix="tallymark-") as folder, contextlib.ExitStack() as stack:
        made = Cluster(Path(folder), masters, *arguments, replicas=replicas)
        first: Sequence[RedisProcess] = tuple(made.nodes)
        for node in first:
            stack.enter_context(running(node))
        stack.callback(made.close)
        made.create()
        try:
            yield made
        finally:
            for node in made.nodes:
                node.stop()  # also those that were added
