"""Where the URL of a store comes from: an argument of a program, a variable, or a file.

Imports no redis-py, so that help and errors of programs come fast.
"""

from __future__ import annotations

import os

from .._core.urls import StoreUrl
from ..errors import InvalidValueError

__all__ = ["DEFAULT_URL", "URL_VARIABLE", "url_in", "url_of_environment"]

URL_VARIABLE = "TALLYMARK_URL"
DEFAULT_URL = "redis://localhost:6379/0"


def url_of_environment() -> StoreUrl:
    """Return the URL in the variable `URL_VARIABLE`, or without that the default."""
    value = os.environ.get(URL_VARIABLE)
    return StoreUrl(value or DEFAULT_URL, f"{URL_VARIABLE}: " if value else "")


def url_in(argument: str, source: str = "") -> StoreUrl:
    """Return the URL in an argument of a program, or in what the argument names.

    Arguments:
        argument: a URL, ``env:NAME`` or ``file:PATH``: the arguments of all processes are
            visible to all users of a machine, variables and files are not.
        source: the beginning of messages about the URL.

    Raises:
        InvalidValueError: there is no such variable, or the file cannot be read.
    """
    kind, _, name = argument.partition(":")
    if kind == "env":
        value = os.environ.get(name)
        if value is None:
            raise InvalidValueError(f"{source}there is no such environment variable")
        return StoreUrl(value, source)
    if kind == "file":
        from pathlib import Path  # noqa: PLC0415 - no mark needs it

        try:
            return StoreUrl(Path(name).read_text("utf-8-sig").strip(), source)
        except (OSError, ValueError) as error:
            problem = type(error).__name__
        raise InvalidValueError(f"{source}the file cannot be read ({problem})")
    return StoreUrl(argument, source)
