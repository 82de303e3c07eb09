"""Settings: every wrong one is refused with its value and its cure, and none of the secret ones is ever shown."""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from goodanalytics import environment
from goodanalytics.config import Config, Cookies, SessionRules, uuid7
from goodanalytics.errors import ConfigError

SECRET = "this-is-a-secret-of-more-than-32-characters"
WORKSPACE = UUID("0190a000-0000-7000-8000-000000000001")


def config(**settings: Any) -> Config:
    return Config(**({"secret_key": SECRET} | settings))


def test_a_secret_is_all_that_is_needed() -> None:
    """Everything else has a default."""
    settings = config()

    assert (settings.mount, settings.link_path, settings.schema) == ("/ga", "/l", "good_analytics")
    assert settings.workspace == UUID(int=0)


def test_settings_are_brought_into_one_form() -> None:
    """Lists, hosts, networks, ids and paths are accepted as people write them."""
    settings = config(
        link_domains=["Go.Example.com."],
        link_app_schemes=["MyApp://", "other:"],
        link_frameable_hosts=["*.Example.com"],
        own_hosts=["*.Example.com", "localhost:8000"],
        trusted_proxies=["10.0.0.1/8", ipaddress.ip_network("::1/128"), "192.0.2.1"],
        workspaces={"A.example": str(WORKSPACE)},
        geo_headers=["CF-IPCountry"],
        geo_path="/geo.mmdb",
    )

    assert settings.link_domains == ("go.example.com",)
    assert settings.link_app_schemes == ("myapp", "other")
    assert settings.link_frameable_hosts == ("*.example.com",)
    assert settings.own_hosts == ("*.example.com", "localhost:8000")
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "::1/128", "192.0.2.1/32"]
    assert settings.workspaces == {"a.example": WORKSPACE}
    assert (settings.geo_headers, settings.geo_path) == (("cf-ipcountry",), Path("/geo.mmdb"))


