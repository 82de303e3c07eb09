"""Google's two dialects: golden pairs after the pages and protocol buffers named in `platforms.google` and `google_ads`."""

from __future__ import annotations

import runpy
from base64 import urlsafe_b64decode
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from goodanalytics.errors import InvalidInput
from goodanalytics.platforms import (
    Click,
    Confirming,
    Consent,
    Item,
    Laned,
    Person,
    Platform,
    Rehearsing,
    Renewing,
    Response,
    Signals,
    Token,
    Version,
)
from goodanalytics.platforms.google import Google
from goodanalytics.platforms.google_account import click_of
from goodanalytics.platforms.google_ads import GoogleAds
from goodanalytics.platforms.normalize import google_email, google_name, hashed, phone_e164, sha256

STAND_INS = runpy.run_path(str(Path(__file__).with_name("standins.py")))
NOW, EMAIL, PHONE, a_sale = (STAND_INS[member] for member in ("NOW", "EMAIL", "PHONE", "a_sale"))
TOKEN = "ya29.a0secretsecretsecret0token"
SECRETS = {
    "access_token": TOKEN,
    "customer_id": "123-456-7890",
    "developer_token": "dev0secretsecretsecret0token",
    "lead_action_id": "111",
    "sale_action_id": "222",
}
SOLD = NOW - timedelta(days=3)
CLICKED = NOW - timedelta(days=10)
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def clicks(**values):
    return Signals(clicks={key: Click(value=value, at=CLICKED) for key, value in values.items()})


def sale(**changes):
    facts = {"signals": Signals(clicks=clicks(gclid="Cj0KCQ").clicks, ip="203.0.113.9", user_agent=BROWSER)}
    return a_sale(**(facts | changes))


def refund(**changes):
    facts = {
        "event_id": "refund:A-1001:1",
        "kind": "refund",
        "occurred_at": NOW - timedelta(hours=1),
        "amount_cents": 1900,
        "remaining_cents": 3000,
        "sale_event_id": "sale:A-1001",
        "sold_at": SOLD,
        "contents": (),
    }
    return sale(**(facts | changes))


def answer(body, status=200, **headers):
    return Response(
        status=status,
        headers={key.replace("_", "-"): value for key, value in headers.items()},
        body=msgspec.json.encode(body),
    )


def body_for(*conversions, platform=None):
    return msgspec.json.decode((platform or Google()).build(conversions, SECRETS, NOW).body)


def event_for(platform=None, **changes):
    return body_for(sale(**changes), platform=platform)["events"][0]


def told(outcomes):
    return [(outcome.status, outcome.code, outcome.of_batch) for outcome in outcomes]


HASHES = {
    "emailAddress": sha256("ada.lovelace@example.org"),
    "phoneNumber": sha256("+442079460018"),
    "address": {
        "givenName": sha256("ada"),
        "familyName": sha256("lovelace"),
        "regionCode": "GB",
        "postalCode": "NW1 6XE",
    },
}
GOLDEN = {
    "destinations": [
        {
            "reference": "sale_action_id",
            "operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": "1234567890"},
            "productDestinationId": "222",
        }
    ],
    "events": [
        {
            "destinationReferences": ["sale_action_id"],
            "transactionId": "sale:A-1001",
            "eventTimestamp": "2026-11-20T11:00:00Z",
            "eventSource": "WEB",
            "adIdentifiers": {"gclid": "Cj0KCQ"},
            "userData": {"userIdentifiers": [{key: value} for key, value in HASHES.items()]},
            "consent": {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_GRANTED"},
            "eventDeviceInfo": {"userAgent": BROWSER},
            "conversionValue": 49.0,
            "currency": "EUR",
        }
    ],
    "encoding": "HEX",
}


# ── what goes out ──


@pytest.mark.parametrize("protocol", [Platform, Laned, Renewing, Confirming, Rehearsing])
def test_google_has_every_protocol(protocol):
    """It has lanes, renews tokens, answers later, and has a test mode."""
    assert isinstance(Google(), protocol)


