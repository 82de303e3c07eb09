"""What `goodanalytics doctor` says of ad platforms and webhooks, from rows as the dispatcher leaves them."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from sqlalchemy import insert

from goodanalytics.platforms import LinkedIn, Meta
from goodanalytics.store import health_outbox
from tests.conftest import START

WORKSPACE = uuid.UUID(int=7)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


@pytest.fixture
def put(database):
    """Write a row of a table of the workspace."""

    async def write(table: str, **values) -> None:
        async with database.begin() as conn:
            row = {"workspace_id": WORKSPACE} | values
            await conn.execute(insert(getattr(database.tables, table)).values(**row))

    return write


@pytest.fixture
def doctor(database):
    """Level and text of each finding."""

    async def ask(*platforms, now=START):
        return [(one.level, one.text) for one in await health_outbox.examine(database, platforms, now)]

    return ask


@pytest.fixture
def switched_on(put):
    """Switch Meta on, with all that it needs."""

    async def act(platform: str = "meta", stored: tuple[str, ...] = ("access_token", "pixel_id"), **values):
        row = {"enabled": True, "settings": {}, "failures": 0, "updated_at": START} | values
        await put("platform_settings", platform=platform, **row)
        for name in stored:
            await put("credentials", target=platform, name=name, sealed=b"x", key_id="1", updated_at=START)

    return act


@pytest.fixture
def dispatch(put):
    """A row of the outbox."""

    async def act(target: str = "meta", state: str = "pending", **values):
        row = {
            "id": uuid.uuid4(), "event_id": uuid.uuid4(), "lane": "main", "kind": "sale", "occurred_at": START,
            "attempts": 0, "shown": {}, "created_at": START,
        }  # fmt: skip
        await put("dispatches", target=target, state=state, **(row | values))

    return act


@pytest.fixture
def webhook(put):
    """A webhook of a fixed id."""

    async def act(**values):
        row = {
            "id": uuid.UUID(int=9), "url": "https://receiver.example/T0p-secret", "events": ["*"], "secret": b"x",
            "enabled": True, "created_at": START, "updated_at": START,
        }  # fmt: skip
        await put("webhooks", **(row | values))

    return act


async def test_nothing_to_say(doctor, switched_on, dispatch, webhook):
    """A platform that works, one that is off, and rows that wait for their time, are no findings."""
    await switched_on()
    await switched_on("linkedin", (), enabled=False)
    await dispatch(next_at=START - MINUTE)
    await dispatch("linkedin", next_at=START - DAY)
    await webhook()

    assert await doctor(Meta(), LinkedIn(api="202511")) == [
        ("ok", "nothing is wrong with ad platforms and webhooks")
    ]


@pytest.mark.parametrize(
    ("before", "level", "words"),
    [
        pytest.param(timedelta(days=80), "warning", "v21.0 ends on 2027-01-21 (in 80 days)", id="soon"),
        pytest.param(timedelta(0), "wrong", "v21.0 ended on 2027-01-21", id="today"),
    ],
)
async def test_a_version_that_ends(doctor, switched_on, before, level, words):
    """In time it is a warning; when it is over nothing works any more."""
    await switched_on()
    old = Meta(api="v21.0")
    now = START.replace(year=old.version.sunset.year, month=1, day=21) - before
    ((found, text),) = await doctor(old, now=now)

    assert (found, words in text) == (level, True)


async def test_a_platform_that_the_settings_do_not_have(doctor, switched_on):
    """It is switched on and would never be told anything."""
    await switched_on("pinterest", ())
    ((level, text),) = await doctor(Meta())

    assert level == "warning"
    assert f"pinterest in workspace {WORKSPACE} is switched on and is not in the settings" in text


async def test_missing_credentials(doctor, switched_on):
    """The command that stores the first one is named."""
    await switched_on(stored=("access_token",))
    ((level, text),) = await doctor(Meta())

    assert (level, "it misses pixel_id" in text) == ("warning", True)
    assert text.endswith("goodanalytics platforms credential meta pixel_id")


async def test_a_refused_credential(doctor, switched_on):
    """A pause that ends by itself is no finding, one that waits for somebody is."""
    await switched_on(paused_reason="credentials: 190", paused_at=START)
    await switched_on("linkedin", ("access_token", "lead_rule_id", "sale_rule_id"), paused_reason="rate_limited",
                      paused_at=START, paused_until=START + MINUTE)  # fmt: skip
    ((level, text),) = await doctor(Meta(), LinkedIn())

    assert (level, "meta in workspace" in text, "(credentials: 190)" in text) == ("warning", True, True)


@pytest.mark.parametrize(
    ("values", "number"),
    [
        pytest.param({"next_at": START - DAY}, 1, id="due since yesterday"),
        pytest.param({"next_at": START - DAY, "leased_until": START - MINUTE}, 1, id="its worker died"),
        pytest.param({"next_at": START - DAY, "leased_until": START + MINUTE}, 0, id="being sent"),
        pytest.param({"next_at": START - 5 * MINUTE}, 0, id="due a moment ago"),
        pytest.param({"next_at": None, "state": "delivered"}, 0, id="delivered"),
        pytest.param({"next_at": START - DAY, "target": f"webhook:{uuid.UUID(int=9)}"}, 1, id="a webhook's"),
        pytest.param({"next_at": START - DAY, "target": "webhook:gone"}, 0, id="of a deleted webhook"),
    ],
)
async def test_deliveries_that_nobody_sends(doctor, switched_on, dispatch, webhook, values, number):
    """Due for a quarter of an hour, and in nobody's hand."""
    await switched_on()
    await webhook()
    await dispatch(**values)
    ((_, text),) = await doctor(Meta())

    assert text.startswith("1 deliveries are due" if number else "nothing is wrong")


async def test_what_waits_for_a_paused_platform_is_not_stuck(doctor, switched_on, dispatch):
    """The pause is the finding."""
    await switched_on(paused_reason="credentials: 190", paused_at=START)
    await dispatch(next_at=START - DAY)
    ((_, text),) = await doctor(Meta())

    assert "is paused" in text


async def test_deliveries_that_were_given_up(doctor, dispatch):
    """In the last day, each target by itself."""
    await dispatch(state="dead", settled_at=START - MINUTE)
    await dispatch(state="dead", settled_at=START - 2 * DAY)
    ((level, text),) = await doctor(Meta())

    assert (level, text.startswith("1 deliveries to meta were given up")) == ("warning", True)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        pytest.param({"enabled": False, "disabled_at": START}, "was switched off by its failures", id="off"),
        pytest.param({"failing_since": START - DAY}, "fails since 2026-10-31", id="failing"),
    ],
)
async def test_a_webhook_that_fails(doctor, webhook, values, words):
    """By its id: its address may be a secret."""
    await webhook(**values)
    ((level, text),) = await doctor()

    assert (level, words in text, "T0p-secret" in text) == ("warning", True, False)
    assert str(uuid.UUID(int=9)) in text
