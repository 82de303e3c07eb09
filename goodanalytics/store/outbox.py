"""
The outbox: what is to be told to whom, written in the transaction of what it tells.

1. One row for each event and target, whoever asks how often: the event's id is the id under which the platform knows it.
   Asked again, when the person turns out to be known, it sends what was skipped for want of knowing them, and nothing twice.
2. What is not sent is a row too, `skipped` with the reason, so that nobody has to guess.
3. A replay sends the same row again, with the same event id. A sale is not sent again after its refund: to a platform that
   restates, it would take the refund back.
4. What names a person is sealed, and goes when nothing can be done with it any more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.delivery import RECALLED, SALE_NOT_DELIVERED
from goodanalytics.store.database import as_bytea, as_json, run
from goodanalytics.store.outbox_leases import WEBHOOK
from goodanalytics.store.tables import Tables

KEPT: Final = timedelta(days=30)
"""How long a finished dispatch can be sent again; after that nothing of the person is left in it."""

OLDEST: Final = timedelta(days=91)
"""Older than any platform takes a conversion."""

SWEPT: Final = 2_000  # rows at a time

_UNKNOWN_THEN: Final = (
    f"d.reason LIKE 'missing_signals%' OR d.reason IN ('consent_unknown', '{SALE_NOT_DELIVERED}')"
)
"""Why a conversion was skipped whose person turns out to be known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """
    A dispatch as it begins.

    Attributes:
        target: A platform's name, or `webhook:{id}`.
        skipped: Why it is not sent; `None` sends it.
        sealed: What is sent; `None` when nothing of it is to be kept.
        shown: What everybody may see of it.
    """

    workspace_id: UUID
    id: UUID
    target: str
    lane: str
    event_id: UUID
    kind: str
    occurred_at: datetime
    sale_event_id: UUID | None
    skipped: str | None
    sealed: bytes | None
    shown: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A webhook that is switched on, and what it listens to."""

    workspace_id: UUID
    id: UUID
    events: tuple[str, ...]


async def plan(
    conn: AsyncConnection, t: Tables, rows: Sequence[Row], workspaces: Collection[UUID], now: datetime
) -> list[Subscriber]:
    """
    Put *rows* into the outbox, those to platforms where the platform is switched on; all in one statement.

    What is there stays as it is, but for what was skipped because too little was known, and is known now.

    Returns:
        The webhooks of *workspaces*, from the same statement.
    """
    written = [
        {
            "workspace_id": row.workspace_id,
            "id": row.id,
            "target": row.target,
            "lane": row.lane,
            "event_id": row.event_id,
            "kind": row.kind,
            "occurred_at": row.occurred_at,
            "sale_event_id": row.sale_event_id,
            "state": "skipped" if row.skipped else "pending",
            "reason": row.skipped,
            "sealed": as_bytea(row.sealed),
            "shown": row.shown,
        }
        for row in rows
    ]
    columns = "workspace_id, id, target, lane, event_id, kind, occurred_at, sale_event_id, state, reason, sealed, shown"
    put = (
        "WITH r AS (SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r (workspace_id uuid, id uuid, target text, "
        "lane text, event_id uuid, kind text, occurred_at timestamptz, sale_event_id uuid, state text, reason text, "
        f"sealed bytea, shown jsonb)), put AS (INSERT INTO {t.dispatches} AS d "
        f"({columns}, attempts, next_at, settled_at, created_at) SELECT {columns}, 0, "
        "CASE WHEN state = 'pending' THEN CAST(:now AS timestamptz) END, "
        "CASE WHEN state = 'skipped' THEN CAST(:now AS timestamptz) END, CAST(:now AS timestamptz) FROM r "
        f"WHERE r.target LIKE '{WEBHOOK}%' OR EXISTS (SELECT FROM {t.platform_settings} s "
        "WHERE s.workspace_id = r.workspace_id AND s.platform = r.target AND s.enabled) "
        "ON CONFLICT (workspace_id, event_id, target) DO UPDATE SET state = 'pending', reason = NULL, attempts = 0, "
        "lane = excluded.lane, sealed = excluded.sealed, shown = excluded.shown, next_at = excluded.next_at, settled_at = NULL "
        f"WHERE d.state = 'skipped' AND excluded.state = 'pending' AND ({_UNKNOWN_THEN})) "
    )
    found = await run(
        conn,
        (put if rows else "") + f"SELECT w.workspace_id, w.id, w.events FROM {t.webhooks} w "
        "WHERE w.workspace_id = ANY(CAST(:workspaces AS uuid[])) AND w.enabled",
        workspaces=sorted(workspaces),
        **({"rows": as_json(written), "now": now} if rows else {}),
    )
    return [Subscriber(row.workspace_id, row.id, tuple(row.events)) for row in found]


@dataclass(frozen=True, slots=True)
class Recalled:
    """
    What became of dispatches whose person took their consent back.

    Attributes:
        recalled: They are not sent.
        under_way: They were being sent at that moment, or the platform has accepted them; they go out no second time.
    """

    recalled: int
    under_way: int


async def recall(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, visitor_ids: Collection[UUID], now: datetime
) -> Recalled:
    """
    Take back what is queued for ad platforms about these visitors.

    Args:
        visitor_ids: All rows of the person; conversions belong to rows.
    """
    return await _recall(
        conn, t, now,
        f"FROM {t.conversions} c WHERE c.workspace_id = :workspace_id "
        "AND c.visitor_id = ANY(CAST(:visitors AS uuid[])) AND d.event_id = c.event_id "
        f"AND d.target NOT LIKE '{WEBHOOK}%' AND d.workspace_id = :workspace_id",
        workspace_id=workspace_id, visitors=sorted(visitor_ids),
    )  # fmt: skip


async def recall_denied(
    conn: AsyncConnection, t: Tables, persons: Collection[tuple[UUID, UUID]], now: datetime
) -> Recalled:
    """
    Take back what is queued for ad platforms about those of *persons* whose newest answer, on any browser, is no.

    Args:
        persons: Workspace and canonical id of each; their rows are written and locked.
    """
    workspaces, ids = zip(*sorted(persons), strict=True)
    said = "v.consent -> 'ad_user_data'"
    return await _recall(
        conn, t, now,
        "FROM unnest(CAST(:workspaces AS uuid[]), CAST(:persons AS uuid[])) AS k (workspace_id, person), "
        f"LATERAL (SELECT {said} ->> 'value' AS value FROM {t.visitors} v WHERE v.workspace_id = k.workspace_id "
        f"AND v.canonical_id = k.person AND {said} IS NOT NULL "
        f"ORDER BY {said} ->> 'at' COLLATE \"C\" DESC LIMIT 1) AS answer, {t.visitors} m, {t.conversions} c "
        "WHERE answer.value = 'denied' AND m.workspace_id = k.workspace_id AND m.canonical_id = k.person "
        "AND c.workspace_id = m.workspace_id AND c.visitor_id = m.id AND d.workspace_id = c.workspace_id "
        f"AND d.event_id = c.event_id AND d.target NOT LIKE '{WEBHOOK}%'",
        workspaces=list(workspaces), persons=list(ids),
    )  # fmt: skip


async def recall_target(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, target: str, now: datetime
) -> Recalled:
    """Take back everything that is queued for a target."""
    return await _recall(
        conn, t, now, "WHERE d.workspace_id = :workspace_id AND d.target = :target",
        workspace_id=workspace_id, target=target,
    )  # fmt: skip


async def _recall(conn: AsyncConnection, t: Tables, now: datetime, which: str, **values: Any) -> Recalled:
    # What is being sent, or is with the platform, is only marked: whoever has it in hand settles it.
    busy = "(d.state = 'accepted' OR (d.leased_until > :now AND d.sent_at IS NOT NULL))"
    found = await run(
        conn,
        f"UPDATE {t.dispatches} d SET reason = '{RECALLED}', "
        f"state = CASE WHEN {busy} THEN d.state ELSE 'skipped' END, "
        f"sealed = CASE WHEN {busy} THEN d.sealed END, next_at = CASE WHEN {busy} THEN d.next_at END, "
        f"lease_id = CASE WHEN {busy} THEN d.lease_id END, leased_until = CASE WHEN {busy} THEN d.leased_until END, "
        f"settled_at = CASE WHEN {busy} THEN d.settled_at ELSE CAST(:now AS timestamptz) END {which} "
        "AND d.state IN ('pending', 'retry_wait', 'accepted', 'paused_credentials') RETURNING d.state",
        now=now,
        **values,
    )
    states = [row.state for row in found]
    return Recalled(states.count("skipped"), len(states) - states.count("skipped"))


async def erase(conn: AsyncConnection, t: Tables, workspace_id: UUID, visitor_ids: Collection[UUID]) -> int:
    """Delete every dispatch of these visitors' conversions, which are still there; how many those were."""
    deleted = await run(
        conn,
        f"DELETE FROM {t.dispatches} d USING {t.conversions} c "
        "WHERE c.workspace_id = :workspace_id AND c.visitor_id = ANY(CAST(:visitors AS uuid[])) "
        "AND d.workspace_id = :workspace_id AND d.event_id = c.event_id",
        workspace_id=workspace_id,
        visitors=sorted(visitor_ids),
    )
    return deleted.rowcount


