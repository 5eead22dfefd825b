"""What is known of one period (BEHAVIOUR §5): every figure, computed from the facts that the database gave."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from types import MappingProxyType
from typing import TypeVar

from meterbook.core.limits import EntityKind, Standing, Status, limit_of, standing
from meterbook.core.money import EXACT, ZERO, total_of
from meterbook.core.overage import Overage, effective_usage, overage
from meterbook.core.period_facts import Period, PeriodFacts, Term
from meterbook.core.plans import Plan
from meterbook.core.refresh import daily_refresh, day_bucket

K = TypeVar("K", str, int, tuple[str, str])


@dataclass(frozen=True)
class UsageReport:
    """An entity's period from one snapshot. Every figure that is enforced, shown or billed is read from here (I6).

    `total` is the baseline and all that was recorded, `effective` what limits and charges know of it. The breakdowns are of the recorded;
    `by_day` counts 24-hour buckets from the period's start and has the baseline's days, `by_description` is keyed by (source, description).
    All are exact and add up as they are; where they are shown with fewer places, `meterbook.apportion` makes them add up there.
    Those that decide nothing are added up when they are first asked for: most callers only want to know what was used, or the limit.
    """

    facts: PeriodFacts
    total: Decimal
    by_day: Mapping[int, Decimal]
    figure: Overage
    standing: Standing

    @cached_property
    def by_actor(self) -> Mapping[str, Decimal]:
        return _largest_first({term.part: term.amount for term in self._terms("actor")})

    @cached_property
    def by_source(self) -> Mapping[str, Decimal]:
        return _largest_first(_grouped((term.part, term.amount) for term in self._terms("description")))

    @cached_property
    def by_description(self) -> Mapping[tuple[str, str], Decimal]:
        return _largest_first({(term.part, term.detail): term.amount for term in self._terms("description")})

    def _terms(self, grain: str) -> list[Term]:
        return [term for term in self.facts.breakdown if term.grain == grain]

    @property
    def entity(self) -> str:
        return self.facts.entity

    @property
    def period(self) -> Period:
        return self.facts.period

    @property
    def count(self) -> int:
        return self.facts.entries

    @property
    def given_back(self) -> Decimal:
        return self.facts.given_back

    @property
    def baseline(self) -> Decimal:
        return self.facts.baseline

    @property
    def refresh(self) -> Decimal:
        return self.figure.effective.refresh.total

    @property
    def effective(self) -> Decimal:
        return self.figure.effective.amount

    @property
    def included(self) -> Decimal | None:
        return self.period.included

    @property
    def overage(self) -> Decimal:
        return self.figure.amount

    @property
    def limit(self) -> Decimal:
        return self.standing.limit

    @property
    def percent(self) -> Decimal:
        return self.standing.percent

    @property
    def status(self) -> Status:
        return self.standing.status

    @property
    def held(self) -> Decimal:
        """Active holds; shown apart, in no percentage."""
        return self.facts.held

    @property
    def charged_cents(self) -> int:
        return self.facts.charged_cents

    @property
    def credits_cents(self) -> int:
        """What credits paid of this period."""
        return self.facts.credits_cents

    @property
    def billed_cents(self) -> int:
        return self.facts.billed_cents


def report(facts: PeriodFacts, plan: Plan) -> UsageReport:
    """`plan` is the period's. Days beyond a period that was cut count in its last bucket."""
    period = facts.period
    counted = EXACT.add(facts.baseline, total_of(facts.recorded.values()))
    by_day = cost_by_day(facts)
    figure = overage_of(period, plan, counted, by_day)
    limit = limit_of(
        plan, kind_of(facts.entity), included=period.included, stored=facts.stored, credits=facts.credits_for_limit
    )
    return UsageReport(
        facts,
        EXACT.add(counted, facts.given_back),
        MappingProxyType(by_day),
        figure,
        standing(figure.effective.amount, limit),
    )


def overage_of(period: Period, plan: Plan, counted: Decimal, by_day: Mapping[int, Decimal]) -> Overage:
    """The one computation of a period's overage (I6): `counted` is all usage that is not given back in money."""
    refresh = daily_refresh(by_day, period.refresh_per_day if period.kind == "dated" else ZERO)
    return overage(effective_usage(counted, refresh), period.included if plan.has_overage else None)


def cost_by_day(facts: PeriodFacts) -> dict[int, Decimal]:
    """Recorded usage and the dated part of the baseline, by bucket."""
    period = facts.period
    last = day_bucket(period.ends_at, period.starts_at, period.ends_at)
    days = dict(facts.recorded)
    for day, amount in facts.baseline_days.items():
        days[day] = EXACT.add(days.get(day, ZERO), amount)
    for day in [day for day in days if day > last]:
        amount = days.pop(day)
        days[last] = EXACT.add(days.get(last, ZERO), amount)
    return dict(sorted(days.items()))


def kind_of(entity: str) -> EntityKind:
    return "user" if entity.startswith("user:") else "organization"


def _grouped(parts: Iterable[tuple[K, Decimal]]) -> dict[K, Decimal]:
    sums: dict[K, Decimal] = {}
    for key, amount in parts:
        sums[key] = EXACT.add(sums.get(key, ZERO), amount)
    return sums


def _largest_first(sums: Mapping[K, Decimal]) -> Mapping[K, Decimal]:
    return MappingProxyType(dict(sorted(sums.items(), key=lambda item: (-item[1], item[0]))))
