"""The app of Django: the checks of the settings, and the marks of logins."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

from django.apps import AppConfig, apps
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in
from django.core.checks import Error, Warning, register  # noqa: A004 - Django's name
from django.core.exceptions import ImproperlyConfigured
from django.db import models

from .middleware import mark_login
from .project import loaded_user, project

if TYPE_CHECKING:
    from django.core.checks import CheckMessage

__all__ = ["TallymarkConfig", "check_project"]

#: The types of a tally's ids, by the field of the users' primary key.
_TYPES: Final[dict[type[models.Field[Any, Any]], type]] = {
    models.IntegerField: int,  # also of AutoField
    models.UUIDField: uuid.UUID,
    models.CharField: str,
    models.TextField: str,
}


class TallymarkConfig(AppConfig):
    """``tallymark.integrations.django`` in ``INSTALLED_APPS``."""

    name = "tallymark.integrations.django"
    label = "tallymark"
    verbose_name = "tallymark"

    def ready(self) -> None:
        """Register the checks, and mark logins. Connects to nothing."""
        register(check_project)
        user_logged_in.connect(mark_login, dispatch_uid="tallymark")


def check_project(**_: Any) -> list[CheckMessage]:
    """Check the setting ``TALLYMARK``, for ``manage.py check`` and the start of ``runserver``."""
    try:
        current = project()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="tallymark.E001")]
    if current.user is not loaded_user:
        return []
    return _check_ids(current.tally.backend.context.options.user_ids)


def _check_ids(user_ids: type | None) -> list[CheckMessage]:
    """Warn if the primary keys of the users are of another type than the ids of the tally."""
    if not apps.is_installed("django.contrib.auth"):
        return []
    model: Any = get_user_model()
    key = model._meta.pk  # noqa: SLF001 - public, and documented under this name
    kind = next((kind for field, kind in _TYPES.items() if isinstance(key, field)), None)
    if kind is None or kind is (user_ids or int):
        return []
    return [
        Warning(
            f"The ids of the tally are of the type {(user_ids or int).__name__}, and the primary "
            f"key of {model.__name__} of the type {kind.__name__}: no user will be marked.",
            hint="Set TALLYMARK['OPTIONS']['user_ids'], or TALLYMARK['USER'].",
            id="tallymark.W001",
        )
    ]
