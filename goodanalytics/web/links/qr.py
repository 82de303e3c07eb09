"""
`GET {link}/qr`: the QR code of a short link, for printing and for pages.

Rules of this file
1. The code holds the link's own short address with `?qr=1`, which makes a scan's medium `qr`. The request chooses how it looks
   and nothing else: the host is the link's, the path is the one that links live at, and the scheme is https, because a code is
   printed once and the site may get its certificate later; only this computer's own names stay http.
2. Parameters: `format` svg or png, `size` pixels of a module, `width` pixels of the whole, `margin` modules, `dark` and `light`
   six hexadecimal digits (the original's `fg` and `bg` too), `ec` low, medium, quartile or high. Others are ignored. A wrong
   value, or colours that would not scan, are 400 with the reason.
3. To look at a code is no click. A link that is over has no code any more (410), one with a password or a later start has.
4. Caches keep a code for a day, and no longer than the link lives; the ETag is known before anything is drawn.
5. Drawing happens in threads, `DRAWING` at a time; behind `WAITING` others a request is sent away with 503.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from goodanalytics import qr
from goodanalytics.config import Config
from goodanalytics.core.links import KEY, Link
from goodanalytics.core.own_address import prefix_of
from goodanalytics.errors import GoodAnalyticsError, InvalidInput
from goodanalytics.web import path_below
from goodanalytics.web.limits import Gate
from goodanalytics.web.links.answers import Answer, document, plain
from goodanalytics.web.links.catalogue import Catalogue
from goodanalytics.web.reading import Visit, visit_of

ENDING: Final = "/qr"
MAX_AGE: Final = 24 * 60 * 60  # seconds
MAX_PARAMETERS: Final = 50
DRAWING: Final = 2
WAITING: Final = 50

_MEDIA_TYPES: Final[Mapping[qr.Format, str]] = {"svg": "image/svg+xml", "png": "image/png"}
_CORRECTIONS: Final[Mapping[str, qr.Correction]] = {
    name: word for word in qr.CORRECTIONS for name in (word, word[0])
}
_COLOUR: Final = re.compile(r"[0-9A-Fa-f]{6}")
_NUMBER: Final = re.compile(r"[0-9]{1,4}")
_OWN_NAMES: Final = re.compile(r"(?:.+\.)?localhost(?::\d+)?|127\.\d+\.\d+\.\d+(?::\d+)?|\[::1\](?::\d+)?")
_HEADERS: Final = (
    # Opened by itself, an SVG is a page: it may show its logo and do nothing else.
    ("content-security-policy", "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("x-robots-tag", "noindex"),
)


class Codes:
    """
    An ASGI app that answers `/{key}/qr` and, mounted by itself, `/{key}`.

    Args:
        style: How codes look where the request says nothing; the place for a logo.
    """

    def __init__(self, config: Config, catalogue: Catalogue, style: qr.Style | None = None) -> None:
        self._config = config
        self._catalogue = catalogue
        self._style = style or qr.Style()
        self._gate = Gate(config, "redirects")
        self._drawing = asyncio.Semaphore(DRAWING)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request to the app where it is mounted; links live at `link_path`."""
        if scope["type"] == "http":
            await self._respond(scope, receive, send, prefix=None)

    def before(self, redirect: ASGIApp) -> ASGIApp:
        """*redirect*, and the codes of the links that live there."""

        async def with_codes(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and scope["path"].endswith(ENDING) and self._is_asked(scope):
                await self._respond(scope, receive, send, prefix=scope.get("root_path", ""))
            else:
                await redirect(scope, receive, send)

        return with_codes

    @staticmethod
    def _is_asked(scope: Scope) -> bool:
        """Whether the path is a key with the ending; what lies deeper is the destination's, for links that pass paths on."""
        return KEY.fullmatch(_key(scope)) is not None and path_below(scope).endswith(ENDING)

    async def _respond(self, scope: Scope, receive: Receive, send: Send, *, prefix: str | None) -> None:
        visit = visit_of(scope, self._config)
        answer = await self._gate.refuse(visit) or await self._answer(scope, visit, prefix)
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope, visit: Visit, prefix: str | None) -> Answer:
        if scope["method"] not in ("GET", "HEAD"):
            return plain(405, "Use GET here", {"Allow": "GET, HEAD"})
        key = _key(scope)
        if not KEY.fullmatch(key):
            return plain(404, "There is no such link")
        try:
            kind, style = asked(scope.get("query_string", b""), self._style)
            known = await self._catalogue.find(visit.workspace_id, visit.host, key)
            if known.link is None:
                return plain(404, "There is no such link")
            return await self._code(known.link, visit, prefix, kind, style)
        except InvalidInput as error:
            return plain(400, str(error))
        except GoodAnalyticsError as error:
            self._config.report(error, "drawing a QR code")
            return plain(error.status_hint, "Try again", {"Retry-After": "1"})

    async def _code(
        self, link: Link, visit: Visit, prefix: str | None, kind: qr.Format, style: qr.Style
    ) -> Answer:
        now = self._config.clock()
        if link.is_expired(now):
            return plain(410, "This link has expired")
        left = MAX_AGE if link.expires_at is None else (link.expires_at - now).total_seconds()
        content = f"{short_url(self._config, link, prefix, is_secure=visit.is_secure)}?qr=1"
        tag = qr.etag(content, kind, style)
        headers = [
            ("etag", tag),
            ("cache-control", f"public, max-age={math.floor(min(MAX_AGE, left))}"),
            *_HEADERS,
        ]
        if _is_named(tag, visit.headers.get("if-none-match", "")):
            return Answer(304, [(name.encode(), value.encode()) for name, value in headers])
        if self._waiting >= WAITING:
            return plain(503, "Many codes are being drawn", {"Retry-After": "1"})
        self._waiting += 1
        try:
            async with self._drawing:
                body = await asyncio.to_thread(qr.draw, content, kind, style)
        finally:
            self._waiting -= 1
        headers.append(("content-disposition", f'inline; filename="{link.key}.{kind}"'))
        return document(200, body, _MEDIA_TYPES[kind], headers)


