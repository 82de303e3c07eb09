"""A glance at cookies: yes only where reading them with care says the same."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from goodanalytics import Config
from goodanalytics.web.glance import Glance
from goodanalytics.web.middleware import Keeper, cookies_for
from goodanalytics.web.reading import Visit

CONFIG = Config(secret_key="only-for-these-tests-" + "0" * 32)
GLANCE, KEEP = Glance(CONFIG), Keeper(CONFIG.cookies)
OURS = "RvH1u2cT7e_k-9aQ0bWx3Y"

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
@example(f"theme=a _ga_anon={OURS}")
@example(f"_ga_anon={OURS}; x_ga_anon={OURS}")
@example(f"x_ga_anon={OURS}; _ga_anon={OURS}")
@example(f"_ga_anon={OURS}; _ga_ignore=1")
@example(f"_ga_anon=a-browser; _ga_anon={OURS}; ")
def test_a_browser_that_is_known_at_a_glance_is_known_by_its_cookies(header: str) -> None:
    """The same id, the same click, the same pixels, the same cookie to keep; and nobody who is not to be followed."""
    headers = {b"cookie": header.encode("latin-1")}
    browser, read = GLANCE.browser(headers), visit(header)
    own = GLANCE.anonymous_id(headers)

    if browser is None:
        assert own is None
        return
    kept_cookie = cookies_for(read)[0]
    assert own is None or KEEP(own, is_secure=False).decode() == kept_cookie
    assert (own is None) == (f"={browser[0]};" not in kept_cookie)
    anonymous_id, click_id, pixels = browser
    kept = {name: read.cookies.get(name) for name in ("_fbp", "_fbc", "_ttp") if name in read.cookies}
    assert (anonymous_id, read.is_new, read.refusal) == (read.anonymous_id, False, None)
    assert (None if click_id is None else click_id.decode()) == read.cookies.get("_ga_good")
    assert {name.decode(): value.decode() for name, value in pixels.items()} == kept


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(f"_ga_anon={OURS}", OURS, id="alone"),
        pytest.param(f"theme=dark; _ga_anon={OURS}; lang=de", OURS, id="among the host's"),
        pytest.param(f"theme=dark;_ga_anon={OURS}", OURS, id="without blanks"),
        pytest.param(f"_ga_good=x; _ga_anon={OURS}", OURS, id="beside a click"),
        pytest.param("_ga_anon=a-short-one", "a-short-one", id="not of our making"),
        pytest.param(f"x_ga_anon={OURS}", None, id="another's"),
        pytest.param(f"theme=a _ga_anon={OURS}", None, id="inside another's"),
        pytest.param(f"_ga_anon={'0' * 22}", None, id="all zeros"),
        pytest.param(f"_ga_anon={OURS}; _ga_anon=b", None, id="twice"),
        pytest.param(f"_ga_anon={OURS}; _ga_ignore=1", None, id="one of the site's own people"),
    ],
)
def test_who_is_known_at_a_glance(header: str, expected: str | None) -> None:
    """Most browsers are, and what is doubtful is nobody's."""
    found = GLANCE.anonymous_id({b"cookie": header.encode()})

    assert found == (expected and expected.encode())
