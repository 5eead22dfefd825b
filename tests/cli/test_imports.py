"""``import`` as a process: pipes, kills, exit codes."""

import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from tests.cli.commands import ON_ONE_SERVER, PROGRAM, Program

pytestmark = ON_ONE_SERVER

SHAPE = Path(__file__).parents[1] / "importing" / "azure_shape.csv"
EXAMPLES = Path(__file__).parents[2] / "examples"
AZURE = ("--mapping", str(EXAMPLES / "azure.toml"))
HEADER = b"actor,source,description,amount\n"


def test_an_import_that_was_killed_goes_on_where_it_stopped(meterbook: Program, tmp_path: Path) -> None:
    """Killed without warning when a part had landed and more was coming; run again: every row once."""
    rows = 40_000
    content = HEADER + b"".join(b"u,s,d%d,0.001\n" % (n % 30_000) for n in range(rows))
    command = ("import", "-", "--name", "large.csv")
    process = subprocess.Popen([*PROGRAM, *command], env=meterbook.environment(), cwd=tmp_path, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(content[: len(content) // 2])
    process.stdin.flush()
    while not (landed := _count(meterbook)):
        assert process.poll() is None
    process.kill()
    process.communicate()
    assert 0 < landed < rows
    report = meterbook(*command, "--json", given=content).data
    assert (report["rows"], report["rejected"], report["inserted"] + report["replayed"]) == (rows, 0, rows)
    assert report["replayed"] >= landed
    usage = meterbook("usage", "user:u", "--json").data
    assert (usage["count"], Decimal(usage["total"])) == (rows, Decimal(40))


def _count(meterbook: Program) -> int:
    return int(meterbook("usage", "user:u", "--json").data["count"])


def test_standard_input_needs_a_name_of_its_own(meterbook: Program) -> None:
    """The name is part of each row's key, so it is never made up."""
    unnamed = meterbook("import", "-", *AZURE, given=SHAPE.read_bytes())
    named = meterbook("import", "-", *AZURE, "--name", "shape", "--json", given=SHAPE.read_bytes())
    again = meterbook("import", "-", *AZURE, "--name", "shape", "--json", given=SHAPE.read_bytes())
    assert (unnamed.code, named.code, again.code) == (2, 0, 0)
    assert "--name" in unnamed.err
    assert (named.data["inserted"], named.data["amount"]) == (400, "3.641515")
    assert (again.data["inserted"], again.data["replayed"], again.data["amount"]) == (0, 400, "0.00")


def test_a_rejected_row_is_exit_code_1_and_stands_in_a_file(meterbook: Program, tmp_path: Path) -> None:
    """The person sees the first reasons and where the file is; a program gets its path."""
    (tmp_path / "june.csv").write_bytes(HEADER + b"u,s,d,1\nu,s,d,oops\n")
    person, program = meterbook("import", "june.csv"), meterbook("import", "june.csv", "--json")
    assert (person.code, program.code) == (1, 1)
    assert "line 3" in person.err
    assert "june.csv.rejects.csv" in person.err
    assert program.data["rejects"] == "june.csv.rejects.csv"
    assert (tmp_path / "june.csv.rejects.csv").read_text().splitlines()[1].startswith("3,bad_number,")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.csv",), "nowhere.csv"),
        ((str(SHAPE),), "--map"),
        ((str(SHAPE), "--map", "amount"), "FIELD=VALUE"),
        ((str(SHAPE), *AZURE, "--map", "amount=Cost"), "'Cost'"),
        ((str(SHAPE), *AZURE, "--timezone", "Mars"), "Mars"),
        ((str(SHAPE), *AZURE, "--format", "xml"), "xml"),
        ((str(SHAPE), "--mapping", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_an_import_that_cannot_work_is_exit_code_2(meterbook: Program, arguments: tuple[str, ...], said: str) -> None:
    """Before the first row, with what to do."""
    refused = meterbook("import", *arguments)
    assert refused.code == 2
    assert said in refused.err
    assert "Traceback" not in refused.err


@pytest.mark.parametrize(
    ("file", "options", "rows"),
    [("calls.csv", (), 4), ("calls.ndjson", ("--mapping", str(EXAMPLES / "calls_ndjson.toml")), 2)],
)
def test_the_examples_of_the_documentation_work(
    meterbook: Program, file: str, options: tuple[str, ...], rows: int
) -> None:
    """Each lands whole, and a second time adds nothing."""
    first = meterbook("import", str(EXAMPLES / file), *options, "--json")
    again = meterbook("import", str(EXAMPLES / file), *options, "--json")
    assert (first.code, first.data["inserted"]) == (0, rows)
    assert (again.data["inserted"], again.data["replayed"]) == (0, rows)


def test_the_command_line_wins_over_the_mapping_file(meterbook: Program) -> None:
    """A constant or a column of the file can be replaced for one run."""
    done = meterbook("import", str(SHAPE), *AZURE, "--set", "actor=ada", "--set", "model=gpt-4o-mini", "--json")
    assert done.code == 0
    assert meterbook("usage", "user:ada", "--json").data["total"] == done.data["amount"]
