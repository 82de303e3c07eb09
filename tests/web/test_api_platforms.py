"""`/platforms`, `/dispatches` and `/webhooks` over HTTP: what can be seen and done, and what no answer ever holds."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import get_args, get_type_hints
from uuid import UUID

import httpx
import msgspec
import pytest

from goodanalytics import Principal
from goodanalytics.core.delivery import STATES
from goodanalytics.facade.webhooks import EVENTS, EVERYTHING
from goodanalytics.web.api import dispatches as api_dispatches
from goodanalytics.web.api import platforms as api_platforms
from goodanalytics.web.api import webhooks as api_webhooks
from goodanalytics.web.api.dispatches import DispatchAnswer
from goodanalytics.web.api.webhooks import Event
from tests.dispatch.conftest import House, told
from tests.standins import Honest, serving
from tests.standins.receiver import BROKEN, Receiver
from tests.web.telling import ADDRESS, EMAIL, TOKEN, a_shop, leaks

SECRET = {"Authorization": "Bearer secret"}


@pytest.fixture
async def house(database_url, config, clock) -> AsyncIterator[House]:
    """A shop with three keys: its own, a page's, and another workspace's."""
    principals = {
        "secret": Principal(config.workspace, "secret", "server one"),
        "public": Principal(config.workspace, "publishable", "page"),
        "other": Principal(UUID(int=99), "secret", "elsewhere"),
    }
    settings = dataclasses.replace(config, authenticate=lambda token, _: principals.get(token))
    async with a_shop(database_url, settings, clock) as house:
        yield house


@pytest.fixture
async def client(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with asked(house) as client:
        yield client


def asked(house: House) -> httpx.AsyncClient:
    """Somebody with the secret key."""
    transport = httpx.ASGITransport(house.analytics.api, root_path="/ga/api")
    return httpx.AsyncClient(transport=transport, base_url="http://shop.example/ga/api", headers=SECRET)


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


class TestPlatforms:
    async def test_the_list_says_what_is_stored_and_what_is_missing(self, house, client):
        """Names and times of credentials, and how each platform can be tried out; no values."""
        await house.sell("A1")
        answer = await client.get("/platforms")

        bell, meta = answer.json()["data"]
        assert (bell["name"], bell["enabled"], bell["missing"], bell["trial"]) == ("bell", True, [], "plain")
        assert (bell["dispatches"], [*bell["credentials"]]) == ({"pending": 1}, ["token"])
        assert (meta["enabled"], meta["missing"], meta["trial"]) == (
            False,
            ["access_token", "pixel_id"],
            "code",
        )
        assert leaks(answer) == []

    async def test_credentials_go_in_and_never_come_out(self, house, client):
        """The answer has their names; the audit has the key's name; no table has a value."""
        answer = await client.put(
            "/platforms/meta/credentials", json={"credentials": {"access_token": TOKEN, "pixel_id": "123"}}
        )
        again = await client.get("/platforms/meta")

        assert answer.status_code == again.status_code == 200
        assert answer.json()["missing"] == []
        assert sorted(again.json()["credentials"]) == ["access_token", "pixel_id"]
        assert leaks(answer, again) == []
        assert await house.ask("SELECT subject, details FROM audit WHERE actor = 'server one'") == [
            ("meta", {"names": ["access_token", "pixel_id"]})
        ]
        for table in house.analytics.database.tables:
            assert [row for (row,) in await house.ask(f"SELECT x::text FROM {table} x") if TOKEN in row] == []

    async def test_a_new_credential_wakes_what_waited_for_it(self, house, client):
        """A refused token pauses the platform; the next one sends what waited, under its own id."""
        house.exchange.then(told(401, everybody={"status": "credential", "code": "190"}))
        await house.sell("A1")
        await house.deliver()
        paused = (await client.get("/platforms/bell")).json()
        await client.put("/platforms/bell/credentials", json={"credentials": {"token": TOKEN}})
        await house.deliver()

        assert "190" in paused["paused_reason"]
        assert (await client.get("/platforms/bell")).json()["paused_reason"] is None
        assert await house.states() == {"A1": "delivered"}
        assert len(house.exchange.ids["A1"]) == 1

    async def test_a_credential_that_cannot_be_one_is_refused(self, client):
        """422, without repeating a value."""
        bodies = {
            "too long": {"credentials": {"token": f"{TOKEN}{'x' * 20_000}"}},
            "no text": {"credentials": {"token": [TOKEN]}},
            "no name": {"credentials": {f"{TOKEN} ": "x"}},
            "blank": {"credentials": {"token": " "}},
            "none": {"credentials": {}},
            "at the wrong place": {"token": TOKEN},
        }
        answers = {
            case: await client.put("/platforms/bell/credentials", json=body) for case, body in bodies.items()
        }

        assert {case: answer.status_code for case, answer in answers.items()} == dict.fromkeys(bodies, 422)
        assert leaks(*answers.values()) == []

    async def test_credentials_are_deleted_one_by_one_and_together(self, client):
        """What is missing then is said."""
        await client.put("/platforms/bell/credentials", json={"credentials": {"spare": "x", "other": "y"}})
        answers = [
            await client.delete("/platforms/bell/credentials", params=params)
            for params in ({"name": "spare"}, {"name": "spare"}, {})
        ]

        assert [answer.json() for answer in answers] == [{"deleted": 1}, {"deleted": 0}, {"deleted": 2}]
        assert (await client.get("/platforms/bell")).json()["missing"] == ["token"]

    async def test_a_platform_is_switched_off_and_on(self, house, client):
        """Off keeps what is queued unless it is recalled; on may be for tests only."""
        await house.sell("A1")
        off = await client.put("/platforms/bell", json={"enabled": False})
        await house.deliver()
        kept = await house.states()
        await client.put("/platforms/bell", json={"enabled": False, "recall": True})
        on = await client.put("/platforms/bell", json={"enabled": True, "test_code": "T1"})

        assert (off.json()["enabled"], kept, house.exchange.heard) == (False, {"A1": "pending"}, [])
        assert await house.states() == {"A1": "skipped: recalled"}
        assert (on.json()["enabled"], on.json()["test_code"]) == (True, "T1")

    async def test_a_switch_that_contradicts_itself_is_refused(self, client):
        """422 names the value."""
        wrong = (
            ("bell", {"enabled": True, "recall": True}, "recall"),
            ("bell", {"enabled": False, "test_code": "T1"}, "test_code"),
            ("meta", {"enabled": True, "test_code": " "}, "test_code"),
            ("bell", {"enabled": "yes"}, "enabled"),
            ("bell", {}, "enabled"),
        )
        for path, body, where in wrong:
            answer = await client.put(f"/platforms/{path}", json=body)

            assert (answer.status_code, [e["loc"] for e in answer.json()["errors"]]) == (422, [where])

    async def test_trying_out_says_what_the_platform_said(self, house, client):
        """In test mode; nothing is kept."""
        house.exchange.then(
            told(400, everybody={"status": "permanent", "code": "100", "message": f"bad {EMAIL}"})
        )
        answer = await client.post("/platforms/bell/test", json={"code": "T7"})

        assert answer.json() == {"status": "permanent", "code": "100", "message": "bad …"}
        assert house.exchange.bodies[0]["test"] == "T7"
        assert await house.ask("SELECT count(*) FROM dispatches") == [(0,)]

    async def test_an_invented_sale_is_never_sent_for_real(self, client, house):
        """Meta would count it without a code, so one is asked for; without credentials nothing is sent either."""
        no_code = await client.post("/platforms/meta/test", json={})
        no_credentials = await client.post("/platforms/meta/test", json={"code": "TEST1"})

        assert (no_code.status_code, no_code.json()["errors"][0]["loc"]) == (422, "test_code")
        assert no_credentials.status_code == 409
        assert "missing access_token, pixel_id" in no_credentials.json()["detail"]
        assert house.exchange.bodies == []

    async def test_a_platform_that_the_settings_do_not_have_is_unknown(self, client):
        """A typing error must not look like success."""
        answers = [
            await client.request(method, f"/platforms/bel{path}", json=body)
            for method, path, body in (
                ("GET", "", None),
                ("PUT", "", {"enabled": True}),
                ("PUT", "/credentials", {"credentials": {"token": TOKEN}}),
                ("DELETE", "/credentials", None),
                ("POST", "/test", {}),
            )
        ]

        assert [answer.status_code for answer in answers] == [404] * 5
        assert leaks(*answers) == []


