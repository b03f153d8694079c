"""Untrusted values, text and code: safe excerpts for messages, and exceptions not to catch. Pure.

Keys, names, values and a server's replies are untrusted. They may be of any length, hold
line breaks, or characters that change the direction of the text around them
(https://www.unicode.org/reports/tr9/#Explicit_Directional_Embeddings).

Code of callers, such as a ``__repr__``, may raise any exception. Wherever tallymark catches
all of them, an exception that a signal handler raised meanwhile has to pass: see
`reraise_from_handler`.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import signal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType

__all__ = [
    "escaped",
    "kind_of",
    "kind_with_module",
    "listed",
    "reraise_from_handler",
    "shown",
]

#: How many characters of a value, and of a text, are shown.
_VALUE: Final = 80
_TEXT: Final = 300

#: How many texts of a list are shown.
_ITEMS: Final = 5

#: A collection that gets no more characters than this is shown without its items.
_SHORT: Final = 16

#: From this int on, only the number of bits is shown. Python does not convert ints of more
#: than 4,300 digits at all.
_LONG_INT: Final = 10**60

_HIDDEN: Final = "a value that cannot be shown"

#: Packages whose functions are no signal handlers that raise: for these, the installed
#: handlers are not looked up.
_NO_HANDLERS: Final = frozenset(("tallymark", "redis", "hiredis", "socket", "ssl"))

#: How many exceptions of a chain of causes are examined. A program may have made it a cycle.
_LONGEST_CHAIN: Final = 32


def shown(value: object, most: int = _VALUE) -> str:
    """Return the beginning of a value's ``repr``, on one line. Raises nothing.

    Of a collection, the first items and their number.

    Arguments:
        value: any object.
        most: how many characters the result has at most.
    """
    try:
        return escaped(_repr(value, most), most)
    except Exception as error:  # noqa: BLE001 - a broken __repr__ must not replace the error
        reraise_from_handler(error)
        return _HIDDEN


def escaped(text: str | bytes, most: int = _TEXT) -> str:
    """Return the beginning of a text on one line, without quotes, other characters escaped.

    Arguments:
        text: a str, or bytes, which are decoded as UTF-8.
        most: how many characters the result has at most.
    """
    if isinstance(text, bytes):
        text = text[: 4 * most].decode("utf-8", "backslashreplace")
    # An exact str, whatever a subclass overrides.
    short = str.__getitem__(text, slice(0, most + 1))
    if not short.isprintable():
        short = "".join(
            character if character.isprintable() else character.encode("unicode_escape").decode()
            for character in short
        )
    return short if len(short) <= most else f"{short[: max(0, most - 3)]}..."


def listed(items: Iterable[str], total: int, most: int = _ITEMS) -> str:
    """Return the first ``most`` of some texts, and their total number if there are more."""
    first = ", ".join(itertools.islice(items, most))
    return first if total <= most else f"{first}, ... ({total:,} in all)"


def kind_of(value: object) -> str:
    """Return the name of a value's class."""
    try:
        return escaped(type(value).__name__, _VALUE)
    except Exception as error:  # noqa: BLE001 - the metaclass may raise
        reraise_from_handler(error)
        return "a class that cannot be named"


def kind_with_module(value: object) -> str:
    """Return the name of a value's class after that of its module, as in ``module.Class``."""
    try:
        return escaped(f"{type(value).__module__}.{type(value).__name__}", _VALUE)
    except Exception:  # noqa: BLE001 - as above
        return kind_of(value)


def _repr(value: Any, most: int) -> str:
    kind = type(value)
    # Converts only as much as is shown: a value may have megabytes.
    if kind is str or kind is bytes or kind is bytearray:
        return repr(value[: most + 1])
    if kind is int and not -_LONG_INT < value < _LONG_INT:
        return f"an int of {value.bit_length():,} bits"
    if kind in _BRACKETS and value:
        begin, end = _BRACKETS[kind]
        if most <= _SHORT:  # nested collections, of which one may hold itself
            return f"{begin}...{end}"
        share = max(_SHORT, most // 3 - 6)
        items: Iterable[Any] = value
        parts = (_item(value, item, share) for item in items)
        comma = "," if kind is tuple and len(value) == 1 else ""
        return f"{begin}{listed(parts, len(value), 3)}{comma}{end}"
    return str.__str__(repr(value))


def _item(collection: Any, item: Any, most: int) -> str:
    text = shown(item, most)
    return f"{text}: {shown(collection[item], most)}" if type(collection) is dict else text


_BRACKETS: Final[dict[type, tuple[str, str]]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    dict: ("{", "}"),
}


def reraise_from_handler(error: BaseException) -> None:
    """Raise an exception again, unchanged, if a signal handler has raised it.

    Call this wherever exceptions of all classes are caught. Also finds the exception of a
    handler among the causes and contexts of ``error``, since redis-py may have translated it.

    A function in the traceback is a handler if one of its arguments is the frame that it
    has interrupted; or, since a handler may delete that argument, if it is installed as one.

    Raises:
        BaseException: the exception of the handler.
    """
    examined: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if examined is None:
            return
        if _is_of_a_signal_handler(examined):
            raise examined
        examined = examined.__cause__ or examined.__context__


def _is_of_a_signal_handler(error: BaseException) -> bool:
    """Return whether a signal handler is in the traceback; see `reraise_from_handler`."""
    trace = error.__traceback__
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
        caller, code = frame.f_back, frame.f_code
        if caller is not None:
            positional = code.co_argcount + bool(code.co_flags & inspect.CO_VARARGS)
            for name in code.co_varnames[: positional + code.co_kwonlyargcount]:
                argument = frame.f_locals.get(name)
                if argument is caller or (
                    type(argument) is tuple and any(item is caller for item in argument)
                ):
                    return True
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in _NO_HANDLERS and _is_installed(code):
            return True
    return False


def _is_installed(code: CodeType) -> bool:
    """Return whether an installed signal handler runs this code."""
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        while isinstance(handler, functools.partial):
            handler = handler.func
        for function in (handler, getattr(type(handler), "__call__", None)):  # noqa: B004
            if getattr(function, "__code__", None) is code:
                return True
    return False
