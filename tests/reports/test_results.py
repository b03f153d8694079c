"""What all results of reports share: rows, CSV, data frames, HTML, readable names."""

from __future__ import annotations

import copy
import csv
import dataclasses
import io
import json
import pickle
import re
from collections import OrderedDict
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from html.parser import HTMLParser
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from facades import ON_SOME_STORES
from hostile import HOSTILE, used
from tallymark import (
    Cell,
    CellState,
    Cohort,
    Funnel,
    FunnelStep,
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    MissingExtraError,
    Period,
    Report,
    Retention,
    Stickiness,
    Streak,
)
from tallymark._core.frozen import FrozenMapping
from tallymark._reports.results import checked_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facades import Facade
    from stores import Store
    from tallymark._charts.page import Figure

DAY = Period(Granularity.DAY, datetime(2026, 11, 23))
WEEK = Period(Granularity.WEEK, datetime(2026, 11, 23))
NEXT = DAY.shift(1)
MOMENT = datetime(2026, 11, 24, 12)
COHORT = Cohort(
    DAY,
    4,
    (Cell(DAY, CellState.FINISHED, 3, 0.75), Cell(NEXT, CellState.UNFINISHED, None, None)),
)
STEPS = (
    FunnelStep("visit", 1200, 1.0, 1.0),
    FunnelStep("<b>&", 300, 0.25, 0.25),
    FunnelStep("unique('paid')", 0, 0.0, 0.0),
    FunnelStep("last", 0, None, 0.0),
)
#: The columns of rows that have shares and ratios.
SHARES = ("rate", "ratio", "stickiness", "quick_ratio", "of_previous", "of_first")
HOSTILE_NAME = "</style><script>alert(1)</script>"


def reports(**options: Any) -> list[Report]:
    return [
        Retention("visit", "<b>&", Granularity.DAY, "classic", False, MOMENT, (COHORT,), **options),
        Funnel(WEEK, STEPS, **options),
        Stickiness(DAY, 3, 12, event="visit", **options),
        Streak("visit", 3, DAY.start.date(), 12, date(2026, 1, 2), MOMENT, **options),
    ]


EACH = pytest.mark.parametrize(
    "index", range(4), ids=["retention", "funnel", "stickiness", "streak"]
)


