"""Bills a running period whose unbilled overage has reached the threshold (BEHAVIOUR §9), and tells about the limit's marks (§8)."""

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.alerts import ARMED_BELOW_PERCENT, marks_reached
from meterbook.core.charges import threshold_bill
from meterbook.core.derivation import amount_text
from meterbook.core.ledgers import Billed
from meterbook.core.plans import Catalog
from meterbook.operations.read_usage import read_report
from meterbook.postgres import billing


async def bill_threshold(conn: AsyncConnection[Any], entity_id: int, catalog: Catalog, at: datetime | None) -> Billed:
    """In the connection's transaction, at READ COMMITTED: under the period's lock twenty at once make one charge."""
    period_id = await billing.find_home(conn, entity_id, at)
    if period_id is None:
        return Billed(0, 0, "period_not_open")
    await billing.lock_period(conn, entity_id, period_id)
    usage = await read_report(conn, entity_id, period_id, catalog, at)
    bill = threshold_bill(usage, catalog, usage.facts.at)
    if not bill.is_empty:
        await billing.write_bill(conn, usage.facts, "threshold", bill, usage.overage)
    return Billed(bill.charged_cents, bill.credits_cents, bill.reason)


async def claim_alerts(conn: AsyncConnection[Any], entity_id: int, catalog: Catalog, at: datetime | None) -> bool:
    """Tells once about 80 % and 100 % of the limit; below 70 % both are armed again. True if this call told."""
    period_id = await billing.find_home(conn, entity_id, at)
    if period_id is None:
        return False
    usage = await read_report(conn, entity_id, period_id, catalog, at)
    marks = marks_reached(usage.effective, usage.limit)
    if marks:
        payload = {"entity": usage.entity, "used": amount_text(usage.effective), "limit": amount_text(usage.limit)}
        return await billing.claim_marks(conn, usage.facts, marks, payload)
    if usage.percent < ARMED_BELOW_PERCENT:
        await billing.arm_marks(conn, usage.facts)
    return False
