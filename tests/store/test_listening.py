"""Words between processes: each is heard once it is committed, and whoever cannot hear knows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from goodanalytics.config import new_token
from goodanalytics.store import listening
from goodanalytics.store.database import Database
from goodanalytics.store.listening import Listener, links_channel, say
from goodanalytics.store.tables import Tables

CHANNEL = links_channel("good_analytics")
LONG = 30.0  # seconds that none of these tests takes


class Ear:
    """A listener and what it heard."""

    def __init__(self, database: Database) -> None:
        self.heard: list[str | None] = []
        self.reports: list[BaseException] = []
        self.listener = Listener(
            database, CHANNEL, self.heard.append, new_token, lambda error, _: self.reports.append(error)
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONG):
            while not condition():
                await asyncio.sleep(0.005)

    async def listens(self) -> None:
        await self.until(lambda: self.listener.is_listening)


@pytest.fixture
async def ear(database: Database) -> AsyncIterator[Ear]:
    ear = Ear(database)
    ear.listener.start()
    yield ear
    await ear.listener.stop()


async def listening_backends(database: Database) -> list[int]:
    async with database.connect() as conn:
        found = await conn.execute(
            text(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
        )
        return list(found.scalars())


async def test_a_word_is_heard_when_it_is_committed(ear: Ear, database: Database) -> None:
    """In the order of the commits, by nobody before, and never when it was taken back."""
    await ear.listens()
    async with database.begin() as conn:
        await say(conn, CHANNEL, "taken back")
        await conn.rollback()
    async with database.begin() as late:
        await say(late, CHANNEL, "second")
        async with database.begin() as conn:
            await say(conn, CHANNEL, "first")
        await ear.until(lambda: len(ear.heard) == 2)
    await ear.until(lambda: len(ear.heard) == 3)

    assert ear.heard == [None, "first", "second"]


async def test_a_lost_connection_is_noticed_at_once_and_replaced(ear: Ear, database: Database) -> None:
    """When it is lost and when somebody listens again, everything may have changed."""
    await ear.listens()
    (pid,) = await listening_backends(database)
    async with database.connect() as conn:
        await conn.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    await ear.until(lambda: len(ear.heard) == 2)
    was_listening = ear.listener.is_listening
    await ear.listens()
    async with database.begin() as conn:
        await say(conn, CHANNEL, "again")
    await ear.until(lambda: len(ear.heard) == 4)

    assert (was_listening, ear.heard) == (False, [None, None, None, "again"])
    assert ear.reports == []


async def test_a_connection_that_hears_nothing_is_found_out(
    ear: Ear, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a pooler that hands the session to others: it looks alive, and its echo does not come."""
    monkeypatch.setattr(listening, "ECHO_EVERY", 0.02)
    monkeypatch.setattr(listening, "ECHO_SECONDS", 0.5)
    listener = ear.listener
    real, taken = listener._take, True

    def deaf(*arguments: object) -> None:
        if not taken:
            real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(listener, "_take", deaf)
    await listener.stop()
    listener.start()
    await ear.until(lambda: len(ear.reports) == 1)
    was_listening = listener.is_listening
    taken = False
    await ear.listens()

    assert not was_listening
    assert "session mode" in str(ear.reports[0])


async def test_listening_takes_no_connection_out_of_the_pool(database_url: str, tables: Tables) -> None:
    """A pool of one still has its one."""
    engine = create_async_engine(database_url, pool_size=1, max_overflow=0)
    ear = Ear(Database.open(engine, tables))
    ear.listener.start()
    await ear.listens()
    async with asyncio.timeout(LONG), engine.connect() as conn:
        one = (await conn.execute(text("SELECT 1"))).scalar_one()
    await ear.listener.stop()
    await engine.dispose()

    assert one == 1


async def test_stopping_hangs_up(ear: Ear, database: Database) -> None:
    """No connection is left at the server, and what is said then is not heard."""
    await ear.listens()
    await ear.listener.stop()
    async with asyncio.timeout(LONG):
        while await listening_backends(database):
            await asyncio.sleep(0.005)

    assert (ear.listener.is_listening, ear.heard) == (False, [None, None])


async def test_nobody_there_is_tried_for_ever(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage is the log's to tell of, and the host hears of it once."""
    pauses: list[int] = []

    class Pauses(tuple[float, ...]):
        __slots__ = ()

        def __getitem__(self, index: object) -> float:  # type: ignore[override]
            pauses.append(0)
            return 0.0

    monkeypatch.setattr(listening, "PAUSES", Pauses((0.0,)))
    ear = Ear(Database.open("postgresql+asyncpg://nobody@127.0.0.1:9/none", database.tables))
    ear.listener.start()
    await ear.until(lambda: len(pauses) > 3)
    ear.listener._database = database
    await ear.listens()
    await ear.listener.stop()

    assert ear.reports == []


def test_the_channel_of_a_long_schema_is_a_name() -> None:
    """PostgreSQL cuts names behind 63 bytes where it listens, and refuses them where it notifies."""
    assert len(links_channel("x" * 63)) == 63
