"""What a command changes is in the log of acts, before it is done, with who did it and what came of it; reading and recording are not."""

import getpass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from meterbook.core.api_keys import Act
from meterbook.sync import open as open_ledger
from tests.cli.commands import ON_ONE_SERVER, Program


def acts_of(url: str | None) -> list[Act]:
    """Oldest first."""
    with open_ledger(url) as book:
        return book.acts()[::-1]


@ON_ONE_SERVER
def test_every_act_of_the_command_line_is_noted(meterbook: Program) -> None:
    """With the user of the machine, what was said, and its outcome; a refusal too."""
    now = datetime.now(UTC)
    with open_ledger(meterbook.url) as book:
        book.put_organization("acme", owner="ada")
        book.put_subscription(
            id="s", owner="user:u", plan="pro", status="active", starts_at=now - timedelta(days=1), ends_at=now + timedelta(days=20),
        )  # fmt: skip
        entry = book.record("u", source="s", description="d", amount="2", event_key="k").entries[0].id
    for command in (
        "limits user:u --set 100",
        "caps acme ada 10",
        "block user:u --reason administrative",
        "unblock user:u --reason administrative",
        "credits user:u --grant 5.00 --id g",
        f"correct {entry} --amount=-1 --reason test --event-key fix",
        "rebuild user:u",
        "stripe replay --failed",
        "close user:u",
        "sweep",
        "usage user:u",
        "record u --source s --description d --amount 1 --event-key k2",
    ):
        done = meterbook(*command.split())
        assert done.code == 0, (command, done.err)
    assert meterbook("limits", "user:u", "--set", "1").code != 0
    acts = acts_of(meterbook.url)
    assert [(each.act, each.subject, each.outcome) for each in acts] == [
        ("set_limit", "user:u", "done"),
        ("set_member_cap", "organization:acme", "done"),
        ("block", "user:u", "done"),
        ("unblock", "user:u", "done"),
        ("grant_credit", "user:u", "done"),
        ("correct", entry, "done"),
        ("rebuild", "user:u", "done"),
        ("replay_stripe_events", "all that failed", "done"),
        ("close", "user:u", "done"),
        ("sweep", "all that is due", "done"),
        ("set_limit", "user:u", "refused"),
    ]
    assert {each.by_whom for each in acts} == {f"command line ({getpass.getuser()})"}
    assert acts[1].said == {"user": "ada", "cap": "10"}


@ON_ONE_SERVER
def test_commands_read_the_file_of_the_server(meterbook: Program, tmp_path: Path) -> None:
    """What neither an option nor the environment says; a file that can't be read is an error, never passed over."""
    assert meterbook.url is not None
    entry = ("record", "u", "--source", "s", "--description", "d", "--amount", "1", "--event-key", "k")
    assert meterbook(*entry).code == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    lone = Program(None, elsewhere)
    file = elsewhere / "meterbook.toml"
    file.write_text(f"url = {meterbook.url!r}\nport = 9000\n")
    assert lone("usage", "user:u", "--json").data["total"] == "1.00"
    assert not (elsewhere / ".meterbook").exists()
    assert lone("usage", "user:u", "--url", "postgresql://127.0.0.1:1/nowhere").code == 4
    for text, said in (("url = ", "meterbook.toml"), ("url = 7", "url: is not a text")):
        file.write_text(text)
        done = lone("usage", "user:u")
        assert (done.code, said in done.err) == (2, True), done.err
    assert "nowhere.toml" in lone("usage", "user:u", METERBOOK_CONFIG="nowhere.toml").err
