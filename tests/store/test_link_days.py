"""
The roll-up of links by day says what events say: whatever comes late, and whoever turns out to be whom.

Three ways to the same figures are compared: a count in Python over all rows, `by_day` without any roll-up, and `by_day` with it.
That the roll-up is used at all is shown by taking the events away.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, func, insert, select

from goodanalytics import Analytics, Config
from goodanalytics.core.hits import Client, EventType, Hit, Signals
from goodanalytics.core.links import Link
from goodanalytics.core.reclassify import Changes
from goodanalytics.store import link_days
from goodanalytics.store.database import Database
from goodanalytics.store.link_days import LinkDay, by_day, roll_up
from goodanalytics.store.reclassify import reclassify, write
from goodanalytics.upkeep import Upkeep
from tests.store.conftest import WORKSPACE, Seed, at

SINCE, UNTIL = at("2026-10-20"), at("2026-11-20")
GOOGLE = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"


async def told(
    database: Database,
    ids: list[UUID],
    since: datetime = SINCE,
    until: datetime = UNTIL,
    workspace: UUID = WORKSPACE,
) -> list[LinkDay]:
    async with database.connect() as conn:
        return await by_day(conn, database.tables, workspace, ids, since, until)


async def plain(database: Database, ids: list[UUID], workspace: UUID = WORKSPACE) -> list[LinkDay]:
    """What events alone say: as if nothing had ever been rolled up."""
    t = database.tables
    async with database.trying(None) as conn:
        for table in (t.link_days, t.link_days_closed):
            await conn.execute(delete(table))
        return await by_day(conn, t, workspace, ids, SINCE, UNTIL)


async def rows(database: Database, name: str, *where: Any) -> int:
    query = select(func.count()).select_from(getattr(database.tables, name)).where(*where)
    async with database.connect() as conn:
        return (await conn.execute(query)).scalar_one()


def counted(
    events: list[dict[str, Any]], person: dict[UUID, UUID], since: datetime, until: datetime
) -> list[LinkDay]:
    """The figures, counted one by one."""
    found: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["link_id"] is not None and since <= event["occurred_at"] < until:
            found[event["occurred_at"].astimezone(UTC).date(), event["link_id"]].append(event)
    result = []
    for (day, link_id), of_day in sorted(found.items()):
        of_day = [e for e in of_day if e["event_type"] in ("link_click", "lead", "sale", "refund")]
        clicks = [e for e in of_day if e["event_type"] == "link_click" and e["bot"] is None]
        others = [e for e in of_day if e["event_type"] == "link_click" and e["bot"] is not None]
        previews = [
            e for e in others if e["bot"].startswith("preview:") or e["bot"] in ("prefetch", "HEAD request")
        ]
        true = [e for e in of_day if e["trusted"] and e["bot"] is None]
        revenue: dict[str, int] = defaultdict(int)
        for event in true:
            if event["event_type"] in ("sale", "refund") and event.get("amount_cents") is not None:
                sign = -1 if event["event_type"] == "refund" else 1
                revenue[event["currency"]] += sign * event["amount_cents"]
        if of_day:
            result.append(
                LinkDay(
                    link_id=link_id, day=day, clicks=len(clicks),
                    unique_clicks=len({person.get(e["visitor_id"], e["visitor_id"]) for e in clicks}),
                    qr_scans=sum(bool(e["properties"].get("qr")) for e in clicks),
                    bots=len(others) - len(previews), previews=len(previews),
                    leads=sum(e["event_type"] == "lead" for e in true), sales=sum(e["event_type"] == "sale" for e in true),
                    revenue=dict(revenue),
                )
            )  # fmt: skip
    return result


@pytest.fixture
async def history(seed: Seed) -> tuple[list[dict[str, Any]], dict[UUID, UUID]]:
    """A thousand events of three weeks on five links, by thirty visitors of whom some are one; and who is who."""
    dice = Random(5)
    person = {}
    for number in range(1, 31):
        of = dice.choice([number, number, max(1, number - 1)])
        canonical = person.get(UUID(int=of), UUID(int=of)) if of != number else UUID(int=number)
        person[UUID(int=number)] = canonical
        await seed.visitor(number, of=canonical.int)
    for number in range(100, 105):
        await seed.link(number, f"k{number}", created_at=at("2026-10-26"))
    events = []
    for number in range(1_000):
        kind = dice.choice(["link_click"] * 5 + ["lead", "sale", "refund", "pageview"])
        events.append(
            {
                "workspace_id": WORKSPACE, "id": UUID(int=10_000 + number), "visitor_id": UUID(int=dice.randint(1, 32)),
                "occurred_at": at("2026-10-25") + timedelta(seconds=dice.randrange(21 * 86_400)),
                "received_at": at("2026-11-15"), "event_type": kind, "origin": "link",
                "trusted": dice.random() < 0.8, "source": "direct", "medium": "direct", "channel": "direct",
                "link_id": dice.choice([None, *(UUID(int=n) for n in range(100, 105))]),
                "bot": dice.choice([None] * 4 + ["crawler: Googlebot", "preview: Slackbot", "prefetch", "HEAD request"]),
                "amount_cents": dice.choice([None, 100, 4900, 1]) if kind in ("sale", "refund") else None,
                "currency": dice.choice(["EUR", "USD"]), "properties": dice.choice([{}, {"qr": True}, {"qr": False}]),
            }
        )  # fmt: skip
    async with seed.database.begin() as conn:
        await conn.execute(insert(seed.database.tables.events), events)
    return events, person


IDS = [UUID(int=n) for n in range(100, 105)]


@pytest.mark.parametrize(
    ("since", "until"),
    [
        pytest.param(SINCE, UNTIL, id="whole days"),
        pytest.param(at("2026-10-30 13:37"), at("2026-11-12 04:05:06"), id="parts of days at both ends"),
        pytest.param(at("2026-11-02 05:00+05:30"), at("2026-11-02 20:00+05:30"), id="a part of two days"),
        pytest.param(at("2026-11-03 10:00"), at("2026-11-03 11:00"), id="an hour"),
    ],
)
async def test_roll_up_events_and_a_count_by_hand_agree(history, database, since, until):
    """Before and after days are closed, for links that were used before they were made as well."""
    events, person = history
    expected = counted(events, person, since, until)
    before = await told(database, IDS, since, until)
    days = await roll_up(database, at("2026-11-12 09:00"))
    after = await told(database, IDS, since, until)

    assert before == expected
    assert after == expected
    assert days == 17  # from 26 October, when the first link was made, to 11 November


async def test_closed_days_are_not_counted_from_events(history, database):
    """With the events gone, their figures are still there, and nothing else is."""
    events, person = history
    await roll_up(database, at("2026-11-12 09:00"))
    async with database.begin() as conn:
        await conn.execute(delete(database.tables.events))

    assert await told(database, IDS) == counted(events, person, at("2026-10-26"), at("2026-11-12"))


@pytest.mark.parametrize(
    ("now", "last"),
    [
        ("2026-11-12 05:59", "2026-11-10"),
        ("2026-11-12 06:00", "2026-11-11"),
        ("2026-11-13 05:59", "2026-11-11"),
    ],
)
async def test_a_day_is_closed_six_hours_after_its_end(history, database, now, last):
    """Transactions and clocks that lag behind have that long."""
    await roll_up(database, at(now))
    async with database.connect() as conn:
        found = (await conn.execute(select(func.max(database.tables.link_days_closed.c.day)))).scalar_one()

    assert found.isoformat() == last


async def test_it_goes_on_where_it_left_off_and_does_nothing_twice(history, database):
    """The second run of a day finds nothing to do; the next day has one."""
    first = await roll_up(database, at("2026-11-12 09:00"))
    second = await roll_up(database, at("2026-11-12 21:00"))
    third = await roll_up(database, at("2026-11-13 09:00"))

    assert (first, second, third) == (17, 0, 1)


async def test_upkeep_counts(history, database, config, clock):
    """The loop of every process does it by its own clock."""
    clock.now = at("2026-11-12 09:00")
    found = [await Upkeep(config, database).count() for _ in range(2)]

    assert found == [17, 0]


async def test_only_one_process_counts_at_a_time(history, database):
    """Whoever finds another one counting leaves it to that one."""
    async with database.begin() as conn:
        assert await link_days._is_alone(conn, database.tables)
        meanwhile = await roll_up(database, at("2026-11-12 09:00"))

    assert (meanwhile, await roll_up(database, at("2026-11-12 09:00"))) == (0, 17)


async def test_many_days_are_counted_in_parts(history, database, monkeypatch):
    """Whatever the parts, the figures are the same."""
    events, person = history
    monkeypatch.setattr(link_days, "DAYS_AT_ONCE", 2)
    await roll_up(database, at("2026-11-20 09:00"))

    assert await told(database, IDS) == counted(events, person, SINCE, UNTIL)


async def test_workspaces_without_links_and_others_are_left_alone(history, seed, database):
    """Each workspace has days of its own."""
    other = UUID(int=8)
    await seed.link(200, "theirs", workspace_id=other, created_at=at("2026-11-10"))
    await roll_up(database, at("2026-11-12 09:00"))

    assert await told(database, [UUID(int=200)], workspace=other) == []
    assert await told(database, IDS, workspace=other) == []


# What changes afterwards ---------------------------------------------------------------------------------------------


@pytest.fixture
async def running(database_url: str, config: Config) -> AsyncIterator[Analytics]:
    async with Analytics(database_url, dataclasses.replace(config, worker=False)) as analytics:
        yield analytics


@pytest.fixture
async def link(running: Analytics) -> Link:
    return await running.links.create(url="https://shop.example/", domain="go.example", key="a")


class Story:
    """Two browsers that click on one link, and ways to change what is known of them."""

    def __init__(self, running: Analytics, link: Link) -> None:
        self.running, self.link = running, link
        self.clock = running.config.clock

    async def click(self, browser: str, occurred: datetime | None = None, user_agent: str = CHROME) -> UUID:
        now, click_id = self.clock.advance(timedelta(seconds=1)), self.running.config.new_id()
        hit = Hit(
            id=click_id, workspace_id=self.running.config.workspace, received_at=now, occurred_at=occurred or now,
            event_type=EventType.LINK_CLICK, origin="link", url=self.link.url, link_id=self.link.id,
            signals=Signals(anonymous_id=browser, click_id=click_id), client=Client(user_agent=user_agent, bot_version=1),
        )  # fmt: skip
        (outcome,) = await self.running.ingest.now([hit])
        return outcome.visitor_id

    async def days(self) -> list[tuple[str, int, int]]:
        """Day, clicks and unique clicks; the same with and without the roll-up."""
        found = await told(self.running.database, [self.link.id], workspace=self.running.config.workspace)
        assert found == await plain(self.running.database, [self.link.id], self.running.config.workspace)
        return [(day.day.isoformat(), day.clicks, day.unique_clicks) for day in found]

    async def close(self) -> list[tuple[str, int, int]]:
        """The same after the days were counted, anew where they were touched."""
        await roll_up(self.running.database, self.clock())
        over = self.running.database.tables.link_days_touched.c.day < self.clock().date()
        assert await rows(self.running.database, "link_days_touched", over) == 0
        assert await rows(self.running.database, "link_days") > 0
        return await self.days()


@pytest.fixture
async def story(running: Analytics, link: Link) -> Story:
    """Both browsers clicked on the first of November, which is closed now."""
    story = Story(running, link)
    for browser in ("one", "two", "one"):
        await story.click(browser)
    story.clock.advance(timedelta(days=2))
    assert await story.close() == [("2026-11-01", 3, 2)]
    return story


async def test_a_late_event_counts_at_once(story):
    """It marks its day, which is read from events until it is counted anew."""
    await story.click("three", at("2026-11-01 15:00"))
    touched = await rows(story.running.database, "link_days_touched")

    assert (await story.days(), touched) == ([("2026-11-01", 4, 3)], 1)
    assert await story.close() == [("2026-11-01", 4, 3)]


async def test_an_event_before_the_links_time_counts(story):
    """An imported history reaches back further than the roll-up."""
    await story.click("three", at("2026-10-22 15:00"))

    assert await story.days() == [("2026-10-22", 1, 1), ("2026-11-01", 3, 2)]
    assert await story.close() == [("2026-10-22", 1, 1), ("2026-11-01", 3, 2)]


async def test_an_event_of_today_marks_nothing(story):
    """Most batches write nothing more than they did."""
    await story.click("three")

    assert await rows(story.running.database, "link_days_touched") == 0
    assert await story.days() == [("2026-11-01", 3, 2), ("2026-11-03", 1, 1)]


async def test_a_merge_and_its_undoing_count_people_anew(story):
    """By the host's hand: two people become one and two again, on a day long closed."""
    visitors = story.running.visitors
    one, two = await story.click("one"), await story.click("two")
    await visitors.merge(one, two, reason="the same person")
    merged = await story.days(), await story.close()
    (merge,) = (await visitors.why(one)).merges
    await visitors.unmerge(merge["id"], reason="not the same")
    apart = await story.days(), await story.close()

    assert merged == ([("2026-11-01", 3, 1), ("2026-11-03", 2, 1)],) * 2
    assert apart == ([("2026-11-01", 3, 2), ("2026-11-03", 2, 2)],) * 2


