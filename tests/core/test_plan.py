"""
What a batch changes, checked against a store that is nothing but dictionaries.

`Store` loads for a batch exactly what `store.people.load` and `store.history.recall` read, and keeps what comes out. So a law that
holds here for any cut of the hits into batches says that nothing more is needed than they give.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goodanalytics.core import late_clicks, sources, urls
from goodanalytics.core.devices import Device
from goodanalytics.core.hits import Client, EventType, Hit, Signals
from goodanalytics.core.identity import Kind, identifiers
from goodanalytics.core.identity_rows import (
    ConflictRow,
    FormerIdentityRow,
    IdentityRow,
    Member,
    MergeRow,
    State,
    derived_id,
)
from goodanalytics.core.people import People, Taken
from goodanalytics.core.plan import ClickFacts, History, Outcome, Plan, SessionPolicy, Understood, outcome
from goodanalytics.core.sessions import Session
from goodanalytics.core.sources import Source
from goodanalytics.core.visitors import Visitor, fold

WORKSPACE, OTHER = UUID(int=7), UUID(int=8)
START = datetime(2026, 11, 1, 12, tzinfo=UTC)
TIMEOUT = timedelta(minutes=30)
GOOGLE = "https://www.google.com/"
FACEBOOK = "https://www.facebook.com/"
SHOP = "https://shop.test"

Key = tuple[UUID, UUID]


@dataclass(slots=True)
class Store:
    """Our tables as dictionaries."""

    identities: dict[tuple[UUID, str, str], IdentityRow] = field(default_factory=dict)
    visitors: dict[Key, Visitor] = field(default_factory=dict)
    sessions: dict[Key, Session] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    merges: list[MergeRow] = field(default_factory=list)
    former: list[FormerIdentityRow] = field(default_factory=list)
    conflicts: dict[Key, ConflictRow] = field(default_factory=dict)

    def process(self, batch: Sequence[Hit]) -> list[Outcome]:
        """Load, plan, apply."""
        people = People(self.load(batch))
        taken = [people.take(hit, identifiers(hit)) for hit in batch]
        plan = Plan(people, self.recall(batch, taken), SessionPolicy(TIMEOUT, split_on_source=True))
        for hit, one in zip(batch, taken, strict=True):
            if one is not None and not hit.quiet:
                plan.record(understood(hit), one.visitor_id, one.company)
        outcomes = [outcome(hit, one) for hit, one in zip(batch, taken, strict=True)]
        for identity in people.identities:
            key = (identity.workspace_id, identity.kind, identity.value)
            assert key not in self.identities, "an identity is bound once"
            self.identities[key] = identity
        for key, (identity, before) in people.moved.items():
            assert self.identities[key].visitor_id == before
            self.identities[key] = identity
        self.former += people.former
        self.visitors |= {(row.workspace_id, row.id): row for row in plan.visitors}
        for row in plan.members:
            self.visitors[row.workspace_id, row.id] = msgspec.structs.replace(
                self.visitors[row.workspace_id, row.id],
                canonical_id=row.canonical_id,
                external_id=row.external_id,
            )
        self.sessions |= {(row.workspace_id, row.id): row for row in plan.sessions}
        for was, known in plan.caught_up:
            late_clicks.correct(self.events, was, known)
        self.events += plan.events
        self.merges += people.merges
        self.conflicts |= people.conflicts
        return outcomes

    def load(self, batch: Sequence[Hit]) -> State:
        """What `people.load` reads for *batch*."""
        keys = {
            (hit.workspace_id, str(kind), offered.value)
            for hit in batch
            for offered in identifiers(hit)
            for kind in ((offered.kind, Kind.LANDING) if offered.kind is Kind.CLICK else (offered.kind,))
        }
        identities = {key: self.identities[key] for key in keys if key in self.identities}
        named = {(row.workspace_id, row.visitor_id) for row in identities.values()} | {
            (hit.workspace_id, hit.signals.visitor_id) for hit in batch if hit.signals.visitor_id is not None
        }
        persons = {(w, self.visitors[w, v].canonical_id) for w, v in named if (w, v) in self.visitors}
        members = {
            key: Member(**{name: getattr(row, name) for name in Member.__struct_fields__})
            for key, row in self.visitors.items()
            if (row.workspace_id, row.canonical_id) in persons
        }
        held: dict[Key, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for row in self.identities.values():
            held[row.workspace_id, row.visitor_id][row.kind] += 1
        former: dict[tuple[UUID, str, str], list[tuple[UUID, datetime]]] = defaultdict(list)
        for past in self.former:
            former[past.workspace_id, past.kind, past.value].append((past.visitor_id, past.until))
        return State(
            identities=dict(identities),
            members=members,
            merges=list(self.merges),
            held=dict(held),
            former=dict(former),
        )

    def recall(self, batch: Sequence[Hit], taken: Sequence[Taken | None]) -> History:
        """What `history.recall` reads of those who take *batch*."""
        recorded = [
            (hit, one) for hit, one in zip(batch, taken, strict=True) if one is not None and not hit.quiet
        ]
        if not recorded:
            return History()
        rows = {(hit.workspace_id, one.visitor_id) for hit, one in recorded}
        company = {(hit.workspace_id, other) for hit, one in recorded for other in one.company}
        since = min(hit.occurred_at for hit, _ in recorded) - TIMEOUT
        until = max(hit.occurred_at for hit, _ in recorded) + TIMEOUT
        sessions = [
            row
            for row in self.sessions.values()
            if (row.workspace_id, row.visitor_id) in rows | company
            and row.last_event_at >= since
            and row.started_at <= until
        ]
        clicked = {
            (row.workspace_id, row.hit_id, row.visitor_id, row.first_seen_at)
            for row in self.identities.values()
            if row.kind == "click"
        }
        clicks = {
            (event["workspace_id"], event["id"]): ClickFacts(
                Source.from_json(event["acquisition"]), event["link_id"]
            )
            for event in self.events
            if (event["workspace_id"], event["id"], event["visitor_id"], event["occurred_at"]) in clicked
            and event["event_type"] == "link_click"
        }
        return History(
            visitors={key: self.visitors[key] for key in rows if key in self.visitors},
            sessions=sessions,
            clicks=clicks,
        )

    def person_of(self, kind: str, value: str) -> UUID:
        """The canonical id of the person that an identity leads to."""
        return self.visitors[WORKSPACE, self.identities[WORKSPACE, kind, value].visitor_id].canonical_id

    def visits(self) -> list[Session]:
        return sorted(self.sessions.values(), key=lambda s: (s.started_at, s.id))


def understood(hit: Hit) -> Understood:
    """What `Ingest.understand` reads out of *hit*, without devices and places."""
    source: Source | None
    if hit.source is not None:
        source = Source.from_json(hit.source)
    elif hit.origin == "server" and hit.referrer is None:
        source = None
    else:
        source = sources.classify(hit.url, hit.referrer)
    parts = urls.parts(hit.url)
    return Understood(
        hit=hit,
        source=source,
        device=Device(),
        place=None,
        url=urls.clean(hit.url),
        host=parts.host,
        path=parts.path if hit.url else None,
        referrer=urls.clean(hit.referrer),
        ip=None,
    )


_numbers = itertools.count(1)


def a_hit(event_type: EventType = EventType.PAGEVIEW, minute: float = 0, **facts: Any) -> Hit:
    """A browser's hit; names of `Signals` go there, `bot` to the client."""
    signals = {name: facts.pop(name) for name in list(facts) if name in Signals.__struct_fields__}
    at = START + timedelta(minutes=minute)
    defaults: dict[str, Any] = {
        "id": UUID(int=next(_numbers) << 64),
        "workspace_id": WORKSPACE,
        "received_at": at,
        "occurred_at": at,
        "event_type": event_type,
        "origin": "browser",
        "url": f"{SHOP}/",
        "client": Client(bot=facts.pop("bot", None)),
        "signals": Signals(**signals),
    }
    return Hit(**(defaults | facts))


