"""Statements of Stripe's events: kept, applied once, and what is remembered of them. None commits."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import args_row

from meterbook.core.ledgers import StripeEventState
from meterbook.postgres.fetching import fetch_value
from meterbook.postgres.refusals import refusals
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)


@dataclass(frozen=True, slots=True)
class KnownSubscription:
    """What is known of a subscription at Stripe, under its lock. `cancels`: our own word about its end, unless Stripe has heard it.

    `is_adopted`: it was known without an id at Stripe, and its metadata name it; `named_at_stripe`: the id that the one they name has.
    """

    seen_at: datetime | None
    seen_rank: int
    seen_event: str
    owner_said: str | None
    monthly_price: Decimal | None
    invoiced_starts_at: datetime | None
    invoiced_ends_at: datetime | None
    subscription_id: str | None
    owner: str | None
    owner_is_gone: bool
    cancels: bool | None
    is_ours: bool
    is_adopted: bool
    named_at_stripe: str | None


async def change(conn: AsyncConnection[Any], statement: str, arguments: Mapping[str, Any]) -> Any:
    """`statement`: a name of stripe_events.sql; gives what it gives."""
    return await fetch_value(conn, SQL[statement], arguments)


async def finish_event(
    conn: AsyncConnection[Any], event: str, state: str, note: str | None, at: datetime | None
) -> None:
    await change(conn, "finish_event", {"id": event, "state": state, "note": note, "at": at})


async def list_events(conn: AsyncConnection[Any], state: str | None, rows: int) -> list[StripeEventState]:
    with refusals():
        async with conn.cursor(row_factory=args_row(StripeEventState)) as cursor:
            await cursor.execute(SQL["list_events"], {"state": state, "rows": rows})
            return await cursor.fetchall()


async def lock_subscription(
    conn: AsyncConnection[Any], subscription: str, event_at: datetime, named: str | None = None
) -> KnownSubscription:
    """Events of one subscription are applied one at a time."""
    with refusals():
        async with conn.cursor(row_factory=args_row(KnownSubscription)) as cursor:
            await cursor.execute(SQL["lock_subscription"], {"id": subscription, "event_at": event_at, "named": named})
            (known,) = await cursor.fetchall()
    return known


async def list_debtors(conn: AsyncConnection[Any], invoice: str) -> list[int]:
    """Entities whose charge an invoice of ours asks for; none for an invoice of Stripe's own making."""
    found: list[int] = await change(conn, "list_debtors", {"invoice": invoice})
    return found


async def list_owners(
    conn: AsyncConnection[Any], *, subscription: str | None = None, customer: str | None = None
) -> list[int]:
    """Entities: whose subscription it is, or whose subscriptions a customer at Stripe pays."""
    found: list[int] = await change(conn, "list_owners", {"subscription": subscription, "customer": customer})
    return found
