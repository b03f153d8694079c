"""Exceptions of signal handlers, which are to pass wherever exceptions are caught. Pure."""

from __future__ import annotations

import functools
import inspect
import signal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import CodeType

__all__ = ["let_handlers_pass"]

#: Whose functions are no signal handlers that raise; so that is not looked for.
_NO_HANDLERS: Final = frozenset(("tallymark", "redis", "hiredis", "socket", "ssl"))

#: So many causes of causes are looked at; a program may have made a circle of them.
_LONGEST_CHAIN: Final = 32


def let_handlers_pass(error: BaseException) -> None:
    """Raise an exception again, as it is, if a signal handler has raised it.

    A handler is known by its argument, the frame that it has interrupted; or, as it may
    let go of that, by being one that is installed.
    """
    seen: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):  # redis-py may have turned it into one of its own
        if seen is None:
            return
        if _is_of_a_signal_handler(seen):
            raise seen
        seen = seen.__cause__ or seen.__context__


def _is_of_a_signal_handler(error: BaseException) -> bool:
    """Return whether a function raised it that was passed its caller's frame, or is a handler."""
    trace = error.__traceback__
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
        caller, code = frame.f_back, frame.f_code
        if caller is not None:
            known = code.co_argcount + bool(code.co_flags & inspect.CO_VARARGS)
            for name in code.co_varnames[: known + code.co_kwonlyargcount]:
                given = frame.f_locals.get(name)
                if given is caller or (
                    type(given) is tuple and any(each is caller for each in given)
                ):
                    return True
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in _NO_HANDLERS and _is_installed(code):
            return True
    return False


def _is_installed(code: CodeType) -> bool:
    """Return whether a signal handler runs this code."""
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        while isinstance(handler, functools.partial):
            handler = handler.func
        for each in (handler, getattr(type(handler), "__call__", None)):  # noqa: B004
            if getattr(each, "__code__", None) is code:
                return True
    return False
