"""`analytics.links`: the short links, as hosts see them: made, changed, found and counted. REST goes through this class too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Unpack
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics import qr
from goodanalytics.core.bounds import text
from goodanalytics.core.link_fields import LinkFields, checked_domain
from goodanalytics.core.links import KEY, Domain, Link
from goodanalytics.core.moving_files import FileFormat
from goodanalytics.core.own_address import searched_address
from goodanalytics.core.sharing import ShareFields, share_urls
from goodanalytics.errors import NotFound
from goodanalytics.link_registry import LinkAndPlace, LinkChanges, LinkRegistry, as_uuid
from goodanalytics.moving import Report, bring, take_out
from goodanalytics.qr import StyleFields
from goodanalytics.store import (
    link_domains,
    link_experiments,
    link_figures,
    link_history,
    link_lists,
    link_reading,
)
from goodanalytics.store.link_experiments import Experiment
from goodanalytics.store.link_figures import Click, LinkStats, Totals
from goodanalytics.store.link_history import Revision
from goodanalytics.store.link_lists import Sort
from goodanalytics.store.link_reading import Wanted
from goodanalytics.store.pages import Page
from goodanalytics.store.reports.periods import Interval


@dataclass(frozen=True, slots=True)
class Links(LinkRegistry):
    """
    The short links.

    Wherever an *actor* is taken: who does it, for the link's history. `create_many`, `upsert_many`, `update_many`,
    `archive_many` and `set_domain` come from `LinkRegistry`.
    """

    # Changing --------------------------------------------------------------------------------------------------------

    async def create(
        self,
        *,
        url: str,
        external_id: str | None = None,
        actor: str | None = None,
        request_key: str | None = None,
        workspace_id: UUID | None = None,
        **fields: Unpack[LinkFields],
    ) -> Link:
        """
        Make a short link.

        Args:
            url: Where it leads: an absolute http or https address, or one of `config.link_app_schemes`.
            request_key: Makes the call safe to repeat: the same key and link is made once, and handed out again.
            external_id: Your own id of it, unique among the links in use.
            fields: Everything else; see `LinkFields`. The key is random when left out; the domain is the first of
                `config.link_domains`, and has to be given where there is none: your app's own host, such as `shop.example`.

        Raises:
            InvalidInput: A value is not usable, or something else answers at that key.
            Conflict: Domain and key, or the external id, are in use.
        """
        item = {"url": url, "external_id": external_id, **fields}
        (done,) = await self.create_many(
            [item], actor=actor, request_key=request_key, workspace_id=workspace_id
        )
        return done.given()

    async def upsert(
        self,
        external_id: str,
        *,
        actor: str | None = None,
        workspace_id: UUID | None = None,
        **fields: Unpack[LinkAndPlace],
    ) -> Link:
        """
        Change the link that you call *external_id*, or make it. What is not given stays as it is.

        Raises:
            InvalidInput: A value is not usable, or *url* is missing and there is no such link yet.
            Conflict: Domain and key are in use by another link.
        """
        item = {**fields, "external_id": external_id}
        (done,) = await self.upsert_many([item], actor=actor, workspace_id=workspace_id)
        return done.given()

    async def update(
        self,
        link: Link | UUID | str,
        *,
        actor: str | None = None,
        workspace_id: UUID | None = None,
        **changes: Unpack[LinkChanges],
    ) -> Link:
        """
        Change a link, its domain and key too. `None` clears.

        Raises:
            InvalidInput: A name is unknown, or a value is not usable.
            NotFound: There is no such link in use.
            Conflict: The new address or external id is in use.
        """
        item = {**changes, "id": as_uuid(link, "link")}
        (done,) = await self.update_many([item], actor=actor, workspace_id=workspace_id)
        return done.given()

    async def archive(
        self, link: Link | UUID | str, *, actor: str | None = None, workspace_id: UUID | None = None
    ) -> Link:
        """
        Take a link out of use; its domain, key and external id are free at once.

        Raises:
            NotFound: There is no such link in use.
        """
        (done,) = await self.archive_many([link], actor=actor, workspace_id=workspace_id)
        return done.given()

    # Reading --------------------------------------------------------------------------------------------------------

    async def get(self, link: Link | UUID | str, *, workspace_id: UUID | None = None) -> Link | None:
        """One link by its id, archived or not; `None` when there is none."""
        async with self.database.connect() as conn:
            return await link_reading.get_link(
                conn, self.database.tables, self._in(workspace_id), as_uuid(link, "link")
            )

    async def find(self, domain: str, key: str, *, workspace_id: UUID | None = None) -> Link | None:
        """The link in use at *domain*/*key*, by the domain's case rule; `None` when there is none."""
        if not KEY.fullmatch(key):
            return None
        async with self.database.connect() as conn:
            return await link_reading.find_by_address(
                conn, self.database.tables, self._in(workspace_id), checked_domain(domain), key
            )

    async def list(
        self,
        *,
        search: str | None = None,
        sort: Sort = "-created_at",
        domain: str | None = None,
        tag: str | None = None,
        folder: str | None = None,
        partner_id: UUID | None = None,
        archived: bool | None = False,
        period: tuple[datetime, datetime] | None = None,
        limit: int = 50,
        cursor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> Page[Link]:
        """
        A page of links, newest first unless *sort* says otherwise; `page.next_cursor` leads to the next one.

        Args:
            search: A part of the short address (as `short_url` gives it, or domain and key), the destination, title, notes or external id.
            archived: Only those in use, only archived ones, or with `None` both.
            period: From (inside) and to (outside), aware: whose clicks count when *sort* is by clicks; the ten years until
                now when left out. `totals` tells how many they are.

        Raises:
            InvalidInput: *limit* is not 1 to 200, *sort* is unknown, *period* is not usable, or *cursor* is of another list.
        """
        said = text(search)
        wanted = Wanted(
            search=said, address=None if said is None else searched_address(said, self.config.link_path),
            domain=None if domain is None else checked_domain(domain), tag=text(tag),
            folder=text(folder), partner_id=partner_id, archived=archived,
        )  # fmt: skip
        async with self.database.connect() as conn:
            return await link_lists.in_order(
                conn, self.database.tables, self._in(workspace_id), wanted,
                sort=sort, now=self.config.clock(), period=period, limit=limit, after=cursor,
            )  # fmt: skip

    async def history(
        self,
        link: Link | UUID | str,
        *,
        limit: int = 50,
        cursor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> Page[Revision]:
        """
        A page of what was changed of a link, by whom and when; the newest first, the making last. Empty for an unknown link.

        Raises:
            InvalidInput: *limit* is not 1 to 200, or *cursor* is of another list.
        """
        async with self.database.connect() as conn:
            return await link_history.history(
                conn,
                self.database.tables,
                self._in(workspace_id),
                as_uuid(link, "link"),
                limit=limit,
                after=cursor,
            )

    async def stats(
        self,
        link: Link | UUID | str,
        *,
        period: tuple[datetime, datetime] | None = None,
        interval: Interval = "day",
        timezone: str = "UTC",
        unique_window: timedelta = timedelta(days=1),
        workspace_id: UUID | None = None,
    ) -> LinkStats:
        """
        What became of a link; `store.link_figures` defines each figure. Leads and sales are those of visits that it began.

        Args:
            period: From (inside) and to (outside), aware; until now since its first click or its making, ten years at most,
                when left out.
            unique_window: A person's clicks within it count once in `deduplicated_clicks`.

        Raises:
            InvalidInput: The period, time zone or window is not usable.
            NotFound: There is no such link.
        """
        async with self.database.connect() as conn:
            found = await self._found(conn, link, workspace_id)
            return await link_figures.stats(
                conn, self.database.tables, found, period=period, now=self.config.clock(), interval=interval,
                timezone=timezone, unique_window=unique_window,
            )  # fmt: skip

    async def experiment(
        self,
        link: Link | UUID | str,
        *,
        period: tuple[datetime, datetime] | None = None,
        currency: str | None = None,
        workspace_id: UUID | None = None,
    ) -> Experiment:
        """
        What the split of a link shows: each variant's people, and whether the differences mean anything.

        Args:
            period: From (inside) and to (outside), aware; since the variants were last changed when left out.
            currency: Of the revenue, as ISO 4217 writes it; the one that most people bought in when left out.

        Raises:
            InvalidInput: The period is not usable.
            NotFound: There is no such link.
        """
        async with self.database.connect() as conn:
            found = await self._found(conn, link, workspace_id)
            return await link_experiments.experiment(
                conn, self.database.tables, found, now=self.config.clock(), period=period, currency=currency
            )

    async def _found(self, conn: AsyncConnection, link: Link | UUID | str, workspace_id: UUID | None) -> Link:
        link_id = as_uuid(link, "link")
        found = await link_reading.get_link(conn, self.database.tables, self._in(workspace_id), link_id)
        if found is None:
            raise NotFound(f"There is no link {link_id} in this workspace")
        return found

    async def totals(
        self,
        links: Iterable[Link | UUID | str],
        *,
        period: tuple[datetime, datetime],
        workspace_id: UUID | None = None,
    ) -> dict[UUID, Totals]:
        """
        The figures that a list shows beside each of up to 200 links, by their ids.

        Raises:
            InvalidInput: The period is not usable.
        """
        period = link_figures.checked_period(period)
        ids = [as_uuid(link, "link") for link in links]
        async with self.database.connect() as conn:
            return await link_figures.totals(conn, self.database.tables, self._in(workspace_id), ids, *period)

    async def clicks(
        self,
        link: Link | UUID | str,
        *,
        limit: int = 50,
        cursor: str | None = None,
        include_bots: bool = False,
        workspace_id: UUID | None = None,
    ) -> Page[Click]:
        """
        A page of a link's clicks, the newest first. Empty for an unknown link.

        Args:
            include_bots: Also what bots, previews and prefetches asked for.

        Raises:
            InvalidInput: *limit* is not 1 to 200, or *cursor* is of another list.
        """
        async with self.database.connect() as conn:
            return await link_figures.clicks(
                conn, self.database.tables, self._in(workspace_id), as_uuid(link, "link"),
                limit=limit, after=cursor, include_bots=include_bots,
            )  # fmt: skip

    def short_url(self, link: Link, scheme: str = "https") -> str:
        """The address to share."""
        return f"{scheme}://{link.domain}{self._prefix(link.domain)}/{link.key}"

    def share_urls(
        self, link: Link, title: str | None = None, *, scheme: str = "https", **more: Unpack[ShareFields]
    ) -> dict[str, str]:
        """
        Addresses that open the networks' own pages to share *link*, by the network's name; `copy` is the link itself.

        Args:
            title: Of what is shared; the link's own when left out.
            more: See `core.sharing.share_urls`.

        Raises:
            InvalidInput: A value of *more* is not usable.
        """
        return share_urls(self.short_url(link, scheme), title or link.og_title or link.title, **more)

    async def qr(
        self,
        link: Link | UUID | str,
        kind: qr.Format = "svg",
        *,
        logo: bytes | None = None,
        scheme: str = "https",
        workspace_id: UUID | None = None,
        **style: Unpack[StyleFields],
    ) -> bytes:
        """
        The QR code of a link: the file of an SVG or PNG.

        Args:
            logo: A PNG or JPEG for the middle, at most 256 KiB; into a PNG it is drawn by Pillow (`goodanalytics[qr]`).
            style: Size, width, margin, dark, light, correction; see `qr.Style`.

        Raises:
            InvalidInput: A value is not usable, or the code would not scan.
            NotFound: There is no such link.
        """
        found = link if isinstance(link, Link) else await self.get(link, workspace_id=workspace_id)
        if found is None:
            raise NotFound(f"There is no link {link} in this workspace")
        chosen = qr.Style(logo=None if logo is None else qr.logo_of(logo), **style)
        return await asyncio.to_thread(qr.draw, f"{self.short_url(found, scheme)}?qr=1", kind, chosen)

    # Moving house ----------------------------------------------------------------------------------------------------

    async def import_(
        self,
        data: bytes,
        source: str,
        *,
        domain: str | None = None,
        dry_run: bool = False,
        encoding: str = "utf-8",
        progress: Callable[[Report], None] = lambda _: None,
        actor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> Report:
        """
        Bring in the links of a file, and out of our own export also domains and partners. A second time changes nothing.

        Args:
            source: Whose export *data* is: `bitly`, `dub`, `kutt`, `rebrandly`, `shlink`, `shortio`, `yourls` or
                `goodanalytics`.
            domain: The host that all links get; each keeps its own when left out. Settings of domains then stay behind.
            dry_run: Only report what would be.
            progress: Called after each batch.

        Returns:
            What was made, changed and refused, by row.

        Raises:
            InvalidInput: The file is not what it is said to be, or larger than we take.
        """
        by = self._change(workspace_id, actor)
        report = Report(source, dry_run)
        async for report in bring(
            self.config, self.database, data, source, domain=domain, dry_run=dry_run, encoding=encoding,
            workspace_id=by.workspace_id, actor=by.actor, taken=by.taken,
        ):  # fmt: skip
            progress(report)
        return report

    def export(
        self, kind: FileFormat = "jsonl", *, passwords: bool = False, workspace_id: UUID | None = None
    ) -> AsyncIterator[bytes]:
        """
        The pieces of a file of everything about links; `import_(…, "goodanalytics")` reads it back exactly.

        All links, archived ones too, partners with their terms and e-mail addresses, domains with their settings; CSV has the links
        only. In JSON each row says its `kind`, and the first the version of the form. Clicks, leads and sales are events of visitors,
        and no part of it.

        Args:
            passwords: Whether the digests of passwords are in it; without, links with a password are not read back.
        """
        return take_out(self.database, self._in(workspace_id), kind, passwords=passwords)

    # Domains --------------------------------------------------------------------------------------------------------

    async def domains(self, *, workspace_id: UUID | None = None) -> Sequence[Domain]:
        """Every domain of which something was said, by name."""
        async with self.database.connect() as conn:
            return await link_domains.list_domains(conn, self.database.tables, self._in(workspace_id))

    async def get_domain(self, host: str, *, workspace_id: UUID | None = None) -> Domain:
        """What holds for all links of *host*; the defaults if nothing was said of it."""
        name = checked_domain(host)
        async with self.database.connect() as conn:
            found = await link_domains.get_many(conn, self.database.tables, self._in(workspace_id), [name])
        return found[name]


__all__ = ["Links"]
