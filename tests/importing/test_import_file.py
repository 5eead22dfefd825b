"""A file into a real ledger: every row once, whatever happens, and nothing lost silently."""

import asyncio
import csv
import os
import random
from decimal import Decimal
from io import BytesIO
from pathlib import Path

import pytest

from meterbook.book import Book
from meterbook.importing import import_file
from meterbook.importing.import_file import ImportReport, import_stream
from meterbook.importing.mapping import ColumnMapping
from meterbook.importing.refusal import ImportRefused
from meterbook.importing.rejects import Rejects
from tests.importing.reading import NOON

HERE = Path(__file__).parent
REAL_FILES = Path(os.environ.get("METERBOOK_DATA", HERE.parents[2] / "shared" / "data"))
AZURE = ColumnMapping(
    {"occurred_at": "TIMESTAMP", "input_tokens": "ContextTokens", "output_tokens": "GeneratedTokens"},
    {"actor": "azure", "source": "workflow", "model": "gpt-4o"},
)
HEADER = b"actor,source,description,amount\n"


async def import_bytes(
    book: Book, content: bytes, rejects: Path, *, name: str = "june.csv", mapping: ColumnMapping | None = None
) -> ImportReport:
    with Rejects(rejects) as kept:
        return await import_stream(
            book, BytesIO(content), name=name, mapping=mapping or ColumnMapping(), rejects=kept, now=NOON
        )


def counts(report: ImportReport) -> tuple[int, int, int, int]:
    """(inserted, replayed, zero, rejected), having checked that no row is missing."""
    assert report.rows == report.inserted + report.replayed + report.zero + report.rejected
    return report.inserted, report.replayed, report.zero, report.rejected


def rejected(path: Path) -> list[tuple[str, str, str]]:
    """(line, code, row) of each rejected row."""
    with path.open(newline="") as file:
        return [(each["line"], each["code"], each["row"]) for each in csv.DictReader(file)]


def is_there(path: Path) -> bool:
    return path.exists()


def read(path: Path) -> str:
    return path.read_text()


