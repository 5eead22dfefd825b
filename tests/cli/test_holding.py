"""``hold``, ``settle``, ``release``, ``holds``: money set aside, from one process to another."""

from tests.cli.commands import ON_ONE_SERVER, Program

pytestmark = ON_ONE_SERVER

COST = ("--source", "workflow", "--description", "gpt-4o")


def test_a_hold_is_settled_once_with_the_real_cost(meterbook: Program) -> None:
    """The same again is replayed, another cost is a conflict, and the entry is the hold's."""
    held = meterbook("hold", "ida", "3", "--id", "h1", "--json").data
    assert (held["hold"]["amount"], held["hold"]["state"], held["overshoot"]) == ("3.00", "active", "0.00")
    settled = meterbook("settle", "h1", "1.2", *COST, "--json").data
    again = meterbook("settle", "h1", "1.20", *COST, "--json").data
    assert (settled["state"], settled["recorded"]["inserted"], again["recorded"]["replayed"]) == ("settled", 1, 1)
    assert meterbook("settle", "h1", "1.3", *COST).code == 3
    (state,) = meterbook("holds", "user:ida", "--json").data["holds"]
    assert (state["id"], state["state"], state["settled"]) == ("h1", "settled", "1.20")
    assert meterbook("usage", "user:ida", "--json").data["total"] == "1.20"


def test_holds_never_go_beyond_the_limit(meterbook: Program) -> None:
    """5.00 of a free person: 3 and 2 fit, a cent more is denied with its own exit code, and released money is free again."""
    assert meterbook("hold", "ida", "3", "--id", "a").code == 0
    assert meterbook("hold", "ida", "2", "--id", "b").code == 0
    denied = meterbook("hold", "ida", "0.01", "--json")
    assert (denied.code, denied.error["code"]) == (5, "denied")
    assert denied.error["admission"]["held"] == "5.00"
    assert "this work needs 0.01" in meterbook("hold", "ida", "0.01").err
    assert meterbook("release", "b", "--json").data["released"] is True
    assert meterbook("release", "b").out.startswith("nothing to do")
    assert meterbook("hold", "ida", "0.01").code == 0
    assert meterbook("usage", "user:ida", "--json").data["held"] == "3.01"


def test_a_hold_nobody_knows_is_exit_code_2(meterbook: Program) -> None:
    """Neither settled nor released; and what can't be held is refused before."""
    assert meterbook("release", "nowhere").code == 2
    assert meterbook("settle", "nowhere", "1", *COST, "--json").error["code"] == "unknown_hold"
    assert meterbook("hold", "ida", "0").code == 2
