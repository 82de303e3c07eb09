"""Where a request is led: what a link's rules read, its limits, its domain, and what is recorded of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from sqlalchemy import select

from goodanalytics import Analytics, Config
from goodanalytics.core.link_conditions import Rule, Variant, When
from goodanalytics.core.links import AndroidApp
from goodanalytics.store.database import Database
from goodanalytics.web.links import questions as link_questions
from goodanalytics.web.links.clicks import ORPHANS
from tests.conftest import FrozenClock
from tests.web.link_site import IPHONE, SHOP, SLACK, browser, events, make, site, told

FINGERPRINT = ":".join(["AB"] * 32)


@pytest.fixture
async def analytics(shared_database_url: str, config: Config) -> AsyncIterator[Analytics]:
    async with site(shared_database_url, config, geo_headers=["x-country"]) as running:
        yield running


@pytest.fixture
async def client(analytics: Analytics) -> AsyncIterator[httpx.AsyncClient]:
    async with browser(analytics) as client:
        yield client


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes its time; how long we wait for it is no fact about links."""
    monkeypatch.setattr(link_questions, "FACTS_SECONDS", 30.0)
    monkeypatch.setattr(link_questions, "USE_SECONDS", 30.0)


async def lose_database(analytics: Analytics) -> None:
    """From now on nobody answers, at once."""
    await analytics.log.primary.stop()  # which keeps a connection for a moment, and so does the catalogue
    await analytics._links.catalogue.stop()
    await analytics.database.engine.dispose()
    gone = Database.open("postgresql+asyncpg://nobody@127.0.0.1:9/none", analytics.database.tables)
    object.__setattr__(analytics.database, "engine", gone.engine)


def led_to(answer: httpx.Response) -> str:
    return answer.headers["location"].partition("?")[0]


# Rules ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "headers"),
    [
        pytest.param(When(countries=["DE"]), {"x-country": "DE"}, id="country"),
        pytest.param(When(devices=["smartphone"]), {"user-agent": IPHONE}, id="device"),
        pytest.param(When(languages=["de"]), {"accept-language": "de-AT, en;q=0.5"}, id="language"),
        pytest.param(When(ip_ranges=["203.0.113.0/24"]), {}, id="address"),
        pytest.param(When(returning=False), {}, id="first visit"),
    ],
)
async def test_a_rule_reads_the_request(
    analytics: Analytics, client: httpx.AsyncClient, when: When, headers: dict[str, str]
) -> None:
    """Whoever fulfils it is led to its address, and the click says which rule it was; others are not."""
    await make(analytics, rules=[Rule(url=f"{SHOP}/rule", when=when, name="mine")])
    matching = await client.get("/a", headers=headers)
    async with browser(analytics, address="198.51.100.1", cookie="_ga_anon=seen-before") as other:
        await other.get("/a")
        await analytics.drain()
        unlike = await other.get("/a")

    assert (led_to(matching), led_to(unlike)) == (f"{SHOP}/rule", SHOP)
    assert [event["properties"] for event in await events(analytics)][:1] == [{"rule": "mine"}]


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ("US-CA", f"{SHOP}/rule"),
        ("us-ca", f"{SHOP}/rule"),
        ("US-California", f"{SHOP}/rule"),
        ("US-NY", SHOP),
        ("MX-CA", SHOP),
    ],
)
async def test_a_rule_reads_the_region_of_an_address(
    shared_database_url: str, config: Config, tmp_path: Path, region: str, expected: str
) -> None:
    """A region is its country with its code or its English name, as a database of addresses tells them."""
    writer = MMDBWriter(6, "test", ipv4_compatible=True, languages=["en"], description="test")
    california = {
        "country": {"iso_code": "US"},
        "subdivisions": [{"iso_code": "CA", "names": {"en": "California"}}, {"iso_code": "NY"}],
    }
    writer.insert_network(IPSet(["203.0.113.0/24"]), california)
    writer.to_db_file(str(tmp_path / "places.mmdb"))
    async with (
        site(shared_database_url, config, geo_path=tmp_path / "places.mmdb") as analytics,
        browser(analytics) as client,
    ):
        await make(analytics, rules=[Rule(url=f"{SHOP}/rule", when=When(regions=[region]))])

        assert led_to(await client.get("/a")) == expected


