"""People as they are read: folded, listed once, with everything that any of their browsers did."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import insert
from sqlalchemy.event import listen

from goodanalytics.errors import InvalidInput, NotFound
from goodanalytics.store import visitors

GOOGLE = {"platform": "google", "medium": "organic", "confidence": "medium"}
NEWS = {"platform": "news", "medium": "email", "confidence": "medium"}
OTHER_WORKSPACE = UUID(int=8)


def uid(number: int) -> UUID:
    return UUID(int=number)


async def read(seed, function, *values: Any, **options: Any) -> Any:
    async with seed.database.connect() as conn:
        return await function(conn, seed.database.tables, seed.workspace_id, *values, **options)


async def listed(seed, **options: Any) -> list[int]:
    return [person.id.int for person in (await read(seed, visitors.list_visitors, **options)).items]


async def pages(seed, function, *values: Any, **options: Any) -> list[list[UUID]]:
    """The ids of every page of a list of at most 20 pages."""
    found, after = [], None
    while len(found) < 20:
        page = await read(seed, function, *values, after=after, **options)
        found.append([item.id for item in page.items])
        after = page.next_cursor
        if after is None:
            return found
    raise AssertionError(f"the pages never end: {found}")


class TestGet:
    async def test_any_member_names_the_person(self, seed) -> None:
        """The loser's id and the winner's find the same fold."""
        await seed.visitor(1, total_events=2, ltv={"EUR": 500})
        await seed.visitor(2, of=1, total_events=3, ltv={"EUR": 20, "USD": 1}, email="ann@acme.test")

        found = await read(seed, visitors.get_many, [uid(1), uid(2), uid(3)])

        assert set(found) == {uid(1), uid(2)}
        assert found[uid(1)] == found[uid(2)]
        assert (found[uid(2)].id, found[uid(2)].total_events, found[uid(2)].ltv, found[uid(2)].email) == (
            uid(1),
            5,
            {"EUR": 520, "USD": 1},
            "ann@acme.test",
        )

    async def test_nobody(self, seed) -> None:
        """An unknown id is nobody, not an error."""
        assert await read(seed, visitors.get, uid(1)) is None

    async def test_workspaces_are_apart(self, seed) -> None:
        """An id of another workspace is nobody."""
        await seed.visitor(1, workspace_id=OTHER_WORKSPACE)

        assert await read(seed, visitors.get, uid(1)) is None

    async def test_more_ids_than_the_protocol_binds(self, seed) -> None:
        """PostgreSQL takes 32,767 values in a statement; a longer list is still answered."""
        await seed.visitor(40_000)

        assert set(await read(seed, visitors.get_many, map(uid, range(1, 40_001)))) == {uid(40_000)}

    async def test_row_is_plain_json(self, seed) -> None:
        """What is read can be encoded as it is."""
        await seed.visitor(1, first_source=GOOGLE, first_source_at=datetime(2026, 11, 1, tzinfo=UTC))

        person = await read(seed, visitors.get, uid(1))

        assert msgspec.json.decode(msgspec.json.encode(person))["first_source"] == GOOGLE


class TestByExternalId:
    async def identity(self, seed, value: str, visitor: int, kind: str = "external_id") -> None:
        row = {
            "kind": kind,
            "value": value,
            "visitor_id": uid(visitor),
            "first_seen_at": seed.time("2026-11-02"),
        }
        await seed.put(seed.database.tables.identities, row)

    async def test_host_name_finds_the_merged_person(self, seed) -> None:
        """The identity may belong to any member."""
        await seed.visitor(1)
        await seed.visitor(2, of=1)
        await self.identity(seed, "user-9", 2)

        assert (await read(seed, visitors.by_external_id, "user-9")).id == uid(1)

    @pytest.mark.parametrize("value", ["user-9", "nobody", "x' OR '1'='1", "nul\0"])
    async def test_only_external_ids_count(self, seed, value: str) -> None:
        """A cookie of the same text is somebody else, and hostile texts are nobody."""
        await seed.visitor(1)
        await self.identity(seed, "user-9", 1, kind="anonymous_id")

        assert await read(seed, visitors.by_external_id, value) is None


class TestList:
    async def test_person_stands_once_where_the_latest_member_was_seen(self, seed) -> None:
        """A merged person is listed once, by the last time any of its browsers was seen."""
        await seed.visitor(1, seen="2026-11-01 08:00")
        await seed.visitor(2, seen="2026-11-02 08:00")
        await seed.visitor(3, of=1, seen="2026-11-03 08:00")
        await seed.visitor(4, seen="2026-10-30 08:00")

        people = (await read(seed, visitors.list_visitors)).items

        assert [person.id.int for person in people] == [1, 2, 4]
        assert [person.last_seen_at.day for person in people] == [3, 2, 30]

    @pytest.mark.parametrize("limit", [1, 2, 3, 7])
    async def test_pages_hold_everyone_once(self, seed, limit: int) -> None:
        """Walking the pages meets every person once, also those seen in the same microsecond."""
        for number in range(1, 7):
            await seed.visitor(number, seen="2026-11-02 08:00")
        await seed.visitor(7, of=3, seen="2026-11-02 08:00")

        found = await pages(seed, visitors.list_visitors, limit=limit)

        assert [one.int for page in found for one in page] == [3, 6, 5, 4, 2, 1]
        assert max(len(page) for page in found) <= limit

    async def test_newcomer_moves_nobody(self, seed) -> None:
        """Who arrives between two pages neither repeats nor hides anyone on the second."""
        for number in range(1, 5):
            await seed.visitor(number, seen=f"2026-11-0{number} 08:00")
        first = await read(seed, visitors.list_visitors, limit=2)
        await seed.visitor(9, seen="2026-11-09 08:00")

        assert await listed(seed, after=first.next_cursor) == [2, 1]

    async def test_bots_are_left_out_unless_asked_for(self, seed) -> None:
        """Only who is a bot on every browser is one."""
        await seed.visitor(1, bot="agent")
        await seed.visitor(2, bot="agent")
        await seed.visitor(3, of=2)

        assert await listed(seed) == [2]
        assert sorted(await listed(seed, include_bots=True)) == [1, 2]

    async def test_status_is_of_the_whole_person(self, seed) -> None:
        """A customer's other browser, still anonymous, does not make them anonymous."""
        await seed.visitor(1)
        await seed.visitor(2, of=1, status="customer")
        await seed.visitor(3)

        assert await listed(seed, status="customer") == [1]
        assert await listed(seed, status="anonymous") == [3]

    @pytest.mark.parametrize(
        ("search", "expected"),
        [
            pytest.param("ANN@", [1], id="e-mail, any case, of a member"),
            pytest.param("  Smith ", [2], id="name, without spaces around"),
            pytest.param("user-9", [2], id="external id"),
            pytest.param("555", [2], id="phone"),
            pytest.param(str(UUID(int=2)), [2], id="id"),
            pytest.param("100%", [4], id="a per cent sign is itself"),
            pytest.param("a_b", [4], id="an underscore is itself"),
            pytest.param("/", [4], id="the escape character is itself"),
            pytest.param("\\", [], id="a backslash is itself"),
            pytest.param("'; DROP TABLE visitors; --", [], id="SQL is text"),
            pytest.param("  ", [2, 4, 1], id="nothing searches nothing"),
        ],
    )
    async def test_search(self, seed, search: str, expected: list[int]) -> None:
        """Any member's name, e-mail, phone, external id or id, as plain text."""
        await seed.visitor(1, seen="2026-11-01")
        await seed.visitor(3, of=1, seen="2026-10-01", email="Ann@acme.test")
        await seed.visitor(2, seen="2026-11-03", name="John Smith", external_id="user-9", phone="+49 555")
        await seed.visitor(4, seen="2026-11-02", name="100% a_b /")

        assert await listed(seed, search=search) == expected

    @pytest.mark.parametrize(
        ("options", "where"),
        [
            ({"limit": 0}, "limit"),
            ({"limit": 201}, "limit"),
            ({"status": "king"}, "status"),
            ({"search": "x" * 201}, "search"),
            ({"search": "nul\0"}, "search"),
            ({"after": ""}, "cursor"),
        ],
    )
    async def test_refusals_say_where(self, seed, options: dict[str, Any], where: str) -> None:
        """A value out of its bounds is refused by name."""
        with pytest.raises(InvalidInput) as refused:
            await listed(seed, **options)

        assert refused.value.where == where

    async def test_other_workspaces_are_not_listed(self, seed) -> None:
        """Two workspaces may even use the same ids."""
        await seed.visitor(1, name="ours")
        await seed.visitor(1, name="theirs", workspace_id=OTHER_WORKSPACE, seen="2026-11-05")

        assert [person.name for person in (await read(seed, visitors.list_visitors)).items] == ["ours"]


