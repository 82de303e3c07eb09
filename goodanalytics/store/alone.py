"""
One hit that the host's own code says of a visitor whom it names, in two statements: `sale(visitor, …)` inside the host's transaction.

The worker's way takes ten statements and two for a savepoint, whether for one hit or for five hundred. Here is one visitor, no evidence
that could join people, and at the most one visit, so it takes two:

1. `take` notes the receipt, locks the person's rows in the order of their ids, and reads them with the visits that are going on.
   Receipts come before visitors, as everywhere (`store.ledger`).
2. `put` writes the visitor, the visit, the event and the conversion, all of them or none.

A statement that waited for a lock has read the rest with an older snapshot. Whoever was before us changed a row of the person, or only
the visit: the first shows in `take`, where the locked row differs from the one of its own snapshot, the second in `put`, which writes
only if the visit is still what was read. In both cases, and whenever the plan wants more than this, the hit goes the worker's way.
A merge that we waited for and that only added rows to the person is as if it came after us: nothing of what we write depends on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final
from uuid import UUID

import msgspec
from sqlalchemy import TextClause, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.config import Config
from goodanalytics.core.hits import EventType, Hit
from goodanalytics.core.people import State
from goodanalytics.core.plan import Plan
from goodanalytics.core.sessions import Session
from goodanalytics.core.visitors import Visitor
from goodanalytics.migrations import days
from goodanalytics.store import conversions, ledger
from goodanalytics.store.conversions import Told
from goodanalytics.store.database import as_json
from goodanalytics.store.tables import Tables

TYPES: Final = frozenset({EventType.CUSTOM, EventType.SHARE, EventType.LEAD, EventType.SALE})

_visitor = msgspec.json.Decoder(Visitor)
_sessions = msgspec.json.Decoder(list[Session])


def goes(hit: Hit) -> bool:
    """Whether *hit* can go this way: it names its visitor, and brings no evidence beside it."""
    s = hit.signals
    evidence = (s.external_id, s.email, s.phone, s.anonymous_id, s.click_id)
    return (
        hit.origin == "server"
        and hit.trusted
        and not hit.quiet
        and hit.event_type in TYPES
        and s.visitor_id is not None
        and not any(evidence)
    )


@dataclass(frozen=True, slots=True)
class Taken:
    """
    What was read and locked.

    Attributes:
        state: `None` when it was overtaken and must be read again.
        sessions: Those of the state, as read.
        has_listeners: Whether any platform or webhook is switched on in the workspace.
    """

    state: State | None
    sessions: dict[UUID, Session]
    has_listeners: bool


async def take(conn: AsyncConnection, t: Tables, hit: Hit, since: datetime, until: datetime) -> Taken | None:
    """
    Note *hit*'s receipt, and lock and read its person, with the visits between *since* and *until*.

    `None`, and nothing written, when the hit was here before or its visitor is not known.

    Raises:
        Busy: The host's transaction is older than the day of receipts.
    """
    try:
        found = await conn.execute(
            _take(t),
            {
                "w": hit.workspace_id,
                "v": hit.signals.visitor_id,
                "hit": hit.id,
                "digest": hit.digest,
                "since": since,
                "until": until,
            },
        )
    except IntegrityError as error:
        raise ledger.turned(error) from error
    rows = found.all()
    if not rows:
        return None
    sessions = [session for row in rows for session in _sessions.decode(row.sessions)]
    members = [_visitor.decode(row.visitor) for row in rows]
    state = State(visitors={(m.workspace_id, m.id): m for m in members}, sessions=sessions)
    is_current = all(row.is_current for row in rows)
    return Taken(state if is_current else None, {s.id: s for s in sessions}, bool(rows[0].has_listeners))


async def put(
    conn: AsyncConnection, t: Tables, plan: Plan, taken: Taken, config: Config
) -> list[Told] | None:
    """
    Write *plan*, which was made of what was *taken*; what the platforms may be told.

    `None`, and nothing written, when the plan wants more than this, or somebody changed the visit meanwhile.
    """
    visit = _visit(plan.sessions, taken)
    if visit is None or len(plan.visitors) != 1 or len(plan.events) != 1:
        return None
    if plan.identities or plan.merges or plan.moved or plan.conflicts:
        return None
    before, after = visit
    found = await conn.execute(
        _put(t),
        {
            "visitors": as_json(plan.visitors),
            "sessions": as_json(after),
            "events": as_json(plan.events),
            "conversions": as_json([conversions.row_of(c, plan, config) for c in plan.conversions]),
            "before": as_json(before),
        },
    )
    row = found.one_or_none()
    if row is None:
        return None
    return conversions.told_of(
        plan, {(plan.visitors[0].workspace_id, plan.events[0]["id"]): row.touches or 0}
    )


def _visit(sessions: Sequence[Session], taken: Taken) -> tuple[list[Session], list[Session]] | None:
    """The visit before and after, if there is one; `None` when it is a new one, or began earlier than was known."""
    before = [taken.sessions[s.id] for s in sessions if s.id in taken.sessions]
    if len(before) != len(sessions) or len(sessions) > 1:
        return None
    same = all(old.started_at == new.started_at for old, new in zip(before, sessions, strict=True))
    return (before, list(sessions)) if same else None


@lru_cache(maxsize=64)
def _take(t: Tables) -> TextClause:
    return text(
        f"WITH open AS MATERIALIZED ({days.OPEN_DAY.format(schema=t.schema)}), "
        f"taken AS (INSERT INTO {t.receipts} (workspace_id, hit_id, day, digest) "
        "SELECT CAST(:w AS uuid), CAST(:hit AS uuid), open.day, CAST(:digest AS text) FROM open "
        f"WHERE EXISTS (SELECT FROM {t.visitors} WHERE workspace_id = :w AND id = :v) "
        f"AND NOT EXISTS (SELECT FROM {t.receipts} k WHERE k.workspace_id = :w AND k.hit_id = :hit AND k.day < open.day) "
        "ON CONFLICT DO NOTHING RETURNING 1) "
        "SELECT CAST(row_to_json(v) AS text) AS visitor, "
        f"(SELECT u FROM {t.visitors} u WHERE u.workspace_id = v.workspace_id AND u.id = v.id) = v AS is_current, "
        "(SELECT CAST(coalesce(json_agg(row_to_json(s)), '[]') AS text) "
        f"FROM {t.sessions} s WHERE s.workspace_id = v.workspace_id AND s.visitor_id = v.id "
        "AND s.last_event_at >= :since AND s.started_at <= :until) AS sessions, "
        f"EXISTS (SELECT FROM {t.platform_settings} p WHERE p.workspace_id = :w AND p.enabled) "
        f"OR EXISTS (SELECT FROM {t.webhooks} h WHERE h.workspace_id = :w AND h.enabled) AS has_listeners "
        f"FROM taken, {t.visitors} v WHERE v.workspace_id = :w AND v.canonical_id = "
        f"(SELECT m.canonical_id FROM {t.visitors} m WHERE m.workspace_id = :w AND m.id = :v) "
        "ORDER BY v.id FOR UPDATE OF v"
    )


@lru_cache(maxsize=64)
def _put(t: Tables) -> TextClause:
    def rows(statement: str, name: str) -> str:
        return statement.replace(":rows", f":{name}")

    still = "WHERE EXISTS (SELECT FROM still)"
    changed = ", ".join(ledger.columns(t.sessions))
    return text(
        "WITH still AS MATERIALIZED (SELECT 1 WHERE NOT EXISTS ("
        f"SELECT FROM json_to_recordset(CAST(:before AS json)) AS b ({changed}) "
        f"WHERE NOT EXISTS (SELECT FROM {t.sessions} s WHERE s.workspace_id = b.workspace_id AND s.id = b.id "
        "AND s.events = b.events AND s.engaged_ms = b.engaged_ms AND s.last_event_at = b.last_event_at))), "
        f"v AS ({rows(ledger.upsert(t.visitors, still), 'visitors')}), "
        f"s AS ({rows(ledger.upsert(t.sessions, still), 'sessions')}), "
        f"e AS ({rows(ledger.insert(t.events, still), 'events')}), "
        f"c AS ({rows(conversions.insert(t, still), 'conversions')}) "
        "SELECT c.touches FROM still LEFT JOIN c ON true"
    )


__all__ = ["TYPES", "Taken", "goes", "put", "take"]
