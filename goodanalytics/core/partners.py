"""
Partners: who sends visitors for a commission, and what a host may say of them.

1. A code stands in addresses (`?via=`), so it is letters, digits, `-` and `_`, and its case does not matter.
2. A partner who is `active` earns. One who is `paused` goes on being counted, but what they would earn is void until somebody
   approves it. One who is `closed` refers nobody any more, and what they referred before falls to whoever else did.
3. `email`, `external_id` and `visitor_id` say who the partner is among the visitors: what they buy themselves earns nothing.
4. Nothing is cut silently: what is too long is refused with the field's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypedDict, get_args
from uuid import UUID

import msgspec

from goodanalytics.core.bounds import MAX_ID, MAX_TEXT, Invalid, money, text
from goodanalytics.core.identity import normal_email
from goodanalytics.core.link_fields import checked_metadata
from goodanalytics.core.said import external_id
from goodanalytics.errors import InvalidInput

PartnerStatus = Literal["active", "paused", "closed"]

WHOLE: Final = 10_000
"""Basis points in everything: 1,000 of them are 10 percent."""

LONGEST_WINDOW: Final = 3_660  # days

_CODE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Commission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What a partner earns.

    Attributes:
        kind: `percent` of an amount in its own currency, or a `fixed` amount for each.
        value: Basis points (1,000 for 10 percent, at most 10,000), or minor units of *currency*.
        currency: Of a fixed amount. A percentage with one is earned in this currency only.
        on: What it is earned with.
        window_days: How long after a referral, 1 to 3,660; `None` leaves it to `Config(referral=…)`.
    """

    kind: Literal["percent", "fixed"] = "percent"
    value: int = 0
    currency: str | None = None
    on: Literal["sale", "lead"] = "sale"
    window_days: int | None = None


class Partner(msgspec.Struct, frozen=True, kw_only=True):
    """
    A partner, as its row.

    Attributes:
        code: What stands in addresses, in the case in which it was given.
        email: Lower-cased.
        external_id: What the host calls this person, as in `identify`.
        visitor_id: The partner as a visitor; any of their rows.
        commission: For what comes from now on. What is in the ledger stays as it was worked out.
    """

    workspace_id: UUID
    id: UUID
    code: str
    name: str
    email: str | None = None
    external_id: str | None = None
    visitor_id: UUID | None = None
    status: PartnerStatus = "active"
    commission: Commission = Commission()
    metadata: dict[str, Any] = {}
    created_at: datetime
    updated_at: datetime

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> Partner:
        """The partner in a row of the table."""
        return cls(**{**row, "commission": msgspec.convert(row["commission"], Commission)})

    def to_row(self) -> dict[str, Any]:
        """As the table holds it."""
        return {**msgspec.structs.asdict(self), "commission": msgspec.to_builtins(self.commission)}


class PartnerFields(TypedDict, total=False):
    """What may be said of a partner; `Partner` tells what each means. `None` clears what may be empty."""

    code: str
    name: str
    email: str | None
    external_id: str | None
    visitor_id: UUID | str | None
    status: PartnerStatus
    commission: Commission | Mapping[str, Any]
    metadata: Mapping[str, Any] | None


def checked_partner(given: Mapping[str, Any]) -> dict[str, Any]:
    """
    *given* as fields of a `Partner`.

    Raises:
        InvalidInput: A name is unknown, or a value is not usable.

    >>> checked_partner({"code": " Ada ", "email": "Ada@Example.com"})
    {'code': 'Ada', 'email': 'ada@example.com'}
    """
    unknown = sorted(set(given) - set(PartnerFields.__annotations__))
    if unknown:
        raise InvalidInput(
            f"{unknown[0]} is no field of a partner; {', '.join(PartnerFields.__annotations__)} are",
            where=unknown[0],
        )
    return {name: _checked(name, value) for name, value in given.items()}


def _checked(name: str, value: Any) -> Any:
    match name, value:
        case "code", _:
            return checked_code(value)
        case "name", str() if text(value) is not None and len(value) <= MAX_TEXT:
            return text(value)
        case "name", _:
            raise InvalidInput(f"name is {value!r:.80}; give 1 to {MAX_TEXT} characters", where="name")
        case "email" | "external_id" | "visitor_id", None:
            return None
        case "email", _:
            found = normal_email(value) if isinstance(value, str) and len(value) <= 254 else None
            if found is None:
                raise InvalidInput(f"email is {value!r:.80}; give an address, or null", where="email")
            return found
        case "external_id", str() if len(value) <= MAX_ID:
            return external_id(value)
        case "external_id", _:
            raise InvalidInput(
                f"external_id is {value!r:.80}; give your own id of the person, at most {MAX_ID} characters",
                where=name,
            )
        case "visitor_id", _:
            return _uuid(value, name)
        case "status", _ if value in get_args(PartnerStatus):
            return value
        case "status", _:
            raise InvalidInput(
                f"status is {value!r:.80}; it is {', '.join(get_args(PartnerStatus))}", where="status"
            )
        case "commission", _:
            return checked_commission(value)
        case _:
            return checked_metadata({} if value is None else value)


def checked_code(value: object) -> str:
    """
    *value* as a partner's code.

    Raises:
        InvalidInput: It is none.
    """
    found = value.strip() if isinstance(value, str) else ""
    if not _CODE.fullmatch(found):
        raise InvalidInput(
            f"code is {value!r:.80}; give 1 to 64 letters, digits, '-' and '_', for it stands in addresses",
            where="code",
        )
    return found


def folded_code(value: str) -> str | None:
    """*value*, out of an address, as codes are compared; `None` when it cannot be one."""
    found = value.strip()
    return found.lower() if _CODE.fullmatch(found) else None


def checked_commission(value: Commission | Mapping[str, Any]) -> Commission:
    """
    *value* as terms.

    Raises:
        InvalidInput: A member is unknown or of the wrong type, a percentage is above 100, or a fixed amount has no currency.
    """
    try:
        found = value if isinstance(value, Commission) else msgspec.convert(value, Commission)
        _, currency = money(found.value if found.kind == "fixed" else None, found.currency)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"commission cannot be read: {error}", where="commission") from None
    except Invalid as error:
        raise InvalidInput(f"commission: {error.reason}", where="commission") from None
    if found.kind == "percent" and not 0 <= found.value <= WHOLE:
        raise InvalidInput(
            f"commission.value is {found.value}; a percentage is 0 to {WHOLE} basis points, such as 1000 for 10 percent",
            where="commission.value",
        )
    if found.window_days is not None and not 1 <= found.window_days <= LONGEST_WINDOW:
        raise InvalidInput(
            f"commission.window_days is {found.window_days}; give 1 to {LONGEST_WINDOW}, or null",
            where="commission.window_days",
        )
    return msgspec.structs.replace(found, currency=currency)


def _uuid(value: object, name: str) -> UUID:
    try:
        return value if isinstance(value, UUID) else UUID(str(value))
    except ValueError:
        raise InvalidInput(f"{name} is {value!r:.80}; give a UUID", where=name) from None


__all__ = [
    "LONGEST_WINDOW",
    "WHOLE",
    "Commission",
    "Partner",
    "PartnerFields",
    "PartnerStatus",
    "checked_code",
    "checked_commission",
    "checked_partner",
    "folded_code",
]
