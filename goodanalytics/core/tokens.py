"""
Small signed statements: who a visitor is, and that a conversion is true.

A token is `payload.signature`, both base64url without padding: JSON, and HMAC-SHA256 of it under a key derived for the
token's use, so that a token for one use is worthless for another. It says until when it holds; there is no revocation, so
keep them short-lived. Several keys may verify, one signs.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Literal

import msgspec

Use = Literal["identity", "conversion", "unlock", "referral"]


def sign(secret_key: str, use: Use, claims: Mapping[str, Any], now: datetime, life: timedelta) -> str:
    """A token that says *claims* for *use* until *now* + *life*."""
    payload = _encode(msgspec.json.encode({**claims, "exp": int((now + life).timestamp())}))
    return f"{payload}.{_encode(_mac(secret_key, use, payload))}"


def verify(secret_keys: Sequence[str], use: Use, token: str, now: datetime) -> dict[str, Any] | str:
    """The claims of *token*; or why it is not believed, as a text."""
    payload, dot, signature = token.partition(".")
    try:
        given = _decode(signature)
        if not dot or not any(hmac.compare_digest(given, _mac(key, use, payload)) for key in secret_keys):
            return f"the token is not one that this site signed for {use}"
        claims = msgspec.json.decode(_decode(payload), type=dict[str, Any])
    except (ValueError, Base64Error, msgspec.MsgspecError):
        return "the token cannot be read"
    expires = claims.pop("exp", None)
    if not isinstance(expires, int) or now.timestamp() >= expires:
        return "the token has expired; ask the site for a new one"
    return claims


def _mac(secret_key: str, use: str, payload: str) -> bytes:
    # One-step key derivation: the use is bound into the key (NIST SP 800-108 describes the same with a counter).
    derived = hmac.digest(secret_key.encode(), f"goodanalytics token {use}".encode(), sha256)
    return hmac.digest(derived, payload.encode(), sha256)


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
