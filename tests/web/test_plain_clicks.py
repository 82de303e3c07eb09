"""The short way of a plain click: it must log and answer exactly what the long way does, and leave everything else to it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, select
from starlette.types import Receive, Scope, Send

from goodanalytics import Analytics, Config
from goodanalytics.core import raw
from goodanalytics.core.hits import Hit
from goodanalytics.core.limits import RateLimits
from goodanalytics.core.link_conditions import Rule, Variant, When
from goodanalytics.core.links import Link
from goodanalytics.core.routing import prepare
from goodanalytics.web.links.plain_links import plain_link
from tests.conftest import FrozenClock
from tests.web.link_site import IPHONE, SHOP, SLACK, make, page, site

CLICK = uuid.UUID("0197a0aa-7f41-7c4c-8a2e-00000000c11c")
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
CHROME = {
    "user-agent": "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    "accept-language": "de-DE,de;q=0.9,en;q=0.8",
    "sec-ch-ua": '"Chromium";v="141", "Not?A_Brand";v="8"',
    "sec-ch-ua-mobile": "?0",
    "sec-ch-ua-platform": '"Windows"',
    "cookie": "theme=dark; _ga_anon=a-browser-of-22-letter",
    "referer": "https://www.google.com/",
}


class LongWay:
    """Stands before the redirect's long way and remembers that it was gone."""

    def __init__(self, redirect: Any) -> None:
        self.times = 0
        self._real = redirect._at_length

    async def __call__(self, scope: Scope, receive: Receive, send: Send, *, is_counted: bool = False) -> None:
        self.times += 1
        await self._real(scope, receive, send, is_counted=is_counted)


@pytest.fixture
async def analytics(shared_database_url: str, config: Config) -> AsyncIterator[Analytics]:
    """Running without its worker, behind a proxy that names the country; every click and new browser has the same id."""
    settings: dict[str, Any] = {
        "trusted_proxies": ["10.0.0.0/8"],
        "geo_headers": ["cf-ipcountry"],
        "own_hosts": ["*.shop.example"],
        "new_token": lambda: "a-new-browser",
    }
    async with site(shared_database_url, config, **settings) as running:
        running._links._plain._new_id = lambda: CLICK
        yield running
        await logged(running)


@pytest.fixture
def long_way(analytics: Analytics) -> LongWay:
    redirect: Any = analytics._links
    redirect._at_length = LongWay(redirect)
    return redirect._at_length  # type: ignore[no-any-return]  # set in the line before


