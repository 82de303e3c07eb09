"""
Settings from environment variables: text into the values that a settings class declares.

A variable with our prefix that nobody reads is an error, so that a typing error does not silently leave a default.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from goodanalytics.errors import ConfigError
from goodanalytics.platforms import known

ALSO_READ_ELSEWHERE = ("database_url", "pg_bin", "chromium", "test_database_url", "require_all")
"""Variables with our prefix that are not members of `Config`."""


def read(groups: Mapping[str, type], prefix: str, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """
    The values that are set, by the setting's name.

    Args:
        groups: Settings classes (dataclasses) by the word that their variables carry behind *prefix*; the empty word is
            the one whose settings stand at the top. A group of which anything is set becomes one value.
        environ: The process's own when left out.

    Raises:
        ConfigError: A value cannot be read, or a variable is unknown.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    known = {prefix + name.upper() for name in ALSO_READ_ELSEWHERE}
    for group, owner in groups.items():
        hints = typing.get_type_hints(owner)
        found: dict[str, Any] = {}
        for setting in dataclasses.fields(owner):
            if not setting.init or (not group and setting.name in groups):
                continue
            name = prefix + (f"{group}_{setting.name}" if group else setting.name).upper()
            read_text = _reader(setting.name, hints[setting.name])
            if read_text is None:
                continue
            known.add(name)
            if name in environ:
                try:
                    found[setting.name] = read_text(environ[name].strip())
                except ValueError as error:
                    shown = "that value" if "secret" in setting.name else repr(environ[name])
                    raise ConfigError(f"{name} cannot be {shown}: {error}") from None
        if group and found:
            values[group] = owner(**found)
        else:
            values.update(found)
    unknown = sorted(name for name in environ if name.startswith(prefix) and name not in known)
    if unknown:
        raise ConfigError(f"{unknown[0]} is not a setting. Known: {', '.join(sorted(known))}")
    return values


def database_url(prefix: str = "GOODANALYTICS_", environ: Mapping[str, str] | None = None) -> str:
    """
    The database's address.

    Raises:
        ConfigError: `{prefix}DATABASE_URL` is not set.
    """
    environ = os.environ if environ is None else environ
    url = environ.get(f"{prefix}DATABASE_URL", "").strip()
    if not url:
        raise ConfigError(
            f"{prefix}DATABASE_URL is not set. Try: {prefix}DATABASE_URL=postgresql+asyncpg://user@host/name"
        )
    return url


def state_directory(environ: Mapping[str, str] | None = None) -> Path | None:
    """
    Where this user's programs keep what outlives a reboot; `None` for a user without a home.

    That is what systemd gives a service (`StateDirectory=`), else what the XDG Base Directory Specification says.
    """
    environ = os.environ if environ is None else environ
    given = environ.get("STATE_DIRECTORY", "").split(":")[0] or environ.get("XDG_STATE_HOME", "")
    try:
        return Path(given).absolute() if given else Path.home() / ".local" / "state"
    except RuntimeError:
        return None


def _boolean(text: str) -> bool:
    match text.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
    raise ValueError("write true or false")


def _seconds(text: str) -> timedelta:
    try:
        return timedelta(seconds=float(text))
    except (ValueError, OverflowError):
        raise ValueError("write a number of seconds") from None


def _rate(text: str) -> float | None:
    if text.lower() in ("off", "none"):
        return None
    try:
        return float(text)
    except ValueError:
        raise ValueError("write a number of requests a second, or off") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("write a whole number") from None


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _pairs(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in _list(text)]
    if any(not middle for _, middle, _ in pairs):
        raise ValueError("write host=workspace, separated by commas")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _reader(name: str, hint: Any) -> Callable[[str], Any] | None:
    """How a setting's text becomes its value, or `None` for a setting that text cannot express."""
    if name in (
        "clock",
        "new_id",
        "new_token",
        "authenticate",
        "dashboard_auth",
        "on_error",
        "limiter",
        "dispatch_policy",
        "consent",
        "exchange_rate",
        "transport",
        "jitter",
        "random_bytes",
    ):
        return None
    if name == "workspaces":
        return _pairs
    if name == "platforms":
        return known.named
    if hint is bool:
        return _boolean
    if hint is int:
        return _whole
    if hint is timedelta:
        return _seconds
    if hint == float | None:
        return _rate
    if typing.get_origin(hint) is not Literal and "Sequence" in str(hint):
        return _list
    return str
