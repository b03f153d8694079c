"""Buffered marks: how many there are, what became of them, and whom to tell. Pure."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from .._core.arguments import checked_int, described, plain_str
from .._core.options import checked_timeout
from .._core.periods import Granularity
from .._core.untrusted import reraise_from_handler, shown
from ..errors import InvalidTypeError, InvalidValueError, OverloadedError, TallymarkError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from .chunks import Record
    from .marks import Mark, Result

__all__ = [
    "GATHERED",
    "GATHERING",
    "BufferOptions",
    "BufferStats",
    "BufferedMark",
    "FailureReport",
    "OnFailure",
    "OnFull",
    "failures",
    "record_of",
]

_log = logging.getLogger("tallymark")

#: What to do with a mark for which the buffer has no room.
OnFull = Literal["raise", "drop"]

#: Marks gather for at most so many seconds if nothing else is to be sent, as several in one
#: transaction cost much less than one in each: see `benchmarks/middleware.py`.
GATHERING: Final = 0.02

#: Or until there are so many of them.
GATHERED: Final = 500

#: At most one warning in so many seconds says that marks have failed.
_WARNING_INTERVAL: Final = 10.0

_NO_ERRORS: Final = frozenset((Granularity,))


class BufferStats(NamedTuple):
    """A snapshot of the counters of a buffer; cheap enough to take at any time.

    ``accepted`` is always the sum of ``sent``, ``failed`` and ``waiting``.

    Attributes:
        accepted: marks and unmarks that the buffer has taken.
        sent: those that Redis has acknowledged.
        dropped: marks that were not taken, since the buffer was full; with ``on_full="drop"``.
        failed: those that have ended in an error. Some of them may have been applied; the
            error says so.
        waiting: those that are neither sent nor failed yet.
    """

    accepted: int
    sent: int
    dropped: int
    failed: int
    waiting: int


class BufferedMark(NamedTuple):
    """A mark that a buffer could not send.

    To repeat it: ``getattr(tally, mark.verb)(mark.event, mark.user_id, **mark.options)``.

    Attributes:
        verb: the verb: ``"mark_event"``, ``"unmark_event"``, ``"mark_unique"`` or
            ``"unmark_unique"``.
        event: the event.
        user_id: the id of the user.
        options: the other arguments: none for a flag. For an event ``now``, which is the
            moment of the call if the call named none, ``track_hourly`` and ``track_unique``
            as the call has read them.
    """

    verb: Literal["mark_event", "unmark_event", "mark_unique", "unmark_unique"]
    event: str
    user_id: Any
    options: dict[str, Any]


#: A function that takes marks which have failed, and their error.
OnFailure = Callable[[TallymarkError, Sequence[BufferedMark]], object]


class BufferOptions:
    """The checked arguments of ``buffered``."""

    __slots__ = ("drops", "max_size", "on_error", "timeout")

    def __init__(
        self,
        max_size: int,
        on_full: OnFull,
        on_error: OnFailure | None,
        timeout: float | None,
        default_timeout: float,
    ) -> None:
        """Check the arguments.

        Arguments:
            max_size, on_full, on_error, timeout: as for ``buffered``.
            default_timeout: the timeout of the tally, in seconds.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        self.max_size = checked_int("max_size", max_size)
        if self.max_size < 1:
            raise InvalidValueError(f"max_size must be at least 1, got {shown(max_size)}")
        if not isinstance(on_full, str):
            raise InvalidTypeError(f'on_full must be "raise" or "drop", got {described(on_full)}')
        word = plain_str(on_full)
        if word not in ("raise", "drop"):
            raise InvalidValueError(f'on_full must be "raise" or "drop", got {shown(on_full)}')
        self.drops = word == "drop"
        if on_error is not None and (not callable(on_error) or _is_async(on_error)):
            raise InvalidTypeError(
                f"on_error must be a function that is no coroutine function, got {shown(on_error)}"
            )
        self.on_error = on_error
        self.timeout = default_timeout if timeout is None else checked_timeout(timeout)

    def overloaded(self, waiting: int) -> OverloadedError:
        """Return the error of a mark for which there is no room."""
        return OverloadedError(
            f"{waiting} marks are waiting in the buffer already (max_size is {self.max_size}); "
            "this one was not taken"
        )


