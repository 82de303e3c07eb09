"""
Revenue in the reporting currency: trusted sales less trusted refunds, each at the rate of its sale.

Rates are asked for when a sale is recorded and kept with it, so a figure of last year does not change with today's rates. What had no
rate then is left out, and told in `meta`; nothing is ever added across currencies.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, case, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.hits import EventType
from goodanalytics.store.reports.metrics import Result
from goodanalytics.store.tables import Tables


async def revenue(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, period: tuple[datetime, datetime]
) -> Result:
    """
    A row for each reporting currency that was set in the *period* (its end is outside): the currency and its minor units.

    `meta["left_out"]` has, by charged currency, how many sales and refunds had no rate.
    """
    e, c = t.events.c, t.conversions.c
    signed = case((c.kind == "refund", -c.reporting_cents), else_=c.reporting_cents)
    is_known = c.reporting_cents.is_not(None)
    found = await conn.execute(
        select(
            case((is_known, c.reporting_currency), else_=c.currency).label("code"),
            is_known.label("is_known"),
            cast(func.sum(signed), BigInteger).label("cents"),
            func.count().label("number"),
        )
        .join_from(t.events, t.conversions, (c.workspace_id == e.workspace_id) & (c.event_id == e.id))
        .where(
            e.workspace_id == workspace_id,
            e.occurred_at >= period[0],
            e.occurred_at < period[1],
            e.event_type.in_([EventType.SALE, EventType.REFUND]),
            e.trusted,
            e.bot.is_(None),
            c.amount_cents.is_not(None),
            c.currency.is_not(None),
        )
        .group_by("code", "is_known")
        .order_by("code")
    )
    rows = found.all()
    left_out = {row.code: row.number for row in rows if not row.is_known}
    notes = [f"{number} amounts in {code} had no rate and are left out" for code, number in left_out.items()]
    meta: dict[str, Any] = {
        "from": "conversions",
        "exact": not left_out,
        "left_out": left_out,
        "notes": notes,
    }
    known = tuple((row.code, row.cents) for row in rows if row.is_known)
    return Result(("reporting_currency", "reporting_revenue_cents"), known, None, meta)


__all__ = ["revenue"]
