"""
`/links/export` and `/links/import`: everything about links as a file, out of here and in.

Rules of this file
1. A file is the body as it is, not a form; what kind of file it is shows at its beginning. It is bounded while it arrives.
2. What is wrong with the file as a whole is 400, and nothing of it is kept. What is wrong with a row is told in the report beside
   what became of its neighbours.
3. A file leaves without the digests of passwords: with them it is as secret as a key, and the command line writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from starlette.responses import Response

from goodanalytics.core.bounds import MAX_TEXT
from goodanalytics.core.moving_files import FileFormat
from goodanalytics.errors import InvalidBody, InvalidInput
from goodanalytics.moving import Report
from goodanalytics.web.api.operations import Answer, Call, Operation, answer, read_file, read_query
from goodanalytics.web.downloads import MEDIA_TYPES, download

MAX_FILE: Final = 8 * 1024 * 1024
"""Bytes of a file, some 40,000 links; the command line takes more."""

READ: Final = (*MEDIA_TYPES.values(), "application/octet-stream", "text/plain")
"""What a body may claim to be; nothing is made of the difference."""


class ExportQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the file is written."""

    format: Annotated[
        FileFormat,
        Meta(description="JSON lines, one JSON list, or CSV, which holds the links only."),
    ] = "jsonl"


class ImportQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from"}):
    """Whose file it is, and what is to be done with it."""

    source: Annotated[
        Literal["goodanalytics", "bitly", "dub", "kutt", "rebrandly", "shlink", "shortio", "yourls"],
        Meta(description="Whose export the body is."),
    ]
    dry_run: Annotated[bool, Meta(description="Only tell what would become of each row.")] = False
    domain: (
        Annotated[
            str,
            Meta(
                max_length=MAX_TEXT,
                description="The host that all links get; each keeps its own when left out.",
            ),
        ]
        | None
    ) = None
    encoding: Annotated[
        Literal["utf-8", "utf-16", "windows-1252", "iso-8859-1"],
        Meta(description="What a spreadsheet saved the file as."),
    ] = "utf-8"


async def export(call: Call) -> Response:
    """Everything about links as a file."""
    kind = read_query(call.request, ExportQuery).format
    return await download(call.room.links.export(kind, workspace_id=call.workspace_id), kind, call.now)


async def import_(call: Call) -> Response:
    """Bring in the links of a file."""
    query = read_query(call.request, ImportQuery)
    data = await read_file(call.request, READ, MAX_FILE)
    try:
        report = await call.room.links.import_(
            data, query.source, domain=query.domain, dry_run=query.dry_run, encoding=query.encoding,
            actor=call.principal.name or None, workspace_id=call.workspace_id,
        )  # fmt: skip
    except InvalidInput as error:
        raise InvalidBody(str(error)) if error.where == "file" else error from None
    return answer(report)


OPERATIONS: Sequence[Operation] = (
    Operation(
        method="GET",
        path="/links/export",
        name="exportLinks",
        summary="Take out all links",
        description=(
            "All links, archived ones too, partners with their terms, domains with their settings. Each row says its `kind`; the "
            'first is `{"kind": "goodanalytics", "version": 1}`. Passwords and clicks are not in it.'
        ),
        respond=export,
        query=ExportQuery,
        answers={200: Answer("The file.", None, tuple(MEDIA_TYPES.values()))},
    ),
    Operation(
        method="POST",
        path="/links/import",
        name="importLinks",
        summary="Bring in the links of a file",
        description=(
            "The body is the file that another shortener, or this one, exported. Every row that was changed or refused is told with "
            "its reason; a second time changes nothing, so a call that broke off is simply made again."
        ),
        respond=import_,
        query=ImportQuery,
        file=READ,
        answers={200: Answer("What became of the file, row by row.", Report)},
        problems={
            400: "The file as a whole cannot be read, or is not what it is said to be. Nothing is written.",
            413: f"The file is larger than {MAX_FILE:,} bytes. Split it, or use the command line.",
        },
    ),
)
