"""
Hits that could not be processed: to be looked at, and to be put back into the log after a fix.

A hit keeps the id of its place in the log, so those that are put back come before what was appended later. The worker takes
them like all others; one that fails again is set aside again, with its new error. A hit whose bytes this version cannot
read would only come back at once, so it stays where it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core import raw
from goodanalytics.core.hits import Hit
from goodanalytics.log.postgres import shard_of
from goodanalytics.store.database import Database, run
from goodanalytics.store.tables import Tables

BATCH: Final = 500  # hits


@dataclass(frozen=True, slots=True)
class Rejected:
    """
    A hit that was set aside.

    Attributes:
        id: Of its place in the log; its first 48 bits are the milliseconds at which it came.
        error: Why it could not be processed, the last time that it was tried.
        hit: `None` when this version cannot read it.
    """

    id: UUID
    error: str
    rejected_at: datetime
    hit: Hit | None


@dataclass(frozen=True, slots=True)
class Progress:
    """
    How far it has come.

    Attributes:
        total: Hits that were set aside when it began.
        put_back: Hits that lie in the log again.
        unreadable: Hits that stay where they are.
    """

    total: int = 0
    put_back: int = 0
    unreadable: int = 0


async def rejected(database: Database, most: int = 1_000) -> list[Rejected]:
    """The oldest hits that are set aside, oldest first."""
    t = database.tables
    async with database.connect() as conn:
        found = await run(
            conn,
            f"SELECT id, body, error, rejected_at FROM {t.rejected_hits} ORDER BY id LIMIT :most",
            most=most,
        )
        return [Rejected(row.id, row.error, row.rejected_at, raw.decoded(row.body)) for row in found]


async def put_back(database: Database, batch: int = BATCH) -> AsyncIterator[Progress]:
    """
    Put everything that is set aside back into the log; tells of each batch when it is committed.

    Raises:
        DatabaseUnavailable: Nobody answers. What was told of is in the log.
    """
    t = database.tables
    async with database.connect() as conn:
        total = (await run(conn, f"SELECT count(*) FROM {t.rejected_hits}")).scalar_one()
    at = Progress(total=total)
    yield at
    after: UUID | None = UUID(int=0)
    while after is not None:
        async with database.begin() as conn:
            after, moved, unreadable = await _put_back(conn, t, after, batch)
        at = Progress(total, at.put_back + moved, at.unreadable + unreadable)
        yield at


async def _put_back(conn: AsyncConnection, t: Tables, after: UUID, most: int) -> tuple[UUID | None, int, int]:
    """The last id that was looked at, `None` at the end; how many were put back; how many could not be."""
    # Going on behind the last id, this run never meets again what the worker rejects meanwhile.
    found = (
        await run(
            conn,
            f"SELECT id, body FROM {t.rejected_hits} WHERE id > :after ORDER BY id LIMIT :most FOR UPDATE",
            after=after,
            most=most,
        )
    ).all()
    if not found:
        return None, 0, 0
    hits = [(row.id, row.body, raw.decoded(row.body)) for row in found]
    sound = [(shard_of(hit), entry_id, body) for entry_id, body, hit in hits if hit is not None]
    if sound:
        shards, ids, bodies = zip(*sound, strict=True)
        await run(
            conn,
            f"INSERT INTO {t.hits} (shard, id, body) SELECT * FROM "
            "unnest(CAST(:shards AS smallint[]), CAST(:ids AS uuid[]), CAST(:bodies AS bytea[])) ON CONFLICT DO NOTHING",
            shards=list(shards),
            ids=list(ids),
            bodies=list(bodies),
        )
        await run(conn, f"DELETE FROM {t.rejected_hits} WHERE id = ANY(CAST(:ids AS uuid[]))", ids=list(ids))
    return found[-1].id, len(sound), len(found) - len(sound)
