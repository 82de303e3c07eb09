"""
Who sends which dispatch: rows are taken for a while, sent, and settled.

1. `claim` takes rows that are due and that nobody holds (SKIP LOCKED), and commits before anything is sent. A worker that
   dies leaves rows that are free again when their lease has run out, as they were.
2. `begin` asks again right before a request goes out: rows that were recalled or erased, whose lease was lost, or whose
   target was switched off meanwhile are not sent.
3. `settle` writes for whoever still holds the lease. A late worker changes nothing.
4. Times come from the caller. Clocks that differ by more than a lease cause a second request with the same event ids.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.delivery import RECALLED, Company, Settlement
from goodanalytics.store.database import as_json, run
from goodanalytics.store.tables import Tables

WEBHOOK: Final = "webhook:"
"""What a webhook's target begins with; its id follows."""

POLLS: Final = 20
"""How many requests are asked after at a time."""

_HELD = (
    "FROM unnest((SELECT CAST(:ids AS uuid[]))) AS k (id) WHERE d.workspace_id = :workspace_id AND d.id = k.id "
    "AND coalesce(d.lease_id = :lease_id, false)"
)
"""
The rows `:ids` that are leased to `:lease_id`, each by its key.

Nearly no row has a lease, so PostgreSQL expects one row of it and would walk over the table for that; what stands in `coalesce` it
does not guess about. What it knows of the table is old after a burst, or nothing at all: against a thousand keys that it can count,
all rows of the workspace would seem fewer. So a sub-select hides how many there are.
"""

_ROWS = (
    ", json_to_recordset(CAST(:rows AS json)) AS r (id uuid, state text, reason text, attempts integer, "
    "next_at timestamptz, code text, message text, external_ref text)"
)

_GONE = f"d.reason IS NOT DISTINCT FROM '{RECALLED}'"
_FREE = "(d.leased_until IS NULL OR d.leased_until <= :now)"


@dataclass(frozen=True, slots=True)
class DueTarget:
    """
    A target with something to do.

    Attributes:
        settings: What the workspace set for the platform.
        failures: Requests in a row that failed as a whole.
    """

    workspace_id: UUID
    target: str
    settings: Mapping[str, Any]
    failures: int


@dataclass(frozen=True, slots=True)
class Leased:
    """
    A row that is ours until the lease runs out.

    Attributes:
        sealed: `None` when nothing is kept of what was to be sent.
        sale: For a refund, what became of its sale on the same target.
        others_under_way: For a refund, whether an earlier one of the same sale is.
    """

    id: UUID
    event_id: UUID
    kind: str
    lane: str
    state: str
    attempts: int
    occurred_at: datetime
    sealed: bytes | None
    external_ref: str | None
    sent_at: datetime | None
    sale: Company
    others_under_way: bool


async def due(conn: AsyncConnection, t: Tables, now: datetime, platforms: Collection[str]) -> list[DueTarget]:
    """The targets of all workspaces that are switched on, not to be left alone, and have a row that is due."""
    waiting = (
        f"EXISTS (SELECT FROM {t.dispatches} d WHERE d.workspace_id = s.workspace_id AND d.target = {{target}} "
        f"AND d.state IN ('pending', 'retry_wait', 'accepted') AND d.next_at <= :now AND {_FREE})"
    )
    webhook = f"'{WEBHOOK}' || s.id"
    free = "({b}.paused_at IS NULL OR {b}.paused_until <= :now)"
    found = await run(
        conn,
        f"SELECT s.workspace_id, s.platform AS target, s.settings, s.failures FROM {t.platform_settings} s "
        f"WHERE s.enabled AND s.platform = ANY(CAST(:platforms AS text[])) AND {free.format(b='s')} "
        f"AND {waiting.format(target='s.platform')} "
        f"UNION ALL SELECT s.workspace_id, {webhook}, '{{}}', coalesce(b.failures, 0) "
        f"FROM {t.webhooks} s LEFT JOIN {t.platform_settings} b "
        f"ON b.workspace_id = s.workspace_id AND b.platform = {webhook} "
        f"WHERE s.enabled AND {free.format(b='b')} AND {waiting.format(target=webhook)}",
        now=now,
        platforms=sorted(platforms),
    )
    return [DueTarget(row.workspace_id, row.target, _settings(row.settings), row.failures) for row in found]


def _settings(found: Any) -> Mapping[str, Any]:
    # A text comes from an engine of the host's that decodes no JSON in a statement without types.
    told = msgspec.json.decode(found) if isinstance(found, str | bytes) else found
    return told if isinstance(told, dict) else {}


