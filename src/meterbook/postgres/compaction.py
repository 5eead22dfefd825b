"""Statements of compaction."""

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from meterbook.postgres.refusals import refusals
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)


async def fold_deltas(conn: AsyncConnection[Any], deltas_max: int, at: datetime | None) -> dict[int, int]:
    """Entities whose total moved, with their number of deltas."""
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["compact"], {"deltas_max": deltas_max, "at": at})
            return dict(await cursor.fetchall())


async def vacuum_deltas(conn: AsyncConnection[Any]) -> bool:
    """False if this user may not; autovacuum then does it, later. `conn` is autocommit."""
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["can_vacuum"])
            row = await cursor.fetchone()
            if row is None or not row[0]:
                return False
            await cursor.execute(SQL["vacuum_deltas"])
    return True


async def ensure_partitions(conn: AsyncConnection[Any], at: datetime | None) -> int:
    """The number made; 0 also for a login that may not."""
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["may_make_partitions"])
            may = await cursor.fetchone()
            if may is None or not may[0]:
                return 0
            await cursor.execute(SQL["ensure_partitions"], {"at": at})
            row = await cursor.fetchone()
    return 0 if row is None else int(row[0])
