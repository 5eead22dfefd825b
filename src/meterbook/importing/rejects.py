"""The file of rows that did not land. Mended rows of it can be imported again, under the same name or another."""

import csv
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from meterbook.importing.records import Row, RowProblem
from meterbook.importing.refusal import ImportRefused

FIRST_KEPT = 5
COLUMNS = ("line", "code", "reason", "row")


class Rejects:
    r"""Written anew by each run, and only if a row is rejected; what an earlier run left is removed.

    Bytes of a row that are not UTF-8 or not printable stand as ``\xff``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.first: list[tuple[Row, RowProblem]] = []
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        if self.path.exists():
            if not _is_rejects_file(self.path):
                raise ImportRefused(f"{self.path} is there and is no rejects file; name another one with --rejects")
            self.path.unlink()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, row: Row, problem: RowProblem) -> None:
        if self._file is None:
            self._file = self.path.open("w", encoding="utf-8", newline="")
            csv.writer(self._file).writerow(COLUMNS)
        self.count += 1
        if len(self.first) < FIRST_KEPT:
            self.first.append((row, problem))
        csv.writer(self._file).writerow((row.line, problem.code, problem.message, _readable(row.raw)))

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()


def _readable(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace").replace("\0", "\\x00")


def _is_rejects_file(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().rstrip("\r\n") == ",".join(COLUMNS)
