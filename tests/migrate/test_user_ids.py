"""To databases whose users have ids of any type: from numbers, and from such databases."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import uuid
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusters import running_cluster
from deployments import RIGHTS
from servers import running_server
from stores import ClusterStore, offsets
from tallymark import (
    InvalidValueError,
    PermissionDeniedError,
    StoreError,
    SyncTally,
    WrongSchemaError,
)
from tallymark._core.keys import KeySchema, tag_slot, tags
from tallymark.migrate import Progress, main, migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from stores import Store

MONDAY = date(2026, 11, 23)
TYPES: dict[type, Callable[[int], Any]] = {
    uuid.UUID: lambda number: uuid.UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC834 % 2**128),
    str: lambda number: f"{'ü' * (number % 40)}user{number}@example.org",
    bytes: lambda number: bytes([number % 256]) * (number % 50) + b"%d" % number,
    int: lambda number: (number - 50) * 10**15 + number,
}


def found(
    store: Store, prefix: str, shards: int | None, user_ids: type | None = None
) -> dict[str, set[Any]]:
    """Return the users of each bitmap below a prefix that has any, and check the dictionary."""
    schema = KeySchema(prefix, shards=shards, user_ids=user_ids)
    values = store.values()
    ids = numbers_in(values, schema) if user_ids is not None else {}
    begins = [part.prefix.encode() for part in schema.parts]
    bitmaps: dict[str, set[Any]] = {}
    for key, value in values.items():
        if not key.startswith(prefix.encode()) or b"}ids:" in key or isinstance(value, dict):
            continue
        for shard, begin in enumerate(begins):
            if key.startswith(begin) and b"_" in key[len(begin) :]:
                name = key[len(begin) :].decode()
                users = {
                    ids[shard, offset] if user_ids else offset * len(begins) + shard
                    for offset in offsets(value)
                }
                if users:
                    bitmaps[name] = bitmaps.get(name, set()) | users
    return bitmaps


def numbers_of(store: Store, schema: KeySchema) -> dict[tuple[int, int], Any]:
    """Return the id at each place, after a check that both directions agree."""
    return numbers_in(store.values(), schema)


def numbers_in(values: Mapping[bytes, Any], schema: KeySchema) -> dict[tuple[int, int], Any]:
    """Return the same of the values of all keys."""
    dictionary = schema.dictionary
    assert dictionary is not None
    places: dict[tuple[int, int], Any] = {}
    for shard in range(len(schema.parts)):
        end = values.get(dictionary.key(shard, "next"))
        if end is None:
            continue
        forward: dict[bytes, int] = {}
        begin = dictionary.key(shard, "f:")
        for key, value in values.items():
            if key.startswith(begin):
                fields = {field: int(number) for field, number in value.items()}
                assert not forward.keys() & fields
                forward |= fields
        assert len(set(forward.values())) == len(forward)
        for offset in forward.values():
            record = dictionary.record(shard, offset)
            if dictionary.ids.width:
                at = record.position * dictionary.ids.width
                encoded = values[record.key][at : at + dictionary.ids.width]
            else:
                encoded = values[record.key][b"%d" % record.position]
            user_id = dictionary.ids.decode(encoded)
            user_key = dictionary.ids.key(user_id)
            assert dictionary.shard(user_key) == shard
            assert forward[dictionary.entry(user_key)[1]] == offset < int(end)
            places[shard, offset] = user_id
    return places


#: The users that `fill` marks some of; of each id, an exchange asks for 1000 at most.
MANY, FEWER = 3000, 600


def fill(tally: SyncTally[Any], make: Callable[[int], Any] = int, most: int = FEWER) -> None:
    """Mark this and that."""
    chance = random.Random(7)
    tally.mark_many("active", map(make, range(0, most, 2)), now=MONDAY, track_hourly=True)
    for day in range(25):
        users = [make(number) for number in chance.sample(range(most), 20)]
        tally.mark_many("web", users, now=MONDAY - timedelta(days=day))
    for number in range(40):
        tally.mark_unique(f"flag{number}", make(number))
    tally.mark_event("a_b", make(3), now=MONDAY)


def opened(request: pytest.FixtureRequest, how: Any, prefix: str, **options: Any) -> SyncTally[Any]:
    name, shards = how
    url = request.getfixturevalue(f"{name}_store").url
    opened_tally: SyncTally[Any] = SyncTally.from_url(url, prefix=prefix, shards=shards, **options)
    return opened_tally


WAYS = [
    (("redis", None), ("redis", None)),
    (("redis", None), ("redis", 3)),
    (("redis", 4), ("redis", None)),
    (("redis", 4), ("redis", 6)),
    (("redis", 4), ("redis", 4)),
    (("redis", None), ("cluster", 16)),
    (("cluster", 16), ("redis", None)),
    (("cluster", 16), ("cluster", 5)),
    (("memory", None), ("memory", 2)),
]


def users_for(way: Any) -> int:
    """Return how many users to mark: more than an exchange asks for, or enough for all shards."""
    return MANY if way == WAYS[0] else FEWER


#: All ways for ids of equal and of different lengths, one for other types.
WAYS_OF_TYPES = [
    *((*way, user_ids) for way in WAYS for user_ids in (uuid.UUID, str)),
    *((*WAYS[3], user_ids) for user_ids in (bytes, int)),
]


@pytest.mark.exhaustive
@pytest.mark.parametrize(("source", "target", "user_ids"), WAYS_OF_TYPES, ids=str)
def test_from_numbers_to_ids(
    request: pytest.FixtureRequest, source: Any, target: Any, user_ids: type
) -> None:
    make = TYPES[user_ids]
    most = users_for((source, target))
    pairs = {number: make(number) for number in range(most)}
    stores = [request.getfixturevalue(f"{each[0]}_store") for each in (source, target)]
    with (
        opened(request, source, "old_") as old,
        opened(request, target, "new_", user_ids=user_ids) as new,
    ):
        fill(old, most=most)
        before = found(stores[0], "old_", source[1])
        migration = migrate(old, new, ids=pairs)
        bits = sum(map(len, before.values()))
        assert (migration.users, migration.written, migration.differing) == (bits, bits, {})
        assert found(stores[0], "old_", source[1]) == before
        wanted = {name: {pairs[user] for user in users} for name, users in before.items()}
        assert found(stores[1], "new_", target[1], user_ids) == wanted
        schema = new.backend.context.schema
        assert set(numbers_of(stores[1], schema).values()) == set(pairs.values())
        again = migrate(old, new, ids=iter(pairs.items()))
        assert (again.written, again.unchanged) == (0, migration.bitmaps)
        assert found(stores[1], "new_", target[1], user_ids) == wanted
        assert not [key for key in stores[1].located() if b"tmp:" in key]


@pytest.mark.exhaustive
@pytest.mark.parametrize(("source", "target", "user_ids"), WAYS_OF_TYPES, ids=str)
def test_from_ids_to_ids(
    request: pytest.FixtureRequest, source: Any, target: Any, user_ids: type
) -> None:
    stores = [request.getfixturevalue(f"{each[0]}_store") for each in (source, target)]
    make = TYPES[user_ids]
    with (
        opened(request, source, "old_", user_ids=user_ids) as old,
        opened(request, target, "new_", user_ids=user_ids) as new,
    ):
        fill(old, make, users_for((source, target)))
        # The target has users, and so other numbers.
        new.mark_many("before", [make(number) for number in range(100, 50, -1)], now=MONDAY)
        there = found(stores[1], "new_", target[1], user_ids)
        before = found(stores[0], "old_", source[1], user_ids)
        migration = migrate(old, new)
        bits = sum(map(len, before.values()))
        assert (migration.users, migration.written, migration.differing) == (bits, bits, {})
        assert found(stores[0], "old_", source[1], user_ids) == before
        assert found(stores[1], "new_", target[1], user_ids) == before | there
        again = migrate(old, new, exact=True)
        assert (again.written, again.unchanged) == (0, migration.bitmaps)
        new.mark_event("active", make(8999), now=MONDAY)
        assert len(migrate(old, new).differing) == 3
        assert migrate(old, new, exact=True).written == 3
        assert found(stores[1], "new_", target[1], user_ids) == before | there
        assert not [key for key in stores[1].located() if b"tmp:" in key]


@pytest.mark.exhaustive
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(("source", "target"), WAYS[:-1], ids=str)
def test_marks_and_unmarks_go_on_meanwhile(
    request: pytest.FixtureRequest, source: Any, target: Any, mapped: bool
) -> None:
    """Threads write first to the old database and then to the new one; new users come."""
    make = TYPES[uuid.UUID]
    stores = [request.getfixturevalue(f"{each[0]}_store") for each in (source, target)]
    options = {"user_ids": uuid.UUID} if mapped else {}
    stopping = threading.Event()
    with (
        opened(request, source, "old_", **options) as old,
        opened(request, target, "new_", user_ids=uuid.UUID) as new,
    ):
        old.mark_many("active", map(make if mapped else int, range(0, 4000, 3)), now=MONDAY)

        def work(number: int) -> None:
            chance = random.Random(number)
            while not stopping.is_set():
                user = chance.randrange(1250) * 4 + number  # its own
                verb = chance.choice(("mark_event", "unmark_event"))
                getattr(old, verb)("active", make(user) if mapped else user, now=MONDAY)
                getattr(new, verb)("active", make(user), now=MONDAY)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            migrate(old, new, ids=None if mapped else {user: make(user) for user in range(5000)})
        finally:
            stopping.set()
            for thread in threads:
                thread.join()
        before = found(stores[0], "old_", source[1], uuid.UUID if mapped else None)
        wanted = {
            name: users if mapped else {make(user) for user in users}
            for name, users in before.items()
        }
        assert found(stores[1], "new_", target[1], uuid.UUID) == wanted


contents = st.dictionaries(
    st.sampled_from(["a", "a_b", "🎉", "u"]), st.sets(st.integers(0, 60), max_size=40)
)
shard_counts = st.none() | st.integers(1, 9) | st.just(64)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    contents, contents, shard_counts, shard_counts, st.none() | st.integers(0, 99),
    st.booleans(), st.sampled_from([*TYPES]), st.booleans(),
)  # fmt: skip
def test_any_shards_to_any_shards(
    redis_store: Store,
    there: Mapping[str, set[int]],
    here: Mapping[str, set[int]],
    old_shards: int | None,
    new_shards: int | None,
    meanwhile: int | None,
    exact: bool,
    user_ids: type,
    mapped: bool,
) -> None:
    """Against a model of sets, while a writer is at its worst: after any exchange."""
    redis_store.raw.flushdb()
    if meanwhile is not None:
        there = {**there, "busy": set(range(3, 50))}
    make = TYPES[user_ids]
    old_id = make if mapped else int
    old_model = {event: set(users) for event, users in there.items()}
    new_model = {event: set(users) for event, users in here.items()}
    chance = random.Random(meanwhile)
    everybody = [(event, user) for event, users in there.items() for user in users]
    left = 0 if meanwhile is None else 60

    def write(_: object) -> None:
        """Mark and unmark some, mostly who is there, in both databases."""
        nonlocal left
        for _ in range(min(left, 4)):
            left -= 1
            event, user = chance.choice([*everybody, ("late", 7), ("a", 1), ("busy", 61)])
            verb = "mark_unique" if chance.random() < 0.3 else "unmark_unique"
            getattr(writer_old, verb)(event, old_id(user))
            getattr(writer_new, verb)(event, make(user))
            for model in (old_model, new_model):
                users = model.setdefault(event, set())
                (users.add if verb == "mark_unique" else users.discard)(user)

    url = redis_store.url
    old_how: Any = {"prefix": "old_", "shards": old_shards}
    old_how |= {"user_ids": user_ids} if mapped else {}
    new_how: Any = {"prefix": "new_", "shards": new_shards, "user_ids": user_ids}
    pairs = None if mapped else {user: make(user) for user in range(62)}
    with (
        SyncTally.from_url(url, **old_how) as writer_old,
        SyncTally.from_url(url, **new_how) as writer_new,
        SyncTally.from_url(url, observer=write, **old_how) as old,
        SyncTally.from_url(url, observer=write, **new_how) as new,
    ):
        for tally, of_tally, name in ((writer_old, there, old_id), (writer_new, here, make)):
            for event, users in of_tally.items():
                tally.mark_many(event, map(name, sorted(users)), now=MONDAY, track_unique=True)
                for user in users:
                    tally.unmark_event(event, name(user), now=MONDAY, track_unique=False)
        migrate(old, new, ids=pairs, exact=exact)
        left = 0
        got = found(redis_store, "new_", new_shards, user_ids)
        for event in old_model.keys() | new_model.keys():
            of_old = {make(user) for user in old_model.get(event, set())}
            both = of_old | {make(user) for user in new_model.get(event, set())}
            users_of_new = got.get(f"{event}_u", set())
            if not exact:  # what the new one has by itself stays
                assert users_of_new == both
            elif there.get(event):
                assert users_of_new == of_old
            else:  # a bitmap that may have come after the list was made
                assert of_old <= users_of_new <= both
        migration = migrate(old, new, ids=pairs, exact=exact)
        if meanwhile is None:
            assert migration.written == 0
            assert found(redis_store, "new_", new_shards, user_ids) == got
        assert not [name for name in redis_store.names() if "tmp:" in name]


#: Migrates, and is killed after so many exchanges with the new database.
KILLED = """
import os, signal, sys, uuid
from tallymark import SyncTally
from tallymark.migrate import migrate
url, left, mapped = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
def count(operation):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
options = {"user_ids": uuid.UUID} if mapped else {}
old = SyncTally.from_url(url, shards=5, prefix="old_", **options)
new = SyncTally.from_url(url, shards=3, prefix="new_", observer=count, user_ids=uuid.UUID)
def make(number):
    return uuid.UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC834 % 2**128)
