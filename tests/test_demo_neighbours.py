"""The demo's ad network and bookkeeper: told by the product's own outbox, hard of hearing now and then, deaf to strangers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from goodanalytics.analytics import Analytics
from goodanalytics.config import Config
from goodanalytics.demo import shop
from goodanalytics.demo.neighbours import ADS, ADS_PATH, BOOKS_PATH, REFUSES, ExampleAds, Neighbours
from tests.conftest import FrozenClock
from tests.standins import serving

TOKEN = "the token of the test"
ADA = {"name": "Ada", "email": "ada@example.com"}
AGENT = {
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
    "accept": "text/html",
}


@dataclasses.dataclass
class Town:
    """A shop whose neighbours listen on a port of their own."""

    analytics: Analytics
    neighbours: Neighbours
    origin: str
    clock: FrozenClock
    secret_at: Path

    async def until_quiet(self) -> None:
        """Deliver, and go on a minute at a time, until nothing is left to be sent."""
        while [one for one in await self.deliveries() if one.state in ("pending", "retry_wait")]:
            await self.analytics.dispatcher.deliver_due()
            self.clock.advance(timedelta(minutes=1))

    async def deliveries(self) -> list[Any]:
        return list((await self.analytics.platforms.dispatches(limit=200)).items)


@pytest.fixture
async def town(database_url: str, config: Config, clock: FrozenClock, tmp_path: Path) -> AsyncIterator[Town]:
    secret_at = tmp_path / "secret"
    neighbours = Neighbours(TOKEN, secret_at, clock)
    with serving(Starlette(routes=neighbours.routes)) as (origin,):
        config = dataclasses.replace(
            config, worker=False, platforms=[ExampleAds(url=f"{origin}{ADS_PATH}")], webhook_networks=["127.0.0.1"],
            consent_silence="granted", jitter=lambda: 0.0,
        )  # fmt: skip
        async with Analytics(database_url, config) as analytics:
            yield Town(analytics, neighbours, origin, clock, secret_at)


async def post(town: Town, path: str, body: bytes, **headers: str | bytes) -> int:
    async with httpx.AsyncClient() as client:
        encoded = {
            name: value.encode() if isinstance(value, str) else value for name, value in headers.items()
        }
        sent = [(name.encode(), value) for name, value in encoded.items()]
        return (await client.post(f"{town.origin}{path}", content=body, headers=sent)).status_code


def heard(town: Town) -> dict[str, Counter[tuple[str, int]]]:
    return {
        name: Counter((one.what, one.status) for one in told) for name, told in town.neighbours.told.items()
    }


async def test_what_is_done_in_the_shop_is_told_to_both(town: Town) -> None:
    """A sign-up, a sale and its refund reach the ad network under its own names and the bookkeeper, and nobody's address does."""
    await town.neighbours.introduce(town.analytics, town.origin)
    transport = httpx.ASGITransport(town.analytics.wrap(shop.build(town.analytics, town.neighbours)))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://shop.example", follow_redirects=True, headers=AGENT
    ) as browser:
        await browser.post("/sign-up", data=ADA)
        await browser.post("/cart", data={"product": "gift-card"})
        paid = await browser.post("/checkout", data=ADA | {"nonce": "a-nonce-of-the-test"})
        await town.until_quiet()
        await browser.post("/give-back", data={"order": paid.url.params["order"]})
        await town.until_quiet()
        page = await browser.get("/neighbours")

    assert heard(town) == {
        "Example Ads": Counter(
            {("SignUp", 200): 1, ("Purchase, 50.00 EUR", 200): 1, ("Return, 50.00 EUR", 200): 1}
        ),
        "Example Books": Counter(
            {
                ("lead.created", 200): 1,
                ("sale.created, 50.00 EUR", 200): 1,
                ("refund.created, 50.00 EUR", 200): 1,
            }
        ),
    }
    assert {one.state for one in await town.deliveries()} == {"delivered"}
    assert ("Return, 50.00 EUR" in page.text, "ada" in page.text.lower()) == (True, False)


