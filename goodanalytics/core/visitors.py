"""
The visitor as a whole person: the fold of the rows that share a `canonical_id`.

Each row holds what its own browsers did and is never rewritten by a merge, so a person is read by folding rows and an
unmerge is exact. `ABSORB` says for every field how the rows become one; a test proves that no field lacks a rule.

The fold does not depend on the order of the rows: they are sorted by `first_seen_at`, then id. Each rule sees all of them
at once: folded in pairs, an address would take over the time at which another row was last seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from goodanalytics.core import remembered
from goodanalytics.core.consent import Remembered, newest

STATUS_RANK = {"anonymous": 0, "identified": 1, "lead": 2, "customer": 3, "churned": 4}
"""A status only climbs: a customer who fills in a form again stays a customer."""


class Visitor(msgspec.Struct, frozen=True, gc=False):
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
        platform_signals: What ad platforms want back, as `core.remembered` keeps it.
        consent: What the person allowed ad platforms, as `core.consent` keeps it; `None` when nobody asked.
        bot: Why the first hit was not a person's, or `None`.
        ltv: Trusted revenue in minor units per currency code.
    """

    workspace_id: UUID
    id: UUID
    canonical_id: UUID
    first_seen_at: datetime
    last_seen_at: datetime
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
    identified_at: datetime | None = None
    converted_at: datetime | None = None
    geo: dict[str, Any] = {}
    device: dict[str, Any] = {}
    platform_signals: Remembered = {}
    consent: Remembered | None = None
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


Rule = Callable[[Sequence[Visitor], str], Any]
"""`rule(rows, field)`: the field's value of all rows together. *rows* are in the order in which they were first seen."""


def _of_oldest(rows: Sequence[Visitor], name: str) -> Any:
    return getattr(rows[0], name)


def _first_known(rows: Sequence[Visitor], name: str) -> Any:
    known = (value for row in rows if (value := getattr(row, name)) not in (None, {}))
    return next(known, getattr(rows[0], name))


def _last_known(rows: Sequence[Visitor], name: str) -> Any:
    """Of the row that was seen last among those that have any: people change their address."""
    known = (value for row in reversed(_by_last_seen(rows)) if (value := getattr(row, name)) is not None)
    return next(known, None)


def _newest_wins(rows: Sequence[Visitor], name: str) -> Any:
    return {key: value for row in _by_last_seen(rows) for key, value in getattr(row, name).items()}


def _earliest(rows: Sequence[Visitor], name: str) -> Any:
    return min((t for row in rows if (t := getattr(row, name)) is not None), default=None)


def _latest(rows: Sequence[Visitor], name: str) -> Any:
    return max((t for row in rows if (t := getattr(row, name)) is not None), default=None)


def _of_first_touch(rows: Sequence[Visitor], name: str) -> Any:
    touched = [row for row in rows if row.first_source_at is not None]
    return getattr(min(touched, key=lambda row: (row.first_source_at, row.id)), name) if touched else None


def _of_last_touch(rows: Sequence[Visitor], name: str) -> Any:
    touched = [row for row in rows if row.last_source_at is not None]
    return getattr(max(touched, key=lambda row: (row.last_source_at, row.id)), name) if touched else None


def _highest_status(rows: Sequence[Visitor], name: str) -> Any:
    return max((getattr(row, name) for row in rows), key=STATUS_RANK.__getitem__)


def _sum(rows: Sequence[Visitor], name: str) -> Any:
    """Each event belongs to exactly one row, so adding rows counts every event once."""
    return sum(getattr(row, name) for row in rows)


def _sum_each(rows: Sequence[Visitor], name: str) -> Any:
    """Per currency; currencies are never added together."""
    amounts: list[Mapping[str, int]] = [getattr(row, name) for row in rows]
    return {
        code: sum(one.get(code, 0) for one in amounts) for code in sorted({c for one in amounts for c in one})
    }


def _remembered(rows: Sequence[Visitor], name: str) -> Any:
    return remembered.together(getattr(row, name) for row in rows)


def _newest_answers(rows: Sequence[Visitor], name: str) -> Any:
    return newest(getattr(row, name) or {} for row in rows) or None


def _bot_only_if_all(rows: Sequence[Visitor], name: str) -> Any:
    verdicts = [getattr(row, name) for row in rows]
    return None if None in verdicts else verdicts[0]


def _by_last_seen(rows: Sequence[Visitor]) -> list[Visitor]:
    return sorted(rows, key=lambda row: (row.last_seen_at, row.id))


ABSORB: Mapping[str, Rule] = {
    "workspace_id": _of_oldest,
    "id": _of_oldest,
    "canonical_id": _of_oldest,
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
    "platform_signals": _remembered,
    "consent": _newest_answers,
    "bot": _bot_only_if_all,
    "total_sessions": _sum,
    "total_pageviews": _sum,
    "total_events": _sum,
    "ltv": _sum_each,
}
"""How each field of several rows becomes one. Total: a field without a rule fails a test."""


def fold(rows: Iterable[Visitor]) -> Visitor | None:
    """
    One person out of the rows that share a canonical id; `None` for no rows.

    The result carries the canonical id as its id.
    """
    ordered = sorted(rows, key=lambda row: (row.first_seen_at, row.id))
    if not ordered:
        return None
    person = Visitor(**{name: rule(ordered, name) for name, rule in ABSORB.items()})
    return msgspec.structs.replace(person, id=person.canonical_id)
