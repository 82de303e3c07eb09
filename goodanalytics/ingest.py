"""
ACT: make hits that are safe into what is known, in one transaction a batch.

`process(conn, hits)` is the one engine. The worker calls it with hundreds of hits out of the log; the Python verbs and the
REST room call it with one, inside the host's transaction when the host passes its connection.

    understand (pure) → ledger.receive → people.load → conversion_keys.repeated → plan.decide for each (pure) → history.recall
    → Plan.record for each (pure) → ledger.apply → conversions.record → DispatchPlan.add → commit → hooks
"""

from __future__ import annotations

import fnmatch
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec

from goodanalytics.config import Config
from goodanalytics.core import devices, repetition, sources, urls
from goodanalytics.core.conversions import Sales, is_conversion, is_told_as_one
from goodanalytics.core.foreseen import Foreseen, foreseen
from goodanalytics.core.hits import EventType, Hit
from goodanalytics.core.identity import Identifier, identifiers
from goodanalytics.core.people import People, Taken
from goodanalytics.core.places import Place
from goodanalytics.core.plan import Outcome, Plan, SessionPolicy, Understood, decide
from goodanalytics.core.referral import Conversion, news_of
from goodanalytics.core.visitors import Visitor
from goodanalytics.dispatch.plan import DispatchPlan
from goodanalytics.errors import Busy
from goodanalytics.geo import GeoReader
from goodanalytics.hooks import Hooks
from goodanalytics.store import alone, commissions, conversion_keys, conversions, history, ledger, link_days
from goodanalytics.store import people as people_rows
from goodanalytics.store.alone import Written
from goodanalytics.store.database import Database, after_commit, hosts, is_passing, savepoint
from goodanalytics.store.known import Known, Recent, Whom, look
from goodanalytics.store.people import Stale
from goodanalytics.store.sales import load_sales
from goodanalytics.store.told import Evidence

ATTEMPTS = 8
"""How often a batch decides again when others are faster; from the second time on it is alone in doing so."""


