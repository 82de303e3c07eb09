"""
Partners in plain English: their fields, terms, commissions and figures.

Pure. Every function takes values and returns texts or tiles; the templates escape them. Nothing is counted here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final, Literal

from goodanalytics.core.commissions import NOT_REFERRED, Entry, EntryStatus
from goodanalytics.core.partners import Commission, PartnerStatus
from goodanalytics.core.referral import PAUSED, SELF_REFERRAL
from goodanalytics.store.partner_figures import PartnerStats
from goodanalytics.web.dashboard import words
from goodanalytics.web.dashboard.figures import Tile

LABELS: Final[Mapping[str, str]] = {
    "name": "Name",
    "code": "Code",
    "email": "E-mail address",
    "external_id": "Your own id of this person",
    "visitor_id": "Visitor",
    "kind": "Earns",
    "value": "How much",
    "currency": "Currency",
    "on": "With each",
    "window_days": "For how many days",
    "metadata": "Your own data",
}
"""What the fields of a partner's form are called."""

STANDINGS: Final[Mapping[PartnerStatus, str]] = {"active": "Active", "paused": "Paused", "closed": "Closed"}

REVIEWS: Final[Mapping[EntryStatus, str]] = {"pending": "Pending", "approved": "Approved", "void": "Void"}

KINDS: Final[Mapping[Literal["earned", "reversed"], str]] = {"earned": "Earned", "reversed": "Taken back"}

REASONS: Final[Mapping[str, str]] = {
    SELF_REFERRAL: "The buyer is the partner",
    PAUSED: "The partner was paused",
    NOT_REFERRED: "It is another partner’s, or nobody’s",
}
"""Why the rules made a commission void; everything else was written by somebody."""


def share(value: int) -> str:
    """
    Basis points as a percentage, exactly.

    >>> share(1000), share(1250), share(5)
    ('10', '12.5', '0.05')
    """
    whole, left = divmod(value, 100)
    return f"{whole}.{left:02}".rstrip("0").rstrip(".")


def terms(given: Commission, window: timedelta) -> str:
    """
    What a partner earns, in a sentence.

    Args:
        window: How long after a referral, where the terms do not say.

    >>> terms(Commission(value=1250, window_days=30), timedelta(days=90))
    '12.5% of each sale within 30 days'
    """
    if given.kind == "fixed":
        earned = f"{words.money(given.value, given.currency or '')} for each {given.on}"
    else:
        earned = (
            f"{share(given.value)}% of each {given.on}{f' in {given.currency}' if given.currency else ''}"
        )
    return f"{earned} within {days(timedelta(days=given.window_days) if given.window_days else window)}"


def days(length: timedelta) -> str:
    """
    A length of time in days.

    >>> days(timedelta(days=1)), days(timedelta(hours=36))
    ('1 day', '1.5 days')
    """
    number = length / timedelta(days=1)
    return f"{number:g} {'day' if number == 1 else 'days'}"


def reason(entry: Entry) -> str:
    """Why an entry of the ledger stands as it does, or an empty text."""
    return REASONS.get(entry.reason or "", entry.reason or "")


def earned(found: PartnerStats) -> dict[str, int]:
    """What a partner earned, less what refunds took back of it, by currency."""
    return {one.currency: one.net_cents for one in found.earnings}


def tiles(now: PartnerStats, before: PartnerStats) -> list[Tile]:
    """
    The period's figures.

    Args:
        before: Those of the period before.
    """
    return [
        *(
            Tile(name, (words.count(new),), words.count(old), words.change(new, old))
            for name, new, old in (
                ("Clicks", now.clicks, before.clicks),
                ("Visitors", now.visitors, before.visitors),
                ("Leads", now.leads, before.leads),
                ("Sales", now.sales, before.sales),
            )
        ),
        _money("Revenue", now.revenue, before.revenue),
        _money("Earned", earned(now), earned(before)),
    ]


def _money(name: str, now: Mapping[str, int], before: Mapping[str, int]) -> Tile:
    return Tile(name, tuple(words.amounts(now)) or ("–",), " · ".join(words.amounts(before)) or "–", None)


__all__ = [
    "KINDS", "LABELS", "REASONS", "REVIEWS", "STANDINGS", "days", "earned", "reason", "share", "terms", "tiles",
]  # fmt: skip
