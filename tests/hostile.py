"""Invalid and misbehaving values as arguments, for `test_fuzz_signatures`."""

from __future__ import annotations

import contextlib
import decimal
import fractions
import inspect
from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import redis
import redis.asyncio

from tallymark import Granularity, Period, SyncTally

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HOSTILE", "Raising", "used"]


class HostileError(Exception):
    """Raised by a hostile value; must not reach the caller."""


def _raise(*_: object, **__: object) -> Any:
    raise HostileError("of the value's own")


#: The special methods that may be called on an object that is no iterable.
_ASKED = (
    *("repr", "str", "format", "bytes", "hash", "eq", "ne", "lt", "le", "gt", "ge", "bool"),
    *("index", "int", "float", "len", "contains", "getitem", "add", "radd", "sub", "rsub"),
    *("and", "rand", "or", "ror", "xor", "rxor", "neg", "mul", "rmul", "mod", "floordiv"),
)
_RAISING = {f"__{name}__": _raise for name in _ASKED}

#: An object, an int, a str and so on, whose special methods all raise.
Raising: Any = type("Raising", (), _RAISING)
RaisingInt: Any = type("RaisingInt", (int,), _RAISING)
RaisingFloat: Any = type("RaisingFloat", (float,), _RAISING)
RaisingStr: Any = type(
    "RaisingStr",
    (str,),
    {**_RAISING, **dict.fromkeys(("isprintable", "encode", "partition", "startswith"), _raise)},
)
Meta: Any = type(
    "Meta",
    (type,),
    {"__name__": property(_raise), "__module__": property(_raise), "__repr__": _raise},
)
RaisingClass: Any = Meta("RaisingClass", (), {})


class Zone(tzinfo):
    """A time zone whose methods raise or return nothing."""

    def utcoffset(self, _: datetime | None) -> timedelta | None:
        raise ValueError("no idea")

    dst = utcoffset

    def tzname(self, _: datetime | None) -> str | None:
        return None


class Attributes:
    """An object without further attributes, whose special methods return wrong types."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def __index__(self) -> Any:
        return "no int"  # noqa: PLE0305

    def __repr__(self) -> Any:
        return None


async def _coroutine() -> None:
    pass


async def _async_generator() -> Any:
    yield "a"
    yield 1.5


def _generator() -> Any:
    yield 1.5


def _closed_tally() -> SyncTally:
    tally = SyncTally.from_url("memory://")
    tally.close()
    return tally


def _foreign_set() -> Any:
    with SyncTally.from_url("memory://") as tally:
        return tally.day("a") & tally.unique("b")


def _closed_client() -> Any:
    client = redis.Redis(port=1)
    client.close()
    return client


def _cyclic() -> Any:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


_EAST, _WEST = timezone(timedelta(hours=23, minutes=59)), timezone(-timedelta(hours=23, minutes=59))

_PLAIN: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**32, 2**64, 10**30, -(10**30)),
    *(0.0, 0.5, -0.5, float("nan"), float("inf"), float("-inf"), 1e300, 5e-324, 1j),
    *("", " ", "a\nb", "\0", "\x7f", "\ud800", "\u202ea\u2066", "*", "{x}", "12", "day"),
    *(b"", b"a", b"\xff", bytearray(b"a"), memoryview(b"a")),
    *([], [None], [[]], [1.5], ["\0"], (), {}, {1: 2}, {"day": 1}, set(), {None}),
    *(frozenset([""]), range(0), range(-1, 5), range(10**30), slice(1), ...),
    *(NotImplemented, object, int, type, dict, len, Exception, ValueError("x")),
    *(decimal.Decimal(1), decimal.Decimal("NaN"), fractions.Fraction(1, 2)),
    *(date.min, date.max, datetime.min, datetime.max, timedelta.max, timedelta(0)),
    *(timezone.utc, Granularity(0), ~Granularity(0), Granularity.UNIQUE),
    Period.containing(Granularity.DAY, datetime.max),
    *(pd.NaT, pd.NA, np.float64("nan"), np.int64(-1), np.uint64(2**64 - 1)),
    *(np.bool_(True), np.str_("a\n"), np.datetime64("NaT"), np.datetime64(1, "ns")),
)

#: A function that makes each value, by a name.
HOSTILE: dict[str, Any] = {
    **{repr(value): (lambda value=value: value) for value in _PLAIN},
    "10**5000": lambda: 10**5000,
    "-10**5000": lambda: -(10**5000),
    "10**400": lambda: 10**400,
    "1,000 x": lambda: "x" * 1000 + "\n",
    "array": lambda: np.array([1.0, 2.0]),
    "array of none": lambda: np.array([]),
    "array of bools": lambda: np.array([True]),
    "array of objects": lambda: np.array([None, "a"], object),
    "array of times": lambda: np.array([1], "datetime64[ns]"),
    "array of 2 dimensions": lambda: np.array([[1, 2], [3, 4]]),
    "masked": lambda: np.ma.array([1, 2], mask=[True, False]),
    "masked constant": lambda: np.ma.masked,
    "series": lambda: pd.Series([1, None], dtype="Int64"),
    "frame": lambda: pd.DataFrame({"a": [1]}),
    "first moment, east": lambda: datetime.min.replace(tzinfo=_EAST),
    "first moment, west": lambda: datetime.min.replace(tzinfo=_WEST),
    "last moment, east": lambda: datetime.max.replace(tzinfo=_EAST),
    "last moment, west": lambda: datetime.max.replace(tzinfo=_WEST),
    "moment of no zone": lambda: datetime(2026, 1, 1, tzinfo=Zone()),
    "timestamp": lambda: pd.Timestamp.max.tz_localize("UTC"),
    "object": object,
    "raising": Raising,
    "raising int": lambda: RaisingInt(1),
    "raising float": lambda: RaisingFloat(1),
    "raising str": lambda: RaisingStr("a"),
    "raising str, control": lambda: RaisingStr("a\n"),
    "raising class": lambda: RaisingClass,
    "of a raising class": RaisingClass,
    "attributes": Attributes,
    "list of raising": lambda: [Raising()],
    "cyclic list": _cyclic,
    "lambda": lambda: lambda: None,
    "generator": _generator,
    "coroutine": _coroutine,
    "coroutine function": lambda: _coroutine,
    "async generator": _async_generator,
    "closed client": _closed_client,
    "pipeline": lambda: redis.Redis(port=1).pipeline(),
    "async pipeline": lambda: redis.asyncio.Redis(port=1).pipeline(),
    "closed tally": _closed_tally,
    "another's set": _foreign_set,
}


@contextlib.contextmanager
def used(name: str) -> Iterator[Any]:
    """Make a hostile value, and close it at the end."""
    value = HOSTILE[name]()
    try:
        yield value
    finally:
        if inspect.iscoroutine(value) or inspect.isgenerator(value):
            value.close()
