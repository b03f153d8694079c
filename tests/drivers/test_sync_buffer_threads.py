"""The thread of a blocking buffer: signal handlers that wait, dead threads, late marks, the end."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import linecache
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from servers import free_port
from tallymark import (
    ClosedError,
    InvalidTypeError,
    ReentrantCallError,
    SyncTally,
    Tally,
    TallymarkError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stores import Store


@pytest.fixture
def switching() -> Iterator[None]:
    """Have threads take turns very often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def nowhere() -> str:
    """Return the URL of a Redis that is not there."""
    return f"redis://127.0.0.1:{free_port()}/0"


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def living_threads() -> list[threading.Thread]:
    """Return the threads that run; `threading.enumerate` also has those whose start failed."""
    return [thread for thread in threading.enumerate() if thread.is_alive()]


@pytest.mark.parametrize("verb", ["flush", "close"])
def test_handlers_may_wait_where_they_interrupt_a_mark(redis_store: Store, verb: str) -> None:
    """A line of a mark is interrupted, one after another, also those that hold the lock."""
    interrupted = 0
    with SyncTally.from_url(redis_store.url, timeout=60) as tally:
        for line in range(60):
            buffer = tally.buffered()
            for user in range(10):
                buffer.mark_unique("flag", user)
            steps = 0

            def trace(frame: Any, event: str, _: object) -> Any:
                nonlocal steps
                if frame.f_globals["__name__"] != "tallymark._sync.sender":
                    return trace
                steps += event == "line"
                if steps == line + 1:  # noqa: B023 - called in this turn
                    sys.settrace(None)
                    # As a signal handler: in the same thread, between two steps of the mark.
                    getattr(buffer, verb)()  # noqa: B023
                    steps += 1
                return trace

            returned = True
            before = sys.gettrace()  # that of coverage
            sys.settrace(trace)
            try:
                buffer.mark_unique("flag", 10)
            except ClosedError:
                returned = False
            finally:
                sys.settrace(before)
            if steps <= line:  # the mark has fewer lines
                break
            interrupted += 1
            assert returned or verb == "close"
            if verb == "flush":
                buffer.close()
            assert buffer.stats() == (10 + returned, 10 + returned, 0, 0, 0)
    assert interrupted > 8


@pytest.mark.timed  # without coverage, which has a lock, in which the handler may interrupt it
def test_a_signal_handler_closes_the_buffer_during_marks(redis_store: Store) -> None:
    def handler(*_: object) -> None:
        buffer.close()

    with SyncTally.from_url(redis_store.url, timeout=60) as tally:
        previous = signal.signal(signal.SIGALRM, handler)
        try:
            for turn in range(30):
                buffer = tally.buffered(max_size=10**6)
                accepted = 0
                signal.setitimer(signal.ITIMER_REAL, 0.005 + turn * 0.0001)
                with pytest.raises(ClosedError):
                    while True:
                        buffer.mark_unique("flag", accepted)
                        accepted += 1
                assert buffer.stats() == (accepted, accepted, 0, 0, 0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)


def test_handlers_do_not_wait_where_they_interrupt_a_call_of_the_tally(redis_store: Store) -> None:
    """The thread of the buffer may wait for the interrupted call."""
    seen: list[Exception] = []

    def observer(*_: object) -> None:  # runs inside the call, as a signal handler does
        if threading.current_thread() is not threading.main_thread() or seen:
            return
        for waits in (buffer.flush, buffer.close):
            with pytest.raises(ReentrantCallError) as raised:
                waits()
            seen.append(raised.value)

    with SyncTally.from_url(redis_store.url, observer=observer, timeout=10) as tally:
        buffer = tally.buffered()
        with buffer._lock:  # its thread cannot send it before
            buffer.mark_unique("flag", 1)
            tally.mark_unique("flag", 2)
        buffer.close()
        assert buffer.stats() == (1, 1, 0, 0, 0)
    assert len(seen) == 2
    assert redis_store.bits() == {"trackist_flag_u": {1, 2}}


def test_a_thread_that_cannot_start_is_started_by_the_next_mark(store: Store) -> None:
    with SyncTally.from_url(store.url, max_events=1) as tally, tally.buffered() as buffer:
        size = threading.stack_size(1 << 46)
        try:
            with pytest.raises(TallymarkError, match="cannot start its thread"):
                buffer.mark_unique("other", 1)
        finally:
            threading.stack_size(size)
        buffer.mark_unique("flag", 2)  # the only event: the place of the other one is free again
        buffer.flush()
        assert buffer.stats() == (1, 1, 0, 0, 0)


