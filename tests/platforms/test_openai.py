"""OpenAI's dialect: golden pairs after the pages named in `platforms.openai`. Answers are not documented; see rule 5 there."""

from __future__ import annotations

import runpy
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from goodanalytics.platforms import (
    Click,
    Confirming,
    Consent,
    Item,
    Person,
    Platform,
    Rehearsing,
    Renewing,
    Response,
    Signals,
    Version,
)
from goodanalytics.platforms.normalize import sha256
from goodanalytics.platforms.openai import OpenAI

STAND_INS = runpy.run_path(str(Path(__file__).with_name("standins.py")))
NOW, EMAIL, PHONE, a_sale = (STAND_INS[member] for member in ("NOW", "EMAIL", "PHONE", "a_sale"))
KEY = "sk-svcacct-0secretsecretsecret0key"
SECRETS = {"api_key": KEY, "pixel_id": "px&1"}
CLICKED = NOW - timedelta(days=2)
MARKS = {
    "oppref": Click(value="Opp%2Bref==", at=CLICKED),
    "obref": Click(value="123e4567-e89b-42d3-a456-426614174000", at=CLICKED),
}

GOLDEN = {
    "validate_only": False,
    "events": [
        {
            "id": "sale:A-1001",
            "type": "order_created",
            "timestamp_ms": 1795172400000,
            "action_source": "web",
            "source_url": "https://shop.example/thanks",
            "oppref": "Opp%2Bref==",
            "user": {
                "emails_sha256": [sha256("ada.lovelace@example.org")],
                "phone_numbers_sha256": [sha256("442079460018")],
                "external_ids_sha256": [sha256("Customer-42")],
                "first_names_sha256": [sha256("ada")],
                "last_names_sha256": [sha256("lovelace")],
                "countries": ["GB"],
                "obref": "123e4567-e89b-42d3-a456-426614174000",
                "ip_address": "203.0.113.9",
                "user_agent": "Mozilla/5.0",
            },
            "data": {
                "type": "contents",
                "amount": 4900,
                "currency": "EUR",
                "contents": [
                    {
                        "id": "lamp",
                        "name": "Lamp",
                        "content_type": "product",
                        "quantity": 2,
                        "amount": 2450,
                        "currency": "EUR",
                    }
                ],
            },
        }
    ],
}


def sale(**changes):
    return a_sale(
        **({"signals": Signals(clicks=MARKS, ip="203.0.113.9", user_agent="Mozilla/5.0")} | changes)
    )


def event_for(platform=None, **changes):
    return msgspec.json.decode((platform or OpenAI()).build([sale(**changes)], SECRETS, NOW).body)["events"][
        0
    ]


def told(outcomes):
    return [(outcome.status, outcome.code, outcome.of_batch) for outcome in outcomes]


def test_openai_is_a_platform_that_rehearses():
    """It has a test mode; its keys do not expire, and it answers at once."""
    assert isinstance(OpenAI(), Platform)
    assert isinstance(OpenAI(), Rehearsing)
    assert not isinstance(OpenAI(), Renewing | Confirming)


