"""What is promised whatever goes wrong: nothing lost, nobody late, and all is well after.

A few seconds of each scenario; ``nox -s soak`` runs them longer.
"""

from __future__ import annotations

import random

import pytest
import redis
from load import Load
from scenarios import SCENARIOS, run, setting_of
from world import durable_server, world

from tallymark import SyncTally

SECONDS = 2.0


@pytest.mark.parametrize("blocking", [False, True], ids=["tasks", "threads"])
@pytest.mark.parametrize("name", SCENARIOS)
async def test_scenario(name: str, blocking: bool) -> None:
    async with world(blocking=blocking, setting=setting_of(name)) as made:
        await run(made, name, random.Random(name), SECONDS)
    outcome = made.outcome(name)
    print(*outcome.cells(), outcome.raised, sep=" | ")
    assert outcome.lost == 0
    assert outcome.late == 0, outcome
    assert outcome.faults > 0
    assert outcome.acknowledged > 100


def test_kill_9_under_threads_without_a_pause() -> None:
    """More threads than the pool has connections, and no thread gets less than its share."""
    load = Load(64, timeout=5.0, pause=0.0)
    with durable_server() as server:
        with SyncTally.from_url(server.url, timeout=load.timeout) as tally:
            with load.running_blocking(tally):
                for _ in range(5):
                    load.acknowledge(1000)
                    server.kill()
                    server.start()
                load.acknowledge(1000)
            assert tally.stats().waiting == 0
        with redis.Redis(port=server.port) as raw:
            assert load.lost(raw) == 0
    assert load.late == 0, load.overrun
    assert not load.raised
    assert min(load.acknowledged_of) >= 10  # of about 100