class TestDispatches:
    async def test_each_is_shown_with_its_outcome_and_without_its_person(self, house, client):
        """One that waits says when it is tried next, one that was given up says why."""
        house.exchange.then(
            told(
                A1={"status": "retry", "code": "busy", "message": f"{EMAIL} later"},
                A2={"status": "permanent", "code": "bad"},
            )
        )
        await house.sell("A1", "A2")
        await house.deliver()
        listed = await client.get("/dispatches")
        shown = [await client.get(f"/dispatches/{one['id']}") for one in listed.json()["data"]]

        by_state = {one["state"]: one for one in listed.json()["data"]}
        assert (by_state["retry_wait"]["code"], by_state["retry_wait"]["message"]) == ("busy", "… later")
        assert by_state["retry_wait"]["next_at"] is not None
        assert (by_state["dead"]["reason"], by_state["dead"]["next_at"]) == ("bad", None)
        assert by_state["dead"]["shown"]["match_keys"] == ["email ✓", "phone ✓", "external_id ✓"]
        assert [answer.json() for answer in shown] == listed.json()["data"]
        assert leaks(listed, *shown) == []

    async def test_the_list_is_walked_and_narrowed_down(self, house, client):
        """By cursor, state, target and conversion."""
        for number in range(3):
            await house.sell(f"A{number}")
            house.clock.advance(timedelta(minutes=1))
        first = (await client.get("/dispatches", params={"limit": 2})).json()
        cursor = first["page"]["next_cursor"]
        second = (await client.get("/dispatches", params={"limit": 2, "cursor": cursor})).json()
        event = second["data"][0]["event_id"]

        async def found(**query: str) -> int:
            return len((await client.get("/dispatches", params=query)).json()["data"])

        assert (len(first["data"]), first["page"]["has_more"]) == (2, True)
        assert (len(second["data"]), second["page"]["has_more"]) == (1, False)
        assert [
            await found(state="pending"), await found(state="dead"), await found(target="bell"),
            await found(target="meta"), await found(event_id=event),
        ] == [3, 0, 3, 0, 1]  # fmt: skip

    async def test_one_is_sent_again_under_its_own_id(self, house, client):
        """Once; while it is under way there is nothing to send again."""
        await house.sell("A1")
        await house.deliver()
        (one,) = (await client.get("/dispatches")).json()["data"]
        again = await client.post(f"/dispatches/{one['id']}/replay")
        twice = await client.post(f"/dispatches/{one['id']}/replay")
        await house.deliver()

        assert (again.status_code, again.json()["state"], twice.status_code) == (200, "pending", 409)
        assert house.exchange.keys == ["A1", "A1"]
        assert len(house.exchange.ids["A1"]) == 1

    async def test_all_that_were_given_up_are_sent_again(self, house, client):
        """And nothing else."""
        house.exchange.then(told(A1={"status": "permanent"}, A2={"status": "permanent"}))
        await house.sell("A1", "A2", "A3")
        await house.deliver()
        answers = [
            await client.post("/dispatches/replay", json={"target": target}) for target in ("meta", "bell")
        ]
        await house.deliver()

        assert [answer.json() for answer in answers] == [{"replayed": 0}, {"replayed": 2}]
        assert await house.states() == dict.fromkeys(("A1", "A2", "A3"), "delivered")

    async def test_coverage_and_deliveries_per_hour(self, house, client):
        """Figures as the outbox has them."""
        house.exchange.then(told(A2={"status": "permanent", "code": "bad"}))
        await house.sell("A1", "A2")
        await house.deliver()
        hour = house.clock.now.isoformat().replace("+00:00", "Z")
        house.clock.advance(timedelta(minutes=5))
        coverage = (await client.get("/dispatches/coverage")).json()["data"]
        hours = (await client.get("/dispatches/by-hour")).json()["data"]

        assert coverage == [
            {
                "target": "bell",
                "dispatches": 2,
                "keys": {name: {"number": 2, "share": 1.0} for name in ("email", "external_id", "phone")},
            }
        ]
        assert [(one["hour"], one["target"], one["state"], one["number"]) for one in hours] == [
            (hour, "bell", "dead", 1),
            (hour, "bell", "delivered", 1),
        ]

    async def test_a_query_that_cannot_be_one_is_refused(self, client):
        """422 names the parameter."""
        wrong = (
            ("", {"state": "broken"}, "state"),
            ("", {"limit": "0"}, "limit"),
            ("", {"cursor": "x"}, "cursor"),
            ("", {"event_id": "A1"}, "event_id"),
            ("", {"platform": "bell"}, "platform"),
            ("/by-hour", {"since": "2026-01-01T00:00:00Z"}, "since"),
            ("/by-hour", {"since": "2026-11-01T00:00:00"}, "since"),
            ("/coverage", {"since": "2027-01-01T00:00:00Z"}, "since"),
            ("/coverage", {"until": "0001-01-01T00:00:00Z"}, "until"),
        )
        for path, query, where in wrong:
            answer = await client.get(f"/dispatches{path}", params=query)

            assert (answer.status_code, [e["loc"] for e in answer.json()["errors"]]) == (422, [where]), query

    async def test_what_is_not_there_is_not_found(self, house, client):
        """Somebody else's is no more there than one that never was."""
        await house.sell("A1")
        found = (await client.get("/dispatches")).json()["data"][0]["id"]
        for one in (found, str(UUID(int=5)), "A1"):
            for answer in (
                await client.get(f"/dispatches/{one}", headers=key("other")),
                await client.post(f"/dispatches/{one}/replay", headers=key("other")),
            ):
                assert answer.status_code == 404
        assert (await client.get("/dispatches", headers=key("other"))).json()["data"] == []


