"""
Who else is told: the webhooks of a workspace, their sealed secrets, and how long they have been failing.

1. A webhook is a target of the outbox, `webhook:{id}`. Rows of one that is switched off wait; those of one that is deleted
   are skipped, and nothing is kept of them.
2. A secret is shown once, when it is made. It lies sealed, together with the one before it, which signs too for a day.
3. A webhook that has only failed for `PATIENCE`, or whose receiver says that it is gone (410), is switched off, with a row in
   the audit. A success in between starts the count anew, and so does switching it on.
4. Addresses may be secrets: no `repr` and no row of the audit holds one, only its host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.errors import ConfigError, Conflict, NotFound
from goodanalytics.platforms.quiet import Quiet
from goodanalytics.sealing import Place, Sealer
from goodanalytics.store import audit, outbox_breaker
from goodanalytics.store.database import run
from goodanalytics.store.outbox_leases import WEBHOOK
from goodanalytics.store.tables import Tables

PATIENCE: Final = timedelta(days=5)
PREVIOUS_SIGNS: Final = timedelta(days=1)
"""How long a secret that was replaced goes on signing, so that a receiver can change it without losing a notice."""

MOST: Final = 20
"""Webhooks in a workspace; each event makes a row for each of them."""

CHANGEABLE: Final = ("url", "events", "enabled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """
    Somebody who is told.

    Attributes:
        url: Where; it may be a secret.
        events: Of what, such as `sale.created`; `*` is everything.
        failing_since: Since when every request failed; `None` after a success.
        disabled_at: When it was switched off because of that.
    """

    workspace_id: UUID
    id: UUID
    url: str = field(repr=False)
    events: tuple[str, ...]
    enabled: bool
    failing_since: datetime | None
    disabled_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def target(self) -> str:
        """Its name in the outbox."""
        return f"{WEBHOOK}{self.id}"

    @property
    def host(self) -> str:
        """What may be told of the address."""
        return urlsplit(self.url).hostname or ""


class Keyring(Quiet, frozen=True, omit_defaults=True):
    """The secrets of a webhook as they are sealed."""

    secret: str
    previous: str | None = None
    previous_until: datetime | None = None

    def followed_by(self, secret: str, now: datetime) -> Keyring:
        """With a new secret; the one that was in use signs on for a while."""
        return Keyring(secret, self.secret, now + PREVIOUS_SIGNS)

    def signing(self, now: datetime) -> dict[str, str]:
        """By the names under which `platforms.Webhook` looks for them."""
        found = {"signing_secret": self.secret}
        if self.previous is not None and self.previous_until is not None and now < self.previous_until:
            found["previous_signing_secret"] = self.previous
        return found


@dataclass(frozen=True, slots=True)
class Disabled:
    """A webhook that was just switched off by its failures."""

    webhook: Webhook
    reason: str


def seal(sealer: Sealer, workspace_id: UUID, webhook_id: UUID, keyring: Keyring) -> bytes:
    """The secrets as they are stored: the secret itself, or both of them as JSON."""
    plain = keyring.secret.encode() if keyring.previous is None else msgspec.json.encode(keyring)
    return sealer.seal(plain, _place(workspace_id, webhook_id))


def unseal(sealer: Sealer, workspace_id: UUID, webhook_id: UUID, sealed: bytes) -> Keyring:
    """
    The secrets in the clear.

    Raises:
        ConfigError: They were sealed with a key that we do not have, or for another place.
    """
    plain = sealer.unseal(sealed, _place(workspace_id, webhook_id))
    try:
        return msgspec.json.decode(plain, type=Keyring) if plain.startswith(b"{") else Keyring(plain.decode())
    except (msgspec.DecodeError, UnicodeDecodeError):
        # `from None`: the cause may quote the secret.
        raise ConfigError(f"The secret of webhook {webhook_id} cannot be read; make a new one") from None


def _place(workspace_id: UUID, webhook_id: UUID) -> Place:
    return Place("webhook", workspace_id, f"{WEBHOOK}{webhook_id}", "signing_secret")


async def create(conn: AsyncConnection, t: Tables, webhook: Webhook, sealed: bytes) -> None:
    """
    Add *webhook*.

    Raises:
        Conflict: The workspace has as many as it may.
    """
    # Two at once would each count the others only.
    await run(
        conn,
        "SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))",
        key=f"{t.schema} webhooks {webhook.workspace_id}",
    )
    if len(await listed(conn, t, webhook.workspace_id)) >= MOST:
        raise Conflict(f"This workspace has {MOST} webhooks, which is the most. Delete one that nobody needs")
    row = {name: getattr(webhook, name) for name in Webhook.__slots__} | {"events": list(webhook.events)}
    await conn.execute(insert(t.webhooks).values(**row, secret=sealed))


async def get(conn: AsyncConnection, t: Tables, workspace_id: UUID, webhook_id: UUID) -> Webhook | None:
    """One of them; `None` when there is none."""
    found = await _found(conn, t, workspace_id, webhook_id)
    return found[0] if found else None


async def listed(conn: AsyncConnection, t: Tables, workspace_id: UUID) -> list[Webhook]:
    """All of a workspace, the oldest first."""
    w = t.webhooks.c
    rows = await conn.execute(select(t.webhooks).where(w.workspace_id == workspace_id).order_by(w.id))
    return [_webhook(row) for row in rows]


async def with_secret(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, webhook_id: UUID, *, for_update: bool = False
) -> tuple[Webhook, bytes] | None:
    """A webhook with its sealed secrets, for whoever sends or changes them; `None` when there is none."""
    return await _found(conn, t, workspace_id, webhook_id, for_update=for_update)


async def update(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    webhook_id: UUID,
    changes: Mapping[str, Any],
    now: datetime,
    *,
    sealed: bytes | None = None,
) -> Webhook:
    """
    Change what *changes* names of `CHANGEABLE`; with *sealed*, the secrets too.

    Another address and switching on begin anew: what failed before is forgotten, and what waits goes out.

    Raises:
        NotFound: There is no such webhook.
    """
    values: dict[str, Any] = {name: changes[name] for name in CHANGEABLE if name in changes}
    if "events" in values:
        values["events"] = list(values["events"])
    anew = values.get("enabled") is True or "url" in values
    if anew:
        values |= {"failing_since": None, "disabled_at": None}
    if sealed is not None:
        values["secret"] = sealed
    w = t.webhooks
    statement = w.update().where(w.c.workspace_id == workspace_id, w.c.id == webhook_id)
    row = (await conn.execute(statement.values(**values, updated_at=now).returning(w))).one_or_none()
    if row is None:
        raise NotFound(f"There is no webhook {webhook_id} in this workspace")
    if anew or sealed is not None:
        await outbox_breaker.resume(conn, t, workspace_id, f"{WEBHOOK}{webhook_id}", now)
    return _webhook(row)


async def delete(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, webhook_id: UUID, now: datetime
) -> int:
    """
    Delete a webhook and skip what waits for it; how much that was.

    Raises:
        NotFound: There is no such webhook.
    """
    w = t.webhooks
    gone = await conn.execute(w.delete().where(w.c.workspace_id == workspace_id, w.c.id == webhook_id))
    if not gone.rowcount:
        raise NotFound(f"There is no webhook {webhook_id} in this workspace")
    values = {"workspace_id": workspace_id, "target": f"{WEBHOOK}{webhook_id}"}
    mine = "workspace_id = :workspace_id AND target = :target"
    waiting = await run(
        conn,
        f"UPDATE {t.dispatches} SET state = 'skipped', reason = 'webhook_deleted', settled_at = :now, next_at = NULL, "
        f"lease_id = NULL, leased_until = NULL, sealed = NULL WHERE {mine} "
        "AND state NOT IN ('delivered', 'skipped', 'dead')",
        **values,
        now=now,
    )
    await run(conn, f"UPDATE {t.dispatches} SET sealed = NULL WHERE {mine} AND sealed IS NOT NULL", **values)
    await run(
        conn,
        f"DELETE FROM {t.platform_settings} WHERE workspace_id = :workspace_id AND platform = :target",
        **values,
    )
    return waiting.rowcount


async def note(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    webhook_id: UUID,
    *,
    failed: bool,
    gone: bool = False,
    now: datetime,
    note_id: UUID,
) -> Disabled | None:
    """
    What became of a request to a webhook.

    Args:
        gone: The receiver wants no more of this (410).
        note_id: Of the row in the audit, if there is to be one.

    Returns:
        The webhook when this switched it off; whoever calls tells the host after the commit.
    """
    values = {"workspace_id": workspace_id, "id": webhook_id, "now": now}
    mine = "workspace_id = :workspace_id AND id = :id"
    if not failed:
        # Nearly always there is nothing to write.
        await run(
            conn,
            f"UPDATE {t.webhooks} SET failing_since = NULL WHERE {mine} AND failing_since IS NOT NULL "
            "AND failing_since <= :now",
            **values,
        )
        return None
    enough = "(CAST(:gone AS boolean) OR failing_since <= :since)"
    found = await run(
        conn,
        f"UPDATE {t.webhooks} SET failing_since = coalesce(failing_since, :now), enabled = NOT coalesce({enough}, false), "
        f"disabled_at = CASE WHEN {enough} THEN CAST(:now AS timestamptz) END "
        f"WHERE {mine} AND enabled AND (failing_since IS NULL OR {enough}) RETURNING *",
        **values,
        gone=gone,
        since=now - PATIENCE,
    )
    row = found.one_or_none()
    if row is None or row.enabled:
        return None
    webhook = _webhook(row)
    reason = "its receiver said that it is gone (410)" if gone else f"it only failed for {PATIENCE.days} days"
    await audit.note(
        conn, t, workspace_id=workspace_id, note_id=note_id, at=now, actor=None, action="webhooks.disable",
        subject=str(webhook_id), reason=reason,
        details={"host": webhook.host, "failing_since": webhook.failing_since and webhook.failing_since.isoformat()},
    )  # fmt: skip
    return Disabled(webhook, reason)


async def _found(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, webhook_id: UUID, *, for_update: bool = False
) -> tuple[Webhook, bytes] | None:
    w = t.webhooks.c
    query = select(t.webhooks).where(w.workspace_id == workspace_id, w.id == webhook_id)
    row = (await conn.execute(query.with_for_update() if for_update else query)).one_or_none()
    return None if row is None else (_webhook(row), row.secret)


def _webhook(row: Any) -> Webhook:
    known = {name: getattr(row, name) for name in Webhook.__slots__}
    return Webhook(**(known | {"events": tuple(row.events)}))


__all__ = [
    "CHANGEABLE",
    "MOST",
    "PATIENCE",
    "PREVIOUS_SIGNS",
    "Disabled",
    "Keyring",
    "Webhook",
    "create",
    "delete",
    "get",
    "listed",
    "note",
    "seal",
    "unseal",
    "update",
    "with_secret",
]