def test_a_sale_is_the_golden_request():
    """Everything that is known goes out, each in its place and shape."""
    request = Google().build([sale()], SECRETS, NOW)

    assert (request.method, request.url) == ("POST", "https://datamanager.googleapis.com/v1/events:ingest")
    assert request.headers == {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    assert msgspec.json.decode(request.body) == GOLDEN


def test_a_request_tells_no_person_in_the_clear():
    """Neither who it was, nor what the host noted, nor the token is in the body; the token is not in the address."""
    request = Google().build([sale()], SECRETS, NOW)
    shown = request.body.decode() + request.url + repr(request)

    assert [
        text for text in (EMAIL, EMAIL.lower(), "7946", "ovelace", "private note", TOKEN) if text in shown
    ] == []


def test_each_conversion_action_is_a_destination():
    """Leads and sales share a request, and each event names where it goes."""
    body = body_for(sale(kind="lead"), sale(), sale())

    assert [each["productDestinationId"] for each in body["destinations"]] == ["111", "222"]
    assert [each["destinationReferences"] for each in body["events"]] == [
        ["lead_action_id"],
        ["sale_action_id"],
        ["sale_action_id"],
    ]


def test_an_action_may_be_its_id():
    """A host with one account writes the id where the name of a secret would be, and need not store it."""
    google = Google(events={"sale": "987"})

    assert google.secrets == {"customer_id", "service_account"}
    assert body_for(sale(), platform=google)["destinations"][0]["productDestinationId"] == "987"


def test_a_manager_account_signs_in():
    """`login_customer_id` is the manager's, and only there when it is stored."""
    secrets = SECRETS | {"login_customer_id": "999-888-7777"}

    body = msgspec.json.decode(Google().build([sale()], secrets, NOW).body)

    assert body["destinations"][0]["loginAccount"] == {"accountType": "GOOGLE_ADS", "accountId": "9998887777"}


def test_a_refund_restates_its_sale():
    """The sale's id, action and time, with what is left of it, and when it changed."""
    event = body_for(refund())["events"][0]

    shown = {key: event[key] for key in GOLDEN["events"][0] if key in event} | {
        "lastUpdatedTimestamp": event["lastUpdatedTimestamp"]
    }
    assert shown == GOLDEN["events"][0] | {
        "eventTimestamp": "2026-11-17T12:00:00Z",
        "lastUpdatedTimestamp": "2026-11-20T11:00:00Z",
        "conversionValue": 30.0,
    }


def test_of_two_refunds_of_one_second_the_later_one_is_newer():
    """Google keeps what was updated last, so the second alone does not say which that is."""
    later = refund(occurred_at=NOW - timedelta(hours=1, microseconds=-250_000))

    assert body_for(later)["events"][0]["lastUpdatedTimestamp"] == "2026-11-20T11:00:00.250000Z"


def test_a_full_refund_leaves_nothing():
    """Nothing left is a value of 0, which is told."""
    assert body_for(refund(remaining_cents=0))["events"][0]["conversionValue"] == 0


def test_a_refund_and_its_sale_never_share_a_request():
    """Which of the two Google took first would be chance."""
    assert {Google().lane(refund()), Google().lane(sale())} == {"restatements", "main"}


VALUES = {
    "euros": (4900, "EUR", b'"conversionValue":49.00,"currency":"EUR"'),
    "yen have no cents": (4900, "JPY", b'"conversionValue":4900,"currency":"JPY"'),
    "dinars have thousandths": (4900, "kwd", b'"conversionValue":4.900,"currency":"KWD"'),
}


@pytest.mark.parametrize(("cents", "currency", "expected"), VALUES.values(), ids=VALUES)
def test_a_value_is_a_decimal_in_major_units(cents, currency, expected):
    """As charged, with the currency's own decimals, as a JSON number."""
    assert expected in Google().build([sale(amount_cents=cents, currency=currency)], SECRETS, NOW).body


AT = datetime(2026, 11, 20, 11, tzinfo=UTC)
CLICKS = {
    "none": ({}, None),
    "one": ({"gclid": AT - timedelta(days=1)}, "gclid"),
    "the latest": ({"gclid": AT - timedelta(days=2), "wbraid": AT - timedelta(days=1)}, "wbraid"),
    "a gclid first among equals": ({"wbraid": AT, "gbraid": AT, "gclid": AT}, "gclid"),
    "90 days": ({"gclid": AT - timedelta(days=90)}, "gclid"),
    "older": ({"gclid": AT - timedelta(days=90, seconds=1)}, None),
    "after the conversion": (
        {"gclid": AT + timedelta(seconds=1), "gbraid": AT - timedelta(days=9)},
        "gbraid",
    ),
    "another platform's": ({"fbclid": AT}, None),
}


@pytest.mark.parametrize(("times", "expected"), CLICKS.values(), ids=CLICKS)
def test_one_click_goes_out(times, expected):
    """Google takes one click id, from before the conversion and not older than it can attribute."""
    signals = Signals(clicks={key: Click(value=f"{key}-value", at=at) for key, at in times.items()})

    found = click_of(sale(signals=signals))

    assert found == (None if expected is None else (expected, f"{expected}-value"))


def test_a_refund_has_the_click_of_its_sale():
    """A click between the sale and the refund did not lead to the sale."""
    later = Signals(clicks={"gclid": Click(value="later", at=SOLD + timedelta(hours=1))})

    assert click_of(refund(signals=later)) is None


WHERE = {
    "outside": ("US", True),
    "the EEA": ("FR", False),
    "Norway is in the EEA": ("no", False),
    "the United Kingdom": ("GB", False),
    "Switzerland": ("CH", False),
    "not known": (None, False),
}


@pytest.mark.parametrize(("lives", "sent"), WHERE.values(), ids=WHERE)
def test_an_address_goes_out_only_from_where_google_takes_it(lives, sent):
    """Google asks that no IP address comes from the EEA, the United Kingdom or Switzerland."""
    event = event_for(person=Person(email=EMAIL, country=lives))

    assert ("ipAddress" in event["eventDeviceInfo"]) == sent


def test_a_cart_needs_a_merchant_and_a_gclid():
    """Without the Merchant Center the ids of items mean nothing; with a wbraid Google takes no cart."""
    lamp = (Item(id="lamp", quantity=2, price_cents=2450),)
    shop = Google(merchant_id="55")

    assert event_for(shop, contents=lamp)["cartData"] == {
        "merchantId": "55",
        "items": [{"merchantProductId": "lamp", "quantity": "2", "unitPrice": 24.5}],
    }
    assert "cartData" not in event_for(shop, contents=lamp, signals=clicks(wbraid="w"))
    assert "cartData" not in event_for(contents=lamp)


CONSENTS = {
    "granted": (
        Consent(ad_user_data="granted", ad_personalization="granted"),
        {"adUserData", "adPersonalization"},
    ),
    "asked for one": (Consent(ad_user_data="granted"), {"adUserData"}),
    "not asked": (Consent(), None),
}


@pytest.mark.parametrize(("consent", "expected"), CONSENTS.values(), ids=CONSENTS)
def test_consent_goes_out_as_it_was_given(consent, expected):
    """Nobody is said to have agreed who was not asked."""
    consent_sent = event_for(consent=consent).get("consent")

    assert (set(consent_sent) if consent_sent else None) == expected


def test_refused_personalization_is_told():
    """Google may count the conversion and not use it to choose ads."""
    event = event_for(consent=Consent(ad_user_data="granted", ad_personalization="denied"))

    assert event["consent"]["adPersonalization"] == "CONSENT_DENIED"


VECTORS = {
    "an address": (
        " ALEXZ@example.com ",
        google_email,
        "509e933019bb285a134a9334b8bb679dff79d0ce023d529af4bd744d47b4fd8a",
    ),
    "a telephone": (
        "1-800-555-0100 ",
        phone_e164,
        "fb4f73a6ec5fdb7077d564cdd22c3554b43ce49168550c3b12c547b78c517b30",
    ),
    "a first name": (
        "  GivenName  ",
        google_name,
        "128a07bfe2df877c52076e60d7774cf5baaa046c5a6c48daf30ff43ecca2f814",
    ),
    "a last name": (
        "  FamilyName ",
        google_name,
        "77762c287e61ce065bee5c15464012c6fbe088398b8057627d5577249430d574",
    ),
    "a hash": ("A" * 64, google_email, "a" * 64),
}


@pytest.mark.parametrize(("text", "shape", "expected"), VECTORS.values(), ids=VECTORS)
def test_googles_own_vectors(text, shape, expected):
    """As tests/formatter_test.py of github.com/googleads/data-manager-python has them; nothing is hashed twice."""
    assert hashed(text, shape) == expected


def test_a_name_goes_out_as_google_compares_it():
    """With its punctuation, as Google's own formatter leaves it; other platforms take it out."""
    who = Person(first_name="Mary-Ann", last_name="O'Neil", postcode="M1 1AE", country="gb")
    [identifier] = event_for(person=who)["userData"]["userIdentifiers"]

    names = [identifier["address"][key] for key in ("givenName", "familyName")]
    assert names == [sha256("mary-ann"), sha256("o'neil")]


def test_a_body_is_what_googles_library_takes():
    """The official library's protocol buffers know every member that we send."""
    datamanager = pytest.importorskip(
        "google.ads.datamanager_v1", reason="pip install google-ads-datamanager"
    )
    json_format = pytest.importorskip("google.protobuf.json_format")
    shop = Google(merchant_id="55", test=True)
    conversions = [sale(person=Person(email=EMAIL, country="US")), sale(kind="lead"), refund()]

    message = json_format.ParseDict(
        body_for(*conversions, platform=shop), datamanager.IngestEventsRequest.pb()()
    )

    assert len(message.events) == 3


SKIPPED = {
    "sent": ({}, None),
    "only a person": ({"signals": Signals()}, None),
    "only a click": ({"person": Person()}, None),
    "nobody": (
        {"person": Person(name="Ada Lovelace"), "signals": Signals(ip="203.0.113.9")},
        "missing_signals: gclid, gbraid, wbraid, email, phone or address",
    ),
    "an old click alone": (
        {
            "person": Person(),
            "signals": Signals(clicks={"gclid": Click(value="x", at=NOW - timedelta(days=99))}),
        },
        "missing_signals: gclid, gbraid, wbraid, email, phone or address",
    ),
    "refused": ({"consent": Consent(ad_user_data="denied")}, "consent_denied"),
    "old": ({"occurred_at": NOW - timedelta(days=91)}, "too_old"),
    "a refund of nothing known": ({"kind": "refund"}, "missing_sale"),
}


@pytest.mark.parametrize(("changes", "expected"), SKIPPED.values(), ids=SKIPPED)
def test_why_a_conversion_is_skipped(changes, expected):
    """What Google could not attribute is not sent."""
    assert Google().skip(sale(**changes), NOW) == expected


def test_a_refund_of_a_known_sale_is_sent():
    """Id, time, currency and what is left are enough."""
    assert Google().skip(refund(), NOW) is None


def test_a_refund_of_an_old_sale_is_not_sent():
    """What goes out is the sale's event, and one that is too old refuses its whole request."""
    assert Google().skip(refund(sold_at=NOW - timedelta(days=91)), NOW) == "too_old"


def test_test_mode_validates():
    """A rehearsal asks for validation and is done at once, because Google keeps no result of it."""
    rehearsal = Google().in_test("")

    outcomes = rehearsal.read([sale()], answer({"requestId": "r-1"}))

    assert body_for(sale(), platform=rehearsal)["validateOnly"] is True
    assert told(outcomes) == [("delivered", "validated", False)]


# ── what comes back at once ──


def test_a_receipt_is_not_a_delivery():
    """A 200 says that the request was taken, and what of it Google left out."""
    warning = {"reason": "WARNING_REASON_INVALID_MERCHANT_ID", "field": "events[0].cart_data.merchant_id"}

    [outcome] = Google().read([sale()], answer({"requestId": "r-1", "fieldWarnings": [warning]}))

    assert (outcome.status, outcome.external_ref) == ("accepted", "r-1")
    assert outcome.message == "WARNING_REASON_INVALID_MERCHANT_ID: events[0].cart_data.merchant_id"


def refused(code, status, *details, message="There was a problem with the request."):
    return answer(
        {"error": {"code": code, "message": message, "status": status, "details": list(details)}}, code
    )


def violations(*paths, reason="INVALID_FORMAT"):
    return {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{"field": path, "description": "Is wrong.", "reason": reason} for path in paths],
    }