def test_a_start_that_is_interrupted(redis_store: Store) -> None:
    """A line of the first mark is interrupted by an exception, one after another."""
    interrupted = 0
    with SyncTally.from_url(redis_store.url, timeout=10) as tally:
        for line in range(100):
            buffer = tally.buffered()
            steps = 0
            lines: set[Any] = set()

            def trace(frame: Any, event: str, _: object) -> Any:
                nonlocal steps
                if frame.f_globals["__name__"] != "tallymark._sync.sender" or event != "line":
                    return trace
                # No signal handler runs at a `try`, nor at the end of a `with` block, which has the
                # line of its beginning. An exception from here would leave the lock locked.
                text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
                if text == "try:" or (frame, frame.f_lineno) in lines:  # noqa: B023
                    return trace
                lines.add((frame, frame.f_lineno))  # noqa: B023
                steps += 1
                if steps == line + 1:  # noqa: B023
                    sys.settrace(None)
                    raise KeyboardInterrupt
                return trace

            before = sys.gettrace()  # that of coverage
            sys.settrace(trace)
            try:
                buffer.mark_unique("flag", 1)
            except KeyboardInterrupt:
                interrupted += 1
            finally:
                sys.settrace(before)
            if steps <= line:
                break
            buffer.mark_unique("flag", 2)
            buffer.flush()
            assert buffer.stats().sent == buffer.stats().accepted
            buffer.close()
    assert interrupted > 20
    until(lambda: "tallymark-buffer" not in {thread.name for thread in living_threads()})


