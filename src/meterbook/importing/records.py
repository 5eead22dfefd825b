"""A stream of bytes to raw rows. Knows lines, quotes and braces; knows nothing of usage."""

import csv
import json
from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import BinaryIO, NamedTuple

ROW_BYTES_MAX = 1_048_576
"""A longer row is rejected whole, unread: it is never cut into pieces that could pass for rows."""

_BOM = b"\xef\xbb\xbf"
_DELIMITERS = b",;\t|"


class RowProblem(NamedTuple):
    """Why a row can't be an entry: a stable code, and a sentence for the person who has to mend it."""

    code: str
    message: str


class Row(NamedTuple):
    """One logical row. ``line`` is the physical line where it begins; ``raw`` has no line end."""

    line: int
    raw: bytes
    cells: list[str] | dict[str, object] | None
    problem: RowProblem | None


class Line(NamedTuple):
    """A physical line without its end. One longer than ROW_BYTES_MAX is cut there."""

    number: int
    raw: bytes
    quotes_cut_off: int | None
    """Quotes in the part that was cut off; None for a whole line."""
    end: int
    """Where the next line begins, in bytes from the start of the stream."""


class Lines:
    """The physical lines of a stream, numbered from 1; holds one at a time, and those given back."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._returned: deque[Line] = deque()
        self._number = 0
        self.bytes_read = 0

    def next_line(self) -> Line | None:
        if self._returned:
            return self._returned.popleft()
        raw = self._stream.readline(ROW_BYTES_MAX + 1)
        if not raw:
            return None
        self.bytes_read += len(raw)
        self._number += 1
        if self._number == 1 and raw.startswith(_BOM):
            raw = raw[len(_BOM) :]
        cut = len(raw) > ROW_BYTES_MAX and not raw.endswith(b"\n")
        quotes_cut_off = self._skip_to_line_end() if cut else None
        return Line(self._number, raw.rstrip(b"\r\n"), quotes_cut_off, self.bytes_read)

    def give_back(self, lines: list[Line]) -> None:
        """These lines will be read again, before the others."""
        self._returned.extendleft(reversed(lines))

    def go_back_behind(self, line: Line) -> bool:
        """The lines after this one will be read again; False where the stream can't go back."""
        if not self._stream.seekable():
            return False
        self._stream.seek(line.end)
        self._returned.clear()
        self._number, self.bytes_read = line.number, line.end
        return True

    def _skip_to_line_end(self) -> int:
        quotes = 0
        while rest := self._stream.readline(ROW_BYTES_MAX):
            self.bytes_read += len(rest)
            quotes += rest.count(b'"')
            if rest.endswith(b"\n"):
                break
        return quotes


def sniff_format(lines: Lines) -> str:
    """``ndjson`` if the first line that is not blank opens a brace, else ``csv``. Reads nothing away."""
    read = []
    found = "csv"
    while line := lines.next_line():
        read.append(line)
        if line[1].strip():
            found = "ndjson" if line[1].lstrip().startswith(b"{") else "csv"
            break
    lines.give_back(read)
    return found


def read_header(lines: Lines, delimiter: str | None) -> tuple[list[str], str]:
    """The column names and the delimiter: the one given, else whichever of ``, ; tab |`` is in the header most."""
    while line := lines.next_line():
        if line[1].strip():
            used = delimiter or _likeliest_delimiter(line[1])
            lines.give_back([line])
            header = next(read_csv(lines, used))
            cells = header.cells if isinstance(header.cells, list) else []
            return [cell.strip() for cell in cells], used
    return [], delimiter or ","


def _likeliest_delimiter(header: bytes) -> str:
    return chr(max(_DELIMITERS, key=header.count))


def read_csv(lines: Lines, delimiter: str) -> Iterator[Row]:
    """Rows of RFC 4180. A row without quotes is split here; one with quotes, which may span lines, by ``csv``."""
    while line := lines.next_line():
        number, raw, quotes_cut_off, _ = line
        if quotes_cut_off is not None:
            yield _too_long([line], lines)
        elif b'"' in raw:
            yield _quoted_row(line, lines, delimiter)
        elif raw:
            text, problem = _decoded(raw)
            yield Row(number, raw, text.split(delimiter) if problem is None else None, problem)