def info(reason):
    return {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "datamanager.googleapis.com",
    }


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "30s"}
ALL = {
    "a proxy's page": (Response(status=502, body=b"<html>Bad gateway"), ("retry", "http_502", False)),
    "half a document": (Response(status=200, body=b'{"requestId": "r'), ("retry", "http_200", False)),
    "nothing": (Response(status=200), ("retry", "http_200", False)),
    "a receipt without a number": (answer({}), ("retry", "no_request_id", False)),
    "an error in a 200": (
        answer({"error": {"status": "UNAVAILABLE", "message": "…"}}),
        ("retry", "UNAVAILABLE", False),
    ),
    "an expired token": (refused(401, "UNAUTHENTICATED"), ("credential", "UNAUTHENTICATED", False)),
    "another's account": (refused(403, "PERMISSION_DENIED"), ("credential", "PERMISSION_DENIED", False)),
    "too many": (
        refused(429, "RESOURCE_EXHAUSTED", RETRY_INFO),
        ("rate_limited", "RESOURCE_EXHAUSTED", False),
    ),
    "Google's own fault": (refused(500, "INTERNAL"), ("retry", "INTERNAL", False)),
    "a status that is new": (refused(418, "TEAPOT"), ("permanent", "TEAPOT", True)),
    "wrong, and not where": (refused(400, "INVALID_ARGUMENT"), ("permanent", "INVALID_ARGUMENT", True)),
    "wrong in the request": (
        refused(400, "INVALID_ARGUMENT", violations("encoding")),
        ("permanent", "INVALID_ARGUMENT", True),
    ),
    "wrong in an event and in the request": (
        refused(400, "INVALID_ARGUMENT", violations("events[0].currency", "encoding")),
        ("permanent", "INVALID_ARGUMENT", True),
    ),
    "wrong in an event that was not sent": (
        refused(400, "INVALID_ARGUMENT", violations("events[7].currency")),
        ("permanent", "INVALID_ARGUMENT", True),
    ),
    "the wrong action": (
        refused(
            400,
            "INVALID_ARGUMENT",
            violations("destinations[0].product_destination_id", reason="INVALID_CONVERSION_ACTION_TYPE"),
        ),
        ("credential", "INVALID_CONVERSION_ACTION_TYPE", False),
    ),
    "terms not signed": (
        refused(
            400,
            "INVALID_ARGUMENT",
            violations(
                "events[0].user_data", reason="DESTINATION_ACCOUNT_ENHANCED_CONVERSIONS_TERMS_NOT_SIGNED"
            ),
        ),
        ("credential", "DESTINATION_ACCOUNT_ENHANCED_CONVERSIONS_TERMS_NOT_SIGNED", False),
    ),
    "a young action": (
        refused(400, "INVALID_ARGUMENT", info("CONVERSION_ACTION_TOO_RECENTLY_CREATED")),
        ("retry", "CONVERSION_ACTION_TOO_RECENTLY_CREATED", False),
    ),
}


