"""Statements of the doctor."""

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from meterbook.postgres.refusals import refusals
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)


async def read_health(conn: AsyncConnection[Any], statement: str, at: datetime | None) -> dict[str, Any]:
    with refusals():
        async with conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(SQL[statement], {"at": at})
            row = await cursor.fetchone()
    return row or {}
