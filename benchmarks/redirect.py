"""The short link: ours with its click durable, beside redirects that remember nothing. Bounds from issue 5."""

from __future__ import annotations

from benchmarks.measures import Rounds, Row, Steady, Subject, ratios
from benchmarks.rig import SCHEMA, Load, Rig

LINKS = 10_000
MAKE_LINKS = f"""
    INSERT INTO {SCHEMA}.links (workspace_id, id, domain, key, url, link_type, utm_source, tags, metadata, created_at, updated_at)
    SELECT '{"0" * 8}-{"0" * 4}-{"0" * 4}-{"0" * 4}-{"0" * 12}', gen_random_uuid(), 'shop.example', n::text,
           'https://shop.example/seeds/' || n, 'short', 'letter', ARRAY[]::text[], '{{}}', now(), now()
    FROM generate_series(1, {LINKS}) AS n
"""
HOT = Load("link", "/l/", 64)
MANY = Load("link", "/l/", 64, links=LINKS)


def start(rig: Rig) -> None:
    rig.start("bare_redirect", "benchmarks.apps:bare_redirect")
    rig.start("starlette_redirect", "benchmarks.apps:starlette_redirect")
    rig.start(
        "redirect", "benchmarks.apps:wrapped", ours=True, prepare=(MAKE_LINKS, f"ANALYZE {SCHEMA}.links")
    )


def between(rig: Rig) -> None:
    """Empty the log that nobody reads."""
    rig.execute("redirect", f"TRUNCATE {SCHEMA}.hits")


def rows(rounds: Rounds, unit: str) -> list[Row]:
    hot, many = "redirect, 1 link@64", "redirect, 10,000 links@64"
    bare, starlette = "bare redirect@64", "starlette redirect@64"
    return [
        Row("redirect with the click durable, requests/s", "bare Starlette redirect",
            ratios(rounds, hot, starlette, "rate"), 0.6, at_least=True),
        Row(f"redirect with the click durable, server {unit}", "bare Starlette redirect",
            ratios(rounds, hot, starlette, "server")),
        Row("redirect with the click durable, requests/s", "bare ASGI redirect", ratios(rounds, hot, bare, "rate")),
        Row("redirect, 10,000 links evenly, requests/s", "1 hot link",
            ratios(rounds, many, hot, "rate"), 0.9, upper=1.1),
    ]  # fmt: skip


SUBJECT = Subject(
    "redirect",
    start,
    (
        Steady("bare redirect@64", "bare_redirect", HOT, "bare redirect@64"),
        Steady("starlette redirect@64", "starlette_redirect", HOT, "bare redirect@64"),
        Steady("redirect, 1 link@64", "redirect", HOT, "bare redirect@64"),
        Steady("redirect, 10,000 links@64", "redirect", MANY, "bare redirect@64"),
    ),
    rows,
    between,
)
