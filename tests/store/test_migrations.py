"""The schema goes up, down and up again, from a host's Alembic and without it, and never touches what is not ours."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, MetaData, make_url, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from goodanalytics import migrations
from goodanalytics.errors import ConfigError, SchemaError
from goodanalytics.migrations import v01
from goodanalytics.migrations.partitions import PARTITION
from goodanalytics.store import schema
from goodanalytics.store.database import Database
from goodanalytics.store.tables import SCHEMA_VERSION, build

SCHEMA = "good_analytics"
START = datetime(2026, 11, 1, 12, tzinfo=UTC)
CHECKOUT = Path(__file__).parents[2]

# Everything that a migration decides, one line each, without the schema's name.
CATALOGUE = """
    SELECT c.relname || ' ' || c.relkind::text || ' ' || coalesce(array_to_string(c.reloptions, ','), '')
           || ' ' || coalesce(pg_get_expr(c.relpartbound, c.oid), '') || ' ' || coalesce(pg_get_partkeydef(c.oid), '')
    FROM pg_class AS c WHERE c.relnamespace = to_regnamespace(CAST(:schema AS text))
  UNION ALL
    SELECT c.relname || '.' || a.attname || ' ' || replace(format_type(a.atttypid, a.atttypmod), :schema || '.', '') || ' '
           || a.attnotnull::text || ' ' || a.attnum::text || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
    FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
    LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = to_regnamespace(CAST(:schema AS text)) AND c.relkind IN ('r', 'p') AND a.attnum > 0
  UNION ALL
    SELECT c.relname || ' ' || k.conname || ' ' || pg_get_constraintdef(k.oid)
    FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid
    WHERE k.connamespace = to_regnamespace(CAST(:schema AS text))
  UNION ALL
    SELECT y.typname || ' ' || format_type(y.typbasetype, y.typtypmod) || ' ' || k.conname || ' ' || pg_get_constraintdef(k.oid)
    FROM pg_constraint AS k JOIN pg_type AS y ON y.oid = k.contypid
    WHERE y.typnamespace = to_regnamespace(CAST(:schema AS text))
  UNION ALL
    SELECT replace(pg_get_indexdef(i.indexrelid), CAST(:schema AS text) || '.', '')
    FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
    WHERE c.relnamespace = to_regnamespace(CAST(:schema AS text))
"""


async def catalogue(engine: AsyncEngine, name: str = SCHEMA) -> set[str]:
    async with engine.connect() as connection:
        return set((await connection.execute(text(CATALOGUE), {"schema": name})).scalars())


async def names(engine: AsyncEngine, name: str = SCHEMA) -> set[str]:
    """Names of the schema's tables."""
    sql = "SELECT tablename FROM pg_tables WHERE schemaname = :schema"
    async with engine.connect() as connection:
        return set((await connection.execute(text(sql), {"schema": name})).scalars())


