"""
Random lives against a plain model: who is who, counters, credit and the ledger, on a real PostgreSQL.

The model knows rows, values that point to them, and ties between rows; a person is what live ties leave connected. It keeps no
canonical id, folds nothing and stores nothing, so what it says is what the rules say.

Hits arrive in any order that keeps each browser's own: every browser has a clock of its own, which may be hours behind. Hypothesis drives
hits in batches of any size, what the host says, repetitions, merges, unmerges and erasures, and shrinks what goes wrong.
`GOODANALYTICS_LIVES=2000 pytest tests/store/test_identity_graph.py` lives that many.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from sqlalchemy import select

from goodanalytics import Analytics, Config
from goodanalytics.core.hits import EventType, Hit, Signals
from goodanalytics.core.identity_rules import IdentityRules
from goodanalytics.core.visitors import Visitor, fold
from tests.conftest import FrozenClock

BROWSERS = [f"browser-{n}" for n in range(7)]
NAMES = [f"user-{n}" for n in range(4)]
EMAILS = [f"mail{n}@shop.example" for n in range(3)]
LIVES = int(os.environ.get("GOODANALYTICS_LIVES", "25"))
STEPS = 40
PREFERENCE = ("anonymous_id", "external_id", "email")
DEVICES = frozenset({"anonymous_id"})
"""Kinds of which an erased value is refused for ever; a name may come again."""

Value = tuple[str, str]
T = TypeVar("T")


@dataclass(eq=False)
class Row:
    """What one browser did."""

    seen: datetime
    name: str | None = None
    pages: list[tuple[datetime, str]] = field(default_factory=list)
    sales: list[datetime] = field(default_factory=list)
    events: int = 0
    is_named: bool = False


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
    erased: dict[Value, datetime] = field(default_factory=dict)

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
        if any(self.is_erased(value, hit.occurred_at) for value in values.items()):
            return False
        row = self.decide(hit, values)
        for kind, value in values.items():
            if kind == "external_id" and (kind, value) not in self.points:
                row.name = value
            self.points.setdefault((kind, value), row)
        row.seen = min(row.seen, hit.occurred_at)
        row.events += 1
        row.is_named |= hit.trusted
        if hit.event_type is EventType.PAGEVIEW:
            row.pages.append((hit.occurred_at, hit.url.rpartition("=")[2]))
        if hit.event_type is EventType.SALE:
            row.sales.append(hit.occurred_at)
        return True

    def is_erased(self, value: Value, at: datetime) -> bool:
        """Whether a value is an erased person's. A device's is for ever, a name's only for what happened before."""
        if value not in self.erased:
            return False
        return value[0] in DEVICES or (value not in self.points and at <= self.erased[value])

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

    def forget(self, row: Row, now: datetime) -> None:
        person = self.person(row)
        gone = {value for value, one in self.points.items() if one in person}
        self.erased |= dict.fromkeys(gone, now)
        self.points = {value: one for value, one in self.points.items() if value not in gone}
        self.ties = [tie for tie in self.ties if person.isdisjoint(tie.rows)]
        self.rows = [one for one in self.rows if one not in person]

    def told(self) -> list[tuple]:
        """Each person: values, own names, sources in order, events, revenue, status, first and last source."""
        return sorted(self.told_of(person) for person in {self.person(row) for row in self.rows})

    def told_of(self, person: frozenset[Row]) -> tuple:
        pages = [source for _, source in sorted(page for row in person for page in row.pages)]
        sales = sum(len(row.sales) for row in person)
        status = "customer" if sales else "identified" if any(row.is_named for row in person) else "anonymous"
        return (
            sorted(value for value, row in self.points.items() if row in person),
            sorted(row.name for row in person if row.name is not None),
            pages,
            sum(row.events for row in person),
            100 * sales,
            status,
            pages[:1],
            pages[-1:],
        )

    def credit(self, row: Row) -> list[tuple]:
        """Of each sale of the person: when, and the first and last source that came before it."""
        person = self.person(row)
        pages = sorted(page for row in person for page in row.pages)
        told = []
        for at in sorted(sale for row in person for sale in row.sales):
            before = [source for page_at, source in pages if page_at <= at]
            told.append((at, before[:1], before[-1:]))
        return told


@st.composite
def doings(draw: st.DrawFn) -> tuple[str | None, str, str | None, str | None]:
    """A browser or none, what is done, and whom the host says that it is."""
    browser = draw(st.sampled_from(BROWSERS))
    what = draw(st.sampled_from(["page", "page", "page", "identify", "identify", "sale"]))
    if what == "page":
        return browser, what, None, None
    name, email = draw(st.sampled_from([*NAMES, None])), draw(st.sampled_from([*EMAILS, None, None]))
    if name is email is None:
        name = NAMES[0]
    return draw(st.sampled_from([browser, browser, None])), what, name, email


