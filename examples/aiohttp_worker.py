"""An aiohttp app whose handlers queue events, and a worker that marks them.

    pip install aiohttp "tallymark[memory]"
    python examples/aiohttp_worker.py

Set TALLYMARK_URL to a Redis database; without it, the marks go to a store
inside this process.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import NamedTuple

from aiohttp import web

from tallymark import InvalidTypeError, InvalidValueError, StoreError, Tally
from tallymark.integrations.aiohttp import TALLY, tally_context

log = logging.getLogger(__name__)


class Event(NamedTuple):
    """An item of the queue."""

    name: str
    user_id: int
    moment: datetime


QUEUE = web.AppKey("queue", asyncio.Queue[Event])


async def worker_context(app: web.Application) -> AsyncIterator[None]:
    """Run the worker; when the app stops, let it finish the queue."""
    worker = asyncio.create_task(work(app[QUEUE], app[TALLY]))
    yield
    await app[QUEUE].join()
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)


async def work(queue: asyncio.Queue[Event], tally: Tally) -> None:
    """Mark the events of the queue, each at its own moment."""
    while True:
        event = await queue.get()
        try:
            await tally.mark_event(event.name, event.user_id, now=event.moment)
        except (InvalidValueError, InvalidTypeError, StoreError):
            log.exception("not marked: %s", event)
        finally:
            queue.task_done()


async def post_event(request: web.Request) -> web.Response:
    """Accept ``{"event": "active", "user_id": 123}``, and respond before the mark."""
    try:
        body = await request.json()
        event = Event(body["event"], body["user_id"], datetime.now(timezone.utc))
    except (ValueError, KeyError, TypeError):
        raise web.HTTPBadRequest(text='send {"event": "...", "user_id": 1}') from None
    try:
        request.app[QUEUE].put_nowait(event)
    except asyncio.QueueFull:
        raise web.HTTPServiceUnavailable(text="too many events are waiting") from None
    return web.json_response({"queued": True}, status=202)


def make_app() -> web.Application:
    """Build the app; contexts are entered in this order and exited in reverse."""
    app = web.Application()
    app[QUEUE] = asyncio.Queue(maxsize=10_000)
    url = os.environ.get("TALLYMARK_URL", "memory://")
    app.cleanup_ctx.extend([tally_context(url), worker_context])
    app.router.add_post("/events", post_event)
    return app


if __name__ == "__main__":
    logging.basicConfig()
    web.run_app(make_app(), host="127.0.0.1", port=8080)
