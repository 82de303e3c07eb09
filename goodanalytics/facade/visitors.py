"""
What hosts read and manage from Python: `analytics.visitors`, `analytics.reports`; each other attribute has a module of its own beside this one.

Each method checks its workspace, opens a connection, and calls the one function of the store that knows how.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.config import Config
from goodanalytics.core import bounds
from goodanalytics.core.links import Link
from goodanalytics.core.visitors import Visitor
from goodanalytics.dispatch.plan import DispatchPlan
from goodanalytics.errors import InvalidInput
from goodanalytics.facade.links import Links
from goodanalytics.link_registry import as_uuid
from goodanalytics.store import erasure, ledger, persons, visitors
from goodanalytics.store.database import Database
from goodanalytics.store.erasure import Forgotten
from goodanalytics.store.link_experiments import Experiment
from goodanalytics.store.pages import Page
from goodanalytics.store.reports import exchanged, metrics
from goodanalytics.store.reports.query import Query
from goodanalytics.store.timeline_entries import TimelineEntry
from goodanalytics.store.visitors import Attribution


@dataclass(frozen=True, slots=True)
class Visitors:
    """The people: who they are, what they did, and why we think so."""

    config: Config
    database: Database

    async def get(
        self, visitor: Visitor | UUID | str, *, workspace_id: UUID | None = None, connection: Any = None
    ) -> Visitor | None:
        """The person behind an id, also behind the id of a visitor that was merged; `None` when there is none."""
        async with self.database.reading(connection) as conn:
            return await visitors.get(
                conn, self.database.tables, self._in(workspace_id), as_uuid(visitor, "visitor")
            )

    async def by_external_id(self, external_id: str, *, workspace_id: UUID | None = None) -> Visitor | None:
        """The person whom the host calls *external_id*; `None` when there is none."""
        async with self.database.connect() as conn:
            return await visitors.by_external_id(
                conn, self.database.tables, self._in(workspace_id), external_id
            )

    async def list(
        self,
        *,
        limit: int = 20,
        cursor: str | None = None,
        search: str | None = None,
        status: str | None = None,
        workspace_id: UUID | None = None,
    ) -> Page[Visitor]:
        """
        A page of people, last seen first; `page.next_cursor` leads to the next one.

        Args:
            search: A part of the name, e-mail address, phone number, your own id or ours, in upper or lower case.
            status: anonymous, identified, lead, customer or churned.

        Raises:
            InvalidInput: *limit* is not 1 to 200, *search* is too long, *status* is none of these, or *cursor* is of another list.
        """
        async with self.database.connect() as conn:
            return await visitors.list_visitors(
                conn, self.database.tables, self._in(workspace_id),
                limit=limit, after=cursor, search=search, status=status,
            )  # fmt: skip

    async def timeline(
        self,
        visitor: Visitor | UUID | str,
        *,
        limit: int = 50,
        cursor: str | None = None,
        newest_first: bool = True,
        workspace_id: UUID | None = None,
    ) -> Page[TimelineEntry]:
        """
        A page of everything that a person did, on all their devices.

        Raises:
            InvalidInput: *limit* is not 1 to 200, or *cursor* is of another list.
            NotFound: There is no such visitor.
        """
        async with self.database.connect() as conn:
            return await visitors.timeline(
                conn, self.database.tables, self._in(workspace_id), as_uuid(visitor, "visitor"),
                limit=limit, after=cursor, newest_first=newest_first,
            )  # fmt: skip

    async def attribution(
        self, visitor: Visitor | UUID | str, *, workspace_id: UUID | None = None
    ) -> Attribution:
        """
        A person's touches in order, and which of them get first and last credit.

        Raises:
            NotFound: There is no such visitor.
        """
        async with self.database.connect() as conn:
            return await visitors.attribution(
                conn, self.database.tables, self._in(workspace_id), as_uuid(visitor, "visitor")
            )

    async def why(self, visitor: Visitor | UUID | str, *, workspace_id: UUID | None = None) -> Any:
        """
        Why this is one person: its devices and names, the merges with their evidence, and what stayed apart.

        Raises:
            NotFound: There is no such visitor.
        """
        async with self.database.connect() as conn:
            return await visitors.why(
                conn, self.database.tables, self._in(workspace_id), as_uuid(visitor, "visitor")
            )

    async def merge(
        self,
        one: Visitor | UUID | str,
        other: Visitor | UUID | str,
        *,
        reason: str,
        actor: str | None = None,
        force: bool = False,
        workspace_id: UUID | None = None,
    ) -> Visitor:
        """
        Make two visitors one person, because you know that they are; the person.

        `why` then lists the merge with *actor* and *reason*, and its id is what `unmerge` takes. Two visitors that were taken
        apart before are joined again by this, and by nothing else.

        Args:
            force: Also when you call them by two different external ids.

        Raises:
            InvalidInput: *reason* is empty.
            NotFound: There is no such visitor.
            Conflict: They have different external ids, and *force* is not given.
        """
        said = _reason(reason)
        ids = as_uuid(one, "visitor"), as_uuid(other, "other visitor")

        async def act(conn: AsyncConnection) -> Visitor:
            queue = DispatchPlan(self.config, self.database.tables)
            person = await persons.merge(
                conn, self.database.tables, config=self.config, workspace_id=self._in(workspace_id),
                merge_id=self.config.new_id(), one=ids[0], other=ids[1], reason=said, actor=bounds.text(actor), force=force,
                now=self.config.clock(),
                tell=queue.add_now,
            )  # fmt: skip
            await queue.withdraw_from(conn, {(person.workspace_id, person.id)})
            return person

        return await ledger.again(self.database, act)

    async def unmerge(
        self,
        merge_id: UUID | str,
        *,
        reason: str,
        actor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> tuple[Visitor, Visitor]:
        """
        Take a merge back, whoever made it; the two persons that it was made of, the former winner first.

        Everything then reads as if it had never been, also what came since. What tied them does not tie them again.

        Raises:
            InvalidInput: *reason* is empty.
            NotFound: There is no such merge.
            Conflict: It was undone before.
        """
        said, undone = _reason(reason), as_uuid(merge_id, "merge_id")

        async def act(conn: AsyncConnection) -> tuple[Visitor, Visitor]:
            return await persons.unmerge(
                conn, self.database.tables, config=self.config, workspace_id=self._in(workspace_id), merge_id=undone,
                note_id=self.config.new_id(), reason=said, actor=bounds.text(actor), now=self.config.clock(),
            )  # fmt: skip

        return await ledger.again(self.database, act)

    async def forget(
        self,
        visitor: Visitor | UUID | str,
        *,
        reason: str,
        actor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> Forgotten:
        """
        Erase a person: all their browsers and devices, everything they did, everything that tells who they were.

        Their cookies do not bring them back; such hits are dropped. The audit keeps *actor*, *reason* and how much was
        erased, so do not name the person there.

        Raises:
            InvalidInput: *reason* is empty.
            NotFound: There is no such visitor.
        """
        said, visitor_id = _reason(reason), as_uuid(visitor, "visitor")

        async def act(conn: AsyncConnection) -> Forgotten:
            return await erasure.forget(
                conn, self.database.tables, self.config.graveyard, workspace_id=self._in(workspace_id),
                visitor_id=visitor_id, note_id=self.config.new_id(), reason=said, actor=bounds.text(actor),
                now=self.config.clock(),
            )  # fmt: skip

        return await ledger.again(self.database, act)

    def _in(self, workspace_id: UUID | None) -> UUID:
        return workspace_id or self.config.workspace


@dataclass(frozen=True, slots=True)
class Reports:
    """The numbers."""

    config: Config
    database: Database

    async def query(self, query: Query, *, workspace_id: UUID | None = None) -> metrics.Result:
        """
        Answer one question.

        Raises:
            InvalidInput: The question cannot be answered exactly as asked.
        """
        async with self.database.connect() as conn:
            return await metrics.run(conn, self.database.tables, workspace_id or self.config.workspace, query)

    async def reporting_revenue(
        self, period: tuple[datetime, datetime], *, workspace_id: UUID | None = None
    ) -> metrics.Result:
        """Sales less refunds in `Config.reporting_currency`; `meta` tells what had no rate and is left out."""
        async with self.database.connect() as conn:
            return await exchanged.revenue(
                conn, self.database.tables, workspace_id or self.config.workspace, period
            )

    async def realtime(self, *, workspace_id: UUID | None = None) -> Mapping[str, int]:
        """How many visitors were here in the last five minutes."""
        async with self.database.connect() as conn:
            return await metrics.realtime(
                conn, self.database.tables, workspace_id or self.config.workspace, self.config.clock()
            )

    async def experiment(
        self,
        link: Link | UUID | str,
        *,
        period: tuple[datetime, datetime] | None = None,
        currency: str | None = None,
        workspace_id: UUID | None = None,
    ) -> Experiment:
        """What the split of a link shows; see `links.experiment`, which this is."""
        links = Links(self.config, self.database)
        return await links.experiment(link, period=period, currency=currency, workspace_id=workspace_id)

    async def totals(self, days: int = 28, *, workspace_id: UUID | None = None) -> metrics.Result:
        """Visitors, visits, pageviews, leads and sales of the last *days* days."""
        now = self.config.clock()
        period = (now - timedelta(days=days), now)
        return await self.query(
            Query(period=period, metrics=("visitors", "visits", "pageviews", "leads", "sales")),
            workspace_id=workspace_id,
        )


def _reason(value: str) -> str:
    found = bounds.text(value)
    if found is None:
        raise InvalidInput("reason is empty; say why, for whoever reads the audit", where="reason")
    return found


__all__ = ["Reports", "Visitors", "as_uuid"]
