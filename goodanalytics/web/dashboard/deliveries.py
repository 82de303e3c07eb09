"""
What was told to ad platforms and webhooks, in the words and figures of the dashboard's pages.

Rules of this file
1. Pure: what the outbox shows in, page values out. Nothing here has ever seen a person or a secret.
2. States, reasons and match keys are said in plain words; one that has none here is shown as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final

from goodanalytics.store.outbox_leases import WEBHOOK
from goodanalytics.store.outbox_reading import Coverage, Dispatch
from goodanalytics.store.webhooks import Webhook
from goodanalytics.web.dashboard import charts, words
from goodanalytics.web.dashboard.charts import Level

HOURS: Final = 24

STATES: Final[Mapping[str, str]] = {
    "pending": "Waiting",
    "retry_wait": "Will be tried again",
    "accepted": "Received, not confirmed yet",
    "paused_credentials": "Waits for a credential",
    "delivered": "Delivered",
    "skipped": "Not sent",
    "dead": "Given up",
}
MOODS: Final[Mapping[str, str]] = {
    "delivered": "good",
    "dead": "bad",
    "paused_credentials": "warn",
    "retry_wait": "warn",
}

PLATFORMS: Final[Mapping[str, str]] = {
    "google": "Google Ads",
    "linkedin": "LinkedIn",
    "meta": "Meta",
    "openai": "OpenAI",
    "tiktok": "TikTok",
}

REASONS: Final[Mapping[str, str]] = {
    "consent_denied": "The person refused it",
    "consent_unknown": "The person was not asked",
    "in_the_future": "Its time is in the future",
    "missing_amount": "It has no amount",
    "missing_sale": "Nothing is known of its sale",
    "missing_signals": "Too little is known to recognise the person; one of these is needed",
    "personalization_denied": "The person refused personal ads",
    "policy": "Your own rule refused it",
    "recalled": "Taken back",
    "sale_not_delivered": "Its sale was not delivered",
    "target_failing": "Nothing gets through at the moment",
    "too_many_attempts": "It failed too often",
    "too_old": "It is older than the platform takes",
    "unconfirmed": "The platform never said what became of it",
    "unreadable": "It was sealed with another secret key",
    "unsupported_kind": "The platform takes no such events",
    "unsupported_refund": "The platform cannot take this one back",
    "unsupported_place": "The platform takes none from there",
    "waits_for_sale": "Its sale has to be delivered first",
    "webhook_deleted": "The webhook was deleted",
}

MATCH_KEYS: Final[Mapping[str, str]] = {
    "email": "E-mail address",
    "phone": "Phone number",
    "first_name": "First name",
    "last_name": "Last name",
    "external_id": "Your own id",
    "city": "City",
    "region": "Region",
    "postcode": "Postcode",
    "country": "Country",
    "fbclid": "Click on a Meta ad",
    "fbc": "Meta’s click cookie",
    "fbp": "Meta’s browser cookie",
    "gclid": "Click on a Google ad",
    "gbraid": "Click on a Google ad, in an app",
    "wbraid": "Click on a Google ad, from an app",
    "li_fat_id": "Click on a LinkedIn ad",
    "ttclid": "Click on a TikTok ad",
    "ttp": "TikTok’s browser cookie",
    "oppref": "Click on an OpenAI ad",
    "obref": "OpenAI’s browser cookie",
    "ip": "IP address",
    "user_agent": "Browser",
}

SIGNALS: Final[Mapping[str, str]] = {**MATCH_KEYS, "address": "Postal address", "url": "The page’s address"}
_WORD: Final = re.compile(r"[a-z_]+")

KINDS: Final[Mapping[str, str]] = {"lead": "Lead", "sale": "Sale", "refund": "Refund"}
PLACES: Final[Mapping[str, str]] = {
    "website": "On the website",
    "phone": "By phone",
    "store": "In a shop",
    "system": "By a system",
}
CONSENT: Final[Mapping[str, str]] = {"granted": "Allowed", "denied": "Refused", "unknown": "Not asked"}


@dataclass(frozen=True, slots=True)
class Delivery:
    """
    A dispatch in words.

    Attributes:
        what: Such as `Sale`, with *amount* beside it.
        mood: Of its state; empty for none.
        why: What is to be known of that state; empty when nothing is.
        answer: What the other side answered last; empty before it did.
        facts: What was told, by name, in order.
        match_keys: What the person could be recognised by.
    """

    row: Dispatch
    what: str
    amount: str | None
    to: str
    state: str
    mood: str
    why: str
    answer: str
    facts: tuple[tuple[str, str], ...]
    match_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """How many of a platform's deliveries carry a match key. *bar* is in percent."""

    name: str
    number: int
    percent: str
    bar: float


@dataclass(frozen=True, slots=True)
class Bar:
    """
    An hour of the chart.

    Attributes:
        label: When the hour begins.
        x, width: Percent of the width.
        good, bad: Heights in percent; *bad* stands on *good*.
    """

    label: str
    delivered: int
    given_up: int
    x: float
    width: float
    good: float
    bad: float


@dataclass(frozen=True, slots=True)
class Hours:
    """Deliveries of the last day, hour by hour."""

    bars: tuple[Bar, ...]
    levels: tuple[Level, ...]
    delivered: int
    given_up: int


def deliveries(found: Iterable[Dispatch], webhooks: Iterable[Webhook]) -> list[Delivery]:
    """Each of *found* in words; *webhooks* are those that still have a name."""
    hosts = {webhook.target: webhook.host for webhook in webhooks}
    return [_delivery(dispatch, hosts) for dispatch in found]


