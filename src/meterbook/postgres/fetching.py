"""What most statements give: one value."""

from collections.abc import Mapping
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from meterbook.postgres.refusals import refusals


async def fetch_value(conn: AsyncConnection[Any], statement: LiteralString, arguments: Mapping[str, Any]) -> Any:
    """The first column of the first row; None if there is no row. What PostgreSQL refuses is raised as an error of ours."""
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(statement, arguments)
            row = await cursor.fetchone()
    return None if row is None else row[0]
