"""`MarkMiddleware`: which requests it marks, and that it changes nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, cast

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.responses import PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, httpx  # type: ignore[attr-defined]  # pyright: ignore[reportPrivateImportUsage]
from starlette.websockets import WebSocket, WebSocketDisconnect

from servers import free_port
from tallymark import InvalidTypeError, InvalidValueError, Tally
from tallymark.integrations import _failures
from tallymark.integrations._request_marks import buffer_of
from tallymark.integrations.asgi import MarkMiddleware, lifespan, skip_mark

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request

    from stores import Store

Scope = Any


def marked(store: Store, event: str = "active") -> set[int]:
    """Return the users of an event."""
    return store.bits().get(f"trackist_{event}_u", set())


def user_of(scope: Scope) -> int | None:
    """Return the user in a header, as an app's own authentication would."""
    header = dict(scope["headers"]).get(b"x-user")
    return None if header is None else int(header)


async def text(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def no_such(_: Request) -> PlainTextResponse:
    return PlainTextResponse("no", 404)


async def moved(_: Request) -> RedirectResponse:
    return RedirectResponse("/text")


async def private(request: Request) -> PlainTextResponse:
    skip_mark(request)
    return PlainTextResponse("private")


async def broken(_: Request) -> PlainTextResponse:
    raise LookupError("a bug")


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        await websocket.send_text(await websocket.receive_text())
        await websocket.receive_text()


async def refusing_socket(websocket: WebSocket) -> None:
    await websocket.close()


ROUTES = [
    Route("/text", text, methods=["GET", "POST"]),
    Route("/missing", no_such),
    Route("/moved", moved),
    Route("/private", private),
    Route("/broken", broken),
    Mount("/shop", routes=[Route("/items/{item}", text)]),
    WebSocketRoute("/socket", socket),
    WebSocketRoute("/refusing", refusing_socket),
]


def starlette(store: Store, *, routes: Any = ROUTES, **options: Any) -> Starlette:
    """Return an app whose requests are marked, with flags: bits without a date."""
    options.setdefault("user", user_of)
    return Starlette(
        routes=routes,
        lifespan=lifespan(store.url, track_unique=True),
        middleware=[Middleware(MarkMiddleware, **options)],
    )


@contextlib.contextmanager
def client_of(app: Starlette, **options: Any) -> Iterator[TestClient]:
    with TestClient(app, follow_redirects=False, **options) as client:
        yield client


@pytest.fixture(autouse=True)
def _log_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_failures, "_INTERVAL", 0.0)


# --- what is marked


def test_answered_requests_of_known_users_are_marked(plain_store: Store) -> None:
    with client_of(starlette(plain_store)) as client:
        for user, (method, path, status) in enumerate(
            [
                ("GET", "/text", 200),
                ("HEAD", "/text", 200),
                ("POST", "/text", 200),
                ("GET", "/moved", 307),
                ("GET", "/missing", 404),
                ("GET", "/nowhere", 404),
                ("DELETE", "/text", 405),
                ("GET", "/private", 200),
            ]
        ):
            response = client.request(method, path, headers={"X-User": str(user)})
            assert response.status_code == status
        assert client.get("/text").text == "hello"  # anonymous
    assert marked(plain_store) == {0, 1, 2, 3}


def test_an_app_that_raises_before_its_response_is_not_marked(memory_store: Store) -> None:
    inside = starlette(memory_store, when=lambda _, __: True)
    with client_of(inside) as client, pytest.raises(LookupError, match="a bug"):
        client.get("/broken", headers={"X-User": "1"})
    # Outside of the middleware that makes the response 500, that one is seen.
    outside = Starlette(routes=ROUTES, lifespan=lifespan(memory_store.url, track_unique=True))
    with TestClient(MarkMiddleware(outside, user=user_of), raise_server_exceptions=False) as client:
        assert client.get("/broken", headers={"X-User": "2"}).status_code == 500
        assert client.get("/text", headers={"X-User": "3"}).status_code == 200
    assert marked(memory_store) == {3}


def test_when_sees_the_scope_and_the_status(memory_store: Store) -> None:
    seen = []

    def when(scope: Scope, status: int) -> bool:
        seen.append((scope["method"], scope["path"], status))
        return status == 404

    with client_of(starlette(memory_store, when=when)) as client:
        client.get("/text", headers={"X-User": "1"})
        client.get("/missing", headers={"X-User": "2"})
    assert seen == [("GET", "/text", 200), ("GET", "/missing", 404)]
    assert marked(memory_store) == {2}