migrate(old, new, ids=None if mapped else {number: make(number) for number in range(600)})
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("exchanges", [1, 3, 4, 5, 6, 8, 10])
def test_one_that_was_killed_is_begun_again(
    redis_store: Store, exchanges: int, mapped: bool
) -> None:
    make = TYPES[uuid.UUID]
    options: Any = {"user_ids": uuid.UUID} if mapped else {}
    with (
        SyncTally.from_url(redis_store.url, shards=5, prefix="old_", **options) as old,
        SyncTally.from_url(redis_store.url, shards=3, prefix="new_", user_ids=uuid.UUID) as new,
    ):
        fill(old, make if mapped else int)
        done = subprocess.run(
            [sys.executable, "-c", KILLED, redis_store.url, str(exchanges), str(mapped)],
            env=dict(os.environ),
            check=False,
        )
        assert done.returncode == -signal.SIGKILL
        left = [key for key in redis_store.names() if "tmp:" in key]
        assert all(redis_store.raw.ttl(key) > 0 for key in left)
        pairs = None if mapped else {number: make(number) for number in range(FEWER)}
        assert migrate(old, new, ids=pairs).differing == {}
        before = found(redis_store, "old_", 5, uuid.UUID if mapped else None)
        assert found(redis_store, "new_", 3, uuid.UUID) == {
            name: users if mapped else {make(user) for user in users}
            for name, users in before.items()
        }
        assert {key for key in redis_store.names() if "tmp:" in key} == set(left)


