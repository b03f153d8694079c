"""The commands that mark."""

from ._invocation import Run
from ._periods import moment_of

__all__ = ["mark"]


def mark(
    event: str,
    user_id: str,
    /,
    *,
    at: str | None = None,
    hourly: bool = False,
    unique: bool = False,
    run: Run,
) -> None:
    """Record that a user did something: set the bits of the month, week and day.

    For example:

      tallymark mark active 123
      tallymark mark page:view 123 --at 2026-01-05T13:07 --hourly

    Arguments:
        event: the name of the event.
        user_id: the user.
        at: when it happened; the present by default.
        hourly: also mark the hour.
        unique: also set the bit without a date: the flag.
    """
    with run.tally() as tally:
        now = None if at is None else moment_of("--at", at, tally.backend.context.local(None))
        flipped = tally.mark_event(
            event,
            run.store.user_id(user_id),
            now=now,
            track_hourly=hourly or None,
            track_unique=unique or None,
        )
    names = str(flipped).split("|") if flipped else []
    run.output.answer(
        {"event": event, "user_id": user_id, "flipped": "|".join(names)},
        f"new in: {', '.join(names)}" if names else "marked before",
    )
