"""Reading a beacon: what is kept, what is cut, what is refused and where."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goodanalytics.core.beacons import Claim, Edge, Refused, read_beacon, refusals_text
from goodanalytics.core.bounds import (
    MAX_AMOUNT_CENTS,
    MAX_BODY,
    MAX_ENGAGED_MS,
    MAX_ITEMS,
    MAX_PROPERTIES,
)
from goodanalytics.core.hits import BROWSER_TYPES, Client, EventType, Hit, id_for_key
from goodanalytics.core.repetition import digest_of

WORKSPACE = UUID(int=7)
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
EVENT_ID = UUID("0190a000-0000-7000-8000-000000000001")
_ids = itertools.count(1)


def new_id() -> UUID:
    return UUID(int=next(_ids))


def edge(**facts: Any) -> Edge:
    defaults: dict[str, Any] = {"workspace_id": WORKSPACE, "now": NOW, "client": Client(ip="203.0.113.7")}
    return Edge(**(defaults | facts))


def read(body: bytes | object, **facts: Any) -> tuple[list[Claim], list[Refused]]:
    return read_beacon(body if isinstance(body, bytes) else json.dumps(body).encode(), edge(**facts), new_id)


def taken(item: bytes | object, **facts: Any) -> Hit:
    (claim,), refusals = read(item, **facts)
    assert refusals == []
    return claim.hit


def refused(item: bytes | object) -> Refused:
    claims, (refusal,) = read(item)
    assert claims == []
    return refusal


def strings(value: object) -> Iterator[str]:
    """Every text in *value*, keys of maps among them."""
    match value:
        case str():
            yield value
        case dict():
            for key, item in value.items():
                yield from strings(key)
                yield from strings(item)
        case list() | tuple():
            for item in value:
                yield from strings(item)
        case _:
            pass


# What is taken -------------------------------------------------------------------------------------------------------


def test_an_empty_object_is_a_pageview() -> None:
    """Everything has a default; workspace, address and time are the server's."""
    hit = taken({})

    assert (hit.event_type, hit.origin, hit.trusted) == (EventType.PAGEVIEW, "browser", False)
    assert (hit.workspace_id, hit.received_at, hit.occurred_at, hit.client.ip) == (
        WORKSPACE,
        NOW,
        NOW,
        "203.0.113.7",
    )


def test_a_full_item_is_kept() -> None:
    """Every field of the surface finds its place."""
    hit = taken({
        "event_id": str(EVENT_ID), "event_type": "custom", "event_name": "Video played", "url": "https://shop.test/v",
        "referrer": "https://google.com/", "title": "Video", "properties": {"plan": "pro", "n": 3, "f": 1.5, "b": True, "z": None},
        "engaged_ms": 1500.9, "scroll_depth": 33.3, "ga_id": str(EVENT_ID), "anonymous_id": "anon", "fingerprint": "fp",
        "_fbp": "fb.1.2.3", "_fbc": "fb.1.2.x", "_ttp": "t", "_ga_ref": "r", "screen": "1280x720", "language": "de-AT",
        "timezone": "Europe/Vienna", "touch_points": 5, "key": "k", "external_id": "ann", "email": "a@x.test",
        "name": "Ann", "traits": {"t": 1},
    })  # fmt: skip

    assert (hit.id, hit.name, hit.title, hit.key) == (EVENT_ID, "Video played", "Video", "k")
    assert hit.properties == {"plan": "pro", "n": 3, "f": 1.5, "b": True, "z": None}
    assert (hit.engaged_ms, hit.scroll_depth) == (1500, 33)
    assert (hit.signals.click_id, hit.signals.anonymous_id, hit.signals.traits) == (
        EVENT_ID,
        "anon",
        {"t": 1},
    )
    assert hit.platform_signals == {"fbp": "fb.1.2.3", "fbc": "fb.1.2.x", "ttp": "t"}
    assert (hit.client.screen, hit.client.language, hit.client.timezone, hit.client.touch_points) == (
        "1280x720", "de-AT", "Europe/Vienna", 5,
    )  # fmt: skip


