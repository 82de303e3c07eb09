"""
Random lives against a plain model: who is who, counters, credit and the ledger, after each step, on a real PostgreSQL.

The model knows rows, values that point to them, and ties between rows; a person is what live ties leave connected. It keeps no
canonical id, folds nothing and stores nothing, so what it says is what the rules say.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

import pytest
from sqlalchemy import select

from goodanalytics import Analytics, Config
from goodanalytics.core.hits import EventType, Hit, Signals
from goodanalytics.core.identity_rules import IdentityRules
from goodanalytics.errors import Conflict

BROWSERS = [f"browser-{n}" for n in range(7)]
NAMES = [f"user-{n}" for n in range(4)]
EMAILS = [f"mail{n}@shop.example" for n in range(3)]
STEPS = 120
SEEDS = range(20)
PREFERENCE = ("anonymous_id", "external_id", "email")

Value = tuple[str, str]


@dataclass(eq=False)
class Row:
    """What one browser did."""

    seen: datetime
    name: str | None = None
    pages: list[str] = field(default_factory=list)
    events: int = 0
    revenue: int = 0


@dataclass(eq=False)
class Tie:
    """A merge of two rows."""

    rows: tuple[Row, Row]
    live: bool = True


@dataclass
class Model:
    """Rules of the issue, in their plainest form."""

    rows: list[Row] = field(default_factory=list)
    points: dict[Value, Row] = field(default_factory=dict)
    ties: list[Tie] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)
    sold: dict[UUID, Row] = field(default_factory=dict)
    left: dict[UUID, int] = field(default_factory=dict)

    def person(self, row: Row) -> frozenset[Row]:
        found, waiting = {row}, [row]
        while waiting:
            one = waiting.pop()
            for tie in self.ties:
                if tie.live and one in tie.rows:
                    waiting += set(tie.rows) - found
                    found |= set(tie.rows)
        return frozenset(found)

    def take(self, hit: Hit) -> bool:
        """Process one hit; whether anything was kept of it."""
        s = hit.signals
        values = {"external_id": s.external_id, "email": s.email, "anonymous_id": s.anonymous_id}
        values = {kind: value for kind, value in values.items() if value is not None}
        if values.get("anonymous_id") in self.dead:
            return False
        row = self.decide(hit, values)
        for kind, value in values.items():
            if kind == "external_id" and (kind, value) not in self.points:
                row.name = value
            self.points.setdefault((kind, value), row)
        row.events += 1
        if hit.event_type is EventType.PAGEVIEW:
            row.pages.append(hit.url.rpartition("=")[2])
        if hit.event_type is EventType.SALE:
            row.revenue += hit.amount_cents
            self.sold[hit.id], self.left[hit.id] = row, hit.amount_cents
        return True

    def refund(self, sale: UUID, cents: int) -> None:
        self.sold[sale].revenue -= cents
        self.sold[sale].events += 1
        self.left[sale] -= cents

    def decide(self, hit: Hit, values: dict[str, str]) -> Row:
        matched: dict[frozenset[Row], dict[str, Row]] = {}
        for kind, value in values.items():
            if (kind, value) in self.points:
                row = self.points[kind, value]
                matched.setdefault(self.person(row), {})[kind] = row
        joined: list[frozenset[Row]] = []
        strangers: list[frozenset[Row]] = []
        names = {values["external_id"]} if "external_id" in values else set()
        for person in sorted(matched, key=lambda p: self.rank(p, matched[p])):
            own = {row.name for row in person} - {None}
            if names and own and not names <= own:
                strangers.append(person)
            elif not any(self.parted(person, other) for other in joined):
                joined.append(person)
                names |= own
        if not joined:
            row = Row(hit.occurred_at)
            self.rows.append(row)
        else:
            row = next(matched[p][k] for k in PREFERENCE for p in joined if k in matched[p])
            winner, *losers = sorted(joined, key=lambda p: min(r.seen for r in p))
            tied = {p: next(matched[p][k] for k in PREFERENCE if k in matched[p]) for p in joined}
            self.ties += [Tie((tied[winner], tied[loser])) for loser in losers]
        browser = ("anonymous_id", values.get("anonymous_id"))
        if browser in self.points and any(self.points[browser] in person for person in strangers):
            self.points[browser] = row
        return row

    @staticmethod
    def rank(person: frozenset[Row], kinds: dict[str, Row]) -> tuple:
        return (
            "external_id" not in kinds,
            not ({"external_id", "email"} & kinds.keys()),
            -len(kinds),
            min(row.seen for row in person),
        )

    def parted(self, one: frozenset[Row], other: frozenset[Row]) -> bool:
        return any(
            not tie.live and {tie.rows[0] in one, tie.rows[1] in one} == {True, False}
            and {tie.rows[0] in other, tie.rows[1] in other} == {True, False}
            for tie in self.ties
        )  # fmt: skip

    def merge(self, one: Row, other: Row) -> None:
        if other not in self.person(one):
            self.ties.append(Tie((one, other)))

    def forget(self, row: Row) -> None:
        person = self.person(row)
        gone = {value for value, one in self.points.items() if one in person}
        self.dead |= {value for kind, value in gone if kind == "anonymous_id"}
        self.points = {value: one for value, one in self.points.items() if value not in gone}
        self.ties = [tie for tie in self.ties if person.isdisjoint(tie.rows)]
        self.rows = [one for one in self.rows if one not in person]
        self.sold = {sale: one for sale, one in self.sold.items() if one not in person}

    def told(self) -> list[tuple]:
        """Each person: its values, pages in order, events, revenue, first and last source."""
        persons = {self.person(row) for row in self.rows}
        return sorted(
            (
                sorted(value for value, row in self.points.items() if row in person),
                pages := sorted((page for row in person for page in row.pages), key=int),
                sum(row.events for row in person),
                sum(row.revenue for row in person),
                pages[:1],
                pages[-1:],
            )
            for person in persons
        )


class Life:
    """One random life, lived twice: in the model and in the database."""

    def __init__(self, analytics: Analytics, seed: int) -> None:
        self.analytics, self.rng, self.model = analytics, Random(seed), Model()
        self.workspace = UUID(int=1_000 + seed)
        self.numbers = itertools.count(1)
        self.past: list[Hit] = []

    def hit(self) -> Hit:
        number, rng = next(self.numbers), self.rng
        now = self.analytics.config.clock.advance(timedelta(hours=1))
        browser, what = rng.choice(BROWSERS), rng.random()
        facts = {
            "id": UUID(int=(self.workspace.int << 64) + number),
            "workspace_id": self.workspace,
            "received_at": now,
            "occurred_at": now,
        }
        if what < 0.55:
            url = f"https://shop.test/?utm_source={number}"
            signals = Signals(anonymous_id=browser)
            return Hit(**facts, event_type=EventType.PAGEVIEW, origin="browser", url=url, signals=signals)
        names = {
            "anonymous_id": browser if what < 0.85 else None,
            "external_id": rng.choice([*NAMES, None]),
            "email": rng.choice([*EMAILS, None, None]),
        }
        if names["external_id"] is names["email"] is None:
            names["external_id"] = NAMES[0]
        sale = {"amount_cents": 100, "currency": "EUR"} if rng.random() < 0.3 else {}
        kind = EventType.SALE if sale else EventType.IDENTIFY
        return Hit(**facts, **sale, event_type=kind, origin="server", trusted=True, signals=Signals(**names))

    async def hits(self) -> None:
        """Some hits in one batch, a few of which came before."""
        fresh = [self.hit() for _ in range(self.rng.randint(1, 6))]
        again = self.rng.sample(self.past, k=min(len(self.past), self.rng.randint(0, 2)))
        outcomes = await self.analytics.ingest.now([*again, *fresh])
        kept = [self.model.take(hit) for hit in fresh]
        self.past += fresh

        assert [o.status for o in outcomes[: len(again)]] == ["repeated"] * len(again)
        assert [o.status == "recorded" for o in outcomes[len(again) :]] == kept

    async def step(self) -> None:
        what = self.rng.random()
        known = await self.rows()
        if what < 0.60 or len(known) < 2:
            await self.hits()
        elif what < 0.70:
            await self.refund()
        elif what < 0.80:
            (one, _), (other, _) = pair = self.rng.sample(sorted(known.items()), 2)
            self.model.merge(self.model.points[one], self.model.points[other])
            ids = [row for _, row in pair]
            await self.analytics.visitors.merge(*ids, reason="model", force=True, workspace_id=self.workspace)
        elif what < 0.96:
            await self.unmerge(known)
        else:
            value = self.rng.choice(sorted(known))
            self.model.forget(self.model.points[value])
            await self.analytics.visitors.forget(known[value], reason="model", workspace_id=self.workspace)

    async def refund(self) -> None:
        """Give some of a sale back, now and then more than is left."""
        if self.model.sold:
            sale, cents = self.rng.choice(sorted(self.model.sold)), self.rng.randint(1, 70)
            act = self.analytics.refund(sale, cents, workspace_id=self.workspace)
            if cents > self.model.left[sale]:
                with pytest.raises(Conflict):
                    await act
            else:
                self.model.refund(sale, cents)
                await act

    async def unmerge(self, known: dict[Value, UUID]) -> None:
        row_of = {known[value]: row for value, row in self.model.points.items()}
        live = [
            (merge.id, row_of[merge.loser_member_id], row_of[merge.winner_member_id])
            for merge in await self.table("merges")
            if merge.undone_at is None and {merge.loser_member_id, merge.winner_member_id} <= row_of.keys()
        ]
        if live:
            merge_id, one, other = self.rng.choice(live)
            tie = next(t for t in self.model.ties if t.live and set(t.rows) == {one, other})
            tie.live = False
            await self.analytics.visitors.unmerge(merge_id, reason="model", workspace_id=self.workspace)

    async def table(self, name: str) -> Iterable:
        table = getattr(self.analytics.database.tables, name)
        order = table.c.merged_at if name == "merges" else table.c.first_seen_at
        async with self.analytics.database.connect() as conn:
            found = await conn.execute(
                select(table)
                .where(table.c.workspace_id == self.workspace)
                .order_by(order, *table.primary_key)
            )
            return found.all()

    async def rows(self) -> dict[Value, UUID]:
        return {(i.kind, i.value): i.visitor_id for i in await self.table("identities")}

    async def told(self) -> list[tuple]:
        """What the database says, as `Model.told`."""
        visitors, identities = await self.table("visitors"), await self.table("identities")
        canonical = {row.id: row.canonical_id for row in visitors}
        reads, of = [], self.analytics.visitors
        for person_id in set(canonical.values()):
            person = await of.get(person_id, workspace_id=self.workspace)
            path = (await of.attribution(person_id, workspace_id=self.workspace)).attribution_path
            values = sorted((i.kind, i.value) for i in identities if canonical[i.visitor_id] == person_id)
            pages = [touch.source["platform"] for touch in path]
            assert (person.total_pageviews, person.total_sessions) == (len(pages), len(pages))
            sources = [[s["platform"]] if s else [] for s in (person.first_source, person.last_source)]
            reads.append((values, pages, person.total_events, person.ltv.get("EUR", 0), *sources))
        return sorted(reads)


@pytest.fixture
async def analytics(database_url: str, config: Config) -> AsyncIterator[Analytics]:
    many = IdentityRules(emails=99, devices=99, merges_per_day=99, people_per_device=99)
    async with Analytics(database_url, dataclasses.replace(config, worker=False, identity=many)) as running:
        yield running


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_database_agrees_with_the_model(analytics: Analytics, seed: int) -> None:
    """After each of many random steps, everything that can be read is what the plain rules say."""
    life = Life(analytics, seed)
    for number in range(STEPS):
        await life.step()
        if number % 4 == 3:
            assert await life.told() == life.model.told(), number