@pytest.mark.parametrize(("response", "expected"), ALL.values(), ids=ALL)
def test_what_an_answer_means_for_all(response, expected):
    """The canonical code and its details judge the request."""
    assert told(Google().read([sale(), sale()], response)) == [expected, expected]


def test_google_says_how_long_to_wait():
    """`RetryInfo` in the details goes before nothing in the headers."""
    [outcome] = Google().read([sale()], ALL["too many"][0])

    assert outcome.retry_after == timedelta(seconds=30)


PATHS = {"as the protocol buffer": "events[1].user_data", "as the library": "events.events[1].userData"}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_blamed_event_is_out_and_its_neighbours_go_again(path):
    """Google took nothing of the request; only one event is at fault, counted from zero."""
    outcomes = Google().read([sale(), sale(), sale()], refused(400, "INVALID_ARGUMENT", violations(path)))

    neighbour = ("retry", "neighbour_refused", False)
    assert told(outcomes) == [neighbour, ("permanent", "INVALID_FORMAT", False), neighbour]
    assert outcomes[1].message == f"{path}: Is wrong."


def test_an_outcome_repeats_no_person():
    """What Google quotes of an event is cleaned."""
    quoted = violations("events[0].user_data")
    quoted["fieldViolations"][0]["description"] = f"{EMAIL} or {PHONE} is not a hash"

    [outcome] = Google().read([sale()], refused(400, "INVALID_ARGUMENT", quoted))

    assert [text for text in (EMAIL, "7946") if text in repr(outcome) + outcome.message] == []