def test_a_mark_during_the_start_starts_no_other_thread(
    redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a signal handler, which is interrupted by another one, without end."""
    threads: list[threading.Thread] = []

    class Marking(threading.Thread):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            threads.append(self)
            if len(threads) < 5:
                buffer.mark_unique("flag", len(threads))

    with SyncTally.from_url(redis_store.url) as tally, tally.buffered() as buffer:
        with monkeypatch.context() as patched:
            patched.setattr(threading, "Thread", Marking)
            buffer.mark_unique("flag", 0)
        buffer.flush()
        assert buffer.stats() == (2, 2, 0, 0, 0)
    assert len(threads) == 1
    assert redis_store.bits() == {"trackist_flag_u": {0, 1}}


def waits_for_lock(thread: threading.Thread) -> bool:
    """Return whether a thread is in a mark, where that needs the lock of the buffer."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name == "_accept"


def test_marks_that_rely_on_a_start_that_fails_have_failed(
    redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none waits for the lock of the start, as a signal handler in another thread would."""
    told: list[int] = []

    class Failing(threading.Thread):
        def start(self) -> None:
            if not others:
                for user in (1, 2):
                    others.append(real(target=buffer.mark_unique, args=("flag", user)))
                    others[-1].start()
                buffer.mark_unique("flag", 3)  # as a signal handler
                until(lambda: all(waits_for_lock(thread) for thread in others))
            raise RuntimeError("no more threads")

    def on_error(_: Exception, marks: Any) -> None:
        told.extend(mark.user_id for mark in marks)

    real = threading.Thread
    others: list[threading.Thread] = []
    with SyncTally.from_url(redis_store.url) as tally:
        buffer = tally.buffered(on_error=on_error)
        with monkeypatch.context() as patched:
            patched.setattr(threading, "Thread", Failing)
            with pytest.raises(TallymarkError, match="no more threads"):
                buffer.mark_unique("flag", 0)
            for thread in others:
                thread.join(10)
        assert buffer.stats() == (3, 0, 0, 3, 0)
        assert sorted(told) == [1, 2, 3]
        thread = threading.Thread(target=buffer.mark_unique, args=("flag", 4))
        thread.start()
        thread.join(10)
        buffer.close()
        assert buffer.stats() == (4, 1, 0, 3, 0)


def test_on_error_that_exits_is_logged(
    redis_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    redis_store.raw.lpush("trackist_bad_u", 1)
    with SyncTally.from_url(redis_store.url) as tally:
        with tally.buffered(on_error=lambda *_: sys.exit(1)) as buffer:
            buffer.mark_unique("bad", 1)
            buffer.flush()
            for user in range(10):
                buffer.mark_unique("good", user)
        assert buffer.stats() == (11, 10, 0, 1, 0)
    assert "on_error" in caplog.text
    assert "SystemExit" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_replaced(redis_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with SyncTally.from_url(redis_store.url) as tally, tally.buffered() as buffer:
        buffer.mark_unique("flag", 1)
        buffer.flush()
        thread = buffer._thread
        assert thread is not None
        with monkeypatch.context() as patched:
            patched.setattr(type(buffer), "_send_some", lambda _: sys.exit(1))
            buffer.mark_unique("flag", 2)
            thread.join(10)
        assert not thread.is_alive()
        buffer.flush()  # as would the next mark
        assert buffer.stats() == (2, 2, 0, 0, 0)


def test_buffers_that_nobody_holds_send_their_marks(redis_store: Store) -> None:
    def mark(user: int) -> None:
        buffer = tally.buffered()
        buffer.mark_unique("flag", user)
        buffer.flush()
        until(lambda: buffer._sleeps)
        buffer.mark_unique("flag", 100 + user)

    with SyncTally.from_url(redis_store.url) as tally:
        for user in range(100):
            mark(user)
        gc.collect()
    assert redis_store.bits() == {"trackist_flag_u": set(range(200))}


@pytest.mark.usefixtures("switching")
def test_marks_of_threads_while_the_buffer_is_closed(redis_store: Store) -> None:
    with SyncTally.from_url(redis_store.url) as tally:
        for _ in range(50):
            buffer = tally.buffered(on_full="drop")
            buffer.mark_unique("flag", 0)

            def work(mark: Callable[[str, int], None] = buffer.mark_unique) -> None:
                with pytest.raises(ClosedError):
                    while True:
                        mark("flag", 1)

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            buffer.close()
            for thread in threads:
                thread.join()
            stats = buffer.stats()
            assert stats.waiting == stats.failed == 0


def test_close_waits_for_on_error() -> None:
    told: list[Any] = []
    called, go_on = threading.Event(), threading.Event()

    def on_error(_: object, marks: Any) -> None:
        called.set()
        assert go_on.wait(10)
        told.extend(marks)

    with SyncTally.from_url(nowhere(), timeout=0.2) as tally:
        buffer = tally.buffered(on_error=on_error)
        buffer.mark_unique("flag", 1)
        assert called.wait(10)
        begin = time.monotonic()
        buffer.close(0.05)
        assert time.monotonic() - begin < 5  # the deadline
        assert not told
        timer = threading.Timer(0.05, go_on.set)
        timer.start()
        buffer.close(10)
        assert len(told) == 1
        timer.join()


def test_marks_in_flight_that_close_gives_up_fail_once(redis_store: Store) -> None:
    errors: list[str] = []
    with SyncTally.from_url(redis_store.url, timeout=30) as tally:
        buffer = tally.buffered(on_error=lambda error, _: errors.append(str(error)))
        buffer.mark_unique("flag", 1)
        buffer.flush()
        thread = buffer._thread
        assert thread is not None
        with buffer._lock:
            redis_store.raw.client_pause(60_000, all=False)
            buffer.mark_unique("flag", 2)
        try:
            until(lambda: bool(buffer._in_flight))
            buffer.close(0.05)
        finally:
            redis_store.raw.client_unpause()
        thread.join(30)
        assert not thread.is_alive()
        assert buffer.stats() == (2, 1, 0, 1, 0)
    assert errors == ["the buffer was closed; marks may or may not have been applied"]


def test_late_marks_keep_the_connection_and_say_why(redis_store: Store) -> None:
    errors: list[str] = []

    def on_error(error: Exception, marks: Any) -> None:
        errors.extend([str(error)] * len(marks))

    with SyncTally.from_url(redis_store.url) as tally:
        buffer = tally.buffered(timeout=1, on_error=on_error)
        buffer.mark_unique("flag", 0)
        buffer.flush()
        connections = redis_store.raw.info("stats")["total_connections_received"]
        with buffer._lock:  # its thread cannot take them
            buffer.mark_unique("flag", 1)
            buffer.mark_unique("flag", 2)
            time.sleep(1)
            buffer.mark_unique("flag", 3)
        buffer.flush()
        assert buffer.stats() == (4, 2, 0, 2, 0)
        assert errors == ["its turn did not come within 1 s; nothing was sent"] * 2
        assert redis_store.raw.info("stats")["total_connections_received"] == connections
        buffer.close()
    assert redis_store.bits() == {"trackist_flag_u": {0, 3}}


def test_an_outage_says_the_whole_timeout() -> None:
    errors: list[str] = []
    with SyncTally.from_url(nowhere(), timeout=0.4) as tally:
        with tally.buffered(on_error=lambda error, _: errors.append(str(error))) as buffer:
            for user in range(3_000):
                buffer.mark_unique("flag", user)
            buffer.flush(10)
        assert buffer.stats().failed == 3_000
    assert len(errors) > 1
    assert "its turn did not come within 0.4 s; nothing was sent" in errors
    assert not [error for error in errors if "within 0 s" in error]


def test_max_pending_is_not_for_buffered_marks(redis_store: Store) -> None:
    with SyncTally.from_url(redis_store.url, max_pending=1) as tally:
        tally.backend.writer._pending[object()] = 1  # as a call in progress in another thread
        with tally.buffered() as buffer:
            for user in range(100):
                buffer.mark_unique("flag", user)
        assert buffer.stats() == (100, 100, 0, 0, 0)


class AsyncCallable:
    async def __call__(self, *_: object) -> None: ...


@pytest.mark.parametrize("facade", [Tally, SyncTally])
def test_async_on_error_is_refused(facade: Any) -> None:
    on_error = AsyncCallable()

    async def function(*_: object) -> None: ...

    tally = facade.from_url("memory://")
    for refused in (on_error, on_error.__call__, functools.partial(on_error), function):
        with pytest.raises(InvalidTypeError, match="coroutine"):
            tally.buffered(on_error=refused)
    closing = tally.aclose if facade is Tally else tally.close
    if inspect.isawaitable(closed := closing()):

        async def close() -> None:
            await closed

        asyncio.run(close())


def test_an_on_error_that_returns_a_coroutine_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with SyncTally.from_url(nowhere(), timeout=0.1) as tally:
        with tally.buffered(on_error=lambda *_: asyncio.sleep(0)) as buffer:
            buffer.mark_unique("flag", 1)
    assert "returned a coroutine" in caplog.text


ENDING = """
import atexit, sys
from tallymark import ClosedError, SyncTally
tally = SyncTally.from_url(sys.argv[1])
def early():
    try:
        buffer.mark_unique("early", 1)
    except ClosedError as error:
        print(error)
    try:
        tally.buffered().mark_unique("early", 2)
    except ClosedError as error:
        print(error)
atexit.register(early)
buffer = tally.buffered()
atexit.register(lambda: buffer.mark_unique("late", 1))
"""


def test_first_marks_in_functions_of_atexit(redis_store: Store) -> None:
    arguments = [sys.executable, "-c", ENDING, redis_store.url]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == (
        "this buffer is closed\nthe process ends, and nothing would send the mark\n"
    )
    if sys.version_info < (3, 12):
        assert redis_store.bits() == {"trackist_late_u": {1}}
    else:  # no thread starts any more, as the mark says
        assert "cannot start its thread" in ran.stderr


COLLECTED = """
import gc, multiprocessing.util, sys
from tallymark import SyncTally
tally = SyncTally.from_url(sys.argv[1])
buffer, other = tally.buffered(), tally.buffered()
buffer.mark_unique("flag", 1)
other.mark_unique("flag", 2)
other.flush()
other.close()
del other
gc.collect()
buffer.mark_unique("flag", 3)
"""


def test_a_collected_buffer_closes_no_others(redis_store: Store) -> None:
    arguments = [sys.executable, "-c", COLLECTED, redis_store.url]
    subprocess.run(arguments, timeout=60, check=True)
    assert redis_store.bits() == {"trackist_flag_u": {1, 2, 3}}


def test_an_observer_that_exits_does_not_end_the_thread(redis_store: Store) -> None:
    def observer(*_: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            sys.exit(1)

    with SyncTally.from_url(redis_store.url, observer=observer) as tally:
        with tally.buffered() as buffer:
            buffer.mark_unique("flag", 1)
            buffer.flush()
            thread = buffer._thread
            buffer.mark_unique("flag", 2)
            buffer.flush()
            assert buffer._thread is thread
        assert buffer.stats().waiting == 0
    assert redis_store.bits() == {"trackist_flag_u": {1, 2}}


def test_close_logs_the_failures_that_were_not_logged_yet(caplog: pytest.LogCaptureFixture) -> None:
    with SyncTally.from_url(nowhere(), timeout=0.2) as tally:
        with tally.buffered() as buffer:
            buffer.mark_unique("flag", 1)
            buffer.flush(10)
            for user in range(5):
                buffer.mark_unique("flag", user)
            buffer.flush(10)
            assert "more buffered marks" not in caplog.text
    assert "5 more buffered marks have failed" in caplog.text
