"""
The log with its spool behind it, on a real PostgreSQL that closes its door, or keeps everybody waiting.

`closed` lets the database refuse connections, `stuck` holds a lock so that no COPY is answered.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import httpx
import pytest
from click.testing import CliRunner
from sqlalchemy import make_url, text

from goodanalytics import Analytics, Config
from goodanalytics import log as safe_log
from goodanalytics.cli import commands as cli
from goodanalytics.core import raw
from goodanalytics.core.hits import EventType, Hit, Signals
from goodanalytics.errors import Busy, ConfigError, DatabaseUnavailable, SchemaError
from goodanalytics.log.spool import place_of
from goodanalytics.log.spool_contents import contents

BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)
PATIENCE = 60.0


async def page(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<!doctype html><title>Shop</title>"})


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    """Looks at the database and for abandoned files come soon."""
    monkeypatch.setattr(safe_log, "PROBE", 0.05)
    monkeypatch.setattr(safe_log, "ADOPT", 0.05)
    monkeypatch.setattr("goodanalytics.store.start.PAUSES", (0.05, 0.05))


@pytest.fixture
def config(config: Config, tmp_path) -> Config:
    """With a spool; nothing is processed unless a test asks for it."""
    return dataclasses.replace(
        config,
        worker=False,
        spool_path=tmp_path,
        spool_bytes=4 * 1024 * 1024,
        spool_after=timedelta(seconds=30),
    )


@pytest.fixture
async def analytics(database_url, config) -> AsyncIterator[Analytics]:
    async with Analytics(database_url, config) as running:
        yield running


def hit(config: Config, number: int, browser: str = "one-browser") -> Hit:
    """The hit of that number, received that many seconds later."""
    at = config.clock() + timedelta(seconds=number)
    return Hit(
        id=uuid.UUID(int=number + 1),
        workspace_id=config.workspace,
        received_at=at,
        occurred_at=at,
        event_type=EventType.PAGEVIEW,
        origin="browser",
        signals=Signals(anonymous_id=browser),
    )


@asynccontextmanager
async def closed(database_url: str, postgres) -> AsyncIterator[None]:
    """No connection to the database within, and none that was there before."""
    name = make_url(database_url).database
    conn = await asyncpg.connect(postgres.url().replace("+asyncpg", ""))
    try:
        await conn.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await conn.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", name
        )
        yield
        await conn.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    finally:
        await conn.close()


@asynccontextmanager
async def stuck(database_url: str) -> AsyncIterator[None]:
    """Connections are welcome and no COPY into the log is ever answered within."""
    conn = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    try:
        async with conn.transaction():
            await conn.execute("LOCK TABLE good_analytics.hits IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await conn.close()


async def in_log(analytics: Analytics) -> list[Hit]:
    """The hits in the log, in its order."""
    async with analytics.database.connect() as conn:
        bodies = await conn.execute(text("SELECT body FROM good_analytics.hits ORDER BY id"))
        return [raw.decoded(row.body) for row in bodies]


async def drained(analytics: Analytics) -> None:
    """Return when the spool is empty, without being asked to."""
    async with asyncio.timeout(PATIENCE):
        while contents(analytics.config.spool_path) or analytics.log._is_diverted:
            await asyncio.sleep(0.01)


async def test_hits_of_an_outage_are_safe_and_then_in_the_log_in_order(
    analytics, database_url, postgres, config
):
    """Acknowledged into the spool, drained by itself, each with the time at which it came, the spool empty again."""
    hits = [hit(config, number) for number in range(1_200)]
    await analytics.log.append(hits[:10])
    async with closed(database_url, postgres):
        for number in range(10, 60):
            await analytics.log.append([hits[number]])
        await analytics.log.append(hits[60:])
        spooled = sum(file.hits for file in contents(config.spool_path))
    await drained(analytics)

    assert spooled == 1_190
    assert await in_log(analytics) == hits
    assert [path for path in config.spool_path.rglob("*") if path.is_file()] == []


async def test_an_outage_is_reported_once(analytics, database_url, postgres, config, errors):
    """Whoever is called at night hears of the database one time, not once for each hit."""
    async with closed(database_url, postgres):
        await asyncio.gather(*(analytics.log.append([hit(config, number)]) for number in range(200)))
        await asyncio.sleep(10 * safe_log.PROBE)
    await drained(analytics)

    assert [type(error) for error in errors] == [DatabaseUnavailable]


async def test_a_database_that_does_not_answer_keeps_nobody_longer_than_it_may(database_url, config):
    """A lock, a partition or a hung disk: after `spool_after` the hit is in the spool, and the lock is still there."""
    config = dataclasses.replace(config, spool_after=timedelta(seconds=0.2))
    async with Analytics(database_url, config) as analytics:
        async with stuck(database_url), asyncio.timeout(PATIENCE):
            await asyncio.gather(*(analytics.log.append([hit(config, number)]) for number in range(300)))
            assert await analytics.log.spool.oldest(1) is not None
        await drained(analytics)

        assert {one.id for one in await in_log(analytics)} == {
            hit(config, number).id for number in range(300)
        }


async def test_while_the_database_is_known_to_be_away_nobody_waits_for_it(database_url, config):
    """One hit pays the time-out; those after it do not ask, though the database might take a year to answer."""
    config = dataclasses.replace(config, spool_after=timedelta(seconds=0.2))
    async with Analytics(database_url, config) as analytics:
        async with stuck(database_url), asyncio.timeout(PATIENCE):
            await analytics.log.append([hit(config, 0)])
            analytics.log.primary._commit.patience = 365 * 24 * 60 * 60
            for number in range(1, 200):
                await analytics.log.append([hit(config, number)])
            assert analytics.log.is_down
        await drained(analytics)

        assert {one.id for one in await in_log(analytics)} == {
            hit(config, number).id for number in range(200)
        }


async def test_the_order_of_one_browser_survives_an_outage_and_the_way_back(
    analytics, database_url, postgres, config
):
    """Who waits for each answer before it sends the next finds its hits in the log as it sent them, at every switch."""
    sent: list[int] = []

    async def browse() -> None:
        while not is_over:
            await analytics.log.append([hit(config, len(sent))])
            sent.append(len(sent))

    is_over = False
    browsing = asyncio.ensure_future(browse())
    for _ in range(3):
        async with closed(database_url, postgres):
            seen = len(sent)
            while len(sent) < seen + 100:
                await asyncio.sleep(0.01)
        while analytics.log._is_diverted:
            await asyncio.sleep(0.01)
    is_over = True
    await browsing
    await drained(analytics)

    order = [one.id.int - 1 for one in await in_log(analytics)]
    assert list(dict.fromkeys(order)) == sent


async def test_new_hits_go_to_the_database_again_though_they_never_pause(
    analytics, database_url, postgres, config
):
    """Sixty-four senders without a pause do not keep the spool filled for ever."""
    numbers = iter(range(1_000_000))

    async def browse() -> None:
        while not is_over:
            await analytics.log.append([hit(config, next(numbers))])

    is_over = False
    async with closed(database_url, postgres):
        browsing = [asyncio.ensure_future(browse()) for _ in range(64)]
        while analytics.log.spool.pending < 2_000:
            await asyncio.sleep(0.01)
    await drained(analytics)
    is_over = True
    await asyncio.gather(*browsing)
    await analytics.log.settle()

    assert {one.id.int for one in await in_log(analytics)} == set(range(1, next(numbers) + 1))


async def test_the_same_spool_drained_twice_counts_once(database_url, postgres, config, tmp_path):
    """A crash between the log's answer and the deletion brings hits back, and processing knows them by their ids."""
    copy = tmp_path.with_name(tmp_path.name + "-copy")
    async with Analytics(database_url, config) as analytics, closed(database_url, postgres):
        await analytics.log.append([hit(config, number, f"browser {number % 7}") for number in range(700)])
        await analytics.log.stop()
    shutil.copytree(config.spool_path, copy)
    sizes = []
    for _ in range(2):
        async with Analytics(database_url, config) as analytics:
            await drained(analytics)
            sizes.append(len(await in_log(analytics)))
        shutil.copytree(copy, config.spool_path, dirs_exist_ok=True)
    async with Analytics(database_url, config) as analytics:
        assert await analytics.drain() == 2_100
        async with analytics.database.connect() as conn:
            counted = await conn.execute(
                text(
                    "SELECT (SELECT count(*) FROM good_analytics.events), "
                    "(SELECT sum(pageviews) FROM good_analytics.sessions), (SELECT count(*) FROM good_analytics.visitors)"
                )
            )
            assert tuple(counted.one()) == (700, 700, 7)
    assert sizes == [700, 1_400]


