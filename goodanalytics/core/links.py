"""
What a link is, and what a domain of links is.

1. A link is `domain + key → url`, with everything that may change where it leads. Values are checked when written,
   by the functions here, in `core.destinations` and in `core.link_checks`; what is read back is believed.
2. A password is never kept and never shown: only its scrypt digest is, and only the check reads it.
3. On a domain that is not case-sensitive a key is stored and looked up case-folded.

Where it leads is decided by `core.routing`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID

import msgspec

from goodanalytics.core.destinations import (
    MAX_DESTINATION,
    MAX_PASSED,
    NOT_PASSED,
    UTM,
    ascii_form,
    checked_destination,
    checked_url,
    target,
)
from goodanalytics.core.link_checks import checked_rules, checked_variants, converted
from goodanalytics.core.link_conditions import Hours, Rule, Variant, When
from goodanalytics.errors import InvalidInput

KEY = re.compile(r"[A-Za-z0-9_-]{1,255}")
ALPHABET = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Letters and digits of a random key, without those that look alike: l and 1, I, O and 0."""

KEY_LENGTH = 7  # 57^7 is two million million

MAX_CLICKS = 2**31 - 1  # what a PostgreSQL integer holds
MAX_APPS = 50  # of a domain, and certificates of an app
MAX_PASSWORD = 128  # characters

_SCRYPT = (2**14, 8, 5)  # n, r, p
_IOS_APP = re.compile(r"[A-Z0-9]{10}\.[A-Za-z0-9.-]{1,155}")
_PACKAGE = re.compile(r"(?=.{1,255}$)[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)+")
_FINGERPRINT = re.compile(r"[0-9A-F]{2}(?::[0-9A-F]{2}){31}")

LinkType = Literal["short", "referral", "campaign"]
RedirectStatus = Literal[301, 302, 307, 308]


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """
    A short link, as its row.

    Attributes:
        rules: Tried in order; the first whose conditions hold decides.
        variants: A split of those whom no rule and no app address takes; `url` is then nobody's destination.
        starts_at, expires_at: From the first moment on, until just before the second.
        expired_url: Where a link that is over leads; `None` is the domain's.
        max_clicks: Uses after which the link is over; 1 makes it a one-time link.
        password_hash: See `password_hash()`; never shown.
        forward_path: Whether what stands behind the key goes below the destination's path.
        forward_query: Whether the request's parameters are passed on.
        cloaked: Whether the destination is shown in a frame, under the short address.
        indexed: Whether search engines may list the short address.
        og_title, og_description, og_image: The card that social networks show; without any they read the destination's.
    """

    workspace_id: UUID
    id: UUID
    domain: str
    key: str
    url: str
    link_type: LinkType = "short"
    title: str | None = None
    notes: str | None = None
    folder: str | None = None
    utm_source: str | None = None
    utm_medium: str | None = None
    utm_campaign: str | None = None
    utm_content: str | None = None
    utm_term: str | None = None
    ios_url: str | None = None
    android_url: str | None = None
    rules: list[Rule] = []
    variants: list[Variant] = []
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    expired_url: str | None = None
    max_clicks: int | None = None
    password_hash: str | None = None
    redirect_status: RedirectStatus = 302
    forward_path: bool = False
    forward_query: bool = True
    cloaked: bool = False
    indexed: bool = False
    og_title: str | None = None
    og_description: str | None = None
    og_image: str | None = None
    partner_id: UUID | None = None
    external_id: str | None = None
    tags: list[str] = []
    metadata: dict[str, Any] = {}
    archived_at: datetime | None = None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Link:
        """The link of a *row*, whose `rules` and `variants` are plain JSON."""
        values = dict(row)
        values["rules"] = msgspec.convert(values.get("rules") or [], list[Rule])
        values["variants"] = msgspec.convert(values.get("variants") or [], list[Variant])
        return cls(**values)

    def to_row(self) -> dict[str, Any]:
        """The columns of the link; `from_row` reads them back."""
        return msgspec.structs.asdict(self) | {
            "rules": msgspec.to_builtins(self.rules),
            "variants": msgspec.to_builtins(self.variants),
        }

    def is_expired(self, now: datetime) -> bool:
        """Whether the link's time is over; at the very moment it is."""
        return self.expires_at is not None and now >= self.expires_at

    @property
    def has_password(self) -> bool:
        """Whether a password is asked for."""
        return self.password_hash is not None

    @property
    def utm(self) -> list[tuple[str, str]]:
        """The link's own UTM parameters."""
        return [(name, value) for name in UTM if (value := getattr(self, name))]


