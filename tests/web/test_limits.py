"""429: for whom, when, what it says, and who does not suffer from it."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import httpx
import msgspec
import pytest

from goodanalytics import Analytics, Principal
from goodanalytics.config import Config
from goodanalytics.core.limits import Allowed, RateLimits
from goodanalytics.errors import ConfigError

CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
GOOGLE = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
TWO = RateLimits(beacons=1, redirects=1, api=1, burst=2)
OFFICE = "203.0.113.7"


async def page(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<!doctype html><title>Shop</title>"})


@pytest.fixture
async def open_site(database_url, config):
    """Build the whole app with some settings; a function that makes clients of it, one for each address."""
    running = []

    async def build(**settings):
        said = {"rate_limits": TWO, "worker": False} | settings
        analytics = Analytics(database_url, dataclasses.replace(config, **said))
        await analytics.start()
        running.append(analytics)
        app = analytics.wrap(page)

        def client(address: str = OFFICE, user_agent: str = CHROME) -> httpx.AsyncClient:
            transport = httpx.ASGITransport(app, client=(address, 1234))
            headers = {"user-agent": user_agent}
            return httpx.AsyncClient(transport=transport, base_url="https://shop.example", headers=headers)

        client.analytics = analytics
        return client

    yield build
    for analytics in running:
        await analytics.stop()


async def beacon(client: httpx.AsyncClient, count: int = 1) -> httpx.Response:
    items = [{"url": "https://shop.example/"}] * count
    return await client.post("/ga/t/event", content=msgspec.json.encode(items))


async def statuses(client: httpx.AsyncClient, count: int, ask=beacon) -> list[int]:
    return [(await ask(client)).status_code for _ in range(count)]


async def click(client: httpx.AsyncClient) -> httpx.Response:
    return await client.get("/l/spring")


async def test_a_client_that_comes_too_often_is_told_when_to_come_again(open_site, clock):
    """429 as a problem, with the seconds to wait; after them it is let in."""
    client = (await open_site())()
    assert await statuses(client, 2) == [202, 202]

    refused = await beacon(client)

    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["ratelimit-policy"] == '"beacons";q=2;w=2'
    assert refused.headers["ratelimit"] == '"beacons";r=0;t=1'
    assert refused.headers["x-goodanalytics"] == "refused; reason=rate limit"
    assert refused.json() == {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "Too many beacons from here: at most 2 at once, and 1 more each second. Try again in 1 s",
        "code": "rate_limited",
    }
    clock.advance(timedelta(seconds=1))
    assert await statuses(client, 1) == [202]


async def test_what_was_refused_is_not_recorded(open_site):
    """Only what was answered 202 is in the books; the script sends the rest again with the same event_id."""
    site = await open_site()

    await statuses(site(), 5)

    assert await site.analytics.drain() == 2


async def test_each_item_of_a_list_counts(open_site):
    """A body of three is let in by one token and paid for with three."""
    client = (await open_site())()

    first = await beacon(client, 3)
    second = await beacon(client)

    assert (first.status_code, second.status_code, second.headers["retry-after"]) == (202, 429, "2")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/ga/t/click"), ("GET", "/ga/t/pixel.gif")], ids=["click", "pixel"]
)
async def test_every_way_to_send_a_hit_counts(open_site, method, path):
    """Clicks and pixels share the bucket of beacons."""
    client = (await open_site())()
    await statuses(client, 2)

    refused = await client.request(method, path)

    assert refused.status_code == 429


async def test_the_script_of_another_host_of_ours_can_read_when_to_come_again(open_site):
    """Without CORS on the refusal, the tracker would not see `Retry-After`."""
    client = (await open_site(own_hosts=["blog.example"]))()
    client.headers["origin"] = "https://blog.example"
    await statuses(client, 2)

    refused = await beacon(client)

    assert refused.headers["access-control-allow-origin"] == "https://blog.example"
    assert "retry-after" in refused.headers["access-control-expose-headers"]


async def test_the_script_and_the_hosts_pages_are_never_limited(open_site):
    """A page must not break because its figures are many."""
    client = (await open_site())()
    await statuses(client, 3)

    assert await statuses(client, 5, lambda c: c.get("/ga/js/good-analytics.js")) == [200] * 5
    assert await statuses(client, 5, lambda c: c.get("/")) == [200] * 5


async def test_a_preflight_costs_nothing(open_site):
    """It says nothing that could be recorded."""
    client = (await open_site())()

    assert await statuses(client, 5, lambda c: c.options("/ga/t/event")) == [204] * 5
    assert await statuses(client, 1) == [202]


# Who is one client ---------------------------------------------------------------------------------------------------


async def test_addresses_do_not_share_a_bucket(open_site):
    """A flood from one address leaves the others alone."""
    site = await open_site()
    await statuses(site(), 3)

    assert await statuses(site("203.0.113.8"), 1) == [202]


async def test_an_ipv6_client_is_its_slash_64(open_site):
    """One machine has 2^64 addresses there; the household next door has another network."""
    site = await open_site()
    await statuses(site("2001:db8:1:2::1"), 2)

    assert await statuses(site("2001:db8:1:2:ffff::9"), 1) == [429]
    assert await statuses(site("2001:db8:1:3::1"), 1) == [202]


async def test_behind_a_trusted_proxy_the_visitor_is_the_client(open_site):
    """The chain is read from the right: what a visitor puts in front of it makes no new client."""
    site = await open_site(trusted_proxies=["10.0.0.0/8"])
    proxy = site("10.0.0.1")

    async def via(chain: str) -> int:
        return (
            await proxy.post("/ga/t/event", content=b"{}", headers={"x-forwarded-for": chain})
        ).status_code

    assert [await via(f"198.51.100.{n}, 203.0.113.7") for n in range(3)] == [202, 202, 429]
    assert await via("203.0.113.9") == 202


async def test_an_undeclared_proxy_does_not_cut_off_the_site(open_site):
    """All visitors seem to come from one private address; nobody can be told apart, so nobody is limited."""
    site = await open_site()

    assert await statuses(site("10.0.0.1"), 5) == [202] * 5


async def test_private_addresses_are_limited_where_the_host_says_so(open_site):
    """An intranet's machines are its visitors."""
    site = await open_site(rate_limits=dataclasses.replace(TWO, private=True))

    assert await statuses(site("10.0.0.1"), 3) == [202, 202, 429]


