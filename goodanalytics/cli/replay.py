"""What `goodanalytics replay` shows: a list, a progress bar on stderr, and one closing sentence or JSON object on stdout."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Protocol, TypeVar

import click
import msgspec

from goodanalytics.config import Config
from goodanalytics.log import rejected
from goodanalytics.store import reclassify as store
from goodanalytics.store.database import Database


class _Counted(Protocol):
    @property
    def total(self) -> int: ...


P = TypeVar("P", bound=_Counted)


async def show_rejected(database: Database, *, is_json: bool) -> None:
    """Print what is set aside, oldest first, at most a thousand."""
    found = await rejected.rejected(database)
    if is_json:
        click.echo(msgspec.json.encode([_shown(one) for one in found]).decode())
        return
    for one in found:
        what = (
            "cannot be read"
            if one.hit is None
            else f"{one.hit.event_type} {one.hit.url or one.hit.name or ''}"
        )
        click.echo(f"{one.id}  {one.rejected_at:%Y-%m-%d %H:%M:%S}  {what.strip()}\n    {one.error}")
    click.echo(f"{_hits(len(found))} set aside." if found else "Nothing is set aside.")


def _shown(one: rejected.Rejected) -> Mapping[str, Any]:
    return {"id": one.id, "rejected_at": one.rejected_at, "error": one.error, "hit": one.hit}


async def put_back(database: Database, *, is_json: bool) -> None:
    """Put everything that is set aside back into the log."""
    at = await _followed(
        rejected.put_back(database), lambda p: p.put_back + p.unreadable, "Putting hits back", is_json=is_json
    )
    if is_json:
        click.echo(msgspec.json.encode(at).decode())
        return
    click.echo(f"Put {_hits(at.put_back)} back into the log; the worker takes them from there.")
    if at.unreadable:
        click.echo(f"{_hits(at.unreadable)} cannot be read by this version and stay set aside.")


async def reclassify(database: Database, config: Config, *, since: datetime | None, is_json: bool) -> None:
    """Correct history by today's rules of what is a bot."""
    at = await _followed(
        store.reclassify(database, config, since=since),
        lambda p: p.visitors,
        "Judging visitors",
        is_json=is_json,
    )
    if is_json:
        click.echo(msgspec.json.encode(at).decode())
        return
    click.echo(
        f"Looked at {at.visitors} visitors; corrected {at.events} events, {at.visits} visits and {at.people} visitors."
    )


async def _followed(steps: AsyncIterator[P], done: Any, label: str, *, is_json: bool) -> P:
    """Go through *steps* with a bar, unless the answer is for a program; the last of them."""
    at = await anext(steps)
    if is_json:
        return [at, *[at async for at in steps]][-1]
    with click.progressbar(length=at.total, label=label, file=sys.stderr) as bar:
        async for at in steps:
            bar.update(min(done(at), at.total) - bar.pos)
    return at


def _hits(count: int) -> str:
    return f"{count} hit" if count == 1 else f"{count} hits"
