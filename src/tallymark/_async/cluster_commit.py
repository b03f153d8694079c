"""Group commit on a cluster: each node has its own, and no node waits for another.

A call waits for its node's answer. If that is a redirect, or the node has failed, the
call is rerouted. Calls on one shard keep their order: while the shard's route is not
known, they wait at a latch, and leave in the order in which they came.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
from typing import TYPE_CHECKING, Any, Final

import anyio

from .._cluster.shard_transactions import ShardBatches, by_shard
from .._core.failures import (
    MAX_REDIRECTS,
    TRANSIENT,
    Backoff,
    RedirectedError,
    SlotMovingError,
    overloaded,
    with_outcome,
)
from .._core.options import DEFAULT_TIMEOUT, checked_timeout
from .._core.periods import Granularity
from .._marking.stats import Stats, Totals
from .._reading.execution import Refresh
from .._redis.stores import store_label
from ..errors import (
    ClosedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    TallymarkError,
)
from .connection import Connection
from .group_commit import GroupCommit
from .loop_bound import OfOneLoop, no_loop, running_loop
from .write_queue import NotCommitted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .._cluster.execution import ClusterExecutions
    from .._core.options import Options
    from .._core.urls import Address
    from .._marking.marks import Mark, Result
    from .._reading.execution import Execution

__all__ = ["ClusterCommit"]

#: The watchdog looks at nodes that take longer than this part of a call's time.
_SLOW: Final = 0.2

#: A failure so many seconds after the one before begins a new series of pauses.
_SERIES: Final = 2.0


class _Latch:
    """Where calls wait until the route of a shard is known.

    Attributes:
        released: whether they may go on.
        refusal: why they may never.
    """

    def __init__(self) -> None:
        self.released = anyio.Event()
        self.refusal: TallymarkError | None = None


class ClusterCommit(OfOneLoop):
    """Sends marks to the nodes that have their shards. Belongs to one event loop.

    Has the methods of `GroupCommit`, with the same guarantees, but that what is
    submitted together is one transaction for each shard.
    """

    def __init__(
        self,
        executions: ClusterExecutions,
        run: Callable[[Execution[None]], Awaitable[None]],
        client: Callable[[Address], Any],
        options: Options,
    ) -> None:
        """Begin idle.

        Arguments:
            executions: know the topology.
            run: performs an execution.
            client: returns the client of a node.
            options: the tally's.
        """
        super().__init__()
        self._executions = executions
        self._topology = executions.topology
        self._run = run
        self._client = client
        self._options = options
        self._timeout = options.timeout
        self._max_pending = options.max_pending
        self._pending = 0
        #: The group commit of each node; and that for slots which the node is importing.
        self._commits: dict[tuple[Address, bool], GroupCommit] = {}
        #: The group commit that takes the marks of each shard; None while it is not known.
        self._routes: list[GroupCommit | None] = [None] * (options.shards or 1)
        #: Of shards without a route, where calls wait for it.
        self._latches: dict[int, _Latch] = {}
        self._resolving: asyncio.Task[None] | None = None
        #: Why routes have to be resolved again, when that was, and the pauses since.
        self._failure: TallymarkError | None = None
        self._failed_at = -math.inf
        self._backoff = Backoff()
        #: When a node is slow; and the watchdog, which runs as long as there are calls.
        self._slow = min(options.timeout, DEFAULT_TIMEOUT) * _SLOW
        self._watchdog: asyncio.TimerHandle | None = None
        self._checking: asyncio.Task[None] | None = None
        self._became_idle: anyio.Event | None = None
        self._totals = Totals()

    async def submit(self, mark: Mark, timeout: float | None = None) -> Result:
        """Send a mark."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise no_loop() from None
        if timeout is None and loop is self._loop and self._watchdog:
            # What `_begin` would do, for the many that come while others are in flight.
            seconds = self._timeout
            if self._pending >= self._max_pending:
                raise overloaded(self._pending, "marks", self._max_pending)
            self._pending += 1
        else:
            seconds = self._begin(loop, 1, timeout)
        deadline = loop.time() + seconds
        try:
            commit = self._routes[mark.bitmaps.shard]
            result = None
            if commit is not None:
                result = await commit.submit_until(mark, (), deadline, seconds, loop)
                if type(result) is Granularity:
                    return result
            found: Result = await self._reroute(mark, (), commit, result, deadline, seconds)
            return found
        finally:
            self._pending -= 1
            if self._became_idle is not None:
                self._signal_idle()

    async def submit_together(
        self, marks: Sequence[Mark], timeout: float | None = None
    ) -> list[Result]:
        """Send one or more marks, those of each shard in one transaction."""
        loop = running_loop()
        seconds = self._begin(loop, len(marks), timeout)
        deadline = loop.time() + seconds
        shards = by_shard(marks)
        results: list[Result] = [Granularity(0)] * len(marks)

        async def send(indexes: list[int]) -> None:
            some = [marks[index] for index in indexes]
            commit = self._routes[some[0].bitmaps.shard]
            result = commit and await commit.submit_until(None, some, deadline, seconds, loop)
            found = await self._reroute(None, some, commit, result, deadline, seconds)
            if isinstance(found, TallymarkError):
                found = [found] * len(some)
            for index, own in zip(indexes, found, strict=True):
                results[index] = own

        try:
            if len(shards) == 1:
                await send(*shards)
            else:
                async with anyio.create_task_group() as group:
                    for indexes in shards:
                        group.start_soon(send, indexes)
        finally:
            self._pending -= len(marks)
            self._signal_idle()
        return results

    def stats(self) -> Stats:
        """Return what was done so far, on all nodes."""
        own = self._totals.stats(self._pending)
        every = [own, *(commit.stats() for commit in self._commits.values())]
        return Stats(
            marks=sum(each.marks for each in every),
            batches=sum(each.batches for each in every),
            bytes_sent=sum(each.bytes_sent for each in every),
            retries=sum(each.retries for each in every),
            errors=own.errors,
            waiting=self._pending,
        )

    async def close(self) -> None:
        """Accept nothing more, wait until nothing is left to send, then disconnect."""
        self.end_use()
        try:
            await self._until_idle()
        except BaseException:
            self._release(ClosedError("the tally was closed"))
            for commit in self._commits.values():
                commit.fail_all()
            with anyio.CancelScope(shield=True):
                await self._until_idle()
            raise
        finally:
            for task in (self._resolving, self._checking):
                if task is not None:
                    task.cancel()
            if self._watchdog is not None:
                self._watchdog.cancel()
            with anyio.CancelScope(shield=True):
                for commit in self._commits.values():
                    await commit.close()
            self._closing_on = None

    def discard(self) -> None:
        """Close all at once, after the event loop has been closed."""
        self.end_use()
        self._closing_on = None
        for commit in self._commits.values():
            commit.discard()

    async def _until_idle(self) -> None:
        while self._pending:
            self._became_idle = self._became_idle or anyio.Event()
            await self._became_idle.wait()

    # --- callers

    def _begin(self, loop: asyncio.AbstractEventLoop, marks: int, timeout: float | None) -> float:
        """Admit a call; return how many seconds it has."""
        if loop is not self._loop:
            self._bind(loop)
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        if self._pending >= self._max_pending:
            raise overloaded(self._pending, "marks", self._max_pending)
        self._pending += marks
        if self._watchdog is None:
            self._watchdog = loop.call_later(self._slow, self._check_nodes, loop)
        return seconds

    def _signal_idle(self) -> None:
        if not self._pending and self._became_idle is not None:
            self._became_idle.set()
            self._became_idle = None

    async def _reroute(
        self,
        mark: Mark | None,
        marks: Sequence[Mark],
        commit: GroupCommit | None,
        result: Any,
        deadline: float,
        seconds: float,
    ) -> Any:
        """Go on with a call until it has its result.

        Arguments:
            mark, marks, deadline, seconds: as for `GroupCommit.submit_until`.
            commit: where it was submitted.
            result: its result there; ``None`` if it was not submitted yet.
        """
        loop = asyncio.get_running_loop()
        shard = (mark or marks[0]).bitmaps.shard
        sent = False
        redirects = 0
        cause: TallymarkError | None = None  # what tells more than that the time is up
        while True:
            first = result[0] if isinstance(result, list) else result
            if isinstance(first, NotCommitted):
                sent |= first.sent
                late = first.final or loop.time() >= deadline
                if not isinstance(first.failure, StoreTimeoutError):
                    cause = first.failure
                if late or not isinstance(first.failure, TRANSIENT):
                    failure = cause or first.failure
                    return self._failed(failure, first.missed, marks, sent, seconds)
                self._node_failed(commit, shard, first.failure)
            elif isinstance(first, RedirectedError):
                cause = SlotMovingError(str(first))
                if loop.time() >= deadline:
                    return self._failed(cause, "", marks, sent, seconds)
                redirects += 1
                importing = self._redirect(shard, commit, first, redirects)
                if importing is not None:
                    commit = importing
                    result = await commit.submit_until(mark, marks, deadline, seconds, loop)
                    continue
            elif result is not None:
                own = result if isinstance(result, list) else [result]
                self._totals.errors += sum(isinstance(each, TallymarkError) for each in own)
                return result
            commit = self._routes[shard]
            if commit is None:
                try:
                    with anyio.CancelScope(deadline=deadline):
                        commit = await self._route(shard)
                except TallymarkError as refusal:
                    return self._failed(refusal, "", marks, sent, seconds)
                if commit is None:
                    failure = self._failure or cause or StoreTimeoutError()
                    return self._failed(failure, "no node took it", marks, sent, seconds)
                redirects = 0
            self._totals.retries += result is not None
            result = await commit.submit_until(mark, marks, deadline, seconds, loop)

    def _redirect(
        self, shard: int, commit: GroupCommit | None, redirected: RedirectedError, redirects: int
    ) -> GroupCommit | None:
        """Note a node's redirect; return where to submit for this once, after an ``ASK``."""
        address, _ = self._node_of(commit)
        if redirected.kind == "ASK" and redirects <= MAX_REDIRECTS:
            return self._commit(self._topology.target(redirected, address), importing=True)
        if redirected.kind == "MOVED":
            self._topology.moved(shard, redirected, address)
            if self._routes[shard] is commit:
                self._routes[shard] = self._commit(self._topology.target(redirected, address))
        if redirected.kind == "TRYAGAIN" or redirects > MAX_REDIRECTS:
            self._invalidate([shard], SlotMovingError(str(redirected)))
        return None

    def _failed(
        self,
        failure: TallymarkError,
        missed: str,
        marks: Sequence[Mark],
        sent: bool,
        seconds: float,
    ) -> TallymarkError:
        self._totals.errors += len(marks) or 1
        return with_outcome(failure, sent=sent, timeout=seconds, missed=missed)

    # --- nodes

    def _commit(self, address: Address, *, importing: bool = False) -> GroupCommit:
        """Return the group commit of a node, or that for the slots which it is importing."""
        found = self._commits.get((address, importing))
        if found is None:
            client = self._client(address)
            options = self._options
            found = self._commits[address, importing] = GroupCommit(
                Connection(client, owned=True),
                new_batch=functools.partial(
                    ShardBatches,
                    bitfield=options.bitfield,
                    replicas=options.replicas,
                    asking=importing,
                ),
                timeout=options.timeout,
                max_pending=options.max_pending,
                store=store_label(client),
                observer=options.observer,
                retry=False,
                trials=options.max_events is not None,
            )
        return found

    def _node_of(self, commit: GroupCommit | None) -> tuple[Address, bool]:
        """Return the node of a group commit, and whether it is for slots that this imports."""
        return next(node for node, each in self._commits.items() if each is commit)

    def _node_failed(self, commit: GroupCommit | None, shard: int, failure: TallymarkError) -> None:
        """Note that a node takes no marks at the moment, such as those of a shard."""
        address, importing = self._node_of(commit)
        lost = [each for each, route in enumerate(self._routes) if route is commit]
        if importing:
            lost = [shard]  # whose route is another node, which is migrating it to this one
        if lost:
            self._topology.failed(address)
            self._invalidate(lost, failure)

    # --- routes

    def _invalidate(self, shards: Sequence[int], failure: TallymarkError) -> None:
        """Have calls on some shards wait until their routes are known again."""
        self._failure = failure
        for shard in shards:
            self._routes[shard] = None
        self._resolve()

    async def _route(self, shard: int) -> GroupCommit:
        """Return the route of a shard, as soon as it is known.

        Raises:
            StoreError: it never will be.
        """
        while (commit := self._routes[shard]) is None:
            latch = self._latches.get(shard)
            if latch is None:
                latch = self._latches[shard] = _Latch()
            self._resolve()
            await latch.released.wait()
            if latch.refusal is not None:
                raise latch.refusal
        return commit

    def _resolve(self) -> None:
        if self._resolving is None:
            self._resolving = asyncio.get_running_loop().create_task(self._resolve_routes())

    async def _resolve_routes(self) -> None:
        """Find the nodes of all shards without a route, as long as calls wait for them."""
        loop = asyncio.get_running_loop()
        try:
            while self._pending and None in self._routes:
                if self._failure is not None:
                    now = loop.time()
                    if now - self._failed_at > _SERIES:
                        self._backoff = Backoff()
                    self._failed_at = now
                    await anyio.sleep(self._backoff.next())
                try:
                    await self._run(self._executions.ready(math.inf, marking=True))
                    if self._failure is not None:
                        await self._refresh(self._failed_at)
                except TRANSIENT as failure:
                    self._failure = failure
                    continue
                self._take_routes()
        except StoreError as refusal:
            self._release(refusal)
        finally:
            self._resolving = None
            if self._closed:
                self._release(ClosedError("the tally was closed"))

    async def _refresh(self, since: float = 0.0) -> None:
        await self._run(_refreshed(since))

    def _take_routes(self) -> None:
        """Take the routes out of the topology, and release the calls that waited for them."""
        missing = False
        for shard, slot in enumerate(self._topology.slots):
            address = self._topology.owner(slot)
            if address is None:
                missing = True
                self._routes[shard] = None
            else:
                self._routes[shard] = self._commit(address)
        self._failure = (
            StoreUnavailableError("no node of the cluster has some of the shards")
            if missing
            else None
        )
        self._release(None)

    def _release(self, refusal: TallymarkError | None) -> None:
        """Release the calls on all shards that have a route; or fail all that wait."""
        for shard in list(self._latches):
            if refusal is not None or self._routes[shard] is not None:
                latch = self._latches.pop(shard)
                latch.refusal = refusal
                latch.released.set()

    # --- the watchdog

    def _check_nodes(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look for nodes whose batches are stuck, as long as there are calls."""
        self._watchdog = None
        if not self._pending:
            return
        stuck = [each for each in self._commits.values() if each.is_stuck(self._slow)]
        if stuck and self._checking is None:
            self._checking = loop.create_task(self._check(stuck))
        self._watchdog = loop.call_later(self._slow, self._check_nodes, loop)

    async def _check(self, stuck: Sequence[GroupCommit]) -> None:
        """Abort the batches of nodes that have lost their slots meanwhile.

        A node that is cut off, or frozen, closes no connection.
        """
        try:
            for commit in stuck:
                self._topology.failed(self._node_of(commit)[0])  # so that others are asked
            with contextlib.suppress(StoreError):
                await self._refresh()
            for commit in stuck:
                if self._node_of(commit)[0] not in self._topology.masters:
                    commit.abort()
        finally:
            self._checking = None


def _refreshed(since: float) -> Execution[None]:
    yield Refresh(math.inf, since)
