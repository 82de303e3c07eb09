"""
Our cookies: what they say, where and for how long they hold, and when a browser is given one again.

A browser's own says its random id and the day on which it was set (`core.browsers`). Who comes back on that day has no use for
it again: all but the first of a day's pages go without `Set-Cookie`, which costs each page time, and with which caches do not
keep a page. Where cookies live for less than `DAILY`, each document sets it again.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Final

from goodanalytics.core.browsers import day_of

if TYPE_CHECKING:
    from goodanalytics.config import Config
    from goodanalytics.core.rules import Cookies
    from goodanalytics.web.reading import Visit

DAILY: Final = timedelta(days=7)
"""Cookies that live longer are set again once a day."""

_PLAIN = re.compile(r"[A-Za-z0-9_.~-]+")


def cookies_for(visit: Visit) -> list[str]:
    """The `Set-Cookie` values that keep this visitor known: the browser's id, and the click that it landed with."""
    names, today = visit.config.cookies, day_of(visit.config.clock())
    values = []
    if visit.cookie_day != today or names.max_age < DAILY:
        values.append(cookie(visit, names.anonymous, visit.anonymous_id + today, http_only=True))
    if visit.landed_with is not None:
        values.append(cookie(visit, names.click, str(visit.landed_with), http_only=False))
    elif visit.was_reset:
        values.append(cookie(visit, names.click, "", http_only=False, max_age=timedelta(0)))
    return values


def cookie(visit: Visit, name: str, value: str, *, http_only: bool, max_age: timedelta | None = None) -> str:
    """One `Set-Cookie` value with the configured life and reach."""
    settings = visit.config.cookies
    if not (_PLAIN.fullmatch(name) and _PLAIN.fullmatch(value)):
        # A hook's own cookie, or an id that is not of our making: the value is quoted, the name refused when no cookie can have it.
        jar: SimpleCookie = SimpleCookie()
        jar[name] = value
        name, _, value = jar[name].OutputString().partition("=")
    return f"{name}={value}" + _reach(
        settings, is_secure=visit.is_secure, http_only=http_only, max_age=max_age
    )


def _reach(settings: Cookies, *, is_secure: bool, http_only: bool, max_age: timedelta | None) -> str:
    """Where and for how long a cookie holds."""
    seconds = int((settings.max_age if max_age is None else max_age).total_seconds())
    domain = f"; Domain={settings.domain}" if settings.domain else ""
    hidden = "; HttpOnly" if http_only else ""
    secure = "; Secure" if is_secure else ""
    same_site = settings.same_site.capitalize()
    return f"{domain}{hidden}; Max-Age={seconds}; Path=/; SameSite={same_site}{secure}"


class Keeper:
    """Says whether a known browser needs its cookie again and which, as `cookies_for` does, in a fraction of its time."""

    def __init__(self, config: Config) -> None:
        names = config.cookies
        self._clock = config.clock
        self._midnight = self._tomorrow = datetime.fromtimestamp(0, UTC)
        self._today = b""
        self._is_daily = names.max_age >= DAILY
        self._name = names.anonymous.encode() + b"="
        self._reach = [
            _reach(names, is_secure=secure, http_only=True, max_age=None).encode() for secure in (False, True)
        ]

    def is_of_today(self, day: bytes) -> bool:
        """Whether the cookie of a *day*, as `Glance.kept` gives it, need not be set again."""
        now = self._clock()
        if not self._midnight <= now < self._tomorrow:
            self._midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            self._tomorrow, self._today = self._midnight + timedelta(days=1), day_of(now).encode()
        return day == self._today and self._is_daily

    def cookie(self, anonymous_id: bytes, *, is_secure: bool) -> bytes:
        """The value for an id, as `Glance.kept` gives it."""
        return self._name + anonymous_id + day_of(self._clock()).encode() + self._reach[is_secure]
