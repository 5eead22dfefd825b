"""Which column feeds which field: said once, checked before the first row."""

from datetime import UTC
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from meterbook.importing.mapping import ColumnMapping, read_mapping_file, resolve
from meterbook.importing.refusal import ImportRefused

AZURE = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]


def test_a_mapping_names_the_columns_that_nothing_reads() -> None:
    """So that a forgotten column is seen."""
    mapping = ColumnMapping({"amount": "cost"}, {"source": "workflow"})
    found = resolve(mapping, ["actor", "cost", "description", "colour"])
    assert dict(found.columns) == {"amount": "cost", "actor": "actor", "description": "description"}
    assert found.unused == ("colour",)


@pytest.mark.parametrize(
    ("columns", "constants", "said"),
    [
        ({"amout": "cost"}, {}, "no field 'amout'"),
        ({"amount": "cost"}, {"amount": "1"}, "choose one"),
        ({}, {"event_key": "k"}, "can't be the same in every row"),
        ({"amount": "price"}, {}, "'price', which is not in the header"),
        ({}, {}, "--map actor=COLUMN or --set actor=TEXT"),
        ({}, {"actor": "a", "source": "s", "description": "d"}, "no column gives amount"),
        ({"input_tokens": "ContextTokens"}, {"actor": "a", "source": "s", "model": "gpt-4o"}, "no column gives amount"),
    ],
)
def test_a_mapping_that_cannot_work_is_refused_whole(
    columns: dict[str, str], constants: dict[str, str], said: str
) -> None:
    """One error before the first row, not one a row."""
    with pytest.raises(ImportRefused) as refused:
        resolve(ColumnMapping(columns, constants), AZURE)
    assert said in str(refused.value)


def test_a_column_that_stands_twice_in_the_header_is_refused() -> None:
    """Which of the two would be the amount?"""
    with pytest.raises(ImportRefused, match="'amount' twice"):
        resolve(ColumnMapping(), ["actor", "source", "description", "amount", "Amount"])


def test_a_mapping_file_says_the_same_in_toml(tmp_path: Path) -> None:
    """Columns, constants, and the time zone of times without one."""
    path = tmp_path / "azure.toml"
    path.write_text('timezone = "Europe/Vienna"\n[columns]\noccurred_at = "TIMESTAMP"\n[constants]\nactor = "azure"\n')
    read = read_mapping_file(path)
    assert (read.columns, read.constants) == ({"occurred_at": "TIMESTAMP"}, {"actor": "azure"})
    assert read.timezone == ZoneInfo("Europe/Vienna")


@pytest.mark.parametrize(
    "content",
    [
        "[columns",
        "[columns]\namount = 3",
        "[collumns]",
        'timezone = "Mars/Olympus"',
        "columns = 3",
        "[columns]\nx = 'y'",
    ],
)
def test_a_mapping_file_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    """With what is wrong in it."""
    path = tmp_path / "mapping.toml"
    path.write_text(content)
    with pytest.raises(ImportRefused):
        read_mapping_file(path)


def test_utc_needs_no_time_zone_database(tmp_path: Path) -> None:
    """Slim containers have none."""
    path = tmp_path / "mapping.toml"
    path.write_text("")
    assert read_mapping_file(path).timezone is UTC
