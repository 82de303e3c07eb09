"""
ACT: from a conversion to the rows of the outbox, in the transaction of the conversion.

One statement for any number of conversions, two where webhooks listen; one more when somebody takes their consent back. The row's id and the id that the platform sees come
from the event, so that processing the same hit again changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from goodanalytics.config import Config
from goodanalytics.core.consent import recalled
from goodanalytics.core.identity_rows import derived_id
from goodanalytics.core.people import People
from goodanalytics.core.plan import Plan
from goodanalytics.core.visitors import Visitor
from goodanalytics.platforms import Conversion, Notice, Platform
from goodanalytics.platforms import plan as planned_on
from goodanalytics.platforms.shown import shown
from goodanalytics.sealing import Place
from goodanalytics.store import outbox
from goodanalytics.store.outbox_leases import WEBHOOK
from goodanalytics.store.tables import Tables

EVERYTHING: Final = "*"
"""What a webhook subscribes to that wants to hear of every event."""


@dataclass(frozen=True, slots=True)
class DispatchPlan:
    """Puts conversions into the outbox."""

    config: Config
    tables: Tables

    async def add(
        self,
        conn: Any,
        told: Sequence[tuple[UUID, Conversion]],
        now: datetime,
        *,
        unattributed: Sequence[tuple[UUID, Conversion]] = (),
    ) -> None:
        """
        Queue conversions, each with its workspace, for the platforms and webhooks of that workspace.

        Their `dispatch_id` does not matter; their `event_id` is the id of the event.

        Args:
            unattributed: Those that only webhooks hear of now. When they are added again as *told*, only platforms do.
        """
        news = [*told, *unattributed]
        if not news:
            return
        rows = {
            (workspace_id, row.id): row
            for workspace_id, conversion in told
            for row in self._rows(workspace_id, conversion, now)
        }
        workspaces = {workspace_id for workspace_id, _ in news}
        subscribers = await outbox.plan(conn, self.tables, list(rows.values()), workspaces, now)
        notices = [
            self._notice(subscriber, conversion)
            for subscriber in subscribers
            for workspace_id, conversion in news
            if workspace_id == subscriber.workspace_id
            and {EVERYTHING, type_of(conversion)} & {*subscriber.events}
        ]
        if notices:
            await outbox.plan(conn, self.tables, notices, (), now)

    async def withdraw(self, conn: Any, people: People, plan: Plan) -> None:
        """
        Take back what is queued for platforms of those who say no with this batch, or turn out to have said it elsewhere.

        Nearly every batch has none, and costs no statement.
        """
        persons = {
            (row.workspace_id, row.canonical_id)
            for row in plan.visitors
            if _refuses(row) and not _refuses(plan.visitor_before(row))
        }
        persons |= {
            (merge.workspace_id, people.rows[merge.workspace_id, merge.winner_member_id].canonical_id)
            for merge in people.merges
        }
        await self.withdraw_from(conn, persons)

    async def withdraw_from(self, conn: Any, persons: Collection[tuple[UUID, UUID]]) -> None:
        """`withdraw`, of these persons: workspace and canonical id of each."""
        if persons:
            await outbox.recall_denied(conn, self.tables, persons, self.config.clock())

    async def add_now(self, conn: Any, told: Sequence[tuple[UUID, Conversion]]) -> None:
        """`add`, by the host's clock."""
        await self.add(conn, told, self.config.clock())

    def _rows(self, workspace_id: UUID, conversion: Conversion, now: datetime) -> list[outbox.Row]:
        chosen = {platform.name: platform for platform in self.config.platforms}
        planned = planned_on(
            conversion, chosen.values(), now,
            silence=self.config.consent_silence, policy=policy_of(self.config),
        )  # fmt: skip
        return [
            self._row(workspace_id, conversion, chosen[each.platform], each.skipped)
            for each in planned
            # A kind that a platform knows nothing of is no news.
            if conversion.kind in chosen[each.platform].events
        ]

    def _row(
        self, workspace_id: UUID, conversion: Conversion, platform: Platform, skipped: str | None
    ) -> outbox.Row:
        event_id = UUID(conversion.event_id)
        row_id = derived_id(event_id, conversion.occurred_at, f"dispatch {platform.name}")
        # What the host's own policy refused may be allowed tomorrow; what consent refused is not kept.
        keep = skipped is None or skipped.startswith("policy")
        return outbox.Row(
            workspace_id=workspace_id,
            id=row_id,
            target=platform.name,
            lane=lane_on(platform, conversion),
            event_id=event_id,
            kind=conversion.kind,
            occurred_at=conversion.occurred_at,
            sale_event_id=UUID(conversion.sale_event_id) if conversion.sale_event_id else None,
            skipped=skipped,
            sealed=self._sealed(workspace_id, platform.name, row_id, conversion) if keep else None,
            shown=shown(conversion, platform),
        )

    def _notice(self, subscriber: outbox.Subscriber, conversion: Conversion) -> outbox.Row:
        target, event_id = f"{WEBHOOK}{subscriber.id}", UUID(conversion.event_id)
        row_id = derived_id(event_id, conversion.occurred_at, f"dispatch {target}")
        notice = Notice(
            dispatch_id=row_id,
            id=conversion.event_id,
            type=type_of(conversion),
            occurred_at=conversion.occurred_at,
            data=data_of(conversion),
        )
        return outbox.Row(
            workspace_id=subscriber.workspace_id,
            id=row_id,
            target=target,
            lane="main",
            event_id=event_id,
            # A receiver of ours hears of a refund whatever became of its sale, so no kind and no sale to wait for.
            kind=notice.type,
            occurred_at=conversion.occurred_at,
            sale_event_id=None,
            skipped=None,
            sealed=self._sealed(subscriber.workspace_id, target, row_id, notice),
            shown={
                "event": notice.type,
                "amount_cents": conversion.amount_cents,
                "currency": conversion.currency,
            },
        )

    def _sealed(self, workspace_id: UUID, target: str, row_id: UUID, content: Conversion | Notice) -> bytes:
        place = Place("dispatch", workspace_id, target, str(row_id))
        return self.config.sealer.seal(msgspec.json.encode(content), place)


