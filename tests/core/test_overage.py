from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterbook.catalogs import load_catalog
from meterbook.core.overage import effective_usage, overage
from meterbook.core.plans import Allowance
from meterbook.core.refresh import Refresh, daily_refresh

ORIGIN = load_catalog()
amounts = st.decimals(0, 100_000, places=12)


def refresh_of(amount: str) -> Refresh:
    return Refresh(Decimal(amount), Decimal(amount))


def overage_of_lump(lump: str, allowance: Allowance) -> Decimal:
    """A lump is rows inside one day's bucket."""
    refresh = daily_refresh({10: Decimal(lump)}, allowance.refresh_per_day)
    return overage(effective_usage(Decimal(lump), refresh), allowance.included).amount


def test_s30_usage_is_the_total_less_the_refresh() -> None:
    """S30: 2.05 − 0.85 = 1.20."""
    assert effective_usage(Decimal("2.05"), refresh_of("0.85")).amount == Decimal("1.20")


def test_s33_a_fully_refreshed_pool_has_used_nothing() -> None:
    """S33: 0.50 − 0.50."""
    assert effective_usage(Decimal("0.50"), refresh_of("0.50")).amount == 0


@pytest.mark.parametrize(
    ("plan", "seats", "usage", "refresh", "expected"),
    [
        ("pro_6000", 1, "150", "5.00", "115.00"),
        ("pro_25000", 1, "140", "30.00", "0"),
        ("pro_25000", 1, "170", "30.00", "15.00"),
        ("pro", 1, "31.40", "1.15", "10.25"),
        pytest.param("team_6000", 3, "137.50", "12.25", "35.25", id="130 and 7.50 of departed members"),
        ("team", 2, "100", "4.80", "15.20"),
        ("team_25000", None, "200", "0", "75.00"),
        ("enterprise", 1, "5000", "0", "0"),
        ("pro_6000", 1, "34.00", "4.50", "0"),
    ],
)
def test_s36_overage_table(plan: str, seats: int | None, usage: str, refresh: str, expected: str) -> None:
    """S36: effective usage beyond the included; what departed members used counts."""
    effective = effective_usage(Decimal(usage), refresh_of(refresh))
    assert overage(effective, ORIGIN.allowance(plan, seats).included).amount == Decimal(expected)


def test_s38_an_upgrade_lowers_the_overage_at_once() -> None:
    """S38 (the amounts): 120.00 before; after the upgrade 25.00 of 151.00 and 220.00 of 346.00."""
    before = ORIGIN.allowance("pro_6000", 1)
    after = ORIGIN.allowance("pro_25000", 1)
    assert overage_of_lump("150.25", before) == Decimal("120.00")
    assert overage_of_lump("151.00", after) == Decimal("25.00")
    assert overage_of_lump("346.00", after) == Decimal("220.00")


def test_s39_a_downgrade_waits_for_the_next_period() -> None:
    """S39: 121.00 stays inside the larger allowance of its period; the smaller one alone would give 90.75."""
    large, small = ORIGIN.allowance("pro_25000", 1), ORIGIN.allowance("pro_6000", 1)
    assert overage_of_lump("121.00", large) == 0
    assert overage_of_lump("121.00", small) == Decimal("90.75")


def test_s29_overage_with_the_days_of_the_legacy_counter() -> None:
    """S29: 50.00 − 2.75 = 47.25, so 17.25 beyond 30."""
    effective = effective_usage(Decimal("50.00"), refresh_of("2.75"))
    assert overage(effective, Decimal(30)).amount == Decimal("17.25")


def test_the_free_plan_has_no_overage() -> None:
    """§9: passed as None, like every plan without overage."""
    assert overage(effective_usage(Decimal(500), refresh_of("0")), None).amount == 0


def test_what_corrections_took_below_zero_is_zero_usage() -> None:
    """max(0, total − refresh)."""
    assert effective_usage(Decimal("-1.5"), refresh_of("0.2")).amount == 0


@given(total=amounts, refreshed=amounts, included=amounts)
def test_overage_is_exactly_what_the_terms_give(total: Decimal, refreshed: Decimal, included: Decimal) -> None:
    """No rounding on the way: effective usage plus refresh is the total, overage plus included the usage."""
    effective = effective_usage(total, Refresh(refreshed, refreshed))
    assert effective.amount == max(total - refreshed, Decimal(0))
    assert overage(effective, included).amount == max(effective.amount - included, Decimal(0))


def test_an_amount_beyond_28_digits_stays_exact() -> None:
    """Python's own context would round here."""
    total = Decimal("12345678901234567890.123456789012")
    assert effective_usage(total, refresh_of("0.000000000001")).amount == Decimal("12345678901234567890.123456789011")
