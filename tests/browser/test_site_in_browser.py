"""The documentation in a real browser: light and dark, on a desk and on a phone.

`nox -s browser` builds it.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chromium import running
from questions import ANSWERS, QUESTIONS, answered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

SITE = Path(os.environ["TALLYMARK_SITE"])
ADDRESSES = sorted(
    path.relative_to(SITE).as_posix()
    for path in SITE.rglob("*.html")
    if "_static" not in path.parts
)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without writing a log."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Write nothing."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """Serve the site as any web server does; yield its address."""
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(params=[("light", 1400), ("dark", 390)], ids=["light desk", "dark phone"])
def page(request: pytest.FixtureRequest, browser: Browser, host: str) -> Iterator[Page]:
    """Yield an empty page, and fail if it complains or asks any other host."""
    scheme: Any
    scheme, width = request.param
    shown = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    said: list[str] = []

    def answer(route: Any) -> None:
        asked.append(route.request.url)
        if route.request.url.startswith((host, "data:")):
            route.continue_()
        else:
            route.abort()

    shown.route("**/*", answer)
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    yield shown
    assert asked
    assert [url for url in asked if not url.startswith((host, "data:"))] == []
    assert said == []
    shown.close()


def test_every_page_fits_and_asks_no_other_host(page: Page, host: str) -> None:
    """Wide tables and blocks of code scroll by themselves."""
    assert len(ADDRESSES) > 20
    for address in ADDRESSES:
        page.goto(host + address)
        width = page.evaluate("document.documentElement.clientWidth")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
        assert page.locator("h1").count() >= 1, address


def test_pictures_are_there(page: Page, host: str) -> None:
    for address in ADDRESSES:
        if "<img" in (SITE / address).read_text(encoding="utf-8"):
            page.goto(host + address)
            sizes = page.evaluate("[...document.images].map(image => image.naturalWidth)")
            assert all(sizes), address


def search(page: Page) -> list[str]:
    """Return the addresses of the results that a search page shows."""
    links = page.locator("#site-results a")
    return [str(link.get_attribute("href")) for link in links.all()]


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_search_answers_within_three_results(page: Page, host: str, answer: str) -> None:
    page.goto(f"{host}search.html?q={QUESTIONS[answer][0]}")
    field = page.locator("#site-search")
    assert field.input_value() == QUESTIONS[answer][0]
    for question in QUESTIONS[answer]:
        field.fill(question)
        found = [re.sub(r"^(\./)?", "", address) for address in search(page)]
        assert answered(answer, found), (question, found[:3])


def test_a_reader_searches_from_any_page_and_follows_a_result(page: Page, host: str) -> None:
    page.goto(f"{host}reference/tally.html")
    if page.viewport_size is not None and page.viewport_size["width"] < 1000:
        page.locator("label.nav-overlay-icon").first.click()
    page.locator(".sidebar-search").fill("delete_before")
    page.locator(".sidebar-search").press("Enter")
    page.wait_for_url("**/search.html?q=delete_before*")
    link = page.locator("#site-results a", has_text="Tally.delete_before").first
    link.click()
    page.wait_for_url("**/reference/tally.html#tallymark.Tally.delete_before")
    assert page.locator(":target").is_visible()


def test_the_search_says_that_it_found_nothing_and_keeps_its_address(page: Page, host: str) -> None:
    page.goto(f"{host}search.html?q=constructor")
    assert search(page)
    page.locator("#site-search").fill("xyzzy")
    assert page.locator("#site-status").inner_text().startswith("Nothing found")
    assert page.url == f"{host}search.html?q=xyzzy"
    page.locator("#site-search").fill("backup")
    assert page.locator("#site-status").inner_text() == ""
    assert page.locator("#site-results mark").count() > 0


def test_keys_reach_what_is_visible_and_open_the_menu(page: Page, host: str) -> None:
    page.goto(f"{host}how-to/doctor.html")
    desk = page.viewport_size is not None and page.viewport_size["width"] > 1000
    if not desk:
        focus = "document.activeElement.id"
        page.keyboard.press("Tab")
        assert page.evaluate(focus) == "__navigation"
        page.keyboard.press("Space")
        page.wait_for_function("document.querySelector('.sidebar-drawer').offsetLeft >= 0")
        assert page.locator(".sidebar-search").is_visible()
        page.keyboard.press("Space")
        page.wait_for_function("document.querySelector('.sidebar-drawer').offsetLeft < 0")
    for _ in range(30):
        page.keyboard.press("Tab")
        name, left, right = page.evaluate("""(() => {
          const box = document.activeElement.getBoundingClientRect();
          return [document.activeElement.outerHTML.slice(0, 80), box.left, box.right];
        })()""")
        assert right > 0, name
        assert left < page.evaluate("innerWidth"), name


def test_the_focus_of_the_search_field_is_seen(page: Page, host: str) -> None:
    page.goto(f"{host}search.html")
    for field in ("#site-search", ".sidebar-search"):
        page.locator(field).evaluate(
            "node => { node.closest('form').style.visibility = 'visible' }"
        )
        page.locator(field).focus()
        assert (
            page.locator(field).evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
        )


def test_pictures_are_dark_in_dark_mode(page: Page, host: str) -> None:
    page.goto(f"{host}index.html")
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    filters = page.locator("article img").evaluate_all(
        "images => images.map(image => getComputedStyle(image).filter)"
    )
    assert filters
    assert all(("invert" in found) == dark for found in filters)


def test_the_search_works_without_a_server(browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{(SITE / 'search.html').as_uri()}?q=backup")
    assert any("backup" in address for address in search(page)[:3])
    page.close()


def test_what_is_searched_for_is_never_read_as_html(page: Page, host: str) -> None:
    page.goto(f"{host}search.html?q=<img src=x onerror=alert(1)>")
    assert page.locator("#site-search").input_value() == "<img src=x onerror=alert(1)>"
    assert page.locator("#site-results img").count() == 0
