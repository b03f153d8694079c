"""Files to import: names, globs, zip archives, pipes and the standard input, with their formats."""

from __future__ import annotations

import codecs
import contextlib
import glob
import lzma
import os
import shutil
import sys
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Final

from ..._core.untrusted import listed
from .._errors import UsageError, warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["FORMATS", "STDIN", "Source", "find_sources", "is_stream"]

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

#: How compressed data, archives and Parquet begin, whatever their names are.
_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
_PARQUET: Final = b"PAR1"

#: What DuckDB would take for a pattern in the name of a file.
_PATTERN: Final = frozenset("*?[]{}")

#: What a damaged archive raises.
_DAMAGED: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True)
class Source:
    """A file to import.

    Attributes:
        name: what messages and rejected rows call it.
        path: where it is.
        format: one of `FORMATS`.
        compression: ``gzip``, ``zstd`` or ``none``.
        size: its size in bytes.
        stamp: when it was written; the checksum of a member of an archive; 0 of a stream.
        encoding: its encoding by its byte order mark; ``None`` without one.
        origin: the device and the inode of what the user has named, such as the archive.
    """

    name: str
    path: Path
    format: str
    compression: str
    size: int
    stamp: int
    encoding: str | None = None
    origin: tuple[int, int] | None = None

    @property
    def fingerprint(self) -> list[object]:
        """What changes when the file does."""
        return [self.name, self.format, self.size, self.stamp]


@dataclass(frozen=True)
class _Formats:
    """What is known of the formats: ``file`` for all files, ``default`` for those without."""

    file: str | None
    default: str | None

    @property
    def has_text(self) -> bool:
        """Whether log files are read."""
        return "text" in (self.file, self.default)

    def of(self, name: str, beginning: bytes) -> str | None:
        """Return the format of a file; ``None`` if it is unknown."""
        if self.file is not None:
            return self.file
        if beginning.startswith(_PARQUET):
            return "parquet"
        suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
        if suffixes and suffixes[-1] in _COMPRESSIONS:
            suffixes.pop()
        return (_EXTENSIONS.get(suffixes[-1]) if suffixes else None) or self.default


def is_stream(name: str) -> bool:
    """Return whether a name is of what can be read only once: `STDIN`, or a pipe."""
    path = Path(name)
    return name == STDIN or (path.exists() and not (path.is_file() or path.is_dir()))


def find_sources(
    names: Sequence[str], folder: Path, file_format: str | None, default_format: str | None
) -> list[Source]:
    """Return the files with these names.

    Arguments:
        names: names of files, patterns with ``*``, ``?`` and ``[]``, pipes, or `STDIN`.
        folder: where the standard input, pipes and the files of archives are written to.
        file_format: the format of all files; ``None`` to go by their extensions.
        default_format: the format of files whose extension says nothing; ``None`` if unknown.

    Raises:
        UsageError: there is no such file, or its format is unknown.
    """
    formats = _Formats(file_format, default_format)
    sources = []
    for number, name in enumerate(names):
        if is_stream(name):
            if name in names[:number]:
                raise UsageError(f"{name} is there twice, and can be read only once")
            sources += _spooled(name, folder, formats)
            continue
        for path in _matching(name):
            status = path.stat()
            found = _sources(_printable(path), path, folder, formats)
            sources += [
                replace(
                    each,
                    origin=(status.st_dev, status.st_ino),
                    stamp=each.stamp or status.st_mtime_ns,
                )
                for each in found
            ]
    return sources


