"""SIGKILL of the app or of a worker, in the middle of the stream: what was acknowledged is one event, always."""

from __future__ import annotations

import asyncio
import random
import signal

BEACONS = 3_000
SEED = 7
COPIES_WAIT = (
    "SELECT count(*) > 0 FROM pg_stat_activity "
    "WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'COPY%'"
)


async def test_an_app_that_is_killed_at_random_points_loses_and_doubles_nothing(
    durable, launch, crowd, exact, wait_until
):
    """
    Three SIGKILLs within one stream: 202 means one event, and a beacon that is sent again is still one.

    The second one comes while PostgreSQL keeps every COPY waiting: whatever was answered 202 by then must have been
    stored before.
    """
    url, books = durable
    app = await launch(url)
    people = crowd(app.address)

    stream = asyncio.create_task(people.send(BEACONS))
    first, second, third = sorted(random.Random(SEED).sample(range(BEACONS // 10, BEACONS - BEACONS // 5), 3))
    await people.has_acknowledged(first)
    app.kill()
    await app.start()
    await people.has_acknowledged(second)
    async with books.connection() as conn, conn.transaction():
        await conn.execute("LOCK TABLE good_analytics.hits IN EXCLUSIVE MODE")
        await wait_until(lambda: books.one(COPIES_WAIT), "a flush waits")
        app.kill()
    await app.start()
    await people.has_acknowledged(third)
    app.kill()
    await app.start()
    await stream

    assert await people.compare(books) == exact
    assert people.sent - people.acknowledged <= people.given_up
    assert people.answers["broken"] > 0
    assert set(people.answers) <= {202, "broken", "hung up"}
    assert len(people.acknowledged) > BEACONS - 500
    assert set(people.redirects) <= {302, "broken"}  # each of the broken ones was asked for again
    assert people.safe_clicks == people.clicked


async def test_a_worker_that_is_killed_within_a_batch_leaves_its_hits_to_the_other_one(
    durable, launch, spawn, crowd, exact, wait_until
):
    """A batch is one transaction: what the dead worker had taken out of the log is back in it, whole."""
    url, books = durable
    await books.ask("CREATE ROLE doomed SUPERUSER LOGIN")
    app = await launch(url, GOODANALYTICS_WORKER="false")
    people = crowd(app.address)

    def worker(address: str, batch: int = 500):
        size = {"GOODANALYTICS_WORKER_INTERVAL": "0.01", "GOODANALYTICS_BATCH_SIZE": str(batch)}
        return spawn("-m", "goodanalytics", "worker", "--database", address, **size)

    def is_within_a_batch():
        return books.one(
            "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
            "WHERE l.locktype = 'advisory' AND a.usename = 'doomed')"
        )

    def is_gone():
        return books.one("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'doomed')")

    await people.send(BEACONS // 2)
    stream = asyncio.create_task(people.send(BEACONS // 2))
    kills = 0
    while kills < 2:
        doomed = worker(url.replace("goodanalytics@", "doomed@"), batch=20)
        await wait_until(is_within_a_batch, "the worker is within a batch")
        # Stopped it cannot commit any more: what it holds now, it dies with.
        doomed.signal(signal.SIGSTOP)
        kills += await is_within_a_batch()
        doomed.kill()
        await wait_until(is_gone, "PostgreSQL has noticed")
    left = await books.one("SELECT count(*) FROM hits")
    worker(url)
    await stream

    assert left > BEACONS // 4
    assert await people.compare(books) == exact
    assert people.acknowledged == people.sent
    assert len(people.acknowledged) == BEACONS
    assert set(people.redirects) == {302}
    assert people.safe_clicks == people.clicked
