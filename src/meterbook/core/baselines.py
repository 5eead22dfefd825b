"""The days of a legacy counter's usage (BEHAVIOUR §6): the counter is what is owed, its audit rows only date it."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal

from meterbook.core.money import EXACT, ZERO
from meterbook.core.refresh import day_bucket


def dated_baseline(
    total: Decimal, audit: Iterable[tuple[datetime, Decimal]], starts_at: datetime, ends_at: datetime
) -> dict[int, Decimal]:
    """By bucket, oldest rows first, until the counter is used up; the rest of the counter has no day and is not refreshed."""
    by_day: dict[int, Decimal] = {}
    for occurred_at, cost in audit:
        day = day_bucket(occurred_at, starts_at, ends_at)
        by_day[day] = EXACT.add(by_day.get(day, ZERO), max(cost, ZERO))
    return oldest_first(total, by_day)


def oldest_first(total: Decimal, by_day: Mapping[int, Decimal]) -> dict[int, Decimal]:
    """The oldest days whose costs use up `total`; the last of them in part."""
    left = total
    dated: dict[int, Decimal] = {}
    for day, cost in sorted(by_day.items()):
        part = min(cost, left)
        if part > ZERO:
            dated[day] = part
            left = EXACT.subtract(left, part)
    return dated
