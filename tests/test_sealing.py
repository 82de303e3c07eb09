"""Secrets at rest: only the right key opens them, only at the place where they were sealed, and nothing shows them."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from goodanalytics.errors import ConfigError
from goodanalytics.sealing import Place, Sealer, key_id_of

WORKSPACE = UUID(int=7)
PLACE = Place("credential", WORKSPACE, "meta", "access_token")
OLD, NEW = "an-old-secret-key-" + "0" * 32, "a-new-secret-key-" + "1" * 32
SECRET = b"EAAB-a-token"


@pytest.fixture
def sealer() -> Sealer:
    return Sealer([OLD], os.urandom)


def test_what_was_sealed_comes_out_again(sealer):
    """Whatever bytes it is."""
    for plain in (b"", SECRET, bytes(range(256)) * 100):
        assert sealer.unseal(sealer.seal(plain, PLACE), PLACE) == plain


def test_it_is_aes_256_gcm_under_a_key_by_hkdf_sha256():
    """As RFC 5869 and NIST SP 800-38D say: another implementation opens it from the documented parts alone."""
    nonces = itertools.count(1)
    sealed = Sealer([OLD], lambda size: next(nonces).to_bytes(size)).seal(SECRET, PLACE)
    info = b"goodanalytics sealing credential " + WORKSPACE.bytes
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(OLD.encode())
    place = b'["credential","00000000-0000-0000-0000-000000000007","meta","access_token"]'

    assert sealed[:1] == b"\x01"
    assert sealed[9:21] == (1).to_bytes(12)
    assert AESGCM(key).decrypt(sealed[9:21], sealed[21:], place) == SECRET


def test_the_same_value_is_sealed_differently_each_time(sealer):
    """Nobody who reads the table sees that two secrets are equal."""
    assert sealer.seal(SECRET, PLACE)[9:] != sealer.seal(SECRET, PLACE)[9:]


@pytest.mark.parametrize(
    "elsewhere",
    [
        replace(PLACE, use="dispatch"),
        replace(PLACE, workspace_id=UUID(int=8)),
        replace(PLACE, target="google"),
        replace(PLACE, name="pixel_id"),
        replace(PLACE, target="meta access", name="token"),
    ],
    ids=["use", "workspace", "target", "name", "words moved between target and name"],
)
def test_a_row_that_was_copied_elsewhere_cannot_be_opened(sealer, elsewhere):
    """What it is for is authenticated with it."""
    with pytest.raises(ConfigError, match="was changed, or belongs to another workspace"):
        sealer.unseal(sealer.seal(SECRET, PLACE), elsewhere)


def test_no_byte_of_it_can_be_changed(sealer):
    """Neither of its head, its nonce, its content nor its tag."""
    sealed = sealer.seal(SECRET, PLACE)
    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 1
        with pytest.raises(ConfigError):
            sealer.unseal(bytes(changed), PLACE)
    for length in range(len(sealed)):
        with pytest.raises(ConfigError):
            sealer.unseal(sealed[:length], PLACE)


def test_a_former_key_opens_and_the_present_one_seals(sealer):
    """`renew` takes a value over; then the former key is not needed."""
    rotated = Sealer([NEW, OLD], os.urandom)
    sealed = sealer.seal(SECRET, PLACE)
    renewed = rotated.renew(sealed, PLACE)

    assert rotated.unseal(sealed, PLACE) == SECRET
    assert (key_id_of(sealed), key_id_of(renewed)) == (sealer.key_id, rotated.key_id)
    assert Sealer([NEW], os.urandom).unseal(renewed, PLACE) == SECRET


def test_a_key_that_is_gone_is_named_with_its_cure(sealer):
    """The message says which value and what to do; it holds neither key nor value."""
    with pytest.raises(ConfigError, match="previous_secret_keys") as refused:
        Sealer([NEW], os.urandom).unseal(sealer.seal(SECRET, PLACE), PLACE)

    assert "'access_token' of meta" in str(refused.value)
    assert SECRET.decode() not in str(refused.value)


def test_nothing_shows_a_key(sealer):
    """Not even the id of a key holds a part of it."""
    assert OLD not in repr(sealer)
    assert sealer.key_id not in OLD
