"""Where a folder's data and socket live, and which user of the machine runs the server.

PostgreSQL refuses to run as root. So root runs it as an ordinary user, who must reach the data and the programs;
where a directory above is closed to that user, both go to a shelter that is open, and the folder keeps a pointer.
No directory that was there before is ever opened.
"""

import json
import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from meterbook.errors import EngineUnavailable
from meterbook.postgres.embedded.binaries import Binaries

POINTER = "place.json"
SHELTER = Path("/var/lib/meterbook")
ORDINARY_USERS = ("postgres", "nobody")
# Of a socket's path, 103 bytes are portable (104 with the final zero on macOS, 108 on Linux).
SOCKET_FOLDER_BYTES_MAX = 103 - len("/.s.PGSQL.5432")


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the machine other than the one who asks."""

    uid: int
    gid: int

    def can_traverse(self, path: Path) -> bool:
        return all(self._may_search(folder.stat()) for folder in (path, *path.parents))

    def _may_search(self, status: os.stat_result) -> bool:
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


@dataclass(frozen=True, slots=True)
class Place:
    data: Path
    socket: Path
    log: Path
    account: Account | None

    @property
    def home(self) -> Path:
        return self.data.parent

    @property
    def process_options(self) -> dict[str, Any]:
        """For subprocess: who, with which file mode, from which directory."""
        options: dict[str, Any] = {"cwd": self.home, "umask": 0o077}
        if self.account is not None:
            options |= {"user": self.account.uid, "group": self.account.gid, "extra_groups": []}
        return options

    def major(self) -> int | None:
        """The version that wrote the data; None before there are any."""
        version = self.data / "PG_VERSION"
        return int(version.read_text()) if version.exists() else None


def settle(folder: Path) -> Place:
    """The place of a folder, remembered from the first time on. The caller holds the folder's lock."""
    known = find_place(folder)
    place = known or _new_place(folder)
    socket = place.socket
    if len(os.fsencode(socket)) > SOCKET_FOLDER_BYTES_MAX or (known and not socket.is_dir()):
        socket = Path(tempfile.mkdtemp(prefix="meterbook-"))
    _own(socket, place.account)
    _write_pointer(folder, place.home, socket)
    return replace(place, socket=socket)


def find_place(folder: Path) -> Place | None:
    """The place of a folder that has been used before."""
    try:
        known: dict[str, str] = json.loads((folder / POINTER).read_text())
    except FileNotFoundError:
        return None
    home = folder / known["home"]
    if not home.is_dir():
        raise EngineUnavailable(f"the data of {folder} were at {home}, and are gone; delete {folder} to begin anew")
    owner = home.stat()
    if os.geteuid() not in {0, owner.st_uid}:
        raise EngineUnavailable(f"the data of {folder} belong to another user (uid {owner.st_uid})")
    account = Account(owner.st_uid, owner.st_gid) if os.geteuid() == 0 else None
    return Place(home / "data", folder / known["socket"], folder / "server.log", account)


def _new_place(folder: Path) -> Place:
    account = _ordinary_account() if os.geteuid() == 0 else None
    if account is None or account.can_traverse(folder):
        home = folder / "server"
    else:
        home = Path(tempfile.mkdtemp(prefix="folder-", dir=_shelter()))
    _own(home, account)
    return Place(home / "data", home / "run", folder / "server.log", account)


def reachable(binaries: Binaries, place: Place) -> Path:
    """The folder of programs that the server's user can run: the installed one, or a copy beside the data."""
    if place.account is None or place.account.can_traverse(binaries.folder):
        return binaries.folder
    if not binaries.bundle:
        raise EngineUnavailable(
            f"{binaries.folder} is closed to the user that has to run PostgreSQL (uid {place.account.uid})"
        )
    package = binaries.bundle[0]
    copy = place.home.parent / f"engine-{binaries.major}-{int((package / '__init__.py').stat().st_mtime)}"
    if not copy.exists():
        _copy_bundle(binaries.bundle, copy)
    return copy / package.name / binaries.folder.relative_to(package)


def _copy_bundle(bundle: tuple[Path, ...], target: Path) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix="engine-", dir=target.parent))
    for tree in bundle:
        if tree.exists():
            shutil.copytree(tree, unfinished / tree.name, symlinks=True)
    unfinished.chmod(0o755)
    try:
        unfinished.rename(target)
    except OSError:  # another process copied first
        shutil.rmtree(unfinished)


def _ordinary_account() -> Account:
    for name in ORDINARY_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise EngineUnavailable(
        f"PostgreSQL does not run as root, and this machine has none of the users {', '.join(ORDINARY_USERS)}; "
        "run as an ordinary user, or pass a database URL"
    )


def _shelter() -> Path:
    if os.access(SHELTER.parent, os.W_OK):
        SHELTER.mkdir(mode=0o755, exist_ok=True)
        SHELTER.chmod(0o755)  # whatever the umask is; root made it, and for this
        return SHELTER
    shelter = Path(tempfile.mkdtemp(prefix="meterbook-", dir="/var/tmp"))
    shelter.chmod(0o755)
    return shelter


def _own(folder: Path, account: Account | None) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    if account is not None:
        os.chown(folder, account.uid, account.gid)


def _write_pointer(folder: Path, *parts: Path) -> None:
    """Paths below the folder are kept relative to it, so that the folder may be moved."""
    home, socket = (str(part.relative_to(folder) if part.is_relative_to(folder) else part) for part in parts)
    unfinished = folder / f"{POINTER}.new"
    unfinished.write_text(json.dumps({"home": home, "socket": socket}))
    unfinished.replace(folder / POINTER)
