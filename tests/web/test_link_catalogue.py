"""The links in memory: fresh while changes are heard, bounded, and never in a visitor's way."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from goodanalytics.config import Config
from goodanalytics.core.links import Domain, Link
from goodanalytics.errors import DatabaseUnavailable
from goodanalytics.log.lines import Lines
from goodanalytics.store import catalog, link_domains
from goodanalytics.store.database import Database
from goodanalytics.store.link_lookups import Address, Found
from goodanalytics.web.links import catalogue as link_catalogue
from goodanalytics.web.links.catalogue import FRESH, MAX_AGE, Catalogue
from tests.conftest import FrozenClock

HOST = "go.example"
WORKSPACE = UUID(int=0)
LONG = 30.0  # seconds that none of these tests takes


@dataclasses.dataclass
class Memory:
    """A catalogue, and the database behind it."""

    database: Database
    config: Config
    url: str
    is_listening: bool = True
    is_down: bool = False

    def __post_init__(self) -> None:
        self.statements: list[list[Address]] = []
        self.catalogue = Catalogue(
            self.config, self.database, lambda: self.is_down, lambda: self.is_listening
        )
        find = self.catalogue._find_once

        async def counted(addresses: list[Address]) -> list[Found]:
            self.statements.append(addresses)
            return await find(addresses)

        self.catalogue._find_once = counted  # type: ignore[method-assign]  # to be counted

    @property
    def look_ups(self) -> int:
        """How many statements asked for links, and forget them."""
        count = len(self.statements)
        self.statements.clear()
        return count

    async def make(self, key: str, url: str = "https://shop.example/", domain: str = HOST) -> Link:
        now = self.config.clock()
        link = Link(
            workspace_id=WORKSPACE,
            id=uuid.uuid4(),
            domain=domain,
            key=key,
            url=url,
            created_at=now,
            updated_at=now,
        )
        by = catalog.Change(workspace_id=WORKSPACE, now=now, actor=None, new_id=uuid.uuid4)
        async with self.database.begin() as conn:
            (done,) = await catalog.create_many(conn, self.database.tables, [catalog.Draft(link)], by)
        self.statements.clear()
        return done.given()

    async def change(self, link: Link, url: str) -> None:
        by = catalog.Change(workspace_id=WORKSPACE, now=self.config.clock(), actor=None, new_id=uuid.uuid4)
        async with self.database.begin() as conn:
            await catalog.update_many(conn, self.database.tables, [(link.id, {"url": url})], by)
        self.statements.clear()

    async def url_of(self, key: str, host: str = HOST) -> str | None:
        async with asyncio.timeout(LONG):
            known = await self.catalogue.find(WORKSPACE, host, key)
        return None if known.link is None else known.link.url

    @asynccontextmanager
    async def silence(self) -> AsyncIterator[None]:
        """For this time the database answers nobody about links, and refuses nobody either."""
        conn = await asyncpg.connect(self.url.replace("+asyncpg", ""))
        try:
            async with conn.transaction():
                await conn.execute("LOCK TABLE good_analytics.links IN ACCESS EXCLUSIVE MODE")
                yield
        finally:
            await conn.close()

    def cut(self) -> None:
        """End every connection; returns before the event loop could have noticed."""

        async def terminate() -> None:
            conn = await asyncpg.connect(self.url.replace("+asyncpg", ""))
            await conn.execute(
                "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await conn.close()

        other = threading.Thread(target=asyncio.run, args=(terminate(),))
        other.start()
        other.join()

    async def lose(self) -> None:
        """From now on nobody is there at all."""
        await self.catalogue._lines.close()
        gone = Database.open("postgresql+asyncpg://nobody@127.0.0.1:9/none", self.database.tables)
        self.catalogue._lines = Lines(gone)


@pytest.fixture
async def memory(
    database: Database, database_url: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Memory]:
    monkeypatch.setattr(link_catalogue, "PATIENCE", LONG)
    monkeypatch.setattr(link_catalogue, "LOOK_UP_SECONDS", LONG)
    memory = Memory(database, config, database_url)
    yield memory
    await memory.catalogue.stop()


async def test_a_link_is_asked_for_once(memory: Memory, clock: FrozenClock) -> None:
    """While every change is heard, it comes from memory, and so does the answer that there is none."""
    await memory.make("a")
    for _ in range(5):
        assert await memory.url_of("a") == "https://shop.example/"
        assert await memory.url_of("b") is None
        clock.advance(MAX_AGE / 10)

    assert memory.look_ups == 2


@pytest.mark.parametrize(
    ("is_listening", "age"), [(True, MAX_AGE), (False, FRESH)], ids=["listening", "not listening"]
)
async def test_how_long_a_copy_is_fresh(
    memory: Memory, clock: FrozenClock, is_listening: bool, age: timedelta
) -> None:
    """Ten minutes at the most where changes are heard, as a second net; a second where nobody listens."""
    memory.is_listening = is_listening
    link = await memory.make("a", "https://shop.example/one")
    await memory.url_of("a")
    await memory.change(link, "https://shop.example/two")
    clock.advance(age - timedelta(milliseconds=1))
    before = await memory.url_of("a")
    clock.advance(timedelta(milliseconds=1))

    assert before == "https://shop.example/one"
    assert await memory.url_of("a") == "https://shop.example/two"


@pytest.mark.parametrize(
    ("word", "is_asked_again"),
    [
        pytest.param(f"{WORKSPACE}/{HOST}/a", [True, False], id="the link"),
        pytest.param(f"{WORKSPACE}/{HOST}/A", [True, False], id="the link in another case"),
        pytest.param(f"{WORKSPACE}/{HOST}:8000/a", [True, False], id="the link with a port"),
        pytest.param(f"{WORKSPACE}/{HOST}/", [True, True], id="its domain"),
        pytest.param(None, [True, True], id="anything"),
        pytest.param("what is that", [True, True], id="nothing that can be read"),
        pytest.param(f"{WORKSPACE}/{HOST}/c", [False, False], id="another link"),
        pytest.param(f"{WORKSPACE}/other.example/a", [False, False], id="another domain"),
    ],
)
async def test_what_a_word_is_about(memory: Memory, word: str | None, is_asked_again: list[bool]) -> None:
    """Only what it names is asked for again, whether there was a link or none."""
    await memory.make("a")
    for key in ("a", "b"):
        await memory.url_of(key)
    memory.statements.clear()
    memory.catalogue.heard(word)
    found = []
    for key in ("a", "b"):
        await memory.url_of(key)
        found.append(bool(memory.look_ups))

    assert found == is_asked_again


async def test_a_word_that_comes_during_a_look_up_is_not_lost(memory: Memory) -> None:
    """What was read before the change is not kept, and not told to those who wait either."""
    link = await memory.make("a", "https://shop.example/one")
    real = memory.catalogue._look_up
    read, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(asked: list[tuple[UUID, str, str]]) -> object:
        answer = await real(asked)
        read.set()
        await go_on.wait()
        return answer

    memory.catalogue._look_up = slowly  # type: ignore[assignment,method-assign]
    waiting = asyncio.create_task(memory.url_of("a"))
    await read.wait()
    await memory.change(link, "https://shop.example/two")
    memory.catalogue.heard(f"{WORKSPACE}/{HOST}/a")
    go_on.set()

    assert await waiting == "https://shop.example/two"
    assert await memory.url_of("a") == "https://shop.example/two"


async def test_look_ups_that_come_together_share_a_statement(memory: Memory) -> None:
    """A hundred people with one link, and sixty with one each."""
    for number in range(3):
        await memory.make(f"k{number}")
    same = await asyncio.gather(*(memory.url_of("k0") for _ in range(100)))
    for_same = memory.look_ups
    others = await asyncio.gather(*(memory.url_of(f"k{n}") for n in range(1, 60)))

    assert (set(same), for_same) == ({"https://shop.example/"}, 1)
    assert [url is not None for url in others] == [True, True] + [False] * 57
    assert memory.look_ups <= 3


async def test_memory_is_bounded(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for longest ago is forgotten, one at a time; keys that nobody has drive out no link."""
    monkeypatch.setattr(link_catalogue, "MAX_CACHED", 2)
    for key in ("a", "b", "c"):
        await memory.make(key)
    for key in ("a", "b", "a", "c", "x", "y", "z"):
        await memory.url_of(key)
    memory.statements.clear()
    kept = []
    for key in ("a", "c", "y", "z", "b"):
        await memory.url_of(key)
        kept.append(memory.look_ups == 0)

    assert kept == [True, True, True, True, False]
    assert len(memory.catalogue._links) + len(memory.catalogue._empty) == 4
    assert sum(map(len, memory.catalogue._spellings.values())) == 4


