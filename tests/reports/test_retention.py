"""Retention tables, stickiness and funnels, against sets; both facades, both stores."""

from __future__ import annotations

import copy
import csv
import dataclasses
import io
import pickle
import random
from datetime import date, datetime, timedelta, timezone
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from facades import ASYNC, ON_SOME_STORES
from tallymark import (
    Cell,
    CellState,
    FunnelStep,
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    MissingExtraError,
    Period,
    Retention,
    Stickiness,
)
from tallymark._charts import heatmap
from tallymark._core.context import Context
from tallymark._core.events import Bitmap
from tallymark._core.failures import SlotMovingError
from tallymark._core.options import Options
from tallymark._reading import bits, expressions, sweep
from tallymark._reading.requests import Compute, Scatter
from tallymark._reports import retention_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facades import Facade
    from stores import Store

#: A Wednesday, in the afternoon: the report's moment.
UNTIL = datetime(2025, 4, 2, 15)
FIRST = date(2025, 1, 1)
DAYS = (UNTIL.date() - FIRST).days + 1

#: Ids are below this.
SPREAD = 3000

Marked = dict[tuple[str, date], set[int]]


async def plausible(tally: Any, *, spread: int = SPREAD) -> Marked:
    """Mark three months of three events, and return who did what when."""
    chance = random.Random(5)
    marked: Marked = {}
    for distance in range(DAYS):
        day = FIRST + timedelta(days=distance)
        for event, number in (("signup", 12), ("web", 40), ("ios", 25)):
            marked[event, day] = set(chance.sample(range(spread), number))
            await tally.mark_many(event, marked[event, day], now=day)
    return marked


def users_in(marked: Marked, events: Sequence[str], period: Period) -> set[int]:
    found: set[int] = set()
    for (event, day), users in marked.items():
        if (
            event in events
            and Period.containing(period.granularity, datetime(day.year, day.month, day.day))
            == period
        ):
            found |= users
    return found


def expected(
    marked: Marked,
    by: Granularity,
    rows: int,
    columns: int,
    *,
    active: tuple[str, ...] = ("web", "ios"),
    unbounded: bool = False,
    first_time: bool = False,
) -> list[tuple[int, list[int | None]]]:
    """Return the sizes and counts of "signup, then web or iOS", in the words of the issue."""
    last = Period.containing(by, UNTIL).shift(-1)
    table = []
    for row in range(rows):
        period = last.shift(row - rows + 1)
        cohort = users_in(marked, ("signup",), period)
        if first_time:
            for (event, day), users in marked.items():
                if event == "signup" and day < period.start.date():
                    cohort -= users
        counts: list[int | None] = []
        for offset in range(columns):
            at = period.shift(offset)
            if at.end > UNTIL:
                counts.append(None)
                continue
            back = users_in(marked, active, at)
            while unbounded and at != last:
                at = at.shift(1)
                back |= users_in(marked, active, at)
            counts.append(len(cohort & back))
        table.append((len(cohort), counts))
    return table


