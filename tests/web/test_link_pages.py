"""What a short link shows instead of leading on: its password's form, where it leads, its card, its frame."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from html.parser import HTMLParser

import httpx
import pytest

from goodanalytics import Analytics, Config
from goodanalytics.web.links.passwords import LIFE, MAX_BODY, TRIES
from tests.conftest import FrozenClock
from tests.web.link_site import SHOP, SLACK, browser, events, make, site, told

EVIL = "\"><script>alert(1)</script><a href='"


@pytest.fixture
async def analytics(shared_database_url: str, config: Config) -> AsyncIterator[Analytics]:
    async with site(shared_database_url, config, link_frameable_hosts=["shop.example"]) as running:
        yield running


@pytest.fixture
async def client(analytics: Analytics) -> AsyncIterator[httpx.AsyncClient]:
    async with browser(analytics) as client:
        yield client


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def find(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def meta(self) -> dict[str, str | None]:
        return {
            str(attributes.get("property") or attributes.get("name")): attributes.get("content")
            for attributes in self.find("meta")
        }


# Passwords -----------------------------------------------------------------------------------------------------------


async def test_a_password_is_asked_for(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """The form posts to the same address, its field has a label, and nothing tells where the link leads."""
    await make(analytics, password="geheim", title="For <you>")
    answer = await client.get("/a?utm_source=x")
    page = Page(answer)
    (field,) = page.find("input")

    assert (answer.status_code, answer.headers["cache-control"]) == (200, "private, no-store")
    assert answer.headers["x-robots-tag"] == "noindex"
    assert page.find("form") == [{"method": "post"}]
    assert (field["type"], field["name"], page.find("label")) == (
        "password",
        "password",
        [{"for": field["id"]}],
    )
    assert "For <you>" in page.text
    assert "shop.example" not in answer.text + str(answer.headers)
    assert await events(analytics) == []


async def test_the_right_password_leads_on_and_is_remembered(
    analytics: Analytics, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    """By 303, so that no browser sends the form on; its cookie opens the link for an hour and is for servers only."""
    await make(analytics, password="pässword", redirect_status=307)
    first = await client.post("/a?x=1", data={"password": "pässword"})
    again = await client.get("/a")
    clock.advance(LIFE)
    later = await client.get("/a")
    (cookie,) = [c for c in first.headers.get_list("set-cookie") if c.startswith("_ga_open_")]

    assert (first.status_code, first.headers["location"].partition("&")[0]) == (303, f"{SHOP}?x=1")
    assert re.search(r"HttpOnly; Max-Age=3600;.* SameSite=Lax; Secure", cookie)
    assert (again.status_code, later.status_code) == (307, 200)
    assert [event["event_type"] for event in await events(analytics)] == ["link_click"] * 2


async def test_another_password_shuts_the_link_again(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """The cookie is for one password, and for one link."""
    link = await make(analytics, password="one")
    other = await make(analytics, key="b", password="one")
    await client.post("/a", data={"password": "one"})
    before = await client.get("/a"), await client.get("/b")
    await analytics.links.update(link, password="two")
    await told(analytics)
    client.cookies.set(f"_ga_open_{other.id.hex}", client.cookies[f"_ga_open_{link.id.hex}"])
    after = await client.get("/a"), await client.get("/b")

    assert [answer.status_code for answer in before] == [302, 200]
    assert [answer.status_code for answer in after] == [200, 200]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(b"password=wrong", "not the password", id="wrong"),
        pytest.param(b"", "not the password", id="empty"),
        pytest.param(b"other=geheim", "not the password", id="another field"),
        pytest.param(b"password=" + b"x" * 200, "not the password", id="longer than any"),
        pytest.param(b"password=geheim&x=" + b"x" * MAX_BODY, "not the password", id="a large body"),
        pytest.param(b"password=\xff", "not the password", id="not UTF-8"),
        pytest.param(b"&".join([b"password=geheim"] * 11), "not the password", id="too many fields"),
    ],
)
async def test_a_wrong_password_is_told(
    analytics: Analytics, client: httpx.AsyncClient, body: bytes, said: str
) -> None:
    """403 with the form again, and a message that is read out."""
    await make(analytics, password="geheim")
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = await client.post("/a", content=body, headers=headers)
    page = Page(answer)

    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert {"id": "wrong", "role": "alert"} in page.find("p")
    assert page.find("input")[0]["aria-describedby"] == "wrong"
    assert said in page.text
    assert "shop.example" not in answer.text


async def test_guessing_is_slowed_down(
    analytics: Analytics, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    """After ten tries a client waits, also behind a private address and without other limits; others and other links do not."""
    await make(analytics, password="geheim")
    await make(analytics, key="b", password="geheim")
    async with browser(analytics, address="10.0.0.1") as office:
        wrong = [(await office.post("/a", data={"x": ""})).status_code for _ in range(TRIES.burst)]
        refused = await office.post("/a", data={"password": "geheim"})
        async with browser(analytics, address="10.0.0.2") as colleague:
            other_private = await colleague.post("/a", data={"password": "geheim"})
        other_link = await office.post("/b", data={"password": "geheim"})
        other_client = await client.post("/a", data={"password": "geheim"})
        clock.advance(timedelta(seconds=10))
        waited = await office.post("/a", data={"password": "geheim"})

    assert wrong == [403] * TRIES.burst
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
    assert "Wait 10 seconds" in refused.text
    assert [answer.status_code for answer in (other_private, other_link, other_client, waited)] == [303] * 4


@pytest.mark.parametrize("where", ["/a?password=geheim", "/a?pw=geheim"])
async def test_a_password_in_the_address_opens_nothing(
    analytics: Analytics, client: httpx.AsyncClient, where: str
) -> None:
    """It would stay in logs and histories."""
    await make(analytics, password="geheim")

    assert (await client.get(where)).status_code == 200
    assert (await client.post(where)).status_code == 403


# Where it leads ------------------------------------------------------------------------------------------------------


async def test_a_plus_shows_where_a_link_leads(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """The address and the title, without a redirect, a click, or a use; for people, not for search engines."""
    await make(analytics, url=f"{SHOP}?a=1&b=2", title=EVIL)
    answer = await client.get("/a+")
    page = Page(answer)

    assert answer.status_code == 200
    assert answer.headers["x-robots-tag"] == "noindex"
    assert f"{SHOP}?a=1&b=2" in page.text
    assert EVIL in page.text
    assert page.find("script") == []
    assert [a["href"] for a in page.find("a")] == ["https://go.example/a"]
    assert await events(analytics) == []


@pytest.mark.parametrize(
    "fields",
    [pytest.param({"password": "x"}, id="password"), pytest.param({"max_clicks": 1}, id="one-time")],
)
async def test_a_plus_tells_no_secret(
    analytics: Analytics, client: httpx.AsyncClient, fields: dict[str, object]
) -> None:
    """What a password or a limited number of uses guards is not shown to whoever has neither."""
    await make(analytics, **fields)
    answer = await client.get("/a+")

    assert (answer.status_code, "shop.example" in answer.text) == (200, False)


# Cards ---------------------------------------------------------------------------------------------------------------


async def test_a_preview_bot_gets_the_links_card(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """Escaped, with the short address as its own, to be kept by the network alone; recorded as a preview, and no click."""
    await make(
        analytics, og_title=EVIL, og_description='Big "lamps"', og_image="https://img.example/a.png?x=1&y=2"
    )
    answer = await client.get("/a", headers={"user-agent": SLACK})
    page = Page(answer)
    (event,) = await events(analytics)

    assert (answer.status_code, answer.headers["cache-control"]) == (200, "private, max-age=300")
    assert (page.meta["og:title"], page.meta["og:description"]) == (EVIL, 'Big "lamps"')
    assert page.meta["og:image"] == "https://img.example/a.png?x=1&y=2"
    assert page.meta["og:url"] == "https://go.example/a"
    assert {"rel": "canonical", "href": "https://go.example/a"} in page.find("link")
    assert page.find("script") == []
    assert event["bot"] == "preview: Slackbot"


@pytest.mark.parametrize(
    "agent",
    [
        SLACK,
        "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
        "Twitterbot/1.0",
        "LinkedInBot/1.0 (compatible; Mozilla/5.0; Apache-HttpClient +http://www.linkedin.com)",
        "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
        "TelegramBot (like TwitterBot)",
        "WhatsApp/2.23.20.0 A",
        "Pinterest/0.2 (+https://www.pinterest.com/bot.html)",
    ],
    ids=lambda agent: re.split(r"[-/ ]", agent)[0] if not agent.startswith("Mozilla") else "Discordbot",
)
async def test_who_gets_a_card(analytics: Analytics, client: httpx.AsyncClient, agent: str) -> None:
    """Those that fetch a page to show it to people; everybody else is led on."""
    await make(analytics, og_title="Lamps")

    assert (await client.get("/a", headers={"user-agent": agent})).status_code == 200
    assert (await client.get("/a")).status_code == 302
    assert (await client.get("/a", headers={"user-agent": "Googlebot/2.1"})).status_code == 302


# Frames --------------------------------------------------------------------------------------------------------------


async def test_a_cloaked_link_shows_a_listed_host_in_a_frame(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """A click like any other, under the short address; a host that is not listed is redirected to."""
    await make(analytics, cloaked=True, title="Lamps", url=f"{SHOP}?a=1")
    await make(analytics, key="b", cloaked=True, url="https://bank.example/")
    framed, other = await client.get("/a"), await client.get("/b")
    (frame,) = Page(framed).find("iframe")
    first, _ = await events(analytics)

    assert framed.status_code == 200
    assert (frame["src"], frame["title"]) == (f"{SHOP}?a=1&ga_id={first['click_id']}", "Lamps")
    assert (other.status_code, other.headers["location"].partition("?")[0]) == (302, "https://bank.example/")


async def test_pages_are_kept_from_doing_anything(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """The policy lets nothing run, load or frame them; only the frame's own page may hold one."""
    await make(analytics, cloaked=True)
    await make(analytics, key="b", password="x")
    policies = [(await client.get(path)).headers["content-security-policy"] for path in ("/a", "/b", "/a+")]

    assert all(policy.startswith("default-src 'none'; style-src 'sha256-") for policy in policies)
    assert all("frame-ancestors 'none'" in policy and "base-uri 'none'" in policy for policy in policies)
    assert ["frame-src" in policy for policy in policies] == [True, False, False]
