"""
A shop on Starlette. It needs a PostgreSQL and makes its tables itself.

    GOODANALYTICS_DATABASE_URL=postgresql+asyncpg://user@host/name GOODANALYTICS_SECRET_KEY=… python examples/starlette_app.py
"""

import os

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from goodanalytics import Analytics

PAGE = """<!doctype html><title>Shop</title><script defer src="ga/js/good-analytics.js"></script>
<form method="post" action="buy"><button>Buy the lamp</button></form>"""

analytics = Analytics.from_env(auto_migrate=True)


async def home(_request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


async def buy(request: Request) -> JSONResponse:
    visitor = await analytics.visitor(request)
    if visitor is not None:  # None is a browser that asked not to be followed; it buys all the same
        await analytics.sale(visitor, amount_cents=4900, currency="EUR")
    return JSONResponse({"bought": "lamp"})


app = analytics.wrap(Starlette(routes=[Route("/", home), Route("/buy", buy, methods=["POST"])]))

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
