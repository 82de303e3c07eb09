"""
A beacon: what a page's body may say, and how its bytes become hits.

Rules of this file
1. A beacon is hostile. Workspace, address, user agent and time come from the `Edge` (what the server saw itself), never
   from the body.
2. A field of the wrong type, an unknown field or an unreadable number refuses the item, and says where; what is merely too
   long is cut, as `core.bounds` says.
3. One bad item does not sink its neighbours: `read_beacon` answers hits and refusals side by side, each with its index.
4. The browser sends `event_id`, which becomes the hit's id. What a browser sends never becomes an id that a host's key could
   become: it would use up the host's order before it is placed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec

from goodanalytics.core.bounds import (
    MAX_BODY,
    MAX_ENGAGED_MS,
    MAX_ID,
    MAX_ITEMS,
    MAX_TEXT,
    MAX_URL,
    Invalid,
    flat_properties,
    money,
    text,
    unreadable,
    uuid_or_none,
)
from goodanalytics.core.consent import Consent
from goodanalytics.core.hits import BROWSER_TYPES, Client, EventType, Hit, Signals, id_for_key

_SCREEN = re.compile(r"[0-9]{1,5}x[0-9]{1,5}")
_SIGNAL = re.compile(r"[A-Za-z0-9._-]{1,512}")
# A pair of surrogates, half of one, or any other escape.
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Edge:
    """
    What the server itself knows of the request that carried a beacon, and the consent that this shows.

    Attributes:
        anonymous_id: From the browser's own cookie; beats what a body says.
        new_anonymous_id: Made for a browser that has none; used when the body has none either.
        click_id: From the browser's cookie; used when the body has none.
    """

    workspace_id: UUID
    now: datetime
    client: Client
    anonymous_id: str | None = None
    new_anonymous_id: str | None = None
    click_id: UUID | None = None
    cookies: Mapping[str, str] | None = None
    consent: Consent | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """
    An item that was not taken.

    Attributes:
        index: Its place in the body; 0 for a body of one.
        where: Path to the value inside the item, such as `properties.plan`.
        reason: What is wrong with it, and what would be right.
    """

    index: int
    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class Claim:
    """
    A token that came with an item, to be checked by whoever holds the keys before the hit is trusted.

    Attributes:
        index: The item's place in the body.
    """

    hit: Hit
    token: str | None
    index: int = 0


class Beacon(msgspec.Struct, forbid_unknown_fields=True):
    """The body of one beacon item, as the tracker sends it."""

    event_id: UUID | None = None
    event_type: EventType = EventType.PAGEVIEW
    event_name: str | None = None
    url: str | None = None
    referrer: str | None = None
    title: str | None = None
    properties: dict[str, Any] | None = None  # read by `flat_properties`, which can name the place
    amount_cents: int | None = None
    currency: str | None = None
    engaged_ms: float | None = None
    scroll_depth: float | None = None
    ga_id: str | None = None
    anonymous_id: str | None = None
    fingerprint: str | None = None
    fbp: str | None = msgspec.field(name="_fbp", default=None)
    fbc: str | None = msgspec.field(name="_fbc", default=None)
    ttp: str | None = msgspec.field(name="_ttp", default=None)
    ga_ref: str | None = msgspec.field(name="_ga_ref", default=None)
    screen: str | None = None
    language: str | None = None
    timezone: str | None = None
    touch_points: Annotated[int, msgspec.Meta(ge=0, le=1_000)] | None = None
    key: str | None = None
    token: str | None = None
    external_id: str | None = None
    email: str | None = None
    name: str | None = None
    traits: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(Beacon)
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])


def read_beacon(body: bytes, edge: Edge, new_id: Callable[[], UUID]) -> tuple[list[Claim], list[Refused]]:
    """
    Read what a tracker sent: one item, or a list of at most 100.

    A body that cannot be read at all is one refusal with index 0. Never raises for anything that *body* can hold.
    """
    if len(body) > MAX_BODY:
        return [], [
            Refused(
                0,
                "",
                f"the body has {len(body)} bytes; at most {MAX_BODY} are read. Send fewer items at once",
            )
        ]
    stripped = body.strip()
    if not stripped:
        return [], [Refused(0, "", "the body is empty; send a JSON object, or a list of them")]
    if stripped[:1] != b"[":
        item = _read_item(stripped, 0, edge, new_id)
        return ([], [item]) if isinstance(item, Refused) else ([item], [])
    try:
        items = _decoded(_list_decoder, stripped)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return [], [Refused(0, "", unreadable(error)[1])]
    if not items:
        return [], [Refused(0, "", "the list is empty; send at least one item")]
    if len(items) > MAX_ITEMS:
        return [], [
            Refused(0, "", f"{len(items)} items; at most {MAX_ITEMS} are read at once. Send them in parts")
        ]
    claims: list[Claim] = []
    refusals: list[Refused] = []
    for index, raw in enumerate(items):
        item = _read_item(bytes(raw), index, edge, new_id)
        if isinstance(item, Refused):
            refusals.append(item)
        else:
            claims.append(item)
    return claims, refusals


def _without_halves(raw: bytes) -> bytes:
    """*raw* JSON without escapes of half a surrogate pair: what is left where a page cuts a title through an emoji."""
    return _ESCAPE.sub(lambda found: b"" if found["half"] else found[0], raw)


def _decoded(decoder: msgspec.json.Decoder[_Read], raw: bytes) -> _Read:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        mended = _without_halves(raw)
        if mended == raw:
            raise
        return decoder.decode(mended)


def _read_item(raw: bytes, index: int, edge: Edge, new_id: Callable[[], UUID]) -> Claim | Refused:
    try:
        return _hit_of(_decoded(_decoder, raw), index, edge, new_id)
    except Invalid as error:
        return Refused(index, error.where, error.reason)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        where, reason = unreadable(error)
        return Refused(index, where, reason)


def own_id(event_id: UUID, workspace_id: UUID) -> UUID:
    """*event_id* as a browser may choose it: one of version 5 could be a host's key (`id_for_key`), so it is not used as is."""
    return id_for_key(workspace_id, "browser event", str(event_id)) if event_id.version == 5 else event_id


