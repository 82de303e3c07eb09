"""
What hosts read and manage from Python: `analytics.visitors`, `analytics.links`, `analytics.reports`.

Each method checks its workspace, opens a connection, and calls the one function of the store that knows how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.config import Config
from goodanalytics.core import hits
from goodanalytics.core.links import ALPHABET, KEY_LENGTH, Link, LinkType, checked_key, checked_url
from goodanalytics.core.visitors import Visitor
from goodanalytics.dispatch_plan import DispatchPlan
from goodanalytics.errors import Conflict, InvalidInput
from goodanalytics.store import catalog, erasure, ledger, persons, visitors
from goodanalytics.store.database import Database
from goodanalytics.store.erasure import Forgotten
from goodanalytics.store.reports import exchanged, metrics
from goodanalytics.store.reports.query import Query
from goodanalytics.store.visitors import Attribution, Page, TimelineEntry

RANDOM_KEYS = 5
"""How many random keys are tried before giving up; two million million of them make a second try rare."""


def as_uuid(value: Visitor | Link | UUID | str, what: str) -> UUID:
    """
    The id of *value*, or *value* itself as an id.

    Raises:
        InvalidInput: It is none.
    """
    if isinstance(value, Visitor | Link):
        return value.id
    try:
        return value if isinstance(value, UUID) else UUID(str(value))
    except ValueError:
        raise InvalidInput(f"{what} is {value!r}; give a UUID, or what we handed out", where=what) from None


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
        """A page of people, last seen first; `page.next_cursor` leads to the next one."""
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
        """A page of everything that a person did, on all their devices."""
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
        """Why this is one person: its devices and names, the merges with their evidence, and what stayed apart."""
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
            return await persons.merge(
                conn, self.database.tables, workspace_id=self._in(workspace_id), merge_id=self.config.new_id(),
                one=ids[0], other=ids[1], reason=said, actor=hits.text(actor), force=force, now=self.config.clock(),
                tell=DispatchPlan(self.config, self.database.tables).add_now,
            )  # fmt: skip

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
                note_id=self.config.new_id(), reason=said, actor=hits.text(actor), now=self.config.clock(),
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
                visitor_id=visitor_id, note_id=self.config.new_id(), reason=said, actor=hits.text(actor),
                now=self.config.clock(),
            )  # fmt: skip

        return await ledger.again(self.database, act)

    def _in(self, workspace_id: UUID | None) -> UUID:
        return workspace_id or self.config.workspace


@dataclass(frozen=True, slots=True)
class Links:
    """The short links."""

    config: Config
    database: Database

    async def create(
        self,
        *,
        url: str,
        domain: str | None = None,
        key: str | None = None,
        link_type: LinkType = "short",
        utm_source: str | None = None,
        utm_medium: str | None = None,
        utm_campaign: str | None = None,
        utm_content: str | None = None,
        utm_term: str | None = None,
        expires_at: datetime | None = None,
        external_id: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        workspace_id: UUID | None = None,
    ) -> Link:
        """
        Make a short link.

        Args:
            url: Where it leads: an absolute http or https address.
            domain: The host that answers for it; the first of `link_domains` when left out.
            key: What stands behind the host; random when left out.

        Raises:
            InvalidInput: A value is not usable.
            Conflict: Domain and key, or the external id, are in use.
        """
        if domain is None:
            if not self.config.link_domains:
                raise InvalidInput(
                    "domain is missing and no link_domains are configured; name the host", where="domain"
                )
            domain = self.config.link_domains[0]
        now = self.config.clock()
        link = Link(
            workspace_id=workspace_id or self.config.workspace,
            id=self.config.new_id(),
            domain=_domain(domain),
            key=self._random_key() if key is None else checked_key(key),
            url=checked_url(url),
            link_type=_link_type(link_type),
            utm_source=hits.text(utm_source),
            utm_medium=hits.text(utm_medium),
            utm_campaign=hits.text(utm_campaign),
            utm_content=hits.text(utm_content),
            utm_term=hits.text(utm_term),
            expires_at=_aware(expires_at, "expires_at"),
            external_id=hits.text(external_id),
            tags=[tag for tag in (hits.text(t) for t in tags) if tag],
            metadata=dict(metadata or {}),
            created_at=now,
            updated_at=now,
        )
        for attempt in range(RANDOM_KEYS):
            try:
                async with self.database.begin() as conn:
                    return await catalog.create_link(conn, self.database.tables, link)
            except Conflict:
                if key is not None or attempt == RANDOM_KEYS - 1:
                    raise
                link = msgspec.structs.replace(link, key=self._random_key())
        raise AssertionError("unreachable")  # pragma: no cover  # the loop returns or raises

    async def get(self, link: Link | UUID | str, *, workspace_id: UUID | None = None) -> Link | None:
        """One link by its id, archived or not; `None` when there is none."""
        async with self.database.connect() as conn:
            return await catalog.get_link(
                conn, self.database.tables, workspace_id or self.config.workspace, as_uuid(link, "link")
            )

    async def find(self, domain: str, key: str, *, workspace_id: UUID | None = None) -> Link | None:
        """The link in use at *domain*/*key*; `None` when there is none."""
        async with self.database.connect() as conn:
            return await catalog.find_by_address(
                conn, self.database.tables, workspace_id or self.config.workspace, _domain(domain), key
            )

    async def list(
        self, *, limit: int = 50, before: Link | UUID | str | None = None, workspace_id: UUID | None = None
    ) -> Sequence[Link]:
        """The links in use, newest first."""
        if not 1 <= limit <= 200:
            raise InvalidInput(f"limit is {limit}; it must be between 1 and 200", where="limit")
        async with self.database.connect() as conn:
            return await catalog.list_links(
                conn, self.database.tables, workspace_id or self.config.workspace,
                limit=limit, before=None if before is None else as_uuid(before, "before"),
            )  # fmt: skip

    async def update(
        self, link: Link | UUID | str, *, workspace_id: UUID | None = None, **changes: Any
    ) -> Link:
        """
        Change a link's url, UTM parameters, expiry, tags or metadata. `None` clears.

        Raises:
            InvalidInput: A name is not one of those, or a value is not usable.
            NotFound: There is no such link in use.
        """
        unknown = sorted(set(changes) - set(catalog.CHANGEABLE))
        if unknown:
            raise InvalidInput(
                f"{unknown[0]} cannot be changed; {', '.join(catalog.CHANGEABLE)} can", where=unknown[0]
            )
        if "url" in changes:
            changes["url"] = checked_url(changes["url"])
        if "expires_at" in changes:
            changes["expires_at"] = _aware(changes["expires_at"], "expires_at")
        changes |= {name: hits.text(value) for name, value in changes.items() if name.startswith("utm_")}
        async with self.database.begin() as conn:
            return await catalog.update_link(
                conn, self.database.tables, workspace_id or self.config.workspace, as_uuid(link, "link"), changes,
                self.config.clock(),
            )  # fmt: skip

    async def archive(self, link: Link | UUID | str, *, workspace_id: UUID | None = None) -> Link:
        """
        Take a link out of use; its domain and key are free at once.

        Raises:
            NotFound: There is no such link in use.
        """
        async with self.database.begin() as conn:
            return await catalog.archive_link(
                conn, self.database.tables, workspace_id or self.config.workspace, as_uuid(link, "link"),
                self.config.clock(),
            )  # fmt: skip

    def short_url(self, link: Link, scheme: str = "https") -> str:
        """The address to share."""
        path = "" if link.domain in self.config.link_domains else self.config.link_path
        return f"{scheme}://{link.domain}{path}/{link.key}"

    def _random_key(self) -> str:
        # The low bits of a version 7 id are random; one letter takes less than six of its 62.
        number = self.config.new_id().int & ((1 << 62) - 1)
        letters = []
        for _ in range(KEY_LENGTH):
            number, index = divmod(number, len(ALPHABET))
            letters.append(ALPHABET[index])
        return "".join(letters)


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

    async def totals(self, days: int = 28, *, workspace_id: UUID | None = None) -> metrics.Result:
        """Visitors, visits, pageviews, leads and sales of the last *days* days."""
        now = self.config.clock()
        period = (now - timedelta(days=days), now)
        return await self.query(
            Query(period=period, metrics=("visitors", "visits", "pageviews", "leads", "sales")),
            workspace_id=workspace_id,
        )


def _reason(value: str) -> str:
    found = hits.text(value)
    if found is None:
        raise InvalidInput("reason is empty; say why, for whoever reads the audit", where="reason")
    return found


def _domain(domain: str) -> str:
    found = (hits.text(domain) or "").lower().rstrip(".")
    if not found or any(c in found for c in "/?#@ \\"):
        raise InvalidInput(f"domain is {domain!r}; give a host name such as go.example.com", where="domain")
    return found


def _link_type(value: str) -> LinkType:
    try:
        return msgspec.convert(value, LinkType)  # type: ignore[no-any-return]  # msgspec reads a Literal as a type
    except msgspec.ValidationError:
        raise InvalidInput(
            f"link_type is {value!r}; use short, referral or campaign", where="link_type"
        ) from None


def _aware(value: datetime | None, where: str) -> datetime | None:
    if value is not None and value.tzinfo is None:
        raise InvalidInput(f"{where} is {value!r}, without a time zone; give an aware datetime", where=where)
    return value


__all__ = ["Links", "Reports", "Visitors", "as_uuid"]
