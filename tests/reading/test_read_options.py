"""Options that change where a read goes, or which commands it takes: each with each other.

Every verb that reads is asked, and compared with a model of sets: what each bitmap holds
that has not expired. A range or period has to tell just what those inside it hold.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
import redis

from facades import FACADES
from servers import RedisProcess, running
from tallymark import Granularity, Period, SyncTally, all_of, any_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facades import Facade

MONDAY, TUESDAY = date(2026, 11, 23), date(2026, 11, 24)

# Bitmaps that are over are left out of marks, by the clock.
NOW = datetime.now(timezone.utc).replace(tzinfo=None)
TODAY = datetime(NOW.year, NOW.month, NOW.day)
DAY = timedelta(days=1)
#: What lives so long beyond some days ends at another time of day than it is.
_BEYOND = (NOW - TODAY + timedelta(hours=12)) % DAY

GRANULARITIES: list[Any] = ["day", "week", "month", "year"]
#: How many days bitmaps live after their period.
LIVES: dict[str, dict[str, int]] = {
    "all stay": {},
    "weeks go": {"week": 2},
    "days go": {"day": 4},
    "all go": {"day": 9, "week": 20, "month": 20, "year": 2},
}
#: Who did what so many days ago.
MARKS: dict[str, dict[int, list[int]]] = {
    "a": {
        1: [1, 2, 3, 70_000],
        2: [2, 500],
        3: [4, *range(64, 128)],
        6: [5, 6],
        8: [1, 6, 7],
        13: [8, 70_001],
        20: [9, 70_000],
        27: [2, 10],
        29: [11, 300_000],
        35: [1, 12],
        44: [13],
        150: [14],
        400: [15, 2],
    },
    "b": {1: [2, 70_000], 2: [2, 3], 9: [1, 5], 20: [9], 36: [1, 12], 401: [15]},
}
FLAGGED = [2, 5, 9, 15, 70_000]
ASKED = [*range(20), 63, 64, 127, 128, 500, 69_999, 70_000, 70_001, 300_000, 2**31]


class Replicated:
    """A primary and its replica.

    Attributes:
        primary, replica: the two.
    """

    def __init__(self, primary: RedisProcess, replica: RedisProcess) -> None:
        self.primary = primary
        self.replica = replica

    def arrived(self) -> None:
        """Wait until what was written to the primary is at the replica."""
        with redis.Redis(port=self.primary.port) as raw:
            raw.set("a key to wait for", "")
            assert raw.wait(1, 30_000) == 1

    def flush(self) -> None:
        with redis.Redis(port=self.primary.port) as raw:
            raw.flushall()

    def keys(self) -> set[Any]:
        """Return all keys of the primary and of the replica."""
        found: set[Any] = set()
        for server in (self.primary, self.replica):
            with redis.Redis(port=server.port) as raw:
                found.update(raw.keys("*"))
        return found


@pytest.fixture(scope="module")
def replicated() -> Iterator[Replicated]:
    fast = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--appendonly", "no")
    with running(RedisProcess(*fast)) as primary:
        follows = ("--replicaof", "127.0.0.1", str(primary.port))
        with running(RedisProcess(*fast, *follows)) as replica:
            yield Replicated(primary, replica)


@pytest.mark.parametrize("shards", [None, 2, 16])
async def test_expressions_of_a_replica_with_shards(
    facade: Facade, replicated: Replicated, shards: int | None
) -> None:
    replicated.flush()
    options = {"shards": shards, "read_from": replicated.replica.url, "timeout": 20}
    async with facade.open(replicated.primary.url, **options) as tally:
        await tally.mark_many("active", range(100), now=MONDAY)
        await tally.mark_many("active", range(50, 250), now=TUESDAY)
        replicated.arrived()
        monday, tuesday = tally.day("active", MONDAY), tally.day("active", TUESDAY)
        both, nobody = monday & tuesday, monday - tally.week("active", MONDAY)
        asked = [monday, both, monday | tuesday, monday ^ tuesday, nobody]
        sizes = [100, 50, 250, 200, 0]
        assert await tally.counts(asked) == sizes
        assert [await tally.count(each) for each in asked] == sizes
        assert [await tally.is_empty(each) for each in asked] == [not size for size in sizes]


@dataclass(frozen=True)
class Model:
    """What the bitmaps of a database hold.

    Attributes:
        bitmaps: the users of each, by event and period.
    """

    bitmaps: dict[tuple[str, Period], set[int]]

    @classmethod
    def of(cls, lives: dict[str, timedelta], *, yearly: bool) -> Model:
        """Return the model of all marks whose bitmaps have not expired."""
        bitmaps: dict[tuple[str, Period], set[int]] = defaultdict(set)
        for event, marks in MARKS.items():
            for ago, users in marks.items():
                for by in GRANULARITIES if yearly else GRANULARITIES[:-1]:
                    period = Period.containing(Granularity[by.upper()], TODAY - ago * DAY)
                    if by not in lives or period.end + lives[by] > NOW:
                        bitmaps[event, period].update(users)
        return cls(dict(bitmaps))

    def between(self, event: str, begin: datetime, end: datetime) -> set[int]:
        """Return who is in any bitmap of a period that lies inside a range."""
        return set[int]().union(
            *(
                users
                for (name, period), users in self.bitmaps.items()
                if name == event and begin <= period.start and period.end <= end
            )
        )

    def during(self, event: str, period: Period) -> set[int]:
        return self.between(event, period.start, period.end)

    def periods(self, event: str, by: str) -> list[Period]:
        found = [period for name, period in self.bitmaps if name == event]
        there = [period for period in found if str(period.granularity) == by]
        return sorted(there, key=lambda period: period.start)


class Databases:
    """Databases, each with its own prefix, with all marks, on a primary and its replica."""

    def __init__(self, replicated: Replicated) -> None:
        self._replicated = replicated
        self._made: dict[str, Model] = {}

    def marked(
        self, url: str, shards: int | None, lives: str, *, yearly: bool
    ) -> tuple[dict[str, Any], Model]:
        """Return the options of a database, and what it holds."""
        expire = {by: days * DAY + _BEYOND for by, days in LIVES[lives].items()}
        name = f"{url}{shards} {lives} {yearly}"
        options: dict[str, Any] = {
            "prefix": f"{shards} {lives} {yearly}:",
            "shards": shards,
            "expire": expire,
            "track_yearly": yearly,
            "timeout": 20.0,
        }
        if name not in self._made:
            with SyncTally.from_url(url, **options) as tally:
                for event, marks in MARKS.items():
                    for ago, users in marks.items():
                        tally.mark_many(event, users, now=TODAY - ago * DAY)
                for user_id in FLAGGED:
                    tally.mark_unique("flag", user_id)
            if url == self._replicated.primary.url:
                self._replicated.arrived()
            self._made[name] = Model.of(expire, yearly=yearly)
        return options, self._made[name]


@pytest.fixture(scope="module")
def databases(replicated: Replicated) -> Databases:
    replicated.flush()
    return Databases(replicated)


def expressions(tally: Any, model: Model) -> list[tuple[Any, set[int]]]:
    """Return event sets of all kinds, with who is in them."""
    yesterday, before = TODAY - DAY, TODAY - 2 * DAY

    def one(by: str, event: str, moment: datetime) -> tuple[Any, set[int]]:
        period = Period.containing(Granularity[by.upper()], moment)
        return getattr(tally, by)(event, moment), model.during(event, period)

    plain = [
        one(by, event, moment)
        for by in GRANULARITIES
        for event, moment in (("a", yesterday), ("b", before))
    ]
    ranges = [
        (
            tally.between(event, TODAY - first * DAY, TODAY - after * DAY),
            model.between(event, TODAY - first * DAY, TODAY - after * DAY),
        )
        for event, first, after in (("a", 28, 0), ("b", 70, 3), ("a", 8, 7))
    ]
    flag = (tally.unique("flag"), set(FLAGGED))
    (a, in_a), (b, in_b), (month, in_month) = ranges[0], ranges[1], plain[4]
    combined = [
        (a & b, in_a & in_b),
        (a - b, in_a - in_b),
        (a ^ flag[0], in_a ^ flag[1]),
        ((month | b) - flag[0], (in_month | in_b) - flag[1]),
        (plain[0][0] - month, plain[0][1] - in_month),
        (any_of([each for each, _ in plain]), set[int]().union(*(users for _, users in plain))),
        (all_of([a, month, flag[0]]), in_a & in_month & flag[1]),
    ]
    return [*plain, *ranges, flag, *combined]


async def ask_about_sets(tally: Any, model: Model) -> None:
    asked = expressions(tally, model)
    assert await tally.counts([each for each, _ in asked]) == [len(users) for _, users in asked]
    for event_set, users in asked:
        assert await tally.count(event_set) == len(users), event_set
        assert await tally.is_empty(event_set) == (not users), event_set
        assert [each async for each in tally.users(event_set)] == sorted(users), event_set
        inside = [user_id in users for user_id in ASKED]
        assert await tally.contains_many(event_set, ASKED) == inside, event_set
        assert await tally.contains(event_set, 2) == (2 in users), event_set
        assert await tally.contains(event_set, 70_001) == (70_001 in users), event_set
    event_set, users = asked[-2]
    page = [each async for each in tally.users(event_set, start=3, limit=4)]
    assert page == sorted(user for user in users if user >= 3)[:4]
    chunks = [chunk async for chunk in tally.user_chunks(event_set)]
    assert list(itertools.chain.from_iterable(chunks)) == sorted(users)


async def ask_for_reports(tally: Any, model: Model) -> None:
    yesterday = Period.containing(Granularity.DAY, TODAY - DAY)
    sticky = await tally.stickiness("a", TODAY - DAY)
    assert sticky.daily == len(model.during("a", yesterday))
    assert sticky.monthly == len(model.between("a", TODAY - 28 * DAY, TODAY))
    for by in GRANULARITIES:
        period = Period.containing(Granularity[by.upper()], TODAY - DAY)
        funnel = await tally.funnel(["a", "b", tally.unique("flag")], by=by, moment=TODAY - DAY)
        steps = list(
            itertools.accumulate(
                [model.during("a", period), model.during("b", period), set(FLAGGED)],
                set[int].__and__,
            )
        )
        assert [step.count for step in funnel.steps] == list(map(len, steps))
        await ask_for_retention(tally, model, by)


async def ask_for_retention(tally: Any, model: Model, by: Any) -> None:
    last = Period.containing(Granularity[by.upper()], TODAY).shift(-1)
    rows = [last.shift(number) for number in range(-2, 1)]
    cohorts = [model.during("a", period) for period in rows]
    active = [model.during("b", period) for period in rows]
    for mode, first_time in (("classic", False), ("unbounded", True)):
        table = await tally.retention(
            "a", "b", by=by, periods=2, cohorts=3, until=TODAY, mode=mode, first_time=first_time
        )
        seen = model.between("a", datetime(1970, 1, 1), rows[0].start) if first_time else set()
        for number, row in enumerate(table.cohorts):
            users = cohorts[number] - seen
            if first_time:
                seen |= cohorts[number]
            back = active[number:]
            if mode == "unbounded":
                back = [set[int]().union(*back[at:]) for at in range(len(back))]
            assert row.size == len(users), (by, mode, first_time, row)
            counts = [cell.count for cell in row.cells if cell.count is not None]
            assert counts == [len(users & each) for each in back], (by, mode, first_time, row)


async def ask_for_streaks(tally: Any, model: Model) -> None:
    since = (TODAY - 2 * DAY).date()
    found = await tally.streak("a", 2, until=TODAY)
    assert (found.current, found.since) == (found.longest, found.longest_since) == (2, since)
    day = Period.containing(Granularity.DAY, TODAY - 35 * DAY)
    found = await tally.streak("a", 12, until=TODAY)
    assert found.current == 0
    assert found.longest == (("a", day) in model.bitmaps)


async def look_for_bitmaps(tally: Any, model: Model) -> None:
    assert await tally.event_names() == [*sorted({name for name, _ in model.bitmaps}), "flag"]
    for by in GRANULARITIES:
        assert await tally.periods("a", by) == model.periods("a", by)
        since, until = TODAY - 60 * DAY, TODAY
        history = await tally.history(2, ["a", "b"], since, until, by)
        for event, found in history.items():
            first = Period.containing(Granularity[by.upper()], since)
            every = [first.shift(number) for number in range(61)]
            assert found == [
                period
                for period in every
                if period.start < until and 2 in model.during(event, period)
            ], (event, by)
    memory = await tally.memory("a")
    assert {str(granularity) for granularity in memory} == {
        by for by in GRANULARITIES if model.periods("a", by)
    }
    assert all(memory.values())


async def ask_everything(tally: Any, model: Model) -> None:
    await ask_about_sets(tally, model)
    await ask_for_reports(tally, model)
    await ask_for_streaks(tally, model)
    await look_for_bitmaps(tally, model)


def pairwise(**options: Any) -> list[Any]:
    """Return few combinations in which each value of an option meets each of every other."""
    every = [
        dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())
    ]

    def pairs(row: dict[str, Any]) -> set[Any]:
        return set(itertools.combinations(row.items(), 2))

    missing = set[Any]().union(*map(pairs, every))
    chosen = []
    while missing:
        row = max(every, key=lambda row: len(pairs(row) & missing))
        missing -= pairs(row)
        chosen.append(row)
    return [pytest.param(row, id=" ".join(f"{value}" for value in row.values())) for row in chosen]


FACADES_BY_NAME = {facade.name: facade for facade in FACADES}


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "row",
    pairwise(
        facade=list(FACADES_BY_NAME),
        read_from=["primary", "replica"],
        shards=[None, 2, 16],
        bitfield=[True, False],
        yearly=["years", "no years"],
        lives=list(LIVES),
    ),
)
async def test_each_pair_of_options_that_change_how_reads_run(
    databases: Databases, replicated: Replicated, row: dict[str, Any]
) -> None:
    url = replicated.primary.url
    yearly = row["yearly"] == "years"
    options, model = databases.marked(url, row["shards"], row["lives"], yearly=yearly)
    if row["read_from"] == "replica":
        options["read_from"] = replicated.replica.url
    before = replicated.keys()
    facade = FACADES_BY_NAME[row["facade"]]
    async with facade.open(url, bitfield=row["bitfield"], **options) as tally:
        await ask_everything(tally, model)
    assert replicated.keys() == before


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "row",
    pairwise(
        facade=list(FACADES_BY_NAME),
        shards=[None, 2],
        bitfield=[True, False],
        yearly=["years", "no years"],
        lives=list(LIVES),
    ),
)
async def test_the_same_on_the_embedded_store(databases: Databases, row: dict[str, Any]) -> None:
    url = "memory://options"
    yearly = row["yearly"] == "years"
    options, model = databases.marked(url, row["shards"], row["lives"], yearly=yearly)
    facade = FACADES_BY_NAME[row["facade"]]
    async with facade.open(url, bitfield=row["bitfield"], **options) as tally:
        await ask_everything(tally, model)