async def execute(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def run_script(url: str, script: str) -> None:
    """As psql runs a file: all statements, as they are printed."""
    target = make_url(url)
    connection = await asyncpg.connect(
        target.set(drivername="postgresql").render_as_string(hide_password=False)
    )
    try:
        await connection.execute(script)
    finally:
        await connection.close()


async def with_op(engine: AsyncEngine, step: Any, **options: Any) -> None:
    """Run *step* with an `op`, as a host's revision does."""

    def stepped(connection: Connection) -> None:
        step(Operations(MigrationContext.configure(connection)), **options)

    async with engine.begin() as connection:
        await connection.run_sync(stepped)


async def alembic(url: str, *arguments: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "alembic", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "GOODANALYTICS_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
async def empty(empty_database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine on a database without our schema."""
    engine = create_async_engine(empty_database_url, poolclass=NullPool)
    yield engine
    await engine.dispose()


async def test_migrated_tables_are_the_described_ones(engine: AsyncEngine) -> None:
    """Alembic finds nothing to change between the database and store/tables.py."""
    tables = build(SCHEMA)

    def is_not_a_partition(_item: Any, name: str, kind: str, _reflected: bool, _compare_to: Any) -> bool:
        return kind != "table" or PARTITION.fullmatch(name) is None

    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_object": is_not_a_partition,
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        return list(compare_metadata(context, tables.metadata))

    async with engine.connect() as connection:
        found = await connection.run_sync(differences)

    assert found == []


async def test_migrated_catalogue_is_the_described_one(engine: AsyncEngine) -> None:
    """Constraints, null-ness, index predicates and column order are those of store/tables.py, to the letter."""
    await execute(engine, "CREATE SCHEMA described")
    async with engine.begin() as connection:
        await connection.run_sync(build("described").metadata.create_all)

    def decided(lines: set[str]) -> set[str]:
        tables = {table.name for table in build(SCHEMA)}
        # Storage settings and partitions are the migration's business, not the description's.
        return {
            line
            for line in lines
            if "fillfactor" not in line
            and "autovacuum" not in line
            and not line.startswith(("events_default", "events_2", "receipts_default"))
            and not any(f" ON {name}" in line for name in ("events_default", "events_2", "receipts_default"))
        } - {f"{name} r   " for name in tables}

    assert decided(await catalogue(engine)) == decided(await catalogue(engine, "described"))


async def test_release_makes_the_version_that_it_reads() -> None:
    """The newest migration and the tables in the code have one version."""
    assert migrations.LATEST == SCHEMA_VERSION


async def test_migrate_says_what_is_there(empty: AsyncEngine) -> None:
    """A second run changes nothing and tells the same version."""
    first = await schema.migrate(empty, SCHEMA, now=START)
    before = await catalogue(empty)
    second = await schema.migrate(empty, SCHEMA, now=START)

    assert (first, second) == (1, 1)
    assert await catalogue(empty) == before


async def test_migrate_writes_down_when(empty: AsyncEngine) -> None:
    """The version's row carries the time that the caller gave."""
    await schema.migrate(empty, SCHEMA, now=START)

    async with empty.connect() as connection:
        rows = (
            await connection.execute(text(f"SELECT version, applied_at FROM {SCHEMA}.schema_version"))
        ).all()
    assert [tuple(row) for row in rows] == [(1, START)]


async def test_up_down_up(empty: AsyncEngine) -> None:
    """Going down leaves nothing, not even the schema; going up again gives the same tables."""
    await with_op(empty, migrations.upgrade, since=0, to=1, now=START)
    first = await catalogue(empty)
    await with_op(empty, migrations.downgrade, since=1, to=0)
    async with empty.connect() as connection:
        left = (await connection.execute(text("SELECT to_regnamespace('good_analytics')::text"))).scalar_one()
    await with_op(empty, migrations.upgrade, since=0, to=1, now=START)

    assert left is None
    assert await catalogue(empty) == first


async def test_down_leaves_what_the_host_put_there(empty: AsyncEngine) -> None:
    """A schema that holds a table of the host's stays, with that table."""
    await with_op(empty, migrations.upgrade)
    await execute(empty, f"CREATE TABLE {SCHEMA}.notes (id integer)")

    await with_op(empty, migrations.downgrade)

    assert await names(empty) == {"notes"}


async def test_down_never_drops_public(empty: AsyncEngine) -> None:
    """The schema `public` stays even when nothing else is in it."""
    await with_op(empty, migrations.upgrade, schema="public")
    await with_op(empty, migrations.downgrade, schema="public")

    await execute(empty, "CREATE TABLE public.notes (id integer)")
    assert await names(empty, "public") == {"notes"}


@pytest.mark.parametrize("name", ["user", "good_analytics", "a" * 63, "_2"])
async def test_schema_has_any_name(empty: AsyncEngine, name: str) -> None:
    """The schema's name is chosen at run time; reserved words and the longest name are fine."""
    await schema.migrate(empty, name, now=START)

    assert await names(empty, name) >= set(v01.TABLES)


@pytest.mark.parametrize("name", ['x"; DROP SCHEMA public; --', "Shop", "pg_analytics", ""])
async def test_wrong_schema_name_is_refused(empty: AsyncEngine, name: str) -> None:
    """A revision's schema goes into the SQL, so what is no plain name is refused."""
    with pytest.raises(ConfigError, match="lower-case PostgreSQL name"):
        await with_op(empty, migrations.upgrade, schema=name)


async def test_two_hosts_in_one_database(empty: AsyncEngine) -> None:
    """Two hosts with two schemas get the same tables and can go down apart."""
    await schema.migrate(empty, "shop", now=START)
    await schema.migrate(empty, "blog", now=START)
    shop, blog = await catalogue(empty, "shop"), await catalogue(empty, "blog")

    await with_op(empty, migrations.downgrade, schema="blog")

    assert blog == shop
    assert await catalogue(empty, "shop") == shop


async def test_racing_tasks(empty: AsyncEngine) -> None:
    """Engines that migrate at once in one process all find the schema made."""
    done = await asyncio.gather(*(schema.migrate(empty, SCHEMA, now=START) for _ in range(5)))

    assert done == [1] * 5


async def test_racing_processes(empty: AsyncEngine, empty_database_url: str) -> None:
    """Processes that migrate at once all find the schema made."""
    program = """
import asyncio, sys
from datetime import UTC, datetime
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from goodanalytics.store import schema
engine = create_async_engine(sys.argv[1], poolclass=NullPool)
print(asyncio.run(schema.migrate(engine, "good_analytics", now=datetime(2026, 11, 1, tzinfo=UTC))))
"""
    racers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, empty_database_url, cwd=CHECKOUT, stdout=-1, stderr=-1
        )
        for _ in range(3)
    ]
    said = [await racer.communicate() for racer in racers]

    assert said == [(b"1\n", b"")] * 3


async def test_host_engine_that_commits_by_itself(empty_database_url: str) -> None:
    """On an engine in AUTOCOMMIT a migration that fails half way leaves nothing behind."""
    engine = create_async_engine(empty_database_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    # The name of an index of ours, far down in the migration.
    await execute(engine, f"CREATE SCHEMA {SCHEMA}", f"CREATE TABLE {SCHEMA}.links_address (id integer)")

    with pytest.raises(Exception, match="links_address"):
        await schema.migrate(engine, SCHEMA, now=START)

    assert await names(engine) == {"links_address"}


async def test_user_of_a_ready_schema_needs_no_right_to_create_schemas(
    empty: AsyncEngine, empty_database_url: str
) -> None:
    """A DBA makes the schema and gives it to a user who may create nothing else."""
    user = f"guest_{os.getpid()}"
    await execute(
        empty,
        f"CREATE USER {user} PASSWORD 'guest'",
        f"CREATE SCHEMA {SCHEMA}",
        f"GRANT ALL ON SCHEMA {SCHEMA} TO {user}",
    )
    guest = create_async_engine(make_url(empty_database_url), poolclass=NullPool)
    try:

        def upgraded(connection: Connection) -> None:
            connection.execute(text(f"SET LOCAL ROLE {user}"))
            migrations.upgrade(Operations(MigrationContext.configure(connection)))

        async with guest.begin() as connection:
            await connection.run_sync(upgraded)

        assert await names(empty) == set(v01.TABLES)
    finally:
        await execute(empty, f"DROP OWNED BY {user}", f"DROP USER {user}")


async def test_two_columns_of_somebody_else(empty: AsyncEngine) -> None:
    """Other tools keep a `schema_version` too; one of another shape is not ours."""
    await execute(
        empty, f"CREATE SCHEMA {SCHEMA}", f"CREATE TABLE {SCHEMA}.schema_version (installed_rank integer)"
    )

    with pytest.raises(SchemaError, match=r"already holds schema_version, which goodanalytics did not make"):
        await schema.migrate(empty, SCHEMA, now=START)


async def test_foreign_table_is_refused_and_kept(empty: AsyncEngine) -> None:
    """A host's own `visitors` stops the migration before anything is made; the message names it and the cure."""
    await execute(
        empty, "CREATE TABLE public.visitors (name text)", "INSERT INTO public.visitors VALUES ('Ann')"
    )

    with pytest.raises(SchemaError, match=r"'public' already holds visitors.*Config\(schema="):
        await schema.migrate(empty, "public", now=START)

    assert await names(empty, "public") == {"visitors"}


@pytest.mark.parametrize(
    "type_", ["CREATE TYPE public.event_type AS ENUM ('a')", "CREATE TABLE public.event_type (id integer)"]
)
async def test_types_of_somebody_else(empty: AsyncEngine, type_: str) -> None:
    """A type with one of our names, a table's too, is left alone and named."""
    await execute(empty, type_)

    with pytest.raises(SchemaError, match=r"'public' already holds event_type.*Config\(schema="):
        await schema.migrate(empty, "public", now=START)


async def test_other_words_are_refused(engine: AsyncEngine) -> None:
    """The columns that say of what kind a row is hold our words and no others, whoever writes."""
    for table, column in (("visitors", "status"), ("events", "event_type"), ("conversions", "kind")):
        with pytest.raises(IntegrityError, match="violates check constraint"):
            await execute(engine, f"INSERT INTO {SCHEMA}.{table} ({column}) VALUES ('other')")


async def test_foreign_table_is_not_dropped(empty: AsyncEngine) -> None:
    """Going down where we never were drops nobody's `visitors`."""
    await execute(empty, "CREATE TABLE public.visitors (name text)")

    with pytest.raises(SchemaError, match="did not make"):
        await with_op(empty, migrations.downgrade, schema="public")

    assert await names(empty, "public") == {"visitors"}


@pytest.mark.parametrize(
    ("step", "since", "message"),
    [
        (migrations.upgrade, 0, r"is at version 1, and this step starts from version 0.*alembic stamp"),
        (migrations.downgrade, 1, None),
    ],
    ids=["up twice", "down once"],
)
async def test_since_is_compared_with_what_is_there(
    engine: AsyncEngine, step: Any, since: int, message: str | None
) -> None:
    """A step that starts from another version than the one that is there is refused."""
    if message is None:
        await with_op(engine, step, since=since, to=0)
        with pytest.raises(SchemaError, match=r"is at version 0, and this step starts from version 1"):
            await with_op(engine, step, since=since, to=0)
    else:
        with pytest.raises(SchemaError, match=message):
            await with_op(engine, step, since=since)


@pytest.mark.parametrize(
    ("step", "since", "to"),
    [
        (migrations.upgrade, 0, 99),
        (migrations.upgrade, 1, 1),
        (migrations.upgrade, -1, 1),
        (migrations.downgrade, 0, 1),
        (migrations.downgrade, 99, 0),
    ],
)
async def test_unknown_step_is_refused(empty: AsyncEngine, step: Any, since: int, to: int) -> None:
    """A step that this release does not know is refused before the database is asked."""
    with pytest.raises(SchemaError, match=f"no step from version {since} to version {to}"):
        await with_op(empty, step, since=since, to=to)


async def test_check_accepts_the_right_version(database: Database) -> None:
    """A migrated database passes."""
    await schema.check(database)


async def test_version_of_nothing(empty: AsyncEngine) -> None:
    """A database without our schema has no version."""
    async with empty.connect() as connection:
        assert await schema.version(connection, SCHEMA) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            [f"DROP SCHEMA {SCHEMA} CASCADE"],
            "has no tables of goodanalytics yet. Run `goodanalytics migrate`",
        ),
        (
            [f"UPDATE {SCHEMA}.schema_version SET version = 0"],
            "at version 0 and this release needs 1. Run `goodan",
        ),
        ([f"UPDATE {SCHEMA}.schema_version SET version = 99"], "made by a newer release.*pip install -U"),
        ([f"DELETE FROM {SCHEMA}.schema_version"], "schema_version is empty"),
        ([f"DROP TABLE {SCHEMA}.links"], "says version 1 but lacks links"),
        (
            [f"DROP TABLE {SCHEMA}.schema_version"],
            r"already holds .*visitors.*, which goodanalytics did not make",
        ),
        (
            [f"UPDATE {SCHEMA}.schema_version SET version = 99", f"DROP TABLE {SCHEMA}.links"],
            "made by a newer release",
        ),
    ],
    ids=["missing", "too old", "too new", "no row", "lost table", "somebody else's", "too new, table gone"],
)
async def test_check_names_the_cure(database: Database, changes: list[str], message: str) -> None:
    """The app refuses to start on a schema that is not its own version, and says what to do."""
    await execute(database.engine, *changes)

    with pytest.raises(SchemaError, match=message):
        await schema.check(database)


