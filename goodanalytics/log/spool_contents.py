"""What lies in spools, for people and for `goodanalytics doctor`. Looking changes nothing, also while they are in use."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from goodanalytics.core import raw
from goodanalytics.log.spool_file import BROKEN, FILES, lock_of, size_of, try_lock
from goodanalytics.store.health import Finding, in_seconds


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """
    A file that lies in a spool.

    Attributes:
        hits: How many; `None` when the file cannot be read.
        bytes: On disk, with its WAL.
        oldest: When its first hit was received; `None` when it has none, or none that can be read.
        is_held: Whether a living process has it.
    """

    path: Path
    hits: int | None
    bytes: int
    oldest: datetime | None
    is_held: bool


def contents(path: Path) -> list[SpoolFile]:
    """What lies in the spools at and below *path*, by name. Changes nothing; processes may use them meanwhile."""
    found = [_look(file) for file in sorted(path.rglob(FILES))]
    found = [file for file in found if file.hits is not None or file.path.exists()]  # handed over just now
    return found + [
        SpoolFile(file, None, size_of(file), None, is_held=False) for file in sorted(path.rglob(BROKEN))
    ]


def findings(path: Path, now: datetime) -> list[Finding]:
    """What `goodanalytics doctor` says about the spools at and below *path*."""
    closed = [
        Finding(
            "warning",
            f"{place} is closed to this user. Try: goodanalytics doctor as the app's own user, or as root",
        )
        for place in (path, *path.glob("spool-*"))
        if place.is_dir() and not os.access(place, os.R_OK | os.X_OK)
    ]
    found = closed + [_finding(file, now) for file in contents(path) if file.hits != 0]
    return found or [Finding("ok", f"nothing lies in the spool at {path}")]


def _finding(file: SpoolFile, now: datetime) -> Finding:
    if file.hits is None:
        return Finding(
            "wrong",
            f"{file.path} ({file.bytes} bytes) cannot be read, so its hits are not in the log. "
            "Try: the sqlite3 program's .recover, and put the result beside it under a name like hits-….sqlite",
        )
    age = "" if file.oldest is None else f", the oldest for {in_seconds(now - file.oldest)}"
    cure = (
        "their process hands them over when the database answers"
        if file.is_held
        else "their process is gone; the next app or worker that runs with this spool adopts them"
    )
    return Finding("warning", f"{file.hits} hits ({file.bytes} bytes) lie in {file.path}{age}: {cure}")


def _look(path: Path) -> SpoolFile:
    hits: int | None = None
    oldest: datetime | None = None
    is_held = _is_held(path)
    size = size_of(path) + size_of(path.with_name(path.name + "-wal"))
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as db:
            (hits,) = db.execute("SELECT count(*) FROM hits").fetchone()
            first = db.execute("SELECT body FROM hits ORDER BY number LIMIT 1").fetchone()
        if first is not None:
            hit = raw.decoded(first[0])
            oldest = None if hit is None else hit.received_at
    except sqlite3.Error:
        pass  # what is `None` says so
    return SpoolFile(path, hits, size, oldest, is_held)


def _is_held(path: Path) -> bool:
    try:
        lock = try_lock(lock_of(path), make=False)
    except FileNotFoundError:
        return False
    if lock is None:
        return True
    os.close(lock)
    return False
