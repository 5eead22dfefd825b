"""What is billed waits while Stripe has told something of the subscription that could not be applied (BEHAVIOUR I4)."""

from typing import Any

from psycopg import AsyncConnection

from meterbook.core.charges import Bill, unless_waiting
from meterbook.core.usage_report import UsageReport
from meterbook.postgres import billing


async def unless_an_event_waits(conn: AsyncConnection[Any], usage: UsageReport, bill: Bill) -> Bill:
    """The same, or none: `unless_waiting`, with one look whether something waits."""
    if bill.is_empty:
        return bill
    return unless_waiting(bill, event_waits=await billing.event_waits(conn, usage.facts.entity_id, usage.period.id))
