"""The verbs that look for bitmaps: by name, by time, by user. Pure generators, as in `queries`.

Redis has no index of keys, so most of these walk over all keys of the database
with ``SCAN``, a thousand at a time, which holds nobody up (``KEYS`` would). A
walk finds every bitmap that is there from its begin to its end; of one that
comes or goes meanwhile, either may be true.

A key does not tell where its prefix ends: ``tenant1_eu_active_u`` is the flag ``active``
below ``tenant1_eu_``, and the flag ``eu_active`` below ``tenant1_``. So where one prefix
begins with another one, a walk of the shorter one finds the bitmaps of both.
"""

from __future__ import annotations

import heapq
import itertools
import operator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from .._core.arguments import iterated
from .._core.keys import bitmap_key, checked_name, results_of_bitmapist, scan_pattern
from .._core.periods import Granularity, Period, count_between, dated, periods_between
from .._core.untrusted import kind_of, shown
from ..errors import CommandError, InvalidTypeError, InvalidValueError
from .bounds import check_number
from .fanout import gather
from .raw_keys import in_commands, unlinked
from .requests import Checkpoint, ListNodes, Request, in_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import date

    from .._core.context import Context
    from .._core.periods import By
    from .requests import Command, Query

__all__ = [
    "delete_all",
    "event_names",
    "every_bitmap",
    "forget",
    "history",
    "memory",
    "periods",
    "periods_of",
]

AnswerT = TypeVar("AnswerT")

#: What a bitmap is of: an event, and a period or ``None``.
_Named = tuple[str, "Period | None"]

#: How many items are put in order in one go.
_SORTED: Final = 10_000

#: How many keys one step of a walk looks at, and how many commands go together.
_STEP: Final = 1000

#: How many names are checked in one step, since they may be long.
_NAMES: Final = 10

#: An event whose bitmaps are of the same periods as those of all others.
_ANY: Final = "any"


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
    if type(prefix) is not str or prefix:  # "" is what any name begins with, and is no name
        prefix = checked_name("prefix", prefix)
    found: set[str] = set()
    walk = _Walk(context, prefix)
    while walk.goes_on:
        found.update(each.event for each in (yield from walk.step()))
    return (yield from _in_order(found))


def every_bitmap(context: Context) -> Query[tuple[list[_Named], list[_Named]]]:
    """Return what each bitmap of the database is of, and likewise what bitmapist has left."""
    found: dict[_Named, None] = {}
    left: dict[_Named, None] = {}
    walk = _Walk(context, also_temporary=True)
    while walk.goes_on:
        for each in (yield from walk.step()):
            (left if walk.is_temporary(each.key) else found)[each.event, each.period] = None
    return list(found), list(left)


def periods(context: Context, event: str, granularity: By) -> Query[list[Period]]:
    """Return the periods for which an event has a bitmap, in order."""
    wanted = dated(granularity)
    event = checked_name("event", event)
    found = yield from periods_of(context, event)
    return [period for period in found if period.granularity is wanted]


def periods_of(context: Context, event: str) -> Query[list[Period]]:
    """Return the periods of all granularities for which an event has a bitmap, in order."""
    found: set[Period] = set()
    walk = _walk_of_event(context, event)
    while walk.goes_on:
        found.update(
            each.period
            for each in (yield from walk.step())
            if each.event == event and each.period is not None
        )
    return (yield from _in_order(found, operator.attrgetter("start")))


def memory(context: Context, event: str) -> Query[dict[Granularity, int]]:
    """Return how many bytes an event's bitmaps take, for each granularity that has any."""
    event = checked_name("event", event)
    found: dict[bytes, _Located] = {}
    walk = _walk_of_event(context, event)
    while walk.goes_on:
        found |= {each.key: each for each in (yield from walk.step()) if each.event == event}
    granularities = set((yield from in_steps(map(_granularity, found.values()))))
    in_order = sorted(granularities, key=lambda each: int(each.value))
    sizes: dict[Granularity, int] = dict.fromkeys(in_order, 0)
    for own, usages in (yield from _in_their_shards(context, found.values(), _usages)):
        for at in range(0, len(own), _STEP):
            for each, usage in zip(own[at : at + _STEP], usages[at : at + _STEP], strict=True):
                sizes[_granularity(each)] += usage or 0  # None: it has just gone
            yield Checkpoint()
    return sizes


def _granularity(located: _Located) -> Granularity:
    return Granularity.UNIQUE if located.period is None else located.period.granularity


