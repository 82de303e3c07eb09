"""`goodanalytics replay`: hits that could not be processed come back, and history follows today's rules."""

from __future__ import annotations

import json
from datetime import timedelta
from uuid import UUID

import msgspec
import pytest
from click.testing import CliRunner
from sqlalchemy import select, text

from goodanalytics import Analytics
from goodanalytics.cli.commands import main
from goodanalytics.core import bots
from goodanalytics.core.hits import Client, EventType, Hit, Signals
from goodanalytics.ingest import Ingest
from goodanalytics.log import rejected
from tests.conftest import START

CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"


@pytest.fixture
async def analytics(database_url, config):
    analytics = Analytics(database_url, config)
    yield analytics
    await analytics.stop()


@pytest.fixture
def cli(database_url, monkeypatch):
    """Run `goodanalytics replay …` on this test's database, in a thread: the command brings its own event loop."""
    import asyncio

    monkeypatch.setenv("GOODANALYTICS_DATABASE_URL", database_url)

    async def run(*arguments: str):
        result = await asyncio.to_thread(CliRunner().invoke, main, ["replay", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def hit(number: int, **values) -> Hit:
    at = START + timedelta(seconds=number)
    defaults = {
        "url": f"https://acme.test/{number}",
        "signals": Signals(anonymous_id=f"b{number}"),
        "client": Client(user_agent=CHROME, bot_version=bots.VERSION),
    }
    return Hit(
        id=UUID(int=number), workspace_id=UUID(int=0), received_at=at, occurred_at=at,
        event_type=EventType.PAGEVIEW, origin="browser", **(defaults | values),
    )  # fmt: skip


@pytest.fixture
def broken(monkeypatch):
    """Processing fails for pages whose numbers are in this set; the message tells how many were in it."""
    pages: set[int] = set()
    understand = Ingest.understand

    def failing(self: Ingest, hit: Hit):
        if hit.id.int in pages:
            raise ValueError(f"broken with {len(pages)}")
        return understand(self, hit)

    monkeypatch.setattr(Ingest, "understand", failing)
    return pages


async def set_aside(analytics: Analytics, broken: set[int], *numbers: int) -> None:
    broken.update(numbers)
    await analytics.log.append([hit(number) for number in numbers])
    await analytics.drain()


async def recorded(analytics: Analytics) -> list[int]:
    """The numbers of the pages that are known."""
    e = analytics.database.tables.events.c
    async with analytics.database.connect() as conn:
        return sorted(found.int for found in await conn.scalars(select(e.id)))


async def test_hits_that_were_set_aside_are_processed_after_a_fix(analytics, broken, cli):
    """Whatever failed is put back and counted, and the worker takes it as if it had just come."""
    await set_aside(analytics, broken, 1, 2, 3)
    broken.clear()

    result = await cli()

    await analytics.drain()
    assert "Put 3 hits back into the log" in result.stdout
    assert await recorded(analytics) == [1, 2, 3]
    assert await rejected.rejected(analytics.database) == []


async def test_a_hit_that_fails_again_comes_back_with_its_new_error(analytics, broken, cli):
    """The list shows why it failed the last time, not the first."""
    await set_aside(analytics, broken, 1, 2)
    broken.discard(1)

    await cli()

    await analytics.drain()
    (left,) = await rejected.rejected(analytics.database)
    assert (left.hit.id.int, left.error) == (2, "ValueError: broken with 1")
    assert await recorded(analytics) == [1]


async def test_a_hit_counts_once_however_often_it_is_replayed(analytics, broken, cli):
    """A hit that was recorded meanwhile, as by its browser's second try, is a repetition."""
    await set_aside(analytics, broken, 1)
    broken.clear()
    await analytics.log.append([hit(1)])
    await analytics.drain()

    await cli()

    await analytics.drain()
    assert await recorded(analytics) == [1]


async def test_a_hit_that_cannot_be_read_stays_where_it_is(analytics, cli):
    """Putting it back would only set it aside again; a later version may read it."""
    async with analytics.database.begin() as conn:
        await conn.execute(
            text(
                f"INSERT INTO {analytics.database.tables.rejected_hits} (id, body, error, rejected_at) "
                "VALUES (:id, :body, 'cannot be read', :now)"
            ),
            {"id": UUID(int=5), "body": b"\xc1", "now": START},
        )

    result = await cli()

    assert "Put 0 hits back" in result.stdout
    assert "1 hit cannot be read by this version" in result.stdout
    assert [one.id.int for one in await rejected.rejected(analytics.database)] == [5]


async def test_more_than_a_batch_is_put_back(analytics, broken):
    """Batches follow each other until nothing is left, and the bar comes to its end."""
    await set_aside(analytics, broken, *range(1, 8))

    told = [progress async for progress in rejected.put_back(analytics.database, batch=3)]

    assert [(p.put_back, p.total) for p in told] == [(0, 7), (3, 7), (6, 7), (7, 7), (7, 7)]


async def test_the_list_shows_what_and_why(analytics, broken, cli):
    """Without touching anything."""
    await set_aside(analytics, broken, 1)

    result = await cli("--list")

    assert "pageview https://acme.test/1\n    ValueError: broken with 1\n1 hit set aside." in result.stdout
    assert len(await rejected.rejected(analytics.database)) == 1


async def test_the_list_of_nothing_says_so(analytics, cli):
    """An empty answer is an answer."""
    result = await cli("--list")

    assert result.stdout == "Nothing is set aside.\n"


async def test_the_list_as_json(analytics, broken, cli):
    """Programs get every hit whole."""
    await set_aside(analytics, broken, 1)

    (shown,) = json.loads((await cli("--list", "--json")).stdout)

    assert msgspec.convert(shown["hit"], Hit) == hit(1)
    assert shown["error"] == "ValueError: broken with 1"


async def test_the_schema_may_come_from_the_environment(analytics, cli, monkeypatch):
    """The app's own setting is every command's, unless another one is named."""
    monkeypatch.setenv("GOODANALYTICS_SCHEMA", "elsewhere")

    named, said = await cli("--list", "--schema", "good_analytics"), await cli("--list")

    assert (named.exit_code, named.stdout) == (0, "Nothing is set aside.\n")
    assert said.exit_code == 1
    assert (
        "The schema 'elsewhere' has no tables of goodanalytics yet. Run `goodanalytics migrate`"
        in said.stderr
    )


async def test_putting_back_as_json(analytics, broken, cli):
    """Counts, and no bar."""
    await set_aside(analytics, broken, 1, 2)

    result = await cli("--json")

    assert json.loads(result.stdout) == {"total": 2, "put_back": 2, "unreadable": 0}
    assert result.stderr == ""


@pytest.fixture
def history(analytics):
    """A person's hit that today's rules call a bot's: it was recorded with the verdict of rules that knew no Googlebot."""

    async def record() -> None:
        agent = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
        for number in (1, 90_000):
            await analytics.ingest.now([hit(number, client=Client(user_agent=agent, bot_version=0))])

    return record


async def verdicts(analytics: Analytics) -> list[str | None]:
    e = analytics.database.tables.events.c
    async with analytics.database.connect() as conn:
        return list(await conn.scalars(select(e.bot).order_by(e.occurred_at)))


async def test_reclassify_corrects_history_and_says_how_much(analytics, history, cli):
    """Events, visits and visitors are counted."""
    await history()

    result = await cli("--reclassify")

    assert await verdicts(analytics) == ["crawler: Googlebot"] * 2
    assert "Looked at 2 visitors; corrected 2 events, 2 visits and 2 visitors." in result.stdout


async def test_reclassify_since_a_day(analytics, history, cli):
    """A day begins at midnight, UTC."""
    await history()

    await cli("--reclassify", "--since", "2026-11-02")

    assert await verdicts(analytics) == [None, "crawler: Googlebot"]


async def test_reclassify_as_json(analytics, history, cli):
    """Counts, and no bar."""
    await history()

    result = await cli("--reclassify", "--json")

    assert json.loads(result.stdout) == {"visitors": 2, "total": 2, "events": 2, "visits": 2, "people": 2}


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        pytest.param(["--list", "--reclassify"], "use one", id="two things at once"),
        pytest.param(["--since", "2026-11-02"], "add --reclassify", id="since of nothing"),
    ],
)
async def test_a_wrong_command_says_what_would_be_right(cli, arguments, cure):
    """Nothing is done before it is understood."""
    result = await cli(*arguments)

    assert (result.exit_code, cure in result.output) == (2, True)
