"""
The dashboard's pages about links: the list, the form, and the page of each link.

Rules of this file
1. Everything goes through `analytics.links`, as a host's own code would; the history then names `ACTOR`.
2. No page holds a connection while it asks for another: a pool of one is enough.
3. A form that is refused comes back as it was typed, with every reason beside its field.
4. Somebody else may have changed the link since the form was read: that is told, and nothing is written over unseen.
5. The filters of the reports mean nothing to the figures of a link, so these pages drop them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from goodanalytics import qr
from goodanalytics.config import Config
from goodanalytics.core.bounds import text
from goodanalytics.core.link_fields import checked_domain, random_key
from goodanalytics.core.links import Link, checked_key
from goodanalytics.core.partners import Partner
from goodanalytics.errors import Conflict, InvalidInput, NotFound
from goodanalytics.facade.links import Links
from goodanalytics.facade.partners import Partners
from goodanalytics.store import link_lists
from goodanalytics.store.catalog import NameTaken
from goodanalytics.store.link_lists import Sort
from goodanalytics.web.dashboard import asked as asking
from goodanalytics.web.dashboard import forms, link_form, link_words, rendering
from goodanalytics.web.dashboard import link_figures as figures
from goodanalytics.web.dashboard.asked import Asked
from goodanalytics.web.dashboard.link_form import Form
from goodanalytics.web.links import qr as codes

ACTOR: Final = "dashboard"
LINKS_ON_PAGE: Final = 50
CLICKS_ON_PAGE: Final = 25
CHANGES_ON_PAGE: Final = 20
PARTNERS_OFFERED: Final = 200
MAX_FORM: Final = 256 * 1024  # bytes; fifty rules with a hundred words each

SORTS: Final[Mapping[Sort, str]] = {
    "-clicks": "Most clicks",
    "-created_at": "Newest",
    "created_at": "Oldest",
    "-updated_at": "Last changed",
    "key": "A to Z",
    "-key": "Z to A",
}
MOST_CLICKS: Final[Sort] = "-clicks"
"""The order unless another one is asked for."""

ARCHIVED: Final[Mapping[str, bool | None]] = {"": False, "yes": True, "all": None}

Respond = Callable[[Request], Awaitable[Response]]
"""Answers a request that was let in; what it raises becomes a page (`dashboard`)."""


@dataclass(frozen=True, slots=True)
class LinkPages:
    """The pages of the links of *links*."""

    links: Links

    @property
    def _partners(self) -> Partners:
        return Partners(self.links.config, self.links.database)

    @property
    def routes(self) -> Sequence[tuple[str, Mapping[str, Respond]]]:
        """Each path with what answers each method."""
        return (
            ("/links", {"GET": self.list}),
            ("/links/new", {"GET": self.new, "POST": self.create}),
            ("/links/preview.svg", {"GET": self.preview}),
            ("/links/{link_id}", {"GET": self.link}),
            ("/links/{link_id}/edit", {"GET": self.edit, "POST": self.save}),
            ("/links/{link_id}/archive", {"POST": self.archive}),
            ("/links/{link_id}/qr.{kind}", {"GET": self.code}),
        )

    # Reading ---------------------------------------------------------------------------------------------------------

    async def list(self, request: Request) -> Response:
        """Links with their figures, searched and sorted."""
        asked, typed = self._asked(request), asking.first_of(request.query_params.multi_items())
        told = {name: text(typed.get(name, "")) for name in ("search", "folder", "tag")}
        archived = typed.get("archived", "")
        sort = _order(typed.get("sort") or MOST_CLICKS)
        if archived not in ARCHIVED:
            raise InvalidInput(
                f"{archived!r:.80} is not known. Use yes or all, or leave it out", where="archived"
            )
        after = typed.get("after") or None
        workspace_id = self._workspace(request)
        partner = await self._partner(request, typed["partner"]) if typed.get("partner") else None
        found = await self.links.list(
            search=told["search"], folder=told["folder"], tag=told["tag"], archived=ARCHIVED[archived],
            partner_id=partner.id if partner else None, sort=sort, period=asked.period if sort == MOST_CLICKS else None,
            limit=LINKS_ON_PAGE, cursor=after, workspace_id=workspace_id,
        )  # fmt: skip
        totals = await self.links.totals(found.items, period=asked.period, workspace_id=workspace_id)
        async with self.links.database.connect() as conn:
            known = await link_lists.words(conn, self.links.database.tables, workspace_id)
        chosen = {
            **told,
            "sort": "" if sort == MOST_CLICKS else sort,
            "archived": archived,
            "partner": str(partner.id) if partner else "",
        }
        return rendering.page(
            request,
            "links.html",
            {
                "asked": asked,
                "rows": [
                    (link, self._short(request, link), link_words.states(link, asked.now), totals[link.id])
                    for link in found.items
                ],
                "next_cursor": found.next_cursor,
                "after": after,
                "chosen": chosen,
                "partner": partner,
                "is_narrowed": bool(partner or archived or any(told.values())),
                "known": known,
                "SORTS": {"" if order == MOST_CLICKS else order: name for order, name in SORTS.items()},
            },
        )

    async def link(self, request: Request) -> Response:
        """Everything about one link."""
        asked, link = self._asked(request), await self._link(request)
        typed = asking.first_of(request.query_params.multi_items())
        workspace_id = link.workspace_id
        stats = await self.links.stats(
            link,
            period=asked.period,
            interval=asked.interval,
            timezone=asked.timezone,
            workspace_id=workspace_id,
        )
        before = await self.links.totals([link], period=asked.before, workspace_id=workspace_id)
        clicks = await self.links.clicks(
            link, limit=CLICKS_ON_PAGE, cursor=typed.get("after") or None,
            include_bots=typed.get("bots") == "yes", workspace_id=workspace_id,
        )  # fmt: skip
        history = await self.links.history(
            link, limit=CHANGES_ON_PAGE, cursor=typed.get("changes") or None, workspace_id=workspace_id
        )
        split = await self.links.experiment(link, workspace_id=workspace_id) if link.variants else None
        uses = None
        if link.max_clicks is not None:
            async with self.links.database.connect() as conn:
                uses = await link_lists.uses(conn, self.links.database.tables, workspace_id, link.id)
        partner = link.partner_id and await self._partners.get(link.partner_id, workspace_id=workspace_id)
        short_url = self._short(request, link)
        return rendering.page(
            request,
            "link.html",
            {
                "asked": asked,
                "link": link,
                "partner": partner,
                "short_url": short_url,
                "states": link_words.states(link, asked.now, uses),
                "tiles": figures.tiles(stats, before[link.id]),
                "stats": stats,
                "graph": figures.graph(asked, stats),
                "panels": figures.panels(stats),
                "split": split,
                "sides": link_words.sides(split) if split else [],
                "headline": link_words.headline(split) if split else "",
                "rules": [(one, link_words.rule(one, asked.local)) for one in link.rules],
                "clicks": clicks,
                "history": [(one, link_words.changes(one, asked.local)) for one in history.items],
                "history_cursor": history.next_cursor,
                "shares": self._shares(link, short_url),
                "LABELS": link_words.LABELS,
            },
        )

    async def code(self, request: Request) -> Response:
        """The QR code of a link, to be looked at or saved; parameters as `web.qr` reads them."""
        link = await self._link(request)
        kind, style = codes.asked(
            f"format={request.path_params['kind']}&{request.url.query}".encode(), qr.Style()
        )
        content = f"{self._short(request, link)}?qr=1"
        return rendering.picture(await asyncio.to_thread(qr.draw, content, kind, style), kind)

    async def preview(self, request: Request) -> Response:
        """The QR code of a link that is not made yet."""
        typed = asking.first_of(request.query_params.multi_items())
        domain, key = checked_domain(typed.get("domain", "")), checked_key(typed.get("key", ""))
        content = f"{self._address(request, domain, key)}?qr=1"
        return rendering.picture(await asyncio.to_thread(qr.draw, content, "svg", qr.Style()), "svg")

    # Changing --------------------------------------------------------------------------------------------------------

    async def new(self, request: Request) -> Response:
        """The form of a link that is not made yet."""
        number = self.links.config.new_id().int & ((1 << 62) - 1)
        domain = next(iter(self.links.config.link_domains), request.headers.get("host", ""))
        partner_id = asking.first_of(request.query_params.multi_items()).get("partner", "")
        key = random_key(number, case_sensitive=False)
        return await self._form(request, Form(link_form.blank(domain=domain, key=key, partner_id=partner_id)))

    async def create(self, request: Request) -> Response:
        """Make a link."""
        asked, values = self._asked(request), await self._typed(request)
        read = link_form.read(values, asked.zone, self.links.config.link_app_schemes)
        form = Form(values, read.errors, _more(values))
        if values.get("do", "save") != "save":
            return await self._form(request, replace(form, errors={}))
        if read.errors:
            return await self._form(request, form, status=400)
        try:
            link = await self.links.create(**read.fields, actor=ACTOR, workspace_id=self._workspace(request))
        except (Conflict, InvalidInput) as error:
            return await self._form(request, replace(form, errors=_refused(error)), status=400)
        return self._to(request, link, asked)

    async def edit(self, request: Request) -> Response:
        """The form of a link as it is."""
        link = await self._link(request, in_use=True)
        values = {**link_form.written(link, self._asked(request).zone), "seen": link.updated_at.isoformat()}
        return await self._form(request, Form(values), link)

    async def save(self, request: Request) -> Response:
        """Change a link."""
        asked, values, link = (
            self._asked(request),
            await self._typed(request),
            await self._link(request, in_use=True),
        )
        before = link_form.written(link, asked.zone)
        read = link_form.read(values, asked.zone, self.links.config.link_app_schemes, before)
        form = Form(values, read.errors, _more(values))
        if values.get("do", "save") != "save":
            return await self._form(request, replace(form, errors={}), link)
        if values.get("seen") != link.updated_at.isoformat():
            form = Form(
                {**values, "seen": link.updated_at.isoformat()}, {**read.errors, "": _CHANGED_MEANWHILE}
            )
            return await self._form(request, form, link, status=409)
        if read.errors:
            return await self._form(request, form, link, status=400)
        try:
            if read.fields:
                link = await self.links.update(
                    link.id, **read.fields, actor=ACTOR, workspace_id=link.workspace_id
                )
        except (Conflict, InvalidInput) as error:
            return await self._form(request, replace(form, errors=_refused(error)), link, status=400)
        return self._to(request, link, asked)

    async def archive(self, request: Request) -> Response:
        """Take a link out of use."""
        asked, link = self._asked(request), await self._link(request, in_use=True)
        await forms.read(request)
        await self.links.archive(link.id, actor=ACTOR, workspace_id=link.workspace_id)
        return self._to(request, link, asked)

    # Parts -----------------------------------------------------------------------------------------------------------

    async def _form(
        self, request: Request, form: Form, link: Link | None = None, status: int = 200
    ) -> Response:
        config = self.links.config
        async with self.links.database.connect() as conn:
            known = await link_lists.words(conn, self.links.database.tables, self._workspace(request))
        domain, key = form.value("domain"), form.value("key").strip()
        try:
            short_url = self._address(request, checked_domain(domain), checked_key(key))
        except InvalidInput:
            short_url = None
        return rendering.page(
            request,
            "link_form.html",
            {
                "asked": self._asked(request),
                "form": form,
                "link": link,
                "short_url": short_url,
                "destination": link_form.destination(form.values, config.link_app_schemes),
                "known": known,
                "partners": await self._offered(request, form.value("partner_id")),
                "domains": sorted({*config.link_domains, *known.domains}),
                "link_domains": config.link_domains,
                "link_path": config.link_path,
                "LABELS": link_words.LABELS,
            },
            status,
        )

    async def _link(self, request: Request, *, in_use: bool = False) -> Link:
        """
        The link in the path.

        Raises:
            NotFound: There is none, or none in use.
        """
        try:
            link_id = UUID(request.path_params["link_id"])
        except ValueError:
            raise NotFound(_UNKNOWN) from None
        found = await self.links.get(link_id, workspace_id=self._workspace(request))
        if found is None:
            raise NotFound(_UNKNOWN)
        if in_use and found.archived_at is not None:
            raise NotFound("This link is archived, and stays as it was.")
        return found

    async def _partner(self, request: Request, partner_id: str) -> Partner:
        """
        The partner with this id.

        Raises:
            NotFound: There is none in this workspace.
        """
        try:
            found = await self._partners.get(partner_id, workspace_id=self._workspace(request))
        except InvalidInput:
            found = None
        if found is None:
            raise NotFound(UNKNOWN_PARTNER)
        return found

    async def _offered(self, request: Request, chosen: str) -> Sequence[tuple[str, str]]:
        """The partners that a link may be given to, by their ids: the newest ones who are not closed, and who is *chosen*."""
        page = await self._partners.list(limit=PARTNERS_OFFERED, workspace_id=self._workspace(request))
        names = {
            str(one.id): one.name for one in page.items if one.status != "closed" or str(one.id) == chosen
        }
        if chosen and chosen not in names:
            try:
                names[chosen] = (await self._partner(request, chosen)).name
            except NotFound:
                names[chosen] = chosen  # as it was typed; why it cannot be used stands beside it
        return [("", "nobody"), *sorted(names.items(), key=lambda one: one[1].casefold())]

    async def _typed(self, request: Request) -> dict[str, str]:
        return form_of(await forms.read(request, MAX_FORM))

    def _asked(self, request: Request) -> Asked:
        return asked_of(request, self.links.config)

    def _workspace(self, request: Request) -> UUID:
        return workspace_of(request, self.links.config)

    def _short(self, request: Request, link: Link) -> str:
        return codes.short_url(self.links.config, link, is_secure=request.url.scheme == "https")

    def _address(self, request: Request, domain: str, key: str) -> str:
        now = self.links.config.clock()
        nobody = UUID(int=0)
        made = Link(
            workspace_id=nobody, id=nobody, domain=domain, key=key, url="", created_at=now, updated_at=now
        )
        return self._short(request, made)

    def _shares(self, link: Link, short_url: str) -> dict[str, str]:
        told = self.links.share_urls(link, scheme=short_url.partition(":")[0])
        return {label: told[name] for name, label in link_words.NETWORKS.items()}

    def _to(self, request: Request, link: Link, asked: Asked) -> Response:
        root = request.scope.get("root_path", "")
        return Response(
            status_code=303, headers={"Location": f"{root}/links/{link.id}{asked.href(saved='yes')}"}
        )


def asked_of(request: Request, config: Config) -> Asked:
    """What a page about links is asked for (rule 5)."""
    return replace(asking.read(request.query_params.multi_items(), config.clock()), filters=())


def workspace_of(request: Request, config: Config) -> UUID:
    """The workspace that is looked at."""
    return config.workspace_of(request.headers.get("host", ""))


def form_of(typed: Mapping[str, str]) -> dict[str, str]:
    """What was *typed*, with the ends of lines that everybody but a browser writes."""
    return {name: value.replace("\r\n", "\n") for name, value in typed.items()}


def _order(typed: str) -> Sort:
    for known in SORTS:
        if typed == known:
            return known
    raise InvalidInput(f"{typed!r:.80} is no order. Use one of: {', '.join(SORTS)}", where="sort")


UNKNOWN_PARTNER: Final = "There is no such partner in this workspace."
_UNKNOWN: Final = "There is no such link in this workspace."
_CHANGED_MEANWHILE: Final = (
    "Somebody changed this link while you wrote. Below stands what you typed; saving again puts it in place of theirs. The "
    "link’s page tells what they changed."
)


def _more(values: Mapping[str, str]) -> dict[str, int]:
    """The empty rows that a button asked for."""
    return {values["do"]: 1} if values.get("do") in ("rules", "variants") else {}


def _refused(error: Conflict | InvalidInput) -> dict[str, str]:
    """The field that *error* is about, and what is wrong there."""
    match error:
        case InvalidInput():
            return {link_form.place(error.where): link_form.in_plain(error)}
        case NameTaken():
            return {"external_id": f"{error}."}
        case _:
            return {"key": f"{error}."}


__all__ = ["UNKNOWN_PARTNER", "LinkPages", "Respond", "asked_of", "form_of", "workspace_of"]
