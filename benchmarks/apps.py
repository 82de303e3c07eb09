"""
The variants that are ours, and the bare ones that they are held against.

`serve.py` runs each in a process of its own; `BENCH_DATABASE` names the variant's database. Those that make their app from
the environment are attributes made on demand, so that no process starts more than it serves.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from goodanalytics import Analytics, Config

SECRET = "for-benchmarks-only-" + "0" * 32
PAGE = "<!doctype html><title>Shop</title>" + "<p>Everything for the garden, since 1931.</p>" * 44


def spool_of(parent: int) -> Path:
    """Where the variant `spooling` keeps hits; *parent* is the process that runs the benchmarks."""
    return Path(tempfile.gettempdir()) / f"goodanalytics-bench-spool-{parent}"


async def _life(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """The least that an ASGI app can do with a POST: read the body, answer 204."""
    if scope["type"] == "lifespan":
        await _life(receive, send)
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def bare_redirect(scope: Any, receive: Any, send: Any) -> None:
    """The least that an ASGI app can do as a redirect."""
    if scope["type"] == "lifespan":
        await _life(receive, send)
        return
    headers = [(b"location", b"https://shop.example/"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 302, "headers": headers})
    await send({"type": "http.response.body"})


async def taken(request: Request) -> Response:
    await request.body()
    return Response(status_code=204)


async def _redirected(_request: Request) -> Response:
    return RedirectResponse("https://shop.example/", 302)


async def page_of_2_kb(_request: Request) -> Response:
    return HTMLResponse(PAGE)


def _host() -> Starlette:
    return Starlette(routes=[Route("/page", page_of_2_kb)])


def _analytics(**settings: Any) -> Analytics:
    url = os.environ["BENCH_DATABASE"].replace("postgresql://", "postgresql+asyncpg://", 1)
    return Analytics(url, Config(secret_key=SECRET, **settings))


_MADE: dict[str, Callable[[], Any]] = {
    "starlette": lambda: Starlette(routes=[Route("/ga/t/event", taken, methods=["POST"])]),
    "starlette_redirect": lambda: Starlette(routes=[Route("/l/{key}", _redirected)]),
    "page": _host,
    "wrapped": lambda: _analytics(worker=False).wrap(_host()),
    "spooling": lambda: _analytics(worker=False, spool_path=spool_of(os.getppid())).wrap(_host()),
    "proxied": lambda: _analytics(worker=False, trusted_proxies=["127.0.0.1"]).wrap(_host()),
    "working": lambda: _analytics(worker=True).wrap(_host()),
}


def __getattr__(name: str) -> Any:
    if name not in _MADE:
        raise AttributeError(name)
    return _MADE[name]()
