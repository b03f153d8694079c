"""Helpers for the tests of `forget` and `merge` with ids of any type."""

from __future__ import annotations

import contextlib
import re
import uuid
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

from stores import SHARDS, ClusterStore
from tallymark import StoreUnavailableError, SyncTally
from tallymark._core.keys import KeySchema
from tallymark._reading.requests import Request, Scatter
from tallymark._reading.user_bits import forget, merge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from facades import Facade
    from stores import Store
    from tallymark._reading.requests import Query

DAY = date(2026, 11, 23)
ANN, BOB, EVE, NOBODY = (uuid.UUID(int=0xABCD_EF12_3456_7890_0000 + at) for at in range(4))
USERS = [ANN, BOB, EVE]
LAYOUTS = [pytest.param({}, id="plain"), pytest.param({"shards": 16}, id="shards")]

#: Ids of each type: three users, and somebody who was never marked.
IDS: dict[type, list[Any]] = {
    uuid.UUID: [*USERS, NOBODY],
    str: ["ann@example.com", "bob" * 50, "eve", "nobody"],
    bytes: [b"ann\0\0\xff", b"bob" * 50, b"\xff\x00\xfe" * 3, b"nobody"],
    int: [0, -1, 2**63 - 1, 5],
}

VERBS: dict[str, Any] = {"forget": forget, "merge": merge}


@contextlib.asynccontextmanager
async def opened(facade: Facade, url: str, user_ids: type, **options: Any) -> AsyncIterator[Any]:
    """Open a tally with ids of a type."""
    async with facade.open(url, user_ids=user_ids, **options) as tally:
        yield tally


def opened_blocking(url: str, **options: Any) -> Any:
    """Return a blocking tally with UUIDs."""
    made: Any = SyncTally
    return made.from_url(url, user_ids=uuid.UUID, **options)


async def fill(tally: Any, users: list[Any]) -> None:
    """Mark the first user in four bitmaps, the second one in one of them, the third in all."""
    for user in (users[0], users[2]):
        await tally.mark_event("active", user, now=DAY, track_unique=True)
    await tally.mark_unique("active", users[1])


def fill_blocking(tally: Any, users: list[Any]) -> None:
    """Fill as `fill`."""
    for user in (users[0], users[2]):
        tally.mark_event("active", user, now=DAY, track_unique=True)
    tally.mark_unique("active", users[1])


class Crashed(BaseException):
    """The process of a query has ended."""


class Inspector:
    """Reads the dictionary and the bitmaps of a store without tallymark's queries."""

    def __init__(self, store: Store, user_ids: type, **options: Any) -> None:
        shards = SHARDS if isinstance(store, ClusterStore) else options.get("shards")
        self.store = store
        self.schema = KeySchema(shards=shards, user_ids=user_ids)
        assert self.schema.dictionary is not None
        self.dictionary = self.schema.dictionary

    def located(self) -> dict[bytes, Any]:
        """Return all keys, each with a client that has it."""
        if isinstance(self.store, ClusterStore):
            return {key.encode(): raw for key, raw in self.store.raw.located().items()}
        return dict.fromkeys(self.store.raw.keys("*"), self.store.raw)

    def _place(self, user_id: Any) -> tuple[int, Any]:
        key = self.dictionary.ids.key(user_id)
        return self.dictionary.shard(key), self.dictionary.entry(key)

    def numbers(self, user_ids: Iterable[Any]) -> dict[tuple[int, int], Any]:
        """Return the id of each shard and offset that one of some users has."""
        located, found = self.located(), {}
        for user_id in user_ids:
            shard, (bucket, field, encoded) = self._place(user_id)
            forward = self.dictionary.forward(shard, bucket)
            value = located[forward].hget(forward, field) if forward in located else None
            if value is None:
                continue
            assert (shard, int(value)) not in found, "a number has two ids"
            found[shard, int(value)] = user_id
            assert self.record(shard, int(value)) == encoded
        return found

    def record(self, shard: int, offset: int) -> bytes:
        """Return the reverse record of a number."""
        located, width = self.located(), self.dictionary.ids.width
        key, position = self.dictionary.record(shard, offset)
        if key not in located:
            return b""
        if not width:
            return bytes(located[key].hget(key, str(position)) or b"")
        return bytes(located[key].getrange(key, width * position, width * (position + 1) - 1))

    def users(self, user_ids: Iterable[Any]) -> dict[str, set[Any]]:
        """Return the users in every bitmap that has any; a bit of nobody as shard and offset."""
        owners = self.numbers(user_ids)
        bitmaps: dict[str, set[Any]] = {}
        for key, raw in self.located().items():
            if b"ids:" in key or key.endswith(b"schema") or raw.type(key) != b"string":
                continue
            shard, event, period = self.schema.located(key)
            name = f"{event} {period}"
            for index, byte in enumerate(raw.get(key)):
                for offset in (8 * index + bit for bit in range(8) if byte & (128 >> bit)):
                    bitmaps.setdefault(name, set()).add(
                        owners.get((shard, offset), (shard, offset))
                    )
        return bitmaps

    def journals(self) -> list[bytes]:
        """Return the fields of all journals."""
        return [
            field
            for key, raw in self.located().items()
            if key.endswith(b"ids:forgetting")
            for field in raw.hkeys(key)
        ]

    def stamps(self) -> dict[bytes, bytes]:
        """Return the stamps."""
        return {
            key: raw.get(key)
            for key, raw in self.located().items()
            if re.search(rb"ids:stamp\Z", key)
        }

    def has_bytes(self, data: bytes) -> bool:
        """Return whether some bytes are anywhere in the keys, or in what they hold."""
        for key, raw in self.located().items():
            kind = raw.type(key)
            if kind == b"hash":
                values = [each for pair in raw.hgetall(key).items() for each in pair]
            else:
                values = [raw.get(key)] if kind == b"string" else []
            if any(data in each for each in (key, raw.dump(key), *values)):
                return True
        return False


