"""Files that leave in pieces, while they are read from the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Final

from starlette.responses import Response, StreamingResponse

from goodanalytics.core.moving_files import FileFormat

MEDIA_TYPES: Final[Mapping[FileFormat, str]] = {
    "jsonl": "application/x-ndjson",
    "json": "application/json",
    "csv": "text/csv",
}


async def download(pieces: AsyncIterator[bytes], kind: FileFormat, now: datetime) -> Response:
    """
    The file of all links that *pieces* make, under a name with the day of *now*.

    Its beginning is read before the answer begins, so that a database that is away is still a refusal. When it goes away later the
    connection breaks, and no client takes the file for whole.
    """
    begun = [await anext(pieces), await anext(pieces, b"")]

    async def whole() -> AsyncIterator[bytes]:
        for piece in begun:
            yield piece
        async for piece in pieces:
            yield piece

    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="links-{now:%Y-%m-%d}.{kind}"',
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(whole(), headers=headers, media_type=MEDIA_TYPES[kind])


__all__ = ["MEDIA_TYPES", "download"]
