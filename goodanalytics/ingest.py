"""
ACT: make hits that are safe into what is known, in one transaction a batch.

`process(conn, hits)` is the one engine. The worker calls it with hundreds of hits out of the log; the Python verbs and the
REST room call it with one, inside the host's transaction when the host passes its connection.

    understand (pure) → ledger.receive → people.load → People.take for each (pure) → history.recall → Plan.add for each (pure)
    → ledger.apply → commit → hooks
"""

from __future__ import annotations

import asyncio
import fnmatch
import ipaddress
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from goodanalytics.config import Config
from goodanalytics.core import devices, sources, urls
from goodanalytics.core.foreseen import Foreseen, foreseen
from goodanalytics.core.hits import Hit
from goodanalytics.core.identity import identifiers
from goodanalytics.core.people import People, Taken
from goodanalytics.core.places import Place
from goodanalytics.core.plan import Outcome, Plan, SessionPolicy, Understood, outcome
from goodanalytics.core.referral import news_of
from goodanalytics.errors import Busy, DatabaseUnavailable
from goodanalytics.geo import GeoReader
from goodanalytics.hooks import Hooks
from goodanalytics.log.postgres import Entry, PostgresLog
from goodanalytics.store import commissions, health, history, ledger
from goodanalytics.store import people as people_rows
from goodanalytics.store.database import Database, after_commit, blames_rows, is_passing, savepoint
from goodanalytics.store.people import Stale
from goodanalytics.store.told import Evidence

ATTEMPTS = 8
"""How often a batch decides again when others are faster; from the second time on it is alone in doing so."""


GROWTH = 4
"""How many times the configured batch size a batch may grow to under a backlog."""

LINGER = 0.05
"""Seconds that the worker waits after a small batch. A lag that nobody sees, for a tenth of the work at moderate rates."""

STOP_SECONDS = 10
"""How long a stop waits for the batch at hand."""

DRAIN_PAUSE = 0.01
"""Seconds between two looks at a log whose last hits another worker has in hand."""


