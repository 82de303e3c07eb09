"""
The middleware: knows each document's visitor and keeps the cookies alive. It records nothing; the tracker does.

Cookies are set on documents only: HTML that a browser navigated to, never on what a shared cache may keep, never against a
privacy signal. The host's exceptions pass through untouched; ours never reach it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterable
from datetime import timedelta
from http.cookies import SimpleCookie

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from goodanalytics.config import Config
from goodanalytics.core.rules import Cookies
from goodanalytics.web.glance import Glance, Headers
from goodanalytics.web.reading import SCOPE_KEY, Visit


class Middleware:
    """Pure ASGI: `Middleware(app, config)`."""

    def __init__(self, app: ASGIApp, config: Config) -> None:
        self.app = app
        self.config = config
        self._glance = Glance(config)
        self._keep = Keeper(config.cookies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave a `Visit` in the scope, and cookies on the document."""
        if scope["type"] != "http" or SCOPE_KEY in scope:
            await self.app(scope, receive, send)
            return
        try:
            visit = scope[SCOPE_KEY] = Visit(scope, self.config)
            headers = dict(scope["headers"]) if scope["method"] == "GET" else {}
            is_navigation = _asks_for_document(headers)
            known = self._known(scope, headers) if is_navigation else None
        except Exception as error:  # noqa: BLE001  # the host's page matters more than its statistics
            self.config.report(error, "reading a request")
            await self.app(scope, receive, send)
            return

        def send_with_cookies(message: Message) -> Awaitable[None]:
            # No coroutine of its own: a page sends twice, and a stream a thousand times.
            if message["type"] == "http.response.start" and (is_navigation or visit.was_resolved):
                try:
                    _add_cookies(message, visit, known)
                except Exception as error:  # noqa: BLE001  # the host's page matters more than its statistics
                    self.config.report(error, "setting cookies")
            return send(message)

        await self.app(scope, receive, send_with_cookies)

    def _known(self, scope: Scope, headers: Headers) -> bytes | None:
        """The cookie that a browser which we know keeps; `None` where the `Visit` is to say."""
        if not self._glance.is_plain(scope, headers) or self.config.trusted_proxies:
            return None
        own = self._glance.anonymous_id(headers)
        return own and self._keep(own, is_secure=scope["scheme"] == "https")


class Keeper:
    """Says the `Set-Cookie` value that keeps a browser known, as `cookies_for` does, in a fraction of its time."""

    def __init__(self, names: Cookies) -> None:
        self._name = names.anonymous.encode() + b"="
        self._reach = [
            _reach(names, is_secure=secure, http_only=True, max_age=None).encode() for secure in (False, True)
        ]

    def __call__(self, anonymous_id: bytes, *, is_secure: bool) -> bytes:
        """For an id as `Glance.anonymous_id` gives it: one that needs no quoting."""
        return self._name + anonymous_id + self._reach[is_secure]


def _add_cookies(message: Message, visit: Visit, known: bytes | None) -> None:
    headers = message.get("headers", ())
    if not _may_carry_cookies(headers, visit):
        return
    if known is not None and not visit.was_reset:
        message["headers"] = [*headers, (b"set-cookie", known)]
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


def cookies_for(visit: Visit) -> list[str]:
    """The `Set-Cookie` values that keep this visitor known: the browser's id, and the click that it landed with."""
    names = visit.config.cookies
    values = [cookie(visit, names.anonymous, visit.anonymous_id, http_only=True)]
    if visit.landed_with is not None:
        values.append(cookie(visit, names.click, str(visit.landed_with), http_only=False))
    elif visit.was_reset:
        values.append(cookie(visit, names.click, "", http_only=False, max_age=timedelta(0)))
    return values


_PLAIN = re.compile(r"[A-Za-z0-9_.~-]+")


def cookie(visit: Visit, name: str, value: str, *, http_only: bool, max_age: timedelta | None = None) -> str:
    """One `Set-Cookie` value with the configured life and reach."""
    settings = visit.config.cookies
    if not (_PLAIN.fullmatch(name) and _PLAIN.fullmatch(value)):
        # Only a hook's own cookie comes here: its value is quoted, its name refused when no cookie can have it.
        jar: SimpleCookie = SimpleCookie()
        jar[name] = value
        name, _, value = jar[name].OutputString().partition("=")
    return f"{name}={value}" + _reach(
        settings, is_secure=visit.is_secure, http_only=http_only, max_age=max_age
    )


def _reach(settings: Cookies, *, is_secure: bool, http_only: bool, max_age: timedelta | None) -> str:
    """Where and for how long a cookie holds."""
    seconds = int((settings.max_age if max_age is None else max_age).total_seconds())
    domain = f"; Domain={settings.domain}" if settings.domain else ""
    hidden = "; HttpOnly" if http_only else ""
    secure = "; Secure" if is_secure else ""
    same_site = settings.same_site.capitalize()
    return f"{domain}{hidden}; Max-Age={seconds}; Path=/; SameSite={same_site}{secure}"
