"""What the default tallies of both facades are made of."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .arguments import plain_str
from .options import Options
from .urls import check_url, store_name

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import TallyOptions

__all__ = [
    "DEFAULT_URL",
    "MEMORY_URL",
    "URL_VARIABLE",
    "Defaults",
    "configure",
    "configured",
    "url",
]

URL_VARIABLE = "TALLYMARK_URL"
DEFAULT_URL = "redis://localhost:6379/0"

#: What ``memory://`` is to the default tallies.
MEMORY_URL = "memory://default"


@dataclass(frozen=True, eq=False)
class Defaults:
    """One call of `configure`. Compared by identity: each call begins anew."""

    url: str | None
    options: TallyOptions


_defaults = Defaults(None, {})


def configure(url: str | None = None, **options: Unpack[TallyOptions]) -> None:
    """Say which database the module-level verbs use, in both modules, and how.

    Takes effect for all later calls: the next one makes a new default tally
    and closes the one before, once its calls have ended. Each call replaces
    the whole configuration. Call it when the program starts.

    Arguments:
        url: as `tallymark.Tally.from_url` takes it. Without one, the
            environment variable ``TALLYMARK_URL`` decides when the first mark
            is made, and without that ``redis://localhost:6379/0``.
            ``memory://`` is one store for all default tallies of the process,
            of both modules and all event loops: ``memory://default``.
        options: those of `tallymark.TallyOptions`.

    Raises:
        InvalidTypeError, InvalidValueError: the URL or an option is not
            allowed; the configuration stays as it was.
    """
    global _defaults
    url = plain_str(url)
    if url is not None:
        check_url(url)
    Options(**options)
    _defaults = Defaults(url, options)


def configured() -> Defaults:
    """Return what is in force; the same object until the next `configure`."""
    return _defaults


def url(defaults: Defaults) -> str:
    """Return the URL for a new default tally."""
    found = defaults.url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    # There is one for each event loop, and a blocking one; they are to see the same marks.
    return MEMORY_URL if store_name(found) == "" else found