def write(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.fixture
def rejects(tmp_path: Path) -> Path:
    return tmp_path / "rejects.csv"


async def test_a_second_import_adds_nothing(book: Book, rejects: Path) -> None:
    """The same file under the same name is the same usage: 400 calls, 3.641515 at gpt-4o's prices, once."""
    content = (HERE / "azure_shape.csv").read_bytes()
    first = await import_bytes(book, content, rejects, mapping=AZURE)
    second = await import_bytes(book, content, rejects, mapping=AZURE)
    assert (counts(first), first.amount) == ((400, 0, 0, 0), Decimal("3.641515"))
    assert (counts(second), second.amount) == ((0, 400, 0, 0), Decimal(0))
    assert (await book.usage("user:azure")).total == Decimal("3.641515")
    assert await book.verify() == []


@pytest.mark.parametrize(
    ("file", "rows", "amount"),
    [("azure_llm_conv.csv", 19_366, "96.791325"), ("azure_llm_code.csv", 8_819, "47.608895")],
)
async def test_real_calls_are_priced_to_the_last_digit(
    book: Book, rejects: Path, file: str, rows: int, amount: str
) -> None:
    """The Azure LLM inference traces of 2023, as if each call had gone to gpt-4o: 2.50 and 10 a million tokens."""
    if not (REAL_FILES / file).exists():
        pytest.skip(f"{file} is not there: METERBOOK_DATA names the folder that has it")
    content = (REAL_FILES / file).read_bytes()
    first = await import_bytes(book, content, rejects, name=file, mapping=AZURE)
    second = await import_bytes(book, content, rejects, name=file, mapping=AZURE)
    assert (counts(first), first.amount) == ((rows, 0, 0, 0), Decimal(amount))
    assert (counts(second), second.amount) == ((0, rows, 0, 0), Decimal(0))
    assert (await book.usage("user:azure")).total == Decimal(amount)
    assert await book.verify() == []


async def test_a_file_that_grew_adds_its_new_rows(book: Book, rejects: Path) -> None:
    """Also if the last row had no line end before, and if a new row equals an old one."""
    await import_bytes(book, HEADER + b"u,s,d,1\nv,s,d,2", rejects)
    grown = await import_bytes(book, HEADER + b"u,s,d,1\nv,s,d,2\nu,s,d,1\nw,s,d,4\n", rejects)
    assert (counts(grown), grown.amount) == ((2, 2, 0, 0), Decimal(5))


async def test_rows_in_another_order_are_the_same_rows(book: Book, rejects: Path) -> None:
    """An export that is sorted differently the next time adds nothing."""
    header, *rows = (HERE / "azure_shape.csv").read_bytes().splitlines()
    await import_bytes(book, b"\n".join([header, *rows]), rejects, mapping=AZURE)
    random.Random(7).shuffle(rows)
    again = await import_bytes(book, b"\n".join([header, *rows]), rejects, mapping=AZURE)
    assert counts(again) == (0, 400, 0, 0)


async def test_equal_rows_count_each(book: Book, rejects: Path) -> None:
    """Three equal rows are three calls, in one batch or over several."""
    report = await import_bytes(book, HEADER + b"u,s,d,0.5\n" * 3, rejects)
    assert (counts(report), report.amount) == ((3, 0, 0, 0), Decimal("1.5"))


async def test_equal_rows_in_several_batches_count_each(
    book: Book, rejects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one batch ends and the next begins changes nothing."""
    monkeypatch.setattr(import_file, "BATCH_ROWS", 2)
    for _ in range(2):
        await import_bytes(book, HEADER + b"u,s,d,0.5\n" * 5, rejects)
    assert (await book.usage("user:u")).total == Decimal("2.5")


BAD_ROWS = {
    b"u,s,d,NaN": "bad_number",
    b"u,s,d,-1": "invalid_amount",
    b"u,s,d,0.1234567890123": "invalid_amount",
    b"u,s,d,1000000000000": "invalid_amount",
    b"u,s,d": "row_fields",
    b"u,s,d,1,2": "row_fields",
    b",s,d,1": "missing_field",
    b"u,s,\xff,1": "row_encoding",
    b"u,s,\0,1": "row_encoding",
    b'u,s,"open,1': "row_quotes",
    b"u" * 256 + b",s,d,1": "too_long",
}


async def test_bad_rows_are_listed_and_the_rest_lands(book: Book, rejects: Path) -> None:
    """Each with the line where it begins, a code, and the row as it was; good rows stand before, between and after."""
    lines = [line for bad in BAD_ROWS for line in (b"good,s,d,1", bad)]
    report = await import_bytes(book, HEADER + b"\n".join(lines) + b"\ngood,s,d,1\n", rejects)
    assert counts(report) == (len(BAD_ROWS) + 1, 0, 0, len(BAD_ROWS))
    expected = [(str(3 + 2 * i), code) for i, code in enumerate(BAD_ROWS.values())]
    assert [(line, code) for line, code, _ in rejected(rejects)] == expected
    assert rejected(rejects)[7][2] == r"u,s,\xff,1"
    assert (await book.usage("user:good")).total == Decimal(len(BAD_ROWS) + 1)


async def test_rows_that_the_ledger_refuses_are_listed_too(book: Book, rejects: Path) -> None:
    """A time ahead of the clock, an unknown workspace, a key that was used for something else: the rest lands."""
    header = b"actor,source,description,amount,occurred_at,workspace,event_key\n"
    await import_bytes(book, header + b"u,s,d,1,,,k1\n", rejects)
    rows = b"u,s,d,1,2026-06-20T12:06:00Z,,\nu,s,d,1,,nowhere,\nu,s,d,2,,,k1\nu,s,d,4,2026-06-20T12:04:00Z,,k2\n"
    report = await import_bytes(book, header + rows, rejects)
    assert (counts(report), report.amount) == ((1, 0, 0, 3), Decimal(4))
    assert [(line, code) for line, code, _ in rejected(rejects)] == [
        ("2", "occurred_in_the_future"),
        ("3", "unknown_workspace"),
        ("4", "key_conflict"),
    ]


async def test_a_payer_that_nobody_can_be_is_one_bad_row(book: Book, rejects: Path) -> None:
    """`user:#7` is how one that was erased is shown: no trying again mends that row, and the others of its batch land."""
    rows = b"".join(b"ada,workflow,gpt-4o,0.01,%b\n" % (b"user:#7" if n == 3 else b"") for n in range(250))
    report = await import_bytes(book, b"actor,source,description,amount,entity\n" + rows, rejects)
    assert counts(report) == (249, 0, 0, 1)
    assert rejected(rejects) == [("5", "unknown_entity", "ada,workflow,gpt-4o,0.01,user:#7")]


async def test_mended_rows_land_and_the_others_are_replayed(book: Book, rejects: Path) -> None:
    """And the rejects of the run before are gone: the file says what is still open, or is not there."""
    await import_bytes(book, HEADER + b"u,s,d,1\nu,s,d,x\n", rejects)
    assert len(rejected(rejects)) == 1
    mended = await import_bytes(book, HEADER + b"u,s,d,1\nu,s,d,2\n", rejects)
    assert counts(mended) == (1, 1, 0, 0)
    assert not is_there(rejects)


async def test_a_file_that_is_not_a_rejects_file_is_never_written_over(book: Book, rejects: Path) -> None:
    """The import is refused before it begins."""
    write(rejects, "somebody's notes\n")
    with pytest.raises(ImportRefused, match="no rejects file"):
        await import_bytes(book, HEADER + b"u,s,d,x\n", rejects)
    assert read(rejects) == "somebody's notes\n"


async def test_rows_worth_nothing_are_counted_and_write_nothing(book: Book, rejects: Path) -> None:
    """Zero is accepted (BEHAVIOUR §2): a call that used no tokens is no mistake."""
    report = await import_bytes(book, HEADER + b"u,s,d,0\nu,s,d,0.00\nu,s,d,1\n", rejects)
    assert counts(report) == (1, 0, 2, 0)


async def test_two_imports_of_one_file_at_once_add_it_once(book: Book, tmp_path: Path) -> None:
    """Each row is inserted by one of them and replayed by the other."""
    content = (HERE / "azure_shape.csv").read_bytes()
    reports = await asyncio.gather(
        *(import_bytes(book, content, tmp_path / f"{n}.csv", mapping=AZURE) for n in range(2))
    )
    assert sum(report.inserted for report in reports) == 400
    assert sum(report.replayed for report in reports) == 400
    assert (await book.usage("user:azure")).total == Decimal("3.641515")


async def test_an_empty_file_is_no_error_with_a_header_and_one_without(book: Book, rejects: Path) -> None:
    """A header alone has no rows; nothing at all has no columns."""
    assert counts(await import_bytes(book, HEADER, rejects)) == (0, 0, 0, 0)
    with pytest.raises(ImportRefused):
        await import_bytes(book, b"", rejects)
