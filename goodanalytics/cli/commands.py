"""The command line: `goodanalytics …`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Literal
from uuid import UUID

import click

from goodanalytics.cli import platforms as cli_platforms
from goodanalytics.cli import webhooks as cli_webhooks
from goodanalytics.cli.opening import app_option, opened
from goodanalytics.cli.opening import database_option as _database
from goodanalytics.cli.opening import from_environment as _analytics
from goodanalytics.cli.opening import needed as _needed
from goodanalytics.cli.opening import run as _run
from goodanalytics.cli.opening import schema_option as _schema
from goodanalytics.errors import ConfigError, GoodAnalyticsError
from goodanalytics.version import __version__


class _Group(click.Group):
    """Our own errors end a command with their message, without a trace."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GoodAnalyticsError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="goodanalytics")
def main() -> None:
    """First-party analytics, short links and attribution inside your own app and PostgreSQL."""


main.add_command(cli_platforms.platforms)
main.add_command(cli_webhooks.webhooks)


_data = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".data"),
    show_default=True,
    help="Where the embedded PostgreSQL keeps its files.",
)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="Port to listen on; 0 picks a free one.",
)
@_data
@click.option(
    "--days", default=60, show_default=True, type=click.IntRange(1, 400), help="Days of history to make up."
)
@click.option(
    "--visitors",
    default=1_500,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="People in that history.",
)
@click.option("--seed", default=7, show_default=True, help="The same seed makes the same history.")
@click.option("--fresh", is_flag=True, help="Throw the demo's data away first.")
def demo(host: str, port: int, data: Path, days: int, visitors: int, seed: int, fresh: bool) -> None:
    """Show everything: a sample shop with history, short links and the dashboard, on an embedded PostgreSQL."""
    from goodanalytics.demo import stage  # noqa: PLC0415  # only this command needs it

    with contextlib.suppress(KeyboardInterrupt):  # how a demo ends
        asyncio.run(
            stage.run(
                host=host,
                port=port,
                data=data / "demo",
                days=days,
                visitors=visitors,
                seed=seed,
                fresh=fresh,
                say=click.echo,
            )
        )
    click.echo("\nStopped. Nothing is left running.")


@main.command()
@_database
@_schema
@click.option("--sql", is_flag=True, help="Print the SQL instead of running it.")
def migrate(database: str | None, schema: str, *, sql: bool) -> None:
    """Bring the tables up to this version."""
    from goodanalytics.config import utc_now  # noqa: PLC0415
    from goodanalytics.store import schema as schemas  # noqa: PLC0415
    from goodanalytics.store.tables import SCHEMA_VERSION  # noqa: PLC0415

    if sql:
        click.echo(schemas.offline_sql(schema, now=utc_now()))
        return

    async def work() -> None:
        analytics = _analytics(_needed(database), schema=schema)
        await analytics.migrate()
        await analytics.stop()
        click.echo(f"The tables in schema {schema} are of version {SCHEMA_VERSION}.")

    _run(work())


@main.command()
@_database
@_schema
@app_option
@click.option("--once", is_flag=True, help="Stop when the log is empty and what is due has been delivered.")
def worker(database: str | None, schema: str, app: str | None, *, once: bool) -> None:
    """
    Process the log and deliver conversions, in a process of its own.

    It works whatever GOODANALYTICS_WORKER says to the app. With --app it has the app's own hooks, rules and platforms; without,
    it needs GOODANALYTICS_SECRET_KEY, the app's own.
    """
    by_another_key = "by another key who was forgotten would not be known again, and what is queued could not be read by anybody"

    async def work() -> None:
        async with opened(database, schema, app, reason=by_another_key) as analytics:
            # With --once nobody else in this process may take hits: whoever drains could not tell how many those were.
            await analytics.start(worker=not once)
            if once:
                click.echo(f"Processed {await analytics.drain()} hits.")
                if settled := await analytics.dispatcher.deliver_due():
                    click.echo(f"Settled {settled} dispatches.")
                return
            click.echo("Processing the log. Ctrl-C stops after the batch at hand.")
            await _until_stopped()

    _run(work())


_DOCTORS_PATIENCE = timedelta(seconds=20)
"""A large log on a cold disk is counted within it."""