def a_click(number: int, minute: float = 0, **facts: Any) -> Hit:
    """A click on a short link, as our own redirect records it."""
    click_id = UUID(int=number)
    link = Source("newsletter", "email", "medium", campaign=f"c{number}").to_json()
    return a_hit(
        EventType.LINK_CLICK,
        minute,
        **{"id": click_id, "click_id": click_id, "origin": "link", "source": link} | facts,
    )


def said(minute: float = 0, event_type: EventType = EventType.IDENTIFY, **facts: Any) -> Hit:
    """What the host's own code says."""
    return a_hit(event_type, minute, **{"origin": "server", "trusted": True, "url": None} | facts)


def after(*hits: Hit) -> Store:
    store = Store()
    for hit in hits:
        store.process([hit])
    return store


# Laws ----------------------------------------------------------------------------------------------------------------

BROWSERS = ("a", "b", "c")
CLICKS = (1, 2)


@st.composite
def hits(draw: st.DrawFn) -> list[Hit]:
    """Some days of three browsers, two persons, two clicks, two workspaces, a bot, a server and late hits."""
    found: list[Hit] = []
    minute = 0.0
    clicked: set[int] = set()
    for number in range(draw(st.integers(1, 22))):
        minute += draw(st.sampled_from([0, 0, 0.5, 5, 29, 30, 31, 70]))
        at = minute - draw(st.sampled_from([0, 0, 0, 0, 10, 45]))
        anonymous_id = draw(st.sampled_from([*BROWSERS, *BROWSERS, None]))
        click = draw(st.sampled_from([None, None, *CLICKS]))
        common: dict[str, Any] = {
            "id": UUID(int=(number + 1) << 64),
            "anonymous_id": anonymous_id,
            "click_id": None if click is None else UUID(int=click),
            "workspace_id": draw(st.sampled_from([WORKSPACE] * 5 + [OTHER])),
        }
        kind = draw(
            st.sampled_from(["page", "page", "page", "act", "ping", "click", "claim", "host", "host"])
        )
        if kind == "click" and click is not None and click not in clicked:
            clicked.add(click)
            found.append(a_click(click, at, anonymous_id=anonymous_id, workspace_id=common["workspace_id"]))
        elif kind == "host":
            event = draw(
                st.sampled_from([EventType.IDENTIFY, EventType.SALE, EventType.LEAD, EventType.CUSTOM])
            )
            facts = {
                "external_id": draw(st.sampled_from([None, "x", "y"])),
                "email": draw(st.sampled_from([None, "m@x.test", "n@x.test"])),
                "traits": draw(st.sampled_from([{}, {"plan": "pro"}, {"plan": "free", "n": 1}])),
                "quiet": draw(st.sampled_from([False, False, False, True])),
                "amount_cents": 100 if event is EventType.SALE else None,
                "currency": "EUR" if event is EventType.SALE else None,
            }
            found.append(said(at, event, **common | facts))
        else:
            event = draw(
                st.sampled_from(
                    {
                        "ping": [EventType.ENGAGEMENT],
                        "act": [EventType.CUSTOM, EventType.SHARE],
                        "claim": [EventType.SALE, EventType.LEAD, EventType.IDENTIFY, EventType.LINK_CLICK],
                    }.get(kind, [EventType.PAGEVIEW])
                )
            )
            found.append(
                a_hit(
                    event,
                    at,
                    referrer=draw(st.sampled_from([None, None, f"{SHOP}/", GOOGLE, FACEBOOK])),
                    url=draw(
                        st.sampled_from([f"{SHOP}/", f"{SHOP}/p", f"{SHOP}/?utm_source=ads&utm_medium=cpc"])
                    ),
                    bot=draw(st.sampled_from([None] * 7 + ["crawler"])),
                    engaged_ms=4_000 if event is EventType.ENGAGEMENT else None,
                    external_id=draw(st.sampled_from([None, None, "x"])),
                    **common,
                )
            )
    return found


