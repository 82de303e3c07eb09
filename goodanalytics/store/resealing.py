"""
A new secret key: everything that an earlier one sealed is sealed again by the present one.

Credentials and webhooks' secrets are few and go in one transaction; dispatches go in parts, so that nobody waits long. What
cannot be opened stays as it is, and is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.errors import ConfigError
from goodanalytics.sealing import Place, Sealer
from goodanalytics.store.database import Database, as_bytea, as_json, run
from goodanalytics.store.outbox_leases import WEBHOOK

PART: Final = 500  # rows


@dataclass(frozen=True, slots=True)
class Resealed:
    """
    How many values were sealed anew.

    Attributes:
        unreadable: How many could not be opened, because their key is not among `previous_secret_keys`.
    """

    credentials: int
    webhooks: int
    dispatches: int
    unreadable: int


async def reseal(database: Database, workspace_id: UUID, sealer: Sealer) -> Resealed:
    """Seal everything of a workspace with the present key. Safe to repeat, and to break off."""
    t = database.tables
    part = _Part(workspace_id, sealer)
    async with database.begin() as conn:
        credentials = await part.seal(
            conn, t.credentials, "sealed", "target, name",
            lambda row: Place("credential", workspace_id, row.target, row.name), f", key_id = '{sealer.key_id}'",
        )  # fmt: skip
        webhooks = await part.seal(
            conn, t.webhooks, "secret", "id",
            lambda row: Place("webhook", workspace_id, f"{WEBHOOK}{row.id}", "signing_secret"),
        )  # fmt: skip
    dispatches, part.most, more = 0, PART, True
    while more:
        async with database.begin() as conn:
            dispatches += await part.seal(
                conn, t.dispatches, "sealed", "target, id",
                lambda row: Place("dispatch", workspace_id, row.target, str(row.id)),
            )  # fmt: skip
        more = part.found == PART
    return Resealed(credentials, webhooks, dispatches, part.unreadable)


@dataclass(slots=True)
class _Part:
    """A walk over a table's rows that another key sealed, in the order of their key."""

    workspace_id: UUID
    sealer: Sealer
    most: int | None = None
    found: int = 0
    unreadable: int = 0
    after: UUID | None = None

    async def seal(
        self,
        conn: AsyncConnection,
        table: Table,
        column: str,
        key: str,
        place: Callable[[Any], Place],
        also: str = "",
    ) -> int:
        names = key.split(", ")
        kinds = ", ".join(f"{name} {'uuid' if name == 'id' else 'text'}" for name in names)
        rows = await run(
            conn,
            f"SELECT {key}, {column} AS sealed FROM {table} WHERE workspace_id = :workspace_id "
            f"AND substring({column} FROM 2 FOR 8) <> decode(:key_id, 'hex') "
            + ("AND (CAST(:after AS uuid) IS NULL OR id > CAST(:after AS uuid)) " if self.most else "")
            + f"ORDER BY {names[-1]} LIMIT :most FOR UPDATE",
            workspace_id=self.workspace_id,
            key_id=self.sealer.key_id,
            most=self.most,
            **({"after": self.after} if self.most else {}),
        )
        renewed = []
        self.found = 0
        for row in rows:
            self.found += 1
            self.after = row.id if self.most else None
            try:
                sealed = as_bytea(self.sealer.renew(row.sealed, place(row)))
            except ConfigError:
                self.unreadable += 1
                continue
            renewed.append({**{name: getattr(row, name) for name in names}, "sealed": sealed})
        if renewed:
            same = " AND ".join(f"x.{name} = r.{name}" for name in names)
            await run(
                conn,
                f"UPDATE {table} x SET {column} = r.sealed{also} "
                f"FROM json_to_recordset(CAST(:rows AS json)) AS r ({kinds}, sealed bytea) "
                f"WHERE x.workspace_id = :workspace_id AND {same}",
                workspace_id=self.workspace_id,
                rows=as_json(renewed),
            )
        return len(renewed)


__all__ = ["Resealed", "reseal"]
