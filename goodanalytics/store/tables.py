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

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Date,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import INET, JSONB

from goodanalytics.core.hits import EventType
from goodanalytics.store import link_tables, tables_conversions
from goodanalytics.store.columns import column as _column
from goodanalytics.store.columns import time as _time
from goodanalytics.store.columns import words as _words

SCHEMA_VERSION = 1
"""The version that this code reads and writes."""

STATUSES = ("anonymous", "identified", "lead", "customer", "churned")


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
        schema_version=Table(
            "schema_version",
            metadata,
            _column("version", Integer, "migrations.upgrade"),
            _time("applied_at", "migrations.upgrade"),
            PrimaryKeyConstraint("version", name="schema_version_pkey"),
            **local,
        ),
        visitors=_visitors(metadata, tenant),
        identities=Table(
            "identities",
            metadata,
            _column("workspace_id", Uuid, "ledger.apply"),
            _column("kind", Text, "ledger.apply"),
            _column("value", Text, "ledger.apply"),
            _column("visitor_id", Uuid, "ledger.apply"),
            _column("hit_id", Uuid, "ledger.apply", null=True),
            _time("first_seen_at", "ledger.apply"),
            _time("shared_at", "ledger.apply", null=True),
            PrimaryKeyConstraint("workspace_id", "kind", "value", name="identities_pkey"),
            Index("identities_visitor", "workspace_id", "visitor_id"),
            **tenant,
        ),
        former_identities=Table(
            "former_identities",
            metadata,
            _column("workspace_id", Uuid, "ledger.apply"),
            _column("kind", Text, "ledger.apply"),
            _column("value", Text, "ledger.apply"),
            _column("visitor_id", Uuid, "ledger.apply"),
            _column("hit_id", Uuid, "ledger.apply", null=True),
            _time("first_seen_at", "ledger.apply"),
            _time("until", "ledger.apply"),
            PrimaryKeyConstraint(
                "workspace_id", "kind", "value", "until", "visitor_id", name="former_identities_pkey"
            ),
            Index("former_identities_visitor", "workspace_id", "visitor_id"),
            **tenant,
        ),
        merges=Table(
            "merges",
            metadata,
            _column("workspace_id", Uuid, "ledger.apply"),
            _column("id", Uuid, "ledger.apply"),
            _column("loser_id", Uuid, "ledger.apply"),
            _column("winner_id", Uuid, "ledger.apply"),
            _column("loser_member_id", Uuid, "ledger.apply"),
            _column("winner_member_id", Uuid, "ledger.apply"),
            _column("evidence", JSONB, "ledger.apply"),
            _column("hit_id", Uuid, "ledger.apply", null=True),
            _time("merged_at", "ledger.apply"),
            _column("actor", Text, "persons.merge", null=True),
            _column("reason", Text, "persons.merge", null=True),
            _time("undone_at", "persons.unmerge", null=True),
            _column("undone_by", Text, "persons.unmerge", null=True),
            _column("undone_reason", Text, "persons.unmerge", null=True),
            PrimaryKeyConstraint("workspace_id", "id", name="merges_pkey"),
            Index("merges_loser", "workspace_id", "loser_member_id"),
            Index("merges_winner", "workspace_id", "winner_member_id"),
            **tenant,
        ),
        conflicts=Table(
            "conflicts",
            metadata,
            _column("workspace_id", Uuid, "ledger.apply"),
            _column("hit_id", Uuid, "ledger.apply"),
            _column("visitor_id", Uuid, "ledger.apply"),
            _column("other_id", Uuid, "ledger.apply"),
            _column("reason", Text, "ledger.apply"),
            _time("seen_at", "ledger.apply"),
            PrimaryKeyConstraint("workspace_id", "hit_id", "other_id", name="conflicts_pkey"),
            Index("conflicts_visitor", "workspace_id", "visitor_id"),
            Index("conflicts_other", "workspace_id", "other_id"),
            **tenant,
        ),
        tombstones=Table(
            "tombstones",
            metadata,
            _column("workspace_id", Uuid, "erasure.forget"),
            _column("digest", Text, "erasure.forget"),
            _time("forgotten_at", "erasure.forget"),
            PrimaryKeyConstraint("workspace_id", "digest", name="tombstones_pkey"),
            **tenant,
        ),
        audit=Table(
            "audit",
            metadata,
            _column("workspace_id", Uuid, "audit.note"),
            _column("id", Uuid, "audit.note"),
            _time("at", "audit.note"),
            _column("actor", Text, "audit.note", null=True),
            _column("action", Text, "audit.note"),
            _column("subject", Text, "audit.note"),
            _column("reason", Text, "audit.note", null=True),
            _column("details", JSONB, "audit.note"),
            PrimaryKeyConstraint("workspace_id", "id", name="audit_pkey"),
            Index("audit_at", "workspace_id", text("at DESC")),
            **tenant,
        ),
        sessions=_sessions(metadata, tenant),
        events=_events(metadata, tenant),
        receipts=Table(
            "receipts",
            metadata,
            _column("workspace_id", Uuid, "ledger.receive"),
            _column("hit_id", Uuid, "ledger.receive"),
            _column("day", Date, "ledger.receive"),
            _column("digest", Text, "ledger.receive", null=True),
            PrimaryKeyConstraint("workspace_id", "hit_id", "day", name="receipts_pkey"),
            postgresql_partition_by="RANGE (day)",
            **tenant,
        ),
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
        hits=Table(
            "hits",
            metadata,
            _column("shard", SmallInteger, "log.append"),
            _column("id", Uuid, "log.append"),
            _column("body", LargeBinary, "log.append"),
            PrimaryKeyConstraint("shard", "id", name="hits_pkey"),
            **local,
        ),
        rejected_hits=Table(
            "rejected_hits",
            metadata,
            _column("id", Uuid, "log.set_aside"),
            _column("body", LargeBinary, "log.set_aside"),
            _column("error", Text, "log.set_aside"),
            _time("rejected_at", "log.set_aside"),
            PrimaryKeyConstraint("id", name="rejected_hits_pkey"),
            **local,
        ),
    )


