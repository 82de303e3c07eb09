"""
Where a visit came from and which visit a hit belongs to, in the edge cases that the original lists, each under our rule.

`test_case_N_…` are those of original-core.md, section 27. Where the original did wrong, the docstring says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from goodanalytics.core import devices, urls
from goodanalytics.core.beacons import Edge, read_beacon
from goodanalytics.core.bots import judge
from goodanalytics.core.hits import BROWSER_TYPES, Client, EventType
from goodanalytics.core.sessions import Moment, Outside, Session, going_on, step
from goodanalytics.core.sources import Source, classify

SHOP = "https://shop.test/"
FACEBOOK = "https://www.facebook.com/"
START = datetime(2026, 11, 1, 12, tzinfo=UTC)
TIMEOUT = timedelta(minutes=30)


def visit(query: str, referrer: str | None = None) -> Source:
    return classify(f"{SHOP}?{query}", referrer)


# Classifier --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "platform", "channel"),
    [
        ("gclid=1", "google_ads", "paid search"),
        ("fbclid=1", "meta", "social"),
        ("msclkid=1", "microsoft_ads", "paid search"),
        ("ttclid=1", "tiktok", "paid social"),
    ],
)
def test_case_16_a_click_id_names_its_platform(query: str, platform: str, channel: str) -> None:
    """16: gclid, fbclid (social, for it does not say that it was paid for), msclkid, ttclid: with high confidence."""
    source = visit(query)

    assert (source.platform, source.channel, source.confidence) == (platform, channel, "high")


def test_case_16_all_click_ids_are_kept_and_paid_ones_win() -> None:
    """16: every known id is captured. Of several the original takes the alphabetically first; ours the paid one."""
    source = visit("fbclid=f&gclid=g")

    assert source.click_ids == (("fbclid", "f"), ("gclid", "g"))
    assert (source.platform, source.click_id) == ("google_ads", "g")


@pytest.mark.parametrize(
    ("query", "referrer", "platform"),
    [
        ("gclid=1&utm_source=news", None, "google_ads"),
        ("utm_source=news", FACEBOOK, "news"),
        ("via=partner&ref=other", FACEBOOK, "facebook"),
    ],
    ids=["a click id beats UTM", "UTM beats the referrer", "via beats ref and leaves the platform"],
)
def test_case_16_what_beats_what(query: str, referrer: str | None, platform: str) -> None:
    """16: click id before UTM before referrer; via before ref."""
    source = visit(query, referrer)

    assert source.platform == platform
    assert source.partner_code == ("partner" if "via" in query else None)


def test_case_16_everything_at_once_keeps_the_partner_beside_the_click() -> None:
    """16: gclid + via + utm + Facebook as referrer: Google Ads, high, with the partner's code and the campaign kept."""
    source = visit("gclid=1&via=partner&utm_source=news&utm_campaign=Spring", FACEBOOK)

    assert (source.platform, source.confidence, source.partner_code, source.campaign) == (
        "google_ads",
        "high",
        "partner",
        "Spring",
    )


def test_case_16_an_empty_click_id_is_none() -> None:
    """16: `?gclid=` counts in the original; here it does not."""
    assert visit("gclid=").is_direct


@pytest.mark.parametrize("host", ["chat.openai.com", "chatgpt.com", "www.chatgpt.com"])
def test_case_17_two_hosts_of_one_assistant_are_one_platform(host: str) -> None:
    """17: chat.openai.com and chatgpt.com are the same."""
    source = classify(SHOP, f"https://{host}/")

    assert (source.platform, source.channel) == ("chatgpt", "ai")


@pytest.mark.parametrize(
    ("written", "platform"), [("ChatGPT.com", "chatgpt"), ("www.perplexity.ai", "perplexity")]
)
def test_case_17_an_assistants_host_as_utm_source_is_ai(written: str, platform: str) -> None:
    """17: in any case and with `www.`."""
    source = visit(f"utm_source={written}")

    assert (source.platform, source.medium) == (platform, "ai")


def test_case_17_an_assistant_beats_facebook_and_a_click_id_beats_an_assistant() -> None:
    """17: the named source before the referrer, and a click id before both."""
    assert visit("utm_source=chatgpt.com", FACEBOOK).platform == "chatgpt"
    assert classify(f"{SHOP}?gclid=1", "https://chatgpt.com/").platform == "google_ads"


@pytest.mark.parametrize(
    ("referrer", "platform", "channel"),
    [
        ("https://www.yahoo.com/", "yahoo", "organic search"),
        ("https://search.yahoo.com/x", "yahoo", "organic search"),
        ("https://mail.yahoo.com/", "yahoo_mail", "email"),
        ("https://www.google.de/", "google", "organic search"),
        ("https://WWW.Google.COM/", "google", "organic search"),
        ("https://www.blog.example/post", "blog.example", "referral"),
    ],
)
def test_case_18_referrers(referrer: str, platform: str, channel: str) -> None:
    """18: search and mail of one house are two; `www.` is stripped; an unknown host is a referral by its name. google.de too is Google."""
    source = classify(SHOP, referrer)

    assert (source.platform, source.channel) == (platform, channel)


