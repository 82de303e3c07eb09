"""Platforms that are left alone: a refused or missing credential, throttling, and the way back."""

from __future__ import annotations

import dataclasses

import pytest

from goodanalytics import Analytics

REFUSED = {"status": "credential", "code": "190", "message": "Session has expired"}


async def paused_reason(house) -> str | None:
    (status,) = await house.analytics.platforms.list()
    return status.paused_reason


class TestRefusedCredential:
    async def test_stops_the_platform_until_another_one_is_stored(self, house, exchange, say):
        """Nothing more is sent, not even days later; storing a credential sends what waited, under the same ids."""
        exchange.then(say(400, everybody=REFUSED))
        await house.sell("A1")
        await house.deliver()
        await house.sell("A2")
        await house.after(days=1)
        assert exchange.keys == ["A1"]
        assert await house.states() == {"A1": "paused_credentials: 190", "A2": "pending"}
        assert await paused_reason(house) == "credentials: 190 Session has expired"
        await house.analytics.platforms.store_credential("bell", "token", "a-new-secret-of-bell")
        await house.deliver()

        assert await house.states() == {"A1": "delivered", "A2": "delivered"}
        assert exchange.bodies[-1]["secrets"] == {"token": "a-new-secret-of-bell"}
        assert {len(ids) for ids in exchange.ids.values()} == {1}
        assert await paused_reason(house) is None

    async def test_says_nothing_of_one_that_was_stored_meanwhile(self, house, exchange, say, clock):
        """The old token is refused after the new one was stored: nothing is paused, and the new one is used."""

        async def meanwhile():
            clock.now = clock.now.replace(second=30)
            await house.analytics.platforms.store_credential("bell", "token", "a-new-secret-of-bell")
            return say(400, everybody=REFUSED)

        exchange.then(meanwhile)
        await house.sell("A1")
        await house.deliver()
        await house.deliver()

        assert await house.states() == {"A1": "delivered"}
        assert [body["secrets"]["token"] for body in exchange.bodies] == [
            "a-secret-of-bell",
            "a-new-secret-of-bell",
        ]

    async def test_does_not_stop_another_platform(self, opened, bells, exchange, say):
        """One credential, one platform."""
        house = await opened(bells["bell"](), bells["bell"](name="other"))
        exchange.then(say(400, everybody=REFUSED))
        await house.sell("A1")
        await house.deliver()

        states = await house.ask("SELECT state FROM dispatches ORDER BY state")
        assert states == [("delivered",), ("paused_credentials",)]

    async def test_enabling_it_again_tries_again(self, house, exchange, say):
        """Whoever mended the account, not the credential, switches it on once more."""
        exchange.then(say(400, everybody=REFUSED))
        await house.sell("A1")
        await house.deliver()
        await house.analytics.platforms.enable("bell")
        await house.deliver()

        assert await house.states() == {"A1": "delivered"}


async def test_a_missing_credential_sends_nothing_and_is_named(opened, bells, exchange):
    """A request without a token would only be refused."""
    house = await opened(bells["bell"](secrets=frozenset({"token", "pixel_id"})))
    await house.analytics.platforms.drop_credentials("bell", ["pixel_id"])
    await house.sell("A1")
    await house.deliver()
    assert exchange.heard == []
    assert await paused_reason(house) == "credentials: missing pixel_id"
    await house.analytics.platforms.store_credential("bell", "pixel_id", "77")
    await house.deliver()

    assert exchange.keys == ["A1"]


class TestThrottled:
    async def test_all_of_the_platform_waits_as_long_as_it_asks(self, house, exchange, say):
        """Also what was sold later; then everything goes out."""
        exchange.then(say(429, everybody={"status": "rate_limited", "code": "4", "retry_after": "PT3M"}))
        await house.sell("A1")
        await house.deliver()
        await house.sell("A2")
        assert await house.after(seconds=179) == 0
        assert await paused_reason(house) == "rate_limited"
        await house.after(seconds=1)

        assert await house.states() == {"A1": "delivered", "A2": "delivered"}
        assert await paused_reason(house) is None

    async def test_costs_no_attempt(self, house, exchange, say):
        """A day of throttling gives nobody up."""
        exchange.always(say(429, everybody={"status": "rate_limited", "code": "4", "retry_after": "PT1H"}))
        await house.sell("A1")
        for _ in range(24):
            await house.after(hours=1)

        assert (await house.dispatch("A1")).state == "retry_wait"


class TestAnotherSecretKey:
    @pytest.fixture
    def renewed(self, database_url, house):
        """`renewed(previous=…)`: the same app with another secret key."""
        running = []

        def make(*, previous: bool) -> Analytics:
            config = house.analytics.config
            settings = {"secret_key": "another-" + "1" * 32}
            if previous:
                settings["previous_secret_keys"] = [config.secret_key]
            running.append(Analytics(database_url, dataclasses.replace(config, **settings)))
            return running[-1]

        return make

    async def test_opens_what_the_former_one_sealed(self, house, exchange, renewed):
        """Named among the previous keys, it is all that is needed."""
        await house.sell("A1")
        async with renewed(previous=True) as later:
            await later.dispatcher.deliver_due()

        assert exchange.keys == ["A1"]

    async def test_without_the_former_one_nothing_is_sent_and_the_cure_is_told(
        self, house, exchange, renewed, errors
    ):
        """It is a pause with a reason, not a loop of errors; no secret is told."""
        await house.sell("A1")
        async with renewed(previous=False) as later:
            await later.dispatcher.deliver_due()
            await later.dispatcher.deliver_due()

        assert exchange.keys == []
        assert await paused_reason(house) == "credentials: sealed with another secret key: token"
        assert ["previous_secret_keys" in str(error) for error in errors] == [True]
        assert "a-secret-of-bell" not in str(errors)
        # Whoever collects errors also collects the variables of their frames.
        assert [(error.__traceback__, error.__context__) for error in errors] == [(None, None)]

    async def test_after_the_rotation_the_former_one_is_not_needed(self, house, exchange, renewed):
        """Credentials, webhooks and what waits are sealed anew; a second rotation finds nothing to do."""
        await house.analytics.platforms.store_credential("bell", "pixel_id", "77")
        await house.sell("A1", "A2")
        async with renewed(previous=True) as later:
            done = await later.platforms.rotate()
            again = await later.platforms.rotate()
        assert (done.credentials, done.dispatches, done.unreadable) == (2, 2, 0)
        assert (again.credentials, again.webhooks, again.dispatches) == (0, 0, 0)
        async with renewed(previous=False) as last:
            await last.dispatcher.deliver_due()

        assert exchange.keys == ["A1", "A2"]
