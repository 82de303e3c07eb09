"""
Links, read for those who manage them; the redirect has its own way (`link_lookups`).

A list is walked by key, also while links are made: each one that was there all the time is seen once. What it is sorted by
may be the same for several; then the id decides.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, Select, Uuid, and_, any_, func, literal, or_, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import ColumnElement

from goodanalytics.core.links import Link
from goodanalytics.store import link_lookups
from goodanalytics.store.database import run
from goodanalytics.store.pages import Page, check_limit, cursor, read_cursor, read_text_cursor
from goodanalytics.store.tables import Tables

MAX_SEARCH = 200  # characters

Column = Literal["-created_at", "created_at", "-updated_at", "updated_at", "key", "-key"]
"""What of a link a list is sorted by, downwards with a minus; `key` is the domain and the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """
    Which links.

    Attributes:
        search: A part of the short address, the destination, title, notes or external id; case does not matter.
        address: Also a part of the short address, as `core.own_address.searched_address` reads it out of *search*.
        archived: Only those in use, only archived ones, or with `None` both.
    """

    search: str | None = None
    address: str | None = None
    domain: str | None = None
    tag: str | None = None
    folder: str | None = None
    partner_id: UUID | None = None
    archived: bool | None = False


def link_of(row: Row[Any]) -> Link:
    """The link in a row of the table."""
    return Link.from_row(dict(row._mapping))


async def find_by_address(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, domain: str, key: str
) -> Link | None:
    """The link that *domain*/*key* names now, by the domain's case rule; an archived one names nothing."""
    (found,) = await link_lookups.find(conn, t, [(workspace_id, domain, key)])
    return found.link


async def get_link(conn: AsyncConnection, t: Tables, workspace_id: UUID, link_id: UUID) -> Link | None:
    """One link by its id, archived or not."""
    return (await get_many(conn, t, workspace_id, [link_id])).get(link_id)


async def get_many(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, ids: Collection[UUID]
) -> dict[UUID, Link]:
    """Links by their ids, archived or not."""
    c = t.links.c
    rows = await conn.execute(
        select(t.links).where(c.workspace_id == workspace_id, c.id == any_(literal(list(ids), ARRAY(Uuid))))
    )
    return {row.id: link_of(row) for row in rows}


async def ids_by_external_id(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, external_ids: Collection[str]
) -> dict[str, UUID]:
    """The links in use that the host calls so, by what it calls them."""
    # One look into the unique index for each name. Of ANY over a table that is just being filled, without statistics yet,
    # PostgreSQL makes a walk through all links of the workspace.
    rows = await run(
        conn,
        f"SELECT asked.name, found.id FROM unnest(CAST(:names AS text[])) AS asked(name) CROSS JOIN LATERAL "
        f"(SELECT l.id FROM {t.links} l WHERE l.workspace_id = :workspace_id AND l.external_id = asked.name "
        "AND l.archived_at IS NULL LIMIT 1) AS found",
        names=list(external_ids),
        workspace_id=workspace_id,
    )
    return {row.name: row.id for row in rows}


async def list_links(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    wanted: Wanted,
    *,
    sort: Column = "-created_at",
    limit: int = 50,
    after: str | None = None,
) -> Page[Link]:
    """
    A page of links.

    Raises:
        InvalidInput: *limit* is not 1 to 200, or *after* is no cursor of this list.
    """
    check_limit(limit)
    c, name, listing = t.links.c, sort.removeprefix("-"), f"links {sort}"
    # "C": the same order on every machine, whatever its locale.
    by = (c.domain + "/" + c.key).collate("C") if name == "key" else c[name]
    query: Select[Any] = select(t.links, by.label("sorted_by")).where(
        c.workspace_id == workspace_id, *conditions(t, wanted)
    )
    read: Callable[[str, str], Any] = read_text_cursor if name == "key" else read_cursor
    is_down = sort.startswith("-")
    if after is not None:
        last = read(after, listing)
        place = tuple_(by, c.id)
        query = query.where(place < last if is_down else place > last)
    order = (by.desc(), c.id.desc()) if is_down else (by.asc(), c.id.asc())
    rows = list(await conn.execute(query.order_by(*order).limit(limit + 1)))
    items = tuple(
        Link.from_row({name: value for name, value in row._mapping.items() if name != "sorted_by"})
        for row in rows[:limit]
    )
    goes_on = len(rows) > limit
    return Page(items, cursor(listing, rows[limit - 1].sorted_by, items[-1].id) if goes_on else None)


def conditions(t: Tables, wanted: Wanted) -> list[ColumnElement[bool]]:
    """What holds for the rows of links that are *wanted*."""
    c = t.links.c
    found: list[ColumnElement[bool]] = []
    if wanted.archived is not None:
        found.append(c.archived_at.is_not(None) if wanted.archived else c.archived_at.is_(None))
    if wanted.search:
        part = wanted.search[:MAX_SEARCH]
        address = c.domain + "/" + c.key
        places = (address, c.url, c.title, c.notes, c.external_id)
        sought = [(place, part) for place in places]
        if wanted.address:
            sought.append((address, wanted.address[:MAX_SEARCH]))
        found.append(or_(*(func.coalesce(at, "").icontains(one, autoescape=True) for at, one in sought)))
    for name in ("domain", "folder", "partner_id"):
        value = getattr(wanted, name)
        if value is not None:
            found.append(c[name] == value)
    if wanted.tag is not None:
        found.append(c.tags.contains([wanted.tag]))
    return [and_(*found)] if found else []


__all__ = [
    "MAX_SEARCH", "Column", "Wanted", "conditions", "find_by_address", "get_link", "get_many", "ids_by_external_id", "link_of", "list_links",
]  # fmt: skip
