"""
How the outbox is: what `goodanalytics doctor` says about ad platforms and webhooks, in all workspaces together.

What is only a matter of time is no finding: a platform that is left alone for a while, or rows that wait for their next try;
nor is what concerns a platform that nobody has switched on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from goodanalytics.platforms import Platform, Renewing, sunset_notice
from goodanalytics.store.database import Database, run
from goodanalytics.store.health import Finding
from goodanalytics.store.outbox_leases import WEBHOOK

STUCK: Final = timedelta(minutes=15)
"""How long a row may be due before somebody should look; the dispatcher comes by every second."""

LATELY: Final = timedelta(days=1)


async def examine(database: Database, platforms: Sequence[Platform], now: datetime) -> list[Finding]:
    """What is to be said of *platforms*, those of the settings, and of what is told to them."""
    async with database.connect() as conn:
        rows = await _switched_on(conn, database)
        used = [platform for platform in platforms if any(row.platform == platform.name for row in rows)]
        found = _versions(used, now) + _settings(rows, platforms)
        found += await _stuck(conn, database, [platform.name for platform in platforms], now)
        found += await _given_up(conn, database, now)
        found += await _webhooks(conn, database)
    return found or [Finding("ok", "nothing is wrong with ad platforms and webhooks")]


def _versions(platforms: Iterable[Platform], now: datetime) -> list[Finding]:
    found = []
    for platform in platforms:
        notice = sunset_notice(platform, now.date())
        if notice is not None:
            sunset = platform.version.sunset
            over = sunset is not None and sunset <= now.date()
            found.append(Finding("wrong" if over else "warning", notice))
    return found


async def _switched_on(conn: Any, database: Database) -> Sequence[Any]:
    t = database.tables
    rows = await run(
        conn,
        "SELECT s.workspace_id, s.platform, s.paused_reason, s.paused_at, array(SELECT c.name FROM "
        f"{t.credentials} c WHERE c.workspace_id = s.workspace_id AND c.target = s.platform) AS stored "
        f"FROM {t.platform_settings} s WHERE s.enabled AND s.platform NOT LIKE '{WEBHOOK}%' ORDER BY 1, 2",
    )
    return rows.all()


def _settings(rows: Iterable[Any], platforms: Iterable[Platform]) -> list[Finding]:
    known = {platform.name: platform for platform in platforms}
    found = []
    for row in rows:
        name, where = row.platform, f"{row.platform} in workspace {row.workspace_id}"
        platform = known.get(name)
        if platform is None:
            found.append(
                Finding(
                    "warning",
                    f"{where} is switched on and is not in the settings, so it is told nothing. Add it to Config(platforms=…), "
                    "or switch it off",
                )
            )
            continue
        made = {"access_token"} if isinstance(platform, Renewing) else set()
        missing = sorted(platform.secrets - made - set(row.stored))
        if missing:
            found.append(
                Finding(
                    "warning",
                    f"{where} is switched on, and nothing goes out: it misses {', '.join(missing)}. "
                    f"Try: goodanalytics platforms credential {name} {missing[0]}",
                )
            )
        elif row.paused_reason is not None and row.paused_reason.startswith("credentials"):
            found.append(
                Finding(
                    "warning",
                    f"{where} is paused since {row.paused_at:%F %T} ({row.paused_reason}). Store the credential anew: "
                    f"goodanalytics platforms credential {name} …",
                )
            )
    return found


async def _stuck(conn: Any, database: Database, names: Sequence[str], now: datetime) -> list[Finding]:
    t = database.tables
    on = f"{t.platform_settings} s WHERE s.workspace_id = d.workspace_id AND s.platform = d.target"
    row = (
        await run(
            conn,
            f"SELECT count(*) AS number, min(d.next_at) AS since FROM {t.dispatches} d "
            "WHERE d.state IN ('pending', 'retry_wait', 'accepted') AND d.next_at < :since "
            "AND (d.leased_until IS NULL OR d.leased_until < :now) "
            f"AND NOT EXISTS (SELECT FROM {on} AND s.paused_at IS NOT NULL AND coalesce(s.paused_until > :since, true)) "
            f"AND (EXISTS (SELECT FROM {on} AND s.enabled AND s.platform = ANY(CAST(:names AS text[]))) "
            f"OR EXISTS (SELECT FROM {t.webhooks} w WHERE w.workspace_id = d.workspace_id AND w.enabled "
            f"AND d.target = '{WEBHOOK}' || w.id))",
            since=now - STUCK,
            now=now,
            names=list(names),
        )
    ).one()
    if not row.number:
        return []
    return [
        Finding(
            "warning",
            f"{row.number} deliveries are due and nobody sends them, the first since {row.since:%F %T}. Is a worker running? "
            "Config.worker=True runs one in the app; `goodanalytics worker` is one of its own",
        )
    ]


async def _given_up(conn: Any, database: Database, now: datetime) -> list[Finding]:
    t = database.tables
    rows = await run(
        conn,
        f"SELECT d.target, count(*) AS number FROM {t.dispatches} d "
        "WHERE d.state = 'dead' AND d.settled_at >= :since GROUP BY d.target ORDER BY d.target",
        since=now - LATELY,
    )
    return [
        Finding(
            "warning",
            f"{row.number} deliveries to {row.target} were given up in the last day. See why: "
            f"goodanalytics platforms dispatches --state dead --target {row.target}",
        )
        for row in rows
    ]


async def _webhooks(conn: Any, database: Database) -> list[Finding]:
    t = database.tables
    rows = await run(
        conn,
        f"SELECT w.workspace_id, w.id, w.disabled_at, w.failing_since FROM {t.webhooks} w "
        "WHERE w.disabled_at IS NOT NULL OR (w.enabled AND w.failing_since IS NOT NULL) ORDER BY w.workspace_id, w.id",
    )
    return [
        Finding(
            "warning",
            f"webhook {row.id} in workspace {row.workspace_id} "
            + (
                f"was switched off by its failures, {row.disabled_at:%F %T}. Mend its receiver, and switch it on again"
                if row.disabled_at is not None
                else f"fails since {row.failing_since:%F %T}; after five days of that it is switched off"
            ),
        )
        for row in rows
    ]


__all__ = ["LATELY", "STUCK", "examine"]
