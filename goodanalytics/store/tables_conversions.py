"""
The tables of what was earned and whom we tell: conversions, the outbox, credentials, webhooks.

1. The rules of `tables.py` hold: the workspace first, a writer for each column, no trigger, no sequence, no foreign key.
2. Whatever names a person or opens a door lies in a `sealed` column, as `goodanalytics.sealing` writes it; everything
   beside it may be shown.
3. Only dispatches that are not finished are in the index that workers look into.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from goodanalytics.core.delivery import STATES, UNFINISHED
from goodanalytics.store.columns import OneOf, column, time, words

CONVERSION_KINDS = ("lead", "sale", "refund", "forgotten", "machine")
"""The last two are of nobody, and hold what they are known by when they are told again (`conversion_keys.forget`, `keep`)."""


def conversions(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """Leads, sales and refunds that count, each with the touches that earned it."""
    writer = "conversions.record"
    return Table(
        "conversions",
        metadata,
        column("workspace_id", Uuid, writer),
        column("event_id", Uuid, writer),
        column("kind", OneOf("conversion_kind", CONVERSION_KINDS, metadata), writer),
        column("visitor_id", Uuid, writer),
        time("occurred_at", writer),
        column("name", Text, writer, null=True),
        column("key", Text, writer, null=True),
        column("digest", Text, writer, null=True),
        column("amount_cents", BigInteger, writer, null=True),
        column("currency", Text, writer, null=True),
        column("reporting_cents", BigInteger, writer, null=True),
        column("reporting_currency", Text, writer, null=True),
        column("sale_event_id", Uuid, writer, null=True),
        column("before_cents", BigInteger, writer, null=True),
        column("reason", Text, writer, null=True),
        column("touches", JSONB, writer),
        column("place", Text, writer),
        column("contents", JSONB, writer),
        column("consent", JSONB, writer, null=True),
        time("adopted_at", "conversions.adopt", null=True),
        PrimaryKeyConstraint("workspace_id", "event_id", name="conversions_pkey"),
        Index(
            "conversions_sale",
            "workspace_id",
            "sale_event_id",
            postgresql_where=text("sale_event_id IS NOT NULL"),
        ),
        Index("conversions_visitor", "workspace_id", "visitor_id"),
        **scope,
    )


def dispatches(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """The outbox: one row for each conversion and each platform or webhook that it goes to, or does not go to."""
    plan, settle = "outbox.plan", "outbox_leases.settle"
    return Table(
        "dispatches",
        metadata,
        column("workspace_id", Uuid, plan),
        column("id", Uuid, plan),
        column("target", Text, plan),
        column("lane", Text, plan),
        column("event_id", Uuid, plan),
        column("kind", Text, plan),
        time("occurred_at", plan),
        column("sale_event_id", Uuid, plan, null=True),
        column("state", Text, settle),
        column("reason", Text, settle, null=True),
        column("attempts", Integer, settle),
        time("next_at", settle, null=True),
        time("leased_until", "outbox_leases.claim", null=True),
        column("lease_id", Uuid, "outbox_leases.claim", null=True),
        column("sealed", LargeBinary, plan, null=True),
        column("shown", JSONB, plan),
        column("code", Text, settle, null=True),
        column("message", Text, settle, null=True),
        column("external_ref", Text, settle, null=True),
        time("sent_at", "outbox_leases.begin", null=True),
        time("settled_at", settle, null=True),
        time("created_at", plan),
        PrimaryKeyConstraint("workspace_id", "id", name="dispatches_pkey"),
        UniqueConstraint("workspace_id", "event_id", "target", name="dispatches_event"),
        CheckConstraint(words("state", STATES), name="dispatches_state"),
        Index(
            "dispatches_due",
            "workspace_id",
            "target",
            "next_at",
            postgresql_where=text(words("state", UNFINISHED)),
        ),
        Index(
            "dispatches_sale",
            "workspace_id",
            "sale_event_id",
            postgresql_where=text("sale_event_id IS NOT NULL"),
        ),
        Index(
            "dispatches_kept",
            "workspace_id",
            "settled_at",
            postgresql_where=text("sealed IS NOT NULL AND settled_at IS NOT NULL"),
        ),
        Index("dispatches_created", "workspace_id", text("created_at DESC"), text("id DESC")),
        **scope,
    )


def credentials(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """What opens the platforms' doors, sealed."""
    writer = "credentials.store"
    return Table(
        "credentials",
        metadata,
        column("workspace_id", Uuid, writer),
        column("target", Text, writer),
        column("name", Text, writer),
        column("sealed", LargeBinary, writer),
        column("key_id", Text, writer),
        time("updated_at", writer),
        column("updated_by", Text, writer, null=True),
        PrimaryKeyConstraint("workspace_id", "target", "name", name="credentials_pkey"),
        **scope,
    )


def platform_settings(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """Which platforms a workspace tells, and whether one of them has to be left alone for now."""
    switch, breaker = "credentials.switch", "outbox_breaker.note"
    return Table(
        "platform_settings",
        metadata,
        column("workspace_id", Uuid, switch),
        column("platform", Text, switch),
        column("enabled", Boolean, switch),
        column("settings", JSONB, switch),
        column("failures", Integer, breaker),
        column("paused_reason", Text, breaker, null=True),
        time("paused_at", breaker, null=True),
        time("paused_until", breaker, null=True),
        time("updated_at", switch),
        PrimaryKeyConstraint("workspace_id", "platform", name="platform_settings_pkey"),
        **scope,
    )


def webhooks(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """Who else is told, at an address of their own."""
    writer, failing = "webhooks.create", "webhooks.note"
    return Table(
        "webhooks",
        metadata,
        column("workspace_id", Uuid, writer),
        column("id", Uuid, writer),
        column("url", Text, writer),
        column("events", ARRAY(Text), writer),
        column("secret", LargeBinary, writer),
        column("enabled", Boolean, writer),
        time("failing_since", failing, null=True),
        time("disabled_at", failing, null=True),
        time("created_at", writer),
        time("updated_at", writer),
        PrimaryKeyConstraint("workspace_id", "id", name="webhooks_pkey"),
        **scope,
    )


__all__ = [
    "CONVERSION_KINDS",
    "conversions",
    "credentials",
    "dispatches",
    "platform_settings",
    "webhooks",
]
