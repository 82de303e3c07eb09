"""What a request says of consent goes into the log with the hit that is made of it, whichever way it comes."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import AsyncIterator, Mapping
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from starlette.types import Receive, Scope, Send

from goodanalytics import Analytics, Config
from goodanalytics.core import raw
from goodanalytics.core.consent import DENIED, GRANTED, Consent
from goodanalytics.core.hits import EventType
from goodanalytics.store.reclassify import reclassify

CHROME = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)
BROWSER = {"user-agent": CHROME, "cookie": "_ga_anon=abc"}
YES = {"cookie": "_ga_anon=abc; ads=granted"}

WAYS = [
    pytest.param(EventType.PAGEVIEW, "POST", "/ga/t/event", id="beacon"),
    pytest.param(EventType.PAGEVIEW, "GET", "/ga/t/pixel.gif?url=https://shop.example/", id="pixel"),
    pytest.param(EventType.LINK_CLICK, "POST", "/ga/t/click", id="click"),
    pytest.param(EventType.LINK_CLICK, "GET", "/r/a", id="link"),
]


def asked(scope: Mapping[str, Any]) -> Consent | None:
    """What the visitor clicked on the host's banner, kept in a cookie of the host's."""
    cookies = SimpleCookie(dict(scope["headers"]).get(b"cookie", b"").decode())
    if "ads" not in cookies:
        return None
    return {"granted": GRANTED, "denied": DENIED}[cookies["ads"].value]


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("the tracker's paths are not the host's")


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"consent": asked}


@pytest.fixture
async def analytics(
    shared_database_url: str, config: Config, settings: dict[str, Any]
) -> AsyncIterator[Analytics]:
    """Running without its worker, in a workspace of this test's own, with a link that leads to the shop."""
    base = {"worker": False, "workspace": uuid.uuid4(), "respect_privacy_signals": False, "link_path": "/r"}
    async with Analytics(shared_database_url, dataclasses.replace(config, **(base | settings))) as running:
        await running.links.create(key="a", url="https://shop.example/", domain="shop.example")
        yield running
        await running.drain()


async def logged(analytics: Analytics, method: str, path: str, headers: Mapping[str, str]) -> list[Any]:
    """The hits that this request leaves in the log: what each is, and what it says of consent."""
    transport = httpx.ASGITransport(analytics.wrap(page))
    async with httpx.AsyncClient(transport=transport, base_url="https://shop.example") as client:
        body = {"event_id": str(uuid.uuid4())} | ({"key": "a"} if path.endswith("click") else {})
        sent = body if method == "POST" else None
        answer = await client.request(method, path, json=sent, headers=BROWSER | headers)
    assert answer.status_code < 400, answer.text
    t = analytics.database.tables.hits
    async with analytics.database.connect() as conn:
        found = [raw.decoded(row.body) for row in await conn.execute(select(t).order_by(t.c.id))]
    return [
        (hit.event_type, hit.consent)
        for hit in found
        if hit and hit.workspace_id == analytics.config.workspace
    ]


@pytest.mark.parametrize(("event_type", "method", "path"), WAYS)
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({}, None, id="nobody asked"),
        pytest.param(YES, GRANTED, id="yes"),
        pytest.param({"cookie": "_ga_anon=abc; ads=denied"}, DENIED, id="no"),
        pytest.param(YES | {"sec-gpc": "1"}, DENIED, id="yes, and the browser says no"),
    ],
)
async def test_a_hit_carries_the_consent_of_its_request(
    analytics: Analytics,
    event_type: EventType,
    method: str,
    path: str,
    headers: dict[str, str],
    expected: Consent | None,
) -> None:
    """The host reads its own cookie; `Sec-GPC: 1` goes before it."""
    assert await logged(analytics, method, path, headers) == [(event_type, expected)]


@pytest.mark.parametrize("settings", [{}], ids=["no function"])
@pytest.mark.parametrize(("event_type", "method", "path"), WAYS)
async def test_the_browsers_own_word_is_kept_without_any_function(
    analytics: Analytics, event_type: EventType, method: str, path: str
) -> None:
    """Also where `respect_privacy_signals` is off, and on the short way of plain beacons."""
    assert await logged(analytics, method, path, {"sec-gpc": "1"}) == [(event_type, DENIED)]


@pytest.mark.parametrize(
    "settings", [{"respect_privacy_signals": True, "consent": asked}], ids=["signals are respected"]
)
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(YES, DENIED, id="whatever the host's banner says"),
        pytest.param({"sec-gpc": "1"}, DENIED, id="a browser that is not followed"),
        pytest.param({"cookie": "_ga_anon=abc; _ga_ignore=1"}, None, id="one of the site's own people"),
        pytest.param({"cookie": "other=1"}, None, id="nobody that we know"),
    ],
)
async def test_a_browser_that_says_no_is_taken_at_its_word(
    analytics: Analytics, headers: dict[str, str], expected: Consent | None
) -> None:
    """`POST /t/deny` leaves an answer and nothing else; where nobody is known, nothing."""
    found = await logged(analytics, "POST", "/ga/t/deny", headers)

    assert found == ([] if expected is None else [(EventType.ENGAGEMENT, expected)])


async def test_a_no_does_not_make_a_bot_of_anybody(analytics: Analytics) -> None:
    """It carries no user agent, and whoever judges history anew must not take that for a machine's."""
    for path in ("/ga/t/event", "/ga/t/deny"):
        await logged(analytics, "POST", path, {})
    await analytics.drain()
    async for _ in reclassify(analytics.database, analytics.config):
        pass
    e = analytics.database.tables.events.c
    async with analytics.database.connect() as conn:
        found = (
            await conn.execute(
                select(e.event_type, e.bot)
                .where(e.workspace_id == analytics.config.workspace)
                .order_by(e.received_at)
            )
        ).all()

    assert [tuple(row) for row in found] == [("pageview", None), ("engagement", None)]


async def test_a_function_that_fails_says_nothing_and_loses_no_hit(
    analytics: Analytics, errors: list[BaseException]
) -> None:
    """The host hears of it; nobody is taken to have agreed."""
    found = await logged(analytics, "POST", "/ga/t/event", {"cookie": "_ga_anon=abc; ads=perhaps"})

    assert found == [(EventType.PAGEVIEW, None)]
    assert [type(error) for error in errors] == [KeyError]
