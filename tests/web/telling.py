"""A shop that tells an ad platform of its sales, and what nobody may read of it anywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from goodanalytics import Analytics, Config
from goodanalytics.platforms import Meta
from tests.dispatch.conftest import Bell, Exchange, House

TOKEN = "EAAB-a-token-that-nobody-may-see"
EMAIL, PHONE = "ada@shop.example", "+442079460018"
ADDRESS = "https://receiver.example/hooks/T0p-secret?key=s3cret"
PRIVATE = (TOKEN, "a-secret-of-bell", EMAIL, "ada@", PHONE, "2079460018", "T0p-secret", "s3cret")


@asynccontextmanager
async def a_shop(database_url: str, config: Config, clock: Any, **settings: Any) -> AsyncIterator[House]:
    """It tells bell, knows of Meta, and has a visitor whose e-mail address and phone number are known."""
    exchange = Exchange()
    base = {"worker": False, "consent_silence": "granted", "transport": exchange, "jitter": lambda: 0.0}
    chosen = dataclasses.replace(config, **(base | {"platforms": [Bell(), Meta()]} | settings))
    async with Analytics(database_url, chosen) as analytics:
        house = House(analytics, exchange, clock)
        house.visitor = await analytics.resolve({"anonymous_id": "a-cookie"})
        await analytics.identify(house.visitor, email=EMAIL, phone=PHONE, external_id="user-42")
        if any(platform.name == "bell" for platform in chosen.platforms):
            await analytics.platforms.store_credential("bell", "token", "a-secret-of-bell")
            await analytics.platforms.enable("bell")
        yield house


def leaks(*answers: httpx.Response) -> list[str]:
    """What nobody may see and is in an answer."""
    return [word for word in PRIVATE for answer in answers if word in answer.text + repr(answer.headers)]
