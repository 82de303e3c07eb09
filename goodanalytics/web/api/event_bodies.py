"""
The body of one event, and how it becomes a hit that wants its visitor.

Rules of this file
1. A publishable key lies open in a page. It may not say when, from where or with what something was done, nor point by
   external id, which can be guessed; what it says is untrusted, as a beacon is.
2. A text that is merely too long is cut, as in `core.bounds`; what names somebody is refused instead, for a cut name is
   somebody else's.
3. A server speaks for its visitor: `context` says whose machine it was, and the caller's own address means nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from goodanalytics.core import bots, repetition, said
from goodanalytics.core.bounds import (
    MAX_ENGAGED_MS,
    MAX_ID,
    MAX_TEXT,
    MAX_URL,
    Invalid,
    Property,
    flat_properties,
    money,
    text,
)
from goodanalytics.core.clients import MAX_USER_AGENT
from goodanalytics.core.consent import Answer, Consent
from goodanalytics.core.hits import Client, EventType, Hit, Signals
from goodanalytics.core.orders import MAX_ITEMS, MAX_QUANTITY, Place, Reason
from goodanalytics.errors import Forbidden, InvalidInput
from goodanalytics.store.sales import SaleName
from goodanalytics.web.api.idempotency import digest_of, keyed_id
from goodanalytics.web.api.operations import Call, browser_id, printable
from goodanalytics.web.api.problems import Refusal
from goodanalytics.web.reading import visit_of

MAX_AHEAD = timedelta(minutes=5)  # clocks differ; what lies within is taken as now
MAX_AGE = timedelta(days=5 * 365 + 2)  # five years, of which one or two are leap years

Kind = Literal[
    "pageview",
    "custom",
    "engagement",
    "lead",
    "sale",
    "share",
    "session_start",
    "identify",
    "link_click",
    "refund",
]
"""What may be sent here: every `EventType`; a refund with a secret key only."""

SignalName = Literal[
    "fbp", "fbc", "ttp", "fbclid", "gclid", "gbraid", "wbraid", "li_fat_id", "ttclid", "_fbp", "_fbc", "_ttp"
]
_SIGNAL = re.compile(r"[A-Za-z0-9._-]{1,512}")

Name = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
Key = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]


class Context(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The visitor's own machine, when a server speaks for it. Only with a secret key."""

    ip: Annotated[str, Meta(description="IPv4 or IPv6 address of the visitor.")] | None = None
    user_agent: Annotated[str, Meta(description="Cut at 512 characters.")] | None = None


class OrderLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of an order."""

    id: Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
    name: str | None = None
    quantity: Annotated[int, Meta(ge=1, le=MAX_QUANTITY)] = 1
    price_cents: Annotated[int, Meta(ge=0, description="Of one piece, in minor units.")] | None = None
    category: str | None = None
    brand: str | None = None


class ConsentBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the person allowed ad platforms."""

    ad_user_data: Answer = "unknown"
    ad_personalization: Answer = "unknown"


class EventBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One event, and whose it is."""

    event_type: Annotated[Kind, Meta(description="What was done.")]
    visitor_id: Annotated[UUID, Meta(description="Whose event it is, by the visitor's id.")] | None = None
    person_external_id: (
        Annotated[Name, Meta(description="… by your own name for the person. Only with a secret key.")] | None
    ) = None
    ga_id: Annotated[UUID, Meta(description="… by the click that led to you.")] | None = None
    anonymous_id: Annotated[Name, Meta(description="… by the browser's random id.")] | None = None
    person_email: Annotated[str, Meta(min_length=1, max_length=254)] | None = None
    person_name: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)] | None = None
    person_phone: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    event_name: Annotated[str, Meta(description="Cut at 100 characters.")] | None = None
    url: Annotated[str, Meta(description=f"Cut at {MAX_URL} characters.")] | None = None
    referrer: Annotated[str, Meta(description=f"Cut at {MAX_URL} characters.")] | None = None
    title: Annotated[str, Meta(description=f"Cut at {MAX_TEXT} characters.")] | None = None
    properties: (
        Annotated[
            dict[str, Property],
            Meta(description="At most 50 strings, numbers, booleans and nulls; not nested."),
        ]
        | None
    ) = None
    amount_cents: (
        Annotated[int, Meta(description="Minor units of the currency: 4900 is 49.00. A sale needs it.")]
        | None
    ) = None
    currency: Annotated[str, Meta(description="Three letters (ISO 4217). An amount needs it.")] | None = None
    engaged_ms: (
        Annotated[int, Meta(ge=0, le=MAX_ENGAGED_MS, description="Milliseconds spent, for `engagement`.")]
        | None
    ) = None
    scroll_depth: (
        Annotated[int, Meta(ge=0, le=100, description="Per cent of the page, for `engagement`.")] | None
    ) = None
    idempotency_key: (
        Annotated[
            Key, Meta(description="Your own name for this event; the same as the header `Idempotency-Key`.")
        ]
        | None
    ) = None
    connector_signals: (
        Annotated[
            dict[SignalName, str],
            Meta(description="What an ad platform's pixel left in the visitor's browser."),
        ]
        | None
    ) = None
    contents: (
        Annotated[list[OrderLine], Meta(max_length=MAX_ITEMS, description="Lines of an order.")] | None
    ) = None
    place: Annotated[Place, Meta(description="Where an order was placed.")] = "website"
    consent: ConsentBody | None = None
    sale_key: Annotated[Key, Meta(description="Of a refund: the key of its sale.")] | None = None
    sale_id: Annotated[UUID, Meta(description="… or the sale's event id.")] | None = None
    reason: Annotated[Reason, Meta(description="Why a sale is given back.")] | None = None
    context: Context | None = None
    timestamp: (
        Annotated[
            datetime,
            Meta(
                tz=True,
                description="When it happened (RFC 3339 with an offset), at most five years ago; now unless given. "
                "Only with a secret key.",
            ),
        ]
        | None
    ) = None


Pointer = tuple[str, str | UUID]
"""What finds a visitor: an identity's kind and value, or `("visitor", id)`."""


@dataclass(frozen=True, slots=True)
class Draft:
    """
    A hit that wants its visitor.

    Attributes:
        pointers: The first that is known decides. A lead or sale without any is told of somebody who may not be known yet.
        sale: Of a refund: what its sale is called; its visitor is the sale's.
    """

    hit: Hit
    pointers: tuple[Pointer, ...]
    sale: SaleName | None = None


def draft(call: Call, body: EventBody) -> Draft:
    """
    What *body* says, as a hit.

    Raises:
        Invalid: A value is out of its bounds.
        InvalidInput: Nothing says whose event it is.
        Forbidden: It says what only a secret key may.
        Refusal: 403, the browser behind a publishable key asks not to be followed.
    """
    if not call.trusted:
        _refuse_what_only_a_server_says(body)
    is_bare = body.event_type == "refund" and body.currency is None  # its sale knows the currency
    amount_cents, currency = money(body.amount_cents, "XXX" if is_bare else body.currency)
    event_type = EventType(body.event_type)
    if event_type is EventType.SALE and amount_cents is None:
        raise Invalid("amount_cents", "a sale needs its amount in minor units, such as 4900 for 49.00")
    key = printable("idempotency_key", body.idempotency_key)
    if key != body.idempotency_key:
        raise Invalid("idempotency_key", "has control characters or outer blanks; send it without")
    sale = _sale(body)
    pointers = () if sale is not None or _is_of_nobody(body) else _pointers(body)
    hit = Hit(
        id=keyed_id(call, key, body.event_type),
        workspace_id=call.workspace_id,
        received_at=call.now,
        occurred_at=_occurred_at(body.timestamp, call.now),
        event_type=event_type,
        origin="server" if call.trusted else "browser",
        trusted=call.trusted,
        name=text(body.event_name, 100),
        url=text(body.url, MAX_URL),
        referrer=text(body.referrer, MAX_URL),
        title=text(body.title),
        signals=Signals(
            email=printable("person_email", body.person_email),
            phone=printable("person_phone", body.person_phone),
            name=printable("person_name", body.person_name),
        ),
        client=_client(call, body, event_type),
        properties=flat_properties(body.properties),
        amount_cents=amount_cents,
        currency=None if is_bare else currency,
        engaged_ms=body.engaged_ms,
        scroll_depth=body.scroll_depth,
        key=key,
        platform_signals=_platform_signals(body.connector_signals or {}),
        consent=None if body.consent is None else Consent(**msgspec.structs.asdict(body.consent)),
        place=body.place,
        contents=said.items([msgspec.structs.asdict(line) for line in body.contents or ()]),
        reason=(body.reason or "refund") if sale is not None else None,
    )
    if key is not None:
        whole = digest_of(msgspec.structs.replace(body, idempotency_key=None))
        hit = msgspec.structs.replace(hit, digest=repetition.digest(hit, "api", whole))
    return Draft(hit, pointers, sale)