@pytest.mark.exhaustive
@ON_SOME_STORES
@pytest.mark.parametrize("mode", ["classic", "unbounded"])
@pytest.mark.parametrize("first_time", [False, True])
async def test_cells_agree_with_sets(
    facade: Facade, store: Store, mode: Any, first_time: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with facade.open(store.url) as tally:
        marked = await plausible(tally)
        before = store.names()

        def on_web_or_ios(period: Period) -> Any:
            return tally.during("web", period) | tally.during("ios", period)

        for by, rows, periods in (("day", 12, 5), ("week", 5, 12), ("month", 2, 2), ("year", 1, 0)):
            options: Any = {
                "by": by,
                "periods": periods,
                "cohorts": rows,
                "until": UNTIL,
                "mode": mode,
                "first_time": first_time,
            }
            table = await tally.retention("signup", on_web_or_ios, **options)
            wanted = expected(
                marked,
                table.granularity,
                rows,
                periods + 1,
                unbounded=mode == "unbounded",
                first_time=first_time,
            )
            assert list(table.sizes) == [size for size, _ in wanted]
            assert [list(counts) for counts in table.counts] == [counts for _, counts in wanted]
            # In windows of 64 bits, with a request for each bitmap: the same.
            with monkeypatch.context() as tiny:
                for limit in ("_ALL_WINDOWS", "_MIN_WINDOW", "_MAX_WINDOW", "_MAX_FETCH"):
                    tiny.setattr(sweep, limit, 8)
                assert table == await tally.retention("signup", on_web_or_ios, **options)
        assert store.names() == before


def test_cells_count_once_if_a_shard_moves_between_two_transactions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without numpy, the server counts; while a slot is moving, bitmaps are fetched instead."""
    for module in (retention_counts, sweep):
        monkeypatch.setattr(module, "algebra", bits.Ints)
    monkeypatch.setattr(retention_counts, "_MAX_BITOP", 3)  # bytes: a row in each transaction
    context = Context.of("db", Options(shards=1), lambda: 0.0)
    rows = [Bitmap(context.origin, f"event{row}", None) for row in range(3)]
    sets = retention_counts.RetentionSets(
        rows, rows, [], [], [(0, 0), (1, 1)], "classic", first_time=False
    )
    query = retention_counts.count_cells(context, sets)
    replies: dict[bytes, Any] = {
        b"STRLEN": 1,
        b"GETRANGE": b"\xc0",
        b"BITCOUNT": 2,
        b"BITOP": 1,
        b"UNLINK": 1,
    }
    transactions = 0
    outcome: Any = None
    try:
        while True:
            effect = query.send(outcome)
            outcome = None
            if isinstance(effect, Compute):
                list(effect.steps)
            if isinstance(effect, Scatter):
                list(effect.meanwhile or ())
                ((_, request),) = effect.parts
                transactions += request.atomic
                moving = request.atomic and transactions == 2
                each = [replies[command[0]] for command in request.commands]
                outcome = [SlotMovingError() if moving else each]
    except StopIteration as end:
        table, _ = end.value
    assert transactions == 2
    assert table.sizes == [[2, 2, 2]]
    assert table.counts == [[[2, 2], [2, 2], [2, 0]]]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("limit", "transactions"),
    [
        pytest.param(2 << 20, [1], id="all rows at once"),
        # Those of the last days have few columns, so some go together.
        pytest.param(14 * (SPREAD // 8 + 1), range(10, 20), id="row by row"),
        pytest.param(8, [0], id="bitmaps too long"),
    ],
)
async def test_without_numpy_redis_counts_plain_cells(
    facade: Facade,
    plain_store: Store,
    limit: int,
    transactions: Sequence[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def watched(origin: Any, graph: Any, question: Any) -> Any:
        asked.append(len(graph.roots))
        return expressions.build_request(origin, graph, question)

    ints = bits.Ints()
    for module in ("_reports.retention_counts", "_reading.sweep", "_async.executor"):
        monkeypatch.setattr(f"tallymark.{module}.algebra", lambda: ints)
    monkeypatch.setattr(retention_counts, "build_request", watched)
    monkeypatch.setattr(retention_counts, "_MAX_BITOP", limit)
    async with facade.open(plain_store.url) as tally:
        marked = await plausible(tally)
        before = plain_store.names()
        table = await tally.retention(
            "signup", "web", by="day", periods=12, cohorts=20, until=UNTIL
        )
        wanted = expected(marked, table.granularity, 20, 13, active=("web",))
        assert list(table.sizes) == [size for size, _ in wanted]
        assert [list(counts) for counts in table.counts] == [counts for _, counts in wanted]
        assert len(asked) in transactions
        assert plain_store.names() == before
        # An empty cohort, or an empty day, is no reason to ask.
        nobody = await tally.retention("nobody", "web", periods=2, until=UNTIL)
        assert nobody.sizes == (0, 0)


@pytest.mark.exhaustive
async def test_a_funnel_within_a_period_of_ones_own(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        marked = await plausible(tally)
        sunday = date(2025, 2, 2)
        funnel = await tally.funnel(
            ["web", "ios"],
            by=timedelta(days=7),
            anchor=date(2031, 1, 5),
            moment=sunday + timedelta(days=6),
        )
        assert str(funnel.period) == "2025-02-02/P7D"
        days = [sunday + timedelta(days=distance) for distance in range(7)]
        web, ios = (set().union(*(marked[event, day] for day in days)) for event in ("web", "ios"))
        assert [step.count for step in funnel.steps] == [len(web), len(web & ios)]
        anyhow: Any = tally  # the types refuse what follows
        for options in ({"by": timedelta(days=7)}, {"anchor": sunday}):
            with pytest.raises((InvalidTypeError, InvalidValueError), match="anchor"):
                await anyhow.funnel(["web"], **options)
        with pytest.raises(InvalidValueError, match="since goes without"):
            await anyhow.funnel(["web"], since=sunday, anchor=sunday)
        for steps in ({"web", "ios"}, frozenset(["web"]), {"web": 1}.keys()):
            for how in ({}, {"since": sunday}):
                with pytest.raises(InvalidTypeError, match="steps have an order"):
                    await anyhow.funnel(steps, **how)


async def test_the_users_of_a_funnel_and_of_stickiness(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await plausible(tally)
        day = UNTIL.date() - timedelta(days=5)
        funnel = await tally.funnel(["web", "ios", tally.day("web", day)], by="month", moment=day)
        for step in funnel.steps:
            assert step.count == await tally.count(step.users) > 0
        sticky = await tally.stickiness("web", day)
        assert sticky.daily == await tally.count(sticky.daily_users) > 0
        assert sticky.monthly == await tally.count(sticky.monthly_users) > sticky.daily
        for report in (funnel, sticky):
            assert pickle.loads(pickle.dumps(report)) == report
        assert pickle.loads(pickle.dumps(sticky)).daily_users == sticky.daily_users
    by_hand = (FunnelStep("a", 1, None, None), Stickiness(sticky.day, 1, 2))
    for value, name in zip(by_hand, ("users", "daily_users"), strict=True):
        with pytest.raises(InvalidValueError, match="no report of a tally"):
            getattr(value, name)


@pytest.mark.exhaustive
async def test_first_time_looks_back_beyond_the_table(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await tally.mark_event("signup", 1, now=date(1999, 5, 1), track_hourly=True)
        await tally.mark_event("signup", 2, now=datetime(2025, 4, 1, 3), track_hourly=True)
        await tally.mark_event("signup", 5, now=datetime(2025, 4, 2, 13), track_hourly=True)
        for user_id in (1, 2, 3, 5):
            await tally.mark_event(
                "signup", user_id, now=UNTIL - timedelta(hours=1), track_hourly=True
            )

        async def sizes(cohort: Any, **options: Any) -> tuple[int, ...]:
            table = await tally.retention(
                cohort, "x", periods=0, first_time=True, until=date(2025, 4, 3), **options
            )
            return table.sizes

        def named(period: Period) -> Any:
            return tally.during("signup", period)

        for cohort in ("signup", named):
            assert await sizes(cohort, by="day", cohorts=1) == (2,)
            assert await sizes(cohort, by="day", cohorts=2) == (1, 2)
            table = await tally.retention(
                cohort, "x", periods=0, first_time=True, until=UNTIL, by="hour", cohorts=1
            )
            assert table.sizes == (1,)
        flag = tally.unique("flag")
        await tally.mark_unique("flag", 3)
        # A flag has no date: its users were in all periods before, back to 1970.
        assert await sizes(lambda _: flag, by="week", cohorts=2) == (0, 0)


async def test_what_is_not_over_is_none_and_says_why(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await tally.mark_event("signup", 1, now=UNTIL - timedelta(days=1))
        await tally.mark_event("active", 1, now=UNTIL)
        table = await tally.retention("signup", "active", by="day", periods=3, until=UNTIL)
    assert [str(row.period) for row in table.cohorts] == ["2025-03-30", "2025-03-31", "2025-04-01"]
    assert table.sizes == (0, 0, 1)
    states = [[cell.state.value for cell in row.cells] for row in table.cohorts]
    assert states == [
        ["finished", "finished", "finished", "unfinished"],
        ["finished", "finished", "unfinished", "future"],
        ["finished", "unfinished", "future", "future"],
    ]
    assert table.counts == ((0, 0, 0, None), (0, 0, None, None), (0, None, None, None))
    assert table.rates == ((None,) * 4, (None,) * 4, (0.0, None, None, None))
    assert table.averages == (0.0, None, None, None)
    april = Period.containing(Granularity.DAY, UNTIL)
    assert table.cohorts[2].cells[1] == Cell(april, CellState.UNFINISHED, None, None)


async def test_the_report_is_never_of_the_future(facade: Facade, store: Store) -> None:
    now = datetime.now(timezone.utc)
    async with facade.open(store.url) as tally:
        table = await tally.retention("a", "b", by="day", until=now + timedelta(days=9), periods=2)
        default = await tally.retention("a", "b", by="day", periods=2)
    assert now.replace(tzinfo=None) <= table.until <= default.until
    assert table.until - now.replace(tzinfo=None) < timedelta(minutes=1)
    assert table.cohorts[-1].period.end <= table.until
    assert len(table.cohorts) == 2


async def test_at_midnight_the_day_before_is_over(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, timezone="Europe/Berlin") as tally:
        table = await tally.retention("a", "b", by="day", until=date(2025, 4, 2), periods=1)
        assert str(table.cohorts[-1].period) == "2025-04-01"
        assert table.cohorts[-1].cells[1].state is CellState.FUTURE
        utc = datetime(2025, 4, 1, 22, tzinfo=timezone.utc)
        assert await tally.retention("a", "b", by="day", until=utc, periods=1) == table


async def test_averages_are_weighted_by_size(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await tally.mark_many("signup", range(90), now=date(2025, 3, 31))
        await tally.mark_many("signup", range(100, 110), now=date(2025, 4, 1))
        await tally.mark_many("active", range(9), now=date(2025, 3, 31))
        await tally.mark_many("active", range(100, 110), now=date(2025, 4, 1))
        table = await tally.retention(
            "signup", "active", by="day", periods=1, cohorts=2, until=UNTIL
        )
    assert table.rates == ((0.1, 0.0), (1.0, None))
    assert table.averages == (19 / 100, 0.0)


async def test_far_users_are_found_and_the_empty_space_is_not_fetched(
    facade: Facade, redis_store: Store
) -> None:
    far = 300_000_000
    async with facade.open(redis_store.url) as tally:
        await tally.mark_many("signup", [5, far], now=date(2025, 3, 31))
        await tally.mark_many("active", [5, far], now=date(2025, 4, 1))
        before = redis_store.raw.info("stats")["total_net_output_bytes"]
        table = await tally.retention(
            "signup", "active", by="day", periods=1, until=UNTIL, cohorts=2
        )
        assert table.counts[0] == (0, 2)
        assert redis_store.raw.info("stats")["total_net_output_bytes"] - before < 8_000_000


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"by": "fortnight"}, InvalidValueError, "a granularity with periods"),
        ({"periods": -1}, InvalidValueError, "periods must be 0 or more"),
        ({"periods": 1.0}, InvalidTypeError, "periods must be an int"),
        ({"cohorts": 0}, InvalidValueError, "cohorts must be 1 or more"),
        ({"cohorts": "3"}, InvalidTypeError, "cohorts must be an int"),
        ({"mode": "first_time"}, InvalidValueError, "first_time=True goes with either"),
        ({"mode": None}, InvalidValueError, "mode is 'classic' or 'unbounded'"),
        ({"first_time": 1}, InvalidTypeError, "True or False"),
        ({"until": "today"}, InvalidTypeError, "until must be a date"),
        ({"cohort": ""}, InvalidValueError, "event must be"),
        ({"cohort": 3}, InvalidTypeError, "a selector is an event's name, or a function"),
        ({"activity": lambda _: "web"}, InvalidTypeError, "not an event set: 'web'"),
        ({"until": date(1, 1, 3)}, InvalidValueError, "years 1 to 9999"),
    ],
)
async def test_bad_arguments(
    facade: Facade, memory_store: Store, options: Any, error: type[Exception], message: str
) -> None:
    given: Any = {"cohort": "signup", "activity": "web", **options}
    async with facade.open(memory_store.url) as tally:
        with pytest.raises(error, match=message):
            await tally.retention(given.pop("cohort"), given.pop("activity"), **given)


# --- what becomes of a table


def period(day: int) -> Period:
    return Period(Granularity.DAY, datetime(2025, 4, day))


@pytest.fixture
async def table(memory_store: Store) -> Retention:
    from tallymark import Tally

    async with Tally.from_url(memory_store.url) as tally:
        await tally.mark_many("sign<up>", range(1000), now=date(2025, 3, 31))
        await tally.mark_many("sign<up>", range(3), now=date(2025, 4, 1))
        await tally.mark_many("a&b", range(250), now=date(2025, 4, 1))
        return await tally.retention(
            "sign<up>", "a&b", by="day", periods=3, cohorts=3, until=UNTIL, mode="unbounded"
        )


def test_rows_and_csv_hold_every_cell(table: Retention) -> None:
    rows = table.to_rows()
    assert len(rows) == 12
    assert rows[5] == {
        "cohort": "2025-03-31",
        "size": 1000,
        "offset": 1,
        "last_offset": 1,
        "period": "2025-04-01",
        "count": 250,
        "rate": 0.25,
        "state": "finished",
    }
    read = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [{key: str(value or "") for key, value in row.items()} for row in read] == [
        {key: "" if value is None else str(value) for key, value in row.items()} for row in rows
    ]


def test_pandas(table: Retention, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = table.to_pandas()
    pivoted = frame.pivot(index="cohort", columns="offset", values="rate")
    assert pivoted.loc["2025-03-31", 1] == 0.25
    assert str(frame["count"].dtype) == "Int64"
    assert frame["count"].isna().sum() == 6
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        table.to_pandas()


class Cells(HTMLParser):
    """The text of every cell, and all tags in order, checked to be closed."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag in {"meta", "br"}:
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"td", "th"}:
            self.rows[-1][-1] += data


