"""The sections of all pages, which the site's search looks through.

Sphinx's own search finds pages that have every word of a question, and ranks them by titles alone.
Ours (`_static/search.js`) ranks sections, and needs not every word; so it has to have their texts.
They are a script, `sections.js`, that also loads from a file, without a server.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from docstrings import shown_text
from docutils import nodes
from sphinx import addnodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

__all__ = ["Section", "sections", "setup"]

#: Kinds of pages, by the beginnings of their names; the first that fits counts. The search ranks
#: guides above what says the same of both facades, and all above what was and who works on it.
KINDS = {
    "reference/sync-tally": "twin",
    "reference/functions": "twin",
    "reference/bitmapist": "twin",
    "reference/cli": "guide",
    "reference/errors": "guide",
    "reference/reports": "guide",
    "reference/options": "guide",
    "reference/key-format": "guide",
    "reference/": "reference",
    "examples": "code",
    "changelog": "project",
    "contributing": "project",
    "security": "project",
    "index": "front",
    "": "guide",
}


class Section(NamedTuple):
    """A part of a page that a link can point at.

    Attributes:
        page: the page's address, from the top of the site.
        anchor: the section's id in the page; "" for the page's first section.
        title: its heading, or the name of an object of the reference.
        path: the headings above it, from the page's title on.
        kind: one of `KINDS`.
        text: what it says, without the sections in it.
    """

    page: str
    anchor: str
    title: str
    path: list[str]
    kind: str
    text: str


def sections(docname: str, doctree: nodes.document, address: str) -> Iterator[Section]:
    """Yield the sections of a page, and the objects of the reference in it."""
    kind = next(kind for start, kind in KINDS.items() if docname.startswith(start))

    def walk(node: nodes.Element, path: list[str]) -> Iterator[Section]:
        for part in node.findall(lambda child: child is not node and is_part(child)):
            if not isinstance(part, nodes.Element) or nearest(part) is not node:
                continue
            title = title_of(part)
            anchor = anchor_of(part) if path else ""
            yield Section(address, anchor, title, path, kind, own_text(part))
            yield from walk(part, [*path, title])

    yield from walk(doctree, [])


def is_part(node: nodes.Node) -> bool:
    """Return whether a node is a section, or the description of an object with a name."""
    if isinstance(node, addnodes.desc):
        return any(signature["ids"] for signature in node.findall(addnodes.desc_signature))
    return isinstance(node, nodes.section)


def nearest(node: nodes.Element) -> nodes.Node | None:
    """Return the part, or the document, that a part is in."""
    parent = node.parent
    while parent.parent is not None and not is_part(parent):
        parent = parent.parent
    return parent


def title_of(part: nodes.Element) -> str:
    """Return the heading of a section, or the name of an object."""
    if isinstance(part, addnodes.desc):
        signature = next(iter(part.findall(addnodes.desc_signature)))
        return str(signature.get("fullname") or shown_text(signature))
    return str(next(iter(part.findall(nodes.title))).astext())


def anchor_of(part: nodes.Element) -> str:
    """Return the id of a part."""
    if isinstance(part, addnodes.desc):
        part = next(iter(part.findall(addnodes.desc_signature)))
    return str(part["ids"][0]) if part["ids"] else ""


def own_text(part: nodes.Element) -> str:
    """Return the text of a part, without its heading and without the parts in it."""
    texts: list[str] = []
    code: list[str] = []  # behind the prose, which excerpts are better made of

    def gather(node: nodes.Element) -> None:
        for child in node.children:
            if is_part(child) or isinstance(child, nodes.title | nodes.comment | nodes.raw):
                continue
            if isinstance(child, nodes.TextElement) or not isinstance(child, nodes.Element):
                (code if isinstance(child, nodes.literal_block) else texts).append(
                    shown_text(child)
                )
            elif not isinstance(child, addnodes.toctree):
                gather(child)

    gather(part)
    return re.sub(r"\s+", " ", " ".join(texts + code)).strip()


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write the sections of all pages for the search."""
    if exception is not None or app.builder.name != "html":
        return
    found = [
        section
        for docname in sorted(app.env.found_docs)
        for section in sections(
            docname, app.env.get_doctree(docname), app.builder.get_target_uri(docname)
        )
    ]
    target = Path(app.outdir) / "_static" / "sections.js"
    target.write_text(f"var SECTIONS = {json.dumps(found)};\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the handler."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True}
