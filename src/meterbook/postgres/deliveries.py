"""Statements of what became of the outbox's rows. Each is a transaction of its own: nothing is called while one is open."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import args_row, scalar_row, tuple_row
from psycopg.types.json import Jsonb

from meterbook.core.deliveries import Delivery, Step
from meterbook.postgres.fetching import fetch_value
from meterbook.postgres.refusals import refusals
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)
LEASE_S = 600
"""A worker silent for longer has lost what it was delivering."""


async def claim_delivery(conn: AsyncConnection[Any], without: list[str], at: datetime | None) -> Delivery | None:
    """The next that is due, but for kinds `without` means to deliver; leased."""
    with refusals():
        async with conn.cursor(row_factory=args_row(Delivery)) as cursor:
            await cursor.execute(SQL["claim_delivery"], {"without": without, "lease_s": LEASE_S, "at": at})
            return await cursor.fetchone()


async def begin_step(
    conn: AsyncConnection[Any],
    delivery: Delivery,
    step: Step,
    round_: int,
    made: tuple[str | None, str | None],
    at: datetime | None,
) -> bool:
    """`made`: the invoice and the item that exist so far. False: the lease was lost."""
    arguments = {"step": step, "round": round_, "invoice": made[0], "item": made[1], "lease_s": LEASE_S}
    return bool(await _said(conn, "begin_step", delivery, {**arguments, "at": at}))


async def complete_delivery(
    conn: AsyncConnection[Any],
    delivery: Delivery,
    note: str | None,
    at: datetime | None,
    *,
    sent: bool | int | None = None,
) -> str:
    """`delivered`, `again` (what was `sent` no longer holds) or `lost`."""
    return str(
        await _said(
            conn, "complete_delivery", delivery, {"note": note, "sent": None if sent is None else Jsonb(sent), "at": at}
        )
    )


async def postpone_delivery(
    conn: AsyncConnection[Any], delivery: Delivery, note: str, delay: timedelta, at: datetime | None, *, is_stuck: bool
) -> bool:
    """`is_stuck`: its step needs another idempotency key."""
    arguments = {"note": note, "delay": delay, "is_stuck": is_stuck, "at": at}
    return bool(await _said(conn, "postpone_delivery", delivery, arguments))


async def bury_delivery(conn: AsyncConnection[Any], delivery: Delivery, note: str, at: datetime | None) -> bool:
    return bool(await _said(conn, "bury_delivery", delivery, {"note": note, "at": at}))


async def redrive_delivery(
    conn: AsyncConnection[Any], outbox_id: int, at: datetime | None, *, invoice_is_gone: bool
) -> str:
    """`due`, `not_dead` or `unknown`."""
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            arguments = {"id": outbox_id, "at": at, "invoice_is_gone": invoice_is_gone}
            await cursor.execute(SQL["redrive_delivery"], arguments)
            (outcome,) = await cursor.fetchone() or ("unknown",)
    return str(outcome)


async def sum_seats_paid(conn: AsyncConnection[Any], subscription: str, since: datetime) -> int:
    """The most seats that were in force in the period at Stripe that began at `since`."""
    with refusals():
        async with conn.cursor(row_factory=scalar_row) as cursor:
            await cursor.execute(SQL["sum_seats_paid"], {"subscription": subscription, "since": since})
            return int(await cursor.fetchone() or 0)


async def _said(conn: AsyncConnection[Any], statement: str, delivery: Delivery, arguments: Mapping[str, Any]) -> Any:
    return await fetch_value(conn, SQL[statement], {"id": delivery.id, "lease": delivery.lease, **arguments})