def test_events_by_route(memory_store: Store) -> None:
    def event(scope: Scope) -> str | None:
        route = scope.get("route")
        return f"view:{route.path}" if isinstance(route, Route) else None

    with client_of(starlette(memory_store, event=event)) as client:
        assert client.get("/text", headers={"X-User": "1"}).is_success
        assert client.get("/shop/items/7", headers={"X-User": "2"}).is_success
    names = {key.removesuffix("_u") for key in memory_store.bits() if key.endswith("_u")}
    assert names == {"trackist_view:/text", "trackist_view:/items/{item}"}


def test_users_of_starlettes_authentication(memory_store: Store) -> None:
    class Backend(AuthenticationBackend):
        async def authenticate(self, conn: Any) -> Any:
            await asyncio.sleep(0)
            name = conn.headers.get("X-User")
            return None if name is None else (AuthCredentials(), SimpleUser(name))

    def user(scope: Scope) -> int | None:
        return int(scope["user"].username) if scope["user"].is_authenticated else None

    app = starlette(memory_store, user=user)
    app.user_middleware.append(Middleware(AuthenticationMiddleware, backend=Backend()))
    with client_of(app) as client:
        assert client.get("/text").is_success
        assert client.get("/text", headers={"X-User": "5"}).is_success
    assert marked(memory_store) == {5}


def test_two_middlewares_mark_two_events_or_none(memory_store: Store) -> None:
    app = starlette(memory_store)
    app.add_middleware(MarkMiddleware, user=user_of, event="other")
    with client_of(app) as client:
        client.get("/text", headers={"X-User": "1"})
        client.get("/private", headers={"X-User": "2"})
    assert marked(memory_store) == marked(memory_store, "other") == {1}


def test_a_stream_is_marked_once_and_at_its_start(memory_store: Store) -> None:
    seen: list[set[int]] = []

    async def stream(request: Request) -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            for chunk in "abc":
                await buffer_of(request.state.tally).flush()
                seen.append(marked(memory_store))
                yield chunk

        return StreamingResponse(chunks())

    calls: list[int] = []
    app = starlette(
        memory_store,
        routes=[Route("/stream", stream)],
        when=lambda _, status: not calls.append(status),  # type: ignore[func-returns-value]
    )
    with client_of(app) as client:
        assert client.get("/stream", headers={"X-User": "9"}).text == "abc"
    assert seen[-1] == {9}
    assert calls == [200]


def test_websockets_are_marked_on_request_when_they_are_accepted(memory_store: Store) -> None:
    statuses = []

    def when(_: Scope, status: int) -> bool:
        statuses.append(status)
        return True

    choices: list[dict[str, Any]] = [{}, {"websockets": True}, {"websockets": True, "when": when}]
    for user, options in enumerate(choices):
        with (
            client_of(starlette(memory_store, **options)) as client,
            client.websocket_connect("/socket", headers={"X-User": str(user)}) as connection,
        ):
            connection.send_text("echo")
            assert connection.receive_text() == "echo"
    app = starlette(memory_store, websockets=True)
    with client_of(app) as client, pytest.raises(WebSocketDisconnect):
        client.websocket_connect("/refusing", headers={"X-User": "7"}).__enter__()
    assert marked(memory_store) == {1, 2}
    assert statuses == [101]


