"""
Arrivals by partners: noted with the batch that brings them, read for people.

Each lies on the row of the browser that arrived and is never moved. A person's are those of all rows that share a canonical id,
so a merge brings them together and an unmerge takes them apart, and neither writes anything here. What turned out to be a bot's is
left out by its event's verdict of today.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.partners import Partner
from goodanalytics.core.referral import News, Referral
from goodanalytics.store.database import as_json, run
from goodanalytics.store.tables import Tables

Key = tuple[UUID, UUID]
"""A workspace, and a row or a person in it."""


@dataclass(frozen=True, slots=True)
class Noted:
    """
    What came of some news.

    Attributes:
        workspaces: Those that have partners at all.
        arrived: Rows that arrived by a partner, and when.
        named: Rows that have a partner's name now.
    """

    workspaces: set[UUID] = field(default_factory=set)
    arrived: list[tuple[Key, datetime]] = field(default_factory=list)
    named: set[Key] = field(default_factory=set)


async def note(conn: AsyncConnection, t: Tables, news: News) -> Noted:
    """Write down which of the arrivals are by partners, in one statement. Noting them again changes nothing."""
    workspaces = {arrival.workspace_id for arrival in news.arrivals}
    workspaces |= {conversion.workspace_id for conversion in news.conversions}
    workspaces |= {workspace_id for workspace_id, *_ in news.named} | {key[0] for key in news.joined}
    found = await run(
        conn,
        _note(t),
        workspaces=sorted(workspaces),
        rows=as_json(news.arrivals),
        names=as_json(
            [
                {"workspace_id": w, "visitor_id": v, "kind": str(kind), "value": value}
                for w, v, kind, value in news.named
            ]
        ),
    )
    noted = Noted()
    for row in found:
        noted.workspaces.add(row.workspace_id)
        if row.occurred_at is not None:
            noted.arrived.append(((row.workspace_id, row.visitor_id), row.occurred_at))
        elif row.visitor_id is not None:
            noted.named.add((row.workspace_id, row.visitor_id))
    return noted


@lru_cache(maxsize=8)
def _note(t: Tables) -> str:
    of_code = f"FROM {t.partners} p WHERE p.workspace_id = r.workspace_id AND p.status <> 'closed' AND lower(p.code)"
    return (
        "WITH r AS MATERIALIZED (SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r (workspace_id uuid, visitor_id uuid, "
        'occurred_at timestamptz, event_id uuid, link_id uuid, via text, "ref" text, way text)), '
        f"noted AS (INSERT INTO {t.referrals} (workspace_id, visitor_id, occurred_at, event_id, partner_id, way, link_id) "
        "SELECT r.workspace_id, r.visitor_id, r.occurred_at, r.event_id, p.id, p.way, p.link_id FROM r, LATERAL ("
        f"SELECT 1 AS place, p.id, 'code' AS way, CAST(NULL AS uuid) AS link_id {of_code} = r.via "
        f"UNION ALL SELECT 2, p.id, 'code', NULL {of_code} = r.ref "
        f"UNION ALL SELECT 3, p.id, r.way, l.id FROM {t.links} l "
        f"JOIN {t.partners} p ON p.workspace_id = l.workspace_id AND p.id = l.partner_id "
        "WHERE l.workspace_id = r.workspace_id AND l.id = r.link_id AND p.status <> 'closed' ORDER BY place LIMIT 1) AS p "
        "ORDER BY r.workspace_id, r.visitor_id, r.occurred_at, r.event_id "
        "ON CONFLICT DO NOTHING RETURNING workspace_id, visitor_id, occurred_at) "
        "SELECT workspace_id, visitor_id, occurred_at FROM noted "
        "UNION ALL SELECT n.workspace_id, n.visitor_id, NULL FROM json_to_recordset(CAST(:names AS json)) "
        "AS n (workspace_id uuid, visitor_id uuid, kind text, value text) WHERE EXISTS ("
        f"SELECT FROM {t.partners} p WHERE p.workspace_id = n.workspace_id AND p.email = n.value AND n.kind = 'email' "
        f"UNION ALL SELECT FROM {t.partners} p WHERE p.workspace_id = n.workspace_id AND p.external_id = n.value "
        "AND n.kind = 'external_id') "
        "UNION ALL SELECT w, NULL, NULL FROM unnest(CAST(:workspaces AS uuid[])) AS w "
        f"WHERE EXISTS (SELECT FROM {t.partners} p WHERE p.workspace_id = w)"
    )


async def of_people(conn: AsyncConnection, t: Tables, people: Collection[Key]) -> dict[Key, list[Referral]]:
    """The referrals of *people*, by their canonical ids. People without any are left out."""
    found = await run(
        conn,
        "SELECT k.workspace_id, k.person, r.occurred_at, r.event_id, r.partner_id, r.way, r.link_id "
        "FROM json_to_recordset(CAST(:rows AS json)) AS k (workspace_id uuid, person uuid) "
        f"JOIN {t.visitors} m ON m.workspace_id = k.workspace_id AND m.canonical_id = k.person "
        f"JOIN {t.referrals} r ON r.workspace_id = m.workspace_id AND r.visitor_id = m.id "
        f"LEFT JOIN {t.events} e ON e.workspace_id = r.workspace_id AND e.visitor_id = r.visitor_id "
        "AND e.occurred_at = r.occurred_at AND e.id = r.event_id WHERE e.bot IS NULL",
        rows=as_json([{"workspace_id": w, "person": person} for w, person in people]),
    )
    referrals: dict[Key, list[Referral]] = defaultdict(list)
    for row in found:
        referrals[row.workspace_id, row.person].append(
            Referral(row.occurred_at, row.event_id, row.partner_id, row.way, row.link_id)
        )
    return dict(referrals)


async def partners_of(
    conn: AsyncConnection, t: Tables, pairs: Collection[tuple[Key, UUID]]
) -> tuple[dict[Key, Partner], dict[Key, set[UUID]]]:
    """
    The partners in *pairs* of a person and a partner, and for each person which of theirs they are themselves.

    They are if any row of the person is the partner's, or has the partner's e-mail address or external id, or had it bound.
    """
    names = ", ".join(f"p.{column.name}" for column in t.partners.c)
    sql = (
        f"SELECT k.person, {names}, EXISTS (SELECT FROM {t.visitors} m WHERE m.workspace_id = k.workspace_id "
        "AND m.canonical_id = k.person AND (m.id = p.visitor_id OR m.email = p.email OR m.external_id = p.external_id "
        f"OR EXISTS (SELECT FROM {t.identities} i WHERE i.workspace_id = m.workspace_id AND i.visitor_id = m.id "
        "AND (i.kind = 'email' AND i.value = p.email OR i.kind = 'external_id' AND i.value = p.external_id)))) AS is_own "
        "FROM json_to_recordset(CAST(:rows AS json)) AS k (workspace_id uuid, person uuid, partner_id uuid) "
        f"JOIN {t.partners} p ON p.workspace_id = k.workspace_id AND p.id = k.partner_id"
    )
    rows = [{"workspace_id": w, "person": person, "partner_id": partner} for (w, person), partner in pairs]
    found = await conn.execute(text(sql).columns(commission=JSONB, metadata=JSONB), {"rows": as_json(rows)})
    partners: dict[Key, Partner] = {}
    own: dict[Key, set[UUID]] = defaultdict(set)
    for row in found.mappings():
        partner = Partner.from_row({column.name: row[column.name] for column in t.partners.c})
        partners[partner.workspace_id, partner.id] = partner
        if row["is_own"]:
            own[partner.workspace_id, row["person"]].add(partner.id)
    return partners, dict(own)


__all__ = ["Key", "Noted", "note", "of_people", "partners_of"]
