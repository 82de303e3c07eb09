"""
The true figures of the demo's traffic, counted from the plan of who did what, never from the database.

What counts (the definitions of `store.reports.metrics`)
1. Nothing that a bot does counts.
2. A visitor is a person, on however many devices. A click on a short link makes no visitor; landing does.
3. A visit is a bounce if it has one pageview and nothing that was done on purpose (`core.sessions.ACTS`).
4. A lead or a sale counts if the host vouches for it; what a browser claims is only one of `events_by_type`.
5. Days are UTC days. A visit belongs to the day on which it began, a visitor to each day with a visit's event.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from goodanalytics.core.hits import EventType, Hit
from goodanalytics.core.sessions import ACTS
from goodanalytics.demo.crowd import Arrival


@dataclass(frozen=True, slots=True)
class Visit:
    """
    One visit as it was planned.

    Attributes:
        person: Number of the person.
        device: The anonymous id of the browser.
        arrival: Where it came from.
        pages: Path of each pageview, in order.
        hits: All that was done, in order, the click that led here included.
    """

    person: int
    device: str
    arrival: Arrival
    pages: tuple[str, ...]
    hits: tuple[Hit, ...]

    @property
    def started_at(self) -> datetime:
        """When the landing page was opened."""
        return next(hit.occurred_at for hit in self.hits if hit.event_type is EventType.PAGEVIEW)

    @property
    def is_bounce(self) -> bool:
        """Whether the landing page was all."""
        return len(self.pages) == 1 and not any(hit.event_type in ACTS for hit in self.hits)


@dataclass(frozen=True, slots=True)
class Day:
    """What one UTC day saw."""

    visitors: int
    visits: int
    pageviews: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """
    What is true of a generated history.

    Attributes:
        visitors: Persons.
        devices: Browsers; more than persons, because some people log in on a second one.
        events_by_type: All that persons did, also what is not believed.
        leads, sales: Vouched for by the host.
        revenue_cents: By currency, in minor units; of *sales*.
        clicks_by_link: By the link's key; also of clicks that never landed.
        visits_by_source: By platform and medium.
        days: Every day from the first to the last, quiet ones too.
        bot_hits: What must not be counted.
    """

    visitors: int
    devices: int
    visits: int
    bounces: int
    pageviews: int
    events_by_type: Mapping[EventType, int]
    leads: int
    sales: int
    revenue_cents: Mapping[str, int]
    clicks_by_link: Mapping[str, int]
    visits_by_source: Mapping[tuple[str, str], int]
    pageviews_by_path: Mapping[str, int]
    days: Mapping[date, Day]
    bot_hits: int


def count(
    visits: Sequence[Visit],
    lost_clicks: Sequence[tuple[str, Hit]],
    bot_hits: Sequence[Hit],
    *,
    since: date,
    to: date,
) -> Figures:
    """
    Count a plan.

    Args:
        visits: Of all persons.
        lost_clicks: Clicks of persons who never landed, each with its link's key.
        bot_hits: What crawlers did.
        since: First day of the history.
        to: Last day of the history.
    """
    done = [hit for visit in visits for hit in visit.hits]
    done += [click for _, click in lost_clicks]
    leads = [hit for hit in done if hit.event_type is EventType.LEAD and hit.trusted]
    sales = [hit for hit in done if hit.event_type is EventType.SALE and hit.trusted]
    revenue: Counter[str] = Counter()
    for sale in sales:
        revenue[sale.currency or ""] += sale.amount_cents or 0
    clicks = Counter(visit.arrival.link for visit in visits if visit.arrival.link is not None)
    clicks.update(key for key, _ in lost_clicks)
    return Figures(
        visitors=len({visit.person for visit in visits}),
        devices=len({visit.device for visit in visits}),
        visits=len(visits),
        bounces=sum(visit.is_bounce for visit in visits),
        pageviews=sum(len(visit.pages) for visit in visits),
        events_by_type=Counter(hit.event_type for hit in done),
        leads=len(leads),
        sales=len(sales),
        revenue_cents=revenue,
        clicks_by_link=clicks,
        visits_by_source=Counter((visit.arrival.platform, visit.arrival.medium) for visit in visits),
        pageviews_by_path=Counter(path for visit in visits for path in visit.pages),
        days=_days(visits, since, to),
        bot_hits=len(bot_hits),
    )


def _days(visits: Sequence[Visit], since: date, to: date) -> dict[date, Day]:
    """Each day's own numbers; a visit over midnight shows its person on both days."""
    people: defaultdict[date, set[int]] = defaultdict(set)
    begun: Counter[date] = Counter()
    pageviews: Counter[date] = Counter()
    for visit in visits:
        begun[_day(visit.started_at)] += 1
        for hit in visit.hits:
            if hit.event_type is EventType.PAGEVIEW:
                pageviews[_day(hit.occurred_at)] += 1
            if hit.event_type not in (EventType.LINK_CLICK, EventType.ENGAGEMENT):
                people[_day(hit.occurred_at)].add(visit.person)
    days = (since + timedelta(days=n) for n in range((to - since).days + 1))
    return {day: Day(len(people[day]), begun[day], pageviews[day]) for day in days}


def _day(at: datetime) -> date:
    return at.astimezone(UTC).date()
