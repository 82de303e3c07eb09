"""
The few pages that a short link shows instead of leading on: its password's form, where it leads, its card, its frame.

Rules of this file
1. All that is shown is escaped by the templates, and by the Content-Security-Policy nothing runs or loads: there is no script,
   and the one stylesheet is named by its digest.
2. `form-action` names no host: browsers apply it to where an answer to a form redirects as well, and that is the destination.
3. A card names the short address as its own (`og:url`, canonical), for a network that reads another one there fetches that
   page's card in its place.
4. A frame is shown only for hosts that `config.link_frameable_hosts` lists: whether a page lets itself be framed is up to its
   headers, which may change any day, and asking for them would let whoever makes links send requests from this server.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from goodanalytics.config import Config
from goodanalytics.core import urls
from goodanalytics.core.links import Link
from goodanalytics.web.links.answers import NOINDEX, Answer, document

CARD_SECONDS: Final = 300
"""How long a network may keep a card before it asks again; no cache between keeps it for others."""

_STYLE: Final = (
    "body{margin:0;font:16px/1.5 system-ui,sans-serif}"
    "main{max-width:34rem;margin:12vh auto;padding:0 1rem}"
    "h1{font-size:1.4rem;overflow-wrap:anywhere}"
    "dd{margin:0 0 1rem;overflow-wrap:anywhere}"
    "label,input,button{display:block;font:inherit}"
    "input{box-sizing:border-box;width:100%;padding:.5rem;margin:.25rem 0 1rem}"
    "button{padding:.5rem 1.25rem}"
)
_FRAME_STYLE: Final = (
    "html,body,main{height:100%;margin:0}iframe{display:block;width:100%;height:100%;border:0}"
)
_HERE: Final = Path(__file__).parent.parent


def password(link: Link, config: Config, *, wrong: str | None = None, status: int = 200) -> Answer:
    """The form; *wrong* says what was not right about the last try."""
    schemes = " ".join(f"{scheme}:" for scheme in ("https", "http", *config.link_app_schemes))
    answer = _page(
        "link_password.html",
        f"form-action 'self' {schemes}",
        status=status,
        title=link.title or "This link needs a password",
        wrong=wrong,
    )
    answer.headers.append(NOINDEX)
    return answer


def inspection(link: Link, short_url: str, destination: str) -> Answer:
    """Where the link leads; that of a link with a limited number of uses is not told to those who use none."""
    answer = _page(
        "link_inspect.html",
        title=link.title or "Where this link leads",
        short_url=short_url,
        destination=None if link.max_clicks is not None else destination,
        depends=bool(link.rules or link.variants or link.ios_url or link.android_url),
    )
    answer.headers.append(NOINDEX)
    return answer


def card(link: Link, short_url: str, destination: str) -> Answer:
    """What social networks show for the link."""
    answer = _page(
        "link_card.html",
        title=link.og_title or link.title or short_url,
        description=link.og_description,
        image=link.og_image,
        short_url=short_url,
        destination=short_url if link.max_clicks is not None else destination,
        caching=f"private, max-age={CARD_SECONDS}",
    )
    if not link.indexed:
        answer.headers.append(NOINDEX)
    return answer


def may_be_framed(destination: str, config: Config) -> bool:
    """Whether the host listed this page's host as one whose pages may be framed."""
    host = urls.parts(destination).host
    return host is not None and urls.is_listed(host, config.link_frameable_hosts)


def frame(link: Link, destination: str) -> Answer:
    """The destination under the short address."""
    answer = _page(
        "link_frame.html",
        "frame-src https: http:; form-action 'none'",
        style=_FRAME_STYLE,
        title=link.title or link.og_title or link.key,
        destination=destination,
    )
    if not link.indexed:
        answer.headers.append(NOINDEX)
    return answer


def _page(
    template: str,
    policy: str = "form-action 'none'",
    *,
    status: int = 200,
    style: str = _STYLE,
    caching: str = "private, no-store",
    **shown: Any,
) -> Answer:
    safe = f"default-src 'none'; style-src {_digest(style)}; img-src data:; base-uri 'none'; frame-ancestors 'none'"
    body = _templates().get_template(template).render(style=style, **shown).encode()
    return document(
        status,
        body,
        "text/html; charset=utf-8",
        [
            ("content-security-policy", f"{safe}; {policy}"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", caching),
        ],
    )


@cache
def _digest(style: str) -> str:
    """A stylesheet's name in a policy (Content Security Policy Level 3, section 2.3.1)."""
    return f"'sha256-{b64encode(hashlib.sha256(style.encode()).digest()).decode()}'"


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
