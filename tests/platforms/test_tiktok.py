"""TikTok's dialect: golden pairs after the pages named in `platforms.tiktok`, and a strict stand-in."""

from __future__ import annotations

import runpy
import uuid
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from goodanalytics.platforms import Consent, Item, Person, Response, Signals, TikTok, Version
from goodanalytics.platforms.normalize import sha256

STAND_INS = runpy.run_path(str(Path(__file__).with_name("standins.py")))
NOW, TOKEN, PIXEL, EMAIL = (STAND_INS[name] for name in ("NOW", "TOKEN", "PIXEL", "EMAIL"))
a_sale, stand_in, json_response = STAND_INS["a_sale"], STAND_INS["tiktok"], STAND_INS["json_response"]
SECRETS = {"access_token": TOKEN, "pixel_code": PIXEL}

GOLDEN = {
    "event_source": "web",
    "event_source_id": PIXEL,
    "data": [
        {
            "event": "Purchase",
            "event_time": 1795172400,
            "event_id": "sale:A-1001",
            "user": {
                "email": sha256("ada.lovelace@example.org"),
                "phone": sha256("+442079460018"),
                "external_id": sha256("customer-42"),
                "first_name": sha256("ada"),
                "last_name": sha256("lovelace"),
                "zip_code": sha256("nw16xe"),
                "ttclid": "E.C.P.CiQAbc",
                "ttp": "2F7h37YkS1j57AYSKTI7IHhJPYH",
                "ip": "203.0.113.9",
                "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            },
            "page": {"url": "https://shop.example/thanks"},
            "properties": {
                "order_id": "A-1001",
                "currency": "EUR",
                "value": 49.0,
                "content_type": "product",
                "contents": [{"content_id": "lamp", "content_name": "Lamp", "quantity": 2, "price": 24.5}],
            },
        }
    ],
}


def event_for(platform=None, **changes):
    request = (platform or TikTok()).build([a_sale(**changes)], SECRETS, NOW)
    return msgspec.json.decode(request.body)["data"][0]


def test_a_sale_is_the_golden_request():
    """Everything that is known goes out, each in its place and shape."""
    request = TikTok().build([a_sale()], SECRETS, NOW)

    assert (request.method, request.url) == (
        "POST",
        "https://business-api.tiktok.com/open_api/v1.3/event/track/",
    )
    assert request.headers == {"access-token": TOKEN, "content-type": "application/json"}
    assert msgspec.json.decode(request.body) == GOLDEN


def test_a_request_tells_no_person_in_the_clear():
    """Neither who it was, nor where they live, nor what the host noted, nor the token is in the body."""
    request = TikTok().build([a_sale()], SECRETS, NOW)
    told = request.body.decode() + request.url

    secret = [
        EMAIL,
        EMAIL.lower(),
        "ada@example.org",
        "7946",
        "Lovelace",
        "ustomer-42",
        "London",
        "private",
        TOKEN,
    ]
    assert [text for text in secret if text in told] == []


# The vector of Segment's connector: packages/destination-actions/src/destinations/tiktok-conversions/__tests__/formatter.test.ts
def test_an_address_is_hashed_as_other_connectors_hash_it():
    """A person is found whoever sends them."""
    event = event_for(person=Person(email="bugsbunny@warnerbros.com", phone="12345678901234"))

    assert (event["user"]["email"], event["user"]["phone"]) == (
        "67e28cdcc3e845d3a4da05ca9fe5ddb7320a83b4cc2167f0555a3b04f63511e3",
        "00a63bd0437d6ca0fa7b95c00ab2e7c020faa71440e5246750d6b517689e6777",
    )


def test_a_lead_needs_no_properties():
    """A lead without a value has none."""
    event = event_for(kind="lead", amount_cents=None, currency=None, contents=(), order_key=None)

    assert (event["event"], "properties" in event) == ("Lead", False)


def test_yen_have_no_cents():
    """The value is in major units with the currency's own decimals."""
    body = TikTok().build([a_sale(amount_cents=4900, currency="JPY", contents=())], SECRETS, NOW).body

    assert b'"currency":"JPY","value":4900}' in body


def test_an_items_price_is_left_out_where_it_is_not_known():
    """No price is not a price of nothing."""
    event = event_for(contents=(Item(id="lamp"),))

    assert event["properties"]["contents"] == [{"content_id": "lamp", "quantity": 1}]


LIMITS = {
    "granted": (TikTok(), "granted", None),
    "refused personal ads": (TikTok(), "denied", True),
    "limited for everybody": (TikTok(limited_data_use=True), "granted", True),
}


@pytest.mark.parametrize(("platform", "answer", "expected"), LIMITS.values(), ids=LIMITS)
def test_consent_travels_with_the_event(platform, answer, expected):
    """Who refused personal ads is sent with limited data use."""
    event = event_for(platform, consent=Consent(ad_user_data="granted", ad_personalization=answer))

    assert event.get("limited_data_use") is expected


def test_in_test_mode_events_carry_the_code():
    """The code stands beside the events, not in them."""
    request = TikTok().in_test("TEST123").build([a_sale()], SECRETS, NOW)

    assert msgspec.json.decode(request.body)["test_event_code"] == "TEST123"


SKIPS = {
    "a full sale": ({}, None),
    "a refund has no event by default": ({"kind": "refund"}, "unsupported_kind: refund"),
    "a week old": ({"occurred_at": NOW - timedelta(days=7)}, "too_old"),
    "denied": ({"consent": Consent(ad_user_data="denied")}, "consent_denied"),
    "no page": ({"url": None}, "missing_signals: url"),
    "not on a website": ({"place": "store"}, "unsupported_place: store"),
    "nobody": (
        {"person": Person(first_name="Ada"), "signals": Signals(user_agent="Firefox", ip="203.0.113.9")},
        "missing_signals: ttclid, ttp, email, phone or external_id",
    ),
    "only the browser's cookie": ({"person": Person(), "signals": Signals(ttp="2F7h")}, None),
    "a sale without an amount": ({"amount_cents": None}, "missing_amount"),
}


@pytest.mark.parametrize(("changes", "expected"), SKIPS.values(), ids=SKIPS)
def test_what_is_not_worth_sending(changes, expected):
    """TikTok would refuse it, count it for nobody, or must not have it."""
    actual = TikTok().skip(a_sale(**changes), NOW)

    assert actual == expected


def says(code, status=200, message="Something about it"):
    return json_response({"code": code, "message": message, "request_id": "20261120", "data": {}}, status)


ANSWERS = {
    "a success": (says(0), "delivered", False),
    "partly": (says(20001), "permanent", True),
    "no permission": (says(40001), "credential", False),
    "a parameter": (says(40002), "permanent", True),
    "an expired token": (says(40102), "credential", False),
    "no token": (says(40104), "credential", False),
    "a wrong token": (says(40105), "credential", False),
    "too often": (says(40100), "rate_limited", False),
    "too often, by the status": (says(40133, status=429), "rate_limited", False),
    "an error inside": (says(40700), "retry", False),
    "down": (says(50000), "retry", False),
    "down, in detail": (says(51305), "retry", False),
    "a code that nobody knows": (says(40999), "permanent", True),
    "a success with a 502": (says(0, status=502), "retry", False),
    "no code": (json_response({"message": "OK"}), "retry", False),
    "a page": (Response(status=200, body=b"<html>"), "retry", False),
    "half an answer": (Response(status=200, body=b'{"code":'), "retry", False),
}


@pytest.mark.parametrize(("response", "status", "of_batch"), ANSWERS.values(), ids=ANSWERS)
def test_what_an_answer_means(response, status, of_batch):
    """A 200 says nothing; the code in it does. Every event of the batch has the verdict."""
    batch = [a_sale(), a_sale(dispatch_id=uuid.UUID(int=8), event_id="sale:A-1002")]

    outcomes = TikTok().read(batch, response)

    assert [(o.dispatch_id.int, o.status, o.of_batch) for o in outcomes] == [
        (7, status, of_batch),
        (8, status, of_batch),
    ]


def test_partly_of_one_event_is_a_success():
    """When a batch has been halved down to one, "partly" can only mean a remark."""
    (outcome,) = TikTok().read([a_sale()], says(20001))

    assert outcome.status == "delivered"


def test_an_outcome_says_where_to_look_and_names_nobody():
    """Code and request id for TikTok's support; what TikTok quotes of the person is cut out."""
    (outcome,) = TikTok().read([a_sale()], says(40002, message=f"Bad email {EMAIL} for {TOKEN}"))

    assert (outcome.code, outcome.message, outcome.external_ref) == (
        "40002",
        "Bad email … for …",
        "20261120",
    )


def test_the_versions_end_is_not_known():
    """TikTok has not announced one."""
    assert TikTok().version == Version("v1.3")


def test_the_stand_in_counts_a_conversion_once_however_often_it_is_sent():
    """A batch, then its second half again: each event id is counted once."""
    batch = [a_sale(event_id=f"sale:{n}", dispatch_id=uuid.UUID(int=n)) for n in range(5)]
    counted: set[tuple[str, str]] = set()

    first = TikTok().read(batch, stand_in(TikTok().build(batch, SECRETS, NOW), counted=counted))
    again = TikTok().read(batch[3:], stand_in(TikTok().build(batch[3:], SECRETS, NOW), counted=counted))

    assert {o.status for o in first + again} == {"delivered"}
    assert counted == {("Purchase", f"sale:{n}") for n in range(5)}


REFUSED = {
    "another token": (SECRETS | {"access_token": "other"}, {}, "credential"),
    "another pixel": (SECRETS | {"pixel_code": "9"}, {}, "credential"),
    "one too old": (SECRETS, {"occurred_at": NOW - timedelta(days=8)}, "permanent"),
}


@pytest.mark.parametrize(("secrets", "changes", "expected"), REFUSED.values(), ids=REFUSED)
def test_the_stand_in_refuses_as_tiktok_does(secrets, changes, expected):
    """What `skip` and the credentials keep back would be refused, and is understood as such."""
    batch = [a_sale(), a_sale(**changes)]

    outcomes = TikTok().read(batch, stand_in(TikTok().build(batch, secrets, NOW)))

    assert [o.status for o in outcomes] == [expected, expected]


PEOPLE = {
    "everything": {},
    "hashed by the host": {"person": Person(email="a1" * 32)},
    "only the browser's cookie": {"person": Person(), "signals": Signals(ttp="2F7h")},
    "a lead": {"kind": "lead", "amount_cents": None, "currency": None, "contents": ()},
}


@pytest.mark.parametrize("changes", PEOPLE.values(), ids=PEOPLE)
def test_the_stand_in_takes_what_skip_lets_through(changes):
    """What goes out is complete by TikTok's rules."""
    sale = a_sale(**changes)

    (outcome,) = TikTok().read([sale], stand_in(TikTok().build([sale], SECRETS, NOW)))

    assert (TikTok().skip(sale, NOW), outcome.status) == (None, "delivered")
