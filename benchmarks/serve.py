"""
One variant as a uvicorn process: `python -m benchmarks.serve benchmarks.apps:bare` prints `ready PORT`.

Asked by SIGUSR2 it prints `answered N`, the number of requests so far.
"""

import asyncio
import ctypes
import importlib
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from benchmarks.sampled import ENVIRONMENT, Sampler


class Announcing(uvicorn.Server):
    """A server that says when it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, self._tell)
        if self.started and sockets:
            print(f"ready {sockets[0].getsockname()[1]}", flush=True)

    def _tell(self) -> None:
        print(f"answered {self.server_state.total_requests}", flush=True)


def main() -> None:
    """Serve until terminated, or until whoever started us is gone."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        return
    module, _, name = sys.argv[1].partition(":")
    app = getattr(importlib.import_module(module), name)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        lifespan="on",
        proxy_headers=False,  # bare is bare, and ours reads X-Forwarded-For by its own rules
    )
    samples = os.environ.get(ENVIRONMENT)
    with socket.create_server(("127.0.0.1", 0), backlog=2_048) as listening:
        if samples is None:
            Announcing(config).run(sockets=[listening])
        else:
            _serve_watched(Announcing(config), listening, Path(samples))


def _serve_watched(server: Announcing, listening: socket.socket, samples: Path) -> None:
    sampler = Sampler()
    signal.signal(signal.SIGUSR1, lambda *_: sampler.forget())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again when it has stopped
    sampler.start()
    try:
        server.run(sockets=[listening])
    finally:
        sampler.write(samples)


if __name__ == "__main__":
    main()
