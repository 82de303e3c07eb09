"""
A host that a test may kill: one page behind `analytics.wrap`, served by uvicorn on a socket that the test holds.

    python app.py FD

The settings come from the environment as in production. `FAULTS_ENGINE=host` passes an engine of the host's own, without
`pool_pre_ping`, in place of the URL; `FAULTS_ENGINE=small` one of `SMALL` connections and half a second of patience, which all are
in the host's hands while somebody reads `/hold`. `FAULTS_CLOCK` is a file with the seconds by which the clock is wrong.

The page's text is the process id, so that a test can tell which process answered.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import AsyncExitStack, suppress
from datetime import datetime, timedelta
from pathlib import Path

import uvicorn
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import create_async_engine

from goodanalytics import Analytics, Config, environment
from goodanalytics.config import utc_now

SMALL = 2

url = environment.database_url()
engines = {
    "host": lambda: create_async_engine(url),
    "small": lambda: create_async_engine(url, pool_size=SMALL, max_overflow=0, pool_timeout=0.5),
}
engine = engines.get(os.environ.get("FAULTS_ENGINE"), lambda: url)()


def wrong_clock() -> datetime:
    return utc_now() + timedelta(seconds=float(Path(os.environ["FAULTS_CLOCK"]).read_text()))


clock = wrong_clock if "FAULTS_CLOCK" in os.environ else utc_now
analytics = Analytics(engine, Config.from_env(clock=clock))


async def hold(receive, send):
    """Keep every connection of the pool until whoever asked hangs up."""
    async with AsyncExitStack() as held:
        got = 0
        while got < SMALL:
            with suppress(PoolTimeout):
                await held.enter_async_context(engine.connect())
                got += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"held", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass


async def page(scope, receive, send):
    if scope["path"] == "/hold":
        await hold(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


app = analytics.wrap(page)


if __name__ == "__main__":
    listening = socket.socket(fileno=int(sys.argv[1]))
    settings = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
        # Browsers here never rest: a connection that was idle for uvicorn's five seconds belongs to a machine that stood still.
        timeout_keep_alive=60,
    )
    uvicorn.Server(settings).run(sockets=[listening])
