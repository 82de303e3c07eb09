"""`analytics.platforms`: switching, storing, listing and trying out, and what none of it may tell."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from goodanalytics.errors import ConfigError, Conflict, InvalidInput, NotFound
from goodanalytics.platforms import Google, GoogleAds, Meta
from goodanalytics.store import outbox

TOKEN = "EAAB-a-token-that-nobody-may-see"


async def test_the_list_says_what_is_stored_what_is_missing_and_how_it_goes(opened, bells):
    """Names of credentials, never their values."""
    house = await opened(bells["bell"](secrets=frozenset({"token", "pixel_id"})))
    await house.analytics.platforms.drop_credentials("bell", ["pixel_id"])
    await house.sell("A1", "A2")
    (status,) = await house.analytics.platforms.list()

    assert (status.name, status.enabled, status.missing) == ("bell", True, ("pixel_id",))
    assert [*status.credentials] == ["token"]
    assert status.dispatches == {"pending": 2}
    assert "a-secret-of-bell" not in repr(status)


async def test_no_value_can_be_read_anywhere(house):
    """Not in any row of any table, nor in the audit; the audit says who stored which name."""
    await house.analytics.platforms.store_credential("bell", "token", TOKEN, actor="ann")
    for table in house.analytics.database.tables:
        rows = await house.ask(f"SELECT x::text FROM {table} x")
        assert [row for (row,) in rows if TOKEN in row or TOKEN.encode().hex() in row] == []

    noted = await house.ask("SELECT actor, subject, details FROM audit WHERE actor = 'ann'")
    assert noted == [("ann", "bell", {"names": ["token"]})]


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("token", "", "token is empty"),
        ("token", " \n", "token is empty"),
        ("token", "x" * 20_000, "longer than"),
        ("to ken", "x", "write one such as access_token"),
    ],
    ids=["empty", "blank", "too long", "no name"],
)
async def test_a_credential_that_cannot_be_one_is_refused(house, name, value, cure):
    """The value is not repeated."""
    with pytest.raises(InvalidInput, match=cure):
        await house.analytics.platforms.store_credential("bell", name, value)


@pytest.mark.parametrize("act", ["enable", "disable", "test", "drop_credentials"])
async def test_an_unknown_platform_is_named_with_those_that_there_are(house, act):
    """A typing error must not look like success."""
    with pytest.raises(InvalidInput, match="no platform 'bel'; the settings have bell"):
        await getattr(house.analytics.platforms, act)("bel")


class TestDispatches:
    async def test_pages_lead_from_the_newest_to_the_oldest(self, house):
        """Each one is on one page."""
        for number in range(5):
            await house.sell(f"A{number}")
            house.clock.advance(timedelta(minutes=1))
        first = await house.analytics.platforms.dispatches(limit=3)
        second = await house.analytics.platforms.dispatches(limit=3, cursor=first.next_cursor)

        times = [d.occurred_at for d in (*first.items, *second.items)]
        assert len(times) == 5
        assert times == sorted(times, reverse=True)
        assert second.next_cursor is None

    async def test_they_can_be_narrowed_down(self, house, exchange, say):
        """By target, state and event."""
        exchange.then(say(A2={"status": "permanent", "code": "bad"}))
        await house.sell("A1", "A2")
        await house.deliver()
        find = house.analytics.platforms.dispatches
        (dead,) = (await find(state="dead")).items

        assert (dead.reason, dead.code) == ("bad", "bad")
        assert (await find(event=dead.event_id)).items == (dead,)
        assert (await find(target="nobody")).items == ()
        with pytest.raises(InvalidInput, match="it can be pending"):
            await find(state="broken")

    async def test_another_workspace_sees_and_replays_none(self, house):
        """Not even with the id at hand."""
        await house.sell("A1")
        await house.deliver()
        found = await house.dispatch("A1")
        other = {"workspace_id": UUID(int=99)}

        assert await house.analytics.platforms.dispatch(found.id, **other) is None
        assert (await house.analytics.platforms.dispatches(**other)).items == ()
        with pytest.raises(NotFound):
            await house.analytics.platforms.replay(found.id, **other)

    async def test_as_json_it_shows_which_keys_went_along(self, house):
        """Each with a tick, none with its value."""
        await house.analytics.identify(house.visitor, email="ada@shop.example")
        await house.sell("A1")
        told = (await house.dispatch("A1")).to_json()

        assert told["shown"]["match_keys"] == ["email ✓"]
        assert told["state"] == "pending"
        assert "ada@" not in str(told)

    async def test_all_that_died_can_be_sent_again(self, house, exchange, say):
        """Once the cause is mended; those that were delivered stay."""
        exchange.then(
            say(A1={"status": "permanent", "code": "bad"}, A3={"status": "permanent", "code": "bad"})
        )
        await house.sell("A1", "A2", "A3")
        await house.deliver()
        assert await house.analytics.platforms.replay_all(target="bell") == 2
        await house.deliver()

        assert exchange.heard == [["A1", "A2", "A3"], ["A1", "A3"]]
        assert await house.analytics.platforms.replay_all() == 0

    async def test_what_is_asked_for_in_parts_has_one_turn_each(self, house):
        """What was sent again between two parts is not in the next one, which would be asked for without end."""
        await house.sell("A1", "A2")
        await house.deliver()
        asked = house.clock.now
        parts = []
        for _ in range(2):
            async with house.analytics.database.begin() as conn:
                tables, workspace = house.analytics.database.tables, house.analytics.config.workspace
                part = await outbox.replay(conn, tables, workspace, asked, states=["delivered"])
            parts.append(len(part))
            house.clock.advance(timedelta(seconds=1))
            await house.deliver()

        assert parts == [2, 0]


async def test_coverage_counts_match_keys_of_what_was_told(house):
    """Of three sales, two know an e-mail."""
    await house.sell("A1")
    await house.analytics.identify(house.visitor, email="ada@shop.example")
    await house.sell("A2", "A3")
    (found,) = await house.analytics.platforms.coverage(until=house.clock.now + timedelta(hours=1))

    assert (found.target, found.dispatches, found.keys) == ("bell", 3, {"email": 2})
    assert found.share("email") == pytest.approx(2 / 3)


async def test_deliveries_are_counted_by_the_hour(house, exchange, say):
    """Two delivered and one given up in this hour, one delivered in the next."""
    exchange.then(say(A3={"status": "permanent", "code": "bad"}))
    await house.sell("A1", "A2", "A3")
    await house.deliver()
    hour = house.clock.now
    await house.sell("A4")
    await house.after(hours=1)
    found = await house.analytics.platforms.by_hour(until=house.clock.now + timedelta(hours=1))

    assert [tuple(each) for each in found] == [
        (hour, "bell", "dead", 1),
        (hour, "bell", "delivered", 2),
        (hour + timedelta(hours=1), "bell", "delivered", 1),
    ]


class TestTryingOut:
    async def test_an_invented_sale_goes_out_in_test_mode_and_nothing_is_kept(self, house, exchange):
        """With the stored credentials and the code of the platform's own test page."""
        verdict = await house.analytics.platforms.test("bell", "TEST123")

        assert verdict.status == "delivered"
        assert exchange.bodies[0]["test"] == "TEST123"
        assert exchange.bodies[0]["secrets"] == {"token": "a-secret-of-bell"}
        assert await house.ask("SELECT count(*) FROM dispatches") == [(0,)]

    async def test_it_says_what_the_platform_said(self, house, exchange, say):
        """A refused credential pauses nothing: it was a question."""
        exchange.then(say(401, everybody={"status": "credential", "code": "190"}))
        verdict = await house.analytics.platforms.test("bell")
        (status,) = await house.analytics.platforms.list()

        assert (verdict.status, verdict.code, status.paused_reason) == ("credential", "190", None)

    async def test_missing_credentials_are_named(self, house):
        """Nothing is sent without them."""
        await house.analytics.platforms.drop_credentials("bell")
        with pytest.raises(Conflict, match="missing token"):
            await house.analytics.platforms.test("bell")

    async def test_a_workspace_may_send_everything_in_test_mode(self, house, exchange):
        """Until it is switched on without a code."""
        await house.analytics.platforms.enable("bell", test_code="T1")
        await house.sell("A1")
        await house.deliver()
        await house.analytics.platforms.enable("bell")
        await house.sell("A2")
        await house.deliver()

        assert [body["test"] for body in exchange.bodies] == ["T1", None]


@pytest.mark.parametrize(
    ("platforms", "cure"),
    [
        ([Google(), GoogleAds()], "two called 'google' .Google and GoogleAds.*Keep one"),
        ([Meta], "the class Meta .call it."),
        (["meta"], "a str, which is no platform"),
        ([Meta(name="Meta Ads")], "'Meta Ads'; a name is lower case"),
        ([Meta(name="webhook")], "'webhook'"),
        ([Meta(max_batch=0)], "at least 1"),
    ],
    ids=["both of Google's", "a class", "a text", "a name with a blank", "a reserved name", "an empty batch"],
)
def test_wrong_platforms_stop_the_start(config, platforms, cure):
    """With what to write instead."""
    import dataclasses

    with pytest.raises(ConfigError, match=cure):
        dataclasses.replace(config, platforms=platforms)
