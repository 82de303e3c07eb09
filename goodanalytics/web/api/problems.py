"""
Every refusal of the REST room as one shape: `application/problem+json` (RFC 9457).

Rules of this file
1. `type` is `about:blank`, so `title` is the status's own phrase (RFC 9457, section 4.2.1); programs read `code`, which
   never changes, and people read `detail`, which says what is wrong and what would be right.
2. What a caller did wrong is told with place and cure. What *we* did wrong (5xx) is told without any particulars, for a
   message of ours may name a database's address; the whole of it goes to `Config.report`, under the same `request_id`.
3. `errors` names each wrong value: `loc` is its path (`properties.plan`, `[3].url`), or the name of a header or of a
   query parameter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from goodanalytics.core.bounds import Invalid
from goodanalytics.errors import Busy, GoodAnalyticsError, InvalidInput

MEDIA_TYPE = "application/problem+json"

TITLES: Mapping[int, str] = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
"""The phrases of RFC 9110, section 15; `http.HTTPStatus` changes two of them between Python versions."""

_CODES: Mapping[int, str] = {404: "not_found", 405: "method_not_allowed"}
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


class Fault(msgspec.Struct, frozen=True):
    """
    One wrong value.

    Attributes:
        loc: Path to the value; empty for the whole.
        msg: What is wrong with it, and what would be right.
        code: The same word as the problem's, for programs.
    """

    loc: str
    msg: str
    code: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """
    Why a request was refused (RFC 9457).

    Attributes:
        type: Always `about:blank`.
        title: The phrase of *status*.
        detail: What is wrong, and the cure.
        code: The kind of problem, for programs.
        errors: Each wrong value, where there are such.
        request_id: Of this one request; the server's log names it too.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    errors: tuple[Fault, ...] = ()
    request_id: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """A problem before it is tied to a request: what an exception means to a caller."""

    status: int
    code: str
    detail: str
    errors: tuple[Fault, ...] = ()

    def problem(self, request_id: str) -> Problem:
        """The body that answers request *request_id*."""
        return Problem(
            title=TITLES.get(self.status, "Error"),
            status=self.status,
            detail=self.detail,
            code=self.code,
            errors=self.errors,
            request_id=request_id,
        )


class Refusal(Exception):
    """
    A refusal that only HTTP knows, such as a body that is too large.

    Attributes:
        status: 4xx, or 503 for what the operator has not set up.
        code: The kind of problem, for programs.
        where: The header or value that is to blame; empty for none.
        headers: Sent along.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        where: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.where = where
        self.headers = dict(headers or {})


def trouble(error: Exception) -> Trouble:
    """What *error* means to the caller. Unknown exceptions are a 500 that tells nothing."""
    match error:
        case Invalid():
            return _wrong_value(422, "invalid_input", error.where, error.reason)
        case Refusal():
            return _wrong_value(error.status, error.code, error.where, str(error))
        case InvalidInput():
            return _wrong_value(error.status_hint, _code(error), error.where, str(error))
        case GoodAnalyticsError() if error.status_hint < 500:
            return Trouble(error.status_hint, _code(error), str(error))
        case GoodAnalyticsError() if error.status_hint == 503:
            return Trouble(503, _code(error), (type(error).__doc__ or "").strip().split("\n")[0])
        case HTTPException():
            return Trouble(
                error.status_code,
                _CODES.get(error.status_code, "refused"),
                "Nothing lives at this path." if error.status_code == 404 else f"{error.detail}.",
            )
        case ClientDisconnect():
            return Trouble(400, "client_disconnected", "The body did not arrive.")
        case _:
            return Trouble(
                500, "internal_error", "Something failed here. It is logged under this request's id."
            )


def headers_for(error: Exception) -> dict[str, str]:
    """What an answer to *error* has to send along: `Retry-After`, `WWW-Authenticate`, `Allow`."""
    match error:
        case Busy():
            return {"Retry-After": str(error.retry_after)}
        case GoodAnalyticsError() if error.status_hint == 503:
            return {"Retry-After": "5"}
        case GoodAnalyticsError() if error.status_hint == 401:
            return {"WWW-Authenticate": 'Bearer realm="goodanalytics"'}
        case Refusal():
            return error.headers
        case HTTPException():
            return _sorted_allow(error.headers or {})
        case _:
            return {}


def is_ours(error: Exception) -> bool:
    """Whether *error* is to be reported to the operator, not only told to the caller."""
    match error:
        case Invalid() | Refusal() | HTTPException() | ClientDisconnect() | Busy():
            return False
        case GoodAnalyticsError():
            return error.status_hint >= 500
        case _:
            return True


def response(error: Exception, request_id: str) -> Response:
    """The answer to a request that ended in *error*."""
    told = trouble(error)
    return Response(
        msgspec.json.encode(told.problem(request_id)),
        told.status,
        {
            **headers_for(error),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Request-Id": request_id,
        },
        MEDIA_TYPE,
    )


def _wrong_value(status: int, code: str, where: str, reason: str) -> Trouble:
    if not where:
        return Trouble(status, code, reason)
    return Trouble(status, code, f"{where}: {reason}", (Fault(where, reason, code),))


def _code(error: Exception) -> str:
    return _CAPITAL.sub("_", type(error).__name__).lower()


def _sorted_allow(headers: Mapping[str, str]) -> dict[str, str]:
    # Starlette joins a set, whose order changes with each process.
    return {
        name: ", ".join(sorted(value.split(", "))) if name == "Allow" else value
        for name, value in headers.items()
    }