def test_numbers_without_an_id(redis_store: Store) -> None:
    url = redis_store.url
    make = TYPES[str]
    pairs = {number: make(number) for number in range(100)}
    with (
        SyncTally.from_url(url, prefix="old_", shards=3) as old,
        SyncTally.from_url(url, prefix="new_", user_ids=str) as new,
    ):
        old.mark_many("a", range(102), now=MONDAY)
        old.mark_many("b", [5, 101, *range(1000, 1020)], now=MONDAY)
        before = redis_store.names()
        message = r"22 numbers of the old .* no id: 100, 101, 1000, 1001, .*, 1007, \.\.\.; add"
        with pytest.raises(InvalidValueError, match=message):
            migrate(old, new, ids=pairs)
        assert redis_store.names() == before
        migration = migrate(old, new, ids=pairs, skip_unmapped=True)
        assert (migration.unmapped, migration.differing) == (3 * (2 + 21), {})
        assert found(redis_store, "new_", None, str)["b_2026-11"] == {make(5)}
        # A user who comes after the check is no error.
        old.delete_all("old_")
        old.mark_event("a", 1, now=MONDAY)
        done = False

        def come(operation: Any) -> None:
            nonlocal done
            if not done and redis_store.raw.exists("new_ids:next"):
                done = True
                redis_store.raw.setbit(f"{old.backend.context.schema.parts[2].prefix}a_2026-11",
                                       700, 1)  # fmt: skip

        redis_store.raw.delete(*redis_store.raw.keys("new_*"))
        with SyncTally.from_url(url, prefix="new_", user_ids=str, observer=come) as observed:
            migration = migrate(old, observed, ids=pairs)
        assert done
        assert (migration.unmapped, migration.differing) == (1, {})


