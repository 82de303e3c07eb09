"""The dashboard's pages about links in a real browser: a link is made, looked at, shared, changed and archived."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
import zxingcpp
from PIL import Image
from playwright.async_api import Browser, Page, expect

from goodanalytics import Analytics, Config
from goodanalytics.core.links import Link
from goodanalytics.web.dashboard import link_form as dashboard_link_form
from tests.web.link_site import page as host

PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}


@dataclasses.dataclass
class Live:
    """A site with a dashboard that is open to everybody, and its address."""

    analytics: Analytics
    url: str

    async def only(self) -> Link:
        (link,) = (await self.analytics.links.list(archived=None)).items
        return link


@pytest.fixture
async def live(shared_database_url: str, config: Config) -> AsyncIterator[Live]:
    async with a_live_site(shared_database_url, config) as found:
        yield found


@asynccontextmanager
async def a_live_site(url: str, config: Config) -> AsyncIterator[Live]:
    """A site in a workspace of its own, served to real browsers."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    own = dataclasses.replace(
        config,
        dashboard_auth=lambda _: True,
        workspace=uuid.uuid4(),
        link_domains=["go.example"],
        worker=False,
    )
    analytics = Analytics(url, own)
    server = uvicorn.Server(
        uvicorn.Config(analytics.wrap(host), log_level="warning", lifespan="on", ws="none")
    )
    server.install_signal_handlers = lambda: None
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.01)
    yield Live(analytics, f"http://127.0.0.1:{listener.getsockname()[1]}/ga/dashboard")
    server.should_exit = True
    await serving
    listener.close()


