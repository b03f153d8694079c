"""The recipes for task queues in real workers, which are stopped, killed, and have no store."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from worker_programs import (
    COMMANDS,
    PROGRAMS,
    assert_all_marked,
    assert_paid,
    queued,
    stoppable_store,
)

if TYPE_CHECKING:
    from pathlib import Path

    from worker_programs import Programs

    from stores import Store


@dataclass(frozen=True)
class Queue:
    """A task queue of the page.

    Attributes:
        package: its package, and the command of the page that starts its worker.
        options: further arguments of that command.
        ready: what its worker logs when it can be stopped.
        stopping: what its worker logs as it is asked to end.
        at_once: how many tasks its worker begins before one has ended, at least.
        send: a program that sends all of ``EVENTS``.
        sooner: a pattern in its program, and what makes it deliver again sooner.
    """

    package: str
    ready: str
    stopping: str
    send: str
    options: tuple[str, ...] = ()
    at_once: int = 1
    sooner: tuple[str, str] = ("", "")

    @property
    def program(self) -> str:
        """The name of the program with the task."""
        return "faststream_app.py" if self.package == "faststream" else f"{self.package}_tasks.py"


#: A lone worker need not look for others. Celery may wait for ever for a task that it has taken,
#: but not yet given to a child, as it is asked to end; so each child has its task by then.
CELERY = (
    "--without-mingle",
    "--without-gossip",
    "--without-heartbeat",
    "-c",
    "2",
    "--prefetch-multiplier",
    "1",
    "-l",
    "info",
)
ASYNC = """\
import asyncio

from events import EVENTS
{imports}


async def main():
    {before}
    for event in EVENTS:
        await {send}
    {after}


asyncio.run(main())
"""
CELERY_SOONER = ("retry_backoff=True", r"\g<0>, retry_jitter=False")
CELERY_SENDS = """\
from celery_tasks import mark
from events import EVENTS

for event in EVENTS:
    mark.delay(*event)
"""
QUEUES = {
    "celery-prefork": Queue(
        "celery",
        ready="ready.",
        stopping="Warm shutdown",
        send=CELERY_SENDS,
        options=CELERY,
        at_once=2,
        sooner=CELERY_SOONER,
    ),
    "celery-threads": Queue(
        "celery",
        ready="ready.",
        stopping="Warm shutdown",
        send=CELERY_SENDS,
        options=(*CELERY, "-P", "threads"),
        at_once=2,
        sooner=CELERY_SOONER,
    ),
    "arq": Queue(
        "arq",
        ready="Starting worker",
        stopping="shutdown on SIGTERM",
        send=ASYNC.format(
            imports="from arq import create_pool\nfrom arq_tasks import WorkerSettings",
            before="queue = await create_pool(WorkerSettings.redis_settings)",
            send='queue.enqueue_job("mark", *event)',
            after="await queue.aclose()",
        ),
        sooner=("^    max_tries", r"    job_timeout = 1\n\g<0>"),
    ),
    "taskiq": Queue(
        "taskiq",
        ready="Listening started",
        stopping="Workers are scheduled for shutdown",
        send=ASYNC.format(
            imports="from taskiq_tasks import broker, mark",
            before="await broker.startup()",
            send="mark.kiq(*event)",
            after="await broker.shutdown()",
        ),
        options=("--workers", "1"),
        sooner=('consumer_id="0"', r"\g<0>, idle_timeout=1000, xread_block=500"),
    ),
    "faststream": Queue(
        "faststream",
        ready="started successfully",
        stopping="shutting down",
        send=ASYNC.format(
            imports="from faststream_app import Event, broker",
            before="await broker.connect()",
            send='broker.publish(Event(**dict(zip(Event.model_fields, event))), stream="events")',
            after="await broker.stop()",
        ),
        sooner=("60_000", "1000"),
    ),
}
PAID = "end-order:paid-7"


@pytest.fixture(params=QUEUES)
def queue(request: pytest.FixtureRequest) -> Queue:
    return QUEUES[request.param]


def prepare(queue: Queue, programs: Programs) -> None:
    """Send the event of the page; before, create the group of the stream that it joins."""
    programs.announce(queue.program)
    programs.change(queue.program, *queue.sooner)
    if queue.package == "faststream":
        programs.broker.xgroup_create("events", "marks", id="0", mkstream=True)
    programs.run(f"{queue.package}_producer.py")


def test_no_mark_is_lost_at_a_clean_stop(queue: Queue, tmp_path: Path) -> None:
    with (
        stoppable_store() as (server, store),
        queued(tmp_path, queue.package, server.url) as programs,
    ):
        prepare(queue, programs)
        programs.run("send_all.py", queue.send)
        server.start()
        server.freeze()
        with programs.worker(queue.package, *queue.options) as worker:
            worker.wait_for("begin-.*", queue.at_once)
            worker.terminate()
            worker.wait_for(queue.stopping)
            server.thaw()
            worker.end()
            done = worker.found("end-.*")
        with programs.worker(queue.package, *queue.options) as worker:
            worker.wait_for(queue.ready)
            worker.wait_for("end-.*", 201, before=done)
            worker.stop()
        assert_all_marked(store)


@pytest.mark.parametrize("name", ["arq", "taskiq", "faststream"])
def test_a_task_of_a_killed_worker_is_delivered_again(name: str, tmp_path: Path) -> None:
    queue = QUEUES[name]
    with (
        stoppable_store() as (server, store),
        queued(tmp_path, queue.package, server.url) as programs,
    ):
        prepare(queue, programs)
        server.start()
        server.freeze()
        with programs.worker(queue.package, *queue.options) as worker:
            worker.wait_for("begin-")
            worker.kill()
        server.thaw()
        assert store.bits() == {}
        programs.run("send_all.py", queue.send)
        with programs.worker(queue.package, *queue.options) as worker:
            worker.wait_for("end-.*", 201)
            worker.stop()
        assert_all_marked(store)


def test_a_task_waits_for_the_store(queue: Queue, tmp_path: Path) -> None:
    with (
        stoppable_store() as (server, store),
        queued(tmp_path, queue.package, server.url) as programs,
    ):
        programs.change(queue.program, r'(Tally.from_url\(".*?")[^)]*', r"\1, timeout=0.2")
        prepare(queue, programs)
        with programs.worker(queue.package, *queue.options) as worker:
            worker.wait_for("[Rr]etry|StoreUnavailableError")
            server.start()
            worker.wait_for(PAID)
            worker.stop()
        assert_paid(store.bits())


def test_a_task_of_a_killed_child_of_celery_is_delivered_again(tmp_path: Path) -> None:
    with stoppable_store() as (server, store), queued(tmp_path, "celery", server.url) as programs:
        programs.change(  # the child says who it is, and that it marks now
            "celery_tasks.py", "^    tally", r"    import os; print(f'child-{os.getpid()}')\n\g<0>"
        )
        programs.announce("celery_tasks.py")
        programs.run("celery_producer.py")
        server.start()
        server.freeze()
        with programs.worker("celery", *CELERY) as worker:
            (child,) = worker.wait_for(r"child-(\d+)")
            os.kill(int(child), signal.SIGKILL)
            worker.wait_for(r"child-(\d+)", 2)
            server.thaw()
            worker.wait_for(PAID)
            worker.stop()
        assert_paid(store.bits())


def test_celery_does_not_retry_what_is_refused(tmp_path: Path, redis_store: Store) -> None:
    with queued(tmp_path, "celery", redis_store.url) as programs:
        programs.run("refused.py", "from celery_tasks import mark\nmark.delay('active', -1, None)")
        with programs.worker("celery", *CELERY) as worker:
            worker.wait_for(r"mark\[.*\] raised unexpected: InvalidValueError")
            worker.stop()
        assert "Retry in" not in worker.log


INVOICES = """\
from celery_invoices import send_invoice

