"""SIGTERM and SIGHUP end a command as Ctrl-C does, so that it removes its files."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

from ._errors import warn

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ended_by_signals"]


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise `KeyboardInterrupt` in the block at SIGTERM and SIGHUP, and `SystemExit` behind it.

    A signal that is ignored, as SIGHUP is by ``nohup``, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def handle(number: int, _: object) -> None:
        if not received:
            received.append(number)
            raise KeyboardInterrupt

    numbers = [signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)]
    replaced = [each for each in numbers if signal.getsignal(each) is signal.SIG_DFL]
    try:
        for each in replaced:
            signal.signal(each, handle)
        yield
    except KeyboardInterrupt:
        if not received:
            raise
        warn(f"ended by {signal.Signals(received[0]).name}")
        raise SystemExit(128 + received[0]) from None
    finally:
        for each in replaced:
            signal.signal(each, signal.SIG_DFL)
