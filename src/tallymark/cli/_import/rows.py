"""The query for the rows of a file: event, user and bucket of each, or why it is left out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import duckdb

from ..._core.untrusted import escaped, listed
from .._errors import UsageError
from .expressions import SKIPPED
from .fields import Field, as_text, text
from .readers import problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .expressions import Rules
    from .fields import Catalog
    from .presets import Preset
    from .readers import Relation
    from .sources import Source

__all__ = ["LONGEST_ROW", "RowMapping", "rows_query"]

#: How much of a row the file of rejected rows has, in characters.
LONGEST_ROW: Final = 10_000

#: How many columns a message lists.
_LISTED: Final = 30


@dataclass(frozen=True)
class RowMapping:
    """Where the event, the user and the time of rows are, and which rows count.

    Attributes:
        fields: what ``--map`` says: ``event``, ``user``, ``time``.
        path_events: for log files, regular expressions for paths, and the events they stand for.
        where: a condition in SQL; ``None`` for all rows.
        preset: where they are otherwise; ``None`` if that is unknown.
        preset_name: its name.
    """

    fields: Mapping[str, Field]
    path_events: tuple[tuple[str, str], ...] = ()
    where: str | None = None
    preset: Preset | None = None
    preset_name: str | None = None
    needs_columns: bool = field(init=False)

    def __post_init__(self) -> None:
        """Check that all is there."""
        has_sql = any(each.sql is not None for each in self.fields.values())
        object.__setattr__(self, "needs_columns", has_sql or self.where is not None)
        if self.where is not None and not self.where.strip():
            raise UsageError("--where is empty")
        if self.preset is None:
            missing = [name for name in ("event", "user", "time") if name not in self.fields]
            if missing:
                advice = " ".join(f"{name}=COLUMN" for name in missing)
                raise UsageError(f"where are these in the rows? --map {advice}, or --preset NAME")
        is_log = self.preset is not None and self.preset.line_pattern is not None
        if self.path_events and not is_log:
            raise UsageError("--path-event is for log files: --preset nginx")
        if is_log and "event" not in self.fields and not self.path_events:
            raise UsageError(
                f"--preset {self.preset_name} needs the events that paths stand for, such as "
                "--path-event '^/checkout$=checkout', or --map event=COLUMN"
            )

    def event(self, catalog: Catalog) -> str:
        """Return the expression for the event."""
        preset = self.preset
        if "event" in self.fields or preset is None:
            return catalog.value("event", self.fields["event"])
        if self.path_events:
            cases = " ".join(
                f"WHEN regexp_matches(path, {text(pattern)}) THEN {text(event)}"
                for pattern, event in self.path_events
            )
            return f"CASE {cases} END"
        if preset.event_sql is not None:
            self._filled("", catalog, needed=True)
            return self._filled(preset.event_sql, catalog)
        return catalog.value("event", preset.event)

    def value(self, what: str, catalog: Catalog) -> str:
        """Return the expression for the user or the time."""
        of = self.fields.get(what) or getattr(self.preset, what)
        return catalog.value(what, of)

    def keep(self, catalog: Catalog) -> str:
        """Return the condition for rows that count."""
        conditions = [f"({self.where}\n)"] if self.where is not None else []
        if self.preset is not None and self.preset.keep_sql is not None:
            conditions.append(f"({self._filled(self.preset.keep_sql, catalog)})")
        return " AND ".join(conditions) or "true"

    def _filled(self, sql: str, catalog: Catalog, *, needed: bool = False) -> str:
        """Return SQL of the preset with its fields; ``NULL`` for those that are not there."""
        names = self.preset.fields if self.preset is not None else {}
        if needed and not any(map(catalog.has, names.values())):
            catalog.value("event", Field(tuple(names.values())))  # says what is missing
        values = {name: catalog.column(column) or "NULL" for name, column in names.items()}
        return sql.format_map(values)


def rows_query(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    number: int,
    rows: Relation,
    mapping: RowMapping,
    rules: Rules,
) -> str:
    """Return a query for the columns of the table ``staged``.

    Arguments:
        connection: finds out the types of columns.
        source: the file.
        number: its index.
        rows: its rows.
        mapping: where the event, the user and the time are.
        rules: what they have to be.

    Raises:
        UsageError: columns are missing, or the SQL of the user is not allowed.
    """
    catalog = rows.catalog
    _check_options(connection, mapping, rules)
    if mapping.needs_columns or not catalog.is_json:
        reserved = [name for name in catalog.columns if name.lower().startswith("__tm_")]
        if reserved:
            raise UsageError(f"{source.name}: column {escaped(reserved[0], 80)}: __tm_ is reserved")
    try:
        event = mapping.event(catalog)
        user, time = (mapping.value(what, catalog) for what in ("user", "time"))
        keep = mapping.keep(catalog)
    except UsageError as error:
        fit = "" if mapping.preset is None else f"the preset {mapping.preset_name} does not fit "
        raise UsageError(f"{fit}{source.name}: {error}") from None
    incoming = rows.sql
    if catalog.is_json:
        incoming = _with_values(incoming, catalog, with_columns=mapping.needs_columns)
    # What the user has written sees only the columns of the file.
    parts = {"__tm_event": event, "__tm_user": user, "__tm_time": time, "__tm_keep": keep}
    kinds = _types(connection, parts, incoming, rows, source)
    for name in ("__tm_event", "__tm_user", "__tm_time"):
        if kinds[name] == "JSON":  # a text without its quotation marks
            parts[name] = f"json_extract_string({parts[name]}, '$')"
    is_blob = kinds["__tm_user"] == "BLOB"
    for name, what in (("__tm_event", "event"), ("__tm_user", "user")):
        kind = kinds[name]
        if kind.endswith("]") or kind.startswith(("STRUCT", "MAP")):
            raise UsageError(f"{source.name}: the {what} is no text and no number, but {kind[:80]}")
    compound = "".join(
        f"WHEN {_is_compound(catalog, sql, name)} THEN '{what} is an object or a list' "
        for name, sql, what in (
            ("__tm_event", event, "event"),
            ("__tm_user", user, "user id"),
        )
        if catalog.is_json and "__tm_" in sql
    )
    parts["__tm_user"] = (
        f"hex({user})" if is_blob else as_text(parts["__tm_user"], kinds["__tm_user"])
    )
    parts["__tm_event"] = as_text(parts["__tm_event"], kinds["__tm_event"])
    parts["__tm_keep"] = f"CAST({keep} AS BOOLEAN)"
    selected = ", ".join(f"{sql} AS {name}" for name, sql in parts.items())
    mapped = f"SELECT *, {selected} FROM ({incoming}) AS incoming"
    # In a query of its own: DuckDB computes an expression in each branch of a CASE anew.
    texts = f"SELECT *, trim(CAST(__tm_time AS VARCHAR)) AS __tm_time_text FROM ({mapped})"
    parsed = f"SELECT *, {rules.user_id('__tm_user')} AS __tm_user_id FROM ({texts})"
    parsed = rules.with_local_time(parsed, "__tm_time", "__tm_time_text", kinds["__tm_time"])
    skips = mapping.preset is not None and mapping.preset.skips_incomplete
    judged = (
        f"SELECT *, {rules.reason(compound, skips_incomplete=skips)} AS __tm_reason FROM ({parsed})"
    )
    return (
        f"SELECT CAST({number} AS INTEGER) AS file, "
        "CASE WHEN __tm_reason IS NULL THEN __tm_event END AS event, "
        "CASE WHEN __tm_reason IS NULL THEN __tm_user_id END AS user_id, "
        f"CASE WHEN __tm_reason IS NULL THEN {rules.bucket('__tm_local')} END AS bucket, "
        "__tm_reason AS reason, "
        f"CASE WHEN __tm_reason <> '{SKIPPED}' THEN __tm_line END AS line, "
        f"CASE WHEN __tm_reason <> '{SKIPPED}' THEN left({rows.row}, {LONGEST_ROW}) END AS row "
        f"FROM ({judged})"
    )


def _check_options(
    connection: duckdb.DuckDBPyConnection, mapping: RowMapping, rules: Rules
) -> None:
    """Raise a `UsageError` if DuckDB does not take a pattern or a format."""
    checks = [("--path-event", "regexp_matches('', ?)", each) for each, _ in mapping.path_events]
    if rules.time_format is not None:
        checks.append(("--time-format", "try_strptime('', ?)", rules.time_format))
    option = value = ""
    try:
        for option, function, value in checks:  # noqa: B007 - the message has the last one
            connection.execute(f"SELECT {function}", [value])
    except duckdb.Error as error:
        raise UsageError(f"{option} {escaped(value, 80)}: {problem(error)}") from None


def _is_compound(catalog: Catalog, sql: str, column: str) -> str:
    """Return the condition that a value of JSON is an object or a list.

    Arguments:
        catalog: has the paths.
        sql: the expression of the value.
        column: the column with its text.
    """
    paths = {f"__tm_values[{number}]": path for number, path in enumerate(catalog.paths, 1)}
    tests = " OR ".join(
        f"({column} = {value} AND json_type(__tm_raw, {text(path)}) IN ('OBJECT', 'ARRAY'))"
        for value, path in {**paths, **catalog.rare}.items()
        if value in sql
    )
    begins = f"starts_with({column}, '{{') OR starts_with({column}, '[')"
    return f"CASE WHEN {begins} THEN {tests or 'false'} ELSE false END"


def _with_values(rows: str, catalog: Catalog, *, with_columns: bool) -> str:
    """Return rows of JSON with the values of the paths that the mapping has asked for.

    Arguments:
        rows: the rows.
        catalog: their keys, and the paths.
        with_columns: whether also the keys are columns, for the user's SQL.
    """
    paths = ", ".join(map(text, catalog.paths or ["$"]))
    columns = ""
    if with_columns and catalog.columns:
        structure = text(json.dumps(_transformed(catalog.columns)))
        columns = f", unnest(try(json_transform(__tm_raw, {structure})))"
    return (
        "SELECT *, CASE WHEN __tm_values IS NULL THEN 'malformed JSON' END AS __tm_malformed FROM "
        f"(SELECT __tm_line, __tm_raw, try(json_extract_string(__tm_raw, [{paths}])) AS __tm_values"
        f"{columns} FROM ({rows}))"
    )


def _transformed(structure: Any) -> Any:
    """Return the structure of JSON for `json_transform`: ids may be negative in later rows."""
    if isinstance(structure, dict):
        return {key: _transformed(inner) for key, inner in structure.items()} or "JSON"
    if isinstance(structure, list):
        return [_transformed(inner) for inner in structure]
    return {"NULL": "JSON", "UBIGINT": "BIGINT"}.get(structure, structure)


def _types(
    connection: duckdb.DuckDBPyConnection,
    parts: Mapping[str, str],
    incoming: str,
    rows: Relation,
    source: Source,
) -> dict[str, str]:
    """Return the types of expressions.

    Raises:
        UsageError: DuckDB does not take them.
    """
    selected = ", ".join(f"{sql} AS {name}" for name, sql in parts.items())
    try:
        described = connection.execute(
            f"DESCRIBE SELECT {selected} FROM ({incoming}) AS incoming"
        ).fetchall()
    except duckdb.Error as error:
        names = rows.catalog.names()
        found = listed((escaped(name, 80) for name in names[:_LISTED]), len(names), _LISTED)
        raise UsageError(
            f"{source.name}: SQL of --where or --map: {problem(error)}; columns: {found}"
        ) from None
    return {row[0]: str(row[1]) for row in described}
