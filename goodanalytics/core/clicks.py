"""
A click on a link, as the log holds it.

Rules of this file
1. Where a click came from is the link's UTM parameters, overruled by the request's own and by its ad click ids; else the
   referrer; then where the link was shared (`?s=`, `core.sharing`); and if nothing says more, the link itself. A scanned QR
   code (`?qr=1`) is a medium of its own.
2. `properties` say what decided: `rule` and `variant` by name, and `qr` for a scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote_plus
from uuid import UUID

import msgspec

from goodanalytics.core import sources
from goodanalytics.core.bounds import MAX_URL, Property, text
from goodanalytics.core.consent import Consent
from goodanalytics.core.hits import Client, EventType, Hit, Signals
from goodanalytics.core.links import Link
from goodanalytics.core.sharing import shared_at

Utm = tuple[str | None, str | None, str | None, str | None, str | None]
"""The values of `_NAMES`."""


class Clicked(msgspec.Struct, frozen=True, array_like=True):
    """
    What of a link stands in the hit of a click on it.

    Attributes:
        own_hosts: `config.own_hosts`; a referrer among them says nothing.
    """

    link_id: UUID
    domain: str
    key: str
    url: str
    utm: Utm
    own_hosts: tuple[str, ...] = ()


def clicked(link: Link, own_hosts: Sequence[str] = ()) -> Clicked:
    """What of *link* stands in the hit of a click on it."""
    utm = (link.utm_source, link.utm_medium, link.utm_campaign, link.utm_content, link.utm_term)
    return Clicked(link.id, link.domain, link.key, link.url, utm, tuple(own_hosts))


def click_hit(
    workspace_id: UUID,
    on: Clicked,
    click_id: UUID,
    now: datetime,
    *,
    client: Client,
    anonymous_id: str | None,
    query: str = "",
    referrer: str | None = None,
    rule: str | None = None,
    variant: str | None = None,
    consent: Consent | None = None,
) -> Hit:
    """
    The hit of a click.

    Args:
        query: The request's, without its question mark.
        referrer: The request's, as it came.
        rule, variant: Names of what decided where it leads.
    """
    is_scan = _is_scan(query)
    properties: dict[str, Property] = {"qr": True} if is_scan else {}
    if rule is not None:
        properties["rule"] = rule
    if variant is not None:
        properties["variant"] = variant
    return Hit(
        id=click_id,
        workspace_id=workspace_id,
        received_at=now,
        occurred_at=now,
        event_type=EventType.LINK_CLICK,
        origin="link",
        url=on.url,
        referrer=None if referrer is None else text(referrer, MAX_URL),
        signals=Signals(anonymous_id=anonymous_id, click_id=click_id),
        client=client,
        properties=properties,
        link_id=on.link_id,
        source=_source(on, query, referrer),
        consent=consent,
    )


def _source(on: Clicked, query: str, referrer: str | None) -> dict[str, Any]:
    """Where a click came from, as `Source.from_json` reads it; see rule 1. Not to be changed: many hits share it."""
    is_scan = _is_scan(query)
    found = _found(on.domain, on.utm, query, referrer, on.own_hosts, is_scan)
    if found is not None:
        return found
    named = None if is_scan else shared_at(query)
    platform, medium = named or (on.domain, "qr" if is_scan else "link")
    return {"platform": platform, "medium": medium, "confidence": "medium", "content": on.key}


def _is_scan(query: str) -> bool:
    return "qr=1" in query and "qr=1" in query.split("&")


_NAMES: Final = ("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term")


@lru_cache(maxsize=4_096)
def _found(
    domain: str,
    utm: Utm,
    query: str,
    referrer: str | None,
    own_hosts: tuple[str, ...],
    is_scan: bool,
) -> dict[str, Any] | None:
    """What the request and the link's parameters say; `None` when that is nothing."""
    named = {part.partition("=")[0].lower() for part in query.split("&")}
    own = [
        f"{name}={quote_plus(value)}"
        for name, value in zip(_NAMES, utm, strict=True)
        if value and name not in named
    ]
    source = sources.classify(f"https://{domain}/?{'&'.join([query, *own])}", referrer, own_hosts)
    if source.is_direct:
        return None
    if is_scan and source.click_id is None:
        source = replace(source, medium="qr")
    return source.to_json()