def test_what_does_not_fit(redis_store: Store) -> None:
    url = redis_store.url
    with (
        SyncTally.from_url(url, prefix="a:") as plain,
        SyncTally.from_url(url, prefix="b:") as other,
        SyncTally.from_url(url, prefix="c:", user_ids=str) as strings,
        SyncTally.from_url(url, prefix="d:", user_ids=uuid.UUID) as uuids,
    ):
        for old, new, ids, message in (
            (strings, plain, None, "does not replace ids by numbers"),
            (strings, plain, {}, "does not replace ids by numbers"),
            (strings, uuids, None, "of the same type, got <class 'str'> and <class 'uuid.UUID'>"),
            (plain, strings, None, "migrate needs ids: which number is which id"),
            (plain, other, {}, "ids are for an old tally without user_ids and a new one"),
            (strings, strings, {}, "ids are for an old tally without user_ids and a new one"),
            (strings, strings, None, "neither prefix may begin with"),
        ):
            with pytest.raises(InvalidValueError, match=message):
                migrate(old, new, ids=ids)
        with pytest.raises(InvalidValueError, match="number 5 has two ids"):
            migrate(plain, strings, ids=[(5, "a"), (5, "b")])
    assert redis_store.names() == set()


@pytest.mark.parametrize("shards", [None, 2])
def test_a_target_with_bitmaps_of_numbers(redis_store: Store, shards: int | None) -> None:
    url = redis_store.url
    with running_server() as other:
        with SyncTally.from_url(url, shards=shards) as there, SyncTally.from_url(other) as old:
            there.mark_unique("a", 3)
            old.mark_unique("a", 3)
            before = {key: redis_store.raw.get(key) for key in redis_store.names()}
            # The same keys, on another server, and on the same one.
            with SyncTally.from_url(url, shards=shards, user_ids=str) as new:
                with pytest.raises(WrongSchemaError):
                    migrate(old, new, ids={3: "a"})
                with pytest.raises((WrongSchemaError, InvalidValueError)):
                    migrate(there, new, ids={3: "a"})
            assert {key: redis_store.raw.get(key) for key in redis_store.names()} == before
            with SyncTally.from_url(url, shards=shards, prefix="new_", user_ids=str) as new:
                assert migrate(there, new, ids={3: "a"}).written == 1
                with (
                    pytest.raises(WrongSchemaError),
                    SyncTally.from_url(url, shards=shards, prefix="new_", user_ids=bytes) as wrong,
                ):
                    migrate(there, wrong, ids={3: b"a"})


