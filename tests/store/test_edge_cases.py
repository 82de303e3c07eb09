"""
Who is who in the edge cases that the original lists, each under our rule, on a real PostgreSQL.

`test_case_N_…` are those of original-core.md, section 27 (identity and visitors); `test_practice_…` are what goes wrong in practice, and
`test_issue_N_…` the complaints, of links-and-attribution.md, sections 3 and 4. Where the original did wrong, the docstring says so.
"""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from goodanalytics import Analytics, Config, Visitor
from goodanalytics.core.hits import Client, EventType, Hit, Signals
from goodanalytics.core.identity_rules import IdentityRules
from goodanalytics.core.plan import Outcome
from goodanalytics.errors import Conflict, NotFound

GOOGLE = "https://www.google.com/"
FACEBOOK = "https://www.facebook.com/"


@pytest.fixture
async def analytics(shared_database_url: str, config: Config) -> AsyncIterator[Analytics]:
    """In a workspace of this test's own."""
    rules = IdentityRules(emails=3, merges_per_day=5, people_per_device=4, fingerprints=True)
    own = dataclasses.replace(config, worker=False, workspace=uuid.uuid4(), identity=rules)
    async with Analytics(shared_database_url, own) as running:
        yield running


def a_hit(analytics: Analytics, event_type: EventType = EventType.PAGEVIEW, **facts: Any) -> Hit:
    """Something that a browser does, a minute after whatever came before; names of `Signals` go there."""
    now = analytics.config.clock.advance(timedelta(minutes=1))
    signals = {name: facts.pop(name) for name in list(facts) if name in Signals.__struct_fields__}
    defaults = {
        "id": analytics.config.new_id(), "workspace_id": analytics.config.workspace, "received_at": now,
        "occurred_at": now, "event_type": event_type, "origin": "browser", "url": "https://shop.test/",
    }  # fmt: skip
    return Hit(**(defaults | facts), signals=Signals(**signals))


async def does(analytics: Analytics, event_type: EventType = EventType.PAGEVIEW, **facts: Any) -> Outcome:
    (outcome,) = await analytics.ingest.now([a_hit(analytics, event_type, **facts)])
    return outcome


async def says(analytics: Analytics, event_type: EventType = EventType.IDENTIFY, **facts: Any) -> Outcome:
    """The host says something of a person or a browser."""
    return await does(analytics, event_type, **{"origin": "server", "trusted": True, "url": None} | facts)


async def clicked(analytics: Analytics, browser: str = "on-go") -> UUID:
    """A click on a short link, as our redirect records it; its id."""
    click_id = analytics.config.new_id()
    source = {"platform": "newsletter", "medium": "email", "confidence": "medium"}
    await does(
        analytics, EventType.LINK_CLICK, id=click_id, click_id=click_id, origin="link", source=source, anonymous_id=browser
    )  # fmt: skip
    return click_id


async def person(analytics: Analytics, visitor_id: UUID | None) -> Visitor:
    found = await analytics.visitors.get(visitor_id)
    assert found is not None
    return found


async def who(analytics: Analytics, browser: str) -> Visitor:
    return await analytics.resolve({"anonymous_id": browser})


async def count(analytics: Analytics, name: str) -> int:
    table = getattr(analytics.database.tables, name)
    async with analytics.database.connect() as conn:
        found = select(func.count()).where(table.c.workspace_id == analytics.config.workspace)
        return (await conn.execute(found.select_from(table))).scalar_one()


async def reasons(analytics: Analytics, visitor_id: UUID) -> list[str]:
    """Why somebody was kept apart from the person."""
    return [conflict["reason"] for conflict in (await analytics.visitors.why(visitor_id)).conflicts]


# Identity ----------------------------------------------------------------------------------------------------------------


async def test_case_1_an_unknown_click_id_creates_and_a_known_browser_keeps_its_row(
    analytics: Analytics,
) -> None:
    """1: an unknown ga_id makes a visitor; the same browser again is the same row; a value that comes twice is there once."""
    first = await does(analytics, anonymous_id="a", click_id=uuid.uuid4())
    again = [await does(analytics, anonymous_id="a", fingerprint="f") for _ in range(2)]
    why = await analytics.visitors.why(first.visitor_id)

    assert {outcome.visitor_id for outcome in again} == {first.visitor_id}
    assert sorted(one["kind"] for one in why.identities) == [
        "anonymous_id",
        "click",
        "fingerprint",
        "landing",
    ]


