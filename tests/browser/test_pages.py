"""The retention page in a real browser: `nox -s browser` runs these.

At a desk's and at a phone's width, in light and in dark.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chromium import CONTRASTS, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "retention.py"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "retention.html"
    subprocess.run([sys.executable, str(EXAMPLE), str(path)], check=True, capture_output=True)
    return path


@pytest.fixture(params=[1100, 400], ids=["desk", "phone"])
def width(request: pytest.FixtureRequest) -> int:
    wide: int = request.param
    return wide


@pytest.fixture(params=["light", "dark"])
def page(
    request: pytest.FixtureRequest, browser: Browser, written: Path, width: int
) -> Iterator[Page]:
    """Yield the page, and fail if it complains or asks for anything else."""
    scheme: Any = request.param
    shown = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    asked: list[str] = []
    said: list[str] = []
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.goto(written.as_uri())
    yield shown
    assert asked == [written.as_uri()]
    assert said == []
    shown.close()


def test_the_page_fits_and_only_the_table_scrolls(page: Page, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    table = page.locator(".scroll").first
    inner, outer = table.evaluate("node => [node.scrollWidth, node.clientWidth]")
    assert (inner > outer) == (width == 400)
    assert page.locator(".heatmap tbody tr").count() == 14
    assert page.locator("td").first.inner_text() == "9,809"
    for row in page.locator(".heatmap tbody tr").all():
        assert row.bounding_box() is not None


def test_the_names_of_the_rows_stay_in_sight(page: Page, width: int) -> None:
    name = page.locator(".heatmap tbody th").nth(3)
    before = name.bounding_box()
    page.locator(".scroll").first.evaluate("node => { node.scrollLeft = 300; }")
    after = name.bounding_box()
    assert before is not None
    assert after is not None
    assert abs(before["x"] - after["x"]) <= 3
    # And nothing shows through.
    on_top = name.evaluate(
        """node => {
          const box = node.getBoundingClientRect();
          const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
          return document.elementFromPoint(x, y) === node;
        }"""
    )
    assert on_top


def test_all_text_can_be_read(page: Page) -> None:
    # Also on the shades that no cell of this page has.
    page.evaluate("document.querySelectorAll('.legend span').forEach(n => n.textContent = 'x')")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 150
    assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == []


def test_the_scheme_is_followed(page: Page) -> None:
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    colour = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert colour == ("rgb(18, 23, 29)" if dark else "rgb(255, 255, 255)")


def test_stronger_rates_have_stronger_colours(page: Page) -> None:
    """Each class of the legend differs from the one before, away from the page's colour."""
    shades = page.evaluate(
        """[...document.querySelectorAll(".legend span")].map(node =>
        getComputedStyle(node).backgroundColor.match(/\\d+/g).map(Number))"""
    )
    assert len(shades) == 11
    paper = page.evaluate(
        """getComputedStyle(document.querySelector(".tallymark"))
        .backgroundColor.match(/\\d+/g).map(Number)"""
    )
    distances = [sum(abs(a - b) for a, b in zip(shade, paper, strict=True)) for shade in shades]
    assert distances == sorted(distances)
    assert len(set(distances)) == 11