async def ask(analytics: Analytics, method: str = "GET", path: str = "/a", **headers: Any) -> httpx.Response:
    transport = httpx.ASGITransport(analytics.wrap(page), client=("10.0.0.1", 1234))
    given = {**CHROME, **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with httpx.AsyncClient(transport=transport, base_url="http://go.example") as client:
        client.headers.clear()
        return await client.request(
            method,
            path,
            headers={name: value.encode("latin-1") for name, value in given.items() if value is not None},
        )


async def logged(analytics: Analytics) -> list[Hit | None]:
    """What lies in the log of this workspace; takes it out."""
    t = analytics.database.tables.hits
    async with analytics.database.begin() as conn:
        found = [(row.id, raw.decoded(row.body)) for row in await conn.execute(select(t).order_by(t.c.id))]
        mine = {entry: hit for entry, hit in found if hit and hit.workspace_id == analytics.config.workspace}
        await conn.execute(delete(t).where(t.c.id.in_(mine)))
    return list(mine.values())


PLAIN = [
    pytest.param({}, {}, id="as browsers send it"),
    pytest.param({"cookie": None}, {}, id="a browser's first visit"),
    pytest.param({"cookie": "theme=dark"}, {}, id="a browser with cookies of others"),
    pytest.param({"cookie": "theme=dark; _ga_anon=kVJz0Y3pQmC2hX7n9bLwEg.20758"}, {}, id="a cookie of today"),
    pytest.param({"cookie": "_fbp=fb.1.1.1; _ga_anon=abc.20758"}, {}, id="a cookie of today beside others"),
    pytest.param({"cookie": "_ga_anon=kVJz0Y3pQmC2hX7n9bLwEg.20757"}, {}, id="a cookie of yesterday"),
    pytest.param({"cookie": "_ga_anon=a,b(c)"}, {}, id="a cookie that is to be quoted"),
    pytest.param({"cookie": '_ga_anon="a b"'}, {}, id="a quoted cookie"),
    pytest.param({"cookie": "_ga_anon=null"}, {}, id="a cookie that names nobody"),
    pytest.param({"cookie": "x=" + "y" * 4_096 + "; _ga_anon=abc; _ga_anon=d"}, {}, id="many cookies"),
    pytest.param({"x_forwarded_for": "203.0.113.9, 10.1.1.1"}, {}, id="behind a proxy"),
    pytest.param({"x_forwarded_proto": "https"}, {}, id="by https to the proxy"),
    pytest.param({"x_forwarded_proto": "https", "cookie": None}, {}, id="the first visit by https"),
    pytest.param({"cf_ipcountry": "nl"}, {}, id="with a country"),
    pytest.param({"cf_ipcountry": "XX"}, {}, id="with a country that is none"),
    pytest.param(
        {"accept_language": None, "sec_ch_ua": None}, {}, id="with neither a language nor hints to believe"
    ),
    pytest.param({"user_agent": IPHONE + " " + "x" * 500, "sec_ch_ua": "y" * 300}, {}, id="what is cut"),
    pytest.param({"referer": None}, {}, id="without a referrer"),
    pytest.param({"referer": None}, {"utm_source": "News", "utm_medium": "email"}, id="a link with a source"),
    pytest.param({"referer": "https://my.shop.example/"}, {}, id="from a page of ours"),
    pytest.param({"referer": "\thttps://t.co/\x7f\xe9?utm_source=x "}, {}, id="an untidy referrer"),
    pytest.param({"host": "GO.example:8000"}, {}, id="a host in capitals with a port"),
    pytest.param(
        {}, {"url": "https://bücher.example/ä?x=1&ga_id=2#teil-ä", "utm_term": "ä&b"}, id="a rich address"
    ),
    pytest.param({}, {"redirect_status": 308, "indexed": True, "forward_query": False}, id="other settings"),
    pytest.param({}, {"og_title": "Lamps"}, id="a card, which people do not see"),
    pytest.param(
        {},
        {
            "starts_at": datetime(2020, 1, 1, tzinfo=UTC),
            "expires_at": datetime(2999, 1, 1, tzinfo=UTC),
            "expired_url": SHOP,
        },
        id="in its time",
    ),
]


@pytest.mark.parametrize(("headers", "fields"), PLAIN)
async def test_the_short_way_does_what_the_long_way_does(
    analytics: Analytics,
    long_way: LongWay,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, Any],
    fields: dict[str, Any],
) -> None:
    """The same hit and the same answer, to the last member and header; also where the link was not in memory."""
    await make(analytics, **fields)
    cold, warm = await ask(analytics, **headers), await ask(analytics, **headers)
    assert long_way.times == 0
    one = await logged(analytics)
    monkeypatch.setattr(analytics._links._plain, "_is_ours", False)
    object.__setattr__(analytics.config, "new_id", lambda: CLICK)
    long = await ask(analytics, **headers)
    assert long_way.times == 1

    assert (cold.status_code, dict(cold.headers)) == (long.status_code, dict(long.headers))
    assert (warm.status_code, dict(warm.headers)) == (long.status_code, dict(long.headers))
    assert long.headers["x-goodanalytics"] == "accepted"
    assert str(CLICK) in long.headers["location"]
    assert one == (await logged(analytics)) * 2
    assert len(one) == 2


LONGER = [
    pytest.param({"user_agent": "Googlebot/2.1"}, {}, 302, id="a bot"),
    pytest.param({"user_agent": SLACK}, {"og_title": "Lamps"}, 200, id="a preview"),
    pytest.param({"user_agent": None}, {}, 302, id="nobody"),
    pytest.param({"sec_purpose": "prefetch"}, {}, 302, id="a prefetch"),
    pytest.param({"sec_gpc": "1"}, {}, 302, id="a privacy signal"),
    pytest.param({"dnt": "0"}, {}, 302, id="a privacy header that says no"),
    pytest.param({"cookie": "_ga_anon=abc; _ga_ignore=1"}, {}, 302, id="an own visit"),
    pytest.param({"referer": "https://t.co/" + "x" * 1_100}, {}, 302, id="a long referrer"),
    pytest.param({"user_agent": IPHONE + "x" * 1_100}, {}, 302, id="a long user agent"),
    pytest.param({"x_forwarded_for": "203.0.113.9, " * 90}, {}, 302, id="many proxies"),
    pytest.param({"x_forwarded_proto": "https, http"}, {}, 302, id="two proxies' schemes"),
    pytest.param({}, {"rules": [Rule(url=SHOP, when=When(countries=["NL"]))]}, 302, id="a rule"),
    pytest.param({}, {"ios_url": SHOP}, 302, id="an address for iOS"),
    pytest.param({}, {"password": "s3cret-words"}, 200, id="a password"),
    pytest.param({}, {"max_clicks": 5}, 302, id="a number of uses"),
    pytest.param({}, {"starts_at": datetime(2999, 1, 1, tzinfo=UTC)}, 404, id="before its time"),
]


