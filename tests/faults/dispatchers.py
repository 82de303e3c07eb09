"""
Workers that a test may kill, born by fork so that each is there within milliseconds.

    python dispatchers.py META_ADDRESS EPOCH SPEED

Each line on standard input asks for another worker, whose process id is answered. A worker delivers the outbox of the
database in the environment, and nothing else. Its clock runs SPEED times as fast as the wall's since EPOCH, so that a lease of
minutes is over in a moment. When standard input ends, or this process does, all workers are killed by the kernel.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta

from goodanalytics import Analytics, Config, environment
from goodanalytics.platforms import Meta

DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, linux/prctl.h


def clock_of(epoch: float, speed: float):
    def clock() -> datetime:
        return datetime.fromtimestamp(epoch, UTC) + timedelta(seconds=(time.time() - epoch) * speed)

    return clock


async def deliver(address: str, epoch: float, speed: float) -> None:
    config = Config.from_env(
        platforms=[Meta(address=address, max_batch=4)], consent_silence="granted", clock=clock_of(epoch, speed),
        worker_interval=timedelta(milliseconds=20), spool_path="off",
    )  # fmt: skip
    analytics = Analytics(environment.database_url(), config)
    analytics.dispatcher.start()
    await asyncio.Event().wait()


def main() -> None:
    address, epoch, speed = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
            asyncio.run(deliver(address, epoch, speed))
        print(pid, flush=True)


if __name__ == "__main__":
    main()
