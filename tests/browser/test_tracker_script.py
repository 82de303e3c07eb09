"""
What the tracker sends from a real Chromium, and what it leaves behind there.

Absence is shown by order: the tracker sends one request at a time, so what has not come before a later event never will.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Page

    from tests.browser.conftest import Site

TRACKER = Path(__file__).parents[2] / "goodanalytics/web/static/good-analytics.js"
CLICK = "0191d9a0-7c1e-7d3a-8f10-0123456789ab"
OTHER_CLICK = "0191d9a0-7c1e-7d3a-8f10-ba9876543210"

# The beacon body of surface.md; any other field would be refused with 400.
KNOWN_FIELDS = frozenset(
    [
        "event_id",
        "event_type",
        "event_name",
        "url",
        "referrer",
        "title",
        "properties",
        "amount_cents",
        "currency",
        "engaged_ms",
        "scroll_depth",
        "ga_id",
        "anonymous_id",
        "fingerprint",
        "_fbp",
        "_fbc",
        "_ttp",
        "_ga_ref",
        "screen",
        "language",
        "timezone",
        "touch_points",
        "key",
        "token",
        "external_id",
        "email",
        "name",
        "traits",
    ]
)

HIDDEN_AT_FIRST = """
let hidden = true;
Object.defineProperty(document, "hidden", {get: () => hidden});
Object.defineProperty(document, "visibilityState", {get: () => hidden ? "hidden" : "visible"});
window.show = shown => { hidden = !shown; document.dispatchEvent(new Event("visibilitychange", {bubbles: true})); };
"""
# Long waits are written down and cut short, so that no test sits through a backoff.
QUICK_RETRIES = """
window.waits = [];
const later = window.setTimeout;
window.setTimeout = (call, delay, ...rest) => { if (delay >= 1000) waits.push(delay); return later(call, Math.min(delay || 0, 20), ...rest); };
"""
NO_RETRIES = (
    "const later = setTimeout; window.setTimeout = (call, delay) => delay >= 1000 ? 0 : later(call, delay);"
)


async def visit(page: Page, site: Site, path: str = "/a", *, pageviews: int = 1) -> None:
    await page.goto(site.url + path)
    await site.until(lambda: len(site.told("pageview")) == pageviews)


async def cookies(page: Page) -> dict[str, Any]:
    return {cookie["name"]: cookie for cookie in await page.context.cookies()}


def test_weighs_at_most_three_kilobytes() -> None:
    """The script as served is at most 3 kB under gzip -9, which surface.md promises."""
    assert len(gzip.compress(TRACKER.read_bytes(), 9, mtime=0)) <= 3072


# What a pageview says


async def test_pageview_says_what_was_seen(page: Page, site: Site) -> None:
    """A bare script tag sends one pageview with the page and the screen, and an id of its own."""
    await visit(page, site, "/a?utm_source=x&q=%C3%A9#top")

    (event,) = site.events
    event_id = event.pop("event_id")
    assert str(UUID(event_id)) == event_id
    assert event == {
        "event_type": "pageview",
        "url": f"{site.url}/a?utm_source=x&q=%C3%A9",
        "referrer": "",
        "title": "/a",
        "screen": "1280x720",
        "language": "en-GB",
        "timezone": "Europe/Berlin",
    }


async def test_platform_cookies_are_sent_when_present(page: Page, site: Site) -> None:
    """The click cookies of the ad platforms and the partner referral go with the event, as they stand."""
    given = {"_fbp": "fb.1.2.3", "_fbc": "fb.1.2.IwAR0", "_ttp": "2abc", "_ga_ref": "k.1.c2ln"}
    await page.context.add_cookies(
        [{"name": name, "value": value, "url": site.url} for name, value in given.items()]
    )

    await visit(page, site)

    assert {name: site.events[0].get(name) for name in given} == given


async def test_referrer_is_the_page_before(page: Page, site: Site) -> None:
    """A page reached by a link names the page that linked to it."""
    site.html = site.tag + "<a href=/b>on</a>"
    await visit(page, site)

    await page.click("a")
    await site.until(lambda: len(site.told("pageview")) == 2)

    assert site.told("pageview")[1]["referrer"] == f"{site.url}/a"


async def test_another_origin_needs_no_preflight(page: Page, site: Site) -> None:
    """An endpoint of another origin gets text/plain with cookies and is never asked OPTIONS first."""
    elsewhere = site.url.replace("127.0.0.1", "localhost")
    site.html = f'<script defer src="/ga/js/good-analytics.js" data-endpoint="{elsewhere}/ga/t"></script>'

    await visit(page, site)
    await site.sentinel(page)

    assert {post.headers["host"] for post in site.posts()} == {elsewhere.removeprefix("http://")}
    assert {post.headers["content-type"] for post in site.posts()} == {"text/plain;charset=UTF-8"}
    assert {request.method for request in site.requests} == {"GET", "POST"}


async def test_one_request_at_a_time(page: Page, site: Site) -> None:
    """The second event waits for the first answer, whose cookies say that it is the same visitor."""
    site.gate.clear()
    answer: asyncio.Task[None] = asyncio.create_task(site.until(lambda: len(site.told("custom")) == 1))
    await page.goto(site.url + "/a")
    await page.evaluate("GoodAnalytics.track('second')")
    await site.settled(page)
    site.gate.set()
    await answer

    assert [[event["event_type"] for event in post.events] for post in site.posts()] == [
        ["pageview"],
        ["custom"],
    ]


# Single-page applications


@pytest.mark.parametrize(
    ("act", "then"),
    [
        pytest.param("history.pushState({}, '', '/b')", "/b", id="push"),
        pytest.param("history.replaceState({}, '', '/b')", "/b", id="replace with another path"),
        pytest.param("location.hash = '#/b'", "/a#/b", id="hash route"),
        pytest.param("location.hash = '#!/b'", "/a#!/b", id="hashbang route"),
    ],
)
async def test_virtual_page_is_a_pageview(page: Page, site: Site, act: str, then: str) -> None:
    """A virtual page is one pageview, referred by the virtual page before it."""
    await visit(page, site)

    await page.evaluate(act)
    await site.until(lambda: len(site.told("pageview")) == 2)
    await site.sentinel(page)

    assert [(event["url"], event["referrer"]) for event in site.told("pageview")[1:]] == [
        (site.url + then, f"{site.url}/a")
    ]


@pytest.mark.parametrize(
    "act",
    [
        pytest.param("history.replaceState({scroll: 3}, '', location.href)", id="replace with itself"),
        pytest.param("history.replaceState({}, '', '/a?filter=red')", id="replace with another query"),
        pytest.param("history.pushState({}, '', '/a')", id="push of itself"),
        pytest.param("history.pushState({}, '', '/a?page=2')", id="push of another query"),
        pytest.param("location.hash = 'section'", id="fragment"),
        pytest.param(
            "history.replaceState({}, '', '/a?f=1'); location.hash = 'x'",
            id="replaced query, then a fragment",
        ),
    ],
)
async def test_same_page_is_no_pageview(page: Page, site: Site, act: str) -> None:
    """Moves that stay on the page send nothing."""
    await visit(page, site)

    await page.evaluate(act)
    await page.wait_for_timeout(0)
    await site.sentinel(page)

    assert [event["event_type"] for event in site.events] == ["pageview", "custom"]


async def test_back_is_a_pageview(page: Page, site: Site) -> None:
    """Going back between virtual pages is a pageview of the one returned to."""
    await visit(page, site)
    await page.evaluate("history.pushState({}, '', '/b')")
    await site.until(lambda: len(site.told("pageview")) == 2)

    await page.evaluate("history.back()")
    await site.until(lambda: len(site.told("pageview")) == 3)

    assert site.told("pageview")[2]["url"] == f"{site.url}/a"


async def test_title_set_after_the_address_is_sent(page: Page, site: Site) -> None:
    """Routers set the title after pushState; the pageview carries the new one."""
    await visit(page, site)

    await page.evaluate("history.pushState({}, '', '/b'); document.title = 'New'")
    await site.until(lambda: len(site.told("pageview")) == 2)

    assert site.told("pageview")[1]["title"] == "New"


async def test_pageview_by_hand_takes_its_own_words(page: Page, site: Site) -> None:
    """A pageview that the host reports itself may name its address, title and properties."""
    await visit(page, site)

    await page.evaluate("GoodAnalytics.pageview({url: '/step/2#x', title: 'Two', properties: {step: 2}})")
    await site.until(lambda: len(site.told("pageview")) == 2)

    sent = site.told("pageview")[1]
    assert (sent["url"], sent["title"], sent["properties"]) == (f"{site.url}/step/2", "Two", {"step": 2})


# Clicks


async def test_click_id_is_kept_and_taken_out_of_the_address(page: Page, site: Site) -> None:
    """The click id goes into cookie and event and out of the address, whose other parameters keep order and bytes."""
    await visit(page, site, f"/a?b=%7e+1&ga_id={CLICK}&a=&&c#part")
    await site.sentinel(page)

    assert [event["event_type"] for event in site.events] == ["pageview", "custom"]
    assert (site.events[0]["ga_id"], site.events[0]["url"]) == (CLICK, f"{site.url}/a?b=%7e+1&a=&&c")
    assert await page.evaluate("location.href") == f"{site.url}/a?b=%7e+1&a=&&c#part"
    assert await page.evaluate("GoodAnalytics.getClickId()") == CLICK


async def test_click_cookie_lasts_ninety_days(page: Page, site: Site) -> None:
    """The cookie is 90 days old at most, for the whole site, SameSite=Lax, readable, and Secure on https only."""
    await visit(page, site, f"/a/b?ga_id={CLICK}")

    cookie = (await cookies(page))["_ga_good"]
    seconds = cookie["expires"] - await page.evaluate("Date.now() / 1000")
    assert (cookie["value"], cookie["path"], cookie["sameSite"], cookie["httpOnly"]) == (
        CLICK,
        "/",
        "Lax",
        False,
    )
    assert cookie["secure"] is False
    assert 89 * 86_400 < seconds <= 90 * 86_400


async def test_newest_click_replaces_the_cookie(page: Page, site: Site) -> None:
    """A later click is the newer one; the server decides what it means."""
    await visit(page, site, f"/a?ga_id={CLICK}")
    await visit(page, site, f"/a?ga_id={OTHER_CLICK}", pageviews=2)

    assert (await cookies(page))["_ga_good"]["value"] == OTHER_CLICK


async def test_click_id_that_is_no_uuid_is_refused(page: Page, site: Site) -> None:
    """A value anybody could have written is neither kept nor sent."""
    await visit(page, site, f"/a?ga_id={CLICK}")
    await visit(page, site, "/a?ga_id=mallory", pageviews=2)

    assert (await cookies(page))["_ga_good"]["value"] == CLICK
    assert (site.events[-1]["ga_id"], site.events[-1]["url"]) == (CLICK, f"{site.url}/a")


@pytest.mark.parametrize("name", ["via", "ref"])
async def test_partner_key_becomes_a_click(page: Page, site: Site, name: str) -> None:
    """The key is exchanged for a click id before the pageview, which carries it; the key leaves the address."""
    await visit(page, site, f"/a?x=1&{name}=anna")
    await site.sentinel(page)

    (click,) = [post.events[0] for post in site.posts("/ga/t/click")]
    assert (click["key"], click["url"]) == ("anna", f"{site.url}/a?x=1&{name}=anna")
    assert click.keys() <= {"key", "url", "referrer", "event_id"}
    assert len(site.told("pageview")) == 1
    assert site.told("pageview")[0]["url"] == f"{site.url}/a?x=1&{name}=anna"
    assert (await cookies(page))["_ga_good"]["value"] == site.click_from_via
    assert await page.evaluate("location.search") == "?x=1"


async def test_unknown_partner_key_is_the_hosts_own(page: Page, site: Site) -> None:
    """A ref that is no link of ours stays in the address and costs nothing but the question."""
    site.answers.append(404)

    await visit(page, site, "/a?ref=main")

    assert await page.evaluate("location.search") == "?ref=main"
    assert "_ga_good" not in await cookies(page)


# Engagement


async def test_engagement_belongs_to_its_page(page: Page, site: Site) -> None:
    """A virtual page change reports the old page under its own address and starts anew: no depth is inherited."""
    site.html = site.tag + "<div style='height: 7200px'>"
    await visit(page, site)
    await page.evaluate("scrollTo(0, 2880)")
    await page.evaluate("new Promise(requestAnimationFrame)")
    await page.evaluate("new Promise(requestAnimationFrame)")

    await page.evaluate("history.pushState({}, '', '/b'); scrollTo(0, 0)")
    await site.until(lambda: len(site.told("pageview")) == 2)
    await page.evaluate("new Promise(requestAnimationFrame)")
    await page.evaluate("new Promise(requestAnimationFrame)")
    await page.evaluate("history.pushState({}, '', '/c')")
    await site.until(lambda: len(site.told("engagement")) == 2)

    reported = [(event["url"], event["scroll_depth"] >= 40) for event in site.told("engagement")]
    assert reported == [(f"{site.url}/a", True), (f"{site.url}/b", False)]


async def test_engagement_is_the_time_since_the_last_report(page: Page, site: Site) -> None:
    """Only what is new is reported when the tab is hidden, and less than a second is not worth a request."""
    await page.add_init_script(
        HIDDEN_AT_FIRST + "let at = 1; performance.now = () => at; window.pass = ms => { at += ms; };"
    )
    await page.goto(site.url + "/a")
    await page.evaluate("show(true)")
    await site.until(lambda: len(site.told("pageview")) == 1)
    await page.evaluate("pass(5000); show(false); pass(60000); show(true); pass(999); show(false)")
    await page.evaluate("show(true); pass(1001); show(false)")
    await site.until(lambda: len(site.told("engagement")) == 2)

    assert [event["engaged_ms"] for event in site.told("engagement")] == [5000, 2000]


async def test_leaving_reports_engagement(page: Page, site: Site) -> None:
    """Leaving for another page reports the one that was left, by a beacon that outlives it."""
    await page.add_init_script("let at = 1; performance.now = () => at; window.pass = ms => { at += ms; };")
    await visit(page, site)
    await page.evaluate("pass(4000)")

    await page.goto("about:blank")
    await site.until(lambda: len(site.told("engagement")) == 1)

    (sent,) = site.told("engagement")
    assert (sent["url"], sent["engaged_ms"]) == (f"{site.url}/a", 4000)


# Being seen


async def test_unseen_page_waits(page: Page, site: Site) -> None:
    """A prerendered or background page sends nothing until it is looked at; what was called meanwhile follows then."""
    await page.add_init_script(HIDDEN_AT_FIRST)
    await page.goto(site.url + f"/a?ga_id={CLICK}")
    await page.evaluate("GoodAnalytics.track('early')")
    await site.settled(page)
    assert site.posts() == []
    assert await page.evaluate("location.search") == f"?ga_id={CLICK}"

    await page.evaluate("show(true)")
    await site.until(lambda: len(site.events) == 2)

    assert [event["event_type"] for event in site.events] == ["pageview", "custom"]


async def test_page_from_the_back_forward_cache_is_a_pageview(page: Page, site: Site) -> None:
    """A page that comes back whole runs no script again, yet is a view of its own."""
    site.html = (
        site.tag
        + "<script>addEventListener('pageshow', event => { window.kept = event.persisted; })</script>"
    )
    await visit(page, site)
    await visit(page, site, "/b", pageviews=2)

    await page.go_back(wait_until="commit")
    await site.until(lambda: len(site.told("pageview")) == 3)

    assert await page.evaluate("window.kept") is True
    assert site.told("pageview")[2]["url"] == f"{site.url}/a"


# Failures


async def test_busy_server_is_asked_again_for_the_same_event(page: Page, site: Site) -> None:
    """429, 5xx and a broken connection are retried with the same event id, after 1, 2 and 4 seconds."""
    await page.add_init_script(QUICK_RETRIES)
    site.answers.extend([503, 429, None])

    await visit(page, site)

    assert len({post.events[0]["event_id"] for post in site.posts()}) == 1
    assert await page.evaluate("waits") == [1000, 2000, 4000]
    assert await page.evaluate("localStorage.length") == 0


async def test_waits_no_longer_than_a_minute_unless_told(page: Page, site: Site) -> None:
    """The wait doubles up to a minute; Retry-After may ask for more."""
    await page.add_init_script(QUICK_RETRIES)
    site.answers.extend([500] * 7 + [(503, {"Retry-After": "120"})])

    await visit(page, site)

    assert await page.evaluate("waits") == [1000, 2000, 4000, 8000, 16000, 32000, 60000, 120000]


async def test_failed_event_survives_the_page(page: Page, site: Site) -> None:
    """What could not be delivered is kept in the browser and goes with the next page, once."""
    await page.add_init_script(NO_RETRIES)
    site.answers.append(503)
    await page.goto(site.url + "/a")
    await page.wait_for_function("localStorage._ga_queue")
    failed = site.posts()[0].events[0]["event_id"]

    await visit(page, site, "/b", pageviews=2)
    await site.sentinel(page)

    assert site.told("pageview")[0]["event_id"] == failed
    assert [event["url"] for event in site.told("pageview")] == [f"{site.url}/a", f"{site.url}/b"]
    assert await page.evaluate("localStorage.length") == 0


@pytest.mark.parametrize("text", [pytest.param("", id="many"), pytest.param("€" * 4000, id="large")])
async def test_kept_events_are_bounded(page: Page, site: Site, text: str) -> None:
    """At most 30 events and 60 kB wait in the browser, the oldest of them: they hold how the visit began."""
    await page.add_init_script(NO_RETRIES)
    site.answers.append(503)
    await page.goto(site.url + "/a")
    await page.wait_for_function("localStorage._ga_queue")
    oldest = site.posts()[0].events[0]["event_id"]

    await page.evaluate(
        "text => { for (let i = 0; i < 40; i++) GoodAnalytics.track('e' + i, {text}); }", text
    )

    kept = json.loads(await page.evaluate("localStorage._ga_queue"))
    assert 1 < len(kept) <= 30
    assert await page.evaluate("new Blob([localStorage._ga_queue]).size") <= 60_000
    assert oldest in kept[0][0]


async def test_kept_events_expire_after_a_day(page: Page, site: Site) -> None:
    """An event of the day before yesterday would be counted as of today, so it is given up."""
    await page.add_init_script(
        NO_RETRIES
        + "const now = Date.now; if (location.pathname == '/old') Date.now = () => now() - 864e5 - 1;"
    )
    site.answers.append(503)
    await page.goto(site.url + "/old")
    await page.wait_for_function("localStorage._ga_queue")

    await visit(page, site, "/b")
    await site.sentinel(page)

    assert [event["url"] for event in site.told("pageview")] == [f"{site.url}/b"]


async def test_connection_restored_is_used_at_once(page: Page, site: Site) -> None:
    """The browser's word that it is online again ends the wait."""
    await page.add_init_script(NO_RETRIES)
    site.answers.append(None)
    await page.goto(site.url + "/a")
    await page.wait_for_function("localStorage._ga_queue")

    await page.evaluate("dispatchEvent(new Event('online'))")
    await site.until(lambda: len(site.told("pageview")) == 1)

    assert len({post.events[0]["event_id"] for post in site.posts()}) == 1


