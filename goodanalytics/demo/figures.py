"""
The true figures of the demo's traffic, counted from the plan of who did what, never from the database.

What counts (the definitions of `store.reports.metrics`)
1. Nothing that a bot does counts.
2. A visitor is a person, on however many devices. A click on a short link makes no visitor; landing does.
3. A visit is a bounce if it has one pageview and nothing that was done on purpose (`core.sessions.ACTS`).
4. A lead or a sale counts if the host vouches for it; what a browser claims is only one of `events_by_type`.
5. Days are UTC days. A visit belongs to the day on which it began, a visitor to each day with a visit's event.
6. Revenue is sales less refunds. A sale that was given back stays a sale, and a refund makes no visitor.
7. A sale is the partner's whom its buyer came by last, if that is not too long ago (`core.referral`); what is given back
   takes the same part of the commission, rounded as all refunds of the sale together (`core.commissions`).
8. A link's leads, sales and money are those of visits that one of its clicks began; of a split, everybody's who saw the side.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from goodanalytics.core.hits import EventType, Hit
from goodanalytics.core.sessions import ACTS
from goodanalytics.demo.crowd import RULED, SPLIT, Arrival
from goodanalytics.demo.trade import PARTNER


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
class Referred:
    """
    What came of the partner.

    Attributes:
        visitors: People who arrived by them.
        sales: That they earned with, also those that were given back.
        revenue_cents: Of *sales* less refunds, by currency.
        earned_cents, reversed_cents: Their commission, and what refunds took back of it, by currency.
    """

    visitors: int
    sales: int
    revenue_cents: Mapping[str, int]
    earned_cents: Mapping[str, int]
    reversed_cents: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """
    What came of one side of the split.

    Attributes:
        visitors: People who clicked; *clicks* of those who never landed are among them.
        revenue_cents: Of *sales* less refunds, by currency.
    """

    clicks: int
    visitors: int
    leads: int
    sales: int
    revenue_cents: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """
    What is true of a generated history.

    Attributes:
        visitors: Persons.
        devices: Browsers; more than persons, because some people log in on a second one.
        events_by_type: All that persons did, also what is not believed.
        leads, sales: Vouched for by the host.
        refunds: Of those sales; some take two.
        refunded_cents: By currency, in minor units.
        revenue_cents: By currency, in minor units; of *sales*, less *refunded_cents*.
        clicks_by_link: By the link's key; also of clicks that never landed.
        clicks_by_rule: Of the link `crowd.RULED`, by the rule's name; those whom no rule took are not among them.
        split: Of the link `crowd.SPLIT`, by the side's name.
        partner: Of `trade.PARTNER`.
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
    refunds: int
    refunded_cents: Mapping[str, int]
    revenue_cents: Mapping[str, int]
    clicks_by_link: Mapping[str, int]
    clicks_by_rule: Mapping[str, int]
    split: Mapping[str, Shown]
    partner: Referred
    visits_by_source: Mapping[tuple[str, str], int]
    pageviews_by_path: Mapping[str, int]
    days: Mapping[date, Day]
    bot_hits: int


def counting_sales(visits: Iterable[Visit]) -> list[Hit]:
    """The sales that the host vouches for."""
    return [hit for visit in visits for hit in visit.hits if hit.event_type is EventType.SALE and hit.trusted]


