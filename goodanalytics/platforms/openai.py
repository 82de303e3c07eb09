"""
OpenAI's dialect: the Conversions API of OpenAI Ads.

1. `POST /v1/events?pid={pixel}` with at most 1,000 events; one that is wrong fails all of them:
   https://developers.openai.com/ads/conversions-api (read 2026-11)
2. Events and the shape of their data: https://developers.openai.com/ads/supported-events. Amounts are whole minor units.
3. `id` is deduplicated with the pixel's event of the same type. `timestamp_ms` is at most seven days old and at most ten
   minutes ahead. A website's event needs its page.
4. `user` has lists. The page that was stored for us still showed single values (`email_sha256`); the lists are what
   github.com/webaroundlabs/openai-ads-toolkit quotes from it on 2026-09-11 (`packages/spec/user.json`), with the rules of
   hashing. Cities, regions and postcodes would go out in the clear, so they do not go out.
5. UNVERIFIED: what an answer looks like. Status codes, bodies and limits are not documented, so the HTTP status judges, and
   an `error` in a body is no success whatever the status.
6. `oppref` and `obref` are opaque and go out as they came.
7. Who refused personal ads is sent with `opt_out`. There is no way to take a purchase back.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from goodanalytics.platforms.answers import body_of, by_status, retry_after, unreadable
from goodanalytics.platforms.conversion import Conversion, Item, Kind, Place
from goodanalytics.platforms.dialect import Outcome, Request, Response, Verdict, Version, unfit
from goodanalytics.platforms.normalize import country, email, hashed, page, phone_digits

SHAPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "order_created": "contents",
        "checkout_started": "contents",
        "items_added": "contents",
        "contents_viewed": "contents",
        "page_viewed": "contents",
        "lead_created": "customer_action",
        "registration_completed": "customer_action",
        "appointment_scheduled": "customer_action",
        "subscription_created": "plan_enrollment",
        "trial_started": "plan_enrollment",
    }
)
"""The standard events and the shape of their data; every other name is sent as a custom event."""

MATCH_KEYS: Final = ("emails_sha256", "phone_numbers_sha256", "external_ids_sha256", "obref")
"""One of these or an `oppref` must be known: what else there is names nobody."""

_EVENTS: Final[Mapping[Kind, str]] = MappingProxyType({"lead": "lead_created", "sale": "order_created"})
_ACTION_SOURCES: Final[Mapping[Place, str]] = MappingProxyType(
    {"website": "web", "phone": "phone_call", "store": "physical_store", "system": "other"}
)
_PUNCTUATION: Final = frozenset(string.punctuation)
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAI:
    """
    OpenAI Ads Conversions API. Secrets: `api_key` (the Conversions API's own, not the Advertiser API's), `pixel_id`.

    Attributes:
        api: Version of the API; none has an end that is known.
        events: What a lead, a sale, a refund is called; leave one out to send none of it.
        test: Requests are checked and not kept (`validate_only`).
        address: Where the API is; another one in tests.
    """

    api: str = "v1"
    events: Mapping[Kind, str] = field(default_factory=lambda: _EVENTS)
    test: bool = False
    address: str = "https://bzr.openai.com"
    name: str = "openai"
    max_batch: int = 1000
    # Less than the week that OpenAI allows: what waits, and a clock that is behind, must not sink a batch.
    max_age: timedelta = timedelta(days=7) - timedelta(minutes=10)
    secrets: frozenset[str] = frozenset({"api_key", "pixel_id"})

    @property
    def version(self) -> Version:
        """The version; OpenAI has announced no end of v1."""
        return Version(self.api)

    def in_test(self, code: str) -> OpenAI:  # noqa: ARG002 - OpenAI has a mode, not a code
        """The same platform, whose requests are only checked."""
        return replace(self, test=True)

    def skip(self, conversion: Conversion, now: datetime) -> str | None:
        """Why this is not sent."""
        if refused := unfit(self, conversion, now):
            return refused
        if conversion.place == "website" and not page(conversion.url):
            return "missing_signals: url"
        if not conversion.signals.click("oppref") and not any(key in _user(conversion) for key in MATCH_KEYS):
            return "missing_signals: oppref, obref, email, phone or external_id"
        return None

    def build(self, batch: Sequence[Conversion], secrets: Mapping[str, str], now: datetime) -> Request:
        """One request for the whole batch."""
        body: dict[str, Any] = {
            "validate_only": self.test,
            "events": [self._event(conversion, now) for conversion in batch],
        }
        return Request(
            url=f"{self.address}/{self.api}/events?{urlencode({'pid': secrets['pixel_id']})}",
            headers={"authorization": f"Bearer {secrets['api_key']}", "content-type": "application/json"},
            body=_encode(body),
        )

    def read(self, batch: Sequence[Conversion], response: Response) -> list[Outcome]:
        """OpenAI takes a batch whole or not at all, so every event has the verdict of the request."""
        reference = response.headers.get("x-request-id")
        if not response.body.strip():
            return by_status(response).on_all(batch, reference)
        body = body_of(response)
        if body is None:
            return unreadable(response).on_all(batch, reference)
        code, message = _error(body)
        if "error" in body and 200 <= response.status < 300:
            verdict = Verdict(
                status="retry",
                code=code or "error",
                message=message,
                retry_after=retry_after(response),
            )
            return verdict.on_all(batch, reference)
        return by_status(response, code=code, message=message).on_all(batch, reference)

    def _event(self, conversion: Conversion, now: datetime) -> dict[str, Any]:
        called = self.events[conversion.kind]
        event: dict[str, Any] = {
            "id": conversion.event_id,
            "type": called if called in SHAPES else "custom",
            "custom_event_name": None if called in SHAPES else called,
            "timestamp_ms": int(min(conversion.occurred_at, now).timestamp() * 1000),
            "action_source": _ACTION_SOURCES[conversion.place],
            "source_url": page(conversion.url),
            "oppref": conversion.signals.click("oppref"),
            "user": _user(conversion),
            "data": _data(conversion, SHAPES.get(called, "custom")),
        }
        if conversion.consent.ad_personalization == "denied":
            event["opt_out"] = True
        return {key: value for key, value in event.items() if value not in (None, {})}


def _user(conversion: Conversion) -> dict[str, Any]:
    person, signals = conversion.person, conversion.signals
    lives = country(person.country or "")
    lists = {
        "emails_sha256": hashed(person.email, email),
        "phone_numbers_sha256": hashed(person.phone, phone_digits),
        "external_ids_sha256": hashed(person.external_id, _trimmed),
        "first_names_sha256": hashed(person.given, _name),
        "last_names_sha256": hashed(person.family, _name),
        "countries": lives.upper() if lives else None,
    }
    single = {
        "obref": signals.click("obref"),
        "ip_address": signals.ip,
        "user_agent": signals.user_agent,
    }
    return {key: [value] for key, value in lists.items() if value} | {
        key: value for key, value in single.items() if value
    }


def _trimmed(text: str) -> str | None:
    """An id as OpenAI compares it: in its own case."""
    return text.strip() or None


def _name(text: str) -> str | None:
    """A name as OpenAI compares it: lower case, without spaces and without ASCII punctuation, in any script."""
    return "".join(c for c in text.lower() if not c.isspace() and c not in _PUNCTUATION) or None


def _data(conversion: Conversion, shape: str) -> dict[str, Any]:
    # What the host calls its properties may name a person, so none of them goes out.
    data: dict[str, Any] = {"type": shape}
    if conversion.amount_cents is not None and conversion.currency:
        data["amount"] = conversion.amount_cents
        data["currency"] = conversion.currency.upper()
    if conversion.contents and shape != "customer_action":
        data["contents"] = [_content(item, conversion.currency) for item in conversion.contents]
    return data


def _content(item: Item, currency: str | None) -> dict[str, Any]:
    content: dict[str, Any] = {
        "id": item.id,
        "name": item.name,
        "content_type": "product",
        "quantity": item.quantity,
    }
    if item.price_cents is not None and currency:
        content |= {"amount": item.price_cents, "currency": currency.upper()}
    return {key: value for key, value in content.items() if value is not None}


def _error(body: Mapping[str, Any]) -> tuple[str, str]:
    """Code and message, where the body has them as OpenAI's other APIs do; that is a guess."""
    error = body.get("error")
    if isinstance(error, dict):
        return str(error.get("code") or error.get("type") or ""), str(error.get("message", ""))
    return "", str(error or body.get("message") or "")
