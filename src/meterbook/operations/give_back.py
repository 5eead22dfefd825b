"""What a correction takes out of the bill of a closed period is given back as credit, in the same transaction (BEHAVIOUR §3.7)."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.give_back import given_back_after_close
from meterbook.core.money import ZERO
from meterbook.core.plans import Catalog
from meterbook.core.usage_report import report
from meterbook.operations.grant_credit import grant_back
from meterbook.postgres import billing


async def give_back(
    conn: AsyncConnection[Any], entity: str, correction: str, amount: Decimal, catalog: Catalog, at: datetime | None
) -> int:
    """Cents granted for this correction; 0 while its entry's period still runs, or is being closed, which gives back itself."""
    where = await billing.find_correction(conn, entity, correction)
    if where is None or where.of_period == where.booked or where.of_day is None or amount >= ZERO:
        return 0
    if await billing.lock_period(conn, where.entity_id, where.of_period) != "closed":
        return 0
    facts = await billing.read_period(conn, where.entity_id, where.of_period, at)
    plan = catalog.plan(facts.period.plan)
    corrections = await billing.list_corrections(conn, where.entity_id, where.of_period)
    so_far = await billing.sum_given_back(conn, where.entity_id, where.of_period)
    cents = given_back_after_close(report(facts, plan), plan, corrections, (where.of_day, amount), so_far)
    if cents:
        await grant_back(conn, where.entity_id, f"correction:{correction}", cents, where.of_period, at)
    return cents
