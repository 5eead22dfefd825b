"""Deletes a user or an organization (BEHAVIOUR §12): ends its subscription, erases what the surrogate stood for, and no row."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.charges import final_bill
from meterbook.core.credits import Grant
from meterbook.core.entries import check_text
from meterbook.core.period_facts import Period, PeriodFacts
from meterbook.core.plans import Catalog
from meterbook.core.usage_report import report
from meterbook.errors import UnsettledMoney
from meterbook.operations.wait_for_events import unless_an_event_waits
from meterbook.postgres import reading
from meterbook.postgres.customers import change_customers

_MOMENT = timedelta(microseconds=1)


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
    """Money that couldn't be billed at the close would be lost with the name. Each period is judged as it will be closed: what runs is cut
    now, the oldest end comes first, and a credit pays once.
    """
    spent: dict[int, int] = {}
    for facts in await _unclosed(conn, entity, at):
        left = replace(facts, grants=tuple(_without(grant, spent) for grant in facts.grants))
        usage = report(left, catalog.plan(left.period.plan))
        bill = await unless_an_event_waits(conn, usage, final_bill(usage, catalog))
        if bill.reason is not None:
            raise UnsettledMoney(f"{entity} owes money for period {left.period.id} that can't be billed: {bill.reason}")
        for spend in bill.spends:
            spent[spend.grant_id] = spent.get(spend.grant_id, 0) + spend.cents


async def _unclosed(conn: AsyncConnection[Any], entity: str, at: datetime | None) -> list[PeriodFacts]:
    """What is still to be closed, as it is if it is cut now, the oldest end first."""
    found = []
    for period in await reading.list_periods(conn, entity, at):
        facts = None if period.state == "closed" else await reading.find_period(conn, entity, period.id, at)
        if facts is not None:
            found.append(replace(facts, period=_cut(facts.period, facts.at)))
    return sorted(found, key=lambda facts: (facts.period.ends_at, facts.period.id))


def _cut(period: Period, at: datetime) -> Period:
    return replace(period, ends_at=min(period.ends_at, max(at, period.starts_at + _MOMENT)))


def _without(grant: Grant, spent: Mapping[int, int]) -> Grant:
    return replace(grant, remaining_cents=grant.remaining_cents - spent.get(grant.id, 0))
