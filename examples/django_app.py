"""A Django project in one file that marks its requests, and events in its views.

    pip install django "tallymark[memory]"
    python examples/django_app.py runserver

Set TALLYMARK_URL to a Redis database; without it, the marks go to a store
inside this process. For several workers, set it:

    gunicorn --chdir examples --worker-class gthread --threads 8 django_app
"""

import os
import sys
from collections.abc import Callable

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from tallymark import Granularity, InvalidValueError, StoreError
from tallymark.integrations.django import get_buffer, get_tally, unmarked


def user_of(request: HttpRequest) -> int | None:
    """Return the user; without this function, it is that of django.contrib.auth."""
    user_id: int | None = request.session.get("user_id")
    return user_id


class ErrorMiddleware:
    """Responds with 400 to ids and names that are refused, and with 503 while Redis is away."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Respond as the view does."""
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Return the response to an exception of a view, or ``None`` for Django's own."""
        if isinstance(error, InvalidValueError):
            return JsonResponse({"error": str(error)}, status=400)
        if isinstance(error, StoreError):
            return JsonResponse({"error": "events are not available at the moment"}, status=503)
        return None


def login(request: HttpRequest, user_id: int) -> HttpResponse:
    """Log a user in; a real project checks a password first."""
    get_buffer().mark_event("login", user_id)
    request.session["user_id"] = user_id
    return HttpResponse("welcome")


def page(request: HttpRequest, name: str) -> JsonResponse:
    """Respond without waiting for the marks."""
    user_id = user_of(request)
    if user_id is not None:
        get_buffer().mark_event("page:view", user_id)
    return JsonResponse({"page": name})


def song(request: HttpRequest, user_id: int) -> JsonResponse:
    """Mark an event, and return whether it is the user's first one today."""
    flipped = get_tally().mark_event("song:played", user_id)
    return JsonResponse({"first_today": Granularity.DAY in flipped})


@unmarked
def today(request: HttpRequest, event: str) -> JsonResponse:
    """Count an event's users of today, and how many of them were active yesterday too."""
    tally = get_tally()
    day = tally.day(event)
    users, again = tally.counts([day, day & day.prev()])
    return JsonResponse({"users": users, "again": again})


urlpatterns = [
    path("login/<int:user_id>", login),
    path("pages/<name>", page),
    path("users/<int:user_id>/song", song),
    path("stats/<event>/today", today),
]


settings.configure(
    SECRET_KEY=os.environ.get("SECRET_KEY", "only for this example"),
    DEBUG="runserver" in sys.argv,
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    INSTALLED_APPS=["tallymark.integrations.django"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "tallymark.integrations.django.MarkMiddleware",
        f"{__name__}.ErrorMiddleware",
    ],
    TALLYMARK={
        "URL": os.environ.get("TALLYMARK_URL", "memory://"),
        # The ids are untrusted input: the limit keeps a bitmap below 1.25 MB.
        "OPTIONS": {"max_user_id": 10_000_000},
        "EVENT": "active",  # marks each user of a successful request, after the view
        "USER": user_of,
    },
)
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
