"""
A beacon and a click as they came: what the log holds before anybody has read it with care.

Making a hit durable must cost next to nothing, so the edge only makes sure that reading cannot fail and keeps the bytes; the
worker reads them. Rules of this file
1. `is_sound` says yes only to what `core.beacons.read_beacon` turns into a hit whatever else is known; a test compares the two.
   What it says no to is not wrong: it may need a word with the client, a token, or a closer look.
2. Of the request, only what a hit is made of is kept. The cookies are ours and the pixels', by name: the header as a whole
   has the host's sessions in it.
3. Of a click, what is the same for all clicks of a link, and for all requests of a machine, is encoded once (`packed_part`).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from goodanalytics.core.beacons import Edge, read_beacon
from goodanalytics.core.bounds import MAX_KEY, MAX_PROPERTIES, uuid_or_none
from goodanalytics.core.clicks import Clicked, click_hit
from goodanalytics.core.clients import HINTS, MAX_HINT, machine_of
from goodanalytics.core.hits import Client, Hit


class RawBeacon(msgspec.Struct, frozen=True, array_like=True):
    """
    One beacon of one item, with what the server saw of its request. Header values are the bytes that came.

    Attributes:
        anonymous_id: The browser's own, out of its cookie.
        click_id: Out of its cookie; anything may stand there.
        ip, country: After trusted proxies, as `Client` has them.
        hints: Client hint headers in the order of `HINTS`; none at all without the first.
        pixels: The cookies `_fbp`, `_fbc` and `_ttp`, by name.
    """

    workspace_id: UUID
    received_at: datetime
    anonymous_id: str
    body: bytes
    click_id: bytes | None = None
    ip: str | None = None
    country: str | None = None
    user_agent: bytes | None = None
    languages: bytes | None = None
    hints: list[bytes | None] = []
    pixels: dict[bytes, bytes] = {}


class Machine(msgspec.Struct, frozen=True, array_like=True):
    """
    What a request says of the browser that sent it, in the bytes that came.

    Attributes:
        hints: Values of `core.clients.HINTS`, in this order; `None` where there is none.
    """

    user_agent: bytes | None
    languages: bytes | None
    hints: list[bytes | None] = []


class RawClick(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """
    One click of a person on a link that leads everybody to the same address, by a request without a query.

    Attributes:
        workspace_id: The link's.
        link: A `Clicked`, packed.
        machine: A `Machine`, packed.
        referrer: The header's bytes.
        ip, country: After trusted proxies, as `Client` has them.
    """

    workspace_id: UUID
    received_at: datetime
    anonymous_id: str
    click_id: UUID
    link: msgspec.Raw
    machine: msgspec.Raw
    referrer: bytes | None = None
    ip: str | None = None
    country: str | None = None


class Packed(msgspec.Struct, frozen=True, gc=False):
    """
    An entry as the log and the spool keep it, made once where the request is answered.

    Attributes:
        browser: `key_of` its browser: entries with the same number stay in their order.
        body: As `encoded` has it.
    """

    browser: int
    body: bytes


Entry = Hit | RawBeacon | RawClick | Packed
"""What the log holds."""

_Whole = Annotated[int, Meta(ge=-(2**63) + 1, le=2**63 - 1)]
_Name = Annotated[str, Meta(max_length=MAX_KEY)]


class _Sound(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A beacon as nearly all are; the names of `core.beacons.Beacon`."""

    event_id: UUID
    event_type: str = "pageview"
    event_name: str | None = None
    url: str | None = None
    referrer: str | None = None
    title: str | None = None
    properties: (
        Annotated[dict[_Name, str | _Whole | float | bool | None], Meta(max_length=MAX_PROPERTIES)] | None
    ) = None
    engaged_ms: Annotated[float, Meta(ge=0, lt=2**53)] | None = None
    scroll_depth: Annotated[float, Meta(ge=0, le=100)] | None = None
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
    touch_points: Annotated[int, Meta(ge=0, le=1_000)] | None = None


PIXELS = (b"_fbp", b"_fbc", b"_ttp")
"""The cookies of the platforms' own scripts that `core.beacons` takes."""

_PLAIN_TYPES = frozenset({"pageview", "custom", "engagement", "share", "session_start"})
"""Those that claim nothing about money or names."""

