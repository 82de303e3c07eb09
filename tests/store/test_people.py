"""Reading and locking the people of a batch: how many statements, which rows, and what a wait for others brings to light."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from goodanalytics import Analytics, Config
from goodanalytics.core.hits import EventType, Hit, Signals
from goodanalytics.store import database
from goodanalytics.store.database import is_lost, run
from goodanalytics.store.people import Stale
from tests.store.conftest import statements


@pytest.fixture
async def analytics(database_url: str, config: Config) -> AsyncIterator[Analytics]:
    async with Analytics(database_url, config) as running:
        yield running


def a_hit(analytics: Analytics, browser: str, **facts: Any) -> Hit:
    now = analytics.config.clock.advance(timedelta(seconds=1))
    signals = {name: facts.pop(name) for name in list(facts) if name in Signals.__struct_fields__}
    defaults = {"event_type": EventType.PAGEVIEW, "origin": "browser"}
    return Hit(
        id=analytics.config.new_id(), workspace_id=analytics.config.workspace, received_at=now, occurred_at=now,
        signals=Signals(anonymous_id=browser, **signals), **(defaults | facts),
    )  # fmt: skip


async def seen(analytics: Analytics, *browsers: str) -> list[UUID]:
    outcomes = await analytics.ingest.now([a_hit(analytics, browser) for browser in browsers])
    return [outcome.visitor_id for outcome in outcomes]


async def members(analytics: Analytics, hit: Hit) -> set[UUID]:
    """All rows that are read and locked for *hit*."""
    async with analytics.database.begin() as conn:
        people, _ = await analytics.ingest.resolve(conn, [hit])
    return {member for _, member in people.rows}


@pytest.mark.parametrize("number", [1, 500])
async def test_one_statement_resolves_a_batch_of_known_visitors(analytics: Analytics, number: int) -> None:
    """However many hits of however many visitors: their values, their persons and the locks are one statement."""
    browsers = [f"browser {n}" for n in range(number)]
    known = await seen(analytics, *browsers)
    hits = [a_hit(analytics, browser) for browser in browsers]
    async with statements(analytics.database) as said, analytics.database.begin() as conn:
        _, taken = await analytics.ingest.resolve(conn, hits)
        await asyncio.sleep(0)  # the driver tells of a statement at the end of the loop's turn

    assert [one.person_id for one in taken] == known
    assert len(said) == 1


@pytest.mark.parametrize("kind", ["known", "new", "signing in"])
async def test_statements_of_a_batch_do_not_grow_with_it(analytics: Analytics, kind: str) -> None:
    """Ten times the hits are written by as many statements, whatever they tell."""

    def batch(number: int, size: int) -> list[Hit]:
        names = [f"{kind} {number}/{n}" for n in range(size)]
        if kind != "signing in":
            return [a_hit(analytics, name) for name in names]
        said = {"trusted": True, "email": "shared@example.com"}
        return [a_hit(analytics, name, external_id=f"of {name}", **said) for name in names]

    counts = []
    for number, size in enumerate((5, 50)):
        if kind == "known":
            await analytics.ingest.now(batch(number, size))
        hits = batch(number, size)
        async with statements(analytics.database) as said:
            await analytics.ingest.now(hits)
            await asyncio.sleep(0)  # as above
        counts.append(len(said))

    assert counts[0] == counts[1] <= 16


async def test_a_plan_that_was_made_for_small_tables_is_not_kept(
    analytics: Analytics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The same statement asked thirty times is planned anew on the way: with the plan of the first, a site that grows within a minute
    would read whole tables for each hit until they are analyzed.
    """
    monkeypatch.setattr(database, "_asked", itertools.count(1))  # as in a process that has just begun
    async with statements(analytics.database) as said:
        for number in range(30):
            await seen(analytics, f"browser {number}")
        await asyncio.sleep(0)  # as above
    texts = {sql for sql, _ in said if sql.startswith("WITH i AS")}

    assert len({text.partition("/*")[0] for text in texts}) == 1
    assert len(texts) > 1


async def test_a_value_of_any_row_leads_to_all_rows_of_the_person(analytics: Analytics) -> None:
    """Also where it points to a row that names nobody any more."""
    rows = await seen(analytics, "phone", "laptop", "tablet")
    for other in rows[1:]:
        await analytics.visitors.merge(rows[0], other, reason="test")

    for browser in ("phone", "laptop", "tablet"):
        assert await members(analytics, a_hit(analytics, browser)) == set(rows)
    assert await members(analytics, a_hit(analytics, "unknown", visitor_id=rows[2])) == set(rows)


async def test_two_values_of_one_person_are_that_person_once(analytics: Analytics) -> None:
    """A cookie and an address that point to one row, and two rows of one person, lock each row once."""
    (phone,) = await seen(analytics, "phone")
    await analytics.identify(phone, email="ann@example.com", external_id="ann")
    (laptop,) = await seen(analytics, "laptop")
    await analytics.identify(laptop, email="ann@example.com")
    hit = a_hit(analytics, "laptop", trusted=True, email="ann@example.com", external_id="ann")

    assert await members(analytics, hit) == {phone, laptop}


