"""Rows put straight into the tables, so that what reads them is tested apart from what writes them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Table, insert
from sqlalchemy.event import listen, remove

from goodanalytics.store.database import Database

WORKSPACE = UUID(int=7)


def at(written: str) -> datetime:
    """`2026-11-02 10:00`, in UTC unless *written* ends with an offset."""
    moment = datetime.fromisoformat(written)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Seed:
    """
    Writes rows of one workspace with unremarkable values where a test has nothing to say.

    Visitors, sessions and links are named by small numbers: number 3 has the id `UUID(int=3)`. Times are written as `at`
    reads them.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.workspace_id = WORKSPACE
        self._events = itertools.count(1_000)

    async def visitor(
        self, number: int, *, of: int | None = None, seen: str = "2026-11-02 10:00", **columns: Any
    ):
        """A visitor; *of* is the number of the person that it was merged into."""
        row = {
            "id": UUID(int=number),
            "canonical_id": UUID(int=of or number),
            "status": "anonymous",
            "traits": {},
            "first_seen_at": at(seen),
            "last_seen_at": at(seen),
            "geo": {},
            "device": {},
            "platform_signals": {},
            "total_sessions": 0,
            "total_pageviews": 0,
            "total_events": 0,
            "ltv": {},
        }
        await self.put(self.database.tables.visitors, row | columns)

    async def session(self, number: int, visitor: int, started: str = "2026-11-02 10:00", **columns: Any):
        """A session of one pageview: a bounce without a source."""
        row = {
            "id": UUID(int=number),
            "visitor_id": UUID(int=visitor),
            "started_at": at(started),
            "last_event_at": at(started),
            "pageviews": 1,
            "events": 1,
            "duration_ms": 0,
            "engaged_ms": 0,
            "is_bounce": True,
            "is_engaged": False,
            "source": "direct",
            "medium": "direct",
            "channel": "direct",
            "acquisition": {},
        }
        await self.put(self.database.tables.sessions, row | columns)

    async def event(
        self,
        visitor: int,
        occurred: str = "2026-11-02 10:00",
        kind: str = "pageview",
        *,
        session: int | None = None,
        link: int | None = None,
        **columns: Any,
    ) -> UUID:
        """An event, trusted, direct, on no page; its id is higher than that of the event before."""
        row = {
            "id": UUID(int=next(self._events)),
            "visitor_id": UUID(int=visitor),
            "session_id": None if session is None else UUID(int=session),
            "link_id": None if link is None else UUID(int=link),
            "occurred_at": at(occurred),
            "received_at": at(occurred),
            "event_type": kind,
            "origin": "browser",
            "trusted": True,
            "source": "direct",
            "medium": "direct",
            "channel": "direct",
            "properties": {},
        }
        await self.put(self.database.tables.events, row | columns)
        return row["id"]

    async def link(self, number: int, key: str, domain: str = "acme.test", **columns: Any):
        """A short link."""
        row = {
            "id": UUID(int=number),
            "domain": domain,
            "key": key,
            "url": "https://acme.test/",
            "link_type": "short",
            "rules": [],
            "variants": [],
            "redirect_status": 302,
            "forward_path": False,
            "forward_query": True,
            "cloaked": False,
            "indexed": False,
            "tags": [],
            "metadata": {},
            "created_at": at("2026-11-01"),
            "updated_at": at("2026-11-01"),
        }
        await self.put(self.database.tables.links, row | columns)

    def time(self, written: str) -> datetime:
        """As `at` reads it."""
        return at(written)

    async def put(self, table: Table, row: dict[str, Any]) -> None:
        """Any row, in this seed's workspace unless it names another."""
        async with self.database.begin() as conn:
            await conn.execute(insert(table).values({"workspace_id": self.workspace_id} | row))


@asynccontextmanager
async def statements(database: Database) -> AsyncIterator[list[tuple[str, Any]]]:
    """What connections taken from now on say about our tables, with the values; also what does not go through SQLAlchemy."""
    said: list[tuple[str, Any]] = []

    def note(record: Any) -> None:
        if "good_analytics." in record.query:
            said.append((record.query, record.args))

    def taken(connection: Any, *_: Any) -> None:
        connection.driver_connection.add_query_logger(note)

    engine = database.engine.sync_engine
    listen(engine, "checkout", taken)
    try:
        yield said
    finally:
        remove(engine, "checkout", taken)


@pytest.fixture
def seed(database: Database) -> Seed:
    """Puts rows into this test's database."""
    return Seed(database)