def cut(found: Sequence[Hit], sizes: Iterable[int]) -> list[Sequence[Hit]]:
    batches: list[Sequence[Hit]] = []
    start = 0
    for size in itertools.chain(sizes, itertools.repeat(1)):
        if start >= len(found):
            return batches
        batches.append(found[start : start + size])
        start += size
    return batches


def processed(batches: Iterable[Sequence[Hit]]) -> tuple[Store, list[Outcome]]:
    store = Store()
    return store, [outcome for batch in batches for outcome in store.process(batch)]


@settings(deadline=None, max_examples=300)
@given(hits(), st.lists(st.integers(1, 6), max_size=8))
def test_a_batch_gives_what_batches_of_one_give(found: list[Hit], sizes: list[int]) -> None:
    """However hits are cut into batches, the rows that come out are the same, down to their ids."""
    one_by_one, outcomes = processed(cut(found, []))

    assert processed([found]) == (one_by_one, outcomes)
    assert processed(cut(found, sizes)) == (one_by_one, outcomes)


@settings(deadline=None, max_examples=200)
@given(hits())
def test_totals_are_the_counts_of_events(found: list[Hit]) -> None:
    """What visitors and visits say about themselves is what a count of their events says."""
    store, _ = processed([found])
    of_visitor: dict[UUID, Counter[str]] = defaultdict(Counter)
    of_session: dict[UUID, Counter[str]] = defaultdict(Counter)
    for event in store.events:
        kind = event["event_type"]
        if event["session_id"] is not None:
            of_session[event["session_id"]] += Counter(
                pageviews=kind == "pageview", events=kind != "engagement", engaged_ms=event["engaged_ms"] or 0
            )
        if event["bot"] is None:
            of_visitor[event["visitor_id"]] += Counter(
                total_pageviews=kind == "pageview",
                total_events=kind != "engagement",
                EUR=event["amount_cents"] if kind == "sale" and event["trusted"] else 0,
            )
    for session in store.sessions.values():
        of_visitor[session.visitor_id] += Counter(total_sessions=session.bot is None)

    names = ("pageviews", "events", "engaged_ms")
    assert {(s.id, *(getattr(s, n) for n in names)) for s in store.sessions.values()} == {
        (s.id, *(of_session[s.id][n] for n in names)) for s in store.sessions.values()
    }
    totals = ("total_pageviews", "total_events", "total_sessions")
    assert {
        (v.id, *(getattr(v, n) for n in totals), v.ltv.get("EUR", 0)) for v in store.visitors.values()
    } == {
        (v.id, *(of_visitor[v.id][n] for n in totals), of_visitor[v.id]["EUR"])
        for v in store.visitors.values()
    }


