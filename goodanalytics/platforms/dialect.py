"""
What a platform is: a dialect that turns conversions into a request and a response into outcomes.

1. A dialect does no I/O and reads no clock; `dispatch` sends what it builds and hands it what came back.
2. `skip` decides before anything is queued, and again before it is sent. It answers with a reason, or with nothing.
3. `read` answers for each conversion of the batch, from the body: a 200 that says "error" is no success. What cannot be
   read (an HTML page, half a JSON document) is tried again; the platform knows a conversion that it saw before by its
   `event_id`.
4. A verdict on the whole request, such as "one of these is too old", is marked `of_batch`: a batch of several with a
   permanent one is halved and sent again, so that one bad conversion does not sink its neighbours.
5. No outcome carries a secret or a person: messages are cut and cleaned when the outcome is made, whoever makes it.
6. Full jitter after AWS, "Exponential Backoff And Jitter":
   https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Final, Literal, Protocol, TypeAlias, runtime_checkable
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from goodanalytics.platforms.conversion import Consent, Conversion, Kind
from goodanalytics.platforms.quiet import Quiet

Status: TypeAlias = Literal["delivered", "accepted", "retry", "credential", "rate_limited", "permanent"]
"""
What became of a conversion.

delivered: the platform has it. accepted: it will say later, ask with `Confirming`. retry: try again by itself. credential:
nothing goes out before somebody mends the credential or the version. rate_limited: all of this platform waits. permanent:
never try this again as it is.
"""

LONGEST_MESSAGE: Final = 200  # characters
CEILING: Final = timedelta(hours=1)
FIRST_STEP: Final = timedelta(seconds=5)
AHEAD: Final = timedelta(minutes=5)
"""How far a clock may be ahead of the platform's before its conversions wait; the strictest known allows ten minutes."""

# Bounded, so that a hostile body costs no time.
_EMAIL = re.compile(r"[^\s@\"'<>]{1,64}(@|%40)[^\s@\"'<>]{1,255}")
_LONG = re.compile(r"[A-Za-z0-9_\-.=+/|%]{24,}")
_DIGITS = re.compile(r"\+?\d[\d\s().-]{6,20}\d")


def cleaned(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """
    *text* without e-mail addresses, numbers that could be telephones, and words that could be tokens or hashes; cut.

    >>> cleaned("No user ada@example.org at +44 20 7946 0018")
    'No user … at …'
    """
    cut = text[: 10 * longest]
    cut = _EMAIL.sub("…", cut)
    # A long word without a digit is the name of a field; a token of 24 characters has a digit.
    cut = _LONG.sub(lambda word: "…" if any(c.isdigit() for c in word[0]) else word[0], cut)
    cut = " ".join(_DIGITS.sub("…", cut).split())
    return cut if len(cut) <= longest else f"{cut[: longest - 1]}…"


class Request(Quiet, frozen=True, kw_only=True):
    """One HTTP call. Its headers, query and body may hold secrets and persons, so `repr` shows none of them."""

    url: str
    headers: dict[str, str]
    body: bytes
    method: str = "POST"

    def __repr__(self) -> str:
        return f"Request({self.method} {urlsplit(self.url).hostname}, {len(self.body)} bytes)"


class Response(Quiet, frozen=True, kw_only=True):
    """
    What came back.

    Attributes:
        headers: Names in lower case.
    """

    status: int
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.body)} bytes)"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the platform said, before it is known of which conversion.

    Attributes:
        code: The platform's own, such as `190` or `SUCCESS`; for a machine and a search engine.
        message: For a person; at most 200 characters, cleaned.
        retry_after: The platform's own wish.
        of_batch: It judges the request, not this conversion.
    """

    status: Status
    code: str = ""
    message: str = ""
    retry_after: timedelta | None = None
    of_batch: bool = False

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "code", cleaned(self.code, 80))
        msgspec.structs.force_setattr(self, "message", cleaned(self.message))

    def on(self, conversion: Dispatched, external_ref: str | None = None) -> Outcome:
        """This verdict as the outcome of one conversion."""
        return Outcome(
            dispatch_id=conversion.dispatch_id,
            status=self.status,
            code=self.code,
            message=self.message,
            retry_after=self.retry_after,
            of_batch=self.of_batch,
            external_ref=external_ref,
        )

    def on_all(self, batch: Iterable[Dispatched], external_ref: str | None = None) -> list[Outcome]:
        """This verdict as the outcome of each conversion of a batch."""
        return [self.on(conversion, external_ref) for conversion in batch]


class Outcome(Verdict, frozen=True, kw_only=True):
    """
    What became of one conversion.

    Attributes:
        external_ref: Under what the platform remembers the request; its support asks for it, `Confirming` polls it.
    """

    dispatch_id: UUID
    external_ref: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.external_ref is not None:
            msgspec.structs.force_setattr(self, "external_ref", self.external_ref[:200])


class Version(msgspec.Struct, frozen=True):
    """
    A version of a platform's API.

    Attributes:
        sunset: The day from which it no longer answers; `None` when that is not known.
    """

    name: str
    sunset: date | None = None


class Token(Quiet, frozen=True, kw_only=True):
    """A short-lived access token; `build` finds it among the secrets as `access_token`."""

    value: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"Token(expires_at={self.expires_at.isoformat()})"


class Dispatched(Protocol):
    """Something that waits in the outbox: a `Conversion`, or a webhook's `Notice`."""

    @property
    def dispatch_id(self) -> UUID:
        """Of the outbox row."""


