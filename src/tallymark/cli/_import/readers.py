"""The rows of a file as a SQL relation: line, text, what is malformed, and the columns."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import duckdb

from ..._core.untrusted import escaped
from .._errors import UsageError
from .fields import Catalog, quoted, text

if TYPE_CHECKING:
    from .presets import Preset
    from .sources import Source

__all__ = ["READ_ERRORS", "Layout", "Relation", "problem", "relation", "unreadable"]

#: The longest line, in bytes, and how much of a file is read at once: each core takes three of
#: these buffers. Without it, a buffer has 16 times the longest line.
_LONGEST_LINE: Final = 2_000_000
_BUFFER: Final = 8_000_000

#: The table of what DuckDB cannot split into columns or decode.
READ_ERRORS: Final = "read_errors"

#: How many rows of JSON are read to know their keys.
_SAMPLE: Final = 10_000

_DELIMITERS: Final = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Layout:
    """How files are written, where their format does not say it.

    Attributes:
        encoding: ``utf-8``, ``utf-16`` or ``latin-1``.
        delimiter: what is between the columns of CSV; ``None`` to go by the header.
        header: whether the first line of CSV has the names of the columns.
    """

    encoding: str = "utf-8"
    delimiter: str | None = None
    header: bool = True

    def __post_init__(self) -> None:
        """Check the delimiter."""
        if self.delimiter in {"tab", "\\t"}:
            object.__setattr__(self, "delimiter", "\t")
        if self.delimiter is not None and (
            len(self.delimiter) != 1 or self.delimiter in {'"', "\r", "\n"}
        ):
            raise UsageError(f"--delimiter is one character, or tab, got {self.delimiter!r}")


@dataclass(frozen=True)
class Relation:
    """The rows of a file.

    Attributes:
        sql: a query with the columns ``__tm_line``, ``__tm_raw``, ``__tm_malformed`` and those of
            `catalog`.
        row: SQL for the text of a row, to put into the file of rejected rows.
        catalog: the columns.
        first_line: the number of the first line that is a row.
    """

    sql: str
    row: str
    catalog: Catalog
    first_line: int = 1


def relation(
    connection: duckdb.DuckDBPyConnection, source: Source, layout: Layout, preset: Preset | None
) -> Relation | None:
    """Return the rows of a file; ``None`` if it has none.

    Raises:
        UsageError: it cannot be read.
    """
    if source.size == 0:
        return None
    try:
        if source.format == "parquet":
            return _parquet(connection, source)
        first, at = _first_line(connection, source, layout)
        if first is None:
            return None
        if preset is not None and (preset.line_columns or preset.line_pattern):
            return _lines_with_columns(source, layout, preset)
        if source.format in {"csv", "tsv"}:
            return _csv(source, layout, first, at)
        if source.format in {"json", "ndjson"}:
            is_array = source.format == "json" and first.lstrip().startswith("[")
            if is_array and (source.encoding or layout.encoding) != "utf-8":
                raise UsageError(
                    f"{source.name}: an array of JSON has to be in UTF-8; convert it with iconv"
                )
            return _json(connection, source, layout, preset, is_array=is_array)
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise unreadable(source, error) from None
    raise UsageError(
        f"{source.name}: lines of text need a preset that says what is where, such as nginx"
    )


def problem(error: Exception) -> str:
    """Return what DuckDB says in its first line."""
    first = str(error).strip().partition("\n")[0]
    return escaped(first.replace("Invalid Input Error: ", ""), 300)


def unreadable(source: Source, error: Exception) -> UsageError:
    """Return the error for a file that DuckDB cannot read, with advice."""
    said = problem(error)
    advice = next((advice for sign, advice in _ADVICE.items() if sign in said), "")
    return UsageError(f"{source.name} cannot be read: {said}{advice}")


#: What to try, by a part of what DuckDB says.
_ADVICE: Final = {
    "reached an invalid state": " Do some lines end in CR LF, others in LF? Make them the same",
    "utf-8": " Try --encoding latin-1 or utf-16",
    "Conversion Error": "; a --where or (SQL) of --map may use TRY_CAST",
}


def _options(source: Source, layout: Layout) -> str:
    encoding = source.encoding or layout.encoding
    options = f", compression={text(source.compression)}, encoding={text(encoding)}"
    return options + (
        f", auto_detect=false, ignore_errors=true, store_rejects=true, rejects_limit=0"
        f", rejects_table={text(READ_ERRORS)}, rejects_scan='read_scans'"
        f", max_line_size={_LONGEST_LINE}, buffer_size={_BUFFER}"
    )


def _lines(source: Source, layout: Layout) -> str:
    """Return a query for the lines of a file, with their numbers.

    As fast as DuckDB's reader of JSON on one core, and unlike that, it keeps what is malformed.
    """
    reader = (
        f"read_csv({text(str(source.path))}, columns={{'__tm_raw': 'VARCHAR'}}, delim=chr(1), "
        f"quote='', escape='', header=false, strict_mode=false{_options(source, layout)})"
    )
    return (
        f"SELECT * FROM (SELECT row_number() OVER () AS __tm_line, __tm_raw FROM {reader}) "
        # `trim` takes twelve times the time.
        "WHERE NOT regexp_full_match(__tm_raw, '\\s*')"
    )


def _first_line(
    connection: duckdb.DuckDBPyConnection, source: Source, layout: Layout
) -> tuple[str | None, int]:
    """Return the first line that is not empty, ``None`` if there is none; and its number."""
    query = f"SELECT __tm_raw, __tm_line FROM ({_lines(source, layout)}) LIMIT 1"
    found = connection.execute(query).fetchone()
    if found is not None:
        return str(found[0]), int(found[1])
    errors = connection.execute(
        f"SELECT left(csv_line, 10) FROM {READ_ERRORS} ORDER BY line LIMIT 1"
    ).fetchone()
    # Such as an array of JSON on one line.
    return (None if errors is None else str(errors[0])), 1


def _lines_with_columns(source: Source, layout: Layout, preset: Preset) -> Relation:
    lines = _lines(source, layout)
    if preset.line_pattern is not None:
        names = ", ".join(map(text, preset.line_names))
        pattern = text(preset.line_pattern)
        columns = ", ".join(
            f"nullif(nullif(__tm_c.{name}, ''), '-') AS {quoted(name)}"
            for name in preset.line_names
        )
        first = preset.line_names[0]
        malformed = f"CASE WHEN __tm_c.{first} = '' THEN 'line of another format' END"
        split = f"regexp_extract(__tm_raw, {pattern}, [{names}])"
        found = dict.fromkeys(preset.line_names, "VARCHAR")
    else:
        most = max(preset.line_columns.values())
        columns = ", ".join(
            f"nullif(__tm_c[{number}], '') AS {quoted(name)}"
            for name, number in preset.line_columns.items()
        )
        malformed = f"CASE WHEN len(__tm_c) < {most} THEN 'fewer than {most} columns' END"
        split = "string_split(__tm_raw, '\t')"
        found = dict.fromkeys(preset.line_columns, "VARCHAR")
    sql = (
        f"SELECT __tm_line, __tm_raw, {malformed} AS __tm_malformed, {columns} "
        f"FROM (SELECT __tm_line, __tm_raw, {split} AS __tm_c FROM ({lines}))"
    )
    return Relation(sql, "__tm_raw", Catalog(is_json=False, columns=found))


def _csv(source: Source, layout: Layout, first: str, at: int) -> Relation:
    try:
        delimiter = layout.delimiter or ("\t" if source.format == "tsv" else _delimiter(first))
        header = next(csv.reader([first], delimiter=delimiter))
    except csv.Error as error:
        raise UsageError(f"{source.name}: its first line is no header: {error}") from None
    names: list[str] = []
    taken: set[str] = set()
    for number, name in enumerate(header, 1):
        unique = name.strip() if layout.header else ""
        unique = unique or f"column{number}"
        while unique.lower() in taken:
            unique += "_"
        taken.add(unique.lower())
        names.append(unique)
    columns = ", ".join(f"{text(name)}: 'VARCHAR'" for name in names)
    reader = (
        f"read_csv({text(str(source.path))}, columns={{{columns}}}, delim={text(delimiter)}, "
        f"quote='\"', escape='\"', header={str(layout.header).lower()}, nullstr='', skip={at - 1}"
        f"{_options(source, layout)})"
    )
    first_line = at + layout.header
    selected = ", ".join(map(quoted, names))
    sql = (
        f"SELECT row_number() OVER () + {first_line - 1} AS __tm_line, NULL AS __tm_raw, "
        f"CAST(NULL AS VARCHAR) AS __tm_malformed, {selected} FROM {reader}"
    )
    pairs = ", ".join(f"{text(name)}, {quoted(name)}" for name in names)
    found = dict.fromkeys(names, "VARCHAR")
    catalog = Catalog(is_json=False, columns=found)
    return Relation(sql, f"json_object({pairs})", catalog, first_line)


def _delimiter(header: str) -> str:
    """Return what is between the columns: of the possible ones, that which is there most often."""
    counts = [len(next(csv.reader([header], delimiter=each))) for each in _DELIMITERS]
    return _DELIMITERS[counts.index(max(counts))]


def _json(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    layout: Layout,
    preset: Preset | None,
    *,
    is_array: bool,
) -> Relation:
    if is_array:
        rows = (
            f"SELECT row_number() OVER () AS __tm_line, CAST(json AS VARCHAR) AS __tm_raw "
            f"FROM read_json_objects({text(str(source.path))}, format='array', "
            f"compression={text(source.compression)}, maximum_object_size={_LONGEST_LINE})"
        )
    else:
        rows = _lines(source, layout)
    structure = _structure(connection, rows)
    if preset is not None and preset.unnested is not None:
        if preset.unnested not in structure:
            found = ", ".join(escaped(name, 80) for name in list(structure)[:30])
            raise UsageError(
                f"{source.name}: there is no list {preset.unnested} of the preset; found: {found}"
            )
        key = json.dumps(preset.unnested)
        # Malformed lines have no items, and stay rows.
        items = f"unnest(coalesce(try(json_extract(__tm_raw, {text(f'$.{key}[*]')})), [NULL]))"
        merged = (
            f"CAST(json_merge_patch(__tm_raw, json_object({text(preset.unnested)}, NULL, 'action', "
            "__tm_item)) AS VARCHAR)"
        )
        rows = (
            f"SELECT __tm_line, CASE WHEN __tm_item IS NULL THEN __tm_raw ELSE {merged} END "
            f"AS __tm_raw FROM (SELECT __tm_line, __tm_raw, {items} AS __tm_item FROM ({rows}))"
        )
        structure = _structure(connection, rows)
    return Relation(rows, "__tm_raw", Catalog(is_json=True, columns=structure))


def _structure(connection: duckdb.DuckDBPyConnection, rows: str) -> dict[str, Any]:
    """Return the keys of the first rows, with their types as `json_group_structure` names them."""
    query = (
        "SELECT json_group_structure(j) FROM (SELECT TRY_CAST(__tm_raw AS JSON) AS j "
        f"FROM (SELECT __tm_raw FROM ({rows}) LIMIT {_SAMPLE})) WHERE json_type(j) = 'OBJECT'"
    )
    found = connection.execute(query).fetchone()
    structure = json.loads(found[0]) if found is not None and found[0] is not None else {}
    return structure if isinstance(structure, dict) else {}


def _parquet(connection: duckdb.DuckDBPyConnection, source: Source) -> Relation:
    reader = f"read_parquet({text(str(source.path))}, hive_partitioning=false)"
    described = connection.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()
    columns = {row[0]: row[1] for row in described}
    sql = (
        "SELECT row_number() OVER () AS __tm_line, NULL AS __tm_raw, "
        f"CAST(NULL AS VARCHAR) AS __tm_malformed, * FROM {reader}"
    )
    row = "json_object('event', __tm_event, 'user', __tm_user, 'time', __tm_time_text)"
    return Relation(sql, row, Catalog(is_json=False, columns=columns, is_text=False))
