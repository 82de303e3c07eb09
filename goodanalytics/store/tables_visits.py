"""
The tables of what was done: visits, events, and the receipts by which no hit counts twice.

1. The rules of `tables.py` hold: the workspace first, a writer for each column, no trigger, no sequence, no foreign key.
2. Events go by months and receipts by days, so that to keep them for so long and no longer is to drop a partition.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Date,
    Index,
    Integer,
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
from goodanalytics.store.columns import OneOf, column, time


def sessions(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """Visits, each with where it came from and what it amounts to so far."""
    writer = "ledger.record_sessions"
    return Table(
        "sessions",
        metadata,
        column("workspace_id", Uuid, writer),
        column("id", Uuid, writer),
        column("visitor_id", Uuid, writer),
        time("started_at", writer),
        time("last_event_at", writer),
        column("entry_url", Text, writer, null=True),
        column("entry_path", Text, writer, null=True),
        column("exit_path", Text, writer, null=True),
        column("pageviews", Integer, writer),
        column("events", Integer, writer),
        column("duration_ms", BigInteger, writer),
        column("engaged_ms", BigInteger, writer),
        column("is_bounce", Boolean, writer),
        column("is_engaged", Boolean, writer),
        column("source", Text, writer),
        column("medium", Text, writer),
        column("channel", Text, writer),
        column("campaign", Text, writer, null=True),
        column("acquisition", JSONB, writer),
        column("click_id", Uuid, writer, null=True),
        column("link_id", Uuid, writer, null=True),
        column("device_type", Text, writer, null=True),
        column("browser", Text, writer, null=True),
        column("os", Text, writer, null=True),
        column("country", Text, writer, null=True),
        column("bot", Text, writer, null=True),
        PrimaryKeyConstraint("workspace_id", "id", name="sessions_pkey"),
        Index("sessions_visitor", "workspace_id", "visitor_id", text("last_event_at DESC")),
        Index("sessions_started", "workspace_id", text("started_at DESC")),
        **scope,
    )


def events(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """What was done, an event a row."""
    writer = "ledger.record_events"
    return Table(
        "events",
        metadata,
        column("workspace_id", Uuid, writer),
        column("visitor_id", Uuid, writer),
        time("occurred_at", writer),
        column("id", Uuid, writer),
        time("received_at", writer),
        column("session_id", Uuid, writer, null=True),
        column("event_type", OneOf("event_type", [str(t) for t in EventType], metadata), writer),
        column("event_name", Text, writer, null=True),
        column("origin", Text, writer),
        column("trusted", Boolean, writer),
        column("url", Text, writer, null=True),
        column("host", Text, writer, null=True),
        column("path", Text, writer, null=True),
        column("title", Text, writer, null=True),
        column("referrer", Text, writer, null=True),
        column("source", Text, writer),
        column("medium", Text, writer),
        column("channel", Text, writer),
        column("campaign", Text, writer, null=True),
        column("acquisition", JSONB, writer, null=True),
        column("link_id", Uuid, writer, null=True),
        column("click_id", Uuid, writer, null=True),
        column("device_type", Text, writer, null=True),
        column("browser", Text, writer, null=True),
        column("browser_version", Text, writer, null=True),
        column("os", Text, writer, null=True),
        column("os_version", Text, writer, null=True),
        column("country", Text, writer, null=True),
        column("region", Text, writer, null=True),
        column("city", Text, writer, null=True),
        column("language", Text, writer, null=True),
        column("screen", Text, writer, null=True),
        column("ip", INET, writer, null=True),
        column("user_agent", Text, writer, null=True),
        column("bot", Text, writer, null=True),
        column("bot_version", SmallInteger, writer, null=True),
        column("amount_cents", BigInteger, writer, null=True),
        column("currency", Text, writer, null=True),
        column("engaged_ms", Integer, writer, null=True),
        column("scroll_depth", SmallInteger, writer, null=True),
        column("key", Text, writer, null=True),
        column("properties", JSONB, writer),
        PrimaryKeyConstraint("workspace_id", "visitor_id", "occurred_at", "id", name="events_pkey"),
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


def receipts(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """The ids of the hits that were processed, for as long as one may come again; a conversion is its own (`conversion_keys.repeated`)."""
    writer = "ledger.receive"
    return Table(
        "receipts",
        metadata,
        column("workspace_id", Uuid, writer),
        column("hit_id", Uuid, writer),
        column("day", Date, writer),
        column("digest", Text, writer, null=True),
        PrimaryKeyConstraint("workspace_id", "hit_id", "day", name="receipts_pkey"),
        postgresql_partition_by="RANGE (day)",
        **scope,
    )


__all__ = ["events", "receipts", "sessions"]
