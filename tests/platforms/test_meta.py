"""Meta's dialect: golden pairs after the pages named in `platforms.meta`, and a strict stand-in."""

from __future__ import annotations

import runpy
import uuid
from datetime import date, timedelta
from pathlib import Path

import msgspec
import pytest

from goodanalytics.platforms import Click, Consent, Item, Meta, Person, Response, Signals, Version
from goodanalytics.platforms.meta import fbc
from goodanalytics.platforms.normalize import sha256

STAND_INS = runpy.run_path(str(Path(__file__).with_name("standins.py")))
NOW, TOKEN, PIXEL, EMAIL, PHONE = (STAND_INS[name] for name in ("NOW", "TOKEN", "PIXEL", "EMAIL", "PHONE"))
a_sale, stand_in, json_response = STAND_INS["a_sale"], STAND_INS["meta"], STAND_INS["json_response"]
SECRETS = {"access_token": TOKEN, "pixel_id": PIXEL}

GOLDEN = {
    "data": [
        {
            "event_name": "Purchase",
            "event_time": 1795172400,
            "event_id": "sale:A-1001",
            "action_source": "website",
            "event_source_url": "https://shop.example/thanks",
            "user_data": {
                "em": [sha256("ada.lovelace@example.org")],
                "ph": [sha256("442079460018")],
                "fn": [sha256("ada")],
                "ln": [sha256("lovelace")],
                "ct": [sha256("london")],
                "st": [sha256("england")],
                "zp": [sha256("nw16xe")],
                "country": [sha256("gb")],
                "external_id": [sha256("customer-42")],
                "client_ip_address": "203.0.113.9",
                "client_user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                "fbc": "fb.1.1795003200000.IwAR2F4-dbP0l7Mn1IawQQ",
                "fbp": "fb.1.1558571054389.1098115397",
            },
            "custom_data": {
                "order_id": "A-1001",
                "currency": "EUR",
                "value": 49.0,
                "content_type": "product",
                "contents": [{"id": "lamp", "quantity": 2, "item_price": 24.5}],
            },
        }
    ]
}


def body_for(*conversions, platform=None):
    return msgspec.json.decode((platform or Meta()).build(conversions, SECRETS, NOW).body)


def event_for(platform=None, **changes):
    return body_for(a_sale(**changes), platform=platform)["data"][0]


