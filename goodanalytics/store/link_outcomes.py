"""
The result of a split: what became of those whom each variant was shown.

Everybody belongs to the variant that they saw first, also when a later click led them elsewhere. What they then did counts for it,
as far as it carries the link. Whether the difference means anything is for `core.experiments` to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.store.link_days import CENTS, CLICK, LEAD, MONEY, PERSON, SALE
from goodanalytics.store.tables import Tables


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    What became of the people whom a variant was shown first.

    Attributes:
        variant: Its name; null are those of clicks that no variant decided.
        visitors: People.
        leads, sales: Events; *converted* are people with a sale.
        revenue: By currency. *squares* is the sum over people of their revenue's square, for `core.experiments`.
    """

    variant: str | None
    clicks: int
    visitors: int
    leads: int
    sales: int
    converted: int
    revenue: dict[str, int]
    squares: dict[str, int]


def from_events(t: Tables) -> str:
    """Events as `e`, with their visitors as `v`."""
    return f"FROM {t.events} e LEFT JOIN {t.visitors} v ON v.workspace_id = e.workspace_id AND v.id = e.visitor_id"


OF_LINK: Final = "WHERE e.workspace_id = :workspace_id AND e.link_id = :link_id AND e.occurred_at >= :since AND e.occurred_at < :until"
"""The events of one link over a period."""


async def outcomes(conn: AsyncConnection, t: Tables, values: Mapping[str, Any]) -> list[Outcome]:
    """
    The result of a split, by variant; none where no click was decided by one.

    Args:
        values: `workspace_id`, `link_id`, `since` and `until`.
    """
    seen = "e.properties ->> 'variant'"
    rows = await conn.execute(
        text(
            f"WITH e AS MATERIALIZED (SELECT e.id, e.occurred_at, e.event_type, e.bot, e.trusted, e.currency, {CENTS} AS cents, "
            f"{PERSON} AS person, {seen} AS variant {from_events(t)} {OF_LINK} "
            "AND e.event_type IN ('link_click', 'lead', 'sale', 'refund')), "
            f"clicked AS (SELECT variant, count(*) AS clicks FROM e WHERE {CLICK} GROUP BY 1), "
            # Windows, not joins: of what a WITH holds the planner knows nothing, and pairs everybody with everything.
            "people AS (SELECT e.*, first_value(variant) OVER one AS first_variant, first_value(is_click) OVER one AS is_led "
            f"FROM (SELECT e.*, {CLICK} AS is_click FROM e) AS e "
            "WINDOW one AS (PARTITION BY person ORDER BY is_click DESC, occurred_at, id)), "
            "did AS (SELECT person, first_variant AS variant, "
            f"count(*) FILTER (WHERE {LEAD}) AS leads, count(*) FILTER (WHERE {SALE}) AS sales "
            "FROM people e WHERE is_led GROUP BY 1, 2), "
            "counted AS (SELECT variant, count(*) AS visitors, sum(leads) AS leads, sum(sales) AS sales, "
            "count(*) FILTER (WHERE sales > 0) AS converted FROM did GROUP BY 1), "
            "paid AS (SELECT person, first_variant AS variant, currency, sum(cents) AS cents "
            f"FROM people e WHERE is_led AND {MONEY} GROUP BY 1, 2, 3), "
            "money AS (SELECT variant, jsonb_object_agg(currency, cents) AS revenue, jsonb_object_agg(currency, squares) AS squares "
            "FROM (SELECT variant, currency, sum(cents) AS cents, sum(cents * cents) AS squares FROM paid GROUP BY 1, 2) AS m "
            "GROUP BY 1) "
            "SELECT k.variant, k.clicks, coalesce(c.visitors, 0) AS visitors, coalesce(c.leads, 0) AS leads, "
            "coalesce(c.sales, 0) AS sales, coalesce(c.converted, 0) AS converted, m.revenue, m.squares "
            "FROM clicked k LEFT JOIN counted c ON c.variant IS NOT DISTINCT FROM k.variant "
            "LEFT JOIN money m ON m.variant IS NOT DISTINCT FROM k.variant "
            'WHERE EXISTS (SELECT FROM clicked WHERE variant IS NOT NULL) ORDER BY k.variant COLLATE "C" NULLS LAST'
        ).columns(revenue=JSONB, squares=JSONB),
        dict(values),
    )
    return [
        Outcome(
            row.variant, row.clicks, int(row.visitors), int(row.leads), int(row.sales), int(row.converted),
            _whole(row.revenue), _whole(row.squares),
        )
        for row in rows
    ]  # fmt: skip


def _whole(by_currency: Mapping[str, Any] | None) -> dict[str, int]:
    return {code: int(value) for code, value in (by_currency or {}).items()}


__all__ = ["OF_LINK", "Outcome", "from_events", "outcomes"]
