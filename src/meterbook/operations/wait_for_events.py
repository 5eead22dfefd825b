"""What is billed waits while Stripe has told something of the subscription that could not be applied (BEHAVIOUR I4)."""

from typing import Any

from psycopg import AsyncConnection

from meterbook.core.charges import Bill
from meterbook.core.usage_report import UsageReport
from meterbook.postgres import billing


async def unless_an_event_waits(conn: AsyncConnection[Any], usage: UsageReport, bill: Bill) -> Bill:
    """The same, or none. It could only become smaller, or another's, by what is not known yet; so one of nothing waits for nothing."""
    if bill.is_empty or not await billing.event_waits(conn, usage.facts.entity_id, usage.period.id):
        return bill
    return Bill(reason="event_waits")
