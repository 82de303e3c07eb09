"""
`goodanalytics webhooks …`: who else is told of leads, sales and refunds, on the command line.

1. An address may be a secret: it is read from a prompt or the standard input, and only its host is printed.
2. A signing secret is printed once, by the command that makes it.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from goodanalytics.cli.told import FINISHED, UNREADABLE, Told, command, refuse_typed, secret_of

if TYPE_CHECKING:
    from goodanalytics.facade.webhooks import WithSecret
    from goodanalytics.store.webhooks import Webhook

FACTS: Final = (
    "id", "host", "target", "events", "enabled", "failing_since", "disabled_at", "created_at", "updated_at",
)  # fmt: skip
"""What is told of a webhook, as over REST."""


@click.group()
def webhooks() -> None:
    """
    Receivers of your own: add them, try them out, and send again what they missed.

    What each was told: goodanalytics platforms dispatches --target webhook:ID
    """


@webhooks.command("list")
@command()
async def list_webhooks(told: Told) -> None:
    """Say how each stands, the oldest first."""
    found = await told.analytics.webhooks.list(workspace_id=told.workspace_id)
    told.say([_facts(one) for one in found], [_line(one) for one in found] or ["There are no webhooks."])


@webhooks.command("add")
@click.argument("rest", nargs=-1, metavar="")
@click.option(
    "--event", "events", multiple=True, default=("*",), show_default=True,
    help="Such as sale.created, as often as you like; * is all of them, also those to come.",
)  # fmt: skip
@command(reason=UNREADABLE)
async def add(told: Told, rest: tuple[str, ...], *, events: tuple[str, ...]) -> None:
    """
    Tell somebody else from now on. The address comes from a prompt, or from the standard input.

    goodanalytics webhooks add --event sale.created < address.txt
    """
    refuse_typed(rest)
    address = secret_of("Address").strip()
    _say_secret(told, await told.analytics.webhooks.create(address, events=events, **told.who), "Added")


@webhooks.command("enable")
@click.argument("webhook", type=click.UUID)
@command()
async def enable(told: Told, webhook: UUID) -> None:
    """Tell WEBHOOK again, also what waits; that it failed is forgotten."""
    await _switch(told, webhook, enabled=True)


@webhooks.command("disable")
@click.argument("webhook", type=click.UUID)
@command()
async def disable(told: Told, webhook: UUID) -> None:
    """Tell WEBHOOK nothing until it is on again; what happens meanwhile is not told."""
    await _switch(told, webhook, enabled=False)


@webhooks.command("remove")
@click.argument("webhook", type=click.UUID)
@command()
async def remove(told: Told, webhook: UUID) -> None:
    """Delete WEBHOOK, and drop what waits for it."""
    waiting = await told.analytics.webhooks.delete(webhook, **told.who)
    told.say({"waiting": waiting}, [f"Removed; {waiting} that waited for it are not sent."])


@webhooks.command("rotate")
@click.argument("webhook", type=click.UUID)
@command(reason=UNREADABLE)
async def rotate(told: Told, webhook: UUID) -> None:
    """Make a new secret for WEBHOOK. The one before it signs too for a day."""
    _say_secret(
        told, await told.analytics.webhooks.rotate_secret(webhook, **told.who), "Made a new secret for"
    )


@webhooks.command("test")
@click.argument("webhook", type=click.UUID)
@command(reason="no secret could be read")
async def test(told: Told, webhook: UUID) -> None:
    """Send WEBHOOK a signed notice of the type webhook.test. Nothing is kept, and nothing counts."""
    verdict = await told.analytics.webhooks.test(webhook, workspace_id=told.workspace_id)
    said = {"status": verdict.status, "code": verdict.code, "message": verdict.message}
    told.say(said, [" ".join(word for word in (f"{verdict.status}:", verdict.code, verdict.message) if word)])
    if verdict.status != "delivered":
        sys.exit(1)


@webhooks.command("replay")
@click.argument("webhook", type=click.UUID)
@click.option(
    "--state", "states", multiple=True, type=click.Choice(FINISHED), default=("dead",), show_default=True
)
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="Of what happened since then, UTC.",
)
@command()
async def replay(told: Told, webhook: UUID, *, states: tuple[str, ...], since: datetime | None) -> None:
    """Send WEBHOOK again what was given up, under the ids that it has."""
    at = None if since is None else since.replace(tzinfo=UTC)
    replayed = await told.analytics.webhooks.replay(webhook, since=at, states=states, **told.who)
    told.say({"replayed": len(replayed)}, [f"{len(replayed)} are sent again."])


async def _switch(told: Told, webhook: UUID, *, enabled: bool) -> None:
    changed = await told.analytics.webhooks.update(webhook, enabled=enabled, **told.who)
    told.say(_facts(changed), [f"{changed.host} is {'on' if enabled else 'off'}."])


def _say_secret(told: Told, made: WithSecret, done: str) -> None:
    lines = [
        f"{done} {made.webhook.host}, {made.webhook.id}.",
        "Its secret, which is shown this once:",
        made.secret,
    ]
    told.say({**_facts(made.webhook), "secret": made.secret}, lines)


def _facts(webhook: Webhook) -> dict[str, Any]:
    return {name: getattr(webhook, name) for name in FACTS}


def _line(webhook: Webhook) -> str:
    standing = "on" if webhook.enabled else "off"
    if webhook.disabled_at is not None:
        standing = f"off since {webhook.disabled_at:%F %T}, it only failed"
    elif webhook.failing_since is not None:
        standing = f"{standing}, failing since {webhook.failing_since:%F %T}"
    return f"{webhook.id}  {webhook.host:30} {standing:8} {', '.join(webhook.events)}"
