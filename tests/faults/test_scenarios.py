"""What is promised whatever goes wrong: nothing lost, nobody late, and all is well after.

A few seconds of each scenario; ``nox -s soak`` runs them longer.
"""

from __future__ import annotations

import random

import pytest
from scenarios import SCENARIOS, run
from world import world

SECONDS = 2.0


#: What a program with the blocking facade goes through in its own way.
BLOCKING = ("kill -9 and restart", "SIGSTOP, SIGCONT", "cut at a random byte", "unreachable")


@pytest.mark.parametrize(
    ("name", "blocking"),
    [(name, False) for name in SCENARIOS] + [(name, True) for name in BLOCKING],
)
async def test_scenario(name: str, blocking: bool) -> None:
    async with world(blocking=blocking) as made:
        await run(made, name, random.Random(name), SECONDS)
    outcome = made.outcome(name)
    print(*outcome.cells(), outcome.raised, sep=" | ")
    assert outcome.lost == 0
    assert outcome.late == 0, outcome
    assert outcome.faults > 0
    assert outcome.acknowledged > 100
