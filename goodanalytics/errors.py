"""
The error tree. Every error names the thing, the value and the cure, and carries the HTTP status that it would answer.

    GoodAnalyticsError (500)
    ├─ ConfigError (500)            a setting is wrong; the start stops
    ├─ SchemaError (503)            the tables are missing, too old, too new or somebody else's
    ├─ DatabaseUnavailable (503)    nothing answers at the database's address
    ├─ EmbeddedError (500)          the embedded PostgreSQL cannot start
    ├─ InvalidInput (422)           a caller's value is out of its bounds
    │  └─ InvalidBody (400)         an HTTP body cannot be read; says where
    ├─ NotFound (404)               no such visitor, link, …, in this workspace
    ├─ Conflict (409)               the value is taken, or the key was used with another body
    ├─ Unauthorized (401)           no credential, or a wrong one
    ├─ Forbidden (403)              a right credential that may not do this
    └─ Busy (503)                   more work is in flight than we promise to keep; try again

A class's docstring is its default message.
"""

from __future__ import annotations

from typing import ClassVar


class GoodAnalyticsError(Exception):
    """Something in goodanalytics went wrong."""

    status_hint: ClassVar[int] = 500

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class ConfigError(GoodAnalyticsError):
    """A setting of goodanalytics is wrong."""


class SchemaError(GoodAnalyticsError):
    """The tables of goodanalytics do not match this version. Run `goodanalytics migrate`."""

    status_hint = 503


class DatabaseUnavailable(GoodAnalyticsError):
    """The database does not answer."""

    status_hint = 503


class EmbeddedError(GoodAnalyticsError):
    """The embedded PostgreSQL cannot start."""


class InvalidInput(GoodAnalyticsError):
    """
    A value is out of its bounds.

    Attributes:
        where: Path to the value, such as `properties.plan` or `[3].url`; empty for the whole.
    """

    status_hint = 422

    def __init__(self, message: str | None = None, *, where: str = "") -> None:
        super().__init__(message)
        self.where = where


class InvalidBody(InvalidInput):
    """The body cannot be read."""

    status_hint = 400


class NotFound(GoodAnalyticsError):
    """There is no such thing in this workspace."""

    status_hint = 404


class Conflict(GoodAnalyticsError):
    """The value is taken."""

    status_hint = 409


class Unauthorized(GoodAnalyticsError):
    """A credential is needed: send `Authorization: Bearer …` or `X-Api-Key: …`."""

    status_hint = 401


class Forbidden(GoodAnalyticsError):
    """This credential may not do that."""

    status_hint = 403


class Busy(GoodAnalyticsError):
    """
    More hits are waiting than can be kept safe in memory.

    Attributes:
        retry_after: Seconds after which another try makes sense.
    """

    status_hint = 503

    def __init__(self, message: str | None = None, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after
