"""The demo as it is started from the command line: what it says, what it shows, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from goodanalytics.demo.crowd import SPLIT
from goodanalytics.demo.stage import Place


@pytest.fixture
async def folder() -> AsyncIterator[Path]:
    # Not below pytest's own directory: that one is closed to the unprivileged user that the server runs as under root.
    parent = Path(tempfile.mkdtemp(prefix="goodanalytics-demo-"))
    parent.chmod(0o711)
    yield parent
    shutil.rmtree(parent)


async def started(folder: Path) -> tuple[asyncio.subprocess.Process, str]:
    """The demo with a small history on a free port, and what it said when it was ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "goodanalytics", "demo", "--port", "0", "--data", str(folder), "--days", "10", "--visitors", "120",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    told = ""
    async with asyncio.timeout(120):
        while "Ctrl-C stops everything" not in told:
            line = (await process.stdout.readline()).decode()
            assert line, f"it ended after saying {told}"
            told += line
    return process, told


async def all_delivered(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """The deliveries, when nothing is under way any more; two minutes are a bound, not an expectation."""
    async with asyncio.timeout(120):
        while True:
            found = (await client.get("/ga/api/dispatches", params={"limit": 200})).json()["data"]
            if found and {one["state"] for one in found} <= {"delivered", "skipped"}:
                return list(found)
            await asyncio.sleep(0.1)


async def test_the_demo_shows_everything_and_leaves_nothing(folder: Path) -> None:
    """Its true figures are what its API says, its newest conversions reach both neighbours, and Ctrl-C ends it all."""
    process, told = await started(folder)
    try:
        (shop,) = re.findall(r"The shop +(http://127\.0\.0\.1:\d+)/", told)
        (key,) = re.findall(r"Bearer (ga_sk_[\w-]+)", told)
        true = json.loads((folder / "demo" / "figures.json").read_text())
        async with httpx.AsyncClient(base_url=shop, headers={"authorization": f"Bearer {key}"}) as client:
            (partner,) = (await client.get("/ga/api/partners")).json()["data"]
            earned = (await client.get(f"/ga/api/partners/{partner['id']}/stats")).json()["earnings"]
            deliveries = await all_delivered(client)
            led = await client.get(f"/l/{SPLIT}")
            pages = [
                (await client.get(path)).status_code
                for path in (
                    "/",
                    "/neighbours",
                    "/ga/dashboard/",
                    "/ga/dashboard/platforms",
                    "/ga/dashboard/dispatches",
                )
            ]
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = await asyncio.wait_for(process.communicate(), 60)

    assert {one["currency"]: one["earned_cents"] for one in earned} == true["partner"]["earned_cents"]
    assert {one["target"].partition(":")[0] for one in deliveries if one["state"] == "delivered"} == {
        "example_ads",
        "webhook",
    }
    assert (led.status_code, led.headers["location"].startswith(f"{shop}/")) == (302, True)
    assert pages == [200] * 5
    assert (process.returncode, rest.decode().strip()) == (0, "Stopped. Nothing is left running.")
    assert list(folder.rglob("postmaster.pid")) == []


@pytest.mark.parametrize(
    ("host", "address", "origin", "networks"),
    [
        ("127.0.0.1", "127.0.0.1:80", "http://127.0.0.1:80", ("127.0.0.1",)),
        ("0.0.0.0", "0.0.0.0:80", "http://127.0.0.1:80", ("127.0.0.1",)),
        ("192.0.2.7", "192.0.2.7:80", "http://192.0.2.7:80", ("192.0.2.7",)),
        ("::1", "[::1]:80", "http://[::1]:80", ("::1",)),
        ("::", "[::]:80", "http://[::1]:80", ("::1",)),
        ("localhost", "localhost:80", "http://localhost:80", ("127.0.0.0/8", "::1")),
    ],
)
def test_the_demo_reaches_itself_and_nobody_else(
    host: str, address: str, origin: str, networks: tuple[str, ...]
) -> None:
    """Wherever it listens, its neighbours are reached at that very machine, and no other address is opened to webhooks."""
    assert Place.of(host, 80) == Place(address, origin, networks)
