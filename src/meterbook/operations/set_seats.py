"""How many seats a subscription is to have: Stripe is told through the outbox (BEHAVIOUR §7, §11)."""

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.arguments import check_whole
from meterbook.core.entries import check_text
from meterbook.core.plans import Catalog
from meterbook.errors import SeatsRefused, UnknownEntity
from meterbook.operations.put_subscription import SEATS_MAX
from meterbook.postgres.customers import change_customers

REFUSALS = {
    "ended": "has ended",
    "not_at_stripe": "has no id at Stripe: say its seats by put_subscription",
    "by_contract": "is by contract: its seats stand in its metadata at Stripe",
}


async def set_seats(
    conn: AsyncConnection[Any], subscription: str, seats: int, catalog: Catalog, at: datetime | None
) -> None:
    """Raises `UnknownEntity`, `SeatsRefused`, `InvalidUsage`."""
    check_text("subscription", subscription)
    check_whole("seats", seats, 1, SEATS_MAX, "invalid_seats")
    contracts = [plan.code for plan in catalog.plans if plan.price is None]
    arguments = {"subscription": subscription, "seats": seats, "contracts": contracts, "at": at}
    outcome = await change_customers(conn, "set_seats", arguments)
    if outcome == "unknown":
        raise UnknownEntity(f"subscription {subscription!r} is not known")
    if outcome != "told":
        raise SeatsRefused(f"{subscription} {REFUSALS[outcome]}")
