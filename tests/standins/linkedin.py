"""LinkedIn's stand-in: conversion events and the exchange of refresh tokens. Pages: see `goodanalytics.platforms.linkedin`."""

from __future__ import annotations

import re
from typing import Literal

from tests.platforms.standins import json_response
from tests.standins import (
    Call,
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
    says,
    within,
)
from tests.standins.oauth import TokenOffice

TOKEN = "AQX0secretsecretsecret0token"
SECRETS = {"access_token": TOKEN, "lead_rule_id": "104004", "sale_rule_id": "104012"}
PARTNER_SECRETS = {
    "client_id": "78linkedin0client",
    "client_secret": "WPL0secretsecretsecret0",
    "refresh_token": "AQV0refreshrefreshrefresh0",
    "lead_rule_id": "104004",
    "sale_rule_id": "104012",
}


class UserId(Strict):
    idType: Literal["SHA256_EMAIL", "LINKEDIN_FIRST_PARTY_ADS_TRACKING_UUID", "SHA256_IP_ADDRESS"]
    idValue: str


class UserInfo(Strict):
    firstName: str
    lastName: str
    countryCode: str | None = None


class User(Strict):
    userIds: list[UserId]
    userInfo: UserInfo | None = None


class Value(Strict):
    currencyCode: str
    amount: str


class Element(Strict):
    conversion: str
    conversionHappenedAt: int
    eventId: str
    user: User
    conversionValue: Value | None = None


class Body(Strict):
    elements: list[Element]


def error(status: int, code: str, message: str = "…"):
    """As Rest.li words it."""
    return says(status, {"status": status, "code": code, "message": message})


def elements(*statuses: int):
    """A status for each element, in an HTTP 200."""
    said = {400: {"error": {"code": "INVALID_VALUE", "message": "Is wrong."}}}
    return says(200, {"elements": [{"status": status} | said.get(status, {}) for status in statuses]})


THROTTLED = error(429, "TOO_MANY_REQUESTS", "Resource level throttle APPLICATION DAY limit is reached")
EXPIRED = error(401, "EXPIRED_ACCESS_TOKEN", "The token used in the request has expired")
NO_PERMISSION = error(403, "ACCESS_DENIED", "Not enough permissions to access: conversionEvents.BATCH_CREATE")
SUNSET = error(426, "NONEXISTENT_VERSION", "Requested version 20260701 is not active")
TRANSIENT = error(500, "INTERNAL_SERVER_ERROR", "Internal Server Error")
BLAMED = error(
    422, "INVALID_INPUT", "Index: 1, ERROR :: conversionHappenedAt must be within the past 90 days\n"
)


class LinkedIn(StandIn):
    """`accepted` has LinkedIn's `eventId`s. *partner*: tokens are given out here, and each is good until `office.expire()`."""

    hosts = ("api.linkedin.com", "www.linkedin.com")
    others = {"/oauth/v2/accessToken": "www.linkedin.com"}

    def __init__(self, *arguments: object, partner: bool = False) -> None:
        super().__init__(*arguments)
        self.office = (
            TokenOffice(PARTNER_SECRETS, lasts=5_184_000, prefix="AQX0linkedin") if partner else None
        )

    def judge(self, call: Call) -> Taken:
        if self.office and call.host == "www.linkedin.com":
            return self.office.judge(call, "/oauth/v2/accessToken")
        if call.host != "api.linkedin.com":
            raise _refuse("another host")
        token = self.office.token if self.office else TOKEN
        if call.headers.get("authorization") != f"Bearer {token}":
            raise Refused("another token", EXPIRED.response)
        version = call.headers.get("linkedin-version", "")
        if not re.fullmatch(r"20\d\d(0[1-9]|1[0-2])", version) or version < "202601":
            raise Refused(f"version {version!r}", SUNSET.response)
        rest = {"x-restli-protocol-version": "2.0.0", "x-restli-method": "BATCH_CREATE"}
        checked(call, _refuse, path="/rest/conversionEvents", headers=rest)
        found = decoded(call.body, Body, _refuse).elements
        in_bounds(_refuse, "elements", len(found), 5_000)
        for element in found:
            self._check(element)
            kinds = {each.idType for each in element.user.userIds}
            if version < "202607" and "SHA256_IP_ADDRESS" in kinds:
                raise _refuse("an idType that this version does not know")
        ids = [element.eventId for element in found]
        once_each(_refuse, ids)
        answer = json_response({"elements": [{"status": 201} for _ in found]})
        return Taken(answer, ids)

    def _check(self, element: Element) -> None:
        if not re.fullmatch(r"urn:lla:llaPartnerConversion:\d+", element.conversion):
            raise _refuse(f"{element.conversion!r} is no conversion rule")
        if element.conversionHappenedAt < 10**12:
            raise _refuse("conversionHappenedAt is not in milliseconds")
        within(_refuse, element.conversionHappenedAt / 1_000, self.clock(), 90)
        ids = {each.idType: each.idValue for each in element.user.userIds}
        if len(ids) != len(element.user.userIds):
            raise _refuse("an idType stands twice")
        all_hashed(_refuse, [value for kind, value in ids.items() if kind.startswith("SHA256")])
        if not (ids or element.user.userInfo):
            raise _refuse("nobody is named")
        if value := element.conversionValue:
            a_currency(_refuse, value.currencyCode)
            if not re.fullmatch(r"\d+(\.\d+)?", value.amount):
                raise _refuse(f"{value.amount!r} is no decimal")


def _refuse(why: str) -> Refused:
    return Refused(why, error(400, "ILLEGAL_ARGUMENT", why).response)