def _visitors(metadata: MetaData, scope: dict[str, Any]) -> Table:
    touch = "ledger.record_visitors"
    return Table(
        "visitors",
        metadata,
        _column("workspace_id", Uuid, touch),
        _column("id", Uuid, touch),
        _column("canonical_id", Uuid, "ledger.apply"),
        _column("status", Text, touch),
        _column("external_id", Text, touch, null=True),
        _column("email", Text, touch, null=True),
        _column("phone", Text, touch, null=True),
        _column("name", Text, touch, null=True),
        _column("traits", JSONB, touch),
        _column("first_source", JSONB, touch, null=True),
        _time("first_source_at", touch, null=True),
        _column("first_click_id", Uuid, touch, null=True),
        _column("last_source", JSONB, touch, null=True),
        _time("last_source_at", touch, null=True),
        _column("last_click_id", Uuid, touch, null=True),
        _time("first_seen_at", touch),
        _time("last_seen_at", touch),
        _time("identified_at", touch, null=True),
        _time("converted_at", touch, null=True),
        _column("geo", JSONB, touch),
        _column("device", JSONB, touch),
        _column("platform_signals", JSONB, touch),
        _column("consent", JSONB, touch, null=True),
        _column("bot", Text, touch, null=True),
        _column("total_sessions", Integer, touch),
        _column("total_pageviews", Integer, touch),
        _column("total_events", Integer, touch),
        _column("ltv", JSONB, touch),
        PrimaryKeyConstraint("workspace_id", "id", name="visitors_pkey"),
        CheckConstraint(_words("status", STATUSES), name="visitors_status"),
        Index("visitors_canonical", "workspace_id", "canonical_id"),
        Index("visitors_last_seen", "workspace_id", text("last_seen_at DESC")),
        **scope,
    )


