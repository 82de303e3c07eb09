"""
A real Chromium, and a small site for it to visit.

`browser` is started once and `page` is a fresh context for each test; both come from Playwright's asynchronous API and
live in the session's event loop. `site` answers pages, serves the tracker as it is shipped and keeps every request, so
that a test asserts what the browser really sent; it can be told to refuse, to hang up or to wait.
Without a Chromium every test that asks for `browser` is skipped with the reason in the summary: set GOODANALYTICS_CHROMIUM
to the program, or put one on PATH.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, async_playwright

from tests.conftest import needs

TRACKER = Path(__file__).parents[2] / "goodanalytics/web/static/good-analytics.js"

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str | None:
    """The program to start: GOODANALYTICS_CHROMIUM, or the first known name on PATH."""
    names = (os.environ.get("GOODANALYTICS_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    program = needs("Chromium", chromium(), "put chromium on PATH, or set GOODANALYTICS_CHROMIUM")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=program,
            args=ARGUMENTS,
            # Playwright turns the back-forward cache off; visitors have it.
            ignore_default_args=["--disable-back-forward-cache"],
        )
        yield launched
        await launched.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context(
        viewport={"width": 1280, "height": 720}, locale="en-GB", timezone_id="Europe/Berlin"
    )
    context.set_default_timeout(15_000)
    yield await context.new_page()
    await context.close()


@dataclass(slots=True)
class Request:
    """One request as it arrived; `events` is its body as a list."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int = 0

    @property
    def events(self) -> list[dict[str, Any]]:
        said = json.loads(self.body)
        return said if isinstance(said, list) else [said]


@dataclass(slots=True)
class Site:
    """
    What the browser visits.

    `html` is the body of every page, at first the tracker's `tag`; `click_from_via` is the answer to /click; `answers` is taken from the left, one for each POST: a status, (status, headers), or
    None to hang up without an answer; 202 when it is empty. `gate` is waited for before a POST is answered.
    """

    tag: ClassVar[str] = '<script defer src="/ga/js/good-analytics.js" data-debug="true"></script>'
    click_from_via: ClassVar[str] = "0191d9a0-7c1e-7d3a-8f10-00000000c11c"

    url: str
    html: str = tag
    answers: deque[int | tuple[int, dict[str, str]] | None] = field(default_factory=deque)
    requests: list[Request] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def posts(self, path: str = "/ga/t/event") -> list[Request]:
        return [request for request in self.requests if request.method == "POST" and request.path == path]

    @property
    def events(self) -> list[dict[str, Any]]:
        """What was accepted, in order, each event id once: the server drops repeats."""
        accepted = [event for post in self.posts() if post.status == 202 for event in post.events]
        return list({event["event_id"]: event for event in accepted}.values())

    def told(self, event_type: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event_type"] == event_type]

    async def until(self, condition: Any) -> None:
        """Waits until *condition* holds, at most 15 s."""
        try:
            async with asyncio.timeout(15), self.changed:
                await self.changed.wait_for(condition)
        except TimeoutError:
            seen = [(request.method, request.path, request.status, request.body) for request in self.requests]
            pytest.fail(f"it never came; the site saw {seen}")

    async def sentinel(self, page: Page, name: str = "sentinel") -> None:
        """Sends a custom event and waits for it: whatever was to be sent before is here by then."""
        await page.evaluate("name => GoodAnalytics.track(name)", name)
        await self.until(lambda: any(event.get("event_name") == name for event in self.events))

    async def settled(self, page: Page) -> None:
        """Waits for a request of the page's own, where the tracker is to send nothing at all."""
        before = len(self.posts("/settled"))
        await page.evaluate("fetch('/settled', {method: 'POST'})")
        await self.until(lambda: len(self.posts("/settled")) > before)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ", 2)
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head[1:] if line)
            }
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            request = Request(method, urlsplit(target).path, headers, body)
            answer = await self.answer(request)
            self.requests.append(request)
            if answer is not None:
                writer.write(answer)
                await writer.drain()
            async with self.changed:
                self.changed.notify_all()
        writer.close()

    async def answer(self, request: Request) -> bytes | None:
        kind, content, extra = "text/html; charset=utf-8", b"", dict[str, str]()
        request.status = 200
        if request.method == "POST" and request.path.startswith("/ga/"):
            await self.gate.wait()
            told = self.answers.popleft() if self.answers else 202
            if told is None:
                return None
            request.status, extra = told if isinstance(told, tuple) else (told, {})
            if request.path == "/ga/t/click" and request.status == 202:
                request.status = 200
                kind, content = (
                    "application/json",
                    json.dumps({"ga_id": self.click_from_via, "status": "ok"}).encode(),
                )
        elif request.path == "/ga/js/good-analytics.js":
            kind, content = "text/javascript; charset=utf-8", TRACKER.read_bytes()
        elif request.method == "GET":
            content = f"<!doctype html><title>{request.path}</title>{self.html}".encode()
        lines = [
            f"HTTP/1.1 {request.status} -",
            f"Content-Type: {kind}",
            f"Content-Length: {len(content)}",
            "Connection: close",
        ]
        # The same server under another name is another origin, for the tests of that.
        if origin := request.headers.get("origin"):
            extra = {
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Allow-Credentials": "true",
                **extra,
            }
        lines += [f"{name}: {value}" for name, value in extra.items()]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    visited = Site("")
    visited.gate.set()
    server = await asyncio.start_server(visited.serve, "127.0.0.1", 0)
    visited.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield visited
    visited.gate.set()
    server.close()
