"""Who did what to people by hand, and why: one row each, kept when the people themselves are erased."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.store.tables import Tables


async def note(
    conn: AsyncConnection,
    t: Tables,
    *,
    workspace_id: UUID,
    note_id: UUID,
    at: datetime,
    actor: str | None,
    action: str,
    subject: str,
    reason: str | None,
    details: Mapping[str, Any],
) -> None:
    """
    Add a row. *subject* is an id of ours, never a person's own name.

    Args:
        reason: The host's words; they stay when the person is erased, so they should not name anybody.
    """
    await conn.execute(
        insert(t.audit).values(
            workspace_id=workspace_id,
            id=note_id,
            at=at,
            actor=actor,
            action=action,
            subject=subject,
            reason=reason,
            details=dict(details),
        )
    )