async def test_a_silent_database_delays_nobody_whose_link_is_in_memory(
    memory: Memory, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old copy is served while the look-up goes on; once it has an answer, the new one is."""
    link = await memory.make("a", "https://shop.example/one")
    await memory.url_of("a")
    await memory.change(link, "https://shop.example/two")
    clock.advance(MAX_AGE)
    monkeypatch.setattr(link_catalogue, "LOOK_UP_SECONDS", 365 * 24 * 60 * 60.0)
    monkeypatch.setattr(link_catalogue, "PATIENCE", 0.05)
    async with memory.silence():
        during = [await memory.url_of("a") for _ in range(20)]
        monkeypatch.setattr(link_catalogue, "PATIENCE", 365 * 24 * 60 * 60.0)
        during += [await memory.url_of("a") for _ in range(20)]
    async with asyncio.timeout(LONG):
        while await memory.url_of("a") != "https://shop.example/two":
            await asyncio.sleep(0.01)

    assert set(during) == {"https://shop.example/one"}


async def test_an_unknown_address_waits_only_so_long(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then whoever asks is told that nobody answers; when somebody does, it is asked for again."""
    await memory.make("a")
    monkeypatch.setattr(link_catalogue, "LOOK_UP_SECONDS", 0.05)
    async with memory.silence():
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable):
                await memory.url_of("a")
    monkeypatch.setattr(link_catalogue, "LOOK_UP_SECONDS", LONG)

    assert await memory.url_of("a") == "https://shop.example/"


