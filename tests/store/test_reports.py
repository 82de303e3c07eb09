"""Exact figures out of known rows: what is counted, for whom, where it is grouped, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from goodanalytics.errors import InvalidInput
from goodanalytics.store.reports import metrics
from goodanalytics.store.reports.metrics import OF_EVENTS, OF_VISITS
from goodanalytics.store.reports.query import (
    DIMENSIONS,
    EVENT_DIMENSIONS,
    EVENT_METRICS,
    METRICS,
    VISIT_METRICS,
    Filter,
    Query,
)

OTHER_WORKSPACE = UUID(int=8)
NOVEMBER = (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
GOOGLE = {"source": "google", "medium": "organic", "channel": "organic search"}
NEWS = {"source": "news", "medium": "email", "channel": "email", "campaign": "spring"}


def query(*names: str, **options: Any) -> Query:
    return Query(**({"period": NOVEMBER, "metrics": names} | options))


async def ask(seed, asked: Query) -> metrics.Result:
    async with seed.database.connect() as conn:
        return await metrics.run(conn, seed.database.tables, seed.workspace_id, asked)


async def rows(seed, *names: str, **options: Any) -> list[tuple[Any, ...]]:
    return list((await ask(seed, query(*names, **options))).rows)


async def figures(seed, *names: str, **options: Any) -> tuple[Any, ...]:
    (row,) = await rows(seed, *names, **options)
    return row


class TestMetrics:
    async def test_nothing_is_zero(self, seed) -> None:
        """An empty workspace answers every metric with its zero."""
        found = await ask(seed, query(*METRICS))

        assert found.totals == dict.fromkeys(METRICS, 0) | {"revenue_cents": {}}
        assert found.meta == {"from": "events+sessions", "exact": True, "timezone": "UTC", "notes": []}

    async def test_merged_visitors_count_once(self, seed) -> None:
        """Two browsers of one person are one visitor; someone else is another."""
        await seed.visitor(1)
        await seed.visitor(2, of=1)
        await seed.visitor(3)
        for visitor in (1, 2, 2, 3):
            await seed.event(visitor)

        assert await figures(seed, "visitors", "pageviews") == (2, 4)

    async def test_bots_count_only_when_asked_for(self, seed) -> None:
        """What bots did is kept, and left out of every figure unless the question includes it."""
        await seed.visitor(1)
        await seed.visitor(2, bot="agent")
        await seed.session(20, 1)
        await seed.session(21, 2, bot="agent")
        await seed.event(1, session=20)
        await seed.event(2, session=21, bot="agent")

        assert await figures(seed, "visitors", "pageviews", "visits") == (1, 1, 1)
        assert await figures(seed, "visitors", "pageviews", "visits", include_bots=True) == (2, 2, 2)

    @pytest.mark.parametrize(
        ("kind", "visitors"),
        [
            ("pageview", 1),
            ("custom", 1),
            ("lead", 1),
            ("sale", 1),
            ("share", 1),
            ("session_start", 1),
            ("identify", 1),
            ("link_click", 0),
            ("engagement", 0),
            ("refund", 0),
        ],
    )
    async def test_which_events_make_a_visitor(self, seed, kind: str, visitors: int) -> None:
        """A click that never lands, a ping and a refund are no visitor by themselves, but they are events."""
        await seed.visitor(1)
        await seed.event(1, kind=kind)

        assert await figures(seed, "visitors", "events") == (visitors, 1)

    async def test_clicks_and_who_clicked(self, seed) -> None:
        """Clicks on short links count each; their people once, also merged ones; a key that no link has is no short link."""
        await seed.visitor(1)
        await seed.visitor(2, of=1)
        await seed.visitor(3)
        await seed.link(50, "a")
        for visitor in (1, 1, 2):
            await seed.event(visitor, kind="link_click", link=50)
        for visitor in (1, 3):
            await seed.event(visitor, kind="link_click")
        await seed.event(2)

        assert await figures(seed, "clicks", "unique_clicks", "pageviews", "events") == (3, 1, 1, 6)

    async def test_visits(self, seed) -> None:
        """Visits, the share that bounced, the mean length and the mean number of pages."""
        await seed.visitor(1)
        await seed.session(20, 1, is_bounce=True, duration_ms=0, pageviews=1)
        await seed.session(21, 1, is_bounce=False, duration_ms=90_000, pageviews=4)
        await seed.session(22, 1, is_bounce=False, duration_ms=10_000, pageviews=2)

        assert await figures(seed, "visits", "bounce_rate", "visit_duration", "views_per_visit") == (
            3,
            33.33,
            33.33,
            2.33,
        )

    async def test_period_is_half_open(self, seed) -> None:
        """The first moment is inside, the last is not; for events and for visits."""
        await seed.visitor(1)
        for moment in (
            "2026-10-31 23:59:59.999999",
            "2026-11-01 00:00",
            "2026-11-30 23:59:59.999999",
            "2026-12-01 00:00",
        ):
            await seed.event(1, moment)
        for number, moment in ((20, "2026-10-31 23:59"), (21, "2026-11-01 00:00"), (22, "2026-12-01 00:00")):
            await seed.session(number, 1, moment)

        assert await figures(seed, "pageviews", "visits") == (2, 1)

    async def test_claims_are_no_leads_and_no_sales(self, seed) -> None:
        """A lead or sale that only a browser claims counts nowhere."""
        await seed.visitor(1)
        await seed.event(1, kind="lead")
        await seed.event(1, kind="lead", trusted=False)
        await seed.event(1, kind="sale", amount_cents=100, currency="EUR")
        await seed.event(1, kind="sale", amount_cents=999_999, currency="EUR", trusted=False)

        assert await figures(seed, "leads", "sales", "revenue_cents") == (1, 1, {"EUR": 100})

    async def test_currencies_are_never_added(self, seed) -> None:
        """Revenue is an amount per currency; refunds take away, with either sign; a sale without an amount adds nothing."""
        await seed.visitor(1)
        for kind, cents, currency in (
            ("sale", 1_000, "EUR"),
            ("sale", 500, "EUR"),
            ("sale", 70, "JPY"),
            ("refund", 200, "EUR"),
            ("refund", -100, "EUR"),
            ("sale", None, None),
        ):
            await seed.event(1, kind=kind, amount_cents=cents, currency=currency)

        assert await figures(seed, "revenue_cents", "sales") == ({"EUR": 1_200, "JPY": 70}, 4)
        assert await rows(seed, "revenue_cents", "sales", dimensions=("currency",)) == [
            ("EUR", 1_200, 2),
            ("JPY", 70, 1),
            (None, 0, 1),
        ]

    async def test_amounts_beyond_32_bits(self, seed) -> None:
        """Large amounts add exactly."""
        await seed.visitor(1)
        for _ in range(2):
            await seed.event(1, kind="sale", amount_cents=10**15, currency="IRR")

        assert await figures(seed, "revenue_cents") == ({"IRR": 2 * 10**15},)

    async def test_conversion_rate_is_of_people(self, seed) -> None:
        """One of three people bought, on two browsers and twice: a third."""
        for number, person in ((1, 1), (2, 1), (3, 3), (4, 4)):
            await seed.visitor(number, of=person)
            await seed.event(number)
        await seed.event(1, kind="sale")
        await seed.event(2, kind="sale")
        await seed.event(3, kind="sale", trusted=False)

        assert await figures(seed, "conversion_rate") == (33.33,)

    async def test_workspaces_are_apart(self, seed) -> None:
        """Rows of another workspace count nowhere, even under the same ids."""
        await seed.visitor(1)
        await seed.event(1, session=20)
        await seed.session(20, 1, **GOOGLE)
        for table_row in (
            seed.visitor(1, workspace_id=OTHER_WORKSPACE),
            seed.session(20, 1, workspace_id=OTHER_WORKSPACE, **NEWS),
            seed.event(1, session=20, workspace_id=OTHER_WORKSPACE),
        ):
            await table_row

        assert await rows(seed, "visitors", "pageviews", "visits", dimensions=("source",)) == [
            ("google", 1, 1, 1)
        ]


class TestDimensions:
    async def test_events_count_under_the_source_of_their_visit(self, seed) -> None:
        """An event's own source does not matter within a visit; outside of any visit it does."""
        await seed.visitor(1)
        await seed.session(20, 1, **GOOGLE)
        await seed.event(1, session=20)
        await seed.event(1, session=20, source="direct")
        await seed.event(1, kind="sale", **NEWS, amount_cents=5, currency="EUR")

        assert await rows(
            seed, "pageviews", "visits", "sales", "revenue_cents", dimensions=("source", "campaign")
        ) == [
            ("google", None, 2, 1, 0, {}),
            ("news", "spring", 0, 0, 1, {"EUR": 5}),
        ]

    async def test_values_that_are_not_set_meet(self, seed) -> None:
        """Events and visits without a country are one row, not two."""
        await seed.visitor(1)
        await seed.session(20, 1)
        await seed.event(1, session=20)

        assert await rows(seed, "pageviews", "visits", dimensions=("country",)) == [(None, 1, 1)]

    async def test_referrer_is_the_host_that_sent_the_visit(self, seed) -> None:
        """The referrer of a visit, not of each page within it."""
        await seed.visitor(1)
        await seed.session(20, 1, acquisition={"referrer_host": "news.test"})
        await seed.event(1, session=20, referrer="https://acme.test/inner")
        await seed.event(1, acquisition={"referrer_host": "blog.test"})

        assert await rows(seed, "pageviews", "visits", dimensions=("referrer",)) == [
            ("blog.test", 1, 0),
            ("news.test", 1, 1),
        ]

    async def test_link_is_domain_and_key(self, seed) -> None:
        """Short links by their address, also when archived."""
        await seed.visitor(1)
        await seed.link(50, "a")
        await seed.link(51, "b", archived_at=seed.time("2026-11-03"))
        for link in (50, 51, 51, None):
            await seed.event(1, kind="link_click", link=link)

        assert await rows(seed, "clicks", dimensions=("link",)) == [
            ("acme.test/b", 2),
            ("acme.test/a", 1),
        ]

    async def test_notes_say_how_to_read_figures(self, seed) -> None:
        """What a reader could take amiss is said beside the figures."""
        by_source = await ask(seed, query("pageviews", "visits", dimensions=("source",)))
        by_link = await ask(seed, query("clicks", "sales", dimensions=("link",)))
        of_visits = await ask(seed, query("visits", dimensions=("source",)))

        assert (by_source.meta["from"], by_link.meta["from"], of_visits.meta["from"]) == (
            "events+sessions",
            "events",
            "sessions",
        )
        assert (by_source.meta["notes"], by_link.meta["notes"], of_visits.meta["notes"]) == (
            ["Events count under the source, entry and device of their visit"],
            ["link: of events that carry a short link themselves, as clicks do"],
            [],
        )

    @pytest.mark.parametrize("name", DIMENSIONS)
    async def test_every_dimension_groups(self, seed, name: str) -> None:
        """Each dimension gives one row for one event, and for its visit if it is a fact of visits."""
        asked = ("visitors",) if name in EVENT_DIMENSIONS else ("visitors", "visits")
        hour = (seed.time("2026-11-02 10:00"), seed.time("2026-11-02 11:00"))
        await seed.visitor(1)
        await seed.link(50, "a")
        place = {"device_type": "mobile", "browser": "B", "os": "O", "country": "DE"}
        await seed.session(
            20, 1, entry_path="/", exit_path="/end", acquisition={"referrer_host": "r"}, **place
        )
        page = {"path": "/", "host": "h", "region": "R", "city": "C", "event_name": "n", "currency": "EUR"}
        await seed.event(1, session=20, link=50, **page)

        (row,) = await rows(seed, *asked, dimensions=(name,), period=hour)

        assert row[0] is not None or name == "campaign"
        assert row[1:] == (1,) * len(asked)

    async def test_ties_are_told_apart_by_name(self, seed) -> None:
        """Rows with equal figures come in the order of their letters, those not set last; a limit cuts the same ones each time."""
        await seed.visitor(1)
        for path in ("/b", "/B", None, "/a", "/ä"):
            await seed.event(1, path=path)

        assert await rows(seed, "pageviews", dimensions=("path",)) == [
            ("/B", 1),
            ("/a", 1),
            ("/b", 1),
            ("/ä", 1),
            (None, 1),
        ]
        assert await rows(seed, "pageviews", dimensions=("path",), limit=2) == [("/B", 1), ("/a", 1)]

    async def test_order_is_by_what_was_asked(self, seed) -> None:
        """By metrics and dimensions, either way."""
        await seed.visitor(1)
        for path, times in (("/a", 2), ("/b", 1), ("/c", 1)):
            for _ in range(times):
                await seed.event(1, path=path)

        asked = {"dimensions": ("path",), "order_by": (("pageviews", "asc"), ("path", "desc"))}
        assert await rows(seed, "visitors", "pageviews", **asked) == [
            ("/c", 1, 1),
            ("/b", 1, 1),
            ("/a", 1, 2),
        ]

    async def test_people_do_not_add_up(self, seed) -> None:
        """Somebody on two pages counts on both, and once in the totals."""
        await seed.visitor(1)
        await seed.event(1, path="/a")
        await seed.event(1, path="/b")

        found = await ask(seed, query("visitors", dimensions=("path",), include_totals=True))

        assert (found.rows, found.totals) == ((("/a", 1), ("/b", 1)), {"visitors": 1})
        assert found.records()[0] == {"path": "/a", "visitors": 1}


