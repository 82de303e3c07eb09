"""The door to PostgreSQL: one engine, one set of tables, and clear words when nobody answers."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import asyncpg
import msgspec
from sqlalchemy import event, make_url, text
from sqlalchemy.engine import URL, Connection, CursorResult, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from goodanalytics.errors import ConfigError, DatabaseUnavailable
from goodanalytics.store.tables import Tables

ISOLATION = "READ COMMITTED"
"""
Of every transaction of our own, whatever the host's engine or the server's default says: a batch is one transaction, so it
must not commit by itself, and who waited for a row must see what was committed meanwhile (`store.ledger`).
"""

_SECRET = re.compile(r"://[^@/]*@")


def _dumps(value: Any) -> str:
    return msgspec.json.encode(value).decode()


@dataclass(frozen=True, slots=True)
class Database:
    """
    Where everything is remembered.

    Attributes:
        engine: The host's own engine, at our `ISOLATION`, or one that we made.
        tables: In the configured schema.
        owned: Whether we made the engine and therefore close it.
    """

    engine: AsyncEngine
    tables: Tables
    owned: bool

    @classmethod
    def open(cls, engine_or_url: AsyncEngine | URL | str, tables: Tables) -> Database:
        """
        Take the host's engine, or make one from a URL.

        Raises:
            ConfigError: It is neither, or not for PostgreSQL through asyncpg.
        """
        if isinstance(engine_or_url, AsyncEngine):
            if engine_or_url.dialect.name != "postgresql" or engine_or_url.dialect.driver != "asyncpg":
                raise ConfigError(
                    f"The engine speaks {engine_or_url.dialect.name}+{engine_or_url.dialect.driver}; goodanalytics needs "
                    "postgresql+asyncpg. Try: create_async_engine('postgresql+asyncpg://…')"
                )
            return cls(engine_or_url.execution_options(isolation_level=ISOLATION), tables, owned=False)
        try:
            url = make_url(engine_or_url)
        except ArgumentError:
            shown = _SECRET.sub("://…@", str(engine_or_url))
            raise ConfigError(
                f"{shown!r} is not a database URL. Try: 'postgresql+asyncpg://user@host/name'"
            ) from None
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+asyncpg")
        if url.drivername != "postgresql+asyncpg":
            raise ConfigError(
                f"The database URL starts with {url.drivername!r}; goodanalytics keeps its data in PostgreSQL. "
                "Try: 'postgresql+asyncpg://user@host/name'"
            )
        engine = create_async_engine(
            url,
            isolation_level=ISOLATION,
            pool_pre_ping=True,
            json_serializer=_dumps,
            json_deserializer=msgspec.json.decode,
        )
        return cls(engine, tables, owned=True)

    async def close(self) -> None:
        """Close our own engine's connections; a host's engine stays open."""
        if self.owned:
            await self.engine.dispose()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """
        A connection for reading.

        Raises:
            DatabaseUnavailable: Nothing answers, or the connection is lost on the way.
        """
        with unavailable_named(self.engine):
            connection = await self.engine.connect()
        try:
            yield connection
        except DBAPIError as error:
            if is_lost(error):
                raise _unavailable(self.engine, error) from error
            raise
        finally:
            await connection.close()

    @asynccontextmanager
    async def reading(
        self, connection: AsyncConnection | AsyncSession | None
    ) -> AsyncIterator[AsyncConnection]:
        """The host's own *connection* when it gave one, so that it sees what it has not committed; else one of ours."""
        if connection is None:
            async with self.connect() as conn:
                yield conn
        else:
            yield await hosts(connection)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """
        A connection in a transaction that commits at the end.

        Raises:
            DatabaseUnavailable: Nothing answers, or the connection is lost on the way. Lost while it committed, nobody
                knows whether it did.
        """
        async with self.connect() as connection, connection.begin():
            yield connection

    @asynccontextmanager
    async def trying(
        self, connection: AsyncConnection | AsyncSession | None
    ) -> AsyncIterator[AsyncConnection]:
        """A transaction of our own, or a part of the host's, that is undone at its end."""
        if connection is None:
            async with self.connect() as conn:
                transaction = await conn.begin()
                try:
                    yield conn
                finally:
                    await transaction.rollback()
        else:
            conn = await hosts(connection)
            nested = await conn.begin_nested()
            try:
                yield conn
            finally:
                await nested.rollback()


