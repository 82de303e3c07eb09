"""
`/webhooks…`: who else is told of leads, sales and refunds.

Rules of this file
1. A secret is in one answer: that of the request that made it.
2. An address goes in and does not come out, because some addresses are secrets (`store.webhooks`); answers have its host.
3. What a webhook was told is under `/dispatches?target=webhook:{id}`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.responses import Response

from goodanalytics.core.bounds import MAX_BODY
from goodanalytics.errors import NotFound
from goodanalytics.facade.webhooks import WithSecret
from goodanalytics.store.webhooks import Webhook
from goodanalytics.web.api.dispatches import Finished, Instant, ReplayedAnswer, actor_of
from goodanalytics.web.api.operations import Answer, Call, Operation, answer, id_of, page, read_json
from goodanalytics.web.api.platforms import VerdictAnswer
from goodanalytics.web.api.visitors import PageOf

UNKNOWN: Final = "There is no such webhook in this workspace."

Event = Literal["*", "lead.created", "refund.created", "sale.created"]
Events = Annotated[
    list[Event], Meta(min_length=1, max_length=20, description="`*` is all of them, also those to come.")
]
Url = Annotated[
    str, Meta(min_length=1, max_length=2_000, description="https, on a public address. Never shown again.")
]


class NewWebhookBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is to be told."""

    url: Url
    events: Events = msgspec.field(default_factory=lambda: ["*"])


class WebhookPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is changed; what is left out stays."""

    url: Url | None = None
    events: Events | None = None
    enabled: Annotated[bool, Meta(description="On again forgets what failed.")] | None = None


class WebhookReplayBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which finished notices are sent again."""

    states: Annotated[list[Finished], Meta(min_length=1, max_length=3)] = msgspec.field(
        default_factory=lambda: ["dead"]
    )
    since: Annotated[Instant, Meta(description="Of what happened since then only.")] | None = None


class WebhookAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Somebody who is told."""

    id: UUID
    host: Annotated[str, Meta(description="Of the address, which itself is not shown.")]
    target: Annotated[str, Meta(description="Its name in the list of dispatches.")]
    events: list[str]
    enabled: bool
    failing_since: Annotated[datetime | None, Meta(description="Since when every request failed.")]
    disabled_at: Annotated[datetime | None, Meta(description="When it was switched off because of that.")]
    created_at: datetime
    updated_at: datetime


class WebhookWithSecret(WebhookAnswer, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A webhook and its new secret."""

    secret: Annotated[str, Meta(description="`whsec_…`, for the receiver. It is shown here and never again.")]


class WebhookList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All webhooks, the oldest first."""

    data: list[WebhookAnswer]
    page: PageOf


class WebhookDeleted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many notices were still waiting for it."""

    waiting: int


async def list_webhooks(call: Call) -> Response:
    """All of them."""
    found = await call.room.webhooks.list(workspace_id=call.workspace_id)
    return answer(page([_told(webhook) for webhook in found], None))


async def create(call: Call) -> Response:
    """Tell somebody else from now on."""
    body = await read_json(call.request, NewWebhookBody, MAX_BODY)
    made = await call.room.webhooks.create(
        body.url, events=body.events, actor=actor_of(call), workspace_id=call.workspace_id
    )
    return answer(_with_secret(made), 201)


async def get(call: Call) -> Response:
    """One of them."""
    found = await call.room.webhooks.get(_id(call), workspace_id=call.workspace_id)
    if found is None:
        raise NotFound(UNKNOWN)
    return answer(_told(found))


async def update(call: Call) -> Response:
    """Change one."""
    webhook_id = _id(call)
    body = await read_json(call.request, WebhookPatch, MAX_BODY)
    changed = await call.room.webhooks.update(
        webhook_id, url=body.url, events=body.events, enabled=body.enabled, actor=actor_of(call),
        workspace_id=call.workspace_id,
    )  # fmt: skip
    return answer(_told(changed))


async def delete(call: Call) -> Response:
    """Tell it nothing any more."""
    waiting = await call.room.webhooks.delete(_id(call), actor=actor_of(call), workspace_id=call.workspace_id)
    return answer({"waiting": waiting})


async def rotate(call: Call) -> Response:
    """Make a new secret."""
    made = await call.room.webhooks.rotate_secret(
        _id(call), actor=actor_of(call), workspace_id=call.workspace_id
    )
    return answer(_with_secret(made))


