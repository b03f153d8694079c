"""The rows that were left out: a file of them, and how many there are of each reason."""

from __future__ import annotations

import contextlib
import csv
import json
from typing import TYPE_CHECKING, Final

from .._errors import UsageError
from .._files import replaced

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .sources import Source
    from .staging import Stage

__all__ = ["check_is_no_source", "check_rejects_file", "reasons", "write_rejects"]

_BLOCK: Final = 10_000
_COLUMNS: Final = ("source", "line", "reason", "row")


def check_rejects_file(path: Path) -> None:
    """Raise unless a file of rejected rows may have this name, and can be written.

    Raises:
        UsageError: it may not.
    """
    if path.suffix.lower() not in {".csv", ".ndjson", ".jsonl", ".json"}:
        raise UsageError(f"--rejects: {path} has to end in .ndjson or .csv")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--rejects: there is no folder {path.absolute().parent}")
    if path.is_dir():
        raise UsageError(f"--rejects: {path} is a folder; name a file in it")


def check_is_no_source(path: Path, sources: Sequence[Source]) -> None:
    """Raise if the file of rejected rows is one of those that are imported, by whatever name.

    Raises:
        UsageError: it is.
    """
    with contextlib.suppress(FileNotFoundError):
        status = path.stat()
        if (status.st_dev, status.st_ino) in {source.origin for source in sources}:
            raise UsageError(f"--rejects: {path} is an input file; name another one")


def reasons(stage: Stage) -> dict[str, int]:
    """Return how many rows were left out for each reason, the most frequent first."""
    return dict(
        stage.connection.execute(
            "SELECT reason, count(*) FROM rejects GROUP BY reason ORDER BY count(*) DESC, reason"
        ).fetchall()
    )


def write_rejects(path: Path, stage: Stage, sources: Sequence[Source]) -> None:
    """Write the rejected rows to a file, all of them or none."""
    try:
        with replaced(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            if path.suffix.lower() == ".csv":
                writer = csv.writer(file)
                writer.writerow(_COLUMNS)
                writer.writerows(_rows(stage, sources))
            else:
                for row in _rows(stage, sources):
                    named = dict(zip(_COLUMNS, row, strict=True))
                    file.write(json.dumps(named, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UsageError(f"--rejects: {path} cannot be written: {error.strerror}") from None


def _rows(stage: Stage, sources: Sequence[Source]) -> Iterator[tuple[str, int, str, str]]:
    cursor = stage.connection.execute("SELECT file, line, reason, row FROM rejects ORDER BY rowid")
    while block := cursor.fetchmany(_BLOCK):
        for file, line, reason, row in block:
            yield sources[file].name, line, reason, row
