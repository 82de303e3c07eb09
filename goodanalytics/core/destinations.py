"""
Addresses that links lead to: which may be stored, and what a click makes of them.

1. A destination is an absolute http(s) address, or one of an app's scheme that the host allowed. Schemes by which a browser
   runs or shows what stands in the address itself (`javascript:`, `data:`, …) are never allowed.
2. The address stays as it is and parameters are *appended*: what stands there keeps its order and its bytes, so that a
   signed address stays valid. A parameter that it has already is not added again, but a UTM parameter of the link
   replaces it.
3. Added, in this order: the link's UTM parameters, the request's own query (which overrules the link's; bounded, without
   ours), and exactly one `ga_id`, the click's id. Where that would be longer than `MAX_DESTINATION`, parameters of the
   request are left out first, its click ids last of them, and then the link's UTM parameters.
4. Ad click ids (gclid, fbclid, …) are passed on: the platform's own tag at the destination reads them there. The landing
   then says of its source what the click said, so nothing is counted twice.
5. A forwarded path goes below the address's own path and can neither climb out of it nor reach another host.
6. Nothing in a request can choose the host. The address is ASCII without blanks, as a header carries it.

What does not depend on the click is worked out once, in a `Target`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit
from uuid import UUID

import msgspec

from goodanalytics.core import urls
from goodanalytics.core.bounds import MAX_URL, text
from goodanalytics.core.campaigns import CLICK_IDS
from goodanalytics.errors import InvalidInput

NOT_PASSED = frozenset({"ga_id", "via", "ref", "qr", "s"})
"""Parameters that mean something to us and nothing to the destination; compared as `urls.parameters` reads names."""

MAX_PASSED = 10  # beside click ids
MAX_PASSED_NAME = 64  # characters
MAX_PASSED_VALUE = 512  # characters
MAX_PASSED_PATH = 1_024  # bytes, percent-encoded
MAX_DESTINATION = 8_000  # bytes; nginx and Apache read header lines of 8 KiB, the header's name among them

UTM = ("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term")

NEVER_SCHEMES = frozenset(
    {
        "about", "blob", "chrome", "content", "data", "file", "filesystem", "ftp", "http", "https", "javascript", "jar",
        "livescript", "mocha", "resource", "vbscript", "view-source", "ws", "wss",
    }
)  # fmt: skip
"""Schemes that no setting can allow beside http and https."""

SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,63}")
"""An app's scheme, in lower case (RFC 3986, section 3.1)."""


def checked_url(url: str, where: str = "url") -> str:
    """
    *url* as a destination on the web.

    Raises:
        InvalidInput: It is not an absolute http or https address.
    """
    return checked_destination(url, where)


def checked_destination(url: str, where: str = "url", app_schemes: Collection[str] = ()) -> str:
    """
    *url* as a destination.

    Args:
        where: Names the value in an error.
        app_schemes: Allowed beside http and https, in lower case: `config.link_app_schemes`.

    Raises:
        InvalidInput: It is neither an absolute http or https address nor one of an allowed app scheme.
    """
    address = text(url, MAX_URL + 1) or ""
    is_tidy = (
        len(address.encode()) <= MAX_URL and not any(c.isspace() for c in address) and "\\" not in address
    )
    if not is_tidy or not (_is_web(address) or _is_app(address, app_schemes)):
        also = f" or one that starts with {', '.join(f'{s}:' for s in app_schemes)}" if app_schemes else ""
        raise InvalidInput(
            f"{where} is {address[:80]!r}; it must be an absolute http or https address of at most {MAX_URL} bytes, "
            f"such as https://example.com/page{also}",
            where=where,
        )
    return address


def _is_web(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and urls.parts(address).host is not None
        )
    except ValueError:
        return False


def _is_app(address: str, app_schemes: Collection[str]) -> bool:
    scheme, colon, rest = address.partition(":")
    scheme = scheme.lower()
    return bool(colon and rest.strip("/")) and scheme in app_schemes and scheme not in NEVER_SCHEMES


