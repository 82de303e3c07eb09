"""
Is it a person? A verdict with its reasons, from the user agent and, where known, the request's headers.

The rules of this file:

* The patterns are those of the crawler-user-agents package (MIT, about 1,500) behind a few of our own, tried in one pass by
  ua-parser-rs (18 µs), or by one combined regular expression where that wheel is missing.
* A missing user agent is a bot: every browser sends one.
* A request made ahead of the visitor (prefetch, prerender, preview) is nobody's visit yet, so it is told apart from crawlers.
* A verdict never depends on anything but its arguments; `VERSION` is stored beside it, so that old verdicts can be reread.
* In-app browsers of people that the package lists as crawlers are taken out (`_PEOPLE`), with the reason beside each.

Source of the measurements: dependencies.md, section 3: no ordinary browser among 952 real ones was called a bot.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Final

from crawleruseragents import CRAWLER_USER_AGENTS_DATA

VERSION: Final = 2
"""Raise it when the rules of this file change what they call a bot."""

MAX_USER_AGENT: Final = 512
"""Characters of a user agent that are looked at."""

_PEOPLE: Final[Mapping[str, str | None]] = {
    "MetaIAB Facebook": None,  # the newer mark of Facebook's in-app browser
    "Fluid": None,  # turns a site into a Mac app; a person sits before it
    r"Code\/1\.": None,  # the browser inside an editor, where people preview their work
    "Viber": r"^Viber",  # the preview fetcher is called Viber and nothing else; in the app people browse
    "WhatsApp": r"^WhatsApp",  # likewise
}
"""Patterns of the package that ordinary people match, and what stands in their place."""

_OWN: Final = (
    # Named before the package's own patterns, because it would name the browser they pretend to be.
    (r"Chrome-Lighthouse|Lighthouse|PageSpeed", "monitoring"),
    (
        r"HeadlessChrome|Headless|PhantomJS|SlimerJS|puppeteer|[Pp]laywright|Cypress/|[Ss]elenium",
        "browser-automation",
    ),
    (r"facebookexternalhit|facebookcatalog|Slackbot|Twitterbot|TelegramBot|Discordbot", "social-preview"),
    # Office asks for a link before it opens the browser, and security gateways before the letter is delivered. Those that
    # call themselves a browser cannot be told from one.
    (r"^Microsoft Office|\bms-office\b|\bMSOffice\b", "link-scanner"),
    (
        r"Barracuda|Mimecast|[Pp]roofpoint|MessageLabs|Cloudmark|Trend ?Micro|VirusTotal|urlscan|MailScanner",
        "link-scanner",
    ),
    (r"GPTBot|ChatGPT-User|OAI-SearchBot|ClaudeBot|Claude-User|Claude-SearchBot|anthropic-ai", "ai-crawler"),
    (r"PerplexityBot|Perplexity-User|Google-Extended|GoogleOther|Bytespider|CCBot|Amazonbot", "ai-crawler"),
    (r"Applebot-Extended|meta-externalagent|MistralAI-User|cohere-ai|DuckAssistBot", "ai-crawler"),
)

_LAST: Final = (
    # Words by which crawlers name themselves. "Cubot" makes telephones, hence the word boundary.
    (r"(?i:\bbots?\b|[\w-]*crawler|[\w-]*spider|[\w-]*scraper|\burlpreview\b)", "unknown"),
    (r"[\w-]*[a-z]Bot/|\+https?://|\+mailto:", "unknown"),
    (r"(?i:^(?:java|ruby|perl|php|guzzlehttp|reqwest|undici|node|deno|bun|dart|postmanruntime|insomnia|wget|libcurl)\b)", "http-library"),
    (r"(?i:^(?:python|go|rust|faraday|rest-client|winhttp|powershell|windowspowershell|restsharp|unirest)\b)", "http-library"),
)  # fmt: skip

_WORD_OF_CATEGORY: Final[Mapping[str, str]] = {
    "social-preview": "preview",
    "browser-automation": "automation",
    "http-library": "http library",
    "link-scanner": "scanner",
}

_PREFETCH_HEADERS: Final = ("sec-purpose", "purpose", "x-purpose", "x-moz")
_PREFETCH: Final = re.compile(r"prefetch|prerender|preview", re.IGNORECASE)
_NAME: Final = re.compile(r"[\w.+-]*\w")


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    Whether a request came from a machine, and why.

    Attributes:
        bot: True when no person was looking.
        reasons: Why, in words such as ``crawler: Googlebot``; empty for a person.
        name: The bot's own name, when it has one.
        category: A tag of crawler-user-agents (``search-engine``, ``ai-crawler``, ``social-preview``, ``seo``,
            ``link-scanner``, ``monitoring``, ``http-library``, ``browser-automation``, …), ``empty``, ``prefetch`` or ``unknown``.
    """

    bot: bool
    reasons: tuple[str, ...] = ()
    name: str | None = None
    category: str | None = None


