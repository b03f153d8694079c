"""A blocking tally made from the settings of an app of Flask, or a project of Django."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .._core.options import TallyOptions
from .._core.untrusted import shown
from .._core.urls import StoreUrl
from .._core.user_ids import TYPES_BY_NAME
from .._redis.url_sources import url_of_environment
from .._sync.tally import SyncTally
from ..errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["tally_of_settings"]

#: The names of the options that settings may have.
_OPTIONS: Final = frozenset({*TallyOptions.__annotations__, "user_ids"})


def tally_of_settings(
    url: str | None, options: Mapping[str, Any], setting: Callable[[str], str]
) -> SyncTally[Any]:
    """Make a tally; it connects at its first call.

    Arguments:
        url: as of `SyncTally.from_url`; ``None`` for the environment variable ``TALLYMARK_URL``,
            and without that ``redis://localhost:6379/0``.
        options: those of `TallyOptions`, and ``user_ids``: a type, or its name, as ``"uuid"``.
        setting: returns what messages call the setting of an option.

    Raises:
        InvalidTypeError, InvalidValueError: the URL or an option is not allowed. The message never
            holds the URL.
        MissingExtraError: ``memory://`` without fakeredis.
    """
    store: Any = url_of_environment() if url is None else StoreUrl(url)
    del url  # error reporters show the locals of frames
    for name in options:
        if name not in _OPTIONS:
            known = ", ".join(map(setting, sorted(_OPTIONS)))
            raise InvalidValueError(f"{setting(name)} is no option; there are {known}")
    user_ids = options.get("user_ids")
    if isinstance(user_ids, str):
        if user_ids not in TYPES_BY_NAME:
            raise InvalidValueError(
                f"{setting('user_ids')} must be a type, or one of the names "
                f"{', '.join(TYPES_BY_NAME)}; got {shown(user_ids)}"
            )
        options = {**options, "user_ids": TYPES_BY_NAME[user_ids]}
    return SyncTally.from_url(store, **options)