def count(
    visits: Sequence[Visit],
    refunds: Sequence[Hit],
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
        refunds: Of sales among them, in the order of time for each sale.
        lost_clicks: Clicks of persons who never landed, each with its link's key.
        bot_hits: What crawlers did.
        since: First day of the history.
        to: Last day of the history.
    """
    done = [hit for visit in visits for hit in visit.hits] + [*refunds]
    done += [click for _, click in lost_clicks]
    leads = [hit for hit in done if hit.event_type is EventType.LEAD and hit.trusted]
    sales = counting_sales(visits)
    back = _by_sale(refunds)
    clicks = _clicks(visits, lost_clicks)
    return Figures(
        visitors=len({visit.person for visit in visits}),
        devices=len({visit.device for visit in visits}),
        visits=len(visits),
        bounces=sum(visit.is_bounce for visit in visits),
        pageviews=sum(len(visit.pages) for visit in visits),
        events_by_type=Counter(hit.event_type for hit in done),
        leads=len(leads),
        sales=len(sales),
        refunds=len(refunds),
        refunded_cents=_money(refunds),
        revenue_cents=_revenue(sales, back),
        clicks_by_link={key: len(found) for key, found in clicks.items()},
        clicks_by_rule=Counter(
            str(click.properties["rule"]) for click in clicks.get(RULED, ()) if "rule" in click.properties
        ),
        split=_split(visits, lost_clicks, back),
        partner=_referred(visits, back),
        visits_by_source=Counter((visit.arrival.platform, visit.arrival.medium) for visit in visits),
        pageviews_by_path=Counter(path for visit in visits for path in visit.pages),
        days=_days(visits, since, to),
        bot_hits=len(bot_hits),
    )


_Refunds = Mapping[UUID | None, Sequence[Hit]]
"""By the sale that they take back."""


def _by_sale(refunds: Iterable[Hit]) -> _Refunds:
    found: defaultdict[UUID | None, list[Hit]] = defaultdict(list)
    for refund in refunds:
        found[refund.sale_id].append(refund)
    return found


def _money(hits: Iterable[Hit]) -> Counter[str]:
    found: Counter[str] = Counter()
    for hit in hits:
        found[hit.currency or ""] += hit.amount_cents or 0
    return found


def _revenue(sales: Sequence[Hit], back: _Refunds) -> Counter[str]:
    found = _money(sales)
    found.subtract(_money(refund for sale in sales for refund in back.get(sale.id, ())))
    return found


def _clicks(visits: Iterable[Visit], lost: Iterable[tuple[str, Hit]]) -> Mapping[str, list[Hit]]:
    found: defaultdict[str, list[Hit]] = defaultdict(list)
    for visit in visits:
        for hit in visit.hits:
            if hit.event_type is EventType.LINK_CLICK and visit.arrival.link is not None:
                found[visit.arrival.link].append(hit)
    for key, click in lost:
        found[key].append(click)
    return found


def _split(visits: Iterable[Visit], lost: Iterable[tuple[str, Hit]], back: _Refunds) -> Mapping[str, Shown]:
    """Everybody clicks on it once at the most, so each person is of one side."""
    came: defaultdict[str, list[Visit]] = defaultdict(list)
    for visit in visits:
        if visit.arrival.link == SPLIT:
            came[_side(visit.hits[0])].append(visit)
    strayed = Counter(_side(click) for key, click in lost if key == SPLIT)
    return {
        name: Shown(
            clicks=len(came[name]) + strayed[name],
            visitors=len({visit.person for visit in came[name]}) + strayed[name],
            leads=sum(hit.event_type is EventType.LEAD for visit in came[name] for hit in visit.hits),
            sales=len(counting_sales(came[name])),
            revenue_cents=_revenue(counting_sales(came[name]), back),
        )
        for name in sorted({*came, *strayed})
    }


def _side(click: Hit) -> str:
    return str(click.properties["variant"])


def _referred(visits: Sequence[Visit], back: _Refunds) -> Referred:
    arrived: defaultdict[int, list[datetime]] = defaultdict(list)
    for visit in visits:
        if visit.arrival.by_partner:
            arrived[visit.person].append(visit.started_at)
    longest = timedelta(days=PARTNER.days)
    theirs = [
        sale
        for visit in visits
        for sale in counting_sales([visit])
        if any(timedelta(0) <= sale.occurred_at - at <= longest for at in arrived[visit.person])
    ]
    earned, taken = Counter[str](), Counter[str]()
    for sale in theirs:
        cents, currency = sale.amount_cents or 0, sale.currency or ""
        commission = _rounded(cents * PARTNER.percent, 100)
        earned[currency] += commission
        if given := sum(refund.amount_cents or 0 for refund in back.get(sale.id, ())):
            taken[currency] += _rounded(commission * given, cents)
    return Referred(
        visitors=sum(bool(times) for times in arrived.values()),
        sales=len(theirs),
        revenue_cents=_revenue(theirs, back),
        earned_cents=earned,
        reversed_cents=taken,
    )


def _rounded(part: int, whole: int) -> int:
    """*part* of *whole*, to the nearest unit, half of one upwards."""
    return (2 * part + whole) // (2 * whole)


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
