"""Take the pictures of the docs: `nox -s browser -- --picture`.

    python tests/browser/picture.py PAGES PICTURES

takes a picture of each HTML page in the folder PAGES, as a PNG of the same name.
"""

from __future__ import annotations

import sys
from pathlib import Path

from chromium import running


def take(pages: Path, pictures: Path) -> None:
    """Save a screenshot of each page of a folder."""
    pictures.mkdir(exist_ok=True)
    with running() as browser:
        shown = browser.new_page(viewport={"width": 1060, "height": 300}, color_scheme="light")
        for page in sorted(pages.glob("*.html")):
            shown.goto(page.resolve().as_uri())
            shown.screenshot(path=pictures / f"{page.stem}.png", full_page=True)


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))
