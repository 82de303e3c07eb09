"""
What customers send back: refunds of the history's sales, each days after its sale.

Every sale is weighed by a generator of its own, so that neither more visitors nor more refunds change who else gives back what.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

from goodanalytics.core.hits import EventType, Hit, Signals
from goodanalytics.demo.browsing import Shop, hit_at, seconds_of

GIVEN_BACK: Final = 0.14
"""The part of all sales of which anything is given back, once there was time for it."""

BY_THE_BANK: Final = 0.1
"""The part of those that the customer's bank takes back."""

SOONEST, LATEST = 1.0, 9.0  # days after the sale, or after the refund before


def refunds(shop: Shop, sales: Iterable[Hit], seed: int) -> Iterator[Hit]:
    """The refunds of *sales* that happen before the history ends: half of them whole, the others in a part or in two."""
    for sale in sales:
        rng = Random(f"{seed}:back:{sale.id}")
        if rng.random() < GIVEN_BACK:
            yield from _of_sale(shop, sale, rng)


def _of_sale(shop: Shop, sale: Hit, rng: Random) -> Iterator[Hit]:
    whole = sale.amount_cents or 0
    amounts = [whole]
    if rng.random() < 0.5:
        amounts = [whole * rng.randint(20, 60) // 100]
        if rng.random() < 0.4:
            amounts.append(whole - amounts[0])
    reason = "chargeback" if rng.random() < BY_THE_BANK else "refund"
    at = sale.occurred_at
    for number, cents in enumerate(amounts, start=1):
        at = _later(at, rng)
        if at >= shop.until:
            return
        facts: dict[str, Any] = {
            "amount_cents": cents, "currency": sale.currency, "key": f"{sale.key}-back-{number}", "sale_id": sale.id, "reason": reason,
        }  # fmt: skip
        # The shop's server knows whose order it was, as when it was paid.
        signals = Signals(anonymous_id=sale.signals.anonymous_id)
        yield hit_at(
            shop,
            rng,
            at,
            event_type=EventType.REFUND,
            origin="server",
            trusted=True,
            signals=signals,
            **facts,
        )


def _later(at: datetime, rng: Random) -> datetime:
    return at + seconds_of(timedelta(days=rng.uniform(SOONEST, LATEST)).total_seconds())


__all__ = ["refunds"]
