"""What is promised whatever goes wrong: nothing lost, nobody late, and all is well after.

A few seconds of each scenario; ``nox -s soak`` runs them longer.
"""

from __future__ import annotations

import random

import pytest
from scenarios import SCENARIOS, run, setting_of
from world import world

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
