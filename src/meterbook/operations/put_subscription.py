"""Makes a subscription known, or what it says now, and opens, cuts or amends the periods that follow (BEHAVIOUR §7, §10)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.arguments import check_flag, check_moment, check_whole
from meterbook.core.entries import check_entity, check_text
from meterbook.core.plans import Catalog
from meterbook.core.windows import interval_months
from meterbook.errors import InvalidUsage, Problem
from meterbook.postgres.customers import change_customers

SEATS_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class SubscriptionTerms:
    """What a subscription says. `starts_at`, `ends_at`: its current period, half-open; `seats` None or 0 counts as 1.

    `cancel_at`: when it is going to end, where that is not with its period.
    """

    id: str
    owner: str
    plan: str
    status: str
    starts_at: datetime
    ends_at: datetime
    seats: int | None = None
    interval: str = "month"
    anchor: datetime | None = None
    cancel_at_period_end: bool = False
    effective_at: datetime | None = None
    currency: str | None = None
    stripe_customer: str | None = None
    stripe_subscription: str | None = None
    cancel_at: datetime | None = None


async def put_subscription(
    conn: AsyncConnection[Any], terms: SubscriptionTerms, catalog: Catalog, at: datetime | None
) -> None:
    """Raises `UnknownPlan`, `UnknownInterval`, `UnknownEntity` (an organization not known), `InvalidUsage`."""
    check_text("id", terms.id)
    check_entity(terms.owner)
    check_text("status", terms.status)
    for name in ("stripe_customer", "stripe_subscription"):
        if getattr(terms, name) is not None:
            check_text(name, getattr(terms, name))
    _check(terms, catalog)
    plan = catalog.plan(terms.plan)
    allowance = plan.allowance(terms.seats)
    arguments = {
        "id": terms.id,
        "owner": terms.owner,
        "plan": plan.code,
        "plan_rank": plan.rank,
        "seats": terms.seats or 1,
        "included": allowance.included,
        "refresh_per_day": allowance.refresh_per_day,
        "status": terms.status,
        "starts_at": terms.starts_at,
        "ends_at": terms.ends_at,
        "interval_months": interval_months(terms.interval),
        "anchor": terms.anchor,
        "cancel_at_period_end": terms.cancel_at_period_end,
        "cancel_at": terms.cancel_at,
        "effective_at": terms.effective_at,
        "stripe_customer": terms.stripe_customer,
        "stripe_subscription": terms.stripe_subscription,
        "at": at,
    }
    await change_customers(conn, "put_subscription", arguments)


def _check(terms: SubscriptionTerms, catalog: Catalog) -> None:
    for name in ("starts_at", "ends_at", "anchor", "effective_at", "cancel_at"):
        if getattr(terms, name) is not None or name in ("starts_at", "ends_at"):
            check_moment(name, getattr(terms, name))
    if terms.currency is not None and check_text("currency", terms.currency).upper() != catalog.currency:
        message = f"{terms.currency} is not the ledger's {catalog.currency}"
        raise InvalidUsage([Problem(None, "currency", "wrong_currency", message)])
    if terms.seats is not None:
        check_whole("seats", terms.seats, 0, SEATS_MAX, "invalid_seats")
    check_text("interval", terms.interval)
    check_flag("cancel_at_period_end", terms.cancel_at_period_end)
