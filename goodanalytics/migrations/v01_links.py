"""Version 1 of the tables of links: exactly what `store/link_tables.py` describes. The rules of `v01.py` hold."""

from __future__ import annotations

from goodanalytics.migrations.op import Op, run

TABLES = (
    "links",
    "domains",
    "link_changes",
    "link_uses",
    "link_days",
    "link_days_closed",
    "link_days_touched",
    "partners",
    "referrals",
    "commissions",
)
"""What is made here, in the order of creation."""


def make(op: Op, ga: str) -> None:
    """Make them in *ga*, the schema's quoted name."""
    _make_links(op, ga)
    _make_catalogue(op, ga)
    _make_days(op, ga)
    _make_partners(op, ga)
    _make_commissions(op, ga)


def _make_links(op: Op, ga: str) -> None:
    run(
        op,
        f"""
        CREATE TABLE {ga}.links (
            workspace_id     uuid         NOT NULL,
            id               uuid         NOT NULL,
            domain           text         NOT NULL,
            key              text         NOT NULL,
            url              text         NOT NULL,
            link_type        text         NOT NULL,
            utm_source       text,
            utm_medium       text,
            utm_campaign     text,
            utm_content      text,
            utm_term         text,
            starts_at        timestamptz,
            expires_at       timestamptz,
            expired_url      text,
            max_clicks       integer,
            password_hash    text,
            ios_url          text,
            android_url      text,
            rules            jsonb        NOT NULL,
            variants         jsonb        NOT NULL,
            redirect_status  smallint     NOT NULL,
            forward_path     boolean      NOT NULL,
            forward_query    boolean      NOT NULL,
            cloaked          boolean      NOT NULL,
            indexed          boolean      NOT NULL,
            title            text,
            notes            text,
            folder           text,
            og_title         text,
            og_description   text,
            og_image         text,
            partner_id       uuid,
            external_id      text,
            tags             text[]       NOT NULL,
            metadata         jsonb        NOT NULL,
            archived_at      timestamptz,
            created_at       timestamptz  NOT NULL,
            updated_at       timestamptz  NOT NULL,
            CONSTRAINT links_pkey PRIMARY KEY (workspace_id, id),
            CONSTRAINT links_link_type CHECK (link_type IN ('short', 'referral', 'campaign')),
            CONSTRAINT links_redirect_status CHECK (redirect_status IN (301, 302, 307, 308))
        )
    """,
    )
    # Archiving a link frees its address and its external id for another one.
    run(
        op,
        f"""
        CREATE UNIQUE INDEX links_address ON {ga}.links (workspace_id, domain, key) WHERE archived_at IS NULL
    """,
    )
    run(
        op,
        f"""
        CREATE UNIQUE INDEX links_external_id ON {ga}.links (workspace_id, external_id)
            WHERE external_id IS NOT NULL AND archived_at IS NULL
    """,
    )
    run(op, f"CREATE INDEX links_created ON {ga}.links (workspace_id, created_at DESC, id DESC)")


def _make_catalogue(op: Op, ga: str) -> None:
    run(
        op,
        f"""
        CREATE TABLE {ga}.domains (
            workspace_id    uuid         NOT NULL,
            host            text         NOT NULL,
            root_url        text,
            not_found_url   text,
            expired_url     text,
            case_sensitive  boolean      NOT NULL,
            ios_app_ids     text[]       NOT NULL,
            android_apps    jsonb        NOT NULL,
            created_at      timestamptz  NOT NULL,
            updated_at      timestamptz  NOT NULL,
            CONSTRAINT domains_pkey PRIMARY KEY (workspace_id, host)
        )
    """,
    )
    run(
        op,
        f"""
        CREATE TABLE {ga}.link_changes (
            workspace_id  uuid         NOT NULL,
            link_id       uuid         NOT NULL,
            at            timestamptz  NOT NULL,
            id            uuid         NOT NULL,
            actor         text,
            changes       jsonb        NOT NULL,
            CONSTRAINT link_changes_pkey PRIMARY KEY (workspace_id, link_id, at, id)
        )
    """,
    )
    run(
        op,
        f"""
        CREATE TABLE {ga}.link_uses (
            workspace_id  uuid         NOT NULL,
            link_id       uuid         NOT NULL,
            number        integer      NOT NULL,
            click_id      uuid         NOT NULL,
            taken_at      timestamptz  NOT NULL,
            CONSTRAINT link_uses_pkey PRIMARY KEY (workspace_id, link_id, number)
        )
    """,
    )


