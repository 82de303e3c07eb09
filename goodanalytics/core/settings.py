"""Checks of single settings, for `Config`: each brings a value into its one form, or says what to write instead."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from uuid import UUID

from goodanalytics.core.destinations import NEVER_SCHEMES, SCHEME
from goodanalytics.errors import ConfigError


def checked_network(name: str, value: object) -> IPv4Network | IPv6Network:
    """*value* as a network; *name* is the setting that holds it."""
    try:
        return ip_network(value, strict=False)  # type: ignore[arg-type]  # ip_network refuses what it cannot read
    except ValueError:
        raise ConfigError(
            f"{name} has {value!r}; write an address or a network such as '10.0.0.0/8'"
        ) from None


def checked_scheme(value: object) -> str:
    """*value* as the scheme of an app that links may lead to."""
    scheme = str(value).lower().removesuffix("://").removesuffix(":")
    if not SCHEME.fullmatch(scheme) or scheme in NEVER_SCHEMES:
        raise ConfigError(
            f"link_app_schemes has {value!r}; write the scheme of an app, such as 'myapp'. http and https are always "
            "allowed, and those by which a browser runs or shows what stands in the address never are"
        )
    return scheme


def checked_uuid(name: str, value: object) -> UUID:
    """*value* as a UUID; *name* is the setting that holds it."""
    try:
        return value if isinstance(value, UUID) else UUID(str(value))
    except ValueError:
        raise ConfigError(f"{name} is {value!r}; it must be a UUID") from None
