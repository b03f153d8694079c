"""The plugin for pytest, in runs of pytest of their own: one for each plugin for coroutines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from plugin_runs import passed, run

from servers import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from stores import Store

#: In each module: `{run}` is the mark of tests that are coroutines.
TESTS = """
import asyncio, threading, os, time, math
from datetime import date, datetime, timezone
import pytest, tallymark
from tallymark import (
    StoreFullError, StoreTimeoutError, StoreUnavailableError, SyncTally, Tally, mark_event,
    sync as tm,
)

{run}
async def test_all_tallies_of_a_test_share_its_store(tally, sync_tally, tally_url):
    assert os.environ["TALLYMARK_URL"] == tally_url
    await tally.mark_event("active", 1)
    await mark_event("active", 2)
    def elsewhere():
        tm.mark_event("active", 3)
        async def main():
            async with Tally.from_url(tally_url) as other:
                await other.mark_event("active", 4)
        asyncio.run(main())
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert list(sync_tally.users(sync_tally.day("active"))) == [1, 2, 3, 4]

@pytest.mark.parametrize("turn", range(2))
def test_the_store_is_empty(sync_tally, turn):
    assert sync_tally.mark_event("active", 1)
    assert sync_tally.count(sync_tally.day("active")) == 1

@pytest.mark.tallymark(user_ids=str)
@pytest.mark.parametrize("turn", range(2))
{run}
async def test_ids_of_another_type(tally, turn):
    assert await tally.mark_event("active", "ann")
    await mark_event("active", "bob")
    assert {{user async for user in tally.users(tally.day("active"))}} == {{"ann", "bob"}}

@pytest.mark.tallymark(timezone="Europe/Berlin", timeout=3)
class TestMarkers:
    @pytest.mark.tallymark(timeout=0.2)
    def test_the_closest_wins(self, tally_options):
        assert tally_options == {{"timezone": "Europe/Berlin", "timeout": 0.2}}

@pytest.mark.tallymark(timeout=20)
{run}
async def test_outages(tally, sync_tally, tally_url, tallymark_outage):
    async with Tally.from_url(tally_url, timeout=20) as own:
        await own.mark_event("active", 1)
        sync_tally.mark_event("active", 1)
        with tallymark_outage("unavailable"):
            for mark in (tally, own, tallymark):
                with pytest.raises(StoreUnavailableError):
                    await mark.mark_event("active", 2, timeout=0.2)
            with pytest.raises(StoreUnavailableError):
                await own.count(own.day("active"), timeout=0.2)
            with pytest.raises(StoreUnavailableError):
                sync_tally.mark_event("active", 2, timeout=0.2)
        assert await own.mark_event("active", 3)
        assert sync_tally.count(sync_tally.day("active")) == 2
        with tallymark_outage("full"):
            with pytest.raises(StoreFullError):
                await own.mark_event("active", 4)
            with pytest.raises(StoreFullError):
                sync_tally.mark_event("active", 4)
            with pytest.raises(StoreFullError):
                async with own.transaction() as tx:
                    tx.mark_event("active", 5)
            assert await own.count(own.day("active")) == 2
        with tallymark_outage("slow"):
            with pytest.raises(StoreTimeoutError):
                await own.mark_event("active", 6, timeout=0.2)
            with pytest.raises(StoreTimeoutError):
                await own.count(own.day("active"), timeout=0.2)
            with pytest.raises(StoreTimeoutError):
                sync_tally.mark_event("active", 6, timeout=0.2)
            with tallymark_outage("full"), pytest.raises(StoreFullError):
                await tally.mark_event("active", 7)
        began = time.perf_counter()
        with tallymark_outage("slow", seconds=0.05):
            assert await own.mark_event("active", 8)
            assert sync_tally.mark_event("active", 9)
        assert time.perf_counter() - began >= 0.1
        assert [user async for user in own.users(own.day("active"))] == [1, 3, 8, 9]

