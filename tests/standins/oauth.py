"""Where access tokens are given out: RFC 6749 section 6 for refresh tokens, RFC 7523 for the claims of a service account."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from tests.platforms.standins import json_response
from tests.standins import Call, Refused, Taken, checked, says

BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
REVOKED = says(400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."})
WRONG_CLIENT = says(401, {"error": "invalid_client", "error_description": "The OAuth client was not found."})


class TokenOffice:
    """
    Gives out one token at a time. `token` is the one that is good; `expire()` makes the next one good.

    Args:
        secrets: `client_id`, `client_secret` and `refresh_token`, as they must come.
        account: E-mail and public key of a service account, if there is one.
        scope: What a claim must ask for.
        lasts: Seconds, as they are told.
        prefix: Of tokens.
    """

    def __init__(
        self,
        secrets: Mapping[str, str],
        *,
        account: tuple[str, RSAPublicKey] | None = None,
        scopes: frozenset[str] = frozenset(),
        lasts: int = 3_599,
        prefix: str = "ya29.a0standin",
    ) -> None:
        self._secrets = secrets
        self._account = account
        self._scopes = scopes
        self._lasts = lasts
        self._prefix = prefix
        self.given = 0
        self._number = 1

    @property
    def token(self) -> str:
        """The only one that is good."""
        return f"{self._prefix}secretsecretsecret0{self._number}"

    def expire(self) -> None:
        """What was given out is not good any more."""
        self._number += 1

    def judge(self, call: Call, path: str, now: datetime | None = None) -> Taken:
        """The answer to a request for a token."""
        checked(call, _refuse, path=path, content_type="application/x-www-form-urlencoded")
        if call.query or "authorization" in call.headers:
            raise _refuse("what belongs into the body stands elsewhere")
        form = {
            name: values[0] if len(values) == 1 else ""
            for name, values in parse_qs(call.body.decode()).items()
        }
        if form.get("grant_type") == BEARER and self._account and now:
            self._claimed(form, call.url, now)
        else:
            self._exchanged(form)
        body = {"access_token": self.token, "expires_in": self._lasts, "token_type": "Bearer"}
        return Taken(json_response(body), keep=self._count)

    def _count(self) -> None:
        self.given += 1

    def _exchanged(self, form: Mapping[str, str]) -> None:
        names = ("client_id", "client_secret", "refresh_token")
        if set(form) != {"grant_type", *names} or form["grant_type"] != "refresh_token":
            raise _refuse(f"the form has {sorted(form)}")
        if any(form[name] != self._secrets[name] for name in names[:2]):
            raise Refused("another client", WRONG_CLIENT.response)
        if form["refresh_token"] != self._secrets["refresh_token"]:
            raise Refused("another refresh token", REVOKED.response)

    def _claimed(self, form: Mapping[str, str], address: str, now: datetime) -> None:
        if set(form) != {"grant_type", "assertion"}:
            raise _refuse(f"the form has {sorted(form)}")
        email, key = self._account or ("", None)
        header, claims, signature = form["assertion"].split(".")
        try:
            assert key is not None
            key.verify(_raw(signature), f"{header}.{claims}".encode(), PKCS1v15(), SHA256())
        except InvalidSignature:
            raise Refused("another key", REVOKED.response) from None
        said: dict[str, Any] = msgspec.json.decode(_raw(claims))
        if msgspec.json.decode(_raw(header)).get("alg") != "RS256":
            raise _refuse("not RS256")
        if set(said) != {"iss", "scope", "aud", "iat", "exp"}:
            raise _refuse(f"claims {sorted(said)}")
        if (said["iss"], said["aud"]) != (email, address) or said["scope"] not in self._scopes:
            raise Refused("claims of somebody else", REVOKED.response)
        at = now.timestamp()
        if not said["iat"] - 300 <= at < said["exp"] <= said["iat"] + 3_600:
            raise Refused("claims of another time", REVOKED.response)


def _raw(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _refuse(why: str) -> Refused:
    return Refused(why, says(400, {"error": "invalid_request", "error_description": why}).response)
