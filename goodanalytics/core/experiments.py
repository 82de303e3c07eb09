"""
What a split shows: which variant does better, as far as its figures can tell.

1. Every variant is compared with the first one, by the share of visitors who converted (a two-proportion test with pooled
   variance) and by revenue per visitor (Welch's t test, from sums and sums of squares).
2. A test of that kind may be read once, at a moment that was fixed before; whoever looks every day and stops at the first
   good news is wrong far more often than 1 in 20 times. So verdicts rest on `always_valid`: a p-value that may be looked
   at as often as one likes (mixture sequential ratio test: Robbins, 1970; Johari, Pekelis and Walsh, "Always Valid
   Inference", 2015). It is never below the plain one.
3. Several comparisons are corrected together (Holm, 1979), so that among all of them one in 20 is wrong at most. Conversion
   and revenue are two questions, each corrected by itself.
4. Below the sample that the tests' approximations need, the verdict is "not enough yet", whatever the figures look like.
5. A split whose visitors do not stand in the proportion of the weights measures something else than its variants (a
   variant that is too slow to be counted, bots on one side): `split_p` says how likely such a proportion is by chance.

Amounts are whole minor units of one currency; currencies are never added together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from goodanalytics.errors import InvalidInput

SIGNIFICANT: Final = 0.05
"""One verdict in 20 may be chance."""

MIN_VISITORS: Final = 100
"""Of each of two variants, before they are compared."""

MIN_EXPECTED: Final = 5
"""Conversions, and visitors without one, that each side must have if both were alike (Cochran, 1954)."""

MIN_BUYERS: Final = 30
"""Visitors with revenue on each side; means of so skewed figures as revenue are not nearly normal before."""

MISPLIT: Final = 0.001
"""A `split_p` below it is no chance."""

Verdict = Literal["better", "worse", "no difference shown", "not enough yet"]


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """
    The figures of one variant.

    Attributes:
        visitors: Persons who were led there.
        leads, sales: What they did, each as often as it happened; told on, and compared with nothing.
        conversions: Those of them who converted; at most *visitors*.
        buyers: Those of them with revenue; at most *visitors*.
        revenue: Of all of them, in minor units; refunds taken off.
        revenue_squares: Sum over the visitors of each one's revenue, squared.
        weight: Its share of the split, against the weights of the others.
    """

    name: str
    visitors: int
    leads: int = 0
    sales: int = 0
    conversions: int = 0
    buyers: int = 0
    revenue: int = 0
    revenue_squares: int = 0
    weight: int = 1


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """
    One variant against the first one.

    Attributes:
        lift: Relative difference, 0.1 for ten percent more; `None` when the first one has nothing.
        p: How likely so large a difference is by chance, if this were looked at once. `None` without any variance.
        always_valid: The same if it is looked at all the time; corrected for the number of variants.
    """

    lift: float | None
    p: float | None
    always_valid: float | None
    verdict: Verdict


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """
    One variant's result.

    Attributes:
        leads, sales: Of its visitors, each as often as it happened; one visitor may have several and is one conversion.
        rate: Share of visitors who converted; `None` without visitors.
        rate_low, rate_high: 95 % interval of it (Wilson, 1927).
        revenue_per_visitor: In minor units.
        by_rate, by_revenue: Against the first variant; `None` for that one itself.
    """

    name: str
    visitors: int
    leads: int
    sales: int
    conversions: int
    revenue: int
    rate: float | None
    rate_low: float | None
    rate_high: float | None
    revenue_per_visitor: float | None
    by_rate: Comparison | None
    by_revenue: Comparison | None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a split shows.

    Attributes:
        split_p: How likely the visitors' split is by chance, given the weights; `None` with fewer than five expected of one.
    """

    outcomes: list[Outcome]
    split_p: float | None

    @property
    def is_misplit(self) -> bool:
        """Whether the visitors do not stand in the proportion of the weights, so that no verdict should be believed."""
        return self.split_p is not None and self.split_p < MISPLIT


def result(arms: Sequence[Arm]) -> Result:
    """
    What *arms* show; the first is what the others are compared with.

    Raises:
        InvalidInput: Figures that cannot be, such as more conversions than visitors, or a name twice.
    """
    for arm in arms:
        _check(arm)
    if len({arm.name for arm in arms}) < len(arms):
        raise InvalidInput("two variants have the same name; give each its own", where="name")
    first, others = arms[:1], arms[1:]
    by_rate = _corrected([_by_rate(first[0], arm) for arm in others])
    by_revenue = _corrected([_by_revenue(first[0], arm) for arm in others])
    compared = [(None, None), *zip(by_rate, by_revenue, strict=True)]
    return Result(
        outcomes=[_outcome(arm, *pair) for arm, pair in zip(arms, compared, strict=False)],
        split_p=_split_p(arms),
    )


