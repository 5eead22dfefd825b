"""Statements over all payers, for people. None writes."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import args_row, kwargs_row

from meterbook.core.ledgers import Charge, DeliveryState
from meterbook.core.overviews import (
    Blocked,
    Conflict,
    DaySpent,
    DeferredClose,
    ListedCharge,
    ListedPeriod,
    RunningSums,
    Waiting,
)
from meterbook.postgres.refusals import refusals
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)
ATTEMPTS_IN_VAIN = 5
_Row = TypeVar("_Row")


async def list_days(conn: AsyncConnection[Any], days: int, at: datetime | None) -> list[DaySpent]:
    return await _list(conn, "list_days", DaySpent, {"days": days, "at": at})


async def sum_running(
    conn: AsyncConnection[Any], rows: int, without_overage: Sequence[str], at: datetime | None
) -> RunningSums:
    """`without_overage`: plans that have none, whatever their periods include."""
    with refusals():
        async with conn.cursor(row_factory=kwargs_row(RunningSums)) as cursor:
            await cursor.execute(SQL["sum_running"], {"rows": rows, "without_overage": list(without_overage), "at": at})
            (sums,) = await cursor.fetchall()
    return sums


async def read_waiting(conn: AsyncConnection[Any], at: datetime | None) -> Waiting:
    (waiting,) = await _list(conn, "read_waiting", Waiting, {"at": at})
    return waiting


async def list_conflicts(conn: AsyncConnection[Any], rows: int) -> list[Conflict]:
    return await _list(conn, "list_conflicts", Conflict, {"rows": rows})


async def list_deferred(conn: AsyncConnection[Any], rows: int) -> list[DeferredClose]:
    return await _list(conn, "list_deferred", DeferredClose, {"rows": rows})


async def list_blocked(conn: AsyncConnection[Any], rows: int) -> list[Blocked]:
    return await _list(conn, "list_blocked", Blocked, {"rows": rows})


async def list_stuck(conn: AsyncConnection[Any], rows: int, at: datetime | None) -> list[DeliveryState]:
    return await _list(conn, "list_stuck", DeliveryState, {"rows": rows, "attempts": ATTEMPTS_IN_VAIN, "at": at})


async def find_names(conn: AsyncConnection[Any], text: str, rows: int) -> list[str]:
    """Payers whose id begins with `text`."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return await _list(conn, "find_names", str, {"pattern": f"{escaped}%", "rows": rows})


async def list_all_periods(
    conn: AsyncConnection[Any], rows: int, state: str | None, before: tuple[datetime, int] | None, at: datetime | None
) -> list[ListedPeriod]:
    """The latest end first, after the (end, id) `before`."""
    before_end, before_id = before or (None, None)
    arguments = {"rows": rows, "state": state, "before_end": before_end, "before_id": before_id, "at": at}
    return await _list(conn, "list_all_periods", ListedPeriod, arguments)


async def list_all_charges(conn: AsyncConnection[Any], rows: int, before: int | None) -> list[ListedCharge]:
    """Newest first."""
    return await _list(conn, "list_all_charges", _charge, {"rows": rows, "before": before})


def _charge(entity: str, *rest: Any) -> ListedCharge:
    return ListedCharge(entity, Charge(*rest))


async def _list(
    conn: AsyncConnection[Any], statement: str, kind: Callable[..., _Row], arguments: Mapping[str, Any]
) -> list[_Row]:
    with refusals():
        async with conn.cursor(row_factory=args_row(kind)) as cursor:
            await cursor.execute(SQL[statement], arguments)
            return await cursor.fetchall()