def _printable(path: Path) -> str:
    """Return the name of a file, also of one that is no UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _matching(name: str) -> list[Path]:
    if not name:
        raise UsageError("the name of a file is empty")
    path = Path(name)
    if path.is_file():  # also a name that looks like a pattern
        return [path]
    shown = _printable(path)
    if path.is_dir():
        raise UsageError(f"{shown} is a folder; name its files, such as {shown.rstrip('/')}/*.csv")
    if not _PATTERN.intersection(name):
        raise UsageError(f"there is no file {shown}")
    # `Path.glob` takes no absolute pattern.
    found = sorted(Path(each) for each in glob.glob(name, recursive=True))  # noqa: PTH207
    found = [each for each in found if each.is_file()]
    if not found:
        raise UsageError(f"no file matches {shown}")
    return found


def _sources(name: str, path: Path, folder: Path, formats: _Formats) -> list[Source]:
    """Return the file, or those in it if it is an archive."""
    with path.open("rb") as file:
        beginning = file.read(4)
    if PurePosixPath(name).suffix.lower() == ".zip" or beginning.startswith(_ZIP):
        return list(_unpacked(name, path, folder, formats))
    return [_source(name, path, folder, formats)]


def _source(name: str, path: Path, folder: Path, formats: _Formats, stamp: int = 0) -> Source:
    with path.open("rb") as file:
        beginning = file.read(65_536)
    known = formats.of(name, beginning)
    if known is None:
        raise UsageError(
            f"{name}: its name does not say in which format it is; add --format "
            f"{', '.join(FORMATS[:-1])}"
        )
    compression = _COMPRESSIONS.get(PurePosixPath(name).suffix.lower(), "none")
    for magic, kind in _MAGIC.items():
        if beginning.startswith(magic):
            compression = kind
    if compression == "gzip":
        try:
            beginning = zlib.decompressobj(31).decompress(beginning, 4)
        except zlib.error:  # said when it is read
            beginning = b""
    if beginning.startswith(codecs.BOM_UTF16_BE):
        raise UsageError(
            f"{name} is in UTF-16 of big-endian order, which cannot be read; convert it: "
            "iconv -f utf-16 -t utf-8"
        )
    encoding = "utf-16" if beginning.startswith(codecs.BOM_UTF16_LE) else None
    size = path.stat().st_size
    path = path.absolute()
    if _PATTERN.intersection(str(path)) or not str(path).isprintable():
        link = folder / f"source-{len(list(folder.iterdir()))}"
        link.symlink_to(path)
        path = link
    return Source(name, path, known, compression, size, stamp, encoding)


def _unpacked(name: str, path: Path, folder: Path, formats: _Formats) -> Iterator[Source]:
    """Yield the files of a zip archive, unpacked; their own compression stays."""
    left_out = []
    is_empty = True
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                inner = PurePosixPath(member.filename)
                if member.is_dir() or inner.name.startswith("."):
                    continue
                # A name of ours: that of a member may lead out of the folder.
                target = folder / f"member-{len(list(folder.iterdir()))}"
                with archive.open(member) as packed, target.open("wb") as file:
                    beginning = packed.read(4)
                    known = formats.of(member.filename, beginning)
                    # Such as a README.txt beside the events.
                    if known is None or (known == "text" and not formats.has_text):
                        left_out.append(member.filename)
                        continue
                    file.write(beginning)
                    shutil.copyfileobj(packed, file)
                is_empty = False
                yield _source(f"{name}:{member.filename}", target, folder, formats, member.CRC)
    except _DAMAGED as error:
        raise UsageError(f"{name} is no zip archive that can be read: {error}") from None
    names = listed(left_out, len(left_out))
    if is_empty:
        raise UsageError(f"{name} has no files of events" + ((left_out and f", but {names}") or ""))
    if left_out:
        warn(f"{name}: left out, as they are no files of events: {names}")


def _spooled(name: str, folder: Path, formats: _Formats) -> list[Source]:
    """Write the standard input or a pipe to a file, which is read several times."""
    if name == STDIN:
        if sys.stdin.isatty():
            raise UsageError("the standard input is the terminal; name a file, or use a pipe")
        return _written("standard input", sys.stdin.buffer, folder, formats)
    with Path(name).open("rb") as stream:
        return _written(_printable(Path(name)), stream, folder, formats)


def _written(name: str, stream: BinaryIO, folder: Path, formats: _Formats) -> list[Source]:
    beginning = stream.read(4)
    if formats.of(name, beginning) is None and not beginning.startswith(_ZIP):
        raise UsageError(f"{name}: it has no extension; add --format csv, ndjson or so")
    path = folder / f"stream-{len(list(folder.iterdir()))}"
    with path.open("wb") as file:
        file.write(beginning)
        shutil.copyfileobj(stream, file)
    origin = None
    with contextlib.suppress(OSError, AttributeError):  # it may have no descriptor
        status = os.fstat(stream.fileno())
        origin = (status.st_dev, status.st_ino)
    return [replace(each, origin=origin) for each in _sources(name, path, folder, formats)]