@settings(deadline=None, max_examples=200)
@given(hits())
def test_who_is_who_is_always_one_hop_away(found: list[Hit]) -> None:
    """A canonical id names a row of its own, whatever merged into whatever before."""
    store, _ = processed(cut(found, []))

    canonical = {(v.workspace_id, v.canonical_id) for v in store.visitors.values()}
    assert {store.visitors[key].canonical_id for key in canonical} == {c for _, c in canonical}
    losers = {(m.workspace_id, m.loser_id) for m in store.merges}
    assert len(losers) == len(store.merges)
    assert losers.isdisjoint(canonical)


@settings(deadline=None, max_examples=200)
@given(hits())
def test_nobody_ever_has_two_external_ids(found: list[Hit]) -> None:
    """The rows of one person carry one external id at the most, and its identity points to the row that carries it."""
    store, _ = processed(cut(found, [3, 3, 3]))

    named: dict[Key, set[str]] = defaultdict(set)
    for row in store.visitors.values():
        if row.external_id is not None:
            named[row.workspace_id, row.canonical_id].add(row.external_id)
    assert all(len(external_ids) == 1 for external_ids in named.values())
    pointed = {
        (row.workspace_id, row.visitor_id, row.value)
        for row in store.identities.values()
        if row.kind == "external_id"
    }
    assert pointed == {
        (row.workspace_id, row.id, row.external_id) for row in store.visitors.values() if row.external_id
    }


@settings(deadline=None, max_examples=150)
@given(hits())
def test_workspaces_share_nothing(found: list[Hit]) -> None:
    """What happens in one workspace leaves no trace in another."""
    together, _ = processed([found])
    mine = [hit for hit in found if hit.workspace_id == WORKSPACE]
    alone, _ = processed([mine] if mine else [])

    assert {k: v for k, v in together.visitors.items() if k[0] == WORKSPACE} == alone.visitors
    assert {k: v for k, v in together.sessions.items() if k[0] == WORKSPACE} == alone.sessions


