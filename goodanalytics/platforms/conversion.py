"""
What is told to an ad platform: one conversion with everything that is known about it.

1. A conversion carries facts as we know them: plain, not normalised, not hashed. Each dialect shapes them for its platform.
2. Whatever may name a person or carry a secret shows in `repr` only as what is known, never as its value, so that a log
   line, an assertion or a traceback tells nothing; also where `rich` prints the variables of a traceback (`Quiet`).
3. Click ids keep the time of their click: some platforms want it back, and a click that is too old is worth nothing.
4. Times are aware. Money is whole minor units of its currency, as charged: 4900 is 49.00 EUR and 4900 JPY.
5. Values can be written to JSON and read back by msgspec; that is how they wait in the outbox.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

import msgspec

from goodanalytics.core.consent import Answer, Consent
from goodanalytics.core.orders import Item, Place
from goodanalytics.platforms.normalize import name_parts
from goodanalytics.platforms.quiet import Quiet

Kind: TypeAlias = Literal["lead", "sale", "refund"]
Scalar: TypeAlias = str | int | float | bool | None


class _Discreet(Quiet, frozen=True, kw_only=True, omit_defaults=True):
    """A value that shows which of its members are known, and none of them."""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({', '.join(f'{name}={shown}' for name, shown in self.__rich_repr__())})"
        )

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [(name, "…") for name in self.__struct_fields__ if getattr(self, name)]


class Person(_Discreet, frozen=True, kw_only=True, omit_defaults=True):
    """
    Who converted. A value of 64 hexadecimal digits is taken as hashed already, by the platform's own rule.

    Attributes:
        phone: With its country code, such as `+44 20 7946 0018`.
        name: The whole name; `first_name` and `last_name` go before it.
        external_id: The host's own id of the person.
        region: State or province.
        country: Two letters of ISO 3166-1.
    """

    email: str | None = None
    phone: str | None = None
    name: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    external_id: str | None = None
    city: str | None = None
    region: str | None = None
    postcode: str | None = None
    country: str | None = None

    @property
    def given(self) -> str | None:
        """
        The first name, from the whole name where it is not known by itself.

        >>> Person(name="Ada King Lovelace").given
        'Ada'
        """
        return self.first_name or name_parts(self.name)[0]

    @property
    def family(self) -> str | None:
        """
        The last name, from the whole name where it is not known by itself.

        >>> Person(name="Ada King Lovelace").family, Person(name="Plato").family, Person(name="Dr. Ada King, Ph.D.").family
        ('Lovelace', None, 'King')
        """
        return self.last_name or name_parts(self.name)[1]


class Click(_Discreet, frozen=True, kw_only=True, omit_defaults=True):
    """A click id as it stood in the address that was landed on, and when that was."""

    value: str
    at: datetime


class Signals(_Discreet, frozen=True, kw_only=True, omit_defaults=True):
    """
    What the platforms' own marks say about the browser, remembered from the click on.

    Attributes:
        clicks: Click ids by the name of their parameter: `fbclid, gclid, gbraid, wbraid, li_fat_id, ttclid, msclkid, oppref, …`.
        fbc: Meta's click cookie as the browser had it. `platforms.meta.fbc` builds one from `clicks["fbclid"]` without it.
        fbp: Meta's browser cookie.
        ttp: TikTok's browser cookie.
        ip: Of the browser, never of the server that reports the sale.
        user_agent: Of the browser.
    """

    clicks: dict[str, Click] = msgspec.field(default_factory=dict)
    fbc: str | None = None
    fbp: str | None = None
    ttp: str | None = None
    ip: str | None = None
    user_agent: str | None = None

    def click(self, name: str) -> str | None:
        """
        The click id of that name.

        >>> Signals().click("gclid") is None
        True
        """
        found = self.clicks.get(name)
        return found.value if found else None


class Conversion(Quiet, frozen=True, kw_only=True, omit_defaults=True):
    """
    One lead, sale or refund, on its way to one platform.

    Attributes:
        dispatch_id: Of the outbox row; outcomes are matched to it.
        event_id: The id under which the platform knows it, also from the browser's pixel, on every try and replay.
        name: What the host calls it, such as `demo booked`.
        amount_cents: What was charged; for a refund, what was given back (positive).
        currency: Three letters of ISO 4217.
        url: Page on which it happened.
        place: Where it happened; only a conversion on a website needs the browser's marks.
        order_key: The host's key of the order; a refund has the key of the sale that it takes back.
        remaining_cents: For a refund, what is left of the sale after it: 0 when all of it was given back.
        sale_event_id: For a refund, the `event_id` of its sale.
        sold_at: For a refund, when its sale happened.
        properties: What the host said about it, flat.
    """

    dispatch_id: UUID
    event_id: str
    kind: Kind
    occurred_at: datetime
    name: str | None = None
    amount_cents: int | None = None
    currency: str | None = None
    url: str | None = None
    place: Place = "website"
    person: Person = Person()
    signals: Signals = Signals()
    consent: Consent = Consent()
    order_key: str | None = None
    remaining_cents: int | None = None
    sale_event_id: str | None = None
    sold_at: datetime | None = None
    contents: tuple[Item, ...] = ()
    properties: dict[str, Scalar] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        # An address or a property may hold an e-mail; the id finds all the rest.
        return f"Conversion({self.kind} {self.event_id!r}, dispatch_id={self.dispatch_id})"


__all__ = [
    "Answer",
    "Click",
    "Consent",
    "Conversion",
    "Item",
    "Kind",
    "Person",
    "Place",
    "Scalar",
    "Signals",
]
