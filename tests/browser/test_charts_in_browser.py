"""Each kind of chart in a real browser: `nox -s browser` runs these.

At a phone's and at a desk's width, in light and in dark.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chart_samples import FIGURES, page_of
from chromium import CONTRASTS, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

#: The boxes of all visible text, each with its text: SVG's, and HTML's by line.
BOXES = """() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const parent = node.parentElement;
    if (!node.data.trim() || parent.closest("style, title, desc, .scroll")) continue;
    if (!parent.checkVisibility({visibilityProperty: true, contentVisibilityAuto: true})) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects())
      if (box.width > 0) found.push([node.data, box.left, box.top, box.right, box.bottom]);
  }
  return found;
}"""

#: The contrast of all that is drawn to the page behind, except lines that only help the eye.
DRAWN = """() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3)
    .map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const paper = light(numbers(
    getComputedStyle(document.querySelector(".tallymark")).backgroundColor));
  const shapes = [...document.querySelectorAll(".fill, .line, .hollow, .zero, svg text")];
  return shapes.filter(node => node.checkVisibility()).map(node => {
    const style = getComputedStyle(node);
    const own = node.matches(".fill, text") ? style.fill : style.stroke;
    const ink = light(numbers(own));
    const kind = node.matches("text") ? "text" : "shape";
    return [kind, (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)];
  });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running() as found:
        yield found


@pytest.fixture
def width() -> int:
    return 1280


@pytest.fixture
def scheme() -> str:
    return "light"


@pytest.fixture
def page(browser: Browser, width: int, scheme: Any) -> Iterator[Page]:
    """Yield an empty page, and fail if it complains or asks for anything."""
    shown = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    asked: list[str] = []
    said: list[str] = []
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    yield shown
    assert asked == []
    assert said == []
    shown.close()


