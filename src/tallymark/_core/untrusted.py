"""Code, values and text that are not ours: what messages show of them, which exceptions pass. Pure.

Keys, names, values and the words of a server come from strangers. They may be of any
length, hold line breaks, or characters that turn the direction of the text around them
(https://www.unicode.org/reports/tr9/#Explicit_Directional_Embeddings).

Code of others may raise anything. Where that is caught, exceptions of signal handlers
pass all the same: `let_handlers_pass`.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import signal
import unicodedata
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType

__all__ = [
    "escaped",
    "isolated",
    "kind_of",
    "kind_with_module",
    "let_handlers_pass",
    "listed",
    "shown",
]

#: How many characters of a value, and of a server's words, are shown.
_VALUE: Final = 80
_WORDS: Final = 300

#: How many items of a collection are shown, and which of them are not looked into.
_ITEMS: Final = 5
_SHORT: Final = 16

#: More digits than an error should have; Python refuses to make more than 4,300 of them.
_LONG_INT: Final = 10**60

_HIDDEN: Final = "a value that cannot be shown"

#: First strong isolate, and pop directional isolate; the isolates that a text may begin itself.
_ISOLATE: Final = "\u2068"
_POP: Final = "\u2069"
_ISOLATES: Final = frozenset("\u2066\u2067\u2068")

#: The classes of characters that run, or have others run, from right to left; or that
#: end a paragraph (https://www.unicode.org/reports/tr9/#Bidirectional_Character_Types).
_TURNING: Final = frozenset(
    (*("R", "AL", "AN", "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"), "B")
)

#: What ends a paragraph, and with it all isolates.
_PARAGRAPHS: Final = dict.fromkeys(map(ord, "\n\r\x1c\x1d\x1e\x85\u2029"), " ")

#: Whose functions are no signal handlers that raise; so that is not looked for.
_NO_HANDLERS: Final = frozenset(("tallymark", "redis", "hiredis", "socket", "ssl"))

#: So many causes of causes are looked at; a program may have made a circle of them.
_LONGEST_CHAIN: Final = 32


def shown(value: object, most: int = _VALUE) -> str:
    """Return about what ``repr`` returns, never longer than ``most``, and never an exception.

    Of a collection, the first items and how many there are.
    """
    try:
        return escaped(_repr(value, most), most)
    except Exception as error:  # noqa: BLE001 - a broken __repr__ must not hide what is wrong
        let_handlers_pass(error)
        return _HIDDEN


def escaped(text: str | bytes, most: int = _WORDS) -> str:
    """Return text without quotes, on one line, at most so long; bytes are taken to be UTF-8."""
    if isinstance(text, bytes):
        text = text[: 4 * most].decode("utf-8", "backslashreplace")
    # An exact str, whatever a subclass does.
    short = str.__getitem__(text, slice(0, most + 1))
    if not short.isprintable():
        short = "".join(
            one if one.isprintable() else one.encode("unicode_escape").decode() for one in short
        )
    return short if len(short) <= most else f"{short[: max(0, most - 3)]}..."


def listed(items: Iterable[str], total: int, most: int = _ITEMS) -> str:
    """Return the first of some texts, and how many there are in all if these are not all."""
    first = ", ".join(itertools.islice(items, most))
    return first if total <= most else f"{first}, ... ({total:,} in all)"


def kind_of(value: object) -> str:
    """Return the name of a value's class."""
    try:
        return escaped(type(value).__name__, _VALUE)
    except Exception as error:  # noqa: BLE001 - of a class whose metaclass is broken
        let_handlers_pass(error)
        return "a class that cannot be named"


def kind_with_module(value: object) -> str:
    """Return the name of a value's class, with that of its module before it."""
    try:
        return escaped(f"{type(value).__module__}.{type(value).__name__}", _VALUE)
    except Exception:  # noqa: BLE001 - as above
        return kind_of(value)


def isolated(text: str) -> str:
    """Return text whose direction does not reach what is beside it.

    For pages. Works where there is no markup, such as in a title.
    """
    if _TURNING.isdisjoint(map(unicodedata.bidirectional, text)):
        return text
    return f"{_ISOLATE}{_balanced(text)}{_POP}"


def _balanced(text: str) -> str:
    """Return text that ends no isolate but those that it begins, and ends all of these."""
    depth = 0
    kept = []
    for one in text.translate(_PARAGRAPHS):
        if one == _POP and not depth:
            continue
        depth += (one in _ISOLATES) - (one == _POP)
        kept.append(one)
    return "".join(kept) + _POP * depth


def _repr(value: Any, most: int) -> str:
    kind = type(value)
    # Only as much is made as is shown: a value may have megabytes.
    if kind is str or kind is bytes or kind is bytearray:
        return repr(value[: most + 1])
    if kind is int and not -_LONG_INT < value < _LONG_INT:
        return f"an int of {value.bit_length():,} bits"
    if kind in _BRACKETS and value:
        begin, end = _BRACKETS[kind]
        if most <= _SHORT:  # a collection in a collection, which may hold itself
            return f"{begin}...{end}"
        each = max(_SHORT, most // 3 - 6)
        items: Iterable[Any] = value
        parts = (_item(value, item, each) for item in items)
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