_NAME = lru_cache(4_096)(re.compile(r"[A-Za-z0-9_. -]*[A-Za-z0-9_]").fullmatch)
_sound = msgspec.json.Decoder(_Sound).decode
_encode = msgspec.msgpack.Encoder().encode
_hit = msgspec.msgpack.Decoder(Hit).decode
_raw = msgspec.msgpack.Decoder(RawBeacon).decode
_click = msgspec.msgpack.Decoder(RawClick).decode
_clicked = msgspec.msgpack.Decoder(Clicked).decode
_machine = msgspec.msgpack.Decoder(Machine).decode


def is_sound(body: bytes) -> bool:
    """Whether *body* is one plain item that can be read later without a doubt."""
    try:
        item = _sound(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return (
        item.event_type in _PLAIN_TYPES
        and item.event_id.int != 0
        and (item.properties is None or all(map(_NAME, item.properties)))
    )


def hit_of(raw: RawBeacon) -> Hit | None:
    """The hit that *raw* is; `None` when it cannot be read, which a sound one always can."""
    edge = Edge(
        workspace_id=raw.workspace_id,
        now=raw.received_at,
        client=_client(Machine(raw.user_agent, raw.languages, raw.hints), raw.ip, raw.country),
        anonymous_id=raw.anonymous_id,
        click_id=None if raw.click_id is None else uuid_or_none(_text(raw.click_id)),
        cookies={_text(name): _text(value) for name, value in raw.pixels.items()},
    )
    claims, _ = read_beacon(raw.body, edge, _no_id)
    return claims[0].hit if claims else None


def hit_of_click(raw: RawClick) -> Hit:
    """The hit that *raw* is."""
    return click_hit(
        raw.workspace_id,
        _clicked(raw.link),
        raw.click_id,
        raw.received_at,
        client=_client(_machine(raw.machine), raw.ip, raw.country),
        anonymous_id=raw.anonymous_id,
        referrer=None if raw.referrer is None else _text(raw.referrer),
    )


def _client(machine: Machine, ip: str | None, country: str | None) -> Client:
    hints = tuple(
        (name, _text(value)[:MAX_HINT])
        for name, value in zip(HINTS, machine.hints, strict=False)
        if value is not None
    )
    agent = None if machine.user_agent is None else _text(machine.user_agent)
    found = machine_of(agent, _text(machine.languages or b""), hints)
    return msgspec.structs.replace(found, ip=ip, country=country)


def packed_part(part: Clicked | Machine) -> msgspec.Raw:
    """*part*, ready to stand in many clicks."""
    return msgspec.Raw(_encode(part))


def key_of(workspace_id: UUID, who: object) -> int:
    """A number of 32 bits for *who* within a workspace, the same in every process."""
    return zlib.crc32(str(who).encode(), workspace_id.int & 0xFFFFFFFF)


def packed(raw: Sequence[object], workspace_id: UUID, anonymous_id: str) -> Packed:
    """The entry of the `RawBeacon` whose members are *raw*, without the object in between: one is made for each request."""
    return Packed(key_of(workspace_id, anonymous_id), _encode(raw))


def encoded(entry: Entry) -> bytes:
    """*entry* as the log and the spool keep it (msgpack): a hit as a map, a raw one as a list."""
    return entry.body if isinstance(entry, Packed) else _encode(entry)


def decoded(body: bytes) -> Hit | None:
    """The hit in *body*, whichever way it was kept; `None` when it cannot be read."""
    try:
        if not is_raw(body):
            return _hit(body)
        return hit_of_click(_click(body)) if body[1:2] == _TAG else hit_of(_raw(body))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # Text that is no UTF-8 raises a ValueError, and not one of msgspec's.
        return None


_TAG = b"\x01"
"""A click begins with this number, a beacon with the text of a UUID."""


def is_raw(body: bytes) -> bool:
    """Whether *body* is a raw beacon or click: msgpack's lists of up to 15 members begin with 0x90 to 0x9f."""
    return body[:1] >= b"\x90" and body[:1] <= b"\x9f"


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _no_id() -> UUID:
    """A raw beacon has an id of its own; nothing is made up when it is read a second time."""
    raise ValueError("a raw beacon without event_id")