def _refuses(row: Visitor | None) -> bool:
    return row is not None and recalled(row.consent).ad_user_data == "denied"


def policy_of(config: Config) -> Any:
    """
    The host's policy, which cannot stop a sale: one that fails refuses, and is reported.

    What it refuses is skipped with the reason that it gives.
    """
    policy = config.dispatch_policy
    if policy is None:
        return None

    def ask(platform: str, conversion: Conversion) -> str | None:
        try:
            return policy(platform, conversion)
        except Exception as error:  # noqa: BLE001  # a host's function may raise anything
            config.report(error, "asking dispatch_policy")
            return "the policy failed"

    return ask


def lane_on(platform: Platform, conversion: Conversion) -> str:
    """As `platforms.lane_of`, for a platform that is known to be one: asking a protocol costs more than sealing the row."""
    lane = getattr(platform, "lane", None)
    return "main" if lane is None else str(lane(conversion))


def type_of(conversion: Conversion) -> str:
    """What a webhook is told that happened: `sale.created`."""
    return f"{conversion.kind}.created"


def data_of(conversion: Conversion) -> dict[str, Any]:
    """What a webhook is told of a conversion: the host's own keys and amounts, no marks of browsers, no address of anybody."""
    known = {
        "event_id": conversion.event_id,
        "name": conversion.name,
        "key": conversion.order_key,
        "amount_cents": conversion.amount_cents,
        "currency": conversion.currency,
        "remaining_cents": conversion.remaining_cents,
        "sale_event_id": conversion.sale_event_id,
        "person_external_id": conversion.person.external_id,
        "contents": [msgspec.to_builtins(item) for item in conversion.contents],
        "properties": dict(conversion.properties),
    }
    return {name: value for name, value in known.items() if value not in (None, [], {})}


__all__ = ["EVERYTHING", "DispatchPlan", "data_of", "lane_on", "policy_of", "type_of"]
