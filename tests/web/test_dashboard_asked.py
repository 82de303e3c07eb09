"""The dashboard's query strings: periods, time zones and filters, and the links that keep them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.errors import InvalidInput
from goodanalytics.store.reports.query import Filter, Query
from goodanalytics.web.dashboard import asked as asking

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def read(written: str, now: datetime = NOW) -> asking.Asked:
    return asking.read(parse_qsl(written, keep_blank_values=True), now)


@pytest.mark.parametrize(
    ("written", "first", "days", "interval"),
    [
        pytest.param("", date(2026, 10, 5), 28, "day", id="default"),
        pytest.param("period=today", date(2026, 11, 1), 1, "hour", id="today"),
        pytest.param("period=7d", date(2026, 10, 26), 7, "day", id="a week"),
        pytest.param("period=28d", date(2026, 10, 5), 28, "day", id="four weeks"),
        pytest.param("period=90d", date(2026, 8, 4), 90, "day", id="90 days"),
        pytest.param("period=12m", date(2025, 11, 2), 365, "day", id="12 months"),
        pytest.param("from=2026-10-30&to=2026-10-31", date(2026, 10, 30), 2, "day", id="dates"),
        pytest.param(
            "period=7d&from=2026-10-31&to=2026-10-31", date(2026, 10, 31), 1, "hour", id="dates first"
        ),
        pytest.param("from=2020-01-01&to=2026-10-31", date(2020, 1, 1), 2_496, "month", id="years"),
        pytest.param("from=&to=&period=", date(2026, 10, 5), 28, "day", id="an empty form"),
        pytest.param("utm_source=mail&nonsense=1", date(2026, 10, 5), 28, "day", id="foreign parameters"),
    ],
)
def test_a_period_is_whole_days(written, first, days, interval):
    """Presets end today and count it; dates are both included; the chart's step follows from the length."""
    asked = read(written)

    assert (asked.first, asked.days, asked.interval) == (first, days, interval)


@pytest.mark.parametrize(
    ("now", "first"),
    [
        pytest.param(datetime(2028, 2, 28, 12, tzinfo=UTC), date(2027, 2, 28), id="before a leap day"),
        pytest.param(datetime(2028, 2, 29, 12, tzinfo=UTC), date(2027, 3, 1), id="on a leap day"),
    ],
)
def test_twelve_months_survive_leap_days(now, first):
    """A year back from a day whose twin does not exist is a day near it, not an error."""
    assert read("period=12m", now).first == first


def test_days_are_those_of_the_time_zone():
    """At 22:00 UTC it is tomorrow in Tehran, and that day begins at 20:30 UTC."""
    asked = read("period=today&tz=Asia/Tehran", datetime(2026, 11, 1, 22, tzinfo=UTC))

    assert asked.first == date(2026, 11, 2)
    assert asked.period == (
        datetime(2026, 11, 1, 20, 30, tzinfo=UTC),
        datetime(2026, 11, 2, 20, 30, tzinfo=UTC),
    )


def test_a_day_may_have_25_hours():
    """On the day that summer time ends, the period is as long as the day is."""
    start, end = read("from=2026-10-25&to=2026-10-25&tz=Europe/Berlin").period

    assert (end - start).total_seconds() == 25 * 3600


@pytest.mark.parametrize(
    ("written", "before"),
    [
        pytest.param(
            "period=today",
            (datetime(2026, 10, 31, tzinfo=UTC), datetime(2026, 10, 31, 12, tzinfo=UTC)),
            id="half a day against half a day",
        ),
        pytest.param(
            "period=7d",
            (datetime(2026, 10, 19, tzinfo=UTC), datetime(2026, 10, 25, 12, tzinfo=UTC)),
            id="a week that is not over",
        ),
        pytest.param(
            "from=2026-10-01&to=2026-10-10",
            (datetime(2026, 9, 21, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)),
            id="a period that is over",
        ),
        pytest.param(
            "from=2027-10-01&to=2027-10-10",
            (datetime(2027, 9, 21, tzinfo=UTC), datetime(2027, 10, 1, tzinfo=UTC)),
            id="a period to come",
        ),
    ],
)
def test_the_period_before_is_as_long_as_what_has_passed(written, before):
    """What is compared has the same length, up to the hour of the day."""
    assert read(written).before == before


def test_nothing_has_passed_at_midnight():
    """In the first instant of a day there is nothing to compare yet, and still a question that can be asked."""
    start, end = read("period=today", datetime(2026, 11, 1, tzinfo=UTC)).before

    assert start < end