@pytest.mark.parametrize("event_type", sorted(BROWSER_TYPES))
def test_every_word_of_the_surface_is_read(event_type: EventType) -> None:
    """A browser may claim every type but a refund."""
    assert taken({"event_type": event_type, "amount_cents": 1, "currency": "EUR"}).event_type is event_type


@pytest.mark.parametrize(
    ("of_cookie", "of_body", "expected"),
    [
        ("cookie", "body", "cookie"),
        ("cookie", None, "cookie"),
        (None, "body", "body"),
        (None, None, "new"),
        (None, " \x00 ", "new"),
    ],
)
def test_the_browsers_own_cookie_beats_what_a_body_says(of_cookie: Any, of_body: Any, expected: str) -> None:
    """The HttpOnly cookie goes first, then the body, then an id made now."""
    hit = taken({"anonymous_id": of_body}, anonymous_id=of_cookie, new_anonymous_id="new")

    assert hit.signals.anonymous_id == expected


@pytest.mark.parametrize("ga_id", [None, "", "not-a-uuid", "00000000-0000-0000-0000-000000000000", "x" * 500])
def test_a_click_id_that_is_none_gives_way_to_the_cookie(ga_id: str | None) -> None:
    """Whatever is not a UUID names no click, and refuses nothing."""
    assert taken({"ga_id": ga_id}, click_id=EVENT_ID).signals.click_id == EVENT_ID


# Ids -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event_id", [None, "00000000-0000-0000-0000-000000000000"])
def test_without_an_id_each_item_is_new(event_id: str | None) -> None:
    """No id and the nil UUID both mean that the edge makes one."""
    assert taken({"event_id": event_id}).id != taken({"event_id": event_id}).id


def test_a_key_is_one_hit_for_each_type() -> None:
    """The same key is the same hit; under another type it is another."""
    one, again, other = (
        taken({"key": "order-1", "event_type": event_type}).id for event_type in ("custom", "custom", "share")
    )

    assert one == again != other


@pytest.mark.parametrize(
    "item", [{"key": "order-1"}, {"event_id": str(id_for_key(WORKSPACE, "sale", "order-1"))}]
)
def test_a_page_cannot_use_up_the_hosts_key(item: dict[str, str]) -> None:
    """A claim never has the id of the host's own sale, or the real sale would be taken for a repetition and lost."""
    claim = taken({"event_type": "sale", "amount_cents": 1, "currency": "EUR", **item})

    assert claim.id != id_for_key(WORKSPACE, "sale", "order-1")


def test_an_id_of_version_5_still_makes_a_retry_one_hit() -> None:
    """An id that may not be used as it is gives the same other id each time."""
    event_id = str(uuid5(WORKSPACE, "x"))

    assert taken({"event_id": event_id}).id == taken({"event_id": event_id}).id


# What is cut and removed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "limit"),
    [("url", 2_083), ("referrer", 2_083), ("title", 255), ("event_name", 100), ("key", 255)],
)
def test_long_texts_are_cut(field: str, limit: int) -> None:
    """A text that is too long loses its end and refuses nothing."""
    hit = taken({field: "x" * 5_000})

    assert len(getattr(hit, {"event_name": "name"}.get(field, field))) == limit


@pytest.mark.parametrize(
    ("field", "limit"), [("anonymous_id", 128), ("fingerprint", 128), ("external_id", 128), ("email", 254)]
)
def test_long_signals_are_cut(field: str, limit: int) -> None:
    """Signals are bounded, so that none is too long for an index."""
    assert len(getattr(taken({field: "x" * 5_000}).signals, field)) == limit


def test_properties_are_cut_by_key_and_value() -> None:
    """Keys have 64 characters and values 1,024."""
    hit = taken({"properties": {"k" * 100: "v" * 2_000}})

    assert hit.properties == {"k" * 64: "v" * 1_024}


