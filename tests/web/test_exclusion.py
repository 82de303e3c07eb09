"""Whose visits are not counted, what says so, and what is no click."""

from __future__ import annotations

import dataclasses
import re
from datetime import timedelta

import httpx
import msgspec
import pytest
from sqlalchemy import select

from goodanalytics import Analytics, Query
from goodanalytics.config import Config
from goodanalytics.errors import ConfigError
from tests.conftest import START

CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
SLACK = "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"
SAYS = "x-goodanalytics"
SAME_SITE = {"sec-fetch-site": "same-origin"}


async def page(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<!doctype html><title>Shop</title>"})


@pytest.fixture
async def open_site(database_url, config):
    """Build the whole app with some settings; a function that makes browsers of it."""
    running = []

    async def build(**settings):
        analytics = Analytics(database_url, dataclasses.replace(config, worker=False, **settings))
        await analytics.start()
        running.append(analytics)
        app = analytics.wrap(page)

        def browser(address: str = "203.0.113.7", **headers: str) -> httpx.AsyncClient:
            transport = httpx.ASGITransport(app, client=(address, 1234))
            headers = {"user-agent": CHROME} | {name.replace("_", "-"): v for name, v in headers.items()}
            return httpx.AsyncClient(transport=transport, base_url="https://shop.example", headers=headers)

        browser.analytics = analytics
        return browser

    yield build
    for analytics in running:
        await analytics.stop()


@pytest.fixture
async def browser(open_site):
    """Browsers of a site without any settings, with a short link `/l/spring`."""
    browser = await open_site()
    await browser.analytics.links.create(domain="shop.example", key="spring", url="https://shop.example/sale")
    return browser


async def beacon(client: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await client.post(
        "/ga/t/event", content=msgspec.json.encode({"url": "https://shop.example/"} | body)
    )


async def events(browser) -> list[tuple]:
    """What became of everything that was sent: type and verdict."""
    await browser.analytics.drain()
    e = browser.analytics.database.tables.events.c
    async with browser.analytics.database.connect() as conn:
        return [
            tuple(row)
            for row in await conn.execute(select(e.event_type, e.bot).order_by(e.occurred_at, e.id))
        ]


# Addresses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "says"),
    [
        pytest.param("203.0.113.7", "dropped; reason=excluded address", id="within the network"),
        pytest.param("198.51.100.9", "dropped; reason=excluded address", id="the address"),
        pytest.param("::ffff:198.51.100.9", "dropped; reason=excluded address", id="the address, mapped"),
        pytest.param("2001:db8::1", "dropped; reason=excluded address", id="IPv6"),
        pytest.param("198.51.100.8", "accepted", id="another address"),
    ],
)
async def test_excluded_addresses_are_not_tracked(open_site, address, says):
    """Networks and single addresses, of both families."""
    browser = await open_site(exclude_ips=["203.0.113.0/24", "198.51.100.9", "2001:db8::/32"])

    answer = await beacon(browser(address))

    assert (answer.status_code, answer.headers[SAYS]) == (202, says)
    assert len(await events(browser)) == (says == "accepted")


async def test_an_excluded_address_is_the_visitors_and_not_the_proxys(open_site):
    """Read through the chain of trusted proxies."""
    browser = await open_site(exclude_ips=["203.0.113.7"], trusted_proxies=["10.0.0.0/8"])

    said = [
        (await beacon(browser("10.0.0.1", x_forwarded_for=chain))).headers[SAYS]
        for chain in ("203.0.113.7", "203.0.113.7, 203.0.113.8")
    ]

    assert said == ["dropped; reason=excluded address", "accepted"]


async def test_an_excluded_visitor_is_given_no_cookie_and_nobody(open_site):
    """Neither by a page nor by the host's own question."""
    browser = await open_site(exclude_ips=["203.0.113.7"])
    client = browser(accept="text/html")

    answer = await client.get("/")

    assert "set-cookie" not in answer.headers


def test_an_address_that_is_none_is_refused():
    """With the setting's own name."""
    with pytest.raises(ConfigError, match=r"^exclude_ips has 'office'; write an address or a network"):
        Config(secret_key="0" * 32, exclude_ips=["office"])


def test_the_environment_lists_addresses():
    """Separated by commas."""
    environ = {
        "GOODANALYTICS_SECRET_KEY": "0" * 32,
        "GOODANALYTICS_EXCLUDE_IPS": "203.0.113.7, 2001:db8::/32",
    }

    found = Config.from_env(environ=environ).exclude_ips

    assert [str(network) for network in found] == ["203.0.113.7/32", "2001:db8::/32"]


# Own visits ----------------------------------------------------------------------------------------------------------


async def test_the_owner_takes_a_browser_out_and_puts_it_back(browser):
    """One button each way; the answer to every beacon says how it stands."""
    client = browser(**SAME_SITE)
    said = [(await beacon(client)).headers[SAYS]]

    for on in ("1", "0"):
        pressed = await client.post(f"/ga/t/ignore?on={on}")
        assert (pressed.status_code, pressed.headers["location"]) == (303, "ignore")
        said.append((await beacon(client)).headers[SAYS])

    assert said == ["accepted", "dropped; reason=own visit", "accepted"]
    assert len(await events(browser)) == 2


async def test_the_cookie_says_one_and_nothing_else(browser):
    """It tells nobody apart, is not for scripts, and lasts as long as browsers allow."""
    pressed = await browser(**SAME_SITE).post("/ga/t/ignore?on=1")

    (cookie,) = pressed.headers.get_list("set-cookie")
    assert cookie == "_ga_ignore=1; HttpOnly; Max-Age=34560000; Path=/; SameSite=Lax; Secure"


async def test_the_page_shows_how_it_stands_and_one_button(browser):
    """Plain HTML: no script, nothing of another host, and a form that leads to itself."""
    client = browser(**SAME_SITE)
    counted = await client.get("/ga/t/ignore")
    await client.post("/ga/t/ignore?on=1")
    ignored = await client.get("/ga/t/ignore")

    told = [
        re.search(
            r"<p>(.*)</p>\n<form method=\"post\" action=\"(.*)\"><button>(.*)</button>", shown.text
        ).groups()
        for shown in (counted, ignored)
    ]

    assert told == [
        ("What this browser does on shop.example is counted.", "?on=1", "Do not count this browser"),
        ("What this browser does on shop.example is not counted.", "?on=0", "Count this browser again"),
    ]
    policy = "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    assert counted.headers["content-security-policy"] == policy
    assert (counted.headers["cache-control"], counted.headers["x-robots-tag"]) == ("no-store", "noindex")


async def test_the_page_shows_its_host_as_text(browser):
    """Whoever asks chooses the Host header."""
    shown = await browser(host="<b>shop").get("/ga/t/ignore")

    assert "&lt;b&gt;shop" in shown.text


async def test_looking_changes_nothing(browser):
    """A link or a prefetch to the page, with `?on=1` as well, sets no cookie."""
    shown = await browser().get("/ga/t/ignore?on=1")

    assert (shown.status_code, "set-cookie" in shown.headers) == (200, False)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"sec-fetch-site": "cross-site"}, 403, id="a strange site"),
        pytest.param({"sec-fetch-site": "same-site"}, 403, id="a neighbour below the same domain"),
        pytest.param({"origin": "https://evil.example"}, 403, id="a strange site, older browser"),
        pytest.param({"origin": "null"}, 403, id="a sandbox"),
        pytest.param({"origin": "https://shop.example"}, 303, id="our page, older browser"),
        pytest.param({}, 303, id="no browser"),
    ],
)
async def test_only_our_own_page_presses_the_button(browser, headers, status):
    """Another site could otherwise make its visitors vanish from our figures."""
    pressed = await browser(**headers).post("/ga/t/ignore?on=1")

    assert (pressed.status_code, "set-cookie" in pressed.headers) == (status, status == 303)