def _check(arm: Arm) -> None:
    parts = (arm.conversions, arm.buyers)
    if arm.visitors < 0 or not all(0 <= part <= arm.visitors for part in parts) or arm.weight < 1:
        raise InvalidInput(
            f"variant {arm.name!r} has {arm.conversions} conversions and {arm.buyers} buyers of {arm.visitors} visitors "
            f"at weight {arm.weight}; none can be negative or more than the visitors, and a weight is at least 1",
            where=arm.name,
        )
    # A sum of squares is never smaller than the square of the sum, divided by how many there are (Cauchy and Schwarz).
    if arm.revenue_squares * arm.visitors < arm.revenue**2:
        raise InvalidInput(
            f"variant {arm.name!r} has revenue {arm.revenue} and revenue_squares {arm.revenue_squares}, which no "
            f"{arm.visitors} visitors can have; add up each visitor's revenue, squared",
            where=arm.name,
        )


def _outcome(arm: Arm, by_rate: Comparison | None, by_revenue: Comparison | None) -> Outcome:
    low, high = (None, None) if not arm.visitors else wilson(arm.conversions, arm.visitors)
    return Outcome(
        name=arm.name,
        visitors=arm.visitors,
        leads=arm.leads,
        sales=arm.sales,
        conversions=arm.conversions,
        revenue=arm.revenue,
        rate=arm.conversions / arm.visitors if arm.visitors else None,
        rate_low=low,
        rate_high=high,
        revenue_per_visitor=arm.revenue / arm.visitors if arm.visitors else None,
        by_rate=by_rate,
        by_revenue=by_revenue,
    )


