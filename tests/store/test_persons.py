"""The host's own hand on who is who: merging, taking apart, foreseeing, forgetting, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select, text

from goodanalytics import Analytics, Config
from goodanalytics.core.hits import EventType, Hit, Signals
from goodanalytics.core.identity_rules import IdentityRules
from goodanalytics.errors import Conflict, InvalidInput, NotFound


@pytest.fixture
async def analytics(database_url: str, config: Config) -> AsyncIterator[Analytics]:
    rules = IdentityRules(emails=2, people_per_device=3, blocked_patterns=["test-.*"])
    async with Analytics(database_url, dataclasses.replace(config, worker=False, identity=rules)) as running:
        yield running


async def count(analytics: Analytics, name: str, *where) -> int:
    table = getattr(analytics.database.tables, name)
    async with analytics.database.connect() as conn:
        return (await conn.execute(select(func.count()).select_from(table).where(*where))).scalar_one()


def page(analytics: Analytics, browser: str, url: str = "https://shop.test/", **facts) -> Hit:
    """A pageview of a browser, a second after whatever came before."""
    now = analytics.config.clock.advance(timedelta(seconds=1))
    signals = {name: facts.pop(name) for name in list(facts) if name in Signals.__struct_fields__}
    defaults = {
        "id": analytics.config.new_id(),
        "workspace_id": analytics.config.workspace,
        "received_at": now,
        "occurred_at": now,
        "event_type": EventType.PAGEVIEW,
        "origin": "browser",
        "url": url,
    }
    return Hit(**(defaults | facts), signals=Signals(anonymous_id=browser, **signals))


async def seen(analytics: Analytics, browser: str, *pages: str, **facts) -> UUID:
    """A browser looks at pages; the person that it is."""
    for url in pages or ("https://shop.test/",):
        (outcome,) = await analytics.ingest.now([page(analytics, browser, url, **facts)])
    return outcome.visitor_id


def said(analytics: Analytics, browser: str, **names) -> Hit:
    """What the host says of the user of a browser."""
    return page(
        analytics, browser, event_type=EventType.IDENTIFY, origin="server", trusted=True, url=None, **names
    )


async def person_of(analytics: Analytics, browser: str):
    return await analytics.resolve({"anonymous_id": browser})


class TestMerge:
    async def test_counters_timeline_and_attribution_are_the_whole_persons(self, analytics):
        """After the host's merge either id answers for both, and the older one is the person's."""
        phone = await seen(analytics, "phone", "https://shop.test/?utm_source=a", "https://shop.test/b")
        laptop = await seen(analytics, "laptop", "https://shop.test/?utm_source=c")
        merged = await analytics.visitors.merge(laptop, phone, reason="same customer", actor="ada")

        assert (merged.id, merged.total_pageviews, merged.total_sessions) == (phone, 3, 2)
        assert await analytics.visitors.get(laptop) == await analytics.visitors.get(phone) == merged
        assert len((await analytics.visitors.attribution(laptop)).attribution_path) == 2

    async def test_two_names_are_joined_by_force_only(self, analytics):
        """Two external ids are two people until the host insists."""
        one = await analytics.identify(external_id="a-1")
        other = await analytics.identify(external_id="b-2")
        with pytest.raises(Conflict, match="force=True"):
            await analytics.visitors.merge(one, other, reason="typo")
        merged = await analytics.visitors.merge(one, other, reason="one customer, two accounts", force=True)

        assert (await analytics.visitors.by_external_id("a-1")).id == merged.id
        assert (await analytics.visitors.by_external_id("b-2")).id == merged.id
        assert (await analytics.identify(external_id="b-2", name="Ada")).id == merged.id

    async def test_merging_again_changes_nothing(self, analytics):
        """Who is one person already gets no second row in the ledger."""
        one, other = await seen(analytics, "a"), await seen(analytics, "b")
        for _ in range(2):
            await analytics.visitors.merge(one, other, reason="same")

        assert await count(analytics, "merges") == 1

    @pytest.mark.parametrize("reason", ["", "  "])
    async def test_a_reason_is_needed(self, analytics, reason):
        """An audit without reasons helps nobody."""
        with pytest.raises(InvalidInput, match="reason"):
            await analytics.visitors.merge(UUID(int=1), UUID(int=2), reason=reason)

    async def test_nobody_cannot_be_merged(self, analytics):
        """An unknown id is named."""
        one = await seen(analytics, "a")
        with pytest.raises(NotFound, match=str(UUID(int=2))):
            await analytics.visitors.merge(one, UUID(int=2), reason="why not")


async def snapshot(analytics: Analytics, *browsers: str) -> list:
    """All that reads tell of these browsers' persons."""
    told = []
    for browser in browsers:
        person = await person_of(analytics, browser)
        timeline = await analytics.visitors.timeline(person)
        credit = await analytics.visitors.attribution(person)
        told.append((person, [(e.id, e.session_id) for e in timeline.items], credit))
    return told