async def test_what_a_stopped_app_left_in_its_spool_comes_first_after_the_next_start(
    database_url, postgres, config
):
    """A deployment during an outage: shutting down drains nothing and loses nothing."""
    async with Analytics(database_url, config) as old, closed(database_url, postgres):
        await old.log.append([hit(config, 0), hit(config, 1)])
        await old.log.stop()
    async with Analytics(database_url, config) as new:
        await new.log.append([hit(config, 2)])
        await drained(new)

        assert await in_log(new) == [hit(config, number) for number in range(3)]


async def test_a_full_spool_answers_busy_and_loses_nothing(analytics, database_url, postgres, config):
    """At the bound the caller hears that its hits are not safe; what was acknowledged before is."""
    taken, refusal = 0, None
    async with closed(database_url, postgres):
        while refusal is None:
            try:
                await analytics.log.append([hit(config, taken + n) for n in range(100)])
                taken += 100
            except Busy as error:
                refusal = error
    await drained(analytics)

    assert refusal.retry_after > 1
    assert taken > 1_000
    assert len(await in_log(analytics)) == taken


async def test_without_a_spool_the_caller_hears_that_nobody_answers(database_url, postgres, config):
    """`spool_path='off'` is the old behaviour: 503, and the script tries again."""
    config = dataclasses.replace(config, spool_path="off")
    async with Analytics(database_url, config) as analytics, closed(database_url, postgres):
        with pytest.raises(DatabaseUnavailable):
            await analytics.log.append([hit(config, 0)])


