"""
LinkedIn's dialect: the Conversions API.

1. `POST /rest/conversionEvents` with `X-RestLi-Method: BATCH_CREATE`, at most 5,000 elements of at most 90 days:
   https://learn.microsoft.com/en-us/linkedin/marketing/integrations/ads-reporting/conversions-api (read 2026-11)
2. Versions are months, each good for a year at least; one that has ended is an HTTP 426:
   https://learn.microsoft.com/en-us/linkedin/marketing/versioning, dates …/marketing/integrations/migrations. 202607 is the
   newest that was seen; for versions whose date was not seen, the first day after that year is taken.
3. The answer is an HTTP 200 with a status for each element, in order. A 422 may name the elements that are to blame, as
   `Index: 3, ERROR :: …`; that is not documented, RudderStack found it (github.com/rudderlabs/rudder-transformer).
4. `conversionValue.amount` is a decimal string in the major unit. `conversionHappenedAt` is in milliseconds.
5. `user.userIds` must be there. E-mail and IP address are hashed; `li_fat_id` is not. The hash of an address is known since
   202607, and only of IPv4. Names go out in the clear, so only where the host says so; 202609 is said to take them hashed,
   but how they are shaped before could not be read.
6. There is no field for consent, so who refused personal ads is not sent at all. There is no test mode, and no way to take a
   conversion back.
7. `eventId` is what the Insight Tag sends for the same conversion; LinkedIn counts one of them.
8. Tokens of an app last 60 days, those of Campaign Manager's Signals Manager do not end. Refresh tokens are for approved partners:
   https://learn.microsoft.com/en-us/linkedin/shared/authentication/programmatic-refresh-tokens
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Any, Final

import msgspec

from goodanalytics.platforms.answers import body_of, by_status, unreadable
from goodanalytics.platforms.conversion import Conversion, Kind
from goodanalytics.platforms.dialect import Outcome, Request, Response, Token, Verdict, Version, unfit
from goodanalytics.platforms.normalize import country, email, hashed, major
from goodanalytics.platforms.oauth import refresh_request, token_of

SUNSETS: Final[Mapping[str, date]] = MappingProxyType(
    {
        "202511": date(2026, 11, 16),
        "202601": date(2027, 1, 15),
        "202602": date(2027, 2, 15),
        "202603": date(2027, 3, 16),
    }
)
HASHED_ADDRESSES_SINCE: Final = "202607"
CONVERSION_URN: Final = "urn:lla:llaPartnerConversion:"

_EVENTS: Final[Mapping[Kind, str]] = MappingProxyType({"lead": "lead_rule_id", "sale": "sale_rule_id"})
_MONTH = re.compile(r"(20\d\d)(0[1-9]|1[0-2])(?:\.\d+)?")
_BLAMED = re.compile(r"Index: (\d{1,4}), ERROR :: ([^\n]*)")
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedIn:
    """
    LinkedIn Conversions API. Secrets: `access_token`, and the ids of the conversion rules.

    Attributes:
        api: Version, a month as `YYYYMM`.
        events: Secret with the id of the conversion rule, or the id, or its URN; leave one out to send none of it.
        send_names: First and last name and the country, in the clear; they match persons whose e-mail LinkedIn does not know.
        address: Where the API is; another one in tests.
    """

    api: str = "202607"
    events: Mapping[Kind, str] = field(default_factory=lambda: _EVENTS)
    send_names: bool = False
    address: str = "https://api.linkedin.com"
    name: str = "linkedin"
    max_batch: int = 5000
    max_age: timedelta = timedelta(days=90) - timedelta(minutes=10)

    @property
    def version(self) -> Version:
        """The version and the day from which it may have ended."""
        return Version(self.api, SUNSETS.get(self.api) or _a_year_after(self.api))

    @property
    def secrets(self) -> frozenset[str]:
        """Names of what must be stored."""
        return _stored_rules(self.events) | {"access_token"}

    def skip(self, conversion: Conversion, now: datetime) -> str | None:
        """Why this is not sent."""
        if refused := unfit(self, conversion, now):
            return refused
        if conversion.consent.ad_personalization == "denied":
            return "personalization_denied"
        if not self._matches(conversion):
            return "missing_signals: li_fat_id, email" + (
                " or first and last name" if self.send_names else ""
            )
        return None

    def build(self, batch: Sequence[Conversion], secrets: Mapping[str, str], now: datetime) -> Request:
        """One request for the whole batch, also when it is a batch of one."""
        return Request(
            url=f"{self.address}/rest/conversionEvents",
            headers={
                "authorization": f"Bearer {secrets['access_token']}",
                "linkedin-version": self.api,
                "x-restli-protocol-version": "2.0.0",
                "x-restli-method": "BATCH_CREATE",
                "content-type": "application/json",
            },
            body=_encode({"elements": [self._element(conversion, secrets, now) for conversion in batch]}),
        )

    def read(self, batch: Sequence[Conversion], response: Response) -> list[Outcome]:
        """Element by element."""
        reference = response.headers.get("x-li-uuid")
        body = body_of(response)
        if response.status == 426:
            message = f"LinkedIn no longer answers version {self.api}. Set a newer one: LinkedIn(api=…)"
            return Verdict(status="credential", code="http_426", message=message).on_all(batch, reference)
        if body is None:
            return unreadable(response).on_all(batch, reference)
        if not 200 <= response.status < 300:
            return _refusal(body, response, batch, reference)
        elements = body.get("elements")
        if not isinstance(elements, list) or len(elements) != len(batch):
            message = f"{len(batch)} elements were sent, and the answer is not about as many"
            return Verdict(status="retry", code="elements", message=message).on_all(batch, reference)
        return [
            _judged(element).on(conversion, reference)
            for conversion, element in zip(batch, elements, strict=True)
        ]

    def _matches(self, conversion: Conversion) -> bool:
        strong = {"LINKEDIN_FIRST_PARTY_ADS_TRACKING_UUID", "SHA256_EMAIL"}
        return bool(
            strong & {each["idType"] for each in self._user_ids(conversion)} or self._info(conversion)
        )

    def _user_ids(self, conversion: Conversion) -> list[dict[str, str]]:
        signals = conversion.signals
        known = {
            "SHA256_EMAIL": hashed(conversion.person.email, email),
            "LINKEDIN_FIRST_PARTY_ADS_TRACKING_UUID": signals.click("li_fat_id"),
            # A version before knows no such name, and refuses the whole request.
            "SHA256_IP_ADDRESS": hashed(signals.ip, _ipv4) if self.api >= HASHED_ADDRESSES_SINCE else None,
        }
        return [{"idType": kind, "idValue": value} for kind, value in known.items() if value]

    def _info(self, conversion: Conversion) -> dict[str, str]:
        person = conversion.person
        if not (self.send_names and person.given and person.family):
            return {}
        info = {"firstName": person.given, "lastName": person.family}
        lives = country(person.country or "")
        return info | {"countryCode": lives.upper()} if lives else info

    def _element(self, conversion: Conversion, secrets: Mapping[str, str], now: datetime) -> dict[str, Any]:
        user: dict[str, Any] = {"userIds": self._user_ids(conversion)}
        if info := self._info(conversion):
            user["userInfo"] = info
        element: dict[str, Any] = {
            "conversion": _urn(self.events[conversion.kind], secrets),
            "conversionHappenedAt": int(min(conversion.occurred_at, now).timestamp() * 1000),
            "eventId": conversion.event_id,
            "user": user,
        }
        if conversion.amount_cents is not None and conversion.currency:
            element["conversionValue"] = {
                "currencyCode": conversion.currency.upper(),
                "amount": f"{major(conversion.amount_cents, conversion.currency):f}",
            }
        return element


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedInPartner(LinkedIn):
    """
    LinkedIn for an approved partner, who may renew tokens.

    Secrets: `client_id`, `client_secret`, `refresh_token`, and the ids of the conversion rules. The refresh token itself lasts a
    year, however often it is used; then somebody signs in again.

    Attributes:
        token_address: Where tokens are given out; another one in tests.
    """

    token_address: str = "https://www.linkedin.com/oauth/v2/accessToken"  # noqa: S105 - an address, not a token

    @property
    def secrets(self) -> frozenset[str]:
        """Names of what must be stored."""
        return _stored_rules(self.events) | {"client_id", "client_secret", "refresh_token"}

    def build_token_request(self, secrets: Mapping[str, str], now: datetime) -> Request:  # noqa: ARG002 - the protocol's
        """The request for an access token of 60 days."""
        return refresh_request(self.token_address, secrets)

    def read_token(self, response: Response, now: datetime) -> Token | Verdict:
        """The token; or what stands in its way."""
        return token_of(response, now)


def _ipv4(text: str) -> str | None:
    try:
        return str(IPv4Address(text))
    except ValueError:
        return None


def _a_year_after(api: str) -> date | None:
    found = _MONTH.fullmatch(api)
    return date(int(found[1]) + 1, int(found[2]), 1) if found else None


def _stored_rules(events: Mapping[Kind, str]) -> frozenset[str]:
    return frozenset(rule for rule in events.values() if not rule.isdigit() and ":" not in rule)


def _urn(rule: str, secrets: Mapping[str, str]) -> str:
    told = rule if rule.isdigit() or ":" in rule else secrets[rule].strip()
    return told if ":" in told else f"{CONVERSION_URN}{told}"


def _refusal(
    body: Mapping[str, Any], response: Response, batch: Sequence[Conversion], reference: str | None
) -> list[Outcome]:
    message = str(body.get("message", ""))
    verdict = by_status(response, code=str(body.get("code", "")), message=message)
    blamed = {int(row): said for row, said in _BLAMED.findall(message)} if response.status == 422 else {}
    if not blamed or max(blamed) >= len(batch):
        return verdict.on_all(batch, reference)
    neighbour = Verdict(
        status="retry", code="neighbour_refused", message="Another element of the request was refused"
    )
    return [
        (
            Verdict(status="permanent", code=verdict.code, message=blamed[row])
            if row in blamed
            else neighbour
        ).on(conversion, reference)
        for row, conversion in enumerate(batch)
    ]


def _judged(element: object) -> Verdict:
    status = element.get("status") if isinstance(element, dict) else None
    if not isinstance(element, dict) or not isinstance(status, int):
        return Verdict(status="retry", code="element", message="An element of the answer holds no status")
    error = element.get("error")
    told = error if isinstance(error, dict) else element
    verdict = by_status(
        Response(status=status), code=str(told.get("code", "")), message=str(told.get("message", ""))
    )
    # It judges this element and no other.
    return msgspec.structs.replace(verdict, of_batch=False)
