"""
The suite's databases, clock and settings.

One PostgreSQL server per run, without fsync. One database in it is migrated, and every test that asks for a database gets
a copy of that one, dropped afterwards. Modules that only read, or that use a workspace per test, may share one copy
(`shared_database_url`). `GOODANALYTICS_TEST_DATABASE_URL` names another server to use, by an account that may create
databases.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import settings
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from goodanalytics.config import Config
from goodanalytics.store import schema
from goodanalytics.store.database import Database
from goodanalytics.store.tables import Tables, build

SCHEMA = "good_analytics"
START = datetime(2026, 11, 1, 12, tzinfo=UTC)

_numbers = itertools.count(1)

# At a desk each run draws new examples, and may find what none has found. Where a verdict is passed (`.ci/run`), the same
# tree gets the same verdict.
settings.register_profile("verdict", derandomize=True, database=None)
if os.environ.get("GOODANALYTICS_REQUIRE_ALL") == "1":
    settings.load_profile("verdict")


def needs(what: str, program: str | None, cure: str) -> str:
    """
    *program*, if this machine has it.

    Else the test is skipped, loudly; where nothing may be skipped (GOODANALYTICS_REQUIRE_ALL=1, as in CI) it fails.
    """
    if program is not None:
        return program
    said = f"NO {what.upper()}: these tests did not run. Try: {cure}"
    if os.environ.get("GOODANALYTICS_REQUIRE_ALL") == "1":
        pytest.fail(said)
    pytest.skip(said)


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, int], Path]]:
    """`small_disk(place, 2)`: *place*, now a disk of 2 MiB. Only root can mount one; for others the test is skipped."""
    mounted: list[Path] = []

    def mount(place: Path, mebibytes: int) -> Path:
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"only root can mount a small disk: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", place], check=True)


class Server(Protocol):
    """A running PostgreSQL."""

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy's URL of one of its databases."""
        ...


class ServerAt:
    """A PostgreSQL that somebody else runs."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql+asyncpg")

    def url(self, database: str | None = None) -> str:
        url = self._url if database is None else self._url.set(database=database)
        return url.render_as_string(hide_password=False)


class FrozenClock:
    """A clock that stands still until it is told to go on; pass it as `Config(clock=…)`."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> datetime:
        self.now += by
        return self.now


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One server for the whole run; `url("name")` addresses a database of it."""
    given = os.environ.get("GOODANALYTICS_TEST_DATABASE_URL")
    if given:
        yield ServerAt(given)
        return
    from goodanalytics.embedded import EmbeddedPostgres

    # Not below pytest's own directory: that one is closed to the unprivileged user that the server runs as under root.
    parent = Path(tempfile.mkdtemp(prefix="goodanalytics-tests-"))
    parent.chmod(0o711)
    try:
        with EmbeddedPostgres(parent / "data", fsync=False) as server:
            yield server
    finally:
        shutil.rmtree(parent)


async def _administer(server: Server, statement: str) -> None:
    engine = create_async_engine(server.url(), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(text(statement))


@asynccontextmanager
async def a_database(server: Server, template: str | None = None) -> AsyncIterator[str]:
    """
    The name of a new database, dropped at the end: a copy of *template*, or an empty one.

    The number of the process is in the name, so that several runs can use one server.
    """
    name = f"ga_{os.getpid()}_{next(_numbers)}"
    # file_copy beats the default, which writes every page to the log, as long as fsync is off.
    source = "template0" if template is None else f"{template} STRATEGY file_copy"
    await _administer(server, f"CREATE DATABASE {name} TEMPLATE {source}")
    try:
        yield name
    finally:
        await _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
async def template_database(postgres: Server) -> AsyncIterator[str]:
    """The name of the migrated database that all others are copied from. Connect to a copy, not to this one."""
    async with a_database(postgres) as name:
        engine = create_async_engine(postgres.url(name), poolclass=NullPool)
        await schema.migrate(engine, SCHEMA, now=START)
        await engine.dispose()
        yield name


@pytest.fixture
async def database_url(postgres: Server, template_database: str) -> AsyncIterator[str]:
    """The URL of a migrated, empty database of this test's own."""
    async with a_database(postgres, template_database) as name:
        yield postgres.url(name)


@pytest.fixture
async def empty_database_url(postgres: Server) -> AsyncIterator[str]:
    """The URL of a database of this test's own without our schema."""
    async with a_database(postgres) as name:
        yield postgres.url(name)


@pytest.fixture(scope="module")
async def shared_database_url(postgres: Server, template_database: str) -> AsyncIterator[str]:
    """The URL of one migrated database for all tests of the module."""
    async with a_database(postgres, template_database) as name:
        yield postgres.url(name)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """A host's own engine on this test's database, with nothing of ours in its settings."""
    engine = create_async_engine(database_url)
    yield engine
    await engine.dispose()


@pytest.fixture(autouse=True)
def patient_look_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up of a link may take as long as a busy machine needs; tests of the limit set one of their own."""
    monkeypatch.setattr("goodanalytics.web.links.catalogue.LOOK_UP_SECONDS", 60.0)


@pytest.fixture(scope="session")
def tables() -> Tables:
    """Our tables, as SQLAlchemy sees them."""
    return build(SCHEMA)


@pytest.fixture
async def database(database_url: str, tables: Tables) -> AsyncIterator[Database]:
    """This test's database behind an engine that goodanalytics made."""
    database = Database.open(database_url, tables)
    yield database
    await database.close()


@pytest.fixture
def clock() -> FrozenClock:
    """Stands at 2026-11-01 12:00 UTC; `clock.now = …` or `clock.advance(timedelta)` moves it."""
    return FrozenClock()


@pytest.fixture
def errors() -> list[BaseException]:
    """What `config.on_error` was called with."""
    return []


@pytest.fixture
def config(clock: FrozenClock, errors: list[BaseException]) -> Config:
    """Settings with the frozen clock; `dataclasses.replace(config, …)` changes some."""
    return Config(
        secret_key="for-tests-only-" + "0" * 32, clock=clock, on_error=errors.append, spool_path="off"
    )