async def test_bytes_in_a_spool_that_are_no_hit_are_set_aside_by_the_worker(analytics, config):
    """A hit of a release that nobody has any more does not stop the drain, and does not vanish."""
    await analytics.log.spool.append([b"\xff not a hit"])
    analytics.log._is_diverted = True
    await analytics.log.append([hit(config, 0)])
    await analytics.drain()

    async with analytics.database.connect() as conn:
        aside = (await conn.execute(text("SELECT body, error FROM good_analytics.rejected_hits"))).one()
    assert tuple(aside) == (b"\xff not a hit", "cannot be read")


def browser(analytics: Analytics) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(analytics.wrap(page), client=("203.0.113.7", 1234))
    return httpx.AsyncClient(
        transport=transport,
        base_url="https://shop.example",
        headers={"user-agent": BROWSER, "accept": "text/html"},
    )


def beacon(number: int) -> dict[str, str]:
    return {"event_id": str(uuid.UUID(int=number + 1)), "url": "https://shop.example/"}


async def test_pages_beacons_and_redirects_go_on_while_the_database_is_away(
    analytics, database_url, postgres
):
    """202 and 302 as if nothing had happened; only a link that nobody has asked for yet has to wait."""
    for key in ("known", "unknown"):
        await analytics.links.create(domain="shop.example", key=key, url="https://shop.example/lamps")
    async with browser(analytics) as client:
        before = await client.get("/l/known")
        async with closed(database_url, postgres):
            beacons = [await client.post("/ga/t/event", json=beacon(n)) for n in range(20)]
            clicks = [await client.get("/l/known") for _ in range(20)]
            rest = [await client.get("/"), await client.get("/l/unknown")]
        await drained(analytics)

    assert before.status_code == 302
    assert {answer.status_code for answer in beacons} == {202}
    assert {answer.status_code for answer in clicks} == {302}
    assert [answer.status_code for answer in rest] == [200, 503]
    assert await analytics.drain() == 41