def packed(*parts: Any) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(parts)).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "cursor",
    [
        pytest.param("%%%", id="no base64"),
        pytest.param("ünïcode", id="no ASCII"),
        pytest.param("A", id="cut"),
        pytest.param(packed("visitors"), id="too short"),
        pytest.param(packed("visitors", "2026-11-02T00:00:00", str(UUID(int=1))), id="a time without a zone"),
        pytest.param(
            packed("visitors", "0001-01-01T00:00:00+14:00", str(UUID(int=1))), id="before the calendar"
        ),
        pytest.param(packed("visitors", "2026-11-02T00:00:00Z", "1; DROP TABLE"), id="no id"),
        pytest.param(packed("newest", "2026-11-02T00:00:00Z", str(UUID(int=1))), id="of another list"),
        pytest.param("A" * 100_000, id="huge"),
    ],
)
async def test_malformed_cursor_is_refused(seed, cursor: str) -> None:
    """A cursor comes back from a browser: whatever it is, it is refused in words."""
    with pytest.raises(InvalidInput, match="is no cursor of this list") as refused:
        await listed(seed, after=cursor)

    assert refused.value.where == "cursor"


class TestTimeline:
    async def test_all_members_in_one_order(self, seed) -> None:
        """A person's browsers are told as one story."""
        await seed.visitor(1)
        await seed.visitor(2, of=1)
        await seed.visitor(3)
        told = [
            await seed.event(1, "2026-11-02 10:00"),
            await seed.event(2, "2026-11-02 10:01"),
            await seed.event(1, "2026-11-02 10:02"),
        ]
        await seed.event(3, "2026-11-02 10:01")

        assert await pages(seed, visitors.timeline, uid(2), newest_first=False) == [told]
        assert await pages(seed, visitors.timeline, uid(1)) == [told[::-1]]

    @pytest.mark.parametrize("newest_first", [True, False])
    @pytest.mark.parametrize("limit", [1, 2, 5, 9])
    async def test_pages_hold_every_event_once(self, seed, limit: int, newest_first: bool) -> None:
        """Walking the pages meets every event once, in order, also events of the same microsecond and across months."""
        await seed.visitor(1)
        await seed.visitor(2, of=1)
        told = [await seed.event(1 + n % 2, "2026-11-02 10:00") for n in range(6)]
        told += [await seed.event(1, "2026-12-02 10:00"), await seed.event(2, "2027-02-02 10:00")]

        found = await pages(seed, visitors.timeline, uid(1), limit=limit, newest_first=newest_first)

        assert [one for page in found for one in page] == (told[::-1] if newest_first else told)

    async def test_entry_holds_what_the_page_shows(self, seed) -> None:
        """An entry carries its visit, source, short link, money and device."""
        await seed.visitor(1)
        await seed.link(50, "sale", archived_at=seed.time("2026-11-03"))
        facts = {
            "event_name": "Order",
            "url": "https://acme.test/thanks",
            "path": "/thanks",
            "title": "Thanks",
            "referrer": "https://acme.test/cart",
            "source": "google",
            "medium": "organic",
            "channel": "organic search",
            "campaign": "spring",
            "click_id": uid(60),
            "amount_cents": 4_999,
            "currency": "EUR",
            "trusted": False,
            "origin": "browser",
            "engaged_ms": 1_200,
            "scroll_depth": 80,
            "key": "order-1",
            "properties": {"plan": "pro", "seats": 3},
            "device_type": "mobile",
            "browser": "Firefox",
            "os": "Android",
            "country": "DE",
            "region": "BE",
            "city": "Berlin",
            "bot": None,
        }
        event_id = await seed.event(1, "2026-11-02 10:00", "sale", session=20, link=50, **facts)

        (entry,) = (await read(seed, visitors.timeline, uid(1))).items

        assert msgspec.structs.asdict(entry) == facts | {
            "id": event_id,
            "visitor_id": uid(1),
            "session_id": uid(20),
            "occurred_at": seed.time("2026-11-02 10:00"),
            "event_type": "sale",
            "link": "acme.test/sale",
        }

    async def test_nobody_has_no_timeline(self, seed) -> None:
        """An unknown id is an error here; a person without events has an empty page."""
        await seed.visitor(1)

        assert (await read(seed, visitors.timeline, uid(1))).items == ()
        with pytest.raises(NotFound):
            await read(seed, visitors.timeline, uid(2))

    async def test_cursor_of_the_other_direction_is_refused(self, seed) -> None:
        """A cursor knows which way it was going."""
        await seed.visitor(1)
        await seed.event(1)
        await seed.event(1)
        page = await read(seed, visitors.timeline, uid(1), limit=1)

        with pytest.raises(InvalidInput, match="is no cursor"):
            await read(seed, visitors.timeline, uid(1), after=page.next_cursor, newest_first=False)


