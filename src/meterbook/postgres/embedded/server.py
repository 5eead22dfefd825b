"""Starting and stopping the server of one place. Every function here expects its caller to hold the folder's lock."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from meterbook.errors import EngineUnavailable
from meterbook.postgres.embedded.place import Place

DATABASE = "meterbook"
SUPERUSER = "postgres"
RECOVERY_TIMEOUT_S = 600
STOP_TIMEOUT_S = 60
POLL_S = 0.01
LOG_BYTES_MAX = 16 * 1024 * 1024
LOG_LINES_SHOWN = 12
# Greater than any process id, so PostgreSQL takes a postmaster.pid that says this for a dead server's.
NO_PROCESS = 99_999_999
SOCKET_LOCK = ".s.PGSQL.5432.lock"
# The first line of postmaster.pid is the process, the eighth the state.
_STATE_LINE = 7


@dataclass(frozen=True, slots=True)
class Postmaster:
    pid: int
    state: str


def initialise(programs: Path, place: Place) -> None:
    """Makes the data, complete with the database, or nothing: they get their name when they are finished."""
    for abandoned in place.home.glob("data.new.*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    unfinished = place.home / f"data.new.{os.getpid()}"  # a killed start may still have a child at work in its own
    _run(
        [
            programs / "initdb",
            f"--pgdata={unfinished}",
            f"--username={SUPERUSER}",
            "--auth-local=trust",  # the socket's folder is the door, and it is its owner's alone
            "--auth-host=reject",
            "--encoding=UTF8",
            "--locale=C",  # bytewise order, the same from 15 to 18 and on every machine
            "--data-checksums",
            "--no-instructions",
        ],
        place,
    )
    create = f"create database {DATABASE};\n".encode()
    single: list[str | Path] = [
        programs / "postgres",
        "--single",
        "-D",
        unfinished,
        "-c",
        "log_checkpoints=off",
        "postgres",
    ]
    _run(single, place, create)
    unfinished.rename(place.data)
    _sync_folder(place.home)


def launch(programs: Path, place: Place, settings: Mapping[str, str]) -> None:
    """Starts the server and waits until it takes connections, through a crash recovery if need be."""
    deadline = time.monotonic() + RECOVERY_TIMEOUT_S
    while True:
        _forget_dead_postmaster(place)
        process = _spawn(programs, place, settings)
        if _becomes_ready(process, place, deadline):
            return
        # After a kill -9 of the server alone, its children hold the shared memory until they notice.
        if b"shared memory block" not in _log_tail(place) or time.monotonic() > deadline:
            raise EngineUnavailable(f"PostgreSQL did not start; {_log_end(place)}")
        time.sleep(0.1)


def stop(place: Place) -> None:
    """Returns when the process is gone. Sessions still open are ended."""
    running = find_postmaster(place)
    if running is None:
        return
    for request in (
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGKILL,
    ):  # fast, immediate, and what recovery is for
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, request)
        if _goes(running.pid, place.data):
            return
    raise EngineUnavailable(f"PostgreSQL (process {running.pid}) does not stop")


def find_postmaster(place: Place) -> Postmaster | None:
    """The live server of this place, whatever its state; None if there is none, whatever postmaster.pid says."""
    try:
        lines = (place.data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return None
    if not lines or not _is_server(int(lines[0]), place.data):
        return None
    return Postmaster(int(lines[0]), lines[_STATE_LINE].strip() if len(lines) > _STATE_LINE else "starting")


def await_ready(place: Place) -> bool:
    """Whether a live server of this place takes connections, waiting while one is on its way up or down."""
    running = find_postmaster(place)
    return running is not None and _becomes_ready(
        running.pid, place, time.monotonic() + RECOVERY_TIMEOUT_S, expect_file=True
    )


def _spawn(programs: Path, place: Place, settings: Mapping[str, str]) -> int:
    """The server in a session of its own: Ctrl-C does not reach it, and it is nobody's child to be waited for."""
    chosen = {**_settings(place), **settings}
    arguments = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
    script = '"$0" "$@" >&2 & echo $!'
    _limit_log(place.log)
    with place.log.open("ab") as log:
        shell = subprocess.run(
            ["/bin/sh", "-c", script, programs / "postgres", "-D", place.data, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(),
            start_new_session=True,
            check=True,
            **place.process_options,
        )
    return int(shell.stdout)


def _settings(place: Place) -> dict[str, str]:
    return {
        "listen_addresses": "",
        "unix_socket_directories": str(place.socket),
        "unix_socket_permissions": "0700",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "jit": "off",
        "max_connections": "200",
        "shared_buffers": f"{_shared_buffers_mb()}MB",
        "max_wal_size": "2GB",
        "checkpoint_timeout": "15min",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] ",
        "cluster_name": "meterbook",
    }


