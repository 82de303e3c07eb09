"""OpenAI's stand-in: requests as documented; how it answers is not, see `goodanalytics.platforms.openai`, rule 5."""

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
    an_ip,
    checked,
    decoded,
    in_bounds,
    once_each,
    says,
    within,
)

KEY = "sk-svcacct-0secretsecretsecret0key"
SECRETS = {"api_key": KEY, "pixel_id": "px&1"}


class User(Strict):
    emails_sha256: list[str] = []
    phone_numbers_sha256: list[str] = []
    external_ids_sha256: list[str] = []
    first_names_sha256: list[str] = []
    last_names_sha256: list[str] = []
    countries: list[str] = []
    obref: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None


class Content(Strict):
    id: str
    quantity: int
    content_type: Literal["product"]
    name: str | None = None
    amount: int | None = None
    currency: str | None = None


class Data(Strict):
    type: Literal["contents", "customer_action", "plan_enrollment", "custom"]
    amount: int | None = None
    currency: str | None = None
    contents: list[Content] = []


class Event(Strict):
    id: str
    type: Literal["order_created", "lead_created", "custom"]
    timestamp_ms: int
    action_source: Literal["web", "phone_call", "physical_store", "other"]
    data: Data
    user: User | None = None
    source_url: str | None = None
    custom_event_name: str | None = None
    oppref: str | None = None
    opt_out: bool = False


class Body(Strict):
    validate_only: bool
    events: list[Event]


def error(status: int, message: str, kind: str = "invalid_request_error", **headers: str):
    """As OpenAI's other APIs word it; that is a guess."""
    return says(status, {"error": {"message": message, "type": kind, "code": None}}, **headers)


THROTTLED = error(429, "Rate limit reached", "rate_limit_error", retry_after="7")
EXPIRED = error(401, "Incorrect API key provided", "authentication_error")
NO_PERMISSION = error(403, "You have insufficient permissions", "permission_error")
TRANSIENT = error(503, "The server is overloaded", "server_error")
FAULTY = error(400, "events[0].timestamp_ms is too old")


class OpenAI(StandIn):
    """`accepted` has `order_created sale:A-1001`: OpenAI tells events apart by type and id."""

    hosts = ("bzr.openai.com",)

    def judge(self, call: Call) -> Taken:
        checked(call, _refuse, path="/v1/events")
        if call.query != {"pid": SECRETS["pixel_id"]} or call.host not in self.hosts:
            raise _refuse("another pixel, more in the query, or another host")
        if call.headers.get("authorization") != f"Bearer {KEY}":
            raise Refused("another key", EXPIRED.response)
        body = decoded(call.body, Body, _refuse)
        in_bounds(_refuse, "events", len(body.events), 1_000)
        for event in body.events:
            self._check(event)
        ids = [f"{event.type} {event.id}" for event in body.events]
        once_each(_refuse, ids)
        return Taken(json_response({}), () if body.validate_only else ids)

    def _check(self, event: Event) -> None:
        if event.timestamp_ms < 10**12:
            raise _refuse("timestamp_ms is not in milliseconds")
        within(_refuse, event.timestamp_ms / 1_000, self.clock(), 7, ahead=600)
        if event.action_source == "web" and not re.match(r"https?://", event.source_url or ""):
            raise _refuse("a website's event needs its page")
        if (event.type == "custom") != (event.custom_event_name is not None):
            raise _refuse("custom_event_name is for custom events, and for all of those")
        user = event.user or User()
        hashes = (
            user.emails_sha256
            + user.phone_numbers_sha256
            + user.external_ids_sha256
            + user.first_names_sha256
            + user.last_names_sha256
        )
        all_hashed(_refuse, hashes)
        an_ip(_refuse, user.ip_address)
        if not (event.oppref or user.obref or hashes):
            raise _refuse("nobody is named")
        for money in (event.data, *event.data.contents):
            a_currency(_refuse, money.currency)
            if (money.amount is None) != (money.currency is None):
                raise _refuse("an amount and its currency come together")


def _refuse(why: str) -> Refused:
    return Refused(why, error(400, why).response)
