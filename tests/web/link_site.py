"""A site with short links, and a browser that asks it for them."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from sqlalchemy import select
from starlette.types import Receive, Scope, Send

from goodanalytics import Analytics, Config
from goodanalytics.core.links import Link
from goodanalytics.store.listening import links_channel, say

BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 "
    "Mobile/15E148 Safari/604.1"
)
SLACK = "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"
SHOP = "https://shop.example/lamps"


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"the host"})


@asynccontextmanager
async def site(url: str, config: Config, **settings: Any) -> AsyncIterator[Analytics]:
    """A running site whose link domain is go.example, in a workspace of its own."""
    own = dataclasses.replace(
        config,
        **{
            "worker": False,
            "rate_limits": None,
            "workspace": uuid.uuid4(),
            "link_domains": ["go.example"],
            **settings,
        },
    )
    async with Analytics(url, own) as running:
        yield running


def browser(analytics: Analytics, *, address: str = "203.0.113.7", **headers: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(analytics.wrap(page), client=(address, 1234))
    return httpx.AsyncClient(
        transport=transport,
        base_url="https://go.example",
        headers={"user-agent": BROWSER, **{name.replace("_", "-"): value for name, value in headers.items()}},
    )


async def events(analytics: Analytics) -> Sequence[Mapping[str, Any]]:
    """Everything that was recorded, by time."""
    await analytics.drain()
    table = analytics.database.tables.events
    async with analytics.database.connect() as conn:
        found = await conn.execute(
            select(table)
            .where(table.c.workspace_id == analytics.config.workspace)
            .order_by(table.c.occurred_at, table.c.id)
        )
        return [dict(row._mapping) for row in found]


async def make(analytics: Analytics, **fields: Any) -> Link:
    """A link on go.example with the key `a`, unless *fields* say otherwise."""
    return await analytics.links.create(**{"domain": "go.example", "key": "a", "url": SHOP, **fields})


async def told(analytics: Analytics) -> None:
    """Return when this process has heard of every change that was committed before: words come in that order."""
    listener, word, said = analytics._links._listener, uuid.uuid4().hex, asyncio.Event()
    real = listener._heard

    def hear(heard: str | None) -> None:
        if heard == word:
            said.set()
        else:
            real(heard)

    async with asyncio.timeout(30):
        while not listener.is_listening:
            await asyncio.sleep(0.005)
        listener._heard = hear
        async with analytics.database.begin() as conn:
            await say(conn, links_channel(analytics.config.schema), word)
        await said.wait()
    listener._heard = real
