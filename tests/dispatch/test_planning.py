"""What gets into the outbox, and what is taken out of it before it goes: consent, policy, the host's transaction, erasure."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import text

from goodanalytics.core.consent import DENIED, GRANTED
from goodanalytics.errors import Conflict


class TestQueued:
    async def test_only_for_platforms_that_are_switched_on_and_know_the_kind(self, opened, bells):
        """One row for each; a platform that knows no refunds gets none, not even a skipped one."""
        shop = bells["bell"](name="shop", events={"sale": "Order"})
        other = bells["bell"](name="other")
        house = await opened(bells["bell"](), shop, other)
        await house.analytics.platforms.disable("other")
        await house.sell("A1")
        await house.analytics.lead(house.visitor, key="L1")

        rows = await house.ask("SELECT target, kind, state FROM dispatches ORDER BY target, kind")
        assert rows == [("bell", "lead", "pending"), ("bell", "sale", "pending"), ("shop", "sale", "pending")]

    async def test_a_repeated_sale_is_queued_once(self, house):
        """The key makes it one event, and one event is one row."""
        await house.sell("A1", "A1")

        assert await house.ask("SELECT count(*) FROM dispatches") == [(1,)]

    async def test_a_rollback_leaves_no_trace(self, house):
        """The host's transaction holds the sale and what is queued of it."""
        async with house.analytics.database.engine.connect() as conn:
            await conn.begin()
            await house.sell("A1", connection=conn)
            queued = await conn.execute(text("SELECT count(*) FROM good_analytics.dispatches"))
            assert queued.scalar_one() == 1
            await conn.rollback()

        assert await house.ask("SELECT count(*) FROM dispatches") == [(0,)]

    async def test_nothing_that_names_the_person_can_be_read_in_the_row(self, house):
        """The conversion lies sealed; what is shown has names of facts and none of the facts."""
        await house.analytics.identify(
            house.visitor, email="ada@shop.example", phone="+442079460018", name="Ada King"
        )
        await house.sell("A1", url="https://shop.example/thanks/ada@shop.example?t=secret")
        ((row,),) = await house.ask("SELECT d::text FROM dispatches d")

        assert [word for word in ("ada@", "Ada", "King", "+4420", "secret", "thanks") if word in row] == []
        shown = (await house.dispatch("A1")).shown
        assert shown["page"] == "shop.example"
        assert {"email", "phone", "first_name"} <= {*shown["match_keys"]}


class TestAdopted:
    """A sale of nobody known, until somebody says who it was: DESIGN 0037 and 0047."""

    @staticmethod
    async def sell_to_nobody(house, **facts) -> None:
        """Somebody looked at a page; then an order comes in from an address that nobody has."""
        await house.look("a-cookie")
        house.clock.advance(timedelta(minutes=1))
        await house.analytics.sale(
            None, **({"amount_cents": 4900, "currency": "EUR", "key": "A1", "external_id": "ada"} | facts)
        )
        await house.deliver()
        house.clock.advance(timedelta(minutes=1))

    async def adopt(self, house, times: int = 1) -> None:
        """The page was theirs; taken back and said again as often as *times*."""
        for number in range(times):
            if number:
                (merge,) = [
                    m
                    for m in (await house.analytics.visitors.why(house.visitor)).merges
                    if m["undone_at"] is None
                ]
                await house.analytics.visitors.unmerge(merge["id"], reason="not sure")
                buyer = await house.analytics.visitors.by_external_id("ada")
                await house.analytics.visitors.merge(house.visitor, buyer, reason="sure", force=True)
            else:
                await house.analytics.identify(house.visitor, external_id="ada", email="ada@shop.example")
            await house.deliver()
            house.clock.advance(timedelta(hours=1))

    @pytest.mark.parametrize("place", ["website", "store"])
    @pytest.mark.parametrize("times", [1, 3])
    async def test_a_platform_that_could_not_know_them_is_told_once(
        self, opened, bells, exchange, place, times
    ):
        """What was skipped because nobody was known goes out when somebody is, and never again."""
        house = await opened(bells["shy"]())
        await self.sell_to_nobody(house, place=place)
        before = await house.states()
        await self.adopt(house, times)

        assert before == ({} if place == "website" else {"A1": "skipped: missing_signals: email"})
        assert exchange.keys == ["A1"]
        assert await house.states() == {"A1": "delivered"}

    async def test_a_platform_that_was_told_is_told_nothing_more(self, house, exchange):
        """A sale in a store goes to who wants it at once; who bought there is no news."""
        await self.sell_to_nobody(house, place="store")
        await self.adopt(house, 2)

        assert exchange.keys == ["A1"]

    @pytest.mark.parametrize("looked", [False, True], ids=["it waits", "it was dropped"])
    async def test_what_was_given_back_meanwhile_is_told_after_it(self, house, exchange, looked):
        """No platform takes a refund of a sale that it does not know; once it knows the sale, the refund follows, once."""
        await self.sell_to_nobody(house)
        await house.analytics.refund("A1", 900, key="R1")
        if looked:
            await house.deliver()
        await self.adopt(house, 2)
        await house.after(hours=1)

        assert [body["rings"][0]["kind"] for body in exchange.bodies] == ["sale", "refund"]
        assert await house.ask("SELECT kind, state, reason FROM dispatches ORDER BY kind") == [
            ("refund", "delivered", None),
            ("sale", "delivered", None),
        ]


