"""Files that commands write: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["file_mode", "replaced"]


def file_mode(file: str | Path) -> int | None:
    """Return the type and the permissions of a file; ``None`` if there is none."""
    try:
        return os.stat(file).st_mode  # noqa: PTH116 - an error has the name as it was given
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def replaced(file: str | Path) -> Iterator[Path]:
    """Yield an empty file in the same folder; it gets the name when the block has ended.

    It is removed after an exception. If it replaces a file, nobody else can read it meanwhile,
    and it gets the permissions of that one. A link stays, and the file that it names is replaced.

    Raises:
        OSError: this is not possible; it has the name of the file.
    """
    path = Path(os.path.realpath(file))
    part = path.with_name(f".tallymark-{secrets.token_hex(6)}.part")
    try:
        mode = file_mode(path)
        opening = 0o666 if mode is None else 0o600
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, opening))
        try:
            yield part
            if mode is not None:
                part.chmod(stat.S_IMODE(mode))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        if error.filename not in {None, str(part)}:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(file)) from error
