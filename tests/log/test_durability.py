"""`durability=`: who calls says how long to wait for it."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import func, select

from goodanalytics import Analytics, Config
from goodanalytics import log as safe_log
from goodanalytics.errors import Busy, InvalidInput
from tests.conftest import FrozenClock
from tests.web.test_beacons import CHROME, page


@pytest.fixture
async def analytics(shared_database_url: str, config: Config) -> AsyncIterator[Analytics]:
    """Running without its worker, in a workspace of this test's own."""
    own = dataclasses.replace(config, worker=False, workspace=uuid.uuid4())
    async with Analytics(shared_database_url, own) as running:
        yield running


async def events(analytics: Analytics) -> int:
    t = analytics.database.tables.events
    async with analytics.database.connect() as conn:
        mine = select(func.count()).select_from(t).where(t.c.workspace_id == analytics.config.workspace)
        return int((await conn.execute(mine)).scalar_one())


@pytest.mark.parametrize("durability", ["log", "fire"])
async def test_an_event_for_the_log_is_there_when_the_worker_was(
    analytics: Analytics, durability: safe_log.Durability
) -> None:
    """The call says that it was accepted; nothing is recorded before the worker takes it, and then all of it."""
    ann = await analytics.resolve({"anonymous_id": "ann"})
    outcomes = [
        await analytics.track(ann, "Letter opened", key=f"{n}", durability=durability) for n in range(50)
    ]
    before = await events(analytics)
    await analytics.drain()

    assert {(outcome.status, outcome.visitor_id) for outcome in outcomes} == {("accepted", ann.id)}
    assert (before, await events(analytics)) == (0, 50)


async def test_a_key_holds_across_kinds_of_durability(analytics: Analytics) -> None:
    """One key is one event, whichever way it goes."""
    ann = await analytics.resolve({"anonymous_id": "ann"})
    for durability in ("now", "log", "fire"):
        await analytics.track(ann, "Letter opened", key="one", durability=durability)  # type: ignore[arg-type]  # literals
    await analytics.drain()

    assert await events(analytics) == 1


async def test_what_was_fired_is_safe_after_a_stop(
    shared_database_url: str, config: Config, clock: FrozenClock
) -> None:
    """A stop in good order loses nothing."""
    own = dataclasses.replace(config, worker=False, workspace=uuid.uuid4())
    async with Analytics(shared_database_url, own) as first:
        ann = await first.resolve({"anonymous_id": "ann"})
        for _ in range(200):
            await first.track(ann, "Letter opened", durability="fire")
    async with Analytics(shared_database_url, own) as second:
        await second.drain()

        assert await events(second) == 200


async def test_firing_too_fast_is_busy(analytics: Analytics, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays bounded: the next one is told to wait."""
    monkeypatch.setattr(safe_log, "MOST_FIRED", 3)
    ann = await analytics.resolve({"anonymous_id": "ann"})
    for _ in range(3):
        await analytics.track(ann, "Letter opened", durability="fire")

    with pytest.raises(Busy):
        await analytics.track(ann, "Letter opened", durability="fire")


@pytest.mark.parametrize(("durability", "with_connection"), [("later", False), ("log", True)])
async def test_what_does_not_go_together_is_refused(
    analytics: Analytics, durability: safe_log.Durability, with_connection: bool
) -> None:
    """A word that is none, and a log that is not in the host's transaction."""
    ann = await analytics.resolve({"anonymous_id": "ann"})
    async with analytics.database.begin() as conn:
        with pytest.raises(InvalidInput, match="durability"):
            await analytics.track(
                ann, "Letter opened", durability=durability, connection=conn if with_connection else None
            )


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("durability=fire", 202, "accepted; durability=fire"),
        ("v=3&durability=fire", 202, "accepted; durability=fire"),
        ("durability=log", 202, "accepted"),
        ("durability=fier", 400, "durability is 'fier'; write one of log, fire"),
    ],
)
async def test_a_beacon_may_be_fired(analytics: Analytics, query: str, status: int, says: str) -> None:
    """`?durability=fire` is answered at once, says so, and is recorded all the same; a wrong word is not taken for another."""
    transport = httpx.ASGITransport(analytics.wrap(page))
    async with httpx.AsyncClient(transport=transport, base_url="https://shop.example") as client:
        client.headers["user-agent"] = CHROME["user-agent"]
        answer = await client.post(f"/ga/t/event?{query}", json={"url": "https://shop.example/"})
    await analytics.drain()

    said = answer.headers["x-goodanalytics"] if status == 202 else answer.json()["detail"]
    assert (answer.status_code, said) == (status, says)
    assert await events(analytics) == (status == 202)