async def visits(analytics: Analytics) -> list:
    async with analytics.database.connect() as conn:
        return [
            tuple(row)
            for row in await conn.execute(
                select(analytics.database.tables.sessions).order_by(analytics.database.tables.sessions.c.id)
            )
        ]


class TestUnmerge:
    async def test_everything_reads_as_if_it_had_never_been(self, analytics):
        """Persons, timelines, visits and credit are those of before the merge."""
        await seen(analytics, "phone", "https://shop.test/?utm_source=a")
        await seen(analytics, "laptop", "https://shop.test/?utm_source=b")
        before = await snapshot(analytics, "phone", "laptop"), await visits(analytics)
        await analytics.visitors.merge(*[p.id for p, _, _ in before[0]], reason="same")
        (merge,) = (await analytics.visitors.why(before[0][0][0].id)).merges
        await analytics.visitors.unmerge(merge["id"], reason="no", actor="ada")

        assert (await snapshot(analytics, "phone", "laptop"), await visits(analytics)) == before

    async def test_what_came_since_goes_with_its_own_browser(self, analytics):
        """Events after the merge stay with the row that caught them, so they part too."""
        phone, laptop = await seen(analytics, "phone"), await seen(analytics, "laptop")
        await analytics.visitors.merge(phone, laptop, reason="same")
        await seen(analytics, "laptop", "https://shop.test/since")
        (merge,) = (await analytics.visitors.why(phone)).merges
        winner, loser = await analytics.visitors.unmerge(merge["id"], reason="no")

        assert (winner.id, winner.total_pageviews) == (phone, 1)
        assert (loser.id, loser.total_pageviews) == (laptop, 2)

    async def test_a_sale_that_joined_the_others_visit_leaves_it(self, analytics):
        """The host's sale fell into the laptop's visit only because of the merge; without it that visit never saw it."""
        phone = await seen(analytics, "phone", "https://shop.test/?utm_source=a")
        analytics.config.clock.advance(timedelta(hours=2))
        laptop = await seen(analytics, "laptop", "https://shop.test/?utm_source=b")
        before = await visits(analytics)
        await analytics.visitors.merge(phone, laptop, reason="same")
        analytics.config.clock.advance(timedelta(seconds=1))
        sale = await analytics.sale(phone, amount_cents=500, currency="EUR")
        assert await visits(analytics) != before
        (merge,) = (await analytics.visitors.why(phone)).merges
        await analytics.visitors.unmerge(merge["id"], reason="no")
        (event,) = [e for e in (await analytics.visitors.timeline(phone)).items if e.id == sale.event_id]

        assert (await visits(analytics), event.session_id) == (before, None)
        assert (await analytics.visitors.get(laptop)).ltv == {}
        assert (await analytics.visitors.get(phone)).ltv == {"EUR": 500}

    async def test_the_evidence_does_not_bring_them_together_again(self, analytics):
        """The address that tied them matches at the next hit, and they stay apart, with a conflict that says so."""
        await analytics.ingest.now([said(analytics, "phone", email="ann@shop.example")])
        await seen(analytics, "laptop")
        await analytics.ingest.now([said(analytics, "laptop", email="ann@shop.example")])
        (merge,) = (await analytics.visitors.why((await person_of(analytics, "phone")).id)).merges
        await analytics.visitors.unmerge(merge["id"], reason="a shared mailbox")
        await analytics.ingest.now([said(analytics, "laptop", email="ann@shop.example")])
        phone, laptop = await person_of(analytics, "phone"), await person_of(analytics, "laptop")

        assert phone.id != laptop.id
        assert await count(analytics, "conflicts") == 1

    async def test_the_host_may_join_them_again(self, analytics):
        """A merge by hand outweighs having been taken apart."""
        one, other = await seen(analytics, "a"), await seen(analytics, "b")
        for _ in range(2):
            await analytics.visitors.merge(one, other, reason="same")
            merge = next(m for m in (await analytics.visitors.why(one)).merges if m["undone_at"] is None)
            winner, loser = await analytics.visitors.unmerge(merge["id"], reason="no")

        assert {winner.id, loser.id} == {one, other}
        assert (await analytics.visitors.merge(one, other, reason="after all")).total_pageviews == 2

    async def test_a_later_tie_stays_where_its_evidence_led(self, analytics):
        """C was tied to B while B was A's; when A and B part, C goes with B."""
        a, b, c = [await seen(analytics, name) for name in "abc"]
        await analytics.visitors.merge(a, b, reason="one")
        await analytics.visitors.merge(c, b, reason="two")
        first = (await analytics.visitors.why(a)).merges[0]
        await analytics.visitors.unmerge(first["id"], reason="no")
        persons = [(await analytics.visitors.get(v)).id for v in (a, b, c)]

        assert persons == [a, b, b]

    async def test_a_merge_is_undone_once(self, analytics):
        """A second time says when the first was; an unknown merge is unknown."""
        one, other = await seen(analytics, "a"), await seen(analytics, "b")
        await analytics.visitors.merge(one, other, reason="same")
        (merge,) = (await analytics.visitors.why(one)).merges
        await analytics.visitors.unmerge(merge["id"], reason="no")
        with pytest.raises(Conflict, match="undone at"):
            await analytics.visitors.unmerge(merge["id"], reason="no")
        with pytest.raises(NotFound):
            await analytics.visitors.unmerge(UUID(int=1), reason="no")


