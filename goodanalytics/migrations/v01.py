"""
Version 1 of the schema, in plain SQL: exactly what `store/tables.py` describes.

Rules
1. What is written here has run on somebody's database: it is never edited after its release. Changes are version 2.
2. One statement per `op.execute` (asyncpg prepares each one), and nothing is asked back, so that offline mode can print
   it all.
3. The schema's name is an argument and always quoted; no statement leans on `search_path`.
4. No trigger, no sequence, no server default: every value comes from the writer that `store/tables.py` names.
"""

from __future__ import annotations

from goodanalytics.migrations import v01_conversions, v01_links
from goodanalytics.migrations.op import Op
from goodanalytics.migrations.op import run as _run

TABLES = (
    "schema_version",
    "visitors",
    "identities",
    "former_identities",
    "merges",
    "conflicts",
    "tombstones",
    "audit",
    "sessions",
    "events",
    "events_default",
    "receipts",
    "receipts_default",
    *v01_links.TABLES,
    *v01_conversions.TABLES,
    "hits",
    "rejected_hits",
)
"""What this version makes, in the order of creation. Months of `events` and days of `receipts` come and go beside it."""

DOMAINS = {
    "visitor_status": "'anonymous', 'identified', 'lead', 'customer', 'churned'",
    "event_type": (
        "'pageview', 'custom', 'engagement', 'lead', 'sale', 'refund', 'share', 'session_start', 'identify', 'link_click'"
    ),
    "conversion_kind": "'lead', 'sale', 'refund', 'forgotten', 'machine'",
}
"""The words that the columns of a kind may hold, in the tables that are written most."""


def up(op: Op, schema: str) -> None:
    """Make the schema, unless it is there, and every table."""
    ga = f'"{schema}"'
    # CREATE SCHEMA IF NOT EXISTS asks for the right to create schemas even when there is nothing to create. A user who
    # was only given a ready schema has none.
    _run(
        op,
        f"""
        DO $$ BEGIN
            IF to_regnamespace('{ga}') IS NULL THEN
                CREATE SCHEMA IF NOT EXISTS {ga};
            END IF;
        END $$
    """,
    )
    _run(
        op,
        f"""
        CREATE TABLE {ga}.schema_version (
            version     integer      NOT NULL,
            applied_at  timestamptz  NOT NULL,
            CONSTRAINT schema_version_pkey PRIMARY KEY (version)
        )
    """,
    )
    _make_domains(op, ga)
    _make_visitors(op, ga)
    _make_identities(op, ga)
    _make_ledger(op, ga)
    _make_erasure(op, ga)
    _make_sessions(op, ga)
    _make_events(op, ga)
    _make_receipts(op, ga)
    v01_links.make(op, ga)
    v01_conversions.up(op, ga)
    _make_log(op, ga)


def down(op: Op, schema: str) -> None:
    """Drop every table with its rows, and the schema when nothing else is in it."""
    ga = f'"{schema}"'
    # Dropping `events` and `receipts` drops their partitions.
    for table in reversed([name for name in TABLES if not name.endswith("_default")]):
        _run(op, f"DROP TABLE {ga}.{table}")
    for domain in DOMAINS:
        _run(op, f"DROP DOMAIN {ga}.{domain}")
    if schema == "public":
        return
    # RESTRICT is how PostgreSQL says that somebody else's table, function or type is still in there; a schema that a DBA
    # made for us is not ours to drop.
    _run(
        op,
        f"""
        DO $$ BEGIN
            DROP SCHEMA {ga} RESTRICT;
        EXCEPTION
            WHEN dependent_objects_still_exist OR insufficient_privilege THEN
                RAISE NOTICE 'schema {schema} stays: it holds other things or belongs to another user';
        END $$
    """,
    )


def _make_domains(op: Op, ga: str) -> None:
    # What a check of the table says would be read anew by each statement that writes it; a domain's rule PostgreSQL keeps.
    for name, words in DOMAINS.items():
        _run(op, f"CREATE DOMAIN {ga}.{name} AS text CONSTRAINT {name} CHECK (VALUE IN ({words}))")