@pytest.mark.parametrize(
    ("settings", "value", "cure"),
    [
        ({"secret_key": "short"}, "5 characters", "at least 32 characters"),
        ({"secret_key": None}, "NoneType", "token_urlsafe"),
        ({"secret_key": b"x" * 40}, "bytes", "token_urlsafe"),
        ({"previous_secret_keys": ["short"]}, "previous_secret_keys is 5 characters", "at least 32"),
        ({"previous_secret_keys": SECRET}, "previous_secret_keys", "must be a list"),
        ({"schema": "Good"}, "'Good'", "lower-case"),
        ({"schema": "pg_mine"}, "'pg_mine'", "'good_analytics'"),
        ({"schema": 'x"; DROP TABLE y'}, "DROP", "'good_analytics'"),
        ({"schema": "x" * 64}, "xxx", "'good_analytics'"),
        ({"schema": None}, "None", "'good_analytics'"),
        ({"workspace": "acme"}, "'acme'", "UUID"),
        ({"workspaces": {"a.example": "acme"}}, "'acme'", "UUID"),
        ({"workspaces": {"https://a.example": WORKSPACE}}, "'https://a.example'", "host name"),
        ({"workspaces": [("a.example", WORKSPACE)]}, "a.example", "{'shop.example'"),
        ({"mount": "ga"}, "'ga'", "'/ga'"),
        ({"mount": "/ga/"}, "'/ga/'", "without a slash at its end"),
        ({"mount": "/"}, "'/'", "'/ga'"),
        ({"mount": 5}, "5", "'/ga'"),
        ({"link_path": "/l?x"}, "'/l?x'", "path"),
        ({"link_path": "/ga"}, "'/ga'", "'/l'"),
        ({"link_path": "/ga/api"}, "'/ga/api'", "'/l'"),
        ({"mount": "/x", "link_path": "/x/t"}, "'/x/t'", "'/l'"),
        ({"link_domains": "go.example"}, "'go.example'", "link_domains=['go.example']"),
        ({"link_domains": ["https://go.example"]}, "'https://go.example'", "without 'https://'"),
        ({"link_domains": ["*.example"]}, "'*.example'", "host name"),
        ({"link_app_schemes": "myapp"}, "'myapp'", "link_app_schemes=['myapp']"),
        ({"link_app_schemes": ["my app"]}, "'my app'", "'myapp'"),
        ({"link_app_schemes": ["JavaScript:"]}, "'JavaScript:'", "never"),
        ({"link_frameable_hosts": ["https://shop.example"]}, "'https://shop.example'", "without 'https://'"),
        ({"own_hosts": ["shop.example/path"]}, "'shop.example/path'", "path"),
        ({"own_hosts": [None]}, "None", "host name"),
        ({"trusted_proxies": ["proxy.local"]}, "'proxy.local'", "'10.0.0.0/8'"),
        ({"trusted_proxies": "10.0.0.1"}, "'10.0.0.1'", "list"),
        ({"mode": "cookieless"}, "'cookieless'", "'identity'"),
        ({"log": "kafka"}, "'kafka'", "'postgres'"),
        ({"keep_ip": "half"}, "'half'", "'truncated'"),
        ({"batch_size": 0}, "0", "between 1 and 5000"),
        ({"batch_size": 5_001}, "5001", "between 1 and 5000"),
        ({"batch_size": "500"}, "'500'", "500"),
        ({"batch_size": True}, "True", "500"),
        ({"worker": "false"}, "'false'", "True"),
        ({"auto_migrate": 1}, "1", "False"),
        ({"respect_privacy_signals": "no"}, "'no'", "True"),
        ({"worker_interval": timedelta(0)}, "0:00:00", "1 second"),
        ({"worker_interval": 1}, "1", "timedelta(seconds=1)"),
        ({"authenticate": "me"}, "'me'", "function"),
        ({"on_error": 1}, "1", "function"),
        ({"clock": None}, "None", "function"),
        ({"exclude": ["admin"]}, "'admin'", "'/admin'"),
        ({"exclude": [5]}, "5", "function"),
        ({"exclude": "/admin"}, "'/admin'", "exclude=['/admin']"),
        ({"session": timedelta(minutes=5)}, "seconds=300", "SessionRules("),
        ({"cookies": {"click": "c"}}, "'click'", "Cookies("),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_with_its_cure(settings: Mapping[str, Any], value: str, cure: str) -> None:
    """The message names the setting, shows the value and says what to write."""
    with pytest.raises(ConfigError) as caught:
        config(**settings)

    message = str(caught.value)
    assert any(name in message for name in settings), message
    assert value in message
    assert cure in message
    assert SECRET not in message


@pytest.mark.parametrize(
    ("cookies", "value", "cure"),
    [
        ({"anonymous": "a b"}, "'a b'", "letters, digits"),
        ({"click": ""}, "''", "letters, digits"),
        ({"click": "x;y"}, "'x;y'", "letters, digits"),
        ({"click": "same", "anonymous": "same"}, "'same'", "different"),
        ({"same_site": "Laxer"}, "'Laxer'", "'strict'"),
        ({"domain": "https://example.com"}, "'https://example.com'", "without 'https://'"),
        ({"domain": "x\r\nSet-Cookie: y"}, "Set-Cookie", "host name"),
        ({"max_age": timedelta(days=-1)}, "days=-1", "not be negative"),
        ({"max_age": 90}, "90", "timedelta(days=90)"),
    ],
)
def test_a_wrong_cookie_is_refused_before_it_breaks_a_page(
    cookies: dict[str, Any], value: str, cure: str
) -> None:
    """What could not be sent as a cookie is refused at the start, not on the host's first page."""
    with pytest.raises(ConfigError) as caught:
        Cookies(**cookies)

    assert value in str(caught.value)
    assert cure in str(caught.value)


@pytest.mark.parametrize("timeout", [timedelta(0), timedelta(seconds=-1), 30])
def test_a_visit_needs_a_positive_timeout(timeout: Any) -> None:
    """Zero, less and what is no duration are refused."""
    with pytest.raises(ConfigError, match=r"session\.timeout is .*30"):
        SessionRules(timeout=timeout)


@pytest.mark.parametrize("text", [repr, str])
def test_secrets_are_never_shown(text: Any) -> None:
    """A config in a log or a traceback keeps its keys to itself."""
    assert SECRET not in text(config(previous_secret_keys=[SECRET]))


def test_a_config_is_frozen() -> None:
    """Nothing changes after it was checked."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        config().mount = "/x"  # type: ignore[misc]  # that is the point


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a.example", WORKSPACE),
        ("A.Example", WORKSPACE),
        ("a.example:8443", WORKSPACE),
        ("b.example", UUID(int=0)),
        ("xa.example", UUID(int=0)),
        ("", UUID(int=0)),
    ],
)
def test_the_host_chooses_the_workspace(host: str, expected: UUID) -> None:
    """A listed host has its workspace on every port; any other has the default."""
    assert config(workspaces={"a.example": WORKSPACE}).workspace_of(host) == expected


def test_reporting_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    """A failing `on_error` is logged beside what it was called with."""

    def fail(error: BaseException) -> None:
        raise RuntimeError("on_error is broken")

    with caplog.at_level(logging.ERROR, "goodanalytics"):
        config(on_error=fail).report(ValueError("lost"), "testing")

    assert [record.getMessage() for record in caplog.records] == [
        "goodanalytics failed while testing: lost",
        "on_error itself failed",
    ]


def test_ids_are_version_7_and_rise_with_time() -> None:
    """Each id is a UUIDv7 of its own."""
    made = [uuid7() for _ in range(1_000)]

    assert {(i.version, i.variant) for i in made} == {(7, "specified in RFC 4122")}
    assert len(set(made)) == 1_000
    assert made[0].int >> 80 <= made[-1].int >> 80


# From the environment ------------------------------------------------------------------------------------------------

KEY = {"GOODANALYTICS_SECRET_KEY": SECRET}


def from_env(prefix: str = "GOODANALYTICS_", **variables: str) -> Config:
    return Config.from_env(
        prefix, KEY | {f"GOODANALYTICS_{name}": value for name, value in variables.items()}
    )


@pytest.mark.parametrize(
    ("name", "written", "setting", "expected"),
    [
        ("PREVIOUS_SECRET_KEYS", f"{SECRET}1, {SECRET}2", "previous_secret_keys", (f"{SECRET}1", f"{SECRET}2")),
        ("SCHEMA", " mine ", "schema", "mine"),
        ("WORKSPACE", str(WORKSPACE), "workspace", WORKSPACE),
        ("WORKSPACES", f"a.example={WORKSPACE},b.example={WORKSPACE}", "workspaces", {"a.example": WORKSPACE, "b.example": WORKSPACE}),
        ("MOUNT", "/stats", "mount", "/stats"),
        ("LINK_DOMAINS", "go.example , ,x.example", "link_domains", ("go.example", "x.example")),
        ("TRUSTED_PROXIES", "10.0.0.0/8", "trusted_proxies", (ipaddress.ip_network("10.0.0.0/8"),)),
        ("RESPECT_PRIVACY_SIGNALS", "off", "respect_privacy_signals", False),
        ("GEO_PATH", "/geo.mmdb", "geo_path", Path("/geo.mmdb")),
        ("EXCLUDE", "/admin,/app/*", "exclude", ("/admin", "/app/*")),
        ("WORKER", "TRUE", "worker", True),
        ("WORKER_INTERVAL", "0.5", "worker_interval", timedelta(seconds=0.5)),
        ("BATCH_SIZE", "50", "batch_size", 50),
        ("SESSION_TIMEOUT", "60", "session", SessionRules(timeout=timedelta(minutes=1))),
        ("SESSION_SPLIT_ON_SOURCE", "no", "session", SessionRules(split_on_source=False)),
        ("COOKIES_DOMAIN", ".example.com", "cookies", Cookies(domain=".example.com")),
        ("COOKIES_MAX_AGE", "3600", "cookies", Cookies(max_age=timedelta(hours=1))),
        ("COOKIES_SAME_SITE", "strict", "cookies", Cookies(same_site="strict")),
    ],
)  # fmt: skip
def test_a_variable_becomes_its_setting(name: str, written: str, setting: str, expected: object) -> None:
    """Text from the environment is read into what Python would be given."""
    assert getattr(from_env(**{name: written}), setting) == expected


@pytest.mark.parametrize(
    ("name", "written", "cure"),
    [
        ("WORKER", "maybe", "true or false"),
        ("BATCH_SIZE", "many", "whole number"),
        ("BATCH_SIZE", "0", "between 1 and 5000"),
        ("WORKER_INTERVAL", "soon", "number of seconds"),
        ("WORKER_INTERVAL", "1e999", "number of seconds"),
        ("SESSION_TIMEOUT", "nan", "number of seconds"),
        ("WORKSPACES", "a.example", "host=workspace"),
        ("COOKIES_SAME_SITE", "laxer", "'strict'"),
        ("MODE", "off", "'identity'"),
    ],
)
def test_a_wrong_variable_is_refused_with_its_cure(name: str, written: str, cure: str) -> None:
    """The message shows the value and says what to write."""
    with pytest.raises(ConfigError) as caught:
        from_env(**{name: written})

    assert cure in str(caught.value)


def test_a_misspelt_variable_is_named_with_those_that_exist() -> None:
    """A typing error never leaves a default in silence."""
    with pytest.raises(
        ConfigError, match=r"GOODANALYTICS_MOUTN is not a setting\. Known: .*GOODANALYTICS_MOUNT"
    ):
        from_env(MOUTN="/x")


@pytest.mark.parametrize("group", ["SESSION", "COOKIES", "IDENTITY", "REFERRAL", "RATE_LIMITS"])
def test_a_group_is_no_variable_of_its_own(group):
    """Its members are; a text for the whole group would only fail later, with advice for Python."""
    with pytest.raises(ConfigError, match=f"GOODANALYTICS_{group} is not a setting"):
        from_env(**{group: "x"})


def test_other_programs_variables_are_none_of_ours() -> None:
    """Only our prefix counts, and it can be chosen."""
    read = Config.from_env("GA_", {"GA_SECRET_KEY": SECRET, "GOODANALYTICS_NONSENSE": "x", "PATH": "/bin"})

    assert read == dataclasses.replace(config())


def test_without_a_secret_there_is_no_start() -> None:
    """The missing variable is named, with a way to make one."""
    with pytest.raises(ConfigError, match=r"GOODANALYTICS_SECRET_KEY is not set.*token_urlsafe"):
        Config.from_env(environ={})


@pytest.mark.parametrize("variables", [{"SECRET_KEY": "hush-hush"}, {"PREVIOUS_SECRET_KEYS": "hush-hush"}])
def test_a_wrong_secret_is_not_shown(variables: dict[str, str]) -> None:
    """Even a key that is refused stays out of the message."""
    with pytest.raises(ConfigError) as caught:
        from_env(**variables)

    assert "hush" not in str(caught.value)


def test_overrides_win_and_bring_what_text_cannot_say() -> None:
    """Functions come from Python, and so does whatever shall beat the environment."""
    exclude = [bool]
    read = Config.from_env(environ=KEY | {"GOODANALYTICS_MOUNT": "/a"}, mount="/b", exclude=exclude)

    assert (read.mount, read.exclude) == ("/b", tuple(exclude))


def test_the_database_is_named_by_its_own_variable() -> None:
    """It is read by whoever opens it, and its absence is an error with a cure."""
    url = "postgresql+asyncpg://me@host/name"

    assert environment.database_url(environ={"GOODANALYTICS_DATABASE_URL": f" {url} "}) == url
    with pytest.raises(ConfigError, match=r"GOODANALYTICS_DATABASE_URL is not set\. Try: "):
        environment.database_url(environ={})
