"""Files to import: names, globs, zip archives and the standard input, with their formats."""

from __future__ import annotations

import glob
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Final

from .._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["FORMATS", "STDIN", "Source", "find_sources"]

#: The name of the standard input on a command line.
STDIN: Final = "-"

#: The formats, as ``--format`` names them; those of ``text`` are log files, read by a preset.
FORMATS: Final = ("csv", "tsv", "ndjson", "json", "parquet", "text")

_EXTENSIONS: Final = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".ldjson": "ndjson",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".log": "text",
    ".txt": "text",
}
_COMPRESSIONS: Final = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}

#: How compressed data begins, by which the compression of the standard input is known.
_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}

#: What DuckDB would take for a pattern in the name of a file.
_PATTERN: Final = frozenset("*?[]{}")


@dataclass(frozen=True)
class Source:
    """A file to import.

    Attributes:
        name: what messages and rejected rows call it.
        path: where it is.
        format: one of `FORMATS`.
        compression: ``gzip``, ``zstd`` or ``none``.
        size: its size in bytes.
        stamp: when it was written; 0 if it was made from another file.
    """

    name: str
    path: Path
    format: str
    compression: str
    size: int
    stamp: int

    @property
    def fingerprint(self) -> list[object]:
        """What changes when the file does."""
        return [self.name, self.format, self.size, self.stamp]


def find_sources(
    names: Sequence[str], folder: Path, file_format: str | None, default_format: str | None
) -> list[Source]:
    """Return the files with these names.

    Arguments:
        names: names of files, patterns with ``*``, ``?`` and ``[]``, or `STDIN`.
        folder: where the standard input and the files of archives are written to.
        file_format: the format of all files; ``None`` to go by their extensions.
        default_format: the format of files whose extension says nothing; ``None`` if unknown.

    Raises:
        UsageError: there is no such file, or its format is unknown.
    """
    sources = []
    for name in names:
        if name == STDIN:
            sources.append(_spooled(folder, file_format or default_format))
            continue
        for path in _matching(name):
            if path.suffix.lower() == ".zip":
                sources += _unpacked(path, folder, file_format, default_format)
            else:
                sources.append(_source(str(path), path, folder, file_format, default_format))
    return sources


def _matching(name: str) -> Iterable[Path]:
    path = Path(name)
    if path.is_file():  # also a name that looks like a pattern
        return [path]
    if path.is_dir():
        raise UsageError(f"{name} is a folder; name its files, such as {name.rstrip('/')}/*.csv")
    if not _PATTERN.intersection(name):
        raise UsageError(f"there is no file {name}")
    # `Path.glob` takes no absolute pattern.
    found = sorted(Path(each) for each in glob.glob(name, recursive=True))  # noqa: PTH207
    found = [each for each in found if each.is_file()]
    if not found:
        raise UsageError(f"no file matches {name}")
    return found


def _source(
    name: str, path: Path, folder: Path, file_format: str | None, default_format: str | None
) -> Source:
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    compression = _COMPRESSIONS.get(suffixes[-1], "none") if suffixes else "none"
    if compression != "none":
        suffixes.pop()
    known = file_format or (_EXTENSIONS.get(suffixes[-1]) if suffixes else None) or default_format
    if known is None:
        raise UsageError(
            f"{name}: its name does not say in which format it is; add --format "
            f"{', '.join(FORMATS[:-1])}"
        )
    status = path.stat()
    path = path.absolute()
    with path.open("rb") as file:
        beginning = file.read(4)
    if beginning[:2] == b"\xfe\xff":
        raise UsageError(
            f"{name} is in UTF-16 of big-endian order, which cannot be read; convert it: "
            "iconv -f utf-16 -t utf-8"
        )
    if _PATTERN.intersection(str(path)):
        link = folder / f"source-{len(list(folder.iterdir()))}{path.suffix}"
        link.symlink_to(path)
        path = link
    return Source(name, path, known, compression, status.st_size, status.st_mtime_ns)


def _unpacked(
    path: Path, folder: Path, file_format: str | None, default_format: str | None
) -> list[Source]:
    """Return the files of a zip archive, unpacked; their own compression stays."""
    sources = []
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.is_dir() or PurePosixPath(member.filename).name.startswith("."):
                    continue
                suffixes = "".join(PurePosixPath(member.filename).suffixes[-2:])
                # A name of ours: that of a member may lead out of the folder.
                target = folder / f"member-{len(list(folder.iterdir()))}"
                with archive.open(member) as packed, target.open("wb") as file:
                    shutil.copyfileobj(packed, file)
                name = f"{path}:{member.filename}"
                known = file_format or (default_format if not suffixes else None)
                sources.append(_source(name, target, folder, known, default_format))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise UsageError(f"{path} is no zip archive that can be read: {error}") from None
    return [
        Source(each.name, each.path, each.format, each.compression, each.size, 0)
        for each in sources
    ]


def _spooled(folder: Path, file_format: str | None) -> Source:
    """Write the standard input to a file, which is read several times."""
    if file_format is None:
        raise UsageError("the standard input has no name; add --format csv, ndjson or so")
    if sys.stdin.isatty():
        raise UsageError("the standard input is the terminal; name a file, or use a pipe")
    path = folder / "standard-input"
    stream: BinaryIO = sys.stdin.buffer
    with path.open("wb") as file:
        shutil.copyfileobj(stream, file)
    with path.open("rb") as file:
        beginning = file.read(4)
    compression = next(
        (kind for magic, kind in _MAGIC.items() if beginning.startswith(magic)), "none"
    )
    return Source("standard input", path, file_format, compression, path.stat().st_size, 0)
