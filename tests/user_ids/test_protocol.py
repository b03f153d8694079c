"""The protocol of user ids keeps its properties; with any of its rules broken, it does not."""

from __future__ import annotations

import functools
import gc

import pytest
from model_checker import Bounds, Exploration, Rules, explore

#: The least that a broken rule needs to fail: two clients, the second of which forgets, or
#: marks another user after a failover.
FORGET = Bounds((("+0",), ("forget 0",)), (2, 1))
FAILOVER = Bounds((("+0",), ("+1",)), (2, 1), promotions=1, breaks=1)
DEMOTION = Bounds((("+0",), ("+1",)), (3, 1), promotions=2)
FORGET_IN_FAILOVER = Bounds((("+0",), ("forget 0",)), (1, 1), promotions=1, breaks=1)
FORGET_IN_DEMOTION = Bounds((("+0", "+1"), ("forget 0",)), (2, 1), promotions=2)

LOST = "a mark is lost"
STRAY = "a bit is set that belongs to no id"


@functools.cache
def explored(rules: Rules, bounds: Bounds) -> Exploration:
    """Return what `explore` finds; it makes no reference cycles, only many tuples."""
    gc.disable()
    try:
        return explore(rules, bounds)
    finally:
        gc.enable()


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "bounds",
    [
        pytest.param(Bounds((("+0", "-0"), ("+1", "+0")), (2, 1), 1, breaks=1), id="breaks"),
        pytest.param(Bounds((("+0", "-0"), ("+1",)), (2, 1), 1, late=1), id="late-writes"),
        pytest.param(Bounds((("+0",), ("+1",)), (2, 2), promotions=2), id="two-failovers"),
        pytest.param(
            Bounds((("+0",), ("forget 0", "+1")), (2, 2), breaks=1, crashes=1), id="crashes"
        ),
        pytest.param(Bounds((("+0",), ("forget 0", "+0")), (2, 1), late=1), id="late-forget"),
        pytest.param(
            Bounds((("+0",), ("forget 0",)), (2, 1), promotions=1, breaks=1), id="forget-breaks"
        ),
        pytest.param(FORGET_IN_DEMOTION, id="forget-demotion"),
        pytest.param(Bounds((("+0", "+0+1"), ("forget 0", "+1")), (2, 2)), id="both-ids"),
        pytest.param(
            Bounds((("+0", "+0+1"), ("forget 0", "+1")), (2, 1), promotions=1), id="both-failover"
        ),
        pytest.param(Bounds((("+0", "+1"), ("+1",)), (2, 2), flushes=1), id="flush"),
    ],
)
def test_the_properties_hold_in_every_state(bounds: Bounds) -> None:
    found = explored(Rules(), bounds)
    assert not found.violation, "\n".join([found.violation, *found.trace])
    assert found.states > 1_000


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("rules", "bounds", "violation"),
    [
        pytest.param(Rules(watch=False), FORGET, LOST, id="no-watch"),
        pytest.param(Rules(watch=False), DEMOTION, LOST, id="no-watch-demotion"),
        pytest.param(Rules(keeps_cache="stamp"), FAILOVER, LOST, id="cache-kept-over-a-reconnect"),
        pytest.param(
            Rules(keeps_cache="counter"),
            Bounds((("+0",), ("+1", "+2")), (2, 2), promotions=1, breaks=1),
            LOST,
            id="counter-as-evidence",
        ),
        pytest.param(
            Rules(resolves_again=False),
            Bounds((("+0",), ("forget 0",)), (2, 1), breaks=1),
            LOST,
            id="old-numbers-sent-again",
        ),
        pytest.param(
            Rules(drops_after_abort=False), DEMOTION, LOST, id="abort-judged-by-the-stamp"
        ),
        pytest.param(
            Rules(drops_after_refusal=False), DEMOTION, LOST, id="cache-kept-after-readonly"
        ),
        pytest.param(Rules(renews_stamp=False), FORGET, LOST, id="stamp-not-renewed"),
        pytest.param(Rules(compares_stamps=False), FORGET, LOST, id="stamps-not-compared"),
        pytest.param(Rules(gets_behind_watch=False), FORGET, LOST, id="get-before-watch"),
        pytest.param(
            Rules(reuses_numbers=True),
            Bounds((("+0", "+1"), ("forget 0",)), (2, 1)),
            LOST,
            id="numbers-given-again",
        ),
        pytest.param(
            Rules(has_journal=False),
            Bounds((("+0",), ("forget 0",)), (1, 1), crashes=1),
            STRAY,
            id="no-journal",
        ),
        pytest.param(
            Rules(clears_by_journal=False),
            FORGET_IN_DEMOTION,
            LOST,
            id="cleared-without-the-journal",
        ),
        pytest.param(
            Rules(compares_tokens=False), FORGET_IN_FAILOVER, STRAY, id="ended-though-not-clear"
        ),
        pytest.param(
            Rules(renews_tokens=False), FORGET_IN_FAILOVER, STRAY, id="tokens-not-renewed"
        ),
        pytest.param(Rules(whole_writes=False), DEMOTION, LOST, id="demoted-within-a-write"),
    ],
)
def test_a_broken_rule_breaks_a_property(rules: Rules, bounds: Bounds, violation: str) -> None:
    found = explored(rules, bounds)
    assert found.violation == violation
    # With all rules, the same system is right: it is the rule that matters.
    assert not explored(Rules(), bounds).violation
