"""
How a command comes to an `Analytics`: the app's own by `--app module:name`, or one that is made from the environment.

The app's own knows its platforms, its policy and its keys. One from the environment has what `GOODANALYTICS_…` says; where
that names no platforms, it has one of each that come with the package.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from goodanalytics.config import Config, new_token
from goodanalytics.errors import ConfigError
from goodanalytics.platforms import known

if TYPE_CHECKING:
    from goodanalytics.analytics import Analytics

T = TypeVar("T")

database_option = click.option(
    "--database",
    envvar="GOODANALYTICS_DATABASE_URL",
    show_envvar=True,
    help="A postgresql+asyncpg:// URL.",
)
schema_option = click.option(
    "--schema",
    envvar="GOODANALYTICS_SCHEMA",
    show_envvar=True,
    default="good_analytics",
    show_default=True,
    help="The schema that holds our tables.",
)
app_option = click.option(
    "--app",
    metavar="MODULE:NAME",
    help="The app's own Analytics, such as shop.main:analytics, with its settings and its database.",
)


def needed(database: str | None) -> str:
    """
    The database's address.

    Raises:
        ConfigError: None is named.
    """
    if not database:
        raise ConfigError(
            "No database is named. Give --database postgresql+asyncpg://user@host/name, or set GOODANALYTICS_DATABASE_URL"
        )
    return database


def from_environment(database: str, **settings: Any) -> Analytics:
    """One that is made of what the environment says, and of *settings*."""
    from goodanalytics.analytics import Analytics  # noqa: PLC0415  # importing everything is slow; --help is not

    # Commands that only touch the database sign nothing, so they run without the app's secret.
    settings.setdefault("secret_key", os.environ.get("GOODANALYTICS_SECRET_KEY") or new_token() * 2)
    environ = {name: value for name, value in os.environ.items() if name != "GOODANALYTICS_SECRET_KEY"}
    return Analytics(database, Config.from_env(environ=environ, **settings))


@asynccontextmanager
async def opened(
    database: str | None, schema: str, app: str | None, *, reason: str | None = None
) -> AsyncIterator[Analytics]:
    """
    The app's own `Analytics`, or one with its platforms from the environment; closed at the end.

    Args:
        reason: Why the app's own secret key is needed; `None` when it is not.

    Raises:
        ConfigError: *app* is none, no database is named, or the key is needed and not set.
    """
    if app is not None:
        analytics = _own(app)
    else:
        if reason is not None and not os.environ.get("GOODANALYTICS_SECRET_KEY"):
            raise ConfigError(
                f"GOODANALYTICS_SECRET_KEY is not set; {reason}. Set it to the app's own, or give --app"
            )
        chosen = {} if os.environ.get("GOODANALYTICS_PLATFORMS") else {"platforms": known.everything()}
        analytics = from_environment(needed(database), schema=schema, **chosen)
    try:
        yield analytics
    finally:
        await analytics.stop()
        # The app's own engine stays open when its Analytics stops, and this process is at its end.
        await analytics.database.engine.dispose()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end; Ctrl-C breaks it off without a trace."""
    try:
        return asyncio.run(coroutine)
    except KeyboardInterrupt:
        raise click.Abort from None


def _own(app: str) -> Analytics:
    from goodanalytics.analytics import Analytics  # noqa: PLC0415

    module, _, name = app.partition(":")
    if not name:
        raise ConfigError(f"--app is {app!r}; write a module and a name, such as shop.main:analytics")
    # As servers do it: the program lies where the command is given.
    sys.path.insert(0, os.getcwd())  # noqa: PTH109  # a path of text, as the others there
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"--app {app} is not there: {error}. Write one such as shop.main:analytics"
        ) from error
    if not isinstance(found, Analytics):
        raise ConfigError(
            f"--app {app} is a {type(found).__name__}; name the Analytics, such as shop.main:analytics"
        )
    return found


__all__ = ["app_option", "database_option", "from_environment", "needed", "opened", "run", "schema_option"]