async def test_every_row_of_the_person_is_locked(analytics: Analytics) -> None:
    """Nobody else gets at a row of whom a batch has resolved, named by its evidence or not."""
    rows = await seen(analytics, "phone", "laptop")
    await analytics.visitors.merge(*rows, reason="test")
    hit = a_hit(analytics, "phone")
    async with analytics.database.begin() as conn, analytics.database.begin() as other:
        await analytics.ingest.resolve(conn, [hit])
        found = await run(
            other, f"SELECT id FROM {analytics.database.tables.visitors} FOR UPDATE SKIP LOCKED"
        )

        assert found.all() == []


@pytest.fixture
def meanwhile(analytics: Analytics) -> Callable[..., Awaitable[Any]]:
    """Resolve *hit* while *act* has changed its people and is not committed; what comes out once it is."""

    async def resolving(hit: Hit) -> set[UUID] | str:
        try:
            return await members(analytics, hit)
        except Stale:
            return "stale"

    async def wait(act: Callable[[Any], Awaitable[Any]], hit: Hit) -> set[UUID] | str:
        async with analytics.database.begin() as conn:
            await act(conn)
            waiting = asyncio.ensure_future(resolving(hit))
            async with asyncio.timeout(30):
                while not await somebody_waits(analytics):
                    await asyncio.sleep(0.01)
        return await waiting

    return wait


async def somebody_waits(analytics: Analytics) -> bool:
    async with analytics.database.connect() as conn:
        found = await run(
            conn,
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')",
        )
        return bool(found.scalar_one())


async def test_waiting_for_who_only_counted_on_changes_nothing(analytics: Analytics, meanwhile: Any) -> None:
    """Another batch wrote the same rows and nobody else came: the locks are good, and nothing begins again."""
    rows = await seen(analytics, "phone", "laptop")
    await analytics.visitors.merge(*rows, reason="test")

    async def count(conn: Any) -> None:
        await analytics.ingest.process(conn, [a_hit(analytics, "phone")])

    assert await meanwhile(count, a_hit(analytics, "laptop")) == set(rows)


@pytest.mark.parametrize("pointed", ["phone", "laptop"], ids=["the winner", "the loser"])
async def test_waiting_through_a_merge_begins_again(
    analytics: Analytics, meanwhile: Any, pointed: str
) -> None:
    """Rows that came to the person while we waited were not seen, whichever of the two the hit points to."""
    rows = await seen(analytics, "phone", "laptop")
    ann = {"trusted": True, "event_type": EventType.IDENTIFY, "origin": "server", "email": "ann@example.com"}
    await analytics.ingest.now([a_hit(analytics, "phone", **ann)])

    async def merge(conn: Any) -> None:
        await analytics.ingest.process(conn, [a_hit(analytics, "laptop", **ann)])

    hit = a_hit(analytics, pointed)
    assert await meanwhile(merge, hit) == "stale"
    assert await members(analytics, hit) == set(rows)


@pytest.mark.parametrize("by", ["us", "the server"])
async def test_a_lost_connection_is_told_as_one(analytics: Analytics, by: str) -> None:
    """What the driver says of a statement of ours is what SQLAlchemy would say, without the values."""
    async with analytics.database.engine.connect() as conn:
        pid = (await conn.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one()
        raw: Any = (await conn.get_raw_connection()).driver_connection
        if by == "us":
            raw.terminate()
        else:
            async with analytics.database.begin() as other:
                await other.exec_driver_sql(f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(DBAPIError) as told:
            await analytics.ingest.resolve(conn, [a_hit(analytics, "secret-cookie")])

    assert is_lost(told.value)
    assert "secret-cookie" not in str(told.value)


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_hosts_orm_session_takes_part(analytics: Analytics, is_kept: bool) -> None:
    """An `AsyncSession` is as good as a connection: what is said in it commits or vanishes with it."""
    (ann,) = await seen(analytics, "ann")
    async with AsyncSession(analytics.database.engine) as session:
        known = await analytics.identify(ann, external_id="ann", connection=session)
        await analytics.sale(known, amount_cents=100, currency="EUR", connection=session)
        await (session.commit() if is_kept else session.rollback())
    found = await analytics.visitors.get(ann)

    assert (found.external_id, found.ltv) == (("ann", {"EUR": 100}) if is_kept else (None, {}))


async def test_forty_on_one_person_all_get_through(analytics: Analytics) -> None:
    """Whoever lost waits in line and then keeps its locks, so that nobody loses for ever; nobody is told `Busy`."""
    names = [f"browser {number}" for number in range(40)]
    await seen(analytics, *names)
    ann = {"trusted": True, "event_type": EventType.IDENTIFY, "origin": "server", "phone": "+4930123456"}
    hits = [a_hit(analytics, name, **ann) for name in names]
    await asyncio.gather(*(analytics.ingest.now([hit]) for hit in hits))

    assert (
        len(await members(analytics, a_hit(analytics, names[0]))) == 21
    )  # as many as `merges_per_day` lets one have