async def test_refused_event_is_dropped(page: Page, site: Site) -> None:
    """A 400 is our mistake or the host's: it is not repeated, and the debugging host reads why."""
    site.answers.append(400)
    async with page.expect_console_message(lambda message: message.type == "warning"):
        await page.goto(site.url + "/a")

    await site.sentinel(page)

    assert [event["event_type"] for event in site.events] == ["custom"]


# Consent, opt-out and signals


@pytest.mark.parametrize(
    "signal",
    [
        pytest.param(
            "Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', {get: () => true})", id="GPC"
        ),
        pytest.param("Object.defineProperty(Navigator.prototype, 'doNotTrack', {get: () => '1'})", id="DNT"),
    ],
)
async def test_privacy_signal_stops_everything(page: Page, site: Site, signal: str) -> None:
    """Global Privacy Control and Do Not Track: nothing is sent, stored or changed."""
    await page.add_init_script(signal)
    await page.goto(site.url + f"/a?ga_id={CLICK}")
    await page.evaluate("GoodAnalytics.track('x'); GoodAnalytics.pageview(); history.pushState({}, '', '/b')")
    await page.wait_for_timeout(0)
    await site.settled(page)

    assert (site.posts(), await cookies(page), await page.evaluate("localStorage.length")) == ([], {}, 0)


