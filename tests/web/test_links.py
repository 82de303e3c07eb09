"""Short links: the visitor always goes on, whatever became of the click."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from goodanalytics import Analytics, Config
from goodanalytics.core.sources import Source
from goodanalytics.errors import DatabaseUnavailable
from goodanalytics.hooks import Happened
from goodanalytics.store.database import Database
from tests.conftest import FrozenClock
from tests.web.link_site import SHOP, browser, events, site, told


@pytest.fixture
async def analytics(shared_database_url: str, config: Config) -> AsyncIterator[Analytics]:
    domains = ["go.example", "x.example:8000"]
    async with site(shared_database_url, config, link_domains=domains) as running:
        yield running


@pytest.fixture
async def client(analytics: Analytics) -> AsyncIterator[httpx.AsyncClient]:
    async with browser(analytics) as client:
        yield client


async def test_a_link_leads_on_with_its_clicks_id(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """302, not to be cached or listed, with exactly the click's id; the click is recorded with its link and source."""
    link = await analytics.links.create(
        key="a", url=SHOP, utm_source="News", utm_medium="email", utm_campaign="C"
    )
    answer = await client.get("/a", headers={"referer": "https://www.google.com/"})
    (event,) = await events(analytics)

    assert answer.status_code == 302
    assert answer.headers["location"] == (
        f"{SHOP}?utm_source=News&utm_medium=email&utm_campaign=C&ga_id={event['click_id']}"
    )
    assert (answer.headers["cache-control"], answer.headers["x-robots-tag"]) == (
        "private, no-store",
        "noindex",
    )
    assert (event["event_type"], event["link_id"], event["id"]) == ("link_click", link.id, event["click_id"])
    assert (event["source"], event["medium"], event["campaign"]) == ("news", "email", "C")
    assert (event["session_id"], str(event["ip"])) == (None, "203.0.113.0/24")


@pytest.mark.parametrize(
    ("query", "referer", "expected"),
    [
        ("", None, ("go.example", "link")),
        ("", "https://www.google.com/", ("google", "organic")),
        ("utm_source=x&utm_medium=cpc", "https://www.google.com/", ("x", "paid")),
        ("gclid=1", None, ("google_ads", "paid")),
        ("s=whatsapp", None, ("whatsapp", "messaging")),
        ("s=bluesky&qr=1", None, ("go.example", "qr")),
        ("s=whatsapp", "https://www.google.com/", ("google", "organic")),
        ("utm_source=x&utm_medium=cpc&s=reddit", None, ("x", "paid")),
        ("s=nowhere", None, ("go.example", "link")),
    ],
)
async def test_where_a_click_came_from(
    analytics: Analytics,
    client: httpx.AsyncClient,
    query: str,
    referer: str | None,
    expected: tuple[str, str],
) -> None:
    """The request's own words, else the referrer, else where it was shared, else the link itself."""
    await analytics.links.create(key="a", url=SHOP)
    await client.get(f"/a?{query}", headers={} if referer is None else {"referer": referer})
    (event,) = await events(analytics)

    assert (event["source"], event["medium"]) == expected
    assert Source.from_json(event["acquisition"]).platform == expected[0]


async def test_a_click_names_the_browser(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """The link's host sets its cookie once a day, and the second click is the same visitor's."""
    await analytics.links.create(key="a", url=SHOP)
    first, second = await client.get("/a"), await client.get("/a")

    assert "HttpOnly" in first.headers["set-cookie"]
    assert "set-cookie" not in second.headers
    assert len({event["visitor_id"] for event in await events(analytics)}) == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods(client: httpx.AsyncClient, method: str) -> None:
    """405 with Allow."""
    answer = await client.request(method, "/a")

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path", ["/nobody", "/", "", "/a/b", "/a.b", "/%00", "/%0d%0aX:1", "/é", "/" + "x" * 300]
)
async def test_what_is_no_link(client: httpx.AsyncClient, path: str) -> None:
    """404, and nothing of the path in the answer."""
    answer = await client.get(path)

    assert (answer.status_code, answer.text) == (404, "There is no such link\n")


