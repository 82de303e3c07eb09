"""The short way of a plain beacon: it must log exactly what the long way logs, and leave everything else to it."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, select
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from goodanalytics import Analytics, Config
from goodanalytics.core import raw
from goodanalytics.core.hits import Hit

CHROME = {
    "user-agent": "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    "accept-language": "de-DE,de;q=0.9,en;q=0.8",
    "sec-ch-ua": '"Chromium";v="141", "Not?A_Brand";v="8"',
    "sec-ch-ua-mobile": "?0",
    "sec-ch-ua-platform": '"Windows"',
    "origin": "https://shop.example",
    "cookie": "theme=dark; _ga_anon=a-browser-of-22-letter",
}
BODY = {
    "event_id": "0197a0aa-7f41-7c4c-8a2e-0123456789ab",
    "event_type": "pageview",
    "url": "https://shop.example/spades?utm_source=letter",
    "title": "Spades",
    "properties": {"theme": "dark", "column": 3, "is wide": True, "ratio": 0.5, "none": None},
}
CLICK = "0197a0aa-7f41-7c4c-8a2e-00000000c11c"


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("a beacon is not the host's")


class LongWay:
    """Stands before the tracker's long way and remembers that it was gone."""

    def __init__(self, tracker: Any) -> None:
        self.times = 0
        self._tracker = tracker

    async def at_length(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.times += 1
        await self._tracker.at_length(scope, receive, send)

    def not_safe(self, error: Exception) -> Any:
        return self._tracker.not_safe(error)


@pytest.fixture
async def analytics(shared_database_url: str, config: Config) -> AsyncIterator[Analytics]:
    """Running without its worker, in a workspace of this test's own, behind a proxy that names the country."""
    own = dataclasses.replace(
        config,
        worker=False,
        workspace=uuid.uuid4(),
        trusted_proxies=["10.0.0.0/8"],
        geo_headers=["cf-ipcountry"],
        own_hosts=["*.shop.example"],
    )
    async with Analytics(shared_database_url, own) as running:
        yield running
        await logged(running)


@pytest.fixture
def long_way(analytics: Analytics) -> LongWay:
    beacons: Any = analytics.tracker.event  # type: ignore[attr-defined]  # ASGI apps have no attributes
    beacons._longer = LongWay(analytics.tracker)
    return beacons._longer  # type: ignore[no-any-return]  # set in the line before


async def post(
    analytics: Analytics,
    body: object = None,
    query: str = "",
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    **headers: str | None,
) -> httpx.Response:
    transport = httpx.ASGITransport(around(analytics.wrap(page)), client=("10.0.0.1", 1234))
    given = {**CHROME, **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with httpx.AsyncClient(transport=transport, base_url="https://shop.example") as client:
        client.headers.clear()
        return await client.post(
            f"/ga/t/event{query}",
            content=body if isinstance(body, bytes) else json.dumps(BODY if body is None else body).encode(),
            headers={name: value for name, value in given.items() if value is not None},
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
    pytest.param({}, BODY, id="as browsers send it"),
    pytest.param({"x_forwarded_for": "203.0.113.9, 10.1.1.1"}, BODY, id="behind a proxy"),
    pytest.param({"cf_ipcountry": "NL"}, BODY, id="with a country"),
    pytest.param({"origin": None, "accept_language": None}, BODY, id="without a word about itself"),
    pytest.param({"user_agent": "Mozilla/5.0 " + "x" * 900}, BODY, id="with a long user agent"),
    pytest.param({"sec_ch_ua": "y" * 900, "sec_ch_ua_model": '"Pixel 9"'}, BODY, id="with a long hint"),
    pytest.param({"sec_ch_ua": None}, BODY, id="without hints"),
    pytest.param(
        {"cookie": f"_ga_anon=abc; _ga_good={CLICK}; _fbp=fb.1.2.3; _ttp=t"}, BODY, id="with pixels"
    ),
    pytest.param(
        {"cookie": "_ga_good=nonsense; _ga_anon=abc; _fbc=<x>"}, BODY, id="with nonsense in cookies"
    ),
    pytest.param({}, {**BODY, "ga_id": CLICK, "anonymous_id": "from-the-body"}, id="with ids in the body"),
    pytest.param({}, {**BODY, "anonymous_id": "null", "_fbp": "fb.9.9.9"}, id="with a placeholder"),
    pytest.param(
        {}, {**BODY, "event_type": "custom", "event_name": "Spade\u0000 bought\n"}, id="an event of its own"
    ),
    pytest.param(
        {},
        {**BODY, "event_type": "engagement", "engaged_ms": 12_345.6, "scroll_depth": 80, "properties": None},
        id="engagement",
    ),
    pytest.param(
        {},
        {**BODY, "screen": "1280x720", "language": "fr", "timezone": "Europe/Paris", "touch_points": 5},
        id="with the machine's facts",
    ),
    pytest.param({}, {**BODY, "screen": "wide", "title": "x" * 9_000, "url": ""}, id="what is cut"),
    pytest.param({}, {"event_id": str(uuid.UUID(int=1 << 64, version=5))}, id="an id like a host's key"),
]


@pytest.mark.parametrize(("headers", "body"), PLAIN)
async def test_the_short_way_logs_what_the_long_way_logs(
    analytics: Analytics, long_way: LongWay, headers: dict[str, str | None], body: object
) -> None:
    """The same hit, to the last member, with the same answer."""
    short = await post(analytics, body, **headers)
    assert long_way.times == 0
    one = await logged(analytics)
    analytics.tracker.event._is_simple = False  # type: ignore[attr-defined]  # ASGI apps have no attributes
    long = await post(analytics, body, **headers)
    assert long_way.times == 1

    assert (short.status_code, short.headers["x-goodanalytics"], short.content) == (202, "accepted", b"")
    assert (long.status_code, long.headers["x-goodanalytics"], long.content) == (202, "accepted", b"")
    assert one == await logged(analytics)
    assert len(one) == 1


LONGER = [
    pytest.param({"cookie": "theme=dark"}, BODY, "", 202, "accepted", id="a browser without our cookie"),
    pytest.param({"cookie": "_ga_anon=null"}, BODY, "", 202, "accepted", id="a cookie that names nobody"),
    pytest.param({"cookie": '_ga_anon="a b"'}, BODY, "", 202, "accepted", id="a quoted cookie"),
    pytest.param({"cookie": '_ga_anon=abc; _fbp="x"'}, BODY, "", 202, "accepted", id="a quoted pixel"),
    pytest.param(
        {"cookie": "_ga_anon=abc; _ga_anon=abd"}, BODY, "", 202, "accepted", id="two of our cookies"
    ),
    pytest.param({"origin": "https://" + "x" * 600}, BODY, "", 202, "accepted", id="a very long origin"),
    pytest.param(
        {"cookie": "_ga_anon=abc; _ga_ignore=1"},
        BODY,
        "",
        202,
        "dropped; reason=own visit",
        id="an own visit",
    ),
    pytest.param({"user_agent": "Googlebot/2.1"}, BODY, "", 202, "accepted; bot=", id="a bot"),
    pytest.param({"sec_gpc": "1"}, BODY, "", 202, "dropped; reason=privacy signal", id="a privacy signal"),
    pytest.param({"dnt": "0"}, BODY, "", 202, "accepted", id="a privacy header that says no"),
    pytest.param({"sec_purpose": "prefetch"}, BODY, "", 202, "dropped; reason=prefetch", id="a prefetch"),
    pytest.param({"origin": "https://my.shop.example"}, BODY, "", 202, "accepted", id="another site of ours"),
    pytest.param({}, BODY, f"?ga_id={CLICK}", 202, "accepted", id="a query"),
    pytest.param({}, [BODY], "", 202, "accepted", id="a list"),
    pytest.param({}, {**BODY, "event_id": None}, "", 202, "accepted", id="no id"),
    pytest.param({}, {**BODY, "event_type": "lead"}, "", 202, "accepted", id="a claim about money"),
    pytest.param({}, {**BODY, "event_type": "identify", "email": "a@b.c"}, "", 202, "accepted", id="a name"),
    pytest.param({}, {**BODY, "title": "\ud83d"}, "", 202, "accepted", id="half an emoji"),
    pytest.param({}, {**BODY, "properties": {" ": 1}}, "", 400, None, id="a property without a name"),
    pytest.param({}, {**BODY, "properties": {"a": [1]}}, "", 400, None, id="a list as a property"),
    pytest.param({}, {**BODY, "title": 5}, "", 400, None, id="a number as a title"),
    pytest.param({}, {**BODY, "scroll_depth": 101}, "", 400, None, id="deeper than the page"),
    pytest.param({}, b"{", "", 400, None, id="half a body"),
    pytest.param({}, b'{"title":"' + b"x" * 70_000 + b'"}', "", 400, None, id="too much"),
]


@pytest.mark.parametrize(("headers", "body", "query", "status", "said"), LONGER)
async def test_what_is_out_of_the_ordinary_is_answered_at_length(
    analytics: Analytics,
    long_way: LongWay,
    headers: dict[str, str | None],
    body: object,
    query: str,
    status: int,
    said: str | None,
) -> None:
    """It gets the words that the tracker has for it, and its body is read from the beginning."""
    answer = await post(analytics, body, query, **headers)

    assert (long_way.times, answer.status_code) == (1, status)
    assert (answer.headers.get("x-goodanalytics") or "").startswith(said or "")


async def test_what_others_add_to_an_answer_stays_with_it(analytics: Analytics, long_way: LongWay) -> None:
    """Middleware around us writes a session's cookie into our answer; the next browser's answer is without it."""
    names = iter(["first", "second"])

    def around(app: ASGIApp) -> ASGIApp:
        async def with_session(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_with_session(message: Message) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message).append("set-cookie", next(names))
                    message["status"] = 299
                else:
                    message["body"] = b"changed"
                await send(message)

            await app(scope, receive, send_with_session)

        return with_session

    answers = [await post(analytics, around=around) for _ in range(2)]
    untouched = await post(analytics)

    assert [answer.headers.get_list("set-cookie") for answer in answers] == [["first"], ["second"]]
    assert (untouched.status_code, untouched.content, long_way.times) == (202, b"", 0)
    assert "set-cookie" not in untouched.headers


async def test_a_flood_is_told_when_to_come_again(analytics: Analytics, long_way: LongWay) -> None:
    """The short way counts what it takes; the one beyond the limit gets its 429 from the long way."""
    limits = analytics.config.rate_limits
    assert limits is not None
    most = limits.limit("beacons").burst
    answers = [await post(analytics, x_forwarded_for="203.0.113.9") for _ in range(most)]
    refused = await post(analytics, x_forwarded_for="203.0.113.9")

    assert ({a.status_code for a in answers}, refused.status_code) == ({202}, 429)
    assert (long_way.times, refused.headers["retry-after"]) == (1, "1")


async def test_of_cookies_only_ours_and_the_pixels_are_kept(analytics: Analytics) -> None:
    """The host's session never gets into the log."""
    t = analytics.database.tables.hits
    answer = await post(analytics, cookie="session=s3cret; _ga_anon=abc; _fbp=fb.1.2.3; csrf=t0ken")
    async with analytics.database.connect() as conn:
        bodies = b"".join([row.body for row in await conn.execute(select(t.c.body))])

    assert answer.status_code == 202
    assert b"fb.1.2.3" in bodies
    assert not any(secret in bodies for secret in (b"s3cret", b"t0ken", b"session", b"csrf"))


async def test_a_log_that_is_full_says_when_to_come_again(
    analytics: Analytics, monkeypatch: pytest.MonkeyPatch, errors: list[BaseException]
) -> None:
    """503 with Retry-After, and the host hears of it; the tracker sends the same event_id again."""
    monkeypatch.setattr("goodanalytics.log.group_commit.WAITING_ROWS", 0)
    answer = await post(analytics)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert len(errors) == 1
