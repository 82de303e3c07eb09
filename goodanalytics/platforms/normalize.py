"""
How what is known of a person becomes what platforms compare: one shape, then SHA-256.

1. A platform matches the hash of the shape it documents, so one stray capital or dot is a person not found. Rules that
   differ between platforms have functions of their own; a dialect picks, and says which page it follows.
2. Nothing is hashed twice: 64 hexadecimal digits are taken as a hash that the host made, and go out in lower case.
3. What cannot be brought into shape is left out, not guessed: a telephone number without its country code hashes to
   somebody else's.
4. Shapes: Meta, https://developers.facebook.com/docs/marketing-api/conversions-api/parameters/customer-information-parameters
   (updated 2026-01-09), and its Python library's `Normalize`; Google, https://developers.google.com/data-manager/api/devguides/concepts/formatting, and its Python library's
   `Formatter` (github.com/googleads/data-manager-python).
5. Amounts: ISO 4217 says how many decimals a currency has; platforms want the major unit.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from goodanalytics.core.currencies import decimals

Shape: TypeAlias = Callable[[str], str | None]

_HASH = re.compile(r"[0-9a-fA-F]{64}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")
_TRUNK = re.compile(r"\(0+\)")
_STATES: Final = """
alabama:al alaska:ak arizona:az arkansas:ar california:ca colorado:co connecticut:ct delaware:de districtofcolumbia:dc
florida:fl georgia:ga hawaii:hi idaho:id illinois:il indiana:in iowa:ia kansas:ks kentucky:ky louisiana:la maine:me
maryland:md massachusetts:ma michigan:mi minnesota:mn mississippi:ms missouri:mo montana:mt nebraska:ne nevada:nv
newhampshire:nh newjersey:nj newmexico:nm newyork:ny northcarolina:nc northdakota:nd ohio:oh oklahoma:ok oregon:or
pennsylvania:pa rhodeisland:ri southcarolina:sc southdakota:sd tennessee:tn texas:tx utah:ut vermont:vt virginia:va
washington:wa westvirginia:wv wisconsin:wi wyoming:wy
"""
_US_STATES: Final[Mapping[str, str]] = MappingProxyType(dict(pair.split(":") for pair in _STATES.split()))


def is_hash(text: str) -> bool:
    """Whether *text* looks like a SHA-256 that the host made."""
    return _HASH.fullmatch(text.strip()) is not None


def sha256(text: str) -> str:
    """SHA-256 of the UTF-8 bytes, as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def hashed(text: str | None, shape: Shape) -> str | None:
    """
    The hash of *text* in *shape*; *text* itself when it is a hash; `None` when there is nothing to hash.

    >>> hashed(" John_Smith@gmail.com", email)
    '62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f'
    """
    if text is None:
        return None
    if is_hash(text):
        return text.strip().lower()
    shaped = shape(text)
    return sha256(shaped) if shaped else None


def plain(text: str) -> str | None:
    """Trimmed and lower-cased; for ids."""
    return text.strip().lower() or None


def email(text: str) -> str | None:
    """
    An address, trimmed and lower-cased.

    >>> email(" Ada@Example.ORG "), email("no address")
    ('ada@example.org', None)
    """
    shaped = text.strip().lower()
    return shaped if _EMAIL.fullmatch(shaped) else None


def google_email(text: str) -> str | None:
    """
    An address as Google compares it: in Gmail's own domains also without dots and without what follows a plus.

    >>> google_email("Jane.Doe+Shopping@googlemail.com"), google_email("J.Doe+x@example.org")
    ('janedoe@googlemail.com', 'j.doe+x@example.org')
    """
    shaped = email("".join(text.split()))
    if shaped is None:
        return None
    local, _, domain = shaped.rpartition("@")
    if domain not in {"gmail.com", "googlemail.com"}:
        return shaped
    local = local.partition("+")[0].replace(".", "")
    return f"{local}@{domain}" if local else None


def phone_digits(text: str) -> str | None:
    """
    A number as digits with the country code: no plus, no zeros in front (Meta).

    A number that begins with one zero is national; its country is not known here, so there is no shape for it. Nor is there
    for what holds letters: the digits of an extension would make it somebody else's.

    >>> phone_digits("+44 (0)844 412 4653"), phone_digits("1 (650) 555-1212"), phone_digits("0844 4124653")
    ('448444124653', '16505551212', None)
    """
    bare = _TRUNK.sub("", text.strip())
    if any(c.isalpha() for c in bare):
        return None
    digits = "".join(d for d in bare if d in "0123456789")
    if digits.startswith("00"):
        digits = digits.lstrip("0")
    # E.164 allows 15 digits; no number with its country code is shorter than 8.
    return digits if 8 <= len(digits) <= 15 and not digits.startswith("0") else None


