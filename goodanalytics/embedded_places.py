"""
Where an embedded PostgreSQL's files live when root runs it as a user that cannot get to them.

A clone or a virtual environment below /root (mode 0700) is out of the server's reach. Nothing is opened for it: what
it must reach goes below `/var/lib/goodanalytics`, everything else stays in the data directory.

* A cluster gets a place `<name>-<random>/`, root's and passable for the server's group: `pg/`, `server.lock`, `data.txt`.
  The data directory gets a link `pg` to it, and `pg.txt`, which says so in words and is a hard link of `data.txt`.
* The link is the only way to a cluster. Without it (`rm -rf data`) the next start makes another one and removes the old
  one, unless something runs on it, or its note still has its other name: then the data directory was moved, not
  removed. Where no hard link is possible (another filesystem) that cannot be known, and the old one stays.
* A moved data directory takes its cluster along; a copied one is refused, since two directories would share a cluster.
  Whatever happens to directories: the lock beside the cluster lets one server at a time run on it.
* Programs are copied from the wheel only, once per content, into `binaries-<version>-<hash>/`, whole or not at all.
  Other versions' copies are left alone: a server may run from them.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from goodanalytics import embedded_cluster as cluster
from goodanalytics import embedded_supervisor as supervisor
from goodanalytics.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from goodanalytics.embedded_cluster import Account

ROOT = Path("/var/lib/goodanalytics")
NOTE = "data.txt"
SIGN = "pg.txt"
KEPT = "kept.txt"
OWNER = "Data directory: "

logger = logging.getLogger("goodanalytics")


def home_of(data: Path) -> Path:
    """
    The directory with the cluster of *data*: *data* itself, or the place that its link leads to.

    Raises:
        EmbeddedError: The link to a place is not root's, so it may lead to somebody else's cluster.
    """
    link = data / cluster.CLUSTER
    if not link.is_symlink() or (home := link.readlink().parent).parent != ROOT:
        return data
    if (owner := link.lstat().st_uid) != 0:
        raise EmbeddedError(
            f"{link} leads to {home}, and belongs to user id {owner} instead of root, who made it. "
            f"Try: chown -h 0 {link}, if it is yours"
        )
    return home


def settle(data: Path, account: Account | None) -> Path:
    """
    `home_of(data)`, made where *account* can get to it when there is none yet; call it with `supervisor.lock` held.

    Writes the place, the link and the notes.

    Raises:
        EmbeddedError: The place is gone, or belongs to a data directory of which this one is a copy.
    """
    home = home_of(data)
    if home != data:
        _recognise(data, home)
        return home
    if account is None or os.path.lexists(data / cluster.CLUSTER) or cluster.enters(data, account):
        return data
    return _open_place(data, account)


def _recognise(data: Path, home: Path) -> None:
    if not (home / NOTE).exists():
        raise EmbeddedError(
            f"The cluster of {data} was kept in {home}, and is not there any more. "
            f"Try: put {home} back; or remove {data / cluster.CLUSTER} to begin with an empty one"
        )
    owner = _owner_of(home)
    if owner == data:
        return
    signed = (data / SIGN).exists() and (data / SIGN).samefile(home / NOTE)
    if not signed and owner is not None and _leads_to(owner, home):
        raise EmbeddedError(
            f"{data} is a copy of {owner}, and the cluster of both is {home}, which only the latter may use. "
            f"Try: remove {data / cluster.CLUSTER} to begin with an empty one, and fill it from a dump (pg_dump)"
        )
    _sign(data, home)


def _owner_of(home: Path) -> Path | None:
    """The data directory that the place *home* was made for, `None` when it is no place of ours."""
    try:
        if home.lstat().st_uid != os.geteuid() or not stat.S_ISREG((home / NOTE).lstat().st_mode):
            return None
        _, found, path = os.fsdecode((home / NOTE).read_bytes()).rpartition(OWNER)
    except OSError:
        return None
    return Path(path.removesuffix("\n")) if found else None


def _leads_to(data: Path, home: Path) -> bool:
    try:
        return (data / cluster.CLUSTER).readlink().parent == home
    except OSError:
        return False


def _open_place(data: Path, account: Account) -> Path:
    _make_root()
    _remove_abandoned(data)
    name = re.sub(r"[^\w.-]", "_", data.name, flags=re.ASCII).strip(".")[:40] or "data"
    home = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=ROOT))
    os.chown(home, 0, account.gid)
    home.chmod(0o710)
    cluster.check_passage(home, account)
    _sign(data, home)
    # Last: a start that finds the link finds a place that is complete but for its cluster.
    (data / cluster.CLUSTER).symlink_to(home / cluster.CLUSTER)
    return home


def _make_root() -> None:
    """Make our directory, passable for everybody, or refuse one that others can change under root's hands."""
    cluster.make_directory(ROOT)
    found = ROOT.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise EmbeddedError(
            f"The server needs files in {ROOT}, and that is not a directory which root alone may write to "
            f"(user id {found.st_uid}, {stat.filemode(found.st_mode)}). "
            "Try: a data directory and a virtual environment that every user may enter, outside of root's home"
        )


