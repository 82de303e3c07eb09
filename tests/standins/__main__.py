"""
A stand-in in a process of its own: `python -m tests.standins meta --wait 0.02` prints `ready PORT`, until it is ended.

On a GET of `/accepted` it answers with what it has taken and what was wrong.
"""

from __future__ import annotations

import argparse
import socket
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec
import uvicorn

from tests.standins import Honest, StandIn
from tests.standins.google import Google
from tests.standins.google_ads import GoogleAds
from tests.standins.linkedin import LinkedIn
from tests.standins.meta import Meta
from tests.standins.openai import OpenAI
from tests.standins.receiver import Receiver
from tests.standins.tiktok import TikTok

STAND_INS: dict[str, type[StandIn]] = {
    kind.__name__.lower(): kind for kind in (Google, GoogleAds, LinkedIn, Meta, OpenAI, Receiver, TikTok)
}


def told(stand_in: StandIn) -> Any:
    """*stand_in*, with a page for whoever started it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/accepted":
            known = {"accepted": stand_in.accepted, "faults": stand_in.faults, "calls": len(stand_in.calls)}
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": msgspec.json.encode(known)})
            return
        await stand_in(scope, receive, send)

    return app


def main() -> None:
    """Serve until somebody ends us."""
    parser = argparse.ArgumentParser(prog="python -m tests.standins")
    parser.add_argument("platform", choices=sorted(STAND_INS))
    parser.add_argument("--wait", type=float, default=0.0, help="seconds before each answer")
    asked = parser.parse_args()
    stand_in = STAND_INS[asked.platform](lambda: datetime.now(UTC))
    stand_in.usual = Honest(asked.wait)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(f"ready {listener.getsockname()[1]}")
    sys.stdout.flush()
    config = uvicorn.Config(
        told(stand_in), log_level="warning", access_log=False, lifespan="off", server_header=False
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
