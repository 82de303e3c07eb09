"""
The tracker's endpoints: `POST /event`, `POST /click`, `POST /deny`, `POST /reset`, `GET /pixel.gif`, and the script itself.

    POST /event → reading.visit_of → core.beacons.read_beacon → tokens → log.append → 202

The beacon is hostile input. Its workspace, address, user agent and time are what the server saw. 202 means that the log has
it; bad data is a 400 that says what and where, never a 5xx; when the log cannot take it, 503 with Retry-After, and the
script tries again with the same event_id. `X-GoodAnalytics` tells whoever debugs what became of the beacon.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cache
from importlib.resources import files
from typing import Any, Protocol
from urllib.parse import unquote
from uuid import UUID

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from goodanalytics.config import Config
from goodanalytics.core import repetition, tokens, urls
from goodanalytics.core.beacons import Claim, Edge, Refused, own_id, read_beacon, refusals_text
from goodanalytics.core.bounds import MAX_ID, MAX_TEXT, MAX_URL, text, unreadable, uuid_or_none
from goodanalytics.core.consent import DENIED
from goodanalytics.core.hits import Client, EventType, Hit, Signals, id_for_key
from goodanalytics.core.identity import stands_for_nobody
from goodanalytics.errors import Busy, DatabaseUnavailable, GoodAnalyticsError
from goodanalytics.ingest import is_excluded
from goodanalytics.log import HitLog
from goodanalytics.web import own_visits, path_below
from goodanalytics.web.beacons import Beacons, body_of
from goodanalytics.web.cookies import cookies_for
from goodanalytics.web.limits import Gate
from goodanalytics.web.reading import Visit, visit_of

PIXEL = bytes.fromhex(
    "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
)
"""A transparent GIF of one pixel: 43 bytes, the smallest image that every browser takes."""

SCRIPT = "good-analytics.js"
SCRIPT_V1 = "good-analytics.v1.js"
"""The same under a name that will never change its meaning, for pages that cannot be deployed again."""

SCRIPT_PATHS = frozenset(f"{folder}/{name}" for folder in ("", "/js") for name in (SCRIPT, SCRIPT_V1))

EVENT = "/t/event"
DURABILITIES = ("log", "fire")
"""What a beacon's query may say of `durability`: answered when it is safe, or at once."""

SCRIPT_MAX_AGE = timedelta(hours=1)


class Clicks(Protocol):
    """Whatever turns a link's key into a click; see `web.links`."""

    async def click(
        self, visit: Visit, key: str, url: str | None, referrer: str | None, event_id: UUID | None = None
    ) -> Hit:
        """Record a click on the link that the visit's host calls *key*; the same *event_id* is the same click."""


Endpoint = Callable[[Visit, Scope, Receive], Awaitable[Response]]


