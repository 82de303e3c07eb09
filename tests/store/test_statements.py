"""What a batch costs: its statements are as many for five hits as for five hundred."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from goodanalytics import Analytics, Config
from goodanalytics.core.hits import EventType, Hit, Signals
from tests.conftest import FrozenClock


@contextmanager
def statements_of(analytics: Analytics) -> Iterator[list[str]]:
    """What the engine is asked meanwhile, and what the driver is asked past it."""
    said: list[str] = []
    heard: set[Any] = set()

    def hear(_conn: object, _cursor: object, statement: str, *_rest: object) -> None:
        said.append(statement)

    def hear_past(record: Any) -> None:
        said.append(record.query)

    def listen_past(connection: Any, *_rest: object) -> None:
        heard.add(connection.driver_connection)
        connection.driver_connection.add_query_logger(hear_past)

    engine = analytics.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", hear)
    event.listen(engine, "checkout", listen_past)
    try:
        yield said
    finally:
        event.remove(engine, "before_cursor_execute", hear)
        event.remove(engine, "checkout", listen_past)
        for connection in heard:
            connection.remove_query_logger(hear_past)


def hits_of(people: int, analytics: Analytics, clock: FrozenClock) -> list[Hit]:
    """Each person comes, looks around, says who they are and buys."""

    def hit(number: int, event_type: EventType, **more: object) -> Hit:
        clock.advance(timedelta(milliseconds=1))
        facts = {"signals": Signals(anonymous_id=f"browser {number}")} | more
        return Hit(
            id=uuid.uuid4(),
            workspace_id=analytics.config.workspace,
            received_at=clock(),
            occurred_at=clock(),
            event_type=event_type,
            origin="browser",
            url=f"https://shop.example/{number}?utm_source=letter",
            **facts,  # type: ignore[arg-type]  # members of Hit
        )

    return [
        made
        for n in range(people)
        for made in (
            hit(n, EventType.PAGEVIEW),
            hit(n, EventType.ENGAGEMENT, engaged_ms=900),
            hit(
                n,
                EventType.IDENTIFY,
                trusted=True,
                signals=Signals(anonymous_id=f"browser {n}", external_id=f"person {n // 2}"),
            ),
            hit(n, EventType.SALE, trusted=True, amount_cents=100, currency="EUR"),
            hit(n, EventType.PAGEVIEW, signals=Signals(anonymous_id=f"bot {n}")),
        )
    ]


@pytest.mark.parametrize("second_time", [False, True], ids=["new people", "people who were here before"])
async def test_a_batch_costs_the_same_statements_whatever_its_size(
    database_url: str, config: Config, clock: FrozenClock, second_time: bool
) -> None:
    """New people, merges, sales and bots among them: the worker's transaction asks as often for 10 hits as for 500."""
    counts = []
    for people in (2, 100):
        own = dataclasses.replace(config, worker=False, workspace=uuid.uuid4(), batch_size=500)
        async with Analytics(database_url, own) as analytics:
            if second_time:
                await analytics.log.append(hits_of(people, analytics, clock))
                await analytics.drain()
                clock.advance(timedelta(minutes=5))
            await analytics.log.append(hits_of(people, analytics, clock))
            with statements_of(analytics) as said:
                assert await analytics.worker.work() == 5 * people
                await asyncio.sleep(0)  # the driver tells of its last one in the loop's next turn
            counts.append([statement.split(None, 1)[0] for statement in said])

    few, many = counts
    assert few == many
    assert len(many) <= 30


async def test_a_batch_without_conversions_asks_nothing_about_them(
    database_url: str, config: Config, clock: FrozenClock
) -> None:
    """Whoever only looks around costs no look at sales, the outbox or who listens to it."""
    async with Analytics(database_url, dataclasses.replace(config, worker=False)) as analytics:
        hits = [hit for hit in hits_of(3, analytics, clock) if not hit.trusted]
        with statements_of(analytics) as said:
            await analytics.ingest.now(hits)
            await asyncio.sleep(0)

    assert sum("good_analytics.events" in statement for statement in said) == 1
    assert [s for s in said if any(word in s for word in ("conversions", "dispatches", "webhooks"))] == []
