"""
The tables that the demo's traffic is drawn from: where people come from, when, on what, and what they are called.

Weights are relative within their table. They were chosen to look like a small shop, not measured. Each `Arrival` says
which platform and medium it is *by intent*; a test holds `core.sources.classify` to that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from goodanalytics.demo.trade import PARTNER

MachineKind = Literal["phone", "tablet", "desktop"]


@dataclass(frozen=True, slots=True)
class Machine:
    """What a browser says of itself. *screen* is in CSS pixels."""

    kind: MachineKind
    user_agent: str
    screen: str
    touch_points: int
    weight: int


MACHINES: Final = (
    Machine(
        "phone",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
        "Version/18.6 Mobile/15E148 Safari/604.1",
        "393x852",
        5,
        26,
    ),
    Machine(
        "phone",
        "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
        "412x915",
        5,
        22,
    ),
    Machine(
        "phone",
        "Mozilla/5.0 (Linux; Android 15; SM-S931B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 "
        "Chrome/130.0.0.0 Mobile Safari/537.36",
        "360x780",
        5,
        6,
    ),
    Machine(
        "tablet",
        "Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
        "Version/17.7 Mobile/15E148 Safari/604.1",
        "820x1180",
        5,
        4,
    ),
    Machine(
        "desktop",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
        "1920x1080",
        0,
        18,
    ),
    Machine(
        "desktop",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 "
        "Safari/537.36 Edg/140.0.0.0",
        "1536x864",
        0,
        8,
    ),
    Machine(
        "desktop",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
        "Version/18.6 Safari/605.1.15",
        "1512x982",
        0,
        9,
    ),
    Machine(
        "desktop",
        "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
        "2560x1440",
        0,
        7,
    ),
)


@dataclass(frozen=True, slots=True)
class Crawler:
    """A machine that nobody sits at; it reads pages, or looks behind short links."""

    user_agent: str
    follows_links: bool = False


CRAWLERS: Final = (
    Crawler("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
    Crawler("curl/8.7.1"),
    Crawler("Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", follows_links=True),
    Crawler("WhatsApp/2.23.20.0", follows_links=True),
)


@dataclass(frozen=True, slots=True)
class Country:
    """
    Where somebody lives.

    Attributes:
        offset: Hours that its clocks are ahead of UTC; the daily rhythm follows them. Summer time is left out.
        network: The first three bytes of the addresses: one of the three that RFC 5737 keeps for documentation.
        currency: What its people pay in.
    """

    code: str
    language: str
    timezone: str
    offset: int
    network: str
    weight: int
    currency: str = "EUR"


COUNTRIES: Final = (
    Country("DE", "de-DE", "Europe/Berlin", 1, "192.0.2", 38),
    Country("AT", "de-AT", "Europe/Vienna", 1, "192.0.2", 8),
    Country("CH", "de-CH", "Europe/Zurich", 1, "192.0.2", 6),
    Country("FR", "fr-FR", "Europe/Paris", 1, "198.51.100", 10),
    Country("NL", "nl-NL", "Europe/Amsterdam", 1, "198.51.100", 7),
    Country("IT", "it-IT", "Europe/Rome", 1, "198.51.100", 5),
    Country("GB", "en-GB", "Europe/London", 0, "203.0.113", 9),
    Country("US", "en-US", "America/New_York", -5, "203.0.113", 14, currency="USD"),
    Country("JP", "ja-JP", "Asia/Tokyo", 9, "203.0.113", 3),
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """
    One way to the shop.

    Attributes:
        platform, medium: What it truly is.
        weight: Of first visits.
        back: Of later visits.
        referrer: What the browser says sent it.
        query: Of the landing address; `{token}` becomes the advertising platform's id for the click.
        link: Key of the short link that was followed, a member of `LINKS`; its UTM parameters are the query then.
        lands: Where people land; empty means anywhere that a search may find. A short link may know better.
        by_partner: Whether `trade.PARTNER` sent them.
    """

    platform: str
    medium: str
    weight: int
    back: int = 0
    referrer: str | None = None
    query: str = ""
    link: str | None = None
    lands: tuple[str, ...] = ()
    by_partner: bool = False


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a split; *weight* is relative to the other side's."""

    name: str
    path: str
    weight: int


@dataclass(frozen=True, slots=True)
class Fork:
    """Where some people are led, whom all that is said here fits: what they hold in their hands, where they live."""

    name: str
    path: str
    kinds: tuple[MachineKind, ...] = ()
    countries: tuple[str, ...] = ()

    def fits(self, kind: MachineKind, country: str | None) -> bool:
        """Whether somebody with such a machine, there, goes this way."""
        return (not self.kinds or kind in self.kinds) and (not self.countries or country in self.countries)


@dataclass(frozen=True, slots=True)
class ShortLink:
    """
    A short link that the demo makes.

    Attributes:
        path: Where it leads those whom no fork takes, if it has no sides.
        utm_source, utm_medium, utm_campaign: What it adds to the address.
        about: What it shows, in a few words for its title.
        sides: A split test.
        forks: Its rules; the first that fits decides.
    """

    key: str
    path: str
    utm_source: str
    utm_medium: str
    utm_campaign: str
    about: str = ""
    sides: tuple[Side, ...] = ()
    forks: tuple[Fork, ...] = ()


