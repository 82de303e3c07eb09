"""
The spool: where hits are safe while the log cannot be reached. One per process and log, used from one event loop.

    append → group commit in one thread → `hits-<token>.sqlite` …  oldest → (the log has them) → forget

1. A directory belongs to one log; `directory_of` names it after the database. Nothing is in it while all is well: a file
   is made by the first hit that needs it, and removed when its last hit was handed over.
2. Each process writes a file of its own and holds it (`spool_file`). A file that nobody holds is adopted, its hits go first.
3. All files that a process holds have `most_bytes` together. What does not fit is refused with `Busy`, as is everything
   else that the disk will not take; nothing is ever overwritten.
4. A file that cannot be read is renamed to `hits-<token>.broken` and left to a person; the others go on.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

from goodanalytics.config import Config, logger
from goodanalytics.environment import state_directory
from goodanalytics.errors import Busy
from goodanalytics.log.spool_file import FILES, LEAST_BYTES, HeldFile, set_aside
from goodanalytics.store.database import Database

COMMIT_BYTES = 128 * 1024
LINGER = 0.001
"""Seconds before the next commit where several came together: they come again, and what a commit costs hardly depends on how many share it."""
WAITING_BYTES = 32 * 1024 * 1024
CLOSED_SHORTLY = 5  # seconds that a refused browser shall wait; room comes by draining, not by waiting
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True)
class Batch:
    """Some of the oldest hits of one file, encoded; `forget` it when the log has them."""

    file: HeldFile
    number: int
    bodies: list[bytes]


@dataclass(frozen=True, slots=True)
class _Append:
    """One caller's hits, and where it waits for them."""

    bodies: Sequence[bytes]
    size: int
    done: asyncio.Future[None]


