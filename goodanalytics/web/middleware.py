"""
The middleware: knows each document's visitor and keeps the cookies alive. It records nothing; the tracker does.

Cookies are set on documents only: HTML that a browser navigated to, never on what a shared cache may keep, never against a
privacy signal. The host's exceptions pass through untouched; ours never reach it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from goodanalytics.config import Config
from goodanalytics.web.cookies import Keeper, cookies_for
from goodanalytics.web.glance import Glance, Headers
from goodanalytics.web.reading import SCOPE_KEY, Visit


class Middleware:
    """Pure ASGI: `Middleware(app, config)`."""

    def __init__(self, app: ASGIApp, config: Config) -> None:
        self.app = app
        self.config = config
        self._glance = Glance(config)
        self._keeper = Keeper(config)
        self._has_proxies = bool(config.trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the host's app, with a `Visit` in the scope and cookies on its documents."""
        await self.app(scope, receive, self.sending(scope, send))

    def sending(self, scope: Scope, send: Send) -> Send:
        """Leave a `Visit` in the scope; by what comes back the host is to send, so that its documents carry cookies."""
        if scope["type"] != "http" or SCOPE_KEY in scope:
            return send
        try:
            visit = scope[SCOPE_KEY] = Visit(scope, self.config)
            due = self._due(scope)
            is_due = due != b""
        except Exception as error:  # noqa: BLE001  # the host's page matters more than its statistics
            self.config.report(error, "reading a request")
            return send

        def send_with_cookies(message: Message) -> Awaitable[None]:
            # No coroutine of its own: a page sends twice, and a stream a thousand times.
            if (is_due or visit.was_resolved) and message["type"] == "http.response.start":
                try:
                    _add_cookies(message, visit, due)
                except Exception as error:  # noqa: BLE001  # the host's page matters more than its statistics
                    self.config.report(error, "setting cookies")
            return send(message)

        return send_with_cookies

    def _due(self, scope: Scope) -> bytes | None:
        """The cookie that the answer is to carry; empty where it needs none, `None` where the `Visit` is to say."""
        has_landed = b"ga_id=" in scope["query_string"]
        if not has_landed and self._is_fresh(scope["headers"]):
            return b""
        headers = dict(scope["headers"])
        if scope["method"] != "GET" or not _asks_for_document(headers):
            return b""
        # Whether a browser came to the proxy by https, is the proxy's word.
        if has_landed or self._has_proxies or not self._glance.is_usual(scope, headers):
            return None
        kept = self._glance.kept(headers)
        if kept is None:
            return None
        anonymous_id, day = kept
        if self._keeper.is_of_today(day):
            return b""
        return self._keeper.cookie(anonymous_id, is_secure=scope["scheme"] == "https")

    def _is_fresh(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether the browser has had its cookie today, as on nearly all pages: nothing is to be set then, whatever it asks for."""
        for name, value in headers:
            if name == b"cookie":
                kept = self._glance.single(value)
                return kept is not None and self._keeper.is_of_today(kept[1])
        return False


def _add_cookies(message: Message, visit: Visit, due: bytes | None) -> None:
    headers = message.get("headers", ())
    if not _may_carry_cookies(headers, visit):
        return
    if due and not visit.was_reset:
        message["headers"] = [*headers, (b"set-cookie", due)]
    elif visit.refusal is None:
        added = [(b"set-cookie", value.encode("latin-1")) for value in cookies_for(visit)]
        message["headers"] = [*headers, *added]


def _asks_for_document(headers: Headers) -> bool:
    """Whether a browser asked for a document (Fetch Metadata; older browsers say so in Accept)."""
    destination = headers.get(b"sec-fetch-dest")
    return destination == b"document" if destination else b"text/html" in headers.get(b"accept", b"")


def _may_carry_cookies(headers: Iterable[tuple[bytes, bytes]], visit: Visit) -> bool:
    """By the answer's headers, read in any case: Django does not send their names in ASGI's lower case."""
    is_page = visit.was_resolved
    for name, value in headers:
        if len(name) == _CONTENT_TYPE and name.lower() == b"content-type":
            is_page = is_page or value[:9].lower() == b"text/html"
        elif (
            len(name) == _CACHE_CONTROL
            and name.lower() == b"cache-control"
            and _is_shared(value.decode("latin-1"))
        ):
            return False
    return is_page


_CONTENT_TYPE, _CACHE_CONTROL = len(b"content-type"), len(b"cache-control")


def _is_shared(cache_control: str) -> bool:
    """Whether a cache between us and the browser may hand the answer to others (RFC 9111, section 3)."""
    pairs = (part.strip().lower().partition("=") for part in cache_control.split(","))
    said = {name.strip(): value.strip(' "') for name, _, value in pairs}
    if said.keys() & {"public", "immutable"}:
        return True
    return not said.keys() & {"private", "no-store", "no-cache"} and any(
        said.get(name, "0").strip("0") for name in ("s-maxage", "max-age")
    )
