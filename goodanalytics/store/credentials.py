"""
Which platforms a workspace tells, and the credentials for it, which come and go sealed.

No function here returns a secret in the clear, and none that a page or a list is made of returns a sealed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.sealing import key_id_of
from goodanalytics.store import outbox_breaker
from goodanalytics.store.database import run
from goodanalytics.store.tables import Tables


@dataclass(frozen=True, slots=True)
class Setting:
    """
    A platform as a workspace set it.

    Attributes:
        settings: `test_code` sends everything in the platform's test mode.
        paused_reason: Why nothing goes out, while nothing does.
        paused_until: `None` with a reason: until a credential is stored.
        credentials: Names of those that are stored, with the time.
    """

    workspace_id: UUID
    platform: str
    enabled: bool
    settings: Mapping[str, Any]
    failures: int
    paused_reason: str | None
    paused_at: datetime | None
    paused_until: datetime | None
    credentials: Mapping[str, datetime]


async def switch(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    platform: str,
    *,
    enabled: bool,
    settings: Mapping[str, Any] | None,
    now: datetime,
) -> None:
    """Switch a platform on or off. *settings* stay as they are when left out."""
    row = {
        "workspace_id": workspace_id,
        "platform": platform,
        "enabled": enabled,
        "settings": dict(settings or {}),
        "failures": 0,
        "updated_at": now,
    }
    changed: dict[str, Any] = {"enabled": enabled, "updated_at": now}
    if settings is not None:
        changed["settings"] = row["settings"]
    statement = insert(t.platform_settings).values(**row)
    await conn.execute(
        statement.on_conflict_do_update(index_elements=["workspace_id", "platform"], set_=changed)
    )


async def settings(conn: AsyncConnection, t: Tables, workspace_id: UUID) -> dict[str, Setting]:
    """All platforms that the workspace set anything for, by name."""
    s, c = t.platform_settings.c, t.credentials.c
    stored: dict[str, dict[str, datetime]] = {}
    found = await conn.execute(
        select(c.target, c.name, c.updated_at).where(c.workspace_id == workspace_id).order_by(c.name)
    )
    for row in found:
        stored.setdefault(row.target, {})[row.name] = row.updated_at
    rows = {
        row.platform: row
        for row in await conn.execute(select(t.platform_settings).where(s.workspace_id == workspace_id))
    }
    return {
        platform: Setting(
            workspace_id=workspace_id,
            platform=platform,
            enabled=row.enabled if row else False,
            settings=row.settings if row else {},
            failures=row.failures if row else 0,
            paused_reason=row.paused_reason if row else None,
            paused_at=row.paused_at if row else None,
            paused_until=row.paused_until if row else None,
            credentials=stored.get(platform, {}),
        )
        for platform in sorted({*rows, *stored})
        for row in (rows.get(platform),)
    }


async def store(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    target: str,
    sealed: Mapping[str, bytes],
    *,
    now: datetime,
    by: str | None,
) -> int:
    """Keep sealed credentials, in place of those of the same names, and go on with the target if it waited for them."""
    for name, value in sorted(sealed.items()):
        row = {"sealed": value, "key_id": key_id_of(value), "updated_at": now, "updated_by": by}
        statement = insert(t.credentials).values(workspace_id=workspace_id, target=target, name=name, **row)
        await conn.execute(
            statement.on_conflict_do_update(index_elements=["workspace_id", "target", "name"], set_=row)
        )
    return await outbox_breaker.resume(conn, t, workspace_id, target, now)


async def drop(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, target: str, names: list[str] | None
) -> int:
    """Delete credentials, all of the target when no *names* are given; how many those were."""
    result = await run(
        conn,
        f"DELETE FROM {t.credentials} WHERE workspace_id = :workspace_id AND target = :target "
        "AND (CAST(:names AS text[]) IS NULL OR name = ANY(CAST(:names AS text[])))",
        workspace_id=workspace_id,
        target=target,
        names=names,
    )
    return result.rowcount


async def sealed_of(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, target: str
) -> tuple[dict[str, bytes], datetime | None]:
    """Everything that is stored for a target, sealed, and when the newest of it was stored."""
    c = t.credentials.c
    found = await conn.execute(
        select(c.name, c.sealed, c.updated_at).where(c.workspace_id == workspace_id, c.target == target)
    )
    rows = found.all()
    return {row.name: row.sealed for row in rows}, max((row.updated_at for row in rows), default=None)


__all__ = ["Setting", "drop", "sealed_of", "settings", "store", "switch"]
