"""Marks of several shards in one write: what each gets as its result."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tallymark import Granularity
from tallymark._cluster.shard_transactions import ShardBatches, redirection
from tallymark._core.failures import RedirectedError
from tallymark._marking.marks import Bitmaps, BitMark, DenseMarks, ExactUnmark
from tallymark.errors import CommandError, StoreError, StoreUnavailableError

D = Granularity.DAY
OK, QUEUED, ABORTED = b"OK", b"QUEUED", CommandError("EXECABORT")


def bitmaps(event: str, shard: int, end: float = math.inf) -> Bitmaps:
    return Bitmaps(event, [D], [f"{{{shard}}}{event}".encode()], [end], shard)


def asked(kind: Any) -> RedirectedError:
    return RedirectedError.to(f"{kind} 1 b:2", kind, "b", 2)


def test_one_transaction_for_each_shard() -> None:
    one, other, third = bitmaps("a", 1), bitmaps("b", 1), bitmaps("a", 2)
    batch = ShardBatches()
    marks = [(one, 1), (third, 1), (other, 5), (one, 2), (third, 1)]
    assert [batch.add(BitMark(each, offset, 1)) for each, offset in marks] == [0, 1, 2, 3, 4]
    assert batch.size > 0
    data = batch.encode()
    assert data.count(b"MULTI") == data.count(b"EXEC") == 2
    assert data.index(b"{1}b") < data.index(b"{2}a")
    assert batch.reply_count() == 4 + 3
    # A second mark on the same bit finds it set.
    replies = [OK, QUEUED, QUEUED, [[0, 1], 0], OK, QUEUED, [[0, 1]]]
    assert batch.parse(replies) == [D, D, D, Granularity(0), Granularity(0)]
    assert not batch.refused


def test_a_shard_that_is_elsewhere_is_no_other_shards_business() -> None:
    batch = ShardBatches()
    batch.add(BitMark(bitmaps("a", 1), 1, 1))
    batch.add(BitMark(bitmaps("a", 2), 1, 1))
    batch.encode()
    moved, kept = batch.parse([OK, asked("MOVED"), ABORTED, OK, QUEUED, [0]])
    assert isinstance(moved, RedirectedError)
    assert (moved.kind, moved.address) == ("MOVED", ("b", 2))
    assert kept == D


def test_what_is_refused_is_told_to_whom_it_concerns() -> None:
    batch = ShardBatches()
    for event in ("a", "b"):
        batch.add(BitMark(bitmaps(event, 1), 1, 1))
    batch.encode()
    refused, retriable = batch.parse([OK, CommandError("NOPERM"), QUEUED, ABORTED])
    assert "refused" in str(refused)
    assert isinstance(retriable, CommandError)
    assert (batch.refused, batch.retriable) == (True, {1})
    with pytest.raises(StoreError, match="does not fit"):
        batch.parse([OK, QUEUED, QUEUED, [0]])


def test_other_marks_share_the_transaction_in_call_order() -> None:
    one, later = bitmaps("a", 1), bitmaps("a", 1, 2_000_000_000)
    batch = ShardBatches()
    batch.add(BitMark(one, 1, 1))
    batch.add(ExactUnmark(one, 1, ((b"{1}w",),)))
    batch.add(BitMark(one, 2, 1))
    data = batch.encode()
    assert data.index(b"SETBIT") < data.index(b"EVAL") < data.rindex(b"SETBIT")
    assert batch.parse([OK, QUEUED, QUEUED, QUEUED, [0, [1], 1]]) == [D, D, Granularity(0)]
    ending = ShardBatches()
    ending.add(BitMark(later, 1, 1))
    assert b"EXPIREAT" in ending.encode()
    assert ending.parse([OK, QUEUED, QUEUED, [0, 1]]) == [D]


def test_a_node_that_is_about_to_get_the_shard_makes_the_keys_first() -> None:
    batch = ShardBatches(asking=True)
    batch.add(BitMark(bitmaps("a", 1), 1, 1))
    batch.add(DenseMarks(bitmaps("b", 1), 0, b"\xff", 1, (b"{1}x", b"{1}y")))
    data = batch.encode()
    assert data.count(b"SETNX") == 4
    assert data.count(b"ASKING") == 5
    assert data.index(b"SETNX") < data.index(b"MULTI")
    before = [OK, 1] * 4 + [OK]
    assert batch.reply_count() == len(before) + 4
    assert batch.parse([*before, OK, QUEUED, QUEUED, [0, [8]]]) == [D, {D: 8}]


def test_replicas_confirm_all_together() -> None:
    batch = ShardBatches(replicas=2)
    batch.add(BitMark(bitmaps("a", 1), 1, 1))
    assert batch.encode().count(b"WAIT") == 1
    replies = [OK, QUEUED, [0]]
    assert batch.reply_count() == 4
    assert batch.parse([*replies, 2]) == [D]
    for told in (1, CommandError("UNBLOCKED")):
        with pytest.raises(StoreUnavailableError):
            batch.parse([*replies, told])
    with pytest.raises(StoreError):
        batch.parse([*replies, b"two"])
    # Where nothing was written, nothing has to be confirmed.
    assert isinstance(batch.parse([OK, asked("ASK"), ABORTED, 0])[0], RedirectedError)


@pytest.mark.parametrize(
    ("replies", "kind"),
    [
        ([OK, QUEUED, QUEUED, [1, 1]], None),
        ([OK, QUEUED, CommandError("NOPERM"), ABORTED], None),
        ([OK, asked("ASK"), asked("ASK"), ABORTED], "ASK"),
        ([OK, QUEUED, asked("ASK"), ABORTED], "TRYAGAIN"),  # some are here, some there
        ([OK, QUEUED, QUEUED, asked("ASK")], "ASK"),
        ([OK, asked("MOVED"), asked("MOVED"), ABORTED], "MOVED"),
        ([OK, QUEUED, QUEUED, RedirectedError("TRYAGAIN")], "TRYAGAIN"),
    ],
)
def test_where_a_transaction_should_go(replies: list[Any], kind: str | None) -> None:
    found = redirection(replies)
    assert (None if found is None else found.kind) == kind
