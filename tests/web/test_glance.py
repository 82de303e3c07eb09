"""A glance at cookies: yes only where reading them with care says the same."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from goodanalytics import Config
from goodanalytics.core.browsers import day_of
from goodanalytics.web.cookies import Keeper, cookies_for
from goodanalytics.web.glance import Glance
from goodanalytics.web.reading import Visit

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
CONFIG = Config(secret_key="only-for-these-tests-" + "0" * 32, clock=lambda: NOW)
GLANCE, KEEPER = Glance(CONFIG), Keeper(CONFIG)
OURS = "RvH1u2cT7e_k-9aQ0bWx3Y"
TODAY, ONCE = day_of(NOW), day_of(NOW - timedelta(days=30))

NAMES = st.sampled_from(
    [
        "_ga_anon",
        "x_ga_anon",
        "_ga_anon2",
        "_ga_good",
        "_ga_ignore",
        "_fbp",
        "_fbc",
        "x_fbp",
        "_ga",
        "theme",
        "",
    ]
)
VALUES = st.sampled_from(
    [
        OURS,
        OURS + TODAY,
        OURS + ONCE,
        "a.b" + TODAY,
        OURS + ONCE + TODAY,
        OURS + TODAY[:-1],
        OURS.lower(),
        "a-browser",
        "null",
        "0" * 22,
        "0-" * 20,
        "x" * 129,
        "",
        "a b",
        '"quoted"',
        "a=b",
        "1",
        "é",
    ]
) | st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters=";"), max_size=6)
COOKIES = st.lists(
    st.tuples(NAMES, st.sampled_from(["=", "=", "=", ""]), VALUES, st.sampled_from(["; ", ";", " ; ", " "])),
    max_size=5,
).map(lambda parts: "".join(name + equals + value + end for name, equals, value, end in parts))


def visit(header: str) -> Visit:
    return Visit({"headers": [(b"cookie", header.encode("latin-1"))], "client": None}, CONFIG)


@settings(deadline=None, max_examples=2_000)
@given(COOKIES)
@example(f"theme=dark; _ga_anon={OURS}")
@example(f"theme=dark; _ga_anon={OURS}{TODAY}")
@example(f"_fbp=fb.1.2.3; _ga_anon={OURS}{TODAY}")
@example(f"theme=a _ga_anon={OURS}")
@example(f"_ga_anon={OURS}; x_ga_anon={OURS}")
@example(f"x_ga_anon={OURS}; _ga_anon={OURS}")
@example(f"_ga_anon={OURS}; _ga_ignore=1")
@example(f"_ga_anon=a-browser; _ga_anon={OURS}; ")
def test_a_browser_that_is_known_at_a_glance_is_known_by_its_cookies(header: str) -> None:
    """The same id, the same click, the same pixels, the same cookie to keep; and nobody who is not to be followed."""
    headers = {b"cookie": header.encode("latin-1")}
    browser, read = GLANCE.browser(headers), visit(header)
    found = GLANCE.kept(headers)

    if found is not None:
        assert (found[0].decode(), read.is_new, read.refusal) == (read.anonymous_id, False, None)
        own, day = found
        kept = [] if KEEPER.is_of_today(day) else [KEEPER.cookie(own, is_secure=False).decode()]
        assert kept == cookies_for(read)
    if browser is None:
        return
    assert found is not None or not re.fullmatch(r"[A-Za-z0-9_.~-]+", browser[0])
    anonymous_id, click_id, pixels = browser
    kept = {name: read.cookies.get(name) for name in ("_fbp", "_fbc", "_ttp") if name in read.cookies}
    assert (anonymous_id, read.is_new, read.refusal) == (read.anonymous_id, False, None)
    assert (None if click_id is None else click_id.decode()) == read.cookies.get("_ga_good")
    assert {name.decode(): value.decode() for name, value in pixels.items()} == kept


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(f"_ga_anon={OURS}", (OURS, ""), id="alone"),
        pytest.param(f"_ga_anon={OURS}{ONCE}", (OURS, ONCE), id="since a day"),
        pytest.param(f"theme=dark; _ga_anon={OURS}{ONCE}; lang=de", (OURS, ONCE), id="among the host's"),
        pytest.param(f"theme=dark;_ga_anon={OURS}{ONCE}", (OURS, ONCE), id="without blanks"),
        pytest.param(f"_ga_good=x; _ga_anon={OURS}{ONCE}", (OURS, ONCE), id="beside a click"),
        pytest.param("_ga_anon=a-short-one", ("a-short-one", ""), id="not of our making"),
        pytest.param(f"_ga_anon=a.b.12345{ONCE}", ("a.b.12345", ONCE), id="of several parts"),
        pytest.param(f"x_ga_anon={OURS}", None, id="another's"),
        pytest.param(f"theme=a _ga_anon={OURS}", None, id="inside another's"),
        pytest.param(f"_ga_anon={'0' * 22}{ONCE}", None, id="all zeros"),
        pytest.param(f"_ga_anon={ONCE}", None, id="a day without an id"),
        pytest.param(f"_ga_anon={OURS}; _ga_anon=b", None, id="twice"),
        pytest.param(f"_ga_anon={OURS}; _ga_ignore=1", None, id="one of the site's own people"),
    ],
)
def test_who_is_known_at_a_glance(header: str, expected: tuple[str, str] | None) -> None:
    """Most browsers are, and what is doubtful is nobody's."""
    found = GLANCE.kept({b"cookie": header.encode()})

    assert found == (expected and (expected[0].encode(), expected[1].encode()))
