"""An operator in a real browser: a platform is set up and tried out, a sale is told and told again, a webhook is added."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from playwright.async_api import Browser, Page, expect

from tests.dispatch.conftest import House, told
from tests.web.telling import EMAIL, PRIVATE, TOKEN, a_shop

WIDTHS = {"desktop": (1280, 900), "phone": (360, 800)}


async def host(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@dataclasses.dataclass
class Live:
    """The shop, and where its dashboard is."""

    house: House
    url: str


@pytest.fixture
async def live(database_url, config, clock) -> AsyncIterator[Live]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    async with a_shop(database_url, config, clock, dashboard_auth=lambda _: True) as house:
        await house.analytics.platforms.drop_credentials("bell")
        await house.analytics.platforms.disable("bell")
        app = house.analytics.wrap(host)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
        server.install_signal_handlers = lambda: None
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            assert not serving.done()
            await asyncio.sleep(0.01)
        yield Live(house, f"http://127.0.0.1:{listener.getsockname()[1]}/ga/dashboard")
        server.should_exit = True
        await serving
    listener.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page that must not complain, neither about scripts nor about what the policy refused."""
    context = await browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    await context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(30_000)
    page = await context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    yield page
    await context.close()
    # A form that is refused is a page with its status, which Chromium tells too.
    assert [one for one in problems if "status of 400" not in one] == []


async def test_a_platform_is_set_up_and_tells_of_a_sale(live: Live, page: Page):
    """From a missing credential to a delivery, which is looked at and sent again; the secret is seen nowhere."""
    await page.goto(f"{live.url}/platforms")
    bell = page.locator("#bell")
    await expect(bell).to_contain_text("missing")
    field = bell.get_by_label("Value of token")
    assert await field.get_attribute("type") == "password"
    await field.fill(TOKEN)
    await bell.get_by_role("button", name="Store").click()
    await expect(bell).to_contain_text("stored")
    await bell.get_by_role("button", name="Send a test sale").click()
    await expect(bell.get_by_role("status")).to_contain_text("It works")
    await bell.get_by_role("button", name="Switch on").click()
    await expect(bell.get_by_role("heading", name="Switched on")).to_be_visible()

    live.house.exchange.then(told(A1={"status": "permanent", "code": "bad", "message": f"no {EMAIL}"}))
    await live.house.sell("A1")
    await live.house.deliver()
    await page.get_by_role("navigation", name="What goes out").get_by_role("link", name="Deliveries").click()
    await page.get_by_label("State").select_option(label="Given up")
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_role("row", name="Sale 49.00 EUR")).to_contain_text("bad")
    await page.get_by_role("link", name="Sale 49.00 EUR").click()
    await expect(page.locator("main")).to_contain_text("E-mail address ✓")
    assert [word for word in PRIVATE if word in await page.content()] == []
    await page.get_by_role("button", name="Send again").click()
    await expect(page.locator("main")).to_contain_text("goes on by itself")
    await live.house.deliver()
    await page.reload()

    await expect(page.locator("main h1 + .badge")).to_have_text("Delivered")
    assert live.house.exchange.keys.count("A1") == 2
    assert len(live.house.exchange.ids["A1"]) == 1
    assert [body["secrets"] for body in live.house.exchange.bodies] == [{"token": TOKEN}] * 3


async def test_a_webhook_is_added_and_its_secret_seen_once(live: Live, page: Page):
    """A wrong address keeps what was typed; the secret can be copied; afterwards it is gone."""
    await page.goto(f"{live.url}/webhooks")
    await page.get_by_label("Address", exact=True).fill("http://receiver.example/hooks/T0p-secret")
    await page.get_by_role("button", name="Add").click()
    await expect(page.get_by_role("alert")).to_contain_text("url is not https")
    address = page.get_by_label("Address", exact=True)
    await expect(address).to_have_value("http://receiver.example/hooks/T0p-secret")
    await address.fill("https://receiver.example/hooks/T0p-secret")
    await page.get_by_role("checkbox", name="Leads").last.uncheck()
    await page.get_by_role("button", name="Add").click()
    secret = await page.locator("#secret").inner_text()
    await page.get_by_role("button", name="Copy").click()
    assert secret.startswith("whsec_")
    assert await page.evaluate("navigator.clipboard.readText()") == secret

    await page.goto(f"{live.url}/webhooks")
    content = await page.content()
    assert (secret in content, "T0p-secret" in content) == (False, False)
    card = page.locator("section", has=page.get_by_role("heading", name="receiver.example"))
    await expect(card).to_contain_text("Refunds, Sales")
    await card.get_by_text("Change", exact=False).first.click()
    await card.get_by_role("button", name="Switch off").click()
    await expect(card.locator(".badge")).to_have_text("Off")
    await card.get_by_role("button", name="Switch on").click()
    await expect(card.locator(".badge")).to_have_text("On")
    await card.get_by_text("Change", exact=False).first.click()
    await card.get_by_text("Delete", exact=False).first.click()
    await card.get_by_role("button", name="Delete for ever").click()
    await expect(page.locator("main")).to_contain_text("No program is told yet")


async def test_the_open_room_is_in_sight_on_a_telephone(live: Live, page: Page):
    """The rooms stand in a row that scrolls; the last one, where it is open, is seen whole."""
    await page.set_viewport_size({"width": 360, "height": 740})
    await page.goto(f"{live.url}/platforms")

    await expect(page.locator(".top nav [aria-current]")).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize("width", WIDTHS)
async def test_no_page_is_wider_than_its_window(live: Live, page: Page, width: str):
    """With everything open, on a desk and on a telephone; the API's reference too."""
    await live.house.analytics.platforms.store_credential("bell", "token", TOKEN)
    await live.house.analytics.platforms.enable("bell")
    made = await live.house.analytics.webhooks.create("https://a-very-long-name-of-a-receiver.shop.example/x")
    live.house.exchange.then(told(A1={"status": "permanent", "code": "x" * 80, "message": "y" * 200}))
    await live.house.sell("A1", "A2")
    await live.house.deliver()
    (dead,) = (await live.house.analytics.platforms.dispatches(state="dead")).items
    wide, high = WIDTHS[width]
    await page.set_viewport_size({"width": wide, "height": high})
    overflow = {}
    for path in (
        "platforms",
        "dispatches",
        f"dispatches/{dead.id}",
        f"webhooks#{made.webhook.id}",
        "../api/docs",
    ):
        await page.goto(f"{live.url}/{path}")
        await page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        overflow[path] = await page.evaluate("document.documentElement.scrollWidth - innerWidth")

    assert overflow == dict.fromkeys(overflow, 0)
