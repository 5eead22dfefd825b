import json
from decimal import Decimal
from textwrap import dedent

from meterbook.core.derivation import Derivation, amount_text, as_data, render
from meterbook.core.overage import effective_usage, overage
from meterbook.core.refresh import daily_refresh


def lines(text: str) -> str:
    return dedent(text).strip("\n")


def test_s29_reads_like_a_bill() -> None:
    """Terms below their figure, amounts aligned at the point, equal days on one line."""
    costs = dict.fromkeys(range(10), Decimal("4.00")) | {12: Decimal("0.10")}
    usage = effective_usage(Decimal("40.10"), daily_refresh(costs, Decimal("0.25")))
    total = Derivation(
        "total",
        Decimal("40.10"),
        "baseline + ledger",
        (Derivation("baseline", Decimal("40.00")), Derivation("ledger", Decimal("0.1"), note="3 entries")),
    )
    assert render(overage(usage, Decimal(30)).derivation(total)) == lines("""
        overage                     7.50  max(0, effective usage − included)
          effective usage          37.50  max(0, total − daily refresh)
            total                  40.10  baseline + ledger
              baseline             40.00
              ledger                0.10  (3 entries)
            daily refresh           2.60  Σ over days of clamp(cost, 0, 0.25)
              days 0–9: 10 × 0.25   2.50
              day 12                0.10  clamp(0.10, 0, 0.25)
          included                 30.00
    """)


def test_amounts_of_any_precision_align_at_the_point() -> None:
    """A figure is shown exact, never rounded to fit."""
    tree = Derivation("sum", Decimal("100.0000001"), "", (Derivation("a", Decimal(100)), Derivation("n", 12)))
    assert render(tree) == lines("""
        sum  100.0000001
          a  100.00
          n   12
    """)


def test_only_consecutive_equal_leaves_share_a_line() -> None:
    """A gap, another amount, a note or terms of its own keep a day apart."""
    row = (Derivation("row", Decimal(1)),)
    days = (
        Derivation("day 0", Decimal(1)),
        Derivation("day 1", Decimal(1)),
        Derivation("day 3", Decimal(1)),
        Derivation("day 4", Decimal(2)),
        Derivation("day 5", Decimal(2), note="late"),
        Derivation("day 6", Decimal(2), terms=row),
    )
    labels = [line.strip().split("  ")[0] for line in render(Derivation("sum", Decimal(9), "", days)).splitlines()]
    assert labels == ["sum", "days 0–1: 2 × 1.00", "day 3", "day 4", "day 5", "day 6", "row"]


def test_a_plan_without_refresh_or_overage_says_so() -> None:
    """The figure 0 has a reason too."""
    usage = effective_usage(Decimal(5), daily_refresh({0: Decimal(5)}, Decimal(0)))
    assert render(overage(usage, None).derivation()) == lines("""
        overage            0.00  none on this plan
          effective usage  5.00  max(0, total − daily refresh)
            total          5.00
            daily refresh  0.00  none in this period
    """)


def test_as_data_keeps_every_term_and_writes_amounts_as_strings() -> None:
    """JSON carries exact decimals as strings (I5), and data is never grouped as lines are."""
    refresh = daily_refresh(dict.fromkeys(range(3), Decimal(1)), Decimal("0.25"))
    data = json.loads(json.dumps(as_data(refresh.derivation())))
    assert data["value"] == "0.75"
    assert [term["name"] for term in data["terms"]] == ["day 0", "day 1", "day 2"]
    assert as_data(Derivation("entries", 3))["value"] == 3
    assert as_data(Derivation("status", "ok", note="now"))["note"] == "now"


def test_amount_text_is_plain_exact_and_has_two_places() -> None:
    """No exponent, no trailing zeros of a database column's scale."""
    texts = [amount_text(Decimal(text)) for text in ("1E+3", "1E-7", "0.250000000000", "3", "-1.5")]
    assert texts == ["1000.00", "0.0000001", "0.25", "3.00", "-1.50"]