class TestWebhooks:
    async def test_a_secret_is_shown_once_and_an_address_never(self, client):
        """The answer that made it has it; no later one does."""
        made = await client.post("/webhooks", json={"url": ADDRESS, "events": ["sale.created"]})
        webhook = made.json()
        later = [await client.get("/webhooks"), await client.get(f"/webhooks/{webhook['id']}")]

        assert (made.status_code, webhook["host"], webhook["events"]) == (
            201, "receiver.example", ["sale.created"],
        )  # fmt: skip
        assert webhook["secret"].startswith("whsec_")
        assert later[0].json()["data"] == [later[1].json()]
        assert "secret" not in later[1].json()
        assert webhook["secret"] not in later[0].text + later[1].text
        assert leaks(made, *later) == []

    async def test_it_is_changed_given_a_new_secret_and_deleted(self, client):
        """Each change shows the webhook as it then is."""
        made = (await client.post("/webhooks", json={"url": ADDRESS})).json()
        url = f"/webhooks/{made['id']}"
        changed = await client.patch(
            url, json={"url": "https://other.example/x", "events": ["*"], "enabled": False}
        )
        renewed = await client.post(f"{url}/secret")
        gone = await client.delete(url)

        assert (changed.json()["host"], changed.json()["enabled"]) == ("other.example", False)
        assert renewed.json()["secret"] not in ("", made["secret"])
        assert (gone.status_code, gone.json()) == (200, {"waiting": 0})
        assert [(await client.get(url)).status_code, (await client.delete(url)).status_code] == [404, 404]

    async def test_it_is_tried_out_with_a_notice_of_nothing(self, database_url, config, clock):
        """A real receiver hears one signed notice, also while it is off; its answer is told, and nothing is kept."""
        principals = {"secret": Principal(config.workspace, "secret", "server one")}
        settings = dataclasses.replace(config, authenticate=lambda token, _: principals.get(token))
        receiver = Receiver(clock)
        with serving(receiver):
            async with (
                a_shop(database_url, settings, clock, webhook_networks=["127.0.0.0/8"]) as house,
                asked(house) as client,
            ):
                address = f"{receiver.address}{receiver.path}"
                made = (await client.post("/webhooks", json={"url": address})).json()
                url, receiver.secrets = f"/webhooks/{made['id']}", [made["secret"]]
                await client.patch(url, json={"enabled": False})
                receiver.next(Honest(), BROKEN)
                answers = [await client.post(f"{url}/test") for _ in range(2)]
                after, kept = (await client.get(url)).json(), (await client.get("/dispatches")).json()["data"]

        assert [answer.json() for answer in answers] == [
            {"status": "delivered", "code": "http_200", "message": "HTTP 200"},
            {"status": "retry", "code": "http_500", "message": "HTTP 500"},
        ]
        assert [notice.type for notice in receiver.told] == ["webhook.test"]
        assert (after["enabled"], after["failing_since"], kept) == (False, None, [])

    async def test_what_it_was_told_is_listed_and_sent_again(self, house, client):
        """Under its target, as for any platform; with the same ids."""
        made = (await client.post("/webhooks", json={"url": ADDRESS})).json()
        await house.sell("A1")
        query = {"target": made["target"]}
        (before,) = (await client.get("/dispatches", params=query)).json()["data"]
        async with house.analytics.database.begin() as conn:
            t = house.analytics.database.tables.dispatches
            await conn.execute(t.update().where(t.c.target == made["target"]).values(state="dead"))
        answer = await client.post(f"/webhooks/{made['id']}/replay", json={})
        (after,) = (await client.get("/dispatches", params=query)).json()["data"]

        assert before["shown"] == {
            "event": "sale.created", "amount_cents": 4900, "currency": "EUR", "match_keys": [],
        }  # fmt: skip
        assert answer.json() == {"replayed": 1}
        assert (after["id"], after["event_id"], after["state"]) == (
            before["id"],
            before["event_id"],
            "pending",
        )

    async def test_a_webhook_that_cannot_be_one_is_refused(self, client):
        """422 names the member and does not repeat an address."""
        wrong = (
            ({"url": "http://receiver.example/T0p-secret"}, "url"),
            ({"url": "T0p-secret"}, "url"),
            ({"url": ADDRESS, "events": ["sale"]}, "events[0]"),
            ({"url": ADDRESS, "events": []}, "events"),
            ({"url": ADDRESS, "secret": "s3cret"}, "secret"),
        )
        for body, where in wrong:
            answer = await client.post("/webhooks", json=body)

            assert (answer.status_code, [e["loc"] for e in answer.json()["errors"]]) == (422, [where])
            assert leaks(answer) == []

    async def test_another_workspace_knows_nothing_of_it(self, client):
        """Neither to look at nor to change."""
        made = (await client.post("/webhooks", json={"url": ADDRESS})).json()
        url, other = f"/webhooks/{made['id']}", key("other")
        answers = [
            await client.get(url, headers=other),
            await client.patch(url, headers=other, json={"enabled": False}),
            await client.post(f"{url}/secret", headers=other),
            await client.post(f"{url}/test", headers=other),
            await client.post(f"{url}/replay", headers=other, json={}),
            await client.delete(url, headers=other),
        ]

        assert [answer.status_code for answer in answers] == [404] * 6
        assert (await client.get("/webhooks", headers=other)).json()["data"] == []


