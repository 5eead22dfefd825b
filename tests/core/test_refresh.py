from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterbook.catalogs import load_catalog
from meterbook.core.refresh import DayRefresh, daily_refresh, day_bucket

ORIGIN = load_catalog()
P1 = (datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC))
MICROSECOND = timedelta(microseconds=1)

instants = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
lengths = st.timedeltas(MICROSECOND, timedelta(days=400))
signed_amounts = st.decimals(-1000, 1000, places=12)
amounts = st.decimals(0, 1000, places=12)
days = st.integers(0, 400)


def refreshed(plan: str, seats: int | None, costs: dict[int, str]) -> Decimal:
    per_day = ORIGIN.allowance(plan, seats).refresh_per_day
    return daily_refresh({day: Decimal(cost) for day, cost in costs.items()}, per_day).total


def test_s30_each_day_is_refreshed_up_to_the_cap() -> None:
    """S30: 0.10 + 0.25 + 0.25 + 0.25 = 0.85, the last from two rows of one day."""
    assert refreshed("pro_6000", 1, {0: "0.10", 1: "0.25", 2: "1.00", 5: "0.70"}) == Decimal("0.85")


def test_s32_a_pool_has_one_cap_a_day_for_all_its_seats() -> None:
    """S32: 0.70 and 0.10 of two members in one bucket, cap 3 × 0.25."""
    assert refreshed("team_6000", 3, {0: "0.80"}) == Decimal("0.75")


def test_s33_a_departed_members_usage_stays_refreshed() -> None:
    """S33 (the amounts): the pool's day is what it was, whoever left since."""
    assert refreshed("team_6000", 2, {0: "0.50"}) == Decimal("0.50")


@pytest.mark.parametrize("plan", ["free", "enterprise"])
def test_s35_free_and_enterprise_have_no_refresh(plan: str) -> None:
    """S35: neither an amount nor a day."""
    per_day = ORIGIN.allowance(plan, 5).refresh_per_day
    refresh = daily_refresh({0: Decimal(3)}, per_day)
    assert (refresh.total, refresh.days) == (Decimal(0), ())


def test_s29_days_of_the_legacy_counter_are_refreshed_like_any_other() -> None:
    """S29 (the amounts): 10 × 0.25 + 0.25 = 2.75; and 10 × 0.25 + 0.25 of smaller days stay uncapped below it."""
    before = dict.fromkeys(range(10), "4.00")
    assert refreshed("pro_6000", 1, before | {10: "10.00"}) == Decimal("2.75")


def test_a_day_that_corrections_made_negative_takes_nothing_from_the_others() -> None:
    """§6: clamp(cost, 0, cap), day by day."""
    assert refreshed("pro", 1, {0: "-2.00", 1: "0.20"}) == Decimal("0.20")


def test_the_refresh_keeps_its_days_in_order() -> None:
    """The derivation shows them as a calendar does, whatever order they were read in."""
    refresh = daily_refresh({3: Decimal(1), 1: Decimal("0.1")}, Decimal("0.25"))
    assert refresh.days == (
        DayRefresh(1, Decimal("0.1"), Decimal("0.1")),
        DayRefresh(3, Decimal(1), Decimal("0.25")),
    )


@pytest.mark.parametrize(
    ("occurred_at", "bucket"),
    [
        (P1[0], 0),
        (P1[0] + timedelta(days=1) - MICROSECOND, 0),
        (P1[0] + timedelta(days=1), 1),
        (P1[1] - MICROSECOND, 29),
        (P1[1], 29),
        (P1[1] + timedelta(days=40), 29),
        (P1[0] - MICROSECOND, 0),
        (P1[0] - timedelta(days=40), 0),
    ],
)
def test_refresh_counts_a_late_row_in_the_last_bucket_and_an_early_one_in_the_first(
    occurred_at: datetime, bucket: int
) -> None:
    """§6, to the microsecond on each side of a boundary."""
    assert day_bucket(occurred_at, *P1) == bucket


def test_buckets_are_anniversary_days() -> None:
    """A period that begins at noon has days from noon to noon; a part of a day at the end is a bucket of its own."""
    start, end = datetime(2026, 6, 1, 12, tzinfo=UTC), datetime(2026, 6, 3, 13, tzinfo=UTC)
    assert day_bucket(datetime(2026, 6, 2, 11, 59, tzinfo=UTC), start, end) == 0
    assert day_bucket(datetime(2026, 6, 2, 12, tzinfo=UTC), start, end) == 1
    assert day_bucket(datetime(2026, 6, 3, 12, tzinfo=UTC), start, end) == 2


def test_a_change_of_clocks_moves_no_bucket() -> None:
    """24 hours are 24 hours, also in the zone of a database session that has summer time."""
    berlin = ZoneInfo("Europe/Berlin")
    start, end = datetime(2026, 3, 28, 12, tzinfo=berlin), datetime(2026, 4, 28, 12, tzinfo=berlin)
    assert day_bucket(datetime(2026, 3, 29, 12, tzinfo=berlin), start, end) == 0
    assert day_bucket(datetime(2026, 3, 29, 13, tzinfo=berlin), start, end) == 1


def test_a_naive_time_and_an_empty_period_are_refused() -> None:
    """Neither has a day to be counted in."""
    with pytest.raises(ValueError, match="no time zone"):
        day_bucket(datetime(2026, 6, 2), *P1)  # noqa: DTZ001
    with pytest.raises(ValueError, match="ends after it starts"):
        day_bucket(P1[0], P1[0], P1[0])


@given(start=instants, length=lengths, occurred_at=instants, later=lengths)
def test_a_bucket_lies_in_its_period_and_never_goes_back(
    start: datetime, length: timedelta, occurred_at: datetime, later: timedelta
) -> None:
    """For any period and any two times."""
    end = start + length
    bucket, next_bucket = day_bucket(occurred_at, start, end), day_bucket(occurred_at + later, start, end)
    assert 0 <= bucket <= next_bucket <= day_bucket(end - MICROSECOND, start, end)


@given(start=instants, length=lengths, data=st.data())
def test_a_bucket_ends_a_microsecond_before_the_next_begins(
    start: datetime, length: timedelta, data: st.DataObject
) -> None:
    """At every boundary inside the period."""
    end = start + length
    day = data.draw(st.integers(0, day_bucket(end, start, end)))
    assert day_bucket(start + timedelta(days=day), start, end) == day
    assert day_bucket(start + timedelta(days=day + 1) - MICROSECOND, start, end) == day


@given(costs=st.dictionaries(days, amounts), per_day=amounts)
def test_a_refresh_never_exceeds_the_usage_nor_a_cap_a_day(costs: dict[int, Decimal], per_day: Decimal) -> None:
    """So effective usage is never below zero where nothing was corrected."""
    assert 0 <= daily_refresh(costs, per_day).total <= min(sum(costs.values()), per_day * len(costs))


@given(costs=st.dictionaries(days, signed_amounts), per_day=amounts)
def test_a_refresh_is_the_sum_of_its_days(costs: dict[int, Decimal], per_day: Decimal) -> None:
    """The total shown is exactly its terms."""
    refresh = daily_refresh(costs, per_day)
    assert refresh.total == sum(day.refresh for day in refresh.days)
