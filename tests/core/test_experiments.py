"""
What a split shows.

The functions were compared with SciPy 1.17 over random samples: Student's, chi-squared and two-proportion tails, Welch's
statistic and degrees of freedom, and Wilson's interval agree to at least eight digits.
"""

from __future__ import annotations

import math
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.core.experiments import (
    Arm,
    chi_squared_tail,
    holm,
    result,
    student_tails,
    two_proportions,
    welch,
    wilson,
)
from goodanalytics.errors import InvalidInput


def sums(values: list[float]) -> tuple[int, float, float]:
    return len(values), sum(values), sum(v * v for v in values)


def summary(size: int, mean: float, deviation: float) -> tuple[int, float, float]:
    return size, size * mean, (size - 1) * deviation**2 + size * mean**2


SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        # R's documentation, ?t.test: t.test(extra ~ group, data = sleep), with Student's own data; its t is first minus second.
        pytest.param((*sums(SLEEP_1), *sums(SLEEP_2)), (1.8608, 17.776, 0.07939), id="R, sleep"),
        # NAG library, example of g07ca: https://support.nag.com/numeric/cl/nagdoc_fl26.2/examples/baseresults/g07cafe.r.html
        pytest.param((*summary(8, 21, 4.208), *summary(4, 25, 0.8185)), (2.5922, 8.0, 0.0320), id="NAG, g07ca"),
    ],
)  # fmt: skip
def test_welch(samples: tuple[Any, ...], expected: tuple[float, float, float]) -> None:
    """Statistic, degrees of freedom and p-value are the published ones."""
    found = welch(*samples)

    assert found is not None
    assert (*found, student_tails(*found)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("t", "freedom", "expected"),
    [
        # NIST/SEMATECH e-Handbook, section 1.3.6.7.2: upper critical values at 0.025, doubled here.
        (12.706, 1, 0.05),
        (2.228, 10, 0.05),
        (2.042, 30, 0.05),
        (1.984, 100, 0.05),
        (63.657, 1, 0.01),
        (2.750, 30, 0.01),
        # Closed forms: Cauchy's distribution, and the normal one in the limit.
        (1, 1, 0.5),
        (0, 7.5, 1),
        (1.959963984540054, 1e9, 0.05),
        (-2.228, 10, 0.05),
    ],
)
def test_students_tails(t: float, freedom: float, expected: float) -> None:
    """The two tails of Student's t are those of the tables."""
    assert student_tails(t, freedom) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("x", "freedom", "expected"),
    [
        # NIST/SEMATECH e-Handbook, section 1.3.6.7.4.
        (3.841, 1, 0.05),
        (5.991, 2, 0.05),
        (7.815, 3, 0.05),
        (16.919, 9, 0.05),
        (10.828, 1, 0.001),
        (27.877, 9, 0.001),
        (0, 1, 1),
        (0, 4, 1),
    ],
)
def test_the_tail_of_chi_squared(x: float, freedom: int, expected: float) -> None:
    """It is that of the tables."""
    assert chi_squared_tail(x, freedom) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        # statsmodels, documentation of proportions_ztest: its p-value is 0.159.
        ((5, 83, 12, 99), 0.159),
        # https://homeworksource.com/p/997366: pooled z is -0.344, p is 0.7307, from rounded shares.
        ((28, 254, 36, 301), 0.731),
    ],
)
def test_two_proportions(figures: tuple[int, int, int, int], expected: float) -> None:
    """The p-value is the published one."""
    z = two_proportions(*figures)

    assert z is not None
    assert math.erfc(z / math.sqrt(2)) == pytest.approx(expected, abs=2e-3)


def test_holm() -> None:
    """
    Corrected p-values are the published ones, never fall with rank, and stay below one.

    Sources: pingouin, documentation of holm; stdlib.io, documentation of padjust.
    """
    assert holm([0.50, 0.003, 0.32, 0.054, 0.0003]) == pytest.approx([0.64, 0.012, 0.64, 0.162, 0.0015])
    assert holm([0.319, 0.201, 0.4, 0.374, 0.113]) == pytest.approx([0.957, 0.804, 0.957, 0.957, 0.565])
    assert holm([]) == []


@pytest.mark.parametrize(
    ("conversions", "visitors", "expected"),
    [
        # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (20, 20, (0.8389, 1.0)),
    ],
)
def test_wilson(conversions: int, visitors: int, expected: tuple[float, float]) -> None:
    """The interval is the published one, also where nobody or everybody converted."""
    assert wilson(conversions, visitors) == pytest.approx(expected, abs=5e-5)


def arm(name: str, visitors: int, conversions: int = 0, **more: Any) -> Arm:
    return Arm(name=name, visitors=visitors, conversions=conversions, **more)


