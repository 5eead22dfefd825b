"""What a correction takes out of a bill is given back as credit (BEHAVIOUR §3.7)."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

from meterbook.core.money import EXACT, ZERO, cents
from meterbook.core.plans import Plan
from meterbook.core.refresh import day_bucket
from meterbook.core.usage_report import UsageReport, cost_by_day, overage_of


class CorrectedDay(NamedTuple):
    """Corrections of a period's entries on one of its days: those booked in it, or after its close; their sum, and the negative part."""

    day: int
    booked_here: bool
    amount: Decimal
    negative: Decimal


def overage_with(usage: UsageReport, plan: Plan, changes: Iterable[tuple[int, Decimal]]) -> Decimal:
    """The overage of a period, had these amounts been on these days; days that a cut took away count in its last bucket."""
    period, by_day = usage.period, cost_by_day(usage.facts)
    last = day_bucket(period.ends_at, period.starts_at, period.ends_at)
    counted = EXACT.subtract(usage.total, usage.given_back)
    for day, amount in changes:
        bucket = min(day, last)
        by_day[bucket] = EXACT.add(by_day.get(bucket, ZERO), amount)
        counted = EXACT.add(counted, amount)
    return overage_of(usage.period, plan, counted, by_day).amount


def given_back_at_close(
    usage: UsageReport, plan: Plan, corrections: Sequence[CorrectedDay], final_cents: int = 0
) -> int:
    """`min(billed, cents(overage without its negative corrections)) − cents(overage)`, never below 0.

    Corrections that came between the fence and the seal found the period closed, and were left to the seal: they count as those after a
    close do, of what the final bill (`final_cents`) made of it.
    """
    without = overage_with(usage, plan, [(one.day, -one.negative) for one in corrections if one.booked_here])
    back = max(0, min(usage.billed_cents, cents(without)) - cents(usage.overage))
    kept = min(usage.billed_cents + final_cents - back, cents(usage.overage))
    elsewhere = [(one.day, one.amount) for one in corrections if not one.booked_here]
    return back + max(0, kept - cents(overage_with(usage, plan, elsewhere)))


def given_back_after_close(
    usage: UsageReport, plan: Plan, corrections: Iterable[CorrectedDay], this: tuple[int, Decimal], so_far_cents: int
) -> int:
    """For a closed period: `min(billed − given back so far, cents(overage before)) − cents(overage after)`, never below 0.

    `corrections` are all that came after the close, `this` one among them; each counts on its entry's day.
    """
    after = [(one.day, one.amount) for one in corrections if not one.booked_here]
    before = [*after, (this[0], EXACT.minus(this[1]))]
    kept = min(usage.billed_cents - so_far_cents, cents(overage_with(usage, plan, before)))
    return max(0, kept - cents(overage_with(usage, plan, after)))
