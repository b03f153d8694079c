"""Many threads, one tally: which calls share round trips, and who reads their replies."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import redis

from facades import internals
from proxy import Proxy, proxied
from tallymark import (
    CommandError,
    Granularity,
    OverloadedError,
    StoreTimeoutError,
    StoreUnavailableError,
    SyncTally,
    WrongKeyTypeError,
)
from tallymark._marking.sizing import MAX_BATCH_MARKS
from tallymark._sync import shared_connection
from tallymark._sync.connection import Connection
from tallymark._sync.leadership import LEFT, Call, Leadership, give_back, take
from wires import wired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from stores import Store
    from tallymark import Operation
    from tallymark._sync.shared_connection import SharedConnection

NEW = Granularity.UNIQUE
NONE = Granularity(0)


@pytest.fixture
def proxy(redis_store: Store) -> Iterator[Proxy]:
    """Yield a proxy in front of the real Redis."""
    with proxied(redis_store.url) as running:
        yield running


@pytest.fixture
def tally(proxy: Proxy) -> Iterator[SyncTally]:
    """Yield a tally behind the proxy, connected, for marks and for reads."""
    with SyncTally.from_url(proxy.url) as made:
        made.mark_unique("a", 0)
        made.contains(made.unique("a"), 0)
        proxy.sent.clear()
        yield made


def marking(tally: SyncTally, users: Iterable[int], **options: Any) -> list[Callable[[], Any]]:
    """Return a call for each user, which marks it."""
    return [functools.partial(tally.mark_unique, "a", user, **options) for user in users]


class Crowd:
    """Calls in threads of their own, which begin one after the other."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(64)

    def begin(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Future[Any]:
        """Begin a call in a thread."""
        return self._executor.submit(call, *arguments, **options)

    def close(self) -> None:
        """Wait for all calls."""
        self._executor.shutdown()


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    """Yield threads for calls."""
    made = Crowd()
    yield made
    made.close()


def marks_of(tally: SyncTally) -> SharedConnection:
    """Return the shared connection for marks."""
    shared: SharedConnection = internals(tally).writer._commit
    return shared


def reads_of(tally: SyncTally) -> SharedConnection:
    """Return the shared connection for small reads."""
    shared: SharedConnection = internals(tally)._primary._pipeline
    return shared


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; for 10 s at most."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def on_the_wire(crowd: Crowd, tally: SyncTally, proxy: Proxy, **options: Any) -> Future[Any]:
    """Begin a mark whose reply the proxy holds back."""
    proxy.passing.clear()
    proxy.held.clear()
    first = crowd.begin(tally.mark_unique, "a", 1, **options)
    assert proxy.held.wait(10)
    return first


def gathered(
    crowd: Crowd, shared: SharedConnection, calls: Sequence[Callable[[], Any]]
) -> list[Future[Any]]:
    """Begin calls, and wait until they are in the queue, in this order."""
    futures = []
    before = len(shared._queue)
    for number, call in enumerate(calls, before + 1):
        futures.append(crowd.begin(call))
        until(lambda: len(shared._queue) == number)  # noqa: B023 - called at once
    return futures


def test_marks_that_gather_share_a_transaction(
    tally: SyncTally, proxy: Proxy, crowd: Crowd
) -> None:
    first = on_the_wire(crowd, tally, proxy)
    calls = marking(tally, range(10, 30))
    others = gathered(crowd, marks_of(tally), calls)
    proxy.passing.set()
    assert [first.result(), *(other.result() for other in others)] == [NEW] * 21
    assert len(proxy.transactions()) == 2
    assert tally.stats().marks_per_batch == pytest.approx(22 / 3)


def test_calls_act_in_their_order(tally: SyncTally, proxy: Proxy, crowd: Crowd) -> None:
    first = on_the_wire(crowd, tally, proxy)
    verbs = (tally.mark_unique, tally.unmark_unique, tally.mark_unique, tally.mark_unique)
    calls = [functools.partial(verb, "a", 7) for verb in verbs]
    others = gathered(crowd, marks_of(tally), calls)
    proxy.passing.set()
    assert first.result() == NEW
    assert [other.result() for other in others] == [NEW, NEW, NEW, NONE]
    assert len(proxy.transactions()) == 2


def test_one_connection_serves_all_threads(redis_store: Store) -> None:
    with SyncTally.from_url(redis_store.url + "?client_name=shared") as tally:
        with ThreadPoolExecutor(16) as executor:
            for _ in executor.map(lambda user: tally.mark_unique("a", user), range(2000)):
                pass
        clients: Any = redis_store.raw.client_list()
        assert [client["name"] for client in clients].count("shared") == 1
    until(lambda: not any(c["name"] == "shared" for c in redis_store.raw.client_list()))


def test_reads_that_gather_share_a_round_trip(tally: SyncTally, proxy: Proxy, crowd: Crowd) -> None:
    tally.mark_many("a", range(10, 30, 2))
    tally.mark_unique("a", 10)
    proxy.sent.clear()
    flag, day = tally.unique("a"), tally.day("a")
    proxy.marker = b":"
    proxy.passing.clear()
    first = crowd.begin(tally.contains, flag, 0)
    assert proxy.held.wait(10)
    calls: list[Callable[[], Any]] = [
        functools.partial(tally.contains, day, user) for user in range(10, 30)
    ]
    calls[7:7] = [lambda: tally.count(flag)]
    others = gathered(crowd, reads_of(tally), calls)
    proxy.passing.set()
    assert first.result() is True
    answers = [other.result() for other in others]
    assert answers.pop(7) == 2
    assert answers == [True, False] * 10
    # A count may take longer than a lookup, so fewer of them share a round trip.
    assert len(proxy.sent) <= 4


def test_no_transaction_has_more_than_a_thousand_marks(
    tally: SyncTally, proxy: Proxy, crowd: Crowd
) -> None:
    first = on_the_wire(crowd, tally, proxy)

    def many(user: int) -> None:
        with tally.transaction() as tx:
            for number in range(400):
                tx.mark_unique("a", user + number)

    calls = [functools.partial(many, user) for user in range(1000, 6000, 1000)]
    others = gathered(crowd, marks_of(tally), calls)
    proxy.passing.set()
    first.result()
    for other in others:
        other.result()
    assert tally.count(tally.unique("a")) == 2 + 5 * 400
    assert tally.stats().batches == 2 + 3
    assert 2 * 400 <= MAX_BATCH_MARKS < 3 * 400


def test_marks_of_many_users_hold_up_nobody(tally: SyncTally, proxy: Proxy, crowd: Crowd) -> None:
    first = on_the_wire(crowd, tally, proxy)
    bulk = crowd.begin(tally.mark_many, "b", range(5000))
    until(lambda: any(b"trackist_b" in data for data in proxy.sent))  # the mark has no reply yet
    assert not first.done()
    proxy.passing.set()
    assert first.result() == NEW
    assert bulk.result()[Granularity.DAY] == 5000


def test_a_leader_that_gives_up_leaves_the_replies_to_the_next(
    tally: SyncTally, proxy: Proxy, crowd: Crowd
) -> None:
    """Nothing is sent again: the others get exact results."""
    first = on_the_wire(crowd, tally, proxy)
    calls = [*marking(tally, [10], timeout=1), *marking(tally, range(11, 15), timeout=20)]
    others = gathered(crowd, marks_of(tally), calls)
    proxy.held.clear()
    proxy.passing.set()
    assert first.result() == NEW
    proxy.passing.clear()  # the transaction of the others may have its reply by now
    outcomes = [other.exception() if other is others[0] else None for other in others[:1]]
    proxy.passing.set()
    assert [other.result() for other in others[1:]] == [NEW] * 4
    assert all(outcome is None or isinstance(outcome, StoreTimeoutError) for outcome in outcomes)
    assert len(proxy.transactions()) == 2
    assert tally.stats().retries == 0


def test_a_leader_leaves_replies_of_a_held_transaction(
    tally: SyncTally, proxy: Proxy, crowd: Crowd
) -> None:
    first = on_the_wire(crowd, tally, proxy, timeout=1)
    calls = marking(tally, range(10, 15))
    others = gathered(crowd, marks_of(tally), calls)
    with pytest.raises(StoreTimeoutError, match="may or may not"):
        first.result()
    # Nobody waits for the reply of the first any more, so the connection was given up.
    until(lambda: len(proxy.transactions()) == 2)
    proxy.passing.set()
    assert [other.result() for other in others] == [NEW] * 5
    assert tally.stats().errors == 1


def test_a_follower_that_gives_up_was_not_sent(
    tally: SyncTally, proxy: Proxy, crowd: Crowd
) -> None:
    first = on_the_wire(crowd, tally, proxy)
    with pytest.raises(StoreTimeoutError, match="nothing was sent"):
        tally.mark_unique("a", 50, timeout=0.1)
    proxy.passing.set()
    assert first.result() == NEW
    tally.mark_unique("a", 51)
    assert not tally.contains(tally.unique("a"), 50)
    assert len(proxy.transactions()) == 2


def test_an_error_stays_with_its_call(
    tally: SyncTally, proxy: Proxy, crowd: Crowd, redis_store: Store
) -> None:
    redis_store.raw.lpush("trackist_bad_u", "no bitmap")
    first = on_the_wire(crowd, tally, proxy)
    events = ["a", "bad", "b", "c", "bad"]
    calls = [functools.partial(tally.mark_unique, event, 10) for event in events]
    others = gathered(crowd, marks_of(tally), calls)
    proxy.passing.set()
    first.result()
    for event, other in zip(events, others, strict=True):
        if event == "bad":
            assert isinstance(other.exception(), WrongKeyTypeError)
        else:
            assert other.result() == NEW
    errors = [other.exception() for other in others if other.exception()]
    assert errors[0] is not errors[1]  # or two threads would add to one traceback
    assert tally.stats().errors == 2


def test_a_refused_mark_has_the_others_sent_again(
    tally: SyncTally, proxy: Proxy, crowd: Crowd, redis_store: Store
) -> None:
    """Redis discards a transaction with a command that it does not accept."""
    raw = redis_store.raw
    try:
        raw.execute_command("ACL", "SETUSER", "default", "resetkeys", "~trackist_a*")
        first = on_the_wire(crowd, tally, proxy)
        events = ["a", "secret", "ab"]
        calls = [functools.partial(tally.mark_unique, event, 10) for event in events]
        others = gathered(crowd, marks_of(tally), calls)
        proxy.passing.set()
        assert first.result() == NEW
        assert others[0].result() == others[2].result() == NEW
        assert others[1].exception() is not None
    finally:
        raw.execute_command("ACL", "SETUSER", "default", "allkeys")


def test_more_marks_than_max_pending_are_refused(proxy: Proxy, crowd: Crowd) -> None:
    with SyncTally.from_url(proxy.url, max_pending=5) as tally:
        tally.mark_unique("a", 0)
        first = on_the_wire(crowd, tally, proxy)
        calls = marking(tally, range(10, 14))
        others = gathered(crowd, marks_of(tally), calls)
        assert tally.stats().waiting == 5
        with pytest.raises(OverloadedError):
            tally.mark_unique("a", 99)
        proxy.passing.set()
        assert first.result() == NEW
        assert [other.result() for other in others] == [NEW] * 4
        assert tally.stats().waiting == 0


def test_a_broken_connection_is_nobodys_error(tally: SyncTally, proxy: Proxy, crowd: Crowd) -> None:
    first = on_the_wire(crowd, tally, proxy)
    calls = marking(tally, range(10, 20))
    others = gathered(crowd, marks_of(tally), calls)
    proxy.cuts = 2
    proxy.passing.set()
    for call in (first, *others):
        assert call.result() in (NEW, NONE)
    assert tally.stats().retries >= 1
    assert tally.count(tally.unique("a")) == 12


def test_a_call_beside_a_reply_that_never_comes(
    tally: SyncTally, proxy: Proxy, crowd: Crowd
) -> None:
    """Every call ends by its own deadline, also if its leader may wait for longer."""
    first = on_the_wire(crowd, tally, proxy, timeout=20)
    begun = time.monotonic()
    with pytest.raises(StoreTimeoutError):
        tally.mark_unique("a", 2, timeout=0.2)
    assert time.monotonic() - begun < 1.5
    proxy.passing.set()
    assert first.result() == NEW


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_process_has_a_connection_of_its_own(
    tally: SyncTally, proxy: Proxy, crowd: Crowd
) -> None:
    first = on_the_wire(crowd, tally, proxy)
    others = gathered(crowd, marks_of(tally), [lambda: tally.mark_unique("a", 10)])
    proxy.passing.set()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            if tally.mark_unique("a", 500) == NEW and tally.contains(tally.unique("a"), 500):
                os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert first.result() == others[0].result() == NEW
    assert tally.mark_unique("a", 500) == NONE
    assert tally.stats().retries == 0


def test_threads_with_a_client_of_the_callers(proxy: Proxy, crowd: Crowd) -> None:
    with redis.Redis.from_url(proxy.url) as client:
        tally = SyncTally(client)
        tally.mark_unique("a", 0)
        first = on_the_wire(crowd, tally, proxy)
        calls = marking(tally, range(10, 20))
        others = gathered(crowd, marks_of(tally), calls)
        proxy.passing.set()
        assert first.result() == NEW
        assert [other.result() for other in others] == [NEW] * 10
        assert len(proxy.transactions()) == 3
        pool: Any = client.connection_pool
        until(lambda: len(pool._available_connections) == 1)  # released after the last call


def test_no_server(tally: SyncTally, proxy: Proxy, crowd: Crowd) -> None:
    """Each thread gets an error of its own, which says that nothing was sent."""
    proxy.close()
    calls = [crowd.begin(tally.mark_unique, "a", user, timeout=0.5) for user in range(16)]
    errors = [call.exception() for call in calls]
    assert all(isinstance(e, StoreUnavailableError | StoreTimeoutError) for e in errors)
    assert len(set(map(id, errors))) == 16
    tracebacks = threading.active_count()
    assert tracebacks < 100


def test_a_reply_that_comes_in_two_parts(redis_store: Store, crowd: Crowd) -> None:
    """A lone mark's reply is known by all of its bytes; parts of it are put together."""
    with wired(redis_store.url) as wire, SyncTally.from_url(wire.url) as tally:
        tally.mark_unique("a", 0)
        for position in range(len(b"+OK\r\n+QUEUED\r\n*1\r\n:0\r\n")):
            wire.hold_after("reply", position)
            mark = crowd.begin(tally.mark_unique, "a", position + 1)
            until(lambda: not wire.is_passing)
            assert not mark.done()
            wire.heal()
            assert mark.result() == NEW, position
            assert tally.mark_unique("a", position + 1) == NONE
        assert tally.stats().retries == 0


def test_replies_that_nobody_waits_for(tally: SyncTally, proxy: Proxy) -> None:
    """All callers of a transaction may leave at once; the next one does not get their replies."""
    shared = marks_of(tally)
    leadership = shared._free["leadership"]
    ended = Call((), 0.0)
    ended.outcome = LEFT
    leadership.calls, leadership.request, leadership.on_the_wire = [ended], None, True
    leadership.connection.send(b"*1\r\n$4\r\nPING\r\n")
    assert tally.mark_unique("a", 1) == NEW
    assert tally.mark_unique("a", 1) == NONE
    assert len(proxy.transactions()) == 2
    assert tally.stats().retries == 0


class HandlerError(Exception):
    """What a signal handler raises."""


def test_an_exception_while_the_connection_is_prepared(
    tally: SyncTally, proxy: Proxy, crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection may owe a reply, to a handshake or a ping: nobody takes it for another one."""
    prepare = Connection.prepare

    def interrupted(connection: Connection, deadline: float) -> None:
        monkeypatch.setattr(Connection, "prepare", prepare)
        prepare(connection, deadline)
        connection.send(b"*1\r\n$4\r\nPING\r\n")
        raise HandlerError

    first = on_the_wire(crowd, tally, proxy)
    others = gathered(crowd, marks_of(tally), marking(tally, range(10, 13)))
    monkeypatch.setattr(Connection, "prepare", interrupted)
    proxy.passing.set()
    assert first.result() == NEW
    assert isinstance(others[0].exception(), HandlerError)
    assert [other.result() for other in others[1:]] == [NEW] * 2
    assert tally.stats().retries == 0


def test_the_leadership_is_offered_to_a_call_that_has_left(tally: SyncTally) -> None:
    shared = marks_of(tally)
    held: list[Leadership] = []
    assert take(shared._free, held)
    call = Call((), 0.0)
    call.follow()
    call.has_left = True
    assert not shared._offer(call, held)
    assert held
    assert not call.mailbox
    call.has_left = False
    assert shared._offer(call, held)
    assert not held
    give_back(call.mailbox, shared._free)
    assert tally.mark_unique("a", 1) == NEW


def test_closed_while_the_leadership_is_given_back(
    tally: SyncTally, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = marks_of(tally)._free["leadership"].connection

    def race(held: list[Leadership], free: dict[str, Leadership]) -> None:
        monkeypatch.undo()
        tally.close()
        give_back(held, free)

    monkeypatch.setattr(shared_connection, "give_back", race)
    assert tally.mark_unique("a", 1) == NEW
    assert not connection._held


def test_the_reply_of_a_single_mark_is_awaited_by_the_deadline(tally: SyncTally) -> None:
    """The timeout of the socket may be that of a former leader."""
    connection = marks_of(tally)._free["leadership"].connection
    begun = time.monotonic()
    connection.prepare(begun + 20)
    with pytest.raises(TimeoutError):
        connection.receive_known({b"+OK": NEW}, begun + 0.1)
    assert time.monotonic() - begun < 2


def test_observers_that_mark_and_read(redis_store: Store, crowd: Crowd) -> None:
    """The observer of the thread that marks reads, and that of the thread that reads marks."""
    inside = threading.local()

    def observer(operation: Operation) -> None:
        if not getattr(inside, "observer", False):
            inside.observer = True
            try:
                if operation.kind == "write":
                    tally.contains(flag, 1)
                else:
                    tally.mark_unique("observed", 1)
            finally:
                inside.observer = False

    with SyncTally.from_url(redis_store.url, observer=observer, timeout=20) as tally:
        flag = tally.unique("a")

        def mark() -> float:
            begun = time.monotonic()
            for user in range(300):
                tally.mark_unique("a", user)
            return time.monotonic() - begun

        def read() -> float:
            begun = time.monotonic()
            for user in range(300):
                tally.contains(flag, user)
            return time.monotonic() - begun

        calls = [crowd.begin(mark), crowd.begin(read), crowd.begin(mark), crowd.begin(read)]
        assert max(call.result() for call in calls) < 15


@pytest.mark.timed
def test_a_ping_before_a_mark_counts_for_its_deadline(redis_store: Store) -> None:
    url = f"?health_check_interval={3600}"
    with wired(redis_store.url) as wire, SyncTally.from_url(wire.url + url) as tally:
        assert tally.mark_unique("a", 1) == NEW
        connection: Any = marks_of(tally)._free["leadership"].connection._held[0]
        before = wire.bytes["request"]
        connection.next_health_check = 0
        assert tally.mark_unique("a", 2) == NEW
        until(lambda: wire.bytes["request"] > before)
        assert connection.next_health_check > time.monotonic() + 3000
        connection.next_health_check = 0
        wire.swallow()
        begun = time.monotonic()
        with pytest.raises(StoreTimeoutError, match="nothing was sent"):
            tally.mark_unique("a", 3, timeout=0.3)
        assert time.monotonic() - begun < 0.3 + 0.3
        wire.heal()


def test_refused_marks_hold_up_nobody(redis_store: Store, crowd: Crowd) -> None:
    """A mark beside those that Redis refuses is sent alone, not with the next ones again."""
    raw = redis_store.raw
    try:
        raw.execute_command("ACL", "SETUSER", "default", "resetkeys", "~trackist_a*")
        with SyncTally.from_url(redis_store.url, timeout=20) as tally:
            stopped = threading.Event()

            def refused() -> None:
                while not stopped.is_set():
                    with contextlib.suppress(CommandError):
                        tally.mark_unique("secret", 1)

            calls = [crowd.begin(refused) for _ in range(8)]
            begun = time.monotonic()
            assert [tally.mark_unique("a", user) for user in range(50)] == [NEW] * 50
            assert time.monotonic() - begun < 10
            stopped.set()
            for call in calls:
                call.result()
    finally:
        raw.execute_command("ACL", "SETUSER", "default", "allkeys")


def test_a_large_transaction_goes_alone(tally: SyncTally) -> None:
    shared = marks_of(tally)
    before = shared.bytes_sent
    with tally.transaction() as tx:
        for user in range(MAX_BATCH_MARKS + 1):
            tx.mark_unique("a", user)
    assert shared.bytes_sent == before
    with tally.transaction() as tx:
        for user in range(MAX_BATCH_MARKS):
            tx.mark_unique("a", user)
    assert shared.bytes_sent > before


def test_observers_see_all_marks(proxy: Proxy, crowd: Crowd) -> None:
    operations: list[Operation] = []
    with SyncTally.from_url(proxy.url, observer=operations.append) as tally:
        first = on_the_wire(crowd, tally, proxy)
        others = gathered(crowd, marks_of(tally), marking(tally, range(10, 15)))
        proxy.passing.set()
        for call in (first, *others):
            assert call.result() == NEW
    assert [operation.size for operation in operations if operation.kind == "write"] == [1, 5]
    sent = sum(operation.bytes_sent for operation in operations)
    assert sent == sum(map(len, proxy.transactions()))


def test_few_counts_share_a_round_trip(tally: SyncTally, proxy: Proxy, crowd: Crowd) -> None:
    """Redis may count for a millisecond, and serves nobody else meanwhile."""
    proxy.marker = b":"
    proxy.passing.clear()
    first = crowd.begin(tally.contains, tally.unique("a"), 0)
    assert proxy.held.wait(10)
    flag = tally.unique("a")
    others = gathered(crowd, reads_of(tally), [functools.partial(tally.count, flag)] * 9)
    proxy.passing.set()
    assert first.result()
    assert [other.result() for other in others] == [1] * 9
    assert len(proxy.sent) >= 4  # at most four counts each


def test_data_that_no_read_has_asked_for(tally: SyncTally) -> None:
    connection: Any = reads_of(tally)._free["leadership"].connection
    connection.send(b"*1\r\n$4\r\nPING\r\n")
    assert select.select([connection._held[0]._sock], [], [], 10)[0]  # the reply has come
    assert tally.contains(tally.unique("a"), 0)
    assert not tally.contains(tally.unique("a"), 1)
    assert tally.count(tally.unique("a")) == 1


def test_a_client_of_the_callers_gets_its_connection_back_as_it_was(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis.Redis.from_url(proxy.url, socket_timeout=7) as client:
        tally = SyncTally(client)
        assert tally.mark_unique("a", 0, timeout=2) == NEW
        pool: Any = client.connection_pool
        (connection,) = pool._available_connections
        assert connection._sock.gettimeout() == 7
        prepare = Connection.prepare

        def interrupted(shared: Connection, deadline: float) -> None:
            monkeypatch.setattr(Connection, "prepare", prepare)
            prepare(shared, deadline)
            shared.send(b"*1\r\n$4\r\nPING\r\n")
            raise HandlerError

        monkeypatch.setattr(Connection, "prepare", interrupted)
        with pytest.raises(HandlerError):
            tally.mark_unique("a", 1)
        assert client.get("nothing") is None  # and not the reply to the ping
        assert tally.mark_unique("a", 1) == NEW


def test_a_child_process_shares_no_connection_to_a_node(cluster_store: Store) -> None:
    with SyncTally.from_url(cluster_store.url) as tally:
        for user in range(16):
            tally.mark_unique("a", user)
            tally.contains(tally.unique("a"), user)
        nodes = list(internals(tally)._nodes._nodes.values())
        shared = [each for node in nodes for each in node._shared()]
        of_the_parent = [each._free["leadership"].connection for each in shared]
        assert any(connection._held for connection in of_the_parent)
        internals(tally).renew_locks()  # as after a fork, in the child
        assert not any(each._free["leadership"].connection._held for each in shared)
        assert tally.mark_unique("a", 100) == NEW
        for connection in of_the_parent:
            connection.close()
