"""The setting ``TALLYMARK`` of a Django project, and the tally that it describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.functional import LazyObject, empty
from django.utils.module_loading import import_string

from ..._core.untrusted import kind_of, shown
from ...errors import TallymarkError
from .._request_marks import RequestMarks, buffer_of
from .._settings import tally_of_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

    from ..._core.user_ids import UserId
    from ..._sync.buffer import SyncBuffer
    from ..._sync.tally import SyncTally

    User: TypeAlias = Callable[[HttpRequest], UserId | None]

__all__ = ["Project", "get_buffer", "get_tally", "loaded_user", "project"]

#: The keys of the setting.
_KEYS: Final = ("URL", "OPTIONS", "EVENT", "LOGIN_EVENT", "USER", "WHEN")


def get_tally() -> SyncTally[Any]:
    """Return the tally of the project: one for each process, which its threads share.

    It waits for Redis, so an async view calls it by ``sync_to_async``, and marks by
    `get_buffer`. Do not keep it at module level: ``override_settings`` replaces it.
    Raises `ImproperlyConfigured` if a value in ``TALLYMARK`` is not allowed.
    """
    return project().tally


def get_buffer() -> SyncBuffer[Any]:
    """Return the buffer of the project, whose marks are plain calls that return at once."""
    return buffer_of(project().tally)


class Project:
    """What the setting ``TALLYMARK`` says.

    Attributes:
        tally: the tally.
        user: returns the id of a request's user, or ``None``.
        requests: what is marked for each request; ``None`` for nothing.
        logins: what is marked for each login; ``None`` for nothing.
    """

    def __init__(self, setting: object) -> None:
        """Read the setting.

        Raises:
            ImproperlyConfigured: a value is not allowed.
        """
        if not isinstance(setting, Mapping):
            raise ImproperlyConfigured(
                f"TALLYMARK must be a dict, got a value of type {kind_of(setting)}"
            )
        if unknown := [key for key in setting if key not in _KEYS]:
            raise ImproperlyConfigured(
                f"TALLYMARK has no key {shown(unknown[0])}; there are {', '.join(_KEYS)}"
            )
        options = setting.get("OPTIONS", {})
        if not isinstance(options, Mapping):
            raise ImproperlyConfigured(f"TALLYMARK['OPTIONS'] must be a dict, got {shown(options)}")
        self.user: User = _function(setting, "USER") or loaded_user
        event, login = setting.get("EVENT", "active"), setting.get("LOGIN_EVENT")
        when = _function(setting, "WHEN")
        try:
            self.requests = _of_requests(event, self.user, when)
            self.logins = _of_logins(login, self.user)
            self.tally = tally_of_settings(setting.get("URL"), options, "OPTIONS[{!r}]".format)
        except (TallymarkError, TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"TALLYMARK: {error}") from error


def _of_requests(event: Any, user: User, when: Any) -> RequestMarks[HttpRequest] | None:
    return None if event is None else RequestMarks(user, event, when, lambda _: get_tally())


def _of_logins(event: Any, user: User) -> RequestMarks[tuple[HttpRequest, Any]] | None:
    """Return the marks of logins, each a request and the user who has logged in with it."""

    def user_of(login: tuple[HttpRequest, Any]) -> UserId | None:
        request, logged_in = login
        # The request of the test client's `force_login` has no user.
        return logged_in.pk if user is loaded_user else user(request)

    return None if event is None else RequestMarks(user_of, event, None, lambda _: get_tally())


def _function(setting: Mapping[str, Any], key: str) -> Callable[..., Any] | None:
    """Return the function that a key has, or names."""
    value = setting.get(key)
    if isinstance(value, str):
        try:
            value = import_string(value)
        except ImportError as error:
            raise ImproperlyConfigured(f"TALLYMARK[{key!r}] cannot be imported: {error}") from error
    return value


def loaded_user(request: HttpRequest) -> UserId | None:
    """Return the ``pk`` of the request's user, if it is logged in and loaded already.

    To load the user reads the session and queries the database, and then the response varies on the
    cookie: a mark does neither.
    """
    user: Any = getattr(request, "user", None)
    if isinstance(user, LazyObject) and user._wrapped is empty:  # noqa: SLF001 - documented nowhere, stable
        user = getattr(request, "_acached_user", None)  # of ``await request.auser()``
    if user is None or not user.is_authenticated:
        return None
    user_id: UserId = user.pk
    return user_id


#: The project, from its first use on. There is no lock, which a fork could leave locked.
_projects: dict[str, Project] = {}


def project() -> Project:
    """Return what the setting says. Raises `ImproperlyConfigured` if a value is not allowed."""
    found = _projects.get("")
    if found is None:  # of two threads, one's is kept; the other's has not connected yet
        found = _projects.setdefault("", Project(getattr(settings, "TALLYMARK", {})))
    return found


@receiver(setting_changed)
def _replace(*, setting: str, **_: object) -> None:
    """Close the tally when a test overrides the setting, after what waits is sent."""
    if setting == "TALLYMARK" and _projects:
        _projects.popitem()[1].tally.close()
