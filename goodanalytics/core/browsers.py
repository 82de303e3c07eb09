"""
A browser's random id, as its cookie says it: with the day on which the cookie was set.

The day is counted from 1970 in UTC, so that who sees the cookie again on that day need not set it again.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

DAY: Final = r"\.[0-9]{5}"
"""What stands behind an id, as a pattern; until the year 2243."""

_SECONDS: Final = 86_400

_dated = re.compile(f"(.*)({DAY})", re.DOTALL).fullmatch


def parted(value: str) -> tuple[str, str]:
    """
    A browser's id, and the day of its cookie; no day where none is named.

    >>> parted("kVJz0Y3pQmC2hX7n9bLwEg.20779"), parted("some-id")
    (('kVJz0Y3pQmC2hX7n9bLwEg', '.20779'), ('some-id', ''))
    """
    found = _dated(value)
    return (value, "") if found is None else (found[1], found[2])


def day_of(now: datetime) -> str:
    """How the day of *now* stands in a cookie."""
    return f".{int(now.timestamp()) // _SECONDS:05}"


def id_in(value: str | None) -> str | None:
    """The id of a browser, whether its cookie's whole value was given or the id alone."""
    return value and parted(value)[0]