async def hosts(connection: AsyncConnection | AsyncSession) -> AsyncConnection:
    """The connection of the host's transaction, which may be a session's."""
    return await connection.connection() if isinstance(connection, AsyncSession) else connection


def _held(session: AsyncSession) -> Connection | None:
    """
    What *session* has for its transaction already; `None` where it has to be asked for in the public way, which changes context.

    That takes a tenth of a sale's time. These names are SQLAlchemy's own: where they go, no more is lost.
    """
    sync = session.sync_session
    held = getattr(getattr(sync, "_transaction", None), "_connections", None)
    # One whose flush failed has rolled back, and says so when it is asked.
    if not held or not sync.is_active:
        return None
    found: Any = held.get(sync.get_bind())
    return found[0] if found else None


class unavailable_named:  # noqa: N801  # reads as a word in `with unavailable_named(engine):`
    """Turn whatever keeps us from having a connection into `DatabaseUnavailable`, with the address, without the password."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Translate what says that nobody answers; let everything else pass."""
        if isinstance(error, DatabaseUnavailable):
            return
        if isinstance(error, PoolTimeout):
            raise DatabaseUnavailable(
                f"No connection came free: {error.args[0]}. Give the engine a larger pool, or hold connections for less long"
            ) from error
        # Refusals (a wrong password, no such database) come as they are or wrapped, depending on SQLAlchemy's version.
        if error is not None and (is_lost(error) or isinstance(error, asyncpg.PostgresError | DBAPIError)):
            raise _unavailable(self._engine, error) from error


def _unavailable(engine: AsyncEngine, error: BaseException) -> DatabaseUnavailable:
    url = engine.url.render_as_string(hide_password=True)
    said = error.orig if isinstance(error, DBAPIError) else error  # without the statement and its values
    return DatabaseUnavailable(
        f"No answer from the database at {url} ({said}). Is it running, and may this user connect? "
        "`goodanalytics doctor` looks closer; `pip install goodanalytics[embedded]` brings one to try"
    )


async def run(conn: AsyncConnection, sql: str, **values: Any) -> CursorResult[Any]:
    """Run one statement with bound *values*. Callers write `CAST(:x AS type)` where PostgreSQL cannot infer one."""
    return await conn.execute(text(sql), values)


async def fetch(conn: AsyncConnection | AsyncSession, sql: str, *values: Any) -> list[Any]:
    """
    The rows of one statement, straight from the driver: for the many rows of a batch, where each layer costs as much as the query.

    Args:
        sql: With `$1`, `$2`, … for *values*, as asyncpg takes them.

    Raises:
        DBAPIError: As any other statement of ours, but without its values.
    """
    rows: list[Any] = await _driven(conn, "fetch", sql, values)
    return rows


async def execute(conn: AsyncConnection | AsyncSession, sql: str, *values: Any) -> int:
    """As `fetch`, for a statement that gives no rows; how many it touched."""
    told: str = await _driven(conn, "execute", sql, values)
    return int(told.rpartition(" ")[2])


_asked = itertools.count(1)


@lru_cache(maxsize=1024)
def _numbered(sql: str, number: int) -> str:
    return f"{sql} /* {number} */"


async def _driven(conn: AsyncConnection | AsyncSession, verb: str, sql: str, values: tuple[Any, ...]) -> Any:
    # PostgreSQL keeps the plan of a prepared statement until tables are analyzed, a minute after they began to grow: one that
    # was made for ten rows would read a million. Under another text it is planned anew, each time as much again was asked.
    sql = _numbered(sql, next(_asked).bit_length())
    # One that is there can be asked for at once, without a change of context.
    sync = _held(conn) if isinstance(conn, AsyncSession) else conn.sync_connection
    pooled = (
        await (await hosts(conn)).get_raw_connection()
        if sync is None or sync.closed or sync.invalidated
        else sync.connection
    )
    raw: Any = pooled.driver_connection
    if raw.is_closed() or not raw.is_in_transaction():
        # SQLAlchemy begins with the first statement that goes through it, and says it when it cannot.
        await (await hosts(conn)).exec_driver_sql("SELECT 1")
    try:
        return await getattr(raw, verb)(sql, *values)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        if is_closed := raw.is_closed():
            await (await hosts(conn)).invalidate()
        raise _translated(sql, error, is_closed=is_closed) from error