# ── what comes later ──


def results(*statuses):
    return answer({"requestStatusPerDestination": list(statuses)})


def result(status, **counts):
    found = {"requestStatus": status, "eventsIngestionStatus": {"recordCount": "2"}}
    if counts:
        prefix = "PROCESSING_ERROR_REASON_"
        found["errorInfo"] = {
            "errorCounts": [
                {"recordCount": str(n), "reason": prefix + reason} for reason, n in counts.items()
            ]
        }
    return found


def test_the_question_names_the_receipt():
    """A GET with the receipt in its query; the token is in a header."""
    request = Google().build_poll("a b&c", SECRETS, NOW)

    assert (request.method, request.body) == ("GET", b"")
    assert request.url == "https://datamanager.googleapis.com/v1/requestStatus:retrieve?requestId=a+b%26c"
    assert request.headers == {"authorization": f"Bearer {TOKEN}"}


STILL = ("accepted", "PROCESSING", False)
RESULTS = {
    "all in": (result("SUCCESS"), ("delivered", "SUCCESS", False)),
    "still at it": (result("PROCESSING"), STILL),
    "a status that is new": (result("THINKING"), STILL),
    "there already": (
        result("FAILED", DUPLICATE_TRANSACTION_ID=2),
        ("delivered", "DUPLICATE_TRANSACTION_ID", False),
    ),
    "some there already": (
        result("PARTIAL_SUCCESS", DUPLICATE_TRANSACTION_ID=1),
        ("delivered", "DUPLICATE_TRANSACTION_ID", False),
    ),
    "all too old": (result("FAILED", EVENT_TOO_OLD=2), ("permanent", "EVENT_TOO_OLD", False)),
    "all wrong, each its way": (
        result("FAILED", EVENT_TOO_OLD=1, INVALID_GCLID=1),
        ("permanent", "EVENT_TOO_OLD", False),
    ),
    "one of two wrong": (result("PARTIAL_SUCCESS", INVALID_GCLID=1), ("permanent", "INVALID_GCLID", True)),
    "one wrong, one there": (
        result("FAILED", DUPLICATE_GCLID=1, INVALID_GCLID=1),
        ("permanent", "DUPLICATE_GCLID", True),
    ),
    "wrong and not told why": (result("FAILED"), ("permanent", "FAILED", True)),
    "a reason that is new": (result("FAILED", MOON_PHASE=2), ("permanent", "MOON_PHASE", False)),
    "too early": (result("PARTIAL_SUCCESS", TOO_RECENT_CLICK=1), ("retry", "TOO_RECENT_CLICK", False)),
    "no agreement with Google": (result("FAILED", NO_CONSENT=2), ("credential", "NO_CONSENT", False)),
}


@pytest.mark.parametrize(("found", "expected"), RESULTS.values(), ids=RESULTS)
def test_what_a_result_means(found, expected):
    """Counts by reason judge the events of a destination; where they are not all alike, the batch is halved."""
    assert told(Google().read_poll([sale(), sale()], results(found))) == [expected, expected]


def test_a_batch_of_one_needs_no_halving():
    """One event that failed is the one."""
    [outcome] = Google().read_poll([sale()], results(result("PARTIAL_SUCCESS", INVALID_GCLID=1)))

    assert (outcome.status, outcome.of_batch, outcome.message) == ("permanent", False, "1 of 1 INVALID_GCLID")


