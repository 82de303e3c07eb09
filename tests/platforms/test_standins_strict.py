"""
The stand-ins refuse what the platforms' pages do not allow; else what passes them would prove nothing.

Each case takes the request that the dialect builds, which is right, and spoils one thing about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
import pytest

from goodanalytics.platforms import (
    Click,
    Google,
    GoogleAds,
    LinkedIn,
    Meta,
    Notice,
    OpenAI,
    Platform,
    Request,
    Signals,
    TikTok,
    Webhook,
)
from tests.platforms.standins import NOW, a_sale
from tests.standins import Call, Refused, StandIn
from tests.standins import google as google_page
from tests.standins import google_ads as google_ads_page
from tests.standins import linkedin as linkedin_page
from tests.standins import meta as meta_page
from tests.standins import openai as openai_page
from tests.standins import receiver as receiver_page
from tests.standins import tiktok as tiktok_page

MARKS = {"fbclid": "IwAR2F4", "gclid": "Cj0KCQ", "ttclid": "E.C.P", "li_fat_id": "df5gf5", "oppref": "Opp=="}
SIGNALS = Signals(
    clicks={name: Click(value=value, at=NOW - timedelta(days=2)) for name, value in MARKS.items()},
    ip="203.0.113.9",
    user_agent="Mozilla/5.0",
)
SALE = a_sale(signals=SIGNALS)
NOTICE = Notice(
    dispatch_id=SALE.dispatch_id,
    id="msg_1",
    type="sale.created",
    occurred_at=NOW,
    data={"amount_cents": 4900},
)
OLD_MS, OLD_S = 1_600_000_000_000, 1_600_000_000

Spoil = Callable[[Call], Call]
Path = tuple[str | int, ...]


def a_call(request: Request) -> Call:
    there = urlsplit(request.url)
    headers = {**request.headers, "content-length": str(len(request.body))}
    return Call(request.method, there.netloc, there.path, dict(parse_qsl(there.query)), headers, request.body)


def spoken(dialect: Platform, stand_in: StandIn, secrets: Mapping[str, str]) -> tuple[StandIn, Call]:
    """A stand-in and the right request to it; an access token is given out."""
    office = getattr(stand_in, "office", None)
    told = {**secrets, **({"access_token": office.token} if office else {})}
    return stand_in, a_call(dialect.build([SALE], told, NOW))


def told_to_receiver() -> tuple[StandIn, Call]:
    hook = Webhook(url="https://receiver.example/hooks/T0p-secret")
    return receiver_page.Receiver(), a_call(
        hook.build([NOTICE], {"signing_secret": receiver_page.SECRET}, NOW)
    )


PLATFORMS: dict[str, Callable[[], tuple[StandIn, Call]]] = {
    "meta": lambda: spoken(Meta(), meta_page.Meta(), meta_page.SECRETS),
    "tiktok": lambda: spoken(TikTok(), tiktok_page.TikTok(), tiktok_page.SECRETS),
    "google": lambda: spoken(Google(), google_page.Google(), google_page.secrets()),
    "google_ads": lambda: spoken(GoogleAds(), google_ads_page.GoogleAds(), google_ads_page.secrets()),
    "linkedin": lambda: spoken(LinkedIn(), linkedin_page.LinkedIn(), linkedin_page.SECRETS),
    "openai": lambda: spoken(OpenAI(), openai_page.OpenAI(), openai_page.SECRETS),
    "receiver": told_to_receiver,
}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_is_right_is_taken(platform):
    """The cases below spoil something that was good."""
    stand_in, call = PLATFORMS[platform]()

    assert len(stand_in.judge(call).ids) == 1


def header(name: str, value: str | None) -> Spoil:
    def spoil(call: Call) -> Call:
        others = {key: old for key, old in call.headers.items() if key != name}
        return replace(call, headers=others if value is None else {**others, name: value})

    return spoil


def member(*path: str | int, value: Any) -> Spoil:
    """The body with *value* at *path*; a `...` deletes."""

    def spoil(call: Call) -> Call:
        body = msgspec.json.decode(call.body)
        inside = body
        for step in path[:-1]:
            inside = inside[step]
        if value is ...:
            del inside[path[-1]]
        else:
            inside[path[-1]] = value
        return with_body(call, body)

    return spoil


def times(name: str, number: int) -> Spoil:
    """The one event *number* times, each under an id of its own unless there are two."""

    def spoil(call: Call) -> Call:
        body = msgspec.json.decode(call.body)
        ids = {"data": "event_id", "elements": "eventId", "conversions": "orderId"}
        key = ids.get(name) or ("transactionId" if "transactionId" in body[name][0] else "id")
        body[name] = [
            {**body[name][0], key: "the same" if number == 2 else str(index)} for index in range(number)
        ]
        return with_body(call, body)

    return spoil


def with_body(call: Call, body: Any) -> Call:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return replace(call, body=raw, headers={**call.headers, "content-length": str(len(raw))})


ANYWHERE: dict[str, Spoil] = {
    "another method": lambda call: replace(call, method="PUT"),
    "another path": lambda call: replace(call, path=call.path + "/more"),
    "a form": header("content-type", "application/x-www-form-urlencoded"),
    "a wrong length": header("content-length", "3"),
    "a cookie": header("cookie", "who=us"),
    "half a document": lambda call: with_body(call, call.body[:-1]),
    "a member that nobody documents": member("fbclid_", value=1),
}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("spoil", ANYWHERE.values(), ids=ANYWHERE)
def test_what_is_wrong_anywhere_is_refused(platform, spoil):
    """Method, path, headers and the shape of the body."""
    stand_in, call = PLATFORMS[platform]()

    with pytest.raises(Refused):
        stand_in.judge(spoil(call))


ELSEWHERE = {name: make for name, make in PLATFORMS.items() if name != "receiver"}


@pytest.mark.parametrize("platform", ELSEWHERE)
def test_another_host_is_refused(platform):
    """The request keeps the platform's own address."""
    stand_in, call = ELSEWHERE[platform]()

    with pytest.raises(Refused):
        stand_in.judge(replace(call, host="elsewhere.example"))


