"""Restores from files that ``tallymark export`` has written: the preset ``tallymark`` of imports.

DuckDB reads the files. With pyarrow, whole columns are restored, else rows.
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import duckdb

from .._core.batches import COLUMNS
from .._core.untrusted import escaped, listed
from .._marking.restoring import RestoreWrite
from ..errors import InvalidTypeError, InvalidValueError
from ._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["RestoreSummary", "restore_files"]

#: How many rows are read at once.
_ROWS: Final = 65_536

#: The options of DuckDB's readers. All values are text at first: an id may be ``007``.
_READERS: Final = {
    "csv": (
        "read_csv({path}, all_varchar=true, header=true, delim={delimiter}, quote='\"', "
        "escape='\"', nullstr='', sample_size=1, compression={compression})"
    ),
    "ndjson": (
        "read_json({path}, format='newline_delimited', records=true, columns={{"
        "event: 'VARCHAR', granularity: 'VARCHAR', period: 'VARCHAR', user_id: 'VARCHAR'}}, "
        "compression={compression})"
    ),
    "parquet": "read_parquet({path}, hive_partitioning=false)",
}


class SourceFile(Protocol):
    """A file to restore from."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def path(self) -> Path:
        """Where it is."""
        ...

    @property
    def format(self) -> str:
        """``csv``, ``tsv``, ``ndjson``, ``json`` or ``parquet``."""
        ...

    @property
    def compression(self) -> str:
        """``gzip``, ``zstd`` or ``none``."""
        ...


@dataclass
class RestoreSummary:
    """What a restore has done.

    Attributes:
        rows: how many rows the files have.
        new: how many bits were set that were not set before, by the names of the granularities.
        seconds: how long it took.
    """

    rows: int = 0
    new: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def restore_files(
    tally: Any,
    files: Sequence[SourceFile],
    *,
    memory: str = "512MB",
    dry_run: bool = False,
    on_rows: Callable[[int], object] | None = None,
) -> RestoreSummary:
    """Restore bitmaps from files of an export, one file after the other.

    It is safe to repeat. Rows may be in any order; that of an export is the fastest.

    Arguments:
        tally: a blocking tally.
        files: the files.
        memory: how much memory DuckDB may use.
        dry_run: whether to check all rows and to send nothing.
        on_rows: is called now and then with the number of rows that have been read.

    Raises:
        UsageError: a file cannot be read, or a row is not allowed. The bits of rows before it are
            set; the message says how many.
        StoreError: the store has failed; so far, some of the bits are set.
    """
    begun = time.monotonic()
    summary = RestoreSummary()

    def counted(parts: Iterable[Any]) -> Iterator[Any]:
        for part in parts:
            yield part
            summary.rows += len(part) if hasattr(part, "column_names") else 1
            if on_rows is not None and (hasattr(part, "column_names") or summary.rows % _ROWS == 0):
                on_rows(summary.rows)

    with duckdb.connect(config={"memory_limit": memory}) as database:
        for file in files:
            try:
                parts = counted(_parts(database, file))
                if dry_run:
                    _check(tally, parts)
                    continue
                for granularity, count in tally.restore(parts).items():
                    name = str(granularity)
                    summary.new[name] = summary.new.get(name, 0) + count
            except (InvalidTypeError, InvalidValueError) as error:
                raise UsageError(f"{file.name}: {error}") from error
            except duckdb.InterruptException:
                raise KeyboardInterrupt from None
            except duckdb.Error as error:
                first = escaped(str(error).partition("\n")[0])
                raise UsageError(f"{file.name} cannot be read: {first}") from None
    summary.seconds = time.monotonic() - begun
    return summary


def _check(tally: Any, parts: Iterable[Any]) -> None:
    """Check rows as a restore does."""
    backend = tally.backend
    write = RestoreWrite(backend.marker.bitmap_write, backend.context.schema)
    blocks, _ = write.blocks(parts)
    for block in blocks:
        write.checked(block)


def _parts(database: duckdb.DuckDBPyConnection, file: SourceFile) -> Iterator[Any]:
    """Yield the rows of a file, as tuples or as record batches of Arrow.

    Raises:
        UsageError: it has other columns.
    """
    reader = _READERS.get({"tsv": "csv", "json": "ndjson"}.get(file.format, file.format))
    if reader is None:
        raise UsageError(f"{file.name}: an export is in {', '.join(_READERS)}, not {file.format}")
    relation = reader.format(
        path=_literal(str(file.path)),
        compression=_literal(file.compression),
        delimiter=_literal("\t" if file.format == "tsv" else ","),
    )
    if file.path.stat().st_size == 0:
        raise UsageError(f"{file.name} is empty: an export has at least a header")
    # The names of the file are quoted.
    described = database.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()  # noqa: S608
    types = {str(name).lower(): str(kind) for name, kind, *_ in described}
    missing = [name for name in COLUMNS if name not in types]
    if missing:
        found = listed((escaped(name, 40) for name in types), len(types), 10)
        raise UsageError(
            f"{file.name} is no export of tallymark: it has no column {' and '.join(missing)}; "
            f"found: {found}. --preset names other formats, --map their columns"
        )
    kind = types["user_id"]
    user_id = (
        "lower(hex(user_id))"
        if kind == "BLOB"
        else "user_id"
        if kind in {"BIGINT", "INTEGER", "UINTEGER", "VARCHAR"}
        else "CAST(user_id AS VARCHAR)"
    )
    selected = ", ".join(f"CAST({name} AS VARCHAR) AS {name}" for name in COLUMNS[:3])
    query = f"SELECT {selected}, {user_id} AS user_id FROM {relation}"  # noqa: S608
    if importlib.util.find_spec("pyarrow") is not None:
        stream: Any = database.sql(query)
        yield from stream.to_arrow_reader(_ROWS)
        return
    result = database.execute(query)
    while rows := result.fetchmany(_ROWS):
        yield from rows


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
