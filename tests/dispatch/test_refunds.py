"""A refund on a platform that restates: never before its sale, never alone, and no sale after it."""

from __future__ import annotations

import pytest

from goodanalytics.errors import Conflict


@pytest.fixture
async def shop(house):
    """A1 was sold and not delivered yet."""
    await house.sell("A1")
    return house


async def refund(house, cents: int | None = None, key: str = "R1") -> None:
    await house.analytics.refund("A1", cents, key=key)


async def by_kind(house) -> list[tuple[str, str, str | None]]:
    return await house.ask("SELECT kind, state, reason FROM dispatches ORDER BY occurred_at, kind DESC")


class TestHeld:
    async def test_until_its_sale_is_delivered(self, shop, exchange, say):
        """The sale has to be tried again; the refund waits, and goes out in the round after."""
        exchange.then(say(A1={"status": "retry", "code": "busy", "retry_after": "PT2M"}))
        await refund(shop)
        await shop.deliver()
        assert [body["rings"][0]["kind"] for body in exchange.bodies] == ["sale"]
        await shop.after(minutes=2)
        await shop.deliver()

        assert [body["rings"][0]["kind"] for body in exchange.bodies] == ["sale", "sale", "refund"]
        assert [state for _, state, _ in await by_kind(shop)] == ["delivered", "delivered"]

    async def test_while_the_platform_has_only_accepted_it(self, opened, bells, exchange, say):
        """Google says "received" first, and what became of it later."""
        house = await opened(bells["slow"]())
        exchange.then(say(reference="r1", A1={"status": "accepted"}))
        await house.sell("A1")
        await house.deliver()
        await refund(house)
        await house.after(minutes=10)
        assert len(exchange.bodies) == 1
        await house.after(minutes=20)
        await house.deliver()

        assert [body["rings"][0]["kind"] for body in exchange.bodies] == ["sale", "refund"]

    async def test_behind_an_earlier_refund_of_the_same_sale(self, shop, exchange, say):
        """What is left of the sale is told in the order in which it became less."""
        await shop.deliver()
        await refund(shop, 1000, key="R1")
        exchange.then(say(everybody={"status": "retry", "code": "busy", "retry_after": "PT2M"}))
        await shop.deliver()
        shop.clock.now = shop.clock.now.replace(minute=1)
        await refund(shop, 900, key="R2")
        await shop.deliver()
        assert len(exchange.bodies) == 2
        for _ in range(4):
            await shop.after(minutes=2)

        ids = [body["rings"][0]["id"] for body in exchange.bodies[1:]]
        assert len(ids) == 3
        assert ids[0] == ids[1] != ids[2]


class TestDropped:
    async def test_when_its_sale_was_never_sent(self, opened, exchange):
        """The sale was skipped; its refund alone would count as a sale."""
        house = await opened(dispatch_policy=lambda _, c: "no sales" if c.kind == "sale" else None)
        await house.sell("A1")
        await refund(house)
        await house.deliver()

        assert exchange.heard == []
        assert await by_kind(house) == [
            ("sale", "skipped", "policy: no sales"),
            ("refund", "skipped", "sale_not_delivered"),
        ]

    async def test_when_its_sale_was_refused(self, shop, exchange, say):
        """Given up is not delivered."""
        exchange.then(say(A1={"status": "permanent", "code": "bad"}))
        await refund(shop)
        await shop.deliver()
        await shop.after(minutes=5)

        assert [reason for _, _, reason in await by_kind(shop)] == ["bad", "sale_not_delivered"]


class TestReplay:
    async def test_of_a_sale_keeps_its_event_id(self, shop, exchange):
        """The platform recognises it and counts it once."""
        await shop.deliver()
        await shop.analytics.platforms.replay((await shop.dispatch("A1")).id)
        await shop.deliver()

        assert exchange.heard == [["A1"], ["A1"]]
        assert len(exchange.ids["A1"]) == 1

    @pytest.mark.parametrize("delivered", [True, False], ids=["delivered refund", "refund that waits"])
    async def test_of_a_sale_after_its_refund_is_refused(self, shop, exchange, delivered):
        """It would take the refund back. Asking for all of them leaves it out."""
        await shop.deliver()
        await refund(shop, 1000)
        if delivered:
            await shop.deliver()
        with pytest.raises(Conflict, match="refunded"):
            await shop.analytics.platforms.replay((await shop.dispatch("A1")).id)
        replayed = await shop.analytics.platforms.replay_all(states=["delivered"])
        heard = len(exchange.heard)
        await shop.deliver()

        assert replayed == (1 if delivered else 0)
        assert all(body["rings"][0]["kind"] == "refund" for body in exchange.bodies[heard:])

    async def test_of_what_is_under_way_is_refused(self, shop):
        """It goes on by itself."""
        with pytest.raises(Conflict, match="pending and goes on by itself"):
            await shop.analytics.platforms.replay((await shop.dispatch("A1")).id)
