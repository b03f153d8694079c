"""A project of Django in one module, for the tests and for servers: ``wsgi`` and ``asgi``."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View

from tallymark.integrations.django import (
    get_asgi_application,
    get_buffer,
    get_tally,
    skip_mark,
    unmarked,
)
from tallymark.integrations.django.project import loaded_user

if TYPE_CHECKING:
    from django.http import HttpRequest

    from tallymark._core.user_ids import UserId

settings.configure(
    SECRET_KEY="of the tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "tallymark.integrations.django",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "tallymark.integrations.django.MarkMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("TESTS_DATABASE", "file:tests?mode=memory&cache=shared"),
            "OPTIONS": {"timeout": 20},
        }
    },
    MIGRATION_MODULES={"auth": None, "contenttypes": None},
    TALLYMARK={
        "EVENT": "visit",
        "LOGIN_EVENT": "login",
        "USER": f"{__name__}.visitor",
        "OPTIONS": {"timeout": float(os.environ.get("TESTS_TIMEOUT", "5"))},
    },
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"stderr": {"class": "logging.StreamHandler"}},
        "loggers": {"tallymark": {"handlers": ["stderr"]}},
    },
)
django.setup()

# These need the project's apps.
from django.contrib.auth import aget_user, login, logout  # noqa: E402
from django.contrib.auth.base_user import AbstractBaseUser  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.db import models  # noqa: E402


class Member(AbstractBaseUser):
    """A user whose key is a UUID."""

    id: models.UUIDField[uuid.UUID, uuid.UUID] = models.UUIDField(
        primary_key=True, default=uuid.uuid4
    )
    USERNAME_FIELD = "id"

    class Meta(AbstractBaseUser.Meta):
        abstract = False
        app_label = "auth"


def log_in(request: HttpRequest, user_id: int) -> HttpResponse:
    user, _ = User.objects.get_or_create(pk=user_id, defaults={"username": str(user_id)})
    login(request, user)
    return HttpResponse("welcome")


def log_in_unmarked(request: HttpRequest, user_id: int) -> HttpResponse:
    skip_mark(request)
    return log_in(request, user_id)


def log_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse("bye")


def me(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(request.user.pk))


async def my_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str((await request.auser()).pk))


def public(_: HttpRequest) -> HttpResponse:
    return HttpResponse("for everybody")


async def public_async(_: HttpRequest) -> HttpResponse:
    return HttpResponse("for everybody")


def broken(request: HttpRequest) -> HttpResponse:
    raise ValueError(f"on purpose, of {request.user.pk}")


@unmarked
def quiet(request: HttpRequest) -> HttpResponse:
    return me(request)


@unmarked
async def quiet_async(request: HttpRequest) -> HttpResponse:
    return await my_async(request)


@method_decorator(unmarked, name="dispatch")
class Quiet(View):
    """A class of views that is not marked."""

    def get(self, request: HttpRequest) -> HttpResponse:
        return me(request)


def skipped(request: HttpRequest) -> HttpResponse:
    skip_mark(request)
    return me(request)


def song(request: HttpRequest) -> HttpResponse:
    get_buffer().mark_event("song:played", request.user.pk)
    return HttpResponse("la la la")


def count(_: HttpRequest, event: str) -> HttpResponse:
    tally = get_tally()
    return HttpResponse(str(tally.count(tally.day(event))))


def visit(_: HttpRequest, number: int) -> HttpResponse:
    return HttpResponse(str(number))


async def visit_async(_: HttpRequest, number: int) -> HttpResponse:
    return HttpResponse(str(number))


urlpatterns = [
    path("visit/<int:number>", visit),
    path("visit-async/<int:number>", visit_async),
    path("login/<int:user_id>", log_in),
    path("quiet-login/<int:user_id>", log_in_unmarked),
    path("logout", log_out),
    path("me", me),
    path("async", my_async),
    path("public", public),
    path("public-async", public_async),
    path("broken", broken),
    path("quiet", quiet),
    path("quiet-async", quiet_async),
    path("quiet-class", Quiet.as_view()),
    path("skipped", skipped),
    path("song", song),
    path("count/<event>", count),
]


def visitor(request: HttpRequest) -> UserId | None:
    """Return the visitor in the path, or without one the user."""
    match = request.resolver_match
    number: int | None = None if match is None else match.kwargs.get("number")
    return number if number is not None else loaded_user(request)


def path_of(request: HttpRequest) -> str:
    """A function for the setting ``USER``."""
    return f"user of {request.path}"


async def async_user(request: HttpRequest) -> Any:
    """A function that is none for the setting ``USER``."""
    return (await aget_user(request)).pk


wsgi = get_wsgi_application()
asgi = get_asgi_application()
