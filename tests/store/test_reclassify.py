"""
Today's rules of what is a bot, laid over history.

Two workspaces see the same hits: one when the old rules held, and is reclassified; the other under the new rules from the
start. Afterwards no row of them differs.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from random import Random
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import func, select, text

from goodanalytics.core import bots, devices
from goodanalytics.core.bots import PERSON, Verdict
from goodanalytics.core.hits import Client, EventType, Hit, Signals
from goodanalytics.core.plan import derived_id
from goodanalytics.core.sources import Source
from goodanalytics.hooks import Hooks
from goodanalytics.ingest import Ingest
from goodanalytics.store import reclassify as subject
from goodanalytics.store.people import Stale, lock_persons
from goodanalytics.store.reclassify import Progress, reclassify
from goodanalytics.store.reports import metrics
from goodanalytics.store.reports.query import Query
from tests.conftest import START
from tests.store.conftest import statements

OLD, NEW, OTHER = UUID(int=1), UUID(int=2), UUID(int=3)
NEVER_IN_STEP = {"workspace_id", "bot_version"}

CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
SAFARI = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15"
FOUND_OUT = f"{CHROME} ShopWatch/2"  # a person to the old rules, a bot to the new ones
CLEARED = f"{SAFARI} TinyBot/1.0"  # the other way round
RENAMED = "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"
GOOGLE = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


def new_verdict(user_agent: str) -> Verdict:
    if "ShopWatch" in user_agent:
        return Verdict(bot=True, reasons=("monitoring: ShopWatch",), name="ShopWatch", category="monitoring")
    if "Slackbot" in user_agent:
        return Verdict(bot=True, reasons=("preview: Slack",), name="Slack", category="social-preview")
    return PERSON if "TinyBot" in user_agent else OLD_VERDICT(user_agent)


OLD_VERDICT = bots._verdict


@pytest.fixture
def new_rules(monkeypatch):
    """Call it, and the new rules hold."""

    def change() -> None:
        monkeypatch.setattr(bots, "_verdict", new_verdict)
        monkeypatch.setattr(bots, "VERSION", bots.VERSION + 1)
        devices._parse.cache_clear()

    yield change
    monkeypatch.undo()
    devices._parse.cache_clear()


@pytest.fixture
def ingest(config, database) -> Ingest:
    return Ingest(config, database, Hooks(config.report), None)


def client(user_agent: str) -> Client:
    """As the edge fills it in."""
    verdict = bots.judge(user_agent)
    return Client(
        user_agent=user_agent,
        country="DE",
        bot=verdict.reasons[0] if verdict.bot else None,
        bot_version=bots.VERSION,
    )


def hit(workspace_id: UUID, number: int, minute: float, user_agent: str | None, **values) -> Hit:
    """A pageview of a browser, unless *values* say otherwise; a server's word when it has no user agent."""
    at = START + timedelta(minutes=minute)
    defaults = {
        "event_type": EventType.PAGEVIEW,
        "origin": "browser" if user_agent else "server",
        "url": f"https://acme.test/{number % 7}",
        "client": client(user_agent) if user_agent else Client(),
        "occurred_at": at,
    }
    return Hit(
        id=derived_id(UUID(int=number), at, "test"),
        workspace_id=workspace_id,
        received_at=at,
        **(defaults | values),
    )


def browser(name: str) -> Signals:
    return Signals(anonymous_id=name)


