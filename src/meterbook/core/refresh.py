"""The daily refresh: a use-it-or-lose-it allowance for each day of a period (BEHAVIOUR §6)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from meterbook.core.derivation import Derivation, amount_text
from meterbook.core.instants import utc
from meterbook.core.money import ZERO, total_of

_DAY = timedelta(days=1)
_INSTANT = timedelta(microseconds=1)


def day_bucket(occurred_at: datetime, period_start: datetime, period_end: datetime) -> int:
    """Which 24 hours of `[start, end)`, counted from its start and not from midnight, bear this usage.

    What happened before the period counts in bucket 0, what happened after it in the last one.
    """
    start, end = utc(period_start), utc(period_end)
    if end <= start:
        raise ValueError(f"a period ends after it starts, not [{start}, {end})")
    last_bucket = (end - _INSTANT - start) // _DAY
    return min(max((utc(occurred_at) - start) // _DAY, 0), last_bucket)


class DayRefresh(NamedTuple):
    day: int
    cost: Decimal
    refresh: Decimal


@dataclass(frozen=True, slots=True)
class Refresh:
    """What was refreshed in one period, with the cost of the days it came from, in order; none on a plan without a refresh."""

    per_day: Decimal
    total: Decimal
    costs: tuple[tuple[int, Decimal], ...] = ()

    @property
    def days(self) -> tuple[DayRefresh, ...]:
        """In their order. For those who are shown why; most callers only want to know how much."""
        return tuple(DayRefresh(day, cost, _of_day(cost, self.per_day)) for day, cost in self.costs)

    def derivation(self) -> Derivation:
        if not self.per_day:
            return Derivation("daily refresh", self.total, "none in this period")
        most = amount_text(self.per_day)
        days = (
            Derivation(f"day {day.day}", day.refresh, f"clamp({amount_text(day.cost)}, 0, {most})") for day in self.days
        )
        return Derivation("daily refresh", self.total, f"Σ over days of clamp(cost, 0, {most})", tuple(days))


def daily_refresh(cost_by_day: Mapping[int, Decimal], refresh_per_day: Decimal) -> Refresh:
    """`Σ over days of clamp(cost, 0, refresh_per_day)`: a day that corrections made negative adds nothing."""
    if not refresh_per_day:
        return Refresh(ZERO, ZERO)
    total = total_of(_of_day(cost, refresh_per_day) for cost in cost_by_day.values())
    return Refresh(refresh_per_day, total, tuple(sorted(cost_by_day.items())))


def _of_day(cost: Decimal, most: Decimal) -> Decimal:
    return most if cost > most else max(cost, ZERO)
