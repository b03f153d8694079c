"""The verbs that look for bitmaps: by name, by time, by user. Pure generators, as in `queries`.

Redis has no index of keys, so most of these walk over all keys of the database
with ``SCAN``, a thousand at a time, which holds nobody up (``KEYS`` would). A
walk finds every bitmap that is there from its begin to its end; of one that
comes or goes meanwhile, either may be true.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from .errors import CommandError, InvalidTypeError, InvalidValueError
from .keys import check_name
from .periods import Granularity, dated, periods_between
from .requests import Request

if TYPE_CHECKING:
    from datetime import date

    from .context import Context
    from .periods import By, Period
    from .requests import Command, Query

__all__ = ["delete_all", "event_names", "forget", "history", "memory", "periods"]

#: How many keys one step of a walk looks at, and how many commands go together.
_STEP: Final = 1000

#: bitmapist keeps what it computes under such names until it is told to delete them.
_LEFT_BY_BITMAPIST: Final = "trackist_bitop_(?:AND|OR|XOR|NOT)_{}"

#: Clears a user's bit wherever it is set, and so makes no bitmap longer, nor anew.
_FORGET: Final = b"""\
local cleared = 0
for _, key in ipairs(KEYS) do
  if redis.pcall('GETBIT', key, ARGV[1]) == 1 then
    redis.call('SETBIT', key, ARGV[1], 0)
    cleared = cleared + 1
  end
end
return cleared
"""


def event_names(context: Context, prefix: str) -> Query[list[str]]:
    """Return the names of all events that have a bitmap, sorted."""
    if prefix != "":  # which any name begins with, but which is no name
        check_name("prefix", prefix)
    found: set[str] = set()
    walk = _Walk(context, prefix)
    while walk.goes_on:
        found.update(event for _, event, _ in (yield from walk.step()))
    return sorted(found)


def periods(context: Context, event: str, granularity: By) -> Query[list[Period]]:
    """Return the periods for which an event has a bitmap, in order."""
    wanted = dated(granularity)
    found: set[Period] = set()
    walk = _walk_of_event(context, event)
    while walk.goes_on:
        found.update(
            period
            for _, name, period in (yield from walk.step())
            if name == event and period is not None and period.granularity is wanted
        )
    return sorted(found, key=lambda period: period.start)


def memory(context: Context, event: str) -> Query[dict[Granularity, int]]:
    """Return how many bytes an event's bitmaps take, for each granularity that has any."""
    keys: dict[bytes, Granularity] = {}
    walk = _walk_of_event(context, event)
    while walk.goes_on:
        keys |= {
            key: Granularity.UNIQUE if period is None else period.granularity
            for key, name, period in (yield from walk.step())
            if name == event
        }
    in_order = sorted(keys.values(), key=lambda granularity: int(granularity.value))
    sizes: dict[Granularity, int] = dict.fromkeys(in_order, 0)
    every = iter(keys)
    while some := list(itertools.islice(every, _STEP)):
        usages = yield Request([(b"MEMORY", b"USAGE", key) for key in some], tolerant=True)
        if any(isinstance(usage, CommandError) for usage in usages):
            # A server that does not tell, such as the embedded store: the bare bitmaps.
            usages = yield Request([(b"STRLEN", key) for key in some])
        for key, usage in zip(some, usages, strict=True):
            sizes[keys[key]] += usage or 0  # None: it has just gone
    return sizes


