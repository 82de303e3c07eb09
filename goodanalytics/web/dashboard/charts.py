"""
Charts as numbers and SVG path texts; the templates draw them.

Rules of this file
1. Pure: figures in, coordinates out. Nothing here is HTML and nothing comes from a visitor but whole numbers.
2. The plot has a coordinate system of its own, 1,000 wide and 100 high, and is stretched to whatever room there is
   (`preserveAspectRatio="none"`); positions of texts are percentages of the room, so that letters are never stretched.
3. No `style` attribute is needed anywhere: the dashboard's Content-Security-Policy refuses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH = 1_000
HEIGHT = 100
MOST_LABELS = 8
"""As many as fit beside each other on a small tablet; of these a telephone of 360 px shows every second one."""

EDGE = 4.0
"""Percent of the width at each end in which a centred label would be cut off."""


@dataclass(frozen=True, slots=True)
class Series:
    """
    What is drawn as one line.

    Attributes:
        name: For the legend.
        values: Not negative; one for each place on the x axis.
    """

    name: str
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """
    A series as paths.

    Attributes:
        stroke: The line's `d`.
        area: The `d` of the surface between the line and the x axis.
    """

    name: str
    stroke: str
    area: str


@dataclass(frozen=True, slots=True)
class Level:
    """
    A horizontal line of the grid.

    Attributes:
        y: Percent of the height, from the top.
    """

    y: float
    value: int


@dataclass(frozen=True, slots=True)
class Label:
    """
    A text below the x axis.

    Attributes:
        x: Percent of the width.
        anchor: Which side of the text stands at *x*; SVG's `text-anchor`.
    """

    x: float
    text: str
    anchor: Literal["start", "middle", "end"]


@dataclass(frozen=True, slots=True)
class Band:
    """
    The part of the width that belongs to one place on the x axis.

    Attributes:
        x, width: Percent of the width.
        place: Index of the place.
    """

    x: float
    width: float
    place: int


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing of one or more series over one x axis."""

    lines: tuple[Line, ...]
    levels: tuple[Level, ...]
    labels: tuple[Label, ...]
    bands: tuple[Band, ...]


def draw(labels: Sequence[str], series: Sequence[Series]) -> Chart:
    """
    A line chart of *series* on one scale, which begins at 0.

    Args:
        labels: A text for each place on the x axis, of which at most 8 are shown.
        series: Each with as many values as there are *labels*.

    Raises:
        ValueError: A series has another number of values.
    """
    for one in series:
        if len(one.values) != len(labels):
            raise ValueError(
                f"{one.name} has {len(one.values)} values for {len(labels)} places; give one for each"
            )
    levels = scale(max((value for one in series for value in one.values), default=0))
    return Chart(
        lines=tuple(_line(one, levels[-1]) for one in series),
        levels=tuple(Level(_rounded(100 - 100 * value / levels[-1]), value) for value in levels),
        labels=_labels(labels),
        bands=tuple(
            Band(_rounded(100 * n / len(labels)), _rounded(100 / len(labels)), n) for n in range(len(labels))
        ),
    )


def scale(most: int) -> tuple[int, ...]:
    """
    Round values from 0 to at least *most*: 2 to 5 equal steps of 1, 2 or 5 times a power of ten.

    >>> scale(137)
    (0, 50, 100, 150)
    """
    wanted = max(most, 2)
    power = 1
    while True:
        for step in (power, 2 * power, 5 * power):
            steps = -(-wanted // step)
            if steps <= 4:
                return tuple(step * n for n in range(steps + 1))
        power *= 10


def share(part: int, whole: int) -> float:
    """
    Percent of *whole* that *part* is, from 0 to 100, as the length of a bar.

    >>> share(1, 3)
    33.33
    """
    return _rounded(min(max(100 * part / whole, 0), 100)) if whole > 0 else 0.0


def _line(series: Series, top: int) -> Line:
    if not series.values:
        return Line(series.name, "", "")
    step = WIDTH / len(series.values)
    points = [
        (_rounded(step * (n + 0.5)), _rounded(HEIGHT - HEIGHT * value / top))
        for n, value in enumerate(series.values)
    ]
    if len(points) == 1:  # one place would be a point without any length, which is not drawn
        points = [(0.0, points[0][1]), (float(WIDTH), points[0][1])]
    stroke = "M" + "L".join(f"{x:g},{y:g}" for x, y in points)
    return Line(series.name, stroke, f"{stroke}L{points[-1][0]:g},{HEIGHT}L{points[0][0]:g},{HEIGHT}Z")


def _labels(texts: Sequence[str]) -> tuple[Label, ...]:
    every = max(1, -(-len(texts) // MOST_LABELS))
    found = []
    for n in range(0, len(texts), every):
        x = _rounded(100 * (n + 0.5) / len(texts))
        anchor: Literal["start", "middle", "end"] = (
            "start" if x < EDGE else "end" if x > 100 - EDGE else "middle"
        )
        found.append(Label(x, texts[n], anchor))
    return tuple(found)


def _rounded(number: float) -> float:
    return round(number, 2)


__all__ = ["Band", "Chart", "Label", "Level", "Line", "Series", "draw", "scale", "share"]
