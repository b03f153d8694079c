"""The size of batches: which durations it takes into account."""

from __future__ import annotations

import pytest

from tallymark._marking.sizing import MAX_BATCH_MARKS, BatchSizer


def test_one_slow_batch_of_two_is_an_outlier() -> None:
    sizer = BatchSizer()
    sizer.completed(10, 0.5, 2.0)
    assert sizer.expected_duration == 0.0
    sizer.completed(10, 0.25, 2.0)
    assert sizer.expected_duration == 0.25
    sizer.completed(10, 0.5, 2.0)
    assert sizer.expected_duration == 0.25


def test_a_timeout_is_a_duration_too() -> None:
    """Writes that would expire before the end of the next batch must not be sent with it."""
    sizer = BatchSizer()
    sizer.timed_out(100, 2.0)
    sizer.timed_out(100, 3.0)
    assert sizer.expected_duration == 2.0
    sizer.completed(10, 0.25, 2.0)
    assert sizer.expected_duration == 0.25


@pytest.mark.parametrize(("marks", "limit"), [(400, 200), (10, 16)])
def test_a_timeout_halves_the_limit_and_fast_batches_double_it(marks: int, limit: int) -> None:
    sizer = BatchSizer()
    assert sizer.limit(10_000) == MAX_BATCH_MARKS
    sizer.timed_out(marks, 2.0)
    assert sizer.limit(10_000) == limit
    sizer.completed(1, 1.0, 2.0)  # too slow for a larger limit
    assert sizer.limit(10_000) == limit
    sizer.completed(1, 0.1, 2.0)
    assert sizer.limit(10_000) == 2 * limit
