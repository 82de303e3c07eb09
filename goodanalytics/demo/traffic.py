"""
Two months of a small shop's life, made up from a seed, with its true figures.

Rules of this file
1. The same arguments make the same hits, down to their ids: everything is drawn from `random.Random(seed)`. Each person
   has a generator of their own, so that more visitors leave the first ones as they were.
2. The truth is beyond doubt: within a visit less than 20 minutes pass between two hits, between two visits of one
   person, on whatever device, more than an hour (a visit ends after 30 minutes, `core.sessions`).
3. Hits come in the order of time; ids are UUIDs of version 7 with the hit's time, so their order is the same.
4. What the shop's own server says names the browser and no page: a server knows who, not where from.
5. What must not be counted is in it too: crawlers, link previews, clicks that never land, a payment page that
   visitors come back from, and sales that only a browser claims.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Protocol, TypeVar
from uuid import UUID

from goodanalytics.core.bots import VERSION, judge
from goodanalytics.core.hits import Client, EventType, Hit, Signals
from goodanalytics.demo.browsing import Browsing, Device, Person, Shop, click_at, hit_at, seconds_of, way_of
from goodanalytics.demo.crowd import (
    ARRIVALS,
    COUNTRIES,
    CRAWLERS,
    FIRST_NAMES,
    HOURS,
    LAST_NAMES,
    LINKS,
    MACHINES,
    SEARCHES,
    WEEKDAYS,
    Country,
    Machine,
)
from goodanalytics.demo.figures import Figures, Visit, count, counting_sales
from goodanalytics.demo.returned import refunds
from goodanalytics.demo.trade import CATEGORIES, PRODUCTS, Product, title_of
from goodanalytics.errors import InvalidInput

BETWEEN_VISITS = timedelta(minutes=61)
LONGEST_VISIT = timedelta(hours=3)
"""More than the most pages, each looked at for `browsing.MOST_IN_A_PAGE`: nothing that begins this long before the end is cut."""

DAYS_AWAY = 6.0  # mean, between two visits of one person
VISITS_OF_A_PERSON = (40, 24, 15, 9, 7, 5)
"""How many people come once, twice, … six times."""

EURO_IN_DOLLARS = 1.1


@dataclass(frozen=True, slots=True)
class Traffic:
    """A history and what is true of it. *hits* are in the order of time."""

    hits: tuple[Hit, ...]
    figures: Figures


def generate(
    *,
    seed: int,
    until: datetime,
    days: int,
    visitors: int,
    workspace_id: UUID,
    links: Mapping[str, UUID],
    shop_host: str = "127.0.0.1:8000",
) -> Traffic:
    """
    Make the history of the *days* before *until*.

    Args:
        seed: Any number; chooses everything.
        until: Aware; nothing happens at or after it.
        days: 1 to 3,660.
        visitors: How many people come; 1 to 100,000.
        workspace_id: Whose shop it is.
        links: Id of each short link of `crowd.LINKS`, by key.
        shop_host: Host, and port if it is not the usual one, of the shop's pages.

    Raises:
        InvalidInput: A number is out of its range, *until* is naive, or a link is missing.

    >>> made = generate(
    ...     seed=1, until=datetime(2026, 11, 1, tzinfo=UTC), days=10, visitors=5,
    ...     workspace_id=UUID(int=0), links=dict.fromkeys(LINKS, UUID(int=1)),
    ... )
    >>> made.figures.visitors
    5
    """
    _check(until=until, days=days, visitors=visitors, links=links)
    # A UUID of version 7 holds milliseconds: finer times would let ids and times disagree about the order.
    until = until.astimezone(UTC)
    until = until.replace(microsecond=until.microsecond // 1_000 * 1_000)
    shop = Shop(workspace_id, f"http://{shop_host}", links, until - timedelta(days=days), until)
    visits = [
        visit for number in range(visitors) for visit in _life(shop, number, Random(f"{seed}:{number}"))
    ]
    back = list(refunds(shop, counting_sales(visits), seed))
    lost = list(_lost_clicks(shop, visitors, Random(f"{seed}:lost")))
    crawled = list(_crawlers(shop, days, Random(f"{seed}:bots")))
    hits = [hit for visit in visits for hit in visit.hits] + back + [click for _, click in lost] + crawled
    hits.sort(key=lambda hit: hit.id)
    last_day = (until - timedelta(milliseconds=1)).date()
    return Traffic(tuple(hits), count(visits, back, lost, crawled, since=shop.since.date(), to=last_day))


def _check(*, until: datetime, days: int, visitors: int, links: Mapping[str, UUID]) -> None:
    if until.tzinfo is None:
        raise InvalidInput(f"until is {until.isoformat()}, without a zone; give an aware time", where="until")
    for name, value, most in (("days", days, 3_660), ("visitors", visitors, 100_000)):
        if not 1 <= value <= most:
            raise InvalidInput(f"{name} is {value}; give a number from 1 to {most}", where=name)
    if missing := LINKS.keys() - links.keys():
        raise InvalidInput(f"links has no {min(missing)!r}; give an id for each key of LINKS", where="links")


class _Weighted(Protocol):
    @property
    def weight(self) -> int: ...


_W = TypeVar("_W", bound=_Weighted)


def _pick(rng: Random, table: Sequence[_W]) -> _W:
    return rng.choices(table, [row.weight for row in table])[0]


def _is_busy(rng: Random, at: datetime, country: Country, shop: Shop) -> bool:
    """Whether somebody would come at *at*: by the hour and weekday where they live, in a shop that grows slowly."""
    local = at + timedelta(hours=country.offset)
    growth = 0.7 + 0.3 * ((at - shop.since) / (shop.until - shop.since))
    rhythm = HOURS[local.hour] / max(HOURS) * WEEKDAYS[local.weekday()] / max(WEEKDAYS)
    return rng.random() < rhythm * growth


def _any_time(rng: Random, country: Country, shop: Shop) -> datetime:
    span = (shop.until - shop.since - LONGEST_VISIT).total_seconds()
    while True:
        at = shop.since + seconds_of(rng.uniform(0, span))
        if _is_busy(rng, at, country, shop):
            return at


def _next_time(rng: Random, after: datetime, country: Country, shop: Shop) -> datetime | None:
    """When the same person comes again; `None` when that is after the end of the history."""
    while True:
        at = after + BETWEEN_VISITS + seconds_of(rng.expovariate(1 / (DAYS_AWAY * 86_400)))
        if at > shop.until - LONGEST_VISIT:
            return None
        if _is_busy(rng, at, country, shop):
            return at


def _device(rng: Random, country: Country, other_than: Machine | None = None) -> tuple[Device, Machine]:
    machine = _pick(rng, [m for m in MACHINES if other_than is None or m.kind != other_than.kind])
    client = Client(
        ip=f"{country.network}.{rng.randint(1, 254)}",
        user_agent=machine.user_agent,
        country=country.code,
        language=country.language,
        screen=machine.screen,
        timezone=country.timezone,
        touch_points=machine.touch_points,
    )
    return Device(f"{rng.getrandbits(128):032x}", client, machine.kind), machine


def _life(shop: Shop, number: int, rng: Random) -> Iterator[Visit]:
    """All visits of one person: from where, when, on what; an account, once made, comes to the second device too."""
    country = _pick(rng, COUNTRIES)
    first, machine = _device(rng, country)
    second, _ = _device(rng, country, other_than=machine)
    name = f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"
    host = rng.choice(("example.com", "example.org"))
    person = Person(number, country, name, f"{name.lower().replace(' ', '.')}.{number}@{host}")
    logged_in: set[str] = set()
    clicks: dict[str, UUID] = {}
    at: datetime | None = _any_time(rng, country, shop)
    planned = rng.choices(range(1, 7), VISITS_OF_A_PERSON)[0]
    for turn in range(planned):
        if at is None:
            return
        device = second if logged_in and rng.random() < 0.35 else first
        arrival = _pick(rng, ARRIVALS) if turn == 0 else rng.choices(ARRIVALS, [a.back for a in ARRIVALS])[0]
        browsing = Browsing(shop, rng, device, arrival, at, clicks.get(device.anonymous_id))
        browsing.arrive()
        if logged_in and device.anonymous_id not in logged_in:
            browsing.log_in(person)
            logged_in.add(device.anonymous_id)
        if _wander(browsing, rng, person, may_sign_up=not logged_in, knows_us=turn > 0):
            logged_in.add(device.anonymous_id)
        if browsing.click_id is not None:
            clicks[device.anonymous_id] = browsing.click_id
        yield Visit(number, device.anonymous_id, arrival, tuple(browsing.pages), tuple(browsing.hits))
        at = _next_time(rng, browsing.at, country, shop)


def _wander(browsing: Browsing, rng: Random, person: Person, *, may_sign_up: bool, knows_us: bool) -> bool:
    """What somebody does after landing; answers whether they signed up."""
    mood = rng.random()
    if mood < (0.25 if knows_us else 0.42):
        browsing.look()
        return False
    for _ in range(rng.randint(1, 4)):
        product = rng.choice(list(PRODUCTS.values()))
        if rng.random() < 0.4:
            browsing.open(f"/category/{rng.choice(list(CATEGORIES))}")
        if rng.random() < 0.15:
            browsing.act(EventType.CUSTOM, "Search", {"query": rng.choice(SEARCHES)})
        browsing.open(product.path)
        if rng.random() < 0.03:
            browsing.act(EventType.SHARE, "Share", {"channel": "copy"})
    signs_up = may_sign_up and rng.random() < 0.11
    if signs_up:
        browsing.sign_up(person)
    if rng.random() < (0.32 if knows_us else 0.2):
        _buy(browsing, rng, person, rng.sample(list(PRODUCTS.values()), rng.choice((1, 1, 2, 3))))
    browsing.look()
    return signs_up


def _buy(browsing: Browsing, rng: Random, person: Person, products: Sequence[Product]) -> None:
    """Fill a cart; about half of the carts come to the checkout, and two thirds of those are paid."""
    for product in products:
        browsing.open(product.path)
        browsing.act(EventType.CUSTOM, "Add to cart", {"product": product.slug, "price_cents": product.cents})
    browsing.open("/cart")
    if rng.random() < 0.45:
        return
    browsing.open("/checkout")
    if rng.random() < 0.3:
        return
    cents = sum(product.cents for product in products)
    if person.country.currency != "EUR":
        cents = round(cents * EURO_IN_DOLLARS)
    browsing.pay(cents, person.country.currency, len(products))


def _lost_clicks(shop: Shop, visitors: int, rng: Random) -> Iterator[tuple[str, Hit]]:
    """Clicks of people who closed the tab before the page was there: one for each hundred visitors, at least one."""
    for _ in range(max(1, visitors // 100)):
        country = _pick(rng, COUNTRIES)
        device, _ = _device(rng, country)
        key = rng.choice(list(LINKS))
        at, way = _any_time(rng, country, shop), way_of(key, device, rng)
        yield key, click_at(shop, rng, key, at, device, way)


def _crawlers(shop: Shop, days: int, rng: Random) -> Iterator[Hit]:
    """Bots that read a few pages or look at a short link before it is shown to people: about six hits a day."""
    span = (shop.until - shop.since - LONGEST_VISIT).total_seconds()
    for crawler in itertools.islice(itertools.cycle(CRAWLERS), days * 3):
        at = shop.since + seconds_of(rng.uniform(0, span))
        client = Client(
            ip=f"198.51.100.{rng.randint(1, 254)}",
            user_agent=crawler.user_agent,
            bot=judge(crawler.user_agent).reasons[0],
            bot_version=VERSION,
        )
        if crawler.follows_links:
            yield click_at(shop, rng, rng.choice(list(LINKS)), at, client)
            continue
        for path in rng.sample([product.path for product in PRODUCTS.values()], 3):
            # Crawlers keep no cookies: each page sees a new browser.
            signals = Signals(anonymous_id=f"{rng.getrandbits(128):032x}")
            url = f"{shop.origin}{path}"
            seen = {"url": url, "title": title_of(path), "signals": signals, "client": client}
            yield hit_at(shop, rng, at, event_type=EventType.PAGEVIEW, origin="browser", **seen)
            at += seconds_of(rng.uniform(2, 30))