def history(seed: int) -> Iterator[dict]:
    """What a few browsers did for some days: arguments of `hit`."""
    rng = Random(seed)
    minute = 0.0
    clicks: list[UUID] = []
    agents = {f"b{n}": rng.choice([CHROME, SAFARI, FOUND_OUT, CLEARED, RENAMED, GOOGLE]) for n in range(8)}
    for number in range(1, 220):
        minute += rng.choice([0.2, 1, 4, 11, 29, 45])
        name = rng.choice(list(agents))
        if rng.random() < 0.12:
            agents[name] = rng.choice([CHROME, FOUND_OUT, CLEARED])
        who = browser(name)
        what = rng.random()
        said = {"number": number, "minute": minute, "user_agent": agents[name], "signals": who}
        if what < 0.12:
            at = START + timedelta(minutes=minute)
            click_id = derived_id(UUID(int=number), at, "test")
            clicks.append(click_id)
            source = Source("newsletter", "email", "medium", campaign="spring").to_json()
            yield said | {
                "event_type": EventType.LINK_CLICK, "origin": "link", "source": source, "link_id": UUID(int=9),
                "signals": msgspec.structs.replace(who, click_id=click_id),
            }  # fmt: skip
        elif what < 0.24 and clicks:
            yield said | {"signals": msgspec.structs.replace(who, click_id=rng.choice(clicks[-3:]))}
        elif what < 0.28:  # the landing comes before its click, which lay in another shard
            later = START + timedelta(minutes=minute + 0.1)
            click_id = derived_id(UUID(int=1_000 + number), later, "test")
            source = Source("poster", "offline", "medium").to_json()
            who = msgspec.structs.replace(who, click_id=click_id)
            yield said | {"signals": who}
            yield said | {
                "number": 1_000 + number, "minute": minute + 0.1, "event_type": EventType.LINK_CLICK, "origin": "link",
                "source": source, "link_id": UUID(int=8), "signals": who,
            }  # fmt: skip
        elif what < 0.32:
            yield said | {"event_type": EventType.ENGAGEMENT, "engaged_ms": rng.randint(500, 9_000)}
        elif what < 0.40:
            yield said | {"event_type": EventType.CUSTOM, "name": "Played"}
        elif what < 0.46:
            signals = Signals(external_id=f"user-{rng.randint(1, 4)}", anonymous_id=name)
            yield said | {
                "event_type": EventType.IDENTIFY, "user_agent": None, "signals": signals, "trusted": True, "url": None,
            }  # fmt: skip
        elif what < 0.54:
            at = START + timedelta(minutes=minute - rng.choice([0, 0, 0.1, 20]))
            yield said | {
                "event_type": EventType.SALE, "user_agent": None, "trusted": True, "url": None, "occurred_at": at,
                "amount_cents": 1_000, "currency": "EUR", "signals": Signals(external_id=f"user-{rng.randint(1, 4)}"),
            }  # fmt: skip
        elif what < 0.66:
            yield said | {"url": f"https://acme.test/?utm_source=ads&utm_campaign=c{rng.randint(1, 2)}"}
        elif what < 0.76:
            yield said | {"referrer": rng.choice(["https://www.google.com/", "https://blog.example/post"])}
        else:
            yield said


async def play(ingest: Ingest, workspace_id: UUID, seed: int) -> None:
    hits = [hit(workspace_id, **said) for said in history(seed)]
    sizes = Random(seed)
    while hits:
        size = sizes.choice([1, 5, 40])
        outcomes = await ingest.now(hits[:size])
        assert {outcome.status for outcome in outcomes} == {"recorded"}
        hits = hits[size:]


async def run(database, config, **options) -> Progress:
    """Everything at once; how far it came."""
    return [progress async for progress in reclassify(database, config, **options)][-1]


async def rows(database, table: str, workspace_id: UUID) -> list[dict]:
    """A table's rows of one workspace, without what tells the workspaces apart."""
    found = getattr(database.tables, table)
    async with database.connect() as conn:
        read = await conn.execute(
            select(found).where(found.c.workspace_id == workspace_id).order_by(found.c.id)
        )
        return [{k: v for k, v in row.items() if k not in NEVER_IN_STEP} for row in read.mappings()]


def differences(one: list[dict], other: list[dict]) -> list[tuple]:
    """For reading: which member of which row is not the same."""
    found = [("rows", [r["id"] for r in one], [r["id"] for r in other])] if len(one) != len(other) else []
    for a, b in zip(one, other, strict=False):
        found += [(a["id"], name, a[name], b[name]) for name in a if a[name] != b[name]]
    return found


