"""The worker when transactions fail or are broken off: it tries again, and neither loses, doubles nor sets aside a hit."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from goodanalytics import Analytics
from goodanalytics.config import DEFAULT_WORKSPACE
from goodanalytics.core.hits import EventType, Hit, Signals
from goodanalytics.core.outcomes import Outcome
from goodanalytics.errors import Busy, DatabaseUnavailable

START = datetime(2026, 11, 1, 12, tzinfo=UTC)


def hit(visitor: UUID | None = None, browser: str | None = None) -> Hit:
    return Hit(
        id=uuid4(),
        workspace_id=DEFAULT_WORKSPACE,
        received_at=START,
        occurred_at=START,
        event_type=EventType.PAGEVIEW,
        origin="browser",
        signals=Signals(visitor_id=visitor, anonymous_id=browser),
    )


@pytest.fixture
async def analytics(database_url, config):
    async with Analytics(database_url, dataclasses.replace(config, worker=False)) as running:
        yield running


async def ask(analytics, question: str):
    async with analytics.database.connect() as conn:
        return (await conn.execute(text(question))).scalar_one()


async def test_a_worker_that_falls_silent_within_a_batch_loses_it_to_the_next_one(analytics, monkeypatch):
    """Its machine is gone, or it hangs: nobody tells PostgreSQL, and its hits are free for others all the same."""
    monkeypatch.setattr("goodanalytics.log.postgres.LEASE", timedelta(seconds=0.2))
    await analytics.log.append([hit(browser="one-browser") for _ in range(3)])

    async def fall_silent() -> None:
        async with analytics.database.begin() as conn:
            assert len(await analytics.log.primary.claim(conn, 10)) == 3
            async with asyncio.timeout(60):
                assert await analytics.worker.drain() == 3
            await conn.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailable):
        await fall_silent()
    assert len(await events(analytics)) == 3


async def test_a_batch_that_is_never_answered_is_begun_anew(analytics, errors, monkeypatch, wait_until):
    """A server that vanished without a word is not waited for for ever; the worker says so and goes on by itself."""
    monkeypatch.setattr("goodanalytics.worker.LONGEST", timedelta(seconds=0.3))
    await analytics.log.append([hit(browser="one-browser") for _ in range(3)])
    async with analytics.database.begin() as conn:
        await conn.execute(text("LOCK TABLE good_analytics.visitors IN ACCESS EXCLUSIVE MODE"))
        analytics.worker.start()
        await wait_until(lambda: errors, "the worker gives up")
    monkeypatch.undo()

    async def is_done() -> bool:
        return len(await events(analytics)) == 3

    await wait_until(is_done, "the worker has come back")
    await analytics.worker.stop()
    assert {type(error) for error in errors} == {DatabaseUnavailable}
    assert "was broken off" in str(errors[0])


async def set_for_new_connections(analytics, setting: str, value: str) -> None:
    async with analytics.database.begin() as conn:
        name = (await conn.execute(text("SELECT current_database()"))).scalar_one()
        await conn.execute(text(f"ALTER DATABASE {name} SET {setting} = '{value}'"))
    await analytics.database.engine.dispose()


async def events(analytics) -> list[UUID]:
    async with analytics.database.connect() as conn:
        return [row.id for row in await conn.execute(text("SELECT id FROM good_analytics.events"))]


async def test_a_worker_that_is_stopped_within_a_batch_leaves_it_to_the_next_start(
    analytics, errors, wait_until
):
    """Stopping breaks off a transaction at any point of it; the hits are still in the log."""
    sent = [hit(browser=f"browser-{number % 7}") for number in range(300)]
    await analytics.log.append(sent)
    within = (
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid() "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
    )
    for _ in range(5):
        analytics.worker.start()
        await wait_until(lambda: ask(analytics, within), "the worker is within a batch")
        await analytics.worker.stop()
        analytics.log.primary._wake.clear()
        assert set(await events(analytics)) in (set(), {one.id for one in sent})
        if await events(analytics):
            break
    await analytics.drain()

    assert sorted(await events(analytics)) == sorted(one.id for one in sent)
    assert errors == []


async def test_a_lock_that_never_comes_free_is_busy_and_one_that_does_is_waited_for(analytics, wait_until):
    """A transaction of our own that lost to another one is tried again; the caller never sees PostgreSQL's error."""
    await set_for_new_connections(analytics, "lock_timeout", "20ms")
    visitor = await analytics.resolve({"anonymous_id": "one-browser"})
    async with analytics.database.begin() as holding:
        await holding.execute(text("SELECT FROM good_analytics.visitors FOR UPDATE"))
        with pytest.raises(Busy):
            await analytics.sale(visitor, amount_cents=500, currency="EUR")
        selling = asyncio.ensure_future(analytics.sale(visitor, amount_cents=900, currency="EUR"))
        await wait_until(lambda: is_waiting(analytics), "the sale waits for the visitor")
    await selling

    assert (await analytics.visitors.get(visitor)).ltv == {"EUR": 900}


async def test_the_one_who_loses_a_deadlock_is_not_told_but_tried_again(analytics, engine, wait_until):
    """Two transactions that wait for each other: PostgreSQL breaks ours off, and both sales count in the end."""
    await set_for_new_connections(analytics, "deadlock_timeout", "2s")
    one, two = sorted([(await analytics.resolve({"anonymous_id": name})).id for name in ("a", "b")])
    async with engine.connect() as conn, conn.begin():
        await conn.execute(text("SET LOCAL deadlock_timeout = '1min'"))  # ours looks first, and goes
        await analytics.sale(two, amount_cents=10, currency="EUR", connection=conn)
        batch = asyncio.ensure_future(analytics.ingest.now([hit(visitor=one), hit(visitor=two)]))
        await wait_until(
            lambda: is_waiting(analytics), "our batch holds the first visitor and waits for the second"
        )
        await analytics.sale(one, amount_cents=20, currency="EUR", connection=conn)
    outcomes = await batch

    assert [outcome.status for outcome in outcomes] == ["recorded", "recorded"]
    people = [await analytics.visitors.get(visitor) for visitor in (one, two)]
    assert [(p.ltv, p.total_pageviews) for p in people] == [({"EUR": 20}, 1), ({"EUR": 10}, 1)]


