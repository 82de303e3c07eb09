"""
Partners: made, changed, found.

A code and an external id are each unique in a workspace, also of partners who are closed: what was earned under a code must never
look like somebody else's. When it becomes known who a partner is among the visitors, what these bought is looked at again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from sqlalchemy import func, insert, or_, select
from sqlalchemy import update as change
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.partners import Partner, PartnerStatus
from goodanalytics.core.referral import ReferralRules
from goodanalytics.errors import Conflict, NotFound
from goodanalytics.store import commissions
from goodanalytics.store.database import run
from goodanalytics.store.pages import Page, check_limit, cursor, read_cursor
from goodanalytics.store.people import lock_persons
from goodanalytics.store.tables import Tables

LISTING: Final = "partners"
MAX_SEARCH: Final = 200  # characters


class IdTaken(Conflict):
    """The external id is another partner's of this workspace."""


async def create(conn: AsyncConnection, t: Tables, partner: Partner) -> Partner:
    """
    Add a partner.

    Raises:
        Conflict: The code or the external id is in use.
    """
    try:
        await conn.execute(insert(t.partners), partner.to_row())
    except IntegrityError as error:
        raise _taken(partner, error) from error
    return partner


async def add_many(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, partners: Sequence[Partner]
) -> dict[UUID, Literal["created", "unchanged"] | Conflict]:
    """Add those of *partners* whose ids are new here; and what became of each, by the id."""
    statement = postgresql.insert(t.partners).values([one.to_row() for one in partners])
    made = set(await conn.scalars(statement.on_conflict_do_nothing().returning(t.partners.c.id)))
    lost = [one for one in partners if one.id not in made]
    done: dict[UUID, Literal["created", "unchanged"] | Conflict] = dict.fromkeys(made, "created")
    c = t.partners.c
    found = await conn.execute(
        select(c.id, func.lower(c.code).label("code")).where(
            c.workspace_id == workspace_id,
            or_(
                c.id.in_([one.id for one in lost]), func.lower(c.code).in_([one.code.lower() for one in lost])
            ),
        )
    )
    rows = found.all()
    ids, codes = {row.id for row in rows}, {row.code for row in rows}
    for one in lost:
        if one.id in ids:
            done[one.id] = "unchanged"
        else:
            done[one.id] = _code_taken(one) if one.code.lower() in codes else _id_taken(one)
    return done


async def update(
    conn: AsyncConnection,
    t: Tables,
    *,
    workspace_id: UUID,
    partner_id: UUID,
    changes: Mapping[str, Any],
    rules: ReferralRules,
    now: datetime,
) -> Partner:
    """
    Change fields of a partner, which `checked_partner` has checked.

    Raises:
        NotFound: There is no such partner.
        Conflict: The code or the external id is in use.
        Stale: Somebody else changed the people meanwhile who are this partner.
    """
    c = t.partners.c
    here = (c.workspace_id == workspace_id, c.id == partner_id)
    found = await conn.execute(select(t.partners).where(*here).with_for_update())
    row = found.one_or_none()
    if row is None:
        raise NotFound(f"There is no partner {partner_id} in workspace {workspace_id}")
    old = Partner.from_row(row._mapping)
    new = msgspec.structs.replace(old, **changes)
    if new == old:
        return old
    new = msgspec.structs.replace(new, updated_at=now)
    try:
        await conn.execute(change(t.partners).where(*here).values(new.to_row()))
    except IntegrityError as error:
        raise _taken(new, error) from error
    if _names(old) != _names(new):
        await _look_again(conn, t, workspace_id, (old, new), rules, now)
    return new


async def get(conn: AsyncConnection, t: Tables, workspace_id: UUID, partner_id: UUID) -> Partner | None:
    """One partner by the id."""
    c = t.partners.c
    found = await conn.execute(select(t.partners).where(c.workspace_id == workspace_id, c.id == partner_id))
    row = found.one_or_none()
    return None if row is None else Partner.from_row(row._mapping)


async def by_code(conn: AsyncConnection, t: Tables, workspace_id: UUID, code: str) -> Partner | None:
    """The partner with this code, whatever its case and their status."""
    c = t.partners.c
    found = await conn.execute(
        select(t.partners).where(c.workspace_id == workspace_id, func.lower(c.code) == code.lower())
    )
    row = found.one_or_none()
    return None if row is None else Partner.from_row(row._mapping)


async def list_partners(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    *,
    search: str | None = None,
    status: PartnerStatus | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Page[Partner]:
    """
    A page of partners, the newest first.

    Args:
        search: A part of the code, the name, the e-mail address or the external id; case does not matter.

    Raises:
        InvalidInput: *limit* is not 1 to 200, or *after* is no cursor of this list.
    """
    check_limit(limit)
    c = t.partners.c
    query = select(t.partners).where(c.workspace_id == workspace_id)
    if status is not None:
        query = query.where(c.status == status)
    if search:
        places = (c.code, c.name, func.coalesce(c.email, ""), func.coalesce(c.external_id, ""))
        query = query.where(or_(*(place.icontains(search[:MAX_SEARCH], autoescape=True) for place in places)))
    if after is not None:
        at, last_id = read_cursor(after, LISTING)
        query = query.where((c.created_at < at) | ((c.created_at == at) & (c.id < last_id)))
    found = await conn.execute(query.order_by(c.created_at.desc(), c.id.desc()).limit(limit + 1))
    rows = [Partner.from_row(row._mapping) for row in found]
    items = tuple(rows[:limit])
    return Page(items, cursor(LISTING, items[-1].created_at, items[-1].id) if len(rows) > limit else None)


def _names(partner: Partner) -> tuple[object, ...]:
    return partner.email, partner.external_id, partner.visitor_id


async def _look_again(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    partners: tuple[Partner, Partner],
    rules: ReferralRules,
    now: datetime,
) -> None:
    """Work out anew what those bought who are one of *partners*: as they were known, and as they are known now."""
    found = await run(
        conn,
        f"SELECT DISTINCT i.visitor_id FROM {t.identities} i WHERE i.workspace_id = :workspace_id "
        "AND (i.kind = 'email' AND i.value = ANY(CAST(:emails AS text[])) "
        "OR i.kind = 'external_id' AND i.value = ANY(CAST(:external_ids AS text[])))",
        workspace_id=workspace_id,
        emails=[one.email for one in partners if one.email is not None],
        external_ids=[one.external_id for one in partners if one.external_id is not None],
    )
    rows = {row.visitor_id for row in found} | {one.visitor_id for one in partners if one.visitor_id}
    locked = await lock_persons(conn, t, [(workspace_id, row) for row in sorted(rows)])
    await commissions.resettle(conn, t, workspace_id, [row.id for row in locked.values()], rules, now)


def _taken(partner: Partner, error: IntegrityError) -> Conflict:
    return _id_taken(partner) if "partners_external_id" in str(error.orig) else _code_taken(partner)


def _id_taken(partner: Partner) -> IdTaken:
    return IdTaken(
        f"external_id {partner.external_id!r} is another partner's. Give each partner an id of their own"
    )


def _code_taken(partner: Partner) -> Conflict:
    return Conflict(f"code {partner.code!r} is another partner's, in upper or lower case. Choose another one")


__all__ = ["IdTaken", "add_many", "by_code", "create", "get", "list_partners", "update"]
