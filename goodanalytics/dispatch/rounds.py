"""
ACT: one target, served until nothing of it is due: what is asked after, what is sent, what is sent again in parts.

The rules about states, pauses and parts are `core.delivery`; here is who does what in which transaction. Whatever is said of
a request, of its target and of its rows is written in one.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from goodanalytics.config import Config
from goodanalytics.core.delivery import (
    HOLD,
    LEASE,
    PATIENCE,
    UNCONFIRMED,
    Answer,
    Pause,
    Settlement,
    again_in,
    is_failure,
    most_in_request,
    pause_after,
    settlement,
)
from goodanalytics.dispatch.requests import Content, Correspondent, Requests
from goodanalytics.dispatch.targets import Targets, lane, max_age
from goodanalytics.hooks import Hooks
from goodanalytics.platforms import Confirming, Outcome, Verdict, retry_at
from goodanalytics.store import ledger, outbox_breaker, webhooks
from goodanalytics.store import outbox_leases as leases
from goodanalytics.store.database import Database
from goodanalytics.store.outbox_leases import DueTarget, Leased
from goodanalytics.store.webhooks import Disabled

SENDERS: Final = 16
"""Requests that are under way at the same time."""

AT_ONCE: Final = timedelta(seconds=1)
"""How long it is true that a request may go out."""

logger = logging.getLogger("goodanalytics")


@dataclass(frozen=True, slots=True)
class Desk:
    """
    What all rounds of a process share.

    Attributes:
        senders: One for each request to a platform that may be under way.
        to_receivers: As many for receivers, some of which never answer, so that no platform waits for those.
        doors: One for each connection to the database.
    """

    config: Config
    database: Database
    targets: Targets
    requests: Requests
    senders: asyncio.Semaphore
    to_receivers: asyncio.Semaphore
    doors: asyncio.Semaphore
    hooks: Hooks


class Round:
    """Serves one target."""

    def __init__(self, desk: Desk, due: DueTarget, to: Correspondent) -> None:
        self._desk = desk
        self._due = due
        self._to = to
        self._senders = desk.senders if to.webhook_id is None else desk.to_receivers
        self._confirms = isinstance(to.dialect, Confirming)
        self._lease = desk.config.new_id()
        self._failures = to.failures
        self._contents: dict[UUID, Content] = {}
        self._settled = 0
        self._is_over = False

    async def serve(self) -> int:
        """Deliver what is due of this target; how many rows were settled."""
        if self._to.obstacle is not None:
            pause = Pause(f"credentials: {self._to.obstacle}", None)
            async with self._desk.doors, self._desk.database.begin() as conn:
                await self._leave_alone(conn, pause)
            return 0
        if self._confirms:
            await self._ask_all()
        # One request finds out whether a target that was failing does so still.
        most: int = self._to.dialect.max_batch
        if self._failures < PATIENCE:
            most = max(most, SENDERS)
        while not self._is_over:
            now = self._now
            async with self._desk.doors, self._desk.database.begin() as conn:
                rows = await leases.claim(
                    conn, self._desk.database.tables, self._due,
                    lease_id=self._lease, now=now, until=now + LEASE, most=most,
                )  # fmt: skip
            if rows:
                await self._deliver(rows)
            if len(rows) < most or self._failures >= PATIENCE:
                break
        return self._settled

    # Asking ----------------------------------------------------------------------------------------------------------

    async def _ask_all(self) -> None:
        now = self._now
        async with self._desk.doors, self._desk.database.begin() as conn:
            rows = await leases.claim_polls(
                conn, self._desk.database.tables, self._due, lease_id=self._lease, now=now, until=now + LEASE
            )
        requests: dict[str, list[Leased]] = defaultdict(list)
        for row in rows:
            requests[row.external_ref or ""].append(row)
        async with asyncio.TaskGroup() as group:
            for reference, batch in requests.items():
                group.create_task(self._ask(reference, batch))

    async def _ask(self, reference: str, rows: Sequence[Leased]) -> None:
        contents = {row.id: self._desk.targets.content(self._to, row) for row in rows}
        known = [row for row in rows if contents[row.id] is not None]
        self._contents |= {row.id: content for row in known if (content := contents[row.id]) is not None}
        lost = {
            row.id: Settlement(state="dead", reason="unreadable", attempts=row.attempts)
            for row in rows
            if contents[row.id] is None
        }
        await self._write(lost)
        if not known:
            return
        async with self._senders:
            verdicts = await self._desk.requests.ask(
                self._to, [self._contents[row.id] for row in known], reference
            )
        await self._conclude(known, verdicts, is_poll=True)

    # Sending ---------------------------------------------------------------------------------------------------------

    async def _deliver(self, rows: Sequence[Leased]) -> None:
        now = self._now
        contents, others = self._desk.targets.opened(self._to, rows, now, now + HOLD)
        self._contents |= contents
        await self._write(others)
        requests = list(self._requests([row for row in rows if row.id in contents]))
        for start in range(0, len(requests), SENDERS):
            wave = requests[start : start + SENDERS]
            begun_at = self._now
            live = {row.id: row for row in await self._begin([row for batch in wave for row in batch])}
            async with asyncio.TaskGroup() as group:
                for batch in wave:
                    group.create_task(self._send([live[row.id] for row in batch if row.id in live], begun_at))

    def _requests(self, rows: Sequence[Leased]) -> Iterator[list[Leased]]:
        """*rows* in requests: of one lane each, and smaller for those that failed before."""
        most = self._to.dialect.max_batch

        def request_of(row: Leased) -> tuple[str, int]:
            return lane(self._to, self._contents[row.id]), most_in_request(most, row.attempts)

        for (_, size), alike in itertools.groupby(sorted(rows, key=request_of), request_of):
            batch = list(alike)
            for start in range(0, len(batch), size):
                yield batch[start : start + size]

    async def _send(self, batch: Sequence[Leased], begun_at: datetime | None = None) -> None:
        live = list(batch)
        async with self._senders:
            # Whoever had to wait for others asks again whether this may go out.
            if begun_at is None or self._now - begun_at > AT_ONCE:
                live = await self._begin(live)
            if not live:
                return
            verdicts = await self._desk.requests.tell(self._to, [self._contents[row.id] for row in live])
        await self._conclude(live, verdicts)

    async def _begin(self, batch: Sequence[Leased]) -> list[Leased]:
        """Those of *batch* that may go out still. The others are given back."""
        now, ids = self._now, [row.id for row in batch]
        t = self._desk.database.tables

        async def act(conn: Any) -> set[UUID]:
            begun = await leases.begin(
                conn, t, self._due, ids, lease_id=self._lease, now=now, until=now + LEASE
            )
            if len(begun) < len(ids):
                given_back = await leases.release(
                    conn,
                    t,
                    self._due,
                    [row for row in ids if row not in begun],
                    lease_id=self._lease,
                    now=now,
                )
                # Switched off or left alone meanwhile: they are due still, and would be taken again and again.
                self._is_over = self._is_over or given_back > 0
            return begun

        async with self._desk.doors:
            live = await ledger.again(self._desk.database, act)
        return [replace(row, sent_at=now) for row in batch if row.id in live]

    # Settling --------------------------------------------------------------------------------------------------------

    async def _conclude(
        self, batch: Sequence[Leased], verdicts: Mapping[UUID, Verdict], *, is_poll: bool = False
    ) -> None:
        """Settle what was said of a request, and send again at once what has to go out in parts."""
        now = self._now
        parts: list[list[UUID]] = []
        disabled: list[Disabled] = []

        async def act(conn: Any) -> int:
            failed = not is_poll and is_failure([verdict.status for verdict in verdicts.values()])
            failures = 0 if is_poll else await self._count(conn, failed=failed)
            answers = {row.id: self._answer(row, verdicts[row.id], failures) for row in batch}
            parts[:] = again_in([row.id for row in batch], answers)
            disabled[:] = await self._note_receiver(conn, verdicts)
            pause = pause_after([*answers.values()], failures, now)
            paused = pause is None or await self._leave_alone(conn, pause)
            again = {row for part in parts for row in part}
            if is_poll and again:
                await leases.detach(
                    conn, self._desk.database.tables, self._due, sorted(again), lease_id=self._lease, now=now
                )
            settled = {}
            for row in batch:
                if row.id in again:
                    continue
                said = settlement(
                    answers[row.id], attempts=row.attempts, failures=failures if failed else 0,
                    occurred_at=row.occurred_at, max_age=max_age(self._to),
                )  # fmt: skip
                if is_poll and answers[row.id].status in ("credential", "rate_limited"):
                    # It is with the platform already: that questions are not answered changes nothing about that.
                    said = replace(said, state="accepted", reason=None, next_at=answers[row.id].retry_at)
                elif said.state == "paused_credentials" and not paused:
                    # The credential that was refused has been replaced meanwhile; the next round has the new one.
                    self._is_over = True
                    said = replace(said, state="retry_wait", reason=None, next_at=now)
                if said.state == "accepted" and row.sent_at is not None and now - row.sent_at > UNCONFIRMED:
                    said = replace(said, state="dead", reason="unconfirmed", next_at=None)
                settled[row.id] = said
            await leases.settle(
                conn, self._desk.database.tables, self._due, settled, lease_id=self._lease, now=now
            )
            return len(settled)

        async with self._desk.doors:
            settled = await ledger.again(self._desk.database, act)
        # Not `+=` with an await in it: other requests of this round are concluded meanwhile.
        self._settled += settled
        for each in disabled:
            logger.warning("goodanalytics: webhook %s is switched off: %s", each.webhook.id, each.reason)
            self._desk.hooks.announce("webhook_disabled", each)
        rows = {row.id: row for row in batch}
        for part in parts:
            await self._send([rows[row] for row in part])

    async def _count(self, conn: Any, *, failed: bool) -> int:
        """How many requests in a row have failed now."""
        if self._failures and not failed:
            await outbox_breaker.recover(
                conn, self._desk.database.tables, self._due.workspace_id, self._due.target, self._now
            )
        if failed or self._failures:
            self._failures = await outbox_breaker.note(
                conn, self._desk.database.tables, self._due.workspace_id, self._due.target,
                failed=failed, now=self._now,
            )  # fmt: skip
        return self._failures

    async def _note_receiver(self, conn: Any, verdicts: Mapping[UUID, Verdict]) -> list[Disabled]:
        """Whether a receiver's failures have switched it off now."""
        if self._to.webhook_id is None:
            return []
        failed = all(verdict.status != "delivered" for verdict in verdicts.values())
        if not failed and not self._to.is_failing:
            return []
        disabled = await webhooks.note(
            conn, self._desk.database.tables, self._due.workspace_id, self._to.webhook_id, failed=failed,
            gone=any(verdict.code == "gone" for verdict in verdicts.values()), now=self._now,
            note_id=self._desk.config.new_id(),
        )  # fmt: skip
        return [] if disabled is None else [disabled]

    async def _leave_alone(self, conn: Any, pause: Pause) -> bool:
        """Whether the target is left alone now."""
        is_paused = await outbox_breaker.pause(
            conn, self._desk.database.tables, self._due.workspace_id, self._due.target, pause,
            now=self._now, credentials_at=self._to.credentials_at,
        )  # fmt: skip
        # An outage is told once, not every few minutes.
        if is_paused and not self._is_over and (pause.until is None or self._failures <= PATIENCE):
            logger.warning(
                "goodanalytics: %s of workspace %s is left alone %s: %s", self._due.target, self._due.workspace_id,
                f"until {pause.until:%H:%M:%S %Z}" if pause.until else "until a credential is stored", pause.reason,
            )  # fmt: skip
        self._is_over = self._is_over or is_paused
        return is_paused

    def _answer(self, row: Leased, verdict: Verdict, failures: int) -> Answer:
        now, dialect = self._now, self._to.dialect
        reference = verdict.external_ref if isinstance(verdict, Outcome) else None
        status = verdict.status
        if status == "accepted":
            if self._confirms and (reference or row.external_ref):
                at = now + (verdict.retry_after or dialect.confirm_after)
            else:
                # Nobody can be asked what became of it.
                status, at = "delivered", now
        else:
            chance = self._desk.config.jitter()
            at = retry_at(max(row.attempts + 1, failures), now, chance, verdict.retry_after)
        return Answer(
            status=status,
            code=verdict.code,
            message=verdict.message,
            retry_at=at,
            of_batch=verdict.of_batch,
            external_ref=reference,
        )

    async def _write(self, settled: Mapping[UUID, Settlement]) -> None:
        if not settled:
            return

        async def act(conn: Any) -> None:
            await leases.settle(
                conn, self._desk.database.tables, self._due, settled, lease_id=self._lease, now=self._now
            )

        async with self._desk.doors:
            await ledger.again(self._desk.database, act)
        self._settled += len(settled)

    @property
    def _now(self) -> datetime:
        return self._desk.config.clock()


__all__ = ["SENDERS", "Desk", "Round"]
