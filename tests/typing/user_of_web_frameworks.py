"""What a type checker sees of the integrations with Flask and Django. Checked, never run."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from typing_extensions import assert_type

from tallymark import SyncBuffer, SyncTally
from tallymark.integrations import django
from tallymark.integrations.flask import Tallymark, add_error_handlers, skip_mark, unmarked

if TYPE_CHECKING:
    from django.http import HttpRequest
    from flask import Flask, Request


def flask_user(request: Request) -> uuid.UUID | None:
    return uuid.UUID(request.headers["X-User"])


async def async_user(request: Request) -> int:
    return int(request.headers["X-User"])


def flask_app(app: Flask) -> None:
    stats = Tallymark(url="redis://localhost", user_ids=uuid.UUID, prefix="shop:", timeout=1.0)
    stats.init_app(app)
    assert_type(stats.tally, SyncTally[Any])
    assert_type(stats.buffer, SyncBuffer[Any])
    stats.mark_requests()
    stats.mark_requests(lambda request: request.endpoint, user=flask_user)
    stats.mark_requests("seen", user=flask_user, when=lambda request, status: status < 500)
    stats.mark_logins("login")
    add_error_handlers(app)
    Tallymark(app, prefiks="shop:")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Tallymark(app, timeout="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stats.mark_requests(user=async_user)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stats.mark_logins(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    @app.get("/articles/<name>")
    @stats.marks("article:read", user=flask_user)
    def article(name: str, page: int = 1) -> str:
        skip_mark()
        return name * page

    @app.get("/quiet")
    @unmarked
    async def quiet(name: str) -> str:
        return name

    assert_type(article("a", page=2), str)
    article(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def django_project(request: HttpRequest) -> None:
    assert_type(django.get_tally(), SyncTally[Any])
    assert_type(django.get_buffer(), SyncBuffer[Any])
    assert_type(django.get_asgi_application(), Callable[..., Awaitable[None]])
    django.skip_mark(request)
    django.skip_mark()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    @django.unmarked
    def view(request: HttpRequest, number: int) -> str:
        return request.path * number

    assert_type(view(request, 2), str)
