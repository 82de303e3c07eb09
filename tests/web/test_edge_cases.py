"""
The edge cases of pages, beacons, clicks, events and visits that the original lists, over HTTP, each under our rule.

`test_case_N_…` are those of original-core.md, section 27: 15 (middleware), 19 to 22 (beacons), 28 (a click and its landing), 36 to 40
(events), 42 to 44 (visits), and what section 28 says of the way between them. Partners, QR codes and link rules are tested where
links are. Where the original did wrong, the docstring says so.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import select
from starlette.types import Receive, Scope, Send

from goodanalytics import Analytics, Config
from goodanalytics.core.hits import EventType, Hit, Signals
from tests.conftest import FrozenClock

BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)
DOCUMENT = {"accept": "text/html", "sec-fetch-dest": "document", "sec-fetch-mode": "navigate"}


async def shop(scope: Scope, _receive: Receive, send: Send) -> None:
    kind = b"text/html" if not scope["path"].startswith("/assets/") else b"text/javascript"
    headers = [(b"content-type", kind), (b"referrer-policy", b"same-origin")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
async def analytics(shared_database_url: str, config: Config) -> AsyncIterator[Analytics]:
    own = dataclasses.replace(
        config, worker=False, rate_limits=None, workspace=uuid.uuid4(), link_domains=["go.example"]
    )
    async with Analytics(shared_database_url, own) as running:
        yield running


@pytest.fixture
async def client(analytics: Analytics) -> AsyncIterator[httpx.AsyncClient]:
    async with a_browser(analytics) as browser:
        yield browser


def a_browser(analytics: Analytics) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(analytics.wrap(shop), client=("203.0.113.7", 1234))
    return httpx.AsyncClient(
        transport=transport, base_url="https://shop.example", headers={"user-agent": BROWSER}
    )


async def beacon(client: httpx.AsyncClient, path: str = "/", **body: Any) -> httpx.Response:
    body = {"url": f"https://shop.example{path}", **body}
    return await client.post("/ga/t/event", content=json.dumps(body).encode())


async def rows(analytics: Analytics, name: str) -> Sequence[Mapping[str, Any]]:
    """The rows of this test's workspace, in the order in which they came."""
    await analytics.drain()
    table = getattr(analytics.database.tables, name)
    order = {"events": "received_at", "sessions": "started_at", "visitors": "first_seen_at"}[name]
    wanted = select(table).where(table.c.workspace_id == analytics.config.workspace).order_by(table.c[order])
    async with analytics.database.connect() as conn:
        return [dict(row._mapping) for row in await conn.execute(wanted)]


# Middleware --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), [("GET", "/assets/app.js"), ("POST", "/")])
async def test_case_15_assets_and_posts_are_untouched(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    """15: nothing is added to what is no document."""
    answer = await client.request(method, path, headers=DOCUMENT)

    assert dict(answer.headers) == {
        "content-type": answer.headers["content-type"],
        "referrer-policy": "same-origin",
    }


async def test_case_15_a_document_gets_a_text_id_and_keeps_its_own_headers(client: httpx.AsyncClient) -> None:
    """15: a tracked GET sets an anonymous id. The original overwrites a stricter referrer-policy; ours leaves the host's headers."""
    answer = await client.get("/", headers=DOCUMENT)

    assert len(answer.cookies["_ga_anon"]) >= 16
    assert answer.headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("written", "is_taken"), [("0190a000-0000-7000-8000-000000000001", True), ("not-a-uuid", False)]
)
async def test_case_15_a_ga_id_is_a_uuid_or_nothing(
    client: httpx.AsyncClient, written: str, is_taken: bool
) -> None:
    """15: a valid UUID is accepted, anything else is none."""
    answer = await client.get("/", params={"ga_id": written}, headers=DOCUMENT)

    assert ("_ga_good" in answer.cookies) == is_taken


