"""The memory that the dictionary of users' ids takes in Redis, for `scale.py`."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

from contest import WrongBitsError

from tallymark import SyncTally
from user_ids import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How many ids `mark_many` gets at once.
_AT_ONCE = 100_000
#: How many buckets and blocks are sampled.
_SAMPLE = 1_000


def id_memory(raw: Any, url: str, kind: str, counts: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Mark ever more users of a new database; yield a row for each number of them.

    Arguments:
        raw, url: the store, which is emptied before and after.
        kind: the kind of ids.
        counts: how many users to measure at, ascending.
    """
    option, make = KINDS[kind]
    chance = random.Random(1)
    raw.flushall()
    before = raw.info("memory")["used_memory"]
    users, encoded = 0, 0
    for count in counts:
        with SyncTally.from_url(url, user_ids=option, timeout=600, max_cached_ids=1) as tally:
            while users < count:
                numbers = range(users, min(count, users + _AT_ONCE))
                ids = [make(number, chance) for number in numbers]
                encoded += sum(len(each) if isinstance(each, str) else 0 for each in ids)
                tally.mark_many("all", ids)
                users = numbers.stop
        if int(raw.get("trackist_ids:next")) != users:
            raise WrongBitsError(f"not {users:,} users")
        grown = raw.info("memory")["used_memory"] - before
        grown -= sum(raw.memory_usage(key) for key in raw.scan_iter("trackist_all_*", 10_000))
        yield {
            "ids": kind,
            "count": users,
            "length": encoded / users or {"UUID": 16, "snowflake": 8}[kind],
            "each": grown / users,
            "forward": _sampled(raw, "trackist_ids:f:*") / users,
            "reverse": _sampled(raw, "trackist_ids:r:*") / users,
        }
    raw.flushall()


def _sampled(raw: Any, pattern: str) -> float:
    """Return about how many bytes all keys that match take, from those of some of them."""
    keys = list(raw.scan_iter(pattern, 10_000))
    sample = random.Random(2).sample(keys, min(_SAMPLE, len(keys)))
    with raw.pipeline(transaction=False) as pipeline:
        for key in sample:
            pipeline.memory_usage(key, samples=0)
        return float(sum(pipeline.execute()) * len(keys) / len(sample))


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """Return a Markdown table of the rows."""
    head = [
        "| ids | bytes of an id | number of ids | bytes each | forward | reverse |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return head + [
        f"| {row['ids']} | {row['length']:.0f} | {row['count']:,} | {row['each']:.1f} | "
        f"{row['forward']:.1f} | {row['reverse']:.1f} |"
        for row in rows
    ]


def measured(raw: Any, url: str, counts: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return the rows of all kinds of ids."""
    return list(itertools.chain.from_iterable(id_memory(raw, url, kind, counts) for kind in KINDS))
