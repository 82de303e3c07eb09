"""
What a page of the dashboard is asked for, read from its query string; and the query strings of its links.

Rules of this file
1. Everything in a query string may be wrong. What is wrong raises `InvalidInput` with the parameter's name in `where`;
   parameters that no page knows are passed over, for mail programs and chat tools add their own.
2. A period is whole local days, first and last included. The presets end today. `from` and `to` go before a preset.
3. The period before has as many days. When the period is not over yet, the one before ends at the same time of its last
   day, so that a morning is never compared with a whole day.
4. `filter=dimension:operator:value`, any number of times. Several values of the same dimension and operator make one filter:
   any of them fits. An empty value means "not set".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Literal, get_args
from urllib.parse import urlencode

from goodanalytics.errors import InvalidInput
from goodanalytics.store.reports.periods import zone
from goodanalytics.store.reports.query import EVENT_DIMENSIONS, VISIT_DIMENSIONS, Filter, Operator

Preset = Literal["today", "7d", "28d", "90d", "12m"]
Interval = Literal["hour", "day", "month"]

PRESETS: dict[Preset, str] = {
    "today": "Today",
    "7d": "7 days",
    "28d": "28 days",
    "90d": "90 days",
    "12m": "12 months",
}
DEFAULT: Preset = "28d"
MOST_DAYS = 3_660  # ten years
FIRST_YEAR, LAST_YEAR = 1990, 2199
MOST_FILTERS = 20
DAYS_BY_DAY = 400
"""A longer period is drawn by months."""

# Not `link`, `event_type`, `currency`: only some events have those, and all the other figures of the page would be 0.
FILTERED = tuple(
    name for name in VISIT_DIMENSIONS + EVENT_DIMENSIONS if name not in {"link", "event_type", "currency"}
)
OPERATORS: dict[Operator, str] = {
    "is": "is",
    "is_not": "is not",
    "contains": "contains",
    "contains_not": "does not contain",
}
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """
    A page's question.

    Attributes:
        preset: `None` for dates that were given.
        first, last: Local days, both included.
        timezone: IANA name.
        now: When the page was asked for. Aware.
    """

    preset: Preset | None
    first: date
    last: date
    timezone: str
    filters: tuple[Filter, ...]
    now: datetime

    @property
    def zone(self) -> tzinfo:
        """Of all times on the page."""
        return zone(self.timezone)

    @property
    def days(self) -> int:
        """Length of the period."""
        return (self.last - self.first).days + 1

    @property
    def interval(self) -> Interval:
        """What one point of the chart stands for."""
        return "hour" if self.days == 1 else "day" if self.days <= DAYS_BY_DAY else "month"

    @property
    def period(self) -> tuple[datetime, datetime]:
        """From (inside) and to (outside), in UTC."""
        return self._midnight(self.first), self._midnight(self.last + timedelta(days=1))

    @property
    def before(self) -> tuple[datetime, datetime]:
        """The period to compare with: rule 3."""
        length = timedelta(days=self.days)
        start, end = self.period
        begin = self._midnight(self.first - length)
        if not start < self.now < end:
            return begin, start
        so_far = (self.now.astimezone(self.zone) - length).astimezone(UTC)
        return begin, max(so_far, begin + timedelta(microseconds=1))

    def local(self, at: datetime) -> datetime:
        """*at* in the page's time zone."""
        return at.astimezone(self.zone)

    def fields(self, *without: str) -> list[tuple[str, str]]:
        """The parameters that ask for this again, but for those named; defaults are left out."""
        found: list[tuple[str, str]] = []
        if self.preset is None:
            found += [("from", self.first.isoformat()), ("to", self.last.isoformat())]
        elif self.preset != DEFAULT:
            found.append(("period", self.preset))
        if self.timezone != "UTC":
            found.append(("tz", self.timezone))
        found += [("filter", written) for written in written_filters(self.filters)]
        return [(name, value) for name, value in found if name not in without]

    def href(self, **more: str | None) -> str:
        """The query string with its question mark, or nothing; *more* adds other parameters of the page."""
        return _query_string([*self.fields(), *((n, v) for n, v in more.items() if v)])

    def in_period(self, preset: Preset) -> str:
        """The query string for another preset period."""
        fields = self.fields("period", "from", "to")
        return _query_string(fields if preset == DEFAULT else [("period", preset), *fields])

    def in_zone(self, timezone: str) -> str:
        """The query string for another time zone."""
        return replace(self, timezone=timezone).href()

    def filtered(self, dimension: str, value: str | None) -> str:
        """The query string that leaves only what has *value* as its *dimension*, whatever was said about it before."""
        others = tuple(f for f in self.filters if not (f.dimension == dimension and f.op == "is"))
        return replace(self, filters=(*others, Filter(dimension, "is", (value,)))).href()

    def without(self, dropped: Filter) -> str:
        """The query string without the filter *dropped*."""
        return replace(self, filters=tuple(f for f in self.filters if f != dropped)).href()

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time.min, self.zone).astimezone(UTC)