class TestConsent:
    @pytest.mark.parametrize(
        ("silence", "said", "state"),
        [
            ("denied", None, "skipped: consent_unknown"),
            ("denied", GRANTED, "pending"),
            ("granted", None, "pending"),
            ("granted", DENIED, "skipped: consent_denied"),
        ],
        ids=["nobody asked, silence is no", "yes", "nobody asked, silence is yes", "no"],
    )
    async def test_decides_when_it_is_queued(self, opened, silence, said, state):
        """What is skipped says why."""
        house = await opened(consent_silence=silence)
        await house.sell("A1", consent=said)

        assert await house.states() == {"A1": state}

    async def test_what_it_refused_is_not_kept(self, opened):
        """There is nothing to send of it, so there is nothing to send again."""
        house = await opened(consent_silence="denied")
        await house.sell("A1")

        assert await house.ask("SELECT sealed FROM dispatches") == [(None,)]
        with pytest.raises(Conflict, match="nothing is kept"):
            await house.analytics.platforms.replay((await house.dispatch("A1")).id)

    async def test_what_is_taken_back_is_not_sent(self, house, exchange):
        """Recalled rows keep nothing of the person; other people's go out."""
        await house.sell("A1")
        somebody = await house.analytics.resolve({"anonymous_id": "another"})
        await house.analytics.sale(somebody, amount_cents=1, currency="EUR", key="B1")
        found = await house.analytics.platforms.recall(house.visitor)
        await house.deliver()

        assert (found.recalled, found.under_way) == (1, 0)
        assert exchange.keys == ["B1"]
        assert await house.states() == {"A1": "skipped: recalled", "B1": "delivered"}
        assert await house.ask(
            "SELECT count(*) FROM dispatches WHERE reason = 'recalled' AND sealed IS NOT NULL"
        ) == [(0,)]

    async def test_what_is_under_way_goes_out_no_second_time(self, house, exchange, say):
        """Recalled while the request was out: bell answers "again", and nothing is sent again."""

        async def meanwhile():
            await house.analytics.platforms.recall(house.visitor)
            return say(everybody={"status": "retry", "code": "busy"})

        exchange.then(meanwhile)
        await house.sell("A1")
        await house.deliver()
        await house.after(hours=1)

        assert exchange.keys == ["A1"]
        assert await house.states() == {"A1": "skipped: recalled"}

    @pytest.mark.parametrize(("said", "told"), [(None, "granted"), (GRANTED, "granted")])
    async def test_silence_is_told_as_the_answer_that_it_counts_as(self, house, exchange, said, told):
        """The platform is never asked to make up its own mind."""
        await house.sell("A1", consent=said)
        await house.deliver()

        assert exchange.bodies[0]["rings"][0]["consent"] == told

    async def test_what_was_accepted_is_not_sent_anew_in_parts(self, opened, bells, exchange, say):
        """Recalled while the platform was at it; then it says that one of the two failed."""
        house = await opened(bells["slow"]())
        failed = {"status": "permanent", "code": "one of them", "of_batch": True}
        exchange.then(say(reference="r1", everybody={"status": "accepted"}), say(everybody=failed))
        await house.sell("A1", "A2")
        await house.deliver()
        found = await house.analytics.platforms.recall(house.visitor)
        await house.after(hours=1)
        await house.after(hours=1)

        assert (found.recalled, found.under_way) == (0, 2)
        assert exchange.keys == ["A1", "A2"]
        assert await house.states() == {"A1": "skipped: recalled", "A2": "skipped: recalled"}

    async def test_what_was_refused_in_company_is_not_sent_again_in_parts(self, house, exchange, say):
        """Recalled while the request was out, and bell names nobody."""

        async def meanwhile():
            await house.analytics.platforms.recall(house.visitor)
            return say(everybody={"status": "permanent", "code": "one of them", "of_batch": True})

        exchange.then(meanwhile)
        await house.sell("A1", "A2")
        await house.deliver()
        await house.after(hours=1)

        assert exchange.keys == ["A1", "A2"]
        assert await house.states() == {"A1": "skipped: recalled", "A2": "skipped: recalled"}

    @pytest.mark.parametrize("way", ["a sale", "a page", "a merge", "the host's merge"])
    async def test_who_says_no_later_has_nothing_queued_any_more(self, house, way):
        """It is taken back with the answer itself, of all their browsers; other people's, and what was delivered, stay as they are."""
        await house.sell("A0", consent=GRANTED)
        await house.deliver()
        await house.sell("A1", consent=GRANTED)
        phone = await house.analytics.resolve({"anonymous_id": "phone"})
        await house.analytics.sale(phone, amount_cents=1, currency="EUR", key="B1")
        house.clock.advance(timedelta(minutes=1))
        match way:
            case "a sale":
                await house.sell("A2", consent=DENIED)
            case "a page":
                await house.look("a-cookie", DENIED)
            case _:
                await house.look("tablet", DENIED)
                tablet = await house.analytics.resolve({"anonymous_id": "tablet"})
                if way == "a merge":
                    for one in (house.visitor, tablet):
                        await house.analytics.identify(one, external_id="ada")
                else:
                    await house.analytics.visitors.merge(house.visitor, tablet, reason="the same")

        refused = {"A2": "skipped: consent_denied"} if way == "a sale" else {}
        assert await house.states() == {
            "A0": "delivered",
            "A1": "skipped: recalled",
            "B1": "pending",
            **refused,
        }
        assert await house.ask(
            "SELECT count(*) FROM dispatches WHERE reason = 'recalled' AND sealed IS NOT NULL"
        ) == [(0,)]

    async def test_a_page_takes_back_what_is_queued(self, house):
        """`setConsent(false)` tells the server: nothing of the person is sent, what was remembered goes, and no visit is counted."""
        await house.look("a-cookie")
        await house.sell("A1", consent=GRANTED)
        before = await house.analytics.visitors.get(house.visitor)
        house.clock.advance(timedelta(minutes=1))
        transport = httpx.ASGITransport(house.analytics.tracker, root_path="/ga")
        async with httpx.AsyncClient(transport=transport, base_url="https://shop.example") as client:
            answer = await client.post("/ga/t/deny", headers={"cookie": "_ga_anon=a-cookie"})
        await house.analytics.drain()
        after = await house.analytics.visitors.get(house.visitor)

        assert answer.status_code == 204
        assert await house.states() == {"A1": "skipped: recalled"}
        assert [one.consent and one.consent["ad_user_data"]["value"] for one in (before, after)] == [
            "granted",
            "denied",
        ]
        assert [(one.total_events, one.total_sessions) for one in (before, after)] == [(2, 1)] * 2

    async def test_a_no_that_is_older_than_a_yes_takes_nothing_back(self, house):
        """The newest answer on any of their browsers counts, in whatever order answers come in."""
        tablet = await house.analytics.resolve({"anonymous_id": "tablet"})
        await house.analytics.visitors.merge(house.visitor, tablet, reason="the same")
        house.clock.advance(timedelta(minutes=1))
        await house.sell("A1", consent=GRANTED)
        await house.look("tablet", DENIED, ago=timedelta(minutes=1))

        assert await house.states() == {"A1": "pending"}

    async def test_a_merged_persons_other_browser_is_recalled_too(self, house, exchange):
        """Conversions belong to rows; the person is all of them."""
        phone = await house.analytics.resolve({"anonymous_id": "phone"})
        await house.analytics.sale(phone, amount_cents=1, currency="EUR", key="P1")
        await house.analytics.visitors.merge(house.visitor, phone, reason="the same")
        await house.analytics.platforms.recall(house.visitor)
        await house.deliver()

        assert exchange.keys == []