class TestForesee:
    async def test_a_merge_is_told_and_not_made(self, analytics):
        """The dry run names who would join on what, and the database is as before."""
        one = await analytics.identify(email="ann@shop.example")
        other = await seen(analytics, "laptop")
        counts = [
            await count(analytics, n) for n in ("visitors", "identities", "merges", "events", "receipts")
        ]
        told = await analytics.identify(other, email="Ann@Shop.example", dry_run=True)

        assert (told.decision, told.visitor.id, told.joined) == ("merge", one.id, (other,))
        assert told.evidence == ("visitor", "email")
        assert told.to_json()["visitor"]["person_email"] == "ann@shop.example"
        names = ("visitors", "identities", "merges", "events", "receipts")
        assert [await count(analytics, n) for n in names] == counts

    async def test_it_is_what_then_happens(self, analytics):
        """Said for good, the answer is the person that the dry run showed."""
        other = await seen(analytics, "laptop")
        await analytics.identify(external_id="u-1")
        told = await analytics.identify(other, external_id="u-1", dry_run=True)

        assert (await analytics.identify(other, external_id="u-1")) == told.visitor

    async def test_new_known_and_kept_apart(self, analytics):
        """The other decisions have their words."""
        assert (await analytics.identify(external_id="u-1", dry_run=True)).decision == "new"
        one = await analytics.identify(external_id="u-1")
        assert (await analytics.identify(one, name="Ann", dry_run=True)).decision == "known"
        told = await analytics.identify(one, external_id="u-2", dry_run=True)

        assert told.kept_apart == ((one.id, "two external ids"),)

    async def test_the_hosts_own_transaction_goes_on(self, analytics):
        """A dry run on the host's connection leaves what the host did before it."""
        async with analytics.database.begin() as conn:
            made = await analytics.identify(external_id="u-1", connection=conn)
            await analytics.identify(made, email="a@shop.example", connection=conn, dry_run=True)

        assert (await analytics.visitors.by_external_id("u-1")).email is None


