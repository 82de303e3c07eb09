"""
One file of the spool: a SQLite database (WAL, synchronous=FULL) that one process holds. Everything here blocks.

1. `hits-<token>.lock` is made before `hits-<token>.sqlite` and removed after it. Whoever has its flock holds the file; the
   kernel drops that with the process, also at SIGKILL. A child forked without exec shares the hold until it ends, too.
2. The lock is a file of its own: SQLite loses its locks when its process closes any other descriptor of the database
   (sqlite.org/howtocorrupt.html, 2.2), and on some systems flock and SQLite's own locks are one and the same.
3. The file with its WAL never exceeds its bytes: a quarter, at most `MOST_WAL`, is kept for the WAL and SQLite itself
   refuses to let the rest grow beyond. What does not fit is refused; nothing is overwritten.
4. Taking hits out must work on a full disk, where SQLite cannot even delete: what was handed over is remembered in memory
   and deleted when that is possible. Only a crash in between makes a hit come twice.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from goodanalytics.errors import Busy

if sys.platform != "win32":
    import fcntl

FILES = "hits-*.sqlite"
BROKEN = "hits-*.broken"

PAGE = 4096
MOST_WAL = 8 * 1024 * 1024
LEAST_BYTES = 1024 * 1024
MOST_READ = 4 * 1024 * 1024  # bytes of bodies in one look
_ROW_COST = 64  # bytes, more than a row needs beside its body
_COMMIT_COST = 16 * PAGE
_AT_ONCE = 64
"""Bodies in one statement. Between two of them the app's own thread takes the interpreter, and this one has to wait for it."""


class HeldFile:
    """
    A file of the spool that this process holds. Use it from the one thread that made it.

    Attributes:
        path: Of the SQLite database.
        count: Hits in it that were not handed over yet.
    """

    def __init__(self, path: Path, lock: int, most_bytes: int) -> None:
        self.path = path
        self.count = 0
        self._lock = lock
        self._taken = 0
        self._wal = path.with_name(path.name + "-wal")
        self._wal_room = min(MOST_WAL, most_bytes // 4)
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(f"PRAGMA max_page_count = {(most_bytes - self._wal_room) // PAGE}")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {self._wal_room // 2 // PAGE}")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS hits (number INTEGER PRIMARY KEY, body BLOB NOT NULL)"
            )
            (self.count,) = self._db.execute("SELECT count(*) FROM hits").fetchone()
        except BaseException:
            self._db.close()
            raise

    @classmethod
    def create(cls, path: Path, most_bytes: int) -> Self | None:
        """
        Make *path*; `None` when somebody else has that name.

        Raises:
            OSError, sqlite3.Error: It cannot be made; what was made of it is removed.
        """
        if path.exists() or (lock := try_lock(lock_of(path))) is None:
            return None
        try:
            made = cls(path, lock, most_bytes)
            _sync(path.parent)
        except BaseException:
            _remove(path)
            os.close(lock)
            raise
        return made

    @classmethod
    def adopt(cls, path: Path, most_bytes: int) -> Self | None:
        """
        Take *path* over; `None` when somebody holds it, or when it is gone by now.

        Raises:
            OSError, sqlite3.Error: It cannot be opened; it stays as it is.
        """
        lock = try_lock(lock_of(path))
        if lock is None:
            return None
        try:
            if not path.exists():  # its holder died while it removed it, or was faster
                _remove(path)
                os.close(lock)
                return None
            return cls(path, lock, most_bytes)
        except BaseException:
            os.close(lock)
            raise

    @property
    def size(self) -> int:
        """Bytes on disk, with the WAL."""
        return size_of(self.path) + size_of(self._wal)

    def append(self, bodies: Sequence[bytes]) -> None:
        """
        Return when *bodies* are on disk, all or none.

        Raises:
            Busy: The file has its bytes.
            sqlite3.Error: The disk is full (`SQLITE_FULL`), or worse.
        """
        # Bodies of half a page and a bit more waste almost half of each page.
        need = 2 * sum(len(body) + _ROW_COST for body in bodies) + _COMMIT_COST
        if size_of(self._wal) + need > self._wal_room:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if size_of(self._wal) + need > self._wal_room:
                raise Busy(f"{self.path} cannot take {len(bodies)} hits more; its write-ahead log is full")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for start in range(0, len(bodies), _AT_ONCE):
                some = bodies[start : start + _AT_ONCE]
                self._db.execute(f"INSERT INTO hits (body) VALUES (?){', (?)' * (len(some) - 1)}", some)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                with suppress(sqlite3.Error):  # the first error says more
                    self._db.execute("ROLLBACK")
            raise
        self.count += len(bodies)

    def oldest(self, most: int) -> tuple[int, list[bytes]]:
        """Up to *most* of the oldest bodies that were not handed over, and the number of the last of them."""
        bodies: list[bytes] = []
        number = size = 0
        found = self._db.execute(
            "SELECT number, body FROM hits WHERE number > ? ORDER BY number LIMIT ?", (self._taken, most)
        )
        for number, body in found:  # noqa: B007  # the last one is the answer
            bodies.append(body)
            size += len(body)
            if size > MOST_READ:
                break
        found.close()
        return number, bodies

    def forget(self, number: int, count: int) -> None:
        """Delete the *count* bodies up to *number*, which were handed over. See rule 4."""
        self._taken = number
        self.count -= count
        if size_of(self._wal) < self._wal_room:
            with suppress(sqlite3.Error):  # rule 4
                self._db.execute("DELETE FROM hits WHERE number <= ?", (number,))

    def close(self) -> None:
        """Let go of it as it is. Whoever comes next adopts it."""
        with suppress(sqlite3.Error):  # a last checkpoint that fails leaves the WAL, which is as good
            self._db.close()
        os.close(self._lock)

    def remove(self) -> None:
        """Let go of it and leave nothing of it."""
        self._db.close()
        _remove(self.path)
        os.close(self._lock)


def lock_of(path: Path) -> Path:
    """The file whose flock holds *path*."""
    return path.with_suffix(".lock")


def try_lock(path: Path, *, make: bool = True) -> int | None:
    """
    A descriptor that holds *path*, which the kernel drops with this process; `None` when somebody else has it.

    Without *make*, a lock that is missing raises `FileNotFoundError`.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between the two calls its holder may have removed it: then this is the lock of nothing.
        if os.fstat(fd).st_ino == path.stat().st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be read, so that it is in nobody's way and nothing of it is lost. Returns its new name."""
    aside = path.with_suffix(".broken")
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    lock_of(path).unlink(missing_ok=True)
    return aside


def size_of(path: Path) -> int:
    """Bytes of *path*; 0 when it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    lock_of(path).unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    """Make the names in *directory* outlive a power cut."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
