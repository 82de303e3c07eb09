"""
The tables of links: what they are, who changed them, who used them up, what became of them by day, and partners.

The rules of `tables.py` hold. `link_days` is a roll-up that `link_figures` may read instead of events: it holds the figures of
closed days (UTC). `link_days_closed` says which days of a workspace were counted whole, so that no row means nothing happened;
`link_days_touched` names the days of links whose events or people changed since, with one row for each such transaction.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
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
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from goodanalytics.store.columns import column, time, words

LINK_TYPES = ("short", "referral", "campaign")
REDIRECT_STATUSES = (301, 302, 307, 308)
PARTNER_STATUSES = ("active", "paused", "closed")
WAYS = ("click", "landing", "code")
COMMISSION_KINDS = ("earned", "reversed")
COMMISSION_STATUSES = ("pending", "approved", "void")


def links(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """The links themselves."""
    return Table(
        "links",
        metadata,
        *_of_links(),
        PrimaryKeyConstraint("workspace_id", "id", name="links_pkey"),
        CheckConstraint(words("link_type", LINK_TYPES), name="links_link_type"),
        CheckConstraint(f"redirect_status IN {REDIRECT_STATUSES}", name="links_redirect_status"),
        Index(
            "links_address",
            "workspace_id",
            "domain",
            "key",
            unique=True,
            postgresql_where=text("archived_at IS NULL"),
        ),
        Index(
            "links_external_id",
            "workspace_id",
            "external_id",
            unique=True,
            postgresql_where=text("external_id IS NOT NULL AND archived_at IS NULL"),
        ),
        Index("links_created", "workspace_id", text("created_at DESC"), text("id DESC")),
        **scope,
    )


def _of_links() -> list[Column[Any]]:
    writer = "catalog.create_many"
    plain = ("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term")
    told = ("title", "notes", "folder", "og_title", "og_description", "og_image")
    return [
        column("workspace_id", Uuid, writer),
        column("id", Uuid, writer),
        column("domain", Text, writer),
        column("key", Text, writer),
        column("url", Text, writer),
        column("link_type", Text, writer),
        *(column(name, Text, writer, null=True) for name in plain),
        time("starts_at", writer, null=True),
        time("expires_at", writer, null=True),
        column("expired_url", Text, writer, null=True),
        column("max_clicks", Integer, writer, null=True),
        column("password_hash", Text, writer, null=True),
        column("ios_url", Text, writer, null=True),
        column("android_url", Text, writer, null=True),
        column("rules", JSONB, writer),
        column("variants", JSONB, writer),
        column("redirect_status", SmallInteger, writer),
        column("forward_path", Boolean, writer),
        column("forward_query", Boolean, writer),
        column("cloaked", Boolean, writer),
        column("indexed", Boolean, writer),
        *(column(name, Text, writer, null=True) for name in told),
        column("partner_id", Uuid, writer, null=True),
        column("external_id", Text, writer, null=True),
        column("tags", ARRAY(Text), writer),
        column("metadata", JSONB, writer),
        time("archived_at", "catalog.archive_many", null=True),
        time("created_at", writer),
        time("updated_at", "catalog.update_many"),
    ]


def domains(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """What holds for all links of a host; a host without a row has the defaults."""
    writer = "link_domains.put"
    return Table(
        "domains",
        metadata,
        column("workspace_id", Uuid, writer),
        column("host", Text, writer),
        column("root_url", Text, writer, null=True),
        column("not_found_url", Text, writer, null=True),
        column("expired_url", Text, writer, null=True),
        column("case_sensitive", Boolean, writer),
        column("ios_app_ids", ARRAY(Text), writer),
        column("android_apps", JSONB, writer),
        time("created_at", writer),
        time("updated_at", writer),
        PrimaryKeyConstraint("workspace_id", "host", name="domains_pkey"),
        **scope,
    )


def link_changes(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """Who changed what of a link. *changes* maps a field to its old and new value."""
    writer = "link_history.note"
    return Table(
        "link_changes",
        metadata,
        column("workspace_id", Uuid, writer),
        column("link_id", Uuid, writer),
        time("at", writer),
        column("id", Uuid, writer),
        column("actor", Text, writer, null=True),
        column("changes", JSONB, writer),
        PrimaryKeyConstraint("workspace_id", "link_id", "at", "id", name="link_changes_pkey"),
        **scope,
    )


def link_uses(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """One row for each click that a link with *max_clicks* let through; *number* counts them from 1."""
    writer = "link_uses.take"
    return Table(
        "link_uses",
        metadata,
        column("workspace_id", Uuid, writer),
        column("link_id", Uuid, writer),
        column("number", Integer, writer),
        column("click_id", Uuid, writer),
        time("taken_at", writer),
        PrimaryKeyConstraint("workspace_id", "link_id", "number", name="link_uses_pkey"),
        **scope,
    )


def link_days(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """The figures of a link on a closed day (UTC); `link_figures` says what each counts."""
    writer = "link_days.roll"
    counts = ("clicks", "unique_clicks", "qr_scans", "bots", "previews", "leads", "sales")
    return Table(
        "link_days",
        metadata,
        column("workspace_id", Uuid, writer),
        column("link_id", Uuid, writer),
        column("day", Date, writer),
        *(column(name, BigInteger, writer) for name in counts),
        column("revenue", JSONB, writer),
        PrimaryKeyConstraint("workspace_id", "link_id", "day", name="link_days_pkey"),
        **scope,
    )


def link_days_closed(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """The days of a workspace that `link_days` holds whole."""
    writer = "link_days.roll"
    return Table(
        "link_days_closed",
        metadata,
        column("workspace_id", Uuid, writer),
        column("day", Date, writer),
        time("closed_at", writer),
        PrimaryKeyConstraint("workspace_id", "day", name="link_days_closed_pkey"),
        **scope,
    )


def link_days_touched(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """Days of links that changed after they were counted, until they are counted anew. *mark* is the change's own."""
    writer = "link_days.touch"
    return Table(
        "link_days_touched",
        metadata,
        column("workspace_id", Uuid, writer),
        column("link_id", Uuid, writer),
        column("day", Date, writer),
        column("mark", Uuid, writer),
        PrimaryKeyConstraint("workspace_id", "link_id", "day", "mark", name="link_days_touched_pkey"),
        **scope,
    )


