"""LinkedIn's dialect: golden pairs after the pages named in `platforms.linkedin`."""

from __future__ import annotations

import runpy
from datetime import date, timedelta
from pathlib import Path
from urllib.parse import parse_qs

import msgspec
import pytest

from goodanalytics.platforms import (
    Click,
    Confirming,
    Consent,
    Person,
    Platform,
    Rehearsing,
    Renewing,
    Response,
    Signals,
    Token,
    Version,
    sunset_notice,
)
from goodanalytics.platforms.linkedin import LinkedIn, LinkedInPartner
from goodanalytics.platforms.normalize import email, hashed, sha256

STAND_INS = runpy.run_path(str(Path(__file__).with_name("standins.py")))
NOW, EMAIL, PHONE, a_sale = (STAND_INS[member] for member in ("NOW", "EMAIL", "PHONE", "a_sale"))
TOKEN = "AQX0secretsecretsecret0token"
SECRETS = {"access_token": TOKEN, "lead_rule_id": "104004", "sale_rule_id": "104012"}
MARK = {"li_fat_id": Click(value="df5gf5-gh6t7-ph4j7h-fgf6n1", at=NOW - timedelta(days=2))}

GOLDEN = {
    "elements": [
        {
            "conversion": "urn:lla:llaPartnerConversion:104012",
            "conversionHappenedAt": 1795172400000,
            "conversionValue": {"currencyCode": "EUR", "amount": "49.00"},
            "eventId": "sale:A-1001",
            "user": {
                "userIds": [
                    {"idType": "SHA256_EMAIL", "idValue": sha256("ada.lovelace@example.org")},
                    {
                        "idType": "LINKEDIN_FIRST_PARTY_ADS_TRACKING_UUID",
                        "idValue": "df5gf5-gh6t7-ph4j7h-fgf6n1",
                    },
                    {"idType": "SHA256_IP_ADDRESS", "idValue": sha256("203.0.113.9")},
                ]
            },
        }
    ]
}


def sale(**changes):
    return a_sale(**({"signals": Signals(clicks=MARK, ip="203.0.113.9", user_agent="Mozilla/5.0")} | changes))


def answer(body, status=200, headers=None):
    return Response(status=status, headers=headers or {}, body=msgspec.json.encode(body))


def element_for(platform=None, **changes):
    return msgspec.json.decode((platform or LinkedIn()).build([sale(**changes)], SECRETS, NOW).body)[
        "elements"
    ][0]


def told(outcomes):
    return [(outcome.status, outcome.code, outcome.of_batch) for outcome in outcomes]


def test_linkedin_is_a_platform_and_no_more():
    """It answers at once, has no test mode, and its plain form does not renew tokens; a partner's does."""
    extras = [Confirming, Rehearsing, Renewing]

    assert isinstance(LinkedIn(), Platform)
    assert [isinstance(LinkedIn(), protocol) for protocol in extras] == [False, False, False]
    assert [isinstance(LinkedInPartner(), protocol) for protocol in extras] == [False, False, True]


def test_a_sale_is_the_golden_request():
    """A batch, also when it is one, with the version and the method of Rest.li in the headers."""
    request = LinkedIn().build([sale()], SECRETS, NOW)

    assert (request.method, request.url) == ("POST", "https://api.linkedin.com/rest/conversionEvents")
    assert request.headers == {
        "authorization": f"Bearer {TOKEN}",
        "linkedin-version": "202607",
        "x-restli-protocol-version": "2.0.0",
        "x-restli-method": "BATCH_CREATE",
        "content-type": "application/json",
    }
    assert msgspec.json.decode(request.body) == GOLDEN


def test_a_request_tells_no_person_in_the_clear():
    """Neither who it was, nor where from, nor what the host noted, nor the token is in the body."""
    request = LinkedIn().build([sale()], SECRETS, NOW)
    shown = request.body.decode() + request.url + repr(request)

    secret = (EMAIL, EMAIL.lower(), "7946", "ovelace", "203.0.113.9", "private note", TOKEN)
    assert [text for text in secret if text in shown] == []


VALUES = {
    "euros": (4900, "EUR", {"currencyCode": "EUR", "amount": "49.00"}),
    "a cent": (1, "usd", {"currencyCode": "USD", "amount": "0.01"}),
    "yen have no cents": (4900, "JPY", {"currencyCode": "JPY", "amount": "4900"}),
    "dinars have thousandths": (4900, "KWD", {"currencyCode": "KWD", "amount": "4.900"}),
    "millions, without an exponent": (
        123456789000,
        "EUR",
        {"currencyCode": "EUR", "amount": "1234567890.00"},
    ),
    "nothing known": (None, None, None),
}


@pytest.mark.parametrize(("cents", "currency", "expected"), VALUES.values(), ids=VALUES)
def test_a_value_is_text_in_major_units(cents, currency, expected):
    """The original sent cents, which LinkedIn read as a hundred times the value."""
    assert element_for(amount_cents=cents, currency=currency).get("conversionValue") == expected


