"""`tallymark.integrations.fastapi` in apps of FastAPI, by its own test client."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator  # noqa: TC003 - FastAPI reads annotations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.requests import HTTPConnection  # noqa: TC002 - FastAPI reads annotations
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient

from servers import running_server
from tallymark import InvalidTypeError, InvalidValueError, MissingExtraError, StoreError, Tally
from tallymark.integrations import _failures
from tallymark.integrations._request_marks import buffer_of
from tallymark.integrations.fastapi import (
    MarkMiddleware,
    TallyDep,
    add_error_handlers,
    get_tally,
    lifespan,
    marks,
    skip_mark,
)

if TYPE_CHECKING:
    from stores import Store

UuidTally = Annotated[Tally[uuid.UUID], Depends(get_tally)]


@pytest.fixture(autouse=True)
def _log_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_failures, "_INTERVAL", 0.0)


def marked(store: Store, event: str) -> set[int]:
    """Return the users of an event."""
    return store.bits().get(f"trackist_{event}_u", set())


def app_on(store: Store, **options: Any) -> FastAPI:
    """Return an app whose marks are flags too: bits without a date."""
    return FastAPI(lifespan=lifespan(store.url, track_unique=True, **options))


async def current_user(request: Request) -> int | None:
    """Return the user in a header, as an app's own authentication would."""
    name = request.headers.get("X-User")
    if name == "locked":
        raise HTTPException(401)
    return None if name is None else int(name)


def as_user(user: object) -> dict[str, str]:
    return {"X-User": str(user)}


# --- lifespan and TallyDep


def test_handlers_get_the_tally(plain_store: Store) -> None:
    app = app_on(plain_store)

    @app.post("/{user}")
    async def login(user: int, tally: TallyDep, request: Request) -> bool:
        assert tally is request.state.tally
        assert tally is request.app.state.tally
        return bool(await tally.mark_event("login", user))

    for first in (True, False):  # a second start of the app has a tally of its own
        with TestClient(app) as client:
            assert client.post("/7").json() is first
            assert client.post("/7").json() is False
    assert marked(plain_store, "login") == {7}


def test_a_lifespan_composes_with_the_apps_own(memory_store: Store) -> None:
    steps = []

    @contextlib.asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, int]]:
        assert not await app.state.tally.count(app.state.tally.day("started"))
        yield {"answer": 42}
        await app.state.tally.mark_event("stopped", 1)
        steps.append("stopped")

    @contextlib.asynccontextmanager
    async def stateless(_: FastAPI) -> AsyncIterator[None]:
        yield
        steps.append("stopped too")

    router = APIRouter(lifespan=stateless)

    @router.get("/")
    async def answer(request: Request, tally: TallyDep) -> int:
        await tally.mark_event("started", 1)
        return int(request.state.answer)

    options = {"app_lifespan": own, "track_unique": True}
    app = FastAPI(lifespan=lifespan(memory_store.url, **options))  # type: ignore[arg-type]
    app.include_router(router)
    with TestClient(app) as client:
        assert client.get("/").json() == 42
    assert steps == ["stopped too", "stopped"]
    assert marked(memory_store, "started") == marked(memory_store, "stopped") == {1}

    bare = FastAPI(lifespan=lifespan(memory_store.url, app_lifespan=stateless))
    with TestClient(bare):
        pass
    assert steps.pop() == "stopped too"


def test_the_error_of_a_start_closes_the_tally_and_is_raised(memory_store: Store) -> None:
    @contextlib.asynccontextmanager
    async def broken(_: FastAPI) -> AsyncIterator[None]:
        raise LookupError("no settings")
        yield

    app = FastAPI(lifespan=lifespan(memory_store.url, app_lifespan=broken))
    with pytest.raises(LookupError, match="no settings"), TestClient(app):
        pass


def test_mounted_apps_use_the_tally(memory_store: Store) -> None:
    app, mounted = app_on(memory_store), FastAPI()
    app.add_middleware(MarkMiddleware, user=lambda _: 2)

    @mounted.get("/")
    async def read(tally: TallyDep) -> None:
        await tally.mark_event("read", 1)

    app.mount("/below", mounted)
    with TestClient(app) as client:
        assert client.get("/below/").is_success
    assert marked(memory_store, "read") == {1}
    assert marked(memory_store, "active") == {2}


