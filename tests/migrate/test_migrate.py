"""From one database to another, with or without shards, while marks go on."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
import tracemalloc
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments import acl_user
from servers import running_server
from stores import offsets
from tallymark import (
    InvalidTypeError,
    InvalidValueError,
    SyncTally,
    WrongKeyTypeError,
    WrongSchemaError,
)
from tallymark._core.keys import tags
from tallymark.migrate import Progress, main, migrate
from tallymark.migrate._resharding import Change, Comparison, reshard

if TYPE_CHECKING:
    from pathlib import Path

    from clusters import Cluster
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
    reports: list[Progress] = []
    with (
        SyncTally.from_url(redis_store.url) as old,
        SyncTally.from_url(cluster_store.url) as new,
    ):
        filled(old)
        redis_store.raw.set("trackist_other", "x")
        before = {key: redis_store.raw.get(key) for key in redis_store.names()}
        found = migrate(old, new, progress=reports.append)
        assert {key: redis_store.raw.get(key) for key in before} == before
        redis_store.raw.delete("trackist_other")
        same_bits(redis_store, cluster_store)
        bits = sum(map(len, redis_store.bits().values()))
        assert (found.users, found.written, found.unchanged) == (bits, bits, 0)
        assert found.bitmaps == len(redis_store.names())
        assert found.differing == {}
        assert reports[-1].bitmaps == reports[-1].total == found.bitmaps
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


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ({}, {"shards": 4, "prefix": "new_"}),
        ({"shards": 4}, {"prefix": "new_"}),
        ({"shards": 4}, {"shards": 6, "prefix": "new_"}),
        ({}, "cluster"),
        ("cluster", {}),
        ("cluster", {"shards": 6}),
    ],
    ids=str,
)
def test_marks_and_unmarks_go_on_meanwhile(
    request: pytest.FixtureRequest, redis_store: Store, source: Any, target: Any
) -> None:
    """Threads write first to the old database and then to the new one."""

    def opened(how: Any) -> SyncTally:
        if how == "cluster":
            return SyncTally.from_url(request.getfixturevalue("cluster_store").url)
        return SyncTally.from_url(redis_store.url, **how)

    stopping = threading.Event()
    with opened(source) as old, opened(target) as new:
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
        for kind in ("month", "week", "day"):
            one, other = (getattr(tally, kind)("active", MONDAY) for tally in (old, new))
            assert set(old.users(one)) == set(new.users(other))


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
    with SyncTally.from_url(redis_store.url) as plain:
        nothing: Any = None
        with pytest.raises(InvalidTypeError, match="two SyncTally, got a NoneType"):
            migrate(plain, nothing)
        with pytest.raises(InvalidTypeError, match="exact must be True or False"):
            migrate(plain, plain, exact=nothing)
        wrong: Any = 5
        with pytest.raises(InvalidTypeError, match="progress must be callable"):
            migrate(plain, plain, progress=wrong)
        late = SyncTally.from_url(redis_store.url, prefix="b_", read_from=redis_store.url)
        for pair in ((late, plain), (plain, late)):
            with pytest.raises(InvalidValueError, match="without read_from"):
                migrate(*pair)
        late.close()
    assert redis_store.names() == set()


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


def test_as_a_program_the_other_way_round(
    redis_store: Store, cluster_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with SyncTally.from_url(cluster_store.url) as old:
        filled(old)
    assert main([cluster_store.url, redis_store.url, "--shards", "none", "--quiet"]) == 0
    same_bits(cluster_store, redis_store)
    other = [redis_store.url, redis_store.url, "--shards", "6", "--target-prefix", "six_"]
    assert main([*other, "--quiet"]) == 0
    assert found_bits(redis_store, "six_", 6) == found_bits(redis_store, "trackist_", None)
    redis_store.raw.rpush("six_{no}x_u", "of no shard, and so no matter")
    back = ["--prefix", "six_", "--target-prefix", "back_", "--source-shards"]
    assert main([redis_store.url, redis_store.url, *back, "5", "--quiet"]) == 2
    assert "shards=6" in (message := capsys.readouterr().err)
    assert "--source-shards" in message
    assert main([redis_store.url, redis_store.url, *back, "6", "--shards", "none"]) == 0
    assert found_bits(redis_store, "back_", None) == found_bits(redis_store, "six_", 6)
    with pytest.raises(SystemExit):
        main([redis_store.url, cluster_store.url, "--shards", "several"])
    assert "argument --shards: a number or 'none'" in capsys.readouterr().err
    assert main([redis_store.url, cluster_store.url, "--shards", "none"]) == 2
    assert "cannot do without shards" in capsys.readouterr().err


def found_bits(store: Store, prefix: str, shards: int | None) -> dict[str, set[int]]:
    """Return the users of each bitmap below a prefix that has any, by its name."""
    found: dict[str, set[int]] = {}
    shard_of = {tag: shard for shard, tag in enumerate(tags(shards or 1))}
    for key, value in store.values().items():
        rest = key.decode().removeprefix(prefix)
        if rest == key.decode() or rest == "schema":
            continue
        shard, name = 0, rest
        if shards is not None:
            tag, name = rest.removeprefix("{").split("}", 1)
            shard = shard_of[tag]
        users = {offset * (shards or 1) + shard for offset in offsets(value)}
        if users:
            found[name] = found.get(name, set()) | users
    return found


def test_urls_from_the_environment_or_a_file(
    redis_store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`ps` shows the arguments of a program, and so a password in them."""
    with SyncTally.from_url(redis_store.url) as old:
        old.mark_event("a", 1, now=MONDAY)
    # As Windows writes it, with a byte order mark.
    (tmp_path / "new").write_text(f"\ufeff{redis_store.url}\r\n", "utf-8")
    command = [sys.executable, "-m", "tallymark.migrate", "--quiet", "--shards=4"]
    command += ["--target-prefix=new_", "env:OLD_URL"]
    environment = {**os.environ, "OLD_URL": redis_store.url}
    target = f"file:{tmp_path / 'new'}"
    subprocess.run([*command, target], env=environment, cwd=tmp_path, check=True)
    output = capfd.readouterr().out
    assert "3 bits written" in output
    assert "0 differ" in output
    for wrong in ("env:NO_SUCH_VARIABLE", f"file:{tmp_path / 'no such file'}"):
        with pytest.raises(SystemExit):
            main([redis_store.url, wrong])
    problems = capfd.readouterr().err
    assert "there is no such environment variable" in problems
    assert "the file cannot be read (FileNotFoundError)" in problems


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "source and target are needed|arguments are required: source, target"),
        (["redis://a"], "source and target are needed|arguments are required: target"),
        (["redis://a", "redis://b", "{}"], "too many arguments"),
        (["redis://a", "redis://b", "--password={}"], "too many arguments, or unknown"),
        (["redis://a", "redis://b", "--s={}"], "too many arguments, or unknown"),
        (["redis://a", "redis://b", "--shards", "{}"], "--shards: a number or 'none'"),
        (["redis://a", "redis://b", "--source-shards={}"], "--source-shards: a number"),
        (["redis://a", "redis://b", "--shards"], "--shards: no value"),
        (["redis://a", "redis://b", "--quiet={}"], "--quiet: no value, or one that"),
        (["redis://a", "redis://b", "-h{}"], "-h/--help: no value, or one that"),
        (["redis://a", "redis://b", "--prefix", "{}"], "--prefix: what keys begin with"),
        (["redis://a", "redis://b", "--target-prefix", "{}"], "--target-prefix: what keys"),
        (["redis://a", "env:{}"], "target: there is no such environment variable"),
        (["file:{}", "redis://a"], "source: the file cannot be read"),
    ],
)
def test_no_argument_is_shown(
    wrong: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be a URL in the wrong place, with a password."""
    with pytest.raises(SystemExit) as ended:
        main([each.format("redis://:s3cret@c") for each in wrong])
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert re.search(message, shown.err), shown.err
    assert "s3cret" not in shown.err + shown.out


user_sets = st.one_of(
    st.sets(st.sampled_from([0, 1, 7, 8, 9, 15, 16, 63, 64, 1000, 65_536, 999_999])),
    st.builds(lambda first, count: set(range(first, first + count)), st.integers(0, 300),
              st.integers(1, 200)),
)  # fmt: skip
contents = st.dictionaries(st.sampled_from(["a", "a_b", "{x}", "🎉", "*", "u"]), user_sets)
shard_counts = st.none() | st.integers(1, 20) | st.sampled_from([64, 255, 256])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    contents, contents, shard_counts, shard_counts, st.none() | st.integers(0, 99), st.booleans()
)
def test_any_shards_to_any_shards(
    plain_store: Store,
    there: dict[str, set[int]],
    here: dict[str, set[int]],
    old_shards: int | None,
    new_shards: int | None,
    meanwhile: int | None,
    exact: bool,
) -> None:
    """Against a model of sets, while a writer is at its worst: after any exchange."""
    plain_store.raw.flushdb()
    if meanwhile is not None:  # enough for the writer to meet what is being copied
        there = {**there, "busy": set(range(3, 150))}
    old_model = {event: set(users) for event, users in there.items()}
    new_model = {event: set(users) for event, users in here.items()}
    url = plain_store.url
    chance = random.Random(meanwhile)
    everybody = [(event, user) for event, users in there.items() for user in users]
    left = 0 if meanwhile is None else 60

    def write(_: object) -> None:
        """Mark and unmark some, mostly who is there, in both databases."""
        nonlocal left
        for _ in range(min(left, 4)):
            left -= 1
            event, user = chance.choice([*everybody, ("late", 7), ("a", 1)])
            mark = chance.random() < 0.3
            for tally, model in ((writer_old, old_model), (writer_new, new_model)):
                (tally.mark_unique if mark else tally.unmark_unique)(event, user)
                users = model.setdefault(event, set())
                (users.add if mark else users.discard)(user)

    old_how: Any = {"prefix": "old:", "shards": old_shards}
    new_how: Any = {"prefix": "new:", "shards": new_shards}
    with (
        SyncTally.from_url(url, **old_how) as writer_old,
        SyncTally.from_url(url, **new_how) as writer_new,
        SyncTally.from_url(url, observer=write, **old_how) as old,
        SyncTally.from_url(url, observer=write, **new_how) as new,
    ):
        for tally, contents_of in ((writer_old, there), (writer_new, here)):
            with tally.transaction() as tx:
                for event, users in contents_of.items():
                    for user in users:
                        tx.mark_unique(event, user)
        migrate(old, new, exact=exact)
        left = 0
        found_old = found_bits(plain_store, "old:", old_shards)
        found_new = found_bits(plain_store, "new:", new_shards)
    assert found_old == {f"{event}_u": users for event, users in old_model.items() if users}
    for event in old_model.keys() | new_model.keys():
        both = old_model.get(event, set()) | new_model.get(event, set())
        got = found_new.get(f"{event}_u", set())
        if not exact:  # what the new one has by itself stays
            assert got == both
        elif there.get(event):
            assert got == old_model[event]
        else:  # a bitmap that may have come after the list was made
            assert old_model.get(event, set()) <= got <= both
    again = found_new
    with SyncTally.from_url(url, **old_how) as old, SyncTally.from_url(url, **new_how) as new:
        migration = migrate(old, new, exact=exact)
        if meanwhile is None:
            assert migration.written == 0
            assert found_bits(plain_store, "new:", new_shards) == again
        leftovers = {name for name in plain_store.names() if "tmp:" in name}
    assert not leftovers


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(contents, st.integers(1, 40), st.booleans())
def test_a_cluster_to_any_shards_and_back(
    cluster_store: Store, redis_store: Store, there: dict[str, set[int]], shards: int, plain: bool
) -> None:
    cluster_store.raw.flushdb()
    redis_store.raw.flushdb()
    how: Any = {"prefix": "b:", "shards": None if plain else shards}
    with (
        SyncTally.from_url(cluster_store.url, prefix="a:", shards=shards) as old,
        SyncTally.from_url(redis_store.url, **how) as middle,
        SyncTally.from_url(cluster_store.url, prefix="c:", shards=7) as new,
    ):
        for event, users in there.items():
            for user in users:
                old.mark_event(event, user, now=MONDAY)
        for pair in ((old, middle), (middle, new)):
            migration = migrate(*pair)
            marked = {event: users for event, users in there.items() if users}
            assert migration.bitmaps == 3 * len(marked)
            assert migration.users == migration.written == 3 * sum(map(len, marked.values()))
            assert migration.differing == {}
            for event, users in there.items():
                for kind in ("month", "week", "day"):
                    assert set(pair[1].users(getattr(pair[1], kind)(event, MONDAY))) == users


def test_an_end_is_copied_unless_there_is_a_later_one(redis_store: Store) -> None:
    raw = redis_store.raw
    week, year = 7 * 86_400, 365 * 86_400
    with (
        SyncTally.from_url(redis_store.url, prefix="a:", shards=3) as old,
        SyncTally.from_url(redis_store.url, prefix="b:") as new,
    ):
        for event in ("fresh", "there", "later", "earlier", "stays"):
            old.mark_many(event, range(9), now=MONDAY)
        for key in redis_store.names():
            if "stays" not in key and "schema" not in key and "fresh" not in key:
                raw.expire(key, week)
        for part in tags(3)[:2]:  # of two shards only: the third one has them for ever
            raw.expire(f"a:{{{part}}}fresh_2026-11", week)
        for tag in tags(3):
            raw.expire(f"a:{{{tag}}}fresh_2026-11-23", week)
        migrate(old, new)
        assert raw.ttl("b:fresh_2026-11") == -1
        assert week - 5 < raw.ttl("b:fresh_2026-11-23") <= week
        assert raw.ttl("b:stays_2026-11-23") == -1
        # All bits are there: only ends may be wrong.
        raw.persist("b:there_2026-11-23")
        raw.expire("b:later_2026-11-23", year)
        raw.expire("b:earlier_2026-11-23", 60)
        raw.expire("b:stays_2026-11-23", year)
        assert migrate(old, new).written == 0
        assert week - 5 < raw.ttl("b:there_2026-11-23") <= week
        assert raw.ttl("b:later_2026-11-23") > week + 5
        assert week - 5 < raw.ttl("b:earlier_2026-11-23") <= week
        assert raw.ttl("b:stays_2026-11-23") > week + 5
        migrate(old, new, exact=True)
        assert week - 5 < raw.ttl("b:later_2026-11-23") <= week


def test_a_bitmap_of_zeros_has_no_users(
    redis_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        SyncTally.from_url(redis_store.url) as old,
        SyncTally.from_url(redis_store.url, shards=4, prefix="new_") as new,
    ):
        old.mark_unique("a", 1)
        old.mark_unique("gone", 9)
        old.unmark_unique("gone", 9)
        migration = migrate(old, new)
        assert (migration.bitmaps, migration.users, migration.written) == (1, 1, 1)
        assert (migration.empty, migration.unchanged, migration.differing) == (1, 0, {})
        assert found_bits(redis_store, "new_", 4) == {"a_u": {1}}
        migration = migrate(old, new)
        assert (migration.bitmaps, migration.empty, migration.unchanged) == (1, 1, 1)
        # Users of the target who are not in the source are reported, and cleared on request.
        new.mark_unique("gone", 5)
        assert migrate(old, new).differing == {"trackist_gone_u": (0, 1)}
        assert migrate(old, new, exact=True).differing == {}
    url = redis_store.url
    main([url, url, "--target-prefix", "new_", "--shards", "4", "--quiet"])
    assert capsys.readouterr().out.startswith("1 bitmaps, 1 users, ")


def test_exact_also_clears_beyond_the_old_bitmaps_end(redis_store: Store) -> None:
    with (
        SyncTally.from_url(redis_store.url, shards=4) as old,
        SyncTally.from_url(redis_store.url, prefix="new_") as new,
    ):
        old.mark_unique("a", 1)
        for user in (2, 100_000, 20_000_000):
            new.mark_unique("a", user)
        assert migrate(old, new, exact=True).differing == {}
        assert list(new.users(new.unique("a"))) == [1]


def test_keys_that_are_no_bitmaps(redis_store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    raw = redis_store.raw
    with (
        SyncTally.from_url(redis_store.url, shards=2) as old,
        SyncTally.from_url(redis_store.url, prefix="new_") as new,
    ):
        for event in ("a", "b"):
            old.mark_many(event, range(4), now=MONDAY)
        raw.delete(f"trackist_{{{tags(2)[1]}}}b_2026-11")
        raw.rpush(f"trackist_{{{tags(2)[1]}}}b_2026-11", "no bitmap")
        migration = migrate(old, new)
        assert migration.skipped == ("trackist_b_2026-11",)
        assert (migration.bitmaps, migration.differing) == (5, {})
        assert len(found_bits(redis_store, "new_", None)) == 5
        raw.delete("new_b_2026-11-23")
        url = redis_store.url
        ways = ["--source-shards", "2", "--shards", "none", "--target-prefix", "new_", "--quiet"]
        assert main([url, url, *ways]) == 1
        assert "trackist_b_2026-11: holds no bitmap" in capsys.readouterr().out
        before = {key: raw.dump(key) for key in raw.keys("*")}
        raw.delete("new_a_2026-11")
        raw.rpush("new_a_2026-11", "no bitmap")
        with pytest.raises(WrongKeyTypeError, match="new_a_2026-11"):
            migrate(old, new)
        raw.delete("new_a_2026-11")
        migrate(old, new)
        assert {key: raw.dump(key) for key in raw.keys("*")} == before


@pytest.mark.parametrize("prefix", ["trackist_", "bitmapist_"])
def test_what_bitmapist_computed_is_not_copied(redis_store: Store, prefix: str) -> None:
    with (
        SyncTally.from_url(redis_store.url, prefix=prefix) as old,
        SyncTally.from_url(redis_store.url, prefix="new:", shards=2) as new,
    ):
        old.mark_unique("a", 3)
        for name in (f"{prefix}bitop_OR_{prefix}a_u-{prefix}a_u", f"{prefix}tmp:0123:0"):
            redis_store.raw.setbit(name, 3, 1)
        assert old.event_names() == ["a"]
        migration = migrate(old, new)
        assert (migration.bitmaps, migration.skipped) == (1, ())
        assert migration.temporary == (f"{prefix}bitop_OR_{prefix}a_u-{prefix}a_u",)
        assert found_bits(redis_store, "new:", 2) == {"a_u": {3}}


def test_events_that_look_like_results_are_reported(
    redis_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    url = redis_store.url
    with SyncTally.from_url(url) as old, SyncTally.from_url(url, prefix="new_") as new:
        for event in ("bitop_OR_trackist_x", "bitop_OR_x", "bitop_"):
            old.mark_event(event, 3, now=MONDAY)
        migration = migrate(old, new)
        assert migration.bitmaps == 6
        assert migration.temporary == tuple(
            f"trackist_bitop_OR_trackist_x_{suffix}"
            for suffix in ("2026-11", "2026-11-23", "W2026-48")
        )
        assert new.event_names() == ["bitop_", "bitop_OR_x"]
    assert main([url, url, "--shards", "none", "--target-prefix", "new_", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "3 keys look like results of bitmapist, such as 'trackist_bitop_OR_tr" in printed
    redis_store.raw.delete(*migration.temporary[1:])
    assert main([url, url, "--shards", "none", "--target-prefix", "new_", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "1 key looks like a result of bitmapist, such as 'trackist_bitop_OR_tr" in printed


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {}),
        ({}, {"shards": 4}),
        ({"shards": 4}, {}),
        ({"shards": 4}, {"shards": 8}),
        ({}, {"prefix": "trackist_new_", "shards": 4}),
        ({"prefix": "trackist_old_"}, {"shards": 4}),
    ],
    ids=str,
)
def test_prefixes_that_overlap_are_refused(plain_store: Store, one: Any, other: Any) -> None:
    with SyncTally.from_url(plain_store.url, **one) as old:
        old.mark_unique("a", 3)
        before = {name: plain_store.raw.get(name) for name in plain_store.names()}
        urls = [plain_store.url, plain_store.url.replace("127.0.0.1", "localhost")]
        for url in urls:
            with SyncTally.from_url(url, **other) as new:
                # Or what is written there tells first that it has other shards.
                message = "neither prefix may begin with|the database has shards=4"
                with pytest.raises((InvalidValueError, WrongSchemaError), match=message):
                    migrate(old, new)
        assert {name: plain_store.raw.get(name) for name in plain_store.names()} == before


def test_prefixes_may_be_the_same_on_two_databases(redis_store: Store) -> None:
    with running_server() as url:
        for number in (0, 3):
            with (
                SyncTally.from_url(f"{url[:-1]}1") as old,
                SyncTally.from_url(f"{url[:-1]}{number}", shards=3) as new,
            ):
                old.mark_unique("a", 5)
                assert migrate(old, new).written == 1
                assert list(new.users(new.unique("a"))) == [5]
                assert len(new.client.keys("*")) == 2  # one of them the schema's
    assert redis_store.names() == set()


def test_with_no_more_rights_than_documented() -> None:
    with acl_user() as url, acl_user() as other:
        with (
            SyncTally.from_url(url, shards=2) as old,
            SyncTally.from_url(other) as new,
            SyncTally.from_url(url.replace("127.0.0.1", "localhost"), shards=2) as same,
        ):
            old.mark_many("a", range(50), now=MONDAY)
            assert migrate(old, new).differing == {}
            assert set(new.users(new.day("a", MONDAY))) == set(range(50))
            with pytest.raises(InvalidValueError, match="neither prefix may begin with"):
                migrate(old, same)


def test_one_cluster_by_two_names_is_one_database(
    redis_cluster: Cluster, cluster_store: Store
) -> None:
    first, second, *_ = redis_cluster.masters()
    urls = [f"redis+cluster://127.0.0.1:{node.port}" for node in (first, second)]
    with (
        SyncTally.from_url(urls[0]) as old,
        SyncTally.from_url(urls[1]) as same,
        SyncTally.from_url(urls[1], shards=8, prefix="new_") as new,
    ):
        old.mark_many("a", range(50), now=MONDAY)
        with pytest.raises(InvalidValueError, match="neither prefix may begin with"):
            migrate(old, same)
        assert migrate(old, new).differing == {}
        assert set(new.users(new.day("a", MONDAY))) == set(range(50))
    assert cluster_store.url


def test_a_database_with_other_shards_is_refused(redis_store: Store) -> None:
    url = redis_store.url
    with SyncTally.from_url(url, prefix="plain_") as plain:
        plain.mark_unique("a", 3)
    with SyncTally.from_url(url, prefix="two_", shards=2) as two:
        two.mark_unique("a", 3)
    before = redis_store.names()
    for wrong in ({"prefix": "plain_", "shards": 2}, {"prefix": "two_"},
                  {"prefix": "two_", "shards": 3}):  # fmt: skip
        how: Any = wrong
        with SyncTally.from_url(url, **how) as one, SyncTally.from_url(url, prefix="c") as other:
            for pair in ((one, other), (other, one)):
                with pytest.raises(WrongSchemaError):
                    migrate(*pair)
    assert redis_store.names() == before


def test_a_target_that_takes_fewer_users(redis_store: Store) -> None:
    url = redis_store.url
    with SyncTally.from_url(url) as old:
        old.mark_unique("a", 999)
        for shards in (None, 3):
            how: Any = {"prefix": f"new{shards}:", "shards": shards}
            with SyncTally.from_url(url, max_user_id=999, **how) as new:
                assert migrate(old, new).differing == {}
        old.mark_unique("b", 1000)
        for shards in (None, 3):
            how = {"prefix": f"new{shards}:", "shards": shards}
            with SyncTally.from_url(url, max_user_id=999, **how) as new:
                with pytest.raises(InvalidValueError, match=r"b_u.* has user 1000"):
                    migrate(old, new)
                assert not new.count(new.unique("b"))


@pytest.mark.parametrize("source", [None, 16])
def test_a_target_that_takes_fewer_users_than_it_has_shards(
    redis_store: Store, source: int | None
) -> None:
    url = redis_store.url
    with (
        SyncTally.from_url(url, prefix="old:", shards=source) as old,
        SyncTally.from_url(url, prefix="new:", shards=7, max_user_id=5) as new,
    ):
        for user in (0, 5):
            old.mark_unique("a", user)
        assert migrate(old, new).users == 2
        old.mark_unique("b", 6)
        with pytest.raises(InvalidValueError, match=r"b_u.* has user 6"):
            migrate(old, new)
        assert not new.count(new.unique("b"))


def test_a_server_without_scripts(redis_store: Store) -> None:
    with running_server("--rename-command", "EVAL", "", "--rename-command", "BITFIELD", "") as url:
        with (
            SyncTally.from_url(redis_store.url, shards=3) as old,
            SyncTally.from_url(url, bitfield=False) as new,
        ):
            old.mark_many("a", range(0, 9000, 2), now=MONDAY)
            redis_store.raw.expire(f"trackist_{{{tags(3)[0]}}}a_2026-11-23", 1000)
            new.mark_unique("b", 5)
            old.mark_unique("b", 6)
            assert migrate(old, new, exact=True).differing == {}
            assert list(new.users(new.unique("b"))) == [6]
            assert list(new.users(new.day("a", MONDAY))) == list(range(0, 9000, 2))


#: Migrates, and is killed after so many exchanges with the new database.
KILLED = """
import os, signal, sys
from tallymark import SyncTally
from tallymark.migrate import migrate
url, left = sys.argv[1], int(sys.argv[2])
def count(operation):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
old = SyncTally.from_url(url, shards=5)
new = SyncTally.from_url(url, shards=3, prefix="new_", observer=count)
migrate(old, new)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("exchanges", [1, 3, 4, 5, 9, 14])
def test_one_that_was_killed_is_begun_again(redis_store: Store, exchanges: int) -> None:
    with (
        SyncTally.from_url(redis_store.url, shards=5) as old,
        SyncTally.from_url(redis_store.url, shards=3, prefix="new_") as new,
    ):
        filled(old)
        done = subprocess.run(
            [sys.executable, "-c", KILLED, redis_store.url, str(exchanges)],
            env=dict(os.environ),
            check=False,
        )
        assert done.returncode == -9
        assert migrate(old, new).differing == {}
        there = found_bits(redis_store, "trackist_", 5)
        assert found_bits(redis_store, "new_", 3) == there
        assert not [name for name in redis_store.names() if "tmp:" in name]


def test_large_bitmaps_go_part_by_part(redis_store: Store) -> None:
    users = [0, 1, 2**28 + 5, 2**30 - 1]
    with (
        SyncTally.from_url(redis_store.url, shards=6) as old,
        SyncTally.from_url(redis_store.url, shards=9, prefix="new_") as new,
    ):
        for user in users:
            old.mark_unique("a", user)
        tracemalloc.start()
        try:
            assert migrate(old, new).written == len(users)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert list(new.users(new.unique("a"))) == users
    assert peak < 2**30 // 8 // 2  # of a bitmap that would be 128 MB as a whole


sparse = st.builds(
    lambda before, some, after: bytes(before) + some + bytes(after),
    *(st.integers(0, 400), st.binary(max_size=3), st.integers(0, 40)),
)
some_parts = st.lists(st.binary(max_size=60) | sparse, min_size=1, max_size=24)


@given(some_parts, st.integers(1, 40), some_parts, st.booleans())
def test_each_bit_goes_to_its_shard(
    parts: list[bytes], shards: int, others: list[bytes], clear: bool
) -> None:
    def ones(data: bytes) -> set[int]:
        return {
            8 * at + bit
            for at, byte in enumerate(data)
            if byte
            for bit in range(8)
            if byte & (128 >> bit)
        }

    def users(every: list[bytes]) -> set[int]:
        return {bit * len(every) + shard for shard, own in enumerate(every) for bit in ones(own)}

    wanted = reshard(parts, shards)
    assert len(wanted) == shards
    assert users(wanted) == users(parts)
    assert all(own[-1:] != b"\0" for own in wanted)
    found = reshard(others, shards)
    have = users(found)
    comparison = Comparison(found, clear=clear)

    def write(changes: list[Change]) -> set[int]:
        written = set()
        for change in changes:
            assert change.bits[:1] != b"\0" != change.bits[-1:]
            for bit in ones(change.bits):
                user = (8 * change.first + bit) * shards + change.shard
                assert (user in have) != change.value
                written.add(user)
                (have.add if change.value else have.discard)(user)
        return written

    before = set(have)
    first = write(comparison.changes(wanted))
    assert have == (users(parts) if clear else users(parts) | before)
    # Meanwhile all has turned round: what was written follows, and nothing else.
    second = write(comparison.changes(found))
    assert second == {user for user in first if (user in users(found)) != (user in users(parts))}
    assert have >= before
    assert not comparison.changes(found)
