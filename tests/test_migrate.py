"""Moving house: from one server in bitmapist's format to shards, while marks go on."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallymark import InvalidTypeError, InvalidValueError, StoreError, SyncTally
from tallymark.migrate import Progress, main, migrate
from tallymark.resharding import changes, dealt_bits

if TYPE_CHECKING:
    from pathlib import Path

    from stores import Store

MONDAY = date(2026, 11, 23)


def filled(tally: SyncTally) -> None:
    """Mark this and that."""
    chance = random.Random(7)
    tally.mark_many("active", range(20_000), now=MONDAY, track_hourly=True)
    tally.mark_many("sparse", chance.sample(range(3_000_000), 500), now=MONDAY)
    for day in range(30):
        tally.mark_many("web", chance.sample(range(5000), 50), now=MONDAY - timedelta(days=day))
    for number in range(40):
        tally.mark_unique(f"flag{number}", number)
    for user in (0, 1, 15, 16, 17, 127, 128, 129):
        tally.mark_unique("premium", user)
    tally.mark_event("a_b", 3, now=MONDAY)


def same_bits(old: Store, new: Store) -> None:
    assert {key: users for key, users in new.bits().items() if "schema" not in key} == old.bits()


async def test_all_is_there_and_nothing_else(redis_store: Store, cluster_store: Store) -> None:
    told: list[Progress] = []
    with (
        SyncTally.from_url(redis_store.url) as old,
        SyncTally.from_url(cluster_store.url) as new,
    ):
        filled(old)
        redis_store.raw.set("trackist_other", "x")
        before = {key: redis_store.raw.get(key) for key in redis_store.names()}
        found = migrate(old, new, progress=told.append)
        assert {key: redis_store.raw.get(key) for key in before} == before
        redis_store.raw.delete("trackist_other")
        same_bits(redis_store, cluster_store)
        bits = sum(map(len, redis_store.bits().values()))
        assert (found.users, found.written, found.unchanged) == (bits, bits, 0)
        assert found.bitmaps == len(redis_store.names())
        assert found.differing == {}
        assert told[-1].bitmaps == told[-1].total == found.bitmaps
        again = migrate(old, new)
        assert (again.unchanged, again.written) == (found.bitmaps, 0)
        # Whatever tallymark answers is the same too.
        for event in ("active", "web", "sparse"):
            one, other = old.month(event, MONDAY), new.month(event, MONDAY)
            assert old.count(one) == new.count(other)
            assert list(old.users(one)) == list(new.users(other))


def test_an_end_is_copied(redis_store: Store) -> None:
    with (
        SyncTally.from_url(redis_store.url, expire={"day": timedelta(days=9000)}) as old,
        SyncTally.from_url(redis_store.url, shards=4, prefix="new_") as new,
    ):
        old.mark_event("a", 1, now=MONDAY)
        assert migrate(old, new).written == 3
        ends = {key: redis_store.raw.ttl(key) for key in redis_store.names()}
        days = [end for key, end in ends.items() if key.endswith("2026-11-23")]
        assert len(days) == 2
        assert abs(days[0] - days[1]) <= 1
        assert sum(end == -1 for end in ends.values()) == len(ends) - 2


def test_what_was_there_stays_unless_it_is_to_be_exact(redis_store: Store) -> None:
    with (
        SyncTally.from_url(redis_store.url) as old,
        SyncTally.from_url(redis_store.url, shards=4, prefix="new_") as new,
    ):
        old.mark_unique("a", 1)
        new.mark_unique("a", 2)
        new.mark_unique("b", 3)  # which the old one does not know at all
        found = migrate(old, new)
        assert found.differing == {"trackist_a_u": (1, 2)}
        assert list(new.users(new.unique("a"))) == [1, 2]
        assert migrate(old, new, exact=True).differing == {}
        assert list(new.users(new.unique("a"))) == [1]
        assert list(new.users(new.unique("b"))) == [3]


def test_marks_and_unmarks_go_on_meanwhile(redis_store: Store, cluster_store: Store) -> None:
    """Threads write first to the old database and then to the new one."""
    stopping = threading.Event()
    with (
        SyncTally.from_url(redis_store.url) as old,
        SyncTally.from_url(cluster_store.url) as new,
    ):
        old.mark_many("active", range(0, 400_000, 3), now=MONDAY)

        def work(number: int) -> None:
            chance = random.Random(number)
            while not stopping.is_set():
                user = chance.randrange(50_000) * 8 + number  # its own
                verb = chance.choice(("mark_event", "unmark_event"))
                for tally in (old, new):
                    getattr(tally, verb)("active", user, now=MONDAY)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        migrate(old, new)
        stopping.set()
        for thread in threads:
            thread.join()
        same_bits(redis_store, cluster_store)


def test_one_that_was_interrupted_is_begun_again(redis_store: Store) -> None:
    with (
        SyncTally.from_url(redis_store.url) as old,
        SyncTally.from_url(redis_store.url, shards=4, prefix="new_") as new,
    ):
        filled(old)

        def stop(_: Progress) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            migrate(old, new, progress=stop)
        found = migrate(old, new)
        assert found.differing == {}
        assert 0 < found.unchanged < found.bitmaps  # the first group was there


def test_what_it_takes(redis_store: Store) -> None:
    with (
        SyncTally.from_url(redis_store.url) as plain,
        SyncTally.from_url(redis_store.url, shards=4, prefix="new_") as sharded,
    ):
        for pair in ((plain, plain), (sharded, sharded), (sharded, plain)):
            with pytest.raises(InvalidValueError, match="without shards to one with"):
                migrate(*pair)
        nothing: Any = None
        with pytest.raises(InvalidTypeError, match="two SyncTally, got a NoneType"):
            migrate(plain, nothing)
        redis_store.raw.rpush("trackist_a_u", "no bitmap")
        with pytest.raises(StoreError, match="WRONGTYPE"):
            migrate(plain, sharded)


def test_as_a_program(
    redis_store: Store, cluster_store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with SyncTally.from_url(redis_store.url) as old:
        filled(old)
    done = subprocess.run(
        [sys.executable, "-m", "tallymark.migrate", redis_store.url, cluster_store.url],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=dict(os.environ),
        check=False,
    )
    assert (done.returncode, done.stderr.count(" bitmaps, ")) == (0, 2), done
    assert "0 differ" in done.stdout
    same_bits(redis_store, cluster_store)
    with SyncTally.from_url(cluster_store.url) as new:
        new.mark_unique("premium", 999)
    assert main([redis_store.url, cluster_store.url, "--quiet"]) == 1
    assert (
        "trackist_premium_u: 8 users in the old database, 9 in the new" in capsys.readouterr().out
    )
    assert main([redis_store.url, cluster_store.url, "--quiet", "--exact"]) == 0
    assert main([redis_store.url, cluster_store.url, "--quiet", "--shards", "8"]) == 2
    assert "WrongSchemaError" in capsys.readouterr().err


parts = st.binary(max_size=100)


@given(parts, st.integers(1, 40))
def test_each_bit_goes_to_its_shard(part: bytes, shards: int) -> None:
    def users(data: bytes) -> set[int]:
        return {at for at in range(8 * len(data)) if data[at >> 3] & (128 >> (at & 7))}

    dealt = dealt_bits(part, shards)
    found = {bit * shards + shard for shard, own in enumerate(dealt) for bit in users(own)}
    assert found == users(part)
    for clear in (False, True):
        for change in changes(dealt, [bytes(reversed(own)) for own in dealt], clear=clear):
            have, want = users(bytes(reversed(dealt[change.shard]))), users(dealt[change.shard])
            assert users(change.bits) == (want - have if change.value else have - want)
            assert change.value or clear


def test_urls_from_the_environment_or_a_file(
    redis_store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`ps` shows the arguments of a program, and so a password in them."""
    with SyncTally.from_url(redis_store.url) as old:
        old.mark_event("a", 1, now=MONDAY)
    (tmp_path / "new").write_text(f"{redis_store.url}\n")
    command = [sys.executable, "-m", "tallymark.migrate", "--quiet", "--shards=4", "env:OLD_URL"]
    environment = {**os.environ, "OLD_URL": redis_store.url}
    target = f"file:{tmp_path / 'new'}"
    subprocess.run([*command, target], env=environment, cwd=tmp_path, check=True)
    assert "3 bits written, 0 differ" in capfd.readouterr().out
    for wrong in ("env:NO_SUCH_VARIABLE", f"file:{tmp_path / 'no such file'}"):
        with pytest.raises(SystemExit):
            main([redis_store.url, wrong])
    problems = capfd.readouterr().err
    assert "there is no such environment variable" in problems
    assert "the file cannot be read (FileNotFoundError)" in problems
