"""Short links in two processes: what one changes the other knows, and a limit is a limit for both together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from goodanalytics import Analytics, Config
from goodanalytics.facade.links import Links
from goodanalytics.web.links.catalogue import FRESH

DOMAIN = "go.example"
LINKS = {"GOODANALYTICS_LINK_DOMAINS": DOMAIN}
BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)
Until = Callable[..., Awaitable[None]]


class Doors:
    """A connection to each process of an app, and the links of its database, as a third one changes them."""

    def __init__(self, clients: dict[int, httpx.AsyncClient], links: Links) -> None:
        self.clients = clients
        self.links = links

    async def answers(self, path: str) -> list[tuple[int, str]]:
        """What each process answers: status, and where it leads."""
        got = await asyncio.gather(
            *(client.get(path, headers={"host": DOMAIN}) for client in self.clients.values())
        )
        return [(a.status_code, a.headers.get("location", "").partition("?")[0]) for a in got]


@pytest.fixture
def doors(launch: Any, wait_until: Until) -> Callable[..., Any]:
    """`async with doors(url, books) as doors`: an app in two processes, both of which listen."""

    @asynccontextmanager
    async def open_doors(url: str, books: Any) -> AsyncIterator[Doors]:
        app = await launch(url, workers=2, **LINKS)
        async with AsyncExitStack() as stack:
            clients: dict[int, httpx.AsyncClient] = {}
            while len(clients) < 2:
                one = httpx.Limits(max_connections=1)
                client = httpx.AsyncClient(
                    base_url=app.address,
                    timeout=60,
                    limits=one,
                    headers={"user-agent": BROWSER},
                    verify=False,
                )
                await stack.enter_async_context(client)
                clients.setdefault(int((await client.get("/")).text), client)
            config = Config(secret_key="for-tests-only-" + "0" * 32, spool_path="off")
            analytics = Analytics(url, config)  # never started: it only holds the way to the catalogue
            stack.push_async_callback(analytics.database.close)
            ears = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"

            async def both_listen() -> bool:
                return await books.one(ears) == 2

            site = Doors(clients, analytics.links)
            await site.answers("/listen")  # a process listens from the first link on that it is asked for
            await wait_until(both_listen, "both processes listen")
            yield site

    return open_doors


async def test_a_change_takes_effect_in_every_process_within_a_second(
    durable: Any, doors: Any, wait_until: Until
) -> None:
    """A link that was not there, another destination, and a link that is archived: each process has heard of it by then."""
    url, books = durable
    seconds = FRESH.total_seconds()
    async with doors(url, books) as site:
        seen = [await site.answers("/a")]

        async def leads(expected: tuple[int, str]) -> bool:
            return await site.answers("/a") == [expected] * 2

        link = await site.links.create(domain=DOMAIN, key="a", url="https://shop.example/one")
        await wait_until(lambda: leads((302, "https://shop.example/one")), "the new link is there", seconds)
        await site.links.update(link, url="https://shop.example/two")
        await wait_until(lambda: leads((302, "https://shop.example/two")), "it leads elsewhere", seconds)
        await site.links.archive(link)
        await wait_until(lambda: leads((404, "")), "it is gone", seconds)

    assert seen == [[(404, "")] * 2]


async def test_a_limit_is_exact_under_200_requests_at_two_processes(
    durable: Any, doors: Any, wait_until: Until
) -> None:
    """Neither one too many nor one too few, in the answers, in the uses, and among the clicks."""
    url, books = durable
    async with doors(url, books) as site:
        for key, most in (("limited", 57), ("once", 1)):
            await site.links.create(domain=DOMAIN, key=key, url="https://shop.example/", max_clicks=most)
        address = str(next(iter(site.clients.values())).base_url)
        async with httpx.AsyncClient(
            base_url=address,
            timeout=60,
            headers={"user-agent": BROWSER, "host": DOMAIN},
            limits=httpx.Limits(max_connections=200),
            verify=False,
        ) as crowd:
            many = await asyncio.gather(*(crowd.get("/limited") for _ in range(200)))
            few = await asyncio.gather(*(crowd.get("/once") for _ in range(20)))
        await wait_until(books.is_settled, "the log is empty")
        uses = await books.ask("SELECT count(*) FROM link_uses GROUP BY link_id ORDER BY 1")
        clicks = await books.ask(
            "SELECT count(*) FROM events WHERE link_id IS NOT NULL GROUP BY link_id ORDER BY 1"
        )

    assert Counter(a.status_code for a in many) == {302: 57, 410: 143}
    assert Counter(a.status_code for a in few) == {302: 1, 410: 19}
    assert uses == clicks == [(1,), (57,)]