class _FromDriver(Exception):
    """What the driver said, in the form in which SQLAlchemy hands it on."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.sqlstate = getattr(error, "sqlstate", None)
        self.__cause__ = error


def _translated(sql: str, error: BaseException, *, is_closed: bool) -> DBAPIError:
    said = _FromDriver(error)
    kind = IntegrityError if (said.sqlstate or "").startswith("23") else DBAPIError
    return kind(sql, None, said, hide_parameters=True, connection_invalidated=is_closed)


def as_json(rows: Any) -> str:
    """*rows* as the JSON text that a set-based statement reads back with `json_to_recordset`."""
    return _dumps(rows)


def as_bytea(value: bytes | None) -> str | None:
    """Bytes as PostgreSQL reads them out of that text."""
    return None if value is None else f"\\x{value.hex()}"


@asynccontextmanager
async def savepoint(connection: AsyncConnection | AsyncSession) -> AsyncIterator[AsyncConnection]:
    """A part of a transaction that can be undone alone. Takes the host's session as well as a connection."""
    conn = await hosts(connection)
    async with conn.begin_nested():
        yield conn


async def after_commit(connection: AsyncConnection | AsyncSession, call: Callable[[], None]) -> None:
    """
    Call *call* once the host's transaction on *connection* has committed, and never if it rolls back.

    That holds for the host's savepoints too: what is rolled back to one of them is forgotten. A connection without a
    transaction has committed already.
    """
    conn = await hosts(connection)
    sync = conn.sync_connection
    if sync is None or not sync.in_transaction():
        call()
        return
    if sync.engine not in _watched:
        # On the engine and not on the connection: a session takes a new one for each transaction.
        _watched.add(sync.engine)
        event.listen(sync.engine, "commit", _committed)
        event.listen(sync.engine, "rollback", _rolled_back)
        event.listen(sync.engine, "rollback_savepoint", _rolled_back_to)
    inside = set()
    nested: Any = sync.get_nested_transaction()
    while nested is not None:
        inside.add(nested._savepoint)  # noqa: SLF001  # the name that `rollback_savepoint` is called with
        nested = nested._previous_nested  # noqa: SLF001
    _waiting.setdefault(sync, []).append((inside, call))


_watched: WeakSet[Engine] = WeakSet()

_waiting: WeakKeyDictionary[Connection, list[tuple[set[str], Callable[[], None]]]] = WeakKeyDictionary()
"""What each host connection's commit sets going, with the savepoints that it was asked in."""


def _committed(sync: Connection) -> None:
    for _, call in _waiting.pop(sync, ()):
        call()


def _rolled_back(sync: Connection) -> None:
    _waiting.pop(sync, None)


def _rolled_back_to(sync: Connection, name: str, _context: None) -> None:
    if sync in _waiting:
        _waiting[sync] = [(inside, call) for inside, call in _waiting[sync] if name not in inside]


_LOST = (
    OSError,
    TimeoutError,
    DatabaseUnavailable,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # "cannot switch to state …": asyncpg wrote to a connection whose end it had not read yet.
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
)


def is_lost(error: BaseException) -> bool:
    """Whether *error* says that the connection is gone, and nothing about the rows."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or isinstance(error.orig.__cause__ if error.orig else None, _LOST)
    return isinstance(error, _LOST)


def is_rejected(error: BaseException) -> bool:
    """Whether *error* says that PostgreSQL refused the rows themselves, so that trying them again cannot help."""
    # Class 22 is data, class 23 an integrity constraint, 54 a limit (PostgreSQL documentation, appendix A).
    code = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    return isinstance(error, DBAPIError) and code[:2] in ("22", "23", "54")


def is_passing(error: BaseException) -> bool:
    """Whether *error* says that the transaction lost to another one: it is undone, and may succeed when tried again."""
    # Class 40 is a deadlock or a failed serialization, 55P03 a lock that did not come free in time (as above).
    code = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    return isinstance(error, DBAPIError) and (code[:2] == "40" or code == "55P03")


def blames_rows(error: Exception) -> bool:
    """
    Whether trying the same rows again cannot help, so that the one to blame must be found and set aside.

    What our own code trips over is a row's fault as well. What PostgreSQL says about anything but the rows (a table that is
    missing, a disk that is full, a lock) is not: setting rows aside for it would empty the log.
    """
    if isinstance(error, DBAPIError):
        return is_rejected(error)
    return not is_lost(error)