@dataclass(frozen=True, slots=True)
class Ingest:
    """The engine with what it needs."""

    config: Config
    database: Database
    hooks: Hooks
    geo: GeoReader | None
    recent: Recent = field(default_factory=Recent)

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
        return await self._in_transaction(lambda conn: self.process(conn, hits), hits, connection)

    async def alone(self, hit: Hit, connection: Any = None) -> Outcome | None:
        """
        Process one hit about a visitor whom it names, in as few statements as that takes (`store.alone`).

        `None`, and nothing is written, when it is not such a hit, its visitor is not known, or it was here before: `now` then does it.

        Raises:
            Busy: Others kept changing the same visitors.
            DatabaseUnavailable: Nobody answers, or the connection was lost.
        """
        if not alone.goes(hit):
            return None
        found = await self._in_transaction(lambda conn: self._alone(conn, hit), [hit], connection)
        return found[0] if found else None

    async def _in_transaction(
        self, act: Callable[[Any], Awaitable[list[Outcome]]], hits: Sequence[Hit], connection: Any
    ) -> list[Outcome]:
        if connection is not None:
            outcomes = await act(connection)
            if outcomes and any(self.hooks.is_waited_for(str(hit.event_type)) for hit in hits):
                await after_commit(connection, lambda: self.hooks.notify(hits, outcomes))
            return outcomes
        for _ in range(ATTEMPTS):
            try:
                async with self.database.begin() as conn:
                    outcomes = await act(conn)
            except Exception as error:
                if not is_passing(error):
                    raise
                continue
            if outcomes:
                self.hooks.notify(hits, outcomes)
            return outcomes
        raise Busy(f"{len(hits)} hits lost {ATTEMPTS} transactions to others. Try again")

    async def _alone(self, conn: Any, hit: Hit) -> list[Outcome]:
        """The hit's outcome; none, and nothing written, when it has to be done the other way."""
        t = self.database.tables
        known = await self._known(conn, hit)
        if known is None or not known.is_whole or (known.touches is None and is_conversion(hit)):
            return []
        people = People(known.state(), self.config.identity)
        plan = Plan(people, known.history(), self._policy)
        _, one, outcome = decide(people, Sales({}), hit, ())
        if one is not None:
            plan.record(self.understand(hit), one.visitor_id, one.company)
        written = await alone.put(conn, t, hit, known, people, plan, self.config)
        if written is None:
            return []
        if not written.is_done:
            return list((await self._write(await hosts(conn), {0: hit})).values()) if written.is_noted else []
        has_link = any(event["link_id"] is not None for event in plan.events)
        if has_link or written.has_partners or written.has_listeners or hit.consent:
            await self._after_alone(await hosts(conn), hit, known, people, plan, written)
        return [outcome]

    async def _after_alone(
        self, conn: Any, hit: Hit, known: Known, people: People, plan: Plan, written: Written
    ) -> None:
        """Tell those who want to know of a hit that was written alone."""
        t = self.database.tables
        await link_days.touch(conn, t, plan.events, self.config.clock())
        if written.has_partners:
            due = news_of(people, plan)
            await commissions.record(conn, t, due, self.config.referral, self.config.clock())
        if written.has_listeners:
            touches = {(hit.workspace_id, hit.id): known.touched}
            await self._tell(conn, conversions.news_of(plan, touches))
        if hit.consent:
            await self._dispatches.withdraw(conn, people, plan)

    async def _known(self, conn: Any, hit: Hit) -> Known | None:
        """Whom *hit* names, as they were read a moment ago or else as they stand."""
        visitor_id = hit.signals.visitor_id
        assert visitor_id is not None, "goes alone"  # noqa: S101  # for the type checker
        whom = (hit.workspace_id, visitor_id)
        found = self.recent.take(whom, hit.occurred_at, self.config.clock())
        if found is not None:
            return found
        return await look(
            conn, self.database.tables, whom, hit.occurred_at, self.config.session.timeout,
            with_touches=is_conversion(hit),
        )  # fmt: skip

    async def person(self, whom: Whom, connection: Any = None) -> Visitor | None:
        """
        The person of *whom*; `None` when there is nobody.

        Keeps them for a moment: who asks for a visitor is likely to say next what they did (`alone`).
        """
        now = self.config.clock()
        async with self.database.reading(connection) as conn:
            known = await look(
                conn, self.database.tables, whom, now, self.config.session.timeout, with_touches=True
            )
        if known is None:
            return None
        person = known.person
        if connection is None and known.lasts:
            self.recent.keep((person.workspace_id, person.id), known, now)
        else:  # what the host's transaction changed may be undone
            self.recent.forget((person.workspace_id, person.id))
        return person

    async def process(self, conn: Any, hits: Sequence[Hit]) -> list[Outcome]:
        """
        Write what *hits* mean, in the transaction of *conn*. The outcomes stand in the order of the hits.

        Raises:
            Busy: Others kept changing the same visitors, `ATTEMPTS` times.
        """
        t = self.database.tables
        conn = await hosts(conn)
        received = [hit for hit in hits if not hit.quiet and not is_told_as_one(hit)]
        repeated = await ledger.receive(conn, t, received) if received else {}
        outcomes: dict[int, Outcome] = {}
        first: dict[tuple[UUID, UUID], int] = {}
        fresh: dict[int, Hit] = {}
        for index, hit in enumerate(hits):
            key = (hit.workspace_id, hit.id)
            if key in repeated and not hit.quiet:
                outcomes[index] = _repetition(hit, repeated[key])
            elif hit.quiet or first.setdefault(key, index) == index:
                fresh[index] = hit
        outcomes |= await self._write(conn, fresh)
        if twice := {index: hit for index, hit in enumerate(hits) if index not in outcomes}:
            noted = await conversion_keys.repeated(conn, t, twice.values())
            for index, hit in twice.items():
                key = (hit.workspace_id, hit.id)
                digest = noted.get(key, hits[first[key]].digest)
                outcomes[index] = _told_twice(hit, outcomes[first[key]], digest)
        return [outcomes[index] for index in range(len(hits))]

    async def _write(self, conn: Any, fresh: Mapping[int, Hit]) -> dict[int, Outcome]:
        """Write what hits mean, each with its place, of which nothing but conversions can have been here before."""
        t = self.database.tables
        understood = {index: self.understand(hit) for index, hit in fresh.items() if not hit.quiet}
        for attempt in range(ATTEMPTS if fresh else 0):
            with suppress(Stale):
                async with people_rows.line(conn, t, attempt), savepoint(conn) as inner:
                    return await self._try_to_write(inner, fresh, understood)
        if fresh:
            raise Busy(f"{len(fresh)} hits lost {ATTEMPTS} races for their visitors. Try again")
        return {}

    async def _try_to_write(
        self, conn: Any, fresh: Mapping[int, Hit], understood: Mapping[int, Understood]
    ) -> dict[int, Outcome]:
        """
        `_write`, once.

        Raises:
            Stale: Somebody else was faster. Undo what the transaction wrote, and begin again.
        """
        t = self.database.tables
        people, offered = await self._acquaint(conn, list(fresh.values()))
        repeated = await conversion_keys.repeated(conn, t, fresh.values())
        outcomes = {
            index: _repetition(hit, repeated[hit.workspace_id, hit.id])
            for index, hit in fresh.items()
            if (hit.workspace_id, hit.id) in repeated
        }
        # Of a sale that people are locked for, nobody else gives anything back meanwhile.
        sales = Sales(await load_sales(conn, t, _given_back(fresh.values())))
        decided = {
            index: decide(people, sales, hit, found)
            for (index, hit), found in zip(fresh.items(), offered, strict=True)
            if index not in outcomes
        }
        recorded = [
            (_with_hit(understood[index], hit), one)
            for index, (hit, one, _) in decided.items()
            if one is not None and index in understood
        ]
        plan = await self._plan(conn, people, recorded, sales)
        now = self.config.clock()
        await ledger.apply(conn, t, people, plan, now)
        await self._tell(conn, await conversions.record(conn, t, people, plan, self.config))
        await conversion_keys.keep(conn, t, (one.hit for one, _ in recorded))
        await self._dispatches.withdraw(conn, people, plan)
        news = news_of(people, plan, _refunds(plan))
        await commissions.record(conn, t, news, self.config.referral, now)
        return outcomes | {index: outcome for index, (_, _, outcome) in decided.items()}

    async def _tell(self, conn: Any, news: conversions.News) -> None:
        await self._dispatches.add(conn, news.told, self.config.clock(), unattributed=news.unattributed)

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
                    plan = await self._plan(conn, people, [(understood, one)], Sales({}), everybody=True)
                return foreseen(people, plan, hit, one)
        raise Busy(f"Foreseeing lost {ATTEMPTS} races for its visitors. Try again")

    async def resolve(self, conn: Any, hits: Sequence[Hit]) -> tuple[People, list[Taken | None]]:
        """
        Say whose *hits* are, and lock these people until the transaction of *conn* ends; nothing is written.

        Raises:
            Stale: Somebody else was faster. Undo what the transaction read, and ask again.
        """
        people, offered = await self._acquaint(conn, hits)
        return people, [people.take(hit, found) for hit, found in zip(hits, offered, strict=True)]

    async def _acquaint(self, conn: Any, hits: Sequence[Hit]) -> tuple[People, list[tuple[Identifier, ...]]]:
        """The people whom *hits* point to, locked, and what each hit points with."""
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
        return People(state, self.config.identity), offered

    async def _plan(
        self,
        conn: Any,
        people: People,
        batch: Sequence[tuple[Understood, Taken]],
        sales: Sales,
        *,
        everybody: bool = False,
    ) -> Plan:
        """What hits change about those whose they are."""
        past = await history.recall(
            conn, self.database.tables, people, batch, self.config.session.timeout, everybody=everybody
        )
        plan = Plan(people, past, self._policy, sales)
        for understood, one in batch:
            plan.record(understood, one.visitor_id, one.company)
        return plan

    @property
    def _dispatches(self) -> DispatchPlan:
        return DispatchPlan(self.config, self.database.tables)

    @property
    def _policy(self) -> SessionPolicy:
        return SessionPolicy(self.config.session.timeout, self.config.session.split_on_source)

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


