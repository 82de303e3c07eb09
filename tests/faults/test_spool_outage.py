"""PostgreSQL stopped in the middle of traffic: 202 and 302 all the way through, and afterwards every hit once."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import Counter

import httpx
import pytest

from goodanalytics.log.spool_contents import contents

BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)
BEACONS = 3_000
CLICKS = 400
MIB = 1024 * 1024


@pytest.fixture
def spool(tmp_path):
    """Where the apps of this test keep what the database cannot take."""
    return tmp_path / "spool"


@pytest.fixture
def stop_and_start(mortal_server):
    """`await stop()` returns when no process of PostgreSQL is left, `await start()` when it answers again."""

    async def stop() -> None:
        await asyncio.to_thread(mortal_server.stop)
        assert not (mortal_server._data / "pg" / "postmaster.pid").exists()

    async def start() -> None:
        await asyncio.to_thread(mortal_server.start)

    return stop, start


async def all_handed_over(wait_until, spool) -> None:
    await wait_until(lambda: not contents(spool), "every spool is empty")


async def test_an_outage_in_the_middle_of_traffic_costs_no_answer_and_no_hit(
    mortal_server, stop_and_start, migrated, launch, crowd, exact, spool, wait_until
):
    """Thousands of beacons across a stop and a start, from two processes: all 202, each one event, the spool empty."""
    stop, start = stop_and_start
    url, books = await migrated(mortal_server)
    app = await launch(url, workers=2, GOODANALYTICS_SPOOL_PATH=str(spool))
    people = crowd(app.address)

    stream = asyncio.create_task(people.send(BEACONS))
    await people.has_acknowledged(BEACONS // 6)
    await stop()
    await people.has_acknowledged(len(people.acknowledged) + BEACONS // 3)
    spooled = sum(file.hits or 0 for file in contents(spool))
    await start()
    await stream
    await all_handed_over(wait_until, spool)

    assert await people.compare(books) == exact
    assert set(people.answers) == {202, "hung up"}
    assert len(people.acknowledged) == BEACONS
    assert spooled > BEACONS // 4
    assert set(people.redirects) == {302}
    assert people.safe_clicks == people.clicked


async def test_every_redirect_of_an_outage_is_answered_and_every_click_counted(
    mortal_server, stop_and_start, migrated, launch, spool, wait_until
):
    """A link that is in memory leads on while PostgreSQL is away, and its clicks are all there afterwards."""
    stop, start = stop_and_start
    url, books = await migrated(mortal_server)
    app = await launch(url, GOODANALYTICS_SPOOL_PATH=str(spool))
    answers: Counter[int] = Counter()

    async with httpx.AsyncClient(base_url=app.address, timeout=60, headers={"user-agent": BROWSER}) as client:

        async def click(times: int) -> None:
            for _ in range(times):
                answers[(await client.get("/l/spring")).status_code] += 1

        await click(1)
        clicking = [asyncio.create_task(click(CLICKS // 8)) for _ in range(8)]
        await wait_until(lambda: answers.total() > CLICKS // 8, "some clicks are through")
        await stop()
        outage = asyncio.create_task(click(CLICKS))  # all of them while nobody is there
        await asyncio.gather(outage, *clicking)
        await start()
        await click(20)
    await all_handed_over(wait_until, spool)
    await wait_until(books.is_settled, "the log is empty")

    assert answers == {302: 1 + CLICKS + CLICKS + 20}
    assert await books.ask("SELECT event_type, count(*) FROM events GROUP BY 1") == [
        ("link_click", answers.total())
    ]


async def test_a_process_that_is_killed_in_an_outage_leaves_its_hits_to_the_living(
    mortal_server, stop_and_start, migrated, launch, crowd, exact, spool, wait_until
):
    """What a dead process had acknowledged is in the other one's hands, and is one event each when PostgreSQL is back."""
    stop, start = stop_and_start
    url, books = await migrated(mortal_server)
    app = await launch(url, workers=2, GOODANALYTICS_SPOOL_PATH=str(spool))
    people = crowd(app.address)
    await people.send(200)
    await stop()

    stream = asyncio.create_task(people.send(BEACONS // 2))
    await wait_until(lambda: len(contents(spool)) == 2, "both processes have a spool")
    await people.has_acknowledged(700)
    app.processes[0].kill()
    await stream
    assert set(people.redirects) <= {302, "broken"}
    await wait_until(lambda: all(file.is_held for file in contents(spool)), "the dead one's is adopted")
    files = len(contents(spool))
    await start()
    await all_handed_over(wait_until, spool)

    assert files == 2
    assert await people.compare(books) == exact
    assert set(people.answers) <= {202, "broken", "hung up"}


async def test_an_app_that_starts_in_an_outage_serves_and_works_when_postgresql_is_there(
    mortal_server, stop_and_start, migrated, launch, crowd, exact, spool, wait_until
):
    """A machine that boots its app before its database loses nothing."""
    stop, start = stop_and_start
    url, books = await migrated(mortal_server)
    await stop()
    app = await launch(url, GOODANALYTICS_SPOOL_PATH=str(spool))
    people = crowd(app.address)
    await people.send(500)
    assert set(people.answers) == {202, "hung up"}

    await start()
    await all_handed_over(wait_until, spool)

    assert await people.compare(books) == exact
    assert app.stop() == [-signal.SIGTERM]  # uvicorn's way to say that it shut down in order


async def test_a_postgresql_that_hangs_costs_one_time_out(
    mortal_server, migrated, launch, crowd, exact, spool, wait_until
):
    """Stopped by SIGSTOP it neither answers nor refuses; hits go to the spool, and the rest of the crowd does not wait."""
    url, books = await migrated(mortal_server)
    app = await launch(url, GOODANALYTICS_SPOOL_PATH=str(spool), GOODANALYTICS_SPOOL_AFTER="5")
    people = crowd(app.address)
    await people.send(200)
    processes = await postgres_processes(mortal_server, books)
    try:
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        async with asyncio.timeout(
            100
        ):  # twenty-five rounds of five seconds, if everybody had to wait each time
            await people.send(600)
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
    await all_handed_over(wait_until, spool)

    assert set(people.answers) == {202, "hung up"}
    assert len(people.acknowledged) == 800
    assert await people.compare(books) == exact


async def test_the_spool_of_a_killed_app_that_is_drained_twice_counts_once(
    mortal_server, stop_and_start, migrated, launch, crowd, exact, spool, tmp_path, wait_until
):
    """A crash between the log's answer and the deletion, or a backup that is put back: the same files a second time."""
    stop, start = stop_and_start
    url, books = await migrated(mortal_server)
    app = await launch(url, GOODANALYTICS_SPOOL_PATH=str(spool))
    people = crowd(app.address)
    await people.send(100)
    await stop()
    await people.send(BEACONS)
    app.kill()
    shutil.copytree(spool, tmp_path / "copy")
    await start()

    taken = []
    for _ in range(2):
        taken.append(sum(file.hits or 0 for file in contents(spool)))
        await app.start()
        await all_handed_over(wait_until, spool)
        await wait_until(books.is_settled, "the log is empty")
        await asyncio.to_thread(app.stop)
        shutil.copytree(tmp_path / "copy", spool, dirs_exist_ok=True)

    assert taken[0] == taken[1] >= BEACONS
    assert await people.compare(books) == exact
    assert len(people.acknowledged) == BEACONS + 100
    assert set(people.redirects) == {302}
    assert people.safe_clicks == people.clicked


@pytest.mark.parametrize("bound", ["its own bytes", "the disk"])
async def test_a_full_spool_refuses_and_loses_nothing_that_it_took(
    bound, mortal_server, stop_and_start, migrated, launch, crowd, exact, spool, wait_until, small_disk
):
    """Beacons hear 503 and when to come back, and are taken when PostgreSQL is there again; links lead on all the while."""
    stop, start = stop_and_start
    url, books = await migrated(mortal_server)
    if bound == "the disk":
        small_disk(spool, 3)
    app = await launch(url, GOODANALYTICS_SPOOL_PATH=str(spool), GOODANALYTICS_SPOOL_BYTES=str(4 * MIB))
    people = crowd(app.address, title="Lamps " * 60)
    await people.send(300)
    await stop()

    stream = asyncio.create_task(people.send(BEACONS + BEACONS // 2))
    await wait_until(lambda: people.answers[503] > 50, "the spool is full")
    at_the_bound, unsafe = len(people.acknowledged), len(people.clicked - people.safe_clicks)
    size = sum(file.bytes for file in contents(spool))
    await start()
    await stream
    await all_handed_over(wait_until, spool)

    assert await people.compare(books) == exact
    assert set(people.answers) == {202, 503, "hung up"}
    assert people.impatient == 0
    assert at_the_bound > 1_000
    assert size <= 4 * MIB
    assert len(people.acknowledged) > at_the_bound + 500
    assert people.sent - people.acknowledged <= people.given_up
    assert set(people.redirects) == {302}
    assert unsafe > 0  # nobody is told that such a click was accepted


async def postgres_processes(server, books) -> list[int]:
    """The postmaster and what serves connections."""
    postmaster = int((server._data / "pg" / "postmaster.pid").read_text().split("\n", 1)[0])
    rows = await books.ask(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    return [postmaster, *(pid for (pid,) in rows)]