@pytest.mark.parametrize("escape", [rb"\ud83d", rb"\uDE00", rb"\ud83d\ud83d", rb"\ude00\ud83d", rb"\ud83dx"])
def test_half_an_emoji_costs_half_an_emoji(escape: bytes) -> None:
    """A page that cuts a title through a surrogate pair sends half of it; the hit is kept without that half."""
    hit = taken(rb'[{"title": "sale ' + escape + rb'", "url": "https://shop.test/"}]')

    assert hit.title in ("sale", "sale x")


def test_only_halves_are_removed() -> None:
    """Whole pairs and written backslashes stay where they are."""
    assert taken(rb'{"title": "\ud83d\ude00 \\ud83d \ud83d!"}').title == "😀 \\ud83d !"


def test_a_ping_claims_half_an_hour_at_the_most() -> None:
    """More attention than that between two pings is cut."""
    assert taken({"engaged_ms": 9_999_999_999}).engaged_ms == MAX_ENGAGED_MS


@pytest.mark.parametrize("screen", ["1280", "axb", "1280x720x3", "١٢٨٠x٧٢٠", "9999999x1", ""])
def test_an_odd_screen_is_left_out(screen: str) -> None:
    """A screen that is no size is not kept, and costs nothing else."""
    assert taken({"screen": screen}).client.screen is None


@pytest.mark.parametrize("value", ["a b", "<script>", "x" * 513, "é", ""])
def test_odd_pixel_cookies_are_left_out(value: str) -> None:
    """What does not look like a pixel's cookie is not one."""
    assert taken({"_fbp": value}).platform_signals == {}


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "where", "reason"),
    [
        ({"url": 5}, "url", "got `int`"),
        ({"title": ["x"]}, "title", "got `array`"),
        ({"event_type": "zap"}, "event_type", "zap"),
        ({"event_type": "refund"}, "event_type", "cannot come from a browser"),
        ({"event_id": "no"}, "event_id", "UUID"),
        ({"nope": 1}, "", "unknown field `nope`"),
        ({"properties": {"plan": {"deep": 1}}}, "properties.plan", "dict values are not kept"),
        ({"properties": {"plan": [1]}}, "properties.plan", "list values are not kept"),
        ({"properties": {"n": 2**63}}, "properties.n", "beyond 64 bits"),
        ({"properties": {"n": -(2**63)}}, "properties.n", "beyond 64 bits"),
        ({"properties": {" ": 1}}, "properties", "empty name"),
        ({"properties": {str(n): n for n in range(MAX_PROPERTIES + 1)}}, "properties", "51 properties; at most 50"),
        ({"properties": "x"}, "properties", "got `str`"),
        ({"traits": {"t": {}}}, "traits.t", "dict values are not kept"),
        ({"scroll_depth": 101}, "scroll_depth", "outside 0 to 100"),
        ({"scroll_depth": -1}, "scroll_depth", "outside 0 to 100"),
        ({"engaged_ms": -1}, "engaged_ms", "outside 0"),
        ({"touch_points": -1}, "touch_points", ">= 0"),
        ({"amount_cents": -1, "currency": "EUR"}, "amount_cents", "outside 0"),
        ({"amount_cents": MAX_AMOUNT_CENTS + 1, "currency": "EUR"}, "amount_cents", "minor units"),
        ({"amount_cents": 10**3_000, "currency": "EUR"}, "amount_cents", "minor units"),
        ({"amount_cents": 49.5}, "amount_cents", "got `float`"),
        ({"amount_cents": "4900"}, "amount_cents", "got `str`"),
        ({"amount_cents": 4900}, "currency", "needs its currency"),
        ({"currency": "euros"}, "currency", "'euros' is not a currency code"),
        ({"currency": "ÄÖÜ"}, "currency", "EUR"),
        ({"event_type": "sale"}, "amount_cents", "a sale needs its amount"),
        ([1], "", "got `int`"),
        ([None], "", "got `null`"),
        ([[]], "", "got `array`"),
        ("text", "", "got `str`"),
        (None, "", "got `null`"),
        ([], "", "the list is empty"),
        ([{}] * (MAX_ITEMS + 1), "", "101 items; at most 100"),
    ],
)  # fmt: skip
def test_bad_items_are_refused_with_place_and_reason(item: object, where: str, reason: str) -> None:
    """A wrong value is named by its place, with what is wrong, in a text of bounded length."""
    refusal = refused(item)

    assert (refusal.index, refusal.where) == (0, where)
    assert reason in refusal.reason
    assert len(refusal.reason) <= 255


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" \r\n\t ", id="blanks"),
        pytest.param(b"\x00", id="NUL"),
        pytest.param(b"hello", id="not JSON"),
        pytest.param(b"{", id="half an object"),
        pytest.param(b"[{}", id="half a list"),
        pytest.param(b"{} {}", id="two objects"),
        pytest.param(b"url=https%3A%2F%2Fshop.test", id="a form"),
        pytest.param('{"title": "é"}'.encode("latin-1"), id="latin-1"),
        pytest.param('{"title": "é"}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"title": "\xed\xa0\x80"}', id="a surrogate in UTF-8"),
        pytest.param(b'{"title": "\x01"}', id="a bare control character"),
        pytest.param(b'{"engaged_ms": NaN}', id="NaN"),
        pytest.param(b'{"engaged_ms": Infinity}', id="Infinity"),
        pytest.param(b'{"engaged_ms": 1e999}', id="a number beyond floats"),
        pytest.param(b'{"amount_cents": 1' + b"0" * 5_000 + b"}", id="a number of 5,000 digits"),
        pytest.param(b"[" * 60_000, id="lists, deep and open"),
        pytest.param(b"[" * 30_000 + b"]" * 30_000, id="lists, deep and closed"),
        pytest.param(b'{"properties":' * 4_000 + b"{}" + b"}" * 4_000, id="objects, deep"),
        pytest.param(b'{"properties": {"a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}}", id="a deep property"),
        pytest.param(b'{"x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", id="a deep unknown field"),
        pytest.param(b'{"' + b" - at `$." * 7_000 + b'": 1}', id="a name made to slow the reader"),
        pytest.param(b" " * (MAX_BODY + 1), id="more than 64 KiB"),
        pytest.param(b'{"title": "' + b"x" * MAX_BODY + b'"}', id="a huge text"),
    ],
)
def test_unreadable_bodies_are_one_refusal(body: bytes) -> None:
    """Whatever cannot be read is refused with a reason of its own words."""
    refusal = refused(body)

    assert 0 < len(refusal.reason) <= 255
    assert refusal.reason.isprintable()


