from decimal import Decimal

import pytest

from meterbook.catalogs import load_catalog
from meterbook.core.plans import Allowance
from meterbook.errors import UnknownPlan

ORIGIN = load_catalog()


@pytest.mark.parametrize(
    ("plan", "seats", "included", "refresh_per_day"),
    [
        ("free", 1, "0", "0"),
        ("pro", 1, "20", "0.20"),
        ("pro_6000", 1, "30", "0.25"),
        ("pro_25000", 1, "125", "1.00"),
        ("team", 1, "40", "0.40"),
        ("team_6000", 1, "30", "0.25"),
        ("team_25000", 1, "125", "1.00"),
        ("team_6000", 4, "120", "1.00"),
        ("team_6000", None, "30", "0.25"),
        ("team_6000", 0, "30", "0.25"),
    ],
)
def test_s01_included_and_refresh_are_plan_times_seats(
    plan: str, seats: int | None, included: str, refresh_per_day: str
) -> None:
    """S01: a seat count of null or 0 counts as 1."""
    assert ORIGIN.allowance(plan, seats) == Allowance(Decimal(included), Decimal(refresh_per_day))


@pytest.mark.parametrize("seats", [None, 0, 1, 25])
def test_s01_enterprise_has_no_overage_and_no_refresh(seats: int | None) -> None:
    """S01: whatever its seats."""
    assert ORIGIN.allowance("enterprise", seats) == Allowance(None, Decimal(0))


@pytest.mark.parametrize("code", ["pro_4000", "gold", "", "Pro"])
def test_s01_an_unknown_plan_is_an_error_never_the_free_plan(code: str) -> None:
    """S01: and the error knows which plans there are."""
    with pytest.raises(UnknownPlan) as refused:
        ORIGIN.plan(code)
    assert refused.value.code == "unknown_plan"


def test_negative_seats_are_refused() -> None:
    """A seat count below zero is a mistake upstream; it never becomes a negative allowance."""
    with pytest.raises(ValueError, match="-1"):
        ORIGIN.allowance("team", -1)


def test_rank_orders_enterprise_over_team_over_pro_over_free() -> None:
    """§4 resolves the payer by these ranks."""
    ranks = [ORIGIN.plan(code).rank for code in ("free", "pro", "pro_25000", "team", "team_6000", "enterprise")]
    assert ranks == [0, 10, 10, 20, 20, 30]


def test_free_and_enterprise_have_no_overage() -> None:
    """§9: the others do."""
    without = {plan.code for plan in ORIGIN.plans if not plan.has_overage}
    assert without == {"free", "enterprise"}
