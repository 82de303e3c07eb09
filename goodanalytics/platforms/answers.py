"""
How a response is read before any dialect looks into it.

1. A body is JSON with an object at its top, or it is unreadable: an HTML page of a proxy, half a document, nothing at all.
2. What is unreadable is tried again, except where the status alone says all: 413 halves the batch, 429 waits.
3. Status codes are the fallback for what the body does not say: RFC 9110 section 15, RFC 6585 section 4 (429).
4. `Retry-After` is seconds or a date (RFC 9110 section 10.2.3); a date is counted from the response's own `Date`, so that
   no clock is needed here.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from goodanalytics.platforms.dialect import Response, Verdict

_json = msgspec.json.Decoder()


def body_of(response: Response) -> dict[str, Any] | None:
    """
    The JSON object in the body; `None` when there is none that can be read.

    >>> body_of(Response(status=200, body=b'{"code": 0}')), body_of(Response(status=502, body=b"<html>"))
    ({'code': 0}, None)
    """
    try:
        found = _json.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if isinstance(found, dict) else None


def retry_after(response: Response) -> timedelta | None:
    """
    How long the platform asks to be left alone; `None` when it does not say, or not so that it can be read.

    >>> retry_after(Response(status=429, headers={"retry-after": "120"}))
    datetime.timedelta(seconds=120)
    """
    said = response.headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return timedelta(seconds=min(int(said[:9]), 7 * 86_400))
    until, now = _date(said), _date(response.headers.get("date", ""))
    if until is None or now is None:
        return None
    return max(until - now, timedelta())


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else None


def unreadable(response: Response) -> Verdict:
    """The verdict on a body that is no JSON object."""
    if response.status in {413, 429}:
        return by_status(response)
    return Verdict(
        status="retry",
        code=f"http_{response.status}",
        message=f"HTTP {response.status} with a body of {len(response.body)} bytes that is no JSON object",
        retry_after=retry_after(response),
    )


def by_status(response: Response, *, code: str = "", message: str = "") -> Verdict:
    """
    The verdict that the status alone gives, for the request as a whole.

    2xx is "delivered", so a dialect looks for errors in the body first.
    """
    status = response.status
    code = code or f"http_{status}"
    message = message or f"HTTP {status}"
    after = retry_after(response)
    if 200 <= status < 300:
        return Verdict(status="delivered", code=code, message=message)
    if status in {401, 403}:
        return Verdict(status="credential", code=code, message=message)
    if status == 429:
        return Verdict(status="rate_limited", code=code, message=message, retry_after=after)
    if status >= 500 or status < 400 or status in {408, 425}:
        return Verdict(status="retry", code=code, message=message, retry_after=after)
    return Verdict(status="permanent", code=code, message=message, of_batch=True)
