"""Batches without a server: what goes out, and what is made of what comes back."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tallymark import CommandError, Granularity, StoreError, WrongKeyTypeError
from tallymark._marking.batch import Batch, SingleMark
from tallymark._marking.marks import Bitmaps, BitMark, DenseMarks, ExactUnmark, Mark, SparseMarks

D, W = Granularity.DAY, Granularity.WEEK
ACTIVE = Bitmaps("active", D | W, [b"aW", b"aD"])
ACTIVE_DAY = Bitmaps("active", D, [b"aD"])
LOGIN = Bitmaps("login", D, [b"lD"])


def commands(batch: Batch) -> list[str]:
    """Read RESP back into one line for each command."""
    fields = batch.encode().decode().split("\r\n")
    lines = []
    while len(fields) > 1:
        count = int(fields.pop(0).removeprefix("*"))
        words = []
        for _ in range(count):
            size, word = int(fields.pop(0).removeprefix("$")), fields.pop(0)
            while len(word) < size:  # the script has line ends of its own
                word += "\r\n" + fields.pop(0)
            assert len(word) == size
            words.append(word.split("\n")[0] or "script")
        lines.append(" ".join(words))
    assert fields == [""]
    return lines


def batch_of(*marks: Mark, bitfield: bool = True) -> Batch:
    batch = Batch(bitfield=bitfield)
    for index, mark in enumerate(marks):
        assert batch.add(mark) == index
    assert len(batch) == len(marks)
    return batch


def test_one_mark_is_one_setbit_per_key() -> None:
    batch = batch_of(BitMark(ACTIVE, 7, 1))
    assert commands(batch) == ["MULTI", "SETBIT aW 7 1", "SETBIT aD 7 1", "EXEC"]
    assert batch.reply_count() == 4
    assert batch.parse([b"OK", b"QUEUED", b"QUEUED", [0, 1]]) == [W]


def test_marks_of_one_key_share_a_bitfield() -> None:
    batch = batch_of(BitMark(ACTIVE, 7, 1), BitMark(LOGIN, 1, 1), BitMark(ACTIVE, 4294967295, 0))
    assert commands(batch) == [
        "MULTI",
        "BITFIELD aW SET u1 7 1 SET u1 4294967295 0",
        "BITFIELD aD SET u1 7 1 SET u1 4294967295 0",
        "SETBIT lD 1 1",
        "EXEC",
    ]
    replies = [b"OK", *[b"QUEUED"] * 3, [[0, 0], [0, 1], 1]]
    assert batch.parse(replies) == [W | D, Granularity(0), D]


def test_without_bitfield() -> None:
    batch = batch_of(BitMark(ACTIVE, 7, 1), BitMark(ACTIVE, 8, 1), bitfield=False)
    assert commands(batch)[1:-1] == [
        "SETBIT aW 7 1",
        "SETBIT aD 7 1",
        "SETBIT aW 8 1",
        "SETBIT aD 8 1",
    ]
    assert batch.reply_count() == 6
    assert batch.parse([b"OK", *[b"QUEUED"] * 4, [0, 1, 1, 0]]) == [W, D]


def test_marks_whose_bitmaps_have_all_expired_flip_nothing() -> None:
    expired = Bitmaps("active", [], [])
    batch = batch_of(BitMark(expired, 7, 1), BitMark(expired, 8, 1), BitMark(LOGIN, 7, 1))
    assert commands(batch) == ["MULTI", "SETBIT lD 7 1", "EXEC"]
    assert batch.parse([b"OK", b"QUEUED", [0]]) == [Granularity(0), Granularity(0), D]


def test_other_bitmaps_of_the_event_keep_the_call_order() -> None:
    batch = batch_of(BitMark(ACTIVE, 7, 1), BitMark(ACTIVE_DAY, 7, 0), BitMark(ACTIVE, 7, 1))
    assert commands(batch)[1:-1] == [
        "SETBIT aW 7 1",
        "SETBIT aD 7 1",
        "SETBIT aD 7 0",
        "SETBIT aW 7 1",
        "SETBIT aD 7 1",
    ]


def test_marks_of_other_users_join_the_runs_that_are_there() -> None:
    batch = batch_of(
        BitMark(ACTIVE, 1, 1),
        BitMark(ACTIVE_DAY, 2, 1),
        BitMark(ACTIVE, 3, 1),
        BitMark(ACTIVE_DAY, 4, 1),
        BitMark(ACTIVE_DAY, 3, 0),
        BitMark(ACTIVE_DAY, 5, 1),
    )
    assert commands(batch)[1:-1] == [
        "BITFIELD aW SET u1 1 1 SET u1 3 1",
        "BITFIELD aD SET u1 1 1 SET u1 3 1",
        "BITFIELD aD SET u1 2 1 SET u1 4 1",
        "BITFIELD aD SET u1 3 0 SET u1 5 1",
    ]
    replies = [b"OK", *[b"QUEUED"] * 4, [[0, 1], [0, 0], [1, 0], [1, 0]]]
    assert batch.parse(replies) == [W | D, Granularity(0), D, D, D, D]


def test_an_exact_unmark_keeps_the_call_order() -> None:
    exact = ExactUnmark(ACTIVE, 7, ((b"aD1", b"aD2"), ()))
    batch = batch_of(BitMark(ACTIVE, 7, 1), exact, BitMark(ACTIVE, 7, 1), BitMark(LOGIN, 7, 1))
    assert commands(batch)[1:-1] == [
        "SETBIT aW 7 1",
        "SETBIT aD 7 1",
        "EVAL script 4 aW aD1 aD2 aD 7 2 0",
        "SETBIT aW 7 1",
        "SETBIT aD 7 1",
        "SETBIT lD 7 1",
    ]
    assert batch.reply_count() == 8
    replies = [b"OK", *[b"QUEUED"] * 6, [0, 0, [0, 1], 1, 0, 1]]
    assert batch.parse(replies) == [W | D, D, D, Granularity(0)]


def wrong_type() -> WrongKeyTypeError:
    error = WrongKeyTypeError("WRONGTYPE ...")
    error.__cause__ = RuntimeError("redis-py's")
    return error


def test_a_wrong_key_fails_only_the_marks_that_touch_it() -> None:
    batch = batch_of(BitMark(ACTIVE, 7, 1), BitMark(LOGIN, 7, 1), BitMark(ACTIVE, 8, 1))
    replies = [b"OK", *[b"QUEUED"] * 3, [[0, 1], wrong_type(), 0]]
    first, login, second = batch.parse(replies)
    assert login == D
    assert isinstance(first, WrongKeyTypeError)
    assert isinstance(second, WrongKeyTypeError)
    assert first is not second
    assert str(first).startswith("aD was not changed; flipped in the mark's other bitmaps: week")
    assert "other bitmaps: none" in str(second)
    assert isinstance(first.__cause__, RuntimeError)


def test_a_failed_script_is_its_marks_error() -> None:
    batch = batch_of(ExactUnmark(ACTIVE_DAY, 7, ((),)), BitMark(LOGIN, 7, 1))
    exact, login = batch.parse([b"OK", b"QUEUED", b"QUEUED", [wrong_type(), 0]])
    assert isinstance(exact, WrongKeyTypeError)
    assert "exact unmark of 'active': nothing was changed" in str(exact)
    assert login == D


def test_a_refused_command_fails_all_marks_and_says_which_was_to_blame() -> None:
    batch = batch_of(BitMark(ACTIVE, 7, 1), BitMark(LOGIN, 7, 1))
    denied = CommandError("NOPERM lD")
    active, login = batch.parse(
        [b"OK", b"QUEUED", b"QUEUED", denied, CommandError("EXECABORT ...")]
    )
    assert isinstance(active, CommandError)
    assert "another mark of the transaction was refused (NOPERM lD)" in str(active)
    assert isinstance(login, CommandError)
    assert str(login) == "nothing was applied: refused (NOPERM lD)"
    assert batch.retriable == {0}


def test_a_refused_exec_fails_all_marks() -> None:
    batch = batch_of(BitMark(LOGIN, 7, 1))
    (result,) = batch.parse([b"OK", b"QUEUED", CommandError("EXECABORT out of luck")])
    assert "nothing was applied: the transaction was refused (EXECABORT" in str(result)


def test_a_refused_multi_says_that_bits_may_have_changed() -> None:
    batch = batch_of(BitMark(LOGIN, 7, 1))
    replies = [CommandError("NOPERM multi"), 0, CommandError("ERR EXEC without MULTI")]
    (result,) = batch.parse(replies)
    assert isinstance(result, CommandError)
    assert "without a transaction (NOPERM multi)" in str(result)


@pytest.mark.parametrize(
    "executed",
    [None, b"OK", 1, [], [0], [0, 2], [0, b"1"], [0, [0]], [[0, 0], 0], [0, 0, 0]],
)
def test_replies_that_do_not_fit_are_never_guessed_at(executed: Any) -> None:
    batch = batch_of(BitMark(ACTIVE, 7, 1))
    with pytest.raises(StoreError, match="does not fit"):
        batch.parse([b"OK", b"QUEUED", b"QUEUED", executed])


@pytest.mark.parametrize("bits", [None, 0, b"\0\0", [0], [0, 0, 0], [0, 2], [0, b"1"], [0, [0]]])
def test_replies_to_several_marks_that_do_not_fit(bits: Any) -> None:
    batch = batch_of(BitMark(ACTIVE, 7, 1), BitMark(ACTIVE, 8, 1))
    for executed in ([bits, [0, 0]], [[0, 0], bits]):
        with pytest.raises(StoreError, match="does not fit"):
            batch.parse([b"OK", b"QUEUED", b"QUEUED", executed])


@pytest.mark.parametrize("bits", [None, 0, b"\0\0", [0], [0, 0, 0], [0, 2], [0, b"1"], [0, [0]]])
def test_replies_to_bulk_marks_that_do_not_fit(bits: Any) -> None:
    dense = DenseMarks(ACTIVE, 0, b"\x80", 1, (b"x", b"y"))
    clear = ExactUnmark(ACTIVE, 7, ((), ()))
    counts = [b"OK", b"QUEUED"]
    for value in (0, 1):
        sparse = SparseMarks(ACTIVE, [7, 8], value)
        for executed in ([bits, [0, 0]], [[0, 0], bits]):
            with pytest.raises(StoreError, match="does not fit"):
                batch_of(sparse).parse([*counts, b"QUEUED", executed])
        if isinstance(bits, list) and bits != [0]:
            with pytest.raises(StoreError, match="does not fit"):
                batch_of(sparse, bitfield=False).parse([b"OK", *[b"QUEUED"] * 4, [0, 0, *bits]])
    if bits != [0, 2]:  # two users
        with pytest.raises(StoreError, match="does not fit"):
            batch_of(dense).parse([*counts, [bits]])
    with pytest.raises(StoreError, match="does not fit"):
        batch_of(clear).parse([*counts, [bits]])


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("count", range(1, 6))
def test_a_single_mark_is_a_batch_of_one(value: int, count: int) -> None:
    """Its bytes are those of the batch, and so are its results, for each reply."""
    granularities = list(Granularity)[:count]
    mark = BitMark(Bitmaps("a", granularities, [b"%d" % n for n in range(count)]), 7, value)
    single = SingleMark(mark)
    assert single.encode() == batch_of(mark).encode() == single.batch().encode()
    known = dict(single.known_replies())
    assert len(known) == 2**count
    for bits in itertools.product((0, 1), repeat=count):
        replies = [b"OK", *[b"QUEUED"] * count, list(bits)]
        wire = b"+OK\r\n" + b"+QUEUED\r\n" * count + b"*%d\r\n" % count
        wire += b"".join(b":%d\r\n" % bit for bit in bits)
        assert [known.pop(wire)] == batch_of(mark).parse(replies)
    assert not known