def _shared_buffers_mb() -> int:
    """An eighth of the memory, between 32 and 256 MB."""
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**2
    return max(32, min(256, memory_mb // 8))


def _environment() -> dict[str, str]:
    """Without the variables that steer PostgreSQL, so that a caller's PGDATA or PGOPTIONS changes nothing."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def _becomes_ready(pid: int, place: Place, deadline: float, *, expect_file: bool = False) -> bool:
    while time.monotonic() < deadline:
        running = find_postmaster(place)
        if running is not None and running.pid == pid and running.state == "ready":
            return True
        gone = running is None if expect_file else not (_is_server(pid, place.data) or _is_becoming(pid))
        if gone:
            return False
        time.sleep(POLL_S)
    raise EngineUnavailable(f"PostgreSQL (process {pid}) is still not ready; {_log_end(place)}")


def _goes(pid: int, data: Path) -> bool:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while time.monotonic() < deadline:
        if not _is_server(pid, data):
            return True
        time.sleep(POLL_S)
    return False


def _is_server(pid: int, data: Path) -> bool:
    """Whether this process lives and serves these data: an id may have passed to another process since."""
    if Path("/proc/self/stat").exists():
        return _is_server_by_proc(pid, data)
    answer = subprocess.run(["/bin/ps", "-ww", "-o", "stat=,args=", "-p", str(pid)], capture_output=True, check=False)
    return not answer.stdout.lstrip().startswith(b"Z") and os.fsencode(data) in answer.stdout


def _is_becoming(pid: int) -> bool:
    """A process that has begun to run another program has no arguments for a moment: neither has a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return not arguments and stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def _is_server_by_proc(pid: int, data: Path) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for a zombie
    except (FileNotFoundError, ProcessLookupError):
        return False
    return os.fsencode(data) in arguments.split(b"\0")


def _forget_dead_postmaster(place: Place) -> None:
    """Takes a dead server's process id out of its lock files.

    PostgreSQL would believe any live process of that id, or a zombie of it. postmaster.pid stays otherwise, because
    by its other lines PostgreSQL still finds out whether children of the dead server are at work on the data.
    """
    (place.socket / SOCKET_LOCK).unlink(missing_ok=True)
    file = place.data / "postmaster.pid"
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return
    if lines:
        file.write_text("\n".join([str(NO_PROCESS), *lines[1:]]) + "\n")
    else:
        file.unlink()


def _run(command: Sequence[str | Path], place: Place, given: bytes = b"") -> None:
    """In a session of its own: Ctrl-C ends all of it or nothing, and never half of what it makes."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
        start_new_session=True,
        **place.process_options,
    )
    try:
        said, _ = process.communicate(given)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode != 0 or b"ERROR:" in said or b"FATAL:" in said:
        raise EngineUnavailable(f"{command[0]} failed:\n{said.decode(errors='replace').strip()}")


def _limit_log(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_name(f"{log.name}.1"))


def _log_tail(place: Place) -> bytes:
    with place.log.open("rb") as log:
        log.seek(max(0, place.log.stat().st_size - 8192))
        return b"\n".join(log.read().splitlines()[-LOG_LINES_SHOWN:])


def _log_end(place: Place) -> str:
    return f"the end of {place.log}:\n{_log_tail(place).decode(errors='replace')}"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