def _make_visitors(op: Op, ga: str) -> None:
    # Nearly every batch updates visitors that are already there. A fifth of each page is left free so that the new
    # version of a row lands on its own page; with PostgreSQL's default of 20 % dead rows before a vacuum, a table of
    # ten million visitors would carry two million dead versions through every scan.
    _run(
        op,
        f"""
        CREATE TABLE {ga}.visitors (
            workspace_id      uuid         NOT NULL,
            id                uuid         NOT NULL,
            canonical_id      uuid         NOT NULL,
            status            {ga}.visitor_status NOT NULL,
            external_id       text,
            email             text,
            phone             text,
            name              text,
            traits            jsonb        NOT NULL,
            first_source      jsonb,
            first_source_at   timestamptz,
            first_click_id    uuid,
            last_source       jsonb,
            last_source_at    timestamptz,
            last_click_id     uuid,
            first_seen_at     timestamptz  NOT NULL,
            last_seen_at      timestamptz  NOT NULL,
            identified_at     timestamptz,
            converted_at      timestamptz,
            geo               jsonb        NOT NULL,
            device            jsonb        NOT NULL,
            platform_signals  jsonb        NOT NULL,
            consent           jsonb,
            bot               text,
            total_sessions    integer      NOT NULL,
            total_pageviews   integer      NOT NULL,
            total_events      integer      NOT NULL,
            ltv               jsonb        NOT NULL,
            CONSTRAINT visitors_pkey PRIMARY KEY (workspace_id, id)
        ) WITH (
            fillfactor = 80,
            autovacuum_vacuum_scale_factor = 0.02,
            autovacuum_analyze_scale_factor = 0.02
        )
    """,
    )
    _run(op, f"CREATE INDEX visitors_canonical ON {ga}.visitors (workspace_id, canonical_id)")
    _run(op, f"CREATE INDEX visitors_last_seen ON {ga}.visitors (workspace_id, last_seen_at DESC)")


def _make_identities(op: Op, ga: str) -> None:
    _run(
        op,
        f"""
        CREATE TABLE {ga}.identities (
            workspace_id   uuid         NOT NULL,
            kind           text         NOT NULL,
            value          text         NOT NULL,
            visitor_id     uuid         NOT NULL,
            hit_id         uuid,
            first_seen_at  timestamptz  NOT NULL,
            shared_at      timestamptz,
            CONSTRAINT identities_pkey PRIMARY KEY (workspace_id, kind, value)
        )
    """,
    )
    _run(op, f"CREATE INDEX identities_visitor ON {ga}.identities (workspace_id, visitor_id)")
    _run(
        op,
        f"""
        CREATE TABLE {ga}.former_identities (
            workspace_id   uuid         NOT NULL,
            kind           text         NOT NULL,
            value          text         NOT NULL,
            visitor_id     uuid         NOT NULL,
            hit_id         uuid,
            first_seen_at  timestamptz  NOT NULL,
            until          timestamptz  NOT NULL,
            CONSTRAINT former_identities_pkey PRIMARY KEY (workspace_id, kind, value, until, visitor_id)
        )
    """,
    )
    _run(op, f"CREATE INDEX former_identities_visitor ON {ga}.former_identities (workspace_id, visitor_id)")


