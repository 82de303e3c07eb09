"""
One visit to the demo shop as it happens: a person at a browser, a clock, and the hits that come of it.

All that is left to chance is drawn from the generator that the caller gives. Hits of one browser are at least a
millisecond apart, because their ids hold milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import msgspec

from goodanalytics.core.bounds import Property
from goodanalytics.core.hits import Client, EventType, Hit, Origin, Signals
from goodanalytics.core.sources import classify
from goodanalytics.demo.crowd import LINKS, Arrival, Country, MachineKind
from goodanalytics.demo.trade import PRODUCTS, account_id, title_of

MOST_IN_A_PAGE = 480.0  # seconds; visits must stay clear of the thirty minutes after which one ends


@dataclass(frozen=True, slots=True)
class Shop:
    """
    Where and when it all happens.

    Attributes:
        origin: Scheme and host of its pages.
        links: Id of each short link, by key.
        since, until: The history; nothing happens at or after *until*.
    """

    workspace_id: UUID
    origin: str
    links: Mapping[str, UUID]
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Device:
    """A browser that keeps its cookie, on a machine in a country."""

    anonymous_id: str
    client: Client
    kind: MachineKind


@dataclass(frozen=True, slots=True)
class Way:
    """Where a click on a short link led, and what decided that: a rule or a side of a split, by name."""

    path: str
    rule: str | None = None
    variant: str | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """Who it is, once they have said so."""

    number: int
    country: Country
    name: str
    email: str


def id_at(rng: Random, at: datetime) -> UUID:
    """A UUID of version 7 (RFC 9562, section 5.7) for *at*, its chance drawn from *rng*."""
    milliseconds = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    value = (milliseconds << 80) | rng.getrandbits(80)
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    return UUID(int=(value & ~(0x3 << 62)) | (0x2 << 62))


def seconds_of(value: float) -> timedelta:
    """Whole milliseconds, at least one: two hits of one browser never share an id's time."""
    return timedelta(milliseconds=max(1, round(value * 1_000)))


class Browsing:
    """One visit while it happens: a clock, the page that is open, and the hits so far."""

    def __init__(
        self, shop: Shop, rng: Random, device: Device, arrival: Arrival, at: datetime, click_id: UUID | None
    ) -> None:
        self.at = at
        self.hits: list[Hit] = []
        self.pages: list[str] = []
        self.click_id = click_id
        self._shop = shop
        self._rng = rng
        self._device = device
        self._arrival = arrival
        self._page: dict[str, Any] = {}

    def arrive(self) -> None:
        """Open the landing page, through its short link if there is one."""
        lands = self._arrival.lands or ("/", "/", "/category/tea", *(p.path for p in PRODUCTS.values()))
        path = self._rng.choice(lands)
        query = self._arrival.query.format(token=f"{self._rng.getrandbits(96):024x}")
        if self._arrival.link is not None:
            way = way_of(self._arrival.link, self._device, self._rng)
            click = click_at(self._shop, self._rng, self._arrival.link, self.at, self._device, way)
            path = way.path
            self.hits.append(click)
            self.click_id = click.id
            query = _utm(self._arrival.link)
            self._wait(self._rng.uniform(0.4, 4))
        self._view(path, query, self._arrival.referrer)

    def open(self, path: str) -> None:
        """Leave this page for another one of the shop."""
        self.look()
        self._view(path, "", self._page["url"])

    def look(self) -> None:
        """Let time pass on this page; whoever stays for more than a moment is seen to have paid attention."""
        seconds = min(MOST_IN_A_PAGE, self._rng.lognormvariate(3.1, 1.0))
        self._wait(seconds)
        if seconds > 15 and self._rng.random() < 0.55:
            attention = round(seconds * 1_000 * self._rng.uniform(0.4, 1))
            depth = self._rng.randint(20, 100)
            self._beacon(EventType.ENGAGEMENT, engaged_ms=attention, scroll_depth=depth)
            self._wait(0.02)

    def act(self, event_type: EventType, name: str, properties: dict[str, Any]) -> None:
        """Do something on this page on purpose."""
        self._wait(self._rng.uniform(2, 20))
        self._beacon(event_type, name=name, properties=properties)

    def sign_up(self, person: Person) -> None:
        """Make an account: the shop says who it is, and that it is a lead."""
        self.log_in(person, name="Sign-up")

    def log_in(self, person: Person, name: str | None = None) -> None:
        """Say who it is through the form; with a *name*, that is a lead too."""
        self.open("/sign-up")
        self.look()
        external_id = account_id(person.email)
        self._server(EventType.IDENTIFY, external_id=external_id, email=person.email, person=person.name)
        if name is not None:
            self._wait(0.02)
            self._server(EventType.LEAD, name=name, key=f"sign-up-{external_id}")
        self._wait(self._rng.uniform(0.1, 0.9))
        self._view("/welcome", "", self._page["url"])

    def pay(self, cents: int, currency: str, items: int) -> None:
        """Buy what is in the cart. A few browsers claim a sale besides, which nobody vouches for."""
        self.look()
        key = f"KF-{self._rng.getrandbits(40):010X}"
        self._server(
            EventType.SALE, amount_cents=cents, currency=currency, key=key, properties={"items": items}
        )
        self._wait(self._rng.uniform(0.1, 0.9))
        came_back = self._rng.random() < 0.3
        self._view("/thank-you", "", "https://checkout.stripe.com/" if came_back else self._page["url"])
        if self._rng.random() < 0.1:
            self._wait(0.5)
            self._beacon(EventType.SALE, amount_cents=cents * 10, currency=currency)

    def _wait(self, seconds: float) -> None:
        self.at += seconds_of(seconds)

    def _view(self, path: str, query: str, referrer: str | None) -> None:
        url = f"{self._shop.origin}{path}" + (f"?{query}" if query else "")
        self._page = {"url": url, "referrer": referrer, "title": title_of(path)}
        self.pages.append(path)
        self._beacon(EventType.PAGEVIEW)

    def _beacon(self, event_type: EventType, **fields: Any) -> None:
        """What the page's tracker sends: every one names the page and the cookies."""
        signals = Signals(anonymous_id=self._device.anonymous_id, click_id=self.click_id)
        page = dict(self._page)
        if event_type is not EventType.PAGEVIEW:
            del page["title"]
        self._add(event_type, "browser", signals, client=self._device.client, **page, **fields)

    def _server(
        self,
        event_type: EventType,
        *,
        external_id: str | None = None,
        email: str | None = None,
        person: str | None = None,
        **fields: Any,
    ) -> None:
        signals = Signals(
            anonymous_id=self._device.anonymous_id, external_id=external_id, email=email, name=person
        )
        self._add(event_type, "server", signals, trusted=True, **fields)

    def _add(self, event_type: EventType, origin: Origin, signals: Signals, **fields: Any) -> None:
        hit = hit_at(
            self._shop, self._rng, self.at, event_type=event_type, origin=origin, signals=signals, **fields
        )
        self.hits.append(hit)