@pytest.fixture
def troubles(page: Page) -> list[str]:
    """What the console and the Content-Security-Policy complained about."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on(
        "console",
        lambda message: found.append(message.text) if message.type in ("error", "warning") else None,
    )
    return found


async def scanned(page: Page, selector: str, path) -> str:
    """What a reader of QR codes sees on the screen."""
    await page.wait_for_function(
        "s => { const i = document.querySelector(s); return i.complete && i.naturalWidth > 0; }", arg=selector
    )
    await page.locator(selector).screenshot(path=path)
    (code,) = await asyncio.to_thread(lambda: zxingcpp.read_barcodes(Image.open(path)))
    return code.text


async def test_a_link_is_made_with_a_preview_that_follows_the_fingers(
    live: Live, page: Page, troubles, tmp_path
):
    """Short address, destination and code change while typing; the link is then what the preview said."""
    await page.goto(f"{live.url}/links")
    await page.get_by_role("link", name="New link").click()
    short, leads_to = page.locator("#preview-short"), page.locator("#preview-url")
    await page.get_by_label("Leads to", exact=True).first.fill("https://shop.example/lamps?color=red#top")
    await expect(leads_to).to_have_text("https://shop.example/lamps?color=red#top")
    await page.get_by_label("Short name", exact=True).fill("a b")
    await expect(short).to_have_text("not complete yet")
    await expect(page.locator("#preview-qr")).to_be_hidden()
    async with page.expect_response(lambda response: "key=spring" in response.url):
        await page.get_by_label("Short name", exact=True).fill("spring")
    await expect(short).to_have_text("https://go.example/spring")
    await page.locator("summary", has_text="Campaign").first.click()
    await page.get_by_label("Source", exact=True).fill("Spring letter & more")
    await expect(leads_to).to_have_text(
        "https://shop.example/lamps?color=red&utm_source=Spring+letter+%26+more#top"
    )
    assert await scanned(page, "#preview-qr", tmp_path / "preview.png") == "https://go.example/spring?qr=1"
    await page.get_by_role("button", name="Make the link").click()

    await expect(page.locator(".told")).to_have_text("Saved.")
    link = await live.only()
    assert (link.key, link.utm_source) == ("spring", "Spring letter & more")
    assert await scanned(page, ".qr img", tmp_path / "code.png") == "https://go.example/spring?qr=1"
    async with page.expect_download() as download:
        await page.get_by_role("link", name="PNG", exact=True).click()
    saved = await download.value
    assert saved.suggested_filename == "spring.png"
    assert zxingcpp.read_barcodes(Image.open(await saved.path()))[0].text == "https://go.example/spring?qr=1"
    assert troubles == []


ADDRESSES = [
    ("https://a.example", {}),
    ("HTTPS://A.example/p/?x=1&y=2", {"utm_source": "a b", "utm_term": "100% über"}),
    ("https://a.example/?utm_source=old&UTM_Medium=old&z", {"utm_source": "new", "utm_medium": "new"}),
    ("https://a.example/?ga_id=1&a=%F0&b=%zz#f?utm_source=1", {"utm_campaign": "c/d"}),
    ("https://a.example/?utm_%73ource=old", {"utm_source": "new"}),
    ("ftp://a.example", {"utm_source": "x"}),
    ("https://a.example/a b", {}),
    ("", {}),
]


async def test_the_scripts_preview_is_the_servers(live: Live, page: Page):
    """Both say the same of each address: what a click leads to."""
    await page.goto(f"{live.url}/links/new")
    for url, utm in ADDRESSES:
        told = await page.evaluate(
            """values => {
                const form = document.querySelector("form[data-preview]");
                for (const name of ["utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term"]) form.elements[name].value = "";
                for (const [name, value] of Object.entries(values)) form.elements[name].value = value;
                form.elements.url.dispatchEvent(new Event("input", {bubbles: true}));
                return document.getElementById("preview-url").textContent;
            }""",
            {"url": url, **utm},
        )
        expected = dashboard_link_form.destination({"url": url, **utm}) or "no address yet"
        assert told == expected, url


async def test_a_wrong_form_keeps_everything_and_leads_to_what_is_wrong(live: Live, page: Page):
    """The summary has the focus, its links lead to the fields, and groups with errors are open."""
    await page.goto(f"{live.url}/links/new")
    await page.get_by_label("Leads to", exact=True).first.fill("nowhere")
    await page.get_by_label("Title", exact=True).fill("My <b>title</b>")
    await page.locator("summary", has_text="Time, number of uses").click()
    await page.get_by_label("How often it may be used", exact=True).fill("often")
    await page.get_by_label("Works until", exact=True).fill("2027-01-02T10:30")
    await page.keyboard.press("Enter")  # presses Save, not one of the other buttons

    await expect(page.get_by_role("alert")).to_contain_text("The link is not made yet.")
    assert await page.evaluate("document.activeElement.id") == "problems"
    await expect(page.get_by_label("Title", exact=True)).to_have_value("My <b>title</b>")
    await expect(page.get_by_label("Works until", exact=True)).to_have_value("2027-01-02T10:30")
    await expect(page.get_by_label("How often it may be used", exact=True)).to_have_accessible_description(
        "This is 'often'; write a whole number. 1 makes a link that works once. Empty is no limit."
    )
    await page.get_by_role("alert").get_by_role("link", name="How often").click()
    assert await page.evaluate("document.activeElement.id || location.hash.slice(1)") == "f-max_clicks"
    assert (await live.analytics.links.list()).items == ()


async def test_a_browser_sends_back_what_it_was_given(live: Live, page: Page):
    """Opening the form of a link and saving it changes nothing, whatever the browser makes of times and lines."""
    clock = live.analytics.config.clock
    link = await live.analytics.links.create(
        url="https://shop.example/", key="full", notes="one\ntwo", max_clicks=3, password="p", tags=["a", "b c"],
        starts_at=clock().replace(microsecond=120_456), expires_at=clock().replace(year=2030, second=5),
        metadata={"a": [1, {"b": None}]}, forward_query=False, redirect_status=308,
        rules=[{"url": "https://shop.example/r", "when": {"countries": ["DE"], "query": {"a": "1", "b": None}, "traits": {"n": 5},
               "hours": {"start": "09:00", "end": "17:00", "weekdays": [1, 5]}, "after": "2026-11-01T10:00:00.5Z", "returning": False}}],
        variants=[{"url": "https://shop.example/1", "name": "A", "weight": 2}, {"url": "https://shop.example/2", "name": "B"}],
    )  # fmt: skip
    for zone in ("", "?tz=Asia/Tehran"):
        await page.goto(f"{live.url}/links/{link.id}/edit{zone}")
        await page.get_by_role("button", name="Save").last.click()
        await expect(page.locator(".told")).to_have_text("Saved.")

    assert await live.analytics.links.get(link) == link
    assert len((await live.analytics.links.history(link)).items) == 1


async def test_without_javascript_everything_works(live: Live, browser: Browser):
    """Rows are added, the preview is shown and the link is made by the server."""
    context = await browser.new_context(java_script_enabled=False)
    context.set_default_timeout(15_000)
    page = await context.new_page()
    await page.goto(f"{live.url}/links/new")
    await page.get_by_label("Leads to", exact=True).first.fill("https://shop.example/")
    await page.get_by_label("Short name", exact=True).fill("plain")
    await page.locator("summary", has_text="Variants").click()
    await page.get_by_role("button", name="Add a variant").click()
    for number in range(3):
        await page.locator(f"[name=variants-{number}-url]").fill(f"https://shop.example/{number}")
    await page.get_by_role("button", name="Show the preview again").click()
    assert await page.locator("#preview-short").inner_text() == "https://go.example/plain"
    await page.get_by_role("button", name="Make the link").click()
    await page.wait_for_url("**/links/*saved=yes")
    link = await live.only()
    assert [one.name for one in link.variants] == ["A", "B", "C"]

    await page.locator("summary", has_text="Archive this link").click()
    await page.get_by_role("button", name="Archive it").click()
    assert "Archived. It leads nowhere any more" in await page.locator("main").inner_text()
    assert (await live.only()).archived_at is not None
    await context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
async def test_pages_fit_and_can_be_read(live: Live, browser: Browser, scheme, size):
    """No page is wider than its screen, and no text has less contrast than 4.5 to 1."""
    link = await live.analytics.links.create(
        url="https://shop.example/" + "a-very-long-path-without-an-end/" * 8, key="k" * 80, title="t" * 120, tags=["tag" * 20] * 3,
        folder="folder" * 20, variants=[{"url": "https://shop.example/1"}, {"url": "https://shop.example/2"}], max_clicks=1,
        rules=[{"url": "https://shop.example/r" * 3, "when": {"countries": ["DE"]}}], notes="n" * 300, metadata={"m" * 60: "v" * 90},
    )  # fmt: skip
    context = await browser.new_context(viewport=size, color_scheme=scheme)
    context.set_default_timeout(15_000)
    page = await context.new_page()
    for path in (
        "/links",
        f"/links/{link.id}",
        f"/links/{link.id}/edit",
        "/links/new",
        "/domains",
        "/domains/go.example",
    ):
        await page.goto(f"{live.url}{path}")
        await page.evaluate("for (const one of document.querySelectorAll('main details')) one.open = true")
        assert await page.evaluate("document.documentElement.scrollWidth") <= size["width"], path
        assert await page.evaluate(PALE) == [], path
    await context.close()


PALE = """
() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")]
    .filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) && one.checkVisibility())
    .filter((one) => !one.closest("svg, option, .unseen, .skip"))
    .filter((one) => {
      const [a, b] = [light(numbers(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05) < 4.5;
    })
    .map((one) => one.outerHTML.slice(0, 100));
}
"""
"""What on a page has less contrast than WCAG 2.2 asks of a text (1.4.3)."""
