"""Whose counters are whose (BEHAVIOUR §4, §13): the payer, the period and the rows of each counter, by what the product's tables say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from meterbook.core.cutover import CutoverFinding
from meterbook.core.money import AMOUNT_BELOW, ZERO
from meterbook.core.plans import Catalog, Plan
from meterbook.core.windows import interval_months, window_at
from meterbook.errors import MeterbookError

ENTITLED = ("active", "trialing", "past_due")
ENDED = ("canceled", "cancelled", "unpaid", "paused", "incomplete", "incomplete_expired")
"""Words of Stripe that entitle to nothing. Any other is not known, and never means the free plan."""


@dataclass(frozen=True, slots=True)
class Person:
    """A row of their counters, with the membership. `copies`: how many rows name the user; `organization_is_sound`: it is known, and has an
    owner. `kept`: what was used of a plan of their own before the organization paid.
    """

    user_id: str
    running: Decimal
    last: Decimal
    billed: Decimal
    credits: Decimal
    usage_limit: Decimal | None
    blocked: str | None
    kept: Decimal
    kept_at: datetime | None
    organization_id: str | None
    role: str | None
    joined_at: datetime | None
    memberships: int
    copies: int = 1
    organization_is_sound: bool = True

    @property
    def entity(self) -> str:
        return f"user:{self.user_id}"

    @property
    def organization(self) -> str | None:
        return None if self.organization_id is None else f"organization:{self.organization_id}"


@dataclass(frozen=True, slots=True)
class LegacySubscription:
    """What their tables say of a subscription; `interval` None is a month."""

    id: str
    owner: str | None
    plan: str
    status: str | None
    starts_at: datetime | None
    ends_at: datetime | None
    seats: int | None
    interval: str | None
    cancel_at_period_end: bool
    stripe_customer: str | None
    stripe_subscription: str | None


@dataclass(frozen=True, slots=True)
class CounterPlace:
    """A counter and the rows that date it: of `user`, in `[since, until)`, paid by nobody or by `entity`."""

    name: str
    user: str
    entity: str
    amount: Decimal
    starts_at: datetime
    ends_at: datetime
    since: datetime
    until: datetime


def payer_of(
    person: Person, subscriptions: Mapping[str, Sequence[LegacySubscription]], catalog: Catalog
) -> tuple[str, LegacySubscription | None]:
    """Who pays for a person's work, by §4, and by which subscription. Their plans must be known."""
    purses = [(person.entity, False)] + ([(person.organization, True)] if person.organization is not None else [])
    candidates = [
        (_rank(one, catalog.plan(one.plan), pooled=pooled), owner, one)
        for owner, pooled in purses
        for one in subscriptions.get(owner, ())
        if one.status in ENTITLED
    ]
    if not candidates:
        return person.entity, None
    _, owner, best = min(candidates, key=lambda found: found[0])
    return owner, best


def best_of(subscriptions: Sequence[LegacySubscription], catalog: Catalog) -> LegacySubscription | None:
    """The one whose period runs, of one owner's."""
    entitled = [one for one in subscriptions if one.status in ENTITLED]
    return min(entitled, key=lambda one: _rank(one, catalog.plan(one.plan), pooled=False), default=None)


def _rank(one: LegacySubscription, plan: Plan, *, pooled: bool) -> tuple[int, bool, bool, Decimal, Decimal, str]:
    included = plan.allowance(one.seats).included
    begins = ZERO if one.starts_at is None else Decimal(int(one.starts_at.timestamp()))
    return -plan.rank, not pooled, included is not None, -(included or ZERO), -begins, one.id


def window_of(one: LegacySubscription, now: datetime) -> tuple[datetime, datetime]:
    """The running usage window: as reported while that runs, then by its anchor. Its times must be sound."""
    if one.starts_at is None or one.ends_at is None:
        raise ValueError(f"subscription {one.id} has no period")
    months = interval_months(one.interval or "month")
    if months == 1 and one.starts_at <= now < one.ends_at:
        return one.starts_at, one.ends_at
    return window_at(one.starts_at, 1, now)


