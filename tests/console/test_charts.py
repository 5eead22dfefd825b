"""Charts: where each bar is drawn, from exact amounts."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from meterbook.console.charts import TICKS_MAX, Bar, columns, limit_bar, share

AMOUNTS = st.decimals(min_value=0, max_value=10**9, places=8)


@given(st.lists(st.tuples(AMOUNTS, AMOUNTS), min_size=1, max_size=60))
def test_no_bar_leaves_the_chart_and_few_lines_divide_it(parts: list[tuple[Decimal, Decimal]]) -> None:
    """The highest line is at or above the highest bar; both parts of a bar stand on each other."""
    chart = columns([Bar(f"2026-05-{n:02}", lower, upper) for n, (lower, upper) in enumerate(parts)])
    assert 2 <= len(chart.ticks) <= TICKS_MAX + 2
    assert chart.ticks[-1].amount >= max(lower + upper for lower, upper in parts)
    for bar in chart.bars:
        assert Decimal(bar.upper_y) >= 0
        assert abs(Decimal(bar.upper_y) + Decimal(bar.upper_height) - Decimal(bar.lower_y)) <= Decimal("0.02")
        assert Decimal(bar.x) + Decimal(bar.width) <= chart.width + Decimal("0.02")


def test_a_negative_day_is_drawn_as_nothing() -> None:
    """Corrections can take a day below zero; the table beside it says how far."""
    (bar,) = columns([Bar("2026-05-01", Decimal(-3), Decimal(0))]).bars
    assert (bar.lower_height, bar.upper_height, bar.lower) == ("0.00", "0.00", Decimal(-3))


def test_both_bars_of_a_limit_have_one_scale() -> None:
    """Recorded 80, of it 30 refreshed, 50 used and 10 held against 100."""
    bar = limit_bar(
        baseline=Decimal(20), ledger=Decimal(60), refresh=Decimal(30), effective=Decimal(50), held=Decimal(10), limit=Decimal(100)
    )  # fmt: skip
    assert [(part.name, part.start, part.length) for part in bar.recorded] == [
        ("baseline", "0.00", "20.00"), ("ledger", "20.00", "30.00"), ("refresh", "50.00", "30.00"),
    ]  # fmt: skip
    assert [(part.name, part.start, part.length) for part in bar.counted] == [
        ("used", "0.00", "50.00"),
        ("holds", "50.00", "10.00"),
    ]
    assert bar.limit == "100.00"


def test_what_exceeds_the_limit_makes_the_scale() -> None:
    """The limit's mark moves left; nothing is cut off. A limit of 0 and no usage draws nothing."""
    zero = Decimal(0)
    over = limit_bar(
        baseline=zero, ledger=Decimal(200), refresh=zero, effective=Decimal(200), held=zero, limit=Decimal(50)
    )
    assert (over.limit, over.counted[0].length) == ("25.00", "100.00")
    nothing = limit_bar(baseline=zero, ledger=zero, refresh=zero, effective=zero, held=zero, limit=zero)
    assert (list(nothing.recorded), nothing.limit) == ([], "0.00")
    assert share(Decimal(1), Decimal(0)) == "0"