def _make_days(op: Op, ga: str) -> None:
    run(
        op,
        f"""
        CREATE TABLE {ga}.link_days (
            workspace_id   uuid    NOT NULL,
            link_id        uuid    NOT NULL,
            day            date    NOT NULL,
            clicks         bigint  NOT NULL,
            unique_clicks  bigint  NOT NULL,
            qr_scans       bigint  NOT NULL,
            bots           bigint  NOT NULL,
            previews       bigint  NOT NULL,
            leads          bigint  NOT NULL,
            sales          bigint  NOT NULL,
            revenue        jsonb   NOT NULL,
            CONSTRAINT link_days_pkey PRIMARY KEY (workspace_id, link_id, day)
        )
    """,
    )
    closed = "workspace_id uuid NOT NULL, day date NOT NULL, closed_at timestamptz NOT NULL"
    key = "CONSTRAINT link_days_closed_pkey PRIMARY KEY (workspace_id, day)"
    run(op, f"CREATE TABLE {ga}.link_days_closed ({closed}, {key})")
    touched = "workspace_id uuid NOT NULL, link_id uuid NOT NULL, day date NOT NULL, mark uuid NOT NULL"
    key = "CONSTRAINT link_days_touched_pkey PRIMARY KEY (workspace_id, link_id, day, mark)"
    run(op, f"CREATE TABLE {ga}.link_days_touched ({touched}, {key})")


def _make_partners(op: Op, ga: str) -> None:
    run(
        op,
        f"""
        CREATE TABLE {ga}.partners (
            workspace_id  uuid         NOT NULL,
            id            uuid         NOT NULL,
            code          text         NOT NULL,
            name          text         NOT NULL,
            email         text,
            external_id   text,
            visitor_id    uuid,
            status        text         NOT NULL,
            commission    jsonb        NOT NULL,
            metadata      jsonb        NOT NULL,
            created_at    timestamptz  NOT NULL,
            updated_at    timestamptz  NOT NULL,
            CONSTRAINT partners_pkey PRIMARY KEY (workspace_id, id),
            CONSTRAINT partners_status CHECK (status IN ('active', 'paused', 'closed'))
        )
    """,
    )
    run(op, f"CREATE UNIQUE INDEX partners_code ON {ga}.partners (workspace_id, lower(code))")
    for unique, name in (("UNIQUE ", "external_id"), ("", "email")):
        run(
            op,
            f"CREATE {unique}INDEX partners_{name} ON {ga}.partners (workspace_id, {name}) WHERE {name} IS NOT NULL",
        )
    run(op, f"CREATE INDEX partners_created ON {ga}.partners (workspace_id, created_at DESC, id DESC)")
    run(
        op,
        f"""
        CREATE TABLE {ga}.referrals (
            workspace_id  uuid         NOT NULL,
            visitor_id    uuid         NOT NULL,
            occurred_at   timestamptz  NOT NULL,
            event_id      uuid         NOT NULL,
            partner_id    uuid         NOT NULL,
            way           text         NOT NULL,
            link_id       uuid,
            CONSTRAINT referrals_pkey PRIMARY KEY (workspace_id, visitor_id, occurred_at, event_id),
            CONSTRAINT referrals_way CHECK (way IN ('click', 'landing', 'code'))
        )
    """,
    )
    run(op, f"CREATE INDEX referrals_partner ON {ga}.referrals (workspace_id, partner_id, occurred_at DESC)")


def _make_commissions(op: Op, ga: str) -> None:
    run(
        op,
        f"""
        CREATE TABLE {ga}.commissions (
            workspace_id   uuid         NOT NULL,
            id             uuid         NOT NULL,
            partner_id     uuid         NOT NULL,
            event_id       uuid         NOT NULL,
            sale_event_id  uuid         NOT NULL,
            event_type     text         NOT NULL,
            visitor_id     uuid,
            kind           text         NOT NULL,
            amount_cents   bigint       NOT NULL,
            base_cents     bigint       NOT NULL,
            base_currency  text,
            currency       text         NOT NULL,
            status         text         NOT NULL,
            reason         text,
            occurred_at    timestamptz  NOT NULL,
            created_at     timestamptz  NOT NULL,
            reviewed_at    timestamptz,
            reviewed_by    text,
            CONSTRAINT commissions_pkey PRIMARY KEY (workspace_id, id),
            CONSTRAINT commissions_kind CHECK (kind IN ('earned', 'reversed')),
            CONSTRAINT commissions_status CHECK (status IN ('pending', 'approved', 'void'))
        )
    """,
    )
    # One sale earns a partner one commission, however often it is worked out.
    columns = "workspace_id, event_id, partner_id, kind"
    run(op, f"CREATE UNIQUE INDEX commissions_event ON {ga}.commissions ({columns})")
    run(op, f"CREATE INDEX commissions_sale ON {ga}.commissions (workspace_id, sale_event_id)")
    columns = "workspace_id, partner_id, occurred_at DESC, id DESC"
    run(op, f"CREATE INDEX commissions_partner ON {ga}.commissions ({columns})")
    where = "WHERE visitor_id IS NOT NULL"
    run(op, f"CREATE INDEX commissions_visitor ON {ga}.commissions (workspace_id, visitor_id) {where}")
