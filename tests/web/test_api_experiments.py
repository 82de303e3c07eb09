"""`/experiments/{link_id}` over HTTP, and the Python call that it goes through."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import datetime

import httpx
import msgspec
import pytest

from goodanalytics import Analytics, Config
from goodanalytics.config import Principal
from tests.web.link_site import browser, events, make, site

VARIANTS = [{"url": "https://shop.example/a", "name": "A"}, {"url": "https://shop.example/b", "name": "B"}]
FOREIGN = uuid.UUID(int=9)
KEYS = {
    "server": Principal(),
    "page": Principal(key_type="publishable"),
    "elsewhere": Principal(workspace_id=FOREIGN),
}


@pytest.fixture
async def running(config: Config, database_url: str) -> AsyncIterator[Analytics]:
    own = config.workspace
    async with site(
        database_url, config, workspace=own, authenticate=lambda token, _: KEYS.get(token)
    ) as analytics:
        yield analytics


async def ask(analytics: Analytics, path: str, key: str = "server", **query: str) -> httpx.Response:
    transport = httpx.ASGITransport(analytics.api)
    async with httpx.AsyncClient(transport=transport, base_url="https://shop.example") as client:
        return await client.get(path, params=query, headers={"Authorization": f"Bearer {key}"})


async def test_a_split_is_told_from_clicks_to_conversions(running, clock):
    """Forty people click a split link, some of them buy; REST, links and reports tell the same."""
    link = await make(running, variants=VARIANTS)
    for number in range(40):
        async with browser(running, address=f"203.0.113.{number + 1}") as client:
            await client.get("/a")
    clicked = await events(running)
    for event in clicked[:3]:
        await running.sale(event["visitor_id"], amount_cents=1_000, currency="EUR", key=str(event["id"]))
    told = (await ask(running, f"/experiments/{link.id}")).json()

    by_variant = [sum(e["properties"]["variant"] == name for e in clicked) for name in "AB"]
    assert [one["visitors"] for one in told["outcomes"]] == by_variant
    assert sum(by_variant) == 40
    assert told["outcomes"][1]["by_rate"]["verdict"] == "not enough yet"
    assert datetime.fromisoformat(told["since"]) == clock.now == link.created_at
    for found in (await running.links.experiment(link), await running.reports.experiment(link)):
        assert msgspec.to_builtins(found) == told


@pytest.mark.parametrize(
    ("key", "query", "status"),
    [
        pytest.param("server", {}, 200, id="all"),
        pytest.param("server", {"from": "2026-10-01T00:00:00Z", "currency": "USD"}, 200, id="period"),
        pytest.param("server", {"to": "2026-10-01T00:00:00Z"}, 422, id="no beginning"),
        pytest.param("server", {"currency": "euro"}, 422, id="currency"),
        pytest.param("server", {"from": "2026-12-01T00:00:00Z"}, 422, id="backwards"),
        pytest.param("elsewhere", {}, 404, id="another workspace"),
        pytest.param("page", {}, 403, id="publishable"),
    ],
)
async def test_who_may_ask_what(running, key, query, status):
    """A wrong question is refused with its name, another workspace's link does not exist."""
    link = await make(running, variants=VARIANTS)

    assert (await ask(running, f"/experiments/{link.id}", key, **query)).status_code == status
    assert (await ask(running, "/experiments/none", key, **query)).status_code in (404, 403)