def test_the_page_shows_the_table_and_needs_nothing_else(table: Retention) -> None:
    page = table.to_html()
    cells = Cells()
    cells.feed(page)
    assert cells.open == []
    assert cells.rows[:5] == [
        ["Day", "Users", "0", "1", "2", "3"],
        ["All", "1,003", "25.2%", "25.0%", "", ""],
        ["2025-03-30", "0", "\N{EN DASH}", "\N{EN DASH}", "\N{EN DASH}", "…"],
        ["2025-03-31", "1,000", "25.0%", "25.0%", "…", ""],
        ["2025-04-01", "3", "100%", "…", "", ""],
    ]
    assert cells.rows[5:] == [
        ["Days later", "All users"],
        *(["0", "25.2%"], ["1", "25.0%"], ["2", "\N{EN DASH}"], ["3", "\N{EN DASH}"]),
    ]
    assert "sign<up>" not in page
    assert "sign&lt;up&gt; → a&amp;b</title>" in page
    assert "250 of 1,000 in 2025-04-01" in page
    assert "or in any later one" in page
    names = {tag for tag, _ in cells.seen}
    assert not names & {"script", "link", "img", "iframe"}
    for outside in ("://", "url(", "@import"):
        assert outside not in page


@pytest.mark.parametrize(
    ("rate", "shade", "text"),
    [
        (0.0, "r0", "0%"),
        (0.0004, "r1", "&lt;0.1%"),
        (0.1, "r1", "10.0%"),
        (0.101, "r2", "10.1%"),
        (0.7, "r7", "70.0%"),
        (0.71, "r8", "71.0%"),
        (0.9996, "r10", "&gt;99.9%"),
        (1.0, "r10", "100%"),
    ],
)
def test_shades_go_by_tens(rate: float, shade: str, text: str) -> None:
    row = heatmap.HeatRow("row", 1, [heatmap.HeatCell(rate, "why")])
    page = heatmap.HeatMap("title", "corner", ["0"], [row], []).html()
    assert f'<td class="{shade}" title="why">{text}</td>' in page