class Tracker:
    """An ASGI app, mounted at `{mount}/t` and `{mount}/js`."""

    def __init__(self, config: Config, log: HitLog, clicks: Clicks) -> None:
        self._config = config
        self._log = log
        self._clicks = clicks
        self._endpoints: dict[str, tuple[str, Endpoint]] = {
            EVENT: ("POST", self._event),
            "/t/click": ("POST", self._click),
            "/t/deny": ("POST", self._deny),
            "/t/reset": ("POST", self._reset),
            "/t/pixel.gif": ("GET", self._pixel),
        }
        self._gate = Gate(config, "beacons")
        self.event: ASGIApp = Beacons(config, log, self._gate, self)
        """The app for `{mount}/t/event` alone: plain beacons take its shorter way."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if (path := path_below(scope)) == EVENT:
            await self.event(scope, receive, send)
            return
        response = await self._respond(path, scope, receive)
        await response(scope, receive, send)

    async def at_length(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for `EVENT` that is not a plain beacon."""
        response = await self._respond(EVENT, scope, receive)
        await response(scope, receive, send)

    async def _respond(self, path: str, scope: Scope, receive: Receive) -> Response:
        method = scope["method"]
        if path in SCRIPT_PATHS:
            return _script(Headers(scope=scope)) if method in ("GET", "HEAD") else _not_allowed("GET, HEAD")
        if path == "/t/ignore":
            return own_visits.respond(visit_of(scope, self._config), scope)
        found = self._endpoints.get(path)
        if found is None:
            known = ", ".join(self._endpoints)
            return _problem(404, f"There is nothing here. The tracker's paths are {known}")
        allowed, endpoint = found
        visit = visit_of(scope, self._config)
        if method == "OPTIONS":
            return self._with_cors(visit, Response(status_code=204, headers={"Allow": f"{allowed}, OPTIONS"}))
        if method != allowed:
            return _not_allowed(f"{allowed}, OPTIONS")
        if (refusal := await self._gate.refuse(visit)) is not None:
            return self._with_cors(visit, refusal)
        try:
            response = await endpoint(visit, scope, receive)
        except Exception as error:  # noqa: BLE001  # a beacon must never break a page; the host hears of it
            response = self.not_safe(error)
        return self._with_cors(visit, response)

    def not_safe(self, error: Exception) -> Response:
        """The answer to a hit that *error* kept from the log."""
        if isinstance(error, Busy | DatabaseUnavailable):
            wait = error.retry_after if isinstance(error, Busy) else 5
            response = _problem(503, "The hit could not be made safe. Send it again, with the same event_id")
        elif isinstance(error, GoodAnalyticsError):
            return _problem(error.status_hint, str(error))
        else:
            wait = 30
            response = _problem(503, "The hit could not be taken. Send it again, with the same event_id")
        self._config.report(error, "taking a hit")
        response.headers["Retry-After"] = str(wait)
        return response

    async def _event(self, visit: Visit, scope: Scope, receive: Receive) -> Response:
        body = await body_of(receive)
        durability = _asked(scope).get("durability", "log")
        if durability not in DURABILITIES:
            return _problem(400, f"durability is {durability!r}; write one of {', '.join(DURABILITIES)}")
        if visit.refusal is not None:
            return _dropped(visit.refusal)
        claims, refusals = read_beacon(body, self._edge(visit), self._config.new_id)
        await self._gate.charge(visit, len(claims) + len(refusals) - 1)
        hits: list[Hit] = []
        for claim in claims:
            believed = self._believed(_with_own_browser(claim, visit))
            if isinstance(believed, str):
                refusals.append(Refused(claim.index, "token", believed))
            else:
                hits.append(believed)
        refusals.sort(key=lambda refused: refused.index)
        if refusals and not hits:
            return _problem(400, refusals_text(refusals), refusals)
        if not (hits := [hit for hit in hits if not self._is_of_excluded_page(hit, scope)]):
            return _dropped("excluded")
        if is_fired := durability == "fire":
            self._log.fire(hits)
        else:
            await self._log.append(hits)
        return self._accepted(visit, hits, refusals, "; durability=fire" if is_fired else "")

    def _accepted(self, visit: Visit, hits: Sequence[Hit], refusals: Sequence[Refused], how: str) -> Response:
        response = Response(status_code=202)
        if refusals:
            response = _json(202, {"accepted": len(hits), "refused": [_shown(r) for r in refusals]})
        refused = f"; refused={len(refusals)}" if refusals else ""
        response.headers["X-GoodAnalytics"] = f"{visit.accepted}{how}{refused}"
        response.headers["Cache-Control"] = "no-store"
        if visit.is_new and any(hit.signals.anonymous_id == visit.anonymous_id for hit in hits):
            for value in cookies_for(visit):
                response.headers.append("set-cookie", value)
        return response

    def _edge(self, visit: Visit) -> Edge:
        return Edge(
            workspace_id=visit.workspace_id,
            now=self._config.clock(),
            client=visit.client,
            anonymous_id=None if visit.is_new else visit.anonymous_id,
            click_id=visit.click_id,
            cookies=visit.cookies,
            new_anonymous_id=visit.anonymous_id,
            consent=visit.consent,
        )

    def _is_of_excluded_page(self, hit: Hit, scope: Scope) -> bool:
        """Whether the page that sent *hit* is one that the host excludes, as `exclude` would see its request."""
        if not self._config.exclude:
            return False
        try:
            path = unquote(urls.parts(hit.url).path)
            return hit.url is not None and is_excluded(self._config, {**scope, "path": path})
        except Exception as error:  # noqa: BLE001  # a host's rule may raise anything
            self._config.report(error, "asking whether a page is excluded")
            return True

    def _believed(self, claim: Claim) -> Hit | str:
        """The hit with what its token vouches for; or why the token is not believed."""
        hit, config = claim.hit, self._config
        is_conversion = hit.event_type in (EventType.LEAD, EventType.SALE)
        if claim.token is None:
            return _vouched(hit) if is_conversion and config.trust_browser_conversions else hit
        if hit.event_type is not EventType.IDENTIFY and not is_conversion:
            return f"a {hit.event_type} takes no token"
        use: tokens.Use = "conversion" if is_conversion else "identity"
        keys = [config.secret_key, *config.previous_secret_keys]
        claims = tokens.verify(keys, use, claim.token, hit.received_at)
        if isinstance(claims, str):
            return claims
        if claims.get("workspace_id") != str(hit.workspace_id):
            return "the token is for another workspace"
        if use == "identity":
            said = {name: text(claims[name], most) for name, most in _NAMES.items() if claims.get(name)}
            return msgspec.structs.replace(
                hit, trusted=True, signals=msgspec.structs.replace(_unnamed(hit.signals), **said)
            )
        vouched = (claims.get("amount_cents"), str(claims.get("currency") or "").upper(), claims.get("key"))
        if vouched != (hit.amount_cents, hit.currency or "", hit.key):
            return "the token vouches for another amount, currency or key than the body has"
        return _vouched(hit)

    async def _click(self, visit: Visit, _scope: Scope, receive: Receive) -> Response:
        body = await body_of(receive)
        try:
            asked = msgspec.json.decode(body, type=_ClickBody)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            where, reason = unreadable(error)
            return _problem(400, f"The body cannot be read: {reason}", [Refused(0, where, reason)])
        if visit.refusal is not None:
            return _dropped(visit.refusal)
        hit = await self._clicks.click(
            visit, asked.key, text(asked.url, MAX_URL), text(asked.referrer, MAX_URL), asked.event_id
        )
        response = _json(200, {"ga_id": str(hit.id), "status": "ok"})
        response.headers["X-GoodAnalytics"] = visit.accepted
        for value in cookies_for(visit) if visit.is_new else ():
            response.headers.append("set-cookie", value)
        return response

    async def _deny(self, visit: Visit, _scope: Scope, _receive: Receive) -> Response:
        """
        Take a browser's no: what waits for ad platforms of its person is not sent.

        The hit says nothing else, neither address nor machine, and counts nothing. Of a browser that nobody knows nothing waits. A
        privacy signal keeps nobody from saying no.
        """
        response = Response(status_code=204, headers={"Cache-Control": "no-store"})
        if visit.is_new or visit.refusal not in (None, "privacy signal"):
            return response
        now = self._config.clock()
        hit = Hit(
            id=self._config.new_id(),
            workspace_id=visit.workspace_id,
            received_at=now,
            occurred_at=now,
            event_type=EventType.ENGAGEMENT,
            origin="browser",
            signals=Signals(anonymous_id=visit.anonymous_id),
            # No version: without the user agent, `core.reclassify` could only take it for a bot's.
            client=Client(bot=visit.client.bot),
            consent=DENIED,
        )
        await self._log.append([hit])
        return response

    async def _reset(self, visit: Visit, _scope: Scope, _receive: Receive) -> Response:
        """Let the browser start anew, as it does after `analytics.reset(request)`."""
        if visit.refusal is not None:
            return _dropped(visit.refusal)
        response = Response(status_code=204, headers={"Cache-Control": "no-store"})
        visit.renew()
        for value in cookies_for(visit):
            response.headers.append("set-cookie", value)
        return response

    async def _pixel(self, visit: Visit, scope: Scope, _receive: Receive) -> Response:
        query = _asked(scope)
        response = Response(PIXEL, media_type="image/gif", headers={"Cache-Control": "no-store"})
        if visit.refusal is not None:
            response.headers["X-GoodAnalytics"] = f"dropped; reason={visit.refusal}"
            return response
        now = self._config.clock()
        event_id = uuid_or_none(query.get("event_id"))
        hit = Hit(
            id=self._config.new_id() if event_id is None else own_id(event_id, visit.workspace_id),
            workspace_id=visit.workspace_id,
            received_at=now,
            occurred_at=now,
            event_type=EventType.PAGEVIEW,
            origin="browser",
            url=text(query.get("url") or visit.headers.get("referer"), MAX_URL),
            referrer=text(query.get("referrer"), MAX_URL),
            title=text(query.get("title")),
            signals=visit.signals,
            client=visit.client,
            consent=visit.consent,
        )
        if self._is_of_excluded_page(hit, scope):
            response.headers["X-GoodAnalytics"] = "dropped; reason=excluded"
            return response
        await self._log.append([hit])
        response.headers["X-GoodAnalytics"] = visit.accepted
        for value in cookies_for(visit):
            response.headers.append("set-cookie", value)
        return response

    def _with_cors(self, visit: Visit, response: Response) -> Response:
        """Let pages of our own other hosts send with cookies; nobody else's script may read an answer."""
        origin = visit.headers.get("origin", "")
        if not origin or not self._config.own_hosts:
            return response
        host = urls.parts(origin).host
        if host is not None and host != visit.host and urls.is_listed(host, self._config.own_hosts):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Credentials"] = "true"
            response.headers["Access-Control-Allow-Headers"] = "content-type"
            response.headers["Access-Control-Expose-Headers"] = "x-goodanalytics, retry-after"
            response.headers["Vary"] = "Origin"
        return response