class Text(HTMLParser):
    """The text of a page and its tags; fails if one is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@EACH
def test_rows_are_of_json_and_csv(index: int) -> None:
    report = reports()[index]
    rows = report.to_rows()
    assert json.loads(json.dumps(rows)) == rows
    assert {tuple(row) for row in rows} == {tuple(rows[0])}
    read = list(csv.DictReader(io.StringIO(report.to_csv(), newline="")))
    assert read == [
        {key: "" if value is None else str(value) for key, value in row.items()} for row in rows
    ]


def test_rows_of_the_old_reports() -> None:
    _, funnel, stickiness, _ = reports(labels={"visit": "Visits"})
    assert funnel.to_rows()[1] == {
        "period": "2026-W48",
        "step": 2,
        "name": "<b>&",
        "count": 300,
        "of_previous": 0.25,
        "of_first": 0.25,
    }
    assert [row["name"] for row in funnel.to_rows()] == [step.name for step in STEPS]
    assert stickiness.to_rows() == [
        {"event": "visit", "day": "2026-11-23", "daily": 3, "monthly": 12, "ratio": 0.25}
    ]


@EACH
def test_data_frames(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    report = reports()[index]
    frame = report.to_pandas()
    assert list(frame.columns) == list(report.to_rows()[0])
    assert len(frame) == len(report.to_rows())
    if index == 0:
        assert str(frame["count"].dtype) == "Int64"
        assert frame["count"].tolist()[0] == 3
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        report.to_pandas()


@EACH
def test_pages_and_fragments(index: int) -> None:
    report = reports()[index]
    page, fragment = report.to_html(), report.to_html(fragment=True)
    assert page.startswith("<!DOCTYPE html>")
    assert report._repr_html_() == fragment
    assert Text(fragment).tags[0] == "div"
    assert not {"html", "body", "meta", "h1"} & set(Text(fragment).tags)
    titled = report.to_html(HOSTILE_NAME)
    assert "<h1>&lt;/style&gt;&lt;script&gt;" in titled
    for each in (page, titled, fragment):
        assert not {"script", "link", "img", "b"} & set(Text(each).tags)
        for outside in ("://", "url(", "@import"):
            assert outside not in each
    invalid: Any = report
    for arguments in ({"title": 3}, {"title": b"a"}, {"fragment": 1}, {"fragment": None}):
        with pytest.raises(InvalidTypeError):
            invalid.to_html(**arguments)


def test_every_style_is_only_for_what_is_inside() -> None:
    """So that a fragment leaves the page around it as it is."""
    for report in reports():
        styles = report.to_html(fragment=True).split("<style>")[1].split("</style>")[0]
        named = (part.strip() for part in re.findall(r"([^{}]+)\{", styles))
        selectors = [part for part in named if not part.startswith(("@media", "@container"))]
        assert len(selectors) > 10
        for selector in selectors:
            for each in selector.split(","):
                assert each.strip().startswith(".tallymark"), selector


@EACH
def test_readable_names_are_shown_and_rows_keep_the_names(index: int) -> None:
    plain = reports()[index]
    report = reports(labels={"visit": "Visits <i>", "other": "O"})[index]
    assert "Visits &lt;i&gt;" in report.to_html()
    assert "visit" not in Text(report.to_html()).text
    assert "visit" in Text(plain.to_html()).text
    assert report.to_rows() == plain.to_rows()
    assert (report.label("visit"), report.label("<b>&")) == ("Visits <i>", "<b>&")
    assert report != plain


@EACH
def test_unknown_events_are_a_warning(index: int) -> None:
    assert "Nobody was ever marked" not in reports()[index].to_html()
    one = reports(unknown_events=("a<b",))[index].to_html()
    note = '<p class="warning" role="note">Nobody was ever marked for '
    assert f"{note}“a&lt;b”: is the name spelt correctly?</p>" in one
    three = reports(unknown_events=("a", "b", "c"))[index]._repr_html_()
    assert f"{note}“a”, “b” and “c”: are the names spelt correctly?</p>" in three


def test_names_in_a_warning_keep_their_direction_to_themselves() -> None:
    hebrew = "\u05d0\u05d1"
    for names, text in (
        ((hebrew,), f"“\u2068{hebrew}\u2069”:"),
        (("a", hebrew, hebrew), f"“a”, “\u2068{hebrew}\u2069” and “\u2068{hebrew}\u2069”:"),
    ):
        for report in reports(unknown_events=names):
            assert f"Nobody was ever marked for {text}" in report.to_html()


@ON_SOME_STORES
async def test_shares_of_nobody_are_floats(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        made = [
            await tally.retention("a", "b", periods=1, cohorts=1),
            await tally.trend("a", periods=2, rolling=None),
            await tally.lifecycle("a", periods=2),
            await tally.days_active("a", days=2),
            await tally.streaks("a", days=2),
            await tally.stickiness("a"),
            await tally.funnel(["a", "b"]),
            await tally.funnel(
                ["a", "b"], since=date(2025, 1, 1), until=date(2025, 1, 9), window=timedelta(days=2)
            ),
        ]
    found = []
    for report in made:
        frame = report.to_pandas()
        for name in {"count", "rolling", "median"} & set(frame):
            assert str(frame[name].dtype) in {"Int64", "int64"}
        shares = [name for name in SHARES if name in frame]
        for name in shares:
            assert frame[name].isna().any()
            assert str(frame[name].dtype) == "float64", (report, name)
        found += shares
    assert set(found) == set(SHARES)


async def test_reports_of_a_store_without_a_name(facade: Facade) -> None:
    async with facade.open("memory://") as tally:
        await tally.mark_event("a", 1, now=date(2025, 1, 1))
        options: Any = {"by": "day", "until": date(2025, 1, 2)}
        table = await tally.retention("a", "a", periods=1, **options)
        for again in (copy.copy(table), copy.deepcopy(table)):
            assert again == table
            assert await tally.count(again.cohorts[-1].users) == 1
        for report in (
            table,
            await tally.trend("a", **options),
            await tally.lifecycle("a", **options),
            await tally.days_active("a", until=date(2025, 1, 2)),
        ):
            assert copy.deepcopy(report) == report
            with pytest.raises(InvalidTypeError, match="cannot be pickled"):
                pickle.dumps(report)


@EACH
def test_reports_are_values(index: int) -> None:
    labels = {"visit": "Visits"}
    report = reports(labels=labels, unknown_events=("x",))[index]
    labels["visit"] = "changed"
    assert report.labels == {"visit": "Visits"}
    same = reports(labels={"visit": "Visits"}, unknown_events=("x",))[index]
    assert report == same
    assert hash(report) == hash(same)
    for again in (
        copy.copy(report),
        copy.deepcopy(report),
        pickle.loads(pickle.dumps(report)),
        dataclasses.replace(report),
    ):
        assert again == report
        assert again.labels == {"visit": "Visits"}
    assert dataclasses.asdict(report)["labels"] == {"visit": "Visits"}
    changed: Any = report
    with pytest.raises(TypeError):
        changed.labels["visit"] = "changed"
    with pytest.raises(dataclasses.FrozenInstanceError):
        changed.labels = {}
    assert "Visits" not in repr(report)


def test_labels() -> None:
    pairs = {"a": "A"}
    for given in (pairs, MappingProxyType(pairs), OrderedDict(pairs), FrozenMapping(pairs)):
        assert checked_labels(given) == pairs
    assert len(checked_labels(None)) == 0
    assert repr(checked_labels(pairs)) == repr(pairs)
    invalid: list[Any] = [{1: "a"}, {"a": None}, {"a": b"b"}, ["a"], "a", 3]
    for each in invalid:
        with pytest.raises(InvalidTypeError, match="labels must be a mapping"):
            checked_labels(each)
    with pytest.raises(InvalidTypeError, match="labels must be"):
        Stickiness(DAY, 1, 2, labels=invalid[0])
    for text in ("", "a\0", "\x1b[31m", "\x85", "a\ud800"):
        with pytest.raises(InvalidValueError, match="a label must"):
            Stickiness(DAY, 1, 2, labels={"a": text})
        with pytest.raises(InvalidValueError, match="a name in labels must"):
            checked_labels({text: "a"})
    for text in ("\u05d0\u2067", "\U0001f600 a", "\N{NO-BREAK SPACE}"):
        Stickiness(DAY, 1, 2, event="a", labels={"a": text}).to_html().encode()


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: type(value).__name__)
def test_hostile_labels(value: Any) -> None:
    with used(value) as hostile:
        try:
            labels = checked_labels(hostile)
        except InvalidTypeError:
            return
        assert all(type(text) is str for pair in labels.items() for text in pair)


@dataclass(frozen=True)
class Empty(Report):
    """A report without rows."""

    number: int

    _integers: ClassVar[tuple[str, ...]] = ("count",)

    def to_rows(self) -> list[dict[str, Any]]:
        return []

    def _title(self) -> str:
        return "Nothing"

    def _caption(self) -> str:
        return "No rows."

    def _figures(self) -> Sequence[Figure]:
        return []


def test_reports_without_rows() -> None:
    report = Empty(3, unknown_events=("a",))
    assert report.to_csv() == ""
    assert len(report.to_pandas()) == 0
    assert "Nobody was ever marked" in Text(report.to_html()).text


def test_a_report_has_to_say_what_it_shows() -> None:
    base: Any = Report
    with pytest.raises(TypeError, match="abstract"):
        base()