def test_a_body_of_exactly_the_bound_is_read() -> None:
    """64 KiB are within the bound."""
    body = b'{"title": "x"}'

    assert taken(body + b" " * (MAX_BODY - len(body))).title == "x"


def test_a_hundred_items_with_fifty_properties_are_read() -> None:
    """The bounds themselves are allowed."""
    claims, refusals = read([{}] * MAX_ITEMS)

    assert (len(claims), refusals) == (100, [])
    assert len(taken({"properties": {str(n): n for n in range(MAX_PROPERTIES)}}).properties) == 50


def test_a_bad_item_does_not_sink_its_neighbours() -> None:
    """Good items beside a bad one are taken, and each side knows its place in the body."""
    claims, refusals = read([{"title": "a"}, {"url": 5}, {"title": "b"}, {"nope": 1}])

    assert [(claim.index, claim.hit.title) for claim in claims] == [(0, "a"), (2, "b")]
    assert [(refusal.index, refusal.where) for refusal in refusals] == [(1, "url"), (3, "")]
    assert refusals_text(refusals).startswith("[1].url: Expected")


def test_a_digest_tells_what_was_said_and_not_when() -> None:
    """The same words later have the same digest, another amount has not."""
    said = {"event_type": "sale", "amount_cents": 1, "currency": "EUR", "properties": {"a": 1, "b": 2}}
    turned = {**said, "properties": {"b": 2, "a": 1}}

    assert digest_of(taken(said)) == digest_of(taken(turned, now=NOW.replace(year=2027)))
    assert digest_of(taken(said)) != digest_of(taken({**said, "amount_cents": 2}))