# --- errors never reach the response


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user": lambda _: -1}, "user id must be in"),
        ({"user": lambda _: "ada"}, "user id must be an int"),
        ({"user": lambda scope: scope["user"]}, "'user'"),
        ({"event": lambda _: "\n"}, "control characters"),
        ({"event": lambda scope: scope["route"].name.missing}, "missing"),
        ({"when": lambda _, __: 1 / 0}, "division by zero"),
        ({"tally": lambda _: None}, "must return a tally"),
    ],
)
def test_what_functions_do_is_logged(
    options: dict[str, Any], message: str, memory_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with client_of(starlette(memory_store, **options)) as client:
        assert client.get("/text", headers={"X-User": "1"}).text == "hello"
    assert marked(memory_store) == set()
    (record,) = [each for each in caplog.records if each.name == "tallymark.integrations"]
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("a request was not marked: ")
    assert re.search(message, record.getMessage())


def test_an_app_without_a_tally_is_told_how_to_open_one(caplog: pytest.LogCaptureFixture) -> None:
    app = Starlette(routes=ROUTES, middleware=[Middleware(MarkMiddleware, user=user_of)])
    with client_of(app) as client:
        assert client.get("/text", headers={"X-User": "1"}).text == "hello"
    assert "lifespan" in caplog.text


def test_messages_are_few(
    memory_store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = log_of_an_hour(monkeypatch)
    with client_of(starlette(memory_store, user=lambda _: -1)) as client:
        for _ in range(5):
            client.get("/text")
        log._silent_until.clear()
        client.get("/text")
    first, second = [each for each in caplog.messages if each.startswith("a request was not")]
    assert "more" not in first
    assert second.endswith("(and 4 more, not logged)")


def test_each_kind_of_failure_is_logged_and_the_rest_at_the_shutdown(
    memory_store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log_of_an_hour(monkeypatch)

    def user(scope: Scope) -> Any:
        number = user_of(scope)
        if number == 1:
            raise LookupError("a bug")
        if number == 2:
            raise LookupError("another bug")
        if number == 3:
            raise ArithmeticError("a bug of another class")
        return "ada" if number == 4 else -1

    with client_of(starlette(memory_store, user=user)) as client:
        for number in [0, 1, 2, 3, 4] * 3:
            assert client.get("/text", headers={"X-User": str(number)}).text == "hello"
        records = [each for each in caplog.records if each.name == "tallymark.integrations"]
        assert len(records) == 5
        assert [each.exc_info is not None for each in records] == [False, True, True, True, False]
    rest = [each.getMessage() for each in caplog.records if each.name == "tallymark.integrations"]
    assert len(rest) == 10
    assert all(each.startswith("a request was not marked: 2 more, ") for each in rest[5:])
    assert "2 more, InvalidValueError" in rest[5]
    assert re.search(r"2 more, LookupError at .*test_mark_middleware\.py:\d+$", rest[6])


def test_the_end_of_the_process_logs_the_rest() -> None:
    program = (
        "import logging\n"
        "from tallymark.integrations._failures import LoggedFailures\n"
        "logging.basicConfig()\n"
        "log = LoggedFailures('not marked')\n"
        "for _ in range(3): log.log(LookupError('a bug'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "not marked: a bug" in done.stderr
    assert "not marked: 2 more, LookupError" in done.stderr


def test_the_kinds_of_failures_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = log_of_an_hour(monkeypatch)
    for number in range(500):
        log.log(type(f"Error{number}", (Exception,), {})())
    assert len(log._silent_until) == _failures._MOST_KINDS + 1
    assert len(caplog.records) == _failures._MOST_KINDS + 1
    log.log_the_rest()
    assert caplog.messages[-1] == "a request was not marked: 399 more, other errors"


def test_a_logging_handler_that_raises_does_not_break_the_response(
    memory_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    def raising(_: logging.LogRecord) -> bool:
        raise OSError("no space for logs")

    logger = logging.getLogger("tallymark.integrations")
    logger.addFilter(raising)
    try:
        with client_of(starlette(memory_store, user=lambda _: -1)) as client:
            assert client.get("/text").text == "hello"
    finally:
        logger.removeFilter(raising)
    assert "no space for logs" in capsys.readouterr().err


def log_of_an_hour(monkeypatch: pytest.MonkeyPatch) -> _failures.LoggedFailures:
    """Return the log of marks: one message in an hour of each kind."""
    monkeypatch.setattr(_failures, "_INTERVAL", 3600.0)
    log = _failures.LoggedFailures("a request was not marked")
    monkeypatch.setattr("tallymark.integrations._request_marks.failures", log)
    return log


async def unawaited(_: Scope) -> None: ...


class CallableAsync:
    async def __call__(self, _: Scope) -> None: ...


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"user": unawaited}, InvalidTypeError),
        ({"user": CallableAsync()}, InvalidTypeError),
        ({"user": 7}, InvalidTypeError),
        ({"when": unawaited}, InvalidTypeError),
        ({"event": unawaited}, InvalidTypeError),
        ({"event": ""}, InvalidValueError),
        ({"event": None}, InvalidTypeError),
        ({"tally": "redis://localhost"}, InvalidTypeError),
    ],
)
def test_what_cannot_work_is_refused_at_once(options: dict[str, Any], error: Any) -> None:
    with pytest.raises(error):
        MarkMiddleware(Starlette(), **{"user": user_of, **options})


# --- where the tally comes from


async def test_a_given_tally_without_a_lifespan(memory_store: Store) -> None:
    async with Tally.from_url(memory_store.url, track_unique=True) as tally:
        app = MarkMiddleware(Starlette(routes=ROUTES), tally=tally, user=user_of)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://app"
        ) as client:
            for user in range(50):
                response = await client.get("/text", headers={"X-User": str(user)})
                assert response.text == "hello"
    assert marked(memory_store) == set(range(50))  # closing the tally has flushed