async def test_newer_schema_is_left_alone(engine: AsyncEngine) -> None:
    """An older release that migrates a newer schema changes nothing."""
    await execute(engine, f"UPDATE {SCHEMA}.schema_version SET version = 99")

    assert await schema.migrate(engine, SCHEMA, now=START) == 99


async def test_offline_sql_is_the_same_schema(
    empty: AsyncEngine, empty_database_url: str, engine: AsyncEngine
) -> None:
    """The script for DBAs, run as it is, makes what `migrate` makes."""
    await run_script(empty_database_url, schema.offline_sql(SCHEMA, now=START))

    assert await catalogue(empty) == await catalogue(engine)


async def test_offline_sql_is_one_transaction() -> None:
    """A script that fails half way leaves nothing behind."""
    script = schema.offline_sql(SCHEMA, now=START)

    assert (script.startswith("BEGIN;"), script.rstrip().endswith("COMMIT;")) == (True, True)


async def test_host_alembic_up_down_up(empty: AsyncEngine, empty_database_url: str) -> None:
    """`alembic upgrade head`, `downgrade base` and `upgrade head` work, with the default partition alone."""
    await alembic(empty_database_url, "upgrade", "head")
    first = await names(empty)
    await alembic(empty_database_url, "downgrade", "base")
    between = await names(empty)
    await alembic(empty_database_url, "-x", f"url={empty_database_url}", "upgrade", "head")

    assert (first, between, await names(empty)) == (set(v01.TABLES), set(), set(v01.TABLES))


