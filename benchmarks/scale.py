"""The memory and CPU time for 100 million users, extrapolated from one real shard.

`nox -s scale`; `-- --write docs/how-to/cluster.md` puts the tables into the document. With
`--ids`, only the memory of the dictionary of users' ids is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import re
import sys
import time
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import redis

sys.path.append(str(Path(__file__).parent.parent / "tests"))

import id_memory

from clusters import Cluster, running_cluster  # pyright: ignore[reportMissingImports]
from servers import running_server  # pyright: ignore[reportMissingImports]
from tallymark import SyncTally, Tally

if TYPE_CHECKING:
    from collections.abc import Iterator

USERS, EVENTS = 100_000_000, 1_000

#: The fraction of the users who have an event on a day.
ACTIVE = 0.02

#: Retention policies, and the number of bitmaps for each event.
POLICIES = {
    "all for a year": 365 + 53 + 12,
    "days for 35 days, weeks for 13 weeks, months for a year": 35 + 13 + 12,
    "days for 7 days, weeks for 5 weeks, months for a year": 7 + 5 + 12,
}

#: The memory of a node, and the fraction for bitmaps: a save forks, and copies pages on write.
NODE_GB, FILL = 64, 0.7

#: The numbers of ids whose dictionary is measured.
ID_COUNTS = (100_000, 1_000_000, 5_000_000)

_TABLE = re.compile(r"(<!-- (scale|ids) -->\n).*?(?=<!-- /\2 -->)", re.DOTALL)
_DAY = date(2026, 11, 23)


def fill_shard(raw: Any, url: str, shards: int, days: int) -> dict[str, float]:
    """Mark the users of one shard, in random order, on some days; return the memory used.

    A database of the size of a shard, without shards, has the very same bitmaps.
    """
    users = USERS // shards
    chance = random.Random(1)
    before = raw.info("memory")["used_memory"]
    bits = 0
    with SyncTally.from_url(url, prefix="shard_") as tally:
        for day in range(days):
            active = chance.sample(range(users), int(users * ACTIVE))
            for at in range(0, len(active), 500):  # as in production, not as one bitmap
                with tally.transaction() as tx:
                    for user in active[at : at + 500]:
                        tx.mark_event("active", user, now=_DAY - timedelta(days=day))
            bits += len(active)
    bitmaps = sum(1 for _ in raw.scan_iter(match="shard_*", count=1000))
    grown: float = raw.info("memory")["used_memory"] - before
    return {
        "bitmaps": bitmaps,
        "wanted": users / 8,
        "each": grown / bitmaps,
        "marks": bits,
    }


def after_reload(raw: Any, bitmaps: float) -> float:
    """Return how many bytes a bitmap takes after the server has loaded it from disk."""
    raw.execute_command("DEBUG", "RELOAD")
    full = raw.info("memory")["used_memory"]
    raw.flushall()
    return float(full - raw.info("memory")["used_memory"]) / bitmaps


async def work_per_mark(cluster: Cluster, shards: int) -> float:
    """Return the CPU time for a mark in microseconds, over all nodes."""
    nodes = [cluster.raw(node) for node in cluster.masters()]

    def used() -> float:
        infos = [node.info("cpu") for node in nodes]
        return float(sum(info["used_cpu_user"] + info["used_cpu_sys"] for info in infos))

    count, callers = 60_000, 1000
    async with Tally.from_url(cluster.url, shards=shards, prefix=f"{shards}_") as tally:

        async def call(first: int) -> None:
            for user in range(first, count, callers):
                await tally.mark_event("active", user * 7919 % 1_000_000)

        await asyncio.gather(*(call(first) for first in range(callers)))
        begun = used()
        await asyncio.gather(*(call(first) for first in range(callers)))
        return (used() - begun) / count * 1e6


@contextlib.contextmanager
def debuggable_server() -> Iterator[str]:
    """Run a server that allows ``DEBUG RELOAD``."""
    with contextlib.ExitStack() as stack:
        folder = ("--dir", stack.enter_context(TemporaryDirectory()))
        try:  # an option from Redis 7 on
            url = stack.enter_context(running_server(*folder, "--enable-debug-command", "yes"))
        except RuntimeError:
            url = stack.enter_context(running_server(*folder))
        yield url


def tables() -> str:
    """Measure, and return the results as Markdown tables."""
    begun = time.monotonic()
    rows = []
    with debuggable_server() as url, redis.Redis.from_url(url) as client:
        raw: Any = client
        version = raw.info("server")["redis_version"]
        for shards in (16, 64, 256):
            raw.flushall()
            filled = fill_shard(raw, url, shards, 1 if shards == 16 else 3)
            reloaded = after_reload(raw, filled["bitmaps"])
            rows.append((shards, filled, reloaded))
    lines = [
        f"Redis {version}. {USERS:,} users, {ACTIVE:.0%} of them on a day, in any order.",
        "",
        "| shards | users / shards / 8, in bytes | grown mark by mark | loaded from disk |",
        "| --- | --- | --- | --- |",
    ]
    worst = 0.0
    for shards, filled, reloaded in rows:
        worst = max(worst, filled["each"] / filled["wanted"])
        lines.append(
            f"| {shards} | {filled['wanted']:,.0f} | "
            f"{filled['each']:,.0f} ({filled['each'] / filled['wanted']:.2f}x) | "
            f"{reloaded:,.0f} ({reloaded / filled['wanted']:.2f}x) |"
        )
    lines += [
        "",
        f"| kept of {EVENTS:,} events | bitmaps of each | bytes | masters, {NODE_GB} GB | grown |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, bitmaps in POLICIES.items():
        size = USERS / 8 * bitmaps * EVENTS
        node = NODE_GB * 1e9 * FILL
        lines.append(
            f"| {name} | {bitmaps} | {size / 1e9:,.0f} GB | {-(-size // node):,.0f} | "
            f"{-(-size * worst // node):,.0f} |"
        )
    lines += ["", "| shards | the nodes' work for a mark | marks/s that keep a node busy |"]
    lines.append("| --- | --- | --- |")
    with running_cluster(replicas=False) as cluster:
        for shards in (16, 256):
            micro = asyncio.run(work_per_mark(cluster, shards))
            lines.append(f"| {shards} | {micro:.1f} us | {1e6 / micro:,.0f} |")
    print(f"took {time.monotonic() - begun:.0f} s")
    return "\n".join(lines) + "\n"


def id_tables() -> str:
    """Measure the dictionary of users' ids, and return the results as a Markdown table."""
    with running_server() as url, redis.Redis.from_url(url) as raw:
        version: Any = raw.info("server")
        lines = id_memory.lines(id_memory.measured(raw, url, ID_COUNTS))
    return "\n".join([f"Redis {version['redis_version']}.", "", *lines]) + "\n"


def main() -> None:
    """Measure, and print or write the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--write", type=Path, help="put the tables into this document")
    parser.add_argument("--ids", action="store_true", help="only the dictionary of users' ids")
    options = parser.parse_args()
    texts = {"ids": id_tables()} if options.ids else {"ids": id_tables(), "scale": tables()}
    print(*texts.values(), sep="\n")
    if options.write:
        document = options.write.read_text()
        options.write.write_text(
            _TABLE.sub(
                lambda found: f"{found[1]}\n{texts[found[2]]}\n" if found[2] in texts else found[0],
                document,
            )
        )


if __name__ == "__main__":
    main()
