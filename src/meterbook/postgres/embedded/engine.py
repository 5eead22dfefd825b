"""The server of a folder, for as long as somebody uses it."""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote

from meterbook.errors import EngineUnavailable
from meterbook.postgres.embedded import server
from meterbook.postgres.embedded.binaries import find_binaries
from meterbook.postgres.embedded.place import Place, find_place, reachable, settle

LOCK_TIMEOUT_S = 660
"""Longer than another process may need to recover the server after a crash."""


class Embedded:
    """The server of a folder, shared by the processes that use the folder.

    A user is a shared lock on the file `users`, so one that is killed is not counted any longer. `start` may be
    called again, and then brings a server back that has died. Raises EngineUnavailable.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        """`settings` override the server's if it is this process that starts it."""
        self._folder = folder.absolute()
        self._settings = settings or {}
        self._using: IO[bytes] | None = None
        self._place: Place | None = None

    @property
    def url(self) -> str:
        place = self._started()
        return f"postgresql://{server.SUPERUSER}@/{server.DATABASE}?host={quote(str(place.socket), safe='')}"

    @property
    def pid(self) -> int | None:
        """The server's process; None if it has died."""
        running = server.find_postmaster(self._started())
        return running.pid if running else None

    def start(self) -> str:
        """The URL of the running server's database, as its superuser."""
        with _locked(self._folder):
            if self._using is None:
                self._using = _use(self._folder)
            try:
                self._place = _serve(self._folder, self._settings)
            except EngineUnavailable:
                self._leave()
                raise
        return self.url

    def stop(self) -> None:
        """Ends this use, and the server with its last one. Without a use, does nothing."""
        if self._using is None:
            return
        with _locked(self._folder):
            self._leave()
            if _is_unused(self._folder):
                server.stop(self._started())

    def _leave(self) -> None:
        if self._using is not None:
            self._using.close()
            self._using = None

    def _started(self) -> Place:
        if self._place is None:
            raise EngineUnavailable("the engine has not been started")
        return self._place


@contextlib.contextmanager
def embedded(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Embedded]:
    engine = Embedded(folder, settings)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def erase(folder: Path) -> bool:
    """Deletes a folder and the data it points at; False, and nothing is deleted, while somebody uses them."""
    if not folder.exists():
        return True
    folder = folder.absolute()
    with _locked(folder):
        if not _is_unused(folder):
            return False
        place = find_place(folder)
        if place is not None:
            server.stop(place)
            shutil.rmtree(place.socket, ignore_errors=True)
            shutil.rmtree(place.home)
        shutil.rmtree(folder)
    return True


def _serve(folder: Path, settings: Mapping[str, str]) -> Place:
    place = settle(folder)
    if server.await_ready(place):
        return place
    programs = reachable(find_binaries(place.major()), place)
    if place.major() is None:
        server.initialise(programs, place)
    server.launch(programs, place, settings)
    return place


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone among the processes that start, stop or erase this folder's server."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while time.monotonic() < deadline:
        with _open(folder, "lock") as handle:
            if _lock(handle, fcntl.LOCK_EX) and _is_still(folder / "lock", handle):
                yield
                return
        time.sleep(server.POLL_S)
    raise EngineUnavailable(f"another process has held {folder / 'lock'} for {LOCK_TIMEOUT_S} s")


def _is_still(path: Path, handle: IO[bytes]) -> bool:
    """False if the folder was erased while we waited for its lock."""
    return path.exists() and path.stat().st_ino == os.fstat(handle.fileno()).st_ino


def _use(folder: Path) -> IO[bytes]:
    handle = _open(folder, "users")
    _lock(handle, fcntl.LOCK_SH)
    return handle


def _is_unused(folder: Path) -> bool:
    with _open(folder, "users") as handle:
        return _lock(handle, fcntl.LOCK_EX)


def _lock(handle: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(folder: Path, name: str) -> IO[bytes]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.fdopen(os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "rb+")
    except OSError as error:
        raise EngineUnavailable(f"{folder} cannot be used: {error.strerror}") from error
