"""Statements of subscriptions, organizations, members and workspaces; each is one short transaction of its own."""

from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import scalar_row

from meterbook.postgres.refusals import refusals
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)


async def change_customers(conn: AsyncConnection[Any], statement: str, arguments: dict[str, Any]) -> Any:
    """`statement`: a name of customers.sql; gives what it gives. Raises `UnknownEntity`, `MembershipRefused`, `InvalidUsage`."""
    with refusals():
        async with conn.cursor(row_factory=scalar_row) as cursor:
            await cursor.execute(SQL[statement], arguments)
            return await cursor.fetchone()
