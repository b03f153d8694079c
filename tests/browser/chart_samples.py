"""Charts with plausible numbers and with extreme ones, for the browser tests."""

from __future__ import annotations

import math
import random
from datetime import date, timedelta
from typing import TYPE_CHECKING

from tallymark._charts.bars import BarChart
from tallymark._charts.drawing import Series
from tallymark._charts.funnels import FunnelBar, FunnelBars, FunnelGroup
from tallymark._charts.heatmap import HeatCell, HeatMap, HeatRow
from tallymark._charts.lines import LineChart
from tallymark._charts.page import Page
from tallymark._charts.tables import Table

if TYPE_CHECKING:
    from tallymark._charts.page import Figure

__all__ = ["FIGURES", "page_of"]

FIRST = date(2026, 8, 20)
LONG = "sign-up form, the one with the very long name that goes on and on and never seems to end"
HOSTILE = '</text></svg><script>document.title = "hacked"</script>'
TURNED = "\u05d4\u05e8\u05e9\u05de\u05d4 \u05dc\u05d0\u05ea\u05e8"
CHANCE = random.Random(3)


def dates(count: int) -> list[str]:
    return [str(FIRST + timedelta(days=at)) for at in range(count)]


def weekly(count: int, level: float) -> list[int]:
    """Return numbers of users by day, with weekends."""
    return [
        round(
            level * (1 + 0.15 * math.sin(at / 20) + at / 600) * (0.7 if at % 7 > 4 else 1)
            + CHANCE.gauss(0, level / 40)
        )
        for at in range(count)
    ]


def steps(*counts: int) -> list[FunnelBar]:
    return [
        FunnelBar(
            count,
            count / counts[0] if counts[0] else None,
            count / counts[max(0, at - 1)] if counts[max(0, at - 1)] else None,
            "" if at == 0 else f"{at + 1} days",
        )
        for at, count in enumerate(counts)
    ]


WEEKS = [f"2026-W{week}" for week in range(36, 48)]
TREND = LineChart(
    "Active users",
    dates(90),
    [
        Series("Daily", weekly(90, 4000)),
        Series("Last 7 days", [9000 + 12 * at + CHANCE.randrange(300) for at in range(90)]),
        Series("Last 28 days", [15000 + 40 * at for at in range(90)]),
    ],
    above="Users",
    below="Day",
)
LIFECYCLE = BarChart(
    "Lifecycle",
    WEEKS,
    [
        Series("Returning", [700 + 30 * at + CHANCE.randrange(90) for at in range(12)]),
        Series("Resurrected", [80 + CHANCE.randrange(60) for _ in WEEKS]),
        Series("New", [250 + CHANCE.randrange(150) for _ in WEEKS]),
        Series("Dormant", [-250 - CHANCE.randrange(120) for _ in WEEKS]),
    ],
    above="Users",
    below="Week",
)
FUNNEL = FunnelBars(
    "Funnel",
    ["Visited", "Signed up", "Made a project", "Paid"],
    [FunnelGroup("", steps(12_034, 5_020, 2_400, 310))],
)
DAYS_ACTIVE = BarChart(
    "Days active",
    [str(days) for days in range(1, 29)],
    [
        Series(
            "Users", [round(40_000 / days**1.1) + 900 * max(0, days - 22) for days in range(1, 29)]
        )
    ],
    above="Users",
    below="Days with activity, of 28",
)
COLUMNS = [str(week) for week in range(13)]
CURVE = LineChart(
    "Retention curve",
    COLUMNS,
    [
        Series(name, [1 / (1 + week) ** power for week in range(13)], unfinished={12})
        for name, power in (("All users", 0.7), ("iOS", 0.55), ("Web", 0.95))
    ],
    rates=True,
    above="Share of the users of all cohorts",
    below="Weeks later",
)
TABLE = HeatMap(
    "Retention by cohort",
    "Week",
    COLUMNS,
    [
        HeatRow(
            name,
            1000 - at,
            [HeatCell(1 / (1 + week) ** 0.8, "why") for week in range(13 - at)]
            + [HeatCell(None, "why")] * at,
        )
        for at, name in enumerate(["All", *WEEKS])
    ],
    ["empty: in the future"],
)

FIGURES: dict[str, Figure] = {
    "trend": TREND,
    "lifecycle": LIFECYCLE,
    "funnel": FUNNEL,
    "days active": DAYS_ACTIVE,
    "curve": CURVE,
    "heat map": TABLE,
    "table": Table(LONG, ["Name", "Group", "Users"], [[LONG, HOSTILE, "1,000"]] * 3, names=2),
    "400 days": LineChart(
        "400 days",
        dates(400),
        [Series(name, weekly(400, 1_200_000 * (at + 1))) for at, name in enumerate("ABC")],
        above="Users",
    ),
    "400 bars": BarChart("400 bars", dates(400), [Series("Users", weekly(400, 9_000_000))]),
    "twenty lines": LineChart(
        "Twenty lines",
        dates(10),
        [Series(f"Segment {at}", weekly(10, 100 * (at + 1))) for at in range(20)],
    ),
    "gaps": LineChart("Gaps", dates(9), [Series("A", [1, 2, None, 3, None, None, 4, 1, None])]),
    "one point": LineChart("One point", ["2026-11-26"], [Series("A", [3], unfinished={0})]),
    "one bar": BarChart("One bar", ["2026-11-26"], [Series("Users", [1_234_567])]),
    "zeros": LineChart("Zeros", dates(9), [Series("A", [0] * 9)]),
    "no rates": LineChart("No rates", dates(9), [Series("A", [None] * 9)], rates=True),
    "zero bars": BarChart("Zero bars", WEEKS, [Series("A", [0] * 12)]),
    "only below": BarChart("Only below", WEEKS, [Series("A", [-(10**13)] * 12)]),
    "empty": LineChart("Empty", [], []),
    "names": LineChart(
        HOSTILE, [LONG, TURNED, HOSTILE], [Series(each, [3, 1, 2]) for each in (LONG, TURNED)]
    ),
    "named bars": BarChart(
        LONG,
        [LONG, TURNED, HOSTILE, "\u6f22\u5b57" * 20],
        [Series(each, [3, 1, 2, 4]) for each in (LONG, TURNED, HOSTILE)],
    ),
    "named funnel": FunnelBars(
        TURNED, [LONG, TURNED, HOSTILE], [FunnelGroup("", steps(10**12, 10**9, 1))]
    ),
    "grouped funnel": FunnelBars(
        "Grouped funnel",
        ["Visited", LONG, "Paid"],
        [
            FunnelGroup("iOS", steps(12_034, 5_020, 310)),
            FunnelGroup(TURNED, steps(8_000, 3_300, 0)),
            FunnelGroup(LONG, steps(0, 0, 0)),
            FunnelGroup("W" * 60, steps(10**13, 10**12, 10**11)),
        ],
    ),
}


def page_of(*figures: Figure) -> str:
    """Return a page with figures and a warning."""
    warning = f"Nobody was ever marked for “{LONG}”: is the name spelt correctly?"
    return Page("Charts", "What the charts show, in a sentence.", figures, [warning]).page()
