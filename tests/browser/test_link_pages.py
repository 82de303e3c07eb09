"""The pages of short links in a real browser: a password is typed in, and the browser really goes on."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from playwright.async_api import Page, expect
from starlette.types import ASGIApp

from goodanalytics import Analytics, Config
from goodanalytics.config import utc_now
from tests.web.link_site import page as host_page


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[int]:
    """The port of *app*."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        running = asyncio.create_task(server.serve(sockets=[listening]))
        async with asyncio.timeout(30):
            while not server.started:
                await asyncio.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        await running


@pytest.fixture
async def analytics(database_url: str, config: Config) -> Analytics:
    own = dataclasses.replace(
        config, clock=utc_now, link_domains=["localhost"], link_frameable_hosts=["127.0.0.1"]
    )
    return Analytics(database_url, own)


async def test_a_password_is_typed_in_and_leads_to_another_site(analytics: Analytics, page: Page) -> None:
    """Wrong, told; right, led on past the policy that guards the form; the second time without being asked."""
    async with served(analytics.wrap(host_page)) as port:
        url = f"http://127.0.0.1:{port}/lamps"
        await analytics.links.create(key="a", url=url, password="geheim", redirect_status=307)
        complaints: list[str] = []
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        await page.goto(f"http://localhost:{port}/a")
        await expect(page.get_by_label("Password")).to_be_focused()
        await page.get_by_label("Password").fill("falsch")
        await page.get_by_role("button", name="Go on").click()
        await expect(page.get_by_role("alert")).to_have_text("That is not the password. Try again.")
        refused, complaints[:] = list(complaints), []
        await page.get_by_label("Password").fill("geheim")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{url}?ga_id=*")
        shown = await page.text_content("body")
        await page.goto(f"http://localhost:{port}/a")

        assert all("403" in complaint for complaint in refused)
        assert (shown, complaints, page.url.partition("?")[0]) == ("the host", [], url)


async def test_a_cloaked_link_shows_its_destination(analytics: Analytics, page: Page) -> None:
    """In a frame that fills the window, with the short address in the bar, and nothing that the policy complains of."""
    async with served(analytics.wrap(host_page)) as port:
        await analytics.links.create(key="a", url=f"http://127.0.0.1:{port}/lamps", cloaked=True)
        complaints: list[str] = []
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        await page.goto(f"http://localhost:{port}/a")
        await expect(page.frame_locator("iframe").get_by_text("the host")).to_be_visible()
        box = await page.locator("iframe").bounding_box()

        assert (page.url, complaints) == (f"http://localhost:{port}/a", [])
        assert box == {"x": 0, "y": 0, "width": 1280, "height": 720}
