"""Google's older upload as a stand-in, with partial failures in an HTTP 200. Pages: see `goodanalytics.platforms.google_ads`."""

from __future__ import annotations

import re
from typing import Any, Literal

from goodanalytics.platforms import Response
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
    checked,
    decoded,
    in_bounds,
    once_each,
    within,
)
from tests.standins.google import ACCOUNT, ACTIONS, CUSTOMER, EXPIRED, REFRESH, SCOPES, error, private_key
from tests.standins.google import secrets as data_manager_secrets
from tests.standins.oauth import TokenOffice

DEVELOPER = "dev0secretsecretsecret0token"
FAILURE = "type.googleapis.com/google.ads.googleads.v25.errors.GoogleAdsFailure"


def secrets() -> dict[str, str]:
    """All that has to be stored."""
    return data_manager_secrets() | {"developer_token": DEVELOPER}


class UserIdentifier(Strict):
    userIdentifierSource: Literal["FIRST_PARTY"]
    hashedEmail: str | None = None
    hashedPhoneNumber: str | None = None


class ConsentGiven(Strict):
    adUserData: Literal["GRANTED", "DENIED"] | None = None
    adPersonalization: Literal["GRANTED", "DENIED"] | None = None


class Conversion(Strict):
    conversionAction: str
    conversionDateTime: str
    orderId: str
    conversionEnvironment: Literal["WEB", "APP"] | None = None
    consent: ConsentGiven | None = None
    userIdentifiers: list[UserIdentifier] = []
    gclid: str | None = None
    gbraid: str | None = None
    wbraid: str | None = None
    conversionValue: float | None = None
    currencyCode: str | None = None


class Uploaded(Strict):
    conversions: list[Conversion]
    partialFailure: Literal[True]
    validateOnly: bool = False


class Restatement(Strict):
    adjustedValue: float
    currencyCode: str


class Adjustment(Strict):
    conversionAction: str
    adjustmentDateTime: str
    orderId: str
    adjustmentType: Literal["RETRACTION", "RESTATEMENT"]
    restatementValue: Restatement | None = None


class Adjusted(Strict):
    conversionAdjustments: list[Adjustment]
    partialFailure: Literal[True]
    validateOnly: bool = False


def row_error(row: int, code: str, family: str = "conversionUploadError", field: str = "conversions"):
    """One error of a `GoogleAdsFailure`, at its row."""
    path = [{"fieldName": field, "index": row}]
    return {
        "errorCode": {family: code},
        "message": "Is wrong.",
        "location": {"fieldPathElements": path},
    }


def partial(rows: int, *errors: dict[str, Any]) -> Response:
    """An HTTP 200 in which some rows failed."""
    details = [{"@type": FAILURE, "errors": list(errors)}]
    failed = {"code": 3, "message": "Multiple errors in ‘details’.", "details": details}
    return json_response({"partialFailureError": failed, "results": [{} for _ in range(rows)]})


def failed(status: int, canonical: str, family: str, code: str):
    """A refusal of the whole request."""
    failure = {"@type": FAILURE, "errors": [{"errorCode": {family: code}, "message": "…"}]}
    return error(status, canonical, "Request contains an invalid argument.", failure)


THROTTLED = failed(429, "RESOURCE_EXHAUSTED", "quotaError", "RESOURCE_TEMPORARILY_EXHAUSTED")
NO_PERMISSION = failed(
    403, "PERMISSION_DENIED", "authorizationError", "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE"
)
SUNSET = failed(400, "INVALID_ARGUMENT", "requestError", "UNSUPPORTED_VERSION")
TRANSIENT = failed(500, "INTERNAL", "internalError", "INTERNAL_ERROR")
PARTLY = Instead(partial(2, row_error(1, "UNPARSEABLE_GCLID")))


