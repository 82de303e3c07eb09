"""Sales that are there already, found again when they are given back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.conversions import PLACED, Sale
from goodanalytics.core.hits import EventType, id_for_key
from goodanalytics.store.database import as_json, run
from goodanalytics.store.tables import Tables

SaleName = UUID | str
"""A sale by its event's id, or by the key that the host gave it."""


@dataclass(frozen=True, slots=True)
class KnownSale:
    """A sale as far as a refund must know it before anything is locked."""

    event_id: UUID
    visitor_id: UUID
    currency: str | None


async def find_sales(
    conn: AsyncConnection, t: Tables, named: Collection[tuple[UUID, SaleName]]
) -> dict[tuple[UUID, SaleName], KnownSale]:
    """The sales of these names, each in its workspace."""
    if not named:
        return {}
    found = await run(
        conn,
        "SELECT c.workspace_id, c.event_id, c.visitor_id, c.currency "
        "FROM unnest(CAST(:workspaces AS uuid[]), CAST(:events AS uuid[])) AS k (workspace_id, event_id) "
        f"JOIN {t.conversions} c USING (workspace_id, event_id) WHERE c.kind = 'sale'",
        workspaces=[name[0] for name in named],
        events=[_id_of(name) for name in named],
    )
    sales = {
        (row.workspace_id, row.event_id): KnownSale(row.event_id, row.visitor_id, row.currency)
        for row in found
    }
    return {name: sale for name in named if (sale := sales.get((name[0], _id_of(name)))) is not None}


def _id_of(name: tuple[UUID, SaleName]) -> UUID:
    """The id of the sale's event: its key stands for it, whoever told of it (`core.repetition`)."""
    workspace_id, one = name
    return one if isinstance(one, UUID) else id_for_key(workspace_id, EventType.SALE, one)


async def load_sales(
    conn: AsyncConnection, t: Tables, ids: Collection[tuple[UUID, UUID]]
) -> dict[tuple[UUID, UUID], Sale]:
    """
    These sales with what was given back of them, by workspace and event.

    Their people must be locked: nobody else gives back of them until the transaction ends.
    """
    if not ids:
        return {}
    event = ", ".join(f"e.{name}" for name in PLACED)
    found = await run(
        conn,
        "SELECT c.workspace_id, c.event_id, c.visitor_id, c.occurred_at, c.key, c.amount_cents, c.currency, "
        "c.reporting_cents, c.reporting_currency, c.place, e.id IS NOT NULL AS is_kept, "
        f"(SELECT coalesce(sum(r.amount_cents), 0) FROM {t.conversions} r "
        "WHERE r.workspace_id = c.workspace_id AND r.sale_event_id = c.event_id) AS refunded_cents, "
        f"{event} FROM json_to_recordset(CAST(:rows AS json)) AS k (workspace_id uuid, event_id uuid) "
        f"JOIN {t.conversions} c USING (workspace_id, event_id) "
        f"LEFT JOIN {t.events} e ON e.workspace_id = c.workspace_id AND e.visitor_id = c.visitor_id "
        "AND e.occurred_at = c.occurred_at AND e.id = c.event_id WHERE c.kind = 'sale'",
        rows=as_json([{"workspace_id": w, "event_id": i} for w, i in ids]),
    )
    return {
        (row.workspace_id, row.event_id): Sale(
            workspace_id=row.workspace_id,
            id=row.event_id,
            visitor_id=row.visitor_id,
            occurred_at=row.occurred_at,
            key=row.key,
            amount_cents=row.amount_cents or 0,
            currency=row.currency,
            reporting_cents=row.reporting_cents,
            reporting_currency=row.reporting_currency,
            refunded_cents=int(row.refunded_cents),
            place=row.place,
            event={name: row._mapping[name] for name in PLACED} if row.is_kept else {},
        )
        for row in found
    }


__all__ = ["KnownSale", "SaleName", "find_sales", "load_sales"]