class TestFilters:
    @pytest.mark.parametrize(
        ("op", "values", "expected"),
        [
            pytest.param("is", ("/a_b",), ["/a_b"], id="is"),
            pytest.param("is", ("/a_b", "/axb"), ["/a_b", "/axb"], id="any of several"),
            pytest.param("is", (None,), [None], id="not set"),
            pytest.param("is", ("/axb", None), ["/axb", None], id="one or not set"),
            pytest.param(
                "is_not", ("/a_b",), ["/100%", "/axb", "/it's", None], id="is not keeps what is not set"
            ),
            pytest.param("is_not", ("/a_b", None), ["/100%", "/axb", "/it's"], id="is set and not"),
            pytest.param("contains", ("a_",), ["/a_b"], id="an underscore is itself"),
            pytest.param("contains", ("%",), ["/100%"], id="a per cent sign is itself"),
            pytest.param("contains", ("\\",), [], id="a backslash is itself"),
            pytest.param("contains", ("XB", "'S"), ["/axb", "/it's"], id="any of several, in any case"),
            pytest.param(
                "contains_not", ("a",), ["/100%", "/it's", None], id="contains not keeps what is not set"
            ),
            pytest.param("is", ("' OR '1'='1",), [], id="SQL is text"),
            pytest.param("contains", ("'; DROP TABLE events; --",), [], id="SQL is text in a pattern"),
            pytest.param("is", ("/it's",), ["/it's"], id="a quote is text"),
        ],
    )
    async def test_operators(
        self, seed, op: str, values: tuple[str | None, ...], expected: list[str | None]
    ) -> None:
        """Each operator keeps exactly the rows that it says."""
        await seed.visitor(1)
        for path in ("/a_b", "/axb", "/100%", "/it's", None):
            await seed.event(1, path=path)

        found = await rows(seed, "pageviews", dimensions=("path",), filters=(Filter("path", op, values),))

        assert [path for path, _ in found] == expected

    async def test_visit_filter_holds_for_both_grains(self, seed) -> None:
        """A filter on the source keeps the visits of it and their events."""
        await seed.visitor(1)
        await seed.session(20, 1, **GOOGLE)
        await seed.session(21, 1, **NEWS)
        await seed.event(1, session=20)
        await seed.event(1, session=21)
        await seed.event(1)

        assert await figures(seed, "pageviews", "visits", filters=(Filter("source", "is", ("google",)),)) == (
            1,
            1,
        )
        assert await figures(seed, "pageviews", "visits", filters=(Filter("campaign", "is", (None,)),)) == (
            2,
            1,
        )

    async def test_visits_with_a_page(self, seed) -> None:
        """Filtered by a page, the visits are those that saw it, each once; the note says so."""
        await seed.visitor(1)
        for number in (20, 21, 22):
            await seed.session(number, 1, pageviews=number)
        for session, path in ((20, "/p"), (20, "/p"), (20, "/q"), (21, "/q"), (22, "/p")):
            await seed.event(1, session=session, path=path, bot="agent" if session == 22 else None)

        found = await ask(
            seed, query("visits", "views_per_visit", "pageviews", filters=(Filter("path", "is", ("/p",)),))
        )

        assert found.rows == ((1, 20.0, 2),)
        assert found.meta["notes"] == [
            "visits, views_per_visit: of the visits with an event that matches the filters on path"
        ]

    async def test_one_event_must_match_all_event_filters(self, seed) -> None:
        """A visit that saw the page and bought elsewhere did not buy on the page."""
        await seed.visitor(1)
        await seed.link(50, "a")
        await seed.session(20, 1)
        await seed.event(1, session=20, path="/p", link=50)
        await seed.event(1, session=20, path="/q", kind="sale")

        def filters(*pairs: tuple[str, str]) -> tuple[Filter, ...]:
            return tuple(Filter(name, "is", (value,)) for name, value in pairs)

        assert await figures(seed, "visits", filters=filters(("path", "/p"), ("event_type", "sale"))) == (0,)
        assert await figures(seed, "visits", filters=filters(("path", "/q"), ("event_type", "sale"))) == (1,)
        assert await figures(seed, "visits", filters=filters(("link", "acme.test/a"), ("path", "/p"))) == (1,)


