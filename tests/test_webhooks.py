"""`analytics.webhooks` on a real PostgreSQL: who is told, with which secret, and when it is enough."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import timedelta
from typing import get_args

import pytest
from sqlalchemy import func, insert, select

from goodanalytics import Analytics, Config
from goodanalytics.dispatch.plan import EVERYTHING, type_of
from goodanalytics.errors import ConfigError, Conflict, InvalidInput, NotFound
from goodanalytics.facade.webhooks import EVENTS, Webhooks
from goodanalytics.platforms import Kind
from goodanalytics.store import webhooks as store
from goodanalytics.store.webhooks import Keyring
from tests.platforms.standins import a_sale

URL = "https://receiver.example/hooks/T0p-secret"
DAY = timedelta(days=1)


@pytest.fixture
async def webhooks(database, config) -> Webhooks:
    return Webhooks(config, database)


async def audit(webhooks: Webhooks) -> list[tuple[str, str | None, dict]]:
    a = webhooks.database.tables.audit
    async with webhooks.database.connect() as conn:
        return [
            (row.action, row.actor, row.details) for row in await conn.execute(select(a).order_by(a.c.id))
        ]


async def keyring(webhooks: Webhooks, webhook_id: uuid.UUID) -> Keyring:
    async with webhooks.database.connect() as conn:
        held, sealed = await store.with_secret(
            conn, webhooks.database.tables, webhooks.config.workspace, webhook_id
        )
    return store.unseal(webhooks.config.sealer, webhooks.config.workspace, held.id, sealed)


async def dispatch(webhooks: Webhooks, target: str, state: str = "pending") -> None:
    """A row of the outbox as it waits for *target*."""
    async with webhooks.database.begin() as conn:
        await conn.execute(
            insert(webhooks.database.tables.dispatches).values(
                workspace_id=webhooks.config.workspace,
                id=uuid.uuid4(),
                event_id=uuid.uuid4(),
                target=target,
                lane="main",
                kind="sale.created",
                occurred_at=webhooks.config.clock(),
                state=state,
                attempts=0,
                next_at=webhooks.config.clock(),
                sealed=b"sealed",
                shown={},
                created_at=webhooks.config.clock(),
                settled_at=webhooks.config.clock() if state in ("delivered", "skipped", "dead") else None,
            )
        )


async def outbox(webhooks: Webhooks) -> dict[tuple[str, str | None, bool], int]:
    """How many rows there are by state, reason, and whether anything of the person is left."""
    d = webhooks.database.tables.dispatches.c
    kept = d.sealed.isnot(None)
    async with webhooks.database.connect() as conn:
        found = await conn.execute(
            select(d.state, d.reason, kept, func.count()).group_by(d.state, d.reason, kept)
        )
        return {(state, reason, has): number for state, reason, has, number in found}


async def note(webhooks: Webhooks, webhook_id: uuid.UUID, **what) -> store.Disabled | None:
    async with webhooks.database.begin() as conn:
        return await store.note(
            conn,
            webhooks.database.tables,
            webhooks.config.workspace,
            webhook_id,
            now=webhooks.config.clock(),
            note_id=uuid.uuid4(),
            **what,
        )


# ── who is told ──


async def test_a_webhook_is_made_with_a_secret_that_is_shown_once(webhooks):
    """The answer holds the secret; nothing that is read later does, and it lies sealed."""
    made = await webhooks.create(URL, events=["sale.created"], actor="ada")
    (listed,) = await webhooks.list()

    assert listed == made.webhook == await webhooks.get(made.webhook)
    assert (listed.url, listed.events, listed.enabled) == (URL, ("sale.created",), True)
    assert made.secret.startswith("whsec_")
    assert made.secret not in f"{made!r}{listed!r}"
    assert "T0p" not in f"{made!r}{listed!r}"
    assert (await keyring(webhooks, listed.id)).signing(listed.created_at) == {"signing_secret": made.secret}


async def test_no_two_secrets_are_alike(webhooks):
    """Each is 32 bytes of chance."""
    made = [await webhooks.create(f"{URL}/{number}") for number in range(3)]

    assert len({each.secret for each in made}) == 3


async def test_a_secret_belongs_to_its_webhook(webhooks):
    """A sealed secret that is copied to another row, or to another workspace, cannot be opened."""
    made = await webhooks.create(URL)
    async with webhooks.database.connect() as conn:
        _, sealed = await store.with_secret(
            conn, webhooks.database.tables, webhooks.config.workspace, made.webhook.id
        )
    sealer, workspace = webhooks.config.sealer, webhooks.config.workspace

    for place in ((workspace, uuid.uuid4()), (uuid.uuid4(), made.webhook.id)):
        with pytest.raises(ConfigError) as caught:
            store.unseal(sealer, *place, sealed)
        assert made.secret not in str(caught.value)


async def test_a_workspace_sees_its_own_webhooks_only(webhooks):
    """Neither to read nor to change."""
    made = await webhooks.create(URL)
    other = uuid.uuid4()

    assert (
        await webhooks.list(workspace_id=other),
        await webhooks.get(made.webhook, workspace_id=other),
    ) == ([], None)
    for act in (
        webhooks.update(made.webhook, enabled=False, workspace_id=other),
        webhooks.rotate_secret(made.webhook, workspace_id=other),
        webhooks.delete(made.webhook, workspace_id=other),
        webhooks.replay(made.webhook, workspace_id=other),
    ):
        with pytest.raises(NotFound):
            await act
    assert (await webhooks.list())[0].enabled is True


async def test_what_is_done_by_hand_is_audited_without_the_address(webhooks):
    """Who did what to which host; the rest of the address may be a secret."""
    made = await webhooks.create(URL, actor="ada")
    await webhooks.update(made.webhook, events=["lead.created", "lead.created"], url=f"{URL}/2", actor="bob")
    await webhooks.rotate_secret(made.webhook, actor="ada")
    await webhooks.delete(made.webhook, actor="ada")

    assert await audit(webhooks) == [
        ("webhooks.create", "ada", {"host": "receiver.example", "events": ["*"]}),
        ("webhooks.update", "bob", {"host": "receiver.example", "events": ["lead.created"]}),
        ("webhooks.rotate_secret", "ada", {"host": "receiver.example"}),
        ("webhooks.delete", "ada", {"host": "receiver.example", "waiting": 0}),
    ]


def test_every_kind_of_conversion_can_be_asked_for():
    """What the outbox tells of and what a webhook may ask for are the same words."""
    assert {type_of(a_sale(kind=kind)) for kind in get_args(Kind)} == set(EVENTS)
    assert EVERYTHING == "*"


WRONG = {
    "an address": ({"url": "http://receiver.example/T0p"}, "url is not https"),
    "an event": ({"url": URL, "events": ["sale.deleted"]}, "sale.deleted"),
    "no events": ({"url": URL, "events": []}, "give a list"),
    "a word for a list": ({"url": URL, "events": "sale.created"}, "give a list"),
}


@pytest.mark.parametrize(("said", "expected"), WRONG.values(), ids=WRONG)
async def test_what_is_not_usable_is_refused(webhooks, said, expected):
    """With the value and the cure, and nothing is made."""
    with pytest.raises(InvalidInput, match=expected):
        await webhooks.create(**said)

    assert await webhooks.list() == []


async def test_a_workspace_has_so_many_webhooks_and_no_more(webhooks):
    """Each event makes a row for each of them."""
    for number in range(store.MOST):
        await webhooks.create(f"{URL}/{number}")

    with pytest.raises(Conflict, match="Delete one"):
        await webhooks.create(URL)
    await webhooks.create(URL, workspace_id=uuid.uuid4())


@pytest.mark.parametrize("webhook", ["receiver", ""])
async def test_what_is_no_id_is_refused(webhooks, webhook):
    """With what to give."""
    with pytest.raises(InvalidInput, match="give a UUID"):
        await webhooks.get(webhook)


async def test_nothing_to_change_is_a_mistake(webhooks):
    """With what can be changed."""
    made = await webhooks.create(URL)

    with pytest.raises(InvalidInput, match="url, events, enabled"):
        await webhooks.update(made.webhook)


# ── secrets change ──


async def test_the_secret_before_signs_for_a_day(webhooks, clock):
    """So that a receiver can change it without losing a notice."""
    made = await webhooks.create(URL)
    changed = await webhooks.rotate_secret(made.webhook)
    held = await keyring(webhooks, made.webhook.id)

    now = clock()
    assert made.secret != changed.secret
    assert held.signing(now) == {"signing_secret": changed.secret, "previous_signing_secret": made.secret}
    assert held.signing(now + DAY) == {"signing_secret": changed.secret}
    assert made.secret not in f"{held!r}{held}"


async def test_of_two_changes_the_last_counts(webhooks, clock):
    """The one before the last signs; the one before that does not."""
    made = await webhooks.create(URL)
    first = await webhooks.rotate_secret(made.webhook)
    second = await webhooks.rotate_secret(made.webhook)

    assert (await keyring(webhooks, made.webhook.id)).signing(clock()) == {
        "signing_secret": second.secret,
        "previous_signing_secret": first.secret,
    }


async def test_a_secret_outlives_the_secret_key(webhooks, config: Config):
    """What the former secret key sealed can be opened and changed as long as that key is known."""
    made = await webhooks.create(URL)
    later = dataclasses.replace(
        config, secret_key="another-for-tests-" + "0" * 32, previous_secret_keys=[config.secret_key]
    )
    lost = dataclasses.replace(config, secret_key="another-for-tests-" + "0" * 32)

    assert (await keyring(Webhooks(later, webhooks.database), made.webhook.id)).secret == made.secret
    with pytest.raises(ConfigError, match="previous_secret_keys"):
        await Webhooks(lost, webhooks.database).rotate_secret(made.webhook)


# ── what waits ──


async def test_what_waits_for_a_deleted_webhook_is_skipped(webhooks):
    """It goes out no more, nothing of the person is kept of it, and other targets are left alone."""
    made, other = [await webhooks.create(f"{URL}/{number}") for number in range(2)]
    for state in ("pending", "retry_wait", "paused_credentials", "delivered", "dead"):
        await dispatch(webhooks, made.webhook.target, state)
    await dispatch(webhooks, other.webhook.target)

    waiting = await webhooks.delete(made.webhook)

    assert (waiting, [each.id for each in await webhooks.list()]) == (3, [other.webhook.id])
    assert await outbox(webhooks) == {
        ("skipped", "webhook_deleted", False): 3,
        ("delivered", None, False): 1,
        ("dead", None, False): 1,
        ("pending", None, True): 1,
    }


async def test_a_deleted_webhook_is_not_there(webhooks):
    """A second deletion says so."""
    made = await webhooks.create(URL)
    await webhooks.delete(made.webhook)

    with pytest.raises(NotFound):
        await webhooks.delete(made.webhook)


async def test_what_is_dead_can_be_sent_again(webhooks):
    """Under the ids that it has; what was delivered stays, unless it is asked for."""
    made, other = [await webhooks.create(f"{URL}/{number}") for number in range(2)]
    for webhook, state in ((made, "dead"), (made, "delivered"), (other, "dead")):
        await dispatch(webhooks, webhook.webhook.target, state)

    again = await webhooks.replay(made.webhook)

    assert len(again) == 1
    assert await outbox(webhooks) == {
        ("pending", None, True): 1,
        ("delivered", None, True): 1,
        ("dead", None, True): 1,
    }


async def test_a_time_without_a_zone_is_refused(webhooks, clock):
    """Nobody could say which events are meant."""
    made = await webhooks.create(URL)

    with pytest.raises(InvalidInput, match="aware"):
        await webhooks.replay(made.webhook, since=clock().replace(tzinfo=None))


# ── when it is enough ──


async def failed_for(webhooks: Webhooks, clock, webhook_id: uuid.UUID, days: int):
    """What every failure of so many days came to, one a day."""
    found = [await note(webhooks, webhook_id, failed=True)]
    for _ in range(days):
        clock.advance(DAY)
        found.append(await note(webhooks, webhook_id, failed=True))
    return found


async def test_five_days_of_failures_switch_it_off(webhooks, clock):
    """Once, with a row in the audit that says why and since when, and with what has to be told to the host."""
    made = await webhooks.create(URL)
    start = clock()

    *before, last, after = await failed_for(webhooks, clock, made.webhook.id, 6)

    held = await webhooks.get(made.webhook)
    assert before == [None] * 5
    assert after is None
    assert (last.webhook.id, last.reason) == (made.webhook.id, "it only failed for 5 days")
    assert (held.enabled, held.failing_since, held.disabled_at) == (False, start, start + 5 * DAY)
    assert (await audit(webhooks))[-1] == (
        "webhooks.disable",
        None,
        {"host": "receiver.example", "failing_since": start.isoformat()},
    )


async def test_a_success_starts_the_count_anew(webhooks, clock):
    """Only uninterrupted failure is enough."""
    made = await webhooks.create(URL)
    await failed_for(webhooks, clock, made.webhook.id, 4)
    await note(webhooks, made.webhook.id, failed=False)
    healthy = await webhooks.get(made.webhook)
    await failed_for(webhooks, clock, made.webhook.id, 4)

    held = await webhooks.get(made.webhook)
    assert (healthy.failing_since, held.enabled) == (None, True)


async def test_a_receiver_that_is_gone_is_believed(webhooks):
    """410 means never again."""
    made = await webhooks.create(URL)

    disabled = await note(webhooks, made.webhook.id, failed=True, gone=True)

    assert "410" in disabled.reason
    assert (await webhooks.get(made.webhook)).enabled is False


@pytest.mark.parametrize(
    "changes", [{"enabled": True}, {"url": f"{URL}/new", "enabled": True}], ids=["on", "moved"]
)
async def test_it_can_be_switched_on_again(webhooks, clock, changes):
    """What failed before is forgotten, and the breaker of the outbox too."""
    made = await webhooks.create(URL)
    await failed_for(webhooks, clock, made.webhook.id, 5)
    await dispatch(webhooks, made.webhook.target, "paused_credentials")

    held = await webhooks.update(made.webhook, **changes)
    later = await note(webhooks, made.webhook.id, failed=True)

    assert (held.enabled, held.failing_since, held.disabled_at, later) == (True, None, None, None)
    assert await outbox(webhooks) == {("pending", None, True): 1}


async def test_a_failure_after_it_was_deleted_is_nobodys(webhooks):
    """A request may still be under way."""
    made = await webhooks.create(URL)
    await webhooks.delete(made.webhook)

    assert await note(webhooks, made.webhook.id, failed=True, gone=True) is None


def test_analytics_has_its_webhooks(config):
    """As `analytics.webhooks`."""
    analytics = Analytics("postgresql+asyncpg://nobody@127.0.0.1/nothing", config)

    assert isinstance(analytics.webhooks, Webhooks)


# ── settings ──


def test_networks_of_ones_own_are_named_in_the_settings(config):
    """As text, or through the environment; none unless somebody says so."""
    environment = {"GA_SECRET_KEY": config.secret_key, "GA_WEBHOOK_NETWORKS": "10.1.2.0/24, ::1"}

    read = Config.from_env("GA_", environment)

    assert config.webhook_networks == ()
    assert [str(network) for network in read.webhook_networks] == ["10.1.2.0/24", "::1/128"]


@pytest.mark.parametrize("wrong", ["10.1.2.0/24", ["localhost"]], ids=["no list", "a name"])
def test_what_is_no_network_stops_the_start(config, wrong):
    """A name could lead anywhere tomorrow."""
    with pytest.raises(ConfigError, match="webhook_networks"):
        dataclasses.replace(config, webhook_networks=wrong)
