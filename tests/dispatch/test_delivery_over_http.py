"""
From `analytics.sale` to the platforms' servers: the outbox, the dispatcher, the dialects and real HTTP, all in one.

The stand-ins check every request. All runs here log everything, and `nothing_told` looks for secrets and persons in the log, in
every table and in what the API shows.
"""

from __future__ import annotations

import dataclasses
import logging
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from goodanalytics import Analytics
from goodanalytics.platforms import Google, LinkedIn, Meta, OpenAI, TikTok
from tests.standins import Cut, Elsewhere, Honest, Instead, Response, Stage, StandIn, page, serving
from tests.standins import google as google_page
from tests.standins import linkedin as linkedin_page
from tests.standins import meta as meta_page
from tests.standins import openai as openai_page
from tests.standins import tiktok as tiktok_page
from tests.standins.receiver import BROKEN, GONE, Receiver

EMAIL, PHONE = "Ada.Lovelace@Example.org", "+44 20 7946 0018"
PLAIN = (EMAIL, EMAIL.lower(), PHONE, "442079460018", "7946 0018")
GRANTED = {"ad_user_data": "granted", "ad_personalization": "granted"}
MARKS = {
    "fbclid": "IwAR2F4-dbP0l7Mn1IawQQ",
    "gclid": "Cj0KCQjw-marks",
    "ttclid": "E.C.P.CiQAbc",
    "li_fat_id": "df5gf5-gh6t7-ph4j7h-fgf6n1",
    "oppref": "Opp-ref-1",
}
BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)


@dataclass
class Shop:
    """A host, and everybody whom it tells."""

    analytics: Analytics
    clock: Any
    stand_ins: dict[str, StandIn]
    receiver: Receiver
    secrets: dict[str, dict[str, str]]

    @property
    def everybody(self) -> dict[str, StandIn]:
        return {**self.stand_ins, "receiver": self.receiver}

    async def lands(self, name: str) -> Any:
        """A visitor who came with every platform's click id, in a browser of that name."""
        landing = "&".join(f"{mark}={value}" for mark, value in MARKS.items())
        beacon = {
            "event_id": str(uuid.uuid4()),
            "url": f"https://shop.example/?{landing}",
            "anonymous_id": name,
            "_fbp": "fb.1.1558571054389.1098115397",
        }
        transport = httpx.ASGITransport(self.analytics.tracker, client=("203.0.113.7", 1234))
        async with httpx.AsyncClient(transport=transport, base_url="https://shop.example") as browser:
            answer = await browser.post("/t/event", json=beacon, headers={"user-agent": BROWSER})
        assert answer.status_code == 202, answer.text
        await self.analytics.drain()
        return await self.analytics.resolve({"anonymous_id": name})

    async def sells(self, key: str = "A-1001", **changes: Any) -> uuid.UUID:
        """A sale to Ada, an hour after she landed; its event id."""
        visitor = await self.lands(f"browser-{key}")
        self.clock.advance(timedelta(hours=1))
        told = {"email": EMAIL, "phone": PHONE, "external_id": "Customer-42", "consent": GRANTED} | changes
        outcome = await self.analytics.sale(
            visitor, amount_cents=4900, currency="EUR", key=key, url="https://shop.example/thanks", **told
        )
        return outcome.event_id

    async def delivers(self, **later: float) -> None:
        """What is due *later* goes out, whatever becomes of it."""
        self.clock.advance(timedelta(**later))
        await self.analytics.dispatcher.deliver_due()

    async def states(self, event: uuid.UUID | None = None) -> dict[str, str]:
        """The state of each dispatch by its target, with the reason of those that have one."""
        found = await self.analytics.platforms.dispatches(event=event)
        return {each.target.partition(":")[0]: each.state for each in found.items}

    @property
    def faults(self) -> list[str]:
        return [fault for each in self.everybody.values() for fault in each.faults]

    def counted(self, event: uuid.UUID) -> dict[str, int]:
        """How many times each of them took the event."""
        names = {
            "meta": f"Purchase {event}",
            "tiktok": f"Purchase {event}",
            "openai": f"order_created {event}",
        }
        return {
            name: stand_in.accepted[names.get(name, str(event))] for name, stand_in in self.everybody.items()
        }


@pytest.fixture(scope="module")
def stage():
    stage = Stage()
    with serving(stage):
        yield stage


