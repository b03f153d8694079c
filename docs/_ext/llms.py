"""The site for language models: `llms.txt` (https://llmstxt.org), and each page as Markdown.

`llms.txt` lists the pages as the table of contents does, each with a sentence. The Markdown of a
page is beside it, under the page's name: its source, with the docstrings in place of the directives
that fetch them. `llms-full.txt` has all of these pages.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docstrings import shown_text
from docutils import nodes
from sphinx import addnodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

__all__ = ["setup"]

#: The Markdown of each page as it was read, and the docstrings of each object.
_sources: dict[str, str] = {}
_docstrings: dict[str, list[str]] = {}

_RST = re.compile(r"^```\{eval-rst\}\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_DIRECTIVE = re.compile(r"^\.\. (?:py:)?(\w+):: ([\w.]+).*\n((?:   :.*\n)*)", re.MULTILINE)
_IMAGE = re.compile(r"(!\[[^\]]*\])\((?!\w+:)([^()\s]+)\)")
_TOCTREE = re.compile(r"^```\{toctree\}\n.*?^```\n", re.MULTILINE | re.DOTALL)


def keep_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Remember a page, after the links were made for the site."""
    del app
    _sources[docname] = source[0]


def keep_docstring(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Remember a docstring, before it is made into fields."""
    del app, what, thing, options
    _docstrings.setdefault(name, []).append("\n".join(lines).strip())


def captions(env: BuildEnvironment) -> Iterator[tuple[str, list[str]]]:
    """Yield the captions of the table of contents, each with its pages."""
    for tree in env.get_doctree("index").findall(addnodes.toctree):
        yield str(tree["caption"]), [str(name) for name in tree["includefiles"]]


def sentence(doctree: nodes.document) -> str:
    """Return the first sentence of a page."""
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section | addnodes.desc_content):
            text = re.sub(r"\s+", " ", paragraph.astext())
            return re.split(r"(?<=[.!?]) |:$", text)[0].rstrip(":")
    return ""


def markdown(env: BuildEnvironment, docname: str) -> str:
    """Return the Markdown of a page: its source, with the reference written out."""
    objects: dict[str, str] = {}
    for signature in env.get_doctree(docname).findall(addnodes.desc_signature):
        if signature["ids"] and not isinstance(signature.parent.parent, addnodes.desc_content):
            objects[str(signature["ids"][0])] = "\n\n".join(described(signature))

    def written_out(found: re.Match[str]) -> str:
        module = ""
        parts: list[str] = []
        for directive, name, options in _DIRECTIVE.findall(found[1]):
            if directive != "automodule":
                # It has come already if it is one of its module's.
                parts.append(objects.pop(name, "") or objects.pop(f"{module}.{name}", ""))
                continue
            module = name
            parts.append("\n".join(_docstrings.get(module, [])))
            if ":members:" in options:
                inside = [key for key in objects if key.rpartition(".")[0] == module]
                parts += [objects.pop(key) for key in inside]
        return "\n\n".join(parts) + "\n"

    folder = posixpath.dirname(docname)

    def as_built(found: re.Match[str]) -> str:
        """Return the link to a picture, where the site has it."""
        path = posixpath.normpath(posixpath.join(folder, found[2]))
        _, name = env.images[path]
        return f"{found[1]}({posixpath.relpath(f'_images/{name}', folder)})"

    text = _RST.sub(written_out, _TOCTREE.sub("", _sources[docname]))
    return _IMAGE.sub(as_built, text).strip() + "\n"


def described(signature: addnodes.desc_signature) -> Iterator[str]:
    """Yield the heading and the docstring of an object, and those of its members."""
    yield f"### `{shown_text(signature)}`"
    (content,) = (
        child for child in signature.parent.children if isinstance(child, addnodes.desc_content)
    )
    yield "\n\n".join(
        _docstrings.get(str(signature["ids"][0]))
        or [part.astext() for part in content.children if isinstance(part, nodes.paragraph)]
    )
    for member in content.children:
        # The docstring of the class has the attributes.
        if isinstance(member, addnodes.desc) and member["objtype"] != "attribute":
            for inner in member.children:
                if isinstance(inner, addnodes.desc_signature) and inner["ids"]:
                    yield from described(inner)


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write `llms.txt`, `llms-full.txt`, and the Markdown of each page."""
    if exception is not None or app.builder.name != "html":
        return
    env, out = app.env, Path(app.outdir)
    listed = ["# tallymark", f"> {sentence(env.get_doctree('index'))}"]
    full = []
    by_caption: dict[str, list[str]] = defaultdict(list, {"Start": ["index"]})
    for caption, pages in captions(env):
        by_caption[caption] += pages
    for caption, pages in by_caption.items():
        lines = []
        for page in pages:
            text = markdown(env, page)
            target = out / f"{page}.md"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            full.append(text)
            said = sentence(env.get_doctree(page))
            lines.append(f"- [{env.titles[page].astext()}]({page}.md): {said}")
        listed.append(f"## {caption}\n\n" + "\n".join(lines))
    (out / "llms.txt").write_text("\n\n".join(listed) + "\n", encoding="utf-8")
    (out / "llms-full.txt").write_text("\n\n".join(full), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the handlers."""
    app.connect("source-read", keep_source, priority=900)
    app.connect("autodoc-process-docstring", keep_docstring, priority=100)
    app.connect("build-finished", write)
    return {"parallel_read_safe": False}
