"""A start that nobody answers: said once, and completed later by itself."""

from __future__ import annotations

import asyncio

import pytest

from goodanalytics.store import start as starts
from goodanalytics.store.start import Start


async def test_a_database_that_vanishes_within_a_try_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the first try nor one in the background waits for ever for an answer that was lost."""
    monkeypatch.setattr(starts, "LONGEST", 0.05)
    monkeypatch.setattr(starts, "PAUSES", (0.01, 0.01))
    tries: list[int] = []
    complete = asyncio.Event()

    async def begin() -> None:
        tries.append(len(tries))
        if len(tries) < 4:
            await asyncio.Event().wait()
        complete.set()

    said: list[str] = []
    start = Start(begin, lambda error, _doing: said.append(str(error)))
    async with asyncio.timeout(30):
        await start.now_or_later(0.05)
        await complete.wait()
    await start.stop()

    assert (tries, said) == ([0, 1, 2, 3], ["No answer within 0.05 s"])
