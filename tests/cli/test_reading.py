"""``usage``, ``entries``, ``explain``, ``verify``, ``compact``: the same figures for a person and a program."""

import json
import re
from decimal import Decimal

import pytest

from tests.cli.commands import ON_ONE_SERVER, Program
from tests.ledger import query

pytestmark = ON_ONE_SERVER


@pytest.fixture
def three_entries(meterbook: Program) -> Program:
    lines = [
        {"actor": "ada", "source": source, "description": what, "amount": amount, "event_key": what}
        for source, what, amount in (
            ("workflow", "gpt-4o", "0.5"),
            ("copilot", "o3", "1.25"),
            ("workflow", "search", "0.008"),
        )
    ]
    assert meterbook("record", "-", given="\n".join(map(json.dumps, lines)).encode()).code == 0
    return meterbook


def test_usage_says_the_same_to_a_person_and_to_a_program(three_entries: Program) -> None:
    """Amounts are strings in JSON and cut in the table; the breakdowns add up to the total."""
    data = three_entries("usage", "user:ada", "--json").data
    shown = three_entries("usage", "user:ada").out
    assert (data["total"], data["count"], data["status"]) == ("1.758", 3, "ok")
    assert data["by_source"] == {"copilot": "1.25", "workflow": "0.508"}
    assert "1.7580" in shown
    assert "1.2500" in shown


def test_breakdowns_that_are_shown_cut_add_up(meterbook: Program) -> None:
    """0.001 in three parts, by two people, for three things, on two days: at four places each table adds up to 0.0010; exact in JSON."""
    third, rest = "0.000333333333", "0.000333333334"
    lines = [
        {"actor": actor, "entity": "user:payer", "source": "workflow", "description": what, "amount": amount}
        | {"event_key": f"{actor} {what}", "occurred_at": f"2026-11-0{day}T12:00:00Z"}
        for actor, what, amount, day in (("ada", "m1", third, 1), ("bo", "m2", third, 2), ("bo", "m3", rest, 2))
    ]
    assert meterbook("record", "-", given="\n".join(map(json.dumps, lines)).encode()).code == 0
    figures, *breakdowns = tables_of(meterbook("usage", "user:payer").out)
    assert figures["total"] == "0.0010"
    assert breakdowns[0] == {"bo": "0.0007", "ada": "0.0003"}
    assert breakdowns[1] == {"m3  (workflow)": "0.0004", "m1  (workflow)": "0.0003", "m2  (workflow)": "0.0003"}
    assert list(breakdowns[2].values()) == ["0.0003", "0.0007"]
    data = meterbook("usage", "user:payer", "--json").data
    assert sum(Decimal(amount) for amount in data["by_actor"].values()) == Decimal(data["total"]) == Decimal("0.001")
    assert {day["amount"] for day in data["by_day"]} == {third, "0.000666666667"}


def tables_of(shown: str) -> list[dict[str, str]]:
    """The first two columns of each table, without its head."""
    tables = shown.split("---\n")[1:]
    rows = [re.findall(r"^ *(\S.*?) {2,}(-?[\d.,]+)\b", table, re.MULTILINE) for table in tables]
    return [dict(each) for each in rows]


def test_entries_are_read_page_by_page(three_entries: Program) -> None:
    """The cursor of one page gives the next; the summary covers the whole filter."""
    first = three_entries("entries", "user:ada", "--limit", "2", "--json").data
    second = three_entries("entries", "user:ada", "--limit", "2", "--cursor", first["next_cursor"], "--json").data
    assert [len(first["entries"]), len(second["entries"])] == [2, 1]
    assert second["next_cursor"] is None
    assert first["summary"] == {"count": 3, "amount": "1.758"}
    filtered = three_entries("entries", "user:ada", "--source", "workflow", "--json").data
    assert filtered["summary"] == {"count": 2, "amount": "0.508"}


def test_entries_happened_in_a_half_open_interval(three_entries: Program) -> None:
    """--to excludes; times without an offset are UTC; what is no time is a usage error."""
    assert three_entries("entries", "user:ada", "--to", "2020-01-01", "--json").data["summary"]["count"] == 0
    assert three_entries("entries", "user:ada", "--from", "2020-01-01", "--json").data["summary"]["count"] == 3
    assert three_entries("entries", "user:ada", "--from", "yesterday").code == 2


@pytest.mark.parametrize(
    "arguments", [("usage", "organization:nobody"), ("usage", "ada"), ("entries", "user:ada", "--cursor", "x")]
)
def test_what_is_not_there_is_exit_code_2(three_entries: Program, arguments: tuple[str, ...]) -> None:
    """An unknown organization, an entity without kind, a cursor that no page gave out."""
    done = three_entries(*arguments)
    assert done.code == 2
    assert done.err.startswith("error")
    assert "Traceback" not in done.err


def test_explain_derives_the_figure_from_its_terms(three_entries: Program) -> None:
    """As lines for a person, as a tree for a program."""
    assert "1.758" in three_entries("explain", "user:ada").out
    assert "1.758" in json.dumps(three_entries("explain", "user:ada", "--json").data)


def test_compacting_changes_no_figure(three_entries: Program) -> None:
    """Before and after, `usage` is the same and `verify` is clean."""
    before = three_entries("usage", "user:ada", "--json").out
    assert three_entries("compact").code == 0
    assert three_entries("usage", "user:ada", "--json").out == before
    clean = three_entries("verify", "--json")
    assert (clean.code, clean.data) == (0, {"differences": [], "unprovable": 0})


def test_what_verify_advises_is_there_and_mends(three_entries: Program) -> None:
    """A rollup that was changed by hand is named, with the command that derives it anew; entries stay."""
    assert three_entries("compact").code == 0
    query(str(three_entries.url), "update meterbook.usage_rollup set amount = amount + 1 where grain = 'total'")
    found = three_entries("verify")
    assert found.code == 1
    assert "meterbook rebuild ENTITY" in found.out
    mended = three_entries("rebuild", "user:ada", "--json")
    assert (mended.code, mended.data["differences"]) == (0, [])
    assert mended.data["rollups"] > 0
    assert three_entries("rebuild", "user:nobody").code == 2


@pytest.mark.parametrize("width", ["80", "120"])
def test_tables_fit_the_terminal(three_entries: Program, width: str) -> None:
    """No line is longer than the terminal is wide; without one they are plain ASCII."""
    done = three_entries("usage", "user:ada", COLUMNS=width)
    assert done.out.isascii()
    assert max(map(len, done.out.splitlines())) <= int(width)
