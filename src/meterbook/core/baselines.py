"""The days of a legacy counter's usage (BEHAVIOUR §6): the counter is what is owed, its audit rows only date it."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from meterbook.core.money import EXACT, ZERO
from meterbook.core.refresh import day_bucket


def dated_baseline(
    total: Decimal, audit: Iterable[tuple[datetime, Decimal]], starts_at: datetime, ends_at: datetime
) -> dict[int, Decimal]:
    """By bucket, oldest rows first, until the counter is used up; the rest of the counter has no day and is not refreshed."""
    left = total
    by_day: dict[int, Decimal] = {}
    for occurred_at, cost in sorted(audit):
        dated = min(cost, left)
        if dated > ZERO:
            day = day_bucket(occurred_at, starts_at, ends_at)
            by_day[day] = EXACT.add(by_day.get(day, ZERO), dated)
            left = EXACT.subtract(left, dated)
    return by_day
