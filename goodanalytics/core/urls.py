r"""
Read and tidy addresses of pages, without ever raising.

The rules of this file:

* Only ``http`` and ``https`` addresses have a host. It is lower-case ASCII (punycode), without user name, password,
  trailing dot or default port; any other port stays as ``host:port``. A host that no browser would accept is ``None``.
* A path has no query and no fragment, single slashes, no trailing slash but at the root; an empty one is ``/``. Case and
  percent-encoding are kept, because servers tell them apart.
* Control characters and lone surrogates are removed first: PostgreSQL can store neither.
* Backslashes of an http address count as slashes up to the query, as in browsers
  (WHATWG URL Standard, "special scheme"), so that ``https://evil.example\@good.example`` is not mistaken for good.example.
* What many hits have in common, their page and where they came from, is read once: the last 2,048 answers are kept.
* What is stored is cleaned: no user name or password, no parameter that carries a secret or an e-mail address, no fragment
  but a hash route, at most 2,083 bytes.

Source of the host and path rules: the reference behaviour, original-core.md, section 21.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from urllib.parse import unquote_plus

MAX_BYTES = 2083
"""Bytes of UTF-8 kept of an address or a path: what the oldest browsers could hold, and below PostgreSQL's index row."""

MAX_PARAMETERS = 200
"""Parameters of one address that are looked at; those after them are as if they were not there."""

SECRET_PARAMETERS = frozenset(
    {
        # passwords and keys
        "pass", "password", "passwd", "passphrase", "pwd", "secret", "key_secret", "api_key", "apikey", "access_key",
        "awsaccesskeyid", "private_key", "subscription_key", "otp", "pin", "totp", "recovery_code",
        # tokens and sessions
        "token", "jwt", "bearer", "auth", "authorization", "code", "id_token_hint", "session", "session_id", "sessionid",
        "sid", "phpsessid", "jsessionid", "asp.net_sessionid", "saml_response", "samlresponse", "samlrequest", "ticket",
        "nonce", "login_hint", "csrf", "xsrf", "magic_link", "invite_code",
        # signatures
        "sig", "signature", "hmac", "x_amz_credential", "x_goog_credential", "googleaccessid",
        # a person
        "email", "e_mail", "email_address", "user_email", "phone", "phone_number", "ssn", "iban",
        "card_number", "cvv", "cvc",
    }
)  # fmt: skip
"""Parameter names whose value is never stored; compared lower-cased, with ``-`` read as ``_`` and brackets opened."""

SECRET_ENDINGS = (
    "token",
    "secret",
    "password",
    "passwd",
    "signature",
    "api_key",
    "apikey",
    "_email",
)
"""Endings that make any other name secret as well: ``resetToken``, ``client_secret``, ``X-Amz-Signature``."""

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_SLASHES = re.compile(r"//+")
# A semicolon separates only before another ``name=``: that reads ``&amp;b=2`` right and leaves ``a=x;y`` whole.
_SEPARATOR = re.compile(r"(&|;(?=[\w.%\[\]-]+=))")
_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_LAST_BRACKET = re.compile(r".*\[([^\[\]]+)\](?:\[\])*", re.DOTALL)
_LIST_SUFFIX = re.compile(r"(?:\[\d*\])+$")
# IDNA 2003, which Python speaks, maps these four away; browsers keep them (UTS 46, "deviation characters").
_DEVIATIONS = frozenset("\u00df\u03c2\u200c\u200d")


@dataclass(frozen=True, slots=True)
class UrlParts:
    """
    The parts of an address that reports group by.

    Attributes:
        host: Lower-case ASCII, ``host:port`` for an unusual port; ``None`` unless the address is http or https.
        path: Starts with a slash, at most 2,083 bytes.
        query: As written, without the question mark; may be empty.
    """

    host: str | None = None
    path: str = "/"
    query: str = ""


@dataclass(frozen=True, slots=True)
class _Pieces:
    """An address cut at its delimiters, nothing else changed; ``head`` is what stands before the authority."""

    scheme: str
    head: str
    authority: str | None
    path: str
    query: str
    fragment: str


def printable(text: str) -> str:
    r"""
    Return *text* without control characters and lone surrogates.

    >>> printable("a\x00b")
    'ab'
    """
    return _UNPRINTABLE.sub("", text)


def bounded(text: str, octets: int = MAX_BYTES) -> str:
    """
    Return the longest start of *text* that fits in *octets* bytes of UTF-8; no character is cut in two.

    >>> bounded("zoë", 3)
    'zo'
    """
    encoded = text.encode("utf-8", "ignore")
    return text if len(encoded) <= octets else encoded[:octets].decode("utf-8", "ignore")


