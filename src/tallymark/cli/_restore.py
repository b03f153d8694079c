"""Restores from files that ``tallymark export`` has written: the preset ``tallymark`` of imports.

DuckDB reads the files. With pyarrow, whole columns are restored, else rows.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import importlib.util
import re
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import duckdb

from .._core.batches import COLUMNS
from .._core.untrusted import escaped, listed
from .._marking.restoring import RestoreWrite
from ..errors import InvalidTypeError, InvalidValueError
from ._errors import UsageError
from ._import.sources import find_sources
from ._row_progress import RowProgress
from ._signals import ended_by_signals
from ._writing import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from ._invocation import Invocation

__all__ = ["RestoreSummary", "check_options", "restore_command", "restore_files"]

#: How many rows are read at once.
_ROWS: Final = 65_536

#: What DuckDB's messages end with: advice for other options of its own, and their values.
_ADVICE: Final = re.compile(r"\n\s*(?:Possible |file = )|Try setting")

#: The types of ids that are read as they are, and those whose texts are. Others, such as floating
#: point numbers, have no obvious text.
_AS_THEY_ARE: Final = frozenset({"BIGINT", "INTEGER", "UINTEGER", "VARCHAR", "BLOB"})
_AS_TEXTS: Final = re.compile(
    r"U?(?:TINY|SMALL|BIG|HUGE)INT|DECIMAL\(\d+,0\)|UUID|ENUM\(.*", re.DOTALL
)

#: The index of a row in an error. People count from 1.
_ROW: Final = re.compile(r"^row (\d+):")

#: DuckDB's readers. All values are text at first: an id may be ``007``.
_LINE: Final = (
    "read_csv({path}, columns={{'line': 'VARCHAR'}}, delim=chr(1), quote='', escape='', "
    "header=false, auto_detect=false, strict_mode=false, compression={compression})"
)
_READERS: Final = {
    "csv": (
        "read_csv({path}, columns={{{columns}}}, header=true, delim={delimiter}, quote='\"', "
        "escape='\"', nullstr='', auto_detect=false, compression={compression})"
    ),
    "ndjson": (
        "read_json({path}, format='newline_delimited', records=true, columns={{{columns}}}, "
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
        """``csv``, ``tsv``, ``ndjson``, ``parquet``, or another one, which is refused."""
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
    """

    rows: int = 0
    new: dict[str, int] = field(default_factory=dict)


def check_options(**options: object) -> None:
    """Raise a `UsageError` if options are given that say how to read events: there are none."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if given:
        raise UsageError(f"{' and '.join(given)}: not with --preset tallymark, whose rows are bits")


def restore_command(
    run: Invocation,
    names: Sequence[str],
    file_format: str | None,
    *,
    memory: str,
    folder: Path | None,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Restore from files for ``tallymark import --preset tallymark``; print what was done.

    Arguments:
        run: the options of all commands.
        names: names of files, patterns, or ``-`` for the standard input.
        file_format: the format of all files; ``None`` to go by their extensions.
        memory, folder, dry_run, quiet: as for ``tallymark import``.

    Raises:
        UsageError, StoreError: as `restore_files`.
    """
    begun = time.monotonic()
    with (
        ended_by_signals(),
        tempfile.TemporaryDirectory(prefix="tallymark-restore-", dir=folder) as name,
        run.tally() as tally,
        RowProgress(shown=not quiet) as progress,
    ):
        files = find_sources(names or ("-",), Path(name), file_format, None)
        summary = restore_files(
            tally,
            files,
            memory=memory,
            dry_run=dry_run,
            on_rows=lambda rows: progress.show(rows, "restored"),
        )
    new = sum(summary.new.values())
    bits = ", ".join(f"{name} {count:,}" for name, count in summary.new.items() if count)
    run.output.answer(
        {
            "rows": summary.rows,
            "new": new,
            "sent": not dry_run,
            "seconds": round(time.monotonic() - begun, 3),
        },
        f"{counted(summary.rows, 'row')}; "
        + ("nothing was sent" if dry_run else f"new bits: {bits or 'none'}"),
    )
    return 0


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
    summary = RestoreSummary()

    def counted_parts(parts: Iterable[Any]) -> Iterator[Any]:
        for part in parts:
            yield part
            is_columns = hasattr(part, "column_names")
            summary.rows += len(part) if is_columns else 1
            if on_rows is not None and (is_columns or summary.rows % _ROWS == 0):
                on_rows(summary.rows)

    with duckdb.connect(config={"memory_limit": memory}) as database:
        for file in files:
            try:
                parts = counted_parts(_readable(_parts(database, file)))
                if dry_run:
                    _check(tally, parts)
                    continue
                for granularity, count in tally.restore(parts).items():
                    name = str(granularity)
                    summary.new[name] = summary.new.get(name, 0) + count
            except (InvalidTypeError, InvalidValueError) as error:
                message = _ROW.sub(lambda match: f"row {int(match[1]) + 1}:", str(error))
                raise UsageError(f"{file.name}: {message}") from error
    return summary


