"""Buffered marks at the end: of the tally, and of an event loop that was not waited for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tallymark import Tally
from wires import wired

if TYPE_CHECKING:
    from stores import Store

#: Marks users, ends the event loop, and then collects garbage, or not.
PROGRAM = """
import asyncio, gc, logging, os, sys
logging.basicConfig()
from tallymark import Tally
url, marks, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
kept = []

async def main():
    tally = Tally.from_url(url)
    buffer = tally.buffered()
    buffer.mark_event("active", 1)
    await buffer.flush()
    for user in range(marks):
        buffer.mark_event("active", user)
    if how == "in flight":
        await asyncio.sleep(0)
    if how == "closed":
        await tally.aclose()
    if how in ("kept", "forked"):
        kept.append(buffer)

asyncio.run(main())
if how == "forked":
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os._exit(0)
elif how != "kept":
    gc.collect()
    for handler in logging.root.handlers:
        handler.stream = sys.stdout  # the end of the interpreter adds nothing
"""


def logged_by(url: str, marks: int, how: str, program: str = PROGRAM) -> str:
    """Run a program, and return what it has logged."""
    done = subprocess.run(
        [sys.executable, "-c", program, url, str(marks), how],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("how", ["collected", "in flight", "kept"])
@pytest.mark.parametrize("marks", [7, 607])
def test_marks_that_an_ended_loop_leaves_are_logged(
    how: str, marks: int, redis_store: Store
) -> None:
    assert logged_by(redis_store.url, marks, how) == (
        f"WARNING:tallymark:{marks} buffered marks are lost: their event loop ended before the"
        " buffer or the tally was closed\n"
    )


def test_nothing_is_logged_if_nothing_is_lost(redis_store: Store) -> None:
    assert logged_by(redis_store.url, 607, "closed") == ""
    assert logged_by(redis_store.url, 0, "collected") == ""
    assert set(range(607)) in redis_store.bits().values()


#: Ends while the event loop of another thread still runs, which keeps the buffer alive.
IN_A_THREAD = """
import asyncio, logging, sys, threading
logging.basicConfig()
from tallymark import Tally
marked = threading.Event()

async def main():
    buffer = Tally.from_url(sys.argv[1]).buffered()
    for user in range(int(sys.argv[2])):
        buffer.mark_event("active", user)
    marked.set()
    await asyncio.sleep(60)

threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
marked.wait()
"""


def test_marks_of_a_thread_that_the_interpreter_ends_are_logged() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        assert "WARNING:tallymark:7 buffered marks are lost" in logged_by(url, 7, "", IN_A_THREAD)


#: Ends with a buffer that the interpreter collects after the module of buffers.
KEPT_BY_A_MODULE = """
import asyncio, sys
from tallymark import Tally

async def main():
    async with Tally.from_url(sys.argv[1]) as tally:
        asyncio.kept = tally.buffered()
        asyncio.kept.mark_event("active", 1)
        await asyncio.kept.flush()

asyncio.run(main())
"""


def test_the_end_of_the_interpreter_is_silent_if_nothing_is_lost(redis_store: Store) -> None:
    assert logged_by(redis_store.url, 1, "", KEPT_BY_A_MODULE) == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_fork_does_not_lose_the_marks_of_its_parent(redis_store: Store) -> None:
    assert logged_by(redis_store.url, 7, "forked") == ""


@pytest.mark.parametrize("marks", [1, 600, 2_500])
async def test_closing_the_tally_waits_for_marks_on_a_slow_link(
    marks: int, redis_store: Store
) -> None:
    with wired(redis_store.url) as wire:
        tally = Tally.from_url(wire.url)
        buffer = tally.buffered()
        buffer.mark_unique("flag", 0)
        await buffer.flush()
        wire.delay = 0.05
        for user in range(marks):
            buffer.mark_unique("flag", user)
        await tally.aclose()
        assert buffer.stats() == (marks + 1, marks + 1, 0, 0, 0)
    assert redis_store.bits() == {"trackist_flag_u": set(range(marks))}
