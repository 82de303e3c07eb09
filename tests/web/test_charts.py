"""Charts: figures in, coordinates out."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.web.dashboard import charts
from goodanalytics.web.dashboard.charts import Series

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        pytest.param(0, (0, 1, 2), id="nothing"),
        pytest.param(1, (0, 1, 2), id="one"),
        pytest.param(3, (0, 1, 2, 3), id="a few"),
        pytest.param(5, (0, 2, 4, 6), id="next step"),
        pytest.param(137, (0, 50, 100, 150), id="hundreds"),
        pytest.param(200, (0, 50, 100, 150, 200), id="exactly the top"),
        pytest.param(201, (0, 100, 200, 300), id="just above"),
    ],
)
def test_a_scale_is_round_and_reaches_the_most(most, expected):
    """Grid lines stand at steps of 1, 2 or 5 times a power of ten, from 0 to the first that is not below the most."""
    assert charts.scale(most) == expected


@given(st.integers(0, 10**15))
def test_every_scale_is_even_and_short(most):
    """Whatever the most is: 2 to 5 lines at equal distances, of which the last is not below it."""
    levels = charts.scale(most)

    assert levels[0] == 0
    assert levels[-1] >= most
    assert 2 <= len(levels) <= 5
    assert len({b - a for a, b in itertools.pairwise(levels)}) == 1


def test_a_line_goes_through_the_middle_of_each_place():
    """Two places of 0 and 2 on a scale up to 2: a quarter from the left at the bottom, a quarter from the right at the top."""
    (line,) = charts.draw(["a", "b"], [Series("Visitors", (0, 2))]).lines

    assert line.stroke == "M250,100L750,0"
    assert line.area == "M250,100L750,0L750,100L250,100Z"


def test_a_single_place_is_a_line_across():
    """One value would be a point without length, which browsers do not draw."""
    (line,) = charts.draw(["a"], [Series("Visitors", (1,))]).lines

    assert line.stroke == "M0,50L1000,50"


def test_no_place_draws_no_line():
    """An empty chart has its grid and nothing else."""
    chart = charts.draw([], [Series("Visitors", ())])

    assert (chart.lines[0].stroke, chart.labels, chart.bands) == ("", (), ())
    assert [level.value for level in chart.levels] == [0, 1, 2]


def test_all_series_share_one_scale():
    """Lines can be compared by eye: the scale is that of the largest value of all."""
    few, many = charts.draw(["a"], [Series("Visitors", (5,)), Series("Pageviews", (10,))]).lines

    assert (few.stroke, many.stroke) == ("M0,50L1000,50", "M0,0L1000,0")


def test_a_series_of_another_length_is_refused():
    """A line that would be shifted against its labels is not drawn."""
    with pytest.raises(ValueError, match="Visitors has 1 values for 2 places"):
        charts.draw(["a", "b"], [Series("Visitors", (1,))])


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=400))
def test_everything_stays_inside_the_plot(values):
    """No figure leads out of the plot, and each place has a band of its own."""
    chart = charts.draw([str(n) for n in range(len(values))], [Series("Visitors", tuple(values))])

    xs, ys = zip(
        *[map(float, pair.split(",")) for pair in re.split("[ML]", chart.lines[0].stroke)[1:]], strict=True
    )
    assert 0 <= min(xs) <= max(xs) <= charts.WIDTH
    assert 0 <= min(ys) <= max(ys) <= charts.HEIGHT
    assert re.fullmatch(
        rf"M{NUMBER.pattern},{NUMBER.pattern}(L{NUMBER.pattern},{NUMBER.pattern})+", chart.lines[0].stroke
    )
    assert [band.place for band in chart.bands] == list(range(len(values)))


@given(st.integers(1, 1_000))
def test_labels_are_few_and_in_order(places):
    """However long the period: the first place has a label, and there are at most 8."""
    labels = charts.draw([str(n) for n in range(places)], []).labels

    assert labels[0].text == "0"
    assert len(labels) <= charts.MOST_LABELS
    assert [label.x for label in labels] == sorted({label.x for label in labels})


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        pytest.param(1, 3, 33.33, id="a third"),
        pytest.param(3, 3, 100.0, id="all"),
        pytest.param(0, 0, 0.0, id="of nothing"),
        pytest.param(5, 3, 100.0, id="more than all"),
        pytest.param(-1, 3, 0.0, id="less than nothing"),
    ],
)
def test_a_bar_is_0_to_100_percent(part, whole, expected):
    """A bar never leaves its row."""
    assert charts.share(part, whole) == expected
