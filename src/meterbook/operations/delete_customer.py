"""Deletes a user or an organization (BEHAVIOUR §12): ends its subscription, erases what the surrogate stood for, and no row."""

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.charges import final_bill
from meterbook.core.entries import check_text
from meterbook.core.plans import Catalog
from meterbook.core.usage_report import report
from meterbook.errors import UnsettledMoney
from meterbook.operations.wait_for_events import unless_an_event_waits
from meterbook.postgres import reading
from meterbook.postgres.customers import change_customers


async def delete_user(conn: AsyncConnection[Any], user: str, catalog: Catalog, at: datetime | None) -> None:
    """Leaves the organization, whose owner can't be deleted. Raises `UnknownEntity`, `MembershipRefused`, `UnsettledMoney`."""
    check_text("user", user)
    await _refuse_unsettled(conn, f"user:{user}", catalog, at)
    await change_customers(conn, "delete_user", {"user": user, "at": at})


async def delete_organization(
    conn: AsyncConnection[Any], organization: str, catalog: Catalog, at: datetime | None
) -> None:
    """The members fall back as on leaving. Raises `UnknownEntity`, `UnsettledMoney`."""
    check_text("organization", organization)
    await _refuse_unsettled(conn, f"organization:{organization}", catalog, at)
    await change_customers(conn, "delete_organization", {"organization": organization, "at": at})


async def _refuse_unsettled(conn: AsyncConnection[Any], entity: str, catalog: Catalog, at: datetime | None) -> None:
    """Money that couldn't be billed at the close would be lost with the name. What runs is cut now, and its credits judged now."""
    for period in await reading.list_periods(conn, entity, at):
        if period.state == "closed":
            continue
        facts = await reading.find_period(conn, entity, period.id, at)
        if facts is None:
            continue
        cut_at = min(facts.at, facts.period.ends_at)
        usage = report(facts, catalog.plan(period.plan))
        reason = (await unless_an_event_waits(conn, usage, final_bill(usage, catalog, cut_at))).reason
        if reason is not None:
            raise UnsettledMoney(f"{entity} owes money for period {period.id} that can't be billed: {reason}")