def test_each_destination_has_its_result():
    """In the order of the request's destinations."""
    batch = [sale(), sale(kind="lead"), sale()]

    outcomes = Google().read_poll(batch, results(result("SUCCESS"), result("FAILED", EVENT_TOO_OLD=1)))

    delivered = ("delivered", "SUCCESS", False)
    assert told(outcomes) == [delivered, ("permanent", "EVENT_TOO_OLD", False), delivered]


def test_a_destinations_result_is_found_by_its_name():
    """Also when whoever came first in the request was erased meanwhile, or all who went to a destination."""
    sold = result("SUCCESS") | {"destination": {"reference": "sale_action_id"}}
    led = result("FAILED", EVENT_TOO_OLD=2) | {"destination": {"reference": "lead_action_id"}}

    several = Google().read_poll([sale(), sale(kind="lead")], results(led, sold))
    alone = Google().read_poll([sale()], results(led, sold))

    delivered = ("delivered", "SUCCESS", False)
    assert told(several) == [delivered, ("permanent", "EVENT_TOO_OLD", False)]
    assert told(alone) == [delivered]


def test_a_destination_without_a_result_is_asked_for_again():
    """Fewer results than destinations is no delivery."""
    outcomes = Google().read_poll([sale(), sale(kind="lead")], results(result("SUCCESS")))

    assert [outcome.status for outcome in outcomes] == ["delivered", "accepted"]


POLLS = {
    "a proxy's page": (Response(status=502, body=b"<html>"), "accepted"),
    "Google's own fault": (refused(503, "UNAVAILABLE"), "accepted"),
    "too many": (refused(429, "RESOURCE_EXHAUSTED"), "accepted"),
    "an expired token": (refused(401, "UNAUTHENTICATED"), "credential"),
    "a receipt that Google does not know": (
        refused(400, "INVALID_ARGUMENT", info("INVALID_REQUEST_ID")),
        "retry",
    ),
    "asked too late": (refused(400, "INVALID_ARGUMENT", info("REQUEST_TOO_OLD")), "permanent"),
}


@pytest.mark.parametrize(("response", "expected"), POLLS.values(), ids=POLLS)
def test_a_question_that_fails_says_nothing_about_the_conversion(response, expected):
    """It is asked again; only a receipt that Google does not know sends the conversion again."""
    assert [outcome.status for outcome in Google().read_poll([sale()], response)] == [expected]


# ── tokens ──


@pytest.fixture(scope="module")
def key():
    return generate_rsa_key(public_exponent=65537, key_size=2048)


def key_file(private_key):
    pem = private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return msgspec.json.encode(
        {
            "type": "service_account",
            "client_email": "conversions@project.iam.gserviceaccount.com",
            "private_key_id": "k1",
            "private_key": pem,
        }
    ).decode()


def decoded(part):
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_a_service_account_signs_a_claim(key):
    """RS256 over the claims that Google asks for, good for an hour, for this scope and this address."""
    request = Google().build_token_request({"service_account": key_file(key)}, NOW)

    form = parse_qs(request.body.decode())
    header, claims, signature = form["assertion"][0].split(".")
    key.public_key().verify(decoded(signature), f"{header}.{claims}".encode(), PKCS1v15(), SHA256())
    assert (request.method, request.url) == ("POST", "https://oauth2.googleapis.com/token")
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    assert msgspec.json.decode(decoded(header)) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    assert msgspec.json.decode(decoded(claims)) == {
        "iss": "conversions@project.iam.gserviceaccount.com",
        "scope": "https://www.googleapis.com/auth/datamanager",
        "aud": "https://oauth2.googleapis.com/token",
        "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 3600,
    }


def test_a_refresh_token_is_exchanged():
    """The client and its refresh token go into the body."""
    secrets = {"client_id": "c", "client_secret": "s", "refresh_token": "1//r"}

    request = Google(credential="refresh_token").build_token_request(secrets, NOW)

    assert parse_qs(request.body.decode()) == {
        "grant_type": ["refresh_token"],
        "client_id": ["c"],
        "client_secret": ["s"],
        "refresh_token": ["1//r"],
    }
    assert Google(credential="refresh_token").secrets == {
        *secrets,
        "customer_id",
        "lead_action_id",
        "sale_action_id",
    }


BAD_FILES = {
    "not JSON": "-----BEGIN PRIVATE KEY-----secret",
    "another file": '{"private_key": "secret"}',
    "not a key": '{"client_email": "a@b.example", "private_key": "secret"}',
    "not RSA": key_file(generate_private_key(SECP256R1())),
}