@pytest.mark.parametrize(
    ("when", "who"),
    [
        pytest.param(When(returning=True), "returning", id="was here before"),
        pytest.param(When(statuses=["customer"]), "customer", id="status"),
        pytest.param(When(traits={"plan": "pro"}), "customer", id="trait"),
    ],
)
async def test_a_rule_reads_what_is_known_of_the_visitor(
    analytics: Analytics, client: httpx.AsyncClient, when: When, who: str
) -> None:
    """By the browser's cookie, of the whole person; a stranger fulfils none of it, and nobody does when they refuse tracking."""
    known = await analytics.resolve({"anonymous_id": "browser-1"})
    if who == "customer":
        other_device = await analytics.identify(external_id="u1", traits={"plan": "pro"})
        await analytics.identify(known, external_id="u1")
        await analytics.sale(other_device, amount_cents=100, currency="EUR", key="o1")
    await make(analytics, rules=[Rule(url=f"{SHOP}/rule", when=when)])
    cookie = {"cookie": "_ga_anon=browser-1"}

    assert led_to(await client.get("/a", headers=cookie)) == f"{SHOP}/rule"
    assert led_to(await client.get("/a", headers={"cookie": "_ga_anon=nobody"})) == SHOP
    assert led_to(await client.get("/a", headers={**cookie, "sec-gpc": "1"})) == SHOP


