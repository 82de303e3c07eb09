"""A platform of your own, for Config(platforms=[Crm()]): it builds requests and reads answers; sending is not its job."""

from datetime import timedelta
from types import MappingProxyType

import msgspec

from goodanalytics.platforms import Request, Version, by_status, unfit


class Crm:
    name, version, max_batch, max_age = "crm", Version("v1"), 100, timedelta(days=30)
    events = MappingProxyType({"lead": "new", "sale": "won"})  # what the CRM calls our leads and sales
    secrets = frozenset({"token"})

    def skip(self, conversion, now):
        return unfit(self, conversion, now) or (None if conversion.order_key else "missing_order")

    def build(self, batch, secrets, now):
        deals = [{"id": c.event_id, "stage": self.events[c.kind]} for c in batch]
        body = msgspec.json.encode({"sent": now, "deals": deals})
        return Request(url="https://crm.example/deals", headers={"x-token": secrets["token"]}, body=body)

    def read(self, batch, response):
        return by_status(response).on_all(batch)