@main.command()
@_database
@_schema
@app_option
@click.option(
    "--spool",
    type=click.Path(path_type=Path),
    help="Where the app keeps hits while the database is away; by default where an app of this user would.",
)
def doctor(database: str | None, schema: str, app: str | None, spool: Path | None) -> None:
    """Say what is wrong, and how to mend it."""
    from goodanalytics.log import spool_contents  # noqa: PLC0415
    from goodanalytics.log.spool import place_of  # noqa: PLC0415
    from goodanalytics.store import health, health_outbox  # noqa: PLC0415

    async def work() -> list[health.Finding]:
        async with opened(database, schema, app) as analytics:
            now, place = analytics.config.clock(), spool or place_of(analytics.config)
            found = await health.examine(analytics.database, now, _DOCTORS_PATIENCE)
            if all(finding.level != "wrong" for finding in found):
                found += await health_outbox.examine(analytics.database, analytics.config.platforms, now)
        return found + (spool_contents.findings(place, now) if place is not None else [])

    findings = _run(work())
    for finding in findings:
        click.echo(f"{finding.level:8} {finding.text}")
    if any(finding.level == "wrong" for finding in findings):
        sys.exit(1)


@main.command()
@_database
@_schema
@app_option
@click.option("--list", "is_list", is_flag=True, help="Only show what is set aside, oldest first.")
@click.option(
    "--reclassify", is_flag=True, help="Judge recorded visitors again by today's rules of what is a bot."
)
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="With --reclassify: only events from this time on, UTC.",
)
@click.option("--json", "is_json", is_flag=True, help="Print JSON, and no progress bar.")
def replay(
    database: str | None,
    schema: str,
    app: str | None,
    *,
    is_list: bool,
    reclassify: bool,
    since: datetime | None,
    is_json: bool,
) -> None:
    """
    Put hits that could not be processed back into the log.

    The worker takes them again; those that fail once more are set aside with their new error.

    With --reclassify, history is corrected to what today's rules would have made of it. Run it after every process has
    the new rules, with --app, or with the app's own GOODANALYTICS_OWN_HOSTS and GOODANALYTICS_SESSION_TIMEOUT. It can be
    stopped and started again.
    """
    if is_list and reclassify:
        raise click.UsageError("--list and --reclassify do not go together; use one")
    if since is not None and not reclassify:
        raise click.UsageError("--since says from when on to reclassify; add --reclassify")
    from goodanalytics.cli import replay as cli_replay  # noqa: PLC0415
    from goodanalytics.store import schema as schemas  # noqa: PLC0415

    async def work() -> None:
        async with opened(database, schema, app) as analytics:
            await schemas.check(analytics.database)
            if is_list:
                await cli_replay.show_rejected(analytics.database, is_json=is_json)
            elif reclassify:
                from_then = None if since is None else since.replace(tzinfo=UTC)
                await cli_replay.reclassify(
                    analytics.database, analytics.config, since=from_then, is_json=is_json
                )
            else:
                await cli_replay.put_back(analytics.database, is_json=is_json)

    _run(work())


@main.command()
@_database
@_schema
@click.argument("visitor")
@click.option("--reason", required=True, help="Why, for the audit. Name nobody in it.")
@click.option("--actor", default="command line", show_default=True, help="Who asks, for the audit.")
@click.option(
    "--workspace", type=click.UUID, help="The visitor's workspace; the configured one when left out."
)
@click.option("--yes", is_flag=True, help="Do not ask before.")
@click.option("--json", "is_json", is_flag=True, help="Print JSON.")
def forget(
    database: str | None,
    schema: str,
    visitor: str,
    *,
    reason: str,
    actor: str,
    workspace: UUID | None,
    yes: bool,
    is_json: bool,
) -> None:
    """
    Erase VISITOR, by its id: all browsers of the person, and all that they did.

    Needs GOODANALYTICS_SECRET_KEY, the app's own: by it the person's cookies are recognised and dropped from then on.
    """
    if not os.environ.get("GOODANALYTICS_SECRET_KEY"):
        raise ConfigError(
            "GOODANALYTICS_SECRET_KEY is not set; without the app's own key the cookie would bring them back"
        )
    if not yes:
        click.confirm(f"Erase {visitor} for ever?", abort=True, err=True)

    async def work() -> None:
        analytics = _analytics(_needed(database), schema=schema)
        try:
            gone = await analytics.visitors.forget(
                visitor, reason=reason, actor=actor, workspace_id=workspace
            )
        finally:
            await analytics.stop()
        told = gone.to_json()
        click.echo(
            json.dumps(told)
            if is_json
            else f"Erased {gone.visitor_id}: {gone.visitors} visitors, {gone.events} events, {gone.sessions} visits, "
            f"{gone.hits} hits that were waiting. {gone.tombstones} values are dropped from now on."
        )

    _run(work())


