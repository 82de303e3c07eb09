"""
What earned it: the touches that led to a conversion, and the division of its money among them.

1. A *touch* is one visit with the source that it came from. A person's *path* is their touches, oldest first.
2. A direct visit is a touch, but never the last one that counts while any other touch exists: someone who types the
   address was brought here earlier (last non-direct click, as Google Analytics counts it).
3. Money is whole minor units of one currency. A division gives each touch its exact share rounded towards zero and
   the missing units one by one to the largest fractions, the earlier touch first; so the parts sum to the whole.
4. A refund is divided like its sale with the sign turned, so that the two cancel out touch by touch.

Source of rule 2: https://support.google.com/analytics/answer/10597962 (attribution models of Google Analytics).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from typing import Any, assert_never
from uuid import UUID

from goodanalytics.core.sources import Source


@dataclass(frozen=True, slots=True)
class Touch:
    """
    One visit, as a step on the way to a conversion.

    Attributes:
        at: When the visit began. Aware.
        source: Where it came from, as `Source.to_json()`.
        session_id: Of the visit.
        click_id: Of the short link's click that it landed from.
    """

    at: datetime
    source: dict[str, Any]
    session_id: UUID | None = None
    click_id: UUID | None = None

    @property
    def is_direct(self) -> bool:
        """Whether nothing is known about where the visit came from."""
        return Source.from_json(self.source).is_direct


class Model(StrEnum):
    """Who gets the credit. The words of the HTTP surface."""

    FIRST = "first"
    LAST = "last"
    LINEAR = "linear"


@dataclass(frozen=True, slots=True)
class Credit:
    """
    A touch's share of a conversion.

    Attributes:
        touch: `None` when no visit led to it: nobody to thank but the visitor.
        cents: Minor units of the conversion's currency.
    """

    touch: Touch | None
    cents: int


def first(path: Sequence[Touch]) -> Touch | None:
    """The touch that began it all, direct or not; `None` for an empty path."""
    return path[0] if path else None


def last_non_direct(path: Sequence[Touch]) -> Touch | None:
    """The last touch that was not direct; the very last one when all were; `None` for an empty path."""
    if not path:
        return None
    return next((touch for touch in reversed(path) if not touch.is_direct), path[-1])


def credit(path: Sequence[Touch], cents: int, model: Model) -> list[Credit]:
    """
    Divide *cents* among the touches of *path*.

    The parts sum to *cents* exactly. Each touch that *model* gives a weight has a part, in the path's order; a part may
    be 0.

    Args:
        path: Oldest first; may be empty, which credits no touch with everything.
        cents: Minor units of one currency; negative for a refund.
        model: Who gets the credit.

    >>> from datetime import UTC, datetime
    >>> day = [Touch(datetime(2026, 5, d, tzinfo=UTC), {"platform": "google", "medium": "organic"}) for d in (1, 2, 3)]
    >>> [part.cents for part in credit(day, 100, Model.LINEAR)]
    [34, 33, 33]
    """
    if not path:
        return [Credit(None, cents)]
    weighed = _weights(path, model)
    parts = divide(cents, [weight for _, weight in weighed])
    return [Credit(touch, part) for (touch, _), part in zip(weighed, parts, strict=True)]


def divide(cents: int, weights: Sequence[int]) -> list[int]:
    """
    Divide *cents* in proportion to *weights* by largest remainder; of equal remainders the earlier part is served first.

    Args:
        cents: The whole; of either sign.
        weights: Not negative, not all 0.

    Raises:
        ValueError: *weights* cannot be divided by.

    >>> divide(-100, [1, 1, 1])
    [-34, -33, -33]
    """
    total = sum(weights)
    if total <= 0 or min(weights) < 0:
        raise ValueError(f"weights are {list(weights)}; use numbers from 0 up of which one is more than 0")
    shares = [Fraction(abs(cents) * weight, total) for weight in weights]
    parts = [int(share) for share in shares]
    missing = abs(cents) - sum(parts)
    by_remainder = sorted(range(len(parts)), key=lambda n: (parts[n] - shares[n], n))
    for n in by_remainder[:missing]:
        parts[n] += 1
    return parts if cents >= 0 else [-part for part in parts]


def _weights(path: Sequence[Touch], model: Model) -> list[tuple[Touch, int]]:
    """The touches that *model* credits, with the weight of each. *path* is not empty."""
    match model:
        case Model.FIRST:
            return [(path[0], 1)]
        case Model.LAST:
            return [(last_non_direct(path) or path[-1], 1)]
        case Model.LINEAR:
            return [(touch, 1) for touch in path]
        case _:
            assert_never(model)


__all__ = ["Credit", "Model", "Touch", "credit", "divide", "first", "last_non_direct"]