class GoogleAds(StandIn):
    """`accepted` has order ids of conversions, and `adjusted id` for each adjustment."""

    hosts = ("googleads.googleapis.com", "oauth2.googleapis.com")
    others = {"/token": "oauth2.googleapis.com"}

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        account = (ACCOUNT, private_key().public_key())
        self.office = TokenOffice(REFRESH, account=account, scopes=SCOPES)

    def judge(self, call: Call) -> Taken:
        if call.host == "oauth2.googleapis.com":
            return self.office.judge(call, "/token", self.clock())
        if call.headers.get("authorization") != f"Bearer {self.office.token}":
            raise Refused("another token", EXPIRED.response)
        method = "uploadClickConversions|uploadConversionAdjustments"
        headers = {"developer-token": DEVELOPER}
        checked(call, _refuse, path=rf"/v\d+/customers/{CUSTOMER}:({method})", headers=headers)
        if call.query or call.host != "googleads.googleapis.com":
            raise _refuse("a query, or another host")
        return self._adjusted(call) if call.path.endswith("Adjustments") else self._uploaded(call)

    def _uploaded(self, call: Call) -> Taken:
        body = decoded(call.body, Uploaded, _refuse)
        rows = body.conversions
        in_bounds(_refuse, "conversions", len(rows), 2_000)
        once_each(_refuse, [row.orderId for row in rows])
        for row in rows:
            self._check_row(row.conversionAction, row.conversionDateTime)
            clicks = [click for click in (row.gclid, row.gbraid, row.wbraid) if click]
            hashes = [(each.hashedEmail, each.hashedPhoneNumber) for each in row.userIdentifiers]
            if len(clicks) > 1 or len(hashes) > 5 or not (clicks or hashes):
                raise _refuse("one click id, five user identifiers, and one of all those at least")
            for pair in hashes:
                if sum(each is not None for each in pair) != 1:
                    raise _refuse("a user identifier is one of two")
                all_hashed(_refuse, pair)
            a_currency(_refuse, row.currencyCode)
        known = [index for index, row in enumerate(rows) if self.accepted[row.orderId]]
        errors = [row_error(index, "ORDER_ID_ALREADY_IN_USE") for index in known]
        ids = [row.orderId for row in rows]
        return self._taken(len(rows), errors, () if body.validateOnly else ids)

    def _adjusted(self, call: Call) -> Taken:
        body = decoded(call.body, Adjusted, _refuse)
        rows = body.conversionAdjustments
        in_bounds(_refuse, "adjustments", len(rows), 2_000)
        for row in rows:
            self._check_row(row.conversionAction, row.adjustmentDateTime)
            if (row.adjustmentType == "RESTATEMENT") != (row.restatementValue is not None):
                raise _refuse("a value belongs to a restatement, and to nothing else")
        unknown = [index for index, row in enumerate(rows) if not self.accepted[row.orderId]]
        where = ("conversionAdjustmentUploadError", "conversion_adjustments")
        errors = [row_error(index, "CONVERSION_NOT_FOUND", *where) for index in unknown]
        ids = [f"adjusted {row.orderId}" for index, row in enumerate(rows) if index not in unknown]
        return self._taken(len(rows), errors, () if body.validateOnly else ids)

    def _check_row(self, action: str, moment: str) -> None:
        found = re.fullmatch(rf"customers/{CUSTOMER}/conversionActions/(\d+)", action)
        if not found or found[1] not in ACTIONS.values():
            raise _refuse(f"{action!r} is no action of this account")
        if not re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d", moment):
            raise _refuse(f"{moment!r} is not yyyy-mm-dd hh:mm:ss+|-hh:mm")
        within(_refuse, type(self.clock()).fromisoformat(moment).timestamp(), self.clock(), 90)

    def _taken(self, rows: int, errors: list[dict[str, Any]], ids: Any) -> Taken:
        whole = json_response({"results": [{} for _ in range(rows)]})
        return Taken(partial(rows, *errors) if errors else whole, ids)


def _refuse(why: str) -> Refused:
    return Refused(why, failed(400, "INVALID_ARGUMENT", "requestError", "INVALID_INPUT").response)