@settings(deadline=None, max_examples=150)
@given(hits())
def test_what_pages_claim_never_names_or_merges_anybody(found: list[Hit]) -> None:
    """Without the host's word nobody has an external id, an e-mail address, a status or money."""
    claims = [msgspec.structs.replace(hit, trusted=False) for hit in found]
    store, _ = processed([claims])

    assert {(v.external_id, v.email, v.status, str(v.ltv)) for v in store.visitors.values()} <= {
        (None, None, "anonymous", "{}")
    }
    assert {row.kind for row in store.identities.values()} <= {"anonymous_id", "click", "landing"}


@settings(deadline=None, max_examples=100)
@given(hits(), st.randoms(use_true_random=False))
def test_a_person_folds_the_same_from_rows_in_any_order(found: list[Hit], chance: Any) -> None:
    """The fold of a person's rows depends on the rows and on nothing else."""
    store, _ = processed([found])
    persons: dict[Key, list[Visitor]] = defaultdict(list)
    for row in store.visitors.values():
        persons[row.workspace_id, row.canonical_id].append(row)
    for rows in persons.values():
        shuffled = chance.sample(rows, len(rows))

        assert fold(shuffled) == fold(rows)


# Who -----------------------------------------------------------------------------------------------------------------


def test_two_hits_of_one_browser_are_one_visitor() -> None:
    """A browser's own id finds its row again."""
    store = after(a_hit(anonymous_id="a"), a_hit(minute=1, anonymous_id="a"))

    assert len(store.visitors) == 1


def test_a_hit_that_points_nowhere_is_a_visitor_of_its_own() -> None:
    """Nothing to go by makes a new visitor each time, and never an error."""
    store = after(a_hit(), a_hit(minute=1))

    assert len(store.visitors) == 2


@pytest.mark.parametrize("junk", ["undefined", "null", "0", "[object Object]", "NaN", "{{user_id}}"])
def test_junk_joins_no_strangers(junk: str) -> None:
    """Two browsers for which a program sends the same placeholder stay two people."""
    store = after(
        said(anonymous_id="a", external_id=junk, email=junk),
        said(1, anonymous_id="b", external_id=junk, email=junk),
    )

    assert store.person_of("anonymous_id", "a") != store.person_of("anonymous_id", "b")
    assert {row.kind for row in store.identities.values()} == {"anonymous_id"}


def test_signing_in_on_a_second_device_joins_both_into_the_older() -> None:
    """One external id on two browsers is one person; each browser keeps its own row."""
    store = after(
        a_hit(anonymous_id="phone"),
        a_hit(minute=1, anonymous_id="laptop"),
        said(2, anonymous_id="laptop", external_id="ann"),
        said(3, anonymous_id="phone", external_id="ann"),
    )

    phone, laptop = (store.identities[WORKSPACE, "anonymous_id", n].visitor_id for n in ("phone", "laptop"))
    assert phone != laptop
    assert {v.canonical_id for v in store.visitors.values()} == {phone}
    (merge,) = store.merges
    assert (merge.winner_id, merge.loser_id) == (phone, laptop)
    assert merge.evidence == {"matched": ["external_id", "anonymous_id"]}


def test_an_older_anonymous_visitor_takes_the_younger_ones_name() -> None:
    """The case that destroys the original's rows: the winner is older and nameless, the loser has the external id."""
    store = after(
        a_hit(anonymous_id="old"),
        said(10, anonymous_id="young", external_id="ann"),
        said(20, anonymous_id="old", external_id="ann"),
        said(30, anonymous_id="old", external_id="ann", email="ann@x.test"),
    )
    (canonical,) = {v.canonical_id for v in store.visitors.values()}
    person = fold(store.visitors.values())

    assert canonical == store.identities[WORKSPACE, "anonymous_id", "old"].visitor_id
    assert person is not None
    assert (person.external_id, person.email, person.status) == ("ann", "ann@x.test", "identified")


