"""Rows and entries read from a literal, as the import reads them from a file."""

from datetime import UTC, datetime
from io import BytesIO

from meterbook.core.entries import Usage
from meterbook.importing.keys import RowKeys
from meterbook.importing.mapping import ColumnMapping, resolve
from meterbook.importing.records import Lines, Row, RowProblem, read_csv, read_header, read_ndjson, sniff_format
from meterbook.importing.rows import RowReader

NOON = datetime(2026, 6, 20, 12, tzinfo=UTC)


def csv_rows(content: bytes, delimiter: str | None = None) -> list[Row]:
    lines = Lines(BytesIO(content))
    _, used = read_header(lines, delimiter)
    return list(read_csv(lines, used))


def ndjson_rows(content: bytes) -> list[Row]:
    return list(read_ndjson(Lines(BytesIO(content))))


def entries(content: bytes, mapping: ColumnMapping | None = None, *, name: str = "june") -> list[Usage | RowProblem]:
    """Each row of the content as an entry, or as the problem that it is."""
    lines = Lines(BytesIO(content))
    asked = mapping or ColumnMapping()
    if sniff_format(lines) == "ndjson":
        header, rows = None, read_ndjson(lines)
    else:
        header, delimiter = read_header(lines, None)
        rows = read_csv(lines, delimiter)
    reader = RowReader(resolve(asked, header), header, RowKeys(name), NOON)
    return [reader.read(row) for row in rows]
