"""
The tables behind `core.sources` for tagged links: click ids, UTM words, and what kind of place each platform is.

Sources: the reference behaviour, original-core.md, section 7 (all of its rows are here); the click ids are the parameters
that the advertising platforms document. Rows of newer products were added from general knowledge in 2026.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from goodanalytics.core.referrers import APPS, COUNTRY_DOMAINS, HOSTS

CLICK_IDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "gclid": ("google_ads", "paid"),
        "gbraid": ("google_ads", "paid"),
        "wbraid": ("google_ads", "paid"),
        "msclkid": ("microsoft_ads", "paid"),
        "yclid": ("yandex_ads", "paid"),
        "ttclid": ("tiktok", "paid"),
        "li_fat_id": ("linkedin_ads", "paid"),
        "twclid": ("twitter_ads", "paid"),
        "rdt_cid": ("reddit_ads", "paid"),
        "sccid": ("snapchat_ads", "paid"),
        "epik": ("pinterest_ads", "paid"),
        "qclid": ("quora_ads", "paid"),
        "oppref": ("openai_ads", "paid"),
        "dclid": ("google_display", "paid"),
        "tblci": ("taboola", "paid"),
        "irclickid": ("impact_radius", "affiliate"),
        "cjevent": ("commission_junction", "affiliate"),
        "awc": ("awin", "affiliate"),
        "fbclid": ("meta", "social"),
    }
)
"""
Click id parameter → platform and medium, in the order of precedence when one address has several.

Paid search first, then other paid clicks, then display, then affiliates. fbclid is last, because Facebook adds it to every
outgoing link, paid or not: beside any other id it says the least.
"""

MEDIUMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        word: medium
        for medium, words in {
            "paid": "paid cpc ppc cpa cpv cpl retargeting remarketing paid_other ads ad",
            "paid_search": "paid_search paidsearch search_ads sem",
            "paid_social": "paid_social paidsocial social_paid social_ads",
            "display": "display banner cpm native programmatic interstitial expandable",
            "video": "video paid_video",
            "email": "email e_mail mail newsletter",
            "social": "social social_media social_network socialmedia sm organic_social social_organic",
            "organic": "organic seo organic_search",
            "referral": "referral referrer link",
            "affiliate": "affiliate affiliates",
            "sms": "sms text_message",
            "messaging": "messaging messenger chat whatsapp telegram im",
            "push": "push web_push push_notification notification",
            "qr": "qr qrcode qr_code",
            "ai": "ai llm chatbot ai_assistant",
            "direct": "direct none (none) (not_set)",
        }.items()
        for word in words.split()
    }
)
"""
utm_medium → medium, looked up lower-cased with spaces and hyphens read as ``_``.

A word that is not here stays as it is written, lower-cased.
"""

SOURCE_ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "fb": "facebook",
        "ig": "instagram",
        "insta": "instagram",
        "yt": "youtube",
        "adwords": "google_ads",
        "googleads": "google_ads",
        "google-ads": "google_ads",
        "google ads": "google_ads",
        "bingads": "microsoft_ads",
        "bing-ads": "microsoft_ads",
        "bing ads": "microsoft_ads",
        "microsoftads": "microsoft_ads",
        "(direct)": "direct",
        "(none)": "direct",
        "(not set)": "direct",
    }
)
"""
utm_source → platform, only where the word can mean nothing else.

Left out on purpose: ``x``, ``li``, ``tw``, ``an``, ``meta``, which people also use for other things.
"""

PLATFORM_MEDIUMS: Final[Mapping[str, str]] = MappingProxyType(
    {platform: medium for platform, medium in APPS.values() if medium != "referral"}
    | {platform: medium for _, platform, medium in COUNTRY_DOMAINS}
    | dict(HOSTS.values())
    | {platform: medium for platform, medium in CLICK_IDS.values() if medium != "paid"}
    | {
        "google_ads": "organic",
        "microsoft_ads": "organic",
        "yandex_ads": "organic",
        "linkedin_ads": "social",
        "twitter_ads": "social",
        "reddit_ads": "social",
        "snapchat_ads": "social",
        "pinterest_ads": "social",
        "quora_ads": "social",
        "google_display": "display",
        "taboola": "display",
        "openai": "ai",
        "newsletter": "email",
    }
)
"""What kind of place a platform is: the medium that its unpaid visits have."""

VIDEO_PLATFORMS: Final = frozenset({"youtube", "vimeo", "twitch", "dailymotion"})
"""Platforms whose paid visits come from video advertisements."""
