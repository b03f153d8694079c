"""Charts: well-formed, with numbers for all readers, and labels that do not collide."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tallymark._charts.axes import HEIGHT, Axes, Scale, ticks
from tallymark._charts.bars import BarChart
from tallymark._charts.drawing import COLOURS, Series
from tallymark._charts.formats import compact, fitted, grouped, percent, text_width
from tallymark._charts.funnels import FunnelBar, FunnelBars, FunnelGroup
from tallymark._charts.heatmap import HeatCell, HeatMap, HeatRow
from tallymark._charts.lines import LineChart
from tallymark._charts.page import Page
from tallymark._charts.tables import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tallymark._charts.page import Figure

HOSTILE = '</text></svg><script>alert("x")</script>&amp;\u202e'
TURNED = "\u05d0\u05d1"

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn")), max_size=200)
COUNTS = st.integers(0, 10**13)
#: Texts of ticks have eight digits after the point, as rates.
RATES = st.floats(0, 1).filter(lambda rate: rate == 0 or rate > 1e-7)


def parsed(figure: Figure) -> ET.Element:
    """Return the elements of a figure; fails if it is not well-formed."""
    return ET.fromstring(f"<figure>{figure.html().replace('<details open>', '<details>')}</figure>")


def image(figure: Figure) -> ET.Element:
    (found,) = parsed(figure).iterfind(".//svg[@role='img']")
    return found


def cells(figure: Figure) -> list[list[str]]:
    """Return the text of all tables."""
    rows = parsed(figure).iter("tr")
    return [["".join(cell.itertext()) for cell in row] for row in rows]


def description(figure: Figure) -> str:
    return image(figure).findtext("desc") or ""


def bars_of(*counts: int) -> list[FunnelBar]:
    return [
        FunnelBar(
            count,
            count / counts[0] if counts[0] else None,
            count / counts[max(0, at - 1)] if counts[max(0, at - 1)] else None,
            "" if at == 0 else f"{at + 1} days",
        )
        for at, count in enumerate(counts)
    ]


# --- numbers as text


@pytest.mark.parametrize(
    ("number", "text", "short"),
    [
        (0, "0", "0"),
        (7, "7", "7"),
        (999, "999", "999"),
        (1000, "1k", "1k"),
        (1234, "1.23k", "1.2k"),
        (12_345, "12.3k", "12k"),
        (123_456, "123k", "123k"),
        (999_499, "999k", "999k"),
        (999_600, "1M", "1M"),
        (1_200_000, "1.2M", "1.2M"),
        (-1_200_000, "\N{MINUS SIGN}1.2M", "\N{MINUS SIGN}1.2M"),
        (2.5, "2.5", "2.5"),
        (10**9, "1B", "1B"),
        (10**12, "1T", "1T"),
        (10**16, "10,000T", "10,000T"),
    ],
)
def test_compact_numbers(number: float, text: str, short: str) -> None:
    assert compact(number) == text
    assert compact(number, 2) == short


def test_numbers_in_tables() -> None:
    assert grouped(None) == percent(None) == "\N{EN DASH}"
    assert grouped(1_234_567) == "1,234,567"
    assert grouped(-1200) == "\N{MINUS SIGN}1,200"
    assert grouped(1000) == "1,000"
    assert grouped(2.5) == "2.5"
    assert grouped(2.0) == "2"
    assert grouped(1234.567) == "1,234.57"


@given(NAMES, st.floats(20, 400))
def test_long_text_gets_an_ellipsis(text: str, most: float) -> None:
    fits = fitted(text, most)
    assert text_width(fits) <= most
    assert fits == text or (fits.endswith("…") and text.startswith(fits[:-1]))
    assert (fits == text) == (text_width(text) <= most) or text.endswith("…")


# --- axes


@given(st.integers(-(10**13), 0), st.integers(0, 10**13), st.booleans(), st.integers(3, 9))
@example(0, 0, True, 5)
@example(0, 1, True, 5)
def test_ticks_of_counts(low: int, high: int, whole: bool, most: int) -> None:
    check_ticks(ticks(low, high, whole=whole, most=most), low, high, most)
    if whole:
        assert all(tick == int(tick) for tick in ticks(low, high, whole=True, most=most))


@given(RATES)
@example(0.3)
@example(0.0)
def test_ticks_of_rates(high: float) -> None:
    found = ticks(0, high, whole=False)
    check_ticks(found, 0, high, 5)
    texts = [Scale(found, rates=True).text(tick) for tick in found]
    assert len(set(texts)) == len(texts)
    if high > 0.001:
        assert all(len(text) <= 5 for text in texts)


def check_ticks(found: list[float], low: float, high: float, most: int) -> None:
    span = max(high - low, 1e-12)
    assert found[0] <= low + span * 1e-6
    assert found[-1] >= high - span * 1e-6
    assert 0 in found
    assert 2 <= len(found) <= most + 3
    step = found[1] - found[0]
    assert all(abs(b - a - step) <= step * 1e-6 for a, b in itertools.pairwise(found))
    assert f"{step:.0e}"[0] in "125"


#: The least width of each kind of chart, and the classes that are hidden there.
HIDDEN: dict[int, tuple[str, ...]] = {
    280: ("medium", "wide", "full"),
    520: ("wide", "full"),
    900: ("full",),
    1040: (),
}


@given(
    st.integers(1, 400),
    st.sampled_from(["1", "2026-11-26", "2026-W48", "W" * 60, "漢字" * 30]),
    st.booleans(),
)
def test_labels_do_not_collide(count: int, label: str, between: bool) -> None:
    """At the least width of each kind of chart, as the container queries say."""
    slots = [100 * (at + 0.5) / count for at in range(count)]
    ends = [100 * at / (count - 1) if count > 1 else 50.0 for at in range(count)]
    axes = Axes(Scale([0, 1], rates=False), [label] * count, slots if between else ends)
    texts = [
        (float(text.get("x", "").rstrip("%")), text.get("class"), "".join(text.itertext()))
        for text in ET.fromstring(f"<svg>{axes.svg()}</svg>").iter("text")
        if text.get("text-anchor") == "middle"
    ]
    left, right = axes.margins()
    for width, classes in HIDDEN.items():
        plot = width - left - right
        shown = sorted(x for x, kind, _ in texts if kind not in classes)
        assert axes.places[-1] == pytest.approx(shown[-1], rel=1e-3)
        needed = max(text_width(text) for _, _, text in texts)
        for a, b in itertools.pairwise(shown):
            assert (b - a) / 100 * plot >= needed
    assert max(text_width(text) for *_, text in texts) <= 110
    # Neither end of the axis leaves the chart.
    assert min(left, right) >= max(text_width(text) for *_, text in texts) / 2


# --- all charts


def of_every_kind(names: Sequence[str], values: Sequence[Any]) -> list[Figure]:
    count = len(names)
    series = [Series(name, values[:count], unfinished={count - 1}) for name in names]
    rates = [
        Series(name, [None if value is None else abs(value) % 1 for value in values[:count]])
        for name in names
    ]
    bars = bars_of(*(abs(int(value or 0)) for value in values[:count])) if count else []
    title = names[0] if names else ""
    return [
        LineChart(title, names, series, above=title, below=title),
        LineChart(title, names, rates, rates=True),
        BarChart(title, names, series, above=title, below=title),
        BarChart(title, names, series[:1]),
        FunnelBars(title, names, [FunnelGroup("", bars)] if bars else []),
        FunnelBars(title, names, [FunnelGroup(name, bars) for name in names]),
    ]


@given(
    st.lists(NAMES, max_size=8),
    st.lists(st.none() | st.integers(-(10**13), 10**13), min_size=8, max_size=8),
)
@example([HOSTILE, TURNED], [1, 2, None, 0, 0, 0, 0, 0])
@example(["a"], [0] * 8)
def test_charts_are_well_formed_whatever_the_names(names: list[str], values: list[Any]) -> None:
    for figure in of_every_kind(names, values):
        drawn = image(figure)
        assert drawn.findtext("title", "").strip("\u2068\u2069 ") or not figure.title.strip()
        assert drawn.findtext("desc")
        assert not list(parsed(figure).iter("script"))
        for element in parsed(figure).iter():
            assert not set(element.keys()) & {"id", "href", "onclick"}  # parts of any page
            assert "nan" not in (element.get("d") or "")
            assert float((element.get("height") or "0").rstrip("%")) >= 0


def test_names_do_not_turn_what_is_beside_them() -> None:
    for figure in of_every_kind([f"{TURNED}1", "b\u202e"], [1, 2]):
        if isinstance(figure, FunnelBars):
            continue
        html = figure.html()
        assert html.count(f"\u2068{TURNED}1\u2069") > 2
        assert "<title>b\u202e" not in html


@pytest.mark.parametrize(
    "figure",
    [
        LineChart("Trend", [], []),
        LineChart("Trend", ["a"], []),
        BarChart("Trend", [], [Series("a", [])]),
        FunnelBars("Trend", ["a"], []),
        FunnelBars("Trend", [], [FunnelGroup("a", [])]),
    ],
)
def test_charts_without_numbers_say_so(figure: Figure) -> None:
    assert description(figure) == "No numbers."
    assert image(figure).findtext("g/text") == "No numbers"
    assert cells(figure) == []


def test_several_figures_share_their_style() -> None:
    chart = LineChart("One", ["a", "b"], [Series("x", [1, 2])])
    page = Page("Title", "Caption.", [chart, chart._replace(title="Two")]).fragment()
    assert page.count(".tallymark .chart {") == 1
    assert "<figcaption>One</figcaption>" in page
    assert "<figcaption>Two</figcaption>" in page
    assert "figcaption>" not in Page("Title", "Caption.", [chart]).fragment()


# --- lines


def paths(figure: Figure, kind: str) -> list[str]:
    return [path.get("d", "") for path in image(figure).iter("path") if path.get("class") == kind]


def test_lines_have_gaps_and_dotted_ends() -> None:
    series = Series("DAU", [0, 10, None, 10, 5, None, 5, None, 10, 0], unfinished={9})
    chart = LineChart("Trend", [str(at) for at in range(10)], [series], below="Day")
    (line,) = paths(chart, "line")
    (dashed,) = paths(chart, "line dashed")
    assert line == "M0 220.0L111.111 0.0M333.333 0.0L444.444 110.0"
    assert dashed == "M888.889 0.0L1000 220.0"
    hollow = [path for path in image(chart).iter("path") if path.get("class") == "hollow"]
    assert [path.findtext("title") for path in hollow] == ["DAU, 9: 0 so far"]
    # The point between two gaps has no line, and can be seen.
    assert [path.findtext("title") for path in image(chart).iter("path")][-4] == "DAU, 4: 5"
    assert cells(chart) == [
        ["Day", "DAU"],
        *([str(at), grouped(series.values[at])] for at in range(9)),
        ["9", "0 so far"],
    ]


def test_the_description_has_the_numbers_that_matter() -> None:
    few = LineChart("T", ["a", "b"], [Series("X", [1200, None]), Series("Y", [None, None])])
    assert description(few) == "X: 1,200 (a). Y: no numbers."
    many = LineChart(
        "T", [str(at) for at in range(20)], [Series("X", [at / 20 for at in range(20)])], rates=True
    )
    assert description(many) == ("X: from 0% (0) to 95.0% (19), lowest 0% (0), highest 95.0% (19).")


def test_lines_differ_by_more_than_colour() -> None:
    names = [f"series {at}" for at in range(20)]
    chart = LineChart("T", ["a", "b"], [Series(name, [at, at]) for at, name in enumerate(names)])
    looks = {
        (sample.get("class"), path.get("d"))
        for item in parsed(chart).iter("li")
        for sample in item.iterfind(".//svg/svg")
        for path in sample.iter("path")
    }
    assert len(looks) == 20
    assert len({colour for colour, _ in looks}) == COLOURS
    assert [item.findtext("span") for item in parsed(chart).iter("li")] == names


def test_a_long_line_has_few_markers() -> None:
    labels = [str(at) for at in range(400)]
    one = LineChart("T", labels, [Series("X", range(400))])
    assert paths(one, "fill") == []
    three = LineChart("T", labels, [Series(name, range(400)) for name in "XYZ"])
    markers = [path.findtext("title") or "" for path in image(three).iter("path")]
    places = [text.split(":")[0].split(", ")[1] for text in markers if text]
    assert 20 <= len(places) <= 30
    assert len(set(places)) == len(places)
    assert len(cells(three)) == 401
    assert "<details>" in three.html()
    assert "<details open>" in LineChart("T", labels[:6], [Series("X", range(6))]).html()


# --- bars


def rectangles(figure: Figure) -> list[Any]:
    return [
        (
            (each.get("class") or "").split()[-1],
            float(each.get("y", "0")),
            float(each.get("height", "0")),
        )
        for each in image(figure).iter("rect")
    ]


def test_bars_stand_upon_each_other_and_hang_below_the_axis() -> None:
    chart = BarChart(
        "Lifecycle",
        ["w1", "w2"],
        [Series("A", [100, 50]), Series("B", [100, None]), Series("Gone", [-100, 0])],
        below="Week",
    )
    zero = HEIGHT * 2 / 3
    assert rectangles(chart) == [
        ("c0", pytest.approx(zero / 2, abs=0.01), pytest.approx(zero / 2, abs=0.01)),
        ("c1", 0, pytest.approx(zero / 2 - 1, abs=0.01)),
        ("c2", pytest.approx(zero, abs=0.01), pytest.approx(zero / 2, abs=0.01)),
        ("c0", pytest.approx(zero * 3 / 4, abs=0.01), pytest.approx(zero / 4, abs=0.01)),
    ]
    assert cells(chart) == [
        ["Week", "A", "B", "Gone"],
        ["w1", "100", "100", "\N{MINUS SIGN}100"],
        ["w2", "50", "\N{EN DASH}", "0"],
    ]
    assert description(chart) == (
        "A: 100 (w1), 50 (w2). B: 100 (w1). Gone: \N{MINUS SIGN}100 (w1), 0 (w2)."
    )


def counts_above(figure: Figure) -> list[tuple[str, str | None]]:
    return [
        ((text.get("class") or ""), text.text)
        for text in image(figure).iter("text")
        if (text.get("class") or "").startswith("count")
    ]


def test_histograms_have_their_numbers_above() -> None:
    few = BarChart("Days", ["1", "2"], [Series("Users", [1234, 0])])
    assert counts_above(few) == [("count medium", "1.23k"), ("count medium", "0")]
    many = BarChart("Days", [str(at) for at in range(28)], [Series("Users", [1234] * 28)])
    assert set(counts_above(many)) == {("count full", "1.2k")}
    crowded = BarChart("Days", [str(at) for at in range(99)], [Series("Users", [1234] * 99)])
    assert counts_above(crowded) == []
    stacked = BarChart("Days", ["1"], [Series("A", [1]), Series("B", [2])])
    assert counts_above(stacked) == []


# --- funnels


def test_funnel_bars() -> None:
    chart = FunnelBars(
        "Funnel", ["visit", "buy", "return"], [FunnelGroup("", bars_of(1200, 300, 0))]
    )
    assert [each.get("width") for each in image(chart).iter("rect")] == [
        *("100%", "100%", "100%", "25%", "100%", "0%"),
    ]
    texts = ["".join(text.itertext()) for text in image(chart).iter("text")]
    assert texts == [
        *("1. visit", "1,200 · 100%", "2. buy", "300 · 25.0%"),
        "25.0% of the previous step, median time 2 days",
        *("3. return", "0 · 0%", "0% of the previous step, median time 3 days"),
    ]
    assert description(chart) == "visit 1,200 (100%), buy 300 (25.0%), return 0 (0%)."
    assert cells(chart)[:3] == [
        ["Step", "Users", "Of first", "Of previous", "Median time"],
        ["visit", "1,200", "100%", "100%", ""],
        ["buy", "300", "25.0%", "25.0%", "2 days"],
    ]


def test_funnel_bars_of_groups() -> None:
    groups = [FunnelGroup("iOS", bars_of(10, 5)), FunnelGroup("web", bars_of(0, 0))]
    chart = FunnelBars("Funnel", ["visit", "buy"], groups)
    assert description(chart) == (
        "iOS: visit 10 (100%), buy 5 (50.0%). web: visit 0 (\N{EN DASH}), buy 0 (\N{EN DASH})."
    )
    assert cells(chart)[1:3] == [
        ["visit", "iOS", "10", "100%", "100%", ""],
        ["visit", "web", "0", "\N{EN DASH}", "\N{EN DASH}", ""],
    ]
    long = FunnelBars("Funnel", ["a" * 500], [FunnelGroup("b" * 500, bars_of(1))] * 2)
    texts = [(text.get("class"), text.text or "") for text in image(long).iter("text")]
    assert [kind for kind, _ in texts[:2]] == ["step narrow", "step medium"]
    assert all(text.endswith("…") for kind, text in texts if kind != "users")
    assert len(texts[0][1]) < len(texts[1][1]) < 100


# --- tables


def test_tables() -> None:
    table = Table(f"{TURNED}<", ["Step", "Group", "Users"], [["<a>", HOSTILE, "1,000"]], names=2)
    assert cells(table)[1][0] == "<a>"
    assert re.findall(r"<t[hd]( [^>]*)>", table.html())[1] == ' scope="col" class="name"'
    region = parsed(table).find("div")
    assert region is not None
    assert region.attrib == {
        "class": "scroll",
        "tabindex": "0",
        "role": "region",
        "aria-label": f"\u2068{TURNED}<\u2069",
    }


def test_names_on_heat_maps_are_escaped() -> None:
    row = HeatRow("<i>", 1, [HeatCell(None, "<why>", "<x>")])
    heat_map = HeatMap("<t>", "<c>", ["<0>"], [row], ["<note>"])
    assert cells(heat_map) == [["<c>", "Users", "<0>"], ["<i>", "1", "<x>"]]