class TestTime:
    async def series(self, seed, interval: str, timezone: str, begin: str, end: str) -> list[tuple[str, int]]:
        asked = query(
            "pageviews",
            period=(seed.time(begin), seed.time(end)),
            timezone=timezone,
            dimensions=(f"time:{interval}",),
            limit=1,
        )
        return [(begin.isoformat(), count) for begin, count in (await ask(seed, asked)).rows]

    async def events(self, seed, *moments: str) -> None:
        await seed.visitor(1)
        for moment in moments:
            await seed.event(1, moment)

    async def test_empty_days_are_there(self, seed) -> None:
        """Every day of the period has a row, whatever the limit; ratios of empty days are 0."""
        await self.events(seed, "2026-11-02 10:00", "2026-11-04 10:00")
        await seed.session(20, 1, "2026-11-04 10:00")
        asked = query(
            "pageviews",
            "bounce_rate",
            "revenue_cents",
            period=(seed.time("2026-11-02"), seed.time("2026-11-05")),
            dimensions=("time:day",),
            limit=1,
        )

        assert (await ask(seed, asked)).rows == (
            (seed.time("2026-11-02"), 1, 0.0, {}),
            (seed.time("2026-11-03"), 0, 0.0, {}),
            (seed.time("2026-11-04"), 1, 100.0, {}),
        )

    async def test_tehran_days_begin_at_half_past_eight_utc(self, seed) -> None:
        """A zone of +03:30 cuts days and hours at its own half hours."""
        await self.events(seed, "2026-11-01 20:29:59", "2026-11-01 20:30", "2026-11-01 21:29:59")
        span = ("2026-11-01 00:00+03:30", "2026-11-03 00:00+03:30")

        assert await self.series(seed, "day", "Asia/Tehran", *span) == [
            ("2026-11-01T00:00:00+03:30", 1),
            ("2026-11-02T00:00:00+03:30", 2),
        ]
        assert await self.series(
            seed, "hour", "Asia/Tehran", "2026-11-01 23:00+03:30", "2026-11-02 01:00+03:30"
        ) == [
            ("2026-11-01T23:00:00+03:30", 1),
            ("2026-11-02T00:00:00+03:30", 2),
        ]

    async def test_repeated_hour_is_two_hours(self, seed) -> None:
        """When the clocks go back, both hours that are called two count apart."""
        await self.events(seed, "2026-10-25 00:30", "2026-10-25 01:30", "2026-10-25 01:45")

        assert await self.series(seed, "hour", "Europe/Berlin", "2026-10-25 00:00", "2026-10-25 03:00") == [
            ("2026-10-25T02:00:00+02:00", 1),
            ("2026-10-25T02:00:00+01:00", 2),
            ("2026-10-25T03:00:00+01:00", 0),
        ]

    async def test_skipped_hour_is_not_there(self, seed) -> None:
        """When the clocks go forward, there is no hour called two."""
        await self.events(seed, "2026-03-29 00:59", "2026-03-29 01:00")

        assert await self.series(seed, "hour", "Europe/Berlin", "2026-03-29 00:00", "2026-03-29 02:00") == [
            ("2026-03-29T01:00:00+01:00", 1),
            ("2026-03-29T03:00:00+02:00", 1),
        ]

    async def test_days_of_23_and_25_hours(self, seed) -> None:
        """The days around a change of clocks begin at their own midnights."""
        await self.events(seed, "2026-10-24 22:00", "2026-10-25 22:59", "2026-10-25 23:00")

        assert await self.series(seed, "day", "Europe/Berlin", "2026-10-24 22:00", "2026-10-26 23:00") == [
            ("2026-10-25T00:00:00+02:00", 2),
            ("2026-10-26T00:00:00+01:00", 1),
        ]

    async def test_day_without_a_midnight(self, seed) -> None:
        """Where the clocks skip midnight, the day begins at one."""
        await self.events(
            seed, "2026-04-23 21:59", "2026-04-23 22:00"
        )  # Cairo: 00:00 becomes 01:00 on 24 April

        assert await self.series(seed, "day", "Africa/Cairo", "2026-04-23 12:00", "2026-04-24 12:00") == [
            ("2026-04-23T00:00:00+02:00", 1),
            ("2026-04-24T01:00:00+03:00", 1),
        ]

    async def test_day_with_two_midnights(self, seed) -> None:
        """Where the clocks go back to midnight, the day begins at the first one, also for a period that begins after the second."""
        await self.events(seed, "2026-11-01 05:30")  # Havana: 01:00 becomes 00:00 on 1 November

        assert await self.series(seed, "day", "America/Havana", "2026-11-01 05:15", "2026-11-01 12:00") == [
            ("2026-11-01T00:00:00-04:00", 1),
        ]

    async def test_zone_that_shifts_by_half_an_hour(self, seed) -> None:
        """On Lord Howe Island the hour of the change is an hour and a half long."""
        await self.events(seed, "2026-04-04 14:00", "2026-04-04 15:29", "2026-04-04 15:30")

        assert await self.series(
            seed, "hour", "Australia/Lord_Howe", "2026-04-04 14:00", "2026-04-04 16:00"
        ) == [
            ("2026-04-05T01:00:00+11:00", 2),
            ("2026-04-05T02:00:00+10:30", 1),
        ]

    async def test_zone_that_skipped_a_date(self, seed) -> None:
        """Samoa had no 30 December 2011."""
        await self.events(seed, "2011-12-30 09:59", "2011-12-30 10:00")

        assert await self.series(seed, "day", "Pacific/Apia", "2011-12-29 12:00", "2011-12-31 09:00") == [
            ("2011-12-29T00:00:00-10:00", 1),
            ("2011-12-31T00:00:00+14:00", 1),
        ]

    async def test_weeks_begin_on_monday_and_months_on_the_first(self, seed) -> None:
        """Parts at either end are whole weeks and months by name; only what is in the period counts."""
        await self.events(
            seed, "2026-10-26 10:00", "2026-10-31 10:00", "2026-11-01 10:00", "2026-11-02 10:00"
        )
        span = ("2026-10-30", "2026-11-03")

        assert await self.series(seed, "week", "UTC", *span) == [
            ("2026-10-26T00:00:00+00:00", 2),
            ("2026-11-02T00:00:00+00:00", 1),
        ]
        assert await self.series(seed, "month", "UTC", *span) == [
            ("2026-10-01T00:00:00+00:00", 1),
            ("2026-11-01T00:00:00+00:00", 2),
        ]

    async def test_ranking_of_days(self, seed) -> None:
        """Ordered by a metric, days are a ranking: no empty ones, cut to the limit."""
        await self.events(
            seed, "2026-11-02 10:00", "2026-11-04 10:00", "2026-11-04 11:00", "2026-11-09 10:00"
        )

        found = await rows(
            seed, "pageviews", dimensions=("time:day",), order_by=(("pageviews", "desc"),), limit=2
        )

        assert found == [(seed.time("2026-11-04"), 2), (seed.time("2026-11-02"), 1)]

    async def test_time_beside_another_dimension(self, seed) -> None:
        """With a second dimension only the rows that there are come, oldest first."""
        await seed.visitor(1)
        for moment, path in (("2026-11-04", "/a"), ("2026-11-02", "/b"), ("2026-11-02", "/a")):
            await seed.event(1, moment, path=path)

        assert await rows(seed, "pageviews", dimensions=("path", "time:day")) == [
            ("/a", seed.time("2026-11-02"), 1),
            ("/b", seed.time("2026-11-02"), 1),
            ("/a", seed.time("2026-11-04"), 1),
        ]

    async def test_too_many_buckets_are_refused(self, seed) -> None:
        """A year of hours is refused with a cure, not truncated."""
        asked = query(
            "visitors", period=(seed.time("2026-01-01"), seed.time("2027-01-01")), dimensions=("time:hour",)
        )

        with pytest.raises(InvalidInput, match="more than 5,000"):
            await ask(seed, asked)


