"""
The middleware: knows each document's visitor and keeps the cookies alive. It records nothing; the tracker does.

Cookies are set on documents only: HTML that a browser navigated to, never on what a shared cache may keep, never against a
privacy signal. The host's exceptions pass through untouched; ours never reach it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from http.cookies import SimpleCookie

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from goodanalytics.config import Config
from goodanalytics.web.reading import SCOPE_KEY, Visit, headers_of, read_visit


class Middleware:
    """Pure ASGI: `Middleware(app, config)`."""

    def __init__(self, app: ASGIApp, config: Config) -> None:
        self.app = app
        self.config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave a `Visit` in the scope, and cookies on the document."""
        if scope["type"] != "http" or SCOPE_KEY in scope:
            await self.app(scope, receive, send)
            return
        try:
            visit = read_visit(scope, self.config)
        except Exception as error:  # noqa: BLE001  # the host's page matters more than its statistics
            self.config.report(error, "reading a request")
            await self.app(scope, receive, send)
            return
        scope[SCOPE_KEY] = visit
        if visit.refusal is not None:
            await self.app(scope, receive, send)
            return

        is_navigation = _is_navigation(scope, visit)

        async def send_with_cookies(message: Message) -> None:
            if message["type"] == "http.response.start" and (is_navigation or visit.was_resolved):
                try:
                    _add_cookies(message, visit)
                except Exception as error:  # noqa: BLE001  # the host's page matters more than its statistics
                    self.config.report(error, "setting cookies")
            await send(message)

        await self.app(scope, receive, send_with_cookies)


def _add_cookies(message: Message, visit: Visit) -> None:
    if _may_carry_cookies(headers_of(message), visit):
        headers = MutableHeaders(scope=message)
        for value in cookies_for(visit):
            headers.append("set-cookie", value)


def _is_navigation(scope: Scope, visit: Visit) -> bool:
    """Whether a browser asked for a document (Fetch Metadata; older browsers say so in Accept)."""
    if scope["method"] != "GET":
        return False
    destination = visit.headers.get("sec-fetch-dest")
    return destination == "document" if destination else "text/html" in visit.headers.get("accept", "")


def _may_carry_cookies(headers: Mapping[str, str], visit: Visit) -> bool:
    """By the answer's headers, read in any case: Django does not send their names in ASGI's lower case."""
    if _is_shared(headers.get("cache-control", "")):
        return False
    return visit.was_resolved or headers.get("content-type", "").lower().startswith("text/html")


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
    seconds = int((settings.max_age if max_age is None else max_age).total_seconds())
    if not (_PLAIN.fullmatch(name) and _PLAIN.fullmatch(value)):
        # Only a hook's own cookie comes here: its value is quoted, its name refused when no cookie can have it.
        jar: SimpleCookie = SimpleCookie()
        jar[name] = value
        name, _, value = jar[name].OutputString().partition("=")
    domain = f"; Domain={settings.domain}" if settings.domain else ""
    hidden = "; HttpOnly" if http_only else ""
    secure = "; Secure" if visit.is_secure else ""
    same_site = settings.same_site.capitalize()
    return f"{name}={value}{domain}{hidden}; Max-Age={seconds}; Path=/; SameSite={same_site}{secure}"
