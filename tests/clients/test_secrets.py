"""No password is in anything that a tally tells, or lets be seen, whatever goes wrong."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio.sentinel
import redis.sentinel
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

import tallymark
from clusters import _cluster_port
from facades import ASYNC, SYNC, internals
from servers import RedisProcess, free_port, running, running_server
from tallymark import (
    InvalidValueError,
    StoreError,
    SyncTally,
    Tally,
    TallymarkError,
    bitmapist,
    migrate,
)
from tallymark import sync as tm
from tallymark._core.keys import SLOTS
from tallymark._redis import defaults
from tallymark.otel import OpenTelemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facades import Facade

SECRET = "s3cr3t"
LOGIN = f"app:{SECRET}@"
OURS = str(Path(tallymark.__file__).parent)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and all that it came from, shown by tracebacks or not."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [each.__cause__, each.__context__]


def in_error(error: BaseException) -> Iterator[str]:
    """Yield what an exception tells, and what error reporters show of the frames of ours."""
    for each in chain(error):
        yield f"{each!s} {each!r} {each.args!r}"
        yield "".join(traceback.format_exception(each))
        for frame, _ in traceback.walk_tb(each.__traceback__):
            # The second is that of a dataclass's __init__.
            if frame.f_code.co_filename.startswith((OURS, "<string>")):
                for name, value in frame.f_locals.items():
                    with contextlib.suppress(AttributeError):  # an object that is half made
                        yield f"{frame.f_code.co_name}: {name}={value!r} {value!s}"


def in_objects(start: Any) -> Iterator[str]:
    """Yield the `repr` of all objects that are reached from one of ours over objects of ours."""
    seen: set[int] = set()
    waiting = [start]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield f"{type(each).__qualname__}: {each!r} {each!s}"
        if type(each).__module__.startswith("tallymark"):
            own = dict(getattr(each, "__dict__", {}))
            for kind in type(each).__mro__:
                for name in vars(kind).get("__slots__", ()):
                    own[name] = getattr(each, name, None)
            own.pop("_value", None)  # of what hides it
            waiting += own.values()


class Channels:
    """Collects all output of a tally: errors, logs, operations, metrics and spans."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        self._caplog = caplog
        self._operations: list[Any] = []
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._telemetry = OpenTelemetry(MeterProvider([self._metrics]), tracers)

    def observer(self, operation: Any) -> None:
        self._operations.append(operation)
        self._telemetry(operation)

    def check(self, *found: Any) -> None:
        texts = [repr(each) for each in self._operations]
        for operation in self._operations:
            if operation.error is not None:
                texts += in_error(operation.error)
        texts += [span.to_json() for span in self._spans.get_finished_spans()]
        metrics = self._metrics.get_metrics_data()
        texts.append(metrics.to_json() if metrics is not None else "")
        texts.append(self._caplog.text)
        texts += [f"{record.__dict__!r}" for record in self._caplog.records]
        for each in found:
            texts += in_error(each) if isinstance(each, BaseException) else in_objects(each)
        for each in texts:
            # redis-py's own frames, which tracebacks name, have such words in their code.
            assert SECRET not in each, each


@pytest.fixture
def channels(caplog: pytest.LogCaptureFixture) -> Channels:
    return Channels(caplog)


async def fails(facade: Facade, channels: Channels, url: str, **options: Any) -> list[Any]:
    """Nothing that fails on a store tells a secret; return the errors."""
    errors: list[Any] = []
    options = {"timeout": 0.1, **options}
    async with facade.open(url, observer=channels.observer, **options) as tally:
        verbs: Any = tally
        made = tally if facade is ASYNC else verbs._verbs

        async def mark_together() -> None:
            async with tally.transaction() as tx:
                tx.mark_unique("a", 1)

        for call in (
            lambda: tally.mark_event("a", 1),
            lambda: tally.mark_many("a", [1, 2, 3]),
            lambda: tally.count(tally.day("a") & tally.week("a")),
            tally.event_names,
            lambda: tally.retention("a", "a", by="day", periods=2),
            mark_together,
        ):
            try:
                await call()
            except StoreError as error:  # noqa: PERF203
                errors.append(error)
        channels.check(made, *errors)
        client = internals(made)
        for shown in ("client", "_clients", "_replica"):
            if shown == "client" and "cluster" in url:
                continue  # connects
            channels.check(getattr(client, shown, None))
    assert errors
    return errors


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "url",
    [
        "redis://{login}127.0.0.1:{port}/3",
        "redis://127.0.0.1:{port}/3?password={secret}",
        "rediss://{login}127.0.0.1:{port}/3",
        "unix://{login}/nowhere/redis.sock",
        "redis+sentinel://{login}127.0.0.1:{port},localhost/main?sentinel_password={secret}",
        "rediss+sentinel://{login}127.0.0.1:{port}/main?sentinel_password={secret}",
        "redis+cluster://{login}127.0.0.1:{port}",
        "rediss+cluster://{login}127.0.0.1:{port}",
    ],
)
async def test_nobody_is_there(facade: Facade, channels: Channels, url: str) -> None:
    found = url.format(login=LOGIN, port=free_port(), secret=SECRET)
    await fails(facade, channels, found)
    if "cluster" not in url:
        with running_server() as there:
            await fails(facade, channels, there, read_from=found)
            if "sentinel" in url:
                await fails(facade, channels, found, read_from="replicas")


