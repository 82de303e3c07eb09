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

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

import msgspec
from sqlalchemy import TextClause, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.config import Config
from goodanalytics.core.hits import EventType, Hit
from goodanalytics.core.identity_rows import Member, State
from goodanalytics.core.people import People
from goodanalytics.core.plan import History, Plan
from goodanalytics.core.sessions import Session
from goodanalytics.core.visitors import Visitor
from goodanalytics.migrations import days
from goodanalytics.store import conversions, ledger
from goodanalytics.store.conversions import News
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
        is_current: Whether nobody overtook it; else it must be read again.
        state, history: Of the person alone.
        has_listeners: Whether any platform or webhook is switched on in the workspace.
        has_partners: Whether anybody may earn with it.
    """

    is_current: bool
    state: State
    history: History
    has_listeners: bool
    has_partners: bool


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
    answer = found.all()
    if not answer:
        return None
    rows = [row for row in answer if row.id is not None]
    sessions = [session for row in rows for session in _sessions.decode(row.sessions)]
    visitors = {(v.workspace_id, v.id): v for v in (_visitor.decode(row.visitor) for row in rows)}
    members = {
        key: Member(
            workspace_id=v.workspace_id,
            id=v.id,
            canonical_id=v.canonical_id,
            external_id=v.external_id,
            first_seen_at=v.first_seen_at,
        )
        for key, v in visitors.items()
    }
    return Taken(
        (hit.workspace_id, hit.signals.visitor_id) in visitors and all(row.is_current for row in rows),
        State(members=members),
        History(visitors=visitors, sessions=sessions),
        bool(answer[0].has_listeners),
        bool(answer[0].has_partners),
    )


async def put(conn: AsyncConnection, t: Tables, people: People, plan: Plan, config: Config) -> News | None:
    """
    Write *plan*, which was made of what was taken; what may be told of it.

    `None`, and nothing written, when the plan wants more than this, or somebody changed the visit meanwhile.
    """
    visit = _visit(plan)
    if visit is None or len(plan.visitors) != 1 or len(plan.events) != 1:
        return None
    if people.identities or people.merges or people.moved or people.conflicts or plan.members:
        return None
    before, after = visit
    found = await conn.execute(
        _put(t),
        {
            "visitors": as_json(plan.visitors),
            "sessions": as_json(after),
            "events": as_json(plan.events),
            "conversions": as_json([conversions.row_of(c, people, config) for c in plan.conversions]),
            "before": as_json(before),
        },
    )
    row = found.one_or_none()
    if row is None:
        return None
    return conversions.news_of(
        plan, {(plan.visitors[0].workspace_id, plan.events[0]["id"]): row.touches or 0}
    )


def _visit(plan: Plan) -> tuple[list[Session], list[Session]] | None:
    """The visit before and after, if there is one; `None` when it is a new one, or began earlier than was known."""
    after = plan.sessions
    before = [known for s in after if (known := plan.session_before(s)) is not None]
    if len(before) != len(after) or len(after) > 1:
        return None
    same = all(old.started_at == new.started_at for old, new in zip(before, after, strict=True))
    return (before, after) if same else None


@lru_cache(maxsize=64)
def _take(t: Tables) -> TextClause:
    return text(
        f"WITH open AS MATERIALIZED ({days.OPEN_DAY.format(schema=t.schema)}), "
        f"taken AS (INSERT INTO {t.receipts} (workspace_id, hit_id, day, digest) "
        "SELECT CAST(:w AS uuid), CAST(:hit AS uuid), open.day, CAST(:digest AS text) FROM open "
        f"WHERE EXISTS (SELECT FROM {t.visitors} WHERE workspace_id = :w AND id = :v) "
        f"AND NOT EXISTS (SELECT FROM {t.receipts} k WHERE k.workspace_id = :w AND k.hit_id = :hit AND k.day < open.day) "
        "ON CONFLICT DO NOTHING RETURNING 1) "
        "SELECT p.*, "
        f"EXISTS (SELECT FROM {t.platform_settings} p WHERE p.workspace_id = :w AND p.enabled) "
        f"OR EXISTS (SELECT FROM {t.webhooks} h WHERE h.workspace_id = :w AND h.enabled) AS has_listeners, "
        f"EXISTS (SELECT FROM {t.partners} q WHERE q.workspace_id = :w) AS has_partners "
        # A row that came to another person while we waited for it is none of this one's any more, and is left out.
        "FROM taken LEFT JOIN LATERAL (SELECT v.id, CAST(row_to_json(v) AS text) AS visitor, "
        f"(SELECT u FROM {t.visitors} u WHERE u.workspace_id = v.workspace_id AND u.id = v.id) = v AS is_current, "
        "(SELECT CAST(coalesce(json_agg(row_to_json(s)), '[]') AS text) "
        f"FROM {t.sessions} s WHERE s.workspace_id = v.workspace_id AND s.visitor_id = v.id "
        "AND s.last_event_at >= :since AND s.started_at <= :until) AS sessions "
        f"FROM {t.visitors} v WHERE v.workspace_id = :w AND v.canonical_id = "
        f"(SELECT m.canonical_id FROM {t.visitors} m WHERE m.workspace_id = :w AND m.id = :v) "
        "ORDER BY v.id FOR UPDATE) AS p ON true"
    )


@lru_cache(maxsize=64)
def _put(t: Tables) -> TextClause:
    still = "WHERE EXISTS (SELECT FROM still)"
    changed = ", ".join(ledger.columns(t.sessions))
    return text(
        "WITH still AS MATERIALIZED (SELECT 1 WHERE NOT EXISTS ("
        f"SELECT FROM json_to_recordset(CAST(:before AS json)) AS b ({changed}) "
        f"WHERE NOT EXISTS (SELECT FROM {t.sessions} s WHERE s.workspace_id = b.workspace_id AND s.id = b.id "
        "AND s.events = b.events AND s.engaged_ms = b.engaged_ms AND s.last_event_at = b.last_event_at))), "
        f"v AS ({ledger.upsert(t.visitors, still, 'CAST(:visitors AS json)')}), "
        f"s AS ({ledger.upsert(t.sessions, still, 'CAST(:sessions AS json)')}), "
        f"e AS ({ledger.insert(t.events, still, 'CAST(:events AS json)')}), "
        f"c AS ({conversions.insert(t, still, 'CAST(:conversions AS json)')}) "
        "SELECT c.touches FROM still LEFT JOIN c ON true"
    )


__all__ = ["TYPES", "Taken", "goes", "put", "take"]
