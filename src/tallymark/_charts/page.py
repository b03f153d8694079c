"""HTML pages and fragments: a heading, a caption, warnings, and figures. Pure.

A page needs no script, font or other file, and follows the light or dark mode of the reader's
system. Its styles apply only inside the element with the class ``tallymark``, so a fragment
can be a part of any page, and a page can have several.
"""

from __future__ import annotations

import unicodedata
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Figure", "Page", "document", "isolated"]


class Figure(Protocol):
    """A heat map, a chart or a table."""

    @property
    def title(self) -> str:
        """The accessible name, and the heading where a page has several figures."""
        ...

    @property
    def style(self) -> str:
        """The CSS rules of all figures of this kind, each for ``.tallymark``."""
        ...

    def html(self) -> str:
        """Return the figure as HTML, without its heading and style."""
        ...


class Page(NamedTuple):
    """A page or a part of a page.

    Attributes:
        title: the heading.
        caption: one or two sentences that say what the figures show.
        figures: the figures, from top to bottom.
        warnings: what the reader has to know before the figures are of use.
    """

    title: str
    caption: str
    figures: Sequence[Figure]
    warnings: Sequence[str] = ()

    def page(self) -> str:
        """Return a complete HTML page."""
        heading = f"<h1>{escape(isolated(self.title))}</h1>"
        return document(self.title, [self._content(heading)])

    def fragment(self) -> str:
        """Return a part of a page, with its style."""
        return self._content(f'<p class="title">{escape(isolated(self.title))}</p>')

    def _content(self, heading: str) -> str:
        styles = "".join(dict.fromkeys(figure.style for figure in self.figures))
        warnings = "".join(
            f'<p class="warning" role="note">{escape(warning)}</p>\n' for warning in self.warnings
        )
        return (
            f'<div class="tallymark">\n<style>\n{_STYLE}{styles}</style>\n{heading}\n'
            f"<p>{escape(self.caption)}</p>\n{warnings}{''.join(map(self._figure, self.figures))}"
            f"</div>\n"
        )

    def _figure(self, figure: Figure) -> str:
        several = len(self.figures) > 1
        heading = f"<figcaption>{escape(isolated(figure.title))}</figcaption>\n" if several else ""
        return f"<figure>\n{heading}{figure.html()}</figure>\n"


def document(title: str, fragments: Iterable[str]) -> str:
    """Return a complete HTML page of several fragments.

    Arguments:
        title: the title of the page, as text.
        fragments: what `Page.fragment` returns.
    """
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(isolated(title))}</title>\n<style>\n{_PAGE_STYLE}</style>\n</head>\n"
        f"<body>\n{''.join(fragments)}</body>\n</html>\n"
    )


_PAGE_STYLE: Final = """\
html { color-scheme: light dark; background: #ffffff; }
body { margin: 0; padding: 1.2em; }
@media (prefers-color-scheme: dark) { html { background: #12171d; } }
"""

#: The contrast of all text is at least 4.5 to 1 (WCAG 2.2, 1.4.3), as the browser test measures.
_STYLE: Final = """\
.tallymark { color-scheme: light dark; --ink: #1b2530; --faint: #5b6875; --paper: #ffffff;
  --line: #b8c2cc; --rule: #e3e8ed; --strong: #ffffff; --alert: #fff4d6; --alert-line: #b7791f;
  color: var(--ink); background: var(--paper); font: 14px/1.4 system-ui, sans-serif;
  direction: ltr; text-align: left; }
@media (prefers-color-scheme: dark) { .tallymark { --ink: #e8eef4; --faint: #9fb0c0;
  --paper: #12171d; --line: #46535f; --rule: #29323c; --strong: #0b1118;
  --alert: #33290f; --alert-line: #d9a441; } }
.tallymark h1 { font: 600 20px/1.3 system-ui, sans-serif; margin: 0 0 .4em; }
.tallymark p { color: var(--faint); margin: 0 0 .8em; max-width: 75em; text-wrap: pretty; }
.tallymark p.title { color: var(--ink); font-weight: 600; margin: 0 0 .2em; }
.tallymark p.warning { color: var(--ink); background: var(--alert); padding: .5em .8em;
  border-left: 4px solid var(--alert-line); overflow-wrap: anywhere; }
.tallymark figure { margin: 0 0 1.6em; }
.tallymark figure:last-child { margin-bottom: 0; }
.tallymark figcaption { font-weight: 600; margin: 0 0 .4em; }
.tallymark .scroll { overflow-x: auto; }
.tallymark table { border-collapse: separate; border-spacing: 2px; margin: 0; }
.tallymark th, .tallymark td { padding: .3em .55em; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; border: 0; }
.tallymark th { font-weight: 600; background: var(--paper); color: var(--ink); }
.tallymark tr > th:first-child { text-align: left; position: sticky; left: 0; }
"""


#: First strong isolate, pop directional isolate, and all characters that begin an isolate
#: (https://www.unicode.org/reports/tr9/#Explicit_Directional_Isolates).
_ISOLATE: Final = "\u2068"
_POP: Final = "\u2069"
_ISOLATES: Final = frozenset("\u2066\u2067\u2068")

#: The bidirectional classes of characters that run from right to left, that set the direction
#: of others, or that end a paragraph
#: (https://www.unicode.org/reports/tr9/#Bidirectional_Character_Types).
_DIRECTIONAL: Final = frozenset(
    (*("R", "AL", "AN", "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"), "B")
)

#: The characters that end a paragraph, and so all isolates, are replaced by spaces.
_PARAGRAPHS: Final = dict.fromkeys(map(ord, "\n\r\x1c\x1d\x1e\x85\u2029"), " ")


def isolated(text: str) -> str:
    """Return text that does not change the direction of the text around it.

    Text with characters that have a direction gets a bidirectional isolate. Works also where
    HTML markup is not possible, such as in a title.
    """
    if _DIRECTIONAL.isdisjoint(map(unicodedata.bidirectional, text)):
        return text
    return f"{_ISOLATE}{_balanced(text)}{_POP}"


def _balanced(text: str) -> str:
    """Return text that ends all isolates that begin in it, and no others."""
    depth = 0
    characters = []
    for character in text.translate(_PARAGRAPHS):
        if character == _POP and not depth:
            continue
        depth += (character in _ISOLATES) - (character == _POP)
        characters.append(character)
    return "".join(characters) + _POP * depth
