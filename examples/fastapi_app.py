"""A FastAPI app that marks events in its handlers.

    pip install fastapi uvicorn "tallymark[memory]"
    uvicorn fastapi_app:app --app-dir examples

Set TALLYMARK_URL to a Redis database; without it, the marks go to a store
inside this process.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from tallymark import Granularity, InvalidValueError, StoreError, Tally


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open one tally for the whole app, and close it when the app stops."""
    url = os.environ.get("TALLYMARK_URL", "memory://")
    # The ids are untrusted input: the limit keeps a bitmap below 1.25 MB.
    async with Tally.from_url(url, max_user_id=10_000_000) as tally:
        app.state.tally = tally
        yield


async def get_tally(request: Request) -> Tally:
    """Return the app's tally, as a dependency (async, or FastAPI would call it in a thread)."""
    tally: Tally = request.app.state.tally
    return tally


Marks = Annotated[Tally, Depends(get_tally)]
app = FastAPI(lifespan=lifespan)


@app.exception_handler(InvalidValueError)
async def refuse(_: Request, error: InvalidValueError) -> JSONResponse:
    """Answer 422 to ids and names that tallymark does not accept."""
    return JSONResponse({"detail": str(error)}, 422)


@app.exception_handler(StoreError)
async def give_up(_: Request, __: StoreError) -> JSONResponse:
    """Answer 503 while Redis cannot be reached."""
    return JSONResponse({"detail": "events cannot be counted at the moment"}, 503)


@app.post("/users/{user_id}/login")
async def login(user_id: int, tally: Marks) -> dict[str, bool]:
    """Mark a login, and return whether it is the user's first one today."""
    flipped = await tally.mark_event("login", user_id, track_hourly=True)
    return {"first_today": Granularity.DAY in flipped}


@app.get("/pages/{page}")
async def page(page: str, user_id: int, tally: Marks, tasks: BackgroundTasks) -> dict[str, str]:
    """Respond first and mark afterwards: the request does not wait for the mark."""
    tasks.add_task(tally.mark_event, "page:view", user_id)
    return {"page": page}


@app.get("/stats/{event}/today")
async def today(event: str, tally: Marks) -> dict[str, int]:
    """Count an event's users of today, and how many of them were active yesterday too."""
    day = tally.day(event)
    users, again = await tally.counts([day, day & day.prev()])
    return {"users": users, "again": again}


@app.get("/stats/{event}/users")
async def users(event: str, tally: Marks, start: int = 0, limit: int = 100) -> list[int]:
    """List an event's users of this month, page by page."""
    user_ids = tally.users(tally.month(event), start=start, limit=limit)
    return [user_id async for user_id in user_ids]
