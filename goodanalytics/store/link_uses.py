"""
The uses of links with `max_clicks`: one row each, numbered from 1, and never one too many.

The links' own rows are locked first, so that the numbers follow those of every use that was taken before, in any process. Uses
that are asked for together share the one short transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.store.database import as_json, run
from goodanalytics.store.tables import Tables


class Claim(NamedTuple):
    """A click that wants to use a link."""

    workspace_id: UUID
    link_id: UUID
    click_id: UUID


async def take(conn: AsyncConnection, t: Tables, claims: Sequence[Claim], now: datetime) -> set[UUID]:
    """
    The clicks among *claims* that get a use, first come, first served. A link that is not in use has none.

    They have it when the transaction of *conn* commits.
    """
    rows = as_json([{**claim._asdict(), "place": place} for place, claim in enumerate(claims)])
    asked = "json_to_recordset(CAST(:rows AS json)) AS c (workspace_id uuid, link_id uuid, click_id uuid, place int)"
    # Everybody locks in one order, so nobody waits in a circle.
    await run(
        conn,
        f"SELECT FROM {t.links} l WHERE (l.workspace_id, l.id) IN (SELECT c.workspace_id, c.link_id FROM {asked}) "
        "ORDER BY l.workspace_id, l.id FOR NO KEY UPDATE",
        rows=rows,
    )
    # A statement of its own: having waited for the lock, it sees what was taken meanwhile.
    taken = await run(
        conn,
        f"INSERT INTO {t.link_uses} (workspace_id, link_id, number, click_id, taken_at) "
        "SELECT w.workspace_id, w.link_id, before.uses + w.place, w.click_id, CAST(:now AS timestamptz) FROM ("
        "SELECT c.workspace_id, c.link_id, c.click_id, "
        "row_number() OVER (PARTITION BY c.workspace_id, c.link_id ORDER BY c.place) AS place "
        f"FROM {asked}) AS w "
        f"JOIN {t.links} l ON l.workspace_id = w.workspace_id AND l.id = w.link_id AND l.archived_at IS NULL, "
        f"LATERAL (SELECT coalesce(max(u.number), 0) AS uses FROM {t.link_uses} u "
        "WHERE u.workspace_id = w.workspace_id AND u.link_id = w.link_id) AS before "
        "WHERE l.max_clicks IS NULL OR before.uses + w.place <= l.max_clicks RETURNING click_id",
        rows=rows,
        now=now,
    )
    return {row.click_id for row in taken}
