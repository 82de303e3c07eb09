"""A browser's id and the day of its cookie."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.core.browsers import day_of, id_in, parted

DAY = 86_400


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("abc.20758", ("abc", ".20758"), id="of a day"),
        pytest.param("abc", ("abc", ""), id="of no day"),
        pytest.param("", ("", ""), id="nothing"),
        pytest.param(".20758", ("", ".20758"), id="a day alone"),
        pytest.param("abc.2075", ("abc.2075", ""), id="four figures"),
        pytest.param("abc.120758", ("abc.120758", ""), id="six figures"),
        pytest.param("abc.２０７５８", ("abc.２０７５８", ""), id="figures of another script"),
        pytest.param("abc.20758 ", ("abc.20758 ", ""), id="something behind it"),
        pytest.param("a\nb.20758", ("a\nb", ".20758"), id="an odd id"),
    ],
)
def test_a_cookie_is_an_id_and_a_day(value: str, expected: tuple[str, str]) -> None:
    """What is not exactly a day belongs to the id."""
    assert parted(value) == expected


@given(st.text(max_size=40), st.datetimes(datetime(1970, 1, 1), datetime(2243, 10, 16)))  # noqa: DTZ001
def test_what_is_written_is_read_again(anonymous_id: str, naive: datetime) -> None:
    """On every day until 2243."""
    assert id_in(anonymous_id + day_of(naive.replace(tzinfo=UTC))) == anonymous_id


@pytest.mark.parametrize(("seconds", "expected"), [(0, ".00000"), (DAY - 1, ".00000"), (DAY, ".00001")])
def test_a_day_begins_at_midnight_in_utc(seconds: int, expected: str) -> None:
    """Wherever the server stands."""
    assert day_of(datetime.fromtimestamp(seconds, UTC)) == expected
