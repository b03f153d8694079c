"""A FastAPI app that marks its requests, and events in its handlers.

    pip install fastapi uvicorn "tallymark[memory]"
    TALLYMARK_URL=memory:// uvicorn fastapi_app:app --app-dir examples

TALLYMARK_URL is that of a Redis database, or memory:// for a store inside this process.
It is read when the app starts. test_fastapi_app.py has tests.
"""

import logging

from fastapi import FastAPI, Request

from tallymark import Granularity
from tallymark.integrations.fastapi import (
    MarkMiddleware,
    TallyDep,
    add_error_handlers,
    lifespan,
    marks,
)

# Shows warnings, such as those of marks that have failed; uvicorn configures its own logs only.
logging.basicConfig()

# The ids are untrusted input: the limit keeps a bitmap below 1.25 MB.
app = FastAPI(lifespan=lifespan(max_user_id=10_000_000))
# Responds with 422 to ids and names that tallymark refuses, and with 503 while Redis is away.
add_error_handlers(app)


async def current_user(request: Request, user_id: int | None = None) -> int | None:
    """Return the user, whom a real app knows from its session, and remember who it is."""
    request.state.user_id = user_id
    return user_id


# Marks each user of a successful request as active, after the response has started.
app.add_middleware(MarkMiddleware, user=lambda scope: scope["state"].get("user_id"))


@app.post("/users/{user_id}/login")
async def login(user_id: int, tally: TallyDep) -> dict[str, bool]:
    """Mark a login, and return whether it is the user's first one today."""
    flipped = await tally.mark_event("login", user_id, track_hourly=True)
    return {"first_today": Granularity.DAY in flipped}


@app.get("/pages/{page}", dependencies=[marks("page:view", user=current_user)])
async def page(page: str) -> dict[str, str]:
    """Respond without waiting for the mark."""
    return {"page": page}


@app.get("/stats/{event}/today")
async def today(event: str, tally: TallyDep) -> dict[str, int]:
    """Count an event's users of today, and how many of them were active yesterday too."""
    day = tally.day(event)
    users, again = await tally.counts([day, day & day.prev()])
    return {"users": users, "again": again}


@app.get("/stats/{event}/users")
async def users(event: str, tally: TallyDep, start: int = 0, limit: int = 100) -> list[int]:
    """List an event's users of this month, page by page."""
    user_ids = tally.users(tally.month(event), start=start, limit=limit)
    return [user_id async for user_id in user_ids]