# Laws ----------------------------------------------------------------------------------------------------------------

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(["pageview", "sale", "EUR", str(EVENT_ID), "\x00", "\ud800", "https://shop.test/\x00"])
)
values = st.recursive(
    leaves,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=5), v, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "event_id", "event_type", "event_name", "url", "referrer", "title", "properties", "amount_cents", "currency",
    "engaged_ms", "scroll_depth", "ga_id", "anonymous_id", "fingerprint", "_fbp", "_fbc", "_ttp", "_ga_ref", "screen",
    "language", "timezone", "touch_points", "key", "token", "external_id", "email", "name", "traits", "nope",
]  # fmt: skip
plausible = st.fixed_dictionaries(
    {},
    optional={
        "event_type": st.sampled_from(sorted(EventType)) | leaves,
        "properties": st.dictionaries(st.text(st.characters(), max_size=70), leaves, max_size=4),
        "traits": st.dictionaries(st.text(st.characters(), max_size=5), leaves, max_size=2),
        "amount_cents": st.integers(),
        "currency": st.sampled_from(["EUR", "eur", "x"]),
        "engaged_ms": st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        "scroll_depth": st.integers(0, 120),
        "touch_points": st.integers(),
        **{
            name: st.text(st.characters(), max_size=40)
            for name in FIELDS
            if name
            not in (
                "event_id",
                "nope",
                "properties",
                "traits",
                "amount_cents",
                "currency",
                "engaged_ms",
                "scroll_depth",
                "touch_points",
                "event_type",
            )
        },
    },
)
items = plausible | st.dictionaries(st.sampled_from(FIELDS), values, max_size=5) | values
bodies = (
    st.binary(max_size=60)
    | st.one_of(items, st.lists(items, max_size=4)).map(lambda v: json.dumps(v).encode())
    | st.one_of(items, st.lists(items, max_size=4)).map(
        lambda v: json.dumps(v, ensure_ascii=False).encode(errors="surrogatepass")
    )
)


def read_anything(body: bytes) -> tuple[list[Claim], list[Refused]]:
    claims, refusals = read(body, new_anonymous_id="new")
    for claim in claims:
        stored = msgspec.msgpack.decode(msgspec.msgpack.encode(claim.hit), type=Hit)
        assert stored == claim.hit
        for found in strings(msgspec.to_builtins(claim.hit)):
            assert "\x00" not in found
            found.encode()
        for number in claim.hit.properties.values():
            assert not isinstance(number, int) or abs(number) < 2**63
    return claims, refusals


@settings(deadline=None, max_examples=400)
@given(bodies)
def test_nothing_breaks_the_reader_and_what_it_takes_can_be_stored(body: bytes) -> None:
    """Any bytes are answered by hits and refusals; a hit survives the log, and PostgreSQL can hold its every text."""
    claims, refusals = read_anything(body)

    assert claims or refusals
    places = [claim.index for claim in claims] + [refusal.index for refusal in refusals]
    assert sorted(places) == list(range(len(places)))


@settings(deadline=None, max_examples=300)
@given(plausible)
def test_plausible_items_are_stored_or_refused_alone(item: dict[str, Any]) -> None:
    """A neighbour of anything is taken."""
    claims, refusals = read_anything(json.dumps([{}, item, {}]).encode())

    assert {0, 2} <= {claim.index for claim in claims}
    assert {refusal.index for refusal in refusals} <= {1}


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=12), st.integers(0, 400))
def test_a_scratched_body_is_read_or_refused(scratch: bytes, place: int) -> None:
    """A good body with some bytes overwritten never breaks the reader."""
    body = bytearray(
        json.dumps(
            [{"title": "x", "properties": {"a": "\ud83d\ude00", "b": [1.5]}, "url": "https://shop.test/"}] * 3
        ).encode()
    )
    body[place % len(body) : place % len(body) + len(scratch)] = scratch

    read_anything(bytes(body))
