"""
The visitor as a whole person: the fold of the rows that share a `canonical_id`.

Each row holds what its own browsers did and is never rewritten by a merge, so a person is read by folding rows and an
unmerge is exact. `ABSORB` says for every field how two rows become one; a test proves that no field lacks a rule.

The fold does not depend on the order of the rows: they are sorted by `first_seen_at`, then id, before the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

STATUS_RANK = {"anonymous": 0, "identified": 1, "lead": 2, "customer": 3, "churned": 4}
"""A status only climbs: a customer who fills in a form again stays a customer."""


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """
    A visitor, as one row or as the fold of several.

    Attributes:
        id: Of this row; of the canonical row after a fold.
        canonical_id: The visitor that this row's person is known as.
        status: anonymous, identified, lead, customer or churned.
        external_id, email, phone, name, traits: Said by the host.
        first_source, last_source: The first touch, and the last touch that was not direct, as `Source.to_json()`;
            with their times and clicks.
        geo, device: Of the first hit that had any; as JSON.
        platform_signals: What ad platforms want back: `fbp`, `fbc`, `ttp` and click ids.
        bot: Why the first hit was not a person's, or `None`.
        ltv: Trusted revenue in minor units per currency code.
    """

    workspace_id: UUID
    id: UUID
    canonical_id: UUID
    status: str = "anonymous"
    external_id: str | None = None
    email: str | None = None
    phone: str | None = None
    name: str | None = None
    traits: dict[str, Any] = {}
    first_source: dict[str, Any] | None = None
    first_source_at: datetime | None = None
    first_click_id: UUID | None = None
    last_source: dict[str, Any] | None = None
    last_source_at: datetime | None = None
    last_click_id: UUID | None = None
    first_seen_at: datetime
    last_seen_at: datetime
    identified_at: datetime | None = None
    converted_at: datetime | None = None
    geo: dict[str, Any] = {}
    device: dict[str, Any] = {}
    platform_signals: dict[str, str] = {}
    bot: str | None = None
    total_sessions: int = 0
    total_pageviews: int = 0
    total_events: int = 0
    ltv: dict[str, int] = {}

    def to_json(self) -> dict[str, Any]:
        """The visitor as REST and the dashboard show it. Times are ISO 8601 in UTC."""
        return {
            "id": str(self.id),
            "workspace_id": str(self.workspace_id),
            "status": self.status,
            "person_external_id": self.external_id,
            "person_email": self.email,
            "person_phone": self.phone,
            "person_name": self.name,
            "traits": self.traits,
            "first_source": self.first_source,
            "last_source": self.last_source,
            "first_click_id": None if self.first_click_id is None else str(self.first_click_id),
            "last_click_id": None if self.last_click_id is None else str(self.last_click_id),
            "first_seen_at": self.first_seen_at.isoformat(),
            "last_seen_at": self.last_seen_at.isoformat(),
            "identified_at": None if self.identified_at is None else self.identified_at.isoformat(),
            "converted_at": None if self.converted_at is None else self.converted_at.isoformat(),
            "geo": self.geo,
            "device": self.device,
            "total_sessions": self.total_sessions,
            "total_pageviews": self.total_pageviews,
            "total_events": self.total_events,
            "ltv": self.ltv,
        }


Rule = Callable[[Visitor, Visitor, str], Any]
"""`rule(older, newer, field)`: the field's value of both together. *older* was seen first."""


def _of_older(older: Visitor, newer: Visitor, name: str) -> Any:  # noqa: ARG001  # all rules share one form
    return getattr(older, name)


def _first_known(older: Visitor, newer: Visitor, name: str) -> Any:
    value = getattr(older, name)
    return getattr(newer, name) if value in (None, {}) else value


def _last_known(older: Visitor, newer: Visitor, name: str) -> Any:
    """Of the row that was seen last, if it has any: people change their address."""
    by_last = sorted((older, newer), key=lambda v: (v.last_seen_at, v.id), reverse=True)
    return next((value for v in by_last if (value := getattr(v, name)) is not None), None)


def _newest_wins(older: Visitor, newer: Visitor, name: str) -> Any:
    by_last = sorted((older, newer), key=lambda v: (v.last_seen_at, v.id))
    return {**getattr(by_last[0], name), **getattr(by_last[1], name)}


def _earliest(older: Visitor, newer: Visitor, name: str) -> Any:
    return min((t for t in (getattr(older, name), getattr(newer, name)) if t is not None), default=None)


def _latest(older: Visitor, newer: Visitor, name: str) -> Any:
    return max((t for t in (getattr(older, name), getattr(newer, name)) if t is not None), default=None)


def _of_first_touch(older: Visitor, newer: Visitor, name: str) -> Any:
    touched = [v for v in (older, newer) if v.first_source_at is not None]
    return getattr(min(touched, key=lambda v: (v.first_source_at, v.id)), name) if touched else None


def _of_last_touch(older: Visitor, newer: Visitor, name: str) -> Any:
    touched = [v for v in (older, newer) if v.last_source_at is not None]
    return getattr(max(touched, key=lambda v: (v.last_source_at, v.id)), name) if touched else None


def _highest_status(older: Visitor, newer: Visitor, name: str) -> Any:
    return max(getattr(older, name), getattr(newer, name), key=STATUS_RANK.__getitem__)


def _sum(older: Visitor, newer: Visitor, name: str) -> Any:
    """Each event belongs to exactly one row, so adding rows counts every event once."""
    return getattr(older, name) + getattr(newer, name)


def _sum_each(older: Visitor, newer: Visitor, name: str) -> Any:
    """Per currency; currencies are never added together."""
    one: Mapping[str, int] = getattr(older, name)
    two: Mapping[str, int] = getattr(newer, name)
    return {key: one.get(key, 0) + two.get(key, 0) for key in sorted({*one, *two})}


def _bot_only_if_both(older: Visitor, newer: Visitor, name: str) -> Any:
    first, second = getattr(older, name), getattr(newer, name)
    return first if first is not None and second is not None else None


ABSORB: Mapping[str, Rule] = {
    "workspace_id": _of_older,
    "id": _of_older,
    "canonical_id": _of_older,
    "status": _highest_status,
    "external_id": _first_known,
    "email": _last_known,
    "phone": _last_known,
    "name": _last_known,
    "traits": _newest_wins,
    "first_source": _of_first_touch,
    "first_source_at": _of_first_touch,
    "first_click_id": _of_first_touch,
    "last_source": _of_last_touch,
    "last_source_at": _of_last_touch,
    "last_click_id": _of_last_touch,
    "first_seen_at": _earliest,
    "last_seen_at": _latest,
    "identified_at": _earliest,
    "converted_at": _earliest,
    "geo": _first_known,
    "device": _first_known,
    "platform_signals": _newest_wins,
    "bot": _bot_only_if_both,
    "total_sessions": _sum,
    "total_pageviews": _sum,
    "total_events": _sum,
    "ltv": _sum_each,
}
"""How each field of two rows becomes one. Total: a field without a rule fails a test."""


def fold(rows: Iterable[Visitor]) -> Visitor | None:
    """
    One person out of the rows that share a canonical id; `None` for no rows.

    The result carries the canonical id as its id.
    """
    ordered = sorted(rows, key=lambda row: (row.first_seen_at, row.id))
    if not ordered:
        return None
    person = ordered[0]
    for row in ordered[1:]:
        person = Visitor(**{name: rule(person, row, name) for name, rule in ABSORB.items()})
    return msgspec.structs.replace(person, id=person.canonical_id)