def target(name: str, hosts: Mapping[str, str]) -> str:
    """A target in words: a platform's name, or a webhook's host."""
    if name.startswith(WEBHOOK):
        return f"Webhook {hosts[name]}" if name in hosts else "Webhook, deleted"
    return platform(name)


def platform(name: str) -> str:
    """
    What a platform calls itself.

    >>> platform("tiktok"), platform("my_network")
    ('TikTok', 'My network')
    """
    return PLATFORMS.get(name, name.replace("_", " ").capitalize())


def reason(written: str | None) -> str:
    """
    A reason in words, with what stands behind its colon.

    >>> reason("missing_signals: phone or email"), reason("190"), reason(None)
    ('Too little is known to recognise the person; one of these is needed: Phone number or E-mail address', '190', '')
    """
    word, colon, rest = (written or "").partition(":")
    known = REASONS.get(word)
    if known is None:
        return written or ""
    if word == "missing_signals":
        rest = _WORD.sub(lambda found: SIGNALS.get(found[0], found[0]), rest)
    return f"{known}: {rest.strip()}" if colon and rest.strip() else known


def match_key(name: str) -> str:
    """What a person can be recognised by, in words."""
    return MATCH_KEYS.get(name, name)


def answer(code: str) -> str:
    """
    What the other side answered: HTTP's own answer in HTTP's words, a platform's own code as it is.

    >>> answer("http_503"), answer("invalid_grant")
    ('HTTP 503', 'invalid_grant')
    """
    status = code.removeprefix("http_")
    return f"HTTP {status}" if code != status and status.isdigit() else code


def shares(found: Coverage) -> tuple[Share, ...]:
    """The match keys of a platform's deliveries, the most frequent first."""
    return tuple(
        Share(
            match_key(key),
            number,
            words.percent(100 * found.share(key)),
            charts.share(number, found.dispatches),
        )
        for key, number in sorted(found.keys.items(), key=lambda pair: (-pair[1], pair[0]))
    )


def first_hour(now: datetime) -> datetime:
    """When the chart of the last day begins, so that it ends with the hour of *now*."""
    return now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)


def hours(found: Sequence[tuple[datetime, str, str, int]], begin: datetime, zone: tzinfo) -> Hours:
    """The chart of a day from *begin* on; *found* has hour, target, state and number."""
    numbers = {"delivered": [0] * HOURS, "dead": [0] * HOURS}
    for hour, _, state, number in found:
        place = (hour - begin) // timedelta(hours=1)
        if state in numbers and 0 <= place < HOURS:
            numbers[state][place] += number
    delivered, given_up = numbers["delivered"], numbers["dead"]
    levels = charts.scale(max(one + other for one, other in zip(delivered, given_up, strict=True)))
    step = 100 / HOURS
    return Hours(
        bars=tuple(
            Bar(
                label=f"{(begin + timedelta(hours=n)).astimezone(zone):%H:%M}",
                delivered=delivered[n],
                given_up=given_up[n],
                x=round(step * (n + 0.15), 2),
                width=round(step * 0.7, 2),
                good=charts.share(delivered[n], levels[-1]),
                bad=charts.share(given_up[n], levels[-1]),
            )
            for n in range(HOURS)
        ),
        levels=tuple(Level(round(100 - 100 * value / levels[-1], 2), value) for value in levels),
        delivered=sum(delivered),
        given_up=sum(given_up),
    )


def _delivery(dispatch: Dispatch, hosts: Mapping[str, str]) -> Delivery:
    cents, currency = dispatch.shown.get("amount_cents"), dispatch.shown.get("currency")
    return Delivery(
        row=dispatch,
        what=KINDS.get(dispatch.kind.removesuffix(".created"), dispatch.kind),
        amount=words.money(cents, currency) if isinstance(cents, int) and currency else None,
        to=target(dispatch.target, hosts),
        state=STATES.get(dispatch.state, dispatch.state),
        mood=MOODS.get(dispatch.state, ""),
        why=_why(dispatch),
        answer=answer(dispatch.code or ""),
        facts=tuple(_facts(dispatch.shown)),
        match_keys=tuple(match_key(key) for key in dispatch.shown.get("match_keys", ())),
    )


def _why(dispatch: Dispatch) -> str:
    """The reason, and what the platform said, each once."""
    said = [answer(dispatch.code or ""), dispatch.message] if dispatch.state != "delivered" else []
    parts = [reason(dispatch.reason) if dispatch.reason != dispatch.code else "", *said]
    return " · ".join(dict.fromkeys(part for part in parts if part))


def _facts(shown: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    cents, currency = shown.get("amount_cents"), shown.get("currency")
    left = shown.get("remaining_cents")
    told = (
        ("Event", shown.get("event")),
        ("Amount", words.money(cents, currency) if isinstance(cents, int) and currency else None),
        ("Left of the sale", words.money(left, currency) if isinstance(left, int) and currency else None),
        ("Site", shown.get("page")),
        ("Where", PLACES.get(str(shown.get("place")), shown.get("place"))),
        ("Items", shown.get("items")),
        ("Data for ads", CONSENT.get(str(shown.get("ad_user_data")), shown.get("ad_user_data"))),
        ("Personal ads", CONSENT.get(str(shown.get("ad_personalization")), shown.get("ad_personalization"))),
    )
    return ((name, str(value)) for name, value in told if value is not None)


__all__ = [
    "HOURS",
    "KINDS",
    "MATCH_KEYS",
    "PLATFORMS",
    "REASONS",
    "SIGNALS",
    "STATES",
    "Bar",
    "Delivery",
    "Hours",
    "Share",
    "answer",
    "deliveries",
    "first_hour",
    "hours",
    "match_key",
    "platform",
    "reason",
    "shares",
    "target",
]
