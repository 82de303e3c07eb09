"""
Where a visit came from: one value, from the address of the landing page and its referrer.

Four readings are laid over one another, the later replacing the earlier member by member, but never with nothing:

1. the referrer (a host or an app of the tables; unknown hosts are referrals; own and payment-return hosts are no source),
2. the UTM parameters, 3. a partner's ``via`` or ``ref``, 4. the first known click id in the order of `CLICK_IDS`.

So a visit with gclid and utm_campaign keeps the campaign, and a partner's code stays beside a click id's platform.

* An empty parameter counts as absent; of repeated ones the first that is not empty counts.
* utm_source and utm_medium are compared and kept lower-cased. utm_source as written is the platform, unless it is a host
  that the tables know (``chatgpt.com``) or one of the few words of `SOURCE_ALIASES`. utm_campaign keeps its case.
* An AI assistant as utm_source makes the medium ``ai`` unless utm_medium says that the visit was paid for.
* fbclid names Facebook but not whether the visit was paid for; so a utm_medium that says paid stays.
* Kept values lose control characters and are cut to 255 characters (click ids to 512, for a cut id is worth nothing).

Source: the reference behaviour, original-core.md, section 7, with the defects of section 28 (rows 14, 18 and 27) mended.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, Final, Literal, get_args

import msgspec

from goodanalytics.core import urls
from goodanalytics.core.campaigns import (
    CLICK_IDS,
    MEDIUMS,
    PLATFORM_MEDIUMS,
    SOURCE_ALIASES,
    VIDEO_PLATFORMS,
)
from goodanalytics.core.hits import Hit
from goodanalytics.core.referrers import APPS, is_return_host, platform_of_host

Confidence = Literal["high", "medium", "low"]

Channel = Literal[
    "direct",
    "organic search",
    "paid search",
    "paid social",
    "social",
    "email",
    "ai",
    "messaging",
    "referral",
    "affiliate",
    "display",
    "video",
    "campaign",
]
"""The closed set of channels; ``campaign`` is what was tagged but fits nowhere else (QR codes, print, free words)."""

CHANNELS: Final[tuple[Channel, ...]] = get_args(Channel)

PAID_MEDIUMS: Final = frozenset({"paid", "paid_search", "paid_social", "display", "video"})
"""Mediums that say that the visit was paid for."""

MAX_VALUE = 255
MAX_CLICK_ID = 512

# Mediums that decide alone, whatever the platform is.
_CHANNEL_OF_MEDIUM: Final[Mapping[str, Channel]] = {
    "ai": "ai",
    "email": "email",
    "messaging": "messaging",
    "sms": "messaging",
    "push": "messaging",
    "social": "social",
    "affiliate": "affiliate",
    "display": "display",
    "video": "video",
    "paid_search": "paid search",
    "paid_social": "paid social",
}

# Otherwise the kind of place that the platform is decides: first for paid visits, then for the rest.
_PAID_CHANNEL_OF_KIND: Final[Mapping[str, Channel]] = {
    "organic": "paid search",
    "social": "paid social",
    "display": "display",
    "affiliate": "affiliate",
}
_CHANNEL_OF_KIND: Final[Mapping[str, Channel]] = {
    "organic": "organic search",
    "social": "social",
    "email": "email",
    "messaging": "messaging",
    "ai": "ai",
    "display": "display",
    "affiliate": "affiliate",
    "referral": "referral",
}


@dataclass(frozen=True, slots=True)
class Source:
    """
    Where one visit came from; without arguments, the direct visit.

    Attributes:
        platform: Who sent the visitor: ``google``, ``facebook``, a utm_source, or the host of a site that no table knows.
        medium: By what means: ``organic``, ``paid``, ``social``, …; ``unknown`` when utm_source came without utm_medium.
        confidence: ``high`` for a click id, ``medium`` for UTM parameters and known referrers, ``low`` otherwise.
        campaign: utm_campaign, its case kept.
        term: utm_term.
        content: utm_content.
        click_id_type: The parameter whose platform won.
        click_id: Its value.
        click_ids: Every known click id of the address as (parameter, value), sorted.
        partner_code: ``via``, else ``ref``; not yet checked against the partners.
        referrer_host: The referring host without ``www.``, or the app's package.
        referrer_url: The referrer, cleaned of secrets.
        acquisition: Platform, medium and campaign, case-folded and with ``direct`` as ``None``: a change of it splits a session.
        is_direct: Whether nothing is known about where the visit came from.
        channel: The one of `CHANNELS` that the visit belongs to, by medium first and then by the kind of platform.

    >>> Source("google", "organic", campaign="Spring").acquisition
    ('google', 'organic', 'spring')
    >>> Source("google", "paid").channel
    'paid search'
    """

    platform: str = "direct"
    medium: str = "direct"
    confidence: Confidence = "low"
    campaign: str | None = None
    term: str | None = None
    content: str | None = None
    click_id_type: str | None = None
    click_id: str | None = None
    click_ids: tuple[tuple[str, str], ...] = ()
    partner_code: str | None = None
    referrer_host: str | None = None
    referrer_url: str | None = None
    # Worked out once, for one value serves many hits.
    acquisition: tuple[str | None, str | None, str | None] = field(init=False, repr=False, compare=False)
    is_direct: bool = field(init=False, repr=False, compare=False)
    channel: Channel = field(init=False, repr=False, compare=False)
    _json: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out what follows from the rest."""
        acquisition = (_told(self.platform), _told(self.medium), _told(self.campaign))
        is_direct = acquisition == (None, None, None) and self.partner_code is None and self.click_id is None
        object.__setattr__(self, "acquisition", acquisition)
        object.__setattr__(self, "is_direct", is_direct)
        object.__setattr__(self, "channel", self._channel())
        written: dict[str, Any] = {
            name: value for name in _TEXTS if (value := getattr(self, name)) is not None
        }
        if self.click_ids:
            written["click_ids"] = dict(self.click_ids)
        object.__setattr__(self, "_json", written)

    def _channel(self) -> Channel:
        if self.is_direct:
            return "direct"
        if self.partner_code is not None and self.medium == "referral":
            return "affiliate"
        if channel := _CHANNEL_OF_MEDIUM.get(self.medium):
            return channel
        kind = PLATFORM_MEDIUMS.get(self.platform, "")
        if self.medium == "paid":
            return (
                "video" if self.platform in VIDEO_PLATFORMS else _PAID_CHANNEL_OF_KIND.get(kind, "campaign")
            )
        if self.medium == "organic":
            return "social" if kind == "social" else "organic search"
        if self.medium == "referral":
            return "referral" if kind == "organic" else _CHANNEL_OF_KIND.get(kind, "referral")
        if self.medium == "unknown":
            return _CHANNEL_OF_KIND.get(kind, "campaign")
        return "campaign"

    def to_json(self) -> dict[str, Any]:
        """
        Return the members that are set as a plain dict; `from_json` reads it back.

        >>> Source("google", "organic", "medium").to_json()
        {'platform': 'google', 'medium': 'organic', 'confidence': 'medium'}
        """
        return dict(self._json)

    @classmethod
    def from_json(cls, written: Mapping[str, Any] | None) -> "Source":
        """Read what `to_json` wrote; unknown members and values of a wrong kind are passed over."""
        return _from_json(msgspec.json.encode(dict(written))) if written else DIRECT


