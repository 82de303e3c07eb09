"""Who gets the credit, as tables of paths and as laws of division."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.core.attribution import Credit, Model, Touch, credit, divide, first, last_non_direct

START = datetime(2026, 11, 1, tzinfo=UTC)
SOURCES = {
    "search": {"platform": "google", "medium": "organic"},
    "email": {"platform": "news", "medium": "email"},
    "partner": {"platform": "direct", "medium": "direct", "partner_code": "ANNA"},
    "direct": {"platform": "direct", "medium": "direct", "confidence": "low"},
    "empty": {},
}


def path(*names: str) -> list[Touch]:
    return [Touch(START + timedelta(days=day), SOURCES[name]) for day, name in enumerate(names)]


def credited(names: list[str], cents: int, model: Model) -> list[tuple[str | None, int]]:
    touches = path(*names)
    return [
        (None if part.touch is None else names[touches.index(part.touch)], part.cents)
        for part in credit(touches, cents, model)
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(["search", "email"], 1, id="the last of two campaigns"),
        pytest.param(["search", "direct"], 0, id="coming back by itself leaves the credit"),
        pytest.param(["search", "email", "direct", "empty"], 1, id="any number of direct visits"),
        pytest.param(["search", "partner"], 1, id="a partner's code is a source"),
        pytest.param(["direct", "empty"], 1, id="all direct: the last one"),
    ],
)
def test_last_non_direct_touch(names: list[str], expected: int) -> None:
    """Direct visits never take the credit from a touch that was not direct."""
    touches = path(*names)

    assert last_non_direct(touches) == touches[expected]


def test_first_touch_may_be_direct() -> None:
    """The first touch is the first visit, whatever brought it."""
    touches = path("direct", "search")

    assert first(touches) == touches[0]


def test_nobody_is_credited_by_an_empty_path() -> None:
    """Without a visit there is no first and no last touch."""
    assert (first([]), last_non_direct([])) == (None, None)


@pytest.mark.parametrize("model", list(Model))
def test_money_without_a_path_is_kept(model: Model) -> None:
    """A sale without a visit keeps its money, credited to nobody."""
    assert credit([], 500, model) == [Credit(None, 500)]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Model.FIRST, [("search", 100)]),
        (Model.LAST, [("email", 100)]),
        (Model.LINEAR, [("search", 34), ("email", 33), ("direct", 33)]),
    ],
)
def test_models_divide_a_euro(model: Model, expected: list[tuple[str, int]]) -> None:
    """Each model gives a path of three its own division."""
    assert credited(["search", "email", "direct"], 100, model) == expected


@pytest.mark.parametrize(
    ("cents", "weights", "expected"),
    [
        pytest.param(100, [1, 1, 1], [34, 33, 33], id="the earlier of equals gets the odd cent"),
        pytest.param(-100, [1, 1, 1], [-34, -33, -33], id="a refund mirrors its sale"),
        pytest.param(2, [1, 1, 1], [1, 1, 0], id="fewer cents than parts"),
        pytest.param(10, [1, 5, 3], [1, 6, 3], id="the largest remainder is served first"),
        pytest.param(10, [0, 1, 0], [0, 10, 0], id="no weight, no money"),
        pytest.param(0, [1, 2], [0, 0], id="nothing to divide"),
    ],
)
def test_divide(cents: int, weights: list[int], expected: list[int]) -> None:
    """Parts follow the weights by largest remainder."""
    assert divide(cents, weights) == expected


@pytest.mark.parametrize("weights", [[], [0, 0], [2, -1]], ids=["none", "all zero", "one negative"])
def test_divide_refuses_weights_without_a_meaning(weights: list[int]) -> None:
    """Weights that cannot be divided by are a programmer's error."""
    with pytest.raises(ValueError, match="weights are"):
        divide(100, weights)


cents = st.integers(-(10**15), 10**15)
weights = st.lists(st.integers(0, 10**6), min_size=1, max_size=30).filter(any)


@given(cents, weights)
def test_parts_sum_to_the_whole(whole: int, given_weights: list[int]) -> None:
    """No cent is lost or made."""
    assert sum(divide(whole, given_weights)) == whole


@given(cents, weights)
def test_parts_are_within_a_cent_of_their_share(whole: int, given_weights: list[int]) -> None:
    """No part is a whole cent away from its exact share."""
    total = sum(given_weights)
    parts = divide(whole, given_weights)

    assert all(
        abs(part * total - whole * weight) < total for part, weight in zip(parts, given_weights, strict=True)
    )


@given(cents, weights)
def test_refund_cancels_its_sale(whole: int, given_weights: list[int]) -> None:
    """What a refund takes from each touch is what the sale gave it."""
    assert divide(-whole, given_weights) == [-part for part in divide(whole, given_weights)]


@given(st.lists(st.sampled_from(sorted(SOURCES)), max_size=12), cents, st.sampled_from(Model))
def test_credit_sums_to_the_sale(names: list[str], whole: int, model: Model) -> None:
    """Every model gives away exactly the sale."""
    assert sum(part.cents for part in credit(path(*names), whole, model)) == whole


@given(st.lists(st.sampled_from(sorted(SOURCES)), max_size=12), cents, st.sampled_from(Model))
def test_credit_names_touches_of_the_path_in_order(names: list[str], whole: int, model: Model) -> None:
    """Credits come in the path's order, each touch at most once."""
    touches = path(*names)
    credited_touches = [part.touch for part in credit(touches, whole, model) if part.touch]

    assert [touch for touch in touches if touch in credited_touches] == credited_touches
