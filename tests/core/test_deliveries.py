"""What is sent of seats: which quantities, and which of them are charged (BEHAVIOUR §7, decision 0027)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterbook.core.deliveries import seat_steps

seats = st.integers(1, 1_000_000)


@pytest.mark.parametrize(
    ("now", "paid", "wanted", "steps"),
    [
        (5, 5, 2, ((2, False),)),
        (5, 5, 7, ((7, True),)),
        (2, 5, 4, ((4, False),)),
        (2, 5, 5, ((5, False),)),
        (2, 5, 7, ((5, False), (7, True))),
        (5, 5, 5, ()),
        (7, 5, 7, ()),
        (5, 0, 6, ((6, True),)),
    ],
)
def test_only_what_is_beyond_the_paid_is_charged(
    now: int, paid: int, wanted: int, steps: tuple[tuple[int, bool], ...]
) -> None:
    """Down and back up to what is paid without proration; beyond it with."""
    assert seat_steps(now, paid, wanted) == steps


@given(seats, st.integers(0, 1_000_000), seats)
def test_it_ends_at_what_is_wanted_and_charges_nothing_twice(now: int, paid: int, wanted: int) -> None:
    """The last quantity is the wanted one; a charged step begins at no fewer than are paid; said again there is nothing to do."""
    steps = seat_steps(now, paid, wanted)
    quantity = now
    for after, is_charged in steps:
        assert after != quantity
        assert not is_charged or (after > quantity >= min(paid, wanted))
        quantity = after
    assert quantity == wanted
    assert seat_steps(wanted, max(paid, wanted), wanted) == ()
