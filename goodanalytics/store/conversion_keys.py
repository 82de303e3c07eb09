"""
The keys of conversions: what was told as a lead, a sale or a refund is known when it is told again.

A conversion is its own receipt: its row, whose key is the hit's id, has the digest of what was said, for as long as it is kept.
Where there is no conversion, a row of nobody's keeps the key: of what a machine is said to have bought (`keep`), and of a forgotten
person's (`forget`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import null, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.conversions import KINDS, is_conversion, is_told_as_one
from goodanalytics.core.hits import Hit
from goodanalytics.core.identity_rows import RowKey
from goodanalytics.store.database import run
from goodanalytics.store.people import Stale
from goodanalytics.store.tables import Tables


async def repeated(conn: AsyncConnection, t: Tables, hits: Iterable[Hit]) -> dict[RowKey, str | None]:
    """Those of *hits* that were told as conversions before, by (workspace, id), each with the digest that was noted then."""
    asked = [(hit.workspace_id, hit.id) for hit in hits if is_told_as_one(hit)]
    if not asked:
        return {}
    found = await run(
        conn,
        "SELECT c.workspace_id, c.event_id, c.digest FROM unnest(CAST(:workspaces AS uuid[]), CAST(:events AS uuid[])) "
        f"AS k (workspace_id, event_id) JOIN {t.conversions} c USING (workspace_id, event_id)",
        workspaces=[workspace_id for workspace_id, _ in asked],
        events=[event_id for _, event_id in asked],
    )
    return {(row.workspace_id, row.event_id): row.digest for row in found}


_EMPTY: Final = {"visitor_id": UUID(int=0), "place": "", "touches": [], "contents": []}
"""What a row says that is there for its id."""


async def forget(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, visitor_ids: Collection[UUID], now: datetime
) -> None:
    """
    Empty the conversions of these visitors: nothing stays but their ids, by which they are known when they are told again.

    So is what a machine was said to have bought for them (`keep`), whose row is of nobody: their events, which are still there, know it.
    """
    emptied = {**_EMPTY, "kind": "forgotten", "occurred_at": now}
    c, e = t.conversions.c, t.events.c
    # An OR of the two would read all conversions.
    own = select(c.event_id).where(c.workspace_id == workspace_id, c.visitor_id.in_(visitor_ids))
    told = select(e.id).where(
        e.workspace_id == workspace_id, e.visitor_id.in_(visitor_ids), e.event_type.in_(KINDS)
    )
    nothing = {column.name: null() for column in c if column.nullable}
    await conn.execute(
        update(t.conversions)
        .where(c.workspace_id == workspace_id, c.event_id.in_(own.union(told)))
        .values(nothing | emptied)
    )


async def keep(conn: AsyncConnection, t: Tables, hits: Iterable[Hit]) -> None:
    """
    Note those of new *hits* that are told as conversions and are none, for a machine made them: their keys, and nothing else.

    Raises:
        Stale: One of them was told of by somebody else meanwhile, as in `conversions.record`.
    """
    rows = [
        {
            **_EMPTY,
            "workspace_id": hit.workspace_id,
            "event_id": hit.id,
            "kind": "machine",
            "occurred_at": hit.occurred_at,
            "digest": hit.digest,
        }
        for hit in hits
        if is_told_as_one(hit) and not is_conversion(hit)
    ]
    if not rows:
        return
    written = await conn.execute(insert(t.conversions).values(rows).on_conflict_do_nothing())
    if written.rowcount != len(rows):
        raise Stale


__all__ = ["forget", "keep", "repeated"]
