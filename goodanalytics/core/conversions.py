"""
What counts as a conversion, what earned it, and what a refund takes back.

1. A conversion is a lead, a sale or a refund that the host vouches for and that no bot did. It keeps the touches that had led
   to it at that moment, so that whoever earned a sale is known also when visits are deleted later.
2. A refund never takes more than its sale has left. It stands where its sale stands: on the same row, with the same visit,
   source, link and page; so whatever a sale added to, its refund takes away from.
3. Refunds of one sale are weighed together: each takes what all refunds so far take, less what those before it took. So
   parts add up to the whole, for every touch and in the reporting currency too, and a sale that was given back leaves nothing.
4. Money is whole minor units. A rate is for the major unit; the result is rounded to the nearest minor unit, half to even.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final
from uuid import UUID

import msgspec

from goodanalytics.core.attribution import Credit, Model, Touch, credit
from goodanalytics.core.currencies import decimals
from goodanalytics.core.hits import EventType, Hit
from goodanalytics.core.orders import Place

KINDS: Final = frozenset({EventType.LEAD, EventType.SALE, EventType.REFUND})

PLACED: Final = (
    "session_id", "url", "host", "path", "title", "referrer", "source", "medium", "channel", "campaign", "acquisition",
    "link_id", "click_id", "device_type", "browser", "browser_version", "os", "os_version", "country", "region", "city",
)  # fmt: skip
"""The columns of an event that a refund has from its sale."""

MOST_TOUCHES: Final = 500
"""Of one conversion that are kept: the first one and the newest."""


@dataclass(slots=True)
class Sale:
    """
    A sale that was recorded, as far as a refund of it has to know.

    Attributes:
        visitor_id: The row that it lies on.
        reporting_cents: `None` where no rate was known.
        refunded_cents: By all refunds so far.
        event: Its columns of `PLACED`; empty when the event is no longer kept.
        is_new: Whether it is of the batch at hand, and so not written yet.
    """

    workspace_id: UUID
    id: UUID
    visitor_id: UUID
    occurred_at: datetime
    key: str | None
    amount_cents: int
    currency: str | None
    reporting_cents: int | None = None
    reporting_currency: str | None = None
    refunded_cents: int = 0
    place: Place = "website"
    event: Mapping[str, Any] = field(default_factory=dict)
    is_new: bool = False

    @property
    def left_cents(self) -> int:
        """What can still be given back."""
        return self.amount_cents - self.refunded_cents

    def reporting_share(self, before: int, cents: int) -> int | None:
        """What giving back *cents*, after *before* cents, takes away in the reporting currency."""
        if self.reporting_cents is None:
            return None
        whole = self.amount_cents or 1
        first, last = (
            int((Decimal(self.reporting_cents * given) / whole).to_integral_value(ROUND_HALF_EVEN))
            for given in (before, before + cents)
        )
        return last - first


@dataclass(frozen=True, slots=True)
class Converted:
    """
    A conversion of a batch.

    Attributes:
        visitor_id: The row that it lies on.
        url, ip: Of the page and the browser, as they may be kept.
        sale: Of a refund.
        before_cents: Of a refund: what other refunds had given back by then.
    """

    hit: Hit
    visitor_id: UUID
    url: str | None = None
    ip: str | None = None
    sale: Sale | None = None
    before_cents: int | None = None


def is_conversion(hit: Hit) -> bool:
    """Whether *hit* counts as one."""
    return is_told_as_one(hit) and hit.client.bot is None


def is_told_as_one(hit: Hit) -> bool:
    """Whether *hit* is said to be one by whoever may say so; a machine's counts as an event and as nothing else, and keeps its key."""
    return hit.trusted and hit.event_type in KINDS


