"""
Google's older dialect: offline conversion upload of the Google Ads API, for those who may still use it.

1. Since 2026-06-15 Google refuses developer tokens that had not used it before (`CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE`);
   everybody else takes `google.Google`. https://developers.google.com/google-ads/api/docs/conversions/upload-offline
2. `POST /{api}/customers/{id}:uploadClickConversions`, at most 2,000; a refund is `…:uploadConversionAdjustments`, a
   RETRACTION when nothing is left of its sale and a RESTATEMENT otherwise, by the sale's order id. What was told with a
   gbraid or wbraid cannot be adjusted. Fields and enums as in github.com/googleapis/googleapis (google/ads/googleads/v25).
3. An HTTP 200 may hold `partialFailureError`, whose details name each refused row by its index:
   https://developers.google.com/google-ads/api/docs/best-practices/partial-failures. All other rows are in.
4. A version lives about a year. The schedule gives months, so the first of the month is taken:
   https://developers.google.com/ads/blog/posts/2025/09/more-frequent-releases-coming-for (tentative, read 2026-11). v25 is
   the newest whose fields were read; v26 is out since 2026-10-14.
5. Persons: e-mail and phone only, in hexadecimal, at most five.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

import msgspec

from goodanalytics.platforms.answers import body_of, by_status, unreadable
from goodanalytics.platforms.conversion import Conversion, Kind
from goodanalytics.platforms.dialect import (
    CEILING,
    Outcome,
    Request,
    Response,
    Status,
    Token,
    Verdict,
    Version,
    unfit,
)
from goodanalytics.platforms.google_account import (
    CLICK_AGE,
    TOKEN_ADDRESS,
    Credential,
    action_id,
    click_of,
    digits_of,
    error_of,
    google_token_request,
    person_hashes,
    refusal_of_all,
    restates,
    secret_names,
    value_of,
)
from goodanalytics.platforms.oauth import token_of

SCOPE: Final = "https://www.googleapis.com/auth/adwords"

SUNSETS: Final[Mapping[str, date]] = MappingProxyType(
    {
        "v22": date(2026, 10, 7),
        "v23": date(2027, 2, 1),
        "v24": date(2027, 5, 1),
        "v25": date(2027, 8, 1),
        "v26": date(2027, 11, 1),
    }
)

_EVENTS: Final[Mapping[Kind, str]] = MappingProxyType(
    {"lead": "lead_action_id", "sale": "sale_action_id", "refund": "sale_action_id"}
)
_CONSENT: Final = MappingProxyType({"granted": "GRANTED", "denied": "DENIED"})
_FAMILIES: Final[Mapping[str, Status]] = MappingProxyType(
    {
        "authenticationError": "credential",
        "authorizationError": "credential",
        "notAllowlistedError": "credential",
        "quotaError": "rate_limited",
        "internalError": "retry",
        "databaseError": "retry",
    }
)
"""What a whole family of `ErrorCode` means."""

_CODES: Final[Mapping[str, Status]] = MappingProxyType(
    {
        "ORDER_ID_ALREADY_IN_USE": "delivered",
        "CLICK_CONVERSION_ALREADY_EXISTS": "delivered",
        "CONVERSION_ALREADY_RETRACTED": "delivered",
        "RESTATEMENT_ALREADY_EXISTS": "delivered",
        "MORE_RECENT_RESTATEMENT_FOUND": "delivered",
        "TOO_RECENT_EVENT": "retry",
        "TOO_RECENT_CONVERSION": "retry",
        "TOO_RECENT_CONVERSION_ACTION": "retry",
        "CONVERSION_NOT_FOUND": "retry",
        "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE": "credential",
        "CUSTOMER_NOT_ACCEPTED_CUSTOMER_DATA_TERMS": "credential",
        "CUSTOMER_DATA_POLICY_PROHIBITS_ENHANCED_CONVERSIONS": "credential",
        "CUSTOMER_NOT_ENABLED_ENHANCED_CONVERSIONS_FOR_LEADS": "credential",
        "INVALID_CONVERSION_ACTION_TYPE": "credential",
        "NO_CONVERSION_ACTION_FOUND": "credential",
        "UNAUTHORIZED_CUSTOMER": "credential",
        "UNSUPPORTED_VERSION": "credential",
        "DEVELOPER_TOKEN_PARAMETER_MISSING": "credential",
        "INVALID_CUSTOMER_ID": "credential",
    }
)
"""What a code means where its family does not say; permanent where it is not here."""

_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogleAds:
    """
    Google Ads through its older upload, opt-in. It stands in for `Google` and keeps its name, so never enable both.

    Secrets: `customer_id`, `developer_token`, the ids of the conversion actions, and `service_account` or `client_id`,
    `client_secret` and `refresh_token`; `login_customer_id` for who signs in through a manager account, may be absent.

    Attributes:
        api: Version of the Google Ads API.
        events: Secret with the id of the conversion action, or the id; a refund adjusts the sale's action.
        credential: What access tokens are made from.
        test: Requests are checked and not kept (`validateOnly`).
        address: Where the API is; another one in tests.
        token_address: Where tokens are given out.
    """

    api: str = "v25"
    events: Mapping[Kind, str] = field(default_factory=lambda: _EVENTS)
    credential: Credential = "refresh_token"
    test: bool = False
    address: str = "https://googleads.googleapis.com"
    token_address: str = TOKEN_ADDRESS
    name: str = "google"
    max_batch: int = 2000
    max_age: timedelta = CLICK_AGE - timedelta(minutes=10)

    @property
    def version(self) -> Version:
        """The version and the month in which it ends."""
        return Version(self.api, SUNSETS.get(self.api))

    @property
    def secrets(self) -> frozenset[str]:
        """Names of what must be stored."""
        return secret_names(self.events, self.credential) | {"customer_id", "developer_token"}

    def in_test(self, code: str) -> GoogleAds:  # noqa: ARG002 - Google has a mode, not a code
        """The same platform, whose requests are only checked."""
        return replace(self, test=True)

    def lane(self, conversion: Conversion) -> str:
        """Adjustments have an address of their own."""
        return "adjustments" if conversion.kind == "refund" else "main"

    def skip(self, conversion: Conversion, now: datetime) -> str | None:
        """Why this is not sent."""
        if refused := unfit(self, conversion, now):
            return refused
        click = click_of(conversion)
        if conversion.kind == "refund":
            if not restates(conversion):
                return "missing_sale"
            return "unsupported_refund: of a gbraid or wbraid" if click and click[0] != "gclid" else None
        if not click and not person_hashes(conversion.person):
            return "missing_signals: gclid, gbraid, wbraid, email or phone"
        return None

    def build(self, batch: Sequence[Conversion], secrets: Mapping[str, str], now: datetime) -> Request:
        """One request for the whole batch; the batch has one lane."""
        adjusts = self.lane(batch[0]) == "adjustments"
        method = "uploadConversionAdjustments" if adjusts else "uploadClickConversions"
        rows = [
            self._adjustment(conversion, secrets, now)
            if adjusts
            else self._conversion(conversion, secrets, now)
            for conversion in batch
        ]
        body: dict[str, Any] = {
            "conversionAdjustments" if adjusts else "conversions": rows,
            "partialFailure": True,
        }
        if self.test:
            body["validateOnly"] = True
        headers = {
            "authorization": f"Bearer {secrets['access_token']}",
            "developer-token": secrets["developer_token"],
            "content-type": "application/json",
        }
        if manager := secrets.get("login_customer_id"):
            headers["login-customer-id"] = digits_of(manager)
        return Request(
            url=f"{self.address}/{self.api}/customers/{digits_of(secrets['customer_id'])}:{method}",
            headers=headers,
            body=_encode(body),
        )

    def read(self, batch: Sequence[Conversion], response: Response) -> list[Outcome]:
        """Row by row; a row that the partial failure does not name is in."""
        body = body_of(response)
        if body is None:
            return unreadable(response).on_all(batch)
        reference = response.headers.get("request-id")
        if "error" in body or not 200 <= response.status < 300:
            return _refusal(body, response).on_all(batch, reference)
        partial = body.get("partialFailureError")
        if not partial:
            return by_status(response, code="ok").on_all(batch, reference)
        refused = _rows(partial, len(batch))
        if refused is None:
            said = str(partial.get("message", "")) if isinstance(partial, dict) else ""
            unnamed = Verdict(status="permanent", code="partial_failure", message=said, of_batch=True)
            return unnamed.on_all(batch, reference)
        taken = Verdict(status="delivered", code="ok")
        return [refused.get(row, taken).on(conversion, reference) for row, conversion in enumerate(batch)]

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

    def _action(self, conversion: Conversion, secrets: Mapping[str, str]) -> str:
        action = action_id(self.events[conversion.kind], secrets)
        return f"customers/{digits_of(secrets['customer_id'])}/conversionActions/{action}"

    def _conversion(
        self, conversion: Conversion, secrets: Mapping[str, str], now: datetime
    ) -> dict[str, Any]:
        hashes = person_hashes(conversion.person)
        row: dict[str, Any] = {
            "conversionAction": self._action(conversion, secrets),
            "conversionDateTime": _moment(min(conversion.occurred_at, now)),
            "orderId": conversion.event_id,
            "conversionEnvironment": "WEB" if conversion.place == "website" else None,
            "consent": _consent(conversion),
            "userIdentifiers": [
                {"userIdentifierSource": "FIRST_PARTY", field_name: hashes[key]}
                for key, field_name in (("email", "hashedEmail"), ("phone", "hashedPhoneNumber"))
                if key in hashes
            ],
        }
        if click := click_of(conversion):
            row[click[0]] = click[1]
        if value := value_of(conversion):
            row |= {"conversionValue": value[0], "currencyCode": value[1]}
        return {key: value for key, value in row.items() if value not in (None, {}, [])}

    def _adjustment(
        self, conversion: Conversion, secrets: Mapping[str, str], now: datetime
    ) -> dict[str, Any]:
        row: dict[str, Any] = {
            "conversionAction": self._action(conversion, secrets),
            "adjustmentDateTime": _moment(min(conversion.occurred_at, now)),
            "orderId": conversion.sale_event_id,
            "adjustmentType": "RETRACTION",
        }
        if conversion.remaining_cents and (left := value_of(conversion)):
            row["adjustmentType"] = "RESTATEMENT"
            row["restatementValue"] = {"adjustedValue": left[0], "currencyCode": left[1]}
        return row


def _consent(conversion: Conversion) -> dict[str, str]:
    said = {
        "adUserData": _CONSENT.get(conversion.consent.ad_user_data),
        "adPersonalization": _CONSENT.get(conversion.consent.ad_personalization),
    }
    return {key: value for key, value in said.items() if value}


def _moment(moment: datetime) -> str:
    """The time as `yyyy-mm-dd hh:mm:ss+00:00`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S+00:00")