@pytest.mark.parametrize(
    ("method", "query", "status"),
    [("POST", "", 400), ("POST", "?on=2", 400), ("DELETE", "?on=1", 405)],
    ids=["says nothing", "says nonsense", "another method"],
)
async def test_a_wrong_question_is_told_what_would_be_right(browser, method, query, status):
    """And changes nothing."""
    answer = await browser(**SAME_SITE).request(method, f"/ga/t/ignore{query}")

    assert (answer.status_code, "set-cookie" in answer.headers) == (status, False)


async def test_an_own_visit_leaves_nothing_on_pages_and_links(browser):
    """No cookie on documents, no click; the link still leads on."""
    client = browser(accept="text/html")
    client.cookies.set("_ga_ignore", "1")

    shown, clicked = await client.get("/"), await client.get("/l/spring")

    assert "set-cookie" not in shown.headers
    assert "set-cookie" not in clicked.headers
    assert (clicked.status_code, clicked.headers[SAYS]) == (302, "dropped; reason=own visit")
    assert await events(browser) == []


async def test_another_value_of_the_cookie_ignores_nobody(browser):
    """Only `1` does, so that `0` and what others may write there mean nothing."""
    client = browser()
    client.cookies.set("_ga_ignore", "0")

    assert (await beacon(client)).headers[SAYS] == "accepted"


# What the header says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        pytest.param({}, "accepted", id="a person"),
        pytest.param({"user_agent": SLACK}, "accepted; bot=preview: Slackbot", id="a bot"),
        pytest.param({"user_agent": ""}, "accepted; bot=empty user agent", id="nobody"),
        pytest.param(
            {"user_agent": "Ünïcrawler"}, "accepted; bot=crawler: ncrawler", id="letters no header may hold"
        ),
        pytest.param({"sec_gpc": "1"}, "dropped; reason=privacy signal", id="Global Privacy Control"),
        pytest.param({"sec_purpose": "prefetch"}, "dropped; reason=prefetch", id="ahead of the visitor"),
    ],
)
async def test_the_header_says_what_became_of_a_beacon(browser, headers, says):
    """Whoever debugs sees why a visit does not show up in the reports."""
    headers = {name: value.encode("latin-1") for name, value in headers.items()}

    assert (await beacon(browser(**headers))).headers[SAYS] == says


