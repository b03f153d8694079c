"""The file of ``--html``: is it one that can be written, and how it is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ._errors import UsageError, written
from ._files import replaced

__all__ = ["check_page", "save_page"]


def check_page(path: Path) -> None:
    """Raise an error for a file that cannot be written, before the command does anything.

    Raises:
        UsageError: it is a directory.
        OSError: its folder does not exist, or this user may not write.
    """
    target = _target(path)
    if target.is_dir():
        raise UsageError("--html takes the name of a file, got that of a directory")
    if not target.exists() and not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def save_page(path: Path, text: str) -> None:
    """Write a file: all of it or nothing, unless it is a pipe or a device, or alone writable.

    A link stays a link, and a file keeps its permissions.

    Raises:
        OutputError: the file cannot be written.
    """
    with written(str(path)):
        target = _target(path)
        exists = target.exists()
        if exists and not (target.is_file() and os.access(target.parent, os.W_OK)):
            target.write_text(text, "utf-8")
            return
        with replaced(target) as part:
            part.write_text(text, "utf-8")


def _target(path: Path) -> Path:
    """Return the file that a path, possibly of a link, stands for."""
    return Path(os.path.realpath(path))