@pytest.fixture
async def shop(stage, database_url, config, clock, caplog) -> AsyncIterator[Shop]:
    caplog.set_level(logging.DEBUG)
    stand_ins: dict[str, StandIn] = {
        "meta": meta_page.Meta(clock),
        "google": google_page.Google(clock),
        "linkedin": linkedin_page.LinkedIn(clock),
        "tiktok": tiktok_page.TikTok(clock),
        "openai": openai_page.OpenAI(clock),
    }
    secrets = {
        "meta": meta_page.SECRETS,
        "google": google_page.secrets(),
        "linkedin": linkedin_page.SECRETS,
        "tiktok": tiktok_page.SECRETS,
        "openai": openai_page.SECRETS,
    }
    receiver = Receiver(clock)
    stage.enter(*stand_ins.values(), receiver)
    async with Elsewhere(*stand_ins.values()) as elsewhere:
        settings = dataclasses.replace(
            config,
            worker=False,
            platforms=[Meta(), Google(), LinkedIn(), TikTok(), OpenAI()],
            transport=elsewhere,
            webhook_networks=["127.0.0.0/8"],
            jitter=lambda: 1.0,
        )
        async with Analytics(database_url, settings) as analytics:
            for platform, values in secrets.items():
                await analytics.platforms.store_credentials(platform, values)
                await analytics.platforms.enable(platform)
            made = await analytics.webhooks.create(f"{receiver.address}{receiver.path}")
            receiver.secrets = [made.secret]
            known = {**secrets, "webhook": {"secret": made.secret}}
            yield Shop(analytics, clock, stand_ins, receiver, known)


async def everything(analytics: Analytics) -> dict[str, str]:
    """All rows of each table as text; sealed bytes read as hexadecimal."""
    tables = (
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = to_regnamespace(:schema) AND c.relkind = 'r'"
    )
    found = {}
    async with analytics.database.connect() as conn:
        names = await conn.execute(text(tables), {"schema": analytics.config.schema})
        for name in names.scalars().all():
            rows = await conn.execute(
                text(f'SELECT CAST(x AS text) FROM "{analytics.config.schema}"."{name}" x')
            )
            found[name] = "\n".join(rows.scalars())
    return found


async def nothing_told(shop: Shop, caplog) -> list[tuple[str, str]]:
    """Secrets and persons where they must not be; every place is named."""
    # The ids of accounts, pixels and actions open no door.
    public = ("pixel_id", "pixel_code", "customer_id", "client_id", "_action_id", "_rule_id")
    doors = [
        value
        for values in shop.secrets.values()
        for name, value in values.items()
        if not name.endswith(public)
    ]
    doors.append(shop.stand_ins["google"].office.token)
    # A key file in the clear would be written with its line breaks escaped.
    doors.append(google_page.key_file().partition("PRIVATE KEY-----")[2][2:60])
    analytics = shop.analytics
    shown = [
        await analytics.platforms.dispatches(),
        await analytics.platforms.list(),
        await analytics.webhooks.list(),
    ]
    places = {"the log": caplog.text, "what is shown": repr(shown), **await everything(analytics)}
    told = [(place, value[:12]) for place, said in places.items() for value in doors if value in said]
    # Who people are is for these tables to say, in every place where it is asked for.
    people = {"visitors", "identities", "former_identities"}
    marks = [
        (place, value)
        for place in ("the log", "what is shown")
        for value in MARKS.values()
        if value in places[place]
    ]
    return [
        *told,
        *marks,
        *((place, value) for place in places.keys() - people for value in PLAIN if value in places[place]),
    ]


EVERYBODY = ("google", "linkedin", "meta", "openai", "tiktok", "webhook")


async def test_a_sale_reaches_everybody_once(shop, caplog):
    """Each platform takes it by its own rules; Google says so half an hour later."""
    event = await shop.sells()
    before = await shop.states(event)
    await shop.delivers()
    at_once = await shop.states(event)
    await shop.delivers(minutes=31)

    assert before == dict.fromkeys(EVERYBODY, "pending")
    assert at_once == {**dict.fromkeys(EVERYBODY, "delivered"), "google": "accepted"}
    assert await shop.states(event) == dict.fromkeys(EVERYBODY, "delivered")
    assert (shop.faults, shop.counted(event)) == ([], dict.fromkeys(shop.everybody, 1))
    assert shop.receiver.told[0].type == "sale.created"
    assert shop.receiver.told[0].data["amount_cents"] == 4900
    assert await nothing_told(shop, caplog) == []


QUOTING = Instead(
    Response(status=500, headers={"x-echo": f"{EMAIL} {PHONE}"}, body=f"<p>{EMAIL} {PHONE} Bearer {meta_page.SECRETS['access_token']}</p>".encode())
)  # fmt: skip
BAD_DAYS = {
    "a proxy's page": (page(502), 1),
    "a page in a 200": (page(200), 1),
    "a page that quotes us": (QUOTING, 1),
    "a throttle": (page(429, retry_after="7"), 1),
    "a cut connection": (Cut("before"), 1),
    "an answer that got lost": (Cut("amid", keeps=True), 2),
}


