"""
The tables, as SQLAlchemy sees them. `migrations/` makes them; a test compares both.

Rules, so that the same SQL runs on one PostgreSQL and on a Citus cluster (DESIGN 0007)
1. `workspace_id` stands first in every primary key, unique constraint and foreign key, and every query carries it.
2. A table's `info["scope"]` is `tenant` (distributed by workspace) or `local` (the log: one node, no joins).
3. No trigger, no sequence on the write path, no foreign key on the big tables; ids are UUIDv7 made at the edge.
4. Each column names its writer in `info["writer"]`: the one function that fills it. A column without a writer does not
   get in (tests/house).

A visitor row holds what *its own* browsers and devices did. When two visitors turn out to be one person, `canonical_id`
of one comes to name the other and nothing else changes: a person is the fold of the rows that share a `canonical_id`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Integer, LargeBinary, MetaData, PrimaryKeyConstraint, SmallInteger, Table, Text, Uuid

from goodanalytics.store import link_tables, tables_conversions, tables_people, tables_visits
from goodanalytics.store.columns import column, time

SCHEMA_VERSION = 1
"""The version that this code reads and writes."""


@dataclass(frozen=True, slots=True)
class Tables:
    """
    All tables of one schema.

    Attributes:
        metadata: What `compare_metadata` and `create_all` take.
        schema: The PostgreSQL schema that all of them live in.
    """

    metadata: MetaData
    schema: str
    schema_version: Table
    visitors: Table
    identities: Table
    former_identities: Table
    merges: Table
    conflicts: Table
    tombstones: Table
    audit: Table
    sessions: Table
    events: Table
    receipts: Table
    links: Table
    conversions: Table
    dispatches: Table
    credentials: Table
    platform_settings: Table
    webhooks: Table
    domains: Table
    link_changes: Table
    link_uses: Table
    link_days: Table
    link_days_closed: Table
    link_days_touched: Table
    partners: Table
    referrals: Table
    commissions: Table
    hits: Table
    rejected_hits: Table

    def __iter__(self) -> Any:
        """Every table, in the order of creation."""
        return (getattr(self, f.name) for f in fields(self) if f.name not in ("metadata", "schema"))


def build(schema: str) -> Tables:
    """The tables of *schema*, an already checked name."""
    metadata = MetaData(schema=schema)
    tenant: dict[str, Any] = {"info": {"scope": "tenant"}}
    local: dict[str, Any] = {"info": {"scope": "local"}}
    return Tables(
        metadata=metadata,
        schema=schema,
        schema_version=_schema_version(metadata, local),
        visitors=tables_people.visitors(metadata, tenant),
        identities=tables_people.identities(metadata, tenant),
        former_identities=tables_people.former_identities(metadata, tenant),
        merges=tables_people.merges(metadata, tenant),
        conflicts=tables_people.conflicts(metadata, tenant),
        tombstones=tables_people.tombstones(metadata, tenant),
        audit=tables_people.audit(metadata, tenant),
        sessions=tables_visits.sessions(metadata, tenant),
        events=tables_visits.events(metadata, tenant),
        receipts=tables_visits.receipts(metadata, tenant),
        conversions=tables_conversions.conversions(metadata, tenant),
        dispatches=tables_conversions.dispatches(metadata, tenant),
        credentials=tables_conversions.credentials(metadata, tenant),
        platform_settings=tables_conversions.platform_settings(metadata, tenant),
        webhooks=tables_conversions.webhooks(metadata, tenant),
        links=link_tables.links(metadata, tenant),
        domains=link_tables.domains(metadata, tenant),
        link_changes=link_tables.link_changes(metadata, tenant),
        link_uses=link_tables.link_uses(metadata, tenant),
        link_days=link_tables.link_days(metadata, tenant),
        link_days_closed=link_tables.link_days_closed(metadata, tenant),
        link_days_touched=link_tables.link_days_touched(metadata, tenant),
        partners=link_tables.partners(metadata, tenant),
        referrals=link_tables.referrals(metadata, tenant),
        commissions=link_tables.commissions(metadata, tenant),
        hits=_hits(metadata, local),
        rejected_hits=_rejected_hits(metadata, local),
    )


def _schema_version(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """The versions that were applied."""
    writer = "migrations.upgrade"
    return Table(
        "schema_version",
        metadata,
        column("version", Integer, writer),
        time("applied_at", writer),
        PrimaryKeyConstraint("version", name="schema_version_pkey"),
        **scope,
    )


def _hits(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """The log: what is durable and not yet understood."""
    writer = "log.append"
    return Table(
        "hits",
        metadata,
        column("shard", SmallInteger, writer),
        column("id", Uuid, writer),
        column("body", LargeBinary, writer),
        PrimaryKeyConstraint("shard", "id", name="hits_pkey"),
        **scope,
    )


def _rejected_hits(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """Hits of the log that cannot be processed."""
    writer = "log.set_aside"
    return Table(
        "rejected_hits",
        metadata,
        column("id", Uuid, writer),
        column("body", LargeBinary, writer),
        column("error", Text, writer),
        time("rejected_at", writer),
        PrimaryKeyConstraint("id", name="rejected_hits_pkey"),
        **scope,
    )


__all__ = ["SCHEMA_VERSION", "Tables", "build"]
