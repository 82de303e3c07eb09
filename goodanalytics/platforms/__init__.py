"""
Ad platforms' dialects: what is told, how, and what the answer means. Nothing here does I/O; `dispatch` sends.

The values are in `conversion`, the protocol in `dialect`, one dialect in each other module.
"""

from goodanalytics.platforms.answers import body_of, by_status, unreadable
from goodanalytics.platforms.conversion import Click, Consent, Conversion, Item, Kind, Person, Place, Signals
from goodanalytics.platforms.dialect import (
    Confirming,
    Laned,
    Outcome,
    Planned,
    Platform,
    Policy,
    Rehearsing,
    Renewing,
    Request,
    Response,
    Silence,
    Status,
    Token,
    Verdict,
    Version,
    lane_of,
    plan,
    retry_at,
    settled,
    sunset_notice,
    unfit,
)
from goodanalytics.platforms.google import Google
from goodanalytics.platforms.google_ads import GoogleAds
from goodanalytics.platforms.linkedin import LinkedIn, LinkedInPartner
from goodanalytics.platforms.meta import Meta
from goodanalytics.platforms.openai import OpenAI
from goodanalytics.platforms.tiktok import TikTok
from goodanalytics.platforms.webhook import Notice, Webhook

__all__ = [
    "Click",
    "Confirming",
    "Consent",
    "Conversion",
    "Google",
    "GoogleAds",
    "Item",
    "Kind",
    "Laned",
    "LinkedIn",
    "LinkedInPartner",
    "Meta",
    "Notice",
    "OpenAI",
    "Outcome",
    "Person",
    "Place",
    "Planned",
    "Platform",
    "Policy",
    "Rehearsing",
    "Renewing",
    "Request",
    "Response",
    "Signals",
    "Silence",
    "Status",
    "TikTok",
    "Token",
    "Verdict",
    "Version",
    "Webhook",
    "body_of",
    "by_status",
    "lane_of",
    "plan",
    "retry_at",
    "settled",
    "sunset_notice",
    "unfit",
    "unreadable",
]
