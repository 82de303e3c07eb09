"""
What a host may say of a link, read and bounded: from Python, REST and imports alike.

1. Only given fields are looked at. `None` clears a field: it is then what it is in a link of which nothing was said.
2. Nothing is cut silently: what is too long is refused with the field's name. Control characters go, blanks at the ends too.
3. `password` is not read here: its digest takes time and a salt (`core.links.password_hash`).
4. A domain's root serves more than links; `RESERVED` keys are asked for by browsers and crawlers of every host.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypedDict
from uuid import UUID

import msgspec

from goodanalytics.core import urls
from goodanalytics.core.bounds import MAX_ID, MAX_TEXT, text
from goodanalytics.core.links import (
    ALPHABET,
    KEY_LENGTH,
    UTM,
    Link,
    LinkType,
    Rule,
    Variant,
    checked_destination,
    checked_key,
    checked_max_clicks,
    checked_rules,
    checked_status,
    checked_url,
    checked_variants,
)
from goodanalytics.errors import InvalidInput

MAX_NOTES = 10_000  # characters
MAX_TAGS = 50
MAX_METADATA = 16 * 1024  # bytes of JSON

RESERVED = frozenset(
    {"apple-app-site-association", "assetlinks", "favicon", "robots", "sitemap", "manifest", "well-known", "ads", "qr"}
)  # fmt: skip
"""
Keys that are refused everywhere: what browsers and crawlers ask every host for, should a server drop its ending. Their whole names,
such as `robots.txt` and `.well-known`, have a dot and are no keys anyway.
"""

_FOLDED = "".join(sorted(set(ALPHABET.lower()) - {"l", "i", "o"}))


class LinkFields(TypedDict, total=False):
    """
    What may be said of a link besides where it leads; `Link` tells what each means.

    *domain* is the first of `link_domains` when left out, *key* a random one. *password* is kept as its scrypt digest.
    *rules* and *variants* may be given as values or as their JSON.
    """

    domain: str | None
    key: str | None
    link_type: LinkType | None
    title: str | None
    notes: str | None
    folder: str | None
    utm_source: str | None
    utm_medium: str | None
    utm_campaign: str | None
    utm_content: str | None
    utm_term: str | None
    ios_url: str | None
    android_url: str | None
    rules: Sequence[Rule | Mapping[str, Any]] | None
    variants: Sequence[Variant | Mapping[str, Any]] | None
    starts_at: datetime | None
    expires_at: datetime | None
    expired_url: str | None
    max_clicks: int | None
    password: str | None
    redirect_status: int | None
    forward_path: bool | None
    forward_query: bool | None
    cloaked: bool | None
    indexed: bool | None
    og_title: str | None
    og_description: str | None
    og_image: str | None
    partner_id: UUID | str | None
    tags: Sequence[str] | None
    metadata: Mapping[str, Any] | None


FIELDS = ("url", "external_id", *LinkFields.__annotations__)
"""Every name that `checked_fields` knows, and `password`."""

_TEXTS: Mapping[str, int] = {
    **dict.fromkeys(UTM, MAX_TEXT),
    "title": MAX_TEXT,
    "folder": MAX_TEXT,
    "notes": MAX_NOTES,
    "og_title": MAX_TEXT,
    "og_description": 1_000,
    "external_id": MAX_ID,
}
_FLAGS = ("forward_path", "forward_query", "cloaked", "indexed")
_WEB = ("expired_url", "og_image")
_DESTINATIONS = ("ios_url", "android_url")
_DEFAULTS = {
    field.name: field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    for field in msgspec.structs.fields(Link)
    if not field.required
}


def checked_fields(given: Mapping[str, Any], app_schemes: Collection[str] = ()) -> dict[str, Any]:
    """
    *given* as fields of a `Link`, without its password.

    Args:
        app_schemes: That destinations may have beside http and https.

    Raises:
        InvalidInput: A name is unknown, or a value is not usable; `where` names it.
    """
    unknown = sorted(set(given) - set(FIELDS))
    if unknown:
        raise InvalidInput(f"{unknown[0]} is no field of a link; {', '.join(FIELDS)} are", where=unknown[0])
    return {name: _checked(name, given[name], app_schemes) for name in given if name != "password"}


def _checked(name: str, value: Any, app_schemes: Collection[str]) -> Any:
    if value is None and name in _DEFAULTS:
        return _DEFAULTS[name]
    if name in _TEXTS:
        return _text(value, name, _TEXTS[name])
    if name in _FLAGS:
        return _flag(value, name)
    if name in _WEB:
        return checked_url(_string(value, name), name)
    if name in _DESTINATIONS:
        return checked_destination(_string(value, name), name, app_schemes)
    match name:
        case "url":
            return checked_destination(_string(value, name), "url", app_schemes)
        case "domain":
            return checked_domain(value)
        case "key":
            return unreserved(checked_key(_string(value, name)))
        case "link_type":
            return checked_type(value)
        case "starts_at" | "expires_at":
            return _aware(value, name)
        case "max_clicks":
            return checked_max_clicks(value)
        case "redirect_status":
            return checked_status(value)
        case "rules":
            return checked_rules(value, app_schemes)
        case "variants":
            return checked_variants(value, app_schemes)
        case "partner_id":
            return _uuid(value, name)
        case "tags":
            return checked_tags(value)
        case "metadata":
            return checked_metadata(value)
    raise AssertionError(name)  # pragma: no cover  # FIELDS lists the cases above


def check_link(link: Link) -> Link:
    """
    *link* as a whole.

    Raises:
        InvalidInput: It ends before it starts.
    """
    if link.starts_at is not None and link.expires_at is not None and link.expires_at <= link.starts_at:
        raise InvalidInput(
            f"expires_at is {link.expires_at.isoformat()}, not after starts_at, {link.starts_at.isoformat()}",
            where="expires_at",
        )
    return link


def checked_domain(domain: Any) -> str:
    """
    *domain* as browsers ask for it: lower case, in punycode, without a dot at its end; a port may follow.

    Raises:
        InvalidInput: It is no host name.
    """
    found = (text(domain, MAX_TEXT) if isinstance(domain, str) else None) or ""
    found = found.lower().rstrip(".")
    if any(c in found for c in "/?#@ \\"):
        found = ""
    elif not found.isascii():
        found = urls.parts(f"https://{found}").host or ""
    if not found:
        raise InvalidInput(
            f"domain is {domain!r:.80}; give a host name such as go.example.com", where="domain"
        )
    return found


def unreserved(key: str, taken: Collection[str] = ()) -> str:
    """
    *key*, if it is free to be one.

    Args:
        taken: First parts of the paths that the host's own routes answer on this domain, in lower case.

    Raises:
        InvalidInput: Something else answers there.
    """
    folded = key.lower()
    if folded in RESERVED:
        raise InvalidInput(
            f"key is {key!r}, which browsers and crawlers ask every host for; choose another", where="key"
        )
    if folded in taken:
        raise InvalidInput(
            f"key is {key!r}, and the app has a route at /{folded} already; choose another", where="key"
        )
    return key


def random_key(number: int, *, case_sensitive: bool = True) -> str:
    """
    A key without letters that look alike.

    Args:
        number: 62 random bits or more; one letter takes less than six of them.
        case_sensitive: Otherwise only small letters and digits.
    """
    alphabet = ALPHABET if case_sensitive else _FOLDED
    letters = []
    for _ in range(KEY_LENGTH):
        number, index = divmod(number, len(alphabet))
        letters.append(alphabet[index])
    return "".join(letters)


def checked_type(value: Any) -> LinkType:
    """
    *value* as the type of a link.

    Raises:
        InvalidInput: It is none.
    """
    try:
        return msgspec.convert(value, LinkType)  # type: ignore[no-any-return]  # msgspec reads a Literal as a type
    except msgspec.ValidationError:
        raise InvalidInput(
            f"link_type is {value!r:.80}; use short, referral or campaign", where="link_type"
        ) from None


def checked_tags(tags: Iterable[Any]) -> list[str]:
    """
    *tags* once each, in their order.

    Raises:
        InvalidInput: They are more than 50, or one is too long or no text.
    """
    if isinstance(tags, str):
        raise InvalidInput(f"tags is {tags!r:.80}; give a list of them", where="tags")
    found = [_text(tag, "tags", MAX_TEXT) for tag in tags]
    kept = [tag for tag in dict.fromkeys(found) if tag is not None]
    if len(kept) > MAX_TAGS:
        raise InvalidInput(f"tags has {len(kept)} entries; a link has at most {MAX_TAGS}", where="tags")
    return kept


def checked_metadata(value: Any, where: str = "metadata") -> dict[str, Any]:
    """
    *value* as it may be kept beside a link: a JSON object.

    Raises:
        InvalidInput: It is none, holds a NUL, which PostgreSQL cannot keep, or is larger than 16 KiB.
    """
    try:
        written = msgspec.json.encode(value)
        found = msgspec.json.decode(written, type=dict[str, Any])
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{where} is no JSON object ({error}); give one", where=where) from None
    if len(written) > MAX_METADATA:
        raise InvalidInput(
            f"{where} takes {len(written)} bytes of JSON; at most {MAX_METADATA} are kept", where=where
        )
    if b"\\u0000" in written:
        raise InvalidInput(f"{where} holds a NUL character; leave it out", where=where)
    return found


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{where} is {value!r:.80}; give a text", where=where)
    return value


def _text(value: Any, where: str, most: int) -> str | None:
    found = text(_string(value, where), most + 1)
    if found is not None and len(found) > most:
        raise InvalidInput(f"{where} is longer than {most} characters; shorten it", where=where)
    return found


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"{where} is {value!r:.80}; it is true or false", where=where)
    return value


def _aware(value: Any, where: str) -> datetime:
    if not isinstance(value, datetime):
        raise InvalidInput(f"{where} is {value!r:.80}; give an aware datetime", where=where)
    if value.tzinfo is None:
        raise InvalidInput(f"{where} is {value!r}, without a time zone; give an aware datetime", where=where)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(f"{where} is {value!r}, which leaves the calendar", where=where) from None


def _uuid(value: Any, where: str) -> UUID:
    try:
        return value if isinstance(value, UUID) else UUID(str(value))
    except ValueError:
        raise InvalidInput(f"{where} is {value!r:.80}; give a UUID", where=where) from None


__all__ = [
    "FIELDS", "MAX_METADATA", "MAX_NOTES", "MAX_TAGS", "RESERVED", "LinkFields", "check_link", "checked_domain", "checked_fields",
    "checked_metadata", "checked_tags", "checked_type", "random_key", "unreserved",
]  # fmt: skip
