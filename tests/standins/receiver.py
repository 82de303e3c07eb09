"""
A webhook's receiver: verifies Standard Webhooks signatures with `hmac` alone and drops what it has seen.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from datetime import datetime
from hashlib import sha256
from typing import Any

from goodanalytics.platforms import Response
from tests.platforms.standins import json_response
from tests.standins import Call, Instead, Refused, StandIn, Strict, Taken, checked, decoded

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
GONE = Instead(Response(status=410))
BUSY = Instead(Response(status=429, headers={"retry-after": "7"}))
BROKEN = Instead(Response(status=500, body=b"Traceback (most recent call last)"))
NOT_ALLOWED = Instead(Response(status=401))


class Body(Strict):
    type: str
    timestamp: datetime
    data: dict[str, Any]


def moved(to: str) -> Instead:
    """A redirect, which a sender must not follow."""
    return Instead(Response(status=307, headers={"location": to}))


class Receiver(StandIn):
    """`accepted` has the ids of notices. `secrets` are those that it believes; one of them is enough."""

    hosts = ("receiver.example",)

    def __init__(self, *arguments: Any, path: str = "/hooks/T0p-secret") -> None:
        super().__init__(*arguments)
        self.path = path
        self.secrets = [SECRET]
        self.told: list[Body] = []

    def judge(self, call: Call) -> Taken:
        checked(call, _refuse, path=self.path)
        message_id, timestamp = call.headers.get("webhook-id", ""), call.headers.get("webhook-timestamp", "")
        if not message_id or not timestamp.isdigit():
            raise _refuse("webhook-id or webhook-timestamp is missing")
        if abs(self.clock().timestamp() - int(timestamp)) > 300:
            raise _refuse(f"the time {timestamp} is not now")
        signed = f"{message_id}.{timestamp}.".encode() + call.body
        given = call.headers.get("webhook-signature", "").split(" ")
        if not any(_signature(secret, signed) in given for secret in self.secrets):
            raise _refuse("no signature is right")
        body = decoded(call.body, Body, _refuse)
        return Taken(json_response({"received": True}), [message_id], lambda: self.told.append(body))


def _signature(secret: str, signed: bytes) -> str:
    key = b64decode(secret.removeprefix("whsec_"))
    return f"v1,{b64encode(hmac.new(key, signed, sha256).digest()).decode()}"


def _refuse(why: str) -> Refused:
    return Refused(why, Response(status=400))
