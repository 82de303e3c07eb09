"""Meta's stand-in: the strict judge of `tests.platforms.standins`, behind HTTP. Pages: see `goodanalytics.platforms.meta`."""

from __future__ import annotations

import msgspec

from goodanalytics.platforms import Request
from tests.platforms import standins as pages
from tests.standins import (
    Call,
    Refused,
    StandIn,
    Taken,
    a_currency,
    an_ip,
    checked,
    once_each,
    says,
)

SECRETS = {"access_token": pages.TOKEN, "pixel_id": pages.PIXEL}


def error(message: str, code: int, subcode: int | None = None, *, status: int = 400, transient: bool = False):
    """As https://developers.facebook.com/docs/graph-api/guides/error-handling shows one."""
    told = {"message": message, "type": "OAuthException", "code": code, "fbtrace_id": "Atrace"}
    more = {"error_subcode": subcode} if subcode else {}
    return says(status, {"error": told | more | ({"is_transient": True} if transient else {})})


THROTTLED = error("(#4) Application request limit reached", 4)
EXPIRED = error("Error validating access token: Session has expired", 190, 463)
NO_PERMISSION = error("(#200) Permissions error", 200, status=403)
TRANSIENT = error("An unexpected error has occurred. Please retry your request later.", 2, transient=True)
FAULTY = error("Invalid parameter", 100, 2804003)
FEWER = says(200, {"events_received": 1, "messages": ["One event was dropped"], "fbtrace_id": "Atrace"})


class Meta(StandIn):
    """`accepted` has `Purchase sale:A-1001`: Meta tells events apart by name and id."""

    hosts = ("graph.facebook.com",)

    def judge(self, call: Call) -> Taken:
        checked(call, _refuse, path=r"/v\d+\.0/[^/]+/events")
        if call.query or call.host not in self.hosts:
            raise _refuse("the token belongs into a header, and the host is not Meta's")
        request = Request(url=call.url, headers=dict(call.headers), body=call.body, method=call.method)
        counted: set[tuple[str, str]] = set()
        response = pages.meta(request, now=self.clock(), counted=counted)
        if response.status != 200:
            raise Refused(response.body.decode(), response)
        events = msgspec.json.decode(call.body, type=pages.MetaBody).data
        once_each(_refuse, [f"{event.event_name} {event.event_id}" for event in events])
        for event in events:
            an_ip(_refuse, event.user_data.client_ip_address)
            if custom := event.custom_data:
                a_currency(_refuse, custom.currency)
        return Taken(response, sorted(f"{name} {event_id}" for name, event_id in counted))


def _refuse(why: str) -> Refused:
    return Refused(why, error(f"Invalid parameter: {why}", 100).response)