async def test_case_2_a_click_and_a_fingerprint_of_two_visitors_stay_two(analytics: Analytics) -> None:
    """2: ga_id belongs to V1, fingerprint to V2. The original merges them; a fingerprint is no evidence, so ours does not."""
    click = await clicked(analytics)
    v1 = await does(analytics, anonymous_id="v1", click_id=click)
    v2 = await does(analytics, anonymous_id="v2", fingerprint="same screen")
    both = await does(analytics, anonymous_id="v1", click_id=click, fingerprint="same screen")

    assert both.visitor_id == v1.visitor_id != v2.visitor_id
    assert await count(analytics, "merges") == 0


async def test_case_3_a_fingerprint_alone_finds_nobody(analytics: Analytics) -> None:
    """3: fingerprint alone finds V1 in the original, and so everybody with the same telephone. Ours hints and keeps apart."""
    v1 = await does(analytics, anonymous_id="v1", fingerprint="f")
    stranger = await does(analytics, fingerprint="f")
    other = await does(analytics, anonymous_id="v2", fingerprint="f")

    assert len({v1.visitor_id, stranger.visitor_id, other.visitor_id}) == 3
    assert await reasons(analytics, v1.visitor_id) == ["the same fingerprint; that alone is no evidence"] * 2


@pytest.mark.parametrize(
    ("matched", "is_one"),
    [
        ({"external_id": "x"}, True),
        ({"visitor_id": "x"}, True),
        ({"email": "x@shop.test"}, True),
        ({"fingerprint": "f", "anonymous_id": "x"}, False),
        ({"fingerprint": "f"}, False),
        ({"anonymous_id": "x"}, False),
        ({}, False),
        ({"external_id": "x", "fingerprint": "f"}, True),
    ],
    ids=lambda value: "+".join(value) or "nothing" if isinstance(value, dict) else None,
)
async def test_case_3_the_truth_table_of_merging(
    analytics: Analytics, matched: dict[str, Any], is_one: bool
) -> None:
    """
    3: eight rows of merge-allowed, of what *matched* another visitor and not of what was sent.

    V1 is the browser `y`; V2 holds every value of the row. A hit with both merges them or does not.
    """
    v1 = await does(analytics, anonymous_id="y")
    v2 = await says(
        analytics, external_id="x", email="x@shop.test", fingerprint="f", anonymous_id="x", event_type=EventType.CUSTOM
    )  # fmt: skip
    sent = {**matched, **({"visitor_id": v2.visitor_id} if "visitor_id" in matched else {})}
    # A browser has one cookie: where V2's is sent, V1 is only another row that nothing matched.
    outcome = await says(analytics, **{"anonymous_id": "y"} | sent)

    is_merged = (await person(analytics, v1.visitor_id)).id == (await person(analytics, v2.visitor_id)).id
    assert is_merged == is_one
    assert (await person(analytics, outcome.visitor_id)).id == (
        v2.visitor_id if matched.get("anonymous_id") == "x" else v1.visitor_id
    )


async def test_case_4_no_signals_no_candidates_and_the_oldest_leads(analytics: Analytics) -> None:
    """4: what points nowhere is somebody new each time; of several the one seen first names the person."""
    alone = {(await does(analytics)).visitor_id for _ in range(2)}
    old, middle, young = [await does(analytics, anonymous_id=b) for b in ("old", "middle", "young")]
    for browser in ("young", "old", "middle"):
        await says(analytics, anonymous_id=browser, external_id="ann")

    assert len(alone) == 2
    assert {(await person(analytics, v.visitor_id)).id for v in (old, middle, young)} == {old.visitor_id}


async def test_case_4_an_id_of_a_merged_row_is_followed(analytics: Analytics) -> None:
    """4: merged rows are never candidates in the original, so their browsers split again. Ours are followed, at any depth."""
    old, middle, young = [await does(analytics, anonymous_id=b) for b in ("old", "middle", "young")]
    await analytics.visitors.merge(middle.visitor_id, young.visitor_id, reason="test")
    await analytics.visitors.merge(old.visitor_id, middle.visitor_id, reason="test")

    assert (await does(analytics, anonymous_id="young")).visitor_id == old.visitor_id
    assert (await analytics.resolve({"visitor_id": young.visitor_id})).id == old.visitor_id
    assert await count(analytics, "visitors") == 3


