"""Uses of a link: as many as it has, whoever asks for them at the same time."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, select, text

from goodanalytics.core.links import Link
from goodanalytics.store import link_uses
from goodanalytics.store.database import Database
from goodanalytics.store.link_uses import Claim
from tests.conftest import START

WORKSPACE = UUID(int=0)


async def a_link(database: Database, max_clicks: int | None) -> UUID:
    link = Link(
        workspace_id=WORKSPACE, id=uuid4(), domain="go.example", key=uuid4().hex, url="https://shop.example/",
        max_clicks=max_clicks, created_at=START, updated_at=START,
    )  # fmt: skip
    async with database.begin() as conn:
        await conn.execute(insert(database.tables.links), link.to_row())
    return link.id


def claims(link_id: UUID, count: int) -> list[Claim]:
    return [Claim(WORKSPACE, link_id, uuid4()) for _ in range(count)]


async def take(database: Database, asked: list[Claim]) -> set[UUID]:
    async with database.begin() as conn:
        return await link_uses.take(conn, database.tables, asked, START)


async def test_first_come_first_served(database: Database) -> None:
    """Also within one call, for each link by itself, and numbered from one call to the next."""
    one, other = await a_link(database, 3), await a_link(database, None)
    asked, endless = claims(one, 5), claims(other, 2)
    first = await take(database, [*asked[:2], *endless])
    second = await take(database, asked[2:])
    table = database.tables.link_uses
    async with database.connect() as conn:
        rows = await conn.execute(select(table.c.number).where(table.c.link_id == one).order_by("number"))
        numbers = list(rows.scalars())

    assert first == {claim.click_id for claim in (*asked[:2], *endless)}
    assert second == {asked[2].click_id}
    assert numbers == [1, 2, 3]


@pytest.mark.parametrize("archived", [True, False], ids=["archived", "never made"])
async def test_a_link_that_is_not_in_use_has_none(database: Database, archived: bool) -> None:
    """Neither one that was archived nor one that nobody made."""
    link_id = uuid4()
    if archived:
        link_id = await a_link(database, 3)
        async with database.begin() as conn:
            await conn.execute(text(f"UPDATE {database.tables.links} SET archived_at = now()"))

    assert await take(database, claims(link_id, 1)) == set()


async def test_who_comes_second_waits_and_counts_the_first(database: Database) -> None:
    """Two processes at the same moment: the last use is one person's."""
    link_id = await a_link(database, 2)
    first, second = claims(link_id, 1), claims(link_id, 2)
    async with database.begin() as conn:
        taken = await link_uses.take(conn, database.tables, first, START)
        waiting = asyncio.create_task(take(database, second))
        async with asyncio.timeout(30), database.connect() as watch:
            blocked = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            while not (await watch.execute(blocked)).scalar_one():
                await watch.rollback()
                await asyncio.sleep(0.005)
        is_waiting = not waiting.done()

    assert (len(taken), is_waiting) == (1, True)
    assert await waiting == {second[0].click_id}
