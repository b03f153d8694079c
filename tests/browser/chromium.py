"""Finds and runs a real browser for the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

HOW_TO_GET_ONE = """\
The browser tests need Chromium, and found none. Any of these will do:
  - install chromium or google-chrome, so that it is on PATH (Debian: apt-get install chromium)
  - set TALLYMARK_TEST_BROWSER to the path of one
"""

#: For all cells and words: the contrast of the text to what is behind it, as WCAG 2.2
#: defines it (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio).
CONTRASTS = """() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3)
    .map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = numbers(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const nodes = [...document.querySelectorAll("h1, p, th, td, li, span, summary, figcaption")];
  return nodes.filter(node => node.innerText && node.checkVisibility()).map(node => {
    const [a, b] = [light(numbers(getComputedStyle(node).color)), light(behind(node))];
    return [node.innerText, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  });
}"""


def executable() -> str:
    """Return the path of a browser, or fail and say how to get one."""
    given = os.environ.get("TALLYMARK_TEST_BROWSER")
    if given:
        return given
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if found := shutil.which(name):
            return found
    raise RuntimeError(HOW_TO_GET_ONE)


@contextlib.contextmanager
def running() -> Iterator[Browser]:
    """Run the browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable(),
            args=["--no-sandbox"],  # which does not work for root, as CI often is
        )
        try:
            yield browser
        finally:
            browser.close()
