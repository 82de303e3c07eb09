"""
Short links: `GET {link_path}/{key}` on the app's own host, and every path of `config.link_domains`.

    GET /{key} → Catalogue.find → core.links.destination → log.append(click) → hooks within 50 ms → 302

The destination is decided before anything is written. A click that cannot be made safe is reported and the visitor goes on
all the same: a visitor who is sent away costs more than a click.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.cookies import CookieError
from uuid import UUID

import msgspec
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from goodanalytics.config import Config
from goodanalytics.core import sources
from goodanalytics.core.hits import MAX_URL, EventType, Hit, id_for_key, text
from goodanalytics.core.links import KEY, Link, destination
from goodanalytics.core.sources import Source
from goodanalytics.errors import DatabaseUnavailable, GoodAnalyticsError, NotFound
from goodanalytics.hooks import Hooks
from goodanalytics.log import HitLog
from goodanalytics.store import catalog
from goodanalytics.store.database import Database, is_lost
from goodanalytics.web import path_below
from goodanalytics.web.limits import Gate
from goodanalytics.web.middleware import cookie, cookies_for
from goodanalytics.web.reading import Visit, visit_of

FRESH = timedelta(seconds=1)
"""How long a link is taken from memory. A change takes effect everywhere within this time."""

MAX_CACHED = 10_000  # links

LOOK_UP_SECONDS = 2
"""How long the database may take to find a link."""


class Gone(GoodAnalyticsError):
    """This link has expired."""

    status_hint = 410


@dataclass(slots=True)
class Catalogue:
    """
    The links by address, from memory while fresh.

    When the database does not answer, an old copy is better than no redirect; while *is_down* says so, nobody is asked
    about a link that is in memory.
    """

    config: Config
    database: Database
    is_down: Callable[[], bool] = lambda: False
    _cached: dict[tuple[UUID, str, str], tuple[datetime, Link | None]] = field(default_factory=dict)

    async def find(self, workspace_id: UUID, host: str, key: str) -> Link:
        """
        The link that is in use at *host*/*key*; a host with a port also answers for links without one.

        Raises:
            NotFound: There is none.
            Gone: Its time is over.
            DatabaseUnavailable: Nobody answers, and it is not in memory.
        """
        now = self.config.clock()
        for domain in dict.fromkeys((host, host.partition(":")[0])):
            link = await self._look_up(workspace_id, domain, key, now)
            if link is not None:
                if link.is_expired(now):
                    raise Gone
                return link
        raise NotFound("There is no such link")

    async def _look_up(self, workspace_id: UUID, domain: str, key: str, now: datetime) -> Link | None:
        address = (workspace_id, domain, key)
        cached = self._cached.get(address)
        if cached is not None and (now - cached[0] < FRESH or self.is_down()):
            return cached[1]
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS), self.database.connect() as conn:
                link = await catalog.find_by_address(conn, self.database.tables, workspace_id, domain, key)
        except Exception as error:
            if not is_lost(error):
                raise
            if cached is None:
                raise DatabaseUnavailable from error
            return cached[1]
        if len(self._cached) >= MAX_CACHED:
            self._cached.clear()
        self._cached[address] = (now, link)
        return link


class Redirect:
    """An ASGI app, mounted at `link_path`, and answering every path of a link domain."""

    def __init__(
        self,
        config: Config,
        database: Database,
        log: HitLog,
        hooks: Hooks,
        is_down: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config = config
        self._catalogue = Catalogue(config, database, is_down)
        self._log = log
        self._hooks = hooks
        self._gate = Gate(config, "redirects")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            response = await self._respond(scope)
            await response(scope, receive, send)

    async def _respond(self, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("Use GET here\n", 405, {"Allow": "GET, HEAD"})
        key = path_below(scope).removeprefix("/")
        if not KEY.fullmatch(key):
            return PlainTextResponse("There is no such link\n", 404)
        visit = visit_of(scope, self._config)
        if (refusal := await self._gate.refuse(visit)) is not None:
            return refusal
        try:
            link = await self._catalogue.find(visit.workspace_id, visit.host, key)
        except GoodAnalyticsError as error:
            if error.status_hint >= 500:
                self._config.report(error, "looking up a link")
            return PlainTextResponse(
                f"{error}\n" if error.status_hint < 500 else "Try again\n", error.status_hint
            )
        return await self._go(scope, visit, link)

    async def _go(self, scope: Scope, visit: Visit, link: Link) -> Response:
        query = scope.get("query_string", b"").decode(errors="replace")
        click_id = self._config.new_id()
        response = RedirectResponse("", 302)
        response.headers["Location"] = destination(link, query, click_id)
        response.headers["Cache-Control"] = "private, no-store"
        response.headers["X-Robots-Tag"] = "noindex"
        if (reason := visit.refusal or ("HEAD request" if scope["method"] == "HEAD" else None)) is not None:
            response.headers["X-GoodAnalytics"] = f"dropped; reason={reason}"
            return response
        hit = self._hit(visit, link, click_id, f"?{query}", visit.headers.get("referer"))
        try:
            await self._log.append([hit])
            response.headers["X-GoodAnalytics"] = visit.accepted
        except Exception as error:  # noqa: BLE001  # the visitor goes on, whatever became of the click
            self._config.report(error, f"recording a click on {link.domain}/{link.key}")
        for value in cookies_for(visit):
            response.headers.append("set-cookie", value)
        for answer in await self._hooks.gather(hit):
            if isinstance(answer, Mapping):
                for name, value in answer.items():
                    try:
                        written = cookie(visit, str(name), str(value), http_only=True)
                    except CookieError as error:
                        self._config.report(error, f"setting the cookie {name!r} of a link_click hook")
                    else:
                        response.headers.append("set-cookie", written)
        return response

    async def click(
        self, visit: Visit, key: str, url: str | None, referrer: str | None, event_id: UUID | None = None
    ) -> Hit:
        """
        Record a click that the tracker reports for a page that was reached with a link's key (`?via=`).

        Args:
            event_id: Of the page's own making: a report that is sent again is the same click.

        Raises:
            NotFound: The visit's host has no such link.
            Gone: Its time is over.
        """
        if not KEY.fullmatch(key):
            raise NotFound("There is no such link")
        link = await self._catalogue.find(visit.workspace_id, visit.host, key)
        click_id = (
            self._config.new_id()
            if event_id is None
            else id_for_key(visit.workspace_id, "browser click", str(event_id))
        )
        hit = self._hit(visit, link, click_id, url or "", referrer)
        await self._log.append([hit])
        return hit

    def _hit(self, visit: Visit, link: Link, click_id: UUID, url: str, referrer: str | None) -> Hit:
        now = self._config.clock()
        return Hit(
            id=click_id,
            workspace_id=link.workspace_id,
            received_at=now,
            occurred_at=now,
            event_type=EventType.LINK_CLICK,
            origin="link",
            url=text(link.url, MAX_URL),
            referrer=text(referrer, MAX_URL),
            signals=msgspec.structs.replace(visit.signals, click_id=click_id),
            client=visit.client,
            link_id=link.id,
            source=source_of(link, url, referrer, self._config.own_hosts).to_json(),
        )


def source_of(link: Link, url: str, referrer: str | None, own_hosts: Sequence[str]) -> Source:
    """
    Where a click on *link* came from.

    The link's UTM parameters, overruled by the request's own and by its ad click ids; else the referrer; and if nothing
    says more, the link itself.
    """
    utm = "&".join(f"{name}={value}" for name, value in link.utm)
    query = url.partition("?")[2]
    named = {part.partition("=")[0] for part in query.split("&")}
    own = "&".join(part for part in utm.split("&") if part and part.partition("=")[0] not in named)
    found = sources.classify(f"https://{link.domain}/?{query}&{own}", referrer, own_hosts)
    return (
        Source(platform=link.domain, medium="link", confidence="medium", content=link.key)
        if found.is_direct
        else found
    )
