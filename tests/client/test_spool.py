"""The spool's folder alone: what was appended is there after a kill, in order, once; what can't be read is told."""

import json
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from meterbook.client.calls import CORRECTION, CUMULATIVE, ENTRY, Call
from meterbook.client.queues import Bounds, Memory, refusal_of
from meterbook.client.spool import Spool
from meterbook.errors import ClientClosed, Overloaded, SpoolFailed, SpoolFull, SpoolTaken, SpoolUnreadable

AT = datetime(2026, 6, 20, 12, tzinfo=UTC)
BOUNDS = Bounds(entries_max=1000, bytes_max=1_000_000)


def call(key: str, amount: str = "0.10", actor: str = "ada") -> Call:
    return Call(ENTRY, {"actor": actor, "amount": amount, "event_key": key}, AT)


def calls(*keys: object) -> list[Call]:
    return [call(str(key)) for key in keys]


def keys(spool: Spool | Memory, count: int = 1000) -> list[str | None]:
    return [each.event_keys[0] for each in spool.peek(0, count)]


@contextmanager
def opened(folder: Path, bounds: Bounds = BOUNDS, segment_bytes: int = 4096) -> Iterator[Spool]:
    spool = Spool(folder, bounds, segment_bytes)
    try:
        yield spool
    finally:
        spool.close()


def test_what_was_appended_is_there_again(tmp_path: Path) -> None:
    """In its order, complete; what was sent is not."""
    with opened(tmp_path) as spool:
        spool.append(calls(1, 2))
        spool.append([Call(ENTRY, {"actor": "bo", "amount": "2", "occurred_at": "x"}, AT, True, {"actor": "é\n"})])
        spool.finish(1, [], [])
        kept = spool.peek(0, 10)
    with opened(tmp_path) as spool:
        assert spool.peek(0, 10) == kept
        assert spool.peek(1, 1) == kept[1:2]
        assert len(spool) == 2


def test_segments_are_begun_and_removed(tmp_path: Path) -> None:
    """A folder of a thousand calls that were sent holds next to nothing."""
    with opened(tmp_path) as spool:
        for number in range(0, 1000, 50):
            spool.append(calls(*range(number, number + 50)))
        assert len(list(tmp_path.glob("*.calls"))) > 10
        for _ in range(10):
            spool.finish(99, [], [])
        assert keys(spool) == [str(number) for number in range(990, 1000)]
    with opened(tmp_path) as spool:
        assert keys(spool) == [str(number) for number in range(990, 1000)]
        assert len(list(tmp_path.glob("*.calls"))) <= 2
        spool.finish(10, [], [])
    with opened(tmp_path) as spool:
        spool.append(calls("new"))
        assert keys(spool) == ["new"]


def test_what_goes_again_goes_to_the_end(tmp_path: Path) -> None:
    """After what came later, also after the folder was opened again."""
    with opened(tmp_path) as spool:
        spool.append(calls(1, 2, 3))
        spool.finish(2, calls(1), [])
        assert keys(spool) == ["3", "1"]
    with opened(tmp_path) as spool:
        assert keys(spool) == ["3", "1"]


@pytest.mark.parametrize("cut", [1, 5, 15, 40])
def test_a_torn_tail_is_cut(tmp_path: Path, cut: int) -> None:
    """What was whole stays, what follows is appended behind it, and the torn bytes are kept aside."""
    with opened(tmp_path) as spool:
        spool.append(calls(1, 2))
    (segment,) = tmp_path.glob("*.calls")
    whole = segment.read_bytes()
    with opened(tmp_path) as spool:
        spool.append(calls(3))
    torn = segment.read_bytes()[: len(whole) + cut]
    segment.write_bytes(torn)
    with opened(tmp_path) as spool:
        assert keys(spool) == ["1", "2"]
        spool.append(calls(4))
    with opened(tmp_path) as spool:
        assert keys(spool) == ["1", "2", "4"]
    assert segment.with_suffix(".torn").read_bytes() == torn[len(whole) :]


