"""What a type checker sees of asyncio's frameworks. Checked by mypy and pyright, never run."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated, Any

from aiohttp import web
from fastapi import Depends, FastAPI, Request
from litestar import Litestar, get
from litestar import Request as LitestarRequest
from litestar.middleware import DefineMiddleware
from quart import Quart
from quart import request as quart_request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from typing_extensions import assert_type

from tallymark import Granularity, Tally
from tallymark.integrations import aiohttp, asgi, fastapi

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

app = FastAPI(lifespan=fastapi.lifespan("redis://localhost", timeout=2, shards=16))
FastAPI(lifespan=fastapi.lifespan(user_ids=uuid.UUID))
fastapi.lifespan(timeuot=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
assert_type(fastapi.add_error_handlers(app), None)

UuidTally = Annotated[Tally[uuid.UUID], Depends(fastapi.get_tally)]


async def current_user(request: Request) -> int | None:
    fastapi.skip_mark(request)
    return None


@app.get("/", dependencies=[fastapi.marks("seen", user=current_user)])
async def handler(tally: fastapi.TallyDep) -> Granularity:
    assert_type(tally, Tally[int])
    assert_type(await tally.count(tally.day("seen")), int)
    await tally.mark_event("login", "7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return await tally.mark_event("login", 7)


@app.get("/uuids")
async def handler_of_uuids(tally: UuidTally) -> None:
    assert_type(tally, Tally[uuid.UUID])
    await tally.mark_event("login", uuid.uuid4())


fastapi.marks(lambda request: request.url.path, user=current_user)
fastapi.marks(5, user=current_user)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- any ASGI app


def user_of(scope: asgi.Scope) -> int | None:
    assert_type(asgi.is_skipped(scope), bool)
    found: int | None = scope["state"].get("user")
    return found


async def awaited_user(scope: asgi.Scope) -> int:
    return len(scope)


app.add_middleware(fastapi.MarkMiddleware, user=user_of, event=lambda scope: scope["path"])
Starlette(
    lifespan=asgi.lifespan("redis://localhost"),
    middleware=[Middleware(asgi.MarkMiddleware, user=user_of, when=lambda _, status: status < 500)],
)


def wrapped(inner: asgi.ASGIApp, tally: Tally[str]) -> asgi.ASGIApp:
    asgi.MarkMiddleware(inner, user=awaited_user)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    asgi.MarkMiddleware(inner)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    return asgi.MarkMiddleware(inner, tally=tally, user=lambda scope: str(scope["path"]))


fastapi.add_error_handlers(Starlette())
fastapi.add_error_handlers(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# --- Litestar and Quart


@get("/hello")
async def hello(request: LitestarRequest[Any, Any, Any]) -> str:
    asgi.skip_mark(request)
    return "hello"


Litestar(
    [hello],
    lifespan=[asgi.lifespan("redis://localhost")],
    middleware=[DefineMiddleware(asgi.MarkMiddleware, user=user_of, event="seen")],
)

quart_app = Quart(__name__)


@quart_app.while_serving
async def open_tally() -> AsyncGenerator[None, None]:
    async with Tally.from_url("redis://localhost") as tally:
        quart_app.extensions["tally"] = tally
        yield


@quart_app.get("/hello")
async def quart_hello() -> str:
    asgi.skip_mark(quart_request)
    return "hello"


quart_app.asgi_app = asgi.MarkMiddleware(  # type: ignore[method-assign]
    quart_app.asgi_app,
    tally=lambda scope: quart_app.extensions["tally"],
    user=lambda scope: scope.get("user_id"),
)

# --- aiohttp

UUIDS = web.AppKey("uuids", Tally[uuid.UUID])


def user_of_request(request: web.Request) -> int | None:
    assert_type(request.app[aiohttp.TALLY], Tally[int])
    assert_type(request.app[UUIDS], Tally[uuid.UUID])
    assert_type(aiohttp.skip_mark(request), None)
    return 7


def make_app() -> web.Application:
    made = web.Application()
    made.cleanup_ctx.append(aiohttp.tally_context("redis://localhost", max_user_id=1_000))
    made.cleanup_ctx.append(aiohttp.tally_context(key=UUIDS, user_ids=uuid.UUID))
    made.on_response_prepare.append(aiohttp.mark_responses(user=user_of_request))
    made.on_response_prepare.append(
        aiohttp.mark_responses(user=lambda _: uuid.uuid4(), key=UUIDS, websockets=True)
    )
    aiohttp.mark_responses(user=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    aiohttp.tally_context(max_user_idd=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    return made
