"""
`goodanalytics platforms …`: who is told of conversions, and what became of it, on the command line.

A secret is read from a prompt or the standard input, never from the arguments, which other users of the machine can see and
shells write down. Nothing that is printed has a secret or a person in it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from goodanalytics.cli.told import FINISHED, UNREADABLE, Told, command, refuse_typed, secret_of
from goodanalytics.core.delivery import STATES
from goodanalytics.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from goodanalytics.facade.platforms import PlatformStatus
    from goodanalytics.store.outbox_reading import Dispatch


@click.group()
def platforms() -> None:
    """
    Ad platforms: switch them on, try them out, and see what they were told.

    Platforms are those of --app, or of GOODANALYTICS_PLATFORMS (such as meta,google), or all that come with the package.
    """


@platforms.command("list")
@command()
async def list_platforms(told: Told) -> None:
    """Say how each platform stands."""
    found = await told.analytics.platforms.list(workspace_id=told.workspace_id)
    lines = [line for status in found for line in _standing(status)]
    told.say([asdict(status) for status in found], lines or ["No platform is in the settings."])


@platforms.command("enable")
@click.argument("name")
@click.option(
    "--test-code", help="Send everything in the platform's test mode; any text where it needs none."
)
@command()
async def enable(told: Told, name: str, *, test_code: str | None) -> None:
    """Tell platform NAME of every conversion from now on."""
    await told.analytics.platforms.enable(name, test_code=test_code, **told.who)
    status = await _status(told, name)
    lines = [f"{name} is on{' in test mode' if test_code is not None else ''}."]
    if status.missing:
        lines.append(
            f"Nothing goes out yet. Missing: {', '.join(status.missing)}. "
            f"Try: goodanalytics platforms credential {name} {status.missing[0]}"
        )
    told.say(asdict(status), lines)


@platforms.command("disable")
@click.argument("name")
@click.option("--recall", is_flag=True, help="Also drop what is queued; else it waits until it is on again.")
@command()
async def disable(told: Told, name: str, *, recall: bool) -> None:
    """Tell platform NAME nothing more, at once."""
    await told.analytics.platforms.disable(name, recall=recall, **told.who)
    told.say(asdict(await _status(told, name)), [f"{name} is off."])


@platforms.command("credential")
@click.argument("name")
@click.argument("credential")
@click.argument("rest", nargs=-1, metavar="")
@click.option("--delete", "is_deleting", is_flag=True, help="Delete it instead.")
@command(reason=UNREADABLE)
async def credential(
    told: Told, name: str, credential: str, rest: tuple[str, ...], *, is_deleting: bool
) -> None:
    """
    Store CREDENTIAL, such as access_token, of platform NAME. Its value comes from a prompt, or from the standard input.

    goodanalytics platforms credential google service_account < key.json
    """
    refuse_typed(rest)
    await _status(told, name)
    if is_deleting:
        gone = await told.analytics.platforms.drop_credentials(name, [credential], **told.who)
        if not gone:
            raise NotFound(f"{name} has no credential of that name. Try: goodanalytics platforms list")
    else:
        value = secret_of("Value")
        await told.analytics.platforms.store_credential(name, credential, value, **told.who)
    status = await _status(told, name)
    missing = f" Missing: {', '.join(status.missing)}." if status.missing else ""
    told.say(asdict(status), [f"{'Deleted' if is_deleting else 'Stored'} {credential} of {name}.{missing}"])


@platforms.command("test")
@click.argument("name")
@click.option("--code", default="", help="What the platform's own test page shows; some need none.")
@command(reason="no credential could be read")
async def test(told: Told, name: str, *, code: str) -> None:
    """Send an invented sale to platform NAME in its test mode. Nothing is kept, and nothing counts."""
    verdict = await told.analytics.platforms.test(name, code, workspace_id=told.workspace_id)
    said = {"status": verdict.status, "code": verdict.code, "message": verdict.message}
    told.say(said, [" ".join(word for word in (f"{verdict.status}:", verdict.code, verdict.message) if word)])
    if verdict.status not in ("delivered", "accepted"):
        sys.exit(1)


@platforms.command("rotate")
@command(reason="it is the key that everything is encrypted with anew")
async def rotate(told: Told) -> None:
    """
    Encrypt everything anew with the present secret key. After that, the former one is needed no more.

    Set GOODANALYTICS_SECRET_KEY to the new key and GOODANALYTICS_PREVIOUS_SECRET_KEYS to the former one, in the app first.
    """
    done = await told.analytics.platforms.rotate(**told.who)
    lines = [
        f"Encrypted anew: {done.credentials} credentials, {done.webhooks} secrets of webhooks, {done.dispatches} deliveries."
    ]
    if done.unreadable:
        lines.append(
            f"{done.unreadable} could not be opened: their key is not in GOODANALYTICS_PREVIOUS_SECRET_KEYS. Add it and run "
            "this again, or store those anew."
        )
    told.say(asdict(done), lines)
    if done.unreadable:
        sys.exit(1)


@platforms.command("dispatches")
@click.argument("dispatch", required=False, type=click.UUID)
@click.option("--target", help="A platform's name, or webhook: and its id.")
@click.option("--state", type=click.Choice(STATES))
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 200))
@click.option("--cursor", help="Where the page before ended.")
@command()
async def dispatches(told: Told, dispatch: UUID | None, **chosen: Any) -> None:
    """Say what was told and what became of it, the newest first; all about one DISPATCH when its id is given."""
    outbox = told.analytics.platforms
    if dispatch is not None:
        found = await outbox.dispatch(dispatch, workspace_id=told.workspace_id)
        if found is None:
            raise NotFound(f"There is no dispatch {dispatch} in this workspace")
        told.say(found.to_json(), [f"{name:14} {value}" for name, value in _particulars(found)])
        return
    page = await outbox.dispatches(workspace_id=told.workspace_id, **chosen)
    lines = [_line(one) for one in page.items] or ["Nothing fits."]
    if page.next_cursor:
        lines.append(f"There are more: --cursor {page.next_cursor}")
    told.say(
        {"data": [one.to_json() for one in page.items], "page": {"next_cursor": page.next_cursor}}, lines
    )


@platforms.command("replay")
@click.argument("dispatch", required=False, type=click.UUID)
@click.option("--target", help="A platform's name, or webhook: and its id; all of them when left out.")
@click.option(
    "--state", "states", multiple=True, type=click.Choice(FINISHED), default=("dead",), show_default=True
)
@click.option(
    "--since", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="Of conversions since then, UTC."
)
@command()
async def replay(
    told: Told, dispatch: UUID | None, *, target: str | None, states: tuple[str, ...], since: datetime | None
) -> None:
    """Send DISPATCH again, or all that were given up, under the ids that they have."""
    outbox = told.analytics.platforms
    if dispatch is None:
        at = None if since is None else since.replace(tzinfo=UTC)
        number = await outbox.replay_all(target=target, states=states, since=at, **told.who)
        told.say({"replayed": number}, [f"{number} are sent again."])
        return
    if target is not None or since is not None:
        raise InvalidInput("One dispatch is named; leave --target and --since out")
    found = await outbox.replay(dispatch, **told.who)
    told.say(found.to_json(), [_line(found)])


@platforms.command("coverage")
@command()
async def coverage(told: Told) -> None:
    """Say which match keys went along in the last four weeks."""
    found = await told.analytics.platforms.coverage(workspace_id=told.workspace_id)
    lines = []
    for each in found:
        lines.append(f"{each.target}: {each.dispatches} deliveries")
        lines += [f"  {key:12} {100 * each.share(key):5.1f}%  {number}" for key, number in each.keys.items()]
    told.say([asdict(each) for each in found], lines or ["Nothing was told in the last four weeks."])


@platforms.command("hours")
@command()
async def hours(told: Told) -> None:
    """Say how many deliveries came to which state in each hour of the last day, UTC."""
    found = await told.analytics.platforms.by_hour(workspace_id=told.workspace_id)
    names = ("hour", "target", "state", "number")
    told.say(
        [dict(zip(names, row, strict=True)) for row in found],
        [f"{hour:%Y-%m-%d %H:00}  {number:7}  {state:12} {target}" for hour, target, state, number in found]
        or ["Nothing was settled in the last day."],
    )


async def _status(told: Told, name: str) -> PlatformStatus:
    """
    How a platform stands.

    Raises:
        InvalidInput: The settings have no such platform.
    """
    found = {each.name: each for each in await told.analytics.platforms.list(workspace_id=told.workspace_id)}
    if name not in found:
        raise InvalidInput(f"There is no platform {name!r}; the settings have {', '.join(found) or 'none'}")
    return found[name]


def _standing(status: PlatformStatus) -> list[str]:
    word = "off" if not status.enabled else "on" if status.test_code is None else "on, in test mode"
    lines = [f"{status.name:10} {word:17} API {status.version:8} {_numbers(status.dispatches)}".rstrip()]
    if status.credentials:
        lines.append(f"  stored: {', '.join(status.credentials)}")
    if status.missing and (status.enabled or status.credentials):
        lines.append(f"  missing: {', '.join(status.missing)}")
    if status.paused_reason:
        until = (
            "a credential is stored" if status.paused_until is None else f"{status.paused_until:%F %T} UTC"
        )
        lines.append(f"  paused until {until}: {status.paused_reason}")
    if status.notice:
        lines.append(f"  {status.notice}")
    return lines


def _numbers(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in sorted(numbers.items()))


def _line(one: Dispatch) -> str:
    said = " ".join(dict.fromkeys(part for part in (one.reason, one.code, one.message) if part))
    next_try = f"  next {one.next_at:%F %T}" if one.next_at else ""
    return f"{one.id}  {one.occurred_at:%F %T}  {one.target:10} {one.kind:7} {one.state:12}{next_try}  {said}".rstrip()


def _particulars(one: Dispatch) -> list[tuple[str, str]]:
    told = one.to_json()
    shown = told.pop("shown")
    keys = ", ".join(shown.pop("match_keys", ()))
    return [
        *((name, str(value)) for name, value in told.items() if value is not None),
        *((name, str(value)) for name, value in shown.items()),
        ("match keys", keys or "none"),
    ]