async def claim(
    conn: AsyncConnection,
    t: Tables,
    due_target: DueTarget,
    *,
    lease_id: UUID,
    now: datetime,
    until: datetime,
    most: int,
) -> list[Leased]:
    """Take up to *most* rows that are to be sent, those that wait longest first."""
    found = await run(
        conn,
        f"WITH picked AS MATERIALIZED (SELECT d.id FROM {t.dispatches} d "
        "WHERE d.workspace_id = :workspace_id AND d.target = :target AND d.state IN ('pending', 'retry_wait') "
        f"AND d.next_at <= :now AND {_FREE} ORDER BY d.next_at LIMIT :most FOR UPDATE SKIP LOCKED) "
        f"UPDATE {t.dispatches} d SET lease_id = :lease_id, leased_until = :until, sent_at = NULL FROM picked p "
        f"WHERE d.workspace_id = :workspace_id AND d.id = p.id RETURNING {_returned(t)}",
        workspace_id=due_target.workspace_id,
        target=due_target.target,
        lease_id=lease_id,
        now=now,
        until=until,
        most=most,
    )
    return sorted((_leased(row) for row in found), key=lambda row: (row.occurred_at, row.id))


async def claim_polls(
    conn: AsyncConnection, t: Tables, due_target: DueTarget, *, lease_id: UUID, now: datetime, until: datetime
) -> list[Leased]:
    """
    Take all rows of requests that were accepted and are to be asked after.

    A request is taken whole or not at all, since its answer is about all of it; so one worker at a time takes any.
    """
    key = f"{t.schema} polls {due_target.workspace_id} {due_target.target}"
    lock = await run(conn, "SELECT pg_try_advisory_xact_lock(hashtextextended(:key, 0))", key=key)
    if not lock.scalar_one():
        return []
    mine = "d.workspace_id = :workspace_id AND d.target = :target AND d.state = 'accepted'"
    found = await run(
        conn,
        f"WITH refs AS MATERIALIZED (SELECT DISTINCT d.external_ref FROM {t.dispatches} d "
        f"WHERE {mine} AND d.next_at <= :now AND {_FREE} LIMIT {POLLS}) "
        f"UPDATE {t.dispatches} d SET lease_id = :lease_id, leased_until = :until FROM refs "
        f"WHERE {mine} AND {_FREE} AND d.external_ref = refs.external_ref RETURNING {_returned(t)}",
        workspace_id=due_target.workspace_id,
        target=due_target.target,
        lease_id=lease_id,
        now=now,
        until=until,
    )
    return sorted((_leased(row) for row in found), key=lambda row: (row.occurred_at, row.id))


def _returned(t: Tables) -> str:
    sale = f"{t.dispatches} s WHERE s.workspace_id = d.workspace_id AND s.target = d.target AND s"
    return (
        "d.id, d.event_id, d.kind, d.lane, d.state, d.attempts, d.occurred_at, d.sealed, d.external_ref, d.sent_at, "
        f"d.sale_event_id, (SELECT s.state FROM {sale}.event_id = d.sale_event_id) AS sale_state, "
        f"EXISTS (SELECT FROM {sale}.sale_event_id = d.sale_event_id AND s.id <> d.id AND s.occurred_at < d.occurred_at "
        "AND s.state IN ('pending', 'retry_wait', 'accepted', 'paused_credentials')) AS others_under_way"
    )


_COMPANY: Final[Mapping[str | None, Company]] = {
    None: "none",
    "delivered": "delivered",
    "skipped": "lost",
    "dead": "lost",
}


def _leased(row: Any) -> Leased:
    return Leased(
        id=row.id,
        event_id=row.event_id,
        kind=row.kind,
        lane=row.lane,
        state=row.state,
        attempts=row.attempts,
        occurred_at=row.occurred_at,
        sealed=row.sealed,
        external_ref=row.external_ref,
        sent_at=row.sent_at,
        sale=_COMPANY.get(row.sale_state, "under_way"),
        others_under_way=row.others_under_way,
    )


async def begin(
    conn: AsyncConnection,
    t: Tables,
    due_target: DueTarget,
    ids: Sequence[UUID],
    *,
    lease_id: UUID,
    now: datetime,
    until: datetime,
) -> set[UUID]:
    """Which of *ids* may go out now; their lease is renewed."""
    if due_target.target.startswith(WEBHOOK):
        switch = f"SELECT FROM {t.webhooks} s WHERE s.workspace_id = :workspace_id AND '{WEBHOOK}' || s.id = :target"
    else:
        switch = (
            f"SELECT FROM {t.platform_settings} s WHERE s.workspace_id = :workspace_id "
            "AND s.platform = :target AND (s.paused_at IS NULL OR s.paused_until IS NOT NULL)"
        )
    found = await run(
        conn,
        f"UPDATE {t.dispatches} d SET leased_until = :until, sent_at = :now {_HELD} AND d.leased_until > :now "
        f"AND d.reason IS DISTINCT FROM '{RECALLED}' AND EXISTS ({switch} AND s.enabled) RETURNING d.id",
        workspace_id=due_target.workspace_id,
        target=due_target.target,
        ids=list(ids),
        lease_id=lease_id,
        now=now,
        until=until,
    )
    return {row.id for row in found}