class TestSharedDevice:
    async def test_the_browser_follows_who_signed_in(self, analytics):
        """X's browser is Y's once Y signs in on it; what X did stays X's, and the time is kept."""
        await analytics.ingest.now([said(analytics, "tablet", external_id="x")])
        await seen(analytics, "tablet", "https://shop.test/as-x")
        await analytics.ingest.now([said(analytics, "tablet", external_id="y")])
        await seen(analytics, "tablet", "https://shop.test/as-y")
        x, y = [await analytics.visitors.by_external_id(name) for name in "xy"]
        pages = [[e.path for e in (await analytics.visitors.timeline(who)).items if e.path] for who in (x, y)]
        (former,) = (await analytics.visitors.why(x)).former

        assert pages == [["/as-x"], ["/as-y"]]
        assert (former["value"], former["until"] > former["first_seen_at"]) == ("tablet", True)

    async def test_it_comes_back_with_its_first_owner(self, analytics):
        """X signs in again: the browser is X's again."""
        for name in "xyx":
            await analytics.ingest.now([said(analytics, "tablet", external_id=name)])

        assert (await person_of(analytics, "tablet")).external_id == "x"

    async def test_many_peoples_device_is_nobodys(self, analytics):
        """The third person within the window makes it a kiosk: what is done there is its own, and it proves nothing."""
        for name in "xyz":
            await analytics.ingest.now([said(analytics, "kiosk", external_id=name)])
        kiosk = await person_of(analytics, "kiosk")
        await analytics.ingest.now([said(analytics, "kiosk", external_id="w")])

        assert kiosk.external_id is None
        assert (await person_of(analytics, "kiosk")).id == kiosk.id
        persons = {(await analytics.visitors.by_external_id(name)).id for name in "wxyz"}
        assert len(persons | {kiosk.id}) == 5


class TestCaps:
    async def test_one_address_too_many_is_no_evidence(self, analytics):
        """With two addresses allowed, the third is kept as a conflict and leads nowhere."""
        one = await analytics.identify(external_id="u-1")
        for letter in "abc":
            await analytics.identify(one, email=f"{letter}@shop.example")

        assert await count(analytics, "conflicts") == 1
        assert (await analytics.identify(email="c@shop.example")).id != one.id

    async def test_a_merge_beyond_a_cap_is_not_made(self, analytics):
        """Two people who would have three addresses together stay two."""
        one = await analytics.identify(external_id="u-1")
        for letter in "ab":
            await analytics.identify(one, email=f"{letter}@shop.example")
        other = await seen(analytics, "laptop")
        await analytics.identify(other, email="c@shop.example")
        await analytics.identify(other, external_id="u-1")

        assert (await analytics.visitors.get(other)).id != one.id

    async def test_blocked_values_join_nobody(self, analytics):
        """A value of the host's pattern is no evidence."""
        await seen(analytics, "test-1")
        await seen(analytics, "test-1")

        assert await count(analytics, "identities") == 0