async def test_people_do_not_suffer_from_a_neighbours_crawler(open_site):
    """Behind one address, what says that it is a bot has a bucket of its own."""
    site = await open_site()
    await open_link(site)

    crawler = await statuses(site(user_agent=GOOGLE), 3, click)
    person = await statuses(site(), 2, click)

    assert (crawler, person) == ([302, 302, 429], [302, 302])


async def test_the_defaults_let_a_lecture_hall_in(open_site):
    """Five hundred people behind one address scan a code at the same moment, and their pages tell of it."""
    site = await open_site(rate_limits=RateLimits())
    await open_link(site)
    hall = site()

    assert set(await statuses(hall, 500, click)) == {302}
    assert set(await statuses(hall, 500)) == {202}


# Redirects -----------------------------------------------------------------------------------------------------------


async def open_link(site) -> None:
    await site.analytics.links.create(domain="shop.example", key="spring", url="https://shop.example/sale")


async def test_a_short_link_that_is_asked_for_too_often_is_a_429(open_site, clock):
    """And leads on as soon as the wait is over."""
    site = await open_site()
    await open_link(site)
    client = site()

    refused = [await click(client) for _ in range(3)][-1]

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.headers["ratelimit-policy"] == '"redirects";q=2;w=2'
    assert refused.json()["code"] == "rate_limited"
    clock.advance(timedelta(seconds=1))
    assert await statuses(client, 1, click) == [302]


async def test_a_person_who_has_to_wait_is_sent_on_by_the_browser(open_site):
    """A browser that shows the answer gets a sentence, and asks again by itself."""
    site = await open_site()
    await open_link(site)
    client = site()
    client.headers["accept"] = "text/html,application/xhtml+xml,*/*;q=0.8"

    refused = [await click(client) for _ in range(3)][-1]

    assert (refused.status_code, refused.headers["refresh"]) == (429, "1")
    assert refused.text == "Many people are here at once. This page goes on in 1 s.\n"


async def test_guessing_keys_is_limited_too(open_site):
    """Each guess asks the database."""
    client = (await open_site())()

    assert await statuses(client, 3, lambda c: c.get("/l/guess")) == [404, 404, 429]


async def test_redirects_and_beacons_have_buckets_of_their_own(open_site):
    """Whoever reads many pages can still follow a link."""
    site = await open_site()
    await open_link(site)
    client = site()
    await statuses(client, 3)

    assert await statuses(client, 1, click) == [302]


# REST ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def rest(open_site):
    """Clients of the REST room by key; `strange` is known to nobody."""
    site = await open_site(authenticate=lambda token, _: Principal() if token.startswith("key-") else None)

    def client(key: str, address: str = OFFICE) -> httpx.AsyncClient:
        opened = site(address)
        opened.headers["authorization"] = f"Bearer {key}"
        return opened

    return client


