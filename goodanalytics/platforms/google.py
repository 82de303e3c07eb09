"""
Google's dialect: the Data Manager API. The older upload is in `google_ads`.

1. `POST /v1/events:ingest`, at most 2,000 events and 10 destinations; no developer token:
   https://developers.google.com/data-manager/api/reference/rest/v1/events/ingest, limits …/devguides/limits. Fields and
   enums as in github.com/googleapis/googleapis (google/ads/datamanager/v1, 2026-08) and `google-ads-datamanager` 0.9.4.
2. A destination is a conversion action of the type UPLOAD_CLICKS.
3. "OK" is a receipt; the result comes later. How answers read is in `google_answers`.
4. Google knows a conversion by `transactionId` within its action. The same id again restates the value: that is how a refund
   is told, …/devguides/events/google-ads/conversion-adjustments. An id that Google does not know yet would become a new
   conversion, so a refund waits until its sale is delivered, and a sale is not sent again after its refund: only whoever
   sends can see to that.
5. Persons as …/devguides/concepts/formatting says, in hexadecimal. Consent goes out as it was given.
6. An IP address goes out only for who is known to live outside the EEA, the United Kingdom and Switzerland; for them Google
   asks not to send it (`DeviceInfo.ip_address`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from goodanalytics.platforms.answers import body_of, unreadable
from goodanalytics.platforms.conversion import Conversion, Item, Kind, Person, Place
from goodanalytics.platforms.dialect import Outcome, Request, Response, Token, Verdict, Version, unfit
from goodanalytics.platforms.google_account import (
    CLICK_AGE,
    TOKEN_ADDRESS,
    Credential,
    action_id,
    click_of,
    digits_of,
    google_token_request,
    person_hashes,
    restates,
    secret_names,
    value_of,
)
from goodanalytics.platforms.google_answers import STILL_AT_IT, refusal, result_of, unanswered, warnings_of
from goodanalytics.platforms.normalize import country, google_name, hashed, major
from goodanalytics.platforms.oauth import token_of

SCOPE: Final = "https://www.googleapis.com/auth/datamanager"

_EVENTS: Final[Mapping[Kind, str]] = MappingProxyType(
    {"lead": "lead_action_id", "sale": "sale_action_id", "refund": "sale_action_id"}
)
# IN_STORE is for store sales, which are another kind of conversion action and must be granted.
_SOURCES: Final[Mapping[Place, str]] = MappingProxyType(
    {"website": "WEB", "phone": "PHONE", "store": "OTHER", "system": "OTHER"}
)
_CONSENT: Final = MappingProxyType({"granted": "CONSENT_GRANTED", "denied": "CONSENT_DENIED"})
_EEA_UK_CH: Final = (
    "at be bg ch cy cz de dk ee es fi fr gb gr hr hu ie is it li lt lu lv mt nl no pl pt ro se si sk"
)

_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Google:
    """
    Google Ads through the Data Manager API.

    Secrets: `customer_id`, the ids of the conversion actions, and `service_account` (the text of its JSON file) or
    `client_id`, `client_secret` and `refresh_token`. With `login_customer_id`, which may be absent, it signs in through
    that manager account.

    Attributes:
        api: Version of the API; none has an end that is known.
        events: Secret with the id of the conversion action, or the id; a refund restates the sale's action.
        credential: What access tokens are made from.
        test: Requests are checked and not kept (`validateOnly`).
        merchant_id: Of the Merchant Center whose product ids the items have; without it no cart goes out.
        confirm_after: Google has results after half an hour, most of them.
        address: Where the API is; another one in tests.
        token_address: Where tokens are given out.
    """

    api: str = "v1"
    events: Mapping[Kind, str] = field(default_factory=lambda: _EVENTS)
    credential: Credential = "service_account"
    test: bool = False
    merchant_id: str | None = None
    confirm_after: timedelta = timedelta(minutes=30)
    address: str = "https://datamanager.googleapis.com"
    token_address: str = TOKEN_ADDRESS
    name: str = "google"
    max_batch: int = 2000
    max_age: timedelta = CLICK_AGE - timedelta(minutes=10)

    @property
    def version(self) -> Version:
        """The version; Google has announced no end of v1."""
        return Version(self.api)

    @property
    def secrets(self) -> frozenset[str]:
        """Names of what must be stored."""
        return secret_names(self.events, self.credential) | {"customer_id"}

    def in_test(self, code: str) -> Google:  # noqa: ARG002 - Google has a mode, not a code
        """The same platform, whose requests are only checked."""
        return replace(self, test=True)

    def lane(self, conversion: Conversion) -> str:
        """A sale and what restates it never share a request; who comes first would be chance."""
        return "restatements" if conversion.kind == "refund" else "main"

    def skip(self, conversion: Conversion, now: datetime) -> str | None:
        """Why this is not sent."""
        if refused := unfit(self, conversion, now):
            return refused
        if conversion.kind == "refund":
            if not restates(conversion):
                return "missing_sale"
            # The event is the sale's, at the sale's time, and one that is too old refuses all.
            if conversion.sold_at is not None and now - conversion.sold_at > self.max_age:
                return "too_old"
        if not click_of(conversion) and not _identifiers(conversion.person):
            return "missing_signals: gclid, gbraid, wbraid, email, phone or address"
        return None

    def build(self, batch: Sequence[Conversion], secrets: Mapping[str, str], now: datetime) -> Request:
        """One request for the whole batch, with a destination for each conversion action in it."""
        body: dict[str, Any] = {
            "destinations": [self._destination(reference, secrets) for reference in self._references(batch)],
            "events": [self._event(conversion, now) for conversion in batch],
            "encoding": "HEX",
        }
        if self.test:
            body["validateOnly"] = True
        return Request(
            url=f"{self.address}/{self.api}/events:ingest",
            headers={
                "authorization": f"Bearer {secrets['access_token']}",
                "content-type": "application/json",
            },
            body=_encode(body),
        )

    def read(self, batch: Sequence[Conversion], response: Response) -> list[Outcome]:
        """A receipt for the whole batch, or a refusal of it that may name the events that are to blame."""
        body = body_of(response)
        if body is None:
            return unreadable(response).on_all(batch)
        if "error" in body or not 200 <= response.status < 300:
            return refusal(body, response, batch)
        warnings = warnings_of(body.get("fieldWarnings"))
        if self.test:
            verdict = Verdict(status="delivered", code="validated", message=warnings)
            return verdict.on_all(batch)
        receipt = body.get("requestId")
        if not isinstance(receipt, str) or not receipt:
            verdict = Verdict(status="retry", code="no_request_id", message="The answer holds no requestId")
            return verdict.on_all(batch)
        return Verdict(status="accepted", code="requestId", message=warnings).on_all(batch, receipt)

    def build_token_request(self, secrets: Mapping[str, str], now: datetime) -> Request:
        """
        The request for an access token of about an hour.

        Raises:
            InvalidInput: `service_account` cannot be read.
        """
        return google_token_request(self.credential, self.token_address, SCOPE, secrets, now)

    def read_token(self, response: Response, now: datetime) -> Token | Verdict:
        """The token; or what stands in its way."""
        return token_of(response, now)

    def build_poll(self, external_ref: str, secrets: Mapping[str, str], now: datetime) -> Request:  # noqa: ARG002 - the protocol's
        """The question what became of the request with this receipt."""
        return Request(
            method="GET",
            url=f"{self.address}/{self.api}/requestStatus:retrieve?{urlencode({'requestId': external_ref})}",
            headers={"authorization": f"Bearer {secrets['access_token']}"},
            body=b"",
        )

    def read_poll(self, batch: Sequence[Conversion], response: Response) -> list[Outcome]:
        """The results, as far as counts by destination tell whose they are; see rule 4."""
        body = body_of(response)
        if body is None or "error" in body or not 200 <= response.status < 300:
            return unanswered(body or {}, response).on_all(batch)
        statuses = body.get("requestStatusPerDestination")
        verdicts = dict.fromkeys(self._references(batch), STILL_AT_IT)
        found = [each for each in statuses if isinstance(each, dict)] if isinstance(statuses, list) else []
        for place, status in enumerate(found):
            reference = _destination_of(status, [*verdicts], place)
            if reference is not None:
                alike = sum(self.events[conversion.kind] == reference for conversion in batch)
                verdicts[reference] = result_of(status, alike)
        return [verdicts[self.events[conversion.kind]].on(conversion) for conversion in batch]

    def _references(self, batch: Iterable[Conversion]) -> list[str]:
        return list(dict.fromkeys(self.events[conversion.kind] for conversion in batch))

    def _destination(self, reference: str, secrets: Mapping[str, str]) -> dict[str, Any]:
        destination: dict[str, Any] = {
            "reference": reference,
            "operatingAccount": _account(secrets["customer_id"]),
            "productDestinationId": action_id(reference, secrets),
        }
        if manager := secrets.get("login_customer_id"):
            destination["loginAccount"] = _account(manager)
        return destination

    def _event(self, conversion: Conversion, now: datetime) -> dict[str, Any]:
        click = click_of(conversion)
        event: dict[str, Any] = {
            "destinationReferences": [self.events[conversion.kind]],
            "transactionId": conversion.event_id,
            "eventTimestamp": _rfc3339(min(conversion.occurred_at, now)),
            "eventSource": _SOURCES[conversion.place],
            "adIdentifiers": dict([click]) if click else None,
            "userData": {"userIdentifiers": _identifiers(conversion.person)},
            "consent": _consent(conversion),
            "eventDeviceInfo": _device(conversion),
        }
        if conversion.kind == "refund":
            event["transactionId"] = conversion.sale_event_id
            event["eventTimestamp"] = _rfc3339(conversion.sold_at or conversion.occurred_at)
            event["lastUpdatedTimestamp"] = _rfc3339(min(conversion.occurred_at, now), exactly=True)
        if (value := value_of(conversion)) and conversion.currency:
            event |= {"conversionValue": value[0], "currency": value[1]}
        # Google takes no cart together with a gbraid or a wbraid (`WarningReason`).
        if self.merchant_id and conversion.contents and (click is None or click[0] == "gclid"):
            event["cartData"] = {
                "merchantId": self.merchant_id,
                "items": [_item(item, conversion.currency) for item in conversion.contents],
            }
        if not event["userData"]["userIdentifiers"]:
            del event["userData"]
        return {key: value for key, value in event.items() if value not in (None, {})}


def _destination_of(status: Mapping[str, Any], references: Sequence[str], place: int) -> str | None:
    """Whose result this is: by its name, and by the order of the request's destinations where it has none."""
    destination = status.get("destination")
    named = destination.get("reference") if isinstance(destination, dict) else None
    if isinstance(named, str) and named:
        # Conversions may have been erased since, so places may have moved, and nobody may be left of a destination.
        return named if named in references else None
    return references[place] if place < len(references) else None


