"""Random batches, executed by a small model of Redis: each mark gets what it would get alone."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallymark import CommandError, Granularity, WrongKeyTypeError
from tallymark._cluster.shard_transactions import ShardBatches
from tallymark._marking.batch import Batch
from tallymark._marking.marks import Bitmaps, BitMark, ExactUnmark

D, W = Granularity.DAY, Granularity.WEEK


def bitmaps_of(event: str, shard: int) -> list[Bitmaps]:
    """Return bitmaps of an event with and without an expiry, and the rest of expired ones."""
    week, day = (f"{shard}{event}{unit}".encode() for unit in "WD")
    return [
        Bitmaps(event, [W, D], [week, day], [math.inf, math.inf], shard),
        Bitmaps(event, [D], [day], [math.inf], shard),
        Bitmaps(event, [W, D], [week, day], [math.inf, 2e9], shard),
        Bitmaps(event, [], [], [], shard),
    ]


EVENTS = [bitmaps_of(event, shard) for event in "ab" for shard in (0, 1)]

#: The keys of the other days of a week, by the key of the week.
OTHER_DAYS = {key: (key + b"1", key + b"2") for event in EVENTS for key in event[0].keys}


def exact_unmark(bitmaps: Bitmaps, offset: int) -> ExactUnmark:
    days = tuple(OTHER_DAYS[key] if key.endswith(b"W") else () for key in bitmaps.keys)
    return ExactUnmark(bitmaps, offset, days)


@st.composite
def batches(draw: st.DrawFn) -> list[BitMark | ExactUnmark | None]:
    """Draw marks of a few events, so that many share a command; ``None`` to `seal` the batch."""
    events = draw(st.lists(st.sampled_from(EVENTS), min_size=1, max_size=3))
    only_bits, no_expiry = draw(st.booleans()), draw(st.booleans())
    bitmaps = st.sampled_from(
        [
            bitmaps
            for bitmaps in itertools.chain(*events)
            if not (no_expiry and bitmaps.expiry_count)
        ]
    )
    offsets = st.sampled_from([7, 4294967295])
    marks = st.builds(BitMark, bitmaps, offsets, st.sampled_from([0, 1]))
    others = st.one_of(st.builds(exact_unmark, bitmaps, offsets), st.none())
    return draw(st.lists(marks if only_bits else st.one_of(marks, marks, others), max_size=25))


some_keys = st.sets(st.sampled_from(sorted(OTHER_DAYS)), max_size=2)


class Server(NamedTuple):
    """Executes what marks send.

    Attributes:
        bits: the offsets of the 1s of each key.
        wrong: the keys of the wrong type.
        refused: the keys for which the user has no permission.
    """

    bits: defaultdict[bytes, set[int]]
    wrong: set[bytes]
    refused: set[bytes]

    def replies(self, data: bytes) -> list[Any]:
        """Return the replies to encoded commands."""
        replies: list[Any] = []
        queue: list[list[bytes]] = []
        denied = False
        for words in commands(data):
            if words[0] == b"MULTI":
                queue, denied = [], False
                replies.append(b"OK")
            elif words[0] == b"EXEC":
                aborted = CommandError("EXECABORT")
                replies.append(aborted if denied else [self.execute(each) for each in queue])
            elif self.refused.intersection(words):
                denied = True
                replies.append(CommandError("NOPERM"))
            else:
                queue.append(words)
                replies.append(b"QUEUED")
        return replies

    def execute(self, words: list[bytes]) -> Any:
        if self.wrong.intersection(words):
            return WrongKeyTypeError("WRONGTYPE")
        match words:
            case [b"SETBIT", key, offset, value]:
                return self.set(key, int(offset), int(value))
            case [b"BITFIELD", key, *operations]:
                assert operations[::4] == [b"SET"] * (len(operations) // 4)
                assert operations[1::4] == [b"u1"] * (len(operations) // 4)
                bits = zip(operations[2::4], operations[3::4], strict=True)
                return [self.set(key, int(offset), int(value)) for offset, value in bits]
            case [b"EXPIREAT", _, b"2000000000"]:
                return 1
            case [b"EVAL", _, count, *rest]:
                keys, (offset, *others) = rest[: int(count)], rest[int(count) :]
                cleared = []
                for number in map(int, others):
                    key, witnesses, keys = keys[0], keys[1 : number + 1], keys[number + 1 :]
                    needed = any(int(offset) in self.bits[witness] for witness in witnesses)
                    cleared.append(0 if needed else self.set(key, int(offset), 0))
                return cleared
        raise AssertionError(words)

    def set(self, key: bytes, offset: int, value: int) -> int:
        """Write a bit and return the old one."""
        old = offset in self.bits[key]
        (self.bits[key].add if value else self.bits[key].discard)(offset)
        return int(old)


def commands(data: bytes) -> list[list[bytes]]:
    """Decode encoded commands."""
    decoded = []
    while data:
        count, data = data.removeprefix(b"*").split(b"\r\n", 1)
        words = []
        for _ in range(int(count)):
            size, data = data.removeprefix(b"$").split(b"\r\n", 1)
            words.append(data[: int(size)])
            assert data[int(size) :].startswith(b"\r\n")
            data = data[int(size) + 2 :]
        decoded.append(words)
    return decoded


def alone(mark: BitMark | ExactUnmark, server: Server) -> Granularity | type[CommandError]:
    """Apply a mark by itself; return its flips, or the class of its error."""
    others = getattr(mark, "other_days", [()] * len(mark.bitmaps.keys))
    touched = {*mark.bitmaps.keys, *(key for keys in others for key in keys)}
    if isinstance(mark, ExactUnmark) and touched & server.wrong:
        return WrongKeyTypeError
    flips = Granularity(0)
    value = getattr(mark, "value", 0)
    bitmaps = mark.bitmaps
    for granularity, key, days in zip(bitmaps.granularities, bitmaps.keys, others, strict=True):
        needed = any(mark.offset in server.bits[day] for day in days)
        if key not in server.wrong and not needed and server.set(key, mark.offset, value) != value:
            flips |= granularity
    return WrongKeyTypeError if touched & server.wrong else flips


def filled(server: Server) -> dict[bytes, set[int]]:
    return {key: bits for key, bits in server.bits.items() if bits}


@pytest.mark.parametrize("new_batch", [Batch, ShardBatches])
@settings(max_examples=500)
@given(
    marks=batches(),
    before=st.sets(st.just(7)),
    bitfield=st.booleans(),
    wrong=some_keys,
)
def test_each_mark_gets_what_it_would_get_alone(
    new_batch: type[Batch | ShardBatches],
    marks: list[BitMark | ExactUnmark | None],
    before: set[int],
    bitfield: bool,
    wrong: set[bytes],
) -> None:
    batch = new_batch(bitfield=bitfield)
    model, server = Server(defaultdict(set), wrong, set()), Server(defaultdict(set), wrong, set())
    for each in (model, server):  # some bits are set before
        for key, offset in itertools.product(OTHER_DAYS, before):
            each.set(key, offset, 1)
            each.set(key + b"2", 7, 1)
    expected: list[Granularity | type[CommandError]] = []
    for mark in marks:
        if mark is None:
            batch.seal()
            continue
        assert batch.add(mark) == len(expected)
        expected.append(alone(mark, model))
    data = batch.encode()
    assert bitfield or b"BITFIELD" not in data
    if isinstance(batch, Batch):
        assert b"".join(batch.pieces()) == data
        assert len(batch) == len(expected)
    replies = server.replies(data)
    assert batch.reply_count() == len(replies)
    results = batch.parse(replies)
    assert [
        type(result) if isinstance(result, CommandError) else result for result in results
    ] == expected
    assert filled(server) == filled(model)


@pytest.mark.parametrize("new_batch", [Batch, ShardBatches])
@given(marks=batches(), bitfield=st.booleans(), refused=some_keys)
def test_marks_of_a_refused_transaction_are_refused_or_may_be_sent_again(
    new_batch: type[Batch | ShardBatches],
    marks: list[BitMark | ExactUnmark | None],
    bitfield: bool,
    refused: set[bytes],
) -> None:
    batch = new_batch(bitfield=bitfield)
    server = Server(defaultdict(set), set(), refused)
    sent = [mark for mark in marks if mark is not None]
    for mark in sent:
        batch.add(mark)
    guilty = {index for index, mark in enumerate(sent) if refused.intersection(mark.bitmaps.keys)}
    if new_batch is Batch:
        aborted = set(range(len(sent))) if guilty else set()
    else:
        shards = {sent[index].bitmaps.shard for index in guilty}
        aborted = {index for index, mark in enumerate(sent) if mark.bitmaps.shard in shards}
    results = batch.parse(server.replies(batch.encode()))
    refused_marks = {index for index, each in enumerate(results) if isinstance(each, CommandError)}
    assert refused_marks == aborted
    assert batch.retriable == aborted - guilty
    assert {str(results[index]) for index in guilty} <= {"nothing was applied: refused (NOPERM)"}