@pytest.mark.parametrize("referrer", [None, "", "   "])
def test_case_18_no_referrer_is_direct(referrer: str | None) -> None:
    """18: nil and "" are direct."""
    assert classify(SHOP, referrer).channel == "direct"


def test_case_18_the_sites_own_host_is_no_referral() -> None:
    """18: unknown to the original, whose second page is a referral from the first."""
    assert classify("https://shop.test/2", "https://www.shop.test/1").is_direct


@pytest.mark.parametrize(
    ("written", "medium"), [("cpc", "paid"), ("PPC", "paid"), ("paid", "paid"), ("custom", "custom")]
)
def test_case_18_mediums(written: str, medium: str) -> None:
    """18: cpc, ppc and paid are paid, in any case; another word stays as it is."""
    assert visit(f"utm_source=x&utm_medium={written}").medium == medium


def test_case_18_unrelated_parameters_are_not_captured() -> None:
    """18: what is no campaign, partner or click id changes nothing."""
    assert visit("color=red&page=2") == visit("")


def test_case_18_a_campaign_alone_leaves_the_platform() -> None:
    """18: utm_campaign alone clears the platform in the original; here the referrer's stays."""
    source = classify(f"{SHOP}?utm_campaign=Spring", "https://www.google.com/")

    assert (source.platform, source.campaign) == ("google", "Spring")


def test_case_18_a_list_is_a_parameter_like_any_other() -> None:
    """18: `utm_source[]=x` is a 500 in the original on any page; here it is utm_source."""
    assert visit("utm_source[]=news").platform == "news"


# Events ------------------------------------------------------------------------------------------------------------------


def test_case_36_an_unknown_type_is_an_error() -> None:
    """36: the type of an event is one of a closed set."""
    edge = Edge(UUID(int=1), START, Client())
    claims, refused = read_beacon(b'{"event_type": "teleport"}', edge, lambda: UUID(int=2))

    assert (claims, [(one.where, one.index) for one in refused]) == ([], [("event_type", 0)])


def test_case_37_long_texts_of_a_source_are_cut_to_255_and_the_event_stays_valid() -> None:
    """37: a source of a thousand characters is kept, cut."""
    source = visit(f"utm_source={'x' * 1000}&utm_campaign={'y' * 1000}")

    assert (len(source.platform), len(source.campaign or "")) == (255, 255)


def test_case_37_what_a_browser_may_claim_is_a_part_of_all_types() -> None:
    """37: what only a host may say is a type, and no browser's."""
    assert frozenset(EventType) > BROWSER_TYPES


def test_case_38_without_a_user_agent_there_is_no_device_to_believe() -> None:
    """38: a device is read from what the browser sent, never taken from the caller; a bot has its name."""
    assert devices.parse(None).type == "other"
    assert (
        judge("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)").name == "Googlebot"
    )
    assert devices.parse("Googlebot/2.1").browser == "Googlebot"


def test_case_40_an_address_is_the_same_with_its_campaign_and_a_trailing_slash() -> None:
    """40: reports group by a path without query and trailing slash."""
    assert urls.parts("https://shop.test/a/?utm_source=x").path == urls.parts("https://shop.test/a").path


# Sessions ----------------------------------------------------------------------------------------------------------------

GOOGLE = Source("google", "organic", "medium")
META = Source("facebook", "social", "medium")


def at(
    minute: float, source: Source | None = None, event_type: EventType = EventType.PAGEVIEW, **facts: Any
) -> Moment:
    moment = START + timedelta(minutes=minute)
    opens = event_type is not EventType.ENGAGEMENT
    return Moment(
        occurred_at=moment, event_type=event_type, source=source or Source(), **{"opens": opens, "path": "/"} | facts
    )  # fmt: skip


