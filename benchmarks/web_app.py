"""The FastAPI example with two more endpoints: one that marks the obvious way, one that does not.

All three do the same but for the mark, in one process, so that a busy spell of
the machine meets them alike.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime, timezone
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "examples"))

from fastapi_app import Marks, app  # pyright: ignore[reportMissingImports]
from redis.asyncio import BlockingConnectionPool, Redis
from workloads import keys

client = Redis.from_pool(
    BlockingConnectionPool.from_url(os.environ["TALLYMARK_URL"], max_connections=50)
)


@app.post("/obvious/{user_id}/login")
async def obvious(user_id: int, tally: Marks) -> dict[str, bool]:
    """Do what the example's login does with a redis.asyncio pipeline."""
    *_, day = wanted = keys("obvious")
    async with client.pipeline(transaction=True) as pipeline:
        for key in wanted:
            pipeline.setbit(key, user_id, 1)
        pipeline.setbit(f"{day}-{datetime.now(timezone.utc).hour}", user_id, 1)
        _, _, was_there, _ = await pipeline.execute()
    return {"first_today": not was_there}


@app.post("/nothing/{user_id}/login")
async def nothing(user_id: int, tally: Marks) -> dict[str, bool]:
    """Answer without a mark."""
    return {"first_today": bool(user_id)}
