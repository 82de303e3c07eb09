"""
Webhooks, signed as Standard Webhooks 1.0.0 says.

1. https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md: what is signed is
   `id.timestamp.body`; the headers are `webhook-id`, `webhook-timestamp` (seconds, of this try) and `webhook-signature`,
   a list with spaces between.
2. The id is that of the notice and stays through every try, so a receiver can drop what it has seen. The time is that of the
   try, so a receiver can drop what is old.
3. Secrets: `whsec_…` is HMAC-SHA256 (`v1`), 24 to 64 bytes in base64; `whsk_…` is Ed25519 (`v1a`). While a secret is being
   changed, the previous one signs too.
4. Only a 2xx is success. A redirect is a failure: whoever moved says so to us, not to our HTTP client. 410 means: never again.
   Everything else is tried again, also a 401, which is the receiver's mistake and may be mended.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from goodanalytics.errors import InvalidInput
from goodanalytics.platforms.answers import retry_after
from goodanalytics.platforms.dialect import Outcome, Request, Response, Status, Verdict
from goodanalytics.platforms.quiet import Quiet

SHARED: Final = "whsec_"
PRIVATE: Final = "whsk_"
TOLERANCE: Final = timedelta(minutes=5)
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Notice(Quiet, frozen=True, kw_only=True):
    """
    Something that a receiver is told.

    Attributes:
        dispatch_id: Of the outbox row.
        id: The same on every try and replay.
        type: Words with full stops between, such as `sale.created`.
        data: What is told; JSON.
    """

    dispatch_id: UUID
    id: str
    type: str
    occurred_at: datetime
    data: dict[str, Any]

    def __repr__(self) -> str:
        return f"Notice({self.type} {self.id!r}, dispatch_id={self.dispatch_id})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """
    One receiver. Secrets: `signing_secret`, and `previous_signing_secret` while it is being changed.

    Attributes:
        url: Whether it may be called (https, a public address) is for who sends to check, at every try. Some addresses are
            secrets themselves, so `repr` does not show it.
    """

    url: str = field(repr=False)
    name: str = "webhook"
    max_batch: int = 1
    secrets: frozenset[str] = frozenset({"signing_secret"})

    def build(self, batch: Sequence[Notice], secrets: Mapping[str, str], now: datetime) -> Request:
        """
        The request for the one notice of the batch.

        Raises:
            InvalidInput: A signing secret is not one.
        """
        (notice,) = batch
        body = _encode({"type": notice.type, "timestamp": notice.occurred_at, "data": notice.data})
        keys = [secrets[key] for key in ("signing_secret", "previous_signing_secret") if key in secrets]
        return Request(
            url=self.url,
            headers={
                "content-type": "application/json",
                "webhook-id": notice.id,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": " ".join(signature(key, notice.id, now, body) for key in keys),
            },
            body=body,
        )

    def read(self, batch: Sequence[Notice], response: Response) -> list[Outcome]:
        """What the status says; nobody has agreed on a body, and none is kept."""
        status: Status = "retry"
        if 200 <= response.status < 300:
            status = "delivered"
        elif response.status == 410:
            status = "permanent"
        elif response.status == 429:
            status = "rate_limited"
        code = "gone" if response.status == 410 else f"http_{response.status}"
        verdict = Verdict(
            status=status,
            code=code,
            message=f"HTTP {response.status}",
            retry_after=None if status == "delivered" else retry_after(response),
        )
        return verdict.on_all(batch)


def new_secret(chance: bytes) -> str:
    """
    A shared secret out of *chance*: 24 to 64 random bytes.

    Raises:
        InvalidInput: Fewer, or more.
    """
    if not 24 <= len(chance) <= 64:
        raise InvalidInput(f"a signing secret is made of 24 to 64 random bytes, not of {len(chance)}")
    return SHARED + b64encode(chance).decode()


def signature(secret: str, message_id: str, now: datetime, body: bytes) -> str:
    """
    One signature: `v1,…` by a shared secret, `v1a,…` by a private key.

    Raises:
        InvalidInput: The secret is neither; its value is not told.
    """
    signed = f"{message_id}.{int(now.timestamp())}.".encode() + body
    if secret.startswith(PRIVATE):
        # The key may stand with its public half behind it, as libsodium writes it.
        key = Ed25519PrivateKey.from_private_bytes(_key(secret, PRIVATE)[:32])
        return f"v1a,{b64encode(key.sign(signed)).decode()}"
    return f"v1,{b64encode(hmac.digest(_key(secret, SHARED), signed, sha256)).decode()}"


def verified(headers: Mapping[str, str], body: bytes, secret: str, now: datetime) -> bool:
    """
    Whether a request was signed with this shared secret, at most five minutes ago; for receivers and for tests.

    Args:
        headers: Names in lower case.
        body: As it came, byte for byte.
        secret: With or without `whsec_`.
        now: Of the receiver.
    """
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not message_id or not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 11:
        return False
    if abs(now.timestamp() - int(timestamp)) > TOLERANCE.total_seconds():
        return False
    expected = hmac.digest(_key(secret, SHARED), f"{message_id}.{timestamp}.".encode() + body, sha256)
    wanted = f"v1,{b64encode(expected).decode()}".encode()
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(wanted, one.encode()) for one in given)


def _key(secret: str, prefix: str) -> bytes:
    bare = secret.removeprefix(prefix)
    try:
        key = b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (Base64Error, ValueError):
        key = b""
    if len(key) < 24:
        raise InvalidInput(
            f"the webhook's signing secret is not {prefix} and at least 24 bytes in base64; make a new one"
        )
    return key
