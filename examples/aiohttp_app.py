"""An aiohttp app that marks its requests, and events in its handlers.

    pip install aiohttp "tallymark[memory]"
    python examples/aiohttp_app.py

Set TALLYMARK_URL to a Redis database; without it, the marks go to a store
inside this process.
"""

import logging
import os
from collections.abc import Awaitable, Callable

from aiohttp import web

from tallymark import Granularity, InvalidTypeError, InvalidValueError, StoreError
from tallymark.integrations.aiohttp import TALLY, mark_responses, skip_mark, tally_context

log = logging.getLogger(__name__)


def current_user(request: web.Request) -> int | None:
    """Return the user, whom a real app knows from its session; ``None`` for nobody."""
    user = request.query.get("user_id", "")
    return int(user) if user.isdecimal() else None


@web.middleware
async def respond_to_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Respond with 422 to ids and names that tallymark refuses, and with 503 without a Redis."""
    try:
        return await handler(request)
    except (InvalidValueError, InvalidTypeError) as error:
        return web.json_response({"error": str(error)}, status=422)
    except StoreError as error:  # its message may name hosts and keys
        log.warning("a request was answered with 503: %s", error)
        return web.json_response({"error": "events are not available at the moment"}, status=503)


async def page(request: web.Request) -> web.Response:
    """Respond without waiting for the mark of this request."""
    return web.json_response({"page": request.match_info["name"]})


async def login(request: web.Request) -> web.Response:
    """Mark a login, and return whether it is the user's first one today."""
    user_id = int(request.match_info["user_id"])
    flipped = await request.app[TALLY].mark_event("login", user_id)
    return web.json_response({"first_today": Granularity.DAY in flipped})


async def today(request: web.Request) -> web.Response:
    """Count an event's users of today; whoever asks is not marked as active."""
    skip_mark(request)
    tally = request.app[TALLY]
    return web.json_response({"users": await tally.count(tally.day(request.match_info["event"]))})


def make_app() -> web.Application:
    """Build the app."""
    app = web.Application(middlewares=[respond_to_errors])
    # The ids are untrusted input: the limit keeps a bitmap below 1.25 MB.
    url = os.environ.get("TALLYMARK_URL", "memory://")
    app.cleanup_ctx.append(tally_context(url, max_user_id=10_000_000))
    # Marks each user of a successful request as active, as the response starts.
    app.on_response_prepare.append(mark_responses(user=current_user))
    app.router.add_get("/pages/{name}", page)
    app.router.add_post(r"/users/{user_id:\d+}/login", login)
    app.router.add_get("/stats/{event}/today", today)
    return app


if __name__ == "__main__":
    logging.basicConfig()  # shows warnings, such as those of marks that have failed
    web.run_app(make_app(), host="127.0.0.1", port=8080)