@runtime_checkable
class Platform(Protocol):
    """
    An ad platform. Any object with these members is one; see `examples/custom_platform.py`.

    Attributes:
        name: Under which settings, credentials and dispatches are kept: lower case, stable for ever.
        max_batch: Conversions in one request.
        max_age: Older conversions are refused.
        events: What the platform calls our kinds. A kind that is missing is never sent.
        secrets: Names of the credentials that `build` needs.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - told above
    @property
    def version(self) -> Version: ...  # noqa: D102 - told above
    @property
    def max_batch(self) -> int: ...  # noqa: D102 - told above
    @property
    def max_age(self) -> timedelta: ...  # noqa: D102 - told above
    @property
    def events(self) -> Mapping[Kind, str]: ...  # noqa: D102 - told above
    @property
    def secrets(self) -> frozenset[str]: ...  # noqa: D102 - told above

    def skip(self, conversion: Conversion, now: datetime) -> str | None:
        """Why this is not sent: a word such as `too_old`, and after a colon what is missing. `None` sends it."""

    def build(self, batch: Sequence[Conversion], secrets: Mapping[str, str], now: datetime) -> Request:
        """The request for 1 to `max_batch` conversions of one lane, none of which `skip` refuses."""

    def read(self, batch: Sequence[Conversion], response: Response) -> list[Outcome]:
        """One outcome for each conversion, in the order of the batch."""


@runtime_checkable
class Laned(Platform, Protocol):
    """A platform whose conversions do not all fit one request, such as sales and their corrections."""

    def lane(self, conversion: Conversion) -> str:
        """Conversions of different lanes never share a request."""


@runtime_checkable
class Renewing(Platform, Protocol):
    """A platform whose access tokens are short-lived and made from a longer-lived credential."""

    def build_token_request(self, secrets: Mapping[str, str], now: datetime) -> Request:
        """The request for an access token."""

    def read_token(self, response: Response, now: datetime) -> Token | Verdict:
        """The token; or what stands in its way."""


@runtime_checkable
class Confirming(Platform, Protocol):
    """
    A platform that accepts first and says later what became of it.

    Attributes:
        confirm_after: How long after acceptance asking makes sense.
    """

    @property
    def confirm_after(self) -> timedelta: ...  # noqa: D102 - told above

    def build_poll(self, external_ref: str, secrets: Mapping[str, str], now: datetime) -> Request:
        """The question what became of the request that was accepted under *external_ref*."""

    def read_poll(self, batch: Sequence[Conversion], response: Response) -> list[Outcome]:
        """One outcome for each conversion of that request; `accepted` again while the platform is still at it."""


@runtime_checkable
class Rehearsing(Platform, Protocol):
    """A platform with a mode in which requests are checked and shown, and count for nothing."""

    def in_test(self, code: str) -> Platform:
        """The same platform in that mode. *code* is what the platform's own test page shows; some need none."""


