"""Values out of cells: what is read exactly, and what is refused rather than guessed."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from meterbook.core.entries import Usage
from meterbook.importing.mapping import ColumnMapping, timezone_named
from meterbook.importing.records import RowProblem
from tests.importing.reading import entries

HEADER = b"actor,source,description,amount\n"


def entry(read: Usage | RowProblem) -> Usage:
    assert isinstance(read, Usage), read
    return read


def problem(read: Usage | RowProblem) -> RowProblem:
    assert isinstance(read, RowProblem), read
    return read


def test_columns_with_the_names_of_fields_need_no_mapping() -> None:
    """Whatever their case; other columns are left alone."""
    (read,) = entries(b"Actor,SOURCE,description,Amount,colour\nu,workflow,gpt-4o,0.0123,red\n")
    assert entry(read)._replace(event_key=None) == Usage("u", "workflow", "gpt-4o", Decimal("0.0123"))


@pytest.mark.parametrize(
    ("written", "exact"),
    [("0.10", "0.10"), ("7", "7"), (" 7 ", "7"), (".5", "0.5"), ("5.", "5"), ("1.5e-05", "0.000015"), ("-1", "-1")],
)
def test_amounts_are_read_digit_for_digit(written: str, exact: str) -> None:
    """Plain or scientific; whether the ledger takes the value is the ledger's word."""
    (read,) = entries(HEADER + f"u,s,d,{written}\n".encode())
    assert entry(read).amount == Decimal(exact)


@pytest.mark.parametrize(
    "written", ["NaN", "inf", "-Infinity", "1_000", "$1", "1.0.0", "٣", "0x10", "1e", "--1", "1e9999"]
)
def test_what_is_not_a_decimal_number_is_refused(written: str) -> None:
    """No currency signs, separators or digits of other scripts, and neither NaN nor infinity."""
    (read,) = entries(HEADER + f"u,s,d,{written}\n".encode())
    assert problem(read).code == "bad_number"


def test_an_amount_in_json_may_be_a_number_or_a_text() -> None:
    """Both keep their digits; true is not 1, and a list is no amount."""
    line = '{{"actor": 7, "source": "s", "description": "d", "amount": {}}}\n'
    texts = ["0.30000000000000000001", '"0.30000000000000000001"', "true", "[1]"]
    first, second, third, fourth = entries("".join(line.format(text) for text in texts).encode())
    assert entry(first).amount == entry(second).amount == Decimal("0.30000000000000000001")
    assert entry(first).actor == "7"
    assert problem(third).code == problem(fourth).code == "bad_number"


@pytest.mark.parametrize(
    ("row", "code", "named"),
    [
        (b"u,s,d", "row_fields", "3 fields where the header has 4"),
        (b"u,s,d,1,2", "row_fields", "5 fields where the header has 4"),
        (b",s,d,1", "missing_field", "actor"),
        (b"u,,d,1", "missing_field", "source"),
        (b"u,s,,1", "missing_field", "description"),
        (b"u,s,d,", "missing_field", "amount"),
    ],
)
def test_a_row_with_something_missing_is_refused_by_name(row: bytes, code: str, named: str) -> None:
    """The reason says which field."""
    (read,) = entries(HEADER + row + b"\n")
    assert problem(read).code == code
    assert named in problem(read).message


@pytest.mark.parametrize(
    ("written", "utc"),
    [
        ("2023-11-16 18:15:46.6805909", datetime(2023, 11, 16, 18, 15, 46, 680590, UTC)),
        ("2023-11-16T18:15:46Z", datetime(2023, 11, 16, 18, 15, 46, 0, UTC)),
        ("2023-11-16T18:15:46.5+02:00", datetime(2023, 11, 16, 16, 15, 46, 500_000, UTC)),
        ("2023-11-16", datetime(2023, 11, 16, 0, 0, 0, 0, UTC)),
    ],
)
def test_times_are_iso_8601_cut_to_microseconds(written: str, utc: datetime) -> None:
    """A seventh digit is cut, not rounded; a missing offset is UTC unless the import says otherwise."""
    (read,) = entries(b"occurred_at," + HEADER + f"{written},u,s,d,1\n".encode())
    assert entry(read).occurred_at == utc


