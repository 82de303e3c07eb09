"""The dashboard's page on which links move house, in a real browser: with the file picker, and by pasting without a script."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, Page, expect

from goodanalytics.web.dashboard.moving import MAX_FILE
from tests.browser.test_links_pages import Live, live, troubles

__all__ = ["live", "troubles"]

BITLY = (
    "Title,Long URL,Bitlink,Custom Bitlinks\n"
    "Frühling,https://shop.example/,bit.ly/3xY,go.example/spring\n"
    "Bad,ftp://shop.example/,bit.ly/3xZ,go.example/bad\n"
)


async def brought_in(live: Live, page: Page) -> None:
    """Look, bring in, and see the link."""
    await page.get_by_label("Where from").select_option("Bitly")
    await page.get_by_role("button", name="Look what would happen").click()
    report = page.locator("#report")
    await expect(report.get_by_role("heading", name="This is what would happen")).to_be_visible()
    await expect(report.get_by_role("row", name="go.example/bad")).to_contain_text("ftp://shop.example/")
    assert (await live.analytics.links.list()).items == ()
    await page.get_by_role("button", name="Bring them in").click()
    await expect(page.get_by_role("heading", name="Done")).to_be_visible()
    await page.get_by_role("link", name="See the links").click()
    await expect(page.get_by_role("link", name="go.example/spring")).to_be_visible()
    link = await live.only()
    assert (link.url, link.title) == ("https://shop.example/", "Frühling")


async def test_links_are_pasted_looked_at_and_brought_in_without_a_script(live: Live, browser: Browser):
    """No script runs, and the page has all that it takes; what needs the script is not shown."""
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(f"{live.url}/links")
    await (
        page.get_by_role("link", name="Move", exact=True)
        .or_(page.get_by_role("link", name="Bring links in from elsewhere"))
        .first.click()
    )
    await expect(page.get_by_label("The file", exact=True)).to_be_hidden()
    await page.get_by_label("What stands in the file").fill(BITLY)

    await brought_in(live, page)
    await context.close()


async def test_a_chosen_file_is_read_into_the_box(live: Live, page: Page, troubles):
    """In its encoding or not at all, within the page's bound; and all links can be downloaded."""
    await page.goto(f"{live.url}/links/move")
    picker, box = page.get_by_label("The file", exact=True), page.get_by_label("What stands in the file")
    said = page.locator("#file-said")

    async def choose(content: bytes) -> None:
        await picker.set_input_files({"name": "bitly.csv", "mimeType": "text/csv", "buffer": content})

    await choose(BITLY.encode("windows-1252"))
    await expect(said).to_contain_text("no text in UTF-8")
    await expect(box).to_have_value("")
    await choose(b"a" * (MAX_FILE + 1))
    await expect(said).to_contain_text("more than 1 MiB")
    await expect(box).to_have_value("")
    await choose(b"\xef\xbb\xbf" + BITLY.replace("\n", "\r\n").encode())
    await expect(said).to_have_text("bitly.csv is in the box.")
    await expect(box).to_have_value(BITLY)

    await brought_in(live, page)
    await page.goto(f"{live.url}/links/move")
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Everything, as JSON lines").click()
    saved = await download.value
    assert saved.suggested_filename.endswith(".jsonl")
    assert '"key":"spring"' in (await saved.path()).read_text()
    assert troubles == []


@pytest.mark.parametrize("width", [360, 1280])
async def test_nothing_is_wider_than_the_screen(live: Live, page: Page, width):
    """On a telephone as on a desk, with a report."""
    await page.set_viewport_size({"width": width, "height": 740})
    await page.goto(f"{live.url}/links/move")
    await page.get_by_label("Where from").select_option("Bitly")
    await page.get_by_label("What stands in the file").fill(BITLY)
    await page.get_by_role("button", name="Look what would happen").click()
    await expect(page.locator("#report")).to_be_visible()

    assert await page.evaluate("document.documentElement.scrollWidth") <= width
