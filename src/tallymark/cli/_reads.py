"""The commands that read."""

from ._invocation import Run
from ._output import grouped
from ._periods import TODAY, PeriodOptions

__all__ = ["count"]


def count(event: str, /, *, period: PeriodOptions = TODAY, run: Run) -> None:
    """Print how many users are in an event set.

    For example:

      tallymark count active --month 2026-01
      tallymark count active --last 28

    Arguments:
        event: the name of the event.
    """
    period.check()
    with run.tally() as tally:
        users = tally.count(period.select(tally, event))
    run.output.answer({"users": users}, grouped(users))