def check_layout(page: Page, width: int) -> None:
    """Check that nothing leaves the page, and that no text overlaps another."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.evaluate(BOXES)
    assert len(boxes) >= 3
    for text, left, _, right, _ in boxes:
        assert left >= 0, text
        assert right <= width, text
    boxes.sort(key=lambda box: box[2])
    for at, (text, left, top, right, bottom) in enumerate(boxes):
        for other, left2, top2, right2, bottom2 in boxes[at + 1 :]:
            if top2 >= bottom - 1:
                break
            apart = right <= left2 + 0.5 or right2 <= left + 0.5 or bottom2 <= top + 1
            assert apart, (text, other)


#: Writes a page for each kind of report.
EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "reports.py"

AT_BOTH_WIDTHS = pytest.mark.parametrize("width", [1280, 360], ids=["desk", "phone"])
IN_BOTH_SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])
EACH = pytest.mark.parametrize("name", FIGURES)


@EACH
@AT_BOTH_WIDTHS
def test_nothing_leaves_the_page_and_no_text_overlaps(page: Page, width: int, name: str) -> None:
    page.set_content(page_of(FIGURES[name]))
    assert page.title() == "Charts"
    check_layout(page, width)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    subprocess.run([sys.executable, str(EXAMPLE), str(folder)], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", ["lifecycle", "days-active", "funnel", "trend", "streaks"])
@AT_BOTH_WIDTHS
@IN_BOTH_SCHEMES
def test_real_reports(page: Page, written: Path, width: int, name: str) -> None:
    page.set_content((written / f"{name}.html").read_text(encoding="utf-8"))
    check_layout(page, width)
    assert page.locator("svg[role=img]").count() >= 1
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert [text for text, ratio in page.evaluate(CONTRASTS) if ratio < 4.5] == []


@EACH
@IN_BOTH_SCHEMES
def test_everything_can_be_seen(page: Page, name: str) -> None:
    page.set_content(page_of(FIGURES[name]))
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    texts = page.evaluate(CONTRASTS)
    assert [(text, ratio) for text, ratio in texts if ratio < 4.5] == []
    drawn = page.evaluate(DRAWN)
    assert [ratio for kind, ratio in drawn if ratio < (4.5 if kind == "text" else 3)] == []
    assert drawn or name in {"heat map", "table"}


@EACH
def test_every_chart_has_a_name_and_its_numbers(page: Page, name: str) -> None:
    page.set_content(page_of(FIGURES[name]))
    if name in {"heat map", "table"}:
        assert page.get_by_role("region").count() == 1
        return
    tree = page.locator("figure").aria_snapshot()
    image = page.get_by_role("img")
    assert image.count() == 1
    title = FIGURES[name].title
    assert page.get_by_role("img", name=title).count() == 1, tree
    assert image.locator("> desc").text_content()
    if name == "empty":
        return
    summary = page.get_by_text("Table of the numbers")
    opened = page.locator("details").evaluate("node => node.open")
    rows = page.get_by_role("row")
    if not opened:
        assert rows.count() == 0
        summary.press("Enter")  # by the keyboard
    assert rows.count() > 1
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")


@AT_BOTH_WIDTHS
def test_wide_charts_show_more_labels(page: Page, width: int) -> None:
    page.set_content(page_of(FIGURES["trend"], FIGURES["days active"]))
    shown = page.locator("svg[role=img] text").evaluate_all(
        "nodes => nodes.filter(node => node.checkVisibility()).map(node => node.textContent)"
    )
    days = [text for text in shown if text.startswith("2026-")]
    assert len(days) > (8 if width == 1280 else 1)
    assert len(days) < (14 if width == 1280 else 5)
    assert days[0] == "2026-11-17"  # the latest
    counts = page.locator("text.count").evaluate_all(
        "nodes => nodes.filter(node => node.checkVisibility()).length"
    )
    assert counts == (28 if width == 1280 else 0)


def test_bars_are_as_long_as_their_numbers(page: Page) -> None:
    page.set_content(page_of(FIGURES["days active"], FIGURES["funnel"]))
    heights = page.locator("figure:nth-of-type(1) rect.fill").evaluate_all(
        "nodes => nodes.map(node => node.getBoundingClientRect().height)"
    )
    assert len(heights) == 28
    assert heights[0] / heights[1] == pytest.approx(40_000 / 18_661, rel=0.05)
    wide = page.locator("figure:nth-of-type(2) rect.fill").evaluate_all(
        "nodes => nodes.map(node => node.getBoundingClientRect().width)"
    )
    assert wide[1] / wide[0] == pytest.approx(5_020 / 12_034, rel=0.01)


@AT_BOTH_WIDTHS
def test_lines_end_at_the_edges_of_the_plot(page: Page) -> None:
    """Though they are stretched, and the markers are not."""
    page.set_content(page_of(FIGURES["curve"]))
    plot = page.locator("svg[role=img]").bounding_box()
    assert plot is not None
    for index in range(3):
        markers = page.locator(f"svg[role=img] svg.c{index} > path.fill").evaluate_all(
            """nodes => nodes.map(node => {
              const box = node.getBoundingClientRect();
              return [box.x + box.width / 2, box.width / box.height];
            })"""
        )
        (first, *_) = markers
        assert abs(first[0] - plot["x"]) <= 1.5
        assert index or first[1] == pytest.approx(1, abs=0.1)  # a circle
    line = page.locator("svg[role=img] path.line").first.evaluate(
        "node => { const box = node.getBoundingClientRect(); return [box.left, box.top]; }"
    )
    assert abs(line[0] - plot["x"]) <= 2
    assert abs(line[1] - plot["y"]) <= 2
    dashed = page.locator("svg[role=img] path.dashed").first.evaluate(
        "node => node.getBoundingClientRect().right"
    )
    assert abs(dashed - plot["x"] - plot["width"]) <= 2


@AT_BOTH_WIDTHS
def test_several_fragments_live_on_one_page(page: Page, width: int) -> None:
    """Whatever the page's own style; also in a column that is narrow on a wide screen."""
    from tallymark._charts.page import Page as Report

    fragments = [
        Report("One", "Caption.", [FIGURES["trend"]]).fragment(),
        Report("Two", "Caption.", [FIGURES["funnel"], FIGURES["heat map"]]).fragment(),
    ]
    page.set_content(
        "<!DOCTYPE html><style>body { direction: rtl; font: 20px serif } p { color: #eee }</style>"
        f"<p id=own>own</p><div style='width: 320px'>{fragments[0]}</div>{fragments[1]}"
    )
    own = page.locator("#own").evaluate(
        "node => [getComputedStyle(node).fontSize, getComputedStyle(node).color]"
    )
    assert own == ["20px", "rgb(238, 238, 238)"]
    days = (
        page.locator("svg[role=img]")
        .first.locator("text")
        .evaluate_all(
            """nodes => nodes.filter(node => node.checkVisibility()).map(node => node.textContent)
        .filter(text => text.startsWith("2026-"))"""
        )
    )
    assert len(days) < 5
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    directions = page.locator(".tallymark").evaluate_all(
        "nodes => nodes.map(node => getComputedStyle(node).direction)"
    )
    assert directions == ["ltr", "ltr"]
