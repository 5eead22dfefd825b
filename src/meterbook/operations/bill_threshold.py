"""Bills a running period whose unbilled overage has reached the threshold (BEHAVIOUR §9), and tells about the limit's marks (§8)."""

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.alerts import ARMED_BELOW_PERCENT, marks_reached
from meterbook.core.charges import threshold_bill
from meterbook.core.derivation import amount_text
from meterbook.core.ledgers import Billed
from meterbook.core.plans import Catalog
from meterbook.core.usage_report import UsageReport, report
from meterbook.operations.wait_for_events import unless_an_event_waits
from meterbook.postgres import billing


async def lock_running_period(
    conn: AsyncConnection[Any], entity_id: int, catalog: Catalog, at: datetime | None
) -> UsageReport | None:
    """In the connection's transaction, at READ COMMITTED: whoever bills it comes by here, one at a time. None: the clock has passed it."""
    facts = (await billing.lock_and_read_period(conn, entity_id, None, at)).facts
    return None if facts is None else report(facts, catalog.plan(facts.period.plan))


async def bill_threshold(conn: AsyncConnection[Any], usage: UsageReport | None, catalog: Catalog) -> Billed:
    """Of a period that lock_running_period gave: twenty at once make one charge."""
    if usage is None:
        return Billed(0, 0, "period_not_open")
    bill = await unless_an_event_waits(conn, usage, threshold_bill(usage, catalog, usage.facts.at))
    if not bill.is_empty:
        await billing.write_bill(conn, usage.facts, "threshold", bill, usage.overage)
    return Billed(bill.charged_cents, bill.credits_cents, bill.reason)


async def claim_alerts(conn: AsyncConnection[Any], usage: UsageReport | None) -> bool:
    """Tells once about 80 % and 100 % of the limit; below 70 % both are armed again. True if this call told. A charge changes neither."""
    if usage is None:
        return False
    marks = marks_reached(usage.effective, usage.limit)
    if marks:
        payload = {"used": amount_text(usage.effective), "limit": amount_text(usage.limit)}
        return await billing.claim_marks(conn, usage.facts, marks, payload)
    if usage.percent < ARMED_BELOW_PERCENT:
        await billing.arm_marks(conn, usage.facts)
    return False
