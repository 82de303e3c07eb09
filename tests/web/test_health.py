"""What an operator sees: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import text

from goodanalytics import Analytics, Config
from goodanalytics.errors import DatabaseUnavailable
from goodanalytics.store import health
from goodanalytics.store.database import Database
from tests.conftest import FrozenClock
from tests.web.test_beacons import page


@pytest.fixture
async def analytics(database_url: str, config: Config) -> AsyncIterator[Analytics]:
    """Running without its worker, in a database of its own: the log belongs to all workspaces."""
    async with Analytics(database_url, dataclasses.replace(config, worker=False)) as running:
        yield running


@pytest.fixture
async def client(analytics: Analytics) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(analytics.wrap(page))
    async with httpx.AsyncClient(transport=transport, base_url="https://shop.example") as browser:
        yield browser


async def gauges(client: httpx.AsyncClient) -> dict[str, float]:
    answer = await client.get("/ga/metrics")
    assert (answer.status_code, answer.headers["content-type"]) == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
    )
    pairs = (line.split(" ") for line in answer.text.splitlines() if not line.startswith("#"))
    return {name.removeprefix("goodanalytics_"): float(value) for name, value in pairs}


async def test_lag_is_the_age_of_what_waits_longest(
    analytics: Analytics, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    """It rises while nobody works, in both places, and is nothing when all is done."""
    for _ in range(3):
        await client.post("/ga/t/event", json={"event_id": str(uuid.uuid4()), "url": "https://shop.example/"})
        clock.advance(timedelta(seconds=7))
    behind, ready = await gauges(client), (await client.get("/ga/readyz")).json()
    await analytics.drain()
    after = await gauges(client)

    assert (behind["log_hits"], behind["log_lag_seconds"], behind["database_up"]) == (3, 21, 1)
    assert ready["log"] == {"waiting": 3, "lag_seconds": 21}
    assert (after["log_hits"], after["log_lag_seconds"], after["rejected_hits"]) == (0, 0, 0)


async def test_without_a_database_the_metrics_say_so(
    analytics: Analytics, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this process knows by itself is told all the same."""
    gone = Database.open("postgresql+asyncpg://nobody@127.0.0.1:9/none", analytics.database.tables)
    monkeypatch.setattr("goodanalytics.web.health.health.backlog", lambda _database, now: backlog(gone, now))
    away = await gauges(client)

    assert away == {"database_up": 0, "memory_hits": 0, "spool_hits": 0}


async def test_a_database_that_hangs_keeps_no_probe_waiting(
    analytics: Analytics,
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    errors: list[BaseException],
) -> None:
    """It takes connections and gives no answer; both say so, as if it were gone, and afterwards all is well."""
    monkeypatch.setattr(health.answered, "__defaults__", (timedelta(seconds=0.2),))
    monkeypatch.setattr(health.examine, "__defaults__", (timedelta(seconds=0.2),))
    async with asyncio.timeout(30), analytics.database.begin() as conn:
        await conn.execute(text("LOCK TABLE good_analytics.hits IN ACCESS EXCLUSIVE MODE"))
        ready, away = await client.get("/ga/readyz"), await gauges(client)
    again = await client.get("/ga/readyz")

    assert (ready.status_code, ready.json()) == (503, {"status": "unavailable"})
    assert away == {"database_up": 0, "memory_hits": 0, "spool_hits": 0}
    assert again.status_code == 200
    assert {type(error) for error in errors} == {RuntimeError, DatabaseUnavailable}


async def backlog(database: Database, now: object) -> object:
    async with database.connect():
        raise AssertionError(f"nobody answers at {now}")