def test_titles_are_escaped_and_notebooks_get_a_fragment(table: Retention) -> None:
    page = table.to_html(title='<script>alert("x")</script>')
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    fragment = table._repr_html_()
    assert "<html" not in fragment
    Cells().feed(fragment)
    assert "sign&lt;up&gt;" in fragment


# --- stickiness and funnels


async def test_stickiness(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await tally.mark_many("active", [1, 2, 3], now=date(2025, 4, 1))
        await tally.mark_many("active", [3, 4, 5, 6], now=date(2025, 3, 5))  # the 28th day
        await tally.mark_many("active", [7], now=date(2025, 3, 4))
        found = await tally.stickiness("active", date(2025, 4, 1))
        assert (found.daily, found.monthly, found.ratio) == (3, 6, 0.5)
        nobody = await tally.stickiness("nobody")
        assert (nobody.daily, nobody.monthly, nobody.ratio) == (0, 0, None)
        yesterday = datetime.now(timezone.utc) - timedelta(days=1)
        assert nobody.day.start.date() == yesterday.date()
        with pytest.raises(InvalidValueError, match="leave year 1"):
            await tally.stickiness("active", date(1, 1, 5))


async def test_funnels(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await tally.mark_many("visit", range(100), now=date(2025, 3, 31))
        await tally.mark_many("cart", range(40), now=date(2025, 4, 3))
        await tally.mark_many("buy", [*range(10), 500], now=date(2025, 4, 1))
        await tally.mark_many("cart", [90], now=date(2025, 4, 7))
        await tally.mark_unique("premium", 3)
        found = await tally.funnel(["visit", "cart", "buy"], moment=date(2025, 4, 2))
        assert str(found.period) == "2025-W14"
        assert [(step.name, step.count) for step in found.steps] == [
            ("visit", 100),
            ("cart", 40),
            ("buy", 10),
        ]
        assert [step.of_previous for step in found.steps] == [1.0, 0.4, 0.25]
        assert [step.of_first for step in found.steps] == [1.0, 0.4, 0.1]
        monthly = await tally.funnel(
            ["cart", tally.unique("premium"), "nothing", "visit"], by="month", moment=UNTIL
        )
        assert [step.count for step in monthly.steps] == [41, 1, 0, 0]
        assert monthly.steps[1].name == "unique('premium')"
        assert monthly.steps[3].of_previous is None
        verbs: Any = tally
        for steps, error, message in (
            ([], InvalidValueError, "one step or more"),
            ("visit", InvalidTypeError, "several names or event sets"),
            (["visit", 3], InvalidTypeError, "not an event set: 3"),
            (["visit", ""], InvalidValueError, "event must be"),
        ):
            with pytest.raises(error, match=message):
                await verbs.funnel(steps)


async def test_cells_are_made_when_they_are_read(redis_store: Store) -> None:
    """Half a million of them at once would keep the garbage collector busy."""
    async with ASYNC.open(redis_store.url) as tally:
        await tally.mark_event("a", 1)
        tables = [await tally.retention("a", "a", by="day", periods=3) for _ in range(2)]
    (row, *_), (same, *_) = (table.cohorts for table in tables)
    assert "cells" not in vars(row)
    assert pickle.loads(pickle.dumps(row)) == row == same == copy.deepcopy(row)
    assert row.cells is row.cells
    assert len(row.cells) == 4
    assert repr(row) == repr(dataclasses.replace(row))
    with pytest.raises(AttributeError, match="has no attribute 'cell'"):
        _ = getattr(row, "cell")  # noqa: B009