async def test_a_link_in_memory_leads_on_though_the_database_never_answers(
    database_url, config, clock, monkeypatch
):
    """Once the log knows that nobody answers, a redirect asks nobody, however old its copy is."""
    config = dataclasses.replace(config, spool_after=timedelta(seconds=0.2))
    async with Analytics(database_url, config) as analytics, browser(analytics) as client:
        await analytics.links.create(domain="shop.example", key="known", url="https://shop.example/lamps")
        await client.get("/l/known")
        conn = await asyncpg.connect(database_url.replace("+asyncpg", ""))
        async with conn.transaction(), asyncio.timeout(PATIENCE):
            await conn.execute(
                "LOCK TABLE good_analytics.hits, good_analytics.links IN ACCESS EXCLUSIVE MODE"
            )
            clock.advance(timedelta(minutes=5))
            answers = [(await client.get("/l/known")).status_code]
            monkeypatch.setattr("goodanalytics.web.links.catalogue.LOOK_UP_SECONDS", 365 * 24 * 60 * 60)
            answers += [(await client.get("/l/known")).status_code for _ in range(19)]
        await conn.close()
        await drained(analytics)

        assert answers == [302] * 20
        assert await analytics.drain() == 21


async def test_an_app_starts_while_the_database_is_away(database_url, postgres, config, errors):
    """A server that comes up before its database serves, takes hits, and completes its start when it can."""
    analytics = Analytics(database_url, dataclasses.replace(config, worker=True))
    async with closed(database_url, postgres):
        await analytics.start()
        async with browser(analytics) as client:
            answers = [
                (await client.get("/")).status_code,
                (await client.post("/ga/t/event", json=beacon(0))).status_code,
                (await client.get("/l/any")).status_code,
                (await client.get("/ga/readyz")).status_code,
            ]
    try:
        await drained(analytics)
        async with asyncio.timeout(PATIENCE):
            while (await in_log(analytics)) or not analytics.worker._task:
                await asyncio.sleep(0.01)
        async with analytics.database.connect() as conn:
            events = (await conn.execute(text("SELECT count(*) FROM good_analytics.events"))).scalar_one()
    finally:
        await analytics.stop()

    assert answers == [200, 202, 503, 503]
    assert events == 1
    assert isinstance(errors[0], DatabaseUnavailable)


async def test_a_start_that_never_completed_can_be_stopped(database_url, postgres, config):
    """Nothing is left running, and the hit stays for the next start."""
    analytics = Analytics(database_url, config)
    async with closed(database_url, postgres):
        await analytics.start()
        await analytics.log.append([hit(config, 0)])
        await analytics.stop()

    assert [(file.hits, file.is_held) for file in contents(config.spool_path)] == [(1, False)]
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("goodanalytics")]


@pytest.mark.parametrize(
    ("database", "error"),
    [
        pytest.param("empty", SchemaError, id="without our tables"),
        pytest.param("nobody_has_this_one", DatabaseUnavailable, id="a name that does not exist"),
    ],
)
async def test_a_wrong_set_up_stops_the_start_in_spite_of_a_spool(
    database, error, empty_database_url, config
):
    """Only silence is an outage; a database that answers and cannot be right is a mistake to be told at once."""
    url = make_url(empty_database_url)
    url = url if database == "empty" else url.set(database=database)
    analytics = Analytics(url, config)

    with pytest.raises(error):
        await analytics.start()
    assert not analytics.is_running
    await analytics.stop()


