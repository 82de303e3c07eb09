"""The product's one story, in a real browser against a real server: from a short link to a sale, and back to its source."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import uvicorn
from playwright.async_api import Browser
from sqlalchemy import select

from goodanalytics import Analytics, Config
from goodanalytics.config import utc_now
from goodanalytics.demo import shop

# Headless Chromium calls itself HeadlessChrome, which is a bot to us; this visitor is a person.
PERSON = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)


@dataclasses.dataclass
class Live:
    """The shop as its visitors reach it; the short links answer on another host name, as a link domain would."""

    analytics: Analytics
    port: int

    @property
    def shop(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def links(self) -> str:
        return f"http://localhost:{self.port}/l"


@pytest.fixture
async def live(database_url: str, config: Config) -> AsyncIterator[Live]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = dataclasses.replace(
        config, clock=utc_now, dashboard_auth=lambda _: True, worker_interval=timedelta(milliseconds=50)
    )
    analytics = Analytics(database_url, config)
    server = uvicorn.Server(
        uvicorn.Config(analytics.wrap(shop.build(analytics)), log_level="warning", lifespan="on", ws="none")
    )
    server.install_signal_handlers = lambda: None
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.01)
    yield Live(analytics, listener.getsockname()[1])
    server.should_exit = True
    await serving
    listener.close()


async def events(analytics: Analytics) -> list:
    t = analytics.database.tables.events
    async with analytics.database.connect() as conn:
        return (
            await conn.execute(select(t).where(t.c.event_type != "engagement").order_by(t.c.occurred_at))
        ).all()


async def until(analytics: Analytics, event_type: str, name: str | None = None) -> None:
    """Waits until the worker has made such an event; a minute is a bound, not an expectation."""
    async with asyncio.timeout(60):
        while not any(
            e.event_type == event_type and (name is None or e.event_name == name)
            for e in await events(analytics)
        ):
            await asyncio.sleep(0.02)


async def test_from_a_short_link_to_a_sale_on_one_record(live: Live, browser: Browser):
    """Someone clicks a short link, lands, browses, signs up and buys; the record shows the whole path and its source."""
    link = await live.analytics.links.create(
        domain="localhost", key="spring", url=f"{live.shop}/products/glass-kettle",
        utm_source="newsletter", utm_medium="email", utm_campaign="Spring",
    )  # fmt: skip
    context = await browser.new_context(
        user_agent=PERSON, viewport={"width": 1280, "height": 900}, locale="en-GB"
    )
    context.set_default_timeout(30_000)
    page = await context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)

    await page.goto(f"{live.links}/spring")
    await until(live.analytics, "pageview")
    assert (
        page.url
        == f"{live.shop}/products/glass-kettle?utm_source=newsletter&utm_medium=email&utm_campaign=Spring"
    )
    await page.get_by_role("button", name="Add to cart").click()
    await page.get_by_role("link", name="Sign up").first.click()
    await page.get_by_label("Name").fill("Ann Example")
    await page.get_by_label("E-mail").fill("Ann@Example.com")
    await page.locator("form[action$='/sign-up'] button").click()
    await page.wait_for_url("**/welcome*")
    await page.goto(f"{live.shop}/checkout")
    await page.get_by_label("Your name").fill("Ann Example")
    await page.get_by_label("E-mail").fill("ann@example.com")
    await page.get_by_role("button", name="Pay").click()
    await page.wait_for_url("**/thank-you*")
    await until(live.analytics, "sale")
    async with asyncio.timeout(60):
        while not [
            e for e in await events(live.analytics) if e.event_type == "pageview" and e.path == "/thank-you"
        ]:
            await asyncio.sleep(0.02)

    done = await events(live.analytics)
    assert done[0].event_type == "link_click"
    assert done[0].link_id == link.id
    assert next(e.path for e in done if e.event_type == "pageview") == "/products/glass-kettle"
    assert {"Add to cart"} == {e.event_name for e in done if e.event_type == "custom"}
    assert [e.event_type for e in done if e.event_type in ("identify", "lead", "sale")][-1] == "sale"
    assert {e.source for e in done} == {"newsletter"}
    assert len({e.session_id for e in done if e.event_type != "link_click"}) == 1

    person = await live.analytics.visitors.get(done[0].visitor_id)
    assert person is not None
    assert {(await live.analytics.visitors.get(e.visitor_id)).id for e in done} == {person.id}
    assert (person.status, person.email, person.name) == ("customer", "ann@example.com", "Ann Example")
    (sale,) = [e for e in done if e.event_type == "sale"]
    assert person.ltv == {"EUR": sale.amount_cents}
    attribution = await live.analytics.visitors.attribution(person)
    assert attribution.first_source["platform"] == attribution.last_source["platform"] == "newsletter"
    assert str(attribution.first_click_id) == str(done[0].id)

    await page.goto(f"{live.shop}/ga/dashboard/visitors/{person.id}")
    shown = await page.locator("main").inner_text()
    for text in (
        "Ann Example",
        "newsletter",
        "localhost/spring",
        "glass-kettle",
        "Add to cart",
        f"{sale.amount_cents / 100:.2f}",
    ):
        assert text in shown, f"{text!r} is not on the visitor's page:\n{shown}"
    order = [
        shown.index(word)
        for word in (
            "localhost/spring",
            "Add to cart",
            "Sign-up",
            f"{sale.amount_cents / 100:.2f} EUR".replace(" EUR", ""),
        )
    ]
    assert order[0] == min(order[:3])
    assert problems == []
    await context.close()


async def test_two_visits_in_one_browser_are_one_visitor_and_two_sources(live: Live, browser: Browser):
    """A search visit and a later newsletter visit are two visits of one person: first and last credit differ."""
    context = await browser.new_context(user_agent=PERSON)
    page = await context.new_page()
    for referrer, query in (
        ("https://www.google.com/", ""),
        (None, "?utm_source=newsletter&utm_medium=email"),
    ):
        await page.goto(f"{live.shop}/{query}", **({"referer": referrer} if referrer else {}))
        async with asyncio.timeout(60):
            while not [
                e for e in await events(live.analytics) if (e.source == "newsletter") is (referrer is None)
            ]:
                await asyncio.sleep(0.02)
        await page.goto("about:blank")
    people = (await live.analytics.visitors.list()).items

    assert [(p.first_source["platform"], p.last_source["platform"], p.total_sessions) for p in people] == [
        ("google", "newsletter", 2)
    ]
    assert people[0].last_seen_at <= datetime.now(UTC)
    await context.close()


async def test_signing_out_on_a_shared_browser_starts_a_new_visitor(live: Live, browser: Browser):
    """After `GoodAnalytics.reset()` the browser has another cookie, and what is done next is nobody's who was there before."""
    context = await browser.new_context(user_agent=PERSON)
    context.set_default_timeout(30_000)
    page = await context.new_page()

    async def cookie() -> str | None:
        found = {one["name"]: one["value"] for one in await context.cookies()}
        return found.get("_ga_anon")

    await page.goto(live.shop)
    await until(live.analytics, "pageview")
    before = await cookie()
    await page.evaluate(
        "GoodAnalytics.track('Last words'); GoodAnalytics.reset(); GoodAnalytics.track('First words')"
    )
    await until(live.analytics, "custom", "First words")
    await until(live.analytics, "custom", "Last words")
    whose = {e.event_name or e.event_type: e.visitor_id for e in await events(live.analytics)}

    assert await cookie() not in (None, before)
    assert whose["pageview"] == whose["Last words"] != whose["First words"]
    await context.close()
