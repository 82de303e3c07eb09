"""
The Hit: everything that anyone does, as one small immutable value.

What lies in the log, and in what words. How a beacon's bytes become hits stands in `core.beacons`, how a host's words are
checked in `core.said`, and how much of anything is kept in `core.bounds`.

A Hit's id is its idempotency key: a host's own key becomes an id by `id_for_key`.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

import msgspec

from goodanalytics.core.bounds import Property
from goodanalytics.core.consent import Consent
from goodanalytics.core.orders import Item, Place, Reason


class EventType(StrEnum):
    """What was done. The words of the HTTP and SQL surface."""

    PAGEVIEW = "pageview"
    CUSTOM = "custom"
    ENGAGEMENT = "engagement"
    LEAD = "lead"
    SALE = "sale"
    REFUND = "refund"
    SHARE = "share"
    SESSION_START = "session_start"
    IDENTIFY = "identify"
    LINK_CLICK = "link_click"


BROWSER_TYPES = frozenset(EventType) - {EventType.REFUND}
"""What a browser may claim. A refund is the host's to say."""

Origin = Literal["browser", "server", "link"]
"""Who said it: a page's beacon, the host's own code or API call, our own redirect."""


class Client(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    What the request showed of the visitor's machine.

    Attributes:
        ip: The address as text, after trusted proxies; stored as `Config.keep_ip` says.
        user_agent: At most 512 characters.
        hints: Client hint headers (`sec-ch-ua…`), lower-cased names.
        country: Two letters, from a trusted CDN header.
        language: First of `Accept-Language`, or the page's `navigator.language`.
        screen: `1280x720`, in CSS pixels.
        timezone: IANA name.
        touch_points: Fingers that the screen tells apart; more than one on a Mac means an iPad.
        bot: Why this is not a person, or `None`.
        bot_version: `bots.VERSION` of the rules that said so; `None` when nobody judged, as for a host's own word.
    """

    ip: str | None = None
    user_agent: str | None = None
    hints: dict[str, str] = {}
    country: str | None = None
    language: str | None = None
    screen: str | None = None
    timezone: str | None = None
    touch_points: int | None = None
    bot: str | None = None
    bot_version: int | None = None


class Signals(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    Who it may be: everything that can point to a visitor.

    Attributes:
        visitor_id: Said by the host, or resolved before.
        external_id: The host's own name for the person. Only the host may say it: see `Hit.trusted`.
        email, phone, name, traits: Said about the person; kept, and matched when the host said them.
        anonymous_id: The browser's random id.
        click_id: The click that led here (`ga_id`).
        fingerprint: Only when the host supplies one; never decides by itself.
    """

    visitor_id: UUID | None = None
    external_id: str | None = None
    email: str | None = None
    phone: str | None = None
    name: str | None = None
    traits: dict[str, Property] = {}
    anonymous_id: str | None = None
    click_id: UUID | None = None
    fingerprint: str | None = None

    @property
    def point_somewhere(self) -> bool:
        """Whether anything here can find a visitor again."""
        return any(
            (self.visitor_id, self.external_id, self.email, self.phone, self.anonymous_id, self.click_id)
        )


class Hit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One thing that was done, as it lies in the log.

    Attributes:
        id: Names this hit for ever; a second one with the same id in its workspace is a repetition.
        received_at: When our edge took it. Aware, UTC.
        occurred_at: When it happened. Differs from *received_at* only for hits from the host's own servers.
        trusted: Whether the host vouches for it: its own code, a secret key, or a token that it signed.
        path: Of *url*, normalised, for our own pages; `None` derives it.
        link_id: The link of a click.
        source: A source that is already known (a link's own), as JSON; `None` classifies *url* and *referrer*.
        key: The caller's idempotency key, kept to be shown.
        platform_signals: What ad platforms want back later (`_fbp`, `_fbc`, `_ttp`).
        digest: Of what the caller sent, to tell another body under a used key apart.
        quiet: Only find or make the visitor; record nothing.
        consent: What the person allowed ad platforms, as known with this hit; `None` says nothing.
        place, contents: Where an order was placed, and its lines.
        sale_id, reason: Of a refund: the sale that it takes back, and why.
    """

    id: UUID
    workspace_id: UUID
    received_at: datetime
    occurred_at: datetime
    event_type: EventType
    origin: Origin
    trusted: bool = False
    name: str | None = None
    url: str | None = None
    referrer: str | None = None
    title: str | None = None
    signals: Signals = Signals()
    client: Client = Client()
    properties: dict[str, Property] = {}
    amount_cents: int | None = None
    currency: str | None = None
    engaged_ms: int | None = None
    scroll_depth: int | None = None
    link_id: UUID | None = None
    source: dict[str, Any] | None = None
    key: str | None = None
    platform_signals: dict[str, str] = {}
    digest: str | None = None
    quiet: bool = False
    consent: Consent | None = None
    place: Place = "website"
    contents: tuple[Item, ...] = ()
    sale_id: UUID | None = None
    reason: Reason | None = None


def id_for_key(workspace_id: UUID, scope: str, key: str) -> UUID:
    """The hit id that stands for a caller's idempotency *key*: the same key is the same hit (RFC 9562 version 5)."""
    return uuid.uuid5(workspace_id, f"{scope}\n{key}")
