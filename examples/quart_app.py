"""
A shop on Quart. It needs a PostgreSQL and makes its tables itself.

    GOODANALYTICS_DATABASE_URL=postgresql+asyncpg://user@host/name GOODANALYTICS_SECRET_KEY=… python examples/quart_app.py
"""

import os

import uvicorn
from quart import Quart, request

from goodanalytics import Analytics

PAGE = """<!doctype html><title>Shop</title><script defer src="ga/js/good-analytics.js"></script>
<form method="post" action="buy"><button>Buy the lamp</button></form>"""

analytics = Analytics.from_env(auto_migrate=True)
shop = Quart(__name__)


@shop.get("/")
async def home() -> str:
    return PAGE


@shop.post("/buy")
async def buy() -> dict[str, str]:
    visitor = await analytics.visitor(request)
    if visitor is not None:  # None is a browser that asked not to be followed; it buys all the same
        await analytics.sale(visitor, amount_cents=4900, currency="EUR")
    return {"bought": "lamp"}


app = analytics.wrap(shop)

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
