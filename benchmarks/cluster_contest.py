"""Marks and counts on a Redis Cluster of three masters, all on this machine."""

from __future__ import annotations

import re
import statistics
import time
from typing import TYPE_CHECKING, Any

from contest import WrongBitsError, contest, median_ratio
from workloads import expected, schedule

from tallymark import KeySchema, SyncTally
from tallymark._core.keys import tags

if TYPE_CHECKING:
    from clusters import Cluster  # pyright: ignore[reportMissingImports]

#: The baseline, and all contenders.
OBVIOUS = "RedisCluster pipeline"
CONTENDERS = [OBVIOUS, "valkey-glide, cluster", "tallymark, 16 shards", "tallymark, 256 shards"]

#: How many users there are, and how many each of the counted sets has.
USERS, SET = 10_000_000, 3_000_000

_KEY = re.compile(r"trackist_\{(\w+)\}(.*)", re.DOTALL)


class Arena:
    """Empties and checks the cluster between the rounds."""

    def __init__(self, cluster: Cluster) -> None:
        self.nodes = [cluster.raw(node) for node in cluster.masters()]

    def flush(self) -> None:
        """Delete everything."""
        for node in self.nodes:
            node.flushall()

    def check(self, name: str, workload: str, marks: int) -> None:
        """Raise unless exactly the bits of a round are set, in months, weeks and days."""
        shards = 256 if "256" in name else 16
        numbers = {tag: shard for shard, tag in enumerate(tags(shards))}
        actual: dict[tuple[str, str], set[int]] = {}
        schema = KeySchema()
        for node in self.nodes:
            for key in node.scan_iter(match="trackist_{*", count=10_000):
                match = _KEY.fullmatch(key.decode())
                assert match is not None
                shard = int(match[1]) if match[1].isdigit() else numbers[match[1]]
                event, period = schema.parse(f"trackist_{match[2]}")
                users = actual.setdefault((event, str(period.granularity) if period else ""), set())
                users.update(bit * shards + shard for bit in _bits(node.get(key)))
        for event, wanted in expected(schedule(workload, marks)).items():
            for granularity in ("month", "week", "day"):
                if actual.pop((event, granularity), None) != wanted:
                    raise WrongBitsError(f"{name}: {event}, {granularity}")
        if actual:
            raise WrongBitsError(f"{name}: {sorted(actual)} should not be there")


def _bits(bitmap: bytes) -> list[int]:
    digits = f"{int.from_bytes(bitmap, 'big'):0{8 * len(bitmap)}b}"
    return [at for at, digit in enumerate(digits) if digit == "1"]


def marks_on_a_cluster(cluster: Cluster, quick: bool) -> list[dict[str, Any]]:
    """Measure the marks of many concurrent callers; return a row for each contender."""
    rows: list[dict[str, Any]] = []
    for workload in ("hot",) if quick else ("hot", "zipf"):
        for callers in (200, 1000):
            rows += contest(
                CONTENDERS if workload == "hot" else CONTENDERS[1:],
                f"redis+cluster://127.0.0.1:{cluster.nodes[0].port}",
                workload,
                callers,
                rounds=3 if quick else 5,
                seconds=0.2 if quick else 0.5,
                arena=Arena(cluster),
            )
    glide = {
        (row["workload"], row["callers"]): row["marks_per_second"]
        for row in rows
        if row["contender"].startswith("valkey-glide")
    }
    for row in rows:
        if (row["workload"], row["callers"]) in glide:
            beside = glide[row["workload"], row["callers"]]
            row["ratio_to_glide"] = row["marks_per_second"] / beside
            if row["workload"] != "hot":
                del row["ratio"]  # the baseline takes no part in this workload
    return rows


def counts_on_a_cluster(cluster: Cluster, url: str, rounds: int) -> dict[str, Any]:
    """Count the intersection of two sets of ten million users, on one server and the cluster.

    Returns:
        The rows, and the CPU time of each node in milliseconds.
    """
    import numpy as np

    chance = np.random.default_rng(3)
    arena = Arena(cluster)
    arena.flush()
    times: dict[str, list[float]] = {}
    answers = set()
    stores: dict[str, dict[str, Any]] = {
        "one server": {"url": url},
        "16 shards": {"url": cluster.url, "shards": 16},
        "256 shards": {"url": cluster.url, "shards": 256, "prefix": "other_"},
    }
    sets = [chance.choice(USERS, SET, replace=False) for _ in range(2)]
    tallies = {name: SyncTally.from_url(**store) for name, store in stores.items()}
    used: list[float] = []
    try:
        intersections = {}
        for name, tally in tallies.items():
            for event, users in zip("ab", sets, strict=True):
                tally.mark_many(event, users)
            intersections[name] = tally.month("a") & tally.month("b")
        for turn in range(rounds + 2):
            for name, tally in tallies.items():
                before = [_used(node) for node in arena.nodes] if name == "16 shards" else []
                begun = time.perf_counter()
                for _ in range(20):
                    answers.add(tally.count(intersections[name]))
                if turn > 1:
                    times.setdefault(name, []).append((time.perf_counter() - begun) / 20)
                    if before:
                        after = [_used(node) for node in arena.nodes]
                        spent = [b - a for a, b in zip(before, after, strict=True)]
                        used = [a + b for a, b in zip(used or [0.0] * 3, spent, strict=True)]
    finally:
        for tally in tallies.values():
            tally.close()
    if len(answers) != 1:
        raise WrongBitsError(f"count: {sorted(answers)}")
    single = times["one server"]
    rows = [
        {
            "store": name,
            "ms": 1e3 * statistics.median(seconds),
            "ratio": median_ratio(seconds, single),
        }
        for name, seconds in times.items()
    ]
    return {"rows": rows, "node_ms": [1e3 * seconds for seconds in used]}


def _used(node: Any) -> float:
    cpu = node.info("cpu")
    return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])
