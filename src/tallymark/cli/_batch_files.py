"""Files of an export: CSV, NDJSON and Parquet, written batch by batch, whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import json
import re
import stat
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol

from .._core.batches import COLUMNS
from .._core.id_conversion import bytes_text
from .._core.offsets import is_array
from ..errors import MissingExtraError
from ._errors import UsageError
from ._files import file_mode, replaced
from ._signals import ended_by_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .._core.batches import Batch

__all__ = ["FORMATS", "STDOUT", "BatchWriter", "file_format", "opened"]

#: The name of the standard output on a command line.
STDOUT: Final = "-"

#: The formats, as ``--format`` names them, and the endings of their files.
FORMATS: Final = ("csv", "ndjson", "parquet")
_ENDINGS: Final = {
    ".csv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
    ".pq": "parquet",
}

#: How strongly gzip compresses: at level 6, it takes three times the time, for a tenth less.
_LEVEL: Final = 1

#: What RFC 4180 quotes.
_QUOTED: Final = re.compile(r'[",\r\n]')

#: How many rows a row group of Parquet has at least; so many are in memory.
_ROW_GROUP: Final = 500_000

#: How much memory DuckDB may use.
_MEMORY: Final = "256MB"

#: Writes to a file that exists, not to another one that then gets its name.
_IN_PLACE: Final = "USE_TMP_FILE false"

_SQL_TYPES: Final[dict[type | None, str]] = {
    None: "BIGINT",
    int: "BIGINT",
    str: "VARCHAR",
    uuid.UUID: "VARCHAR",
    bytes: "BLOB",
}


class BatchWriter(Protocol):
    """Writes batches to a file."""

    def write(self, batch: Batch[Any]) -> None:
        """Write the rows of a batch."""
        ...

    def finish(self) -> None:
        """Write what is missing at the end."""
        ...


def file_format(file: str, chosen: str | None) -> tuple[str, bool]:
    """Return the format of a file, and whether it is compressed by gzip.

    Arguments:
        file: its name, or `STDOUT`.
        chosen: the argument of ``--format``; ``None`` to go by the ending.

    Raises:
        UsageError: the format is unknown, or this is no name of a file.
        OSError: the file, or the folder that has it, cannot be looked at.
    """
    if file == STDOUT:
        if chosen is None:
            raise UsageError("the standard output has no name; add --format csv or ndjson")
        if chosen == "parquet":
            raise UsageError("Parquet needs a file: it cannot be written to the standard output")
        return chosen, False
    if not file:
        raise UsageError(f"the name of the file is empty; {STDOUT} is the standard output")
    mode = file_mode(file)
    if mode is not None and not stat.S_ISREG(mode):
        raise UsageError(f"{file} is no regular file; {STDOUT} is the standard output")
    path = Path(file.lower())
    compressed = path.suffix == ".gz"
    known = chosen or _ENDINGS.get(path.with_suffix("").suffix if compressed else path.suffix)
    if known is None:
        raise UsageError(
            f"{file}: its name does not say in which format; use .csv, .ndjson or .parquet (.gz "
            f"behind the first two), or add --format {', '.join(FORMATS)}"
        )
    if compressed and known == "parquet":
        raise UsageError(f"{file}: Parquet is compressed by itself; leave out .gz")
    return known, compressed


@contextlib.contextmanager
def opened(
    file: str, kind: str, user_ids: type | None, *, compressed: bool
) -> Iterator[BatchWriter]:
    """Yield a writer; the file is there when the block has ended without an exception.

    Arguments:
        file: the name of the file, or `STDOUT`. An existing file is replaced at the end.
        kind: one of `FORMATS`.
        user_ids: the type of the ids; ``None`` for offsets.
        compressed: whether to compress CSV and NDJSON.

    Raises:
        MissingExtraError: Parquet without DuckDB and pyarrow.
        OSError: the file cannot be written.
        SystemExit: a signal has ended the program, which would leave half a file.
    """
    if file == STDOUT:
        sys.stdout.flush()
        writer = _TEXT_WRITERS[kind](sys.stdout.buffer)
        yield writer
        writer.finish()
        sys.stdout.buffer.flush()
        return
    with ended_by_signals(), replaced(file) as part:
        if kind == "parquet":
            with _parquet_writer(part, user_ids) as parquet:
                yield parquet
            return
        with part.open("wb") as raw, contextlib.ExitStack() as stack:
            stream: Any = raw
            if compressed:  # without a name and a time: equal exports are equal files
                stream = stack.enter_context(
                    gzip.GzipFile("", "wb", compresslevel=_LEVEL, fileobj=raw, mtime=0)
                )
            writer = _TEXT_WRITERS[kind](stream)
            yield writer
            writer.finish()


def _id_texts(batch: Batch[Any]) -> list[str]:
    """Return the ids as texts; those of bytes are read as no other id."""
    ids = batch.ids()
    first = ids[0] if ids else 0
    if isinstance(first, str):
        return ids
    return list(map(bytes_text, ids)) if isinstance(first, bytes) else list(map(str, ids))


class _CsvWriter:
    """Writes CSV (RFC 4180, lines end with LF) in UTF-8 with a header."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        stream.write(f"{','.join(COLUMNS)}\n".encode())

    def write(self, batch: Batch[Any]) -> None:
        """Write the rows of a batch."""
        texts = _id_texts(batch)
        if _QUOTED.search("".join(texts)):
            texts = list(map(_quoted, texts))
        begin = f"{_quoted(batch.event)},{batch.granularity},{batch.period_text or ''},"
        # In one text: 6.5 million rows for a second of CPU time, and `csv.writer` writes 1.5.
        self._stream.write((begin + f"\n{begin}".join(texts) + "\n").encode())

    def finish(self) -> None:
        """Write nothing."""


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


