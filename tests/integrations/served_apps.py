"""The same app in FastAPI and in aiohttp, for real servers: ``served_apps.py fastapi 5.0 FD``.

It serves the socket with that file descriptor, and marks on TALLYMARK_URL with that timeout.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from typing import TYPE_CHECKING

import uvicorn
from aiohttp import web
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse

from tallymark.integrations.aiohttp import mark_responses, tally_context
from tallymark.integrations.asgi import MarkMiddleware
from tallymark.integrations.fastapi import lifespan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Seconds until a mark has failed.
TIMEOUT = float(sys.argv[2])


async def without_end() -> AsyncIterator[str]:
    while True:
        yield "more"
        await asyncio.sleep(0.01)


app = FastAPI(lifespan=lifespan(timeout=TIMEOUT, track_unique=True))
app.add_middleware(MarkMiddleware, user=lambda scope: int(scope["path"].rpartition("/")[2]))


@app.api_route("/hello/{user}", methods=["GET", "HEAD"])
async def hello(user: int) -> PlainTextResponse:
    return PlainTextResponse(f"hello {user}")


@app.get("/stream/{user}")
async def stream(user: int) -> StreamingResponse:
    return StreamingResponse(without_end())


async def aiohttp_hello(request: web.Request) -> web.Response:
    return web.Response(text=f"hello {request.match_info['user']}")


async def aiohttp_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    async for chunk in without_end():
        await response.write(chunk.encode())
    return response


def aiohttp_app() -> web.Application:
    served = web.Application()
    served.cleanup_ctx.append(tally_context(timeout=TIMEOUT, track_unique=True))
    served.on_response_prepare.append(
        mark_responses(user=lambda request: int(request.match_info["user"]))
    )
    served.router.add_get("/hello/{user}", aiohttp_hello)
    served.router.add_get("/stream/{user}", aiohttp_stream)
    return served


if __name__ == "__main__":
    logging.basicConfig()
    kind, _, descriptor = sys.argv[1:]
    listener = socket.socket(fileno=int(descriptor))
    if kind == "fastapi":
        config = uvicorn.Config(app, log_level="warning")
        uvicorn.Server(config).run(sockets=[listener])
    else:
        web.run_app(aiohttp_app(), sock=listener, print=None)
