"""How much an entity may use, and where it stands (BEHAVIOUR §8)."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from meterbook.core.money import EXACT, ZERO
from meterbook.core.period_facts import PeriodFacts
from meterbook.core.plans import Plan

EntityKind = Literal["user", "organization"]
Status = Literal["ok", "warning", "exceeded"]

WARNING_SHARE = Decimal("0.8")
_FULL = Decimal(100)
_PERCENT_PLACES = 2


def limit_of(
    plan: Plan,
    kind: EntityKind,
    *,
    included: Decimal | None,
    stored: Decimal | None,
    credits: Decimal,  # noqa: A002 the word of BEHAVIOUR §9
) -> Decimal:
    """The limit of an entity in a period.

    `included` is the period's own, not the plan's; `credits` what is spendable plus what credits paid of
    this period. They count on a plan with overage only: free has its fixed limit (an organization's is 0)
    whatever is stored, and a contract is limited by what is stored, so that without it everything is denied.
    """
    if plan.limit is not None:
        return plan.limit if kind == "user" else ZERO
    if included is None:
        return stored or ZERO
    return max(stored or ZERO, EXACT.add(included, credits))


@dataclass(frozen=True, slots=True)
class Standing:
    """Use against a limit. The status compares the exact amounts; `percent` is for the eye: cut at two
    places, never rounded up, at most 100, so that 39.99 of 50 is 79.98 and 97.40 of 120 is 81.16.
    """

    used: Decimal
    limit: Decimal
    percent: Decimal
    status: Status

    @property
    def percent_shown(self) -> int:
        """Cut to a whole number, where there is no room for places: 81 of 81.16."""
        return int(self.percent)


def standing(used: Decimal, limit: Decimal) -> Standing:
    return Standing(used, limit, _percent(used, limit), _status(used, limit))


def _status(used: Decimal, limit: Decimal) -> Status:
    if used >= limit:
        return "exceeded"
    return "warning" if used >= EXACT.multiply(WARNING_SHARE, limit) else "ok"


def _percent(used: Decimal, limit: Decimal) -> Decimal:
    if used >= limit:
        return _FULL
    hundredths = EXACT.scaleb(used, 2 + _PERCENT_PLACES)
    return EXACT.scaleb(EXACT.divide_int(hundredths, limit), -_PERCENT_PLACES)


def edit_refusal(facts: PeriodFacts, plan: Plan, stored: Decimal, *, by_operator: bool, role: str | None) -> str | None:
    """Why an edit of the stored limit is refused, or None. `role`: of the user who edits, in the organization, or `self`."""
    if plan.limit is not None:
        return "the free plan's limit is fixed"
    if not by_operator and (plan.included is None or role not in ("owner", "admin", "self")):
        return "only an operator may" if plan.included is None else "only an owner or an admin of the organization may"
    if facts.blocks:
        return "the entity is blocked"
    if facts.addressee.status != "active":
        return f"the subscription is {facts.addressee.status}, not active"
    if plan.included is None:
        return None
    minimum = facts.included_now or ZERO
    return f"{stored} is below {minimum}, which the plan includes" if stored < minimum else None
