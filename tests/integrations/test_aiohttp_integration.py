"""`tallymark.integrations.aiohttp` in apps of aiohttp, by its own test client."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tallymark import InvalidTypeError, InvalidValueError, Tally
from tallymark.integrations import _failures
from tallymark.integrations._request_marks import buffer_of
from tallymark.integrations.aiohttp import TALLY, mark_responses, skip_mark, tally_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stores import Store


@pytest.fixture(autouse=True)
def _log_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_failures, "_INTERVAL", 0.0)


def marked(store: Store, event: str = "active") -> set[int]:
    """Return the users of an event."""
    return store.bits().get(f"trackist_{event}_u", set())


def user_of(request: web.Request) -> int | None:
    """Return the user in a header, as an app's own authentication would."""
    name = request.headers.get("X-User")
    return None if name is None else int(name)


def as_user(user: object) -> dict[str, str]:
    return {"X-User": str(user)}


async def text(_: web.Request) -> web.Response:
    return web.Response(text="hello")


async def moved(_: web.Request) -> web.Response:
    raise web.HTTPFound("/text")


async def forbidden(_: web.Request) -> web.Response:
    raise web.HTTPForbidden


async def broken(_: web.Request) -> web.Response:
    raise LookupError("a bug")


async def private(request: web.Request) -> web.Response:
    skip_mark(request)
    return web.Response(text="private")


async def stream(request: web.Request) -> web.StreamResponse:
    """Respond with whether the user is marked, while the response goes on."""
    response = web.StreamResponse()
    await response.prepare(request)
    tally = request.app[TALLY]
    await buffer_of(tally).flush()
    await response.write(str(await tally.contains(tally.unique("active"), 9)).encode())
    return response


async def socket(request: web.Request) -> web.WebSocketResponse:
    response = web.WebSocketResponse()
    await response.prepare(request)
    await response.send_str(await response.receive_str())
    await response.close()
    return response


ROUTES = [
    web.get("/text", text),
    web.get("/moved", moved),
    web.get("/forbidden", forbidden),
    web.get("/broken", broken),
    web.get("/private", private),
    web.get("/stream", stream),
    web.get("/socket", socket),
]


def app_on(store: Store, **options: Any) -> web.Application:
    """Return an app whose marks are flags too: bits without a date."""
    app = web.Application()
    app.router.add_routes(ROUTES)
    app.cleanup_ctx.append(tally_context(store.url, track_unique=True))
    options.setdefault("user", user_of)
    app.on_response_prepare.append(mark_responses(**options))
    return app


@contextlib.asynccontextmanager
async def client_of(app: web.Application) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(app)) as client:
        yield client


async def ask(client: TestClient[Any, Any], path: str, user: object = None, **more: Any) -> Any:
    headers = {} if user is None else as_user(user)
    method = more.pop("method", "GET")
    async with client.request(method, path, headers=headers, allow_redirects=False) as response:
        return response.status, await response.text()


# --- what is marked


async def test_answered_requests_of_known_users_are_marked(plain_store: Store) -> None:
    async with client_of(app_on(plain_store)) as client:
        assert await ask(client, "/text", 1) == (200, "hello")
        assert await ask(client, "/text", 2, method="HEAD") == (200, "")
        assert (await ask(client, "/moved", 3))[0] == 302
        assert (await ask(client, "/forbidden", 4))[0] == 403
        assert (await ask(client, "/nowhere", 5))[0] == 404
        assert (await ask(client, "/text", 6, method="PUT"))[0] == 405
        assert (await ask(client, "/broken", 7))[0] == 500
        assert await ask(client, "/private", 8) == (200, "private")
        assert await ask(client, "/text") == (200, "hello")  # anonymous
    assert marked(plain_store) == {1, 2, 3}  # closing the app has flushed


async def test_a_stream_is_marked_at_its_start(memory_store: Store) -> None:
    async with client_of(app_on(memory_store)) as client:
        assert await ask(client, "/stream", 9) == (200, "True")


async def test_websockets_are_marked_on_request(memory_store: Store) -> None:
    for user, options in enumerate([{}, {"websockets": True}]):
        async with (
            client_of(app_on(memory_store, **options)) as client,
            client.ws_connect("/socket", headers=as_user(user)) as connection,
        ):
            await connection.send_str("echo")
            assert await connection.receive_str() == "echo"
    assert marked(memory_store) == {1}