def test_a_chain_of_merges_leads_to_one_person() -> None:
    """A joined B, then C joined both: all three rows name the same canonical row at once."""
    store = after(
        *(a_hit(minute=n, anonymous_id=name) for n, name in enumerate("cba")),
        said(5, anonymous_id="a", external_id="ann"),
        said(6, anonymous_id="b", external_id="ann"),
        said(7, anonymous_id="c", external_id="ann"),
    )

    oldest = store.identities[WORKSPACE, "anonymous_id", "c"].visitor_id
    assert {v.canonical_id for v in store.visitors.values()} == {oldest}
    assert len(store.visitors) == 3


def test_two_people_on_one_browser_stay_two_and_the_conflict_is_kept() -> None:
    """Who signs in as somebody else on a shared browser is somebody else."""
    store = after(
        said(anonymous_id="shared", external_id="ann"), said(1, anonymous_id="shared", external_id="bob")
    )

    assert store.person_of("external_id", "ann") != store.person_of("external_id", "bob")
    (conflict,) = store.conflicts.values()
    assert conflict.reason == "two external ids"
    assert store.merges == []


def test_two_named_people_with_one_email_address_stay_two() -> None:
    """A shared mailbox joins nobody whom the host tells apart."""
    store = after(
        said(external_id="ann", email="family@x.test"), said(1, external_id="bob", email="family@x.test")
    )

    assert store.person_of("external_id", "ann") != store.person_of("external_id", "bob")
    assert store.person_of("email", "family@x.test") == store.person_of("external_id", "ann")


def test_identifying_again_changes_nothing() -> None:
    """The same words about the same person merge nothing and bind nothing a second time."""
    words: dict[str, Any] = {"anonymous_id": "a", "external_id": "ann", "email": "ann@x.test"}
    store = after(said(**words))
    before = (dict(store.identities), set(store.visitors))
    store.process([said(1, **words)])

    assert (store.identities, set(store.visitors), store.merges) == (*before, [])


def test_a_customer_who_signs_up_again_stays_a_customer() -> None:
    """A status never falls back."""
    store = after(
        said(
            anonymous_id="a", external_id="ann", event_type=EventType.SALE, amount_cents=100, currency="EUR"
        ),
        said(1, anonymous_id="a", external_id="ann"),
        said(2, anonymous_id="a", event_type=EventType.LEAD),
    )
    (person,) = store.visitors.values()

    assert (person.status, person.ltv, person.converted_at) == ("customer", {"EUR": 100}, START)


# Clicks --------------------------------------------------------------------------------------------------------------


def test_a_click_and_its_landing_are_one_visitor_with_the_links_source() -> None:
    """A landing on another host is the clicker's, and its visit came from where the link says."""
    store = after(
        a_click(1, anonymous_id="on-go"), a_hit(minute=0.1, anonymous_id="on-shop", click_id=UUID(int=1))
    )
    (visitor,), (visit,) = store.visitors.values(), store.visits()

    assert (visit.source, visit.medium, visit.campaign, visit.click_id) == (
        "newsletter",
        "email",
        "c1",
        UUID(int=1),
    )
    assert visitor.first_click_id == visitor.last_click_id == UUID(int=1)
    assert (visitor.total_events, visitor.total_sessions) == (2, 1)


def test_a_click_opens_no_visit() -> None:
    """A click that never lands is an event without a visit."""
    store = after(a_click(1, anonymous_id="a"))

    assert store.sessions == {}
    assert [event["session_id"] for event in store.events] == [None]


def test_a_landing_joins_a_browser_that_is_known_with_its_click() -> None:
    """The click's row and the browser's row are two weak kinds that match: one person, the older row."""
    store = after(
        a_hit(anonymous_id="on-shop"),
        a_click(1, 100, anonymous_id="on-go"),
        a_hit(minute=100.1, anonymous_id="on-shop", click_id=UUID(int=1)),
    )

    assert store.person_of("click", str(UUID(int=1))) == store.person_of("anonymous_id", "on-shop")
    assert [v.source for v in store.visits()] == ["direct", "newsletter"]


