"""
Reading people: who they are, what they did, what brought them, and why several browsers are one of them.

Rules of this file
1. Any member's id names the person: id → `canonical_id` → all rows that share it, folded by `core.visitors.fold`.
2. A list holds each person once, at the place of the member that was seen last (of equals, the higher id). That is the
   fold's own `last_seen_at`, so the order is exact; and it is the order of the index `visitors_last_seen`.
3. Pages go by key, never by offset: what arrives meanwhile neither repeats an entry nor hides one.
4. A person is a bot only when all members are. Entries of the timeline that came from bots are shown, marked `bot`;
   they earn no credit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal
from uuid import UUID

import msgspec
from sqlalchemy import (
    Row,
    Select,
    Text,
    Uuid,
    and_,
    any_,
    cast,
    exists,
    literal,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import FromClause

from goodanalytics.core import attribution as credited
from goodanalytics.core.attribution import Touch
from goodanalytics.core.hits import EventType
from goodanalytics.core.visitors import STATUS_RANK, Visitor, fold
from goodanalytics.errors import InvalidInput, NotFound
from goodanalytics.store.pages import Page, check_limit, cursor, read_cursor
from goodanalytics.store.tables import Tables
from goodanalytics.store.tables_people import STATUSES
from goodanalytics.store.timeline_entries import TimelineEntry, by_time, entries, entry

MAX_SEARCH = 200  # characters

CONVERSIONS = frozenset({EventType.LEAD, EventType.SALE, EventType.REFUND})
"""The events whose credit `attribution` tells."""


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """
    A lead, sale or refund, and the visits that earn its credit, out of those begun by then.

    Attributes:
        first: The first touch; `None` when no visit came before.
        last: The last touch that was not direct; the last one when all were.
    """

    event: TimelineEntry
    first: Touch | None
    last: Touch | None


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """
    What brought a person.

    Attributes:
        attribution_path: A touch for each visit that was not a bot's, oldest first.
        first_source, first_click_id: Of the first touch, as `Source.to_json()`.
        last_source, last_click_id: Of the last touch that was not direct.
        conversions: Oldest first; untrusted ones too, which count for nothing.
    """

    attribution_path: list[Touch]
    first_source: dict[str, Any] | None
    last_source: dict[str, Any] | None
    first_click_id: UUID | None
    last_click_id: UUID | None
    conversions: list[Conversion]


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """
    Why several rows are one person, and whom they were kept apart from.

    Attributes:
        canonical_id: What the person is known as.
        members: A row each, first seen first: id, first_seen_at, last_seen_at, device, external_id, email, name, bot.
        identities: kind, value, visitor_id, hit_id, first_seen_at, shared_at; first seen first.
        former: Values that pointed here once, as identities, with *until*; first lost first.
        merges: The ledger's rows as `core.people.MergeRow`, undone ones too; first merged first.
        conflicts: hit_id, visitor_id, other_id, reason, seen_at; first seen first.
    """

    canonical_id: UUID
    members: list[dict[str, Any]]
    identities: list[dict[str, Any]]
    former: list[dict[str, Any]]
    merges: list[dict[str, Any]]
    conflicts: list[dict[str, Any]]


async def get(conn: AsyncConnection, t: Tables, workspace_id: UUID, visitor_id: UUID) -> Visitor | None:
    """The person that *visitor_id*, any member's id, belongs to; `None` when nobody has it."""
    return (await get_many(conn, t, workspace_id, [visitor_id])).get(visitor_id)


async def get_many(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, visitor_ids: Iterable[UUID]
) -> dict[UUID, Visitor]:
    """The people behind *visitor_ids*, by the id asked for; two members' ids give the same person twice."""
    asked, member = t.visitors.alias("asked"), t.visitors.alias("member")
    found = await conn.execute(
        _visitor_columns(member)
        .add_columns(asked.c.id.label("asked_id"))
        .join_from(asked, member, _same_person(asked, member))
        .where(asked.c.workspace_id == workspace_id, asked.c.id == _any_of(visitor_ids))
    )
    rows: dict[UUID, list[Visitor]] = {}
    for row in found:
        rows.setdefault(row.asked_id, []).append(_visitor(row))
    return {asked_id: person for asked_id, members in rows.items() if (person := fold(members))}


async def by_external_id(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, external_id: str
) -> Visitor | None:
    """The person whom the host calls *external_id*, or `None`."""
    if "\0" in external_id:  # PostgreSQL refuses it; nobody is called that
        return None
    i = t.identities
    visitor_id = await conn.scalar(
        select(i.c.visitor_id).where(
            i.c.workspace_id == workspace_id, i.c.kind == "external_id", i.c.value == external_id
        )
    )
    return None if visitor_id is None else await get(conn, t, workspace_id, visitor_id)