class _ClickBody(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    url: str | None = None
    referrer: str | None = None
    event_id: UUID | None = None


_NAMES = {"external_id": MAX_ID, "email": 254, "phone": 32, "name": MAX_TEXT}
"""What an identity token may say, and how many characters of it are kept."""


def _with_own_browser(claim: Claim, visit: Visit) -> Claim:
    """*claim* with the visit's own id where the body has a placeholder: nobody would ever be found by it again."""
    signals = claim.hit.signals
    if signals.anonymous_id is not None and not stands_for_nobody(signals.anonymous_id):
        return claim
    signals = msgspec.structs.replace(signals, anonymous_id=visit.anonymous_id)
    return replace(claim, hit=msgspec.structs.replace(claim.hit, signals=signals))


def _vouched(hit: Hit) -> Hit:
    """*hit* as if the host had said it: its key, if it has one, stands for what the host's own call with that key would be."""
    changes: dict[str, Any] = {"trusted": True, "signals": _unnamed(hit.signals)}
    if hit.key is not None:
        changes["id"] = id_for_key(hit.workspace_id, str(hit.event_type), hit.key)
        changes["digest"] = repetition.digest(hit, "page")
    return msgspec.structs.replace(hit, **changes)


def _unnamed(signals: Signals) -> Signals:
    """*signals* without what the page itself claims about the person."""
    return msgspec.structs.replace(signals, external_id=None, email=None, phone=None, name=None, traits={})


@cache
def _script_file() -> tuple[bytes, str]:
    content = files("goodanalytics.web").joinpath("static", SCRIPT).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:20]}"'


