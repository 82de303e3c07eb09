"""
Each dialect against its platform's stand-in over real HTTP: build, send, read, in good days and in bad ones.

Every exchange here runs with all logging at DEBUG, and `nothing_told` looks through what was logged and what came out.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from goodanalytics.outbound import Limits, Outbound
from goodanalytics.platforms import (
    Click,
    Google,
    GoogleAds,
    LinkedIn,
    LinkedInPartner,
    Meta,
    OpenAI,
    Outcome,
    Platform,
    Renewing,
    Request,
    Response,
    Signals,
    TikTok,
    Token,
    Verdict,
)
from tests import standins
from tests.platforms.standins import EMAIL, NOW, PHONE, a_sale
from tests.standins import Cut, Drip, Elsewhere, Endless, Instead, Silent, Stage, StandIn, Way, page, serving
from tests.standins import google as google_page
from tests.standins import google_ads as google_ads_page
from tests.standins import linkedin as linkedin_page
from tests.standins import meta as meta_page
from tests.standins import openai as openai_page
from tests.standins import tiktok as tiktok_page

ROOT = Path(__file__).parents[2]
CLICKED = NOW - timedelta(days=2)
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
MARKS = {
    "fbclid": "IwAR2F4-dbP0l7Mn1IawQQ",
    "gclid": "Cj0KCQ",
    "ttclid": "E.C.P.CiQAbc",
    "li_fat_id": "df5gf5-gh6t7-ph4j7h-fgf6n1",
    "oppref": "Opp%2Bref==",
}
SIGNALS = Signals(
    clicks={name: Click(value=value, at=CLICKED) for name, value in MARKS.items()},
    fbp="fb.1.1558571054389.1098115397",
    ttp="2F7h37YkS1j57AYSKTI7IHhJPYH",
    ip="203.0.113.9",
    user_agent=BROWSER,
)
BATCH = [a_sale(event_id=f"sale:A-{number}", signals=SIGNALS) for number in (1001, 1002)]
PATIENT = Limits()
SOON_BORED = Limits(silence=0.2)
IN_A_HURRY = Limits(total=0.25)


@dataclass(frozen=True)
class Spoken:
    """A platform, its stand-in, what has to be stored, and the names under which the platform counts the batch."""

    platform: Platform
    stand_in: Callable[[], StandIn]
    secrets: Callable[[], Mapping[str, str]]
    ids: tuple[str, ...] = ("sale:A-1001", "sale:A-1002")
    good: str = "delivered"


SPOKEN = {
    "meta": Spoken(
        Meta(),
        meta_page.Meta,
        lambda: meta_page.SECRETS,
        ("Purchase sale:A-1001", "Purchase sale:A-1002"),
    ),
    "google": Spoken(Google(), google_page.Google, google_page.secrets, good="accepted"),
    "google with a refresh token": Spoken(
        Google(credential="refresh_token"), google_page.Google, google_page.secrets, good="accepted"
    ),
    "google's older upload": Spoken(GoogleAds(), google_ads_page.GoogleAds, google_ads_page.secrets),
    "linkedin": Spoken(LinkedIn(), linkedin_page.LinkedIn, lambda: linkedin_page.SECRETS),
    "linkedin's partner": Spoken(
        LinkedInPartner(),
        lambda: linkedin_page.LinkedIn(partner=True),
        lambda: linkedin_page.PARTNER_SECRETS,
    ),
    "tiktok": Spoken(
        TikTok(),
        tiktok_page.TikTok,
        lambda: tiktok_page.SECRETS,
        ("Purchase sale:A-1001", "Purchase sale:A-1002"),
    ),
    "openai": Spoken(
        OpenAI(),
        openai_page.OpenAI,
        lambda: openai_page.SECRETS,
        ("order_created sale:A-1001", "order_created sale:A-1002"),
    ),
}
PLAIN = (
    EMAIL,
    EMAIL.lower(),
    "ada@example.org",
    PHONE,
    "442079460018",
    "7946 0018",
    "Lovelace",
    "Customer-42",
)


@pytest.fixture(autouse=True)
def _all_is_logged(caplog):
    caplog.set_level(logging.DEBUG)


@pytest.fixture(scope="module")
def stage():
    stage = Stage()
    with serving(stage):
        yield stage


@asynccontextmanager
async def on(stage: Stage, stand_in: StandIn, limits: Limits = PATIENT) -> AsyncIterator[Outbound]:
    """A way out that leads to *stand_in*."""
    stage.enter(stand_in)
    async with (
        Elsewhere(stand_in) as elsewhere,
        Outbound(transport=elsewhere, to_platforms=limits) as outbound,
    ):
        yield outbound


def nothing_told(caplog, spoken: Spoken, stand_in: StandIn, *values: object) -> list[str]:
    """Secrets, tokens, persons and marks that stand in a log record or in what is shown of *values*."""
    shown = "\n".join([caplog.text, *(f"{value!r} {value!s}" for value in values)])
    office = getattr(stand_in, "office", None)
    # The ids of accounts and of conversion actions open no door.
    doors = {name: value for name, value in spoken.secrets().items() if not name.endswith("_id")}
    secret = [*doors.values(), *([office.token] if office else []), *PLAIN, *MARKS.values()]
    return [text for text in secret if text in shown]


async def token_for(spoken: Spoken, outbound: Outbound) -> dict[str, str]:
    if not isinstance(spoken.platform, Renewing):
        return dict(spoken.secrets())
    asked = spoken.platform.build_token_request(spoken.secrets(), NOW)
    answer = await outbound.to_platform(asked)
    assert isinstance(answer, Response)
    token = spoken.platform.read_token(answer, NOW)
    assert isinstance(token, Token), token
    return {**spoken.secrets(), "access_token": token.value}


async def exchange(
    stage: Stage, spoken: Spoken, stand_in: StandIn, *ways: Way, limits: Limits = PATIENT
) -> list[Outcome]:
    """What becomes of the batch; the tokens come without trouble."""
    async with on(stage, stand_in) as patient:
        secrets = await token_for(spoken, patient)
    stand_in.next(*ways)
    async with on(stage, stand_in, limits) as outbound:
        answer = await outbound.to_platform(spoken.platform.build(BATCH, secrets, NOW))
    if isinstance(answer, Verdict):
        return answer.on_all(BATCH)
    return spoken.platform.read(BATCH, answer)


@pytest.mark.parametrize("spoken", SPOKEN.values(), ids=SPOKEN)
async def test_a_batch_arrives(stage, spoken, caplog):
    """What the dialect says is what the platform documents, down to the last member and header."""
    stand_in = spoken.stand_in()

    outcomes = await exchange(stage, spoken, stand_in)

    assert [outcome.status for outcome in outcomes] == [spoken.good, spoken.good]
    assert (stand_in.faults, dict(stand_in.accepted)) == ([], dict.fromkeys(spoken.ids, 1))
    assert nothing_told(caplog, spoken, stand_in, outcomes) == []


QUOTED = f"<p>Cannot serve {EMAIL}, {PHONE}, Bearer EAAB0secretsecretsecret0token</p>".encode()
EVERYWHERE: dict[str, tuple[Way, Limits, str, str]] = {
    "a proxy's page": (page(502), PATIENT, "retry", "http_502"),
    "a page in a 200": (page(200), PATIENT, "retry", "http_200"),
    "a page that asks to wait": (page(503, retry_after="7"), PATIENT, "retry", "http_503"),
    "a page that is too many": (page(429, retry_after="7"), PATIENT, "rate_limited", "http_429"),
    "a page that quotes us": (
        Instead(Response(status=500, headers={"x-echo": f"{EMAIL} {PHONE}"}, body=QUOTED)),
        PATIENT,
        "retry",
        "http_500",
    ),
    "a redirect": (
        Instead(Response(status=302, headers={"location": f"https://elsewhere.example/?{EMAIL}"}, body=b"{")),
        PATIENT,
        "retry",
        "http_302",
    ),
    "an endless body": (Endless(), PATIENT, "retry", "http_200"),
    "no answer": (Silent(), SOON_BORED, "retry", "timeout"),
    "a byte at a time": (Drip(0.2), IN_A_HURRY, "retry", "timeout"),
    "a connection that is cut": (Cut("before"), PATIENT, "retry", "cut"),
    "an answer that is cut": (Cut("amid"), PATIENT, "retry", "cut"),
}


@pytest.mark.parametrize("spoken", SPOKEN.values(), ids=SPOKEN)
@pytest.mark.parametrize(("way", "limits", "status", "code"), EVERYWHERE.values(), ids=EVERYWHERE)
async def test_what_may_happen_anywhere(stage, spoken, way, limits, status, code, caplog):
    """Whatever lies between us and a platform, the batch is tried again and nobody is told of."""
    stand_in = spoken.stand_in()

    outcomes = await exchange(stage, spoken, stand_in, way, limits=limits)

    assert [(outcome.status, outcome.code) for outcome in outcomes] == [(status, code)] * 2
    assert stand_in.faults == []
    assert len([call for call in stand_in.calls if "oken" not in call.path]) == 1
    assert nothing_told(caplog, spoken, stand_in, outcomes) == []


LOST = {"no answer": (Silent(keeps=True), SOON_BORED), "a cut answer": (Cut("amid", keeps=True), PATIENT)}


@pytest.mark.parametrize("spoken", SPOKEN.values(), ids=SPOKEN)
@pytest.mark.parametrize(("way", "limits"), LOST.values(), ids=LOST)
async def test_an_answer_that_got_lost_counts_nothing_twice(stage, spoken, way, limits):
    """The platform took the batch and we do not know it; the second try has the same ids, and is good."""
    stand_in = spoken.stand_in()

    lost = await exchange(stage, spoken, stand_in, way, limits=limits)
    outcomes = await exchange(stage, spoken, stand_in)

    assert {outcome.status for outcome in lost} == {"retry"}
    assert [outcome.status for outcome in outcomes] == [spoken.good, spoken.good]
    assert (stand_in.faults, dict(stand_in.accepted)) == ([], dict.fromkeys(spoken.ids, 2))


OWN: dict[str, tuple[str, Way, list[tuple[str, str, bool]]]] = {
    "meta, throttled": ("meta", meta_page.THROTTLED, [("rate_limited", "4", False)] * 2),
    "meta, expired": ("meta", meta_page.EXPIRED, [("credential", "190/463", False)] * 2),
    "meta, not permitted": ("meta", meta_page.NO_PERMISSION, [("credential", "200", False)] * 2),
    "meta, its own fault": ("meta", meta_page.TRANSIENT, [("retry", "2", False)] * 2),
    "meta, one is wrong": ("meta", meta_page.FAULTY, [("permanent", "100/2804003", True)] * 2),
    "meta, one is missing": ("meta", meta_page.FEWER, [("permanent", "events_received", True)] * 2),
    "tiktok, throttled": ("tiktok", tiktok_page.THROTTLED, [("rate_limited", "40100", False)] * 2),
    "tiktok, expired": ("tiktok", tiktok_page.EXPIRED, [("credential", "40105", False)] * 2),
    "tiktok, not permitted": ("tiktok", tiktok_page.NO_PERMISSION, [("credential", "40001", False)] * 2),
    "tiktok, its own fault": ("tiktok", tiktok_page.TRANSIENT, [("retry", "50000", False)] * 2),
    "tiktok, one is wrong": ("tiktok", tiktok_page.FAULTY, [("permanent", "40002", True)] * 2),
    "tiktok, partly": ("tiktok", tiktok_page.PARTLY, [("permanent", "20001", True)] * 2),
    "google, throttled": (
        "google",
        google_page.THROTTLED,
        [("rate_limited", "RESOURCE_EXHAUSTED", False)] * 2,
    ),
    "google, expired": ("google", google_page.EXPIRED, [("credential", "UNAUTHENTICATED", False)] * 2),
    "google, not permitted": (
        "google",
        google_page.NO_PERMISSION,
        [("credential", "PERMISSION_DENIED", False)] * 2,
    ),
    "google, its own fault": ("google", google_page.TRANSIENT, [("retry", "UNAVAILABLE", False)] * 2),
    "google, one is wrong": (
        "google",
        google_page.BLAMED,
        [("retry", "neighbour_refused", False), ("permanent", "INVALID_FORMAT", False)],
    ),
    "google's older upload, throttled": (
        "google's older upload",
        google_ads_page.THROTTLED,
        [("rate_limited", "RESOURCE_TEMPORARILY_EXHAUSTED", False)] * 2,
    ),
    "google's older upload, not permitted": (
        "google's older upload",
        google_ads_page.NO_PERMISSION,
        [("credential", "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE", False)] * 2,
    ),
    "google's older upload, a version that ended": (
        "google's older upload",
        google_ads_page.SUNSET,
        [("credential", "UNSUPPORTED_VERSION", False)] * 2,
    ),
    "google's older upload, its own fault": (
        "google's older upload",
        google_ads_page.TRANSIENT,
        [("retry", "INTERNAL_ERROR", False)] * 2,
    ),
    "google's older upload, one is wrong": (
        "google's older upload",
        google_ads_page.PARTLY,
        [("delivered", "ok", False), ("permanent", "UNPARSEABLE_GCLID", False)],
    ),
    "linkedin, throttled": (
        "linkedin",
        linkedin_page.THROTTLED,
        [("rate_limited", "TOO_MANY_REQUESTS", False)] * 2,
    ),
    "linkedin, expired": (
        "linkedin",
        linkedin_page.EXPIRED,
        [("credential", "EXPIRED_ACCESS_TOKEN", False)] * 2,
    ),
    "linkedin, not permitted": (
        "linkedin",
        linkedin_page.NO_PERMISSION,
        [("credential", "ACCESS_DENIED", False)] * 2,
    ),
    "linkedin, a version that ended": (
        "linkedin",
        linkedin_page.SUNSET,
        [("credential", "http_426", False)] * 2,
    ),
    "linkedin, its own fault": (
        "linkedin",
        linkedin_page.TRANSIENT,
        [("retry", "INTERNAL_SERVER_ERROR", False)] * 2,
    ),
    "linkedin, one is wrong": (
        "linkedin",
        linkedin_page.elements(201, 400),
        [("delivered", "http_201", False), ("permanent", "INVALID_VALUE", False)],
    ),
    "linkedin, one is blamed": (
        "linkedin",
        linkedin_page.BLAMED,
        [("retry", "neighbour_refused", False), ("permanent", "INVALID_INPUT", False)],
    ),
    "openai, throttled": ("openai", openai_page.THROTTLED, [("rate_limited", "rate_limit_error", False)] * 2),
    "openai, expired": ("openai", openai_page.EXPIRED, [("credential", "authentication_error", False)] * 2),
    "openai, not permitted": (
        "openai",
        openai_page.NO_PERMISSION,
        [("credential", "permission_error", False)] * 2,
    ),
    "openai, its own fault": ("openai", openai_page.TRANSIENT, [("retry", "server_error", False)] * 2),
    "openai, one is wrong": (
        "openai",
        openai_page.FAULTY,
        [("permanent", "invalid_request_error", True)] * 2,
    ),
}


@pytest.mark.parametrize(("name", "way", "expected"), OWN.values(), ids=OWN)
async def test_what_a_platform_says_in_its_own_words(stage, name, way, expected, caplog):
    """The documented refusals, over HTTP, are told apart as they are on paper."""
    spoken = SPOKEN[name]
    stand_in = spoken.stand_in()

    outcomes = await exchange(stage, spoken, stand_in, way)

    assert [(outcome.status, outcome.code, outcome.of_batch) for outcome in outcomes] == expected
    assert stand_in.faults == []
    assert nothing_told(caplog, spoken, stand_in, outcomes) == []


async def test_a_wish_to_wait_comes_through(stage):
    """`Retry-After` and Google's `RetryInfo` reach the outcome."""
    throttled = await exchange(stage, SPOKEN["openai"], openai_page.OpenAI(), openai_page.THROTTLED)
    exhausted = await exchange(stage, SPOKEN["google"], google_page.Google(), google_page.THROTTLED)

    assert {outcome.retry_after for outcome in throttled} == {timedelta(seconds=7)}
    assert {outcome.retry_after for outcome in exhausted} == {timedelta(seconds=30)}