def _given_back(hits: Iterable[Hit]) -> set[tuple[UUID, UUID]]:
    """The sales that refunds among *hits* name."""
    return {(hit.workspace_id, hit.sale_id) for hit in hits if hit.sale_id is not None}


def _with_hit(understood: Understood, hit: Hit) -> Understood:
    return understood if understood.hit is hit else msgspec.structs.replace(understood, hit=hit)


def _refunds(plan: Plan) -> list[Conversion]:
    """What of a batch is given back to buyers, for partners who earned with it."""
    return [
        Conversion(
            hit.workspace_id, hit.id, "refund", found.visitor_id, hit.occurred_at, hit.amount_cents or 0, hit.currency, hit.sale_id,
        )
        for found in plan.conversions
        if (hit := found.hit).event_type is EventType.REFUND
    ]  # fmt: skip


def _told_twice(hit: Hit, before: Outcome, digest: str | None) -> Outcome:
    """What becomes of *hit*, which stood in the same batch before: a conversion that left nothing there leaves nothing again."""
    again = _repetition(hit, digest)
    left_nothing = is_told_as_one(hit) and before.status in ("dropped", "refused")
    return before if left_nothing and again.status == "repeated" else again


def _repetition(hit: Hit, digest: str | None) -> Outcome:
    if not repetition.is_same(hit.digest, digest):
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