@pytest.mark.parametrize(("way", "requests"), BAD_DAYS.values(), ids=BAD_DAYS)
async def test_after_a_bad_day_everybody_has_it_and_counts_it_once(shop, way, requests, caplog):
    """What failed goes out again under the same id, so that who had it all the same counts it once."""
    event = await shop.sells()
    for name, stand_in in shop.everybody.items():
        # The receiver's 200 is a success, whatever page comes with it.
        stand_in.next(
            way if name != "receiver" or way != page(200) else BROKEN,
            path="/v1/events" if name == "google" else "",
        )
    await shop.delivers()
    waiting = await shop.states(event)
    assert await nothing_told(shop, caplog) == []
    await shop.delivers(hours=1)
    await shop.delivers(hours=1)

    assert waiting == dict.fromkeys(EVERYBODY, "retry_wait")
    assert await shop.states(event) == dict.fromkeys(EVERYBODY, "delivered")
    assert (shop.faults, shop.counted(event)) == ([], dict.fromkeys(shop.everybody, requests))
    assert await nothing_told(shop, caplog) == []


async def test_a_refused_token_waits_for_another_one(shop, caplog):
    """Nothing more goes out to that platform, and nobody else waits; the new token sends what waited."""
    for stand_in, refusal in (
        (shop.stand_ins["meta"], meta_page.EXPIRED),
        (shop.stand_ins["tiktok"], tiktok_page.EXPIRED),
    ):
        stand_in.next(refusal)
    event = await shop.sells()
    await shop.delivers()
    refused = await shop.states(event)
    await shop.delivers(hours=1)
    calls = {name: len(shop.stand_ins[name].calls) for name in ("meta", "tiktok")}
    for name in calls:
        await shop.analytics.platforms.store_credentials(name, shop.secrets[name])
    await shop.delivers()

    assert (refused["meta"], refused["tiktok"]) == ("paused_credentials", "paused_credentials")
    assert calls == {"meta": 1, "tiktok": 1}
    assert await shop.states(event) == dict.fromkeys(EVERYBODY, "delivered")
    assert (shop.faults, shop.counted(event)) == ([], dict.fromkeys(shop.everybody, 1))
    assert await nothing_told(shop, caplog) == []


async def test_a_token_that_expired_is_renewed_on_the_way(shop):
    """Google's last an hour; nobody has to do anything."""
    google = shop.stand_ins["google"]
    first = await shop.sells("A-1001")
    await shop.delivers()
    google.office.expire()
    second = await shop.sells("A-1002")
    await shop.delivers()

    assert [google.accepted[str(event)] for event in (first, second)] == [1, 1]
    assert google.office.given == 2
    assert [fault for fault in shop.faults if "another token" not in fault] == []


async def test_a_bad_one_does_not_sink_its_neighbours(shop):
    """Meta refuses the whole request and says not which: it is halved until one is left."""
    meta = shop.stand_ins["meta"]
    events = [await shop.sells(f"A-{number}", email=f"ada{number}@example.org", external_id=f"C-{number}", phone=None) for number in range(4)]  # fmt: skip
    # All four, the first half, and the first of that.
    meta.next(meta_page.FAULTY, meta_page.FAULTY, meta_page.FAULTY)
    await shop.delivers()

    states = Counter([(await shop.states(event))["meta"] for event in events])
    assert states == {"delivered": 3, "dead": 1}
    assert sum(meta.accepted.values()) == 3
    assert meta.faults == []


async def test_googles_refund_waits_for_its_sale(shop):
    """A refund that came first would count as a sale: the stand-in would say so."""
    google = shop.stand_ins["google"]
    event = await shop.sells()
    refund = await shop.analytics.refund("A-1001", 1900, key="R-1")
    await shop.delivers()
    await shop.delivers(minutes=31)
    await shop.delivers(minutes=31)
    await shop.delivers(minutes=31)

    assert dict(google.accepted) == {str(event): 1, f"restated {event} 30.00": 1}
    assert (await shop.states(refund.event_id))["google"] == "delivered"
    assert shop.faults == []


async def test_a_replay_has_the_same_id(shop):
    """Who has it already counts it once."""
    event = await shop.sells()
    await shop.delivers()
    again = await shop.analytics.platforms.replay_all(states=["delivered"])
    await shop.delivers()

    assert again == 5  # Google has not said yet
    assert shop.counted(event) == {**dict.fromkeys(shop.everybody, 2), "google": 1}
    assert shop.faults == []


async def test_who_said_no_is_told_of_to_nobody(shop):
    """Consent is about ad platforms; the host's own receiver is told."""
    event = await shop.sells(consent={"ad_user_data": "denied", "ad_personalization": "denied"})
    await shop.delivers()

    assert await shop.states(event) == {**dict.fromkeys(EVERYBODY, "skipped"), "webhook": "delivered"}
    assert sum(shop.counted(event).values()) == shop.counted(event)["receiver"] == 1