RULES = {
    "named": ("sale_rule_id", "urn:lla:llaPartnerConversion:104012", {"sale_rule_id"}),
    "its id": ("777", "urn:lla:llaPartnerConversion:777", set()),
    "its URN": ("urn:lla:llaPartnerConversion:778", "urn:lla:llaPartnerConversion:778", set()),
}


@pytest.mark.parametrize(("rule", "expected", "stored"), RULES.values(), ids=RULES)
def test_a_rule_is_named_or_written(rule, expected, stored):
    """What is not an id itself is the name of the secret that holds it."""
    platform = LinkedIn(events={"sale": rule})

    assert element_for(platform)["conversion"] == expected
    assert platform.secrets == stored | {"access_token"}


def test_user_ids_are_there_when_there_are_none():
    """LinkedIn refuses an event without the list, also when a name is all that it has."""
    ada = Person(first_name="Ada", last_name="Lovelace", country="gb")

    user = element_for(LinkedIn(send_names=True), person=ada, signals=Signals())["user"]

    assert user == {
        "userIds": [],
        "userInfo": {"firstName": "Ada", "lastName": "Lovelace", "countryCode": "GB"},
    }


ADDRESSES = {
    "IPv4": ("202607", "203.0.113.9", True),
    "IPv6, which LinkedIn does not compare": ("202607", "2001:db8::9", False),
    "a version that knows no hashed address": ("202606", "203.0.113.9", False),
    "a newer version": ("202610", "203.0.113.9", True),
}


@pytest.mark.parametrize(("api", "ip", "expected"), ADDRESSES.values(), ids=ADDRESSES)
def test_an_address_goes_out_where_linkedin_takes_it(api, ip, expected):
    """Hashed, only of IPv4, and since 202607."""
    user = element_for(LinkedIn(api=api), signals=Signals(ip=ip))["user"]

    assert ("SHA256_IP_ADDRESS" in [each["idType"] for each in user["userIds"]]) is expected


NOBODY = {"person": Person(name="Ada Lovelace"), "signals": Signals(ip="203.0.113.9")}
SKIPPED = {
    "sent": (LinkedIn(), {}, None),
    "only an e-mail": (LinkedIn(), {"signals": Signals()}, None),
    "only a click": (LinkedIn(), {"person": Person()}, None),
    "a name that may not go out": (LinkedIn(), NOBODY, "missing_signals: li_fat_id, email"),
    "a name that may": (LinkedIn(send_names=True), NOBODY, None),
    "half a name": (
        LinkedIn(send_names=True),
        {"person": Person(name="Plato"), "signals": Signals()},
        "missing_signals: li_fat_id, email or first and last name",
    ),
    "refused": (LinkedIn(), {"consent": Consent(ad_user_data="denied")}, "consent_denied"),
    "refused to be chosen for": (
        LinkedIn(),
        {"consent": Consent(ad_user_data="granted", ad_personalization="denied")},
        "personalization_denied",
    ),
    "old": (LinkedIn(), {"occurred_at": NOW - timedelta(days=91)}, "too_old"),
    "a refund": (LinkedIn(), {"kind": "refund"}, "unsupported_kind: refund"),
}


@pytest.mark.parametrize(("platform", "changes", "expected"), SKIPPED.values(), ids=SKIPPED)
def test_why_a_conversion_is_skipped(platform, changes, expected):
    """An IP address alone names nobody; what LinkedIn cannot be told, such as a refusal, is not risked."""
    assert platform.skip(sale(**changes), NOW) == expected


def test_a_hash_is_not_hashed_again():
    """What the host hashed goes out as it is."""
    assert (
        hashed("B" * 64, email) == element_for(person=Person(email="B" * 64))["user"]["userIds"][0]["idValue"]
    )
    assert hashed("B" * 64, email) == "b" * 64


# ── answers ──

IN = ("delivered", "http_201", False)
ELEMENTS = {
    "all in": ([{"status": 201}, {"status": 201}], [IN, IN]),
    "one refused": (
        [{"status": 201}, {"status": 400, "error": {"code": "INVALID_URN", "message": "No such rule."}}],
        [IN, ("permanent", "INVALID_URN", False)],
    ),
    "one of many": ([{"status": 429}, {"status": 201}], [("rate_limited", "http_429", False), IN]),
    "LinkedIn's own fault": ([{"status": 500}, {"status": 201}], [("retry", "http_500", False), IN]),
    "without a status": ([{}, {"status": 201}], [("retry", "element", False), IN]),
    "fewer than were sent": ([{"status": 201}], [("retry", "elements", False)] * 2),
}


@pytest.mark.parametrize(("elements", "expected"), ELEMENTS.values(), ids=ELEMENTS)
def test_each_element_has_its_own_status(elements, expected):
    """An HTTP 200 says nothing; what stands at an element does."""
    assert told(LinkedIn().read([sale(), sale()], answer({"elements": elements}))) == expected


