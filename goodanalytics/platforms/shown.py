"""
What may be shown of a conversion that goes to a platform: which facts about the person go along, and none of those facts.

It is kept beside the sealed conversion, so that lists, coverage and the dashboard need no key. And one of nobody, that may
be shown to every platform.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from goodanalytics.core import urls
from goodanalytics.core.consent import Consent
from goodanalytics.platforms.conversion import Click, Conversion, Person, Signals
from goodanalytics.platforms.dialect import Platform

_CLICKS: Final = ("fbclid", "gclid", "li_fat_id", "ttclid", "oppref")


def match_keys(conversion: Conversion) -> list[str]:
    """
    Names of what a platform may recognise the person by, as far as it is known.

    >>> from datetime import UTC, datetime
    >>> from uuid import UUID
    >>> from goodanalytics.platforms.conversion import Person
    >>> noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    >>> match_keys(Conversion(dispatch_id=UUID(int=1), event_id="1", kind="lead", occurred_at=noon,
    ...                       person=Person(email="ada@example.org", name="Ada Lovelace")))
    ['email', 'first_name', 'last_name']
    """
    person, signals = conversion.person, conversion.signals
    known: Mapping[str, object] = {
        "email": person.email,
        "phone": person.phone,
        "first_name": person.given,
        "last_name": person.family,
        "external_id": person.external_id,
        "city": person.city,
        "region": person.region,
        "postcode": person.postcode,
        "country": person.country,
        **{name: signals.clicks[name].value for name in sorted(signals.clicks)},
        "fbc": signals.fbc,
        "fbp": signals.fbp,
        "ttp": signals.ttp,
        "ip": signals.ip,
        "user_agent": signals.user_agent,
    }
    return [name for name, value in known.items() if value]


def shown(conversion: Conversion, platform: Platform) -> dict[str, Any]:
    """The payload without anything that names a person or opens a door."""
    facts = {
        "event": platform.events.get(conversion.kind),
        "amount_cents": conversion.amount_cents,
        "currency": conversion.currency,
        "remaining_cents": conversion.remaining_cents,
        # Only the host of the page: a path or a query may name somebody.
        "page": urls.parts(conversion.url).host,
        "place": conversion.place,
        "items": len(conversion.contents) or None,
        "ad_user_data": conversion.consent.ad_user_data,
        "ad_personalization": conversion.consent.ad_personalization,
        "match_keys": match_keys(conversion),
    }
    return {name: value for name, value in facts.items() if value is not None}


def invented(dispatch_id: UUID, now: datetime) -> Conversion:
    """A sale of nobody's with everything that any platform asks for; for a platform's test mode."""
    clicked = now - timedelta(days=1)
    return Conversion(
        dispatch_id=dispatch_id,
        event_id=str(dispatch_id),
        kind="sale",
        occurred_at=now - timedelta(minutes=1),
        name="goodanalytics test",
        amount_cents=100,
        currency="EUR",
        url="https://example.com/",
        person=Person(email="test@example.com", external_id="goodanalytics-test", name="Test Person"),
        signals=Signals(
            clicks={name: Click(value="goodanalytics-test", at=clicked) for name in _CLICKS},
            # An address for examples: RFC 5737.
            ip="203.0.113.1",
            user_agent="Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
        ),
        consent=Consent(ad_user_data="granted", ad_personalization="granted"),
        order_key="goodanalytics-test",
    )


__all__ = ["invented", "match_keys", "shown"]
