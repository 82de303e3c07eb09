"""What a Citus cluster and a reviewer may lean on: the rules at the top of store/tables.py, checked on every table."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKeyConstraint, Table, text
from sqlalchemy.ext.asyncio import AsyncEngine

from goodanalytics.core.hits import EventType
from goodanalytics.store.tables import build

SCHEMA = "good_analytics"
WRITERS = {
    "ledger": "goodanalytics.store.ledger",
    "log": "goodanalytics.log.postgres",
    "persons": "goodanalytics.store.persons",
    "erasure": "goodanalytics.store.erasure",
    "audit": "goodanalytics.store.audit",
    "catalog": "goodanalytics.store.catalog",
    "conversions": "goodanalytics.store.conversions",
    "credentials": "goodanalytics.store.credentials",
    "outbox": "goodanalytics.store.outbox",
    "outbox_breaker": "goodanalytics.store.outbox_breaker",
    "outbox_leases": "goodanalytics.store.outbox_leases",
    "webhooks": "goodanalytics.store.webhooks",
    "link_domains": "goodanalytics.store.link_domains",
    "link_history": "goodanalytics.store.link_history",
    "link_uses": "goodanalytics.store.link_uses",
    "link_days": "goodanalytics.store.link_days",
    "partners": "goodanalytics.store.partners",
    "referrals": "goodanalytics.store.referrals",
    "commissions": "goodanalytics.store.commissions",
    "migrations": "goodanalytics.migrations",
}
"""Where the first word of a column's `info["writer"]` is found."""

TABLES: list[Table] = list(build(SCHEMA))
TENANT = [table for table in TABLES if table.info["scope"] == "tenant"]
COLUMNS = [column for table in TABLES for column in table.columns]


def _name(item: Table | Column[Any]) -> str:
    return str(item) if isinstance(item, Column) else item.name


def test_every_table_is_listed() -> None:
    """No table is in the metadata without being a member of `Tables`."""
    assert {table.name for table in TABLES} == {table.name for table in build(SCHEMA).metadata.sorted_tables}


@pytest.mark.parametrize("table", TABLES, ids=_name)
def test_scope_is_known(table: Table) -> None:
    """Each table says whether it is distributed by workspace."""
    assert table.info["scope"] in ("tenant", "local")


@pytest.mark.parametrize("table", TENANT, ids=_name)
def test_workspace_leads_the_primary_key(table: Table) -> None:
    """A tenant table's primary key begins with its workspace."""
    assert next(iter(table.primary_key.columns)).name == "workspace_id"


@pytest.mark.parametrize("table", TENANT, ids=_name)
def test_workspace_leads_every_index(table: Table) -> None:
    """A tenant table's indexes, unique or not, begin with the workspace: every query carries it."""
    wrong = [index.name for index in table.indexes if index.expressions[0] is not table.c.workspace_id]

    assert wrong == []


@pytest.mark.parametrize("table", TABLES, ids=_name)
def test_workspace_leads_every_foreign_key(table: Table) -> None:
    """A foreign key of a tenant table begins with the workspace; a local table has none."""
    wrong = [
        constraint.name
        for constraint in table.constraints
        if isinstance(constraint, ForeignKeyConstraint)
        and (table not in TENANT or constraint.column_keys[0] != "workspace_id")
    ]

    assert wrong == []


@pytest.mark.parametrize("column", COLUMNS, ids=_name)
def test_column_has_a_writer(column: Column[Any]) -> None:
    """The function that fills the column exists, in the module that the column names or on a class of it."""
    room, _, function = column.info["writer"].partition(".")
    module = importlib.import_module(WRITERS[room])
    homes = [
        module,
        *(
            kind
            for _, kind in inspect.getmembers(module, inspect.isclass)
            if kind.__module__ == WRITERS[room]
        ),
    ]

    assert any(inspect.isfunction(getattr(home, function, None)) for home in homes)


@pytest.mark.parametrize("column", [c for c in COLUMNS if c.table.c is not None], ids=_name)
def test_column_has_no_default(column: Column[Any]) -> None:
    """A value that no writer gave is an error, not a default."""
    assert (column.default, column.server_default) == (None, None)


def test_every_event_type_may_be_stored() -> None:
    """The domain of `events.event_type` lets every type of a hit pass."""
    assert set(EventType) <= set(build(SCHEMA).events.c.event_type.type.allowed)


@pytest.mark.parametrize(
    ("kind", "sql"),
    [
        ("triggers", "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"),
        ("sequences", "SELECT relname FROM pg_class WHERE relkind = 'S'"),
        ("foreign keys", "SELECT conname FROM pg_constraint WHERE contype = 'f'"),
        ("rules", "SELECT rulename FROM pg_rules WHERE schemaname = 'good_analytics'"),
    ],
)
async def test_nothing_runs_behind_a_write(engine: AsyncEngine, kind: str, sql: str) -> None:
    """The migrated database has no trigger, sequence, rule or foreign key."""
    async with engine.connect() as connection:
        assert list((await connection.execute(text(sql))).scalars()) == []
