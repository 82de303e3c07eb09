"""
ACT: who is behind a target, and what waits for them: credentials and contents are unsealed here and nowhere else.

All secrets that are stored for a platform go to its dialect, also those that it can do without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from goodanalytics.config import Config
from goodanalytics.core.delivery import SALE_NOT_DELIVERED, Settlement, held_back
from goodanalytics.dispatch.plan import lane_on, policy_of
from goodanalytics.dispatch.requests import Content, Correspondent
from goodanalytics.errors import ConfigError
from goodanalytics.outbound import Outbound
from goodanalytics.platforms import (
    Conversion,
    Notice,
    Platform,
    Rehearsing,
    Renewing,
    Webhook,
    plan,
    settled,
)
from goodanalytics.sealing import Place
from goodanalytics.store import credentials, webhooks
from goodanalytics.store.database import Database
from goodanalytics.store.outbox_leases import WEBHOOK, DueTarget, Leased

NOTICE_AGE: Final = timedelta(days=7)
"""How long a receiver may be away before it misses a notice."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Finds correspondents, and reads what waits for them."""

    config: Config
    database: Database
    outbound: Outbound

    async def correspondent(self, due: DueTarget) -> Correspondent | None:
        """Who is behind a target; `None` when nobody is any more."""
        if due.target.startswith(WEBHOOK):
            return await self.receiver(due.workspace_id, UUID(due.target.removeprefix(WEBHOOK)), due.failures)
        dialect = self.dialect(due.target, due.settings)
        if dialect is None:
            return None
        return await self.platform(due.workspace_id, dialect, due.failures)

    def dialect(self, name: str, settings: Mapping[str, object]) -> Platform | None:
        """The platform of that name, in its test mode where the workspace set one."""
        found = next((platform for platform in self.config.platforms if platform.name == name), None)
        code = settings.get("test_code")
        if found is not None and isinstance(code, str) and isinstance(found, Rehearsing):
            return found.in_test(code)
        return found

    async def platform(self, workspace_id: UUID, dialect: Platform, failures: int = 0) -> Correspondent:
        """A platform with everything that is stored for it."""
        async with self.database.connect() as conn:
            sealed, newest = await credentials.sealed_of(
                conn, self.database.tables, workspace_id, dialect.name
            )
        secrets, shut = self._unsealed(workspace_id, dialect.name, sealed)
        made = {"access_token"} if isinstance(dialect, Renewing) else set()
        missing = sorted(name for name in dialect.secrets if name not in made and not secrets.get(name))
        return Correspondent(
            workspace_id=workspace_id,
            target=dialect.name,
            dialect=dialect,
            secrets=secrets,
            way=self.outbound.to_platform,
            credentials_at=newest,
            failures=failures,
            obstacle=shut or (f"missing {', '.join(missing)}" if missing else None),
        )

    def _unsealed(
        self, workspace_id: UUID, target: str, sealed: Mapping[str, bytes]
    ) -> tuple[dict[str, str], str | None]:
        """The secrets that can be opened, and what to say when one cannot."""
        secrets, shut = {}, []
        for name, value in sealed.items():
            try:
                place = Place("credential", workspace_id, target, name)
                secrets[name] = self.config.sealer.unseal(value, place).decode()
            except ConfigError as error:
                self.config.report(_alone(error), f"opening a credential of {target}")
                shut.append(name)
        return secrets, f"sealed with another secret key: {', '.join(sorted(shut))}" if shut else None

    async def receiver(self, workspace_id: UUID, webhook_id: UUID, failures: int = 0) -> Correspondent | None:
        """A webhook with its secrets; `None` when there is none."""
        target = f"{WEBHOOK}{webhook_id}"
        async with self.database.connect() as conn:
            found = await webhooks.with_secret(conn, self.database.tables, workspace_id, webhook_id)
        if found is None:
            return None
        held, sealed = found
        secrets, obstacle = {}, None
        try:
            keyring = webhooks.unseal(self.config.sealer, workspace_id, webhook_id, sealed)
            secrets = keyring.signing(self.config.clock())
        except ConfigError as error:
            self.config.report(_alone(error), f"opening the secret of {target}")
            obstacle = "sealed with another secret key"
        return Correspondent(
            workspace_id=workspace_id,
            target=target,
            dialect=Webhook(url=held.url),
            secrets=secrets,
            way=self.outbound.to_receiver,
            credentials_at=None,
            failures=failures,
            obstacle=obstacle,
            webhook_id=webhook_id,
            is_failing=held.failing_since is not None,
        )

    def opened(
        self, to: Correspondent, rows: Sequence[Leased], now: datetime, hold_until: datetime
    ) -> tuple[dict[UUID, Content], dict[UUID, Settlement]]:
        """
        What is to be sent of *rows*, and what becomes of the others: they cannot be read, are not to be sent, or not yet.

        Consent, age and the host's policy are asked again here.
        """
        contents: dict[UUID, Content] = {}
        others: dict[UUID, Settlement] = {}
        for row in rows:
            content = self.content(to, row)
            said = self._obstacle(to, row, content, now, hold_until)
            if said is not None:
                others[row.id] = said
            elif content is not None:
                contents[row.id] = content
        return contents, others

    def _obstacle(
        self, to: Correspondent, row: Leased, content: Content | None, now: datetime, hold_until: datetime
    ) -> Settlement | None:
        if content is None:
            return Settlement(state="dead", reason="unreadable", attempts=row.attempts)
        if isinstance(content, Notice):
            return None
        if content.kind == "refund":
            match held_back(row.sale, others_under_way=row.others_under_way):
                case "drop":
                    return Settlement(state="skipped", reason=SALE_NOT_DELIVERED, attempts=row.attempts)
                case "hold":
                    return Settlement(
                        state="pending", reason="waits_for_sale", next_at=hold_until, attempts=row.attempts
                    )
                case "send":
                    pass
        (planned,) = plan(
            content, [to.dialect], now, silence=self.config.consent_silence, policy=policy_of(self.config)
        )
        if planned.skipped is not None:
            return Settlement(state="skipped", reason=planned.skipped, attempts=row.attempts)
        return None

    def content(self, to: Correspondent, row: Leased) -> Content | None:
        """What was sealed in *row*, as its target gets it; `None` when it cannot be read."""
        if row.sealed is None:
            return None
        place = Place("dispatch", to.workspace_id, to.target, str(row.id))
        try:
            plain = self.config.sealer.unseal(row.sealed, place)
            if to.target.startswith(WEBHOOK):
                return msgspec.json.decode(plain, type=Notice)
            conversion = msgspec.json.decode(plain, type=Conversion)
        except (ConfigError, msgspec.MsgspecError) as error:
            # What msgspec says may quote what it read.
            self.config.report(
                _alone(error) if isinstance(error, ConfigError) else ValueError("it is none of ours"),
                f"reading dispatch {row.id}",
            )
            return None
        answered = settled(conversion, self.config.consent_silence)
        return msgspec.structs.replace(answered, dispatch_id=row.id)


def _alone(error: ConfigError) -> ConfigError:
    """*error* without its frames: their variables are keys and secrets, and `on_error` may show variables to anybody."""
    return ConfigError(str(error))


def lane(to: Correspondent, content: Content) -> str:
    """Contents of different lanes never share a request."""
    return "main" if isinstance(content, Notice) else lane_on(to.dialect, content)


def max_age(to: Correspondent) -> timedelta:
    """How old what is told may be."""
    return NOTICE_AGE if to.target.startswith(WEBHOOK) else to.dialect.max_age


__all__ = ["NOTICE_AGE", "Targets", "lane", "max_age"]
