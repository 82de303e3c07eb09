"""The group commit: few writes for many callers, and none of them waits behind a crowd."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest

from goodanalytics.core.clicks import Clicked
from goodanalytics.core.raw import Machine, RawClick, encoded, packed_part
from goodanalytics.errors import Busy
from goodanalytics.log import group_commit
from goodanalytics.log.group_commit import FEW, FLUSH_ROWS, FLUSHES, SECOND, Body, GroupCommit

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
WORKSPACE = UUID(int=7)
CLICKED = Clicked(WORKSPACE, "go.example", "a", "https://shop.example/", (None, None, None, None, None))


class Writer:
    """Writes when it is told to."""

    def __init__(self) -> None:
        self.batches: list[Sequence[Body]] = []
        self.go = asyncio.Event()
        self.commit = GroupCommit(self.write, lambda: None, None)

    async def write(self, hits: Sequence[Body]) -> None:
        self.batches.append(hits)
        await self.go.wait()


def hits(name: bytes, count: int) -> list[Body]:
    return [name + b"%d" % n for n in range(count)]


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_lone_caller_is_written_at_once_and_a_second_flush_waits_for_company() -> None:
    """The first goes alone; those who come meanwhile gather, and only many of them start a flush of their own."""
    writer = Writer()
    waiting = [writer.commit.add([b"first"])]
    await settle()
    waiting += [writer.commit.add([b"%d" % n]) for n in range(SECOND - 1)]
    await settle()
    assert [len(batch) for batch in writer.batches] == [1]
    waiting.append(writer.commit.add([b"last"]))
    await settle()
    assert [len(batch) for batch in writer.batches] == [1, SECOND]
    waiting += [writer.commit.add([b"%d" % n]) for n in range(200)]
    await settle()
    assert len(writer.batches) == FLUSHES
    writer.go.set()
    await asyncio.gather(*waiting)

    assert max(map(len, writer.batches)) == FLUSH_ROWS
    assert writer.commit.waiting == (0, 0)


class OneByOne(Writer):
    """Ends the writes that it is told to end."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[asyncio.Future[None]] = []

    async def write(self, hits: Sequence[Body]) -> None:
        self.batches.append(hits)
        self.ends.append(asyncio.get_running_loop().create_future())
        await self.ends[-1]


async def test_what_gathers_is_not_cut_into_small_writes() -> None:
    """While another flush writes, one that ends leaves the few who wait to it; they are written when it ends, in one."""
    writer = OneByOne()
    waiting = [writer.commit.add([b"first"])]
    await settle()
    waiting += [writer.commit.add([b"%d" % n]) for n in range(SECOND)]
    await settle()
    waiting += [writer.commit.add([b"few"]) for _ in range(SECOND - 1)]
    writer.ends[0].set_result(None)
    await settle()
    assert [len(batch) for batch in writer.batches] == [1, SECOND]
    writer.ends[1].set_result(None)
    await settle()
    assert [len(batch) for batch in writer.batches] == [1, SECOND, SECOND - 1]
    writer.ends[2].set_result(None)
    await asyncio.gather(*waiting)

    assert writer.commit.waiting == (0, 0)


async def test_who_was_left_to_a_flush_that_is_stopped_is_told() -> None:
    """Nobody waits for ever behind a write that was cancelled."""
    writer = OneByOne()
    waiting = [writer.commit.add([b"first"])]
    await settle()
    waiting.append(writer.commit.add([b"behind"]))
    for task in asyncio.all_tasks():
        if task.get_coro().__qualname__ == "GroupCommit._flush":  # type: ignore[union-attr]  # every coroutine has a name
            task.cancel()
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(answer) for answer in answers] == [ConnectionError, ConnectionError]
    assert writer.commit.waiting == (0, 0)


async def test_who_brings_one_hit_is_not_kept_waiting_by_who_brings_hundreds() -> None:
    """Behind fifty callers with a hundred hits each, a single hit is in the next batch but one."""
    writer = Writer()
    writer.go.set()
    crowd = [writer.commit.add(hits(b"crowd", 100)) for _ in range(50)]
    crowd.append(writer.commit.add([b"single"]))
    await asyncio.gather(*crowd)

    place = next(n for n, batch in enumerate(writer.batches) if b"single" in batch)
    assert place <= 2
    assert sum(len(batch) for batch in writer.batches) == 5_001


async def test_a_crowd_of_small_callers_does_not_shut_out_a_large_one() -> None:
    """Every other batch begins with one of the large ones, whole."""
    writer = Writer()
    waiting = [writer.commit.add([b"small"]) for _ in range(1_000)]
    waiting.append(writer.commit.add(hits(b"large", 100)))
    writer.go.set()
    await asyncio.gather(*waiting)

    place = next(n for n, batch in enumerate(writer.batches) if b"large0" in batch)
    assert place <= 2
    assert sum(1 for hit in writer.batches[place] if hit.startswith(b"large")) == 100  # type: ignore[union-attr]  # bytes


async def test_large_callers_may_fill_half_of_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it they are told to come again, while there is room for who brings little."""
    monkeypatch.setattr(group_commit, "WAITING_ROWS", 400)
    writer = Writer()
    waiting = [writer.commit.add(hits(b"large", 100)) for _ in range(2)]
    with pytest.raises(Busy):
        writer.commit.add(hits(b"large", 100))
    waiting += [writer.commit.add(hits(b"few", FEW)) for _ in range(200 // FEW)]
    with pytest.raises(Busy):
        writer.commit.add([b"one more"])
    writer.go.set()
    await asyncio.gather(*waiting)

    assert writer.commit.waiting == (0, 0)


async def test_a_click_weighs_what_a_stranger_put_into_it() -> None:
    """What waits is bounded by bytes, so a long referrer and a long browser name count as what they are."""
    writer = Writer()
    link, machine = (packed_part(part) for part in (CLICKED, Machine(b"m" * 1_000, None)))
    click = RawClick(WORKSPACE, NOW, "a-browser", WORKSPACE, link, machine, b"r" * 1_000)
    done = writer.commit.add([click])
    rows, size = writer.commit.waiting
    writer.go.set()
    await done

    assert rows == 1
    assert size >= len(encoded(click)) > 2_000
