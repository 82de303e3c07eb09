"""
One operation of the REST room: declared once, used twice, as a route and as its page in the reference.

Rules of this file
1. Who calls is decided before anything of the request is read. `Call.principal` carries the only workspace there is.
2. Bodies and queries are read strictly: an unknown name is refused and named, so that a typing error never silently
   leaves a default. A body's size is bounded while it arrives, not afterwards.
3. Nothing is believed about our own address but `root_path`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeVar, assert_never
from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from goodanalytics.config import Config, Principal
from goodanalytics.core.bounds import MAX_TEXT, Invalid, text, unreadable
from goodanalytics.core.browsers import id_in
from goodanalytics.core.plan import Outcome
from goodanalytics.errors import Forbidden, InvalidBody, InvalidInput, NotFound, Unauthorized
from goodanalytics.facade.links import Links
from goodanalytics.facade.platforms import Platforms
from goodanalytics.facade.webhooks import Webhooks
from goodanalytics.ingest import Ingest
from goodanalytics.store.database import Database
from goodanalytics.web.api.problems import Refusal

MAX_TOKEN = 4_096  # characters; a signed token with its claims stays well below
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Room:
    """What every operation works with."""

    config: Config
    database: Database
    ingest: Ingest
    links: Links
    platforms: Platforms
    webhooks: Webhooks


@dataclass(frozen=True, slots=True)
class Call:
    """
    One authenticated request.

    Attributes:
        now: When it came in. Aware, UTC.
    """

    request: Request
    room: Room
    principal: Principal
    now: datetime

    @property
    def workspace_id(self) -> UUID:
        """The only workspace that this call sees."""
        return self.principal.workspace_id

    @property
    def trusted(self) -> bool:
        """Whether a secret key vouches for what the call says."""
        return self.principal.key_type == "secret"


@dataclass(frozen=True, slots=True)
class Answer:
    """
    A status that an operation answers with.

    Attributes:
        body: What its JSON holds; `None` for no JSON.
        file: The media types of the file that it is instead.
    """

    description: str
    body: type | None
    file: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """
    One method of one path.

    Attributes:
        path: As Starlette writes it, below the room's mount.
        name: The `operationId`; generated clients name their function by it.
        access: `secret` for a secret key only, `any` for a publishable one too.
        respond: Does it.
        path_types: Type of each name in *path*.
        query: A struct whose fields are the query parameters.
        body: A struct that describes the JSON body.
        file: The media types of the file that the body is instead.
        example: A body that works as it stands, but for the ids in it.
        answers: Statuses below 400.
        problems: Statuses that only this operation answers with; the general ones are added.
        keyed: Whether `Idempotency-Key` means something to it.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    name: str
    summary: str
    description: str = ""
    access: Literal["secret", "any"] = "secret"
    respond: Callable[[Call], Awaitable[Response]]
    path_types: Mapping[str, Any] = field(default_factory=dict)
    query: type | None = None
    body: type | None = None
    file: Sequence[str] = ()
    example: Mapping[str, Any] | None = None
    answers: Mapping[int, Answer]
    problems: Mapping[int, str] = field(default_factory=dict)
    keyed: bool = False


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """*content* as JSON that no cache keeps."""
    return Response(
        msgspec.json.encode(content),
        status,
        {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})},
        "application/json",
    )


async def authenticate(config: Config, request: Request) -> Principal:
    """
    Who calls, as the host's `Config.authenticate` says.

    Raises:
        Refusal: 503, the host has set no `authenticate`; 401, there is no credential in the request.
        Unauthorized: The host does not know the credential.
        Forbidden: Raised by the host's function itself, as Unauthorized may be.
        RuntimeError: The host's function failed.
        TypeError: The host's function answered with something that is no principal.
    """
    if config.authenticate is None:
        raise Refusal(
            503,
            "authentication_not_configured",
            "Nobody may call this API yet. Set Config(authenticate=…): a function of (token, kind) that answers with a "
            "Principal or None.",
        )
    token, kind = credential(request)
    try:
        found = config.authenticate(token, kind)
        if inspect.isawaitable(found):
            found = await found
    except (Unauthorized, Forbidden):
        raise
    except Exception as error:
        # Whatever it raised means something to the host and nothing to the caller.
        raise RuntimeError(f"authenticate itself failed: {type(error).__name__}") from error
    if found is None:
        raise Unauthorized("This credential is not known.")
    if (
        not isinstance(found, Principal)
        or not isinstance(found.workspace_id, UUID)
        or found.key_type not in ("secret", "publishable")
    ):
        raise TypeError(
            f"authenticate answered with a {type(found).__name__} that is no Principal with a UUID and a key_type of "
            "'secret' or 'publishable'; answer with a Principal, or with None to refuse"
        )
    return found


def permit(principal: Principal, operation: Operation) -> None:
    """
    Check that *principal* may call *operation*.

    Raises:
        Forbidden: A publishable key may write events and nothing else.
    """
    if operation.access == "secret" and principal.key_type != "secret":
        raise Forbidden("A publishable key may only send events; use a secret key, and only from a server.")