async def test_without_a_database_memory_serves_on(memory: Memory, clock: FrozenClock) -> None:
    """However old the copy is, also when words may have been missed; and nobody is asked while the log says that all is down."""
    await memory.make("a")
    await memory.url_of("a")
    memory.is_down = True
    clock.advance(timedelta(days=1))
    memory.statements.clear()
    first = await memory.url_of("a"), memory.look_ups
    memory.is_down = False
    await memory.lose()
    memory.catalogue.heard(None)

    assert first == ("https://shop.example/", 0)
    assert [await memory.url_of("a") for _ in range(3)] == ["https://shop.example/"] * 3
    with pytest.raises(DatabaseUnavailable):
        await memory.url_of("b")


async def test_a_connection_that_is_lost_is_replaced(memory: Memory) -> None:
    """Nobody who asks after a restart of the server is turned away for the connection that was kept."""
    await memory.make("a")
    await memory.url_of("b")
    memory.statements.clear()
    memory.cut()

    assert await memory.url_of("a") == "https://shop.example/"
    assert memory.look_ups == 2


async def test_look_ups_keep_no_connection_when_they_have_ended(memory: Memory) -> None:
    """What the pool gave goes back to it."""
    await memory.url_of("a")
    await memory.catalogue.stop()

    assert memory.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # of a QueuePool


async def test_a_link_that_changed_is_not_served_from_memory(memory: Memory) -> None:
    """What is known to be wrong is worse than nothing: somebody may have archived it for a reason."""
    await memory.make("a")
    await memory.url_of("a")
    await memory.lose()
    memory.catalogue.heard(f"{WORKSPACE}/{HOST}/a")

    with pytest.raises(DatabaseUnavailable):
        await memory.url_of("a")


async def test_a_host_with_a_port_answers_for_links_without_one(memory: Memory) -> None:
    """Its own link comes first, and a change of either is heard."""
    await memory.make("a", "https://shop.example/plain")
    plain = await memory.url_of("a", f"{HOST}:8000")
    await memory.make("a", "https://shop.example/port", domain=f"{HOST}:8000")
    memory.catalogue.heard(f"{WORKSPACE}/{HOST}:8000/a")

    assert plain == "https://shop.example/plain"
    assert await memory.url_of("a", f"{HOST}:8000") == "https://shop.example/port"
    assert await memory.url_of("a") == "https://shop.example/plain"


async def test_spellings_of_a_key_are_one_where_the_domain_says_so(memory: Memory) -> None:
    """Each is looked up once, and a word about the link reaches them all."""
    async with memory.database.begin() as conn:
        await link_domains.put(
            conn,
            memory.database.tables,
            WORKSPACE,
            HOST,
            lambda d: Domain(workspace_id=d.workspace_id, host=d.host, case_sensitive=False),
            memory.config.clock(),
        )
    link = await memory.make("Sale", "https://shop.example/one")
    before = [await memory.url_of(key) for key in ("sale", "SALE")]
    await memory.change(link, "https://shop.example/two")
    memory.catalogue.heard(f"{WORKSPACE}/{HOST}/sale")

    assert link.key == "sale"
    assert before == ["https://shop.example/one"] * 2
    assert [await memory.url_of(key) for key in ("sale", "SALE")] == ["https://shop.example/two"] * 2