def _told(value: str | None) -> str | None:
    text = (value or "").strip().casefold()
    return None if text in {"", "direct"} else text


_TEXTS: Final = tuple(one.name for one in fields(Source) if one.init and one.name != "click_ids")

DIRECT: Final = Source()


@lru_cache(maxsize=2048)
def _from_json(encoded: bytes) -> Source:
    written = msgspec.json.decode(encoded)
    read: dict[str, Any] = {
        name: value for name in _TEXTS if isinstance(value := written.get(name), str) and value
    }
    if read.get("confidence") not in get_args(Confidence):
        read.pop("confidence", None)
    click_ids = written.get("click_ids")
    if isinstance(click_ids, Mapping):
        read["click_ids"] = tuple(sorted((str(name), str(value)) for name, value in click_ids.items()))
    return Source(**read)


def classify(url: str | None, referrer: str | None, own_hosts: Collection[str] = ()) -> Source:
    """
    Return where the visit to *url* came from; never raises.

    Args:
        url: Address of the landing page, with its query.
        referrer: What the browser said sent it, also ``android-app://…`` and ``ios-app://…``.
        own_hosts: Hosts from which a visitor does not arrive, as `urls.is_listed` reads them (``*.example.com``); the host of
            *url* and its ``www.`` twin are always among them.

    >>> classify("https://acme.com/?utm_source=News&utm_medium=e-mail", "https://www.google.de/").channel
    'email'
    """
    return _classified(url, referrer, tuple(own_hosts))


