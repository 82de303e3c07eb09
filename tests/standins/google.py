"""Google's stand-in: the Data Manager API and where tokens are given out. Pages: see `goodanalytics.platforms.google`."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime
from functools import cache
from typing import Any, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.platforms.standins import json_response
from tests.standins import (
    Call,
    Instead,
    Refused,
    StandIn,
    Strict,
    Taken,
    a_currency,
    all_hashed,
    an_ip,
    checked,
    decoded,
    in_bounds,
    says,
    within,
)
from tests.standins.oauth import TokenOffice

ACCOUNT = "conversions@project.iam.gserviceaccount.com"
CUSTOMER = "1234567890"
ACTIONS = {"lead_action_id": "111", "sale_action_id": "222"}
REFRESH = {
    "client_id": "1234.apps.googleusercontent.com",
    "client_secret": "GOCSPX-0secretsecretsecret0",
    "refresh_token": "1//0refreshrefreshrefresh0",
}
SCOPES = frozenset({"https://www.googleapis.com/auth/datamanager", "https://www.googleapis.com/auth/adwords"})


@cache
def private_key() -> RSAPrivateKey:
    """Of the service account; made once, because that takes its time."""
    return generate_private_key(public_exponent=65537, key_size=2048)


def key_file() -> str:
    """What Google Cloud hands out with a service account."""
    pem = private_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    known = {"type": "service_account", "client_email": ACCOUNT, "private_key_id": "k1", "private_key": pem}
    return msgspec.json.encode(known).decode()


def secrets() -> dict[str, str]:
    """All that has to be stored, for either credential."""
    return {"customer_id": "123-456-7890", "service_account": key_file()} | ACTIONS | REFRESH


class ProductAccount(Strict):
    accountType: Literal["GOOGLE_ADS"]
    accountId: str


class Destination(Strict):
    reference: str
    operatingAccount: ProductAccount
    productDestinationId: str
    loginAccount: ProductAccount | None = None


class AdIdentifiers(Strict):
    gclid: str | None = None
    gbraid: str | None = None
    wbraid: str | None = None


class AddressInfo(Strict):
    givenName: str
    familyName: str
    regionCode: str
    postalCode: str


class UserIdentifier(Strict):
    emailAddress: str | None = None
    phoneNumber: str | None = None
    address: AddressInfo | None = None


class UserData(Strict):
    userIdentifiers: list[UserIdentifier]


class ConsentGiven(Strict):
    adUserData: Literal["CONSENT_GRANTED", "CONSENT_DENIED"] | None = None
    adPersonalization: Literal["CONSENT_GRANTED", "CONSENT_DENIED"] | None = None


class DeviceInfo(Strict):
    userAgent: str | None = None
    ipAddress: str | None = None


class Item(Strict):
    merchantProductId: str
    quantity: str
    unitPrice: float | None = None


class CartData(Strict):
    merchantId: str
    items: list[Item]


class Event(Strict):
    destinationReferences: list[str]
    transactionId: str
    eventTimestamp: datetime
    eventSource: Literal["WEB", "APP", "IN_STORE", "PHONE", "MESSAGE", "OTHER"]
    lastUpdatedTimestamp: datetime | None = None
    adIdentifiers: AdIdentifiers | None = None
    userData: UserData | None = None
    consent: ConsentGiven | None = None
    eventDeviceInfo: DeviceInfo | None = None
    conversionValue: float | None = None
    currency: str | None = None
    cartData: CartData | None = None


class Body(Strict):
    destinations: list[Destination]
    events: list[Event]
    encoding: Literal["HEX", "BASE64"]
    validateOnly: bool = False


def error(code: int, status: str, message: str = "There was a problem with the request.", *details: Any):
    """As https://google.aip.dev/193 words it."""
    return says(
        code, {"error": {"code": code, "message": message, "status": status, "details": list(details)}}
    )


def violation(*indices: int, reason: str = "INVALID_FORMAT"):
    """The refusal that blames these events."""
    fields = [
        {
            "field": f"events.events[{index}].event_timestamp",
            "description": "Is wrong.",
            "reason": reason,
        }
        for index in indices
    ]
    detail = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": fields}
    return error(400, "INVALID_ARGUMENT", "There was a problem with the request.", detail)


THROTTLED = error(
    429,
    "RESOURCE_EXHAUSTED",
    "Quota exceeded for quota metric 'Requests'",
    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "30s"},
)
EXPIRED = error(
    401, "UNAUTHENTICATED", "Request had invalid authentication credentials. Expected OAuth 2 access token."
)
NO_PERMISSION = error(403, "PERMISSION_DENIED", "The caller does not have permission")
TRANSIENT = error(503, "UNAVAILABLE", "The service is currently unavailable.")
BLAMED = violation(1)


def result(status: str, **counts: int) -> dict[str, Any]:
    """One `RequestStatusPerDestination`."""
    found: dict[str, Any] = {"requestStatus": status}
    if counts:
        prefix = "PROCESSING_ERROR_REASON_"
        found["errorInfo"] = {
            "errorCounts": [
                {"recordCount": str(n), "reason": prefix + reason} for reason, n in counts.items()
            ]
        }
    return found