@lru_cache(maxsize=2048)
def parts(url: str | None) -> UrlParts:
    """
    Return host, path and query of *url*, whatever it holds.

    A relative address has a path but no host. An address such as ``javascript:…``, ``data:…`` or ``about:blank`` names no page
    and gives the root.

    >>> parts("https://App.Acme.COM:443//docs///guide/?utm=x#hero")
    UrlParts(host='app.acme.com', path='/docs/guide', query='utm=x')
    """
    pieces = _pieces(url)
    if pieces is None:
        return UrlParts()
    if pieces.scheme in {"http", "https"}:
        host = None if pieces.authority is None else _host(pieces.authority, pieces.scheme)
        return UrlParts(host, path_of(pieces.path), pieces.query)
    return UrlParts(None, path_of(pieces.path), pieces.query)


def path_of(path: str) -> str:
    """
    Return *path* with a leading slash, single slashes and no trailing one; query and fragment must be gone already.

    >>> path_of("a//b/")
    '/a/b'
    """
    single = _SLASHES.sub("/", "/" + bounded(path))
    return bounded(single).rstrip("/") or "/"


@lru_cache(maxsize=2048)
def clean(url: str | None) -> str | None:
    """
    Return *url* as it may be stored: without secrets, at most 2,083 bytes; ``None`` when nothing storable is left.

    Removed are user name and password, the parameters of `SECRET_PARAMETERS` and `SECRET_ENDINGS` (also inside a hash route),
    and every fragment but ``#/…`` and ``#!/…``. The other parameters keep their order and bytes. Cleaning twice changes
    nothing more. An address without a place, such as ``javascript:…`` or ``mailto:…``, is ``None``.

    >>> clean("https://bob:pw@acme.com/reset?token=abc&plan=pro#top")
    'https://acme.com/reset?plan=pro'
    """
    cleaned = _cleaned(url)
    if cleaned is None or len(cleaned.encode()) <= MAX_BYTES:
        return cleaned
    # The cut can end in a name that is now secret ("token_x" to "token"), so the shortened text is read again.
    return _cleaned(bounded(cleaned))


def parameters(url: str | None) -> list[tuple[str, str]]:
    """
    Return the decoded parameters of *url* in order: those of the query, then those of a hash route.

    Names are lower-cased and lose a list suffix (``utm_source[]``, ``a[0]``); invalid percent-encodings become U+FFFD or stay.
    At most `MAX_PARAMETERS` are read.

    >>> parameters("https://acme.com/?UTM_Source[]=a+b&amp;x=%zz#/p?y=1")
    [('utm_source', 'a b'), ('amp', ''), ('x', '%zz'), ('y', '1')]
    """
    pieces = _pieces(url)
    if pieces is None:
        return []
    queries = [pieces.query]
    if _is_route(pieces.fragment):
        queries.append(pieces.fragment.partition("?")[2])
    found: list[tuple[str, str]] = []
    for query in queries:
        if not query:
            continue
        for item in _SEPARATOR.split(query, MAX_PARAMETERS - len(found))[
            : 2 * (MAX_PARAMETERS - len(found)) : 2
        ]:
            name, _, value = item.partition("=")
            found.append((_LIST_SUFFIX.sub("", _decoded(name[:255])).casefold(), _decoded(value)))
    return found


def is_listed(host: str, patterns: Collection[str]) -> bool:
    """
    Tell whether *host* is one of *patterns*; ports and a leading ``www.`` make no difference.

    A pattern is a host, or ``*.example.com`` for example.com and everything below it; an address is read for its host.

    >>> is_listed("shop.example.com:8443", ["*.example.com"])
    True
    """
    bare = bare_host(host)
    for pattern in patterns:
        wanted = pattern.strip().casefold()
        if "://" in wanted:
            wanted = parts(wanted).host or ""
        if wanted.startswith("*."):
            domain = bare_host(wanted[2:])
            if domain and (bare == domain or bare.endswith("." + domain)):
                return True
        elif wanted and bare == bare_host(wanted):
            return True
    return False


def bare_host(host: str) -> str:
    """
    Return *host* in lower case without port, trailing dot and leading ``www.``.

    >>> bare_host("www.Acme.com:8443")
    'acme.com'
    """
    name = host.casefold()
    if not name.startswith("["):
        name = name.partition(":")[0]
    elif "]" in name:
        name = name[: name.index("]") + 1]
    name = name.rstrip(".")
    if not name.isascii():
        name = _ascii(name) or name
    while name.startswith("www."):  # a site may be called www.example itself, and have a twin too
        name = name[4:]
    return name


