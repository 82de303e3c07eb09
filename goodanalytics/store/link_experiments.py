"""
What the split of a link shows: each variant's people, and what they did since.

1. Everybody belongs to the variant of their first click in the period that a variant decided, whatever a later click led to; so do
   visitors that were merged, as one person. Clicks that a rule or an app's address took decide nothing.
2. A person converts with a trusted lead or sale that carries the link, from that click on. What they did before, the variant cannot
   have brought about.
3. Revenue is sales less refunds of each person, in one currency. A buyer is whom some of it is left of.
4. Without a period the time since the variants were last changed counts: people from before saw another address, or came by other
   shares. A period that begins earlier is told so by `changed_at`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core import experiments
from goodanalytics.core.experiments import Arm
from goodanalytics.core.links import Link
from goodanalytics.store.database import run
from goodanalytics.store.link_days import CENTS, CLICK, LEAD, MONEY, PERSON, SALE
from goodanalytics.store.link_figures import LONGEST, checked_period
from goodanalytics.store.link_outcomes import OF_LINK, from_events
from goodanalytics.store.tables import Tables


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The result of a link's split, over a period.

    Attributes:
        since, until: The period; its end is outside.
        currency: Of all revenue here; null when nobody bought.
        currencies: In which anybody bought, by code.
        outcomes: One for each variant of the link, in their order; the others are compared with the first one.
        split_p: How likely such shares of visitors are by chance, given the weights.
        is_misplit: Whether that is so unlikely that no verdict should be believed.
        changed_at: When the variants were last changed.
        former: Visitors of variants that the link has no more, by name.
    """

    link_id: UUID
    since: datetime
    until: datetime
    currency: str | None
    currencies: list[str]
    outcomes: list[experiments.Outcome]
    split_p: float | None
    is_misplit: bool
    changed_at: datetime | None
    former: dict[str, int]


class _Paid(msgspec.Struct, frozen=True):
    """Revenue of one variant in one currency."""

    buyers: int
    cents: int
    squares: int


_NOTHING = _Paid(0, 0, 0)


class _Counted(msgspec.Struct, frozen=True):
    """What one variant's people came to."""

    visitors: int
    leads: int
    sales: int
    conversions: int
    paid: Mapping[str, _Paid]


async def experiment(
    conn: AsyncConnection,
    t: Tables,
    link: Link,
    *,
    now: datetime,
    period: tuple[datetime, datetime] | None = None,
    currency: str | None = None,
) -> Experiment:
    """
    What the split of *link* shows; without outcomes if it has no variants.

    Args:
        period: From (inside) and to (outside), aware; since the last change of the variants when left out.
        currency: ISO 4217 code; the one that most people bought in when left out.

    Raises:
        InvalidInput: The period ends before it begins, or is longer than ten years.
    """
    changed_at = await _changed_at(conn, t, link)
    if period is None:
        until = now + timedelta(microseconds=1)
        begun = min(changed_at or link.created_at, now)
        since = max(begun, until - LONGEST)
    else:
        since, until = checked_period(period)
    values = {"workspace_id": link.workspace_id, "link_id": link.id, "since": since, "until": until}
    counted = await _count(conn, t, values) if link.variants else {}
    shown = [(variant, counted.get(variant.name, _Counted(0, 0, 0, 0, {}))) for variant in link.variants]
    buyers = {
        code: sum(one.paid.get(code, _NOTHING).buyers for _, one in shown)
        for code in sorted({code for _, one in shown for code in one.paid})
    }
    code = currency or max(buyers, key=lambda found: buyers[found], default=None)
    arms = [
        _arm(variant.name, variant.weight, one, one.paid.get(code or "", _NOTHING)) for variant, one in shown
    ]
    found = experiments.result(arms)
    names = {variant.name for variant in link.variants}
    return Experiment(
        link_id=link.id,
        since=since,
        until=until,
        currency=code,
        currencies=list(buyers),
        outcomes=found.outcomes,
        split_p=found.split_p,
        is_misplit=found.is_misplit,
        changed_at=changed_at,
        former={name: one.visitors for name, one in counted.items() if name not in names},
    )


def _arm(name: str, weight: int, counted: _Counted, paid: _Paid) -> Arm:
    return Arm(
        name=name,
        visitors=counted.visitors,
        leads=counted.leads,
        sales=counted.sales,
        conversions=counted.conversions,
        buyers=paid.buyers,
        revenue=paid.cents,
        revenue_squares=paid.squares,
        weight=weight,
    )


async def _changed_at(conn: AsyncConnection, t: Tables, link: Link) -> datetime | None:
    found = await run(
        conn,
        f"SELECT max(at) FROM {t.link_changes} WHERE workspace_id = :workspace_id AND link_id = :link_id "
        "AND jsonb_exists(changes, 'variants')",
        workspace_id=link.workspace_id,
        link_id=link.id,
    )
    changed_at: datetime | None = found.scalar_one()
    return changed_at


async def _count(conn: AsyncConnection, t: Tables, values: Mapping[str, Any]) -> dict[str, _Counted]:
    """What the people of each variant came to, by its name."""
    # Windows, not joins: of what a WITH holds the planner knows nothing, and pairs everybody with everything.
    rows = await conn.execute(
        text(
            "WITH e AS MATERIALIZED (SELECT e.id, e.occurred_at, e.event_type, e.bot, e.trusted, e.currency, "
            f"{CENTS} AS cents, {PERSON} AS person, e.properties ->> 'variant' AS shown {from_events(t)} {OF_LINK} "
            "AND e.event_type IN ('link_click', 'lead', 'sale', 'refund')), "
            "p AS (SELECT e.*, first_value(shown) OVER one AS variant, first_value(is_led) OVER one AS takes_part, "
            f"first_value(occurred_at) OVER one AS since FROM (SELECT e.*, {CLICK} AND shown IS NOT NULL AS is_led FROM e) AS e "
            "WINDOW one AS (PARTITION BY person ORDER BY is_led DESC, occurred_at, id)), "
            "did AS (SELECT * FROM p WHERE takes_part AND occurred_at >= since), "
            f"people AS (SELECT person, variant, count(*) FILTER (WHERE {LEAD}) AS leads, "
            f"count(*) FILTER (WHERE {SALE}) AS sales FROM did e GROUP BY 1, 2), "
            "counted AS (SELECT variant, count(*) AS visitors, CAST(sum(leads) AS bigint) AS leads, "
            "CAST(sum(sales) AS bigint) AS sales, count(*) FILTER (WHERE leads + sales > 0) AS conversions "
            "FROM people GROUP BY 1), "
            "paid AS (SELECT person, variant, currency, sum(cents) AS cents "
            f"FROM did e WHERE {MONEY} GROUP BY 1, 2, 3), "
            "sums AS (SELECT variant, currency, jsonb_build_array(count(*) FILTER (WHERE cents > 0), sum(cents), "
            "sum(cents * cents)) AS sums FROM paid GROUP BY 1, 2) "
            "SELECT c.variant, c.visitors, c.leads, c.sales, c.conversions, coalesce((SELECT jsonb_object_agg(s.currency, s.sums) FROM sums s "
            "WHERE s.variant = c.variant), '{}') AS paid FROM counted c ORDER BY c.variant COLLATE \"C\""
        ).columns(paid=JSONB),
        dict(values),
    )
    return {
        row.variant: _Counted(
            row.visitors,
            row.leads,
            row.sales,
            row.conversions,
            {code: _Paid(*map(int, sums)) for code, sums in row.paid.items()},
        )
        for row in rows
    }


__all__ = ["Experiment", "experiment"]
