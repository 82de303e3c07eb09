"""Version 1's tables of conversions, the outbox, credentials and webhooks: what `store/tables_conversions.py` describes."""

from __future__ import annotations

from textwrap import dedent

from goodanalytics.migrations.op import Op

TABLES = ("conversions", "dispatches", "credentials", "platform_settings", "webhooks")


def up(op: Op, ga: str) -> None:
    """Make them in the quoted schema *ga*."""
    for statement in (*_CONVERSIONS, *_OUTBOX, *_SETTINGS):
        op.execute(dedent(statement).strip().replace("{ga}", ga))


_CONVERSIONS = (
    """
    CREATE TABLE {ga}.conversions (
        workspace_id        uuid         NOT NULL,
        event_id            uuid         NOT NULL,
        kind                {ga}.conversion_kind NOT NULL,
        visitor_id          uuid         NOT NULL,
        occurred_at         timestamptz  NOT NULL,
        name                text,
        key                 text,
        digest              text,
        amount_cents        bigint,
        currency            text,
        reporting_cents     bigint,
        reporting_currency  text,
        sale_event_id       uuid,
        before_cents        bigint,
        reason              text,
        touches             jsonb        NOT NULL,
        place               text         NOT NULL,
        contents            jsonb        NOT NULL,
        consent             jsonb,
        adopted_at          timestamptz,
        CONSTRAINT conversions_pkey PRIMARY KEY (workspace_id, event_id)
    )
    """,
    "CREATE INDEX conversions_sale ON {ga}.conversions (workspace_id, sale_event_id) WHERE sale_event_id IS NOT NULL",
    "CREATE INDEX conversions_visitor ON {ga}.conversions (workspace_id, visitor_id)",
)

# A dispatch is written four times in its life and read by workers only while it is open: room for new versions on the same
# page would not help, since `state` and `next_at` are in an index; dead versions have to go soon.
_OUTBOX = (
    """
    CREATE TABLE {ga}.dispatches (
        workspace_id   uuid         NOT NULL,
        id             uuid         NOT NULL,
        target         text         NOT NULL,
        lane           text         NOT NULL,
        event_id       uuid         NOT NULL,
        kind           text         NOT NULL,
        occurred_at    timestamptz  NOT NULL,
        sale_event_id  uuid,
        state          text         NOT NULL,
        reason         text,
        attempts       integer      NOT NULL,
        next_at        timestamptz,
        leased_until   timestamptz,
        lease_id       uuid,
        sealed         bytea,
        shown          jsonb        NOT NULL,
        code           text,
        message        text,
        external_ref   text,
        sent_at        timestamptz,
        settled_at     timestamptz,
        created_at     timestamptz  NOT NULL,
        CONSTRAINT dispatches_pkey PRIMARY KEY (workspace_id, id),
        CONSTRAINT dispatches_event UNIQUE (workspace_id, event_id, target),
        CONSTRAINT dispatches_state CHECK (state IN (
            'pending', 'retry_wait', 'accepted', 'paused_credentials', 'delivered', 'skipped', 'dead'
        ))
    ) WITH (
        autovacuum_vacuum_scale_factor = 0.02,
        autovacuum_analyze_scale_factor = 0.02
    )
    """,
    """
    CREATE INDEX dispatches_due ON {ga}.dispatches (workspace_id, target, next_at)
        WHERE state IN ('pending', 'retry_wait', 'accepted', 'paused_credentials')
    """,
    """
    CREATE INDEX dispatches_sale ON {ga}.dispatches (workspace_id, sale_event_id) WHERE sale_event_id IS NOT NULL
    """,
    """
    CREATE INDEX dispatches_kept ON {ga}.dispatches (workspace_id, settled_at)
        WHERE sealed IS NOT NULL AND settled_at IS NOT NULL
    """,
    "CREATE INDEX dispatches_created ON {ga}.dispatches (workspace_id, created_at DESC, id DESC)",
)

_SETTINGS = (
    """
    CREATE TABLE {ga}.credentials (
        workspace_id  uuid         NOT NULL,
        target        text         NOT NULL,
        name          text         NOT NULL,
        sealed        bytea        NOT NULL,
        key_id        text         NOT NULL,
        updated_at    timestamptz  NOT NULL,
        updated_by    text,
        CONSTRAINT credentials_pkey PRIMARY KEY (workspace_id, target, name)
    )
    """,
    """
    CREATE TABLE {ga}.platform_settings (
        workspace_id   uuid         NOT NULL,
        platform       text         NOT NULL,
        enabled        boolean      NOT NULL,
        settings       jsonb        NOT NULL,
        failures       integer      NOT NULL,
        paused_reason  text,
        paused_at      timestamptz,
        paused_until   timestamptz,
        updated_at     timestamptz  NOT NULL,
        CONSTRAINT platform_settings_pkey PRIMARY KEY (workspace_id, platform)
    )
    """,
    """
    CREATE TABLE {ga}.webhooks (
        workspace_id   uuid         NOT NULL,
        id             uuid         NOT NULL,
        url            text         NOT NULL,
        events         text[]       NOT NULL,
        secret         bytea        NOT NULL,
        enabled        boolean      NOT NULL,
        failing_since  timestamptz,
        disabled_at    timestamptz,
        created_at     timestamptz  NOT NULL,
        updated_at     timestamptz  NOT NULL,
        CONSTRAINT webhooks_pkey PRIMARY KEY (workspace_id, id)
    )
    """,
)
