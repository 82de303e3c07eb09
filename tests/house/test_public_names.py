"""
What users import, call and type is there, and what is promised for later is not there by half.

The names are those of the surface that the README, the examples and the changelog speak of. Whoever adds one of `LATER` moves
it to `PROMISED` in the same change.
"""

from __future__ import annotations

import importlib
import pkgutil
from operator import attrgetter

import pytest

import goodanalytics
from goodanalytics import Analytics, Config
from goodanalytics.cli.commands import main

PROMISED = {
    "Analytics": "from_env",
    "analytics": "wrap middleware lifespan tracker redirect qr api dashboard start stop migrate drain is_running config hooks.on "
    "visitor resolve identify reset track lead sale refund event_id identity_token conversion_token __aenter__ __aexit__",
    "analytics.visitors": "get by_external_id list timeline attribution why merge unmerge forget",
    "analytics.links": "create upsert get find list update archive create_many upsert_many update_many archive_many history stats totals experiment "
    "clicks short_url set_domain get_domain domains share_urls qr import_ export",
    "analytics.partners": "create update pause close review get by_code by_token list referred commissions stats totals",
    "analytics.reports": "query realtime experiment",
    "analytics.platforms": "list enable disable store_credential store_credentials drop_credentials rotate dispatches dispatch "
    "replay replay_all recall coverage by_hour test",
    "analytics.webhooks": "create get list update rotate_secret delete replay test",
    "config": "schema secret_key previous_secret_keys workspace mount link_domains trusted_proxies mode session cookies log "
    "geo_path authenticate dashboard_auth exclude exclude_ips rate_limits limiter on_error spool_path "
    "platforms dispatch_policy consent_silence transport consent reporting_currency exchange_rate",
}
LATER = {
    "analytics": "live",
    "analytics.visitors": "export",
    "analytics.reports": "funnel retention journeys attribution",
    "config": "bots retention hooks",
}
COMMANDS = ["demo", "doctor", "forget", "links", "migrate", "platforms", "replay", "webhooks", "worker"]
COMMANDS_LATER = [
    "export", "import", "keys", "retention", "serve", "visitor",
]  # fmt: skip
ERRORS = [
    "Busy", "ConfigError", "Conflict", "DatabaseUnavailable", "EmbeddedError", "Forbidden", "GoodAnalyticsError",
    "InvalidBody", "InvalidInput", "NotFound", "SchemaError", "Unauthorized",
]  # fmt: skip


def names(table: dict[str, str]) -> list[str]:
    return [f"{owner}.{name}" for owner, found in table.items() for name in found.split()]


def exists(name: str) -> bool:
    config = Config(secret_key="for-tests-only-" + "0" * 32)
    owner, _, path = name.partition(".")
    owners = {
        "Analytics": lambda: Analytics,
        "analytics": lambda: Analytics("postgresql+asyncpg://nobody@127.0.0.1/nothing", config),
        "config": lambda: config,
    }
    try:
        attrgetter(path)(owners[owner]())
    except AttributeError:
        return False
    return True


MODULES = [
    "goodanalytics",
    # Importing __main__ runs the command line.
    *(
        m.name
        for m in pkgutil.walk_packages(goodanalytics.__path__, "goodanalytics.")
        if "__main__" not in m.name
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_a_modules_public_names_are_there(name):
    """Every module can be imported by itself, and has each name of its `__all__` once, in order."""
    module = importlib.import_module(name)
    public = list(getattr(module, "__all__", ()))

    assert public == sorted(set(public), key=lambda n: (n != n.upper(), n[0].islower(), n))
    assert [n for n in public if not hasattr(module, n)] == []


def test_the_package_says_what_it_exports():
    """`from goodanalytics import *` gives the values that users handle, and nothing that came in by accident."""
    assert {"Analytics", "Config", "Principal", "Query", "Signals", "Visitor", "__version__"} <= set(
        goodanalytics.__all__
    )


@pytest.mark.parametrize("name", names(PROMISED))
def test_a_promised_name_exists(name):
    """The README and the examples may use it."""
    assert exists(name)


@pytest.mark.parametrize("name", names(LATER))
def test_a_name_for_later_is_not_there_yet(name):
    """If this fails, the name has come: move it from LATER to PROMISED, and tell of it in the changelog."""
    assert not exists(name)


def test_the_commands_are_those_that_are_promised():
    """`goodanalytics --help` lists this version's commands; a new one comes out of COMMANDS_LATER."""
    assert sorted(main.commands) == COMMANDS
    assert set(COMMANDS_LATER).isdisjoint(COMMANDS)


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_can_be_caught_by_its_name_and_knows_its_status(name):
    """Hosts catch `goodanalytics.errors.…`; everything below them is a GoodAnalyticsError with a status of its own."""
    errors = importlib.import_module("goodanalytics.errors")
    error = getattr(errors, name)

    assert issubclass(error, errors.GoodAnalyticsError)
    assert 400 <= error.status_hint < 600
    assert str(error())