async def test_a_merge_by_evidence_counts_people_anew(story):
    """Two browsers sign in as one person."""
    for browser in ("one", "two"):
        visitor = await story.running.resolve({"anonymous_id": browser})
        await story.running.identify(visitor, external_id="u1")

    assert await story.days() == [("2026-11-01", 3, 1)]
    assert await story.close() == [("2026-11-01", 3, 1)]


async def test_an_erased_person_does_not_count(story):
    """Their clicks are gone, also from days long closed."""
    await story.running.visitors.forget(await story.click("one"), reason="asked")

    assert await story.days() == [("2026-11-01", 1, 1)]
    assert await story.close() == [("2026-11-01", 1, 1)]


async def test_the_last_click_of_a_day_can_go(story):
    """A day that has become empty leaves no figures behind."""
    for browser in ("one", "two"):
        visitor = await story.running.resolve({"anonymous_id": browser})
        await story.running.visitors.forget(visitor, reason="asked")
    await roll_up(story.running.database, story.clock())

    assert (await story.days(), await rows(story.running.database, "link_days")) == ([], 0)


async def test_a_verdict_that_changes_counts_anew(story):
    """What today's rules call a bot was a person's click when the day was closed."""
    await story.click("three", at("2026-11-01 15:00"), GOOGLE)
    await story.close()
    async for _ in reclassify(story.running.database, story.running.config):
        pass
    found = await told(story.running.database, [story.link.id], workspace=story.running.config.workspace)

    assert [(day.clicks, day.unique_clicks, day.bots) for day in found] == [(3, 2, 1)]
    assert await story.close() == [("2026-11-01", 3, 2)]