def _script(headers: Headers) -> Response:
    content, etag = _script_file()
    about = {
        "ETag": etag,
        "Cache-Control": f"public, max-age={int(SCRIPT_MAX_AGE.total_seconds())}",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    if etag in headers.get("if-none-match", ""):
        return Response(status_code=304, headers=about)
    return Response(content, media_type="text/javascript", headers=about)


def _json(status: int, content: object, media_type: str = "application/json") -> Response:
    return Response(
        msgspec.json.encode(content), status, {"Cache-Control": "no-store"}, media_type=media_type
    )


def _problem(status: int, detail: str, refusals: Sequence[Refused] = ()) -> Response:
    """RFC 9457."""
    content = {
        "type": "about:blank",
        "title": _TITLES.get(status, "Not taken"),
        "status": status,
        "detail": detail,
    }
    if refusals:
        content["errors"] = [_shown(r) for r in refusals]
    return _json(status, content, "application/problem+json")


_TITLES = {400: "Bad data", 404: "Not found", 405: "Method not allowed", 410: "Gone", 503: "Not safe yet"}


def _shown(refused: Refused) -> dict[str, object]:
    return {"index": refused.index, "where": refused.where, "reason": refused.reason}


def _dropped(reason: str) -> Response:
    return Response(
        status_code=202, headers={"X-GoodAnalytics": f"dropped; reason={reason}", "Cache-Control": "no-store"}
    )


def _asked(scope: Scope) -> dict[str, str]:
    """What the query says; of what it says twice, the first."""
    query: bytes = scope.get("query_string", b"")
    return dict(reversed(urls.parameters("http://x/?" + query.decode(errors="replace")))) if query else {}


def _not_allowed(allowed: str) -> Response:
    response = _problem(405, f"Use {allowed} here")
    response.headers["Allow"] = allowed
    return response