class TestAttribution:
    async def test_path_is_every_visit_of_every_member(self, seed) -> None:
        """Visits of all browsers make one path, oldest first; a bot's do not."""
        touched = {"first_source_at": seed.time("2026-11-01"), "last_source_at": seed.time("2026-11-03")}
        await seed.visitor(1, first_source=GOOGLE, first_click_id=uid(60), last_source=NEWS, **touched)
        await seed.visitor(2, of=1)
        await seed.session(21, 2, "2026-11-03 10:00", acquisition=NEWS)
        await seed.session(20, 1, "2026-11-01 10:00", acquisition=GOOGLE, click_id=uid(60))
        await seed.session(22, 1, "2026-11-02 10:00", acquisition=GOOGLE, bot="agent")

        found = await read(seed, visitors.attribution, uid(2))

        assert [(touch.session_id.int, touch.source, touch.click_id) for touch in found.attribution_path] == [
            (20, GOOGLE, uid(60)),
            (21, NEWS, None),
        ]
        assert (found.first_source, found.last_source, found.first_click_id, found.last_click_id) == (
            GOOGLE,
            NEWS,
            uid(60),
            None,
        )

    async def test_conversions_credit_the_visits_begun_by_then(self, seed) -> None:
        """A sale thanks the visits before it, a later campaign does not take it; a lead before any visit thanks nobody."""
        await seed.visitor(1)
        await seed.session(20, 1, "2026-11-02 10:00", acquisition=GOOGLE)
        await seed.session(21, 1, "2026-11-03 10:00")
        await seed.session(22, 1, "2026-11-04 10:00", acquisition=NEWS)
        await seed.event(1, "2026-11-01 10:00", "lead")
        await seed.event(1, "2026-11-02 10:00", "lead")
        await seed.event(1, "2026-11-03 10:00", "sale", amount_cents=100, currency="EUR")
        await seed.event(1, "2026-11-05 10:00", "sale", amount_cents=100, currency="EUR")
        await seed.event(1, "2026-11-05 10:00", "pageview")
        await seed.event(1, "2026-11-05 11:00", "sale", bot="agent")

        found = await read(seed, visitors.attribution, uid(1))

        assert [
            (
                one.event.event_type,
                one.event.occurred_at.day,
                one.first and one.first.session_id.int,
                one.last and one.last.session_id.int,
            )
            for one in found.conversions
        ] == [("lead", 1, None, None), ("lead", 2, 20, 20), ("sale", 3, 20, 20), ("sale", 5, 20, 22)]

    async def test_it_is_plain_json(self, seed) -> None:
        """REST sends it as it is."""
        await seed.visitor(1)
        await seed.session(20, 1, acquisition=GOOGLE)

        sent = msgspec.json.decode(msgspec.json.encode(await read(seed, visitors.attribution, uid(1))))

        assert sent["attribution_path"] == [
            {"at": "2026-11-02T10:00:00Z", "source": GOOGLE, "session_id": str(uid(20)), "click_id": None}
        ]

    async def test_nobody_has_no_attribution(self, seed) -> None:
        """An unknown id is an error."""
        with pytest.raises(NotFound):
            await read(seed, visitors.attribution, uid(1))


