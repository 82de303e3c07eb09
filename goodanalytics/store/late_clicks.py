"""
A click that is processed after its landing: what was written of the visit meanwhile learns the link and the source.

Click and landing of different hosts lie in different shards, so either may come first. `core.plan` corrects the visit; here are
its events that were written before, of whichever browser of the person, by the rule of `core.late_clicks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.late_clicks import OF_SOURCE
from goodanalytics.core.people import People
from goodanalytics.core.sessions import Session
from goodanalytics.store import link_days
from goodanalytics.store.database import as_json, fetch
from goodanalytics.store.tables import Tables


async def catch_up(
    conn: AsyncConnection,
    t: Tables,
    people: People,
    visits: Sequence[tuple[Session, Session]],
    now: datetime,
) -> None:
    """
    Correct the events of *visits*, each as it was and as it is; no statement where there are none.

    Args:
        people: Who the batch is about; the visits' locks are theirs.
        now: Tells which days of links are over.
    """
    if not visits:
        return
    rows = [
        {
            "workspace_id": was.workspace_id,
            "visitor_id": member,
            "session_id": was.id,
            "since": was.started_at,
            "until": was.last_event_at,
            "link_id": known.link_id,
            "was": was.acquisition,
            **{name: getattr(known, name) for name in OF_SOURCE},
        }
        for was, known in visits
        for member in sorted(people.company(was.workspace_id, was.visitor_id))
    ]
    written = await fetch(conn, _correcting(t), as_json(rows))
    await link_days.touch(
        conn,
        t,
        [{"workspace_id": row[0], "link_id": row[1], "occurred_at": row[2]} for row in written],
        now,
    )


@lru_cache(maxsize=64)
def _correcting(t: Tables) -> str:
    sources = ", ".join(
        f"{name} = CASE WHEN e.acquisition = r.was THEN r.{name} ELSE e.{name} END" for name in OF_SOURCE
    )
    return (
        f"UPDATE {t.events} e SET link_id = r.link_id, {sources} FROM (SELECT r.*, k.occurred_at, k.id "
        "FROM json_to_recordset($1::text::json) AS r (workspace_id uuid, visitor_id uuid, session_id uuid, since timestamptz, "
        "until timestamptz, link_id uuid, was jsonb, source text, medium text, channel text, campaign text, acquisition jsonb), "
        # OFFSET keeps it a look-up in the key, whatever the planner believes of a young partition.
        f"LATERAL (SELECT e.occurred_at, e.id FROM {t.events} e WHERE e.workspace_id = r.workspace_id "
        "AND e.visitor_id = r.visitor_id AND e.occurred_at BETWEEN r.since AND r.until "
        "AND e.session_id = r.session_id AND e.link_id IS NULL OFFSET 0) AS k) AS r "
        "WHERE e.workspace_id = r.workspace_id AND e.visitor_id = r.visitor_id "
        "AND e.occurred_at = r.occurred_at AND e.id = r.id RETURNING e.workspace_id, e.link_id, e.occurred_at"
    )
