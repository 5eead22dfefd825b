"""Calls on disk while the server is away: segments in a folder, appended to and synced before anybody is told, sent in order.

    lock               held while a client uses the folder
    00000001.calls     a segment: frames.py says how it reads
    done               up to where calls were sent: a hint; without it they are sent again, which their keys make safe
    refused.ndjson     what the server refused for good, a line each
    00000001.torn      what a kill left of the last write, cut off; nobody was told that it was there

One reader, many writers, who share a sync.
"""

import errno
import fcntl
import os
import re
import struct
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import NamedTuple
from zlib import crc32

from meterbook.client.calls import Call, Waiting, decode, encode, waiting
from meterbook.client.frames import HEADER, PAYLOAD_BYTES_MAX, Framed, frame, read_frame, scan
from meterbook.client.queues import Bounds, Tally, standing_of
from meterbook.client.refused import RefusedFile, write_whole
from meterbook.client.results import Refusal, Spooled
from meterbook.errors import ClientClosed, SpoolFailed, SpoolFull, SpoolTaken, SpoolUnreadable

SEGMENT_BYTES = 4 * 1024 * 1024
SEGMENT = re.compile(r"[0-9]{8}\.calls")
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DONE = struct.Struct(">QQ")
_FOLDER_MODE = 0o700
CLOSED = -1
_LOCKS: set[int] = set()
"""Files of this process that hold a folder's lock. A child of a fork has them too, and would hold the folders beyond its parent's end."""


class Place(NamedTuple):
    """Where a call lies: its segment's number, the frame's offset and size."""

    segment: int
    offset: int
    size: int