def hit_at(shop: Shop, rng: Random, at: datetime, **fields: Any) -> Hit:
    """A hit at *at*, with an id of its own; *fields* are the other members of `Hit`."""
    hit_id = id_at(rng, at)
    return Hit(id=hit_id, workspace_id=shop.workspace_id, received_at=at, occurred_at=at, **fields)


def _utm(key: str) -> str:
    link = LINKS[key]
    return urlencode(
        {"utm_source": link.utm_source, "utm_medium": link.utm_medium, "utm_campaign": link.utm_campaign}
    )


def way_of(key: str, device: Device, rng: Random) -> Way:
    """Which way a short link sends the owner of *device*, who was never sent one before."""
    link = LINKS[key]
    for fork in link.forks:
        if fork.fits(device.kind, device.client.country):
            return Way(fork.path, rule=fork.name)
    if link.sides:
        side = rng.choices(link.sides, [side.weight for side in link.sides])[0]
        return Way(side.path, variant=side.name)
    return Way(link.path)


def click_at(
    shop: Shop, rng: Random, key: str, at: datetime, device: Device | Client, way: Way | None = None
) -> Hit:
    """
    A click on a short link: its id is the click's id, which the landing page brings along.

    Args:
        device: A browser, whose cookie the links share with the shop's pages; or a machine that keeps none.
        way: Where it led; `None` for those who are shown a card instead.
    """
    client, cookie = (device.client, device.anonymous_id) if isinstance(device, Device) else (device, None)
    leads_to = f"{shop.origin}{LINKS[key].path}"
    click_id = id_at(rng, at)
    decided: dict[str, Property] = {}
    if way is not None and way.rule is not None:
        decided["rule"] = way.rule
    if way is not None and way.variant is not None:
        decided["variant"] = way.variant
    return Hit(
        id=click_id,
        workspace_id=shop.workspace_id,
        received_at=at,
        occurred_at=at,
        event_type=EventType.LINK_CLICK,
        origin="link",
        url=leads_to,
        signals=Signals(anonymous_id=cookie, click_id=click_id),
        client=msgspec.structs.replace(client, screen=None, timezone=None, touch_points=None),
        properties=decided,
        link_id=shop.links[key],
        source=classify(f"{leads_to}?{_utm(key)}", None).to_json(),
    )
