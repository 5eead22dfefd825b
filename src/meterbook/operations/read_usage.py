"""What an entity used in a period (BEHAVIOUR §5). The first read at or after a period's end opens the next."""

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.entries import check_entity, is_id
from meterbook.core.period_facts import Period
from meterbook.core.plans import Catalog
from meterbook.core.usage_report import UsageReport, report
from meterbook.errors import AttributionUnavailable, UnknownEntity, UnknownPeriod
from meterbook.operations.attribute_usage import ATTEMPTS_MAX, Attribute, Parties
from meterbook.postgres import reading


async def read_usage(
    conn: AsyncConnection[Any],
    entity: str,
    period: str | int,
    catalog: Catalog,
    attribute: Attribute,
    at: datetime | None,
) -> UsageReport:
    """Raises `UnknownEntity` (an organization not known), `UnknownPeriod`, `AttributionUnavailable`."""
    check_entity(entity)
    if period not in ("current", "last") and not is_id(period):
        raise UnknownPeriod(entity, period)
    for _ in range(ATTEMPTS_MAX):
        facts = await reading.find_period(conn, entity, period, at)
        if facts is not None:
            return report(facts, catalog.plan(facts.period.plan))
        if isinstance(period, int) and await reading.entity_exists(conn, entity):
            raise UnknownPeriod(entity, period)
        await _open_periods(conn, entity, attribute)
    if period == "last":
        raise UnknownPeriod(entity, period)
    raise AttributionUnavailable


async def list_periods(
    conn: AsyncConnection[Any], entity: str, attribute: Attribute, at: datetime | None
) -> list[Period]:
    """Newest first, up to the one that runs now. Raises `UnknownEntity`, `AttributionUnavailable`."""
    check_entity(entity)
    if not await reading.is_current(conn, entity, at):
        await _open_periods(conn, entity, attribute)
    return await reading.list_periods(conn, entity, at)


async def _open_periods(conn: AsyncConnection[Any], entity: str, attribute: Attribute) -> None:
    await attribute(Parties(entities=(entity,)))
    if not await reading.entity_exists(conn, entity):
        raise UnknownEntity(f"{entity} is not known: call put_organization first")