async def list_visitors(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    *,
    limit: int = 20,
    after: str | None = None,
    search: str | None = None,
    status: str | None = None,
    include_bots: bool = False,
) -> Page[Visitor]:
    """
    People, the one seen last first; *limit* is 1 to 200, *after* the `next_cursor` of the page before.

    *search* is a part of any member's name, e-mail address, phone, external id or id, in upper or lower case. *status* is
    the whole person's: the highest of its members.

    Raises:
        InvalidInput: *limit*, *after*, *search* or *status* is none of these.
    """
    check_limit(limit)
    if status is not None and status not in STATUSES:
        raise InvalidInput(f"{status!r} is no status. Use one of: {', '.join(STATUSES)}", where="status")
    v, m = t.visitors.alias("v"), t.visitors.alias("m")

    def any_member(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
        return exists().where(_same_person(v, m), *conditions)

    last_seen_first = (v.c.last_seen_at.desc(), v.c.id.desc())
    people = (
        select(v.c.canonical_id, v.c.last_seen_at, v.c.id)
        .where(
            v.c.workspace_id == workspace_id,
            ~any_member(tuple_(m.c.last_seen_at, m.c.id) > tuple_(v.c.last_seen_at, v.c.id)),
        )
        .order_by(*last_seen_first)
        .limit(limit + 1)
    )
    if after is not None:
        at, last_id = read_cursor(after, "visitors")
        people = people.where(tuple_(v.c.last_seen_at, v.c.id) < tuple_(literal(at), literal(last_id)))
    if not include_bots:
        people = people.where(any_member(m.c.bot.is_(None)))
    if status is not None:
        higher = [word for word, rank in STATUS_RANK.items() if rank > STATUS_RANK[status]]
        people = people.where(any_member(m.c.status == status), ~any_member(m.c.status.in_(higher)))
    if search is not None and (wanted := search.strip()):
        if len(wanted) > MAX_SEARCH or "\0" in wanted:
            raise InvalidInput(
                f"search takes up to {MAX_SEARCH} characters and no NUL; this one has {len(wanted)}",
                where="search",
            )
        columns = (m.c.name, m.c.email, m.c.phone, m.c.external_id, cast(m.c.id, Text))
        people = people.where(any_member(or_(*(c.icontains(wanted, autoescape=True) for c in columns))))
    rows = (await conn.execute(people)).all()
    persons = await get_many(conn, t, workspace_id, [row.canonical_id for row in rows[:limit]])
    return Page(
        tuple(persons[row.canonical_id] for row in rows[:limit]),
        cursor("visitors", rows[limit - 1].last_seen_at, rows[limit - 1].id) if len(rows) > limit else None,
    )


async def timeline(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    visitor_id: UUID,
    *,
    limit: int = 50,
    after: str | None = None,
    newest_first: bool = True,
) -> Page[TimelineEntry]:
    """
    What a person did, on all browsers and devices. *visitor_id* is any member's.

    *limit* is 1 to 200, *after* the `next_cursor` of the page before, in the same direction. The cost is *limit* events of
    each member, from the primary key of `events`.

    Raises:
        InvalidInput: *limit* is out of its range, or *after* is no cursor of this list.
        NotFound: Nobody has *visitor_id*.
    """
    check_limit(limit)
    direction: Literal["newest", "oldest"] = "newest" if newest_first else "oldest"
    v, e = t.visitors.alias("v"), t.events.alias("e")
    of_member = select(e).where(e.c.workspace_id == v.c.workspace_id, e.c.visitor_id == v.c.id)
    if after is not None:
        key, mark = tuple_(e.c.occurred_at, e.c.id), tuple_(*map(literal, read_cursor(after, direction)))
        of_member = of_member.where(key < mark if newest_first else key > mark)
    of_member = of_member.order_by(*by_time(e, newest_first=newest_first)).limit(limit + 1)
    # Each member's newest come straight from the primary key; one sort then merges limit × members rows.
    events = of_member.lateral("e")
    rows = (
        await conn.execute(
            entries(t, events)
            .join_from(v, events, true())
            .where(
                v.c.workspace_id == workspace_id,
                v.c.canonical_id == _canonical_id(t, workspace_id, visitor_id),
            )
            .order_by(*by_time(events, newest_first=newest_first))
            .limit(limit + 1)
        )
    ).all()
    if not rows:
        await _found(conn, t, workspace_id, visitor_id)
    return Page(
        tuple(entry(row) for row in rows[:limit]),
        cursor(direction, rows[limit - 1].occurred_at, rows[limit - 1].id) if len(rows) > limit else None,
    )


async def attribution(conn: AsyncConnection, t: Tables, workspace_id: UUID, visitor_id: UUID) -> Attribution:
    """
    What brought a person, and which visits earn the credit of each conversion.

    Cost: all visits and conversions of one person.

    Raises:
        NotFound: Nobody has *visitor_id*.
    """
    person = await _found(conn, t, workspace_id, visitor_id)
    s, e, members = t.sessions, t.events.alias("e"), _members(t, workspace_id, person.canonical_id)
    visits = await conn.execute(
        select(s.c.started_at, s.c.acquisition, s.c.id, s.c.click_id)
        .where(s.c.workspace_id == workspace_id, s.c.visitor_id.in_(members), s.c.bot.is_(None))
        .order_by(s.c.started_at, s.c.id)
    )
    path = [Touch(row.started_at, row.acquisition, row.id, row.click_id) for row in visits]
    conversions = await conn.execute(
        entries(t, e)
        .where(
            e.c.workspace_id == workspace_id,
            e.c.visitor_id.in_(members),
            e.c.event_type.in_(sorted(CONVERSIONS)),
            e.c.bot.is_(None),
        )
        .order_by(*by_time(e, newest_first=False))
    )
    return Attribution(
        attribution_path=path,
        first_source=person.first_source,
        last_source=person.last_source,
        first_click_id=person.first_click_id,
        last_click_id=person.last_click_id,
        conversions=[_credited(entry(row), path) for row in conversions],
    )


async def why(conn: AsyncConnection, t: Tables, workspace_id: UUID, visitor_id: UUID) -> Why:
    """
    Why a person's rows are one person.

    Raises:
        NotFound: Nobody has *visitor_id*.
    """
    person = await _found(conn, t, workspace_id, visitor_id)
    members = _members(t, workspace_id, person.canonical_id)

    async def plain(rows: Select[Any]) -> list[dict[str, Any]]:
        return [dict(row) for row in (await conn.execute(rows)).mappings()]

    v, i, f, m, c = t.visitors.c, t.identities.c, t.former_identities.c, t.merges.c, t.conflicts.c
    return Why(
        canonical_id=person.canonical_id,
        members=await plain(
            select(v.id, v.first_seen_at, v.last_seen_at, v.device, v.external_id, v.email, v.name, v.bot)
            .where(v.workspace_id == workspace_id, v.canonical_id == person.canonical_id)
            .order_by(v.first_seen_at, v.id)
        ),
        identities=await plain(
            select(i.kind, i.value, i.visitor_id, i.hit_id, i.first_seen_at, i.shared_at)
            .where(i.workspace_id == workspace_id, i.visitor_id.in_(members))
            .order_by(i.first_seen_at, i.kind, i.value)
        ),
        former=await plain(
            select(f.kind, f.value, f.visitor_id, f.hit_id, f.first_seen_at, f.until)
            .where(f.workspace_id == workspace_id, f.visitor_id.in_(members))
            .order_by(f.until, f.kind, f.value)
        ),
        merges=await plain(
            select(*(column for column in m if column.name != "workspace_id"))
            .where(
                m.workspace_id == workspace_id,
                or_(m.loser_member_id.in_(members), m.winner_member_id.in_(members)),
            )
            .order_by(m.merged_at, m.id)
        ),
        conflicts=await plain(
            select(c.hit_id, c.visitor_id, c.other_id, c.reason, c.seen_at)
            .where(c.workspace_id == workspace_id, or_(c.visitor_id.in_(members), c.other_id.in_(members)))
            .order_by(c.seen_at, c.hit_id, c.other_id)
        ),
    )


def _visitor_columns(rows: FromClause) -> Select[Any]:
    return select(*(rows.c[name] for name in Visitor.__struct_fields__))


def _visitor(row: Row[Any]) -> Visitor:
    return Visitor(**{name: getattr(row, name) for name in Visitor.__struct_fields__})


def _credited(event: TimelineEntry, path: Sequence[Touch]) -> Conversion:
    begun = [touch for touch in path if touch.at <= event.occurred_at]
    return Conversion(event=event, first=credited.first(begun), last=credited.last_non_direct(begun))


def _same_person(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    return and_(one.c.workspace_id == other.c.workspace_id, one.c.canonical_id == other.c.canonical_id)


def _canonical_id(t: Tables, workspace_id: UUID, visitor_id: UUID) -> ColumnElement[UUID]:
    v = t.visitors.alias("named")
    return (
        select(v.c.canonical_id)
        .where(v.c.workspace_id == workspace_id, v.c.id == visitor_id)
        .scalar_subquery()
    )


def _members(t: Tables, workspace_id: UUID, canonical_id: UUID) -> Select[tuple[UUID]]:
    v = t.visitors.alias("member")
    return select(v.c.id).where(v.c.workspace_id == workspace_id, v.c.canonical_id == canonical_id)


def _any_of(ids: Iterable[UUID]) -> ColumnElement[Any]:
    """One bound array, so that no number of ids exceeds the protocol's 32,767 values."""
    return any_(literal(list(ids), ARRAY(Uuid)))


async def _found(conn: AsyncConnection, t: Tables, workspace_id: UUID, visitor_id: UUID) -> Visitor:
    person = await get(conn, t, workspace_id, visitor_id)
    if person is None:
        raise NotFound(f"There is no visitor {visitor_id} in workspace {workspace_id}")
    return person


__all__ = [
    "Attribution",
    "Conversion",
    "Page",
    "Why",
    "attribution",
    "by_external_id",
    "get",
    "get_many",
    "list_visitors",
    "timeline",
    "why",
]
