"""The dashboard's pages about partners in a real browser: one is made, seen, earns, is reviewed and paused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from playwright.async_api import Browser, expect

from goodanalytics import Config
from goodanalytics.core.partners import Partner
from tests.browser.test_links_pages import DESK, PALE, PHONE, Live, a_live_site


@pytest.fixture
async def live(shared_database_url: str, config: Config) -> AsyncIterator[Live]:
    async with a_live_site(shared_database_url, config) as found:
        yield found


async def sold(live: Live, partner: Partner) -> None:
    """Somebody comes by the partner's code and buys for 49.90."""
    analytics = live.analytics
    person = await analytics.resolve({"anonymous_id": "0191d9a0-7c1e-7d3a-8f10-00000000c11c"})
    await analytics.track(person, "pageview", url=f"https://shop.example/?via={partner.code}")
    analytics.config.clock.advance(timedelta(minutes=1))
    await analytics.sale(person, amount_cents=4_990, currency="EUR", key="order-1")


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
async def test_a_partner_is_made_seen_reviewed_and_paused(live: Live, browser: Browser, script):
    """By labels and keys alone, on a phone, with and without the script; nothing complains."""
    context = await browser.new_context(viewport=PHONE, java_script_enabled=script)
    context.set_default_timeout(15_000)
    page = await context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "console",
        lambda message: troubles.append(message.text) if "Content Security" in message.text else None,
    )
    await page.goto(f"{live.url}/links")
    await page.get_by_role("link", name="Partners").click()
    await page.get_by_role("link", name="Add the first partner").press("Enter")
    await page.get_by_label("Name", exact=True).fill("Garden blog")
    await page.get_by_label("Code", exact=True).fill("garden blog")
    await page.get_by_label("How much").fill("12.5")
    await page.get_by_label("How much").press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("The partner is not added yet.")
    await expect(page.get_by_label("How much")).to_have_value("12.5")
    await page.get_by_role("alert").get_by_role("link", name="Code").click()
    await page.get_by_label("Code", exact=True).fill("garden-blog")
    await page.get_by_role("button", name="Add the partner").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Garden blog")
    await expect(page.get_by_text("12.5% of each sale within 90 days")).to_be_visible()

    partner = await live.analytics.partners.by_code("garden-blog")
    await sold(live, partner)
    await page.get_by_role("link", name="All partners").click()
    await expect(page.get_by_role("row").filter(has_text="Garden blog")).to_contain_text("6.24 EUR")
    await page.get_by_role("link", name="Garden blog").click()
    await page.locator("summary", has_text="Review").click()
    await page.get_by_label("Decide").select_option(label="approve it")
    await page.get_by_label("Why").fill("paid in November")
    await page.get_by_label("Why").press("Enter")
    await expect(page.locator(".ledger .badge")).to_have_text("Approved")
    (entry,) = (await live.analytics.partners.commissions(partner)).items
    assert (entry.status, entry.amount_cents, entry.reason) == ("approved", 624, "paid in November")

    await page.get_by_role("button", name="Pause").click()
    await expect(page.get_by_role("status")).to_have_text("Saved.")
    await expect(page.get_by_role("heading", name="Paused")).to_be_visible()
    assert (await live.analytics.partners.get(partner)).status == "paused"
    assert troubles == []
    await context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
async def test_pages_fit_and_can_be_read(live: Live, browser: Browser, scheme, size):
    """No page is wider than its screen, and no text has less contrast than 4.5 to 1."""
    partner = await live.analytics.partners.create(
        code="c" * 64, name="n" * 200, email=f"{'e' * 60}@{'x' * 60}.example", external_id="i" * 128,
        commission={"value": 1_000, "currency": "EUR"}, metadata={"m" * 60: "v" * 90},
    )  # fmt: skip
    await sold(live, partner)
    (entry,) = (await live.analytics.partners.commissions(partner)).items
    await live.analytics.partners.review(entry, "void", reason="r" * 200, actor="a" * 100)
    context = await browser.new_context(viewport=size, color_scheme=scheme)
    context.set_default_timeout(15_000)
    page = await context.new_page()
    mine = f"/partners/{partner.id}"
    for path in ("/partners", "/partners/new", mine, f"{mine}/edit", f"/links?partner={partner.id}"):
        await page.goto(f"{live.url}{path}")
        await page.evaluate("for (const one of document.querySelectorAll('main details')) one.open = true")
        assert await page.evaluate("document.documentElement.scrollWidth") <= size["width"], path
        assert await page.evaluate(PALE) == [], path
    await context.close()