def test_a_sale_is_the_golden_request():
    """Everything that is known goes out, each in its place and shape."""
    request = Meta().build([a_sale()], SECRETS, NOW)

    assert (request.method, request.url) == ("POST", f"https://graph.facebook.com/v26.0/{PIXEL}/events")
    assert request.headers == {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    assert msgspec.json.decode(request.body) == GOLDEN


def test_a_request_tells_no_person_in_the_clear():
    """Neither who it was, nor what the host noted, nor the token is in the body; the token is not in the address."""
    request = Meta().build([a_sale()], SECRETS, NOW)
    told = request.body.decode() + request.url

    secret = [
        EMAIL,
        EMAIL.lower(),
        "ada@example.org",
        "7946",
        "Lovelace",
        "ustomer-42",
        "private note",
        TOKEN,
    ]
    assert [text for text in secret if text in told] == []


def test_a_lead_needs_no_amount():
    """A lead without a value has no currency either."""
    event = event_for(kind="lead", amount_cents=None, currency=None, contents=(), order_key=None)

    assert (event["event_name"], "custom_data" in event) == ("Lead", False)


VALUES = {
    "euros": (4900, "EUR", b'"currency":"EUR","value":49.00'),
    "yen have no cents": (4900, "JPY", b'"currency":"JPY","value":4900'),
    "dinars have thousandths": (4900, "kwd", b'"currency":"KWD","value":4.900'),
}


@pytest.mark.parametrize(("cents", "currency", "expected"), VALUES.values(), ids=VALUES)
def test_a_value_is_a_decimal_in_major_units(cents, currency, expected):
    """As charged, with the currency's own decimals, as a JSON number."""
    sale = a_sale(amount_cents=cents, currency=currency, contents=())

    body = Meta().build([sale], SECRETS, NOW).body

    assert expected in body


def test_an_items_price_is_left_out_where_it_is_not_known():
    """No price is not a price of nothing."""
    event = event_for(contents=(Item(id="lamp"),))

    assert event["custom_data"]["contents"] == [{"id": "lamp", "quantity": 1}]


CLICKED = NOW - timedelta(days=2)
BUILT = "fb.1.1795003200000.IwAR2F4-dbP0l7Mn1IawQQ"
CLICK = {"fbclid": Click(value="IwAR2F4-dbP0l7Mn1IawQQ", at=CLICKED)}
MARKS = {
    "only a click": (Signals(clicks=CLICK), BUILT),
    "only a cookie": (Signals(fbc="fb.1.1554763741205.AbC"), "fb.1.1554763741205.AbC"),
    "an older cookie": (Signals(clicks=CLICK, fbc="fb.1.1554763741205.AbC"), BUILT),
    "a younger cookie": (Signals(clicks=CLICK, fbc="fb.1.1795009999999.AbC"), "fb.1.1795009999999.AbC"),
    "the cookie of this click": (
        Signals(clicks=CLICK, fbc="fb.2.1795003190000.IwAR2F4-dbP0l7Mn1IawQQ.AQEA"),
        "fb.2.1795003190000.IwAR2F4-dbP0l7Mn1IawQQ.AQEA",
    ),
    "a cookie that is none": (Signals(clicks=CLICK, fbc="nonsense"), BUILT),
    "neither": (Signals(), None),
}


@pytest.mark.parametrize(("signals", "expected"), MARKS.values(), ids=MARKS)
def test_fbc_is_the_last_click(signals, expected):
    """With the time of the click, not of the sale, and the id in its own case."""
    actual = fbc(signals)

    assert actual == expected


LIMITS = {
    "granted": (Meta(), "granted", {}),
    "refused personal ads": (
        Meta(),
        "denied",
        {
            "opt_out": True,
            "data_processing_options": ["LDU"],
            "data_processing_options_country": 0,
            "data_processing_options_state": 0,
        },
    ),
    "limited for everybody": (
        Meta(limited_data_use=True),
        "granted",
        {
            "data_processing_options": ["LDU"],
            "data_processing_options_country": 0,
            "data_processing_options_state": 0,
        },
    ),
}


@pytest.mark.parametrize(("platform", "answer", "expected"), LIMITS.values(), ids=LIMITS)
def test_consent_travels_with_the_event(platform, answer, expected):
    """Who refused personal ads is counted, not learned from."""
    event = event_for(platform, consent=Consent(ad_user_data="granted", ad_personalization=answer))

    limits = {
        key: value for key, value in event.items() if key == "opt_out" or key.startswith("data_processing")
    }
    assert limits == expected


def test_a_clock_ahead_does_not_send_from_the_future():
    """Meta refuses what has not happened yet, and the whole batch with it."""
    event = event_for(occurred_at=NOW + timedelta(minutes=3))

    assert event["event_time"] == int(NOW.timestamp())


def test_in_test_mode_events_carry_the_code():
    """The code stands beside the events, not in them."""
    body = body_for(a_sale(), platform=Meta().in_test("TEST123"))

    assert (body["test_event_code"], list(body)) == ("TEST123", ["data", "test_event_code"])


SKIPS = {
    "a full sale": ({}, None),
    "a refund has no event by default": ({"kind": "refund"}, "unsupported_kind: refund"),
    "a week old": ({"occurred_at": NOW - timedelta(days=7)}, "too_old"),
    "not yet a week old": ({"occurred_at": NOW - timedelta(days=6, hours=23)}, None),
    "denied": ({"consent": Consent(ad_user_data="denied")}, "consent_denied"),
    "no page": ({"url": None}, "missing_signals: url"),
    "no browser": ({"signals": Signals(fbp="fb.1.1.1")}, "missing_signals: user_agent"),
    "a renewal has neither": ({"url": None, "signals": Signals(), "place": "system"}, None),
    "nobody": (
        {"person": Person(city="London"), "signals": Signals(user_agent="Firefox", ip="203.0.113.9")},
        "missing_signals: fbc, fbp, email, phone or external_id",
    ),
    "a telephone number that cannot be one": (
        {"person": Person(phone="020 7946 0018"), "signals": Signals(user_agent="Firefox")},
        "missing_signals: fbc, fbp, email, phone or external_id",
    ),
    "a sale without an amount": ({"amount_cents": None}, "missing_amount"),
    "a sale without a currency": ({"currency": None}, "missing_amount"),
}


@pytest.mark.parametrize(("changes", "expected"), SKIPS.values(), ids=SKIPS)
def test_what_is_not_worth_sending(changes, expected):
    """Meta would refuse it, count it for nobody, or must not have it."""
    actual = Meta().skip(a_sale(**changes), NOW)

    assert actual == expected


def test_a_refund_goes_out_under_a_name_of_the_hosts():
    """Meta has no way back, but a custom event can be excluded in reports."""
    platform = Meta(events={"refund": "Refund"})

    actual = (platform.skip(a_sale(kind="refund"), NOW), event_for(platform, kind="refund")["event_name"])

    assert actual == (None, "Refund")


# Answers


def error(code, subcode=None, status=400, **more):
    body = {
        "message": "Something about it",
        "type": "OAuthException",
        "code": code,
        "fbtrace_id": "EJplcsCHuLu",
    }
    return json_response({"error": body | ({"error_subcode": subcode} if subcode else {}) | more}, status)


# https://developers.facebook.com/docs/graph-api/guides/error-handling
ANSWERS = {
    "a success": (
        json_response({"events_received": 2, "messages": [], "fbtrace_id": "A"}),
        "delivered",
        False,
    ),
    "fewer than were sent": (json_response({"events_received": 1, "fbtrace_id": "A"}), "permanent", True),
    "a 200 with an error in it": (error(190, status=200), "credential", False),
    "a 200 that says nothing": (json_response({}), "retry", False),
    "an expired token": (error(190, 463), "credential", False),
    "a session that ended": (error(102), "credential", False),
    "no permission": (error(200, status=403), "credential", False),
    "another permission": (error(294), "credential", False),
    "permission denied": (error(10), "credential", False),
    "no such pixel": (error(100, 33), "credential", False),
    "an ended version": (error(2635), "credential", False),
    "too many calls": (error(4), "rate_limited", False),
    "too many of a user": (error(17), "rate_limited", False),
    "too many for an account": (error(80004), "rate_limited", False),
    "too many, called transient": (error(4, is_transient=True), "rate_limited", False),
    "a block": (error(368), "rate_limited", False),
    "unknown": (error(1, status=500), "retry", False),
    "down": (error(2, status=503), "retry", False),
    "transient, whatever the code": (error(100, is_transient=True), "retry", False),
    "one is too old": (error(100, 2804003), "permanent", True),
    "a parameter": (error(100), "permanent", True),
    "an error without a name": (error(5000), "retry", False),
    "a code that nobody knows, theirs": (error(98765, status=500), "retry", False),
    "a code that nobody knows, ours": (error(98765), "permanent", True),
    "an error without a code": (json_response({"error": {"message": "x"}}, 500), "retry", False),
    "an error that is a text": (json_response({"error": "no"}, 400), "permanent", True),
    "a page": (Response(status=502, body=b"<html>"), "retry", False),
    "half an answer": (Response(status=200, body=b'{"events_rec'), "retry", False),
}


@pytest.mark.parametrize(("response", "status", "of_batch"), ANSWERS.values(), ids=ANSWERS)
def test_what_an_answer_means(response, status, of_batch):
    """By the body before the status; every event of the batch has the verdict."""
    batch = [a_sale(), a_sale(dispatch_id=uuid.UUID(int=8), event_id="sale:A-1002")]

    outcomes = Meta().read(batch, response)

    assert [(o.dispatch_id.int, o.status, o.of_batch) for o in outcomes] == [
        (7, status, of_batch),
        (8, status, of_batch),
    ]


def test_a_block_pauses_for_an_hour():
    """A policy block does not pass by asking again."""
    (outcome,) = Meta().read([a_sale()], error(368))

    assert outcome.retry_after == timedelta(hours=1)


def test_an_outcome_says_where_to_look_and_names_nobody():
    """Code, subcode and trace for Meta's support; what Meta quotes of the person is cut out."""
    response = error(
        100, 2804019, message=f"Bad em {EMAIL} for {TOKEN}", error_user_title="Unhashed", fbtrace_id="A1"
    )

    (outcome,) = Meta().read([a_sale()], response)

    assert (outcome.code, outcome.message, outcome.external_ref) == (
        "100/2804019",
        "Unhashed: Bad em … for …",
        "A1",
    )


def test_a_version_knows_its_end():
    """From Meta's changelog; the newest has none yet."""
    actual = [Meta(api=api).version for api in ("v21.0", "v25.0", "v26.0")]

    assert actual == [
        Version("v21.0", date(2027, 1, 21)),
        Version("v25.0", date(2028, 7, 29)),
        Version("v26.0"),
    ]


# The strict stand-in


def test_the_stand_in_counts_a_conversion_once_however_often_it_is_sent():
    """A batch, then its second half again: each event id is counted once."""
    batch = [a_sale(event_id=f"sale:{n}", dispatch_id=uuid.UUID(int=n)) for n in range(5)]
    counted: set[tuple[str, str]] = set()

    first = Meta().read(batch, stand_in(Meta().build(batch, SECRETS, NOW), counted=counted))
    again = Meta().read(batch[3:], stand_in(Meta().build(batch[3:], SECRETS, NOW), counted=counted))

    assert {o.status for o in first + again} == {"delivered"}
    assert counted == {("Purchase", f"sale:{n}") for n in range(5)}


REFUSED = {
    "another token": (SECRETS | {"access_token": "other"}, {}, "credential"),
    "another pixel": (SECRETS | {"pixel_id": "9"}, {}, "credential"),
    "one too old": (SECRETS, {"occurred_at": NOW - timedelta(days=8)}, "permanent"),
    "no amount": (SECRETS, {"amount_cents": None}, "permanent"),
    "no browser": (SECRETS, {"signals": Signals()}, "permanent"),
}


@pytest.mark.parametrize(("secrets", "changes", "expected"), REFUSED.values(), ids=REFUSED)
def test_the_stand_in_refuses_as_meta_does(secrets, changes, expected):
    """What `skip` and the credentials keep back would be refused, and is understood as such."""
    batch = [a_sale(), a_sale(**changes)]

    outcomes = Meta().read(batch, stand_in(Meta().build(batch, secrets, NOW)))

    assert [o.status for o in outcomes] == [expected, expected]


PEOPLE = {
    "everything": {},
    "hashed by the host": {"person": Person(email="a1" * 32)},
    "a renewal": {"place": "system", "url": None, "signals": Signals()},
    "a lead": {"kind": "lead", "amount_cents": None, "currency": None, "contents": ()},
    "refused personal ads": {"consent": Consent(ad_user_data="granted", ad_personalization="denied")},
}


@pytest.mark.parametrize("changes", PEOPLE.values(), ids=PEOPLE)
def test_the_stand_in_takes_what_skip_lets_through(changes):
    """What goes out is complete by Meta's rules."""
    sale = a_sale(**changes)

    (outcome,) = Meta().read([sale], stand_in(Meta().build([sale], SECRETS, NOW)))

    assert (Meta().skip(sale, NOW), outcome.status, outcome.external_ref) == (None, "delivered", "Atrace")


def test_the_official_library_builds_the_same_event():
    """Meta's own types, given the same facts, normalise and hash to our payload (facebook-business, a dev dependency)."""
    serverside = pytest.importorskip("facebook_business.adobjects.serverside.event")
    from facebook_business.adobjects.serverside.action_source import ActionSource
    from facebook_business.adobjects.serverside.content import Content
    from facebook_business.adobjects.serverside.custom_data import CustomData
    from facebook_business.adobjects.serverside.user_data import UserData

    sale = a_sale()
    theirs = serverside.Event(
        event_name="Purchase",
        event_time=int(sale.occurred_at.timestamp()),
        event_id=sale.event_id,
        event_source_url="https://shop.example/thanks",
        action_source=ActionSource.WEBSITE,
        user_data=UserData(
            email=sale.person.email,
            phone=sale.person.phone,
            first_name="Ada",
            last_name="Lovelace",
            city=sale.person.city,
            state=sale.person.region,
            zip_code=sale.person.postcode,
            country_code=sale.person.country,
            external_id=sha256("customer-42"),  # their library leaves this one to its caller
            client_ip_address=sale.signals.ip,
            client_user_agent=sale.signals.user_agent,
            fbc=fbc(sale.signals),
            fbp=sale.signals.fbp,
        ),
        custom_data=CustomData(
            value=49.0,
            currency="EUR",
            order_id="A-1001",
            content_type="product",
            contents=[Content(product_id="lamp", quantity=2, item_price=24.5)],
        ),
    ).normalize()

    ours = event_for()
    # Their library writes the currency small; the page shows it in capitals and takes both.
    ours["custom_data"]["currency"] = ours["custom_data"]["currency"].lower()
    assert ours == theirs