async def test_a_page_may_see_none_of_it(client):
    """A publishable key lies open in a page."""
    for path in ("/platforms", "/dispatches", "/webhooks"):
        told = [(await client.get(path, headers=key(name))).status_code for name in ("public", "nobody")]
        assert told == [403, 401]


async def test_answers_have_the_shapes_that_are_documented(house, client):
    """Every answer that the reference describes is what comes back, with no member more or less."""
    made = (await client.post("/webhooks", json={"url": ADDRESS})).json()
    await client.put("/platforms/meta/credentials", json={"credentials": {"pixel_id": "1"}})
    await house.sell("A1")
    await house.deliver()
    (one,) = (await client.get("/dispatches", params={"target": "bell"})).json()["data"]
    values = {"platform": "bell", "dispatch_id": one["id"], "webhook_id": made["id"]}
    operations = (*api_platforms.OPERATIONS, *api_dispatches.OPERATIONS, *api_webhooks.OPERATIONS)

    for operation in sorted(operations, key=lambda one: one.method == "DELETE"):
        path = operation.path.format(**values)
        response = await client.request(operation.method, path, json=operation.example)
        documented = operation.answers[response.status_code].body
        told = msgspec.convert(response.json(), documented)
        assert msgspec.to_builtins(told).keys() == response.json().keys()


def test_the_words_are_those_of_the_core():
    """Whoever makes a client from the reference can subscribe to every event and read every state."""
    assert set(get_args(Event)) == {EVERYTHING, *EVENTS}
    assert get_args(get_type_hints(DispatchAnswer)["state"]) == STATES