{run}
async def test_a_tally_closed_during_an_outage(tally, tally_url, tallymark_outage):
    await tally.mark_event("active", 1)
    with tallymark_outage("slow"):
        async with Tally.from_url(tally_url, timeout=0.1) as own:
            with pytest.raises(StoreTimeoutError):
                await own.mark_event("active", 2)

def test_bad_arguments(tallymark_outage):
    for arguments in (("gone",), ("slow", 0), ("full", 1)):
        with pytest.raises(ValueError):
            with tallymark_outage(*arguments[:1], seconds=(*arguments, None)[1]):
                pass
"""

FROZEN = """
import pytest, time
import freezegun, time_machine
from tallymark import StoreUnavailableError, StoreTimeoutError, mark_event, sync as tm
from datetime import date, timedelta

@pytest.mark.tallymark(timeout=20)
@pytest.mark.parametrize(
    "freeze", [freezegun.freeze_time, lambda moment: time_machine.travel(moment, tick=False)]
)
async def test_frozen(freeze, tally, sync_tally, tallymark_outage):
    await tally.count(tally.day("active"))
    sync_tally.count(sync_tally.day("active"))
    with freeze("2031-03-01 12:00"):
        await tally.mark_event("active", 1)
        await mark_event("active", 2)
        sync_tally.mark_event("active", 3)
        tm.mark_event("active", 4)
        for kind, error in (("slow", StoreTimeoutError), ("unavailable", StoreUnavailableError)):
            with tallymark_outage(kind):
                with pytest.raises(error):
                    await tally.mark_event("active", 5, timeout=0.2)
                with pytest.raises(error):
                    await tally.count(tally.day("active"), timeout=0.2)
                with pytest.raises(error):
                    sync_tally.mark_event("active", 5, timeout=0.2)
                with pytest.raises(error):
                    sync_tally.count(sync_tally.day("active"), timeout=0.2)
        assert await tally.count(tally.day("active")) == 4
        assert sync_tally.count(sync_tally.day("active")) == 4
    with freeze("1999-01-01"):
        assert sync_tally.count(sync_tally.day("active", date(2031, 3, 1))) == 4
        assert await tally.count(tally.day("active", date(2031, 3, 1))) == 4
    assert await tally.count(tally.day("active")) == 0
"""

PLUGINS = {
    "asyncio-auto": ("", ["-p", "no:anyio", "-o", "asyncio_mode=auto"]),
    "asyncio-strict": (
        "@pytest.mark.asyncio",
        ["-p", "no:anyio", "-o", "asyncio_mode=strict"],
    ),
    "asyncio-session": (
        "@pytest.mark.asyncio(loop_scope='session')",
        ["-p", "no:anyio", "-o", "asyncio_mode=strict"],
    ),
    "anyio": (
        "@pytest.mark.anyio\n@pytest.mark.parametrize('anyio_backend', ['asyncio'])",
        ["-p", "no:asyncio"],
    ),
}


@pytest.mark.parametrize("plugin", PLUGINS)
def test_in_memory(plugin: str, tmp_path: Path) -> None:
    mark, arguments = PLUGINS[plugin]
    passed(run(tmp_path, TESTS.format(run=mark), *arguments), 9)


def test_on_a_server(redis_store: Store, tmp_path: Path) -> None:
    mark, arguments = PLUGINS["asyncio-strict"]
    url = ("--tallymark-url", redis_store.url)
    passed(run(tmp_path, TESTS.format(run=mark), *arguments, *url), 9)
    assert not redis_store.raw.dbsize()


@pytest.mark.parametrize("server", [False, True])
def test_frozen_time(server: bool, redis_store: Store, tmp_path: Path) -> None:
    _, arguments = PLUGINS["asyncio-auto"]
    passed(
        run(tmp_path, FROZEN, *arguments, *(("--tallymark-url", redis_store.url) * server)[:2]), 2
    )


def test_workers_of_xdist_have_databases_of_their_own(redis_store: Store, tmp_path: Path) -> None:
    tests = """
