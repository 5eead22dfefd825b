"""How calls lie in a segment of the spool: a header, then frames of a mark, a length, a checksum and the call. Pure.

What a kill leaves of the last write is a beginning of it: a torn tail. Anything else that can't be read is damage, and is told.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

HEADER = b"meterbook spool 1\n"
MARK = b"\xf1mb\x00"
_LENGTHS = struct.Struct(">II")
OVERHEAD = len(MARK) + _LENGTHS.size
PAYLOAD_BYTES_MAX = 64 * 1024 * 1024


class Framed(NamedTuple):
    """A call's place in its segment, and its bytes."""

    offset: int
    size: int
    payload: bytes


class Scanned(NamedTuple):
    """The sound frames of a segment, where they end, and whether a sound one follows what ended them: then something is damaged."""

    frames: list[Framed]
    end: int
    is_damaged: bool


def frame(payload: bytes) -> bytes:
    length = struct.pack(">I", len(payload))
    return MARK + length + struct.pack(">I", crc32(length + payload)) + payload


def scan(content: bytes) -> Scanned:
    """Of a segment that begins with HEADER."""
    frames = list(_sound(content, len(HEADER)))
    end = frames[-1].offset + frames[-1].size if frames else len(HEADER)
    return Scanned(frames, end, _any_sound_after(content, end))


def read_frame(found: bytes) -> bytes:
    """The payload of one whole frame. Raises `ValueError` for what is none."""
    sound = _frame_at(found, 0)
    if sound is None or sound.size != len(found):
        raise ValueError("not a frame")
    return sound.payload


def _sound(content: bytes, offset: int) -> Iterator[Framed]:
    while (found := _frame_at(content, offset)) is not None:
        yield found
        offset += found.size


def _frame_at(content: bytes, offset: int) -> Framed | None:
    start = offset + OVERHEAD
    if content[offset : offset + len(MARK)] != MARK or len(content) < start:
        return None
    length, checksum = _LENGTHS.unpack_from(content, offset + len(MARK))
    payload = content[start : start + length]
    if length > PAYLOAD_BYTES_MAX or len(payload) < length:
        return None
    if crc32(struct.pack(">I", length) + payload) != checksum:
        return None
    return Framed(offset, OVERHEAD + length, payload)


def _any_sound_after(content: bytes, end: int) -> bool:
    place = content.find(MARK, end)
    while place >= 0:
        if _frame_at(content, place) is not None:
            return True
        place = content.find(MARK, place + 1)
    return False
