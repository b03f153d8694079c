"""Django: a tally of the project's settings, and marks of its requests and logins.

::

    INSTALLED_APPS = [..., "tallymark.integrations.django"]
    MIDDLEWARE = [..., "tallymark.integrations.django.MarkMiddleware"]
    TALLYMARK = {"URL": "redis://localhost:6379/0", "EVENT": "active", "LOGIN_EVENT": "login"}

Marks of requests go through a buffer (`SyncTally.buffered`), which a thread sends: they neither
delay nor break a response, also while Redis is away. To put a mark into the buffer waits for
nothing, so the same buffer serves views under WSGI and, without blocking the event loop, ASGI.
"""

from __future__ import annotations

from .middleware import MarkMiddleware, get_asgi_application, skip_mark, unmarked
from .project import get_buffer, get_tally

__all__ = [
    "MarkMiddleware",
    "get_asgi_application",
    "get_buffer",
    "get_tally",
    "skip_mark",
    "unmarked",
]