def phone_e164(text: str) -> str | None:
    """
    A number in E.164, with its plus (Google, TikTok).

    >>> phone_e164("0044 844 412 4653")
    '+448444124653'
    """
    digits = phone_digits(text)
    return f"+{digits}" if digits else None


# What is no part of a name for any platform; Google says so of "Mrs." and "Jr.".
_BEFORE: Final = frozenset(
    ["dame", "dr", "frau", "herr", "madame", "miss", "mme", "mr", "mrs", "ms", "mx", "prof", "sir"]
)
_BEHIND: Final = frozenset(["ii", "iii", "iv", "jr", "jun", "junior", "md", "phd", "senior", "sr"])


def name_parts(whole: str | None) -> tuple[str | None, str | None]:
    """First and last of the words of a whole name, without titles; a comma in it is none of theirs."""
    words = [word.strip(",") for word in (whole or "").split()]
    found = len(words)
    while len(words) > 1 and _bare(words[0]) in _BEFORE:
        del words[0]
    has_title = len(words) < found
    while len(words) > 1 and _bare(words[-1]) in _BEHIND:
        del words[-1]
    if len(words) > 1:
        return words[0], words[-1]
    alone = words[0] if words else None
    # Whoever is called "Mrs. Lovelace" is called so by the last name.
    return (None, alone) if has_title else (alone, None)


def _bare(word: str) -> str:
    return word.replace(".", "").lower()


def google_name(text: str) -> str | None:
    """
    A first or last name as Google compares it: lower case, with its punctuation.

    >>> google_name(" O'Neil-Smith ")
    "o'neil-smith"
    """
    return " ".join(unicodedata.normalize("NFC", text).lower().split()) or None


def name(text: str) -> str | None:
    """
    A first or last name as Meta and TikTok compare it: lower case, no punctuation, single spaces; letters of any script.

    >>> name(" O'Neil-Smith  Jr. "), name("정")
    ('oneilsmith jr', '정')
    """
    lower = unicodedata.normalize("NFC", text).lower()
    kept = "".join(c for c in lower if unicodedata.category(c)[0] not in "PSC" or c.isspace())
    return " ".join(kept.split()) or None


def letters(text: str) -> str | None:
    """
    A city or a region: lower-case letters and nothing between them.

    >>> letters("St. John's"), letters("São Paulo")
    ('stjohns', 'sãopaulo')
    """
    lower = unicodedata.normalize("NFC", text).lower()
    return "".join(c for c in lower if unicodedata.category(c)[0] in "LM") or None


def region(text: str) -> str | None:
    """
    A region as letters; a state of the USA by its two.

    >>> region("California"), region("New South Wales")
    ('ca', 'newsouthwales')
    """
    shaped = letters(text)
    return _US_STATES.get(shaped, shaped) if shaped else None


def postcode(country_code: str | None) -> Shape:
    """
    The shape of a postcode: lower case, no spaces, no dashes; in the USA the first five digits.

    >>> postcode("US")("94035-1234"), postcode("GB")("M1 1AE")
    ('94035', 'm11ae')
    """
    american = (country_code or "").strip().lower() == "us"

    def shaped(text: str) -> str | None:
        kept = "".join(c for c in text.lower() if c.isalnum())
        return (kept[:5] if american else kept) or None

    return shaped


def country(text: str) -> str | None:
    """
    Two letters of ISO 3166-1 in lower case.

    >>> country(" US"), country("United States")
    ('us', None)
    """
    shaped = text.strip().lower()
    return shaped if len(shaped) == 2 and shaped.isascii() and shaped.isalpha() else None


def major(amount_cents: int, currency: str) -> Decimal:
    """
    An amount in the currency's major unit, with the decimals that the currency has.

    >>> major(4900, "EUR"), major(4900, "JPY"), major(4900, "KWD")
    (Decimal('49.00'), Decimal('4900'), Decimal('4.900'))
    """
    return Decimal(amount_cents).scaleb(-decimals(currency))


def page(url: str | None) -> str | None:
    """
    The address of a page without what may name a person: query, fragment, credentials, a path with an e-mail address.

    >>> page("https://shop.example/thanks?email=ada@example.org#top"), page("https://shop.example/u/ada%40example.org")
    ('https://shop.example/thanks', 'https://shop.example/')
    """
    try:
        parts = urlsplit(url or "")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not host:
        return None
    path = "" if "@" in parts.path or "%40" in parts.path else parts.path
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{f':{port}' if port else ''}{path or '/'}"