def lane_of(platform: Platform, conversion: Conversion) -> str:
    """The lane of a conversion; `main` on a platform that has but one."""
    return platform.lane(conversion) if isinstance(platform, Laned) else "main"


def unfit(platform: Platform, conversion: Conversion, now: datetime) -> str | None:
    """
    Why no platform with these limits would take this conversion; every dialect's `skip` asks this first.

    What the person denied is never sent. Whether silence is consent is not the dialect's to say: see `settled`.
    """
    if conversion.kind not in platform.events:
        return f"unsupported_kind: {conversion.kind}"
    if conversion.consent.ad_user_data == "denied":
        return "consent_denied"
    if now - conversion.occurred_at > platform.max_age:
        return "too_old"
    if conversion.occurred_at - now > AHEAD:
        return "in_the_future"
    return None


class Planned(msgspec.Struct, frozen=True):
    """
    What is to happen to one conversion on one platform.

    Attributes:
        skipped: Why it is not sent; `None` sends it.
    """

    platform: str
    skipped: str | None = None


def settled(conversion: Conversion, silence: Silence) -> Conversion:
    """The conversion with silence taken as an answer; this is what is skipped, built and sent."""
    asked = conversion.consent
    consent = Consent(
        ad_user_data=silence if asked.ad_user_data == "unknown" else asked.ad_user_data,
        ad_personalization=silence if asked.ad_personalization == "unknown" else asked.ad_personalization,
    )
    return conversion if consent == asked else msgspec.structs.replace(conversion, consent=consent)


Silence: TypeAlias = Literal["granted", "denied"]
"""What a person who was not asked is taken to have said; in the EEA it is "denied"."""

Policy: TypeAlias = Callable[[str, Conversion], str | None]
"""The host's own say: platform's name and conversion → why not, or `None`."""


def plan(
    conversion: Conversion,
    platforms: Iterable[Platform],
    now: datetime,
    *,
    silence: Silence = "denied",
    policy: Policy | None = None,
) -> list[Planned]:
    """
    Where a conversion goes, and why not elsewhere. Asked when it is queued, and again when it is sent.

    Args:
        conversion: Its `dispatch_id` does not matter yet.
        platforms: Those that are switched on.
        now: Age is counted from here.
        silence: What a person who was not asked is taken to have said.
        policy: Asked last.
    """
    answered = settled(conversion, silence)
    unasked = answered.consent.ad_user_data != conversion.consent.ad_user_data
    planned = []
    for platform in platforms:
        skipped = platform.skip(answered, now)
        if skipped == "consent_denied" and unasked:
            skipped = "consent_unknown"
        if skipped is None and policy and (said := policy(platform.name, answered)):
            skipped = f"policy: {cleaned(said)}"
        planned.append(Planned(platform.name, skipped))
    return planned


def retry_at(attempt: int, now: datetime, jitter: float, retry_after: timedelta | None = None) -> datetime:
    """
    When to try again after *attempt* failed: full jitter, not before *retry_after*, within the hour.

    Args:
        attempt: 1 for the first.
        now: When it failed.
        jitter: By chance, from 0 up to 1.
        retry_after: What the platform asked for; more than an hour is cut to an hour, asking once more costs little.

    >>> from datetime import UTC
    >>> noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    >>> f"{retry_at(4, noon, 0.5):%H:%M:%S}", f"{retry_at(1, noon, 0.5, timedelta(minutes=2)):%H:%M:%S.%f}"
    ('12:00:20', '12:02:02.500000')
    """
    step = min(FIRST_STEP * (1 << min(attempt - 1, 20)), CEILING)
    wait = min(max(retry_after or timedelta(), timedelta()), CEILING)
    return now + wait + min(step, CEILING - wait) * jitter


def sunset_notice(platform: Platform, today: date, ahead: timedelta = timedelta(days=90)) -> str | None:
    """What to say about a version that has ended or ends soon; `None` while there is nothing to say."""
    version = platform.version
    if version.sunset is None or version.sunset - today > ahead:
        return None
    days = (version.sunset - today).days
    when = (
        f"ends on {version.sunset} (in {days} {'day' if days == 1 else 'days'})"
        if days > 0
        else f"ended on {version.sunset}"
    )
    return f"{platform.name}: API version {version.name} {when}. Set a newer one: {type(platform).__name__}(api=…)."
