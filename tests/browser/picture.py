"""Take the README's picture: `nox -s browser -- --picture`."""

from __future__ import annotations

import sys
from pathlib import Path

from chromium import running


def take(page: Path, picture: Path) -> None:
    """Save a screenshot of a page."""
    with running() as browser:
        shown = browser.new_page(viewport={"width": 1060, "height": 620}, color_scheme="light")
        shown.goto(page.resolve().as_uri())
        shown.screenshot(path=picture, full_page=True)


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))
