"""A server that talks nonsense: an error, and never the answer to another question."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from datetime import datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from facades import FACADES, Facade
from tallymark import Granularity, InvalidValueError, KeySchema, Period, TallymarkError
from tallymark._core import encoding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MONDAY = datetime(2026, 11, 23)
DAY = Granularity.DAY
NEW = Granularity.DAY | Granularity.WEEK | Granularity.MONTH
OK, QUEUED = b"+OK\r\n", b"+QUEUED\r\n"


class Nonsense:
    """A server whose answers are what a test wants them to be.

    Attributes:
        answer: makes what is said to a piece of a conversation.
    """

    def __init__(self) -> None:
        self.answer: Callable[[bytes], bytes] = lambda _: b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}?protocol=2"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._talk, args=(client,), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _talk(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while data := client.recv(2**16):
                setup = data.count(b"SETINFO")  # redis-py introduces itself
                client.sendall(OK * setup if setup else self.answer(data))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def nonsense() -> Iterator[Nonsense]:
    made = Nonsense()
    yield made
    made.close()


def bitcount(event: str) -> bytes:
    """Return the request that counts an event's day."""
    return encoding.command(b"BITCOUNT", KeySchema().key(event, Period.containing(DAY, MONDAY)))


def truth(data: bytes) -> bytes:
    """Answer as Redis would if every bit were clear and every count the size of the request."""
    if b"MULTI" in data:
        commands = data.count(b"SETBIT")
        return OK + QUEUED * commands + b"*%d\r\n" % commands + b":0\r\n" * commands
    if b"GET\r\n" in data:  # whether users are sharded
        return b"$-1\r\n"
    return b":%d\r\n" % len(data)


#: Pieces of RESP, whole and broken, and anything else.
pieces = st.one_of(
    st.sampled_from([OK, QUEUED, b":1\r\n", b":0\r\n", b"$-1\r\n", b"$3\r\nabc\r\n", b"#t\r\n"]),
    st.sampled_from([b"*0\r\n", b"*-1\r\n", b"*1\r\n:1\r\n", b"%1\r\n+a\r\n:1\r\n", b"*3\r\n"]),
    st.sampled_from([b"-ERR no\r\n", b"-LOADING x\r\n", b"-EXECABORT x\r\n"]),
    st.sampled_from([b"$5\r\nab", b":", b"\r\n", b">2\r\n+a\r\n+b\r\n"]),
    st.binary(max_size=20),
)
garbage = st.lists(pieces, min_size=1, max_size=6).map(b"".join)


@pytest.mark.parametrize("facade", FACADES, ids=lambda facade: facade.name)
@settings(max_examples=100)
@given(before=garbage | st.just(b""), after=garbage | st.just(b""), cut=st.integers(0, 40))
@example(before=b":7\r\n", after=b"", cut=0)
@example(before=b"", after=b":7\r\n", cut=0)
@example(before=b"", after=OK + b":7\r\n", cut=0)
@example(before=OK, after=b"", cut=0)
@example(before=QUEUED, after=b"", cut=1)
def test_no_answer_is_that_to_another_question(
    nonsense: Nonsense, facade: Facade, before: bytes, after: bytes, cut: int
) -> None:
    """Garbage around a reply, or in the place of its end."""

    def lie(data: bytes) -> bytes:
        nonsense.answer = truth  # from then on
        reply = truth(data)
        return before + reply[: max(0, len(reply) - cut)] + after

    async def talk() -> None:
        async with facade.open(nonsense.url, timeout=0.05) as tally:
            short, long = tally.day("a", MONDAY), tally.day("a" * 50, MONDAY)

            async def check() -> None:
                nonsense.answer = truth
                assert await tally.count(long, timeout=5) == len(bitcount("a" * 50))
                assert await tally.mark_event("b", 2, now=MONDAY, timeout=5) == NEW
                assert await tally.count(short, timeout=5) == len(bitcount("a"))

            await check()
            for question, right in (
                (lambda: tally.count(short), len(bitcount("a"))),
                (lambda: tally.mark_event("a", 1, now=MONDAY), NEW),
            ):
                nonsense.answer = lie
                with contextlib.suppress(TallymarkError):
                    answer = await question()
                    # What is cut may be put together to another whole reply of this kind,
                    # which is then as good as the truth.
                    assert type(answer) is type(right)
                    assert cut or answer == right
                await check()

    asyncio.run(talk())


@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: f"trackist_{text}".encode()))
@example(b"trackist_a_W2026-54")
@example(b"trackist_a_W0000-1")
@example(b"trackist_a_9999-12-31")
@example(b"trackist_a_2026-11-23-24")
@example("trackist_a_\u0662026".encode())
def test_a_key_is_parsed_to_what_makes_it_again_or_not_at_all(key: bytes) -> None:
    schema = KeySchema()
    try:
        event, period = schema.parse(key)
    except InvalidValueError:
        return
    assert schema.key(event, period) == key
