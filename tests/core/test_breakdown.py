from decimal import ROUND_DOWN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterbook.core.breakdown import apportion

signed = st.decimals(-10_000, 10_000, places=8)


def shown(amounts: dict[str, str], places: int = 2) -> dict[str, str]:
    exact = {name: Decimal(amount) for name, amount in amounts.items()}
    return {name: str(amount) for name, amount in apportion(exact, places).items()}


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        ({"a": "0.335", "b": "0.335", "c": "0.33"}, {"a": "0.34", "b": "0.33", "c": "0.33"}),
        ({"b": "0.006", "a": "0.004"}, {"b": "0.01", "a": "0.00"}),
        ({"a": "1.25", "b": "2.50"}, {"a": "1.25", "b": "2.50"}),
        ({"a": "0.009"}, {"a": "0.00"}),
        ({}, {}),
    ],
)
def test_the_cent_that_is_missing_goes_to_the_largest_remainder_ties_by_name(
    amounts: dict[str, str], expected: dict[str, str]
) -> None:
    """§5; the names keep their order, and a sum below a cent is shown as none."""
    assert shown(amounts) == expected


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        ({"a": "-0.005", "b": "-0.005"}, {"a": "0.00", "b": "-0.01"}),
        ({"a": "1.000", "b": "-0.003"}, {"a": "1.00", "b": "-0.01"}),
        ({"a": "-0.009"}, {"a": "0.00"}),
    ],
)
def test_negative_amounts_add_up_as_well(amounts: dict[str, str], expected: dict[str, str]) -> None:
    """A correction's share; the sum is cut towards zero, and there is no −0.00."""
    assert shown(amounts) == expected


def test_other_places_than_cents() -> None:
    """Percentages have none, small prices have six."""
    assert shown({"a": "33.4", "b": "33.3", "c": "33.3"}, 0) == {"a": "34", "b": "33", "c": "33"}
    assert shown({"a": "0.0000015", "b": "0.0000005"}, 6) == {"a": "0.000002", "b": "0.000000"}


def test_days_are_ordered_as_days() -> None:
    """A tie between day 9 and day 10 goes to day 9."""
    assert apportion({10: Decimal("0.005"), 9: Decimal("0.005")}) == {10: Decimal("0.00"), 9: Decimal("0.01")}


@given(st.dictionaries(st.text(max_size=3), signed, max_size=12), st.integers(0, 6))
def test_a_breakdown_adds_up_to_its_sum_cut(amounts: dict[str, Decimal], places: int) -> None:
    """Whatever the amounts: exact sum, cut; and each within one unit of its own, unchanged if it needed no cut."""
    unit = Decimal(1).scaleb(-places)
    parts = apportion(amounts, places)
    assert list(parts) == list(amounts)
    assert sum(parts.values()) == sum(amounts.values(), Decimal(0)).quantize(unit, rounding=ROUND_DOWN)
    for name, amount in amounts.items():
        assert abs(parts[name] - amount) < unit
        assert parts[name] == amount or amount % unit != 0


@given(st.dictionaries(st.text(max_size=3), signed, max_size=8))
def test_a_breakdown_does_not_depend_on_the_order_of_its_parts(amounts: dict[str, Decimal]) -> None:
    """Two pages that read the parts in another order show the same figures."""
    assert apportion(amounts) == apportion(dict(reversed(amounts.items())))
