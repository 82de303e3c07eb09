"""What `goodanalytics links` shows: a progress bar on stderr, and on stdout a report, one JSON object, or the file itself."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from typing import IO
from uuid import UUID

import click

from goodanalytics.config import Config
from goodanalytics.core.moving_files import MAX_BYTES, FileFormat
from goodanalytics.core.moving_own import OWN
from goodanalytics.moving import Note, Report, bring, take_out
from goodanalytics.store.database import Database

MOST_SHOWN = 50
"""Rows of each kind that a person is shown; a program gets them all."""


async def bring_in(
    database: Database,
    config: Config,
    file: IO[bytes],
    source: str,
    *,
    domain: str | None,
    encoding: str,
    workspace_id: UUID | None,
    dry_run: bool,
    is_json: bool,
) -> None:
    """Bring in the links of *file*, and say what became of each."""
    reports = bring(
        config, database, file.read(MAX_BYTES + 1), source,
        domain=domain, dry_run=dry_run, encoding=encoding, workspace_id=workspace_id, actor="links import",
    )  # fmt: skip
    report = await _followed(reports, is_json=is_json)
    if is_json:
        click.echo(json.dumps(report.to_json()))
        return
    for line in told(report):
        click.echo(line)


async def write_out(
    database: Database, file: IO[bytes], kind: FileFormat, *, workspace_id: UUID, passwords: bool
) -> None:
    """Write all links to *file*."""
    async for piece in take_out(database, workspace_id, kind, passwords=passwords):
        file.write(piece)
    file.flush()


def told(report: Report) -> list[str]:
    """*report* in words, the worst last, where a terminal shows it."""
    would, be = ("Would bring", "would be") if report.is_dry_run else ("Brought", "were")
    lines = [f"Note: {note}." for note in report.notes]
    if report.left_out:
        lines.append(f"Left out on purpose: {', '.join(report.left_out)}.")
    if report.unknown_columns:
        lines.append(
            f"Columns that mean nothing here and {be} left out: {', '.join(report.unknown_columns)}."
        )
    lines += _rows("Changed", report.changed) + _rows("Refused", report.refused)
    changed = len({note.row for note in report.changed})
    if report.domains or report.partners:
        lines.append(
            f"{would} in the settings of {report.domains:,} domains, and {report.partners:,} partners."
        )
    of = f"{report.total:,} {'rows as links' if report.source == OWN else 'links'}"
    lines.append(
        f"{would} in {report.created:,} of {of}, {changed:,} of them changed; {report.already:,} were here "
        f"already; {len(report.refused):,} {be} refused."
    )
    return lines


def _rows(title: str, notes: Sequence[Note]) -> list[str]:
    lines = [f"{title}: row {note.row}  {note.address}  {note.text}" for note in notes[:MOST_SHOWN]]
    if len(notes) > MOST_SHOWN:
        lines.append(f"{title}: {len(notes) - MOST_SHOWN:,} more; --json shows them all")
    return lines


async def _followed(reports: AsyncIterator[Report], *, is_json: bool) -> Report:
    """Go through *reports* with a bar, unless the answer is for a program; the last of them."""
    report = await anext(reports)
    if is_json:
        return [report, *[one async for one in reports]][-1]
    with click.progressbar(length=report.total, label="Bringing links in", file=sys.stderr) as bar:
        async for report in reports:
            bar.update(report.done - bar.pos)
    return report