async def test_host_may_overrule_the_signals(page: Page, site: Site) -> None:
    """Where the law does not ask for it, the host may track in spite of a signal."""
    await page.add_init_script(
        "Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', {get: () => true})"
    )
    site.html = site.tag.replace("data-debug", "data-respect-privacy-signals=false data-debug")

    await visit(page, site)

    assert len(site.events) == 1


async def test_opt_out_is_remembered(page: Page, site: Site) -> None:
    """An opt-out forgets the click, stops this page and all later ones, and ends with an opt-in."""
    await visit(page, site, f"/a?ga_id={CLICK}")

    await page.evaluate("GoodAnalytics.optOut(); GoodAnalytics.track('x')")
    await page.goto(site.url + "/b")
    await page.evaluate("GoodAnalytics.track('y'); GoodAnalytics.forget()")
    await site.settled(page)
    assert (len(site.posts()), await cookies(page)) == (1, {})

    await page.evaluate("GoodAnalytics.optIn()")
    await site.until(lambda: len(site.told("pageview")) == 2)
    await site.sentinel(page)
    assert [event.get("event_name") for event in site.told("custom")] == ["sentinel"]


async def test_consent_comes_first(page: Page, site: Site) -> None:
    """Without consent nothing is sent or stored and the click stays in the address; consent starts, its end forgets and is told."""
    site.html = site.tag.replace("data-debug", "data-consent=false data-debug")
    await page.goto(site.url + f"/a?ga_id={CLICK}")
    await page.evaluate("GoodAnalytics.track('before'); GoodAnalytics.setConsent(false)")
    await site.settled(page)
    assert (site.posts(), site.posts("/ga/t/deny"), await cookies(page)) == ([], [], {})

    await page.evaluate("GoodAnalytics.setConsent(true)")
    await site.until(lambda: len(site.events) == 1)
    assert (site.events[0]["event_type"], site.events[0]["ga_id"]) == ("pageview", CLICK)

    await page.evaluate(
        "GoodAnalytics.setConsent(false); GoodAnalytics.track('after'); GoodAnalytics.setConsent(false)"
    )
    await site.until(lambda: len(site.posts("/ga/t/deny")) == 1)
    await site.settled(page)
    assert (len(site.posts()), len(site.posts("/ga/t/deny")), await cookies(page)) == (1, 1, {})

    await page.evaluate("GoodAnalytics.setConsent(true)")
    await site.until(lambda: len(site.events) == 2)


