"""
The demo on its stage: database, tables, history, shop, neighbours and dashboard, until Ctrl-C.

1. Everything stays on this machine: one port, on which the shop is asked by people and its neighbours by the shop.
2. The history is laid with the worker off. What the newest of it leaves for the neighbours waits until they listen.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

import click
import msgspec

from goodanalytics.analytics import Analytics
from goodanalytics.config import Config, Principal
from goodanalytics.demo import history, shop
from goodanalytics.demo.crowd import LINKS, RULED, SPLIT
from goodanalytics.demo.figures import Figures
from goodanalytics.demo.neighbours import ADS_PATH, ExampleAds, Neighbours
from goodanalytics.demo.trade import PARTNER
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
        if fresh:
            await asyncio.to_thread(shutil.rmtree, data, ignore_errors=True)
        say("Starting PostgreSQL …")
        server = EmbeddedPostgres(data)
        await asyncio.to_thread(server.start)
        try:
            await asyncio.to_thread(server.create_database, "demo")
            place = Place.of(host, listener.getsockname()[1])
            await _play(server.url("demo"), listener, place, data, days, visitors, seed, say)
        finally:
            await asyncio.to_thread(server.stop)


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where the demo listens.

    Attributes:
        address: Host and port, as people type them.
        origin: Where the demo reaches itself.
        networks: The addresses of *origin*.
    """

    address: str
    origin: str
    networks: tuple[str, ...]

    @classmethod
    def of(cls, host: str, port: int) -> Place:
        """The place of a listener on *host*, an address or a name of this machine."""
        try:
            own = ip_address(host)
        except ValueError:
            return cls(f"{host}:{port}", f"http://{host}:{port}", ("127.0.0.0/8", "::1"))
        if own.is_unspecified:
            own = ip_address("127.0.0.1" if own.version == 4 else "::1")
        reached = f"[{own}]" if own.version == 6 else str(own)
        named = f"[{host}]" if own.version == 6 else host
        return cls(f"{named}:{port}", f"http://{reached}:{port}", (str(own),))


async def _play(
    url: str,
    listener: socket.socket,
    place: Place,
    data: Path,
    days: int,
    visitors: int,
    seed: int,
    say: Callable[[str], None],
) -> None:
    key = _kept(data / "api-key", lambda: f"ga_sk_{secrets.token_urlsafe(24)}")
    token = _kept(data / "ads-token", lambda: secrets.token_urlsafe(24))
    config = Config(
        secret_key=_kept(data / "secret", lambda: secrets.token_urlsafe(48)),
        auto_migrate=True,
        spool_path=data / "spool",
        # The demo listens on this machine only and holds invented people.
        dashboard_auth=lambda _connection: True,
        authenticate=lambda token, _kind: (
            Principal(name="demo") if secrets.compare_digest(token.encode(), key.encode()) else None
        ),
        platforms=[ExampleAds(url=f"{place.origin}{ADS_PATH}")],
        webhook_networks=place.networks,
        # Invented people were never asked. Whoever browses with Sec-GPC or DNT is heard all the same.
        consent_silence="granted",
    )
    neighbours = Neighbours(token, data / "webhook-secret", config.clock)
    async with Analytics(url, replace(config, worker=False)) as analytics:
        with click.progressbar(length=1, label="Making history", show_pos=True, file=sys.stderr) as bar:

            def progress(done: int, total: int) -> None:
                bar.length = total
                bar.update(done - bar.pos)

            figures = await history.load(
                analytics, until=config.clock(), seed=seed, days=days, visitors=visitors, shop_host=place.address,
                progress=progress, before_newest=lambda: neighbours.introduce(analytics, place.origin),
            )  # fmt: skip
    (data / FIGURES).write_bytes(msgspec.json.format(msgspec.json.encode(_plain(figures)), indent=2))
    analytics = Analytics(url, config)
    async with analytics:
        await _serve(analytics, neighbours, listener, place, key, say)


async def _serve(
    analytics: Analytics,
    neighbours: Neighbours,
    listener: socket.socket,
    place: Place,
    key: str,
    say: Callable[[str], None],
) -> None:
    try:
        import uvicorn  # noqa: PLC0415  # an extra; its absence deserves its own words
    except ImportError:
        raise ConfigError(
            'The demo is served by uvicorn. Try: pip install "goodanalytics[uvicorn,embedded]"'
        ) from None
    app = analytics.wrap(shop.build(analytics, neighbours))
    server = uvicorn.Server(
        uvicorn.Config(app, log_level=logging.WARNING, lifespan="off", timeout_graceful_shutdown=5)
    )
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.started and not serving.done():  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # uvicorn tells that it has started by nothing but this attribute
    if server.started:
        here, dashboard = f"http://{place.address}", f"{analytics.config.mount}/dashboard"
        links = f"{here}{analytics.config.link_path}"
        say(f"""
  The shop        {here}/
  A link to click {links}/{next(iter(LINKS))}   ({links}/{SPLIT} is split, {links}/{RULED} has rules)
  From a partner  {here}/?via={PARTNER.code}
  The dashboard   {here}{dashboard}/
  Deliveries      {here}{dashboard}/dispatches   (to Example Ads and Example Books, which are part of the shop)
  The REST API    {here}{analytics.config.mount}/api/docs   (Authorization: Bearer {key})

Click the link, look around, sign up and buy; then find yourself at the top of the dashboard's visitors.
The shop's first page lists what else to try. Ctrl-C stops everything.""")
    await serving


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens there, taken before the long work starts."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # What is sent here before the shop is open waits at its door instead of being turned away.
        listener.listen()
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


def _kept(path: Path, make: Callable[[], str]) -> str:
    """What *path* holds; made, readable by its owner alone, when it is not there."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(make())
    return path.read_text()
