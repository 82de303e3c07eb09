"""What becomes of a conversion on its way to a platform, on a real PostgreSQL; only the HTTP transport answers as a test says."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx
import pytest

DELIVERED = {"A1": "delivered", "A2": "delivered", "A3": "delivered"}


async def test_what_is_due_goes_out_in_as_few_requests_as_the_platform_allows(house, exchange):
    """Six sales are two requests of a platform that takes four, each key once, and nothing is left to do."""
    await house.sell("A1", "A2", "A3", "A4", "A5", "A6")

    assert await house.deliver() == 6
    assert sorted(len(request) for request in exchange.heard) == [2, 4]
    assert sorted(exchange.keys) == ["A1", "A2", "A3", "A4", "A5", "A6"]
    assert await house.deliver() == 0
    assert set((await house.states()).values()) == {"delivered"}


async def test_every_secret_that_is_stored_goes_to_the_dialect(house, exchange):
    """Also one that it can do without, such as the manager account that Google signs in through."""
    await house.analytics.platforms.store_credential("bell", "login_customer_id", "99")
    await house.sell("A1")
    await house.deliver()

    assert exchange.bodies[0]["secrets"] == {"token": "a-secret-of-bell", "login_customer_id": "99"}


async def test_the_event_id_is_the_one_that_the_caller_knows(house, exchange):
    """The browser's pixel can be given the same id."""
    outcome = await house.analytics.sale(house.visitor, amount_cents=100, currency="EUR", key="A1")
    await house.deliver()

    assert exchange.ids == {"A1": {str(outcome.event_id)}}


class TestOneBadConversion:
    async def test_a_verdict_on_the_request_is_followed_up_in_halves(self, house, exchange, say):
        """Bell refuses whatever holds A2 as a whole: its three neighbours are delivered in the same round."""

        async def honest() -> httpx.Response:
            bad = "A2" in exchange.heard[-1]
            return (
                say(everybody={"status": "permanent", "code": "too_old", "of_batch": True}) if bad else say()
            )

        exchange.always(honest)
        await house.sell("A1", "A2", "A3", "A4")
        await house.deliver()

        assert await house.states() == {
            "A1": "delivered", "A2": "dead: too_old", "A3": "delivered", "A4": "delivered",
        }  # fmt: skip
        assert exchange.heard[0] == ["A1", "A2", "A3", "A4"]
        assert len(exchange.heard) == 5

    async def test_neighbours_of_a_named_one_go_out_again_at_once(self, house, exchange, say):
        """A platform that takes all or nothing, and names whom it blames."""
        exchange.then(
            say(
                A1={"status": "permanent", "code": "bad"},
                everybody={"status": "retry", "code": "neighbour_refused"},
            )
        )
        await house.sell("A1", "A2", "A3")
        await house.deliver()

        assert await house.states() == {**DELIVERED, "A1": "dead: bad"}
        assert exchange.heard == [["A1", "A2", "A3"], ["A2", "A3"]]

    async def test_one_that_the_dialect_cannot_build_is_found(self, house, errors):
        """A dialect of the host's own that raises on one conversion; what is reported names nobody."""
        await house.sell("A1", "A2")
        await house.sell("A3", properties={"unspeakable": True})
        await house.deliver()

        assert await house.states() == {**DELIVERED, "A3": "dead: build_failed"}
        assert errors
        assert "ada@shop" not in repr([(error, error.__cause__, error.__context__) for error in errors])

    async def test_one_that_makes_the_platform_stumble_ends_up_alone(self, house, exchange, say):
        """Bell answers 500 to whatever holds A2, and has no word for why: the others get through within a few tries."""

        async def honest() -> httpx.Response:
            return httpx.Response(500) if "A2" in exchange.heard[-1] else say()

        exchange.always(honest)
        await house.sell("A1", "A2", "A3")
        for number in range(30):
            await house.sell(f"B{number}")
            await house.after(hours=1)

        states = await house.states()
        assert states.pop("A2") == "dead: too_many_attempts"
        assert set(states.values()) == {"delivered"}
        assert exchange.keys.count("A1") <= 5