class _NdjsonWriter:
    """Writes an object of JSON in each line, in UTF-8."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, batch: Batch[Any]) -> None:
        """Write the rows of a batch."""
        texts = _id_texts(batch)
        if not isinstance(batch.ids()[0], int):
            texts = list(map(_json, texts))
        begin = (
            f'{{"event":{_json(batch.event)},"granularity":"{batch.granularity}",'
            f'"period":{_json(batch.period_text)},"user_id":'
        )
        self._stream.write((begin + f"}}\n{begin}".join(texts) + "}\n").encode())

    def finish(self) -> None:
        """Write nothing."""


_json: Final = json.JSONEncoder(ensure_ascii=False).encode

_TEXT_WRITERS: Final[dict[str, Callable[[BinaryIO], BatchWriter]]] = {
    "csv": _CsvWriter,
    "ndjson": _NdjsonWriter,
}


# --- Parquet


@contextlib.contextmanager
def _parquet_writer(path: Path, user_ids: type | None) -> Iterator[BatchWriter]:
    """Yield a writer of Parquet: with pyarrow, which needs no file in between, or with DuckDB."""
    kind = _SQL_TYPES[user_ids]
    if importlib.util.find_spec("pyarrow") is not None:
        arrow = _ArrowWriter(path, kind)
        with contextlib.closing(arrow):
            yield arrow
            arrow.finish()
        return
    if importlib.util.find_spec("duckdb") is None:
        raise MissingExtraError(
            "Parquet needs DuckDB, which is not installed; run: pip install 'tallymark[import]'"
        )
    with tempfile.TemporaryDirectory(prefix="tallymark-export-") as folder:
        staged = _DuckWriter(path, Path(folder), kind)
        with contextlib.closing(staged):
            yield staged
            staged.finish()


class _ParquetWriter:
    """Gathers batches for the row groups of Parquet."""

    def __init__(self) -> None:
        self._batches: list[Batch[Any]] = []
        self._rows = 0

    def write(self, batch: Batch[Any]) -> None:
        """Write the rows of a batch, or keep them for later."""
        self._batches.append(batch)
        self._rows += len(batch)
        if self._rows >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._batches:
            self._write(self._batches)
        self._batches, self._rows = [], 0

    def _write(self, batches: list[Batch[Any]]) -> None:
        raise NotImplementedError


class _ArrowWriter(_ParquetWriter):
    """Writes Parquet with pyarrow: a row group at a time."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__()
        self._arrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
        types = {"BIGINT": "int64", "VARCHAR": "string", "BLOB": "binary"}
        text = self._arrow.dictionary(self._arrow.int32(), self._arrow.string())
        ids = self._arrow.type_for_alias(types[kind])
        self._schema = self._arrow.schema(
            [*((name, text) for name in COLUMNS[:3]), (COLUMNS[3], ids)]
        )
        self._file = parquet.ParquetWriter(
            str(path), self._schema, compression="zstd", store_schema=False
        )

    def _write(self, batches: list[Batch[Any]]) -> None:
        table = self._arrow.Table.from_batches(
            [batch.to_arrow() for batch in batches], self._schema
        )
        self._file.write_table(table.unify_dictionaries(), row_group_size=2 * _ROW_GROUP)

    def finish(self) -> None:
        """Write the last row group."""
        self._flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _DuckWriter(_ParquetWriter):
    """Writes Parquet with DuckDB.

    Each part of the rows is written to a file of its own at first, which has the numbers of
    bitmaps in place of their names. At the end, DuckDB copies all parts into one file. With one
    thread, which needs the least memory and CPU time: 5 million rows a second, and 120 MB.
    """

    def __init__(self, path: Path, folder: Path, kind: str) -> None:
        super().__init__()
        self._duckdb = importlib.import_module("duckdb")
        self._path = path
        self._folder = folder
        self._kind = kind
        self._parts: list[str] = []
        self._names: list[Any] = []
        self._database = self._duckdb.connect(
            config={"memory_limit": _MEMORY, "threads": 1, "temp_directory": str(folder)}
        )

    def _write(self, batches: list[Batch[Any]]) -> None:
        if is_array(batches[0].user_ids):
            numpy = importlib.import_module("numpy")
            numbers = numpy.repeat(
                numpy.arange(1, len(batches) + 1), [len(batch) for batch in batches]
            )
            ids = numpy.concatenate([batch.user_ids for batch in batches])
            self._database.register("staged", {"number": numbers, "id": ids})
            source, lists = "SELECT number, id FROM staged", None
        else:
            source = "SELECT unnest($1) AS number, unnest($2) AS id"
            lists = [
                [number for number, batch in enumerate(batches, 1) for _ in range(len(batch))],
                [each for batch in batches for each in self._values(batch)],
            ]
        part = _literal(self._folder / f"{len(self._parts)}.parquet")
        self._run(f"COPY ({source}) TO {part} (FORMAT parquet)", lists)
        first = len(self._names) + 1
        names = (f"${first + index}[number] AS {name}" for index, name in enumerate(COLUMNS[:3]))
        columns = ", ".join([*names, f"CAST(id AS {self._kind}) AS {COLUMNS[3]}"])
        self._parts.append(f"SELECT {columns} FROM read_parquet({part})")  # noqa: S608
        self._names += [
            [batch.event for batch in batches],
            [str(batch.granularity) for batch in batches],
            [batch.period_text for batch in batches],
        ]

    def _values(self, batch: Batch[Any]) -> list[Any]:
        return _id_texts(batch) if self._kind == "VARCHAR" else batch.ids()

    def finish(self) -> None:
        """Write the file."""
        self._flush()
        columns = [f"CAST(NULL AS VARCHAR) AS {name}" for name in COLUMNS[:3]]
        empty = f"SELECT {', '.join(columns)}, CAST(NULL AS {self._kind}) AS {COLUMNS[3]} LIMIT 0"
        rows = " UNION ALL ".join(self._parts or [empty])
        path = _literal(self._path)
        self._run(
            f"COPY ({rows}) TO {path} (FORMAT parquet, COMPRESSION zstd, {_IN_PLACE})", self._names
        )

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _run(self, query: str, parameters: list[Any] | None = None) -> None:
        try:
            self._database.execute(query, parameters)
        except self._duckdb.InterruptException:
            raise KeyboardInterrupt from None
        except self._duckdb.Error as error:
            first = str(error).partition("\n")[0]
            raise UsageError(f"the Parquet file cannot be written: {first}") from None


def _literal(path: Path) -> str:
    """Return the name of a file as a literal of SQL."""
    return "'" + str(path).replace("'", "''") + "'"