def _check(tally: Any, parts: Iterable[Any]) -> None:
    """Check rows as a restore does."""
    backend = tally.backend
    write = RestoreWrite(backend.marker.bitmap_write, backend.context.schema)
    blocks, _ = write.blocks(parts)
    for block in blocks:
        write.checked(block)


def _readable(parts: Iterator[Any]) -> Iterator[Any]:
    """Yield the parts of a file.

    Raises:
        InvalidValueError: the rest cannot be read. As an error of the rows, so that the message
            gets the number of ids that were written before.
    """
    rows = 0
    try:
        for part in parts:
            yield part
            rows += len(part) if hasattr(part, "column_names") else 1
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001
        # DuckDB's; and what pyarrow raises in their place, such as an `OSError` with their texts.
        text = str(error)
        if text.startswith("INTERRUPT Error") or (
            type(error) is RuntimeError and "interrupted" in text
        ):
            raise KeyboardInterrupt from None
        reason = " ".join(_ADVICE.split(text)[0].removeprefix("Invalid Input Error: ").split())
        behind = f" behind row {rows:,}" if rows else ""
        raise InvalidValueError(f"cannot be read{behind}: {escaped(reason, 300)}") from None


def _load_pyarrow() -> bool:
    """Import pyarrow, and what it imports when its arrays are used; return whether it is there.

    DuckDB and pyarrow drop a Ctrl-C that comes while they import.
    """
    if importlib.util.find_spec("pyarrow") is None:
        return False
    for name in ("numpy", "pandas", "pyarrow"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    return True


def _parts(database: duckdb.DuckDBPyConnection, file: SourceFile) -> Iterator[Any]:
    """Yield the rows of a file, as tuples or as record batches of Arrow.

    Raises:
        UsageError: it has other columns.
    """
    reader = _READERS.get("csv" if file.format == "tsv" else file.format)
    if reader is None:
        raise UsageError(f"{file.name}: an export is in {', '.join(_READERS)}, not {file.format}")
    if file.path.stat().st_size == 0:
        raise UsageError(f"{file.name} is empty: an export has at least a header")
    named = {
        "path": _literal(str(file.path)),
        "compression": _literal(file.compression),
        "delimiter": _literal("\t" if file.format == "tsv" else ","),
    }
    has_arrow = _load_pyarrow()
    columns = list(COLUMNS)
    if file.format in {"csv", "tsv"}:
        query = f"SELECT line FROM {_LINE.format(**named)} LIMIT 1"  # noqa: S608 - quoted
        first = database.execute(query).fetchone() or ("",)
        delimiter = "\t" if file.format == "tsv" else ","
        columns = _columns(file, next(csv.reader([str(first[0])], delimiter=delimiter)))
    described_columns = ", ".join(f"{_literal(name)}: 'VARCHAR'" for name in columns)
    relation = reader.format(columns=described_columns, **named)
    described = database.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()  # noqa: S608
    types = {str(name).lower(): str(kind) for name, kind, *_ in described}
    _check_names(file, types)
    kind = types["user_id"]
    if kind not in _AS_THEY_ARE and not _AS_TEXTS.fullmatch(kind):
        raise UsageError(
            f"{file.name}: the column user_id has the type {escaped(kind, 40)}; ids are whole "
            "numbers, texts, UUIDs or bytes"
        )
    user_id = "user_id" if kind in _AS_THEY_ARE else "CAST(user_id AS VARCHAR)"
    selected = ", ".join(f"CAST({name} AS VARCHAR) AS {name}" for name in COLUMNS[:3])
    query = f"SELECT {selected}, {user_id} AS user_id FROM {relation}"  # noqa: S608
    if has_arrow:
        stream: Any = database.sql(query)
        reader = getattr(stream, "to_arrow_reader", None) or stream.fetch_arrow_reader  # before 1.4
        yield from reader(_ROWS)
        return
    result = database.execute(query)
    while rows := result.fetchmany(_ROWS):
        yield from rows


def _columns(file: SourceFile, header: Sequence[str]) -> list[str]:
    """Return different names for the columns of a file of CSV: of those that are needed, their own.

    Raises:
        UsageError: one of these is missing, or there are two.
    """
    names = [name.removeprefix("\ufeff").lower() for name in header]
    _check_names(file, names)
    twice = [name for name in COLUMNS if names.count(name) > 1]
    if twice:
        raise UsageError(f"{file.name} has several columns {' and '.join(twice)}")
    return [name if name in COLUMNS else f"other {index}" for index, name in enumerate(names)]


def _check_names(file: SourceFile, names: Collection[str]) -> None:
    """Raise a `UsageError` if the columns of an export are not among these."""
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        found = listed((escaped(name, 40) for name in names), len(names), 10)
        raise UsageError(
            f"{file.name} is no export of tallymark: it has no column {' and '.join(missing)}; "
            f"found: {found}. --preset names other formats, --map their columns"
        )


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
