"""Where periods end, and what parts of them cost."""

import pytest

from tests.stripe_server.calendar_periods import boundary, end_after, share
from tests.stripe_server.playing import moment


def test_months_are_counted_from_the_anchor() -> None:
    """The 31st stays the 31st where there is one; the 29th of February comes every four years."""
    anchor = moment(1, 31, 9)
    assert [boundary(anchor, "month", count) for count in (1, 2, 3, -2)] == [
        moment(2, 28, 9),
        moment(3, 31, 9),
        moment(4, 30, 9),
        moment(11, 30, 9, year=2025),
    ]
    leap = moment(2, 29, year=2028)
    assert [boundary(leap, "year", count) for count in (1, 4)] == [moment(2, 28, year=2029), moment(2, 29, year=2032)]


@pytest.mark.parametrize(
    ("at", "end"),
    [
        (moment(6, 1), moment(7, 1)),
        (moment(6, 30, 23), moment(7, 1)),
        (moment(5, 15), moment(6, 1)),
        (moment(7, 1), moment(8, 1)),
    ],
)
def test_a_period_ends_at_the_first_boundary_later(at: int, end: int) -> None:
    """Half-open: at a boundary the next period runs. Also before the anchor."""
    assert end_after(moment(6, 1), "month", 1, at) == end


def test_several_intervals_make_one_period() -> None:
    """Every three months, every second week."""
    assert end_after(moment(1, 31), "month", 3, moment(5, 1)) == moment(7, 31)
    assert end_after(moment(6, 1), "week", 2, moment(6, 16)) == moment(6, 29)


@pytest.mark.parametrize(
    ("amount", "part", "whole", "cents"), [(3000, 15, 31, 1452), (-3000, 15, 31, -1452), (1, 1, 2, 1), (-1, 1, 2, -1)]
)
def test_a_part_is_rounded_half_away_from_zero(amount: int, part: int, whole: int, cents: int) -> None:
    """So that what is given back is what was asked for."""
    assert share(amount, part, whole) == cents