@pytest.mark.parametrize("mapped", [False, True])
def test_a_failover_of_the_target_marks_nobody_else(redis_store: Store, mapped: bool) -> None:
    """It loses the numbers that migrate has learned; another user gets one of them."""
    url = redis_store.url
    make = TYPES[uuid.UUID]
    options: Any = {"user_ids": uuid.UUID} if mapped else {}
    newcomer = make(77_777)
    for lost_after in range(1, 60):
        redis_store.raw.flushdb()
        exchanges = 0

        def lose(_: object) -> None:
            nonlocal exchanges
            exchanges += 1
            if exchanges == lost_after:  # noqa: B023 - called in this round
                keys = redis_store.raw.keys("new_*")
                redis_store.raw.delete("", *(key for key in keys if key != b"new_schema"))
                other.mark_event("active", newcomer, now=MONDAY)

        with (
            SyncTally.from_url(url, prefix="old_", **options) as old,
            SyncTally.from_url(url, prefix="new_", user_ids=uuid.UUID) as other,
            SyncTally.from_url(url, prefix="new_", user_ids=uuid.UUID, observer=lose) as new,
        ):
            fill(old, make if mapped else int, 60)
            pairs = None if mapped else {number: make(number) for number in range(60)}
            with contextlib.suppress(StoreError):
                migrate(old, new, ids=pairs)
            has_lost = exchanges >= lost_after
            for name, users in found(redis_store, "new_", None, uuid.UUID).items():
                assert (
                    newcomer not in users
                    or name.startswith("active_2026-11")
                    or (name == "active_W2026-48")
                )
            assert migrate(old, new, ids=pairs).bitmaps
            got = found(redis_store, "new_", None, uuid.UUID)
            before = found(redis_store, "old_", None, uuid.UUID if mapped else None)
            for name, users in before.items():
                wanted = users if mapped else {make(user) for user in users}
                assert got[name] - {newcomer} == wanted
        if not has_lost:
            break
    assert lost_after > 8  # pyright: ignore[reportPossiblyUnboundVariable]


