"""
What the demo shop sells and how it names its customers: known to the shop and to the traffic that is made for it.

Nothing here is real. Addresses of customers are under `example.com` and `example.org` (RFC 2606).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

SHOP_NAME: Final = "Kettle & Fern"


@dataclass(frozen=True, slots=True)
class Product:
    """
    One thing on the shelf.

    Attributes:
        slug: Its name in addresses.
        category: A key of `CATEGORIES`.
        cents: Price in euro cents, with tax.
        hue: Colour of its picture, in degrees of the colour circle.
    """

    slug: str
    name: str
    category: str
    cents: int
    blurb: str
    hue: int

    @property
    def path(self) -> str:
        """Where its page is."""
        return f"/products/{self.slug}"


CATEGORIES: Final = {"tea": "Loose tea", "pots": "Pots and cups", "gifts": "Gifts"}

_SHELF: Final = (
    Product(
        "assam-gold",
        "Assam Gold",
        "tea",
        1_290,
        "A strong second flush with malt and a little honey. 100 g, enough for forty cups.",
        24,
    ),
    Product(
        "sencha-spring",
        "Sencha Spring",
        "tea",
        1_650,
        "First harvest, steamed, green as a meadow. Brew at 70 degrees. 100 g.",
        128,
    ),
    Product(
        "rooibos-orange",
        "Rooibos Orange",
        "tea",
        890,
        "No caffeine, dried peel, good at ten in the evening. 150 g.",
        12,
    ),
    Product(
        "clay-teapot",
        "Clay teapot",
        "pots",
        4_900,
        "Thrown by hand, holds 0.7 litres, keeps its heat for an hour.",
        32,
    ),
    Product(
        "glass-kettle",
        "Glass kettle",
        "pots",
        6_450,
        "Watch the leaves open. Borosilicate glass with a bamboo lid, 1.2 litres.",
        196,
    ),
    Product(
        "double-cup",
        "Double-walled cup",
        "pots",
        1_450,
        "Hot inside, cool outside. 250 ml, safe in the dishwasher.",
        222,
    ),
    Product(
        "tasting-box",
        "Tasting box",
        "gifts",
        2_750,
        "Eight teas in small tins, with a card that says how to brew each.",
        286,
    ),
    Product(
        "gift-card",
        "Gift card",
        "gifts",
        5_000,
        "For somebody whose shelf is already full. Valid for three years.",
        338,
    ),
)

PRODUCTS: Final = {product.slug: product for product in _SHELF}
"""By slug, in the order of the shelf."""


@dataclass(frozen=True, slots=True)
class Ally:
    """
    Somebody who sends customers for a commission.

    Attributes:
        code: What stands in addresses (`?via=`).
        percent: Of what their customers pay, less what those get back.
        days: How long after somebody came by them they earn with it.
    """

    code: str
    name: str
    email: str
    percent: int
    days: int


PARTNER: Final = Ally("garden-blog", "Garden blog", "hello@garden-blog.example", 10, 30)

_TITLES: Final = {
    "/": "Tea and pots",
    "/cart": "Your cart",
    "/sign-up": "Sign up",
    "/welcome": "Welcome",
    "/checkout": "Checkout",
    "/thank-you": "Thank you",
    "/given-back": "Given back",
    "/neighbours": "Who else is told",
}


def title_of(path: str) -> str:
    """
    The title of the shop's page at *path*.

    Raises:
        KeyError: The shop has no such page.
    """
    _, _, rest = path.partition("/products/")
    if rest:
        page = PRODUCTS[rest].name
    else:
        _, _, rest = path.partition("/category/")
        page = CATEGORIES[rest] if rest else _TITLES[path]
    return f"{page} · {SHOP_NAME}"


def account_id(email: str) -> str:
    """
    The shop's own name for a customer: the same address, however written, is the same account.

    >>> account_id("Ada@example.com") == account_id(" ada@example.com")
    True
    """
    folded = email.strip().lower()
    return f"user-{hashlib.sha256(folded.encode()).hexdigest()[:12]}"


def price(cents: int) -> str:
    """
    Euro *cents* as customers read them.

    >>> price(129_050)
    '€1,290.50'
    """
    return f"€{cents // 100:,}.{cents % 100:02}"
