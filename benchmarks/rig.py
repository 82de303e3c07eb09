"""
The machinery: one PostgreSQL, one uvicorn process per variant, wrk, and what each round cost.

The servers share one core, wrk and PostgreSQL the other, so that only the server is in the way of its own rate. All servers
run at once and are asked in turn. What runs here was started here, and is ended by its process id.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from benchmarks.cost import Meter, tree
from goodanalytics.embedded import EmbeddedPostgres
from goodanalytics.store import schema

HERE = Path(__file__).parent
SCHEMA = "good_analytics"
START_SECONDS = 60
TEMPLATE = "ours"
"""The database that those of our own variants are copied from: migrated once."""


@dataclass(frozen=True, slots=True)
class Sample:
    """
    One round of one measure.

    Attributes:
        rate: Answers a second; end to end: events a second.
        server, postgres: What one answer cost there, in the meter's unit.
        p50, p99: Microseconds, as wrk saw them.
    """

    rate: float
    server: float
    postgres: float
    p50: float
    p99: float

    @property
    def both(self) -> float:
        """The cost in server and PostgreSQL together."""
        return self.server + self.postgres


@dataclass(frozen=True, slots=True)
class Load:
    """
    What wrk does.

    Attributes:
        kind: beacon, page, link or first, as in `load.lua`.
        rate: Requests a second; 0 for as many as are answered.
        links: How many links are asked for, evenly.
    """

    kind: str
    path: str
    connections: int
    rate: float = 0.0
    links: int = 1


@dataclass(slots=True)
class Server:
    """A running variant."""

    name: str
    child: subprocess.Popen[str]
    log: Path
    core: int
    port: int = 0

    @property
    def pid(self) -> int:
        return self.child.pid

    def await_ready(self) -> None:
        """Return when it listens. Until then others can be started, too."""
        if self.port:
            return
        line = self.child.stdout.readline() if self.child.stdout else ""
        if not line.startswith("ready "):
            raise RuntimeError(f"the variant {self.name} did not start:\n{self.said()}")
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {self.core})
        self.port = int(line.split()[1])

    def said(self) -> str:
        """The end of what it wrote to its standard error."""
        return self.log.read_text(errors="replace")[-3_000:]

    @property
    def resident(self) -> int:
        """Resident memory in bytes."""
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


class WrkFailed(RuntimeError):
    """wrk was answered with errors, or did not run."""


@dataclass(slots=True)
class Rig:
    """
    Everything that runs, and how to ask it.

    Attributes:
        slice_seconds: How long one round of one measure lasts.
        servers: The variants by name.
    """

    slice_seconds: float
    postgres: EmbeddedPostgres
    meter: Meter
    cores: Sequence[int]
    loop: asyncio.Runner
    logs: Path
    servers: dict[str, Server] = field(default_factory=dict)
    _seeds: int = field(default=0)
    _made: set[str] = field(default_factory=set)
    _connections: dict[str, Any] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def start(
        self,
        name: str,
        app: str,
        *,
        ours: bool = False,
        prepare: Sequence[str] = (),
        under: Sequence[str] = (),
    ) -> Server:
        """
        Start the variant *name* with a database of its own, called the same.

        Args:
            app: `module:attribute` below `benchmarks`.
            ours: Whether our schema is wanted in its database.
            prepare: Statements that make what it needs.
            under: The command that runs it, where it is not run by itself.
        """
        if ours and TEMPLATE not in self._made:
            self._made.add(TEMPLATE)
            self.execute("postgres", f"CREATE DATABASE {TEMPLATE}")
            self.loop.run(self._migrate())
        self.execute("postgres", f"CREATE DATABASE {name}" + (f" TEMPLATE {TEMPLATE}" if ours else ""))
        for statement in prepare:
            self.execute(name, statement)
        log = self.logs / f"{name}.log"
        with log.open("wb") as written:
            child = subprocess.Popen(
                [*under, sys.executable, "-m", "benchmarks.serve", app],
                cwd=HERE.parent,
                env={
                    **{k: v for k, v in os.environ.items() if not k.startswith("GOODANALYTICS_")},
                    "BENCH_DATABASE": self.postgres.dsn(name),
                },
                stdout=subprocess.PIPE,
                stderr=written,
                text=True,
            )
        self._stack.callback(_end, child)
        os.sched_setaffinity(child.pid, set(self.cores))  # importing may use both
        server = self.servers[name] = Server(name, child, log, self.cores[0])
        return server

    def stop(self, name: str) -> None:
        """End the variant *name*."""
        _end(self.servers.pop(name).child)

    async def _migrate(self) -> None:
        engine = create_async_engine(self.postgres.url(TEMPLATE), poolclass=NullPool)
        await schema.migrate(engine, SCHEMA, now=datetime.now(UTC))
        await engine.dispose()

    # Questions to the database ---------------------------------------------------------------------------------------

    def execute(self, database: str, statement: str) -> None:
        """Run *statement* in *database*."""
        self.loop.run(self._ask("execute", database, statement))

    def ask(self, database: str, question: str) -> Any:
        """The first value of the first row."""
        return self.loop.run(self._ask("fetchval", database, question))

    async def _ask(self, verb: str, database: str, sql: str) -> Any:
        conn = self._connections.get(database)
        if conn is None:
            conn = self._connections[database] = await asyncpg.connect(self.postgres.dsn(database))
        return await getattr(conn, verb)(sql, timeout=START_SECONDS)

    def hang_up(self) -> None:
        """Close the connections of our own."""
        while self._connections:
            self._connections.popitem()[1].terminate()

    # Load ------------------------------------------------------------------------------------------------------------

    def begin(self, server: Server, load: Load, seconds: float) -> subprocess.Popen[str]:
        """Start wrk."""
        server.await_ready()
        self._seeds += 1
        seed = (os.getpid() * 4_096 + self._seeds) % 2**31
        return subprocess.Popen(
            [
                *("wrk", "-t1", f"-c{load.connections}", f"-d{max(1, round(seconds))}s", "--timeout=20s"),
                *("-s", str(HERE / "load.lua"), f"http://127.0.0.1:{server.port}{load.path}"),
                *("--", load.kind, str(seed), str(load.rate), str(load.links)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, wrk: subprocess.Popen[str], name: str, seconds: float) -> tuple[int, float, int, int]:
        """Requests, seconds, p50 and p99 (microseconds) of a run of wrk that was begun."""
        try:
            output, _ = wrk.communicate(timeout=seconds + 30)
        except subprocess.TimeoutExpired:
            wrk.kill()
            output, _ = wrk.communicate()
        line = next((x for x in output.splitlines() if x.startswith("RESULT ")), None)
        if line is None:
            raise WrkFailed(f"wrk against {name} printed no result:\n{output}")
        requests, duration, p50, p99, refused, broken = map(int, line.split()[1:])
        if refused or broken or not requests:
            raise WrkFailed(
                f"{name}: of {requests} requests {refused} were answered with an error and {broken} not at all; "
                f"a rate of errors is no rate. The servers said:\n"
                + "\n".join(server.said() for server in self.servers.values())
            )
        return requests, duration / 1e6, p50, p99

    def drive(self, name: str, load: Load, seconds: float | None = None) -> Sample:
        """One round against the variant *name*."""
        seconds = self.slice_seconds if seconds is None else seconds
        server = self.servers[name]
        server.await_ready()
        with self.meter.measuring(server.pid) as cost:
            wrk = self.begin(server, load, seconds)
            requests, took, p50, p99 = self.finish(wrk, name, seconds)
        return Sample(requests / took, cost.server / requests, cost.postgres / requests, p50, p99)


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def two_cores() -> tuple[int, int]:
    """The core of the servers and the core of everything else; the same one where there is only one."""
    free = sorted(os.sched_getaffinity(0))
    return free[0], free[min(1, len(free) - 1)]


@contextmanager
def a_rig(slice_seconds: float) -> Iterator[Rig]:
    """A rig without servers; everything is ended and removed at the end."""
    cores = two_cores()
    own_cores = os.sched_getaffinity(0)
    # Not below a private directory: under root the server runs as an unprivileged user.
    parent = Path(tempfile.mkdtemp(prefix="goodanalytics-bench-"))
    parent.chmod(0o711)
    try:
        os.sched_setaffinity(0, {cores[1]})  # inherited by wrk and PostgreSQL
        with (
            asyncio.Runner() as loop,
            EmbeddedPostgres(parent / "data", settings={"max_connections": "400"}) as postgres,
            ExitStack() as stack,
        ):
            postmaster = int((parent / "data" / "pg" / "postmaster.pid").read_text().split("\n", 1)[0])
            for pid in tree(postmaster):
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(pid, {cores[1]})
            meter = Meter(postmaster)
            rig = Rig(slice_seconds, postgres, meter, cores, loop, parent, _stack=stack)
            try:
                yield rig
            finally:
                for server in rig.servers.values():
                    server.child.terminate()  # all at once; each is waited for below
                rig.hang_up()
    finally:
        os.sched_setaffinity(0, own_cores)
        shutil.rmtree(parent, ignore_errors=True)
