"""What every platform is, whoever speaks it: values that keep secrets, verdicts, plans and retries."""

from __future__ import annotations

import runpy
import uuid
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.platforms import (
    Confirming,
    Consent,
    Conversion,
    Google,
    GoogleAds,
    Laned,
    LinkedIn,
    LinkedInPartner,
    Meta,
    Notice,
    OpenAI,
    Outcome,
    Person,
    Planned,
    Platform,
    Renewing,
    Request,
    Response,
    TikTok,
    Token,
    Verdict,
    Version,
    by_status,
    lane_of,
    plan,
    retry_at,
    settled,
    sunset_notice,
    unreadable,
)
from goodanalytics.platforms.answers import body_of, retry_after
from goodanalytics.platforms.dialect import CEILING, LONGEST_MESSAGE, Rehearsing, cleaned
from goodanalytics.store.webhooks import Keyring

STAND_INS = runpy.run_path(str(Path(__file__).with_name("standins.py")))
NOW, TOKEN, EMAIL, PHONE = (STAND_INS[name] for name in ("NOW", "TOKEN", "EMAIL", "PHONE"))
a_sale = STAND_INS["a_sale"]
EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_platform.py"
PERSONAL = [
    EMAIL,
    EMAIL.lower(),
    PHONE,
    "Lovelace",
    "Customer-42",
    "NW1",
    "203.0.113.9",
    "IwAR2F4",
    "ada@example.org",
]


def custom() -> Platform:
    return runpy.run_path(str(EXAMPLE))["Crm"]()


DIALECTS = {
    dialect.__name__: dialect
    for dialect in (Google, GoogleAds, LinkedIn, LinkedInPartner, Meta, OpenAI, TikTok, custom)
}


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_a_dialect_is_a_platform(dialect):
    """Each dialect has every member of the protocol."""
    assert isinstance(dialect(), Platform)


@pytest.mark.parametrize("dialect", [Meta, TikTok])
def test_a_dialect_without_a_feature_does_not_have_its_protocol(dialect):
    """Meta and TikTok can be rehearsed; they have no lanes, no renewal and no later answer."""
    actual = [isinstance(dialect(), optional) for optional in (Rehearsing, Laned, Renewing, Confirming)]

    assert actual == [True, False, False, False]


# Values


def test_a_conversion_survives_the_outbox():
    """What waits as JSON comes back the same."""
    sale = a_sale()

    actual = msgspec.json.decode(msgspec.json.encode(sale), type=Conversion)

    assert actual == sale


def every_value() -> list[object]:
    sale = a_sale()
    request = Meta().build([sale], {"access_token": TOKEN, "pixel_id": "1"}, NOW)
    return [
        sale,
        sale.person,
        sale.signals,
        sale.signals.clicks["fbclid"],
        [sale],
        request,
        Response(status=200, body=EMAIL.encode()),
        Token(value=TOKEN, expires_at=NOW),
        Notice(
            dispatch_id=sale.dispatch_id, id="1", type="sale.created", occurred_at=NOW, data={"to": EMAIL}
        ),
        Keyring(TOKEN, TOKEN, NOW),
    ]


@pytest.mark.parametrize("value", every_value(), ids=lambda value: type(value).__name__)
def test_a_value_shows_nobody_and_no_secret(value):
    """Whatever lands in a log line shows neither a person nor a token, nor does what rich makes of a traceback's variables."""
    members = getattr(value, "__rich_repr__", list)
    shown = f"{value!r} {value!s} {value} {[*members()]!r}"

    assert [text for text in (*PERSONAL, TOKEN) if text in shown] == []


def test_a_person_shows_what_is_known():
    """Which match keys there are helps to mend coverage."""
    actual = repr(a_sale().person)

    assert actual.startswith("Person(email=…, phone=…, name=…, external_id=…")


WHOLE_NAMES = {
    "two words": ("Ada Lovelace", ("Ada", "Lovelace")),
    "titles before and behind": ("Prof. Dr. Ada King Lovelace, Ph.D.", ("Ada", "Lovelace")),
    "a junior": ("Sammy Davis Jr.", ("Sammy", "Davis")),
    "one who is called like a title": ("Sir", ("Sir", None)),
    "a title and one name": ("Mrs. Lovelace", (None, "Lovelace")),
    "nothing": (" ", (None, None)),
}


@pytest.mark.parametrize(("whole", "expected"), WHOLE_NAMES.values(), ids=WHOLE_NAMES)
def test_a_whole_name_has_a_first_and_a_last(whole, expected):
    """Without titles, which no platform counts as part of a name."""
    person = Person(name=whole)

    assert (person.given, person.family) == expected


# Messages