async def test_the_password_of_a_key(channels: Channels) -> None:
    """Which redis-py 5 to 7 take in blocking clients only."""
    url = f"rediss://127.0.0.1:{free_port()}?ssl_password={SECRET}"
    await fails(SYNC, channels, url)


async def test_a_login_is_refused(facade: Facade, channels: Channels) -> None:
    with running_server("--requirepass", "another") as url:
        port = url.rpartition(":")[2].partition("/")[0]
        for found in (
            f"redis://{LOGIN}127.0.0.1:{port}",
            f"redis://:{SECRET}@127.0.0.1:{port}?protocol=3",
            f"redis+cluster://{LOGIN}127.0.0.1:{port}",
            # Of a Sentinel.
            f"redis+sentinel://{LOGIN}127.0.0.1:{port}/main?sentinel_password={SECRET}",
        ):
            await fails(facade, channels, found)


@pytest.mark.parametrize("renamed", ["AUTH", "HELLO"])
async def test_a_server_repeats_what_it_does_not_know(
    facade: Facade, channels: Channels, renamed: str
) -> None:
    """As servers that are old, or where an administrator has renamed commands."""
    with running_server("--rename-command", renamed, "") as url:
        port = url.rpartition(":")[2].partition("/")[0]
        query = "?protocol=3" if renamed == "HELLO" else "?protocol=2"
        found = f"redis://{LOGIN}127.0.0.1:{port}{query}"
        errors = await fails(facade, channels, found, timeout=5)
        assert any("unknown command" in str(error) for error in errors)
        await fails(
            facade,
            channels,
            f"redis+sentinel://127.0.0.1:{port}/main{query}&sentinel_password={SECRET}",
        )


async def test_no_master_is_known(facade: Facade, channels: Channels, tmp_path: Path) -> None:
    """Sentinels answer, and do not know the service; one of them is not there."""
    settings = tmp_path / "sentinel.conf"
    settings.write_text(f"requirepass {SECRET}\n")
    with running(RedisProcess(str(settings), "--sentinel")) as process:
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{process.port}"
        url = f"redis+sentinel://{LOGIN}{hosts}/main?sentinel_password={SECRET}"
        errors = await fails(facade, channels, url, timeout=0.5)
        assert any("No master found for 'main' (Sentinels: Conn" in str(each) for each in errors)
        await fails(facade, channels, url, read_from="replicas")


