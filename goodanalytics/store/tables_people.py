"""
The tables of who is who: visitors, what points to them, the ledger of merges, what is left of the erased, and the audit.

The rules of `tables.py` hold: the workspace first, a writer for each column, no trigger, no sequence, no foreign key.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from goodanalytics.store.columns import OneOf, column, time

STATUSES = ("anonymous", "identified", "lead", "customer", "churned")


def visitors(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """Browsers and devices, each with what it did itself; a person is the rows that share a `canonical_id`."""
    touch = "ledger.record_visitors"
    return Table(
        "visitors",
        metadata,
        column("workspace_id", Uuid, touch),
        column("id", Uuid, touch),
        column("canonical_id", Uuid, "ledger.apply"),
        column("status", OneOf("visitor_status", STATUSES, metadata), touch),
        column("external_id", Text, touch, null=True),
        column("email", Text, touch, null=True),
        column("phone", Text, touch, null=True),
        column("name", Text, touch, null=True),
        column("traits", JSONB, touch),
        column("first_source", JSONB, touch, null=True),
        time("first_source_at", touch, null=True),
        column("first_click_id", Uuid, touch, null=True),
        column("last_source", JSONB, touch, null=True),
        time("last_source_at", touch, null=True),
        column("last_click_id", Uuid, touch, null=True),
        time("first_seen_at", touch),
        time("last_seen_at", touch),
        time("identified_at", touch, null=True),
        time("converted_at", touch, null=True),
        column("geo", JSONB, touch),
        column("device", JSONB, touch),
        column("platform_signals", JSONB, touch),
        column("consent", JSONB, touch, null=True),
        column("bot", Text, touch, null=True),
        column("total_sessions", Integer, touch),
        column("total_pageviews", Integer, touch),
        column("total_events", Integer, touch),
        column("ltv", JSONB, touch),
        PrimaryKeyConstraint("workspace_id", "id", name="visitors_pkey"),
        Index("visitors_canonical", "workspace_id", "canonical_id"),
        Index("visitors_last_seen", "workspace_id", text("last_seen_at DESC")),
        **scope,
    )


def identities(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """The values that point to a visitor today."""
    writer = "ledger.apply"
    return Table(
        "identities",
        metadata,
        column("workspace_id", Uuid, writer),
        column("kind", Text, writer),
        column("value", Text, writer),
        column("visitor_id", Uuid, writer),
        column("hit_id", Uuid, writer, null=True),
        time("first_seen_at", writer),
        time("shared_at", writer, null=True),
        PrimaryKeyConstraint("workspace_id", "kind", "value", name="identities_pkey"),
        Index("identities_visitor", "workspace_id", "visitor_id"),
        **scope,
    )


def former_identities(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """Values that pointed to a visitor once, such as the cookie of a browser that changed hands."""
    writer = "ledger.apply"
    return Table(
        "former_identities",
        metadata,
        column("workspace_id", Uuid, writer),
        column("kind", Text, writer),
        column("value", Text, writer),
        column("visitor_id", Uuid, writer),
        column("hit_id", Uuid, writer, null=True),
        time("first_seen_at", writer),
        time("until", writer),
        PrimaryKeyConstraint(
            "workspace_id", "kind", "value", "until", "visitor_id", name="former_identities_pkey"
        ),
        Index("former_identities_visitor", "workspace_id", "visitor_id"),
        **scope,
    )


def merges(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """The ledger: which two persons were found to be one, by what evidence, and which of it was undone."""
    writer = "ledger.apply"
    return Table(
        "merges",
        metadata,
        column("workspace_id", Uuid, writer),
        column("id", Uuid, writer),
        column("loser_id", Uuid, writer),
        column("winner_id", Uuid, writer),
        column("loser_member_id", Uuid, writer),
        column("winner_member_id", Uuid, writer),
        column("evidence", JSONB, writer),
        column("hit_id", Uuid, writer, null=True),
        time("merged_at", writer),
        column("actor", Text, "persons.merge", null=True),
        column("reason", Text, "persons.merge", null=True),
        time("undone_at", "persons.unmerge", null=True),
        column("undone_by", Text, "persons.unmerge", null=True),
        column("undone_reason", Text, "persons.unmerge", null=True),
        PrimaryKeyConstraint("workspace_id", "id", name="merges_pkey"),
        Index("merges_loser", "workspace_id", "loser_member_id"),
        Index("merges_winner", "workspace_id", "winner_member_id"),
        **scope,
    )


def conflicts(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """Hits that pointed to two people who were kept apart."""
    writer = "ledger.apply"
    return Table(
        "conflicts",
        metadata,
        column("workspace_id", Uuid, writer),
        column("hit_id", Uuid, writer),
        column("visitor_id", Uuid, writer),
        column("other_id", Uuid, writer),
        column("reason", Text, writer),
        time("seen_at", writer),
        PrimaryKeyConstraint("workspace_id", "hit_id", "other_id", name="conflicts_pkey"),
        Index("conflicts_visitor", "workspace_id", "visitor_id"),
        Index("conflicts_other", "workspace_id", "other_id"),
        **scope,
    )


def tombstones(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """Digests of what the erased are recognised by."""
    writer = "erasure.forget"
    return Table(
        "tombstones",
        metadata,
        column("workspace_id", Uuid, writer),
        column("digest", Text, writer),
        time("forgotten_at", writer),
        PrimaryKeyConstraint("workspace_id", "digest", name="tombstones_pkey"),
        **scope,
    )


def audit(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """What somebody did on purpose: who, to what, when and why."""
    writer = "audit.note"
    return Table(
        "audit",
        metadata,
        column("workspace_id", Uuid, writer),
        column("id", Uuid, writer),
        time("at", writer),
        column("actor", Text, writer, null=True),
        column("action", Text, writer),
        column("subject", Text, writer),
        column("reason", Text, writer, null=True),
        column("details", JSONB, writer),
        PrimaryKeyConstraint("workspace_id", "id", name="audit_pkey"),
        Index("audit_at", "workspace_id", text("at DESC")),
        **scope,
    )


__all__ = [
    "STATUSES",
    "audit",
    "conflicts",
    "former_identities",
    "identities",
    "merges",
    "tombstones",
    "visitors",
]
