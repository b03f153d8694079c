"""SIGTERM and SIGHUP end a command as Ctrl-C does, so that it removes what it has begun."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

from ._errors import warn

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ended_by_signals", "noticed_signals"]

#: The signals of ``kill`` and of a terminal that is closed. Windows has no SIGHUP.
_SIGNALS: Final = ("SIGTERM", "SIGHUP")


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise `KeyboardInterrupt` in the block at SIGTERM and SIGHUP, and `SystemExit` behind it.

    The exit code is that of a shell, 128 and the number of the signal. Signals that are ignored,
    as with ``nohup``, or that the program around has handlers for, are left alone; and all signals
    in other threads than the main one, which cannot have handlers.
    """
    received: list[int] = []

    def handle(number: int, _: object) -> None:
        if not received:
            received.append(number)
            raise KeyboardInterrupt

    replaced: list[int] = []
    try:
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name, None) for name in _SIGNALS):
                if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                    replaced.append(number)
                    signal.signal(number, handle)
        yield
    except BaseException:
        if received:  # DuckDB and pyarrow raise errors of their own in place of a handler's
            warn(f"ended by {signal.Signals(received[0]).name}")
            raise SystemExit(128 + received[0]) from None
        raise
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def noticed_signals() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C, and the signals of `ended_by_signals`, set before they raise.

    DuckDB imports modules of its own while it runs a query, and drops the `KeyboardInterrupt` of a
    signal that comes meanwhile.
    """
    noticed = threading.Event()
    replaced: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        noticed.set()
        replaced[number](number, frame)

    try:
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name, None) for name in ("SIGINT", *_SIGNALS)):
                if number is not None and callable(handler := signal.getsignal(number)):
                    replaced[number] = handler
                    signal.signal(number, handle)
        yield noticed
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
