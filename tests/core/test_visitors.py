"""The fold of several rows into one person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.core.visitors import ABSORB, STATUS_RANK, Visitor, fold
from goodanalytics.store.tables import build
from goodanalytics.store.tables_people import STATUSES

START = datetime(2026, 11, 1, tzinfo=UTC)
WORKSPACE, PERSON = UUID(int=7), UUID(int=1)


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def row(number: int, *, seen: int | None = None, **fields: Any) -> Visitor:
    """A row first and last seen on day *seen*."""
    times = {
        "first_seen_at": day(number if seen is None else seen),
        "last_seen_at": day(number if seen is None else seen),
    }
    return Visitor(workspace_id=WORKSPACE, id=UUID(int=number), canonical_id=PERSON, **(times | fields))


def folded(*rows: Visitor) -> Visitor:
    person = fold(rows)
    assert person is not None
    return person


def test_every_field_has_a_rule() -> None:
    """A field without a rule for its merge does not get in."""
    assert set(ABSORB) == set(Visitor.__struct_fields__)


def test_every_field_is_a_column() -> None:
    """The visitor and its table know the same facts."""
    assert set(Visitor.__struct_fields__) == set(build("s").visitors.c.keys())


def test_every_status_has_a_rank() -> None:
    """No status of the table is unknown to the fold."""
    assert set(STATUS_RANK) == set(STATUSES)


def test_nobody_folds_to_nobody() -> None:
    """No rows are no person."""
    assert fold([]) is None


def test_person_is_known_by_the_canonical_id() -> None:
    """The fold has the canonical id, also of a row that is not the canonical one."""
    assert folded(row(2)).id == PERSON


@pytest.mark.parametrize(
    ("older", "newer", "expected"),
    [
        pytest.param(
            {"status": "customer"}, {"status": "lead"}, {"status": "customer"}, id="status only climbs"
        ),
        pytest.param(
            {"email": "old@x.test"}, {"email": "new@x.test"}, {"email": "new@x.test"}, id="newest address"
        ),
        pytest.param(
            {"email": "old@x.test"}, {}, {"email": "old@x.test"}, id="an address outlives a row without one"
        ),
        pytest.param(
            {"external_id": "a"}, {"external_id": "b"}, {"external_id": "a"}, id="first external id stays"
        ),
        pytest.param({}, {"external_id": "b"}, {"external_id": "b"}, id="an external id is taken over"),
        pytest.param(
            {"traits": {"plan": "free", "team": "x"}},
            {"traits": {"plan": "pro"}},
            {"traits": {"plan": "pro", "team": "x"}},
            id="newest trait by key",
        ),
        pytest.param(
            {"ltv": {"EUR": 5}},
            {"ltv": {"USD": 7, "EUR": 1}},
            {"ltv": {"EUR": 6, "USD": 7}},
            id="money by currency",
        ),
        pytest.param({"total_events": 2}, {"total_events": 3}, {"total_events": 5}, id="counts add"),
        pytest.param({"bot": "agent"}, {}, {"bot": None}, id="one person among bots is a person"),
        pytest.param({"bot": "agent"}, {"bot": "ip"}, {"bot": "agent"}, id="bots only are a bot"),
        pytest.param(
            {"geo": {}}, {"geo": {"country": "DE"}}, {"geo": {"country": "DE"}}, id="first known place"
        ),
        pytest.param(
            {"identified_at": day(9)},
            {"identified_at": day(8)},
            {"identified_at": day(8)},
            id="earliest time",
        ),
    ],
)
def test_two_rows_become_one(older: dict[str, Any], newer: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each field of two rows becomes one by its own rule."""
    person = folded(row(2, **newer), row(1, **older))

    assert {name: getattr(person, name) for name in expected} == expected


def test_sources_move_with_their_time_and_click() -> None:
    """First and last source go by when they came, each with its own click, not by when the row was first seen."""
    early = row(
        1,
        first_source={"platform": "b"},
        first_source_at=day(5),
        last_source={"platform": "b"},
        last_source_at=day(5),
    )
    late = row(
        2,
        first_source={"platform": "a"},
        first_source_at=day(3),
        first_click_id=UUID(int=33),
        last_source={"platform": "c"},
        last_source_at=day(9),
        last_click_id=UUID(int=99),
    )
    person = folded(early, late)

    assert (person.first_source, person.first_source_at, person.first_click_id) == (
        {"platform": "a"},
        day(3),
        UUID(int=33),
    )
    assert (person.last_source, person.last_source_at, person.last_click_id) == (
        {"platform": "c"},
        day(9),
        UUID(int=99),
    )


texts = st.none() | st.sampled_from(["a", "b"])
sources = st.none() | st.builds(dict, platform=st.sampled_from(["google", "news"]))
days = st.integers(0, 3)


@st.composite
def members(draw: st.DrawFn) -> list[Visitor]:
    """Rows of one person as the ledger writes them: a source has a time; each was first seen before last seen."""
    rows = []
    for number in range(1, draw(st.integers(1, 3)) + 1):
        began = draw(days)
        first, last = draw(sources), draw(sources)
        rows.append(
            row(
                number,
                first_seen_at=day(began),
                last_seen_at=day(began + draw(days)),
                status=draw(st.sampled_from(STATUSES)),
                email=draw(texts),
                external_id=draw(texts),
                bot=draw(texts),
                traits=draw(st.dictionaries(st.sampled_from("xy"), st.integers(0, 2))),
                first_source=first,
                first_source_at=None if first is None else day(draw(days)),
                last_source=last,
                last_source_at=None if last is None else day(draw(days)),
                total_events=draw(st.integers(0, 9)),
                ltv=draw(st.dictionaries(st.sampled_from(["EUR", "USD"]), st.integers(-5, 5))),
            )
        )
    return rows


@given(members())
def test_order_of_the_rows_does_not_matter(rows: list[Visitor]) -> None:
    """A person is the same whatever order the database returns the rows in."""
    assert {str(fold(order)) for order in permutations(rows)} == {str(fold(rows))}


@given(members())
def test_fold_counts_every_row_once(rows: list[Visitor]) -> None:
    """Totals and money are those of all rows together."""
    person = folded(*rows)

    assert person.total_events == sum(one.total_events for one in rows)
    assert person.ltv == {code: sum(one.ltv.get(code, 0) for one in rows) for code in person.ltv}


@given(members())
def test_person_is_a_bot_only_if_every_row_is(rows: list[Visitor]) -> None:
    """One row of a person is enough to be counted."""
    assert (folded(*rows).bot is None) == any(one.bot is None for one in rows)


def test_email_is_of_the_row_seen_last_that_has_one() -> None:
    """A row without an address lends its time to nobody's: the address seen last wins."""
    long_lived = row(1, seen=0, last_seen_at=day(9))
    early = row(2, seen=1, email="early@acme.test")
    late = row(3, seen=2, email="late@acme.test")

    assert folded(long_lived, early, late).email == "late@acme.test"


@given(members())
def test_email_is_of_the_row_seen_last_of_any_rows(rows: list[Visitor]) -> None:
    """The newest address wins, however many rows there are."""
    known = [one for one in rows if one.email is not None]
    newest = max(known, key=lambda one: (one.last_seen_at, one.id), default=None)

    assert folded(*rows).email == (None if newest is None else newest.email)