class Target(msgspec.Struct, frozen=True, gc=False):
    """
    A destination, ready for clicks; `target` makes it.

    Attributes:
        bare: The address as a header carries it, without anything of a click.
        base: What stands before its query.
        kept: Its own parameters that stay.
        present: Their decoded names.
        utm: The link's parameters by name, written out.
        fragment: With its `#`; may be empty.
        plain: All that stands before the click's id when the request adds nothing; `None` where nothing is ever added.
        is_web: Whether it is http or https.
    """

    bare: str
    base: str
    kept: tuple[str, ...]
    present: frozenset[str]
    utm: Mapping[str, str]
    fragment: str
    plain: str | None
    is_web: bool

    def address(self, click_id: UUID, query: str = "", path: str = "") -> str:
        """
        The address for one click.

        Args:
            click_id: Becomes `ga_id`.
            query: The request's, of which what may pass is added.
            path: As `forwarded_path` gives it; put behind the address's own path.
        """
        if self.plain is None:
            return self.bare
        if not query and not path:
            return f"{self.plain}{click_id}{self.fragment}"
        base = f"{self.base.rstrip('/')}{path}" if path and self.is_web else self.base
        return f"{self.before_id(base, _passed(query))}{click_id}{self.fragment}"

    def before_id(self, base: str, passed: Mapping[str, str]) -> str:
        """All that stands before the click's id when the request passes the parameters *passed*."""
        added = {**self.utm, **{name: part for name, part in passed.items() if name not in self.present}}
        always = f"{base}?{'&'.join([*self.kept, 'ga_id='])}"
        room = MAX_DESTINATION - len(always) - _UUID_LENGTH - len(self.fragment)
        if sum(map(len, added.values())) + len(added) > room:
            added = _that_fit(added, self.utm, room)
        return f"{base}?{'&'.join([*self.kept, *added.values(), 'ga_id='])}"


_UUID_LENGTH = 36


def target(url: str, utm: Iterable[tuple[str, str]] = ()) -> Target:
    """
    *url*, which was checked, made ready for clicks.

    An address that is no hierarchy (`mailto:…`, `tel:…`) has nowhere to put parameters and gets none.

    Args:
        utm: Names and values of the link's UTM parameters.
    """
    address, hash_mark, fragment = url.partition("#")
    base, question_mark, own = address.partition("?")
    is_web = url[:6].lower().startswith(("http:", "https:"))
    if is_web and not base.isascii():
        base = _with_ascii_host(base)
    written = {name: f"{name}={quote_plus(value)}" for name, value in utm}
    parts = own.split("&") if own else []
    ready = Target(
        bare=ascii_form(f"{base}{question_mark}{own}{hash_mark}{fragment}"),
        base=ascii_form(base),
        kept=tuple(ascii_form(part) for part in parts if not _names(part) & {"ga_id", *written}),
        present=frozenset(),
        utm=written,
        fragment=ascii_form(hash_mark + fragment),
        plain=None,
        is_web=is_web,
    )
    if "://" not in base:
        return ready
    present = frozenset(unquote_plus(part.partition("=")[0]) for part in ready.kept)
    return msgspec.structs.replace(ready, present=present, plain=ready.before_id(ready.base, {}))


def ascii_form(address: str) -> str:
    """*address* as a header may carry it: whatever is not printable ASCII percent-encoded (RFC 9110, section 10.2.2)."""
    return _NOT_IN_HEADER.sub(lambda found: quote(found[0], safe="", errors="replace"), address)


_NOT_IN_HEADER = re.compile(r"[^!-~]+")


def _with_ascii_host(base: str) -> str:
    """*base* with its host in punycode, which every client understands; percent-encoded, only browsers do."""
    scheme, _, rest = base.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, _ = authority.rpartition("@")
    host = urls.parts(base).host
    return base if host is None else f"{scheme}://{user}{at}{host}{slash}{path}"