async def test_forget_leaves_nothing(page: Page, site: Site) -> None:
    """Forgetting clears the click and the waiting events, in the browser and in memory, and sends nothing about it."""
    await page.add_init_script(
        QUICK_RETRIES.replace("Math.min(delay || 0, 20)", "delay >= 1000 ? 1e6 : delay")
    )
    site.answers.append(503)
    await page.goto(site.url + f"/a?ga_id={CLICK}")
    await page.wait_for_function("localStorage._ga_queue")

    await page.evaluate("GoodAnalytics.forget()")
    await page.evaluate("dispatchEvent(new Event('online'))")
    await site.settled(page)

    assert (len(site.posts()), await cookies(page), await page.evaluate("localStorage.length")) == (1, {}, 0)
    assert await page.evaluate("GoodAnalytics.getClickId()") is None


async def test_reset_ends_the_click(page: Page, site: Site) -> None:
    """After a logout the next event carries no click of the one before."""
    await visit(page, site, f"/a?ga_id={CLICK}")

    await page.evaluate("GoodAnalytics.reset()")
    await site.sentinel(page)

    assert "ga_id" not in site.told("custom")[0]


async def test_reset_asks_for_a_new_cookie_between_what_was_before_and_what_comes(
    page: Page, site: Site
) -> None:
    """What waited is sent with the cookie that it was done with; what is done next waits for the new one."""
    await visit(page, site)
    await site.sentinel(page, "before")
    site.gate.clear()
    await page.evaluate(
        "GoodAnalytics.track('in flight'); GoodAnalytics.track('waiting'); GoodAnalytics.reset(); GoodAnalytics.track('next')"
    )
    site.gate.set()
    await site.until(lambda: any(event.get("event_name") == "next" for event in site.events))

    names = [{event.get("event_name") for event in post.events} for post in site.posts()]
    assert "waiting" in set.union(*names[:-1])
    assert names[-1] == {"next"}
    assert len(site.posts("/ga/t/reset")) == 1
    assert site.requests.index(site.posts("/ga/t/reset")[0]) < site.requests.index(site.posts()[-1])