class Spool:
    """A queue on disk. Made by opening its folder; `close` gives the folder back."""

    def __init__(self, folder: Path, bounds: Bounds, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Raises `SpoolTaken`, `SpoolUnreadable`, `SpoolFailed`."""
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._writing, self._syncing = Lock(), Lock()
        self._tally = Tally(bounds)
        self._places: deque[Place] = deque()
        self._unsynced: deque[tuple[Place, Waiting]] = deque()
        self._files: dict[int, int] = {}
        self._done = self._lock = CLOSED
        self._written = self._synced = 0
        self._failure: OSError | None = None
        self._last = self._end = 0
        self._is_begun = False  # the last segment, whose header a kill cut short
        try:
            folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            self._lock = _take_folder(folder)
        except OSError as error:
            raise SpoolFailed(f"{folder} can't be used: {error}") from error
        try:
            self._open()
        except OSError as error:
            self.close()
            raise SpoolFailed(f"{folder} can't be used: {error}") from error
        except SpoolUnreadable:
            self.close()
            raise

    def close(self) -> None:
        """Who is still appending is told that it is on disk, or `ClientClosed`."""
        with self._syncing, self._writing:
            with suppress(OSError):
                if self._unsynced:
                    self._flush_last()
            _LOCKS.discard(self._lock)
            for file in [*self._files.values(), self._done, self._lock]:
                if file != CLOSED:
                    os.close(file)
            self._files.clear()
            self._done = self._lock = CLOSED

    # ------------------------------------------------------------------------------------------------------------- appending

    def append(self, calls: Sequence[Call]) -> None:
        """Returns when they are on disk. Raises `SpoolFull`, `SpoolFailed`; then none of them is there."""
        framed = [_framed(call) for call in calls]
        with self._writing:
            more = [one for _, one in framed]
            if not self._tally.has_room([*(one for _, one in self._unsynced), *more], self._refused.size):
                raise SpoolFull(f"{self._folder} holds as much as it may; this call is neither there nor recorded")
            ticket = self._write(framed)
        self._sync(ticket)

    def _write(self, framed: Sequence[tuple[bytes, Waiting]]) -> int:
        self._raise_failure()
        if self._lock == CLOSED:
            raise ClientClosed
        try:
            if self._end >= self._segment_bytes:
                self._begin_segment()
            _write_at(self._files[self._last], b"".join(raw for raw, _ in framed), self._end)
        except OSError as error:
            self._take_back(error)
        for raw, one in framed:
            self._unsynced.append((Place(self._last, self._end, len(raw)), one))
            self._end += len(raw)
        self._written += len(framed)
        return self._written

    def _take_back(self, error: OSError) -> None:
        """What was written of it lies beyond the end, where the next call is written, and a tail that ends nowhere is cut."""
        with suppress(OSError):
            os.ftruncate(self._files[self._last], self._end)
        raise _refusal(error, self._folder) from error

    def _sync(self, ticket: int) -> None:
        """Whoever comes first syncs for all who have written by then."""
        with self._syncing:
            if self._synced >= ticket:
                return
            with self._writing:
                self._raise_failure()
                file, written = self._files[self._last], self._written
            try:
                self._flush(file)
            except OSError as error:
                raise _refusal(error, self._folder) from error
            with self._writing:
                self._publish(written)

    def _flush(self, file: int) -> None:
        """What a disk holds after it failed nobody knows, and it may say later that all is well: nothing is acknowledged any more."""
        try:
            os.fsync(file)
        except OSError as error:
            self._failure = error
            raise

    def _flush_last(self) -> None:
        self._flush(self._files[self._last])
        self._publish(self._written)

    def _publish(self, written: int) -> None:
        while self._synced < written:
            place, one = self._unsynced.popleft()
            self._places.append(place)
            self._tally.add(one)
            self._synced += 1

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise _refusal(self._failure, self._folder) from self._failure

    def _begin_segment(self) -> None:
        """One that was begun before on a full disk is begun anew."""
        if self._files:
            self._flush_last()
        number = self._last + 1
        file = os.open(self._path(number), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write_at(file, HEADER, 0)
            os.fsync(file)
            _sync_folder(self._folder)
        except OSError:
            os.close(file)
            raise
        self._files[number] = file
        self._last, self._end = number, len(HEADER)

    # --------------------------------------------------------------------------------------------------------------- sending

    def peek(self, skip: int, count: int) -> list[Call]:
        with self._writing:
            wanted = [self._places[n] for n in range(skip, min(skip + count, len(self._places)))]
        return [self._read(place) for place in wanted]

    def finish(self, passed: int, again: Sequence[Call], refused: Sequence[Refusal]) -> None:
        """A kill in between leaves a call twice, never none; its key makes the second a replay. Raises `SpoolFull`, `SpoolFailed`."""
        if refused:
            try:
                self._refused.append(refused)
            except OSError as error:
                raise _refusal(error, self._folder) from error
        if again:
            with self._writing:
                ticket = self._write([_framed(call) for call in again])
            self._sync(ticket)
        with self._writing:
            gone = [self._places.popleft() for _ in range(passed)]
            for _ in gone:
                self._tally.drop_first()
            if gone:
                self._note_done(gone[-1])
            is_one_sent = bool(self._sent())
        if is_one_sent:
            self._drop_sent()

    def _note_done(self, last: Place) -> None:
        """A hint: if it can't be written, more is sent again later."""
        with suppress(OSError):
            _write_at(self._done, _done_record(last.segment, last.offset + last.size), 0)

    def _drop_sent(self) -> None:
        """Segments of which nothing waits, unless somebody is about to sync one."""
        with self._syncing, self._writing:
            for number in self._sent():
                os.close(self._files.pop(number))
                with suppress(OSError):
                    self._path(number).unlink()

    def _sent(self) -> list[int]:
        keep = self._places[0].segment if self._places else self._last
        return [number for number in self._files if number < keep]

    def _read(self, place: Place) -> Call:
        raw = os.pread(self._files[place.segment], place.size, place.offset)
        try:
            return decode(read_frame(raw))
        except ValueError as wrong:
            raise SpoolUnreadable(f"{self._path(place.segment)} is damaged at byte {place.offset}: {wrong}") from wrong

    # --------------------------------------------------------------------------------------------------------------- telling

    def standing(self) -> Spooled:
        with self._writing:
            now = list(self._tally.waiting)
        return standing_of(now, len(self._refused))

    def refusals(self) -> list[Refusal]:
        return self._refused.read()

    def forget_refusals(self, count: int) -> None:
        self._refused.forget(count)

    def __len__(self) -> int:
        return len(self._places)

    # --------------------------------------------------------------------------------------------------------------- opening

    def _open(self) -> None:
        numbers = sorted(int(file.stem) for file in self._folder.iterdir() if SEGMENT.fullmatch(file.name))
        _check_gaps(self._folder, numbers)
        self._refused = RefusedFile(self._folder)
        self._done = os.open(self._folder / "done", os.O_RDWR | os.O_CREAT, 0o600)
        done = _read_done(self._done)
        self._last, self._end = (numbers[-1] if numbers else done[0]), 0
        torn = b""
        for number in numbers:
            torn = self._load(number, done, is_last=number == numbers[-1])
        if not numbers:
            self._begin_segment()
        elif done > (self._last, self._end) or 0 < done[0] < numbers[0] - 1:
            raise SpoolUnreadable(f"{self._folder} lacks calls that `done` speaks of; nothing was changed")
        elif torn or self._is_begun:
            self._cut(torn)

    def _load(self, number: int, done: tuple[int, int], *, is_last: bool) -> bytes:
        """What a kill left at its end, which is no call. Changes nothing."""
        path = self._path(number)
        self._files[number] = os.open(path, os.O_RDWR)
        content = path.read_bytes()
        if is_last and len(content) < len(HEADER) and HEADER.startswith(content):
            self._end = len(HEADER)
            self._is_begun = True
            return content
        if not content.startswith(HEADER):
            raise SpoolUnreadable(f"{path} is no segment of a spool that this version writes; nothing was changed")
        found = scan(content)
        if found.is_damaged or (not is_last and found.end < len(content)):
            raise SpoolUnreadable(
                f"{path} is damaged at byte {found.end}, and holds calls after it; nothing was changed."
                " Move the folder away to go on with a new one, and keep it: what is sound in it can still be read"
            )
        self._end = found.end
        for each in found.frames:
            if (number, each.offset) >= done:
                self._restore(number, each)
        return content[found.end :]

    def _restore(self, number: int, each: Framed) -> None:
        try:
            call = decode(each.payload)
        except ValueError as wrong:
            raise SpoolUnreadable(f"{self._path(number)} holds at byte {each.offset} {wrong}") from wrong
        self._places.append(Place(number, each.offset, each.size))
        self._tally.add(waiting(call, each.size))

    def _cut(self, torn: bytes) -> None:
        """Kept aside, for whoever wants to look; nobody was told that it was there."""
        if torn and not self._is_begun:
            write_whole(self._path(self._last).with_suffix(".torn"), torn)
        file = self._files[self._last]
        _write_at(file, HEADER, 0)
        os.ftruncate(file, self._end)
        os.fsync(file)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.calls"


def _framed(call: Call) -> tuple[bytes, Waiting]:
    payload = encode(call)
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise SpoolFull(f"a call of {len(payload)} bytes is larger than a spool takes")
    raw = frame(payload)
    return raw, waiting(call, len(raw))


def _take_folder(folder: Path) -> int:
    file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise SpoolTaken(f"{folder} is used by another client: give each process a folder of its own") from error
        raise
    _LOCKS.add(file)
    return file


def _leave_to_the_parent() -> None:
    while _LOCKS:
        os.close(_LOCKS.pop())


os.register_at_fork(after_in_child=_leave_to_the_parent)


def _check_gaps(folder: Path, numbers: Sequence[int]) -> None:
    for before, after in pairwise(numbers):
        if after != before + 1:
            raise SpoolUnreadable(
                f"{folder} lacks the segment {before + 1:08d}.calls, and has later ones; nothing was changed"
            )


def _done_record(segment: int, offset: int) -> bytes:
    said = _DONE.pack(segment, offset)
    return said + struct.pack(">I", crc32(said))


def _read_done(file: int) -> tuple[int, int]:
    """(0, 0) if it can't be read: everything is sent again, and replayed."""
    raw = os.pread(file, _DONE.size + 4, 0)
    if len(raw) < _DONE.size + 4 or _done_record(*_DONE.unpack_from(raw)) != raw:
        return 0, 0
    segment, offset = _DONE.unpack_from(raw)
    return segment, offset


def _write_at(file: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _refusal(error: OSError, folder: Path) -> SpoolFull | SpoolFailed:
    if error.errno in NO_ROOM:
        return SpoolFull(f"there is no room for {folder}: {error}; this call is neither there nor recorded")
    return SpoolFailed(f"{folder} can't be written: {error}; this call is neither there nor recorded")
