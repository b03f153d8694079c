"""The FastAPI example with two more endpoints: one with the obvious code, one without a mark.

All three do the same but for the mark, in one process, so that other load of the machine
slows all of them.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent / "examples"))

from fastapi import FastAPI
from fastapi_app import app  # pyright: ignore[reportMissingImports]
from redis.asyncio import BlockingConnectionPool, Redis
from workloads import keys

from tallymark.integrations.fastapi import MarkMiddleware, TallyDep

client = Redis.from_pool(
    BlockingConnectionPool.from_url(os.environ["TALLYMARK_URL"], max_connections=50)
)


@app.post("/obvious/{user_id}/login")
async def obvious(user_id: int, tally: TallyDep) -> dict[str, bool]:
    """Do the same as the login of the example, with a redis.asyncio pipeline."""
    *_, day = wanted = keys("obvious")
    async with client.pipeline(transaction=True) as pipeline:
        for key in wanted:
            pipeline.setbit(key, user_id, 1)
        pipeline.setbit(f"{day}-{datetime.now(timezone.utc).hour}", user_id, 1)
        _, _, was_there, _ = await pipeline.execute()
    return {"first_today": not was_there}


@app.post("/nothing/{user_id}/login")
async def nothing(user_id: int, tally: TallyDep) -> dict[str, bool]:
    """Respond without a mark."""
    return {"first_today": bool(user_id)}


#: The same app without and with a mark of each request.
bare, marking = FastAPI(), FastAPI()
marking.add_middleware(
    MarkMiddleware,
    user=lambda scope: int(scope["path_params"]["user_id"]),
    event="request",
    tally=lambda _: app.state.tally,
)


@bare.post("/bare/{user_id}/login")
@marking.post("/marking/{user_id}/login")
async def answer(user_id: int) -> dict[str, bool]:
    """Respond without a mark of its own."""
    return {"first_today": bool(user_id)}


async def both(scope: Any, receive: Any, send: Any) -> None:
    """Serve both apps in one process, and the lifespan of the example."""
    path = scope.get("path", "")
    chosen = bare if path.startswith("/bare") else marking if path.startswith("/mark") else app
    await chosen(scope, receive, send)
