"""Group commit on a cluster: one for each node, so that no node waits for another.

A call is submitted to the node that owns its shard. If the node answers with a redirect, or
fails, the call is rerouted. Calls on one shard keep their order: while the shard's route is
unknown, they wait at a latch and are submitted in the order in which they came.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Any, Final

import anyio

from .._cluster.shard_transactions import by_shard
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
from .._marking.stats import Totals
from .._reading.execution import Refresh
from ..errors import (
    ClosedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    TallymarkError,
)
from .loop_bound import ClosedWhenIdle, no_loop, running_loop
from .nodes import NodeCommits
from .shard_posts import ShardPosts
from .write_queue import NotCommitted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .._cluster.execution import ClusterExecutions
    from .._core.options import Options
    from .._core.urls import Address
    from .._marking.chunks import Chunk
    from .._marking.marks import Mark, Result
    from .._marking.stats import Stats
    from .._reading.execution import Execution
    from .group_commit import GroupCommit

__all__ = ["ClusterCommit"]

#: The watchdog looks at batches that take longer than this fraction of the timeout.
_SLOW_FRACTION: Final = 0.2

#: A failure this many seconds or more after the last one begins a new series of pauses.
_BACKOFF_RESET: Final = 2.0


class _Latch:
    """Holds calls until the route of a shard is known.

    Attributes:
        released: set when the calls may go on, or fail.
        error: the error with which they fail; ``None`` if they may go on.
    """

    def __init__(self) -> None:
        self.released = anyio.Event()
        self.error: TallymarkError | None = None


class ClusterCommit(ClosedWhenIdle):
    """Commits marks on the nodes that own their shards. Belongs to one event loop.

    Has the methods and guarantees of `GroupCommit`, except that marks submitted together
    are one transaction per shard.
    """

    orders_by_shard = True

    def __init__(
        self,
        executions: ClusterExecutions,
        run: Callable[[Execution[None]], Awaitable[None]],
        client: Callable[[Address], Any],
        options: Options,
    ) -> None:
        """Begin idle.

        Arguments:
            executions: the executions of the cluster, with its topology.
            run: performs an execution.
            client: returns the client of a node.
            options: the tally's options.
        """
        super().__init__()
        self._executions = executions
        self._topology = executions.topology
        self._run = run
        self._timeout = options.timeout
        self._max_pending = options.max_pending
        #: How many marks are neither committed nor failed.
        self._pending = 0
        self._nodes = NodeCommits(client, options)
        self._posts = ShardPosts(self._submit_admitted, self._notify_idle)
        self.abandon = self._posts.abandon
        #: The group commit that takes the marks of each shard; ``None`` while unknown.
        self._routes: list[GroupCommit | None] = [None] * (options.shards or 1)
        #: For shards without a route, where their calls wait.
        self._latches: dict[int, _Latch] = {}
        self._resolving: asyncio.Task[None] | None = None
        #: Why routes must be resolved again, the time of that failure, and the pauses since.
        self._failure: TallymarkError | None = None
        self._failed_at = -math.inf
        self._backoff = Backoff()
        #: How many seconds a slow batch takes; and the watchdog, which runs as long as there
        #: are calls and looks for such batches.
        self._slow = min(options.timeout, DEFAULT_TIMEOUT) * _SLOW_FRACTION
        self._watchdog: asyncio.TimerHandle | None = None
        self._checking: asyncio.Task[None] | None = None
        self._totals = Totals()

    async def submit(self, mark: Mark, timeout: float | None = None) -> Result:
        """Send a mark; as `GroupCommit.submit`."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise no_loop() from None
        if timeout is None and loop is self._loop and self._watchdog:
            # The short way of `_begin`, while other calls are in progress.
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
            final: Result = await self._reroute(mark, (), commit, result, deadline, seconds)
            return final
        finally:
            self._pending -= 1
            self._notify_idle()

    async def submit_together(
        self, marks: Sequence[Mark], timeout: float | None = None
    ) -> list[Result]:
        """Send one or more marks, those of each shard in one transaction; as `submit`."""
        loop = running_loop()
        seconds = self._begin(loop, len(marks), timeout)
        deadline = loop.time() + seconds
        shards = by_shard(marks)
        results: list[Result] = [Granularity(0)] * len(marks)

        async def send(indexes: list[int]) -> None:
            part = [marks[index] for index in indexes]
            commit = self._routes[part[0].bitmaps.shard]
            try:
                result = commit and await commit.submit_until(None, part, deadline, seconds, loop)
                final = await self._reroute(None, part, commit, result, deadline, seconds)
            except TallymarkError as error:  # which would cancel the marks of other shards
                final = error
            if isinstance(final, TallymarkError):
                final = [final] * len(part)
            for index, own in zip(indexes, final, strict=True):
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
            self._notify_idle()
        return results

    def post(self, chunk: Chunk, timeout: float) -> None:
        """Send the marks of a chunk, which are of one shard; as `GroupCommit.post`."""
        loop = running_loop()
        self._bind(loop)
        self._posts.post(chunk, timeout)

    def send_now(self) -> None:
        """Send the marks of buffers, which do not gather here."""

    def stats(self) -> Stats:
        """Return the counters so far, of all nodes."""
        totals = self._nodes.totals()
        # A node's errors are not final: the calls may be rerouted.
        totals.errors = self._totals.errors
        totals.retries += self._totals.retries
        return totals.stats(self._pending)

    async def close(self) -> None:
        """Accept no more marks, wait until no call is in progress, then disconnect."""
        self.end_use()
        try:
            await self._until_idle()
        except BaseException:
            self._release(ClosedError("the tally was closed"))
            self._posts.cancel(ClosedError("the tally was closed"))
            self._nodes.fail_all()
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
                await self._nodes.close()
            self._closing_on = None

    def discard(self) -> None:
        """Close all connections at once, after the event loop has been closed."""
        self.end_use()
        self._closing_on = None
        self._nodes.discard()

    def _is_idle(self) -> bool:
        return not self._pending and not self._posts

    # --- callers

    async def _submit_admitted(
        self, marks: Sequence[Mark], deadline: float, seconds: float
    ) -> list[Result]:
        """Send marks of one shard in one transaction, also if too many are waiting.

        Arguments:
            marks: the marks.
            deadline, seconds: as for `GroupCommit.submit_until`.
        """
        loop = asyncio.get_running_loop()
        self._pending += len(marks)
        self._watch(loop)
        try:
            result = await self._reroute(None, marks, None, None, deadline, seconds)
        finally:
            self._pending -= len(marks)
            self._notify_idle()
        if isinstance(result, TallymarkError):
            return [result] * len(marks)
        results: list[Result] = result
        return results

    def _begin(self, loop: asyncio.AbstractEventLoop, marks: int, timeout: float | None) -> float:
        """Admit a call with this many marks; return its timeout in seconds."""
        if loop is not self._loop:
            self._bind(loop)
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        if self._pending >= self._max_pending:
            raise overloaded(self._pending, "marks", self._max_pending)
        self._pending += marks
        self._watch(loop)
        return seconds

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._watchdog is None:
            self._watchdog = loop.call_later(self._slow, self._check_nodes, loop)

    async def _reroute(
        self,
        mark: Mark | None,
        marks: Sequence[Mark],
        commit: GroupCommit | None,
        result: Any,
        deadline: float,
        seconds: float,
    ) -> Any:
        """Submit a call again until its result is final, and return that result.

        Arguments:
            mark, marks, deadline, seconds: as for `GroupCommit.submit_until`.
            commit: the group commit to which the call was submitted.
            result: the call's result there; ``None`` if it was not submitted yet.
        """
        loop = asyncio.get_running_loop()
        shard = (mark or marks[0]).bitmaps.shard
        sent = False
        redirects = 0
        cause: TallymarkError | None = None  # more informative than a timeout
        while True:
            first = result[0] if isinstance(result, list) else result
            if isinstance(first, NotCommitted):
                sent |= first.sent
                expired = first.final or loop.time() >= deadline
                if not isinstance(first.failure, StoreTimeoutError):
                    cause = first.failure
                if expired or not isinstance(first.failure, TRANSIENT):
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
                self._totals.errors += sum(isinstance(one, TallymarkError) for one in own)
                return result
            commit = self._routes[shard]
            if commit is None:
                try:
                    with anyio.CancelScope(deadline=deadline):
                        commit = await self._route(shard)
                except TallymarkError as error:
                    return self._failed(error, "", marks, sent, seconds)
                if commit is None:
                    failure = self._failure or cause or StoreTimeoutError()
                    return self._failed(failure, "no node took it", marks, sent, seconds)
                redirects = 0
            self._totals.retries += result is not None
            result = await commit.submit_until(mark, marks, deadline, seconds, loop)

    def _redirect(
        self, shard: int, commit: GroupCommit | None, redirected: RedirectedError, redirects: int
    ) -> GroupCommit | None:
        """Record a node's redirect.

        Returns:
            After an ``ASK``, the group commit to which to submit this call only.
        """
        address, _ = self._nodes.node_of(commit)
        if redirected.kind == "ASK" and redirects <= MAX_REDIRECTS:
            return self._nodes.commit(self._topology.target(redirected, address), importing=True)
        if redirected.kind == "MOVED":
            self._topology.moved(shard, redirected, address)
            if self._routes[shard] is commit:
                target = self._topology.target(redirected, address)
                self._routes[shard] = self._nodes.commit(target)
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
        """Count and return the error of a call."""
        self._totals.errors += len(marks) or 1
        return with_outcome(failure, sent=sent, timeout=seconds, missed=missed)

    # --- routes

    def _node_failed(self, commit: GroupCommit | None, shard: int, failure: TallymarkError) -> None:
        """Record that a node failed to commit marks of a shard."""
        address, importing = self._nodes.node_of(commit)
        shards = [index for index, route in enumerate(self._routes) if route is commit]
        if importing:
            shards = [shard]  # its route is the node that is migrating it to this one
        if shards:
            self._topology.failed(address)
            self._invalidate(shards, failure)

    def _invalidate(self, shards: Sequence[int], failure: TallymarkError) -> None:
        """Forget the routes of some shards; their calls wait until the routes are resolved."""
        self._failure = failure
        for shard in shards:
            self._routes[shard] = None
        self._resolve()

    async def _route(self, shard: int) -> GroupCommit:
        """Return the route of a shard; wait until it is known.

        Raises:
            StoreError: the routes cannot be resolved.
            ClosedError: the tally was closed.
        """
        while (commit := self._routes[shard]) is None:
            latch = self._latches.get(shard)
            if latch is None:
                latch = self._latches[shard] = _Latch()
            self._resolve()
            await latch.released.wait()
            if latch.error is not None:
                raise latch.error
        return commit

    def _resolve(self) -> None:
        if self._resolving is None:
            self._resolving = asyncio.get_running_loop().create_task(self._resolve_routes())

    async def _resolve_routes(self) -> None:
        """Resolve the routes of all shards, as long as calls wait for them."""
        loop = asyncio.get_running_loop()
        try:
            while self._pending and None in self._routes:
                if self._failure is not None:
                    now = loop.time()
                    if now - self._failed_at > _BACKOFF_RESET:
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
        except StoreError as error:
            self._release(error)
        finally:
            self._resolving = None
            if self._closed:
                self._release(ClosedError("the tally was closed"))

    async def _refresh(self, since: float = 0.0) -> None:
        await self._run(_refreshed(since))

    def _take_routes(self) -> None:
        """Take all routes from the topology, and release the calls that wait for them."""
        missing = False
        for shard, slot in enumerate(self._topology.slots):
            address = self._topology.owner(slot)
            if address is None:
                missing = True
                self._routes[shard] = None
            else:
                self._routes[shard] = self._nodes.commit(address)
        self._failure = (
            StoreUnavailableError("no node of the cluster has some of the shards")
            if missing
            else None
        )
        self._release(None)

    def _release(self, error: TallymarkError | None) -> None:
        """Release the waiting calls on shards with a route; with an error, fail all of them."""
        for shard in list(self._latches):
            if error is not None or self._routes[shard] is not None:
                latch = self._latches.pop(shard)
                latch.error = error
                latch.released.set()

    # --- the watchdog

    def _check_nodes(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look for slow batches, as long as there are calls."""
        self._watchdog = None
        if not self._pending:
            return
        stuck = self._nodes.stuck(self._slow)
        if stuck and self._checking is None:
            self._checking = loop.create_task(self._check(stuck))
        self._watchdog = loop.call_later(self._slow, self._check_nodes, loop)

    async def _check(self, stuck: Sequence[GroupCommit]) -> None:
        """Abort the slow batches of nodes that are no masters any more.

        A node that is partitioned or frozen does not close its connections.
        """
        try:
            for commit in stuck:
                # So that the refresh asks other nodes.
                self._topology.failed(self._nodes.node_of(commit)[0])
            with contextlib.suppress(StoreError):
                await self._refresh()
            for commit in stuck:
                if self._nodes.node_of(commit)[0] not in self._topology.masters:
                    commit.abort()
        finally:
            self._checking = None


def _refreshed(since: float) -> Execution[None]:
    yield Refresh(math.inf, since)
