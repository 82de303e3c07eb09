"""Platforms by name, and how each of them can be tried out."""

from __future__ import annotations

import pytest

from goodanalytics.errors import InvalidInput
from goodanalytics.platforms import Google, GoogleAds, LinkedIn, LinkedInPartner, Meta, OpenAI, TikTok, chosen
from goodanalytics.platforms.known import KNOWN, everything, named, trial_of


def test_one_of_each_can_be_had_together():
    """Each under its own name; no two tell the same account."""
    assert [platform.name for platform in chosen.checked(everything())] == list(KNOWN)


def test_a_version_may_be_named():
    """After the colon; blanks do not matter."""
    assert [(one.name, one.version.name) for one in named(" meta : v25.0 ,tiktok,")] == [
        ("meta", "v25.0"), ("tiktok", "v1.3"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["facebook", "meta google", "webhook", "Meta"])
def test_a_name_that_is_none_is_told(text):
    """With those that there are."""
    with pytest.raises(ValueError, match="write some of google, linkedin, meta, openai, tiktok"):
        named(text)


@pytest.mark.parametrize(
    ("platform", "trial"),
    [
        (Meta(), "code"), (TikTok(), "code"), (Google(), "plain"), (GoogleAds(), "plain"), (OpenAI(), "plain"),
        (LinkedIn(), "none"), (LinkedInPartner(), "none"),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "secrets") else value,
)  # fmt: skip
def test_how_a_platform_is_tried_out(platform, trial):
    """Some take what their own test page shows, some have no test mode at all."""
    assert trial_of(platform) == trial


@pytest.mark.parametrize("platform", [Meta(), TikTok()], ids=["Meta", "TikTok"])
@pytest.mark.parametrize("code", ["", " "], ids=["empty", "blank"])
def test_a_test_without_its_code_would_count(platform, code):
    """So it is refused before anything is built."""
    with pytest.raises(InvalidInput, match="Events Manager shows one"):
        platform.in_test(code)
