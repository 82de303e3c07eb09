"""The result of a split, counted anew in plain Python from the same history."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from goodanalytics.core.experiments import Arm, result
from goodanalytics.core.links import Link
from goodanalytics.errors import InvalidInput
from goodanalytics.store.link_experiments import Experiment, experiment
from goodanalytics.store.link_reading import get_link
from tests.store.conftest import WORKSPACE, Seed, at

PERIOD = (at("2026-11-01"), at("2026-11-08"))
NOW = at("2026-11-10 12:00")
VARIANTS = [
    {"name": "A", "url": "https://acme.test/a", "weight": 1},
    {"name": "B", "url": "https://acme.test/b", "weight": 2},
]
PERSONS = {1: 1, 2: 1, 3: 3, 4: 4, 5: 5, 6: 5, 7: 7, 8: 8, 9: 9}
"""Visitor to person: 1 and 2 are one, 5 and 6 another."""


@pytest.fixture
async def link(seed: Seed) -> Link:
    await seed.link(100, "spring", variants=VARIANTS, created_at=at("2026-11-01"))
    await seed.link(101, "other", variants=VARIANTS)
    for number, of in PERSONS.items():
        await seed.visitor(number, of=of)
    return await read(seed)


async def read(seed: Seed) -> Link:
    async with seed.database.connect() as conn:
        found = await get_link(conn, seed.database.tables, WORKSPACE, UUID(int=100))
    assert found is not None
    return found


async def shown(seed: Seed, link: Link, **asked: Any) -> Experiment:
    async with seed.database.connect() as conn:
        return await experiment(conn, seed.database.tables, link, **{"period": PERIOD, "now": NOW, **asked})


async def click(seed: Seed, visitor: int, occurred: str, variant: str | None, **columns: Any) -> None:
    properties = {} if variant is None else {"variant": variant}
    await seed.event(visitor, occurred, "link_click", link=100, properties=properties, **columns)


def by_hand(history: Sequence[dict[str, Any]], currency: str) -> list[Arm]:
    """What `experiment` counts, one event after the other."""
    first: dict[int, tuple[Any, str]] = {}
    events = [
        e for e in history if e["link"] == 100 and e["bot"] is None and PERIOD[0] <= e["at"] < PERIOD[1]
    ]
    for event in sorted(events, key=lambda e: e["at"]):
        if event["kind"] == "link_click" and event["variant"] is not None:
            first.setdefault(PERSONS[event["visitor"]], (event["at"], event["variant"]))
    converted, paid, did = set(), defaultdict(int), Counter[tuple[str, int]]()
    for event in events:
        person = PERSONS[event["visitor"]]
        if person not in first or event["at"] < first[person][0] or not event["trusted"]:
            continue
        if event["kind"] in ("lead", "sale"):
            converted.add(person)
            did[event["kind"], person] += 1
        if event["kind"] in ("sale", "refund") and event["currency"] == currency:
            paid[person] += event["cents"] if event["kind"] == "sale" else -abs(event["cents"])
    arms = []
    for one in VARIANTS:
        people = [person for person, (_, variant) in first.items() if variant == one["name"]]
        arms.append(
            Arm(
                name=one["name"], visitors=len(people), leads=sum(did["lead", person] for person in people),
                sales=sum(did["sale", person] for person in people), conversions=len(converted.intersection(people)),
                buyers=sum(paid[person] > 0 for person in people), revenue=sum(paid[person] for person in people),
                revenue_squares=sum(paid[person] ** 2 for person in people), weight=one["weight"],
            )
        )  # fmt: skip
    return arms


@pytest.mark.parametrize("seed_of_chance", range(3))
async def test_it_is_what_plain_python_counts(seed, link, seed_of_chance):
    """Two hundred events of nine visitors, seven people, in every combination that matters."""
    chance = random.Random(seed_of_chance)
    history = []
    for minute in chance.sample(range(9 * 24 * 60), 200):
        moment = at("2026-10-31") + timedelta(minutes=minute)
        kind = chance.choice(["link_click", "link_click", "link_click", "lead", "sale", "sale", "refund"])
        variant = chance.choice(["A", "B", "B", "gone", None]) if kind == "link_click" else None
        event = {
            "at": moment, "kind": kind, "variant": variant, "visitor": chance.choice(list(PERSONS)),
            "link": chance.choice([100, 100, 100, 101]), "trusted": chance.random() < 0.8,
            "bot": "crawler: x" if chance.random() < 0.1 else None, "currency": chance.choice(["EUR", "EUR", "USD"]),
            "cents": chance.choice([100, 990, 5_000]) * (-1 if kind == "refund" and chance.random() < 0.5 else 1),
        }  # fmt: skip
        history.append(event)
        is_money = kind in ("sale", "refund")
        await seed.event(
            event["visitor"], moment.isoformat(), kind, link=event["link"], trusted=event["trusted"], bot=event["bot"],
            properties={} if variant is None else {"variant": variant},
            **({"amount_cents": event["cents"], "currency": event["currency"]} if is_money else {}),
        )  # fmt: skip
    for currency in ("EUR", "USD"):
        found = await shown(seed, link, currency=currency)
        expected = by_hand(history, currency)
        assert (found.outcomes, found.split_p) == (result(expected).outcomes, result(expected).split_p)
        assert found.currency == currency
    assert sum(arm.visitors for arm in expected) > 3
    assert sum(arm.conversions for arm in expected) > 1
    assert sum(arm.leads + arm.sales for arm in expected) > sum(arm.conversions for arm in expected)


async def test_a_person_is_who_they_are_now(seed, link):
    """Two browsers saw two variants and were merged since: one visitor, of the variant that came first."""
    await click(seed, 2, "2026-11-02 09:00", "B")
    await click(seed, 1, "2026-11-02 10:00", "A")
    found = await shown(seed, link)

    assert {one.name: one.visitors for one in found.outcomes} == {"A": 0, "B": 1}


async def test_what_was_done_before_the_click_is_no_conversion(seed, link):
    """A sale of a visit from before the period's first click stays out; the same moment counts."""
    await seed.event(3, "2026-11-02 09:00", "sale", link=100, amount_cents=500, currency="EUR")
    await click(seed, 3, "2026-11-02 10:00", "A")
    await click(seed, 4, "2026-11-02 10:00", "A")
    await seed.event(4, "2026-11-02 10:00", "lead", link=100)
    (a, _) = (await shown(seed, link)).outcomes

    assert (a.visitors, a.conversions, a.revenue) == (2, 1, 0)