def _remove_abandoned(data: Path) -> None:
    """Remove the clusters that were made for a directory at this path which is gone, as far as that is certain."""
    for home in sorted(note.parent for note in ROOT.glob(f"*/{NOTE}")):
        if _owner_of(home) != data:
            continue
        if (home / KEPT).exists():
            logger.info(
                "%s was made for an earlier %s; remove it, if that was not moved elsewhere", home, data
            )
        elif (home / NOTE).lstat().st_nlink == 1:
            _remove(home)


def _remove(home: Path) -> None:
    lock = supervisor.try_lock(home / supervisor.SERVER)
    if lock is None:
        logger.info("%s belongs to no data directory any more, but its server runs on", home)
        return
    try:
        # The cluster goes first and the note after it, so that a removal that is killed is found and finished.
        for part in (home / cluster.CLUSTER, home / "new"):
            if part.exists():
                shutil.rmtree(part)
        shutil.rmtree(home)
        logger.info("Removed %s, the cluster of a data directory that is gone", home)
    finally:
        os.close(lock)


def _sign(data: Path, home: Path) -> None:
    """Write the place's note for *data* and give it its second name there; at no moment has the place's note one name."""
    text = (
        f"The PostgreSQL cluster of this data directory is kept in {home},\n"
        "because the user that runs the server cannot enter the data directory. Removing the data directory gives that\n"
        "cluster up: the next start makes a new one. A moved directory keeps it; a backup needs both.\n"
        f"{OWNER}{data}\n"
    )
    note, sign, kept = home / f"{NOTE}.new", data / f"{SIGN}.new", home / KEPT
    for path in (note, sign):
        path.unlink(missing_ok=True)
    _write_new(note, text)
    try:
        os.link(note, sign)
    except OSError:
        _write_new(sign, text)
        kept.write_text("The note in the data directory lies on another filesystem, so it is a copy.\n")
        linked = False
    else:
        linked = True
    note.replace(home / NOTE)
    sign.replace(data / SIGN)
    if linked:
        kept.unlink(missing_ok=True)


def _write_new(path: Path, text: str) -> None:
    # Exclusively: whoever else may write to the data directory must not lead root through a link.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(fd, "wb") as file:
        file.write(os.fsencode(text))


def reachable(binaries: Path, account: Account | None) -> Path:
    """
    *binaries*, or a copy of them when they are the wheel's and *account* cannot execute them.

    The copy is 27 MB and takes a fraction of a second, once.

    Raises:
        EmbeddedError: There is no place for a copy.
    """
    if account is None or binaries not in cluster.in_wheel() or cluster.executes(binaries, account):
        return binaries
    files = _files_of(binaries.parent)
    copy = ROOT / f"binaries-{cluster.major_version(binaries, None)}-{_digest(files)}"
    _make_root()
    if not _is_complete(copy, files):
        with (ROOT / "binaries.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_complete(copy, files):
                _copy(files, copy)
        logger.info(
            "Copied PostgreSQL's programs from %s, where their user cannot enter, to %s", binaries, copy
        )
    return copy / binaries.relative_to(binaries.parents[2])


def _files_of(installation: Path) -> Mapping[Path, Path]:
    """The wheel's files that running needs, by their path in `site-packages`, where they find each other's libraries."""
    package = installation.parent
    # Where auditwheel and delocate put libraries that a wheel brings along.
    parts = (installation, package.with_name(f"{package.name}.libs"), package / ".dylibs")
    return {
        path.relative_to(package.parent): path
        for part in parts
        for path in sorted(part.rglob("*"))
        if path.is_file() and not path.is_relative_to(installation / "include")
    }


def _digest(files: Mapping[Path, Path]) -> str:
    """A name for the content: every file's size, and the programs' bytes, since a rebuild may keep the sizes."""
    digest = hashlib.sha256()
    for relative, path in files.items():
        digest.update(os.fsencode(f"{relative}\0{path.stat().st_size}\0"))
        if path.name in cluster.PROGRAMS:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _is_complete(copy: Path, files: Mapping[Path, Path]) -> bool:
    """Whether nothing is missing or cut: a cleaner of old files, or a power cut after the copy, could have done that."""
    try:
        return all(
            (copy / relative).stat().st_size == path.stat().st_size for relative, path in files.items()
        )
    except FileNotFoundError:
        return False


def _copy(files: Mapping[Path, Path], copy: Path) -> None:
    new = copy.with_name("binaries.new")
    shutil.rmtree(new, ignore_errors=True)
    for relative, path in files.items():
        target = new / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        target.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
    for directory in {
        parent for relative in files for parent in (new / relative).parents if parent.is_relative_to(new)
    }:
        directory.chmod(0o755)
    if copy.exists():
        shutil.rmtree(copy)
    new.rename(copy)
