"""Where the event, the user and the time of a row are: columns, constants and SQL."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..._core.untrusted import escaped, listed
from .._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Catalog", "Field", "as_text", "parse_field", "parse_map", "quoted", "text"]

#: What ``--map`` maps.
_TARGETS: Final = ("event", "user", "time")

#: How many columns a message lists.
_LISTED: Final = 30


def text(value: str) -> str:
    """Return a SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """Return a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def as_text(value: str, kind: str) -> str:
    """Return SQL for the text of a value; of whole numbers without a fraction.

    Arguments:
        value: an expression.
        kind: its SQL type.
    """
    as_it_is = f"CAST({value} AS VARCHAR)"
    if kind in {"FLOAT", "DOUBLE"} or kind.startswith("DECIMAL"):
        whole = f"TRY_CAST({value} AS HUGEINT)"
        number = f"CAST({value} AS DOUBLE)"
        return (
            f"CASE WHEN isfinite({number}) THEN CASE WHEN {value} = {whole} "
            f"THEN CAST({whole} AS VARCHAR) ELSE {as_it_is} END END"
        )
    return as_it_is


@dataclass(frozen=True)
class Field:
    """Where a value is.

    Attributes:
        columns: names of columns, or paths of nested ones with dots; the first one that has a
            value counts.
        constant: the value of all rows; ``None`` if they have their own.
        sql: a SQL expression of the columns; ``None`` for none.
    """

    columns: tuple[str, ...] = ()
    constant: str | None = None
    sql: str | None = None


def parse_field(argument: str) -> Field:
    """Return the field that an argument describes.

    Arguments:
        argument: ``column``, ``nested.column``, ``one|other``, ``'constant'`` or
            ``(SQL expression)``.

    Raises:
        UsageError: it is none of these.
    """
    stripped = argument.strip()
    if len(stripped) > 1 and stripped[0] == stripped[-1] == "'":
        return Field(constant=stripped[1:-1].replace("''", "'"))
    if stripped.startswith("(") and stripped.endswith(")"):
        return Field(sql=stripped)
    columns = tuple(each.strip() for each in stripped.split("|"))
    if not all(columns):
        raise UsageError(
            f"--map: {escaped(argument)!r} is neither a column, nor columns with | between them, "
            "nor a 'constant', nor an (SQL expression)"
        )
    return Field(columns)


def parse_map(arguments: Sequence[str]) -> dict[str, Field]:
    """Return the fields of ``--map event=... user=... time=...``.

    Raises:
        UsageError: an argument has another form.
    """
    fields: dict[str, Field] = {}
    for argument in arguments:
        target, separator, value = argument.partition("=")
        if target not in _TARGETS or not separator:
            raise UsageError(
                f"--map takes event=COLUMN, user=COLUMN and time=COLUMN, got {escaped(argument)!r}"
            )
        if target in fields:
            raise UsageError(f"--map has two columns for {target}; write {target}=ONE|OTHER")
        fields[target] = parse_field(value)
    return fields


@dataclass
class Catalog:
    """The columns of a source.

    Attributes:
        is_json: whether its rows are JSON, whose text is in the column ``raw``.
        columns: the columns with their SQL types; of JSON, the keys with their structures.
        is_text: whether all values are text, as in CSV and JSON.
    """

    is_json: bool
    columns: dict[str, Any]
    is_text: bool = True
    #: The paths in JSON that have been asked for; the column ``__tm_values`` has their values.
    paths: list[str] = field(default_factory=list)
    #: The paths of keys that the first rows do not have, by the expressions of their values.
    rare: dict[str, str] = field(default_factory=dict)

    def value(self, what: str, of: Field) -> str:
        """Return the SQL expression of a field; columns that are not there are left out.

        Raises:
            UsageError: no column of the field is there.
        """
        if of.constant is not None:
            return text(of.constant)
        if of.sql is not None:
            return of.sql
        if not any(map(self.has, of.columns)):
            raise UsageError(self._missing(what, of))
        # Of JSON, all: later rows may have keys that the first ones do not have.
        columns = {each: sql for each in of.columns if (sql := self.column(each)) is not None}
        found = list(columns.values())
        if len(found) == 1:
            return found[0]
        if self.is_text or what != "time":
            found = [
                f"nullif({as_text(sql, self._kind(each))}, '')" for each, sql in columns.items()
            ]
        return f"coalesce({', '.join(found)})"

    def has(self, name: str) -> bool:
        """Return whether there is a column, or a nested one; of JSON, in the first rows."""
        if self.is_json:
            return _path(self.columns, name) is not None
        return self.column(name) is not None

    def column(self, name: str) -> str | None:
        """Return the SQL expression of a column; ``None`` if it cannot be there."""
        if self.is_json:
            known = _path(self.columns, name)
            if known is not None:
                return self._json(known)
            # Read only where the columns before have no value.
            path = _json_path(name.split("."))
            value = f"try(json_extract_string(__tm_raw, {text(path)}))"
            self.rare[value] = path
            return value
        exact = self._exact(name)
        if exact is not None:
            return quoted(exact)
        first, _, rest = name.partition(".")
        outer = self._exact(first)
        return None if outer is None or not rest else self._nested(outer, rest.split("."))

    def _kind(self, name: str) -> str:
        """Return the SQL type of a column; none of nested ones, and of JSON."""
        return "" if self.is_json else str(self.columns.get(self._exact(name) or name))

    def _exact(self, name: str) -> str | None:
        """Return the name of a column as the file has it, whatever its case."""
        names = {each.lower(): each for each in reversed(self.columns)}
        return name if name in self.columns else names.get(name.lower())

    def _nested(self, outer: str, keys: Sequence[str]) -> str | None:
        kind = str(self.columns[outer])
        if kind.startswith("STRUCT"):
            return f"{quoted(outer)}.{'.'.join(map(quoted, keys))}"
        if kind in {"VARCHAR", "JSON"}:  # JSON in a column of text
            return f"try(json_extract_string({quoted(outer)}, {text(_json_path(keys))}))"
        return None

    def _json(self, path: Sequence[str]) -> str:
        json_path = _json_path(path)
        if json_path not in self.paths:
            self.paths.append(json_path)
        return f"__tm_values[{self.paths.index(json_path) + 1}]"

    def names(self) -> list[str]:
        """Return the names of all columns; those of nested ones with dots."""
        return list(_names(self.columns)) if self.is_json else list(self.columns)

    def _missing(self, what: str, of: Field) -> str:
        names = self.names()
        if not names:
            return "its rows are no objects of JSON with keys (or in another encoding: --encoding)"
        wanted = " or ".join(escaped(name, 80) for name in of.columns)
        close = difflib.get_close_matches(of.columns[0], names, 1, 0.6)
        advice = f"--map {what}={close[0]}" if close else f"--map {what}=COLUMN"
        found = listed((escaped(name, 80) for name in names[:_LISTED]), len(names), _LISTED)
        return f"there is no column {wanted} for the {what}; found: {found}; try {advice}"


def _path(structure: Any, name: str) -> tuple[str, ...] | None:
    """Return the keys that a name with dots stands for; ``None`` if they are not there.

    Keys may have dots themselves.
    """
    if not isinstance(structure, dict):
        # "JSON" are values of several kinds, "NULL" none: the sample does not say.
        return tuple(name.split(".")) if structure in ("JSON", "NULL") else None
    if name in structure:
        return (name,)
    for end, letter in enumerate(name):
        if letter == "." and name[:end] in structure:
            inner = _path(structure[name[:end]], name[end + 1 :])
            if inner is not None:
                return (name[:end], *inner)
    return None


def _names(structure: dict[str, Any], outer: str = "") -> Any:
    for key, inner in structure.items():
        if isinstance(inner, dict):
            yield from _names(inner, f"{outer}{key}.")
        else:
            yield outer + key


def _json_path(keys: Sequence[str]) -> str:
    return "$." + ".".join(json.dumps(key, ensure_ascii=False) for key in keys)