class TestPolicy:
    async def test_the_host_may_refuse_when_it_is_queued(self, opened):
        """Its words are the reason."""
        house = await opened(dispatch_policy=lambda _, c: "not on Sundays" if c.order_key == "A1" else None)
        await house.sell("A1", "A2")

        assert await house.states() == {"A1": "skipped: policy: not on Sundays", "A2": "pending"}

    async def test_the_host_may_refuse_when_it_is_sent(self, opened, exchange):
        """It changed its mind meanwhile; when it changes it again, a replay goes out."""
        no: list[str] = []
        house = await opened(dispatch_policy=lambda *_: no[0] if no else None)
        await house.sell("A1")
        no.append("stopped")
        await house.deliver()
        assert await house.states() == {"A1": "skipped: policy: stopped"}
        no.clear()
        await house.analytics.platforms.replay((await house.dispatch("A1")).id)
        await house.deliver()

        assert exchange.keys == ["A1"]

    async def test_a_policy_that_fails_refuses_and_stops_no_sale(self, opened, errors):
        """The sale is recorded, nothing is told, and the host hears of it."""

        def policy(platform, conversion):
            raise ZeroDivisionError

        house = await opened(dispatch_policy=policy)
        await house.sell("A1")

        assert await house.states() == {"A1": "skipped: policy: the policy failed"}
        assert [type(error) for error in errors] == [ZeroDivisionError]