RENEWING = {name: spoken for name, spoken in SPOKEN.items() if isinstance(spoken.platform, Renewing)}


@pytest.mark.parametrize("spoken", RENEWING.values(), ids=RENEWING)
async def test_a_token_that_expired_is_told_and_a_new_one_is_good(stage, spoken):
    """The token that was good is refused; the exchange gives one that is."""
    stand_in = spoken.stand_in()
    async with on(stage, stand_in) as outbound:
        stale = await token_for(spoken, outbound)
        stand_in.office.expire()
        refused = await outbound.to_platform(spoken.platform.build(BATCH, stale, NOW))
        fresh = await token_for(spoken, outbound)
        taken = await outbound.to_platform(spoken.platform.build(BATCH, fresh, NOW))

    assert {outcome.status for outcome in spoken.platform.read(BATCH, refused)} == {"credential"}
    assert {outcome.status for outcome in spoken.platform.read(BATCH, taken)} == {spoken.good}
    assert stand_in.office.given == 2


@pytest.mark.parametrize("spoken", RENEWING.values(), ids=RENEWING)
async def test_a_credential_that_is_not_good_any_more(stage, spoken, caplog):
    """What no second try mends is the credential's fault, and the log does not tell the credential."""
    stand_in = spoken.stand_in()
    secrets = {**spoken.secrets(), "client_secret": "another0secret0of0somebody0else"}
    stand_in.next(standins.says(400, {"error": "invalid_grant", "error_description": f"{EMAIL} {secrets}"}))
    async with on(stage, stand_in) as outbound:
        answer = await outbound.to_platform(spoken.platform.build_token_request(secrets, NOW))

    verdict = spoken.platform.read_token(answer, NOW)

    assert (verdict.status, verdict.code) == ("credential", "invalid_grant")
    assert nothing_told(caplog, spoken, stand_in, verdict) == []
    assert "another0secret" not in f"{caplog.text}{verdict!r}"


