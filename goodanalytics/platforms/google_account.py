"""
What both of Google's APIs share: who signs in, which click goes out, what a conversion is worth, how an error reads.

1. A conversion action's id differs by account, so `events` of a dialect names the secret that holds it, or is the id itself,
   all digits.
2. One click id for each conversion, the latest that is not older than 90 days and not after the conversion.
3. A refund is known by its sale: by the sale's id, click and time, and by what is left of it.
4. Errors follow Google's model, a canonical code with details: https://google.aip.dev/193. The code says what to do; the
   HTTP status is the fallback.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, assert_never

from goodanalytics.platforms.answers import by_status, retry_after
from goodanalytics.platforms.conversion import Conversion, Kind, Person
from goodanalytics.platforms.dialect import Request, Response, Status, Verdict
from goodanalytics.platforms.normalize import google_email, hashed, major, phone_e164
from goodanalytics.platforms.oauth import assertion_request, refresh_request

TOKEN_ADDRESS: Final = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address, not a token
CLICK_IDS: Final = ("gclid", "gbraid", "wbraid")
CLICK_AGE: Final = timedelta(days=90)

Credential: TypeAlias = Literal["service_account", "refresh_token"]

_STATUSES: Final[Mapping[str, Status]] = MappingProxyType(
    {
        "UNAUTHENTICATED": "credential",
        "PERMISSION_DENIED": "credential",
        "NOT_FOUND": "credential",
        "FAILED_PRECONDITION": "credential",
        "RESOURCE_EXHAUSTED": "rate_limited",
        "ABORTED": "retry",
        "CANCELLED": "retry",
        "DEADLINE_EXCEEDED": "retry",
        "INTERNAL": "retry",
        "UNAVAILABLE": "retry",
        "UNKNOWN": "retry",
    }
)
"""Google's canonical codes: https://cloud.google.com/apis/design/errors#error_codes."""

_SECONDS = re.compile(r"(\d{1,6})(?:\.\d+)?s")


def secret_names(events: Mapping[Kind, str], credential: Credential) -> frozenset[str]:
    """What must be stored to sign in, and for those conversion actions that are not ids themselves."""
    actions = frozenset(action for action in events.values() if not action.isdigit())
    match credential:
        case "service_account":
            return actions | {"service_account"}
        case "refresh_token":
            return actions | {"client_id", "client_secret", "refresh_token"}
        case never:
            assert_never(never)


def action_id(action: str, secrets: Mapping[str, str]) -> str:
    """
    The id of a conversion action: *action* itself, or what is stored under that name.

    >>> action_id("123", {}), action_id("sale_action_id", {"sale_action_id": "456"})
    ('123', '456')
    """
    return action if action.isdigit() else secrets[action].strip()


def google_token_request(
    credential: Credential, address: str, scope: str, secrets: Mapping[str, str], now: datetime
) -> Request:
    """
    The request for an access token, from either credential.

    Raises:
        InvalidInput: `service_account` cannot be read.
    """
    match credential:
        case "service_account":
            return assertion_request(address, secrets["service_account"], scope, now)
        case "refresh_token":
            return refresh_request(address, secrets)
        case never:
            assert_never(never)


def restates(conversion: Conversion) -> bool:
    """Whether enough is known of the sale that this refund takes back."""
    return None not in (
        conversion.sale_event_id,
        conversion.sold_at,
        conversion.remaining_cents,
        conversion.currency,
    )


def click_of(conversion: Conversion) -> tuple[str, str] | None:
    """
    The click id that goes out, with its name: the latest before the conversion and not older than 90 days.

    A refund has the click of its sale.
    """
    happened = conversion.sold_at or conversion.occurred_at
    usable = [
        (click.at, -rank, click_name, click.value)
        for rank, click_name in enumerate(CLICK_IDS)
        if (click := conversion.signals.clicks.get(click_name))
        and click.value
        and timedelta() <= happened - click.at <= CLICK_AGE
    ]
    if not usable:
        return None
    _, _, click_name, value = max(usable)
    return click_name, value


def value_of(conversion: Conversion) -> tuple[Decimal, str] | None:
    """What the conversion is worth in major units, and the currency; for a refund, what is left of its sale."""
    cents = conversion.remaining_cents if conversion.kind == "refund" else conversion.amount_cents
    if cents is None or not conversion.currency:
        return None
    return major(cents, conversion.currency), conversion.currency.upper()


def person_hashes(person: Person) -> dict[str, str]:
    """E-mail and phone as Google compares them, in hexadecimal; what is not known is absent."""
    known = {"email": hashed(person.email, google_email), "phone": hashed(person.phone, phone_e164)}
    return {key: digest for key, digest in known.items() if digest}


def error_of(body: Mapping[str, Any]) -> tuple[str, str, list[Mapping[str, Any]]]:
    """Canonical code, message and details of Google's error model."""
    error = body.get("error")
    if not isinstance(error, dict):
        return "", "", []
    details = error.get("details")
    return (
        str(error.get("status", "")),
        str(error.get("message", "")),
        [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else [],
    )


def refusal_of_all(
    status: str, message: str, details: Iterable[Mapping[str, Any]], response: Response
) -> Verdict:
    """The verdict of the canonical code on the request as a whole; of the HTTP status where there is no code."""
    if status not in _STATUSES:
        return by_status(response, code=status, message=message)
    delays = [_SECONDS.fullmatch(str(detail.get("retryDelay", ""))) for detail in details]
    told = [timedelta(seconds=int(found[1])) for found in delays if found]
    return Verdict(
        status=_STATUSES[status],
        code=status,
        message=message,
        retry_after=max(told, default=retry_after(response)),
    )


def digits_of(customer_id: str) -> str:
    """
    A customer's id as the API wants it.

    >>> digits_of("123-456-7890")
    '1234567890'
    """
    return "".join(c for c in customer_id if c in "0123456789")