HASH = "A" * 64
OWN: dict[str, tuple[str, Spoil]] = {
    "meta: no token": ("meta", header("authorization", None)),
    "meta: a token in the query": ("meta", lambda call: replace(call, query={"access_token": "x"})),
    "meta: another pixel": ("meta", lambda call: replace(call, path="/v26.0/99/events")),
    "meta: a plain e-mail": ("meta", member("data", 0, "user_data", "em", value=["ada@example.org"])),
    "meta: a hash in capitals": ("meta", member("data", 0, "user_data", "em", value=[HASH])),
    "meta: an undocumented mark": ("meta", member("data", 0, "user_data", "fbclid", value="x")),
    "meta: no user agent": ("meta", member("data", 0, "user_data", "client_user_agent", value=...)),
    "meta: no address": ("meta", member("data", 0, "user_data", "client_ip_address", value="here")),
    "meta: an old event": ("meta", member("data", 0, "event_time", value=OLD_S)),
    "meta: milliseconds": ("meta", member("data", 0, "event_time", value=OLD_MS)),
    "meta: no currency": ("meta", member("data", 0, "custom_data", "currency", value=...)),
    "meta: a currency in small letters": ("meta", member("data", 0, "custom_data", "currency", value="eur")),
    "meta: a source that nobody knows": ("meta", member("data", 0, "action_source", value="web")),
    "meta: the same event twice": ("meta", times("data", 2)),
    "meta: too many": ("meta", times("data", 1_001)),
    "meta: none": ("meta", member("data", value=[])),
    "tiktok: a bearer": ("tiktok", header("authorization", "Bearer x")),
    "tiktok: no token": ("tiktok", header("access-token", None)),
    "tiktok: another pixel": ("tiktok", member("event_source_id", value="99")),
    "tiktok: the older member": ("tiktok", member("pixel_code", value="99")),
    "tiktok: a plain phone": ("tiktok", member("data", 0, "user", "phone", value="+442079460018")),
    "tiktok: an old event": ("tiktok", member("data", 0, "event_time", value=OLD_S)),
    "tiktok: an id that is a number": ("tiktok", member("data", 0, "event_id", value=7)),
    "tiktok: no page": ("tiktok", member("data", 0, "page", value=...)),
    "tiktok: the same event twice": ("tiktok", times("data", 2)),
    "tiktok: too many": ("tiktok", times("data", 1_001)),
    "google: another token": ("google", header("authorization", "Bearer x")),
    "google: two clicks": ("google", member("events", 0, "adIdentifiers", "wbraid", value="w")),
    "google: a plain e-mail": (
        "google",
        member("events", 0, "userData", "userIdentifiers", 0, "emailAddress", value="ada@example.org"),
    ),
    "google: two in one identifier": (
        "google",
        member("events", 0, "userData", "userIdentifiers", 0, "phoneNumber", value="a" * 64),
    ),
    "google: an old event": ("google", member("events", 0, "eventTimestamp", value="2026-01-01T00:00:00Z")),
    "google: no zone": ("google", member("events", 0, "eventTimestamp", value="yesterday")),
    "google: a value without a currency": ("google", member("events", 0, "currency", value=...)),
    "google: a value that is text": ("google", member("events", 0, "conversionValue", value="49.00")),
    "google: a consent that nobody knows": (
        "google",
        member("events", 0, "consent", "adUserData", value="GRANTED"),
    ),
    "google: no encoding": ("google", member("encoding", value=...)),
    "google: another's account": (
        "google",
        member("destinations", 0, "operatingAccount", "accountId", value="999"),
    ),
    "google: dashes in the account": (
        "google",
        member("destinations", 0, "operatingAccount", "accountId", value="123-456-7890"),
    ),
    "google: a destination that is not there": (
        "google",
        member("events", 0, "destinationReferences", value=["lead_action_id"]),
    ),
    "google: the same transaction twice": ("google", times("events", 2)),
    "google: too many": ("google", times("events", 2_001)),
    "google: a restatement of nothing": (
        "google",
        member("events", 0, "lastUpdatedTimestamp", value="2026-11-20T11:00:00Z"),
    ),
    "google_ads: no developer token": ("google_ads", header("developer-token", None)),
    "google_ads: another's account": (
        "google_ads",
        lambda call: replace(call, path="/v25/customers/999:uploadClickConversions"),
    ),
    "google_ads: all or nothing": ("google_ads", member("partialFailure", value=False)),
    "google_ads: a time of another shape": (
        "google_ads",
        member("conversions", 0, "conversionDateTime", value="2026-11-20T11:00:00Z"),
    ),
    "google_ads: another's action": (
        "google_ads",
        member("conversions", 0, "conversionAction", value="customers/1234567890/conversionActions/9"),
    ),
    "google_ads: two clicks": ("google_ads", member("conversions", 0, "gbraid", value="g")),
    "google_ads: a plain e-mail": (
        "google_ads",
        member("conversions", 0, "userIdentifiers", 0, "hashedEmail", value="ada@example.org"),
    ),
    "google_ads: the same order twice": ("google_ads", times("conversions", 2)),
    "linkedin: another token": ("linkedin", header("authorization", "Bearer x")),
    "linkedin: no batch": ("linkedin", header("x-restli-method", None)),
    "linkedin: a dead version": ("linkedin", header("linkedin-version", "202404")),
    "linkedin: cents": ("linkedin", member("elements", 0, "conversionValue", "amount", value=4900)),
    "linkedin: no decimal": ("linkedin", member("elements", 0, "conversionValue", "amount", value="4,90")),
    "linkedin: seconds": ("linkedin", member("elements", 0, "conversionHappenedAt", value=OLD_S)),
    "linkedin: an old event": ("linkedin", member("elements", 0, "conversionHappenedAt", value=OLD_MS)),
    "linkedin: a bare rule": ("linkedin", member("elements", 0, "conversion", value="104012")),
    "linkedin: no list of ids": ("linkedin", member("elements", 0, "user", value={})),
    "linkedin: nobody": ("linkedin", member("elements", 0, "user", "userIds", value=[])),
    "linkedin: a plain e-mail": (
        "linkedin",
        member("elements", 0, "user", "userIds", 0, "idValue", value="ada@example.org"),
    ),
    "linkedin: the same event twice": ("linkedin", times("elements", 2)),
    "openai: another key": ("openai", header("authorization", "Bearer x")),
    "openai: another pixel": ("openai", lambda call: replace(call, query={"pid": "1"})),
    "openai: the key in the query": (
        "openai",
        lambda call: replace(call, query={**call.query, "api_key": "x"}),
    ),
    "openai: seconds": ("openai", member("events", 0, "timestamp_ms", value=OLD_S)),
    "openai: an old event": ("openai", member("events", 0, "timestamp_ms", value=OLD_MS)),
    "openai: no page": ("openai", member("events", 0, "source_url", value=...)),
    "openai: a decimal": ("openai", member("events", 0, "data", "amount", value=49.5)),
    "openai: a plain e-mail": (
        "openai",
        member("events", 0, "user", "emails_sha256", value=["ada@example.org"]),
    ),
    "openai: a single hash": ("openai", member("events", 0, "user", "emails_sha256", value="a" * 64)),
    "openai: the same event twice": ("openai", times("events", 2)),
    "openai: too many": ("openai", times("events", 1_001)),
    "receiver: no signature": ("receiver", header("webhook-signature", None)),
    "receiver: another signature": ("receiver", header("webhook-signature", "v1,bm9wZQ==")),
    "receiver: another id": ("receiver", header("webhook-id", "msg_2")),
    "receiver: another time": ("receiver", header("webhook-timestamp", "1600000000")),
    "receiver: another body": ("receiver", member("type", value="sale.deleted")),
}