@pytest.mark.parametrize("text", BAD_FILES.values(), ids=BAD_FILES)
def test_a_key_file_that_cannot_be_read_says_so_and_nothing_of_itself(text):
    """The message has the cure; neither it nor its causes quote the file."""
    with pytest.raises(InvalidInput, match="Store the") as caught:
        Google().build_token_request({"service_account": text}, NOW)

    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_token_expires_a_minute_early():
    """So that none expires on its way."""
    token = Google().read_token(
        answer({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}), NOW
    )

    assert token == Token(value=TOKEN, expires_at=NOW + timedelta(seconds=3539))
    assert TOKEN not in repr(token)


NO_TOKENS = {
    "revoked": (
        answer({"error": "invalid_grant", "error_description": "Gone."}, 400),
        ("credential", "invalid_grant"),
    ),
    "another's client": (answer({"error": "invalid_client"}, 401), ("credential", "invalid_client")),
    "a bad hour": (answer({"error": "server_error"}, 400), ("retry", "server_error")),
    "a fault": (answer({"error": "internal_failure"}, 500), ("retry", "internal_failure")),
    "too many": (answer({"error": "rate_limit_exceeded"}, 429), ("rate_limited", "rate_limit_exceeded")),
    "a proxy's page": (Response(status=200, body=b"<html>"), ("retry", "http_200")),
    "no token in it": (answer({"token_type": "Bearer"}), ("retry", "no_token")),
    "an empty token": (answer({"access_token": "", "expires_in": 3599}), ("retry", "no_token")),
    "an error in a 200": (answer({"error": "invalid_grant"}), ("credential", "invalid_grant")),
}


@pytest.mark.parametrize(("response", "expected"), NO_TOKENS.values(), ids=NO_TOKENS)
def test_what_stands_in_the_way_of_a_token(response, expected):
    """What no second try mends stops the platform; all else is tried again."""
    verdict = Google().read_token(response, NOW)

    assert (verdict.status, verdict.code) == expected


# ── the older upload ──


ADS = GoogleAds()
ADS_ROW = {
    "conversionAction": "customers/1234567890/conversionActions/222",
    "conversionDateTime": "2026-11-20 11:00:00+00:00",
    "orderId": "sale:A-1001",
    "conversionEnvironment": "WEB",
    "consent": {"adUserData": "GRANTED", "adPersonalization": "GRANTED"},
    "userIdentifiers": [
        {"userIdentifierSource": "FIRST_PARTY", "hashedEmail": HASHES["emailAddress"]},
        {"userIdentifierSource": "FIRST_PARTY", "hashedPhoneNumber": HASHES["phoneNumber"]},
    ],
    "gclid": "Cj0KCQ",
    "conversionValue": 49.0,
    "currencyCode": "EUR",
}


def test_an_older_upload_is_the_golden_request():
    """The account is in the address, the developer's token in a header, and every row stands for itself."""
    request = ADS.build([sale()], SECRETS | {"login_customer_id": "999-888-7777"}, NOW)

    assert request.url == "https://googleads.googleapis.com/v25/customers/1234567890:uploadClickConversions"
    assert request.headers == {
        "authorization": f"Bearer {TOKEN}",
        "developer-token": SECRETS["developer_token"],
        "content-type": "application/json",
        "login-customer-id": "9998887777",
    }
    assert msgspec.json.decode(request.body) == {"conversions": [ADS_ROW], "partialFailure": True}


ADJUSTMENTS = {
    "a part": (
        3000,
        {"adjustmentType": "RESTATEMENT", "restatementValue": {"adjustedValue": 30.0, "currencyCode": "EUR"}},
    ),
    "all of it": (0, {"adjustmentType": "RETRACTION"}),
}


@pytest.mark.parametrize(("left", "expected"), ADJUSTMENTS.values(), ids=ADJUSTMENTS)
def test_a_refund_is_an_adjustment(left, expected):
    """By the order id of the sale; nothing left takes the conversion back."""
    request = ADS.build([refund(remaining_cents=left)], SECRETS, NOW)

    assert request.url.endswith("/customers/1234567890:uploadConversionAdjustments")
    assert msgspec.json.decode(request.body)["conversionAdjustments"] == [
        {
            "conversionAction": "customers/1234567890/conversionActions/222",
            "adjustmentDateTime": "2026-11-20 11:00:00+00:00",
            "orderId": "sale:A-1001",
        }
        | expected
    ]


ADS_SKIPPED = {
    "a sale": (sale(), None),
    "a refund": (refund(), None),
    "a refund of a wbraid": (refund(signals=clicks(wbraid="w")), "unsupported_refund: of a gbraid or wbraid"),
    "an address alone": (
        sale(signals=Signals(), person=Person(name="Ada Lovelace", postcode="1", country="US")),
        "missing_signals: gclid, gbraid, wbraid, email or phone",
    ),
}


@pytest.mark.parametrize(("conversion", "expected"), ADS_SKIPPED.values(), ids=ADS_SKIPPED)
def test_why_the_older_upload_skips(conversion, expected):
    """It knows no address, and adjusts nothing that came with a gbraid or wbraid."""
    assert ADS.skip(conversion, NOW) == expected


