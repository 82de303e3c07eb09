"""
One frozen `Config`, validated once. The only module that reads the clock, makes ids and touches the environment.

A wrong value raises `ConfigError`, which says what to write instead. Everything below this floor takes `now` and ids as
arguments, so that a test can freeze them here.
"""

from __future__ import annotations

import ipaddress
import logging
import random
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from goodanalytics import environment
from goodanalytics.core.consent import Consent
from goodanalytics.core.identity_rules import IdentityRules
from goodanalytics.core.limits import Limiter, RateLimits
from goodanalytics.core.referral import ReferralRules
from goodanalytics.core.rules import Cookies, SessionRules, checked_host
from goodanalytics.core.settings import checked_network, checked_scheme, checked_uuid
from goodanalytics.core.tombstones import Graveyard
from goodanalytics.errors import ConfigError
from goodanalytics.platforms import Platform, Policy, Silence, chosen
from goodanalytics.sealing import Sealer

DEFAULT_WORKSPACE = UUID(int=0)
"""The workspace of a host that has one tenant."""

type_of_network = ipaddress.IPv4Network | ipaddress.IPv6Network

logger = logging.getLogger("goodanalytics")


def utc_now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)


def uuid7() -> UUID:
    """
    A time-ordered id (RFC 9562, section 5.7): 48 bits of milliseconds, then 74 random bits.

    Ids made in one process within one millisecond are in no particular order.
    """
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | secrets.randbits(80)
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    return UUID(int=(value & ~(0x3 << 62)) | (0x2 << 62))


def new_token() -> str:
    """22 URL-safe characters holding 128 random bits."""
    return secrets.token_urlsafe(16)


@dataclass(frozen=True, slots=True)
class Principal:
    """
    Who calls the REST API, as `authenticate` says.

    Attributes:
        workspace_id: The only workspace that this caller sees.
        key_type: `secret` for a server, `publishable` for a page: it may write events and read nothing.
        name: For logs and the audit.
    """

    workspace_id: UUID = DEFAULT_WORKSPACE
    key_type: Literal["secret", "publishable"] = "secret"
    name: str = ""


Authenticate = Callable[[str, str], "Awaitable[Principal | None] | Principal | None"]
"""`authenticate(token, kind)`, kind being `bearer` or `api_key`: who it is, or `None`."""

DashboardAuth = Callable[[Any], "Awaitable[bool] | bool"]
"""`dashboard_auth(connection)` with a `starlette.requests.HTTPConnection`: may this person see the dashboard?"""

MIN_SPOOL_BYTES = 4 * 1024 * 1024
"""Room for the write-ahead log and for one beacon of the greatest size in it."""

_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_MOUNT = re.compile(r"(/[A-Za-z0-9_.~-]+)+")
_OWN_PATHS = ("/api", "/dashboard", "/t", "/js", "/healthz", "/readyz", "/metrics")
"""What lives below `mount`."""

_KINDS: tuple[tuple[str, type, str], ...] = (
    ("schema", str, "'good_analytics'"),
    ("workspaces", Mapping, "{'shop.example': UUID('…')}"),
    ("mount", str, "'/ga'"),
    ("link_path", str, "'/l'"),
    ("respect_privacy_signals", bool, "True"),
    ("session", SessionRules, "SessionRules(timeout=timedelta(minutes=30))"),
    ("cookies", Cookies, "Cookies(max_age=timedelta(days=90))"),
    ("identity", IdentityRules, "IdentityRules(blocked=['test-user'])"),
    ("referral", ReferralRules, "ReferralRules(window=timedelta(days=90))"),
    ("trust_browser_conversions", bool, "False"),
    ("spool_bytes", int, "256 * 1024 * 1024"),
    ("spool_after", timedelta, "timedelta(seconds=2)"),
    ("worker", bool, "True"),
    ("worker_interval", timedelta, "timedelta(seconds=1)"),
    ("batch_size", int, "500"),
    ("idempotency", timedelta, "timedelta(days=7)"),
    ("auto_migrate", bool, "False"),
)
"""Settings of one Python type, with an example of what to write."""