class TestDoors:
    async def test_realtime_is_the_last_five_minutes(self, seed) -> None:
        """Who did something this very moment is here; who did it five minutes ago is not."""
        for number, moment in ((1, "10:00:00"), (2, "10:00:01"), (3, "10:05:00"), (4, "10:05:01")):
            await seed.visitor(number)
            await seed.event(number, f"2026-11-02 {moment}")
        await seed.visitor(5, of=3)
        await seed.event(5, "2026-11-02 10:04:00")

        async with seed.database.connect() as conn:
            now = seed.time("2026-11-02 10:05")
            found = await metrics.realtime(conn, seed.database.tables, seed.workspace_id, now)

        assert found == {"visitors": 2}

    async def test_totals_series_and_top_are_run(self, seed) -> None:
        """The short ways ask the same question with other dimensions."""
        await seed.visitor(1)
        for path in ("/a", "/b", "/b"):
            await seed.event(1, path=path)
        asked = query("pageviews", period=(seed.time("2026-11-02"), seed.time("2026-11-04")))

        async with seed.database.connect() as conn:
            door = (conn, seed.database.tables, seed.workspace_id, asked)
            assert await metrics.totals(*door) == {"pageviews": 3}
            assert (await metrics.timeseries(*door, "day")).rows == (
                (seed.time("2026-11-02"), 3),
                (seed.time("2026-11-03"), 0),
            )
            assert (await metrics.top(*door, "path", limit=1)).rows == (("/b", 2),)


