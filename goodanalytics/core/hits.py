"""
The Hit: everything that anyone does, as one small immutable value; and how a beacon's bytes become one.

Rules of this file
1. A beacon is hostile. Workspace, address, user agent and time come from the `Edge` (what the server saw itself), never
   from the body.
2. A field of the wrong type, an unknown field or an unreadable number refuses the item, and says where. A text that is
   merely too long is cut; what no text needs is removed: control characters (PostgreSQL refuses NUL), halves of surrogate
   pairs, and the characters that turn the direction of what is shown beside them.
3. One bad item does not sink its neighbours: `read_beacon` answers hits and refusals side by side, each with its index.
4. A Hit's id is its idempotency key. The browser sends `event_id`; a host's own key becomes an id by `id_for_key`. What a
   browser sends never becomes an id that a host's key could become: it would use up the host's order before it is placed.

Bounds, per item: a body of 64 KiB, 100 items a body, 50 properties, keys of 64 and values of 1,024 characters, URLs of
2,083 characters (the longest that Internet Explorer accepted, and what the original keeps), other texts of 255.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

import msgspec

from goodanalytics.core.consent import Consent
from goodanalytics.core.orders import Item, Place, Reason

MAX_BODY = 64 * 1024  # bytes
MAX_ITEMS = 100
MAX_PROPERTIES = 50
MAX_KEY = 64  # characters
MAX_VALUE = 1_024  # characters
MAX_TEXT = 255  # characters
MAX_ID = 128  # characters
MAX_URL = 2_083  # characters
MAX_DEPTH = 8  # of lists and objects, in a body that is read before its types are known
MAX_ENGAGED_MS = 30 * 60 * 1_000  # a ping that claims more than half an hour is cut to it
MAX_AMOUNT_CENTS = 10**15  # ten trillion of the major unit; a bigint holds 9,000 times as much

Property = str | int | float | bool | None


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


class Invalid(Exception):
    """
    A value that is out of its bounds; raised by the checks here and caught where an item is read.

    Attributes:
        where: Path to the value inside the item, such as `properties.plan`.
        reason: What is wrong with it, and what would be right.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(reason)
        self.where = where
        self.reason = reason


# The last two ranges open and close a change of direction (Unicode Standard Annex 9, sections 2.1 to 2.5).
_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\u202a-\u202e\u2066-\u2069]"
)
_SPACE = re.compile(r"[\t\r\n]+")
_CURRENCY = re.compile(r"[A-Za-z]{3}")
_SCREEN = re.compile(r"[0-9]{1,5}x[0-9]{1,5}")
_AT_PATH = re.compile(r"^(?P<reason>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_Read = TypeVar("_Read")
_decoder = msgspec.json.Decoder(Beacon)
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])


def text(value: str | None, limit: int = MAX_TEXT) -> str | None:
    """*value* without control characters and outer blanks, at most *limit* characters; `None` when nothing is left."""
    if value is None:
        return None
    if not value.isprintable():
        value = _CONTROL.sub("", _SPACE.sub(" ", value))
    return value.strip()[:limit].rstrip() or None


def uuid_or_none(value: str | None) -> UUID | None:
    """*value* as a UUID; `None` when it is not one, or the nil UUID, which many clients send for "none"."""
    if value is None or len(value) != 36:
        return None
    try:
        found = UUID(value)
    except ValueError:
        return None
    return found if found.int else None


def id_for_key(workspace_id: UUID, scope: str, key: str) -> UUID:
    """The hit id that stands for a caller's idempotency *key*: the same key is the same hit (RFC 9562 version 5)."""
    return uuid.uuid5(workspace_id, f"{scope}\n{key}")


def flat_properties(value: Mapping[str, Any] | None, where: str = "properties") -> dict[str, Property]:
    """
    Check and bound a property map: flat strings, whole and broken numbers, booleans and nulls.

    Strings are cleaned and cut; a number that PostgreSQL or JavaScript cannot hold is refused.
    """
    if not value:
        return {}
    if len(value) > MAX_PROPERTIES:
        raise Invalid(where, f"{len(value)} properties; at most {MAX_PROPERTIES} are kept. Send fewer")
    kept: dict[str, Property] = {}
    for raw_key, item in value.items():
        key = text(raw_key, MAX_KEY)
        if key is None:
            raise Invalid(where, "a property has an empty name")
        kept[key] = _property(item, f"{where}.{key}")
    return kept


def _property(item: object, where: str) -> Property:
    match item:
        case None | bool():
            return item
        case int():
            if abs(item) >= 2**63:
                raise Invalid(where, "a whole number beyond 64 bits; send it as a string")
            return item
        case float():
            if not math.isfinite(item):
                raise Invalid(where, "a number that is not finite")
            return item
        case str():
            return text(item, MAX_VALUE)
        case _:
            raise Invalid(
                where, f"{type(item).__name__} values are not kept; send strings, numbers, booleans or null"
            )


def money(amount_cents: int | None, currency: str | None) -> tuple[int | None, str | None]:
    """Check an amount in minor units and its ISO 4217 currency code, which comes back in upper case."""
    if amount_cents is not None and not 0 <= amount_cents <= MAX_AMOUNT_CENTS:
        raise Invalid(
            "amount_cents",
            f"{str(amount_cents)[:20]} is outside 0 to {MAX_AMOUNT_CENTS}; send minor units, such as 4900 for 49.00",
        )
    if currency is not None:
        if not _CURRENCY.fullmatch(currency):
            raise Invalid(
                "currency", f"{currency[:20]!r} is not a currency code; send three letters such as EUR"
            )
        currency = currency.upper()
    if amount_cents and currency is None:
        raise Invalid("currency", "an amount needs its currency; send three letters such as EUR")
    return amount_cents, currency


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


# A pair of surrogates, half of one, or any other escape.
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)


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


def unreadable(error: Exception) -> tuple[str, str]:
    """Where and why, from a decoder's exception; never quotes the body, which may hold anything."""
    if isinstance(error, RecursionError):
        return "", "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "", "not UTF-8"
    found = _AT_PATH.match(str(error))
    path, reason = (found["path"] or "", found["reason"]) if found else ("", str(error))
    return path.removeprefix("$").removeprefix("."), text(reason, MAX_TEXT) or "not readable"


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


_SIGNAL = re.compile(r"[A-Za-z0-9._-]{1,512}")


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