PERSON: Final = Verdict(bot=False)


def judge(user_agent: str | None, *, headers: Mapping[str, str] | None = None) -> Verdict:
    """
    Return the verdict on one request.

    Args:
        user_agent: As sent; the first `MAX_USER_AGENT` characters count.
        headers: The request's headers under lower-case names, where there are any.

    >>> judge("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)").reasons
    ('crawler: Googlebot',)
    """
    verdict = _verdict((user_agent or "").strip()[:MAX_USER_AGENT])
    if not headers:
        return verdict
    if not verdict.bot and "Headless" in headers.get("sec-ch-ua", ""):
        verdict = Verdict(
            bot=True,
            reasons=("automation: HeadlessChrome",),
            name="HeadlessChrome",
            category="browser-automation",
        )
    if is_prefetch(headers):
        return Verdict(
            bot=True,
            reasons=(*verdict.reasons, "prefetch"),
            name=verdict.name,
            category=verdict.category or "prefetch",
        )
    return verdict


def is_prefetch(headers: Mapping[str, str]) -> bool:
    """
    Tell whether a browser asks ahead of its visitor, from headers under lower-case names.

    Read are Sec-Purpose (Fetch standard), Purpose (older Chrome), X-Purpose (Safari's preview) and X-Moz (Firefox).

    >>> is_prefetch({"sec-purpose": "prefetch;prerender"})
    True
    """
    return any(name in headers and _PREFETCH.search(headers[name]) for name in _PREFETCH_HEADERS)


@lru_cache(maxsize=8192)
def _verdict(user_agent: str) -> Verdict:
    if not user_agent:
        return Verdict(bot=True, reasons=("empty user agent",), category="empty")
    found = _matcher()(user_agent)
    if found is None:
        return PERSON
    pattern, category = _patterns()[found]
    match = re.search(pattern, user_agent)
    name = _name(match[0]) if match else None
    word = _WORD_OF_CATEGORY.get(category, "crawler")
    return Verdict(bot=True, reasons=(f"{word}: {name or 'unnamed'}",), name=name, category=category)


def _name(matched: str) -> str | None:
    """Return the readable part of what a pattern *matched*."""
    found = _NAME.search(matched)
    if found is None or matched.startswith("+"):
        return None
    return matched.strip(" /;:()+,") or None


@cache
def _patterns() -> tuple[tuple[str, str], ...]:
    """Return every pattern with its category, in the order in which they are tried."""
    listed: list[tuple[str, str]] = []
    for entry in CRAWLER_USER_AGENTS_DATA:
        pattern: str | None = _PEOPLE.get(entry["pattern"], entry["pattern"])
        if pattern is not None:
            listed.append((pattern, next(iter(entry.get("tags", ())), "unknown")))
    return (*_OWN, *listed, *_LAST)


@cache
def _matcher() -> Callable[[str], int | None]:
    """Return what finds the first pattern in a user agent, built on first use (about 40 ms)."""
    return _fast_matcher() if find_spec("ua_parser_rs") else _plain_matcher()


def _fast_matcher() -> Callable[[str], int | None]:
    import ua_parser_rs  # noqa: PLC0415 - a compiled wheel that some platforms lack

    # ua-parser-rs means to extract a browser's family; the family that we ask for is the number of the pattern.
    extractor = ua_parser_rs.UserAgentExtractor(
        (pattern, str(number), None, None, None, None) for number, (pattern, _) in enumerate(_patterns())
    )

    def first(user_agent: str) -> int | None:
        found = extractor.extract(user_agent)
        return None if found is None else int(found.family)

    return first


def _plain_matcher() -> Callable[[str], int | None]:
    # No group names and no group numbers: the patterns have groups of their own. The union says yes or no at once.
    compiled = [re.compile(pattern) for pattern, _ in _patterns()]
    union = re.compile("|".join(f"(?:{pattern})" for pattern, _ in _patterns()))

    def first(user_agent: str) -> int | None:
        if union.search(user_agent) is None:
            return None
        return next(number for number, pattern in enumerate(compiled) if pattern.search(user_agent))

    return first