def of_hit(hit: Hit, own_hosts: Collection[str] = ()) -> Source | None:
    """Return what *hit* itself says of where its visitor came from; ``None`` for a server's word that says nothing."""
    if hit.source is not None:
        return Source.from_json(hit.source)
    if hit.origin == "server" and hit.referrer is None and "utm_" not in (hit.url or ""):
        return None
    return classify(hit.url, hit.referrer, own_hosts)


# Most visits of a busy hour land on a few pages from a few places; 100 µs each is worth sparing the worker.
@lru_cache(maxsize=2048)
def _classified(url: str | None, referrer: str | None, own_hosts: tuple[str, ...]) -> Source:
    found: dict[str, str] = {}
    click_ids: dict[str, str] = {}
    for name, value in urls.parameters(url):
        if name in CLICK_IDS:
            if value:
                click_ids.setdefault(name, value[:MAX_CLICK_ID].strip())
        elif name in _PARAMETERS and (kept := value[:MAX_VALUE].strip()):
            found.setdefault(name, kept)

    page_host = urls.parts(url).host
    source = _from_referrer(referrer, (*own_hosts, page_host) if page_host else own_hosts)
    source = _with_utm(source, found)
    if code := found.get("via") or found.get("ref"):
        source = replace(source, partner_code=code, medium="referral")
    return _with_click_ids(source, click_ids)


_PARAMETERS: Final = frozenset(
    {"utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "via", "ref"}
)


def _from_referrer(referrer: str | None, own_hosts: Collection[str]) -> Source:
    """Read the referrer alone."""
    app = _app(referrer)
    host = app or urls.parts(referrer).host
    if host is None or urls.is_listed(host, own_hosts) or is_return_host(host):
        return DIRECT
    known = APPS.get(app) if app else platform_of_host(host)
    platform, medium = known or (host.removeprefix("www."), "referral")
    return Source(
        platform,
        medium,
        "medium" if known else "low",
        referrer_host=host.removeprefix("www."),
        referrer_url=urls.clean(referrer),
    )


def _app(referrer: str | None) -> str | None:
    """Return the package of an app that calls itself the referrer, lower-cased."""
    scheme, _, rest = urls.printable(referrer or "").strip().partition("://")
    if scheme.lower() not in {"android-app", "ios-app"}:
        return None
    return rest.replace("?", "/").replace("#", "/").partition("/")[0].casefold()[:MAX_VALUE] or None


def _with_utm(source: Source, found: Mapping[str, str]) -> Source:
    """Lay the UTM parameters over *source*; members that no parameter names stay."""
    platform, medium = _utm_platform(found.get("utm_source")), found.get("utm_medium")
    if medium is not None:
        medium = medium.casefold()
        medium = MEDIUMS.get("_".join(medium.replace("-", " ").split()), medium)
    if platform is not None:
        name, known_medium = platform
        if known_medium == "ai" and medium not in PAID_MEDIUMS:
            medium = "ai"
        source = replace(source, platform=name, medium=medium or known_medium or "unknown")
    elif medium is not None:
        source = replace(source, medium=medium)
    if not any(name.startswith("utm_") for name in found):
        return source
    return replace(
        source,
        confidence="medium",
        campaign=found.get("utm_campaign"),
        term=found.get("utm_term"),
        content=found.get("utm_content"),
    )


def _utm_platform(written: str | None) -> tuple[str, str | None] | None:
    """Return the platform that utm_source names, and its medium when the name alone tells it."""
    if written is None:
        return None
    name = written.casefold()
    if "." in name and (known := platform_of_host(name)):
        return known
    name = SOURCE_ALIASES.get(name, name)
    return name, "direct" if name == "direct" else None


def _with_click_ids(source: Source, click_ids: Mapping[str, str]) -> Source:
    """Lay the click id that comes first in `CLICK_IDS` over *source*."""
    for name, (platform, medium) in CLICK_IDS.items():
        if name in click_ids:
            says_less = name == "fbclid" and source.medium in PAID_MEDIUMS
            return replace(
                source,
                platform=platform,
                medium=source.medium if says_less else medium,
                confidence="high",
                click_id_type=name,
                click_id=click_ids[name],
                click_ids=tuple(sorted(click_ids.items())),
            )
    return source
