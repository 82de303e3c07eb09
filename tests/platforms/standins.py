"""
Meta and TikTok as their pages describe them, as pure functions: a request goes in, the documented answer comes out.

They know nothing of our dialects and refuse what the pages do not name (`forbid_unknown_fields`), so a member that a platform
does not have, such as Meta's `fbclid`, fails here. An HTTP server around them is a few lines. Load with
`runpy.run_path(Path(__file__).with_name("standins.py"))`: pytest's importlib mode knows no siblings. (Annotations are
evaluated at once here, because msgspec could not look them up in a module that is run and gone.)
"""

import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from goodanalytics.platforms import (
    Click,
    Consent,
    Conversion,
    Item,
    Person,
    Request,
    Response,
    Signals,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TOKEN = "EAAB0secretsecretsecret0token"
PIXEL = "1234567890123456"
EMAIL = "Ada.Lovelace@Example.org"
PHONE = "+44 20 7946 0018"
SHA256 = re.compile(r"[0-9a-f]{64}")


def a_sale(**changes: Any) -> Conversion:
    """A sale with everything that can be known about it."""
    facts: dict[str, Any] = {
        "dispatch_id": uuid.UUID(int=7),
        "event_id": "sale:A-1001",
        "kind": "sale",
        "occurred_at": NOW - timedelta(hours=1),
        "amount_cents": 4900,
        "currency": "EUR",
        "url": "https://shop.example/thanks?email=ada@example.org#top",
        "person": Person(
            email=EMAIL,
            phone=PHONE,
            name="Ada Lovelace",
            external_id="Customer-42",
            city="London",
            region="England",
            postcode="NW1 6XE",
            country="GB",
        ),
        "signals": Signals(
            clicks={
                "fbclid": Click(value="IwAR2F4-dbP0l7Mn1IawQQ", at=NOW - timedelta(days=2)),
                "ttclid": Click(value="E.C.P.CiQAbc", at=NOW - timedelta(days=2)),
            },
            fbp="fb.1.1558571054389.1098115397",
            ttp="2F7h37YkS1j57AYSKTI7IHhJPYH",
            ip="203.0.113.9",
            user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        ),
        "consent": Consent(ad_user_data="granted", ad_personalization="granted"),
        "order_key": "A-1001",
        "contents": (Item(id="lamp", name="Lamp", quantity=2, price_cents=2450),),
        "properties": {"note": "a private note"},
    }
    return Conversion(**(facts | changes))


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    """A body with a member that is not on the page is refused."""


class MetaContent(_Strict):
    id: str
    quantity: int
    item_price: float | None = None


class MetaCustomData(_Strict):
    currency: str | None = None
    value: float | None = None
    order_id: str | None = None
    content_type: Literal["product", "product_group"] | None = None
    contents: list[MetaContent] = []


class MetaUserData(_Strict):
    em: list[str] = []
    ph: list[str] = []
    fn: list[str] = []
    ln: list[str] = []
    ct: list[str] = []
    st: list[str] = []
    zp: list[str] = []
    country: list[str] = []
    external_id: list[str] = []
    client_ip_address: str | None = None
    client_user_agent: str | None = None
    fbc: str | None = None
    fbp: str | None = None


class MetaEvent(_Strict):
    event_name: str
    event_time: int
    event_id: str
    action_source: Literal[
        "email", "website", "app", "phone_call", "chat", "physical_store", "system_generated", "other"
    ]
    user_data: MetaUserData
    event_source_url: str | None = None
    custom_data: MetaCustomData | None = None
    opt_out: bool = False
    data_processing_options: list[Literal["LDU"]] = []
    data_processing_options_country: Literal[0, 1] = 0
    data_processing_options_state: int = 0


class MetaBody(_Strict):
    data: list[MetaEvent]
    test_event_code: str | None = None


def json_response(body: object, status: int = 200) -> Response:
    return Response(
        status=status,
        headers={"content-type": "application/json; charset=UTF-8"},
        body=msgspec.json.encode(body),
    )


def _meta_error(message: str, code: int, subcode: int | None = None) -> Response:
    error: dict[str, Any] = {
        "message": message,
        "type": "OAuthException",
        "code": code,
        "fbtrace_id": "Atrace",
    }
    return json_response({"error": error | ({"error_subcode": subcode} if subcode else {})}, 400)


def _meta_fault(event: MetaEvent, now: datetime) -> Response | None:
    user = event.user_data
    hashes = (
        user.em + user.ph + user.fn + user.ln + user.ct + user.st + user.zp + user.country + user.external_id
    )
    if not all(SHA256.fullmatch(digest) for digest in hashes):
        return _meta_error("Invalid parameter: user data is not hashed", 100, 2804019)
    if user.fbc and not re.fullmatch(r"fb\.[0-2]\.\d{13}\.[\w-]+", user.fbc):
        return _meta_error("Invalid parameter: fbc", 100)
    if now.timestamp() - event.event_time > 7 * 86_400:
        return _meta_error("Event Timestamp Too Old", 100, 2804003)
    if event.event_time > now.timestamp():
        return _meta_error("Event Timestamp In The Future", 100, 2804004)
    website = event.action_source == "website"
    if website and not (user.client_user_agent and event.event_source_url):
        return _meta_error("Missing required parameters of a website event", 100, 2804016)
    custom = event.custom_data
    if event.event_name == "Purchase" and not (custom and custom.currency and custom.value is not None):
        return _meta_error("A purchase needs value and currency", 100, 2804007)
    return None


def meta(request: Request, *, now: datetime = NOW, counted: set[tuple[str, str]] | None = None) -> Response:
    """Meta's answer; what it counts goes into *counted*, once for each name and id."""
    if request.method != "POST" or not re.fullmatch(rf"https?://[^/]+/v\d+\.0/{PIXEL}/events", request.url):
        return _meta_error("Unsupported post request. Object with that ID does not exist", 100, 33)
    if request.headers.get("authorization") != f"Bearer {TOKEN}":
        return _meta_error("Error validating access token: Session has expired", 190, 463)
    try:
        body = msgspec.json.decode(request.body, type=MetaBody)
    except msgspec.MsgspecError as error:
        return _meta_error(f"Invalid parameter: {error}", 100)
    if not 1 <= len(body.data) <= 1000:
        return _meta_error("Too many events in data", 100, 2804001)
    for event in body.data:
        if fault := _meta_fault(event, now):
            return fault
    if counted is not None and body.test_event_code is None:
        counted.update((event.event_name, event.event_id) for event in body.data)
    return json_response({"events_received": len(body.data), "messages": [], "fbtrace_id": "Atrace"})


class TikTokContent(_Strict):
    content_id: str
    quantity: int
    content_name: str | None = None
    content_category: str | None = None
    brand: str | None = None
    price: float | None = None


class TikTokProperties(_Strict):
    currency: str | None = None
    value: float | None = None
    order_id: str | None = None
    content_type: Literal["product", "product_group"] | None = None
    contents: list[TikTokContent] = []


class TikTokUser(_Strict):
    email: str | None = None
    phone: str | None = None
    external_id: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    zip_code: str | None = None
    ttclid: str | None = None
    ttp: str | None = None
    ip: str | None = None
    user_agent: str | None = None


class TikTokPage(_Strict):
    url: str


class TikTokEvent(_Strict):
    event: str
    event_time: int
    event_id: str
    user: TikTokUser
    page: TikTokPage
    properties: TikTokProperties | None = None
    limited_data_use: bool = False


class TikTokBody(_Strict):
    event_source: Literal["web"]
    event_source_id: str
    data: list[TikTokEvent]
    test_event_code: str | None = None


def _tiktok_says(code: int, message: str) -> Response:
    # An HTTP 200, whatever it says.
    return json_response({"code": code, "message": message, "request_id": "202611201200000A", "data": {}})


def tiktok(request: Request, *, now: datetime = NOW, counted: set[tuple[str, str]] | None = None) -> Response:
    """TikTok's answer; what it counts goes into *counted*, once for each event and id."""
    if request.headers.get("access-token") != TOKEN:
        return _tiktok_says(40105, "Access token is incorrect or has been revoked.")
    if request.method != "POST" or not re.fullmatch(
        r"https?://[^/]+/open_api/v1\.3/event/track/", request.url
    ):
        return _tiktok_says(40007, "The path does not exist")
    try:
        body = msgspec.json.decode(request.body, type=TikTokBody)
    except msgspec.MsgspecError as error:
        return _tiktok_says(40002, f"Invalid value: {error}")
    if body.event_source_id != PIXEL:
        return _tiktok_says(40001, "No permission for this pixel")
    if not 1 <= len(body.data) <= 1000:
        return _tiktok_says(40002, "data: between 1 and 1000 events")
    for event in body.data:
        user = event.user
        hashes = (user.email, user.phone, user.external_id, user.first_name, user.last_name, user.zip_code)
        if not all(SHA256.fullmatch(digest) for digest in hashes if digest is not None):
            return _tiktok_says(40002, "user: not hashed")
        if not 0 <= now.timestamp() - event.event_time <= 7 * 86_400:
            return _tiktok_says(40002, "event_time: not within the last 7 days")
    if counted is not None and body.test_event_code is None:
        counted.update((event.event, event.event_id) for event in body.data)
    return _tiktok_says(0, "OK")


StandIn = Callable[..., Response]