for user in range(100):
    send_invoice.delay(user)
"""


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_celery_closes_its_buffers_at_a_clean_stop(pool: str, tmp_path: Path) -> None:
    with stoppable_store() as (server, store), queued(tmp_path, "celery", server.url) as programs:
        programs.change("celery_invoices.py", "^    buffer.close", r"    print('closing')\n\g<0>")
        programs.run("celery_tasks.py", "from celery_invoices import app")  # the worker's module
        programs.run("send_all.py", INVOICES)
        server.start()
        server.freeze()
        with programs.worker("celery", *CELERY, "-P", pool) as worker:
            worker.wait_for(r"send_invoice\[.*\] succeeded", 100)
            worker.terminate()
            worker.wait_for("closing" if pool == "prefork" else "Warm shutdown")
            server.thaw()
            worker.end()
        users = list(store.bits().values())
        assert users == [set(range(100))] * 3


def test_a_task_of_celery_with_a_buffer_does_not_need_the_store(tmp_path: Path) -> None:
    with stoppable_store() as (server, _), queued(tmp_path, "celery", server.url) as programs:
        programs.run("celery_tasks.py", "from celery_invoices import app")
        programs.run("send_all.py", INVOICES)
        with programs.worker("celery", *CELERY, "-P", "threads") as worker:
            worker.wait_for(r"send_invoice\[.*\] succeeded", 100)
            worker.stop()
        assert "marks have failed" in worker.log


def test_faststream_in_the_process(tmp_path: Path, redis_store: Store) -> None:
    with queued(tmp_path, "faststream", redis_store.url) as programs:
        programs.run("faststream_test.py")
        assert programs.broker.keys() == []
    assert_paid(redis_store.bits())


def test_taskiq_in_the_process(tmp_path: Path, redis_store: Store) -> None:
    with queued(tmp_path, "taskiq", redis_store.url) as programs:
        programs.change(
            "taskiq_tasks.py", "RedisStreamBroker\\([^)]*\\)", "InMemoryBroker(await_inplace=True)"
        )
        programs.change("taskiq_tasks.py", "^from taskiq import", r"\g<0> InMemoryBroker,")
        programs.run("taskiq_producer.py")
        assert programs.broker.keys() == []
    assert_paid(redis_store.bits())


def test_every_program_of_the_page_is_run_here() -> None:
    producers = {f"{queue.package}_producer.py" for queue in QUEUES.values()}
    tasks = {queue.program for queue in QUEUES.values()}
    assert set(PROGRAMS) == producers | tasks | {"celery_invoices.py", "faststream_test.py"}
    assert set(COMMANDS) == {queue.package for queue in QUEUES.values()}
