"""`analytics.partners`: who sends visitors for a commission, and what they earned. REST goes through this class too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Unpack, get_args
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.config import Config
from goodanalytics.core import tokens
from goodanalytics.core.bounds import text
from goodanalytics.core.commissions import Entry, EntryStatus
from goodanalytics.core.partners import Partner, PartnerFields, PartnerStatus, checked_partner, folded_code
from goodanalytics.core.referral import Referral, first_and_last
from goodanalytics.core.visitors import Visitor
from goodanalytics.errors import InvalidInput, NotFound
from goodanalytics.link_registry import as_uuid
from goodanalytics.store import commissions, ledger, partner_figures, partners, referrals, visitors
from goodanalytics.store.database import Database
from goodanalytics.store.pages import Page
from goodanalytics.store.partner_figures import PartnerStats


@dataclass(frozen=True, slots=True)
class Referred:
    """By whom a person came: *first* and *last*; both `None` for somebody who came by nobody."""

    first: Referral | None
    last: Referral | None


@dataclass(frozen=True, slots=True)
class Partners:
    """
    The partners.

    A partner's link is a link with their `partner_id`. Without one, `?via=CODE` and `?ref=CODE` on any page do the same. Amounts are
    worked out and kept here; paying them is yours.
    """

    config: Config
    database: Database

    # Changing --------------------------------------------------------------------------------------------------------

    async def create(self, *, workspace_id: UUID | None = None, **fields: Unpack[PartnerFields]) -> Partner:
        """
        Add a partner. A code and a name are needed.

        Args:
            fields: See `Partner`. Say who they are by `email`, `external_id` or `visitor_id`, so that what they buy themselves
                earns them nothing.

        Raises:
            InvalidInput: A value is missing or not usable.
            Conflict: The code or the external id is another partner's.
        """
        checked = checked_partner(fields)
        for name in ("code", "name"):
            if name not in checked:
                raise InvalidInput(f"{name} is missing; a partner needs one", where=name)
        now = self.config.clock()
        partner = Partner(
            workspace_id=self._in(workspace_id),
            id=self.config.new_id(),
            created_at=now,
            updated_at=now,
            **checked,
        )
        async with self.database.begin() as conn:
            return await partners.create(conn, self.database.tables, partner)

    async def update(
        self,
        partner: Partner | UUID | str,
        *,
        workspace_id: UUID | None = None,
        **changes: Unpack[PartnerFields],
    ) -> Partner:
        """
        Change a partner. Terms hold for what comes from now on; what is in the ledger keeps its amount.

        Raises:
            InvalidInput: A name is unknown, or a value is not usable.
            NotFound: There is no such partner.
            Conflict: The code or the external id is another partner's.
        """
        checked, partner_id = checked_partner(changes), _id_of(partner)

        async def act(conn: AsyncConnection) -> Partner:
            return await partners.update(
                conn, self.database.tables, workspace_id=self._in(workspace_id), partner_id=partner_id, changes=checked,
                rules=self.config.referral, now=self.config.clock(),
            )  # fmt: skip

        return await ledger.again(self.database, act)

    async def pause(self, partner: Partner | UUID | str, *, workspace_id: UUID | None = None) -> Partner:
        """Go on counting what a partner sends, and let nothing new be earned that nobody approves. `update` ends it."""
        return await self.update(partner, status="paused", workspace_id=workspace_id)

    async def close(self, partner: Partner | UUID | str, *, workspace_id: UUID | None = None) -> Partner:
        """Let a partner refer nobody any more. What they earned stays; the code stays theirs."""
        return await self.update(partner, status="closed", workspace_id=workspace_id)

    async def review(
        self,
        commission: Entry | UUID | str,
        status: EntryStatus,
        *,
        of: Partner | UUID | str | None = None,
        reason: str | None = None,
        actor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> Entry:
        """
        Approve a commission or make it void, together with what refunds took back of it. The rules do not touch it again.

        Args:
            status: `approved`, `void`, or `pending`, which leaves it to the rules again.
            of: Whose it must be, if that matters.

        Raises:
            InvalidInput: *status* is none of these.
            NotFound: There is no such commission, or it is not *of* that partner.
        """
        if status not in get_args(EntryStatus):
            raise InvalidInput(
                f"status is {status!r:.80}; it is {', '.join(get_args(EntryStatus))}", where="status"
            )
        commission_id = commission.id if isinstance(commission, Entry) else as_uuid(commission, "commission")
        async with self.database.begin() as conn:
            return await commissions.review(
                conn, self.database.tables, workspace_id=self._in(workspace_id), commission_id=commission_id,
                partner_id=None if of is None else _id_of(of), status=status, note_id=self.config.new_id(), reason=text(reason), actor=text(actor),
                now=self.config.clock(),
            )  # fmt: skip

    # Reading ---------------------------------------------------------------------------------------------------------

    async def get(self, partner: Partner | UUID | str, *, workspace_id: UUID | None = None) -> Partner | None:
        """One partner by the id; `None` when there is none."""
        async with self.database.connect() as conn:
            return await partners.get(conn, self.database.tables, self._in(workspace_id), _id_of(partner))

    async def by_code(self, code: str, *, workspace_id: UUID | None = None) -> Partner | None:
        """The partner with this code, in upper or lower case; `None` when there is none."""
        folded = folded_code(code)
        if folded is None:
            return None
        async with self.database.connect() as conn:
            return await partners.by_code(conn, self.database.tables, self._in(workspace_id), folded)

    async def by_token(self, token: str | None, *, workspace_id: UUID | None = None) -> Partner | None:
        """
        The partner whose link this browser came by last, by its cookie, as a page may want to know at once.

        `None` when there is no such cookie, it is not one that we signed, or the partner is not active.

        Args:
            token: The cookie's value: `request.cookies.get("_ga_ref")` (`Config.cookies.referral` names it).
        """
        if not token:
            return None
        keys = [self.config.secret_key, *self.config.previous_secret_keys]
        claims = tokens.verify(keys, "referral", token, self.config.clock())
        if isinstance(claims, str) or claims.get("workspace_id") != str(self._in(workspace_id)):
            return None
        found = await self.get(str(claims.get("partner_id")), workspace_id=workspace_id)
        return found if found is not None and found.status == "active" else None

    async def list(
        self,
        *,
        search: str | None = None,
        status: PartnerStatus | None = None,
        limit: int = 50,
        cursor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> Page[Partner]:
        """
        A page of partners, the newest first; `page.next_cursor` leads to the next one.

        Args:
            search: A part of the code, name, e-mail address or external id.

        Raises:
            InvalidInput: *limit* is not 1 to 200, or *cursor* is of another list.
        """
        async with self.database.connect() as conn:
            return await partners.list_partners(
                conn, self.database.tables, self._in(workspace_id), search=text(search), status=status, limit=limit,
                after=cursor,
            )  # fmt: skip

    async def referred(self, visitor: Visitor | UUID | str, *, workspace_id: UUID | None = None) -> Referred:
        """
        By whom a person came first and last, on any of their devices, also by partners who are closed now.

        Raises:
            NotFound: There is no such visitor.
        """
        workspace = self._in(workspace_id)
        async with self.database.connect() as conn:
            person = await visitors.get(conn, self.database.tables, workspace, as_uuid(visitor, "visitor"))
            if person is None:
                raise NotFound(f"There is no visitor {visitor} in workspace {workspace}")
            key = (workspace, person.id)
            found = await referrals.of_people(conn, self.database.tables, [key])
        return Referred(*first_and_last(found.get(key, [])))

    async def commissions(
        self,
        partner: Partner | UUID | str,
        *,
        status: EntryStatus | None = None,
        kind: Literal["earned", "reversed"] | None = None,
        limit: int = 50,
        cursor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> Page[Entry]:
        """
        A page of a partner's entries in the ledger, the latest first.

        Raises:
            InvalidInput: *limit* is not 1 to 200, or *cursor* is of another list.
        """
        async with self.database.connect() as conn:
            return await commissions.list_entries(
                conn, self.database.tables, self._in(workspace_id), _id_of(partner), status=status, kind=kind, limit=limit,
                after=cursor,
            )  # fmt: skip

    async def stats(
        self,
        partner: Partner | UUID | str,
        *,
        period: tuple[datetime | None, datetime | None] = (None, None),
        workspace_id: UUID | None = None,
    ) -> PartnerStats:
        """
        What became of a partner; `store.partner_figures` says what each figure counts.

        Args:
            period: From (inside) and to (outside), aware; each may be open.

        Raises:
            InvalidInput: The period ends before it begins.
            NotFound: There is no such partner.
        """
        workspace, partner_id = self._in(workspace_id), _id_of(partner)
        async with self.database.connect() as conn:
            if await partners.get(conn, self.database.tables, workspace, partner_id) is None:
                raise NotFound(f"There is no partner {partner_id} in workspace {workspace}")
            found = await partner_figures.stats(
                conn, self.database.tables, workspace, [partner_id], since=period[0], until=period[1]
            )
        return found[partner_id]

    async def totals(
        self,
        partners: Iterable[Partner | UUID | str],
        *,
        period: tuple[datetime | None, datetime | None] = (None, None),
        workspace_id: UUID | None = None,
    ) -> dict[UUID, PartnerStats]:
        """
        The `stats` of each of up to 200 partners, as a list shows them, by their ids; who is unknown has zeros.

        Raises:
            InvalidInput: The period ends before it begins.
        """
        async with self.database.connect() as conn:
            return await partner_figures.stats(
                conn, self.database.tables, self._in(workspace_id), [_id_of(one) for one in partners],
                since=period[0], until=period[1],
            )  # fmt: skip

    def _in(self, workspace_id: UUID | None) -> UUID:
        return workspace_id or self.config.workspace


def _id_of(partner: Partner | UUID | str) -> UUID:
    return partner.id if isinstance(partner, Partner) else as_uuid(partner, "partner")


__all__ = ["Partners", "Referred"]