def _sessions(metadata: MetaData, scope: dict[str, Any]) -> Table:
    writer = "ledger.record_sessions"
    return Table(
        "sessions",
        metadata,
        _column("workspace_id", Uuid, writer),
        _column("id", Uuid, writer),
        _column("visitor_id", Uuid, writer),
        _time("started_at", writer),
        _time("last_event_at", writer),
        _column("entry_url", Text, writer, null=True),
        _column("entry_path", Text, writer, null=True),
        _column("exit_path", Text, writer, null=True),
        _column("pageviews", Integer, writer),
        _column("events", Integer, writer),
        _column("duration_ms", BigInteger, writer),
        _column("engaged_ms", BigInteger, writer),
        _column("is_bounce", Boolean, writer),
        _column("is_engaged", Boolean, writer),
        _column("source", Text, writer),
        _column("medium", Text, writer),
        _column("channel", Text, writer),
        _column("campaign", Text, writer, null=True),
        _column("acquisition", JSONB, writer),
        _column("click_id", Uuid, writer, null=True),
        _column("link_id", Uuid, writer, null=True),
        _column("device_type", Text, writer, null=True),
        _column("browser", Text, writer, null=True),
        _column("os", Text, writer, null=True),
        _column("country", Text, writer, null=True),
        _column("bot", Text, writer, null=True),
        PrimaryKeyConstraint("workspace_id", "id", name="sessions_pkey"),
        Index("sessions_visitor", "workspace_id", "visitor_id", text("started_at DESC")),
        Index("sessions_started", "workspace_id", text("started_at DESC")),
        **scope,
    )


def _events(metadata: MetaData, scope: dict[str, Any]) -> Table:
    writer = "ledger.record_events"
    return Table(
        "events",
        metadata,
        _column("workspace_id", Uuid, writer),
        _column("visitor_id", Uuid, writer),
        _time("occurred_at", writer),
        _column("id", Uuid, writer),
        _time("received_at", writer),
        _column("session_id", Uuid, writer, null=True),
        _column("event_type", Text, writer),
        _column("event_name", Text, writer, null=True),
        _column("origin", Text, writer),
        _column("trusted", Boolean, writer),
        _column("url", Text, writer, null=True),
        _column("host", Text, writer, null=True),
        _column("path", Text, writer, null=True),
        _column("title", Text, writer, null=True),
        _column("referrer", Text, writer, null=True),
        _column("source", Text, writer),
        _column("medium", Text, writer),
        _column("channel", Text, writer),
        _column("campaign", Text, writer, null=True),
        _column("acquisition", JSONB, writer, null=True),
        _column("link_id", Uuid, writer, null=True),
        _column("click_id", Uuid, writer, null=True),
        _column("device_type", Text, writer, null=True),
        _column("browser", Text, writer, null=True),
        _column("browser_version", Text, writer, null=True),
        _column("os", Text, writer, null=True),
        _column("os_version", Text, writer, null=True),
        _column("country", Text, writer, null=True),
        _column("region", Text, writer, null=True),
        _column("city", Text, writer, null=True),
        _column("language", Text, writer, null=True),
        _column("screen", Text, writer, null=True),
        _column("ip", INET, writer, null=True),
        _column("user_agent", Text, writer, null=True),
        _column("bot", Text, writer, null=True),
        _column("bot_version", SmallInteger, writer, null=True),
        _column("amount_cents", BigInteger, writer, null=True),
        _column("currency", Text, writer, null=True),
        _column("engaged_ms", Integer, writer, null=True),
        _column("scroll_depth", SmallInteger, writer, null=True),
        _column("key", Text, writer, null=True),
        _column("properties", JSONB, writer),
        PrimaryKeyConstraint("workspace_id", "visitor_id", "occurred_at", "id", name="events_pkey"),
        CheckConstraint(_words("event_type", [str(t) for t in EventType]), name="events_event_type"),
        Index("events_occurred", "workspace_id", text("occurred_at DESC")),
        Index(
            "events_link",
            "workspace_id",
            "link_id",
            text("occurred_at DESC"),
            postgresql_where=text("link_id IS NOT NULL"),
        ),
        Index(
            "events_visitor_link",
            "workspace_id",
            "visitor_id",
            "link_id",
            "occurred_at",
            postgresql_where=text("link_id IS NOT NULL"),
        ),
        postgresql_partition_by="RANGE (occurred_at)",
        **scope,
    )


__all__ = ["SCHEMA_VERSION", "STATUSES", "Tables", "build"]