class Life(RuleBasedStateMachine):
    """One life, lived twice: in the model and in the database."""

    analytics: Analytics
    loop: asyncio.AbstractEventLoop
    workspaces = itertools.count(1_000)
    lived = Counter[str]()

    def __init__(self) -> None:
        super().__init__()
        self.workspace = UUID(int=next(self.workspaces))
        self.model = Model()
        self.numbers = itertools.count(1)
        self.past: list[Hit] = []
        self.late: dict[str | None, timedelta] = {}
        self.lived["lives"] += 1

    def run(self, act: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(act)

    @property
    def clock(self) -> FrozenClock:
        return self.analytics.config.clock

    # What happens ----------------------------------------------------------------------------------------------------

    @rule(
        done=st.lists(doings(), min_size=1, max_size=6),
        late=st.sampled_from([0, 0, 1, 5, 30]),
        again=st.lists(st.integers(0, 99), max_size=2),
    )
    def hits(self, done: list[tuple], late: int, again: list[int]) -> None:
        """Some hits in one batch, of browsers that may be late, after a few that came before."""
        fresh = [self.a_hit(late, *one) for one in done]
        repeated = [self.past[n % len(self.past)] for n in again] if self.past else []
        told = self.again(repeated)
        outcomes = self.run(self.analytics.ingest.now([*repeated, *fresh]))
        kept = [self.model.take(hit) for hit in fresh]
        self.past += fresh
        self.lived["hits"] += len(fresh)

        assert [o.status for o in outcomes[: len(repeated)]] == told
        assert [o.status == "recorded" for o in outcomes[len(repeated) :]] == kept
        self.compare()

    def a_hit(self, late: int, browser: str | None, what: str, name: str | None, email: str | None) -> Hit:
        """A browser is as late as it was the first time, so that its own hits keep their order."""
        number = next(self.numbers)
        now = self.clock.advance(timedelta(hours=1, seconds=1))
        behind = self.late.setdefault(browser, timedelta(hours=late)) if browser else timedelta()
        facts = {
            "id": UUID(int=(self.workspace.int << 64) + number), "workspace_id": self.workspace, "received_at": now,
            "occurred_at": now - behind, "signals": Signals(anonymous_id=browser, external_id=name, email=email),
        }  # fmt: skip
        if what == "page":
            url = f"https://shop.test/?utm_source={number}"
            return Hit(**facts, event_type=EventType.PAGEVIEW, origin="browser", url=url)
        sale = {"amount_cents": 100, "currency": "EUR"} if what == "sale" else {}
        kind = EventType.SALE if sale else EventType.IDENTIFY
        return Hit(**facts, **sale, event_type=kind, origin="server", trusted=True)

    @precondition(lambda self: len(self.model.points) > 1)
    @rule(numbers=st.tuples(st.integers(0, 99), st.integers(0, 99)))
    def merge(self, numbers: tuple[int, int]) -> None:
        """The host joins two."""
        known = self.run(self.rows())
        one, other = (sorted(known)[number % len(known)] for number in numbers)
        self.model.merge(self.model.points[one], self.model.points[other])
        self.run(
            self.analytics.visitors.merge(
                known[one], known[other], reason="model", force=True, workspace_id=self.workspace
            )
        )
        self.lived["merges"] += 1
        self.compare()

    @precondition(lambda self: any(tie.live for tie in self.model.ties))
    @rule(number=st.integers(0, 99))
    def unmerge(self, number: int) -> None:
        """The host takes one merge back, whoever made it."""
        known = self.run(self.rows())
        row_of = {known[value]: row for value, row in self.model.points.items()}
        live = [
            (merge.id, row_of[merge.loser_member_id], row_of[merge.winner_member_id])
            for merge in self.run(self.table("merges"))
            if merge.undone_at is None and {merge.loser_member_id, merge.winner_member_id} <= row_of.keys()
        ]
        if live:
            merge_id, one, other = live[number % len(live)]
            next(t for t in self.model.ties if t.live and set(t.rows) == {one, other}).live = False
            self.run(self.analytics.visitors.unmerge(merge_id, reason="model", workspace_id=self.workspace))
            self.lived["unmerges"] += 1
            self.compare()

    @precondition(lambda self: self.model.points)
    @rule(number=st.integers(0, 99), sure=st.integers(0, 3))
    def forget(self, number: int, sure: int) -> None:
        """One person is erased; not too often, or nobody is left."""
        if sure:
            return
        known = self.run(self.rows())
        value = sorted(known)[number % len(known)]
        self.model.forget(self.model.points[value], self.clock())
        self.run(self.analytics.visitors.forget(known[value], reason="model", workspace_id=self.workspace))
        self.lived["erasures"] += 1
        self.compare()

    @precondition(lambda self: self.past)
    @rule(order=st.randoms(use_true_random=False), size=st.integers(1, 50))
    def replay(self, order: Any, size: int) -> None:
        """Everything comes again, in any order and any batches: nothing changes, but for sales that were dropped."""
        again = order.sample(self.past, len(self.past))
        told = self.again(again)
        for start in range(0, len(again), size):
            outcomes = self.run(self.analytics.ingest.now(again[start : start + size]))
            assert [outcome.status for outcome in outcomes] == told[start : start + size]
        self.lived["replays"] += 1
        self.compare()

    def again(self, hits: list[Hit]) -> list[str]:
        """
        What becomes of *hits* that were here before.

        A sale is its own receipt: one that was dropped left nothing, and is judged anew when it comes again. It counts then if
        its name was erased and has come back, as any late hit of that name does.
        """
        kept = {row.event_id for row in self.run(self.table("conversions"))}
        told = []
        for hit in hits:
            if hit.event_type is not EventType.SALE or hit.id in kept:
                told.append("repeated")
            elif self.model.take(hit):
                kept.add(hit.id)
                told.append("recorded")
                self.lived["sales that counted when told again"] += 1
            else:
                told.append("dropped")
        return told

    # What can be read ------------------------------------------------------------------------------------------------

    def compare(self) -> None:
        """Who is who, counters and sources, from the rows."""
        assert self.run(self.told()) == self.model.told()

    def teardown(self) -> None:
        """At the end everybody is asked for through the door that users take, also for the credit of each sale."""
        if not self.past:
            return
        known = self.run(self.rows())
        for value, row in self.model.points.items():
            assert self.run(self.credit(known[value])) == self.model.credit(row)

    async def table(self, name: str) -> Iterable:
        table = getattr(self.analytics.database.tables, name)
        order = {"merges": "merged_at", "sessions": "started_at", "conversions": "occurred_at"}.get(
            name, "first_seen_at"
        )
        async with self.analytics.database.connect() as conn:
            found = await conn.execute(
                select(table)
                .where(table.c.workspace_id == self.workspace)
                .order_by(table.c[order], *table.primary_key)
            )
            return found.all()

    async def rows(self) -> dict[Value, UUID]:
        return {(i.kind, i.value): i.visitor_id for i in await self.table("identities")}

    async def told(self) -> list[tuple]:
        """What the database says, as `Model.told`."""
        visitors = [Visitor(**row._mapping) for row in await self.table("visitors")]
        identities, visits = await self.table("identities"), await self.table("sessions")
        canonical = {row.id: row.canonical_id for row in visitors}
        told = []
        for person_id in set(canonical.values()):
            rows = [row for row in visitors if row.canonical_id == person_id]
            person = fold(rows)
            pages = [visit.source for visit in visits if canonical[visit.visitor_id] == person_id]
            assert (person.total_pageviews, person.total_sessions) == (len(pages), len(pages))
            first, last = ([s["platform"]] if s else [] for s in (person.first_source, person.last_source))
            values = sorted((i.kind, i.value) for i in identities if canonical[i.visitor_id] == person_id)
            names = sorted(row.external_id for row in rows if row.external_id is not None)
            told.append(
                (
                    values,
                    names,
                    pages,
                    person.total_events,
                    person.ltv.get("EUR", 0),
                    person.status,
                    first,
                    last,
                )
            )
        return sorted(told)

    async def credit(self, visitor_id: UUID) -> list[tuple]:
        """As `Model.credit`."""
        of, person = self.analytics.visitors, visitor_id
        told = await of.attribution(person, workspace_id=self.workspace)
        return [
            (one.event.occurred_at, *([t.source["platform"]] if t else [] for t in (one.first, one.last)))
            for one in told.conversions
        ]


@pytest.fixture
def life(shared_database_url: str, config: Config) -> Iterator[type[Life]]:
    """Lives in a loop of their own: Hypothesis calls its rules without one."""
    many = IdentityRules(emails=99, devices=99, merges_per_day=999, people_per_device=99)
    analytics = Analytics(shared_database_url, dataclasses.replace(config, worker=False, identity=many))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(analytics.start())
    yield type("Life", (Life,), {"analytics": analytics, "loop": loop})
    loop.run_until_complete(analytics.stop())
    loop.close()


def test_the_database_agrees_with_the_model(life: type[Life]) -> None:
    """After each of many random steps, everything that can be read is what the plain rules say."""
    run_state_machine_as_test(
        life,
        settings=settings(
            max_examples=LIVES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(dict(Life.lived))


def test_a_dropped_sale_is_judged_anew_when_it_comes_again(life: type[Life]) -> None:
    """It left nothing behind, so it counts once its name has come back, and once only: what random lives seldom come to."""
    one = life()
    one.hits(again=[], done=[("browser-0", "page", None, None)], late=30)
    one.hits(again=[], done=[(None, "identify", "user-0", None)], late=0)
    one.forget(number=1, sure=0)
    one.hits(again=[], done=[("browser-0", "sale", "user-0", None)], late=0)
    assert one.again([one.past[-1]]) == ["dropped"], "it happened 30 hours ago, before its name was erased"
    one.hits(again=[2, 2], done=[(None, "identify", "user-0", None)], late=0)
    one.hits(again=[2, 2], done=[("browser-0", "page", None, None)], late=0)
    assert sorted(len(row.sales) for row in one.model.rows) == [0, 1]
    one.hits(again=[2, 1, 0], done=[(None, "identify", "user-0", None)], late=0)
    one.teardown()