@dataclass(frozen=True, slots=True)
class Ingest:
    """The engine with what it needs."""

    config: Config
    database: Database
    hooks: Hooks
    geo: GeoReader | None

    async def now(self, hits: Sequence[Hit], connection: Any = None) -> list[Outcome]:
        """
        Process *hits* at once, without the log.

        Args:
            connection: The host's own `AsyncConnection` or `AsyncSession`: everything commits or vanishes with it, and
                hooks wait for its commit. Without one, a transaction of our own, tried again when it lost a deadlock.

        Raises:
            Busy: Others kept changing the same visitors.
            DatabaseUnavailable: Nobody answers, or the connection was lost.
        """
        if connection is not None:
            outcomes = await self.process(connection, hits)
            await after_commit(connection, lambda: self.hooks.notify(hits, outcomes))
            return outcomes
        for _ in range(ATTEMPTS):
            try:
                async with self.database.begin() as conn:
                    outcomes = await self.process(conn, hits)
            except Exception as error:
                if not is_passing(error):
                    raise
                continue
            self.hooks.notify(hits, outcomes)
            return outcomes
        raise Busy(f"{len(hits)} hits lost {ATTEMPTS} transactions to others. Try again")

    async def process(self, conn: Any, hits: Sequence[Hit]) -> list[Outcome]:
        """
        Write what *hits* mean, in the transaction of *conn*. The outcomes stand in the order of the hits.

        Raises:
            Busy: Others kept changing the same visitors, `ATTEMPTS` times.
        """
        t = self.database.tables
        recording = [hit for hit in hits if not hit.quiet]
        repeated = await ledger.receive(conn, t, recording) if recording else {}
        outcomes: dict[int, Outcome] = {}
        first: dict[tuple[UUID, UUID], int] = {}
        fresh: dict[int, Hit] = {}
        for index, hit in enumerate(hits):
            key = (hit.workspace_id, hit.id)
            if hit.quiet or (first.setdefault(key, index) == index and key not in repeated):
                fresh[index] = hit
            else:
                outcomes[index] = _repetition(hit, repeated.get(key, hits[first[key]].digest))
        understood = {index: self.understand(hit) for index, hit in fresh.items() if not hit.quiet}
        for attempt in range(ATTEMPTS if fresh else 0):
            with suppress(Stale):
                async with people_rows.line(conn, t, attempt), savepoint(conn) as inner:
                    people, whose = await self.resolve(inner, list(fresh.values()))
                    by_index = dict(zip(fresh, whose, strict=True))
                    recorded = [
                        (understood[index], one)
                        for index, one in by_index.items()
                        if one is not None and index in understood
                    ]
                    plan = await self._plan(inner, people, recorded)
                    now = self.config.clock()
                    await ledger.apply(inner, t, people, plan, now)
                    await commissions.record(inner, t, news_of(people, plan), self.config.referral, now)
                outcomes |= {index: outcome(fresh[index], one) for index, one in by_index.items()}
                return [outcomes[index] for index in range(len(hits))]
        if fresh:
            raise Busy(f"{len(fresh)} hits lost {ATTEMPTS} races for their visitors. Try again")
        return [outcomes[index] for index in range(len(hits))]

    async def foresee(self, hit: Hit, connection: Any = None) -> Foreseen:
        """
        Say what *hit* would change about who is who, and change nothing.

        What it reads is locked until the host's transaction ends, if *connection* is the host's.

        Raises:
            Busy: Others kept changing the same visitors.
        """
        understood = self.understand(hit)
        for attempt in range(ATTEMPTS):
            with suppress(Stale):
                async with (
                    self.database.trying(connection) as conn,
                    people_rows.line(conn, self.database.tables, attempt),
                ):
                    people, (one,) = await self.resolve(conn, [hit])
                    if one is None:
                        return Foreseen("dropped", None)
                    plan = await self._plan(conn, people, [(understood, one)], everybody=True)
                return foreseen(people, plan, hit, one)
        raise Busy(f"Foreseeing lost {ATTEMPTS} races for its visitors. Try again")

    async def resolve(self, conn: Any, hits: Sequence[Hit]) -> tuple[People, list[Taken | None]]:
        """
        Say whose *hits* are, and lock these people until the transaction of *conn* ends; nothing is written.

        Raises:
            Stale: Somebody else was faster. Undo what the transaction read, and ask again.
        """
        offered = [identifiers(hit, self.config.identity) for hit in hits]
        state = await people_rows.load(
            conn,
            self.database.tables,
            [
                Evidence(h.workspace_id, found, h.signals.visitor_id)
                for h, found in zip(hits, offered, strict=True)
            ],
            self.config.graveyard,
        )
        people = People(state, self.config.identity)
        return people, [people.take(hit, found) for hit, found in zip(hits, offered, strict=True)]

    async def _plan(
        self, conn: Any, people: People, batch: Sequence[tuple[Understood, Taken]], *, everybody: bool = False
    ) -> Plan:
        """What hits change about those whose they are."""
        rules = self.config.session
        past = await history.recall(
            conn, self.database.tables, people, batch, rules.timeout, everybody=everybody
        )
        plan = Plan(people, past, SessionPolicy(rules.timeout, rules.split_on_source))
        for understood, one in batch:
            plan.record(understood, one.visitor_id, one.company)
        return plan

    def understand(self, hit: Hit) -> Understood:
        """Read everything out of *hit* that needs no database: where from, with what, where on earth."""
        parts = urls.parts(hit.url)
        return Understood(
            hit=hit,
            source=sources.of_hit(hit, self.config.own_hosts),
            device=devices.parse(hit.client.user_agent, hit.client.hints, hit.client.touch_points),
            place=self._place(hit),
            url=urls.clean(hit.url),
            host=parts.host,
            path=parts.path if hit.url is not None else None,
            referrer=urls.clean(hit.referrer),
            ip=kept_ip(hit.client.ip, self.config.keep_ip),
        )

    def _place(self, hit: Hit) -> Place | None:
        if hit.client.country is not None:
            return Place(country=hit.client.country)
        if self.geo is None or hit.client.ip is None:
            return None
        return self.geo.lookup(hit.client.ip)


def _repetition(hit: Hit, digest: str | None) -> Outcome:
    if hit.digest is not None and digest is not None and hit.digest != digest:
        return Outcome(hit.id, "conflict", reason="the same key was used before with another body")
    return Outcome(hit.id, "repeated")


@lru_cache(maxsize=4096)
def kept_ip(ip: str | None, keep: str) -> str | None:
    """*ip* as it may be stored: whole, as its /24 or /48 network (what Google Analytics masked), or not at all."""
    if ip is None or keep == "off":
        return None
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if keep == "full":
        return str(address)
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))


