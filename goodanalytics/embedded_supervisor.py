"""
The small process that owns an embedded PostgreSQL: it starts the server, waits for its last client and stops it.

`goodanalytics.embedded` runs this file by its path with `python -I -S`, so it may import the standard library only: the
supervisor then costs 30 ms and few megabytes instead of the whole package, and a host's `PYTHONPATH` cannot break it.

Who is alive is asked of the kernel, never of process ids (ids are reused, and a zombie still has one). Three files in
the data directory are locked with `flock`, which the kernel releases when the last holder is gone, however it went:

* `clients.lock`: shared by every client. Who gets it exclusively knows that no client is left. The supervisor takes
  it before it stops the server and keeps it until it exits, so a start that comes meanwhile waits and starts afresh.
* `supervisor.lock`: taken by the client that starts the server and inherited by the supervisor, so there is no gap:
  of several starts that race one gets it, the others wait until its server answers.
* `server.lock`: beside the cluster; inherited by the postmaster and by every process it forks. Free means: nothing of
  this server runs, so a stale `postmaster.pid` may be removed and a new server may start. Held while `supervisor.lock`
  is free means: the supervisor was killed and its server runs on; a new supervisor adopts it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

CLIENTS = "clients.lock"
SUPERVISOR = "supervisor.lock"
SERVER = "server.lock"
LOG = "server.log"

POLL_SECONDS = 0.2
# A fast stop ends with a checkpoint; PostgreSQL's own pg_ctl gives it 60 s as well (manual, pg_ctl, -t).
FAST_STOP_SECONDS = 60.0
IMMEDIATE_STOP_SECONDS = 10.0
# The log is cut when a start finds it larger than 1 MB; while the server runs it may grow further, yet not for ever.
START_LOG_BYTES = 1_000_000
RUN_LOG_BYTES = 16_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Orders:
    """
    What a supervisor is told, as one JSON argument.

    Attributes:
        data: The data directory with the lock files.
        pid_file: The cluster's `postmaster.pid`.
        server_lock: The path of `server.lock`, which lies beside the cluster.
        socket_dir: Removed after a stop, when it is empty.
        supervisor_fd: Inherited lock on `supervisor.lock`; kept until the supervisor exits.
        server_fd: Inherited lock on `server.lock`, passed on to the server; `None` adopts the server that runs.
        command: The postmaster's program and arguments; unused when a server is adopted.
        environment: The postmaster's whole environment.
        uid: User to run the server as, `None` for our own.
        gid: Group to run the server as, `None` for our own.
    """

    data: str
    pid_file: str
    server_lock: str
    socket_dir: str
    supervisor_fd: int
    server_fd: int | None
    command: Sequence[str]
    environment: Mapping[str, str]
    uid: int | None
    gid: int | None

    def to_argument(self) -> str:
        """These orders as one command line argument."""
        return json.dumps(dataclasses.asdict(self))


def try_lock(path: Path, operation: int = fcntl.LOCK_EX) -> int | None:
    """
    Open *path* and lock it without waiting; creates the file (mode 0600, never through a symbolic link).

    Returns:
        A file descriptor that holds the lock until it is closed, or `None` when somebody else holds it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if lock_at_once(fd, operation):
            return fd
    except OSError:
        os.close(fd)
        raise
    os.close(fd)
    return None