async def test_case_5_creating_keeps_the_first_touch_and_a_second_source_is_a_second_touch(
    analytics: Analytics,
) -> None:
    """5: click, source and both times are kept; path 1 with a source, 2 after another. Ours has a time for each touch."""
    seen = await does(analytics, anonymous_id="a", referrer=GOOGLE, click_id=(click := uuid.uuid4()))
    created = await person(analytics, seen.visitor_id)
    one = await analytics.visitors.attribution(seen.visitor_id)
    await does(analytics, anonymous_id="a", referrer=FACEBOOK)
    two = await analytics.visitors.attribution(seen.visitor_id)

    assert created.first_seen_at == created.last_seen_at == one.attribution_path[0].at
    assert created.first_click_id == created.last_click_id == click
    assert [touch.source["platform"] for touch in one.attribution_path] == ["google"]
    assert [touch.source["platform"] for touch in two.attribution_path] == ["google", "facebook"]


async def test_case_6_a_merge_of_three_holds_everything_and_rewrites_nothing(analytics: Analytics) -> None:
    """6: all values and events of three read as one person's. The original rewrites events and visits; ours stay as they were."""
    rows = [
        (await does(analytics, anonymous_id=b, fingerprint=f"of {b}", referrer=r)).visitor_id
        for b, r in (("a", GOOGLE), ("b", FACEBOOK), ("c", None))
    ]
    before = await _stored(analytics)
    for other in rows[1:]:
        await analytics.visitors.merge(rows[0], other, reason="test")
    why = await analytics.visitors.why(rows[2])

    assert {one["value"] for one in why.identities} == {"a", "b", "c", "of a", "of b", "of c"}
    assert len((await analytics.visitors.timeline(rows[0])).items) == 3
    assert (await person(analytics, rows[1])).total_pageviews == 3
    assert await _stored(analytics) == before


async def _stored(analytics: Analytics) -> list[tuple[Any, ...]]:
    """Whose events and visits are, and where visits came from."""
    e, s = analytics.database.tables.events.c, analytics.database.tables.sessions.c
    mine = analytics.config.workspace
    async with analytics.database.connect() as conn:
        events = await conn.execute(
            select(e.id, e.visitor_id, e.session_id).where(e.workspace_id == mine).order_by(e.id)
        )
        visits = await conn.execute(
            select(s.id, s.visitor_id, s.acquisition).where(s.workspace_id == mine).order_by(s.id)
        )
        return [tuple(row) for row in (*events, *visits)]


async def test_case_7_the_place_of_the_first_hit_stays_and_an_empty_one_is_filled(
    analytics: Analytics,
) -> None:
    """7: the first place stays, another or none changes nothing; of two rows the earliest that knows one tells it."""

    async def at(browser: str, country: str | None) -> UUID:
        return (
            await does(analytics, anonymous_id=browser, client=Client(country=country, user_agent="x"))
        ).visitor_id

    nowhere, german, french = await at("nowhere", None), await at("de", "DE"), await at("fr", "FR")
    for country in ("FR", None):
        await at("de", country)
    assert (await person(analytics, german)).geo == {"country": "DE"}

    await analytics.visitors.merge(german, french, reason="test")
    assert (await person(analytics, french)).geo == {"country": "DE"}
    await analytics.visitors.merge(nowhere, german, reason="test")
    assert (await person(analytics, nowhere)).geo == {"country": "DE"}


async def test_case_8_first_and_last_touch_travel_with_their_click(analytics: Analytics) -> None:
    """8: in a merge the first touch is the earliest and the last the latest of all rows, each with its own click."""
    landed = []
    for name in ("early", "late"):
        click = await clicked(analytics, f"{name} on go")
        url = f"https://shop.test/?utm_source={name}"
        landed.append((click, await does(analytics, anonymous_id=name, click_id=click, url=url)))
    (first, early), (last, late) = landed
    merged = await analytics.visitors.merge(late.visitor_id, early.visitor_id, reason="test")

    assert merged.first_click_id == first
    assert (merged.last_source["platform"], merged.last_click_id) == ("late", last)