MESSAGES = {
    "an address": ("No match for Ada.Lovelace@Example.org.", "No match for …"),
    "an encoded address": ("email=ada%40example.org", "…"),
    "a number": ("Bad phone +44 20 7946 0018!", "Bad phone …!"),
    "a token": (f"Malformed access token {TOKEN}", "Malformed access token …"),
    "a hash": (f"em: {'a1' * 32}", "em: …"),
    "a field's name stays": (
        "events.user_data.client_user_agent missing",
        "events.user_data.client_user_agent missing",
    ),
    "a code stays": ("(#100) subcode 2804003", "(#100) subcode 2804003"),
    "a page is cut": ("<p>no " * 5000, None),
    "lines become one": ("a\n\tb", "a b"),
}


@pytest.mark.parametrize(("text", "expected"), MESSAGES.values(), ids=MESSAGES)
def test_a_message_is_cleaned_and_cut(text, expected):
    """A platform may quote what it was sent; what we keep of that names nobody."""
    actual = Outcome(dispatch_id=uuid.UUID(int=1), status="permanent", message=text).message

    assert len(actual) <= LONGEST_MESSAGE
    assert expected is None or actual == expected


@given(text=st.text(max_size=400))
def test_cleaning_is_bounded(text):
    """Any text comes out short, and stays when it is cleaned again."""
    once = cleaned(text)

    assert (len(once) <= LONGEST_MESSAGE, cleaned(once)) == (True, once)


def test_a_code_and_a_reference_are_bounded_too():
    """A code of a thousand letters is no code."""
    actual = Verdict(status="retry", code="x y" * 999).on(a_sale(), "r" * 999)

    assert (len(actual.code), len(actual.external_ref)) == (80, 200)


# Answers

STATUSES = {
    200: ("delivered", False),
    204: ("delivered", False),
    301: ("retry", False),
    400: ("permanent", True),
    401: ("credential", False),
    403: ("credential", False),
    404: ("permanent", True),
    408: ("retry", False),
    413: ("permanent", True),
    422: ("permanent", True),
    425: ("retry", False),
    429: ("rate_limited", False),
    500: ("retry", False),
    503: ("retry", False),
}


@pytest.mark.parametrize(("status", "expected"), STATUSES.items())
def test_what_a_status_alone_means(status, expected):
    """Our fault stays, theirs passes, a credential stops the platform."""
    verdict = by_status(Response(status=status))

    assert (verdict.status, verdict.of_batch) == expected


UNREADABLE = {
    "a page": (Response(status=200, body=b"<!DOCTYPE html><title>Sorry</title>"), "retry"),
    "half a document": (Response(status=200, body=b'{"events_received": 1'), "retry"),
    "nothing": (Response(status=200), "retry"),
    "not UTF-8": (Response(status=200, body=b'{"a": "\xff"}'), "retry"),
    "a list": (Response(status=200, body=b"[1]"), "retry"),
    "a proxy's refusal": (Response(status=403, body=b"<html>"), "retry"),
    "too large for a proxy": (Response(status=413, body=b"<html>"), "permanent"),
    "too often for a proxy": (Response(status=429, body=b"<html>"), "rate_limited"),
}


