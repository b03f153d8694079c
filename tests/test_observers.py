"""What a tally tells the log and its observer."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from servers import RedisProcess, running
from tallymark import Operation, StoreNotReadyError, StoreTimeoutError, StoreUnavailableError
from tallymark.otel import OpenTelemetry
from wires import wired

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store


async def test_an_observer_gets_each_exchange(facade: Facade, redis_store: Store) -> None:
    operations: list[Operation] = []
    url = redis_store.url.replace("//", "//:@")
    async with facade.open(url, observer=operations.append) as tally:
        begun = time.time()
        await tally.mark_event("a", 1)
        async with tally.transaction() as tx:
            tx.mark_event("a", 2)
            tx.mark_unique("a", 2)
        await tally.count(tally.day("a"))
        await tally.contains(tally.day("a") & tally.week("a"), 1)
    assert [(each.kind, each.size, each.error) for each in operations] == [
        ("write", 1, None),
        ("write", 2, None),
        ("read", 1, None),
        ("read", 4, None),
    ]
    for each in operations:
        assert each.bytes_sent > 0
        assert 0 < each.seconds < 5
        assert begun <= each.ended - each.seconds + 0.01 < each.ended + 0.01 <= time.time() + 0.01
        assert each.store == redis_store.url


async def test_an_observer_gets_each_failed_attempt(facade: Facade) -> None:
    operations: list[Operation] = []
    with running(RedisProcess()) as server, wired(server.url) as wire:
        async with facade.open(wire.url, timeout=0.3, observer=operations.append) as tally:
            await tally.mark_event("a", 1)
            wire.swallow()
            with pytest.raises(StoreTimeoutError):
                await tally.mark_event("a", 2)
            with pytest.raises(StoreTimeoutError):
                await tally.count(tally.day("a"))
    first, *failed = operations
    assert first.error is None
    assert {each.kind for each in failed} == {"write", "read"}
    assert {type(each.error) for each in failed} == {StoreTimeoutError}


async def test_an_observer_that_fails_harms_nobody(
    facade: Facade, redis_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Operation) -> None:
        raise ZeroDivisionError

    async with facade.open(redis_store.url, observer=broken) as tally:
        assert await tally.mark_event("a", 1)
        assert await tally.count(tally.day("a")) == 1
    assert [record.getMessage()[:12] for record in caplog.records] == ["the observer"] * 2


async def test_the_log_tells_of_an_outage_once(
    facade: Facade, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tallymark")
    with running(RedisProcess("--requirepass", "hidden")) as server, wired(server.url) as wire:
        url = wire.url.replace("//", "//:hidden@")
        async with facade.open(url, timeout=0.2) as tally:
            await tally.mark_event("a", 1)
            assert not caplog.records
            wire.refusing = True
            wire.cut_all()
            for _ in range(3):
                with pytest.raises(StoreUnavailableError):
                    await tally.mark_event("a", 2)
            wire.heal()
            await tally.mark_event("a", 2, timeout=5)
            await tally.mark_event("a", 3)
    lost, back = caplog.records
    assert lost.levelname == "WARNING"
    assert lost.getMessage().startswith(f"no answer from {wire.url}: ")
    assert back.levelname == "INFO"
    assert back.getMessage().startswith(f"{wire.url} is back after ")
    assert "hidden" not in caplog.text


async def test_the_log_does_not_mention_an_idle_connection_that_was_closed(
    facade: Facade, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tallymark")
    operations: list[Operation] = []
    with running(RedisProcess()) as server, wired(server.url) as wire:
        async with facade.open(wire.url, observer=operations.append) as tally:
            for call in (lambda: tally.mark_event("a", 1), lambda: tally.count(tally.day("a"))):
                await call()
                wire.cut_all()
                await call()
    assert not caplog.records
    assert [each.error is None for each in operations].count(False) >= 1


def test_the_log_is_quiet_where_nobody_has_set_it_up() -> None:
    program = """
import tallymark.sync as tm
from tallymark import SyncTally, StoreError
try:
    SyncTally.from_url("redis://127.0.0.1:1", timeout=0.05).mark_event("a", 1)
except StoreError:
    print("raised")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert (ran.stdout, ran.stderr) == (b"raised\n", b"")


async def test_metrics_and_spans(facade: Facade, redis_store: Store) -> None:
    reader, spans = InMemoryMetricReader(), InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    telemetry = OpenTelemetry(MeterProvider([reader]), tracers)
    async with facade.open(redis_store.url, observer=telemetry) as tally:
        async with tally.transaction() as tx:
            tx.mark_event("a", 1)
            tx.mark_event("a", 2)
        await tally.count(tally.day("a"))
        redis_store.raw.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            with pytest.raises(StoreNotReadyError):
                await tally.mark_event("a", 3, timeout=0.05)
        finally:
            redis_store.raw.execute_command("REPLICAOF", "NO", "ONE")
    write, read, *failed = spans.get_finished_spans()
    assert (write.name, read.name) == ("MULTI tallymark", "PIPELINE tallymark")
    assert write.attributes == {
        "db.system.name": "redis",
        "db.operation.name": "MULTI",
        "tallymark.store": redis_store.url,
        "db.operation.batch.size": 2,
    }
    assert failed
    assert {span.status.is_ok for span in failed} == {False}
    assert failed[0].attributes is not None
    assert failed[0].attributes["error.type"] == "StoreNotReadyError"
    for span in (write, read):
        assert span.start_time is not None
        assert span.end_time is not None
        assert 0 < span.end_time - span.start_time < 5e9
    data: Any = reader.get_metrics_data()
    found = {
        metric.name: metric.data.data_points
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
    }
    assert sum(point.value for point in found["tallymark.marks"]) == 2
    assert sum(point.value for point in found["tallymark.bytes_sent"]) > 100
    assert sum(point.count for point in found["db.client.operation.duration"]) == 2 + len(failed)


async def test_metrics_without_spans(facade: Facade, redis_store: Store) -> None:
    spans = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    telemetry = OpenTelemetry(MeterProvider(), tracers, spans=False)
    async with facade.open(redis_store.url, observer=telemetry) as tally:
        await tally.mark_event("a", 1)
    assert not spans.get_finished_spans()


def test_without_opentelemetry() -> None:
    program = """
import sys
sys.modules["opentelemetry"] = None
try:
    import tallymark.otel
except ImportError as error:
    print(type(error).__name__, error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert b"MissingExtraError" in ran.stdout
    assert b'pip install "tallymark[otel]"' in ran.stdout
