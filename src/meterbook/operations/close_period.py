"""Closes a period by the clock (BEHAVIOUR §10): fenced in one transaction, so that recordings treat it as closed; sealed in another.

Idempotent: whoever comes second finds it closed. Only a charge defers it that can't be addressed, or
whose amount an event that could not be applied may change.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from psycopg import AsyncConnection

from meterbook.core.charges import final_bill, unless_waiting
from meterbook.core.give_back import given_back_at_close
from meterbook.core.plans import Catalog
from meterbook.core.usage_report import UsageReport, report
from meterbook.operations.grant_credit import grant_back
from meterbook.operations.wait_for_events import unless_an_event_waits
from meterbook.postgres import billing
from meterbook.postgres.billing import LockedPeriod

Outcome = Literal["fenced", "closed", "deferred", "nothing_to_do"]
"""`nothing_to_do`: somebody closed it meanwhile, or its end was moved."""


async def fence_due_period(
    conn: AsyncConnection[Any], entity_id: int, period_id: int, catalog: Catalog, at: datetime | None
) -> Outcome | Literal["undecided"]:
    """The first transaction where nothing could defer the close; `undecided`: fence_period looks closer."""
    return await billing.fence_due_period(conn, entity_id, period_id, catalog.settlement_grace, at)


async def fence_period(
    conn: AsyncConnection[Any], entity_id: int, period_id: int, catalog: Catalog, at: datetime | None
) -> Outcome:
    """The first transaction: `fenced`, or `deferred`, and somebody is told once."""
    locked = await billing.lock_and_read_period(conn, entity_id, period_id, at)
    usage = _report(locked, catalog)
    if usage is None or locked.state == "closed" or usage.facts.at < usage.period.ends_at + catalog.settlement_grace:
        return "nothing_to_do"
    bill = await unless_an_event_waits(conn, usage, final_bill(usage, catalog))
    if bill.reason is not None:
        await billing.unfence_period(conn, entity_id, period_id, bill.reason, at)
        return "deferred"
    await billing.fence_period(conn, entity_id, period_id)
    return "fenced"


async def seal_period(
    conn: AsyncConnection[Any], entity_id: int, period_id: int, catalog: Catalog, at: datetime | None
) -> Outcome:
    """The second, at READ COMMITTED: `closed`, or `deferred` after all, and it takes entries again."""
    locked = await billing.lock_and_fold_period(conn, entity_id, period_id, at)
    usage = _report(locked, catalog)
    if usage is None:
        return "nothing_to_do"
    bill = unless_waiting(final_bill(usage, catalog), event_waits=locked.event_waits)
    if bill.reason is not None:
        await billing.unfence_period(conn, entity_id, period_id, bill.reason, at)
        return "deferred"
    final_cents = bill.charged_cents + bill.credits_cents
    cents = given_back_at_close(usage, catalog.plan(usage.period.plan), locked.corrections, final_cents)
    await _give_back(conn, usage, cents)
    await billing.charge_and_seal_period(conn, usage.facts, bill, cents, _figures(usage))
    return "closed"


def _report(locked: LockedPeriod, catalog: Catalog) -> UsageReport | None:
    return None if locked.facts is None else report(locked.facts, catalog.plan(locked.facts.period.plan))


async def _give_back(conn: AsyncConnection[Any], usage: UsageReport, cents: int) -> None:
    """What negative corrections took out of what was already billed comes back as credit, once."""
    facts = usage.facts
    if cents:
        grant_id = f"close:{facts.entity_id}:{facts.period.id}"
        await grant_back(conn, facts.entity_id, grant_id, cents, facts.period.id, facts.at)


def _figures(usage: UsageReport) -> dict[str, Decimal]:
    return {
        "baseline": usage.baseline,
        "refresh": usage.refresh,
        "effective": usage.effective,
        "overage": usage.overage,
    }