def test_a_time_without_offset_is_in_the_import_s_time_zone() -> None:
    """Summer time of Vienna is two hours ahead of UTC."""
    mapping = ColumnMapping(timezone=timezone_named("Europe/Vienna"))
    (read,) = entries(b"occurred_at," + HEADER + b"2026-06-01 12:00,u,s,d,1\n", mapping)
    assert entry(read).occurred_at == datetime(2026, 6, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize("written", ["yesterday", "1700158546", "20231116", "2023-W46-4", "2023-02-30", "16/11/2023"])
def test_a_time_that_must_be_guessed_is_refused(written: str) -> None:
    """Seconds since 1970, week dates and days of other calendars are not guessed at."""
    (read,) = entries(b"occurred_at," + HEADER + f"{written},u,s,d,1\n".encode())
    assert problem(read).code == "bad_time"


TOKENS = b"actor,source,model,input_tokens,output_tokens,cache_read_tokens,occurred_at\n"


def test_tokens_of_a_model_are_priced_and_kept() -> None:
    """gpt-4o: 2.50 a million in, 1.25 from the cache, 10 out. The counts stay with the entry."""
    (read,) = entries(TOKENS + b"u,s,gpt-4o,1000,10,400,2026-05-01\n")
    assert entry(read).amount == Decimal("0.0021")
    assert entry(read).description == "gpt-4o"
    assert entry(read).metadata == {
        "model": "gpt-4o",
        "input_tokens": 1000,
        "output_tokens": 10,
        "cache_read_tokens": 400,
    }


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (b"u,s,gpt-nonesuch,1,1,,", "unknown_price"),
        (b"u,s,gpt-4o,1,1,2,", "unknown_price"),
        (b"u,s,gpt-4o,-1,1,,", "bad_number"),
        (b"u,s,gpt-4o,1.5,1,,", "bad_number"),
        (b"u,s,gpt-4o,1,9999999999999,,", "bad_number"),
        (b"u,s,gpt-4o,1,,,", "missing_field"),
    ],
)
def test_tokens_that_cannot_be_priced_are_refused(row: bytes, code: str) -> None:
    """An unknown model, more cached than there was input, counts that are no counts."""
    (read,) = entries(TOKENS + row + b"\n")
    assert problem(read).code == code


def test_an_amount_that_is_given_is_not_computed() -> None:
    """What the provider charged wins over what its price list says."""
    rows = entries(b"actor,source,model,amount,input_tokens,output_tokens\nu,s,gpt-4o,0.5,10,10\nu,s,gpt-4o,,10,10\n")
    assert [entry(row).amount for row in rows] == [Decimal("0.5"), Decimal("0.000125")]


def test_fields_of_nested_json_are_reached_by_a_dotted_path() -> None:
    """Logs of model calls keep their counts in an object."""
    mapping = ColumnMapping({"input_tokens": "usage.prompt", "output_tokens": "usage.completion"}, {"source": "s"})
    line = b'{"actor": "u", "model": "gpt-4o", "usage": {"prompt": 1000, "completion": 10}}\n'
    assert entry(entries(line, mapping)[0]).amount == Decimal("0.0026")
    assert problem(entries(b'{"actor": "u", "model": "gpt-4o", "usage": 7}\n', mapping)[0]).code == "missing_field"


def test_metadata_is_an_object_and_nothing_else() -> None:
    """From a CSV cell as JSON text, from NDJSON as it is."""
    good, bad, number = entries(
        HEADER.replace(b"amount", b"amount,metadata") + b'u,s,d,1,"{""region"": ""eu""}"\nu,s,d,1,{broken\nu,s,d,1,17\n'
    )
    assert entry(good).metadata == {"region": "eu"}
    assert problem(bad).code == problem(number).code == "bad_metadata"