def test_every_metric_is_defined_once() -> None:
    """The names that a query takes are those that `metrics` counts."""
    assert (set(OF_EVENTS), set(OF_VISITS)) == (set(EVENT_METRICS), set(VISIT_METRICS))


@pytest.mark.parametrize("metric", VISIT_METRICS)
@pytest.mark.parametrize("dimension", EVENT_DIMENSIONS)
def test_visits_are_not_grouped_by_facts_of_events(metric: str, dimension: str) -> None:
    """A visit with two pages would count under both: refused, with what to ask instead."""
    with pytest.raises(InvalidInput, match="would count under each"):
        query(metric, dimensions=(dimension,))


@pytest.mark.parametrize(
    ("options", "where", "says"),
    [
        pytest.param({"metrics": ("visitor",)}, "metrics", "Known ones: visitors, ", id="unknown metric"),
        pytest.param({"metrics": ()}, "metrics", "Ask for some of: visitors, ", id="no metric"),
        pytest.param({"metrics": ("visits", "visits")}, "metrics", "given twice", id="metric twice"),
        pytest.param(
            {"dimensions": ("page",)}, "dimensions", "Known ones: time:hour, ", id="unknown dimension"
        ),
        pytest.param({"dimensions": ("time:day", "time:hour")}, "dimensions", "two times", id="two times"),
        pytest.param(
            {"order_by": (("pageviews", "asc"),)},
            "order_by",
            "Known ones: visitors",
            id="order by what is not asked",
        ),
        pytest.param(
            {"order_by": (("visitors", "up"),)}, "order_by", "Known ones: asc, desc", id="unknown direction"
        ),
        pytest.param({"timezone": "Mars/Olympus"}, "timezone", "IANA", id="unknown zone"),
        pytest.param({"timezone": "../../etc/passwd"}, "timezone", "IANA", id="a path is no zone"),
        pytest.param({"timezone": "nul\0"}, "timezone", "IANA", id="NUL in a zone"),
        pytest.param({"timezone": "Europe"}, "timezone", "IANA", id="a directory is no zone"),
        pytest.param({"timezone": ""}, "timezone", "IANA", id="empty zone"),
        pytest.param({"limit": 0}, "limit", "use 1 to 10,000", id="no rows"),
        pytest.param({"limit": 10_001}, "limit", "use 1 to 10,000", id="too many rows"),
        pytest.param({"period": NOVEMBER[::-1]}, "period", "not after it starts", id="ends first"),
        pytest.param(
            {"period": (NOVEMBER[0], NOVEMBER[0])}, "period", "not after it starts", id="empty period"
        ),
        pytest.param(
            {"period": (datetime(2026, 1, 1), datetime(2026, 2, 1))},  # noqa: DTZ001  # the case
            "period",
            "no time zone",
            id="naive period",
        ),
        pytest.param(
            {"period": (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=9))), NOVEMBER[0])},
            "period",
            "calendar",
            id="year 0",
        ),
        pytest.param(
            {"metrics": ("visits",), "dimensions": ("path",)},
            "dimensions",
            "cannot be grouped by path",
            id="visits by page",
        ),
        pytest.param(
            {"metrics": ("conversion_rate",), "dimensions": ("path",)},
            "metrics",
            "cannot be told by path",
            id="rate by page",
        ),
        pytest.param(
            {"metrics": ("conversion_rate",), "filters": (Filter("city", "is", ("Berlin",)),)},
            "metrics",
            "cannot be told by city",
            id="rate filtered by an event's fact",
        ),
        pytest.param(
            {"metrics": ("revenue_cents",), "order_by": (("revenue_cents", "desc"),)},
            "order_by",
            "Add the dimension currency",
            id="order by several currencies",
        ),
    ],
)
def test_questions_without_a_right_answer_are_refused(options: dict[str, Any], where: str, says: str) -> None:
    """A question is checked when it is made, and the refusal says what to ask instead."""
    with pytest.raises(InvalidInput) as refused:
        query(**({"metrics": ("visitors",)} | options))

    assert (refused.value.where, says in str(refused.value)) == (where, True)


