"""Every example as its users run it: a process of its own, six requests over a socket, and a clean end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import uuid
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from goodanalytics import Analytics, Config

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*_app.py"))
SECRET = "for-tests-only-" + "0" * 32
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
PATIENCE = 60  # seconds; only a broken example, or a very busy machine, takes longer


def a_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@asynccontextmanager
async def running(example: Path, database_url: str, port: int) -> AsyncIterator[Process]:
    """The example as a process. It is killed when a test leaves it running."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GOODANALYTICS_")}
    environ |= {
        "GOODANALYTICS_DATABASE_URL": database_url,
        "GOODANALYTICS_SECRET_KEY": SECRET,
        "PORT": str(port),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, example, env=environ, stdout=PIPE, stderr=STDOUT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until_it_answers(process: Process, client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await client.get("/ga/js/good-analytics.js")
            except httpx.TransportError:
                if process.returncode is not None:
                    pytest.fail(f"The example ended by itself:\n{(await process.stdout.read()).decode()}")
                await asyncio.sleep(0.1)
            else:
                return


async def test_there_is_an_example_for_each_framework():
    """Five hosts, five examples."""
    names = [example.name for example in EXAMPLES]

    assert names == [f"{host}_app.py" for host in ("django", "fastapi", "litestar", "quart", "starlette")]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_an_example_is_short(example):
    """At most forty lines, so that it can be read in a minute."""
    assert len(example.read_text().splitlines()) <= 40


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
async def test_an_example_serves_a_shop_and_stops_cleanly(example, empty_database_url):
    """On an empty database: page, script, beacon, purchase, link and an unknown page; then SIGTERM ends it without a trace."""
    port = a_free_port()
    page = {"event_id": str(uuid.uuid4()), "url": f"http://127.0.0.1:{port}/"}
    owner = Analytics(empty_database_url, Config(secret_key=SECRET, worker=False))
    browser = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers={"user-agent": FIREFOX, "accept": "text/html"}
    )
    async with running(example, empty_database_url, port) as process, browser:
        await until_it_answers(process, browser)
        await owner.links.create(domain="127.0.0.1", key="lamp", url="https://shop.example/lamp")
        answers = [
            await browser.get("/"),
            await browser.get("/ga/js/good-analytics.js"),
            await browser.post("/ga/t/event", content=msgspec.json.encode(page)),
            await browser.post("/buy"),
            await browser.get("/l/lamp"),
            await browser.get("/no-such-page"),
        ]
        await owner.drain()
        visitor = await owner.resolve({"anonymous_id": browser.cookies["_ga_anon"]})
        process.send_signal(signal.SIGTERM)
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    await owner.stop()

    assert [answer.status_code for answer in answers] == [200, 200, 202, 200, 302, 404]
    assert (visitor.total_pageviews, visitor.ltv) == (1, {"EUR": 4900})
    # uvicorn shuts down in good order and then ends by the very signal that it was sent.
    assert process.returncode in (0, -signal.SIGTERM)
    assert ("Finished server process" in output.decode(), "Traceback" in output.decode()) == (True, False)
