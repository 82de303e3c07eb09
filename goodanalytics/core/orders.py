"""What the host says about an order beside its amount: its lines, and where it was placed."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

Place: TypeAlias = Literal["website", "phone", "store", "system"]
Reason: TypeAlias = Literal["refund", "chargeback"]

MAX_ITEMS: Final = 100  # lines of one order that are kept
MAX_QUANTITY: Final = 1_000_000


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One line of an order.

    Attributes:
        price_cents: Of one piece, in the minor unit of the conversion's currency.
    """

    id: str
    name: str | None = None
    quantity: int = 1
    price_cents: int | None = None
    category: str | None = None
    brand: str | None = None


__all__ = ["MAX_ITEMS", "MAX_QUANTITY", "Item", "Place", "Reason"]
