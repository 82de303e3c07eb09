"""
Secrets and persons as they lie in the database: AES-256-GCM, bound to the place where they lie.

1. The key comes from the host's secret key by HKDF-SHA256 (RFC 5869), one for each use and workspace, so that no key
   seals more than the 2^32 values that random nonces allow (NIST SP 800-38D, section 8.3).
2. What a value is for (workspace, target, name) is authenticated with it: a row that was copied elsewhere cannot be opened.
3. A sealed value begins with the id of the key that sealed it. Former secret keys open; the present one seals. The id is
   a digest of the key, so it tells nothing about it.
4. Neither a key nor what was sealed is in any `repr` or error.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Final, Literal, TypeAlias
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from goodanalytics.errors import ConfigError

Use: TypeAlias = Literal["credential", "dispatch", "webhook"]

_FORMAT: Final = b"\x01"
_ID: Final = 8  # bytes
_NONCE: Final = 12  # bytes; what AES-GCM is specified for


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where a sealed value lies; elsewhere it cannot be opened.

    Attributes:
        target: A platform's name, or `webhook:{id}`.
        name: Of the credential, or the id of the dispatch.
    """

    use: Use
    workspace_id: UUID
    target: str
    name: str

    @property
    def authenticated(self) -> bytes:
        """All of it, so that no two places read the same."""
        return msgspec.json.encode([self.use, self.workspace_id, self.target, self.name])


@dataclass(frozen=True, slots=True)
class Sealer:
    """
    Seals and opens.

    Args:
        secret_keys: The present one, then the former ones that still open.
        random_bytes: Where nonces come from; a cryptographic source.
    """

    secret_keys: Sequence[str] = field(repr=False)
    random_bytes: Callable[[int], bytes] = field(repr=False)

    @property
    def key_id(self) -> str:
        """Of the key that seals now."""
        return _id_of(self.secret_keys[0]).hex()

    def seal(self, plain: bytes, place: Place) -> bytes:
        """*plain* as it may be stored at *place*, and nowhere else."""
        secret, nonce = self.secret_keys[0], self.random_bytes(_NONCE)
        cipher = _cipher(secret, place.use, place.workspace_id)
        return _FORMAT + _id_of(secret) + nonce + cipher.encrypt(nonce, plain, place.authenticated)

    def unseal(self, sealed: bytes, place: Place) -> bytes:
        """
        What was sealed at *place*.

        Raises:
            ConfigError: The key is not among ours, or the value was changed or lay elsewhere.
        """
        start = len(_FORMAT) + _ID
        key_id, nonce, rest = (
            sealed[len(_FORMAT) : start],
            sealed[start : start + _NONCE],
            sealed[start + _NONCE :],
        )
        secret = next((key for key in self.secret_keys if _id_of(key) == key_id), None)
        if not sealed.startswith(_FORMAT) or secret is None:
            raise ConfigError(
                f"The {place.use} {place.name!r} of {place.target} was sealed with another secret key. Put the former "
                "one into previous_secret_keys, or store the value anew"
            )
        try:
            return _cipher(secret, place.use, place.workspace_id).decrypt(nonce, rest, place.authenticated)
        except (InvalidTag, ValueError):
            raise ConfigError(
                f"The {place.use} {place.name!r} of {place.target} was changed, or belongs to another workspace. "
                "Store the value anew"
            ) from None

    def renew(self, sealed: bytes, place: Place) -> bytes:
        """
        The same value under the present key.

        Raises:
            ConfigError: It cannot be opened.
        """
        return self.seal(self.unseal(sealed, place), place)


def key_id_of(sealed: bytes) -> str:
    """The id of the key that sealed it."""
    return sealed[len(_FORMAT) : len(_FORMAT) + _ID].hex()


@lru_cache(maxsize=64)
def _id_of(secret: str) -> bytes:
    return hmac.digest(secret.encode(), b"goodanalytics sealing key id", sha256)[:_ID]


@lru_cache(maxsize=256)
def _cipher(secret: str, use: str, workspace_id: UUID) -> AESGCM:
    info = f"goodanalytics sealing {use} ".encode() + workspace_id.bytes
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret.encode())
    return AESGCM(derived)


__all__ = ["Place", "Sealer", "Use", "key_id_of"]