class TestWhy:
    async def test_everything_that_joins_a_person(self, seed) -> None:
        """Members, identities, the merges between them, and the conflicts that any of them is part of."""
        t, early, late = seed.database.tables, seed.time("2026-11-01"), seed.time("2026-11-02")
        await seed.visitor(1, seen="2026-11-01")
        await seed.visitor(2, of=1, seen="2026-11-02", email="ann@acme.test")
        await seed.visitor(3)
        for kind, value, visitor, seen in (
            ("anonymous_id", "b", 2, late),
            ("anonymous_id", "a", 1, early),
            ("email", "ann@acme.test", 2, late),
            ("anonymous_id", "c", 3, late),
        ):
            await seed.put(
                t.identities,
                {"kind": kind, "value": value, "visitor_id": uid(visitor), "first_seen_at": seen},
            )
        merge = {
            "id": uid(70),
            "loser_id": uid(2),
            "winner_id": uid(1),
            "loser_member_id": uid(2),
            "winner_member_id": uid(1),
            "evidence": {"kinds": ["email"]},
            "hit_id": uid(80),
        }
        await seed.put(t.merges, merge | {"merged_at": late})
        conflict = {"hit_id": uid(81), "visitor_id": uid(3), "other_id": uid(2), "reason": "two external ids"}
        await seed.put(t.conflicts, conflict | {"seen_at": late})

        found = await read(seed, visitors.why, uid(2))

        assert found.canonical_id == uid(1)
        assert [(member["id"].int, member["email"]) for member in found.members] == [
            (1, None),
            (2, "ann@acme.test"),
        ]
        assert [(one["kind"], one["value"], one["visitor_id"].int) for one in found.identities] == [
            ("anonymous_id", "a", 1),
            ("anonymous_id", "b", 2),
            ("email", "ann@acme.test", 2),
        ]
        by_hand = dict.fromkeys(("actor", "reason", "undone_at", "undone_by", "undone_reason"))
        assert found.merges == [merge | {"merged_at": late} | by_hand]
        assert found.conflicts == [conflict | {"seen_at": late}]
        assert msgspec.json.encode(found)

    async def test_strangers_share_nothing(self, seed) -> None:
        """A person without merges is explained by its own identities alone."""
        await seed.visitor(3)

        found = await read(seed, visitors.why, uid(3))

        assert (len(found.members), found.identities, found.merges, found.conflicts) == (1, [], [], [])


