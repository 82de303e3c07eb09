"""A platform of your own, for Config(platforms=[Crm()]): it builds requests and reads answers; sending is not its job."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from goodanalytics.platforms import Conversion, Kind, Outcome, Request, Response, Version, by_status, unfit


class Crm:
    name, version, max_batch, max_age = "crm", Version("v1"), 100, timedelta(days=30)
    events: Mapping[Kind, str] = {"lead": "new", "sale": "won"}  # what the CRM calls our leads and sales
    secrets = frozenset({"token"})

    def skip(self, conversion: Conversion, now: datetime) -> str | None:
        return unfit(self, conversion, now) or (None if conversion.order_key else "missing_order")

    def build(self, batch: Sequence[Conversion], secrets: Mapping[str, str], now: datetime) -> Request:
        deals = [{"id": c.event_id, "stage": self.events[c.kind]} for c in batch]
        body = msgspec.json.encode({"sent": now, "deals": deals})
        return Request(url="https://crm.example/deals", headers={"x-token": secrets["token"]}, body=body)

    def read(self, batch: Sequence[Conversion], response: Response) -> list[Outcome]:
        return by_status(response).on_all(batch)
