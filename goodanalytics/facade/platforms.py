"""
`analytics.platforms`: which ad platforms are told of conversions, with which credentials, and what became of each.

    await analytics.platforms.store_credential("meta", "access_token", TOKEN)
    await analytics.platforms.store_credential("meta", "pixel_id", "1234567890")
    await analytics.platforms.enable("meta")

1. A credential goes in and never comes out. Storing one wakes what waited for it.
2. `disable` holds from the next request on. What is queued waits, and goes out after `enable` while it is young enough;
   what happens meanwhile is not queued. `disable(…, recall=True)` drops what is queued.
3. Whatever is changed by hand stands in the audit, without values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.config import Config
from goodanalytics.core import bounds
from goodanalytics.dispatch.dispatcher import Dispatcher
from goodanalytics.errors import InvalidInput
from goodanalytics.facade.dispatches import Dispatches
from goodanalytics.hooks import Hooks
from goodanalytics.platforms import Platform, Rehearsing, Renewing, Verdict, sunset_notice
from goodanalytics.sealing import Place
from goodanalytics.store import credentials, ledger, outbox, outbox_breaker, outbox_reading, resealing
from goodanalytics.store.database import Database
from goodanalytics.store.resealing import Resealed

LONGEST_SECRET: Final = 16_384  # characters; the key file of a service account has 2,400


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformStatus:
    """
    A platform in a workspace.

    Attributes:
        test_code: With which everything is sent in the platform's test mode; `None` counts for real.
        paused_reason: Why nothing goes out, while nothing does.
        paused_until: `None` with a reason: until a credential is stored.
        credentials: Names of those that are stored, with the time.
        missing: Names of those that are needed too.
        dispatches: How many are in which state.
        notice: What to say about the version of its API.
    """

    name: str
    enabled: bool
    test_code: str | None
    paused_reason: str | None
    paused_until: datetime | None
    credentials: Mapping[str, datetime]
    missing: tuple[str, ...]
    dispatches: Mapping[str, int]
    version: str
    notice: str | None


@dataclass(frozen=True, slots=True)
class Platforms(Dispatches):
    """The ad platforms of `Config(platforms=…)`, and what they are told."""

    @classmethod
    def alone(cls, config: Config, database: Database) -> Platforms:
        """For a room that no app is around: what it wakes delivers nothing."""
        return cls(config, database, Dispatcher(config, database, Hooks(config.report)))

    async def list(self, *, workspace_id: UUID | None = None) -> Sequence[PlatformStatus]:
        """All platforms of the settings, as they stand in this workspace."""
        t, workspace = self.database.tables, self.in_workspace(workspace_id)
        async with self.database.connect() as conn:
            known = await credentials.settings(conn, t, workspace)
            numbers = await outbox_reading.counts(conn, t, workspace)
        today = self.config.clock().date()
        found = []
        for platform in self.config.platforms:
            row = known.get(platform.name)
            stored = row.credentials if row else {}
            found.append(
                PlatformStatus(
                    name=platform.name,
                    enabled=row.enabled if row else False,
                    test_code=row.settings.get("test_code") if row else None,
                    paused_reason=row.paused_reason if row else None,
                    paused_until=row.paused_until if row else None,
                    credentials=stored,
                    missing=tuple(sorted(_needed(platform) - set(stored))),
                    dispatches=numbers.get(platform.name, {}),
                    version=platform.version.name,
                    notice=sunset_notice(platform, today),
                )
            )
        return found

    async def enable(
        self,
        platform: str,
        *,
        test_code: str | None = None,
        actor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> None:
        """
        Tell *platform* of every conversion from now on, and of what was queued before it was switched off.

        Args:
            test_code: Send everything in the platform's test mode, with what its own test page shows; any text for one that
                needs none. Left out, conversions count.

        Raises:
            InvalidInput: There is no such platform in the settings, or it has no test mode.
        """
        chosen = self._chosen(platform)
        if test_code is not None:
            if not isinstance(chosen, Rehearsing):
                raise InvalidInput(f"{platform} has no test mode; leave test_code out", where="test_code")
            chosen.in_test(test_code)  # refuses an empty one where it takes one
        settings = {} if test_code is None else {"test_code": test_code}
        await self._switch(
            platform, enabled=True, settings=settings, actor=actor, workspace_id=workspace_id, recall=False
        )
        self.dispatcher.wake()

    async def disable(
        self,
        platform: str,
        *,
        recall: bool = False,
        actor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> None:
        """
        Tell *platform* nothing more, at once: no request begins after this.

        Args:
            recall: Also drop what is queued. Otherwise it waits for `enable`.

        Raises:
            InvalidInput: There is no such platform in the settings.
        """
        self._chosen(platform)
        await self._switch(
            platform, enabled=False, settings=None, actor=actor, workspace_id=workspace_id, recall=recall
        )

    async def store_credential(
        self,
        platform: str,
        name: str,
        value: str,
        *,
        actor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> None:
        """
        Keep a credential, encrypted, in place of the one of the same name. What waited for it goes out.

        Args:
            name: As the platform's class lists it, such as `access_token`; `login_customer_id` is one that Google may need.

        Raises:
            InvalidInput: There is no such platform in the settings, or the name or value is empty or too long.
        """
        await self.store_credentials(platform, {name: value}, actor=actor, workspace_id=workspace_id)

    async def store_credentials(
        self,
        platform: str,
        values: Mapping[str, str],
        *,
        actor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> None:
        """
        Keep several credentials at once, so that none is used with an old one of another name.

        Raises:
            InvalidInput: As `store_credential`. No value is in the message.
        """
        self._chosen(platform)
        workspace, now = self.in_workspace(workspace_id), self.config.clock()
        sealed = {}
        for name, value in values.items():
            if not name.isidentifier() or len(name) > 64:
                raise InvalidInput(
                    "That is no name of a credential; write one such as access_token", where="name"
                )
            if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_SECRET:
                raise InvalidInput(
                    f"{name} is empty, no text, or longer than {LONGEST_SECRET} characters", where=name
                )
            place = Place("credential", workspace, platform, name)
            sealed[name] = self.config.sealer.seal(value.strip().encode(), place)

        async def act(conn: AsyncConnection) -> None:
            await credentials.store(
                conn, self.database.tables, workspace, platform, sealed, now=now, by=bounds.text(actor)
            )
            await self.note(
                conn, "platforms.store_credential", platform, workspace, actor, {"names": sorted(sealed)}
            )

        await ledger.again(self.database, act)
        self.dispatcher.wake()

    async def drop_credentials(
        self,
        platform: str,
        names: Sequence[str] | None = None,
        *,
        actor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> int:
        """
        Delete credentials, all of the platform when no *names* are given; how many those were.

        Raises:
            InvalidInput: There is no such platform in the settings.
        """
        self._chosen(platform)
        workspace = self.in_workspace(workspace_id)
        async with self.database.begin() as conn:
            gone = await credentials.drop(
                conn, self.database.tables, workspace, platform, None if names is None else [*names]
            )
            await self.note(conn, "platforms.drop_credentials", platform, workspace, actor, {"number": gone})
        return gone

    async def rotate(self, *, actor: str | None = None, workspace_id: UUID | None = None) -> Resealed:
        """
        Encrypt everything anew with the present secret key. After that, the former one can leave `previous_secret_keys`.

        It can be broken off and repeated. What cannot be opened is counted, and stays as it is.
        """
        workspace = self.in_workspace(workspace_id)
        done = await resealing.reseal(self.database, workspace, self.config.sealer)
        details = {name: getattr(done, name) for name in done.__slots__}
        async with self.database.begin() as conn:
            await self.note(conn, "platforms.rotate", "secret_key", workspace, actor, details)
        return done

    async def test(self, platform: str, code: str = "", *, workspace_id: UUID | None = None) -> Verdict:
        """
        Send an invented sale in the platform's test mode, and what was said of it. Nothing is kept, nothing counts.

        Args:
            code: What the platform's own test page shows; some need none.

        Raises:
            InvalidInput: There is no such platform in the settings, or it has no test mode.
            Conflict: Credentials are missing.
        """
        chosen = self._chosen(platform)
        if not isinstance(chosen, Rehearsing):
            raise InvalidInput(f"{platform} has no test mode, and what is sent would count", where="platform")
        return await self.dispatcher.rehearse(self.in_workspace(workspace_id), chosen.in_test(code))

    async def _switch(
        self,
        platform: str,
        *,
        enabled: bool,
        settings: Mapping[str, Any] | None,
        actor: str | None,
        workspace_id: UUID | None,
        recall: bool,
    ) -> None:
        t, workspace, now = self.database.tables, self.in_workspace(workspace_id), self.config.clock()

        async def act(conn: AsyncConnection) -> None:
            await credentials.switch(
                conn, t, workspace, platform, enabled=enabled, settings=settings, now=now
            )
            details: dict[str, Any] = {}
            if enabled:
                # Whoever switches it on again has mended what was wrong, or will be told anew.
                await outbox_breaker.resume(conn, t, workspace, platform, now)
            if recall:
                found = await outbox.recall_target(conn, t, workspace, platform, now)
                details = {"recalled": found.recalled, "under_way": found.under_way}
            action = "platforms.enable" if enabled else "platforms.disable"
            await self.note(conn, action, platform, workspace, actor, details)

        await ledger.again(self.database, act)

    def _chosen(self, name: str) -> Platform:
        for platform in self.config.platforms:
            if platform.name == name:
                return platform
        known = ", ".join(platform.name for platform in self.config.platforms) or "none"
        raise InvalidInput(
            f"There is no platform {name!r}; the settings have {known}. Try: Config(platforms=[Meta()])",
            where="platform",
        )


def _needed(platform: Platform) -> frozenset[str]:
    return platform.secrets - ({"access_token"} if isinstance(platform, Renewing) else set())


__all__ = ["PlatformStatus", "Platforms"]
