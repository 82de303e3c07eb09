"""How a hit changes its visitor's row: what the host said about the person, and what touched them first and last."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from goodanalytics.core import identity
from goodanalytics.core.hits import EventType, Hit
from goodanalytics.core.sources import Source
from goodanalytics.core.visitors import STATUS_RANK, Visitor


def told_by_host(row: Visitor, hit: Hit) -> Visitor:
    """What the host says about the person, and how far along that brings them."""
    signals = hit.signals
    status, identified_at = row.status, row.identified_at
    names = signals.external_id or signals.email or signals.phone
    if names or hit.event_type in (EventType.IDENTIFY, EventType.LEAD, EventType.SALE):
        status = max(status, "identified", key=STATUS_RANK.__getitem__)
        identified_at = min(identified_at or hit.occurred_at, hit.occurred_at)
    ltv, converted_at = row.ltv, row.converted_at
    if hit.event_type is EventType.LEAD:
        status = max(status, "lead", key=STATUS_RANK.__getitem__)
    elif hit.event_type is EventType.SALE:
        status = max(status, "customer", key=STATUS_RANK.__getitem__)
        converted_at = min(converted_at or hit.occurred_at, hit.occurred_at)
    if hit.currency is not None and hit.event_type in (EventType.SALE, EventType.REFUND):
        # A refund takes the money back and nothing else: who bought once stays a customer.
        cents = (hit.amount_cents or 0) * (-1 if hit.event_type is EventType.REFUND else 1)
        ltv = {**ltv, hit.currency: ltv.get(hit.currency, 0) + cents}
    return msgspec.structs.replace(
        row,
        status=status,
        email=identity.normal_email(signals.email) or row.email,
        phone=identity.normal_phone(signals.phone) or signals.phone or row.phone,
        name=signals.name or row.name,
        traits={**row.traits, **signals.traits},
        identified_at=identified_at,
        converted_at=converted_at,
        ltv=ltv,
    )


def touched(
    row: Visitor,
    at: datetime,
    acquisition: dict[str, Any],
    click_id: UUID | None,
    *,
    is_first_only: bool = False,
) -> Visitor:
    """Note a touch: the earliest is the first source; the latest that is not direct is the last source."""
    is_direct = Source.from_json(acquisition).is_direct
    if row.first_source_at is None or at <= row.first_source_at:
        first = (acquisition, at, click_id)
        if first != (row.first_source, row.first_source_at, row.first_click_id):
            row = msgspec.structs.replace(
                row, first_source=acquisition, first_source_at=at, first_click_id=click_id
            )
    if is_first_only and row.last_source_at is not None:
        return row
    was_direct = row.last_source is None or Source.from_json(row.last_source).is_direct
    is_later = row.last_source_at is None or at >= row.last_source_at
    if (is_later and (not is_direct or was_direct)) or (was_direct and not is_direct):
        row = msgspec.structs.replace(row, last_source=acquisition, last_source_at=at, last_click_id=click_id)
    return row