def _hit_of(item: Beacon, index: int, edge: Edge, new_id: Callable[[], UUID]) -> Claim:
    amount_cents, currency = money(item.amount_cents, item.currency)
    if item.event_type not in BROWSER_TYPES:
        raise Invalid("event_type", f"{item.event_type.value!r} cannot come from a browser")
    if item.event_type is EventType.SALE and amount_cents is None:
        raise Invalid("amount_cents", "a sale needs its amount in minor units, such as 4900 for 49.00")
    client = edge.client
    if item.language or item.screen or item.timezone or item.touch_points is not None:
        client = msgspec.structs.replace(
            client,
            language=text(item.language, 35) or client.language,  # RFC 5646, section 4.4.1: 35 is enough
            screen=item.screen if item.screen and _SCREEN.fullmatch(item.screen) else None,
            timezone=text(item.timezone, 64),
            touch_points=item.touch_points,
        )
    key = text(item.key, MAX_TEXT)
    if item.event_id is not None and item.event_id.int:
        event_id = own_id(item.event_id, edge.workspace_id)
    else:
        event_id = id_for_key(edge.workspace_id, f"browser {item.event_type}", key) if key else new_id()
    hit = Hit(
        id=event_id,
        workspace_id=edge.workspace_id,
        received_at=edge.now,
        occurred_at=edge.now,
        event_type=item.event_type,
        origin="browser",
        name=text(item.event_name, 100),
        url=text(item.url, MAX_URL),
        referrer=text(item.referrer, MAX_URL),
        title=text(item.title),
        signals=Signals(
            external_id=text(item.external_id, MAX_ID),
            email=text(item.email, 254),  # RFC 5321, section 4.5.3.1.3 leaves 254 for an address
            name=text(item.name),
            traits=flat_properties(item.traits, "traits"),
            # The HttpOnly cookie is the browser's own; a body may be written by anybody.
            anonymous_id=edge.anonymous_id or text(item.anonymous_id, MAX_ID) or edge.new_anonymous_id,
            click_id=uuid_or_none(item.ga_id) or edge.click_id,
            fingerprint=text(item.fingerprint, MAX_ID),
        ),
        client=client,
        properties=flat_properties(item.properties),
        amount_cents=amount_cents,
        currency=currency,
        engaged_ms=_bounded("engaged_ms", item.engaged_ms, MAX_ENGAGED_MS, cut=True),
        scroll_depth=_bounded("scroll_depth", item.scroll_depth, 100),
        key=key,
        platform_signals=_platform_signals(item, edge.cookies or {}),
        consent=edge.consent,
    )
    return Claim(hit, text(item.token, 4_096), index)


def _bounded(name: str, value: float | None, most: int, *, cut: bool = False) -> int | None:
    if value is None:
        return None
    if not math.isfinite(value) or value < 0 or (value > most and not cut):
        raise Invalid(name, f"{value} is outside 0 to {most}")
    return min(int(value), most)


def _platform_signals(item: Beacon, cookies: Mapping[str, str]) -> dict[str, str]:
    """The pixels' own cookies, from the body first; anything that does not look like one is left out."""
    found = {
        "fbp": item.fbp or cookies.get("_fbp"),
        "fbc": item.fbc or cookies.get("_fbc"),
        "ttp": item.ttp or cookies.get("_ttp"),
    }
    return {name: value for name, value in found.items() if value and _SIGNAL.fullmatch(value)}


def refusals_text(refusals: Sequence[Refused]) -> str:
    """One line for a log or a problem's detail."""
    return "; ".join(f"[{r.index}]{'.' + r.where if r.where else ''}: {r.reason}" for r in refusals)