async def test_a_batch_that_loses_to_another_transaction_stays_in_the_log(analytics, wait_until):
    """What passes is no fault of the hits: none is set aside, and the next look processes them."""
    await set_for_new_connections(analytics, "lock_timeout", "20ms")
    await analytics.resolve({"anonymous_id": "one-browser"})
    await analytics.log.append([hit(browser="one-browser") for _ in range(3)])
    async with analytics.database.begin() as holding:
        await holding.execute(text("SELECT FROM good_analytics.visitors FOR UPDATE"))
        with pytest.raises(DBAPIError, match="lock timeout"):
            await analytics.worker.work()

    assert await ask(analytics, "SELECT count(*) FROM good_analytics.rejected_hits") == 0
    assert await analytics.worker.work() == 3


async def claim_and_fail(analytics) -> None:
    async with analytics.database.begin() as conn:
        assert len(await analytics.log.primary.claim(conn, 10)) == 1
        raise ZeroDivisionError


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "REPEATABLE READ", "SERIALIZABLE"])
async def test_a_hosts_isolation_level_is_not_ours(level, database_url, config):
    """An engine that commits by itself would tear a batch apart; one that works on snapshots would never see who won."""
    engine = create_async_engine(database_url, isolation_level=level)
    async with Analytics(engine, dataclasses.replace(config, worker=False)) as analytics:
        await analytics.log.append([hit(browser="one-browser")])
        with pytest.raises(ZeroDivisionError):
            await claim_and_fail(analytics)
        assert await ask(analytics, "SELECT count(*) FROM good_analytics.hits") == 1

        async with analytics.database.begin() as conn:
            found = await conn.execute(text("SHOW transaction_isolation"))
            assert found.scalar_one() == "read committed"
    await engine.dispose()


async def test_a_worker_outlives_the_server(mortal_server, migrated, launch, spawn, crowd, exact, wait_until):
    """`goodanalytics worker` goes on by itself when the database is back; the app's appends cannot wake it."""
    url, books = await migrated(mortal_server)
    worker = spawn("-m", "goodanalytics", "worker", "--database", url, GOODANALYTICS_WORKER="false")
    app = await launch(url, GOODANALYTICS_WORKER="false")
    people = crowd(app.address)
    await people.send(50)
    await wait_until(books.is_settled, "the worker works, also in the app's own environment")

    mortal_server.stop()
    await wait_until(lambda: "looking into the log" in worker.said(), "the worker has noticed")
    await asyncio.to_thread(mortal_server.start)
    await people.send(50)

    assert await people.compare(books) == exact
    assert worker.is_running


async def test_worker_once_processes_the_log_says_how_much_and_ends(durable, launch, spawn, crowd, exact):
    """`goodanalytics worker --once`, for cron."""
    url, books = durable
    app = await launch(url, GOODANALYTICS_WORKER="false")
    people = crowd(app.address)
    await people.send(120)
    await asyncio.to_thread(app.stop)
    in_log = await books.one("SELECT count(*) FROM hits")

    once = spawn(
        "-m", "goodanalytics", "worker", "--once", "--database", url, GOODANALYTICS_WORKER_INTERVAL="0.01"
    )
    assert await asyncio.to_thread(once.child.wait, 60) == 0

    assert in_log >= 120
    assert once.said() == f"Processed {in_log} hits.\n"
    assert await people.compare(books) == exact


async def is_waiting(analytics) -> bool:
    return await ask(
        analytics,
        "SELECT EXISTS (SELECT FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock')",
    )


@pytest.mark.parametrize("is_on", [True, False])
async def test_the_cycle_collector_rests_during_a_batch_and_is_afterwards_as_the_host_had_it(
    analytics, monkeypatch, is_on
):
    """Also when the batch fails; a collector that the host has switched off is not switched on."""
    seen = []

    async def process(_self, _conn, hits):
        seen.append(gc.isenabled())
        if len(seen) == 1:
            raise Busy("The first batch fails")
        return [Outcome(one.id, "dropped") for one in hits]

    monkeypatch.setattr("goodanalytics.ingest.Ingest.process", process)
    await analytics.log.append([hit()])
    (gc.enable if is_on else gc.disable)()
    try:
        with pytest.raises(Busy):
            await analytics.worker.work()
        after_failure = gc.isenabled()
        taken = await analytics.worker.work()
        after = gc.isenabled()
    finally:
        gc.enable()

    assert (taken, seen, after_failure, after) == (1, [False, False], is_on, is_on)


async def test_a_batch_that_waits_does_not_keep_the_collector_away(analytics, monkeypatch, wait_until):
    """A batch may wait for a lock for long; the host's own cycles are collected meanwhile."""
    monkeypatch.setattr("goodanalytics.worker.COLLECTOR_RESTS", 0.0)
    released = asyncio.Event()

    async def process(_self, _conn, hits):
        await released.wait()
        return [Outcome(one.id, "dropped") for one in hits]

    monkeypatch.setattr("goodanalytics.ingest.Ingest.process", process)
    await analytics.log.append([hit()])
    working = asyncio.create_task(analytics.worker.work())
    await wait_until(lambda: not working.done() and gc.isenabled(), "the collector is back")
    released.set()

    assert await working == 1