def said(status, code, message="…"):
    return answer({"status": status, "code": code, "message": message}, status)


ALL = {
    "a proxy's page": (Response(status=502, body=b"<html>"), ("retry", "http_502", False)),
    "half a document": (Response(status=200, body=b'{"elements": [{"sta'), ("retry", "http_200", False)),
    "no elements": (answer({}), ("retry", "elements", False)),
    "an expired token": (said(401, "EXPIRED_ACCESS_TOKEN"), ("credential", "EXPIRED_ACCESS_TOKEN", False)),
    "no permission": (said(403, "ACCESS_DENIED"), ("credential", "ACCESS_DENIED", False)),
    "a version that ended": (said(426, "NONEXISTENT_VERSION"), ("credential", "http_426", False)),
    "a version that ended, in prose": (
        Response(status=426, body=b"Upgrade"),
        ("credential", "http_426", False),
    ),
    "too many": (said(429, "TOO_MANY_REQUESTS"), ("rate_limited", "TOO_MANY_REQUESTS", False)),
    "too large": (Response(status=413, body=b""), ("permanent", "http_413", True)),
    "LinkedIn's own fault": (said(500, "INTERNAL_SERVER_ERROR"), ("retry", "INTERNAL_SERVER_ERROR", False)),
    "wrong, and not where": (said(400, "ILLEGAL_ARGUMENT"), ("permanent", "ILLEGAL_ARGUMENT", True)),
    "wrong in one not sent": (said(422, "INPUT", "Index: 7, ERROR :: old\n"), ("permanent", "INPUT", True)),
}


@pytest.mark.parametrize(("response", "expected"), ALL.values(), ids=ALL)
def test_what_an_answer_means_for_all(response, expected):
    """What is no list of elements judges the request."""
    assert told(LinkedIn().read([sale(), sale()], response)) == [expected, expected]


def test_a_version_that_ended_says_the_cure():
    """A 426 is nobody's event: the version is to be set."""
    [outcome] = LinkedIn(api="202404").read([sale()], said(426, "NONEXISTENT_VERSION"))

    assert outcome.message == "LinkedIn no longer answers version 202404. Set a newer one: LinkedIn(api=…)"


def test_the_blamed_element_is_out_and_its_neighbours_go_again():
    """A 422 that names elements took none of them, and names the one at fault."""
    response = said(422, "INPUT", "Index: 1, ERROR :: conversionHappenedAt must be within 90 days\n")

    outcomes = LinkedIn().read([sale(), sale(), sale()], response)

    neighbour = ("retry", "neighbour_refused", False)
    assert told(outcomes) == [neighbour, ("permanent", "INPUT", False), neighbour]
    assert outcomes[1].message == "conversionHappenedAt must be within 90 days"


def test_an_outcome_repeats_no_person():
    """What LinkedIn quotes is cleaned; what its support asks for is kept."""
    refused = {"status": 400, "error": {"message": f"{EMAIL} {PHONE} {TOKEN}"}}

    [outcome] = LinkedIn().read([sale()], answer({"elements": [refused]}, headers={"x-li-uuid": "AAYx/1=="}))

    assert [text for text in (EMAIL, "7946", TOKEN) if text in repr(outcome) + outcome.message] == []
    assert outcome.external_ref == "AAYx/1=="


# ── versions and tokens ──

VERSIONS = {
    "a day that LinkedIn gave": ("202603", date(2027, 3, 16)),
    "a day after a year": ("202607", date(2027, 7, 1)),
    "of another year": ("202712", date(2028, 12, 1)),
    "no month": ("latest", None),
}


@pytest.mark.parametrize(("api", "expected"), VERSIONS.values(), ids=VERSIONS)
def test_a_version_has_an_end(api, expected):
    """A version is good for a year at least, so it is warned of from then on."""
    assert LinkedIn(api=api).version == Version(api, expected)


def test_a_version_warns_before_its_end():
    """In time, and with the cure."""
    notice = sunset_notice(LinkedIn(), date(2027, 5, 1))

    assert notice == (
        "linkedin: API version 202607 ends on 2027-07-01 (in 61 days). Set a newer one: LinkedIn(api=…)."
    )


def test_a_partner_renews_its_token():
    """The refresh token is exchanged at LinkedIn's own address, and the answer is good for 60 days."""
    partner = LinkedInPartner()
    secrets = {"client_id": "c", "client_secret": "s", "refresh_token": "r"}

    request = partner.build_token_request(secrets, NOW)
    token = partner.read_token(answer({"access_token": TOKEN, "expires_in": 5184000}), NOW)

    assert request.url == "https://www.linkedin.com/oauth/v2/accessToken"
    assert parse_qs(request.body.decode())["grant_type"] == ["refresh_token"]
    assert token == Token(value=TOKEN, expires_at=NOW + timedelta(days=60, minutes=-1))
    assert partner.secrets == {*secrets, "lead_rule_id", "sale_rule_id"}
