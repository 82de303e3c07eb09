"""
A shop on Django. It needs a PostgreSQL and makes its tables itself.

    GOODANALYTICS_DATABASE_URL=postgresql+asyncpg://user@host/name GOODANALYTICS_SECRET_KEY=… python examples/django_app.py
"""

import os

import uvicorn
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from goodanalytics import Analytics

PAGE = """<!doctype html><title>Shop</title><script defer src="ga/js/good-analytics.js"></script>
<form method="post" action="buy"><button>Buy the lamp</button></form>"""

analytics = Analytics.from_env(auto_migrate=True)
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY=analytics.config.secret_key)


async def home(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(PAGE)


async def buy(request: HttpRequest) -> JsonResponse:
    visitor = await analytics.visitor(request)
    if visitor is not None:  # None is a browser that asked not to be followed; it buys all the same
        await analytics.sale(visitor, amount_cents=4900, currency="EUR")
    return JsonResponse({"bought": "lamp"})


urlpatterns = [path("", home), path("buy", buy)]
app = analytics.wrap(get_asgi_application())

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