async def test(call: Call) -> Response:
    """Send a signed notice of nothing."""
    verdict = await call.room.webhooks.test(_id(call), workspace_id=call.workspace_id)
    return answer(VerdictAnswer(verdict.status, verdict.code, verdict.message))


async def replay(call: Call) -> Response:
    """Send finished notices again."""
    webhook_id = _id(call)
    body = await read_json(call.request, WebhookReplayBody, MAX_BODY)
    replayed = await call.room.webhooks.replay(
        webhook_id, since=body.since, states=body.states, actor=actor_of(call), workspace_id=call.workspace_id
    )
    call.room.platforms.dispatcher.wake()
    return answer({"replayed": len(replayed)})


def _id(call: Call) -> UUID:
    return id_of(call, "webhook_id", UNKNOWN)


def _told(webhook: Webhook) -> WebhookAnswer:
    return WebhookAnswer(**_facts(webhook))


def _with_secret(made: WithSecret) -> WebhookWithSecret:
    return WebhookWithSecret(secret=made.secret, **_facts(made.webhook))


def _facts(webhook: Webhook) -> dict[str, Any]:
    return {name: getattr(webhook, name) for name in WebhookAnswer.__struct_fields__}


_BY_ID: dict[str, Any] = {"webhook_id": UUID}
_UNKNOWN = {404: UNKNOWN}

OPERATIONS = (
    Operation(
        method="GET",
        path="/webhooks",
        name="listWebhooks",
        summary="List webhooks",
        respond=list_webhooks,
        answers={200: Answer("All of them, the oldest first.", WebhookList)},
    ),
    Operation(
        method="POST",
        path="/webhooks",
        name="createWebhook",
        summary="Add a webhook",
        description=(
            "What happens from now on is told as Standard Webhooks 1.0.0 describes it, signed with the secret in the answer."
        ),
        respond=create,
        body=NewWebhookBody,
        example={"url": "https://example.com/hooks", "events": ["sale.created", "refund.created"]},
        answers={201: Answer("The webhook, and its secret for the only time.", WebhookWithSecret)},
        problems={409: "The workspace has as many webhooks as it may."},
    ),
    Operation(
        method="GET",
        path="/webhooks/{webhook_id}",
        name="getWebhook",
        summary="Get a webhook",
        respond=get,
        path_types=_BY_ID,
        answers={200: Answer("The webhook.", WebhookAnswer)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="PATCH",
        path="/webhooks/{webhook_id}",
        name="updateWebhook",
        summary="Change a webhook",
        description="Another address and switching on forget what failed, and what waits goes out.",
        respond=update,
        path_types=_BY_ID,
        body=WebhookPatch,
        example={"enabled": True},
        answers={200: Answer("The webhook as it now is.", WebhookAnswer)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="DELETE",
        path="/webhooks/{webhook_id}",
        name="deleteWebhook",
        summary="Delete a webhook",
        description="What waits for it is not sent.",
        respond=delete,
        path_types=_BY_ID,
        answers={200: Answer("How many notices were waiting.", WebhookDeleted)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="POST",
        path="/webhooks/{webhook_id}/secret",
        name="rotateWebhookSecret",
        summary="Make a new secret for a webhook",
        description="The one before it signs too for a day, so that the receiver can change it without losing anything.",
        respond=rotate,
        path_types=_BY_ID,
        answers={200: Answer("The webhook, and its new secret for the only time.", WebhookWithSecret)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="POST",
        path="/webhooks/{webhook_id}/test",
        name="testWebhook",
        summary="Try a webhook out",
        description=(
            "Sends a signed notice of the type `webhook.test`, also to one that is switched off. Nothing is kept, and nothing counts."
        ),
        respond=test,
        path_types=_BY_ID,
        answers={200: Answer("What the receiver said.", VerdictAnswer)},
        problems={**_UNKNOWN, 409: "Its secret cannot be opened."},
    ),
    Operation(
        method="POST",
        path="/webhooks/{webhook_id}/replay",
        name="replayWebhook",
        summary="Send a webhook its notices again",
        description="Under the ids that they have. 2,000 at a time, the oldest first.",
        respond=replay,
        path_types=_BY_ID,
        body=WebhookReplayBody,
        example={"states": ["dead"], "since": "2026-11-01T00:00:00Z"},
        answers={200: Answer("How many those are.", ReplayedAnswer)},
        problems=_UNKNOWN,
    ),
)