def asked(query: bytes, style: qr.Style) -> tuple[qr.Format, qr.Style]:
    """
    What the request's *query* makes of *style*.

    Raises:
        InvalidInput: A value is not usable.
    """
    try:
        pairs = parse_qsl(
            query.decode("ascii", "replace"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS
        )
    except ValueError:
        raise InvalidInput(f"The query has more than {MAX_PARAMETERS} parameters") from None
    told = dict(reversed(pairs))
    kind = told.get("format", "svg")
    if kind not in _MEDIA_TYPES:
        raise InvalidInput(f"format is {kind[:20]!r}; use svg or png", where="format")
    changes: dict[str, object] = {}
    for name in ("size", "width", "margin"):
        if name in told:
            if not _NUMBER.fullmatch(told[name]):
                raise InvalidInput(f"{name} is {told[name][:20]!r}; give a whole number", where=name)
            changes[name] = int(told[name])
    if "size" in told and "width" not in told:
        changes["width"] = None
    for name, also in (("dark", "fg"), ("light", "bg")):
        value = told.get(name, told.get(also))
        if value is not None:
            if not _COLOUR.fullmatch(value):
                raise InvalidInput(
                    f"{name} is {value[:20]!r}; give six hexadecimal digits such as 1a2b3c", where=name
                )
            changes[name] = value
    if "ec" in told:
        if told["ec"] not in _CORRECTIONS:
            raise InvalidInput(f"ec is {told['ec'][:20]!r}; use {', '.join(qr.CORRECTIONS)}", where="ec")
        changes["correction"] = _CORRECTIONS[told["ec"]]
    return "png" if kind == "png" else "svg", replace(style, **changes)  # type: ignore[arg-type]  # names of its own


def short_url(config: Config, link: Link, prefix: str | None = None, *, is_secure: bool = True) -> str:
    """
    The address of *link* as a code holds it.

    Args:
        prefix: Below which links are served; `None` is where the settings say.
        is_secure: Whether the request came by https; asked on this computer's own names only.
    """
    if prefix is None:
        prefix = prefix_of(link.domain, config.link_domains, config.link_path)
    scheme = "https" if is_secure or not _OWN_NAMES.fullmatch(link.domain) else "http"
    return f"{scheme}://{link.domain}{prefix}/{link.key}"


def _key(scope: Scope) -> str:
    return path_below(scope).removeprefix("/").removesuffix(ENDING)


def _is_named(tag: str, header: str) -> bool:
    """Whether `If-None-Match` names *tag* (RFC 9110, section 13.1.2: weak comparison)."""
    return header.strip() == "*" or tag in {one.strip().removeprefix("W/") for one in header.split(",")}


__all__ = ["Codes", "asked", "short_url"]