async def replay(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    now: datetime,
    *,
    ids: Collection[UUID] | None = None,
    target: str | None = None,
    states: Collection[str] = ("dead",),
    since: datetime | None = None,
) -> set[UUID]:
    """
    Send finished dispatches again, under the ids that they have. Which those are; at most `SWEPT` at a time.

    Left alone is what nothing is kept of, what is being sent, what was recalled, and a sale whose refund went out or waits.

    Args:
        now: Of all parts when they are asked for part by part; what was settled since then is left alone.
        ids: Those and no others; *target*, *states* and *since* then narrow them down no further.
        since: Of their conversions.
    """
    chosen = (
        "d.id = ANY(CAST(:ids AS uuid[])) AND d.state IN ('delivered', 'skipped', 'dead', 'paused_credentials')"
        if ids is not None
        else "(CAST(:target AS text) IS NULL OR d.target = CAST(:target AS text)) "
        "AND d.state = ANY(CAST(:states AS text[])) AND d.state IN ('delivered', 'skipped', 'dead') "
        "AND (CAST(:since AS timestamptz) IS NULL OR d.occurred_at >= CAST(:since AS timestamptz)) "
        # What was sent again meanwhile has its turn behind it, or who asks part by part would never come to an end.
        "AND (d.settled_at IS NULL OR d.settled_at <= :now)"
    )
    values: dict[str, Any] = (
        {"ids": sorted(ids)}
        if ids is not None
        else {"target": target, "states": sorted(states), "since": since}
    )
    refunded = (
        f"EXISTS (SELECT FROM {t.dispatches} r WHERE r.workspace_id = d.workspace_id AND r.target = d.target "
        "AND r.sale_event_id = d.event_id AND r.state <> 'skipped')"
    )
    found = await run(
        conn,
        f"UPDATE {t.dispatches} d SET state = 'pending', reason = NULL, attempts = 0, next_at = :now, settled_at = NULL, "
        "lease_id = NULL, leased_until = NULL, external_ref = NULL WHERE d.workspace_id = :workspace_id AND d.id IN ("
        f"SELECT d.id FROM {t.dispatches} d WHERE d.workspace_id = :workspace_id AND {chosen} "
        f"AND d.sealed IS NOT NULL AND d.reason IS DISTINCT FROM '{RECALLED}' "
        f"AND NOT {refunded} ORDER BY d.created_at LIMIT {SWEPT} FOR UPDATE) RETURNING d.id",
        workspace_id=workspace_id,
        now=now,
        **values,
    )
    return {row.id for row in found}