async def test_section_28_1_three_pages_are_one_visitor_one_visit_three_pageviews(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """28 #1: the original's beacon reads no cookie, so each pageview is a new visitor. Ours is one."""
    for number in range(3):
        await client.get(f"/{number}", headers=DOCUMENT)
        await beacon(client, f"/{number}", referrer=f"https://shop.example/{number - 1}" if number else None)
    visitors, visits = await rows(analytics, "visitors"), await rows(analytics, "sessions")

    assert [(v["total_pageviews"], v["total_sessions"]) for v in visitors] == [(3, 1)]
    assert [(visit["pageviews"], visit["source"]) for visit in visits] == [(3, "direct")]


# Beacons -----------------------------------------------------------------------------------------------------------------


async def test_case_19_the_bodys_referrer_classifies(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """19: the request's own Referer is the page that sends, and says nothing."""
    headers = {"referer": "https://shop.example/"}
    body = json.dumps({"url": "https://shop.example/", "referrer": "https://www.google.com/"})
    await client.post("/ga/t/event", content=body, headers=headers)
    (event,) = await rows(analytics, "events")

    assert (event["source"], event["channel"]) == ("google", "organic search")


@pytest.mark.parametrize("referrer", ["", None])
async def test_case_19_an_empty_referrer_is_direct(
    analytics: Analytics, client: httpx.AsyncClient, referrer: str | None
) -> None:
    """19: also when the request has a Referer of its own."""
    body = json.dumps({"url": "https://shop.example/", "referrer": referrer})
    await client.post("/ga/t/event", content=body, headers={"referer": "https://www.google.com/"})

    assert [event["channel"] for event in await rows(analytics, "events")] == ["direct"]


async def test_case_19_utm_comes_from_the_bodys_url(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """19: and not from the endpoint's own query."""
    await client.post(
        "/ga/t/event?utm_source=endpoint",
        content=json.dumps({"url": "https://shop.example/?utm_source=page"}),
    )

    assert [event["source"] for event in await rows(analytics, "events")] == ["page"]


async def test_case_20_one_event_id_is_one_event(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """20: accepted and ignored in the original, so a retry counts twice. Here it makes a retry safe; absent is fine."""
    for _ in range(2):
        assert (await beacon(client, event_id="0190a000-0000-7000-8000-000000000002")).status_code == 202
        await beacon(client)

    assert len(await rows(analytics, "events")) == 3


async def test_case_20_an_event_id_of_a_browser_is_never_a_hosts(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """20: what a browser sends never becomes an id that a host's key could become: it would use up the host's order."""
    ann = await analytics.identify(external_id="ann")
    sold = await analytics.sale(ann, amount_cents=100, currency="EUR", key="order-1")
    await beacon(client, event_id=str(sold.event_id))

    assert len({event["id"] for event in await rows(analytics, "events")}) == 3


async def test_case_20_a_long_anonymous_id_does_not_cost_the_event(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """20: 200 characters are too many; the event is kept, and the same browser is the same visitor again."""
    for _ in range(2):
        assert (await beacon(client, anonymous_id="x" * 200)).status_code == 202

    assert [v["total_pageviews"] for v in await rows(analytics, "visitors")] == [2]


async def test_case_20_a_custom_event_keeps_name_and_properties(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """20: a name of 200 characters is null in the original; ours is cut, so that it can be counted."""
    await beacon(client, event_type="custom", event_name="Signed up", properties={"plan": "pro", "seats": 3})
    await beacon(client, event_type="custom", event_name="n" * 200)
    named, long = await rows(analytics, "events")

    assert (named["event_name"], named["properties"]) == ("Signed up", {"plan": "pro", "seats": 3})
    assert long["event_name"] == "n" * 100


async def test_case_21_attention_and_depth_reach_the_living_visit(
    analytics: Analytics, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    """21: top-level engaged_ms and scroll_depth are stored, and the visit counts them; half an hour is the most."""
    await beacon(client)
    for engaged in (1_500, 9_999_999_999):
        clock.advance(timedelta(seconds=20))
        await beacon(client, event_type="engagement", engaged_ms=engaged, scroll_depth=70)
    events, (visit,) = await rows(analytics, "events"), await rows(analytics, "sessions")

    assert [(e["engaged_ms"], e["scroll_depth"]) for e in events[1:]] == [(1_500, 70), (1_800_000, 70)]
    assert (visit["engaged_ms"], visit["events"], visit["is_bounce"]) == (1_801_500, 1, True)


async def test_case_21_a_ping_of_an_unknown_browser_is_no_visit(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """21: it opens no visit and counts for nothing; the browser's row waits for its first page."""
    await beacon(client, event_type="engagement", engaged_ms=5_000)
    (visitor,) = await rows(analytics, "visitors")

    assert await rows(analytics, "sessions") == []
    assert (visitor["total_pageviews"], visitor["total_events"], visitor["total_sessions"]) == (0, 0, 0)


async def test_case_22_a_click_from_a_page(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """22: the answer has the click's id; an unknown key is 404. In the original the pages after it do not find its visitor."""
    await analytics.links.create(domain="shop.example", key="ann", url="https://shop.example/")
    answer = await client.post(
        "/ga/t/click", json={"key": "ann", "url": "https://shop.example/?via=ann", "referrer": None}
    )
    ga_id = answer.json()["ga_id"]
    await beacon(client, ga_id=ga_id)

    assert (await client.post("/ga/t/click", json={"key": "nobody"})).status_code == 404
    assert str(uuid.UUID(ga_id)) == ga_id
    assert [(v["total_events"], v["total_sessions"]) for v in await rows(analytics, "visitors")] == [(2, 1)]


# Redirect and landing ----------------------------------------------------------------------------------------------------


async def test_case_28_a_click_and_its_landing_are_one_visitor_and_one_visit(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """28 and section 28 #15: 302 with the click's id; event and visitor exist. The original makes two visits of each campaign click."""
    await analytics.links.create(
        domain="go.example", key="a", url="https://shop.example/", utm_source="news", utm_medium="email"
    )
    redirected = await client.get("https://go.example/a", headers=DOCUMENT)
    landed_at = httpx.URL(redirected.headers["location"])
    landed = await client.get(landed_at, headers=DOCUMENT)
    await beacon(client, "/?utm_source=news&utm_medium=email", ga_id=landed_at.params["ga_id"])
    click, page = await rows(analytics, "events")
    (visit,) = await rows(analytics, "sessions")

    assert (redirected.status_code, "_ga_good" in landed.cookies) == (302, True)
    assert (click["event_type"], str(click["id"])) == ("link_click", landed_at.params["ga_id"])
    assert click["source"] == page["source"] == visit["source"] == "news"
    assert (visit["pageviews"], visit["link_id"], visit["is_bounce"]) == (1, click["link_id"], True)


async def test_case_28_the_same_address_again_is_a_click_of_its_own(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """28, 35: the original drops the second click of one address within an hour. Ours keeps every click; uniques are counted by person."""
    await analytics.links.create(domain="go.example", key="a", url="https://shop.example/")
    for _ in range(2):
        assert (await client.get("https://go.example/a", headers=DOCUMENT)).status_code == 302

    assert len(await rows(analytics, "events")) == 2


# Events ------------------------------------------------------------------------------------------------------------------


async def test_case_36_an_unknown_type_is_refused_and_opens_no_visit(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """36: 400 that names the field; no event, no visit."""
    answer = await beacon(client, event_type="teleport")

    assert (answer.status_code, [e["where"] for e in answer.json()["errors"]]) == (400, ["event_type"])
    assert await rows(analytics, "sessions") == []


async def test_case_36_an_event_has_its_workspace_visitor_and_source(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """36: id, workspace, visitor, and the source as columns."""
    await beacon(client, referrer="https://www.google.com/")
    ((event,), (visitor,)) = await rows(analytics, "events"), await rows(analytics, "visitors")

    assert (event["workspace_id"], event["visitor_id"]) == (analytics.config.workspace, visitor["id"])
    assert (event["source"], event["medium"], event["channel"]) == ("google", "organic", "organic search")


async def test_case_38_the_first_device_stays_the_visitors(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """38: each event has its own device; the visitor keeps the first."""
    phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
    await beacon(client, anonymous_id="a")
    await client.post("/ga/t/event", content=b'{"anonymous_id": "a"}', headers={"user-agent": phone})
    events, (visitor,) = await rows(analytics, "events"), await rows(analytics, "visitors")

    assert sorted(event["device_type"] for event in events) == ["desktop", "smartphone"]
    assert visitor["device"]["type"] == "desktop"


async def test_case_39_two_events_of_one_id_are_one_whatever_their_time(analytics: Analytics) -> None:
    """39: two rows in the original; an id is one event here, for as long as receipts are kept."""
    hit = Hit(
        id=uuid.uuid4(), workspace_id=analytics.config.workspace, received_at=analytics.config.clock(),
        occurred_at=analytics.config.clock(), event_type=EventType.PAGEVIEW, origin="browser",
        signals=Signals(anonymous_id="a"),
    )  # fmt: skip
    again = msgspec.structs.replace(hit, occurred_at=hit.occurred_at + timedelta(hours=1))
    outcomes = [(await analytics.ingest.now([one]))[0].status for one in (hit, again)]

    assert outcomes == ["recorded", "repeated"]


# Visits ------------------------------------------------------------------------------------------------------------------


async def test_case_42_the_first_event_counts_one_visit_and_silence_another(
    analytics: Analytics, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    """42: total_sessions is 1; 20 minutes later it still is, after 31 more it is 2."""
    counts = []
    for minutes in (0, 20, 31):
        clock.advance(timedelta(minutes=minutes))
        await beacon(client)
        counts.append((await rows(analytics, "visitors"))[0]["total_sessions"])

    assert counts == [1, 1, 2]


async def test_case_43_eight_first_events_at_once_are_one_visit(analytics: Analytics) -> None:
    """43: eight processes that take eight first events of one browser at once make one visitor with one visit."""
    now = analytics.config.clock()
    hits = [
        Hit(
            id=uuid.uuid4(), workspace_id=analytics.config.workspace, received_at=now, occurred_at=now,
            event_type=EventType.PAGEVIEW, origin="browser", signals=Signals(anonymous_id="a"),
        )
        for _ in range(8)
    ]  # fmt: skip
    await asyncio.gather(*(analytics.ingest.now([hit]) for hit in hits))

    assert [v["total_pageviews"] for v in await rows(analytics, "visitors")] == [8]
    assert [visit["pageviews"] for visit in await rows(analytics, "sessions")] == [8]


async def test_case_43_a_blank_anonymous_id_never_matches(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """43: blanks are no browser: each of these gets a cookie of its own."""
    for _ in range(2):
        await beacon(client, anonymous_id="   ")
        client.cookies.clear()

    assert len(await rows(analytics, "visitors")) == 2
