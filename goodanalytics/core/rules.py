"""Groups of settings that are plain values: when a visit ends, and what the cookies are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from goodanalytics.errors import ConfigError

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?")
_COOKIE_NAME = re.compile(r"[A-Za-z0-9_-]+")


def checked_host(name: str, value: object, *, wildcard: bool = False) -> str:
    """
    *value* as a lower-cased host name for the setting *name*.

    Raises:
        ConfigError: It is no host name.
    """
    host = value.lower().rstrip(".") if isinstance(value, str) else ""
    bare = host.removeprefix("*.") if wildcard else host
    if not _HOST_NAME.fullmatch(bare):
        raise ConfigError(
            f"{name} has {value!r}; write a host name such as 'go.example.com', without 'https://' or a path"
        )
    return host


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRules:
    """
    When a visit ends.

    Attributes:
        timeout: Silence after which the next hit opens a new session; exactly this long still continues it.
        split_on_source: Whether arriving from another non-direct source opens a new session at once.
    """

    timeout: timedelta = timedelta(minutes=30)
    split_on_source: bool = True

    def __post_init__(self) -> None:
        """Check every value."""
        if not isinstance(self.timeout, timedelta) or self.timeout <= timedelta(0):
            raise ConfigError(
                f"session.timeout is {self.timeout!r}; it must be positive, such as timedelta(minutes=30)"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cookies:
    """
    Names and life of the first-party cookies.

    Attributes:
        click: Carries the click's id; readable by the tracker.
        anonymous: Carries the browser's random id; HttpOnly.
        referral: Carries the signed partner referral.
        ignore: `1` marks a browser whose visits are the site owner's own; set at `{mount}/t/ignore`.
        max_age: How long a browser keeps them, counted from the last day on which it asked for a document (from the last document,
            where it is less than a week).
        domain: `None` binds them to the exact host; `.example.com` shares them among its sub-domains.
    """

    click: str = "_ga_good"
    anonymous: str = "_ga_anon"
    referral: str = "_ga_ref"
    ignore: str = "_ga_ignore"
    max_age: timedelta = timedelta(days=90)
    domain: str | None = None
    same_site: Literal["lax", "strict", "none"] = "lax"

    def __post_init__(self) -> None:
        """Check every value."""
        names = [self.click, self.anonymous, self.referral, self.ignore]
        for cookie in names:
            if not isinstance(cookie, str) or not _COOKIE_NAME.fullmatch(cookie) or names.count(cookie) > 1:
                raise ConfigError(
                    f"cookies has the name {cookie!r}; write different names of letters, digits, '_' and '-'"
                )
        if self.same_site not in ("lax", "strict", "none"):
            raise ConfigError(f"cookies.same_site is {self.same_site!r}; write 'lax', 'strict' or 'none'")
        if self.domain is not None:
            checked_host("cookies.domain", self.domain.removeprefix("."))
        if not isinstance(self.max_age, timedelta) or self.max_age < timedelta(0):
            raise ConfigError(
                f"cookies.max_age is {self.max_age!r}; it must not be negative, such as timedelta(days=90)"
            )