def _make_ledger(op: Op, ga: str) -> None:
    _run(
        op,
        f"""
        CREATE TABLE {ga}.merges (
            workspace_id  uuid         NOT NULL,
            id            uuid         NOT NULL,
            loser_id      uuid         NOT NULL,
            winner_id     uuid         NOT NULL,
            loser_member_id   uuid     NOT NULL,
            winner_member_id  uuid     NOT NULL,
            evidence      jsonb        NOT NULL,
            hit_id        uuid,
            merged_at     timestamptz  NOT NULL,
            actor         text,
            reason        text,
            undone_at     timestamptz,
            undone_by     text,
            undone_reason text,
            CONSTRAINT merges_pkey PRIMARY KEY (workspace_id, id)
        )
    """,
    )
    _run(op, f"CREATE INDEX merges_loser ON {ga}.merges (workspace_id, loser_member_id)")
    _run(op, f"CREATE INDEX merges_winner ON {ga}.merges (workspace_id, winner_member_id)")
    _run(
        op,
        f"""
        CREATE TABLE {ga}.conflicts (
            workspace_id  uuid         NOT NULL,
            hit_id        uuid         NOT NULL,
            visitor_id    uuid         NOT NULL,
            other_id      uuid         NOT NULL,
            reason        text         NOT NULL,
            seen_at       timestamptz  NOT NULL,
            CONSTRAINT conflicts_pkey PRIMARY KEY (workspace_id, hit_id, other_id)
        )
    """,
    )
    _run(op, f"CREATE INDEX conflicts_visitor ON {ga}.conflicts (workspace_id, visitor_id)")
    _run(op, f"CREATE INDEX conflicts_other ON {ga}.conflicts (workspace_id, other_id)")


def _make_erasure(op: Op, ga: str) -> None:
    tombstones = "workspace_id uuid NOT NULL, digest text NOT NULL, forgotten_at timestamptz NOT NULL"
    key = "CONSTRAINT tombstones_pkey PRIMARY KEY (workspace_id, digest)"
    _run(op, f"CREATE TABLE {ga}.tombstones ({tombstones}, {key})")
    _run(
        op,
        f"""
        CREATE TABLE {ga}.audit (
            workspace_id  uuid         NOT NULL,
            id            uuid         NOT NULL,
            at            timestamptz  NOT NULL,
            actor         text,
            action        text         NOT NULL,
            subject       text         NOT NULL,
            reason        text,
            details       jsonb        NOT NULL,
            CONSTRAINT audit_pkey PRIMARY KEY (workspace_id, id)
        )
    """,
    )
    _run(op, f"CREATE INDEX audit_at ON {ga}.audit (workspace_id, at DESC)")


def _make_sessions(op: Op, ga: str) -> None:
    # A session is rewritten by each of its pageviews; storage as for visitors.
    _run(
        op,
        f"""
        CREATE TABLE {ga}.sessions (
            workspace_id   uuid         NOT NULL,
            id             uuid         NOT NULL,
            visitor_id     uuid         NOT NULL,
            started_at     timestamptz  NOT NULL,
            last_event_at  timestamptz  NOT NULL,
            entry_url      text,
            entry_path     text,
            exit_path      text,
            pageviews      integer      NOT NULL,
            events         integer      NOT NULL,
            duration_ms    bigint       NOT NULL,
            engaged_ms     bigint       NOT NULL,
            is_bounce      boolean      NOT NULL,
            is_engaged     boolean      NOT NULL,
            source         text         NOT NULL,
            medium         text         NOT NULL,
            channel        text         NOT NULL,
            campaign       text,
            acquisition    jsonb        NOT NULL,
            click_id       uuid,
            link_id        uuid,
            device_type    text,
            browser        text,
            os             text,
            country        text,
            bot            text,
            CONSTRAINT sessions_pkey PRIMARY KEY (workspace_id, id)
        ) WITH (
            fillfactor = 80,
            autovacuum_vacuum_scale_factor = 0.02,
            autovacuum_analyze_scale_factor = 0.02
        )
    """,
    )
    _run(op, f"CREATE INDEX sessions_visitor ON {ga}.sessions (workspace_id, visitor_id, last_event_at DESC)")
    _run(op, f"CREATE INDEX sessions_started ON {ga}.sessions (workspace_id, started_at DESC)")


