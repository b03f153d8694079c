"""Signals in the main thread while other threads use the same tally.

The main thread then is in all places: it sends for others, waits for another thread that does,
or receives. Whatever its handler does there is no matter for the other threads.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wires import wired

if TYPE_CHECKING:
    from stores import Store

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="Windows has no timers of this kind"
)

PROGRAM = Path(__file__).with_name("thread_interruptions.py")


def run(when: str, action: str, url: str) -> None:
    """Interrupt the main thread of a process, which ends also if a call hangs.

    A signal at a random moment could interrupt coverage where it holds a lock of its own.
    """
    traced = when != "random"
    done = subprocess.run(
        [sys.executable, PROGRAM, when, action, url],
        env={name: os.environ[name] for name in os.environ if traced or "COVERAGE" not in name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "interruptions" in done.stdout


@pytest.mark.parametrize("action", ["mark", "raise"])
@pytest.mark.parametrize("verb", ["mark", "read"])
def test_interrupted_at_every_line_beside_other_threads(
    redis_store: Store, verb: str, action: str
) -> None:
    run(verb, action, redis_store.url)


@pytest.mark.parametrize("action", ["mark", "raise"])
def test_interrupted_at_random_moments_beside_other_threads(
    redis_store: Store, action: str
) -> None:
    run("random", action, redis_store.url)


@pytest.mark.parametrize("action", ["mark", "raise"])
def test_interrupted_while_waiting_beside_other_threads(redis_store: Store, action: str) -> None:
    """The replies take so long that nearly all signals arrive while the call waits."""
    with wired(redis_store.url) as wire:
        wire.delay = 0.002
        run("random", action, wire.url)


@pytest.mark.parametrize("action", ["mark", "raise"])
def test_interrupted_on_a_cluster_beside_other_threads(cluster_store: Store, action: str) -> None:
    run("random", action, cluster_store.url)
