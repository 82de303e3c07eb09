"""The clock steps back, as it does when it is set right: nothing is lost, and hits keep the order in which they came."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from goodanalytics import Analytics
from goodanalytics.core import raw

BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)


BEACONS = 3_000


async def page(scope, receive, send):
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@pytest.fixture
async def analytics(database_url, config):
    async with Analytics(database_url, dataclasses.replace(config, worker=False)) as running:
        yield running


@pytest.mark.parametrize("batches", ["one batch", "a batch for each"])
async def test_an_hour_back_between_two_hits_loses_nothing(batches, analytics, clock, errors):
    """Ids in the log rise whatever the clock does, and a visit is not torn apart by a time that lies before its start."""
    steps = [timedelta(minutes=1)] * 4 + [timedelta(hours=-1)] + [timedelta(minutes=1)] * 5
    sent = []
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(analytics.wrap(page)),
        base_url="https://shop.example",
        headers={"user-agent": BROWSER, "cookie": "_ga_anon=one"},
    ) as client:
        in_log = []
        for step in steps:
            sent.append(uuid4())
            answer = await client.post(
                "/ga/t/event", json={"event_id": str(sent[-1]), "url": "https://shop.example/"}
            )
            assert answer.status_code == 202
            clock.advance(step)
            if batches == "a batch for each":
                in_log += await log_of(analytics)
                await analytics.drain()
    in_log += await log_of(analytics)
    await analytics.drain()

    assert [hit.id for _, hit in in_log] == sent
    assert [entry_id for entry_id, _ in in_log] == sorted(entry_id for entry_id, _ in in_log)
    async with analytics.database.connect() as conn:
        found = (await conn.execute(text("SELECT id FROM good_analytics.events"))).scalars().all()
        pageviews = (
            await conn.execute(text("SELECT sum(pageviews) FROM good_analytics.sessions"))
        ).scalar_one()
        visitors = (
            (await conn.execute(text("SELECT total_pageviews FROM good_analytics.visitors"))).scalars().all()
        )
    assert sorted(found) == sorted(sent)
    assert (pageviews, visitors) == (10, [10])
    assert errors == []


async def test_a_machine_whose_clock_steps_back_and_forth_by_an_hour_loses_and_doubles_nothing(
    durable, launch, crowd, exact, tmp_path
):
    """In the middle of thousands of beacons and clicks, with the worker at work."""
    url, books = durable
    wrong_by = tmp_path / "wrong-by"
    wrong_by.write_text("0")
    app = await launch(url, FAULTS_CLOCK=str(wrong_by))
    people = crowd(app.address)

    stream = asyncio.create_task(people.send(BEACONS))
    for point, seconds in enumerate((-3_600, 0, -3_600), start=1):
        await people.has_acknowledged(point * BEACONS // 5)
        (tmp_path / "new").write_text(str(seconds))
        (tmp_path / "new").replace(wrong_by)
    await stream
    early = await books.one("SELECT count(*) FROM events WHERE received_at < now() - interval '59 minutes'")

    assert await people.compare(books) == exact
    assert len(people.acknowledged) == BEACONS
    assert early > BEACONS // 5
    assert set(people.answers) <= {202, "hung up"}
    assert set(people.redirects) == {302}
    assert people.safe_clicks == people.clicked


async def log_of(analytics):
    """What lies in the log, in its order."""
    async with analytics.database.connect() as conn:
        rows = await conn.execute(text("SELECT id, body FROM good_analytics.hits ORDER BY id"))
        return [(row.id, raw.decoded(row.body)) for row in rows]