@main.group()
def links() -> None:
    """Bring short links in from elsewhere, and write them out."""


_workspace = click.option(
    "--workspace", type=click.UUID, help="The links' workspace; the configured one when left out."
)


@links.command("import")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--from",
    "source",
    required=True,
    type=click.Choice(["goodanalytics", "bitly", "dub", "kutt", "rebrandly", "shlink", "shortio", "yourls"]),
    help="Whose export FILE is.",
)
@click.option("--domain", help="The host that all links get; each keeps its own when left out.")
@click.option("--dry-run", is_flag=True, help="Only say what would become of each link.")
@click.option(
    "--encoding",
    type=click.Choice(["utf-8", "utf-16", "windows-1252", "iso-8859-1"]),
    default="utf-8",
    show_default=True,
    help="What a spreadsheet saved FILE as.",
)
@_database
@_schema
@_workspace
@click.option("--json", "is_json", is_flag=True, help="Print JSON, and no progress bar.")
def import_links(
    file: IO[bytes],
    source: str,
    domain: str | None,
    encoding: str,
    database: str | None,
    schema: str,
    workspace: UUID | None,
    *,
    dry_run: bool,
    is_json: bool,
) -> None:
    """
    Bring in the links of FILE, the CSV or JSON that another shortener exported; - is the standard input.

    Keys, destinations, titles, tags, dates and limits are kept, counted clicks in the metadata. Each row that was changed or refused is
    named with its reason. A second run changes nothing, so it can be stopped and started again.
    """
    from goodanalytics.cli import links as cli_links  # noqa: PLC0415

    async def work() -> None:
        analytics = _analytics(_needed(database), schema=schema)
        try:
            await cli_links.bring_in(
                analytics.database, analytics.config, file, source,
                domain=domain, encoding=encoding, workspace_id=workspace, dry_run=dry_run, is_json=is_json,
            )  # fmt: skip
        finally:
            await analytics.stop()

    _run(work())


@links.command("export")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["jsonl", "json", "csv"]),
    default="jsonl",
    show_default=True,
    help="JSON lines, one JSON list, or CSV.",
)
@click.option("--output", default="-", show_default=True, help="The file to write; - is the standard output.")
@click.option(
    "--with-passwords",
    is_flag=True,
    help="Write the digests of passwords too. Without them, links with a password are not read back.",
)
@_database
@_schema
@_workspace
def export_links(
    kind: Literal["jsonl", "json", "csv"],
    output: str,
    database: str | None,
    schema: str,
    workspace: UUID | None,
    *,
    with_passwords: bool,
) -> None:
    """
    Write all links, archived ones too, partners and domains; `links import --from goodanalytics` reads it back.

    CSV holds the links only. Clicks are events of visitors, and no part of it.
    """
    from goodanalytics.cli import links as cli_links  # noqa: PLC0415

    if with_passwords and output != "-":  # as secret as the passwords are to somebody with time
        Path(output).touch(0o600)
        Path(output).chmod(0o600)

    async def work() -> None:
        analytics = _analytics(_needed(database), schema=schema)
        try:
            with click.open_file(output, "wb", atomic=output != "-") as file:
                await cli_links.write_out(
                    analytics.database, file, kind,
                    workspace_id=workspace or analytics.config.workspace, passwords=with_passwords,
                )  # fmt: skip
        finally:
            await analytics.stop()

    _run(work())


async def _until_stopped() -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows has no such handlers; Ctrl-C raises there
            loop.add_signal_handler(number, stopped.set)
    await stopped.wait()


if __name__ == "__main__":
    main()