def credential(request: Request) -> tuple[str, str]:
    """
    The token and its kind. `Authorization` of another scheme belongs to somebody else, such as a proxy.

    Raises:
        Unauthorized: There is none, or one that cannot be read.
    """
    given = request.headers.getlist("authorization")
    if len(given) > 1:
        raise Unauthorized("There are several Authorization headers; send one.")
    scheme, _, token = given[0].partition(" ") if given else ("", "", "")
    kind = "bearer"
    if scheme.lower() != "bearer":
        keys = request.headers.getlist("x-api-key")
        if len(keys) != 1:
            raise Unauthorized
        token, kind = keys[0], "api_key"
    token = token.strip()
    if not token or len(token) > MAX_TOKEN:
        raise Unauthorized(f"The {kind} credential is {'empty' if not token else 'too long'}.")
    return token, kind


async def read_body(request: Request, limit: int) -> bytes:
    """
    The bytes of a JSON body, at most *limit* of them.

    Raises:
        Refusal: 415, it does not claim to be JSON, or is compressed; 413, it is too large.
    """
    return await read_file(request, ("application/json",), limit)


async def read_file(request: Request, kinds: Sequence[str], limit: int) -> bytes:
    """
    The bytes of a body of one of these *kinds*, at most *limit* of them.

    Raises:
        Refusal: 415, it claims to be something else, or is compressed; 413, it is too large.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in kinds:
        raise Refusal(
            415,
            "unsupported_media_type",
            f"the body is {kind[:100] or 'of no named type'}; send {' or '.join(kinds)}",
            where="Content-Type",
            headers={"Accept": ", ".join(kinds)},
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(
            415,
            "unsupported_media_type",
            "compressed bodies are not read; send it plain",
            where="Content-Encoding",
        )
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise Refusal(
                413, "content_too_large", f"The body is larger than {limit} bytes. Send it in parts."
            )
    return bytes(body)


def decode(raw: bytes | msgspec.Raw, kind: type[T]) -> T:
    """
    *raw* JSON as a *kind*.

    Raises:
        InvalidInput: It is JSON, but not of that shape; says where.
        InvalidBody: It is not JSON.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        where, reason = located(error)
        raise InvalidInput(reason, where=where) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidBody(f"The body cannot be read: {unreadable(error)[1]}.") from None


async def read_json(request: Request, kind: type[T], limit: int) -> T:
    """The JSON body of *request* as a *kind*; raises what `read_body` and `decode` raise."""
    return decode(await read_body(request, limit), kind)


def read_query(request: Request, kind: type[T]) -> T:
    """
    The query parameters as a *kind*.

    Raises:
        InvalidInput: One is unknown, given twice, or out of its bounds.
    """
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in given:
            raise InvalidInput("given more than once; send it once", where=name[:100])
        given[name] = value
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        where, reason = located(error)
        raise InvalidInput(reason, where=where) from None


def located(error: msgspec.ValidationError) -> tuple[str, str]:
    """Where and why; the place of an unknown or a missing field is that field, which msgspec names in its sentence."""
    where, reason = unreadable(error)
    words, _, rest = reason.partition("`")
    if words in ("Object contains unknown field ", "Object missing required field ") and rest:
        name = rest.removesuffix("`")
        where = f"{where}.{name}" if where else name
        known = words == "Object missing required field "
        reason = "is required" if known else "is not a known name; see the reference at /docs"
    return where, reason


def id_of(call: Call, name: str, unknown: str) -> UUID:
    """
    The id in the path.

    Raises:
        NotFound: It is no UUID, which is the same to the caller as an unknown one.
    """
    try:
        return UUID(call.request.path_params[name])
    except ValueError:
        raise NotFound(unknown) from None


def page(data: Sequence[Any], next_cursor: str | None) -> dict[str, Any]:
    """A list's one shape."""
    return {"data": data, "page": {"next_cursor": next_cursor, "has_more": next_cursor is not None}}


def printable(where: str, value: str | None) -> str | None:
    """
    *value* cleaned; refused when nothing is left, for an identity must not silently vanish.

    Raises:
        Invalid: It holds blanks and control characters only.
    """
    cleaned = text(value, MAX_TEXT)
    if value is not None and cleaned is None:
        raise Invalid(where, "holds no printable character; send a value, or leave it out")
    return cleaned


def browser_id(where: str, value: str | None) -> str | None:
    """A browser's id, `printable`; it may come as our cookie has it, with its day."""
    return id_in(printable(where, value))


def refused(outcome: Outcome) -> Refusal | None:
    """What an outcome that wrote nothing is to the caller; `None` for one that stands in the books."""
    match outcome.status:
        case "recorded" | "repeated" | "resolved" | "accepted":
            return None
        case "conflict":
            return Refusal(
                409,
                "idempotency_key_reused",
                "this key was used before with another body; send a new key, or the first body",
                where="idempotency_key",
            )
        case "refused":
            return Refusal(409, "refund_refused", outcome.reason or "more than is left", where="amount_cents")
        case "dropped":
            return Refusal(404, "not_found", "this visitor was erased; nothing more is kept of them")
    assert_never(outcome.status)
