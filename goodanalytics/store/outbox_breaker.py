"""
Targets that are left alone: after a refused credential until somebody stores another, after throttling or failures for a while.

It is one row for a target, in `platform_settings` also for a webhook, so that all processes see the same.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.delivery import OUTAGE, Pause
from goodanalytics.store.database import run
from goodanalytics.store.tables import Tables


async def note(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, target: str, *, failed: bool, now: datetime
) -> int:
    """Count a request that failed as a whole; one that did not ends the count. How many there are in a row now."""
    found = await run(
        conn,
        f"INSERT INTO {t.platform_settings} AS s (workspace_id, platform, enabled, settings, failures, updated_at) "
        "VALUES (:workspace_id, :target, true, '{}', :failed, :now) ON CONFLICT (workspace_id, platform) DO UPDATE SET "
        "failures = CASE WHEN excluded.failures = 0 THEN 0 ELSE s.failures + 1 END, "
        # A success ends a pause for a while; a refused credential stays refused.
        + ", ".join(
            f"{column} = CASE WHEN excluded.failures = 0 AND s.paused_until IS NOT NULL THEN NULL ELSE s.{column} END"
            for column in ("paused_reason", "paused_at", "paused_until")
        )
        + " RETURNING s.failures",
        workspace_id=workspace_id,
        target=target,
        failed=int(failed),
        now=now,
    )
    return int(found.scalar_one())


async def pause(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    target: str,
    found: Pause,
    *,
    now: datetime,
    credentials_at: datetime | None,
) -> bool:
    """
    Leave a target alone. Whether it is left alone now.

    Args:
        credentials_at: When the newest of the credentials that were used was stored. A refusal says nothing about newer ones.
    """
    values: dict[str, Any] = {"workspace_id": workspace_id, "target": target, "reason": found.reason[:300]}
    newest = f"(SELECT max(updated_at) FROM {t.credentials} WHERE workspace_id = :workspace_id AND target = :target)"
    changed = await run(
        conn,
        f"INSERT INTO {t.platform_settings} AS s (workspace_id, platform, enabled, settings, failures, updated_at, "
        "paused_reason, paused_at, paused_until) VALUES (:workspace_id, :target, true, '{}', 0, :now, "
        "CAST(:reason AS text), CAST(:now AS timestamptz), CAST(:until AS timestamptz)) "
        "ON CONFLICT (workspace_id, platform) DO UPDATE SET paused_reason = excluded.paused_reason, "
        "paused_at = excluded.paused_at, paused_until = excluded.paused_until "
        # A pause without an end is not shortened by one with an end.
        "WHERE (s.paused_at IS NULL OR s.paused_until IS NOT NULL) AND (excluded.paused_until IS NOT NULL "
        f"OR CAST(:credentials_at AS timestamptz) IS NOT DISTINCT FROM {newest}) RETURNING platform",
        **values,
        now=now,
        until=found.until,
        credentials_at=credentials_at,
    )
    if changed.first() is not None:
        return True
    still = await run(
        conn,
        f"SELECT 1 FROM {t.platform_settings} WHERE workspace_id = :workspace_id AND platform = :target "
        "AND paused_at IS NOT NULL AND paused_until IS NULL",
        workspace_id=workspace_id,
        target=target,
    )
    return still.first() is not None


async def recover(conn: AsyncConnection, t: Tables, workspace_id: UUID, target: str, now: datetime) -> None:
    """Send at once what waited because everything failed."""
    await run(
        conn,
        f"UPDATE {t.dispatches} SET next_at = :now WHERE workspace_id = :workspace_id AND target = :target "
        f"AND state = 'retry_wait' AND reason = '{OUTAGE}' AND next_at > :now",
        workspace_id=workspace_id,
        target=target,
        now=now,
    )


async def resume(conn: AsyncConnection, t: Tables, workspace_id: UUID, target: str, now: datetime) -> int:
    """Go on with a target; how many dispatches waited for a credential."""
    await run(
        conn,
        f"UPDATE {t.platform_settings} SET paused_reason = NULL, paused_at = NULL, paused_until = NULL, failures = 0, "
        "updated_at = :now WHERE workspace_id = :workspace_id AND platform = :target",
        workspace_id=workspace_id,
        target=target,
        now=now,
    )
    woken = await run(
        conn,
        f"UPDATE {t.dispatches} SET state = 'pending', reason = NULL, next_at = :now "
        "WHERE workspace_id = :workspace_id AND target = :target AND state = 'paused_credentials'",
        workspace_id=workspace_id,
        target=target,
        now=now,
    )
    return woken.rowcount


__all__ = ["note", "pause", "recover", "resume"]