class Worker:
    """
    The loop that takes hits out of the log and processes them.

    It is woken by appends in its own process and looks by itself every `worker_interval`. Several workers, in one process
    or many, share the load; a visitor's hits stay in order because a shard is claimed by one worker at a time.
    """

    def __init__(self, ingest: Ingest, log: PostgresLog) -> None:
        self._ingest = ingest
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._size = ingest.config.batch_size

    def start(self) -> None:
        """Begin to work in the running event loop."""
        self._is_stopping = False
        self._task = asyncio.get_running_loop().create_task(self._run(), name="goodanalytics worker")

    async def stop(self) -> None:
        """
        Stop after the batch that is being processed; what is in the log stays there.

        A batch that takes longer than `STOP_SECONDS` is broken off, and is in the log again.
        """
        if self._task is not None:
            self._is_stopping = True
            self._log.wake()
            await asyncio.wait([self._task], timeout=STOP_SECONDS)
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def drain(self) -> int:
        """
        Process everything that is in the log now, and return how many hits that were.

        What another worker has in hand is waited for.
        """
        total = 0
        while True:
            taken = await self.work()
            total += taken
            if not taken:
                if not (await health.backlog(self._ingest.database, self._now)).waiting:
                    return total
                await asyncio.sleep(DRAIN_PAUSE)

    async def work(self) -> int:
        """
        Take one batch out of the log and process it, in one transaction. Returns its size; 0 when nothing was free.

        While batches come full, the next one is larger, up to `GROWTH` times the configured size: the statements of a batch
        cost nearly the same whatever its size.
        """
        smallest = self._ingest.config.batch_size
        async with self._ingest.database.begin() as conn:
            entries = await self._log.claim(conn, self._size)
            done = await self._settle(conn, entries)
        is_full = len(entries) == self._size
        self._size = min(2 * self._size, GROWTH * smallest) if is_full else smallest
        self._ingest.hooks.notify([hit for hit, _ in done], [outcome for _, outcome in done])
        return len(entries)

    async def _settle(self, conn: Any, entries: Sequence[Entry]) -> list[tuple[Hit, Outcome]]:
        """Process *entries*; where that fails, halve them until the hit that is to blame stands alone, and set it aside."""
        if not entries:
            return []
        if any(entry.hit is None for entry in entries):
            await self._log.set_aside(
                conn, [e for e in entries if e.hit is None], "cannot be read", self._now
            )
            entries = [entry for entry in entries if entry.hit is not None]
        hits = [entry.hit for entry in entries if entry.hit is not None]
        try:
            async with savepoint(conn) as inner:
                return list(zip(hits, await self._ingest.process(inner, hits), strict=True))
        except Busy:
            raise
        except Exception as error:
            if not blames_rows(error):
                raise
            if len(entries) == 1:
                self._ingest.config.report(error, f"processing hit {hits[0].id}, which is now set aside")
                await self._log.set_aside(conn, entries, f"{type(error).__name__}: {error}", self._now)
                return []
            middle = len(entries) // 2
            return await self._settle(conn, entries[:middle]) + await self._settle(conn, entries[middle:])

    @property
    def _now(self) -> Any:
        return self._ingest.config.clock()

    async def _run(self) -> None:
        config = self._ingest.config
        pause = config.worker_interval
        while not self._is_stopping:
            try:
                taken = await self.work()
                pause = config.worker_interval
                if taken >= self._ingest.config.batch_size // GROWTH:
                    continue
                if taken:
                    # A batch of a few costs as much as one of a hundred: let some come together.
                    await asyncio.sleep(min(LINGER, pause.total_seconds()))
                    continue
            except DatabaseUnavailable as error:
                config.report(error, "looking into the log")
                pause = min(pause * 2, timedelta(seconds=30))
            except Exception as error:  # noqa: BLE001  # the worker outlives whatever one batch meets
                config.report(error, "processing the log")
                pause = min(pause * 2, timedelta(seconds=30))
            if not self._is_stopping:
                await self._log.wait(pause)


def is_excluded(config: Config, scope: Any) -> bool:
    """Whether the host asked us to keep our hands off this request."""
    path: str = scope["path"]
    for rule in config.exclude:
        if callable(rule):
            if rule(scope):
                return True
        elif path == rule or path.startswith(rule.rstrip("/") + "/") or fnmatch.fnmatchcase(path, rule):
            return True
    return False