async def test_answer_to_what_was_before_a_reset_does_not_let_the_next_event_overtake_it(
    page: Page, site: Site
) -> None:
    """A slow answer to an earlier event comes while the new cookie is still asked for: the next event goes on waiting."""
    await page.add_init_script("""
        const ask = window.fetch;
        window.asked = [];
        window.fetch = async (url, options) => {
            asked.push([String(url).slice(-6), options.body || ""].join(" "));
            if (String(url).endsWith("/reset")) await new Promise(go => window.letReset = go);
            return ask(url, options);
        };
    """)
    site.gate.clear()
    await page.goto(site.url + "/a")
    await page.evaluate("GoodAnalytics.reset(); GoodAnalytics.track('next')")
    site.gate.set()
    await site.until(lambda: len(site.told("pageview")) == 1)
    await page.evaluate("new Promise(go => setTimeout(go))")
    await site.settled(page)
    assert not any("next" in asked for asked in await page.evaluate("asked"))

    await page.evaluate("letReset()")
    await site.until(lambda: any(event.get("event_name") == "next" for event in site.events))


async def test_reset_before_the_tracker_runs_asks_for_nothing(page: Page, site: Site) -> None:
    """Without consent there is no cookie to change."""
    site.html = site.tag.replace("data-debug", "data-consent=false data-debug")
    await page.goto(site.url)
    await page.evaluate("GoodAnalytics.reset()")
    await site.settled(page)

    assert site.posts("/ga/t/reset") == []