async def test_a_client_of_ones_own_of_a_sentinel(channels: Channels) -> None:
    """redis-py 6 and 7 put all settings of a Sentinel into the message of a failed look-up."""
    hosts = [("127.0.0.1", free_port())]
    once, async_once = Retry(NoBackoff(), 0), AsyncRetry(NoBackoff(), 0)
    settings: Any = {"sentinel_kwargs": {"password": SECRET, "retry": once}}
    blocking: Any = redis.sentinel.Sentinel(hosts, **settings).master_for("main", retry=once)
    errors: list[StoreError] = []
    with SyncTally(blocking, timeout=0.3, observer=channels.observer) as sync_tally:
        with pytest.raises(StoreError, match="No master found for 'main'") as raised:
            sync_tally.mark_event("a", 1)
        errors.append(raised.value)
    settings = {"sentinel_kwargs": {"password": SECRET, "retry": async_once}}
    manager: Any = redis.asyncio.sentinel.Sentinel(hosts, **settings)
    client: Any = manager.master_for("main", retry=async_once)
    async with Tally(client, timeout=0.3, observer=channels.observer) as tally:
        for call in (lambda: tally.mark_event("a", 1), lambda: tally.count(tally.day("a"))):
            with pytest.raises(StoreError, match="No master found for 'main'") as raised:
                await call()
            errors.append(raised.value)
    channels.check(*errors)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://{LOGIN}host:99999",
        f"redis://:{SECRET}#@host",
        f"redis://:{SECRET}?@host",
        f"redis://host?{SECRET}=1",
        f"redis://host?client_name={SECRET}%0a",
        f"rediss://host?ssl_include_verify_flags={SECRET.upper()}",
        f"redis+sentinel://{LOGIN}host",
        f"redis+cluster://{LOGIN}host/7",
        f"memory://{SECRET}#",
        f"{SECRET}://host",
        SECRET,
        f"redis://{LOGIN}host",
        f"redis+cluster://{LOGIN}host",
    ],
)
def test_a_url_or_an_option_is_refused(
    channels: Channels, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the URL is right, and something beside it is wrong."""
    monkeypatch.setenv("TALLYMARK_URL", url)
    wrong: Any = {"timeout": "soon"}
    calls: list[Any] = [
        lambda: Tally.from_url(url, **wrong),
        lambda: Tally.from_url("redis://localhost", read_from=url, **wrong),
        lambda: SyncTally.from_url(url, **wrong),
        lambda: SyncTally(redis.Redis(), read_from=url, **wrong),
        lambda: tallymark.configure(url, **wrong),
        lambda: tallymark.configure(read_from=url, **wrong),
        lambda: tallymark.configure(url, read_from="replicas"),
    ]
    for call in calls:
        with pytest.raises(TallymarkError) as raised:
            call()
        channels.check(raised.value)
    for make in (lambda: Tally.from_url(url), tm.current_tally):
        try:
            channels.check(make())
        except InvalidValueError as error:  # noqa: PERF203
            channels.check(error)


def test_what_is_configured(channels: Channels) -> None:
    url = f"redis://{LOGIN}127.0.0.1:{free_port()}"
    tallymark.configure(url, read_from=url, timeout=0.1)
    channels.check(defaults.configured())
    with pytest.raises(StoreError) as raised:
        tm.mark_event("a", 1)
    channels.check(raised.value, tm.current_tally())


def test_the_drop_in_is_set_up_wrongly(channels: Channels) -> None:
    with pytest.raises(TypeError) as raised:
        bitmapist.setup_redis("other", "localhost", 6379, password=SECRET, no_such_option=1)
    frames = [frame for frame, _ in traceback.walk_tb(raised.value.__traceback__)]
    (ours,) = (each for each in frames if each.f_code.co_filename.startswith(OURS))
    assert SECRET not in repr(ours.f_locals)
    channels.check(raised.value.with_traceback(None))


@pytest.mark.parametrize(
    "arguments",
    [
        [f"redis://{LOGIN}localhost:1", f"redis://{LOGIN}localhost:1", "--shards", "0"],
        [f"redis://{LOGIN}localhost:1", f"redis://:#{SECRET}@localhost"],
    ],
)
def test_a_migration_that_breaks(
    channels: Channels, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """Here because it cannot even say what is wrong: its frame is in the traceback then."""
    with open(os.devnull) as not_to_be_written:  # noqa: PTH123
        monkeypatch.setattr(sys, "stderr", not_to_be_written)
        with pytest.raises(OSError, match="not writable") as raised:
            migrate.main(arguments)
    frames = [frame for frame, _ in traceback.walk_tb(raised.value.__traceback__)]
    assert migrate.main.__code__ in [frame.f_code for frame in frames]
    channels.check(raised.value)


async def test_a_cluster_client_of_ones_own(
    facade: Facade, channels: Channels, tmp_path: Path
) -> None:
    """It has a plain password, of which the tally makes connections of its own."""
    node = RedisProcess(
        *("--cluster-enabled", "yes", "--dir", str(tmp_path), "--requirepass", SECRET),
        port=_cluster_port(),
    )
    with running(node):
        raw: Any = redis.Redis(port=node.port, password=SECRET)
        with raw:
            raw.execute_command("CLUSTER ADDSLOTS", *range(SLOTS))
            while b"cluster_state:ok" not in raw.execute_command("CLUSTER", "INFO"):
                pass
        kind: Any = redis.asyncio.RedisCluster if facade is ASYNC else redis.RedisCluster
        client = kind(host="127.0.0.1", port=node.port, password=SECRET)
        made = facade.tally(client, shards=2, timeout=1, observer=channels.observer)
        tally = facade.verbs(made)
        try:
            await tally.mark_event("a", 1)
            assert await tally.count(tally.day("a")) == 1
            raw = redis.Redis(port=node.port, password=SECRET)
            with raw:
                raw.config_set("requirepass", "another")
                raw.client_kill_filter(_type="normal", skipme=True)
            with pytest.raises(StoreError) as raised:
                await tally.mark_event("a", 1)
            channels.check(raised.value)
            clients = internals(made)._clients
            assert clients.settings["password"] == SECRET  # which the next line is about
            assert SECRET not in repr((made, vars(made), clients))
        finally:
            await facade.close(made)
            await client.aclose() if facade is ASYNC else client.close()


async def test_reprs_of_what_works(facade: Facade, channels: Channels) -> None:
    with running_server("--requirepass", SECRET) as url:
        found = url.replace("//", f"//:{SECRET}@")
        async with facade.open(found, read_from=found, observer=channels.observer) as tally:
            await tally.mark_event("a", 1)
            assert await tally.count(tally.day("a")) == 1
            verbs: Any = tally
            made = verbs if facade is ASYNC else verbs._verbs
            channels.check(made, made.client, made.client.connection_pool)
            assert "s3cr3t" not in repr((made, made.client, vars(made)))


def test_the_test_finds_secrets(channels: Channels) -> None:
    """Else the others would tell nothing."""

    class Ours:
        __module__ = "tallymark"

        def __init__(self) -> None:
            self.inner = [SECRET]

    for found in (ValueError(SECRET), Ours()):
        with pytest.raises(AssertionError, match=SECRET):
            channels.check(found)
    logging.getLogger("tallymark").warning("%s", SECRET)
    with pytest.raises(AssertionError, match=SECRET):
        channels.check()
