"""What can be seen of the outbox: dispatches with their outcomes, and how well and how many. Nothing here is unsealed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.delivery import STATES
from goodanalytics.errors import InvalidInput
from goodanalytics.store.database import run
from goodanalytics.store.pages import Page, check_limit, cursor, read_cursor
from goodanalytics.store.tables import Tables

LISTING = "dispatches"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """
    A dispatch as anybody may see it.

    Attributes:
        target: A platform's name, or `webhook:{id}`.
        state: pending, retry_wait, accepted, paused_credentials, delivered, skipped or dead.
        reason: Why it is skipped, dead or waits.
        attempts: Failures of its own.
        leased_until: Until when a worker has it in hand.
        code, message: What the platform said last.
        external_ref: Under what the platform remembers the request.
        shown: What was told, without anything that names a person: `match_keys` are names of what went along.
        is_kept: Whether it can be sent again.
    """

    workspace_id: UUID
    id: UUID
    target: str
    event_id: UUID
    kind: str
    occurred_at: datetime
    sale_event_id: UUID | None
    state: str
    reason: str | None
    attempts: int
    next_at: datetime | None
    leased_until: datetime | None
    sent_at: datetime | None
    settled_at: datetime | None
    created_at: datetime
    code: str | None
    message: str | None
    external_ref: str | None
    shown: Mapping[str, Any]
    is_kept: bool

    def to_json(self) -> dict[str, Any]:
        """As REST shows it."""
        told = {name: _plain(getattr(self, name)) for name in self.__slots__}
        keys = self.shown.get("match_keys", [])
        told["shown"] = {**self.shown, "match_keys": [f"{key} ✓" for key in keys]}
        return told


async def listed(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    *,
    limit: int,
    after: str | None = None,
    target: str | None = None,
    state: str | None = None,
    event_id: UUID | None = None,
) -> Page[Dispatch]:
    """
    A page of dispatches, the newest first.

    Raises:
        InvalidInput: *state* is none, *limit* is not 1 to 200, or *after* is no cursor of this list.
    """
    check_limit(limit)
    if state is not None and state not in STATES:
        raise InvalidInput(f"state is {state!r}; it can be {', '.join(STATES)}", where="state")
    d = t.dispatches.c
    wanted = [d.workspace_id == workspace_id]
    wanted += [d.target == target] if target is not None else []
    wanted += [d.state == state] if state is not None else []
    wanted += [d.event_id == event_id] if event_id is not None else []
    if after is not None:
        at, last = read_cursor(after, LISTING)
        wanted.append(or_(d.created_at < at, and_(d.created_at == at, d.id < last)))
    query = _columns(t).where(*wanted).order_by(d.created_at.desc(), d.id.desc()).limit(limit + 1)
    found = [_dispatch(row) for row in await conn.execute(query)]
    page = found[:limit]
    more = cursor(LISTING, page[-1].created_at, page[-1].id) if len(found) > limit else None
    return Page(tuple(page), more)


async def get(conn: AsyncConnection, t: Tables, workspace_id: UUID, dispatch_id: UUID) -> Dispatch | None:
    """One of them; `None` when there is none."""
    d = t.dispatches.c
    query = _columns(t).where(d.workspace_id == workspace_id, d.id == dispatch_id)
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else _dispatch(row)


async def counts(conn: AsyncConnection, t: Tables, workspace_id: UUID) -> dict[str, dict[str, int]]:
    """How many dispatches of each target are in which state."""
    d = t.dispatches.c
    query = select(d.target, d.state, func.count()).where(d.workspace_id == workspace_id)
    found: dict[str, dict[str, int]] = {}
    for target, state, number in await conn.execute(query.group_by(d.target, d.state)):
        found.setdefault(target, {})[state] = number
    return found


@dataclass(frozen=True, slots=True)
class Coverage:
    """
    How much is known of those who are told about.

    Attributes:
        dispatches: Those that were not skipped.
        keys: How many of them carry each match key.
    """

    target: str
    dispatches: int
    keys: Mapping[str, int]

    def share(self, key: str) -> float:
        """Of the dispatches that carry *key*, from 0 to 1."""
        return self.keys.get(key, 0) / self.dispatches if self.dispatches else 0.0


async def coverage(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, since: datetime, until: datetime
) -> list[Coverage]:
    """Match keys of each platform's dispatches that were queued from *since* until *until*."""
    found = await run(
        conn,
        f"SELECT d.target, k.key, count(*) AS number FROM {t.dispatches} d "
        # A row without a key is a dispatch: what is counted of a key is shown beside how many there are.
        "CROSS JOIN LATERAL (SELECT NULL AS key UNION ALL "
        "SELECT * FROM jsonb_array_elements_text(coalesce(d.shown->'match_keys', '[]'))) AS k "
        "WHERE d.workspace_id = :workspace_id AND d.created_at >= :since AND d.created_at < :until "
        "AND d.state <> 'skipped' AND d.shown ? 'match_keys' GROUP BY d.target, k.key ORDER BY d.target, number DESC, k.key",
        workspace_id=workspace_id,
        since=since,
        until=until,
    )
    numbers: dict[str, dict[str | None, int]] = {}
    for row in found:
        numbers.setdefault(row.target, {})[row.key] = row.number
    return [
        Coverage(target, keys.get(None, 0), {key: number for key, number in keys.items() if key is not None})
        for target, keys in numbers.items()
    ]


async def by_hour(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, since: datetime, until: datetime
) -> list[tuple[datetime, str, str, int]]:
    """How many dispatches were settled in each hour (UTC): hour, target, state, number."""
    found = await run(
        conn,
        f"SELECT date_trunc('hour', d.settled_at, 'UTC') AS hour, d.target, d.state, count(*) AS number "
        f"FROM {t.dispatches} d WHERE d.workspace_id = :workspace_id AND d.settled_at >= :since "
        # Nothing is settled before it is made, so the index on that time bounds the walk.
        "AND d.settled_at < :until AND d.created_at < :until GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        workspace_id=workspace_id,
        since=since,
        until=until,
    )
    return [(row.hour, row.target, row.state, row.number) for row in found]


def _columns(t: Tables) -> Select[Any]:
    d = t.dispatches.c
    return select(
        *(d[name] for name in Dispatch.__slots__ if name != "is_kept"),
        (d.sealed.is_not(None)).label("is_kept"),
    )


def _dispatch(row: Row[Any]) -> Dispatch:
    return Dispatch(**row._mapping)


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    return value.isoformat() if isinstance(value, datetime) else value


__all__ = ["Coverage", "Dispatch", "by_hour", "counts", "coverage", "get", "listed"]