# Verbs


@pytest.mark.parametrize(
    ("call", "said"),
    [
        pytest.param("track('Signup', {plan: 'pro', seats: 3})",
                     {"event_type": "custom", "event_name": "Signup", "properties": {"plan": "pro", "seats": 3}}, id="track"),
        pytest.param("lead({form: 'demo'}, 't')", {"event_type": "lead", "properties": {"form": "demo"}, "token": "t"}, id="lead"),
        pytest.param("sale({amount_cents: 4900, currency: 'EUR', key: 'o-1', properties: {sku: 7}, token: 't', url: 'x'})",
                     {"event_type": "sale", "amount_cents": 4900, "currency": "EUR", "key": "o-1", "properties": {"sku": 7},
                      "token": "t"}, id="sale"),
        pytest.param("identify({token: 't', external_id: 'u1', email: 'a@b.example', name: 'A', traits: {vip: true}, ga_id: 'x'})",
                     {"event_type": "identify", "token": "t", "external_id": "u1", "email": "a@b.example", "name": "A",
                      "traits": {"vip": True}}, id="identify"),
        pytest.param("share('mastodon')", {"event_type": "share", "properties": {"channel": "mastodon"}}, id="share"),
    ],
)  # fmt: skip
async def test_verb_says_what_it_was_told(page: Page, site: Site, call: str, said: dict[str, Any]) -> None:
    """A verb sends its own fields where the server reads them, and no field that the server would refuse."""
    await visit(page, site)

    await page.evaluate(f"GoodAnalytics.{call}")
    await site.until(lambda: len(site.events) == 2)

    sent = site.events[1]
    common = {"event_id", "url", "referrer", "screen", "language", "timezone"}
    assert {name: value for name, value in sent.items() if name not in common} == said
    assert sent.keys() <= KNOWN_FIELDS