class TestSwitchedOff:
    async def test_what_is_queued_waits_and_what_happens_meanwhile_is_not_queued(self, house, exchange):
        """A1 was queued before, A2 came while bell was off; on again, A1 goes out."""
        await house.sell("A1")
        await house.analytics.platforms.disable("bell")
        await house.sell("A2")
        assert await house.deliver() == 0
        await house.analytics.platforms.enable("bell")
        await house.deliver()

        assert exchange.keys == ["A1"]

    async def test_it_holds_from_the_next_request_on(self, opened, bells, exchange, say):
        """Bell takes one at a time; while the first is out it is switched off, and what was claimed too is given back."""
        house = await opened(bells["bell"](max_batch=1))
        gate = asyncio.Event()

        async def off():
            await house.analytics.platforms.disable("bell")
            gate.set()
            return say()

        async def others():
            await gate.wait()
            return say()

        exchange.then(off)
        exchange.always(others)
        await house.sell(*(f"A{number}" for number in range(40)))
        await house.deliver()

        # Requests that had begun when it was switched off are out; no more than are sent side by side.
        assert len(exchange.heard) <= 16
        held = await house.ask("SELECT count(*) FROM dispatches WHERE lease_id IS NOT NULL")
        assert held == [(0,)]

    async def test_recall_drops_what_is_queued(self, house, exchange):
        """For good: it does not come back with the platform."""
        await house.sell("A1")
        await house.analytics.platforms.disable("bell", recall=True)
        await house.analytics.platforms.enable("bell")
        await house.deliver()

        assert exchange.keys == []
        assert await house.states() == {"A1": "skipped: recalled"}

    async def test_what_waited_too_long_is_not_sent(self, house, exchange):
        """Bell takes nothing older than a week."""
        await house.sell("A1")
        await house.analytics.platforms.disable("bell")
        house.clock.advance(timedelta(days=8))
        await house.analytics.platforms.enable("bell")
        await house.deliver()

        assert exchange.keys == []
        assert await house.states() == {"A1": "skipped: too_old"}


class TestErased:
    async def test_everything_that_was_queued_or_kept_goes(self, house, exchange):
        """Delivered, waiting and skipped ones alike."""
        await house.sell("A1")
        await house.deliver()
        await house.sell("A2")
        await house.analytics.visitors.forget(house.visitor, reason="asked")
        await house.deliver()

        assert exchange.keys == ["A1"]
        assert await house.ask("SELECT count(*) FROM dispatches") == [(0,)]
        assert await house.ask("SELECT DISTINCT kind, visitor_id::text, key FROM conversions") == [
            ("forgotten", "00000000-0000-0000-0000-000000000000", None)
        ]

    async def test_persons_leave_finished_dispatches_after_a_month(self, house):
        """What was delivered is still listed, and cannot be sent again; what waited for ever is given up."""
        await house.sell("A1")
        await house.deliver()
        await house.sell("A2")
        await house.analytics.platforms.disable("bell")
        house.clock.advance(timedelta(days=31))
        await house.analytics.upkeep.once()
        assert [(await house.dispatch(key)).is_kept for key in ("A1", "A2")] == [False, True]
        house.clock.advance(timedelta(days=61))
        await house.analytics.upkeep.once()

        assert await house.states() == {"A1": "delivered", "A2": "skipped: too_old"}
        assert (await house.dispatch("A2")).is_kept is False