async def test_case_9_identify_sets_status_time_and_fields_once(analytics: Analytics) -> None:
    """9: status, time and fields are set. The original resets the time and throws a customer back; ours keeps both, and is idempotent."""
    seen = await does(analytics, anonymous_id="a")
    said = {"external_id": "ann", "email": "ann@shop.test", "name": "Ann", "traits": {"plan": "pro"}}
    once = await analytics.identify(seen.visitor_id, **said)
    await analytics.sale(once, amount_cents=100, currency="EUR")
    analytics.config.clock.advance(timedelta(days=1))
    twice = await analytics.identify(seen.visitor_id, **said | {"traits": {"size": 7}})

    assert (once.status, once.external_id, once.email, once.name) == (
        "identified",
        "ann",
        "ann@shop.test",
        "Ann",
    )
    assert (twice.status, twice.identified_at) == ("customer", once.identified_at)
    assert twice.traits == {"plan": "pro", "size": 7}
    assert (twice.id, await count(analytics, "merges")) == (once.id, 0)


@pytest.mark.parametrize("named", ["old", "young"])
async def test_case_9_the_same_external_id_on_another_visitor_leaves_one_that_holds_it(
    analytics: Analytics, named: str
) -> None:
    """9: one survivor that holds the id, whichever of both had it. In the original the id is lost with a younger row."""
    old, young = [await does(analytics, anonymous_id=b) for b in ("old", "young")]
    other = {"old": "young", "young": "old"}[named]
    await says(analytics, anonymous_id=named, external_id="ann")
    await says(analytics, anonymous_id=other, external_id="ann")
    found = await analytics.visitors.by_external_id("ann")

    assert found is not None
    assert (found.id, found.external_id) == (old.visitor_id, "ann")
    assert (await person(analytics, young.visitor_id)).id == old.visitor_id
    assert (await analytics.identify(found, external_id="ann")).id == old.visitor_id


async def test_case_9_the_same_address_leaves_the_older_with_the_rest(analytics: Analytics) -> None:
    """9: one e-mail address on two visitors: the older survives and gets what else is said."""
    old, young = [await does(analytics, anonymous_id=b) for b in ("old", "young")]
    await analytics.identify(old.visitor_id, email="ann@shop.test")
    survivor = await analytics.identify(
        young.visitor_id, email=" ANN@shop.test ", name="Ann", phone="+4930123456"
    )

    assert (survivor.id, survivor.name, survivor.phone) == (old.visitor_id, "Ann", "+4930123456")


async def test_case_9_both_keys_on_one_row_are_one_merge(analytics: Analytics) -> None:
    """9: external id and address that lead to one row merge it once."""
    first, second = [await does(analytics, anonymous_id=b) for b in ("a", "b")]
    await analytics.identify(first.visitor_id, external_id="ann", email="ann@shop.test")
    await analytics.identify(second.visitor_id, external_id="ann", email="ann@shop.test")

    assert await count(analytics, "merges") == 1


async def test_case_9_both_keys_on_two_rows_are_two_merges_at_once(analytics: Analytics) -> None:
    """9: the id leads to one, the address to another. The original ignores the second and ends with two holders of one address."""
    a, b, c = [await does(analytics, anonymous_id=name) for name in ("a", "b", "c")]
    await analytics.identify(a.visitor_id, external_id="ann")
    await analytics.identify(c.visitor_id, email="ann@shop.test")
    merged = await analytics.identify(b.visitor_id, external_id="ann", email="ann@shop.test")

    assert {(await person(analytics, one.visitor_id)).id for one in (a, b, c)} == {merged.id}
    assert await count(analytics, "merges") == 2


async def test_case_10_a_chain_keeps_one_id_throughout(analytics: Analytics) -> None:
    """10: browser, then a fingerprint, then identify: one id all along, and the external id leads to all of it."""
    steps = [
        await does(analytics, anonymous_id="a"),
        await does(analytics, anonymous_id="a", fingerprint="f"),
        await says(analytics, anonymous_id="a", external_id="ann"),
    ]
    found = await analytics.visitors.by_external_id("ann")
    assert found is not None
    why = await analytics.visitors.why(found)

    assert {step.visitor_id for step in steps} == {found.id}
    assert {one["kind"] for one in why.identities} == {"anonymous_id", "fingerprint", "external_id"}


async def test_case_11_the_survivors_timeline_shows_both_visitors_events(analytics: Analytics) -> None:
    """11: two visitors with events, identified with one external id, are one timeline."""
    for browser in ("a", "b"):
        await does(analytics, anonymous_id=browser, url=f"https://shop.test/{browser}")
    for browser in ("a", "b"):
        await says(analytics, anonymous_id=browser, external_id="ann")
    found = await analytics.visitors.by_external_id("ann")
    paths = [entry.path for entry in (await analytics.visitors.timeline(found)).items]

    assert [path for path in paths if path] == ["/b", "/a"]


