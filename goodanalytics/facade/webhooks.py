"""
`analytics.webhooks`: who else is told of leads, sales and refunds, as Standard Webhooks 1.0.0 describes it.

Addresses are looked at twice: here for their shape, and at every request for whom they lead to (`outbound`). What was sent and
what became of it is in the outbox, under the target `webhook:{id}`: `analytics.platforms` lists it and sends it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.config import Config
from goodanalytics.core import bounds
from goodanalytics.dispatch.dispatcher import Dispatcher
from goodanalytics.errors import InvalidInput, NotFound
from goodanalytics.hooks import Hooks
from goodanalytics.outbound import checked_address
from goodanalytics.platforms import Verdict
from goodanalytics.platforms.webhook import new_secret
from goodanalytics.store import audit, outbox, webhooks
from goodanalytics.store.database import Database
from goodanalytics.store.webhooks import Keyring, Webhook

EVENTS: Final = ("lead.created", "sale.created", "refund.created")
EVERYTHING: Final = "*"
FINISHED: Final = frozenset({"dead", "skipped", "delivered"})
SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class WithSecret:
    """
    A webhook and its new secret.

    Attributes:
        secret: `whsec_…`, for the receiver. It is shown here and never again.
    """

    webhook: Webhook
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Webhooks:
    """
    The webhooks of a workspace.

    Attributes:
        dispatcher: Delivers; `None` in a room that no app is around.
    """

    config: Config
    database: Database
    dispatcher: Dispatcher | None = None

    async def create(
        self,
        url: str,
        *,
        events: Sequence[str] = (EVERYTHING,),
        actor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> WithSecret:
        """
        Tell *url* from now on; what happened before is not told.

        Args:
            url: https, on a public address.
            events: Of `lead.created`, `sale.created`, `refund.created`; `*` is all of them, also those to come.
            actor: Who asked for it, for the audit.

        Raises:
            InvalidInput: The address or an event is not usable.
            Conflict: The workspace has as many webhooks as it may.
        """
        now, workspace = self.config.clock(), self._in(workspace_id)
        webhook = Webhook(
            workspace_id=workspace,
            id=self.config.new_id(),
            url=self._address(url),
            events=_events(events),
            enabled=True,
            failing_since=None,
            disabled_at=None,
            created_at=now,
            updated_at=now,
        )
        secret = new_secret(self.config.random_bytes(SECRET_BYTES))
        sealed = webhooks.seal(self.config.sealer, workspace, webhook.id, Keyring(secret))
        async with self.database.begin() as conn:
            await webhooks.create(conn, self.database.tables, webhook, sealed)
            await self._note(conn, webhook, "webhooks.create", actor, now, {"events": list(webhook.events)})
        return WithSecret(webhook, secret)

    async def get(self, webhook: Webhook | UUID | str, *, workspace_id: UUID | None = None) -> Webhook | None:
        """One of them; `None` when there is none."""
        async with self.database.connect() as conn:
            return await webhooks.get(conn, self.database.tables, self._in(workspace_id), _id(webhook))

    async def list(self, *, workspace_id: UUID | None = None) -> Sequence[Webhook]:
        """All of them, the oldest first."""
        async with self.database.connect() as conn:
            return await webhooks.listed(conn, self.database.tables, self._in(workspace_id))

    async def update(
        self,
        webhook: Webhook | UUID | str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        enabled: bool | None = None,
        actor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> Webhook:
        """
        Change what is given. Another address and switching on forget what failed; what waits then goes out.

        Raises:
            InvalidInput: A value is not usable, or none is given.
            NotFound: There is no such webhook.
        """
        changes: dict[str, Any] = {}
        if url is not None:
            changes["url"] = self._address(url)
        if events is not None:
            changes["events"] = _events(events)
        if enabled is not None:
            changes["enabled"] = bool(enabled)
        if not changes:
            raise InvalidInput(f"Nothing is given to change. Try one of: {', '.join(webhooks.CHANGEABLE)}")
        now = self.config.clock()
        async with self.database.begin() as conn:
            changed = await webhooks.update(
                conn, self.database.tables, self._in(workspace_id), _id(webhook), changes, now
            )
            told = {name: value for name, value in changes.items() if name != "url"}
            await self._note(conn, changed, "webhooks.update", actor, now, told)
        return changed

    async def rotate_secret(
        self, webhook: Webhook | UUID | str, *, actor: str | None = None, workspace_id: UUID | None = None
    ) -> WithSecret:
        """
        A new secret. The one before it signs too for a day, so that the receiver can change it without losing anything.

        Raises:
            NotFound: There is no such webhook.
            ConfigError: The present secret was sealed with a secret key that is not among `previous_secret_keys`.
        """
        now, t, workspace = self.config.clock(), self.database.tables, self._in(workspace_id)
        secret = new_secret(self.config.random_bytes(SECRET_BYTES))
        async with self.database.begin() as conn:
            found = await webhooks.with_secret(conn, t, workspace, _id(webhook), for_update=True)
            if found is None:
                raise NotFound(f"There is no webhook {_id(webhook)} in this workspace")
            held, sealed = found
            keyring = webhooks.unseal(self.config.sealer, workspace, held.id, sealed)
            renewed = webhooks.seal(self.config.sealer, workspace, held.id, keyring.followed_by(secret, now))
            changed = await webhooks.update(conn, t, workspace, held.id, {}, now, sealed=renewed)
            await self._note(conn, changed, "webhooks.rotate_secret", actor, now, {})
        return WithSecret(changed, secret)

    async def delete(
        self, webhook: Webhook | UUID | str, *, actor: str | None = None, workspace_id: UUID | None = None
    ) -> int:
        """
        Tell it nothing any more, not even what waits; how much that was.

        Raises:
            NotFound: There is no such webhook.
        """
        now, t, workspace = self.config.clock(), self.database.tables, self._in(workspace_id)
        async with self.database.begin() as conn:
            held = await webhooks.get(conn, t, workspace, _id(webhook))
            waiting = await webhooks.delete(conn, t, workspace, _id(webhook), now)
            if held is not None:
                await self._note(conn, held, "webhooks.delete", actor, now, {"waiting": waiting})
        return waiting

    async def replay(
        self,
        webhook: Webhook | UUID | str,
        *,
        since: datetime | None = None,
        states: Sequence[str] = ("dead",),
        actor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> set[UUID]:
        """
        Send finished notices again, under the ids that they have; which those are.

        Args:
            since: Of what happened since then only.
            states: Of `dead`, `skipped`, `delivered`.

        Raises:
            InvalidInput: A state is none of those, or *since* has no time zone.
            NotFound: There is no such webhook.
        """
        if wrong := set(states) - FINISHED:
            raise InvalidInput(
                f"states has {sorted(wrong)}; it may have dead, skipped and delivered", where="states"
            )
        if since is not None and since.tzinfo is None:
            raise InvalidInput(
                f"since is {since!r}, without a time zone; give an aware datetime", where="since"
            )
        t, workspace = self.database.tables, self._in(workspace_id)
        replayed: set[UUID] = set()
        now = self.config.clock()
        while True:
            async with self.database.begin() as conn:
                held = await webhooks.get(conn, t, workspace, _id(webhook))
                if held is None:
                    raise NotFound(f"There is no webhook {_id(webhook)} in this workspace")
                part = await outbox.replay(
                    conn, t, workspace, now, target=held.target, states=states, since=since
                )
                if part:
                    details = {"number": len(part), "states": [*states]}
                    await self._note(conn, held, "webhooks.replay", actor, now, details)
            replayed |= part
            if len(part) < outbox.SWEPT:
                if self.dispatcher is not None:
                    self.dispatcher.wake()
                return replayed

    async def test(self, webhook: Webhook | UUID | str, *, workspace_id: UUID | None = None) -> Verdict:
        """
        Send a signed notice of the type `webhook.test`, also to one that is switched off, and what was said of it.

        Nothing is kept of it, and it counts neither as a failure nor as a success.

        Raises:
            NotFound: There is no such webhook.
            Conflict: Its secret cannot be opened.
        """
        if self.dispatcher is not None:
            return await self.dispatcher.ring(self._in(workspace_id), _id(webhook))
        dispatcher = Dispatcher(self.config, self.database, Hooks(self.config.report))
        try:
            return await dispatcher.ring(self._in(workspace_id), _id(webhook))
        finally:
            await dispatcher.stop()

    def _address(self, url: str) -> str:
        return checked_address(url, insecure=bool(self.config.webhook_networks))

    async def _note(
        self,
        conn: AsyncConnection,
        webhook: Webhook,
        action: str,
        actor: str | None,
        now: datetime,
        details: dict[str, Any],
    ) -> None:
        await audit.note(
            conn, self.database.tables, workspace_id=webhook.workspace_id, note_id=self.config.new_id(), at=now,
            actor=bounds.text(actor), action=action, subject=str(webhook.id), reason=None,
            details={"host": webhook.host, **details},
        )  # fmt: skip

    def _in(self, workspace_id: UUID | None) -> UUID:
        return workspace_id or self.config.workspace


def _id(webhook: Webhook | UUID | str) -> UUID:
    try:
        return webhook.id if isinstance(webhook, Webhook) else UUID(str(webhook))
    except ValueError:
        raise InvalidInput(
            f"webhook is {webhook!r}; give a UUID, or what we handed out", where="webhook"
        ) from None


def _events(events: Sequence[str]) -> tuple[str, ...]:
    if isinstance(events, str) or not events:
        raise InvalidInput(f"events is {events!r}; give a list such as ['sale.created']", where="events")
    for event in events:
        if event not in (EVERYTHING, *EVENTS):
            raise InvalidInput(
                f"events has {event!r}; it may have {', '.join(EVENTS)}, or {EVERYTHING} for all",
                where="events",
            )
    return tuple(sorted(set(events)))


__all__ = ["EVENTS", "EVERYTHING", "Webhooks", "WithSecret"]