def read_ndjson(lines: Lines) -> Iterator[Row]:
    """One JSON object a line. Numbers keep the digits that were written: integers are int, all others Decimal."""
    while line := lines.next_line():
        number, raw, quotes_cut_off, _ = line
        if quotes_cut_off is not None:
            yield Row(number, raw, None, _too_long_problem(number, number))
        elif raw.strip():
            text, problem = _decoded(raw)
            yield Row(number, raw, None, problem) if problem else _json_row(number, raw, text)


def _decoded(raw: bytes) -> tuple[str, RowProblem | None]:
    if b"\0" in raw:
        return "", RowProblem("row_encoding", "the row contains a NUL byte")
    try:
        return raw.decode(), None
    except UnicodeDecodeError as error:
        return "", RowProblem("row_encoding", f"not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start}")


def _json_row(number: int, raw: bytes, text: str) -> Row:
    try:
        value = parse_json(text)
    except RecursionError:
        return Row(number, raw, None, RowProblem("row_json", "not JSON that can be read: nested too deeply"))
    except ValueError as error:
        return Row(number, raw, None, RowProblem("row_json", f"not JSON that can be read: {error}"))
    if not isinstance(value, dict):
        return Row(number, raw, None, RowProblem("row_json", "each line must be one JSON object"))
    return Row(number, raw, value, None)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number")


def _object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names the same field twice")
    return found


parse_json: Callable[[str], object] = json.JSONDecoder(
    parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_object_of
).decode


def _quoted_row(first: Line, source: Lines, delimiter: str) -> Row:
    """A row with a quote in its first line.

    A quote that is never closed, or is followed by something else than a delimiter, spoils its own line only: the
    lines after it are read again as rows. Text that a correct writer quoted is never read as rows.
    """
    taken = _Taken(first, source)
    csv.field_size_limit(2 * ROW_BYTES_MAX)
    try:
        cells = next(csv.reader(taken, delimiter=delimiter, strict=True))
    except csv.Error as error:
        if taken.too_long:
            return _too_long(taken.lines, source)
        source.give_back(taken.lines[1:])
        return Row(first.number, first.raw, None, _mismatched_quotes(str(error)))
    raw = b"\n".join(line.raw for line in taken.lines)
    _, problem = _decoded(raw)
    return Row(first.number, raw, cells if problem is None else None, problem)


class _Taken:
    """Feeds ``csv`` the lines that it asks for to complete one row, and keeps them."""

    def __init__(self, first: Line, source: Lines) -> None:
        self.lines = [first]
        self.too_long = False
        self._source = source
        self._bytes = len(first.raw)

    def __iter__(self) -> Iterator[str]:
        yield _lenient(self.lines[0])
        while not self.too_long and (line := self._source.next_line()):
            self.lines.append(line)
            self._bytes += len(line.raw) + 1
            self.too_long = line.quotes_cut_off is not None or self._bytes > ROW_BYTES_MAX
            yield _lenient(line)


def _lenient(line: Line) -> str:
    return line.raw.decode(errors="replace") + "\n"


def _too_long(taken: list[Line], source: Lines) -> Row:
    """Reads on to the end of the row, where its quotes match, keeping nothing; without such an end, goes back."""
    first, last = taken[0], taken[-1].number
    quotes = sum(_quotes(line) for line in taken)
    while quotes % 2 and (line := source.next_line()):
        quotes += _quotes(line)
        last = line.number
    if quotes % 2 and source.go_back_behind(first):
        return Row(first.number, first.raw, None, _mismatched_quotes("a quote is opened and never closed"))
    raw = b"\n".join(line.raw for line in taken)[:ROW_BYTES_MAX]
    return Row(first.number, raw, None, _too_long_problem(first.number, last))


def _quotes(line: Line) -> int:
    return line.raw.count(b'"') + (line.quotes_cut_off or 0)


def _mismatched_quotes(why: str) -> RowProblem:
    return RowProblem("row_quotes", f"quotes that don't match: {why}")


def _too_long_problem(first: int, last: int) -> RowProblem:
    where = f"line {first}" if first == last else f"lines {first} to {last}"
    return RowProblem("row_too_long", f"the row ({where}) is longer than {ROW_BYTES_MAX:,} bytes")