def _is_async(function: Any) -> bool:
    """Return whether calls of a function, or of another object, return coroutines."""
    while isinstance(function, functools.partial):
        function = function.func
    return any(
        inspect.iscoroutinefunction(called)
        for called in (function, getattr(type(function), "__call__", None))  # noqa: B004
    )


def record_of(mark: Mark, user_id: Any, now: date | float | None) -> BufferedMark:
    """Return a record as users see it."""
    bitmaps: Any = mark.bitmaps
    sets = getattr(mark, "value", 0)
    if now is None:
        verb: Any = "mark_unique" if sets else "unmark_unique"
        return BufferedMark(verb, bitmaps.event, user_id, {})
    granularities = bitmaps.granularities
    options = {
        "now": datetime.fromtimestamp(now, timezone.utc) if isinstance(now, float | int) else now,
        "track_hourly": Granularity.HOUR in granularities,
        "track_unique": Granularity.UNIQUE in granularities,
    }
    return BufferedMark("mark_event" if sets else "unmark_event", bitmaps.event, user_id, options)


def failures(
    records: Iterable[Record], results: Sequence[Result]
) -> list[tuple[TallymarkError, list[BufferedMark]]]:
    """Return the marks that have failed, those with equal errors together.

    Arguments:
        records: the marks.
        results: the result of each.
    """
    if _NO_ERRORS.issuperset(map(type, results)):
        return []
    groups: dict[tuple[type, str], tuple[TallymarkError, list[BufferedMark]]] = {}
    for record, result in zip(records, results, strict=True):
        if isinstance(result, TallymarkError):
            key = type(result), str(result)
            groups.setdefault(key, (result, []))[1].append(record_of(*record))
    return list(groups.values())


class _RareWarning:
    """A warning with a number, logged at most once in an interval; the rest is added up."""

    def __init__(self, message: str, clock: Callable[[], float]) -> None:
        """Begin at 0.

        Arguments:
            message: takes the number.
            clock: returns seconds.
        """
        self._message = message
        self._clock = clock
        self._unlogged = 0
        self._logged_at: float | None = None

    def add(self, number: int, reason: object) -> None:
        """Add to the number, and log it with the reason, unless it was logged just before."""
        self._unlogged += number
        now = self._clock()
        if self._logged_at is not None and now - self._logged_at < _WARNING_INTERVAL:
            return
        self._logged_at = now
        _log.warning(f"{self._message}: %s", self._unlogged, reason)
        self._unlogged = 0

    def end(self) -> None:
        """Log what was not logged yet."""
        if self._unlogged:
            _log.warning(self._message.replace("%d", "%d more"), self._unlogged)
            self._unlogged = 0


class FailureReport:
    """Tells of marks that have failed, by ``on_error`` or the log, and logs dropped ones."""

    def __init__(self, on_error: OnFailure | None, clock: Callable[[], float]) -> None:
        """Begin without failures.

        Arguments:
            on_error: the program's function; ``None`` for the log.
            clock: returns seconds.
        """
        self._on_error = on_error
        self._failed = _RareWarning("%d buffered marks have failed", clock)
        self._dropped = _RareWarning("%d marks were dropped", clock)

    def tell(
        self,
        groups: Iterable[tuple[TallymarkError, Sequence[BufferedMark]]],
        logged: type[BaseException] = Exception,
    ) -> None:
        """Call ``on_error`` for each error and its marks; log an exception that it raises.

        Arguments:
            groups: the errors, each with its marks.
            logged: which exceptions are logged; others end this call.
        """
        for error, marks in groups:
            if self._on_error is None:
                self._failed.add(len(marks), error)
                continue
            try:
                answer = self._on_error(error, marks)
                if inspect.iscoroutine(answer):
                    answer.close()
                    raise InvalidTypeError("it returned a coroutine, which nobody awaits")
            except logged as raised:
                reraise_from_handler(raised)
                _log.exception("on_error %s of a buffer failed", shown(self._on_error))

    def drop(self, max_size: int) -> None:
        """Log that a mark was dropped, as the buffer holds ``max_size`` marks."""
        self._dropped.add(1, f"the buffer is full, of max_size={max_size}")

    def end(self) -> None:
        """Log what was not logged yet."""
        self._failed.end()
        self._dropped.end()
