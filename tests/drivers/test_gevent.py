"""A blocking tally under gevent: greenlets instead of threads."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wires import wired

if TYPE_CHECKING:
    from stores import Store

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gevent") is None, reason="gevent is not installed"
)

PROGRAM = Path(__file__).with_name("gevent_program.py")


def run(what: str, url: str) -> float:
    """Run a program under gevent; return how many seconds it took."""
    done = subprocess.run(
        [sys.executable, PROGRAM, what, url],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return float(done.stdout.split()[0])


def test_greenlets_mark_and_read_concurrently(redis_store: Store) -> None:
    with wired(redis_store.url) as wire:
        wire.delay = 0.005
        seconds = run("together", wire.url)
    users = {*range(500), 100_000}
    assert redis_store.bits() == {"trackist_a_u": users}
    # One call after the other, 1,500 of them would take 10 ms each.
    assert seconds < 10


def test_greenlets_that_give_up_beside_others(redis_store: Store) -> None:
    with wired(redis_store.url) as wire:
        wire.delay = 0.003
        run("timeouts", wire.url)