@pytest.mark.parametrize(("headers", "fields", "status"), LONGER)
async def test_what_is_out_of_the_ordinary_goes_the_long_way(
    analytics: Analytics,
    long_way: LongWay,
    headers: dict[str, Any],
    fields: dict[str, Any],
    status: int,
) -> None:
    """Whatever takes more than to be led on and noted, in the request or in the link."""
    await make(analytics, **fields)
    answers = [await ask(analytics, **headers) for _ in range(2)]

    assert ([a.status_code for a in answers], long_way.times) == ([status, status], 2)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/a", 302),
        ("POST", "/a", 405),
        ("GET", "/a?qr=1", 302),
        ("GET", "/a+", 200),
        ("GET", "/b", 404),
    ],
)
async def test_other_requests_go_the_long_way(
    analytics: Analytics, long_way: LongWay, method: str, path: str, status: int
) -> None:
    """Other methods, queries, what stands behind a key, and keys that no link has."""
    await make(analytics)
    answers = [await ask(analytics, method, path) for _ in range(2)]

    assert ([a.status_code for a in answers], long_way.times) == ([status, status], 2)


@pytest.mark.parametrize(
    "fields",
    [
        {"partner_id": CLICK},
        {"cloaked": True},
        {"variants": [Variant(name="a", url=SHOP, weight=1)]},
        {"android_url": SHOP},
        {"password_hash": "x"},
        {"max_clicks": 1},
        {"starts_at": NOW + timedelta(seconds=1)},
        {"url": "mailto:a@shop.example"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_which_links_are_not_plain(fields: dict[str, Any]) -> None:
    """Those that do not lead everybody to one address, or of which more has to be said than that somebody clicked."""
    plain = {"id": CLICK, "workspace_id": CLICK, "domain": "go.example", "key": "a", "url": SHOP}
    link = Link(**{**plain, "created_at": NOW, "updated_at": NOW, **fields})

    assert plain_link(prepare(link), (), NOW) is None


async def test_a_link_that_ends_is_no_longer_plain(
    analytics: Analytics, long_way: LongWay, clock: FrozenClock
) -> None:
    """At its very end, although its copy in memory is fresh."""
    await make(analytics, expires_at=clock() + timedelta(milliseconds=1))
    before = await ask(analytics)
    clock.advance(timedelta(milliseconds=1))
    after = await ask(analytics)

    assert (before.status_code, after.status_code, long_way.times) == (302, 410, 1)


async def test_a_hook_that_waits_sees_every_click(analytics: Analytics, long_way: LongWay) -> None:
    """It may set a cookie, so the answer waits for it."""
    await make(analytics)
    analytics.hooks.on("link_click")(lambda happened: {"seen": str(happened.hit.link_id)})
    answer = await ask(analytics)

    assert (long_way.times, "seen=" in ", ".join(answer.headers.get_list("set-cookie"))) == (1, True)


@pytest.mark.parametrize("path", ["/a", "/b"], ids=["a link", "no link"])
async def test_a_request_is_counted_once(shared_database_url: str, config: Config, path: str) -> None:
    """Whichever way it goes, and whatever it asks for; the one beyond the limit gets its 429."""
    limits = RateLimits(redirects=0.001, burst=3)
    async with site(
        shared_database_url, config, rate_limits=limits, trusted_proxies=["10.0.0.0/8"]
    ) as analytics:
        await make(analytics)
        found = [
            (await ask(analytics, path=path, x_forwarded_for="203.0.113.9")).status_code for _ in range(5)
        ]

    assert found == [302 if path == "/a" else 404] * 3 + [429] * 2


@pytest.mark.parametrize(("path", "long_ways"), [("/a", 0), ("/a?via=ann", 1)], ids=["short way", "long way"])
async def test_a_click_that_cannot_be_kept_says_so(
    analytics: Analytics,
    long_way: LongWay,
    monkeypatch: pytest.MonkeyPatch,
    errors: list[BaseException],
    path: str,
    long_ways: int,
) -> None:
    """Its visitor goes on, and the host hears of it."""
    await make(analytics)
    monkeypatch.setattr("goodanalytics.log.group_commit.WAITING_ROWS", 0)
    answer = await ask(analytics, path=path)

    assert (answer.status_code, answer.headers.get_list("x-goodanalytics"), len(errors)) == (
        302,
        ["dropped; reason=not safe"],
        1,
    )
    assert (long_way.times, await logged(analytics)) == (long_ways, [])


async def test_of_cookies_only_the_browsers_own_id_is_kept(analytics: Analytics) -> None:
    """The host's session never gets into the log."""
    await make(analytics)
    await ask(analytics, cookie="session=s3cret; _ga_anon=abc; csrf=t0ken")
    t = analytics.database.tables.hits
    async with analytics.database.connect() as conn:
        bodies = b"".join([row.body for row in await conn.execute(select(t.c.body))])

    assert b"abc" in bodies
    assert not any(secret in bodies for secret in (b"s3cret", b"t0ken", b"session", b"csrf"))
