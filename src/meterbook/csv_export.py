"""Entries as CSV that a spreadsheet opens without running anything: as they are read, a page at a time."""

import csv
import io
from collections.abc import AsyncIterator, Mapping
from typing import Any

from meterbook.book import Book
from meterbook.core.derivation import amount_text
from meterbook.core.entry_pages import EntryPage, UsageEntry
from meterbook.plain import time_text

CSV = "text/csv"
ROWS_PER_PAGE = 1000
COLUMNS = (
    "id", "occurred_at", "recorded_at", "actor", "category", "source", "description", "amount", "period", "belongs_to",
    "workspace", "workflow", "execution", "source_reference", "line", "corrects", "reason",
)  # fmt: skip
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
_TIMES = ("occurred_at", "recorded_at")


async def csv_of(book: Book, entity: str, wanted: Mapping[str, Any], page: EntryPage) -> AsyncIterator[bytes]:
    """From the first page on; between two pages no connection is held, however slow the reader is."""
    yield _text([COLUMNS])
    while True:
        yield _text([_cells(entry) for entry in page.entries])
        if page.next_cursor is None:
            return
        page = await book.entries(entity, **wanted, limit=ROWS_PER_PAGE, cursor=page.next_cursor, summary=False)


def _cells(entry: UsageEntry) -> list[str]:
    return [_cell(name, getattr(entry, name)) for name in COLUMNS]


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "amount":
        return amount_text(value)
    if name in _TIMES:
        return time_text(value)
    return safe(str(value))


def safe(text: str) -> str:
    """A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _text(rows: list[Any]) -> bytes:
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerows(rows)
    return written.getvalue().encode()