def _sale(body: EventBody) -> SaleName | None:
    """What a refund calls its sale; `None` for everything else."""
    if body.event_type != "refund":
        for name in ("sale_key", "sale_id", "reason"):
            if getattr(body, name) is not None:
                raise Invalid(name, f"belongs to a refund, and this is a {body.event_type}; leave it out")
        return None
    if body.amount_cents is not None and body.amount_cents <= 0:
        raise Invalid(
            "amount_cents", "a refund gives back a positive number of minor units, or all when left out"
        )
    if (body.sale_key is None) == (body.sale_id is None):
        raise Invalid(
            "sale_key", "a refund needs the key of its sale, or its event id in sale_id; send one of the two"
        )
    return body.sale_id or body.sale_key


def _is_of_nobody(body: EventBody) -> bool:
    """Whether a lead or sale says who it is by address only, so that it is theirs once they are known."""
    named = (body.visitor_id, body.person_external_id, body.ga_id, body.anonymous_id)
    says = (body.person_email, body.person_phone)
    return body.event_type in ("lead", "sale") and not any(named) and any(says)


def _refuse_what_only_a_server_says(body: EventBody) -> None:
    if body.event_type == "refund" or _is_of_nobody(body):
        raise Forbidden(
            f"A {body.event_type} of this kind needs a secret key; a publishable key lies open to everybody"
        )
    for name in ("timestamp", "context", "person_external_id"):
        if getattr(body, name) is not None:
            raise Forbidden(
                f"{name} needs a secret key; a publishable key lies open to everybody. Leave it out"
            )


def _pointers(body: EventBody) -> tuple[Pointer, ...]:
    if body.visitor_id is not None:
        return (("visitor", body.visitor_id),)
    external_id = printable("person_external_id", body.person_external_id)
    if external_id is not None:
        return (("external_id", external_id),)
    found: list[Pointer] = []
    if body.ga_id is not None:
        found.append(("click", body.ga_id))
    anonymous_id = browser_id("anonymous_id", body.anonymous_id)
    if anonymous_id is not None:
        found.append(("anonymous_id", anonymous_id))
    if not found:
        raise InvalidInput(
            "The event is nobody's; send visitor_id, person_external_id, ga_id or anonymous_id"
        )
    return tuple(found)


def _occurred_at(timestamp: datetime | None, now: datetime) -> datetime:
    if timestamp is None:
        return now
    if timestamp > now + MAX_AHEAD:
        raise Invalid("timestamp", f"lies in the future; it is {now.isoformat()} here")
    if timestamp < now - MAX_AGE:
        raise Invalid("timestamp", "lies more than five years back; older events are not taken")
    return min(timestamp.astimezone(now.tzinfo), now)


_VOUCHED = frozenset({EventType.IDENTIFY, EventType.LEAD, EventType.SALE, EventType.REFUND})
"""What a server says only after it has dealt with a person, whatever that person's user agent is."""


def _client(call: Call, body: EventBody, event_type: EventType) -> Client:
    """The visitor's machine: the caller itself behind a publishable key, else what a server says of it."""
    if not call.trusted:
        visit = visit_of(call.request.scope, call.room.config)
        if visit.refusal is not None:
            raise Refusal(403, "not_followed", f"This visitor is not followed: {visit.refusal}.")
        return visit.client
    context = body.context or Context()
    user_agent = text(context.user_agent, MAX_USER_AGENT)
    is_judged = user_agent is not None and event_type not in _VOUCHED
    return Client(
        ip=_address(context.ip),
        user_agent=user_agent,
        bot=next(iter(bots.judge(user_agent).reasons), None) if is_judged else None,
        bot_version=bots.VERSION if is_judged else None,
    )


def _address(given: str | None) -> str | None:
    if given is None:
        return None
    try:
        address = ipaddress.ip_address(given)
    except ValueError:
        raise Invalid("context.ip", f"{given[:64]!r} is no address; send one such as 203.0.113.7") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise Invalid(
                "context.ip", "has a zone, which means something on one machine only; send it without"
            )
        address = address.ipv4_mapped or address
    return str(address)


def _platform_signals(given: Mapping[SignalName, str]) -> dict[str, str]:
    for name, value in given.items():
        if not _SIGNAL.fullmatch(value):
            raise Invalid(
                f"connector_signals.{name}",
                "is not what that platform writes: 1 to 512 letters, digits, . _ -",
            )
    return {name.removeprefix("_"): value for name, value in given.items()}