def _usages(bitmaps: Sequence[_Located]) -> Query[list[int | None]]:
    """Return how many bytes some bitmaps take."""
    found: list[int | None] = []
    for at in range(0, len(bitmaps), _STEP):
        keys = [each.key for each in bitmaps[at : at + _STEP]]
        usages = yield Request([(b"MEMORY", b"USAGE", key) for key in keys], tolerant=True)
        if any(isinstance(usage, CommandError) for usage in usages):
            # A server that does not tell, such as the embedded store: the bare bitmaps.
            usages = yield Request([(b"STRLEN", key) for key in keys])
        found += usages
    return found


def history(
    context: Context,
    user_id: int,
    events: str | Iterable[str],
    since: date,
    until: date | None,
    granularity: By,
) -> Query[dict[str, list[Period]]]:
    """Return for each of some events the periods in which a user did it, in order."""
    shard, offset = context.schema.place(user_id)
    wanted = dated(granularity)
    if isinstance(events, str):
        events = [events]
    each = iterated("events must be a name or several", events)
    # One more than may be, of an iterable that may have no end.
    some = itertools.islice(each, context.options.max_bitmaps + 1)
    checked = yield from in_steps((checked_name("event", name) for name in some), _NAMES)
    names = list(dict.fromkeys(checked))
    check_number(context, len(names), "events")
    if since is None:
        raise InvalidTypeError("since must be a date or datetime, got None")
    begin = context.local(since, "since")
    end = context.local(until, "until")
    if until is None:
        end += timedelta.resolution  # the period that has just begun is a part of it
    if begin >= end:
        raise InvalidValueError(f"since must be before until, got {begin} and {end}")
    # A period may be the union of several bitmaps, as a year is.
    own = context.during(_ANY, Period.containing(wanted, begin))
    of_each = len(names) * sum(1 for _ in own.bitmaps())
    what = f"{wanted}s between since and until, of all events together"
    check_number(context, of_each * (count_between(wanted, begin, end) - 2), what)
    every = yield from in_steps(periods_between(wanted, begin, end))
    check_number(context, of_each * len(every), what)
    there = _history(context.shards[shard], offset, names, every)
    (found,) = yield from gather(context, [(shard, there)])
    return found


def _history(
    context: Context, offset: int, names: Sequence[str], every: Sequence[Period]
) -> Query[dict[str, list[Period]]]:
    found: dict[str, list[Period]] = {name: [] for name in names}
    digits = b"%d" % offset
    # Names may be long, and are checked already; which periods there are is the same for all.
    prefix = context.origin.prefix
    cells = (
        (name, period, bitmap_key(prefix, name, bitmap.period))
        for name in names
        for period in every
        for bitmap in context.during(_ANY, period).bitmaps()
    )
    while some := list(itertools.islice(cells, _STEP)):
        yield Checkpoint()
        bits = yield Request([(b"GETBIT", key, digits) for _, _, key in some])
        for (name, period, _), bit in zip(some, bits, strict=True):
            if bit and period not in found[name][-1:]:  # several months of one year
                found[name].append(period)
    return found


def forget(context: Context, user_id: int) -> Query[int]:
    """Clear a user's bit in all bitmaps; return how many were set."""
    shard, offset = context.schema.place(user_id)
    digits = b"%d" % offset
    cleared = 0
    walk = _Walk(context, shard=shard, also_temporary=True)
    while walk.goes_on:
        found = yield from walk.step()
        for _, number in (
            yield from _in_their_shards(context, found, lambda own: _cleared(context, own, digits))
        ):
            cleared += number
    return cleared


def _cleared(context: Context, bitmaps: Sequence[_Located], digits: bytes) -> Query[int]:
    """Clear a bit wherever it is set; return how often it was."""
    keys = [each.key for each in bitmaps]
    if context.options.bitfield:
        scripts = [
            (b"EVAL", _FORGET, b"%d" % len(some), *some, digits)
            for some in in_commands(context, keys)
        ]
        return sum((yield Request(scripts, changes=True)))
    # A server without scripts.
    bits = yield Request([(b"GETBIT", key, digits) for key in keys], tolerant=True)
    clear: list[Command] = [
        (b"SETBIT", key, digits, b"0") for key, bit in zip(keys, bits, strict=True) if bit == 1
    ]
    return sum((yield Request(clear, changes=True))) if clear else 0


def delete_all(context: Context, prefix: str) -> Query[int]:
    """Delete all bitmaps of the tally's prefix; return how many there were."""
    if not isinstance(prefix, str):  # of another type, some are equal to anything
        raise InvalidTypeError(f"prefix must be a str, got a {kind_of(prefix)}")
    if str.__str__(prefix) != context.origin.prefix:
        raise InvalidValueError(
            f"this tally's keys begin with {shown(context.origin.prefix)}; to delete them all, "
            f"pass just that, not {shown(prefix)}"
        )
    bitmaps: set[_Named] = set()

    def deleted(own: Sequence[_Located]) -> Query[list[int]]:
        return unlinked(context, [each.key for each in own])

    walk = _Walk(context, also_temporary=True)
    while walk.goes_on:
        found = yield from walk.step()
        yield from _in_their_shards(context, found, deleted)
        bitmaps.update((each.event, each.period) for each in found)
    return len(bitmaps)