@pytest.mark.parametrize("seed", range(12))
async def test_history_is_what_the_new_rules_would_have_made_of_it(ingest, database, config, new_rules, seed):
    """Every row of events, visits and visitors is that of a workspace that knew the new rules from the start."""
    await play(ingest, OLD, seed)
    new_rules()
    await play(ingest, NEW, seed)
    before = [await rows(database, table, OLD) for table in ("events", "sessions", "visitors")]

    await run(database, config)

    after = [await rows(database, table, OLD) for table in ("events", "sessions", "visitors")]
    fresh = [await rows(database, table, NEW) for table in ("events", "sessions", "visitors")]
    assert [differences(a, b) for a, b in zip(after, fresh, strict=True)] == [[], [], []]
    assert all(a != b for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"metrics": ("visitors", "visits", "pageviews", "bounce_rate", "sales")}, id="totals"),
        pytest.param({"metrics": ("visitors", "visits"), "dimensions": ("source",)}, id="by source"),
        pytest.param({"metrics": ("pageviews",), "dimensions": ("browser",)}, id="by browser"),
    ],
)
async def test_the_reports_are_those_of_a_history_under_the_new_rules(
    ingest, database, config, new_rules, asked
):
    """What a user sees after reclassifying is what the new rules would have shown from the start."""
    await play(ingest, OLD, 1)
    new_rules()
    await play(ingest, NEW, 1)
    question = Query(period=(START - timedelta(days=1), START + timedelta(days=30)), **asked)

    async def answer(workspace_id: UUID) -> list:
        async with database.connect() as conn:
            return (await metrics.run(conn, database.tables, workspace_id, question)).rows

    before = await answer(OLD)

    await run(database, config)

    assert await answer(OLD) == await answer(NEW) != before


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 11])  # the last one needs it to be written
async def test_whoever_has_a_corrected_visit_has_a_corrected_row(ingest, database, config, new_rules, seed):
    """Whoever compares the versions of a person's rows sees that one of their visits is another, or is none (`store.known`)."""
    await play(ingest, OLD, seed)
    new_rules()
    visits, people = await versions(database, "sessions"), await versions(database, "visitors")

    await run(database, config)

    gone_on = await versions(database, "sessions")
    written = {
        key for key, version in (await versions(database, "visitors")).items() if people[key] != version
    }
    corrected = {key[0] for key, version in visits.items() if gone_on.get(key) != version}
    assert corrected
    assert corrected <= {key[0] for key in written}


async def versions(database, table: str) -> dict[tuple[UUID, UUID], int]:
    """The transaction that wrote each row of visitors or visits, by the person and the row's id."""
    t = database.tables
    rows = (
        f"{t.visitors} v"
        if table == "visitors"
        else f"{t.visitors} v JOIN {t.sessions} s ON s.visitor_id = v.id"
    )
    row = "v" if table == "visitors" else "s"
    async with database.connect() as conn:
        found = await conn.execute(
            text(f"SELECT v.canonical_id, {row}.id, {row}.xmin::text::int FROM {rows}")
        )
        return {(person, one): version for person, one, version in found}


async def test_a_second_run_changes_nothing(ingest, database, config, new_rules):
    """What has been corrected is no different any more."""
    await play(ingest, OLD, 2)
    new_rules()
    first = await run(database, config)

    second = await run(database, config)

    assert min(first.events, first.visits, first.people) > 0
    assert second == Progress(visitors=first.visitors, total=first.total)


async def test_rules_that_did_not_change_change_nothing(ingest, database, config):
    """Judging again by the same rules finds every verdict as it is."""
    await play(ingest, OLD, 3)

    progress = await run(database, config)

    assert (progress.events, progress.visits, progress.people) == (0, 0, 0)