_RANGES: tuple[tuple[str, Any, Any], ...] = (
    ("batch_size", 1, 5_000),
    # Every batch looks into each of the days that are kept.
    ("idempotency", timedelta(days=7), timedelta(days=90)),
)
"""Settings with a least and a greatest value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """
    Everything that can be set.

    Attributes:
        secret_key: At least 32 characters; signs tokens and derives encryption keys.
        previous_secret_keys: Still accepted when verifying, so that a key can be changed without losing anybody.
        schema: PostgreSQL schema that holds our tables.
        workspace: The workspace of hits whose host is not in *workspaces*.
        workspaces: Host name → workspace, for a host app with several tenants.
        mount: Path under which our HTTP rooms live.
        link_path: Path under which short links live on the app's own host.
        link_domains: Hosts all of whose paths are short links.
        link_app_schemes: Schemes of apps (`myapp`) that links may lead to beside http and https.
        link_frameable_hosts: Hosts whose pages may be shown in a frame by cloaked links; `*.example.com` covers
            sub-domains. A cloaked link to any other host redirects.
        own_hosts: Hosts that are this site too (no referral from them); `*.example.com` covers sub-domains. The
            request's own host always counts.
        trusted_proxies: Networks whose `X-Forwarded-For` is believed, read from the right.
        mode: How visitors are recognised. `identity` uses first-party cookies.
        respect_privacy_signals: Whether `Sec-GPC: 1` and `DNT: 1` refuse tracking.
        session: When a visit ends.
        cookies: Names and life of the cookies.
        identity: Who counts as the same person, as far as the host decides.
        referral: Which partner a lead or sale is owed to.
        log: Where hits are made durable; `postgres`.
        spool_path: Directory on a local disk that keeps hits while the database cannot be reached, shared by all
            processes of one user; `off` keeps none. By default below the user's state directory.
        spool_bytes: What each process may keep there, at the most; beyond it hits are refused with 503.
        spool_after: How long the database may take to answer before hits go to the spool.
        geo_path: A MaxMind-format city or country database. Read where it lies; nothing is ever downloaded.
        geo_headers: Request headers holding a country code, set by a CDN that strips them from outside requests.
        keep_ip: `truncated` stores /24 and /48 networks, `full` the address, `off` nothing.
        exclude: Path prefixes (`/admin`), glob patterns (`/app/*/edit`) or callables of the ASGI scope; not tracked.
        exclude_ips: Addresses and networks (`203.0.113.0/24`) whose visitors are not tracked.
        rate_limits: How often one client may come; `None` switches every limit off.
        limiter: Counts requests where several processes shall share their counts; each counts its own when unset.
        trust_browser_conversions: Whether a lead or sale that a browser claims counts without a signed token.
        authenticate: Who may call the REST API; nobody when unset (503).
        dashboard_auth: Who may see the dashboard; nobody when unset.
        worker: Whether the app's lifespan processes the log. Switch off where `goodanalytics worker` does.
        worker_interval: Longest time between two looks into the log when nothing wakes the worker.
        batch_size: Hits processed in one transaction, at the most.
        idempotency: How long at least a repeated hit or key is known as such, 7 to 90 days; a conversion's as long as it is kept.
        webhook_networks: Networks of your own (`10.1.2.0/24`) that webhooks may lead to, also without https. All other addresses
            must be public ones.
        platforms: Ad platforms that conversions may go to; each is switched on by `analytics.platforms.enable`.
        dispatch_policy: Your own say, asked when a conversion is queued and when it is sent: platform's name and conversion →
            why not, or `None`.
        consent_silence: What a person who was not asked is taken to have said about their data and ads.
        consent: ASGI scope → what its visitor allowed ad platforms, `None` if not asked. `Sec-GPC: 1` denies all in any case.
        reporting_currency: The currency (ISO 4217) that amounts are also kept in, beside the one that was charged.
        exchange_rate: Currency and time → how many of *reporting_currency* one is worth then, in major units, or `None`.
            Asked once, when the sale is recorded.
        transport: An `httpx.AsyncBaseTransport` between us and the platforms, such as one with a proxy.
        auto_migrate: Bring the schema up at start. For the embedded database and development.
        on_error: Called with each of our own exceptions that we keep from the host.
        clock, new_id, new_token, jitter, random_bytes: Replaced by tests.
    """

    secret_key: str = field(repr=False)
    previous_secret_keys: Sequence[str] = field(default=(), repr=False)
    schema: str = "good_analytics"
    workspace: UUID = DEFAULT_WORKSPACE
    workspaces: Mapping[str, UUID] = field(default_factory=dict)
    mount: str = "/ga"
    link_path: str = "/l"
    link_domains: Sequence[str] = ()
    link_app_schemes: Sequence[str] = ()
    link_frameable_hosts: Sequence[str] = ()
    own_hosts: Sequence[str] = ()
    trusted_proxies: Sequence[str | type_of_network] = ()
    mode: Literal["identity"] = "identity"
    respect_privacy_signals: bool = True
    session: SessionRules = field(default_factory=SessionRules)
    cookies: Cookies = field(default_factory=Cookies)
    identity: IdentityRules = field(default_factory=IdentityRules)
    referral: ReferralRules = field(default_factory=ReferralRules)
    log: Literal["postgres"] = "postgres"
    spool_path: Path | Literal["off"] | None = None
    spool_bytes: int = 256 * 1024 * 1024
    spool_after: timedelta = timedelta(seconds=2)
    geo_path: Path | None = None
    geo_headers: Sequence[str] = ()
    keep_ip: Literal["full", "truncated", "off"] = "truncated"
    exclude: Sequence[str | Callable[[Mapping[str, Any]], bool]] = ()
    exclude_ips: Sequence[str | type_of_network] = ()
    rate_limits: RateLimits | None = field(default_factory=RateLimits)
    limiter: Limiter | None = None
    trust_browser_conversions: bool = False
    authenticate: Authenticate | None = None
    dashboard_auth: DashboardAuth | None = None
    worker: bool = True
    worker_interval: timedelta = timedelta(seconds=1)
    batch_size: int = 500
    idempotency: timedelta = timedelta(days=7)
    webhook_networks: Sequence[str | type_of_network] = ()
    platforms: Sequence[Platform] = ()
    dispatch_policy: Policy | None = None
    consent_silence: Silence = "denied"
    consent: Callable[[Mapping[str, Any]], Consent | None] | None = None
    reporting_currency: str | None = None
    exchange_rate: Callable[[str, datetime], Decimal | None] | None = None
    transport: Any = None
    auto_migrate: bool = False
    on_error: Callable[[BaseException], None] | None = None
    clock: Callable[[], datetime] = utc_now
    new_id: Callable[[], UUID] = uuid7
    new_token: Callable[[], str] = new_token
    jitter: Callable[[], float] = random.random
    random_bytes: Callable[[int], bytes] = secrets.token_bytes

    def __post_init__(self) -> None:
        """Check every value and bring it into its one form."""
        self._check_lists()
        self._check_keys()
        self._check_kinds()
        self._check_places()
        self._check_choices()

    def _check_lists(self) -> None:
        for name in (
            "previous_secret_keys",
            "link_domains",
            "link_app_schemes",
            "link_frameable_hosts",
            "own_hosts",
            "trusted_proxies",
            "geo_headers",
            "exclude",
            "exclude_ips",
            "webhook_networks",
            "platforms",
        ):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence):
                shown = "…" if "secret" in name else repr(value)
                raise ConfigError(f"{name} is {shown}; it must be a list. Try: {name}=[{shown}]")
            object.__setattr__(self, name, tuple(value))

    def _check_keys(self) -> None:
        for name, key in (
            ("secret_key", self.secret_key),
            *(("previous_secret_keys", k) for k in self.previous_secret_keys),
        ):
            if not isinstance(key, str) or len(key) < 32:
                size = f"{len(key)} characters" if isinstance(key, str) else repr(type(key).__name__)
                raise ConfigError(
                    f"{name} is {size}; tokens are signed with it and it needs at least 32 characters. "
                    f'Make one: python -c "import secrets; print(secrets.token_urlsafe(48))"'
                )

    def _check_kinds(self) -> None:
        for name, kind, example in _KINDS:
            value = getattr(self, name)
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise ConfigError(f"{name} is {value!r}; write something such as {example}")
        if not isinstance(self.rate_limits, RateLimits | None):
            raise ConfigError(
                f"rate_limits is {self.rate_limits!r}; write something such as RateLimits(beacons=100), or None"
            )
        if self.limiter is not None and not callable(getattr(self.limiter, "take", None)):
            raise ConfigError(f"limiter is {self.limiter!r}; it needs a method `take(limit, who, cost)`")
        needed = ("clock", "new_id", "new_token", "jitter", "random_bytes")
        for name in (
            "authenticate",
            "dashboard_auth",
            "on_error",
            "dispatch_policy",
            "consent",
            "exchange_rate",
            *needed,
        ):
            value = getattr(self, name)
            if not callable(value) and (value is not None or name in needed):
                raise ConfigError(f"{name} is {value!r}; it must be a function")

    def _check_places(self) -> None:
        if not _SCHEMA_NAME.fullmatch(self.schema) or self.schema.startswith("pg_"):
            raise ConfigError(
                f"schema is {self.schema!r}; it must be a lower-case PostgreSQL name such as 'good_analytics'"
            )
        object.__setattr__(self, "workspace", checked_uuid("workspace", self.workspace))
        object.__setattr__(
            self,
            "workspaces",
            {
                checked_host("workspaces", h): checked_uuid("workspaces", w)
                for h, w in self.workspaces.items()
            },
        )
        for name in ("mount", "link_path"):
            if not _MOUNT.fullmatch(getattr(self, name)):
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}; it must be a path such as '/ga', without a slash at its end"
                )
        if self.mount == self.link_path:
            raise ConfigError(
                f"mount and link_path are both {self.mount!r}; short links need a path of their own, such as '/l'"
            )
        object.__setattr__(
            self, "link_domains", tuple(checked_host("link_domains", h) for h in self.link_domains)
        )
        for name in ("own_hosts", "link_frameable_hosts"):
            hosts = tuple(checked_host(name, h, wildcard=True) for h in getattr(self, name))
            object.__setattr__(self, name, hosts)
        object.__setattr__(self, "link_app_schemes", tuple(checked_scheme(s) for s in self.link_app_schemes))
        for name in ("trusted_proxies", "exclude_ips", "webhook_networks"):
            object.__setattr__(self, name, tuple(checked_network(name, n) for n in getattr(self, name)))
        object.__setattr__(self, "geo_headers", tuple(h.lower() for h in self.geo_headers))
        taken = {f"{self.mount}{path}" for path in _OWN_PATHS}
        if self.link_path in taken:
            raise ConfigError(
                f"link_path is {self.link_path!r}, which is a path of our own below mount; write another, such as '/l'"
            )

    def _check_choices(self) -> None:
        if self.mode != "identity":
            raise ConfigError(f"mode is {self.mode!r}; this version knows 'identity'")
        if self.log != "postgres":
            raise ConfigError(f"log is {self.log!r}; this version knows 'postgres'")
        if self.keep_ip not in ("full", "truncated", "off"):
            raise ConfigError(f"keep_ip is {self.keep_ip!r}; write 'full', 'truncated' or 'off'")
        if self.consent_silence not in ("granted", "denied"):
            raise ConfigError(f"consent_silence is {self.consent_silence!r}; write 'denied' or 'granted'")
        if self.reporting_currency is None and self.exchange_rate is not None:
            raise ConfigError(
                "exchange_rate is set and reporting_currency is not. Try: reporting_currency='EUR'"
            )
        if self.reporting_currency is not None and not re.fullmatch("[A-Z]{3}", str(self.reporting_currency)):
            raise ConfigError(f"reporting_currency is {self.reporting_currency!r}; write one such as 'EUR'")
        if self.transport is not None and not hasattr(self.transport, "handle_async_request"):
            raise ConfigError(f"transport is {self.transport!r}; write httpx.AsyncHTTPTransport(proxy=…)")
        object.__setattr__(self, "platforms", chosen.checked(self.platforms))
        if self.geo_path is not None:
            object.__setattr__(self, "geo_path", Path(self.geo_path))
        if self.spool_path is not None and self.spool_path != "off":
            if not isinstance(self.spool_path, str | Path) or not str(self.spool_path):
                raise ConfigError(f"spool_path is {self.spool_path!r}; write a directory, or 'off'")
            object.__setattr__(self, "spool_path", Path(self.spool_path).absolute())
        if self.spool_bytes < MIN_SPOOL_BYTES:
            raise ConfigError(
                f"spool_bytes is {self.spool_bytes}; it must be at least {MIN_SPOOL_BYTES} (4 MiB). "
                "Try: spool_path='off' for no spool"
            )
        if self.spool_after <= timedelta(0):
            raise ConfigError(f"spool_after is {self.spool_after}; it must be positive, such as 2 seconds")
        if self.worker_interval <= timedelta(0):
            raise ConfigError(
                f"worker_interval is {self.worker_interval}; it must be positive, such as 1 second"
            )
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}; it must be between {low} and {high}")
        for rule in self.exclude:
            if not callable(rule) and not (isinstance(rule, str) and rule.startswith("/")):
                raise ConfigError(
                    f"exclude has {rule!r}; write a path such as '/admin', a pattern such as '/app/*' or a function"
                )

    @classmethod
    def from_env(
        cls, prefix: str = "GOODANALYTICS_", environ: Mapping[str, str] | None = None, **overrides: Any
    ) -> Config:
        """
        Read every setting that is a value from the environment.

        Lists are separated by commas, durations are seconds, booleans are true or false, a rate can be off, *workspaces* is
        `host=uuid,host=uuid`, *platforms* is `meta,google`. Members of *session*, *cookies*, *identity*, *referral* and *rate_limits*
        carry their group's name:
        `GOODANALYTICS_SESSION_TIMEOUT`. Settings that are functions come through *overrides*, which win.

        Raises:
            ConfigError: A value cannot be read, or a variable with our prefix is unknown (so that a typing error
                does not silently leave a default).
        """
        groups = {
            "": cls,
            "session": SessionRules,
            "cookies": Cookies,
            "identity": IdentityRules,
            "referral": ReferralRules,
            "rate_limits": RateLimits,
        }
        values = environment.read(groups, prefix, environ)
        values.update(overrides)
        if "secret_key" not in values:
            raise ConfigError(
                f"{prefix}SECRET_KEY is not set; tokens are signed with it. "
                f'Make one: python -c "import secrets; print(secrets.token_urlsafe(48))"'
            )
        return cls(**values)

    @property
    def graveyard(self) -> Graveyard:
        """Recognises what belonged to erased people."""
        return Graveyard.of(self.secret_key, self.previous_secret_keys)

    @property
    def sealer(self) -> Sealer:
        """Seals what lies in the database and is nobody else's to read."""
        return Sealer((self.secret_key, *self.previous_secret_keys), self.random_bytes)

    def workspace_of(self, host: str) -> UUID:
        """The workspace that a request to *host* belongs to; a host that is listed without a port covers every port."""
        host = host.lower()
        return self.workspaces.get(host) or self.workspaces.get(host.partition(":")[0], self.workspace)

    def consent_of(self, scope: Mapping[str, Any]) -> Consent | None:
        """What *consent* reads out of a request; nothing where it fails."""
        try:
            return None if self.consent is None else self.consent(scope)
        except Exception as error:  # noqa: BLE001  # a host's function may raise anything
            self.report(error, "asking for consent")
            return None

    def report(self, error: BaseException, doing: str) -> None:
        """Log one of our own failures once and hand it to *on_error*; the host never sees it."""
        logger.error("goodanalytics failed while %s: %s", doing, error, exc_info=error)
        if self.on_error is not None:
            try:
                self.on_error(error)
            except Exception:
                logger.exception("on_error itself failed")