async def test_an_event_that_changes_its_link_is_counted_on_both(seed, database):
    """A verdict can give a visit to another link; neither link keeps the figures of before."""
    for number in (100, 101):
        await seed.link(number, f"k{number}")
    await seed.visitor(1)
    event = await seed.event(1, "2026-11-02", "lead", link=100)
    await roll_up(database, at("2026-11-05"))
    async with database.begin() as conn:
        (row,) = (await conn.execute(select(database.tables.events))).mappings()
        moved = Changes(events=[{**row, "link_id": UUID(int=101)}])
        await write(conn, database.tables, WORKSPACE, moved)
    at_once = await told(database, [UUID(int=100), UUID(int=101)])
    await roll_up(database, at("2026-11-05"))

    assert event == row["id"]
    assert [(day.link_id.int, day.leads) for day in at_once] == [(101, 1)]
    assert await told(database, [UUID(int=100), UUID(int=101)]) == at_once


async def test_a_sale_of_yesterday_reaches_its_link(story):
    """A sale in a visit that a click began carries the link; reported late it counts on its own day."""
    story.clock.now = at("2026-11-05 10:00")
    visitor = await story.click("buyer")
    page = Hit(
        id=story.running.config.new_id(), workspace_id=story.running.config.workspace, received_at=story.clock(),
        occurred_at=story.clock(), event_type=EventType.PAGEVIEW, origin="browser", url="https://shop.example/",
        signals=Signals(anonymous_id="buyer", click_id=(await story.running.visitors.get(visitor)).last_click_id),
    )  # fmt: skip
    await story.running.ingest.now([page])
    story.clock.advance(timedelta(days=2))
    await story.close()
    await story.running.sale(visitor, amount_cents=4900, currency="EUR", occurred_at=at("2026-11-05 10:05"))
    found = await told(story.running.database, [story.link.id], workspace=story.running.config.workspace)
    await story.close()
    after = await told(story.running.database, [story.link.id], workspace=story.running.config.workspace)

    assert [(d.day.day, d.clicks, d.sales, d.revenue) for d in found] == [
        (1, 3, 0, {}),
        (5, 1, 1, {"EUR": 4900}),
    ]
    assert after == found


async def test_late_events_and_counting_at_the_same_time_lose_nothing(story):
    """Thirty late clicks come while the days are counted again and again, by two processes."""
    stop = asyncio.Event()

    async def count() -> None:
        while not stop.is_set():
            await roll_up(story.running.database, story.clock())

    async def come() -> None:
        for n in range(30):
            await story.click(f"late {n % 7}", at("2026-11-01 16:00") + timedelta(minutes=n))
        stop.set()

    await asyncio.gather(count(), count(), come())

    assert await story.days() == [("2026-11-01", 33, 9)]
    assert await story.close() == [("2026-11-01", 33, 9)]
