"""
What a request for a short link becomes in the log.

Rules of this file
1. A person's click counts. What only looks is recorded as well, with the reason why it is no click in `client.bot`: `prefetch`,
   `HEAD request`, or the bot's name. Those two are no verdict on the user agent, so they have no `bot_version` and are not
   judged again.
2. Where a click came from, and what decided, is said as `core.clicks` has it.
3. Whoever comes by a partner's link gets a signed cookie that names the partner, for pages that ask at once
   (`partners.by_token`). Commissions do not depend on it: they follow from the click itself.
4. An unknown key is recorded as a click without a link, whose path is what was asked for. Files that programs ask for by
   themselves are not, and there are bounds (`ORPHANS`), so that a scanner does not fill the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from goodanalytics.core import tokens
from goodanalytics.core.bounds import MAX_URL, text
from goodanalytics.core.clicks import click_hit, clicked
from goodanalytics.core.hits import Client, EventType, Hit, Signals
from goodanalytics.core.limits import Allowed, Buckets, Limit
from goodanalytics.core.links import Link
from goodanalytics.core.referral import codes
from goodanalytics.web.cookies import cookie
from goodanalytics.web.reading import Visit

ORPHANS: Final = Limit("orphans", 5.0, 100)
"""Unknown keys that are recorded a second for one workspace in one process, and how many at once."""

_FILES: Final = frozenset(
    {
        "ads.txt", "app-ads.txt", "apple-app-site-association", "browserconfig.xml", "crossdomain.xml", "favicon.ico",
        "humans.txt", "llms.txt", "manifest.json", "robots.txt", "security.txt", "site.webmanifest", "sitemap.xml",
    }
)  # fmt: skip
_FOLDERS: Final = (".well-known/", "apple-touch-icon", "favicon")

PREFETCH: Final = "prefetch"
_HEAD: Final = "HEAD request"


def reason_not_to_count(visit: Visit, method: str) -> str | None:
    """Why a request that may be recorded is no click of a person: it only looks, or is a bot's."""
    if visit.refusal == PREFETCH:
        return PREFETCH
    return visit.client.bot or (_HEAD if method == "HEAD" else None)


def client_of(visit: Visit, reason: str | None) -> Client:
    """What the hit says of its machine, with the *reason* why it does not count."""
    if reason is None or reason == visit.client.bot:
        return visit.client
    return msgspec.structs.replace(visit.client, bot=reason, bot_version=None)


def refusal_of(visit: Visit) -> str | None:
    """Why nothing of this visit may be recorded."""
    return None if visit.refusal == PREFETCH else visit.refusal


def click(
    visit: Visit,
    link: Link,
    click_id: UUID,
    now: datetime,
    query: str,
    *,
    client: Client | None = None,
    referrer: str | None = None,
    rule: str | None = None,
    variant: str | None = None,
    own_hosts: Sequence[str] = (),
) -> Hit:
    """The hit of a click on *link*. *query* is the request's, without its question mark."""
    return click_hit(
        link.workspace_id, clicked(link, own_hosts), click_id, now,
        client=visit.client if client is None else client, anonymous_id=visit.anonymous_id,
        query=query, referrer=referrer, rule=rule, variant=variant, consent=visit.consent,
    )  # fmt: skip


def by_code(
    visit: Visit, code: str, click_id: UUID, now: datetime, *, url: str | None, referrer: str | None
) -> Hit:
    """The hit of a browser that came to the page at *url* by a partner's *code*: a click on no link."""
    is_told = code.lower() in codes(url)
    return Hit(
        id=click_id,
        workspace_id=visit.workspace_id,
        received_at=now,
        occurred_at=now,
        event_type=EventType.LINK_CLICK,
        origin="link",
        url=url if is_told else f"http{'s' if visit.is_secure else ''}://{visit.host}/?via={code}",
        referrer=None if referrer is None else text(referrer, MAX_URL),
        signals=Signals(anonymous_id=visit.anonymous_id, click_id=click_id),
        client=visit.client,
    )


def referral_cookie(visit: Visit, link: Link, partner_id: UUID, click_id: UUID, now: datetime) -> str:
    """The `Set-Cookie` value of a browser that comes by a partner's link. It holds as long as a browser keeps it."""
    settings = visit.config.cookies
    claims = {
        "workspace_id": str(link.workspace_id),
        "partner_id": str(partner_id),
        "link_id": str(link.id),
        "click_id": str(click_id),
    }
    token = tokens.sign(visit.config.secret_key, "referral", claims, now, settings.max_age)
    return cookie(visit, settings.referral, token, http_only=True)


class Orphans:
    """Requests for what no link is called."""

    def __init__(self) -> None:
        self._buckets = Buckets()

    def hit(self, visit: Visit, name: str, asked: str, hit_id: UUID, now: datetime) -> Hit | None:
        """
        The hit of a request for what no link is called; `None` when it is not worth one.

        It has no click's id, for it leads nowhere, and no workspace but the one that the host has by configuration.

        Args:
            name: What stands where a key would, without a slash before it.
            asked: The whole path as it was asked for, with its query.
        """
        name = name.lower()
        if name in _FILES or name.startswith(_FOLDERS):
            return None
        workspace_id = visit.workspace_id
        decision = self._buckets.take(ORPHANS, str(workspace_id), now.timestamp())
        if not isinstance(decision, Allowed):
            return None
        referrer = text(visit.headers.get("referer"), MAX_URL)
        return Hit(
            id=hit_id,
            workspace_id=workspace_id,
            received_at=now,
            occurred_at=now,
            event_type=EventType.LINK_CLICK,
            origin="link",
            url=text(f"http{'s' if visit.is_secure else ''}://{visit.host}{asked}", MAX_URL),
            referrer=referrer,
            signals=Signals(anonymous_id=visit.anonymous_id),
            client=visit.client,
            consent=visit.consent,
        )
