"""Fixtures: the stores (Redis, Redis Cluster, embedded) and both facades."""

from __future__ import annotations

import itertools
import os
import signal
from typing import TYPE_CHECKING, Any

import fakeredis
import pytest
import redis
from command_line import CommandLine
from hypothesis import settings

import tallymark
from clusters import Cluster, running_cluster
from facades import FACADES, Facade
from servers import running_server
from stores import ClusterStore, Store
from tallymark import bitmapist
from tallymark import sync as tm
from tallymark._redis import defaults, memory
from tallymark.bitmapist import cohort

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Tests that need the Python with bitmapist of `nox -s compat`, the browser of `nox -s browser`, or
#: the site that `nox -s docs` builds.
collect_ignore = [
    folder
    for folder, variable in (
        ("compat", "TALLYMARK_BITMAPIST_PYTHON"),
        ("browser", "TALLYMARK_BROWSER_TESTS"),
        ("docs", "TALLYMARK_SITE"),
    )
    if not os.environ.get(variable)
]

# The time of an example depends on the machine more than on the code.
settings.register_profile("tallymark", deadline=None)
settings.load_profile("tallymark")

_names = itertools.count()

#: The URL of a server to test on; without it, each process starts one of its own.
GIVEN_SERVER = "TALLYMARK_TEST_REDIS_URL"

# A shell ignores Ctrl-C in what it starts in the background, ``nohup`` ignores SIGHUP, and that is
# inherited. Tests of signals, and the programs that they start, need what a terminal gives them.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (getattr(signal, "SIGHUP", signal.SIGINT), signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist counts its workers
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run all tests in one process if a server is given, as that is the only one.

    A database for each worker would not isolate them: many tests list or close all
    connections of the server, and count all its commands.
    """
    option = config.option
    several = (
        getattr(option, "numprocesses", None)  # -n
        or getattr(option, "tx", None)
        or getattr(option, "distload", False)  # -d
        or getattr(option, "dist", "no") != "no"
    )
    if os.environ.get(GIVEN_SERVER) and several:
        option.numprocesses, option.tx, option.dist, option.distload = 0, [], "no", False
        config.stash[_ONE_PROCESS] = True


_ONE_PROCESS = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of faults: each measures whether deadlines are kept."""
    for item in items:
        if item.path.parent.name == "faults":
            item.add_marker("timed")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say in the header that there is only one process."""
    if config.stash.get(_ONE_PROCESS, False):
        return f"{GIVEN_SERVER} is set: one process instead of several, as there is one server"
    return None


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """Yield the URL of a real, empty Redis database."""
    given = os.environ.get(GIVEN_SERVER)
    if given:
        with redis.Redis.from_url(given) as client:
            if client.dbsize():
                pytest.exit(f"{GIVEN_SERVER}: that database is not empty; tests flush it")
        yield given
    else:
        with running_server() as url:
            yield url


@pytest.fixture
def redis_store(redis_server: str) -> Iterator[Store]:
    """Yield the real Redis, empty."""
    with redis.Redis.from_url(redis_server) as raw:
        raw.flushdb()
        yield Store(redis_server, raw)
        raw.flushdb()


@pytest.fixture
def memory_store() -> Iterator[Store]:
    """Yield an embedded store of its own."""
    name = f"test-{next(_names)}"
    with fakeredis.FakeRedis(server=memory.store(name)) as raw:
        yield Store(f"memory://{name}", raw)


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[Cluster]:
    """Yield a Redis Cluster of three masters and three replicas."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster_store(redis_cluster: Cluster) -> Iterator[Store]:
    """Yield the cluster, empty."""
    redis_cluster.flush()
    yield ClusterStore(redis_cluster)
    redis_cluster.flush()


@pytest.fixture(params=["redis", "memory"])
def plain_store(request: pytest.FixtureRequest) -> Store:
    """Return each kind of store that is one server in turn."""
    param_store: Store = request.getfixturevalue(f"{request.param}_store")
    return param_store


@pytest.fixture(params=["redis", "memory", "cluster"])
def store(request: pytest.FixtureRequest) -> Store:
    """Return each kind of store in turn."""
    param_store: Store = request.getfixturevalue(f"{request.param}_store")
    return param_store


@pytest.fixture(params=FACADES, ids=lambda facade: facade.name)
def facade(request: pytest.FixtureRequest) -> Facade:
    """Return each facade in turn."""
    param_facade: Facade = request.param
    return param_facade


@pytest.fixture
def systems(plain_store: Store) -> Iterator[dict[str, Any]]:
    """Yield the systems of the drop-in: each kind of store as the default, and one more."""
    bitmapist.SYSTEMS.update(default=plain_store.raw, other=fakeredis.FakeRedis())
    yield bitmapist.SYSTEMS
    bitmapist.delete_runtime_bitop_keys()


@pytest.fixture
def cli(memory_store: Store, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Return the program on an embedded store, which `memory_store` inspects."""
    return CommandLine(memory_store.url, capsys)


@pytest.fixture
def redis_cli(redis_store: Store, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Return the program on a Redis server, which `redis_store` inspects."""
    return CommandLine(redis_store.url, capsys)


@pytest.fixture(autouse=True)
def _fresh_globals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reset the switches, the default tallies and the drop-in after each test."""
    monkeypatch.delenv(defaults.URL_VARIABLE, raising=False)
    before = defaults.configured()
    systems, handlers = dict(bitmapist.SYSTEMS), dict(cohort.CUSTOM_HANDLERS)
    yield
    bitmapist.SYSTEMS.clear()
    bitmapist.SYSTEMS.update(systems)
    cohort.CUSTOM_HANDLERS.clear()
    cohort.CUSTOM_HANDLERS.update(handlers)
    while bitmapist.systems._tallies:
        bitmapist.systems._tallies.popitem()[1].close()
    tallymark.TRACK_HOURLY = tallymark.TRACK_UNIQUE = False
    if defaults.configured() is not before:
        tallymark.configure()
        tm._close_default()