@pytest.mark.parametrize("second", ["browser", "server"])
@pytest.mark.parametrize("first", ["browser", "server"])
def test_a_forwarded_landing_address_brings_its_source_and_not_its_person(first: Any, second: Any) -> None:
    """Whoever lands second with a click is a stranger, whether their page or their host's own code shows it first."""
    landing: dict[str, Any] = {"click_id": UUID(int=1)}
    store = after(
        a_click(1, anonymous_id="on-go"),
        a_hit(minute=1, anonymous_id="first", origin=first, quiet=first == "server", **landing),
        a_hit(minute=2, anonymous_id="second", origin=second, quiet=second == "server", **landing),
        a_hit(minute=3, anonymous_id="first", **landing),
        a_hit(minute=4, anonymous_id="second", **landing),
    )

    assert store.person_of("anonymous_id", "first") == store.person_of("click", str(UUID(int=1)))
    assert store.person_of("anonymous_id", "second") != store.person_of("anonymous_id", "first")
    assert [visit.source for visit in store.visits()] == ["newsletter", "newsletter"]


def test_a_page_cannot_call_itself_the_click_to_become_the_clicker() -> None:
    """A beacon of type link_click is a claim: it bridges to nobody who has landed, and changes no click's source."""
    store = after(
        a_click(1, anonymous_id="on-go"),
        a_hit(minute=1, anonymous_id="first", click_id=UUID(int=1)),
        a_hit(EventType.LINK_CLICK, 2, anonymous_id="thief", click_id=UUID(int=1), referrer=GOOGLE),
    )

    assert store.person_of("anonymous_id", "thief") != store.person_of("anonymous_id", "first")


def test_a_landing_long_after_its_click_is_somebody_new() -> None:
    """A click bridges within an hour; later its address has been kept or handed on."""
    store = after(
        a_click(1, anonymous_id="on-go"), a_hit(minute=61, anonymous_id="on-shop", click_id=UUID(int=1))
    )

    assert store.person_of("anonymous_id", "on-shop") != store.person_of("click", str(UUID(int=1)))


@pytest.mark.parametrize(
    ("minutes", "referrers", "expected"),
    [
        pytest.param((5, 10), (None, None), ["newsletter"], id="next pages go on with the visit"),
        pytest.param(
            (5, 10), (GOOGLE, None), ["newsletter", "google"], id="direct goes on after another source"
        ),
        pytest.param(
            (100, 200), (None, None), ["newsletter", "direct", "direct"], id="later visits came without it"
        ),
        pytest.param((100, 105), (GOOGLE, None), ["newsletter", "google"], id="later source, then direct"),
    ],
)
def test_a_click_counts_once_although_its_cookie_lives_for_months(
    minutes: Sequence[float], referrers: Sequence[str | None], expected: list[str]
) -> None:
    """Every hit of a browser carries its last click; only the landing came from it."""
    store = after(
        a_click(1, anonymous_id="on-go"),
        a_hit(minute=1, anonymous_id="a", click_id=UUID(int=1)),
        *(
            a_hit(minute=m, anonymous_id="a", click_id=UUID(int=1), referrer=r)
            for m, r in zip(minutes, referrers, strict=True)
        ),
    )

    assert [visit.source for visit in store.visits()] == expected


def test_a_second_click_brings_its_own_source() -> None:
    """Another click in the cookie is another arrival."""
    store = after(
        a_click(1, anonymous_id="a"),
        a_hit(minute=1, anonymous_id="a", click_id=UUID(int=1)),
        a_click(2, 5, anonymous_id="a"),
        a_hit(minute=6, anonymous_id="a", click_id=UUID(int=2)),
        a_hit(minute=7, anonymous_id="a", click_id=UUID(int=2)),
        a_hit(minute=200, anonymous_id="a", click_id=UUID(int=2)),
    )

    assert [visit.campaign for visit in store.visits()] == ["c1", "c2", None]


def test_the_landings_own_address_says_more_than_the_link() -> None:
    """UTM parameters of the page beat what the link says."""
    store = after(
        a_click(1, anonymous_id="a"),
        a_hit(minute=1, anonymous_id="a", click_id=UUID(int=1), url=f"{SHOP}/?utm_source=podcast"),
    )

    assert [visit.source for visit in store.visits()] == ["podcast"]