async def test_google_says_later_what_became_of_it(stage):
    """The receipt is asked about: first it is still being looked at, then all is in."""
    spoken, stand_in = SPOKEN["google"], google_page.Google()
    stand_in.results = [[google_page.result("PROCESSING")]]
    async with on(stage, stand_in) as outbound:
        secrets = await token_for(spoken, outbound)
        outcomes = spoken.platform.read(
            BATCH, await outbound.to_platform(spoken.platform.build(BATCH, secrets, NOW))
        )
        poll = spoken.platform.build_poll(outcomes[0].external_ref, secrets, NOW)
        found = [spoken.platform.read_poll(BATCH, await outbound.to_platform(poll)) for _ in range(2)]

    assert [{outcome.status for outcome in each} for each in found] == [{"accepted"}, {"delivered"}]
    assert stand_in.faults == []


async def test_googles_refund_restates_a_sale_that_is_known(stage):
    """A refund whose sale Google does not know would count as a sale, and the stand-in says so."""
    spoken, stand_in = SPOKEN["google"], google_page.Google()
    refund = a_sale(
        kind="refund",
        event_id="refund:A-1001:1",
        signals=SIGNALS,
        amount_cents=1900,
        remaining_cents=3000,
        sale_event_id="sale:A-1001",
        sold_at=BATCH[0].occurred_at,
    )
    async with on(stage, stand_in) as outbound:
        secrets = await token_for(spoken, outbound)
        for batch in ([refund], BATCH, [refund], BATCH):
            await outbound.to_platform(spoken.platform.build(batch, secrets, NOW))

    assert [fault.partition(": ")[2] for fault in stand_in.faults] == [
        "sale:A-1001 is restated, and nobody told of it",
        "sale:A-1001 comes again after it was restated",
    ]
    assert dict(stand_in.accepted) == {
        "sale:A-1001": 1,
        "sale:A-1002": 1,
        "restated sale:A-1001 30.00": 1,
    }