class TestTryingAgain:
    async def test_it_waits_as_long_as_the_platform_asks_and_goes_out_under_the_same_id(
        self, house, exchange, say
    ):
        """One row is to come back in two minutes; the other one is delivered."""
        wait = {"status": "retry", "code": "busy", "retry_after": "PT2M"}
        exchange.then(say(A2=wait))
        await house.sell("A1", "A2")
        await house.deliver()
        assert await house.states() == {"A1": "delivered", "A2": "retry_wait"}
        assert await house.after(seconds=119) == 0
        assert await house.after(seconds=1) == 1

        assert exchange.heard == [["A1", "A2"], ["A2"]]
        assert len(exchange.ids["A2"]) == 1

    async def test_failures_of_its_own_are_counted_to_eight(self, house, exchange, say):
        """Others get through, so it is this one that fails."""
        exchange.always(say(A1={"status": "retry", "code": "odd"}))
        await house.sell("A1")
        for number in range(20):
            await house.sell(f"B{number}")
            await house.after(hours=1)

        assert (await house.states())["A1"] == "dead: too_many_attempts"
        assert exchange.keys.count("A1") in range(8, 17)

    async def test_an_outage_costs_nobody_an_attempt(self, opened, exchange):
        """
        Bell is away for a day; the first sale that gets through takes all with it that waited, however long those were to.
        """
        house = await opened(jitter=lambda: 0.99)
        exchange.always(httpx.ConnectError("no route"))
        await house.sell("A1", "A2")
        for _ in range(24):
            await house.after(hours=1)
        assert await house.states() == {
            "A1": "retry_wait: target_failing", "A2": "retry_wait: target_failing",
        }  # fmt: skip
        await house.sell("A3")
        exchange.always(None)
        await house.after(minutes=5)
        await house.deliver()

        assert await house.states() == DELIVERED

    async def test_what_grows_too_old_is_given_up(self, house, exchange):
        """Bell takes nothing older than a week."""
        exchange.always(httpx.ConnectError("no route"))
        await house.sell("A1")
        for _ in range(8):
            await house.after(days=1)

        assert (await house.states())["A1"] in ("dead: too_old", "skipped: too_old")
        assert await house.ask("SELECT next_at FROM dispatches") == [(None,)]

    @pytest.mark.parametrize(
        "answer",
        [
            httpx.Response(502, html="<html>Bad Gateway</html>"),
            httpx.Response(200, text="{half"),
            httpx.ReadTimeout("nothing came"),
            httpx.RemoteProtocolError("cut"),
        ],
        ids=["a page of a proxy", "half a document", "silence", "a cut connection"],
    )
    async def test_an_answer_that_says_nothing_is_asked_for_again(self, house, exchange, answer):
        """Nobody knows whether it arrived; the same id goes out again."""
        exchange.then(answer)
        await house.sell("A1")
        await house.deliver()
        assert await house.states() == {"A1": "retry_wait: target_failing"}
        await house.after(hours=1)

        assert await house.states() == {"A1": "delivered"}
        assert len(exchange.ids["A1"]) == 1