def _pieces(url: str | None) -> _Pieces | None:
    """Cut *url* at its delimiters; ``None`` when it is blank or names no place."""
    text = printable(url or "").strip()
    if not text:
        return None
    before, hash_sign, fragment = text.partition("#")
    before, _, query = before.partition("?")
    scheme, rest = "", before
    if match := _SCHEME.match(before):
        scheme, rest = match[1].lower(), before[match.end() :]
    if scheme in {"http", "https"}:
        rest = rest.replace("\\", "/")
    if scheme and not rest.startswith("//"):
        return None
    authority: str | None = None
    head = f"{scheme}:" if scheme else ""
    if rest.startswith("//"):
        authority, slash, rest_path = rest[2:].partition("/")
        rest = slash + rest_path
        head += "//"
    if not scheme and authority is not None:
        # Without a scheme ``//docs//guide`` may be a request's raw path as well as an address, so it names no host.
        return _Pieces("", head, authority, f"{authority}{rest}", query, hash_sign + fragment)
    return _Pieces(scheme, head, authority, rest, query, hash_sign + fragment)


def _cleaned(url: str | None) -> str | None:
    pieces = _pieces(url)
    if pieces is None:
        return None
    path = pieces.path
    if pieces.authority is not None:
        host = pieces.authority.rpartition("@")[2]
        path = host + (path if pieces.scheme else path[len(pieces.authority) :])
    query = _without_secrets(pieces.query)
    fragment = ""
    if _is_route(pieces.fragment):
        route, _, route_query = pieces.fragment.partition("?")
        route_query = _without_secrets(route_query)
        fragment = f"{route}?{route_query}" if route_query else route
    cleaned = (pieces.head + path + (f"?{query}" if query else "") + fragment).strip()
    return cleaned or None


def _without_secrets(query: str) -> str:
    """Return *query* without its secret parameters, the others byte by byte as they were."""
    kept: list[str] = []
    pieces = _SEPARATOR.split(query)
    for separator, item in zip(["", *pieces[1::2]], pieces[::2], strict=True):
        if not _is_secret(item.partition("=")[0]):
            kept.append(separator + item if kept else item)
    # Blanks at the end would be stripped with the whole address the next time.
    return "".join(kept).rstrip()


def _is_secret(name: str) -> bool:
    """Tell whether the undecoded parameter *name* carries a secret, also as ``user[password]``."""
    # The end decides, and a bounded one keeps a hostile name of brackets from costing more than its length.
    plain = _decoded(name)[-255:].casefold().replace("-", "_")
    if match := _LAST_BRACKET.fullmatch(plain):
        plain = match[1]
    plain = _LIST_SUFFIX.sub("", plain).strip()
    return plain in SECRET_PARAMETERS or plain.endswith(SECRET_ENDINGS)


def _is_route(fragment: str) -> bool:
    return fragment.startswith(("#/", "#!/"))


def _decoded(text: str) -> str:
    return printable(unquote_plus(text, errors="replace")).strip()


def _host(authority: str, scheme: str) -> str | None:
    """Return the normalised ``host`` or ``host:port`` of *authority*, ``None`` when a browser would refuse it."""
    location = authority.rpartition("@")[2].lower()
    if location.startswith("["):
        address, bracket, port = location[1:].partition("]")
        try:
            name = f"[{IPv6Address(address).compressed}]" if bracket and "%" not in address else ""
        except AddressValueError:
            return None
        if port and not port.startswith(":"):
            return None
        port = port[1:]
    else:
        name, _, port = location.partition(":")
        name = _ascii(name.removesuffix(".")) or ""
    if (
        not name
        or len(port) > 5
        or (port and not (port.isascii() and port.isdigit()))
        or int(port or 0) > 65535
    ):
        return None
    default = 80 if scheme == "http" else 443
    return name if not port or int(port) == default else f"{name}:{int(port)}"


def _ascii(name: str) -> str | None:
    """Return the lower-case punycode form of a host *name*, ``None`` when it is none."""
    if len(name) > 253:
        return None
    labels: Iterator[str] = (_ascii_label(label) for label in name.split("."))
    try:
        host = name if name.isascii() else ".".join(labels)
    except UnicodeError:
        return None
    return host if len(host) <= 253 and _HOST.fullmatch(host) else None


def _ascii_label(label: str) -> str:
    if label.isascii():
        return label
    if _DEVIATIONS.isdisjoint(label):
        return label.encode("idna").decode("ascii").lower()
    return "xn--" + label.encode("punycode").decode("ascii").lower()
