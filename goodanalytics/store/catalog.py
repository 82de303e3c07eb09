"""The catalogue of links: create, find, list, update and archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.links import Link
from goodanalytics.errors import Conflict, NotFound
from goodanalytics.store.tables import Tables

CHANGEABLE = (
    "url",
    "utm_source",
    "utm_medium",
    "utm_campaign",
    "utm_content",
    "utm_term",
    "expires_at",
    "tags",
    "metadata",
)
"""What `update_link` may change. Domain and key are the link's name."""


async def create_link(conn: AsyncConnection, t: Tables, link: Link) -> Link:
    """
    Add *link*.

    Raises:
        Conflict: Its domain and key, or its external id, are in use.
    """
    try:
        async with conn.begin_nested():
            await conn.execute(insert(t.links), msgspec.structs.asdict(link))
    except IntegrityError:
        if await find_by_address(conn, t, link.workspace_id, link.domain, link.key) is not None:
            raise Conflict(
                f"{link.domain}/{link.key} is in use. Choose another key, or archive the link that has it"
            ) from None
        raise Conflict(
            f"external_id {link.external_id!r} is in use by another link of this workspace"
        ) from None
    return link


async def find_by_address(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, domain: str, key: str
) -> Link | None:
    """The link that *domain*/*key* names now; an archived one names nothing."""
    return await _one(
        conn,
        select(t.links).where(
            t.links.c.workspace_id == workspace_id,
            t.links.c.domain == domain,
            t.links.c.key == key,
            t.links.c.archived_at.is_(None),
        ),
    )


async def get_link(conn: AsyncConnection, t: Tables, workspace_id: UUID, link_id: UUID) -> Link | None:
    """One link by its id, archived or not."""
    return await _one(
        conn, select(t.links).where(t.links.c.workspace_id == workspace_id, t.links.c.id == link_id)
    )


async def list_links(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, *, limit: int = 50, before: UUID | None = None
) -> Sequence[Link]:
    """The links in use, newest first, at most *limit*; *before* is the id of the last one of the page before."""
    query = select(t.links).where(t.links.c.workspace_id == workspace_id, t.links.c.archived_at.is_(None))
    if before is not None:
        query = query.where(t.links.c.id < before)
    found = await conn.execute(query.order_by(t.links.c.id.desc()).limit(limit))
    return [Link(**row._mapping) for row in found]


async def update_link(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    link_id: UUID,
    changes: Mapping[str, Any],
    now: datetime,
) -> Link:
    """
    Change a link. *changes* has names of `CHANGEABLE`; `None` clears.

    Raises:
        NotFound: There is no such link, or it is archived.
    """
    values = {name: changes[name] for name in CHANGEABLE if name in changes}
    return await _changed(conn, t, workspace_id, link_id, {**values, "updated_at": now})


async def archive_link(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, link_id: UUID, now: datetime
) -> Link:
    """
    Take a link out of use; its domain and key are free at once.

    Raises:
        NotFound: There is no such link, or it is archived.
    """
    return await _changed(conn, t, workspace_id, link_id, {"archived_at": now, "updated_at": now})


async def _changed(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, link_id: UUID, values: Mapping[str, Any]
) -> Link:
    link = await _one(
        conn,
        update(t.links)
        .where(
            t.links.c.workspace_id == workspace_id, t.links.c.id == link_id, t.links.c.archived_at.is_(None)
        )
        .values(**values)
        .returning(t.links),
    )
    if link is None:
        raise NotFound(f"There is no link {link_id} in use in this workspace")
    return link


async def _one(conn: AsyncConnection, query: Any) -> Link | None:
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else Link(**row._mapping)