async def test_the_shutdown_of_an_app_flushes_a_tally_that_stays_open(
    redis_store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log_of_an_hour(monkeypatch)
    async with Tally.from_url(redis_store.url, track_unique=True) as tally:
        app = MarkMiddleware(Starlette(routes=ROUTES), tally=tally, user=user_of)
        messages = asyncio.Queue[dict[str, str]]()
        sent = asyncio.Queue[Any]()
        running = asyncio.create_task(app({"type": "lifespan"}, messages.get, sent.put))
        await messages.put({"type": "lifespan.startup"})
        assert (await sent.get())["type"] == "lifespan.startup.complete"
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            for user in range(50):
                await client.get("/text", headers={"X-User": str(user)})
            for _ in range(3):
                await client.get("/text", headers={"X-User": "-1"})
        await messages.put({"type": "lifespan.shutdown"})
        assert (await sent.get())["type"] == "lifespan.shutdown.complete"
        await running
        assert marked(redis_store) == set(range(50))
    assert caplog.messages[-1] == "a request was not marked: 2 more, InvalidValueError"


def test_a_tally_by_scope(memory_store: Store) -> None:
    app = starlette(memory_store, tally=lambda scope: scope["app"].state.tally)
    with client_of(app) as client:
        client.get("/text", headers={"X-User": "1"})
    assert marked(memory_store) == {1}


# --- nothing else changes


class FailedError(Exception):
    pass


async def plain(scope: Scope, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 201, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": body})


async def streaming(scope: Scope, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
    for _ in range(3):
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
    await send({"type": "http.response.body"})
    await send({"type": "http.response.trailers", "headers": []})


async def hinting(scope: Scope, receive: Any, send: Any) -> None:
    await send({"type": "http.response.early_hint", "links": [b"</a>"]})
    await plain(scope, receive, send)


async def failing_first(scope: Scope, receive: Any, send: Any) -> None:
    raise FailedError


async def failing_later(scope: Scope, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise FailedError


async def waiting_for_disconnect(scope: Scope, receive: Any, send: Any) -> None:
    await plain(scope, receive, send)
    assert (await receive())["type"] == "http.disconnect"


async def silent(scope: Scope, receive: Any, send: Any) -> None:
    """Return without a response: the server makes a 500 of it."""


in_background = PlainTextResponse("later", background=BackgroundTask(lambda: None))


async def run(app: Any, scope: Scope) -> tuple[list[Any], BaseException | None]:
    """Return what an app sends, and how it ends."""
    incoming = [{"type": "http.request", "body": b"abc"}, {"type": "http.disconnect"}]
    sent = []

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        await app(scope, receive, send)
    except FailedError as error:
        return sent, error
    return sent, None


APPS = {
    plain: True,
    streaming: True,
    hinting: True,
    failing_first: False,
    failing_later: True,
    waiting_for_disconnect: True,
    silent: False,
    in_background: True,
}


@pytest.mark.parametrize("app", APPS, ids=lambda app: getattr(app, "__name__", "background"))
async def test_an_app_behaves_as_without_it(app: Any, memory_store: Store) -> None:
    def scope() -> Scope:
        headers = [(b"x-user", b"3")]
        return {"type": "http", "method": "GET", "path": "/", "headers": headers}

    alone, error = await run(app, scope())
    async with Tally.from_url(memory_store.url, track_unique=True) as tally:
        wrapped = MarkMiddleware(app, tally=tally, user=user_of)
        sent, same_error = await run(wrapped, scope())
    assert sent == alone
    assert type(same_error) is type(error)
    assert marked(memory_store) == ({3} if APPS[app] else set())


async def test_other_scopes_pass(memory_store: Store) -> None:
    seen = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    async with Tally.from_url(memory_store.url) as tally:
        for kind in ("websocket", "something new"):
            call: Any = ({"type": kind}, object(), object())
            await MarkMiddleware(app, tally=tally, user=user_of)(*call)
            assert seen.pop() == call


async def test_a_send_that_fails_is_the_apps_error_and_no_mark(memory_store: Store) -> None:
    """As when the client is gone, with servers that say so."""

    async def send(_: Any) -> None:
        raise OSError("gone")

    async with Tally.from_url(memory_store.url, track_unique=True) as tally:
        app = MarkMiddleware(streaming, tally=tally, user=user_of)
        with pytest.raises(OSError, match="gone"):
            await app({"type": "http", "headers": [(b"x-user", b"3")]}, None, send)
    assert marked(memory_store) == set()


async def test_a_cancelled_request_is_cancelled_and_later_ones_are_marked(
    memory_store: Store,
) -> None:
    started = asyncio.Event()

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            started.set()
            await asyncio.Event().wait()
        await plain(scope, receive, send)

    async with Tally.from_url(memory_store.url, track_unique=True) as tally:
        wrapped = MarkMiddleware(app, tally=tally, user=user_of)

        def scope(path: str, user: bytes) -> Scope:
            return {"type": "http", "path": path, "headers": [(b"x-user", user)]}

        slow = asyncio.create_task(run(wrapped, scope("/slow", b"1")))
        await started.wait()
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        await run(wrapped, scope("/", b"2"))
    assert marked(memory_store) == {2}


async def test_a_request_leaves_no_object_behind(memory_store: Store) -> None:
    """The garbage collector runs the more often, the more objects many scopes have."""
    scopes: list[dict[str, Any]] = []

    async def app(scope: Any, _: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    async def send(_: Any) -> None: ...

    async with Tally.from_url(memory_store.url, track_unique=True) as tally:
        marking = MarkMiddleware(app, user=lambda scope: scope["number"], tally=tally)
        await marking({"type": "http", "number": 0}, None, send)
        gc.collect()
        gc.disable()
        try:
            before = len(gc.get_objects())
            for number in range(500):
                scopes.append({"type": "http", "number": number})
                await marking(scopes[-1], None, send)
            added = len(gc.get_objects()) - before - len(scopes)
        finally:
            gc.enable()
        assert added < 50
    assert marked(memory_store) == set(range(500))


async def test_skips_reach_copies_of_scopes_and_nested_middleware(memory_store: Store) -> None:
    async def app(scope: Any, _: Any, send: Any) -> None:
        if scope["number"] == 1:
            skip_mark(dict(scope))
        if scope["number"] == 2:
            scope.clear()  # as by middleware that makes the scope anew
            scope.update(type="http", number=2)
        await send({"type": "http.response.start", "status": 200})

    async def send(_: Any) -> None: ...

    def user(scope: Any) -> int:
        return int(scope["number"])

    async with Tally.from_url(memory_store.url, track_unique=True) as tally:
        inner = MarkMiddleware(app, user=user, tally=tally, event="inner")
        outer = MarkMiddleware(inner, user=user, tally=tally, event="outer")
        for number in range(4):
            scope = {"type": "http", "number": number}
            if number == 3:
                skip_mark(scope)
            await outer(scope, None, send)
    assert marked(memory_store, "inner") == marked(memory_store, "outer") == {0, 2}


@pytest.mark.parametrize("raised", [asyncio.CancelledError, ValueError])
async def test_what_functions_raise_is_no_error_of_the_response(
    raised: type[BaseException], memory_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[str] = []

    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    async def send(message: Any) -> None:
        sent.append(message["type"])

    def user(_: Any) -> int:
        raise raised

    async with Tally.from_url(memory_store.url) as tally:
        await MarkMiddleware(app, user=user, tally=tally)({"type": "http"}, None, send)
    assert sent == ["http.response.start", "http.response.body"]
    assert "a request was not marked" in caplog.text


@pytest.mark.parametrize("tally", ["redis://:secret@localhost/0", Tally])
def test_a_tally_that_is_none_is_not_shown(
    tally: Any, memory_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with client_of(starlette(memory_store, tally=lambda _: tally)) as client:
        assert client.get("/text", headers={"X-User": "1"}).text == "hello"
    assert "tally must return a tally, got a " in caplog.text
    if isinstance(tally, str):
        with pytest.raises(InvalidTypeError, match="tally must be a plain function") as raised:
            MarkMiddleware(starlette(memory_store), user=lambda _: 1, tally=cast("Any", tally))
        assert "secret" not in f"{raised.value}{caplog.text}"


def test_the_shutdown_logs_all_marks_that_have_failed(caplog: pytest.LogCaptureFixture) -> None:
    app = Starlette(
        routes=ROUTES,
        lifespan=lifespan(f"redis://127.0.0.1:{free_port()}/0", timeout=0.2),
        middleware=[Middleware(MarkMiddleware, user=user_of)],
    )
    with client_of(app) as client:
        for user in range(20):
            client.get("/text", headers={"X-User": str(user)})
            time.sleep(0.02)
    numbers = [
        int(found[1])
        for record in caplog.records
        if (found := re.match(r"(\d+) (?:more )?buffered marks", record.getMessage()))
    ]
    assert sum(numbers) == 20