@pytest.mark.parametrize(
    "call", ["sale()", "identify(null)", "track('x', {toJSON() { throw 1 }})", "track('x', {n: 1n})"]
)
async def test_wrong_call_does_not_throw(page: Page, site: Site, call: str) -> None:
    """A host's mistake never breaks its page, nor the events after it."""
    await visit(page, site)

    await page.evaluate(f"GoodAnalytics.{call}")
    await site.sentinel(page)

    assert [event["event_type"] for event in site.events] == ["pageview", "custom"]


async def test_marked_element_is_an_event(page: Page, site: Site) -> None:
    """A click within an element with data-ga-event is that event, its other data-ga-… attributes the properties."""
    site.html = site.tag + "<button data-ga-event='Try it' data-ga-plan='pro' data-x=1><b>Go</b></button>"
    await visit(page, site)

    await page.click("b")
    await site.until(lambda: len(site.events) == 2)

    assert (site.events[1]["event_name"], site.events[1]["properties"]) == ("Try it", {"plan": "pro"})


@pytest.mark.parametrize(
    ("link", "name"),
    [
        pytest.param("https://user:pw@other.example/x?ga_id=1&a=1#f", "Outbound link", id="outbound"),
        pytest.param("/files/price.pdf", "File download", id="file"),
        pytest.param("/b", None, id="own page"),
        pytest.param("mailto:a@b.example", None, id="mail"),
    ],
)
async def test_outbound_links_and_downloads_are_opt_in(
    page: Page, site: Site, link: str, name: str | None
) -> None:
    """With `outbound` a link that leaves and a file are events; without it, and for other links, nothing is sent."""
    html = f"<a href='{link}' onclick='event.preventDefault()'>on</a>"
    site.html = site.tag + html
    await visit(page, site)
    await page.click("a")
    await site.sentinel(page)
    assert [event.get("event_name") for event in site.events] == [None, "sentinel"]

    site.html = site.tag.replace("data-debug", "data-outbound=true data-debug") + html
    await visit(page, site, pageviews=2)
    await page.click("a")
    await site.sentinel(page, "end")

    assert [event["event_name"] for event in site.told("custom")][1:] == ([name] if name else []) + ["end"]
    if name:
        address = link.replace("user:pw@", "").replace("ga_id=1&", "").removesuffix("#f")
        assert site.told("custom")[1]["properties"] == {
            "url": address if "//" in link else site.url + address
        }


# Starting


async def test_calls_before_loading_are_replayed(page: Page, site: Site) -> None:
    """What was pushed to the queue before the script came is sent after the pageview, and pushing goes on working."""
    stub = "<script>window.GoodAnalytics = window.GoodAnalytics || {q: []}; GoodAnalytics.q.push(['track', 'early', {n: 1}]);</script>"
    site.html = stub + site.tag
    await visit(page, site)

    await page.evaluate("GoodAnalytics.q.push(['track', 'late'])")
    await site.until(lambda: len(site.told("custom")) == 2)

    assert [event.get("event_name") for event in site.events] == [None, "early", "late"]
    assert site.events[1]["properties"] == {"n": 1}


async def test_second_load_and_second_init_are_ignored(page: Page, site: Site) -> None:
    """Two tags and an init on top are still one pageview each, and a warning for each surplus."""
    site.html = site.tag + site.tag
    said: list[str] = []
    page.on("console", lambda message: said.append(message.type))
    await visit(page, site)

    await page.evaluate("GoodAnalytics.init({endpoint: '/elsewhere'}); history.pushState({}, '', '/b')")
    await site.until(lambda: len(site.told("pageview")) == 2)
    await site.sentinel(page)

    assert [event["event_type"] for event in site.events] == ["pageview", "pageview", "custom"]
    assert said == ["warning", "warning"]