# Visitors ----------------------------------------------------------------------------------------------------------------


async def test_case_12_what_is_asked_of_nobody(analytics: Analytics) -> None:
    """12: an unknown id is `None`, or `NotFound` where there is something to do; a timeline is newest first."""
    nobody = uuid.uuid4()
    seen = await does(analytics, anonymous_id="a", url="https://shop.test/1")
    await does(analytics, anonymous_id="a", url="https://shop.test/2")

    assert await analytics.visitors.get(nobody) is None
    assert await analytics.visitors.by_external_id("nobody") is None
    for asked in (
        analytics.visitors.attribution(nobody),
        analytics.identify(nobody, name="x"),
        analytics.track(nobody, "x"),
    ):
        with pytest.raises(NotFound):
            await asked
    timeline = await analytics.visitors.timeline(seen.visitor_id)
    assert [entry.path for entry in timeline.items] == ["/2", "/1"]


async def test_case_13_two_first_hits_at_once_are_one_visitor_with_one_place(analytics: Analytics) -> None:
    """13: first wins, also when two write at once. The original makes two visitors of them."""
    hits = [
        a_hit(analytics, anonymous_id="a", client=Client(country=country, user_agent="x"))
        for country in ("DE", "FR")
    ]
    outcomes = await asyncio.gather(*(analytics.ingest.now([hit]) for hit in hits))

    assert len({outcome.visitor_id for (outcome,) in outcomes}) == 1
    assert (await who(analytics, "a")).geo["country"] in ("DE", "FR")
    assert (await who(analytics, "a")).total_pageviews == 2


async def test_case_14_forgetting_leaves_nothing_and_an_unknown_one_is_not_found(
    analytics: Analytics,
) -> None:
    """14: the original empties some fields. Ours deletes all rows, and the cookie brings nobody back."""
    seen = await does(analytics, anonymous_id="a", fingerprint="f")
    await says(analytics, anonymous_id="a", external_id="ann", email="ann@shop.test", phone="+4930123456")
    await analytics.visitors.forget(seen.visitor_id, reason="asked to be")
    with pytest.raises(NotFound):
        await analytics.visitors.forget(seen.visitor_id, reason="again")
    later = await does(analytics, anonymous_id="a")

    assert later.status == "dropped"
    tables = ("visitors", "events", "sessions", "identities", "merges", "conflicts")
    assert [await count(analytics, name) for name in tables] == [0] * 6


async def test_case_14_a_strangers_same_fingerprint_outlives_the_erasure(analytics: Analytics) -> None:
    """14: what many people share is not refused when one of them is erased."""
    gone = await does(analytics, anonymous_id="gone", fingerprint="f")
    await analytics.visitors.forget(gone.visitor_id, reason="asked to be")

    assert (await does(analytics, anonymous_id="other", fingerprint="f")).status == "recorded"


# Absences that the original's tests tell by being silent (52) ----------------------------------------------------------------


async def test_case_52_what_is_stored_after_a_merge_is_what_was_answered(analytics: Analytics) -> None:
    """52: the original answers a merge that it does not store. Ours is read again from the database, through every door."""
    seen = [await does(analytics, anonymous_id=b) for b in ("a", "b")]
    answered = await analytics.visitors.merge(*(one.visitor_id for one in seen), reason="test")

    assert await person(analytics, answered.id) == answered
    assert [v.id for v in (await analytics.visitors.list()).items if v.id == answered.id] == [answered.id]


# What goes wrong in practice ---------------------------------------------------------------------------------------------

CONSTANTS = [
    "null", "NULL", "None", "none", "NaN", "0", "000-000", "-1", "undefined", "true", "false", "anonymous", "Guest", "distinct_id",
    "distinctid", "id", "email", "not_authenticated", "[object Object]", "void", "abc123", "unknown", "user", "{{user_id}}",
    "${userId}", "00000000-0000-0000-0000-000000000000", " ",
]  # fmt: skip


