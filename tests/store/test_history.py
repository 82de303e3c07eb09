"""Which visits are read for a batch: few, and each that a hit could belong to."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from goodanalytics.core.sessions import Session, going_on
from goodanalytics.store.database import fetch
from goodanalytics.store.history import as_session, session_columns, sessions_of
from tests.store.conftest import WORKSPACE, Seed, at

SILENCE = timedelta(minutes=30)
BEGUN = at("2026-11-02 10:00")
SPAN = BEGUN, BEGUN + timedelta(minutes=5)
VISITORS = range(1, 41)


def minutes(number: float) -> datetime:
    return BEGUN + timedelta(minutes=number)


async def read(seed: Seed, visitors: range, *clicked: UUID) -> list[Session]:
    async with seed.database.connect() as conn:
        keys = {(WORKSPACE, UUID(int=number)) for number in visitors}
        return await sessions_of(conn, seed.database.tables, keys, SPAN, SILENCE, clicked)


async def scattered(seed: Seed, chance: random.Random) -> None:
    """Visits of `VISITORS` that overlap, end at the same moment, are bots', and lie around the time of the batch."""
    number = 100
    for visitor in VISITORS:
        await seed.visitor(visitor)
        for _ in range(chance.randrange(6)):
            number += 1
            started = 5 * chance.randrange(-10, 3)
            await seed.session(
                number, visitor,
                started_at=minutes(started), last_event_at=minutes(started + chance.choice((0, 0, 5, 20))),
                bot=chance.choice((None, None, "crawler: X")),
            )  # fmt: skip


@pytest.mark.parametrize("seeded", range(3))
async def test_a_hit_goes_on_with_the_same_visit_as_if_all_were_read(seed: Seed, seeded: int):
    """For each visitor, at each moment of the batch, for people and bots."""
    await scattered(seed, random.Random(seeded))
    async with seed.database.connect() as conn:
        t = seed.database.tables
        rows = await fetch(conn, f"SELECT {session_columns(t)} FROM {t.sessions}")
    everything = [as_session(row) for row in rows]

    loaded = await read(seed, VISITORS)

    def chosen(visits: list[Session], visitor: int, moment: datetime, *, is_bot: bool) -> Session | None:
        of = [v for v in visits if v.visitor_id == UUID(int=visitor) and (v.bot is None or is_bot)]
        return going_on(of, moment, SILENCE)

    for visitor in VISITORS:
        for step in range(6):
            for is_bot in (False, True):
                asked = visitor, minutes(step)
                assert chosen(loaded, *asked, is_bot=is_bot) == chosen(everything, *asked, is_bot=is_bot)
    assert len(loaded) < len(everything)


async def test_of_a_hundred_visits_from_as_many_sources_one_is_read(seed: Seed):
    """Who makes up a source for each page costs no more than others."""
    await seed.visitor(1)
    for number in range(100, 200):
        await seed.session(number, 1, started_at=minutes(-10), last_event_at=minutes(-5 - number / 100))

    assert [visit.id for visit in await read(seed, range(1, 2))] == [UUID(int=100)]


async def test_the_visit_of_a_late_click_is_read_with_the_last_one(seed: Seed):
    """A visit may have landed with a click that comes only now."""
    await seed.visitor(1)
    await seed.session(100, 1, started_at=minutes(-20), last_event_at=minutes(-15), click_id=UUID(int=77))
    await seed.session(101, 1, started_at=minutes(-10), last_event_at=minutes(-5))

    found = await read(seed, range(1, 2), UUID(int=77))

    assert sorted(visit.id for visit in found) == [UUID(int=100), UUID(int=101)]