async def test_a_run_that_was_stopped_is_taken_up_by_the_next(ingest, database, config, new_rules):
    """Each batch is committed when it is told of, and what is left is found again."""
    await play(ingest, OLD, 4)
    new_rules()
    await play(ingest, NEW, 4)
    stopped = reclassify(database, config, batch=1)
    async for progress in stopped:
        if progress.people:
            break
    await stopped.aclose()

    rest = await run(database, config, batch=1)

    assert progress.people > 0
    assert rest.people > 0
    assert await rows(database, "visitors", OLD) == await rows(database, "visitors", NEW)


async def test_progress_ends_at_the_total(ingest, database, config):
    """The bar reaches its end, also when the last batch is full."""
    await ingest.now([hit(OLD, n, n, CHROME, signals=browser(f"b{n}")) for n in range(6)])

    told = [progress async for progress in reclassify(database, config, batch=3)]

    assert [(p.visitors, p.total) for p in told] == [(0, 6), (3, 6), (6, 6), (6, 6)]


async def test_all_workspaces_are_gone_through(ingest, database, config, new_rules):
    """Nobody has to name them."""
    for workspace_id in (OLD, NEW, OTHER):
        await ingest.now([hit(workspace_id, 1, 1, FOUND_OUT, signals=browser("a"))])
    new_rules()

    progress = await run(database, config)

    assert (progress.visitors, progress.people) == (3, 3)


async def test_since_judges_only_what_happened_from_then_on(ingest, database, config, new_rules):
    """An earlier event keeps its verdict, and its visit with it."""
    late = 60 * 24
    await ingest.now([hit(OLD, n, at, FOUND_OUT, signals=browser("a")) for n, at in ((1, 0), (2, late))])
    new_rules()

    await run(database, config, since=START + timedelta(hours=1))

    events = sorted(await rows(database, "events", OLD), key=lambda event: event["occurred_at"])
    (visitor,) = await rows(database, "visitors", OLD)
    assert [event["bot"] for event in events] == [None, "monitoring: ShopWatch"]
    assert (visitor["bot"], visitor["total_pageviews"], visitor["total_sessions"]) == (None, 1, 1)


async def test_what_nobody_judged_is_not_judged_now(ingest, database, config, new_rules):
    """A host's own word has no user agent, and is no bot's for that."""
    await ingest.now([hit(OLD, 1, 1, None, signals=Signals(external_id="user-1"), trusted=True)])
    new_rules()

    progress = await run(database, config)

    (event,) = await rows(database, "events", OLD)
    assert (progress.events, event["bot"]) == (0, None)


async def test_the_version_is_that_of_the_rules_that_spoke(ingest, database, config, new_rules):
    """A verdict that changed carries today's version; one that stands keeps its own, and its row is not written."""
    await ingest.now([
        hit(OLD, 1, 1, FOUND_OUT, signals=browser("a")), hit(OLD, 2, 2, CHROME, signals=browser("b"))
    ])  # fmt: skip
    new_rules()

    await run(database, config)

    e = database.tables.events.c
    async with database.connect() as conn:
        found = await conn.execute(select(e.bot, e.bot_version).order_by(e.occurred_at))
    assert [tuple(row) for row in found] == [
        ("monitoring: ShopWatch", bots.VERSION),
        (None, bots.VERSION - 1),
    ]


async def test_what_was_deleted_since_still_counts(ingest, database, config, new_rules):
    """Counters keep what events of the past gave them, and only what the verdict touches is taken off."""
    visits = ((1, 0), (2, 1), (3, 60 * 24), (4, 60 * 24 + 1))
    agents = {1: CHROME, 2: CHROME, 3: FOUND_OUT, 4: FOUND_OUT}
    await ingest.now([hit(OLD, n, at, agents[n], signals=browser("a")) for n, at in visits])
    async with database.begin() as conn:
        e = database.tables.events
        await conn.execute(e.delete().where(e.c.occurred_at < START + timedelta(hours=1)))
    new_rules()

    await run(database, config)

    (visitor,) = await rows(database, "visitors", OLD)
    sessions = sorted(await rows(database, "sessions", OLD), key=lambda session: session["started_at"])
    assert (visitor["bot"], visitor["total_pageviews"], visitor["total_sessions"]) == (None, 2, 1)
    assert [(s["bot"], s["pageviews"]) for s in sessions] == [(None, 2), ("monitoring: ShopWatch", 2)]