@pytest.mark.parametrize(("platform", "spoil"), OWN.values(), ids=OWN)
def test_what_a_platform_does_not_allow_is_refused(platform, spoil):
    """Versions, tokens, required members, hashes, ages, amounts, currencies, caps and repetitions."""
    stand_in, call = PLATFORMS[platform]()

    with pytest.raises(Refused):
        stand_in.judge(spoil(call))


FORM = {
    "grant_type": "refresh_token",
    "client_id": google_page.REFRESH["client_id"],
    "client_secret": google_page.REFRESH["client_secret"],
    "refresh_token": google_page.REFRESH["refresh_token"],
}
TOKENS: dict[str, dict[str, str | None]] = {
    "another client": {"client_id": "another"},
    "another secret": {"client_secret": "another"},
    "another refresh token": {"refresh_token": "another"},
    "another grant": {"grant_type": "password"},
    "no client": {"client_id": None},
    "more than is asked for": {"scope": "everything"},
}


@pytest.mark.parametrize("changes", TOKENS.values(), ids=TOKENS)
def test_a_wrong_credential_gets_no_token(changes):
    """Nor does a form that is not the documented one."""
    form = {name: value for name, value in {**FORM, **changes}.items() if value is not None}
    right = a_call(Google(credential="refresh_token").build_token_request(FORM, NOW))
    call = with_body(right, urlencode(form).encode())

    google_page.Google().judge(right)
    with pytest.raises(Refused):
        google_page.Google().judge(call)


@pytest.mark.parametrize(
    "when", [NOW - timedelta(hours=2), NOW + timedelta(hours=2)], ids=["yesterday's", "tomorrow's"]
)
def test_a_claim_is_good_for_an_hour(when):
    """A clock that is wrong gets no token; the same claim at its time gets one."""
    stand_in = google_page.Google()
    claims = [a_call(Google().build_token_request(google_page.secrets(), at)) for at in (NOW, when)]

    stand_in.judge(claims[0])
    with pytest.raises(Refused, match="another time"):
        stand_in.judge(claims[1])