class _Test(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison before it is corrected; *statistic* is the difference in standard errors."""

    lift: float | None
    statistic: float | None
    p: float | None
    always_valid: float | None
    is_enough: bool


def _by_rate(first: Arm, arm: Arm) -> _Test:
    visitors, conversions = first.visitors + arm.visitors, first.conversions + arm.conversions
    smaller = min(first.visitors, arm.visitors)
    scarcer = min(conversions, visitors - conversions)
    z = (
        None
        if not smaller
        else two_proportions(first.conversions, first.visitors, arm.conversions, arm.visitors)
    )
    return _Test(
        lift=_lift(first.conversions, first.visitors, arm.conversions, arm.visitors),
        statistic=z,
        p=None if z is None else _two_tails(z),
        always_valid=None if z is None else _always_valid(z, first, arm),
        is_enough=smaller >= MIN_VISITORS and scarcer * smaller >= MIN_EXPECTED * visitors,
    )


def _by_revenue(first: Arm, arm: Arm) -> _Test:
    found = welch(
        first.visitors, first.revenue, first.revenue_squares, arm.visitors, arm.revenue, arm.revenue_squares
    )
    p = None if found is None else student_tails(*found)
    return _Test(
        lift=_lift(first.revenue, first.visitors, arm.revenue, arm.visitors),
        statistic=None if found is None else found[0],
        p=p,
        always_valid=None if found is None or p is None else max(p, _always_valid(found[0], first, arm)),
        is_enough=min(first.visitors, arm.visitors) >= MIN_VISITORS
        and min(first.buyers, arm.buyers) >= MIN_BUYERS,
    )


def _lift(first: int, of_first: int, other: int, of_other: int) -> float | None:
    return None if first <= 0 or not of_first or not of_other else other * of_first / (first * of_other) - 1


def _corrected(tests: Sequence[_Test]) -> list[Comparison]:
    """The comparisons with Holm's correction over all of them, those without a result among them."""
    corrected = holm([1.0 if test.always_valid is None else test.always_valid for test in tests])
    return [
        Comparison(
            lift=test.lift,
            p=test.p,
            always_valid=None if test.always_valid is None else valid,
            verdict=_verdict(test, valid),
        )
        for test, valid in zip(tests, corrected, strict=True)
    ]


def _verdict(test: _Test, valid: float) -> Verdict:
    if not test.is_enough:
        return "not enough yet"
    if test.statistic is None or valid > SIGNIFICANT:
        return "no difference shown"
    return "better" if test.statistic > 0 else "worse"


def two_proportions(first: int, of_first: int, other: int, of_other: int) -> float | None:
    """
    The difference of two shares in standard errors, pooled; `None` when all or none converted.

    >>> round(two_proportions(5, 83, 12, 99), 4)
    1.4078
    """
    share = (first + other) / (of_first + of_other)
    variance = share * (1 - share) * (1 / of_first + 1 / of_other)
    return (other / of_other - first / of_first) / math.sqrt(variance) if variance > 0 else None


def welch(
    first: int, first_sum: float, first_squares: float, other: int, other_sum: float, other_squares: float
) -> tuple[float, float] | None:
    """
    Welch's t of two samples, and its degrees of freedom, from their sizes, sums and sums of squares.

    `None` when a sample has fewer than two members, or nothing varies. Whole numbers are added exactly.
    """
    if min(first, other) < 2:
        return None
    errors = []
    for size, total, squares in ((first, first_sum, first_squares), (other, other_sum, other_squares)):
        # Multiplied out first: whole numbers stay exact, where the difference of two large floats would be noise.
        errors.append(max(0.0, (squares * size - total * total) / (size * (size - 1)) / size))
    variance = sum(errors)
    if variance <= 0:
        return None
    freedom = variance**2 / (errors[0] ** 2 / (first - 1) + errors[1] ** 2 / (other - 1))
    return (other_sum / other - first_sum / first) / math.sqrt(variance), freedom


def wilson(conversions: int, visitors: int) -> tuple[float, float]:
    """
    The 95 % interval of a share, which stays between 0 and 1 also for few visitors.

    >>> [round(bound, 4) for bound in wilson(10, 100)]
    [0.0552, 0.1744]
    """
    z = 1.959963984540054  # the normal distribution's 97.5 % point
    share, spread = conversions / visitors, z * z / visitors
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / visitors + spread / (4 * visitors)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def holm(ps: Sequence[float]) -> list[float]:
    """
    P-values corrected for their number (Holm, 1979), in the order in which they came.

    >>> [round(p, 4) for p in holm([0.50, 0.003, 0.32, 0.054, 0.0003])]
    [0.64, 0.012, 0.64, 0.162, 0.0015]
    """
    corrected = [0.0] * len(ps)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = highest
    return corrected


def _always_valid(statistic: float, first: Arm, arm: Arm) -> float:
    """The p-value that may be looked at at any time, of a difference in standard errors."""
    # Differences are expected to be about as large as the standard error of MIN_VISITORS on each side: the prior's variance
    # in units of the error's, which is how many times that sample there is by now.
    ratio = 2 / (1 / first.visitors + 1 / arm.visitors) / MIN_VISITORS
    log_evidence = statistic**2 * ratio / (2 * (1 + ratio)) - math.log1p(ratio) / 2
    return math.exp(-max(0.0, log_evidence))


def _two_tails(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))


def student_tails(t: float, freedom: float) -> float:
    """The probability that Student's t is at least as far from 0 as *t*."""
    return _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b), by the continued fraction of DLMF, section 8.17(v), evaluated by Lentz's method."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    tiny = 1e-300
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away(1 + term * d, tiny)
            c = _away(1 + term / c, tiny)
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * fraction / a


_MOST_TERMS = 10_000  # a hundred are enough for a million degrees of freedom


def _away(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny


def _split_p(arms: Sequence[Arm]) -> float | None:
    """Pearson's chi-squared test of the visitors' split against the weights."""
    visitors, weights = sum(arm.visitors for arm in arms), sum(arm.weight for arm in arms)
    expected = [visitors * arm.weight / weights for arm in arms]
    if len(arms) < 2 or min(expected) < MIN_EXPECTED:
        return None
    squared = sum((arm.visitors - e) ** 2 / e for arm, e in zip(arms, expected, strict=True))
    return chi_squared_tail(squared, len(arms) - 1)


def chi_squared_tail(x: float, freedom: int) -> float:
    """The probability that chi-squared with *freedom* degrees, a whole number, is at least *x* (DLMF, section 8.8)."""
    half = x / 2
    tail, a = (math.exp(-half), 1.0) if freedom % 2 == 0 else (math.erfc(math.sqrt(half)), 0.5)
    while half > 0 and a < freedom / 2:
        tail += math.exp(a * math.log(half) - half - math.lgamma(a + 1))
        a += 1
    return min(1.0, tail)
