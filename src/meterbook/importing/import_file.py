"""The loop of an import: batches of rows to the ledger, one batch being read while the one before is written."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from time import monotonic
from typing import BinaryIO

from meterbook.book import Book
from meterbook.core.entries import Usage
from meterbook.core.recorded import BulkRecorded
from meterbook.errors import Unavailable
from meterbook.importing.keys import RowKeys
from meterbook.importing.mapping import ColumnMapping, ResolvedMapping, resolve
from meterbook.importing.records import Lines, Row, RowProblem, read_csv, read_header, read_ndjson, sniff_format
from meterbook.importing.rejects import Rejects
from meterbook.importing.rows import RowReader

BATCH_ROWS = 5_000
BATCH_BYTES_MAX = 8_388_608
RETRY_WAITS_MS = (100, 400, 1_600, 6_400)


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of each row: ``rows`` = inserted + replayed + zero + rejected.

    ``amount`` is what this run added. ``unused``: columns that nothing reads.
    """

    name: str
    rows: int
    inserted: int
    replayed: int
    zero: int
    rejected: int
    amount: Decimal
    seconds: float
    timezone: str
    unused: tuple[str, ...]


@dataclass(slots=True)
class _Batch:
    rows: list[Row] = field(default_factory=list)
    entries: list[Usage] = field(default_factory=list)
    bad: list[tuple[Row, RowProblem]] = field(default_factory=list)
    bytes: int = 0

    def is_full(self) -> bool:
        return len(self.rows) + len(self.bad) >= BATCH_ROWS or self.bytes >= BATCH_BYTES_MAX


@dataclass(slots=True)
class _Tally:
    rows: int = 0
    inserted: int = 0
    replayed: int = 0
    zero: int = 0
    amount: Decimal = Decimal(0)


async def import_stream(
    book: Book,
    stream: BinaryIO,
    *,
    name: str,
    mapping: ColumnMapping,
    rejects: Rejects,
    now: datetime,
    file_format: str | None = None,
    delimiter: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Records every row of ``stream`` that can be recorded; the others go to ``rejects``.

    ``name`` is part of each row's key: the same rows under the same name are the same usage. ``now`` prices
    rows that carry no time. ``on_progress(bytes read, rows done)`` is called after each batch.

    Raises ImportRefused if the file as a whole can't be read with this mapping, and what ``Book`` raises when it
    can't go on. Batches that were recorded stay; the same call again goes on behind them.
    """
    started = monotonic()
    lines = Lines(stream)
    opened = _open(lines, mapping, file_format, delimiter)
    batches = _batches(opened.rows, RowReader(opened.mapping, opened.header, RowKeys(name), now))
    tally = _Tally()
    batch = await asyncio.to_thread(next, batches, None)
    while batch is not None:
        done = lines.bytes_read
        writing = asyncio.create_task(_record(book, batch, tally, rejects))
        try:
            following = await asyncio.to_thread(next, batches, None)
        finally:
            await writing
        if on_progress is not None:
            on_progress(done, tally.rows)
        batch = following
    return ImportReport(
        name=name,
        rows=tally.rows,
        inserted=tally.inserted,
        replayed=tally.replayed,
        zero=tally.zero,
        rejected=rejects.count,
        amount=tally.amount,
        seconds=monotonic() - started,
        timezone=str(mapping.timezone),
        unused=opened.mapping.unused,
    )


@dataclass(frozen=True, slots=True)
class _Opened:
    header: list[str] | None
    mapping: ResolvedMapping
    rows: Iterator[Row]


def _open(lines: Lines, mapping: ColumnMapping, file_format: str | None, delimiter: str | None) -> _Opened:
    if (file_format or sniff_format(lines)) == "ndjson":
        return _Opened(None, resolve(mapping, None), read_ndjson(lines))
    header, used = read_header(lines, delimiter)
    return _Opened(header, resolve(mapping, header), read_csv(lines, used))


def _batches(rows: Iterator[Row], reader: RowReader) -> Iterator[_Batch]:
    batch = _Batch()
    for row in rows:
        batch.bytes += len(row.raw)
        read = reader.read(row)
        if isinstance(read, RowProblem):
            batch.bad.append((row, read))
        else:
            batch.rows.append(row)
            batch.entries.append(read)
        if batch.is_full():
            yield batch
            batch = _Batch()
    if batch.bytes:
        yield batch


async def _record(book: Book, batch: _Batch, tally: _Tally, rejects: Rejects) -> None:
    recorded = await _record_patiently(book, batch.entries)
    refused = {problem.index: problem for problem in recorded.problems if problem.index is not None}
    for index, problem in refused.items():
        batch.bad.append((batch.rows[index], RowProblem(problem.code, f"{problem.field} {problem.message}")))
    tally.rows += len(batch.entries) - len(refused) + len(batch.bad)
    tally.inserted += recorded.inserted
    tally.replayed += recorded.replayed
    tally.amount += recorded.amount
    tally.zero += sum(1 for index, entry in enumerate(batch.entries) if not entry.amount and index not in refused)
    for row, reason in sorted(batch.bad, key=lambda each: each[0].line):
        rejects.add(row, reason)
    rejects.flush()


async def _record_patiently(book: Book, entries: list[Usage]) -> BulkRecorded:
    """Tries again what may pass by itself; their keys make entries that landed unseen a replay."""
    for wait_ms in RETRY_WAITS_MS:
        try:
            return await book.record_bulk(entries)
        except Unavailable:
            await asyncio.sleep(wait_ms / 1000)
    return await book.record_bulk(entries)
