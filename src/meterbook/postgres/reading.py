"""Statements of reading. Each is one snapshot; none writes."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import args_row, dict_row, tuple_row

from meterbook.core.period_facts import Period, PeriodFacts
from meterbook.postgres.facts import facts_of
from meterbook.postgres.refusals import refusals
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)


def named(entity: str) -> dict[str, str]:
    kind, _, external_id = entity.partition(":")
    return {"kind": kind, "external_id": external_id}


async def find_period(
    conn: AsyncConnection[Any], entity: str, period: str | int, at: datetime | None
) -> PeriodFacts | None:
    """`period`: "current", "last" or an id. None: not known, or not open yet."""
    asked = {"period": str(period), "period_id": period if isinstance(period, int) else None, "at": at}
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["read_period"], named(entity) | asked)
            row = await cursor.fetchone()
    return None if row is None else facts_of(row[0])


async def list_periods(conn: AsyncConnection[Any], entity: str, at: datetime | None) -> list[Period]:
    with refusals():
        async with conn.cursor(row_factory=args_row(Period)) as cursor:
            await cursor.execute(SQL["list_periods"], named(entity) | {"at": at})
            return await cursor.fetchall()


async def is_current(conn: AsyncConnection[Any], entity: str, at: datetime | None) -> bool:
    """Whether the period that runs now is open; False for who is not known."""
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["is_current"], named(entity) | {"at": at})
            row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def entity_exists(conn: AsyncConnection[Any], entity: str) -> bool:
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["entity_exists"], named(entity))
            row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def list_entries(conn: AsyncConnection[Any], arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """At least one row, which carries the summary; `id` is None in it when nothing matches."""
    with refusals():
        async with conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(SQL["list_entries"], arguments)
            return await cursor.fetchall()


class EntryRow(NamedTuple):
    """A row behind a figure; `…_alike`: all of its source and description, itself included."""

    id: str
    actor: str
    source: str
    description: str
    amount: Decimal
    occurred_at: datetime
    belongs_to: int | None
    corrects: str | None
    reason: str | None
    entries_alike: int
    amount_alike: Decimal


async def list_largest_entries(
    conn: AsyncConnection[Any], entity: str, period: Period, *, rows: int, late_rows: int, rows_read: int
) -> list[EntryRow]:
    """Of each source and description the largest `rows`, among the `rows_read` newest of a period that runs, or first of another."""
    with refusals():
        async with conn.cursor(row_factory=args_row(EntryRow)) as cursor:
            arguments = named(entity) | {
                "period": period.id,
                "newest": period.state == "open",
                "from_time": period.starts_at,
                "rows": rows,
                "late_rows": late_rows,
                "rows_read": rows_read,
            }
            await cursor.execute(SQL["list_largest_entries"], arguments)
            return await cursor.fetchall()


class LateSum(NamedTuple):
    belongs_to: int
    entries: int
    amount: Decimal


async def sum_late(conn: AsyncConnection[Any], entity: str, period: int) -> list[LateSum]:
    with refusals():
        async with conn.cursor(row_factory=args_row(LateSum)) as cursor:
            await cursor.execute(SQL["sum_late"], named(entity) | {"period": period})
            return await cursor.fetchall()


async def find_role(conn: AsyncConnection[Any], entity: str, user: str) -> str | None:
    """`self`, `owner`, `admin`, `member`, or None."""
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["find_role"], named(entity) | {"user": user})
            row = await cursor.fetchone()
    return None if row is None else row[0]
