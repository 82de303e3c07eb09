"""
One event of a person, as the timeline tells it: its columns, where each comes from, and the order of many.

Every column is the event's own, under the same name, but for the short link, which the catalogue names.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row, Select, select
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import FromClause

from goodanalytics.store.tables import Tables


class TimelineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """
    One event of a person.

    Attributes:
        visitor_id: The member whose browser did it.
        session_id: Of the visit; a change of it between neighbours is a visit's border. `None` outside of any visit.
        link: `domain/key` of the short link, also of an archived one.
        trusted: Whether the host vouches for it; an untrusted lead or sale is a claim.
        amount_cents: Minor units of *currency*.
        engaged_ms: Attention since the page's last ping, in milliseconds.
        scroll_depth: Percent of the page.
        key: The host's idempotency key, such as an order number.
        bot: Why a bot did it, or `None`.
    """

    id: UUID
    visitor_id: UUID
    occurred_at: datetime
    session_id: UUID | None
    event_type: str
    event_name: str | None
    origin: str
    trusted: bool
    url: str | None
    path: str | None
    title: str | None
    referrer: str | None
    source: str
    medium: str
    channel: str
    campaign: str | None
    link: str | None
    click_id: UUID | None
    amount_cents: int | None
    currency: str | None
    engaged_ms: int | None
    scroll_depth: int | None
    key: str | None
    properties: dict[str, Any]
    device_type: str | None
    browser: str | None
    os: str | None
    country: str | None
    region: str | None
    city: str | None
    bot: str | None


_JOINED = {"link"}  # not a column of `events`


def entries(t: Tables, events: FromClause) -> Select[Any]:
    """The timeline's columns of *events*, with the short link of each."""
    own = [events.c[name] for name in TimelineEntry.__struct_fields__ if name not in _JOINED]
    link = (
        select(t.links.c.domain + "/" + t.links.c.key)
        .where(t.links.c.workspace_id == events.c.workspace_id, t.links.c.id == events.c.link_id)
        .scalar_subquery()
    )
    return select(*own, link.label("link"))


def entry(row: Row[Any]) -> TimelineEntry:
    """A row of `entries` as a value."""
    return TimelineEntry(**row._mapping)  # SQLAlchemy's documented door to a row as a mapping


def by_time(events: FromClause, *, newest_first: bool) -> Sequence[ColumnElement[Any]]:
    """The order of *events* in time; of equals, by id, so that a page has one border."""
    columns = (events.c.occurred_at, events.c.id)
    return [column.desc() for column in columns] if newest_first else columns
