"""The URL and the options of the default tallies of both facades."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._core.options import Options, hide_urls
from .._core.urls import StoreUrl
from ..errors import TallymarkError
from . import async_clients
from .cluster_clients import check_store
from .url_sources import DEFAULT_URL, URL_VARIABLE, url_of_environment

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._core.options import TallyOptions
    from .._core.user_ids import UserId

__all__ = [
    "DEFAULT_URL",
    "MEMORY_URL",
    "URL_VARIABLE",
    "Defaults",
    "configure",
    "configured",
    "restore",
    "url",
]

#: The store of the default tallies if their URL is ``memory://``.
MEMORY_URL = "memory://default"


@dataclass(frozen=True, eq=False)
class Defaults:
    """The arguments of one call of `configure`. Compared by identity."""

    url: StoreUrl | None
    user_ids: type[Any] | None
    options: TallyOptions


_defaults = Defaults(None, None, {})


def configure(
    url: str | None = None,
    *,
    user_ids: type[UserId] | None = None,
    **options: Unpack[TallyOptions],
) -> None:
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
        user_ids: the type of the users' ids: `str`, `bytes`, `uuid.UUID` or `int` (signed 64
            bit). The database gives each user a number, the offset of the user's bit. With
            ``None`` (the default), the ids are the offsets: ints from 0 to ``max_user_id``.
            The type is stored in the database and cannot be changed: the calls of a tally with
            another type raise a `WrongSchemaError`.
        options: those of `tallymark.TallyOptions`.

    Raises:
        InvalidTypeError, InvalidValueError: the URL or an option is not
            allowed; the configuration stays as it was.
        MissingExtraError: ``memory://`` without fakeredis.
    """
    global _defaults
    store = None if url is None else StoreUrl(url)
    del url  # error reporters show the locals of frames
    hide_urls(options)
    checked = Options(user_ids=user_ids, **options)
    if store is not None:
        _check(store, checked)
    _defaults = Defaults(store, user_ids, options)


def _check(store: StoreUrl, options: Options) -> None:
    """Raise if both facades refuse the URL: redis-py has some options for one of them only."""
    with contextlib.suppress(TallymarkError):
        check_store(async_clients.KINDS, store, options)
        return
    from . import blocking_clients  # noqa: PLC0415 - of the other facade

    check_store(blocking_clients.KINDS, store, options)


def configured() -> Defaults:
    """Return the arguments of the last `configure`: the same object until the next call."""
    return _defaults


def restore(defaults: Defaults) -> None:
    """Return to the arguments of an earlier `configure`."""
    global _defaults
    _defaults = defaults


def url(defaults: Defaults) -> Any:
    """Return the URL for a new default tally, as ``from_url`` takes it too."""
    store = defaults.url or url_of_environment()
    # All default tallies, one for each event loop and a blocking one, share one store.
    return StoreUrl(MEMORY_URL) if store.is_private else store
