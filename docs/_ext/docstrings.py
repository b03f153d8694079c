"""Docstrings as fields and links.

Our docstrings are plain text: sections such as "Arguments:" with an entry for each name, single
backticks around names, double ones around code. napoleon would read the first sentence of a
property, "The curve: a point for each column", as a type, so the few sections are parsed here.
"""

from __future__ import annotations

import builtins
import dataclasses
import enum
import re
import textwrap
from typing import TYPE_CHECKING, Any

from sphinx import addnodes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

__all__ = ["fields", "setup", "shown_text"]

#: Names in signatures and in backticks that are shown as code, without a link: of Python, of type
#: checkers, of other packages, and of our insides. The site has no inventory of other sites.
FOREIGN = {
    *dir(builtins),
    *("async for", "date", "datetime", "timedelta", "tzinfo", "uuid.UUID"),
    *("ASGIApp", "FastAPI", "Starlette", "os._exit", "T"),
    *("Flask", "Request", "HttpRequest", "HttpResponseBase", "ImproperlyConfigured"),
    *("Redis", "RedisCluster", "MeterProvider", "TracerProvider", "os.PathLike"),
    *("AbstractAsyncContextManager", "MutableMapping"),
}
FOREIGN_PACKAGES = {
    *("collections", "contextlib", "datetime", "enum", "threading", "typing"),
    *("aiohttp", "django", "fastapi", "flask", "redis", "starlette", "web"),
}

#: Classes of which a tally makes the objects, so that programs need not know what they take.
MADE_BY_TALLY = {
    f"tallymark.{name}"
    for name in (
        "Buffer",
        "PendingMark",
        "SyncBuffer",
        "Transaction",
        "integrations.testing.Outage",
    )
}

#: The module whose functions are those of the blocking facade.
SYNC = "tallymark.sync"

_SECTION = re.compile(r"(Arguments|Attributes|Metrics|Raises(?:, [\w ]+)?|Returns|Yields):$")
#: A section with a text of its own instead of names.
_TEXTS = {"Returns", "Yields"}
#: Paragraphs that say what holds when a call ends early; they join the fields.
_ENDING = re.compile(r"(Cancelled|Interrupted): ")
_NAME = re.compile(r"(\S[^:`]*|``.*?``): ")


def fields(lines: list[str], types: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Yield the reStructuredText of a docstring's lines.

    Arguments:
        lines: the lines.
        types: the annotations of a class, which its attributes are shown with.
    """
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if found := _SECTION.match(line):
            end = at
            while end < len(lines) and (not lines[end].strip() or lines[end].startswith(" ")):
                end += 1
            body = textwrap.dedent("\n".join(lines[at:end])).strip().splitlines()
            at = end
            if found[1] == "Attributes":
                yield from attributes(body, types or {})
                continue
            made = body if found[1] in _TEXTS else entries(body, found[1].startswith("Raises"))
            yield f":{found[1]}:"
            yield from textwrap.indent("\n".join(made), "    ").splitlines()
            yield ""
        elif found := _ENDING.match(line):
            yield f":{found[1]}: {line[found.end() :]}"
            while at < len(lines) and lines[at].strip():
                yield f"    {lines[at].strip()}"
                at += 1
        else:
            yield line


def named(body: list[str]) -> Iterator[tuple[list[str], str]]:
    """Yield the lines of a section, each with the names that it begins with, or none.

    Raises:
        ValueError: a line is neither a name with its text nor the continuation of one.
    """
    text = re.sub(r"^(\w[\w, ]*,)\n\s*", r"\1 ", "\n".join(body), flags=re.MULTILINE)
    for line in text.splitlines():
        if not line or line.startswith(" "):
            yield [], line[4:]  # nested lists are indented more
        elif found := _NAME.match(line):
            yield [name.strip() for name in found[1].split(",")], line[found.end() :]
        else:
            raise ValueError(f"not a name and its text: {line}")


def entries(body: list[str], errors: bool) -> Iterator[str]:
    """Yield a list of the names of a section, each with its text."""
    for names, text in named(body):
        mark = "`" if errors else "" if names and names[0].startswith("``") else "``"
        yield (
            f"- {', '.join(f'{mark}{name}{mark}' for name in names)}: {text}"
            if names
            else f"  {text}"
        )


def attributes(body: list[str], types: Mapping[str, Any]) -> Iterator[str]:
    """Yield descriptions of attributes, which other docstrings can name."""
    for names, text in named(body):
        if not names:
            yield f"   {text}"
            continue
        yield ""
        for name in names:
            yield f".. py:attribute:: {name}"
            yield "   :no-contents-entry:"
            if isinstance(types.get(name), str):
                yield f"   :type: {types[name]}"
            yield ""
        yield f"   {text}"
    yield ""


def process_docstring(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Replace the lines of a docstring by what Sphinx reads."""
    del app, what, options
    types = (
        {
            key: kind
            for owner in type.mro(thing)
            for key, kind in vars(owner).get("__annotations__", {}).items()
        }
        if isinstance(thing, type)
        else {}
    )
    try:
        lines[:] = list(fields(lines, types))
    except ValueError as error:
        raise ValueError(f"the docstring of {name}: {error}") from error


def process_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: object, *signature: str | None
) -> tuple[str, str] | None:
    """Show no arguments of results, which programs do not make: they are the attributes."""
    del app, options, signature
    made = (
        dataclasses.is_dataclass(thing)
        or hasattr(thing, "_fields")
        or isinstance(thing, type(enum.Enum))
        or name in MADE_BY_TALLY
    )
    return ("", "") if what == "class" and made else None


def skip_member(
    app: Sphinx, what: str, name: str, thing: object, skip: bool, options: object
) -> bool | None:
    """Skip the fields of named tuples: the docstring of their class has them."""
    del app, what, name, skip, options
    doc = getattr(thing, "__doc__", None) or ""
    return True if doc.startswith("Alias for field number") else None


def shown_text(node: nodes.Node) -> str:
    """Return the text of a node as a reader sees it.

    A type in a signature has two texts until its page is written: its short name, and the whole
    name for when there is no link.
    """
    copy = node.deepcopy()
    for text in list(copy.findall(addnodes.pending_xref_condition)):
        if text["condition"] != "resolved":
            text.parent.remove(text)
    return str(copy.astext())


def find_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Resolve a name that Sphinx does not find from where it stands, or leave it as code.

    A docstring names a verb without its class, as in "those of `count`". The one of the facade at
    hand is meant; else the name has to be that of one public object.
    """
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    package = target.partition(".")[0]
    if package == "tallymark":  # a public object, by the module where it is defined
        target = target.rpartition(".")[2]
    if target in FOREIGN or package in FOREIGN_PACKAGES:
        return content
    domain = env.domains.python_domain
    found = [name for name in domain.objects if f".{name}".endswith(f".{target}")]
    if len(found) != 1:
        blocking = "Sync" in (node.get("py:class") or "") or node.get("py:module") == SYNC
        facade = "tallymark.SyncTally" if blocking else "tallymark.Tally"
        found = [name for name in (f"tallymark.{target}", f"{facade}.{target}") if name in found]
    if not found:
        return None
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], found[0], node, content
    )


def forget_modules(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Drop the names that public objects have in the modules where they are defined."""
    del app
    objects = env.domains.python_domain.objects
    for name in [name for name, entry in objects.items() if entry.aliased]:
        del objects[name]
    return []


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the handlers."""
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("env-updated", forget_modules)
    app.connect("missing-reference", find_name)
    return {"parallel_read_safe": True}