async def test_host_alembic_offline(empty: AsyncEngine, empty_database_url: str, engine: AsyncEngine) -> None:
    """What `alembic upgrade head --sql` prints makes the same schema, without the months."""
    await run_script(empty_database_url, await alembic("", "upgrade", "head", "--sql"))

    def without_months(lines: set[str]) -> set[str]:
        return {line for line in lines if "events_20" not in line}

    assert without_months(await catalogue(empty)) == without_months(await catalogue(engine))


async def test_host_alembic_offline_down(engine: AsyncEngine, database_url: str) -> None:
    """What `alembic downgrade --sql` prints takes everything away again."""
    await execute(
        engine,
        "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)",
        "INSERT INTO alembic_version VALUES ('0001')",
    )
    await run_script(database_url, await alembic("", "downgrade", "0001:base", "--sql"))

    assert await names(engine) == set()


async def test_host_autogenerate_leaves_us_alone(engine: AsyncEngine) -> None:
    """With `include_object` a host's autogenerate sees its own tables and proposes to drop none of ours."""
    await execute(engine, "CREATE TABLE public.visitors (name text)")

    def differences(connection: Connection, /, **options: Any) -> set[str]:
        context = MigrationContext.configure(connection, opts={"include_schemas": True, **options})
        return {
            f"{change[1].schema}.{change[1].name}"
            for change in compare_metadata(context, MetaData())
            if change[0] == "remove_table"
        }

    async with engine.connect() as connection:
        careless = await connection.run_sync(differences)
        careful = await connection.run_sync(differences, include_object=migrations.include_object(SCHEMA))

    assert "good_analytics.events_default" in careless
    assert careful == {"None.visitors"}


async def test_host_autogenerate_with_our_tables_in_public(empty: AsyncEngine) -> None:
    """Where our tables share `public` with the host's, only ours are left out."""
    await schema.migrate(empty, "public", now=START)
    await execute(empty, "CREATE TABLE public.orders (id integer)")

    def differences(connection: Connection) -> set[str]:
        context = MigrationContext.configure(
            connection, opts={"include_object": migrations.include_object("public")}
        )
        return {
            change[1].name for change in compare_metadata(context, MetaData()) if change[0] == "remove_table"
        }

    async with empty.connect() as connection:
        assert await connection.run_sync(differences) == {"orders"}


def test_alembic_is_not_imported_with_the_app() -> None:
    """Starting the app does not pay for Alembic's import."""
    program = "import sys, goodanalytics.store.schema; print('alembic' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )

    assert done.stdout == "False\n"
