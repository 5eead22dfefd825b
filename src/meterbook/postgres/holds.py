"""Statements of holds."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import args_row, tuple_row

from meterbook.core.ledgers import HoldState
from meterbook.postgres.refusals import refusals
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)


async def lock_gate(conn: AsyncConnection[Any], entity_id: int, at: datetime | None) -> None:
    """In a statement of its own: what is read next is younger than every hold granted before."""
    await _run(conn, "lock_gate", {"entity_id": entity_id, "at": at})


async def grant_hold(conn: AsyncConnection[Any], arguments: Mapping[str, Any]) -> None:
    await _run(conn, "grant_hold", arguments)


async def _run(conn: AsyncConnection[Any], statement: str, arguments: Mapping[str, Any]) -> None:
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL[statement], arguments)


async def find_hold(conn: AsyncConnection[Any], hold_key: str, at: datetime | None) -> HoldState | None:
    with refusals():
        async with conn.cursor(row_factory=args_row(HoldState)) as cursor:
            await cursor.execute(SQL["find_hold"], {"hold_key": hold_key, "at": at})
            return await cursor.fetchone()


async def list_holds(conn: AsyncConnection[Any], entity_id: int, at: datetime | None, rows: int) -> list[HoldState]:
    with refusals():
        async with conn.cursor(row_factory=args_row(HoldState)) as cursor:
            await cursor.execute(SQL["list_holds"], {"entity_id": entity_id, "at": at, "rows": rows})
            return await cursor.fetchall()


class EndedHold(NamedTuple):
    """Outcome `active` (ended now), `expired`, `released`, `settled` (dead before), `replayed`, `conflict` or `unknown`."""

    outcome: str
    entity: str | None
    entity_id: int | None
    actor: str | None
    workspace: str | None


async def end_hold(
    conn: AsyncConnection[Any],
    hold_key: str,
    how: str,
    *,
    settle_key: str | None,
    settled: Decimal | None,
    at: datetime | None,
) -> EndedHold:
    """`how`: settled or released."""
    arguments = {"hold_key": hold_key, "how": how, "settle_key": settle_key, "settled": settled, "at": at}
    with refusals():
        async with conn.cursor(row_factory=args_row(EndedHold)) as cursor:
            await cursor.execute(SQL["end_hold"], arguments)
            ended = await cursor.fetchone()
    assert ended is not None  # noqa: S101  the function gives exactly one row
    return ended
