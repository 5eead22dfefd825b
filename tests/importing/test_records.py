"""Raw rows out of bytes: lines, quotes, encodings, and what a broken row may spoil."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterbook.importing.records import ROW_BYTES_MAX, Lines, read_csv, read_header, sniff_format
from tests.importing.reading import csv_rows, ndjson_rows


def test_a_row_names_the_physical_line_where_it_begins() -> None:
    """Fields may hold line breaks; the line numbers stay those of an editor."""
    rows = csv_rows(b'a,b\r\n1,2\r\n3,"x\r\ny"\r\n\r\n5,6')
    assert [(row.line, row.cells) for row in rows] == [(2, ["1", "2"]), (3, ["3", "x\ny"]), (6, ["5", "6"])]


def test_line_ends_are_no_part_of_a_row() -> None:
    """The same file with other line ends, or with an end added to its last line, has the same rows."""
    unix, windows = csv_rows(b'a,b\n1,"x\ny"\n3,4'), csv_rows(b'a,b\r\n1,"x\r\ny"\r\n3,4\r\n')
    assert [row.raw for row in unix] == [row.raw for row in windows] == [b'1,"x\ny"', b"3,4"]


def test_a_byte_order_mark_is_no_part_of_the_first_column() -> None:
    """Spreadsheets write one."""
    header, _ = read_header(Lines(BytesIO(b"\xef\xbb\xbfactor,amount\n")), None)
    assert header == ["actor", "amount"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_that_the_header_uses_most(delimiter: str) -> None:
    """Comma, semicolon, tab and bar are told apart."""
    content = delimiter.join(["actor", "amount", "note"]) + "\n" + delimiter.join(["u", "1", '"a,b"']) + "\n"
    assert csv_rows(content.encode())[0].cells == ["u", "1", "a,b"]


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (b'2,"never closed', "row_quotes"),
        (b'2,"closed" too early', "row_quotes"),
        (b"2,\xff", "row_encoding"),
        (b'2,"\xff"', "row_encoding"),
        (b"2,nul\0", "row_encoding"),
        (b'2,"nul\0"', "row_encoding"),
    ],
)
def test_a_broken_row_spoils_no_other(broken: bytes, code: str) -> None:
    """The rows around it are read, and its own line is named."""
    rows = csv_rows(b"a,b\n1,x\n" + broken + b"\n3,y\n4,z\n")
    assert [row.line for row in rows] == [2, 3, 4, 5]
    assert rows[1].problem is not None
    assert rows[1].problem.code == code
    assert [row.cells for row in (rows[0], *rows[2:])] == [["1", "x"], ["3", "y"], ["4", "z"]]


def test_a_quote_that_is_never_closed_spoils_its_line_only_in_a_large_file() -> None:
    """Also when the rest is longer than a row may be, so that it was read past and has to be read again."""
    many = 200_000
    rows = csv_rows(b'a,b\n1,"open\n' + b"2,x\n" * many)
    assert rows[0].problem is not None
    assert rows[0].problem.code == "row_quotes"
    assert [row.line for row in rows[1:3]] == [3, 4]
    assert len(rows) == many + 1


def test_quoted_text_of_any_length_is_never_read_as_rows() -> None:
    """A person's prompt with lines that look like charges, longer than a row may be, is one rejected row."""
    prompt = b"victim,1000.00\n" * (ROW_BYTES_MAX // 10)
    rows = csv_rows(b'actor,amount\nu,"' + prompt + b'"\nv,2\n')
    assert [row.cells for row in rows] == [None, ["v", "2"]]
    assert rows[0].problem is not None
    assert rows[0].problem.code == "row_too_long"


def test_a_line_without_end_is_held_in_part_only() -> None:
    """A row longer than a megabyte is rejected; the rows behind it are read."""
    rows = csv_rows(b"a,b\n" + b"x" * (3 * ROW_BYTES_MAX) + b"\n3,y\n")
    assert [row.line for row in rows] == [2, 3]
    assert len(rows[0].raw) == ROW_BYTES_MAX
    assert rows[1].cells == ["3", "y"]


@pytest.mark.parametrize(
    "broken",
    [
        b'{"a": 1',
        b"[1]",
        b"17",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1, "a": 2}',
        b"{'a': 1}",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": ' + b"9" * 5_000 + b"}",
    ],
)
def test_a_broken_json_line_spoils_no_other(broken: bytes) -> None:
    """Not JSON, not an object, not a number, the same field twice, too deep, too many digits."""
    rows = ndjson_rows(b'{"a": 1}\n' + broken + b'\n{"a": 3}\n')
    assert [row.cells for row in rows] == [{"a": 1}, None, {"a": 3}]
    assert rows[1].problem is not None
    assert rows[1].problem.code == "row_json"


def test_json_numbers_keep_their_digits() -> None:
    """0.1 is a tenth, not the nearest binary fraction."""
    assert str(ndjson_rows(b'{"a": 0.1000000000000000055511151231257827}')[0].cells) == (
        "{'a': Decimal('0.1000000000000000055511151231257827')}"
    )


@pytest.mark.parametrize(("content", "found"), [(b'\n\n {"a": 1}', "ndjson"), (b"a,b\n", "csv"), (b"", "csv")])
def test_the_format_is_seen_from_the_first_line(content: bytes, found: str) -> None:
    """An opening brace is NDJSON, anything else CSV."""
    lines = Lines(BytesIO(content))
    assert sniff_format(lines) == found
    assert lines.next_line() is None or content


@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"])), min_size=2), min_size=1
    )
)
def test_what_a_correct_writer_wrote_is_read_back(written: list[list[str]]) -> None:
    """Quotes, delimiters and line breaks in fields survive, for any text."""
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in written]
    rows = list(read_csv(Lines(BytesIO("\n".join(quoted).encode())), ","))
    assert [row.cells for row in rows] == written


@given(st.binary())
def test_any_bytes_are_rows_or_problems(content: bytes) -> None:
    """Whatever the file holds, nothing is raised, and each row is either cells or a problem."""
    for rows in (list(read_csv(Lines(BytesIO(content)), ",")), ndjson_rows(content)):
        assert all((row.cells is None) != (row.problem is None) for row in rows)


@given(st.lists(st.sampled_from([b"a", b",", b'"', b"\n", b"\xff", b"\0"])).map(b"".join))
def test_no_byte_of_a_file_is_lost(content: bytes) -> None:
    """The raw rows, one after the other, are the file without its blank lines, however the quotes stand."""
    rows = read_csv(Lines(BytesIO(content)), ",")
    assert _without_blank_lines(b"\n".join(row.raw for row in rows)) == _without_blank_lines(content)


def _without_blank_lines(content: bytes) -> list[bytes]:
    return [line for line in content.split(b"\n") if line]