def test_a_server_of_the_source_that_is_replaced() -> None:
    """The next master may have given the last numbers to other users."""
    make = TYPES[uuid.UUID]
    with running_server() as url, running_server() as target, redis.Redis.from_url(url) as raw:
        with (
            SyncTally.from_url(url, user_ids=uuid.UUID) as old,
            SyncTally.from_url(target, user_ids=uuid.UUID) as new,
        ):
            fill(old, make)

            def replace(_: Progress) -> None:
                raw.replicaof("127.0.0.1", 1)
                raw.replicaof("NO", "ONE")  # with a replication id of its own

            with pytest.raises(StoreError, match="was replaced or restarted"):
                migrate(old, new, progress=replace)
            assert migrate(old, new).differing == {}


def test_as_a_program(
    redis_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = redis_store.url
    make = TYPES[uuid.UUID]
    file = tmp_path / "ids.csv"
    with SyncTally.from_url(url, prefix="old_") as old:
        fill(old, most=50)
        ways = ["--prefix", "old_", "--target-prefix", "new_", "--ids", str(file), "--quiet"]
        assert main([url, url, *ways, "--user-ids", "uuid"]) == 2
        assert "the file of --ids cannot be read (FileNotFoundError)" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            main([url, url, *ways])
        assert "--ids and --skip-unmapped need --user-ids" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            main([url, url, *ways, "--user-ids", "uuid4"])
        assert "--user-ids: uuid, str, int or bytes" in capsys.readouterr().err
        file.write_text("number,id\n5,no\n")
        assert main([url, url, *ways, "--user-ids", "uuid"]) == 2
        assert f"line 2 of {file}: not a UUID: 'no'" in capsys.readouterr().err
        file.write_text("".join(f"{number},{make(number)}\n" for number in range(49)))
        assert main([url, url, *ways, "--user-ids", "uuid"]) == 2
        assert "1 numbers of the old database" in capsys.readouterr().err
        assert not redis_store.raw.keys("new_*")
        assert main([url, url, *ways, "--user-ids", "uuid", "--skip-unmapped"]) == 0
        output = capsys.readouterr().out
        assert "bits of users without an id: not copied" in output
        file.write_text("".join(f"{number},{make(number)}\n" for number in range(50)))
        assert main([url, url, *ways, "--user-ids", "uuid"]) == 0
        assert " 0 differ" in capsys.readouterr().out
    wanted = {
        name: {make(user) for user in users}
        for name, users in found(redis_store, "old_", None).items()
    }
    assert found(redis_store, "new_", 16, uuid.UUID) == wanted
    ways = ["--prefix", "new_", "--target-prefix", "six_", "--source-shards", "16", "--shards", "6"]
    assert main([url, url, *ways, "--quiet"]) == 2
    assert "--user-ids TYPE" in capsys.readouterr().err
    assert main([url, url, *ways, "--quiet", "--user-ids", "uuid"]) == 0
    assert found(redis_store, "six_", 6, uuid.UUID) == wanted


def test_with_no_more_rights_than_documented() -> None:
    make = TYPES[uuid.UUID]
    rules = ["--user", "app", "on", ">secret", "~trackist_*", *RIGHTS.split()]
    with (
        running_server(*rules, "-info", "--user", "default", "off") as url,
        running_server(*rules, "--user", "default", "off") as other,
    ):
        one, two = (each.replace("//", "//app:secret@") for each in (url, other))
        with (
            SyncTally.from_url(two, shards=2, user_ids=uuid.UUID) as old,
            SyncTally.from_url(one, user_ids=uuid.UUID) as new,
        ):
            fill(old, make, 50)
            assert migrate(old, new).differing == {}
            with pytest.raises(PermissionDeniedError, match="info"):
                migrate(new, old)


@pytest.mark.parametrize(("source", "target"), [WAYS[0], WAYS[3], WAYS[7]], ids=str)
def test_a_user_who_is_forgotten_meanwhile(
    request: pytest.FixtureRequest, source: Any, target: Any
) -> None:
    """After any exchange, in the old database and then in the new one: no trace of the id."""
    make = TYPES[str]
    stores = [request.getfixturevalue(f"{each[0]}_store") for each in (source, target)]
    with (
        opened(request, source, "old_", user_ids=str) as forgetting_old,
        opened(request, target, "new_", user_ids=str) as forgetting_new,
    ):
        exchanges = forgotten = 0

        def forget(_: object) -> None:
            nonlocal exchanges, forgotten
            exchanges += 1
            user = make(exchanges)
            if exchanges <= 60 and forgetting_old.numbers([user]) != [None]:
                forgotten += bool(forgetting_old.forget(user))
                forgetting_new.forget(user)

        with (
            opened(request, source, "old_", user_ids=str, observer=forget) as old,
            opened(request, target, "new_", user_ids=str, observer=forget) as new,
        ):
            for event in range(70):  # more than a group
                forgetting_old.mark_many(f"e{event}", map(make, range(100)), now=MONDAY)
            migrate(old, new)
        assert forgotten > 5
        wanted = found(stores[0], "old_", source[1], str)
        assert found(stores[1], "new_", target[1], str) == wanted
        left = {user for users in wanted.values() for user in users}
        assert len(left) == 100 - forgotten
        schema = KeySchema("new_", shards=target[1], user_ids=str)
        assert set(numbers_of(stores[1], schema).values()) == left


def test_bits_of_nobody_are_not_copied(redis_store: Store) -> None:
    """Such as those of a user whose forgetting was interrupted."""
    make = TYPES[str]
    with (
        SyncTally.from_url(redis_store.url, prefix="old_", user_ids=str) as old,
        SyncTally.from_url(redis_store.url, prefix="new_", user_ids=str, shards=2) as new,
    ):
        fill(old, make, 50)
        wanted = found(redis_store, "old_", None, str)
        for number in (700, 70_000):
            redis_store.raw.setbit("old_active_2026-11", number, 1)
        redis_store.raw.setbit("old_nobody_2026-11", 700, 1)
        migration = migrate(old, new)
        assert (migration.unmapped, migration.differing) == (3, {})
        assert found(redis_store, "new_", 2, str) == wanted
        assert migrate(old, new, exact=True).written == 0


def test_replicas_have_what_was_written(redis_store: Store) -> None:
    with (
        running_server("--repl-diskless-sync-delay", "0") as url,
        redis.Redis.from_url(url, socket_timeout=60) as raw,
    ):
        port = url.rpartition(":")[2].partition("/")[0]
        with (
            running_server("--replicaof", "127.0.0.1", port),
            SyncTally.from_url(redis_store.url) as old,
            SyncTally.from_url(url, user_ids=int, replicas=1) as new,
        ):
            raw.set("x", "written before the replica counts")
            assert raw.wait(1, 30_000) == 1
            old.mark_unique("a", 5)
            migrate(old, new, ids={5: 50})
            raw.config_resetstat()
            old.mark_unique("b", 5)
            migrate(old, new, ids={5: 50})
            # One for the number, one for the bit.
            assert raw.info("commandstats")["cmdstat_wait"]["calls"] == 2


def test_slots_of_the_target_move_meanwhile(redis_store: Store) -> None:
    make = TYPES[uuid.UUID]
    moves = 0
    with (
        running_cluster() as cluster,
        SyncTally.from_url(redis_store.url, prefix="old_") as old,
        SyncTally.from_url(
            cluster.url, prefix="new_", shards=4, user_ids=uuid.UUID, timeout=60
        ) as new,
    ):
        fill(old)
        slot = tag_slot(tags(4)[1].encode())
        stopping = threading.Event()

        def move() -> None:
            nonlocal moves
            while not stopping.is_set():
                # For a moment after a move, no node may call itself the owner.
                with contextlib.suppress(LookupError):
                    owner = cluster.owner(slot)
                    other = next(node for node in cluster.masters() if node.port != owner.port)
                    cluster.move(slot, other)
                    moves += 1
                cluster.settle()

        thread = threading.Thread(target=move)
        thread.start()
        try:
            pairs = {number: make(number) for number in range(FEWER)}
            migration = migrate(old, new, ids=pairs)
            while moves < 3:
                migration = migrate(old, new, ids=pairs)
        finally:
            stopping.set()
            thread.join()
        assert migration.differing == {}
        wanted = {
            name: {make(user) for user in users}
            for name, users in found(redis_store, "old_", None).items()
        }
        assert found(ClusterStore(cluster), "new_", 4, uuid.UUID) == wanted
