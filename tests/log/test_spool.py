"""The spool's files: what was acknowledged is on disk, in order, within its bytes, and comes back whatever happens."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from goodanalytics.config import DEFAULT_WORKSPACE, MIN_SPOOL_BYTES
from goodanalytics.core.hits import EventType, Hit
from goodanalytics.errors import Busy
from goodanalytics.log.spool import Spool, directory_of
from goodanalytics.log.spool_contents import contents, findings
from goodanalytics.store.database import Database
from goodanalytics.store.tables import build

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
MIB = 1024 * 1024


def body(number: int, size: int = 0) -> bytes:
    """A hit as it is encoded, received *number* seconds after noon."""
    at = datetime.fromtimestamp(NOON.timestamp() + number, UTC)
    return msgspec.msgpack.encode(
        Hit(
            id=UUID(int=number),
            workspace_id=DEFAULT_WORKSPACE,
            received_at=at,
            occurred_at=at,
            event_type=EventType.PAGEVIEW,
            origin="browser",
            title="x" * size or None,
        )
    )


def size_of(directory: Path) -> int:
    """Bytes of all files that hold hits, without SQLite's index in shared memory."""
    return sum(path.stat().st_size for path in directory.glob("hits-*") if not path.name.endswith("-shm"))


async def everything(spool: Spool) -> list[bytes]:
    """All bodies, handed over and forgotten."""
    found: list[bytes] = []
    while (batch := await spool.oldest(100)) is not None:
        found += batch.bodies
        await spool.forget(batch)
    return found


async def fill(spool: Spool, size: int = 6_000) -> list[bytes]:
    """Append until the spool refuses; returns what was acknowledged."""
    taken: list[bytes] = []
    with suppress(Busy):
        while True:
            await spool.append([body(len(taken), size)])
            taken.append(body(len(taken), size))
    return taken


def fill_disk(ballast: Path) -> None:
    """Let somebody else take every byte that is left."""
    with suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(b"x" * 512)


Open = Callable[..., Spool]


@pytest.fixture
async def spools(tmp_path: Path, errors: list[BaseException]) -> AsyncIterator[Open]:
    """`spools()` is a spool in this test's directory, as another process would have it; closed at the end."""
    opened: list[Spool] = []
    tokens = (f"token{number}" for number in count())

    def make(directory: Path = tmp_path / "spool", most_bytes: int = MIN_SPOOL_BYTES) -> Spool:
        spool = Spool(
            directory,
            most_bytes=most_bytes,
            new_token=lambda: next(tokens),
            report=lambda error, _doing: errors.append(error),
        )
        opened.append(spool)
        return spool

    yield make
    for spool in opened:
        await spool.close()


async def test_hits_come_back_in_the_order_in_which_they_came(spools):
    """One after the other or many at once, first in is first out."""
    spool = spools()
    for number in range(20):
        await spool.append([body(number)])
    await asyncio.gather(*(spool.append([body(20 + 2 * n), body(21 + 2 * n)]) for n in range(500)))

    assert spool.pending == 1_020
    assert await everything(spool) == [body(number) for number in range(1_020)]
    assert spool.is_idle


async def test_a_spool_that_is_closed_is_adopted_with_everything_in_it(spools, tmp_path):
    """A deployment: the old process leaves one file without a WAL, the new one goes on from there, older hits first."""
    old, new = spools(), spools()
    await old.append([body(1), body(2)])
    await old.close()
    left = sorted(path.name for path in (tmp_path / "spool").iterdir())
    await new.append([body(3)])
    await new.adopt()

    assert left == ["hits-token0.lock", "hits-token0.sqlite"]
    assert await everything(new) == [body(1), body(2), body(3)]


async def test_a_directory_is_empty_before_the_first_hit_and_after_the_last(spools, tmp_path):
    """While all is well there is no file that could grow, leak or be backed up."""
    directory = tmp_path / "spool"
    spool = spools()
    await spool.adopt()
    assert not directory.exists()

    await spool.append([body(1)])
    assert size_of(directory) > 0
    await everything(spool)
    await spool.tidy()

    assert list(directory.iterdir()) == []


async def test_only_its_user_may_look_into_a_spool(spools, tmp_path):
    """Hits carry addresses and names, so the directory is closed to others, also when it was open before."""
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o755)
    await spools().append([body(1)])

    assert directory.stat().st_mode & 0o777 == 0o700


async def test_what_was_handed_over_is_forgotten_also_by_the_next_process(spools):
    """Half a drain leaves the other half."""
    old, new = spools(), spools()
    await old.append([body(number) for number in range(10)])
    batch = await old.oldest(4)
    assert batch is not None
    await old.forget(batch)
    await old.close()
    await new.adopt()

    assert await everything(new) == [body(number) for number in range(4, 10)]


