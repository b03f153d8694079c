"""Group commit on a cluster: each node has its own, and no node waits for another.

A call waits for its node's answer and, if that is where else to go or that the node is
gone, goes on itself. Calls on one shard keep their order: while the way to a shard is
not known, they wait at its gate, and leave in the order in which they came.
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
    from collections.abc import Sequence

    from .._core.options import Options
    from .._core.urls import Address
    from .._marking.marks import Mark, Result
    from .nodes import AsyncNodes

__all__ = ["ClusterCommit"]

#: A node that takes longer than this part of a call's time is looked into.
_SLOW: Final = 0.2

#: A failure so many seconds after the one before begins a new series of pauses.
_SERIES: Final = 2.0

#: So many nodes may send a call elsewhere before it pauses.
_HOPS: Final = 2


class _Gate:
    """Where calls wait for the way to a shard.

    Attributes:
        opened: whether they may go on.
        refusal: why they may not, ever.
    """

    def __init__(self) -> None:
        self.opened = anyio.Event()
        self.refusal: TallymarkError | None = None


class ClusterCommit(OfOneLoop):
    """Sends marks to the nodes that have their shards. Belongs to one event loop.

    Has the methods of `tallymark._async.group_commit.GroupCommit`, with the same guarantees, but
    that what is submitted together is one transaction for each shard.
    """

    def __init__(self, nodes: AsyncNodes, options: Options) -> None:
        """Begin idle."""
        super().__init__()
        self._nodes = nodes
        self._options = options
        self._timeout = options.timeout
        self._max_pending = options.max_pending
        self._pending = 0
        self._commits: dict[tuple[Address, bool], GroupCommit] = {}
        #: Where the marks of each shard go; None while that is not known.
        self._homes: list[GroupCommit | None] = [None] * (options.shards or 1)
        #: Of shards whose home is not known, who waits for it.
        self._gates: dict[int, _Gate] = {}
        self._seeking: asyncio.Task[None] | None = None
        #: Why they have to be sought again.
        self._failure: TallymarkError | None = None
        self._failed_at = -math.inf
        self._pauses = Backoff()
        #: When a node is slow; and who looks whether one is, as long as there are calls.
        self._slow = min(options.timeout, DEFAULT_TIMEOUT) * _SLOW
        self._patrol: asyncio.TimerHandle | None = None
        self._checking: asyncio.Task[None] | None = None
        self._became_idle: anyio.Event | None = None
        self._totals = Totals()

    async def submit(self, mark: Mark, timeout: float | None = None) -> Result:
        """Send a mark."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise no_loop() from None
        if timeout is None and loop is self._loop and self._patrol:
            # What `_begin` would do, for the many that come while others are under way.
            seconds = self._timeout
            if self._pending >= self._max_pending:
                raise overloaded(self._pending, "marks", self._max_pending)
            self._pending += 1
        else:
            seconds = self._begin(loop, 1, timeout)
        deadline = loop.time() + seconds
        try:
            home = self._homes[mark.bitmaps.shard]
            result = None
            if home is not None:
                result = await home.submit_until(mark, (), deadline, seconds, loop)
                if type(result) is Granularity:
                    return result
            found: Result = await self._persist(mark, (), home, result, deadline, seconds)
            return found
        finally:
            self._pending -= 1
            if self._became_idle is not None:
                self._tell_if_idle()

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
            home = self._homes[some[0].bitmaps.shard]
            result = home and await home.submit_until(None, some, deadline, seconds, loop)
            found = await self._persist(None, some, home, result, deadline, seconds)
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
            self._tell_if_idle()
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
            self._open(ClosedError("the tally was closed"))
            for commit in self._commits.values():
                commit.fail_all()
            with anyio.CancelScope(shield=True):
                await self._until_idle()
            raise
        finally:
            for task in (self._seeking, self._checking):
                if task is not None:
                    task.cancel()
            if self._patrol is not None:
                self._patrol.cancel()
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
        """Let a call in; return how many seconds it has."""
        if loop is not self._loop:
            self._bind(loop)
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        if self._pending >= self._max_pending:
            raise overloaded(self._pending, "marks", self._max_pending)
        self._pending += marks
        if self._patrol is None:
            self._patrol = loop.call_later(self._slow, self._look_around, loop)
        return seconds

    def _tell_if_idle(self) -> None:
        if not self._pending and self._became_idle is not None:
            self._became_idle.set()
            self._became_idle = None

    async def _persist(
        self,
        mark: Mark | None,
        marks: Sequence[Mark],
        home: GroupCommit | None,
        result: Any,
        deadline: float,
        seconds: float,
    ) -> Any:
        """Go on with a call until it has its result.

        Arguments:
            mark, marks, deadline, seconds: as for `GroupCommit.submit_until`.
            home: where it was.
            result: what it got there; ``None`` if it was nowhere yet.
        """
        loop = asyncio.get_running_loop()
        shard = (mark or marks[0]).bitmaps.shard
        sent = False
        hops = 0
        why: TallymarkError | None = None  # what tells more than that time is up
        while True:
            told = result[0] if isinstance(result, list) else result
            if isinstance(told, NotCommitted):
                sent |= told.sent
                late = told.final or loop.time() >= deadline
                if not isinstance(told.failure, StoreTimeoutError):
                    why = told.failure
                if late or not isinstance(told.failure, TRANSIENT):
                    return self._ended(why or told.failure, told.missed, marks, sent, seconds)
                self._lost(home, shard, told.failure)
            elif isinstance(told, RedirectedError):
                why = SlotMovingError(str(told))
                if loop.time() >= deadline:
                    return self._ended(why, "", marks, sent, seconds)
                hops += 1
                asking = self._follow(shard, home, told, hops)
                if asking is not None:
                    home = asking
                    result = await home.submit_until(mark, marks, deadline, seconds, loop)
                    continue
            elif result is not None:
                own = result if isinstance(result, list) else [result]
                self._totals.errors += sum(isinstance(each, TallymarkError) for each in own)
                return result
            home = self._homes[shard]
            if home is None:
                try:
                    with anyio.CancelScope(deadline=deadline):
                        home = await self._wait_for_home(shard)
                except TallymarkError as refusal:
                    return self._ended(refusal, "", marks, sent, seconds)
                if home is None:
                    why = self._failure or why or StoreTimeoutError()
                    return self._ended(why, "no node took it", marks, sent, seconds)
                hops = 0
            self._totals.retries += result is not None
            result = await home.submit_until(mark, marks, deadline, seconds, loop)

    def _follow(
        self, shard: int, home: GroupCommit | None, told: RedirectedError, hops: int
    ) -> GroupCommit | None:
        """Take note of what a node says of a shard; return who is to be asked for this once."""
        topology = self._nodes.topology
        address, _ = self._place(home)
        if told.kind == "ASK" and hops <= _HOPS:
            return self._commit(topology.target(told, address), asking=True)
        if told.kind == "MOVED":
            topology.moved(shard, told, address)
            if self._homes[shard] is home:
                self._homes[shard] = self._commit(topology.target(told, address))
        if told.kind == "TRYAGAIN" or hops > _HOPS:
            self._shut([shard], SlotMovingError(str(told)))
        return None

    def _ended(
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

    def _commit(self, address: Address, *, asking: bool = False) -> GroupCommit:
        found = self._commits.get((address, asking))
        if found is None:
            client = self._nodes.client(address)
            options = self._options
            found = self._commits[address, asking] = GroupCommit(
                Connection(client, owned=True),
                new_batch=functools.partial(
                    ShardBatches,
                    bitfield=options.bitfield,
                    replicas=options.replicas,
                    asking=asking,
                ),
                timeout=options.timeout,
                max_pending=options.max_pending,
                store=store_label(client),
                observer=options.observer,
                retry=False,
                trials=options.max_events is not None,
            )
        return found

    def _place(self, home: GroupCommit | None) -> tuple[Address, bool]:
        """Return the node of a home, and whether it is for what is on its way there."""
        return next(place for place, each in self._commits.items() if each is home)

    def _lost(self, home: GroupCommit | None, shard: int, failure: TallymarkError) -> None:
        """Take note that a node does not take marks at the moment, such as those of a shard."""
        address, asking = self._place(home)
        lost = [each for each, its_home in enumerate(self._homes) if its_home is home]
        if asking:
            lost = [shard]  # which is at home elsewhere, and on its way to that node
        if lost:
            self._nodes.topology.failed(address)
            self._shut(lost, failure)

    def _shut(self, shards: Sequence[int], failure: TallymarkError) -> None:
        """Have calls on some shards wait until it is known again where these are."""
        self._failure = failure
        for shard in shards:
            self._homes[shard] = None
        self._seek()

    async def _wait_for_home(self, shard: int) -> GroupCommit:
        """Return where a shard is, as soon as that is known.

        Raises:
            StoreError: it never will be.
        """
        while (home := self._homes[shard]) is None:
            gate = self._gates.get(shard)
            if gate is None:
                gate = self._gates[shard] = _Gate()
            self._seek()
            await gate.opened.wait()
            if gate.refusal is not None:
                raise gate.refusal
        return home

    def _seek(self) -> None:
        if self._seeking is None:
            self._seeking = asyncio.get_running_loop().create_task(self._seek_homes())

    async def _seek_homes(self) -> None:
        """Look for the nodes of all shards that have none, as long as calls wait for them."""
        loop = asyncio.get_running_loop()
        try:
            while self._pending and None in self._homes:
                if self._failure is not None:
                    now = loop.time()
                    if now - self._failed_at > _SERIES:
                        self._pauses = Backoff()
                    self._failed_at = now
                    await anyio.sleep(self._pauses.next())
                try:
                    await self._nodes.ready(marking=True)
                    if self._failure is not None:
                        await self._nodes.refresh(since=self._failed_at)
                except TRANSIENT as failure:
                    self._failure = failure
                    continue
                self._find_homes()
        except StoreError as refusal:
            self._open(refusal)
        finally:
            self._seeking = None
            if self._closed:
                self._open(ClosedError("the tally was closed"))

    def _find_homes(self) -> None:
        """Take what is known of the topology, and let those in who waited for it."""
        missing = False
        for shard, slot in enumerate(self._nodes.topology.slots):
            address = self._nodes.topology.owner(slot)
            if address is None:
                missing = True
                self._homes[shard] = None
            else:
                self._homes[shard] = self._commit(address)
        self._failure = (
            StoreUnavailableError("no node of the cluster has some of the shards")
            if missing
            else None
        )
        self._open(None)

    def _open(self, refusal: TallymarkError | None) -> None:
        """Open the gates of all shards that have a home; or turn everybody away."""
        for shard in list(self._gates):
            if refusal is not None or self._homes[shard] is not None:
                gate = self._gates.pop(shard)
                gate.refusal = refusal
                gate.opened.set()

    def _look_around(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look for nodes that hold calls up, as long as there are calls."""
        self._patrol = None
        if not self._pending:
            return
        slow = [each for each in self._commits.values() if each.is_stuck(self._slow)]
        if slow and self._checking is None:
            self._checking = loop.create_task(self._check(slow))
        self._patrol = loop.call_later(self._slow, self._look_around, loop)

    async def _check(self, slow: Sequence[GroupCommit]) -> None:
        """Do not wait any longer for nodes that have lost their slots meanwhile.

        A node that is cut off, or frozen, closes no connection.
        """
        try:
            topology = self._nodes.topology
            for commit in slow:
                topology.failed(self._place(commit)[0])  # so that others are asked
            with contextlib.suppress(StoreError):
                await self._nodes.refresh()
            for commit in slow:
                if self._place(commit)[0] not in topology.masters:
                    commit.abort()
        finally:
            self._checking = None
