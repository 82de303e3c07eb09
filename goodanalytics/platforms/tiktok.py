"""
TikTok's dialect: Events API 2.0, web events.

1. `POST /open_api/{api}/event/track/` with `event_source`, `event_source_id` (the pixel) and up to 1,000 events:
   https://business-api.tiktok.com/portal/docs?id=1771101303285761, web: …?id=1771100865818625. The portal cannot be read
   without a browser; what it says was checked against the open connectors of Segment (github.com/segmentio/action-destinations)
   and RudderStack (github.com/rudderlabs/rudder-transformer, which quotes 1,000 a batch), 2026-11.
2. The answer is an HTTP 200 with a `code` of its own, whatever happened; 0 alone is success.
3. Names are Lead and Purchase since 2025-05-01: https://ads.tiktok.com/help/article/how-to-adopt-tiktoks-updated-standard-events
4. E-mail, phone (E.164 with its plus), external id, names and postcode are hashed; ip, user agent, `ttclid` and `ttp` are not.
   City, region and country would go out in the clear, so they do not go out.
5. `event` with `event_id` is counted once within 48 hours. TikTok wants `event_id` to be a string.
6. Who refused personal ads is sent with `limited_data_use`. There is no way to take a purchase back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

import msgspec

from goodanalytics.errors import InvalidInput
from goodanalytics.platforms.answers import body_of, by_status, retry_after, unreadable
from goodanalytics.platforms.conversion import Conversion, Item, Kind
from goodanalytics.platforms.dialect import Outcome, Request, Response, Status, Verdict, Version, unfit
from goodanalytics.platforms.normalize import email, hashed, major, name, page, phone_e164, plain, postcode

SUNSETS: Final[Mapping[str, date]] = MappingProxyType({})
"""No end of v1.3 is announced."""

MATCH_KEYS: Final = ("ttclid", "ttp", "email", "phone", "external_id")
_EVENTS: Final[Mapping[Kind, str]] = MappingProxyType({"lead": "Lead", "sale": "Purchase"})
_PARTLY: Final = 20001
_CREDENTIAL: Final = frozenset({40001, 40102, 40104, 40105})
_RATE_LIMITED: Final = frozenset({40100})
_RETRY: Final = frozenset({40700})
_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True, slots=True, kw_only=True)
class TikTok:
    """
    TikTok Events API. Secrets: `access_token`, `pixel_code`.

    Attributes:
        api: Version of the Business API.
        events: What a lead, a sale, a refund is called; leave one out to send none of it.
        test_event_code: Shown in Events Manager under Test Events; such events count for nothing.
        limited_data_use: For every event, not only for who refused personal ads.
        address: Where the API is; another one in tests.
    """

    api: str = "v1.3"
    events: Mapping[Kind, str] = field(default_factory=lambda: _EVENTS)
    test_event_code: str | None = None
    limited_data_use: bool = False
    address: str = "https://business-api.tiktok.com"
    name: str = "tiktok"
    max_batch: int = 1000
    # Less than the week that TikTok allows: what waits, and a clock that is behind, must not sink a batch.
    max_age: timedelta = timedelta(days=7) - timedelta(minutes=10)
    secrets: frozenset[str] = frozenset({"access_token", "pixel_code"})

    @property
    def version(self) -> Version:
        """The version and its last day; `None` for one whose end is not announced."""
        return Version(self.api, SUNSETS.get(self.api))

    def in_test(self, code: str) -> TikTok:
        """
        The same platform, whose events are shown under *code* and count for nothing.

        Raises:
            InvalidInput: Without a code they would count.
        """
        if not code.strip():
            raise InvalidInput(
                "TikTok needs a test code: Events Manager shows one under Test Events", where="test_code"
            )
        return replace(self, test_event_code=code.strip())

    def skip(self, conversion: Conversion, now: datetime) -> str | None:
        """Why this is not sent."""
        if refused := unfit(self, conversion, now):
            return refused
        if conversion.place != "website":
            return f"unsupported_place: {conversion.place}"
        if not page(conversion.url):
            return "missing_signals: url"
        if not any(key in _user(conversion) for key in MATCH_KEYS):
            return "missing_signals: ttclid, ttp, email, phone or external_id"
        if conversion.kind == "sale" and (conversion.amount_cents is None or conversion.currency is None):
            return "missing_amount"
        return None

    def build(self, batch: Sequence[Conversion], secrets: Mapping[str, str], now: datetime) -> Request:
        """One request for the whole batch. The token stands bare in its header, without `Bearer`."""
        body: dict[str, Any] = {"event_source": "web", "event_source_id": secrets["pixel_code"]}
        if self.test_event_code:
            body["test_event_code"] = self.test_event_code
        body["data"] = [self._event(conversion, now) for conversion in batch]
        return Request(
            url=f"{self.address}/open_api/{self.api}/event/track/",
            headers={"access-token": secrets["access_token"], "content-type": "application/json"},
            body=_encode(body),
        )

    def read(self, batch: Sequence[Conversion], response: Response) -> list[Outcome]:
        """TikTok does not say which event of a batch is wrong, so every event has the verdict of the request."""
        body = body_of(response)
        code = body.get("code") if body else None
        if body is None or not isinstance(code, int):
            return unreadable(response).on_all(batch)
        reference = body.get("request_id")
        verdict = _verdict(code, str(body.get("message", "")), response, len(batch))
        return verdict.on_all(batch, str(reference) if reference else None)

    def _event(self, conversion: Conversion, now: datetime) -> dict[str, Any]:
        event: dict[str, Any] = {
            "event": self.events[conversion.kind],
            "event_time": int(min(conversion.occurred_at, now).timestamp()),
            "event_id": conversion.event_id,
            "user": _user(conversion),
            "page": {"url": page(conversion.url)},
        }
        if properties := _properties(conversion):
            event["properties"] = properties
        if self.limited_data_use or conversion.consent.ad_personalization == "denied":
            event["limited_data_use"] = True
        return event


def _user(conversion: Conversion) -> dict[str, str]:
    person, signals = conversion.person, conversion.signals
    known = {
        "email": hashed(person.email, email),
        "phone": hashed(person.phone, phone_e164),
        "external_id": hashed(person.external_id, plain),
        "first_name": hashed(person.given, name),
        "last_name": hashed(person.family, name),
        "zip_code": hashed(person.postcode, postcode(person.country)),
        "ttclid": signals.click("ttclid"),
        "ttp": signals.ttp,
        "ip": signals.ip,
        "user_agent": signals.user_agent,
    }
    return {key: value for key, value in known.items() if value}


def _properties(conversion: Conversion) -> dict[str, Any]:
    # What the host calls its properties may name a person, so none of them goes out.
    properties: dict[str, Any] = {"order_id": conversion.order_key}
    if conversion.amount_cents is not None and conversion.currency is not None:
        properties["currency"] = conversion.currency.upper()
        properties["value"] = major(conversion.amount_cents, conversion.currency)
    if conversion.contents:
        properties["content_type"] = "product"
        properties["contents"] = [_content(item, conversion.currency) for item in conversion.contents]
    return {key: value for key, value in properties.items() if value is not None}


def _content(item: Item, currency: str | None) -> dict[str, Any]:
    priced = item.price_cents is not None and currency is not None
    content = {
        "content_id": item.id,
        "content_name": item.name,
        "content_category": item.category,
        "brand": item.brand,
        "quantity": item.quantity,
        "price": major(item.price_cents or 0, currency or "") if priced else None,
    }
    return {key: value for key, value in content.items() if value is not None}


def _verdict(code: int, message: str, response: Response, sent: int) -> Verdict:
    status: Status
    if code == 0 and not 200 <= response.status < 300:
        return by_status(response, message=message)
    if code == 0 or (code == _PARTLY and sent == 1):
        # "Partly" of a single event is what the other connectors take for success, too.
        status = "delivered"
    elif code in _CREDENTIAL:
        status = "credential"
    elif code in _RATE_LIMITED or response.status == 429:
        status = "rate_limited"
    elif code in _RETRY or code >= 50000:
        status = "retry"
    else:
        status = "permanent"
    return Verdict(
        status=status,
        code=str(code),
        message=message,
        retry_after=retry_after(response),
        of_batch=status == "permanent",
    )
