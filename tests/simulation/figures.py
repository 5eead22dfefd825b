"""The arithmetic of the rules, pure: cents, plans, months, days, overage. Written from BEHAVIOUR.md, sharing nothing with meterbook."""

from calendar import monthrange
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

ZERO = Decimal(0)
CENT = Decimal("0.01")
DAY = timedelta(days=1)
MOMENT = timedelta(microseconds=1)
GRACE = timedelta(hours=1)
AHEAD_MAX = timedelta(minutes=5)
THRESHOLD = Decimal("100.00")
SMALLEST_CHARGE = Decimal("0.50")
FREE_LIMIT = Decimal("5.00")
FREE_START = datetime(1970, 1, 1, tzinfo=UTC)
FREE_END = datetime(9999, 12, 31, tzinfo=UTC)
ENTITLED = frozenset({"active", "trialing", "past_due"})
RESTING = frozenset({"unpaid", "paused", "incomplete"})
ENDED = frozenset({"canceled", "incomplete_expired"})
MONTHS = {"month": 1, "year": 12}


@dataclass(frozen=True, slots=True)
class Plan:
    """§7. `included` and `refresh` for one seat; None included: a plan without overage."""

    rank: int
    included: Decimal | None
    refresh: Decimal = ZERO


PLANS = {
    "free": Plan(0, None),
    "pro": Plan(10, Decimal(20), Decimal("0.20")),
    "pro_6000": Plan(10, Decimal(30), Decimal("0.25")),
    "pro_25000": Plan(10, Decimal(125), Decimal("1.00")),
    "team": Plan(20, Decimal(40), Decimal("0.40")),
    "team_6000": Plan(20, Decimal(30), Decimal("0.25")),
    "team_25000": Plan(20, Decimal(125), Decimal("1.00")),
    "enterprise": Plan(30, None),
}


@dataclass(frozen=True, slots=True)
class Terms:
    """What a subscription gave from `at` on (§7): seats null or 0 count as 1."""

    at: datetime
    plan: str
    seats: int | None

    @property
    def counted(self) -> int:
        return self.seats or 1

    @property
    def has_overage(self) -> bool:
        return PLANS[self.plan].included is not None

    @property
    def included(self) -> Decimal:
        return (PLANS[self.plan].included or ZERO) * self.counted

    @property
    def refresh(self) -> Decimal:
        return PLANS[self.plan].refresh * self.counted


def cents(amount: Decimal) -> Decimal:
    """§2: half up at two places."""
    return amount.quantize(CENT, ROUND_HALF_UP)


def add_months(anchor: datetime, months: int) -> datetime:
    """§7: month ends are clamped from the original anchor."""
    year, month0 = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    day = min(anchor.day, monthrange(year, month0 + 1)[1])
    return anchor.replace(year=year, month=month0 + 1, day=day)


def next_boundary(anchor: datetime, after: datetime, every: int = 1) -> datetime:
    """The first instant later than `after` that lies a multiple of `every` months from the anchor."""
    step = ((after.year - anchor.year) * 12 + after.month - anchor.month) // every - 1
    while add_months(anchor, step * every) <= after:
        step += 1
    return add_months(anchor, step * every)


def last_boundary(anchor: datetime, at: datetime) -> datetime:
    """The latest monthly boundary that is not later than `at`."""
    step = (at.year - anchor.year) * 12 + at.month - anchor.month + 1
    while add_months(anchor, step) > at:
        step -= 1
    return add_months(anchor, step)


def bucket(start: datetime, end: datetime, at: datetime) -> int:
    """§6: the anniversary day, clamped into the period."""
    last = -((start - end) // DAY) - 1
    return min(max((at - start) // DAY, 0), max(last, 0))


def refreshed(days: Mapping[int, Decimal], a_day: Decimal) -> Decimal:
    """§6: Σ of what each bucket cost, at most the refresh a day, at least 0."""
    return sum((min(max(cost, ZERO), a_day) for cost in days.values()), ZERO)


def allowance(segments: Sequence[Terms], start: datetime, end: datetime) -> tuple[Decimal, Decimal, bool]:
    """§7: the largest included and refresh a day that were in force at a moment of [start, end), and whether there is overage."""
    earlier = [terms for terms in segments if terms.at <= start]
    within = [terms for terms in segments if start < terms.at < end]
    force = [*(earlier[-1:] or segments[:1]), *within]
    has_overage = force[-1].has_overage
    alike = [terms for terms in force if terms.has_overage == has_overage]
    return max(terms.included for terms in alike), max(terms.refresh for terms in alike), has_overage


def legacy_days(
    start: datetime, end: datetime, counter: Decimal, audit: Iterable[tuple[datetime, Decimal]]
) -> dict[int, Decimal]:
    """§6: audit rows give a baseline its days, oldest first, until the counter is used up."""
    days: dict[int, Decimal] = {}
    for at, amount in sorted(audit):
        taken = min(amount, counter)
        counter -= taken
        day = bucket(start, end, at)
        days[day] = days.get(day, ZERO) + taken
    return days


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one period (§5, §6, §9); `by_actor` is raw."""

    total: Decimal
    count: int
    given_back: Decimal
    refresh: Decimal
    effective: Decimal
    included: Decimal
    overage: Decimal
    by_actor: Mapping[str, Decimal]


def status_of(used: Decimal, limit: Decimal) -> str:
    """§8: compared exactly; limit 0 is exceeded."""
    if used >= limit:
        return "exceeded"
    return "warning" if used >= Decimal("0.8") * limit else "ok"


def percent_of(used: Decimal, limit: Decimal) -> int:
    """§8: cut, at most 100; limit 0 → 100."""
    return 100 if used >= limit else int(used * 100 / limit)
