"""
The ledger of commissions: what was earned, and what refunds took back. Amounts only; nobody is paid here.

1. It is a function of what is known of a person, worked out anew when that changes: when referrals come late, when people are
   merged or parted, when a buyer turns out to be the partner. An entry is never deleted and its amount never changes; it
   becomes void, or counts again.
2. Whose a sale is ceases to be asked once somebody has reviewed an entry of it: that stays as they said, and refunds of it go on.
3. A refund takes back the same part of the commission as of the amount, all refunds so far weighed together: so parts add up, a
   sale that was given back leaves nothing, and never is more taken back than was earned. What was taken back counts, or does
   not, as its commission does.
4. Currencies are never added together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from goodanalytics.core.attribution import divide
from goodanalytics.core.identity_rows import derived_id
from goodanalytics.core.referral import PAUSED, Conversion, Due

EntryStatus = Literal["pending", "approved", "void"]

NOT_REFERRED: Final = "not_referred"
"""Why an entry is void: the sale is not this partner's any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """
    A row of the ledger: what was earned, or what a refund took back.

    Attributes:
        event_id: The lead's or sale's; of what was taken back, the refund's.
        sale_event_id: The lead's or sale's in both cases.
        event_type: Of the conversion that it was earned with: `lead` or `sale`.
        visitor_id: The row of the buyer; `None` once they are forgotten.
        amount_cents: Below zero for what was taken back.
        base_cents, base_currency: What the amount was worked out from: the sale's or the refund's. A fixed commission may be in
            another currency.
        reason: Why it is void, or what the reviewer said.
        occurred_at: When the conversion or refund was.
        reviewed_at, reviewed_by: When and by whom it was approved or made void by hand.
    """

    workspace_id: UUID
    id: UUID
    partner_id: UUID
    event_id: UUID
    sale_event_id: UUID
    event_type: str
    visitor_id: UUID | None
    kind: Literal["earned", "reversed"]
    amount_cents: int
    base_cents: int
    base_currency: str | None
    currency: str
    status: EntryStatus
    reason: str | None
    occurred_at: datetime
    created_at: datetime
    reviewed_at: datetime | None = None
    reviewed_by: str | None = None


def settled(
    conversion: Conversion | None,
    refunds: Iterable[Conversion],
    owed: Due | None,
    entries: Iterable[Entry],
    now: datetime,
) -> list[Entry]:
    """
    The entries of one lead or sale that are new or change.

    Args:
        conversion: `None` when only *refunds* came: whose commission it is stays as it was.
        refunds: Of this sale, also those that are in the ledger already.
        owed: Whose commission it is, as far as is known now.
        entries: What the ledger holds of it.
        now: When new entries are written.
    """
    before = {entry.id: entry for entry in entries}
    after = dict(before)
    own = {entry.partner_id: entry for entry in before.values() if entry.kind == "earned"}
    if conversion is not None and not any(entry.reviewed_at for entry in own.values()):
        for partner_id, entry in own.items():
            own[partner_id] = _judged(entry, owed)
        if owed is not None and owed.partner.id not in own:
            own[owed.partner.id] = _entry(conversion, owed, now)
    after |= {entry.id: entry for entry in own.values()}
    known = {one.event_id: one for one in [*_refunds_in(before.values()), *refunds]}
    for entry in own.values():
        after |= {reversal.id: reversal for reversal in _reversals(entry, before.values(), known, now)}
    return [entry for entry in after.values() if before.get(entry.id) != entry]


def _judged(entry: Entry, owed: Due | None) -> Entry:
    """*entry*, earned and not reviewed, with today's status."""
    if owed is None or owed.partner.id != entry.partner_id:
        return replace(entry, status="void", reason=NOT_REFERRED)
    # Whether somebody was paused is decided when the entry is made, and not each time that it is looked at.
    reason = owed.reason if owed.reason != PAUSED else None
    if reason is None and entry.reason == PAUSED:
        reason = PAUSED
    return replace(entry, status="pending" if reason is None else "void", reason=reason)


def _entry(conversion: Conversion, owed: Due, now: datetime) -> Entry:
    return Entry(
        workspace_id=conversion.workspace_id,
        id=entry_id(conversion, owed.partner.id, "earned"),
        partner_id=owed.partner.id,
        event_id=conversion.event_id,
        sale_event_id=conversion.event_id,
        event_type=conversion.kind,
        visitor_id=conversion.visitor_id,
        kind="earned",
        amount_cents=owed.amount_cents,
        base_cents=conversion.amount_cents or 0,
        base_currency=conversion.currency,
        currency=owed.currency,
        status="pending" if owed.reason is None else "void",
        reason=owed.reason,
        occurred_at=conversion.occurred_at,
        created_at=now,
    )


def entry_id(conversion: Conversion, partner_id: UUID, kind: str) -> UUID:
    """The id of an entry: the same for ever, so that working it out twice adds nothing."""
    return derived_id(conversion.event_id, conversion.occurred_at, f"commission {kind} {partner_id}")


def _refunds_in(entries: Iterable[Entry]) -> list[Conversion]:
    """The refunds that the ledger knows of, whoever it took something back from."""
    return [
        Conversion(
            one.workspace_id, one.event_id, "refund", one.visitor_id or UUID(int=0), one.occurred_at,
            one.base_cents, one.base_currency, one.sale_event_id,
        )
        for one in entries
        if one.kind == "reversed"
    ]  # fmt: skip


def _reversals(
    entry: Entry, entries: Iterable[Entry], refunds: Mapping[UUID, Conversion], now: datetime
) -> Iterable[Entry]:
    """What refunds took back from *entry*. What was taken back before stays, and counts as its commission does."""
    there = {
        one.event_id: one for one in entries if one.kind == "reversed" and one.partner_id == entry.partner_id
    }
    for one in there.values():
        yield replace(one, status=entry.status, reason=entry.reason)
    given_back = sum(one.base_cents for one in there.values())
    fresh = [one for one in refunds.values() if one.event_id not in there]
    for refund in sorted(fresh, key=lambda one: (one.occurred_at, one.event_id)):
        cents = refund.amount_cents or 0
        taken = taken_back(entry.amount_cents, entry.base_cents, given_back, cents)
        given_back += cents
        yield replace(
            entry,
            id=entry_id(refund, entry.partner_id, "reversed"),
            event_id=refund.event_id,
            kind="reversed",
            amount_cents=-taken,
            base_cents=cents,
            occurred_at=refund.occurred_at,
            created_at=now,
            reviewed_at=None,
            reviewed_by=None,
        )


def taken_back(earned_cents: int, base_cents: int, before: int, cents: int) -> int:
    """
    What a refund of *cents* takes from a commission of *earned_cents* on *base_cents*, after refunds of *before* cents.

    >>> [taken_back(5, 100, before, 50) for before in (0, 50, 100)]
    [3, 2, 0]
    """
    if base_cents <= 0:
        return 0

    def by_then(given: int) -> int:
        given = min(max(given, 0), base_cents)
        return divide(earned_cents, [given, base_cents - given])[0]

    return by_then(before + cents) - by_then(before)


__all__ = [
    "NOT_REFERRED",
    "Entry",
    "EntryStatus",
    "entry_id",
    "settled",
    "taken_back",
]