def _make_events(op: Op, ga: str) -> None:
    # Partitioned by month so that retention is a DROP TABLE, not a DELETE of millions of rows. The key holds
    # `occurred_at` because PostgreSQL wants the partition's column in every unique constraint.
    _run(
        op,
        f"""
        CREATE TABLE {ga}.events (
            workspace_id     uuid         NOT NULL,
            visitor_id       uuid         NOT NULL,
            occurred_at      timestamptz  NOT NULL,
            id               uuid         NOT NULL,
            received_at      timestamptz  NOT NULL,
            session_id       uuid,
            event_type       {ga}.event_type NOT NULL,
            event_name       text,
            origin           text         NOT NULL,
            trusted          boolean      NOT NULL,
            url              text,
            host             text,
            path             text,
            title            text,
            referrer         text,
            source           text         NOT NULL,
            medium           text         NOT NULL,
            channel          text         NOT NULL,
            campaign         text,
            acquisition      jsonb,
            link_id          uuid,
            click_id         uuid,
            device_type      text,
            browser          text,
            browser_version  text,
            os               text,
            os_version       text,
            country          text,
            region           text,
            city             text,
            language         text,
            screen           text,
            ip               inet,
            user_agent       text,
            bot              text,
            bot_version      smallint,
            amount_cents     bigint,
            currency         text,
            engaged_ms       integer,
            scroll_depth     smallint,
            key              text,
            properties       jsonb        NOT NULL,
            CONSTRAINT events_pkey PRIMARY KEY (workspace_id, visitor_id, occurred_at, id)
        ) PARTITION BY RANGE (occurred_at)
    """,
    )
    _run(op, f"CREATE INDEX events_occurred ON {ga}.events (workspace_id, occurred_at DESC)")
    _run(
        op,
        f"""
        CREATE INDEX events_link ON {ga}.events (workspace_id, link_id, occurred_at DESC) WHERE link_id IS NOT NULL
    """,
    )
    _run(
        op,
        f"""
        CREATE INDEX events_visitor_link ON {ga}.events (workspace_id, visitor_id, link_id, occurred_at)
        WHERE link_id IS NOT NULL
    """,
    )
    # Nothing that was accepted may fail for want of a month: an imported event of 2019, or one that arrives before the
    # months ahead were made, lands here.
    _run(op, f"CREATE TABLE {ga}.events_default PARTITION OF {ga}.events DEFAULT")


def _make_receipts(op: Op, ga: str) -> None:
    # `day` is not the hit's: it names the partition that was open when the receipt was written (partition rules in
    # `days.py`), so that one unique index sees everybody who writes at the same time.
    _run(
        op,
        f"""
        CREATE TABLE {ga}.receipts (
            workspace_id  uuid  NOT NULL,
            hit_id        uuid  NOT NULL,
            day           date  NOT NULL,
            digest        text,
            CONSTRAINT receipts_pkey PRIMARY KEY (workspace_id, hit_id, day)
        ) PARTITION BY RANGE (day)
    """,
    )
    # Open until the first day is.
    _run(op, f"CREATE TABLE {ga}.receipts_default PARTITION OF {ga}.receipts DEFAULT")


def _make_log(op: Op, ga: str) -> None:
    # A queue: each row is inserted once, deleted soon and never updated, so pages are filled (fillfactor would be lost
    # space) and what matters is that dead rows go at once: a claim walks over every dead index entry at the head.
    # A share of the table says nothing about a queue, whose size swings between nothing and millions, so the threshold
    # is a number; vacuum works without pauses; and it does not give emptied pages back, because truncating takes a lock
    # that every append would wait for, and the next minute fills the pages again.
    _run(
        op,
        f"""
        CREATE TABLE {ga}.hits (
            shard  smallint  NOT NULL,
            id     uuid      NOT NULL,
            body   bytea     NOT NULL,
            CONSTRAINT hits_pkey PRIMARY KEY (shard, id)
        ) WITH (
            autovacuum_vacuum_scale_factor = 0,
            autovacuum_vacuum_threshold = 5000,
            autovacuum_vacuum_cost_delay = 0,
            vacuum_truncate = off
        )
    """,
    )
    _run(
        op,
        f"""
        CREATE TABLE {ga}.rejected_hits (
            id           uuid         NOT NULL,
            body         bytea        NOT NULL,
            error        text         NOT NULL,
            rejected_at  timestamptz  NOT NULL,
            CONSTRAINT rejected_hits_pkey PRIMARY KEY (id)
        )
    """,
    )
