"""
Short links: `GET {link_path}/{key}` on the app's own host, and every path of `config.link_domains`.

    GET /{key} → PlainClicks.read → log.append(raw click) → 302, and whatever is out of the ordinary
               → Catalogue.at_hand → Route.decide → log.append(click) → hooks within 50 ms → 302

Rules of this file
1. The destination is decided before anything is written. A click that cannot be made safe is reported and the visitor goes on
   all the same: a visitor who is sent away costs more than a click. Only a link with `max_clicks` needs the database for it.
2. Of such a link, prefetches, HEAD requests and bots take no use, so they are not told where it leads either: else whoever
   calls himself a bot would have it for nothing.
3. Nothing is redirected from a form but by 303, or the browser would send the password on to the destination (307, 308).
4. Links with status 307 or 308 take any method that carries something on; all others answer GET and HEAD.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http.cookies import CookieError
from typing import Final, assert_never
from uuid import UUID

from starlette.types import ASGIApp, Receive, Scope, Send

from goodanalytics.config import Config
from goodanalytics.core.destinations import ascii_form
from goodanalytics.core.hits import Hit, id_for_key
from goodanalytics.core.links import KEY, Domain, Link
from goodanalytics.core.routing import (
    AskPassword,
    Cloak,
    Decision,
    Ended,
    Go,
    Inspect,
    NoSuchPath,
    NotYet,
    Preview,
    Route,
)
from goodanalytics.errors import GoodAnalyticsError, NotFound
from goodanalytics.facade.partners import Partners
from goodanalytics.geo import GeoReader
from goodanalytics.hooks import Hooks
from goodanalytics.log import HitLog
from goodanalytics.store.database import Database
from goodanalytics.store.listening import Listener, links_channel
from goodanalytics.web import path_below
from goodanalytics.web.cookies import cookie, cookies_for
from goodanalytics.web.limits import Gate
from goodanalytics.web.links import app_links
from goodanalytics.web.links import clicks as link_clicks
from goodanalytics.web.links import pages as link_pages
from goodanalytics.web.links.answers import ACCEPTED, NOINDEX, UNSAFE, Answer, plain, redirect
from goodanalytics.web.links.catalogue import Catalogue, Known
from goodanalytics.web.links.clicks import (
    click,
    client_of,
    reason_not_to_count,
    referral_cookie,
    refusal_of,
)
from goodanalytics.web.links.passwords import Passwords, Tried
from goodanalytics.web.links.plain_clicks import PlainClicks
from goodanalytics.web.links.questions import CannotSay, Questions, Request, facts_of
from goodanalytics.web.reading import Visit, visit_of

REDIRECTS: Final = (301, 302, 307, 308)
CARRYING: Final = (307, 308)
CARRIED_ON: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Gone(GoodAnalyticsError):
    """This link has expired."""

    status_hint = 410


class Redirect:
    """
    An ASGI app, mounted at `link_path`, and answering every path of a link domain.

    Attributes:
        catalogue: The links in memory.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        log: HitLog,
        hooks: Hooks,
        geo: GeoReader | None = None,
        is_down: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config = config
        self._log = log
        self._hooks = hooks
        self._questions = Questions(config, database, geo, is_down)
        self.catalogue = Catalogue(config, database, is_down, lambda: self._listener.is_listening)
        self._listener = Listener(
            database, links_channel(config.schema), self.catalogue.heard, config.new_token, config.report
        )
        self._gate = Gate(config, "redirects")
        self._plain = PlainClicks(config, self._gate, hooks.is_waited_for)
        self._passwords = Passwords(config)
        self._orphans = link_clicks.Orphans()
        self._partners = Partners(config, database)
        self._may_listen = False

    def start(self) -> None:
        """Hear of changes from the first link on that is asked for. Without it, links are looked up again each second."""
        self._may_listen = True

    async def stop(self) -> None:
        """Hang up."""
        self._may_listen = False
        await self._listener.stop()
        await self.catalogue.stop()
        await self._questions.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        asker = self._plain.read(scope)
        if asker is None:
            await self._at_length(scope, receive, send)
            return
        known = self.catalogue.at_hand(asker.host, asker.key, asker.now)
        if known is None and KEY.fullmatch(asker.key):
            try:
                known = await self._find(self._config.workspace_of(asker.host), asker.host, asker.key)
            except GoodAnalyticsError as error:
                await self._failure(error)(scope, receive, send)
                return
        link = None if known is None else known.plain
        click = None if link is None else self._plain.click(asker, link)
        if link is None or click is None:
            await self._at_length(scope, receive, send, is_counted=True)
            return
        raw, headers = click
        try:
            await self._log.append((raw,))
        except Exception as error:  # noqa: BLE001  # the visitor goes on, whatever became of the click
            self._config.report(error, f"recording a click on {link.name}")
            headers[headers.index(ACCEPTED)] = UNSAFE
        await send({"type": "http.response.start", "status": link.status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _at_length(
        self, scope: Scope, receive: Receive, send: Send, *, is_counted: bool = False
    ) -> None:
        """Answer a request that is out of the ordinary, or that asks for what is."""
        try:
            answer = await self._respond(scope, receive, is_counted=is_counted)
        except GoodAnalyticsError as error:
            answer = self._failure(error)
        await answer(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, *, is_counted: bool) -> ASGIApp:
        visit = visit_of(scope, self._config)
        if not is_counted and (refusal := await self._gate.refuse(visit)) is not None:
            return refusal
        now = self._config.clock()
        path = path_below(scope)
        query: bytes = scope.get("query_string", b"")
        asked = Request(
            scope,
            receive,
            visit,
            scope["method"],
            now,
            self._config.new_id(),
            query.decode(errors="replace") if query else "",
        )
        known = self.catalogue.at_hand(visit.host, path[1:], now)
        if known is None or known.route is None:
            return await self._search(asked, path)
        return await self._lead(asked, known, known.route)

    async def _search(self, asked: Request, path: str) -> Answer:
        """Answer what is not simply the key of a link that is in memory."""
        name, slash, rest = path[1:].partition("/")
        host = asked.visit.host
        is_domain = self._is_link_domain(host)
        is_file = is_domain and path[1:] in app_links.PATHS
        asked.asks_where = name.endswith("+") and not slash
        asked.rest = slash + rest
        key = name[:-1] if asked.asks_where else name
        if is_file or not KEY.fullmatch(key):
            key = ""  # asks for the domain alone
        known = await self._find(asked.visit.workspace_id, host, key)
        if known.route is not None:
            return await self._lead(asked, known, known.route)
        if asked.method not in ("GET", "HEAD"):
            return _not_allowed(None)
        if is_file:
            return app_links.respond(path[1:], known.domain)
        if is_domain and path in ("", "/") and known.domain.root_url is not None:
            return redirect(ascii_form(known.domain.root_url), 302)
        return await self._miss(asked, known.domain)

    async def _find(self, workspace_id: UUID, host: str, key: str) -> Known:
        if self._may_listen:
            self._listener.start()  # an app without short links needs no connection for them
        return await self.catalogue.find(workspace_id, host, key)

    async def _lead(self, asked: Request, known: Known, route: Route) -> Answer:
        """Answer a request for a link that there is."""
        link = route.link
        is_form = False
        if asked.method not in ("GET", "HEAD"):
            is_form = link.password_hash is not None and asked.method == "POST"
            if not is_form and not (asked.method in CARRIED_ON and link.redirect_status in CARRYING):
                return _not_allowed(link)
        elif link.password_hash is not None:
            asked.is_open = self._passwords.is_known(asked.visit, link, asked.now)
        facts = await self._questions.facts(asked, route) if route.needs else facts_of(asked)
        decision = route.decide(facts, asked.now)
        if isinstance(decision, Go):
            return await self._go(asked, known, route, decision)
        if not is_form or not isinstance(decision, AskPassword):
            return await self._decided(asked, known, route, decision)
        tried = await self._passwords.try_(asked.visit, link, asked.receive)
        if tried is not Tried.OPEN:
            return _not_opened(link, self._config, tried)
        asked.is_open = True
        decision = route.decide(await self._questions.facts(asked, route), asked.now)
        answer = await self._decided(asked, known, route, decision)
        answer.add("set-cookie", self._passwords.cookie(asked.visit, link, asked.now))
        if answer.status in REDIRECTS:
            answer.status = 303  # rule 3
        return answer

    async def _decided(self, asked: Request, known: Known, route: Route, decision: Decision) -> Answer:
        link = route.link
        match decision:
            case Go() | Cloak():
                return await self._go(asked, known, route, decision)
            case AskPassword():
                return link_pages.password(link, self._config)
            case Inspect():
                return link_pages.inspection(link, asked.short_url, decision.url)
            case Preview():
                answer = link_pages.card(link, asked.short_url, decision.url)
                await self._note(asked, link, answer, asked.visit.client.bot)
                return answer
            case Ended(url=url):
                return plain(410, "This link has expired") if url is None else redirect(url, 302)
            case NotYet():
                return plain(404, "This link is not in use yet")
            case NoSuchPath():
                return await self._miss(asked, known.domain)
            case _:
                assert_never(decision)

    async def _go(self, asked: Request, known: Known, route: Route, decision: Go | Cloak) -> Answer:
        link, visit = route.link, asked.visit
        reason = reason_not_to_count(visit, asked.method)
        if link.max_clicks is not None:
            if reason is not None:
                answer = _for_people_only(reason)
                await self._note(asked, link, answer, reason)
                return answer
            if not await self._questions.take_use(asked, known, link):
                return await self._decided(asked, known, route, route.ended)
        if isinstance(decision, Go):
            answer = redirect(decision.url, decision.status, is_indexed=link.indexed)
        elif link_pages.may_be_framed(decision.url, self._config):
            answer = link_pages.frame(link, decision.url)
        else:
            answer = redirect(decision.url, link.redirect_status, is_indexed=link.indexed)
        hit = await self._note(asked, link, answer, reason, decision.rule, decision.variant)
        if hit is None or visit.refusal is not None or asked.method == "HEAD":
            return answer
        for value in cookies_for(visit):
            answer.add("set-cookie", value)
        if link.partner_id is not None and reason is None:
            value = referral_cookie(visit, link, link.partner_id, hit.id, asked.now)
            answer.add("set-cookie", value)
        if self._hooks.is_waited_for("link_click"):
            await self._tell(visit, hit, answer)
        return answer

    async def _note(
        self,
        asked: Request,
        link: Link,
        answer: Answer,
        reason: str | None,
        rule: str | None = None,
        variant: str | None = None,
    ) -> Hit | None:
        """Record a click, if it may be recorded; *reason* says why it does not count."""
        visit = asked.visit
        if (refusal := refusal_of(visit)) is not None:
            answer.add("x-goodanalytics", f"dropped; reason={refusal}")
            return None
        client = client_of(visit, reason)
        referrer = visit.headers.get("referer")
        hit = click(
            visit, link, asked.click_id, asked.now, asked.query,
            client=client, referrer=referrer, rule=rule, variant=variant, own_hosts=self._config.own_hosts,
        )  # fmt: skip
        try:
            await self._log.append([hit])
        except Exception as error:  # noqa: BLE001  # the visitor goes on, whatever became of the click
            self._config.report(error, f"recording a click on {link.domain}/{link.key}")
            answer.headers.append(UNSAFE)
        else:
            if reason is None:
                answer.headers.append(ACCEPTED)
            else:
                answer.add(
                    "x-goodanalytics", visit.accepted if client is visit.client else f"accepted; bot={reason}"
                )
        return hit

    async def _tell(self, visit: Visit, hit: Hit, answer: Answer) -> None:
        """Let the host's hooks set cookies."""
        for told in await self._hooks.gather(hit):
            if not isinstance(told, Mapping):
                continue
            for name, value in told.items():
                try:
                    answer.add("set-cookie", cookie(visit, str(name), str(value), http_only=True))
                except (CookieError, UnicodeError) as error:
                    self._config.report(error, f"setting the cookie {name!r} of a link_click hook")

    async def _miss(self, asked: Request, domain: Domain) -> Answer:
        """Answer a request for what no link is called."""
        visit = asked.visit
        if asked.method == "GET" and visit.refusal is None:
            name, path = path_below(asked.scope)[1:], asked.scope["path"]
            whole = f"{path}?{asked.query}" if asked.query else path
            hit = self._orphans.hit(visit, name, whole, asked.click_id, asked.now)
            if hit is not None:
                try:
                    await self._log.append([hit])
                except Exception as error:  # noqa: BLE001  # as for a click
                    self._config.report(error, "recording an unknown key")
        if domain.not_found_url is not None:
            return redirect(ascii_form(domain.not_found_url), 302)
        return plain(404, "There is no such link")

    def _failure(self, error: GoodAnalyticsError) -> Answer:
        if error.status_hint < 500:
            return plain(error.status_hint, str(error))
        self._config.report(error, "leading on from a short link")
        words = str(error) if isinstance(error, CannotSay) else "Try again"
        return plain(error.status_hint, words, {"Retry-After": "5"})

    def _is_link_domain(self, host: str) -> bool:
        return not {host, host.partition(":")[0]}.isdisjoint(self._config.link_domains)

    # From pages ------------------------------------------------------------------------------------------------------

    async def click(
        self, visit: Visit, key: str, url: str | None, referrer: str | None, event_id: UUID | None = None
    ) -> Hit:
        """
        Record a click that the tracker reports for a page that was reached with a link's key or a partner's code (`?via=`).

        Args:
            event_id: Of the page's own making: a report that is sent again is the same click.

        Raises:
            NotFound: The visit's host has no such link, and no partner has such a code.
            Gone: Its time is over.
        """
        now = self._config.clock()
        known = await self.catalogue.find(visit.workspace_id, visit.host, key if KEY.fullmatch(key) else "")
        link = known.link
        is_partner = link is None and await self._is_partner(visit.workspace_id, key)
        if not is_partner and (link is None or (link.starts_at is not None and now < link.starts_at)):
            raise NotFound("There is no such link")
        if link is not None and link.is_expired(now):
            raise Gone
        click_id = (
            self._config.new_id()
            if event_id is None
            else id_for_key(visit.workspace_id, "browser click", str(event_id))
        )
        if link is None:
            hit = link_clicks.by_code(visit, key, click_id, now, url=url, referrer=referrer)
        else:
            query = (url or "").partition("?")[2]
            hit = click(
                visit, link, click_id, now, query, referrer=referrer, own_hosts=self._config.own_hosts
            )
        await self._log.append([hit])
        return hit

    async def _is_partner(self, workspace_id: UUID, code: str) -> bool:
        found = await self._partners.by_code(code, workspace_id=workspace_id)
        return found is not None and found.status != "closed"


def _not_allowed(link: Link | None) -> Answer:
    methods = ["GET", "HEAD"]
    if link is not None and link.redirect_status in CARRYING:
        methods += sorted(CARRIED_ON)
    elif link is not None and link.password_hash is not None:
        methods.append("POST")
    return plain(405, f"Use {methods[0]} here", {"Allow": ", ".join(methods)})


def _for_people_only(reason: str) -> Answer:
    """What is not led on by a link with a limited number of uses."""
    if reason == link_clicks.PREFETCH:
        # Not to be kept for the visit that may follow (Speculation Rules: answers other than 2xx are thrown away).
        return plain(503, "Ask again when somebody comes")
    answer = plain(200, "This link can be used a limited number of times, and leads on people only")
    answer.headers.append(NOINDEX)
    return answer


def _not_opened(link: Link, config: Config, tried: Tried | int) -> Answer:
    if isinstance(tried, int):
        words = f"These were too many tries. Wait {tried} seconds, then try again."
        answer = link_pages.password(link, config, wrong=words, status=429)
        answer.add("retry-after", str(tried))
        return answer
    return link_pages.password(link, config, wrong="That is not the password. Try again.", status=403)