def _account(customer_id: str) -> dict[str, str]:
    return {"accountType": "GOOGLE_ADS", "accountId": digits_of(customer_id)}


def _identifiers(person: Person) -> list[dict[str, Any]]:
    hashes = person_hashes(person)
    identifiers: list[dict[str, Any]] = []
    if "email" in hashes:
        identifiers.append({"emailAddress": hashes["email"]})
    if "phone" in hashes:
        identifiers.append({"phoneNumber": hashes["phone"]})
    given, family = hashed(person.given, google_name), hashed(person.family, google_name)
    lives = country(person.country or "")
    if given and family and lives and person.postcode:
        address = {"givenName": given, "familyName": family, "regionCode": lives.upper()}
        identifiers.append({"address": address | {"postalCode": person.postcode.strip()}})
    return identifiers


def _consent(conversion: Conversion) -> dict[str, str]:
    said = {
        "adUserData": _CONSENT.get(conversion.consent.ad_user_data),
        "adPersonalization": _CONSENT.get(conversion.consent.ad_personalization),
    }
    return {key: value for key, value in said.items() if value}


def _device(conversion: Conversion) -> dict[str, str]:
    lives = country(conversion.person.country or "")
    outside = lives is not None and lives not in _EEA_UK_CH.split()
    known = {
        "userAgent": conversion.signals.user_agent,
        "ipAddress": conversion.signals.ip if outside else None,
    }
    return {key: value for key, value in known.items() if value}


def _item(item: Item, currency: str | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"merchantProductId": item.id, "quantity": str(item.quantity)}
    if item.price_cents is not None and currency:
        shown["unitPrice"] = major(item.price_cents, currency)
    return shown


def _rfc3339(moment: datetime, *, exactly: bool = False) -> str:
    """*exactly* to the microsecond: of two refunds of one second, the later one counts."""
    shown = "%Y-%m-%dT%H:%M:%S.%fZ" if exactly and moment.microsecond else "%Y-%m-%dT%H:%M:%SZ"
    return moment.astimezone(UTC).strftime(shown)
