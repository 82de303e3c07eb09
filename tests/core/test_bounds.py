"""The bounds of texts, ids, numbers and maps: the same for a beacon and for a host's call."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from goodanalytics.core.bounds import Invalid, flat_properties, money, text, uuid_or_none

EVENT_ID = UUID("0190a000-0000-7000-8000-000000000001")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (str(EVENT_ID), EVENT_ID),
        (str(EVENT_ID).upper(), EVENT_ID),
        (EVENT_ID.hex, None),
        (f"{{{EVENT_ID.hex}}}", None),
        (str(UUID(int=0)), None),
        ("g" * 36, None),
        ("", None),
        (None, None),
    ],
)
def test_uuids(written: str | None, expected: UUID | None) -> None:
    """Only the usual form with hyphens counts."""
    assert uuid_or_none(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        pytest.param("a\x00b", "ab", id="NUL"),
        pytest.param("a\x1b[31mb\x7f\x9b", "a[31mb", id="terminal escapes"),
        pytest.param("a\ud800b", "ab", id="half a surrogate pair"),
        pytest.param("a\tb\r\nc\n\nd", "a b c d", id="line breaks become blanks"),
        pytest.param("\u202egnp.exe\u202c \u2066x\u2069", "gnp.exe x", id="changes of direction"),
        pytest.param("\ufeffa\u2028b\u2029", "ab", id="byte order mark and separators"),
        pytest.param("  a b  ", "a b", id="outer blanks"),
        pytest.param("café ✓ 👩‍💻 שלום", "café ✓ 👩‍💻 שלום", id="any script stays"),
        pytest.param("\x00 \n", None, id="nothing is left"),
        pytest.param("", None, id="empty"),
        pytest.param(None, None, id="none"),
    ],
)
def test_texts_are_cleaned(written: str | None, expected: str | None) -> None:
    """What PostgreSQL refuses and what deceives a reader is removed; everything else stays."""
    assert text(written) == expected


@settings(deadline=None)
@given(st.text(st.characters()), st.integers(1, 20))
@example("ab c", 3)
def test_a_clean_text_stays_as_it_is(written: str, limit: int) -> None:
    """Cleaning twice is cleaning once, also where the cut falls on a blank."""
    once = text(written, limit)

    assert text(once, limit) == once
    assert once is None or 0 < len(once) <= limit


def test_money_is_checked_the_same_for_hosts() -> None:
    """The host's own calls have the same bounds; codes come back in upper case."""
    assert money(0, None) == (0, None)
    assert money(4900, "eur") == (4900, "EUR")
    with pytest.raises(Invalid, match="needs its currency"):
        money(1, None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**64, [], object()])
def test_the_hosts_own_properties_have_the_same_bounds(value: Any) -> None:
    """What JSON cannot hold is refused where the host calls from Python, too."""
    with pytest.raises(Invalid, match=r".") as caught:
        flat_properties({"x": value})

    assert caught.value.where == "properties.x"