@pytest.mark.parametrize("size", [0, 700, 1_950, 2_100, 4_200, 30_000], ids="{} bytes more".format)
async def test_a_spool_never_exceeds_its_bytes_and_refuses_instead(size, spools, tmp_path):
    """At the bound an append is refused with the time of the next try, and nothing that was taken is overwritten."""
    spool = spools()
    taken: list[bytes] = []
    refusal: Busy | None = None
    while refusal is None:
        more = [body(len(taken) + n, size) for n in range(20_000 // (size + 400) + 1)]
        try:
            await spool.append(more)
            taken += more
        except Busy as error:
            refusal = error
        assert size_of(tmp_path / "spool") <= MIN_SPOOL_BYTES

    assert refusal.retry_after > 1
    assert sum(map(len, taken)) > MIN_SPOOL_BYTES / 4
    assert await everything(spool) == taken


async def test_a_full_spool_takes_hits_again_when_some_were_handed_over(spools):
    """The bound is on what lies there, not on what ever went through."""
    spool = spools()
    await fill(spool)
    for _ in range(4):
        batch = await spool.oldest(100)
        assert batch is not None
        await spool.forget(batch)

    await spool.append([body(1)])


async def test_what_was_adopted_counts_against_the_bound(spools, tmp_path):
    """An app that is killed again and again while the database is away does not fill the disk file by file."""
    taken = [1]
    while taken:
        spool = spools()
        await spool.adopt()
        taken = await fill(spool)
        await spool.close()
        assert size_of(tmp_path / "spool") <= MIN_SPOOL_BYTES

    assert sum(file.hits for file in contents(tmp_path)) > 300


@pytest.fixture
def disk(tmp_path: Path, small_disk: Callable[[Path, int], Path]) -> Path:
    """A disk of 2 MiB."""
    return small_disk(tmp_path / "disk", 2)


async def test_a_full_disk_refuses_and_keeps_what_it_took(spools, disk):
    """No space left is an answer like any other: refused, nothing corrupt, and taken again when there is room."""
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * MIB)
    spool = spools(disk / "spool")
    taken = await fill(spool)

    with pytest.raises(Busy, match="full"):
        await spool.append([body(0, 20_000)])
    assert await spool.oldest(10_000) is not None
    ballast.unlink()
    await spool.append([body(0)])
    await spool.close()
    after = spools(disk / "spool")
    await after.adopt()

    assert len(taken) > 30
    assert await everything(after) == [*taken, body(0)]


async def test_a_full_disk_does_not_keep_hits_from_being_handed_over_once(spools, disk):
    """Deleting needs room as well; what was handed over is not handed over again, and the file goes at the end."""
    spool = spools(disk / "spool")
    taken = await fill(spool)
    fill_disk(disk / "ballast")

    assert await everything(spool) == taken
    await spool.tidy()
    assert list((disk / "spool").iterdir()) == []


async def test_a_disk_that_is_full_from_the_start_leaves_no_half_made_file(spools, disk):
    """The file cannot even be made: refused, and once there is room it is."""
    ballast = disk / "ballast"
    fill_disk(ballast)
    spool = spools(disk / "spool")

    with pytest.raises(Busy):
        await spool.append([body(1)])
    assert list(disk.glob("spool/hits-*")) == []
    ballast.unlink()
    await spool.append([body(1)])
    assert await everything(spool) == [body(1)]


async def test_a_directory_that_cannot_be_made_refuses_and_says_why(spools, tmp_path):
    """A wrong `spool_path` costs the spool and nothing else."""
    (tmp_path / "file").write_text("")
    spool = spools(tmp_path / "file" / "spool")

    assert spool.obstacle() == f"{tmp_path / 'file'} is not a directory that this user may write to"
    with pytest.raises(Busy, match="Not a directory"):
        await spool.append([body(1)])
    assert await spool.adopt() == 0
    assert spools().obstacle() is None


async def test_a_file_that_is_held_is_left_alone(spools):
    """Several processes on one machine do not take each other's hits; of two that find an abandoned file one gets it."""
    living, dead, *others = (spools() for _ in range(5))
    await living.append([body(1)])
    await dead.append([body(2)])
    await dead.close()

    assert sum(await asyncio.gather(*(other.adopt() for other in others))) == 1
    assert sum(other.pending for other in others) == 1
    assert await everything(living) == [body(1)]


CHILD = """
import asyncio, sys
from pathlib import Path
from goodanalytics.log.spool import Spool
from goodanalytics.config import new_token

async def main():
    spool = Spool(Path(sys.argv[1]), most_bytes=1 << 24, new_token=new_token, report=print)
    async def send(sender):
        number = 0
        while True:
            await spool.append([b"%d/%d" % (sender, number)])
            print(f"{sender}/{number}", flush=True)
            number += 1
    await asyncio.gather(*map(send, range(8)))

asyncio.run(main())
"""


async def test_the_file_of_a_killed_process_is_adopted_with_all_that_was_acknowledged(spools, tmp_path):
    """SIGKILL in the middle of commits: the kernel drops the hold, the WAL has every hit whose append returned, in order."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, tmp_path / "spool"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    spool = spools()
    try:
        said = [child.stdout.readline().strip() for _ in range(2_000)]
        adopted_alive = await spool.adopt()
    finally:
        os.kill(child.pid, signal.SIGKILL)
    said += [line.strip() for line in child.stdout if line.endswith("\n")]
    child.wait()
    child.stdout.close()

    assert (adopted_alive, await spool.adopt()) == (0, 1)
    found = [text.decode() for text in await everything(spool)]
    assert set(said) <= set(found)
    assert len(found) == len(set(found)) <= len(said) + 8  # the last of each sender may not have been told
    for sender in range(8):
        mine = [text for text in found if text.startswith(f"{sender}/")]
        assert mine == [f"{sender}/{number}" for number in range(len(mine))]


async def test_a_lock_whose_file_is_gone_is_cleared_away(spools, tmp_path):
    """A process that died while it removed its file leaves nothing for ever."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "hits-old.lock").touch()
    spool = spools()

    assert await spool.adopt() == 0
    assert list((tmp_path / "spool").iterdir()) == []


async def test_a_damaged_file_is_set_aside_and_the_others_are_drained(spools, tmp_path, errors):
    """What nobody can read is kept for a person, said once, and in nobody's way."""
    old, new = spools(), spools()
    await old.append([body(1)])
    await old.close()
    bad = tmp_path / "spool" / "hits-bad.sqlite"
    bad.write_bytes(b"this was a database" * 500)

    assert await new.adopt() == 1
    assert await new.adopt() == 0
    assert await everything(new) == [body(1)]
    assert [type(error) for error in errors] == [sqlite3.DatabaseError]
    assert bad.with_suffix(".broken").read_bytes() == b"this was a database" * 500
    (finding,) = findings(tmp_path, NOON)
    assert (finding.level, "hits-bad.broken" in finding.text) == ("wrong", True)


async def test_pages_that_are_damaged_while_the_file_is_in_use_cost_this_file_alone(spools, tmp_path, errors):
    """The spool goes on with a new file."""
    spool = spools()
    await spool.append([body(n, 2_000) for n in range(100)])
    await spool.close()
    (file,) = (tmp_path / "spool").glob("*.sqlite")
    with file.open("r+b") as pages:
        pages.seek(2 * 4096)
        pages.write(os.urandom(20 * 4096))
    await spool.adopt()
    await spool.append([body(1)])

    assert await everything(spool) == [body(1)]
    assert len(errors) == 1
    assert file.with_suffix(".broken").exists()


async def test_a_caller_that_vanishes_takes_nobody_along(spools):
    """A browser that closes its connection cancels its own wait and no other."""
    spool = spools()
    callers = [asyncio.ensure_future(spool.append([body(number)])) for number in range(100)]
    await asyncio.sleep(0)
    for caller in callers[::2]:
        caller.cancel()
    answers = await asyncio.gather(*callers, return_exceptions=True)

    assert answers[1::2] == [None] * 50
    assert set(await everything(spool)) >= {body(number) for number in range(1, 100, 2)}


async def test_contents_tell_what_lies_there_and_whose_it_is(spools, tmp_path):
    """A look at a spool in use finds every hit and changes nothing."""
    living, dead = spools(), spools()
    await living.append([body(30), body(40)])
    await dead.append([body(10)])
    await dead.close()
    found = contents(tmp_path)

    assert [(file.path.name, file.hits, file.oldest, file.is_held) for file in found] == [
        ("hits-token0.sqlite", 2, NOON.replace(second=30), True),
        ("hits-token1.sqlite", 1, NOON.replace(second=10), False),
    ]
    assert sum(file.bytes for file in found) == size_of(tmp_path / "spool")
    assert [finding.level for finding in findings(tmp_path, NOON)] == ["warning", "warning"]
    await living.append([body(50)])
    assert await everything(living) == [body(30), body(40), body(50)]


def test_an_empty_place_is_fine(tmp_path):
    """No spool is the usual state, and doctor says so."""
    assert [finding.level for finding in findings(tmp_path / "nowhere", NOON)] == ["ok"]


@pytest.mark.parametrize(
    ("url", "schema", "is_same"),
    [
        pytest.param("postgresql+asyncpg://other:secret@db/shop", "good_analytics", True, id="another user"),
        pytest.param(
            "postgresql+asyncpg://ann:pw@db/shop?ssl=require", "good_analytics", True, id="with TLS"
        ),
        pytest.param("postgresql+asyncpg://ann:pw@db/blog", "good_analytics", False, id="another database"),
        pytest.param("postgresql+asyncpg://ann:pw@db:5433/shop", "good_analytics", False, id="another port"),
        pytest.param("postgresql+asyncpg://ann:pw@db/shop", "other", False, id="another schema"),
        pytest.param("postgresql+asyncpg://ann:pw@/shop?host=/run", "good_analytics", False, id="a socket"),
    ],
)
def test_two_logs_never_share_a_directory(url, schema, is_same, tmp_path):
    """Two apps with one `spool_path` do not adopt each other's hits, and a new password changes nothing."""
    ours = Database.open("postgresql+asyncpg://ann:pw@db/shop", build("good_analytics"))
    theirs = Database.open(url, build(schema))

    assert (directory_of(tmp_path, ours) == directory_of(tmp_path, theirs)) is is_same
    assert "pw" not in directory_of(tmp_path, ours).name
