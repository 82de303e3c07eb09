"""
PostgreSQL inside the application: for demos, tests and small sites on one host.

`EmbeddedPostgres(directory)` starts a server on first use, shares it between processes, and lets it stop within seconds
once the last process that holds it is gone, even by SIGKILL. How that is known: `embedded_supervisor`.

* Everything lives in the directory: `pg/` (the cluster), `server.log`, three lock files; only where root starts a server
  whose user cannot enter the directory, `pg` is a link (`embedded_places`). A new major version of PostgreSQL needs a
  dump and a restore; this module refuses and says so.
* The server listens on a Unix socket only, in a directory that only its user and root can enter. How a root process
  runs a server that refuses to run as root, and why no password is asked: `embedded_cluster`.
* Everything here blocks, for about a second at the first start: inside an event loop call it in `asyncio.to_thread`.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from goodanalytics import embedded_cluster as cluster
from goodanalytics.embedded_cluster import find_binaries
from goodanalytics.errors import EmbeddedError

if sys.platform != "win32":
    import fcntl

    from goodanalytics import embedded_places as places
    from goodanalytics import embedded_supervisor as supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("EmbeddedPostgres", "find_binaries")

PORT = 5432  # only part of the socket's file name
START_SECONDS = 120.0
# After a last release the supervisor needs one poll and a checkpoint; a larger one is not worth a blocked exit.
RELEASE_SECONDS = 10.0
SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "listen_addresses": "",
        "port": str(PORT),
        "max_connections": "100",
        "shared_buffers": "64MB",
        "jit": "off",  # compiling costs more than our short queries
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",
        "logging_collector": "off",
    }
)
UNSAFE_SETTINGS: Mapping[str, str] = MappingProxyType(
    {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
)
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})

logger = logging.getLogger("goodanalytics")


class EmbeddedPostgres:
    """
    A hold on the PostgreSQL server of one directory; a context manager, or `start()` and `stop()`.

    Any number of processes, and any number of these objects in one process, may hold the same server. A hold ends with
    `stop()` or with the process; a process forked from this one without exec shares the hold until it ends, too.

    Args:
        data: Directory of the server's own; made when it is missing. Its content outlives the server.
        binaries: Directory of `postgres`, `initdb` and `psql`; by default what `find_binaries()` finds.
        fsync: `False` is for tests: faster, and a killed server loses its last commits, a power cut maybe everything.
        settings: Server settings (`postgresql.conf` names) above ours; those of the process that starts the server count.

    Raises:
        EmbeddedError: On Windows, which is not supported yet.
    """

    def __init__(
        self,
        data: Path,
        *,
        binaries: Path | None = None,
        fsync: bool = True,
        settings: Mapping[str, str] = NO_SETTINGS,
    ) -> None:
        if sys.platform == "win32":
            raise EmbeddedError(
                "The embedded PostgreSQL does not run on Windows yet. Try: install a PostgreSQL server and give its URL"
            )
        self._data = Path(data).resolve()
        self._chosen_binaries = binaries
        self._fsync = fsync
        self._settings = dict(settings)
        self._pid_file = self._data / cluster.CLUSTER / "postmaster.pid"
        self._programs = Path()
        self._account: cluster.Account | None = None
        self._hold: int | None = None
        self._socket_dir: Path | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def socket_dir(self) -> Path:
        """
        The directory of the server's Unix socket, mode 0700.

        Raises:
            EmbeddedError: The server is not held.
        """
        if self._socket_dir is None:
            raise EmbeddedError(
                f"The embedded PostgreSQL in {self._data} is not started. Try: call start() first"
            )
        return self._socket_dir

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy's URL of *database*, for its asyncpg dialect."""
        return self.dsn(database).replace("postgresql://", "postgresql+asyncpg://", 1)

    def dsn(self, database: str = "postgres") -> str:
        """The URL of *database* for asyncpg itself and for libpq."""
        return f"postgresql://{cluster.SUPERUSER}@/{quote(database, safe='')}?host={quote(str(self.socket_dir), safe='/')}"

    def start(self) -> Self:
        """
        Hold the server, and start it when it does not run; blocks until it accepts connections.

        Makes the cluster at the first start (about a second). Starting again while it is held is free, and restarts a
        server that was killed.

        Raises:
            EmbeddedError: It cannot start; the message says why and has the log's last lines.
        """
        try:
            self._prepare()
            self._take_hold()
            try:
                self._socket_dir = self._ensure_running()
            except BaseException:
                self._drop_hold()
                raise
        except OSError as error:
            raise EmbeddedError(
                f"The embedded PostgreSQL in {self._data} cannot start: {error}. "
                "Try: a directory that this user may write to"
            ) from error
        return self

    def stop(self) -> None:
        """
        Release our hold; when it was the last one, the server stops, and this waits up to 10 s for that.

        Releasing twice, or without a start, does nothing.
        """
        if self._hold is None:
            return
        self._drop_hold()
        if not self._data.exists():  # removed or moved under us: there is no lock left to wait for
            return
        self._adopt_orphan()
        deadline = time.monotonic() + RELEASE_SECONDS
        while time.monotonic() < deadline and supervisor.is_locked(self._data / supervisor.SUPERVISOR):
            if self._is_held_by_others():
                return
            time.sleep(0.02)

    def create_database(self, name: str) -> None:
        """
        Create the database *name* unless it exists; safe to race.

        Raises:
            EmbeddedError: The server is not held, or refuses the name; says which and why.
        """
        if not name or "\0" in name or len(name.encode()) > 63:
            raise EmbeddedError(f"{name!r} cannot name a database. Try: a name of 1 to 63 bytes")
        wanted = "SELECT format('CREATE DATABASE %I', :'name') WHERE NOT EXISTS ({}) \\gexec\n"
        exists = "SELECT 1 FROM pg_database WHERE datname = :'name'"
        result = self._psql(wanted.format(exists), name)
        # Two creators may both see it missing; the slower one is refused by the catalogue's unique index.
        if result.returncode != 0 and self._psql(f"{exists};\n", name).stdout != "1\n":
            raise EmbeddedError(f"The database {name!r} cannot be created: {result.stderr.strip()}")

    def _psql(self, script: str, name: str) -> subprocess.CompletedProcess[str]:
        host = str(self.socket_dir)
        program = str(self._programs / "psql")
        target = ["-h", host, "-p", str(PORT), "-U", cluster.SUPERUSER, "-d", "postgres"]
        options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-v", f"name={name}"]
        return subprocess.run(
            [program, *options, *target],
            input=script,
            capture_output=True,
            text=True,
            check=False,
            env=cluster.environment(),
        )

    def _take_hold(self) -> None:
        """Wait until a stop that is under way has finished; then no other begins while we hold."""
        path = self._data / supervisor.CLIENTS
        deadline = time.monotonic() + START_SECONDS
        while self._hold is None:
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"Waited {START_SECONDS:.0f} s for the server's last stop to finish: {path} stays locked. "
                    f"Try: see what holds it (fuser {path}) and end that"
                )
            self._hold = supervisor.try_lock(path, fcntl.LOCK_SH)
            if self._hold is None:
                time.sleep(0.02)

    def _drop_hold(self) -> None:
        # Closed, not unlocked: LOCK_UN would end the hold of processes that were forked from this one as well.
        if self._hold is not None:
            os.close(self._hold)
        self._hold = self._socket_dir = None

    def _lock_within_time(self, name: str, operation: int, waited_for: str) -> int:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if (fd := supervisor.try_lock(self._data / name, operation)) is not None:
                return fd
            time.sleep(0.02)
        raise EmbeddedError(
            f"Waited {START_SECONDS:.0f} s for {waited_for}: {self._data / name} stays locked. "
            f"Try: see what holds it (fuser {self._data / name}) and end that"
        )

    def _is_held_by_others(self) -> bool:
        path = self._data / supervisor.CLIENTS
        if (free := supervisor.try_lock(path)) is not None:
            os.close(free)
            return False
        # Locked exclusively, it is the supervisor that is stopping; shared, it is another client.
        return not supervisor.is_locked(path)

    def _prepare(self) -> None:
        """Make the directory and refuse, before anything is written, what cannot work."""
        self._programs = (
            cluster.with_programs(self._chosen_binaries) if self._chosen_binaries else find_binaries()
        )
        cluster.make_directory(self._data)
        self._account = cluster.choose_account(self._data)
        if self._account is not None:
            owner = self._data.stat().st_uid
            for name in (supervisor.CLIENTS, supervisor.SUPERVISOR, supervisor.LOG):
                cluster.give(self._data / name, owner)
            made = (self._data / cluster.CLUSTER).exists()
            # Every user enters "/": with nothing made yet this shows whether we can become that user at all.
            cluster.check_passage(places.home_of(self._data) if made else Path("/"), self._account)
            self._programs = places.reachable(self._programs, self._account)
        cluster.check_version(self._data, self._programs, self._account)

    def _ensure_running(self) -> Path:
        """Start, adopt or find the server while we hold it; of several that race, who gets `supervisor.lock` starts it."""
        deadline = time.monotonic() + START_SECONDS
        log = _open_log(self._data / supervisor.LOG)
        try:
            log_start = os.fstat(log).st_size
            spawned = False
            while time.monotonic() < deadline:
                keeper = supervisor.try_lock(self._data / supervisor.SUPERVISOR)
                if keeper is not None:
                    if spawned:
                        os.close(keeper)
                        break
                    spawned = self._replace_supervisor(keeper, log)
                elif (found := self._answering()) is not None:
                    return found
                time.sleep(0.02)
            raise EmbeddedError(
                f"The embedded PostgreSQL in {self._data} "
                + ("ended while it started" if spawned and keeper is not None else "does not answer")
                + f". The end of {self._data / supervisor.LOG}:\n{_log_tail(log, log_start)}"
            )
        finally:
            os.close(log)

    def _replace_supervisor(self, keeper: int, log: int) -> bool:
        """Start a supervisor with the lock *keeper*, which is closed here; `False` while old processes still end."""
        try:
            home = places.settle(self._data, self._account)
            if self._account is not None:
                cluster.give(home / supervisor.SERVER, self._data.stat().st_uid)
            server = supervisor.try_lock(home / supervisor.SERVER)
            if server is not None:
                try:
                    self._start_afresh(home, keeper, server, log)
                finally:
                    os.close(server)
                return True
            if (running := self._answering()) is not None:
                self._spawn(home, keeper, None, log, running)
                return True
            return False
        finally:
            os.close(keeper)

    def _start_afresh(self, home: Path, keeper: int, server: int, log: int) -> None:
        # Nothing of this server runs: we hold `server.lock`. So these are leftovers of a crash, and their process id may
        # by now be somebody else's, which PostgreSQL itself could not know.
        self._pid_file.unlink(missing_ok=True)
        if home != self._data:
            logger.info(
                "The PostgreSQL cluster of %s is kept in %s, because the server's user cannot enter there",
                self._data,
                home,
            )
        socket_dir = cluster.make_socket_dir(home, self._account)
        supervisor.clear_sockets(socket_dir)
        if not (home / cluster.CLUSTER).exists():
            cluster.initialise(home, self._programs, self._account, fsync=self._fsync)
        supervisor.cut_log(log, supervisor.START_LOG_BYTES)
        self._spawn(home, keeper, server, log, socket_dir)

    def _spawn(self, home: Path, keeper: int, server: int | None, log: int, socket_dir: Path) -> None:
        orders = supervisor.Orders(
            data=str(self._data),
            pid_file=str(home / cluster.CLUSTER / self._pid_file.name),
            server_lock=str(home / supervisor.SERVER),
            socket_dir=str(socket_dir),
            supervisor_fd=keeper,
            server_fd=server,
            command=self._command(home / cluster.CLUSTER, socket_dir),
            environment=cluster.environment(),
            uid=self._account.uid if self._account else None,
            gid=self._account.gid if self._account else None,
        )
        result = subprocess.run(
            [sys.executable, "-I", "-S", supervisor.__file__, orders.to_argument()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[fd for fd in (keeper, server) if fd is not None],
            check=False,
        )
        if result.returncode != 0:
            raise EmbeddedError(
                f"{sys.executable} could not run {supervisor.__file__} (status {result.returncode}). "
                f"Try: read {self._data / supervisor.LOG}"
            )

    def _command(self, directory: Path, socket_dir: Path) -> list[str]:
        chosen = {
            **SETTINGS,
            "unix_socket_directories": f'"{socket_dir}"',
            **({} if self._fsync else UNSAFE_SETTINGS),
            **self._settings,
        }
        program = str(self._programs / "postgres")
        options = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
        return [program, "-D", str(directory), *options]

    def _answering(self) -> Path | None:
        """The socket's directory when the server accepts connections."""
        found = supervisor.read_pid_file(self._pid_file)
        if found is None or not found.ready or not found.socket_dir:
            return None
        return Path(found.socket_dir) if _answers(Path(found.socket_dir)) else None

    def _adopt_orphan(self) -> None:
        """Give the server a new supervisor when its own was killed, so that it still stops after its last client."""
        keeper = supervisor.try_lock(self._data / supervisor.SUPERVISOR)
        if keeper is None:
            return
        try:
            home = places.home_of(self._data)
            running = self._answering() if supervisor.is_locked(home / supervisor.SERVER) else None
            if running is not None:
                log = _open_log(self._data / supervisor.LOG)
                try:
                    self._spawn(home, keeper, None, log, running)
                finally:
                    os.close(log)
        finally:
            os.close(keeper)


def _answers(socket_dir: Path) -> bool:
    """Whether a server behind the socket answers: accepting alone would not show that it still forks."""
    probe = struct.pack("!ii", 8, 80877103)  # SSLRequest, PostgreSQL's manual, "Message Formats"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(socket_dir / f".s.PGSQL.{PORT}"))
            connection.sendall(probe)
            return bool(connection.recv(1))
        except OSError:
            return False


def _open_log(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _log_tail(fd: int, start: int) -> str:
    size = os.fstat(fd).st_size
    begin = max(start if start <= size else 0, size - 4000)
    text = os.pread(fd, size - begin, begin).decode(errors="replace")
    return "\n".join(text.splitlines()[-20:])