def failure(*errors):
    return {
        "@type": "type.googleapis.com/google.ads.googleads.v25.errors.GoogleAdsFailure",
        "errors": list(errors),
        "requestId": "q-1",
    }


def row_error(row, code, family="conversionUploadError", field_name="conversions"):
    path = [{"fieldName": field_name, "index": row}, {"fieldName": "gclid"}]
    return {"errorCode": {family: code}, "message": "Is wrong.", "location": {"fieldPathElements": path}}


def partly(*errors):
    return answer(
        {
            "partialFailureError": {"code": 3, "message": "Multiple errors.", "details": [failure(*errors)]},
            "results": [{}, {}],
        }
    )


IN = ("delivered", "ok", False)
OUT = ("permanent", "partial_failure", True)
ROWS = {
    "all in": (answer({"results": [{"gclid": "x"}, {"gclid": "y"}]}), [IN, IN]),
    "one refused": (
        partly(row_error(1, "UNPARSEABLE_GCLID")),
        [IN, ("permanent", "UNPARSEABLE_GCLID", False)],
    ),
    "there already": (
        partly(row_error(0, "ORDER_ID_ALREADY_IN_USE")),
        [("delivered", "ORDER_ID_ALREADY_IN_USE", False), IN],
    ),
    "too early": (partly(row_error(0, "TOO_RECENT_EVENT")), [("retry", "TOO_RECENT_EVENT", False), IN]),
    "Google's own fault": (
        partly(row_error(0, "INTERNAL_ERROR", "internalError")),
        [("retry", "INTERNAL_ERROR", False), IN],
    ),
    "a sale that is not there yet": (
        partly(
            row_error(0, "CONVERSION_NOT_FOUND", "conversionAdjustmentUploadError", "conversion_adjustments")
        ),
        [("retry", "CONVERSION_NOT_FOUND", False), IN],
    ),
    "a row that was not sent": (partly(row_error(7, "UNPARSEABLE_GCLID")), [OUT, OUT]),
    "no row named": (answer({"partialFailureError": {"message": "Something."}}), [OUT, OUT]),
}


@pytest.mark.parametrize(("response", "expected"), ROWS.values(), ids=ROWS)
def test_a_partial_failure_names_its_rows(response, expected):
    """A 200 with a partial failure is a success for the rows that it does not name, and for no other."""
    assert told(ADS.read([sale(), sale()], response)) == expected


ADS_REFUSALS = {
    "not allowed any more": (
        "authorizationError",
        "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE",
        ("credential", "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE", False),
    ),
    "another's account": (
        "authorizationError",
        "USER_PERMISSION_DENIED",
        ("credential", "USER_PERMISSION_DENIED", False),
    ),
    "a wrong developer token": (
        "authenticationError",
        "DEVELOPER_TOKEN_INVALID",
        ("credential", "DEVELOPER_TOKEN_INVALID", False),
    ),
    "a version that ended": (
        "requestError",
        "UNSUPPORTED_VERSION",
        ("credential", "UNSUPPORTED_VERSION", False),
    ),
    "too many": (
        "quotaError",
        "RESOURCE_TEMPORARILY_EXHAUSTED",
        ("rate_limited", "RESOURCE_TEMPORARILY_EXHAUSTED", False),
    ),
    "too many rows": (
        "conversionUploadError",
        "TOO_MANY_CONVERSIONS_IN_REQUEST",
        ("permanent", "TOO_MANY_CONVERSIONS_IN_REQUEST", True),
    ),
}


@pytest.mark.parametrize(("family", "code", "expected"), ADS_REFUSALS.values(), ids=ADS_REFUSALS)
def test_an_error_of_the_older_upload(family, code, expected):
    """The code of the failure says more than the HTTP status."""
    response = refused(400, "INVALID_ARGUMENT", failure({"errorCode": {family: code}, "message": "…"}))

    assert told(ADS.read([sale(), sale()], response)) == [expected, expected]


def test_an_error_without_a_failure_falls_back_to_its_code():
    """An expired token is told by Google's front, not by the API."""
    assert told(ADS.read([sale()], refused(401, "UNAUTHENTICATED"))) == [
        ("credential", "UNAUTHENTICATED", False)
    ]


def test_what_cannot_be_read_of_the_older_upload_is_tried_again():
    """A page of a proxy is no success."""
    assert told(ADS.read([sale()], Response(status=200, body=b"<html>"))) == [("retry", "http_200", False)]


def test_the_older_upload_renews_and_rehearses():
    """With its own scope's token, and validation only in test mode."""
    rehearsal = ADS.in_test("")

    assert isinstance(ADS, Renewing)
    assert not isinstance(ADS, Confirming)
    assert body_for(sale(), platform=rehearsal)["validateOnly"] is True


def test_versions_of_google():
    """The older API ends every year; the Data Manager has no end that is known."""
    assert Google().version == Version("v1", None)
    assert ADS.version == Version("v25", date(2027, 8, 1))
