"""
How a page of the dashboard is written: templates, the headers of every answer, and the two files beside the pages.

Texts are escaped by the templates and, should one forget, kept from running by the Content-Security-Policy: nothing inline runs,
and nothing that is not from here is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from goodanalytics.core.visitors import STATUS_RANK
from goodanalytics.web.dashboard import asked as asking
from goodanalytics.web.dashboard import figures, words
from goodanalytics.web.dashboard import person as person_page

POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # A form of our own page then says where it comes from, and nobody else learns of our addresses.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
STATIC: Final[Mapping[str, str]] = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
}
STATIC_AGE: Final = 3_600  # seconds

_PICTURES: Final = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""Opened by itself, an SVG is a page; this one may look as it does, and do nothing."""

_HERE = Path(__file__).parent.parent


def page(request: Request, template: str, shown: Mapping[str, Any], status: int = 200) -> Response:
    """*template* filled with what is *shown*, as an answer to *request*."""
    root = request.scope.get("root_path", "")
    path = request.scope["path"].removeprefix(root) or "/"
    html = (
        _templates()
        .get_template(template)
        .render(
            root=root,
            here=f"{root}{path}",
            path=path,
            typed=asking.first_of(request.query_params.multi_items()),
            version={name: _asset(name)[1] for name in STATIC},
            **shown,
        )
    )
    return Response(html, status, HEADERS, "text/html; charset=utf-8")


def picture(body: bytes, kind: str) -> Response:
    """*body*, a file of *kind* svg or png that we drew, as an answer to a page of ours."""
    media_type = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    return Response(body, headers={**HEADERS, "Content-Security-Policy": _PICTURES}, media_type=media_type)


async def static(request: Request) -> Response:
    """One of the dashboard's own files; they tell nothing, so everybody may read them."""
    name = request.path_params["name"]
    if name not in STATIC:
        raise HTTPException(404)
    body, tag = _asset(name)
    headers = {**HEADERS, "ETag": f'"{tag}"', "Cache-Control": f"public, max-age={STATIC_AGE}"}
    if any(
        f'"{tag}"' == known.strip().removeprefix("W/")
        for known in request.headers.get("if-none-match", "").split(",")
    ):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=STATIC[name])


@cache
def _asset(name: str) -> tuple[bytes, str]:
    """A file's bytes and a name for exactly these bytes."""
    body = (_HERE / "static" / name).read_bytes()
    return body, hashlib.sha256(body).hexdigest()[:16]


@cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        amounts=words.amounts,
        as_written=words.as_written,
        clock=words.clock,
        count=words.count,
        country=words.country,
        day=words.day,
        device=words.device,
        evidence=person_page.evidence,
        moment=words.moment,
        place=words.place,
        short_id=words.short_id,
        source=words.source,
        web_address=words.web_address,
        who=words.who,
    )
    made.globals.update(
        KINDS=words.KINDS,
        OPERATORS=asking.OPERATORS,
        PRESETS=asking.PRESETS,
        STATUSES=tuple(STATUS_RANK),
        money=words.money,
        value_in_words=figures.value_in_words,
    )
    return made


__all__ = ["POLICY", "page", "picture", "static"]
