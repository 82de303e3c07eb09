"""
A host that a test may kill: one page behind `analytics.wrap`, served by uvicorn on a socket that the test holds.

    python app.py FD

The settings come from the environment as in production. `FAULTS_ENGINE=host` passes an engine of the host's own, without
`pool_pre_ping`, in place of the URL. The page's text is the process id, so that a test can tell which process answered.
"""

from __future__ import annotations

import os
import socket
import sys

import uvicorn
from sqlalchemy.ext.asyncio import create_async_engine

from goodanalytics import Analytics, Config, environment

url = environment.database_url()
engine = create_async_engine(url) if os.environ.get("FAULTS_ENGINE") == "host" else url
analytics = Analytics(engine, Config.from_env())


async def page(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


app = analytics.wrap(page)


if __name__ == "__main__":
    listening = socket.socket(fileno=int(sys.argv[1]))
    settings = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
    uvicorn.Server(settings).run(sockets=[listening])
