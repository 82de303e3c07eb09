"""TikTok's stand-in: the strict judge of `tests.platforms.standins`, behind HTTP. Pages: see `goodanalytics.platforms.tiktok`."""

from __future__ import annotations

import msgspec

from goodanalytics.platforms import Request
from tests.platforms import standins as pages
from tests.standins import Call, Refused, StandIn, Taken, a_currency, an_ip, checked, once_each, says

SECRETS = {"access_token": pages.TOKEN, "pixel_code": pages.PIXEL}


def tells(code: int, message: str, status: int = 200):
    """TikTok's own code in an HTTP 200."""
    return says(status, {"code": code, "message": message, "request_id": "202611201200000A", "data": {}})


THROTTLED = tells(40100, "Requests made too frequently.")
EXPIRED = tells(40105, "Access token is incorrect or has been revoked.")
NO_PERMISSION = tells(40001, "No permission to operate pixel.")
TRANSIENT = tells(50000, "System error")
FAULTY = tells(40002, "Invalid parameter: event_time")
PARTLY = tells(20001, "Partial success")


class TikTok(StandIn):
    """`accepted` has `Purchase sale:A-1001`: TikTok tells events apart by name and id."""

    hosts = ("business-api.tiktok.com",)

    def judge(self, call: Call) -> Taken:
        checked(call, _refuse, path=r"/open_api/v1\.3/event/track/")
        if call.query or call.host not in self.hosts or "authorization" in call.headers:
            raise _refuse("a query, another host, or a token where TikTok wants none")
        request = Request(url=call.url, headers=dict(call.headers), body=call.body, method=call.method)
        counted: set[tuple[str, str]] = set()
        response = pages.tiktok(request, now=self.clock(), counted=counted)
        if msgspec.json.decode(response.body)["code"] != 0:
            raise Refused(response.body.decode(), response)
        events = msgspec.json.decode(call.body, type=pages.TikTokBody).data
        once_each(_refuse, [f"{event.event} {event.event_id}" for event in events])
        for event in events:
            an_ip(_refuse, event.user.ip)
            if told := event.properties:
                a_currency(_refuse, told.currency)
        return Taken(response, sorted(f"{name} {event_id}" for name, event_id in counted))


def _refuse(why: str) -> Refused:
    return Refused(why, tells(40002, f"Invalid parameter: {why}").response)