def test_the_url_comes_from_the_environment(
    memory_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = FastAPI(lifespan=lifespan())
    monkeypatch.setenv("TALLYMARK_URL", memory_store.url)

    @app.get("/")
    async def mark(tally: TallyDep) -> None:
        await tally.mark_unique("seen", 3)

    with TestClient(app) as client:
        assert client.get("/").is_success
    assert marked(memory_store, "seen") == {3}


@pytest.mark.parametrize(
    ("url", "options"), [("http://:secret@host", {}), ("redis://:secret@host", {"timeout": -1})]
)
def test_a_wrong_url_or_option_is_refused_without_its_text(url: str, options: Any) -> None:
    app = FastAPI(lifespan=lifespan(url, **options))
    with pytest.raises(InvalidValueError) as caught, TestClient(app):
        pass
    assert "secret" not in str(caught.value)
    ours = [entry for entry in caught.traceback if Path(entry.path).name == "_lifespan.py"]
    assert ours
    assert "secret" not in repr([entry.locals for entry in ours])


def test_the_url_of_replicas_is_not_among_the_locals() -> None:
    options: Any = {"read_from": "redis://:secret@replica", "timeout": -1}
    app = FastAPI(lifespan=lifespan("redis://host", **options))
    with pytest.raises(InvalidValueError) as caught, TestClient(app):
        pass
    ours = [entry for entry in caught.traceback if Path(entry.path).name == "_lifespan.py"]
    assert ours
    assert "secret" not in repr([entry.locals for entry in ours])


def test_the_state_of_the_apps_own_lifespan_does_not_replace_the_tally(
    memory_store: Store,
) -> None:
    @contextlib.asynccontextmanager
    async def own(_: FastAPI) -> AsyncIterator[dict[str, str]]:
        yield {"tally": "of another kind"}

    app = FastAPI(lifespan=lifespan(memory_store.url, app_lifespan=own))

    @app.get("/")
    async def read(tally: TallyDep) -> bool:
        return tally is app.state.tally

    with TestClient(app) as client:
        assert client.get("/").json() is True


def test_an_app_without_a_lifespan_is_told_how_to_get_one() -> None:
    app = FastAPI()

    @app.get("/")
    async def read(tally: TallyDep) -> None: ...

    with TestClient(app) as client, pytest.raises(RuntimeError, match="lifespan"):
        client.get("/")


def test_users_with_uuids(memory_store: Store) -> None:
    ada, bo = uuid.uuid4(), uuid.uuid4()
    app = app_on(memory_store, user_ids=uuid.UUID)
    app.add_middleware(MarkMiddleware, user=lambda scope: scope["state"].get("user"))

    @app.get("/{user}")
    async def read(user: uuid.UUID, tally: UuidTally, request: Request) -> list[uuid.UUID]:
        request.state.user = user
        return [each async for each in tally.users(tally.day("active"))]

    with TestClient(app) as client:
        for user in (ada, bo):
            assert client.get(f"/{user}").is_success
    with TestClient(app) as client:
        assert client.get(f"/{ada}").json() == [str(ada), str(bo)]


# --- marks


def test_marks_of_a_route_a_router_and_an_app(plain_store: Store) -> None:
    app = FastAPI(
        lifespan=lifespan(plain_store.url, track_unique=True),
        dependencies=[marks("any", user=current_user)],
    )
    router = APIRouter(prefix="/shop", dependencies=[marks("shop", user=current_user)])

    @app.get("/plain", dependencies=[marks("plain", user=lambda: 77)])
    def plain() -> str:  # FastAPI calls it in a thread
        return "plain"

    @router.get("/item", dependencies=[marks(lambda request: request.url.path, user=current_user)])
    async def item() -> str:
        return "item"

    app.include_router(router)
    with TestClient(app) as client:
        assert client.get("/plain", headers=as_user(1)).json() == "plain"
        assert client.get("/shop/item", headers=as_user(2)).json() == "item"
        assert client.get("/shop/item").json() == "item"  # anonymous
    assert marked(plain_store, "any") == {1, 2}
    assert marked(plain_store, "shop") == marked(plain_store, "/shop/item") == {2}
    assert marked(plain_store, "plain") == {77}


def test_marks_of_an_app_and_a_router_leave_websockets_alone(memory_store: Store) -> None:
    async def user_of(connection: HTTPConnection) -> int:
        return int(connection.headers["X-User"])

    app = FastAPI(
        lifespan=lifespan(memory_store.url, track_unique=True),
        dependencies=[marks("any", user=user_of)],
    )
    router = APIRouter(dependencies=[marks(lambda request: request.method, user=user_of)])

    @router.get("/")
    async def read() -> str:
        return "read"

    @router.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    app.include_router(router)
    with TestClient(app) as client:
        with client.websocket_connect("/socket", headers=as_user(1)) as connection:
            assert connection.receive_text() == "hello"
        assert client.get("/", headers=as_user(2)).json() == "read"
    assert marked(memory_store, "any") == marked(memory_store, "GET") == {2}


def test_marks_only_when_the_handler_returns(memory_store: Store) -> None:
    app = app_on(memory_store)
    dependencies = [marks("read", user=current_user)]

    @app.get("/missing", dependencies=dependencies)
    async def missing() -> None:
        raise HTTPException(404)

    @app.get("/broken", dependencies=dependencies)
    async def broken() -> None:
        raise LookupError

    @app.get("/private", dependencies=dependencies)
    async def private(request: Request) -> None:
        skip_mark(request)

    @app.get("/typed/{number}", dependencies=dependencies)
    async def typed(number: int) -> JSONResponse:
        return JSONResponse(number)

    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/missing", headers=as_user(1)).status_code == 404
        assert client.get("/broken", headers=as_user(2)).status_code == 500
        assert client.get("/private", headers=as_user(3)).status_code == 200
        assert client.get("/typed/x", headers=as_user(4)).status_code == 422
        assert client.get("/typed/5", headers=as_user("locked")).status_code == 401
        assert client.get("/typed/5", headers=as_user(5)).json() == 5
    assert marked(memory_store, "read") == {5}


def test_marks_of_a_stream_do_not_wait_for_its_end(memory_store: Store) -> None:
    app = app_on(memory_store)
    seen = []

    @app.get("/", dependencies=[marks("read", user=lambda: 1)])
    async def stream(tally: TallyDep) -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            for chunk in "abc":
                await buffer_of(tally).flush()
                seen.append(await tally.contains(tally.unique("read"), 1))
                yield chunk

        return StreamingResponse(chunks())

    with TestClient(app) as client:
        assert client.get("/").text == "abc"
    assert seen == [True, True, True]


def test_tests_replace_the_user_and_the_tally(memory_store: Store) -> None:
    app = FastAPI()  # no lifespan: each test brings its tally

    @app.get("/", dependencies=[marks("read", user=current_user)])
    async def read(tally: TallyDep) -> int:
        return await tally.count(tally.day("read"))

    async def tally_of_the_test() -> AsyncIterator[Tally]:
        async with Tally.from_url(memory_store.url, track_unique=True) as tally:
            yield tally

    app.dependency_overrides[current_user] = lambda: 8
    app.dependency_overrides[get_tally] = tally_of_the_test
    client = TestClient(app)
    assert [client.get("/").json() for _ in range(2)] == [0, 1]
    assert marked(memory_store, "read") == {8}


@pytest.mark.parametrize(
    ("event", "user", "message"),
    [
        ("read", -1, "user id must be in"),
        (lambda _: "", 1, "event must"),
        (lambda request: request.missing, 1, "missing"),
    ],
)
def test_a_mark_that_is_refused_is_logged(
    event: Any, user: int, message: str, memory_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_on(memory_store)

    @app.get("/", dependencies=[marks(event, user=lambda: user)])
    async def read() -> str:
        return "read"

    with TestClient(app) as client:
        assert client.get("/").json() == "read"
    assert message in caplog.text


def test_events_that_cannot_be_marked_are_refused_at_once() -> None:
    async def unawaited(_: Request) -> str:
        return "read"

    with pytest.raises(InvalidValueError):
        marks("\n", user=current_user)
    with pytest.raises(InvalidTypeError, match="async"):
        marks(unawaited, user=current_user)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_the_schema_does_not_show_the_dependency(memory_store: Store) -> None:
    app = app_on(memory_store)

    @app.get("/", dependencies=[marks("read", user=current_user)])
    async def read(tally: TallyDep) -> None: ...

    assert "parameters" not in app.openapi()["paths"]["/"]["get"]


# --- errors


def test_errors_of_arguments_and_of_the_store(caplog: pytest.LogCaptureFixture) -> None:
    with running_server("--requirepass", "right") as url:
        refused_url = url.replace("redis://", "redis://:wrong-password@")
        app = FastAPI(lifespan=lifespan(refused_url))
        add_error_handlers(app)

        @app.get("/stats/{event}")
        async def stats(event: str, tally: TallyDep) -> int:
            return await tally.count(tally.day(event))

        @app.get("/users/{user}")
        async def users(user: str, tally: TallyDep) -> None:
            await tally.mark_event("active", user)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

        with TestClient(app) as client:
            response = client.get("/stats/%0A")
            assert (response.status_code, "control" in response.json()["detail"]) == (422, True)
            response = client.get("/users/ada")
            assert (response.status_code, "int" in response.json()["detail"]) == (422, True)
            response = client.get("/stats/active")
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert response.json() == {"detail": "events are not available at the moment"}
    assert "a request was answered with 503: " in caplog.text
    assert "wrong-password" not in caplog.text


def test_other_errors_are_the_apps(memory_store: Store) -> None:
    app = app_on(memory_store)
    add_error_handlers(app)

    @app.get("/")
    async def broken() -> None:
        raise MissingExtraError("numpy")

    with TestClient(app) as client, pytest.raises(MissingExtraError):
        client.get("/")
    assert StoreError in app.exception_handlers


def test_a_lifespan_of_the_apps_own_opens_the_tally(memory_store: Store) -> None:
    @contextlib.asynccontextmanager
    async def opened(app: FastAPI) -> AsyncIterator[None]:
        async with Tally.from_url(memory_store.url, track_unique=True) as app.state.tally:
            yield

    app = FastAPI(lifespan=opened)
    app.add_middleware(MarkMiddleware, user=lambda _: 3, event="read")

    @app.get("/")
    async def read(tally: TallyDep) -> bool:
        return tally is app.state.tally

    with TestClient(app) as client:
        assert client.get("/").json() is True
    assert marked(memory_store, "read") == {3}