async def test_the_older_upload_adjusts_what_it_knows(stage):
    """A refund before its sale is tried again; after it, it is in. A sale twice is in."""
    spoken, stand_in = SPOKEN["google's older upload"], google_ads_page.GoogleAds()
    refund = a_sale(
        kind="refund",
        event_id="refund:A-1001:1",
        signals=SIGNALS,
        remaining_cents=0,
        sale_event_id="sale:A-1001",
        sold_at=BATCH[0].occurred_at,
    )
    found = []
    async with on(stage, stand_in) as outbound:
        secrets = await token_for(spoken, outbound)
        for batch in ([refund], BATCH[:1], [refund], BATCH[:1]):
            answer = await outbound.to_platform(spoken.platform.build(batch, secrets, NOW))
            found += [(o.status, o.code) for o in spoken.platform.read(batch, answer)]

    assert found == [
        ("retry", "CONVERSION_NOT_FOUND"),
        ("delivered", "ok"),
        ("delivered", "ok"),
        ("delivered", "ORDER_ID_ALREADY_IN_USE"),
    ]
    assert stand_in.faults == []


async def test_a_stand_in_may_live_in_a_process_of_its_own():
    """For benchmarks, and for workers that are killed: it prints its port, and says what it took."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.standins", "linkedin", stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        word, port = (await process.stdout.readline()).decode().split()
        address = f"http://127.0.0.1:{port}"
        now = datetime.now(UTC)
        batch = [a_sale(event_id="sale:A-1001", occurred_at=now - timedelta(hours=1), signals=SIGNALS)]
        async with Outbound() as outbound:
            asked = LinkedIn(address=address).build(batch, linkedin_page.SECRETS, now)
            answer = await outbound.to_platform(asked)
            told = await outbound.to_platform(
                Request(method="GET", url=f"{address}/accepted", headers={}, body=b"")
            )
    finally:
        process.terminate()
        await process.wait()

    assert (word, [outcome.status for outcome in LinkedIn().read(batch, answer)]) == ("ready", ["delivered"])
    assert msgspec.json.decode(told.body) == {"accepted": {"sale:A-1001": 1}, "faults": [], "calls": 1}