LINKS: Final = {
    link.key: link
    for link in (
        ShortLink("autumn", "/category/tea", "instagram", "social", "autumn-teas"),
        ShortLink("podcast", "/", "tea-talk", "podcast", "episode-12"),
        ShortLink("flyer", "/products/tasting-box", "flyer", "qr", "christmas-market"),
        ShortLink("lena", "/products/clay-teapot", "lena-brews", "affiliate", "pots"),
        ShortLink(
            "gifts",
            "/category/gifts",
            "tea-time-radio",
            "audio",
            "gift-guide",
            "A split test: the tasting box by itself, or all gifts",
            sides=(Side("the box", "/products/tasting-box", 5), Side("all gifts", "/category/gifts", 4)),
        ),
        ShortLink(
            "window",
            "/",
            "shop-window",
            "poster",
            "opening-hours",
            "Rules: phones and tablets, then buyers overseas, then everybody else",
            forks=(
                Fork("on the move", "/products/double-cup", kinds=("phone", "tablet")),
                Fork("overseas", "/products/gift-card", countries=("US", "JP")),
            ),
        ),
    )
}
"""By key."""

SPLIT: Final = "gifts"
RULED: Final = "window"
"""Keys of the two links that do not lead everybody to the same page."""

DIRECT: Final = Arrival("direct", "direct", 17, 46)

ARRIVALS: Final = (
    DIRECT,
    Arrival("google", "organic", 27, 17, "https://www.google.com/"),
    Arrival(
        "google_ads",
        "paid",
        11,
        3,
        "https://www.google.com/",
        "utm_source=google&utm_medium=cpc&utm_campaign=loose-tea&gclid={token}",
        lands=("/category/tea", "/products/tasting-box"),
    ),
    Arrival("meta", "social", 8, 3, "https://l.facebook.com/", "fbclid={token}", lands=("/",)),
    Arrival(
        "newsletter",
        "email",
        3,
        17,
        None,
        "utm_source=newsletter&utm_medium=email&utm_campaign=monthly-letter",
        lands=("/", "/products/sencha-spring"),
    ),
    Arrival(
        "chatgpt",
        "ai",
        5,
        2,
        "https://chatgpt.com/",
        "utm_source=chatgpt.com",
        lands=("/products/glass-kettle", "/products/clay-teapot"),
    ),
    Arrival("bing", "organic", 5, 3, "https://www.bing.com/"),
    Arrival("linkedin", "social", 3, 1, "https://www.linkedin.com/", lands=("/", "/category/gifts")),
    Arrival("whatsapp", "messaging", 4, 3, "android-app://com.whatsapp/"),
    Arrival(
        "leaf-and-cup.example",
        "referral",
        6,
        2,
        "https://leaf-and-cup.example/reviews/kettles",
        lands=("/products/glass-kettle",),
    ),
    Arrival(
        "garden-blog.example",
        "referral",
        7,
        2,
        "https://garden-blog.example/a-cup-under-the-apple-tree",
        f"via={PARTNER.code}",
        lands=("/products/sencha-spring", "/products/clay-teapot"),
        by_partner=True,
    ),
    *(
        Arrival(link.utm_source, link.utm_medium, weight, link=link.key, lands=(link.path,))
        for link, weight in zip(LINKS.values(), (6, 2, 2, 3, 24, 4), strict=True)
    ),
)

HOURS: Final = (2, 1, 1, 1, 1, 2, 4, 7, 9, 10, 10, 10, 11, 11, 10, 10, 10, 11, 13, 15, 17, 16, 11, 5)
"""How busy each hour of the visitor's own day is."""

WEEKDAYS: Final = (10, 10, 10, 10, 9, 12, 14)
"""How busy each day is, Monday first."""

FIRST_NAMES: Final = (
    "Ada", "Anton", "Bea", "Carl", "Chloé", "Clara", "David", "Emil", "Emma", "Felix", "Greta", "Hanna", "Ines", "Jonas",
    "Julia", "Kenji", "Lena", "Luca", "Marie", "Mia", "Noah", "Nora", "Olga", "Paul", "Rosa", "Sam", "Sofia", "Theo",
    "Yuki", "Zoë",
)  # fmt: skip

LAST_NAMES: Final = (
    "Bauer", "Becker", "Bianchi", "Brown", "Dubois", "Fischer", "Garcia", "Hoffmann", "Jansen", "Keller", "Lang",
    "Martin", "Meyer", "Moreau", "Novak", "Rossi", "Sato", "Schmidt", "Smit", "Smith", "Tanaka", "Vogel", "Wagner",
    "Weber", "Wilson", "Wolf",
)  # fmt: skip

SEARCHES: Final = ("green tea", "teapot", "gift", "cup", "decaf", "oolong", "matcha", "strainer")