async def test_a_bots_beacon_with_a_refused_item_says_both(browser):
    """What was taken, of whom, and how many were not."""
    body = msgspec.json.encode([{"url": "https://shop.example/"}, {"event_type": "nonsense"}])

    answer = await browser(user_agent=SLACK).post("/ga/t/event", content=body)

    assert answer.headers[SAYS] == "accepted; bot=preview: Slackbot; refused=1"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/ga/t/click", b'{"key":"spring"}'),
        ("GET", "/ga/t/pixel.gif", b""),
        ("GET", "/l/spring", b""),
    ],
    ids=["click", "pixel", "short link"],
)
async def test_every_way_in_says_it(browser, method, path, body):
    """Clicks, pixels and short links as beacons do."""
    said = [
        (await browser(**headers).request(method, path, content=body)).headers[SAYS]
        for headers in ({}, {"user_agent": SLACK}, {"dnt": "1"})
    ]

    assert said == ["accepted", "accepted; bot=preview: Slackbot", "dropped; reason=privacy signal"]


async def test_the_verdict_is_stored_with_the_rules_that_spoke(browser):
    """Also a person's, so that history can be judged again by later rules."""
    from goodanalytics.core import bots

    for agent in (CHROME, SLACK):
        await beacon(browser(user_agent=agent))
    await browser.analytics.drain()

    e = browser.analytics.database.tables.events.c
    async with browser.analytics.database.connect() as conn:
        found = await conn.execute(select(e.bot, e.bot_version).order_by(e.user_agent))
    assert [tuple(row) for row in found] == [(None, bots.VERSION), ("preview: Slackbot", bots.VERSION)]


# What is no click ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "headers", "reason"),
    [
        pytest.param("GET", {"sec_purpose": "prefetch"}, "prefetch", id="Chrome's prefetch"),
        pytest.param("GET", {"sec_purpose": "prefetch;prerender"}, "prefetch", id="Chrome's prerender"),
        pytest.param("GET", {"purpose": "prefetch"}, "prefetch", id="older Chrome and Safari"),
        pytest.param("GET", {"x_purpose": "preview"}, "prefetch", id="Safari's top sites"),
        pytest.param("GET", {"x_moz": "prefetch"}, "prefetch", id="Firefox"),
        pytest.param("HEAD", {}, "HEAD request", id="HEAD"),
        pytest.param("HEAD", {"user_agent": "curl/8.5.0"}, "http library: curl", id="a link checker"),
    ],
)
async def test_what_comes_ahead_of_a_person_is_no_click(browser, method, headers, reason):
    """It is led on, with no cookie, and recorded with the reason why it does not count."""
    answer = await browser(**headers).request(method, "/l/spring")

    assert (answer.status_code, answer.headers[SAYS]) == (302, f"accepted; bot={reason}")
    assert answer.headers["location"].startswith("https://shop.example/sale?")
    assert "set-cookie" not in answer.headers
    assert await events(browser) == [("link_click", reason)]


@pytest.mark.parametrize(
    ("user_agent", "verdict"),
    [
        pytest.param(SLACK, "preview: Slackbot", id="Slack"),
        pytest.param(
            "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
            "preview: facebookexternalhit",
            id="Facebook",
        ),
        pytest.param("WhatsApp/2.23.20.0", "preview: WhatsApp", id="WhatsApp"),
        pytest.param("TelegramBot (like TwitterBot)", "preview: TelegramBot", id="Telegram"),
        pytest.param("curl/8.5.0", "http library: curl", id="a script"),
    ],
)
async def test_a_scanner_of_links_is_recorded_and_never_counted(browser, user_agent, verdict):
    """What unfolds a link in a chat is kept with its name, and no report shows it as a click."""
    await browser(user_agent=user_agent).get("/l/spring")
    recorded = await events(browser)

    period = (START - timedelta(days=1), START + timedelta(days=1))
    report = await browser.analytics.reports.query(Query(period=period, metrics=("clicks", "visitors")))

    assert recorded == [("link_click", verdict)]
    assert report.rows == ((0, 0),)


async def test_a_person_after_the_prefetch_is_one_click(browser):
    """The browser asked ahead, and then its person came."""
    client = browser()
    await client.get("/l/spring", headers={"sec-purpose": "prefetch"})

    await client.get("/l/spring")

    assert sorted(await events(browser), key=str) == [("link_click", "prefetch"), ("link_click", None)]