async def calls(client: httpx.AsyncClient) -> httpx.Response:
    return await client.get("/ga/api/visitors")


async def test_each_key_has_its_own_calls(rest):
    """From wherever it is used; another key of the same server is not concerned."""
    one, elsewhere, other = rest("key-1"), rest("key-1", "198.51.100.9"), rest("key-2")

    assert await statuses(one, 2, calls) == [200, 200]
    assert await statuses(elsewhere, 1, calls) == [429]
    assert await statuses(other, 1, calls) == [200]


async def test_each_answer_tells_a_key_what_it_has_left(rest):
    """A program can slow down before it is refused."""
    client = rest("key-1")

    told = [(await calls(client)).headers["ratelimit"] for _ in range(2)]

    assert told == ['"api";r=1;t=1', '"api";r=0;t=2']


async def test_a_key_that_is_used_too_often_gets_a_problem(rest):
    """Of the room's own shape, with the wait in the header."""
    client = rest("key-1")

    refused = [await calls(client) for _ in range(3)][-1]

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.headers["ratelimit"] == '"api";r=0;t=1'
    assert refused.headers["ratelimit-policy"] == '"api";q=2;w=2'
    assert (refused.json()["code"], refused.json()["request_id"]) == (
        "rate_limited",
        refused.headers["x-request-id"],
    )


async def test_a_stranger_uses_up_nobodys_calls(rest):
    """An unknown key is refused before anything is counted."""
    assert await statuses(rest("strange"), 3, calls) == [401] * 3
    assert await statuses(rest("key-1"), 2, calls) == [200, 200]


# Settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [None, RateLimits(beacons=None, burst=1)], ids=["all off", "one off"])
async def test_none_is_off(open_site, limits):
    """Every limit, or one of them."""
    client = (await open_site(rate_limits=limits))()

    assert await statuses(client, 5) == [202] * 5


class Counting:
    """A host's own limiter, as one for several processes would be."""

    def __init__(self) -> None:
        self.asked = []

    async def take(self, limit, who, cost=1):
        self.asked.append((limit.name, who, cost))
        return Allowed(remaining=7, full_in=0.2)


async def test_a_host_brings_its_own_limiter(open_site):
    """It is told the limit, the client and the weight; keys never leave the process."""
    counting = Counting()
    site = await open_site(limiter=counting, authenticate=lambda *_: Principal())
    client = site()

    await beacon(client, 3)
    await click(client)
    await client.get("/ga/api/visitors", headers={"x-api-key": "geheim"})

    (name, who, cost) = counting.asked.pop()
    assert counting.asked == [("beacons", OFFICE, 1), ("beacons", OFFICE, 2), ("redirects", OFFICE, 1)]
    assert (name, len(who), "geheim" in who, cost) == ("api", 32, False, 1)


async def test_a_limiter_that_fails_lets_everybody_in(open_site, errors):
    """A store that is down must not take the site with it; the host hears of it."""

    class Down:
        async def take(self, *_):
            raise ConnectionError("no Redis")

    site = await open_site(limiter=Down())
    await open_link(site)

    assert await statuses(site(), 3) == [202] * 3
    assert await statuses(site(), 1, click) == [302]
    assert {str(error) for error in errors} == {"no Redis"}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        pytest.param(
            {"rate_limits": 100}, "rate_limits is 100; write something such as RateLimits", id="a number"
        ),
        pytest.param(
            {"limiter": print}, "limiter is <built-in function print>; it needs a method", id="no limiter"
        ),
    ],
)
def test_a_wrong_setting_is_refused_with_its_cure(settings, named):
    """At the start."""
    with pytest.raises(ConfigError, match=f"^{named}"):
        Config(secret_key="0" * 32, **settings)


def test_the_environment_sets_limits():
    """Each rate by its name, and `off` for none."""
    found = Config.from_env(environ={
        "GOODANALYTICS_SECRET_KEY": "0" * 32,
        "GOODANALYTICS_RATE_LIMITS_BEACONS": "12.5",
        "GOODANALYTICS_RATE_LIMITS_API": "off",
        "GOODANALYTICS_RATE_LIMITS_BURST": "50",
    })  # fmt: skip

    assert found.rate_limits == RateLimits(beacons=12.5, api=None, burst=50)


def test_a_rate_that_cannot_be_read_is_refused():
    """It says which variable, and what would be right."""
    environ = {"GOODANALYTICS_SECRET_KEY": "0" * 32, "GOODANALYTICS_RATE_LIMITS_API": "many"}

    with pytest.raises(ConfigError, match="GOODANALYTICS_RATE_LIMITS_API cannot be 'many': write a number"):
        Config.from_env(environ=environ)
