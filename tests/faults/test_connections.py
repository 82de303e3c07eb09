"""Connections that are cut and a PostgreSQL that is killed, in the middle of the stream; and the worker afterwards."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from goodanalytics.log.spool_contents import contents

BEACONS = 2_400


@pytest.mark.parametrize("engine", ["our own", "host"])
async def test_connections_that_are_cut_again_and_again_cost_a_retry_at_the_most(
    engine, durable, launch, crowd, exact
):
    """The app answers 202 or 503 and nothing else, and its worker recovers without being told."""
    url, books = durable
    app = await launch(url, FAULTS_ENGINE=engine)
    people = crowd(app.address)

    stream = asyncio.create_task(people.send(BEACONS))
    for point in range(150, BEACONS - 300, 150):
        await people.has_acknowledged(point)
        await books.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await stream

    assert await people.compare(books) == exact
    assert set(people.answers) <= {202, 503, "hung up"}
    assert people.impatient == 0
    assert people.sent - people.acknowledged <= people.given_up
    assert set(people.redirects) == {302}


@pytest.mark.parametrize("spool", ["off", "on"])
async def test_a_postgresql_that_is_killed_and_restarted_has_everything_that_was_acknowledged(
    spool, mortal_server, migrated, launch, crowd, exact, tmp_path, wait_until
):
    """
    COMMIT answered means on disk, so 202 outlives the server; the app stays up and goes on by itself.

    Without a spool the app says 503 meanwhile, and with one nobody notices. Links lead on in either case.
    """
    url, books = await migrated(mortal_server)
    place = "off" if spool == "off" else str(tmp_path / "spool")
    app = await launch(url, GOODANALYTICS_SPOOL_PATH=place)
    people = crowd(app.address)

    stream = asyncio.create_task(people.send(BEACONS))
    for point in (BEACONS // 4, BEACONS // 2):
        await people.has_acknowledged(point)
        os.kill(postmaster_of(mortal_server), signal.SIGKILL)
        await asyncio.to_thread(mortal_server.start)
    await stream
    await wait_until(lambda: not contents(tmp_path), "the spool is empty")

    assert await people.compare(books) == exact
    assert set(people.answers) == ({202, 503, "hung up"} if spool == "off" else {202, "hung up"})
    assert people.impatient == 0
    assert len(people.acknowledged) > BEACONS - 500
    assert set(people.redirects) == {302}
    assert spool == "off" or people.safe_clicks == people.clicked


def postmaster_of(server) -> int:
    return int((server._data / "pg" / "postmaster.pid").read_text().split("\n", 1)[0])