@pytest.mark.parametrize(
    ("first", "other", "expected"),
    [
        pytest.param((0, 0), (0, 0), "not enough yet", id="nobody came"),
        pytest.param((99, 10), (5_000, 4_000), "not enough yet", id="too few visitors of one"),
        pytest.param((200, 0), (200, 9), "not enough yet", id="too few conversions"),
        pytest.param((200, 200), (200, 191), "not enough yet", id="too few who did not convert"),
        pytest.param((200, 0), (200, 30), "better", id="from nothing"),
        pytest.param((1_000, 100), (1_000, 100), "no difference shown", id="alike"),
        pytest.param((1_000, 100), (1_000, 130), "no difference shown", id="a plain test would say better"),
        pytest.param((1_000, 100), (1_000, 150), "better", id="better"),
        pytest.param((1_000, 150), (1_000, 100), "worse", id="worse"),
        pytest.param((10**7, 10**6), (10**7, 10**6 + 10_000), "better", id="a little, of many"),
    ],
)
def test_verdicts_by_rate(first: tuple[int, int], other: tuple[int, int], expected: str) -> None:
    """A verdict needs a sample, and a difference that holds however often one looks."""
    compared = result([arm("A", *first), arm("B", *other)]).outcomes[1].by_rate

    assert compared is not None
    assert compared.verdict == expected


def test_an_outcome() -> None:
    """All figures of a variant stand beside each other, and the first one is compared with nobody."""
    first, other = result(
        [
            arm("A", 1_000, 100, buyers=100, revenue=500_000, revenue_squares=100 * 5_000**2),
            arm("B", 1_000, 150, buyers=150, revenue=750_000, revenue_squares=150 * 5_000**2),
        ]
    ).outcomes

    assert (first.by_rate, first.by_revenue) == (None, None)
    assert (other.rate, other.revenue_per_visitor, other.revenue) == (0.15, 750.0, 750_000)
    assert (other.rate_low, other.rate_high) == pytest.approx((0.1292, 0.1735), abs=1e-4)
    assert other.by_rate is not None
    assert other.by_revenue is not None
    assert (other.by_rate.lift, other.by_revenue.lift) == (pytest.approx(0.5), pytest.approx(0.5))
    assert other.by_rate.p == pytest.approx(0.000725, abs=1e-5)
    assert (other.by_rate.verdict, other.by_revenue.verdict) == ("better", "better")


def test_revenue_may_say_the_contrary() -> None:
    """More who buy, but less: the rate is better and the revenue worse."""
    _, other = result(
        [
            arm("A", 5_000, 500, buyers=500, revenue=500 * 10_000, revenue_squares=500 * 10_000**2),
            arm("B", 5_000, 700, buyers=700, revenue=700 * 4_000, revenue_squares=700 * 4_000**2),
        ]
    ).outcomes

    assert other.by_rate is not None
    assert other.by_revenue is not None
    assert (other.by_rate.verdict, other.by_revenue.verdict) == ("better", "worse")


@pytest.mark.parametrize(
    ("buyers", "expected"), [(130, "no difference shown"), (150, "better"), (60, "worse")]
)
def test_verdicts_by_revenue(buyers: int, expected: str) -> None:
    """Revenue needs a difference that holds however often one looks, as the rate does; 130 of 100 would do once."""
    _, other = result(
        [
            arm("A", 1_000, buyers=100, revenue=100 * 900, revenue_squares=100 * 900**2),
            arm("B", 1_000, buyers=buyers, revenue=buyers * 900, revenue_squares=buyers * 900**2),
        ]
    ).outcomes

    assert other.by_revenue is not None
    assert other.by_revenue.verdict == expected
    assert other.by_revenue.p is not None
    assert other.by_revenue.p < 0.05


@pytest.mark.parametrize(
    ("buyers", "expected"), [(29, "not enough yet"), (30, "better")], ids=["too few buyers", "enough"]
)
def test_revenue_needs_buyers(buyers: int, expected: str) -> None:
    """One large order proves nothing."""
    _, other = result(
        [
            arm("A", 1_000, 30, buyers=30, revenue=30 * 100, revenue_squares=30 * 100**2),
            arm("B", 1_000, 30, buyers=buyers, revenue=30 * 9_000, revenue_squares=30 * 9_000**2),
        ]
    ).outcomes

    assert other.by_revenue is not None
    assert other.by_revenue.verdict == expected


def test_very_small_samples_are_not_surer_for_being_looked_at() -> None:
    """With two degrees of freedom even a huge t says little, and the value that is always valid says no more."""
    _, other = result(
        [
            arm("A", 2, revenue=1, revenue_squares=1),
            arm("B", 2, revenue=201, revenue_squares=100**2 + 101**2),
        ]
    ).outcomes

    assert other.by_revenue is not None
    assert other.by_revenue.p == other.by_revenue.always_valid == pytest.approx(5e-5, rel=0.01)