class Sales:
    """The sales that refunds of a batch take back, and what is left of each as the batch goes on."""

    def __init__(self, known: Mapping[tuple[UUID, UUID], Sale]) -> None:
        self._known = dict(known)
        self._before: dict[UUID, int] = {}

    def note(self, hit: Hit, visitor_id: UUID) -> None:
        """Let what comes after *hit* in the batch give it back, if it is a sale that counts; *visitor_id* is its row."""
        if hit.event_type is EventType.SALE and is_conversion(hit):
            self._known[hit.workspace_id, hit.id] = Sale(
                workspace_id=hit.workspace_id,
                id=hit.id,
                visitor_id=visitor_id,
                occurred_at=hit.occurred_at,
                key=hit.key,
                amount_cents=hit.amount_cents or 0,
                currency=hit.currency,
                place=hit.place,
                is_new=True,
            )

    def of(self, hit: Hit) -> Sale | None:
        """The sale that *hit*, a refund, takes back."""
        return None if hit.sale_id is None else self._known.get((hit.workspace_id, hit.sale_id))

    def take(self, hit: Hit) -> Hit | str:
        """*hit*, a refund, with the amount that it gives back and where its order was placed; or why it cannot be."""
        sale = self.of(hit)
        reason = refusal(sale, hit)
        if sale is None or reason is not None:
            return reason or "its sale is not known"
        cents = sale.left_cents if hit.amount_cents is None else hit.amount_cents
        self._before[hit.id] = sale.refunded_cents
        sale.refunded_cents += cents
        return msgspec.structs.replace(hit, amount_cents=cents, currency=sale.currency, place=sale.place)

    def pointed(self, hit: Hit) -> Hit:
        """*hit*, a refund that says of nobody whose it is, with the visitor of its sale, whom nobody knew before this batch."""
        sale = self.of(hit)
        if sale is None or not sale.is_new or hit.signals.visitor_id is not None:
            return hit
        return msgspec.structs.replace(
            hit, signals=msgspec.structs.replace(hit.signals, visitor_id=sale.visitor_id)
        )

    def placed(self, hit: Hit, events: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Where *hit*, a refund, stands: where its sale stands, which may be among the *events* of this batch."""
        of_batch = next((event for event in events if event["id"] == hit.sale_id), None)
        if of_batch is not None:
            return {name: of_batch[name] for name in PLACED if name in of_batch}
        sale = self.of(hit)
        return {} if sale is None else sale.event

    def converted(self, hit: Hit, visitor_id: UUID, *, url: str | None, ip: str | None) -> Converted:
        """*hit* as a conversion on the row *visitor_id*."""
        return Converted(hit, visitor_id, url, ip, self.of(hit), self._before.get(hit.id))


def refusal(sale: Sale | None, hit: Hit) -> str | None:
    """Why *hit*, a refund, cannot be; `None` when it can."""
    if sale is None:
        return f"the sale {hit.sale_id} is not known"
    currency = sale.currency or "of no currency"
    if hit.currency is not None and hit.currency != sale.currency:
        return f"the sale was in {currency}, the refund is in {hit.currency}; give back in the currency of the sale"
    if sale.left_cents <= 0:
        return f"all {sale.amount_cents} {currency} of the sale are given back already"
    if hit.amount_cents is not None and hit.amount_cents > sale.left_cents:
        return (
            f"{hit.amount_cents} {currency} are more than the {sale.left_cents} that are left of the sale's "
            f"{sale.amount_cents}; give back at most that, or leave amount_cents out for all that is left"
        )
    return None


def given_back(path: Sequence[Touch], before: int, cents: int, model: Model) -> list[Credit]:
    """
    What a refund of *cents* takes from each touch of its sale; negative.

    Args:
        path: The touches that the sale keeps.
        before: What other refunds had given back by then.

    All refunds of a sale together take exactly what `credit` gave for it.

    >>> day = Touch(datetime(2026, 5, 1), {"platform": "google", "medium": "organic"})
    >>> [[part.cents for part in given_back([day] * 3, *part, Model.LINEAR)] for part in ((0, 50), (50, 50))]
    [[-17, -17, -16], [-17, -16, -17]]
    """
    earlier = credit(path, before, model)
    by_then = credit(path, before + cents, model)
    return [Credit(one.touch, one.cents - other.cents) for one, other in zip(earlier, by_then, strict=True)]


def exchanged(cents: int, currency: str, rate: Decimal, into: str) -> int:
    """
    *cents* of *currency* in the minor unit of *into*.

    Args:
        rate: How many of *into* one of *currency* is worth, in major units.

    >>> exchanged(4900, "JPY", Decimal("0.0061"), "EUR")
    2989
    """
    scale = decimals(into) - decimals(currency)
    return int((Decimal(cents) * rate).scaleb(scale).to_integral_value(ROUND_HALF_EVEN))


__all__ = [
    "KINDS",
    "MOST_TOUCHES",
    "PLACED",
    "Converted",
    "Sale",
    "Sales",
    "exchanged",
    "given_back",
    "is_conversion",
    "is_told_as_one",
    "refusal",
]