def run(tally: Any, query: Query[Any]) -> Any:
    """Run a query on a blocking tally."""
    return tally._answer(query, None)


class Stepper:
    """Runs a query on a blocking tally, one request after the other."""

    def __init__(self, tally: Any, query: Query[Any]) -> None:
        self._tally = tally
        self._effects = self._run(query)
        self._outcome: Any = None
        self.has_more = True

    def step(self, count: int) -> None:
        """Run some more requests, and what is behind them."""
        while count and self.has_more:
            effect = next(self._effects, None)
            if effect is None:
                self.has_more = False
            else:
                self._outcome = run(self._tally, _only(effect))
                count -= isinstance(effect, Request | Scatter)

    def _run(self, query: Query[Any]) -> Iterator[Any]:
        """Yield the effects of the query."""
        with contextlib.suppress(StopIteration):
            while True:
                yield query.send(self._outcome)


def _only(effect: Any) -> Query[Any]:
    return (yield effect)


def step_by_step(query: Query[Any], before: Callable[[int], Any]) -> Query[Any]:
    """Run a query, and call a function before each request, with its number from 0 on."""
    outcome: Any = None
    count = 0
    try:
        while True:
            effect = query.send(outcome)
            if isinstance(effect, Request | Scatter):
                before(count)
                count += 1
            outcome = yield effect
    except StopIteration as end:
        return end.value


def crashing(query: Query[Any], after: int) -> Query[Any]:
    """Run a query, and raise `Crashed` before its request with a number."""

    def crash(number: int) -> None:
        if number == after:
            raise Crashed

    return step_by_step(query, crash)


def losing_writes(
    raw: Any, first: int, lost: int, keys: Callable[[], list[bytes]]
) -> Callable[[int], None]:
    """Return a function for `step_by_step` after which a server has lost its last writes.

    Arguments:
        raw: a client of the server.
        first, lost: numbers of requests: before the second one, some keys become what they
            were before the first one.
        keys: returns these keys, as they are at present.
    """
    kept: dict[bytes, bytes] = {}

    def lose(number: int) -> None:
        if number not in {first, lost}:
            return
        present = keys()
        with raw.pipeline() as pipeline:
            if number == first:
                for key in present:
                    pipeline.dump(key)
                kept.update(zip(present, pipeline.execute(), strict=True))
                return
            if present:
                pipeline.delete(*present)
            for key, value in kept.items():
                pipeline.restore(key, 0, value)
            pipeline.execute()

    return lose


def repeating(query: Query[Any], at: int) -> Query[Any]:
    """Run a query whose request with a number is executed twice, as after a lost reply."""
    outcome: Any = None
    count = 0
    try:
        while True:
            effect = query.send(outcome)
            outcome = yield effect
            if isinstance(effect, Request | Scatter):
                if count == at:
                    outcome = yield effect
                count += 1
    except StopIteration as end:
        return end.value


def losing_an_answer(query: Query[Any], at: int) -> Query[Any]:
    """Run a query whose request with a number is executed, and fails for lack of an answer."""
    outcome: Any = None
    count = 0
    try:
        effect = next(query)
        while True:
            outcome = yield effect
            if isinstance(effect, Request | Scatter):
                count += 1
            if count == at + 1:
                count += 1
                effect = query.throw(StoreUnavailableError("the reply was lost"))
            else:
                effect = query.send(outcome)
    except StopIteration as end:
        return end.value
