"""
An answer to a request for a short link, as ASGI sends it: bytes that are ready, and no object between.

A redirect is answered thousands of times a second, and Starlette's `Response` costs as much as everything that decides where
it leads. Values of headers are Latin-1, as ASGI wants them; whoever puts a text of somebody else's in one keeps line breaks
out of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from starlette.types import Receive, Scope, Send

Header = tuple[bytes, bytes]

NO_STORE: Final[Header] = (b"cache-control", b"private, no-store")
NOINDEX: Final[Header] = (b"x-robots-tag", b"noindex")
EMPTY: Final[Header] = (b"content-length", b"0")
ACCEPTED: Final[Header] = (b"x-goodanalytics", b"accepted")
UNSAFE: Final[Header] = (b"x-goodanalytics", b"dropped; reason=not safe")
"""Of a click that neither the log nor the spool could take."""


class Answer:
    """
    A status, headers and a body; an ASGI app.

    Attributes:
        headers: In order; whoever made the answer may add some.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: list[Header], body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it; a HEAD request gets the headers alone."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self.body})

    def add(self, name: str, value: str) -> None:
        """Add a header."""
        self.headers.append((name.encode("latin-1"), value.encode("latin-1")))


def redirect(url: str, status: int, *, is_indexed: bool = False) -> Answer:
    """
    An answer that leads to *url*, which is ASCII.

    No cache keeps it, whatever the status: each click has an id of its own, and a browser that remembers a 301 would never
    tell of a click again (RFC 9111, section 4.2.2, allows it to).
    """
    headers = [(b"location", url.encode("ascii")), NO_STORE, EMPTY]
    if not is_indexed:
        headers.append(NOINDEX)
    return Answer(status, headers)


def plain(status: int, text: str, headers: Mapping[str, str] | None = None) -> Answer:
    """A line of text."""
    return document(status, f"{text}\n".encode(), "text/plain; charset=utf-8", (headers or {}).items())


def document(status: int, body: bytes, media_type: str, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    """A body with its length; not kept by caches unless *headers* say so."""
    answer = Answer(
        status, [(b"content-type", media_type.encode()), (b"content-length", b"%d" % len(body))], body
    )
    for name, value in headers:
        answer.add(name.lower(), value)
    if not any(name == b"cache-control" for name, _ in answer.headers):
        answer.headers.append(NO_STORE)
    if not any(name == b"x-content-type-options" for name, _ in answer.headers):
        answer.add("x-content-type-options", "nosniff")
    return answer
