"""The catalog of an installation: its plans and what they allow (BEHAVIOUR §7)."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Literal

from meterbook.core.money import EXACT
from meterbook.errors import UnknownPlan

FreePeriod = Literal["lifetime", "calendar"]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a period may use without overage; `included` is None on a plan that has no overage to speak of."""

    included: Decimal | None
    refresh_per_day: Decimal


@dataclass(frozen=True, slots=True)
class Plan:
    """`price` is a month's and None by contract; `included` and `refresh` (a day) are for one seat,
    `included` None without overage; `limit` is the fixed one of the free plan and None elsewhere.
    """

    code: str
    price: Decimal | None
    included: Decimal | None
    refresh: Decimal
    rank: int
    limit: Decimal | None = None
    prices: tuple[str, ...] = ()

    @property
    def has_overage(self) -> bool:
        return self.included is not None and self.limit is None

    def allowance(self, seats: int | None) -> Allowance:
        """No seats, or none said, count as one."""
        if seats is not None and seats < 0:
            raise ValueError(f"seats can't be negative: {seats}")
        factor = Decimal(seats or 1)
        included = None if self.included is None else EXACT.multiply(self.included, factor)
        return Allowance(included, EXACT.multiply(self.refresh, factor))


@dataclass(frozen=True, slots=True)
class Catalog:
    plans: tuple[Plan, ...]
    currency: str
    threshold: Decimal
    smallest_charge: Decimal
    settlement_grace: timedelta
    free_period: FreePeriod

    def plan(self, code: str) -> Plan:
        """Raises `UnknownPlan`: an unknown plan is an error to fix, never the free one."""
        for plan in self.plans:
            if plan.code == code:
                return plan
        raise UnknownPlan(code, tuple(plan.code for plan in self.plans))

    def find_plan_of_price(self, price: str) -> Plan | None:
        """The plan that lists this price of Stripe's; each is of one plan only."""
        return next((plan for plan in self.plans if price in plan.prices), None)

    def allowance(self, code: str, seats: int | None) -> Allowance:
        return self.plan(code).allowance(seats)
