"""
The pages of what goes out: ad platforms, deliveries and webhooks, and what their buttons do.

Rules of this file
1. A credential is typed in and never shown; a webhook's secret stands on the page that made it and on no other, for an
   address or a cookie would keep it.
2. Everything goes by the facades, as from Python and REST; what a button changes stands in the audit as the dashboard's.
3. Of a webhook's address only the host is shown (`store.webhooks`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from goodanalytics.config import Config
from goodanalytics.core.bounds import text
from goodanalytics.errors import Conflict, InvalidInput, NotFound
from goodanalytics.facade.platforms import Platforms, PlatformStatus
from goodanalytics.facade.webhooks import EVENTS, EVERYTHING, Webhooks, WithSecret
from goodanalytics.platforms import Platform, Renewing, Verdict
from goodanalytics.platforms.known import Trial, trial_of
from goodanalytics.store.webhooks import Webhook
from goodanalytics.web.dashboard import deliveries
from goodanalytics.web.dashboard.asked import Asked
from goodanalytics.web.dashboard.deliveries import Share
from goodanalytics.web.dashboard.forms import Act, Press, Shown

DELIVERIES_ON_PAGE: Final = 50
ACTOR: Final = "dashboard"

LONG_CREDENTIALS: Final = ("service_account", "private_key")
"""Several lines, which a field of one line would run together."""

EVENT_NAMES: Final[Mapping[str, str]] = {
    "lead.created": "Leads",
    "sale.created": "Sales",
    "refund.created": "Refunds",
    EVERYTHING: "Everything",
}


@dataclass(frozen=True, slots=True)
class Card:
    """
    A platform on its page.

    Attributes:
        title: What it calls itself.
        standing: Whether it is told of anything, in a word.
        mood: Of that word.
        credentials: Names that it needs or has; the long ones take several lines.
        trial: How it can be tried out.
        numbers: How many deliveries stand how: the state, its name, and the number.
        told: How many deliveries of the last four weeks the shares are of.
        verdict: What was said a moment ago of an invented sale, in words.
    """

    status: PlatformStatus
    title: str
    standing: str
    mood: str
    credentials: tuple[str, ...]
    long_ones: frozenset[str]
    trial: Trial
    numbers: tuple[tuple[str, str, int], ...]
    told: int
    shares: tuple[Share, ...]
    verdict: Said | None


@dataclass(frozen=True, slots=True)
class Said:
    """What a platform said of an invented sale."""

    mood: str
    text: str


@dataclass(frozen=True, slots=True)
class ToldPages:
    """What the three pages show and do."""

    config: Config
    platforms: Platforms
    webhooks: Webhooks

    @property
    def pages(self) -> Mapping[str, Callable[[Any], Awaitable[tuple[str, dict[str, Any]]]]]:
        """By path; each reads what a template shows."""
        return {
            "/platforms": self._platforms,
            "/dispatches": self._dispatches,
            "/dispatches/{dispatch_id}": self._dispatch,
            "/webhooks": self._webhooks,
        }

    @property
    def acts(self) -> Mapping[str, Act]:
        """By path; each does what a button asks for."""
        return {
            "/platforms/{platform}/switch": self._switch,
            "/platforms/{platform}/credentials": self._store,
            "/platforms/{platform}/drop": self._drop,
            "/platforms/{platform}/test": self._test,
            "/dispatches/replay": self._replay_all,
            "/dispatches/{dispatch_id}/replay": self._replay,
            "/webhooks": self._create,
            "/webhooks/{webhook_id}/change": self._change,
            "/webhooks/{webhook_id}/secret": self._renew,
            "/webhooks/{webhook_id}/test": self._ring,
            "/webhooks/{webhook_id}/replay": self._replay_webhook,
            "/webhooks/{webhook_id}/delete": self._delete,
        }

    # Ad platforms ----------------------------------------------------------------------------------------------------

    async def _platforms(self, call: Any) -> tuple[str, dict[str, Any]]:
        return "platforms.html", await self._cards(call.workspace_id)

    async def _cards(self, workspace_id: UUID, said: Mapping[str, Said] | None = None) -> dict[str, Any]:
        found = await self.platforms.list(workspace_id=workspace_id)
        coverage = {each.target: each for each in await self.platforms.coverage(workspace_id=workspace_id)}
        dialects = {platform.name: platform for platform in self.config.platforms}
        cards = []
        for status in found:
            known = coverage.get(status.name)
            card = _card(status, dialects[status.name], (said or {}).get(status.name))
            cards.append(
                card
                if known is None
                else replace(card, told=known.dispatches, shares=deliveries.shares(known))
            )
        return {"cards": cards}

    async def _switch(self, press: Press) -> str:
        name, to = self._name(press), press.typed.get("to")
        who: Any = {"actor": ACTOR, "workspace_id": press.workspace_id}
        match to:
            case "on":
                await self.platforms.enable(name, **who)
            case "test":
                await self.platforms.enable(name, test_code=press.typed.get("code", ""), **who)
            case "off":
                await self.platforms.disable(name, recall="recall" in press.typed, **who)
            case _:
                raise InvalidInput("A platform can be switched on, off, or to its test mode", where="to")
        return f"/platforms{press.asked.href()}#{name}"

    async def _store(self, press: Press) -> str:
        name = self._name(press)
        await self.platforms.store_credential(
            name, press.typed.get("name", ""), press.typed.get("value", ""), actor=ACTOR, workspace_id=press.workspace_id
        )  # fmt: skip
        return f"/platforms{press.asked.href()}#{name}"

    async def _drop(self, press: Press) -> str:
        name = self._name(press)
        await self.platforms.drop_credentials(
            name, [press.typed.get("name", "")], actor=ACTOR, workspace_id=press.workspace_id
        )
        return f"/platforms{press.asked.href()}#{name}"

    async def _test(self, press: Press) -> Shown:
        name = self._name(press)
        try:
            verdict = await self.platforms.test(
                name, press.typed.get("code", ""), workspace_id=press.workspace_id
            )
            said = _said(verdict, "platform", "sale")
        except (InvalidInput, Conflict) as error:
            said = Said("bad", str(error))
        return Shown("platforms.html", await self._cards(press.workspace_id, {name: said}))

    def _name(self, press: Press) -> str:
        name: str = press.request.path_params["platform"]
        if name not in {platform.name for platform in self.config.platforms}:
            raise NotFound("There is no such platform in the settings.")
        return name

    # Deliveries ------------------------------------------------------------------------------------------------------

    async def _dispatches(self, call: Any) -> tuple[str, dict[str, Any]]:
        asked: Asked = call.asked
        target, state = (call.typed.get(name, "").strip() for name in ("target", "state"))
        found = await self.platforms.dispatches(
            limit=DELIVERIES_ON_PAGE, cursor=call.typed.get("after") or None, target=target or None,
            state=state or None, workspace_id=call.workspace_id,
        )  # fmt: skip
        begin = deliveries.first_hour(asked.now)
        day = {"since": begin, "until": begin + timedelta(hours=deliveries.HOURS)}
        numbers = await self.platforms.by_hour(**day, workspace_id=call.workspace_id)
        webhooks = await self.webhooks.list(workspace_id=call.workspace_id)
        return "dispatches.html", {
            "deliveries": deliveries.deliveries(found.items, webhooks),
            "next_cursor": found.next_cursor,
            "after": call.typed.get("after", ""),
            "target": target,
            "state": state,
            "targets": self._targets(webhooks, target),
            "states": deliveries.STATES,
            "hours": deliveries.hours(
                [row for row in numbers if not target or row[1] == target], begin, asked.zone
            ),
        }

    async def _dispatch(self, call: Any) -> tuple[str, dict[str, Any]]:
        found = await self.platforms.dispatch(
            _id(call.request, "dispatch_id"), workspace_id=call.workspace_id
        )
        if found is None:
            raise NotFound
        webhooks = await self.webhooks.list(workspace_id=call.workspace_id)
        (shown,) = deliveries.deliveries([found], webhooks)
        return "dispatch.html", {"delivery": shown}

    async def _replay(self, press: Press) -> str:
        found = await self.platforms.replay(
            _id(press.request, "dispatch_id"), actor=ACTOR, workspace_id=press.workspace_id
        )
        return f"/dispatches/{found.id}{press.asked.href()}"

    async def _replay_all(self, press: Press) -> str:
        target = press.typed.get("target") or None
        await self.platforms.replay_all(target=target, actor=ACTOR, workspace_id=press.workspace_id)
        return f"/dispatches{press.asked.href(target=target)}"

    def _targets(self, webhooks: Sequence[Webhook], chosen: str) -> dict[str, str]:
        hosts = {webhook.target: webhook.host for webhook in webhooks}
        names = [*(platform.name for platform in self.config.platforms), *hosts]
        if chosen and chosen not in names:
            names.append(chosen)
        return {name: deliveries.target(name, hosts) for name in names}

    # Webhooks --------------------------------------------------------------------------------------------------------

    async def _webhooks(self, call: Any) -> tuple[str, dict[str, Any]]:
        return "webhooks.html", await self._receivers(call.workspace_id)

    async def _receivers(self, workspace_id: UUID, **more: Any) -> dict[str, Any]:
        return {
            "webhooks": await self.webhooks.list(workspace_id=workspace_id),
            "events": EVENT_NAMES,
            "made": None,
            "said": {},
            "typed_url": "",
            "wrong": None,
            **more,
        }

    async def _create(self, press: Press) -> Shown:
        url, events = text(press.typed.get("url", ""), 2_000) or "", _events(press.typed)
        try:
            made = await self.webhooks.create(
                url, events=events, actor=ACTOR, workspace_id=press.workspace_id
            )
        except (InvalidInput, Conflict) as error:
            wrong = {"wrong": error, "typed_url": url}
            return Shown("webhooks.html", await self._receivers(press.workspace_id, **wrong), 400)
        return await self._with_secret(press, made)

    async def _renew(self, press: Press) -> Shown:
        made = await self.webhooks.rotate_secret(
            _id(press.request, "webhook_id"), actor=ACTOR, workspace_id=press.workspace_id
        )
        return await self._with_secret(press, made)

    async def _with_secret(self, press: Press, made: WithSecret) -> Shown:
        return Shown("webhooks.html", await self._receivers(press.workspace_id, made=made))

    async def _change(self, press: Press) -> str:
        changes: dict[str, Any] = {}
        if (url := text(press.typed.get("url"), 2_000)) is not None:
            changes["url"] = url
        if "events" in press.typed:
            changes["events"] = _events(press.typed)
        if "enabled" in press.typed:
            changes["enabled"] = press.typed["enabled"] == "yes"
        webhook_id = _id(press.request, "webhook_id")
        await self.webhooks.update(webhook_id, actor=ACTOR, workspace_id=press.workspace_id, **changes)
        self.platforms.dispatcher.wake()
        return f"/webhooks{press.asked.href()}#{webhook_id}"

    async def _ring(self, press: Press) -> Shown:
        webhook_id = _id(press.request, "webhook_id")
        try:
            verdict = await self.webhooks.test(webhook_id, workspace_id=press.workspace_id)
            said = _said(verdict, "receiver", "notice")
        except Conflict as error:
            said = Said("bad", str(error))
        return Shown("webhooks.html", await self._receivers(press.workspace_id, said={webhook_id: said}))

    async def _replay_webhook(self, press: Press) -> str:
        webhook_id = _id(press.request, "webhook_id")
        await self.webhooks.replay(webhook_id, actor=ACTOR, workspace_id=press.workspace_id)
        self.platforms.dispatcher.wake()
        return f"/dispatches{press.asked.href(target=f'webhook:{webhook_id}')}"

    async def _delete(self, press: Press) -> str:
        webhook_id = _id(press.request, "webhook_id")
        await self.webhooks.delete(webhook_id, actor=ACTOR, workspace_id=press.workspace_id)
        return f"/webhooks{press.asked.href()}"


def _card(status: PlatformStatus, dialect: Platform, said: Said | None) -> Card:
    made = {"access_token"} if isinstance(dialect, Renewing) else set()
    names = tuple(sorted({*dialect.secrets - made, *status.credentials}))
    standing, mood = _standing(status)
    return Card(
        status=status,
        title=deliveries.platform(status.name),
        standing=standing,
        mood=mood,
        credentials=names,
        long_ones=frozenset(names) & frozenset(LONG_CREDENTIALS),
        trial=trial_of(dialect),
        numbers=tuple(
            (state, name, status.dispatches[state])
            for state, name in deliveries.STATES.items()
            if state in status.dispatches
        ),
        told=0,
        shares=(),
        verdict=said,
    )


def _standing(status: PlatformStatus) -> tuple[str, str]:
    if not status.enabled:
        return "Off", ""
    if status.missing or status.paused_reason is not None:
        return "Nothing goes out", "warn"
    return ("Test mode", "warn") if status.test_code is not None else ("On", "good")


def _said(verdict: Verdict, who: str, what: str) -> Said:
    """What came of a test, in which *who* was told of an invented *what*."""
    told = " · ".join(
        dict.fromkeys(part for part in (deliveries.answer(verdict.code or ""), verdict.message) if part)
    )
    if verdict.status in ("delivered", "accepted"):
        return Said("good", f"It works: the test {what} was taken.{f' {told}' if told else ''}")
    cause = {
        "credential": f"The {who} does not accept the credentials",
        "rate_limited": f"The {who} asks to wait; try again later",
        "retry": f"The {who} did not answer as it should; try again later",
        "permanent": f"The {who} refused the test {what}",
    }[verdict.status]
    return Said("bad", f"{cause}{f': {told}' if told else ''}.")


def _events(typed: Mapping[str, str]) -> list[str]:
    """What was ticked; everything when nothing was."""
    return [name for name in EVENTS if f"event:{name}" in typed] or [EVERYTHING]


def _id(request: Any, name: str) -> UUID:
    """
    The id in the path.

    Raises:
        NotFound: It is none, which is the same as an unknown one.
    """
    try:
        return UUID(request.path_params[name])
    except ValueError:
        raise NotFound("There is nothing by that id in this workspace.") from None


__all__ = ["ToldPages"]