@pytest.mark.parametrize(
    "html",
    [
        pytest.param("<script src=/ga/js/good-analytics.js></script><script>GoodAnalytics.init({endpoint: '/ga/t'})</script>", id="tag, then init"),
        pytest.param("<script src=/ga/js/good-analytics.js data-auto=false></script><script>GoodAnalytics.init()</script>", id="not by itself"),
        pytest.param("<script src=/ga/js/good-analytics.js data-endpoint=/ga/t></script>", id="endpoint on the tag"),
        pytest.param("<script async src=/ga/js/good-analytics.js data-endpoint=/ga/t></script>", id="async"),
        pytest.param("<script>const tag = document.createElement('script'); tag.src = '/ga/js/good-analytics.js';"
                     " tag.dataset.endpoint = '/ga/t'; document.head.append(tag)</script>", id="added by script"),
    ],
)  # fmt: skip
async def test_ways_to_start(page: Page, site: Site, html: str) -> None:
    """Each documented way to start sends one pageview and warns of nothing."""
    site.html = html
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    await visit(page, site)

    await site.sentinel(page)

    assert ([event["event_type"] for event in site.events], said) == (["pageview", "custom"], [])


async def test_tag_that_waits_sends_nothing(page: Page, site: Site) -> None:
    """With data-auto="false" nothing happens until init."""
    site.html = site.tag.replace("data-debug", "data-auto=false data-debug")
    await page.goto(site.url + "/a")
    await site.settled(page)
    assert site.posts() == []

    await page.evaluate("GoodAnalytics.track('early'); GoodAnalytics.init()")
    await site.until(lambda: len(site.events) == 2)

    assert [event["event_type"] for event in site.events] == ["pageview", "custom"]


# Hostile surroundings


async def test_blocked_storage_breaks_nothing(page: Page, site: Site) -> None:
    """Where cookies and storage throw, events are sent and retried from memory, and the page sees no error."""
    await page.add_init_script(
        QUICK_RETRIES
        + """
        const blocked = () => { throw new DOMException("blocked", "SecurityError"); };
        Object.defineProperty(window, "localStorage", {get: blocked});
        Object.defineProperty(Document.prototype, "cookie", {get: blocked, set: blocked});
        """
    )
    site.answers.append(503)
    errors: list[Any] = []
    page.on("pageerror", lambda error: errors.append(error))

    await visit(page, site, f"/a?ga_id={CLICK}")
    await page.evaluate("GoodAnalytics.optOut(); GoodAnalytics.track('x')")
    await site.settled(page)

    assert (len(site.events), site.events[0]["ga_id"], errors) == (1, CLICK, [])


@pytest.mark.parametrize("stored", ["{", "7", "{}", "[null]"])
async def test_spoilt_storage_breaks_nothing(page: Page, site: Site, stored: str) -> None:
    """A queue that some other script or version has written is given up, and the visit is counted."""
    await page.add_init_script(f"localStorage._ga_queue = '{stored}'")

    await visit(page, site)

    assert await page.evaluate("localStorage.length") == 0


async def test_plain_http_has_event_ids_too(page: Page, site: Site) -> None:
    """Where the browser hides crypto.randomUUID the event id is a random UUID all the same."""
    await page.add_init_script("delete Crypto.prototype.randomUUID")

    await visit(page, site)

    assert UUID(site.events[0]["event_id"]).version == 4


async def test_strict_content_policy_is_enough(page: Page, site: Site) -> None:
    """A policy of the host's own origin, without inline code or eval, lets everything through."""
    site.html = (
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; script-src 'self'; connect-src 'self'\">"
        + site.tag
    )
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))

    await visit(page, site)
    await site.sentinel(page)

    assert (len(site.events), said) == (2, [])


async def test_file_pages_are_not_tracked(page: Page, site: Site, tmp_path: Any) -> None:
    """A page opened from a disk sends nothing."""
    saved = tmp_path / "saved.html"
    saved.write_text(f"<script defer src='{site.url}/ga/js/good-analytics.js'></script>")
    await page.goto(saved.as_uri())
    await page.evaluate("GoodAnalytics.track('x')")
    await page.evaluate("address => fetch(address, {method: 'POST'})", site.url + "/settled")
    await page.goto(site.url + "/b")
    await site.until(lambda: len(site.told("pageview")) == 1)

    assert [event["url"] for event in site.events] == [f"{site.url}/b"]