class Spool:
    """
    The files that this process holds in *directory*.

    Args:
        directory: Of one log alone, on a local disk; made when it is needed, open to this user only.
        most_bytes: Of all files that this process holds, with their WALs; at least 1 MiB.
        new_token: Names a file.
        report: Told of files that cannot be read.
    """

    def __init__(
        self,
        directory: Path,
        *,
        most_bytes: int,
        new_token: Callable[[], str],
        report: Callable[[BaseException, str], None],
    ) -> None:
        self.directory = directory
        self._most_bytes = most_bytes
        self._new_token = new_token
        self._report = report
        self._own: HeldFile | None = None
        self._adopted: deque[HeldFile] = deque()
        self._waiting: deque[_Append] = deque()
        self._bytes = 0
        self._refused: set[Path] = set()
        self._writing: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None

    @property
    def pending(self) -> int:
        """Hits that lie here and were not handed over."""
        own = self._own
        return sum(file.count for file in list(self._adopted)) + (own.count if own is not None else 0)

    @property
    def is_idle(self) -> bool:
        """Whether nothing lies here and nobody waits to bring more."""
        return self._writing is None and not self.pending

    def obstacle(self) -> str | None:
        """Why nothing could be written here; `None` when nothing is known that would prevent it."""
        place = self.directory
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            return f"{place} is not a directory that this user may write to"
        return None

    async def append(self, bodies: Sequence[bytes]) -> None:
        """
        Return when *bodies* are on disk.

        Raises:
            Busy: They are not, because there is no room or the disk refuses; says why.
        """
        size = sum(map(len, bodies))
        if self._bytes + size > WAITING_BYTES:
            raise Busy
        mine = _Append(bodies, size, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        self._bytes += size
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())
        await mine.done

    async def _write(self) -> None:
        """Commit until nobody waits: what came during one commit goes into the next."""
        try:
            while self._waiting:
                batch = [self._waiting.popleft()]
                size = batch[0].size
                while self._waiting and size + self._waiting[0].size <= COMMIT_BYTES:
                    batch.append(self._waiting.popleft())
                    size += batch[-1].size
                error: Exception | None = None
                try:
                    await self._call(self._commit, [body for waiting in batch for body in waiting.bodies])
                except Busy as refusal:
                    error = refusal
                except Exception as failure:  # noqa: BLE001  # whatever it is, those who wait are told
                    error = Busy(
                        f"The spool in {self.directory} cannot be written: {failure}",
                        retry_after=CLOSED_SHORTLY,
                    )
                    error.__cause__ = failure
                except BaseException:
                    self._answer(batch, Busy("The spool was stopped"))
                    raise
                self._answer(batch, error)
                if len(self._waiting) < len(batch) > 1:
                    await asyncio.sleep(LINGER)
        finally:
            self._writing = None
            self._answer(self._waiting, Busy("The spool was stopped"))
            self._waiting.clear()

    def _answer(self, told: Sequence[_Append] | deque[_Append], error: Exception | None) -> None:
        for waiting in told:
            self._bytes -= waiting.size
            if waiting.done.done():  # its caller is gone
                continue
            if error is None:
                waiting.done.set_result(None)
            else:
                waiting.done.set_exception(error)
                waiting.done.exception()  # marks it as seen

    async def settle(self) -> None:
        """Return when nobody waits for a commit."""
        while self._writing is not None:
            await asyncio.wait({self._writing})

    async def adopt(self) -> int:
        """Take over the files that nobody holds any more; returns how many."""
        return await self._call(self._adopt)

    async def oldest(self, most: int) -> Batch | None:
        """Up to *most* of the oldest hits, of one file; `None` when there are none."""
        return await self._call(self._oldest, most)

    async def forget(self, batch: Batch) -> None:
        """Delete *batch*, which the log has."""
        await self._call(batch.file.forget, batch.number, len(batch.bodies))

    async def tidy(self) -> None:
        """Remove the files whose hits were all handed over. Nobody may append meanwhile."""
        await self._call(self._tidy)

    async def close(self) -> None:
        """Finish the commits under way and let go of all files; those with hits stay for whoever adopts them."""
        await self.settle()
        if self._thread is not None:
            await self._call(self._close)
            self._thread.shutdown(wait=False)
            self._thread = None

    async def _call(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "goodanalytics spool")
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    # In the thread ---------------------------------------------------------------------------------------------------

    def _commit(self, bodies: Sequence[bytes]) -> None:
        if self._own is None:
            self._own = self._create()
        try:
            self._own.append(bodies)
        except sqlite3.Error as error:
            if _code(error) != sqlite3.SQLITE_FULL:
                # Whatever is wrong with it, a new file may do better; this one is left to be adopted.
                self._own.close()
                self._own = None
            raise

    def _create(self) -> HeldFile:
        left = self._most_bytes - sum(file.size for file in self._adopted)
        if left < LEAST_BYTES:
            raise Busy(
                f"The spool in {self.directory} has its {self._most_bytes} bytes", retry_after=CLOSED_SHORTLY
            )
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)  # refused where it is somebody else's
        for _ in range(10):
            if (made := HeldFile.create(self._named(self._new_token()), left)) is not None:
                return made
        raise Busy(f"The spool in {self.directory} finds no free name for a file")

    def _named(self, token: str) -> Path:
        return self.directory / FILES.replace("*", token)

    def _adopt(self) -> int:
        if not self.directory.is_dir():
            return 0
        held = {file.path for file in (self._own, *self._adopted) if file is not None}
        found = 0
        tokens = {path.stem for pattern in (FILES, "hits-*.lock") for path in self.directory.glob(pattern)}
        for path in sorted(self.directory / f"{token}.sqlite" for token in tokens):
            if path in held:
                continue
            try:
                file = HeldFile.adopt(path, self._most_bytes)
            except (sqlite3.Error, OSError) as error:
                if path not in self._refused:  # said once; tried again each time
                    self._refused.add(path)
                    self._report(error, f"adopting {self._damaged(path, error)}")
                continue
            if file is not None:
                self._refused.discard(path)
                self._adopted.append(file)
                found += 1
        return found

    def _damaged(self, path: Path, error: Exception) -> Path:
        """Where the file lies from now on."""
        return set_aside(path) if isinstance(error, sqlite3.Error) and _code(error) in _DAMAGED else path

    def _oldest(self, most: int) -> Batch | None:
        self._drop_adopted()
        for file in [*self._adopted, *([self._own] if self._own is not None else [])]:
            try:
                number, bodies = file.oldest(most)
            except sqlite3.Error as error:
                file.close()
                if file is self._own:
                    self._own = None
                else:
                    self._adopted.remove(file)
                self._report(error, f"reading {self._damaged(file.path, error)}")
                continue
            if bodies:
                return Batch(file, number, bodies)
        return None

    def _drop_adopted(self) -> None:
        while self._adopted and not self._adopted[0].count:
            self._adopted.popleft().remove()

    def _tidy(self) -> None:
        self._drop_adopted()
        if self._own is not None and not self._own.count:
            self._own.remove()
            self._own = None

    def _close(self) -> None:
        self._tidy()
        for file in (self._own, *self._adopted):
            if file is not None:
                file.close()
        self._own = None
        self._adopted.clear()


def directory_of(place: Path, database: Database) -> Path:
    """
    The directory below *place* for the log in *database*: named after where it is, without who connects.

    So two apps that share a place never hand their hits to each other's database.
    """
    url = database.engine.url
    # A Unix socket's directory, or several hosts, stand in the query.
    query = sorted((name, value) for name, value in url.query.items() if name in {"host", "port"})
    where = (url.host, url.port, url.database, query, database.tables.schema)
    return place / f"spool-{hashlib.sha256(repr(where).encode()).hexdigest()[:16]}"


def place_of(config: Config) -> Path | None:
    """The directory that holds the spools of all databases; `None` when there is none, by wish or for want of a home."""
    if config.spool_path is not None:
        return config.spool_path if isinstance(config.spool_path, Path) else None
    state = state_directory()
    return None if state is None else state / "goodanalytics"


def spool_of(config: Config, database: Database) -> Spool | None:
    """The spool that *config* asks for; `None` when it asks for none, or with a warning when there can be none."""
    if config.spool_path == "off":
        return None
    place = place_of(config)
    if place is None or sys.platform == "win32":
        logger.warning(
            "Hits cannot be kept while the database is away: %s. Config(spool_path='off') says that this is meant",
            "this user has no home; give Config(spool_path=…)" if place is None else "Windows has no flock",
        )
        return None
    return Spool(
        directory_of(place, database),
        most_bytes=config.spool_bytes,
        new_token=config.new_token,
        report=config.report,
    )


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 when the error is not SQLite's own."""
    code: Any = getattr(error, "sqlite_errorcode", 0)
    return int(code) & 0xFF