@pytest.mark.parametrize("constant", CONSTANTS)
async def test_practice_mega_profiles_from_constants(analytics: Analytics, constant: str) -> None:
    """Rule 4: a value that programs send for "nobody" joins nobody, as external id, address, number or cookie."""
    people = []
    for browser in ("a", "b"):
        await does(analytics, anonymous_id=browser)
        said = {"external_id": constant, "email": constant, "phone": constant}
        people.append((await says(analytics, anonymous_id=browser, **said)).visitor_id)
    cookies = [(await does(analytics, anonymous_id=constant)).visitor_id for _ in range(2)]

    assert len({*people, *cookies}) == 4


async def test_practice_shared_device_chains(analytics: Analytics) -> None:
    """A–device–B–device–C: rule 5. Nobody merges; the device follows who signs in, and what was done before stays."""
    whose = []
    for name in ("ann", "bob", "eve"):
        await says(analytics, anonymous_id="tablet", external_id=name)
        whose.append(
            (await does(analytics, anonymous_id="tablet", url=f"https://shop.test/{name}")).visitor_id
        )

    people = [(await analytics.visitors.by_external_id(name)).id for name in ("ann", "bob", "eve")]
    assert whose == people
    assert len(set(people)) == 3
    for one, name in zip(people, ("ann", "bob", "eve"), strict=True):
        paths = {entry.path for entry in (await analytics.visitors.timeline(one)).items} - {None}
        assert paths == {f"/{name}"}


async def test_practice_a_kiosk_is_quarantined_by_itself(analytics: Analytics) -> None:
    """Rule 4: a device on which many people sign in within a day proves nothing any more, and belongs to none of them."""
    for number in range(4):
        await says(analytics, anonymous_id="kiosk", external_id=f"guest {number}")
    later = await does(analytics, anonymous_id="kiosk")
    people = {(await analytics.visitors.by_external_id(f"guest {n}")).id for n in range(4)}
    signing_in = await says(analytics, anonymous_id="kiosk", external_id="guest 9")

    assert len(people) == 4
    assert later.visitor_id not in people
    assert signing_in.visitor_id not in {*people, later.visitor_id}


async def test_practice_log_in_as_user_by_support_staff(analytics: Analytics) -> None:
    """Support signs in as a customer on its own machine and then as itself again: nobody merges, nothing moves over."""
    for name in ("support", "customer", "support"):
        await says(analytics, anonymous_id="desk", external_id=name)
        await does(analytics, anonymous_id="desk", url=f"https://shop.test/as-{name}")
    support, customer = [await analytics.visitors.by_external_id(n) for n in ("support", "customer")]

    assert support.id != customer.id
    assert (support.total_pageviews, customer.total_pageviews) == (2, 1)
    assert "two external ids" in await reasons(analytics, support.id)


async def test_practice_ids_that_differ_by_case_or_type(analytics: Analytics) -> None:
    """`456`, `user-456` and `User-456` are three ids: only the host knows better. An address is the same in any case."""
    people = [
        (await says(analytics, external_id=name)).visitor_id for name in ("456", "user-456", "User-456")
    ]
    addresses = [
        (await says(analytics, email=email)).visitor_id for email in ("Ann@Shop.test", "ann@shop.TEST ")
    ]

    assert (len(set(people)), len(set(addresses))) == (3, 1)


async def test_practice_identify_called_too_late(analytics: Analytics) -> None:
    """The first touch sat on a browser that was only named days later: the person's first touch is still that one."""
    await does(analytics, anonymous_id="phone", referrer=GOOGLE)
    analytics.config.clock.advance(timedelta(days=3))
    await does(analytics, anonymous_id="laptop", referrer=FACEBOOK)
    await says(analytics, anonymous_id="laptop", external_id="ann")
    analytics.config.clock.advance(timedelta(days=3))
    await says(analytics, anonymous_id="phone", external_id="ann")
    ann = await analytics.visitors.by_external_id("ann")

    assert (ann.first_source["platform"], ann.last_source["platform"]) == ("google", "facebook")
    touches = (await analytics.visitors.attribution(ann)).attribution_path
    assert [touch.source["platform"] for touch in touches] == ["google", "facebook"]


async def test_practice_merge_storms_on_one_hot_person(analytics: Analytics) -> None:
    """Rule 3: beyond the cap of a day nothing more is joined without the host's own word, and a conflict tells."""
    for number in range(8):
        await does(analytics, anonymous_id=f"browser {number}")
        await says(analytics, anonymous_id=f"browser {number}", email="all@shop.test")
    persons = {(await who(analytics, f"browser {number}")).id for number in range(8)}

    assert await count(analytics, "merges") == 5
    assert len(persons) == 3
    assert "6 merges in a day would be too many" in await reasons(
        analytics, (await who(analytics, "browser 0")).id
    )