def _refusal(body: Mapping[str, Any], response: Response) -> Verdict:
    status, message, details = error_of(body)
    for error in _errors(details):
        verdict = _verdict(error)
        if verdict.status != "permanent":
            return verdict
        return Verdict(status="permanent", code=verdict.code, message=verdict.message, of_batch=True)
    return refusal_of_all(status, message, details, response)


def _rows(partial: object, sent: int) -> dict[int, Verdict] | None:
    """The verdicts on the rows that the partial failure names; `None` when it names no row, or one that was not sent."""
    details = partial.get("details") if isinstance(partial, dict) else None
    rows: dict[int, Verdict] = {}
    for error in _errors(details if isinstance(details, list) else []):
        row = _row(error)
        if row is None or row >= sent:
            return None
        rows.setdefault(row, _verdict(error))
    return rows or None


def _errors(details: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    """The errors of each `GoogleAdsFailure` among the details."""
    for detail in details:
        found = detail.get("errors") if isinstance(detail, dict) else None
        yield from (each for each in found if isinstance(each, dict)) if isinstance(found, list) else ()


def _row(error: Mapping[str, Any]) -> int | None:
    location = error.get("location")
    path = location.get("fieldPathElements") if isinstance(location, dict) else None
    if not isinstance(path, list) or not path or not isinstance(path[0], dict):
        return None
    if path[0].get("fieldName") not in {"conversions", "conversionAdjustments", "conversion_adjustments"}:
        return None
    index = path[0].get("index")
    return index if isinstance(index, int) and index >= 0 else None


def _verdict(error: Mapping[str, Any]) -> Verdict:
    codes = error.get("errorCode")
    family, code = next(iter(codes.items()), ("", "")) if isinstance(codes, dict) else ("", "")
    status = _CODES.get(str(code)) or _FAMILIES.get(str(family), "permanent")
    wait = CEILING if status == "retry" and str(code) in _CODES else None
    return Verdict(status=status, code=str(code), message=str(error.get("message", "")), retry_after=wait)
