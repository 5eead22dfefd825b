"""``meterbook demo``: what a newcomer sees first."""

from decimal import Decimal
from pathlib import Path

import pytest

from tests.cli.commands import Done, Program

ELSEWHERE = "postgresql://127.0.0.1:1/nowhere"


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return Program(None, tmp_path_factory.mktemp("newcomer"))


@pytest.fixture(scope="module")
def first(newcomer: Program) -> Done:
    return newcomer("demo", METERBOOK_URL=ELSEWHERE)


def test_the_demo_says_what_it_is_and_that_it_adds_up(first: Done) -> None:
    """Synthetic, seeded, verified; and made-up rows never go where METERBOOK_URL points."""
    assert first.code == 0, first.err
    assert "Synthetic and seeded" in first.out
    assert "verify: clean" in first.out


def test_the_demo_ends_with_a_month_billed(first: Done) -> None:
    """Thresholds, credits and final charges, and one bill explained: what pays adds up to it."""
    for said in ("Bills of May, closed", "threshold, ", "final, ", "Why organization:acme was billed", "written off"):
        assert said in first.out
    tree = first.out.split("was billed what it was:")[1]
    bill, credits_, charged = (Decimal(_value_of(name, tree)) for name in ("bill", "  paid by credits", "  charged"))
    assert bill == credits_ + charged > 100


def _value_of(name: str, tree: str) -> str:
    (line,) = (line for line in tree.splitlines() if line.startswith(f"{name}  "))
    return line.removeprefix(name).split()[0]


@pytest.mark.parametrize("width", ["80", "120"])
def test_the_demo_fits_the_terminal(newcomer: Program, first: Done, width: str) -> None:
    """Played again, at both widths: no line is folded in a table or longer than the terminal, but the commands to copy."""
    assert first.code == 0
    shown = newcomer("demo", COLUMNS=width).out.split("Look around in it:")[0]
    assert max(map(len, shown.splitlines())) <= int(width)


def test_the_commands_that_the_demo_names_work(newcomer: Program, first: Done) -> None:
    """As they are printed, on what it has just recorded."""
    named = first.out.split("Look around in it:")[1].strip().splitlines()
    assert len(named) >= 3
    for line in named:
        done = newcomer(*line.split("meterbook.cli ")[1].split())
        assert (done.code, done.err) == (0, ""), line


def test_playing_the_month_again_adds_nothing(newcomer: Program, first: Done) -> None:
    """Every entry is known by its key, every conflict is refused again, and the totals stay."""
    done = newcomer("demo", "--json")
    assert done.code == 0, done.err
    again = done.data
    assert (again["played"]["inserted"], again["played"]["amount"]) == (0, "0.00")
    assert again["played"]["conflicts"] == 12
    assert sum(Decimal(each["total"]) for each in again["by_entity"]) == Decimal(again["total"])
    assert f"{again['total']} in all" in first.out


def test_a_catalog_is_never_ignored(newcomer: Program, tmp_path: Path) -> None:
    """Unknown is an error, never a default: neither is a catalog that can't be read, where the demo would do without."""
    broken = tmp_path / "broken.toml"
    broken.write_text("[plans.pro]\nprice = 20\n")
    done = newcomer("check", "ida", "--demo", "--catalog", str(broken))
    assert done.code != 0
    assert "plans.free: missing" in done.err
