"""
`{mount}/t/ignore`: where the people of a site take their own browser out of its statistics, and put it back.

A page with one button; nothing changes before it is pressed, so no prefetch and no link can do it. Only the page itself may
press it: a strange site that could would make its visitors vanish from our figures. The cookie `_ga_ignore` says `1` and
nothing else; it tells nobody apart.
"""

from __future__ import annotations

from datetime import timedelta
from html import escape
from typing import Final

from starlette.responses import Response
from starlette.types import Scope

from goodanalytics.core import urls
from goodanalytics.web.cookies import cookie
from goodanalytics.web.reading import Visit

LIFE: Final = timedelta(days=400)
"""The longest that browsers keep a cookie (RFC 6265bis, section 5.5)."""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Your own visits</title>
<h1>Your own visits</h1>
<p>{state}</p>
<form method="post" action="?on={on}"><button>{button}</button></form>
</html>
"""


def respond(visit: Visit, scope: Scope) -> Response:
    """The page (GET), or the answer to its button (POST with `?on=1` or `?on=0`)."""
    method = scope["method"]
    if method in ("GET", "HEAD"):
        return _page(visit)
    if method != "POST":
        return Response("Use GET or POST here\n", 405, {**_HEADERS, "Allow": "GET, HEAD, POST"}, "text/plain")
    if not _is_from_here(visit):
        return Response("Only this site's own page may ask for that\n", 403, _HEADERS, "text/plain")
    asked = scope.get("query_string", b"").decode(errors="replace")
    wanted = dict(urls.parameters(f"http://x/?{asked}")).get("on")
    if wanted not in ("0", "1"):
        return Response("Say ?on=1 or ?on=0\n", 400, _HEADERS, "text/plain")
    life = LIFE if wanted == "1" else timedelta(0)
    response = Response(status_code=303, headers={**_HEADERS, "Location": "ignore"})
    response.headers.append(
        "set-cookie", cookie(visit, visit.config.cookies.ignore, wanted, http_only=True, max_age=life)
    )
    return response


def _page(visit: Visit) -> Response:
    is_ignored = visit.cookies.get(visit.config.cookies.ignore) == "1"
    host = escape(visit.host)
    html = _PAGE.format(
        state=f"What this browser does on {host} is {'not counted' if is_ignored else 'counted'}.",
        on="0" if is_ignored else "1",
        button="Count this browser again" if is_ignored else "Do not count this browser",
    )
    return Response(html, 200, _HEADERS, "text/html")


def _is_from_here(visit: Visit) -> bool:
    """By what the browser says of itself; a program that says nothing has no visitor whose cookie could be set."""
    if (site := visit.headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    origin = visit.headers.get("origin")
    return origin is None or urls.parts(origin).host == urls.parts(f"http://{visit.host}").host
