"""What is billed, and when (BEHAVIOUR §9, §10). Cents are made here, once: of the overage, half up."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from meterbook.core.credits import Spend, spend_credits
from meterbook.core.money import cents
from meterbook.core.plans import Catalog
from meterbook.core.usage_report import UsageReport

Reason = Literal[
    "below_threshold",
    "plan_without_overage",
    "not_active",
    "blocked",
    "no_stripe_ids",
    "no_owner",
    "period_not_open",
    "event_waits",
]
"""Why nothing was billed; `no_stripe_ids`, `no_owner` and `event_waits` defer a close, the others don't."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What to write: the grants that pay, what is charged, what is written off. Nothing, and why, if `reason` is set."""

    charged_cents: int = 0
    spends: tuple[Spend, ...] = ()
    written_off_cents: int = 0
    reason: Reason | None = None

    @property
    def credits_cents(self) -> int:
        return sum(spend.cents for spend in self.spends)

    @property
    def is_empty(self) -> bool:
        return not (self.charged_cents or self.spends or self.written_off_cents)


def unbilled_cents(usage: UsageReport) -> int:
    """`cents(overage) − earlier charges and credits`, never below 0: a surplus is used up first."""
    return max(0, cents(usage.overage) - usage.billed_cents)


def threshold_bill(usage: UsageReport, catalog: Catalog, at: datetime) -> Bill:
    """While the period is open. Anything missing: nothing at all changes, and it says why."""
    unbilled = unbilled_cents(usage)
    if unbilled < cents(catalog.threshold):
        return Bill(reason="below_threshold")
    reason = _obstacle(usage, catalog)
    if reason is not None:
        return Bill(reason=reason)
    spends = spend_credits(usage.facts.grants, unbilled, at)
    rest = unbilled - sum(spend.cents for spend in spends)
    return Bill(rest if rest >= cents(catalog.smallest_charge) else 0, spends)


def _obstacle(usage: UsageReport, catalog: Catalog) -> Reason | None:
    if not catalog.plan(usage.period.plan).has_overage:
        return "plan_without_overage"
    if usage.period.state != "open":
        return "period_not_open"
    if usage.facts.addressee.status != "active":
        return "not_active"
    if usage.facts.blocks:
        return "blocked"
    return _unaddressable(usage)


def _unaddressable(usage: UsageReport) -> Reason | None:
    addressee = usage.facts.addressee
    if not (addressee.stripe_customer and addressee.stripe_subscription):
        return "no_stripe_ids"
    return None if addressee.has_owner else "no_owner"


def final_bill(usage: UsageReport, catalog: Catalog) -> Bill:
    """At the close: credits, then 0 closes, a rest below the smallest charge is written off, else one final charge.

    Only a charge that can't be addressed defers (`reason`); then nothing changes. Blocked or past due defers nothing.
    """
    due = unbilled_cents(usage)
    spends = spend_credits(usage.facts.grants, due, usage.period.ends_at)
    rest = due - sum(spend.cents for spend in spends)
    if rest == 0:
        return Bill(0, spends)
    if rest < cents(catalog.smallest_charge):
        return Bill(0, spends, rest)
    reason = _unaddressable(usage)
    return Bill(rest, spends) if reason is None else Bill(reason=reason)


def unless_waiting(bill: Bill, *, event_waits: bool) -> Bill:
    """The same, or none while Stripe has told something of the subscription that could not be applied (BEHAVIOUR I4).

    By what is not known yet it could only become smaller, or another's; so a bill of nothing waits for nothing.
    """
    return Bill(reason="event_waits") if event_waits and not bill.is_empty else bill
