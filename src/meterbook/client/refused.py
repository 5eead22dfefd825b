"""What the server refused for good, a line of JSON each: kept until a person has looked at it."""

import json
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from meterbook.client.results import Refusal
from meterbook.errors import SpoolUnreadable

NAME = "refused.ndjson"


class RefusedFile:
    """A line that a kill left unfinished is cut: its call is still in the spool, and will be refused again."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._lock = Lock()
        content = self._path.read_bytes() if self._path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            self._replace(whole)
        self.size, self._count = len(whole), whole.count(b"\n")

    def append(self, refused: Sequence[Refusal]) -> None:
        raw = b"".join(map(_line, refused))
        with self._lock:
            self._write(raw)
            self.size += len(raw)
            self._count += len(refused)

    def read(self) -> list[Refusal]:
        with self._lock:
            return list(self._read())

    def forget(self, count: int) -> None:
        with self._lock:
            lines = self._path.read_bytes().splitlines(keepends=True)[count:] if self._path.exists() else []
            self._replace(b"".join(lines))
            self.size, self._count = sum(map(len, lines)), len(lines)

    def __len__(self) -> int:
        return self._count

    def _read(self) -> Iterator[Refusal]:
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                yield _refusal(json.loads(line))
            except (ValueError, KeyError, TypeError) as wrong:
                raise SpoolUnreadable(f"{self._path}, line {number}: {wrong}") from wrong

    def _write(self, raw: bytes) -> None:
        """At the end of what was kept: a disk that took part of a line before leaves nothing of it."""
        with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            if os.fstat(file.fileno()).st_size != self.size:
                file.truncate(self.size)
            file.seek(self.size)
            to_disk(file, raw)

    def _replace(self, content: bytes) -> None:
        beside = self._path.with_suffix(".new")
        write_whole(beside, content)
        beside.replace(self._path)


def write_whole(path: Path, content: bytes) -> None:
    """In place of what was there, on disk when it returns; for the owner's eyes."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        to_disk(file, content)


def to_disk(file: BinaryIO, content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def _line(refusal: Refusal) -> bytes:
    said = {
        "version": 1,
        "refused_at": refusal.refused_at.isoformat(),
        "code": refusal.code,
        "message": refusal.message,
        "said_at": refusal.said_at.isoformat(),
        "path": refusal.path,
        "body": refusal.body,
        "problem": dict(refusal.problem),
    }
    return json.dumps(said, ensure_ascii=False).encode() + b"\n"


def _refusal(said: dict[str, Any]) -> Refusal:
    if said["version"] != 1:
        raise ValueError(f"version {said['version']} is not one that this client reads")
    times = datetime.fromisoformat(said["said_at"]), datetime.fromisoformat(said["refused_at"])
    return Refusal(said["path"], said["body"], said["code"], said["message"], *times, said["problem"])
