"""Helpers for the tests of `delete_all` with ids of any type."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from dictionary_check import read_cluster, read_database
from erasures import (
    ANN,
    BOB,
    USERS,
    Crashed,
    Inspector,
    crashing,
    fill_blocking,
    opened_blocking,
    run,
    step_by_step,
)

from stores import ClusterStore
from tallymark._reading.keyspace import delete_all
from tallymark._reading.user_bits import merge

if TYPE_CHECKING:
    from dictionary_check import Database

    from stores import Store
    from tallymark._reading.requests import Query

PREFIX = "trackist_"


def checked(store: Store) -> Database:
    """Return what the database has, without tallymark; check that it agrees with itself."""
    if isinstance(store, ClusterStore):
        return read_cluster(store.raw._cluster)
    return read_database(store.raw)


def deletion(tally: Any) -> Query[int]:
    """Return the query of a deletion."""
    return delete_all(tally.backend.context, PREFIX)


def traces(inspector: Inspector, users: list[Any]) -> list[bytes]:
    """Return the bytes by which ids would be found; those of the int 0 are everywhere."""
    entries = [inspector.dictionary.entry(inspector.dictionary.ids.key(user)) for user in users]
    return [part for _, *parts in entries for part in parts if part.strip(b"\0")]


def with_merge_that_crashed(url: str, count: int = 5, **options: Any) -> None:
    """Merge the first user into the second one, and crash after the erasure."""
    with opened_blocking(url, **options) as tally, pytest.raises(Crashed):
        run(tally, crashing(merge(tally.backend.context, ANN, BOB), count))


def requests(url: str, options: Any) -> int:
    """Return how many requests a deletion has."""
    numbers: list[int] = []
    with opened_blocking(url, **options) as tally:
        fill_blocking(tally, USERS)
        with_merge_that_crashed(url, **options)
        run(tally, step_by_step(deletion(tally), numbers.append))
    return len(numbers)


def has_traces(store: Store, options: Any, users: list[Any]) -> bool:
    """Return whether bytes of the ids of users are anywhere."""
    inspector = Inspector(store, uuid.UUID, **options)
    return any(map(inspector.has_bytes, traces(inspector, users)))