def test_a_sale_is_the_golden_request():
    """Everything that is known goes out, each in its place and shape; the pixel is in the address, the key is not."""
    request = OpenAI().build([sale()], SECRETS, NOW)

    assert (request.method, request.url) == ("POST", "https://bzr.openai.com/v1/events?pid=px%261")
    assert request.headers == {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    assert msgspec.json.decode(request.body) == GOLDEN


def test_a_request_tells_no_person_in_the_clear():
    """Neither who it was, nor the town, nor what the host noted, nor the key is in the body."""
    request = OpenAI().build([sale()], SECRETS, NOW)
    shown = request.body.decode() + request.url + repr(request)

    secret = (EMAIL, EMAIL.lower(), "7946", "ovelace", "ustomer-42", "London", "NW1", "private note", KEY)
    assert [text for text in secret if text in shown] == []


def test_a_lead_is_an_action():
    """It has no contents; a value only when there is one."""
    event = event_for(kind="lead", amount_cents=None, currency=None)

    assert (event["type"], event["data"]) == ("lead_created", {"type": "customer_action"})


NAMES = {
    "a standard event": ("subscription_created", "subscription_created", None, "plan_enrollment"),
    "the host's own": ("demo_booked", "custom", "demo_booked", "custom"),
}


@pytest.mark.parametrize(("called", "kind", "custom", "shape"), NAMES.values(), ids=NAMES)
def test_an_event_is_standard_or_custom(called, kind, custom, shape):
    """The shape of the data follows the name; what is no standard event is a custom one."""
    event = event_for(OpenAI(events={"sale": called}))

    assert (event["type"], event.get("custom_event_name"), event["data"]["type"]) == (kind, custom, shape)


VALUES = {"euros": (4900, "EUR"), "yen": (4900, "JPY"), "dinars": (4900, "KWD")}


@pytest.mark.parametrize(("cents", "currency"), VALUES.values(), ids=VALUES)
def test_a_value_is_whole_minor_units(cents, currency):
    """OpenAI wants the lowest denomination, whatever it is: 12999 for $129.99."""
    data = event_for(amount_cents=cents, currency=currency.lower(), contents=())["data"]

    assert data == {"type": "contents", "amount": cents, "currency": currency}


def test_an_items_price_is_left_out_where_it_is_not_known():
    """No price is not a price of nothing."""
    assert event_for(contents=(Item(id="lamp"),))["data"]["contents"] == [
        {"id": "lamp", "content_type": "product", "quantity": 1}
    ]


PLACES = {"website": "web", "phone": "phone_call", "store": "physical_store", "system": "other"}


@pytest.mark.parametrize(("place", "expected"), PLACES.items())
def test_where_it_happened(place, expected):
    """Every place has its name there."""
    assert event_for(place=place)["action_source"] == expected


VECTORS = {
    "an address": (
        "emails_sha256",
        {"email": " Ada@Example.COM "},
        "b5fc85e55755f9e0d030a10ab4429b6b2944855f9a0d60077fe832becbc41d72",
    ),
    "a telephone": (
        "phone_numbers_sha256",
        {"phone": "+40 746 123 456"},
        "af9e136cc1c34ac87999ef8bd28b3d15c08a75b9ae1c2018b39c0f37c23296bd",
    ),
    "an id in its own case": (
        "external_ids_sha256",
        {"external_id": "  CUST-00042  "},
        "382211e688c29ae2dcce0b401999831aec27161d9bc0ffd092545a828a18bbc8",
    ),
    "a name": (
        "first_names_sha256",
        {"first_name": "Ion"},
        "d6806158f75334002321a9333b6b02b9b84b51433400afb68bb197bddc2db6a5",
    ),
    "letters of any script": (
        "last_names_sha256",
        {"last_name": "Ștefănescu"},
        "1c43886f1047ed5dfae59c0945ff61475b7df3a912312a6484ce80429df049a1",
    ),
    "no punctuation": (
        "last_names_sha256",
        {"last_name": "O'Neill"},
        "fa0fd24b2d0175a5c48e1b82f4d707a8a95f5279c4abdc43fa2f19d8e30eb47d",
    ),
    "no spaces": (
        "last_names_sha256",
        {"last_name": " Van  Der Berg "},
        "aad607ca3121d5d843c2cd64e8c73c2a24fa3a4cb890ed8d40a1efa8af7a14d5",
    ),
    "a hash": ("emails_sha256", {"email": "A" * 64}, "a" * 64),
}


@pytest.mark.parametrize(("member", "known", "expected"), VECTORS.values(), ids=VECTORS)
def test_vectors_of_the_open_toolkit(member, known, expected):
    """As packages/spec/fixtures/normalization.cases.json of webaroundlabs/openai-ads-toolkit has them."""
    assert event_for(person=Person(**known))["user"][member] == [expected]


def test_refused_personalization_is_told():
    """The conversion counts and chooses no ads."""
    event = event_for(consent=Consent(ad_user_data="granted", ad_personalization="denied"))

    assert event["opt_out"] is True


SKIPPED = {
    "sent": ({}, None),
    "only a click": ({"person": Person()}, None),
    "only a person": ({"signals": Signals()}, None),
    "nobody": (
        {"person": Person(name="Ada Lovelace", country="GB"), "signals": Signals(ip="203.0.113.9")},
        "missing_signals: oppref, obref, email, phone or external_id",
    ),
    "no page": ({"url": None}, "missing_signals: url"),
    "no page in a shop": ({"url": None, "place": "store"}, None),
    "refused": ({"consent": Consent(ad_user_data="denied")}, "consent_denied"),
    "old": ({"occurred_at": NOW - timedelta(days=7)}, "too_old"),
    "a refund": ({"kind": "refund"}, "unsupported_kind: refund"),
}


@pytest.mark.parametrize(("changes", "expected"), SKIPPED.values(), ids=SKIPPED)
def test_why_a_conversion_is_skipped(changes, expected):
    """One wrong event would fail its whole batch, so it does not get into one."""
    assert OpenAI().skip(sale(**changes), NOW) == expected


def test_test_mode_validates():
    """A rehearsal is checked and not kept."""
    body = OpenAI().in_test("").build([sale()], SECRETS, NOW).body

    assert msgspec.json.decode(body)["validate_only"] is True


def answer(body, status=200):
    return Response(status=status, headers={"x-request-id": "req_1"}, body=msgspec.json.encode(body))


ERROR = {
    "error": {"message": "Missing required field: events", "type": "invalid_request_error", "code": None}
}
ALL = {
    "taken": (answer({"received": 2}), ("delivered", "http_200", False)),
    "taken without a word": (Response(status=202), ("delivered", "http_202", False)),
    "an error in a 200": (answer(ERROR), ("retry", "invalid_request_error", False)),
    "a proxy's page": (Response(status=200, body=b"<html>"), ("retry", "http_200", False)),
    "half a document": (Response(status=200, body=b'{"received": '), ("retry", "http_200", False)),
    "wrong": (answer(ERROR, 400), ("permanent", "invalid_request_error", True)),
    "wrong in a word": (answer({"error": "bad"}, 422), ("permanent", "http_422", True)),
    "another's key": (answer(ERROR, 401), ("credential", "invalid_request_error", False)),
    "too many": (Response(status=429), ("rate_limited", "http_429", False)),
    "OpenAI's own fault": (answer({}, 503), ("retry", "http_503", False)),
    "a page of its front": (Response(status=403, body=b"<html>"), ("retry", "http_403", False)),
}


@pytest.mark.parametrize(("response", "expected"), ALL.values(), ids=ALL)
def test_what_an_answer_means_for_all(response, expected):
    """The batch is taken whole or not at all, and the status says which."""
    assert told(OpenAI().read([sale(), sale()], response)) == [expected, expected]


def test_an_outcome_repeats_no_person():
    """What OpenAI quotes is cleaned; what its support asks for is kept."""
    [outcome] = OpenAI().read([sale()], answer({"error": {"message": f"{EMAIL} {PHONE} {KEY}"}}, 400))

    assert [text for text in (EMAIL, "7946", KEY) if text in repr(outcome) + outcome.message] == []
    assert outcome.external_ref == "req_1"


def test_the_version_has_no_end_that_is_known():
    """OpenAI has announced none."""
    assert OpenAI().version == Version("v1", None)
