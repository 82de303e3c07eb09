"""
What was told to ad platforms and webhooks, and what became of it: listed, sent again, taken back. Part of `analytics.platforms`.

A dispatch is sent again under the ids that it has, so that whoever has it already counts it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.config import Config
from goodanalytics.core import bounds
from goodanalytics.core.visitors import Visitor
from goodanalytics.dispatch.dispatcher import Dispatcher
from goodanalytics.errors import Conflict, InvalidInput, NotFound
from goodanalytics.facade.visitors import as_uuid
from goodanalytics.store import audit, ledger, lookups, outbox, outbox_reading
from goodanalytics.store.database import Database
from goodanalytics.store.outbox import Recalled
from goodanalytics.store.outbox_reading import Coverage, Dispatch
from goodanalytics.store.pages import Page


@dataclass(frozen=True, slots=True)
class Dispatches:
    """The outbox of a workspace."""

    config: Config
    database: Database
    dispatcher: Dispatcher

    async def dispatches(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        target: str | None = None,
        state: str | None = None,
        event: UUID | str | None = None,
        workspace_id: UUID | None = None,
    ) -> Page[Dispatch]:
        """
        A page of what was told, or was not and why; the newest first. `page.next_cursor` leads to the next one.

        Args:
            target: A platform's name, or `webhook:{id}`.
            event: Of one conversion only.

        Raises:
            InvalidInput: A value is not one.
        """
        async with self.database.connect() as conn:
            return await outbox_reading.listed(
                conn, self.database.tables, self.in_workspace(workspace_id), limit=limit, after=cursor, target=target,
                state=state, event_id=None if event is None else as_uuid(event, "event"),
            )  # fmt: skip

    async def dispatch(self, dispatch: UUID | str, *, workspace_id: UUID | None = None) -> Dispatch | None:
        """One of them; `None` when there is none."""
        async with self.database.connect() as conn:
            return await outbox_reading.get(
                conn, self.database.tables, self.in_workspace(workspace_id), as_uuid(dispatch, "dispatch")
            )

    async def replay(
        self, dispatch: UUID | str, *, actor: str | None = None, workspace_id: UUID | None = None
    ) -> Dispatch:
        """
        Send one again, with the same event id, so that a platform that has it counts it once.

        Raises:
            NotFound: There is no such dispatch.
            Conflict: It is under way, nothing is kept of it, its person took consent back, or its sale was refunded.
        """
        workspace, now = self.in_workspace(workspace_id), self.config.clock()
        wanted, t = as_uuid(dispatch, "dispatch"), self.database.tables
        async with self.database.begin() as conn:
            replayed = await outbox.replay(conn, t, workspace, now, ids=[wanted])
            found = await outbox_reading.get(conn, t, workspace, wanted)
            if found is None:
                raise NotFound(f"There is no dispatch {wanted} in this workspace")
            if not replayed:
                raise Conflict(f"Dispatch {wanted} is not sent again: {_why_not(found)}")
            await self.note(conn, "platforms.replay", str(wanted), workspace, actor, {"target": found.target})
        self.dispatcher.wake()
        return found

    async def replay_all(
        self,
        *,
        target: str | None = None,
        states: Sequence[str] = ("dead",),
        since: datetime | None = None,
        actor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> int:
        """
        Send all again that are in one of *states* (`dead, skipped, delivered`) and can be; how many those are.

        Args:
            since: Of conversions since then.

        Raises:
            InvalidInput: A state is none of those, or *since* has no time zone.
        """
        if wrong := set(states) - {"dead", "skipped", "delivered"}:
            raise InvalidInput(
                f"states has {sorted(wrong)}; it may have dead, skipped and delivered", where="states"
            )
        if since is not None and since.tzinfo is None:
            raise InvalidInput(
                f"since is {since!r}, without a time zone; give an aware datetime", where="since"
            )
        workspace, now, number = self.in_workspace(workspace_id), self.config.clock(), 0
        while True:
            async with self.database.begin() as conn:
                part = await outbox.replay(
                    conn, self.database.tables, workspace, now, target=target, states=states, since=since
                )
                if part:
                    details = {"number": len(part), "states": [*states]}
                    await self.note(conn, "platforms.replay", target or "all", workspace, actor, details)
            number += len(part)
            if len(part) < outbox.SWEPT:
                self.dispatcher.wake()
                return number

    async def recall(
        self,
        visitor: Visitor | UUID | str,
        *,
        actor: str | None = None,
        workspace_id: UUID | None = None,
        connection: Any = None,
    ) -> Recalled:
        """
        Take back what is queued for ad platforms about this person, who took their consent back.

        What a platform has already, it has; that goes out no second time.

        Raises:
            NotFound: There is no such visitor.
        """
        person, workspace = as_uuid(visitor, "visitor"), self.in_workspace(workspace_id)

        async def act(conn: AsyncConnection) -> Recalled:
            rows = await lookups.members(conn, self.database.tables, workspace, person)
            if not rows:
                raise NotFound(f"There is no visitor {person} in workspace {workspace}")
            found = await outbox.recall(conn, self.database.tables, workspace, rows, self.config.clock())
            if found.recalled or found.under_way:
                details = {"recalled": found.recalled, "under_way": found.under_way}
                await self.note(conn, "platforms.recall", str(person), workspace, actor, details)
            return found

        if connection is None:
            return await ledger.again(self.database, act)
        async with self.database.reading(connection) as conn:
            return await act(conn)

    async def coverage(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        workspace_id: UUID | None = None,
    ) -> Sequence[Coverage]:
        """How many of the dispatches of the last 28 days, or of that time, carry which match key."""
        end = until or self.config.clock()
        async with self.database.connect() as conn:
            return await outbox_reading.coverage(
                conn,
                self.database.tables,
                self.in_workspace(workspace_id),
                since or end - timedelta(days=28),
                end,
            )

    async def by_hour(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        workspace_id: UUID | None = None,
    ) -> Sequence[tuple[datetime, str, str, int]]:
        """How many were settled in each hour of the last day, or of that time: hour, target, state, number."""
        end = until or self.config.clock()
        async with self.database.connect() as conn:
            return await outbox_reading.by_hour(
                conn,
                self.database.tables,
                self.in_workspace(workspace_id),
                since or end - timedelta(days=1),
                end,
            )

    async def note(
        self,
        conn: AsyncConnection,
        action: str,
        subject: str,
        workspace_id: UUID,
        actor: str | None,
        details: dict[str, Any],
    ) -> None:
        """Add a row to the audit."""
        await audit.note(
            conn, self.database.tables, workspace_id=workspace_id, note_id=self.config.new_id(), at=self.config.clock(),
            actor=bounds.text(actor), action=action, subject=subject, reason=None, details=details,
        )  # fmt: skip

    def in_workspace(self, workspace_id: UUID | None) -> UUID:
        """The workspace that is meant."""
        return workspace_id or self.config.workspace


def _why_not(found: Dispatch) -> str:
    if found.state in ("pending", "retry_wait", "accepted"):
        return f"it is {found.state} and goes on by itself"
    if not found.is_kept:
        return "nothing is kept of what it told"
    return "its sale was refunded since, or its person took their consent back"


__all__ = ["Dispatches"]