class Google(StandIn):
    """
    `accepted` has transaction ids of conversions, and `restated id value` for each restatement.

    A restatement of a conversion that is not known, and a conversion that comes again after its restatement, are faults: the
    first would count as a sale, the second would undo a refund. `results` holds what the next polls say instead of SUCCESS.
    """

    hosts = ("datamanager.googleapis.com", "oauth2.googleapis.com")
    others = {"/token": "oauth2.googleapis.com"}

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        account = (ACCOUNT, private_key().public_key())
        self.office = TokenOffice(REFRESH, account=account, scopes=SCOPES)
        self.results: list[list[dict[str, Any]]] = []
        self._receipts: dict[str, int] = {}
        self._restated: Counter[str] = Counter()

    def judge(self, call: Call) -> Taken:
        if call.host == "oauth2.googleapis.com":
            return self.office.judge(call, "/token", self.clock())
        if call.host != "datamanager.googleapis.com":
            raise _refuse("another host")
        if call.headers.get("authorization") != f"Bearer {self.office.token}":
            raise Refused("another token", EXPIRED.response)
        return self._polled(call) if call.method == "GET" else self._ingested(call)

    def _polled(self, call: Call) -> Taken:
        checked(call, _refuse, path="/v1/requestStatus:retrieve", method="GET")
        known = self._receipts.get(call.query.get("requestId", ""))
        if known is None or set(call.query) != {"requestId"} or call.body:
            detail = {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "INVALID_REQUEST_ID",
                "domain": "datamanager.googleapis.com",
            }
            refusal: Instead = error(400, "INVALID_ARGUMENT", "The request ID is invalid.", detail)
            raise Refused("a receipt that was not given out", refusal.response)
        found = self.results.pop(0) if self.results else [result("SUCCESS")] * known
        return Taken(json_response({"requestStatusPerDestination": found}))

    def _ingested(self, call: Call) -> Taken:
        checked(call, _refuse, path="/v1/events:ingest")
        if call.query:
            raise _refuse("a query")
        body = decoded(call.body, Body, _refuse)
        in_bounds(_refuse, "events", len(body.events), 2_000)
        in_bounds(_refuse, "destinations", len(body.destinations), 10)
        references = [destination.reference for destination in body.destinations]
        if len(set(references)) != len(references) or any(
            destination.operatingAccount.accountId != CUSTOMER
            or destination.productDestinationId not in ACTIONS.values()
            for destination in body.destinations
        ):
            raise _refuse("destinations that are not this account's, or one of them twice")
        for event in body.events:
            self._check(event, references)
        self._check_order(body.events)
        receipt = f"receipt-{len(self._receipts) + 1}"
        ids = [
            f"restated {event.transactionId} {event.conversionValue:.2f}"
            if event.lastUpdatedTimestamp
            else event.transactionId
            for event in body.events
        ]
        if body.validateOnly:
            return Taken(json_response({"requestId": receipt}))

        def keep() -> None:
            self._receipts[receipt] = len(references)
            self._restated.update(event.transactionId for event in body.events if event.lastUpdatedTimestamp)

        return Taken(json_response({"requestId": receipt}), ids, keep)

    def _check(self, event: Event, references: list[str]) -> None:
        if not event.destinationReferences or not set(event.destinationReferences) <= set(references):
            raise _refuse("an event for a destination that is not there")
        within(_refuse, event.eventTimestamp.timestamp(), self.clock(), 90)
        clicks = event.adIdentifiers or AdIdentifiers()
        named = [clicks.gclid, clicks.gbraid, clicks.wbraid]
        if sum(click is not None for click in named) > 1:
            raise _refuse("more than one click id")
        people = event.userData.userIdentifiers if event.userData else []
        if not people and not any(named):
            raise _refuse("nobody is named")
        if event.userData:
            in_bounds(_refuse, "user identifiers", len(people), 10)
        for person in people:
            kinds = [person.emailAddress, person.phoneNumber, person.address]
            if sum(kind is not None for kind in kinds) != 1:
                raise _refuse("a user identifier is one of three")
            all_hashed(_refuse, [person.emailAddress, person.phoneNumber])
            if where := person.address:
                all_hashed(_refuse, [where.givenName, where.familyName])
                if not re.fullmatch(r"[A-Z]{2}", where.regionCode):
                    raise _refuse("regionCode")
        an_ip(_refuse, event.eventDeviceInfo.ipAddress if event.eventDeviceInfo else None)
        a_currency(_refuse, event.currency)
        if (event.conversionValue is None) != (event.currency is None):
            raise _refuse("a value and its currency come together")

    def _check_order(self, events: list[Event]) -> None:
        first = [event.transactionId for event in events if not event.lastUpdatedTimestamp]
        if len(set(first)) != len(first):
            raise _refuse("a transaction stands twice in one request")
        for event in events:
            if event.lastUpdatedTimestamp and not self.accepted[event.transactionId]:
                raise _refuse(f"{event.transactionId} is restated, and nobody told of it")
            if not event.lastUpdatedTimestamp and self._restated[event.transactionId]:
                raise _refuse(f"{event.transactionId} comes again after it was restated")


def _refuse(why: str) -> Refused:
    return Refused(why, error(400, "INVALID_ARGUMENT", why).response)
