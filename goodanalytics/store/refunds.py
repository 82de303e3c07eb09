"""
From what a caller calls a sale to the sale that a refund takes back.

Nothing is locked here: that a sale exists, on which row it lies and in which currency it was never changes. How much of it is left is
decided when the refund is processed (`core.conversions.Sales`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core import repetition
from goodanalytics.core.hits import Hit, id_for_key
from goodanalytics.errors import GoodAnalyticsError, InvalidInput, NotFound
from goodanalytics.store.sales import KnownSale, SaleName, find_sales
from goodanalytics.store.tables import Tables


async def of_sales(
    conn: AsyncConnection, t: Tables, asked: Sequence[tuple[Hit, SaleName]]
) -> list[Hit | GoodAnalyticsError]:
    """
    Each refund with its sale; or the error that its caller is to have.

    A refund without a key and an amount, of all that is left, is one for its sale however often it is asked for.
    """
    found = await find_sales(conn, t, {(hit.workspace_id, name) for hit, name in asked})
    return [_of_sale(hit, name, found.get((hit.workspace_id, name))) for hit, name in asked]


def _of_sale(hit: Hit, name: SaleName, sale: KnownSale | None) -> Hit | GoodAnalyticsError:
    shown = f"of the key {name!r}" if isinstance(name, str) else str(name)
    if sale is None:
        return NotFound(
            f"There is no sale {shown} in workspace {hit.workspace_id}. A refund names the key that the sale was given, "
            "or its event id"
        )
    if hit.currency not in (None, sale.currency):
        return InvalidInput(
            f"The sale {shown} was in {sale.currency}, the refund is in {hit.currency}; give back in the sale's currency",
            where="currency",
        )
    hit_id = hit.id
    if hit.key is None and hit.amount_cents is None:
        hit_id = id_for_key(hit.workspace_id, "refund of all", str(sale.event_id))
    pointed = msgspec.structs.replace(
        hit,
        id=hit_id,
        sale_id=sale.event_id,
        signals=msgspec.structs.replace(hit.signals, visitor_id=sale.visitor_id),
    )
    return msgspec.structs.replace(pointed, digest=repetition.of_sale(pointed))


__all__ = ["of_sales"]