@pytest.mark.parametrize(("response", "expected"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_tried_again(response, expected):
    """A page of HTML is no answer of the platform; only its size and its rate are."""
    actual = (body_of(response), unreadable(response).status)

    assert actual == (None, expected)


WAITS = {
    "seconds": ({"retry-after": "120"}, timedelta(minutes=2)),
    "a date": (
        {"retry-after": "Fri, 20 Nov 2026 12:05:00 GMT", "date": "Fri, 20 Nov 2026 12:00:00 GMT"},
        timedelta(minutes=5),
    ),
    "a date in the past": (
        {"retry-after": "Fri, 20 Nov 2026 11:05:00 GMT", "date": "Fri, 20 Nov 2026 12:00:00 GMT"},
        timedelta(),
    ),
    "a date and no clock": ({"retry-after": "Fri, 20 Nov 2026 12:05:00 GMT"}, None),
    "a year": ({"retry-after": "9" * 40}, timedelta(days=7)),
    "a word": ({"retry-after": "soon"}, None),
    "less than nothing": ({"retry-after": "-5"}, None),
    "nothing": ({}, None),
}


@pytest.mark.parametrize(("headers", "expected"), WAITS.values(), ids=WAITS)
def test_retry_after(headers, expected):
    """Seconds, or a date counted from the response's own."""
    actual = retry_after(Response(status=503, headers=headers))

    assert actual == expected


# Plans


def test_a_plan_says_for_each_platform_what_happens():
    """Sent where it fits, and a reason where it does not."""
    no_order = a_sale(order_key=None)

    actual = plan(no_order, [Meta(), TikTok(), custom()], NOW)

    assert actual == [
        Planned("meta"),
        Planned("tiktok"),
        Planned("crm", "missing_order"),
    ]


REASONS = {
    "denied": ({"consent": Consent(ad_user_data="denied")}, {}, "consent_denied"),
    "not asked": ({"consent": Consent()}, {}, "consent_unknown"),
    "not asked, where silence is consent": ({"consent": Consent()}, {"silence": "granted"}, None),
    "denied, where silence is consent": (
        {"consent": Consent(ad_user_data="denied")},
        {"silence": "granted"},
        "consent_denied",
    ),
    "a kind that it does not know": ({"kind": "refund"}, {}, "unsupported_kind: refund"),
    "too old": ({"occurred_at": NOW - timedelta(days=31)}, {}, "too_old"),
    "from the future": ({"occurred_at": NOW + timedelta(hours=1)}, {}, "in_the_future"),
    "a clock a little ahead": ({"occurred_at": NOW + timedelta(minutes=1)}, {}, None),
    "the host's no": ({}, {"policy": lambda name, _: f"not to {name}"}, "policy: not to crm"),
    "the host's no, with a name in it": ({}, {"policy": lambda _, __: EMAIL}, "policy: …"),
    "the host's yes": ({}, {"policy": lambda _, __: None}, None),
}


@pytest.mark.parametrize(("changes", "options", "expected"), REASONS.values(), ids=REASONS)
def test_why_a_conversion_is_skipped(changes, options, expected):
    """Kind, consent, age, then the host."""
    (actual,) = plan(a_sale(**changes), [custom()], NOW, **options)

    assert actual.skipped == expected


def test_the_host_is_not_asked_about_what_is_skipped_anyway():
    """A policy sees only what would be sent."""
    asked = []

    plan(a_sale(kind="refund"), [custom()], NOW, policy=lambda name, _: asked.append(name))

    assert asked == []


SILENCES = {
    "denied": ("denied", Consent(ad_user_data="granted", ad_personalization="denied")),
    "granted": ("granted", Consent(ad_user_data="granted", ad_personalization="granted")),
}


@pytest.mark.parametrize(("silence", "expected"), SILENCES.values(), ids=SILENCES)
def test_silence_is_settled_and_answers_stay(silence, expected):
    """Only what was not asked is filled."""
    half = a_sale(consent=Consent(ad_user_data="granted"))

    actual = settled(half, silence).consent

    assert actual == expected


# Retries


@given(
    attempt=st.integers(1, 10_000),
    jitter=st.floats(0, 1, exclude_max=True),
    asked=st.none() | st.timedeltas(timedelta(days=-1), timedelta(days=30)),
)
def test_a_retry_is_within_the_hour_and_not_before_it_was_asked(attempt, jitter, asked):
    """Jitter is full, the ceiling is an hour, and the platform's wish holds up to that."""
    wait = retry_at(attempt, NOW, jitter, asked) - NOW

    assert max(timedelta(), min(asked or timedelta(), CEILING)) <= wait <= CEILING


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 5), (2, 10), (5, 80), (10, 2560), (11, 3600), (99, 3600)]
)
def test_a_wait_doubles_up_to_the_hour(attempt, seconds):
    """The longest wait of each attempt."""
    wait = retry_at(attempt, NOW, 1.0) - NOW

    assert wait == timedelta(seconds=seconds)


# Versions

NOTICES = {
    "far away": (Version("v1", date(2027, 6, 1)), None),
    "soon": (
        Version("v1", date(2026, 11, 30)),
        "crm: API version v1 ends on 2026-11-30 (in 10 days). Set a newer one: Crm(api=…).",
    ),
    "over": (
        Version("v1", date(2026, 11, 20)),
        "crm: API version v1 ended on 2026-11-20. Set a newer one: Crm(api=…).",
    ),
    "not known": (Version("v1"), None),
}


@pytest.mark.parametrize(("version", "expected"), NOTICES.values(), ids=NOTICES)
def test_a_version_says_when_it_ends(version, expected):
    """Three months ahead somebody should know."""
    platform = custom()
    platform.version = version

    actual = sunset_notice(platform, date(2026, 11, 20))

    assert actual == expected


# The example


def test_the_example_is_short():
    """At most 25 lines, so that a platform of one's own looks possible."""
    assert len(EXAMPLE.read_text().splitlines()) <= 25


def test_the_example_speaks():
    """One sale goes out and comes back delivered; it has one lane like every simple platform."""
    crm, sale = custom(), a_sale()

    request = crm.build([sale], {"token": TOKEN}, NOW)
    outcomes = crm.read([sale], Response(status=201))

    assert request == Request(
        url="https://crm.example/deals",
        headers={"x-token": TOKEN},
        body=b'{"sent":"2026-11-20T12:00:00Z","deals":[{"id":"sale:A-1001","stage":"won"}]}',
    )
    assert outcomes == [
        Outcome(dispatch_id=uuid.UUID(int=7), status="delivered", code="http_201", message="HTTP 201")
    ]
    assert lane_of(crm, sale) == "main"


def test_lanes_are_the_platforms_own():
    """Sales and their corrections may need different requests."""

    class Laning(type(custom())):
        def lane(self, conversion):
            return "corrections" if conversion.kind == "refund" else "sales"

    actual = [lane_of(Laning(), a_sale(kind=kind)) for kind in ("sale", "refund")]

    assert actual == ["sales", "corrections"]


def test_now_is_the_same_everywhere():
    """The stand-ins' clock is aware; a naive one would shift every age."""
    assert datetime(2026, 11, 20, 12, tzinfo=UTC) == NOW
