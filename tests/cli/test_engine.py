"""``migrate``, ``doctor``, ``--help``, and a folder where nothing was ever set up."""

import re
from pathlib import Path

from meterbook.cli.app import app
from tests.cli.commands import ON_ONE_SERVER, Program


@ON_ONE_SERVER
def test_migrating_twice_is_migrating_once(empty_database_url: str, tmp_path: Path) -> None:
    """The first time it says what it applied, the second that there is nothing to do."""
    meterbook = Program(empty_database_url, tmp_path)
    first, again = meterbook("migrate", "--json"), meterbook("migrate", "--json")
    assert (first.code, again.code) == (0, 0)
    assert first.data["applied"]
    assert again.data["applied"] == []


def test_a_newcomer_needs_no_database(tmp_path: Path) -> None:
    """The first command in an empty folder starts the embedded engine there and records."""
    meterbook = Program(None, tmp_path)
    done = meterbook("record", "u", "--source", "s", "--description", "d", "--amount", "1", "--event-key", "k")
    assert done.code == 0, done.err
    assert (tmp_path / ".meterbook").is_dir()
    assert meterbook("usage", "user:u", "--json").data["total"] == "1.00"


@ON_ONE_SERVER
def test_the_help_lists_the_commands_and_the_exit_codes(meterbook: Program) -> None:
    """What a script may rely on is written where one looks for it."""
    shown = meterbook("--help").out
    for name in (
        "migrate",
        "demo",
        "record",
        "import",
        "usage",
        "entries",
        "correct",
        "compact",
        "verify",
        "explain",
        "doctor",
        "plans",
        "limits",
        "caps",
        "check",
        "hold",
        "settle",
        "release",
        "holds",
        "credits",
        "charges",
        "periods",
        "close",
        "sweep",
        "outbox",
        "worker",
    ):
        assert name in shown
    assert "an event key was used before for something else" in shown


@ON_ONE_SERVER
def test_doctor_finds_a_fresh_ledger_in_order(meterbook: Program) -> None:
    """Every row of it has a name, a value and whether it is well; exit code 1 only if one is not."""
    done = meterbook("doctor", "--json")
    findings = done.data["findings"]
    assert findings
    assert done.code == (0 if all(finding["ok"] for finding in findings) else 1)
    assert meterbook("doctor").out.count("\n") > len(findings)


def test_every_command_is_in_the_reference(root: Path) -> None:
    """With what it does in one line; nothing there that is no command."""
    page = (root / "docs" / "reference" / "cli.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `") and not line.startswith("| `--")]
    written = {name.split()[0] for row in rows for name in re.findall(r"`([^`]+)`", row)}
    commands = {each.name for each in app.registered_commands if not each.hidden}
    commands |= {each.typer_instance.info.name for each in app.registered_groups if each.typer_instance}
    assert written == commands