async def test_without_a_database_nothing_is_known_of_a_visitor(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """Neither that they were here before nor that they were not: the link's own address decides."""
    returns = [Rule(url=f"{SHOP}/{said}", when=When(returning=said)) for said in (True, False)]
    await make(analytics, rules=returns)
    cookie = {"cookie": "_ga_anon=browser-1"}
    with_database = led_to(await client.get("/a", headers=cookie))
    await lose_database(analytics)

    assert with_database == f"{SHOP}/False"
    assert led_to(await client.get("/a", headers=cookie)) == SHOP


async def test_a_visitor_stays_on_their_variant(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """The cookie that the first click sets keeps them there, and the clicks say which variant it was."""
    variants = [Variant(url=f"{SHOP}/{name}", name=name) for name in "ABCDEFGH"]
    await make(analytics, variants=variants)
    led = {led_to(await client.get("/a")) for _ in range(5)}

    assert len(led) == 1
    assert {event["properties"]["variant"] for event in await events(analytics)} == {led.pop()[-1]}


async def test_a_path_and_a_query_are_carried_on(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """Behind the key, where the link says so, and nowhere else."""
    await make(analytics, forward_path=True)
    await make(analytics, key="b", forward_query=False)
    forwarded = await client.get("/a/table%20lamps/3?size=l")
    plain, deeper = await client.get("/b?size=l"), await client.get("/b/deeper")

    assert forwarded.headers["location"].startswith(f"{SHOP}/table%20lamps/3?size=l&ga_id=")
    assert "size" not in plain.headers["location"]
    assert deeper.status_code == 404


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_has_the_links_status_and_is_never_kept(
    analytics: Analytics, client: httpx.AsyncClient, status: int
) -> None:
    """Else a browser that remembers a 301 would never tell of a click again."""
    await make(analytics, redirect_status=status, indexed=True)
    answer = await client.get("/a")

    assert (answer.status_code, answer.headers["cache-control"]) == (status, "private, no-store")
    assert "x-robots-tag" not in answer.headers


@pytest.mark.parametrize(
    ("status", "method", "expected", "allowed"),
    [
        (307, "POST", 307, None),
        (308, "PUT", 308, None),
        (307, "OPTIONS", 405, "GET, HEAD, DELETE, PATCH, POST, PUT"),
        (302, "POST", 405, "GET, HEAD"),
    ],
)
async def test_what_carries_something_on_is_led_on_by_307_and_308(
    analytics: Analytics,
    client: httpx.AsyncClient,
    status: int,
    method: str,
    expected: int,
    allowed: str | None,
) -> None:
    """Only they keep the method (RFC 9110, sections 15.4.8 and 15.4.9)."""
    await make(analytics, redirect_status=status)
    answer = await client.request(method, "/a", content=b"x")

    assert (answer.status_code, answer.headers.get("allow")) == (expected, allowed)


# Beginning and end ---------------------------------------------------------------------------------------------------


async def test_a_link_begins_and_ends(
    analytics: Analytics, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    """From its first moment on and until its last one; before, it is as if it were not there."""
    now = clock()
    await make(analytics, starts_at=now + timedelta(hours=1), expires_at=now + timedelta(hours=2))
    seen = []
    for _ in range(3):
        seen.append((await client.get("/a")).status_code)
        clock.advance(timedelta(hours=1))

    assert seen == [404, 302, 410]
    assert len(await events(analytics)) == 1


@pytest.mark.parametrize(
    ("own", "domains", "expected"),
    [
        ("https://shop.example/own", "https://shop.example/domain", "https://shop.example/own"),
        (None, "https://shop.example/domain", "https://shop.example/domain"),
    ],
    ids=["the link's", "the domain's"],
)
async def test_where_a_link_leads_that_is_over(
    analytics: Analytics,
    client: httpx.AsyncClient,
    clock: FrozenClock,
    own: str | None,
    domains: str,
    expected: str,
) -> None:
    """To its own address for that, else to its domain's; no click is counted for it."""
    await analytics.links.set_domain("go.example", expired_url=domains)
    await make(analytics, expires_at=clock(), expired_url=own)
    answer = await client.get("/a")

    assert (answer.status_code, answer.headers["location"]) == (302, expected)
    assert await events(analytics) == []


async def test_a_link_is_used_as_often_as_it_may_be(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """Exactly that often, however many come at once; then it is over, until it may be used more often."""
    link = await make(analytics, max_clicks=3)
    answers = await asyncio.gather(*(client.get("/a") for _ in range(12)))
    table = analytics.database.tables.link_uses
    async with analytics.database.connect() as conn:
        taken = await conn.execute(select(table.c.number).where(table.c.link_id == link.id))
        numbers = sorted(row.number for row in taken)
    await analytics.links.update(link, max_clicks=4)
    await told(analytics)
    more = [(await client.get("/a")).status_code for _ in range(2)]

    assert sorted(answer.status_code for answer in answers) == [302] * 3 + [410] * 9
    assert numbers == [1, 2, 3]
    assert more == [302, 410]
    assert len(await events(analytics)) == 4


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        pytest.param("HEAD", {}, 200, id="HEAD"),
        pytest.param("GET", {"sec-purpose": "prefetch"}, 503, id="prefetch"),
        pytest.param("GET", {"user-agent": "Googlebot/2.1"}, 200, id="bot"),
        pytest.param("GET", {"user-agent": SLACK}, 200, id="preview"),
    ],
)
async def test_who_only_looks_uses_nothing_up_and_learns_nothing(
    analytics: Analytics, client: httpx.AsyncClient, method: str, headers: dict[str, str], status: int
) -> None:
    """A one-time link is still there for the person whom it was sent to."""
    await make(analytics, max_clicks=1, og_title="Lamps" if headers.get("user-agent") == SLACK else None)
    looked = await client.request(method, "/a", headers=headers)
    person = await client.get("/a")

    assert (looked.status_code, "shop.example" in looked.text + str(looked.headers)) == (status, False)
    assert person.status_code == 302
    assert [event["bot"] is None for event in await events(analytics)] == [False, True]


async def test_a_limited_link_waits_for_the_database(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """Nobody else knows whether a use is left, so it says why and when to come again; other links lead on."""
    await make(analytics, max_clicks=5)
    await make(analytics, key="b")
    for path in ("/a", "/b"):
        assert (await client.get(path)).status_code == 302
    await lose_database(analytics)
    limited, other = await client.get("/a"), await client.get("/b")

    assert (limited.status_code, limited.headers["retry-after"], other.status_code) == (503, "5", 302)
    assert "limited number of times" in limited.text


# The domain ----------------------------------------------------------------------------------------------------------


async def test_a_domain_says_where_its_root_and_unknown_keys_lead(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """To addresses of its own; without them, nowhere."""
    bare = [(await client.get(path)).status_code for path in ("/", "/nothing")]
    await analytics.links.set_domain(
        "go.example", root_url="https://shop.example/", not_found_url="https://shop.example/lost"
    )
    await told(analytics)
    root, lost = await client.get("/"), await client.get("/nothing")

    assert bare == [404, 404]
    assert (root.status_code, root.headers["location"]) == (302, "https://shop.example/")
    assert (lost.status_code, lost.headers["location"]) == (302, "https://shop.example/lost")


async def test_case_matters_where_the_domain_says_so(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """Else every spelling of a key is the same link, also when its change is told of by one of them."""
    await make(analytics, key="Sale")
    strict = [(await client.get(path)).status_code for path in ("/Sale", "/sale")]
    await analytics.links.set_domain("go.example", case_sensitive=False)
    await told(analytics)
    loose = [(await client.get(path)).status_code for path in ("/Sale", "/sale", "/SALE")]

    assert strict == [302, 404]
    assert loose == [302, 302, 302]


async def test_apps_are_told_that_they_may_open_the_links(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """As JSON, without a redirect, on the link domain alone; a domain without apps has no such files."""
    paths = (
        "/.well-known/apple-app-site-association",
        "/apple-app-site-association",
        "/.well-known/assetlinks.json",
    )
    none = [(await client.get(path)).status_code for path in paths]
    await analytics.links.set_domain(
        "go.example",
        ios_app_ids=["TEAM123456.com.example.app"],
        android_apps=[AndroidApp(package_name="com.example.app", sha256_fingerprints=[FINGERPRINT])],
    )
    await told(analytics)
    apple, apple_too, android = [await client.get(path) for path in paths]

    assert none == [404, 404, 404]
    assert {answer.headers["content-type"] for answer in (apple, apple_too, android)} == {"application/json"}
    assert (
        apple.json()
        == apple_too.json()
        == {"applinks": {"details": [{"appIDs": ["TEAM123456.com.example.app"], "components": [{"/": "*"}]}]}}
    )
    assert android.json() == [
        {
            "relation": ["delegate_permission/common.handle_all_urls"],
            "target": {
                "namespace": "android_app",
                "package_name": "com.example.app",
                "sha256_cert_fingerprints": [FINGERPRINT],
            },
        }
    ]
    assert (await client.get(f"https://shop.example{paths[0]}")).text == "the host"
    assert await events(analytics) == []


# What is recorded ----------------------------------------------------------------------------------------------------


async def test_a_scanned_code_is_a_medium_of_its_own(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """`?qr=1` makes it one, and nothing else does; it is not passed on. An ad's click id says more than the code."""
    await make(analytics, utm_source="poster")
    for query in ("?qr=1", "?qr=yes", "?qr=1&gclid=1"):
        assert "qr=" not in (await client.get(f"/a{query}")).headers["location"]
    found = await events(analytics)

    assert [event["medium"] for event in found] == ["qr", "unknown", "paid"]
    assert [event["source"] for event in found][:2] == ["poster", "poster"]
    assert [event["properties"] for event in found] == [{"qr": True}, {}, {"qr": True}]


async def test_an_unknown_key_is_recorded_without_a_link(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """As a click whose path is what was asked for; files that programs ask for, HEAD and prefetches are not."""
    await client.get("/old-flyer?utm_campaign=may", headers={"referer": "https://blog.example/post"})
    await client.get("https://shop.example/l/lost")
    for path in ("/favicon.ico", "/robots.txt", "/.well-known/security.txt", "/apple-touch-icon.png"):
        await client.get(path)
    await client.head("/typo")
    await client.get("/typo", headers={"sec-purpose": "prefetch"})
    await client.get("/typo", headers={"dnt": "1"})
    event, other = sorted(await events(analytics), key=lambda event: event["host"])

    assert (event["event_type"], event["link_id"], event["click_id"]) == ("link_click", None, None)
    assert (event["host"], event["path"], event["origin"]) == ("go.example", "/old-flyer", "link")
    assert (event["source"], event["campaign"]) == ("blog.example", "may")
    assert (other["host"], other["path"]) == ("shop.example", "/l/lost")


async def test_a_scanner_does_not_fill_the_tables(
    analytics: Analytics, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    """Beyond a burst, unknown keys are answered and not recorded, until some time has gone by."""
    for number in range(ORPHANS.burst + 20):
        assert (await client.get(f"/x{number}")).status_code == 404
    first = len(await events(analytics))
    clock.advance(timedelta(seconds=1))
    await client.get("/later")

    assert (first, len(await events(analytics))) == (ORPHANS.burst, ORPHANS.burst + 1)


async def test_the_tracker_cannot_click_what_is_not_in_use(
    analytics: Analytics, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    """`?via=` with a key that begins later is one that nobody has."""
    await make(analytics, domain="shop.example", starts_at=clock() + timedelta(days=1))
    answer = await client.post("https://shop.example/ga/t/click", json={"key": "a"})

    assert answer.status_code == 404