@pytest.mark.parametrize(
    ("written", "where", "says"),
    [
        pytest.param("period=fortnight", "period", "'fortnight' is no period", id="period"),
        pytest.param("from=yesterday&to=2026-11-01", "from", "'yesterday' is no date", id="from"),
        pytest.param("from=2026-11-01&to=2026-02-30", "to", "'2026-02-30' is no date", id="no such day"),
        pytest.param(
            "from=20261101&to=2026-11-01", "from", "Write it as 2026-11-01", id="another way to write it"
        ),
        pytest.param("from=0001-01-01&to=2026-11-01", "from", "is no date", id="long ago"),
        pytest.param("from=2026-11-01&to=9999-12-31", "to", "is no date", id="far away"),
        pytest.param("from=2026-11-01", "to", "Give both", id="half a period"),
        pytest.param("to=2026-11-01", "from", "Give both", id="the other half"),
        pytest.param("from=2026-11-02&to=2026-11-01", "to", "Swap the two", id="backwards"),
        pytest.param("from=2000-01-01&to=2026-11-01", "to", "more than ten years", id="too long"),
        pytest.param("tz=Mars/Olympus", "tz", "is no time zone", id="time zone"),
        pytest.param("tz=../../etc/passwd", "tz", "is no time zone", id="a path"),
        pytest.param("tz=Europe", "tz", "is no time zone", id="a directory"),
        pytest.param("filter=google", "filter", "Write dimension:operator:value", id="filter without parts"),
        pytest.param("filter=shoe:is:42", "filter", "'shoe' cannot be filtered by", id="dimension"),
        pytest.param("filter=source:was:x", "filter", "'was' is no operator", id="operator"),
        pytest.param("filter=source:contains:", "filter", "takes texts", id="nothing to contain"),
        pytest.param("filter=path:is:%00", "filter", "without NUL", id="NUL"),
        pytest.param("filter=path:is:" + "x" * 3_000, "filter", "2083", id="long"),
        pytest.param("&".join(["filter=path:is:/"] * 21), "filter", "at most 20", id="many"),
    ],
)
def test_what_is_wrong_is_named(written, where, says):
    """A wrong value is refused with its parameter, what is wrong, and what would be right."""
    with pytest.raises(InvalidInput) as refused:
        read(written)

    assert refused.value.where == where
    assert says in str(refused.value)


def test_values_of_one_dimension_are_alternatives():
    """Two filters on the same dimension with the same operator mean either, not both."""
    asked = read(
        "filter=source:is:google&filter=path:contains::8000&filter=source:is:bing&filter=source:is:google"
    )

    assert asked.filters == (
        Filter("source", "is", ("google", "bing")),
        Filter("path", "contains", (":8000",)),
    )


def test_an_empty_value_is_not_set():
    """Rows without a campaign can be clicked like all others."""
    assert read("filter=campaign:is:").filters == (Filter("campaign", "is", (None,)),)


def test_a_click_replaces_what_was_said_of_the_dimension():
    """Clicking another source shows that one; filters on other dimensions stay."""
    asked = read("filter=source:is:google&filter=country:is:DE&period=7d")

    assert read(asked.filtered("source", "bing")[1:]).filters == (
        Filter("country", "is", ("DE",)),
        Filter("source", "is", ("bing",)),
    )
    assert read(asked.filtered("source", "bing")[1:]).preset == "7d"


def test_a_chip_takes_its_filter_away():
    """Removing one filter leaves the others and the period."""
    asked = read("filter=source:is:google&filter=country:is:DE&from=2026-10-01&to=2026-10-02")

    assert asked.without(asked.filters[0]) == "?from=2026-10-01&to=2026-10-02&filter=country%3Ais%3ADE"


def test_defaults_are_not_written():
    """A page without any choice has a plain address."""
    assert read("period=28d&tz=UTC").href() == ""


TEXTS = st.text(max_size=30) | st.sampled_from(
    [
        "today",
        "12m",
        "2026-11-01",
        "0000-00-00",
        "9999-12-31",
        "UTC",
        "Asia/Tehran",
        "source:is:x",
        "path:contains:%",
        "::",
    ]
)


@given(st.lists(st.tuples(st.sampled_from(["period", "from", "to", "tz", "filter", "x"]), TEXTS), max_size=6))
def test_whatever_is_written_is_read_or_refused(parameters):
    """Any query string gives a question that can be asked, and that its own link asks again; or a refusal."""
    where, asked = "", None
    try:
        asked = asking.read(parameters, NOW)
    except InvalidInput as refused:
        where = refused.where
    if asked is None:
        assert where in {"period", "from", "to", "tz", "filter"}
        return

    for period in (asked.period, asked.before):
        Query(period=period, metrics=("visitors",), timezone=asked.timezone, filters=asked.filters)
    assert asking.read(parse_qsl(asked.href()[1:], keep_blank_values=True), NOW) == asked
