"""
Hits of one person's browsers may arrive in any order, as long as each browser's own come in order: what is known in the end is the same.

`Store` (tests.core.test_plan) is our tables as dictionaries.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from goodanalytics.core.hits import Hit
from goodanalytics.core.visitors import fold
from tests.core.test_plan import SHOP, Store, a_hit, cut, said

NAMES: list[tuple[str, ...]] = [("external_id",), ("email",), ("external_id", "email")]


@st.composite
def histories(draw: st.DrawFn) -> list[list[Hit]]:
    """
    What some browsers did, each in its own order. A browser is one person's; nobody shares a name or an address.

    Everything is two hours from everything else, so that no visit goes on across browsers: a server's hit joins the visit that
    it finds going on (DESIGN 0011), and what is not there yet cannot be found.
    """
    found: dict[int, list[Hit]] = defaultdict(list)
    doings = st.tuples(st.integers(0, 4), st.sampled_from([None, None, *NAMES]))
    for number, (browser, names) in enumerate(draw(st.lists(doings, min_size=2, max_size=16)), 1):
        facts: dict[str, Any] = {
            "id": UUID(int=number << 64), "anonymous_id": f"browser {browser}", "minute": number * 120
        }  # fmt: skip
        person = browser % 3
        values = {"external_id": f"user {person}", "email": f"user{person}@shop.test"}
        if names is None:
            found[browser].append(a_hit(**facts, url=f"{SHOP}/?utm_source=s{number}"))
        else:
            found[browser].append(said(**facts, **{name: values[name] for name in names}))
    return list(found.values())


def interleaved(histories: Sequence[list[Hit]], choices: Sequence[int]) -> list[Hit]:
    """All hits in an order of arrival that keeps each browser's own."""
    left = [list(hits) for hits in histories]
    order = []
    for choice in itertools.chain(choices, itertools.repeat(0)):
        if not (waiting := [hits for hits in left if hits]):
            return order
        order.append(waiting[choice % len(waiting)].pop(0))
    return order


def known(hits: list[Hit], sizes: list[int]) -> list[Any]:
    """What is known after *hits* came in batches of *sizes*: of each person its browsers, counters, names, sources and visits."""
    store = Store()
    for batch in cut(hits, sizes):
        store.process(batch)
    persons = defaultdict(list)
    for row in store.visitors.values():
        persons[row.canonical_id].append(row)
    of_row = {row.id: row.canonical_id for row in store.visitors.values()}
    told = []
    for canonical_id, rows in persons.items():
        person = fold(rows)
        assert person is not None
        told.append((
            sorted((i.kind, i.value) for i in store.identities.values() if of_row[i.visitor_id] == canonical_id),
            (person.status, person.external_id, person.email, person.identified_at, person.first_seen_at, person.last_seen_at),
            (person.total_pageviews, person.total_events, person.total_sessions),
            (person.first_source, person.first_source_at, person.last_source, person.last_source_at),
            [(v.started_at, v.source, v.pageviews) for v in store.visits() if of_row[v.visitor_id] == canonical_id],
            sorted(Counter(e["event_type"] for e in store.events if of_row[e["visitor_id"]] == canonical_id).items()),
        ))  # fmt: skip
    return sorted(told, key=lambda one: one[0])


ORDERS = st.lists(st.integers(0, 4), max_size=16)


@settings(deadline=None, max_examples=200)
@given(histories(), ORDERS, ORDERS, st.lists(st.integers(1, 6), max_size=6))
def test_any_order_of_arrival_that_keeps_each_browsers_own_tells_the_same(
    found: list[list[Hit]], one: list[int], other: list[int], sizes: list[int]
) -> None:
    """Who is who, counters and attribution do not depend on which browser's hits came first, nor on how they were batched."""
    assert known(interleaved(found, one), sizes) == known(interleaved(found, other), [])


def test_the_browsers_of_a_person_are_joined_whichever_is_named_first() -> None:
    """The law above is not about strangers only: two browsers with one name become one person in either order."""
    phone = [a_hit(anonymous_id="phone"), said(200, anonymous_id="phone", external_id="ann")]
    laptop = [a_hit(minute=400, anonymous_id="laptop"), said(600, anonymous_id="laptop", external_id="ann")]

    told = [known(order, []) for order in ([*phone, *laptop], [*laptop, *phone])]

    assert told[0] == told[1]
    assert [len(told[0]), told[0][0][2]] == [1, (2, 4, 2)]