class TestLeases:
    async def test_what_a_dead_worker_had_in_hand_is_sent_again_under_the_same_id(
        self, house, exchange, until_cancelled
    ):
        """The request went out, nobody came back to note it; the row is free when its lease has run out, not before."""
        exchange.then(until_cancelled)
        await house.sell("A1")
        dying = asyncio.create_task(house.deliver())
        while not exchange.heard:
            await asyncio.sleep(0)
        dying.cancel()
        await asyncio.wait([dying])
        assert await house.after(minutes=4) == 0
        assert await house.after(minutes=2) == 1

        assert exchange.heard == [["A1"], ["A1"]]
        assert len(exchange.ids["A1"]) == 1
        assert await house.states() == {"A1": "delivered"}

    async def test_a_late_worker_changes_nothing(self, house, exchange, say):
        """Its answer comes after another one took over and was told that the row is delivered."""
        release = asyncio.Event()

        async def late() -> httpx.Response:
            await release.wait()
            return say(everybody={"status": "permanent", "code": "late"})

        exchange.then(late)
        await house.sell("A1")
        slow = asyncio.create_task(house.deliver())
        while not exchange.heard:
            await asyncio.sleep(0)
        await house.after(minutes=6)
        release.set()
        await slow

        assert await house.states() == {"A1": "delivered"}

    async def test_two_workers_share_without_sending_twice(self, house, opened, exchange):
        """Both look at the same time; every key is heard once."""
        other = await opened()
        await house.sell(*(f"A{number}" for number in range(40)))
        await asyncio.gather(house.deliver(), other.deliver())

        assert sorted(exchange.keys) == sorted(f"A{number}" for number in range(40))


class TestConfirming:
    async def test_a_receipt_is_asked_after(self, opened, bells, exchange, say):
        """Accepted is not delivered: it is asked for after half an hour, and again while bell is still at it."""
        house = await opened(bells["slow"]())
        exchange.then(
            say(reference="r1", everybody={"status": "accepted"}),
            say(everybody={"status": "accepted", "retry_after": "PT1H"}),
        )
        await house.sell("A1", "A2")
        await house.deliver()
        assert await house.states() == {"A1": "accepted", "A2": "accepted"}
        await house.after(minutes=29)
        assert exchange.asked == []
        await house.after(minutes=1)
        await house.after(minutes=59)
        assert exchange.asked == ["r1"]
        await house.after(minutes=1)

        assert exchange.asked == ["r1", "r1"]
        assert await house.states() == {"A1": "delivered", "A2": "delivered"}
        assert exchange.keys == ["A1", "A2"]

    async def test_a_result_that_names_nobody_is_followed_up_in_halves(self, opened, bells, exchange, say):
        """One of three failed, bell says; the next requests find out which."""
        house = await opened(bells["slow"]())

        async def later() -> httpx.Response:
            if exchange.asked and len(exchange.asked) > len(answered):
                answered.append(exchange.asked[-1])
                batch = exchange.heard[int(answered[-1])]
                failed = {"status": "permanent", "code": "NO_CLICK", "of_batch": len(batch) > 1}
                return say(everybody=failed if "A2" in batch else {"status": "delivered"})
            return say(reference=str(len(exchange.heard) - 1), everybody={"status": "accepted"})

        answered: list[str] = []
        exchange.always(later)
        await house.sell("A1", "A2", "A3")
        for _ in range(5):
            await house.after(hours=1)

        assert await house.states() == {**DELIVERED, "A2": "dead: NO_CLICK"}

    async def test_a_worker_that_dies_between_the_halves_leaves_both_to_be_sent(
        self, opened, bells, exchange, say, until_cancelled
    ):
        """What is left of a request that was judged as a whole is not judged by that verdict once more."""
        house = await opened(bells["slow"]())
        failed = {"status": "permanent", "code": "one of them", "of_batch": True}
        exchange.then(
            say(reference="r1", everybody={"status": "accepted"}), say(everybody=failed), until_cancelled
        )
        await house.sell("A1", "A2")
        await house.deliver()
        house.clock.advance(timedelta(hours=1))
        dying = asyncio.create_task(house.deliver())
        while len(exchange.heard) < 2:
            await asyncio.sleep(0)
        dying.cancel()
        await asyncio.wait([dying])
        assert await house.states() == {"A1": "retry_wait", "A2": "retry_wait"}
        await house.after(minutes=6)

        assert exchange.asked == ["r1"]
        assert await house.states() == {"A1": "delivered", "A2": "delivered"}
        assert {len(ids) for ids in exchange.ids.values()} == {1}

    @pytest.mark.parametrize("answer", [httpx.Response(503), httpx.ConnectError("away")], ids=["503", "away"])
    async def test_a_question_that_fails_says_nothing_of_the_conversions(
        self, opened, bells, exchange, say, answer
    ):
        """They stay accepted, and nothing goes out twice."""
        house = await opened(bells["slow"]())
        exchange.then(say(reference="r1", everybody={"status": "accepted"}), answer)
        await house.sell("A1")
        await house.deliver()
        await house.after(hours=1)
        assert await house.states() == {"A1": "accepted"}
        await house.after(hours=1)

        assert await house.states() == {"A1": "delivered"}
        assert exchange.keys == ["A1"]

    async def test_a_result_that_never_comes_is_not_waited_for_for_ever(self, opened, bells, exchange, say):
        """After three days it is given up as unconfirmed."""
        house = await opened(bells["slow"]())
        exchange.always(say(reference="r1", everybody={"status": "accepted"}))
        await house.sell("A1")
        for _ in range(5):
            await house.after(days=1)

        assert await house.states() == {"A1": "dead: unconfirmed"}
        assert exchange.keys == ["A1"]