# Which visit, whose money --------------------------------------------------------------------------------------------


def test_a_bot_does_not_count_and_does_not_prolong_a_persons_visit() -> None:
    """A crawler that shows a person's cookie adds an event that is marked, and nothing else."""
    store = after(
        a_hit(anonymous_id="a"),
        a_hit(minute=20, anonymous_id="a", bot="crawler"),
        a_hit(minute=40, anonymous_id="a"),
    )
    (visitor,) = store.visitors.values()

    assert [v.pageviews for v in store.visits()] == [1, 1]
    assert (visitor.total_sessions, visitor.total_pageviews, visitor.bot) == (2, 2, None)
    assert [event["bot"] for event in store.events] == [None, "crawler", None]


def test_a_person_does_not_go_on_with_a_bots_visit() -> None:
    """A visit that is not counted must not swallow one that is."""
    store = after(a_hit(anonymous_id="a", bot="crawler"), a_hit(minute=1, anonymous_id="a"))
    (visitor,) = store.visitors.values()

    assert [v.bot for v in store.visits()] == ["crawler", None]
    assert (visitor.total_sessions, visitor.total_pageviews, visitor.bot) == (1, 1, None)


def test_the_hosts_sale_belongs_to_the_visit_that_is_going_on() -> None:
    """A sale that a server reports joins the browser's visit and has its source."""
    store = after(
        a_hit(anonymous_id="a", referrer=GOOGLE),
        said(5, event_type=EventType.SALE, anonymous_id="a", amount_cents=4900, currency="EUR"),
    )
    (visit,) = store.visits()

    assert (visit.events, visit.is_bounce, visit.is_engaged) == (2, False, True)
    assert [event["source"] for event in store.events] == ["google", "google"]


def test_a_sale_that_a_page_claims_is_kept_and_earns_nothing() -> None:
    """The event is there, untrusted; value, status and conversion are not."""
    store = after(a_hit(EventType.SALE, anonymous_id="a", amount_cents=4900, currency="EUR"))
    (visitor,), (event,) = store.visitors.values(), store.events

    assert (event["trusted"], event["amount_cents"]) == (False, 4900)
    assert (visitor.status, visitor.ltv, visitor.converted_at) == ("anonymous", {}, None)


def test_currencies_are_never_added() -> None:
    """Each currency has its own sum."""
    store = after(
        *(
            said(n, event_type=EventType.SALE, anonymous_id="a", amount_cents=cents, currency=currency)
            for n, (cents, currency) in enumerate([(100, "EUR"), (7, "JPY"), (50, "EUR")])
        )
    )
    (visitor,) = store.visitors.values()

    assert visitor.ltv == {"EUR": 150, "JPY": 7}


def test_direct_never_replaces_a_source() -> None:
    """The last source is the last one that is not direct."""
    store = after(a_hit(anonymous_id="a", referrer=GOOGLE), a_hit(minute=100, anonymous_id="a"))
    (visitor,) = store.visitors.values()

    assert visitor.last_source is not None
    assert (visitor.last_source["platform"], visitor.last_source_at) == ("google", START)


def test_a_quiet_hit_finds_its_visitor_and_leaves_no_event() -> None:
    """Asking who somebody is records nothing about them."""
    store = Store()
    (first,) = store.process([a_hit(anonymous_id="a", quiet=True)])
    (second,) = store.process([a_hit(minute=1, anonymous_id="a", quiet=True)])

    assert (first.status, first.visitor_id) == ("resolved", second.visitor_id)
    assert (store.events, store.sessions) == ([], {})
    assert [v.total_events for v in store.visitors.values()] == [0]


def test_derived_ids_are_version_7_and_differ_by_purpose() -> None:
    """A made id is a real UUIDv7, the same for the same purpose and another one for another."""
    made = [derived_id(UUID(int=5), START, purpose) for purpose in ("visitor", "session", "visitor")]

    assert [(i.version, i.variant) for i in made] == [(7, "specified in RFC 4122")] * 3
    assert made[0] == made[2] != made[1]
    assert made[0].int >> 80 == int(START.timestamp() * 1_000)