async def test_a_receiver_that_moved_is_not_followed(shop):
    """It is failing until somebody says where it is now."""
    elsewhere = Receiver(shop.clock)
    elsewhere.secrets = shop.receiver.secrets
    event = await shop.sells()
    with serving(elsewhere):
        shop.receiver.next(
            Instead(Response(status=308, headers={"location": f"{elsewhere.address}{elsewhere.path}"}))
        )
        await shop.delivers()
        (webhook,) = await shop.analytics.webhooks.list()
        waiting = (await shop.states(event))["webhook"]
        followed = len(elsewhere.calls)
        await shop.analytics.webhooks.update(webhook, url=f"{elsewhere.address}{elsewhere.path}")
        await shop.delivers(hours=1)

    assert (waiting, followed, len(shop.receiver.calls)) == ("retry_wait", 0, 1)
    assert (await shop.states(event))["webhook"] == "delivered"
    assert (elsewhere.faults, dict(elsewhere.accepted)) == ([], {str(event): 1})


async def test_a_receiver_inside_is_not_reached_unless_it_was_named(shop, database_url):
    """Without `webhook_networks` a webhook on loopback gets nothing, whatever somebody stored as its address."""
    event = await shop.sells()
    settings = dataclasses.replace(shop.analytics.config, webhook_networks=[])
    async with Analytics(database_url, settings) as strict:
        await strict.dispatcher.deliver_due()

    dispatch = next(each for each in (await shop.analytics.platforms.dispatches(event=event)).items if each.target.startswith("webhook"))  # fmt: skip
    assert (dispatch.state, dispatch.code) == ("retry_wait", "address_not_public")
    assert shop.receiver.calls == []


# ── receivers of the host's own ──


async def test_while_a_secret_changes_a_receiver_with_either_is_told(shop):
    """For a day both sign; then the former one does no more."""
    (webhook,) = await shop.analytics.webhooks.list()
    former = shop.receiver.secrets
    changed = await shop.analytics.webhooks.rotate_secret(webhook)
    events = []
    for number, believed in enumerate([former, [changed.secret]]):
        shop.receiver.secrets = believed
        events.append(await shop.sells(f"A-{number}"))
        await shop.delivers()
    during = list(shop.faults)
    shop.receiver.secrets = former
    events.append(await shop.sells("A-2"))
    await shop.delivers(days=1)

    assert (during, dict(shop.receiver.accepted)) == ([], {str(event): 1 for event in events[:2]})
    assert [fault.partition(": ")[2] for fault in shop.receiver.faults] == ["no signature is right"]


async def test_a_receiver_that_is_gone_is_told_nothing_more(shop, caplog):
    """410 switches it off at once; the host is told, what comes later is not queued for it, and everybody else goes on."""
    told = []
    shop.analytics.hooks.on("webhook_disabled")(told.append)
    shop.receiver.next(GONE)
    first = await shop.sells("A-1001")
    await shop.delivers()
    second = await shop.sells("A-1002")
    await shop.delivers()

    await shop.analytics.hooks.settle()
    (webhook,) = await shop.analytics.webhooks.list()
    assert [each.webhook for each in told] == [webhook]
    assert (webhook.enabled, len(shop.receiver.calls)) == (False, 1)
    assert (await shop.states(first))["webhook"] == "dead"
    assert "webhook" not in await shop.states(second)
    assert f"webhook {webhook.id} is switched off" in caplog.text
    assert await nothing_told(shop, caplog) == []


async def test_a_receiver_that_fails_for_days_is_switched_off_and_what_waits_is_kept(shop, caplog):
    """Nobody knocks for ever. When it is switched on again, what waited goes out under its own id."""
    event = await shop.sells()
    shop.receiver.usual = BROKEN
    for _ in range(6):
        await shop.delivers(days=1)
    (webhook,) = await shop.analytics.webhooks.list()
    calls = len(shop.receiver.calls)
    await shop.delivers(hours=1)
    silent = len(shop.receiver.calls) == calls
    shop.receiver.usual = Honest()
    await shop.analytics.webhooks.update(webhook, enabled=True)
    await shop.delivers(minutes=1)

    assert (webhook.enabled, webhook.disabled_at is not None, silent) == (False, True, True)
    assert "it only failed for 5 days" in caplog.text
    assert (await shop.states(event))["webhook"] == "delivered"
    assert (shop.receiver.faults, dict(shop.receiver.accepted)) == ([], {str(event): 1})


async def test_what_waits_for_a_deleted_receiver_goes_nowhere(shop):
    """Nor does anything that happens later."""
    event = await shop.sells()
    (webhook,) = await shop.analytics.webhooks.list()
    await shop.analytics.webhooks.delete(webhook)
    await shop.delivers()

    assert (await shop.states(event))["webhook"] == "skipped"
    assert shop.receiver.calls == []