async def test_practice_the_cap_ends_with_the_day_and_the_host_may_go_on(analytics: Analytics) -> None:
    """What a cap holds back is not lost: the host joins it at once, and the same evidence does the next day."""
    for number in range(7):
        await does(analytics, anonymous_id=f"b{number}")
        await says(analytics, anonymous_id=f"b{number}", email="all@shop.test")
    hot, apart = await who(analytics, "b0"), await who(analytics, "b6")
    assert hot.id != apart.id
    analytics.config.clock.advance(timedelta(days=1, minutes=1))
    await says(analytics, anonymous_id="b6", email="all@shop.test")

    assert (await who(analytics, "b6")).id == hot.id


async def test_practice_unmerge_that_corrupts(analytics: Analytics) -> None:
    """Rule 7: after an unmerge both read as if the merge had never been, with what came since on its own browser."""
    a, b = [
        (await does(analytics, anonymous_id=n, referrer=r)).visitor_id
        for n, r in (("a", GOOGLE), ("b", FACEBOOK))
    ]
    before = [await person(analytics, one) for one in (a, b)]
    await analytics.visitors.merge(a, b, reason="mistake")
    (merge,) = (await analytics.visitors.why(a)).merges
    await analytics.visitors.unmerge(merge["id"], reason="taken back")
    assert [await person(analytics, one) for one in (a, b)] == before


async def test_practice_two_identified_people_are_joined_by_force_only(analytics: Analytics) -> None:
    """Rule 6: two external ids are two people to every piece of evidence; only an audited `force=True` joins them."""
    ann, bob = [
        (await says(analytics, external_id=n, email="family@shop.test")).visitor_id for n in ("ann", "bob")
    ]
    assert ann != bob
    with pytest.raises(Conflict):
        await analytics.visitors.merge(ann, bob, reason="same")
    await analytics.visitors.merge(ann, bob, reason="one customer, two accounts", actor="ada", force=True)
    (merge,) = (await analytics.visitors.why(bob)).merges

    assert (merge["actor"], merge["reason"]) == ("ada", "one customer, two accounts")


async def test_practice_a_forwarded_click_is_its_source_and_not_its_person(analytics: Analytics) -> None:
    """Rule 2: a click bridges once. Whoever opens the address later has the source and stays a person of their own."""
    click = await clicked(analytics)
    first = await does(analytics, anonymous_id="first", click_id=click)
    second = await does(analytics, anonymous_id="second", click_id=click)

    assert first.visitor_id != second.visitor_id
    assert (await person(analytics, second.visitor_id)).first_source["platform"] == "newsletter"


async def test_practice_a_dry_run_says_what_would_happen(analytics: Analytics) -> None:
    """Rule 9: the decision is told and nothing of it is written."""
    old = await does(analytics, anonymous_id="old")
    await analytics.identify(old.visitor_id, external_id="ann")
    young = await does(analytics, anonymous_id="young")
    told = await analytics.identify(young.visitor_id, external_id="ann", dry_run=True)

    assert (told.decision, told.visitor.id, told.joined) == ("merge", old.visitor_id, (young.visitor_id,))
    assert (await person(analytics, young.visitor_id)).id == young.visitor_id


async def test_practice_addresses_beyond_the_cap_are_no_evidence(analytics: Analytics) -> None:
    """Rule 3: one address too many is demoted, not bound, and a conflict is kept."""
    for number in range(4):
        ann = await says(analytics, external_id="ann", email=f"ann{number}@shop.test")
    stranger = await says(analytics, external_id="bob", email="ann3@shop.test")
    why = await analytics.visitors.why(ann.visitor_id)

    assert [one["value"] for one in why.identities if one["kind"] == "email"] == [
        f"ann{n}@shop.test" for n in range(3)
    ]
    assert any("one more is no evidence" in reason for reason in await reasons(analytics, ann.visitor_id))
    assert stranger.visitor_id != ann.visitor_id


# Complaints (links-and-attribution.md, section 3, identity) ----------------------------------------------------------------


