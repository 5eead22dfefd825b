"""The key of a row: what makes a second import add nothing."""

from hashlib import sha256

import pytest

from meterbook.core.entries import Usage
from meterbook.importing import keys
from meterbook.importing.keys import RowKeys
from meterbook.importing.mapping import ColumnMapping
from meterbook.importing.records import RowProblem
from meterbook.importing.refusal import ImportRefused
from tests.importing.reading import entries

HEADER = b"actor,source,description,amount\n"


def keys_of(content: bytes, name: str = "june") -> list[object]:
    return [None if isinstance(read, RowProblem) else read.event_key for read in entries(content, name=name)]


def test_a_key_says_import_row_and_how_many_equal_ones_came_before() -> None:
    """import : name : SHA-256 of the row without its line end : n."""
    digest = sha256(b"u,s,d,1").hexdigest()
    assert keys_of(HEADER + b"u,s,d,1\r\nu,s,d,1") == [f"import:june:{digest}:1", f"import:june:{digest}:2"]


def test_the_order_of_rows_does_not_matter() -> None:
    """The same rows in another order have the same keys, equal rows included."""
    rows = [b"u,s,d,1", b"v,s,d,1", b"u,s,d,1", b"w,s,d,2"]
    there, back = (keys_of(HEADER + b"\n".join(order)) for order in (rows, rows[::-1]))
    assert sorted(map(str, there)) == sorted(map(str, back))
    assert len(set(there)) == 4


def test_a_file_that_grew_keeps_the_keys_of_its_old_rows() -> None:
    """Also when what was appended equals a row that was there."""
    before, after = keys_of(HEADER + b"u,s,d,1\nv,s,d,1"), keys_of(HEADER + b"u,s,d,1\nv,s,d,1\nu,s,d,1\n")
    assert after[:2] == before
    assert after[2] not in before


def test_mending_one_bad_row_renumbers_no_other() -> None:
    """A row that is refused takes its number too."""
    refused, accepted = HEADER + b"u,s,d,x\nu,s,d,1\nu,s,d,1\n", HEADER + b"u,s,d,3\nu,s,d,1\nu,s,d,1\n"
    assert keys_of(refused)[1:] == keys_of(accepted)[1:]


def test_the_same_row_of_another_import_is_other_usage() -> None:
    """The import's name is part of the key."""
    assert keys_of(HEADER + b"u,s,d,1\n", "june") != keys_of(HEADER + b"u,s,d,1\n", "july")


def test_a_row_that_brings_its_own_event_key_keeps_it() -> None:
    """Where the cell is empty, the row is named by what it says."""
    own, derived = keys_of(HEADER.replace(b"amount", b"amount,event_key") + b"u,s,d,1,run_9\nu,s,d,1,\n")
    assert own == "run_9"
    assert str(derived).startswith("import:june:")


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_an_import_has_a_name(name: str) -> None:
    """An empty or endless one is refused before anything is read."""
    with pytest.raises(ImportRefused, match="--name"):
        RowKeys(name)


def test_the_memory_for_equal_rows_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it the import stops and says how to go on; equal rows cost nothing."""
    monkeypatch.setattr(keys, "DISTINCT_ROWS_MAX", 2)
    row_keys = RowKeys("june")
    for raw in (b"1", b"2", b"2", b"1"):
        row_keys.next_key(raw)
    with pytest.raises(ImportRefused, match="Split the file"):
        row_keys.next_key(b"3")


def test_a_mapping_does_not_change_keys() -> None:
    """The same rows read in another way are a conflict to be seen, not new usage."""
    first = entries(HEADER + b"u,s,d,1\n")[0]
    second = entries(HEADER + b"u,s,d,1\n", ColumnMapping(constants={"source": "wand"}))[0]
    assert isinstance(first, Usage)
    assert isinstance(second, Usage)
    assert first.event_key == second.event_key
    assert second.source == "wand"