@pytest.mark.parametrize(
    ("dimension", "op", "values", "says"),
    [
        pytest.param("page", "is", ("/",), "Known ones: source, ", id="unknown dimension"),
        pytest.param("time:day", "is", ("2026-11-02",), "Known ones: source, ", id="a time"),
        pytest.param("path", "like", ("/",), "Known ones: is, is_not, ", id="unknown operator"),
        pytest.param("path", "is", (), "give 1 to 100", id="no value"),
        pytest.param("path", "is", ("/",) * 101, "give 1 to 100", id="too many values"),
        pytest.param("path", "contains", (None,), "takes texts", id="contains nothing"),
        pytest.param("path", "is", ("a\0",), "without NUL", id="NUL"),
        pytest.param("path", "is", ("x" * 2_084,), "up to 2083", id="too long"),
        pytest.param("path", "is", (7,), "takes texts", id="a number"),
    ],
)
def test_filters_that_mean_nothing_are_refused(dimension: str, op: Any, values: Any, says: str) -> None:
    """A filter is checked when it is made; none is silently dropped, which would widen the answer."""
    with pytest.raises(InvalidInput, match=says) as refused:
        Filter(dimension, op, values)

    assert refused.value.where == "filters"


def test_period_is_kept_in_utc() -> None:
    """Periods given in any zone are the same period."""
    local = tuple(moment.astimezone(timezone(timedelta(hours=-7))) for moment in NOVEMBER)

    assert query("visitors", period=local) == query("visitors")
