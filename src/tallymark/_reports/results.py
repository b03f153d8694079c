"""The results of all reports: rows, CSV, data frames, HTML, and readable names. Pure.

A result is a frozen dataclass derived from `Report`. It defines `Report.to_rows`, its title, its
caption, and its figures of the package `tallymark._charts`; the rest is here.
"""

from __future__ import annotations

import abc
import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from .._charts.page import Page, isolated
from .._core.arguments import check_flag, check_name, plain_str
from .._core.frozen import FrozenMapping
from .._core.untrusted import reraise_from_handler, shown
from ..errors import InvalidTypeError, InvalidValueError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._charts.page import Figure

__all__ = ["Report", "checked_labels", "made"]

SetsT = TypeVar("SetsT")


def made(sets: SetsT | None, value: object) -> SetsT:
    """Return what the event sets of a part of a report are made of.

    Arguments:
        sets: what they are made of; ``None`` if no report of a tally has made the part.
        value: the part.

    Raises:
        InvalidValueError: it is ``None``.
    """
    if sets is None:
        raise InvalidValueError(
            f"no report of a tally has made this {type(value).__name__}: its users are not known"
        )
    return sets


def checked_labels(labels: Mapping[str, str] | None) -> FrozenMapping[str, str]:
    """Return the argument ``labels`` of a report as an immutable mapping.

    Raises:
        InvalidTypeError, InvalidValueError: it is no mapping of str to str, or one of these may
            not be a name: see `check_name`.
    """
    error = None
    if labels is None or isinstance(labels, Mapping):
        try:
            names = {plain_str(name): plain_str(label) for name, label in (labels or {}).items()}
        except Exception as raised:  # noqa: BLE001 - a mapping of the caller's may raise any
            reraise_from_handler(raised)
            error = raised
        else:
            if all(type(text) is str for pair in names.items() for text in pair):
                for name, label in names.items():
                    check_name("a name in labels", name)
                    check_name("a label", label)
                return FrozenMapping(names)
    raise InvalidTypeError(
        f"labels must be a mapping of names to readable names, both str, got {shown(labels)}"
    ) from error


_NO_LABELS: Final[FrozenMapping[str, str]] = FrozenMapping()


@dataclass(frozen=True, kw_only=True)
class Report(abc.ABC):
    """The base class of the results of all reports.

    Results are values: they can be compared, copied and pickled, and hold no connection. Those
    with event sets cannot be pickled if their database is one of this process only, as that of
    ``memory://`` without a name is. The methods block the event loop; for a table of 100,000
    cells, for some tenths of a second. In an asyncio program,
    ``await asyncio.to_thread(report.to_html)``.

    Attributes:
        labels: the readable names of events, by name. HTML shows them; rows keep the names.
        unknown_events: the events of the report that nobody was ever marked for. Their names
            may be misspelt.
    """

    labels: Mapping[str, str] = field(default=_NO_LABELS, repr=False)
    unknown_events: tuple[str, ...] = field(default=(), repr=False)

    #: The columns of `to_rows` with integers or ``None``.
    _integers: ClassVar[tuple[str, ...]] = ()

    #: The columns with shares and ratios or ``None``, of all reports.
    _floats: ClassVar[tuple[str, ...]] = (
        *("rate", "ratio", "stickiness", "quick_ratio", "of_previous", "of_first"),
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", checked_labels(self.labels))

    @abc.abstractmethod
    def to_rows(self) -> list[dict[str, Any]]:
        """Return a dict for each number, with values that JSON and CSV can represent.

        Rows have the names of events, whatever the ``labels``.
        """

    def to_csv(self) -> str:
        """Return the rows of `to_rows` as CSV (RFC 4180) with a header; ``None`` is empty.

        Blocks the event loop for some tenths of a second for 100,000 rows. In an asyncio
        program, ``await asyncio.to_thread(report.to_csv)``.
        """
        rows = self.to_rows()
        output = io.StringIO()
        if rows:
            writer = csv.DictWriter(output, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return output.getvalue()

    def to_pandas(self) -> Any:
        """Return the rows of `to_rows` as a ``pandas.DataFrame``.

        Integers that may be missing have pandas' type ``Int64``; shares and ratios have
        ``float64``, also if all are missing. Blocks the event loop, as `to_csv` does.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas as pd  # noqa: PLC0415 - optional
        except ImportError as error:
            raise MissingExtraError(
                "to_pandas() needs pandas, which is not installed; run: pip install pandas"
            ) from error
        frame = pd.DataFrame(self.to_rows())
        kinds = {**dict.fromkeys(self._integers, "Int64"), **dict.fromkeys(self._floats, "float64")}
        return frame.astype({name: kind for name, kind in kinds.items() if name in frame})

    def to_html(self, title: str | None = None, *, fragment: bool = False) -> str:
        """Return an HTML page with the report as charts and tables.

        Charts are SVG. Each has a name and a description for screen readers, and a table of
        its numbers, which is closed at first if it is long.
        The page needs no script, font or other file. It follows the light or dark mode of
        the reader's system, and what is too wide scrolls. Blocks the event loop for some
        tenths of a second for 100,000 cells: in an asyncio program,
        ``await asyncio.to_thread(report.to_html)``.

        Arguments:
            title: the heading; by default one made of the names of the events, or of their
                ``labels``.
            fragment: return a part of a page, one ``<div>`` with its own style, in place of
                a page. Several can be parts of one page.

        Returns:
            the HTML. A warning says which events nobody was ever marked for.

        Raises:
            InvalidTypeError: the title is no str, or ``fragment`` no bool.
        """
        if title is not None and not isinstance(title, str):
            raise InvalidTypeError(f"title must be a str or None, got {shown(title)}")
        check_flag("fragment", fragment)
        page = Page(
            self._title() if title is None else title,
            self._caption(),
            self._figures(),
            [_warning(self.unknown_events)] if self.unknown_events else [],
        )
        return page.fragment() if fragment else page.page()

    def _repr_html_(self) -> str:
        """Return the report as an HTML fragment, for notebooks."""
        return self.to_html(fragment=True)

    def label(self, name: str) -> str:
        """Return the readable name of an event: that of ``labels``, or else ``name`` itself.

        Raises nothing.
        """
        return self.labels.get(name, name)

    @abc.abstractmethod
    def _title(self) -> str:
        """Return the heading of the HTML, with readable names."""

    @abc.abstractmethod
    def _caption(self) -> str:
        """Return one or two sentences: what is counted, and as of when."""

    @abc.abstractmethod
    def _figures(self) -> Sequence[Figure]:
        """Return the charts and tables of the HTML, the most important one first."""

    def _isolated(self, name: str) -> str:
        """Return the readable name of an event for a title or a caption."""
        return isolated(self.label(name))


def _quoted(names: Sequence[str]) -> str:
    """Return names in quotes, as in ``“a”, “b” and “c”``, for a sentence."""
    *others, last = (f"“{isolated(name)}”" for name in names)
    return f"{', '.join(others)} and {last}" if others else last


def _warning(unknown: Sequence[str]) -> str:
    question = "is the name spelt" if len(unknown) == 1 else "are the names spelt"
    return f"Nobody was ever marked for {_quoted(unknown)}: {question} correctly?"
