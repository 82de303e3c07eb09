"""Figures, money, times and addresses as the dashboard says them."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from goodanalytics.core.visitors import Visitor
from goodanalytics.web.dashboard import words
from goodanalytics.web.dashboard.countries import COUNTRIES

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("it's", "it's", id="a text"),
        pytest.param(7, "7", id="a number"),
        pytest.param({"ok": [True, None, "ä"]}, '{"ok":[true,null,"ä"]}', id="what is nested"),
    ],
)
def test_a_hosts_own_values_read_as_the_host_wrote_them(value, expected):
    """In JSON, and nothing of Python shows through."""
    assert words.as_written(value) == expected


@pytest.mark.parametrize(
    ("cents", "currency", "expected"),
    [
        pytest.param(123_456, "EUR", "1,234.56 EUR", id="two decimals"),
        pytest.param(5, "USD", "0.05 USD", id="less than one"),
        pytest.param(-4_900, "EUR", "−49.00 EUR", id="a refund"),
        pytest.param(-5, "EUR", "−0.05 EUR", id="a refund of cents"),
        pytest.param(1_500, "JPY", "1,500 JPY", id="no decimals"),
        pytest.param(1_500, "KWD", "1.500 KWD", id="three decimals"),
        pytest.param(12_345, "CLF", "1.2345 CLF", id="four decimals"),
        pytest.param(10**15, "EUR", "10,000,000,000,000.00 EUR", id="the most that is kept"),
        pytest.param(100, "XXZ", "1.00 XXZ", id="an unknown currency"),
    ],
)
def test_money_is_divided_by_its_own_minor_unit(cents, currency, expected):
    """Minor units are hundredths, except where ISO 4217 says otherwise."""
    assert words.money(cents, currency) == expected


def test_currencies_stand_side_by_side():
    """Amounts of different currencies are never added."""
    assert words.amounts({"USD": 100, "EUR": 200}) == ["2.00 EUR", "1.00 USD"]


@pytest.mark.parametrize(
    ("now", "before", "less_is_better", "expected"),
    [
        pytest.param(112, 100, False, words.Change("+12%", "good"), id="more"),
        pytest.param(50, 100, False, words.Change("−50%", "bad"), id="less"),
        pytest.param(50, 100, True, words.Change("−50%", "good"), id="less of what is bad"),
        pytest.param(100, 100, False, words.Change("±0%", "even"), id="the same"),
        pytest.param(1_004, 1_000, False, words.Change("±0%", "even"), id="nearly the same"),
        pytest.param(5, 0, False, None, id="from nothing"),
        pytest.param(0, 0, False, None, id="nothing"),
        pytest.param(100, -100, False, words.Change("+200%", "good"), id="out of a loss"),
    ],
)
def test_a_change_is_in_percent_of_before(now, before, less_is_better, expected):
    """From nothing there is no percentage; a lower bounce rate is welcome."""
    assert words.change(now, before, less_is_better=less_is_better) == expected


@pytest.mark.parametrize(
    ("url", "is_link"),
    [
        pytest.param("https://shop.example/a?b=c", True, id="https"),
        pytest.param("http://127.0.0.1:8000/", True, id="http"),
        pytest.param("HTTPS://SHOP.EXAMPLE/", True, id="upper case"),
        pytest.param("javascript:alert(1)", False, id="javascript"),
        pytest.param("JaVaScRiPt://shop.example/%0aalert(1)", False, id="javascript with a host"),
        pytest.param(" javascript:alert(1)", False, id="a space before it"),
        pytest.param("java\nscript:alert(1)", False, id="a line break in it"),
        pytest.param("data:text/html,<script>", False, id="data"),
        pytest.param("//evil.example/", False, id="no scheme"),
        pytest.param("/path", False, id="a path"),
        pytest.param("https://", False, id="no host"),
        pytest.param("http://[", False, id="broken"),
        pytest.param("http://a\u202e.example/", False, id="turned around"),
        pytest.param("", False, id="empty"),
        pytest.param(None, False, id="none"),
    ],
)
def test_only_web_addresses_become_links(url, is_link):
    """A browser is only ever sent to http and https."""
    assert words.web_address(url) == (url if is_link else None)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        pytest.param({"name": "Ada", "email": "ada@example.org"}, "Ada", id="name"),
        pytest.param({"email": "ada@example.org", "external_id": "u1"}, "ada@example.org", id="address"),
        pytest.param({"external_id": "u1"}, "u1", id="the host's id"),
        pytest.param({}, "Anonymous visitor ab12cd", id="nothing"),
    ],
)
def test_people_are_called_by_what_is_known(known, expected):
    """An anonymous visitor is called by the end of the id, which differs between neighbours."""
    one = UUID("01928374-0000-7000-8000-000000ab12cd")
    person = Visitor(
        workspace_id=UUID(int=0), id=one, canonical_id=one, first_seen_at=NOW, last_seen_at=NOW, **known
    )

    assert words.who(person) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param(0, "0s", id="none"),
        pytest.param(59.6, "1m 00s", id="rounded up"),
        pytest.param(185.4, "3m 05s", id="minutes"),
        pytest.param(3_720, "1h 02m", id="hours"),
    ],
)
def test_durations_have_two_units(seconds, expected):
    """Seconds are told up to an hour, minutes after that."""
    assert words.duration(seconds) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        pytest.param(
            {"country": "DE", "city": "Berlin", "region": "Berlin"}, "Berlin, Germany", id="a city and state"
        ),
        pytest.param({"country": "QQ"}, "QQ", id="an unknown code"),
        pytest.param({}, "", id="nothing"),
        pytest.param({"city": 5}, "", id="not a text"),
    ],
)
def test_places_name_what_is_known(written, expected):
    """A city that is its own region is said once."""
    assert words.place(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        pytest.param({"platform": "google", "medium": "organic"}, "google / organic", id="a platform"),
        pytest.param(
            {"platform": "referral", "medium": "referral", "referrer_host": "blog.example"},
            "blog.example / referral",
            id="an unknown host is named",
        ),
        pytest.param({}, "Direct", id="direct"),
        pytest.param(None, "Direct", id="none"),
    ],
)
def test_sources_are_one_line(written, expected):
    """Platform and medium, or the host where the platform only says that it was some host."""
    assert words.source(written) == expected


def test_countries_are_those_of_the_standard():
    """249 codes of ISO 3166-1 and Kosovo's, each with its own name."""
    assert len(COUNTRIES) == 250
    assert len(set(COUNTRIES.values())) == 250
