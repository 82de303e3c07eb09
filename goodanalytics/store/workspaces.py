"""Walking through the workspaces: each that a table has rows of, one after the other, however many there are."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Table

from goodanalytics.store.database import Database, run


async def next_workspace(database: Database, table: Table, after: UUID | None) -> UUID | None:
    """The first workspace *after* another, or of all, that *table* has rows of; `None` when there is none. One step in an index."""
    condition = "" if after is None else "WHERE workspace_id > :after"
    async with database.connect() as conn:
        found = await run(
            conn,
            f"SELECT workspace_id FROM {table} {condition} ORDER BY workspace_id LIMIT 1",
            **({} if after is None else {"after": after}),
        )
        workspace_id: UUID | None = found.scalar_one_or_none()
        return workspace_id


__all__ = ["next_workspace"]
