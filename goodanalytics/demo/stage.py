"""The demo on its stage: database, tables, history, shop and dashboard, until Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import msgspec

from goodanalytics.analytics import Analytics
from goodanalytics.config import Config, Principal
from goodanalytics.demo import history, shop
from goodanalytics.demo.crowd import LINKS
from goodanalytics.demo.figures import Figures
from goodanalytics.embedded import EmbeddedPostgres
from goodanalytics.errors import ConfigError

FIGURES = "figures.json"
"""The history's true figures, beside the database: what the dashboard must show."""


async def run(
    *,
    host: str,
    port: int,
    data: Path,
    days: int,
    visitors: int,
    seed: int,
    fresh: bool,
    say: Callable[[str], None],
) -> None:
    """
    Set the stage and play until stopped.

    Args:
        port: 0 takes a free one.
        data: A directory of the demo's own; kept, so that the next start is quick.
        fresh: Whether to throw *data* away first.
        say: Takes the lines for the person at the terminal.

    Raises:
        ConfigError: The port is taken, or uvicorn is not installed.
        EmbeddedError: PostgreSQL cannot start.
    """
    with _listening(host, port) as listener:
        port = listener.getsockname()[1]
        if fresh:
            await asyncio.to_thread(shutil.rmtree, data, ignore_errors=True)
        say("Starting PostgreSQL …")
        server = EmbeddedPostgres(data)
        await asyncio.to_thread(server.start)
        try:
            await asyncio.to_thread(server.create_database, "demo")
            await _play(server.url("demo"), listener, f"{host}:{port}", data, days, visitors, seed, say)
        finally:
            await asyncio.to_thread(server.stop)


async def _play(
    url: str,
    listener: socket.socket,
    address: str,
    data: Path,
    days: int,
    visitors: int,
    seed: int,
    say: Callable[[str], None],
) -> None:
    key = _api_key(data)
    config = Config(
        secret_key=_secret(data),
        auto_migrate=True,
        spool_path=data / "spool",
        # The demo listens on this machine only and holds invented people.
        dashboard_auth=lambda _connection: True,
        authenticate=lambda token, _kind: (
            Principal(name="demo") if secrets.compare_digest(token, key) else None
        ),
    )
    analytics = Analytics(url, config)
    async with analytics:
        with click.progressbar(length=1, label="Making history", show_pos=True, file=sys.stderr) as bar:

            def progress(done: int, total: int) -> None:
                bar.length = total
                bar.update(done - bar.pos)

            figures = await history.load(
                analytics, until=config.clock(), seed=seed, days=days, visitors=visitors, shop_host=address,
                progress=progress,
            )  # fmt: skip
        (data / FIGURES).write_bytes(msgspec.json.format(msgspec.json.encode(_plain(figures)), indent=2))
        await _serve(analytics, listener, address, key, say)


async def _serve(
    analytics: Analytics, listener: socket.socket, address: str, key: str, say: Callable[[str], None]
) -> None:
    try:
        import uvicorn  # noqa: PLC0415  # an extra; its absence deserves its own words
    except ImportError:
        raise ConfigError(
            'The demo is served by uvicorn. Try: pip install "goodanalytics[uvicorn,embedded]"'
        ) from None
    app = analytics.wrap(shop.build(analytics))
    server = uvicorn.Server(
        uvicorn.Config(app, log_level=logging.WARNING, lifespan="off", timeout_graceful_shutdown=5)
    )
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.started and not serving.done():  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # uvicorn tells that it has started by nothing but this attribute
    if server.started:
        first = next(iter(LINKS))
        say(f"""
  The shop        http://{address}/
  A link to click http://{address}{analytics.config.link_path}/{first}
  The dashboard   http://{address}{analytics.config.mount}/dashboard/
  The REST API    http://{address}{analytics.config.mount}/api/docs   (Authorization: Bearer {key})

Click the link, look around, sign up and buy; then find yourself at the top of the dashboard's visitors.
Ctrl-C stops everything.""")
    await serving


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens there, taken before the long work starts."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"Cannot listen on {host}:{port} ({error}). Try another port: make demo PORT={port + 1}"
        ) from None
    return listener


def _plain(figures: Figures) -> dict[str, object]:
    """*figures* with keys that JSON can have."""
    found: dict[str, object] = {}
    for name in Figures.__slots__:
        value = getattr(figures, name)
        found[name] = {_key(k): v for k, v in value.items()} if isinstance(value, Mapping) else value
    return found


def _key(key: object) -> str:
    return " / ".join(key) if isinstance(key, tuple) else str(key)


def _secret(data: Path) -> str:
    return _kept(data / "secret", lambda: secrets.token_urlsafe(48))


def _api_key(data: Path) -> str:
    return _kept(data / "api-key", lambda: f"ga_sk_{secrets.token_urlsafe(24)}")


def _kept(path: Path, make: Callable[[], str]) -> str:
    """What *path* holds; made, readable by its owner alone, when it is not there."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(make())
    return path.read_text()