async def test_expired_and_archived_links(
    analytics: Analytics, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    """410 from the moment of expiry on, 404 once archived; neither is a click on the link."""
    await analytics.links.create(key="old", url=SHOP, expires_at=clock() + timedelta(hours=1))
    away = await analytics.links.create(key="away", url=SHOP)
    await analytics.links.archive(away)
    clock.advance(timedelta(hours=1))

    assert [(await client.get(path)).status_code for path in ("/old", "/away")] == [410, 404]
    assert [event["link_id"] for event in await events(analytics)] == [None]


@pytest.mark.parametrize("headers", [{"sec-gpc": "1"}, {"dnt": "1"}, {"sec-gpc": "1", "purpose": "prefetch"}])
async def test_who_may_not_be_followed_leaves_no_click(
    analytics: Analytics, client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    """They are led on like everybody, without a cookie, a hook or a click."""
    called: list[Happened] = []
    analytics.hooks.on("link_click")(called.append)
    await analytics.links.create(key="a", url=SHOP)
    answer = await client.get("/a", headers=headers)

    assert (answer.status_code, answer.headers["location"].startswith(SHOP), answer.content) == (
        302,
        True,
        b"",
    )
    assert (answer.headers["x-goodanalytics"], "set-cookie" in answer.headers) == (
        "dropped; reason=privacy signal",
        False,
    )
    assert (await events(analytics), called) == ([], [])


@pytest.mark.parametrize(
    ("method", "headers", "reason"),
    [
        ("HEAD", {}, "HEAD request"),
        ("GET", {"sec-purpose": "prefetch"}, "prefetch"),
        ("GET", {"purpose": "prefetch"}, "prefetch"),
        ("HEAD", {"user-agent": "Slackbot"}, "preview: Slackbot"),
    ],
)
async def test_who_only_looks_is_recorded_and_does_not_count(
    analytics: Analytics, client: httpx.AsyncClient, method: str, headers: dict[str, str], reason: str
) -> None:
    """Led on without a cookie or a hook; the click says why it is none, and is not taken for a verdict on the browser."""
    called: list[Happened] = []
    analytics.hooks.on("link_click")(called.append)
    await analytics.links.create(key="a", url=SHOP)
    answer = await client.request(method, "/a", headers=headers)
    (event,) = await events(analytics)

    assert (answer.status_code, answer.headers["location"].startswith(SHOP), answer.content) == (
        302,
        True,
        b"",
    )
    assert (answer.headers["x-goodanalytics"], "set-cookie" in answer.headers) == (
        f"accepted; bot={reason}",
        False,
    )
    assert (event["bot"], event["bot_version"] is None) == (reason, "user-agent" not in headers)
    assert called == []


async def test_a_bots_click_is_kept_apart(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """It is led on, and its click says that it is a bot's."""
    await analytics.links.create(key="a", url=SHOP)
    answer = await client.get("/a", headers={"user-agent": "Googlebot/2.1"})
    (event,) = await events(analytics)

    assert answer.status_code == 302
    assert event["bot"] is not None


@pytest.mark.parametrize(
    "query", ["x=%0d%0aSet-Cookie:evil=1", "%0d%0aLocation:https://evil.example=1", "x=%00", "x=é"]
)
async def test_a_query_cannot_write_headers(
    analytics: Analytics, client: httpx.AsyncClient, query: str
) -> None:
    """Whatever is asked with, the answer has one Location of the link's own host, in printable ASCII."""
    await analytics.links.create(key="a", url="https://shop.example/straße")
    answer = await client.get(f"/a?{query}")
    location = answer.headers["location"]

    assert location.startswith("https://shop.example/stra%C3%9Fe?")
    assert location.isascii()
    assert location.isprintable()
    assert "evil" not in answer.headers.get("set-cookie", "")
    assert len(answer.headers.get_list("location")) == 1


# Which host, which link ----------------------------------------------------------------------------------------------


async def test_a_link_domain_is_nothing_but_links(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """Every path of it is a link; the host's pages and our own rooms live elsewhere."""
    await analytics.links.create(domain="go.example", key="ga", url=SHOP)

    assert (await client.get("https://go.example/ga")).status_code == 302
    assert (await client.get("https://go.example/l/ga")).status_code == 404
    assert (await client.get("https://go.example/ga/js/good-analytics.js")).status_code == 404
    assert (await client.get("https://shop.example/ga-page")).text == "the host"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("go.example", "plain"),
        ("GO.example", "plain"),
        ("go.example:8443", "plain"),
        ("x.example:8000", "with port"),
        ("x.example", "the host"),
    ],
)
async def test_a_domain_without_a_port_covers_every_port(
    analytics: Analytics, client: httpx.AsyncClient, host: str, expected: str
) -> None:
    """A domain that is listed with a port is that port's alone."""
    await analytics.links.create(domain="go.example", key="a", url="https://shop.example/plain")
    await analytics.links.create(domain="x.example:8000", key="a", url="https://shop.example/with%20port")
    answer = await client.get("http://127.0.0.1/a", headers={"host": host})

    assert (
        answer.text == expected
        if expected == "the host"
        else expected.replace(" ", "%20") in answer.headers["location"]
    )


async def test_links_live_below_their_path_on_the_apps_own_host(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """`/l/{key}` belongs to the host that was asked; the same key on another host is another link."""
    await analytics.links.create(domain="shop.example", key="a", url="https://shop.example/one")
    await analytics.links.create(domain="blog.example", key="a", url="https://shop.example/two")
    one, two = [await client.get(f"https://{host}.example/l/a") for host in ("shop", "blog")]

    assert "/one?" in one.headers["location"]
    assert "/two?" in two.headers["location"]
    assert (await client.get("https://shop.example/l/b")).status_code == 404
    assert (await client.get("https://shop.example/lamp")).text == "the host"


async def test_another_tenants_link_is_not_ours(
    analytics: Analytics, shared_database_url: str, client: httpx.AsyncClient
) -> None:
    """The host's workspace is the only one that is looked into."""
    await analytics.links.create(domain="go.example", key="theirs", url=SHOP, workspace_id=uuid.uuid4())

    assert (await client.get("/theirs")).status_code == 404


async def test_a_change_takes_effect_when_it_is_told_of(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """Also for a link that did not exist; `test_link_catalogue` has what happens when nobody listens."""
    assert (await client.get("/a")).status_code == 404
    link = await analytics.links.create(key="a", url="https://shop.example/one")
    await told(analytics)
    first = await client.get("/a")
    await analytics.links.update(link, url="https://shop.example/two")
    await told(analytics)

    assert "/one?" in first.headers["location"]
    assert "/two?" in (await client.get("/a")).headers["location"]


# Hooks ---------------------------------------------------------------------------------------------------------------


async def test_hooks_set_cookies(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """Functions and coroutine functions; what they return is set for the server only."""
    await analytics.links.create(key="a", url=SHOP)

    @analytics.hooks.on("link_click")
    def plain(happened: Happened) -> dict[str, str]:
        return {"one": str(happened.hit.link_id)}

    @analytics.hooks.on("link_click")
    async def later(happened: Happened) -> dict[str, object]:
        return {"two": 2, "odd": "a;b\r\nSet-Cookie: evil=1"}

    @analytics.hooks.on("link_click")
    def silent(happened: Happened) -> None:
        return None

    cookies = (await client.get("/a")).headers.get_list("set-cookie")

    assert [c.partition("=")[0] for c in cookies] == ["_ga_anon", "one", "two", "odd"]
    assert all("HttpOnly" in c and "\n" not in c for c in cookies)


@pytest.mark.parametrize(
    ("name", "hook"),
    [
        ("waits for ever", lambda _: asyncio.Event().wait()),
        ("fails", lambda _: 1 / 0),
        ("returns nonsense", lambda _: 5),
        ("names a cookie that is none", lambda _: {"a b;": "x", "": "y"}),
    ],
)
async def test_a_bad_hook_delays_and_breaks_nothing(
    analytics: Analytics, client: httpx.AsyncClient, errors: list[BaseException], name: str, hook: Any
) -> None:
    """The visitor goes on, the click is kept, the good hook's cookie is set, and the host hears of the bad one."""
    await analytics.links.create(key="a", url=SHOP)
    analytics.hooks.on("link_click")(hook)
    analytics.hooks.on("link_click")(lambda _: {"good": "1"})
    async with asyncio.timeout(30):
        answer = await client.get("/a")

    assert (answer.status_code, answer.cookies.get("good")) == (302, "1")
    assert len(await events(analytics)) == 1
    assert bool(errors) == (name != "returns nonsense")


async def test_a_hook_that_blocks_holds_up_nobody(
    analytics: Analytics, client: httpx.AsyncClient, errors: list[BaseException]
) -> None:
    """It is cut off after the budget, in a thread of its own; the loop goes on and the visitor with it."""
    await analytics.links.create(key="a", url=SHOP)
    go_on = threading.Event()
    analytics.hooks.on("link_click")(lambda _: go_on.wait(60))
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*(client.get("/a") for _ in range(3)))
    is_blocked = not go_on.is_set()
    go_on.set()

    assert is_blocked
    assert [answer.status_code for answer in answers] == [302] * 3
    assert [type(error) for error in errors] == [TimeoutError] * 3


# Without a database --------------------------------------------------------------------------------------------------


async def test_a_known_link_leads_on_without_a_database(
    shared_database_url: str, config: Config, clock: FrozenClock, errors: list[BaseException]
) -> None:
    """An old copy is better than no redirect; the click that is lost is reported, with its link."""
    own = dataclasses.replace(config, worker=False, workspace=uuid.uuid4(), link_domains=["go.example"])
    async with Analytics(shared_database_url, own) as analytics, browser(analytics) as client:
        await analytics.links.create(key="a", url=SHOP)
        assert (await client.get("/a")).status_code == 302
        await analytics.log.primary.stop()  # which keeps a connection for a moment, and so does the catalogue
        await analytics._links.catalogue.stop()
        await analytics.database.engine.dispose()
        gone = Database.open("postgresql+asyncpg://nobody@127.0.0.1:9/none", analytics.database.tables)
        object.__setattr__(analytics.database, "engine", gone.engine)
        clock.advance(timedelta(days=1))
        answer, unknown = await client.get("/a"), await client.get("/b")

    assert (answer.status_code, answer.headers["location"].startswith(SHOP)) == (302, True)
    assert unknown.status_code == 503
    assert [type(error) for error in errors] == [DatabaseUnavailable, DatabaseUnavailable]


async def test_a_click_that_cannot_be_kept_does_not_stop_its_visitor(
    analytics: Analytics,
    client: httpx.AsyncClient,
    errors: list[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full log costs a click and no visitor."""
    await analytics.links.create(key="a", url=SHOP)
    monkeypatch.setattr("goodanalytics.log.group_commit.WAITING_ROWS", 0)
    answer = await client.get("/a")

    assert answer.status_code == 302
    assert UUID(httpx.URL(answer.headers["location"]).params["ga_id"])
    assert len(errors) == 1
