"""
`/platforms…`: which ad platforms a workspace tells of its conversions, and with which credentials.

Rules of this file
1. A credential goes in and never comes out: answers have names and times, and no refusal repeats a value.
2. A platform that the settings do not have is an unknown path.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from starlette.responses import Response

from goodanalytics.core.bounds import MAX_BODY
from goodanalytics.errors import InvalidInput, NotFound
from goodanalytics.facade.platforms import LONGEST_SECRET, PlatformStatus
from goodanalytics.platforms import Platform, Status
from goodanalytics.platforms.known import Trial, trial_of
from goodanalytics.web.api.dispatches import actor_of
from goodanalytics.web.api.operations import Answer, Call, Operation, answer, page, read_json, read_query
from goodanalytics.web.api.visitors import PageOf

UNKNOWN: Final = "There is no such platform in the settings."
MOST_NAMES: Final = 20

Name = Annotated[str, Meta(min_length=1, max_length=64)]
Code = Annotated[
    str, Meta(max_length=200, description="What the platform's own test page shows; some need none.")
]
Secret = Annotated[str, Meta(min_length=1, max_length=LONGEST_SECRET)]


class SwitchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a platform is told of conversions."""

    enabled: bool
    test_code: Annotated[Code, Meta(description="Send everything in test mode.")] | None = None
    recall: Annotated[bool, Meta(description="When switching off: also drop what is queued.")] = False


class CredentialsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Credentials by name. They are encrypted, and nothing gives them out again."""

    credentials: Annotated[dict[Name, Secret], Meta(min_length=1, max_length=MOST_NAMES)]


class CredentialQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which credential is deleted."""

    name: Annotated[Name, Meta(description="All of the platform when left out.")] | None = None


class TestBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a platform is tried out."""

    code: Code = ""


class PlatformAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A platform as it stands in this workspace."""

    name: str
    enabled: bool
    trial: Annotated[Trial, Meta(description="Whether it has a test mode, and whether that takes a code.")]
    test_code: Annotated[str | None, Meta(description="With which everything is sent in test mode.")]
    paused_reason: Annotated[str | None, Meta(description="Why nothing goes out, while nothing does.")]
    paused_until: Annotated[
        datetime | None, Meta(description="Null with a reason: until a credential is stored.")
    ]
    credentials: Annotated[dict[str, datetime], Meta(description="Names of what is stored, and since when.")]
    missing: Annotated[list[str], Meta(description="Names of what is needed too.")]
    dispatches: Annotated[dict[str, int], Meta(description="How many are in which state.")]
    version: Annotated[str, Meta(description="Of the platform's API.")]
    notice: Annotated[str | None, Meta(description="What to do about that version.")]


class PlatformList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The platforms of the settings."""

    data: list[PlatformAnswer]
    page: PageOf


class DeletedAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many credentials were deleted."""

    deleted: int


class VerdictAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was said of an invented sale, or of a notice of nothing."""

    status: Status
    code: str
    message: str


async def list_platforms(call: Call) -> Response:
    """All platforms of the settings."""
    found = await call.room.platforms.list(workspace_id=call.workspace_id)
    return answer(page([_told(call, status) for status in found], None))


async def get(call: Call) -> Response:
    """One of them."""
    return await _answered(call, _name(call))


async def switch(call: Call) -> Response:
    """Switch it on or off."""
    name = _name(call)
    body = await read_json(call.request, SwitchBody, MAX_BODY)
    who: Any = {"actor": actor_of(call), "workspace_id": call.workspace_id}
    if body.enabled:
        if body.recall:
            raise InvalidInput("goes with enabled=false; leave it out", where="recall")
        await call.room.platforms.enable(name, test_code=body.test_code, **who)
    else:
        if body.test_code is not None:
            raise InvalidInput("goes with enabled=true; leave it out", where="test_code")
        await call.room.platforms.disable(name, recall=body.recall, **who)
    return await _answered(call, name)


async def store(call: Call) -> Response:
    """Keep credentials."""
    name = _name(call)
    body = await read_json(call.request, CredentialsBody, MAX_BODY)
    await call.room.platforms.store_credentials(
        name, body.credentials, actor=actor_of(call), workspace_id=call.workspace_id
    )
    return await _answered(call, name)


async def drop(call: Call) -> Response:
    """Delete credentials."""
    name = _name(call)
    query = read_query(call.request, CredentialQuery)
    deleted = await call.room.platforms.drop_credentials(
        name, None if query.name is None else [query.name], actor=actor_of(call), workspace_id=call.workspace_id
    )  # fmt: skip
    return answer({"deleted": deleted})


async def test(call: Call) -> Response:
    """Send an invented sale in test mode."""
    name = _name(call)
    body = await read_json(call.request, TestBody, MAX_BODY)
    verdict = await call.room.platforms.test(name, body.code, workspace_id=call.workspace_id)
    return answer(VerdictAnswer(verdict.status, verdict.code, verdict.message))


def _name(call: Call) -> str:
    """
    The platform in the path.

    Raises:
        NotFound: The settings have no such platform.
    """
    return _platform(call, call.request.path_params["platform"]).name


def _platform(call: Call, name: str) -> Platform:
    for platform in call.room.config.platforms:
        if platform.name == name:
            return platform
    raise NotFound(UNKNOWN)


async def _answered(call: Call, name: str) -> Response:
    found = await call.room.platforms.list(workspace_id=call.workspace_id)
    return answer(_told(call, next(status for status in found if status.name == name)))


def _told(call: Call, status: PlatformStatus) -> PlatformAnswer:
    return PlatformAnswer(
        name=status.name,
        enabled=status.enabled,
        trial=trial_of(_platform(call, status.name)),
        test_code=status.test_code,
        paused_reason=status.paused_reason,
        paused_until=status.paused_until,
        credentials=dict(status.credentials),
        missing=list(status.missing),
        dispatches=dict(status.dispatches),
        version=status.version,
        notice=status.notice,
    )


_BY_NAME: dict[str, Any] = {"platform": str}
_UNKNOWN = {404: UNKNOWN}

OPERATIONS = (
    Operation(
        method="GET",
        path="/platforms",
        name="listPlatforms",
        summary="List ad platforms",
        respond=list_platforms,
        answers={200: Answer("The platforms, as they stand in this workspace.", PlatformList)},
    ),
    Operation(
        method="GET",
        path="/platforms/{platform}",
        name="getPlatform",
        summary="Get an ad platform",
        respond=get,
        path_types=_BY_NAME,
        answers={200: Answer("The platform.", PlatformAnswer)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="PUT",
        path="/platforms/{platform}",
        name="switchPlatform",
        summary="Switch an ad platform on or off",
        description=(
            "Off holds from the next request on; what is queued waits until it is on again, while it is young enough."
        ),
        respond=switch,
        path_types=_BY_NAME,
        body=SwitchBody,
        example={"enabled": True},
        answers={200: Answer("The platform as it now is.", PlatformAnswer)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="PUT",
        path="/platforms/{platform}/credentials",
        name="storeCredentials",
        summary="Store credentials",
        description=(
            "In place of those of the same names. What waited for them goes out. They are encrypted and never shown again."
        ),
        respond=store,
        path_types=_BY_NAME,
        body=CredentialsBody,
        example={"credentials": {"access_token": "…", "pixel_id": "1234567890"}},
        answers={200: Answer("The platform as it now is, without any value.", PlatformAnswer)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="DELETE",
        path="/platforms/{platform}/credentials",
        name="deleteCredentials",
        summary="Delete credentials",
        respond=drop,
        path_types=_BY_NAME,
        query=CredentialQuery,
        answers={200: Answer("How many those were.", DeletedAnswer)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="POST",
        path="/platforms/{platform}/test",
        name="testPlatform",
        summary="Try an ad platform out",
        description="Sends an invented sale in the platform's test mode. Nothing is kept, and nothing counts.",
        respond=test,
        path_types=_BY_NAME,
        body=TestBody,
        example={"code": "TEST12345"},
        answers={200: Answer("What the platform said.", VerdictAnswer)},
        problems={**_UNKNOWN, 409: "Credentials are missing."},
    ),
)
