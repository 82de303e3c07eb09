"""
Who changed what of a link, and when: one row for each change, and the word to every process that it happened.

*changes* maps a field to `{"old": …, "new": …}`. The first row of a link tells what it was made with. A password is only said
to be there. The word goes out when the transaction commits (`store.listening`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import select, text, tuple_
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.links import Link
from goodanalytics.store.database import as_json, run
from goodanalytics.store.listening import links_channel
from goodanalytics.store.pages import Page, check_limit, cursor, read_cursor
from goodanalytics.store.rows import insertion
from goodanalytics.store.tables import Tables

MANY: Final = 50
"""Addresses of one domain from which on the whole domain is named instead of each of them."""

_NOT_TOLD = frozenset({"workspace_id", "id", "created_at", "updated_at", "password_hash"})
_DEFAULTS = msgspec.to_builtins(
    {
        field.name: field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        for field in msgspec.structs.fields(Link)
        if not field.required
    }
)


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a field was and became, as JSON; `password` is true where there is one."""

    old: Any = None
    new: Any = None


class Revision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    One change of a link.

    Attributes:
        actor: Who did it, as the host or the API key is called.
        changes: The fields that became something else.
    """

    id: UUID
    at: datetime
    actor: str | None
    changes: dict[str, Change]


def differences(old: Link | None, new: Link) -> dict[str, Any]:
    """The fields in which *new* is not *old*; without an old one, those in which it is not a link of which nothing was said."""
    before = _DEFAULTS if old is None else _told(old)
    found = {
        name: {"old": before.get(name), "new": value}
        for name, value in _told(new).items()
        if before.get(name) != value
    }
    kept = None if old is None else old.password_hash
    if kept != new.password_hash:  # also where another one takes its place
        found["password"] = {"old": kept is not None, "new": new.has_password}
    return found


def _told(link: Link) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(link).items() if name not in _NOT_TOLD}


async def note(
    conn: AsyncConnection,
    t: Tables,
    changed: Sequence[tuple[Link, Mapping[str, Any]]],
    *,
    at: datetime,
    actor: str | None,
    new_id: Callable[[], UUID],
) -> None:
    """Write down what changed of each link; one statement."""
    rows = [
        {
            "workspace_id": link.workspace_id,
            "link_id": link.id,
            "at": at,
            "id": new_id(),
            "actor": actor,
            "changes": changes,
        }
        for link, changes in changed
    ]
    if rows:
        await conn.execute(text(insertion(t.link_changes)), {"rows": as_json(rows)})


async def tell(conn: AsyncConnection, t: Tables, addresses: Iterable[tuple[UUID, str, str]]) -> None:
    """
    Tell every process that something else stands at *addresses* from now on; one statement.

    Args:
        addresses: Workspace, domain, key; an empty key is the domain with all its links.
    """
    keys: dict[tuple[UUID, str], set[str]] = defaultdict(set)
    for workspace_id, domain, key in addresses:
        keys[workspace_id, domain].add(key)
    words = [
        f"{workspace_id}/{domain}/{key}"
        for (workspace_id, domain), found in sorted(keys.items())
        for key in (sorted(found) if len(found) <= MANY and "" not in found else [""])
    ]
    if words:
        await run(
            conn,
            "SELECT pg_notify(:channel, word) FROM unnest(CAST(:words AS text[])) AS word",
            channel=links_channel(t.schema),
            words=words,
        )


async def first(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, ids: Iterable[UUID]
) -> dict[UUID, dict[str, Any]]:
    """What each of the links was made with."""
    found = await conn.execute(
        text(
            f"SELECT DISTINCT ON (link_id) link_id, changes FROM {t.link_changes} "
            "WHERE workspace_id = :workspace_id AND link_id = ANY(CAST(:ids AS uuid[])) ORDER BY link_id, at, id"
        ).columns(changes=JSONB),
        {"workspace_id": workspace_id, "ids": list(ids)},
    )
    return {row.link_id: row.changes for row in found}


async def history(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    link_id: UUID,
    *,
    limit: int = 50,
    after: str | None = None,
) -> Page[Revision]:
    """
    A page of a link's changes, the newest first.

    Raises:
        InvalidInput: *limit* is not 1 to 200, or *after* is no cursor of this list.
    """
    check_limit(limit)
    c, listing = t.link_changes.c, f"history {link_id}"
    query = select(c.id, c.at, c.actor, c.changes).where(c.workspace_id == workspace_id, c.link_id == link_id)
    if after is not None:
        query = query.where(tuple_(c.at, c.id) < read_cursor(after, listing))
    found = list(await conn.execute(query.order_by(c.at.desc(), c.id.desc()).limit(limit + 1)))
    items = tuple(
        Revision(row.id, row.at, row.actor, msgspec.convert(row.changes, dict[str, Change]))
        for row in found[:limit]
    )
    goes_on = len(found) > limit
    return Page(items, cursor(listing, items[-1].at, items[-1].id) if goes_on else None)


__all__ = ["Change", "Revision", "differences", "first", "history", "note", "tell"]