async def test_issue_33_identify_null_makes_no_mega_user(analytics: Analytics) -> None:
    """33: `identify(null)` by many browsers leaves each its own."""
    people = set()
    for number in range(5):
        await does(analytics, anonymous_id=f"b{number}")
        people.add((await says(analytics, anonymous_id=f"b{number}", external_id="null")).visitor_id)

    assert len(people) == 5


async def test_issue_34_two_users_on_one_device_can_be_told_apart_again(analytics: Analytics) -> None:
    """34: what the host merged by mistake is taken apart, and the shared device does not join them again."""
    ann = await says(analytics, anonymous_id="shared", external_id="ann")
    bob = await says(analytics, anonymous_id="shared", external_id="bob")
    await analytics.visitors.merge(ann.visitor_id, bob.visitor_id, reason="mistake", force=True)
    (merge,) = (await analytics.visitors.why(ann.visitor_id)).merges
    await analytics.visitors.unmerge(merge["id"], reason="two people")
    for name in ("ann", "bob", "ann"):
        await says(analytics, anonymous_id="shared", external_id=name)
    found = [await analytics.visitors.by_external_id(name) for name in ("ann", "bob")]

    assert [one.id for one in found] == [ann.visitor_id, bob.visitor_id]


async def test_issue_35_a_part_of_a_person_is_split_off(analytics: Analytics) -> None:
    """35: of three browsers one is split off by its own merge; the other two stay one, and nobody's properties go blank."""
    a, b, c = [(await does(analytics, anonymous_id=n)).visitor_id for n in "abc"]
    await analytics.identify(a, name="Ann", external_id="ann")
    await analytics.visitors.merge(a, b, reason="same")
    await analytics.visitors.merge(a, c, reason="mistake")
    merges = (await analytics.visitors.why(a)).merges
    await analytics.visitors.unmerge(next(m["id"] for m in merges if m["reason"] == "mistake"), reason="no")

    assert [(await person(analytics, one)).id for one in (a, b, c)] == [a, a, c]
    assert ((await person(analytics, a)).name, (await person(analytics, c)).name) == ("Ann", None)


async def test_issue_35_the_row_that_began_a_person_can_be_split_off_too(analytics: Analytics) -> None:
    """35: the creator's id is no exception: the younger keeps its own name and values, and names itself."""
    a, b = [(await does(analytics, anonymous_id=n)).visitor_id for n in "ab"]
    await analytics.identify(b, name="Bea", external_id="bea")
    await analytics.visitors.merge(a, b, reason="mistake")
    (merge,) = (await analytics.visitors.why(b)).merges
    await analytics.visitors.unmerge(merge["id"], reason="no")

    assert ((await person(analytics, a)).name, (await person(analytics, b)).name) == (None, "Bea")
    assert (await analytics.visitors.by_external_id("bea")).id == b


async def test_issue_37_merges_at_once_leave_one_person_and_no_error(analytics: Analytics) -> None:
    """37: forty browsers of one person are named at once, in any interleaving: one person, one row a browser."""
    own = dataclasses.replace(
        analytics.config, identity=IdentityRules(merges_per_day=99), workspace=uuid.uuid4()
    )
    async with Analytics(analytics.database.engine, own) as at_once:
        hits = [a_hit(at_once, anonymous_id=f"b{n}") for n in range(40)]
        await at_once.ingest.now(hits)
        named = [
            a_hit(at_once, EventType.IDENTIFY, anonymous_id=f"b{n}", external_id="ann", origin="server", trusted=True)
            for n in range(40)
        ]  # fmt: skip
        await asyncio.gather(*(at_once.ingest.now([hit]) for hit in named))
        people = {(await at_once.resolve({"anonymous_id": f"b{n}"})).id for n in range(40)}

        assert len(people) == 1
        assert await count(at_once, "visitors") == 40


async def test_issue_37_hosts_that_merge_at_once_all_get_through(analytics: Analytics) -> None:
    """37: thirty merges into one person by the host's own hand, all at once: thirty rows of the ledger, one person."""
    rows = [
        outcome.visitor_id
        for outcome in await analytics.ingest.now([a_hit(analytics, anonymous_id=f"b{n}") for n in range(31)])
    ]
    await asyncio.gather(
        *(analytics.visitors.merge(rows[0], other, reason="all at once") for other in rows[1:])
    )

    assert {(await person(analytics, row)).id for row in rows} == {rows[0]}
    assert await count(analytics, "merges") == 30