async def detach(
    conn: AsyncConnection,
    t: Tables,
    due_target: DueTarget,
    ids: Sequence[UUID],
    *,
    lease_id: UUID,
    now: datetime,
) -> None:
    """
    Let accepted rows go from the request that they went out in: they are sent anew, by us or by whoever comes after us.

    Those that were recalled are skipped.
    """
    await run(
        conn,
        f"UPDATE {t.dispatches} d SET {_recalled('retry_wait')}, next_at = CASE WHEN {_GONE} THEN NULL "
        f"ELSE CAST(:now AS timestamptz) END, attempts = d.attempts + 1, external_ref = NULL {_HELD}",
        workspace_id=due_target.workspace_id,
        ids=list(ids),
        lease_id=lease_id,
        now=now,
    )


async def settle(
    conn: AsyncConnection,
    t: Tables,
    due_target: DueTarget,
    settled: Mapping[UUID, Settlement],
    *,
    lease_id: UUID,
    now: datetime,
) -> None:
    """Write what became of rows, and wake the refunds that waited for them."""
    rows = [
        {
            "id": row,
            "state": said.state,
            "reason": said.reason,
            "attempts": said.attempts,
            "next_at": said.next_at,
            "code": said.code,
            "message": said.message,
            "external_ref": said.external_ref,
        }
        for row, said in settled.items()
    ]
    gone = f"(d.reason = '{RECALLED}' AND r.state IN ('pending', 'retry_wait', 'paused_credentials'))"
    found = await run(
        conn,
        f"UPDATE {t.dispatches} d SET lease_id = NULL, leased_until = NULL, attempts = r.attempts, code = r.code, "
        f"message = r.message, external_ref = coalesce(r.external_ref, d.external_ref), "
        f"state = CASE WHEN {gone} THEN 'skipped' ELSE r.state END, "
        f"reason = CASE WHEN d.reason = '{RECALLED}' THEN d.reason ELSE r.reason END, "
        f"next_at = CASE WHEN {gone} THEN NULL ELSE r.next_at END, "
        f"sealed = CASE WHEN {gone} THEN NULL ELSE d.sealed END, "
        f"settled_at = CASE WHEN {gone} OR r.state IN ('delivered', 'skipped', 'dead') THEN CAST(:now AS timestamptz) END "
        f"{_HELD.replace(' WHERE', _ROWS + ' WHERE')} AND r.id = k.id "
        "RETURNING d.state, d.kind, d.event_id, d.sale_event_id",
        ids=list(settled),
        rows=as_json(rows),
        workspace_id=due_target.workspace_id,
        lease_id=lease_id,
        now=now,
    )
    sales = {
        row.sale_event_id or row.event_id
        for row in found
        if row.kind in ("sale", "refund") and row.state in ("delivered", "skipped", "dead")
    }
    if sales:
        await _wake(conn, t, due_target, sales, now)


async def _wake(
    conn: AsyncConnection, t: Tables, due_target: DueTarget, sales: Collection[UUID], now: datetime
) -> None:
    await run(
        conn,
        f"UPDATE {t.dispatches} d SET next_at = :now WHERE d.workspace_id = :workspace_id AND d.target = :target "
        "AND d.sale_event_id = ANY(CAST(:sales AS uuid[])) AND d.state = 'pending' AND d.next_at > :now",
        workspace_id=due_target.workspace_id,
        target=due_target.target,
        sales=sorted(sales),
        now=now,
    )


async def release(
    conn: AsyncConnection,
    t: Tables,
    due_target: DueTarget,
    ids: Sequence[UUID],
    *,
    lease_id: UUID,
    now: datetime,
) -> int:
    """Give rows back as they were, but for those that were recalled, which are skipped; how many wait on."""
    result = await run(
        conn,
        f"UPDATE {t.dispatches} d SET {_recalled('d.state')}, lease_id = NULL, leased_until = NULL "
        f"{_HELD} RETURNING d.state",
        workspace_id=due_target.workspace_id,
        ids=list(ids),
        lease_id=lease_id,
        now=now,
    )
    return sum(row.state != "skipped" for row in result)


def _recalled(otherwise: str) -> str:
    """What is set on a row that goes on, unless it was recalled."""
    state = otherwise if otherwise.startswith("d.") else f"'{otherwise}'"
    return (
        f"state = CASE WHEN {_GONE} THEN 'skipped' ELSE {state} END, "
        f"sealed = CASE WHEN {_GONE} THEN NULL ELSE d.sealed END, "
        f"settled_at = CASE WHEN {_GONE} THEN CAST(:now AS timestamptz) END"
    )


__all__ = [
    "WEBHOOK",
    "DueTarget",
    "Leased",
    "begin",
    "claim",
    "claim_polls",
    "detach",
    "due",
    "release",
    "settle",
]
