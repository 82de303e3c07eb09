"""Links in the order of their clicks, and the words to choose them by."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from goodanalytics.errors import InvalidInput
from goodanalytics.store import link_days, link_lists
from goodanalytics.store.link_reading import Wanted
from tests.store.conftest import WORKSPACE, Seed, at

PERIOD = (at("2026-11-02 06:00"), at("2026-11-07 18:00"))


@pytest.fixture
async def links(seed: Seed) -> Seed:
    """Seven links, of which the third has the most clicks; with bots, other days and another workspace beside them."""
    await seed.visitor(1)
    for number in range(7):
        await seed.link(
            100 + number, f"k{number}", folder=("a", None)[number % 2], tags=["x", "y"][: number % 3],
            archived_at=at("2026-11-07") if number == 6 else None,
        )  # fmt: skip
    await seed.put(
        seed.database.tables.links,
        {"workspace_id": UUID(int=8), "id": UUID(int=999), "domain": "other.test", "key": "k", "url": "https://acme.test/",
         "link_type": "short", "rules": [], "variants": [], "redirect_status": 302, "forward_path": False, "folder": "theirs",
         "forward_query": True, "cloaked": False, "indexed": False, "tags": ["theirs"], "metadata": {},
         "created_at": at("2026-11-01"), "updated_at": at("2026-11-01")},
    )  # fmt: skip
    # A digit is the day of a click; those of the first and the last day lie in parts of days.
    for number, days in enumerate(["2345", "", "234567234", "2345", "3", "66666", "234"]):
        for day in days:
            await seed.event(1, f"2026-11-0{day} 12:00", "link_click", link=100 + number)
    for _ in range(20):
        await seed.event(1, "2026-11-02 05:59", "link_click", link=101)
        await seed.event(1, "2026-11-07 18:00", "link_click", link=101)
        await seed.event(1, "2026-11-03 12:00", "link_click", link=101, bot="crawler: x")
        await seed.event(1, "2026-11-03 12:00", "pageview", link=101)
    return seed


async def listed(seed: Seed, *, is_down: bool = True, **asked) -> list[int]:
    found, cursor = [], None
    async with seed.database.connect() as conn:
        while True:
            page = await link_lists.by_clicks(
                conn, seed.database.tables, WORKSPACE, Wanted(**asked),
                period=PERIOD, is_down=is_down, limit=2, after=cursor,
            )  # fmt: skip
            found += [link.id.int - 100 for link in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return found


ORDER = [2, 5, 3, 0, 4, 1]
"""By clicks; of equal ones the newer, that is the higher id, first."""


async def test_the_most_clicked_come_first(links):
    """Bots, other times and events that are no clicks do not count; a link without clicks is there too."""
    assert await listed(links) == ORDER


async def test_the_least_clicked_come_first_too(links):
    """The other way round, page by page."""
    assert await listed(links, is_down=False) == ORDER[::-1]


async def test_it_is_the_same_out_of_the_roll_up(links):
    """Before and after days are closed, with a late click on a closed day, and with that day counted anew."""
    await link_days.roll_up(links.database, at("2026-11-05 12:00"))
    assert await listed(links) == ORDER

    for _ in range(4):
        await links.event(1, "2026-11-03 13:00", "link_click", link=104)
    async with links.database.begin() as conn:
        rows = [{"workspace_id": WORKSPACE, "link_id": UUID(int=104), "occurred_at": at("2026-11-03 13:00")}]
        await link_days.touch(conn, links.database.tables, rows, at("2026-11-05 12:00"))
    assert await listed(links) == [2, 5, 4, 3, 0, 1]

    await link_days.roll_up(links.database, at("2026-11-12") + timedelta(hours=7))
    assert await listed(links) == [2, 5, 4, 3, 0, 1]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param({"search": "K3"}, [3], id="search"),
        pytest.param({"folder": "a"}, [2, 0, 4], id="folder"),
        pytest.param({"tag": "y"}, [2, 5], id="tag"),
        pytest.param({"archived": True}, [6], id="archived"),
        pytest.param({"archived": None}, [2, 5, 3, 0, 6, 4, 1], id="all"),
    ],
)
async def test_it_can_be_narrowed(links, asked, expected):
    """As any list of links."""
    assert await listed(links, **asked) == expected


@pytest.mark.parametrize("cursor", ["zzz", "\U0001f600"])
async def test_a_foreign_cursor_is_refused(links, cursor):
    """It comes back from a browser: expect anything."""
    async with links.database.connect() as conn:
        with pytest.raises(InvalidInput, match="no cursor of this list"):
            await link_lists.by_clicks(
                conn, links.database.tables, WORKSPACE, Wanted(), period=PERIOD, after=cursor
            )


async def test_words_are_those_of_links_in_use(links):
    """Each once, in order; of this workspace alone."""
    async with links.database.connect() as conn:
        found = await link_lists.words(conn, links.database.tables, WORKSPACE)

    assert found == link_lists.Words(["a"], ["x", "y"], ["acme.test"])