async def test_every_seventh_request_is_refused_in_turns(town: Town) -> None:
    """The seventh is throttled, the fourteenth finds nobody in; both come again by themselves, and all arrive once."""
    await town.neighbours.introduce(town.analytics, town.origin)
    ada = await town.analytics.identify(external_id="ada")
    for number in range(2 * REFUSES):
        await town.analytics.sale(ada, amount_cents=100, currency="EUR", key=f"order {number}")
    await town.until_quiet()
    found = await town.deliveries()

    assert {name: Counter(one.status for one in told) for name, told in town.neighbours.told.items()} == {
        name: {200: 2 * REFUSES, 429: 1, 503: 1} for name in ("Example Ads", "Example Books")
    }
    assert Counter((one.target == ADS, one.state) for one in found) == {
        (True, "delivered"): 2 * REFUSES,
        (False, "delivered"): 2 * REFUSES,
    }
    assert Counter(one.attempts for one in found) == {
        0: 4 * REFUSES - 2,
        1: 2,
    }  # being throttled is no failure


async def test_a_test_sale_works_and_counts_for_nothing(town: Town) -> None:
    """The dashboard's button is answered, and moves nobody's seventh request nearer."""
    await town.neighbours.introduce(town.analytics, town.origin)
    verdicts = [await town.analytics.platforms.test(ADS) for _ in range(REFUSES)]

    assert {verdict.status for verdict in verdicts} == {"delivered"}


async def test_introducing_again_changes_nothing(town: Town) -> None:
    """A second start finds both; what somebody switched off stays off, and the webhook is one."""
    await town.neighbours.introduce(town.analytics, town.origin)
    secret = town.secret_at.read_text()
    await town.analytics.platforms.disable(ADS)
    await town.neighbours.introduce(town.analytics, town.origin)
    (ads,) = await town.analytics.platforms.list()
    webhooks = await town.analytics.webhooks.list()

    assert (ads.enabled, ads.missing, len(webhooks), town.secret_at.read_text()) == (False, (), 1, secret)


async def test_a_demo_on_another_port_turns_its_webhook(town: Town) -> None:
    """The address follows, so that the same webhook goes on being told."""
    await town.neighbours.introduce(town.analytics, "http://127.0.0.1:9999")
    await town.neighbours.introduce(town.analytics, town.origin)
    await town.analytics.sale(amount_cents=100, currency="EUR", key="one")
    await town.until_quiet()

    assert heard(town)["Example Books"] == {("sale.created, 1.00 EUR", 200): 1}


async def test_a_lost_secret_is_made_anew(town: Town) -> None:
    """Without the file the bookkeeper believes nobody; the next start makes a secret that both know."""
    await town.neighbours.introduce(town.analytics, town.origin)
    town.secret_at.unlink()
    assert await post(town, BOOKS_PATH, b"{}") == 401
    await town.neighbours.introduce(town.analytics, town.origin)
    await town.analytics.sale(amount_cents=100, currency="EUR", key="one")
    await town.until_quiet()

    assert heard(town)["Example Books"] == {("a stranger", 401): 1, ("sale.created, 1.00 EUR", 200): 1}
    assert town.secret_at.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        pytest.param(ADS_PATH, {}, b"{}", 401, id="no token"),
        pytest.param(ADS_PATH, {"x-api-token": "caf\xe9".encode("latin-1")}, b"{}", 401, id="a wrong token"),
        pytest.param(ADS_PATH, {"x-api-token": TOKEN}, b"{}", 400, id="no event"),
        pytest.param(ADS_PATH, {"x-api-token": TOKEN}, b"\xff[" * 9, 400, id="no JSON"),
        pytest.param(ADS_PATH, {"x-api-token": TOKEN}, b'{"id":"1","what":"' + b"x" * 70_000 + b'"}', 400, id="too long"),
        pytest.param(ADS_PATH, {"x-api-token": TOKEN}, b'{"id":"1","what":"Purchase","value":100,"currency":"EUR"}', 200, id="an event"),
        pytest.param(BOOKS_PATH, {}, b'{"type":"sale.created"}', 401, id="no signature"),
        pytest.param(BOOKS_PATH, {"webhook-id": "1", "webhook-timestamp": "1793534400", "webhook-signature": "v1,AAAA"}, b"{}", 401, id="a wrong signature"),
    ],
)  # fmt: skip
async def test_strangers_are_not_believed(
    town: Town, path: str, headers: dict[str, str | bytes], body: bytes, status: int
) -> None:
    """Each asks for what was agreed with the shop, and takes nothing that it cannot read."""
    await town.neighbours.introduce(town.analytics, town.origin)

    assert await post(town, path, body, **headers) == status
