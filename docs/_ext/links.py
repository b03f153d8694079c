"""Links that work in a checkout also work on the site, though some of their targets are elsewhere.

The pages link to files as a checkout has them: ``../README.md``, ``../../examples/x.py``. The
README is the site's first page; the changelog and CONTRIBUTING.md are pages too; the examples
share one page, which is made here of the files.

The lists of the first page, a section for each purpose, are also the table of contents.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["setup"]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = "examples"

#: The page that each file outside of docs is on.
PAGES = {
    "README.md": "docs/index.md",
    "CHANGELOG.md": "docs/changelog.md",
    "CONTRIBUTING.md": "docs/contributing.md",
    "SECURITY.md": "docs/security.md",
}
_INCLUDE = re.compile(r"^```\{include\} \.\./(\w+\.md)\n```\n", re.MULTILINE)
_LIST = re.compile(r"^## (.+)\n\n((?:- \[.+\]\(.+\)\n)+)", re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s#:]+)(#[^()\s]*)?\)")


def link(target: str, anchor: str, folder: str, page: str) -> str | None:
    """Return the link on the site for one of a file, or None to leave it.

    Arguments:
        target: the path of the target, from the folder of the file.
        anchor: ``#`` and a heading's anchor, or "".
        folder: the folder of the file, from the top of the checkout.
        page: the folder of the page that the file is on, from the top of the checkout.
    """
    path = posixpath.normpath(posixpath.join(folder, target))
    if path == EXAMPLES:
        path = f"docs/{EXAMPLES}.md"
    elif not (ROOT / path).is_file():
        return None
    if path.startswith(f"{EXAMPLES}/"):
        anchor = "#" + posixpath.basename(path).replace(".", "")
        path = f"docs/{EXAMPLES}.md"
    return posixpath.relpath(PAGES.get(path, path), page) + anchor


def on_the_site(text: str, folder: str, page: str) -> str:
    """Return the Markdown of a file with its links made for the site."""

    def replaced(found: re.Match[str]) -> str:
        made = link(found[1], found[2] or "", folder, page)
        return found[0] if made is None else f"]({made})"

    return _LINK.sub(replaced, text)


def examples() -> str:
    """Return the Markdown of all examples, a section each."""
    parts = []
    for path in sorted((ROOT / EXAMPLES).glob("*.py")):
        code = path.read_text(encoding="utf-8")
        doc = ast.get_docstring(ast.parse(code)) or ""
        parts.append(f"## {path.name}\n\n{doc.partition('.')[0]}.\n\n```python\n{code}```\n")
    return "\n".join(parts)


def contents(text: str) -> str:
    """Return the Markdown of the table of contents, for lists of links to pages."""
    trees = []
    for title, links in _LIST.findall(text):
        pages = re.sub(r"- \[(.+)\]\((.+)\)", r"\1 <\2>", links)
        trees.append(f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n{pages}```\n")
    return "\n".join(trees)


def read_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put files of other folders into the pages that are for them, and mend the links."""
    del app
    page = posixpath.dirname(f"docs/{docname}")
    text = on_the_site(source[0], page, page)
    if docname == "index":
        text += "\n" + contents(text)
    for found in _INCLUDE.finditer(text):
        included = (ROOT / found[1]).read_text(encoding="utf-8")
        text = text.replace(found[0], on_the_site(included, "", page))
    if docname == EXAMPLES:
        text = f"{text}\n{examples()}"
    source[0] = text


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the handler."""
    app.connect("source-read", read_source)
    return {"parallel_read_safe": True}
