from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meterbook.core.windows import interval_months, window_at
from meterbook.errors import UnknownInterval

MICROSECOND = timedelta(microseconds=1)
instants = st.datetimes(datetime(1990, 1, 1), datetime(2110, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
months = st.sampled_from([1, 1, 2, 3, 6, 12, 36])


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def window(anchor: str, at: str, length: int = 1) -> tuple[str, str]:
    start, end = window_at(day(anchor), length, day(at))
    return start.date().isoformat(), end.date().isoformat()


def test_month_ends_are_clamped_from_the_original_anchor() -> None:
    """§7: 31 January → 28 February → 31 March, and 30 April; a short month shortens no later one."""
    assert window("2026-01-31", "2026-02-01") == ("2026-01-31", "2026-02-28")
    assert window("2026-01-31", "2026-02-28") == ("2026-02-28", "2026-03-31")
    assert window("2026-01-31", "2026-03-31") == ("2026-03-31", "2026-04-30")


def test_a_leap_year_has_a_29_february() -> None:
    """For an anchor on the 31st and for one on 29 February itself, whose other years clamp to the 28th."""
    assert window("2028-01-31", "2028-02-10") == ("2028-01-31", "2028-02-29")
    assert window("2028-02-29", "2028-03-28") == ("2028-02-29", "2028-03-29")
    assert window("2028-02-29", "2029-03-01") == ("2029-02-28", "2029-03-29")
    assert window("2028-02-29", "2030-06-01", 12) == ("2030-02-28", "2031-02-28")
    assert window("2028-02-29", "2032-02-29", 12) == ("2032-02-29", "2033-02-28")


def test_windows_are_half_open() -> None:
    """At the exact end it is the next one's."""
    anchor, end = day("2026-06-01"), day("2026-07-01")
    assert window_at(anchor, 1, end - MICROSECOND) == (anchor, end)
    assert window_at(anchor, 1, end) == (end, day("2026-08-01"))


def test_windows_reach_back_before_the_anchor() -> None:
    """A time before the anchor lies in a window too, on the same boundaries."""
    assert window("2026-03-31", "2026-03-30") == ("2026-02-28", "2026-03-31")
    assert window("2026-03-31", "2025-12-31") == ("2025-12-31", "2026-01-31")


def test_s71_an_annual_subscription_has_monthly_windows_from_its_start() -> None:
    """S71 (the window): anchored at the switch."""
    assert window("2026-06-11", "2026-06-20") == ("2026-06-11", "2026-07-11")


def test_a_window_keeps_the_anchors_time_of_day_in_utc() -> None:
    """Also for an anchor that came in another zone, whose clocks change in between."""
    anchor = datetime(2026, 3, 15, 9, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    assert window_at(anchor, 1, day("2026-04-20")) == (
        datetime(2026, 4, 15, 8, 30, tzinfo=UTC),
        datetime(2026, 5, 15, 8, 30, tzinfo=UTC),
    )


def test_a_naive_time_and_a_window_without_months_are_refused() -> None:
    """There is no window to give."""
    with pytest.raises(ValueError, match="no time zone"):
        window_at(day("2026-06-01"), 1, datetime(2026, 6, 2))  # noqa: DTZ001
    with pytest.raises(ValueError, match="at least 1 month"):
        window_at(day("2026-06-01"), 0, day("2026-06-02"))


@given(anchor=instants, length=months, at=instants)
@example(anchor=day("2026-01-31"), length=1, at=day("2026-02-28"))
@example(anchor=day("2028-02-29"), length=12, at=day("2031-02-28"))
@example(anchor=day("2026-08-31"), length=3, at=day("2026-11-30"))
def test_windows_partition_time(anchor: datetime, length: int, at: datetime) -> None:
    """Each time lies in exactly one window, and one window begins where the other ends, on both sides."""
    start, end = window_at(anchor, length, at)
    assert start <= at < end
    assert window_at(anchor, length, start) == window_at(anchor, length, end - MICROSECOND) == (start, end)
    assert window_at(anchor, length, end)[0] == end
    assert window_at(anchor, length, start - MICROSECOND)[1] == start


@given(anchor=instants, length=months)
def test_the_first_window_begins_at_the_anchor(anchor: datetime, length: int) -> None:
    """To the microsecond."""
    assert window_at(anchor, length, anchor)[0] == anchor


@pytest.mark.parametrize(
    ("interval", "count", "expected"),
    [
        ("month", 1, 1),
        ("month", 3, 3),
        ("year", 1, 12),
        ("year", 2, 24),
        ("3 months", 1, 3),
        ("1 year", 1, 12),
        ("2 years", 1, 24),
    ],
)
def test_intervals_are_whole_months_or_years(interval: str, count: int, expected: int) -> None:
    """As Stripe says them, or in words."""
    assert interval_months(interval, count) == expected


@pytest.mark.parametrize(
    "interval", ["week", "day", "2 weeks", "", "0 months", "-1 month", "1.5 months", "Month", "٣ months"]
)
def test_any_other_interval_is_unknown(interval: str) -> None:
    """§7: a week or a day is an error to fix, never taken for a month."""
    with pytest.raises(UnknownInterval) as refused:
        interval_months(interval)
    assert refused.value.code == "unknown_interval"


def test_an_interval_counted_less_than_once_is_unknown() -> None:
    """A count of zero has no window."""
    with pytest.raises(UnknownInterval):
        interval_months("month", 0)
