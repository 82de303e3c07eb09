"""
Time zones, and the cutting of a period into their hours, days, weeks and months.

Days are not 24 hours long, hours may come twice, and a zone may skip a date. So the cuts are instants, found by walking
the zone's own calendar. PostgreSQL gets the cuts and only sorts into them: two sets of time zone files never meet.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from goodanalytics.errors import InvalidInput

Interval = Literal["hour", "day", "week", "month"]

MAX_CUTS = 5_000  # half a year of hours

_LEAPS = {"day": 1, "week": 7, "month": 31}  # days that lead from an interval's first into the next one


def zone(name: str) -> tzinfo:
    """
    The time zone *name*.

    Raises:
        InvalidInput: There is none of that name.
    """
    if name == "UTC":  # also where the machine has no time zone files
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput(
            f"{name!r:.80} is no time zone. Use an IANA name such as 'Europe/Berlin'", where="timezone"
        ) from None


def cut(start: datetime, end: datetime, interval: Interval, local: tzinfo) -> tuple[datetime, ...]:
    """
    The beginnings of every *interval* that the time from *start* up to *end* touches.

    Ascending, in the zone *local*. The first may lie before *start*. Weeks begin on Monday.

    Raises:
        InvalidInput: They are more than 5,000.
    """
    found = [_floor(start.astimezone(local), interval)]
    while (following := _following(found[-1], interval)).astimezone(UTC) < end:
        found.append(following)
        if len(found) > MAX_CUTS:
            raise InvalidInput(
                f"There are more than {MAX_CUTS:,} parts of a {interval} from {start} to {end}. Use longer parts or a "
                "shorter period",
                where="dimensions",
            )
    return tuple(found)


def _floor(local: datetime, interval: Interval) -> datetime:
    """The beginning of the interval that *local* is in."""
    begin = local.replace(minute=0, second=0, microsecond=0)  # keeps `fold`: a repeated hour stays itself
    if interval != "hour":
        begin = begin.replace(hour=0, fold=0)
    if interval == "week":
        begin -= timedelta(days=begin.weekday())
    elif interval == "month":
        begin = begin.replace(day=1)
    # There and back: a midnight that the clocks skip becomes the first moment that the day does have.
    return begin.astimezone(UTC).astimezone(local.tzinfo)


def _following(begin: datetime, interval: Interval) -> datetime:
    """The beginning of the next interval: the first that is later as an instant, whatever the clocks do between."""
    local, instant = begin.tzinfo, begin.astimezone(UTC)
    if interval == "hour":
        # By half hours, for the zone that shifts by one (Lord Howe).
        tries: Iterable[datetime] = (
            (instant + timedelta(minutes=30 * n)).astimezone(local) for n in range(2, 6)
        )
    else:
        # Noon is in every day; further tries pass over a date that a zone skipped whole (Samoa, 2011-12-30).
        noon = begin.replace(hour=12, fold=0)
        tries = (noon + timedelta(days=_LEAPS[interval] + n) for n in range(3))
    return next(found for moment in tries if (found := _floor(moment, interval)).astimezone(UTC) > instant)


__all__ = ["MAX_CUTS", "Interval", "cut", "zone"]
