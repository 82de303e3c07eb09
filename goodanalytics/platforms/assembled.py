"""
A conversion put together for the platforms: what was done, by whom, and what their visits left behind.

1. The person is the whole one: what any browser of theirs left behind counts (`core.visitors`).
2. What the conversion itself carries goes before what is remembered: the browser that paid, its page, its answer about ads.
3. A refund is about the same person and order as its sale.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from goodanalytics.core.consent import recalled
from goodanalytics.core.conversions import Converted
from goodanalytics.core.remembered import BROWSER, COOKIES
from goodanalytics.core.visitors import Visitor
from goodanalytics.platforms.conversion import Click, Conversion, Person, Signals

_KINDS: Final = {"lead": "lead", "sale": "sale", "refund": "refund"}


def conversion(found: Converted, person: Visitor) -> Conversion:
    """
    What is told of *found*, which *person* did.

    Its `dispatch_id` is the event's until the outbox gives each platform's row one of its own.
    """
    hit, sale = found.hit, found.sale
    machine = person.platform_signals.get(BROWSER, {}).get("value", {})
    before = found.before_cents or 0
    return Conversion(
        dispatch_id=hit.id,
        event_id=str(hit.id),
        kind=_KINDS[hit.event_type],  # type: ignore[arg-type]  # the keys of a mapping are no Literal
        occurred_at=hit.occurred_at,
        name=hit.name,
        amount_cents=hit.amount_cents,
        currency=hit.currency,
        url=found.url or machine.get("url"),
        place=hit.place,
        person=person_of(person),
        signals=signals_of(person, hit.client.user_agent, found.ip),
        consent=recalled(person.consent, hit.consent),
        order_key=hit.key if sale is None else sale.key,
        remaining_cents=None if sale is None else sale.amount_cents - before - (hit.amount_cents or 0),
        sale_event_id=None if sale is None else str(sale.id),
        sold_at=None if sale is None else sale.occurred_at,
        contents=hit.contents,
        properties=hit.properties,
    )


def person_of(person: Visitor) -> Person:
    """Who *person* is, as far as the host said it or their address shows it."""
    geo: dict[str, Any] = person.geo
    return Person(
        email=person.email,
        phone=person.phone,
        name=person.name,
        external_id=person.external_id,
        city=geo.get("city"),
        region=geo.get("region"),
        country=geo.get("country"),
    )


def signals_of(person: Visitor, user_agent: str | None = None, ip: str | None = None) -> Signals:
    """What the visits of *person* left behind; *user_agent* and *ip* are the machine's that paid, where that is known."""
    known = person.platform_signals
    machine: dict[str, Any] = known.get(BROWSER, {}).get("value", {})
    if user_agent is not None:
        machine = {"user_agent": user_agent, "ip": None if ip is None or "/" in ip else ip}
    cookies = {name: known[name]["value"] for name in COOKIES if name in known}
    clicks = {
        name: Click(value=found["value"], at=datetime.fromisoformat(found["at"]))
        for name, found in known.items()
        if name not in cookies and name != BROWSER
    }
    return Signals(clicks=clicks, ip=machine.get("ip"), user_agent=machine.get("user_agent"), **cookies)


__all__ = ["conversion", "person_of", "signals_of"]
