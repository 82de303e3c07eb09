"""
Whom an id or an identity points to, without making or changing anybody.

The answer is a visitor's row, not its canonical one: what a browser did belongs to that browser's own row, also after a
merge. One statement answers for a whole batch.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.store.database import as_json, run
from goodanalytics.store.tables import Tables

Signal = tuple[str, str]
"""The kind and the value of an identity, as the table `identities` holds them: `("anonymous_id", "b7…")`."""


async def find_by_ids(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, ids: Collection[UUID]
) -> set[UUID]:
    """Those of *ids* that are visitors of this workspace."""
    if not ids:
        return set()
    rows = await run(
        conn,
        f"SELECT id FROM {t.visitors} WHERE workspace_id = :workspace_id AND id = ANY(CAST(:ids AS uuid[]))",
        workspace_id=workspace_id,
        ids=list(ids),
    )
    return {row.id for row in rows}


async def find_by_signals(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, signals: Collection[Signal]
) -> dict[Signal, UUID]:
    """Each of *signals* that is known in this workspace, with the row that it points to."""
    if not signals:
        return {}
    rows = await run(
        conn,
        "SELECT i.kind, i.value, i.visitor_id "
        "FROM json_to_recordset(CAST(:signals AS json)) AS s (kind text, value text) "
        f"JOIN {t.identities} i ON i.workspace_id = :workspace_id AND i.kind = s.kind AND i.value = s.value",
        workspace_id=workspace_id,
        signals=as_json([{"kind": kind, "value": value} for kind, value in signals]),
    )
    return {(row.kind, row.value): row.visitor_id for row in rows}


async def members(conn: AsyncConnection, t: Tables, workspace_id: UUID, visitor_id: UUID) -> list[UUID]:
    """The ids of all rows that are the same person as *visitor_id*; none when nobody has that id."""
    rows = await run(
        conn,
        f"SELECT m.id FROM {t.visitors} v JOIN {t.visitors} m "
        "ON m.workspace_id = v.workspace_id AND m.canonical_id = v.canonical_id "
        "WHERE v.workspace_id = :workspace_id AND v.id = :visitor_id ORDER BY m.id",
        workspace_id=workspace_id,
        visitor_id=visitor_id,
    )
    return [row.id for row in rows]
