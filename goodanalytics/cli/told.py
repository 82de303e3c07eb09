"""
What the commands have in common that tell an app what to do and print what came of it: their options, their words, and secrets.

A secret is read from a prompt or the standard input, never from the arguments, which other users of the machine can see and shells write
down.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click
import msgspec

from goodanalytics.cli.opening import app_option, database_option, opened, run, schema_option

if TYPE_CHECKING:
    from goodanalytics.analytics import Analytics

ACTOR: Final = "command line"
FINISHED: Final = ("dead", "skipped", "delivered")
UNREADABLE: Final = "what it sealed would be readable to nobody"


@dataclass(frozen=True, slots=True)
class Told:
    """Where a command works, and how it answers."""

    analytics: Analytics
    workspace_id: UUID | None
    is_json: bool

    @property
    def who(self) -> dict[str, Any]:
        """Whom the audit names, and in which workspace."""
        return {"actor": ACTOR, "workspace_id": self.workspace_id}

    def say(self, value: Any, lines: Sequence[str]) -> None:
        """*value* as JSON for a program, or *lines* for a person."""
        if self.is_json:
            click.echo(msgspec.json.encode(value).decode())
            return
        for line in lines:
            click.echo(line)


def command(*, reason: str | None = None) -> Callable[[Callable[..., Awaitable[None]]], Any]:
    """
    Makes a coroutine function with `Told` a command with the options that all have.

    Args:
        reason: Why the app's own secret key is needed; `None` when it is not.
    """

    def wrap(act: Callable[..., Awaitable[None]]) -> Any:
        @database_option
        @schema_option
        @app_option
        @click.option("--workspace", type=click.UUID, help="The configured one when left out.")
        @click.option("--json", "is_json", is_flag=True, help="Print JSON.")
        @functools.wraps(act)
        def started(
            database: str | None,
            schema: str,
            app: str | None,
            workspace: UUID | None,
            *,
            is_json: bool,
            **own: Any,
        ) -> None:
            async def work() -> None:
                async with opened(database, schema, app, reason=reason) as analytics:
                    await act(Told(analytics, workspace, is_json), **own)

            run(work())

        return started

    return wrap


def refuse_typed(rest: Sequence[str]) -> None:
    """
    Refuse what is typed where only a secret can be meant.

    Raises:
        UsageError: There is something; it is not repeated.
    """
    if rest:
        raise click.UsageError(
            "A value is not taken from the command line, where others can see it. Leave it out, and type it when asked"
        )


def secret_of(name: str) -> str:
    """What somebody types at a terminal without an echo, or all of the standard input."""
    typed: str = click.prompt(name, hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read()
    return typed


__all__ = ["ACTOR", "FINISHED", "UNREADABLE", "Told", "command", "refuse_typed", "secret_of"]