def test_several_variants_are_corrected_together() -> None:
    """What is significant for one variant alone is not when nine others were tried beside it."""
    first, good = arm("A", 1_000, 100), arm("B", 1_000, 146)
    alone = result([first, good]).outcomes[1].by_rate
    others = [arm(f"C{n}", 1_000, 100) for n in range(8)]
    among = result([first, good, *others]).outcomes[1].by_rate

    assert alone is not None
    assert among is not None
    assert (alone.verdict, among.verdict) == ("better", "no difference shown")
    assert alone.p == among.p
    assert among.always_valid == pytest.approx(9 * (alone.always_valid or 0))


def test_looking_every_day_does_not_mislead() -> None:
    """Of 300 splits of one page against itself, read 40 times each, at most one in 20 ever gets a verdict."""
    chance = random.Random(5)
    misled = misled_plainly = 0
    for _ in range(300):
        first = other = visitors = 0
        verdicts, plain = set(), []
        for _ in range(40):
            visitors += 100
            first += sum(chance.random() < 0.1 for _ in range(100))
            other += sum(chance.random() < 0.1 for _ in range(100))
            compared = result([arm("A", visitors, first), arm("B", visitors, other)]).outcomes[1].by_rate
            assert compared is not None
            verdicts.add(compared.verdict)
            plain.append(compared.p or 1)
        misled += bool(verdicts & {"better", "worse"})
        misled_plainly += min(plain) < 0.05

    assert misled <= 15
    assert misled_plainly > 45  # a test that is made for one look


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        pytest.param([arm("A", 1_000), arm("B", 1_000)], False, id="even"),
        pytest.param([arm("A", 1_000), arm("B", 1_100)], False, id="nearly"),
        pytest.param([arm("A", 1_000), arm("B", 1_200)], True, id="not even"),
        pytest.param([arm("A", 1_000), arm("B", 3_000, weight=3)], False, id="by weight"),
        pytest.param([arm("A", 1_000), arm("B", 1_000, weight=3)], True, id="against the weight"),
        pytest.param([arm("A", 1), arm("B", 8)], False, id="too few to say"),
        pytest.param([arm("A", 1_000)], False, id="no split"),
        pytest.param([], False, id="nothing"),
    ],
)
def test_a_split_that_is_none(arms: list[Arm], expected: bool) -> None:
    """Visitors that do not stand as the weights do make every other figure doubtful, and that is said."""
    assert result(arms).is_misplit is expected


@pytest.mark.parametrize(
    "arms",
    [
        [arm("A", 10, 11)],
        [arm("A", -1)],
        [arm("A", 10, -1)],
        [arm("A", 10, buyers=11)],
        [arm("A", 10, revenue=100, revenue_squares=999)],
        [arm("A", 0, revenue=1)],
        [arm("A", 10, weight=0)],
        [arm("A", 10), arm("A", 10)],
    ],
)
def test_impossible_figures(arms: list[Arm]) -> None:
    """Figures that nobody can have counted are a mistake of whoever added them up, and are refused."""
    with pytest.raises(InvalidInput):
        result(arms)


counted = st.integers(0, 10**6).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(-10, 10))
)


@given(st.lists(counted, min_size=2, max_size=6))
def test_laws_of_a_result(figures: list[tuple[int, int, int]]) -> None:
    """P-values are probabilities, the one that is always valid is the larger, and a verdict is never without it."""
    arms = [
        arm(str(n), v, c, buyers=c, revenue=c * each, revenue_squares=c * each**2)
        for n, (v, c, each) in enumerate(figures)
    ]
    for outcome in result(arms).outcomes[1:]:
        for compared in (outcome.by_rate, outcome.by_revenue):
            assert compared is not None
            if compared.p is None or compared.always_valid is None:
                assert compared.verdict in ("not enough yet", "no difference shown")
                continue
            assert 0 <= compared.p <= compared.always_valid <= 1
            assert compared.verdict not in ("better", "worse") or compared.always_valid <= 0.05


@given(st.lists(st.floats(0, 1), max_size=8))
def test_laws_of_holm(ps: list[float]) -> None:
    """Correction makes no p-value smaller and keeps their order."""
    found = holm(ps)

    assert all(before <= after <= 1 for before, after in zip(ps, found, strict=True))
    assert all(a <= b for a, b in pairwise(c for _, c in sorted(zip(ps, found, strict=True))))


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_laws_of_wilson(figures: tuple[int, int]) -> None:
    """The interval lies between 0 and 1 and around the share."""
    low, high = wilson(*figures)

    assert 0 <= low <= figures[0] / figures[1] + 1e-12
    assert figures[0] / figures[1] - 1e-12 <= high <= 1
