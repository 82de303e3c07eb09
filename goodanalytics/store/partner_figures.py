"""
What became of partners over a period.

* clicks: on their links, of people. visitors: people who arrived by them in any way, each once, as they are one now.
* leads, sales: those that they earn or earned with; revenue is that of these sales, less refunds, by currency. None of this
  counts what is void.
* earned, reversed and net by currency, in minor units, and how much of the net is pending and approved. Never added up.

Arrivals go by their own time, money by the time of the lead, the sale or the refund.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.commissions import NOT_REFERRED
from goodanalytics.errors import InvalidInput
from goodanalytics.store.database import run
from goodanalytics.store.tables import Tables


class Earnings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    What a partner earned in one currency, in minor units.

    Attributes:
        reversed_cents: What refunds took back, as a positive number.
        pending_cents, approved_cents: Their parts of *net_cents*.
        refused_cents: What is void, less what refunds took back of it; in no other figure.
    """

    currency: str
    earned_cents: int
    reversed_cents: int
    net_cents: int
    pending_cents: int
    approved_cents: int
    refused_cents: int


class PartnerStats(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The figures of one partner over a period.

    Attributes:
        since, until: The period; its end is outside. Open where null.
        revenue: Of their sales, less refunds, in minor units by currency.
    """

    since: datetime | None
    until: datetime | None
    clicks: int
    visitors: int
    leads: int
    sales: int
    revenue: dict[str, int]
    earnings: Sequence[Earnings]


async def stats(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    partner_ids: Sequence[UUID],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> dict[UUID, PartnerStats]:
    """
    The figures of each of these partners, by three statements however many they are.

    Raises:
        InvalidInput: The period ends before it begins.
    """
    if since is not None and until is not None and until <= since:
        raise InvalidInput(
            f"the period ends at {until.isoformat()}, not after {since.isoformat()}", where="to"
        )
    values = {"workspace_id": workspace_id, "partners": list(partner_ids), "since": since, "until": until}
    people = {row.partner_id: row for row in await run(conn, _arrivals(t), **values)}
    earned = _by_partner(await run(conn, _money(t), **values))
    sold = _by_partner(await run(conn, _revenue(t), **values))
    return {
        one: PartnerStats(
            since=since,
            until=until,
            clicks=people[one].clicks if one in people else 0,
            visitors=people[one].visitors if one in people else 0,
            leads=sum(row.leads for row in earned[one]),
            sales=sum(row.sales for row in earned[one]),
            revenue={row.currency: row.cents for row in sold[one]},
            earnings=[_earnings(row) for row in earned[one]],
        )
        for one in partner_ids
    }


_WITHIN: Final = (
    "x.workspace_id = :workspace_id AND x.partner_id = ANY(CAST(:partners AS uuid[])) "
    "AND x.occurred_at >= coalesce(CAST(:since AS timestamptz), '-infinity') "
    "AND x.occurred_at < coalesce(CAST(:until AS timestamptz), 'infinity')"
)
_COUNTS: Final = "x.status <> 'void'"


def _arrivals(t: Tables) -> str:
    return (
        "SELECT x.partner_id, count(*) FILTER (WHERE x.way = 'click') AS clicks, "
        "count(DISTINCT coalesce(v.canonical_id, x.visitor_id)) AS visitors "
        f"FROM {t.referrals} x LEFT JOIN {t.visitors} v ON v.workspace_id = x.workspace_id AND v.id = x.visitor_id "
        f"LEFT JOIN {t.events} e ON e.workspace_id = x.workspace_id AND e.visitor_id = x.visitor_id "
        f"AND e.occurred_at = x.occurred_at AND e.id = x.event_id WHERE {_WITHIN} AND e.bot IS NULL GROUP BY 1"
    )


def _money(t: Tables) -> str:
    return (
        "SELECT x.partner_id, x.currency, "
        f"count(*) FILTER (WHERE {_COUNTS} AND x.kind = 'earned' AND x.event_type = 'lead') AS leads, "
        f"count(*) FILTER (WHERE {_COUNTS} AND x.kind = 'earned' AND x.event_type = 'sale') AS sales, "
        f"sum(x.amount_cents) FILTER (WHERE {_COUNTS} AND x.kind = 'earned') AS earned, "
        f"sum(-x.amount_cents) FILTER (WHERE {_COUNTS} AND x.kind = 'reversed') AS reversed, "
        "sum(x.amount_cents) FILTER (WHERE x.status = 'pending') AS pending, "
        "sum(x.amount_cents) FILTER (WHERE x.status = 'approved') AS approved, "
        "sum(x.amount_cents) FILTER (WHERE x.status = 'void') AS refused "
        f"FROM {t.commissions} x WHERE {_WITHIN} AND x.reason IS DISTINCT FROM '{NOT_REFERRED}' "
        'GROUP BY 1, 2 ORDER BY 1, x.currency COLLATE "C"'
    )


def _revenue(t: Tables) -> str:
    return (
        "SELECT x.partner_id, x.base_currency AS currency, "
        "CAST(sum(CASE x.kind WHEN 'earned' THEN x.base_cents ELSE -x.base_cents END) AS bigint) AS cents "
        f"FROM {t.commissions} x WHERE {_WITHIN} AND {_COUNTS} AND x.event_type = 'sale' "
        'AND x.base_currency IS NOT NULL GROUP BY 1, 2 ORDER BY 1, x.base_currency COLLATE "C"'
    )


def _by_partner(rows: Iterable[Any]) -> defaultdict[UUID, list[Any]]:
    found: defaultdict[UUID, list[Any]] = defaultdict(list)
    for row in rows:
        found[row.partner_id].append(row)
    return found


def _earnings(row: Any) -> Earnings:
    earned, reversed_cents = int(row.earned or 0), int(row.reversed or 0)
    return Earnings(
        row.currency,
        earned,
        reversed_cents,
        earned - reversed_cents,
        int(row.pending or 0),
        int(row.approved or 0),
        int(row.refused or 0),
    )


__all__ = ["Earnings", "PartnerStats", "stats"]