async def test_list_walks_the_index_of_last_seen(seed) -> None:
    """A page of many people walks visitors_last_seen from where the last one ended, and sorts no table."""
    t, first = seed.database.tables, seed.time("2026-11-01")
    rows = [
        {"id": uid(n), "canonical_id": uid(n), "first_seen_at": seen, "last_seen_at": seen}
        for n in range(1, 3_001)
        for seen in [first + timedelta(seconds=n)]
    ]
    same = {"status": "anonymous", "traits": {}, "geo": {}, "device": {}, "platform_signals": {}, "ltv": {}}
    counts = {"workspace_id": seed.workspace_id, "total_sessions": 0, "total_pageviews": 0, "total_events": 0}
    async with seed.database.begin() as conn:
        await conn.execute(insert(t.visitors), [row | same | counts for row in rows])
    async with seed.database.begin() as conn:
        await conn.exec_driver_sql(f"ANALYZE {t.schema}.visitors")
    after = (await read(seed, visitors.list_visitors, limit=100)).next_cursor

    async with seed.database.connect() as conn:
        asked = []
        listen(
            conn.sync_connection,
            "before_cursor_execute",
            lambda _c, _k, sql, values, *_: asked.append((sql, values)),
        )
        await visitors.list_visitors(conn, t, seed.workspace_id, limit=20, after=after)
        sql, values = asked[0]
        plan = "\n".join(row[0] for row in await conn.exec_driver_sql(f"EXPLAIN {sql}", values))

    assert "visitors_last_seen" in plan
    assert "Seq Scan" not in plan
