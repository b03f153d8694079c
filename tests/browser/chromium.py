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
