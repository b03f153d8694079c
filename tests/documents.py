"""README.md and the pages of docs, by their paths, and their blocks of code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}

#: The URL that stands for the reader's own Redis.
READERS_URL = "redis://localhost:6379/0"


def fences(document: str) -> list[Token]:
    """Return the blocks of code of a document."""
    return [token for token in MarkdownIt().parse(document) if token.type == "fence"]