async def test_a_visit_whose_beginning_was_deleted_is_corrected_in_place(ingest, database, config, new_rules):
    """The visit is known by its events, also when the hit that gave it its id is gone; it does not come twice."""
    await ingest.now([hit(OLD, n, n, FOUND_OUT, signals=browser("a")) for n in (1, 2, 3)])
    async with database.begin() as conn:
        e = database.tables.events
        await conn.execute(e.delete().where(e.c.occurred_at < START + timedelta(minutes=2)))
    (before,) = await rows(database, "sessions", OLD)
    new_rules()

    await run(database, config)

    assert await rows(database, "sessions", OLD) == [
        before | {"bot": "monitoring: ShopWatch", "device_type": "bot", "browser": "ShopWatch", "os": None}
    ]


async def test_a_visitor_that_is_merged_meanwhile_is_read_again(
    ingest, database, config, new_rules, monkeypatch
):
    """A lock that was waited for through a merge tells of a person that is no more."""
    await ingest.now([hit(OLD, 1, 1, FOUND_OUT, signals=browser("a"))])
    new_rules()
    lock, lost = lock_persons, iter([True, True])

    async def losing(*args):
        if next(lost, False):
            raise Stale
        return await lock(*args)

    monkeypatch.setattr(subject, "lock_persons", losing)

    progress = await run(database, config)

    assert progress.people == 1


async def test_a_batch_costs_the_same_number_of_statements_whatever_it_changes(
    ingest, database, config, new_rules
):
    """Set-based: ten people who turn out to be bots are written like one."""
    counts = []
    for workspace_id, people in ((OLD, 1), (NEW, 10)):
        await ingest.now(
            [hit(workspace_id, n, n, FOUND_OUT, signals=browser(f"b{n}")) for n in range(people)]
        )
    new_rules()
    async with statements(database) as said:
        async for _ in reclassify(database, config):
            await asyncio.sleep(0)  # the driver tells of a statement at the end of the loop's turn
            counts.append(len(said))
            said.clear()

    # The first tells only of the total; then each workspace has a batch that changes and one that finds the end.
    assert counts[1] == counts[3]


async def test_the_rest_of_the_settings_is_the_apps(ingest, database, config, new_rules):
    """Another time-out in the settings at hand than in those of the past changes nothing that no verdict touches."""
    await ingest.now([hit(OLD, n, 20 * n, CHROME, signals=browser("a")) for n in range(3)])
    await ingest.now([hit(OLD, 10 + n, 60 + n, FOUND_OUT, signals=browser("b")) for n in range(3)])
    before = await rows(database, "sessions", OLD)
    new_rules()
    other = dataclasses.replace(
        config, session=dataclasses.replace(config.session, timeout=timedelta(minutes=5))
    )

    await run(database, other)

    after = await rows(database, "sessions", OLD)
    assert [(s["bot"], s["pageviews"]) for s in after] == [(None, 3), ("monitoring: ShopWatch", 3)]
    assert after[0] == before[0]


async def test_as_many_events_as_before(ingest, database, config, new_rules):
    """Reclassifying rewrites rows, and makes or deletes no event."""
    await play(ingest, OLD, 5)
    new_rules()
    count = select(func.count()).select_from(database.tables.events)
    async with database.connect() as conn:
        before = await conn.scalar(count)

    await run(database, config)

    async with database.connect() as conn:
        assert await conn.scalar(count) == before