def history(
    context: Context,
    user_id: int,
    events: str | Iterable[str],
    since: date,
    until: date | None,
    granularity: By,
) -> Query[dict[str, list[Period]]]:
    """Return for each of some events the periods in which a user did it, in order."""
    offset = b"%d" % context.schema.offset(user_id)
    wanted = dated(granularity)
    if isinstance(events, str):
        events = [events]
    if not isinstance(events, Iterable):
        raise InvalidTypeError(f"events must be a name or several, got {events!r:.80}")
    names = list(dict.fromkeys(events))
    for name in names:
        check_name("event", name)
    if since is None:
        raise InvalidTypeError("since must be a date or datetime, got None")
    begin = context.local(since, "since")
    end = context.local(until, "until")
    if until is None:
        end += timedelta.resolution  # the period that has just begun is a part of it
    if begin >= end:
        raise InvalidValueError(f"since must be before until, got {begin} and {end}")
    found: dict[str, list[Period]] = {name: [] for name in names}
    cells = (
        (name, period, bitmap.key)
        for name in names
        for period in periods_between(wanted, begin, end)
        for bitmap in context.during(name, period).bitmaps()
    )
    while some := list(itertools.islice(cells, _STEP)):
        bits = yield Request([(b"GETBIT", key, offset) for _, _, key in some])
        for (name, period, _), bit in zip(some, bits, strict=True):
            if bit and period not in found[name][-1:]:  # several months of one year
                found[name].append(period)
    return found


def forget(context: Context, user_id: int) -> Query[int]:
    """Clear a user's bit in all bitmaps; return how many were set."""
    offset = b"%d" % context.schema.offset(user_id)
    cleared = 0
    walk = _Walk(context, also_temporary=True)
    while walk.goes_on:
        keys = [key for key, _, _ in (yield from walk.step())]
        if keys and context.options.bitfield:
            script: Command = (b"EVAL", _FORGET, b"%d" % len(keys), *keys, offset)
            (number,) = yield Request([script], changes=True)
            cleared += number
        elif keys:  # a server without scripts
            bits = yield Request([(b"GETBIT", key, offset) for key in keys], tolerant=True)
            clear: list[Command] = [
                (b"SETBIT", key, offset, b"0")
                for key, bit in zip(keys, bits, strict=True)
                if bit == 1
            ]
            if clear:
                cleared += sum((yield Request(clear, changes=True)))
    return cleared


def delete_all(context: Context, prefix: str) -> Query[int]:
    """Delete all bitmaps of the tally's prefix; return how many there were."""
    if prefix != context.origin.prefix:
        raise InvalidValueError(
            f"this tally's keys begin with {context.origin.prefix!r}; to delete them all, "
            f"pass just that, not {prefix!r:.80}"
        )
    deleted = 0
    walk = _Walk(context, also_temporary=True)
    while walk.goes_on:
        keys = [key for key, _, _ in (yield from walk.step())]
        if keys:
            (number,) = yield Request([(b"UNLINK", *keys)], changes=True)
            deleted += number
    return deleted


class _Walk:
    """A walk over all keys of the database, for the bitmaps that are ours.

    Attributes:
        goes_on: whether there is another step.
    """

    def __init__(
        self, context: Context, beginning: str = "", *, also_temporary: bool = False
    ) -> None:
        """Stand at the begin.

        Arguments:
            context: which keys are ours.
            beginning: what the events' names begin with.
            also_temporary: whether to include what bitmapist computed and left.
        """
        prefix = context.origin.prefix
        pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix + beginning) + "*"
        self._pattern = pattern.encode()
        self._temporary = re.compile(_LEFT_BY_BITMAPIST.format(re.escape(prefix)).encode())
        self._also_temporary = also_temporary
        self._schema = context.schema
        self._cursor = b"0"
        self.goes_on = True

    def step(self) -> Query[list[tuple[bytes, str, Period | None]]]:
        """Go one step; return the bitmaps that it found: their keys, events and periods."""
        scan = (b"SCAN", self._cursor, b"MATCH", self._pattern, b"COUNT", b"%d" % _STEP)
        ((self._cursor, keys),) = yield Request([scan], replies=list)
        self.goes_on = self._cursor not in {b"0", 0}
        found = []
        for key in keys:
            if self._temporary.match(key) and not self._also_temporary:
                continue
            try:
                found.append((key, *self._schema.parse(key)))
            except InvalidValueError:  # not a bitmap of ours
                continue
        return found


def _walk_of_event(context: Context, event: str) -> _Walk:
    """Return a walk that finds the bitmaps of an event, and of some others.

    "a" has the keys "a_u" and "a_2026", but "a_b_u" is one of "a_b".
    """
    check_name("event", event)
    return _Walk(context, event + "_")