class TestForget:
    async def test_nothing_is_left_of_any_member(self, analytics):
        """Events, visits, values and rows of both browsers are gone, in every table; the audit names nobody."""
        phone = await seen(analytics, "phone-cookie")
        laptop = await seen(analytics, "laptop-cookie")
        await analytics.identify(phone, external_id="ann-77", email="ann@shop.example", name="Ann Secret")
        await analytics.identify(laptop, email="ann@shop.example")
        await analytics.log.append([page(analytics, "phone-cookie")])
        await analytics.log.append([page(analytics, "somebody-else")])
        gone = await analytics.visitors.forget(laptop, reason="asked by mail", actor="support")

        assert (gone.visitors, gone.events, gone.sessions, gone.hits) == (2, 4, 2, 1)
        async with analytics.database.connect() as conn:
            for table in analytics.database.tables:
                rows = (await conn.execute(text(f"SELECT t::text FROM {table} t"))).scalars().all()
                told = "\n".join(rows)
                found = [v for v in ("cookie", "ann-77", "ann@shop", "Ann Secret") if v in told]
                assert (table.name, found) == (table.name, [])
        with pytest.raises(NotFound):
            await analytics.visitors.timeline(phone)

    async def test_the_cookie_brings_nobody_back(self, analytics):
        """Its hits are dropped, by the worker too, and others are not."""
        visitor = await seen(analytics, "phone")
        await analytics.visitors.forget(visitor, reason="asked")
        (outcome,) = await analytics.ingest.now([page(analytics, "phone")])
        await analytics.log.append([page(analytics, "phone"), page(analytics, "other")])
        await analytics.drain()

        assert (outcome.status, outcome.reason, outcome.visitor_id) == ("dropped", "forgotten", None)
        assert [await count(analytics, n) for n in ("visitors", "events")] == [1, 1]

    async def test_a_new_secret_key_still_recognises_them(self, analytics, database_url):
        """While the old key is among the former ones."""
        await analytics.visitors.forget(await seen(analytics, "phone"), reason="asked")
        config = analytics.config
        rotated = dataclasses.replace(config, secret_key="n" * 40, previous_secret_keys=[config.secret_key])
        async with Analytics(database_url, rotated) as later:
            (outcome,) = await later.ingest.now([page(later, "phone")])

        assert outcome.status == "dropped"

    async def test_the_host_may_know_them_anew(self, analytics):
        """A name that the host says after the erasure is a new person; what it said before stays dropped."""
        old = await analytics.identify(external_id="ann")
        late = said(analytics, "elsewhere", external_id="ann")
        await analytics.visitors.forget(old, reason="asked")
        (outcome,) = await analytics.ingest.now([late])
        analytics.config.clock.advance(timedelta(days=1))
        again = await analytics.identify(external_id="ann")

        assert outcome.status == "dropped"
        assert (again.id != old.id, again.total_events) == (True, 1)

    async def test_a_browser_that_changed_hands_goes_on_living(self, analytics):
        """X's former browser is Y's today: forgetting X leaves it to Y."""
        for name in "xy":
            await analytics.ingest.now([said(analytics, "tablet", external_id=name)])
        await analytics.visitors.forget(await analytics.visitors.by_external_id("x"), reason="asked")

        assert (await person_of(analytics, "tablet")).external_id == "y"


async def test_two_hundred_tasks_on_overlapping_identities(analytics):
    """Each person is one visitor, whoever was first, and nobody meets a deadlock."""

    async def one(number: int) -> UUID:
        user = number % 10
        names = {"external_id": f"user-{user}"} if number % 3 else {"email": f"u{user}@shop.example"}
        if number % 5 == 0:
            names = {"external_id": f"user-{user}", "email": f"u{user}@shop.example"}
        return (await analytics.ingest.now([said(analytics, f"browser-{number % 40}", **names)]))[
            0
        ].visitor_id

    await asyncio.gather(*(one(number) for number in range(200)))
    for user in range(10):
        await analytics.identify(external_id=f"user-{user}", email=f"u{user}@shop.example")
    persons = {(await analytics.visitors.by_external_id(f"user-{user}")).id for user in range(10)}
    async with analytics.database.connect() as conn:
        rows = (
            await conn.execute(
                text(f"SELECT DISTINCT canonical_id FROM {analytics.database.tables.visitors}")
            )
        ).all()

    assert len(persons) == 10
    assert {row.canonical_id for row in rows} == persons