class TestTokens:
    async def test_one_token_serves_until_it_expires(self, opened, bells, exchange):
        """Two rounds, one token; an hour later another one. It comes beside the stored secrets."""
        house = await opened(bells["token"]())
        for key in ("A1", "A2"):
            await house.sell(key)
            await house.deliver()
        assert exchange.tokens == 1
        await house.sell("A3")
        await house.after(hours=2)

        assert exchange.tokens == 2
        assert [body["secrets"]["access_token"] for body in exchange.bodies] == [
            "token-1",
            "token-1",
            "token-2",
        ]
        assert exchange.bodies[0]["secrets"]["refresh_token"] == "a-secret-of-bell"

    async def test_a_token_that_was_withdrawn_is_replaced_before_anything_is_paused(
        self, opened, bells, exchange, say
    ):
        """Bell refuses the token that was kept; with a new one all is well."""
        house = await opened(bells["token"]())
        await house.sell("A1")
        await house.deliver()
        exchange.then(say(401, everybody={"status": "credential", "code": "expired"}))
        await house.sell("A2")
        await house.deliver()

        assert await house.states() == {"A1": "delivered", "A2": "delivered"}
        assert exchange.tokens == 2

    async def test_a_refusal_of_a_new_token_is_believed(self, opened, bells, exchange, say):
        """It does not go round in circles."""
        house = await opened(bells["token"]())
        exchange.always(say(401, everybody={"status": "credential", "code": "expired"}))
        await house.sell("A1")
        await house.deliver()

        assert await house.states() == {"A1": "paused_credentials: expired"}
        assert len(exchange.heard) == 1


async def test_the_loop_delivers_by_itself(opened, exchange):
    """`Config(worker=True)`: what is sold is delivered without being asked for."""
    house = await opened(worker=True, worker_interval=timedelta(milliseconds=10))
    await house.sell("A1")
    async with asyncio.timeout(30):
        while not exchange.heard:
            await asyncio.sleep(0.005)

    assert exchange.keys == ["A1"]


async def test_a_platform_that_does_not_answer_holds_up_nobody_else(opened, bells, exchange, say):
    """One request hangs; another platform goes on being told of what comes after it."""
    slow, quick = bells["bell"](name="slow"), bells["bell"](name="quick", max_batch=3)
    house = await opened(slow, quick, worker=True, worker_interval=timedelta(milliseconds=10))
    await house.analytics.platforms.disable("quick")
    gate = asyncio.Event()

    async def hang():
        await gate.wait()
        return say()

    exchange.then(hang)
    await house.sell("A1")
    async with asyncio.timeout(30):
        while not exchange.heard:
            await asyncio.sleep(0.005)
        await house.analytics.platforms.enable("quick")
        for key in ("A2", "A3"):
            heard = len(exchange.heard)
            await house.sell(key)
            while len(exchange.heard) == heard:
                await asyncio.sleep(0.005)
    gate.set()

    assert exchange.keys == ["A1", "A2", "A3"]
