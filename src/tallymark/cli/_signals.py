"""Signals that end the program: what a command has begun to write is removed before."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ends_tidily"]

#: The signals of ``kill`` and of a terminal that is closed. Windows has no SIGHUP.
_SIGNALS: Final = ("SIGTERM", "SIGHUP")


@contextlib.contextmanager
def ends_tidily() -> Iterator[None]:
    """Raise a `SystemExit` in the block when a signal comes that would end the process at once.

    The exit code is that of a shell, 128 and the number of the signal. Signals that are ignored,
    as with ``nohup``, or that the program around has handlers for, are left alone; and all signals
    in other threads than the main one, which cannot have handlers.
    """
    received: list[int] = []

    def end(number: int, _: Any) -> NoReturn:
        received.append(number)
        raise SystemExit(128 + number)

    replaced: list[int] = []
    try:
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name, None) for name in _SIGNALS):
                if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                    replaced.append(number)
                    signal.signal(number, end)
        yield
    except BaseException:
        if received:  # DuckDB and pyarrow raise errors of their own in place of a handler's
            raise SystemExit(128 + received[0]) from None
        raise
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)