def lock_at_once(fd: int, operation: int) -> bool:
    """Lock the open file *fd* unless somebody else holds it; whether that was done."""
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether somebody else holds the exclusive lock on *path*."""
    fd = try_lock(path, fcntl.LOCK_SH)
    if fd is None:
        return True
    os.close(fd)
    return False


@dataclasses.dataclass(frozen=True, slots=True)
class PidFile:
    """
    The parts of a `postmaster.pid` that matter here.

    Attributes:
        pid: The postmaster's process id.
        socket_dir: First directory with its socket, empty while there is none.
        ready: Whether the server says that it accepts connections.

    Source: PostgreSQL's src/include/utils/pidfile.h: line 1 pid, 5 socket directory, 8 status (since version 10).
    """

    pid: int
    socket_dir: str
    ready: bool


def read_pid_file(path: Path) -> PidFile | None:
    """What the `postmaster.pid` at *path* says, `None` when there is none or it is half written."""
    try:
        lines = path.read_text(errors="surrogateescape").split("\n")
        pid = int(lines[0])
    except (FileNotFoundError, ValueError):
        return None
    lines += [""] * 8
    return PidFile(pid, lines[4], lines[7].strip() == "ready")


class Postmaster:
    """A running server, either our child or one that we adopted from a supervisor that was killed."""

    def __init__(self, orders: Orders, child: subprocess.Popen[bytes] | None) -> None:
        self._lock = Path(orders.server_lock)
        self._pid_file = Path(orders.pid_file)
        self._child = child

    def is_running(self) -> bool:
        """Whether the server runs. Asking also reaps a child that ended."""
        if self._child is not None:
            return self._child.poll() is None
        return is_locked(self._lock)

    def signal(self, number: signal.Signals) -> None:
        """Send *number* to the postmaster; nothing happens when it is gone."""
        if self._child is not None:
            self._child.send_signal(number)
        elif self.is_running() and (found := read_pid_file(self._pid_file)) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, number)

    def stop(self) -> None:
        """Stop the server: politely, then without a checkpoint, then by force."""
        for number, seconds in (
            (signal.SIGINT, FAST_STOP_SECONDS),
            (signal.SIGQUIT, IMMEDIATE_STOP_SECONDS),
            (signal.SIGKILL, IMMEDIATE_STOP_SECONDS),
        ):
            self.signal(number)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                if not self.is_running():
                    return
                time.sleep(0.02)


class Terminated:
    """Set once SIGTERM has arrived: a machine that shuts down asks every process to end."""

    def __init__(self) -> None:
        self.arrived = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.arrived = True


def launch(orders: Orders) -> Postmaster:
    """Start the server that *orders* describe, or adopt the one that runs."""
    if orders.server_fd is None:
        return Postmaster(orders, None)
    child = subprocess.Popen(  # noqa: S603  the command is built by goodanalytics.embedded, no shell reads it
        orders.command,
        stdin=subprocess.DEVNULL,
        cwd="/",
        env=orders.environment,
        pass_fds=(orders.server_fd,),
        user=orders.uid,
        group=orders.gid,
        extra_groups=None if orders.uid is None else [],
        umask=0o077,
        # Its own session: a signal to our process group must not become an immediate shutdown of the server.
        start_new_session=True,
    )
    # From here on the lock belongs to the server's processes alone.
    os.close(orders.server_fd)
    return Postmaster(orders, child)


def supervise(orders: Orders) -> None:
    """Run the server until its last client is gone, it ends by itself, or we are asked to end."""
    terminated = Terminated()
    # Opened once: the clients' lock is this file, whatever becomes of the directory while they hold it.
    clients = os.open(Path(orders.data) / CLIENTS, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    server = launch(orders)
    while server.is_running():
        # Locked exclusively, and kept until we exit: no client is left, and none can come in between.
        if lock_at_once(clients, fcntl.LOCK_EX) or terminated.arrived:
            server.stop()
            break
        cut_log(sys.stderr.fileno(), RUN_LOG_BYTES)
        time.sleep(POLL_SECONDS)
    else:
        print("goodanalytics: the server ended without being asked to", file=sys.stderr, flush=True)  # noqa: T201  stderr is the server's log
    clear_sockets(Path(orders.socket_dir))
    with contextlib.suppress(OSError):  # the caller's own setting may have put it where other files are
        Path(orders.socket_dir).rmdir()


def clear_sockets(directory: Path) -> None:
    """Remove the socket and its lock file that a killed server left in *directory*; a server that stops removes its own."""
    for leftover in directory.glob(".s.PGSQL.*"):
        leftover.unlink(missing_ok=True)


def cut_log(fd: int, limit_bytes: int) -> None:
    """Empty the open log *fd* when it is larger than *limit_bytes*; its writers append, so they go on at its start."""
    if os.fstat(fd).st_size > limit_bytes:
        os.ftruncate(fd, 0)


def main(argument: str) -> None:
    """Leave the caller's session and supervise; the caller only waits for the fork, so it never owns a zombie."""
    orders = Orders(**json.loads(argument))
    if os.fork() > 0:
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.chdir("/")
    supervise(orders)


if __name__ == "__main__":
    main(sys.argv[1])