async def tidy(conn: AsyncConnection, t: Tables, now: datetime) -> int:
    """
    Take persons out of dispatches with which nothing can be done any more; how many those were, at most `2 * SWEPT`.

    Whatever waited until no platform would take it, such as for one that was switched off, is skipped as `too_old`.
    """
    old = await run(
        conn,
        f"UPDATE {t.dispatches} d SET state = 'skipped', reason = 'too_old', settled_at = :now, sealed = NULL, "
        "next_at = NULL, lease_id = NULL, leased_until = NULL FROM ("
        f"SELECT workspace_id, id FROM {t.dispatches} "
        "WHERE state IN ('pending', 'retry_wait', 'accepted', 'paused_credentials') AND occurred_at < :oldest "
        "AND (leased_until IS NULL OR leased_until <= :now) "
        f"LIMIT {SWEPT} FOR UPDATE SKIP LOCKED) AS x WHERE d.workspace_id = x.workspace_id AND d.id = x.id",
        now=now,
        oldest=now - OLDEST,
    )
    kept = await run(
        conn,
        f"UPDATE {t.dispatches} d SET sealed = NULL FROM (SELECT workspace_id, id FROM {t.dispatches} "
        "WHERE sealed IS NOT NULL AND settled_at IS NOT NULL AND settled_at < :until "
        f"LIMIT {SWEPT} FOR UPDATE SKIP LOCKED) AS x WHERE d.workspace_id = x.workspace_id AND d.id = x.id",
        until=now - KEPT,
    )
    return old.rowcount + kept.rowcount


__all__ = [
    "KEPT",
    "OLDEST",
    "SWEPT",
    "Recalled",
    "Row",
    "Subscriber",
    "erase",
    "plan",
    "recall",
    "recall_denied",
    "recall_target",
    "replay",
    "tidy",
]