@pytest.mark.parametrize("left", [0, 5, 17])
def test_a_segment_that_was_being_begun_is_finished(tmp_path: Path, left: int) -> None:
    """Killed before its header was whole: there was no call in it."""
    with opened(tmp_path) as spool:
        spool.append(calls(1))
    (tmp_path / "00000002.calls").write_bytes(b"meterbook spool 1\n"[:left])
    for number in (2, 3):
        with opened(tmp_path) as spool:
            spool.append(calls(number))
    with opened(tmp_path) as spool:
        assert keys(spool) == ["1", "2", "3"]


def _damage(segment: Path) -> None:
    content = bytearray(segment.read_bytes())
    content[40] ^= 1
    segment.write_bytes(content)


def _of_another_version(segment: Path) -> None:
    segment.write_bytes(segment.read_bytes().replace(b"meterbook spool 1", b"meterbook spool 9"))


def _gap(segment: Path) -> None:
    segment.with_name("00000009.calls").write_bytes(segment.read_bytes())


def _done_beyond(segment: Path) -> None:
    with opened(segment.parent) as spool:
        spool.finish(2, [], [])
    segment.write_bytes(segment.read_bytes()[:30])


@pytest.mark.parametrize("spoil", [_damage, _of_another_version, _gap, _done_beyond])
def test_what_cant_be_read_is_told_and_left_alone(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """Damage in the middle, another version, a segment that is gone: an error that names the file, and no byte is changed."""
    with opened(tmp_path) as spool:
        spool.append(calls(1, 2))
    (segment,) = tmp_path.glob("*.calls")
    spoil(segment)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for _ in range(2):
        with pytest.raises(SpoolUnreadable), opened(tmp_path):
            pass
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_without_its_hint_everything_is_sent_again(tmp_path: Path) -> None:
    """`done` saves work; the keys are what makes a second time safe."""
    with opened(tmp_path) as spool:
        spool.append(calls(1, 2, 3))
        spool.finish(2, [], [])
    (tmp_path / "done").write_bytes(b"nonsense nonsense nonsense")
    with opened(tmp_path) as spool:
        assert keys(spool) == ["1", "2", "3"]


@pytest.mark.parametrize("bounds", [Bounds(3, 10_000), Bounds(1000, 450)])
def test_a_full_spool_says_so_and_loses_nothing(tmp_path: Path, bounds: Bounds) -> None:
    """By entries or by bytes: all of a call or none of it. What was sent makes room."""
    with opened(tmp_path, bounds) as spool:
        spool.append(calls(1, 2))
        with pytest.raises(SpoolFull):
            spool.append(calls(3, 4, 5))
        spool.append(calls(3))
        with pytest.raises(SpoolFull):
            spool.append(calls(4))
        assert keys(spool) == ["1", "2", "3"]
        spool.finish(1, [], [])
        spool.append(calls(4))
    with opened(tmp_path, bounds) as spool:
        assert keys(spool) == ["2", "3", "4"]


def test_refused_calls_take_room_until_somebody_looks(tmp_path: Path) -> None:
    """A disk is not filled by what nobody reads."""
    with opened(tmp_path, Bounds(100, 1500)) as spool:
        spool.append(calls(1))
        spool.finish(1, [], [refusal_of(call("1"), "invalid_usage", "x" * 1500)])
        with pytest.raises(SpoolFull):
            spool.append(calls(2))
        spool.forget_refusals(1)
        spool.append(calls(2))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A real limit of the operating system: what is written beyond is written in part, and refused."""
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, kept[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_disk_that_is_full_says_so_and_loses_nothing(tmp_path: Path) -> None:
    """The call is refused, and what was there stays."""
    with opened(tmp_path, segment_bytes=1_000_000) as spool:
        spool.append(calls(*range(5)))
        size = next(tmp_path.glob("*.calls")).stat().st_size
        with files_of_at_most(size + 50), pytest.raises(SpoolFull, match="no room"):
            spool.append(calls("too many"))
        spool.append(calls("fits"))
    with opened(tmp_path, segment_bytes=1_000_000) as spool:
        assert keys(spool) == ["0", "1", "2", "3", "4", "fits"]


def test_a_segment_that_a_full_disk_refused_is_begun_again(tmp_path: Path) -> None:
    """What was left of its beginning refuses nothing once there is room."""
    with opened(tmp_path, segment_bytes=100) as spool:
        spool.append(calls(1, 2))
        with files_of_at_most(5), pytest.raises(SpoolFull, match="no room"):
            spool.append(calls("too many"))
        spool.append(calls("fits"))
    with opened(tmp_path, segment_bytes=100) as spool:
        assert keys(spool) == ["1", "2", "fits"]


def test_a_refusal_that_a_full_disk_took_in_part_spoils_no_other(tmp_path: Path) -> None:
    """The file of refused calls stays readable, and has each of them, whole."""
    with opened(tmp_path) as spool:
        spool.append(calls(1, 2))
        spool.finish(1, [], [refusal_of(call("1"), "invalid_usage", "no")])
        size = (tmp_path / "refused.ndjson").stat().st_size
        with files_of_at_most(size + 50), pytest.raises(SpoolFull):
            spool.finish(1, [], [refusal_of(call("2"), "invalid_usage", "no")])
        assert keys(spool) == ["2"]
        spool.finish(1, [], [refusal_of(call("2"), "invalid_usage", "no")])
        assert [each.body["event_key"] for each in spool.refusals()] == ["1", "2"]


def test_a_child_of_a_fork_does_not_hold_the_folder(tmp_path: Path) -> None:
    """A worker that was forked off lives on; who opens the folder after its parent finds it free."""
    go, tell = os.pipe()
    with opened(tmp_path):
        heard, begun = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(tell)
            os.write(begun, b"!")
            os.read(go, 1)
            os._exit(0)
        os.read(heard, 1)
        with pytest.raises(SpoolTaken), opened(tmp_path):
            pass
    try:
        with opened(tmp_path) as spool:
            assert len(spool) == 0
    finally:
        os.close(tell)
        os.waitpid(child, 0)
        for file in (go, heard, begun):
            os.close(file)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_queue_that_is_closed_takes_nothing(tmp_path: Path, kind: str) -> None:
    """Whoever handed in a call while the client was being closed is told; it would be sent by nobody."""
    queue = Memory(BOUNDS) if kind == "memory" else Spool(tmp_path, BOUNDS)
    queue.append(calls(1))
    queue.close()
    with pytest.raises(ClientClosed):
        queue.append(calls(2))


def test_a_folder_is_one_clients(tmp_path: Path) -> None:
    """Of this process or another, until it is closed."""
    with opened(tmp_path):
        with pytest.raises(SpoolTaken), opened(tmp_path):
            pass
        child = os.fork()
        if child == 0:
            try:
                Spool(tmp_path, BOUNDS)
            except SpoolTaken:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    with opened(tmp_path) as spool:
        assert len(spool) == 0


def test_the_folders_files_are_their_owners(tmp_path: Path) -> None:
    """Whatever the process's mask, also in a folder that others may enter: amounts and ids are nobody else's business."""
    mask = os.umask(0)
    try:
        with opened(tmp_path) as spool:
            spool.append(calls(1, 2))
            spool.finish(1, [], [refusal_of(call("1"), "invalid_usage", "no")])
        segment = tmp_path / "00000001.calls"
        segment.write_bytes(segment.read_bytes() + b"torn")
        with opened(tmp_path):
            pass
        with opened(tmp_path / "new"):
            pass
    finally:
        os.umask(mask)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"00000001.calls", "00000001.torn", "refused.ndjson", "done", "lock"} <= {file.name for file in files}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cant_be_used_is_told(tmp_path: Path) -> None:
    """A file in its place."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolFailed), opened(tmp_path / "file"):
        pass


def test_threads_share_a_sync_and_lose_nothing(tmp_path: Path) -> None:
    """Each call once, those of a thread in its order, over many segments, while another thread sends."""
    with opened(tmp_path, segment_bytes=2000) as spool:

        def fill(name: int) -> None:
            for number in range(40):
                spool.append(calls(f"{name}:{number}"))

        threads = [threading.Thread(target=fill, args=(name,)) for name in range(6)]
        for thread in threads:
            thread.start()
        sent: list[str] = []
        while len(sent) < 240:
            found = keys(spool, 7)
            spool.finish(len(found), [], [])
            sent += [str(key) for key in found]
        for thread in threads:
            thread.join()
        assert len(spool) == 0
    for name in range(6):
        assert [key for key in sent if key.startswith(f"{name}:")] == [f"{name}:{number}" for number in range(40)]


@pytest.mark.parametrize("step", ["_write", "_sync", "_note_done"])
def test_a_kill_between_two_steps_leaves_a_call_twice_and_never_none(tmp_path: Path, step: str) -> None:
    """One goes to the end and one aside: a process that dies in the midst of it has lost neither."""
    with opened(tmp_path) as spool:
        spool.append(calls(1, 2, 3))
    child = os.fork()
    if child == 0:
        spool = Spool(tmp_path, BOUNDS)
        setattr(spool, step, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        spool.finish(2, calls(1), [refusal_of(call("2"), "invalid_usage", "no")])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with opened(tmp_path) as spool:
        assert [each.body["event_key"] for each in spool.refusals()] == ["2"]
        assert keys(spool) == ["1", "2", "3", *(["1"] if step == "_note_done" else [])] or step == "_sync"
        assert set(keys(spool)) == {"1", "2", "3"}


def test_refused_calls_are_kept_with_their_reason(tmp_path: Path) -> None:
    """Over a restart, also after a line that a kill left unfinished."""
    with opened(tmp_path) as spool:
        spool.append(calls(1, 2))
        spool.finish(1, [], [refusal_of(call("1"), "invalid_usage", "no such workspace", {"field": "workspace"})])
    file = tmp_path / "refused.ndjson"
    file.write_bytes(file.read_bytes() + b'{"version": 1, "code": "inv')
    with opened(tmp_path) as spool:
        (refusal,) = spool.refusals()
        assert (refusal.code, refusal.message, refusal.body["event_key"]) == ("invalid_usage", "no such workspace", "1")
        assert (refusal.said_at, refusal.problem) == (AT, {"field": "workspace"})
        assert spool.standing().refused == 1
    assert json.loads(file.read_text().splitlines()[0])["code"] == "invalid_usage"


def test_refused_calls_of_another_version_are_told(tmp_path: Path) -> None:
    """When they are asked for."""
    (tmp_path / "refused.ndjson").write_text('{"version": 2}\n')
    with opened(tmp_path) as spool, pytest.raises(SpoolUnreadable, match="version 2"):
        spool.refusals()


@pytest.mark.parametrize("kind", [Spool, Memory])
def test_exposure_is_the_money_that_waits(tmp_path: Path, kind: type) -> None:
    """Per actor and whole: a running total by its largest, corrections with their sign, a settle as its hold's actor, exactly."""
    queue = kind(tmp_path, BOUNDS) if kind is Spool else kind(BOUNDS)
    later = AT.replace(hour=13)
    queue.append(
        [
            call("1", "0.000000000001"),
            call("2", "999999999999"),
            call("3", "2", "bo"),
            Call(CUMULATIVE, {"actor": "bo", "request": "r", "total": "3"}, AT),
            Call(CUMULATIVE, {"actor": "bo", "request": "r", "total": "2"}, later),
            Call(CORRECTION, {"entry": "x", "amount": "-0.5", "event_key": "c"}, later),
            Call("/v1/holds/settle", {"hold_id": "h", "amount": "1"}, later, instead={"actor": "cy"}),
            Call("/v1/holds/release", {"hold_id": "h"}, later),
        ]
    )
    standing = queue.standing()
    assert standing.by_actor == {
        "ada": Decimal("999999999999.000000000001"),
        "bo": Decimal(5),
        None: Decimal("-0.5"),
        "cy": Decimal(1),
    }
    assert standing.exposure == Decimal("1000000000004.500000000001")
    assert (standing.calls, standing.oldest) == (8, AT)
    if isinstance(queue, Spool):
        queue.close()


def test_memory_is_bounded_too() -> None:
    """A call that does not fit is refused whole."""
    queue = Memory(Bounds(2, 10_000))
    queue.append(calls(1))
    with pytest.raises(Overloaded):
        queue.append(calls(2, 3))
    queue.append(calls(2))
    queue.finish(1, [], [])
    assert keys(queue) == ["2"]
