"""
How a long-lived credential becomes a short-lived access token. Google and LinkedIn speak the same standard.

1. A refresh token is exchanged as RFC 6749 section 6 says; the client's id and secret go into the body (section 2.3.1).
2. A service account signs a claim with its own key, RS256, and exchanges that: RFC 7523 section 2.1, with the claims that
   https://developers.google.com/identity/protocols/oauth2/service-account asks for.
3. An answer is RFC 6749 section 5: a token, or a word such as `invalid_grant`, which no second try mends.
4. A token counts as expired a minute early, so that none expires on its way.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from goodanalytics.errors import InvalidInput
from goodanalytics.platforms.answers import body_of, by_status, unreadable
from goodanalytics.platforms.dialect import Request, Response, Token, Verdict
from goodanalytics.platforms.quiet import Quiet

LIFETIME: Final = timedelta(hours=1)
"""Of a signed claim; Google accepts no longer one."""

EARLY: Final = timedelta(minutes=1)
BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TRANSIENT: Final = frozenset({"server_error", "temporarily_unavailable", "internal_failure"})


class _KeyFile(Quiet, frozen=True):
    """What is needed of the JSON file that Google hands out with a service account."""

    client_email: str
    private_key: str
    private_key_id: str | None = None


def refresh_request(address: str, secrets: Mapping[str, str]) -> Request:
    """The exchange of a refresh token. Secrets: `client_id`, `client_secret`, `refresh_token`."""
    form = {name: secrets[name] for name in ("client_id", "client_secret", "refresh_token")}
    return _form(address, {"grant_type": "refresh_token", **form})


def assertion_request(address: str, key_file: str, scope: str, now: datetime) -> Request:
    """
    The exchange of a claim that the service account of *key_file* signs.

    Args:
        address: Where tokens are given out; it is also whom the claim is for.
        key_file: The whole text of the account's JSON file.
        scope: What the token is to be good for.
        now: The claim is good for an hour from here.

    Raises:
        InvalidInput: The file or the key in it cannot be read. The message holds nothing of it.
    """
    account = _account(key_file)
    header = {"alg": "RS256", "typ": "JWT", "kid": account.private_key_id}
    issued = int(now.timestamp())
    claims = {
        "iss": account.client_email,
        "scope": scope,
        "aud": address,
        "iat": issued,
        "exp": issued + int(LIFETIME.total_seconds()),
    }
    signed = f"{_part({name: value for name, value in header.items() if value})}.{_part(claims)}"
    signature = _key(account).sign(signed.encode(), PKCS1v15(), SHA256())
    return _form(address, {"grant_type": BEARER, "assertion": f"{signed}.{_base64(signature)}"})


def token_of(response: Response, now: datetime) -> Token | Verdict:
    """The token; or what stands in its way. An answer that is neither is tried again."""
    body = body_of(response)
    if body is None:
        return unreadable(response)
    value, seconds = body.get("access_token"), body.get("expires_in")
    if 200 <= response.status < 300 and isinstance(value, str) and value and isinstance(seconds, int):
        return Token(value=value, expires_at=now + max(timedelta(seconds=seconds) - EARLY, timedelta()))
    return _refused(body, response)


def _refused(body: Mapping[str, Any], response: Response) -> Verdict:
    error = body.get("error")
    code = error if isinstance(error, str) else f"http_{response.status}"
    message = str(body.get("error_description", ""))
    if response.status == 429 or response.status >= 500 or code in _TRANSIENT:
        settled = by_status(response, code=code, message=message)
        return settled if settled.status in {"retry", "rate_limited"} else _again(code, message)
    if response.status < 300 and error is None:
        return _again("no_token", "The answer holds no access token")
    return Verdict(status="credential", code=code, message=message)


def _again(code: str, message: str) -> Verdict:
    return Verdict(status="retry", code=code, message=message)


def _account(key_file: str) -> _KeyFile:
    try:
        return msgspec.json.decode(key_file, type=_KeyFile)
    except (msgspec.DecodeError, UnicodeError):
        # `from None`: the cause may quote the file.
        raise InvalidInput(
            "service_account is not the JSON of a key file: client_email or private_key is missing. "
            "Store the whole file that Google Cloud gave you, under IAM, Service accounts, Keys."
        ) from None


def _key(account: _KeyFile) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(account.private_key.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise InvalidInput(
            "private_key in service_account is not an RSA key in PEM. "
            "Store the file as it came; its line breaks are written as \\n."
        )
    return key


def _form(address: str, fields: Mapping[str, str]) -> Request:
    return Request(
        url=address,
        headers={"content-type": "application/x-www-form-urlencoded", "accept": "application/json"},
        body=urlencode(fields).encode(),
    )


def _part(value: Mapping[str, Any]) -> str:
    return _base64(msgspec.json.encode(value))


def _base64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