import pytest
@pytest.mark.parametrize("turn", range(20))
def test_it(sync_tally, turn):
    sync_tally.mark_event("active", turn)
    assert list(sync_tally.users(sync_tally.day("active"))) == [turn]
"""
    done = run(tmp_path, tests, "-o", f"tallymark_url={redis_store.url}", "-n", "2")
    passed(done, 20)
    assert not redis_store.raw.dbsize()


ONE = "def test_it(sync_tally): sync_tally.mark_event('active', 1)"


def test_a_database_with_keys_is_never_flushed(redis_store: Store, tmp_path: Path) -> None:
    redis_store.raw.set("precious", 1)
    done = run(tmp_path, ONE, "--tallymark-url", redis_store.url)
    assert done.returncode == 1
    assert "is not empty" in done.stdout
    assert redis_store.raw.keys() == [b"precious"]


def test_a_run_that_was_killed(redis_store: Store, tmp_path: Path) -> None:
    """The next one says what to do."""
    killed = f"import os\n{ONE}; os.kill(os.getpid(), 9)"
    assert run(tmp_path, killed, "--tallymark-url", redis_store.url).returncode == -9
    keys = redis_store.raw.dbsize()
    done = run(tmp_path, ONE, "--tallymark-url", redis_store.url)
    assert done.returncode == 1
    assert "have ended without emptying it, at most 0 minutes ago" in done.stdout
    assert re.search(r"redis-cli -n \d+ FLUSHDB", done.stdout)
    assert redis_store.raw.dbsize() == keys > 1


def test_without_a_server(tmp_path: Path) -> None:
    done = run(tmp_path, ONE, "--tallymark-url", f"redis://127.0.0.1:{free_port()}/0")
    assert done.returncode == 1
    assert "tallymark.errors.StoreUnavailableError: --tallymark-url: " in done.stdout


def test_an_option_that_no_tally_has(tmp_path: Path) -> None:
    tests = f"import pytest\n@pytest.mark.tallymark(timout=1)\n{ONE}"
    done = run(tmp_path, tests)
    assert done.returncode == 1
    assert "InvalidValueError: the marker tallymark and the fixture" in done.stdout
    assert "not timout" in done.stdout


def test_freezegun_imported_in_a_test(tmp_path: Path) -> None:
    tests = """
async def test_it(tally):
    import asyncio, freezegun
    with freezegun.freeze_time("2020-02-02"):
        await asyncio.sleep(0.01)
        await tally.mark_event("active", 1)
    assert await tally.contains(tally.day("active", datetime.date(2020, 2, 2)), 1)
"""
    _, arguments = PLUGINS["asyncio-auto"]
    passed(run(tmp_path, f"import datetime\n{tests}", *arguments), 1)


def test_a_database_whose_claim_has_gone_is_not_flushed(redis_store: Store, tmp_path: Path) -> None:
    tests = f"{ONE}\n    sync_tally.client.delete('tallymark-pytest')"
    done = run(tmp_path, tests.replace(": ", ":\n    "), "--tallymark-url", redis_store.url)
    assert done.returncode == 1
    assert "is not flushed" in done.stdout
    assert redis_store.raw.dbsize() == 3


def test_without_the_extra_memory(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "fakeredis.py").write_text("raise ImportError(name='fakeredis')")
    done = run(tmp_path, ONE, installed=str(tmp_path / "none"))
    assert done.returncode == 1
    assert "MissingExtraError: memory:// needs the package fakeredis" in done.stdout
    assert "tallymark[memory]" in done.stdout


def test_a_run_without_its_fixtures_does_not_import_tallymark(tmp_path: Path) -> None:
    tests = "import sys\ndef test_it(): assert not {'tallymark', 'redis'} & sys.modules.keys()"
    passed(run(tmp_path, tests, "-p", "no:anyio"), 1)
