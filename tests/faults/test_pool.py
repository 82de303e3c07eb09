"""No connection to be had: callers are told when to come back, never 500, and everything works again afterwards."""

from __future__ import annotations

import asyncio
import dataclasses
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from goodanalytics import Analytics, Config
from goodanalytics.config import Principal
from goodanalytics.core.hits import Signals
from goodanalytics.errors import DatabaseUnavailable
from goodanalytics.log.spool_contents import contents
from goodanalytics.store.database import Database

BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)


BEACONS = 2_400


async def page(scope, receive, send):
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@pytest.fixture
async def engine(database_url):
    """One connection for everybody, and half a second of patience."""
    engine = create_async_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=0.5)
    yield engine
    await engine.dispose()


@pytest.fixture
async def analytics(engine, config):
    config = dataclasses.replace(config, authenticate=lambda *_: Principal())
    async with Analytics(engine, config) as running:
        yield running


@pytest.fixture
async def client(analytics):
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(analytics.wrap(page)),
        base_url="https://shop.example",
        headers={"user-agent": BROWSER, "authorization": "Bearer any"},
    ) as browser:
        yield browser


def beacon(client):
    return client.post(
        "/ga/t/event",
        json={"event_id": str(uuid4()), "url": "https://shop.example/"},
        headers={"cookie": "_ga_anon=one"},
    )


def api_event(client):
    return client.post("/ga/api/events", json={"event_type": "pageview", "anonymous_id": "one"})


@pytest.mark.parametrize("ask", [beacon, api_event])
async def test_a_pool_that_is_used_up_answers_503_with_retry_after(ask, analytics, engine, client):
    """The connection is the host's for now; what cannot be made safe is refused, and taken when it is sent again."""
    await analytics.resolve({"anonymous_id": "one"})
    async with engine.connect():
        answers = await asyncio.gather(*(ask(client) for _ in range(20)))

    assert {answer.status_code for answer in answers} == {503}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    assert {(await ask(client)).status_code for _ in range(3)} <= {201, 202}


@pytest.mark.parametrize("spool", ["off", "on"])
async def test_a_host_that_takes_every_connection_costs_no_hit_and_no_redirect(
    spool, durable, launch, crowd, exact, tmp_path, wait_until
):
    """In the middle of thousands: without a spool they are told to come back, and with one nobody notices."""
    url, books = durable
    place = "off" if spool == "off" else str(tmp_path / "spool")
    app = await launch(
        url, FAULTS_ENGINE="small", GOODANALYTICS_SPOOL_PATH=place, GOODANALYTICS_SPOOL_AFTER="0.3"
    )
    people = crowd(app.address)

    stream = asyncio.create_task(people.send(BEACONS))
    await people.has_acknowledged(BEACONS // 4)
    async with httpx.AsyncClient(timeout=60) as host, host.stream("GET", f"{app.address}/hold") as held:
        chunks = held.aiter_bytes()  # without a name it would hang up at once
        await anext(chunks)
        if spool == "off":
            await wait_until(lambda: people.answers[503] > 50, "beacons are refused")
        else:
            await people.has_acknowledged(len(people.acknowledged) + BEACONS // 4)
        spooled = sum(file.hits or 0 for file in contents(tmp_path))
    await stream
    await wait_until(lambda: not contents(tmp_path), "the spool is empty")

    assert await people.compare(books) == exact
    assert set(people.answers) == ({202, 503, "hung up"} if spool == "off" else {202, "hung up"})
    assert people.impatient == 0
    assert people.sent - people.acknowledged <= people.given_up
    assert len(people.acknowledged) > BEACONS - 500
    assert set(people.redirects) == {302}
    assert (spooled > BEACONS // 6) == (spool == "on")
    assert spool == "off" or people.safe_clicks == people.clicked


async def test_a_connection_that_comes_free_in_time_serves_all_who_waited(
    analytics, engine, client, wait_until
):
    """Within the pool's patience beacons just wait."""
    async with engine.connect():
        waiting = [asyncio.ensure_future(beacon(client)) for _ in range(20)]
        await wait_until(lambda: analytics.log.primary.waiting[0] == 20, "all of them wait")
    answers = await asyncio.gather(*waiting)
    await analytics.drain()

    assert {answer.status_code for answer in answers} == {202}
    async with analytics.database.connect() as conn:
        assert (await conn.execute(text("SELECT count(*) FROM good_analytics.events"))).scalar_one() == 20


async def test_a_verb_says_that_the_pool_is_used_up(analytics, engine):
    """The error names the pool, its size and the cure."""
    async with engine.connect():
        with pytest.raises(
            DatabaseUnavailable, match=r"QueuePool limit of size 1 .* Give the engine a larger pool"
        ):
            await analytics.resolve(Signals(anonymous_id="one"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
        ({"username": "nobody"}, 'role "nobody" does not exist'),
        ({"query": {"host": "/nowhere"}}, "No such file"),
    ],
    ids=["no such database", "no such user", "no server"],
)
async def test_a_refused_connection_is_an_unavailable_database(change, said, database_url, tables):
    """However SQLAlchemy dresses it up, the caller sees one error, with the server's own reason and without a password."""
    url = create_async_engine(database_url).url.set(password="secret-word", **change)
    database = Database.open(url, tables)

    with pytest.raises(DatabaseUnavailable, match=said) as caught:
        async with database.connect():
            pass

    assert "secret-word" not in str(caught.value)
    await database.close()


async def test_a_connection_that_is_cut_within_a_verb_is_an_unavailable_database(database_url, tables):
    """Neither the statement nor its values, which may be somebody's address, get into the message."""
    database = Database.open(database_url, tables)

    with pytest.raises(DatabaseUnavailable, match="No answer") as caught:
        async with database.begin() as conn:
            await conn.execute(
                text("SELECT pg_terminate_backend(pg_backend_pid()), CAST(:email AS text)"),
                {"email": "ann@example.com"},
            )

    assert "ann@example.com" not in str(caught.value)
    await database.close()


async def test_an_app_that_starts_before_its_database_says_so(tables):
    """A wrong address ends the start with the address in the message."""
    analytics = Analytics(
        "postgresql+asyncpg://goodanalytics@/shop?host=/nowhere",
        Config(secret_key="for-tests-only-" + "0" * 32, spool_path="off"),
    )

    with pytest.raises(DatabaseUnavailable, match=r"/shop\?host=%2Fnowhere"):
        await analytics.start()