async def test_when_and_event_see_the_request(memory_store: Store) -> None:
    def event(request: web.Request) -> str | None:
        resource = request.match_info.route.resource
        return None if resource is None else f"view:{resource.canonical}"

    app = app_on(memory_store, when=lambda _, status: status != 302, event=event)
    async with client_of(app) as client:
        await ask(client, "/text", 1)
        await ask(client, "/moved", 2)
        await ask(client, "/forbidden", 3)
        await ask(client, "/nowhere", 4)
    names = {key.removesuffix("_u") for key in memory_store.bits() if key.endswith("_u")}
    assert names == {"trackist_view:/text", "trackist_view:/forbidden"}


async def test_the_user_that_a_middleware_has_found(memory_store: Store) -> None:
    found: Any = web.RequestKey("user", int) if hasattr(web, "RequestKey") else "user"

    @web.middleware
    async def authenticate(request: web.Request, handler: Any) -> web.StreamResponse:
        request[found] = 5
        response: web.StreamResponse = await handler(request)
        return response

    app = app_on(memory_store, user=lambda request: request.get(found))
    app.middlewares.append(authenticate)
    async with client_of(app) as client:
        await ask(client, "/text")
    assert marked(memory_store) == {5}


async def test_sub_apps_use_the_tally_of_the_app(memory_store: Store) -> None:
    app, below = web.Application(), web.Application()
    app.cleanup_ctx.append(tally_context(memory_store.url, track_unique=True))
    below.router.add_routes(ROUTES)
    below.on_response_prepare.append(mark_responses(user=user_of, event="below"))
    app.router.add_get("/above", text)
    app.add_subapp("/below", below)
    async with client_of(app) as client:
        assert await ask(client, "/above", 1) == (200, "hello")
        assert await ask(client, "/below/text", 2) == (200, "hello")
    assert marked(memory_store, "below") == {2}


async def test_users_with_uuids_and_a_key_of_their_own(memory_store: Store) -> None:
    ada = uuid.uuid4()
    key = web.AppKey("tally", Tally[uuid.UUID])
    app = web.Application()
    app.router.add_routes(ROUTES)
    app.cleanup_ctx.append(tally_context(memory_store.url, key=key, user_ids=uuid.UUID))
    app.on_response_prepare.append(mark_responses(user=lambda _: ada, key=key))
    async with client_of(app) as client:
        await ask(client, "/text")
    async with Tally.from_url(memory_store.url, user_ids=uuid.UUID) as tally:
        assert [user async for user in tally.users(tally.day("active"))] == [ada]


async def test_handlers_use_the_tally(plain_store: Store) -> None:
    async def login(request: web.Request) -> web.Response:
        tally = request.app[TALLY]
        return web.json_response(bool(await tally.mark_event("login", 3)))

    app = app_on(plain_store)
    app.router.add_get("/login", login)
    async with client_of(app) as client:
        assert [(await ask(client, "/login"))[1] for _ in range(2)] == ["true", "false"]


# --- errors never reach the response


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user": lambda _: -1}, "user id must be in"),
        ({"user": lambda request: request["user"]}, "'user'"),
        ({"event": lambda _: "\n"}, "control characters"),
        ({"when": lambda _, __: 1 / 0}, "division by zero"),
        ({"key": web.AppKey("other", Tally[Any])}, "other"),
    ],
)
async def test_what_functions_do_is_logged(
    options: dict[str, Any], message: str, memory_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(app_on(memory_store, **options)) as client:
        assert await ask(client, "/text", 1) == (200, "hello")
    assert marked(memory_store) == set()
    (logged,) = [each for each in caplog.messages if each.startswith("a request was not marked: ")]
    assert message in logged


def test_what_cannot_work_is_refused_at_once() -> None:
    async def unawaited(_: web.Request) -> None: ...

    with pytest.raises(InvalidTypeError, match="async"):
        mark_responses(user=unawaited)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidValueError):
        mark_responses(user=user_of, event="")


async def test_a_wrong_url_is_refused_when_the_app_starts() -> None:
    app = web.Application()
    app.cleanup_ctx.append(tally_context("http://:secret@host"))
    runner = web.AppRunner(app)
    with pytest.raises(InvalidValueError) as caught:
        await runner.setup()
    await runner.cleanup()
    assert "secret" not in str(caught.value)