def read(parameters: Sequence[tuple[str, str]], now: datetime) -> Asked:
    """
    Read a query string's names and values; of a name that is given twice (other than `filter`) the first counts.

    Raises:
        InvalidInput: A value is wrong; `where` is its name.
    """
    typed = first_of(parameters)
    try:
        timezone = typed.get("tz", "").strip() or "UTC"
        now.astimezone(zone(timezone))
    except (InvalidInput, OverflowError) as error:
        raise InvalidInput(str(error), where="tz") from None
    today = now.astimezone(zone(timezone)).date()
    preset, first, last = _dates(typed, today)
    return Asked(
        preset=preset,
        first=first,
        last=last,
        timezone=timezone,
        filters=_filters([value for name, value in parameters if name == "filter"]),
        now=now,
    )


def first_of(parameters: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The first value of each name."""
    found: dict[str, str] = {}
    for name, value in parameters:
        found.setdefault(name, value)
    return found


def written_filters(filters: Iterable[Filter]) -> list[str]:
    """*filters* as the values of `filter` that `read` reads back."""
    return [f"{f.dimension}:{f.op}:{value or ''}" for f in filters for value in f.values]


def _dates(typed: dict[str, str], today: date) -> tuple[Preset | None, date, date]:
    begin, end = typed.get("from", "").strip(), typed.get("to", "").strip()
    if begin or end:
        first, last = _date("from", begin), _date("to", end)
        if last < first:
            raise InvalidInput(
                f"the last day, {last}, comes before the first, {first}. Swap the two", where="to"
            )
        if (last - first).days >= MOST_DAYS:
            raise InvalidInput(
                f"{first} to {last} is more than ten years. Choose a shorter period", where="to"
            )
        return None, first, last
    preset = typed.get("period", "").strip() or DEFAULT
    for known in PRESETS:
        if preset == known:
            return known, _first_of_preset(known, today), today
    raise InvalidInput(f"{preset!r:.80} is no period. Use one of: {', '.join(PRESETS)}", where="period")


def _first_of_preset(preset: Preset, today: date) -> date:
    if preset == "12m":
        # The 29th of February has no twin in most years; the next day's twin is the same first day.
        tomorrow = today + timedelta(days=1)
        return tomorrow.replace(
            year=tomorrow.year - 1, day=min(tomorrow.day, 28) if tomorrow.month == 2 else tomorrow.day
        )
    lengths: dict[Preset, int] = {"today": 1, "7d": 7, "28d": 28, "90d": 90}
    return today - timedelta(days=lengths[preset] - 1)


def _date(name: str, written: str) -> date:
    if not written:
        raise InvalidInput("a period needs its first and its last day. Give both", where=name)
    try:
        found = date.fromisoformat(written) if _DATE.fullmatch(written) else None
    except ValueError:
        found = None
    if found is None or not FIRST_YEAR <= found.year <= LAST_YEAR:
        raise InvalidInput(f"{written!r:.80} is no date. Write it as 2026-11-01", where=name)
    return found


def _filters(written: Sequence[str]) -> tuple[Filter, ...]:
    if len(written) > MOST_FILTERS:
        raise InvalidInput(
            f"{len(written)} filters; at most {MOST_FILTERS} are read. Remove some", where="filter"
        )
    found: dict[tuple[str, Operator], list[str | None]] = {}
    for one in written:
        dimension, operator, value = _parts(one)
        values = found.setdefault((dimension, operator), [])
        if value not in values:
            values.append(value)
    try:
        return tuple(Filter(dimension, op, tuple(values)) for (dimension, op), values in found.items())
    except InvalidInput as error:
        raise InvalidInput(str(error), where="filter") from None


def _parts(written: str) -> tuple[str, Operator, str | None]:
    dimension, _, rest = written.partition(":")
    operator, colon, value = rest.partition(":")
    if not colon:
        raise InvalidInput(
            f"{written!r:.80} is no filter. Write dimension:operator:value, such as source:is:google",
            where="filter",
        )
    if dimension not in FILTERED:
        raise InvalidInput(
            f"{dimension!r:.80} cannot be filtered by. Use one of: {', '.join(FILTERED)}", where="filter"
        )
    for known in get_args(Operator):
        if operator == known:
            return dimension, known, value or None
    raise InvalidInput(f"{operator!r:.80} is no operator. Use one of: {', '.join(OPERATORS)}", where="filter")


def _query_string(fields: Sequence[tuple[str, str]]) -> str:
    return f"?{urlencode(fields)}" if fields else ""


__all__ = ["FILTERED", "OPERATORS", "PRESETS", "Asked", "Preset", "first_of", "read", "written_filters"]
