"""The FastAPI example with two more endpoints: one with the obvious code, one without a mark.

All three do the same but for the mark, in one process, so that other load of the machine
slows all of them.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent / "examples"))

from fastapi import FastAPI
from fastapi_app import app  # pyright: ignore[reportMissingImports]
from redis.asyncio import BlockingConnectionPool, Redis
from workloads import keys

from tallymark.integrations.fastapi import MarkMiddleware, TallyDep, lifespan

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
bare = FastAPI(lifespan=lifespan(timeout=float(os.environ.get("BENCHMARK_TIMEOUT", "5"))))
marking = FastAPI()
marking.add_middleware(
    MarkMiddleware,
    user=lambda scope: int(scope["path_params"]["user_id"]),
    event="request",
)


@bare.post("/bare/{user_id}/login")
@marking.post("/marking/{user_id}/login")
async def answer(user_id: int) -> dict[str, bool]:
    """Respond without a mark of its own."""
    return {"first_today": bool(user_id)}


@bare.post("/cpu/{_}/login")
async def cpu(_: int) -> float:
    """Return the CPU time of this process so far, in seconds."""
    return time.process_time()


async def both(scope: Any, receive: Any, send: Any) -> None:
    """Serve both apps in one process."""
    chosen = marking if scope.get("path", "").startswith("/marking") else bare
    await chosen(scope, receive, send)
