"""
A partner as a form, and a form as a partner.

Rules of this file
1. Pure: texts in, fields out. What a field may hold is decided where every partner is checked (`core.partners`).
2. Each field is checked by itself, so that everything that is wrong is told at once, beside its field, and nothing typed is lost.
3. Terms are typed as people say them, `12.5` percent or `4.90` of a currency, and turned into basis points and minor units
   digit by digit. They are one field: when one part differs, the whole is read.
4. Only what differs from the partner as they are counts as changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from goodanalytics.core.bounds import MAX_AMOUNT_CENTS
from goodanalytics.core.partners import (
    LONGEST_WINDOW,
    WHOLE,
    Commission,
    Partner,
    checked_commission,
    checked_partner,
)
from goodanalytics.errors import InvalidInput
from goodanalytics.web.dashboard.link_form import Read, in_plain, read_json, read_number
from goodanalytics.web.dashboard.partner_words import share
from goodanalytics.web.dashboard.words import DECIMALS

SAID: Final = ("name", "code", "email", "external_id", "visitor_id", "metadata")
TERMS: Final = ("kind", "value", "currency", "on", "window_days")

BLANK: Final[Mapping[str, str]] = {"kind": "percent", "on": "sale"}
"""The form of a partner of whom nothing was said yet."""

_NEVER_EMPTY: Final[Mapping[str, str]] = {
    "name": "Say what the partner is called.",
    "code": "Say what stands in their addresses.",
}
_NUMBER: Final = re.compile(r"([0-9]{1,16})(?:\.([0-9]{1,4}))?")


def written(partner: Partner) -> dict[str, str]:
    """The form of *partner*."""
    terms = partner.commission
    values = {name: str(getattr(partner, name) or "") for name in SAID if name != "metadata"} | {
        "metadata": msgspec.json.format(msgspec.json.encode(partner.metadata), indent=2).decode()
        if partner.metadata
        else "",
        "kind": terms.kind,
        "value": share(terms.value) if terms.kind == "percent" else _major(terms.value, terms.currency),
        "currency": terms.currency or "",
        "on": terms.on,
        "window_days": str(terms.window_days or ""),
    }
    return {name: value for name, value in values.items() if value}


def read(values: Mapping[str, str], before: Mapping[str, str] | None = None) -> Read:
    """
    What *values* say, as `partners.create` and `.update` take it.

    Args:
        before: The form of the partner who is changed: only what differs is read.
    """
    fields: dict[str, Any] = {}
    errors: dict[str, str] = {}

    def same(name: str) -> bool:
        return before is not None and _said(values, name) == _said(before, name)

    for name in SAID:
        said = _said(values, name)
        if same(name) or (before is None and not said and name not in _NEVER_EMPTY):
            continue
        try:
            if not said and name in _NEVER_EMPTY:
                raise InvalidInput(_NEVER_EMPTY[name], where=name)  # noqa: TRY301  # told beside the field, as the others
            value: Any = read_json(said, name) if said and name == "metadata" else said or None
            fields |= checked_partner({name: value})
        except InvalidInput as error:
            errors[name] = in_plain(error).replace(", or null", ", or nothing")
    if not all(same(name) for name in TERMS):
        terms, wrong = _terms(values)
        errors |= wrong
        if not wrong:
            fields["commission"] = terms
    return Read(fields, errors)


def _terms(values: Mapping[str, str]) -> tuple[Commission, dict[str, str]]:
    """The terms as far as they can be read, and what is wrong with them, by field."""
    terms, errors = Commission(), dict[str, str]()
    for name, change in (
        ("kind", _kind),
        ("on", _on),
        ("currency", _currency),
        ("value", _value),
        ("window_days", _window),
    ):
        try:
            terms = change(terms, _said(values, name))
        except InvalidInput as error:
            errors[name] = in_plain(error)
    return terms, errors


def _kind(terms: Commission, said: str) -> Commission:
    match said:
        case "percent" | "fixed":
            return msgspec.structs.replace(terms, kind=said)
        case _:
            raise InvalidInput("Choose a percentage or a fixed amount", where="kind")


def _on(terms: Commission, said: str) -> Commission:
    match said:
        case "sale" | "lead":
            return msgspec.structs.replace(terms, on=said)
        case _:
            raise InvalidInput("Choose sales or leads", where="on")


def _currency(terms: Commission, said: str) -> Commission:
    if not said and terms.kind == "fixed":
        raise InvalidInput("A fixed amount needs its currency, such as EUR", where="currency")
    currency = checked_commission(Commission(currency=said or None)).currency
    return msgspec.structs.replace(terms, currency=currency)


def _value(terms: Commission, said: str) -> Commission:
    is_share = terms.kind == "percent"
    digits = 2 if is_share else DECIMALS.get(terms.currency or "", 2)
    found = _NUMBER.fullmatch(said.removesuffix("%").rstrip() if is_share else said)
    if found is None or len(found[2] or "") > digits:
        example = "12.5 for 12.5 percent" if is_share else _major(490, terms.currency)
        raise InvalidInput(f"This is {said!r:.80}; write a number such as {example}", where="value")
    value = int(found[1]) * 10**digits + int((found[2] or "").ljust(digits, "0") or 0)
    if is_share and value > WHOLE:
        raise InvalidInput("A percentage is at most 100", where="value")
    if value > MAX_AMOUNT_CENTS:
        raise InvalidInput(f"At most {_major(MAX_AMOUNT_CENTS, terms.currency)} can be kept", where="value")
    return msgspec.structs.replace(terms, value=value)


def _window(terms: Commission, said: str) -> Commission:
    days = read_number(said, "window_days") if said else None
    if days is not None and not 1 <= days <= LONGEST_WINDOW:
        raise InvalidInput(f"Write 1 to {LONGEST_WINDOW} days, or nothing", where="window_days")
    return msgspec.structs.replace(terms, window_days=days)


def _major(cents: int, currency: str | None) -> str:
    digits = DECIMALS.get(currency or "", 2)
    whole, left = divmod(cents, 10**digits)
    return f"{whole}.{left:0{digits}}" if digits else str(whole)


def _said(values: Mapping[str, str], name: str) -> str:
    return values.get(name, "").strip()


__all__ = ["BLANK", "SAID", "TERMS", "read", "written"]
