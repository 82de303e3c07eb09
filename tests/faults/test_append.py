"""The group commit when callers vanish, connections die and the log is stopped: nobody waits for ever, nothing is lost."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
import uvloop
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from goodanalytics import Analytics
from goodanalytics.config import DEFAULT_WORKSPACE
from goodanalytics.core import raw
from goodanalytics.core.hits import EventType, Hit, Signals
from goodanalytics.errors import DatabaseUnavailable
from goodanalytics.log import group_commit as log
from goodanalytics.log.postgres import copied

START = datetime(2026, 11, 1, 12, tzinfo=UTC)


def hit(event_id: UUID | None = None) -> Hit:
    return Hit(
        id=event_id or uuid4(),
        workspace_id=DEFAULT_WORKSPACE,
        received_at=START,
        occurred_at=START,
        event_type=EventType.PAGEVIEW,
        origin="browser",
        signals=Signals(anonymous_id="one-browser"),
    )


@pytest.fixture
async def analytics(engine, config):
    """On a host's engine, which does not look at a connection before it hands it out. Nothing is processed."""
    async with Analytics(engine, dataclasses.replace(config, worker=False)) as running:
        yield running


async def stored(analytics) -> list[UUID]:
    """The ids of the hits in the log, in its order."""
    async with analytics.database.connect() as conn:
        bodies = await conn.execute(text("SELECT body FROM good_analytics.hits ORDER BY id"))
        return [raw.decoded(row.body).id for row in bodies]


async def cut(url: str) -> None:
    """Let PostgreSQL end every other connection to this database."""
    engine = create_async_engine(url)
    async with engine.connect() as conn:
        await conn.execute(
            text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    await engine.dispose()


async def test_an_append_at_the_moment_when_both_flushes_end_is_written(analytics):
    """A flush that has looked for the last time must not count as running: nobody would write what comes just then."""

    async def append(times: int) -> None:
        for _ in range(times):
            await analytics.log.append([hit() for _ in range(log.FLUSH_ROWS)])  # a flush of its own

    async def be_busy() -> None:
        while True:  # so that the answers to both flushes are read in one turn of the loop
            time.sleep(0.01)
            await asyncio.sleep(0)

    busy = asyncio.ensure_future(be_busy())
    try:
        async with asyncio.timeout(30):
            for _ in range(10):
                await asyncio.gather(append(2), append(1))
    finally:
        busy.cancel()

    assert len(await stored(analytics)) == 30 * log.FLUSH_ROWS


async def test_a_caller_that_vanishes_takes_nobody_along(analytics):
    """A browser that closes its connection cancels its own wait; its hit is written at most once, its neighbours' are safe."""
    vanishing, staying = [hit() for _ in range(100)], [hit() for _ in range(100)]
    callers = [
        asyncio.ensure_future(analytics.log.append([one]))
        for pair in zip(vanishing, staying, strict=True)
        for one in pair
    ]
    await asyncio.sleep(0)  # each has asked
    for caller in callers[::2]:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    await analytics.log.stop()

    times = Counter(await stored(analytics))
    assert {one.id for one in staying} <= times.keys() <= {one.id for one in vanishing + staying}
    assert set(times.values()) == {1}


async def test_a_log_that_is_stopped_writes_what_it_was_given(analytics):
    """Appends that wait when the app is told to stop are answered, each with its commit."""
    callers = [asyncio.ensure_future(analytics.log.append([hit()])) for _ in range(500)]
    await asyncio.sleep(0)  # each has asked
    await analytics.log.stop()

    assert [caller.done() for caller in callers] == [True] * 500
    assert await asyncio.gather(*callers) == [None] * 500
    assert len(await stored(analytics)) == 500


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("end", ["read", "not read yet"])
async def test_a_pool_of_dead_connections_costs_no_caller_an_answer(end, loop, database_url, config):
    """After a restart of the server every connection in the pool is dead; an append finds its way past all of them."""

    async def restart() -> int:
        engine = create_async_engine(database_url)
        async with Analytics(engine, dataclasses.replace(config, worker=False)) as analytics:
            async with asyncio.TaskGroup() as group:
                for _ in range(5):
                    group.create_task(hold(engine))
            if end == "read":
                await cut(database_url)
            else:  # the loop stands still, so nobody has told asyncpg
                elsewhere(asyncio.run, cut(database_url))
            await analytics.log.append([hit()])
            found = len(await stored(analytics))
        await engine.dispose()
        return found

    assert await asyncio.to_thread(loop, restart()) == 1


def elsewhere(loop, work) -> None:
    """Run *work* in a thread of its own, and wait for it without turning our own loop."""
    thread = threading.Thread(target=loop, args=[work])
    thread.start()
    thread.join()


async def hold(engine) -> None:
    async with engine.connect() as conn:
        await conn.execute(text("SELECT pg_sleep(0.05)"))  # long enough for all five to be out at once
        await conn.rollback()


async def test_a_copy_whose_answer_was_lost_is_acknowledged_when_it_is_found_in_the_log(analytics):
    """A repeated COPY that meets its own rows knows that the first one was committed."""
    entry_id = uuid4()
    rows = copied([b"body"], [entry_id.bytes])
    await analytics.log.primary._copy_once(rows)

    await analytics.log.primary._copy_again(rows)

    async with analytics.database.connect() as conn:
        found = await conn.execute(text("SELECT id FROM good_analytics.hits"))
        assert [row.id for row in found] == [entry_id]


async def test_when_nobody_answers_all_who_wait_are_told_after_one_try(analytics):
    """A thousand hits before a mute server cost one time-out for each flush, not one for each batch."""
    tries = []
    mute = await asyncio.start_server(lambda *streams: tries.append(streams), "127.0.0.1")
    port = mute.sockets[0].getsockname()[1]
    engine = create_async_engine(f"postgresql+asyncpg://x@127.0.0.1:{port}/x", connect_args={"timeout": 0.3})
    waiting = Analytics(engine, analytics.config)

    answers = await asyncio.gather(
        *(waiting.log.append([hit()]) for _ in range(1_000)), return_exceptions=True
    )

    assert {type(answer) for answer in answers} == {DatabaseUnavailable}
    assert len(tries) <= log.FLUSHES
    assert waiting.log.primary.waiting == (0, 0)
    for _, writer in tries:
        writer.close()
    mute.close()
    await engine.dispose()
