"""The FastAPI example with two more endpoints: one with the obvious code, one without a mark.

All three do the same but for the mark, in one process, so that other load of the machine
slows all of them. Two more apps of that process are without and with `MarkMiddleware`; requests
of ``/turns`` go to either of them in turns.
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


class Turns:
    """Requests of ``/turns`` on two apps in turns, and how many each has answered.

    The speed of a machine changes from one second to the next, by more than a mark costs.
    """

    SECONDS = 0.1
    #: So much of each turn is not measured: marks of the turn before may be sent then.
    LEAD = 0.02

    def __init__(self) -> None:
        self.kind = "bare"
        self.begun = self._begin(0.0)
        self.requests = 0
        #: The requests of each turn, how long it took, and its CPU time, in seconds.
        self.taken: dict[str, list[tuple[int, float, float]]] = {"bare": [], "marking": []}

    def _begin(self, seconds: float) -> tuple[float, float]:
        return time.perf_counter() + seconds, time.process_time()

    def next(self) -> str:
        """Return the kind of app for the next request."""
        now = time.perf_counter()
        since, cpu_since = self.begun
        if now >= since + self.SECONDS - self.LEAD:
            if self.requests:
                cpu = time.process_time() - cpu_since
                self.taken[self.kind].append((self.requests, now - since, cpu))
            self.kind = "marking" if self.kind == "bare" else "bare"
            self.begun = self._begin(self.LEAD)
            self.requests = 0
        elif now >= since:
            if not self.requests:
                self.begun = self._begin(0.0)
            self.requests += 1
        return self.kind


turns = Turns()


@bare.post("/taken/{_}/login")
async def taken(_: int) -> dict[str, list[tuple[int, float, float]]]:
    """Return the turns since the last call."""
    result, turns.taken = turns.taken, {"bare": [], "marking": []}
    return result


async def both(scope: Any, receive: Any, send: Any) -> None:
    """Serve both apps in one process."""
    path = scope.get("path", "")
    kind = path.partition("/")[2].partition("/")[0]
    if kind == "turns":
        kind = turns.next()
        scope["path"] = path.replace("turns", kind, 1)
    await (marking if kind == "marking" else bare)(scope, receive, send)