def partners(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """Who sends visitors for a commission. *external_id*, *email* and *visitor_id* say who they are among the visitors."""
    create, update = "partners.create", "partners.update"
    return Table(
        "partners",
        metadata,
        column("workspace_id", Uuid, create),
        column("id", Uuid, create),
        column("code", Text, create),
        column("name", Text, create),
        column("email", Text, create, null=True),
        column("external_id", Text, create, null=True),
        column("visitor_id", Uuid, create, null=True),
        column("status", Text, create),
        column("commission", JSONB, create),
        column("metadata", JSONB, create),
        time("created_at", create),
        time("updated_at", update),
        PrimaryKeyConstraint("workspace_id", "id", name="partners_pkey"),
        CheckConstraint(words("status", PARTNER_STATUSES), name="partners_status"),
        Index("partners_code", "workspace_id", text("lower(code)"), unique=True),
        Index(
            "partners_external_id",
            "workspace_id",
            "external_id",
            unique=True,
            postgresql_where=text("external_id IS NOT NULL"),
        ),
        Index("partners_email", "workspace_id", "email", postgresql_where=text("email IS NOT NULL")),
        Index("partners_created", "workspace_id", text("created_at DESC"), text("id DESC")),
        **scope,
    )


def referrals(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """Arrivals by a partner, each on the row of the browser that arrived. *event_id* and *occurred_at* are its event's."""
    writer = "referrals.note"
    return Table(
        "referrals",
        metadata,
        column("workspace_id", Uuid, writer),
        column("visitor_id", Uuid, writer),
        time("occurred_at", writer),
        column("event_id", Uuid, writer),
        column("partner_id", Uuid, writer),
        column("way", Text, writer),
        column("link_id", Uuid, writer, null=True),
        PrimaryKeyConstraint("workspace_id", "visitor_id", "occurred_at", "event_id", name="referrals_pkey"),
        CheckConstraint(words("way", WAYS), name="referrals_way"),
        Index("referrals_partner", "workspace_id", "partner_id", text("occurred_at DESC")),
        **scope,
    )


def commissions(metadata: MetaData, scope: dict[str, Any]) -> Table:
    """What partners earned, and what refunds took back; *amount_cents* is below zero for the latter. See `core.commissions`."""
    writer, review = "commissions.settle", "commissions.review"
    return Table(
        "commissions",
        metadata,
        column("workspace_id", Uuid, writer),
        column("id", Uuid, writer),
        column("partner_id", Uuid, writer),
        column("event_id", Uuid, writer),
        column("sale_event_id", Uuid, writer),
        column("event_type", Text, writer),
        column("visitor_id", Uuid, writer, null=True),
        column("kind", Text, writer),
        column("amount_cents", BigInteger, writer),
        column("base_cents", BigInteger, writer),
        column("base_currency", Text, writer, null=True),
        column("currency", Text, writer),
        column("status", Text, writer),
        column("reason", Text, writer, null=True),
        time("occurred_at", writer),
        time("created_at", writer),
        time("reviewed_at", review, null=True),
        column("reviewed_by", Text, review, null=True),
        PrimaryKeyConstraint("workspace_id", "id", name="commissions_pkey"),
        CheckConstraint(words("kind", COMMISSION_KINDS), name="commissions_kind"),
        CheckConstraint(words("status", COMMISSION_STATUSES), name="commissions_status"),
        Index("commissions_event", "workspace_id", "event_id", "partner_id", "kind", unique=True),
        Index("commissions_sale", "workspace_id", "sale_event_id"),
        Index(
            "commissions_partner",
            "workspace_id",
            "partner_id",
            text("occurred_at DESC"),
            text("id DESC"),
        ),
        Index(
            "commissions_visitor",
            "workspace_id",
            "visitor_id",
            postgresql_where=text("visitor_id IS NOT NULL"),
        ),
        **scope,
    )


__all__ = [
    "COMMISSION_KINDS",
    "COMMISSION_STATUSES",
    "LINK_TYPES",
    "PARTNER_STATUSES",
    "REDIRECT_STATUSES",
    "WAYS",
    "commissions",
    "domains",
    "link_changes",
    "link_days",
    "link_days_closed",
    "link_days_touched",
    "link_uses",
    "links",
    "partners",
    "referrals",
]
