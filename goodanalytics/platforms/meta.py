"""
Meta's dialect: the Conversions API.

1. `POST /{api}/{pixel or dataset}/events` with up to 1,000 events; one that is older than seven days, or wrong in any
   other way, is an error for all: https://developers.facebook.com/docs/marketing-api/conversions-api/using-the-api
2. A website's event needs its page and the browser's user agent: …/conversions-api/parameters/server-event
3. Persons are hashed as …/conversions-api/parameters/customer-information-parameters says; the browser's own marks are not.
4. `fbc` is built with the time of the click, in ms, and an `fbclid` in its own case: …/conversions-api/parameters/fbp-and-fbc
5. Versions: https://developers.facebook.com/docs/graph-api/changelog (read 2026-11); Meta's own library speaks v26.0. For
   this API a version lives two years at least; the end of v26.0 is not announced.
6. Errors: https://developers.facebook.com/docs/graph-api/guides/error-handling; an expired token is an HTTP 400.
7. There is no way to take a purchase back. A host may map refunds to an event name of its own; by default none is sent.
8. Who refused personal ads is sent with `opt_out` (attribution only) and Limited Data Use:
   https://developers.facebook.com/docs/marketing-apis/data-processing-options
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

import msgspec

from goodanalytics.errors import InvalidInput
from goodanalytics.platforms.answers import body_of, by_status, retry_after, unreadable
from goodanalytics.platforms.conversion import Conversion, Item, Kind, Place, Signals
from goodanalytics.platforms.dialect import (
    CEILING,
    Outcome,
    Request,
    Response,
    Status,
    Verdict,
    Version,
    unfit,
)
from goodanalytics.platforms.normalize import (
    country,
    email,
    hashed,
    letters,
    major,
    name,
    page,
    phone_digits,
    plain,
    postcode,
    region,
)

SUNSETS: Final[Mapping[str, date]] = MappingProxyType(
    {
        "v21.0": date(2027, 1, 21),
        "v22.0": date(2027, 5, 20),
        "v23.0": date(2027, 10, 8),
        "v24.0": date(2028, 2, 18),
        "v25.0": date(2028, 7, 29),
    }
)
MATCH_KEYS: Final = ("em", "ph", "external_id", "fbc", "fbp")
"""One of these must be known; Meta refuses events that are known by place and name alone (since v13.0)."""

_EVENTS: Final[Mapping[Kind, str]] = MappingProxyType({"lead": "Lead", "sale": "Purchase"})
_ACTION_SOURCES: Final[Mapping[Place, str]] = MappingProxyType(
    {"website": "website", "phone": "phone_call", "store": "physical_store", "system": "system_generated"}
)
_CREDENTIAL: Final = frozenset({3, 10, 102, 190, 2635})  # 2635: a version that has ended
_RATE_LIMITED: Final = frozenset({4, 17, 32, 341, 613})
_RETRY: Final = frozenset({1, 2, 5000})  # 5000: an error that Meta has no name for
_POLICY_PAUSE: Final = 368
_NO_SUCH_OBJECT: Final = (100, 33)  # the pixel is not there, or not for this token
_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """
    Meta Conversions API. Secrets: `access_token`, `pixel_id` (or a dataset's id).

    Attributes:
        api: Version of the Graph API.
        events: What a lead, a sale, a refund is called; leave one out to send none of it.
        test_event_code: Shown in Events Manager under Test Events; such events count for nothing.
        limited_data_use: For every event, not only for who refused personal ads.
        address: Where the API is; another one in tests.
    """

    api: str = "v26.0"
    events: Mapping[Kind, str] = field(default_factory=lambda: _EVENTS)
    test_event_code: str | None = None
    limited_data_use: bool = False
    address: str = "https://graph.facebook.com"
    name: str = "meta"
    max_batch: int = 1000
    # Less than the week that Meta allows: what waits, and a clock that is behind, must not sink a batch.
    max_age: timedelta = timedelta(days=7) - timedelta(minutes=10)
    secrets: frozenset[str] = frozenset({"access_token", "pixel_id"})

    @property
    def version(self) -> Version:
        """The version and its last day; `None` for one whose end is not announced."""
        return Version(self.api, SUNSETS.get(self.api))

    def in_test(self, code: str) -> Meta:
        """
        The same platform, whose events are shown under *code* and count for nothing.

        Raises:
            InvalidInput: Without a code they would count.
        """
        if not code.strip():
            raise InvalidInput(
                "Meta needs a test code: Events Manager shows one under Test Events", where="test_code"
            )
        return replace(self, test_event_code=code.strip())

    def skip(self, conversion: Conversion, now: datetime) -> str | None:
        """Why this is not sent."""
        if refused := unfit(self, conversion, now):
            return refused
        if conversion.place == "website" and not page(conversion.url):
            return "missing_signals: url"
        if conversion.place == "website" and not conversion.signals.user_agent:
            return "missing_signals: user_agent"
        if not any(key in _user_data(conversion) for key in MATCH_KEYS):
            return "missing_signals: fbc, fbp, email, phone or external_id"
        if conversion.kind == "sale" and (conversion.amount_cents is None or conversion.currency is None):
            return "missing_amount"
        return None

    def build(self, batch: Sequence[Conversion], secrets: Mapping[str, str], now: datetime) -> Request:
        """One request for the whole batch; the token goes into a header, because addresses end up in logs."""
        body: dict[str, Any] = {"data": [self._event(conversion, now) for conversion in batch]}
        if self.test_event_code:
            body["test_event_code"] = self.test_event_code
        return Request(
            url=f"{self.address}/{self.api}/{quote(secrets['pixel_id'], safe='')}/events",
            headers={
                "authorization": f"Bearer {secrets['access_token']}",
                "content-type": "application/json",
            },
            body=_encode(body),
        )

    def read(self, batch: Sequence[Conversion], response: Response) -> list[Outcome]:
        """Meta takes a batch whole or not at all, so every event has the verdict of the request."""
        body = body_of(response)
        if body is None:
            return unreadable(response).on_all(batch)
        error = body.get("error")
        if isinstance(error, dict):
            return _verdict(error, response).on_all(batch, _text(error.get("fbtrace_id")))
        return _taken(body, response, len(batch)).on_all(batch, _text(body.get("fbtrace_id")))

    def _event(self, conversion: Conversion, now: datetime) -> dict[str, Any]:
        refused_personal = conversion.consent.ad_personalization == "denied"
        event: dict[str, Any] = {
            "event_name": self.events[conversion.kind],
            "event_time": int(min(conversion.occurred_at, now).timestamp()),
            "event_id": conversion.event_id,
            "action_source": _ACTION_SOURCES[conversion.place],
            "event_source_url": page(conversion.url),
            "user_data": _user_data(conversion),
            "custom_data": _custom_data(conversion),
        }
        if refused_personal:
            event["opt_out"] = True
        if refused_personal or self.limited_data_use:
            # 0 and 0 ask Meta to find out whether the person is in a state where this holds.
            event["data_processing_options"] = ["LDU"]
            event["data_processing_options_country"] = 0
            event["data_processing_options_state"] = 0
        return {key: value for key, value in event.items() if value not in (None, {})}


def fbc(signals: Signals) -> str | None:
    """
    Meta's click id as `fb.1.{ms of the click}.{fbclid}`; the browser's own cookie, unless a later click is known.

    >>> from datetime import UTC
    >>> from goodanalytics.platforms import Click
    >>> fbc(Signals(clicks={"fbclid": Click(value="IwAR0aB", at=datetime(2026, 5, 1, tzinfo=UTC))}))
    'fb.1.1777593600000.IwAR0aB'
    """
    click = signals.clicks.get("fbclid")
    if click is None:
        return signals.fbc
    clicked = int(click.at.timestamp() * 1000)
    cookie = (signals.fbc or "").split(".")
    if len(cookie) >= 4 and (cookie[3] == click.value or (cookie[2].isdigit() and int(cookie[2]) >= clicked)):
        return signals.fbc
    return f"fb.1.{clicked}.{click.value}"


def _user_data(conversion: Conversion) -> dict[str, Any]:
    person, signals = conversion.person, conversion.signals
    hashes = {
        "em": hashed(person.email, email),
        "ph": hashed(person.phone, phone_digits),
        "fn": hashed(person.given, name),
        "ln": hashed(person.family, name),
        "ct": hashed(person.city, letters),
        "st": hashed(person.region, region),
        "zp": hashed(person.postcode, postcode(person.country)),
        "country": hashed(person.country, country),
        "external_id": hashed(person.external_id, plain),
    }
    marks = {
        "client_ip_address": signals.ip,
        "client_user_agent": signals.user_agent,
        "fbc": fbc(signals),
        "fbp": signals.fbp,
    }
    return {key: [digest] for key, digest in hashes.items() if digest} | {
        key: mark for key, mark in marks.items() if mark
    }


def _custom_data(conversion: Conversion) -> dict[str, Any]:
    # What the host calls its properties may name a person, so none of them goes out.
    custom: dict[str, Any] = {"order_id": conversion.order_key}
    if conversion.amount_cents is not None and conversion.currency is not None:
        custom["currency"] = conversion.currency.upper()
        custom["value"] = major(conversion.amount_cents, conversion.currency)
    if conversion.contents:
        custom["content_type"] = "product"
        custom["contents"] = [_content(item, conversion.currency) for item in conversion.contents]
    return {key: value for key, value in custom.items() if value is not None}


def _content(item: Item, currency: str | None) -> dict[str, Any]:
    content: dict[str, Any] = {"id": item.id, "quantity": item.quantity}
    if item.price_cents is not None and currency is not None:
        content["item_price"] = major(item.price_cents, currency)
    return content


def _taken(body: Mapping[str, Any], response: Response, sent: int) -> Verdict:
    if not 200 <= response.status < 300:
        return by_status(response)
    received = body.get("events_received")
    if not isinstance(received, int):
        return unreadable(response)
    notes = body.get("messages")
    said = "; ".join(str(note) for note in notes) if isinstance(notes, list) else ""
    if received < sent:
        message = said or f"Meta took {received} of {sent} events and does not say which"
        return Verdict(status="permanent", code="events_received", message=message, of_batch=True)
    return Verdict(status="delivered", code="events_received", message=said)


def _verdict(error: Mapping[str, Any], response: Response) -> Verdict:
    code, subcode = error.get("code"), error.get("error_subcode")
    title, message = error.get("error_user_title"), error.get("message")
    status = _status_of(code, subcode, transient=error.get("is_transient") is True)
    if status is None:
        return by_status(response, code=_text(code) or "", message=_text(message) or "")
    return Verdict(
        status=status,
        code=f"{code}/{subcode}" if subcode else str(code),
        message=": ".join(str(part) for part in (title, message) if part),
        retry_after=CEILING if code == _POLICY_PAUSE else retry_after(response),
        of_batch=status == "permanent",
    )


def _status_of(code: object, subcode: object, *, transient: bool) -> Status | None:
    if not isinstance(code, int):
        return None
    if code in _CREDENTIAL or 200 <= code <= 299 or (code, subcode) == _NO_SUCH_OBJECT:
        return "credential"
    if code in _RATE_LIMITED or code == _POLICY_PAUSE or 80000 <= code <= 80014:
        return "rate_limited"
    if transient or code in _RETRY:
        return "retry"
    return "permanent" if code == 100 else None


def _text(value: object) -> str | None:
    return str(value) if value is not None else None