class AndroidApp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    An app that may open the domain's links, for `assetlinks.json`.

    Attributes:
        package_name: `com.example.app`.
        sha256_fingerprints: Of its signing certificates: 32 bytes in hex, divided by colons.
    """

    package_name: str
    sha256_fingerprints: list[str]


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """
    What holds for all links of a host; a host without a row has the defaults.

    Attributes:
        root_url: Where the root of a link domain leads; elsewhere the root is the host app's own.
        not_found_url: Where a key leads that no link has.
        expired_url: Where a link leads that is over and says nothing itself.
        case_sensitive: Whether `A` and `a` are two keys.
        ios_app_ids: `TEAMID.bundle`, for `apple-app-site-association`; on a link domain, as `android_apps`.
    """

    workspace_id: UUID
    host: str
    root_url: str | None = None
    not_found_url: str | None = None
    expired_url: str | None = None
    case_sensitive: bool = True
    ios_app_ids: list[str] = []
    android_apps: list[AndroidApp] = []
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Domain:
        """The domain of a *row*, whose `android_apps` are plain JSON."""
        values = dict(row)
        values["android_apps"] = msgspec.convert(values.get("android_apps") or [], list[AndroidApp])
        return cls(**values)

    def to_row(self) -> dict[str, Any]:
        """The columns of the domain; `from_row` reads them back."""
        return msgspec.structs.asdict(self) | {"android_apps": msgspec.to_builtins(self.android_apps)}

    def stored_key(self, key: str) -> str:
        """*key* as it is stored and looked up on this domain."""
        return key if self.case_sensitive else key.casefold()


def destination(link: Link, query: str, click_id: UUID) -> str:
    """
    The address that a click on *link* leads to when neither a rule nor a variant decides; see `core.routing`.

    Args:
        query: Of the request, as it came.
        click_id: Becomes `ga_id`.
    """
    return target(link.url, link.utm).address(click_id, query if link.forward_query else "")


def checked_key(key: str) -> str:
    """
    *key* as it may be stored.

    Raises:
        InvalidInput: It has other characters than letters, digits, `-` and `_`, or more than 255 of them.
    """
    if not KEY.fullmatch(key):
        raise InvalidInput(f"key is {key[:80]!r}; use 1 to 255 letters, digits, '-' and '_'", where="key")
    return key


def checked_status(status: int) -> RedirectStatus:
    """
    *status* as that of a redirect.

    Raises:
        InvalidInput: It is not 301, 302, 307 or 308.
    """
    for known in get_args(RedirectStatus):
        if status == known and not isinstance(status, bool):
            return known  # type: ignore[no-any-return]  # get_args does not tell which words it found
    raise InvalidInput(
        f"redirect_status is {status!r}; it must be 301, 302, 307 or 308", where="redirect_status"
    )


def checked_max_clicks(most: int | None) -> int | None:
    """
    *most* uses of a link; `None` is no limit.

    Raises:
        InvalidInput: It is not a whole number from 1 to 2,147,483,647.
    """
    if most is not None and (
        not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= MAX_CLICKS
    ):
        raise InvalidInput(
            f"max_clicks is {most!r}; it must be a whole number from 1 on, or nothing for no limit",
            where="max_clicks",
        )
    return most


def checked_ios_app_ids(ids: Sequence[str]) -> list[str]:
    """
    *ids* of apps that may open the domain's links on iOS (Apple, "Supporting associated domains").

    Raises:
        InvalidInput: One is not `TEAMID.bundle`, or there are more than 50.
    """
    found = list(dict.fromkeys(ids))
    _check_count(found, "ios_app_ids")
    for number, one in enumerate(found):
        if not isinstance(one, str) or not _IOS_APP.fullmatch(one):
            raise InvalidInput(
                f"ios_app_ids[{number}] is {one!r:.80}; write the team and the bundle, such as ABCDE12345.com.example.app",
                where=f"ios_app_ids[{number}]",
            )
    return found


def checked_android_apps(apps: Sequence[AndroidApp | Mapping[str, Any]]) -> list[AndroidApp]:
    """
    *apps* that may open the domain's links on Android (Google, "Digital Asset Links").

    Raises:
        InvalidInput: One lacks a package name or a fingerprint of its certificate, or there are more than 50.
    """
    _check_count(apps, "android_apps")
    found = []
    for number, one in enumerate(apps):
        where = f"android_apps[{number}]"
        app = converted(one, AndroidApp, where)
        if not _PACKAGE.fullmatch(app.package_name):
            raise InvalidInput(
                f"{where}.package_name is {app.package_name[:80]!r}; write the app's id, such as com.example.app",
                where=f"{where}.package_name",
            )
        prints = [one.upper() for one in app.sha256_fingerprints]
        if not 1 <= len(prints) <= MAX_APPS or not all(map(_FINGERPRINT.fullmatch, prints)):
            raise InvalidInput(
                f"{where}.sha256_fingerprints must list the SHA-256 of each signing certificate as 32 bytes in hex divided "
                "by colons, such as 14:6D:…",
                where=f"{where}.sha256_fingerprints",
            )
        found.append(AndroidApp(package_name=app.package_name, sha256_fingerprints=prints))
    return found


def _check_count(found: Sequence[object], where: str) -> None:
    if len(found) > MAX_APPS:
        raise InvalidInput(f"{where} has {len(found)} entries; at most {MAX_APPS} are kept", where=where)


def password_hash(password: str, salt: bytes) -> str:
    """
    What is kept of a *password*: `scrypt$n$r$p$salt$hash`. Takes some 50 ms: call it in a thread.

    The parameters are one of the choices of OWASP's Password Storage Cheat Sheet that need 16 MiB.

    Args:
        salt: 16 random bytes.

    Raises:
        InvalidInput: The password is empty, or longer than 128 characters.
    """
    if not 1 <= len(password) <= MAX_PASSWORD:
        raise InvalidInput(f"password must have 1 to {MAX_PASSWORD} characters", where="password")
    n, r, p = _SCRYPT
    return f"scrypt${n}${r}${p}${salt.hex()}${_scrypt(password, n, r, p, salt).hex()}"


def opens(password: str, kept: str) -> bool:
    """Whether *password* is the one that `password_hash` *kept*. Takes some 50 ms: call it in a thread."""
    _, n, r, p, salt, digest = kept.split("$")
    if len(password) > MAX_PASSWORD:
        return False
    found = _scrypt(password, int(n), int(r), int(p), bytes.fromhex(salt))
    return hmac.compare_digest(found, bytes.fromhex(digest))


def _scrypt(password: str, n: int, r: int, p: int, salt: bytes) -> bytes:
    # The same letter may come composed or not, as the keyboard has it.
    plain = unicodedata.normalize("NFKC", password).encode(errors="surrogatepass")
    return hashlib.scrypt(plain, salt=salt, n=n, r=r, p=p, maxmem=64 * 1024 * 1024, dklen=32)


def link_json(link: Link, short_url: str) -> dict[str, Any]:
    """The link as REST, webhooks and exports show it. Times are ISO 8601 in UTC; the password is only said to be there."""
    shown = msgspec.to_builtins(link)
    del shown["password_hash"], shown["workspace_id"]
    return {**shown, "has_password": link.has_password, "short_url": short_url}


__all__ = [
    "ALPHABET", "KEY", "KEY_LENGTH", "MAX_APPS", "MAX_CLICKS", "MAX_DESTINATION", "MAX_PASSED", "MAX_PASSWORD", "NOT_PASSED", "UTM",
    "AndroidApp", "Domain", "Hours", "Link", "LinkType", "RedirectStatus", "Rule", "Variant", "When", "ascii_form",
    "checked_android_apps", "checked_destination", "checked_ios_app_ids", "checked_key", "checked_max_clicks", "checked_rules",
    "checked_status", "checked_url", "checked_variants", "destination", "link_json", "opens", "password_hash",
]  # fmt: skip
