"""Small signed statements: what is believed, and what is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goodanalytics.core import tokens

NOW = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY, OLD_KEY, FOREIGN_KEY = "k" * 32, "o" * 32, "f" * 32
CLAIMS = {"external_id": "ann", "workspace_id": "w"}


def signed(use: tokens.Use = "identity", key: str = KEY, **claims: Any) -> str:
    return tokens.sign(key, use, claims or CLAIMS, NOW, HOUR)


def test_a_token_says_what_was_signed() -> None:
    """The claims come back as they went in, without the expiry."""
    assert tokens.verify([KEY], "identity", signed(), NOW) == CLAIMS


def test_a_token_of_a_former_key_is_believed() -> None:
    """A key can be changed without losing anybody."""
    assert tokens.verify([KEY, OLD_KEY], "identity", signed(key=OLD_KEY), NOW) == CLAIMS


@pytest.mark.parametrize(
    ("after", "believed"),
    [
        pytest.param(timedelta(0), True, id="at once"),
        pytest.param(HOUR - timedelta(seconds=1), True, id="a second before its end"),
        pytest.param(HOUR, False, id="at its end"),
        pytest.param(timedelta(days=400), False, id="long after"),
    ],
)
def test_a_token_holds_until_its_end(after: timedelta, believed: bool) -> None:
    """A token is worth nothing from its last second on."""
    found = tokens.verify([KEY], "identity", signed(), NOW + after)

    assert isinstance(found, dict) == believed
    assert believed or "expired" in found


@pytest.mark.parametrize(
    ("token", "keys", "use"),
    [
        pytest.param(signed(), [KEY], "conversion", id="made for another use"),
        pytest.param(signed(), [FOREIGN_KEY], "identity", id="another site's"),
        pytest.param(signed(), [], "identity", id="no key at all"),
        pytest.param("", [KEY], "identity", id="empty"),
        pytest.param(".", [KEY], "identity", id="a dot"),
        pytest.param(signed().partition(".")[0], [KEY], "identity", id="without signature"),
        pytest.param("." + signed().partition(".")[2], [KEY], "identity", id="without claims"),
        pytest.param(signed() + "A", [KEY], "identity", id="longer"),
        pytest.param(
            signed(a=1).partition(".")[0] + "." + signed().partition(".")[2],
            [KEY],
            "identity",
            id="other claims",
        ),
        pytest.param("é.é", [KEY], "identity", id="no base64"),
        pytest.param("a" * 100_000, [KEY], "identity", id="huge"),
    ],
)
def test_a_token_that_is_not_ours_is_refused(token: str, keys: list[str], use: tokens.Use) -> None:
    """Why a token is not believed is a text, never an error."""
    assert isinstance(tokens.verify(keys, use, token, NOW), str)


@pytest.mark.parametrize("payload", [b"[1]", b"null", b"{}", b'{"exp": "never"}', b'{"exp": null}', b"\xff"])
def test_a_signed_text_without_an_expiry_is_refused(payload: bytes) -> None:
    """Even our own signature holds for no statement that never ends."""
    text = tokens._encode(payload)
    token = f"{text}.{tokens._encode(tokens._mac(KEY, 'identity', text))}"

    assert isinstance(tokens.verify([KEY], "identity", token, NOW), str)


@settings(deadline=None)
@given(st.text(), st.sampled_from(["identity", "conversion"]))
def test_no_text_breaks_the_reader(token: str, use: tokens.Use) -> None:
    """Whatever stands in a token's place is refused without an error."""
    assert isinstance(tokens.verify([KEY], use, token, NOW), str)


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(1, 255))
def test_no_changed_byte_is_believed_as_something_else(place: int, change: int) -> None:
    """A token with one byte changed is refused, or says exactly what it said before (base64 has spare bits)."""
    raw = bytearray(signed().encode())
    raw[place % len(raw)] ^= change
    found = tokens.verify([KEY], "identity", raw.decode("latin-1"), NOW)

    assert isinstance(found, str) or found == CLAIMS


def test_claims_may_hold_any_json() -> None:
    """Numbers, text of any script and nothing survive."""
    claims = {"amount_cents": 4900, "name": "Ænn ✓", "key": None}
    found = tokens.verify([KEY], "conversion", tokens.sign(KEY, "conversion", claims, NOW, HOUR), NOW)

    assert msgspec.json.encode(found) == msgspec.json.encode(claims)