def person_findings(
    person: Person, subscriptions: Mapping[str, Sequence[LegacySubscription]], catalog: Catalog, now: datetime
) -> list[CutoverFinding]:
    """What does not add up of one person, without looking at the audit log."""
    found = [
        problem
        for owner in (person.entity, person.organization)
        if owner is not None
        for one in subscriptions.get(owner, ())
        if (problem := subscription_finding(one, catalog, now)) is not None
    ]
    if person.memberships > 1:
        found.append(_refused("two_organizations", person.entity, f"is a member of {person.memberships} organizations"))
    if person.copies > 1:
        found.append(_refused("counter_twice", person.entity, f"has {person.copies} rows of counters"))
    if not person.organization_is_sound:
        text = f"is a member of {person.organization}, which is not there, or has no owner"
        found.append(_refused("unknown_organization", person.entity, text))
    found += _odd_amounts(person)
    if found:
        return found
    payer, _ = payer_of(person, subscriptions, catalog)
    if payer == person.entity and person.kept > ZERO:
        text = f"kept usage of {person.kept:f}, but no organization pays"
        found.append(
            CutoverFinding(
                "kept_without_organization", person.entity, text, "not counted: the running counter is what is owed"
            )
        )
    own = best_of(subscriptions.get(person.entity, ()), catalog)
    if payer != person.entity and own is not None and not own.cancel_at_period_end:
        text = f"subscription {own.id} goes on beside {payer}'s"
        treatment = "set to cancel at its period's end, once the entity is switched"
        found.append(CutoverFinding("own_plan_goes_on", person.entity, text, treatment))
    if person.blocked is not None and payer != person.entity and person.role != "owner":
        treatment = "the person stays blocked; the organization follows its owner"
        text = f"is blocked ({person.blocked}) inside {payer}"
        found.append(CutoverFinding("member_blocked", person.entity, text, treatment))
    return found


def _odd_amounts(person: Person) -> list[CutoverFinding]:
    amounts = {
        "running": person.running, "last": person.last, "kept": person.kept, "billed": person.billed, "credits": person.credits,
        "usage_limit": person.usage_limit or ZERO,
    }  # fmt: skip
    return [
        _refused(amount_code(amount), person.entity, problem)
        for name, amount in amounts.items()
        if (problem := amount_problem(name, amount)) is not None
    ]


def amount_code(amount: Decimal) -> str:
    return "negative_counter" if amount.is_finite() and amount < ZERO else "odd_counter"


def amount_problem(name: str, amount: Decimal) -> str | None:
    """Why a figure of theirs is no money that could be taken over; None: it is. `last` may be below zero: it is only compared."""
    if not amount.is_finite():
        return f"{name} is {amount}"
    if amount < ZERO and name != "last":
        return f"{name} is {amount:f}"
    if amount >= AMOUNT_BELOW:
        return f"{name} is {amount:f}, beyond what an amount may be"
    return None


def subscription_finding(one: LegacySubscription, catalog: Catalog, now: datetime | None) -> CutoverFinding | None:
    """Why a subscription can't be taken over; None: it can, or it entitles to nothing."""
    owner = one.owner or f"subscription:{one.id}"
    if one.owner is None:
        return _refused("no_owner", owner, f"subscription {one.id} is nobody's")
    if one.status in ENDED:
        return None
    odd = _odd_terms(one, now)
    if odd is not None:
        code, text = odd
        return _refused(code, owner, f"subscription {one.id} {text}")
    try:
        catalog.plan(one.plan)
        months = interval_months(one.interval or "month")
    except MeterbookError as error:
        return _refused(error.code, owner, f"subscription {one.id}: {error}")
    if months > 1:
        text = f"subscription {one.id} runs for {months} months, its counter too; usage is billed by the month"
        return _refused("longer_than_a_month", owner, text)
    return None


def _odd_terms(one: LegacySubscription, now: datetime | None) -> tuple[str, str] | None:
    """Code and words for what is wrong with the row itself."""
    if one.status not in ENTITLED:
        return "unknown_status", f"has the status {one.status!r}, which nobody knows"
    if one.seats is not None and one.seats < 0:
        return "no_seats", f"has {one.seats} seats"
    if one.starts_at is None or one.ends_at is None or one.starts_at >= one.ends_at:
        return "no_period", f"has no sound period: {one.starts_at} … {one.ends_at}"
    if now is not None and one.starts_at > now:
        return "period_not_begun", f"begins at {one.starts_at}: whose the counter is till then, nobody knows"
    return None


def _refused(code: str, subject: str, message: str) -> CutoverFinding:
    return CutoverFinding(code, subject, message, "left out until it is mended", refused=True)


def places_of(
    person: Person,
    payer: tuple[str, datetime, datetime] | None,
    own: tuple[str, datetime, datetime] | None,
    now: datetime,
) -> list[CounterPlace]:
    """The person's counters whose rows have days: entity and dated period of the running one (`payer`) and of the kept one (`own`)."""
    places = []
    if payer is not None:
        entity, starts, ends = payer
        joined = person.joined_at if entity != person.entity and person.joined_at is not None else starts
        since = max(starts, joined)
        places.append(CounterPlace(person.entity, person.user_id, entity, person.running, starts, ends, since, now))
    if own is not None and person.kept > ZERO:
        entity, starts, ends = own
        until = min(person.kept_at or person.joined_at or now, now)
        until = max(starts, until)
        name = f"kept:{person.user_id}"
        places.append(CounterPlace(name, person.user_id, entity, person.kept, starts, ends, starts, until))
    return places
