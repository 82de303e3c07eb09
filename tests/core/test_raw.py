"""Raw beacons and clicks: what is taken without being read can always be read later."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goodanalytics.core import raw
from goodanalytics.core.beacons import Beacon, Edge, read_beacon
from goodanalytics.core.clicks import Clicked
from goodanalytics.core.hits import Client, Hit
from goodanalytics.log.postgres import shard_of

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
WORKSPACE = uuid.UUID("0190a000-0000-7000-8000-000000000001")
NAMES = [f.encode_name for f in msgspec.structs.fields(Beacon)]

SCALARS: Any = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.sampled_from(["pageview", "custom", "engagement", "sale", "1280x720", "EUR", "\ud800", "\x00", " "])
    | st.uuids().map(str)
)
VALUES: Any = SCALARS | st.dictionaries(
    st.text(max_size=70), SCALARS | st.lists(SCALARS, max_size=2), max_size=4
)
BODIES = st.dictionaries(st.sampled_from([*NAMES, "unknown"]), VALUES, max_size=8)


def a_raw(body: bytes) -> raw.RawBeacon:
    return raw.RawBeacon(WORKSPACE, NOW, "a-browser", body)


@settings(deadline=None, max_examples=1_000)
@given(BODIES, st.booleans())
def test_what_is_sound_can_always_be_read(content: dict[str, Any], has_id: bool) -> None:  # drawn
    """No body that the edge takes unread is refused by the worker; and it is one hit, with the sender's own id."""
    if has_id:
        content = {**content, "event_id": "0197a0aa-7f41-7c4c-8a2e-0123456789ab"}
    body = json.dumps(content).encode()
    if not raw.is_sound(body):
        return
    claims, refusals = read_beacon(body, Edge(WORKSPACE, NOW, Client(), anonymous_id="a-browser"), uuid.uuid4)

    assert (len(claims), refusals) == (1, [])
    assert (claims[0].token, claims[0].hit.trusted, claims[0].hit.amount_cents) == (None, False, None)
    assert isinstance(raw.hit_of(a_raw(body)), Hit)


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=200))
def test_any_bytes_are_sound_or_not(body: bytes) -> None:
    """What is no JSON at all is not sound, and nothing raises."""
    assert raw.is_sound(body) in (True, False)


CLICKED = Clicked(
    WORKSPACE, "go.example", "a", "https://shop.example/", ("news", None, None, None, None), ("shop.example",)
)
MACHINE = raw.Machine(b"Mozilla/5.0 (X11; Linux x86_64) Firefox/143.0", b"de-DE,de;q=0.9", [b"x"])


def a_click(**members: Any) -> raw.RawClick:
    link, machine = raw.packed_part(CLICKED), raw.packed_part(MACHINE)
    return raw.RawClick(WORKSPACE, NOW, "a-browser", WORKSPACE, link, machine, **members)


def test_a_click_is_told_from_a_beacon() -> None:
    """Both are lists in the log; each is read as what it is."""
    click = raw.decoded(raw.encoded(a_click(referrer=b"https://t.co/", ip="203.0.113.7", country="NL")))
    beacon = raw.decoded(raw.encoded(a_raw(b'{"event_id":"0197a0aa-7f41-7c4c-8a2e-0123456789ab"}')))

    assert click is not None
    assert beacon is not None
    assert (click.event_type, click.link_id, click.referrer) == ("link_click", WORKSPACE, "https://t.co/")
    assert (click.client.ip, click.client.country, click.client.language) == ("203.0.113.7", "NL", "de-DE")
    assert (beacon.event_type, beacon.link_id) == ("pageview", None)


@pytest.mark.parametrize(
    "entry",
    [
        a_raw(b'{"event_id":"0197a0aa-7f41-7c4c-8a2e-0123456789ab","title":"h"}'),
        a_click(referrer=b"https://t.co/"),
    ],
    ids=["beacon", "click"],
)
@settings(deadline=None, max_examples=400)
@given(data=st.data())
def test_damage_never_breaks_the_reader(entry: raw.Entry, data: st.DataObject) -> None:
    """An entry whose bytes were damaged anywhere is a hit or none, never an error."""
    body = bytearray(raw.encoded(entry))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))

    assert isinstance(raw.decoded(bytes(body)), Hit | None)


def test_what_is_packed_is_the_beacon_as_the_log_keeps_it() -> None:
    """The members that the edge packs are those of the object, in their order; and so is its browser's number."""
    members = [
        *(WORKSPACE, NOW, "a-browser", b"{}", b"a-click", "203.0.113.9", "NL", b"Firefox", b"de"),
        *([b"a", None, b"c"], {b"_fbp": b"fb.1.2.3"}),
    ]
    beacon = raw.RawBeacon(*members)  # type: ignore[arg-type]  # of many types
    packed = raw.packed(members, WORKSPACE, "a-browser")

    assert len(members) == len(raw.RawBeacon.__struct_fields__)
    assert raw.encoded(packed) == raw.encoded(beacon)
    assert shard_of(packed) == shard_of(beacon)
