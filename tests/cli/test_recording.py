"""``record`` and ``correct``: exit codes and answers that a script can rely on."""

import json
from importlib.metadata import version

import pytest

from tests.cli.commands import ON_ONE_SERVER, Program

pytestmark = ON_ONE_SERVER

RECORD = ("record", "user_42", "--source", "workflow", "--description", "gpt-4o")


def test_the_same_event_key_again_is_the_same_usage(meterbook: Program) -> None:
    """Exit code 0 both times; the second answer says replayed and adds nothing."""
    first = meterbook(*RECORD, "--amount", "0.0123", "--event-key", "run_9", "--json")
    again = meterbook(*RECORD, "--amount", "0.01230", "--event-key", "run_9", "--json")
    assert (first.code, again.code) == (0, 0)
    assert (first.data["inserted"], first.data["amount"]) == (1, "0.0123")
    assert (again.data["inserted"], again.data["replayed"], again.data["amount"]) == (0, 1, "0.00")
    assert again.data["entries"][0]["id"] == first.data["entries"][0]["id"]


def test_another_amount_for_a_used_key_is_exit_code_3(meterbook: Program) -> None:
    """The error names both versions, for a person and as data, and writes nothing."""
    meterbook(*RECORD, "--amount", "0.0123", "--event-key", "run_9")
    person = meterbook(*RECORD, "--amount", "99", "--event-key", "run_9")
    program = meterbook(*RECORD, "--amount", "99", "--event-key", "run_9", "--json")
    assert (person.code, program.code) == (3, 3)
    assert "0.0123" in person.err
    assert "99" in person.err
    assert "Use another key" in person.err
    assert (program.error["code"], program.error["retryable"]) == ("key_conflict", False)
    assert program.error["conflicts"][0]["first"]["amount"] == "0.0123"
    assert meterbook("usage", "user:user_42", "--json").data["total"] == "0.0123"


@pytest.mark.parametrize(
    ("amount", "said"),
    [("NaN", "amount"), ("-1", "negative"), ("0.1234567890123", "12 decimal places"), ("1e3", "amount")],
)
def test_what_is_no_usage_is_exit_code_2(meterbook: Program, amount: str, said: str) -> None:
    """With the field and the reason, and no traceback."""
    refused = meterbook(*RECORD, f"--amount={amount}", "--event-key", "k")
    assert refused.code == 2
    assert said in refused.err
    assert "Traceback" not in refused.err
    assert meterbook("usage", "user:user_42", "--json").data["count"] == 0


def test_a_missing_field_is_named(meterbook: Program) -> None:
    """The ledger's own words, not the option parser's."""
    refused = meterbook("record", "user_42", "--source", "s", "--json")
    assert refused.code == 2
    assert refused.error["code"] == "invalid_usage"
    assert refused.error["problems"][0]["index"] == 0


def test_entries_from_standard_input_are_all_or_nothing(meterbook: Program) -> None:
    """One bad line refuses the call and every bad line is named, by its position."""
    good = {"actor": "u", "source": "s", "description": "d", "amount": "1", "event_key": "k1"}
    lines = [good, {**good, "amount": 0.1, "event_key": "k2"}, {**good, "amount": "-1", "event_key": "k3"}]
    refused = meterbook("record", "-", "--json", given="\n".join(map(json.dumps, lines)).encode())
    assert refused.code == 2
    assert [problem["index"] for problem in refused.error["problems"]] == [1, 2]
    assert meterbook("usage", "user:u", "--json").data["count"] == 0
    landed = meterbook(
        "record", "-", "--json", given=json.dumps({**good, "occurred_at": "2026-01-02T03:04:05Z"}).encode()
    )
    assert (landed.code, landed.data["inserted"]) == (0, 1)


def test_a_line_that_is_not_json_is_named(meterbook: Program) -> None:
    """By its position, with what is wrong."""
    refused = meterbook("record", "-", given=b"{broken\n")
    assert refused.code == 2
    assert "entry 0" in refused.err


def test_every_bad_line_is_named_whatever_is_wrong_with_it(meterbook: Program) -> None:
    """§3.1: no JSON, no object, no time, no amount: all of them at once, by their positions."""
    good = {"actor": "u", "source": "s", "description": "d", "amount": "1", "event_key": "k1"}
    lines = [
        "{broken",
        json.dumps(good),
        "[1]",
        json.dumps({**good, "amount": 0.1}),
        json.dumps({**good, "occurred_at": "soon"}),
    ]
    refused = meterbook("record", "-", "--json", given="\n".join(lines).encode())
    assert refused.code == 2
    found = [(problem["index"], problem["field"]) for problem in refused.error["problems"]]
    assert found == [(0, "entry"), (2, "entry"), (3, "amount"), (4, "occurred_at")]


def test_a_mistake_of_no_entry_names_none(meterbook: Program) -> None:
    """An entity without its kind: what to write, and no entry 0."""
    refused = meterbook("usage", "nobody")
    assert refused.code == 2
    assert "write user:nobody or organization:nobody" in refused.err
    assert "entry 0" not in refused.err


def test_who_used_nothing_is_said_to_be_unknown(meterbook: Program) -> None:
    """Not shown as empty tables; done, since somebody new has used nothing."""
    for command in ("usage", "entries"):
        done = meterbook(command, "user:nobody")
        assert (done.code, done.err) == (0, "")
        assert "nothing is known of user:nobody" in done.out
        assert "who" not in done.out


def test_the_version_is_told(meterbook: Program) -> None:
    """Alone, for a person who reports something."""
    done = meterbook("--version")
    assert (done.code, done.out) == (0, f"meterbook {version('meterbook')}\n")


def test_a_correction_is_an_entry_of_its_own(meterbook: Program) -> None:
    """Taking back a part lowers the total; more than there was is refused; the same correction again changes nothing."""
    entry = meterbook(*RECORD, "--amount", "2", "--event-key", "k", "--json").data["entries"][0]["id"]
    correct = ("correct", entry, "--reason", "wrong model", "--json")
    assert meterbook(*correct, "--amount=-0.5", "--event-key", "fix_1").code == 0
    assert meterbook(*correct, "--amount=-0.5", "--event-key", "fix_1").data["replayed"] == 1
    below_zero = meterbook(*correct, "--amount=-1.6", "--event-key", "fix_2")
    assert (below_zero.code, below_zero.error["code"]) == (2, "correction_refused")
    assert meterbook("usage", "user:user_42", "--json").data["total"] == "1.50"


def test_a_database_that_does_not_answer_is_exit_code_4(meterbook: Program) -> None:
    """What may succeed later can be told from what never will."""
    refused = meterbook(
        *RECORD, "--amount", "1", "--event-key", "k", "--url", "postgresql://127.0.0.1:1/nowhere", "--json"
    )
    assert refused.code == 4
    assert refused.error["retryable"] is True