async def test_the_currency_is_the_one_of_most_buyers(seed, link):
    """Amounts of different currencies are never added; the others are named. Who got everything back is no buyer."""
    for visitor, currency in ((3, "USD"), (4, "EUR"), (7, "USD")):
        await click(seed, visitor, "2026-11-02", "A")
        await seed.event(visitor, "2026-11-03", "sale", link=100, amount_cents=1_000, currency=currency)
    found = await shown(seed, link)
    for visitor in (3, 7):
        await seed.event(visitor, "2026-11-04", "refund", link=100, amount_cents=1_000, currency="USD")
    refunded = await shown(seed, link)

    assert (found.currency, found.currencies, found.outcomes[0].revenue) == ("USD", ["EUR", "USD"], 2_000)
    assert refunded.currency == "EUR"


async def test_without_a_period_it_begins_when_the_variants_last_changed(seed, link):
    """Who came to other variants, or by other shares, is not counted; a change of something else matters not."""
    table = seed.database.tables.link_changes
    for number, (day, name) in enumerate(
        [("2026-11-02", "variants"), ("2026-11-04", "variants"), ("2026-11-05", "title")], 1
    ):
        row = {
            "id": UUID(int=number),
            "link_id": link.id,
            "at": at(day),
            "changes": {name: {"old": 1, "new": 2}},
        }
        await seed.put(table, row)
    await click(seed, 3, "2026-11-03", "A")
    await click(seed, 4, "2026-11-04", "A")
    found = await shown(seed, link, period=None)

    assert (found.since, found.changed_at) == (at("2026-11-04"), at("2026-11-04"))
    assert [one.visitors for one in found.outcomes] == [1, 0]


async def test_variants_that_are_gone_are_told_beside_the_others(seed, link):
    """Their people belong to none of today's variants."""
    await click(seed, 3, "2026-11-02", "old")
    await click(seed, 3, "2026-11-03", "A")
    found = await shown(seed, link)

    assert found.former == {"old": 1}
    assert [one.visitors for one in found.outcomes] == [0, 0]


async def test_a_link_without_variants_has_no_result(seed, link):
    """There is nothing to compare."""
    await seed.link(102, "plain")
    async with seed.database.connect() as conn:
        plain = await get_link(conn, seed.database.tables, WORKSPACE, UUID(int=102))
    found = await shown(seed, plain)

    assert (found.outcomes, found.split_p, found.currency) == ([], None, None)


async def test_a_period_must_have_a_length(seed, link):
    """An end before the beginning is refused."""
    with pytest.raises(InvalidInput, match="must end after it begins"):
        await shown(seed, link, period=(PERIOD[1], PERIOD[0]))