def visits(moments: Sequence[Moment], *, click_ids: Sequence[int | None] = ()) -> list[Session]:
    """What the moments of one browser make, first begun first."""
    known: dict[UUID, Session] = {}
    for number, moment in enumerate(moments):
        click = click_ids[number] if click_ids else None
        fresh = Session(
            workspace_id=UUID(int=0), id=UUID(int=number + 1), visitor_id=UUID(int=9), started_at=moment.occurred_at,
            last_event_at=moment.occurred_at, click_id=None if click is None else UUID(int=click),
        )  # fmt: skip
        live = going_on(known.values(), moment.occurred_at, TIMEOUT)
        taken = step(live, moment, lambda fresh=fresh: fresh)
        if not isinstance(taken, Outside):
            known[taken.session.id] = taken.session
    return sorted(known.values(), key=lambda session: session.started_at)


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        ([at(0), at(20)], ["direct"]),
        ([at(0), at(30)], ["direct"]),
        ([at(0), at(31)], ["direct", "direct"]),
        ([at(0), at(5, GOOGLE)], ["google"]),
        ([at(0, GOOGLE), at(5, META)], ["google", "facebook"]),
        ([at(0, GOOGLE), at(5)], ["google"]),
        ([at(0, Source("Google", "Organic")), at(5, Source("google", "organic"))], ["Google"]),
        ([at(0, GOOGLE), at(5, Source("", " "))], ["google"]),
    ],
    ids=[
        "+20 min same", "exactly 30 min same", "+31 min new", "direct then google updates in place", "google then facebook splits",
        "google then direct continues", "upper and lower case are equal", "blank strings are none",
    ],
)  # fmt: skip
def test_case_42_which_visit(moments: list[Moment], expected: list[str]) -> None:
    """42: silence and another source end a visit; direct and blanks do not."""
    assert [session.source for session in visits(moments)] == expected


def test_case_42_another_click_of_the_same_source_goes_on() -> None:
    """42: a changed click id splits in the original, so each campaign click is two visits. Ours compares the source only."""
    ads = Source("google_ads", "paid", "high", campaign="Spring")

    assert len(visits([at(0, ads), at(5, ads)], click_ids=[1, 2])) == 1


@pytest.mark.parametrize(
    ("moments", "is_bounce", "is_engaged"),
    [
        ([at(0, event_type=EventType.LEAD)], False, True),
        ([at(0, event_type=EventType.SESSION_START)], True, False),
        ([at(0), at(1)], False, True),
        ([at(0), at(1, event_type=EventType.IDENTIFY)], False, False),
        ([at(0), at(1, event_type=EventType.ENGAGEMENT, engaged_ms=12_000)], True, True),
        ([at(0), at(1, event_type=EventType.ENGAGEMENT, engaged_ms=9_999)], True, False),
    ],
    ids=["lead", "session_start", "second pageview", "identify", "12 engaged seconds", "9.999 engaged seconds"],
)  # fmt: skip
def test_case_44_bounce_and_engagement(moments: list[Moment], is_bounce: bool, is_engaged: bool) -> None:
    """44: a lead is no bounce and engaged, session_start is a bounce, a second page clears it, ten seconds engage. To the millisecond."""
    (session,) = visits(moments)

    assert (session.is_bounce, session.is_engaged) == (is_bounce, is_engaged)


def test_case_44_an_event_from_before_never_shortens_a_visit() -> None:
    """44: a negative hop counts 0 in the original, whose end then moves backwards. Ours keeps the end and moves the start."""
    (session,) = visits([at(10), at(4)])

    assert (session.started_at, session.last_event_at) == (
        START + timedelta(minutes=4),
        START + timedelta(minutes=10),
    )
    assert session.duration_ms == 6 * 60_000


def test_case_44_the_exit_page_comes_from_pageviews_only() -> None:
    """44: what is done on a page does not leave it."""
    (session,) = visits([at(0, path="/a"), at(1, path="/b"), at(2, event_type=EventType.CUSTOM, path="/c")])

    assert (session.entry_path, session.exit_path) == ("/a", "/b")


@pytest.mark.parametrize(("minute", "expected"), [(0.75, 1), (30, 1), (31, 0)])
def test_case_45_a_ping_prolongs_a_living_visit_and_opens_none(minute: float, expected: int) -> None:
    """45: +45 s and a hop of 30 min are accepted; after 31 min there is no visit that it could belong to."""
    ping = at(minute, event_type=EventType.ENGAGEMENT, engaged_ms=1_000, opens=False)
    sessions = visits([at(0), ping])

    assert (len(sessions), sessions[0].engaged_ms) == (1, 1_000 * expected)
    assert sessions[0].events == 1


def test_case_45_a_ping_without_a_visit_makes_none() -> None:
    """45: it creates nothing."""
    assert visits([at(0, event_type=EventType.ENGAGEMENT, engaged_ms=1_000, opens=False)]) == []


def test_case_45_attention_is_cut_to_half_an_hour() -> None:
    """21, 45: 9,999,999,999 ms are 1,800,000."""
    edge = Edge(UUID(int=1), START, Client())
    body = b'{"event_type": "engagement", "engaged_ms": 9999999999}'
    claims, _ = read_beacon(body, edge, lambda: UUID(int=2))

    assert [claim.hit.engaged_ms for claim in claims] == [1_800_000]


@pytest.mark.parametrize(("minutes", "expected"), [((0, 10, 60), 2), ((0, 10, 20), 1), ((0, 31, 62), 3)])
def test_case_47_visits_of_a_history(minutes: Sequence[float], expected: int) -> None:
    """47: 0, 10 and 60 minutes are two visits."""
    assert len(visits([at(minute) for minute in minutes])) == expected