def forwarded_path(rest: str) -> str | None:
    """
    What stands behind a link's key, as it may follow a destination's path; `None` when it may not.

    Refused is whatever a server on the way could read as a step up, an empty step or another host, however often it is
    encoded: `.` and `..` (also `..;x`, as Tomcat reads it, and the forms of other scripts), `//`, backslashes, controls.

    Args:
        rest: Percent-decoded once, as ASGI's `path` is.

    >>> forwarded_path("/guide/erste schritte"), forwarded_path("/../admin"), forwarded_path("/")
    ('/guide/erste%20schritte', None, '')
    """
    inner = rest.removeprefix("/")
    if not inner:
        return ""
    steps = inner.split("/")
    slash = "/" if steps[-1] == "" and steps.pop() == "" else ""
    if not all(map(_is_step, steps)):
        return None
    path = "".join(f"/{quote(step, safe=_STEP)}" for step in steps) + slash
    return path if len(path) <= MAX_PASSED_PATH else None


_STEP = "-._~!$&'()*+,;=:@"  # RFC 3986, section 3.3, pchar
_DECODINGS = 4


def _is_step(step: str) -> bool:
    for _ in range(_DECODINGS):
        plain = unicodedata.normalize("NFKC", step)
        is_dots = not plain.partition(";")[0].strip(". ")
        if is_dots or not plain.isprintable() or any(c in plain for c in "/\\\ufffd"):
            return False
        decoded = unquote(step)
        if decoded == step:
            return True
        step = decoded
    return False


_SIMPLE = re.compile(r"[A-Za-z0-9_.~-]{1,64}(?:=[A-Za-z0-9_.~-]{0,512})?")
_MAX_PART = (
    12 * (MAX_PASSED_NAME + MAX_PASSED_VALUE) + 1
)  # a character is at most four bytes of three letters each


def _passed(query: str) -> dict[str, str]:
    """What of the request's query goes on to the destination, by decoded name: bounded, the first of each name."""
    found: dict[str, str] = {}
    room = MAX_PASSED
    for part in query.split("&", 200)[:200]:
        if (pair := _usable(part)) is None or pair[0] in found:
            continue
        name, written = pair
        if name.lower() not in CLICK_IDS:
            if not room:
                continue
            room -= 1
        found[name] = written
    return found


def _usable(part: str) -> tuple[str, str] | None:
    """The decoded name of a query's *part*, and the part written anew; `None` when it may not pass."""
    name, equals, value = part.partition("=")
    if _SIMPLE.fullmatch(part):
        return None if name.lower() in NOT_PASSED else (name, part)
    if not part or len(part) > _MAX_PART:
        return None
    name, value = unquote_plus(name), unquote_plus(value)
    is_bounded = 1 <= len(name) <= MAX_PASSED_NAME and len(value) <= MAX_PASSED_VALUE
    if not is_bounded or not (name + value).isprintable() or name.strip().casefold() in NOT_PASSED:
        return None
    # Only a list or a semicolon can give a part other names than the one before its equals sign.
    if (";" in part or "[" in name) and _names(part) & NOT_PASSED:
        return None
    return name, f"{quote_plus(name)}{equals}{quote_plus(value)}"


def _that_fit(added: Mapping[str, str], utm: Mapping[str, str], room: int) -> dict[str, str]:
    """Those of *added* that fit in *room*: the link's own first, then click ids, then the others; in their order."""

    def rank(name: str) -> int:
        return 0 if added[name] == utm.get(name) else 1 if name.lower() in CLICK_IDS else 2

    fitting = set()
    for name in sorted(added, key=rank):
        if len(added[name]) + 1 <= room:
            room -= len(added[name]) + 1
            fitting.add(name)
    return {name: part for name, part in added.items() if name in fitting}


def _names(part: str) -> set[str]:
    """The names that *part* of a query has for whoever lands with it: other case and `name[]` are the same."""
    return {name for name, _ in urls.parameters(f"?{part}")}