async def test_a_spool_that_cannot_be_kept_is_a_warning_at_the_start(database_url, config, tmp_path, caplog):
    """The app runs without it, and its log says what to do."""
    (tmp_path / "file").write_text("")
    async with Analytics(database_url, dataclasses.replace(config, spool_path=tmp_path / "file")):
        warnings = [record.message for record in caplog.records if record.name == "goodanalytics"]

    assert len(warnings) == 1
    assert "spool_path" in warnings[0]


async def test_doctor_shows_what_lies_in_a_spool(analytics, database_url, postgres, config):
    """A command tells how much of an outage is still on this machine's disk."""
    async with closed(database_url, postgres):
        await analytics.log.append([hit(config, 0), hit(config, 1)])
        arguments = ["doctor", "--database", database_url, "--spool", str(config.spool_path)]
        away = await asyncio.to_thread(CliRunner().invoke, cli.main, arguments)
    await drained(analytics)
    back = await asyncio.to_thread(CliRunner().invoke, cli.main, arguments)

    assert (away.exit_code, back.exit_code) == (1, 0)
    assert "warning  2 hits (" in away.output
    assert f"nothing lies in the spool at {config.spool_path}" in back.output


async def test_doctor_does_not_wait_for_a_database_that_hangs(analytics, database_url, config, monkeypatch):
    """What lies on the disk is told all the same."""
    monkeypatch.setattr(cli, "_DOCTORS_PATIENCE", timedelta(seconds=0.3))
    arguments = ["doctor", "--database", database_url, "--spool", str(config.spool_path)]
    async with stuck(database_url), asyncio.timeout(PATIENCE):
        found = await asyncio.to_thread(CliRunner().invoke, cli.main, arguments)

    assert found.exit_code == 1
    assert "wrong    PostgreSQL takes connections and gives no answer within 0.3 s" in found.output
    assert f"nothing lies in the spool at {config.spool_path}" in found.output


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        pytest.param({"XDG_STATE_HOME": "/x"}, "/x/goodanalytics", id="XDG"),
        pytest.param({"STATE_DIRECTORY": "/s:/t", "XDG_STATE_HOME": "/x"}, "/s/goodanalytics", id="systemd"),
        pytest.param({"HOME": "/h"}, "/h/.local/state/goodanalytics", id="a home"),
    ],
)
def test_spools_are_kept_where_state_belongs(environ, place, config, monkeypatch):
    """By default a directory that outlives a reboot, so not a temporary one."""
    for name in ("XDG_STATE_HOME", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    assert str(place_of(dataclasses.replace(config, spool_path=None))) == place


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        pytest.param({"spool_bytes": 1_000}, "spool_bytes is 1000", id="too small for one beacon"),
        pytest.param({"spool_path": False}, "spool_path is False", id="a switch"),
        pytest.param({"spool_after": timedelta(0)}, "spool_after is 0:00:00", id="no patience at all"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_cure(setting, message, config):
    """The start stops with what to write instead."""
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(config, **setting)


def test_the_settings_can_be_given_by_the_environment(config):
    """`GOODANALYTICS_SPOOL_PATH=off` is how a container without a disk says so."""
    environ = {
        "GA_SECRET_KEY": config.secret_key,
        "GA_SPOOL_PATH": "off",
        "GA_SPOOL_BYTES": "5000000",
        "GA_SPOOL_AFTER": "0.5",
    }
    read = Config.from_env("GA_", environ)

    assert (place_of(read), read.spool_bytes, read.spool_after) == (None, 5_000_000, timedelta(seconds=0.5))
    assert (
        str(place_of(Config.from_env("GA_", environ | {"GA_SPOOL_PATH": "/var/spool/ga"}))) == "/var/spool/ga"
    )
    assert dataclasses.replace(config, spool_path="here").spool_path.is_absolute()
