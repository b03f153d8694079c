"""docs/how-to/sqlalchemy.md: what is marked when transactions and savepoints end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import create_engine, event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from documents import DOCUMENTS, READERS_URL, fences
from servers import RedisProcess, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine
    from sqlalchemy.orm import SessionTransaction

    from stores import Store

PROGRAM = fences(DOCUMENTS["docs/how-to/sqlalchemy.md"])[0].content


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    user_id: Mapped[int] = mapped_column(primary_key=True)


@contextlib.contextmanager
def page(url: str) -> Iterator[dict[str, Any]]:
    """Yield the names of the page's module, for a store."""
    names: dict[str, Any] = {}
    exec(PROGRAM.replace(READERS_URL, url), names)
    try:
        yield names
    finally:
        event.remove(Session, "after_commit", names["send_marks"])
        names["buffer"].close()
        names["tally"].close()


def prepared(engine: Engine) -> Engine:
    """Return an engine of SQLite that begins transactions, and so has right savepoints."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # else the driver begins them, later than it should

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = prepared(create_engine("sqlite://"))
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def marked(store: Store, name: str) -> set[int]:
    """Return the users of an event: the days', should one end meanwhile."""
    days = [users for key, users in store.bits().items() if key.startswith(f"trackist_{name}_2")]
    return set().union(*days)


STEPS = st.sampled_from(["add", "add", "fail", "begin", "release", "undo", "commit", "rollback"])


def run(session: Session, steps: list[str], mark: Any) -> set[int]:
    """Add rows, and mark their users, in some transactions; return the users that have a row."""
    users = itertools.count(1)
    savepoints: list[SessionTransaction] = []
    for step in steps:
        if step == "add":
            user = next(users)
            session.add(Order(user_id=user))
            session.flush()
            mark(session, user)
        elif step == "fail":
            user = next(users)
            mark(session, user)
            session.add_all([Order(user_id=user), Order(user_id=user)])
            with pytest.raises(IntegrityError):
                session.flush()
            (savepoints.pop() if savepoints else session).rollback()
        elif step == "begin":
            savepoints.append(session.begin_nested())
        elif step in {"release", "undo"} and savepoints:
            savepoint = savepoints.pop()
            savepoint.commit() if step == "release" else savepoint.rollback()
        elif step in {"commit", "rollback"}:
            session.commit() if step == "commit" else session.rollback()
            savepoints.clear()
    session.rollback()
    return set(session.scalars(select(Order.user_id)))


@pytest.mark.parametrize("facade", ["Session", "AsyncSession"])
def test_the_users_of_committed_rows_are_marked(facade: str, memory_store: Store) -> None:
    numbers = itertools.count()

    async def run_async(steps: list[str], mark: Any) -> set[int]:
        engine = create_async_engine("sqlite+aiosqlite://")
        prepared(engine.sync_engine)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            users = await session.run_sync(run, steps, mark)
        await engine.dispose()
        return users

    def run_sync(steps: list[str], mark: Any) -> set[int]:
        engine = prepared(create_engine("sqlite://"))
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            users = run(session, steps, mark)
        engine.dispose()
        return users

    with page(memory_store.url) as names:

        @example(["begin", "add", "undo", "commit"])
        @example(["begin", "add", "release", "rollback"])
        @example(["begin", "add", "begin", "add", "release", "undo", "commit"])
        @example(["begin", "fail", "add", "commit"])
        @given(st.lists(STEPS, min_size=5, max_size=25))
        def check(steps: list[str]) -> None:
            name = f"order{next(numbers)}"

            def mark(session: Session, user: int) -> None:
                names["mark_after_commit"](session, name, user)

            if facade == "Session":
                users = run_sync(steps, mark)
            else:
                users = asyncio.run(run_async(steps, mark))
            names["buffer"].flush()
            assert marked(memory_store, name) == users

        check()
        gc.collect()
        assert not names["marks_of"]  # also those of what was rolled back


def test_a_commit_does_not_wait_for_the_store(engine: Engine) -> None:
    with running(RedisProcess()) as server, page(server.url) as names:
        server.freeze()
        with Session(engine) as session:
            names["mark_after_commit"](session, "order", 1)
            session.commit()
        assert names["buffer"].stats().waiting == 1
        server.thaw()
        names["buffer"].flush()
        assert names["buffer"].stats().sent == 1


def test_an_id_that_is_refused_does_not_break_the_commit(
    engine: Engine, memory_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with page(memory_store.url) as names, Session(engine) as session:
        session.add(Order(user_id=1))
        for user in (-1, 1):
            names["mark_after_commit"](session, "order", user)
        session.commit()
        names["buffer"].flush()
        assert list(session.scalars(select(Order.user_id))) == [1]
    assert caplog.messages == ["not marked: order of -1"]
    assert marked(memory_store, "order") == {1}


def test_sessions_in_threads(memory_store: Store) -> None:
    with page(memory_store.url) as names:

        def work(first: int) -> None:
            engine = create_engine("sqlite://")
            with Session(engine) as session:
                for user in range(first, first + 200):
                    names["mark_after_commit"](session, "order", user)
                    session.commit() if user % 2 else session.rollback()
            engine.dispose()

        threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 800, 200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        names["buffer"].flush()
    assert marked(memory_store, "order") == set(range(1, 800, 2))