class _Located(NamedTuple):
    """A bitmap that a walk found.

    Attributes:
        key: its key.
        shard: the shard that it is in.
        event, period: what it is of.
    """

    key: bytes
    shard: int
    event: str
    period: Period | None


def _in_their_shards(
    context: Context,
    bitmaps: Iterable[_Located],
    query: Callable[[Sequence[_Located]], Query[AnswerT]],
) -> Query[list[tuple[Sequence[_Located], AnswerT]]]:
    """Ask the same about some bitmaps, those of each shard there; return them with the answers."""
    by_shard: dict[int, list[_Located]] = {}
    rest = iter(bitmaps)
    while some := list(itertools.islice(rest, _STEP)):
        for each in some:
            by_shard.setdefault(each.shard, []).append(each)
        yield Checkpoint()
    answers = yield from gather(context, ((shard, query(own)) for shard, own in by_shard.items()))
    return list(zip(by_shard.values(), answers, strict=True))


class _Walk:
    """A walk over all keys of the database, for the bitmaps that are ours.

    Attributes:
        goes_on: whether there is another step.
    """

    def __init__(
        self,
        context: Context,
        beginning: str = "",
        *,
        shard: int | None = None,
        also_temporary: bool = False,
    ) -> None:
        """Stand at the begin.

        Arguments:
            context: which keys are ours.
            beginning: what the events' names begin with.
            shard: in which shard to look; ``None`` for all.
            also_temporary: whether to include what bitmapist computed and left.
        """
        self._context = context
        self._schema = context.schema
        self._pattern = scan_pattern(self._schema, beginning, shard)
        self._temporary = results_of_bitmapist(context.origin.prefix)
        self._also_temporary = also_temporary
        #: The cursor on each server; ``None`` until the servers are known.
        self._cursors: dict[str, Any] | None = None
        self.goes_on = True

    def step(self) -> Query[list[_Located]]:
        """Go one step on every server; return the bitmaps that it found."""
        keys: list[bytes] = []
        if self._cursors is None:
            self._cursors = dict.fromkeys((yield ListNodes()), b"0")
        nodes = list(self._cursors)
        scans = ((node, self._scanned(self._cursors[node])) for node in nodes)
        found = yield from gather(self._context, scans)
        for node, (cursor, some) in zip(nodes, found, strict=True):
            keys += some
            if cursor in {b"0", 0}:
                del self._cursors[node]
            else:
                self._cursors[node] = cursor
        self.goes_on = bool(self._cursors)
        # While a slot is moving, two servers may know one key.
        located = yield from in_steps(map(self._located, dict.fromkeys(keys)))
        return [each for each in located if each is not None]

    def _scanned(self, cursor: Any) -> Query[tuple[Any, list[bytes]]]:
        scan = (b"SCAN", cursor, b"MATCH", self._pattern, b"COUNT", b"%d" % _STEP)
        ((following, keys),) = yield Request([scan], replies=list)
        return following, keys

    def is_temporary(self, key: bytes) -> bool:
        """Return whether a key looks like a result that bitmapist has left."""
        return self._temporary.match(key) is not None

    def _located(self, key: bytes) -> _Located | None:
        """Return what a key is of; ``None`` if it is no bitmap of ours."""
        if not self._also_temporary and self.is_temporary(key):
            return None
        try:
            shard, event, period = self._schema.located(key)
        except InvalidValueError:
            return None
        return _Located(key, shard, event, period)


def _in_order(
    items: Iterable[AnswerT], key: Callable[[AnswerT], Any] | None = None
) -> Query[list[AnswerT]]:
    """Return items in order, as `sorted` does, but not in one go if there are many."""
    in_order: Any = sorted
    every = list(items)
    runs: list[list[AnswerT]] = []
    for at in range(0, len(every), _SORTED):
        runs.append(in_order(every[at : at + _SORTED], key=key))
        yield Checkpoint()
    if len(runs) == 1:
        return runs[0]
    merged: Any = heapq.merge
    return (yield from in_steps(merged(*runs, key=key)))


def _walk_of_event(context: Context, event: str) -> _Walk:
    """Return a walk that finds the bitmaps of an event, and of some others.

    "a" has the keys "a_u" and "a_2026", but "a_b_u" is one of "a_b". An event may have a name
    as results of bitmapist have it: who asks for just that name means its bitmaps.
    """
    return _Walk(context, event + "_", also_temporary=True)
